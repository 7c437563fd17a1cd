/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's turn: a burst from each port, parsed and looked up as a whole, then packet by packet through the flows.
 */
#include "flow/tcp_end.h"
#include "flow/way.h"
#include <netinet/in.h>
#include <rte_prefetch.h>
#include <rte_tcp.h>

enum { BURSTS = 4 }; /* from one port in a turn */

/* ---- fates ---- */
void packet_drop(struct nst_engine *e, struct nst_packet *p, enum nst_cause cause)
{
    if (unlikely(p->flags & PACKET_WHOLE)) {
        whole_drop(e, p, cause);
        return;
    }
    e->stats.dropped[cause]++;
    rte_pktmbuf_free(mbuf_of(p));
}

int nst_packet_send(struct nst_packet *p, unsigned port)
{
    struct nst_engine *e = p->flow->engine;

    if (port >= e->n_ports) {
        packet_drop(e, p, NST_BY_HANDLER);
        return -EINVAL;
    }
    if (p->flags & PACKET_MAPPED) {
        if (edit_of(p->flow)->birth == p->birth)
            edit_leave(e, p->flow, p, e->ports[port], true);
        else /* its flow has ended: nobody knows its numbers any more */
            packet_drop(e, p, NST_BY_HANDLER);
        return 0;
    }
    if (p->flags & PACKET_WHOLE) {
        whole_send(e, p, e->ports[port], &e->stats.sent_by_handler);
        return 0;
    }
    e->stats.sent_by_handler++;
    port_tx(e->ports[port], mbuf_of(p));
    return 0;
}

void nst_packet_forward(struct nst_packet *p)
{
    struct nst_engine *e = p->flow->engine;

    engine_unkeep(e);
    if ((p->flags & PACKET_MAPPED) == 0)
        packet_forward(e, p);
    else if (edit_of(p->flow)->birth == p->birth)
        edit_leave(e, p->flow, p, e->peer[p->port], true);
    else
        packet_drop(e, p, NST_BY_HANDLER);
}

void nst_packet_free(struct nst_packet *p)
{
    packet_drop(p->flow->engine, p, NST_BY_HANDLER);
}

/* ---- the burst ---- */
/* What lies further in is asked for when it is needed. */
static inline void prefetch_flow(const struct nst_flow *f, size_t size)
{
    enum { LINE = 64, LINES = 5 };

    rte_prefetch0(f);
    rte_prefetch0((const uint8_t *)f + LINE);
    for (unsigned i = 2; i < LINES && i * LINE < size; i++)
        rte_prefetch0((const uint8_t *)f + i * LINE);
}

/* What is known of flows that are edited lies beside them. */
static void __attribute__((noinline)) prefetch_edited(const struct nst_engine *e)
{
    for (unsigned i = 0; i < e->n; i++) {
        if (e->guess[i] == NULL)
            continue;
        const uint8_t *at = (const uint8_t *)&e->edit_flows[flow_index(e, e->guess[i])];
        for (unsigned k = 0; k < sizeof(struct edit_flow); k += RTE_CACHE_LINE_SIZE)
            rte_prefetch0(at + k);
    }
}

/* An acknowledgment lets go of a piece or two that were kept a while ago. */
static void __attribute__((noinline)) prefetch_kept(const struct nst_engine *e, uint16_t state_at)
{
    const struct segment *first[PORT_BURST];

    for (unsigned i = 0; i < e->n; i++) {
        first[i] = e->guess[i] != NULL ? ((const struct tcp_end *)(e->guess[i]->state + state_at))->kept.first : NULL;
        if (first[i] != NULL)
            rte_prefetch0(first[i]);
    }
    for (unsigned i = 0; i < e->n; i++) {
        if (first[i] != NULL && first[i]->behind != 0)
            rte_prefetch0(first[i] + first[i]->behind);
    }
}

/* Of a burst in which nothing is special: else burst_special has done it. Bytes come from memory while those of the packet
 * before are added up; so do the flows of the burst. */
static void __attribute__((noinline)) burst_checksums(struct nst_engine *e)
{
    enum { AHEAD = 2, LINE = 64 };

    for (unsigned i = 0; i < e->n; i++) {
        if (i + AHEAD < e->n) {
            const struct rte_mbuf *m = e->mbuf[i + AHEAD];
            const uint8_t *d = rte_pktmbuf_mtod(m, const uint8_t *), *end = d + rte_pktmbuf_data_len(m);
            for (d += LINE; d < end; d += LINE)
                rte_prefetch0(d);
        }
        if (e->parsed[i] == PARSED_FLOW && !checksums_hold(e, packet_of(e->mbuf[i]))) {
            e->stats.faults[NST_FAULT_CHECKSUM]++;
            e->parsed[i] = PARSED_CHECKSUM;
            e->guess[i] = NULL;
        }
    }
}

