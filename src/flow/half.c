/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to a packet at a half beyond the straight way (way.h): verdicts that end it, policies, packets that are
 * held, turns that are pending, CLOSE.
 */
#include "flow/way.h"
#include <stdlib.h>

/* ---- turns ---- */
static struct flow_turn *turn_get(struct nst_engine *e)
{
    struct flow_turn *t = e->turn_pool;

    if (t != NULL)
        e->turn_pool = t->next;
    else
        t = malloc(sizeof *t);
    return t;
}

static void turn_put(struct nst_engine *e, struct flow_turn *turn)
{
    turn->next = e->turn_pool;
    e->turn_pool = turn;
}

struct nst_packet *turn_next_held(struct flow_turn *turn)
{
    struct nst_packet *p = turn->held;

    if (p != NULL) {
        turn->held = p->next;
        turn->now.n_held--;
        turn->flow->engine->stats.held--;
    }
    return p;
}

void half_hold(struct nst_engine *e, struct nst_flow *f, enum nst_side side, struct nst_packet *p)
{
    struct flow_turn *turn = f->turn[side];

    if (turn->now.n_held >= e->policy.hold || e->stats.held >= e->held_limit) {
        enum nst_verdict v = policy_of(e, NST_BY_HOLD_FULL);
        /* What passes a half that edits unseen could not come out the same a second time. */
        if ((f->flags & FLOW_EDITED) && (v == NST_FORWARD || v == NST_FORWARD_FLOW))
            v = NST_DROP;
        if (v == NST_FORWARD || v == NST_FORWARD_FLOW)
            packet_forward(e, p);
        else if (v == NST_DROP)
            packet_drop(e, p, NST_BY_HOLD_FULL);
        else
            flow_block(f, p, v, NST_BY_HOLD_FULL);
        return;
    }
    p->next = NULL;
    *(turn->held != NULL ? turn->held_tail : &turn->held) = p;
    turn->held_tail = &p->next;
    turn->now.n_held++;
    if (++e->stats.held > e->stats.held_peak)
        e->stats.held_peak = e->stats.held;
}

/* ---- verdicts ---- */
void flow_block(struct nst_flow *f, struct nst_packet *p, enum nst_verdict v, enum nst_cause cause)
{
    if (v == NST_RESET_FLOW && (p->flags & PACKET_ICMP) == 0) /* which has no numbers to make them of */
        reset_both(f->engine, f, p);
    f->flags |= FLOW_DROP;
    flows_set_life(f, LIFE_BLOCKED);
    packet_drop(f->engine, p, cause);
}

/* Why the verdict that is applied now was given, if it was not the handler's own. */
static void set_cause(struct nst_flow *f, enum nst_cause cause)
{
    f->engine->failed = cause;
    f->engine->failed_in = f;
}

/* Another flow's handler may have failed, and wait before it returns. */
static enum nst_cause take_cause(struct nst_flow *f)
{
    struct nst_engine *e = f->engine;
    enum nst_cause cause = e->failed;

    if (e->failed_in != f)
        return NST_CAUSES;
    e->failed = NST_CAUSES;
    return cause;
}

bool half_apply_other(struct nst_flow *f, enum nst_side side, struct nst_packet *p, enum nst_verdict v)
{
    struct nst_engine *e = f->engine;
    const struct nst_inspector *inspect = e->half[side].inspect;
    enum nst_cause cause = take_cause(f);
    bool taken = (p->flags & PACKET_TAKEN) != 0;

    if (v == NST_UNDECIDED || (unsigned)v >= NST_PENDING || (v == NST_TAKEN) != taken) {
        if (nst_log_allowed(&e->log, 10))
            nst_log(NST_LOG_ERROR, "%s: a handler returned no valid verdict (%d%s): the policy decides", e->nf->name, v,
                    taken ? ", packet taken" : "");
        cause = NST_BY_OTHERWISE;
        v = policy_of(e, cause);
        if (taken)
            v = NST_TAKEN;
    }
    if ((p->flags & PACKET_REFUSED) && !taken && v != NST_DROP_FLOW && v != NST_RESET_FLOW) {
        cause = (enum nst_cause)p->refused; /* nst_tcp_resume found that it must not pass */
        v = NST_DROP;
    }
    if (inspect != NULL && inspect->verdict != NULL && (p->flags & PACKET_ICMP) == 0)
        inspect->verdict(flow_inspector(f, side), f, side, v);
    if ((f->flags & FLOW_EDITED) && (p->flags & PACKET_ICMP) == 0)
        edit_verdict(f, side, p, v);
    else if ((f->flags & FLOW_EDITED) && v == NST_FORWARD_FLOW)
        edit_pass(f, side, edit_of(f)->way[side].next);
    switch (v) {
    case NST_FORWARD:
        return true;
    case NST_FORWARD_FLOW:
        f->flags |= (uint16_t)(1 << side);
        return true;
    case NST_DROP:
        packet_drop(e, p, cause != NST_CAUSES ? cause : NST_BY_VERDICT);
        return false;
    case NST_DROP_FLOW:
    case NST_RESET_FLOW:
        flow_block(f, p, v, cause != NST_CAUSES ? cause : NST_BY_FLOW_VERDICT);
        return false;
    default: /* taken: it has another owner, who may have sent it already */
        rte_pktmbuf_free(mbuf_of(p));
        return false;
    }
}

