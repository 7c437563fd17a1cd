/* SPDX-License-Identifier: Apache-2.0 */
#include "ips/alerts.h"
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char path[64];
static struct ips_rule rule = { .id = 1001, .action = IPS_DROP, .msg = (char *)"text" };
static struct ips_rule rule2 = { .id = 7, .action = IPS_ALERT, .msg = (char *)"text" };

static int new_path(void **state)
{
    strcpy(path, "/tmp/ips_alerts_XXXXXX");
    close(mkstemp(path));
    return 0;
}

static int remove_path(void **state)
{
    unlink(path);
    return 0;
}

static char *content(void)
{
    static char text[65536];
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n < 0 ? 0 : n] = '\0';
    return text;
}

static struct ips_alert example(uint64_t packet, uint64_t offset, struct ips_rule *r)
{
    return (struct ips_alert){
        .time = 1700000000123456789,
        .packet = packet,
        .offset = offset,
        .rule = r,
        .to = NST_SERVER,
        .src = { 4, { 10, 0, 0, 1 }, 40000 },
        .dst = { 4, { 10, 0, 0, 2 }, 80 },
    };
}

static void one_line(void **state)
{
    char line[IPS_ALERT_MAX];
    struct ips_alert a = example(12, 34, &rule);
    size_t n = ips_alert_format(&a, a.time, line, sizeof line);
    assert_string_equal(line,
                        "{\"time\":\"2023-11-14T22:13:20.123456789Z\",\"rule\":1001,\"action\":\"drop\",\"message\":"
                        "\"text\",\"proto\":\"tcp\",\"src\":\"10.0.0.1\",\"src_port\":40000,\"dst\":\"10.0.0.2\","
                        "\"dst_port\":80,\"to\":\"server\",\"offset\":34,\"packet\":12}\n");
    assert_int_equal(n, strlen(line));
}

static void ipv6_vlan_and_times(void **state)
{
    char line[IPS_ALERT_MAX];
    struct ips_alert a = example(1, 1, &rule);
    a.to = NST_CLIENT;
    a.vlan = 42;
    a.src = (struct nst_endpoint){ 6, { 0xfd, [15] = 1 }, 1 };
    a.dst = (struct nst_endpoint){ 6, { 0xfd, [15] = 2 }, 65535 };
    ips_alert_format(&a, 5, line, sizeof line);
    assert_non_null(strstr(line, "\"time\":\"1970-01-01T00:00:00.000000005Z\""));
    assert_non_null(strstr(line,
                           "\"vlan\":42,\"src\":\"fd00::1\",\"src_port\":1,\"dst\":\"fd00::2\",\"dst_port\":65535,"
                           "\"to\":\"client\""));
    ips_alert_format(&a, -1, line, sizeof line);
    assert_non_null(strstr(line, "\"time\":\"1969-12-31T23:59:59.999999999Z\""));
}

static void messages_are_escaped(void **state)
{
    static const char *const cases[][2] = {
        { "\"quoted\\\"", "\"\\\"quoted\\\\\\\"\"" },
        { "\001\t\n\x7f", "\"\\u0001\\u0009\\u000a\\u007f\"" },
        { "\xc3\xbc \xe2\x82\xac \xf0\x9f\x98\x80", "\"\xc3\xbc \xe2\x82\xac \xf0\x9f\x98\x80\"" },
        { "\xff", "\"\\ufffd\"" },
        { "a\xc3", "\"a\\ufffd\"" }, /* cut off */
        { "\xe2\x82", "\"\\ufffd\\ufffd\"" },
        { "\xc0\xaf", "\"\\ufffd\\ufffd\"" },            /* overlong */
        { "\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\"" }, /* a surrogate */
        { "\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\"" },
        { "\x80", "\"\\ufffd\"" },
    };
    char line[IPS_ALERT_MAX], expected[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ips_rule r = { .id = 1, .msg = (char *)cases[i][0] };
        struct ips_alert a = example(1, 1, &r);
        ips_alert_format(&a, 0, line, sizeof line);
        snprintf(expected, sizeof expected, "\"message\":%s,\"proto\"", cases[i][1]);
        if (!strstr(line, expected))
            fail_msg("expected %s\nin %s", expected, line);
    }
}

static void longest_message_fits(void **state)
{
    static char msg[IPS_LINE_MAX], line[IPS_ALERT_MAX];
    memset(msg, 1, sizeof msg - 1);
    struct ips_rule r = { .id = UINT32_MAX, .action = IPS_RESET, .msg = msg };
    struct ips_alert a = example(UINT64_MAX, UINT64_MAX, &r);
    memset(a.src.addr, 0xff, 16);
    a.src.family = a.dst.family = 6;
    memcpy(a.dst.addr, a.src.addr, 16);
    a.vlan = 4095;
    size_t n = ips_alert_format(&a, INT64_MAX, line, sizeof line);
    assert_true(n < sizeof line - 1);
    assert_string_equal(line + n - 2, "}\n");
    n = ips_alert_format(&a, INT64_MAX, line, 100); /* cut off, not written past */
    assert_int_equal(n, 99);
}

