/* SPDX-License-Identifier: Apache-2.0 */
/* The store's operations with a clock around them. */
#include "replay.h"
#include "store/store.h"
#include <rte_cycles.h>

static const struct store_ops *real;
static struct store_ops watched;
static uint64_t cycles;

static void start(struct nst_store *s, const struct store_request *rq, struct nst_future *f)
{
    uint64_t began = rte_rdtsc();
    real->start(s, rq, f);
    cycles += rte_rdtsc() - began;
}

void replay_store_watch(struct nst_store *s)
{
    cycles = 0;
    real = s->ops;
    watched = *s->ops;
    watched.start = start;
    s->ops = &watched;
}

uint64_t replay_store_unwatch(struct nst_store *s)
{
    s->ops = real;
    return cycles;
}
