/* SPDX-License-Identifier: Apache-2.0 */
/* flow/engine.h - the inside of an engine, for the files of this layer.
 *
 * A packet's way: burst.c receives a burst, parses it (parse.c), finds its flows (table.c, flows.c) and gives each
 * packet to flow_packet() in half.c, which takes it through the halves: inspector (tcp.c, udp.c), handler or loop
 * (loop.c), verdict, and on to the port.
 */
#pragma once
#include "flow/cores.h"
#include "flow/edit_map.h"
#include "flow/fragment.h"
#include "flow/network.h"
#include "flow/parse.h"
#include "flow/segments.h"
#include "flow/table.h"
#include "io/port.h"
#include "runtime/reactor_internal.h"
#include <netstar/engine.h>
#include <netstar/future.h>
#include <netstar/task.h>
#include <netstar/tcp.h>

enum life { /* of a flow: each has a list in the order of what is due first */
            LIFE_ESTABLISHED,
            LIFE_CLOSING,
            LIFE_UDP,                      /* both ends have sent */
            LIFE_BLOCKED,                  /* under DROP_FLOW or RESET_FLOW */
            LIFE_UNSETTLED,                /* from here on a packet may change what the flow is worth: flows_heard */
            LIFE_OPENING = LIFE_UNSETTLED, /* TCP: both ends have sent */
            LIFE_UNANSWERED,               /* TCP: one end only */
            LIFE_ONE_WAY,                  /* TCP: one end only, but its stream is followed, from its middle */
            LIFE_UDP_ONE_WAY,              /* one end only */
            LIVES,
};

enum flow_flag {
    FLOW_PASS_CLIENT = 1 << NST_CLIENT, /* the half's part has said FORWARD_FLOW, or its loop has ended */
    FLOW_PASS_SERVER = 1 << NST_SERVER,
    FLOW_CLIENT_IS_B = 4, /* the key's endpoint b opened the flow */
    FLOW_DROP = 8,
    FLOW_RETIRED = 16,     /* out of the table, waits for its halves to end; kept when the memory is free */
    FLOW_LOOPS = 32,       /* a half of the NF is a loop: set in all its flows */
    FLOW_BY_SYN = 64,      /* a SYN opened it, so who is the client is certain */
    FLOW_CLIENT_ODD = 128, /* the client's packets come in by the second port of a pair */
    FLOW_BACK_FIRST = 512, /* its first packet was the server's */
    FLOW_EDITED = 256,     /* its numbers are mapped (edit.h): set in all TCP flows of an NF that edits */
};

enum turn_state {
    TURN_HANDLER, /* its handler runs, or waits */
    TURN_PENDING, /* its handler has returned NST_PENDING */
    TURN_RESUMED, /* and nst_resume has come since */
    TURN_LOOP,    /* loop style */
};

/* One event at one half, from its inspector to its verdict. It lives on the stack of whoever runs the handler, or, for
 * NST_PENDING and for loops, in memory of its own. */
struct flow_turn {
    struct nst_event ev;
    struct nst_flow *flow;
    struct nst_packet *held, **held_tail; /* packets that wait for this half; the tail is valid while there are any */
    struct nst_task *task;                /* runs the handler; to cancel it */
    struct turn_now {
        uint16_t n_held;
        uint8_t state;
        uint8_t verdict, cause; /* what nst_resume brought */
        uint8_t pad[3];         /* cleared in one store */
    } now;
    union {
        struct flow_turn *next;     /* in the engine's pool, or its list of what was resumed */
        struct nst_future *closing; /* pending CLOSE: fulfilled by nst_resume */
        struct flow_loop *loop;     /* loop style */
    };
};

struct nst_flow {
    struct flow_key key;
    struct flow_turn *turn[2]; /* what each half is at; NULL: nothing */
    uint32_t seen;             /* tick of the last packet */
    uint8_t life;
    uint8_t set; /* what is registered: index into the engine's sets */
    uint16_t flags;
    /* one cache line so far: what a packet that nobody waits for touches */
    struct nst_engine *engine;
    uint32_t due;          /* tick at which its list's head is looked at */
    uint32_t newer, older; /* in the list of its life */
    uint8_t why;           /* enum nst_close_why */
    uint8_t pad[3];        /* aligns what follows */
    uint8_t state[];       /* client inspector, server inspector, NF */
};
_Static_assert(offsetof(struct nst_flow, engine) == 64, "the first line of a flow is one cache line");

