/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/values.h"
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#define N(a) (sizeof(a) / sizeof *(a))

static struct complaint c;

static void names_all(const char *option, const char *value, const char *expected)
{
    assert_non_null(strstr(c.text, option));
    assert_non_null(strstr(c.text, value));
    assert_non_null(strstr(c.text, expected));
    memset(&c, 0, sizeof c);
}

static void number(void **state)
{
    static const struct {
        const char *text;
        uint64_t n;
    } good[] = { { "1", 1 }, { "007", 7 }, { "64", 64 }, { "2k", 2000 }, { "3M", 3000000 }, { "5000000", 5000000 } };
    static const char *const bad[] = { "",    " 1",   "1 ",  "-1",      "+1",
                                       "0",   "0x10", "1.5", "1K",      "5001k",
                                       "1kk", "k",    "one", "5000001", "99999999999999999999999" };
    uint64_t n = 0;

    for (size_t i = 0; i < N(good); i++) {
        assert_int_equal(value_number(&c, "--hold", good[i].text, 1, 5000000, &n), 0);
        assert_int_equal(n, good[i].n);
    }
    for (size_t i = 0; i < N(bad); i++) {
        assert_int_equal(value_number(&c, "--hold", bad[i], 1, 5000000, &n), -EINVAL);
        names_all("--hold", bad[i], "a whole number from 1 to 5000000");
    }
    assert_int_equal(value_number(&c, "--n", "18446744073709551615", 0, UINT64_MAX, &n), 0);
    assert_true(n == UINT64_MAX);
    assert_int_equal(value_number(&c, "--n", "18446744073709551615k", 0, UINT64_MAX, &n), -EINVAL);
}

static void time_with_unit(void **state)
{
    static const struct {
        const char *text;
        nst_time t;
    } good[] = { { "200ms", NST_MS(200) }, { "1s", NST_SEC(1) },    { "500us", NST_US(500) }, { "1000ns", 1000 },
                 { "1.5s", NST_MS(1500) }, { ".5ms", NST_US(500) }, { "2m", NST_SEC(120) },   { "1h", NST_SEC(3600) },
                 { "1.s", NST_SEC(1) },    { "0.2ms", NST_US(200) } };
    static const char *const bad[] = { "",    "200", "ms",     "200 ms", "200msx", "-1s",   "1e3s", "0x1s",
                                       "nan", "inf", "1.2.3s", "999ns",  "0s",     "3601s", ".s",   "1S" };
    nst_time t = 0;

    for (size_t i = 0; i < N(good); i++) {
        assert_int_equal(value_time(&c, "--budget", good[i].text, NST_US(1), NST_SEC(3600), &t), 0);
        assert_true(t == good[i].t);
    }
    for (size_t i = 0; i < N(bad); i++) {
        assert_int_equal(value_time(&c, "--budget", bad[i], NST_US(1), NST_SEC(3600), &t), -EINVAL);
        names_all("--budget", bad[i], "such as 500us, 200ms or 1s, from 1us to 1h");
    }
}

static void size(void **state)
{
    static const struct {
        const char *text;
        uint64_t n;
    } good[] = { { "65536", 65536 },
                 { "64K", 65536 },
                 { "64k", 65536 },
                 { "256M", 256 << 20 },
                 { "256MB", 256 << 20 },
                 { "256MiB", 256 << 20 },
                 { "2G", (uint64_t)2 << 30 },
                 { "1T", (uint64_t)1 << 40 },
                 { "65536B", 65536 } };
    static const char *const bad[] = { "",
                                       "K",
                                       "1.5G",
                                       "64 K",
                                       "-64K",
                                       "64KK",
                                       "64Kb",
                                       "63K",
                                       "2T",
                                       "64Ki",
                                       "1P",
                                       "99999999999999999G",
                                       "18014398509481985K" };
    uint64_t n = 0;

    for (size_t i = 0; i < N(good); i++) {
        assert_int_equal(value_size(&c, "--stream-memory", good[i].text, 65536, (uint64_t)1 << 40, &n), 0);
        assert_true(n == good[i].n);
    }
    for (size_t i = 0; i < N(bad); i++) {
        assert_int_equal(value_size(&c, "--stream-memory", bad[i], 65536, (uint64_t)1 << 40, &n), -EINVAL);
        names_all("--stream-memory", bad[i], "such as 512K, 256M or 2G, from 64K to 1T");
    }
}

static void speed(void **state)
{
    static const struct {
        const char *text;
        double x;
    } good[] = { { "1", 1 }, { "0.5", 0.5 }, { "10x", 10 }, { "max", 0 }, { "2.5x", 2.5 } };
    static const char *const bad[] = { "", "0", "-1", "x", "1xx", "fast", "1e9", "2000000", "0.0001" };
    double x = -1;

    for (size_t i = 0; i < N(good); i++) {
        assert_int_equal(value_speed(&c, "--speed", good[i].text, &x), 0);
        assert_true(x == good[i].x);
    }
    for (size_t i = 0; i < N(bad); i++) {
        assert_int_equal(value_speed(&c, "--speed", bad[i], &x), -EINVAL);
        names_all("--speed", bad[i], "a factor from 0.001 to 1000000");
    }
}

