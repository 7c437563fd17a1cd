/* SPDX-License-Identifier: Apache-2.0 */
/* flow/table.h - from a hash to the number of a flow: buckets of one cache line with eight slots.
 *
 * A slot holds 16 bits of the hash and the 32-bit number of an entry; keys live with the entries, so that a lookup
 * costs one line here and one line there. A full bucket overflows into the next one and counts that, so that a lookup
 * of what is not there ends at the first bucket that never overflowed. The table never grows; it is made for `limit`
 * entries at half full. One owner thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum {
    BUCKET_SLOTS = 8,
    BUCKET_SHARE = 4, /* entries for each bucket at the limit: one bucket in fifty overflows */
};

struct table_bucket {
    uint16_t tag[BUCKET_SLOTS]; /* 0: free */
    uint32_t entry[BUCKET_SLOTS];
    uint32_t overflowed; /* entries that wanted this bucket or an earlier one and are in a later one */
    uint32_t pad[3];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct table_bucket) == 64, "a bucket is one cache line");

struct table {
    struct table_bucket *bucket;
    uint32_t buckets;
    uint32_t entries;
};

/* -ENOMEM. */
int table_open(struct table *t, uint32_t limit);
void table_close(struct table *t);
size_t table_memory(uint32_t limit);

static inline uint32_t table_home(const struct table *t, uint64_t hash)
{
    return (uint32_t)((hash >> 32) * t->buckets >> 32);
}

static inline uint16_t table_tag(uint64_t hash)
{
    return (uint16_t)hash | 1;
}

/* The slots of a bucket that have this tag, as bits 0 to 7. */
static inline unsigned bucket_match(const struct table_bucket *b, uint16_t tag)
{
#ifdef __SSE2__
    __m128i eq = _mm_cmpeq_epi16(_mm_load_si128((const __m128i *)b->tag), _mm_set1_epi16((short)tag));
    return (unsigned)_mm_movemask_epi8(_mm_packs_epi16(eq, _mm_setzero_si128()));
#else
    unsigned found = 0;
    for (unsigned i = 0; i < BUCKET_SLOTS; i++)
        found |= (unsigned)(b->tag[i] == tag) << i;
    return found;
#endif
}

/* The bucket where a lookup begins, on its way from memory. */
static inline const struct table_bucket *table_prefetch(const struct table *t, uint64_t hash)
{
    const struct table_bucket *b = &t->bucket[table_home(t, hash)];

    __builtin_prefetch(b);
    return b;
}

/* The entry in that bucket that has the hash's tag, or UINT32_MAX: a guess, good for a prefetch. */
static inline uint32_t table_guess(const struct table_bucket *b, uint64_t hash)
{
    unsigned found = bucket_match(b, table_tag(hash));
    return found != 0 ? b->entry[__builtin_ctz(found)] : UINT32_MAX;
}

/* The entry for which same(arg, entry) holds, or UINT32_MAX. */
uint32_t table_find(const struct table *t, uint64_t hash, bool (*same)(const void *arg, uint32_t entry),
                    const void *arg);

/* Adds an entry that is not there yet. -ENOSPC when every slot is taken. */
int table_add(struct table *t, uint64_t hash, uint32_t entry);

/* Removes an entry that is there. */
void table_remove(struct table *t, uint64_t hash, uint32_t entry);
