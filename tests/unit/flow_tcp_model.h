/* SPDX-License-Identifier: Apache-2.0 */
/* flow_tcp_model.h - nst_tcp against a reference model, on random hostile sequences of segments.
 *
 *   generator  flow_tcp_model_gen.c     draws a setting (an NF and its policies) and sequences of segments
 *   model      flow_tcp_model.c         says what each segment causes, from the contract in netstar/tcp.h and flow.h
 *   engine     flow_tcp_model_run.c     sends the same segments through a real engine and writes down what it does
 *   shrinker   flow_tcp_model_shrink.c  makes a failing sequence short and prints it
 *
 * A sequence is plain data: the segments with all their fields, and for each what the NF's handlers answer. The model
 * and the engine work on the same data, so a sequence that was cut down is as good as one that was drawn.
 */
#pragma once
#include "flow_lab.h"

enum {
    MODEL_URG = RTE_TCP_URG_FLAG,
    MODEL_SEGMENTS = 40, /* of one sequence */
    MODEL_DATA = 8192,   /* bytes of payload in one sequence */
    MODEL_SPAN = 1000,   /* bytes of stream that the generator plays with, in each direction */
    MODEL_FAR =
        (8 << 20) + 2000, /* and this far ahead: beyond the usual limit, and no place of the model's array twice */
    MODEL_NETWORKS = 8,   /* networks that an end may be in: overlap policies */
};

/* ---- what is put in ---- */
enum model_begin { MODEL_LEAVE, MODEL_PICKUP, MODEL_RESUME }; /* what a handler does with MIDSTREAM */

struct model_segment {
    uint8_t dir, flags;
    uint32_t seq, ack;
    uint16_t len, data; /* payload: so many bytes, from here in the sequence's data */
    uint16_t window, urgent;
    uint8_t scale; /* window scale option; 0xff: none */
    bool stamped;  /* has a time stamp option */
    uint32_t stamp, echo;
    uint8_t selective; /* blocks that it acknowledges selectively: each the byte behind the one before */
    uint8_t pieces;    /* its payload lies in so many buffers */
    bool other_side;   /* comes in by the other end's port */
    /* The handlers: verdicts of the sender's half and of the receiver's, should they be called. */
    uint8_t verdict[2];
    uint8_t begin; /* enum model_begin */
    uint32_t begin_seq;
    uint64_t begin_offset;
};

struct model_sequence {
    uint8_t family;
    uint16_t port[2];
    uint8_t network[2]; /* of each end */
    unsigned n, n_data;
    struct model_segment seg[MODEL_SEGMENTS];
    uint8_t data[MODEL_DATA];
};

/* The NF, its policies and limits: one for many sequences. */
struct model_setting {
    bool inspect[2];
    nst_events on_sent[2], on_received[2];
    bool replay;
    uint8_t on_midstream, on_conflict, on_no_memory, on_window, on_stale, on_bad_ack;
    enum nst_urgent urgent;
    bool normalise;
    enum nst_overlap overlap[MODEL_NETWORKS];
    uint32_t per_end; /* stream_per_end; 0: the default */
};

/* ---- what comes out ---- */
enum { MODEL_BYTES = 1 << 15, MODEL_FLOWS = 8 };

struct model_call {  /* of a handler */
    nst_events what; /* 0: there was none */
    uint8_t side;
    uint8_t state, error; /* nst_tcp_state, nst_tcp_error */
    bool placed;          /* where in the stream it is, is known */
    uint32_t seq;
    uint64_t offset;
    uint32_t len, bytes; /* what nst_flow_bytes gave, in the result's bytes */
};

enum model_fate { MODEL_GONE, MODEL_LEFT, MODEL_LEFT_TWICE, MODEL_LEFT_CHANGED };

struct model_counts { /* of nst_engine_stats */
    uint64_t forwarded, sent_by_handler, injected;
    uint64_t dropped[NST_CAUSES];
    uint64_t stream_bytes, conflicts, gaps, retransmits, unverified, unkept_bytes, lost_bytes;
    uint64_t keep_alives, syns_ignored, resets_ignored, beyond_window, stale, bad_acks, urgent, selective, acks_ignored,
        normalised;
};

struct model_result {
    struct model_step {
        struct model_call call[2]; /* of the sender's half, of the receiver's */
        /* What was changed of the segment when it was made equal to what was inspected. */
        bool changed;
        uint8_t flags;
        uint16_t len, urgent, bytes; /* the bytes: in `left` */
        uint8_t fate;
    } step[MODEL_SEGMENTS];
    struct model_close {
        uint8_t calls[2];
        uint8_t why;
    } closed[MODEL_FLOWS];
    unsigned flows; /* that the sequence's packets opened, one after the other */
    unsigned n_bytes, n_left;
    uint8_t bytes[MODEL_BYTES], left[MODEL_DATA];
};

/* ---- the parts ---- */
uint64_t model_mix(uint64_t n);
void model_draw_setting(struct model_setting *s, uint64_t seed);
void model_draw(struct model_sequence *q, const struct model_setting *s, uint64_t seed);

/* What should come out, and what it adds to the counts. */
void model_expect(const struct model_setting *s, const struct model_sequence *q, struct model_result *out,
                  struct model_counts *counts);

/* Runs n sequences of one setting, interleaved, through one engine and compares. The sequences that may be to blame are
 * suspect[first, first + n); n is 0 when all is as it should be. */
struct model_verdict {
    unsigned first, n;
    char text[1000]; /* what differs */
};
typedef void model_source(struct model_sequence *q, unsigned i, const void *arg);
void model_run(const struct model_setting *s, unsigned n, model_source *source, const void *arg, uint64_t seed,
               struct model_verdict *out);
/* What all runs of the process saw: that the generator reaches what it is for. */
struct model_seen {
    struct model_counts counts;
    uint64_t segments, calls, event[64], closed[NST_CLOSED_BY_SHUTDOWN + 1];
};
extern struct model_seen model_seen;

/* Cuts the sequence down while it still fails alone in an engine of its own. False: it does not fail alone. */
bool model_shrink(const struct model_setting *s, struct model_sequence *q, uint64_t seed, struct model_verdict *out);
const char *model_event_name(unsigned bit);
void model_print(FILE *to, const struct model_setting *s, const struct model_sequence *q);

static inline int32_t model_diff(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b);
}
