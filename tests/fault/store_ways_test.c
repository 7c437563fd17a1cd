/* SPDX-License-Identifier: Apache-2.0 */
/* Ways to a Redis server: TLS with certificates that are right and wrong, and sentinels that name another master. */
#include "store/redis.h"
#include "store_contract.h"
#include "store_lab.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct nst_store *store;
static char logged[1 << 16], dir[64];

static void sink(void *arg, enum nst_log_level level, const char *line)
{
    size_t n = strlen(logged);

    if (getenv("NST_LAB_LOG") != NULL)
        fprintf(stderr, "%s\n", line);
    snprintf(logged + n, sizeof logged - n, "%s\n", line);
}

static void open_url(const char *url)
{
    const char *why = NULL;

    logged[0] = 0;
    if (nst_store_open(&store, url, NULL, &why) != 0)
        fail_msg("%s: %s", url, why);
}

/* The last try to connect ends with this, sooner or later. */
static void is_in_trouble(int expected)
{
    nst_time until = patience();

    for (int rc; (rc = nst_store_ping(store, in_ms(300))) != expected;)
        assert_true(rc != 0 && nst_now() < until);
}

static void shell(const char *fmt, const char *name, const char *subject)
{
    char line[1024];

    snprintf(line, sizeof line, fmt, dir, name, subject);
    lab_shell(line);
}

/* An authority, and a certificate of it for the loopback; one for somebody else; a stranger who signs for himself. */
static void make_certificates(void)
{
    static const char signed_by[] =
        "cd %1$s && openssl req -newkey rsa:2048 -nodes -keyout %2$s.key -out x.csr -subj /CN=x 2>/dev/null && "
        "echo subjectAltName=%3$s >x.ext && openssl x509 -req -in x.csr -CA ca.pem -CAkey ca.key -CAcreateserial "
        "-days 2 -extfile x.ext -out %2$s.pem 2>/dev/null";
    static const char own[] = "cd %1$s && openssl req -x509 -newkey rsa:2048 -nodes -keyout %2$s.key -out %2$s.pem "
                              "-days 2 -subj /CN=%2$s -addext subjectAltName=%3$s 2>/dev/null";

    shell(own, "ca", "DNS:authority");
    shell(signed_by, "good", "IP:127.0.0.1,DNS:localhost");
    shell(signed_by, "other", "DNS:somebody.else");
    shell(own, "stranger", "IP:127.0.0.1");
}

static int tls_port;

static void start_tls(struct lab_redis *redis, const char *certificate)
{
    static char port[8], ca[96], cert[96], key[96];

    tls_port = lab_free_port();
    snprintf(port, sizeof port, "%d", tls_port);
    snprintf(ca, sizeof ca, "%s/ca.pem", dir);
    snprintf(cert, sizeof cert, "%s/%s.pem", dir, certificate);
    snprintf(key, sizeof key, "%s/%s.key", dir, certificate);
    *redis = (struct lab_redis){ .more = { "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key,
                                           "--tls-ca-cert-file", ca, "--tls-auth-clients", "optional" } };
    lab_start(redis);
}

static void stop(struct lab_redis *redis)
{
    lab_end(redis, SIGKILL);
    lab_remove(redis);
}

static void tls_body(void)
{
    struct lab_redis redis;
    static char big[NST_VALUE_MAX], back[NST_VALUE_MAX];
    static struct nst_future f[200];
    static struct nst_future *all[200];
    char url[512], val[8];

    start_tls(&redis, "good");
    snprintf(url, sizeof url, "rediss://127.0.0.1:%d?ca=%s/ca.pem", tls_port, dir);
    open_url(url);
    store_contract(store, true);
    /* more than the socket takes at once, both ways */
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)(i * 7 + i / 251);
    for (int i = 0; i < 200; i++) {
        nst_put_start(store, (struct nst_slice){ &i, sizeof i }, (struct nst_slice){ big, sizeof big }, 0, &f[i]);
        all[i] = &f[i];
    }
    assert_int_equal(nst_await_all(all, 200, patience()), 0);
    for (int i = 0; i < 200; i++)
        nst_get_start(store, (struct nst_slice){ &i, sizeof i }, back, sizeof back, NULL, &f[i]);
    assert_int_equal(nst_await_all(all, 200, patience()), 0);
    for (int i = 0; i < 200; i++)
        assert_int_equal(f[i].rc, sizeof big);
    assert_memory_equal(big, back, sizeof big);
    nst_store_close(store);
    snprintf(url, sizeof url, "rediss://localhost:%d/3?ca=%s/ca.pem&cert=%s/other.pem&key=%s/other.key", tls_port, dir,
             dir, dir);
    open_url(url);
    assert_int_equal(nst_store_ping(store, patience()), 0);
    nst_store_close(store);
    /* not an authority of the system's */
    snprintf(url, sizeof url, "rediss://127.0.0.1:%d", tls_port);
    open_url(url);
    is_in_trouble(-EACCES);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, NULL, patience()), -ENOTCONN);
    assert_non_null(strstr(logged, "certificate"));
    nst_store_close(store);
    /* a server without TLS, and TLS without a server for it */
    snprintf(url, sizeof url, "rediss://127.0.0.1:%d?ca=%s/ca.pem", redis.port, dir);
    open_url(url);
    assert_true(nst_store_ping(store, in_ms(1500)) < 0);
    nst_store_close(store);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", tls_port);
    open_url(url);
    assert_true(nst_store_ping(store, in_ms(1500)) < 0);
    nst_store_close(store);
    /* it dies, and comes back */
    snprintf(url, sizeof url, "rediss://127.0.0.1:%d?ca=%s/ca.pem", tls_port, dir);
    open_url(url);
    assert_int_equal(nst_store_ping(store, patience()), 0);
    lab_end(&redis, SIGKILL);
    lab_start(&redis);
    while (nst_put(store, text("k"), text("v"), 0, patience()) != 0)
        assert_int_equal(nst_sleep(in_ms(5)), 0);
    nst_store_close(store);
    stop(&redis);
}

