/* SPDX-License-Identifier: Apache-2.0 */
/* Packets of a flow whose NF edits, where they enter and where they leave. */
#include "flow/edit.h"
#include "base/region.h"
#include "flow/way.h"
#include <rte_tcp.h>
#include <string.h>

enum { ETHER_HEADER = 14 };

/* ---- the engine's, and a flow's beginning and end ---- */
int edit_open(struct nst_engine *e, uint32_t flows, size_t memory, uint32_t per_stream)
{
    if (e->edits == 0)
        return 0;
    e->edit_flows = region_open(flows * sizeof *e->edit_flows);
    if (e->edit_flows == NULL)
        return -ENOMEM;
    return edit_pool_open(&e->edit_pool, memory != 0 ? memory : (size_t)64 << 20,
                          per_stream != 0 ? per_stream : 1 << 20);
}

void edit_close(struct nst_engine *e)
{
    if (e->edit_flows == NULL)
        return;
    region_close(e->edit_flows, e->flows.limit * sizeof *e->edit_flows);
    edit_pool_close(&e->edit_pool);
}

void edit_begin(struct nst_flow *f)
{
    struct edit_flow *ed = edit_of(f);

    memset(ed, 0, sizeof *ed);
    if (++f->engine->edit_births == 0)
        f->engine->edit_births = 1;
    ed->birth = f->engine->edit_births;
    ed->flow = f;
    f->flags |= FLOW_EDITED;
}

void edit_end(struct nst_flow *f)
{
    struct edit_flow *ed = edit_of(f);

    for (unsigned side = 0; side < 2; side++) {
        made_pay(f, (enum nst_side)side, UINT32_MAX);
        edit_clear(&ed->way[side].map, &f->engine->edit_pool);
    }
    nst_timer_disarm(&ed->timer);
    ed->birth = 0;
}

/* ---- where a packet enters ---- */
/* One field of 32 bits at an even place gets another value. */
static void mend32(struct nst_packet *p, uint8_t *at, uint32_t value)
{
    rte_be32_t v = rte_cpu_to_be_32(value);
    nst_packet_edit(p, (size_t)(at - rte_pktmbuf_mtod(mbuf_of(p), uint8_t *)), &v, sizeof v);
}

static void map_ack(struct nst_packet *p, const struct edit_map *m, bool inwards)
{
    struct rte_tcp_hdr *h = edit_header(p);
    uint32_t was = rte_be_to_cpu_32(h->recv_ack), is = inwards ? edit_in(m, was) : edit_out(m, was);

    if (is != was)
        mend32(p, (uint8_t *)&h->recv_ack, is);
    if (p->h.payload > p->h.l4 + sizeof *h)
        option_map_sack(p, m, inwards);
}

/* While a connection opens, its ends may try other numbers. */
static void begin_anew(struct nst_flow *f, struct edit_way *w, uint32_t isn)
{
    if (f->life != LIFE_OPENING)
        return;
    if ((w->flags & WAY_SYN) && w->isn != isn) {
        edit_clear(&w->map, &f->engine->edit_pool);
        w->owes = false;
        w->flags &= (uint16_t) ~(WAY_NEXT | WAY_LEFT | WAY_ACKED | WAY_EDGE);
    }
    w->isn = isn;
    w->flags |= WAY_SYN;
}

/* How windows of this side are scaled: as both have agreed to. */
static uint8_t scale_of(const struct edit_flow *ed, enum nst_side side)
{
    return ed->way[0].flags & ed->way[1].flags & WAY_SCALE ? ed->way[side].scale : 0;
}

/* What the receiver of a stream says of it, in its own numbers. */
static void heard(struct nst_flow *f, enum nst_side side, const struct rte_tcp_hdr *h, uint32_t ack)
{
    struct edit_flow *ed = edit_of(f);
    struct edit_way *w = &ed->way[side];

    /* An end that acknowledges what it cannot have is not believed. */
    if ((w->flags & WAY_LEFT) && seq_diff(ack, w->left) > 0)
        return;
    if ((w->flags & WAY_ACKED) == 0 || seq_diff(ack, w->acked) > 0)
        w->acked = ack;
    w->flags |= WAY_ACKED;
    /* A capture may lack acknowledgments, and has nobody who could be sent too much. */
    if (f->engine->replay || (ed->way[0].flags & ed->way[1].flags & WAY_OFFERED) == 0)
        return;
    uint8_t scale = h->tcp_flags & RTE_TCP_SYN_FLAG ? 0 : scale_of(ed, side);
    uint32_t edge = ack + ((uint32_t)rte_be_to_cpu_16(h->rx_win) << scale);
    if ((w->flags & WAY_EDGE) == 0 || seq_diff(edge, w->edge) > 0)
        w->edge = edge;
    w->flags |= WAY_EDGE;
    made_heard(f, side);
}

