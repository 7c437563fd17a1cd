/* SPDX-License-Identifier: Apache-2.0 */
/* flow/edit.h - editing, inside: what the engine knows of a flow whose NF edits, and where packets meet it.
 *
 * Flows of an NF that edits carry FLOW_EDITED. Their packets are met twice: where they enter, before any half, what
 * they acknowledge is mapped to the sender's numbers; where they leave, behind the last half, what they carry is
 * mapped to the receiver's, and edited. So the halves see each stream in its sender's numbers. In a capture nobody
 * has received what was edited, so there acknowledgments enter as they are and are mapped where they leave.
 */
#pragma once
#include "flow/edit_map.h"
#include "flow/engine.h"
#include <netstar/edit.h>
#include <netstar/timer.h>
#include <rte_tcp.h>

enum way_flag {
    WAY_HEAD = 1,      /* head, ack and window are known */
    WAY_ACKED = 2,     /* acked is known */
    WAY_NEXT = 4,      /* next is known */
    WAY_TIME = 8,      /* time stamps are in use */
    WAY_SACK = 16,     /* this side has said that it understands SACK */
    WAY_LEFT = 32,     /* left is known */
    WAY_BAD = 64,      /* frames that cannot be built anew */
    WAY_SYN = 128,     /* isn is known */
    WAY_OFFERED = 256, /* this side's own SYN was seen */
    WAY_SCALE = 512,   /* with window scaling in it */
    WAY_EDGE = 1024,   /* edge is known */
};
enum { EDIT_HEAD = 64, EDIT_RUNS = 3, EDIT_BURST = 64 /* segments that leave at once; the rest follows */ };

/* The packets towards one side, and the stream in them. Its numbers are the receiver's where that is said. */
struct edit_way {
    struct edit_map map;
    uint32_t left;       /* receiver's: behind the last byte that left for this side */
    uint32_t acked;      /* receiver's: what it has acknowledged */
    uint32_t edge;       /* receiver's: of the window that it has offered */
    uint32_t next;       /* everything before it has been dealt with */
    uint32_t owed;       /* receiver's: of that, from where on something has still to leave */
    uint32_t owed_end;   /* and up to where */
    uint32_t ack, tsval; /* of the last packet that left for this side */
    uint32_t ports;      /* as they lie in it */
    uint32_t isn;        /* of the SYN towards this side */
    uint16_t window;
    uint16_t mss;   /* that this side has announced; 0: none was seen */
    uint16_t flags; /* WAY_... */
    bool owes;
    uint8_t port; /* by which packets leave for it */
    uint8_t l3, head_len;
    uint8_t scale; /* of the windows that this side announces */
    struct edit_run {
        uint32_t from, end; /* kept back behind a hole; the latest first */
    } run[EDIT_RUNS];
    uint8_t head[EDIT_HEAD]; /* link and IP header of such a packet */
};

struct edit_flow {
    struct edit_way way[2]; /* by the side that receives */
    struct nst_timer timer; /* what is owed, and what is to be sent again */
    struct nst_flow *flow;
    nst_time resend_at; /* 0: nothing */
    uint32_t birth;     /* tells the flows apart that had this place; 0: none has */
    uint8_t tries;
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct edit_flow) <= 512, "each flow of an NF that edits has one");

static inline void way_left(struct edit_way *w, uint32_t end)
{
    if ((w->flags & WAY_LEFT) == 0 || seq_diff(end, w->left) > 0)
        w->left = end;
    w->flags |= WAY_LEFT;
    if ((w->flags & WAY_ACKED) && seq_diff(w->left, w->acked) > EDIT_FAR)
        w->flags &= (uint16_t) ~(WAY_ACKED | WAY_EDGE);
}

static inline struct edit_flow *edit_of(const struct nst_flow *f)
{
    return &f->engine->edit_flows[flow_number(f)];
}

/* Of an engine; nothing where the NF does not edit. 0, -ENOMEM. */
int edit_open(struct nst_engine *e, uint32_t flows, size_t memory, uint32_t per_stream);
void edit_close(struct nst_engine *e);
/* A flow begins, and ends. */
void edit_begin(struct nst_flow *f);
void edit_end(struct nst_flow *f);

/* The packet enters. */
void edit_enter(struct nst_engine *e, struct nst_flow *f, struct nst_packet *p);
/* The packet leaves by `to`, and has been decided on by its receiver's half just now, unless it was taken: it is
 * consumed, and counted. */
void edit_leave(struct nst_engine *e, struct nst_flow *f, struct nst_packet *p, struct nst_port *to, bool taken);
/* A verdict other than FORWARD on the event at `side`. */
void edit_verdict(struct nst_flow *f, enum nst_side side, struct nst_packet *p, enum nst_verdict v);
/* The half is out of the way from now on: what was kept back leaves, as far as it is behind `from`. */
void edit_pass(struct nst_flow *f, enum nst_side side, uint32_t from);

/* The number that `side` gets for the sender's seq. */
static inline uint32_t edit_number(const struct nst_flow *f, enum nst_side side, uint32_t seq)
{
    return f->flags & FLOW_EDITED ? edit_out(&edit_of(f)->way[side].map, seq) : seq;
}

