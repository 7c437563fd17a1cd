/* SPDX-License-Identifier: Apache-2.0 */
/* Store URLs: what each form means, and at which character a wrong one is wrong. */
#include "store/url.h"
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct store_url parse(const char *url)
{
    struct store_url u;
    const char *why = NULL;

    if (store_url_parse(&u, url, &why) != 0)
        fail_msg("%s: %s", url, why);
    return u;
}

static void mem(void **state)
{
    struct store_url u = parse("mem:");

    assert_int_equal(u.kind, STORE_MEM);
    assert_string_equal(u.name, "mem:");
}

static void check_tcp(const char *url, const char *user, const char *password, const char *host, int port, int db,
                      const char *name)
{
    struct store_url u = parse(url);

    assert_int_equal(u.kind, STORE_REDIS_TCP);
    assert_string_equal(u.user, user);
    assert_string_equal(u.password, password);
    assert_int_equal(u.auth, strchr(url, '@') != NULL);
    assert_string_equal(u.hosts[0].host, host);
    assert_int_equal(u.hosts[0].port, port);
    assert_int_equal(u.db, db);
    assert_string_equal(u.name, name);
}

static void tcp(void **state)
{
    check_tcp("redis://", "", "", "127.0.0.1", 6379, 0, "redis://127.0.0.1:6379/0");
    check_tcp("redis:///", "", "", "127.0.0.1", 6379, 0, "redis://127.0.0.1:6379/0");
    check_tcp("redis:///3", "", "", "127.0.0.1", 6379, 3, "redis://127.0.0.1:6379/3");
    check_tcp("redis://:7000", "", "", "127.0.0.1", 7000, 0, "redis://127.0.0.1:7000/0");
    check_tcp("redis://db.example-1.org:7000/15", "", "", "db.example-1.org", 7000, 15,
              "redis://db.example-1.org:7000/15");
    check_tcp("redis://[2001:db8::1]:7000", "", "", "2001:db8::1", 7000, 0, "redis://[2001:db8::1]:7000/0");
    check_tcp("redis://[::1]/1", "", "", "::1", 6379, 1, "redis://[::1]:6379/1");
}

static void password_is_decoded_and_not_named(void **state)
{
    check_tcp("redis://:secret@h", "", "secret", "h", 6379, 0, "redis://h:6379/0");
    check_tcp("redis://bob:secret@h:1", "bob", "secret", "h", 1, 0, "redis://bob@h:1/0");
    check_tcp("redis://a:b@", "a", "b", "127.0.0.1", 6379, 0, "redis://a@127.0.0.1:6379/0");
    check_tcp("redis://bob@h", "bob", "", "h", 6379, 0, "redis://bob@h:6379/0");
    check_tcp("redis://bob:a%40b%2Fc%3a:@h", "bob", "a@b/c::", "h", 6379, 0, "redis://bob@h:6379/0");
    check_tcp("redis://bob:a@b@h", "bob", "a@b", "h", 6379, 0, "redis://bob@h:6379/0");
}

static void unix_socket(void **state)
{
    struct store_url u = parse("redis+unix:///run/redis%20x/r.sock?db=7");

    assert_int_equal(u.kind, STORE_REDIS_UNIX);
    assert_string_equal(u.path, "/run/redis x/r.sock");
    assert_int_equal(u.db, 7);
    u = parse("redis+unix:///r");
    assert_string_equal(u.path, "/r");
    assert_int_equal(u.db, 0);
    assert_string_equal(u.name, "redis+unix:///r?db=0");
}

static void many_hosts(void **state)
{
    struct store_url u = parse("redis-cluster://bob:pw@a:1,[::2],b.c:3");

    assert_int_equal(u.kind, STORE_REDIS_CLUSTER);
    assert_int_equal(u.n_hosts, 3);
    assert_string_equal(u.hosts[0].host, "a");
    assert_string_equal(u.hosts[1].host, "::2");
    assert_int_equal(u.hosts[1].port, 6379);
    assert_int_equal(u.hosts[2].port, 3);
    assert_string_equal(u.password, "pw");
    assert_string_equal(u.name, "redis-cluster://bob@a:1,[::2]:6379,b.c:3");
    u = parse("redis-sentinel://:pw@a,b:5/my%20service/3");
    assert_int_equal(u.kind, STORE_REDIS_SENTINEL);
    assert_int_equal(u.n_hosts, 2);
    assert_int_equal(u.hosts[0].port, 26379);
    assert_string_equal(u.service, "my service");
    assert_int_equal(u.db, 3);
    assert_string_equal(u.name, "redis-sentinel://a:26379,b:5/my service/3");
}

