/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/future.h - promise and continuation: the ground on which every style of NF code stands.
 *
 * A future is a result that is to come. It has one producer, who calls nst_fulfil exactly once, and at most one
 * consumer, who either awaits it (reads like blocking code) or hands it a continuation. Both are the same
 * mechanism: awaiting is a continuation that wakes the task.
 *
 * Ownership  the consumer owns the memory (its stack, its context) and may reuse it once the result was taken,
 *            that is, when nst_await or nst_cancel has returned or when the continuation has been called.
 * Threads    a future belongs to one reactor. To cross cores use nst_call (task.h).
 * Re-entry   fulfilling never runs the consumer's code; it only makes it runnable.
 */
#pragma once
#include <netstar/base.h>
#include <netstar/timer.h>

#ifdef __cplusplus
extern "C" {
#endif

enum nst_future_state { NST_FUTURE_OPEN, NST_FUTURE_DONE };

struct nst_future {
    void (*then)(struct nst_future *self, int rc); /* the continuation; NULL while nobody waits */
    void (*stop)(struct nst_future *self);         /* set by the producer, see nst_cancel; may be NULL */
    void *arg;                                     /* the consumer's */
    void *op;                                      /* the producer's */
    struct nst_future *next;                       /* in the queue of what is runnable */
    struct nst_timer timer;                        /* the consumer's deadline */
    int rc;
    uint8_t state;
    uint8_t late; /* its deadline has passed */
    uint8_t queued;
};

/* A future that nobody has promised yet. Sets what must be known before the producer and the consumer set theirs; a
 * future that is all zero is as good. */
static inline void nst_future_init(struct nst_future *f)
{
    f->then = NULL;
    f->stop = NULL;
    f->timer.where = 0;
    f->rc = 0;
    f->state = NST_FUTURE_OPEN;
    f->late = 0;
    f->queued = 0;
}

/* Producer: the result has come. At most once for each future; rc is handed to the consumer. Never waits. */
NST_API void nst_fulfil(struct nst_future *f, int rc);

/* Consumer: calls fn(f, rc) from the reactor's loop once the result is there, or once `until` passes: then
 * the operation is stopped and joined first and rc is -ETIMEDOUT. fn finds arg in f->arg; it may wait. */
NST_API void nst_then(struct nst_future *f, void (*fn)(struct nst_future *f, int rc), void *arg, nst_time until);

/* Consumer: returns the result. When `until` passes first, the operation is stopped and joined, and the answer
 * is -ETIMEDOUT; when the task's owner is closing, the same with -ECANCELED (at once, even before waiting).
 * A result that is there already is returned without suspending. */
NST_API int nst_await(struct nst_future *f, nst_time until) NST_WAITS;

/* Waits for all n futures. Returns 0 when each ended with rc >= 0, else the rc of the first in the array that
 * failed; each one's own result is in its rc. Late or cancelled: the open ones are stopped and joined. */
NST_API int nst_await_all(struct nst_future *const f[], size_t n, nst_time until) NST_WAITS;

/* Waits until one of n futures has its result; returns the index of the first such in the array. The others
 * stay open: await them again or nst_cancel them before their memory goes. Late or cancelled: all are stopped
 * and joined. -EINVAL when n is 0. */
NST_API int nst_await_any(struct nst_future *const f[], size_t n, nst_time until) NST_WAITS;

/* Consumer: gives the operation up. Tells the producer through f->stop, which must see to it that nothing more
 * is written for this future and fulfil it with -ECANCELED before it returns, or leave it to be fulfilled soon,
 * in which case (and where stop is NULL) the call waits for it. Returns the future's rc. No continuation runs. */
NST_API int nst_cancel(struct nst_future *f);

#ifdef __cplusplus
}
#endif
