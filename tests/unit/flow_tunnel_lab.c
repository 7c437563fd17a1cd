/* SPDX-License-Identifier: Apache-2.0 */
#include "flow_tunnel_lab.h"
#include <netinet/in.h>
#include <rte_ip.h>
#include <rte_udp.h>

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

/* ---- building ---- */
static unsigned wrap_mpls(uint8_t *out, const struct lab_tunnel *t, unsigned dir, const uint8_t *ip, unsigned len)
{
    struct lab_path path = { .family = 4, .host = { 1, 2 }, .tags = t->tags, .vlan = { t->vlan } };
    unsigned at = lab_ip_header(out, &path, dir, 0, 0) - 20;

    put16(out + at - 2, 0x8847);
    out[4] = out[10] = 0;
    put16(out + (dir == C2S ? 4 : 10), t->host[1]); /* of the links' ends */
    put16(out + (dir == C2S ? 10 : 4), t->host[0]);
    put32(out + at, 77u << 12 | 64);
    put32(out + at + 4, t->id[dir] << 12 | 0x100 | 64);
    memcpy(out + at + 8, ip, len);
    return at + 8 + len;
}

static unsigned wrap_gre(uint8_t *head, const struct lab_tunnel *t, unsigned dir, const uint8_t *frame, unsigned len)
{
    bool ether = t->how & T_ETHER, mpls = t->how & T_IN_GRE;
    unsigned size = 4;

    memset(head, 0, 16);
    head[0] = (uint8_t)((t->how & T_SUM ? 0x80 : 0) | (t->how & T_KEY ? 0x20 : 0) | (t->how & T_SEQUENCE ? 0x10 : 0));
    memcpy(head + 2, ether ? (const uint8_t *)"\x65\x58" : mpls ? (const uint8_t *)"\x88\x47" : frame + 12, 2);
    if (t->how & T_SUM)
        size += 4;
    if (t->how & T_KEY)
        put32(head + size, t->id[dir]), size += 4;
    if (t->how & T_SEQUENCE)
        put32(head + size, 99), size += 4;
    if (mpls)
        put32(head + size, t->id[dir] << 12 | 0x100 | 64), size += 4;
    memcpy(head + size, ether ? frame : frame + 14, ether ? len : len - 14);
    size += ether ? len : len - 14;
    if (t->how & T_SUM) {
        uint16_t sum = (uint16_t)~rte_raw_cksum(head, size);
        memcpy(head + 4, &sum, 2);
    }
    return size;
}

static unsigned wrap_udp(uint8_t *head, const struct lab_tunnel *t, unsigned dir, const uint8_t *frame, unsigned len)
{
    bool vxlan = t->kind == NST_TUNNEL_VXLAN;
    unsigned size = 16;

    memset(head, 0, 32);
    put16(head, vxlan ? 50000u + dir : 2152);
    put16(head + 2, vxlan ? 4789 : 2152);
    if (vxlan) {
        head[8] = 8;
        put32(head + 12, t->id[dir] << 8);
        memcpy(head + size, frame, len);
        size += len;
    } else {
        bool more = t->how & (T_SEQUENCE | T_EXTENDED);
        head[8] = (uint8_t)(0x30 | (t->how & T_SEQUENCE ? 2 : 0) | (t->how & T_EXTENDED ? 4 : 0));
        head[9] = 255;
        put32(head + 12, t->id[dir]);
        if (more) {
            size += 4;
            if (t->how & T_EXTENDED) { /* of 4 and of 8 bytes */
                head[19] = 0x85;
                memcpy(head + 20, "\1\7\7\xc0\2\1\2\3\4\5\6\0", 12);
                size += 12;
            }
        }
        memcpy(head + size, frame + 14, len - 14);
        size += len - 14;
        put16(head + 10, size - 16);
    }
    put16(head + 4, size);
    return size;
}