enum nst_cause half_cause(nst_events what, nst_events registered)
{
    if (what & EV_REFUSED)
        return NST_BY_STREAM_LIMIT;
    if ((what & EV_UNACCEPTED) && (registered & NST_EV_ERROR) == 0)
        return what & EV_WINDOW ? NST_BY_WINDOW : what & EV_STALE ? NST_BY_STALE : NST_BY_BAD_ACK;
    if (what & ~registered & NST_EV_MIDSTREAM)
        return NST_BY_MIDSTREAM;
    return what & ~registered & NST_EV_CONFLICT ? NST_BY_CONFLICT : NST_CAUSES;
}

bool half_policy(struct nst_flow *f, enum nst_side side, struct nst_packet *p, nst_events registered, nst_events *what)
{
    struct nst_engine *e = f->engine;
    enum nst_cause cause = half_cause(*what, registered);

    if (cause == NST_CAUSES)
        return true;
    if (cause == NST_BY_STREAM_LIMIT) {
        set_cause(f, cause);
        return half_apply_other(f, side, p, NST_DROP);
    }
    enum nst_verdict v = policy_of(e, cause);
    if (v == NST_FORWARD) {
        if (cause == NST_BY_MIDSTREAM)
            *what |= tcp_pickup(f, side, p);
        return true;
    }
    if (v == NST_FORWARD_FLOW) { /* this packet, too, goes by unseen */
        f->flags |= (uint16_t)(1 << side);
        if (f->flags & FLOW_EDITED)
            edit_pass(f, side, edit_of(f)->way[side].next);
        *what = 0;
        return true;
    }
    set_cause(f, cause);
    return half_apply_other(f, side, p, v);
}

/* ---- what is held, and what is pending ---- */
bool half_busy(struct nst_engine *e, struct nst_flow *f, enum nst_side side, struct nst_packet *p)
{
    if (f->flags & FLOW_DROP) {
        packet_drop(e, p, NST_BY_FLOW_VERDICT);
    } else if (f->turn[side] != NULL) {
        half_hold(e, f, side, p);
        if (f->turn[side]->now.state == TURN_LOOP)
            loop_wake(f->turn[side]);
    } else if (f->flags & (1 << side)) {
        return true;
    } else if (e->half[side].loop == NULL) {
        return half_packet(e, f, side, packet_dir(p), p);
    } else if (loop_start(f, side, p) < 0) {
        set_cause(f, NST_BY_NO_MEMORY);
        return half_apply_other(f, side, p, policy_of(e, NST_BY_NO_MEMORY));
    }
    return false;
}

/* No further half has a part in the packet's way. */
static inline bool is_last(const struct nst_engine *e, enum nst_side side, const struct nst_packet *p)
{
    return p->stage == 1 || (e->active & (1 << !side)) == 0;
}

/* What was called has waited, on the loop's own stack. */
static void waited_since(struct nst_engine *e, uint64_t suspensions)
{
    if (e->reactor->suspensions != suspensions) {
        e->stats.waits++;
        e->may_wait = true;
        e->did_not = 0;
    }
}

void flow_packet(struct nst_engine *e, struct nst_flow *f, struct nst_packet *p)
{
    uint64_t suspensions = e->reactor->suspensions;

    flow_way(e, f, p, p->stage);
    waited_since(e, suspensions);
}

