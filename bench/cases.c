/* SPDX-License-Identifier: Apache-2.0 */
#include "cases.h"
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

struct counters {
    uint64_t packets, bytes;
};

void work_init(struct work *w)
{
    answers_init(&w->store);
    w->idle = NULL;
    w->packets = w->bytes = w->sum = 0;
}

static inline enum nst_verdict count(struct nst_flow *f)
{
    struct counters *c = nst_flow_state(f);
    struct work *w = nst_nf_arg(f);

    c->packets++;
    w->packets++;
    return NST_FORWARD;
}

/* ---- the default style: reads from top to bottom ---- */
static enum nst_verdict handler(struct nst_flow *f, const struct nst_event *ev)
{
    return count(f);
}

static inline int ask(struct nst_flow *f, nst_time until)
{
    struct work *w = nst_nf_arg(f);
    struct nst_future answer;

    nst_future_init(&answer);
    answers_start(&w->store, &answer);
    return nst_await(&answer, until);
}

static enum nst_verdict wait1(struct nst_flow *f, const struct nst_event *ev)
{
    int rc = ask(f, ev->until);

    return rc < 0 ? nst_fail(f, rc) : count(f);
}

static enum nst_verdict wait2(struct nst_flow *f, const struct nst_event *ev)
{
    int rc = ask(f, ev->until);

    if (rc >= 0)
        rc = ask(f, ev->until);
    return rc < 0 ? nst_fail(f, rc) : count(f);
}

/* ---- the same with hand-written callbacks: a context for each event that is pending, kept on a free list ---- */
struct pending {
    struct nst_future answer;
    struct nst_flow *flow;
    struct pending *next;
    nst_time until;
    enum nst_side side;
};

static struct pending *pending_new(struct work *w, struct nst_flow *f, const struct nst_event *ev)
{
    struct pending *p = w->idle;

    if (p != NULL)
        w->idle = p->next;
    else if ((p = malloc(sizeof *p)) == NULL)
        return NULL;
    p->flow = f;
    p->side = ev->side;
    p->until = ev->until;
    return p;
}

void work_end(struct work *w)
{
    while (w->idle != NULL) {
        struct pending *p = w->idle;
        w->idle = p->next;
        free(p);
    }
}

static void finish(struct pending *p, int rc)
{
    struct nst_flow *f = p->flow;
    enum nst_side side = p->side;
    struct work *w = nst_nf_arg(f);

    p->next = w->idle;
    w->idle = p;
    nst_resume(f, side, rc < 0 ? nst_fail(f, rc) : count(f));
}

static void answered(struct nst_future *answer, int rc)
{
    finish(answer->arg, rc);
}

static void ask_then(struct pending *p, void (*then)(struct nst_future *, int))
{
    struct work *w = nst_nf_arg(p->flow);

    nst_future_init(&p->answer);
    answers_start(&w->store, &p->answer);
    nst_then(&p->answer, then, p, p->until);
}

static void first_answered(struct nst_future *answer, int rc)
{
    if (rc < 0)
        finish(answer->arg, rc);
    else
        ask_then(answer->arg, answered);
}

static enum nst_verdict callback_wait1(struct nst_flow *f, const struct nst_event *ev)
{
    struct pending *p = pending_new(nst_nf_arg(f), f, ev);

    if (p == NULL)
        return nst_fail(f, -ENOMEM);
    ask_then(p, answered);
    return NST_PENDING;
}

static enum nst_verdict callback_wait2(struct nst_flow *f, const struct nst_event *ev)
{
    struct pending *p = pending_new(nst_nf_arg(f), f, ev);

    if (p == NULL)
        return nst_fail(f, -ENOMEM);
    ask_then(p, first_answered);
    return NST_PENDING;
}

/* Without a wait the callback twin decides in a continuation that it calls itself. It is called through a pointer, as
 * one that may be called later would be. */
static enum nst_verdict (*volatile decide)(struct nst_flow *) = count;

static enum nst_verdict callback(struct nst_flow *f, const struct nst_event *ev)
{
    return decide(f);
}

/* ---- the stream ---- */
/* Every byte is read, eight at a time where there are eight. */
static uint64_t sum_of(const uint8_t *p, size_t len)
{
    uint64_t sum = 0, last = 0, v;

    for (; len >= sizeof v; p += sizeof v, len -= sizeof v) {
        memcpy(&v, p, sizeof v);
        sum += v;
    }
    memcpy(&last, p, len);
    return sum + last;
}

static enum nst_verdict tcp_data(struct nst_flow *f, const struct nst_event *ev)
{
    struct counters *c = nst_flow_state(f);
    struct work *w = nst_nf_arg(f);
    struct nst_slice piece;

    while (nst_flow_bytes(f, ev->side, &piece)) {
        w->sum += sum_of(piece.p, piece.len);
        w->bytes += piece.len;
        c->bytes += piece.len;
    }
    return count(f);
}

/* ---- editing: the stream is read as above, and each segment of it leaves with other bytes ---- */
static enum nst_verdict edit(struct nst_flow *f, const struct nst_event *ev, int rc)
{
    return rc < 0 ? nst_fail(f, rc) : tcp_data(f, ev);
}

