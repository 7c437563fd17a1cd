/* SPDX-License-Identifier: Apache-2.0 */
/* What leaves though no packet brought it: acknowledgments in a receiver's name, what was more than could leave at once,
 * bytes of the NF's own, and, when a half edits no more, what it had kept back. */
#include "flow/edit.h"
#include "flow/way.h"
#include <string.h>

enum {
    PASS_MOST = 512, /* segments kept back that leave at once */
    OWED_MS = 1,
    RESEND_MS = 250,
    RESEND_TRIES = 8,
};

static void due(struct nst_timer *t);

static void arm(struct edit_flow *ed, nst_time at)
{
    if (ed->timer.where != 0 && ed->timer.until <= at)
        return;
    nst_timer_disarm(&ed->timer);
    nst_timer_arm(&ed->timer, at, due);
}

/* ---- behind a hole ---- */
void made_answer(struct nst_flow *f, enum nst_side side, bool selective)
{
    struct nst_engine *e = f->engine;
    struct edit_flow *ed = edit_of(f);
    struct edit_way *w = &ed->way[side], *back = &ed->way[!side];
    unsigned blocks = 0;
    struct edit_segments s;
    uint8_t head[EDIT_HEAD_MAX];

    if (e->replay || (w->flags & WAY_ACKED) == 0 || (back->flags & WAY_LEFT) == 0)
        return;
    if (selective && (w->flags & back->flags & WAY_SACK)) {
        while (blocks < EDIT_RUNS && w->run[blocks].from != w->run[blocks].end)
            blocks++;
    }
    uint8_t *o = segments_made(&s, f, !side, head, RTE_TCP_ACK_FLAG, back->left, blocks != 0 ? 4 + 8 * blocks : 0);
    if (o == NULL)
        return;
    if (blocks != 0)
        option_put_sack(o, w, blocks);
    struct rte_tcp_hdr *h = (void *)(head + s.l4);
    h->recv_ack = rte_cpu_to_be_32(edit_in(&w->map, w->acked));
    tcp_told(f, side, h);
    segments_end(&s, false);
    e->stats.injected += s.n;
}

/* The run that [from, end) belongs to goes first; those that are not ahead of `next` any more go. */
static void note_run(struct edit_way *w, uint32_t from, uint32_t end, uint32_t next)
{
    struct edit_run now = { from, end }, old[EDIT_RUNS];
    unsigned n = 1;

    memcpy(old, w->run, sizeof old);
    for (unsigned i = 0; i < EDIT_RUNS; i++) {
        const struct edit_run *r = &old[i];
        if (r->from != r->end && seq_diff(now.from, r->end) <= 0 && seq_diff(r->from, now.end) <= 0) {
            now.from = seq_diff(r->from, now.from) < 0 ? r->from : now.from;
            now.end = seq_diff(r->end, now.end) > 0 ? r->end : now.end;
        }
    }
    memset(w->run, 0, sizeof w->run);
    for (unsigned i = 0; i < EDIT_RUNS && n < EDIT_RUNS; i++) {
        const struct edit_run *r = &old[i];
        if (r->from != r->end && seq_diff(r->from, next) > 0 &&
            (seq_diff(r->end, now.from) < 0 || seq_diff(r->from, now.end) > 0))
            w->run[n++] = *r;
    }
    w->run[0] = now;
}

void made_hold(struct nst_flow *f, enum nst_side side, struct nst_packet *p, uint32_t from, uint32_t end,
               const struct tcp_place *place)
{
    const struct segment *x = stream_from(place->kept, from);
    bool kept = from != end && x != NULL && seq_diff(x->seq, from) <= 0;

    packet_drop(f->engine, p, NST_BY_HELD_BACK);
    if (kept)
        note_run(&edit_of(f)->way[side], from, end, place->next);
    made_answer(f, side, kept);
}

/* ---- what is owed ---- */
void made_owe(struct nst_flow *f, enum nst_side side, uint32_t from, uint32_t end)
{
    struct edit_flow *ed = edit_of(f);
    struct edit_way *w = &ed->way[side];

    if (!w->owes)
        w->owed = from;
    if (!w->owes || seq_diff(end, w->owed_end) > 0)
        w->owed_end = end;
    w->owes = true;
    arm(ed, nst_now() + NST_MS(OWED_MS));
}

