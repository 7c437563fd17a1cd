/* SPDX-License-Identifier: Apache-2.0 */
/* NetStar over a capture in memory: a port whose packet buffers are warm and point to the frames where they lie, as a
 * network card would have written them; both ends are followed by nst_tcp. */
#include "rebuild.h"
#include <netstar/netstar.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct capture_port {
    struct nst_port port;
    const struct rebuild_capture *capture;
    struct rte_mempool *pool;
    uint64_t next, passes; /* frame of this pass; passes that are still to come, this one included */
    uint64_t sent, mark;
    void (*reached)(struct capture_port *p);
    void *arg;
};

struct run {
    struct capture_port port;
    struct contestant *c;
    const struct rebuild *what;
    struct nst_engine *engine;
    struct rebuild_result result;
    struct nst_future sent;
    uint64_t from;
    int rc;
};

static unsigned port_receive(struct nst_port *port, struct rte_mbuf **m, unsigned n)
{
    struct capture_port *p = (struct capture_port *)port;
    const struct rebuild_capture *c = p->capture;
    nst_time now = nst_now();

    n = RTE_MIN((uint64_t)n, c->packets - p->next);
    if (n == 0 || p->passes == 0 || rte_pktmbuf_alloc_bulk(p->pool, m, n) != 0)
        return 0;
    for (unsigned i = 0; i < n; i++) {
        const struct rebuild_frame *f = &c->frames[p->next + i];
        rebuild_fetch(c, p->next + i + REBUILD_AHEAD, 1);
        m[i]->buf_addr = (uint8_t *)c->bytes + (size_t)f->at * REBUILD_ALIGN;
        m[i]->data_off = REBUILD_LEAD;
        m[i]->data_len = f->len;
        m[i]->pkt_len = f->len;
        port_stamp(port, m[i], now);
    }
    p->next += n;
    if (p->next == c->packets) {
        p->next = 0;
        p->passes--;
    }
    return n;
}

static void port_send(struct nst_port *port, struct rte_mbuf **m, unsigned n)
{
    struct capture_port *p = (struct capture_port *)port;

    rte_pktmbuf_free_bulk(m, n);
    p->sent += n;
    if (p->sent >= p->mark)
        p->reached(p);
}

static int port_end(struct nst_port *port)
{
    return 0;
}

static const struct port_ops ops = { .driver = "capture", .rx = port_receive, .tx = port_send, .close = port_end };

/* ---- the network function ---- */
static void __attribute__((noinline, cold))
compare(struct nst_flow *f, struct run *r, enum nst_side side, uint64_t offset, const struct nst_slice *piece)
{
    struct nst_endpoint client;
    uint32_t addr;

    nst_flow_endpoint(f, NST_CLIENT, &client);
    memcpy(&addr, client.addr, sizeof addr);
    rebuild_answer_add(&r->result.answer, __builtin_bswap32(addr), client.port, side == NST_CLIENT, offset,
                       (const uint8_t *)piece->p, piece->len);
}

static enum nst_verdict on_data(struct nst_flow *f, const struct nst_event *ev)
{
    struct run *r = nst_nf_arg(f);
    struct nst_slice piece;
    uint64_t offset = 0;

    if (__builtin_expect(r->result.compare, 0))
        offset = nst_tcp_offset(f, ev->side);
    while (nst_flow_bytes(f, ev->side, &piece)) {
        if (__builtin_expect(r->result.compare, 0))
            compare(f, r, ev->side, offset, &piece);
        offset += piece.len;
        r->result.sum += rebuild_sum(piece.p, piece.len);
        r->result.bytes += piece.len;
    }
    return NST_FORWARD;
}

static const struct nst_nf nf = {
    .name = "rebuild",
    .half[NST_CLIENT] = { .inspect = &nst_tcp, .on_received = NST_EV_DATA, .handler = on_data },
    .half[NST_SERVER] = { .inspect = &nst_tcp, .on_received = NST_EV_DATA, .handler = on_data },
    .policy.budget = NST_SEC(600),
};

/* ---- a run ---- */
static int fail(struct run *r, const char *why, int rc)
{
    struct nst_engine_stats s;

    fprintf(stderr, "bench: %s: %s: %s\n", r->c->name, why, strerror(-rc));
    if (r->engine != NULL) {
        nst_engine_stats(r->engine, &s);
        fprintf(stderr, "  packets %lu, forwarded %lu, flows opened %lu, stream bytes %lu\n", s.packets, s.forwarded,
                s.flows_opened, s.stream_bytes);
        for (int i = 0; i < NST_CAUSES; i++) {
            if (s.dropped[i] != 0)
                fprintf(stderr, "  dropped by %s: %lu\n", nst_cause_name(i), s.dropped[i]);
        }
    }
    return rc;
}

