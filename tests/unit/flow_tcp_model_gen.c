/* SPDX-License-Identifier: Apache-2.0 */
/* The generator: settings, and sequences of segments as somebody would send them who wants an engine to see another
 * stream than its receiver. Most sequences start as an honest connection, and each has its own mixture of tricks, so
 * that some go deep and some go wild. It knows nothing of what an engine makes of them.
 */
#include "flow_tcp_model.h"

enum trick {                 /* each sequence has a weight for each */
             TRICK_NEXT,     /* the next bytes */
             TRICK_ACK,      /* the other end's answer */
             TRICK_ANYWHERE, /* bytes from anywhere in the stream */
             TRICK_OVERLAP,  /* bytes around those sent last */
             TRICK_REPEAT,   /* a segment again */
             TRICK_FIN,
             TRICK_RESET,
             TRICK_SYN,
             TRICK_KEEP_ALIVE,
             TRICK_FLAGS, /* any flags at all */
             TRICK_FAR,   /* numbers from far away */
             TRICK_LOST,  /* an acknowledgment of what was not sent */
             TRICKS,
};

static const uint8_t usual[TRICKS] = {
    [TRICK_NEXT] = 60,      [TRICK_ACK] = 25,  [TRICK_ANYWHERE] = 20, [TRICK_OVERLAP] = 30,
    [TRICK_REPEAT] = 12,    [TRICK_FIN] = 8,   [TRICK_RESET] = 3,     [TRICK_SYN] = 4,
    [TRICK_KEEP_ALIVE] = 4, [TRICK_FLAGS] = 3, [TRICK_FAR] = 3,       [TRICK_LOST] = 3,
};

struct sender {
    uint32_t isn;      /* byte 0 has number isn + 1 */
    unsigned next;     /* bytes sent so far, at the front */
    unsigned acked;    /* of these, acknowledged by the other end */
    unsigned from, to; /* the last piece that was sent */
    unsigned end;      /* where the FIN honestly is */
    bool finished;
    uint32_t stamp;
    uint8_t scale;
    uint8_t byte[MODEL_SPAN + 64]; /* what the stream honestly is */
};

struct drawing {
    uint64_t rnd;
    const struct model_setting *set;
    struct model_sequence *q;
    struct sender end[2];
    unsigned weight[TRICKS], weights;
    unsigned span, longest;
    unsigned other_bytes; /* one segment in so many brings other bytes; 0: none */
    unsigned refusals;    /* one in so many is not forwarded; 0: none */
    unsigned stale;       /* one in so many has an old time stamp */
    bool stamps;
    unsigned window; /* how large the windows are at most */
};

uint64_t model_mix(uint64_t n)
{
    n += 0x9e3779b97f4a7c15u;
    n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9u;
    n = (n ^ n >> 27) * 0x94d049bb133111ebu;
    n ^= n >> 31;
    return n != 0 ? n : 1;
}

static uint32_t rnd(struct drawing *d, uint32_t below)
{
    return lab_random(&d->rnd, below);
}

static bool one_in(struct drawing *d, unsigned n)
{
    return n != 0 && rnd(d, n) == 0;
}

/* ---- settings ---- */
static uint8_t draw_policy(struct drawing *d, uint8_t usually)
{
    static const uint8_t any[] = { NST_FORWARD, NST_DROP, NST_FORWARD_FLOW, NST_DROP_FLOW, NST_RESET_FLOW };
    return one_in(d, 3) ? any[rnd(d, sizeof any)] : usually;
}

