/* SPDX-License-Identifier: Apache-2.0 */
/* From a tunnel's packet to what it carries. Which network that is depends on what the two directions have in common:
 *
 * kind             of the network's name
 * IP in IP         the two outer addresses, in whichever order
 * GRE, VXLAN       likewise, and the key or VNI
 * GTP-U            the two outer addresses: each direction has a TEID of its own
 * MPLS             the two Ethernet addresses: each direction has labels of its own; over GRE what that has
 *
 * and on the VLAN that the tunnel itself is in, and that of an Ethernet frame inside.
 */
#include "flow/checksum.h"
#include "flow/engine.h"
#include <netinet/in.h>

enum {
    TYPE_IPV4 = 0x0800,
    TYPE_IPV6 = 0x86dd,
    TYPE_ETHER = 0x6558,
    TYPE_MPLS = 0x8847,
    TYPE_MPLS_MULTICAST = 0x8848,
    ETHER_HEADER = 14,
    UDP_HEADER = 8,
    PORT_VXLAN = 4789,
    PORT_GTPU = 2152,
    LABELS_MAX = 16,
    EXTENSIONS_MAX = 8,
    NO_ETHER = UINT16_MAX,
};

/* A packet on its way inwards. */
struct look {
    const uint8_t *d;
    uint32_t have;  /* bytes that are there */
    uint32_t at;    /* the next inner packet */
    uint32_t end;   /* what carries it says that it ends here, at the latest */
    uint16_t type;  /* of it: 0 is Ethernet */
    uint16_t ether; /* the last Ethernet header, or NO_ETHER */
    uint16_t vlan;
    uint32_t id; /* of the tunnel, as far as both directions have it */
    uint8_t name[NETWORK_NAME_MAX];
    uint32_t name_len;
};

enum found { FOUND_NONE, FOUND_INNER, FOUND_LIE };

static uint16_t be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)be16(p) << 16 | be16(p + 2);
}

static bool is_mpls(uint16_t type)
{
    return type == TYPE_MPLS || type == TYPE_MPLS_MULTICAST;
}

static uint16_t type_by_version(uint8_t first)
{
    return first >> 4 == 4 ? TYPE_IPV4 : first >> 4 == 6 ? TYPE_IPV6 : 0;
}

/* ---- what the headers say: where the inner packet is ---- */
static enum found find_mpls(struct look *k, uint32_t at)
{
    enum { LAST = 1 };
    uint32_t labels = 0;

    do {
        if (at + 4 > k->end || at + 4 > k->have || ++labels > LABELS_MAX)
            return FOUND_LIE;
        at += 4;
    } while ((k->d[at - 2] & LAST) == 0);
    if (at >= k->end || at >= k->have)
        return FOUND_LIE;
    k->id = 0;
    k->at = at;
    k->type = type_by_version(k->d[at]);
    return k->type != 0 ? FOUND_INNER : FOUND_NONE;
}

static enum found find_gre(struct look *k, uint32_t at, uint8_t kinds)
{
    enum { SUM = 0x8000, ROUTING = 0x4000, KEY = 0x2000, SEQUENCE = 0x1000, VERSION = 7 };

    if (at + 4 > k->end || at + 4 > k->have)
        return FOUND_LIE;
    uint16_t flags = be16(k->d + at), type = be16(k->d + at + 2);
    if (flags & VERSION) /* 1 is PPTP's */
        return FOUND_NONE;
    uint32_t size = 4 + (flags & SUM ? 4 : 0), key = size;
    size += (flags & KEY ? 4 : 0) + (flags & SEQUENCE ? 4 : 0);
    if ((flags & ROUTING) || at + size > k->end || at + size > k->have)
        return FOUND_LIE;
    if (type != TYPE_IPV4 && type != TYPE_IPV6 && type != TYPE_ETHER && !(is_mpls(type) && (kinds & NST_TUNNEL_MPLS)))
        return FOUND_NONE;
    k->id = flags & KEY ? be32(k->d + at + key) : 0;
    k->at = at + size;
    k->type = type == TYPE_ETHER ? 0 : type;
    return FOUND_INNER;
}

static enum found find_vxlan(struct look *k, uint32_t at)
{
    enum { HEADER = 8, HAS_VNI = 0x08 };

    if (at + HEADER > k->end || at + HEADER > k->have)
        return FOUND_LIE;
    if ((k->d[at] & HAS_VNI) == 0)
        return FOUND_NONE;
    k->id = be32(k->d + at + 4) >> 8;
    k->at = at + HEADER;
    k->type = 0;
    return FOUND_INNER;
}

