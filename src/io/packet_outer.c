/* SPDX-License-Identifier: Apache-2.0 */
/* The headers around a packet in tunnels, when the packet changes. */
#include "io/packet.h"
#include <netinet/in.h>
#include <rte_ip.h>
#include <string.h>

enum { UDP_HEADER = 8, UDP_SUM = 6, GRE_SUM = 4, GRE_HAS_SUM = 0x80, GTPU_LENGTH = 2, GTPU_FIXED = 8 };

static void put16(uint8_t *at, uint32_t v)
{
    at[0] = (uint8_t)(v >> 8);
    at[1] = (uint8_t)v;
}

static uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool is_udp(const struct packet_layer *l)
{
    return l->kind == NST_TUNNEL_VXLAN || l->kind == NST_TUNNEL_GTPU;
}

/* Where the layer's checksum stands, 0 when it has none in use, and where what it sums begins. */
static uint32_t sum_of(const uint8_t *d, const struct packet_layer *l, uint32_t *from)
{
    if (is_udp(l)) {
        *from = (uint32_t)l->head - UDP_HEADER;
        return (d[*from + UDP_SUM] | d[*from + UDP_SUM + 1]) != 0 ? *from + UDP_SUM : 0;
    }
    *from = l->head;
    return l->kind == NST_TUNNEL_GRE && (d[l->head] & GRE_HAS_SUM) ? *from + GRE_SUM : 0;
}

static void sum_anew(uint8_t *d, const struct packet_layer *l, uint32_t at, uint32_t from, uint32_t end)
{
    uint64_t sum;
    uint16_t value;

    memset(d + at, 0, sizeof value);
    sum = rte_raw_cksum(d + from, end - from);
    if (is_udp(l)) {
        const uint8_t *ip = d + l->l3;
        sum += l->family == 4 ? rte_raw_cksum(ip + 12, 8) : rte_raw_cksum(ip + 8, 32);
        sum += (uint64_t)rte_cpu_to_be_16((uint16_t)(end - from)) + RTE_BE16(IPPROTO_UDP);
    }
    while (sum >> 16)
        sum = (sum & UINT16_MAX) + (sum >> 16);
    value = (uint16_t)~sum;
    if (value == 0 && is_udp(l))
        value = UINT16_MAX;
    memcpy(d + at, &value, sizeof value);
}

void packet_fit(uint8_t *d, const struct packet_layer around[], unsigned n, uint32_t end)
{
    while (n-- > 0) {
        const struct packet_layer *l = &around[n];
        uint8_t *ip = d + l->l3;
        uint32_t from, at;

        if (l->kind == NST_TUNNEL_GTPU)
            put16(d + l->head + GTPU_LENGTH, end - l->head - GTPU_FIXED);
        if (is_udp(l))
            put16(d + l->head - UDP_HEADER + 4, end - (l->head - UDP_HEADER));
        if (l->family == 4) {
            put16(ip + 2, end - l->l3);
            put16(ip + 10, 0);
            uint16_t sum = (uint16_t)~rte_raw_cksum(ip, (size_t)(ip[0] & 15) * 4);
            memcpy(ip + 10, &sum, sizeof sum);
        } else if (l->family == 6) {
            put16(ip + 4, end - l->l3 - sizeof(struct rte_ipv6_hdr));
        }
        at = sum_of(d, l, &from);
        if (at != 0)
            sum_anew(d, l, at, from, end);
    }
}

unsigned packet_outer_sums(const struct nst_packet *p, struct packet_outer_sum sums[NST_TUNNEL_DEPTH])
{
    const uint8_t *d = rte_pktmbuf_mtod(mbuf_of(p), const uint8_t *);
    uint32_t end = mbuf_of(p)->data_len;
    unsigned n = 0;

    for (unsigned i = p->flags & PACKET_TUNNEL ? p->n_around : 0; i-- > 0;) {
        struct packet_outer_sum *s = &sums[n];
        s->at = sum_of(d, &p->around[i], &s->from);
        if (s->at == 0)
            continue;
        s->sum = rte_raw_cksum(d + s->from, end - s->from);
        s->udp = is_udp(&p->around[i]);
        n++;
    }
    return n;
}

/* From the inside: what is mended there is among what the next one sums. */
void packet_outer_mend(struct nst_packet *p, const struct packet_outer_sum sums[], unsigned n)
{
    uint8_t *d = rte_pktmbuf_mtod(mbuf_of(p), uint8_t *);
    uint32_t end = mbuf_of(p)->data_len;

    for (unsigned i = 0; i < n; i++) {
        const struct packet_outer_sum *s = &sums[i];
        uint16_t is = rte_raw_cksum(d + s->from, end - s->from), field;

        if (is == s->sum)
            continue;
        memcpy(&field, d + s->at, sizeof field);
        uint32_t sum = (uint32_t)(uint16_t)~field + (uint16_t)~s->sum + is;
        sum = (sum & UINT16_MAX) + (sum >> 16);
        sum = (sum & UINT16_MAX) + (sum >> 16);
        field = (uint16_t)~sum;
        if (field == 0 && s->udp)
            field = UINT16_MAX;
        memcpy(d + s->at, &field, sizeof field);
    }
}

/* ---- what an NF may ask ---- */
static uint32_t id_of(const uint8_t *d, const struct packet_layer *l)
{
    enum { GRE_HAS_KEY = 0x20, LAST = 0x100 };
    const uint8_t *head = d + l->head;
    uint32_t label;

    switch (l->kind) {
    case NST_TUNNEL_VXLAN:
        return load32(head + 4) >> 8;
    case NST_TUNNEL_GTPU:
        return load32(head + 4);
    case NST_TUNNEL_GRE:
        return head[0] & GRE_HAS_KEY ? load32(head + (head[0] & GRE_HAS_SUM ? 8 : 4)) : 0;
    case NST_TUNNEL_MPLS:
        do {
            label = load32(head);
            head += 4;
        } while ((label & LAST) == 0);
        return label >> 12;
    default:
        return 0;
    }
}

unsigned nst_packet_tunnels(const struct nst_packet *p, struct nst_tunnel_layer out[NST_TUNNEL_DEPTH])
{
    unsigned n = p->flags & PACKET_TUNNEL ? p->n_around : 0;

    for (unsigned i = 0; i < n; i++) {
        const struct packet_layer *l = &p->around[i];
        out[i] = (struct nst_tunnel_layer){ .kind = (enum nst_tunnel)l->kind,
                                            .family = l->family,
                                            .l3 = l->l3,
                                            .head = l->head,
                                            .id = id_of(rte_pktmbuf_mtod(mbuf_of(p), const uint8_t *), l) };
    }
    return n;
}
