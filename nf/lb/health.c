/* SPDX-License-Identifier: Apache-2.0 */
#include "health.h"
#include <netinet/in.h>
#include <netstar/reactor.h>
#include <netstar/timer.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STATUS_LINE = 12 /* "HTTP/1.x NNN" */, SPREAD_MS = 50 };

struct check {
    struct nst_timer timer; /* the next check, or the end of this one's patience */
    struct nst_watch watch;
    struct lb_checks *all;
    const struct lb_service *service;
    const struct lb_backend *backend;
    bool connected;
    bool decided;       /* a check has ended before */
    unsigned good, bad; /* in a row */
    unsigned n;
    char answer[STATUS_LINE + 1];
};

struct lb_checks {
    struct lb_known *known;
    bool running;
    struct lb_check_counts count;
    size_t n;
    struct check check[];
};

static struct check *of_timer(struct nst_timer *t)
{
    return (struct check *)((char *)t - offsetof(struct check, timer));
}

static struct check *of_watch(struct nst_watch *w)
{
    return (struct check *)((char *)w - offsetof(struct check, watch));
}

static void begin(struct nst_timer *timer);

static void leave(struct check *c)
{
    const struct linger at_once = { .l_onoff = 1 };

    if (c->watch.fd < 0)
        return;
    nst_watch_remove(nst_reactor_self(), &c->watch);
    setsockopt(c->watch.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once); /* nothing stays behind */
    close(c->watch.fd);
    c->watch.fd = -1;
}

/* What this check has found; NULL: all is well. */
static void end(struct check *c, const char *wrong)
{
    struct lb_known *k = c->all->known;
    _Atomic uint8_t *down = &k->down[c->backend->id % LB_KNOWN];
    bool was_down = atomic_load_explicit(down, memory_order_relaxed);

    leave(c);
    c->all->count.made++;
    c->all->count.failed += wrong != NULL;
    c->good = wrong == NULL ? c->good + 1 : 0;
    c->bad = wrong != NULL ? c->bad + 1 : 0;
    if (wrong != NULL && !was_down && (!c->decided || c->bad >= c->service->fall)) {
        atomic_store_explicit(down, 1, memory_order_relaxed);
        c->all->count.went++;
        nst_log(NST_LOG_WARNING, "lb: %s: back end %s is not there: %s", c->service->name, c->backend->name, wrong);
    } else if (wrong == NULL && was_down && (!c->decided || c->good >= c->service->rise)) {
        atomic_store_explicit(down, 0, memory_order_relaxed);
        c->all->count.came++;
        nst_log(NST_LOG_INFO, "lb: %s: back end %s is there again", c->service->name, c->backend->name);
    }
    c->decided = true;
    nst_timer_disarm(&c->timer);
    if (nst_timer_arm(&c->timer, nst_now() + c->service->every, begin) < 0)
        nst_log(NST_LOG_ERROR, "lb: no memory to check %s again", c->backend->name);
}

static void too_late(struct nst_timer *timer)
{
    struct check *c = of_timer(timer);

    end(c, c->connected ? "no answer in time" : "no connection in time");
}

/* Small enough for an empty socket's buffer. */
static bool ask(struct check *c)
{
    char request[LB_PATH_MAX + LB_NAME_MAX + 128];
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: netstar\r\nConnection: close\r\n\r\n",
                     c->service->path, c->service->host[0] != '\0' ? c->service->host : c->backend->name);

    return send(c->watch.fd, request, (size_t)n, MSG_NOSIGNAL) == n;
}

