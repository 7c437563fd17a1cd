/* SPDX-License-Identifier: Apache-2.0 */
/* store/redis_link.c - the life of a connection to a Redis server: connect, set up, send, read, lose, pause, again.
 *
 * A connection's own times (an attempt's limit, the pause before the next one, an overdue answer) are about the real
 * server, so they run on a timerfd and not on the reactor's timers, whose clock a replay may let jump.
 */
#include "store/redis_tls.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
    OUT_FIRST = 64 << 10,
    READS_PER_TURN = 4,
};
static const nst_time attempt_limit = NST_SEC(1), pause_min = NST_MS(50), pause_max = NST_SEC(2);
static const nst_time alive_after = NST_SEC(1), probe_after = NST_MS(100);

static void try_next(struct redis_link *l);

static struct redis_record *oldest(struct redis_link *l)
{
    return &l->ring[l->head & l->ring_mask];
}

static bool own_op(const struct redis_record *r)
{
    return r->op >= STORE_OPS;
}

/* ---- times ---- */

static void arm(struct redis_link *l, nst_time after)
{
    struct itimerspec t = { .it_value = { after / NST_SEC(1), after % NST_SEC(1) } };

    if (after <= 0)
        t.it_value.tv_nsec = 1;
    timerfd_settime(l->timer.fd, 0, &t, NULL);
    l->timer_armed = true;
}

static void disarm(struct redis_link *l)
{
    struct itimerspec never = { 0 };

    timerfd_settime(l->timer.fd, 0, &never, NULL);
    l->timer_armed = false;
}

/* ---- the end of a connection ---- */

/* The record is done with: what was counted for it. */
static void forget(struct redis_link *l, struct redis_record *r)
{
    if (own_op(r)) {
        l->internal--;
        if (r->op == REDIS_TRACK)
            l->tracks--;
        return;
    }
    l->in_flight--;
    l->store->base.stats.in_flight--;
    nst_outside(-1);
}

/* Everything outstanding ends with rc, the oldest request with first_rc. */
static unsigned fail_all(struct redis_link *l, int first_rc, int rc)
{
    unsigned n = 0;

    for (; l->held != l->head; l->held++) {
        struct redis_record *r = &l->ring[l->held & l->ring_mask];
        forget(l, r);
        if (r->f != NULL)
            nst_fulfil(r->f, r->rc < 0 ? r->rc : rc);
    }
    for (; l->head != l->tail; l->held = ++l->head) {
        struct redis_record *r = oldest(l);
        forget(l, r);
        if (own_op(r))
            continue;
        if (r->f != NULL) {
            if (rc == -ECONNRESET)
                l->store->base.stats.broken++;
            nst_fulfil(r->f, n == 0 ? first_rc : rc);
        }
        n++;
    }
    l->setup_left = 0;
    l->unwaited = l->waiting = false;
    l->answered = l->sent = l->filled = l->setup_end = 0;
    nst_flusher_unmark(&l->flusher);
    return n;
}

static void close_socket(struct redis_link *l)
{
    if (l->watch.fd >= 0) {
        nst_watch_remove(l->store->reactor, &l->watch);
        close(l->watch.fd);
        l->watch.fd = -1;
    }
    redis_tls_end(l);
    l->in_len = 0;
    l->want_write = false;
    l->resp3 = false;
}

/* Waits before the next round: twice as long as the last time, and not exactly, so that many instances do not come
 * back to a server in step. */
static void pause_then_retry(struct redis_link *l)
{
    struct redis_store *s = l->store;

    l->state = REDIS_PAUSE;
    l->queueing = false;
    s->jitter = s->jitter * 1664525 + 1013904223;
    arm(l, l->pause - l->pause / 4 + (nst_time)(s->jitter >> 16) * (l->pause / 2) / 65536);
    l->pause = l->pause * 2 < pause_max ? l->pause * 2 : pause_max;
    redis_link_lost(l);
}

