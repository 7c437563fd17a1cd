/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/reactor.h - the event loop of one core, for programs that start NetStar and for code that feeds it.
 *
 * Each turn of the loop: read the clock, run what is runnable, call the pollers, fire timers, look at watched
 * descriptors and the mailbox, run the flushers of whoever collected work in this turn, and, when a while has
 * passed without any work, sleep until a descriptor, a message or a timer wakes it.
 *
 * A reactor belongs to the thread that runs it. Only the functions that say so may be called from elsewhere.
 */
#pragma once
#include <netstar/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct nst_reactor;

struct nst_reactor_config {
    const char *name;     /* for messages; copied; NULL: "core N" */
    int cpu;              /* pin the running thread to this one; -1: do not pin */
    bool busy_poll;       /* never sleep */
    size_t stack_size;    /* bytes per task, rounded up to pages; 0: 64 KiB */
    uint32_t stacks;      /* tasks that may wait at the same time; 0: 16384 */
    nst_time stall_after; /* report whoever holds the core longer than this; 0: 100 ms, NST_NEVER: off */
};

/* Reserves the memory of a reactor. config may be NULL. -EINVAL, -ENOMEM. Any thread. */
NST_API int nst_reactor_open(struct nst_reactor **out, const struct nst_reactor_config *config);

/* Runs the loop on the calling thread until nst_reactor_stop, starting with main(arg) as a task when main is
 * not NULL. Returns 0 once all tasks have ended, or -EBUSY when this thread runs a reactor already, or the
 * errno of pinning. */
NST_API int nst_reactor_run(struct nst_reactor *r, void (*main)(void *arg), void *arg);

/* Asks the loop to end: the tasks are cancelled, and run returns when the last has ended. Any thread, and
 * async-signal-safe. */
NST_API void nst_reactor_stop(struct nst_reactor *r);

/* Frees a reactor that is not running. NULL is allowed. */
NST_API void nst_reactor_close(struct nst_reactor *r);

/* The reactor that the calling thread runs, or NULL. */
NST_API struct nst_reactor *nst_reactor_self(void);

/* What the loop did; a copy. Any thread may ask for a stopped reactor, its own thread always. */
struct nst_reactor_stats {
    uint64_t turns, idle_turns, sleeps, suspensions, timers_fired, calls_in, calls_refused;
    uint64_t stalls;   /* times that somebody held the core longer than stall_after */
    uint64_t no_stack; /* waits refused with -ENOMEM because every stack was in use */
    uint32_t stacks_used, stacks_peak, stacks_limit;
    const char *guard; /* how stacks are guarded: "madvise", "mprotect" or "canary" */
};
NST_API void nst_reactor_stats(const struct nst_reactor *r, struct nst_reactor_stats *out);

/* ---- pollers: asked in every turn. poll returns how much work it found (0 lets the reactor sleep).
 *      poll may run code that waits. When it did, the loop has moved on to another stack, and this activation
 *      of poll is a task of its own: it must keep what is left of its work in *self, look at nst_moved() after
 *      each call that can wait, and when that is true return without touching that work. ---- */
struct nst_poller {
    struct nst_poller *next;
    int (*poll)(struct nst_poller *self);
};
NST_API void nst_poller_add(struct nst_reactor *r, struct nst_poller *p);
NST_API void nst_poller_remove(struct nst_reactor *r, struct nst_poller *p);
NST_API bool nst_moved(void);

/* ---- watches: a descriptor in the reactor's epoll set, level-triggered. ready() is called from the loop with
 *      the epoll events and may not wait; it may be NULL where the descriptor only has to end the sleep. ---- */
struct nst_watch {
    int fd;
    uint32_t events; /* EPOLLIN, EPOLLOUT */
    void (*ready)(struct nst_watch *self, uint32_t events);
};
NST_API int nst_watch_add(struct nst_reactor *r, struct nst_watch *w); /* the errno of epoll_ctl */
NST_API int nst_watch_change(struct nst_reactor *r, struct nst_watch *w, uint32_t events);
NST_API void nst_watch_remove(struct nst_reactor *r, struct nst_watch *w);

/* ---- flushers: whoever collects requests marks its flusher; flush() is called once at the end of the turn, so
 *      that all requests of a burst leave in one write. flush may not wait. ---- */
struct nst_flusher {
    struct nst_flusher *next;
    void (*flush)(struct nst_flusher *self);
    bool marked;
    bool early; /* before those that are not, also those that it marks itself: it makes requests that they collect */
};
NST_API void nst_flusher_mark(struct nst_flusher *f);
/* Takes back a mark, e.g. before the flusher's memory is freed. */
NST_API void nst_flusher_unmark(struct nst_flusher *f);

/* ---- the clock of a replay: after the first nst_clock_set, nst_now() stands at the time that was set and timers
 *      fire by it. While answers from outside are outstanding (nst_outside) and nothing is runnable it runs on
 *      with the wall clock, so that deadlines still pass; when none are, and nothing is runnable, and
 *      nst_clock_idle allows it, it jumps to the next timer. The next nst_clock_set ends that. ---- */
NST_API void nst_clock_set(struct nst_reactor *r, nst_time now);
NST_API void nst_clock_idle(struct nst_reactor *r, bool may_jump);

/* Requests to the world outside that have not been answered: adds n (which may be negative). Looked at by the
 * clock of a replay and by how often the reactor looks at its descriptors. */
NST_API void nst_outside(int n);

/* Names who runs now, for the stall report; the string must outlive the reactor. Costs a store. */
NST_API void nst_running(const char *name);

#ifdef __cplusplus
}
#endif
