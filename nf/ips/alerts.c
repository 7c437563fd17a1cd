/* SPDX-License-Identifier: Apache-2.0 */
#include "alerts.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct ips_alerts {
    int fd;
    bool replay;
    bool collects; /* alerts until it is quiet */
    bool torn;     /* the last line was not written to its end */
    uint64_t lost;
    struct nst_log_limit limit;
    struct ips_alert *collected;
    size_t n, room;
    char line[1 + IPS_ALERT_MAX];
};

/* ---- JSON ---- */
struct text {
    char *p;
    size_t len, cap;
};

__attribute__((format(printf, 2, 3))) static void print(struct text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(t->p + t->len, t->cap - t->len, fmt, args);
    va_end(args);
    t->len += (size_t)n < t->cap - t->len ? (size_t)n : t->cap - t->len - 1;
}

/* The length of the UTF-8 character at s, or 0 when there is none: overlong forms, surrogates and what lies beyond
 * U+10FFFF are none. */
static int utf8(const unsigned char *s)
{
    static const struct {
        unsigned char first, last, low, high; /* the first byte's range, and the second's */
        int len;
    } forms[] = {
        { 0x20, 0x7f, 0, 0, 1 },       { 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 },
        { 0xe1, 0xec, 0x80, 0xbf, 3 }, { 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
        { 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (s[0] < forms[i].first || s[0] > forms[i].last)
            continue;
        if (forms[i].len > 1 && (s[1] < forms[i].low || s[1] > forms[i].high))
            return 0;
        for (int k = 2; k < forms[i].len; k++)
            if ((s[k] & 0xc0) != 0x80)
                return 0;
        return forms[i].len;
    }
    return 0;
}

static void print_string(struct text *t, const char *s)
{
    print(t, "\"");
    while (*s) {
        int len = utf8((const unsigned char *)s);
        if (*s == '"' || *s == '\\')
            print(t, "\\%c", *s);
        else if ((unsigned char)*s < ' ' || *s == 0x7f)
            print(t, "\\u%04x", (unsigned char)*s);
        else if (len == 0)
            print(t, "\\ufffd");
        else
            print(t, "%.*s", len, s);
        s += len ? len : 1;
    }
    print(t, "\"");
}

static void print_endpoint(struct text *t, const char *name, const struct nst_endpoint *e)
{
    char addr[INET6_ADDRSTRLEN] = "";
    inet_ntop(e->family == 6 ? AF_INET6 : AF_INET, e->addr, addr, sizeof addr);
    print(t, ",\"%s\":\"%s\",\"%s_port\":%u", name, addr, name, e->port);
}

size_t ips_alert_format(const struct ips_alert *a, nst_time time, char *buf, size_t cap)
{
    struct text t = { buf, 0, cap };
    int64_t ns = time % 1000000000;
    time_t seconds = time / 1000000000 - (ns < 0);
    struct tm tm;
    char date[48] = "";
    gmtime_r(&seconds, &tm);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
    print(&t, "{\"time\":\"%s.%09dZ\",\"rule\":%u,\"action\":\"%s\",\"message\":", date,
          (int)(ns < 0 ? ns + 1000000000 : ns), a->rule->id, ips_action_name(a->rule->action));
    print_string(&t, a->rule->msg);
    print(&t, ",\"proto\":\"tcp\"");
    if (a->vlan != 0)
        print(&t, ",\"vlan\":%u", a->vlan);
    print_endpoint(&t, "src", &a->src);
    print_endpoint(&t, "dst", &a->dst);
    print(&t, ",\"to\":\"%s\",\"offset\":%llu,\"packet\":%llu}\n", a->to == NST_SERVER ? "server" : "client",
          (unsigned long long)a->offset, (unsigned long long)a->packet);
    return t.len;
}

/* ---- the log ---- */
int ips_alerts_open(struct ips_alerts **out, const char *path, bool replay)
{
    struct ips_alerts *log = calloc(1, sizeof *log);
    if (!log)
        return -ENOMEM;
    log->replay = log->collects = replay;
    log->fd = strcmp(path, "-") == 0
                  ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)
                  : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (replay ? O_TRUNC : 0), 0644);
    if (log->fd < 0) {
        int rc = -errno;
        free(log);
        return rc;
    }
    *out = log;
    return 0;
}

/* Packets carry the monotonic clock's time, except in a replay. */
static nst_time since_1970(const struct ips_alerts *log, nst_time time)
{
    if (log->replay)
        return time;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return NST_SEC(now.tv_sec) + now.tv_nsec - (nst_clock() - time);
}

static void write_alert(struct ips_alerts *log, const struct ips_alert *a)
{
    char *line = log->line + 1;
    size_t len = ips_alert_format(a, since_1970(log, a->time), line, IPS_ALERT_MAX);
    if (log->torn) {
        *--line = '\n';
        len++;
    }
    ssize_t n;
    do
        n = write(log->fd, line, len);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)len) {
        log->torn = false;
        return;
    }
    int error = n < 0 ? errno : ENOSPC;
    log->torn |= n > 0;
    log->lost++;
    if (nst_log_allowed(&log->limit, 5))
        nst_log(NST_LOG_ERROR, "ips: cannot write an alert: %s (%llu lost so far)", strerror(error),
                (unsigned long long)log->lost);
}

void ips_alerts_add(struct ips_alerts *log, const struct ips_alert *alert)
{
    if (log->collects && log->n == log->room) {
        size_t room = log->room ? log->room * 2 : 64;
        struct ips_alert *more = realloc(log->collected, room * sizeof *more);
        if (more) {
            log->collected = more;
            log->room = room;
        }
    }
    if (log->collects && log->n < log->room)
        log->collected[log->n++] = *alert;
    else
        write_alert(log, alert);
}

static int by_packet(const void *p, const void *q)
{
    const struct ips_alert *a = p, *b = q;
    if (a->packet != b->packet)
        return a->packet < b->packet ? -1 : 1;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return a->rule->id < b->rule->id ? -1 : a->rule->id > b->rule->id;
}

void ips_alerts_quiet(struct ips_alerts *log)
{
    if (log->n == 0)
        return;
    qsort(log->collected, log->n, sizeof *log->collected, by_packet);
    for (size_t i = 0; i < log->n; i++)
        write_alert(log, &log->collected[i]);
    log->n = 0;
}

void ips_alerts_hurry(struct ips_alerts *log)
{
    ips_alerts_quiet(log);
    log->collects = false;
}

uint64_t ips_alerts_lost(const struct ips_alerts *log)
{
    return log->lost;
}

void ips_alerts_close(struct ips_alerts *log)
{
    if (!log)
        return;
    ips_alerts_quiet(log);
    close(log->fd);
    free(log->collected);
    free(log);
}
