/* SPDX-License-Identifier: Apache-2.0 */
#include "contestants.h"
#include <rte_malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run {
    struct trace_port port;
    struct contestant *c;
    const struct engine_contest *what;
    struct nst_engine *engine;
    struct work work;
    struct nst_future sent; /* what was asked of the port is sent */
    uint64_t from;          /* the clock at the first counted packet */
    int rc;
};

static int fail(struct run *r, const char *why, int rc)
{
    struct nst_engine_stats s;

    fprintf(stderr, "bench: %s: %s: %s\n", r->c->name, why, strerror(-rc));
    if (r->engine != NULL) {
        nst_engine_stats(r->engine, &s);
        fprintf(stderr, "  packets %lu, forwarded %lu, waits %lu, held %u, flows %u\n", s.packets, s.forwarded, s.waits,
                s.held, s.flows);
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

static void all_sent(struct trace_port *p)
{
    struct run *r = p->arg;

    p->mark = UINT64_MAX;
    nst_fulfil(&r->sent, 0);
}

static void measured(struct trace_port *p)
{
    struct run *r = p->arg;

    contest_took(r->c, contest_clock() - r->from);
    all_sent(p);
}

static void warmed(struct trace_port *p)
{
    struct run *r = p->arg;

    p->mark += r->c->contest->packets;
    p->reached = measured;
    r->from = contest_clock();
}

/* Lets the port give out so many packets and waits until they are sent. */
static int pass(struct run *r, uint64_t packets, uint64_t mark, void (*reached)(struct trace_port *))
{
    nst_future_init(&r->sent);
    r->sent.stop = give_up;
    r->sent.op = r;
    r->port.reached = reached;
    r->port.mark = r->port.sent + mark;
    r->port.budget = packets;
    /* Ten million flows take their time to open, on a core that others use as well. */
    return nst_await(&r->sent, nst_clock() + NST_SEC(60) + (nst_time)packets * NST_US(20));
}

static size_t smaps(const char *field)
{
    FILE *in = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    size_t kb = 0, len = strlen(field);

    if (in == NULL)
        return 0;
    while (fgets(line, sizeof line, in) != NULL) {
        if (strncmp(line, field, len) == 0)
            kb += strtoul(line + len, NULL, 10);
    }
    fclose(in);
    return kb << 10;
}

struct memory {
    size_t resident, huge, heap;
};

static struct memory memory_now(void)
{
    struct memory m = { .resident = smaps("Rss:"), .huge = smaps("Private_Hugetlb:") + smaps("Shared_Hugetlb:") };
    struct rte_malloc_socket_stats stats;

    for (int socket = 0; socket < RTE_MAX_NUMA_NODES; socket++) {
        if (rte_malloc_get_socket_stats(socket, &stats) == 0)
            m.heap += stats.heap_allocsz_bytes;
    }
    return m;
}

static void measure_memory(struct engine_memory *out, const struct memory *before, const struct run *r)
{
    struct memory now = memory_now();
    size_t huge = now.huge - before->huge, heap = now.heap - before->heap;
    struct nst_engine_stats stats;

    /* The heap hands out huge pages that it may have had already. */
    out->resident = now.resident - before->resident + (huge > heap ? huge : heap);
    nst_engine_stats(r->engine, &stats);
    out->per_flow = stats.bytes_per_flow;
}

/* That the NF did what is measured, for every packet. */
static int verify(struct run *r)
{
    const struct trace *t = r->c->contest->trace;
    const struct bench_case *of = r->what->of;
    uint64_t packets = r->port.port.received, passed = packets - trace_open_packets(t), decided = packets;
    struct nst_engine_stats s;

    nst_engine_stats(r->engine, &s);
    if (s.packets != packets || s.forwarded != packets || r->port.sent != packets)
        return fail(r, "not every packet was forwarded", -EPROTO);
    /* Without any part an engine does not look at flows. */
    if (of->nf.half[NST_SERVER].handler != NULL && (s.flows != t->config.flows || s.flows_opened != t->config.flows))
        return fail(r, "not every flow is there, once", -EPROTO);
    if (of->payload) {
        /* The data segments of whole passes, and those of the pass that was begun. */
        uint64_t data = passed / t->packets * t->data + trace_data_before(t, passed % t->packets);
        if (r->work.bytes != data * t->config.payload)
            return fail(r, "not every byte was read, once", -EPROTO);
        decided = data;
    }
    if (of->nf.half[NST_SERVER].handler != NULL && r->work.packets != decided)
        return fail(r, "the handler did not see every packet", -EPROTO);
    if (s.edits != of->edits * decided || s.edits_refused != 0 || s.injected != 0)
        return fail(r, "not every segment was edited", -EPROTO);
    if (r->work.store.asked != of->waits * packets)
        return fail(r, "the store was not asked for every packet", -EPROTO);
    return 0;
}

static void main_task(void *arg)
{
    struct run *r = arg;
    const struct contest *contest = r->c->contest;
    const struct nst_engine_config config = {
        .nf = &r->what->of->nf,
        .nf_arg = &r->work,
        .flows = contest->trace->config.flows,
        .stream_memory = (size_t)16 << 30,
        .edit_memory = (size_t)4 << 30, /* reserved, and taken as it is used */
        .idle_open = NST_SEC(3600),
        .idle_established = NST_SEC(3600),
    };
    struct nst_port *ports[] = { &r->port.port };
    struct memory before = memory_now();
    uint64_t opening = trace_open_packets(contest->trace);

    r->rc = nst_engine_open(&r->engine, &config, ports, 1);
    if (r->rc < 0) {
        fail(r, "opening the engine", r->rc);
        goto stop;
    }
    r->port.opening = true;
    r->rc = pass(r, opening, opening, all_sent);
    r->port.opening = false;
    if (r->what->memory != NULL)
        measure_memory(r->what->memory, &before, r);
    while (r->rc == 0 && contest_next(r->c))
        r->rc = pass(r, contest->warm + contest->packets, contest->warm, warmed);
    r->rc = r->rc < 0 ? fail(r, "feeding packets", r->rc) : verify(r);
    if (nst_engine_drain(r->engine, nst_clock() + NST_SEC(60)) < 0)
        r->rc = fail(r, "draining", -ETIMEDOUT);
    nst_engine_close(r->engine);
stop:
    nst_reactor_stop(nst_reactor_self());
}

int engine_contestant(struct contestant *c)
{
    /* The stall detector watches, as it does by default; another contestant's turn is no stall. */
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
    work_init(&r->work);
    trace_port_init(&r->port, c->contest->trace, c->contest->pool);
    r->port.arg = r;
    rc = nst_reactor_open(&reactor, &config);
    if (rc == 0) {
        rc = nst_reactor_run(reactor, main_task, r);
        nst_reactor_close(reactor);
    }
    if (rc < 0)
        fail(r, "the reactor", rc);
    rc = rc < 0 ? rc : r->rc;
    work_end(&r->work);
    free(r);
    return rc;
}
