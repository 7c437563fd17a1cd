/* SPDX-License-Identifier: Apache-2.0 */
/* bench/contest.h - several contestants take turns on one core, over the same trace, so that what disturbs the machine
 * disturbs all of them.
 *
 * Each contestant has a thread of its own, pinned to the core and known to DPDK (its packet buffers come from a cache
 * of its own, and stay warm). Only one runs at a time. A round is one turn of each. Measured is the CPU time of the
 * contestant's thread, over a fixed number of packets, after some that are not counted: the caches are then its own.
 */
#pragma once
#include "trace.h"
#include <pthread.h>
#include <semaphore.h>

enum { ROUNDS_MAX = 101 };

struct contestant;

/* What a contestant does, on its thread: sets up, calls contest_next until it is false, measures a turn each time,
 * cleans up; returns 0 or why it failed, having said so. */
typedef int contest_fn(struct contestant *c);

struct contest {
    const struct trace *trace; /* may be NULL where only handshakes are fed */
    struct rte_mempool *pool;
    int socket; /* for the floor's memory */
    int cpu;
    uint64_t packets, warm; /* in a turn: counted; ahead of them, not counted */
    unsigned rounds;
};

struct contestant {
    const char *name;
    contest_fn *fn;
    const void *arg;
    const struct contest *contest;
    double ns[ROUNDS_MAX]; /* per packet */
    unsigned n;            /* rounds measured */
    int rc;
    /* its turns */
    pthread_t thread;
    sem_t go, done;
    bool end, ended;
};

/* Runs all rounds. 0, or the first contestant's error. */
int contest_run(const struct contest *contest, struct contestant *c, unsigned n);

/* Contestant: waits for its turn; false when there are no more. */
bool contest_next(struct contestant *c);

/* CPU time of the calling thread, ns. */
uint64_t contest_clock(void);
/* Contestant: the time that the counted packets of this turn took. */
void contest_took(struct contestant *c, uint64_t ns);
