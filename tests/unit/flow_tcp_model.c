/* SPDX-License-Identifier: Apache-2.0 */
/* The reference model of a packet's way through the halves of its flow, from netstar/flow.h. What an end makes of a
 * segment is in flow_tcp_model_end.c.
 */
#include "flow_tcp_model_end.h"

enum life { OPENING, ESTABLISHED, CLOSING, BLOCKED };

struct flow {
    bool exists, by_syn, drop, pass[2];
    unsigned client;      /* which of the sequence's ends */
    unsigned client_port; /* where its packets come in */
    enum life life;
    enum nst_close_why why;
    struct end end[2]; /* by side */
};

/* One sequence at a time. */
static struct {
    const struct model_setting *set;
    const struct model_sequence *q;
    const struct model_segment *seg;
    struct model_result *out;
    struct model_counts *counts;
    struct flow flow;
    bool bad_ack; /* the segment acknowledges what its receiver has not sent */
} m;

static void set_life(enum life life, enum nst_close_why why)
{
    if (why != NST_OPEN_STILL)
        m.flow.why = why;
    if (m.flow.life != BLOCKED)
        m.flow.life = life;
}

static void verdict(struct end *t, enum nst_side side, bool passed)
{
    if (!m.set->inspect[side])
        return;
    end_verdict(t, passed, m.counts);
    switch (end_life(t)) {
    case END_RESET:
        set_life(CLOSING, NST_CLOSED_BY_RST);
        break;
    case END_FINISHED:
        set_life(CLOSING, NST_CLOSED_BY_FIN);
        break;
    case END_OPENED:
        set_life(ESTABLISHED, NST_OPEN_STILL);
        break;
    default:
        break;
    }
}

/* ---- a half ---- */
/* What leaves is what was inspected. */
static void normalises(struct end *t)
{
    struct model_step *x = &m.out->step[m.seg - m.q->seg];

    if (!t->now.cut && !t->now.calm && !t->now.mended)
        return;
    m.counts->normalised++;
    x->changed = true;
    x->flags = m.seg->flags & (uint8_t) ~(t->now.calm ? MODEL_URG : 0);
    if (t->now.cut)
        x->flags &= (uint8_t)~FIN;
    x->urgent = t->now.calm ? 0 : m.seg->urgent;
    x->bytes = (uint16_t)m.out->n_left;
    x->len = t->now.cut ? (uint16_t)t->now.leave : m.seg->len;
    for (unsigned i = 0; i < x->len; i++) {
        int64_t at = t->now.from + i;
        m.out->left[m.out->n_left++] = at < t->now.to ? end_leaves(t, at) : m.q->data[m.seg->data + i];
    }
}

/* Somebody asks for states and errors there. */
static bool told(enum nst_side side)
{
    return m.set->inspect[side] && ((m.set->on_sent[side] | m.set->on_received[side]) & (NST_EV_STATE | NST_EV_ERROR));
}

/* A reset that the other end has accepted closes this one, too. */
static enum nst_tcp_state state_of(const struct end *t)
{
    const struct end *other = &m.flow.end[!t->side];

    return m.set->inspect[other->side] && other->reset ? NST_TCP_CLOSED : end_state(t);
}

static nst_events looks(struct end *t, enum nst_dir dir)
{
    nst_events what;

    memset(&t->now, 0, sizeof t->now);
    enum nst_tcp_state was = state_of(t);
    if (dir == NST_RECEIVED) {
        what = end_receives(t, m.q, m.seg, m.bad_ack, m.counts);
        normalises(t);
    } else {
        what = end_sends(t, m.seg, &m.bad_ack, m.counts);
    }
    if (state_of(t) != was)
        what |= NST_EV_STATE;
    if (t->error != NST_TCP_ACCEPTED)
        what |= NST_EV_ERROR;
    return what;
}

/* Of several reasons to ask a policy the first counts. */
static enum nst_cause cause_of(nst_events what, nst_events registered)
{
    bool handler_decides = registered & NST_EV_ERROR;

    if (what & ~registered & NST_EV_MIDSTREAM)
        return NST_BY_MIDSTREAM;
    if ((what & MODEL_STALE) && !handler_decides)
        return NST_BY_STALE;
    if ((what & MODEL_WINDOW) && !handler_decides)
        return NST_BY_WINDOW;
    if ((what & MODEL_BAD_ACK) && !handler_decides)
        return NST_BY_BAD_ACK;
    return what & ~registered & NST_EV_CONFLICT ? NST_BY_CONFLICT : NST_CAUSES;
}

static unsigned policy_of(enum nst_cause cause)
{
    return cause == NST_BY_MIDSTREAM ? m.set->on_midstream
           : cause == NST_BY_STALE   ? m.set->on_stale
           : cause == NST_BY_WINDOW  ? m.set->on_window
           : cause == NST_BY_BAD_ACK ? m.set->on_bad_ack
                                     : m.set->on_conflict;
}

