/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of which a part has gone, or still goes, by another instance: what tells that, and what may be said of such an end.
 */
#include "flow/tcp_end.h"

/* The packet is dropped for the cause when it is forwarded, if the policy says so; what cannot be kept, always. */
static void refuse(struct nst_engine *e, struct nst_packet *p, enum nst_cause cause)
{
    if (cause == NST_CAUSES)
        return;
    enum nst_verdict v = cause == NST_BY_STREAM_LIMIT ? NST_DROP : policy_of(e, cause);
    if (v != NST_FORWARD && v != NST_FORWARD_FLOW) {
        p->flags |= PACKET_REFUSED;
        p->refused = (uint8_t)cause;
    }
}

nst_events tcp_elsewhere(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p,
                         nst_events what)
{
    struct nst_engine *e = f->engine;
    const struct rte_tcp_hdr *h = tcp_header(p);
    uint32_t seq = rte_be_to_cpu_32(h->sent_seq), len = p->h.payload_len, next = next_seq(t);

    if (e->replay || (t->flags & TCP_SYNCED) == 0 || (h->tcp_flags & (RTE_TCP_SYN_FLAG | RTE_TCP_RST_FLAG)) ||
        (what & NST_EV_MIDSTREAM))
        return what;
    bool behind = (len > 0 || (h->tcp_flags & RTE_TCP_FIN_FLAG)) && seq_diff(seq, next) > 0;
    bool before = len > 0 && seq_diff(seq + len, t->acked) <= 0;
    bool refused = (what & (EV_WINDOW | EV_REFUSED)) || ((what & EV_BAD_ACK) && (p->flags & PACKET_BAD_ACK));
    if (!behind && !before && !refused)
        return what;
    e->stats.elsewhere++;
    refuse(e, p, half_cause(what, flow_wants(f, side, NST_RECEIVED) | NST_EV_CONFLICT));
    return (what & ~(EV_REFUSED | EV_UNACCEPTED)) | NST_EV_ELSEWHERE;
}

/* What the current packet was thought to bring. */
static void unlook(struct tcp_end *t, struct nst_engine *e, struct nst_packet *p)
{
    if (t->adds)
        stream_free(&e->stream, segment_numbered(&e->stream, t->adding));
    t->adding = 0;
    t->adds = 0;
    t->fresh = t->given = 0;
    t->now = 0;
    if ((p->flags & PACKET_REFUSED) && p->refused != NST_BY_STREAM_LIMIT)
        e->stats.policy[p->refused]--; /* it may be let pass after all */
    p->flags &= (uint16_t)~PACKET_REFUSED;
}

/* The current packet in the light of what is known now. */
static nst_events look_again(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p,
                             enum nst_tcp_state was)
{
    struct nst_engine *e = f->engine;

    nst_events what = e->inspect[side]->packet(t, f, side, NST_RECEIVED, p);
    if (e->inspect[side] != &nst_tcp && nst_tcp_state(f, side) != was)
        what |= NST_EV_STATE;
    refuse(e, p, half_cause(what, flow_wants(f, side, NST_RECEIVED)));
    return what & ~(EV_REFUSED | EV_UNACCEPTED);
}

/* The flow is followed from here on, although its beginning was not seen, or not all that came then. */
static void follow(struct tcp_end *t, struct nst_flow *f)
{
    if ((t->flags & TCP_OPENED) == 0)
        nst_flow_life(f, NST_LIFE_ESTABLISHED, NST_OPEN_STILL);
    t->flags |= TCP_OPENED | TCP_SYN_RECEIVED | TCP_SYN_SENT | TCP_CONFIRMED;
    t->picked = 1;
}

/* Bytes are kept that are the next to be delivered: any packet will. */
static void goes_on(struct tcp_end *t)
{
    const struct segment *x = stream_from(&t->kept, next_seq(t));

    if (x != NULL && seq_diff(x->seq, next_seq(t)) <= 0)
        t->flags |= TCP_LOST;
}

/* The end goes on there. What it was given up to that place, another has inspected. */
static void move(struct tcp_end *t, struct nst_flow *f, enum nst_side side, uint32_t seq, uint64_t offset)
{
    struct nst_engine *e = f->engine;

    /* Another connection, whose beginning did not come by here; or so far on that numbers say nothing any more. */
    if (seq - (uint32_t)offset != t->base || offset - t->delivered > TCP_AHEAD_MAX)
        tcp_restart(t, e);
    if (seq != next_seq(t) || (t->flags & TCP_SYNCED) == 0) {
        stream_trim(&t->kept, &e->stream, seq);
        tcp_begin_at(t, f, side, seq, offset);
        e->stats.moved++;
    }
    t->flags &= (uint16_t) ~(TCP_EDGE | TCP_LOST);
    t->hole = 0;
    goes_on(t);
}

