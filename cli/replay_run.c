/* SPDX-License-Identifier: Apache-2.0 */
#include "io/eal.h"
#include "prepare.h"
#include "replay.h"
#include <netinet/in.h>
#include <netstar/task.h>
#include <rte_cycles.h>
#include <stdlib.h>
#include <string.h>

struct run {
    const struct settings *s;
    struct replay_result *r;
    struct settings_env env;
    struct nst_port *port;
    struct nst_reactor *reactor;
    int rc;
};

static void failed(struct run *k, int rc, const char *what, const char *why)
{
    if (k->rc == 0)
        k->rc = rc;
    nst_log(NST_LOG_ERROR, "%s: %s", what, why != NULL && *why != '\0' ? why : strerror(-rc));
}

static enum nst_verdict forward(struct nst_flow *f, const struct nst_event *ev)
{
    (void)f;
    (void)ev;
    return NST_FORWARD;
}

/* The NF as it is at that stage. */
static struct nst_nf staged(const struct nst_nf *nf, enum replay_stage stage)
{
    struct nst_nf n = *nf;

    for (unsigned side = 0; side < 2 && n.proto == 0; side++)
        n.proto = nf->half[side].inspect == &nst_tcp   ? IPPROTO_TCP
                  : nf->half[side].inspect == &nst_udp ? IPPROTO_UDP
                                                       : 0;
    for (unsigned side = 0; side < 2 && stage < STAGE_WHOLE; side++) {
        struct nst_half *h = &n.half[side];
        bool async = h->handler != NULL || h->loop != NULL;

        h->loop = NULL;
        h->handler = async ? forward : NULL;
        if (stage == STAGE_INSPECT)
            continue;
        if (stage == STAGE_LOOKUP && (async || h->inspect != NULL))
            h->handler = forward;
        else
            h->handler = NULL;
        h->inspect = NULL;
        h->on_sent = h->on_received = 0; /* it is never called */
    }
    return n;
}

/* From the first packet to the last verdict. */
static int measure(struct run *k, enum replay_stage stage, const struct nst_nf *nf, void *arg, struct nst_store *store,
                   struct replay_pass *pass)
{
    const struct settings *s = k->s;
    struct nst_nf n = staged(nf, stage);
    struct nst_engine_config config = {
        .nf = &n,
        .nf_arg = arg,
        .quiet = stage >= STAGE_WHOLE ? s->module->quiet : NULL,
        .quiet_arg = arg,
    };
    struct nst_engine *engine = NULL;
    struct preload_times t;

    /* An answer stands in the capture, although the packet that it acknowledges may still be held here. */
    n.policy.on_bad_ack = NST_FORWARD;
    if (s->budget != 0)
        n.policy.budget = s->budget;
    if (s->hold != 0)
        n.policy.hold = s->hold;
    preload_rewind(k->port, k->r->replayed);
    settings_engine(s, &config);
    int rc = nst_engine_open(&engine, &config, &k->port, 1);
    if (rc < 0) {
        failed(k, rc, "the flow engine cannot start", NULL);
        return rc;
    }
    if (stage == STAGE_STORE && store != NULL)
        replay_store_watch(store);
    nst_time began = nst_clock();
    uint64_t start = rte_rdtsc();
    rc = nst_engine_finish(engine);
    uint64_t end = rte_rdtsc();
    nst_time ended = nst_clock();
    if (stage == STAGE_STORE && store != NULL)
        pass->store = (double)replay_store_unwatch(store);
    preload_times(k->port, &t);
    double ns_per_cycle = (double)(ended - began) / (double)(end - start);
    pass->cycles = (double)(end - t.first);
    pass->ns = pass->cycles * ns_per_cycle;
    pass->receive = (double)t.receive;
    pass->send = (double)t.send;
    int drained = nst_engine_drain(engine, nst_now() + NST_SEC(2));
    if (rc == 0 && stage == STAGE_WHOLE)
        nst_engine_stats(engine, &k->r->engine);
    nst_engine_close(engine);
    return rc < 0 ? rc : drained;
}

