/* SPDX-License-Identifier: Apache-2.0 */
/* Scopes, the tasks that they own, and the simplest waits. A spawned task is a small record whose continuation the
 * loop calls; records are reused and never given back before the reactor closes. */
#include "runtime/reactor_internal.h"
#include <stdlib.h>

enum { JOBS_AT_ONCE = 128 };

struct job_chunk {
    struct job_chunk *next;
    struct job jobs[JOBS_AT_ONCE];
};

/* Somebody who waits for a scope to run empty. */
struct scope_wait {
    struct nst_future empty;
    struct scope_wait *prev, *next;
    struct nst_scope *scope;
};

static struct job *job_take(struct nst_reactor *r)
{
    struct job *j = r->free_jobs;

    if (j == NULL) {
        struct job_chunk *c = calloc(1, sizeof *c);
        if (c == NULL)
            return NULL;
        c->next = r->job_chunks;
        r->job_chunks = c;
        for (unsigned i = 0; i < JOBS_AT_ONCE; i++) {
            c->jobs[i].next = r->free_jobs;
            r->free_jobs = &c->jobs[i];
        }
        j = r->free_jobs;
    }
    r->free_jobs = j->next;
    return j;
}

/* ---- waiting for a scope ---- */

static void unlink_wait(struct scope_wait *w)
{
    if (w->prev != NULL)
        w->prev->next = w->next;
    else
        w->scope->waiters = w->next;
    if (w->next != NULL)
        w->next->prev = w->prev;
}

static void stop_wait(struct nst_future *f)
{
    unlink_wait(container_of(f, struct scope_wait, empty));
    nst_fulfil(f, -ECANCELED);
}

static void link_wait(struct scope_wait *w, struct nst_scope *s)
{
    *w = (struct scope_wait){ .empty.stop = stop_wait, .scope = s, .next = s->waiters };
    if (s->waiters != NULL)
        s->waiters->prev = w;
    s->waiters = w;
}

static void less_busy(struct nst_scope *s)
{
    for (struct nst_scope *up; s != NULL; s = up) {
        up = s->parent;
        if (--s->busy != 0)
            continue;
        while (s->waiters != NULL) {
            struct scope_wait *w = s->waiters;
            s->waiters = w->next;
            if (w->next != NULL)
                w->next->prev = NULL;
            nst_fulfil(&w->empty, 0);
        }
    }
}

/* ---- tasks ---- */

static void run_job(struct nst_future *f, int rc)
{
    struct nst_reactor *r = nst_self;
    struct nst_task *me = r->current;
    struct job *j = container_of(f, struct job, start);
    struct nst_scope *s = j->scope;

    j->task = me;
    me->job = j;
    if (j->cancelled)
        me->flags |= TASK_CANCELLED;
    j->fn(j->arg);
    me->job = NULL;
    if (j->prev != NULL)
        j->prev->next = j->next;
    else
        s->jobs = j->next;
    if (j->next != NULL)
        j->next->prev = j->prev;
    j->next = r->free_jobs;
    r->free_jobs = j;
    less_busy(s);
}

int nst_spawn(struct nst_scope *scope, void (*fn)(void *arg), void *arg)
{
    struct nst_reactor *r = scope->r;
    struct job *j;

    if (scope->closing)
        return -ECANCELED;
    j = job_take(r);
    if (j == NULL)
        return -ENOMEM;
    *j = (struct job){ .start = { .then = run_job, .state = NST_FUTURE_DONE },
                       .scope = scope,
                       .next = scope->jobs,
                       .fn = fn,
                       .arg = arg };
    if (scope->jobs != NULL)
        scope->jobs->prev = j;
    scope->jobs = j;
    for (struct nst_scope *s = scope; s != NULL; s = s->parent)
        s->busy++;
    ready_push(r, &j->start);
    return 0;
}

/* ---- scopes ---- */

