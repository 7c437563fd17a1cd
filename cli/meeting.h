/* SPDX-License-Identifier: Apache-2.0 */
/* cli/meeting.h - the cores of a run wait for each other: at the start, before the first packet, and at the end, before
 * one closes what another may still send to. */
#pragma once
#include <netstar/cores.h>
#include <netstar/future.h>
#include <netstar/reactor.h>
#include <pthread.h>

struct meeting {
    pthread_mutex_t lock;
    unsigned n, arrived;
    struct meeting_place {
        struct nst_reactor *reactor;
        struct nst_future here, told;
        bool failed;
    } place[NST_CORES_MAX];
};

/* n cores will meet; their reactors are set in place[] before the first does. */
void meeting_init(struct meeting *m, unsigned n);

/* Waits until all have come, each on its reactor. `failed` is asked once all are there, and every core gets the same
 * answer, 0 or 1. -ECANCELED: its reactor is being stopped. */
int meeting_wait(struct meeting *m, unsigned core, bool (*failed)(void *arg), void *arg);
