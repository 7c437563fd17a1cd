/* SPDX-License-Identifier: Apache-2.0 */
/* What comes from outside the loop: pollers, watched descriptors, the clock of a replay, sleep; and the flushers. */
#include "runtime/reactor_internal.h"
#include <time.h>
#include <unistd.h>

void nst_poller_add(struct nst_reactor *r, struct nst_poller *p)
{
    struct nst_poller **at = &r->pollers;

    while (*at != NULL)
        at = &(*at)->next;
    p->next = NULL;
    *at = p;
}

void nst_poller_remove(struct nst_reactor *r, struct nst_poller *p)
{
    struct nst_poller **at = &r->pollers;

    while (*at != NULL && *at != p)
        at = &(*at)->next;
    if (*at == NULL)
        return;
    *at = p->next;
    if (r->poll_at == p)
        poll_next(r, p->next);
}

/* ---- watches: the event's data is the watch, NULL for the reactor's own eventfd ---- */

static int control(struct nst_reactor *r, int op, struct nst_watch *w)
{
    struct epoll_event ev = { .events = w->events, .data.ptr = w };

    return epoll_ctl(r->epoll_fd, op, w->fd, &ev) == 0 ? 0 : -errno;
}

int nst_watch_add(struct nst_reactor *r, struct nst_watch *w)
{
    int rc = control(r, EPOLL_CTL_ADD, w);

    if (rc == 0)
        r->watches++;
    return rc;
}

int nst_watch_change(struct nst_reactor *r, struct nst_watch *w, uint32_t events)
{
    uint32_t before = w->events;

    w->events = events;
    int rc = control(r, EPOLL_CTL_MOD, w);
    if (rc != 0)
        w->events = before;
    return rc;
}

void nst_watch_remove(struct nst_reactor *r, struct nst_watch *w)
{
    /* Its events may lie among those that were taken and are being handed out just now. */
    for (int i = r->at_event; i < r->n_events; i++) {
        if (r->events[i].data.ptr == w)
            r->events[i].events = 0;
    }
    if (control(r, EPOLL_CTL_DEL, w) == 0)
        r->watches--;
}

static void hand_out(struct nst_reactor *r, int n)
{
    r->n_events = n > 0 ? n : 0;
    r->at_event = 0;
    while (r->at_event < r->n_events) {
        const struct epoll_event *ev = &r->events[r->at_event++];
        struct nst_watch *w = ev->data.ptr;
        if (ev->events == 0)
            continue;
        if (w == NULL) {
            uint64_t count;
            if (read(r->event_fd, &count, sizeof count) < 0)
                continue;
        } else if (w->ready != NULL) {
            w->ready(w, ev->events);
        }
        r->work++;
    }
    r->n_events = 0;
}

void events_look(struct nst_reactor *r)
{
    hand_out(r, epoll_wait(r->epoll_fd, r->events, EVENTS, 0));
}

static int wait_for(struct nst_reactor *r, nst_time ns)
{
    struct timespec ts = { .tv_sec = ns / NST_SEC(1), .tv_nsec = ns % NST_SEC(1) };
    int n = -1;

    if (!r->whole_ms) {
        n = epoll_pwait2(r->epoll_fd, r->events, EVENTS, ns == NST_NEVER ? NULL : &ts, NULL);
        r->whole_ms = n < 0 && errno == ENOSYS; /* Linux before 5.11, valgrind */
    }
    if (r->whole_ms) {
        nst_time ms = ns == NST_NEVER ? -1 : (ns + NST_MS(1) - 1) / NST_MS(1);
        n = epoll_wait(r->epoll_fd, r->events, EVENTS, ms > INT32_MAX ? INT32_MAX : (int)ms);
    }
    return n;
}