void edit_enter(struct nst_engine *e, struct nst_flow *f, struct nst_packet *p)
{
    struct edit_flow *ed = edit_of(f);
    enum nst_side side = p->dir == 0 ? NST_CLIENT : NST_SERVER;
    struct edit_way *w = &ed->way[side];
    const struct rte_tcp_hdr *h = edit_header(p);

    p->flags |= PACKET_MAPPED;
    p->birth = ed->birth;
    if (h->tcp_flags & RTE_TCP_SYN_FLAG) {
        option_syn(w, p);
        begin_anew(f, &ed->way[!side], rte_be_to_cpu_32(h->sent_seq));
    }
    if ((h->tcp_flags & RTE_TCP_ACK_FLAG) == 0)
        return;
    uint32_t ack = rte_be_to_cpu_32(h->recv_ack);
    heard(f, side, h, e->replay ? edit_out(&w->map, ack) : ack);
    if (!w->map.edited)
        return;
    if (!e->replay)
        map_ack(p, &w->map, true);
    if (w->flags & WAY_ACKED)
        edit_trim(&w->map, &e->edit_pool, w->acked);
}

/* ---- where it leaves ---- */
static void note_head(struct edit_way *w, const struct nst_packet *p, const struct rte_tcp_hdr *h,
                      const struct nst_port *to, uint8_t scale)
{
    uint16_t ip = p->h.family == 4 ? 20 : 40;

    w->ack = rte_be_to_cpu_32(h->recv_ack);
    w->window = rte_be_to_cpu_16(h->rx_win);
    if (h->tcp_flags & RTE_TCP_SYN_FLAG) /* there it is not scaled */
        w->window = (uint16_t)(w->window >> scale);
    if (p->h.payload > p->h.l4 + sizeof *h)
        option_stamp(w, p);
    if ((w->flags & WAY_HEAD) && (h->tcp_flags & RTE_TCP_SYN_FLAG) == 0)
        return;
    if ((h->tcp_flags & RTE_TCP_ACK_FLAG) == 0)
        return;
    if (p->h.l3 != ETHER_HEADER + 4u * p->h.vlan_tags || p->h.l3 + ip > EDIT_HEAD) {
        w->flags |= WAY_BAD;
        return;
    }
    const uint8_t *frame = rte_pktmbuf_mtod(mbuf_of(p), const uint8_t *);
    memcpy(w->head, frame, p->h.l3 + ip);
    memcpy(&w->ports, h, sizeof w->ports);
    uint8_t *d = w->head + p->h.l3;
    if (p->h.family == 4) {
        d[0] = 0x45;
        d[1] &= 0xfc; /* no congestion mark */
        d[6] = 0x40;  /* do not fragment */
        d[7] = 0;
    } else {
        d[1] &= 0xcf;
        d[6] = IPPROTO_TCP;
    }
    w->l3 = (uint8_t)p->h.l3;
    w->head_len = (uint8_t)(p->h.l3 + ip);
    w->port = (uint8_t)to->index;
    w->flags |= WAY_HEAD;
}

static void fate(struct nst_engine *e, struct nst_packet *p, bool taken, unsigned sent)
{
    if (sent == 0) {
        packet_drop(e, p, NST_BY_NO_MEMORY);
        return;
    }
    uint32_t came = 1;
    if (p->flags & PACKET_WHOLE) /* its fragments have left by it */
        came = fragments_free(&e->fragments, p);
    else
        rte_pktmbuf_free(mbuf_of(p));
    sent_as(e, taken ? &e->stats.sent_by_handler : &e->stats.forwarded, came, sent);
}

/* What is to be built: the sender's [from, end), perhaps with a FIN. */
struct part {
    uint32_t from, end;
    bool fin, taken;
    bool fresh; /* it delivers bytes: what is removed of them, nobody will ask for again */
};

