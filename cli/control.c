/* SPDX-License-Identifier: Apache-2.0 */
#include "control.h"
#include "core.h"
#include "heart.h"
#include "live.h"
#include "reload.h"
#include "signals.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS_MAX = 8, REQUEST_MAX = 256, PATIENCE = 30 /* seconds for a client's next word, or to take an answer */ };

struct control {
    struct instance *in;
    struct place place;
    struct nst_reactor *reactor;
    struct nst_scope *scope;
    struct nst_watch listener, hangup, quit;
    struct nst_future ends;
    pthread_t thread;
    bool started;
    unsigned clients;
    time_t since;
};

struct client {
    struct control *control;
    int fd;
    size_t len;
    char request[REQUEST_MAX];
};

/* ---- waiting for a descriptor ---- */
struct fd_wait {
    struct nst_watch watch;
    struct nst_future ready;
};

static void fd_ready(struct nst_watch *watch, uint32_t events)
{
    struct fd_wait *w = (struct fd_wait *)watch;

    (void)events;
    if (w->ready.state == NST_FUTURE_OPEN)
        nst_fulfil(&w->ready, 0);
}

static void fd_stop(struct nst_future *f)
{
    if (f->state == NST_FUTURE_OPEN)
        nst_fulfil(f, -ECANCELED);
}

static int wait_fd(int fd, uint32_t events, nst_time until)
{
    struct fd_wait w = { .watch = { .fd = fd, .events = events, .ready = fd_ready }, .ready = { .stop = fd_stop } };
    int rc = nst_watch_add(nst_reactor_self(), &w.watch);

    if (rc < 0)
        return rc;
    rc = nst_await(&w.ready, until);
    nst_watch_remove(nst_reactor_self(), &w.watch);
    return rc;
}

/* ---- requests ---- */
static json_t *about(const struct control *k)
{
    const struct settings *s = k->in->s;

    return json_pack("{s:b, s:s, s:i, s:s, s:s, s:I, s:i}", "ok", 1, "instance", k->place.name, "pid",
                     (int)k->place.pid, "nf", s->module->name, "version", NETSTAR_VERSION, "since",
                     (json_int_t)k->since, "cores", (int)s->cores);
}

static json_t *answer_to(struct control *k, const char *request)
{
    if (strcmp(request, "about") == 0)
        return about(k);
    if (strcmp(request, "reload") == 0)
        return reload(k->in);
    if (strcmp(request, "stats") == 0)
        return live_value(k->in, k->place.name, (int)k->place.pid);
    return json_pack("{s:b, s:s}", "ok", 0, "error", "unknown request; expected about, reload or stats");
}

