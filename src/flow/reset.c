/* SPDX-License-Identifier: Apache-2.0 */
/* Resets to both ends of a connection (RFC 9293, 3.10.7), made from one of its packets; and the answers to a packet that
 * is refused.
 */
#include "flow/edit.h"
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <string.h>

/* The Ethernet frame that a tunnel carries, or NULL. */
static uint8_t *ethernet_in(uint8_t *d, const struct packet_layer *l)
{
    enum { VXLAN_HEADER = 8, SUM = 0x80, KEY = 0x20, SEQUENCE = 0x10 };
    uint8_t *head = d + l->head;

    if (l->kind == NST_TUNNEL_VXLAN)
        return head + VXLAN_HEADER;
    if (l->kind != NST_TUNNEL_GRE || head[2] != 0x65 || head[3] != 0x58)
        return NULL;
    return head + 4 + (head[0] & SUM ? 4 : 0) + (head[0] & KEY ? 4 : 0) + (head[0] & SEQUENCE ? 4 : 0);
}

/* Whether the other direction's tunnels can be told from this one's: not where it has labels, or an id, of its own. */
static bool tunnels_turn(const struct nst_packet *p)
{
    for (unsigned i = 0; (p->flags & PACKET_TUNNEL) && i < p->n_around; i++) {
        if (p->around[i].kind == NST_TUNNEL_MPLS || p->around[i].kind == NST_TUNNEL_GTPU)
            return false;
    }
    return true;
}

static void turn_tunnels(const struct nst_packet *p, uint8_t *d)
{
    for (unsigned i = 0; i < p->n_around; i++) {
        const struct packet_layer *l = &p->around[i];
        uint32_t len = l->family == 4 ? 4 : 16;
        uint8_t *at = d + l->l3 + (l->family == 4 ? 12 : 8), was[16];

        memcpy(was, at, len);
        memcpy(at, at + len, len);
        memcpy(at + len, was, len);
        uint8_t *ether = ethernet_in(d, l);
        if (ether != NULL) {
            memcpy(was, ether, RTE_ETHER_ADDR_LEN);
            memcpy(ether, ether + RTE_ETHER_ADDR_LEN, RTE_ETHER_ADDR_LEN);
            memcpy(ether + RTE_ETHER_ADDR_LEN, was, RTE_ETHER_ADDR_LEN);
        }
    }
}

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
    if (turned && (p->flags & PACKET_TUNNEL))
        turn_tunnels(p, d);

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
    if (p->flags & PACKET_TUNNEL)
        packet_fit(d, p->around, p->n_around, rte_pktmbuf_data_len(m));
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
    if (tunnels_turn(p))
        inject(e, e->ports[p->port], p, make_reset(p, true, expected(f, !receiver, ack), end));
}

/* ---- refusals ---- */
enum { PER_SECOND = 1000, BURST = 1000 };

static bool may_answer(struct nst_engine *e)
{
    nst_time now = nst_now(), since = now - e->refused_at;

    if (since > 0) {
        nst_time more = since >= NST_SEC(1) ? BURST : since * PER_SECOND / NST_SEC(1);
        if (more > 0) {
            e->refusals_left = e->refusals_left + more > BURST ? BURST : (uint32_t)(e->refusals_left + more);
            e->refused_at = now;
        }
    }
    if (e->refusals_left == 0)
        return false;
    e->refusals_left--;
    return true;
}

/* What is sent by everybody, or by nobody in particular, or to many, gets no answer (RFC 1122, 3.2.2; RFC 4443, 2.4). */
static bool has_answerable_ends(const struct nst_packet *p, const uint8_t *frame)
{
    const uint8_t *ip = frame + p->h.l3, *src = ip + (p->h.family == 4 ? 12 : 8);
    const uint8_t *dst = ip + (p->h.family == 4 ? 16 : 24);
    static const uint8_t none[16];

    if (frame[0] & 1) /* a frame to many */
        return false;
    if (p->h.family == 4)
        return src[0] != 0 && src[0] < 224 && dst[0] < 224;
    return src[0] != 0xff && dst[0] != 0xff && memcmp(src, none, sizeof none) != 0;
}

static uint16_t sum_of(const uint8_t *bytes, size_t len, const struct rte_ipv6_hdr *ip6)
{
    uint32_t sum = rte_raw_cksum(bytes, len);

    if (ip6 != NULL)
        sum += rte_ipv6_phdr_cksum(ip6, 0);
    sum = (sum & UINT16_MAX) + (sum >> 16);
    sum = (sum & UINT16_MAX) + (sum >> 16);
    return (uint16_t)~sum;
}