static enum found find_gtpu(struct look *k, uint32_t at)
{
    enum { HEADER = 8, OPTIONAL = 4, VERSION_1 = 0x30, VERSION = 0xf0, EXTENDED = 4, ANY = 7, G_PDU = 255 };

    if (at + HEADER > k->end || at + HEADER > k->have)
        return FOUND_LIE;
    uint8_t flags = k->d[at];
    if ((flags & VERSION) != VERSION_1 || k->d[at + 1] != G_PDU)
        return FOUND_NONE;
    uint32_t end = at + HEADER + be16(k->d + at + 2);
    if (end > k->end)
        return FOUND_LIE;
    at += HEADER;
    if (flags & ANY) {
        at += OPTIONAL;
        if (at > end || at > k->have)
            return FOUND_LIE;
        uint8_t next = flags & EXTENDED ? k->d[at - 1] : 0;
        for (unsigned n = 0; next != 0; n++) {
            if (n == EXTENSIONS_MAX || at >= end || at >= k->have)
                return FOUND_LIE;
            uint32_t len = k->d[at] * 4u;
            at += len;
            if (len == 0 || at > end || at > k->have)
                return FOUND_LIE;
            next = k->d[at - 1];
        }
    }
    if (at >= end || at >= k->have)
        return FOUND_LIE;
    k->id = 0;
    k->at = at;
    k->end = end;
    k->type = type_by_version(k->d[at]);
    return k->type != 0 ? FOUND_INNER : FOUND_NONE;
}

static enum found find_in_udp(struct look *k, const struct nst_headers *h, uint8_t kinds, struct packet_layer *l)
{
    uint16_t port = be16(k->d + h->l4 + 2);

    if (port == PORT_VXLAN && (kinds & NST_TUNNEL_VXLAN)) {
        l->kind = NST_TUNNEL_VXLAN;
        return find_vxlan(k, h->payload);
    }
    if (port == PORT_GTPU && (kinds & NST_TUNNEL_GTPU)) {
        l->kind = NST_TUNNEL_GTPU;
        return find_gtpu(k, h->payload);
    }
    return FOUND_NONE;
}

/* What lies in the packet that was parsed last. */
static enum found find_inner(struct look *k, const struct nst_headers *h, enum parsed parsed, uint8_t kinds,
                             struct packet_layer *l)
{
    *l = (struct packet_layer){ .l3 = h->l3, .head = h->payload, .family = h->family };
    if (parsed == PARSED_NOT_IP) {
        if ((kinds & NST_TUNNEL_MPLS) == 0 || h->l3 == 0 || !is_mpls(k->type))
            return FOUND_NONE;
        l->kind = NST_TUNNEL_MPLS;
        l->head = h->l3;
        return find_mpls(k, h->l3);
    }
    if (parsed != PARSED_OTHER_PROTO && parsed != PARSED_FLOW)
        return FOUND_NONE;
    k->end = (uint32_t)h->payload + h->payload_len;
    switch (h->proto) {
    case IPPROTO_IPIP:
    case IPPROTO_IPV6:
        if ((kinds & NST_TUNNEL_IPIP) == 0)
            return FOUND_NONE;
        l->kind = NST_TUNNEL_IPIP;
        k->id = 0;
        k->at = h->payload;
        k->type = h->proto == IPPROTO_IPIP ? TYPE_IPV4 : TYPE_IPV6;
        return FOUND_INNER;
    case IPPROTO_GRE:
        if ((kinds & NST_TUNNEL_GRE) == 0)
            return FOUND_NONE;
        l->kind = NST_TUNNEL_GRE;
        return find_gre(k, h->payload, kinds);
    case IPPROTO_UDP:
        return h->l4 != 0 ? find_in_udp(k, h, kinds, l) : FOUND_NONE;
    default:
        return FOUND_NONE;
    }
}

/* ---- the network's name ---- */
static void put(struct look *k, const void *bytes, uint32_t len)
{
    memcpy(k->name + k->name_len, bytes, len);
    k->name_len += len;
}

static void put_pair(struct look *k, const uint8_t *a, const uint8_t *b, uint32_t len)
{
    bool turn = memcmp(a, b, len) > 0;

    put(k, turn ? b : a, len);
    put(k, turn ? a : b, len);
}