void made_pay(struct nst_flow *f, enum nst_side side, unsigned most)
{
    struct edit_flow *ed = edit_of(f);
    struct edit_way *w = &ed->way[side];
    struct tcp_place place;
    struct edit_segments s;
    uint8_t head[EDIT_HEAD_MAX];

    if (!w->owes)
        return;
    if ((w->flags & WAY_ACKED) && seq_diff(w->acked, w->owed) > 0)
        w->owed = w->acked;
    uint32_t from = edit_in(&w->map, w->owed), begin = edit_out(&w->map, from);
    uint32_t skip = seq_diff(w->owed, begin) > 0 ? w->owed - begin : 0;
    w->owes = tcp_place(f, side, &place) &&
              segments_made(&s, f, side, head, RTE_TCP_ACK_FLAG | RTE_TCP_PSH_FLAG, begin + skip, 0) != NULL;
    if (!w->owes)
        return;
    s.most = most;
    s.bounded = (w->flags & WAY_EDGE) != 0;
    s.edge = w->edge;
    struct edit_source source = { .kept = place.kept };
    uint32_t got = segments_stream(&s, &w->map, &source, from, skip, w->owed_end);
    bool fin = place.ended && got == w->owed_end && got == place.next;
    if (s.m != NULL || fin)
        segments_end(&s, fin);
    f->engine->stats.injected += s.n;
    if (s.n != 0)
        way_left(w, s.next + fin);
    /* What is not kept any more was acknowledged meanwhile. */
    w->owes = seq_diff(got, w->owed_end) < 0 && (segments_full(&s) || s.failed);
    w->owed = s.next;
    if (w->owes && (s.failed || s.n >= most))
        arm(ed, nst_now() + NST_MS(OWED_MS));
}

void made_heard(struct nst_flow *f, enum nst_side side)
{
    if (edit_of(f)->way[side].owes)
        arm(edit_of(f), nst_now());
}

/* ---- out of the way ---- */
void edit_pass(struct nst_flow *f, enum nst_side side, uint32_t from)
{
    struct edit_way *w = &edit_of(f)->way[side];
    struct edit_segments s;
    struct tcp_place place;
    uint8_t head[EDIT_HEAD_MAX];
    unsigned n = 0;

    if ((f->engine->edits & 1 << side) == 0 || !tcp_place(f, side, &place))
        return;
    if ((w->flags & WAY_NEXT) && seq_diff(from, w->next) < 0)
        from = w->next;
    struct edit_source source = { .kept = place.kept };
    for (const struct segment *x = stream_from(place.kept, from); x != NULL && n < PASS_MOST; x = segment_next(x)) {
        uint32_t at = seq_diff(x->seq, from) > 0 ? x->seq : from;
        if (segments_made(&s, f, side, head, RTE_TCP_ACK_FLAG, edit_out(&w->map, at), 0) == NULL)
            return;
        segments_stream(&s, &w->map, &source, at, 0, segment_end(x));
        if (s.m != NULL)
            segments_end(&s, false);
        way_left(w, s.next);
        n += s.n;
    }
    f->engine->stats.injected += n;
}

/* ---- bytes of the NF's own ---- */
/* Loose edits, which no retransmission of the sender's brings again. False: there are none. */
static bool resend(struct nst_flow *f, enum nst_side side)
{
    struct edit_way *w = &edit_of(f)->way[side];
    uint32_t shift = w->map.shift;
    struct edit_segments s;
    uint8_t head[EDIT_HEAD_MAX];
    const uint8_t *at;
    bool any = false;

    for (const struct edit *x = w->map.first; x != NULL; shift += x->len - x->removed, x = x->next) {
        if (!x->loose)
            continue;
        any = true;
        if (segments_made(&s, f, side, head, RTE_TCP_ACK_FLAG | RTE_TCP_PSH_FLAG, x->seq + shift, 0) == NULL)
            break;
        for (uint32_t off = 0; off < x->len && !s.failed;) {
            size_t n = edit_piece(x, off, &at);
            segments_bytes(&s, at, n);
            off += (uint32_t)n;
        }
        segments_end(&s, false);
        way_left(w, s.next);
        f->engine->stats.injected += s.n;
    }
    return any;
}

void made_loose(struct nst_flow *f, enum nst_side side)
{
    struct edit_flow *ed = edit_of(f);

    resend(f, side);
    if (f->engine->replay)
        return;
    ed->tries = 0;
    ed->resend_at = nst_now() + NST_MS(RESEND_MS);
    arm(ed, ed->resend_at);
}

/* ---- in time ---- */
static void due(struct nst_timer *t)
{
    struct edit_flow *ed = (struct edit_flow *)((uint8_t *)t - offsetof(struct edit_flow, timer));
    struct nst_flow *f = ed->flow;

    for (unsigned side = 0; side < 2; side++)
        made_pay(f, (enum nst_side)side, EDIT_BURST);
    if (ed->resend_at != 0 && ed->resend_at <= nst_now()) {
        bool any = false;
        for (unsigned side = 0; side < 2; side++)
            any = resend(f, (enum nst_side)side) || any;
        ed->resend_at = any && ++ed->tries < RESEND_TRIES ? nst_now() + (NST_MS(RESEND_MS) << ed->tries) : 0;
    }
    if (ed->resend_at != 0)
        arm(ed, ed->resend_at);
    for (unsigned side = 0; side < 2; side++) {
        if (ed->way[side].flags & WAY_HEAD)
            port_flush(f->engine->ports[ed->way[side].port]);
    }
}
