/* SPDX-License-Identifier: Apache-2.0 */
/* The reference model of one end of a TCP flow: the text of netstar/tcp.h, sentence by sentence. It keeps no segments
 * and no lists. A stream is an array with one entry for each place, and every question is a loop over places.
 */
#include "flow_tcp_model_end.h"

enum { FAR = 1 << 30, PER_END = 8 << 20, HISTORY = 64 << 10, HOLE_WAIT = 16 };

static uint32_t lives;

/* ---- places ---- */
/* Of places that may be far from each other: modulo 2^32, as TCP compares. */
static int32_t beyond(int64_t a, int64_t b)
{
    return (int32_t)(uint32_t)(a - b);
}

static int64_t place_at(const struct end *t, uint32_t number)
{
    return t->next + model_diff(number, end_number(t, t->next));
}

static bool sees_both(const struct end *t)
{
    return !t->set->replay && t->set->inspect[!t->side];
}

static bool keeps_delivered(const struct end *t)
{
    return (t->set->on_received[t->side] & NST_EV_DATA) && (t->set->on_conflict != NST_FORWARD || t->set->normalise);
}

static bool may_pass_unkept(const struct end *t)
{
    return !sees_both(t) || t->set->on_no_memory == NST_FORWARD || t->set->on_no_memory == NST_FORWARD_FLOW;
}

static int64_t per_end(const struct end *t)
{
    return t->set->per_end != 0 ? t->set->per_end : PER_END;
}

static struct place *place_of(struct end *t, int64_t at)
{
    return &t->kept[(uint64_t)at % PLACES];
}

static bool is_kept(struct end *t, int64_t at)
{
    struct place *p = place_of(t, at);
    return p->at == at && p->life == t->life && at >= t->acked && (at >= t->next || keeps_delivered(t));
}

static void keep(struct end *t, int64_t at)
{
    *place_of(t, at) = (struct place){
        .at = at, .life = t->life, .byte = t->now.bytes[at - t->now.from], .from = t->now.from, .to = t->now.to
    };
    if (at >= t->top)
        t->top = at + 1;
}

static void forget_all(struct end *t)
{
    t->life = ++lives;
    t->top = INT64_MIN;
}

/* Behind the last byte that was seen. */
static int64_t seen_end(struct end *t)
{
    int64_t end = t->top;

    while (end > t->next && !is_kept(t, end - 1))
        end--;
    return end > t->next ? end : t->next;
}

/* ---- overlaps ---- */
/* The byte of a new segment [a, b) takes the place of one that came with [c, d). */
static bool new_wins(enum nst_overlap policy, int64_t a, int64_t b, int64_t c, int64_t d)
{
    switch (policy) {
    case NST_OVERLAP_FIRST:
        return false;
    case NST_OVERLAP_LAST:
        return true;
    case NST_OVERLAP_BSD:
        return a < c;
    case NST_OVERLAP_LINUX:
        return a < c || (a == c && b > d);
    case NST_OVERLAP_OLD_LINUX:
        return a < c || (a == c && b >= d);
    case NST_OVERLAP_SOLARIS:
        return b > d || (b == d && a <= c);
    default:
        return false;
    }
}

/* Of the two bytes that there may be for a place that is not yet delivered, the end reads the segment's. */
static bool takes_new(struct end *t, int64_t at)
{
    const struct place *p = place_of(t, at);

    if (at < t->now.from || at >= t->now.to)
        return false;
    return !is_kept(t, at) || new_wins(t->overlap, t->now.from, t->now.to, p->from, p->to);
}

uint8_t end_leaves(struct end *t, int64_t at)
{
    return is_kept(t, at) ? place_of(t, at)->byte : t->now.bytes[at - t->now.from];
}

bool end_byte(struct end *t, int64_t at, uint8_t *byte)
{
    bool urgent = t->has_urgent && end_number(t, at) == t->urgent;

    *byte = takes_new(t, at) ? t->now.bytes[at - t->now.from] : place_of(t, at)->byte;
    return !(urgent && t->set->urgent == NST_URGENT_OUT);
}

