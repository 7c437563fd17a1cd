/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/parse.h"
#include <netinet/in.h>
#include <string.h>

enum {
    ETHER_HEADER = 14,
    VLAN_TAG = 4,
    VLAN_TAGS_MAX = 2,
    TYPE_IPV4 = 0x0800,
    TYPE_IPV6 = 0x86dd,
    TYPE_VLAN = 0x8100,
    TYPE_QINQ = 0x88a8,
    IPV4_HEADER = 20,
    IPV6_HEADER = 40,
    TCP_HEADER = 20,
    UDP_HEADER = 8,
    EXTENSIONS_MAX = 8, /* RFC 8504 lets a node limit them to this */
};

static inline uint16_t be16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return __builtin_bswap16(v);
}

/* The transport header at `at`, of which the IP length says that it and its payload end at `end`; `have` bytes are
 * really there in one piece. */
static inline enum parsed parse_transport(const uint8_t *d, uint32_t at, uint32_t end, uint32_t have,
                                          struct nst_headers *h)
{
    uint32_t header;

    h->l4 = (uint16_t)at;
    if (h->proto == IPPROTO_TCP) {
        if (at + TCP_HEADER > end || at + TCP_HEADER > have)
            return parsed_fault(NST_FAULT_TCP_HEADER);
        header = (uint32_t)(d[at + 12] >> 4) * 4;
        if (header < TCP_HEADER || at + header > end || at + header > have)
            return parsed_fault(NST_FAULT_TCP_OFFSET);
        h->tcp_flags = d[at + 13];
    } else {
        if (at + UDP_HEADER > end || at + UDP_HEADER > have)
            return parsed_fault(NST_FAULT_UDP_HEADER);
        header = be16(d + at + 4);
        if (header < UDP_HEADER || at + header > end)
            return parsed_fault(NST_FAULT_UDP_LENGTH);
        end = at + header;
        header = UDP_HEADER;
    }
    h->payload = (uint16_t)(at + header);
    h->payload_len = (uint16_t)(end - at - header);
    return PARSED_FLOW;
}

/* The options of an IPv4 header (RFC 791): one that is longer than what is left has the packet dropped by any host. */
static bool options_lie(const uint8_t *option, const uint8_t *end)
{
    enum { END = 0, NOTHING = 1 };

    while (option < end && *option != END) {
        uint32_t len = *option == NOTHING ? 1 : end - option > 1 ? option[1] : 0;
        if (len == 0 || (*option != NOTHING && len < 2) || len > (size_t)(end - option))
            return true;
        option += len;
    }
    return false;
}

static bool is_extension(uint8_t proto)
{
    return proto == IPPROTO_HOPOPTS || proto == IPPROTO_ROUTING || proto == IPPROTO_DSTOPTS || proto == IPPROTO_AH ||
           proto == IPPROTO_FRAGMENT;
}

/* Steps over the extension headers (RFC 8200). Returns the offset of what follows them, 0 when they are cut short or
 * too many; *fragment when one says so. */
static uint32_t skip_extensions(const uint8_t *d, uint32_t at, uint32_t end, uint8_t *next, bool *fragment)
{
    for (unsigned n = 0;; n++) {
        switch (*next) {
        case IPPROTO_HOPOPTS:
        case IPPROTO_ROUTING:
        case IPPROTO_DSTOPTS:
        case IPPROTO_AH: {
            if (n == EXTENSIONS_MAX || at + 8 > end)
                return 0;
            uint32_t len = *next == IPPROTO_AH ? (d[at + 1] + 2u) * 4 : (d[at + 1] + 1u) * 8;
            *next = d[at];
            at += len;
            if (at > end)
                return 0;
            break;
        }
        case IPPROTO_FRAGMENT:
            if (n == EXTENSIONS_MAX || at + 8 > end)
                return 0;
            /* An atomic fragment (RFC 6946) is whole: offset and M are zero. */
            if ((be16(d + at + 2) & 0xfff9) != 0)
                *fragment = true;
            *next = d[at];
            at += 8;
            if (*fragment)
                return at;
            break;
        default:
            return at;
        }
    }
}

static enum parsed parse_ipv4(const uint8_t *d, uint32_t at, uint32_t have, uint32_t frame, uint16_t vlan,
                              struct nst_headers *h, struct flow_key *key, bool *from_b)
{
    const uint8_t *ip = d + at;

