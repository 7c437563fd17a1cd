/* SPDX-License-Identifier: Apache-2.0 */
/* ips_callback.c - the same IPS written with callbacks: each wait ends a function, and what is needed after it is
 * carried in a context. It behaves exactly like ips.c; read the two side by side.
 */
#include "ips.h"
#include <stdlib.h>

/* What must outlive a wait. Unused ones are kept in a list. */
struct ips_wait {
    struct ips_wait *next;
    struct ips *ips;
    nst_time until;
    nst_events what;
    struct nst_future future;
    struct ips_stream s, other;
};

static struct ips_wait *new_wait(struct ips *ips)
{
    struct ips_wait *w = ips->idle;
    if (w)
        ips->idle = w->next;
    else
        w = malloc(sizeof *w);
    return w;
}

/* Ends the event. The context goes first: with the verdict the flow may go, and the next event may want one. */
static void decide(struct ips_wait *w, enum nst_verdict verdict)
{
    struct nst_flow *f = w->s.flow;
    enum nst_side side = w->s.side;
    w->next = w->ips->idle;
    w->ips->idle = w;
    nst_resume(f, side, verdict);
}

static void fail(struct ips_wait *w, int rc)
{
    decide(w, nst_fail(w->s.flow, rc));
}

static void on_written(struct nst_future *future, int rc)
{
    struct ips_wait *w = future->arg;
    if (!ips_blocked(&w->s)) {
        if (rc < 0) {
            fail(w, rc); /* dropped, and its bytes are scanned again when they come again */
            return;
        }
        ips_alert(w->ips, &w->s);
    }
    decide(w, w->s.verdict);
}

static void scan(struct ips_wait *w)
{
    int rc = ips_scan(w->ips, &w->s);
    if (rc < 0) {
        fail(w, rc);
        return;
    }
    if (w->s.next.len == 0) {
        decide(w, w->s.verdict);
        return;
    }
    if (ips_blocked(&w->s))
        ips_alert(w->ips, &w->s); /* at once: the packet is stopped even if the store fails now */
    nst_future_init(&w->future);
    nst_put_start(w->ips->store, w->s.key, w->s.next, w->ips->ttl, &w->future);
    nst_then(&w->future, on_written, w, w->until);
}

static void on_other_read(struct nst_future *future, int rc)
{
    struct ips_wait *w = future->arg;
    rc = ips_understand(w->ips, &w->other, w->other.record, rc);
    if (rc == 0)
        rc = ips_take_over(w->ips, &w->s, &w->other);
    if (rc < 0) {
        fail(w, rc);
        return;
    }
    scan(w);
}

static void on_read(struct nst_future *future, int rc)
{
    struct ips_wait *w = future->arg;
    rc = ips_understand(w->ips, &w->s, w->s.record, rc);
    if (rc < 0) {
        fail(w, rc);
        return;
    }
    if (w->what & NST_EV_MIDSTREAM) {
        ips_stream_opposite(&w->other, &w->s);
        nst_future_init(&w->future);
        nst_get_start(w->ips->store, w->other.key, w->other.record, sizeof w->other.record, NULL, &w->future);
        nst_then(&w->future, on_other_read, w, w->until);
        return;
    }
    scan(w);
}

static void on_deleted(struct nst_future *future, int rc)
{
    struct ips_wait *w = future->arg;
    ips_forgotten(w->ips, rc);
    decide(w, NST_FORWARD);
}

enum nst_verdict ips_callback_handler(struct nst_flow *f, const struct nst_event *ev)
{
    struct ips *ips = nst_nf_arg(f);
    if (ev->what & NST_EV_CLOSE && !ips_over(ev->why))
        return NST_FORWARD;

    struct ips_wait *w = new_wait(ips);
    if (!w)
        return nst_fail(f, -ENOMEM);
    w->ips = ips;
    w->until = ev->until;
    w->what = ev->what;
    ips_stream_open(&w->s, f, ev);
    nst_future_init(&w->future);
    if (ev->what & NST_EV_CLOSE) {
        nst_delete_start(ips->store, w->s.key, &w->future);
        nst_then(&w->future, on_deleted, w, w->until);
    } else {
        nst_get_start(ips->store, w->s.key, w->s.record, sizeof w->s.record, NULL, &w->future);
        nst_then(&w->future, on_read, w, w->until);
    }
    return NST_PENDING;
}

void ips_callback_close(struct ips *ips)
{
    while (ips->idle) {
        struct ips_wait *w = ips->idle;
        ips->idle = w->next;
        free(w);
    }
}
