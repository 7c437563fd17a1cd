/* SPDX-License-Identifier: Apache-2.0 */
/* Calls between reactors. A mailbox is a list to which any thread pushes and from which the owner takes all at once,
 * so that neither needs a lock and no entry can come back while somebody holds an old head. The record of a call
 * belongs to the caller's reactor; it travels to the other one and comes back as the reply. Requests are bounded by
 * a count; replies need no room and are never refused. */
#include "runtime/reactor_internal.h"
#include <stdlib.h>

struct call {
    struct nst_future start; /* on the called reactor */
    struct call *next;
    int (*fn)(void *arg);
    void *arg;
    struct nst_future *done;
    struct nst_reactor *from, *to;
    int rc;
    bool reply;
};

/* In place of the list: this reactor takes no more messages. */
static struct call closed_mail;

/* Answers -ECANCELED when the mailbox is closed. */
static int post(struct nst_reactor *to, struct call *c)
{
    struct call *head = atomic_load_explicit(&to->mail, memory_order_relaxed);

    do {
        if (head == &closed_mail)
            return -ECANCELED;
        c->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&to->mail, &head, c, memory_order_seq_cst, memory_order_relaxed));
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&to->sleeping) && atomic_exchange(&to->sleeping, false))
        reactor_wake(to);
    return 0;
}

static void answer(struct call *c, int rc)
{
    struct nst_reactor *from = c->from;

    c->rc = rc;
    c->reply = true;
    /* Once the reply is taken, `from` may end its run: it waits for its visitors first. */
    atomic_fetch_add(&from->visitors, 1);
    post(from, c);
    atomic_fetch_sub(&from->visitors, 1);
}

static void run_call(struct nst_future *f, int rc)
{
    struct call *c = container_of(f, struct call, start);

    answer(c, c->fn(c->arg));
}

int nst_call(struct nst_reactor *to, int (*fn)(void *arg), void *arg, struct nst_future *done)
{
    struct nst_reactor *r = nst_self;
    struct call *c = r->free_calls;
    int rc;

    if (atomic_fetch_add_explicit(&to->mail_waiting, 1, memory_order_relaxed) >= MAILBOX) {
        atomic_fetch_sub_explicit(&to->mail_waiting, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&to->calls_refused, 1, memory_order_relaxed);
        return -EAGAIN;
    }
    if (c != NULL)
        r->free_calls = c->next;
    else if ((c = malloc(sizeof *c)) == NULL) {
        atomic_fetch_sub_explicit(&to->mail_waiting, 1, memory_order_relaxed);
        return -ENOMEM;
    }
    *c = (struct call){ .fn = fn, .arg = arg, .done = done, .from = r, .to = to };
    atomic_fetch_add(&to->visitors, 1);
    rc = post(to, c);
    if (rc != 0)
        atomic_fetch_sub_explicit(&to->mail_waiting, 1, memory_order_relaxed);
    atomic_fetch_sub(&to->visitors, 1);
    if (rc != 0) {
        c->next = r->free_calls;
        r->free_calls = c;
        return rc;
    }
    r->calls_out++;
    r->outside++;
    return 0;
}

/* All that lies in the mailbox, in the order of its coming. */
static struct call *take_all(struct nst_reactor *r, struct call *leave)
{
    struct call *c = atomic_exchange(&r->mail, leave), *list = NULL;

    if (c == &closed_mail)
        return NULL;
    while (c != NULL) {
        struct call *next = c->next;
        c->next = list;
        list = c;
        c = next;
    }
    return list;
}

unsigned mail_take(struct nst_reactor *r)
{
    struct call *next;
    unsigned n = 0;

    for (struct call *c = take_all(r, NULL); c != NULL; c = next, n++) {
        next = c->next;
        if (c->reply) {
            struct nst_future *done = c->done;
            int rc = c->rc;
            c->next = r->free_calls;
            r->free_calls = c;
            r->calls_out--;
            r->outside--;
            nst_fulfil(done, rc);
        } else {
            atomic_fetch_sub_explicit(&r->mail_waiting, 1, memory_order_relaxed);
            r->calls_in++;
            c->start = (struct nst_future){ .then = run_call, .state = NST_FUTURE_DONE };
            ready_push(r, &c->start);
        }
    }
    return n;
}

void mail_close(struct nst_reactor *r)
{
    struct call *next;

    for (struct call *c = take_all(r, &closed_mail); c != NULL; c = next) {
        next = c->next;
        atomic_fetch_sub_explicit(&r->mail_waiting, 1, memory_order_relaxed);
        answer(c, -ECANCELED);
    }
    while (atomic_load(&r->visitors) != 0)
        sched_yield();
}

void mail_open(struct nst_reactor *r)
{
    struct call *closed = &closed_mail;

    atomic_compare_exchange_strong(&r->mail, &closed, NULL);
}

void calls_free(struct nst_reactor *r)
{
    while (r->free_calls != NULL) {
        struct call *c = r->free_calls;
        r->free_calls = c->next;
        free(c);
    }
}
