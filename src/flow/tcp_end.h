/* SPDX-License-Identifier: Apache-2.0 */
/* flow/tcp_end.h - the state of nst_tcp for one end of one flow, and what its files share.
 *
 * tcp.c           the state machine: SYN to FIN, what a packet is, what its verdict makes true
 * tcp_plain.h     the short way of most packets
 * tcp_api.c       what handlers and the engine's other parts ask of an end
 * tcp_state.c     which of TCP's states that is, and what an end does not accept: for those who ask
 * tcp_bytes.c     which bytes it brings, keeps and contradicts
 * tcp_move.c      streams of which a part goes by another instance
 * tcp_ack.c       what an end says of itself: acknowledgments, window, time stamps; TCP options
 * tcp_normal.c    making packets equal to what was inspected
 * tcp_overlap.c   overlap policies by name and by network
 */
#pragma once
#include "flow/engine.h"
#include "flow/segments.h"
#include <rte_byteorder.h>
#include <rte_tcp.h>

/* Rare fields first: the other 64 bytes are one cache line where flows_stride (flows.c) has put the end of the struct to
 * the end of one. */
struct tcp_end {
    uint32_t adding : 31; /* the first of the pieces that the current packet will have kept, with `adds`: its number */
    uint32_t fin_acked : 1; /* its own FIN was acknowledged */
    uint32_t fin;
    uint32_t fin_sent;  /* the number behind its own FIN */
    uint32_t iss;       /* number of the SYN that this end has sent */
    uint32_t urgent;    /* the furthest urgent byte, with URGENT */
    uint32_t given;     /* bytes of the current packet that were handed out */
    uint64_t delivered; /* bytes, in order and allowed to pass */
    uint32_t base;      /* sequence number of byte 0 */
    uint32_t acked;     /* this end has acknowledged all before it */
    struct stream kept;
    uint32_t edge;       /* of the window that it has offered, with EDGE; before that: base, while a SYN moves it;
                             in captures, which have no window: where an acknowledged hole ends, with `hole` */
    uint32_t echoed;     /* the newest time stamp that it has confirmed, with ECHOED */
    uint32_t stamp;      /* the newest that it was sent, with STAMPED */
    uint32_t fresh;      /* bytes that the current packet delivers */
    uint16_t syn_len;    /* bytes in its SYN */
    uint16_t flags, now; /* TCP_...; now: what the current packet will add */
    uint8_t overlap : 3; /* enum nst_overlap */
    uint8_t hole : 5;    /* captures: so many segments more, and it is jumped over; 0: there is none */
    uint8_t scale : 4;   /* of the windows that it offers */
    uint8_t heard : 1;   /* its acknowledgments come by */
    uint8_t picked : 1;  /* up in midstream: what was agreed upon in the SYNs is not known */
    uint8_t waits : 1;   /* it has closed first, and stays in TIME-WAIT */
    uint8_t adds : 1;    /* the current packet has pieces to be kept */
};
_Static_assert(sizeof(struct tcp_end) <= 88, "idle flows are paid for by the million");
_Static_assert(sizeof(struct tcp_end) - offsetof(struct tcp_end, delivered) == 64,
               "what packets touch is a cache line");
_Static_assert(NST_OVERLAPS <= 1 << 3, "an overlap policy has three bits");

enum {
    TCP_SYNCED = 1, /* base is known */
    TCP_SYN_RECEIVED = 2,
    TCP_SYN_SENT = 4,
    TCP_OPENED = 8,
    TCP_FIN_KNOWN = 16,    /* where the stream that this end receives will end: fin */
    TCP_FIN_RECEIVED = 32, /* and everything before it was delivered */
    TCP_FIN_SENT = 64,
    TCP_RESET = 128,
    TCP_LOST = 256,      /* captures: there is a hole, or what is behind one is yet to be delivered */
    TCP_CONFIRMED = 512, /* the end itself has said where its stream begins */
    TCP_EDGE = 1024,
    TCP_SCALE_SENT = 2048, /* window scaling was offered in its SYN, in its peer's */
    TCP_SCALE_RECEIVED = 4096,
    TCP_ECHOED = 8192,
    TCP_STAMPED = 16384,
    TCP_URGENT = 32768,
    /* Only in `now`: the packet's SYN says where the stream begins; and it said another place before. */
    TCP_NOW_SYNCED = TCP_SYNCED,
    TCP_NOW_MOVED = TCP_LOST,
    /* And it contradicts what is known; and was made equal to that: each counted once. */
    TCP_NOW_CONFLICT = TCP_ECHOED,
    TCP_NOW_NORMAL = TCP_STAMPED,
    TCP_NOW_FIN_ACKED = TCP_EDGE, /* it acknowledges the end's FIN */
    TCP_NOW_ONLY = TCP_NOW_SYNCED | TCP_NOW_MOVED | TCP_NOW_CONFLICT | TCP_NOW_NORMAL | TCP_NOW_FIN_ACKED,
};
enum {
    TCP_AHEAD_MAX = 1 << 30, /* the largest window there is (RFC 7323) */
    TCP_HOLE_WAIT = 16,      /* segments that may still fill a hole of a capture */
    /* Further back nothing is compared, so that numbers cannot come round to it. */
    TCP_UNACKED_MAX = 1 << 29,
};

static inline uint32_t next_seq(const struct tcp_end *t)
{
    return t->base + (uint32_t)t->delivered;
}

