/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/stack.h"
#include <netstar/base.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef HAVE_VALGRIND
#include <valgrind/valgrind.h>
#endif

#ifdef NST_TSAN
_Thread_local struct fibers fibers;
#endif

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

enum {
    RESERVE = 64,
    COLOURS = 48,           /* lines by which tops are moved; 3 KiB at most */
    MPROTECT_LIMIT = 30000, /* each such guard costs two of the 65530 mappings that a process may have */
};

#define CANARY UINT64_C(0x6b63617453527473)

int stacks_open(struct stacks *s, size_t size, uint32_t limit)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

#if defined(NST_ASAN) || defined(NST_TSAN)
    size *= 4; /* instrumented frames are that much larger */
#endif
    *s = (struct stacks){ .limit = limit + 1, .reserve = RESERVE, .may_guard = true };
    if (size > SIZE_MAX / 4 / ((size_t)limit + 1 + RESERVE))
        return -EINVAL;
    s->stride = (size + page - 1) / page * page + page;
    size_t bytes = s->stride * (s->limit + s->reserve);
    s->base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (s->base == MAP_FAILED) {
        s->base = NULL;
        return -ENOMEM;
    }
    /* A huge page under sparsely used stacks costs far more memory than it saves time. */
    madvise(s->base, bytes, MADV_NOHUGEPAGE);
    if (madvise(s->base, page, MADV_GUARD_INSTALL) == 0)
        s->guard = "madvise";
    else if (s->limit + s->reserve <= MPROTECT_LIMIT)
        s->guard = "mprotect";
    else {
        s->guard = "canary";
        s->may_guard = false;
        nst_log(NST_LOG_WARNING, "stacks: no guard pages: this kernel cannot guard %u of them", limit);
    }
    return 0;
}

#ifdef NST_DEBUG_STACKS
/* The census: how deep the deepest use of any stack went, in pages that were touched. The lowest has the canary. */
static void census(const struct stacks *s)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), deepest = 0, pages = s->stride / page;
    unsigned char there[1];

    for (uint32_t i = 0; i < s->made; i++) {
        const char *top = s->base + (i + 1) * s->stride;
        for (size_t k = 2; k < pages && (pages - k) * page > deepest; k++) {
            if (mincore((void *)(top - (pages - k) * page), page, there) != 0 || (there[0] & 1)) {
                deepest = (pages - k) * page;
                break;
            }
        }
    }
    nst_log(NST_LOG_DEBUG, "stacks: %u used, the deepest %zu of %zu bytes", s->made, deepest, s->stride - page);
}

void stack_check(const struct nst_task *t)
{
    uint64_t word;

    memcpy(&word, t->low, sizeof word);
    if (word != CANARY)
        nst_log(NST_LOG_ERROR, "stacks: a task has overflown its stack (%p)", (void *)t->low);
}
#endif

void stacks_close(struct stacks *s)
{
    if (s->base == NULL)
        return;
#ifdef NST_DEBUG_STACKS
    census(s);
#endif
#ifdef NST_ASAN
    for (uint32_t i = 0; i < s->made; i++) {
        struct nst_task *t = stacks_at(s, i);
        __asan_unpoison_memory_region(t->low, (size_t)((char *)t - t->low));
    }
#endif
    munmap(s->base, s->stride * (s->limit + s->reserve));
    s->base = NULL;
}

struct nst_task *stacks_at(const struct stacks *s, uint32_t i)
{
    char *top = s->base + (i + 1) * s->stride - (size_t)(i * 5 % COLOURS) * 64;
    return (struct nst_task *)(top - sizeof(struct nst_task));
}

struct nst_task *stacks_grow(struct stacks *s, bool reserve)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *low = s->base + s->made * s->stride;

    if (s->made >= s->limit + (reserve ? s->reserve : 0))
        return NULL;
    if (s->may_guard && madvise(low, page, MADV_GUARD_INSTALL) != 0 && mprotect(low, page, PROT_NONE) != 0) {
        s->may_guard = false;
        s->guard = "canary";
        nst_log(NST_LOG_WARNING, "stacks: no guard page from the %uth on: %s", s->made + 1, strerror(errno));
    }
    struct nst_task *t = stacks_at(s, s->made++);
    t->low = low + page;
#ifdef NST_DEBUG_STACKS
    const uint64_t word = CANARY;
    memcpy(t->low, &word, sizeof word);
#endif
#ifdef HAVE_VALGRIND
    (void)VALGRIND_STACK_REGISTER(t->low, (char *)t);
#endif
    fiber_bounds(&t->fiber, t->low, (size_t)((char *)t - t->low));
    return t;
}
