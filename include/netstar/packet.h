/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/packet.h - one packet: what was parsed of it, how to edit it, and who owns it.
 *
 * A packet has one owner at a time and in the end one fate: sent, or dropped for a counted cause. An event lends
 * its packet to the handler until the verdict; nst_take (flow.h) makes it the handler's own. All functions are
 * called on the reactor that received the packet, and none waits.
 */
#pragma once
#include <netstar/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct nst_packet;

/* What the headers said. Offsets count from the packet's first byte; they are valid where the parser says so:
 * l4 and payload only for TCP and UDP that is not a later fragment. */
struct nst_headers {
    uint16_t l3, l4, payload; /* offsets */
    uint16_t payload_len;     /* bytes that the IP length says belong to it: link padding excluded */
    uint8_t family;           /* 4, 6, or 0 when it is not IP */
    uint8_t proto;            /* IP protocol of the upper layer; 0 when it is not IP */
    uint8_t tcp_flags;        /* TCP: the flag byte */
    uint8_t vlan_tags;        /* how many were skipped */
};
NST_API const struct nst_headers *nst_packet_headers(const struct nst_packet *p);

/* Tunnels that can be looked into (bits). That is done only where the NF or the operator asks (struct nst_nf, struct
 * nst_engine_config). Then headers, flows and payload are those of the innermost packet, and which flow that is depends
 * on the tunnel, too: see struct nst_engine_config. */
enum nst_tunnel {
    NST_TUNNEL_MPLS = 1, /* RFC 3032, RFC 4023: IP behind up to 16 labels, over Ethernet or GRE */
    NST_TUNNEL_GRE = 2, /* RFC 2784, RFC 2890, over IPv4 and IPv6: IP, MPLS or Ethernet (also NVGRE, RFC 7637) inside */
    NST_TUNNEL_IPIP = 4,  /* RFC 2003, RFC 4213, RFC 2473: IPv4 or IPv6 in either */
    NST_TUNNEL_VXLAN = 8, /* RFC 7348: Ethernet in UDP to port 4789 */
    NST_TUNNEL_GTPU = 16, /* 3GPP TS 29.281: IP in G-PDUs, in UDP to port 2152 */
    NST_TUNNELS_ALL = 31,
};
/* One in the other; a packet in more of them counts as malformed. */
enum { NST_TUNNEL_DEPTH = 4 };

struct nst_tunnel_layer {
    enum nst_tunnel kind;
    uint8_t family; /* of the IP header around it, 4 or 6; 0: MPLS over Ethernet has none */
    uint16_t l3;    /* offset of that header; of the label stack */
    uint16_t head;  /* offset of the tunnel's own header; IPIP: of the packet inside */
    uint32_t id;    /* VXLAN: VNI; GRE: key; GTPU: TEID; MPLS: the last label; 0: none */
};
/* The tunnels around the packet, the outermost first: how many there are. */
NST_API unsigned nst_packet_tunnels(const struct nst_packet *p, struct nst_tunnel_layer out[NST_TUNNEL_DEPTH]);

/* The packet's bytes from `off`: a pointer to `len` contiguous bytes, or NULL when it has not that many or they
 * are not in one piece. Borrowed until the packet goes. */
NST_API const void *nst_packet_bytes(const struct nst_packet *p, size_t off, size_t len);
NST_API size_t nst_packet_len(const struct nst_packet *p);

/* When it was received (the capture's time in a replay); its number in the input, from 1 (the frame number that
 * capture tools show); the port that it came in by. */
NST_API nst_time nst_packet_time(const struct nst_packet *p);
NST_API uint64_t nst_packet_number(const struct nst_packet *p);
NST_API unsigned nst_packet_port(const struct nst_packet *p);

/* Overwrites len bytes at off and mends the IPv4, TCP, UDP and ICMPv4 checksums incrementally (RFC 1624): one that was right
 * stays right, one that was wrong stays wrong; so are those of tunnels around it (UDP, GRE) that are in use. A checksum
 * field among the bytes is mended, not overwritten. The headers
 * are not parsed anew, so lengths and protocol fields are better left alone. -ERANGE when the bytes are not all inside
 * the packet. `bytes` may not lie in the packet itself. */
NST_API int nst_packet_edit(struct nst_packet *p, size_t off, const void *bytes, size_t len);

/* Turns the packet round: it will leave by the port that it came in by, with its MAC addresses exchanged, when it is
 * forwarded. For what has to go back to the side that it came from (hairpinning), through the router that sent it. */
NST_API void nst_packet_turn(struct nst_packet *p);

/* Sends a packet that the caller owns (nst_take) by a port, and consumes it, also on error. -EINVAL: no such
 * port. A port that cannot take it drops and counts it. */
NST_API int nst_packet_send(struct nst_packet *p, unsigned port);

/* Drops a packet that the caller owns; counted as "handler". */
NST_API void nst_packet_free(struct nst_packet *p);

#ifdef __cplusplus
}
#endif
