/* SPDX-License-Identifier: Apache-2.0 */
/* flow/tcp_plain.h - the short way of nst_tcp, for the packets that most of an open connection's are: the very next bytes,
 * or an acknowledgment of some that were delivered. 4.4BSD's TCP predicts headers in the same way (V. Jacobson; see
 * RFC 7323, 2.2 and Wright and Stevens, TCP/IP Illustrated, volume 2, 28.4). Inline, so that both ends of a connection
 * are looked at in one go.
 *
 * It decides nothing of its own: what it does is what tcp.c would do with such a packet, and what is in the least
 * unusual it leaves to that. Nothing is written but what changes, so that an end that only looks on stays clean in the
 * cache.
 */
#pragma once
#include "flow/tcp_end.h"

/* Of an end: it has begun, and neither its stream's end nor anything else is in sight. */
enum {
    TCP_PLAIN_LOOK = TCP_SYNCED | TCP_CONFIRMED | TCP_OPENED | TCP_FIN_KNOWN | TCP_FIN_SENT | TCP_LOST | TCP_URGENT,
    TCP_PLAIN = TCP_SYNCED | TCP_CONFIRMED | TCP_OPENED,
};

static inline bool tcp_is_plain(const struct tcp_end *t, const struct nst_packet *p)
{
    const uint8_t look = RTE_TCP_SYN_FLAG | RTE_TCP_FIN_FLAG | RTE_TCP_RST_FLAG | RTE_TCP_URG_FLAG | RTE_TCP_ACK_FLAG;

    return (p->h.tcp_flags & look) == RTE_TCP_ACK_FLAG && (t->flags & TCP_PLAIN_LOOK) == TCP_PLAIN;
}

/* No options, or time stamps alone where everybody puts them: then *word are those. */
static inline bool tcp_plain_options(const struct rte_tcp_hdr *h, uint32_t word[3])
{
    enum { NONE = 5 << 4, STAMPS = 8 << 4 };

    word[0] = 0;
    if (h->data_off >> 4 == STAMPS >> 4)
        memcpy(word, h + 1, 3 * sizeof *word);
    else if (h->data_off >> 4 != NONE >> 4)
        return false;
    return word[0] == RTE_BE32(0x0101080a) || h->data_off >> 4 == NONE >> 4;
}

/* A packet that this end receives. False: nothing was done. */
static inline bool tcp_plain_received(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p,
                                      nst_events *what)
{
    const struct rte_tcp_hdr *h = tcp_header(p);
    uint32_t seq = rte_be_to_cpu_32(h->sent_seq), len = p->h.payload_len, word[3];

    if (unlikely(seq != next_seq(t) || (p->flags & PACKET_BAD_ACK) || (t->kept.last != NULL && t->kept.end != seq) ||
                 !tcp_plain_options(h, word)))
        return false;
    if (len != 0 && unlikely((t->flags & TCP_EDGE) && seq_diff(seq + len, t->edge) > 0))
        return false;
    if (word[0] != 0) {
        uint32_t stamp = rte_be_to_cpu_32(word[1]);
        if (unlikely((t->flags & TCP_ECHOED) && seq_diff(t->echoed, stamp) > 0))
            return false;
        if ((t->flags & TCP_STAMPED) == 0 || seq_diff(stamp, t->stamp) > 0) {
            t->stamp = stamp;
            t->flags |= TCP_STAMPED;
        }
    }
    if (len == 0)
        return true;
    if (flow_keeps(f, side) && !tcp_keep_next(t, f, side, p, p->h.payload, seq, len)) {
        return false; /* refused, as it will be told */
    }
    t->fresh = len;
    *what |= NST_EV_DATA;
    return true;
}

/* One that it sends. */
static inline bool tcp_plain_sent(struct tcp_end *t, struct nst_engine *e, enum nst_side side,
                                  const struct nst_packet *p)
{
    const struct rte_tcp_hdr *h = tcp_header(p);
    uint32_t ack = rte_be_to_cpu_32(h->recv_ack), word[3];

    if (unlikely(seq_diff(ack, next_seq(t)) > 0 || !t->heard || !tcp_plain_options(h, word)))
        return false;
    if (word[0] != 0) {
        uint32_t echo = rte_be_to_cpu_32(word[2]);
        if ((t->flags & TCP_STAMPED) && seq_diff(echo, t->stamp) <= 0 &&
            ((t->flags & TCP_ECHOED) == 0 || seq_diff(echo, t->echoed) > 0)) {
            t->echoed = echo;
            t->flags |= TCP_ECHOED;
        }
    }
    if (seq_diff(ack, t->acked) > 0) {
        t->acked = ack;
        if (t->kept.last != NULL)
            stream_trim(&t->kept, &e->stream, ack);
    }
    if (e->strict[side] && !t->picked) {
        const uint16_t both = TCP_SCALE_SENT | TCP_SCALE_RECEIVED;
        unsigned scale = (t->flags & both) == both ? t->scale : 0;
        uint32_t edge = ack + ((uint32_t)rte_be_to_cpu_16(h->rx_win) << scale);
        if ((t->flags & TCP_EDGE) == 0 || seq_diff(edge, t->edge) > 0) {
            t->edge = edge;
            t->flags |= TCP_EDGE;
        }
    }
    return true;
}

/* nst_tcp's packet(), for every packet. */
static inline nst_events tcp_inspect(struct nst_engine *e, struct nst_flow *f, enum nst_side side, enum nst_dir dir,
                                     struct nst_packet *p)
{
    struct tcp_end *t = flow_inspector(f, side);
    nst_events what = 0;

    if (likely(tcp_is_plain(t, p)) &&
        likely(dir == NST_RECEIVED ? tcp_plain_received(t, f, side, p, &what) : tcp_plain_sent(t, e, side, p)))
        return what;
    return nst_tcp.packet(t, f, side, dir, p);
}

/* nst_tcp's verdict(), for FORWARD: bytes that continue the stream, and of which none are kept, are all that most packets
 * leave to be decided, if anything. */
static inline void tcp_forwarded(struct nst_engine *e, struct nst_flow *f, enum nst_side side)
{
    struct tcp_end *t = flow_inspector(f, side);

    if ((t->fresh | t->now | t->adds) == 0)
        return;
    uint32_t fresh = t->fresh;
    if (unlikely((t->now | t->adds) != 0 || (t->flags & TCP_LOST) || t->kept.last != NULL || !t->heard ||
                 next_seq(t) + fresh - t->acked > TCP_UNACKED_MAX)) {
        nst_tcp.verdict(t, f, side, NST_FORWARD);
        return;
    }
    t->delivered += fresh;
    e->stats.stream_bytes += fresh;
    t->fresh = t->given = 0;
}