static void leave_anew(struct nst_flow *f, enum nst_side side, struct nst_packet *p, struct nst_port *to,
                       const struct part *part, struct edit_source *source)
{
    struct nst_engine *e = f->engine;
    struct edit_way *w = &edit_of(f)->way[side];
    const struct rte_tcp_hdr *h = edit_header(p);
    uint32_t from = part->from, end = part->end, out = edit_out(&w->map, from), skip = 0;
    bool told = (w->flags & WAY_ACKED) != 0;
    struct edit_segments s;

    /* Of an edit that comes again, what the receiver has got is not said again. */
    if (!part->fresh && told && seq_diff(w->acked, out) > 0 && edit_in(&w->map, w->acked) == from)
        skip = w->acked - out;
    segments_like(&s, e, to, p, out + skip, w->mss);
    if (h->tcp_flags & RTE_TCP_URG_FLAG) {
        s.urgent = true;
        s.urgent_at = edit_out(&w->map, rte_be_to_cpu_32(h->sent_seq) + rte_be_to_cpu_16(h->tcp_urp));
    }
    /* What comes again also asks whether there is room by now. */
    s.most = EDIT_BURST;
    s.bounded = part->fresh && (w->flags & WAY_EDGE);
    s.edge = w->edge;
    uint32_t got = segments_stream(&s, &w->map, source, from, skip, end), reached = s.next;
    bool empty = s.n == 0 && s.m == NULL, rest = seq_diff(got, end) < 0 && segments_full(&s);
    bool fin = part->fin && got == end;
    if (empty && !fin && told) {
        if (rest)
            s.next = w->left;
        else if (!part->fresh) /* the receiver is asked to acknowledge once more what it has */
            s.next = w->acked - 1;
    }
    segments_end(&s, fin);
    way_left(w, s.next + fin);
    fate(e, p, part->taken, s.n);
    if (rest) {
        made_owe(f, side, reached, end);
    } else if (empty && !fin && part->fresh && told && seq_diff(edit_in(&w->map, w->acked), end) >= 0) {
        edit_trim(&w->map, &e->edit_pool, w->acked);
        made_answer(f, side, false);
    }
}

/* Whether the half still decides what leaves for this side, and where the stream is. */
static bool is_edited(struct nst_flow *f, enum nst_side side, struct tcp_place *place)
{
    const struct edit_way *w = &edit_of(f)->way[side];

    return (f->engine->edits & 1 << side) != 0 && (f->flags & 1 << side) == 0 && (w->flags & WAY_BAD) == 0 &&
           tcp_place(f, side, place);
}

/* The receiver's number for a packet that begins at `from`. */
static uint32_t number_of(struct nst_flow *f, enum nst_side side, const struct nst_packet *p, uint32_t from)
{
    struct edit_way *w = &edit_of(f)->way[side];
    const struct rte_tcp_hdr *h = edit_header(p);
    struct tcp_place place;

    if (h->tcp_flags & RTE_TCP_RST_FLAG) {
        /* It must have the very number that its receiver expects, or none that this takes. */
        if ((w->flags & WAY_ACKED) && edit_in(&w->map, w->acked) == from)
            return w->acked;
    } else if (p->h.payload_len == 0 && (h->tcp_flags & (RTE_TCP_SYN_FLAG | RTE_TCP_FIN_FLAG)) == 0) {
        /* Old: it may ask for an answer, as a keep-alive does. */
        if (w->map.edited && seq_diff(from, w->map.known) < 0)
            return edit_out(&w->map, w->map.known) - 1;
        /* It has overtaken bytes of which nobody knows yet how many they become. */
        if (is_edited(f, side, &place) && seq_diff(from, place.next) > 0)
            from = place.next + place.ended;
    }
    return edit_out(&w->map, from);
}

/* Header and numbers only. */
static void leave_same(struct nst_flow *f, enum nst_side side, struct nst_packet *p, struct nst_port *to, bool taken)
{
    struct nst_engine *e = f->engine;
    struct edit_way *w = &edit_of(f)->way[side];
    struct rte_tcp_hdr *h = edit_header(p);
    uint8_t flags = h->tcp_flags;
    bool syn = (flags & RTE_TCP_SYN_FLAG) != 0;
    uint32_t from = rte_be_to_cpu_32(h->sent_seq) + syn, out = number_of(f, side, p, from);

    if (out != from)
        mend32(p, (uint8_t *)&h->sent_seq, out - syn);
    if (p->h.payload_len != 0 || (flags & (RTE_TCP_SYN_FLAG | RTE_TCP_FIN_FLAG)) || (w->flags & WAY_LEFT) == 0)
        way_left(w, out + p->h.payload_len + ((flags & RTE_TCP_FIN_FLAG) != 0));
    uint64_t *count = taken ? &e->stats.sent_by_handler : &e->stats.forwarded;
    if (p->flags & PACKET_WHOLE) {
        whole_send(e, p, to, count);
        return;
    }
    ++*count;
    port_tx(to, mbuf_of(p));
}

