/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/reactor_internal.h - the inside of a reactor, and the short functions that every wait passes through. */
#pragma once
#include "runtime/runtime.h"
#include "runtime/stack.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#ifndef container_of
#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))
#endif

enum {
    TIMER_RUNS = 8,
    EVENTS = 64,        /* taken from epoll at once */
    READY_BUDGET = 512, /* continuations run in one turn before the pollers get theirs */
    POLL_MOVES = 64,    /* waits in one poller before its turn is over */
    MAILBOX = 4096,     /* calls that may lie in a mailbox */
    IDLE_TURNS = 100,   /* empty turns before the reactor sleeps */
    LOOK_OUTSIDE = 64,  /* turns between two looks at the descriptors when nothing is asked of the world */
};

enum turn_phase { TURN_BEGIN, TURN_READY, TURN_POLL, TURN_END, TURN_OVER };

/* Why a wait was ended early; in nst_future.late. */
enum future_late { LATE_NOT, LATE_TIME, LATE_CANCEL, LATE_NO_STACK, LATE_STOPPED };

enum timer_where { TIMER_IDLE, TIMER_LINKED, TIMER_HEAP };

/* Lists whose deadlines rise, and a heap for whatever fits none of them. The head of a list is a timer whose
 * `until` is a bound on the list's last deadline. */
struct timers {
    nst_time next; /* no timer is earlier than this */
    struct nst_timer run[TIMER_RUNS];
    struct nst_timer due; /* those that fire in this turn */
    struct nst_timer **heap;
    uint32_t n, room;
};

/* A spawned task. */
struct job {
    struct nst_future start;
    struct nst_scope *scope;
    struct job *prev, *next; /* in its scope; next also among the free ones */
    void (*fn)(void *arg);
    void *arg;
    struct nst_task *task; /* where it runs; NULL until it started */
    bool cancelled;
};

struct nst_scope {
    struct nst_reactor *r;
    struct nst_scope *parent, *children, *prev, *next;
    struct job *jobs;
    struct scope_wait *waiters;
    uint32_t busy; /* tasks of this scope and of those below it that have not ended */
    bool closing;
    bool closer; /* somebody waits in nst_scope_close for this very scope and will free it */
};

struct call;

struct nst_reactor {
    /* What each wait touches. */
    struct nst_task *current;
    struct nst_task *pool; /* free stacks, the warmest first */
    struct nst_future *ready, **ready_tail;
    nst_time now;
    const char *label;
    uint32_t budget; /* continuations left in this turn */
    uint32_t base_flags;
    uint8_t phase; /* enum turn_phase */
    uint32_t used; /* stacks that hold a waiting task */
    /* What each turn touches. */
    uint64_t suspensions __attribute__((aligned(64))); /* that moved the loop */
    uint64_t called_waits;                             /* of called tasks, which did not */
    _Atomic uint64_t turns;
    struct nst_poller *poll_at;
    uint32_t poll_moves;
    uint32_t work; /* found in this turn */
    struct nst_flusher *flushers, **flushers_tail, *early_flushers;
    int64_t outside;
    uint32_t idle_run; /* turns since the last that found work */
    uint32_t watches;
    bool busy_poll, replay, may_jump, stopping;
    nst_time stand_wall, stand_now; /* since when, and from which time on, a replay's clock runs with the wall's */
    struct timers timers;

    /* What other threads touch. */
    _Atomic(struct call *) mail __attribute__((aligned(64)));
    atomic_uint mail_waiting;
    atomic_bool sleeping;
    atomic_bool rung; /* since the last attempt to sleep */
    atomic_bool stop;
    atomic_int visitors; /* threads that still touch this reactor after their message was taken */
    _Atomic uint64_t calls_refused;
    _Atomic uint64_t stalls;

    struct stacks stacks __attribute__((aligned(64)));
    struct nst_poller *pollers;
    struct nst_scope root;
    struct job *free_jobs;
    struct job_chunk *job_chunks;
    struct call *free_calls;
    uint32_t calls_out; /* of ours to others, unanswered */
    struct epoll_event events[EVENTS];
    int n_events, at_event;
    int epoll_fd, event_fd;
    bool whole_ms; /* this kernel sleeps in milliseconds only */
    nst_time nap;
    uint64_t idle_turns, sleeps, timers_fired, calls_in, no_stack;
    struct nst_task main; /* the thread's own stack, while the reactor runs */
    void *core_stack;
    size_t core_size;
    struct fiber core_fiber;