static inline const struct rte_tcp_hdr *tcp_header(const struct nst_packet *p)
{
    return rte_pktmbuf_mtod_offset(mbuf_of(p), const struct rte_tcp_hdr *, p->h.l4);
}

static inline struct tcp_end *tcp_end_of(const struct nst_flow *f, enum nst_side side)
{
    return f->engine->half[side].inspect == &nst_tcp ? flow_inspector((struct nst_flow *)(uintptr_t)f, side) : NULL;
}

/* Bytes before it are never compared: they are acknowledged, or were not kept. */
static inline uint32_t compared_from(const struct tcp_end *t, const struct nst_flow *f, enum nst_side side)
{
    return flow_keeps(f, side) ? t->acked : next_seq(t);
}

/* ---- tcp.c ---- */
/* The end's stream begins there: byte `offset` has number seq. */
void tcp_begin_at(struct tcp_end *t, const struct nst_flow *f, enum nst_side side, uint32_t seq, uint64_t offset);
/* The end begins anew: whatever it was thought to have received is of another connection. */
void tcp_restart(struct tcp_end *t, struct nst_engine *e);
/* The rest of the inspector. */
void tcp_verdict(void *self, struct nst_flow *f, enum nst_side side, enum nst_verdict v);
void tcp_close(void *self, struct nst_flow *f, enum nst_side side);
void tcp_rewind(void *self, struct nst_flow *f, enum nst_side side);

/* ---- tcp_bytes.c ---- */
/* Looks at received payload that is not plainly the next: off counts in the packet. */
nst_events tcp_look_at_bytes(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p,
                             uint32_t off, uint32_t seq, uint32_t len, bool fin);
/* Keeps bytes that continue the stream, behind which nothing is kept, where they are to be kept. False: refused. */
bool tcp_keep_next(struct tcp_end *t, struct nst_flow *f, enum nst_side side, const struct nst_packet *p, uint32_t off,
                   uint32_t seq, uint32_t len);
/* Keeps bytes that the end has, or will have, by another way: 0, or -ENOSPC. */
int tcp_keep_bytes(struct tcp_end *t, struct nst_flow *f, struct stream_new *n);
/* Some bytes were delivered: whether there is a hole still. */
void tcp_hole_settle(struct tcp_end *t);
/* The inspector's bytes(). */
bool tcp_bytes(void *self, struct nst_flow *f, enum nst_side side, struct nst_slice *out);

/* ---- tcp_move.c ---- */
/* What a received segment is, where ELSEWHERE is registered and it may be one. */
nst_events tcp_elsewhere(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p,
                         nst_events what);

/* ---- tcp_ack.c ---- */
/* This end acknowledged everything before ack, with this packet; NULL: with one that was made in its name. */
void tcp_acknowledged(struct tcp_end *t, struct nst_engine *e, struct nst_packet *p, uint32_t ack);
/* It offers a window. */
void tcp_window(struct tcp_end *t, const struct rte_tcp_hdr *h, uint32_t ack);

/* How far this end has taken its stream, and how much more it would take. p: the packet that says so; NULL: it was made in
 * its name. */
static inline void tcp_acknowledges(struct tcp_end *t, struct nst_engine *e, enum nst_side side,
                                    const struct rte_tcp_hdr *h, struct nst_packet *p, uint32_t ack)
{
    if (seq_diff(ack, t->acked) > 0)
        tcp_acknowledged(t, e, p, ack);
    if (e->strict[side] && (t->flags & TCP_CONFIRMED) && !t->picked)
        tcp_window(t, h, ack);
}

struct tcp_options {
    uint32_t stamp, echo;
    bool stamps, selective;
    int8_t scale; /* -1: none */
};
/* What stands behind a header that is whole; options that lie about their lengths end it. */
void tcp_options(const struct rte_tcp_hdr *h, struct tcp_options *out);

/* The time stamps of a header; false: it has none. Most have them where everybody puts them. */
static inline bool tcp_stamps(const struct rte_tcp_hdr *h, uint32_t *stamp, uint32_t *echo)
{
    const uint32_t usual = RTE_BE32(0x0101080a);
    const uint8_t *at = (const uint8_t *)(h + 1);
    rte_be32_t word[3];

    if (h->data_off >= 8 << 4) {
        memcpy(word, at, sizeof word);
        if (likely(word[0] == usual)) {
            *stamp = rte_be_to_cpu_32(word[1]);
            *echo = rte_be_to_cpu_32(word[2]);
            return true;
        }
    }
    struct tcp_options o;
    tcp_options(h, &o);
    *stamp = o.stamp;
    *echo = o.echo;
    return o.stamps;
}

/* ---- tcp_state.c ---- */
/* The state that the end has, or that the current packet will bring it to. */
enum nst_tcp_state tcp_state(const struct tcp_end *t);

/* ---- tcp_normal.c ---- */
/* The packet's bytes at places that are known, from seq on, become the known ones. False: it cannot be done. */
bool tcp_normal_bytes(const struct tcp_end *t, struct nst_packet *p, uint32_t off, uint32_t seq, uint32_t len);
/* Cuts the payload off behind len bytes, and a FIN with it. False: it cannot be done. */
bool tcp_normal_cut(struct nst_packet *p, uint32_t len);
/* Clears the urgent pointer. */
bool tcp_normal_urgent(struct nst_packet *p);