/* One pass: the NF, its connection to the store and its flows are its own. */
static int one_pass(struct run *k, enum replay_stage stage, struct replay_pass *pass)
{
    const struct nst_module *m = k->s->module;
    const struct nst_nf *nf = NULL;
    const char *why = NULL;
    void *arg = NULL;
    int rc = 0;

    memset(pass, 0, sizeof *pass);
    k->env.env.store = NULL;
    if (m->uses_store) {
        rc = nst_store_open(&k->env.env.store, k->s->store, NULL, &why);
        if (rc == 0)
            rc = nst_store_ping(k->env.env.store, nst_now() + NST_SEC(2));
        if (rc < 0 && rc != -ECANCELED)
            failed(k, rc, k->s->store_name, why);
    }
    if (rc == 0) {
        rc = m->open(&k->env.env, &nf, &arg, &why);
        if (rc == 0 && nf == NULL)
            rc = -EINVAL;
        if (rc < 0) {
            failed(k, rc, m->name, why);
        } else {
            rc = measure(k, stage, nf, arg, k->env.env.store, pass);
            if (m->close != NULL)
                m->close(arg);
        }
    }
    nst_store_close(k->env.env.store);
    return rc;
}

/* The stages take turns, so that what disturbs the machine for a while disturbs all; the first round warms up. */
static void all_passes(void *arg)
{
    struct run *k = arg;
    struct replay_pass warm;
    int rc = 0;

    for (unsigned i = 0; i <= k->r->times && rc == 0; i++)
        for (unsigned stage = 0; stage < STAGES && rc == 0; stage++)
            rc = one_pass(k, (enum replay_stage)stage, i == 0 ? &warm : &k->r->pass[stage][i - 1]);
    if (rc < 0 && k->rc == 0)
        failed(k, rc, "a pass", NULL);
    nst_reactor_stop(k->reactor);
}

static int load(struct run *k)
{
    const struct settings *s = k->s;
    const struct nst_capture_config config = { .inputs = s->inputs, .n_inputs = s->n_inputs };
    struct nst_port *capture = NULL;
    const char *why = NULL;
    int rc = nst_capture_open(&capture, &config, &why);

    if (rc == 0)
        rc = preload_open(&k->port, capture, s->memory, &k->r->sizes, &why);
    if (rc < 0)
        failed(k, rc, "the capture cannot be loaded", why);
    nst_port_close(capture);
    return rc;
}

static void with_dpdk(struct run *k)
{
    const struct nst_reactor_config config = {
        .name = k->s->module->name,
        .cpu = k->s->n_cpus != 0 ? k->s->cpus[0] : -1,
        .stall_after = NST_NEVER,
    };
    int rc = load(k);

    if (rc == 0) {
        rc = nst_reactor_open(&k->reactor, &config);
        if (rc == 0)
            rc = nst_reactor_run(k->reactor, all_passes, k);
        if (rc < 0)
            failed(k, rc, "the reactor", NULL);
        nst_reactor_close(k->reactor);
    }
    nst_port_close(k->port);
}

/* -EAGAIN, unsaid, as replay_run. */
static int with_config(struct run *k)
{
    const struct settings *s = k->s;
    const struct nst_io_config io = {
        .eal = s->eal, .packets = s->packets, .no_huge = s->no_huge, .verbose = s->verbose
    };
    const char *why = NULL;
    int rc = nst_io_open(&io, &why);

    if (rc == -EAGAIN)
        return rc;
    if (rc < 0) {
        failed(k, rc, "packet input and output cannot start", why);
        return rc;
    }
    with_dpdk(k);
    rc = nst_io_close(NULL);
    if (rc < 0)
        failed(k, rc, "packet buffers are missing at the end", NULL);
    return k->rc;
}

int replay_run(const struct settings *s, struct replay_result *r)
{
    struct run k = { .s = s, .r = r };
    struct prepared p;
    int rc;

    *r = (struct replay_result){
        .nf = s->module->name,
        .store_url = s->module->uses_store ? s->store_name : NULL,
        .times = s->times,
        .replayed = s->module->uses_store && strncmp(s->store, "mem:", 4) != 0,
    };
    for (unsigned i = 0; i < STAGES; i++)
        if ((r->pass[i] = calloc(s->times, sizeof *r->pass[i])) == NULL)
            return -ENOMEM;
    settings_env(&k.env, s);
    rc = prepare(s, NULL, &p);
    k.env.env.config = p.config;
    if (rc < 0)
        failed(&k, rc, s->module->name, p.why);
    else
        rc = with_config(&k);
    prepare_dispose(s, p.config);
    prepared_free(&p);
    if (rc == 0)
        replay_sum_up(r);
    return rc;
}

void replay_free(struct replay_result *r)
{
    for (unsigned i = 0; i < STAGES; i++)
        free(r->pass[i]);
}
