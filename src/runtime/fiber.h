/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/fiber.h - tells AddressSanitizer and ThreadSanitizer about stack switches; nothing in other builds.
 *
 * Around every switch: fiber_leaving(from, to) before it, fiber_arrived(now) after it, on the stack that runs then.
 * from == NULL where the left stack holds nothing that will be returned to. Each occupation of a stack is a fibre of
 * ThreadSanitizer's: fiber_open before it is entered afresh, fiber_shut once it has been left for good.
 *
 * To make one, ThreadSanitizer clears most of a megabyte, far more than a task takes. So a thread keeps some of those that
 * were left, and uses them again; but not for ever, since the calls that were never returned from stay on the list of calls
 * that each has.
 */
#pragma once
#include <stddef.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define NST_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define NST_TSAN 1
#include <sanitizer/tsan_interface.h>

enum { FIBERS_KEPT = 64, FIBER_USES = 500 };
struct fibers {
    unsigned n;
    struct fiber_left {
        void *tsan;
        unsigned uses;
    } left[FIBERS_KEPT];
};
extern _Thread_local struct fibers fibers;
#endif

struct fiber {
#ifdef NST_ASAN
    void *fake; /* ASan's own stack for locals, while this one is suspended */
    const void *low;
    size_t size;
#endif
#ifdef NST_TSAN
    void *tsan;
    unsigned uses;
#endif
#if defined(NST_ASAN) || defined(NST_TSAN)
    struct fiber *caller; /* of a called task: where it goes back to */
#endif
    char none[1];
};

static inline void fiber_bounds(struct fiber *f, const void *low, size_t size)
{
#ifdef NST_ASAN
    f->low = low;
    f->size = size;
#endif
}

static inline void fiber_open(struct fiber *f)
{
#ifdef NST_ASAN
    __asan_unpoison_memory_region(f->low, f->size);
#endif
#ifdef NST_TSAN
    struct fiber_left x = fibers.n != 0 ? fibers.left[--fibers.n] : (struct fiber_left){ __tsan_create_fiber(0), 0 };
    f->tsan = x.tsan;
    f->uses = x.uses + 1;
#endif
}

/* The fibre of the thread's own stack. */
static inline void fiber_adopt(struct fiber *f)
{
#ifdef NST_TSAN
    f->tsan = __tsan_get_current_fiber();
#endif
}

static inline __attribute__((always_inline)) void fiber_leaving(struct fiber *from, struct fiber *to)
{
#ifdef NST_ASAN
    __sanitizer_start_switch_fiber(from != NULL ? &from->fake : NULL, to->low, to->size);
#endif
#ifdef NST_TSAN
    __tsan_switch_to_fiber(to->tsan, 0);
#endif
}

static inline __attribute__((always_inline)) void fiber_shut(struct fiber *left)
{
#ifdef NST_TSAN
    if (left->uses < FIBER_USES && fibers.n < FIBERS_KEPT)
        fibers.left[fibers.n++] = (struct fiber_left){ left->tsan, left->uses };
    else
        __tsan_destroy_fiber(left->tsan);
#endif
}

static inline __attribute__((always_inline)) void fiber_arrived(struct fiber *now)
{
#ifdef NST_ASAN
    __sanitizer_finish_switch_fiber(now->fake, NULL, NULL);
    now->fake = NULL;
#endif
}

/* The fibre that a called task goes back to; it is set whenever that calls or resumes it. */
static inline struct fiber *fiber_caller(struct fiber *f)
{
#if defined(NST_ASAN) || defined(NST_TSAN)
    return f->caller;
#else
    return f;
#endif
}

static inline __attribute__((always_inline)) void fiber_calls(struct fiber *to, struct fiber *from)
{
#if defined(NST_ASAN) || defined(NST_TSAN)
    to->caller = from;
    fiber_leaving(from, to);
#endif
}

/* As fiber_arrived on a stack entered afresh; *from learns the bounds of where it came from. */
static inline __attribute__((always_inline)) void fiber_entered(struct fiber *from)
{
#ifdef NST_ASAN
    const void *low;
    size_t size;
    __sanitizer_finish_switch_fiber(NULL, &low, &size);
    if (from != NULL)
        fiber_bounds(from, low, size);
#endif
}

#if defined(NST_ASAN) || defined(NST_TSAN)
/* Called tasks begin and end here, on their own stack. */
#define FIBER_ENTRY
struct fiber_entry {
    int (*fn)(void *a, const void *b);
    void *a;
    const void *b;
    struct fiber *self;
};

static inline int fiber_entry(void *arg, const void *unused)
{
    struct fiber_entry e = *(struct fiber_entry *)arg; /* it lies on the caller's stack */

    fiber_entered(NULL);
    int rc = e.fn(e.a, e.b);
    fiber_leaving(NULL, e.self->caller);
    return rc;
}
#endif