void model_draw_setting(struct model_setting *s, uint64_t seed)
{
    static const nst_events some[] = { NST_EV_OPEN,     NST_EV_DATA,      NST_EV_GAP,   NST_EV_RETRANSMIT,
                                       NST_EV_CONFLICT, NST_EV_MIDSTREAM, NST_EV_CLOSE, NST_EV_URGENT,
                                       NST_EV_PACKET,   NST_EV_START,     NST_EV_FIN,   NST_EV_RESET,
                                       NST_EV_STATE,    NST_EV_ERROR };
    struct drawing d = { .rnd = model_mix(seed ^ 0x5e77) };

    memset(s, 0, sizeof *s);
    unsigned followed = rnd(&d, 4);
    s->replay = one_in(&d, 4);
    for (unsigned side = 0; side < 2; side++) {
        s->inspect[side] = followed > 1 || followed == side;
        if (!s->inspect[side])
            continue;
        s->on_received[side] = one_in(&d, 8) ? 0 : NST_EV_DATA;
        for (unsigned i = 0; i < sizeof some / sizeof *some; i++) {
            unsigned rare = some[i] == NST_EV_PACKET ? 6 : 2;
            if (one_in(&d, rare))
                s->on_received[side] |= some[i];
        }
        for (unsigned i = 0; i < sizeof some / sizeof *some; i++) {
            bool sent = some[i] & (NST_EV_PACKET | NST_EV_START | NST_EV_FIN | NST_EV_RESET | NST_EV_STATE);
            if (sent && one_in(&d, 6))
                s->on_sent[side] |= some[i];
        }
    }
    s->on_midstream = draw_policy(&d, one_in(&d, 2) ? NST_DROP : NST_FORWARD);
    s->on_conflict = draw_policy(&d, NST_DROP);
    s->on_no_memory = draw_policy(&d, NST_DROP);
    s->on_window = draw_policy(&d, NST_DROP);
    s->on_stale = draw_policy(&d, NST_DROP);
    s->on_bad_ack = draw_policy(&d, NST_DROP);
    s->normalise = one_in(&d, 4);
    s->urgent = one_in(&d, 3) ? NST_URGENT_OUT : NST_URGENT_INLINE;
    for (unsigned i = 0; i < MODEL_NETWORKS; i++)
        s->overlap[i] = (enum nst_overlap)(i % NST_OVERLAPS);
    s->per_end = one_in(&d, 4) ? 1 + rnd(&d, 400) : 0;
}

/* ---- segments ---- */
static struct model_segment *add(struct drawing *d, unsigned dir, uint8_t flags, uint32_t seq)
{
    struct model_sequence *q = d->q;
    struct sender *e = &d->end[dir], *o = &d->end[!dir];

    if (q->n == MODEL_SEGMENTS)
        return &q->seg[q->n - 1];
    struct model_segment *s = &q->seg[q->n++];
    *s = (struct model_segment){
        .dir = (uint8_t)dir, .flags = flags, .seq = seq, .ack = 0, .window = 0xffff, .scale = 0xff, .pieces = 1
    };
    if (d->window != 0)
        s->window = (uint16_t)rnd(d, d->window);
    s->data = (uint16_t)q->n_data;
    if (flags & ACK) {
        s->ack = o->isn + 1 + o->next + o->finished;
        o->acked = o->next;
    }
    if (flags & SYN)
        s->scale = one_in(d, 6) ? (uint8_t)rnd(d, 4) : one_in(d, 6) ? 0xff : e->scale;
    if (d->stamps) {
        s->stamped = true;
        s->stamp = one_in(d, d->stale) ? e->stamp - rnd(d, 100000) : (e->stamp += rnd(d, 3));
        s->echo = flags & ACK ? o->stamp : 0;
    }
    if (one_in(d, 60))
        s->window = one_in(d, 2) ? 0 : (uint16_t)rnd(d, 65536);
    if ((flags & ACK) && one_in(d, 20))
        s->selective = (uint8_t)(1 + rnd(d, 2));
    if (one_in(d, 4) && !d->set->normalise) /* only what lies in one piece can be cut */
        s->pieces = (uint8_t)(1 + rnd(d, 4));
    if (one_in(d, 400))
        s->other_side = true;
    for (unsigned i = 0; i < 2; i++) {
        static const uint8_t refusal[] = { NST_DROP,      NST_DROP,       NST_DROP,      NST_DROP, NST_FORWARD_FLOW,
                                           NST_DROP_FLOW, NST_RESET_FLOW, NST_UNDECIDED, NST_TAKEN };
        /* Most of these end a flow, so they are rarer still. */
        s->verdict[i] = !one_in(d, d->refusals) ? NST_FORWARD : refusal[rnd(d, one_in(d, 4) ? sizeof refusal : 1)];
    }
    s->begin = (uint8_t)rnd(d, 3);
    s->begin_seq = seq - (one_in(d, 2) ? 0 : rnd(d, 30));
    s->begin_offset = one_in(d, 2) ? 0 : rnd(d, 5) == 0 ? (uint64_t)rnd(d, UINT32_MAX) << 8 : rnd(d, 5000);
    return s;
}