    pthread_t thread;
    nst_time stall_after;
    struct nst_reactor *next_watched;
    void *signal_stack;
    stack_t signal_stack_before;
    struct {
        uint64_t turn;
        nst_time since;
        bool told;
    } watched; /* the watchdog's */
    int cpu;
    char name[32];
};

/* A task never changes its thread, so that its address may be kept across a wait. */
extern __thread struct nst_reactor *nst_self __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* The watchdog reads it. */
static inline void set_label(struct nst_reactor *r, const char *label)
{
    __atomic_store_n(&r->label, label, __ATOMIC_RELAXED);
}

/* ---- what is runnable ---- */

static inline void ready_push(struct nst_reactor *r, struct nst_future *f)
{
    f->next = NULL;
    f->queued = 1;
    *r->ready_tail = f;
    r->ready_tail = &f->next;
}

static inline void ready_pop(struct nst_reactor *r, struct nst_future *f)
{
    f->queued = 0;
    r->ready = f->next;
    if (f->next == NULL)
        r->ready_tail = &r->ready;
}

void ready_remove(struct nst_reactor *r, struct nst_future *f);

/* The continuation of a future that a task awaits. It is never called: the loop knows it by its address. */
void task_wake(struct nst_future *f, int rc);

/* ---- timers ---- */

void timers_init(struct timers *ts);
void timers_free(struct timers *ts);
unsigned timers_fire(struct nst_reactor *r);
nst_time timers_next(struct timers *ts); /* exact */
void timers_heap_add(struct timers *ts, struct nst_timer *t);
void timers_heap_remove(struct timers *ts, struct nst_timer *t);

static inline void timer_link(struct nst_timer *head, struct nst_timer *t)
{
    t->next = head;
    t->prev = head->prev;
    head->prev->next = t;
    head->prev = t;
    t->where = TIMER_LINKED;
}

static inline void timer_arm(struct timers *ts, struct nst_timer *t, nst_time until, void (*fire)(struct nst_timer *))
{
    t->until = until;
    t->fire = fire;
    if (until < ts->next)
        ts->next = until;
    for (unsigned k = 0; k < TIMER_RUNS; k++) {
        struct nst_timer *head = &ts->run[k];
        if (head->until <= until) {
            head->until = until;
            timer_link(head, t);
            return;
        }
    }
    timers_heap_add(ts, t);
}

static inline void timer_disarm(struct timers *ts, struct nst_timer *t)
{
    if (likely(t->where == TIMER_LINKED)) {
        struct nst_timer *prev = t->prev, *next = t->next;
        prev->next = next;
        next->prev = prev;
        if (prev == next) /* the head of a list that is empty now */
            prev->until = INT64_MIN;
        t->where = TIMER_IDLE;
    } else if (t->where == TIMER_HEAP) {
        timers_heap_remove(ts, t);
    }
}

/* ---- waits ---- */

/* A stack for the loop to go on with, or NULL. */
struct nst_task *pool_refill(struct nst_reactor *r, bool reserve);

/* Leaves the running code where it is and goes on with what is runnable; returns when its future (whose `then` is
 * task_wake and whose arg is `me`) has come up. The pool may be empty only when a wake is next. */
