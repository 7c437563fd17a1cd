/* SPDX-License-Identifier: Apache-2.0 */
/* io/packet.h - a packet is an rte_mbuf whose private area holds what NetStar knows of it.
 *
 * The port that receives a packet sets number, time, port, flags and cut; the flow engine fills in the rest. Pools are
 * made with NST_PACKET_PRIV bytes of private area (port_pool). A packet is always one segment: a frame that is longer
 * than a buffer of the pool gets one of its own (captures with super-packets), so that its bytes are in one piece.
 */
#pragma once
#include <netstar/flow.h>
#include <netstar/packet.h>
#include <rte_mbuf.h>

/* A tunnel that a packet is in. */
struct packet_layer {
    uint16_t l3;    /* the IP header around it; MPLS: the label stack */
    uint16_t head;  /* the tunnel's own header; behind it the packet begins that it carries */
    uint8_t kind;   /* enum nst_tunnel */
    uint8_t family; /* of the IP header; 0: MPLS has none */
};

struct nst_packet {
    struct nst_packet *next; /* in whatever queue its owner keeps */
    struct nst_flow *flow;
    nst_time time;
    uint64_t number;
    uint16_t port; /* where it came in: index among the engine's ports */
    uint8_t dir;   /* 0: from the client to the server, 1: back; once its flow is known */
    uint8_t stage; /* halves that it has passed */
    struct nst_headers h;
    uint16_t flags;  /* PACKET_... */
    uint8_t refused; /* PACKET_REFUSED: enum nst_cause */
    uint8_t error;   /* enum nst_tcp_error of the half that it is at, while somebody asks for that */
    uint32_t cut;    /* bytes at the frame's end that the capture did not keep */
    uint32_t birth;  /* PACKET_MAPPED: which flow of those that had its place it belongs to */
    uint32_t reach;  /* of one that was taken out of an edited stream: the end of what leaves with it */
    /* One cache line so far, which every packet touches. What follows is for the rare, and holds nothing unless a flag
     * says so. */
    struct nst_packet *parts; /* PACKET_WHOLE: the fragments that it was made of, as they came, by next */
    struct nst_packet *first; /* and that which stands first in it */
    struct nst_packet *after; /* of a fragment: that which follows it in the datagram */
    uint32_t n_parts;
    uint16_t part_at, part_len;                   /* of a fragment: where its data belongs */
    struct packet_layer around[NST_TUNNEL_DEPTH]; /* PACKET_TUNNEL: what is around the headers in h, outermost first */
    uint8_t n_around;
};
enum {
    PACKET_CHECKSUM_BAD = 1, /* says the device */
    PACKET_TAKEN = 2,
    PACKET_REFUSED = 4,
    PACKET_CHECKSUM_OPEN = 8, /* nobody has verified them yet */
    PACKET_ICMP = 64,         /* an ICMP error on its way to the end that it is for: no inspector sees it */
    PACKET_WHOLE = 16,        /* made of fragments, which go out in its place (flow/fragment.h) */
    PACKET_MAPPED = 32,       /* of a flow whose numbers are mapped: flow/edit.h */
    PACKET_TUNNEL = 128,      /* h is of the innermost packet in tunnels that were looked into */
    PACKET_BAD_ACK = 256,     /* acknowledges what its receiver has not sent */
};
enum { NST_PACKET_PRIV = 128 };
_Static_assert(offsetof(struct nst_packet, parts) == 64, "what every packet touches is one cache line");
_Static_assert(sizeof(struct nst_packet) <= NST_PACKET_PRIV, "a packet's notes fit two cache lines");

static inline struct nst_packet *packet_of(struct rte_mbuf *m)
{
    return (struct nst_packet *)(m + 1);
}
static inline struct rte_mbuf *mbuf_of(const struct nst_packet *p)
{
    return (struct rte_mbuf *)((uintptr_t)p - sizeof(struct rte_mbuf));
}

/* ---- packet_outer.c: the headers of tunnels, when what they carry changes ---- */

/* A packet that carries its payload up to `end` of its frame: sets the lengths around it, and computes the checksums that
 * are in use anew. */
void packet_fit(uint8_t *frame, const struct packet_layer around[], unsigned n, uint32_t end);

/* Checksums around a packet, for an edit that changes no length: to be taken before it, and mended after it. One that
 * was wrong stays wrong. Returns how many there are. */
struct packet_outer_sum {
    uint32_t at, from; /* the field; what it sums */
    uint16_t sum;
    bool udp;
};
unsigned packet_outer_sums(const struct nst_packet *p, struct packet_outer_sum sums[NST_TUNNEL_DEPTH]);
void packet_outer_mend(struct nst_packet *p, const struct packet_outer_sum sums[], unsigned n);
