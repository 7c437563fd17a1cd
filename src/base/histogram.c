/* SPDX-License-Identifier: Apache-2.0 */
#include "base/histogram.h"

/* The largest value that counts in bucket i. */
static uint64_t bucket_end(uint32_t i)
{
    uint32_t shift;

    if (i < NST_HISTOGRAM_STEPS)
        return i;
    shift = i / NST_HISTOGRAM_STEPS - 1;
    return ((uint64_t)(i - shift * NST_HISTOGRAM_STEPS + 1) << shift) - 1;
}

uint64_t nst_histogram_percentile(const struct nst_histogram *h, double percent)
{
    uint64_t rank, seen = 0;

    if (h->count == 0)
        return 0;
    if (!(percent > 0))
        percent = 0;
    if (percent >= 100)
        return h->max;
    rank = (uint64_t)(percent / 100 * (double)h->count);
    if ((double)rank < percent / 100 * (double)h->count || rank == 0)
        rank++;
    for (uint32_t i = 0; i < NST_HISTOGRAM_BUCKETS - 1; i++) {
        seen += h->bucket[i];
        if (seen >= rank)
            return bucket_end(i) < h->max ? bucket_end(i) : h->max;
    }
    return h->max;
}

void nst_histogram_merge(struct nst_histogram *into, const struct nst_histogram *from)
{
    into->count += from->count;
    into->sum += from->sum;
    if (from->max > into->max)
        into->max = from->max;
    for (uint32_t i = 0; i < NST_HISTOGRAM_BUCKETS; i++)
        into->bucket[i] += from->bucket[i];
}
