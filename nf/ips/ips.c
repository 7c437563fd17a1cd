/* SPDX-License-Identifier: Apache-2.0 */
/* ips.c - a stateless intrusion prevention system (--state each).
 *
 * No flow has state here. When a packet brings bytes to one of its ends, the automaton of that direction is read from
 * the store, fed with the bytes, and written back; only then may the packet go. Any other instance can carry on from
 * there. While one flow waits for the store, the packets of all others are handled.
 */
#include "ips.h"

/* Reads what the store keeps of a direction. */
static int read_record(struct ips *ips, struct ips_stream *s, nst_time until)
{
    int rc = nst_get(ips->store, s->key, s->record, sizeof s->record, NULL, until);
    return ips_understand(ips, s, s->record, rc);
}

/* The first packet to this end that this instance sees of a flow that began before: where did another leave it? */
static int take_over(struct ips *ips, struct ips_stream *s, nst_time until)
{
    struct ips_stream other;
    ips_stream_opposite(&other, s);
    int rc = read_record(ips, &other, until);
    return rc < 0 ? rc : ips_take_over(ips, s, &other);
}

static void forget(struct ips *ips, const struct ips_stream *s, const struct nst_event *ev)
{
    if (ips_over(ev->why))
        ips_forgotten(ips, nst_delete(ips->store, s->key, ev->until));
}

enum nst_verdict ips_handler(struct nst_flow *f, const struct nst_event *ev)
{
    struct ips *ips = nst_nf_arg(f);
    struct ips_stream s;
    ips_stream_open(&s, f, ev);

    if (ev->what & NST_EV_CLOSE) {
        forget(ips, &s, ev);
        return NST_FORWARD;
    }

    int rc = read_record(ips, &s, ev->until);
    if (rc == 0 && ev->what & NST_EV_MIDSTREAM)
        rc = take_over(ips, &s, ev->until);
    if (rc == 0)
        rc = ips_scan(ips, &s);
    if (rc < 0)
        return nst_fail(f, rc);
    if (s.next.len == 0)
        return s.verdict;

    if (ips_blocked(&s))
        ips_alert(ips, &s); /* at once: the packet is stopped even if the store fails now */
    rc = nst_put(ips->store, s.key, s.next, ips->ttl, ev->until);
    if (ips_blocked(&s))
        return s.verdict;
    if (rc < 0)
        return nst_fail(f, rc); /* dropped, and its bytes are scanned again when they come again */
    ips_alert(ips, &s);
    return s.verdict;
}
