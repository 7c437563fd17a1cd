/* SPDX-License-Identifier: Apache-2.0 */
#include "contest.h"
#include <rte_lcore.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

uint64_t contest_clock(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void contest_took(struct contestant *c, uint64_t ns)
{
    c->ns[c->n++] = (double)ns / c->contest->packets;
}

static void wait_for(sem_t *s)
{
    while (sem_wait(s) != 0)
        ;
}

bool contest_next(struct contestant *c)
{
    sem_post(&c->done);
    wait_for(&c->go);
    return !c->end;
}

static void *run(void *arg)
{
    struct contestant *c = arg;

    wait_for(&c->go);
    if (rte_thread_register() != 0) {
        fprintf(stderr, "bench: %s: DPDK does not take the thread\n", c->name);
        c->rc = -EINVAL;
    } else {
        c->rc = c->fn(c);
        rte_thread_unregister();
    }
    c->ended = true;
    sem_post(&c->done);
    return NULL;
}

static int start(struct contestant *c, const struct contest *contest)
{
    pthread_attr_t attr;
    cpu_set_t set;
    int rc;

    c->contest = contest;
    sem_init(&c->go, 0, 0);
    sem_init(&c->done, 0, 0);
    CPU_ZERO(&set);
    CPU_SET(contest->cpu, &set);
    pthread_attr_init(&attr);
    pthread_attr_setaffinity_np(&attr, sizeof set, &set);
    rc = pthread_create(&c->thread, &attr, run, c);
    pthread_attr_destroy(&attr);
    if (rc != 0)
        fprintf(stderr, "bench: %s: thread on core %d: %s\n", c->name, contest->cpu, strerror(rc));
    return -rc;
}

/* Gives c the core until it has set up, taken its turn or ended. */
static int turn(struct contestant *c)
{
    sem_post(&c->go);
    wait_for(&c->done);
    if (c->ended && c->rc == 0 && !c->end)
        c->rc = -EPROTO;
    return c->rc;
}

int contest_run(const struct contest *contest, struct contestant *c, unsigned n)
{
    unsigned started = 0;
    int rc = 0;

    while (started < n && rc == 0) {
        rc = start(&c[started], contest);
        started += rc == 0;
    }
    for (unsigned i = 0; i < started && rc == 0; i++)
        rc = turn(&c[i]);
    for (unsigned round = 0; round < contest->rounds && rc == 0; round++) {
        for (unsigned i = 0; i < n && rc == 0; i++)
            rc = turn(&c[i]);
    }
    for (unsigned i = 0; i < started; i++) {
        c[i].end = true;
        while (!c[i].ended) {
            int last = turn(&c[i]);
            rc = rc == 0 ? last : rc;
        }
        pthread_join(c[i].thread, NULL);
        sem_destroy(&c[i].go);
        sem_destroy(&c[i].done);
    }
    return rc;
}
