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
