/* SPDX-License-Identifier: Apache-2.0 */
/* What tcp.h offers to handlers, and what the engine's other parts ask of nst_tcp. */
#include "flow/tcp_end.h"

uint64_t nst_tcp_offset(const struct nst_flow *f, enum nst_side side)
{
    const struct tcp_end *t = tcp_end_of(f, side);
    return t != NULL ? t->delivered : 0;
}

uint32_t nst_tcp_seq(const struct nst_flow *f, enum nst_side side)
{
    const struct tcp_end *t = tcp_end_of(f, side);
    return t != NULL ? next_seq(t) : 0;
}

bool nst_tcp_rest(struct nst_flow *f, enum nst_side side, uint64_t *offset, struct nst_slice *next)
{
    struct tcp_end *t = tcp_end_of(f, side);

    if (t == NULL || !f->engine->replay || (f->flags & FLOW_RETIRED) == 0 || (t->flags & TCP_SYNCED) == 0)
        return false;
    uint32_t pos = next_seq(t) + t->given;
    const struct segment *x = stream_from(&t->kept, pos);
    if (x == NULL)
        return false;
    uint32_t from = seq_diff(x->seq, pos) > 0 ? x->seq : pos;
    f->engine->stats.lost_bytes += from - pos;
    *offset = t->delivered + (from - next_seq(t));
    *next = (struct nst_slice){ segment_bytes(x) + (from - x->seq), segment_end(x) - from };
    t->given = segment_end(x) - next_seq(t);
    return true;
}

/* The flow is followed from here on; its current packet is looked at again. */
static nst_events look_again(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p)
{
    struct nst_engine *e = f->engine;
    enum nst_tcp_state was = nst_tcp_state(f, side);

    t->flags |= TCP_OPENED | TCP_SYN_RECEIVED | TCP_SYN_SENT | TCP_CONFIRMED;
    t->picked = 1;
    nst_flow_life(f, NST_LIFE_ESTABLISHED, NST_OPEN_STILL);
    nst_events what = e->inspect[side]->packet(t, f, side, NST_RECEIVED, p);
    if (e->inspect[side] != &nst_tcp && nst_tcp_state(f, side) != was)
        what |= NST_EV_STATE;
    enum nst_cause cause = half_cause(what, flow_wants(f, side, NST_RECEIVED) | NST_EV_CONFLICT);
    if (cause != NST_CAUSES) {
        enum nst_verdict v = cause == NST_BY_STREAM_LIMIT ? NST_DROP : policy_of(e, cause);
        if (v != NST_FORWARD && v != NST_FORWARD_FLOW) {
            p->flags |= PACKET_REFUSED;
            p->refused = (uint8_t)cause;
        }
    }
    return what & ~(EV_REFUSED | EV_UNACCEPTED);
}

nst_events nst_tcp_resume(struct nst_flow *f, enum nst_side side, uint32_t seq, uint64_t offset)
{
    struct tcp_end *t = tcp_end_of(f, side);
    struct nst_packet *p = nst_flow_packet(f, side);

    if (t == NULL || (t->flags & TCP_SYNCED) || p == NULL)
        return 0;
    tcp_begin_at(t, f, side, seq, offset);
    return look_again(t, f, side, p);
}

nst_events tcp_pickup(struct nst_flow *f, enum nst_side side, struct nst_packet *p)
{
    struct tcp_end *t = tcp_end_of(f, side);

    if (t == NULL || (t->flags & TCP_SYNCED) || p == NULL)
        return 0;
    tcp_begin_at(t, f, side, rte_be_to_cpu_32(tcp_header(p)->sent_seq), 0);
    return look_again(t, f, side, p);
}

nst_events nst_tcp_pickup(struct nst_flow *f, enum nst_side side)
{
    return tcp_pickup(f, side, nst_flow_packet(f, side));
}

bool tcp_stream_ended(struct nst_flow *f, enum nst_side side)
{
    const struct tcp_end *t = tcp_end_of(f, side);
    return t != NULL && (t->flags & TCP_FIN_RECEIVED);
}

bool tcp_may_begin_anew(const struct nst_flow *f, enum nst_side side, const struct nst_packet *p)
{
    const struct tcp_end *t = tcp_end_of(f, side);
    const struct rte_tcp_hdr *h = tcp_header(p);
    uint32_t stamp, echo;

    return t == NULL || !t->waits || seq_diff(rte_be_to_cpu_32(h->sent_seq), next_seq(t) + 1) > 0 ||
           ((t->flags & TCP_STAMPED) && tcp_stamps(h, &stamp, &echo) && seq_diff(stamp, t->stamp) > 0);
}

void tcp_told(struct nst_flow *f, enum nst_side side, const struct rte_tcp_hdr *h)
{
    struct tcp_end *t = tcp_end_of(f, side);

    if (t != NULL && (t->flags & TCP_SYNCED))
        tcp_acknowledges(t, f->engine, side, h, NULL, rte_be_to_cpu_32(h->recv_ack));
}

bool tcp_place(struct nst_flow *f, enum nst_side side, struct tcp_place *out)
{
    const struct tcp_end *t = tcp_end_of(f, side);

    if (t == NULL || (t->flags & TCP_SYNCED) == 0)
        return false;
    *out = (struct tcp_place){
        .next = next_seq(t),
        .fresh = t->fresh,
        .kept = &t->kept,
        .ended = (t->flags & TCP_FIN_RECEIVED) != 0,
        .ends = ((t->flags | t->now) & TCP_FIN_KNOWN) && next_seq(t) + t->fresh == t->fin,
    };
    return true;
}
