/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/timer.h - one-shot timers of a reactor.
 *
 * The caller owns the memory of a timer and keeps it until the timer has fired or was disarmed. A timer belongs
 * to the reactor on which it was armed. Budgets repeat, so most deadlines arrive in rising order: arming one
 * that is later than the newest of a run costs an append, any other costs O(log n) in a heap.
 */
#pragma once
#include <netstar/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct nst_timer {
    struct nst_timer *prev, *next; /* in a run */
    nst_time until;
    void (*fire)(struct nst_timer *self);
    uint32_t where; /* 0: idle; the runtime's own use */
    uint32_t slot;
};

/* Arms an idle, zeroed or fired timer: fire(self) is called on this reactor, from its loop, in the first turn
 * at or after `until`, never from within this call. fire may rearm or free the timer; it may not wait.
 * NST_NEVER arms nothing. Returns 0, or -ENOMEM when the heap cannot grow. Never waits. */
NST_API int nst_timer_arm(struct nst_timer *t, nst_time until, void (*fire)(struct nst_timer *self));

/* Makes sure that t will not fire. Harmless on an idle timer. Never waits. */
NST_API void nst_timer_disarm(struct nst_timer *t);

#ifdef __cplusplus
}
#endif
