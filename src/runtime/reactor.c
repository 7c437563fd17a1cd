/* SPDX-License-Identifier: Apache-2.0 */
/* The loop. All of its state is in the reactor, none on its stack: whenever code that it called waits, the loop starts
 * anew on another stack at the phase where it was, and when it resumes a task it gives its stack up. */
#include "runtime/reactor_internal.h"
#include <sched.h>

__thread struct nst_reactor *nst_self __attribute__((tls_model("initial-exec")));

nst_time nst_now(void)
{
    return nst_self != NULL ? nst_self->now : nst_clock();
}

struct nst_reactor *nst_reactor_self(void)
{
    return nst_self;
}

void nst_running(const char *name)
{
    struct nst_reactor *r = nst_self;

    if (r != NULL)
        set_label(r, name);
}

/* ---- stacks and waits ---- */

struct nst_task *pool_refill(struct nst_reactor *r, bool reserve)
{
    struct nst_task *t = stacks_grow(&r->stacks, reserve);

    if (t != NULL) {
        t->flags = r->base_flags;
        t->next = r->pool;
        r->pool = t;
    }
    return t;
}

void task_wake(struct nst_future *f, int rc)
{
}

/* The loop gives up its stack and resumes a task on its own. */
static inline __attribute__((always_inline, noreturn)) void resume(struct nst_reactor *r, struct nst_task *me,
                                                                   struct nst_task *to)
{
    stack_check(me);
    r->used--;
    me->next = r->pool;
    r->pool = me;
    r->current = to;
    fiber_leaving(NULL, &to->fiber);
    fiber_shut(&me->fiber);
    stack_leave(to->sp);
}

/* Goes on with a called task until it waits again or has ended. Inline: see SWITCH_RETURNS_BY_JUMP. */
static inline __attribute__((always_inline)) void resume_called(struct nst_reactor *r, struct nst_task *to)
{
    struct nst_task *me = r->current;

    to->flags &= ~(uint32_t)TASK_MOVED;
    r->current = to;
    fiber_calls(&to->fiber, &me->fiber);
    int rc = nst_task_resume(to);
    fiber_arrived(&me->fiber);
    r->current = me;
    if (to->flags & TASK_MOVED)
        return;
    fiber_shut(&to->fiber);
    to->ended(to, rc);
}

/* The next future in the queue that wakes a task, moved to its head. */
static bool wake_next(struct nst_reactor *r)
{
    struct nst_future *f = r->ready;

    while (f != NULL && f->then != task_wake)
        f = f->next;
    if (f == NULL)
        return false;
    ready_remove(r, f);
    f->next = r->ready;
    f->queued = 1;
    r->ready = f;
    if (f->next == NULL)
        r->ready_tail = &f->next;
    return true;
}

/* No stack is left, not even in the reserve, and the operation cannot be stopped: the core does nothing but wait for
 * it, until it ends or another task can run on the stack that it holds. */
static void join_without_stack(struct nst_reactor *r, struct nst_future *f)
{
    uint8_t phase = r->phase;
    uint32_t budget = r->budget;

    while (f->state == NST_FUTURE_OPEN) {
        if (!wake_next(r)) {
            r->phase = TURN_END;
            turn_end(r);
            continue;
        }
        struct nst_future *other = r->ready;
        struct nst_task *to = other->arg;
        if (to->back == NULL)
            break;
        ready_pop(r, other);
        resume_called(r, to);
    }
    if (f->state == NST_FUTURE_DONE) {
        ready_remove(r, f);
        r->phase = phase;
    } else {
        r->phase = TURN_READY;
        r->budget = budget + 1;
        task_suspend(r, r->current);
    }
}

void task_join(struct nst_reactor *r, struct nst_future *f)
{
    struct nst_task *me = r->current;

    if (f->state == NST_FUTURE_DONE)
        return;
    f->then = task_wake;
    f->arg = me;
    me->waiting = NULL;
    if (r->pool == NULL && me->back == NULL && pool_refill(r, true) == NULL)
        join_without_stack(r, f);
    else
        task_suspend(r, me);
}

struct nst_task *nst_task_self(void)
{
    return nst_self->current;
}

void nst_task_cancel(struct nst_task *t)
{
    struct nst_future *f = t->waiting;

    t->flags |= TASK_CANCELLED;
    if (f == NULL || f->state == NST_FUTURE_DONE || f->late != LATE_NOT)
        return;
    nst_timer_disarm(&f->timer);
    f->late = LATE_CANCEL;
    if (f->stop != NULL)
        f->stop(f);
}

void nst_task_clear_cancel(struct nst_task *t)
{
    t->flags = (t->flags & ~(uint32_t)TASK_CANCELLED) | nst_self->base_flags;
}

bool nst_cancelled(void)
{
    return (nst_self->current->flags & TASK_CANCELLED) != 0;
}

bool nst_moved(void)
{
    return (nst_self->current->flags & TASK_MOVED) != 0;
}

bool nst_poll_again(void)
{
    return nst_self->poll_moves != 0;
}

/* ---- the loop ---- */

/* What the loop called has returned. */
static inline void back(struct nst_reactor *r, struct nst_task *me)
{
    me->flags = r->base_flags;
    set_label(r, NULL);
}

void poll_next(struct nst_reactor *r, struct nst_poller *p)
{
    r->poll_at = p;
    r->poll_moves = 0;
    if (p == NULL)
        r->phase = TURN_END;
}

static void __attribute__((noreturn)) leave_thread_loop(struct nst_reactor *r)
{
    struct nst_task *me = r->current;

    r->current = &r->main;
    fiber_leaving(NULL, &r->main.fiber);
    fiber_shut(&me->fiber);
    stack_leave(r->main.sp);
}