/* Step by step for the whole burst, so that what one packet waits for from memory comes while others are worked on. */
static void burst_lookup(struct nst_engine *e)
{
    const struct table_bucket *bucket[PORT_BURST];
    unsigned n = e->n, flags = 0;
    bool special = e->tunnels != 0;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < n; i++)
        rte_prefetch0(rte_pktmbuf_mtod(e->mbuf[i], void *));
    for (unsigned i = 0; i < n; i++) {
        struct rte_mbuf *m = e->mbuf[i];
        struct nst_packet *p = packet_of(m);
        bytes += rte_pktmbuf_pkt_len(m);
        e->parsed[i] = (uint8_t)parse_packet(m, &p->h, &e->key[i], &e->from_b[i]);
        flags |= p->flags;
        if (unlikely(e->parsed[i] != PARSED_FLOW)) {
            special = true;
            continue;
        }
        if (unlikely(e->proto != 0 && p->h.proto != e->proto)) {
            e->parsed[i] = PARSED_OTHER_PROTO;
            continue;
        }
        e->hash[i] = key_hash(&e->key[i], &e->secret);
        bucket[i] = table_prefetch(&e->table, e->hash[i]);
    }
    if (unlikely(special)) {
        burst_special(e, bucket);
        n = e->n;
    }
    for (unsigned i = 0; i < n; i++) {
        e->guess[i] = NULL;
        if (unlikely(e->parsed[i] != PARSED_FLOW))
            continue;
        uint32_t guess = table_guess(bucket[i], e->hash[i]);
        if (likely(guess != NO_FLOW)) {
            e->guess[i] = flow_at(e, guess);
            prefetch_flow(e->guess[i], e->flows.stride);
        }
    }
    if (!special && (flags & e->checks) != 0)
        burst_checksums(e);
    if (unlikely(e->edits != 0))
        prefetch_edited(e);
    for (unsigned side = 0; side < 2 && e->stream.used != 0; side++) {
        if (e->half[side].inspect == &nst_tcp)
            prefetch_kept(e, e->state_at[side]);
    }
    e->stats.bytes += bytes;
}

static inline bool is_first_syn(const struct nst_packet *p)
{
    return (p->h.tcp_flags & (RTE_TCP_SYN_FLAG | RTE_TCP_ACK_FLAG)) == RTE_TCP_SYN_FLAG && p->h.proto == IPPROTO_TCP;
}

/* Who opened the flow, judged by its first packet. */
static bool sender_is_client(const struct nst_packet *p, const struct flow_key *key, bool from_b)
{
    if (p->h.proto != IPPROTO_TCP)
        return true;
    if (p->h.tcp_flags & RTE_TCP_SYN_FLAG)
        return (p->h.tcp_flags & RTE_TCP_ACK_FLAG) == 0;
    uint16_t from = from_b ? key_port_b(key) : key_port_a(key), to = from_b ? key_port_a(key) : key_port_b(key);
    return from >= to;
}

static struct nst_flow *__attribute__((noinline))
find_flow(struct nst_engine *e, unsigned i, const struct nst_packet *p)
{
    struct nst_flow *f = flows_find(e, &e->key[i], e->hash[i]);

    if (f == NULL) {
        bool client_is_b = e->from_b[i] == sender_is_client(p, &e->key[i], e->from_b[i]);
        f = flows_add(e, &e->key[i], e->hash[i], client_is_b,
                      p->h.proto == IPPROTO_TCP ? LIFE_UNANSWERED : LIFE_UDP_ONE_WAY);
        if (f != NULL && is_first_syn(p))
            f->flags |= FLOW_BY_SYN;
        if (f != NULL && e->from_b[i] != client_is_b)
            f->flags |= FLOW_BACK_FIRST;
        if (f != NULL && ((p->port & 1) ^ e->from_b[i] ^ client_is_b))
            f->flags |= FLOW_CLIENT_ODD;
    }
    return f;
}

/* A SYN takes the tuple of a connection that is over, and of one of which nothing is known but a stray packet: that may
 * have been sent to have the ends taken for each other. */
static struct nst_flow *__attribute__((noinline, cold))
flow_for_syn(struct nst_engine *e, unsigned i, const struct nst_packet *p, struct nst_flow *f)
{
    if (f->life != LIFE_CLOSING &&
        ((f->life != LIFE_OPENING && f->life != LIFE_UNANSWERED) || (f->flags & FLOW_BY_SYN)))
        return f;
    bool from_client = e->from_b[i] == ((f->flags & FLOW_CLIENT_IS_B) != 0);
    if (f->why == NST_CLOSED_BY_FIN && !tcp_may_begin_anew(f, from_client ? NST_SERVER : NST_CLIENT, p))
        return f;
    flows_retire(f, NST_CLOSED_BY_FIN);
    return find_flow(e, i, p);
}