/* *refused: why the packet must not pass; NST_CAUSES: it may. */
static nst_events follows(struct end *t, uint32_t seq, uint64_t offset, enum nst_cause *refused)
{
    nst_events registered = m.set->on_received[t->side];

    if (t->synced)
        return 0;
    memset(&t->now, 0, sizeof t->now);
    enum nst_tcp_state was = state_of(t);
    end_begins(t, seq, offset);
    set_life(ESTABLISHED, NST_OPEN_STILL);
    nst_events what = looks(t, NST_RECEIVED);
    if (state_of(t) != was)
        what |= NST_EV_STATE;
    if (!told(t->side))
        what &= ~(NST_EV_STATE | NST_EV_ERROR);
    enum nst_cause cause = cause_of(what, registered | NST_EV_CONFLICT);
    if (what & MODEL_REFUSED)
        *refused = NST_BY_STREAM_LIMIT;
    else if (cause != NST_CAUSES && policy_of(cause) != NST_FORWARD && policy_of(cause) != NST_FORWARD_FLOW)
        *refused = cause;
    return what & ~(MODEL_REFUSED | MODEL_STALE | MODEL_WINDOW | MODEL_BAD_ACK);
}

static void drops(enum nst_cause cause)
{
    m.counts->dropped[cause]++;
}

static void blocks(enum nst_verdict v, enum nst_cause cause)
{
    if (v == NST_RESET_FLOW && (m.seg->flags & RST) == 0)
        m.counts->injected += 2;
    m.flow.drop = true;
    m.flow.life = BLOCKED;
    drops(cause);
}

/* The verdict that a half came to, and why if it is not the handler's. True: the packet goes on. */
static bool applies(struct end *t, enum nst_side side, unsigned v, enum nst_cause cause, enum nst_cause refused)
{
    bool own = cause == NST_CAUSES;

    if (v == NST_UNDECIDED) {
        cause = NST_BY_OTHERWISE;
        v = NST_DROP;
        own = false;
    }
    if (refused != NST_CAUSES && v != NST_TAKEN && v != NST_DROP_FLOW && v != NST_RESET_FLOW) {
        cause = refused;
        v = NST_DROP;
        own = false;
    }
    verdict(t, side, v == NST_FORWARD || v == NST_FORWARD_FLOW || v == NST_TAKEN);
    switch (v) {
    case NST_FORWARD:
        return true;
    case NST_FORWARD_FLOW:
        m.flow.pass[side] = true;
        return true;
    case NST_DROP:
        drops(own ? NST_BY_VERDICT : cause);
        return false;
    case NST_TAKEN:
        m.counts->sent_by_handler++;
        m.out->step[m.seg - m.q->seg].fate = MODEL_LEFT;
        return false;
    default:
        blocks((enum nst_verdict)v, own ? NST_BY_FLOW_VERDICT : cause);
        return false;
    }
}

/* Calls the handler: writes down what it sees, and answers its verdict. */
static unsigned handles(struct end *t, enum nst_side side, enum nst_dir dir, nst_events what, enum nst_cause *refused)
{
    struct model_call *c = &m.out->step[m.seg - m.q->seg].call[dir];

    c->side = (uint8_t)side;
    if (what & NST_EV_MIDSTREAM) {
        if (m.seg->begin == MODEL_PICKUP)
            what |= follows(t, m.seg->seq, 0, refused);
        else if (m.seg->begin == MODEL_RESUME)
            what |= follows(t, m.seg->begin_seq, m.seg->begin_offset, refused);
    }
    c->what = what;
    c->state = (uint8_t)state_of(t);
    if (told(side))
        c->error = (uint8_t)t->error;
    c->bytes = m.out->n_bytes;
    c->placed = m.set->inspect[side] && t->synced;
    c->offset = c->placed ? (uint64_t)t->next : 0;
    c->seq = c->placed ? end_number(t, t->next) : 0;
    for (int64_t at = t->next; (what & NST_EV_DATA) && at < t->next + t->now.fresh; at++) {
        uint8_t byte;
        if (!end_byte(t, at, &byte))
            continue;
        c->len++;
        if (m.out->n_bytes < MODEL_BYTES)
            m.out->bytes[m.out->n_bytes++] = byte;
    }
    return m.seg->verdict[dir];
}