    if (at + IPV4_HEADER > have)
        return parsed_fault(NST_FAULT_IP_HEADER);
    h->family = 4;
    h->proto = ip[9];
    uint32_t header = (ip[0] & 15u) * 4, total = be16(ip + 2);
    if (ip[0] >> 4 != 4)
        return parsed_fault(NST_FAULT_IP_VERSION);
    if (header < IPV4_HEADER || at + header > have)
        return parsed_fault(NST_FAULT_IP_HEADER);
    if (total < header || at + total > frame)
        return parsed_fault(NST_FAULT_IP_LENGTH);
    if (header > IPV4_HEADER && options_lie(ip + IPV4_HEADER, ip + header))
        return parsed_fault(NST_FAULT_IP_OPTION);
    if ((be16(ip + 6) & 0x3fff) != 0) { /* more fragments, or an offset */
        h->payload = (uint16_t)(at + header);
        h->payload_len = (uint16_t)(total - header);
        key->w[0] = key_head(0, vlan, h->proto, 4);
        return PARSED_FRAGMENT;
    }
    if (h->proto != IPPROTO_TCP && h->proto != IPPROTO_UDP) {
        h->payload = (uint16_t)(at + header);
        h->payload_len = (uint16_t)(total - header);
        key->w[0] = key_head(0, vlan, h->proto, 4);
        return PARSED_OTHER_PROTO;
    }
    enum parsed is = parse_transport(d, at + header, at + total, have, h);
    if (is != PARSED_FLOW)
        return is;

    uint64_t addresses;
    uint32_t ports;
    memcpy(&addresses, ip + 12, sizeof addresses);
    memcpy(&ports, d + h->l4, sizeof ports);
    *from_b = key_turn4(&addresses, &ports);
    key->w[1] = addresses;
    key->w[0] = key_head(ports, vlan, h->proto, 4);
    return PARSED_FLOW;
}

static bool may_omit_checksum(uint16_t port)
{
    enum { GTP_U = 2152, VXLAN = 4789, VXLAN_GPE = 4790, GENEVE = 6081, MPLS = 6635 };
    return port == GTP_U || port == VXLAN || port == VXLAN_GPE || port == GENEVE || port == MPLS;
}

/* The addresses of a key, and the ports in their order. */
static bool key_of_ipv6(const uint8_t *ip, uint32_t *ports, struct flow_key *key)
{
    uint64_t src[2], dst[2];

    memcpy(src, ip + 8, sizeof src);
    memcpy(dst, ip + 24, sizeof dst);
    bool swap = key_turn6(src, dst, ports);
    memcpy(&key->w[1], swap ? dst : src, 16);
    memcpy(&key->w[3], swap ? src : dst, 16);
    return swap;
}

static enum parsed parse_ipv6(const uint8_t *d, uint32_t at, uint32_t have, uint32_t frame, uint16_t vlan,
                              struct nst_headers *h, struct flow_key *key, bool *from_b)
{
    const uint8_t *ip = d + at;
    bool fragment = false;

    if (at + IPV6_HEADER > have)
        return parsed_fault(NST_FAULT_IP_HEADER);
    h->family = 6;
    h->proto = ip[6];
    uint32_t end = at + IPV6_HEADER + be16(ip + 4);
    if (ip[0] >> 4 != 6)
        return parsed_fault(NST_FAULT_IP_VERSION);
    if (end > frame)
        return parsed_fault(NST_FAULT_IP_LENGTH);
    uint32_t l4 = skip_extensions(d, at + IPV6_HEADER, end < have ? end : have, &h->proto, &fragment);
    /* Where the extension headers do not end, TCP or UDP may be hidden behind them: their protocol is not known, and
     * the number of an extension header must not pass for one that nobody asked for. */
    if (l4 == 0 || (fragment && is_extension(h->proto)))
        h->proto = 0;
    if (l4 == 0)
        return parsed_fault(NST_FAULT_EXTENSION);
    if (fragment) {
        h->payload = (uint16_t)l4;
        h->payload_len = (uint16_t)(end - l4);
        key->w[0] = key_head(0, vlan, h->proto, 6);
        return PARSED_FRAGMENT;
    }
    if (h->proto != IPPROTO_TCP && h->proto != IPPROTO_UDP) {
        h->payload = (uint16_t)l4;
        h->payload_len = (uint16_t)(end - l4);
        key->w[0] = key_head(0, vlan, h->proto, 6);
        return PARSED_OTHER_PROTO;
    }
    enum parsed is = parse_transport(d, l4, end, have, h);
    if (is != PARSED_FLOW)
        return is;
    /* Over IPv6 a datagram has a checksum (RFC 8200, 8.1), but for tunnels (RFC 6935). */
    if (h->proto == IPPROTO_UDP && be16(d + l4 + 6) == 0 && !may_omit_checksum(be16(d + l4 + 2)))
        return parsed_fault(NST_FAULT_UDP_CHECKSUM);

    uint32_t ports;
    memcpy(&ports, d + h->l4, sizeof ports);
    *from_b = key_of_ipv6(ip, &ports, key);
    key->w[0] = key_head(ports, vlan, h->proto, 6);
    return PARSED_FLOW;
}