static inline void task_suspend(struct nst_reactor *r, struct nst_task *me)
{
    const char *label = r->label;
    struct nst_future *f = r->ready;

    stack_check(me);
    me->flags |= TASK_MOVED;
    if (me->back != NULL) {
        r->called_waits++;
        fiber_leaving(&me->fiber, fiber_caller(&me->fiber));
        stack_switch(&me->sp, me->back);
        fiber_arrived(&me->fiber);
    } else if (r->phase == TURN_READY && f != NULL && f->then == task_wake && r->budget != 0 &&
               ((struct nst_task *)f->arg)->back == NULL) {
        struct nst_task *to = f->arg;
        r->suspensions++;
        r->budget--;
        ready_pop(r, f);
        r->current = to;
        if (to != me) {
            fiber_leaving(&me->fiber, &to->fiber);
            stack_switch(&me->sp, to->sp);
            fiber_arrived(&me->fiber);
        }
    } else {
        struct nst_task *fresh = r->pool;
        r->suspensions++;
        r->pool = fresh->next;
        r->used++;
        r->current = fresh;
        fiber_open(&fresh->fiber);
        fiber_leaving(&me->fiber, &fresh->fiber);
        stack_enter(&me->sp, fresh, r);
        fiber_arrived(&me->fiber);
    }
    set_label(r, label);
}

/* Whether there is a stack to go on with when this task waits. */
static inline bool may_suspend(struct nst_reactor *r, const struct nst_task *me)
{
    return r->pool != NULL || me->back != NULL || pool_refill(r, false) != NULL;
}

/* ---- called tasks: what is expected to wait is called on a stack of its own, and the loop stays on its ---- */

/* A free stack for one task_call, or NULL. Room for `size` bytes that live as long as it is held begins at task_room.
 */
static inline struct nst_task *task_take(struct nst_reactor *r)
{
    struct nst_task *t = r->pool;

    if (unlikely(t == NULL) && (t = pool_refill(r, false)) == NULL)
        return NULL;
    r->pool = t->next;
    r->used++;
    t->flags = r->base_flags;
    fiber_open(&t->fiber);
    return t;
}

static inline void task_put(struct nst_reactor *r, struct nst_task *t)
{
    t->back = NULL;
    t->next = r->pool;
    r->pool = t;
    r->used--;
}

static inline void *task_room(struct nst_task *t, size_t size)
{
    return (char *)t - ((size + 15) & ~(size_t)15);
}

/* Calls fn(a, b) on the stack of t, below `room`. True: it has returned *rc. False: it waits; when it has ended the
 * loop calls t->ended. Either way the stack is the caller's (of ended) to put back. */
static inline bool task_call(struct nst_reactor *r, struct nst_task *t, void *room, int (*fn)(void *a, const void *b),
                             void *a, const void *b, int *rc)
{
    struct nst_task *me = r->current;

    r->current = t;
    fiber_calls(&t->fiber, &me->fiber);
#ifdef FIBER_ENTRY
    struct fiber_entry entry = { fn, a, b, &t->fiber };
    *rc = nst_task_call(t, room, fiber_entry, &entry, NULL);
#else
    *rc = nst_task_call(t, room, fn, a, b);
#endif
    fiber_arrived(&me->fiber);
    r->current = me;
    if (unlikely(t->flags & TASK_MOVED))
        return false;
    fiber_shut(&t->fiber);
    return true;
}

/* Waits for f, whatever happens. */
void task_join(struct nst_reactor *r, struct nst_future *f);

/* ---- the rest of the loop ---- */

/* Goes on with p; NULL: the pollers have had their turn. */
void poll_next(struct nst_reactor *r, struct nst_poller *p);
void turn_end(struct nst_reactor *r);
void events_look(struct nst_reactor *r);
void events_sleep(struct nst_reactor *r);
void flushers_run(struct nst_reactor *r);

void scope_init(struct nst_scope *s, struct nst_reactor *r);
void scope_cancel(struct nst_scope *s);
void scopes_free(struct nst_reactor *r);

int core_stack_open(struct nst_reactor *r);
void core_stack_close(struct nst_reactor *r);

unsigned mail_take(struct nst_reactor *r);
/* Refuses what lies in the mailbox and whatever comes later, until mail_open. */
void mail_close(struct nst_reactor *r);
void mail_open(struct nst_reactor *r);
void calls_free(struct nst_reactor *r);
static inline bool mail_there(struct nst_reactor *r)
{
    return atomic_load_explicit(&r->mail, memory_order_relaxed) != NULL;
}
/* Ends the sleep of a reactor. Any thread. */
void reactor_wake(struct nst_reactor *r);

int watchdog_add(struct nst_reactor *r);
void watchdog_remove(struct nst_reactor *r);