static bool half(enum nst_side side, enum nst_dir dir)
{
    struct end *t = &m.flow.end[side];
    nst_events registered = (dir == NST_SENT ? m.set->on_sent : m.set->on_received)[side], what = NST_EV_PACKET;
    enum nst_cause refused = NST_CAUSES;

    if (m.set->inspect[side])
        what |= looks(t, dir);
    if (what & MODEL_REFUSED)
        return applies(t, side, NST_DROP, NST_BY_STREAM_LIMIT, NST_CAUSES);
    enum nst_cause cause = cause_of(what, registered);
    if (cause != NST_CAUSES) {
        unsigned v = policy_of(cause);
        if (v == NST_FORWARD_FLOW) {
            m.flow.pass[side] = true;
            verdict(t, side, true);
            return true;
        }
        if (v != NST_FORWARD)
            return applies(t, side, v, cause, NST_CAUSES);
        if (cause == NST_BY_MIDSTREAM)
            what |= follows(t, m.seg->seq, 0, &refused);
    }
    what &= registered;
    if (what == 0)
        return applies(t, side, NST_FORWARD, NST_CAUSES, refused);
    unsigned v = handles(t, side, dir, what, &refused);
    return applies(t, side, v, NST_CAUSES, refused);
}

/* ---- a packet ---- */
static void ends(enum nst_close_why why)
{
    struct model_close *c = &m.out->closed[m.out->flows - 1];

    if (m.flow.why == NST_OPEN_STILL)
        m.flow.why = m.flow.drop ? NST_CLOSED_BY_VERDICT : why;
    c->why = m.flow.why;
    for (unsigned side = 0; side < 2; side++)
        c->calls[side] = ((m.set->on_sent[side] | m.set->on_received[side]) & NST_EV_CLOSE) != 0;
    m.flow.exists = false;
}

static void opens(void)
{
    const struct model_segment *s = m.seg;
    bool syn = s->flags & SYN, ack = s->flags & ACK;
    bool by_client = syn ? !ack : m.q->port[s->dir] >= m.q->port[!s->dir];

    if (m.out->flows == MODEL_FLOWS)
        return;
    m.out->flows++;
    m.flow.exists = true;
    m.flow.by_syn = syn && !ack;
    m.flow.drop = m.flow.pass[0] = m.flow.pass[1] = false;
    m.flow.client = by_client ? s->dir : !s->dir;
    m.flow.client_port = (unsigned)(s->dir ^ s->other_side) ^ !by_client;
    m.flow.life = m.set->inspect[0] || m.set->inspect[1] ? OPENING : ESTABLISHED;
    m.flow.why = NST_OPEN_STILL;
    for (unsigned side = 0; side < 2; side++) {
        unsigned end = (side == NST_CLIENT) == (m.flow.client == 0) ? 0 : 1;
        end_open(&m.flow.end[side], m.set, (enum nst_side)side, m.set->overlap[m.q->network[end]]);
    }
}

/* A SYN takes the tuple of a connection that is over, and of one of which nothing but stray packets was seen. */
static bool may_begin_anew(void)
{
    unsigned to = m.seg->dir == m.flow.client ? NST_SERVER : NST_CLIENT;

    if (m.flow.life != CLOSING)
        return m.flow.life == OPENING && !m.flow.by_syn;
    return m.flow.why != NST_CLOSED_BY_FIN || !m.set->inspect[to] || end_takes_new_syn(&m.flow.end[to], m.seg);
}

static void packet(void)
{
    const struct model_segment *s = m.seg;
    bool first_syn = (s->flags & (SYN | ACK)) == SYN;

    if (!m.flow.exists) {
        opens();
    } else if (first_syn && may_begin_anew()) {
        ends(NST_CLOSED_BY_FIN);
        opens();
    }
    unsigned from = s->dir == m.flow.client ? NST_CLIENT : NST_SERVER;
    m.bad_ack = false;
    if (!m.set->replay && (unsigned)(s->dir ^ s->other_side) != (m.flow.client_port ^ from)) {
        m.counts->conflicts++;
        if (m.set->on_conflict != NST_FORWARD && m.set->on_conflict != NST_FORWARD_FLOW) {
            drops(NST_BY_CONFLICT);
            return;
        }
    }
    for (unsigned dir = 0; dir < 2; dir++) {
        enum nst_side side = (enum nst_side)(dir == NST_SENT ? from : !from);
        bool part = m.set->inspect[side] || m.set->on_sent[side] || m.set->on_received[side];
        if (!part)
            continue;
        if (m.flow.drop) {
            drops(NST_BY_FLOW_VERDICT);
            return;
        }
        if (!m.flow.pass[side] && !half(side, (enum nst_dir)dir))
            return;
    }
    m.counts->forwarded++;
    m.out->step[s - m.q->seg].fate = MODEL_LEFT;
}

void model_expect(const struct model_setting *set, const struct model_sequence *q, struct model_result *out,
                  struct model_counts *counts)
{
    memset(out, 0, offsetof(struct model_result, bytes));
    m.set = set;
    m.q = q;
    m.out = out;
    m.counts = counts;
    m.flow.exists = false;
    for (unsigned i = 0; i < q->n; i++) {
        m.seg = &q->seg[i];
        packet();
    }
    if (m.flow.exists)
        ends(NST_CLOSED_BY_SHUTDOWN);
}
