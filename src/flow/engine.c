/* SPDX-License-Identifier: Apache-2.0 */
/* An engine's life: opening, waiting for its end, draining, closing, numbers. What it does all day is in burst.c. */
#include "flow/edit.h"
#include "flow/tcp_overlap.h"
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { NAP_US = 100 };

/* ---- opening and closing ---- */
static int check_nf(const struct nst_nf *nf)
{
    if (nf == NULL || nf->name == NULL || nf->flow_size > 1024)
        return -EINVAL;
    for (unsigned side = 0; side < 2; side++) {
        const struct nst_half *h = &nf->half[side];
        if (h->handler != NULL && h->loop != NULL)
            return -EINVAL;
        if (h->inspect != NULL && (h->inspect->packet == NULL || h->inspect->size > 256))
            return -EINVAL;
        if (nf->proto == NST_PROTO_ANY && (h->inspect == &nst_tcp || h->inspect == &nst_udp))
            return -EINVAL;
        if (h->inspect == &nst_tcp && nf->proto != IPPROTO_TCP && nf->proto != 0)
            return -EINVAL;
        if (h->edits && h->inspect != &nst_tcp && h->inspect != &nst_udp)
            return -EINVAL;
        if (h->inspect == &nst_udp && nf->proto != IPPROTO_UDP && nf->proto != 0)
            return -EINVAL;
    }
    return watch_check(nf);
}

static uint32_t ticks(nst_time t, nst_time otherwise)
{
    return (uint32_t)((uint64_t)(t != 0 ? t : otherwise) >> TICK_SHIFT) + 1;
}

static int watch_ports(struct nst_engine *e)
{
    bool nap = false;

    for (unsigned i = 0; i < e->n_in; i++) {
        const struct port_ops *ops = e->ports[i]->ops;
        int rc = ops->attach != NULL ? ops->attach(e->ports[i], e->reactor) : -ENOTSUP;
        if (rc == -ENOTSUP)
            nap = true;
        else if (rc < 0)
            return rc;
        else
            e->watched |= (uint64_t)1 << i;
    }
    if (nap)
        nst_reactor_nap(e->reactor, NST_US(NAP_US));
    return 0;
}

static void set_defaults(struct nst_engine *e, const struct nst_engine_config *c)
{
    enum { POOL_SHARE = 2 };

    e->idle[LIFE_OPENING] = ticks(c->idle_open, NST_SEC(30));
    e->idle[LIFE_ESTABLISHED] = ticks(c->idle_established, NST_SEC(3600));
    e->idle[LIFE_CLOSING] = ticks(c->idle_closing, NST_SEC(10));
    e->idle[LIFE_UDP] = ticks(c->idle_udp, NST_SEC(60));
    e->idle[LIFE_UDP_ONE_WAY] = e->idle[LIFE_UDP];
    e->idle[LIFE_UNANSWERED] = e->idle[LIFE_OPENING];
    e->idle[LIFE_ONE_WAY] = e->idle[LIFE_ESTABLISHED];
    e->in_use = ticks(c->in_use, NST_SEC(300));
    e->idle[LIFE_BLOCKED] = ticks(0, NST_SEC(60));
    e->stream.per_end = c->stream_per_end != 0 ? c->stream_per_end : 8 << 20;
    e->checks = c->trust_checksums ? PACKET_CHECKSUM_BAD : PACKET_CHECKSUM_BAD | PACKET_CHECKSUM_OPEN;
    e->held_limit = port_pool != NULL ? port_pool->size / POOL_SHARE / nst_cores_count(c->cores) : UINT32_MAX;
    for (unsigned side = 0; side < 2; side++) {
        const struct nst_half *h = &e->nf->half[side];
        e->inspect[side] = h->inspect;
        e->handler[side] = h->handler;
        e->detour[side] = (uint16_t)(FLOW_DROP | FLOW_LOOPS | 1 << side);
        e->loops = e->loops || h->loop != NULL;
        if (h->handler != NULL || h->loop != NULL || h->inspect != NULL)
            e->active |= (uint8_t)(1 << side);
        if (h->edits && h->inspect == &nst_tcp)
            e->edits |= (uint8_t)(1 << side);
    }
    watch_open(e);
    e->stages[0] = e->active; /* from the client its own half comes first */
    e->stages[1] = (uint8_t)((e->active >> 1) | (e->active & 1) << 1);
}

