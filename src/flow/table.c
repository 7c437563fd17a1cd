/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/table.h"
#include "base/region.h"
#include <errno.h>

static uint32_t buckets_for(uint32_t limit)
{
    return limit / BUCKET_SHARE + 1;
}

size_t table_memory(uint32_t limit)
{
    return (size_t)buckets_for(limit) * sizeof(struct table_bucket);
}

int table_open(struct table *t, uint32_t limit)
{
    void *p = region_open(table_memory(limit));

    if (p == NULL)
        return -ENOMEM;
    *t = (struct table){ .bucket = p, .buckets = buckets_for(limit) };
    return 0;
}

void table_close(struct table *t)
{
    region_close(t->bucket, (size_t)t->buckets * sizeof *t->bucket);
    t->bucket = NULL;
}

static inline uint32_t after(const struct table *t, uint32_t i)
{
    return i + 1 == t->buckets ? 0 : i + 1;
}

uint32_t table_find(const struct table *t, uint64_t hash, bool (*same)(const void *, uint32_t), const void *arg)
{
    uint16_t tag = table_tag(hash);
    uint32_t i = table_home(t, hash);

    for (uint32_t n = 0; n < t->buckets; n++, i = after(t, i)) {
        const struct table_bucket *b = &t->bucket[i];
        for (unsigned found = bucket_match(b, tag); found != 0; found &= found - 1) {
            uint32_t entry = b->entry[__builtin_ctz(found)];
            if (same(arg, entry))
                return entry;
        }
        if (b->overflowed == 0)
            break;
    }
    return UINT32_MAX;
}

int table_add(struct table *t, uint64_t hash, uint32_t entry)
{
    if (t->entries == (uint64_t)t->buckets * BUCKET_SLOTS)
        return -ENOSPC;
    uint32_t i = table_home(t, hash);
    for (;; i = after(t, i)) {
        struct table_bucket *b = &t->bucket[i];
        unsigned empty = bucket_match(b, 0);
        if (empty != 0) {
            unsigned slot = (unsigned)__builtin_ctz(empty);
            b->tag[slot] = table_tag(hash);
            b->entry[slot] = entry;
            t->entries++;
            return 0;
        }
        b->overflowed++;
    }
}

void table_remove(struct table *t, uint64_t hash, uint32_t entry)
{
    uint16_t tag = table_tag(hash);
    uint32_t home = table_home(t, hash), i = home;

    for (uint32_t n = 0; n < t->buckets; n++, i = after(t, i)) {
        struct table_bucket *b = &t->bucket[i];
        for (unsigned found = bucket_match(b, tag); found != 0; found &= found - 1) {
            unsigned slot = (unsigned)__builtin_ctz(found);
            if (b->entry[slot] != entry)
                continue;
            b->tag[slot] = 0;
            t->entries--;
            for (uint32_t j = home; j != i; j = after(t, j))
                t->bucket[j].overflowed--;
            return;
        }
    }
}