/* Which part of the stream leaves with this packet. False: none, it was kept back. */
static bool choose(struct nst_flow *f, enum nst_side side, struct nst_packet *p, struct part *part,
                   struct edit_source *source)
{
    struct edit_way *w = &edit_of(f)->way[side];
    struct tcp_place place;

    if (!is_edited(f, side, &place))
        return true;
    if (seq_diff(part->from, place.next) > 0) {
        made_hold(f, side, p, part->from, part->end, &place);
        return false;
    }
    source->kept = place.kept;
    if ((w->flags & WAY_NEXT) == 0)
        w->next = part->from;
    if (part->taken) {
        part->end = seq_diff(p->reach, place.next) > 0 ? place.next : p->reach;
    } else {
        /* The packet that fills a hole takes with it what was kept back behind that. */
        part->fresh = seq_diff(place.next, w->next) > 0;
        source->kept_first = part->from != w->next || part->end != place.next;
        if (part->fresh || seq_diff(part->end, place.next) > 0)
            part->end = place.next;
        w->next = place.next;
        w->flags |= WAY_NEXT;
        if (place.kept->last == NULL || seq_diff(place.kept->end, place.next) <= 0)
            memset(w->run, 0, sizeof w->run);
    }
    part->fin = place.ended && part->end == place.next;
    return true;
}

void edit_leave(struct nst_engine *e, struct nst_flow *f, struct nst_packet *p, struct nst_port *to, bool taken)
{
    struct edit_flow *ed = edit_of(f);
    enum nst_side side = p->dir == 0 ? NST_SERVER : NST_CLIENT;
    struct edit_way *w = &ed->way[side], *back = &ed->way[!side];
    const struct rte_tcp_hdr *h = edit_header(p);
    uint8_t flags = h->tcp_flags;
    uint32_t from = rte_be_to_cpu_32(h->sent_seq) + ((flags & RTE_TCP_SYN_FLAG) != 0), end = from + p->h.payload_len;
    bool fin = (flags & RTE_TCP_FIN_FLAG) != 0;
    struct part part = { .from = from, .end = end, .fin = fin, .taken = taken };
    struct edit_source source = { .p = p, .from = from, .end = end };

    if (!taken)
        edit_commit(&w->map);
    if (e->replay && (flags & RTE_TCP_ACK_FLAG) && back->map.edited)
        map_ack(p, &back->map, false);
    note_head(w, p, h, to, scale_of(ed, !side));
    if (from == end && !fin) {
        leave_same(f, side, p, to, taken);
        return;
    }
    if (!choose(f, side, p, &part, &source))
        return;
    if (w->map.edited) {
        /* Of what is old its edits may be forgotten, and its receiver has got it. */
        if (w->flags & WAY_LEFT)
            edit_trim(&w->map, &e->edit_pool, w->left - EDIT_FAR);
        if (seq_diff(w->map.known, part.from) > 0)
            part.from = seq_diff(w->map.known, part.end) < 0 ? w->map.known : part.end;
    }
    bool behind = w->map.last == NULL || seq_diff(part.from, w->map.last->seq + w->map.last->removed) >= 0;
    bool same = part.from == from && part.end == end && part.fin == fin && !(part.fresh && w->owes);
    if (same && behind && (!w->map.edited || (flags & RTE_TCP_URG_FLAG) == 0))
        leave_same(f, side, p, to, taken);
    else
        leave_anew(f, side, p, to, &part, &source);
}

/* ---- verdicts ---- */
void edit_verdict(struct nst_flow *f, enum nst_side side, struct nst_packet *p, enum nst_verdict v)
{
    struct edit_way *w = &edit_of(f)->way[side];
    struct tcp_place place;

    if ((p->dir == 0 ? NST_SERVER : NST_CLIENT) != side)
        return;
    if (v == NST_DROP || v == NST_DROP_FLOW || v == NST_RESET_FLOW) {
        edit_take_back(&w->map, &f->engine->edit_pool);
        return;
    }
    edit_commit(&w->map);
    const struct rte_tcp_hdr *h = edit_header(p);
    p->reach = rte_be_to_cpu_32(h->sent_seq) + ((h->tcp_flags & RTE_TCP_SYN_FLAG) != 0) + p->h.payload_len;
    if (v == NST_TAKEN && tcp_place(f, side, &place)) {
        if ((w->flags & WAY_NEXT) == 0 || seq_diff(place.next, w->next) > 0)
            p->reach = place.next;
        w->next = place.next;
        w->flags |= WAY_NEXT;
    }
    if (v == NST_FORWARD_FLOW)
        edit_pass(f, side, p->reach);
}