/* The ports, the inbox behind them, and by each port where its packets leave. */
static int take_ports(struct nst_engine *e, struct nst_port *const ports[], unsigned n)
{
    bool inbox = e->cores != NULL;

    e->ports = malloc((2 * n + inbox) * sizeof *e->ports);
    if (e->ports == NULL)
        return -ENOMEM;
    memcpy(e->ports, ports, n * sizeof *e->ports);
    if (inbox)
        e->ports[n] = handoff_inbox(e->cores->handoff, e->core);
    e->n_ports = (uint16_t)n;
    e->n_in = (uint16_t)(n + inbox);
    e->peer = e->ports + e->n_in;
    for (unsigned i = 0; i < e->n_in; i++) {
        e->ports[i]->index = (uint16_t)i;
        e->replay = e->replay || e->ports[i]->replay;
    }
    for (unsigned i = 0; i < n; i++)
        e->peer[i] = e->ports[i ^ (n > 1)];
    e->two_sided = n > 1 && !e->replay ? FLOW_CLIENT_ODD : 0;
    for (unsigned side = 0; side < 2; side++) {
        /* Many captures, and NFs that follow one end, see one direction only: there nobody confirms anything. */
        e->strict[side] = !e->replay && e->nf->half[!side].inspect == &nst_tcp;
        e->unkept[side] =
            !e->strict[side] || e->policy.on_no_memory == NST_FORWARD || e->policy.on_no_memory == NST_FORWARD_FLOW;
        if (e->edits & 1 << side) /* what leaves may have to be built out of it */
            e->unkept[side] = false;
    }
    return 0;
}

/* The secret of all cores is the same, since the choice of the core is by the same hash. */
static int take_secret(struct nst_engine *e)
{
    if (e->cores != NULL)
        e->secret = e->cores->secret;
    else if (getrandom(&e->secret, sizeof e->secret, 0) != sizeof e->secret)
        return -EIO;
    return 0;
}

static int open_fragments(struct nst_engine *e, const struct nst_engine_config *c)
{
    enum { LIMIT = 4096, POOL_SHARE = 8, MEMORY = 16 << 20 };
    uint32_t limit = c->fragments != 0 ? c->fragments : LIMIT;

    if (port_pool != NULL && limit > port_pool->size / POOL_SHARE)
        limit = port_pool->size / POOL_SHARE;
    return fragments_open(&e->fragments, limit, c->fragment_memory != 0 ? c->fragment_memory : MEMORY,
                          ticks(c->fragment_time, NST_SEC(30)), &e->secret, fragment_give_up, e);
}

/* What lies behind them is parsed only where somebody asks for it. */
static int open_tunnels(struct nst_engine *e, const struct nst_engine_config *c)
{
    uint32_t limit = c->networks != 0 ? c->networks : NETWORKS_DEFAULT;

    e->tunnels = (uint8_t)(e->nf->tunnels | c->tunnels);
    if ((e->nf->tunnels | c->tunnels) > NST_TUNNELS_ALL || limit > NETWORKS_MAX)
        return -EINVAL;
    return e->tunnels != 0 ? networks_open(&e->networks, limit, e->fragments.life, &e->secret) : 0;
}

