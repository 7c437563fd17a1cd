/* SPDX-License-Identifier: Apache-2.0 */
/* For the runtime's tests: runs a function as the first task of a reactor and stops it when that has returned. */
#pragma once
#include "runtime/runtime.h"
#include <netstar/netstar.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static struct nst_reactor *reactor;
static struct nst_reactor_stats stats; /* of the last run, taken at its end */

/* cmocka's failures jump, which they must not from a task's stack. */
#define CHECK(x)                                                    \
    do {                                                            \
        if (!(x)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); \
            abort();                                                \
        }                                                           \
    } while (0)

static void (*harness_body)(void);

static void harness_main(void *arg)
{
    harness_body();
    nst_reactor_stop(reactor);
}

__attribute__((unused)) static void run_with(const struct nst_reactor_config *config, void (*body)(void))
{
    harness_body = body;
    assert_int_equal(nst_reactor_open(&reactor, config), 0);
    assert_int_equal(nst_reactor_run(reactor, harness_main, NULL), 0);
    nst_reactor_stats(reactor, &stats);
    assert_int_equal(stats.stacks_used, 0);
    nst_reactor_close(reactor);
    reactor = NULL;
}

__attribute__((unused)) static void run(void (*body)(void))
{
    run_with(NULL, body);
}

/* A producer whose answers the test gives by hand. */
__attribute__((unused)) static void stop_at_once(struct nst_future *f)
{
    nst_fulfil(f, -ECANCELED);
}

/* Returns when the loop has come round n times. */
__attribute__((unused)) static void pass_turns(unsigned n)
{
    struct nst_reactor_stats s;
    uint64_t end;

    nst_reactor_stats(reactor, &s);
    end = s.turns + n;
    while (s.turns < end) {
        CHECK(nst_yield() == 0);
        nst_reactor_stats(reactor, &s);
    }
}