/* "Communication administratively prohibited", with as much of the packet as is allowed. */
static struct rte_mbuf *make_prohibited(const struct nst_packet *p)
{
    enum {
        ICMP = 8,
        MOST_4 = 576,
        MOST_6 = 1280,
        UNREACHABLE_4 = 3,
        PROHIBITED_4 = 13,
        UNREACHABLE_6 = 1,
        PROHIBITED_6 = 1
    };
    const struct rte_mbuf *from = mbuf_of(p);
    const uint8_t *frame = rte_pktmbuf_mtod(from, const uint8_t *);
    bool four = p->h.family == 4;
    uint16_t l3 = p->h.l3, ip_len = four ? sizeof(struct rte_ipv4_hdr) : sizeof(struct rte_ipv6_hdr);
    uint32_t end = (uint32_t)p->h.payload + p->h.payload_len, room = (four ? MOST_4 : MOST_6) - ip_len - ICMP;
    struct rte_mbuf *m;

    if (end > from->data_len)
        end = from->data_len;
    uint16_t quoted = (uint16_t)(end - l3 < room ? end - l3 : room);
    if ((m = rte_pktmbuf_alloc(from->pool)) == NULL)
        return NULL;
    uint8_t *d = (uint8_t *)rte_pktmbuf_append(m, (uint16_t)(l3 + ip_len + ICMP + quoted));
    if (d == NULL) {
        rte_pktmbuf_free(m);
        return NULL;
    }
    memcpy(d, frame + RTE_ETHER_ADDR_LEN, RTE_ETHER_ADDR_LEN);
    memcpy(d + RTE_ETHER_ADDR_LEN, frame, RTE_ETHER_ADDR_LEN);
    memcpy(d + 2 * RTE_ETHER_ADDR_LEN, frame + 2 * RTE_ETHER_ADDR_LEN, l3 - 2 * RTE_ETHER_ADDR_LEN);
    uint8_t *icmp = d + l3 + ip_len;
    uint16_t sum;
    memset(icmp, 0, ICMP);
    icmp[0] = four ? UNREACHABLE_4 : UNREACHABLE_6;
    icmp[1] = four ? PROHIBITED_4 : PROHIBITED_6;
    memcpy(icmp + ICMP, frame + l3, quoted);
    if (four) {
        const struct rte_ipv4_hdr *was = (const void *)(frame + l3);
        struct rte_ipv4_hdr *ip = (void *)(d + l3);
        *ip = (struct rte_ipv4_hdr){
            .version_ihl = RTE_IPV4_VHL_DEF,
            .total_length = rte_cpu_to_be_16((uint16_t)(ip_len + ICMP + quoted)),
            .time_to_live = 64,
            .next_proto_id = IPPROTO_ICMP,
            .src_addr = was->dst_addr,
            .dst_addr = was->src_addr,
        };
        ip->hdr_checksum = rte_ipv4_cksum(ip);
        sum = sum_of(icmp, ICMP + quoted, NULL);
    } else {
        const struct rte_ipv6_hdr *was = (const void *)(frame + l3);
        struct rte_ipv6_hdr *ip = (void *)(d + l3);
        *ip = (struct rte_ipv6_hdr){
            .vtc_flow = rte_cpu_to_be_32(6u << 28),
            .payload_len = rte_cpu_to_be_16((uint16_t)(ICMP + quoted)),
            .proto = IPPROTO_ICMPV6,
            .hop_limits = 64,
        };
        memcpy(ip->src_addr, was->dst_addr, sizeof ip->src_addr);
        memcpy(ip->dst_addr, was->src_addr, sizeof ip->dst_addr);
        sum = sum_of(icmp, ICMP + quoted, ip);
    }
    memcpy(icmp + 2, &sum, sizeof sum);
    if (p->flags & PACKET_TUNNEL) {
        turn_tunnels(p, d);
        packet_fit(d, p->around, p->n_around, rte_pktmbuf_data_len(m));
    }
    return m;
}

int nst_packet_refuse(const struct nst_event *ev)
{
    struct nst_packet *p = ev->packet;
    struct nst_icmp icmp;

    if (p == NULL || (p->flags & PACKET_TAKEN))
        return -EINVAL;
    struct nst_engine *e = p->flow->engine;
    const uint8_t *frame = rte_pktmbuf_mtod(mbuf_of(p), const uint8_t *);
    if ((p->h.proto == IPPROTO_TCP && (p->h.tcp_flags & RTE_TCP_RST_FLAG)) || nst_packet_icmp(p, &icmp) == 0 ||
        !has_answerable_ends(p, frame) || !tunnels_turn(p))
        return -EOPNOTSUPP;
    if (!may_answer(e))
        return -EAGAIN;
    struct rte_mbuf *m;
    if (p->h.proto == IPPROTO_TCP) {
        const struct rte_tcp_hdr *h = (const void *)(frame + p->h.l4);
        uint8_t flags = h->tcp_flags;
        uint32_t end = rte_be_to_cpu_32(h->sent_seq) + p->h.payload_len + ((flags & RTE_TCP_SYN_FLAG) != 0) +
                       ((flags & RTE_TCP_FIN_FLAG) != 0);
        m = make_reset(p, true, flags & RTE_TCP_ACK_FLAG ? rte_be_to_cpu_32(h->recv_ack) : 0, end);
    } else {
        m = make_prohibited(p);
    }
    if (m == NULL)
        return -ENOMEM;
    inject(e, e->ports[p->port], p, m);
    return 0;
}