/* A turn that stood on a stack moves to the engine's pool, for the time until nst_resume. */
static bool turn_keep(struct nst_engine *e, struct nst_flow *f, enum nst_side side, struct flow_turn *turn)
{
    struct flow_turn *kept = turn_get(e);

    if (kept == NULL)
        return false;
    kept->ev.side = side;
    kept->ev.dir = turn->ev.dir; /* nst_tcp_resume looks at it */
    kept->ev.packet = turn->ev.packet;
    kept->ev.until = turn->ev.until; /* tells when it began */
    kept->flow = f;
    kept->held = turn->held;
    kept->held_tail = turn->held_tail;
    kept->task = NULL;
    kept->now = (struct turn_now){ .n_held = turn->now.n_held, .state = TURN_PENDING };
    f->turn[side] = kept;
    e->stats.waits++;
    return true;
}

/* Takes the held packets through the half, then lets go of it. True: the turn has ended; false: it is pending. */
static bool half_drain(struct nst_engine *e, struct nst_flow *f, enum nst_side side, struct flow_turn *turn)
{
    struct nst_packet *p;
    nst_events wanted = 0;

    while ((p = turn_next_held(turn)) != NULL) {
        if (f->flags & FLOW_DROP) {
            packet_drop(e, p, NST_BY_FLOW_VERDICT);
            continue;
        }
        if ((f->flags & (1 << side)) == 0) {
            if (!half_inspect(e, f, side, packet_dir(p), p, &wanted))
                continue;
            uint64_t suspensions = e->reactor->suspensions;
            bool on = wanted == 0 ? half_apply(e, f, side, p, NST_FORWARD)
                                  : half_handle(e, f, side, packet_dir(p), turn, p, wanted);
            if (wanted != 0) {
                e->stats.events++;
                e->turns_closed++;
                waited_since(e, suspensions);
            }
            if (turn->now.state == TURN_PENDING)
                return false;
            if (!on)
                continue;
        }
        p->stage++;
        flow_packet(e, f, p);
    }
    turn_close(e, f, side);
    return true;
}

void half_after(struct nst_engine *e, struct nst_flow *f, enum nst_side side, struct flow_turn *turn,
                struct nst_packet *p, bool on)
{
    for (;;) {
        if (turn->now.state == TURN_PENDING) {
            if (turn_keep(e, f, side, turn))
                return;
            /* No memory to remember it by; the NF's nst_resume will find nothing pending. */
            turn->now.state = TURN_HANDLER;
            set_cause(f, NST_BY_NO_MEMORY);
            p = turn->ev.packet;
            on = half_apply(e, f, side, p, policy_of(e, NST_BY_NO_MEMORY));
        }
        if (on) {
            p->stage++;
            flow_packet(e, f, p);
        }
        if (half_drain(e, f, side, turn))
            return;
    }
}

/* ---- handlers that are expected to wait ---- */
enum { DID_NOT_MAX = 32 }; /* handlers in a row that have not waited, before they are no longer expected to */

/* The end of a turn that stands in the room of its handler's stack. */
static void called_ends(struct nst_engine *e, struct nst_task *t, struct flow_turn *turn, bool on)
{
    struct nst_flow *f = turn->flow;
    struct nst_packet *p = turn->ev.packet;
    enum nst_side side = turn->ev.side;

    if (turn->now.state == TURN_PENDING || turn->held != NULL) {
        half_after(e, f, side, turn, p, on);
        task_put(e->reactor, t);
        return;
    }
    turn_close(e, f, side);
    task_put(e->reactor, t);
    if (!on)
        return;
    if (is_last(e, side, p)) {
        flow_forward(e, f, p);
        return;
    }
    p->stage++;
    flow_packet(e, f, p);
}

static void called_ended(struct nst_task *t, int rc)
{
    struct flow_turn *turn = task_room(t, sizeof *turn);
    struct nst_engine *e = turn->flow->engine;

    called_ends(e, t, turn, half_handled(e, turn->flow, turn->ev.side, turn, turn->ev.packet, (enum nst_verdict)rc));
}

bool SWITCH_RETURNS_BY_JUMP half_call(struct nst_engine *e, struct nst_flow *f, enum nst_side side, enum nst_dir dir,
                                      struct nst_packet *p, nst_events what)
{
    struct nst_task *t = task_take(e->reactor);
    int v = NST_UNDECIDED;

