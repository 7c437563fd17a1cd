/* SPDX-License-Identifier: Apache-2.0 */
/* Flows: their memory, the lists by which they end, and their end. */
#include "base/region.h"
#include "flow/edit.h"
#include <netinet/in.h>
#include <rte_tcp.h>
#include <stdlib.h>
#include <string.h>

enum {
    CACHE_LINE = 64,
    EXPIRE_BATCH = 64,
    EVICT_LOOKS = 16, /* flows that may be looked at to find one that goes */
    SPARED = 32,      /* a life with less than this part of the table is spared as long as others have more */
    SPARE = 64,       /* entries for flows that are gone from the table while their CLOSE is under way */
};

static uint16_t aligned(size_t n)
{
    return (uint16_t)((n + 7) & ~(size_t)7);
}

/* An inspector's state that spans lines begins so that it ends with one: the last line of nst_tcp's is what every packet
 * needs of it. Sizes are aligned, and places count from the flow's beginning. */
static size_t place_inspector(size_t at, size_t size)
{
    size_t end = (at + size + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);

    return size > CACHE_LINE ? end - size : at;
}

size_t flows_stride(const struct nst_nf *nf, uint16_t state_at[3])
{
    size_t nf_size = aligned(nf->flow_size), at = offsetof(struct nst_flow, state), nf_at = 0;

    for (unsigned side = 0; side < 2; side++) {
        const struct nst_inspector *inspect = nf->half[side].inspect;
        size_t size = aligned(inspect != NULL ? inspect->size : 0), begin = place_inspector(at, size);
        /* The NF's own takes the first gap in which it has room. */
        if (nf_at == 0 && begin - at >= nf_size)
            nf_at = at;
        state_at[side] = (uint16_t)(begin - offsetof(struct nst_flow, state));
        at = begin + size;
    }
    if (nf_at == 0) {
        nf_at = at;
        at += nf_size;
    }
    state_at[2] = (uint16_t)(nf_at - offsetof(struct nst_flow, state));
    return (at + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
}

int flows_open(struct nst_engine *e, uint32_t limit)
{
    struct flow_memory *m = &e->flows;

    m->stride = flows_stride(e->nf, e->state_at);
    m->flows = limit;
    m->limit = limit + SPARE;
    m->base = region_open(m->stride * m->limit);
    m->free = region_open(sizeof(uint32_t) * m->limit);
    if (m->base == NULL || m->free == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < LIVES; i++)
        e->list[i] = (struct flow_list){ NO_FLOW, NO_FLOW, 0 };
    e->ending = (struct flow_list){ NO_FLOW, NO_FLOW, 0 };
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

    l->n++;
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
    l->n--;
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

/* ---- a full table ---- */
/* What goes first, as enum nst_worth has it. */
static const enum life worth[NST_WORTHS] = {
    [NST_WORTH_CLOSING] = LIFE_CLOSING,
    [NST_WORTH_UNANSWERED] = LIFE_UNANSWERED,
    [NST_WORTH_UDP_ONE_WAY] = LIFE_UDP_ONE_WAY,
    [NST_WORTH_ONE_WAY] = LIFE_ONE_WAY,
    [NST_WORTH_BLOCKED] = LIFE_BLOCKED,
    [NST_WORTH_OPENING] = LIFE_OPENING,
    [NST_WORTH_UDP] = LIFE_UDP,
    [NST_WORTH_IDLE] = LIFE_ESTABLISHED,
};

static void list_again(struct nst_engine *e, struct nst_flow *f, uint32_t due)
{
    list_remove(e, &e->list[f->life], f);
    f->due = due;
    list_append(e, &e->list[f->life], f);
}

/* The flow of this life that goes first, or NULL. Where traffic shows that somebody uses it, a flow that was seen since
 * it came into the list goes to its end. */
static struct nst_flow *victim(struct nst_engine *e, enum life life)
{
    bool by_use = life == LIFE_ESTABLISHED || life == LIFE_UDP || life == LIFE_ONE_WAY || life == LIFE_UDP_ONE_WAY;

    for (unsigned looks = 0; looks < EVICT_LOOKS && e->list[life].oldest != NO_FLOW; looks++) {
        struct nst_flow *f = flow_at(e, e->list[life].oldest);
        if (turn_runs(f->turn[0]) || turn_runs(f->turn[1]))
            list_again(e, f, e->tick + e->idle[life]);
        else if (by_use && f->due - e->idle[life] != f->seen)
            list_again(e, f, f->seen + e->idle[life]);
        else if (life != LIFE_ESTABLISHED || e->tick - f->seen >= e->in_use)
            return f;
        else
            return NULL; /* the others were seen even later */
    }
    return NULL;
}

static void flow_free(struct nst_engine *e, struct nst_flow *f)
{
    if (f->flags & FLOW_EDITED)
        edit_end(f);
    for (unsigned side = 0; side < 2; side++) {
        const struct nst_inspector *inspect = e->half[side].inspect;
        if (inspect != NULL && inspect->close != NULL)
            inspect->close(flow_inspector(f, (enum nst_side)side), f, (enum nst_side)side);
    }
    watch_leave(f);
    if (unlikely(key_vlan(&f->key) >= KEY_TUNNEL))
        networks_release(&e->networks, key_vlan(&f->key), e->tick);
    e->flows.free[e->flows.n_free++] = flow_number(f);
    e->stats.flows_closed++;
    e->stats.flows--;
}

/* Makes room by ending the flow that is worth least. Lives of which there are few are spared at first: who is just
 * opening a flow has to have the time to do it, whatever fills the table. */
static bool evict(struct nst_engine *e)
{
    for (unsigned few = e->flows.flows / SPARED;; few = 0) {
        for (unsigned i = 0; i < NST_WORTHS; i++) {
            if (e->list[worth[i]].n <= (i == NST_WORTH_CLOSING || i == NST_WORTH_IDLE ? 0 : few))
                continue;
            struct nst_flow *f = victim(e, worth[i]);
            if (f == NULL)
                continue;
            e->stats.flows_evicted++;
            e->stats.evicted[i]++;
            flows_retire(f, NST_CLOSED_BY_EVICTION);
            if (e->closes[f->set] == 0 && f->turn[0] == NULL && f->turn[1] == NULL) {
                list_remove(e, &e->ending, f);
                flow_free(e, f);
            }
            return true;
        }
        if (few == 0)
            return false;
    }
}

/* Room for one more: true. */
static bool make_room(struct nst_engine *e)
{
    struct flow_memory *m = &e->flows;
    bool spare = m->n_free != 0 || m->touched != m->limit;

    /* Without spare memory many a CLOSE is under way already, and one more would not help this packet. */
    if (e->stats.flows - e->ending.n - e->closing < m->flows ? spare : spare && evict(e))
        return true;
    e->stats.flows_refused++;
    return false;
}

struct nst_flow *flows_add(struct nst_engine *e, const struct flow_key *key, uint64_t hash, bool client_is_b,
                           enum life life)
{
    struct flow_memory *m = &e->flows;
    uint32_t n;

    if (!make_room(e))
        return NULL;
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
        f->flags = FLOW_RETIRED;
        m->free[m->n_free++] = n;
        return NULL;
    }
    list_append(e, &e->list[life], f);
    if (unlikely(key_vlan(key) >= KEY_TUNNEL))
        networks_hold(&e->networks, key_vlan(key));
    else if (e->edits != 0 && key_proto(key) == IPPROTO_TCP)
        edit_begin(f);
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
    static const enum life lives[] = {
        [NST_LIFE_OPENING] = LIFE_OPENING,
        [NST_LIFE_ESTABLISHED] = LIFE_ESTABLISHED,
        [NST_LIFE_CLOSING] = LIFE_CLOSING,
    };

    if (why != NST_OPEN_STILL)
        f->why = (uint8_t)why;
    if (f->life == LIFE_BLOCKED || f->life == LIFE_UDP || f->life == LIFE_UDP_ONE_WAY)
        return;
    if (life != NST_LIFE_CLOSING && (f->life == LIFE_UNANSWERED || f->life == LIFE_ONE_WAY)) {
        /* Whatever one end says on its own: the other has yet to be heard. */
        if (life == NST_LIFE_ESTABLISHED)
            flows_set_life(f, LIFE_ONE_WAY);
        return;
    }
    flows_set_life(f, lives[life]);
}

void flows_heard(struct nst_flow *f, const struct nst_packet *p)
{
    const struct nst_engine *e = f->engine;
    bool answer = p->dir != (f->flags & FLOW_BACK_FIRST ? 1 : 0);
    bool followed = e->half[0].inspect == &nst_tcp || e->half[1].inspect == &nst_tcp;

    if (f->life == LIFE_OPENING) {
        /* Where nobody follows TCP, the end that opened goes on after the answer. */
        if (!followed && !answer && (p->h.tcp_flags & (RTE_TCP_SYN_FLAG | RTE_TCP_RST_FLAG)) == 0)
            flows_set_life(f, LIFE_ESTABLISHED);
    } else if (answer && f->life == LIFE_UDP_ONE_WAY) {
        flows_set_life(f, LIFE_UDP);
    } else if (answer && (p->h.tcp_flags & RTE_TCP_RST_FLAG) == 0) { /* nobody is there: that is no answer */
        flows_set_life(f, f->life == LIFE_ONE_WAY ? LIFE_ESTABLISHED : LIFE_OPENING);
    }
}

void flows_retire(struct nst_flow *f, enum nst_close_why why)
{
    struct nst_engine *e = f->engine;

    table_remove(&e->table, key_hash(&f->key, &e->secret), flow_number(f));
    list_remove(e, &e->list[f->life], f);
    if (f->why == NST_OPEN_STILL)
        f->why = (uint8_t)(f->flags & FLOW_DROP ? NST_CLOSED_BY_VERDICT : why);
    f->flags |= FLOW_RETIRED;
    list_append(e, &e->ending, f);
    e->retired = true;
    for (unsigned side = 0; side < 2; side++) {
        if (f->turn[side] != NULL && f->turn[side]->now.state == TURN_LOOP)
            loop_wake(f->turn[side]);
    }
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

bool flows_expire(struct nst_engine *e)
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
                list_again(e, f, due);
            } else {
                flows_retire(f, NST_CLOSED_BY_TIMEOUT);
            }
        }
    }
    return budget > 0;
}
