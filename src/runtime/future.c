/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/reactor_internal.h"

void ready_remove(struct nst_reactor *r, struct nst_future *f)
{
    struct nst_future **at = &r->ready;

    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    if (f->next == NULL)
        r->ready_tail = at;
    f->queued = 0;
}

static int late_rc(const struct nst_future *f, int rc)
{
    switch (f->late) {
    case LATE_TIME:
        return -ETIMEDOUT;
    case LATE_CANCEL:
        return -ECANCELED;
    case LATE_NO_STACK:
        return -ENOMEM;
    default:
        return rc;
    }
}

void nst_fulfil(struct nst_future *f, int rc)
{
    struct nst_reactor *r = nst_self;

    f->rc = unlikely(f->late) ? late_rc(f, rc) : rc;
    f->state = NST_FUTURE_DONE;
    if (f->timer.where != TIMER_IDLE)
        timer_disarm(&r->timers, &f->timer);
    if (f->then != NULL)
        ready_push(r, f);
}

/* Tells the producer, once, that nobody wants the result any more. */
static void stop(struct nst_reactor *r, struct nst_future *f, enum future_late why)
{
    if (f->timer.where != TIMER_IDLE)
        timer_disarm(&r->timers, &f->timer);
    if (f->late != LATE_NOT)
        return;
    f->late = why;
    if (f->stop != NULL)
        f->stop(f);
}

static void on_deadline(struct nst_timer *t)
{
    stop(nst_self, container_of(t, struct nst_future, timer), LATE_TIME);
}

void nst_then(struct nst_future *f, void (*fn)(struct nst_future *f, int rc), void *arg, nst_time until)
{
    struct nst_reactor *r = nst_self;

    f->then = fn;
    f->arg = arg;
    if (unlikely(f->state == NST_FUTURE_DONE)) {
        if (!f->queued)
            ready_push(r, f);
    } else if (until != NST_NEVER) {
        if (unlikely(until <= r->now))
            stop(r, f, LATE_TIME);
        else
            timer_arm(&r->timers, &f->timer, until, on_deadline);
    }
}

/* The wait ends before it began. */
static int __attribute__((noinline)) refuse(struct nst_reactor *r, struct nst_future *f, nst_time until)
{
    struct nst_task *me = r->current;
    enum future_late why = (me->flags & TASK_CORE)        ? LATE_STOPPED
                           : (me->flags & TASK_CANCELLED) ? LATE_CANCEL
                           : until <= r->now              ? LATE_TIME
                                                          : LATE_NO_STACK;

    if (why == LATE_NO_STACK)
        r->no_stack++;
    f->then = NULL;
    stop(r, f, why);
    if (me->flags & TASK_CORE)
        return -EDEADLK;
    task_join(r, f);
    return f->rc;
}

/* Returns by a jump: see switch.h. */
static int __attribute__((noinline)) SWITCH_RETURNS_BY_JUMP await_open(struct nst_future *f, nst_time until)
{
    struct nst_reactor *r = nst_self;
    struct nst_task *me = r->current;

    if (unlikely((me->flags & (TASK_CANCELLED | TASK_CORE)) || until <= r->now || !may_suspend(r, me)))
        return refuse(r, f, until);
    f->then = task_wake;
    f->arg = me;
    if (until != NST_NEVER)
        timer_arm(&r->timers, &f->timer, until, on_deadline);
    me->waiting = f;
    task_suspend(r, me);
    me->waiting = NULL;
    return f->rc;
}

int nst_await(struct nst_future *f, nst_time until)
{
    return f->state == NST_FUTURE_DONE ? f->rc : await_open(f, until);
}

int nst_cancel(struct nst_future *f)
{
    struct nst_reactor *r = nst_self;

    f->then = NULL;
    if (f->queued)
        ready_remove(r, f);
    if (f->state == NST_FUTURE_OPEN)
        stop(r, f, LATE_STOPPED);
    if (f->state == NST_FUTURE_OPEN) {
        if (r->current->flags & TASK_CORE)
            return -EDEADLK;
        task_join(r, f);
    }
    return f->rc;
}

/* ---- several at once: each member's continuation counts, and the awaited future is the group's own ---- */

struct group {
    struct nst_future done;
    size_t open;
};

static void member_of_all(struct nst_future *f, int rc)
{
    struct group *g = f->arg;

    if (--g->open == 0 && g->done.state == NST_FUTURE_OPEN)
        nst_fulfil(&g->done, 0);
}

static void member_of_any(struct nst_future *f, int rc)
{
    struct group *g = f->arg;

    if (g->done.state == NST_FUTURE_OPEN)
        nst_fulfil(&g->done, 0);
}

/* The group itself has nothing to stop: the task sees to its members once it runs. */
static void group_stop(struct nst_future *done)
{
    nst_fulfil(done, -ECANCELED);
}

/* Waits for the group. When that ends early, and in any case when it returns, no member knows the group any more. */
static int group_await(struct nst_future *const f[], size_t n, nst_time until, void (*member)(struct nst_future *, int))
{
    struct nst_reactor *r = nst_self;
    struct group g = { .done.stop = group_stop };
    int rc;

    for (size_t i = 0; i < n; i++) {
        if (f[i]->state == NST_FUTURE_OPEN) {
            f[i]->then = member;
            f[i]->arg = &g;
            g.open++;
        }
    }
    rc = nst_await(&g.done, until);
    for (size_t i = 0; i < n; i++) {
        f[i]->then = NULL;
        if (f[i]->queued)
            ready_remove(r, f[i]);
    }
    if (rc < 0) {
        for (size_t i = 0; i < n; i++) {
            if (f[i]->state == NST_FUTURE_OPEN)
                stop(r, f[i], LATE_STOPPED);
        }
        if (rc != -EDEADLK) {
            for (size_t i = 0; i < n; i++)
                task_join(r, f[i]);
        }
    }
    return rc;
}

int nst_await_all(struct nst_future *const f[], size_t n, nst_time until)
{
    bool open = false;

    for (size_t i = 0; i < n; i++)
        open |= f[i]->state == NST_FUTURE_OPEN;
    if (open) {
        int rc = group_await(f, n, until, member_of_all);
        if (rc < 0)
            return rc;
    }
    for (size_t i = 0; i < n; i++) {
        if (f[i]->rc < 0)
            return f[i]->rc;
    }
    return 0;
}

int nst_await_any(struct nst_future *const f[], size_t n, nst_time until)
{
    if (n == 0 || n > INT32_MAX)
        return -EINVAL;
    for (;;) {
        for (size_t i = 0; i < n; i++) {
            if (f[i]->state == NST_FUTURE_DONE)
                return (int)i;
        }
        int rc = group_await(f, n, until, member_of_any);
        if (rc < 0)
            return rc;
    }
}