/* Gives a segment the bytes [from, from + len) of its sender's stream. */
static void give(struct drawing *d, struct model_segment *s, unsigned from, unsigned len)
{
    struct model_sequence *q = d->q;
    struct sender *e = &d->end[s->dir];

    if (s != &q->seg[q->n - 1] || s->len != 0)
        return;
    if (from >= MODEL_SPAN)
        from = MODEL_SPAN - 1;
    if (from + len > MODEL_SPAN)
        len = MODEL_SPAN - from;
    if (q->n_data + len > MODEL_DATA)
        len = MODEL_DATA - q->n_data;
    s->len = (uint16_t)len;
    memcpy(q->data + q->n_data, e->byte + from, len);
    if (len > 0 && one_in(d, d->other_bytes)) {
        for (unsigned k = 1 + rnd(d, 3); k > 0; k--)
            q->data[q->n_data + rnd(d, len)] ^= (uint8_t)(1 + rnd(d, 255));
    }
    q->n_data += len;
    e->from = from;
    e->to = from + len;
    if (from <= e->next && from + len > e->next)
        e->next = from + len;
}

static unsigned some_len(struct drawing *d)
{
    return one_in(d, 5) ? rnd(d, d->longest) + 1 : one_in(d, 5) ? 1 : rnd(d, 1 + d->longest / 3) + 1;
}

static void data(struct drawing *d, unsigned dir, unsigned from, unsigned len, uint8_t flags)
{
    if (from >= d->span)
        from = rnd(d, d->span);
    give(d, add(d, dir, flags, d->end[dir].isn + 1 + from), from, len);
}

static void opening(struct drawing *d)
{
    struct sender *c = &d->end[0], *s = &d->end[1];
    struct model_segment *x;

    switch (rnd(d, 14)) {
    case 0: /* none: midstream */
        c->next = rnd(d, d->span);
        s->next = rnd(d, d->span);
        return;
    case 1: /* only the SYN was seen */
        add(d, 0, SYN, c->isn);
        return;
    case 2: /* only the answer */
        add(d, 1, SYN | ACK, s->isn);
        return;
    case 3: /* both at once */
        add(d, 0, SYN, c->isn);
        add(d, 1, SYN, s->isn);
        add(d, 0, SYN | ACK, c->isn);
        add(d, 1, SYN | ACK, s->isn);
        return;
    case 4: /* with data, taken or not */
        give(d, add(d, 0, SYN, c->isn), 0, some_len(d));
        x = add(d, 1, SYN | ACK, s->isn);
        if (one_in(d, 2))
            x->ack = c->isn + 1 + rnd(d, c->next + 1);
        if (one_in(d, 3))
            give(d, x, 0, some_len(d));
        add(d, 0, ACK, c->isn + 1 + c->next);
        return;
    case 5: /* several tries, of which the last or another is answered */
        for (unsigned i = rnd(d, 3); i > 0; i--)
            add(d, 0, SYN, c->isn - rnd(d, 100) * 1000);
        add(d, 0, SYN, c->isn);
        x = add(d, 1, SYN | ACK, s->isn);
        if (one_in(d, 3))
            x->ack = d->q->seg[0].seq + 1;
        add(d, 0, ACK, c->isn + 1);
        return;
    case 6: /* data before the handshake is over */
        add(d, 0, SYN, c->isn);
        data(d, 0, 0, some_len(d), ACK);
        add(d, 1, SYN | ACK, s->isn)->ack = c->isn + 1;
        return;
    default:
        add(d, 0, SYN, c->isn);
        add(d, 1, SYN | ACK, s->isn);
        if (!one_in(d, 8))
            add(d, 0, ACK, c->isn + 1);
    }
}

