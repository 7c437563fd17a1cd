/* SPDX-License-Identifier: Apache-2.0 */
#include "core.h"
#include "control.h"
#include "signals.h"
#include <netstar/task.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

static const char *reason(const char *why, int rc)
{
    return why != NULL && *why != '\0' ? why : strerror(-rc);
}

/* ---- signals: the first asks for a drain, the second ends the drain, a third cancels whatever there is ---- */
static void stop_future(struct nst_future *f)
{
    if (f->state == NST_FUTURE_OPEN)
        nst_fulfil(f, -ECANCELED);
}

static void on_signal(struct nst_watch *watch, uint32_t events)
{
    struct core *c = (struct core *)((char *)watch - offsetof(struct core, signals));

    (void)events;
    c->n_signals += (unsigned)signals_read(watch->fd);
    if (c->n_signals >= c->awaited && c->signalled.state == NST_FUTURE_OPEN)
        nst_fulfil(&c->signalled, 0);
    if (c->n_signals > 2)
        nst_reactor_stop(c->reactor);
}

/* From now on `signalled` means: so many signals have come since the start. */
static void await_signals(struct core *c, unsigned n)
{
    c->awaited = n;
    c->signalled = (struct nst_future){ .stop = stop_future };
    if (c->n_signals >= n)
        nst_fulfil(&c->signalled, 0);
}

struct job {
    struct core *c;
    int (*fn)(struct core *c);
    struct nst_future done;
};

static void job_task(void *arg)
{
    struct job *job = arg;
    int rc = job->fn(job->c);

    if (job->done.state == NST_FUTURE_OPEN)
        nst_fulfil(&job->done, rc);
}

/* Runs fn, which may wait, until it returns, with *rc as its result, or until n signals have come: then it is cancelled
 * and the answer is false. */
static bool until_signal(struct core *c, unsigned n, int (*fn)(struct core *c), int *rc)
{
    struct job job = { .c = c, .fn = fn, .done = { .stop = stop_future } };
    struct nst_future *either[] = { &job.done, &c->signalled };
    struct nst_scope *scope;
    int which;

    await_signals(c, n);
    *rc = nst_scope_open(&scope, NULL);
    if (*rc < 0)
        return true;
    which = nst_spawn(scope, job_task, &job);
    if (which == 0)
        which = nst_await_any(either, 2, NST_NEVER);
    if (nst_scope_close(scope) < 0)
        which = -EDEADLK;
    *rc = which == 0 ? job.done.rc : which;
    return which != 1 && which != -ECANCELED;
}

/* ---- guests ---- */
struct guest {
    struct core *c;
    int (*fn)(struct core *c, void *arg);
    void *arg;
    struct nst_future done;
};

static void guest_task(void *arg)
{
    struct guest *g = arg;

    nst_fulfil(&g->done, g->fn(g->c, g->arg));
}

/* On the core. */
static int receive_guest(void *arg)
{
    struct guest *g = arg;
    int rc = g->c->guests != NULL ? nst_spawn(g->c->guests, guest_task, g) : -ESHUTDOWN;

    return rc < 0 ? rc : nst_await(&g->done, NST_NEVER);
}

int core_ask(struct core *c, int (*fn)(struct core *c, void *arg), void *arg)
{
    struct guest g = { .c = c, .fn = fn, .arg = arg };
    struct nst_future answered = { 0 };
    int rc;

    while ((rc = nst_call(c->reactor, receive_guest, &g, &answered)) == -EAGAIN || rc == -ENOMEM)
        if (nst_sleep(nst_now() + NST_MS(1)) < 0)
            return -ECANCELED;
    return rc < 0 ? rc : nst_await(&answered, NST_NEVER);
}

/* From now on there are none. */
static void guests_leave(struct core *c)
{
    struct nst_scope *guests = c->guests;

    c->guests = NULL;
    if (guests != NULL && nst_scope_close(guests) < 0)
        nst_log(NST_LOG_DEBUG, "core %u was left by one of its guests", c->number);
}

/* ---- opening ---- */
static int open_store(struct core *c)
{
    const char *why = NULL;
    int rc;

    if (!c->in->s->module->uses_store)
        return 0;
    rc = nst_store_open(&c->store, c->in->s->store, NULL, &why);
    if (rc < 0) {
        instance_fail(c->in, rc, "store %s: %s", c->in->s->store_name, reason(why, rc));
        return rc;
    }
    rc = nst_store_ping(c->store, nst_now() + NST_SEC(2));
    if (rc == -ECANCELED)
        return rc;
    if (rc < 0 && c->number == 0)
        nst_log(NST_LOG_WARNING, "store %s cannot be reached (%s); going on, what needs it is %s until it can",
                c->in->s->store_name, strerror(-rc), c->in->s->fail_open ? "let pass" : "dropped");
    c->env.env.store = c->store;
    return 0;
}

