/* SPDX-License-Identifier: Apache-2.0 */
/* Packets of a flow whose NF edits, where they enter and where they leave. */
#include "flow/edit.h"
#include "base/region.h"
#include "flow/way.h"
#include <rte_tcp.h>
#include <string.h>

enum {
    OPTION_END = 0,
    OPTION_NOP = 1,
    OPTION_MSS = 2,
    OPTION_SCALE = 3,
    OPTION_SACK_PERMITTED = 4,
    OPTION_SACK = 5,
    OPTION_TIME = 8,
    PASS_MOST = 512, /* segments kept back that leave at once */
    BURST_MOST = 64, /* segments that one packet may set free at once; the rest follows */
    OWED_MS = 1,
    RESEND_MS = 250,
    RESEND_TRIES = 8,
    TCP_HEADER = sizeof(struct rte_tcp_hdr),
    ETHER_HEADER = 14,
};

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

static void pay(struct nst_flow *f, enum nst_side side, unsigned most);

void edit_end(struct nst_flow *f)
{
    struct edit_flow *ed = edit_of(f);

    for (unsigned side = 0; side < 2; side++) {
        pay(f, (enum nst_side)side, UINT32_MAX);
        edit_clear(&ed->way[side].map, &f->engine->edit_pool);
    }
    nst_timer_disarm(&ed->timer);
    ed->birth = 0;
}

/* ---- TCP's header ---- */
static inline struct rte_tcp_hdr *header_of(const struct nst_packet *p)
{
    return rte_pktmbuf_mtod_offset(mbuf_of(p), struct rte_tcp_hdr *, p->h.l4);
}

/* The next option's kind and place, 0 at their end or where they make no sense. */
static uint8_t next_option(const uint8_t **at, const uint8_t *end, uint8_t *len)
{
    const uint8_t *o = *at;

    while (o < end && *o == OPTION_NOP)
        o++;
    if (end - o < 2 || *o == OPTION_END || o[1] < 2 || o[1] > end - o)
        return 0;
    *len = o[1];
    *at = o;
    return *o;
}

static uint32_t load32(const uint8_t *p)
{
    rte_be32_t v;
    memcpy(&v, p, sizeof v);
    return rte_be_to_cpu_32(v);
}

/* One field of 32 bits at an even place gets another value. */
static void mend32(struct nst_packet *p, uint8_t *at, uint32_t value)
{
    rte_be32_t v = rte_cpu_to_be_32(value);
    nst_packet_edit(p, (size_t)(at - rte_pktmbuf_mtod(mbuf_of(p), uint8_t *)), &v, sizeof v);
}

static void note_syn(struct edit_way *w, const struct nst_packet *p)
{
    const uint8_t *o = (const uint8_t *)(header_of(p) + 1),
                  *end = rte_pktmbuf_mtod_offset(mbuf_of(p), const uint8_t *, p->h.payload);
    uint8_t kind, len = 0;

    w->mss = 0;
    w->scale = 0;
    w->flags &= (uint8_t)~WAY_SACK;
    for (; (kind = next_option(&o, end, &len)) != 0; o += len) {
        if (kind == OPTION_MSS && len == 4)
            w->mss = (uint16_t)(o[2] << 8 | o[3]);
        else if (kind == OPTION_SCALE && len == 3)
            w->scale = o[2] < 14 ? o[2] : 14;
        else if (kind == OPTION_SACK_PERMITTED && len == 2)
            w->flags |= WAY_SACK;
    }
}

/* ---- where a packet enters ---- */
static uint32_t in_left(const struct edit_map *m, uint32_t seq)
{
    return edit_in_left(m, seq);
}

/* The blocks of a SACK option, each edge mapped so that it claims no more than is there; those of which nothing is left
 * become no option at all. */
