/* SPDX-License-Identifier: Apache-2.0 */
#include <netstar/base.h>
#include <stdio.h>

static enum nst_log_level max_level = NST_LOG_INFO;
static void (*sink_fn)(void *, enum nst_log_level, const char *);
static void *sink_arg;

void nst_log_level(enum nst_log_level level)
{
    max_level = level;
}

void nst_log_to(void (*sink)(void *, enum nst_log_level, const char *), void *arg)
{
    sink_arg = arg;
    sink_fn = sink;
}

void nst_log(enum nst_log_level level, const char *fmt, ...)
{
    static const char *const names[] = { "error: ", "warning: ", "", "debug: " };
    char text[1024];
    va_list ap;

    if (level > max_level)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (sink_fn != NULL)
        sink_fn(sink_arg, level, text);
    else
        fprintf(stderr, "netstar: %s%s\n", names[level], text);
}

bool nst_log_allowed(struct nst_log_limit *limit, uint32_t burst)
{
    nst_time now = nst_clock();

    if (limit->refill == 0) {
        limit->left = burst;
        limit->refill = now;
    }
    /* One more for each second that has passed, up to the burst; what is left of a second counts on. */
    nst_time seconds = (now - limit->refill) / NST_SEC(1);
    limit->refill += seconds * NST_SEC(1);
    if (limit->left < burst)
        limit->left = seconds < burst - limit->left ? limit->left + (uint32_t)seconds : burst;
    if (limit->left == 0) {
        limit->skipped++;
        return false;
    }
    limit->left--;
    return true;
}
