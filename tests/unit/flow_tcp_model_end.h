/* SPDX-License-Identifier: Apache-2.0 */
/* flow_tcp_model_end.h - the reference model of one end of a TCP flow, and what the model of a flow wants of it. */
#pragma once
#include "flow_tcp_model.h"

enum { PLACES = 4096 };

struct place {  /* of the stream that one end receives */
    int64_t at; /* which place this is: the array goes round */
    uint32_t life;
    uint8_t byte;
    int64_t from, to; /* of the segment that the byte came with */
};

struct end {
    const struct model_setting *set;
    enum nst_side side;
    enum nst_overlap overlap;

    bool synced; /* it is known where the stream begins: place 0 is number `base` */
    bool syn_sent, syn_received, opened;
    bool confirmed; /* the end itself has said where its stream begins */
    bool by_syns;   /* not picked up */
    bool fin_known, fin_received, fin_sent, reset;
    bool waits; /* it has closed first: TIME-WAIT */
    bool fin_acked;
    uint32_t behind_fin; /* the number behind the FIN that it has sent */
    int hole;            /* of a capture, and acknowledged: segments that are still waited for; 0: there is none */
    int64_t told;        /* the acknowledged place */
    uint32_t base;
    int64_t next, acked; /* every byte before `next` was delivered, every byte before `acked` acknowledged */
    int64_t fin;         /* where the stream ends */
    uint32_t iss, syn_len;
    int scale;        /* of its window; -1: not offered */
    bool peer_scales; /* a SYN that it received offered that, too */
    bool heard;       /* its acknowledgments come by */
    bool has_edge, has_stamp, has_echo, has_urgent;
    uint32_t edge;   /* the window's: a number */
    uint32_t stamp;  /* the newest that was sent to this end */
    uint32_t echo;   /* the newest that it has echoed */
    uint32_t urgent; /* the furthest urgent byte that is not yet delivered */
    uint32_t life;   /* of what is kept: another one, and all is forgotten */
    int64_t top;     /* nothing is kept from here on */

    /* What the current segment would change, should it pass. */
    struct change {
        bool syn_received, syn_sent, opened, fin_known, fin_received, fin_sent, fin_acked, reset, keep;
        int64_t fin;
        int64_t from, to; /* its payload, as far as it counts */
        const uint8_t *bytes;
        bool cut, calm, mended; /* made equal to what was inspected: shorter, without URG, with other bytes */
        unsigned leave;         /* bytes that are left when it is cut */
        unsigned fresh;         /* places that `next` goes on by */
    } now;

    /* And where the stream was thought to begin before a SYN told. */
    struct beginning {
        bool moved, synced;
        uint32_t base, life;
        int64_t next, acked, top;
    } was;

    enum nst_tcp_error error; /* of the current segment */

    struct place kept[PLACES];
};

/* More than events. */
#define MODEL_REFUSED ((nst_events)1 << 63)
#define MODEL_STALE ((nst_events)1 << 62)
#define MODEL_WINDOW ((nst_events)1 << 61)
#define MODEL_BAD_ACK ((nst_events)1 << 60)

void end_open(struct end *t, const struct model_setting *set, enum nst_side side, enum nst_overlap overlap);

/* The end's part in a segment: what it causes. Then the verdict. *bad_ack: the other end, which has sent it, acknowledges
 * what was not sent to it. */
nst_events end_receives(struct end *t, const struct model_sequence *q, const struct model_segment *s, bool bad_ack,
                        struct model_counts *counts);
nst_events end_sends(struct end *t, const struct model_segment *s, bool *bad_ack, struct model_counts *counts);
void end_verdict(struct end *t, bool passed, struct model_counts *counts);

/* Picked up: byte `offset` has number `seq`. */
void end_begins(struct end *t, uint32_t seq, uint64_t offset);

/* The byte at a place that the current segment makes readable. False: it is read outside of the stream. */
bool end_byte(struct end *t, int64_t at, uint8_t *byte);

/* The byte at a place of a segment that leaves as it was inspected. */
uint8_t end_leaves(struct end *t, int64_t at);

/* The state that it has, or has once the current segment has passed. */
enum nst_tcp_state end_state(const struct end *t);

/* What a passed segment changed: for the life of the flow. */
enum end_life { END_SAME, END_OPENED, END_FINISHED, END_RESET };
enum end_life end_life(const struct end *t);

/* A SYN for another connection of the same tuple. In TIME-WAIT it has to be newer, by its number or its time stamp
 * (RFC 9293, 3.6.1; RFC 6191). */
bool end_takes_new_syn(const struct end *t, const struct model_segment *s);

static inline uint32_t end_number(const struct end *t, int64_t place)
{
    return t->base + (uint32_t)place;
}