void events_sleep(struct nst_reactor *r)
{
    nst_time until = NST_NEVER, ns = NST_NEVER;
    int n = 0;

    /* In a replay the timers follow the wall only while its clock does. */
    if (!r->replay || r->stand_wall != 0)
        until = timers_next(&r->timers);
    if (until != NST_NEVER) {
        ns = until - (r->replay ? r->stand_now + (nst_clock() - r->stand_wall) : nst_clock());
        if (ns <= 0)
            return;
    }
    if (r->nap != 0 && ns > r->nap)
        ns = r->nap;
    if (atomic_load_explicit(&r->rung, memory_order_relaxed)) { /* the pollers are asked first */
        atomic_store(&r->rung, false);
        atomic_thread_fence(memory_order_seq_cst);
        return;
    }
    /* Whoever brings something puts it where it belongs first and looks at `sleeping` then: one of the two sees. */
    atomic_store(&r->sleeping, true);
    atomic_thread_fence(memory_order_seq_cst);
    if (!mail_there(r) && !atomic_load(&r->rung) && (!atomic_load(&r->stop) || r->stopping)) {
        n = wait_for(r, ns);
        r->sleeps++;
    }
    atomic_store(&r->sleeping, false);
    hand_out(r, n);
    if (n > 0)
        r->idle_run = 0;
}

void reactor_wake(struct nst_reactor *r)
{
    uint64_t one = 1;
    int saved = errno;
    ssize_t n = write(r->event_fd, &one, sizeof one);

    (void)n; /* it fails only when the count is full, and then the sleep ends as well */
    errno = saved;
}

void nst_reactor_ring(struct nst_reactor *r)
{
    /* What was brought is there before `rung` is read, and `rung` is cleared before the pollers look: so a mark that
     * is found set is still to be heeded. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&r->rung, memory_order_relaxed))
        return;
    atomic_store(&r->rung, true);
    if (atomic_load(&r->sleeping) && atomic_exchange(&r->sleeping, false))
        reactor_wake(r);
}

void nst_reactor_stop(struct nst_reactor *r)
{
    atomic_store(&r->stop, true);
    reactor_wake(r);
}

/* ---- flushers ---- */

void nst_flusher_mark(struct nst_flusher *f)
{
    struct nst_reactor *r = nst_self;

    if (f->marked)
        return;
    f->marked = true;
    if (f->early) {
        f->next = r->early_flushers;
        r->early_flushers = f;
        return;
    }
    f->next = NULL;
    *r->flushers_tail = f;
    r->flushers_tail = &f->next;
}

void nst_flusher_unmark(struct nst_flusher *f)
{
    struct nst_reactor *r = nst_self;
    struct nst_flusher **at = f->early ? &r->early_flushers : &r->flushers;

    if (!f->marked)
        return;
    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    if (!f->early && f->next == NULL)
        r->flushers_tail = at;
    f->marked = false;
}

/* Those marked by a flusher that runs are left for the next turn, but for what the early ones mark. */
void flushers_run(struct nst_reactor *r)
{
    struct nst_flusher *f, *early = r->early_flushers;
    struct nst_flusher last = { .marked = true };

    r->early_flushers = NULL;
    while ((f = early) != NULL) {
        early = f->next;
        f->marked = false;
        f->flush(f);
        r->work++;
    }
    *r->flushers_tail = &last;
    r->flushers_tail = &last.next;
    while ((f = r->flushers) != &last) {
        r->flushers = f->next;
        f->marked = false;
        f->flush(f);
        r->work++;
    }
    r->flushers = last.next;
    if (r->flushers == NULL)
        r->flushers_tail = &r->flushers;
}

/* ---- the clock of a replay ---- */

void nst_clock_set(struct nst_reactor *r, nst_time now)
{
    r->replay = true;
    r->now = now;
    r->stand_wall = 0;
}

void nst_clock_idle(struct nst_reactor *r, bool may_jump)
{
    r->may_jump = may_jump;
}

void nst_outside(int n)
{
    nst_self->outside += n;
}
