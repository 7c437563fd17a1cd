/* SPDX-License-Identifier: Apache-2.0 */
/* ips/ips.h - what the IPS is on one reactor, and the steps that are the same however the waits between them are
 * written: ips.c writes them as a handler that waits, ips_callback.c as callbacks, and ips_kept.c as a handler that keeps
 * what it has read.
 *
 * None of the functions here waits.
 */
#pragma once
#include "alerts.h"
#include "scan.h"
#include "state.h"
#include <netstar/flow.h>
#include <netstar/state.h>

/* What the rules are made into, for all cores; never changed, another takes its place. */
struct ips_config {
    struct ips_rules *rules;
    uint32_t room; /* for one automaton: what is kept of a stream has two of them */
    unsigned n;
    struct ips_scanner *scanner[]; /* one for each core */
};

/* Where the bytes that this instance has let pass end, and the automaton there. It is true whatever became of the writes:
 * what comes next here comes behind it. */
enum { IPS_PLACE_AUTOMATON = 208 };
struct ips_place {
    uint64_t rules, base, offset; /* as in struct ips_state */
    uint32_t seq;
    uint16_t len;
    bool known, to_client;
    uint8_t automaton[IPS_PLACE_AUTOMATON];
};

struct ips {
    struct nst_store *store;   /* borrowed, and so is the next */
    struct nst_state *streams; /* what ips_kept.c keeps, under the same keys; else NULL */
    const struct ips_config *config;
    struct ips_scanner *scanner; /* of this core */
    unsigned core;
    struct ips_alerts *alerts;
    nst_time ttl; /* how long the store keeps a direction after its last packet */
    bool pickup;  /* follow a stream whose earlier bytes nobody knows */
    struct nst_nf nf;
    struct ips_wait *idle; /* ips_callback.c: its unused contexts */
    struct {
        uint64_t bytes; /* scanned */
        uint64_t alerts[IPS_ACTIONS];
        uint64_t matches_skipped;     /* beyond IPS_MATCHES_MAX in one packet */
        uint64_t states, state_bytes; /* records written, and what they add up to */
        size_t state_peak;
        uint64_t blocked;        /* flows stopped for a match */
        uint64_t blocked_before; /* flows that another instance had blocked */
        uint64_t resumed;        /* directions taken over where another instance left them */
        uint64_t picked_up;      /* directions followed although earlier bytes are unknown */
        uint64_t restarted;      /* directions whose automaton belonged to other rules */
        uint64_t bad_records;    /* found in the store, and not understood */
        uint64_t not_forgotten;  /* records of closed flows that could not be deleted */
    } count;
    uint64_t alerts_lost; /* by the instances that were merged into this one, and the next as well */
    struct nst_state_stats kept;
    uint8_t record[IPS_STATE_MAX]; /* the one that is written next */
};

/* One direction of a flow: the stream that `side` receives, for the time of one event. */
struct ips_stream {
    struct nst_flow *flow;
    struct nst_packet *packet;
    enum nst_side side;
    nst_events events;
    struct nst_slice key;     /* its name in the store */
    bool known;               /* the store had a record */
    bool bad;                 /* it had something else, which counts as an unknown record */
    struct ips_state state;   /* which said this */
    struct nst_slice next;    /* the record to write now; in ips->record, so good only until the next wait */
    enum nst_verdict verdict; /* on the packet, once that record is written */
    struct ips_matches found;
    struct ips_place *here; /* ips_kept.c: where this instance stands; else NULL */
    struct ips_place then;  /* and where it stands when this packet has passed, if then.known */
    uint8_t name[4 + NST_FLOW_KEY_MAX];
    uint8_t record[IPS_STATE_MAX]; /* what the store had */
};

/* The direction that this event is about. */
void ips_stream_open(struct ips_stream *s, struct nst_flow *f, const struct nst_event *ev);

/* The flow's other direction. */
void ips_stream_opposite(struct ips_stream *other, const struct ips_stream *s);

/* Understands the record that was read, rc being its length or the error: 0, also when the store knows nothing or the
 * record is not one; else the error rc. */
int ips_understand(struct ips *ips, struct ips_stream *s, const void *record, int rc);

/* At a MIDSTREAM event: continues the stream where the records say that another instance left it, and sets s->events
 * to what the packet is in that light. -ESRCH when nobody knows the flow and such flows are not to be picked up. */
int ips_take_over(struct ips *ips, struct ips_stream *s, const struct ips_stream *other);

/* Scans what the packet brings. Sets the verdict, and the record to write; next.len is 0 when nothing has changed. Where
 * the packet brings bytes once more, the record is the one for `here`, if the store has an older one.
 * -ESRCH when earlier bytes are unknown; -EPROTO, -EIO, -ENOSPC. */
int ips_scan(struct ips *ips, struct ips_stream *s);

/* Logs and counts what the scan found. */
void ips_alert(struct ips *ips, const struct ips_stream *s);

/* The stream is blocked by what the scan found. */
static inline bool ips_blocked(const struct ips_stream *s)
{
    return s->verdict != NST_FORWARD;
}

/* Whether the record of a flow that closed so is of no more use. */
static inline bool ips_over(enum nst_close_why why)
{
    return why == NST_CLOSED_BY_FIN || why == NST_CLOSED_BY_RST;
}

/* The outcome of deleting the record of a closed flow. */
void ips_forgotten(struct ips *ips, int rc);

/* The ways to write it. */
enum nst_verdict ips_handler(struct nst_flow *f, const struct nst_event *ev);
enum nst_verdict ips_kept_handler(struct nst_flow *f, const struct nst_event *ev);
enum nst_verdict ips_callback_handler(struct nst_flow *f, const struct nst_event *ev);
void ips_callback_close(struct ips *ips);