nst_events nst_tcp_resume(struct nst_flow *f, enum nst_side side, uint32_t seq, uint64_t offset)
{
    struct tcp_end *t = tcp_end_of(f, side);
    struct nst_packet *p = nst_flow_packet(f, side);

    if (t == NULL || p == NULL || f->turn[side]->ev.dir != NST_RECEIVED)
        return 0;
    enum nst_tcp_state was = nst_tcp_state(f, side);
    if (t->flags & TCP_SYNCED) {
        if ((f->flags & FLOW_EDITED) || (tcp_header(p)->tcp_flags & RTE_TCP_SYN_FLAG) ||
            (seq - (uint32_t)offset == t->base && offset < t->delivered))
            return 0;
        unlook(t, f->engine, p);
        move(t, f, side, seq, offset);
    } else {
        tcp_begin_at(t, f, side, seq, offset);
    }
    follow(t, f);
    return look_again(t, f, side, p, was);
}

int nst_tcp_keep(struct nst_flow *f, enum nst_side side, uint32_t seq, struct nst_slice bytes)
{
    struct tcp_end *t = tcp_end_of(f, side);
    struct nst_packet *p = nst_flow_packet(f, side);
    uint32_t len = (uint32_t)bytes.len;

    if (t == NULL || p == NULL || (t->flags & TCP_SYNCED) == 0 || bytes.len > UINT16_MAX || (f->flags & FLOW_EDITED) ||
        f->turn[side]->ev.dir != NST_RECEIVED)
        return -EINVAL;
    unlook(t, f->engine, p);
    if (seq_diff(seq + len, next_seq(t)) <= 0 || (t->flags & TCP_FIN_KNOWN && seq_diff(seq + len, t->fin) > 0))
        return seq_diff(seq + len, next_seq(t)) <= 0 ? 0 : -EINVAL;
    int rc = tcp_keep_bytes(t, f, &(struct stream_new){ .bytes = bytes.p, .seq = seq, .len = len, .from = seq });
    goes_on(t);
    return rc;
}

bool nst_tcp_keeps(const struct nst_flow *f, enum nst_side side, uint32_t seq, uint32_t len)
{
    const struct tcp_end *t = tcp_end_of(f, side);

    if (t == NULL || (t->flags & TCP_SYNCED) == 0)
        return false;
    uint32_t next = next_seq(t), end = seq + len;
    if (seq_diff(seq, next) < 0)
        seq = next;
    return seq_diff(end, seq) <= 0 || stream_covers(&t->kept, seq, end);
}

nst_events nst_tcp_sent(struct nst_flow *f, enum nst_side side, uint32_t upto)
{
    struct tcp_end *t = tcp_end_of(f, side), *other = tcp_end_of(f, (enum nst_side) !side);
    struct nst_packet *p = nst_flow_packet(f, side);

    if (t == NULL || p == NULL || (t->flags & TCP_SYNCED) == 0 || f->turn[side]->ev.dir != NST_RECEIVED)
        return 0;
    if ((p->flags & PACKET_BAD_ACK) && seq_diff(rte_be_to_cpu_32(tcp_header(p)->recv_ack), upto) <= 0) {
        p->flags &= (uint16_t)~PACKET_BAD_ACK;
        if (other != NULL)
            other->picked = 1; /* how far its own stream has come is not known here */
    }
    unlook(t, f->engine, p);
    enum nst_tcp_state was = nst_tcp_state(f, side);
    return look_again(t, f, side, p, was);
}

nst_events tcp_pickup(struct nst_flow *f, enum nst_side side, struct nst_packet *p)
{
    struct tcp_end *t = tcp_end_of(f, side);

    if (t == NULL || (t->flags & TCP_SYNCED) || p == NULL)
        return 0;
    enum nst_tcp_state was = nst_tcp_state(f, side);
    tcp_begin_at(t, f, side, rte_be_to_cpu_32(tcp_header(p)->sent_seq), 0);
    follow(t, f);
    return look_again(t, f, side, p, was);
}

nst_events nst_tcp_pickup(struct nst_flow *f, enum nst_side side)
{
    return tcp_pickup(f, side, nst_flow_packet(f, side));
}