/* Flows live in one reserved region and are known by their number, which is what the table holds. */
struct flow_memory {
    uint8_t *base;
    size_t stride;
    uint32_t limit, touched; /* entries, some more than flows; those from `touched` on were never used */
    uint32_t flows;          /* at most so many are in the table */
    uint32_t *free;          /* a stack of numbers */
    uint32_t n_free;
};

struct flow_list {
    uint32_t oldest, newest;
    uint32_t n;
};

/* What a flow's halves have registered. */
enum { EVENT_SETS = 256, EVENTS_OWN = 32 };
struct event_set {
    nst_events wanted[2][2]; /* [side][dir]: what wakes the async part */
    nst_events look[2][2];   /* what half_rare has to see: policies, and what the NF's own events are built from */
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct event_set) == 64, "a set is one cache line");

enum { TICK_SHIFT = 20 }; /* a tick is 2^20 ns, about a millisecond */
#define NO_FLOW UINT32_MAX

enum engine_wait { WAIT_TURNS, WAIT_FLOWS, WAIT_INPUT };

struct nst_engine {
    struct nst_poller poller;
    const struct nst_nf *nf;
    void *nf_arg;
    struct nst_half half[2]; /* of the NF; what every packet needs of them stands below */
    const struct nst_inspector *inspect[2];
    enum nst_verdict (*handler[2])(struct nst_flow *f, const struct nst_event *ev);
    uint8_t active;     /* bit per side: the half has a part */
    uint8_t two_sided;  /* FLOW_CLIENT_ODD where ports tell the sides apart, else 0 */
    uint16_t detour[2]; /* by side: flags of a flow that keep its packets from the straight way */
    uint8_t stages[2];  /* by a packet's dir, bit per stage of its way: the half there has a part */
    uint8_t proto;      /* as in nst_nf */
    uint8_t checks;     /* flags of packets whose checksums have to be looked at */
    uint8_t tunnels;    /* that are looked into */
    bool draining, replay;
    bool any;             /* flows of every IP protocol: NST_PROTO_ANY, and then proto is 0 */
    bool loops;           /* a half is written as a loop */
    bool may_wait;        /* handlers have waited lately: they are called on stacks of their own */
    uint8_t did_not;      /* how many in a row have not, since */
    uint16_t state_at[3]; /* where in nst_flow.state: inspectors, NF */
    struct event_set set[EVENT_SETS];
    uint32_t set_users[EVENT_SETS]; /* flows that are in it; of set 0: 1 */
    uint8_t keep[EVENT_SETS];       /* bit per side: nst_tcp keeps delivered bytes until they are acknowledged */
    uint8_t closes[EVENT_SETS];     /* bit per side: CLOSE is registered */
    struct nst_policy policy;
    bool strict[2]; /* nst_tcp, by side: nothing reaches the end but through here, and all it says comes by */
    bool unkept[2]; /* bytes may go on that nothing could be compared with when they come again */

    struct hash_secret secret;
    struct table table;
    struct flow_memory flows;
    struct flow_list list[LIVES];
    struct flow_list ending; /* retired, not yet freed */
    uint32_t idle[LIVES];    /* ticks */
    uint32_t in_use;         /* an established flow that was seen within so many is not evicted */
    uint32_t tick;           /* now */
    uint32_t expired_at;     /* tick of the last look */
    struct stream_pool stream;
    struct fragments fragments;
    struct networks networks; /* inside tunnels */
    enum nst_overlap overlap; /* nst_tcp: of ends in none of these networks, which are in the order to look in */
    struct nst_overlap_net *overlap_nets;
    unsigned n_overlap_nets;
    uint8_t edits; /* bit per side: the half edits the TCP stream that it receives */
    uint32_t edit_births;
    struct edit_flow *edit_flows; /* by a flow's number; NULL where nothing is edited */
    struct edit_pool edit_pool;

    /* the burst at hand */
    uint16_t n, i; /* packets, and the next one to do */
    uint16_t port; /* the next port to ask */
    uint16_t n_ports;
    uint16_t n_in; /* ports that are asked: with the inbox, which stands behind the others */
    bool full;     /* the last burst was as large as can be */
    bool paused;   /* only the inbox is asked */
    uint16_t core;
    uint8_t more; /* bursts that the same port may still be asked for in this turn */
    bool found_work;
    bool retired;            /* a flow was, since flows_end was called */
    struct nst_cores *cores; /* NULL: it is alone */
    struct nst_port **ports;
    struct nst_port **peer; /* by the port that a packet came in by: where it leaves */
    struct rte_mbuf *mbuf[PORT_BURST];
    struct nst_flow *guess[PORT_BURST];
    uint8_t parsed[PORT_BURST];
    bool from_b[PORT_BURST];
    uint64_t hash[PORT_BURST];
    struct flow_key key[PORT_BURST];

