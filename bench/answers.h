/* SPDX-License-Identifier: Apache-2.0 */
/* bench/answers.h - a queue that stands for a store: requests are collected during a turn of the reactor and answered
 * together at its end, as the flush of a store that answers at once would do.
 */
#pragma once
#include <netstar/future.h>
#include <netstar/reactor.h>

enum { ANSWERS_MAX = 4096 }; /* a store's default bound on what is in flight */

struct answers {
    struct nst_flusher flusher;
    uint64_t asked;
    unsigned n;
    struct nst_future *waiting[ANSWERS_MAX];
};

/* All zero but for the flusher's function. */
void answers_init(struct answers *a);

/* Promises 0 at the end of this turn; -EBUSY when too many wait. */
void answers_start(struct answers *a, struct nst_future *f);
