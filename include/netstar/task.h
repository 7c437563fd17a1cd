/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/task.h - tasks: code that may wait; scopes, which own them; calls between cores.
 *
 * A task never leaves its reactor. It runs until it waits; no other task of the reactor runs in between, so data
 * of the reactor needs no lock. A task holds a stack only from its first wait to its end: until then it runs on
 * the stack of the reactor's loop, and the loop moves to another one when the task waits. Stacks come from a
 * warm pool, have a guard page where the kernel can give one, and are limited in number.
 *
 * A scope owns tasks (structured concurrency): closing it cancels them, every wait of theirs answers -ECANCELED
 * at once, and the close returns when the last of them has ended. Scopes nest.
 */
#pragma once
#include <netstar/base.h>
#include <netstar/future.h>

#ifdef __cplusplus
extern "C" {
#endif

struct nst_scope;
struct nst_reactor;

/* Makes a scope on this reactor, closed with its parent when that is not NULL. -ENOMEM, -ECANCELED when the
 * parent is closing. Never waits. */
NST_API int nst_scope_open(struct nst_scope **out, struct nst_scope *parent);

/* Makes fn(arg) runnable as a task of the scope. arg must live until the task has ended. -ENOMEM, -ECANCELED
 * when the scope is closing. Never waits. */
NST_API int nst_spawn(struct nst_scope *scope, void (*fn)(void *arg), void *arg);

/* Waits until every task of the scope and of its children has ended by itself; the scope stays open.
 * -ETIMEDOUT or -ECANCELED leave the tasks running. */
NST_API int nst_scope_join(struct nst_scope *scope, nst_time until) NST_WAITS;

/* Cancels what the scope owns, waits for its end and frees the scope. It has no deadline and is not itself
 * cancelled: after cancellation every wait ends at once, so it ends as soon as the tasks return. Returns the
 * number of tasks that were still running, or -EDEADLK when called by a task of the same scope. */
NST_API int nst_scope_close(struct nst_scope *scope) NST_WAITS;

/* Waits until the time has come: 0, or -ECANCELED. */
NST_API int nst_sleep(nst_time until) NST_WAITS;

/* Lets everything else that is runnable run first: 0, or -ECANCELED. */
NST_API int nst_yield(void) NST_WAITS;

/* True when the running task has been cancelled: long loops without waits may ask. Never waits. */
NST_API bool nst_cancelled(void);

/* Calls fn(arg) on the core's own big stack (1 MiB) and returns when it has returned. For libraries that need
 * much stack (Hyperscan, TLS). fn must not wait: a wait inside answers -EDEADLK. */
NST_API void nst_on_core_stack(void (*fn)(void *arg), void *arg);

/* Calls fn(arg) on the reactor `to`, as a task there, and fulfils `done` on the calling reactor with fn's
 * result. arg must live until then; it cannot be stopped, so a late wait still joins it. -EAGAIN when the
 * mailbox of `to` is full (nothing was sent; counted), -ENOMEM. Call it on a reactor; never waits. */
NST_API int nst_call(struct nst_reactor *to, int (*fn)(void *arg), void *arg, struct nst_future *done);

#ifdef __cplusplus
}
#endif