static void connected(struct check *c)
{
    int error = 0;
    socklen_t len = sizeof error;

    if (getsockopt(c->watch.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error != 0) {
        end(c, strerror(error != 0 ? error : errno));
        return;
    }
    if (c->service->check == LB_CHECK_TCP) {
        end(c, NULL);
        return;
    }
    c->connected = true;
    if (!ask(c))
        end(c, "the request cannot be sent");
    else if (nst_watch_change(nst_reactor_self(), &c->watch, EPOLLIN) < 0)
        end(c, "its answer cannot be watched for");
}

static void read_answer(struct check *c)
{
    ssize_t n = recv(c->watch.fd, c->answer + c->n, STATUS_LINE - c->n, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        end(c, n < 0 ? strerror(errno) : "it has closed without an answer");
        return;
    }
    c->n += (unsigned)n;
    if (c->n < STATUS_LINE)
        return;
    c->answer[STATUS_LINE] = '\0';
    bool http = strncmp(c->answer, "HTTP/1.", 7) == 0 && c->answer[8] == ' ';
    end(c, !http ? "its answer is not HTTP" : c->answer[9] == '2' || c->answer[9] == '3' ? NULL : c->answer + 9);
}

static void ready(struct nst_watch *watch, uint32_t events)
{
    struct check *c = of_watch(watch);

    (void)events;
    if (c->connected)
        read_answer(c);
    else
        connected(c);
}

static void begin(struct nst_timer *timer)
{
    struct check *c = of_timer(timer);
    const struct lb_place *p = &c->backend->place;
    uint16_t port = htons(c->backend->check_port);
    struct sockaddr_in four = { .sin_family = AF_INET };
    struct sockaddr_in6 six = { .sin6_family = AF_INET6 };

    if (port == 0)
        memcpy(&port, p->port, sizeof port);
    four.sin_port = six.sin6_port = port;
    memcpy(&four.sin_addr, p->addr, sizeof four.sin_addr);
    memcpy(&six.sin6_addr, p->addr, sizeof six.sin6_addr);
    c->connected = false;
    c->n = 0;
    if (nst_timer_arm(&c->timer, nst_now() + c->service->timeout, too_late) < 0)
        return;
    c->watch.fd = socket(p->family == 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->watch.fd < 0) {
        end(c, strerror(errno));
        return;
    }
    c->watch.events = EPOLLOUT;
    c->watch.ready = ready;
    int rc = nst_watch_add(nst_reactor_self(), &c->watch);
    if (rc < 0) {
        close(c->watch.fd);
        c->watch.fd = -1;
        end(c, strerror(-rc));
        return;
    }
    if (p->family == 4)
        rc = connect(c->watch.fd, (const struct sockaddr *)&four, sizeof four);
    else
        rc = connect(c->watch.fd, (const struct sockaddr *)&six, sizeof six);
    if (rc < 0 && errno != EINPROGRESS)
        end(c, strerror(errno));
}

int lb_checks_make(struct lb_checks **out, const struct lb_services *s, struct lb_known *known)
{
    struct lb_checks *c = calloc(1, sizeof *c + s->n_backends * sizeof *c->check);

    if (c == NULL)
        return -ENOMEM;
    c->known = known;
    for (size_t i = 0; i < s->n_backends; i++) {
        const struct lb_service *v = s->service[s->backend[i].service];
        if (v->check == LB_CHECK_NONE) {
            atomic_store_explicit(&known->down[s->backend[i].id % LB_KNOWN], 0, memory_order_relaxed);
            continue;
        }
        c->check[c->n++] = (struct check){ .all = c, .service = v, .backend = &s->backend[i], .watch = { .fd = -1 } };
    }
    *out = c;
    return 0;
}

void lb_checks_start(struct lb_checks *c)
{
    c->running = true;
    for (size_t i = 0; i < c->n; i++) /* not all in one turn */
        if (nst_timer_arm(&c->check[i].timer, nst_now() + NST_MS(1 + i % SPREAD_MS), begin) < 0)
            nst_log(NST_LOG_ERROR, "lb: no memory to check %s", c->check[i].backend->name);
}

void lb_checks_stop(struct lb_checks *c)
{
    for (size_t i = 0; c->running && i < c->n; i++) {
        nst_timer_disarm(&c->check[i].timer);
        leave(&c->check[i]);
    }
    c->running = false;
}

void lb_checks_free(struct lb_checks *c)
{
    free(c);
}

void lb_checks_count(const struct lb_checks *c, struct lb_check_counts *sum)
{
    sum->made += c->count.made;
    sum->failed += c->count.failed;
    sum->went += c->count.went;
    sum->came += c->count.came;
}
