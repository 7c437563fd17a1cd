/* SPDX-License-Identifier: Apache-2.0 */
/* Loop style: a task that lives as long as its half of a flow and asks for what comes next.
 *
 * The half's turn lives as long as the loop, so every packet is held first and becomes current when the loop asks. The
 * turn counts among the engine's turns only while the loop has a packet or could have one.
 */
#include "flow/way.h"
#include <stdlib.h>
#include <string.h>

struct flow_loop {
    struct flow_turn turn;
    struct nst_flow *flow;
    enum nst_side side;
    struct nst_future wake;
    bool waiting;          /* wake is promised to nst_next */
    bool busy;             /* counted among the engine's turns */
    bool closed;           /* CLOSE was delivered */
    bool ended;            /* nst_read has seen the end of the stream */
    struct nst_slice rest; /* of the current packet's bytes, for nst_read */
};

static void set_busy(struct flow_loop *l, bool busy)
{
    if (l->busy != busy)
        l->flow->engine->busy_loops += busy ? 1u : -1u;
    l->busy = busy;
}

bool loop_busy(const struct flow_turn *turn)
{
    return turn->loop->busy;
}

void loop_wake(struct flow_turn *turn)
{
    struct flow_loop *l = turn->loop;

    if (turn->held != NULL)
        set_busy(l, true);
    if (l->waiting) {
        l->waiting = false;
        nst_fulfil(&l->wake, 0);
    }
}

static void stop_waiting(struct nst_future *f)
{
    struct flow_loop *l = f->op;

    l->waiting = false;
    nst_fulfil(f, -ECANCELED);
}

/* The verdict on the current packet, if there is one. */
static void decide(struct flow_loop *l, enum nst_verdict v)
{
    struct nst_packet *p = l->turn.ev.packet;

    if (p == NULL)
        return;
    bool on = half_apply(l->flow->engine, l->flow, l->side, p, v);
    l->turn.ev.packet = NULL;
    l->rest.len = 0;
    if (on) {
        p->stage++;
        flow_packet(l->flow->engine, l->flow, p);
    }
}

static void loop_main(void *arg)
{
    struct flow_loop *l = arg;
    struct nst_flow *f = l->flow;
    struct nst_engine *e = f->engine;
    struct nst_packet *p;

    l->turn.task = nst_task_self();
    e->nf->half[l->side].loop(f, l->side);
    decide(l, NST_UNDECIDED);
    set_busy(l, true);
    f->flags |= (uint16_t)(1 << l->side);
    if (f->flags & FLOW_EDITED)
        edit_pass(f, l->side, edit_of(f)->way[l->side].next);
    while ((p = turn_next_held(&l->turn)) != NULL) {
        p->stage++;
        flow_packet(e, f, p);
    }
    f->turn[l->side] = NULL;
    set_busy(l, false);
    free(l);
}

int loop_start(struct nst_flow *f, enum nst_side side, struct nst_packet *first)
{
    struct nst_engine *e = f->engine;
    struct flow_loop *l = calloc(1, sizeof *l);

    if (l == NULL)
        return -ENOMEM;
    turn_open(&l->turn, f, side);
    l->turn.now.state = TURN_LOOP;
    l->turn.loop = l;
    l->turn.ev.packet = NULL;
    l->flow = f;
    l->side = side;
    set_busy(l, true);
    int rc = nst_spawn(e->scope, loop_main, l);
    if (rc < 0) {
        f->turn[side] = NULL;
        set_busy(l, false);
        free(l);
        return rc;
    }
    half_hold(e, f, side, first);
    return 0;
}

static struct flow_loop *loop_of(const struct nst_flow *f, enum nst_side side)
{
    return f->turn[side] != NULL && f->turn[side]->now.state == TURN_LOOP ? f->turn[side]->loop : NULL;
}

/* The next event. -ENODATA, where the caller reads bytes: the stream has ended. */
static int next_event(struct flow_loop *l, struct nst_event *ev, nst_time until, bool reading)
{
    struct nst_flow *f = l->flow;
    struct nst_engine *e = f->engine;
    enum nst_side side = l->side;
    struct nst_packet *p;
    nst_events wanted = 0;

    decide(l, NST_UNDECIDED);
    for (;;) {
        while ((p = turn_next_held(&l->turn)) != NULL) {
            if (f->flags & FLOW_DROP) {
                packet_drop(e, p, NST_BY_FLOW_VERDICT);
                continue;
            }
            if (f->flags & (1 << side)) { /* under FORWARD_FLOW */
                p->stage++;
                flow_packet(e, f, p);
                continue;
            }
            if (!half_inspect(e, f, side, packet_dir(p), p, &wanted))
                continue;
            if (wanted != 0) {
                l->turn.ev = (struct nst_event){ .what = wanted,
                                                 .side = side,
                                                 .packet = p,
                                                 .dir = p->stage == 0 ? NST_SENT : NST_RECEIVED,
                                                 .until = nst_now() + e->policy.budget };
                *ev = l->turn.ev;
                e->stats.events++;
                e->turns_closed++;
                return 0;
            }
            if (half_apply(e, f, side, p, NST_FORWARD)) {
                p->stage++;
                flow_packet(e, f, p);
            }
        }
        set_busy(l, false);
        if (reading && tcp_stream_ended(f, side))
            return -ENODATA;
        if (f->flags & FLOW_RETIRED) {
            if (!flow_closes(f, side) || l->closed)
                return -ECANCELED;
            l->closed = true;
            *ev = (struct nst_event){ .what = NST_EV_CLOSE,
                                      .side = side,
                                      .why = (enum nst_close_why)f->why,
                                      .until = nst_now() + e->policy.budget };
            e->stats.events++;
            e->turns_closed++;
            return 0;
        }
        nst_future_init(&l->wake);
        l->wake.op = l;
        l->wake.stop = stop_waiting;
        l->waiting = true;
        int rc = nst_await(&l->wake, until);
        if (rc < 0)
            return rc;
    }
}

