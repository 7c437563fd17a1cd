/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/table.h"
#include "flow_lab.h"
#include <stdlib.h>

/* The model: which entry is there, with which hash. */
struct model {
    uint64_t *hash;
    bool *there;
    uint32_t n;
};

static bool same(const void *arg, uint32_t entry)
{
    return entry == *(const uint32_t *)arg;
}

static bool never(const void *arg, uint32_t entry)
{
    ++*(unsigned *)(uintptr_t)arg;
    return false;
}

static uint32_t find(const struct table *t, uint64_t hash, uint32_t entry)
{
    return table_find(t, hash, same, &entry);
}

static void assert_empty(const struct table *t)
{
    assert_int_equal(t->entries, 0);
    for (uint32_t i = 0; i < t->buckets; i++) {
        assert_int_equal(t->bucket[i].overflowed, 0);
        for (unsigned s = 0; s < BUCKET_SLOTS; s++)
            assert_int_equal(t->bucket[i].tag[s], 0);
    }
}

/* Every entry is found under its hash, none other is, and a full table refuses. `spread` bits of the hash's upper half
 * and `tags` of its lower one vary. */
static void against_model(uint32_t limit, uint64_t spread, uint64_t tags)
{
    uint64_t rnd = lab_seed();
    struct table t;

    print_message("seed %llu\n", (unsigned long long)rnd);
    assert_int_equal(table_open(&t, limit), 0);
    struct model m = { .n = t.buckets * BUCKET_SLOTS };
    m.hash = calloc(m.n + 1, sizeof *m.hash);
    m.there = calloc(m.n + 1, sizeof *m.there);
    assert_true(m.n >= limit);
    uint32_t there = 0;
    for (unsigned round = 0; round < 6; round++) {
        /* Up to a different fullness each time, the last two to the brim. */
        uint32_t goal = round < 4 ? m.n / 4 * (round + 1) : m.n;
        for (unsigned step = 0; step < 6 * m.n; step++) {
            uint32_t i = lab_random(&rnd, m.n);
            if (m.there[i]) {
                if (lab_random(&rnd, 3) == 0) {
                    table_remove(&t, m.hash[i], i);
                    m.there[i] = false;
                    there--;
                    assert_int_equal(find(&t, m.hash[i], i), UINT32_MAX);
                } else {
                    assert_int_equal(find(&t, m.hash[i], i), i);
                }
            } else if (there < goal) {
                uint64_t r = (uint64_t)lab_random(&rnd, UINT32_MAX) << 32 | lab_random(&rnd, UINT32_MAX);
                m.hash[i] = (r & spread << 32) | (r & tags);
                assert_int_equal(find(&t, m.hash[i], i), UINT32_MAX);
                assert_int_equal(table_add(&t, m.hash[i], i), 0);
                m.there[i] = true;
                there++;
            }
            assert_int_equal(t.entries, there);
        }
        if (goal == m.n) {
            for (uint32_t i = 0; i < m.n; i++) {
                if (!m.there[i]) {
                    assert_int_equal(table_add(&t, m.hash[i], i), 0);
                    m.there[i] = true;
                    there++;
                }
            }
            assert_int_equal(table_add(&t, m.hash[0], m.n), -ENOSPC);
            assert_int_equal(find(&t, m.hash[0], m.n), UINT32_MAX);
        }
        for (uint32_t i = 0; i < m.n; i++)
            assert_int_equal(find(&t, m.hash[i], i), m.there[i] ? i : UINT32_MAX);
    }
    for (uint32_t i = 0; i < m.n; i++) {
        if (m.there[i])
            table_remove(&t, m.hash[i], i);
    }
    assert_empty(&t);
    table_close(&t);
    free(m.hash);
    free(m.there);
}

static void random_hashes(void **state)
{
    against_model(1000, UINT32_MAX, UINT32_MAX);
}

static void one_bucket(void **state)
{
    against_model(1, UINT32_MAX, UINT32_MAX);
}

static void all_in_one_home(void **state)
{
    against_model(100, 0, UINT32_MAX);
}

static void few_tags(void **state)
{
    against_model(300, UINT32_MAX, 3);
}

static void one_home_and_one_tag(void **state)
{
    against_model(40, 0, 0);
}

/* The last bucket overflows into the first. */
static void wraps_around(void **state)
{
    struct table t;

    assert_int_equal(table_open(&t, 12), 0);
    assert_true(t.buckets >= 2);
    for (uint32_t i = 0; i < 12; i++)
        assert_int_equal(table_add(&t, UINT64_MAX - i, i), 0);
    assert_int_equal(t.bucket[t.buckets - 1].overflowed, 4);
    assert_true(t.bucket[0].tag[0] != 0);
    for (uint32_t i = 0; i < 12; i++)
        assert_int_equal(find(&t, UINT64_MAX - i, i), i);
    for (uint32_t i = 0; i < 12; i++)
        table_remove(&t, UINT64_MAX - i, i);
    assert_empty(&t);
    table_close(&t);
}

/* What is not there costs one bucket, where none overflowed. */
static void misses_end_early(void **state)
{
    struct table t;
    unsigned looked = 0;

    assert_int_equal(table_open(&t, 100), 0);
    for (uint32_t i = 0; i < 8; i++)
        assert_int_equal(table_add(&t, 1, i), 0);
    assert_int_equal(table_find(&t, 1, never, &looked), UINT32_MAX);
    assert_int_equal(looked, 8);
    looked = 0;
    assert_int_equal(table_add(&t, 1, 8), 0);
    assert_int_equal(table_find(&t, 1, never, &looked), UINT32_MAX);
    assert_int_equal(looked, 9);
    table_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_hashes),    cmocka_unit_test(one_bucket),           cmocka_unit_test(all_in_one_home),
        cmocka_unit_test(few_tags),         cmocka_unit_test(one_home_and_one_tag), cmocka_unit_test(wraps_around),
        cmocka_unit_test(misses_end_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