static void repeat(struct drawing *d)
{
    struct model_sequence *q = d->q;

    if (q->n == 0 || q->n == MODEL_SEGMENTS)
        return;
    const struct model_segment *old = &q->seg[rnd(d, q->n)];
    struct model_segment *s = add(d, old->dir, old->flags, old->seq);
    unsigned len = old->len;
    if (q->n_data + len > MODEL_DATA)
        len = 0;
    if (one_in(d, 2))
        s->ack = old->ack;
    memcpy(q->data + q->n_data, q->data + old->data, len);
    s->len = (uint16_t)len;
    if (len > 0 && one_in(d, d->other_bytes))
        q->data[q->n_data + rnd(d, len)] ^= (uint8_t)(1 + rnd(d, 255));
    q->n_data += len;
}

static void play(struct drawing *d, enum trick trick)
{
    unsigned dir = rnd(d, 3) == 0, a, b;
    struct sender *e = &d->end[dir], *o = &d->end[!dir];
    struct model_segment *s;

    switch (trick) {
    case TRICK_NEXT:
        data(d, dir, e->next, some_len(d), one_in(d, 3) ? PSH | ACK : ACK);
        break;
    case TRICK_ACK:
        a = o->acked;
        s = add(d, dir, ACK, e->isn + 1 + e->next);
        if (one_in(d, 3)) {
            o->acked = a + rnd(d, o->next - (a < o->next ? a : o->next) + 1);
            s->ack = o->isn + 1 + o->acked;
        } else if (one_in(d, 6)) {
            s->ack -= rnd(d, d->span);
        }
        break;
    case TRICK_ANYWHERE:
        data(d, dir, rnd(d, d->span), some_len(d), ACK);
        break;
    case TRICK_OVERLAP:
        /* Begins and ends near the edges of the last piece: inside, at, or outside of them. */
        a = (one_in(d, 2) ? e->from : e->to) + rnd(d, 7);
        b = (one_in(d, 2) ? e->from : e->to) + rnd(d, 7);
        a = a > 3 ? a - 3 : 0;
        b = b > 3 ? b - 3 : 0;
        data(d, dir, a < b ? a : b, a < b ? b - a : one_in(d, 4) ? a - b : some_len(d), ACK);
        break;
    case TRICK_REPEAT:
        repeat(d);
        break;
    case TRICK_FIN:
        a = one_in(d, 3) ? rnd(d, d->span) : e->next;
        data(d, dir, a, one_in(d, 2) ? some_len(d) : 0, FIN | ACK);
        if (a == e->from || one_in(d, 2))
            e->finished = true;
        break;
    case TRICK_RESET:
        a = one_in(d, 3) ? rnd(d, d->span) : e->next;
        add(d, dir, one_in(d, 2) ? RST : RST | ACK, e->isn + 1 + a);
        break;
    case TRICK_SYN:
        s = add(d, dir, one_in(d, 2) ? SYN : SYN | ACK, one_in(d, 2) ? e->isn : e->isn + rnd(d, d->span));
        if (one_in(d, 3))
            give(d, s, 0, some_len(d));
        if (one_in(d, 6)) { /* a new connection */
            e->isn = s->seq;
            e->next = e->acked = e->from = e->to = 0;
            e->finished = false;
        }
        break;
    case TRICK_KEEP_ALIVE:
        add(d, dir, ACK, e->isn + e->next);
        if (one_in(d, 2) && e->next > 0)
            give(d, &d->q->seg[d->q->n - 1], e->next - 1, 1);
        break;
    case TRICK_FLAGS:
        a = rnd(d, d->span);
        data(d, dir, one_in(d, 2) ? e->next : a, one_in(d, 2) ? some_len(d) : 0, (uint8_t)rnd(d, 256));
        if (one_in(d, 3))
            d->q->seg[d->q->n - 1].urgent = (uint16_t)rnd(d, 20);
        break;
    case TRICK_FAR:
        s = add(d, dir, ACK, e->isn + 1 + e->next);
        a = rnd(d, 5);
        s->seq += a == 0   ? (1u << 31) + (one_in(d, 2) ? 300003 : 0u - 300003)
                  : a == 1 ? (1u << 30) + 2000
                  : a == 2 ? 0u - (1u << 24)
                           : MODEL_FAR;
        give(d, s, rnd(d, d->span), one_in(d, 3) ? 0 : some_len(d));
        break;
    default:
        s = add(d, dir, ACK, e->isn + 1 + e->next);
        s->ack += one_in(d, 6) ? rnd(d, UINT32_MAX) : 1 + rnd(d, 40);
        break;
    }
}