static void map_blocks(struct nst_packet *p, uint8_t *option, uint8_t len, const struct edit_map *m,
                       uint32_t (*left)(const struct edit_map *, uint32_t),
                       uint32_t (*right)(const struct edit_map *, uint32_t))
{
    uint8_t out[40];
    uint8_t n = 2;

    for (unsigned i = 2; i + 8 <= len; i += 8) {
        uint32_t from = left(m, load32(option + i)), to = right(m, load32(option + i + 4));
        if (seq_diff(from, to) >= 0)
            continue;
        const rte_be32_t block[] = { rte_cpu_to_be_32(from), rte_cpu_to_be_32(to) };
        memcpy(out + n, block, sizeof block);
        n += sizeof block;
    }
    out[0] = n > 2 ? OPTION_SACK : OPTION_NOP;
    out[1] = n > 2 ? n : OPTION_NOP;
    memset(out + n, OPTION_NOP, (size_t)(len - n));
    nst_packet_edit(p, (size_t)(option - rte_pktmbuf_mtod(mbuf_of(p), uint8_t *)), out, len);
}

static void map_sack(struct nst_packet *p, const struct edit_map *m,
                     uint32_t (*left)(const struct edit_map *, uint32_t),
                     uint32_t (*right)(const struct edit_map *, uint32_t))
{
    const uint8_t *o = (const uint8_t *)(header_of(p) + 1),
                  *end = rte_pktmbuf_mtod_offset(mbuf_of(p), const uint8_t *, p->h.payload);
    uint8_t kind, len = 0;

    for (; (kind = next_option(&o, end, &len)) != 0; o += len) {
        if (kind == OPTION_SACK && len <= 34)
            map_blocks(p, (uint8_t *)(uintptr_t)o, len, m, left, right);
    }
}

static void map_ack(struct nst_packet *p, const struct edit_map *m, uint32_t (*ack)(const struct edit_map *, uint32_t),
                    uint32_t (*left)(const struct edit_map *, uint32_t))
{
    struct rte_tcp_hdr *h = header_of(p);
    uint32_t was = rte_be_to_cpu_32(h->recv_ack), is = ack(m, was);

    if (is != was)
        mend32(p, (uint8_t *)&h->recv_ack, is);
    if (p->h.payload - p->h.l4 > TCP_HEADER)
        map_sack(p, m, left, ack);
}

/* While a connection opens, its ends may try other numbers. */
static void begin_anew(struct nst_flow *f, struct edit_way *w, uint32_t isn)
{
    if (f->life != LIFE_OPENING)
        return;
    if ((w->flags & WAY_SYN) && w->isn != isn) {
        edit_clear(&w->map, &f->engine->edit_pool);
        w->owed_end = w->owed;
        w->flags &= (uint8_t) ~(WAY_NEXT | WAY_LEFT | WAY_ACKED);
    }
    w->isn = isn;
    w->flags |= WAY_SYN;
}