    uint64_t turns_closed; /* of stats.events; the others are under way */
    uint32_t closing;      /* flows whose CLOSE is under way */
    uint32_t busy_loops;   /* loops that have an event, or could have one */
    uint32_t kept;         /* packets that leave later (nst_packet_keep); they count as held, too */
    uint32_t held_limit;
    struct flow_turn *resumed, **resumed_tail;
    enum nst_cause failed;      /* what nst_fail last said, until its verdict is applied */
    struct nst_flow *failed_in; /* and of which flow */
    struct flow_turn *turn_pool;
    struct nst_scope *scope; /* owns the loops */
    struct nst_reactor *reactor;
    uint64_t watched; /* bit per port: its descriptors wake the reactor */
    void (*quiet)(void *arg);
    void *quiet_arg;
    bool was_quiet;
    struct nst_future *waiter; /* of nst_engine_drain or nst_engine_finish */
    enum engine_wait wait_for;
    bool polled;
    uint32_t refusals_left; /* answers that nst_packet_refuse may still give, at the time refused_at */
    nst_time refused_at;
    struct nst_log_limit log;
    struct nst_engine_stats stats;
};

static inline struct nst_flow *flow_at(const struct nst_engine *e, uint32_t number)
{
    return (struct nst_flow *)(e->flows.base + number * e->flows.stride);
}
static inline uint32_t flow_index(const struct nst_engine *e, const struct nst_flow *f)
{
    return (uint32_t)(((const uint8_t *)f - e->flows.base) / e->flows.stride);
}
static inline uint32_t flow_number(const struct nst_flow *f)
{
    return flow_index(f->engine, f);
}
static inline void *flow_inspector(struct nst_flow *f, enum nst_side side)
{
    return f->state + f->engine->state_at[side];
}

/* Turns that are under way, and packets that somebody still sends. */
static inline uint64_t engine_turns(const struct nst_engine *e)
{
    return e->stats.events - e->turns_closed + e->busy_loops + e->kept;
}

/* A packet that was kept meets its end. */
static inline void engine_unkeep(struct nst_engine *e)
{
    e->kept--;
    e->stats.held--;
}

/* ---- flows.c: memory, lives, expiry ---- */
int flows_open(struct nst_engine *e, uint32_t limit);
void flows_close(struct nst_engine *e);
size_t flows_stride(const struct nst_nf *nf, uint16_t state_at[3]);
/* The flow of a packet whose key is known to be absent: made, or NULL when there is no room. */
struct nst_flow *flows_add(struct nst_engine *e, const struct flow_key *key, uint64_t hash, bool client_is_b,
                           enum life life);
struct nst_flow *flows_find(struct nst_engine *e, const struct flow_key *key, uint64_t hash);
void flows_set_life(struct nst_flow *f, enum life life);
/* A packet of a flow in an unsettled life, before the halves see it: an answer makes the flow worth more. */
void flows_heard(struct nst_flow *f, const struct nst_packet *p);
/* Takes the flow out of the table: no packet finds it any more, and flows_end will end it. */
void flows_retire(struct nst_flow *f, enum nst_close_why why);
/* Ends the retired flows whose halves are idle: CLOSE, then the memory. May wait. */
void flows_end(struct nst_engine *e);
/* Retires flows whose time has come, in live traffic at most a batch of them. False: there may be more. */
bool flows_expire(struct nst_engine *e);

/* ---- half.c: what a packet meets at a half beyond the straight way (way.h) ---- */
void flow_packet(struct nst_engine *e, struct nst_flow *f, struct nst_packet *p);
/* Any verdict, and whatever came with it; true: the packet goes on to the next half. */
bool half_apply_other(struct nst_flow *f, enum nst_side side, struct nst_packet *p, enum nst_verdict v);
/* What nobody wants to see in every packet: policies, and events that are built from others. False: the packet was
 * dropped for a policy; true: *what is complete. `wanted` and `look` are those of before the inspection. */
bool half_rare(struct nst_flow *f, enum nst_side side, enum nst_dir dir, struct nst_packet *p, nst_events wanted,
               nst_events look, nst_events *what);
