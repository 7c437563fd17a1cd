/* SPDX-License-Identifier: Apache-2.0 */
/* What the runtime's own steps cost, in nanoseconds: a continuation, a wait, a spawned task; ROUND of each a turn, as
 * the packets of a burst would. Prints the least of several passes. */
#include "runtime/reactor_internal.h"
#include <netstar/netstar.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUND = 32, ROUNDS = 100000, PASSES = 7 };

static struct nst_future futures[ROUND];
static unsigned at; /* the next of the burst */
static unsigned long done, rounds;
static int style;
static nst_time began;

/* Of the core, so that losing it to somebody else does not count. */
static nst_time cpu_time(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return NST_SEC(t.tv_sec) + t.tv_nsec;
}

static void __attribute__((noinline)) one_waits(struct nst_future *f)
{
    if (nst_await(f, NST_NEVER) == 0)
        done++;
}

static void __attribute__((noinline)) one_waits_twice(struct nst_future *f)
{
    if (nst_await(f, NST_NEVER) != 0)
        return;
    nst_future_init(f);
    if (nst_await(f, NST_NEVER) == 0)
        done++;
}

static void one_waits_until(struct nst_future *f)
{
    if (nst_await(f, nst_now() + NST_SEC(1)) == 0)
        done++;
}

static int waits_called(void *f, const void *unused)
{
    if (nst_await(f, NST_NEVER) == 0)
        done++;
    return 0;
}

static int waits_called_twice(void *f, const void *unused)
{
    if (nst_await(f, NST_NEVER) != 0)
        return -1;
    nst_future_init(f);
    if (nst_await(f, NST_NEVER) == 0)
        done++;
    return 0;
}

static void called_ended(struct nst_task *t, int rc)
{
    task_put(nst_self, t);
}

static void call(struct nst_future *f, int (*fn)(void *f, const void *unused))
{
    struct nst_task *t = task_take(nst_self);
    int rc;

    t->ended = called_ended;
    if (task_call(nst_self, t, t, fn, f, NULL, &rc))
        abort();
}

static void SWITCH_RETURNS_BY_JUMP one_called(struct nst_future *f)
{
    call(f, waits_called);
}

static void SWITCH_RETURNS_BY_JUMP one_called_twice(struct nst_future *f)
{
    call(f, waits_called_twice);
}

static void on_result(struct nst_future *f, int rc)
{
    if (rc == 0)
        done++;
}

static void on_first(struct nst_future *f, int rc)
{
    nst_future_init(f);
    nst_then(f, on_result, NULL, NST_NEVER);
}

static void __attribute__((noinline)) one_continues(struct nst_future *f)
{
    nst_then(f, on_result, NULL, NST_NEVER);
}

static void __attribute__((noinline)) one_continues_twice(struct nst_future *f)
{
    nst_then(f, on_first, NULL, NST_NEVER);
}

static void one_continues_until(struct nst_future *f)
{
    nst_then(f, on_result, NULL, nst_now() + NST_SEC(1));
}

static void one_spawned(void *arg)
{
    done++;
}

static void (*const styles[])(struct nst_future *) = { one_continues,   one_waits,           one_continues_until,
                                                       one_waits_until, one_continues_twice, one_waits_twice,
                                                       one_called,      one_called_twice };
static const char *const names[] = { "continuation",      "wait",      "continuation, timed", "wait, timed",
                                     "two continuations", "two waits", "called, one wait",    "called, two waits",
                                     "spawned task" };
enum { STYLES = sizeof names / sizeof *names };
static double least[STYLES];
static int pass;

static void answer(struct nst_flusher *self)
{
    for (unsigned i = 0; i < ROUND; i++) {
        if (futures[i].state == NST_FUTURE_OPEN && futures[i].then != NULL)
            nst_fulfil(&futures[i], 0);
    }
}
static struct nst_flusher answers = { .flush = answer };
static struct nst_scope *scope;

static int poll(struct nst_poller *self)
{
    if (at == ROUND) {
        if (done < (rounds + 1) * ROUND) {
            nst_flusher_mark(&answers);
            return 1;
        }
        at = 0;
        if (++rounds == ROUNDS) {
            double ns = (double)(cpu_time() - began) / ((double)ROUNDS * ROUND);
            if (pass == 0 || ns < least[style])
                least[style] = ns;
            rounds = 0;
            done = 0;
            if (++style == STYLES) {
                style = 0;
                if (++pass == PASSES) {
                    nst_reactor_stop(nst_reactor_self());
                    nst_poller_remove(nst_reactor_self(), self);
                    return 0;
                }
            }
            began = cpu_time();
        }
    }
    while (at < ROUND) {
        struct nst_future *f = &futures[at++];
        if (style == STYLES - 1) {
            if (nst_spawn(scope, one_spawned, NULL) != 0)
                abort();
            continue;
        }
        nst_future_init(f);
        styles[style](f);
        if (nst_moved())
            return 1;
    }
    nst_flusher_mark(&answers);
    return 1;
}

static void begin(void *arg)
{
    static struct nst_poller poller = { .poll = poll };

    if (nst_scope_open(&scope, NULL) != 0)
        abort();
    began = cpu_time();
    nst_poller_add(nst_reactor_self(), &poller);
}

int main(void)
{
    struct nst_reactor_config config = { .cpu = 1, .busy_poll = true };
    struct nst_reactor *r;

    if (nst_reactor_open(&r, &config) != 0 || nst_reactor_run(r, begin, NULL) != 0)
        return 1;
    for (int i = 0; i < STYLES; i++)
        printf("%-22s %6.1f ns\n", names[i], least[i]);
    nst_reactor_close(r);
    return 0;
}