void edit_enter(struct nst_engine *e, struct nst_flow *f, struct nst_packet *p)
{
    struct edit_flow *ed = edit_of(f);
    struct edit_way *w = &ed->way[p->dir == 0 ? NST_CLIENT : NST_SERVER];
    const struct rte_tcp_hdr *h = header_of(p);

    p->flags |= PACKET_MAPPED;
    p->birth = ed->birth;
    if (h->tcp_flags & RTE_TCP_SYN_FLAG) {
        note_syn(w, p);
        begin_anew(f, &ed->way[p->dir == 0 ? NST_SERVER : NST_CLIENT], rte_be_to_cpu_32(h->sent_seq));
    }
    if ((h->tcp_flags & RTE_TCP_ACK_FLAG) == 0)
        return;
    uint32_t ack = rte_be_to_cpu_32(h->recv_ack), got = e->replay ? edit_out(&w->map, ack) : ack;
    /* An end that acknowledges what it cannot have is not believed. */
    if ((w->flags & WAY_ACKED) == 0 || seq_diff(got, w->acked) > 0) {
        if ((w->flags & WAY_LEFT) == 0 || seq_diff(got, w->left) <= 0) {
            w->acked = got;
            w->flags |= WAY_ACKED;
        }
    }
    if (!w->map.edited)
        return;
    if (!e->replay)
        map_ack(p, &w->map, edit_in, in_left);
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
    if (p->h.payload - p->h.l4 >= TCP_HEADER + 10) {
        const uint8_t *o = (const uint8_t *)(h + 1), *end = o + (p->h.payload - p->h.l4 - TCP_HEADER);
        uint8_t kind, len = 0;
        for (; (kind = next_option(&o, end, &len)) != 0; o += len) {
            if (kind == OPTION_TIME && len == 10) {
                uint32_t tsval = load32(o + 2);
                if ((w->flags & WAY_TIME) == 0 || seq_diff(tsval, w->tsval) > 0)
                    w->tsval = tsval;
                w->flags |= WAY_TIME;
            }
        }
    }
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

static void note_left(struct edit_way *w, uint32_t end)
{
    if ((w->flags & WAY_LEFT) == 0 || seq_diff(end, w->left) > 0)
        w->left = end;
    w->flags |= WAY_LEFT;
    if ((w->flags & WAY_ACKED) && seq_diff(w->left, w->acked) > EDIT_FAR)
        w->flags &= (uint8_t)~WAY_ACKED;
}

/* An acknowledgment in the receiver's name, to the sender of what goes to `side`: of what `side` has acknowledged, and,
 * if it is told, of what is kept back. */
static void answer(struct nst_flow *f, enum nst_side side, bool selective)
{
    struct nst_engine *e = f->engine;
    struct edit_flow *ed = edit_of(f);
    struct edit_way *w = &ed->way[side], *back = &ed->way[!side];
    unsigned blocks = 0, options = 0;
    struct edit_segments s;
    uint8_t head[EDIT_HEAD_MAX];

    if (e->replay || (w->flags & WAY_ACKED) == 0 || (back->flags & WAY_LEFT) == 0)
        return;
    if (selective && (w->flags & back->flags & WAY_SACK)) {
        while (blocks < EDIT_RUNS && w->run[blocks].from != w->run[blocks].end)
            blocks++;
        options = blocks != 0 ? 4 + 8 * blocks : 0;
    }
    uint8_t *o = segments_made(&s, f, !side, head, RTE_TCP_ACK_FLAG, back->left, options);
    if (o == NULL)
        return;
    if (options != 0) {
        o[0] = o[1] = OPTION_NOP;
        o[2] = OPTION_SACK;
        o[3] = (uint8_t)(options - 2);
        for (unsigned i = 0; i < blocks; i++) {
            const rte_be32_t block[] = { rte_cpu_to_be_32(w->run[i].from), rte_cpu_to_be_32(w->run[i].end) };
            memcpy(o + 4 + 8 * i, block, sizeof block);
        }
    }
    struct rte_tcp_hdr *h = (void *)(head + s.l4);
    h->recv_ack = rte_cpu_to_be_32(edit_in(&w->map, w->acked));
    segments_end(&s, false);
    e->stats.injected += s.n;
}

/* Kept behind a hole: its bytes are with nst_tcp, and leave when it fills. */
static void hold_back(struct nst_flow *f, enum nst_side side, struct nst_packet *p, uint32_t from, uint32_t end,
                      const struct tcp_place *place)
{
    struct edit_way *w = &edit_of(f)->way[side];
    const struct segment *x = stream_from(place->kept, from);

    packet_drop(f->engine, p, NST_BY_HELD_BACK);
    if (from == end || x == NULL || seq_diff(x->seq, from) > 0) {
        answer(f, side, false);
        return;
    }
    /* The run that it belongs to goes first; those that are not ahead any more go. */
    struct edit_run now = { from, end };
    unsigned n = 1;
    struct edit_run old[EDIT_RUNS];
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
        if (r->from != r->end && seq_diff(r->from, place->next) > 0 &&
            (seq_diff(r->end, now.from) < 0 || seq_diff(r->from, now.end) > 0))
            w->run[n++] = *r;
    }
    w->run[0] = now;
    answer(f, side, true);
}