unsigned lab_wrap(uint8_t *out, const struct lab_tunnel *t, unsigned dir, const uint8_t *frame, unsigned len,
                  unsigned *l3)
{
    struct lab_path path = {
        .family = t->family, .host = { t->host[0], t->host[1] }, .tags = t->tags, .vlan = { t->vlan }
    };
    static _Thread_local uint8_t body[LAB_FRAME];
    unsigned n, inner = frame[14] >> 4 == 6 ? IPPROTO_IPV6 : IPPROTO_IPIP, proto;

    if (t->kind == NST_TUNNEL_MPLS && (t->how & T_IN_GRE) == 0) {
        *l3 = 14 + 4u * t->tags + 8;
        return wrap_mpls(out, t, dir, frame + 14, len - 14);
    }
    if (t->kind == NST_TUNNEL_IPIP) {
        n = len - 14;
        memcpy(body, frame + 14, n);
        proto = inner;
    } else if (t->kind == NST_TUNNEL_GRE || t->kind == NST_TUNNEL_MPLS) {
        n = wrap_gre(body, t, dir, frame, len);
        proto = IPPROTO_GRE;
    } else {
        n = wrap_udp(body, t, dir, frame, len);
        proto = IPPROTO_UDP;
    }
    unsigned at = lab_ip_header(out, &path, dir, (uint8_t)proto, n);
    memcpy(out + at, body, n);
    if (proto == IPPROTO_UDP && (t->how & T_SUM))
        lab_checksum(out, t->tags, t->family, IPPROTO_UDP);
    *l3 = at + n - (len - 14);
    return at + n;
}

/* ---- looking whether it is right ---- */
static bool ip_holds(const uint8_t *at, unsigned len);

static bool ether_holds(const uint8_t *at, unsigned len)
{
    unsigned head = 14;

    while (len >= head + 4 && get16(at + head - 2) == 0x8100)
        head += 4;
    uint16_t type = get16(at + head - 2);
    if (type == 0x8847) {
        while ((at[head + 2] & 1) == 0)
            head += 4;
        head += 4;
    } else if (type != 0x0800 && type != 0x86dd) {
        return true;
    }
    return ip_holds(at + head, len - head);
}

static bool gre_holds(const uint8_t *at, unsigned len)
{
    unsigned size = 4 + (at[0] & 0x80 ? 4 : 0) + (at[0] & 0x20 ? 4 : 0) + (at[0] & 0x10 ? 4 : 0);

    if ((at[0] & 0x80) && rte_raw_cksum(at, len) != 0xffff)
        return false;
    if (get16(at + 2) == 0x6558)
        return ether_holds(at + size, len - size);
    if (get16(at + 2) == 0x8847)
        size += 4;
    return ip_holds(at + size, len - size);
}

/* Of TCP or UDP, len bytes behind this IP header. */
static bool l4_holds(const uint8_t *ip, const uint8_t *at, unsigned len, uint8_t proto)
{
    uint32_t sum = rte_raw_cksum(at, len) + rte_cpu_to_be_16((uint16_t)len) + rte_cpu_to_be_16(proto);

    sum += ip[0] >> 4 == 4 ? rte_raw_cksum(ip + 12, 8) : rte_raw_cksum(ip + 8, 32);
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16) == 0xffff;
}

static bool udp_holds(const uint8_t *ip, const uint8_t *at, unsigned len)
{
    uint16_t port = get16(at + 2);
    unsigned size = 16;

    if (get16(at + 4) != len)
        return false;
    if (get16(at + 6) != 0 && !l4_holds(ip, at, len, IPPROTO_UDP))
        return false;
    if (port == 4789)
        return ether_holds(at + size, len - size);
    if (port != 2152)
        return true;
    if (get16(at + 10) != len - 16)
        return false;
    if (at[8] & 7) {
        uint8_t next = at[19];
        size += 4;
        for (; (at[8] & 4) && next != 0; size += at[size] * 4u)
            next = at[size + at[size] * 4u - 1];
    }
    return ip_holds(at + size, len - size);
}

static bool ip_holds(const uint8_t *ip, unsigned len)
{
    bool v4 = ip[0] >> 4 == 4;
    unsigned head = v4 ? 20 : 40, total = v4 ? get16(ip + 2) : 40u + get16(ip + 4);
    uint8_t proto = v4 ? ip[9] : ip[6];

    if (total != len || (v4 && rte_raw_cksum(ip, 20) != 0xffff))
        return false;
    if ((v4 && (get16(ip + 6) & 0x3fff)) || proto == IPPROTO_FRAGMENT)
        return true;
    switch (proto) {
    case IPPROTO_TCP:
        return l4_holds(ip, ip + head, len - head, proto);
    case IPPROTO_UDP:
        return udp_holds(ip, ip + head, len - head);
    case IPPROTO_GRE:
        return gre_holds(ip + head, len - head);
    case IPPROTO_IPIP:
    case IPPROTO_IPV6:
        return ip_holds(ip + head, len - head);
    default:
        return true;
    }
}

bool lab_whole_truth(const uint8_t *frame, unsigned len)
{
    return ether_holds(frame, len);
}
