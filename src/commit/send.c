/* SPDX-License-Identifier: Apache-2.0 */
/* Output commit for packets that need not hold up those behind them: each waits here, on its own, for the writes that
 * carry what it depends on.
 *
 * Waits for one object end in the order in which they began, and a wait that ends makes its continuation runnable behind
 * those that are. So packets leave in their order, as long as none goes past those whose continuation has yet to run: that
 * is what kept.sends tells.
 */
#include "state/state.h"
#include <stdlib.h>

struct send {
    struct nst_future future[NST_STATE_SEND_MAX];
    struct nst_object *object[NST_STATE_SEND_MAX];
    struct nst_packet *packet;
    struct nst_state *state; /* of the first object: it lends the memory */
    struct send *next;       /* among the unused */
    uint8_t n, open;
};

static void free_sends(struct nst_state *s)
{
    while (s->unused_sends != NULL) {
        struct send *x = s->unused_sends;
        s->unused_sends = x->next;
        free(x);
    }
}

static struct send *get_send(struct nst_state *s)
{
    struct send *x = s->unused_sends;

    if (s->stats.sends >= s->config.sends)
        return NULL;
    if (x != NULL)
        s->unused_sends = x->next;
    else if ((x = malloc(sizeof *x)) == NULL)
        return NULL;
    s->free_sends = free_sends;
    s->stats.sent_late++;
    if (++s->stats.sends > s->stats.sends_peak)
        s->stats.sends_peak = s->stats.sends;
    return x;
}

static void put_send(struct send *x)
{
    struct nst_state *s = x->state;

    for (unsigned i = 0; i < x->n; i++) {
        kept_of(x->object[i])->sends--;
        nst_state_release(x->object[i]);
    }
    x->next = s->unused_sends;
    s->unused_sends = x;
    s->stats.sends--;
}

static void on_settled(struct nst_future *f, int rc)
{
    struct send *x = f->arg;

    x->open--;
    if (rc >= 0 && x->open != 0)
        return;
    if (rc < 0) {
        for (unsigned i = 0; i < x->n; i++) {
            if (&x->future[i] != f)
                (void)nst_cancel(&x->future[i]);
        }
        nst_packet_fail(x->packet, rc);
    } else {
        nst_packet_forward(x->packet);
    }
    put_send(x);
}

enum nst_verdict nst_state_send(struct nst_flow *f, const struct nst_event *ev, struct nst_object *const o[],
                                unsigned n)
{
    struct nst_packet *p = NULL;
    bool settled = true;

    if (n == 0 || n > NST_STATE_SEND_MAX)
        return nst_fail(f, -EINVAL);
    struct nst_state *s = kept_of(o[0])->state;
    for (unsigned i = 0; i < n; i++)
        settled = settled && object_settled(kept_of(o[i])) && kept_of(o[i])->sends == 0;
    if (settled)
        return NST_FORWARD;
    struct send *x = get_send(s);
    if (x != NULL)
        p = nst_packet_keep(ev);
    if (p == NULL) {
        s->stats.refused++;
        if (x != NULL) {
            x->n = 0;
            x->state = s;
            put_send(x);
        }
        return nst_fail(f, -EBUSY);
    }
    *x = (struct send){ .packet = p, .state = s, .n = (uint8_t)n, .open = (uint8_t)n };
    for (unsigned i = 0; i < n; i++) {
        struct kept *k = kept_of(o[i]);
        x->object[i] = o[i];
        k->holds++;
        k->sends++;
        nst_state_settle_start(o[i], &x->future[i]);
    }
    for (unsigned i = 0; i < n; i++)
        nst_then(&x->future[i], on_settled, x, ev->until);
    return NST_TAKEN;
}