void scope_init(struct nst_scope *s, struct nst_reactor *r)
{
    *s = (struct nst_scope){ .r = r };
}

int nst_scope_open(struct nst_scope **out, struct nst_scope *parent)
{
    struct nst_reactor *r = nst_self;
    struct nst_scope *s;

    if (r == NULL)
        return -EINVAL;
    if (parent == NULL)
        parent = &r->root;
    if (parent->closing)
        return -ECANCELED;
    s = malloc(sizeof *s);
    if (s == NULL)
        return -ENOMEM;
    scope_init(s, r);
    s->parent = parent;
    s->next = parent->children;
    if (s->next != NULL)
        s->next->prev = s;
    parent->children = s;
    *out = s;
    return 0;
}

static void detach(struct nst_scope *s)
{
    if (s->prev != NULL)
        s->prev->next = s->next;
    else if (s->parent != NULL)
        s->parent->children = s->next;
    if (s->next != NULL)
        s->next->prev = s->prev;
    s->parent = s->prev = s->next = NULL;
}

/* Frees s, which has no task any more, and the scopes below it, but for those whose own closer is still to come. */
static void scope_free(struct nst_scope *s)
{
    struct nst_scope *kid;

    while ((kid = s->children) != NULL) {
        if (kid->closer)
            detach(kid);
        else
            scope_free(kid);
    }
    detach(s);
    free(s);
}

void scope_cancel(struct nst_scope *s)
{
    s->closing = true;
    for (struct job *j = s->jobs; j != NULL; j = j->next) {
        j->cancelled = true;
        if (j->task != NULL)
            nst_task_cancel(j->task);
    }
    for (struct nst_scope *kid = s->children; kid != NULL; kid = kid->next)
        scope_cancel(kid);
}

void scopes_free(struct nst_reactor *r)
{
    while (r->root.children != NULL)
        scope_free(r->root.children);
    while (r->job_chunks != NULL) {
        struct job_chunk *c = r->job_chunks;
        r->job_chunks = c->next;
        free(c);
    }
}

int nst_scope_join(struct nst_scope *scope, nst_time until)
{
    struct scope_wait w;

    if (scope->busy == 0)
        return 0;
    link_wait(&w, scope);
    return nst_await(&w.empty, until);
}

int nst_scope_close(struct nst_scope *scope)
{
    struct nst_reactor *r = nst_self;
    const struct job *self = r->current->job;
    int running = (int)scope->busy;
    bool first = !scope->closer;

    for (struct nst_scope *s = self != NULL ? self->scope : NULL; s != NULL; s = s->parent) {
        if (s == scope)
            return -EDEADLK;
    }
    if (running != 0 && (r->current->flags & TASK_CORE))
        return -EDEADLK;
    scope->closer = true;
    scope_cancel(scope);
    if (scope->busy != 0) {
        struct scope_wait w;
        link_wait(&w, scope);
        task_join(r, &w.empty);
    }
    if (first)
        scope_free(scope);
    return running;
}

/* ---- the simplest waits ---- */

static void stop_sleep(struct nst_future *f)
{
    nst_fulfil(f, -ECANCELED);
}

int nst_sleep(nst_time until)
{
    struct nst_future f = { .stop = stop_sleep };
    int rc = nst_await(&f, until);

    return rc == -ETIMEDOUT ? 0 : rc;
}

int nst_yield(void)
{
    struct nst_reactor *r = nst_self;
    struct nst_task *me = r->current;
    struct nst_future f = { .then = task_wake, .arg = me, .state = NST_FUTURE_DONE };

    if (me->flags & TASK_CORE)
        return -EDEADLK;
    if (me->flags & TASK_CANCELLED)
        return -ECANCELED;
    if (!may_suspend(r, me)) {
        r->no_stack++;
        return -ENOMEM;
    }
    ready_push(r, &f);
    task_suspend(r, me);
    return me->flags & TASK_CANCELLED ? -ECANCELED : 0;
}
