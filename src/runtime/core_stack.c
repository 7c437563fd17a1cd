/* SPDX-License-Identifier: Apache-2.0 */
/* The core's own big stack, for libraries that need more than a task has. */
#include "runtime/reactor_internal.h"
#include <sys/mman.h>
#include <unistd.h>

enum { CORE_STACK = 1 << 20 };

struct core_call {
    void (*fn)(void *arg);
    void *arg;
    struct nst_reactor *r;
    struct fiber *from;
};

int core_stack_open(struct nst_reactor *r)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = CORE_STACK + page;
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

    if (p == MAP_FAILED)
        return -ENOMEM;
    r->core_stack = p;
    r->core_size = size;
    if (mprotect(p, page, PROT_NONE) != 0)
        return -ENOMEM;
    fiber_bounds(&r->core_fiber, p + page, CORE_STACK);
    return 0;
}

void core_stack_close(struct nst_reactor *r)
{
    if (r->core_stack != NULL)
        munmap(r->core_stack, r->core_size);
    r->core_stack = NULL;
}

static void on_core(void *arg)
{
    const struct core_call *c = arg;

    fiber_entered(c->from);
    c->fn(c->arg);
    fiber_leaving(NULL, c->from);
}

void nst_on_core_stack(void (*fn)(void *arg), void *arg)
{
    struct nst_reactor *r = nst_self;

    if (r == NULL || (r->current->flags & TASK_CORE)) {
        fn(arg);
        return;
    }
    struct nst_task *me = r->current;
    struct core_call c = { .fn = fn, .arg = arg, .r = r, .from = &me->fiber };

    me->flags |= TASK_CORE;
    fiber_open(&r->core_fiber);
    fiber_leaving(&me->fiber, &r->core_fiber);
    nst_stack_call((char *)r->core_stack + r->core_size, on_core, &c);
    fiber_shut(&r->core_fiber);
    fiber_arrived(&me->fiber);
    me->flags &= ~(uint32_t)TASK_CORE;
}
