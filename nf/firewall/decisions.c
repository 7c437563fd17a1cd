/* SPDX-License-Identifier: Apache-2.0 */
#include "decisions.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netstar/timer.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1024, EVERY_MS = 200 };

struct fw_decisions {
    struct nst_timer timer; /* first: the timer is the log */
    int fd;
    bool replay, armed;
    nst_time second; /* in which so many lines were taken */
    unsigned taken;
    uint64_t lost;
    struct nst_log_limit limit;
    size_t n;
    char bytes[FW_DECISIONS_MAX];
};

int fw_decisions_open(struct fw_decisions **out, const char *path, bool replay)
{
    struct fw_decisions *log = calloc(1, sizeof *log);

    if (log == NULL)
        return -ENOMEM;
    log->replay = replay;
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

void fw_decisions_write(struct fw_decisions *log)
{
    size_t at = 0;

    if (log == NULL)
        return;
    while (at < log->n) {
        ssize_t n = write(log->fd, log->bytes + at, log->n - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            for (; at < log->n; at++)
                log->lost += log->bytes[at] == '\n';
            if (nst_log_allowed(&log->limit, 5))
                nst_log(NST_LOG_ERROR, "firewall: cannot write the log: %s (%llu lines lost so far)", strerror(errno),
                        (unsigned long long)log->lost);
            break;
        }
        at += (size_t)n;
    }
    log->n = 0;
}

static void fire(struct nst_timer *timer)
{
    struct fw_decisions *log = (struct fw_decisions *)timer;

    log->armed = false;
    fw_decisions_write(log);
}

/* Packets carry the monotonic clock's time, except in a replay. */
static nst_time since_1970(const struct fw_decisions *log, nst_time time)
{
    struct timespec now;

    if (log->replay)
        return time;
    clock_gettime(CLOCK_REALTIME, &now);
    return NST_SEC(now.tv_sec) + now.tv_nsec - (nst_clock() - time);
}

/* What a rule file may hold between quotes, as JSON has it. */
static size_t escape(char *to, size_t room, const char *s)
{
    size_t n = 0;

    for (; *s != '\0' && n + 7 < room; s++) {
        if (*s == '"' || *s == '\\')
            n += (size_t)snprintf(to + n, room - n, "\\%c", *s);
        else if ((unsigned char)*s < ' ' || (unsigned char)*s >= 0x7f)
            n += (size_t)snprintf(to + n, room - n, "\\u%04x", (unsigned char)*s);
        else
            to[n++] = *s;
    }
    to[n] = '\0';
    return n;
}

void fw_decisions_add(struct fw_decisions *log, const char *action, const struct fw_rule *rule,
                      const struct fw_opening *o, const struct nst_packet *packet)
{
    char src[INET6_ADDRSTRLEN], dst[INET6_ADDRSTRLEN], date[48], text[300], file[300];
    nst_time now = nst_now();
    struct tm tm;

    if (log == NULL)
        return;
    if (now - log->second >= NST_SEC(1)) {
        log->second = now;
        log->taken = 0;
    }
    if (log->taken == FW_DECISIONS_RATE || sizeof log->bytes - log->n < LINE_MAX_BYTES) {
        log->lost++;
        return;
    }
    log->taken++;
    nst_time time = since_1970(log, nst_packet_time(packet));
    time_t seconds = time / NST_SEC(1);
    gmtime_r(&seconds, &tm);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
    inet_ntop(o->family == 4 ? AF_INET : AF_INET6, o->addr[0], src, sizeof src);
    inet_ntop(o->family == 4 ? AF_INET : AF_INET6, o->addr[1], dst, sizeof dst);
    escape(text, sizeof text, rule->text);
    escape(file, sizeof file, rule->file);
    char *at = log->bytes + log->n;
    int n = snprintf(
        at, LINE_MAX_BYTES,
        "{\"time\":\"%s.%09dZ\",\"action\":\"%s\",\"file\":\"%s\",\"line\":%u,\"rule\":\"%s\",\"proto\":%u,"
        "\"side\":\"%s\",\"src\":\"%s\",\"dst\":\"%s\"",
        date, (int)(time % NST_SEC(1)), action, file, rule->line, text, o->proto, o->out ? "out" : "in", src, dst);
    if (o->proto == 6 || o->proto == 17)
        n += snprintf(at + n, LINE_MAX_BYTES - (size_t)n, ",\"src_port\":%u,\"dst_port\":%u", o->port[0], o->port[1]);
    if (o->proto == 1 || o->proto == 58)
        n += snprintf(at + n, LINE_MAX_BYTES - (size_t)n, ",\"type\":%u", o->type);
    if (o->vlan != 0)
        n += snprintf(at + n, LINE_MAX_BYTES - (size_t)n, ",\"vlan\":%u", o->vlan);
    n += snprintf(at + n, LINE_MAX_BYTES - (size_t)n, ",\"packet\":%llu}\n",
                  (unsigned long long)nst_packet_number(packet));
    log->n += (size_t)n;
    if (!log->armed && !log->replay)
        log->armed = nst_timer_arm(&log->timer, now + NST_MS(EVERY_MS), fire) == 0;
}

uint64_t fw_decisions_lost(const struct fw_decisions *log)
{
    return log != NULL ? log->lost : 0;
}

void fw_decisions_close(struct fw_decisions *log)
{
    if (log == NULL)
        return;
    fw_decisions_write(log);
    nst_timer_disarm(&log->timer);
    close(log->fd);
    free(log);
}