static void fate(struct nst_engine *e, struct nst_packet *p, bool taken, unsigned sent)
{
    if (sent == 0) {
        packet_drop(e, p, NST_BY_NO_MEMORY);
        return;
    }
    uint64_t *count = taken ? &e->stats.sent_by_handler : &e->stats.forwarded;
    e->stats.injected += sent - 1;
    if (p->flags & PACKET_WHOLE) { /* its fragments have left by it */
        *count += fragments_free(&e->fragments, p);
        return;
    }
    ++*count;
    rte_pktmbuf_free(mbuf_of(p));
}

static void due(struct nst_timer *t);

static void arm(struct edit_flow *ed, nst_time at)
{
    if (ed->timer.where != 0 && ed->timer.until <= at)
        return;
    nst_timer_disarm(&ed->timer);
    nst_timer_arm(&ed->timer, at, due);
}

/* What is owed to a side leaves, at most so many segments. */
static void pay(struct nst_flow *f, enum nst_side side, unsigned most)
{
    struct edit_flow *ed = edit_of(f);
    struct edit_way *w = &ed->way[side];
    struct tcp_place place;
    struct edit_segments s;
    uint8_t head[EDIT_HEAD_MAX];

    if (w->owed == w->owed_end)
        return;
    if (!tcp_place(f, side, &place) ||
        segments_made(&s, f, side, head, RTE_TCP_ACK_FLAG | RTE_TCP_PSH_FLAG, edit_out(&w->map, w->owed), 0) == NULL) {
        w->owed = w->owed_end;
        return;
    }
    struct edit_source source = { .kept = place.kept };
    uint32_t to = segments_stream(&s, &w->map, &source, w->owed, w->owed_end, most);
    bool all = to == w->owed_end || (s.n < most && !s.failed); /* or acknowledged, and so no longer kept */
    bool fin = all && place.ended && to == place.next;
    if (s.m != NULL || fin)
        segments_end(&s, fin);
    note_left(w, s.next + fin);
    f->engine->stats.injected += s.n;
    w->owed = all ? w->owed_end : to;
    if (!all)
        arm(ed, nst_now() + NST_MS(OWED_MS));
}

static void owe(struct nst_flow *f, enum nst_side side, uint32_t from, uint32_t end)
{
    struct edit_flow *ed = edit_of(f);
    struct edit_way *w = &ed->way[side];

    if (w->owed == w->owed_end)
        w->owed = from;
    w->owed_end = end;
    arm(ed, nst_now() + NST_MS(OWED_MS));
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
    const struct rte_tcp_hdr *h = header_of(p);
    uint32_t from = part->from, end = part->end;
    struct edit_segments s;

    segments_like(&s, e, to, p, edit_out(&w->map, from), w->mss);
    if (h->tcp_flags & RTE_TCP_URG_FLAG) {
        s.urgent = true;
        s.urgent_at = edit_out(&w->map, rte_be_to_cpu_32(h->sent_seq) + rte_be_to_cpu_16(h->tcp_urp));
    }
    uint32_t got = segments_stream(&s, &w->map, source, from, end, BURST_MOST);
    bool rest = seq_diff(got, end) < 0 && s.n >= BURST_MOST, empty = s.n == 0 && s.m == NULL;
    bool fin = part->fin && got == end, told = (w->flags & WAY_ACKED) != 0;
    /* Old bytes, of which the receiver has acknowledged what stands for them: it is asked to do so once more. */
    if (empty && !fin && !part->fresh && told)
        s.next = w->acked - 1;
    segments_end(&s, fin);
    note_left(w, s.next + fin);
    fate(e, p, part->taken, s.n);
    if (rest)
        owe(f, side, got, end);
    if (empty && !fin && part->fresh && told && seq_diff(edit_in(&w->map, w->acked), end) >= 0) {
        edit_trim(&w->map, &e->edit_pool, w->acked);
        answer(f, side, false);
    }
}

