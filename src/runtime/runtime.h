/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/runtime.h - what the other layers may know of the runtime beyond its public headers.
 *
 * All of it is called on the reactor's own thread, and none of it waits.
 */
#pragma once
#include <netstar/reactor.h>
#include <netstar/task.h>

struct nst_task;

/* The activation that runs now: what the loop (a poller, a continuation, a spawned task) called. It stays the same
 * across waits, and is gone when that call returns to the loop. */
struct nst_task *nst_task_self(void);

/* Cancels an activation that is still there: its present wait is stopped and answers -ECANCELED, and so does each
 * further one until the mark is cleared or the call returns to the loop. It does not run anything. */
void nst_task_cancel(struct nst_task *t);
/* Clears the mark, unless the reactor is stopping. */
void nst_task_clear_cancel(struct nst_task *t);

/* Inside poll(): true when poll has been called before in this turn and that call waited. Whoever takes in new
 * work only when this is false bounds a turn to one burst. */
bool nst_poll_again(void);

/* Keeps r from falling asleep before its pollers have been asked once more, and ends its sleep when it sleeps already:
 * for whoever has just put something where one of them will find it. Any thread. Costs a load while r is awake and was
 * rung before, and a system call only when it sleeps. */
void nst_reactor_ring(struct nst_reactor *r);

/* Bounds each sleep of the reactor, for pollers whose work no descriptor announces; 0: no bound. */
void nst_reactor_nap(struct nst_reactor *r, nst_time max);
