/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/base.h - time, byte slices, results and the log: what every other header speaks in.
 *
 * Results   0 or a count on success, a negative errno value on failure. A constructor fills *out
 *           only when it returns 0. The library never calls exit() or abort() on bad input.
 * Borrowed  memory is never freed by the caller; it lives as long as what lent it.
 * Threads   unless a function says otherwise it is called on the reactor that owns the object.
 */
#pragma once
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NST_API __attribute__((visibility("default")))

/* The call may suspend the task that makes it; other tasks run meanwhile. Its result must be looked at:
 * -ETIMEDOUT when its deadline passed, -ECANCELED when what owns the task is closing. */
#define NST_WAITS __attribute__((warn_unused_result))

/* Nanoseconds. Live: CLOCK_MONOTONIC. While a capture is replayed: the capture's own clock. */
typedef int64_t nst_time;
#define NST_NEVER INT64_MAX
#define NST_US(n) ((nst_time)(n)*1000)
#define NST_MS(n) ((nst_time)(n)*1000000)
#define NST_SEC(n) ((nst_time)(n)*1000000000)

/* The time at which the current turn of this thread's reactor began, or, on a thread without a reactor,
 * CLOCK_MONOTONIC now. Costs a load. Any thread; never waits. */
NST_API nst_time nst_now(void);

/* CLOCK_MONOTONIC now, also while a capture is replayed. For measuring. Any thread; never waits. */
NST_API nst_time nst_clock(void);

/* Borrowed bytes. */
struct nst_slice {
    const void *p;
    size_t len;
};

/* ---- log: one line a call, to stderr unless nst_log_to says otherwise. Any thread; never waits for a
 *      reactor. Lines look like "netstar: warning: text". ---- */
enum nst_log_level { NST_LOG_ERROR, NST_LOG_WARNING, NST_LOG_INFO, NST_LOG_DEBUG };

/* Sets the least important level that is still written; the default is NST_LOG_INFO. */
NST_API void nst_log_level(enum nst_log_level level);

/* Hands every line that passes the level to sink(arg, level, text) instead; NULL restores stderr. */
NST_API void nst_log_to(void (*sink)(void *arg, enum nst_log_level, const char *text), void *arg);

NST_API void nst_log(enum nst_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A limit for messages that packets can cause: true for the first `burst` calls and then once a second; the
 * suppressed calls are counted in skipped, which the caller may print and zero. One owner thread. */
struct nst_log_limit {
    nst_time refill;
    uint32_t left;
    uint32_t skipped;
};
NST_API bool nst_log_allowed(struct nst_log_limit *limit, uint32_t burst);

#ifdef __cplusplus
}
#endif