int nst_engine_open(struct nst_engine **out, const struct nst_engine_config *config, struct nst_port *const ports[],
                    unsigned n)
{
    struct nst_reactor *r = nst_reactor_self();
    int rc = check_nf(config->nf);

    if (config->cores != NULL) {
        if (config->core >= config->cores->n)
            return -EINVAL;
        ports = cores_ports(config->cores, config->core);
        n = config->cores->n_ports;
    }
    if (rc < 0 || r == NULL || n == 0 || n > 32 || (n > 1 && n % 2 != 0))
        return -EINVAL;
    struct nst_engine *e = aligned_alloc(64, (sizeof *e + 63) & ~(size_t)63);
    if (e == NULL)
        return -ENOMEM;
    memset(e, 0, sizeof *e);
    e->poller.poll = engine_poll;
    e->nf = config->nf;
    e->nf_arg = config->nf_arg;
    e->any = e->nf->proto == NST_PROTO_ANY;
    e->proto = e->any ? 0 : e->nf->proto;
    for (unsigned side = 0; side < 2 && e->proto == 0; side++) {
        const struct nst_inspector *inspect = e->nf->half[side].inspect;
        e->proto = inspect == &nst_tcp ? IPPROTO_TCP : inspect == &nst_udp ? IPPROTO_UDP : 0;
    }
    e->policy = e->nf->policy;
    e->reactor = r;
    e->quiet = config->quiet;
    e->quiet_arg = config->quiet_arg;
    e->was_quiet = true;
    e->failed = NST_CAUSES;
    e->resumed_tail = &e->resumed;
    e->cores = config->cores;
    e->core = (uint16_t)config->core;
    rc = policy_init(&e->policy);
    if (rc == 0)
        rc = overlap_open(e, config);
    memcpy(e->half, e->nf->half, sizeof e->half);
    set_defaults(e, config);
    if (rc == 0)
        rc = take_secret(e);
    if (rc == 0)
        rc = take_ports(e, ports, n);
    if (rc == 0)
        rc = flows_open(e, config->flows != 0 ? config->flows : 1 << 20);
    if (rc == 0)
        rc = open_fragments(e, config);
    if (rc == 0)
        rc = open_tunnels(e, config);
    if (rc == 0)
        rc = edit_open(e, e->flows.limit, config->edit_memory, config->edit_per_stream);
    if (rc == 0)
        rc = stream_pool_open(&e->stream, config->stream_memory != 0 ? config->stream_memory : (size_t)256 << 20);
    if (rc == 0)
        rc = nst_scope_open(&e->scope, NULL);
    if (rc == 0) {
        e->stats.bytes_per_flow = nst_engine_flow_bytes(e->nf);
        rc = watch_ports(e);
    }
    if (rc < 0) {
        nst_engine_close(e);
        return rc;
    }
    nst_poller_add(r, &e->poller);
    e->polled = true;
    *out = e;
    return 0;
}

void nst_engine_close(struct nst_engine *e)
{
    if (e == NULL)
        return;
    if (e->polled)
        nst_poller_remove(e->reactor, &e->poller);
    for (unsigned i = 0; i <= e->n_ports; i++) {
        if ((e->watched & (uint64_t)1 << i) && e->ports[i]->ops->detach != NULL)
            e->ports[i]->ops->detach(e->ports[i], e->reactor);
    }
    if (e->scope != NULL && nst_scope_close(e->scope) < 0)
        nst_log(NST_LOG_ERROR, "%s: an engine was closed by one of its own loops", e->nf->name);
    edit_close(e);
    flows_close(e);
    stream_pool_close(&e->stream);
    fragments_close(&e->fragments);
    networks_close(&e->networks);
    overlap_close(e);
    while (e->turn_pool != NULL) {
        struct flow_turn *t = e->turn_pool;
        e->turn_pool = t->next;
        free(t);
    }
    free(e->ports);
    free(e);
}

static void stop_wait(struct nst_future *f)
{
    struct nst_engine *e = f->op;

    e->waiter = NULL;
    nst_fulfil(f, -ECANCELED);
}