void model_draw(struct model_sequence *q, const struct model_setting *set, uint64_t seed)
{
    static struct drawing d;
    unsigned n;

    memset(&d, 0, sizeof d);
    d.rnd = seed;
    d.set = set;
    d.q = q;
    memset(q, 0, offsetof(struct model_sequence, seg));
    q->family = one_in(&d, 6) ? 6 : 4;
    q->port[0] = (uint16_t)(1024 + rnd(&d, 60000));
    q->port[1] = one_in(&d, 4) ? (uint16_t)(1024 + rnd(&d, 60000)) : 80;
    for (unsigned i = 0; i < 2; i++)
        q->network[i] = (uint8_t)rnd(&d, MODEL_NETWORKS);
    d.span = 1 + rnd(&d, one_in(&d, 8) ? MODEL_SPAN : 80);
    d.longest = 1 + rnd(&d, one_in(&d, 3) ? d.span : 1 + d.span / 4);
    d.other_bytes = one_in(&d, 3) ? 0 : 2 + rnd(&d, 20);
    d.refusals = one_in(&d, 3) ? 0 : 3 + rnd(&d, 30);
    d.stamps = one_in(&d, 5);
    d.window = one_in(&d, 4) ? 1 + rnd(&d, d.span * 2) : 0;
    d.stale = one_in(&d, 2) ? 0 : 2 + rnd(&d, 20);
    for (unsigned i = 0; i < TRICKS; i++) {
        d.weight[i] = one_in(&d, 3) && i > TRICK_ACK ? 0 : usual[i] * (1 + 3 * one_in(&d, 8));
        if (i == TRICK_LOST && set->replay)
            d.weight[i] *= 3;
        d.weights += d.weight[i];
    }
    for (unsigned i = 0; i < 2; i++) {
        struct sender *e = &d.end[i];
        e->isn = one_in(&d, 3) ? 0u - rnd(&d, d.span + 3) : rnd(&d, UINT32_MAX);
        e->stamp = one_in(&d, 3) ? 0u - rnd(&d, 50) : rnd(&d, UINT32_MAX);
        e->scale = one_in(&d, 2) ? 0xff : (uint8_t)rnd(&d, one_in(&d, 2) ? 4 : 17);
        for (unsigned k = 0; k < sizeof e->byte; k += 8) {
            uint64_t bytes = model_mix(seed + k + i * 7777);
            memcpy(e->byte + k, &bytes, 8);
        }
    }
    /* With a small limit there may be few pieces, too. */
    n = 3 + rnd(&d, set->per_end == 0 && one_in(&d, set->replay ? 2 : 4) ? MODEL_SEGMENTS - 3 : 12);
    opening(&d);
    while (q->n < n) {
        unsigned at = rnd(&d, d.weights), trick = 0;
        while (at >= d.weight[trick])
            at -= d.weight[trick++];
        unsigned before = q->n;
        play(&d, (enum trick)trick);
        if (q->n == before)
            break;
    }
}