/* ---- where the stream begins ---- */
static void begin_at(struct end *t, uint32_t number, uint64_t offset)
{
    forget_all(t);
    t->base = number - (uint32_t)offset;
    t->next = t->acked = (int64_t)offset;
    t->synced = true;
}

static void begin_by_syn(struct end *t, uint32_t number)
{
    t->was = (struct beginning){ true, t->synced, t->base, t->life, t->next, t->acked, t->top };
    begin_at(t, number, 0);
}

static void undo_beginning(struct end *t)
{
    if (!t->was.moved)
        return;
    t->synced = t->was.synced;
    t->base = t->was.base;
    t->life = t->was.life;
    t->next = t->was.next;
    t->acked = t->was.acked;
    t->top = t->was.top;
    t->was.moved = false;
}

void end_begins(struct end *t, uint32_t seq, uint64_t offset)
{
    begin_at(t, seq, offset);
    t->opened = t->syn_received = t->syn_sent = t->confirmed = true;
    t->by_syns = false;
}

void end_open(struct end *t, const struct model_setting *set, enum nst_side side, enum nst_overlap overlap)
{
    memset(t, 0, offsetof(struct end, kept));
    t->set = set;
    t->side = side;
    t->overlap = set->normalise ? NST_OVERLAP_FIRST : overlap;
    t->scale = -1;
    t->by_syns = true;
    forget_all(t);
}

/* What the end was thought to have received is of another connection; what it has sent itself stays. */
static void open_anew(struct end *t)
{
    static struct end was;

    memcpy(&was, t, offsetof(struct end, kept));
    end_open(t, was.set, was.side, was.overlap);
    t->syn_sent = was.syn_sent;
    t->iss = was.iss;
    t->syn_len = was.syn_len;
    t->scale = was.scale;
    t->peer_scales = was.peer_scales;
    t->now = was.now;
}

static void nothing_changes(struct end *t)
{
    memset(&t->now, 0, sizeof t->now);
    t->was.moved = false;
    t->error = NST_TCP_ACCEPTED;
}

/* ---- what an end receives ---- */
static nst_events receives_bytes(struct end *t, bool *differs, struct model_counts *counts)
{
    int64_t from = t->now.from, to = t->now.to, first_new = from < t->next ? t->next : from;
    nst_events what = 0;

    if (from < t->next) {
        what |= NST_EV_RETRANSMIT;
        counts->retransmits++;
        for (int64_t at = from; at < to && at < t->next; at++) {
            if (at >= t->acked && keeps_delivered(t) && !is_kept(t, at)) {
                counts->unverified++;
                break;
            }
        }
    }
    if (from > t->next) {
        what |= NST_EV_GAP;
        counts->gaps++;
    }
    for (int64_t at = from < t->acked ? t->acked : from; at < to; at++) {
        if (is_kept(t, at) && place_of(t, at)->byte != t->now.bytes[at - from])
            *differs = true;
    }
    bool to_keep = first_new < to && (from > t->next || keeps_delivered(t));
    bool no_room = to - t->acked > per_end(t) || from - t->next > FAR;
    if (to_keep && no_room) {
        bool two_to_choose = t->overlap != NST_OVERLAP_FIRST && seen_end(t) > t->next;
        if (from > t->next || !may_pass_unkept(t) || two_to_choose)
            return what | MODEL_REFUSED;
        counts->unkept_bytes += (uint64_t)(to - first_new);
    }
    t->now.keep = to_keep && !no_room;
    return what;
}

/* An acknowledged hole of a capture: the first place behind it that must not be jumped over. */
static int64_t hole_end(const struct end *t)
{
    return t->fin_known && beyond(t->told, t->fin + 1) == 0 ? t->fin : t->told;
}

