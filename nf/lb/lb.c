/* SPDX-License-Identifier: Apache-2.0 */
/* lb.c - a layer 4 load balancer whose connections stay with their back ends, whatever becomes of it.
 *
 * A connection's first packet is given a back end by a consistent hash, and leaves when the store has acknowledged which.
 * Every other packet is only rewritten. Which back end a connection has is written once: of two instances that meet the
 * same connection, the one that is later goes by what the other has written.
 */
#include "lb.h"

static int get(struct lb *lb, struct lb_packet *p, struct nst_slice key)
{
    return nst_get(lb->store, key, p->found, sizeof p->found, NULL, p->ev->until);
}

/* Writes both records unless they are there, or anew: what became of each is in rc. */
static int write_both(struct lb *lb, struct lb_packet *p, bool put[2], int rc[2])
{
    const struct nst_slice record = { &p->record, sizeof p->record }, key[2] = { p->key, p->back_key };
    struct nst_future future[2], *all[2] = { &future[0], &future[1] };
    unsigned n = p->record.mode == LB_NAT ? 2 : 1;

    for (unsigned i = 0; i < n; i++) {
        nst_future_init(&future[i]);
        if (put[i])
            nst_put_start(lb->store, key[i], record, lb_life(lb, p), &future[i]);
        else
            nst_cas_start(lb->store, key[i], record, 0, lb_life(lb, p), &future[i]);
    }
    int first = nst_await_all(all, n, p->ev->until);
    if (first == -ESTALE)
        first = 0;
    rc[1] = 0;
    for (unsigned i = 0; i < n; i++) {
        rc[i] = future[i].rc;
        if (first == 0 && rc[i] < 0 && rc[i] != -ESTALE)
            first = rc[i];
    }
    return first;
}

/* Gives the connection a back end: that which it has already, or the one that the hash says. */
static int open_connection(struct lb *lb, struct lb_packet *p)
{
    int rc = 0, each[2];

    for (int i = 0; i < LB_TRIES; i++) {
        if (!lb_choose(lb, p))
            return -ENODEV;
        rc = write_both(lb, p, (bool[2]){ p->overwrite, false }, each);
        if (rc < 0)
            return rc;
        if (each[0] == -ESTALE) { /* somebody has met it before */
            rc = lb_understand(lb, p, get(lb, p, p->key));
            if (rc < 0 && rc != -ENOENT)
                return rc;
            if (rc == -ENOENT || !lb_serves(lb, p)) {
                p->overwrite = true;
                continue;
            }
            rc = write_both(lb, p, (bool[2]){ true, false }, each);
            if (rc < 0)
                return rc;
        }
        if (each[1] != -ESTALE || !lb_collides(lb, p, get(lb, p, p->back_key))) {
            lb_adopt(lb, p, true);
            return 0;
        }
        p->overwrite = true; /* its tuple at that back end is taken: another one */
    }
    return -EBUSY;
}

static int find_connection(struct lb *lb, struct lb_packet *p)
{
    int rc = lb_understand(lb, p, get(lb, p, p->key));

    if (rc == 0)
        lb_adopt(lb, p, false);
    return rc == -ENOENT ? -ESRCH : rc;
}

static int renew(struct lb *lb, struct lb_packet *p)
{
    int each[2];

    lb_renewed(lb, p, write_both(lb, p, (bool[2]){ true, true }, each));
    return 0;
}

enum nst_verdict lb_handler(struct nst_flow *f, const struct nst_event *ev)
{
    struct lb *lb = nst_nf_arg(f);
    struct lb_packet p;
    int rc = 0;

    if (ev->what & NST_EV_CLOSE)
        return lb_closed(lb, f);
    if (ev->what & NST_EV_ICMP)
        return lb_icmp_error(lb, f, ev);
    if (lb_look(lb, &p, f, ev))
        rc = p.renews ? renew(lb, &p) : p.opens ? open_connection(lb, &p) : find_connection(lb, &p);
    return rc < 0 ? lb_fail(lb, &p, rc) : lb_send(lb, &p);
}
