/* SPDX-License-Identifier: Apache-2.0 */
/* What an end says of itself: how far it has taken its stream, how much more it would take. */
#include "flow/tcp_end.h"

enum { SCALE_MAX = 14 }; /* RFC 7323 */

void tcp_options(const struct rte_tcp_hdr *h, struct tcp_options *out)
{
    enum { END = 0, NOP = 1, SCALE = 3, SELECTIVE = 5, STAMPS = 8 };
    const uint8_t *at = (const uint8_t *)(h + 1), *end = (const uint8_t *)h + (h->data_off >> 4) * 4;
    rte_be32_t word;

    *out = (struct tcp_options){ .scale = -1 };
    while (at < end && *at != END) {
        if (*at == NOP) {
            at++;
            continue;
        }
        if (end - at < 2 || at[1] < 2 || at[1] > end - at)
            return;
        if (at[0] == SCALE && at[1] == 3) {
            out->scale = (int8_t)(at[2] < SCALE_MAX ? at[2] : SCALE_MAX);
        } else if (at[0] == STAMPS && at[1] == 10) {
            memcpy(&word, at + 2, sizeof word);
            out->stamp = rte_be_to_cpu_32(word);
            memcpy(&word, at + 6, sizeof word);
            out->echo = rte_be_to_cpu_32(word);
            out->stamps = true;
        } else if (at[0] == SELECTIVE) {
            out->selective = true;
        }
        at += at[1];
    }
}

/* Whether the other end, whose bytes come by here, has sent everything before ack. */
static bool was_sent(const struct tcp_end *t, uint32_t ack)
{
    uint32_t end = next_seq(t);

    if (t->kept.last != NULL && seq_diff(t->kept.end, end) > 0)
        end = t->kept.end;
    if ((t->flags & TCP_FIN_KNOWN) && seq_diff(t->fin, end) >= 0)
        end = t->fin + 1;
    return seq_diff(ack, end) <= 0;
}

void tcp_acknowledged(struct tcp_end *t, struct nst_engine *e, struct nst_packet *p, uint32_t ack)
{
    if ((t->flags & TCP_SYNCED) == 0 || seq_diff(ack, t->acked) <= 0)
        return;
    if (p != NULL && !e->replay && (t->flags & TCP_CONFIRMED) && !t->picked && seq_diff(ack, next_seq(t)) > 0 &&
        !was_sent(t, ack))
        p->flags |= PACKET_BAD_ACK;
    if (seq_diff(ack, t->acked) > TCP_AHEAD_MAX)
        return;
    /* The number behind a FIN is no byte. */
    uint32_t next = next_seq(t), upto = (t->flags & TCP_FIN_KNOWN) && ack == t->fin + 1 ? t->fin : ack;
    if (seq_diff(upto, next) > 0 && !e->replay) {
        /* Nothing reaches it but through here. Believing it would let two accomplices skip the inspection. */
        e->stats.acks_ignored++;
        upto = next;
    } else if (seq_diff(upto, next) > 0) {
        /* A capture has holes: the end has got bytes that were not recorded, or stand further down. Whether they come
         * the next segments tell; of those behind the ACK of a FIN there may be only one. */
        bool ended = upto != ack;
        if (t->hole == 0 || ended) {
            t->hole = ended ? 1 : TCP_HOLE_WAIT;
            t->edge = upto;
            t->flags |= TCP_LOST;
        }
        upto = next;
    }
    t->acked = upto;
    stream_trim(&t->kept, &e->stream, upto);
}

void tcp_window(struct tcp_end *t, const struct rte_tcp_hdr *h, uint32_t ack)
{
    const uint16_t both = TCP_SCALE_SENT | TCP_SCALE_RECEIVED;
    bool scaled = (t->flags & both) == both && (h->tcp_flags & RTE_TCP_SYN_FLAG) == 0;
    uint32_t edge = ack + ((uint32_t)rte_be_to_cpu_16(h->rx_win) << (scaled ? t->scale : 0));

    /* What acknowledges more than there is offers nothing. */
    if (seq_diff(ack, next_seq(t) + ((t->flags & TCP_FIN_RECEIVED) != 0)) > 0)
        return;
    if ((t->flags & TCP_EDGE) == 0 || seq_diff(edge, t->edge) > 0) {
        t->edge = edge;
        t->flags |= TCP_EDGE;
    }
}
