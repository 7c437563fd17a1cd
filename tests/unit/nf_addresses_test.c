/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of addresses against a list that is searched from its beginning, and what is and is not an address. */
#include "common/addresses.h"
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 11) % below);
}

static struct nf_word word(const char *text)
{
    return (struct nf_word){ text, strlen(text), false };
}

static bool parses(const char *text, struct nf_range *r)
{
    const char *at, *why;
    struct nf_word w = word(text);
    int rc = nf_range_parse(&w, r, &at, &why);

    if (rc < 0) {
        assert_int_equal(rc, -EINVAL);
        assert_true(at >= text && at <= text + strlen(text) && strncmp(why, "expected ", 9) == 0);
    }
    return rc == 0;
}

static void accepted(void **unused)
{
    static const struct {
        const char *text, *lo, *hi;
    } cases[] = {
        { "10.0.0.1", "10.0.0.1", "10.0.0.1" },
        { "10.0.0.0/8", "10.0.0.0", "10.255.255.255" },
        { "10.1.2.128/25", "10.1.2.128", "10.1.2.255" },
        { "0.0.0.0/0", "0.0.0.0", "255.255.255.255" },
        { "1.2.3.4/32", "1.2.3.4", "1.2.3.4" },
        { "1.2.3.4-1.2.4.0", "1.2.3.4", "1.2.4.0" },
        { "9.9.9.9-9.9.9.9", "9.9.9.9", "9.9.9.9" },
        { "::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" },
        { "fd00::/8", "fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" },
        { "2001:db8::1", "2001:db8::1", "2001:db8::1" },
        { "2001:db8::/127", "2001:db8::", "2001:db8::1" },
        { "2001:db8::1-2001:db8::ff", "2001:db8::1", "2001:db8::ff" },
        { "::ffff:1.2.3.4", "::ffff:1.2.3.4", "::ffff:1.2.3.4" },
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nf_range r;
        uint8_t lo[16] = { 0 }, hi[16] = { 0 };
        int family = strchr(cases[i].lo, ':') ? AF_INET6 : AF_INET;
        if (!parses(cases[i].text, &r))
            fail_msg("%s", cases[i].text);
        assert_int_equal(r.family, family == AF_INET ? 4 : 6);
        inet_pton(family, cases[i].lo, lo);
        inet_pton(family, cases[i].hi, hi);
        assert_memory_equal(r.lo, lo, 16);
        assert_memory_equal(r.hi, hi, 16);
    }
}

static void refused(void **unused)
{
    static const char *const bad[] = {
        "",
        "10",
        "10.0.0",
        "10.0.0.256",
        "10.0.0.0/33",
        "10.0.0.1/8",
        "10.0.0.0/",
        "10.0.0.0/-1",
        "10.0.0.0/08x",
        "10.0.0.9-10.0.0.1",
        "10.0.0.1-",
        "10.0.0.1-fd00::1",
        "fd00::1-10.0.0.1",
        "fd00::/129",
        "fd00::1/64",
        ":",
        ":::",
        "fd00::1::2",
        "host",
        "10.0.0.0/8/8",
        "1.2.3.4.5",
        "-",
        "/",
        "/8",
        "-10.0.0.1",
        "10.0.0.0-/8",
        "01.2.3.4",
        "0x7f.0.0.1",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "1111111111111111111111111111111111111111111111111111111111111",
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct nf_range r;
        if (parses(bad[i], &r))
            fail_msg("accepted: %s", bad[i]);
    }
}

/* A random range among few addresses, so that they touch, overlap and contain each other. */
static struct nf_range some_range(unsigned spread)
{
    struct nf_range r = { .family = draw(2) ? 4 : 6 };
    unsigned at = r.family == 4 ? 2 : 14, lo = draw(spread), hi = lo + draw(draw(8) == 0 ? spread / 4 : 3);