static void a_replay_is_written_in_order(void **state)
{
    struct ips_alerts *log = NULL;
    static const unsigned order[][3] = { { 5, 9, 0 }, { 2, 7, 0 }, { 5, 3, 0 }, { 2, 7, 1 }, { 1, 99, 0 } };
    assert_int_equal(ips_alerts_open(&log, path, true), 0);
    for (size_t i = 0; i < 5; i++) {
        struct ips_alert a = example(order[i][0], order[i][1], order[i][2] ? &rule2 : &rule);
        ips_alerts_add(log, &a);
    }
    assert_string_equal(content(), "");
    ips_alerts_quiet(log);
    static const char *const expected[] = { "\"rule\":1001,",
                                            "\"offset\":99,\"packet\":1}",
                                            "\"rule\":7,",
                                            "\"offset\":7,\"packet\":2}",
                                            "\"rule\":1001,",
                                            "\"offset\":7,\"packet\":2}",
                                            "\"offset\":3,\"packet\":5}",
                                            "\"offset\":9,\"packet\":5}" };
    char *at = content();
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        at = strstr(at, expected[i]);
        assert_non_null(at);
    }
    struct ips_alert last = example(6, 1, &rule);
    ips_alerts_add(log, &last);
    ips_alerts_close(log); /* writes what is left */
    assert_non_null(strstr(content(), "\"packet\":6}\n"));
    assert_int_equal(ips_alerts_open(&log, path, true), 0);
    ips_alerts_close(log);
    assert_string_equal(content(), ""); /* a replay begins anew */
}

static void live_is_written_at_once_and_appended(void **state)
{
    struct ips_alerts *log = NULL;
    for (unsigned i = 1; i <= 2; i++) {
        assert_int_equal(ips_alerts_open(&log, path, false), 0);
        struct ips_alert a = example(i, 1, &rule);
        a.time = nst_clock();
        ips_alerts_add(log, &a);
        char expected[32];
        snprintf(expected, sizeof expected, "\"packet\":%u}\n", i);
        assert_non_null(strstr(content(), expected));
        ips_alerts_close(log);
    }
    assert_non_null(strstr(content(), "\"packet\":1}\n{"));
    /* The monotonic clock's time was made a date: of this year, give or take a new year's eve. */
    struct tm tm;
    time_t now = time(NULL);
    gmtime_r(&now, &tm);
    int year = atoi(content() + strlen("{\"time\":\""));
    assert_true(year >= tm.tm_year + 1899 && year <= tm.tm_year + 1901);
}

static unsigned logged;
static void count_log(void *arg, enum nst_log_level level, const char *text)
{
    logged += level == NST_LOG_ERROR;
}

static void a_full_disk(void **state)
{
    struct ips_alerts *log = NULL;
    struct rlimit limit, small;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    small = limit;
    small.rlim_cur = 400; /* one line and a half */
    assert_int_equal(ips_alerts_open(&log, path, false), 0);
    nst_log_to(count_log, NULL);
    setrlimit(RLIMIT_FSIZE, &small);
    for (unsigned i = 1; i <= 1000; i++) {
        struct ips_alert a = example(i, 1, &rule);
        ips_alerts_add(log, &a);
    }
    setrlimit(RLIMIT_FSIZE, &limit);
    struct ips_alert a = example(1001, 1, &rule);
    ips_alerts_add(log, &a);
    nst_log_to(NULL, NULL);
    assert_int_equal(ips_alerts_lost(log), 999);
    assert_in_range(logged, 1, 50);
    ips_alerts_close(log);
    /* The line that was torn stays alone; the next is whole. */
    char *text = content();
    assert_non_null(strstr(text, "\"packet\":1}\n{"));
    assert_non_null(strstr(text, "\n{\"time\":"));
    assert_string_equal(text + strlen(text) - strlen("\"packet\":1001}\n"), "\"packet\":1001}\n");
    char *last = strrchr(text, '{');
    assert_int_equal(last[-1], '\n');
}

static void bad_paths(void **state)
{
    struct ips_alerts *log = NULL;
    assert_int_equal(ips_alerts_open(&log, "/nonexistent/alerts", false), -ENOENT);
    assert_int_equal(ips_alerts_open(&log, "/tmp", true), -EISDIR);
    assert_null(log);
    assert_int_equal(ips_alerts_open(&log, "-", false), 0);
    ips_alerts_close(log);
    ips_alerts_close(NULL);
    assert_true(fcntl(STDOUT_FILENO, F_GETFD) >= 0); /* standard output is still open */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_line),
        cmocka_unit_test(ipv6_vlan_and_times),
        cmocka_unit_test(messages_are_escaped),
        cmocka_unit_test(longest_message_fits),
        cmocka_unit_test_setup_teardown(a_replay_is_written_in_order, new_path, remove_path),
        cmocka_unit_test_setup_teardown(live_is_written_at_once_and_appended, new_path, remove_path),
        cmocka_unit_test_setup_teardown(a_full_disk, new_path, remove_path),
        cmocka_unit_test(bad_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
