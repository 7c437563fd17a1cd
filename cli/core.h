/* SPDX-License-Identifier: Apache-2.0 */
/* cli/core.h - one core of a run: its store connection, NF instance and engine, opened, run until the input ends or a
 * signal comes, and closed in the opposite order, all on its reactor. What the cores of a run share is the instance's.
 */
#pragma once
#include "meeting.h"
#include "progress.h"
#include "report.h"
#include "settings.h"
#include <netstar/task.h>
#include <semaphore.h>

struct control;
struct heart;
struct line;

struct instance {
    const struct settings *s;
    struct report *report;
    struct nst_port *ports[PORTS_MAX];
    unsigned n_ports;
    struct nst_cores *cores; /* NULL: one core */
    unsigned n_cores;
    struct core *core; /* as many */
    struct meeting meeting;
    pthread_mutex_t failing, modules; /* one core fails, and one calls its module, at a time */
    struct progress progress;
    nst_time began;                  /* to work, by the wall clock */
    struct heart *heart;             /* NULL: it has no name that others in the store should know */
    void *config;                    /* of the module: the one at work, or that will be */
    void *config_before;             /* and the one before, while it may still be in use */
    struct line *line, *line_before; /* the configuration file as it was read for these; NULL: as at the start */
    bool reloading;
    struct control *control; /* NULL: it cannot be asked */
    int rc;                  /* the first thing that went wrong */
    bool given_up;           /* a core could not begin */
};

struct core {
    struct instance *in;
    unsigned number;
    struct settings_env env;
    struct nst_reactor *reactor;
    struct nst_store *store;
    struct nst_nf nf; /* the module's, with the command line's policy */
    void *nf_arg;
    struct nst_engine *engine;
    struct nst_watch signals;
    unsigned n_signals, awaited; /* so many must come to fulfil `signalled` */
    struct nst_future signalled;
    pthread_t thread;
    sem_t started;
    bool runs;                /* the reactor has taken up core_run */
    struct nst_scope *guests; /* what others do here while it works; NULL: it does not */
    bool has_nf;              /* under the instance's lock for modules, once others may look */
};

/* Logs what went wrong; the first becomes the result, and ends all cores as a signal does. Any thread. */
void instance_fail(struct instance *in, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Opens the signals' descriptor and the reactor of a core whose `in` and `number` are set. What is wrong was said. */
int core_open(struct core *c);
void core_close(struct core *c);

/* Calls fn(c, arg) as a task of the core while it works, its NF and engine being there; when the work ends first fn is
 * cancelled. To be called from another reactor, waits. fn's result; -ESHUTDOWN: it does not work yet, or any more;
 * -ECANCELED: it has ended, or the caller is to end. */
int core_ask(struct core *c, int (*fn)(struct core *c, void *arg), void *arg) NST_WAITS;

/* The main task of its reactor; stops that at its end. */
void core_run(void *core);
