/* SPDX-License-Identifier: Apache-2.0 */
/* store/redis.c - the life of the connection to a Redis server: connect, set up, send, read, lose, pause, again.
 *
 * The store's own times (an attempt's limit, the pause before the next one, an overdue answer) are about the real
 * server, so they run on a timerfd and not on the reactor's timers, whose clock a replay may let jump.
 */
#include "store/redis.h"
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
    OUT_FIRST = 64 << 10,
    READS_PER_TURN = 4,
    LOG_BURST = 10,
};
static const nst_time attempt_limit = NST_SEC(1), pause_min = NST_MS(50), pause_max = NST_SEC(2);

static void try_next(struct redis_store *s);

void redis_log(struct redis_store *s, enum nst_log_level level, const char *fmt, ...)
{
    char text[512], skipped[48] = "";
    va_list ap;

    if (!nst_log_allowed(&s->log_limit, LOG_BURST))
        return;
    if (s->log_limit.skipped != 0)
        snprintf(skipped, sizeof skipped, " (and %u more messages)", s->log_limit.skipped);
    s->log_limit.skipped = 0;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    nst_log(level, "%s: %s%s", s->url.name, text, skipped);
}

/* ---- times ---- */

static void arm(struct redis_store *s, nst_time after)
{
    struct itimerspec t = { .it_value = { after / NST_SEC(1), after % NST_SEC(1) } };

    if (after <= 0)
        t.it_value.tv_nsec = 1;
    timerfd_settime(s->timer.fd, 0, &t, NULL);
    s->timer_armed = true;
}

static void disarm(struct redis_store *s)
{
    struct itimerspec never = { 0 };

    timerfd_settime(s->timer.fd, 0, &never, NULL);
    s->timer_armed = false;
}

/* ---- the end of a connection ---- */

/* Everything outstanding ends with rc, the oldest request with first_rc. */
static unsigned fail_all(struct redis_store *s, int first_rc, int rc)
{
    unsigned n = 0;

    for (; s->head != s->tail; s->head++) {
        struct redis_request *r = &s->ring[s->head & s->ring_mask];
        if (s->setup_left > 0) {
            s->setup_left--;
            continue;
        }
        s->base.stats.in_flight--;
        nst_outside(-1);
        if (r->f != NULL) {
            if (rc == -ECONNRESET)
                s->base.stats.broken++;
            nst_fulfil(r->f, n == 0 ? first_rc : rc);
        }
        n++;
    }
    s->sent = s->filled = s->setup_end = 0;
    nst_flusher_unmark(&s->flusher);
    return n;
}

static void close_socket(struct redis_store *s)
{
    if (s->watch.fd >= 0) {
        nst_watch_remove(s->reactor, &s->watch);
        close(s->watch.fd);
        s->watch.fd = -1;
    }
    redisReaderFree(s->reader);
    s->reader = NULL;
    s->want_write = false;
}

/* Waits before the next round: twice as long as the last time, and not exactly, so that many instances do not come
 * back to a server in step. */
static void pause_then_retry(struct redis_store *s)
{
    s->state = REDIS_PAUSE;
    s->queueing = false;
    s->jitter = s->jitter * 1664525 + 1013904223;
    arm(s, s->pause - s->pause / 4 + (nst_time)(s->jitter >> 16) * (s->pause / 2) / 65536);
    s->pause = s->pause * 2 < pause_max ? s->pause * 2 : pause_max;
}

/* The round of attempts has come to nothing. What waited for it was never sent. */
static void round_failed(struct redis_store *s, int trouble, const char *why)
{
    close_socket(s);
    s->trouble = trouble;
    fail_all(s, -ENOTCONN, -ENOTCONN);
    redis_log(s, NST_LOG_WARNING, "no connection: %s; trying again", why);
    pause_then_retry(s);
}

/* A connection that has served, or was being set up, is of no more use. */
static void lost(struct redis_store *s, int trouble, const char *why)
{
    unsigned n;

    if (s->state != REDIS_READY) {
        round_failed(s, trouble, why);
        return;
    }
    close_socket(s);
    s->trouble = trouble;
    s->lost_since = nst_clock();
    if (trouble == -EPROTO)
        s->base.stats.protocol_errors++;
    if (s->lost_since - s->ready_since > pause_max)
        s->pause = pause_min;
    n = fail_all(s, trouble == -EPROTO ? -EPROTO : -ECONNRESET, -ECONNRESET);
    redis_log(s, NST_LOG_WARNING, "connection lost: %s; %u requests had no answer yet", why, n);
    pause_then_retry(s);
}

/* ---- sending ---- */

