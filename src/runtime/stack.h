/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/stack.h - the stacks of a reactor and the switches between them.
 *
 * One region is reserved for all; stack i lies at i strides from its start, its guard page lowest. The control
 * block of a stack (struct nst_task) lies at its top, moved down by a colour so that the tops of different stacks
 * fall into different cache sets. Free stacks wait in a list, the last used first, because it is the warmest.
 *
 * The loop needs no stack of its own: all its state is in the reactor. So a free stack holds nothing, entering it
 * restores nothing, and leaving it for a suspended task saves nothing: a wait costs one save and one restore.
 *
 * A *called* task is the other way to wait (task_call in reactor_internal.h): a function that is expected to wait is
 * called on a free stack, and the loop stays where it is.
 */
#pragma once
#include "runtime/fiber.h"
#include "runtime/switch.h"
#include <netstar/future.h>

struct nst_reactor;
struct job;

enum {
    TASK_CANCELLED = 1, /* every wait answers -ECANCELED */
    TASK_CORE = 2,      /* on the core's big stack: every wait answers -EDEADLK */
    TASK_MOVED = 4,     /* has waited since it was called from the loop, or last resumed */
};

struct nst_task {
    void *sp;                   /* while suspended */
    void *back;                 /* of a called task: the stack that goes on when it waits or ends; else NULL */
    struct nst_task *next;      /* while free */
    struct nst_future *waiting; /* what may be stopped to end its wait; NULL: nothing */
    struct job *job;            /* the spawned task whose code runs here, if any */
    void (*ended)(struct nst_task *self, int rc); /* of a called task that has waited: takes its result */
    uint32_t flags;
    struct fiber fiber;
    char *low; /* first usable byte */
} __attribute__((aligned(64)));
#if !defined(NST_ASAN) && !defined(NST_TSAN)
_Static_assert(sizeof(struct nst_task) == 64, "a task's control block is one cache line");
#endif

struct stacks {
    char *base;
    size_t stride;
    uint32_t made, limit; /* how many have been used so far, and how many there may be */
    uint32_t reserve;     /* beyond the limit, for waits that cannot be refused */
    bool may_guard;
    const char *guard;
};

/* limit counts the stacks that hold a waiting task; one more is reserved for the loop. */
int stacks_open(struct stacks *s, size_t size, uint32_t limit);
void stacks_close(struct stacks *s);
/* A stack that was never used, or NULL when the limit (with reserve: that and the reserve) is reached. */
struct nst_task *stacks_grow(struct stacks *s, bool reserve);
struct nst_task *stacks_at(const struct stacks *s, uint32_t i);

/* Debug builds: logs when the lowest word of the stack has been overwritten. */
#ifdef NST_DEBUG_STACKS
void stack_check(const struct nst_task *t);
#else
static inline void stack_check(const struct nst_task *t)
{
}
#endif