/* Why there is a policy to be asked: what the inspector found and the NF did not register. NST_CAUSES: nothing. */
enum nst_cause half_cause(nst_events what, nst_events registered);
/* The policy for what the inspector found and the NF did not register. True: goes on, with the events in *what. */
bool half_policy(struct nst_flow *f, enum nst_side side, struct nst_packet *p, nst_events registered, nst_events *what);
/* A half that cannot take the packet at once. True: the packet goes on to the next half. */
bool half_busy(struct nst_engine *e, struct nst_flow *f, enum nst_side side, struct nst_packet *p);
/* After a handler whose turn is pending or has packets held. */
void half_after(struct nst_engine *e, struct nst_flow *f, enum nst_side side, struct flow_turn *turn,
                struct nst_packet *p, bool on);
/* Calls a handler that is expected to wait. True: the packet goes on to the next half. */
bool half_call(struct nst_engine *e, struct nst_flow *f, enum nst_side side, enum nst_dir dir, struct nst_packet *p,
               nst_events what);
/* CLOSE at one half. May wait. */
void half_close(struct nst_flow *f, enum nst_side side);
/* What nst_resume brought since the last turn. May wait. */
void half_resumed(struct nst_engine *e);
/* The oldest packet that waits for the half, or NULL. */
struct nst_packet *turn_next_held(struct flow_turn *turn);
/* Puts a packet behind those that wait, or applies the policy for a full queue. */
void half_hold(struct nst_engine *e, struct nst_flow *f, enum nst_side side, struct nst_packet *p);
/* Every further packet of the flow is dropped, and both ends get a reset if v says so; p is dropped for the cause. */
void flow_block(struct nst_flow *f, struct nst_packet *p, enum nst_verdict v, enum nst_cause cause);

/* ---- tcp.c ---- */
/* As nst_tcp_pickup, before there is a turn. */
nst_events tcp_pickup(struct nst_flow *f, enum nst_side side, struct nst_packet *p);
/* Every byte up to the FIN was delivered to this side. */
bool tcp_stream_ended(struct nst_flow *f, enum nst_side side);
/* A SYN to an end of a flow that is over by FIN: this end would take it (RFC 9293, 3.10.7.4; RFC 6191). */
bool tcp_may_begin_anew(const struct nst_flow *f, enum nst_side side, const struct nst_packet *p);
/* Where the stream that this side receives is. False: nst_tcp does not follow it, or has not seen its start. */
struct tcp_place {
    uint32_t next;             /* everything before it was delivered */
    uint32_t fresh;            /* bytes from there that the current packet would deliver */
    const struct stream *kept; /* bytes that are not acknowledged, and what is ahead of a hole */
    bool ended;                /* next is where a FIN ended it */
    bool ends;                 /* a FIN is known to stand right behind the fresh bytes */
};
bool tcp_place(struct nst_flow *f, enum nst_side side, struct tcp_place *out);
/* An acknowledgment with this header went to the other end in the name of this one. */
struct rte_tcp_hdr;
void tcp_told(struct nst_flow *f, enum nst_side side, const struct rte_tcp_hdr *h);

/* ---- tcp_state.c ---- */
/* STATE or ERROR is registered by some flow: from now on they are looked for at this half. */
void tcp_tell(struct nst_engine *e, enum nst_side side);

/* ---- udp.c ---- */
/* The datagram was changed: its bytes are handed out from the beginning. */
void udp_again(struct nst_flow *f, enum nst_side side);

/* ---- loop.c ---- */
/* A loop has an event, or could have one. */
bool loop_busy(const struct flow_turn *turn);
/* Starts the half's loop with its first packet; 0 or -errno, and then the packet is still the caller's. */
int loop_start(struct nst_flow *f, enum nst_side side, struct nst_packet *first);
/* A packet was put into the turn's queue, or the flow was retired. */
void loop_wake(struct flow_turn *turn);

/* An event is under way. */
static inline bool turn_runs(const struct flow_turn *turn)
{
    return turn != NULL && (turn->now.state != TURN_LOOP || loop_busy(turn));
}

/* ---- watch.c (and half_rare): registrations ---- */
/* -EINVAL: the NF's own events are not built from what there is. */
int watch_check(const struct nst_nf *nf);
void watch_open(struct nst_engine *e);
/* The flow is back at what the NF was declared with, or gone. */
void watch_leave(struct nst_flow *f);

/* nst_tcp is to keep what this end was given until it acknowledges it: somebody looks at it. */
static inline bool flow_keeps(const struct nst_flow *f, enum nst_side side)
{
    return f->engine->keep[f->set] >> side & 1;
}
/* What is registered at this half. */
static inline nst_events flow_wants(const struct nst_flow *f, enum nst_side side, enum nst_dir dir)
{
    return f->engine->set[f->set].wanted[side][dir];
}
/* The end of the flow is an event at this half. */
static inline bool flow_closes(const struct nst_flow *f, enum nst_side side)
{
    return f->engine->closes[f->set] >> side & 1;
}