/* Another segment while a hole is waited for. */
static void passes_hole(struct end *t, bool fin, struct model_counts *counts)
{
    bool bytes = t->now.from < t->now.to;
    int64_t at = t->next;

    if (t->next >= hole_end(t)) {
        t->hole = 0;
        return;
    }
    if (bytes && t->now.from <= t->next && t->now.to > t->next) /* it fills the hole */
        return;
    bool no_room = bytes && t->now.from > t->next && t->now.to - t->acked > per_end(t);
    bool last = fin && t->fin_sent;
    if (--t->hole > 0 && !no_room && !last)
        return;
    while (at < hole_end(t) && !is_kept(t, at) && !(bytes && at == t->now.from))
        at++;
    counts->lost_bytes += (uint64_t)(at - t->next);
    t->next = t->acked = at;
    t->hole = at < hole_end(t) ? 1 : 0;
}

static nst_events receives_reset(struct end *t, const struct model_segment *s, struct model_counts *counts)
{
    bool refuses_syn = t->syn_sent && !t->synced && (s->flags & ACK);
    int64_t at = place_at(t, s->seq);
    bool behind_hole = t->hole != 0 && (at == t->told || (at > t->told && at <= seen_end(t)));

    t->now.reset = refuses_syn || (t->synced && (at == t->next || behind_hole));
    counts->resets_ignored += !t->now.reset;
    if (!t->now.reset)
        t->error = NST_TCP_BAD_RESET;
    t->now.reset = t->now.reset && !t->reset; /* once */
    return t->now.reset ? NST_EV_RESET : 0;
}

/* It brings something up to `end` that the end has not acknowledged, with an older time stamp than the end takes. */
static bool is_stale(const struct end *t, const struct model_segment *s, int64_t end)
{
    int slack = t->overlap == NST_OVERLAP_LINUX || t->overlap == NST_OVERLAP_OLD_LINUX || t->set->replay;

    return s->stamped && t->has_echo && t->hole == 0 && beyond(end, t->acked) > 0 &&
           model_diff(s->stamp, t->echo) < -slack;
}

static void takes_stamp(struct end *t, const struct model_segment *s)
{
    if (!s->stamped || (t->has_stamp && model_diff(s->stamp, t->stamp) <= 0))
        return;
    t->stamp = s->stamp;
    t->has_stamp = true;
}

static bool is_beyond_window(const struct end *t, uint32_t seq, unsigned len)
{
    bool probe = len == 1 && seq == t->edge;
    return t->has_edge && len > 0 && model_diff(seq + len, t->edge) > 0 && !probe;
}

/* A FIN at `end`. */
static nst_events receives_fin(struct end *t, int64_t end)
{
    if (!t->fin_known && beyond(end, t->next) >= 0 && beyond(end, seen_end(t)) >= 0) {
        t->now.fin_known = true;
        t->now.fin = end;
        return 0;
    }
    return (t->fin_known && beyond(end, t->fin) == 0) || beyond(end, t->acked) < 0 ? 0 : NST_EV_CONFLICT;
}

static void receives_urgent(struct end *t, uint32_t number)
{
    uint32_t next = end_number(t, t->next);

    if (t->set->normalise) {
        t->now.calm = true;
        return;
    }
    if (model_diff(number, next) < 0)
        return;
    if (!t->has_urgent || model_diff(number, t->urgent) > 0 || model_diff(t->urgent, next) < 0)
        t->urgent = number;
    t->has_urgent = true;
}

static nst_events receives_ack(struct end *t)
{
    t->now.opened = t->syn_sent && !t->opened && (t->syn_received || t->now.syn_received);
    return t->now.opened ? NST_EV_OPEN : 0;
}

nst_events end_receives(struct end *t, const struct model_sequence *q, const struct model_segment *s, bool bad_ack,
                        struct model_counts *counts)
{
    bool syn = s->flags & SYN, ack = s->flags & ACK, fin = s->flags & FIN;
    bool urgent = (s->flags & MODEL_URG) && s->urgent > 0;
    uint32_t seq = s->seq + syn;
    unsigned len = s->len;
    bool mended = false, differs = false;
    nst_events what = 0;