/* The round of attempts has come to nothing. What waited for it was never sent. */
static void round_failed(struct redis_link *l, int trouble, const char *why)
{
    close_socket(l);
    l->trouble = trouble;
    fail_all(l, -ENOTCONN, -ENOTCONN);
    redis_log(l->store, NST_LOG_WARNING, l->name, "no connection: %s; trying again", why);
    pause_then_retry(l);
}

void redis_drop(struct redis_link *l, int trouble, const char *why)
{
    unsigned n;

    if (l->state != REDIS_READY) {
        round_failed(l, trouble, why);
        return;
    }
    close_socket(l);
    l->trouble = trouble;
    l->lost_since = nst_clock();
    if (trouble == -EPROTO)
        l->store->base.stats.protocol_errors++;
    if (l->lost_since - l->ready_since > pause_max)
        l->pause = pause_min;
    n = fail_all(l, trouble == -EPROTO ? -EPROTO : -ECONNRESET, -ECONNRESET);
    redis_log(l->store, NST_LOG_WARNING, l->name, "connection lost: %s%s; %u requests had no answer yet",
              trouble == -EPROTO ? "Protocol error: " : "", why, n);
    pause_then_retry(l);
}

/* ---- sending ---- */

static void watch(struct redis_link *l, bool write)
{
    if (l->want_write != write) {
        l->want_write = write;
        nst_watch_change(l->store->reactor, &l->watch, write ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

/* As send(2), with -errno; *why a reason, or NULL. */
static ssize_t put_out(struct redis_link *l, const void *p, size_t len, const char **why)
{
    ssize_t n;

    *why = NULL;
    if (l->tls != NULL)
        return redis_tls_send(l, p, len, why);
    do {
        n = send(l->watch.fd, p, len, MSG_NOSIGNAL);
        l->store->writes++;
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void send_some(struct redis_link *l)
{
    size_t end = l->state == REDIS_READY ? l->filled : l->setup_end;
    bool more = l->tls != NULL; /* a handshake may have something to say */

    while (l->sent < end || more) {
        const char *why;
        ssize_t n = put_out(l, l->out + l->sent, end - l->sent, &why);
        if (n == -EAGAIN) {
            watch(l, true);
            return;
        }
        if (n < 0) {
            redis_drop(l, (int)n, why != NULL ? why : strerror((int)-n));
            return;
        }
        l->sent += (size_t)n;
        more = false;
        if (n == 0)
            break; /* the other side speaks first */
    }
    watch(l, false);
}

static void flush(struct nst_flusher *flusher)
{
    struct redis_link *l = (struct redis_link *)((char *)flusher - offsetof(struct redis_link, flusher));

    l->full = false;
    if (l->state != REDIS_READY || l->want_write || l->waiting)
        return;
    if (__builtin_expect(l->unwaited, 0)) {
        l->waiting = redis_put_wait(l);
        if (!l->waiting) {
            redis_drop(l, -ENOMEM, "no room to ask for replicas");
            return;
        }
        l->unwaited = false;
    }
    send_some(l);
}

void redis_send_early(struct redis_link *l)
{
    size_t len = l->filled - l->sent;
    const char *why;
    ssize_t n;

    if (l->state != REDIS_READY || l->want_write || l->waiting || l->full || l->tls != NULL)
        return;
    n = put_out(l, l->out + l->sent, len, &why);
    if (n > 0)
        l->sent += (size_t)n;
    l->full = n < (ssize_t)len;
}

bool redis_reserve(struct redis_link *l, size_t bytes)
{
    if (l->out_cap - l->filled >= bytes)
        return true;
    /* During the setup nothing moves: setup_end is a place in out. */
    if (l->answered > l->out_cap / 2 && l->state == REDIS_READY) {
        memmove(l->out, l->out + l->answered, l->filled - l->answered);
        l->filled -= l->answered;
        l->sent -= l->answered;
        l->answered = 0;
        if (l->out_cap - l->filled >= bytes)
            return true;
    }
    size_t cap = l->out_cap != 0 ? l->out_cap : OUT_FIRST;
    while (cap - l->filled < bytes)
        cap *= 2;
    if (cap > REDIS_OUT_MAX)
        return false;
    uint8_t *out = realloc(l->out, cap);
    if (out == NULL)
        return false;
    l->out = out;
    l->out_cap = cap;
    return true;
}

/* ---- requests ---- */

static bool writes(unsigned op)
{
    return op < STORE_OPS && op != STORE_GET && op != STORE_CHECK_OWNED && op != STORE_SCAN && op != STORE_PING;
}

/* The consumer gives a request up. It may be on its way: its record stays, and its answer will be thrown away. */
static void stop(struct nst_future *f)
{
    struct redis_record *r = f->op;
    struct redis_link *l = r->link;

    r->f = NULL;
    if (f->late == 1) { /* its deadline; greater: given up for another reason */
        l->store->base.stats.timeouts++;
        if (++l->silent >= REDIS_BREAKER && !l->broken && l->state == REDIS_READY) {
            l->broken = true;
            l->probed = nst_clock();
            l->store->base.stats.tripped++;
            redis_log(l->store, NST_LOG_WARNING, l->name,
                      "%u requests in a row had no answer in time; refusing all but one in %d ms until one comes",
                      l->silent, (int)(probe_after / NST_MS(1)));
        }
    }
    nst_fulfil(f, -ECANCELED);
}

/* While the breaker is open, one request in a while goes through and finds out. */
static bool may_probe(struct redis_link *l)
{
    nst_time now = nst_clock();

    if (now - l->probed < probe_after)
        return false;
    l->probed = now;
    return true;
}

struct redis_record *redis_begin(struct redis_link *l, const struct store_request *rq, struct nst_future *f,
                                 size_t bytes)
{
    struct nst_store_stats *stats = &l->store->base.stats;

    if (__builtin_expect(l->state != REDIS_READY && !l->queueing, 0)) {
        store_refuse(&l->store->base, f, -ENOTCONN);
        return NULL;
    }
    if (__builtin_expect(l->broken && !may_probe(l), 0)) {
        stats->shed++;
        store_refuse(&l->store->base, f, -EHOSTDOWN);
        return NULL;
    }
    if (__builtin_expect(l->in_flight >= l->store->in_flight_max || !redis_reserve(l, bytes), 0)) {
        store_refuse(&l->store->base, f, -EBUSY);
        return NULL;
    }
    struct redis_record *r = &l->ring[l->tail++ & l->ring_mask];
    r->link = l;
    r->f = f;
    r->op = (uint8_t)rq->op;
    r->tries = 0;
    r->start = nst_clock();
    f->op = r;
    f->stop = stop;
    l->in_flight++;
    if (++stats->in_flight > stats->in_flight_peak)
        stats->in_flight_peak = stats->in_flight;
    nst_outside(1);
    return r;
}

struct redis_record *redis_begin_own(struct redis_link *l, enum redis_own_op op, size_t bytes)
{
    struct redis_record *r;

    if (l->internal >= REDIS_INTERNAL || !redis_reserve(l, bytes))
        return NULL;
    r = &l->ring[l->tail++ & l->ring_mask];
    *r = (struct redis_record){ .link = l, .op = (uint8_t)op, .start = nst_clock() };
    l->internal++;
    return r;
}

void redis_commit(struct redis_link *l, struct redis_record *r, const char *p)
{
    r->bytes = (uint32_t)(p - ((char *)l->out + l->filled));
    l->filled += r->bytes;
    if (__builtin_expect(l->store->replicas != 0, 0) && writes(r->op))
        l->unwaited = true;
    nst_flusher_mark(&l->flusher);
    if (!l->timer_armed)
        arm(l, l->store->reply_after);
}

/* The oldest request goes out once more, with its script. Its bytes are copied behind the others, and the record too:
 * the old one ends without a result. False when there is no room. */
static bool send_script(struct redis_link *l)
{
    struct redis_record *old = oldest(l), *r;
    struct nst_future *f = old->f;

    if (f == NULL)
        return true;
    if (l->tail - l->held > l->ring_mask || !redis_reserve(l, redis_whole_script_bytes(old)))
        return false;
    r = &l->ring[l->tail++ & l->ring_mask];
    *r = *old;
    r->script = SCRIPT_NONE;
    r->tries++;
    f->op = r;
    l->in_flight++;
    l->store->base.stats.in_flight++;
    nst_outside(1);
    redis_commit(l, r, redis_put_whole_script((char *)l->out + l->filled, old, (char *)l->out + l->answered));
    old->f = NULL;
    return true;
}

int redis_forward(struct redis_link *from, struct redis_link *to, bool asking)
{
    struct redis_record *old = oldest(from), *r;
    struct nst_future *f = old->f;

    if (f == NULL)
        return 0;
    if ((to->state != REDIS_READY && !to->queueing) || to->broken)
        return -ENOTCONN;
    if (to->in_flight >= to->store->in_flight_max || !redis_reserve(to, old->bytes + 2 * REDIS_REQUEST_MAX) ||
        (asking && !redis_put_asking(to)) || !redis_reserve(to, old->bytes))
        return -EBUSY;
    r = &to->ring[to->tail++ & to->ring_mask];
    *r = *old;
    r->link = to;
    r->tries++;
    f->op = r;
    to->in_flight++;
    to->store->base.stats.in_flight++;
    nst_outside(1);
    memcpy(to->out + to->filled, from->out + from->answered, old->bytes);
    redis_commit(to, r, (char *)to->out + to->filled + old->bytes);
    old->f = NULL;
    return 0;
}

/* ---- reading ---- */

static void ready(struct redis_link *l)
{
    struct redis_store *s = l->store;

    l->state = REDIS_READY;
    l->queueing = false;
    l->trouble = 0;
    l->silent = 0;
    l->broken = false;
    l->ready_since = nst_clock();
    disarm(l);
    if (s->base.stats.connects++ == 0 || l->lost_since == 0)
        redis_log(s, NST_LOG_INFO, l->name, "connected");
    else
        redis_log(s, NST_LOG_INFO, l->name, "connected again after %.2f s",
                  (double)(l->ready_since - l->lost_since) / 1e9);
    redis_link_ready(l);
    if (l->state != REDIS_READY)
        return;
    if (redis_link_ticks(l))
        arm(l, alive_after < s->reply_after ? alive_after : s->reply_after);
    if (l->unwaited)
        nst_flusher_mark(&l->flusher);
    if (l->head + 1 != l->tail) { /* the last of the setup is still there */
        if (!l->timer_armed)
            arm(l, s->reply_after);
        send_some(l);
    }
}

/* So many replicas have everything that was written before. */
static void replicated(struct redis_link *l, int n)
{
    struct redis_store *s = l->store;
    bool few = n < (int)s->replicas;

    for (; l->held != l->head; l->held++) {
        struct redis_record *r = &l->ring[l->held & l->ring_mask];
        forget(l, r);
        if (r->f == NULL)
            continue;
        nst_histogram_record(&s->latency, (uint64_t)(l->read_at - r->start));
        if (few && r->rc >= 0)
            s->base.stats.timeouts++;
        store_answer(&s->base, r->f, few && r->rc >= 0 ? -ETIMEDOUT : r->rc);
    }
    l->waiting = false;
    if (few)
        redis_log(s, NST_LOG_WARNING, l->name, "%d replicas of %u have what was written, after %d ms", n > 0 ? n : 0,
                  s->replicas, REDIS_WAIT_MS);
    if (l->unwaited || l->sent < l->filled)
        nst_flusher_mark(&l->flusher);
}

/* The oldest record has its answer. False when the connection is gone now. */
static bool answered(struct redis_link *l, const char *answer)
{
    struct redis_record *r = oldest(l);
    struct redis_store *s = l->store;
    const char *bad = NULL;
    enum redis_fate fate;
    bool holds = false;
    int rc = 0;

    fate = redis_answer(l, r, answer, &rc, &bad);
    if (__builtin_expect(bad != NULL, 0)) {
        redis_drop(l, -EPROTO, bad);
        return false;
    }
    if (__builtin_expect(l->setup_left > 0, 0)) {
        if (rc < 0) {
            round_failed(l, rc, rc == -EROFS ? "the server is not the master" : "the server refuses");
            return false;
        }
        if (--l->setup_left == 0)
            ready(l);
        if (l->state != REDIS_READY && l->state != REDIS_SETTING_UP)
            return false;
    } else if (__builtin_expect(own_op(r), 0)) {
        if (r->op == REDIS_TRACK && rc < 0)
            l->tracks++; /* for ever: this server does not tell */
        if (r->op == REDIS_WAIT)
            replicated(l, rc);
    } else {
        if (l->silent != 0) {
            l->silent = 0;
            if (l->broken)
                redis_log(s, NST_LOG_INFO, l->name, "answers again");
            l->broken = false;
        }
        if (fate == REDIS_NOSCRIPT && !send_script(l)) {
            fate = REDIS_DONE;
            rc = -EBUSY;
        } else if (fate == REDIS_MOVED || fate == REDIS_ASK) {
            struct resp v;
            resp_next(answer, &v);
            rc = redis_cluster_moved(l, v.p, v.len, fate == REDIS_ASK);
            if (rc < 0)
                fate = REDIS_DONE;
        }
        r = oldest(l);
        holds = __builtin_expect(s->replicas != 0, 0) && fate == REDIS_DONE && writes(r->op) && r->f != NULL;
        if (holds) {
            r->rc = rc;
        } else if (fate == REDIS_DONE) {
            nst_histogram_record(&s->latency, (uint64_t)(l->read_at - r->start));
            if (r->f != NULL)
                store_answer(&s->base, r->f, rc);
            r->f = NULL; /* its record may stay, behind one that waits for replicas */
        }
    }
    l->head++;
    if (__builtin_expect(!holds && l->held + 1 == l->head, 1)) {
        forget(l, r);
        l->held = l->head;
    }
    l->answered += r->bytes;
    if (r->op == REDIS_TRACK)
        redis_listeners(s);
    if (l->answered == l->filled)
        l->answered = l->sent = l->filled = l->setup_end = 0;
    if (__builtin_expect(l->useless != NULL, 0)) {
        const char *reason = l->useless;
        l->useless = NULL;
        redis_drop(l, -EROFS, reason);
        return false;
    }
    return true;
}

/* Goes through the answers that are there. False when the connection is gone now. */
static bool read_answers(struct redis_link *l)
{
    size_t at = 0;

    while (at < l->in_len) {
        const char *bad, *answer = l->in + at;
        ssize_t n = resp_measure(answer, l->in_len - at, REDIS_REPLY_MAX, &bad);
        if (n == 0)
            break;
        if (n > 0 && *answer == '>') {
            if (!redis_push(l, answer)) {
                n = -EPROTO;
                bad = "a message of no known kind";
            }
        } else if (n > 0 && l->head == l->tail) {
            n = -EPROTO;
            bad = "an answer that nobody asked for";
        } else if (n > 0 && !answered(l, answer)) {
            return false;
        }
        if (n < 0) {
            redis_drop(l, -EPROTO, bad);
            return false;
        }
        at += (size_t)n;
    }
    if (at != 0) {
        memmove(l->in, l->in + at, l->in_len - at);
        l->in_len -= at;
    }
    return true;
}

/* Room for one more read behind an answer that is not complete. */
static bool room_to_read(struct redis_link *l)
{
    size_t cap = l->in_cap != 0 ? l->in_cap * 2 : REDIS_IN;
    char *in;

    if (l->in_cap - l->in_len >= REDIS_IN / 2)
        return true;
    in = realloc(l->in, cap);
    if (in == NULL)
        return l->in_cap > l->in_len;
    l->in = in;
    l->in_cap = cap;
    return true;
}

static ssize_t take_in(struct redis_link *l, void *p, size_t len, int *reads, const char **why)
{
    ssize_t n;

    *why = NULL;
    if (l->tls != NULL)
        return redis_tls_receive(l, p, len, reads, why);
    if (--*reads < 0)
        return -EAGAIN;
    do
        n = recv(l->watch.fd, p, len, 0);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void receive(struct redis_link *l)
{
    int reads = READS_PER_TURN;

    for (;;) {
        const char *why;
        size_t room;
        ssize_t n;
        if (!room_to_read(l)) {
            redis_drop(l, -ENOMEM, strerror(ENOMEM));
            return;
        }
        room = l->in_cap - l->in_len;
        n = take_in(l, l->in + l->in_len, room, &reads, &why);
        if (n == -EAGAIN)
            break;
        if (n <= 0) {
            redis_drop(l, n == 0 ? -ECONNRESET : (int)n,
                       n == 0        ? "closed by the server"
                       : why != NULL ? why
                                     : strerror((int)-n));
            return;
        }
        l->read_at = nst_clock();
        l->in_len += (size_t)n;
        if (!read_answers(l) || (l->tls == NULL && (size_t)n < room))
            return;
    }
    if (l->tls != NULL && l->watch.fd >= 0 && !l->want_write)
        send_some(l);
}

/* ---- connecting ---- */

static void connected(struct redis_link *l)
{
    l->state = REDIS_SETTING_UP;
    watch(l, false);
    send_some(l);
}

static void socket_ready(struct nst_watch *w, uint32_t events)
{
    struct redis_link *l = (struct redis_link *)((char *)w - offsetof(struct redis_link, watch));

    if (l->state == REDIS_CONNECTING) {
        int err = 0;
        socklen_t len = sizeof err;
        struct sockaddr_storage peer;
        socklen_t peer_len = sizeof peer;
        getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &err, &len);
        if (err != 0) {
            l->trouble = -err;
            close_socket(l);
            try_next(l);
        } else if (getpeername(w->fd, (struct sockaddr *)&peer, &peer_len) == 0) {
            connected(l);
        }
        return;
    }
    if (events & EPOLLOUT) {
        send_some(l);
        if (l->unwaited) /* its writes have left without a WAIT behind them */
            nst_flusher_mark(&l->flusher);
    }
    if (w->fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        receive(l);
}

/* A socket on its way to the address: 0 when it is connected, -EINPROGRESS, or another error and nothing is left. */
static int open_socket(struct redis_link *l, const struct redis_address *a)
{
    int on = 1, rc = 0, added;

    l->watch.fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->watch.fd < 0)
        return -errno;
    if (a->sa.sa_family != AF_UNIX)
        setsockopt(l->watch.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(l->watch.fd, &a->sa, a->len) < 0)
        rc = -errno;
    if (rc == 0 || rc == -EINPROGRESS) {
        l->watch.events = EPOLLIN | EPOLLOUT;
        l->want_write = true;
        added = l->store->tls != NULL ? redis_tls_start(l) : 0;
        if (added == 0)
            added = nst_watch_add(l->store->reactor, &l->watch);
        if (added == 0)
            return rc;
        rc = added;
    }
    close(l->watch.fd);
    l->watch.fd = -1;
    close_socket(l);
    return rc;
}

/* Tries the addresses that this round has not tried yet, until one lets itself be waited for. */
static void try_next(struct redis_link *l)
{
    while (l->tried < l->n_addresses) {
        const struct redis_address *a = &l->addresses[l->next_address];
        int rc;
        l->tried++;
        l->next_address = (l->next_address + 1) % l->n_addresses;
        l->state = REDIS_CONNECTING;
        rc = open_socket(l, a);
        if (rc == -EINPROGRESS)
            return;
        if (rc == 0) {
            connected(l);
            return;
        }
        l->trouble = rc;
    }
    round_failed(l, l->trouble, strerror(-l->trouble));
}

void redis_link_start(struct redis_link *l)
{
    l->tried = 0;
    l->state = REDIS_CONNECTING;
    arm(l, attempt_limit);
    if (redis_put_setup(l))
        try_next(l);
    else
        round_failed(l, -ENOMEM, strerror(ENOMEM));
}

static void look_ready(struct redis_link *l)
{
    bool ticks = redis_link_ticks(l);
    nst_time next = NST_NEVER;

    if (l->head == l->tail && ticks)
        redis_link_tick(l);
    if (l->head != l->tail) {
        nst_time age = nst_clock() - oldest(l)->start;
        if (age >= l->store->reply_after) {
            redis_drop(l, -ETIMEDOUT, "an answer is overdue");
            return;
        }
        next = l->store->reply_after - age;
    }
    if (ticks && next > alive_after)
        next = alive_after;
    if (next != NST_NEVER)
        arm(l, next);
}

static void timer_ready(struct nst_watch *w, uint32_t events)
{
    struct redis_link *l = (struct redis_link *)((char *)w - offsetof(struct redis_link, timer));
    uint64_t times;

    if (read(w->fd, &times, sizeof times) != sizeof times)
        return; /* armed anew since */
    l->timer_armed = false;
    switch (l->state) {
    case REDIS_PAUSE:
        if (redis_link_retry(l))
            redis_link_start(l);
        break;
    case REDIS_CONNECTING:
    case REDIS_SETTING_UP:
        round_failed(l, -ETIMEDOUT, "no answer within a second");
        break;
    case REDIS_READY:
        look_ready(l);
        break;
    }
}

/* ---- opening and closing ---- */

int redis_link_open(struct redis_link **out, struct redis_store *s, const char *name)
{
    struct redis_link *l = calloc(1, sizeof *l);
    int rc;

    if (l == NULL)
        return -ENOMEM;
    l->store = s;
    l->watch = (struct nst_watch){ .fd = -1, .ready = socket_ready };
    l->timer = (struct nst_watch){ .fd = -1, .events = EPOLLIN, .ready = timer_ready };
    l->flusher.flush = flush;
    l->pause = pause_min;
    l->ring_mask = s->ring - 1;
    l->state = REDIS_PAUSE;
    snprintf(l->name, sizeof l->name, "%s", name);
    l->ring = calloc(s->ring, sizeof *l->ring);
    if (l->ring == NULL || !room_to_read(l)) {
        redis_link_close(l);
        return -ENOMEM;
    }
    l->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    rc = l->timer.fd < 0 ? -errno : nst_watch_add(s->reactor, &l->timer);
    if (rc < 0) {
        if (l->timer.fd >= 0)
            close(l->timer.fd);
        l->timer.fd = -1;
        redis_link_close(l);
        return rc;
    }
    l->queueing = true;
    *out = l;
    return 0;
}

void redis_link_close(struct redis_link *l)
{
    if (l == NULL)
        return;
    fail_all(l, -ECANCELED, -ECANCELED);
    close_socket(l);
    if (l->timer.fd >= 0) {
        nst_watch_remove(l->store->reactor, &l->timer);
        close(l->timer.fd);
    }
    free(l->ring);
    free(l->out);
    free(l->in);
    free(l);
}
