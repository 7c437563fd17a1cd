/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/network.h"
#include <errno.h>
#include <stdlib.h>

#define NONE UINT32_MAX

enum { LOOKS = 64 }; /* entries that may be looked at to find one that nobody has */

struct network {
    uint8_t name[NETWORK_NAME_MAX]; /* 0 behind len */
    uint32_t len;
    uint32_t flows; /* that have its number */
    uint32_t seen;  /* tick */
    uint32_t chain;
};
_Static_assert(NETWORK_NAME_MAX % sizeof(uint64_t) == 0, "a name is hashed in words");

int networks_open(struct networks *t, uint32_t limit, uint32_t rest, const struct hash_secret *secret)
{
    uint32_t buckets = 16;

    while (buckets < limit)
        buckets *= 2;
    *t = (struct networks){ .limit = limit, .mask = buckets - 1, .rest = rest, .secret = secret };
    t->at = calloc(limit, sizeof *t->at);
    t->bucket = malloc(buckets * sizeof *t->bucket);
    if (t->at == NULL || t->bucket == NULL)
        return -ENOMEM;
    memset(t->bucket, 0xff, buckets * sizeof *t->bucket);
    return 0;
}

void networks_close(struct networks *t)
{
    free(t->at);
    free(t->bucket);
    *t = (struct networks){ 0 };
}

/* Names are padded with zeros, and their length counts. */
static uint32_t *bucket_of(const struct networks *t, const uint8_t *name, uint32_t len)
{
    uint64_t h = len, word[2];

    for (uint32_t i = 0, n = 0; i < len; i += sizeof word, n += 2) {
        uint32_t part = len - i < sizeof word ? len - i : (uint32_t)sizeof word;
        memset(word, 0, sizeof word);
        memcpy(word, name + i, part);
        h = hash_fold(word[0] ^ h ^ t->secret->k[n & 7], word[1] ^ t->secret->k[(n + 1) & 7]);
    }
    return &t->bucket[hash_fold(h ^ t->secret->k[6], t->secret->k[7]) & t->mask];
}

static void forget(struct networks *t, uint32_t n)
{
    uint32_t *link = bucket_of(t, t->at[n].name, t->at[n].len);

    while (*link != n)
        link = &t->at[*link].chain;
    *link = t->at[n].chain;
}

/* An entry for a new one, or NONE. */
static uint32_t entry_for(struct networks *t, uint32_t tick)
{
    if (t->used < t->limit)
        return t->used++;
    for (unsigned looks = 0; looks < LOOKS && looks < t->limit; looks++) {
        uint32_t n = t->hand;
        t->hand = n + 1 < t->limit ? n + 1 : 0;
        if (t->at[n].flows == 0 && tick - t->at[n].seen > t->rest) {
            forget(t, n);
            return n;
        }
    }
    return NONE;
}

uint16_t networks_find(struct networks *t, const uint8_t *name, uint32_t len, uint32_t tick)
{
    uint32_t *bucket = bucket_of(t, name, len), n = *bucket;

    while (n != NONE && (t->at[n].len != len || memcmp(t->at[n].name, name, len) != 0))
        n = t->at[n].chain;
    if (n == NONE) {
        n = entry_for(t, tick);
        if (n == NONE)
            return NETWORK_NONE;
        struct network *w = &t->at[n];
        memcpy(w->name, name, len);
        w->len = len;
        w->flows = 0;
        w->chain = *bucket;
        *bucket = n;
    }
    t->at[n].seen = tick;
    return (uint16_t)(KEY_TUNNEL + n);
}

void networks_hold(struct networks *t, uint16_t number)
{
    t->at[number - KEY_TUNNEL].flows++;
}

void networks_release(struct networks *t, uint16_t number, uint32_t tick)
{
    t->at[number - KEY_TUNNEL].flows--;
    t->at[number - KEY_TUNNEL].seen = tick;
}

uint32_t networks_name(const struct networks *t, uint16_t number, const uint8_t **name)
{
    *name = t->at[number - KEY_TUNNEL].name;
    return t->at[number - KEY_TUNNEL].len;
}