    nothing_changes(t);
    if (s->flags & RST)
        return receives_reset(t, s, counts);
    if (syn) {
        if (!t->confirmed && ack && t->syn_sent && s->ack - t->iss - 1 > t->syn_len) {
            t->error = NST_TCP_BAD_ACK;
            return 0;
        }
        if (t->confirmed)
            t->error = NST_TCP_BAD_SYN;
        counts->syns_ignored += t->confirmed && !ack;
    }
    if (syn && t->confirmed) { /* nothing but an ACK in it counts */
        len = 0;
        fin = urgent = false;
    } else if (syn) {
        if (!t->synced ||
            (!t->syn_sent && !t->fin_known && seq != t->base && t->next == 0 && seen_end(t) == 0 && t->hole == 0))
            begin_by_syn(t, seq);
        if (!ack && !t->syn_received)
            what |= NST_EV_START;
        t->now.syn_received = true;
        t->peer_scales |= s->scale != 0xff;
    } else if (!t->synced) {
        return NST_EV_MIDSTREAM;
    } else if (len > 0 && !t->confirmed && sees_both(t) && !(t->syn_sent && seq - t->base <= (uint64_t)t->next)) {
        counts->conflicts++;
        return NST_EV_CONFLICT;
    }
    if (!syn && (!ack || bad_ack)) {
        t->error = ack ? NST_TCP_BAD_ACK : NST_TCP_NO_ACK;
        counts->bad_acks += !t->set->replay;
        if (!t->set->replay)
            return MODEL_BAD_ACK;
    }
    int64_t from = place_at(t, seq), to = from + len;
    if ((len > 0 || fin) && is_stale(t, s, to + fin)) {
        counts->stale++;
        undo_beginning(t);
        nothing_changes(t);
        t->error = NST_TCP_STALE;
        return MODEL_STALE;
    }
    takes_stamp(t, s);
    if (is_beyond_window(t, seq, len)) {
        counts->beyond_window++;
        if (t->set->normalise && model_diff(t->edge, seq) > 0) {
            len = (unsigned)model_diff(t->edge, seq);
            to = from + len;
            fin = false; /* it lies behind what is cut off */
            t->now.cut = true;
            t->now.leave = len;
        } else {
            t->error = NST_TCP_BEYOND_WINDOW;
            if (t->set->on_window != NST_FORWARD && (t->set->on_received[t->side] & NST_EV_ERROR) == 0)
                return MODEL_WINDOW;
        }
    }
    t->now.from = from;
    t->now.to = to;
    t->now.bytes = q->data + s->data;
    if (len <= 1 && from == t->next - 1 && !syn && !fin && t->acked == t->next) {
        counts->keep_alives++;
        return 0;
    }
    if (ack) {
        what |= receives_ack(t);
        t->now.fin_acked = t->fin_sent && s->ack == t->behind_fin;
    }
    if (urgent) {
        receives_urgent(t, seq + s->urgent - 1);
        counts->urgent++;
        what |= NST_EV_URGENT;
    }
    if (fin)
        what |= receives_fin(t, to);
    if (t->fin_known && len > 0 && beyond(to, t->fin) > 0) {
        int32_t left = beyond(t->fin, from);
        to = left > 0 ? from + left : from;
        if (t->set->normalise && left > 0 && !fin) {
            t->now.cut = mended = true;
            t->now.leave = (unsigned)left;
        } else {
            what |= NST_EV_CONFLICT;
        }
    }
    t->now.to = to;
    if (t->hole != 0) {
        passes_hole(t, fin, counts);
        t->now.from = place_at(t, seq); /* seen from where `next` is now */
        t->now.to = to = t->now.from + (to - from);
        from = t->now.from;
    }
    if (from < to)
        what |= receives_bytes(t, &differs, counts);
    counts->conflicts += (what & NST_EV_CONFLICT) || mended || differs;
    t->now.mended = differs && t->set->normalise;
    if (differs && !t->set->normalise)
        what |= NST_EV_CONFLICT;
    if (mended || t->now.mended) /* which leaves no question for a policy */
        what |= t->set->on_received[t->side] & NST_EV_CONFLICT;
    if (what & MODEL_REFUSED)
        return what;
    int64_t at = t->next;
    while (is_kept(t, at) || (at >= from && at < to))
        at++;
    t->now.fresh = (unsigned)(at - t->next);
    if (t->now.fresh > 0)
        what |= NST_EV_DATA;
    t->now.fin_received = (t->fin_known || t->now.fin_known) && beyond(at, t->fin_known ? t->fin : t->now.fin) == 0;
    if (t->now.fin_received && !t->fin_received)
        what |= NST_EV_FIN;
    return what;
}

