/* SPDX-License-Identifier: Apache-2.0 */
#include "instance.h"
#include "progress.h"
#include "signals.h"
#include <netstar/task.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

struct instance {
    const struct settings *s;
    struct report *report;
    struct nst_module_env env;
    struct nst_port *ports[PORTS_MAX];
    unsigned n_ports;
    struct nst_reactor *reactor;
    struct nst_store *store;
    struct nst_nf nf; /* the module's, with the command line's policy */
    void *nf_arg;
    struct nst_engine *engine;
    struct nst_watch signals;
    unsigned n_signals, awaited; /* so many must come to fulfil `signalled` */
    struct nst_future signalled;
    struct progress progress;
    int rc; /* the first thing that went wrong */
};

/* Logs what went wrong; the first becomes the result. */
static void fail(struct instance *in, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void fail(struct instance *in, int rc, const char *fmt, ...)
{
    char text[4096], *rest = text, *line;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (in->rc == 0) {
        in->rc = rc < 0 ? rc : -EIO;
        snprintf(in->report->error, sizeof in->report->error, "%.*s", (int)sizeof in->report->error - 1, text);
    }
    while ((line = strsep(&rest, "\n")) != NULL)
        if (*line != '\0')
            nst_log(NST_LOG_ERROR, "%s", line);
}

static const char *reason(const char *why, int rc)
{
    return why != NULL && *why != '\0' ? why : strerror(-rc);
}

static const char *env_option(const struct nst_module_env *env, const char *name)
{
    const struct instance *in = (const struct instance *)((const char *)env - offsetof(struct instance, env));

    return settings_module_option(in->s, name);
}

/* ---- signals: the first asks for a drain, the second ends the drain, a third cancels whatever there is ---- */
static void stop_future(struct nst_future *f)
{
    if (f->state == NST_FUTURE_OPEN)
        nst_fulfil(f, -ECANCELED);
}

static void on_signal(struct nst_watch *watch, uint32_t events)
{
    struct instance *in = (struct instance *)((char *)watch - offsetof(struct instance, signals));

    (void)events;
    in->n_signals += (unsigned)signals_read(watch->fd);
    if (in->n_signals >= in->awaited && in->signalled.state == NST_FUTURE_OPEN)
        nst_fulfil(&in->signalled, 0);
    if (in->n_signals > 2)
        nst_reactor_stop(in->reactor);
}

/* From now on `signalled` means: so many signals have come since the start. */
static void await_signals(struct instance *in, unsigned n)
{
    in->awaited = n;
    in->signalled = (struct nst_future){ .stop = stop_future };
    if (in->n_signals >= n)
        nst_fulfil(&in->signalled, 0);
}

struct job {
    struct instance *in;
    int (*fn)(struct instance *in);
    struct nst_future done;
};

static void job_task(void *arg)
{
    struct job *job = arg;
    int rc = job->fn(job->in);

    if (job->done.state == NST_FUTURE_OPEN)
        nst_fulfil(&job->done, rc);
}

/* Runs fn, which may wait, until it returns, with *rc as its result, or until n signals have come: then it is cancelled
 * and the answer is false. */
static bool until_signal(struct instance *in, unsigned n, int (*fn)(struct instance *in), int *rc)
{
    struct job job = { .in = in, .fn = fn, .done = { .stop = stop_future } };
    struct nst_future *either[] = { &job.done, &in->signalled };
    struct nst_scope *scope;
    int which;

    await_signals(in, n);
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

/* ---- opening ---- */
static int open_ports(struct instance *in)
{
    const struct settings *s = in->s;
    const char *why = NULL;
    int rc;

    if (s->n_inputs != 0) {
        const struct nst_capture_config capture = {
            .inputs = s->inputs,
            .n_inputs = s->n_inputs,
            .output = s->output,
            .speed = s->speed,
            .progress = progress_update,
            .progress_arg = &in->progress,
        };
        rc = nst_capture_open(&in->ports[0], &capture, &why);
        if (rc < 0)
            fail(in, rc, "%s", reason(why, rc));
        else
            in->n_ports = 1;
        return rc;
    }
    for (unsigned i = 0; i < s->n_ports; i++) {
        why = NULL;
        rc = nst_port_open(&in->ports[i], s->ports[i], &why);
        if (rc < 0) {
            fail(in, rc, "port %s: %s", s->ports[i], reason(why, rc));
            return rc;
        }
        in->n_ports++;
    }
    return 0;
}

static int open_store(struct instance *in)
{
    const char *why = NULL;
    int rc;

    if (!in->s->module->uses_store)
        return 0;
    in->report->store_url = in->s->store_name;
    rc = nst_store_open(&in->store, in->s->store, NULL, &why);
    if (rc < 0) {
        fail(in, rc, "store %s: %s", in->s->store_name, reason(why, rc));
        return rc;
    }
    rc = nst_store_ping(in->store, nst_now() + NST_SEC(2));
    if (rc == -ECANCELED)
        return rc;
    if (rc < 0)
        nst_log(NST_LOG_WARNING, "store %s cannot be reached (%s); going on, what needs it is %s until it can",
                in->s->store_name, strerror(-rc), in->s->fail_open ? "let pass" : "dropped");
    in->env.store = in->store;
    return 0;
}

static int open_nf(struct instance *in)
{
    const struct nst_module *m = in->s->module;
    const struct nst_nf *nf = NULL;
    const char *why = NULL;
    int rc = m->open(&in->env, &nf, &in->nf_arg, &why);

    if (rc == 0 && nf == NULL) {
        m->close(in->nf_arg);
        rc = -EINVAL;
        why = "its open function made nothing";
    }
    if (rc < 0) {
        fail(in, rc, "%s: %s", m->name, reason(why, rc));
        return rc;
    }
    in->nf = *nf;
    if (in->s->budget != 0)
        in->nf.policy.budget = in->s->budget;
    if (in->s->hold != 0)
        in->nf.policy.hold = in->s->hold;
    return 0;
}

static int open_engine(struct instance *in)
{
    const struct nst_engine_config config = {
        .nf = &in->nf,
        .nf_arg = in->nf_arg,
        .flows = in->s->flows,
        .stream_memory = in->s->stream_memory,
        .trust_checksums = in->s->trust_checksums,
        .quiet = in->s->module->quiet,
        .quiet_arg = in->nf_arg,
    };
    int rc = nst_engine_open(&in->engine, &config, in->ports, in->n_ports);

    if (rc < 0)
        fail(in, rc, "the flow engine cannot start: %s",
             rc == -EINVAL ? "the network function asks for what cannot be (see struct nst_nf)" : strerror(-rc));
    return rc;
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
}

/* ---- the work ---- */
static int finish(struct instance *in)
{
    return nst_engine_finish(in->engine);
}

/* Until the input ends, or the first signal. */
static void wait_for_end(struct instance *in)
{
    int rc;

    in->report->ended_by = "signal";
    if (in->s->n_inputs == 0) {
        await_signals(in, 1);
        rc = nst_await(&in->signalled, NST_NEVER);
        if (rc < 0 && rc != -ECANCELED)
            fail(in, rc, "waiting for a signal: %s", strerror(-rc));
    } else if (until_signal(in, 1, finish, &rc)) {
        in->report->ended_by = "end of input";
        if (rc < 0)
            fail(in, rc, "the input cannot be read: %s", strerror(-rc));
    }
}

static int drain(struct instance *in)
{
    nst_time patience = in->nf.policy.budget > NST_SEC(2) ? in->nf.policy.budget : NST_SEC(2);

    return nst_engine_drain(in->engine, nst_now() + patience);
}

static void wind_up(struct instance *in)
{
    int rc;

    /* After the second signal: what still runs is stopped instead of waited for. */
    if (!until_signal(in, 2, drain, &rc))
        rc = nst_engine_drain(in->engine, nst_now());
    if (rc == -ETIMEDOUT)
        nst_log(NST_LOG_WARNING, "some handlers did not end when they were told to");
    else if (rc < 0)
        nst_log(NST_LOG_WARNING, "the flows were not closed in order: %s", strerror(-rc));
}

static void collect(struct instance *in)
{
    struct report *r = in->report;
    const char *wrong;

    nst_engine_stats(in->engine, &r->engine);
    if (in->store != NULL)
        nst_store_stats(in->store, &r->store);
    for (unsigned i = 0; i < in->n_ports; i++) {
        struct report_port *p = &r->ports[r->n_ports++];

        snprintf(p->name, sizeof p->name, "%s", nst_port_name(in->ports[i]));
        snprintf(p->driver, sizeof p->driver, "%s", nst_port_driver(in->ports[i]));
        nst_port_stats(in->ports[i], &p->stats);
    }
    wrong = in->s->n_inputs != 0 ? nst_capture_error(in->ports[0]) : NULL;
    if (wrong != NULL)
        fail(in, -EIO, "%s", wrong);
}

static void work(struct instance *in)
{
    nst_time began = nst_clock();

    say_ready(in);
    in->report->ran = true;
    progress_begin(&in->progress);
    wait_for_end(in);
    progress_end(&in->progress);
    wind_up(in);
    in->report->seconds = (double)(nst_clock() - began) / 1e9;
    collect(in);
}

static void module_report(struct instance *in)
{
    size_t size;
    FILE *out;

    if (in->s->module->report == NULL)
        return;
    out = open_memstream(&in->report->module_text, &size);
    if (out == NULL)
        return;
    in->s->module->report(in->nf_arg, out);
    fclose(out);
}

/* The main task: opens from left to right, closes from right to left, all on the reactor. */
static void run(void *arg)
{
    struct instance *in = arg;
    int rc = nst_watch_add(in->reactor, &in->signals);

    if (rc < 0) {
        fail(in, rc, "signals cannot be watched: %s", strerror(-rc));
    } else {
        if (open_store(in) == 0 && open_nf(in) == 0) {
            if (open_engine(in) == 0) {
                work(in);
                nst_engine_close(in->engine);
                module_report(in);
            }
            if (in->s->module->close != NULL)
                in->s->module->close(in->nf_arg);
        }
        nst_store_close(in->store);
        nst_watch_remove(in->reactor, &in->signals);
    }
    nst_reactor_stop(in->reactor);
}

static void on_reactor(struct instance *in)
{
    const struct nst_reactor_config config = {
        .name = in->s->module->name,
        .cpu = in->s->cpu,
        .busy_poll = in->s->busy_poll,
    };
    int rc = nst_reactor_open(&in->reactor, &config);

    if (rc < 0) {
        fail(in, rc, "the reactor cannot start: %s", strerror(-rc));
        return;
    }
    rc = nst_reactor_run(in->reactor, run, in);
    if (rc < 0)
        fail(in, rc, "the reactor cannot run: %s", strerror(-rc));
    nst_reactor_stats(in->reactor, &in->report->reactor);
}

int instance_run(const struct settings *s, struct report *report)
{
    struct instance in = {
        .s = s,
        .report = report,
        .env = { .option = env_option, .replay = s->n_inputs != 0, .fail_open = s->fail_open },
        .signals = { .events = EPOLLIN, .ready = on_signal },
        .awaited = 1,
        .signalled = { .stop = stop_future },
    };
    const struct nst_io_config io = {
        .eal = s->eal,
        .packets = s->packets,
        .no_huge = s->no_huge,
        .verbose = s->verbose,
    };
    const char *why = NULL;
    int rc;

    *report = (struct report){ .nf = s->module->name, .capture = s->n_inputs != 0, .ended_by = "error" };
    in.signals.fd = signals_open();
    if (in.signals.fd < 0) {
        fail(&in, in.signals.fd, "signals cannot be caught: %s", strerror(-in.signals.fd));
        return in.rc;
    }
    rc = nst_io_open(&io, &why);
    if (rc == -EAGAIN) {
        in.rc = rc;
    } else if (rc < 0) {
        fail(&in, rc, "packet input and output cannot start: %s", reason(why, rc));
    } else {
        if (open_ports(&in) == 0)
            on_reactor(&in);
        for (unsigned i = 0; i < in.n_ports; i++) {
            rc = nst_port_close(in.ports[i]);
            if (rc < 0)
                fail(&in, rc, "closing %s: %s", s->n_inputs != 0 ? s->output : s->ports[i], strerror(-rc));
        }
        nst_reactor_close(in.reactor);
        rc = nst_io_close(&report->buffers_missing);
        if (rc == -EBUSY)
            fail(&in, rc, "%u packet buffers are missing at the end", report->buffers_missing);
        else if (rc < 0)
            fail(&in, rc, "stopping packet input and output: %s", strerror(-rc));
    }
    signals_close(in.signals.fd);
    return in.rc;
}