static void give_up(struct nst_future *f)
{
    struct run *r = f->op;

    r->port.mark = UINT64_MAX;
    nst_fulfil(f, -ECANCELED);
}

static void all_sent(struct capture_port *p)
{
    struct run *r = p->arg;

    p->mark = UINT64_MAX;
    nst_fulfil(&r->sent, 0);
}

static void measured(struct capture_port *p)
{
    struct run *r = p->arg;

    contest_took(r->c, contest_clock() - r->from);
    all_sent(p);
}

static void warmed(struct capture_port *p)
{
    struct run *r = p->arg;

    p->mark += r->what->passes * r->what->capture->packets;
    p->reached = measured;
    r->from = contest_clock();
}

/* Lets the port give out so many passes and waits until all their packets are sent. */
static int pass(struct run *r, unsigned passes, void (*reached)(struct capture_port *))
{
    nst_future_init(&r->sent);
    r->sent.stop = give_up;
    r->sent.op = r;
    r->port.reached = reached;
    r->port.mark = r->port.sent + r->what->capture->packets;
    r->port.passes = passes;
    return nst_await(&r->sent, nst_clock() + NST_SEC(120));
}

static int verify(struct run *r, uint64_t passes)
{
    struct nst_engine_stats s;

    nst_engine_stats(r->engine, &s);
    if (s.packets != s.forwarded || s.packets != passes * r->what->capture->packets)
        return fail(r, "not every packet was forwarded", -EPROTO);
    if (s.flows_opened != passes * r->what->capture->connections || s.flows_evicted != 0)
        return fail(r, "not every connection was followed", -EPROTO);
    return rebuild_counted(r->c, &r->result, passes);
}

static void main_task(void *arg)
{
    struct run *r = arg;
    struct nst_nf own = nf;
    const struct nst_engine_config config = { .nf = &own, .nf_arg = r, .flows = 1 << 17 };
    struct nst_port *ports[] = { &r->port.port };
    uint64_t passes = 1;

    if (!r->what->keep)
        own.policy.on_conflict = NST_FORWARD;
    r->rc = nst_engine_open(&r->engine, &config, ports, 1);
    if (r->rc < 0) {
        fail(r, "opening the engine", r->rc);
        goto stop;
    }
    r->result.compare = true;
    r->rc = pass(r, 1, all_sent);
    r->result.compare = false;
    if (r->rc == 0)
        r->rc = rebuild_compared(r->c, &r->result);
    while (r->rc == 0 && contest_next(r->c)) {
        passes += 1 + r->what->passes;
        r->rc = pass(r, 1 + r->what->passes, warmed);
    }
    r->rc = r->rc < 0 ? fail(r, "feeding packets", r->rc) : verify(r, passes);
    if (nst_engine_drain(r->engine, nst_clock() + NST_SEC(60)) < 0)
        r->rc = fail(r, "draining", -ETIMEDOUT);
    nst_engine_close(r->engine);
stop:
    nst_reactor_stop(nst_reactor_self());
}

int rebuild_netstar(struct contestant *c)
{
    const struct nst_reactor_config config = {
        .name = c->name, .cpu = c->contest->cpu, .busy_poll = true, .stall_after = NST_SEC(600)
    };
    struct nst_reactor *reactor;
    struct run *r = calloc(1, sizeof *r);
    int rc;

    if (r == NULL)
        return -ENOMEM;
    r->c = c;
    r->what = c->arg;
    r->port = (struct capture_port){
        .port = { .ops = &ops, .checksums_trusted = r->what->no_checksums, .name = "capture" },
        .capture = r->what->capture,
        .pool = c->contest->pool,
        .mark = UINT64_MAX,
        .arg = r,
    };
    rc = nst_reactor_open(&reactor, &config);
    if (rc == 0) {
        rc = nst_reactor_run(reactor, main_task, r);
        nst_reactor_close(reactor);
    }
    if (rc < 0)
        fail(r, "the reactor", rc);
    rc = rc < 0 ? rc : r->rc;
    free(r);
    return rc;
}