/* ---- what an end sends ---- */
static void acknowledges(struct end *t, uint32_t ack, bool *bad, struct model_counts *counts)
{
    int64_t upto = t->acked + model_diff(ack, end_number(t, t->acked));
    int64_t sent = seen_end(t);

    if (t->fin_known && t->fin >= sent)
        sent = t->fin + 1;
    if (!t->synced || upto <= t->acked)
        return;
    *bad = !t->set->replay && t->confirmed && t->by_syns && upto > sent;
    if (upto - t->acked > FAR)
        return;
    bool ended = t->fin_known && beyond(upto, t->fin + 1) == 0;
    if (ended) /* the number behind a FIN is no byte */
        upto = t->fin;
    if (upto > t->next && !t->set->replay) {
        counts->acks_ignored++;
        upto = t->next;
    } else if (upto > t->next) { /* a hole in the capture: it may still be filled */
        if (t->hole == 0 || ended) {
            t->hole = ended ? 1 : HOLE_WAIT;
            t->told = upto;
        }
        upto = t->next;
    }
    t->acked = upto;
}

static void offers_window(struct end *t, const struct model_segment *s)
{
    bool scaled = t->scale >= 0 && t->peer_scales && (s->flags & SYN) == 0;

    if (!sees_both(t) || !t->by_syns || !t->confirmed || !t->synced)
        return;
    uint32_t edge = s->ack + ((uint32_t)s->window << (scaled ? t->scale : 0));
    if (place_at(t, s->ack) > t->next + t->fin_received) /* what acknowledges more than there is offers nothing */
        return;
    if (!t->has_edge || model_diff(edge, t->edge) > 0)
        t->edge = edge;
    t->has_edge = true;
}

static void sends_ack(struct end *t, const struct model_segment *s, bool *bad, struct model_counts *counts)
{
    t->heard = true;
    if (s->stamped && t->has_stamp && model_diff(s->echo, t->stamp) <= 0 &&
        (!t->has_echo || model_diff(s->echo, t->echo) > 0)) {
        t->echo = s->echo;
        t->has_echo = true;
    }
    counts->selective += s->selective != 0 && (s->flags & SYN) == 0;
    acknowledges(t, s->ack, bad, counts);
    offers_window(t, s);
}

/* The end says where its stream begins, by an ACK in its SYN or the first one behind that. */
static void settles(struct end *t, const struct model_segment *s)
{
    bool hole = t->set->replay && (s->flags & SYN) == 0 && model_diff(s->ack, end_number(t, t->next)) > 0;

    if (!hole && s->ack - t->base > (uint64_t)t->next + t->fin_received) {
        open_anew(t);
        begin_at(t, s->ack, 0);
        t->now.syn_received = true;
    }
    t->confirmed = true;
}

nst_events end_sends(struct end *t, const struct model_segment *s, bool *bad_ack, struct model_counts *counts)
{
    bool syn = s->flags & SYN, ack = s->flags & ACK, rst = s->flags & RST, fin = (s->flags & FIN) && !rst;
    nst_events what = 0;

    nothing_changes(t);
    if (syn) {
        if (!ack && t->syn_sent && s->seq != t->iss)
            open_anew(t);
        t->iss = s->seq;
        t->syn_len = s->len;
        int scale = s->scale == 0xff ? -1 : s->scale > 14 ? 14 : s->scale;
        t->scale = scale > t->scale ? scale : t->scale; /* of several tries the most generous counts */
        if (!ack && !t->syn_sent)
            what |= NST_EV_START;
        t->now.syn_sent = true;
    }
    if (ack && !rst) {
        if (t->synced && (syn || (t->syn_sent && !t->confirmed)))
            settles(t, s);
        sends_ack(t, s, bad_ack, counts);
    }
    t->now.fin_sent = fin;
    if (fin && !t->fin_sent)
        t->behind_fin = s->seq + syn + s->len + 1;
    if (fin && !t->fin_sent)
        what |= NST_EV_FIN;
    t->now.reset = rst && !t->set->inspect[!t->side] && !t->reset;
    if (t->now.reset)
        what |= NST_EV_RESET;
    return what;
}

