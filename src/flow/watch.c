/* SPDX-License-Identifier: Apache-2.0 */
/* Which events wake whom: the sets of registrations, and the events that an NF builds from others.
 *
 * A flow's `set` is an index into the engine's table of sets, so that a flow costs one byte for it and a packet one
 * load. Set 0 is what the NF was declared with; it is never changed. Any other is shared by all flows that have come to
 * the same registrations, and free when the last of them has left it.
 */
#include "flow/way.h"
#include <string.h>

static nst_events bit_of(const struct nst_user_event *u)
{
    return NST_EV_USER(u->n);
}

int watch_check(const struct nst_nf *nf)
{
    if (nf->n_events > EVENTS_OWN || (nf->n_events != 0 && nf->events == NULL))
        return -EINVAL;
    for (unsigned i = 0; i < nf->n_events; i++) {
        const struct nst_user_event *u = &nf->events[i];
        if (u->n >= EVENTS_OWN || u->of == 0 || (u->of & NST_EV_CLOSE) || (u->of & bit_of(u)))
            return -EINVAL;
        for (unsigned later = i + 1; later < nf->n_events; later++)
            if (nf->events[later].n >= EVENTS_OWN || nf->events[later].n == u->n ||
                (u->of & bit_of(&nf->events[later])))
                return -EINVAL;
    }
    return 0;
}

/* What follows from the registrations. */
static void derive(struct nst_engine *e, struct event_set *s, uint8_t number)
{
    e->keep[number] = e->edits; /* what leaves may have to be built out of it */
    e->closes[number] = 0;
    for (unsigned side = 0; side < 2; side++) {
        for (unsigned dir = 0; dir < 2; dir++) {
            /* From the last to the first: what an event is built from stands above it. */
            nst_events asked = s->wanted[side][dir], look = 0;
            for (unsigned i = e->nf->n_events; i-- > 0;) {
                const struct nst_user_event *u = &e->nf->events[i];
                if (asked & bit_of(u)) {
                    asked |= u->of;
                    look |= u->of | EV_BUILT;
                }
            }
            s->look[side][dir] = look | EV_POLICY;
            if (asked & (NST_EV_STATE | NST_EV_ERROR))
                tcp_tell(e, (enum nst_side)side);
            if (dir == NST_RECEIVED && (asked & NST_EV_DATA) &&
                (e->policy.on_conflict != NST_FORWARD || e->policy.normalise))
                e->keep[number] |= (uint8_t)(1 << side);
        }
        if ((s->wanted[side][0] | s->wanted[side][1]) & NST_EV_CLOSE)
            e->closes[number] |= (uint8_t)(1 << side);
    }
}

void watch_open(struct nst_engine *e)
{
    for (unsigned side = 0; side < 2; side++) {
        const struct nst_half *h = &e->nf->half[side];
        bool async = h->handler != NULL || h->loop != NULL;
        e->set[0].wanted[side][NST_SENT] = async ? h->on_sent : 0;
        e->set[0].wanted[side][NST_RECEIVED] = async ? h->on_received : 0;
    }
    e->set_users[0] = 1;
    derive(e, &e->set[0], 0);
}

/* The set with these registrations, for a flow that is in set `now`; -ENOSPC. */
static int set_of(struct nst_engine *e, uint8_t now, const nst_events wanted[2][2])
{
    int unused = -ENOSPC;

    for (int i = 0; i < EVENT_SETS; i++) {
        if (e->set_users[i] == 0)
            unused = unused < 0 ? i : unused;
        else if (memcmp(e->set[i].wanted, wanted, sizeof e->set[i].wanted) == 0)
            return i;
    }
    if (unused < 0 && now != 0 && e->set_users[now] == 1)
        unused = now; /* nobody else needs it as it is */
    if (unused < 0) {
        e->stats.watch_full++;
        return unused;
    }
    memcpy(e->set[unused].wanted, wanted, sizeof e->set[unused].wanted);
    derive(e, &e->set[unused], (uint8_t)unused);
    return unused;
}

void watch_leave(struct nst_flow *f)
{
    if (f->set != 0)
        f->engine->set_users[f->set]--;
    f->set = 0;
}

static int change(struct nst_flow *f, enum nst_side side, enum nst_dir dir, nst_events add, nst_events remove)
{
    struct nst_engine *e = f->engine;
    nst_events wanted[2][2];

    if (e->half[side].handler == NULL && e->half[side].loop == NULL)
        return -EINVAL;
    memcpy(wanted, e->set[f->set].wanted, sizeof wanted);
    wanted[side][dir] = (wanted[side][dir] | add) & ~remove;
    int n = set_of(e, f->set, wanted);
    if (n < 0)
        return n;
    if (n != f->set) {
        watch_leave(f);
        f->set = (uint8_t)n;
        e->set_users[n] += n != 0;
    }
    return 0;
}

int nst_flow_watch(struct nst_flow *f, enum nst_side side, enum nst_dir dir, nst_events events)
{
    return change(f, side, dir, events, 0);
}

int nst_flow_ignore(struct nst_flow *f, enum nst_side side, enum nst_dir dir, nst_events events)
{
    return change(f, side, dir, 0, events);
}

nst_events nst_flow_watched(const struct nst_flow *f, enum nst_side side, enum nst_dir dir)
{
    return f->engine->set[f->set].wanted[side][dir];
}

/* ---- events built from others ---- */
void nst_flow_rewind(struct nst_flow *f, enum nst_side side)
{
    const struct nst_inspector *inspect = f->engine->half[side].inspect;

    if (inspect != NULL && inspect->rewind != NULL && nst_flow_packet(f, side) != NULL)
        inspect->rewind(flow_inspector(f, side), f, side);
}

/* The filters see the packet as a handler would, so the half has a turn meanwhile. */
static nst_events built(struct nst_flow *f, enum nst_side side, enum nst_dir dir, struct nst_packet *p,
                        nst_events asked, nst_events what)
{
    struct nst_engine *e = f->engine;
    struct flow_turn own, *turn = f->turn[side];
    bool opened = turn == NULL;

    if (opened) {
        turn = &own;
        turn_open(turn, f, side);
        turn->task = NULL;
    }
    struct nst_event before = turn->ev;
    turn->ev = (struct nst_event){ .side = side, .dir = dir, .packet = p, .until = nst_now() };
    for (unsigned i = 0; i < e->nf->n_events; i++) {
        const struct nst_user_event *u = &e->nf->events[i];
        if ((asked & bit_of(u)) == 0 || (what & u->of) == 0)
            continue;
        turn->ev.what = what;
        if (u->filter == NULL || u->filter(f, &turn->ev))
            what |= bit_of(u);
        if (u->filter != NULL)
            nst_flow_rewind(f, side);
    }
    turn->ev = before;
    if (opened)
        f->turn[side] = NULL;
    return what;
}

bool half_rare(struct nst_flow *f, enum nst_side side, enum nst_dir dir, struct nst_packet *p, nst_events wanted,
               nst_events look, nst_events *what)
{
    if ((*what & EV_POLICY) && !half_policy(f, side, p, wanted, what))
        return false;
    if (look & EV_BUILT)
        *what = built(f, side, dir, p, wanted | look, *what);
    return true;
}