int nst_next(struct nst_flow *f, enum nst_side side, struct nst_event *ev, nst_time until)
{
    struct flow_loop *l = loop_of(f, side);

    return l != NULL ? next_event(l, ev, until, false) : -EINVAL;
}

void nst_decide(struct nst_flow *f, const struct nst_event *ev, enum nst_verdict v)
{
    struct flow_loop *l = loop_of(f, ev->side);

    if (l != NULL && ev->packet != NULL && l->turn.ev.packet == ev->packet)
        decide(l, v);
}

void nst_decide_read(struct nst_flow *f, enum nst_side side, enum nst_verdict v)
{
    struct flow_loop *l = loop_of(f, side);

    if (l != NULL)
        decide(l, v);
}

/* Sees to it that bytes are at hand in `rest`: 1; 0 when the stream has ended; or why not. */
static int more_bytes(struct flow_loop *l, nst_time until)
{
    struct nst_flow *f = l->flow;
    struct nst_event ev;

    while (!l->ended) {
        if (l->rest.len != 0 || (l->turn.ev.packet != NULL && nst_flow_bytes(f, l->side, &l->rest)))
            return 1;
        l->rest.len = 0;
        decide(l, NST_FORWARD);
        int rc = next_event(l, &ev, until, true);
        if (rc == -ETIMEDOUT)
            return rc;
        if (rc == 0 ? (ev.what & NST_EV_CLOSE) != 0 : rc == -ENODATA || (f->flags & FLOW_RETIRED) != 0)
            l->ended = true;
        else if (rc < 0)
            return rc;
    }
    return 0;
}

static void skip_bytes(struct flow_loop *l, size_t n)
{
    l->rest = (struct nst_slice){ (const uint8_t *)l->rest.p + n, l->rest.len - n };
}

int nst_read(struct nst_flow *f, enum nst_side side, void *buf, size_t len, nst_time until)
{
    struct flow_loop *l = loop_of(f, side);
    size_t got = 0;

    if (l == NULL)
        return -EINVAL;
    while (got < len) {
        int rc = more_bytes(l, until);
        if (rc == 0 || (rc == -ETIMEDOUT && got > 0))
            break;
        if (rc < 0)
            return rc;
        size_t n = l->rest.len < len - got ? l->rest.len : len - got;
        memcpy((uint8_t *)buf + got, l->rest.p, n);
        skip_bytes(l, n);
        got += n;
    }
    return (int)got;
}

int nst_read_until(struct nst_flow *f, enum nst_side side, void *buf, size_t len, const void *delimiter, size_t n,
                   size_t *got, nst_time until)
{
    enum { DELIMITER_MAX = 16 };
    struct flow_loop *l = loop_of(f, side);
    const uint8_t *wanted = delimiter;
    uint8_t *to = buf;
    size_t have = 0;
    int rc = -EMSGSIZE;

    if (l == NULL || n == 0 || n > DELIMITER_MAX || len > INT32_MAX)
        return -EINVAL;
    while (have < len) {
        int more = more_bytes(l, until);
        if (more <= 0) {
            rc = more == 0 ? -ENODATA : more;
            break;
        }
        /* Up to the next place where the delimiter may end. */
        size_t room = l->rest.len < len - have ? l->rest.len : len - have;
        const uint8_t *last = memchr(l->rest.p, wanted[n - 1], room);
        size_t take = last != NULL ? (size_t)(last - (const uint8_t *)l->rest.p) + 1 : room;
        memcpy(to + have, l->rest.p, take);
        skip_bytes(l, take);
        have += take;
        if (last != NULL && have >= n && memcmp(to + have - n, wanted, n) == 0) {
            rc = (int)have;
            break;
        }
    }
    if (got != NULL)
        *got = have;
    return rc;
}

bool nst_peek(struct nst_flow *f, enum nst_side side, struct nst_slice *next)
{
    const struct flow_loop *l = loop_of(f, side);

    if (l == NULL || l->rest.len == 0)
        return false;
    *next = l->rest;
    return true;
}

enum nst_close_why nst_read_end(struct nst_flow *f, enum nst_side side)
{
    if (tcp_stream_ended(f, side))
        return NST_CLOSED_BY_FIN;
    return f->flags & FLOW_RETIRED ? (enum nst_close_why)f->why : NST_OPEN_STILL;
}