/* ---- the verdict ---- */
void end_verdict(struct end *t, bool passed, struct model_counts *counts)
{
    struct change *now = &t->now;

    if (!passed) {
        undo_beginning(t);
        nothing_changes(t);
        return;
    }
    for (int64_t at = now->from < t->next ? t->next : now->from; now->keep && at < now->to; at++) {
        if (takes_new(t, at))
            keep(t, at);
    }
    t->next += now->fresh;
    if (now->fresh > 0 && t->next >= hole_end(t))
        t->hole = 0;
    counts->stream_bytes += now->fresh;
    if (now->fresh > 0 && may_pass_unkept(t) && !t->heard) { /* nobody acknowledges */
        int64_t history = per_end(t) / 2 < HISTORY ? per_end(t) / 2 : HISTORY;
        if (t->next - history > t->acked)
            t->acked = t->next - history;
    }
    if (now->fin_known)
        t->fin = now->fin;
    now->opened = now->opened && !t->opened;
    bool is_new = now->opened || (now->syn_received && !t->syn_received) || (now->syn_sent && !t->syn_sent) ||
                  (now->fin_known && !t->fin_known) || (now->fin_received && !t->fin_received) ||
                  (now->fin_sent && !t->fin_sent) || now->reset;
    bool was_finished = t->fin_received, fin_was_sent = t->fin_sent;
    t->opened |= now->opened;
    t->syn_received |= now->syn_received;
    t->syn_sent |= now->syn_sent;
    t->fin_known |= now->fin_known;
    t->fin_received |= now->fin_received;
    t->fin_sent |= now->fin_sent;
    t->fin_acked |= now->fin_acked;
    t->reset |= now->reset;
    if (now->fin_received && !was_finished && fin_was_sent)
        t->waits = true;
    now->fin_received = is_new && t->fin_received && t->fin_sent;
}

/* RFC 9293, figure 5, from what was sent and received. */
enum nst_tcp_state end_state(const struct end *t)
{
    const struct change *now = &t->now;
    bool got_syn = t->syn_received || now->syn_received, gave_syn = t->syn_sent || now->syn_sent;
    bool got_fin = t->fin_received || now->fin_received, gave_fin = t->fin_sent || now->fin_sent;
    bool acked = t->fin_acked || now->fin_acked;
    bool closed_first = t->waits || (t->fin_sent && !t->fin_received);

    if (t->reset || now->reset)
        return NST_TCP_CLOSED;
    if (!got_syn)
        return gave_syn ? NST_TCP_SYN_SENT : NST_TCP_CLOSED;
    if (!gave_syn)
        return NST_TCP_SYN_RECEIVED;
    if (gave_fin && !got_fin)
        return acked ? NST_TCP_FIN_WAIT_2 : NST_TCP_FIN_WAIT_1;
    if (gave_fin && closed_first)
        return acked ? NST_TCP_TIME_WAIT : NST_TCP_CLOSING;
    if (gave_fin)
        return acked ? NST_TCP_CLOSED : NST_TCP_LAST_ACK;
    if (got_fin)
        return NST_TCP_CLOSE_WAIT;
    return t->opened || now->opened ? NST_TCP_ESTABLISHED : NST_TCP_SYN_RECEIVED;
}

enum end_life end_life(const struct end *t)
{
    return t->now.reset ? END_RESET : t->now.fin_received ? END_FINISHED : t->now.opened ? END_OPENED : END_SAME;
}

bool end_takes_new_syn(const struct end *t, const struct model_segment *s)
{
    return !t->waits || model_diff(s->seq, end_number(t, t->next) + 1) > 0 ||
           (t->has_stamp && s->stamped && model_diff(s->stamp, t->stamp) > 0);
}
