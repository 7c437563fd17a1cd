/* SPDX-License-Identifier: Apache-2.0 */
/* What a packet says in the NAT's terms, and its translation. */
#include "nat.h"
#include <netinet/in.h>
#include <netstar/edit.h>
#include <string.h>

enum {
    IP_HEADER = 20,
    AT_IP_SUM = 10,
    AT_SOURCE = 12,
    AT_DESTINATION = 16,
    ICMP_HEADER = 8,
    AT_ICMP_SUM = 2,
    AT_ICMP_ID = 4,
    ECHO_REPLY = 0,
    UNREACHABLE = 3,
    QUENCH = 4,
    ECHO = 8,
    EXCEEDED = 11,
    PROBLEM = 12,
    QUOTED_MAX = 60 + 20, /* of what is quoted, all that may have to be changed */
};

static bool is_inside(const struct nat *nat, const uint8_t *addr)
{
    return nf_addresses_have(nat->inside_net, 4, addr);
}

static bool is_public(const struct nat *nat, const uint8_t *addr)
{
    for (unsigned i = 0; i < nat->n_public; i++) {
        if (memcmp(nat->public[i], addr, 4) == 0)
            return true;
    }
    return false;
}

static bool is_error(uint8_t type)
{
    return type == UNREACHABLE || type == QUENCH || type == EXCEEDED || type == PROBLEM;
}

/* The ends of an IPv4 packet at `at`, of which `have` bytes are there: false when it says too little, or is nothing that
 * has ports. */
static bool ends_of(const uint8_t *ip, size_t have, struct nat_end *src, struct nat_end *dst)
{
    size_t header = have >= IP_HEADER ? (ip[0] & 15u) * 4 : 0;

    if (header < IP_HEADER || have < header + 8)
        return false;
    const uint8_t *l4 = ip + header;
    src->proto = dst->proto = ip[9];
    memcpy(src->addr, ip + AT_SOURCE, 4);
    memcpy(dst->addr, ip + AT_DESTINATION, 4);
    if (ip[9] == IPPROTO_TCP || ip[9] == IPPROTO_UDP) {
        memcpy(src->port, l4, 2);
        memcpy(dst->port, l4 + 2, 2);
        return true;
    }
    if (ip[9] != IPPROTO_ICMP || (l4[0] != ECHO && l4[0] != ECHO_REPLY))
        return false;
    memcpy(src->port, l4 + AT_ICMP_ID, 2);
    memcpy(dst->port, l4 + AT_ICMP_ID, 2);
    return true;
}

/* What an ICMP error quotes. */
static bool look_at_quoted(const struct nst_packet *p, const struct nst_headers *h, struct nat_packet *x)
{
    size_t at = h->payload + (size_t)ICMP_HEADER, end = (size_t)h->payload + h->payload_len;

    if (end > nst_packet_len(p) || end < at + IP_HEADER)
        return false;
    const uint8_t *ip = nst_packet_bytes(p, at, end - at);
    if (ip == NULL || ip[0] >> 4 != 4 || ((ip[6] & 0x1f) | ip[7]) != 0 ||
        !ends_of(ip, end - at, &x->quoted_src, &x->quoted_dst))
        return false;
    x->quoted_at = (uint16_t)at;
    x->quoted_len = (uint16_t)(end - at < QUOTED_MAX ? end - at : QUOTED_MAX);
    return true;
}

static enum nat_way way_of_icmp(const struct nst_packet *p, const struct nst_headers *h, struct nat_packet *x)
{
    const uint8_t *icmp = h->payload_len >= ICMP_HEADER ? nst_packet_bytes(p, h->payload, ICMP_HEADER) : NULL;

    if (icmp == NULL)
        return NAT_NO_MAP;
    if (is_error(icmp[0]))
        return look_at_quoted(p, h, x) ? NAT_ERROR : NAT_NO_MAP;
    memcpy(x->src.port, icmp + AT_ICMP_ID, 2);
    memcpy(x->dst.port, icmp + AT_ICMP_ID, 2);
    if (x->src_inside && !x->dst_public && icmp[0] == ECHO)
        return NAT_OUT;
    if (!x->src_inside && x->dst_public && icmp[0] == ECHO_REPLY)
        return NAT_IN;
    return NAT_NO_MAP;
}

