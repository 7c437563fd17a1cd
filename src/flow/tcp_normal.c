/* SPDX-License-Identifier: Apache-2.0 */
/* Making what leaves equal to what was inspected. Checksums are mended, not made anew: a wrong one stays wrong. */
#include "flow/tcp_end.h"
#include <rte_ip.h>

bool tcp_normal_bytes(const struct tcp_end *t, struct nst_packet *p, uint32_t off, uint32_t seq, uint32_t len)
{
    uint32_t end = seq + len;

    for (const struct segment *x = stream_from(&t->kept, seq); x != NULL && seq_diff(x->seq, end) < 0;
         x = segment_next(x)) {
        uint32_t from = seq_diff(x->seq, seq) > 0 ? x->seq : seq;
        uint32_t to = seq_diff(segment_end(x), end) < 0 ? segment_end(x) : end;
        if (nst_packet_edit(p, off + (from - seq), segment_bytes(x) + (from - x->seq), to - from) < 0)
            return false;
    }
    return true;
}

/* The one's complement sum of bytes, as they lie, without a carry. */
static uint16_t sum_of(const uint8_t *at, size_t len)
{
    return rte_raw_cksum(at, len);
}

/* Takes words out of what a checksum covers, and puts others in (RFC 1624). All as they lie in the packet. */
static void mend(uint8_t *field, uint16_t out, uint16_t in)
{
    uint16_t was;

    memcpy(&was, field, sizeof was);
    uint32_t sum = (uint32_t)(uint16_t)~was + (uint16_t)~out + in;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    was = (uint16_t)~sum;
    memcpy(field, &was, sizeof was);
}

static bool clear_flag(struct nst_packet *p, uint8_t flag)
{
    const struct rte_tcp_hdr *h = tcp_header(p);
    uint8_t word[2] = { h->data_off, (uint8_t)(h->tcp_flags & ~flag) };

    p->h.tcp_flags = word[1];
    return nst_packet_edit(p, p->h.l4 + offsetof(struct rte_tcp_hdr, data_off), word, sizeof word) == 0;
}

bool tcp_normal_cut(struct nst_packet *p, uint32_t len)
{
    struct rte_mbuf *m = mbuf_of(p);
    uint32_t have = p->h.payload_len, gone = have - len, end = (uint32_t)p->h.payload + have;

    if ((p->flags & (PACKET_TUNNEL | PACKET_WHOLE)) == (PACKET_TUNNEL | PACKET_WHOLE))
        return false; /* it would leave in other fragments, which may not fit the link together with what is around them */
    if (len >= have || m->nb_segs != 1 || rte_pktmbuf_data_len(m) < end)
        return false;
    uint8_t *d = rte_pktmbuf_mtod(m, uint8_t *);
    uint16_t tcp_was = (uint16_t)(end - p->h.l4), tcp_is = (uint16_t)(tcp_was - gone);
    uint16_t sum = sum_of(d + end - gone, gone);
    if ((end - gone - p->h.l4) & 1) /* it began in the middle of a word */
        sum = (uint16_t)(sum << 8 | sum >> 8);
    uint8_t *checksum = d + p->h.l4 + offsetof(struct rte_tcp_hdr, cksum);
    mend(checksum, sum, 0);
    mend(checksum, rte_cpu_to_be_16(tcp_was), rte_cpu_to_be_16(tcp_is));

    uint8_t *field = d + p->h.l3 + (p->h.family == 4 ? 2 : 4); /* the length in IP's header */
    rte_be16_t was, is;
    memcpy(&was, field, sizeof was);
    is = rte_cpu_to_be_16((uint16_t)(rte_be_to_cpu_16(was) - gone));
    memcpy(field, &is, sizeof is);
    if (p->h.family == 4)
        mend(d + p->h.l3 + offsetof(struct rte_ipv4_hdr, hdr_checksum), was, is);
    rte_pktmbuf_trim(m, (uint16_t)(rte_pktmbuf_data_len(m) - (end - gone))); /* and what the link had padded */
    p->h.payload_len = (uint16_t)len;
    if (p->flags & PACKET_TUNNEL)
        packet_fit(d, p->around, p->n_around, end - gone);
    return clear_flag(p, RTE_TCP_FIN_FLAG);
}

bool tcp_normal_urgent(struct nst_packet *p)
{
    uint8_t none[2] = { 0 };

    return nst_packet_edit(p, p->h.l4 + offsetof(struct rte_tcp_hdr, tcp_urp), none, sizeof none) == 0 &&
           clear_flag(p, RTE_TCP_URG_FLAG);
}
