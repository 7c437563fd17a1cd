/* SPDX-License-Identifier: Apache-2.0 */
/* Flows: their memory, the lists by which they end, and their end. */
#include "base/region.h"
#include "flow/engine.h"
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

enum { CACHE_LINE = 64, EXPIRE_BATCH = 64 };

static uint16_t aligned(size_t n)
{
    return (uint16_t)((n + 7) & ~(size_t)7);
}

size_t flows_stride(const struct nst_nf *nf, uint16_t state_at[3])
{
    const struct nst_inspector *client = nf->half[NST_CLIENT].inspect, *server = nf->half[NST_SERVER].inspect;

    state_at[0] = 0;
    state_at[1] = aligned(client != NULL ? client->size : 0);
    state_at[2] = (uint16_t)(state_at[1] + aligned(server != NULL ? server->size : 0));
    size_t size = sizeof(struct nst_flow) + state_at[2] + aligned(nf->flow_size);
    return (size + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
}

int flows_open(struct nst_engine *e, uint32_t limit)
{
    struct flow_memory *m = &e->flows;

    m->stride = flows_stride(e->nf, e->state_at);
    m->limit = limit;
    m->base = region_open(m->stride * limit);
    m->free = region_open(sizeof(uint32_t) * limit);
    if (m->base == NULL || m->free == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < LIVES; i++)
        e->list[i] = (struct flow_list){ NO_FLOW, NO_FLOW };
    e->ending = (struct flow_list){ NO_FLOW, NO_FLOW };
    return table_open(&e->table, limit);
}

void flows_close(struct nst_engine *e)
{
    table_close(&e->table);
    region_close(e->flows.base, e->flows.stride * e->flows.limit);
    region_close(e->flows.free, sizeof(uint32_t) * e->flows.limit);
}

static void list_append(struct nst_engine *e, struct flow_list *l, struct nst_flow *f)
{
    uint32_t n = flow_number(f);

    f->older = l->newest;
    f->newer = NO_FLOW;
    if (l->newest != NO_FLOW)
        flow_at(e, l->newest)->newer = n;
    else
        l->oldest = n;
    l->newest = n;
}

static void list_remove(struct nst_engine *e, struct flow_list *l, struct nst_flow *f)
{
    if (f->older != NO_FLOW)
        flow_at(e, f->older)->newer = f->newer;
    else
        l->oldest = f->newer;
    if (f->newer != NO_FLOW)
        flow_at(e, f->newer)->older = f->older;
    else
        l->newest = f->older;
}

struct same_key {
    const struct nst_engine *e;
    const struct flow_key *key;
};

static bool same_flow(const void *arg, uint32_t entry)
{
    const struct same_key *s = arg;
    return key_equal(&flow_at(s->e, entry)->key, s->key);
}

struct nst_flow *flows_find(struct nst_engine *e, const struct flow_key *key, uint64_t hash)
{
    struct same_key same = { e, key };
    uint32_t n = table_find(&e->table, hash, same_flow, &same);
    return n != NO_FLOW ? flow_at(e, n) : NULL;
}

/* Makes room by ending the flow that is worth least: one that is over, else one that never opened. An established one
 * is never ended for another. */
static bool evict(struct nst_engine *e)
{
    static const enum life order[] = { LIFE_CLOSING, LIFE_OPENING };

    for (unsigned i = 0; i < sizeof order / sizeof order[0]; i++) {
        uint32_t n = e->list[order[i]].oldest;
        if (n == NO_FLOW)
            continue;
        e->stats.flows_evicted++;
        flows_retire(flow_at(e, n), NST_CLOSED_BY_EVICTION);
        return true;
    }
    return false;
}

struct nst_flow *flows_add(struct nst_engine *e, const struct flow_key *key, uint64_t hash, bool client_is_b,
                           enum life life)
{
    struct flow_memory *m = &e->flows;
    uint32_t n;

    if (m->n_free == 0 && m->touched == m->limit) {
        /* What is evicted now is free after its CLOSE; this packet's flow has to be refused, a later one finds room. */
        evict(e);
        if (m->n_free == 0)
            return NULL;
    }
    n = m->n_free != 0 ? m->free[--m->n_free] : m->touched++;
    struct nst_flow *f = flow_at(e, n);
    memset(f, 0, m->stride);
    f->engine = e;
    f->key = *key;
    f->flags = (uint16_t)((client_is_b ? FLOW_CLIENT_IS_B : 0) | (e->loops ? FLOW_LOOPS : 0));
    f->seen = e->tick;
    f->life = (uint8_t)life;
    f->due = e->tick + e->idle[life];
    if (table_add(&e->table, hash, n) < 0) {
        m->free[m->n_free++] = n;
        return NULL;
    }
    list_append(e, &e->list[life], f);
    e->stats.flows_opened++;
    if (++e->stats.flows > e->stats.flows_peak)
        e->stats.flows_peak = e->stats.flows;
    return f;
}

void flows_set_life(struct nst_flow *f, enum life life)
{
    struct nst_engine *e = f->engine;

    if (f->life == life || (f->flags & FLOW_RETIRED))
        return;
    list_remove(e, &e->list[f->life], f);
    f->life = (uint8_t)life;
    f->due = f->seen + e->idle[life];
    list_append(e, &e->list[life], f);
}

void nst_flow_life(struct nst_flow *f, enum nst_life life, enum nst_close_why why)
{
    if (why != NST_OPEN_STILL)
        f->why = (uint8_t)why;
    if (f->life != LIFE_BLOCKED && f->life != LIFE_UDP)
        flows_set_life(f, (enum life)life);
}

void flows_retire(struct nst_flow *f, enum nst_close_why why)
{
    struct nst_engine *e = f->engine;

    table_remove(&e->table, key_hash(&f->key, &e->secret), flow_number(f));
    list_remove(e, &e->list[f->life], f);
    if (f->why == NST_OPEN_STILL)
        f->why = (uint8_t)(f->flags & FLOW_DROP ? NST_CLOSED_BY_VERDICT : why);
    f->flags |= FLOW_RETIRED;
    e->epoch++;
    list_append(e, &e->ending, f);
    e->retired = true;
    for (unsigned side = 0; side < 2; side++) {
        if (f->turn[side] != NULL && f->turn[side]->now.state == TURN_LOOP)
            loop_wake(f->turn[side]);
    }
}

static void flow_free(struct nst_engine *e, struct nst_flow *f)
{
    for (unsigned side = 0; side < 2; side++) {
        const struct nst_inspector *inspect = e->half[side].inspect;
        if (inspect != NULL && inspect->close != NULL)
            inspect->close(flow_inspector(f, (enum nst_side)side), f, (enum nst_side)side);
    }
    watch_leave(f);
    e->flows.free[e->flows.n_free++] = flow_number(f);
    e->stats.flows_closed++;
    e->stats.flows--;
}

void flows_end(struct nst_engine *e)
{
    /* Those whose halves are busy stay in the list; each is looked at once. */
    uint32_t n = e->ending.oldest, last = e->ending.newest;

    e->retired = false;
    while (n != NO_FLOW) {
        struct nst_flow *f = flow_at(e, n);
        bool is_last = n == last;
        n = f->newer;
        if (f->turn[0] == NULL && f->turn[1] == NULL) {
            list_remove(e, &e->ending, f);
            e->closing++;
            for (unsigned side = 0; side < 2; side++) {
                if (e->half[side].handler != NULL && flow_closes(f, (enum nst_side)side))
                    half_close(f, (enum nst_side)side);
            }
            e->closing--;
            flow_free(e, f);
            if (nst_moved())
                return; /* CLOSE has waited; meanwhile the rest was looked at */
        }
        if (is_last)
            return;
    }
}

void flows_expire(struct nst_engine *e)
{
    unsigned budget = EXPIRE_BATCH;

    for (unsigned life = 0; life < LIVES; life++) {
        while (budget > 0 && e->list[life].oldest != NO_FLOW) {
            struct nst_flow *f = flow_at(e, e->list[life].oldest);
            if ((int32_t)(f->due - e->tick) > 0)
                break;
            if (!e->replay)
                budget--;
            uint32_t due = f->seen + e->idle[life];
            bool busy = turn_runs(f->turn[0]) || turn_runs(f->turn[1]);
            if (busy && (int32_t)(due - e->tick) <= 0)
                due = e->tick + e->idle[life];
            if ((int32_t)(due - e->tick) > 0) {
                list_remove(e, &e->list[life], f);
                f->due = due;
                list_append(e, &e->list[life], f);
            } else {
                flows_retire(f, NST_CLOSED_BY_TIMEOUT);
            }
        }
    }
}
