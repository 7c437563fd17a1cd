/* SPDX-License-Identifier: Apache-2.0 */
/* The load balancer's file: what it says, what is wrong with it and where, and which back ends stay who they were. */
#include "lb/services.h"
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *errors;
static size_t errors_len;

static int parse(struct lb_services **out, const char *text, size_t len)
{
    free(errors);
    errors = NULL;
    FILE *file = open_memstream(&errors, &errors_len);
    int rc = lb_services_parse(out, "f", text, len, file);
    fclose(file);
    return rc;
}

static struct lb_services *good(const char *text)
{
    struct lb_services *s = NULL;
    if (parse(&s, text, strlen(text)) < 0)
        fail_msg("%s", errors);
    assert_int_equal(errors_len, 0);
    return s;
}

static int free_errors(void **state)
{
    free(errors);
    errors = NULL;
    return 0;
}

static struct lb_place place(const char *addr, unsigned port)
{
    struct lb_place p = { .family = strchr(addr, ':') ? 6 : 4, .port = { (uint8_t)(port >> 8), (uint8_t)port } };
    assert_int_equal(inet_pton(p.family == 4 ? AF_INET : AF_INET6, addr, p.addr), 1);
    return p;
}

static const char SAMPLE[] =
    "# two services\n"
    "service web tcp 10.99.0.10:80 {\n"
    "    mode nat   # the usual\n"
    "    check http \"/health?x=1\" every 500ms timeout 1s rise 1 fall 5 host www.example.org\n"
    "    drain 5m\n"
    "    backend a 10.78.0.1:8080 weight 2\r\n"
    "    backend b 10.78.0.2 check-port 8081\n"
    "    backend c 10.78.0.3:8080 drain\n"
    "}\n"
    "service dns udp [fd00::53]:53 {\n"
    "    mode dsr\n"
    "    backend a [fd00::1] mac 02:00:00:00:0A:ff\n"
    "}\n"
    "service none tcp 10.99.0.11:80 {\n"
    "}\n";

static void sample(void **state)
{
    struct lb_services *s = good(SAMPLE);
    struct lb_place vip = place("10.99.0.10", 80), a = place("10.78.0.1", 8080), b = place("10.78.0.2", 80);
    struct lb_place dns = place("fd00::53", 53), other = place("fd00::1", 53);

    assert_int_equal(s->n, 3);
    assert_int_equal(s->n_backends, 4);
    const struct lb_service *web = lb_service_at(s, 6, &vip);
    assert_non_null(web);
    assert_null(lb_service_at(s, 17, &vip));
    assert_string_equal(web->name, "web");
    assert_int_equal(web->mode, LB_NAT);
    assert_int_equal(web->check, LB_CHECK_HTTP);
    assert_string_equal(web->path, "/health?x=1");
    assert_string_equal(web->host, "www.example.org");
    assert_true(web->every == 500000000 && web->timeout == 1000000000 && web->drain == 300000000000);
    assert_true(web->rise == 1 && web->fall == 5 && web->n == 3 && web->weights == 3 && web->any);
    const struct lb_backend *found = lb_backend_at(s, 6, &a);
    assert_non_null(found);
    assert_string_equal(found->name, "a");
    assert_int_equal(found->weight, 2);
    found = lb_backend_at(s, 6, &b);
    assert_non_null(found);
    assert_int_equal(found->check_port, 8081);
    assert_null(lb_backend_at(s, 17, &a));
    assert_null(lb_backend_at(s, 6, &vip));
    assert_true(s->backend[2].drains && !s->backend[0].drains);
    const struct lb_service *udp = lb_service_at(s, 17, &dns);
    assert_non_null(udp);
    assert_int_equal(udp->mode, LB_DSR);
    assert_null(lb_backend_at(s, 17, &other)); /* nothing has to be undone there */
    assert_non_null(lb_backend_of(s, udp, &other));
    assert_memory_equal(lb_backend_of(s, udp, &other)->mac, "\x02\0\0\0\x0a\xff", 6);
    assert_false(s->service[2]->any);
    lb_services_free(s);
}