static enum nst_verdict edit_bytes(struct nst_flow *f, const struct nst_event *ev)
{
    return edit(f, ev, nst_flow_replace(f, ev->side, nst_tcp_offset(f, ev->side), 8, "########", 8));
}

/* Longer in front and shorter behind, so that the numbers between move, and those of the trace's acknowledgments, which
 * know nothing of it, are right. */
static enum nst_verdict edit_lengths(struct nst_flow *f, const struct nst_event *ev)
{
    uint64_t at = nst_tcp_offset(f, ev->side);
    int rc = nst_flow_replace(f, ev->side, at, 0, "########", 8);

    return edit(f, ev, rc < 0 ? rc : nst_flow_replace(f, ev->side, at + 16, 8, NULL, 0));
}

#define ON_PACKETS(fn) \
    .nf.half[NST_SERVER] = { .on_sent = NST_EV_PACKET, .on_received = NST_EV_PACKET, .handler = (fn) }
#define ON_STREAM(fn) \
    .nf.proto = IPPROTO_TCP, .nf.half[NST_SERVER] = { .inspect = &nst_tcp, .on_received = NST_EV_DATA, .handler = (fn) }

#define ON_EDITED_STREAM(fn) \
    .nf.proto = IPPROTO_TCP, \
    .nf.half[NST_SERVER] = { .inspect = &nst_tcp, .on_received = NST_EV_DATA, .handler = (fn), .edits = true }

/* The same with the other half's inspector as well: both ends of each connection are followed. */
#define CLIENT_TOO .nf.half[NST_CLIENT] = { .inspect = &nst_tcp }
#define ON_BOTH_PACKETS(fn)                                                                          \
    .nf.proto = IPPROTO_TCP, CLIENT_TOO,                                                             \
    .nf.half[NST_SERVER] = {                                                                         \
        .inspect = &nst_tcp, .on_sent = NST_EV_PACKET, .on_received = NST_EV_PACKET, .handler = (fn) \
    }

/* Where the NF cannot decide its packets are dropped, which the harness takes for a failure of the run. The budget is
 * long because the contestants take turns: a wait's time goes on while another has the core. */
#define CASE(id) \
    .name = (id), .nf.name = (id), .nf.flow_size = sizeof(struct counters), .nf.policy.budget = NST_SEC(600)
const struct bench_case bench_cases[] = {
    { .name = "forward", .nf = { .name = "forward" } },
    { CASE("handler"), ON_PACKETS(handler) },
    { CASE("callback"), ON_PACKETS(callback) },
    { CASE("wait1"), ON_PACKETS(wait1), .waits = 1 },
    { CASE("callback_wait1"), ON_PACKETS(callback_wait1), .waits = 1 },
    { CASE("wait2"), ON_PACKETS(wait2), .waits = 2 },
    { CASE("callback_wait2"), ON_PACKETS(callback_wait2), .waits = 2 },
    /* Reads the stream and leaves it at that; and with what an IPS needs on top, the default: bytes are kept until they
     * are acknowledged, so that a retransmission can be compared with what was inspected. */
    { CASE("tcp_data"), ON_STREAM(tcp_data), .nf.policy.on_conflict = NST_FORWARD, .payload = true },
    { CASE("tcp_data_kept"), ON_STREAM(tcp_data), .payload = true },
    { CASE("both_handler"), ON_BOTH_PACKETS(handler) },
    { CASE("both_callback"), ON_BOTH_PACKETS(callback) },
    { CASE("both_wait1"), ON_BOTH_PACKETS(wait1), .waits = 1 },
    { CASE("both_callback_wait1"), ON_BOTH_PACKETS(callback_wait1), .waits = 1 },
    { CASE("both_wait2"), ON_BOTH_PACKETS(wait2), .waits = 2 },
    { CASE("both_callback_wait2"), ON_BOTH_PACKETS(callback_wait2), .waits = 2 },
    { CASE("both_tcp_data"), ON_STREAM(tcp_data), CLIENT_TOO, .nf.policy.on_conflict = NST_FORWARD, .payload = true },
    { CASE("both_tcp_data_kept"), ON_STREAM(tcp_data), CLIENT_TOO, .payload = true },
    { CASE("edit_off"), ON_STREAM(tcp_data), .payload = true },
    { CASE("edit_none"), ON_EDITED_STREAM(tcp_data), .payload = true },
    { CASE("edit_bytes"), ON_EDITED_STREAM(edit_bytes), .payload = true, .edits = 1 },
    { CASE("edit_lengths"), ON_EDITED_STREAM(edit_lengths), .payload = true, .edits = 2 },
};
const unsigned bench_n_cases = sizeof bench_cases / sizeof *bench_cases;

const struct bench_case *bench_case_named(const char *name)
{
    for (unsigned i = 0; i < bench_n_cases; i++) {
        if (strcmp(bench_cases[i].name, name) == 0)
            return &bench_cases[i];
    }
    return NULL;
}