/* What stands in place of the ports where there are none, as it would lie in the packet: the sender's first. */
static uint32_t other_ports(const uint8_t *payload, uint32_t len, uint8_t proto, uint8_t family)
{
    enum { REPLY = 0, REQUEST = 8, V6_REQUEST = 128, V6_REPLY, HEADER = 8 };
    uint16_t id;

    if (len < HEADER || proto != (family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
        return 0;
    uint8_t type = payload[0];
    if (family == 4 ? type == REQUEST || type == REPLY : type == V6_REQUEST || type == V6_REPLY) {
        memcpy(&id, payload + 4, sizeof id);
        return (uint32_t)id << 16 | id;
    }
    return (uint32_t)__builtin_bswap16(type) | (uint32_t)__builtin_bswap16((uint16_t)~type) << 16;
}

void parse_other(const struct rte_mbuf *m, const struct nst_headers *h, struct flow_key *key, bool *from_b)
{
    const uint8_t *d = rte_pktmbuf_mtod(m, const uint8_t *), *ip = d + h->l3;
    uint32_t have = rte_pktmbuf_data_len(m), there = have > h->payload ? have - h->payload : 0;
    uint32_t ports = other_ports(d + h->payload, there < h->payload_len ? there : h->payload_len, h->proto, h->family);
    uint64_t addresses;

    if (h->family == 4) {
        memcpy(&addresses, ip + 12, sizeof addresses);
        *from_b = key_turn4(&addresses, &ports);
        key->w[1] = addresses;
    } else {
        *from_b = key_of_ipv6(ip, &ports, key);
    }
    key->w[0] = key_head(ports, key_vlan(key), h->proto, h->family);
}

uint32_t parse_quoted(const uint8_t *d, uint32_t at, uint32_t have, uint8_t family, uint16_t vlan, struct flow_key *key,
                      bool *from_b)
{
    enum { ENOUGH = 8 };
    const uint8_t *ip = d + at;
    bool fragment = false;
    uint8_t proto;
    uint32_t l4, ports;

    if (at + (family == 4 ? IPV4_HEADER : IPV6_HEADER) > have || ip[0] >> 4 != family)
        return 0;
    if (family == 4) {
        proto = ip[9];
        l4 = at + (ip[0] & 15u) * 4;
        if (l4 < at + IPV4_HEADER || (be16(ip + 6) & 0x1fff) != 0)
            return 0;
    } else {
        proto = ip[6];
        l4 = skip_extensions(d, at + IPV6_HEADER, have, &proto, &fragment);
        if (l4 == 0 || (fragment && (be16(d + l4 - 6) & 0xfff8) != 0))
            return 0;
    }
    if (l4 + ENOUGH > have)
        return 0;
    if (proto == IPPROTO_TCP || proto == IPPROTO_UDP)
        memcpy(&ports, d + l4, sizeof ports);
    else
        ports = other_ports(d + l4, ENOUGH, proto, family);
    if (family == 4) {
        uint64_t addresses;
        memcpy(&addresses, ip + 12, sizeof addresses);
        *from_b = key_turn4(&addresses, &ports);
        key->w[1] = addresses;
    } else {
        *from_b = key_of_ipv6(ip, &ports, key);
    }
    key->w[0] = key_head(ports, vlan, proto, family);
    return l4;
}

enum parsed parse_at(const uint8_t *d, uint32_t at, uint32_t end, uint32_t have, uint16_t type, struct nst_headers *h,
                     struct flow_key *key, bool *from_b, uint16_t *vlan)
{
    *h = (struct nst_headers){ 0 };
    *vlan = 0;
    if (have > end)
        have = end;
    if (type == 0) {
        if (at + ETHER_HEADER > have)
            return parsed_fault(NST_FAULT_ETHER);
        type = be16(d + at + 12);
        at += ETHER_HEADER;
        while ((type == TYPE_VLAN || type == TYPE_QINQ) && h->vlan_tags < VLAN_TAGS_MAX) {
            if (at + VLAN_TAG > have)
                return parsed_fault(NST_FAULT_ETHER);
            *vlan = be16(d + at) & 0xfff;
            type = be16(d + at + 2);
            at += VLAN_TAG;
            h->vlan_tags++;
        }
    }
    h->l3 = (uint16_t)at;
    /* Some receivers take off any number of tags (Linux those of VLAN 0), so IP may be hidden behind them. */
    if (type == TYPE_VLAN || type == TYPE_QINQ)
        return parsed_fault(NST_FAULT_TAGS);
    if (type == TYPE_IPV4)
        return parse_ipv4(d, at, have, end, *vlan, h, key, from_b);
    if (type == TYPE_IPV6)
        return parse_ipv6(d, at, have, end, *vlan, h, key, from_b);
    return PARSED_NOT_IP;
}

enum parsed parse_any(struct rte_mbuf *m, struct nst_headers *h, struct flow_key *key, bool *from_b)
{
    uint32_t frame = rte_pktmbuf_pkt_len(m);
    uint16_t vlan;

    /* Offsets are kept in 16 bits; no link carries an IP packet that would end beyond. */
    return parse_at(rte_pktmbuf_mtod(m, const uint8_t *), 0, frame < UINT16_MAX ? frame : UINT16_MAX,
                    rte_pktmbuf_data_len(m), 0, h, key, from_b, &vlan);
}