#define IN(line) "service s tcp 1.2.3.4:80 {\n" line "\n}"
static const struct {
    const char *text;
    unsigned line, column;
    const char *words;
} bad[] = {
    { "servcie web", 1, 1, "expected service; did you mean service?" },
    { "}", 1, 1, "expected service" },
    { "service", 1, 8, "expected the name of the service" },
    { "service \"x\" tcp 1.2.3.4:80 {\n}", 1, 9, "expected a name of letters" },
    { "service a/b tcp 1.2.3.4:80 {\n}", 1, 9, "expected a name of letters" },
    { "service web", 1, 12, "expected tcp or udp" },
    { "service web tpc 1.2.3.4:80 {\n}", 1, 13, "expected tcp or udp; did you mean tcp?" },
    { "service web tcp {\n}", 1, 17, "expected the service's address and port" },
    { "service web tcp 1.2.3.4 {\n}", 1, 17, "expected the service's address and port" },
    { "service web tcp 1.2.3:80 {\n}", 1, 17, "expected the service's address and port" },
    { "service web tcp 1.2.3.4:0 {\n}", 1, 17, "expected the service's address and port" },
    { "service web tcp 1.2.3.4:65536 {\n}", 1, 17, "expected the service's address and port" },
    { "service web tcp fd00::1:80 {\n}", 1, 17, "expected the service's address and port" },
    { "service web tcp [fd00::1 {\n}", 1, 17, "expected the service's address and port" },
    { "service web tcp [fd00::1]80 {\n}", 1, 17, "expected the service's address and port" },
    { "service web tcp [1.2.3.4]:80 {\n}", 1, 17, "expected the service's address and port" },
    { "service web tcp 1.2.3.4:80", 1, 27, "expected {" },
    { "service web tcp 1.2.3.4:80 (\n}", 1, 28, "expected {" },
    { "service web tcp 1.2.3.4:80 { mode nat\n}", 1, 30, "expected the end of the line" },
    { "service web tcp 1.2.3.4:80 {\n", 2, 1, "expected a } for the service that begins in line 1" },
    { IN("") " more", 3, 3, "expected the end of the line" },
    { IN("") "\nservice s udp 1.2.3.4:80 {\n}", 4, 9, "expected a name that no service above has" },
    { IN("") "\nservice t tcp 1.2.3.4:80 {\n}", 4, 15, "expected an address and a port that no service above has" },
    { IN("moed nat"), 2, 1, "expected mode, check, drain, backend or }; did you mean mode?" },
    { IN("mode"), 2, 5, "expected nat or dsr" },
    { IN("mode tunnel"), 2, 6, "expected nat or dsr" },
    { IN("mode nat nat"), 2, 10, "expected the end of the line" },
    { IN("check"), 2, 6, "expected none, tcp or http" },
    { IN("check htpt \"/\""), 2, 7, "expected none, tcp or http; did you mean http?" },
    { IN("check http"), 2, 11, "expected the path to ask for" },
    { IN("check http /health"), 2, 12, "expected the path to ask for" },
    { IN("check http \"health\""), 2, 12, "expected the path to ask for" },
    { IN("check http \"/a b\""), 2, 12, "expected the path to ask for" },
    { IN("check tcp every"), 2, 16, "expected a time such as 2s" },
    { IN("check tcp every 1ms"), 2, 17, "expected a time such as 2s" },
    { IN("check tcp every 2x"), 2, 17, "expected a time such as 2s" },
    { IN("check tcp timeout -1s"), 2, 19, "expected a time such as 500ms" },
    { IN("check tcp rise 0"), 2, 16, "expected a number from 1 to 100" },
    { IN("check tcp fall 101"), 2, 16, "expected a number from 1 to 100" },
    { IN("check tcp host x"), 2, 11, "expected every, timeout, rise, fall" },
    { IN("check tcp evry 2s"), 2, 11, "expected every, timeout, rise, fall, or, with http, host; did you mean every?" },
    { IN("drain"), 2, 6, "expected a time such as 5m, or 0" },
    { IN("drain forever"), 2, 7, "expected a time such as 5m, or 0" },
    { IN("backend"), 2, 8, "expected the name of the back end" },
    { IN("backend a"), 2, 10, "expected an address and a port" },
    { IN("backend a [fd00::1]:80"), 2, 11,
      "expected an address and a port, as 10.0.0.1:80 or [fd00::1]:80, of the service's family" },
    { IN("backend a 1.1.1.1:80 weight"), 2, 28, "expected a weight from 0 to 256" },
    { IN("backend a 1.1.1.1:80 weight 257"), 2, 29, "expected a weight from 0 to 256" },
    { IN("backend a 1.1.1.1:80 wieght 2"), 2, 22, "expected weight, mac, drain or check-port; did you mean weight?" },
    { IN("backend a 1.1.1.1:80 mac 02:00:00:00:00"), 2, 26, "expected an Ethernet address" },
    { IN("backend a 1.1.1.1:80 mac 03:00:00:00:00:01"), 2, 26, "expected an Ethernet address" },
    { IN("backend a 1.1.1.1:80 mac 02-00-00-00-00-01"), 2, 26, "expected an Ethernet address" },
    { IN("backend a 1.1.1.1:80 check-port 0"), 2, 33, "expected a port from 1 to 65535" },
    { IN("backend a 1.1.1.1:80\nbackend a 1.1.1.2:80"), 3, 9, "expected a name that no back end" },
    { IN("backend a 1.1.1.1:80\nbackend b 1.1.1.1"), 3, 11, "expected an address that no back end" },
    { IN("mode dsr\nbackend a 1.1.1.1:80"), 4, 1, "expected a mac of a: mode dsr sends to it by that" },
    { IN("mode dsr\nbackend a 1.1.1.1:81 mac 02:00:00:00:00:01"), 4, 1, "expected the service's port at a" },
};