static void put_layer(struct look *k, const struct packet_layer *l)
{
    const uint8_t head[] = { l->kind,
                             l->family,
                             (uint8_t)(k->vlan >> 8),
                             (uint8_t)k->vlan,
                             (uint8_t)(k->id >> 24),
                             (uint8_t)(k->id >> 16),
                             (uint8_t)(k->id >> 8),
                             (uint8_t)k->id };

    put(k, head, sizeof head);
    if (l->family == 4)
        put_pair(k, k->d + l->l3 + 12, k->d + l->l3 + 16, 4);
    else if (l->family == 6)
        put_pair(k, k->d + l->l3 + 8, k->d + l->l3 + 24, 16);
    else if (k->ether != NO_ETHER)
        put_pair(k, k->d + k->ether, k->d + k->ether + 6, 6);
}
_Static_assert(NST_TUNNEL_DEPTH *(8 + 32) + 2 <= NETWORK_NAME_MAX, "the longest name has room");
_Static_assert(NETWORK_NAME_MAX + 39 <= NST_FLOW_KEY_MAX, "and is part of a flow's name");

/* ---- checksums ---- */
/* The end of the tunnel ignores what has a wrong one, so no flow may see what is inside. */
static bool outer_holds(const struct nst_engine *e, const struct rte_mbuf *m, const struct nst_headers *h,
                        const struct packet_layer *l, uint32_t end)
{
    enum { HAS_SUM = 0x80 };
    const uint8_t *d = rte_pktmbuf_mtod(m, const uint8_t *);

    if (l->family != 0 && !checksum_right(m, h, e->replay))
        return false;
    return l->kind != NST_TUNNEL_GRE || (d[l->head] & HAS_SUM) == 0 ||
           (end <= m->data_len && checksum_sum(d + l->head, end - l->head) == UINT16_MAX);
}

/* ---- looking into it ---- */
static enum parsed lie(struct nst_headers *h, enum nst_fault fault)
{
    h->proto = 0; /* whatever is inside: the policy's matter */
    return parsed_fault(fault);
}

enum parsed tunnel_parse(struct nst_engine *e, struct rte_mbuf *m, enum parsed parsed, struct flow_key *key,
                         bool *from_b, bool steering)
{
    struct nst_packet *p = packet_of(m);
    struct nst_headers *h = &p->h;
    struct look k = { .d = rte_pktmbuf_mtod(m, const uint8_t *), .have = m->data_len };
    uint32_t frame = m->pkt_len < UINT16_MAX ? m->pkt_len : UINT16_MAX;
    bool open = (p->flags & PACKET_CHECKSUM_OPEN) != 0;

    k.end = frame;
    k.have = k.have < frame ? k.have : frame;
    k.type = parsed == PARSED_NOT_IP && h->l3 >= ETHER_HEADER ? be16(k.d + h->l3 - 2) : 0;
    k.vlan = h->vlan_tags != 0 ? be16(k.d + h->l3 - 4) & 0xfff : 0;
    p->n_around = 0;
    p->flags &= (uint16_t)~PACKET_TUNNEL;
    for (unsigned n = 0;; n++) {
        struct packet_layer l;
        enum found found = find_inner(&k, h, parsed, e->tunnels, &l);
        if (found == FOUND_NONE)
            break;
        if (found == FOUND_LIE || n == NST_TUNNEL_DEPTH)
            return lie(h, n == NST_TUNNEL_DEPTH ? NST_FAULT_TUNNEL_DEPTH : NST_FAULT_TUNNEL);
        if (!steering && (e->checks & PACKET_CHECKSUM_OPEN) && (open || n > 0) &&
            !outer_holds(e, m, h, &l, (uint32_t)h->payload + h->payload_len)) {
            e->stats.faults[NST_FAULT_CHECKSUM_OUTER]++;
            h->proto = 0;
            return PARSED_CHECKSUM;
        }
        put_layer(&k, &l);
        p->around[n] = l;
        p->n_around = (uint8_t)(n + 1);
        p->flags |= PACKET_TUNNEL | PACKET_CHECKSUM_OPEN; /* no device has looked at what is inside */
        k.ether = k.type == 0 ? (uint16_t)k.at : NO_ETHER;
        parsed = parse_at(k.d, k.at, k.end, k.have, k.type, h, key, from_b, &k.vlan);
        if (parsed == PARSED_NOT_IP && k.type == 0)
            k.type = be16(k.d + h->l3 - 2);
    }
    if (p->n_around == 0 || (parsed != PARSED_FLOW && parsed != PARSED_FRAGMENT && parsed != PARSED_OTHER_PROTO))
        return parsed;
    uint16_t number = KEY_TUNNEL;
    if (!steering) {
        const uint8_t vlan[] = { (uint8_t)(k.vlan >> 8), (uint8_t)k.vlan };
        put(&k, vlan, sizeof vlan);
        number = networks_find(&e->networks, k.name, k.name_len, (uint32_t)((uint64_t)p->time >> TICK_SHIFT));
    }
    key_set_vlan(key, number);
    return number != NETWORK_NONE || parsed == PARSED_OTHER_PROTO ? parsed : PARSED_NO_ROOM;
}