static void wrong_certificates_body(void)
{
    static const char *const wrong[] = { "other", "stranger" };
    const char *why = NULL;
    char url[512];

    for (int i = 0; i < 2; i++) {
        struct lab_redis redis;
        start_tls(&redis, wrong[i]);
        snprintf(url, sizeof url, "rediss://127.0.0.1:%d?ca=%s/ca.pem", tls_port, dir);
        open_url(url);
        is_in_trouble(-EACCES);
        assert_non_null(strstr(logged, i == 0 ? "IP address mismatch" : "certificate"));
        nst_store_close(store);
        stop(&redis);
    }
    assert_int_equal(nst_store_open(&store, "rediss://127.0.0.1?ca=/nowhere.pem", NULL, &why), -EINVAL);
    assert_non_null(strstr(why, "/nowhere.pem cannot be used"));
}

/* ---- sentinels ---- */

static void start_sentinel(struct lab_redis *sentinel, int n, int master)
{
    char line[1024];

    *sentinel = (struct lab_redis){ .port = lab_free_port() };
    snprintf(sentinel->dir, sizeof sentinel->dir, "%.20s/s%d", dir, n);
    snprintf(line, sizeof line,
             "mkdir -p %s && printf 'port %d\\nbind 127.0.0.1\\ndir %s\\nsentinel monitor shop 127.0.0.1 %d 2\\n"
             "sentinel down-after-milliseconds shop 500\\nsentinel failover-timeout shop 3000\\n' >%s/sentinel.conf",
             sentinel->dir, sentinel->port, sentinel->dir, master, sentinel->dir);
    lab_shell(line);
    lab_start_sentinel(sentinel);
}

static void sentinels_body(void)
{
    struct lab_redis redis[2] = { 0 }, sentinel[3];
    char url[512], command[64], val[8];
    nst_time until;

    lab_start(&redis[0]);
    lab_start(&redis[1]);
    snprintf(command, sizeof command, "replicaof 127.0.0.1 %d", redis[0].port);
    assert_string_equal(lab_command(&redis[1], command), "OK");
    for (int i = 0; i < 3; i++)
        start_sentinel(&sentinel[i], i, redis[0].port);
    /* one that is not there does no harm */
    snprintf(url, sizeof url, "redis-sentinel://127.0.0.1:1,127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d/shop",
             sentinel[0].port, sentinel[1].port, sentinel[2].port);
    open_url(url);
    assert_int_equal(nst_store_ping(store, patience()), 0);
    store_contract(store, true);
    assert_int_equal(nst_put(store, text("k"), text("v"), 0, patience()), 0);
    /* the replica has all of it: its first synchronisation begins seconds late */
    until = patience();
    while (strcmp(lab_command(&redis[1], "exists k"), "1") != 0) {
        assert_true(nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(50)), 0);
    }
    /* the sentinels must know each other and the replica before anything can fail over */
    until = patience();
    for (int i = 0; i < 3; i++) {
        snprintf(command, sizeof command, "redis-cli -p %d sentinel master shop", sentinel[i].port);
        while (strstr(lab_shell(command), "num-other-sentinels\n2") == NULL ||
               strstr(lab_shell(command), "num-slaves\n1") == NULL) {
            assert_true(nst_now() < until);
            assert_int_equal(nst_sleep(in_ms(50)), 0);
        }
    }
    /* the master hangs: it is given up although it never closes */
    lab_signal(&redis[0], SIGSTOP);
    until = nst_now() + NST_SEC(40);
    while (nst_get(store, text("k"), val, sizeof val, NULL, in_ms(200)) != 1) {
        assert_true(nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(20)), 0);
    }
    assert_int_equal(nst_put(store, text("k"), text("two"), 0, patience()), 0);
    assert_non_null(strstr(logged, "name another master"));
    /* the old one wakes up, and is not believed */
    lab_signal(&redis[0], SIGCONT);
    assert_int_equal(nst_sleep(in_ms(1500)), 0);
    until = patience();
    while (nst_get(store, text("k"), val, sizeof val, NULL, in_ms(500)) != 3) {
        assert_true(nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(20)), 0);
    }
    nst_store_close(store);
    snprintf(url, sizeof url, "redis-sentinel://127.0.0.1:%d/nobody", sentinel[0].port);
    open_url(url);
    is_in_trouble(-ENOENT);
    assert_non_null(strstr(logged, "does not know the service"));
    nst_store_close(store);
    for (int i = 0; i < 3; i++)
        stop(&sentinel[i]);
    stop(&redis[0]);
    stop(&redis[1]);
}

#define ON_REACTOR(name)           \
    static void name(void **state) \
    {                              \
        lab_run(name##_body);      \
    }
ON_REACTOR(tls)
ON_REACTOR(wrong_certificates)
ON_REACTOR(sentinels)

static int start(void **state)
{
    nst_log_to(sink, NULL);
    strcpy(dir, "/tmp/nst.XXXXXX");
    assert_non_null(mkdtemp(dir));
    make_certificates();
    return 0;
}

static int finish(void **state)
{
    char line[256];

    snprintf(line, sizeof line, "cd %s && rm -f *.pem *.key *.srl x.csr x.ext", dir);
    lab_shell(line);
    rmdir(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tls),
        cmocka_unit_test(wrong_certificates),
        cmocka_unit_test(sentinels),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