/* Modules need not expect to be called on several cores at once but for what packets cause. */
static int lock_modules(struct core *c)
{
    while (pthread_mutex_trylock(&c->in->modules) != 0) {
        int rc = nst_sleep(nst_now() + NST_MS(1));
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int open_nf(struct core *c)
{
    const struct nst_module *m = c->in->s->module;
    const struct nst_nf *nf = NULL;
    const char *why = NULL;
    int rc = lock_modules(c);

    if (rc < 0)
        return rc;
    rc = m->open(&c->env.env, &nf, &c->nf_arg, &why);
    pthread_mutex_unlock(&c->in->modules);
    if (rc == 0 && nf == NULL) {
        m->close(c->nf_arg);
        rc = -EINVAL;
        why = "its open function made nothing";
    }
    if (rc < 0) {
        instance_fail(c->in, rc, "%s: %s", m->name, reason(why, rc));
        return rc;
    }
    c->nf = *nf;
    if (c->in->s->budget != 0)
        c->nf.policy.budget = c->in->s->budget;
    if (c->in->s->hold != 0)
        c->nf.policy.hold = c->in->s->hold;
    if (c->in->s->normalise)
        c->nf.policy.normalise = true;
    return 0;
}

static int open_engine(struct core *c)
{
    struct nst_engine_config config = {
        .nf = &c->nf,
        .nf_arg = c->nf_arg,
        .quiet = c->in->s->module->quiet,
        .quiet_arg = c->nf_arg,
        .cores = c->in->cores,
        .core = c->number,
    };
    settings_engine(c->in->s, &config);
    int rc = nst_engine_open(&c->engine, &config, c->in->ports, c->in->n_ports);

    if (rc < 0)
        instance_fail(c->in, rc, "the flow engine cannot start: %s",
                      rc == -EINVAL ? "the network function asks for what cannot be (see struct nst_nf)"
                                    : strerror(-rc));
    return rc;
}

/* ---- the work ---- */
static bool has_failed(void *arg)
{
    struct instance *in = arg;

    pthread_mutex_lock(&in->failing);
    bool failed = in->rc != 0 || in->given_up;
    pthread_mutex_unlock(&in->failing);
    return failed;
}

/* A core without an NF ends all, also when nothing went wrong but a signal came. */
static void give_up(struct instance *in)
{
    pthread_mutex_lock(&in->failing);
    in->given_up = true;
    pthread_mutex_unlock(&in->failing);
}

/* Waits for the other cores: 0, 1 when the run has failed meanwhile, -ECANCELED. */
static int meet(struct core *c)
{
    struct instance *in = c->in;

    if (in->n_cores == 1)
        return has_failed(in);
    return meeting_wait(&in->meeting, c->number, has_failed, in);
}

static void say_ready(const struct instance *in)
{
    const struct settings *s = in->s;
    char where[512] = "", state[600] = "";
    size_t n = 0;

    if (s->n_inputs == 1)
        snprintf(where, sizeof where, " on %s", strcmp(s->inputs[0], "-") == 0 ? "standard input" : s->inputs[0]);
    else if (s->n_inputs != 0)
        snprintf(where, sizeof where, " on %u captures", s->n_inputs);
    for (unsigned i = 0; i < in->n_ports && s->n_inputs == 0 && n < sizeof where; i++)
        n += (size_t)snprintf(where + n, sizeof where - n, "%s%s (%s)",
                              i % 2 != 0 ? " and "
                              : i == 0   ? " between "
                                         : ", between ",
                              nst_port_name(in->ports[i]), nst_port_driver(in->ports[i]));
    if (s->module->uses_store)
        snprintf(state, sizeof state, ", state in %s", s->store_name);
    nst_log(NST_LOG_INFO, "ready: %s%s%s", s->module->name, where, state);
    if (in->cores == NULL)
        return;
    nst_log(NST_LOG_INFO, "%u cores%s", in->n_cores,
            s->module->uses_store && strncmp(s->store, "mem:", 4) == 0 ? ", each with its own mem:" : "");
    for (unsigned i = 0; i < in->n_ports; i++)
        nst_log(NST_LOG_INFO, "%s: %s", nst_port_name(in->ports[i]),
                nst_cores_describe(in->cores, i, where, sizeof where));
}

static int finish(struct core *c)
{
    return nst_engine_finish(c->engine);
}

/* Until the input ends, or the first signal. */
static void wait_for_end(struct core *c)
{
    int rc;

    if (c->number == 0)
        c->in->report->ended_by = "signal";
    if (c->in->s->n_inputs == 0) {
        await_signals(c, 1);
        rc = nst_await(&c->signalled, NST_NEVER);
        if (rc < 0 && rc != -ECANCELED)
            instance_fail(c->in, rc, "waiting for a signal: %s", strerror(-rc));
    } else if (until_signal(c, 1, finish, &rc)) {
        if (c->number == 0)
            c->in->report->ended_by = "end of input";
        if (rc < 0)
            instance_fail(c->in, rc, "the input cannot be read: %s", strerror(-rc));
    }
}

static int drain(struct core *c)
{
    nst_time patience = c->nf.policy.budget > NST_SEC(2) ? c->nf.policy.budget : NST_SEC(2);

    return nst_engine_drain(c->engine, nst_now() + patience);
}

static void wind_up(struct core *c)
{
    int rc;

    /* After the second signal: what still runs is stopped instead of waited for. */
    if (!until_signal(c, 2, drain, &rc))
        rc = nst_engine_drain(c->engine, nst_now());
    if (rc == -ETIMEDOUT)
        nst_log(NST_LOG_WARNING, "some handlers did not end when they were told to");
    else if (rc < 0)
        nst_log(NST_LOG_WARNING, "the flows were not closed in order: %s", strerror(-rc));
}

static void collect(struct core *c)
{
    struct report_core *r = &c->in->report->cores[c->number];

    nst_engine_stats(c->engine, &r->engine);
    if (c->store != NULL)
        nst_store_stats(c->store, &r->store);
}

static void work(struct core *c)
{
    struct instance *in = c->in;

    if (nst_scope_open(&c->guests, NULL) < 0)
        nst_log(NST_LOG_WARNING, "core %u cannot be asked anything: out of memory", c->number);
    if (c->number == 0) {
        in->began = nst_clock();
        control_start(in);
        say_ready(in);
        in->report->ran = true;
        progress_begin(&in->progress);
    }
    wait_for_end(c);
    if (c->number == 0)
        progress_end(&in->progress);
    nst_engine_pause(c->engine);
    meet(c); /* from here on nothing new comes in anywhere */
    wind_up(c);
    guests_leave(c);
    meet(c); /* and from here on nothing is given to others */
    if (c->number == 0)
        in->report->seconds = (double)(nst_clock() - in->began) / 1e9;
    collect(c);
}

/* When every engine is closed: the other instances' numbers go to the first, which speaks for all. */
static void module_report(struct instance *in)
{
    const struct nst_module *m = in->s->module;
    size_t size;
    FILE *out;

    if (m->report == NULL || (out = open_memstream(&in->report->module_text, &size)) == NULL)
        return;
    pthread_mutex_lock(&in->modules);
    for (unsigned i = 1; i < in->n_cores && m->merge != NULL; i++)
        if (in->core[i].has_nf)
            m->merge(in->core[0].nf_arg, in->core[i].nf_arg);
    m->report(in->core[0].nf_arg, out);
    pthread_mutex_unlock(&in->modules);
    fclose(out);
}

/* All have an instance, or nobody goes on. */
static void with_nf(struct core *c)
{
    bool open = false, worked = false;

    if (meet(c) == 0) {
        open = open_engine(c) == 0;
        worked = meet(c) == 0;
        if (worked)
            work(c);
        else if (open && nst_engine_drain(c->engine, nst_now()) < 0)
            nst_log(NST_LOG_DEBUG, "core %u was not drained", c->number);
        nst_engine_close(c->engine);
    }
    if (meet(c) != -ECANCELED && worked && c->number == 0)
        module_report(c->in);
    meet(c);
}

void core_run(void *arg)
{
    struct core *c = arg;
    const struct nst_module *m = c->in->s->module;
    int rc = nst_watch_add(c->reactor, &c->signals);

    c->runs = true;
    sem_post(&c->started);
    if (rc < 0)
        instance_fail(c->in, rc, "signals cannot be watched: %s", strerror(-rc));
    else if (open_store(c) == 0)
        c->has_nf = open_nf(c) == 0;
    if (!c->has_nf)
        give_up(c->in);
    with_nf(c);
    pthread_mutex_lock(&c->in->modules);
    if (c->has_nf && m->close != NULL)
        m->close(c->nf_arg);
    c->has_nf = false;
    pthread_mutex_unlock(&c->in->modules);
    nst_store_close(c->store);
    nst_watch_remove(c->reactor, &c->signals);
    nst_reactor_stop(c->reactor);
}

int core_open(struct core *c)
{
    const struct settings *s = c->in->s;
    struct nst_reactor_config config = {
        .cpu = c->number < s->n_cpus ? s->cpus[c->number] : -1,
        .busy_poll = s->busy_poll,
    };
    char name[32];
    int rc;

    snprintf(name, sizeof name, "%s %u", s->module->name, c->number);
    config.name = c->in->n_cores == 1 ? s->module->name : name;
    settings_env(&c->env, s);
    c->env.env.cores = c->in->cores;
    c->env.env.core = c->number;
    c->env.env.config = c->in->config;
    c->awaited = 1;
    c->signalled = (struct nst_future){ .stop = stop_future };
    c->signals = (struct nst_watch){ .fd = signals_open(), .events = EPOLLIN, .ready = on_signal };
    if (c->signals.fd < 0) {
        instance_fail(c->in, c->signals.fd, "signals cannot be caught: %s", strerror(-c->signals.fd));
        return c->signals.fd;
    }
    sem_init(&c->started, 0, 0);
    rc = nst_reactor_open(&c->reactor, &config);
    if (rc < 0)
        instance_fail(c->in, rc, "the reactor cannot start: %s", strerror(-rc));
    c->in->meeting.place[c->number].reactor = c->reactor;
    return rc;
}

void core_close(struct core *c)
{
    if (c->reactor != NULL)
        nst_reactor_stats(c->reactor, &c->in->report->cores[c->number].reactor);
    nst_reactor_close(c->reactor);
    if (c->signals.fd >= 0)
        signals_close(c->signals.fd);
}
