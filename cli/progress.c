/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"
#include "values.h"
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

static void wipe(struct progress *p)
{
    if (p->up)
        fputs("\r\033[K", stderr);
    p->up = false;
}

static void log_line(void *arg, enum nst_log_level level, const char *text)
{
    static const char *const names[] = { "error: ", "warning: ", "", "debug: " };

    wipe(arg);
    fprintf(stderr, "netstar: %s%s\n", names[level], text);
}

void progress_begin(struct progress *p)
{
    *p = (struct progress){ .began = nst_clock() };
    if (!isatty(STDERR_FILENO)) {
        p->shown = NST_NEVER;
        return;
    }
    nst_log_to(log_line, p);
}

const char *progress_line(char *buf, size_t size, uint64_t packets, uint64_t bytes, uint64_t of_bytes, nst_time since)
{
    double seconds = (double)since / 1e9;
    char percent[16] = "", read[32];

    if (of_bytes != 0)
        snprintf(percent, sizeof percent, "%3.0f %%  ",
                 bytes < of_bytes ? 100.0 * (double)bytes / (double)of_bytes : 100);
    snprintf(buf, size, "%s%" PRIu64 " packets, %s read, %.0f packets/s", percent, packets,
             value_show_size(bytes, read, sizeof read), seconds > 0 ? (double)packets / seconds : 0);
    return buf;
}

void progress_update(void *arg, uint64_t packets, uint64_t bytes, uint64_t of_bytes)
{
    struct progress *p = arg;
    nst_time now;
    char line[160];

    if (p->shown == NST_NEVER)
        return;
    now = nst_clock();
    if (now < p->shown + NST_MS(500))
        return;
    p->shown = now;
    fprintf(stderr, "\r\033[K%s", progress_line(line, sizeof line, packets, bytes, of_bytes, now - p->began));
    fflush(stderr);
    p->up = true;
}

void progress_end(struct progress *p)
{
    wipe(p);
    nst_log_to(NULL, NULL);
}
