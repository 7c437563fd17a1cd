/* SPDX-License-Identifier: Apache-2.0 */
/* The stall detector: one thread for the process looks whether the turns of each reactor go on. Where one stands still
 * for too long it names who holds the core, with a backtrace that the culprit's own thread takes in a signal handler.
 * A reactor that sleeps is no stall, nor is a process that was stopped as a whole. */
#include "runtime/reactor_internal.h"
#include <execinfo.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

enum { FRAMES = 48, TRACE_SIGNAL_ABOVE_RTMIN = 7, SIGNAL_STACK = 64 << 10 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static struct nst_reactor *watched;
static bool started;

/* Filled by the signal handler. state: 0 idle, 1 asked for, 2 being taken. */
static struct {
    atomic_int state;
    int n;
    void *pc[FRAMES];
    sem_t taken;
} trace;

static void take_trace(int sig)
{
    int saved = errno, asked = 1;

    if (atomic_compare_exchange_strong(&trace.state, &asked, 2)) {
        trace.n = backtrace(trace.pc, FRAMES);
        sem_post(&trace.taken);
    }
    errno = saved;
}

static void report(struct nst_reactor *r, nst_time held)
{
    const char *label = __atomic_load_n(&r->label, __ATOMIC_RELAXED);
    struct timespec until;
    int asked = 1;

    atomic_fetch_add_explicit(&r->stalls, 1, memory_order_relaxed);
    nst_log(NST_LOG_WARNING, "stall: %s: %s has held the core for %lld ms", r->name,
            label != NULL ? label : "(unnamed)", (long long)(held / NST_MS(1)));
    atomic_store(&trace.state, 1);
    if (pthread_kill(r->thread, SIGRTMIN + TRACE_SIGNAL_ABOVE_RTMIN) != 0)
        return;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 100 * 1000 * 1000;
    if (until.tv_nsec >= 1000 * 1000 * 1000) {
        until.tv_nsec -= 1000 * 1000 * 1000;
        until.tv_sec++;
    }
    while (sem_timedwait(&trace.taken, &until) != 0) {
        if (errno == EINTR)
            continue;
        /* Nobody answers; unless the handler has just begun, it will not any more. */
        if (atomic_compare_exchange_strong(&trace.state, &asked, 0))
            return;
        until.tv_sec++;
        asked = 1;
    }
    char **names = backtrace_symbols(trace.pc, trace.n);
    /* The first two are the handler and the return from the signal. */
    for (int i = 2; names != NULL && i < trace.n; i++)
        nst_log(NST_LOG_WARNING, "stall: %s:   %s", r->name, names[i]);
    free(names);
    atomic_store(&trace.state, 0);
}

static void look_at(struct nst_reactor *r, nst_time now, bool fresh)
{
    uint64_t turn = atomic_load_explicit(&r->turns, memory_order_relaxed);

    if (fresh || turn != r->watched.turn || atomic_load(&r->sleeping)) {
        r->watched.turn = turn;
        r->watched.since = now;
        r->watched.told = false;
    } else if (!r->watched.told && now - r->watched.since >= r->stall_after) {
        r->watched.told = true;
        report(r, now - r->watched.since);
    }
}

static void *watch(void *arg)
{
    nst_time last = nst_clock();

    pthread_mutex_lock(&lock);
    for (;;) {
        nst_time step = NST_SEC(1);
        if (watched == NULL) {
            pthread_cond_wait(&changed, &lock);
            last = nst_clock();
            continue;
        }
        for (struct nst_reactor *r = watched; r != NULL; r = r->next_watched) {
            if (r->stall_after / 4 < step)
                step = r->stall_after / 4;
        }
        if (step < NST_MS(1))
            step = NST_MS(1);
        nst_time until = nst_clock() + step;
        struct timespec ts = { .tv_sec = until / NST_SEC(1), .tv_nsec = until % NST_SEC(1) };
        pthread_cond_timedwait(&changed, &lock, &ts);
        nst_time now = nst_clock();
        /* We were not running either: the process was stopped, or the machine was. */
        bool fresh = now - last > 4 * step + NST_MS(50);
        last = now;
        for (struct nst_reactor *r = watched; r != NULL; r = r->next_watched)
            look_at(r, now, fresh);
    }
    return NULL;
}

static int start(void)
{
    struct sigaction sa = { .sa_handler = take_trace, .sa_flags = SA_RESTART | SA_ONSTACK };
    pthread_condattr_t attr;
    pthread_t thread;
    sigset_t all, before;
    int rc;

    trace.n = backtrace(trace.pc, 1); /* loads what it needs now, and not in the signal handler */
    sem_init(&trace.taken, 0, 0);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &attr);
    pthread_condattr_destroy(&attr);
    sigemptyset(&sa.sa_mask);
    if (sigaction(SIGRTMIN + TRACE_SIGNAL_ABOVE_RTMIN, &sa, NULL) != 0)
        return -errno;
    /* The process's signals are for others. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&thread, NULL, watch, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0)
        return -rc;
    pthread_detach(thread);
    started = true;
    return 0;
}

int watchdog_add(struct nst_reactor *r)
{
    int rc = 0;

    if (r->stall_after == NST_NEVER)
        return 0;
    /* The handler gets a stack of its own: what is left of a task's may be too little. */
    r->signal_stack = malloc(SIGNAL_STACK);
    if (r->signal_stack == NULL)
        return -ENOMEM;
    stack_t mine = { .ss_sp = r->signal_stack, .ss_size = SIGNAL_STACK };
    if (sigaltstack(&mine, &r->signal_stack_before) != 0) {
        rc = -errno;
        free(r->signal_stack);
        r->signal_stack = NULL;
        return rc;
    }
    pthread_mutex_lock(&lock);
    if (!started)
        rc = start();
    if (rc == 0) {
        r->watched.turn = atomic_load_explicit(&r->turns, memory_order_relaxed);
        r->watched.since = nst_clock();
        r->watched.told = false;
        r->next_watched = watched;
        watched = r;
        pthread_cond_signal(&changed);
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

void watchdog_remove(struct nst_reactor *r)
{
    if (r->signal_stack == NULL)
        return;
    pthread_mutex_lock(&lock);
    for (struct nst_reactor **at = &watched; *at != NULL; at = &(*at)->next_watched) {
        if (*at == r) {
            *at = r->next_watched;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    sigaltstack(&r->signal_stack_before, NULL);
    free(r->signal_stack);
    r->signal_stack = NULL;
}