/* ---- edit_option.c: what TCP's options say ---- */
/* What a SYN of this side announces. */
void option_syn(struct edit_way *w, const struct nst_packet *p);
/* The time stamp of a packet towards this side. */
void option_stamp(struct edit_way *w, const struct nst_packet *p);
/* Maps the edges of selective acknowledgments, inwards to the sender's numbers or outwards to the receiver's, so that
 * each block claims no more than is there. One of which nothing is left is taken out. */
void option_map_sack(struct nst_packet *p, const struct edit_map *m, bool inwards);
/* Writes a selective acknowledgment of so many of the runs that are kept back: 4 bytes, and 8 for each. */
void option_put_sack(uint8_t *to, const struct edit_way *w, unsigned blocks);

static inline struct rte_tcp_hdr *edit_header(const struct nst_packet *p)
{
    return rte_pktmbuf_mtod_offset(mbuf_of(p), struct rte_tcp_hdr *, p->h.l4);
}

/* ---- edit_made.c: what leaves though no packet brought it ---- */
/* An acknowledgment in the receiver's name, to the sender of what goes to `side`: of what `side` has acknowledged, and,
 * if it is told, of what is kept back. */
void made_answer(struct nst_flow *f, enum nst_side side, bool selective);
/* The packet's [from, end) stands behind a hole: it is dropped, its bytes are with nst_tcp and leave when that fills. */
void made_hold(struct nst_flow *f, enum nst_side side, struct nst_packet *p, uint32_t from, uint32_t end,
               const struct tcp_place *place);
/* Up to the sender's `end` there is more than could leave at once: the rest, from the receiver's `from` on, follows. */
void made_owe(struct nst_flow *f, enum nst_side side, uint32_t from, uint32_t end);
/* What is owed to a side leaves, at most so many segments. */
void made_pay(struct nst_flow *f, enum nst_side side, unsigned most);
/* The side has acknowledged more, or offers more room. */
void made_heard(struct nst_flow *f, enum nst_side side);
/* A loose edit was added: it leaves now, and again until it is acknowledged. */
void made_loose(struct nst_flow *f, enum nst_side side);

/* ---- edit_segment.c: packets that are built anew ---- */
struct edit_source { /* the sender's bytes: the packet at hand, or what nst_tcp has kept */
    const struct nst_packet *p;
    uint32_t from, end; /* the bytes of the packet */
    const struct stream *kept;
    const struct segment *at; /* the piece found last */
    bool kept_first;          /* the packet may differ from what was delivered */
};
/* The longest run of the sender's bytes from seq that lie in one piece, at most len; 0: they are not there. */
uint32_t source_piece(struct edit_source *s, uint32_t seq, uint32_t len, const uint8_t **at);

struct edit_segments { /* being built, towards one side */
    struct nst_engine *e;
    struct nst_port *to;
    const struct nst_packet *like; /* whose time and number they get; may be NULL */
    const uint8_t *head;           /* headers, up to the payload */
    uint16_t l3, l4, head_len;
    uint8_t family;
    bool wrong;           /* the checksum was, and stays so */
    bool urgent;          /* to this number */
    uint32_t urgent_at;   /* receiver's numbers, like all here */
    uint32_t seq, next;   /* of the segment at hand, and behind its last byte */
    uint32_t limit, room; /* payload of a segment, and what is left of it */
    struct rte_mbuf *m;   /* the segment at hand */
    unsigned n, most;     /* segments sent, and about how many may be */
    bool bounded;         /* nothing beyond the receiver's edge may */
    uint32_t edge;
    bool failed; /* no buffer */
};
/* From a packet, whose headers are borrowed. limit as announced by the receiver, 0: nothing was. */
void segments_like(struct edit_segments *s, struct nst_engine *e, struct nst_port *to, const struct nst_packet *p,
                   uint32_t seq, uint16_t mss);
/* How many of the bytes found room. */
size_t segments_bytes(struct edit_segments *s, const uint8_t *bytes, size_t len);
/* Edited, what the sender sent as [from, end); of an edit that stands at `from`, without its first `skip` bytes. Where
 * it got to: not to the end when no more may leave, or the bytes are not there. In the midst of an edit that is where
 * this begins, and s->next tells more. */
uint32_t segments_stream(struct edit_segments *s, const struct edit_map *map, struct edit_source *source, uint32_t from,
                         uint32_t skip, uint32_t end);
static inline bool segments_full(const struct edit_segments *s)
{
    return s->n >= s->most || (s->bounded && seq_diff(s->next, s->edge) >= 0);
}
/* The last segment, bare if it has no bytes. */
void segments_end(struct edit_segments *s, bool fin);

/* Headers out of what was noted of the way to a side: `buffer` holds them. options: so many bytes of TCP options, that
 * the caller fills in at what is returned. NULL: not known well enough. */
enum { EDIT_HEAD_MAX = EDIT_HEAD + 60 };
uint8_t *segments_made(struct edit_segments *s, struct nst_flow *f, enum nst_side side, uint8_t *buffer, uint8_t flags,
                       uint32_t seq, unsigned options);
