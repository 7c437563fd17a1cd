/* SPDX-License-Identifier: Apache-2.0 */
/* Resets to both ends of a connection (RFC 9293, 3.10.7), made from one of its packets. */
#include "flow/edit.h"
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <string.h>

/* A reset with the packet's addresses, or with them turned around. seq and ack are in host order. */
static struct rte_mbuf *make_reset(const struct nst_packet *p, bool turned, uint32_t seq, uint32_t ack)
{
    const struct rte_mbuf *from = mbuf_of(p);
    const uint8_t *frame = rte_pktmbuf_mtod(from, const uint8_t *);
    const struct rte_tcp_hdr *tcp = (const void *)(frame + p->h.l4);
    uint16_t l3 = p->h.l3, ip_len = p->h.family == 4 ? sizeof(struct rte_ipv4_hdr) : sizeof(struct rte_ipv6_hdr);
    struct rte_mbuf *m = rte_pktmbuf_alloc(from->pool);

    if (m == NULL)
        return NULL;
    uint8_t *d = (uint8_t *)rte_pktmbuf_append(m, (uint16_t)(l3 + ip_len + sizeof(struct rte_tcp_hdr)));
    if (d == NULL) {
        rte_pktmbuf_free(m);
        return NULL;
    }
    memcpy(d, frame, l3);
    if (turned) {
        memcpy(d, frame + RTE_ETHER_ADDR_LEN, RTE_ETHER_ADDR_LEN);
        memcpy(d + RTE_ETHER_ADDR_LEN, frame, RTE_ETHER_ADDR_LEN);
    }

    struct rte_tcp_hdr *t = (void *)(d + l3 + ip_len);
    *t = (struct rte_tcp_hdr){
        .src_port = turned ? tcp->dst_port : tcp->src_port,
        .dst_port = turned ? tcp->src_port : tcp->dst_port,
        .sent_seq = rte_cpu_to_be_32(seq),
        .recv_ack = rte_cpu_to_be_32(ack),
        .data_off = (sizeof *t / 4) << 4,
        .tcp_flags = RTE_TCP_RST_FLAG | RTE_TCP_ACK_FLAG,
    };
    if (p->h.family == 4) {
        const struct rte_ipv4_hdr *was = (const void *)(frame + l3);
        struct rte_ipv4_hdr *ip = (void *)(d + l3);
        *ip = (struct rte_ipv4_hdr){
            .version_ihl = RTE_IPV4_VHL_DEF,
            .type_of_service = was->type_of_service,
            .total_length = rte_cpu_to_be_16(sizeof *ip + sizeof *t),
            .fragment_offset = rte_cpu_to_be_16(RTE_IPV4_HDR_DF_FLAG),
            .time_to_live = 64,
            .next_proto_id = IPPROTO_TCP,
            .src_addr = turned ? was->dst_addr : was->src_addr,
            .dst_addr = turned ? was->src_addr : was->dst_addr,
        };
        ip->hdr_checksum = rte_ipv4_cksum(ip);
        t->cksum = rte_ipv4_udptcp_cksum(ip, t);
    } else {
        const struct rte_ipv6_hdr *was = (const void *)(frame + l3);
        struct rte_ipv6_hdr *ip = (void *)(d + l3);
        *ip = (struct rte_ipv6_hdr){
            .vtc_flow = was->vtc_flow,
            .payload_len = rte_cpu_to_be_16(sizeof *t),
            .proto = IPPROTO_TCP,
            .hop_limits = 64,
        };
        memcpy(ip->src_addr, turned ? was->dst_addr : was->src_addr, sizeof ip->src_addr);
        memcpy(ip->dst_addr, turned ? was->src_addr : was->dst_addr, sizeof ip->dst_addr);
        t->cksum = rte_ipv6_udptcp_cksum(ip, t);
    }
    return m;
}

static void inject(struct nst_engine *e, struct nst_port *to, const struct nst_packet *p, struct rte_mbuf *m)
{
    if (m == NULL) {
        e->stats.policy[NST_BY_NO_MEMORY]++;
        return;
    }
    struct nst_packet *k = packet_of(m);
    memset(k, 0, sizeof *k);
    k->time = p->time;
    k->port = p->port;
    port_tx(to, m);
    e->stats.injected++;
}

/* An end takes a reset with the very number that it expects next (RFC 5961): its inspector knows that better than the
 * packet at hand, which may be behind or ahead of it. */
static uint32_t expected(const struct nst_flow *f, enum nst_side side, uint32_t otherwise)
{
    uint32_t seq = nst_tcp_seq(f, side);
    return edit_number(f, side, seq != 0 ? seq : otherwise);
}

void reset_both(struct nst_engine *e, struct nst_flow *f, struct nst_packet *p)
{
    if (p == NULL || p->h.proto != IPPROTO_TCP || (p->h.tcp_flags & RTE_TCP_RST_FLAG))
        return;
    const struct rte_tcp_hdr *h = rte_pktmbuf_mtod_offset(mbuf_of(p), const struct rte_tcp_hdr *, p->h.l4);
    uint32_t seq = rte_be_to_cpu_32(h->sent_seq), ack = rte_be_to_cpu_32(h->recv_ack);
    uint32_t end =
        seq + p->h.payload_len + ((h->tcp_flags & RTE_TCP_SYN_FLAG) != 0) + ((h->tcp_flags & RTE_TCP_FIN_FLAG) != 0);
    enum nst_side receiver = p->dir == 0 ? NST_SERVER : NST_CLIENT;

    inject(e, e->peer[p->port], p, make_reset(p, false, expected(f, receiver, seq), ack));
    inject(e, e->ports[p->port], p, make_reset(p, true, expected(f, !receiver, ack), end));
}