static void word(void **state)
{
    static const char *const words[] = { "open", "closed", "ajar" };
    unsigned i = 9;

    assert_int_equal(value_word(&c, "--fail", "closed", words, 3, &i), 0);
    assert_int_equal(i, 1);
    assert_int_equal(value_word(&c, "--fail", "Open", words, 3, &i), -EINVAL);
    names_all("--fail", "Open", "expected open, closed or ajar");
    assert_int_equal(value_word(&c, "--fail", "", words, 2, &i), -EINVAL);
    names_all("--fail", "\"\"", "expected open or closed");
}

static unsigned cut(const char *text, char *copy, const char *names[4])
{
    unsigned n = 99;

    strcpy(copy, text);
    return value_ports(&c, "--ports", copy, names, 4, &n) == 0 ? n : 99;
}

static void ports(void **state)
{
    const char *names[4];
    char copy[128];

    assert_int_equal(cut("eth1,eth2", copy, names), 2);
    assert_string_equal(names[0], "eth1");
    assert_string_equal(names[1], "eth2");
    assert_int_equal(cut("net_null0,size=64,copy=1,xdp:eth1,net_ring0", copy, names), 3);
    assert_string_equal(names[0], "net_null0,size=64,copy=1");
    assert_string_equal(names[1], "xdp:eth1");
    assert_string_equal(names[2], "net_ring0");
    assert_int_equal(cut("one", copy, names), 1);
    assert_int_equal(cut("a,b,c,d", copy, names), 4);

    assert_int_equal(cut("", copy, names), 99);
    names_all("--ports", "", "empty port name");
    assert_int_equal(cut("a,", copy, names), 99);
    names_all("--ports", "", "empty port name");
    assert_int_equal(cut("a,,b", copy, names), 99);
    names_all("--ports", "", "empty port name");
    assert_int_equal(cut("size=64,a", copy, names), 99);
    names_all("--ports", "size=64", "without a device");
    assert_int_equal(cut("a,b,c,d,e", copy, names), 99);
    names_all("--ports", "4", "more than");
}

static void tunnels(void **state)
{
    static const char *const bad[] = {
        "",    ",",        "gre,",  ",gre",  "gre,,mpls",
        "GRE", "gre mpls", "vxlna", "all,x", "a-word-that-is-longer-than-any-tunnel's-name"
    };
    unsigned found = 77;

    assert_int_equal(value_tunnels(&c, "--tunnels", "gre", &found), 0);
    assert_int_equal(found, NST_TUNNEL_GRE);
    assert_int_equal(value_tunnels(&c, "--tunnels", "gtpu,mpls,gtpu", &found), 0);
    assert_int_equal(found, NST_TUNNEL_GTPU | NST_TUNNEL_MPLS);
    assert_int_equal(value_tunnels(&c, "--tunnels", "ipip,all", &found), 0);
    assert_int_equal(found, NST_TUNNELS_ALL);
    for (size_t i = 0; i < N(bad); i++) {
        assert_int_equal(value_tunnels(&c, "--tunnels", bad[i], &found), -EINVAL);
        names_all("--tunnels", "", "mpls, gre, ipip, vxlan, gtpu or all");
        assert_int_equal(found, NST_TUNNELS_ALL);
    }
}

static void shown(void **state)
{
    static const struct {
        nst_time t;
        const char *text;
    } times[] = { { 0, "0ns" },           { 999, "999ns" },     { 1500, "1.5us" },
                  { NST_MS(20), "20ms" }, { NST_SEC(2), "2s" }, { NST_SEC(7200), "2h" } };
    static const struct {
        uint64_t n;
        const char *text;
    } sizes[] = { { 0, "0" },       { 1023, "1023" },      { 1024, "1K" },
                  { 1536, "1.5K" }, { 300 << 20, "300M" }, { (uint64_t)2 << 30, "2G" } };
    char buf[32];

    for (size_t i = 0; i < N(times); i++)
        assert_string_equal(value_show_time(times[i].t, buf, sizeof buf), times[i].text);
    for (size_t i = 0; i < N(sizes); i++)
        assert_string_equal(value_show_size(sizes[i].n, buf, sizeof buf), sizes[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(number), cmocka_unit_test(time_with_unit), cmocka_unit_test(size),  cmocka_unit_test(speed),
        cmocka_unit_test(word),   cmocka_unit_test(ports),          cmocka_unit_test(shown), cmocka_unit_test(tunnels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