/* ---- policy.c ---- */
/* Fills in the defaults. -EINVAL: a verdict that cannot be a policy. */
int policy_init(struct nst_policy *p);
/* Counts and returns the verdict for a cause; 0 became NST_DROP when the engine was opened. */
enum nst_verdict policy_of(struct nst_engine *e, enum nst_cause cause);

/* ---- reset.c: resets to both ends of the flow of this packet ---- */
void reset_both(struct nst_engine *e, struct nst_flow *f, struct nst_packet *p);

/* ---- special.c: packets that are not plainly a flow's ---- */
/* After the parsing of a burst in which one of them was seen. May leave fewer packets in it, and sets anew the bucket
 * of those that it changes. */
void burst_special(struct nst_engine *e, const struct table_bucket *bucket[PORT_BURST]);
/* Fragments of this protocol are put together: the NF is for it, or it may carry a tunnel that is looked into. */
bool fragment_is_ours(const struct nst_engine *e, uint8_t proto);
/* A fragment that will not become part of a whole: the policy's matter. The engine comes as a void pointer. */
void fragment_give_up(void *engine, struct nst_packet *p, enum nst_fault why);
/* Counts packets that came, and met their end, by those that left in their place. */
static inline void sent_as(struct nst_engine *e, uint64_t *count, uint32_t came, uint32_t left)
{
    *count += came;
    if (left > came)
        e->stats.injected += left - came;
    else
        e->stats.joined += came - left;
}

/* The ends of a whole datagram: each of its fragments meets it, and is counted. */
void whole_send(struct nst_engine *e, struct nst_packet *whole, struct nst_port *port, uint64_t *count);
void whole_drop(struct nst_engine *e, struct nst_packet *whole, enum nst_cause cause);

/* The fragments that a datagram came in go to the core of this key, where they are put together once more. */
void whole_give(struct nst_engine *e, struct nst_packet *whole, const struct flow_key *key);

/* ---- tunnel.c ---- */
/* Looks into the tunnels of a packet, of which was parsed what is outside, and answers like parse_packet for the innermost
 * packet, whose headers then are the packet's. Its network is part of the key. `steering`: only for the choice of the
 * core; no network is made known, and checksums are not looked at. */
enum parsed tunnel_parse(struct nst_engine *e, struct rte_mbuf *m, enum parsed parsed, struct flow_key *key,
                         bool *from_b, bool steering);

/* A packet, with the tunnels that are looked into. */
static inline enum parsed engine_parse(struct nst_engine *e, struct rte_mbuf *m, struct flow_key *key, bool *from_b,
                                       bool steering)
{
    enum parsed parsed = parse_packet(m, &packet_of(m)->h, key, from_b);

    return unlikely(e->tunnels != 0) && parsed <= PARSED_OTHER_PROTO ? tunnel_parse(e, m, parsed, key, from_b, steering)
                                                                     : parsed;
}

/* ---- icmp.c ---- */
/* An ICMP error that speaks of a flow whose NF wants to hear of it: true, and it has met its end, or is on its way. */
bool icmp_take(struct nst_engine *e, struct nst_packet *p);

/* A packet that no flow will see. */
void pass_or_drop(struct nst_engine *e, struct nst_packet *p, enum parsed parsed);
/* One of the burst that is no flow's so far. False: it is one's after all, with the key and hash that are set now; true:
 * it has met its end, or is on its way. */
bool special_packet(struct nst_engine *e, unsigned i);

/* ---- burst.c ---- */
/* One turn; may wait. */
int engine_poll(struct nst_poller *self);
void packet_drop(struct nst_engine *e, struct nst_packet *p, enum nst_cause cause);

/* An inspector of this layer answers this when its packet must not pass: it cannot be kept. */
#define EV_REFUSED ((nst_events)1 << 31)
/* nst_tcp: bytes beyond the window; an old time stamp; no acknowledgment, or a bad one. */
#define EV_WINDOW ((nst_events)1 << 29)
#define EV_STALE ((nst_events)1 << 28)
#define EV_BAD_ACK ((nst_events)1 << 27)
/* What its receiver will not accept; where ERROR is registered, its handler decides. */
#define EV_UNACCEPTED (EV_WINDOW | EV_STALE | EV_BAD_ACK)
/* All that there is a policy for. */
#define EV_POLICY (EV_REFUSED | EV_UNACCEPTED | NST_EV_CONFLICT | NST_EV_MIDSTREAM)
/* In event_set.look only: an event of the NF's own may follow. */
#define EV_BUILT ((nst_events)1 << 30)
