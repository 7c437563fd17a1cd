/* SPDX-License-Identifier: Apache-2.0 */
/* nat.c - a stateless source NAT.
 *
 * What an inside end is mapped to is in the store, under both of its names. A packet of a mapping that this instance has
 * not met reads it there; a mapping that nobody has is made there before its first packet leaves. So any instance can carry
 * on at any packet of any connection, and no public port stands for two inside ends at the same time.
 */
#include "nat.h"

/* From the inside: its source becomes public. */
static int outbound(struct nat *nat, struct nst_flow *f, const struct nst_event *ev, const struct nat_packet *x,
                    struct nst_object **m)
{
    int rc;
    do {
        nst_state_release(*m);
        rc = nat_map(nat, x, m, ev->until);
        if (rc == 0)
            rc = nat_use(nat, f, ev->packet, *m, ev->until);
    } while (rc == -ESTALE);
    if (rc == 0)
        rc = nat_permit(nat, *m, &x->dst, ev->until);
    return rc;
}

/* To a public end: its destination becomes the inside end that is behind it. */
static int inbound(struct nat *nat, const struct nst_event *ev, const struct nat_end *from, const struct nat_packet *x,
                   struct nst_object **m)
{
    int rc = nat_find_outside(nat, &x->dst, m, ev->until);
    if (rc == 0)
        rc = nat_permitted(nat, *m, from, ev->until);
    return rc;
}

static enum nst_verdict refuse(struct nat *nat, struct nst_flow *f, int rc)
{
    if (rc == -ENOENT)
        nat->count.no_mapping++;
    else if (rc == -EACCES)
        nat->count.filtered++;
    else
        return nst_fail(f, rc);
    return NST_DROP;
}

static enum nst_verdict out(struct nat *nat, struct nst_flow *f, const struct nst_event *ev, const struct nat_packet *x)
{
    NST_HELD struct nst_object *m = NULL;
    int rc = outbound(nat, f, ev, x, &m);
    if (rc < 0)
        return refuse(nat, f, rc);
    nat_set_source(ev->packet, x, &nat_record(m)->outside);
    nat->count.out++;
    return NST_FORWARD;
}

static enum nst_verdict in(struct nat *nat, struct nst_flow *f, const struct nst_event *ev, const struct nat_packet *x)
{
    NST_HELD struct nst_object *m = NULL;
    int rc = inbound(nat, ev, &x->src, x, &m);
    if (rc < 0)
        return refuse(nat, f, rc);
    nat_set_destination(ev->packet, x, &nat_record(m)->inside);
    nat->count.in++;
    return NST_FORWARD;
}

/* One inside host talks to another by its public name: it sees its peer's public name, too. */
static enum nst_verdict hairpin(struct nat *nat, struct nst_flow *f, const struct nst_event *ev,
                                const struct nat_packet *x)
{
    NST_HELD struct nst_object *from = NULL, *to = NULL;
    int rc = outbound(nat, f, ev, x, &from);
    if (rc == 0)
        rc = inbound(nat, ev, &nat_record(from)->outside, x, &to);
    if (rc < 0)
        return refuse(nat, f, rc);
    nat_set_source(ev->packet, x, &nat_record(from)->outside);
    nat_set_destination(ev->packet, x, &nat_record(to)->inside);
    nst_packet_turn(ev->packet);
    nat->count.hairpin++;
    return NST_FORWARD;
}

/* An error about a packet that has been translated is translated back, with what it quotes. */
static enum nst_verdict error(struct nat *nat, struct nst_flow *f, const struct nst_event *ev,
                              const struct nat_packet *x)
{
    NST_HELD struct nst_object *sender = NULL, *receiver = NULL;
    int rc = 0;
    if (x->dst_public) /* who sent the quoted packet is behind its public source */
        rc = nat_find_outside(nat, &x->quoted_src, &sender, ev->until);
    if (rc == 0 && x->src_inside) /* who was to receive it has a public name, under which the sender knows it */
        rc = nat_find_inside(nat, &x->quoted_dst, &receiver, ev->until);
    if (rc < 0)
        return refuse(nat, f, rc);
    nat_set_quoted(ev->packet, x, sender ? &nat_record(sender)->inside : NULL,
                   receiver ? &nat_record(receiver)->outside : NULL);
    if (sender)
        nat_set_destination(ev->packet, x, &nat_record(sender)->inside);
    if (receiver)
        nat_set_source(ev->packet, x, &nat_record(receiver)->outside);
    if (sender && receiver)
        nst_packet_turn(ev->packet);
    nat->count.errors++;
    return NST_FORWARD;
}

enum nst_verdict nat_handler(struct nst_flow *f, const struct nst_event *ev)
{
    struct nat *nat = nst_nf_arg(f);
    struct nat_packet x;
    nat_look(nat, ev->packet, &x);

    switch (x.way) {
    case NAT_OUT:
        return out(nat, f, ev, &x);
    case NAT_IN:
        return in(nat, f, ev, &x);
    case NAT_HAIRPIN:
        return hairpin(nat, f, ev, &x);
    case NAT_ERROR:
        return error(nat, f, ev, &x);
    case NAT_OTHER:
        nat->count.others++;
        return nat->drop_others ? NST_DROP : NST_FORWARD;
    case NAT_NO_MAP:
        nat->count.no_map++;
        return NST_DROP;
    case NAT_SPOOFED:
        nat->count.spoofed++;
        return NST_DROP;
    }
    return NST_UNDECIDED;
}