static int wait_for(struct nst_engine *e, enum engine_wait what, nst_time until)
{
    struct nst_future f;

    nst_future_init(&f);
    f.op = e;
    f.stop = stop_wait;
    e->wait_for = what;
    e->waiter = &f;
    return nst_await(&f, until);
}

int nst_engine_finish(struct nst_engine *e)
{
    return wait_for(e, WAIT_INPUT, NST_NEVER);
}

/* Every handler that still runs hears -ECANCELED from now on. */
static void cancel_turns(struct nst_engine *e)
{
    for (uint32_t n = 0; n < e->flows.touched; n++) {
        struct nst_flow *f = flow_at(e, n);
        for (unsigned side = 0; side < 2; side++) {
            if (f->turn[side] != NULL && f->turn[side]->task != NULL)
                nst_task_cancel(f->turn[side]->task);
        }
    }
}

/* Waits for more than the handlers' own end; then they are cancelled, and once more. */
static int end_of(struct nst_engine *e, enum engine_wait what, nst_time until)
{
    int rc = wait_for(e, what, until);

    if (rc != -ETIMEDOUT)
        return rc;
    cancel_turns(e);
    return wait_for(e, what, nst_now() + NST_SEC(1));
}

void nst_engine_pause(struct nst_engine *e)
{
    e->paused = true;
}

int nst_engine_drain(struct nst_engine *e, nst_time until)
{
    e->draining = e->paused = true;
    int rc = end_of(e, WAIT_TURNS, until);
    /* What is handed over from now on would open flows anew: nst_cores_close finds it. */
    e->n_in = e->n_ports;
    fragments_flush(&e->fragments);
    if (rc == 0) {
        for (unsigned life = 0; life < LIVES; life++) {
            while (e->list[life].oldest != NO_FLOW)
                flows_retire(flow_at(e, e->list[life].oldest), NST_CLOSED_BY_SHUTDOWN);
        }
        rc = end_of(e, WAIT_FLOWS, nst_now() + e->policy.budget + NST_SEC(1));
    }
    for (unsigned i = 0; i < e->n_ports; i++)
        port_flush(e->ports[i]);
    return rc;
}

/* ---- numbers ---- */
size_t nst_engine_flow_bytes(const struct nst_nf *nf)
{
    uint16_t at[3];
    bool edits = false;
    for (unsigned side = 0; side < 2; side++)
        edits = edits || (nf->half[side].edits && nf->half[side].inspect == &nst_tcp);
    return flows_stride(nf, at) + sizeof(struct table_bucket) / BUCKET_SHARE + sizeof(uint32_t) +
           (edits ? sizeof(struct edit_flow) : 0);
}

void nst_engine_stats(const struct nst_engine *e, struct nst_engine_stats *out)
{
    *out = e->stats;
    out->fragments_kept = e->fragments.kept;
    out->fragments_kept_peak = e->fragments.kept_peak;
    out->datagrams = e->fragments.wholes_made;
    out->networks = e->networks.used;
    out->stream_kept = (uint64_t)e->stream.used * SEGMENT_BLOCK;
    out->edit_kept = (uint64_t)e->edit_pool.used * EDIT_BLOCK;
    out->edit_kept_peak = (uint64_t)e->edit_pool.used_peak * EDIT_BLOCK;
    out->stream_kept_peak = (uint64_t)e->stream.used_peak * SEGMENT_BLOCK;
    for (unsigned i = 0; i < e->n_ports; i++) {
        struct nst_port_stats p = { 0 };
        if (e->ports[i]->shared)
            continue; /* it counts what other cores gave it, too: see nst_cores_stats */
        nst_port_stats(e->ports[i], &p);
        out->dropped[NST_BY_TX_FULL] += p.tx_dropped;
    }
    /* They were on their way out when the port refused them. */
    out->forwarded -= out->dropped[NST_BY_TX_FULL] < out->forwarded ? out->dropped[NST_BY_TX_FULL] : out->forwarded;
}
