/* SPDX-License-Identifier: Apache-2.0 */
/* The store's operations with a clock around them. */
#include "replay.h"
#include "store/store.h"
#include <rte_cycles.h>

static const struct store_ops *real;
static struct store_ops watched;
static uint64_t cycles;

static void get(struct nst_store *s, struct nst_slice key, void *val, size_t cap, uint64_t *version,
                struct nst_future *f)
{
    uint64_t began = rte_rdtsc();
    real->get(s, key, val, cap, version, f);
    cycles += rte_rdtsc() - began;
}

static void put(struct nst_store *s, struct nst_slice key, struct nst_slice val, nst_time ttl, struct nst_future *f)
{
    uint64_t began = rte_rdtsc();
    real->put(s, key, val, ttl, f);
    cycles += rte_rdtsc() - began;
}

static void cas(struct nst_store *s, struct nst_slice key, struct nst_slice val, uint64_t version, nst_time ttl,
                struct nst_future *f)
{
    uint64_t began = rte_rdtsc();
    real->cas(s, key, val, version, ttl, f);
    cycles += rte_rdtsc() - began;
}

static void incr(struct nst_store *s, struct nst_slice key, int64_t by, int64_t *out, nst_time ttl,
                 struct nst_future *f)
{
    uint64_t began = rte_rdtsc();
    real->incr(s, key, by, out, ttl, f);
    cycles += rte_rdtsc() - began;
}

static void del(struct nst_store *s, struct nst_slice key, struct nst_future *f)
{
    uint64_t began = rte_rdtsc();
    real->del(s, key, f);
    cycles += rte_rdtsc() - began;
}

void replay_store_watch(struct nst_store *s)
{
    cycles = 0;
    real = s->ops;
    watched = *s->ops;
    watched.get = get;
    watched.put = put;
    watched.cas = cas;
    watched.incr = incr;
    watched.del = del;
    s->ops = &watched;
}

uint64_t replay_store_unwatch(struct nst_store *s)
{
    s->ops = real;
    return cycles;
}