static void __attribute__((noinline, cold)) refuse_flow(struct nst_engine *e, struct nst_packet *p)
{
    enum nst_verdict v = policy_of(e, NST_BY_NO_MEMORY);

    if (v == NST_FORWARD || v == NST_FORWARD_FLOW)
        packet_forward(e, p);
    else
        packet_drop(e, p, NST_BY_NO_MEMORY);
}

/* It claims to come from the other side of this wire: somebody speaks in another's name, and could acknowledge for him.
 * True: the policy lets it pass. */
static bool __attribute__((noinline, cold)) wrong_side(struct nst_engine *e, struct nst_packet *p)
{
    enum nst_verdict v = policy_of(e, NST_BY_CONFLICT);

    e->stats.conflicts++;
    if (v == NST_FORWARD || v == NST_FORWARD_FLOW)
        return true;
    packet_drop(e, p, NST_BY_CONFLICT);
    return false;
}

static inline void engine_packet(struct nst_engine *e, unsigned i)
{
    struct nst_packet *p = packet_of(e->mbuf[i]);
    struct nst_flow *f = e->guess[i];

    /* A flow that has gone since the burst was looked up is retired, and stays so until its memory is another's. */
    if (unlikely(f == NULL || (f->flags & FLOW_RETIRED) || !key_equal(&f->key, &e->key[i]))) {
        if (e->parsed[i] != PARSED_FLOW && special_packet(e, i))
            return;
        f = find_flow(e, i, p);
    }
    if (unlikely(is_first_syn(p)) && f != NULL)
        f = flow_for_syn(e, i, p, f);
    if (unlikely(f == NULL)) {
        refuse_flow(e, p);
        return;
    }
    f->seen = e->tick;
    p->flow = f;
    p->dir = e->from_b[i] ^ (f->flags / FLOW_CLIENT_IS_B & 1);
    if (unlikely((((unsigned)p->port ^ p->dir) * FLOW_CLIENT_ODD ^ f->flags) & e->two_sided) && !wrong_side(e, p))
        return;
    if (unlikely(f->life >= LIFE_UNSETTLED))
        flows_heard(f, p);
    if (unlikely(f->flags & FLOW_EDITED))
        edit_enter(e, f, p);
    flow_way(e, f, p, 0);
}

static inline void set_tick(struct nst_engine *e, nst_time now)
{
    e->tick = (uint32_t)((uint64_t)now >> TICK_SHIFT);
}

/* ---- captures: the same result at any speed ---- */

/* A capture goes on without waiting for us, but what it shows happened in order: an answer must not be looked at before
 * what it answers. So a packet waits while its own flow has an event under way; while a flow is being closed, whose
 * tuple a new one may have taken; and, since flows end by the packets' times, while any event is under way and the
 * packet is much later. */
static bool __attribute__((noinline)) replay_waits(struct nst_engine *e, unsigned i)
{
    const struct nst_packet *p = packet_of(e->mbuf[i]);
    enum { AHEAD_MS = 500 };

    if (engine_turns(e) == 0 && e->resumed == NULL)
        return false;
    if (e->closing != 0 || p->time > nst_self->now + NST_MS(AHEAD_MS))
        return true;
    if (e->parsed[i] != PARSED_FLOW)
        return false;
    const struct nst_flow *f = flows_find(e, &e->key[i], e->hash[i]);
    return f != NULL && (turn_runs(f->turn[0]) || turn_runs(f->turn[1]));
}

/* Its packets' times drive the clock, which stands while an event is under way so that no wait ends early, and flows
 * end by them. */
static void __attribute__((noinline)) replay_time(struct nst_engine *e, const struct nst_packet *p)
{
    uint32_t tick = e->tick;

    if (engine_turns(e) == 0)
        nst_clock_set(e->reactor, p->time);
    set_tick(e, p->time);
    if (e->tick != tick) {
        flows_expire(e);
        fragments_expire(&e->fragments, e->tick);
    }
}

static bool is_quiet(const struct nst_engine *e)
{
    return engine_turns(e) == 0 && e->i == e->n && e->resumed == NULL && e->ending.oldest == NO_FLOW;
}