void nst_reactor_loop(struct nst_reactor *r)
{
    struct nst_task *me = r->current;
    struct nst_future *f;
    struct nst_poller *p;

    fiber_entered(r->phase == TURN_BEGIN ? &r->main.fiber : NULL);
    back(r, me);
    if (r->phase == TURN_POLL && ++r->poll_moves > POLL_MOVES)
        poll_next(r, r->poll_at->next);
    for (;;) {
        switch (r->phase) {
        case TURN_BEGIN:
            r->phase = TURN_READY;
            break;
        case TURN_READY:
            while (r->budget != 0 && (f = r->ready) != NULL) {
                r->budget--;
                r->work++;
                ready_pop(r, f);
                if (f->then != task_wake)
                    f->then(f, f->rc);
                else if (((struct nst_task *)f->arg)->back != NULL)
                    resume_called(r, f->arg);
                else
                    resume(r, me, f->arg);
                back(r, me);
            }
            r->phase = TURN_POLL;
            poll_next(r, r->pollers);
            break;
        case TURN_POLL:
            p = r->poll_at;
            r->work += (uint32_t)p->poll(p);
            /* When it has waited, the loop has gone on without it; when it removed itself, poll_at is its successor. */
            if (!(me->flags & TASK_MOVED) && r->poll_at == p)
                poll_next(r, p->next);
            back(r, me);
            break;
        case TURN_END:
            turn_end(r);
            back(r, me);
            break;
        default:
            leave_thread_loop(r);
        }
    }
}

static void begin_stop(struct nst_reactor *r)
{
    r->stopping = true;
    r->base_flags = TASK_CANCELLED;
    scope_cancel(&r->root);
    for (uint32_t i = 0; i < r->stacks.made; i++)
        nst_task_cancel(stacks_at(&r->stacks, i));
}

static void idle(struct nst_reactor *r)
{
    r->idle_turns++;
    if (r->replay) {
        if (r->outside > 0) {
            if (r->stand_wall == 0) {
                r->stand_wall = nst_clock();
                r->stand_now = r->now;
            }
        } else {
            r->stand_wall = 0;
            if (r->may_jump && timers_next(&r->timers) != NST_NEVER) {
                if (r->timers.next > r->now)
                    r->now = r->timers.next;
                return;
            }
        }
    }
    if (++r->idle_run >= IDLE_TURNS && !r->busy_poll)
        events_sleep(r);
}

void turn_end(struct nst_reactor *r)
{
    uint64_t turn = atomic_load_explicit(&r->turns, memory_order_relaxed) + 1;

    atomic_store_explicit(&r->turns, turn, memory_order_relaxed);
    if (unlikely(atomic_load_explicit(&r->stop, memory_order_relaxed)) && !r->stopping)
        begin_stop(r);
    if (r->timers.next <= r->now)
        r->work += timers_fire(r);
    if (mail_there(r))
        r->work += mail_take(r);
    if (r->watches != 0 && (r->outside > 0 || r->work == 0 || turn % LOOK_OUTSIDE == 0))
        events_look(r);
    if (r->flushers != NULL || r->early_flushers != NULL)
        flushers_run(r);
    if (r->work != 0 || r->ready != NULL || r->flushers != NULL || r->early_flushers != NULL) {
        r->idle_run = 0;
        r->stand_wall = 0;
    } else if (r->stopping && r->used == 0 && r->root.busy == 0 && r->calls_out == 0) {
        r->phase = TURN_OVER;
        return;
    } else {
        idle(r);
    }
    if (!r->replay)
        r->now = nst_clock();
    else if (r->stand_wall != 0)
        r->now = r->stand_now + (nst_clock() - r->stand_wall);
    r->work = 0;
    r->budget = READY_BUDGET;
    r->phase = TURN_READY;
}

int nst_reactor_run(struct nst_reactor *r, void (*main)(void *arg), void *arg)
{
    int rc;

    if (nst_self != NULL)
        return -EBUSY;
    if (r->cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(r->cpu, &set);
        rc = pthread_setaffinity_np(pthread_self(), sizeof set, &set);
        if (rc != 0)
            return -rc;
    }
    if (r->pool == NULL && pool_refill(r, false) == NULL)
        return -ENOMEM;
    nst_self = r;
    r->thread = pthread_self();
    if (!r->replay)
        r->now = nst_clock();
    r->budget = READY_BUDGET;
    r->phase = TURN_BEGIN;
    mail_open(r);
    rc = watchdog_add(r);
    if (rc == 0 && main != NULL)
        rc = nst_spawn(&r->root, main, arg);
    if (rc == 0) {
        struct nst_task *first = r->pool;
        r->pool = first->next;
        r->current = first;
        fiber_adopt(&r->main.fiber);
        fiber_open(&first->fiber);
        fiber_leaving(&r->main.fiber, &first->fiber);
        stack_enter(&r->main.sp, first, r);
        fiber_arrived(&r->main.fiber);
    }
    watchdog_remove(r);
    mail_close(r);
    /* The last stack of the loop is free again; so is every other. */
    r->pool = NULL;
    for (uint32_t i = r->stacks.made; i-- > 0;) {
        struct nst_task *t = stacks_at(&r->stacks, i);
        t->next = r->pool;
        t->flags = 0;
        r->pool = t;
    }
    r->current = NULL;
    r->base_flags = 0;
    r->root.closing = false;
    r->stopping = false;
    atomic_store(&r->stop, false);
    nst_self = NULL;
    return rc;
}
