/* SPDX-License-Identifier: Apache-2.0 */
#include "instance.h"
#include "control.h"
#include "core.h"
#include "prepare.h"
#include "reload.h"
#include "signals.h"
#include <stdlib.h>
#include <string.h>

void instance_fail(struct instance *in, int rc, const char *fmt, ...)
{
    char text[4096], *rest = text, *line;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&in->failing);
    if (in->rc == 0) {
        in->rc = rc < 0 ? rc : -EIO;
        snprintf(in->report->error, sizeof in->report->error, "%.*s", (int)sizeof in->report->error - 1, text);
    }
    while ((line = strsep(&rest, "\n")) != NULL)
        if (*line != '\0')
            nst_log(NST_LOG_ERROR, "%s", line);
    pthread_mutex_unlock(&in->failing);
    if (in->n_cores > 1)
        signals_raise();
}

static const char *reason(const char *why, int rc)
{
    return why != NULL && *why != '\0' ? why : strerror(-rc);
}

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
            instance_fail(in, rc, "%s", reason(why, rc));
        else
            in->n_ports = 1;
        return rc;
    }
    for (unsigned i = 0; i < s->n_ports; i++) {
        why = NULL;
        rc = nst_port_open(&in->ports[i], s->ports[i], &why);
        if (rc < 0) {
            instance_fail(in, rc, "port %s: %s", s->ports[i], reason(why, rc));
            return rc;
        }
        in->n_ports++;
    }
    return 0;
}

static int open_cores(struct instance *in)
{
    int rc = 0;

    if (in->n_cores > 1)
        rc = nst_cores_open(&in->cores, in->n_cores, in->ports, in->n_ports);
    if (rc < 0)
        instance_fail(in, rc, "the cores cannot be joined: %s", strerror(-rc));
    meeting_init(&in->meeting, in->n_cores);
    for (unsigned i = 0; i < in->n_cores && rc == 0; i++) {
        in->core[i].in = in;
        in->core[i].number = i;
        rc = core_open(&in->core[i]);
    }
    return rc;
}

static void run_core(struct core *c)
{
    int rc = nst_reactor_run(c->reactor, core_run, c);

    if (rc < 0)
        instance_fail(c->in, rc, "the reactor of core %u cannot run: %s", c->number, strerror(-rc));
    if (!c->runs)
        sem_post(&c->started);
}

static void *core_thread(void *arg)
{
    struct core *c = arg;
    bool joined = nst_io_join() == 0;

    if (!joined)
        nst_log(NST_LOG_WARNING, "core %u has no share of its own in the packet buffers: it will be slower", c->number);
    run_core(c);
    if (joined)
        nst_io_leave();
    return NULL;
}

/* The first core is this thread's. The others have begun before it does, or nobody goes on. */
static void run_cores(struct instance *in)
{
    unsigned threads = 1;
    bool all = true;

    for (; threads < in->n_cores && all; threads++) {
        struct core *c = &in->core[threads];
        int rc = pthread_create(&c->thread, NULL, core_thread, c);
        if (rc != 0) {
            instance_fail(in, -rc, "no thread for core %u: %s", threads, strerror(rc));
            all = false;
            break;
        }
        while (sem_wait(&c->started) != 0)
            ;
        all = c->runs;
    }
    if (all)
        run_core(&in->core[0]);
    for (unsigned i = 1; i < threads; i++) {
        if (!all)
            nst_reactor_stop(in->core[i].reactor);
        pthread_join(in->core[i].thread, NULL);
    }
}

static void collect_ports(struct instance *in)
{
    struct report *r = in->report;
    const char *wrong = in->s->n_inputs != 0 ? nst_capture_error(in->ports[0]) : NULL;

    for (unsigned i = 0; i < in->n_ports; i++) {
        struct report_port *p = &r->ports[r->n_ports++];

        snprintf(p->name, sizeof p->name, "%s", nst_port_name(in->ports[i]));
        snprintf(p->driver, sizeof p->driver, "%s", nst_port_driver(in->ports[i]));
        nst_port_stats(in->ports[i], &p->stats);
    }
    if (wrong != NULL)
        instance_fail(in, -EIO, "%s", wrong);
}

/* All threads have ended. */
static void sum_up(struct instance *in)
{
    struct report *r = in->report;

    report_sum(r);
    if (in->cores == NULL)
        return;
    nst_cores_stats(in->cores, &r->engine);
    unsigned left = nst_cores_close(in->cores);
    r->engine.packets += left;
    r->engine.dropped[NST_BY_SHUTDOWN] += left;
}

static void with_ports(struct instance *in)
{
    const struct settings *s = in->s;
    const char *why = NULL;
    const struct nst_io_config io = {
        .eal = s->eal,
        .packets = s->packets,
        .cores = s->cores,
        .no_huge = s->no_huge,
        .verbose = s->verbose,
    };
    int rc = nst_io_open(&io, &why);

    if (rc == -EAGAIN) {
        in->rc = rc;
        return;
    }
    if (rc < 0) {
        instance_fail(in, rc, "packet input and output cannot start: %s", reason(why, rc));
        return;
    }
    if (open_ports(in) == 0) {
        if (open_cores(in) == 0)
            run_cores(in);
        control_close(in);
        for (unsigned i = 0; i < in->n_cores; i++)
            if (in->core[i].in != NULL)
                core_close(&in->core[i]);
        if (in->report->ran)
            collect_ports(in);
        sum_up(in);
    }
    for (unsigned i = 0; i < in->n_ports; i++) {
        rc = nst_port_close(in->ports[i]);
        if (rc < 0)
            instance_fail(in, rc, "closing %s: %s", s->n_inputs != 0 ? s->output : s->ports[i], strerror(-rc));
    }
    rc = nst_io_close(&in->report->buffers_missing);
    if (rc == -EBUSY)
        instance_fail(in, rc, "%u packet buffers are missing at the end", in->report->buffers_missing);
    else if (rc < 0)
        instance_fail(in, rc, "stopping packet input and output: %s", strerror(-rc));
}

static int take_name(struct instance *in)
{
    struct complaint c;
    int rc = control_open(in, &c);

    if (rc < 0)
        instance_fail(in, rc, "%s", c.text);
    return rc;
}

static int first_config(struct instance *in)
{
    struct prepared p;
    int rc = prepare(in->s, NULL, &p);

    if (rc < 0)
        instance_fail(in, rc, "%s: %s", in->s->module->name, p.why);
    in->config = p.config;
    prepared_free(&p);
    return rc;
}

int instance_run(const struct settings *s, struct report *report)
{
    struct instance in = {
        .s = s,
        .report = report,
        .n_cores = s->cores,
        .failing = PTHREAD_MUTEX_INITIALIZER,
        .modules = PTHREAD_MUTEX_INITIALIZER,
    };

    *report = (struct report){
        .nf = s->module->name,
        .capture = s->n_inputs != 0,
        .ended_by = "error",
        .store_url = s->module->uses_store ? s->store_name : NULL,
        .n_cores = s->cores,
    };
    in.core = calloc(s->cores, sizeof *in.core);
    if (in.core == NULL)
        instance_fail(&in, -ENOMEM, "out of memory");
    else if (take_name(&in) == 0 && first_config(&in) == 0)
        with_ports(&in);
    control_close(&in);
    reload_forget(&in);
    free(in.core);
    return in.rc;
}
