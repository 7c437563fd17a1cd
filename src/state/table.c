/* SPDX-License-Identifier: Apache-2.0 */
/* The objects that are kept: in one reserved region, found by a keyed hash, in the order of their use. */
#include "base/region.h"
#include "state/state.h"
#include "store/siphash.h"
#include <string.h>
#include <sys/random.h>

enum {
    EVICT_LOOKS = 16, /* at the least used, for one that nobody uses now */
    TICK_SHIFT = 26,  /* some 67 ms: uses within one are not told apart */
};

static uint32_t tick_now(void)
{
    return (uint32_t)((uint64_t)nst_now() >> TICK_SHIFT);
}

int table_of_objects_open(struct nst_state *s)
{
    s->value_at = (sizeof(struct kept) + s->prefix_len + s->config.key_max + 7) & ~(size_t)7;
    s->local_at = (s->value_at + s->config.size + 7) & ~(size_t)7;
    s->stride = (s->local_at + s->config.local + 63) & ~(size_t)63;
    for (s->buckets = 64; s->buckets < s->config.kept; s->buckets *= 2)
        continue;
    s->objects = region_open(s->stride * s->config.kept);
    s->bucket = region_open(s->buckets * sizeof *s->bucket);
    if (s->objects == NULL || s->bucket == NULL || getrandom(s->secret, sizeof s->secret, 0) != sizeof s->secret)
        return -ENOMEM;
    return 0;
}

void table_of_objects_close(struct nst_state *s)
{
    region_close(s->objects, s->stride * s->config.kept);
    region_close(s->bucket, s->buckets * sizeof *s->bucket);
}

uint64_t object_hash(const struct nst_state *s, struct nst_slice key)
{
    return sip_hash(s->secret, key.p, key.len);
}

struct kept *object_find(const struct nst_state *s, struct nst_slice key, uint64_t hash)
{
    struct kept *k = s->bucket[hash & (s->buckets - 1)];

    while (k != NULL && (k->hash != hash || k->key_len != s->prefix_len + key.len ||
                         memcmp(k->key + s->prefix_len, key.p, key.len) != 0))
        k = k->chain;
    return k;
}

/* ---- the order of use ---- */
static void unlink_use(struct nst_state *s, struct kept *k)
{
    *(k->newer != NULL ? &k->newer->older : &s->newest) = k->older;
    *(k->older != NULL ? &k->older->newer : &s->oldest) = k->newer;
}

static void link_newest(struct nst_state *s, struct kept *k)
{
    k->newer = NULL;
    k->older = s->newest;
    *(s->newest != NULL ? &s->newest->newer : &s->oldest) = k;
    s->newest = k;
}

void object_used(struct nst_state *s, struct kept *k)
{
    uint32_t tick = tick_now();

    if (k->tick == tick)
        return;
    k->tick = tick;
    unlink_use(s, k);
    link_newest(s, k);
}

void object_useless(struct nst_state *s, struct kept *k)
{
    unlink_use(s, k);
    k->older = NULL;
    k->newer = s->oldest;
    *(s->oldest != NULL ? &s->oldest->older : &s->newest) = k;
    s->oldest = k;
    k->tick = tick_now() - 1;
}

/* ---- coming and going ---- */
static void take_out(struct nst_state *s, struct kept *k)
{
    struct kept **at = &s->bucket[k->hash & (s->buckets - 1)];

    while (*at != k)
        at = &(*at)->chain;
    *at = k->chain;
    unlink_use(s, k);
    k->linked = false;
    k->chain = s->unused;
    s->unused = k;
    s->stats.kept--;
}

static bool in_use(const struct kept *k)
{
    return k->holds != 0 || k->op != OP_NONE || k->dirty;
}

static bool make_room(struct nst_state *s)
{
    for (unsigned looks = 0; looks < EVICT_LOOKS && s->oldest != NULL; looks++) {
        struct kept *k = s->oldest;
        if (!in_use(k)) {
            s->stats.evicted += k->valid;
            take_out(s, k);
            return true;
        }
        unlink_use(s, k);
        link_newest(s, k);
    }
    return false;
}

struct kept *object_add(struct nst_state *s, struct nst_slice key, uint64_t hash)
{
    struct kept *k;

    if (s->unused == NULL && s->touched == s->config.kept && !make_room(s))
        return NULL;
    k = s->unused;
    if (k != NULL)
        s->unused = k->chain;
    else
        k = (struct kept *)(s->objects + s->stride * s->touched++);
    memset(k, 0, sizeof *k);
    k->state = s;
    k->pub.value = (uint8_t *)k + s->value_at;
    k->pub.local = memset((uint8_t *)k + s->local_at, 0, s->config.local);
    k->pub.ttl = s->config.ttl;
    k->hash = hash;
    k->key_len = (uint16_t)(s->prefix_len + key.len);
    memcpy(k->key, s->prefix, s->prefix_len);
    memcpy(k->key + s->prefix_len, key.p, key.len);
    k->tick = tick_now();
    k->linked = true;
    wait_list_init(&k->claimers);
    wait_list_init(&k->next);
    wait_list_init(&k->sent);
    nst_future_init(&k->future);
    struct kept **bucket = &s->bucket[hash & (s->buckets - 1)];
    k->chain = *bucket;
    *bucket = k;
    link_newest(s, k);
    if (++s->stats.kept > s->stats.kept_peak)
        s->stats.kept_peak = s->stats.kept;
    return k;
}