static void __attribute__((noinline)) tell_quiet(struct nst_engine *e)
{
    if (e->was_quiet || !is_quiet(e))
        return;
    e->was_quiet = true;
    for (unsigned i = 0; i < e->n_in; i++) {
        port_flush(e->ports[i]);
        /* A capture is written in order: fragments that wait come before what has gone out since. But what other cores have
         * given is done with: they would wait for fragments that may never become whole. */
        if (e->ports[i]->ops->quiet != NULL && (i == e->n_ports || !fragments_waiting(&e->fragments)))
            e->ports[i]->ops->quiet(e->ports[i]);
    }
    if (e->quiet != NULL)
        e->quiet(e->quiet_arg);
}

static void __attribute__((noinline)) receive(struct nst_engine *e, struct nst_port *port)
{
    e->i = 0;
    e->n = (uint16_t)port_rx(port, e->mbuf, PORT_BURST);
    if (e->n == 0)
        return;
    e->found_work = true;
    e->was_quiet = false;
    e->full = e->n == PORT_BURST;
    if (unlikely(e->cores != NULL)) {
        if (port == e->ports[e->n_ports])
            e->stats.taken_over += e->n;
        else if (e->active != 0)
            cores_steer(e);
    }
    e->stats.packets += e->n;
    if (e->active != 0) {
        burst_lookup(e);
        return;
    }
    /* No part at all: nothing has to be known of the packets. */
    for (; e->i < e->n; e->i++) {
        e->stats.bytes += rte_pktmbuf_pkt_len(e->mbuf[e->i]);
        packet_forward(e, packet_of(e->mbuf[e->i]));
    }
}

static void __attribute__((noinline, cold)) tell_waiters(struct nst_engine *e)
{
    if (e->waiter == NULL || !is_quiet(e))
        return;
    bool done = (e->wait_for == WAIT_TURNS && (e->n == 0 || e->n_in == e->n_ports)) ||
                (e->wait_for == WAIT_FLOWS && e->stats.flows == 0);
    if (e->wait_for == WAIT_INPUT) {
        done = true;
        for (unsigned i = 0; i < e->n_in; i++)
            done = done && e->ports[i]->ops->ended != NULL && e->ports[i]->ops->ended(e->ports[i]);
    }
    if (done) {
        struct nst_future *f = e->waiter;
        e->waiter = NULL;
        nst_fulfil(f, 0);
    }
}

/* A port that filled the last burst has more. It is asked again in the same turn as long as nothing has to wait:
 * answers come, and requests leave, between two turns. */
static inline bool more_waits(const struct nst_engine *e)
{
    return e->full && e->more != 0 && !e->replay && engine_turns(e) == 0;
}

int engine_poll(struct nst_poller *self)
{
    struct nst_engine *e = (struct nst_engine *)self;

    if (!nst_poll_again()) {
        e->found_work = false;
        e->port = e->paused ? e->n_ports : 0;
        e->more = 0;
        nst_running(e->nf->name);
        if (!e->replay) {
            set_tick(e, nst_now());
            if (e->tick != e->expired_at) {
                if (flows_expire(e)) /* else in the next turn, so that flows end as fast as they come */
                    e->expired_at = e->tick;
                fragments_expire(&e->fragments, e->tick);
            }
        }
    }
    if (e->resumed != NULL) {
        e->found_work = true;
        half_resumed(e);
        if (nst_moved())
            return 1;
    }
    for (;;) {
        while (e->i < e->n) {
            unsigned i = e->i;
            if (e->replay) {
                if (replay_waits(e, i)) {
                    nst_clock_idle(e->reactor, true);
                    return e->found_work;
                }
                replay_time(e, packet_of(e->mbuf[i]));
            }
            if (unlikely(e->retired)) { /* at once, not at the end of whatever burst this is */
                flows_end(e);
                if (nst_moved())
                    return 1;
            }
            e->i++;
            engine_packet(e, i);
            if (unlikely(e->reactor->current->flags & TASK_MOVED)) {
                e->stats.waits++;
                e->may_wait = true;
                return 1;
            }
        }
        if (unlikely(e->draining && e->cores == NULL))
            break;
        if (more_waits(e)) {
            e->more--;
            receive(e, e->ports[e->port - 1]);
            continue;
        }
        if (e->port >= e->n_in)
            break;
        struct nst_port *port = e->ports[e->port++];
        e->more = BURSTS - 1;
        if (port->replay) {
            tell_quiet(e);
            if (!is_quiet(e))
                continue;
        }
        receive(e, port);
    }
    if (e->ending.oldest != NO_FLOW) {
        flows_end(e);
        if (nst_moved())
            return 1;
    }
    for (unsigned i = 0; i < e->n_ports; i++)
        port_flush(e->ports[i]);
    tell_quiet(e);
    tell_waiters(e);
    if (e->replay)
        nst_clock_idle(e->reactor, engine_turns(e) != 0);
    return e->found_work;
}
