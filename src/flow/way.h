/* SPDX-License-Identifier: Apache-2.0 */
/* flow/way.h - a packet's way through the halves of its flow, for the two files that send packets on it: burst.c, from
 * a port's burst, and half.c, for packets that were held. Inline, because every packet goes this way.
 *
 * A handler that waits keeps its stack, and with it the turn that stands on it; the half is busy until it returns, and
 * the packets that arrive meanwhile are held in the turn. While handlers are not expected to wait they are called on
 * the loop's stack, which costs least, and the loop moves away from one that does; while they are, each is called on a
 * stack of its own, and what follows its verdict is done by the loop. Whoever ends a turn takes those through the half
 * before letting go of it, so that order is kept.
 */
#pragma once
#include "flow/checksum.h"
#include "flow/edit.h"
#include "flow/tcp_plain.h"

/* Of a packet that has been held: its first half is that of its sender. */
static inline enum nst_dir packet_dir(const struct nst_packet *p)
{
    return p->stage == 0 ? NST_SENT : NST_RECEIVED;
}

/* What the port could not vouch for. */
static inline bool checksums_hold(const struct nst_engine *e, const struct nst_packet *p)
{
    unsigned flags = p->flags & e->checks;

    return flags == 0 || (flags == PACKET_CHECKSUM_OPEN && checksum_right(mbuf_of(p), &p->h, e->replay));
}

static inline void packet_forward(struct nst_engine *e, struct nst_packet *p)
{
    if (unlikely(p->flags & PACKET_WHOLE)) {
        whole_send(e, p, e->peer[p->port], &e->stats.forwarded);
        return;
    }
    e->stats.forwarded++;
    port_tx(e->peer[p->port], mbuf_of(p));
}

/* The same for the packet of a flow, once its receiver's half has decided on it. */
static inline void flow_forward(struct nst_engine *e, struct nst_flow *f, struct nst_packet *p)
{
    if (unlikely(f->flags & FLOW_EDITED) && (p->flags & PACKET_ICMP) == 0)
        edit_leave(e, f, p, e->peer[p->port], false);
    else
        packet_forward(e, p);
}

static inline void turn_open(struct flow_turn *turn, struct nst_flow *f, enum nst_side side)
{
    turn->flow = f;
    turn->held = NULL;
    turn->now = (struct turn_now){ 0 };
    f->turn[side] = turn;
}

static inline void turn_close(struct nst_engine *e, struct nst_flow *f, enum nst_side side)
{
    f->turn[side] = NULL;
    e->turns_closed++;
}

/* Applies a verdict to the packet; true: it goes on to the next half. */
static inline bool half_apply(struct nst_engine *e, struct nst_flow *f, enum nst_side side, struct nst_packet *p,
                              enum nst_verdict v)
{
    if (unlikely(v != NST_FORWARD || (p->flags & (PACKET_TAKEN | PACKET_REFUSED | PACKET_ICMP)) ||
                 e->failed != NST_CAUSES))
        return half_apply_other(f, side, p, v);
    const struct nst_inspector *inspect = e->inspect[side];
    if (inspect == &nst_tcp)
        tcp_forwarded(e, f, side);
    else if (inspect != NULL && inspect->verdict != NULL)
        inspect->verdict(flow_inspector(f, side), f, side, NST_FORWARD);
    return true;
}

/* What the inspector says of a packet: the events that wake the async part, in *wanted. False: the packet was dropped
 * for a policy. */
static inline bool half_inspect(struct nst_engine *e, struct nst_flow *f, enum nst_side side, enum nst_dir dir,
                                struct nst_packet *p, nst_events *wanted)
{
    const struct nst_inspector *inspect = e->inspect[side];
    const struct event_set *set = &e->set[f->set];
    nst_events registered = set->wanted[side][dir], look = set->look[side][dir], what = NST_EV_PACKET;

    if (unlikely(p->flags & PACKET_ICMP))
        what = NST_EV_ICMP;
    else if (inspect == &nst_tcp)
        what |= tcp_inspect(e, f, side, dir, p);
    else if (inspect != NULL)
        what |= inspect->packet(flow_inspector(f, side), f, side, dir, p);
    if (unlikely(what & look) && !half_rare(f, side, dir, p, registered, look, &what))
        return false;
    *wanted = what & registered;
    return true;
}

static inline void turn_event(struct nst_engine *e, struct flow_turn *turn, enum nst_side side, enum nst_dir dir,
                              struct nst_packet *p, nst_events what, struct nst_task *task)
{
    turn->ev.what = what;
    turn->ev.side = side;
    turn->ev.dir = dir;
    turn->ev.why = NST_OPEN_STILL;
    turn->ev.packet = p;
    turn->ev.until = e->reactor->now + e->policy.budget;
    turn->task = task;
}

/* What a handler returned. True: the packet goes on; false: it has met its end, or the turn is pending. */
static inline bool half_handled(struct nst_engine *e, struct nst_flow *f, enum nst_side side, struct flow_turn *turn,
                                struct nst_packet *p, enum nst_verdict v)
{
    if (unlikely(v == NST_PENDING)) {
        turn->now.state = TURN_PENDING;
        turn->task = NULL; /* there is none to cancel */
        return false;
    }
    return half_apply(e, f, side, p, v);
}

/* Calls the handler for one event, with the same answer. */
static inline bool half_handle(struct nst_engine *e, struct nst_flow *f, enum nst_side side, enum nst_dir dir,
                               struct flow_turn *turn, struct nst_packet *p, nst_events what)
{
    turn_event(e, turn, side, dir, p, what, e->reactor->current);
    return half_handled(e, f, side, turn, p, e->handler[side](f, &turn->ev));
}

/* One half. True: the packet goes on to the next one. */
static inline bool half_packet(struct nst_engine *e, struct nst_flow *f, enum nst_side side, enum nst_dir dir,
                               struct nst_packet *p)
{
    struct flow_turn turn;
    nst_events wanted = 0;

    if (!half_inspect(e, f, side, dir, p, &wanted))
        return false;
    if (wanted == 0)
        return half_apply(e, f, side, p, NST_FORWARD);
    if (e->may_wait)
        return half_call(e, f, side, dir, p, wanted);
    turn_open(&turn, f, side);
    e->stats.events++;
    bool on = half_handle(e, f, side, dir, &turn, p, wanted);
    if (unlikely(turn.now.state == TURN_PENDING || turn.held != NULL)) {
        p->stage = (uint8_t)dir;
        half_after(e, f, side, &turn, p, on);
        return false;
    }
    turn_close(e, f, side);
    return on;
}

/* From a stage, 0, the sender's half, or 1, the receiver's, to the port. */
static inline void flow_way(struct nst_engine *e, struct nst_flow *f, struct nst_packet *p, unsigned stage)
{
    unsigned dir = p->dir, todo = e->stages[dir] >> stage << stage;

    for (; todo != 0; todo &= todo - 1) {
        stage = (unsigned)__builtin_ctz(todo);
        enum nst_side side = (enum nst_side)(stage ^ dir);
        if (unlikely(f->turn[side] != NULL || (f->flags & e->detour[side]))) {
            p->stage = (uint8_t)stage;
            if (!half_busy(e, f, side, p))
                return;
        } else if (!half_packet(e, f, side, (enum nst_dir)stage, p)) {
            return;
        }
    }
    flow_forward(e, f, p);
}
