/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/reactor_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { STACK_SIZE = 64 << 10, STACKS = 16384 };

int nst_reactor_open(struct nst_reactor **out, const struct nst_reactor_config *config)
{
    static const struct nst_reactor_config defaults = { .cpu = -1 };
    const struct nst_reactor_config *c = config != NULL ? config : &defaults;
    struct epoll_event wake = { .events = EPOLLIN };
    struct nst_reactor *r;
    int rc;

    if (c->cpu < -1 || c->cpu >= (int)CPU_SETSIZE || c->stall_after < 0 || (c->stack_size != 0 && c->stack_size < 8192))
        return -EINVAL;
    r = aligned_alloc(64, sizeof *r);
    if (r == NULL)
        return -ENOMEM;
    *r = (struct nst_reactor){
        .epoll_fd = -1,
        .event_fd = -1,
        .cpu = c->cpu,
        .busy_poll = c->busy_poll,
        .stall_after = c->stall_after != 0 ? c->stall_after : NST_MS(100),
        .now = nst_clock(),
    };
    if (c->name != NULL)
        snprintf(r->name, sizeof r->name, "%s", c->name);
    else
        snprintf(r->name, sizeof r->name, "core %d", c->cpu >= 0 ? c->cpu : 0);
    r->ready_tail = &r->ready;
    r->flushers_tail = &r->flushers;
    timers_init(&r->timers);
    scope_init(&r->root, r);
    rc = stacks_open(&r->stacks, c->stack_size != 0 ? c->stack_size : STACK_SIZE, c->stacks != 0 ? c->stacks : STACKS);
    if (rc == 0)
        rc = core_stack_open(r);
    if (rc == 0 && ((r->epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0 ||
                    (r->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0 ||
                    epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, r->event_fd, &wake) != 0))
        rc = errno == EMFILE || errno == ENFILE ? -errno : -ENOMEM;
    if (rc != 0) {
        nst_reactor_close(r);
        return rc;
    }
    *out = r;
    return 0;
}

void nst_reactor_close(struct nst_reactor *r)
{
    if (r == NULL)
        return;
    mail_close(r);
    scopes_free(r);
    calls_free(r);
    timers_free(&r->timers);
    core_stack_close(r);
    stacks_close(&r->stacks);
    if (r->epoll_fd >= 0)
        close(r->epoll_fd);
    if (r->event_fd >= 0)
        close(r->event_fd);
    free(r);
}

void nst_reactor_stats(const struct nst_reactor *r, struct nst_reactor_stats *out)
{
    *out = (struct nst_reactor_stats){
        .turns = atomic_load_explicit(&r->turns, memory_order_relaxed),
        .idle_turns = r->idle_turns,
        .sleeps = r->sleeps,
        .suspensions = r->suspensions + r->called_waits,
        .timers_fired = r->timers_fired,
        .calls_in = r->calls_in,
        .calls_refused = atomic_load_explicit(&r->calls_refused, memory_order_relaxed),
        .stalls = atomic_load_explicit(&r->stalls, memory_order_relaxed),
        .no_stack = r->no_stack,
        .stacks_used = r->used,
        .stacks_peak = r->stacks.made > 0 ? r->stacks.made - 1 : 0,
        .stacks_limit = r->stacks.limit - 1,
        .guard = r->stacks.guard,
    };
}

void nst_reactor_nap(struct nst_reactor *r, nst_time max)
{
    r->nap = max;
}