static void watch(struct redis_store *s, bool write)
{
    if (s->want_write != write) {
        s->want_write = write;
        nst_watch_change(s->reactor, &s->watch, write ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

static void send_some(struct redis_store *s)
{
    size_t end = s->state == REDIS_READY ? s->filled : s->setup_end;

    while (s->sent < end) {
        ssize_t n = send(s->watch.fd, s->out + s->sent, end - s->sent, MSG_NOSIGNAL);
        s->writes++;
        if (n < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                lost(s, -errno, strerror(errno));
            else
                watch(s, true);
            return;
        }
        s->sent += (size_t)n;
    }
    if (s->sent == s->filled)
        s->sent = s->filled = s->setup_end = 0;
    watch(s, false);
}

static void flush(struct nst_flusher *flusher)
{
    struct redis_store *s = (struct redis_store *)((char *)flusher - offsetof(struct redis_store, flusher));

    if (s->state == REDIS_READY && !s->want_write)
        send_some(s);
}

bool redis_reserve(struct redis_store *s, size_t bytes)
{
    if (s->out_cap - s->filled >= bytes)
        return true;
    /* During the setup nothing moves: setup_end is a place in out. */
    if (s->sent > s->out_cap / 2 && s->state == REDIS_READY) {
        memmove(s->out, s->out + s->sent, s->filled - s->sent);
        s->filled -= s->sent;
        s->sent = 0;
        if (s->out_cap - s->filled >= bytes)
            return true;
    }
    size_t cap = s->out_cap != 0 ? s->out_cap : OUT_FIRST;
    while (cap - s->filled < bytes)
        cap *= 2;
    if (cap > REDIS_OUT_MAX)
        return false;
    uint8_t *out = realloc(s->out, cap);
    if (out == NULL)
        return false;
    s->out = out;
    s->out_cap = cap;
    return true;
}

/* The consumer gives a request up. It may be on its way: its record stays, and its answer will be thrown away. */
static void stop(struct nst_future *f)
{
    struct redis_request *r = f->op;

    if (f->late == 1) /* its deadline; greater: given up for another reason */
        r->store->base.stats.timeouts++;
    r->f = NULL;
    nst_fulfil(f, -ECANCELED);
}

struct redis_request *redis_begin(struct redis_store *s, struct nst_future *f, enum redis_op op, size_t bytes)
{
    struct nst_store_stats *stats = &s->base.stats;

    if (__builtin_expect(s->state != REDIS_READY && !s->queueing, 0)) {
        store_refuse(&s->base, f, -ENOTCONN);
        return NULL;
    }
    if (__builtin_expect(stats->in_flight >= s->in_flight_max || !redis_reserve(s, bytes), 0)) {
        store_refuse(&s->base, f, -EBUSY);
        return NULL;
    }
    struct redis_request *r = &s->ring[s->tail++ & s->ring_mask];
    r->store = s;
    r->f = f;
    r->op = op;
    r->start = nst_clock();
    f->op = r;
    f->stop = stop;
    if (++stats->in_flight > stats->in_flight_peak)
        stats->in_flight_peak = stats->in_flight;
    nst_outside(1);
    nst_flusher_mark(&s->flusher);
    if (!s->timer_armed)
        arm(s, s->reply_after);
    return r;
}

void redis_begin_setup(struct redis_store *s)
{
    s->ring[s->tail++ & s->ring_mask] = (struct redis_request){ .store = s, .op = OP_SETUP };
    s->setup_left++;
}

/* ---- reading ---- */

static void ready(struct redis_store *s)
{
    s->state = REDIS_READY;
    s->queueing = false;
    s->trouble = 0;
    s->ready_since = nst_clock();
    disarm(s);
    if (s->base.stats.connects++ == 0)
        redis_log(s, NST_LOG_INFO, "connected");
    else
        redis_log(s, NST_LOG_INFO, "connected again after %.2f s", (double)(s->ready_since - s->lost_since) / 1e9);
    if (s->head != s->tail) {
        arm(s, s->reply_after);
        send_some(s);
    }
}

bool redis_answered(struct redis_store *s)
{
    struct redis_request *r = &s->ring[s->head & s->ring_mask];
    int rc = s->answer;

    if (s->setup_left > 0) {
        if (rc < 0) {
            round_failed(s, rc, "the server refuses");
            return false;
        }
        s->head++;
        if (--s->setup_left == 0)
            ready(s);
        return s->state == REDIS_READY || s->setup_left > 0;
    }
    s->head++;
    s->base.stats.in_flight--;
    nst_outside(-1);
    nst_histogram_record(&s->latency, (uint64_t)(s->read_at - r->start));
    if (r->f != NULL)
        store_answer(&s->base, r->f, rc);
    return true;
}

static void receive(struct redis_store *s)
{
    for (int i = 0; i < READS_PER_TURN; i++) {
        ssize_t n = recv(s->watch.fd, s->in, REDIS_IN, 0);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                lost(s, -errno, strerror(errno));
            return;
        }
        if (n == 0) {
            lost(s, -ECONNRESET, "closed by the server");
            return;
        }
        s->read_at = nst_clock();
        int rc = redis_read(s, s->in, (size_t)n);
        if (rc < 0)
            lost(s, rc, s->bad);
        if (rc != 0 || n < REDIS_IN)
            return;
    }
}

/* ---- connecting ---- */

static void connected(struct redis_store *s)
{
    s->state = REDIS_SETUP;
    watch(s, false);
    send_some(s);
}

static void socket_ready(struct nst_watch *w, uint32_t events)
{
    struct redis_store *s = (struct redis_store *)((char *)w - offsetof(struct redis_store, watch));

    if (s->state == REDIS_CONNECTING) {
        int err = 0;
        socklen_t len = sizeof err;
        struct sockaddr_storage peer;
        socklen_t peer_len = sizeof peer;
        getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &err, &len);
        if (err != 0) {
            s->trouble = -err;
            close_socket(s);
            try_next(s);
        } else if (getpeername(w->fd, (struct sockaddr *)&peer, &peer_len) == 0) {
            connected(s);
        }
        return;
    }
    if (events & EPOLLOUT)
        send_some(s);
    if (w->fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        receive(s);
}

/* A socket on its way to the address: 0 when it is connected, -EINPROGRESS, or another error and nothing is left. */
static int open_socket(struct redis_store *s, const struct redis_address *a)
{
    int on = 1, rc = 0, added;

    s->reader = redis_reader_open(s);
    s->watch.fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->reader == NULL || s->watch.fd < 0) {
        rc = s->reader == NULL ? -ENOMEM : -errno;
    } else {
        if (a->sa.sa_family != AF_UNIX)
            setsockopt(s->watch.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (connect(s->watch.fd, &a->sa, a->len) < 0)
            rc = -errno;
    }
    if (rc == 0 || rc == -EINPROGRESS) {
        s->watch.events = EPOLLIN | EPOLLOUT;
        s->want_write = true;
        added = nst_watch_add(s->reactor, &s->watch);
        if (added == 0)
            return rc;
        rc = added;
    }
    if (s->watch.fd >= 0)
        close(s->watch.fd);
    s->watch.fd = -1;
    close_socket(s);
    return rc;
}

/* Tries the addresses that this round has not tried yet, until one lets itself be waited for. */
static void try_next(struct redis_store *s)
{
    while (s->tried < s->n_addresses) {
        const struct redis_address *a = &s->addresses[s->next_address];
        int rc;
        s->tried++;
        s->next_address = (s->next_address + 1) % s->n_addresses;
        s->state = REDIS_CONNECTING;
        rc = open_socket(s, a);
        if (rc == -EINPROGRESS)
            return;
        if (rc == 0) {
            connected(s);
            return;
        }
        s->trouble = rc;
    }
    round_failed(s, s->trouble, strerror(-s->trouble));
}

static void start_round(struct redis_store *s)
{
    s->tried = 0;
    s->state = REDIS_CONNECTING;
    arm(s, attempt_limit);
    if (redis_put_setup(s))
        try_next(s);
    else
        round_failed(s, -ENOMEM, strerror(ENOMEM));
}

static void timer_ready(struct nst_watch *w, uint32_t events)
{
    struct redis_store *s = (struct redis_store *)((char *)w - offsetof(struct redis_store, timer));
    uint64_t times;
    nst_time age;

    if (read(w->fd, &times, sizeof times) != sizeof times)
        return; /* armed anew since */
    s->timer_armed = false;
    switch (s->state) {
    case REDIS_PAUSE:
        start_round(s);
        break;
    case REDIS_CONNECTING:
    case REDIS_SETUP:
        round_failed(s, -ETIMEDOUT, "no answer within a second");
        break;
    case REDIS_READY:
        if (s->head == s->tail)
            break;
        age = nst_clock() - s->ring[s->head & s->ring_mask].start;
        if (age >= s->reply_after)
            lost(s, -ETIMEDOUT, "an answer is overdue");
        else
            arm(s, s->reply_after - age);
        break;
    }
}

/* ---- opening and closing ---- */

static int resolve(struct redis_store *s, const char **why)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *found, *a;
    char port[8];
    int rc;

    if (s->url.kind == STORE_REDIS_UNIX) {
        s->addresses[0].un.sun_family = AF_UNIX;
        memcpy(s->addresses[0].un.sun_path, s->url.path, sizeof s->url.path);
        s->addresses[0].len = sizeof s->addresses[0].un;
        s->n_addresses = 1;
        return 0;
    }
    snprintf(port, sizeof port, "%u", s->url.port);
    rc = getaddrinfo(s->url.host, port, &hints, &found);
    if (rc != 0)
        return store_url_why(why, "the host \"%s\" cannot be resolved: %s", s->url.host, gai_strerror(rc));
    for (a = found; a != NULL && s->n_addresses < REDIS_ADDRESSES; a = a->ai_next) {
        struct redis_address *to = &s->addresses[s->n_addresses++];
        memcpy(&to->any, a->ai_addr, a->ai_addrlen);
        to->len = a->ai_addrlen;
    }
    freeaddrinfo(found);
    return 0;
}

static void redis_close(struct nst_store *base)
{
    struct redis_store *s = redis_of(base);

    fail_all(s, -ECANCELED, -ECANCELED);
    close_socket(s);
    if (s->timer.fd >= 0) {
        nst_watch_remove(s->reactor, &s->timer);
        close(s->timer.fd);
    }
    free(s->ring);
    free(s->out);
    free(s->in);
    free(s);
}

static int redis_trouble(const struct nst_store *base)
{
    const struct redis_store *s = (const struct redis_store *)base;

    if (s->state == REDIS_READY)
        return 0;
    return s->trouble != 0 ? s->trouble : -ENOTCONN;
}

static void redis_stats(const struct nst_store *base, struct nst_store_stats *out)
{
    const struct nst_histogram *h = &((const struct redis_store *)base)->latency;

    out->p50 = (nst_time)nst_histogram_percentile(h, 50);
    out->p90 = (nst_time)nst_histogram_percentile(h, 90);
    out->p99 = (nst_time)nst_histogram_percentile(h, 99);
    out->p999 = (nst_time)nst_histogram_percentile(h, 99.9);
    out->max = (nst_time)h->max;
}

uint64_t redis_writes(const struct nst_store *base)
{
    return ((const struct redis_store *)base)->writes;
}

static const struct store_ops redis_ops = {
    .get = redis_get,
    .put = redis_put,
    .cas = redis_cas,
    .incr = redis_incr,
    .del = redis_del,
    .ping = redis_ping,
    .trouble = redis_trouble,
    .stats = redis_stats,
    .close = redis_close,
};

int store_redis_open(struct nst_store **out, const struct store_url *url, const struct nst_store_config *config,
                     const char **why)
{
    struct redis_store *s;
    uint32_t ring = 1;
    int rc;

    if (nst_reactor_self() == NULL)
        return store_url_why(why, "a Redis store is opened on a running reactor");
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return -ENOMEM;
    s->base.ops = &redis_ops;
    s->reactor = nst_reactor_self();
    s->url = *url;
    s->watch = (struct nst_watch){ .fd = -1, .ready = socket_ready };
    s->timer = (struct nst_watch){ .fd = -1, .events = EPOLLIN, .ready = timer_ready };
    s->flusher.flush = flush;
    s->pause = pause_min;
    s->reply_after = config->reply_after > 0 ? config->reply_after : NST_SEC(5);
    s->in_flight_max = config->in_flight != 0 ? config->in_flight : 4096;
    while (ring < s->in_flight_max + 4 && ring < 1u << 24)
        ring *= 2;
    if (s->in_flight_max > ring - 4)
        s->in_flight_max = ring - 4;
    s->ring_mask = ring - 1;
    rc = resolve(s, why);
    if (rc < 0) {
        redis_close(&s->base);
        return rc;
    }
    s->ring = calloc(ring, sizeof *s->ring);
    s->in = malloc(REDIS_IN);
    if (s->ring == NULL || s->in == NULL || getrandom(&s->version, sizeof s->version, 0) != sizeof s->version) {
        redis_close(&s->base);
        return -ENOMEM;
    }
    s->jitter = (uint32_t)s->version;
    s->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    rc = s->timer.fd < 0 ? -errno : nst_watch_add(s->reactor, &s->timer);
    if (rc < 0) {
        store_url_why(why, "no timer for the store: %s", strerror(-rc));
        if (s->timer.fd >= 0)
            close(s->timer.fd);
        s->timer.fd = -1;
        redis_close(&s->base);
        return rc;
    }
    s->queueing = true;
    start_round(s);
    *out = &s->base;
    return 0;
}
