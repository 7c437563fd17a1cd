/* SPDX-License-Identifier: Apache-2.0 */
/* flow/parse.h - from a frame to its headers and its flow's key. Every length is checked before it is used; nothing is
 * read outside the frame's first segment, and nothing is written but the results.
 */
#pragma once
#include "flow/key.h"
#include "io/packet.h"
#include <netinet/in.h>
#include <netstar/engine.h>
#include <rte_byteorder.h>

enum parsed {
    PARSED_FLOW, /* headers, key and from_b are valid */
    PARSED_NOT_IP,
    PARSED_OTHER_PROTO, /* IP, whole, but neither TCP nor UDP, which is the payload; the key tells the network, and
                           parse_other the rest */
    PARSED_CHECKSUM,    /* a checksum is wrong; the parser itself does not look */
    PARSED_FRAGMENT,  /* h.proto is valid, 0 where further extension headers hide it; the payload is the fragment's, and
                         the key tells the network */
    PARSED_NO_ROOM,   /* in a tunnel whose network is not known, and there is no room for one more */
    PARSED_MALFORMED, /* and enum nst_fault: h.proto where it could be read, else 0 */
};

static inline enum parsed parsed_fault(enum nst_fault fault)
{
    return (enum parsed)((unsigned)PARSED_MALFORMED + (unsigned)fault);
}

/* Ethernet, up to two VLAN tags, IPv4 or IPv6 with extension headers, TCP or UDP. */
enum parsed parse_any(struct rte_mbuf *m, struct nst_headers *h, struct flow_key *key, bool *from_b);

/* The same for what begins at `at` of a frame, goes on to `end`, and of which the bytes up to `have` are there: an Ethernet
 * frame (type 0), or what an Ethernet type says. *vlan is that of the frame. */
enum parsed parse_at(const uint8_t *d, uint32_t at, uint32_t end, uint32_t have, uint16_t type, struct nst_headers *h,
                     struct flow_key *key, bool *from_b, uint16_t *vlan);

/* The beginning of a packet that an ICMP error quotes: its key and who sent it, and where its transport header begins, of
 * which 8 bytes are there. 0: it does not say so much. Its lengths are not looked at: it is cut short. */
uint32_t parse_quoted(const uint8_t *d, uint32_t at, uint32_t have, uint8_t family, uint16_t vlan, struct flow_key *key,
                      bool *from_b);

/* What was PARSED_OTHER_PROTO: completes the key as NST_PROTO_ANY (flow.h) has it. */
void parse_other(const struct rte_mbuf *m, const struct nst_headers *h, struct flow_key *key, bool *from_b);

/* Brings two IPv4 endpoints into the order of a key; true when they were turned around. Without a branch: which way a
 * packet goes is what nobody can predict. */
static inline bool key_turn4(uint64_t *addresses, uint32_t *ports)
{
    uint64_t a = *addresses, turned_a = a << 32 | a >> 32;
    uint32_t p = *ports, turned_p = p << 16 | p >> 16;
    bool turn = (a > turned_a) | ((a == turned_a) & (p > turned_p));

    *addresses = a ^ ((a ^ turned_a) & (0 - (uint64_t)turn));
    *ports = p ^ ((p ^ turned_p) & (0 - (uint32_t)turn));
    return turn;
}

/* Whether two IPv6 endpoints must be turned around for that, and then the ports are. */
static inline bool key_turn6(const uint64_t a[2], const uint64_t b[2], uint32_t *ports)
{
    bool turn = a[0] != b[0] ? a[0] > b[0] : a[1] != b[1] ? a[1] > b[1] : (uint16_t)*ports > (uint16_t)(*ports >> 16);

    if (turn)
        *ports = *ports << 16 | *ports >> 16;
    return turn;
}

/* The same, where most packets, TCP in plain IPv4 in plain Ethernet, take the short way. */
static inline enum parsed parse_packet(struct rte_mbuf *m, struct nst_headers *h, struct flow_key *key, bool *from_b)
{
    enum { ETHER = 14, L4 = ETHER + 20, TCP = 20, TYPE = 12, LENGTH = 16, FRAGMENT = 20, ADDRESSES = 26 };
    const uint8_t *d = rte_pktmbuf_mtod(m, const uint8_t *);
    const rte_be32_t plain = RTE_BE32(0x08004500), plain_mask = RTE_BE32(0xffffff00);  /* IPv4 of 20 bytes, any TOS */
    const rte_be32_t whole = RTE_BE32(IPPROTO_TCP), whole_mask = RTE_BE32(0x3fff00ff); /* not a fragment, and TCP */
    uint32_t type, fragment, ports, have = rte_pktmbuf_data_len(m);
    uint16_t length;
    uint64_t addresses;

    if (unlikely(have < L4 + TCP))
        return parse_any(m, h, key, from_b);
    memcpy(&type, d + TYPE, sizeof type);
    memcpy(&fragment, d + FRAGMENT, sizeof fragment); /* fragment, time to live, protocol */
    if (unlikely((type & plain_mask) != plain || (fragment & whole_mask) != whole))
        return parse_any(m, h, key, from_b);
    memcpy(&length, d + LENGTH, sizeof length);
    uint32_t end = ETHER + (uint32_t)rte_be_to_cpu_16(length), payload = L4 + (uint32_t)(d[L4 + 12] >> 4) * 4;
    if (unlikely(end > have || payload < L4 + TCP || payload > end))
        return parse_any(m, h, key, from_b);
    *h = (struct nst_headers){ .l3 = ETHER,
                               .l4 = L4,
                               .payload = (uint16_t)payload,
                               .payload_len = (uint16_t)(end - payload),
                               .family = 4,
                               .proto = IPPROTO_TCP,
                               .tcp_flags = d[L4 + 13] };
    memcpy(&addresses, d + ADDRESSES, sizeof addresses);
    memcpy(&ports, d + L4, sizeof ports);
    *from_b = key_turn4(&addresses, &ports);
    key->w[0] = key_head(ports, 0, IPPROTO_TCP, 4);
    key->w[1] = addresses;
    return PARSED_FLOW;
}
