/* SPDX-License-Identifier: Apache-2.0 */
/* base/histogram.h - counts of durations in buckets that grow with the value, for latency percentiles.
 *
 * Values up to 63 have a bucket each; above, every doubling is divided into 32 buckets, so that a bucket is at most
 * 1/32 (3 %) of its value wide. Values from 2^40 on (18 minutes in nanoseconds) count in the last bucket. One owner
 * thread; all zero is an empty histogram.
 */
#pragma once
#include <stdint.h>

enum {
    NST_HISTOGRAM_STEPS = 32, /* buckets in each doubling */
    NST_HISTOGRAM_BITS = 40,
    NST_HISTOGRAM_BUCKETS = (NST_HISTOGRAM_BITS - 4) * NST_HISTOGRAM_STEPS,
};

struct nst_histogram {
    uint64_t count;
    uint64_t sum;
    uint64_t max;
    uint64_t bucket[NST_HISTOGRAM_BUCKETS];
};

static inline uint32_t nst_histogram_index(uint64_t value)
{
    if (value < NST_HISTOGRAM_STEPS)
        return (uint32_t)value;
    if (value >= UINT64_C(1) << NST_HISTOGRAM_BITS)
        return NST_HISTOGRAM_BUCKETS - 1;
    uint32_t shift = 63 - 5 - (uint32_t)__builtin_clzll(value);
    return shift * NST_HISTOGRAM_STEPS + (uint32_t)(value >> shift);
}

/* Counts one value. */
static inline void nst_histogram_record(struct nst_histogram *h, uint64_t value)
{
    h->count++;
    h->sum += value;
    if (value > h->max)
        h->max = value;
    h->bucket[nst_histogram_index(value)]++;
}

/* The value that `percent` (0 to 100) of all recorded ones do not exceed, rounded up to the end of its bucket but not
 * beyond the largest recorded; 0 when nothing was recorded. */
uint64_t nst_histogram_percentile(const struct nst_histogram *h, double percent);

/* Adds what `from` has counted. */
void nst_histogram_merge(struct nst_histogram *into, const struct nst_histogram *from);