/* Header and numbers only. */
static void leave_same(struct nst_flow *f, enum nst_side side, struct nst_packet *p, struct nst_port *to, bool taken)
{
    struct nst_engine *e = f->engine;
    struct edit_way *w = &edit_of(f)->way[side];
    struct rte_tcp_hdr *h = header_of(p);
    uint8_t flags = h->tcp_flags;
    bool syn = (flags & RTE_TCP_SYN_FLAG) != 0;
    uint32_t from = rte_be_to_cpu_32(h->sent_seq) + syn, out = edit_out(&w->map, from);

    /* A reset must have the very number that its receiver expects. */
    if ((flags & RTE_TCP_RST_FLAG) && (w->flags & WAY_ACKED) && edit_in(&w->map, w->acked) == from)
        out = w->acked;
    if (out != from)
        mend32(p, (uint8_t *)&h->sent_seq, out - syn);
    if (p->h.payload_len != 0 || (flags & (RTE_TCP_SYN_FLAG | RTE_TCP_FIN_FLAG)) || (w->flags & WAY_LEFT) == 0)
        note_left(w, out + p->h.payload_len + ((flags & RTE_TCP_FIN_FLAG) != 0));
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

    if (((f->engine->edits & 1 << side) == 0) | ((f->flags & 1 << side) != 0) | ((w->flags & WAY_BAD) != 0) ||
        !tcp_place(f, side, &place))
        return true;
    if (seq_diff(part->from, place.next) > 0) {
        hold_back(f, side, p, part->from, part->end, &place);
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
    }
    part->fin = place.ended && part->end == place.next;
    return true;
}

void edit_leave(struct nst_engine *e, struct nst_flow *f, struct nst_packet *p, struct nst_port *to, bool taken)
{
    struct edit_flow *ed = edit_of(f);
    enum nst_side side = p->dir == 0 ? NST_SERVER : NST_CLIENT;
    struct edit_way *w = &ed->way[side], *back = &ed->way[!side];
    const struct rte_tcp_hdr *h = header_of(p);
    uint8_t flags = h->tcp_flags;
    uint32_t from = rte_be_to_cpu_32(h->sent_seq) + ((flags & RTE_TCP_SYN_FLAG) != 0), end = from + p->h.payload_len;
    bool fin = (flags & RTE_TCP_FIN_FLAG) != 0;
    struct part part = { .from = from, .end = end, .fin = fin, .taken = taken };
    struct edit_source source = { .p = p, .from = from, .end = end };

    if (!taken)
        edit_commit(&w->map);
    if (e->replay && (flags & RTE_TCP_ACK_FLAG) && back->map.edited)
        map_ack(p, &back->map, edit_out, edit_out);
    note_head(w, p, h, to, back->scale);
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
    bool same = part.from == from && part.end == end && part.fin == fin && (flags & RTE_TCP_URG_FLAG) == 0;
    if (behind && same)
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
    const struct rte_tcp_hdr *h = header_of(p);
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
        segments_stream(&s, &w->map, &source, at, segment_end(x), PASS_MOST);
        if (s.m != NULL)
            segments_end(&s, false);
        note_left(w, s.next);
        n += s.n;
    }
    f->engine->stats.injected += n;
}

/* ---- in time ---- */
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
        for (uint32_t off = 0; off < x->len;) {
            size_t n = edit_piece(x, off, &at);
            segments_bytes(&s, at, n);
            off += (uint32_t)n;
        }
        segments_end(&s, false);
        note_left(w, s.next);
        f->engine->stats.injected += s.n;
    }
    return any;
}

void edit_send_loose(struct nst_flow *f, enum nst_side side)
{
    struct edit_flow *ed = edit_of(f);

    resend(f, side);
    if (f->engine->replay)
        return;
    ed->tries = 0;
    ed->resend_at = nst_now() + NST_MS(RESEND_MS);
    arm(ed, ed->resend_at);
}

static void due(struct nst_timer *t)
{
    struct edit_flow *ed = (struct edit_flow *)((uint8_t *)t - offsetof(struct edit_flow, timer));
    struct nst_flow *f = ed->flow;

    for (unsigned side = 0; side < 2; side++)
        pay(f, (enum nst_side)side, BURST_MOST);
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