    if (hi > 0xffff)
        hi = 0xffff;
    if (draw(50) == 0) /* the ends of the space */
        memset(draw(2) ? r.lo : r.hi, 0, 16);
    memset(r.hi, r.family == 6 && draw(60) == 0 ? 0xff : 0, 16);
    if (r.family == 6 && r.hi[0] == 0xff)
        memset(r.lo, 0xff, 14);
    r.lo[at] = (uint8_t)(lo >> 8);
    r.lo[at + 1] = (uint8_t)lo;
    r.hi[at] = (uint8_t)(hi >> 8);
    r.hi[at + 1] = (uint8_t)hi;
    if (r.hi[0] != 0xff)
        memset(r.hi, 0, at);
    return r;
}

static void like_a_list(void **unused)
{
    enum { ROUNDS = 300, MOST = 120, ASKED = 400 };
    const char *seed = getenv("NST_SEED");

    state = seed ? strtoull(seed, NULL, 0) | 1 : 88172645463325252u;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct nf_addresses_builder b = { 0 };
        struct nf_addresses *set = NULL, *copy = NULL;
        struct nf_range list[MOST];
        unsigned n = draw(MOST), spread = 16u << draw(10);
        for (unsigned i = 0; i < n; i++) {
            list[i] = some_range(spread);
            assert_int_equal(nf_addresses_add(&b, &list[i]), 0);
        }
        assert_int_equal(nf_addresses_build(&set, &b), 0);
        assert_null(b.range);
        assert_true(nf_addresses_count(set) <= n);
        assert_int_equal(nf_addresses_add_all(&b, set), 0);
        assert_int_equal(nf_addresses_build(&copy, &b), 0);
        assert_int_equal(nf_addresses_count(copy), nf_addresses_count(set));
        for (unsigned i = 0; i < ASKED; i++) {
            struct nf_range r = some_range(spread);
            if (draw(3) == 0 && n > 0) { /* just inside and just outside */
                r = list[draw(n)];
                for (int at = 15; at >= 0 && draw(2); at--)
                    if (++r.hi[r.family == 4 ? at & 3 : at] != 0)
                        break;
            }
            const uint8_t *addr = draw(2) ? r.lo : r.hi;
            bool expected = false;
            for (unsigned j = 0; j < n; j++) {
                size_t len = list[j].family == 4 ? 4 : 16;
                expected |= list[j].family == r.family && memcmp(list[j].lo, addr, len) <= 0 &&
                            memcmp(addr, list[j].hi, len) <= 0;
            }
            assert_int_equal(nf_addresses_have(set, r.family, addr), expected);
            assert_int_equal(nf_addresses_have(copy, r.family, addr), expected);
        }
        nf_addresses_free(set);
        nf_addresses_free(copy);
    }
}

static void many(void **unused)
{
    enum { N = 100000 };
    struct nf_addresses_builder b = { 0 };
    struct nf_addresses *set = NULL;
    struct nf_range r = { .family = 4 };

    for (uint32_t i = 0; i < N; i++) { /* every other address, in no order */
        uint32_t a = htonl(0x0a000000u + (i * 7919u % N) * 2);
        memcpy(r.lo, &a, 4);
        memcpy(r.hi, &a, 4);
        assert_int_equal(nf_addresses_add(&b, &r), 0);
    }
    assert_int_equal(nf_addresses_build(&set, &b), 0);
    assert_int_equal(nf_addresses_count(set), N);
    for (uint32_t i = 0; i < 2 * N; i++) {
        uint32_t a = htonl(0x0a000000u + i);
        assert_int_equal(nf_addresses_have(set, 4, (const uint8_t *)&a), i % 2 == 0);
    }
    assert_true(nf_addresses_have_family(set, 4));
    assert_false(nf_addresses_have_family(set, 6));
    nf_addresses_free(set);
    assert_false(nf_addresses_have(NULL, 4, r.lo));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepted),
        cmocka_unit_test(refused),
        cmocka_unit_test(like_a_list),
        cmocka_unit_test(many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
