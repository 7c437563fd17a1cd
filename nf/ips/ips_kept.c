/* SPDX-License-Identifier: Apache-2.0 */
/* ips_kept.c - the same IPS with what it knows of a flow kept here and written through (--state kept).
 *
 * One instance at a time owns a direction. Its record is read when it is first met here; from then on a packet's bytes are
 * scanned at once, and the packet leaves when the store has the state that they led to, while the flow goes on with its
 * next packet: what a burst changes in one direction is one write. Whoever else meets a packet of the flow owns it from
 * then on, and what a former owner has on its way can no longer land.
 *
 * A packet whose state could not be written is dropped although its bytes are scanned. When it comes again it leaves with
 * the write of where this instance stands.
 */
#include "ips.h"
#include <string.h>

/* Without the prefix, which is the state's. */
static struct nst_slice key_of(const struct ips_stream *s)
{
    return (struct nst_slice){ s->name + 4, s->key.len - 4 };
}

/* Owns the direction, and has what the store keeps of it: without a wait where it is kept here. */
static int claim(struct ips *ips, struct ips_stream *s, struct nst_object **o, nst_time until)
{
    int rc = nst_state_claim(ips->streams, key_of(s), o, until);
    if (rc < 0)
        return rc;
    s->here = (*o)->local;
    return ips_understand(ips, s, (*o)->value, (*o)->there ? (int)(*o)->len : -ENOENT);
}

/* The first packet to this end that this instance sees of a flow that began before: where did another leave it? */
__attribute__((noinline)) /* what it needs is large, and only needed then */
static int
take_over(struct ips *ips, struct ips_stream *s, struct nst_object **o, nst_time until)
{
    struct ips_stream other;
    ips_stream_opposite(&other, s);
    int rc = nst_get(ips->store, other.key, other.record, sizeof other.record, NULL, until);
    rc = ips_understand(ips, &other, other.record, rc);
    if (rc == 0)
        rc = claim(ips, s, o, until);
    return rc < 0 ? rc : ips_take_over(ips, s, &other);
}

static void forget(struct ips *ips, const struct ips_stream *s, const struct nst_event *ev)
{
    if (!ips_over(ev->why))
        return;
    NST_HELD struct nst_object *o = nst_state_kept(ips->streams, key_of(s));
    if (o)
        memset(o->local, 0, sizeof(struct ips_place));
    ips_forgotten(ips, o ? nst_state_forget(o, ev->until) : nst_delete(ips->store, s->key, ev->until));
}

/* Puts the next record into the kept value. */
static void change(const struct ips_stream *s, struct nst_object *o)
{
    memcpy(o->value, s->next.p, s->next.len);
    o->len = (uint32_t)s->next.len;
}

/* This instance stands behind the packet when that has passed. */
static enum nst_verdict pass(struct ips_stream *s, enum nst_verdict verdict)
{
    if (s->next.len > 0 && (verdict == NST_FORWARD || verdict == NST_TAKEN))
        *s->here = s->then;
    return verdict;
}

enum nst_verdict ips_kept_handler(struct nst_flow *f, const struct nst_event *ev)
{
    struct ips *ips = nst_nf_arg(f);
    NST_HELD struct nst_object *o = NULL;
    struct ips_stream s;
    ips_stream_open(&s, f, ev);

    if (ev->what & NST_EV_CLOSE) {
        forget(ips, &s, ev);
        return NST_FORWARD;
    }

    bool unknown = ev->what & NST_EV_MIDSTREAM;
    int rc = unknown ? take_over(ips, &s, &o, ev->until) : claim(ips, &s, &o, ev->until);
    if (rc == 0)
        rc = ips_scan(ips, &s);
    if (rc < 0)
        return nst_fail(f, rc);
    if (s.verdict != NST_FORWARD && s.next.len == 0)
        return s.verdict;

    if (s.next.len > 0)
        change(&s, o);
    if (ips_blocked(&s))
        ips_alert(ips, &s); /* at once: the packet is stopped even if the store fails now */
    if (s.found.n > 0 || (s.next.len > 0 && !s.then.known)) {
        rc = nst_state_commit(o, ev->until);
        if (ips_blocked(&s))
            return s.verdict;
        if (rc < 0)
            return pass(&s, nst_fail(f, rc)); /* dropped, and its bytes are scanned again when they come again */
        ips_alert(ips, &s);
        return pass(&s, NST_FORWARD);
    }
    if (s.next.len > 0)
        nst_state_write(o);
    return pass(&s, nst_state_send(f, ev, &o, 1));
}
