/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP errors (RFC 792, RFC 4443) are told to the end of the flow that they speak of, whose packet they quote. Anybody can
 * send one, so it has to quote what that end can have sent (RFC 5927).
 */
#include "flow/checksum.h"
#include "flow/tcp_end.h"
#include "flow/way.h"
#include <netinet/in.h>

enum { ICMP_HEADER = 8, PORTS_AND_SEQ = 8 };

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool is_error(uint8_t family, uint8_t type)
{
    enum { UNREACHABLE = 3, QUENCH, REDIRECT, EXCEEDED = 11, PROBLEM = 12, V6_UNREACHABLE = 1, V6_PROBLEM = 4 };

    if (family == 6)
        return type >= V6_UNREACHABLE && type <= V6_PROBLEM;
    return type == UNREACHABLE || type == QUENCH || type == REDIRECT || type == EXCEEDED || type == PROBLEM;
}

static bool is_icmp(const struct nst_headers *h)
{
    return h->proto == (h->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

int nst_packet_icmp(const struct nst_packet *p, struct nst_icmp *out)
{
    enum { TOO_BIG_4 = 3, NEEDS_FRAGMENTS = 4, TOO_BIG_6 = 2 };
    const uint8_t *m = nst_packet_bytes(p, p->h.payload, ICMP_HEADER);

    if (!is_icmp(&p->h) || p->h.payload_len < ICMP_HEADER || m == NULL || !is_error(p->h.family, m[0]))
        return -ENOENT;
    *out = (struct nst_icmp){ .type = m[0], .code = m[1] };
    if (p->h.family == 6 && m[0] == TOO_BIG_6)
        out->mtu = be32(m + 4);
    else if (p->h.family == 4 && m[0] == TOO_BIG_4 && m[1] == NEEDS_FRAGMENTS)
        out->mtu = (uint32_t)m[6] << 8 | m[7];
    return 0;
}

/* The other end mirrors what this one has sent: from what it has acknowledged to the last byte that it was sent. A SYN
 * and a FIN have a number, too. */
static bool can_have_sent(struct nst_flow *f, enum nst_side side, uint32_t seq)
{
    const struct tcp_end *t = flow_inspector(f, (enum nst_side) !side);

    if (f->engine->half[!side].inspect != &nst_tcp || (t->flags & TCP_SYNCED) == 0 ||
        (f->flags & ((1u << !side) | FLOW_EDITED)))
        return true; /* nobody knows; or the numbers quoted are those of an edited stream */
    uint32_t from = t->delivered == 0 ? t->base - 1 : t->acked, end = next_seq(t);
    if (t->kept.first != NULL && (int32_t)(t->kept.end - end) > 0)
        end = t->kept.end;
    return seq - from <= end - from;
}

/* True: it was a flow's, and has met its end or goes on. */
bool icmp_take(struct nst_engine *e, struct nst_packet *p)
{
    struct nst_headers *h = &p->h;
    struct flow_key key = { 0 }, own = { 0 };
    struct nst_icmp icmp;
    bool from_b = false;

    if (!is_icmp(h) || nst_packet_icmp(p, &icmp) < 0)
        return false;
    struct rte_mbuf *m = mbuf_of(p);
    if (engine_parse(e, m, &own, &from_b, false) != PARSED_OTHER_PROTO)
        return false;
    const uint8_t *d = rte_pktmbuf_mtod(m, const uint8_t *);
    uint32_t end = (uint32_t)h->payload + h->payload_len, have = end < m->data_len ? end : m->data_len;
    uint32_t quoted = h->payload + ICMP_HEADER;
    uint32_t l4 = parse_quoted(d, quoted, have, h->family, key_vlan(&own), &key, &from_b);
    if (l4 == 0 || (e->proto != 0 && key_proto(&key) != e->proto))
        return false;
    if (e->cores != NULL && cores_of_key(e->cores, &key) != e->core) {
        if (p->flags & PACKET_WHOLE) {
            whole_give(e, p, &key);
            return true;
        }
        e->stats.packets--; /* it counts where it arrives */
        e->stats.bytes -= m->pkt_len;
        return cores_give(e, m, &key);
    }
    struct nst_flow *f = flows_find(e, &key, key_hash(&key, &e->secret));
    if (f == NULL)
        return false;
    enum nst_side side = from_b == ((f->flags & FLOW_CLIENT_IS_B) != 0) ? NST_CLIENT : NST_SERVER;
    const struct event_set *set = &e->set[f->set];
    if (((set->wanted[side][NST_RECEIVED] | set->look[side][NST_RECEIVED]) & NST_EV_ICMP) == 0)
        return false;
    unsigned len = h->family == 4 ? 4 : 16, to = h->family == 4 ? 16 : 24, from = h->family == 4 ? 12 : 8;
    bool right = memcmp(d + h->l3 + to, d + quoted + from, len) == 0 &&
                 (key_proto(&key) != IPPROTO_TCP || can_have_sent(f, side, be32(d + l4 + 4)));
    enum nst_cause cause = NST_BY_ICMP;
    if ((p->flags & e->checks & PACKET_CHECKSUM_OPEN) && !checksum_icmp_right(m, h)) {
        right = false;
        cause = NST_BY_CHECKSUM;
    }
    e->stats.faults[NST_FAULT_CHECKSUM] += cause == NST_BY_CHECKSUM;
    if (!right) {
        enum nst_verdict v = policy_of(e, cause);
        if (v == NST_FORWARD || v == NST_FORWARD_FLOW)
            packet_forward(e, p);
        else
            packet_drop(e, p, cause);
        return true;
    }
    p->flow = f;
    p->flags |= PACKET_ICMP;
    p->dir = (uint8_t)(side == NST_CLIENT);
    p->stage = 1;
    e->stats.icmp++;
    flow_way(e, f, p, 1);
    return true;
}