    if (t == NULL) { /* whoever has to wait now is refused anyway */
        struct flow_turn turn;
        turn_open(&turn, f, side);
        e->stats.events++;
        bool on = half_handle(e, f, side, dir, &turn, p, what);
        p->stage = (uint8_t)dir;
        half_after(e, f, side, &turn, p, on);
        return false;
    }
    struct flow_turn *turn = task_room(t, sizeof *turn);
    turn_open(turn, f, side);
    turn_event(e, turn, side, dir, p, what, t);
    e->stats.events++;
    p->stage = (uint8_t)dir;
    t->ended = called_ended;
    int (*handler)(void *, const void *) = (int (*)(void *, const void *))(void (*)(void))e->handler[side];
    if (!task_call(e->reactor, t, turn, handler, f, &turn->ev, &v)) {
        e->did_not = 0;
        e->stats.waits++;
        return false;
    }
    if (++e->did_not == DID_NOT_MAX)
        e->may_wait = false;
    called_ends(e, t, turn, half_handled(e, f, side, turn, p, (enum nst_verdict)v));
    return false;
}

/* ---- the end of a flow ---- */
void half_close(struct nst_flow *f, enum nst_side side)
{
    struct nst_engine *e = f->engine;
    struct flow_turn turn;

    turn_open(&turn, f, side);
    e->stats.events++;
    turn.ev = (struct nst_event){
        .what = NST_EV_CLOSE, .side = side, .why = (enum nst_close_why)f->why, .until = nst_now() + e->policy.budget
    };
    turn.task = nst_task_self();
    uint64_t suspensions = e->reactor->suspensions;
    enum nst_verdict v = e->half[side].handler(f, &turn.ev);
    waited_since(e, suspensions);
    if (v == NST_PENDING) {
        /* The flow may go only when nst_resume has come. */
        struct nst_future done;
        nst_future_init(&done);
        turn.now.state = TURN_PENDING;
        turn.closing = &done;
        turn.task = NULL;
        e->stats.waits++;
        while (done.state == NST_FUTURE_OPEN && nst_await(&done, NST_NEVER) < 0)
            ;
    }
    take_cause(f);
    turn_close(e, f, side);
}

/* ---- callback style ---- */
void nst_resume(struct nst_flow *f, enum nst_side side, enum nst_verdict v)
{
    struct nst_engine *e = f->engine;
    struct flow_turn *turn = f->turn[side];

    if (turn == NULL || turn->now.state != TURN_PENDING) {
        nst_log(NST_LOG_ERROR, "%s: nst_resume without a pending event", e->nf->name);
        return;
    }
    turn->now.state = TURN_RESUMED;
    if (turn->ev.packet == NULL) {
        nst_fulfil(turn->closing, 0);
        return;
    }
    struct nst_packet *p = turn->ev.packet;
    if (is_last(e, side, p) && turn->held == NULL && (f->flags & FLOW_DROP) == 0) {
        /* Nothing is left to do that could call the NF again. */
        turn_close(e, f, side);
        turn_put(e, turn);
        if (half_apply(e, f, side, p, v))
            flow_forward(e, f, p);
        return;
    }
    turn->now.verdict = (uint8_t)v;
    turn->now.cause = (uint8_t)take_cause(f);
    turn->next = NULL;
    *e->resumed_tail = turn;
    e->resumed_tail = &turn->next;
}

void half_resumed(struct nst_engine *e)
{
    struct flow_turn *turn;

    while ((turn = e->resumed) != NULL) {
        struct nst_flow *f = turn->flow;
        struct nst_packet *p = turn->ev.packet;
        enum nst_side side = turn->ev.side;

        if ((e->resumed = turn->next) == NULL)
            e->resumed_tail = &e->resumed;
        turn->now.state = TURN_HANDLER;
        set_cause(f, (enum nst_cause)turn->now.cause);
        bool on = half_apply(e, f, side, p, (enum nst_verdict)turn->now.verdict);
        if (turn->held == NULL) {
            turn_close(e, f, side);
            turn_put(e, turn);
            turn = NULL;
        }
        if (on) {
            p->stage++;
            flow_packet(e, f, p);
        }
        if (turn != NULL && half_drain(e, f, side, turn))
            turn_put(e, turn);
        if (nst_moved())
            return;
    }
}
