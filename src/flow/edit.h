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

enum way_flag {
    WAY_HEAD = 1,  /* head, ack and window are known */
    WAY_ACKED = 2, /* acked is known */
    WAY_NEXT = 4,  /* next is known */
    WAY_TIME = 8,  /* time stamps are in use */
    WAY_SACK = 16, /* this side has said that it understands SACK */
    WAY_LEFT = 32, /* left is known */
    WAY_BAD = 64,  /* frames that cannot be built anew */
    WAY_SYN = 128, /* isn is known */
};
enum { EDIT_HEAD = 64, EDIT_RUNS = 3 };

/* The packets towards one side, and the stream in them. */
struct edit_way {
    struct edit_map map;
    uint32_t left;           /* behind the last byte that left for this side, in its numbers */
    uint32_t acked;          /* what it has acknowledged, in its numbers */
    uint32_t next;           /* sender's numbers: everything before it has been dealt with */
    uint32_t owed, owed_end; /* sender's numbers: of that, what has still to leave */
    uint32_t ack, tsval;     /* of the last packet that left for this side */
    uint32_t ports;          /* as they lie in it */
    uint32_t isn;            /* of the SYN towards this side */
    uint16_t window;
    uint16_t mss; /* that this side has announced; 0: none was seen */
    uint8_t flags;
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
};

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
/* A loose edit was added: it leaves now, and again until it is acknowledged. */
void edit_send_loose(struct nst_flow *f, enum nst_side side);

/* The number that `side` gets for the sender's seq. */
static inline uint32_t edit_number(const struct nst_flow *f, enum nst_side side, uint32_t seq)
{
    return f->flags & FLOW_EDITED ? edit_out(&edit_of(f)->way[side].map, seq) : seq;
}

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
    unsigned n;           /* segments sent */
    bool failed;          /* no buffer */
};
/* From a packet, whose headers are borrowed. limit as announced by the receiver, 0: nothing was. */
void segments_like(struct edit_segments *s, struct nst_engine *e, struct nst_port *to, const struct nst_packet *p,
                   uint32_t seq, uint16_t mss);
void segments_bytes(struct edit_segments *s, const uint8_t *bytes, size_t len);
/* Edited, what the sender sent as [from, end): where it got to, when more than `most` segments would be needed or the
 * bytes are not there. */
uint32_t segments_stream(struct edit_segments *s, const struct edit_map *map, struct edit_source *source, uint32_t from,
                         uint32_t end, unsigned most);
/* The last segment, bare if it has no bytes. */
void segments_end(struct edit_segments *s, bool fin);

/* Headers out of what was noted of the way to a side: `buffer` holds them. options: so many bytes of TCP options, that
 * the caller fills in at what is returned. NULL: not known well enough. */
enum { EDIT_HEAD_MAX = EDIT_HEAD + 60 };
uint8_t *segments_made(struct edit_segments *s, struct nst_flow *f, enum nst_side side, uint8_t *buffer, uint8_t flags,
                       uint32_t seq, unsigned options);