void nat_look(const struct nat *nat, const struct nst_packet *p, struct nat_packet *x)
{
    const struct nst_headers *h = nst_packet_headers(p);
    const uint8_t *ip = h->family == 4 ? nst_packet_bytes(p, h->l3, IP_HEADER) : NULL;

    *x = (struct nat_packet){ .way = NAT_OTHER };
    if (ip == NULL)
        return;
    x->src.proto = x->dst.proto = h->proto;
    memcpy(x->src.addr, ip + AT_SOURCE, 4);
    memcpy(x->dst.addr, ip + AT_DESTINATION, 4);
    x->src_inside = is_inside(nat, x->src.addr);
    x->dst_public = is_public(nat, x->dst.addr);
    if (x->src_inside && nst_packet_port(p) % 2 == 1) {
        x->way = NAT_SPOOFED;
    } else if (!x->src_inside && !x->dst_public) {
        x->way = NAT_OTHER;
    } else if (h->proto == IPPROTO_ICMP) {
        x->way = way_of_icmp(p, h, x);
    } else if (h->proto == IPPROTO_TCP || h->proto == IPPROTO_UDP) {
        const uint8_t *ports = nst_packet_bytes(p, h->l4, 4);
        memcpy(x->src.port, ports, 2);
        memcpy(x->dst.port, ports + 2, 2);
        x->way = !x->src_inside ? NAT_IN : x->dst_public ? NAT_HAIRPIN : NAT_OUT;
    } else {
        x->way = NAT_NO_MAP;
    }
}

/* ---- translating ---- */
static uint16_t port_of(const struct nat_end *e)
{
    return (uint16_t)(e->port[0] << 8 | e->port[1]);
}

static void set_end(struct nst_packet *p, const struct nat_packet *x, enum nst_packet_end end, const struct nat_end *to)
{
    (void)nst_packet_set_address(p, end, 4, to->addr);
    if (x->way == NAT_ERROR)
        return;
    if (to->proto == IPPROTO_ICMP)
        (void)nst_packet_edit(p, nst_packet_headers(p)->payload + (size_t)AT_ICMP_ID, to->port, 2);
    else
        (void)nst_packet_set_port(p, end, port_of(to));
}

void nat_set_source(struct nst_packet *p, const struct nat_packet *x, const struct nat_end *to)
{
    set_end(p, x, NST_SOURCE, to);
}

void nat_set_destination(struct nst_packet *p, const struct nat_packet *x, const struct nat_end *to)
{
    set_end(p, x, NST_DESTINATION, to);
}

/* RFC 1624, equation 3, for two words at most. */
static void mend(uint8_t *sum, const uint8_t *was, const uint8_t *is, size_t len)
{
    uint32_t s = (uint16_t) ~(sum[0] << 8 | sum[1]);

    for (size_t i = 0; i < len; i += 2)
        s += (uint16_t) ~(was[i] << 8 | was[i + 1]) + (uint32_t)(is[i] << 8 | is[i + 1]);
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    s = ~s;
    sum[0] = (uint8_t)(s >> 8);
    sum[1] = (uint8_t)s;
}

/* The checksum of the quoted transport header, where that much is quoted and it has one. */
static uint8_t *transport_sum(uint8_t *l4, size_t len, uint8_t proto)
{
    size_t at = proto == IPPROTO_TCP ? 16 : proto == IPPROTO_UDP ? 6 : AT_ICMP_SUM;

    if (len < at + 2 || (proto == IPPROTO_UDP && (l4[at] | l4[at + 1]) == 0))
        return NULL;
    return l4 + at;
}

static void set_quoted_end(uint8_t *ip, size_t len, bool source, const struct nat_end *to)
{
    size_t header = (ip[0] & 15u) * 4;
    uint8_t *l4 = ip + header, *sum = transport_sum(l4, len - header, ip[9]);
    uint8_t *addr = ip + (source ? AT_SOURCE : AT_DESTINATION);
    uint8_t *port = ip[9] == IPPROTO_ICMP ? l4 + AT_ICMP_ID : l4 + (source ? 0 : 2);

    mend(ip + AT_IP_SUM, addr, to->addr, 4);
    if (sum != NULL && ip[9] != IPPROTO_ICMP)
        mend(sum, addr, to->addr, 4);
    if (sum != NULL)
        mend(sum, port, to->port, 2);
    memcpy(addr, to->addr, 4);
    memcpy(port, to->port, 2);
}

void nat_set_quoted(struct nst_packet *p, const struct nat_packet *x, const struct nat_end *src,
                    const struct nat_end *dst)
{
    uint8_t ip[QUOTED_MAX];

    memcpy(ip, nst_packet_bytes(p, x->quoted_at, x->quoted_len), x->quoted_len);
    if (src != NULL)
        set_quoted_end(ip, x->quoted_len, true, src);
    if (dst != NULL)
        set_quoted_end(ip, x->quoted_len, false, dst);
    (void)nst_packet_edit(p, x->quoted_at, ip, x->quoted_len); /* and mends the checksum of the error itself */
}
