/* SPDX-License-Identifier: Apache-2.0 */
#include "base/histogram.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void empty(void **state)
{
    static const struct nst_histogram h;

    assert_int_equal(nst_histogram_percentile(&h, 50), 0);
    assert_int_equal(nst_histogram_percentile(&h, 100), 0);
}

static void small_values_are_exact(void **state)
{
    static struct nst_histogram h;

    for (uint64_t v = 1; v <= 50; v++)
        nst_histogram_record(&h, v);
    assert_int_equal(h.count, 50);
    assert_int_equal(h.sum, 50 * 51 / 2);
    assert_int_equal(nst_histogram_percentile(&h, 0), 1);
    assert_int_equal(nst_histogram_percentile(&h, 50), 25);
    assert_int_equal(nst_histogram_percentile(&h, 90), 45);
    assert_int_equal(nst_histogram_percentile(&h, 99), 50);
    assert_int_equal(nst_histogram_percentile(&h, 100), 50);
}

/* Buckets follow each other without gap or overlap, whatever the value. */
static void buckets_rise(void **state)
{
    uint32_t last = 0;

    for (uint64_t v = 0; v < 100000; v++) {
        uint32_t i = nst_histogram_index(v);
        assert_true(i == last || i == last + 1);
        last = i;
    }
    for (unsigned bit = 6; bit < 64; bit++) {
        uint64_t v = UINT64_C(1) << bit;
        assert_true(nst_histogram_index(v) < NST_HISTOGRAM_BUCKETS);
        assert_int_equal(nst_histogram_index(v), nst_histogram_index(v - 1) + (bit <= NST_HISTOGRAM_BITS - 1));
    }
    assert_int_equal(nst_histogram_index(UINT64_MAX), NST_HISTOGRAM_BUCKETS - 1);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void against_sorting(void **state)
{
    enum { N = 20000 };
    static const double percents[] = { 1, 10, 50, 90, 99, 99.9 };
    static struct nst_histogram h, a, b;
    static uint64_t v[N];

    srandom(1);
    for (int i = 0; i < N; i++) {
        v[i] = (uint64_t)random() >> (random() % 31);
        nst_histogram_record(i & 1 ? &a : &b, v[i]);
    }
    nst_histogram_merge(&h, &a);
    nst_histogram_merge(&h, &b);
    qsort(v, N, sizeof v[0], by_value);
    assert_int_equal(h.count, N);
    assert_int_equal(h.max, v[N - 1]);
    for (size_t i = 0; i < sizeof percents / sizeof *percents; i++) {
        uint64_t real = v[(size_t)(percents[i] / 100 * N + 0.999) - 1],
                 told = nst_histogram_percentile(&h, percents[i]);
        assert_true(told >= real);
        assert_true(told <= real + real / 32 + 1);
    }
}

static void huge_values(void **state)
{
    static struct nst_histogram h;

    nst_histogram_record(&h, UINT64_MAX / 2);
    nst_histogram_record(&h, 7);
    assert_int_equal(nst_histogram_percentile(&h, 50), 7);
    assert_int_equal(nst_histogram_percentile(&h, 99), UINT64_MAX / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty),        cmocka_unit_test(small_values_are_exact),
        cmocka_unit_test(buckets_rise), cmocka_unit_test(against_sorting),
        cmocka_unit_test(huge_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