static void tls(void **state)
{
    struct store_url u = parse("rediss://h:1/2?ca=/etc/ca.pem&key=/k%26&cert=/c");

    assert_int_equal(u.kind, STORE_REDIS_TCP);
    assert_true(u.tls);
    assert_int_equal(u.db, 2);
    assert_string_equal(u.ca, "/etc/ca.pem");
    assert_string_equal(u.key, "/k&");
    assert_string_equal(u.cert, "/c");
    assert_string_equal(u.name, "rediss://h:1/2");
    u = parse("rediss-cluster://h?ca=x");
    assert_true(u.tls && u.kind == STORE_REDIS_CLUSTER);
    assert_string_equal(u.ca, "x");
}

static void replicas(void **state)
{
    assert_int_equal(parse("redis://h/1").replicas, 0);
    assert_int_equal(parse("redis://h/1?replicas=2").replicas, 2);
    assert_int_equal(parse("redis://h/1?replicas=2").db, 1);
    assert_int_equal(parse("redis-cluster://a,b?replicas=1").n_hosts, 2);
    assert_int_equal(parse("redis-cluster://a,b?replicas=1").replicas, 1);
    assert_int_equal(parse("redis-sentinel://a/s/3?replicas=1").replicas, 1);
    assert_string_equal(parse("redis-sentinel://a/s?replicas=1").service, "s");
    assert_int_equal(parse("rediss://h?ca=x&replicas=1").replicas, 1);
    assert_int_equal(parse("unix:/r?db=1&replicas=16").replicas, 16);
}

static void file(void **state)
{
    struct store_url u = parse("lmdb:/var/lib/netstar/state?gib=3");

    assert_int_equal(u.kind, STORE_LMDB);
    assert_string_equal(u.path, "/var/lib/netstar/state");
    assert_int_equal(u.gib, 3);
    assert_string_equal(u.name, "lmdb:/var/lib/netstar/state");
}