static int send_all(int fd, const char *text, size_t len)
{
    nst_time until = nst_now() + NST_SEC(PATIENCE);

    while (len != 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            text += n;
            len -= (size_t)n;
        } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
            return -errno;
        } else {
            int rc = wait_fd(fd, EPOLLOUT, until);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static int send_answer(int fd, json_t *answer)
{
    char *text = answer != NULL ? json_dumps(answer, JSON_COMPACT) : NULL;
    int rc = -ENOMEM;

    json_decref(answer);
    if (text != NULL) {
        size_t len = strlen(text);
        text[len] = '\n'; /* in place of its end */
        rc = send_all(fd, text, len + 1);
        free(text);
    }
    return rc;
}

/* The next line into request, without its end: 0; -ENODATA when there is none any more. */
static int next_request(struct client *cl, char request[REQUEST_MAX])
{
    for (;;) {
        char *end = memchr(cl->request, '\n', cl->len);
        if (end != NULL) {
            size_t len = (size_t)(end - cl->request);
            memcpy(request, cl->request, len);
            request[len > 0 && request[len - 1] == '\r' ? len - 1 : len] = '\0';
            cl->len -= len + 1;
            memmove(cl->request, end + 1, cl->len);
            return 0;
        }
        if (cl->len == sizeof cl->request)
            return -EMSGSIZE;
        ssize_t n = recv(cl->fd, cl->request + cl->len, sizeof cl->request - cl->len, MSG_DONTWAIT);
        if (n == 0)
            return -ENODATA;
        if (n > 0) {
            cl->len += (size_t)n;
            continue;
        }
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        int rc = wait_fd(cl->fd, EPOLLIN, nst_now() + NST_SEC(PATIENCE));
        if (rc < 0)
            return rc;
    }
}

static void client_task(void *arg)
{
    struct client *cl = arg;
    char request[REQUEST_MAX];
    int rc;

    while ((rc = next_request(cl, request)) == 0 && send_answer(cl->fd, answer_to(cl->control, request)) == 0)
        ;
    if (rc == -EMSGSIZE)
        (void)!send_answer(cl->fd, json_pack("{s:b, s:s}", "ok", 0, "error", "the request is too long"));
    close(cl->fd);
    cl->control->clients--;
    free(cl);
}

static void on_client(struct nst_watch *watch, uint32_t events)
{
    static const char full[] = "{\"ok\":false,\"error\":\"too many ask at once\"}\n";
    struct control *k = (struct control *)((char *)watch - offsetof(struct control, listener));
    int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct client *cl = NULL;

    (void)events;
    if (fd < 0)
        return;
    if (k->clients < CLIENTS_MAX && (cl = calloc(1, sizeof *cl)) != NULL) {
        *cl = (struct client){ .control = k, .fd = fd };
        k->clients++;
        if (nst_spawn(k->scope, client_task, cl) == 0)
            return;
        k->clients--;
        free(cl);
    }
    (void)!send(fd, full, sizeof full - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(fd);
}

/* ---- SIGHUP ---- */
static void reload_task(void *arg)
{
    struct control *k = arg;

    json_decref(reload(k->in)); /* which has logged it */
}

static void on_hangup(struct nst_watch *watch, uint32_t events)
{
    struct control *k = (struct control *)((char *)watch - offsetof(struct control, hangup));

    (void)events;
    if (signals_read(watch->fd) != 0 && nst_spawn(k->scope, reload_task, k) < 0)
        nst_log(NST_LOG_ERROR, "reload: out of memory; nothing has changed");
}

/* ---- the thread ---- */
static void on_quit(struct nst_watch *watch, uint32_t events)
{
    struct control *k = (struct control *)((char *)watch - offsetof(struct control, quit));

    (void)events;
    if (k->ends.state == NST_FUTURE_OPEN)
        nst_fulfil(&k->ends, 0);
}

static int watch_all(struct control *k)
{
    int rc = nst_watch_add(k->reactor, &k->quit);

    if (rc == 0 && k->listener.fd >= 0)
        rc = nst_watch_add(k->reactor, &k->listener);
    if (rc == 0 && k->hangup.fd >= 0)
        rc = nst_watch_add(k->reactor, &k->hangup);
    return rc;
}

static void serve(void *arg)
{
    struct control *k = arg;
    int rc = nst_scope_open(&k->scope, NULL);

    k->ends = (struct nst_future){ .stop = fd_stop };
    if (rc == 0)
        rc = watch_all(k);
    if (rc == 0 && k->in->heart != NULL)
        rc = nst_spawn(k->scope, heart_beat, k->in);
    if (rc < 0)
        nst_log(NST_LOG_WARNING, "this instance cannot be asked anything: %s", strerror(-rc));
    else
        rc = nst_await(&k->ends, NST_NEVER);
    if (k->scope != NULL && nst_scope_close(k->scope) < 0)
        nst_log(NST_LOG_DEBUG, "control was closed from within");
    if (k->in->heart != NULL)
        heart_farewell(k->in->heart);
    nst_watch_remove(k->reactor, &k->quit);
    if (k->listener.fd >= 0)
        nst_watch_remove(k->reactor, &k->listener);
    if (k->hangup.fd >= 0)
        nst_watch_remove(k->reactor, &k->hangup);
    nst_reactor_stop(k->reactor);
}

static void *control_thread(void *arg)
{
    struct control *k = arg;
    int rc = nst_reactor_run(k->reactor, serve, k);

    if (rc < 0)
        nst_log(NST_LOG_WARNING, "this instance cannot be asked anything: %s", strerror(-rc));
    return NULL;
}

/* Where it listens; the descriptor stays -1 where it does not. -EEXIST, or what else went wrong where it was asked for. */
static int make_place(struct control *k, struct complaint *c)
{
    const struct settings *s = k->in->s;
    bool wanted = s->instance != NULL || s->control != NULL;
    const char *dir = s->control != NULL ? s->control : CONTROL_DIR;
    int fd;

    if (strcmp(dir, "no") == 0 || (s->n_inputs != 0 && !wanted))
        return 0;
    fd = place_make(dir, s->instance != NULL ? s->instance : s->module->name, s->instance != NULL, &k->place, c);
    if (fd >= 0)
        k->listener.fd = fd;
    if (fd >= 0 || wanted)
        return fd < 0 ? fd : 0;
    nst_log(NST_LOG_DEBUG, "this instance cannot be asked anything: %s", c->text);
    return 0;
}

int control_open(struct instance *in, struct complaint *c)
{
    struct control *k = calloc(1, sizeof *k);
    int rc;

    if (k == NULL)
        return complain(c, -ENOMEM, "out of memory");
    k->in = in;
    k->since = time(NULL);
    k->hangup.fd = k->quit.fd = -1;
    k->listener = (struct nst_watch){ .fd = -1, .events = EPOLLIN, .ready = on_client };
    rc = make_place(k, c);
    if (rc == 0)
        rc = heart_claim(&in->heart, in->s, c);
    in->control = k;
    if (rc < 0 || (k->listener.fd < 0 && in->heart == NULL))
        control_close(in);
    return rc;
}

void control_start(struct instance *in)
{
    const struct nst_reactor_config config = {
        .name = "control", .cpu = -1, .stacks = 64, .stack_size = HEART_STACK, .stall_after = NST_NEVER
    };
    struct control *k = in->control;
    int rc;

    if (k == NULL)
        return;
    rc = nst_reactor_open(&k->reactor, &config);
    if (rc == 0) {
        k->quit =
            (struct nst_watch){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = EPOLLIN, .ready = on_quit };
        rc = k->quit.fd < 0 ? -errno : 0;
    }
    if (rc == 0) {
        if (k->listener.fd >= 0)
            k->hangup = (struct nst_watch){ .fd = signals_open_hangup(), .events = EPOLLIN, .ready = on_hangup };
        rc = -pthread_create(&k->thread, NULL, control_thread, k);
    }
    k->started = rc == 0;
    if (rc < 0)
        nst_log(NST_LOG_WARNING, "this instance cannot be asked anything: %s", strerror(-rc));
}

void control_close(struct instance *in)
{
    struct control *k = in->control;
    uint64_t one = 1;

    if (k == NULL)
        return;
    if (k->listener.fd >= 0)
        unlink(k->place.path);
    if (k->started) {
        if (write(k->quit.fd, &one, sizeof one) < 0)
            nst_reactor_stop(k->reactor);
        pthread_join(k->thread, NULL);
    }
    nst_reactor_close(k->reactor);
    if (k->hangup.fd >= 0)
        signals_close_hangup(k->hangup.fd);
    if (k->quit.fd >= 0)
        close(k->quit.fd);
    if (k->listener.fd >= 0)
        close(k->listener.fd);
    if (!k->started && in->heart != NULL)
        heart_give_back(in->heart);
    heart_free(in->heart);
    in->heart = NULL;
    free(k);
    in->control = NULL;
}
