/* SPDX-License-Identifier: Apache-2.0 */
#include "ips/state.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct ips_state example(void)
{
    return (struct ips_state){
        .rules = 0x1122334455667788u,
        .base = 5,
        .rule = 1001,
        .ack = 0xdeadbeef,
        .has_ack = true,
        .to_client = true,
        .current = { 50, 0x100000064u, { "current", 7 } },
        .previous = { 50u - 100u, 0x100000000u, { "before", 6 } },
    };
}

static void round_trip(void **state)
{
    struct ips_state a = example(), b;
    uint8_t record[IPS_STATE_MAX];
    size_t len = ips_state_encode(&a, record);
    assert_int_equal(len, IPS_STATE_FIXED + 7 + 6);
    assert_int_equal(ips_state_decode(&b, record, len), 0);
    assert_true(a.rules == b.rules && a.base == b.base && a.rule == b.rule && a.ack == b.ack && b.has_ack &&
                b.to_client);
    assert_int_equal(b.current.seq, 50);
    assert_true(b.current.offset == 0x100000064u);
    assert_int_equal(b.current.automaton.len, 7);
    assert_memory_equal(b.current.automaton.p, "current", 7);
    assert_int_equal(b.previous.seq, 50u - 100u); /* across the wrap of sequence numbers */
    assert_true(b.previous.offset == 0x100000000u);
    assert_int_equal(b.previous.automaton.len, 6);
    assert_memory_equal(b.previous.automaton.p, "before", 6);
}

static void no_automata(void **state)
{
    struct ips_state a = { .current = { .seq = 1 }, .previous = { .seq = 1 } }, b;
    uint8_t record[IPS_STATE_MAX];
    size_t len = ips_state_encode(&a, record);
    assert_int_equal(len, IPS_STATE_FIXED);
    assert_int_equal(ips_state_decode(&b, record, len), 0);
    assert_int_equal(b.current.automaton.len, 0);
    assert_false(b.has_ack || b.to_client);
}

static void largest(void **state)
{
    static const uint8_t bytes[IPS_AUTOMATON_MAX];
    struct ips_state a = example(), b;
    a.current.automaton = a.previous.automaton = (struct nst_slice){ bytes, sizeof bytes };
    uint8_t record[IPS_STATE_MAX];
    assert_int_equal(ips_state_encode(&a, record), IPS_STATE_MAX);
    assert_int_equal(ips_state_decode(&b, record, IPS_STATE_MAX), 0);
}

/* The same bytes on every machine: what one instance writes, another one reads. */
static void layout(void **state)
{
    static const uint8_t expected[46] = {
        1,    3,    7,    0,    6,    0,                               /* version, flags, lengths */
        0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,                /* rules */
        5,    0,    0,    0,    0,    0,    0,    0,                   /* base */
        0x64, 0,    0,    0,    1,    0,    0,    0,                   /* offset */
        50,   0,    0,    0,    100,  0,    0,    0,    0xe9, 3, 0, 0, /* seq, span, rule */
        0xef, 0xbe, 0xad, 0xde,                                        /* ack */
    };
    struct ips_state a = example();
    uint8_t record[IPS_STATE_MAX];
    size_t len = ips_state_encode(&a, record);
    assert_memory_equal(record, expected, sizeof expected);
    assert_memory_equal(record + IPS_STATE_FIXED, "currentbefore", len - IPS_STATE_FIXED);
}

static int decode_copy(const uint8_t *record, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1); /* exactly as long, for the sanitizer */
    memcpy(copy, record, len);
    struct ips_state st;
    int rc = ips_state_decode(&st, copy, len);
    free(copy);
    return rc;
}

static void every_truncation_and_addition(void **state)
{
    struct ips_state a = example();
    uint8_t record[IPS_STATE_MAX] = { 0 };
    size_t len = ips_state_encode(&a, record);
    for (size_t n = 0; n < len + 20; n++)
        assert_int_equal(decode_copy(record, n), n == len ? 0 : -EPROTO);
}

static void every_bit_flipped(void **state)
{
    struct ips_state a = example();
    uint8_t record[IPS_STATE_MAX];
    size_t len = ips_state_encode(&a, record);
    for (size_t bit = 0; bit < 8 * len; bit++) {
        record[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(decode_copy(record, len), -EPROTO);
        record[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void random_bytes(void **state)
{
    uint8_t record[IPS_STATE_MAX + 64];
    srand(1);
    for (int i = 0; i < 200000; i++) {
        size_t len = (size_t)rand() % (i % 10 == 0 ? sizeof record : 128);
        for (size_t k = 0; k < len; k++)
            record[k] = (uint8_t)rand();
        if (len > 6 && i % 2) { /* as far as the lengths all is well */
            record[0] = 1;
            record[1] &= 1;
            record[3] = record[5] = 0;
        }
        assert_int_equal(decode_copy(record, len), -EPROTO);
    }
}

static void points(void **state)
{
    struct ips_state a = example();
    assert_ptr_equal(ips_state_at(&a, 50), &a.current);
    assert_ptr_equal(ips_state_at(&a, 50u - 100u), &a.previous);
    assert_null(ips_state_at(&a, 0));
    assert_null(ips_state_at(&a, 51));
    assert_null(ips_state_at(&a, 50u - 101u));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(no_automata),
        cmocka_unit_test(largest),
        cmocka_unit_test(layout),
        cmocka_unit_test(every_truncation_and_addition),
        cmocka_unit_test(every_bit_flipped),
        cmocka_unit_test(random_bytes),
        cmocka_unit_test(points),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