static void every_error(void **state)
{
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lb_services *s = NULL;
        char expected[256];
        if (parse(&s, bad[i].text, strlen(bad[i].text)) != -EINVAL)
            fail_msg("accepted: %s", bad[i].text);
        snprintf(expected, sizeof expected, "f:%u:%u: %s", bad[i].line, bad[i].column, bad[i].words);
        if (strncmp(errors, expected, strlen(expected)) != 0)
            fail_msg("of %s\nexpected %s\ngot %s", bad[i].text, expected, errors);
    }
}

static void cut_and_spoilt(void **state)
{
    static const char spoil[] = "\0\n\"{},#:[x9 \xff";
    size_t len = sizeof SAMPLE - 1;
    unsigned refused = 0;

    for (size_t at = 0; at < len; at++) {
        for (size_t i = 0; i < sizeof spoil; i++) { /* the last time: what is behind it is not there */
            struct lb_services *s = NULL;
            size_t n = i == sizeof spoil - 1 ? at : len;
            char *copy = malloc(n + 1);
            memcpy(copy, SAMPLE, n);
            if (n == len)
                copy[at] = spoil[i];
            int rc = parse(&s, copy, n);
            free(copy);
            assert_true(rc == 0 ? errors_len == 0 : rc == -EINVAL && strncmp(errors, "f:", 2) == 0);
            lb_services_free(s);
            refused += rc < 0;
        }
    }
    assert_true(refused > 1000);
}

static void numbers(void **state)
{
    struct lb_services *one = good(IN("backend a 1.1.1.1\nbackend b 1.1.1.2\nbackend c 1.1.1.3"));
    struct lb_services *two = good(IN("backend c 1.1.1.3 drain\nbackend x 1.1.1.1\nbackend b 1.1.1.9"));
    struct lb_services *three = good(IN("backend b 1.1.1.2\nbackend c 1.1.1.3"));

    assert_true(one->backend[0].id == 0 && one->backend[1].id == 1 && one->backend[2].id == 2);
    lb_services_number(two, one);
    assert_int_equal(two->backend[0].id, 2);
    assert_int_equal(two->backend[1].id, 0); /* whatever its name is now */
    assert_int_equal(two->backend[2].id, 3);
    lb_services_number(three, two);
    assert_int_equal(three->backend[0].id, 4); /* it was gone meanwhile */
    assert_int_equal(three->backend[1].id, 2);
    lb_services_free(one);
    lb_services_free(two);
    lb_services_free(three);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sample),
        cmocka_unit_test(every_error),
        cmocka_unit_test(cut_and_spoilt),
        cmocka_unit_test(numbers),
    };
    return cmocka_run_group_tests(tests, NULL, free_errors);
}