static void wrong_ones_tell_the_character(void **state)
{
    static const struct {
        const char *url;
        int at;
        const char *words;
    } cases[] = {
        { "", 1, "expected \"mem:\"" },
        { "mem", 1, "expected \"mem:\"" },
        { "REDIS://h", 1, "expected \"mem:\"" },
        { "redis:/h", 1, "\"redis://\"" },
        { "http://h", 1, "\"redis+unix://\"" },
        { "mem:x", 5, "nothing follows" },
        { "redis://h:", 11, "port" },
        { "redis://h:/1", 11, "port" },
        { "redis://h:12x", 13, "digit" },
        { "redis://h:-1", 11, "digit" },
        { "redis://h:0", 11, "1 to 65535" },
        { "redis://h:65536", 11, "1 to 65535" },
        { "redis://h:99999999999999999999999", 11, "1 to 65535" },
        { "redis://h/x", 11, "database" },
        { "redis://h/1/2", 12, "digit" },
        { "redis://h/65536", 11, "database" },
        { "redis://h?db=1", 11, "replicas=N" },
        { "redis://h?ca=x", 11, "replicas=N" },
        { "redis://h/1?replicas=17", 22, "0 to 16" },
        { "redis://h o", 10, "host name" },
        { "redis://::1", 9, "brackets" },
        { "redis://[::1", 13, "']'" },
        { "redis://[::1/", 13, "']'" },
        { "redis://[]", 10, "IPv6" },
        { "redis://[1.2.3.4]", 10, "IPv6" },
        { "redis://[::g]", 10, "IPv6" },
        { "redis://[::1]x", 14, "after ']'" },
        { "redis://[::1]:x", 15, "digit" },
        { "redis://@h", 9, "before '@'" },
        { "redis://:@h", 9, "before '@'" },
        { "redis://a%zz@h", 10, "hexadecimal" },
        { "redis://a%4@h", 10, "hexadecimal" },
        { "redis://a%4", 10, "host name" },
        { "redis://a:%00@h", 11, "%00" },
        { "redis://a: b@h", 11, "%20" },
        { "redis+unix://", 14, "absolute path" },
        { "redis+unix://run/x", 14, "absolute path" },
        { "redis+unix:///x?", 17, "db=N" },
        { "redis+unix:///x?DB=1", 17, "db=N" },
        { "redis+unix:///x?db=", 20, "database" },
        { "redis+unix:///x?db=1&a=2", 22, "db=N" },
        { "redis+unix:///a b", 16, "%20" },
        { "lmdb:", 6, "path" },
        { "lmdb:x?gib=0", 12, "1 to 65536" },
        { "lmdb:x?g", 8, "gib=N" },
        { "redis-cluster://a,b:x", 21, "digit" },
        { "redis-cluster://a/1", 19, "no databases" },
        { "redis://a,b", 10, "host name" },
        { "redis-sentinel://a", 19, "name by which" },
        { "redis-sentinel://a/", 20, "name by which" },
        { "redis-sentinel://a/s/x", 22, "database" },
        { "rediss://h?db=1", 12, "ca=FILE" },
        { "rediss://h?ca=", 15, "authorities" },
        { "rediss://h?cert=x", 18, "go together" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct store_url u;
        const char *why = NULL;
        int rc = store_url_parse(&u, cases[i].url, &why), at = -1;
        if (rc != -EINVAL)
            fail_msg("%s was taken", cases[i].url);
        if (sscanf(why, "character %d: ", &at) != 1 || at != cases[i].at || strstr(why, cases[i].words) == NULL)
            fail_msg("%s: %s", cases[i].url, why);
        assert_int_equal(store_url_parse(&u, cases[i].url, NULL), -EINVAL);
    }
}

static void too_long(void **state)
{
    char url[1024];
    struct store_url u;
    const char *why;

    strcpy(url, "redis+unix:///");
    memset(url + 14, 'x', 107);
    url[14 + 107] = 0;
    assert_int_equal(store_url_parse(&u, url, &why), -EINVAL);
    assert_non_null(strstr(why, "character 121: the path is longer than 107 bytes"));
    url[14 + 106] = 0;
    assert_int_equal(store_url_parse(&u, url, &why), 0);

    strcpy(url, "redis://");
    memset(url + 8, 'x', 300);
    url[308] = 0;
    assert_int_equal(store_url_parse(&u, url, &why), -EINVAL);
    assert_non_null(strstr(why, "character 9: the host name is longer than 255 bytes"));
    strcpy(url + 308, "@h");
    assert_int_equal(store_url_parse(&u, url, &why), -EINVAL);
    assert_non_null(strstr(why, "the user name is longer than 127 bytes"));
    url[8] = ':';
    assert_int_equal(store_url_parse(&u, url, &why), -EINVAL);
    assert_non_null(strstr(why, "the password is longer than 255 bytes"));
    strcpy(url, "redis://[");
    memset(url + 9, ':', 300);
    strcpy(url + 309, "]");
    assert_int_equal(store_url_parse(&u, url, &why), -EINVAL);
    assert_non_null(strstr(why, "character 10: expected an IPv6 address"));
}

/* No prefix of a right URL, and no byte changed in one, may do harm. */
static void cut_and_bent(void **state)
{
    static const char *const urls[] = { "redis://bob:a%40b@[2001:db8::1]:7000/15", "redis+unix:///run/r%20.s?db=15",
                                        "rediss-sentinel://a:b@[::1]:7,h/n/1?ca=c&cert=d&key=%20", "lmdb:/a?gib=12" };

    for (size_t i = 0; i < 4; i++) {
        char url[64];
        struct store_url u;
        for (size_t n = 0; n <= strlen(urls[i]); n++) {
            memset(url, 0, sizeof url);
            memcpy(url, urls[i], n);
            store_url_parse(&u, url, NULL);
            for (int c = 1; n < strlen(urls[i]) && c < 256; c++) {
                strcpy(url, urls[i]);
                url[n] = (char)c;
                store_url_parse(&u, url, NULL);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mem),
        cmocka_unit_test(tcp),
        cmocka_unit_test(password_is_decoded_and_not_named),
        cmocka_unit_test(unix_socket),
        cmocka_unit_test(many_hosts),
        cmocka_unit_test(tls),
        cmocka_unit_test(replicas),
        cmocka_unit_test(file),
        cmocka_unit_test(wrong_ones_tell_the_character),
        cmocka_unit_test(too_long),
        cmocka_unit_test(cut_and_bent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
