/* SPDX-License-Identifier: Apache-2.0 */
/* nst_tcp: one end of a TCP flow, as tcp.h describes it.
 *
 * `delivered` and `base` say which sequence number this end expects next. A packet that it receives is first only
 * looked at: how many bytes it would deliver (`fresh`), which pieces would have to be kept (`adding`), what it would
 * change (`now`). The verdict then makes that true or forgets it.
 */
#include "flow/tcp_end.h"
#include "flow/tcp_overlap.h"

enum {
    HISTORY = 64 << 10, /* what is kept where nobody acknowledges */
};

void tcp_begin_at(struct tcp_end *t, const struct nst_flow *f, enum nst_side side, uint32_t seq, uint64_t offset)
{
    t->base = seq - (uint32_t)offset;
    t->delivered = offset;
    t->acked = seq;
    t->flags |= TCP_SYNCED;
    t->overlap = overlap_of(f, side) & 7;
}

void tcp_restart(struct tcp_end *t, struct nst_engine *e)
{
    stream_free(&e->stream, t->kept.first);
    t->kept = (struct stream){ 0 };
    t->delivered = 0;
    t->flags &= TCP_SYN_SENT | TCP_SCALE_SENT | TCP_SCALE_RECEIVED;
    t->heard = t->picked = t->waits = t->fin_acked = t->hole = 0;
}

/* Whether a FIN at `end` says where the stream ends. One that contradicts what was seen is a conflict, or else bytes
 * behind a FIN that its receiver never took would pass unseen. */
static bool ends_there(const struct tcp_end *t, uint32_t end, nst_events *what)
{
    bool known = (t->flags & TCP_FIN_KNOWN) != 0;

    if (!known && seq_diff(end, next_seq(t)) >= 0 && (t->kept.last == NULL || seq_diff(end, t->kept.end) >= 0))
        return true;
    /* An old one, before what the end has acknowledged, is ignored there. */
    if (seq_diff(end, t->acked) >= 0 && !(known && end == t->fin))
        *what |= NST_EV_CONFLICT;
    return false;
}

/* Where the end stands while a capture has a hole: somewhere from what it acknowledged to what came last. */
static bool stands_behind_hole(const struct tcp_end *t, uint32_t seq)
{
    int32_t behind = seq_diff(seq, t->edge);
    return t->hole != 0 && (behind == 0 || (behind > 0 && t->kept.last != NULL && seq_diff(seq, t->kept.end) <= 0));
}

/* RFC 9293, 3.10.7: only the very next number resets, the end answers any other with an ACK; and an end that waits for
 * the answer to its SYN takes a reset that acknowledges that. */
static void received_reset(struct tcp_end *t, struct nst_engine *e, struct nst_packet *p, uint32_t seq, uint8_t flags)
{
    bool refused = (t->flags & (TCP_SYNCED | TCP_SYN_SENT)) == TCP_SYN_SENT && (flags & RTE_TCP_ACK_FLAG);

    if (refused || ((t->flags & TCP_SYNCED) && (seq == next_seq(t) || stands_behind_hole(t, seq)))) {
        t->now |= TCP_RESET;
        return;
    }
    e->stats.resets_ignored++;
    p->error = NST_TCP_BAD_RESET;
}

/* False: the end takes nothing of it. */
static bool received_syn(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p,
                         const struct rte_tcp_hdr *h)
{
    uint32_t base = rte_be_to_cpu_32(h->sent_seq) + 1;
    struct tcp_options o;

    /* An end that has begun answers with an ACK; what answers something else than its SYN is refused. */
    if (t->flags & TCP_CONFIRMED) {
        p->error = NST_TCP_BAD_SYN;
        return false;
    }
    if ((h->tcp_flags & RTE_TCP_ACK_FLAG) && (t->flags & TCP_SYN_SENT) &&
        rte_be_to_cpu_32(h->recv_ack) - t->iss - 1 > t->syn_len) {
        p->error = NST_TCP_BAD_ACK;
        return false;
    }
    tcp_options(h, &o);
    if (o.scale >= 0)
        t->flags |= TCP_SCALE_RECEIVED;
    /* Until the end has answered, a new try may bring another initial number. */
    bool known = (t->flags & TCP_SYNCED) != 0;
    if (!known || (base != t->base && (t->flags & (TCP_OPENED | TCP_SYN_SENT | TCP_FIN_KNOWN)) == 0 &&
                   t->delivered == 0 && t->kept.last == NULL && t->hole == 0)) {
        t->edge = t->base;
        t->now |= TCP_NOW_SYNCED | (known ? TCP_NOW_MOVED : 0);
        tcp_begin_at(t, f, side, base, 0);
    }
    t->now |= TCP_SYN_RECEIVED;
    return true;
}

/* The packet was not to be: nor was the number that its SYN brought. */
static void unsync(struct tcp_end *t)
{
    if (t->now & TCP_NOW_MOVED)
        t->base = t->acked = t->edge;
    else
        t->flags &= (uint16_t)~TCP_SYNCED;
}

/* The end ignores what carries an older time stamp than it has confirmed (RFC 7323, 5.3). What it has acknowledged was
 * not ignored: a capture only shows it late; nor is known what it was while there is a hole. */
static bool is_stale(struct tcp_end *t, const struct nst_engine *e, const struct rte_tcp_hdr *h, uint32_t end)
{
    uint32_t stamp, echo;

    if (!tcp_stamps(h, &stamp, &echo))
        return false;
    if (unlikely(t->flags & TCP_ECHOED) && unlikely(seq_diff(t->echoed, stamp) > 0)) {
        /* What was captured has reached the end already: where nobody said of what system that is, it may be one that
         * is tolerant. */
        bool tolerant = t->overlap == NST_OVERLAP_LINUX || t->overlap == NST_OVERLAP_OLD_LINUX || e->replay;
        if (t->echoed - stamp > tolerant && seq_diff(end, t->acked) > 0 && t->hole == 0)
            return true;
    }
    if ((t->flags & TCP_STAMPED) == 0 || seq_diff(stamp, t->stamp) > 0) {
        t->stamp = stamp;
        t->flags |= TCP_STAMPED;
    }
    return false;
}

/* RFC 9293, 3.10.7.4: what has no acknowledgment, or one of what the end has not sent, it throws away. A capture may have
 * missed that, and those that were made by hand often lack the flag. */
static bool is_badly_acked(struct tcp_end *t, struct nst_engine *e, struct nst_packet *p, uint8_t flags)
{
    if (flags & RTE_TCP_SYN_FLAG)
        return false;
    p->error = flags & RTE_TCP_ACK_FLAG ? NST_TCP_BAD_ACK : NST_TCP_NO_ACK;
    e->stats.bad_acks += !e->replay;
    return !e->replay;
}

/* Bytes beyond the window that the end has offered, except one that asks whether there is more of it. True: they may
 * not pass; else *len is what may, and *fin is what is left of a FIN. */
static bool beyond_window(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p, uint32_t seq,
                          uint32_t *len, bool *fin)
{
    struct nst_engine *e = f->engine;
    int32_t inside = seq_diff(t->edge, seq);

    if (inside == 0 && *len == 1)
        return false;
    e->stats.beyond_window++;
    if (e->policy.normalise && inside > 0 && tcp_normal_cut(p, (uint32_t)inside)) {
        t->now |= TCP_NOW_NORMAL;
        *len = (uint32_t)inside;
        *fin = false; /* it was behind that */
        return false;
    }
    p->error = NST_TCP_BEYOND_WINDOW;
    if (flow_wants(f, side, NST_RECEIVED) & NST_EV_ERROR)
        return false;
    if (e->policy.on_window != NST_FORWARD)
        return true;
    e->stats.policy[NST_BY_WINDOW]++;
    return false;
}

/* An urgent pointer to a byte. */
static void received_urgent(struct tcp_end *t, struct nst_engine *e, struct nst_packet *p, uint32_t place)
{
    e->stats.urgent++;
    if (e->policy.normalise) {
        if (tcp_normal_urgent(p))
            t->now |= TCP_NOW_NORMAL;
        return;
    }
    if (e->policy.urgent != NST_URGENT_OUT || seq_diff(place, next_seq(t)) < 0)
        return;
    if ((t->flags & TCP_URGENT) == 0 || seq_diff(t->urgent, next_seq(t)) < 0 || seq_diff(place, t->urgent) > 0) {
        t->urgent = place;
        t->flags |= TCP_URGENT;
    }
}

/* A FIN, and bytes behind one: *len is what lies before the end of the stream. */
static nst_events received_end(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p,
                               uint32_t seq, bool fin, uint32_t *len)
{
    struct nst_engine *e = f->engine;
    nst_events what = 0;

    if (fin && ends_there(t, seq + *len, &what)) {
        t->fin = seq + *len;
        t->now |= TCP_FIN_KNOWN;
    }
    if (t->flags & TCP_FIN_KNOWN) {
        int32_t left = seq_diff(t->fin, seq);
        if (*len > 0 && left < (int32_t)*len) {
            *len = left < 0 ? 0 : (uint32_t)left;
            t->now |= TCP_NOW_CONFLICT;
            if (*len > 0 && !fin && e->policy.normalise && tcp_normal_cut(p, *len)) {
                t->now |= TCP_NOW_NORMAL;
                return flow_wants(f, side, NST_RECEIVED) & NST_EV_CONFLICT;
            }
            return NST_EV_CONFLICT;
        }
    }
    if (what != 0)
        t->now |= TCP_NOW_CONFLICT;
    return what;
}

static nst_events received(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p)
{
    struct nst_engine *e = f->engine;
    const struct rte_tcp_hdr *h = tcp_header(p);
    uint32_t seq = rte_be_to_cpu_32(h->sent_seq), len = p->h.payload_len, off = p->h.payload;
    uint8_t flags = h->tcp_flags;
    bool fin = (flags & RTE_TCP_FIN_FLAG) != 0;
    nst_events what = 0;

    if (unlikely(flags & (RTE_TCP_RST_FLAG | RTE_TCP_SYN_FLAG))) {
        if (flags & RTE_TCP_RST_FLAG) {
            received_reset(t, e, p, seq, flags);
            return 0;
        }
        seq++;
        if (!received_syn(t, f, side, p, h)) {
            if ((t->flags & TCP_CONFIRMED) == 0)
                return 0;
            e->stats.syns_ignored += (flags & RTE_TCP_ACK_FLAG) == 0;
            len = 0;
            fin = false;
            flags &= (uint8_t)~RTE_TCP_URG_FLAG;
        }
    } else if (unlikely((t->flags & TCP_SYNCED) == 0)) {
        return NST_EV_MIDSTREAM;
    } else if (unlikely((t->flags & TCP_CONFIRMED) == 0) && len > 0 && e->strict[side] &&
               ((t->flags & TCP_SYN_SENT) == 0 || seq - t->base > t->delivered)) {
        /* The SYN may have been one that the end ignores, and the bytes of a connection that it has had for long. */
        t->now |= TCP_NOW_CONFLICT;
        return NST_EV_CONFLICT;
    }
    if (unlikely((flags & RTE_TCP_ACK_FLAG) == 0 || (p->flags & PACKET_BAD_ACK)) && is_badly_acked(t, e, p, flags))
        return EV_BAD_ACK;
    if (h->data_off > 5 << 4 && is_stale(t, e, h, len + fin == 0 ? t->acked : seq + len + fin)) {
        e->stats.stale++;
        p->error = NST_TCP_STALE;
        if (t->now & TCP_NOW_SYNCED)
            unsync(t);
        t->now = 0;
        return EV_STALE;
    }
    if ((t->flags & TCP_EDGE) && len > 0 && unlikely(seq_diff(seq + len, t->edge) > 0) &&
        beyond_window(t, f, side, p, seq, &len, &fin))
        return EV_WINDOW;
    int32_t ahead = seq_diff(seq, next_seq(t));
    if (unlikely(ahead == -1) && len <= 1 && !fin && (flags & RTE_TCP_SYN_FLAG) == 0 && t->acked == next_seq(t)) {
        e->stats.keep_alives++;
        return 0;
    }
    if (unlikely((t->flags & (TCP_OPENED | TCP_SYN_SENT)) == TCP_SYN_SENT) && (flags & RTE_TCP_ACK_FLAG) &&
        ((t->flags | t->now) & TCP_SYN_RECEIVED)) {
        t->now |= TCP_OPENED;
        what |= NST_EV_OPEN;
    }
    if (unlikely(t->flags & TCP_FIN_SENT) && (flags & RTE_TCP_ACK_FLAG) && !t->fin_acked &&
        rte_be_to_cpu_32(h->recv_ack) == t->fin_sent)
        t->now |= TCP_NOW_FIN_ACKED;
    if (unlikely(flags & RTE_TCP_URG_FLAG) && h->tcp_urp != 0) {
        what |= NST_EV_URGENT;
        received_urgent(t, e, p, seq + rte_be_to_cpu_16(h->tcp_urp) - 1);
    }
    if (unlikely(fin || (t->flags & TCP_FIN_KNOWN)))
        what |= received_end(t, f, side, p, seq, fin, &len);
    if (len > 0 && likely(ahead == 0 && (t->kept.last == NULL || t->kept.end == seq))) {
        if (flow_keeps(f, side) && !tcp_keep_next(t, f, side, p, off, seq, len))
            return what | EV_REFUSED;
        t->fresh = len;
        what |= NST_EV_DATA;
    } else if (len > 0 || (t->flags & TCP_LOST)) {
        what |= tcp_look_at_bytes(t, f, side, p, off, seq, len, fin);
    }
    if (unlikely(((t->flags | t->now) & TCP_FIN_KNOWN) && next_seq(t) + t->fresh == t->fin))
        t->now |= TCP_FIN_RECEIVED;
    return what;
}

static void sent_syn(struct tcp_end *t, struct nst_engine *e, const struct nst_packet *p, const struct rte_tcp_hdr *h)
{
    uint32_t iss = rte_be_to_cpu_32(h->sent_seq);
    struct tcp_options o;

    if ((h->tcp_flags & RTE_TCP_ACK_FLAG) == 0 && (t->flags & TCP_SYN_SENT) && iss != t->iss)
        tcp_restart(t, e);
    t->iss = iss;
    t->syn_len = p->h.payload_len;
    t->now |= TCP_SYN_SENT;
    tcp_options(h, &o);
    /* Of several tries with other options the most generous counts: the answer may be to any of them. */
    if (o.scale >= 0) {
        if ((t->flags & TCP_SCALE_SENT) == 0 || o.scale > t->scale)
            t->scale = (uint8_t)o.scale & 15;
        t->flags |= TCP_SCALE_SENT;
    }
}

/* Of several SYNs with different numbers this tells which one the end has taken. Without a SYN of its own an ACK says
 * nothing: it may be of an older connection. */
static void sent_beginning(struct tcp_end *t, struct nst_flow *f, enum nst_side side, uint32_t ack, bool syn)
{
    /* Where a capture has a hole right at the beginning, the stream goes on behind it. */
    bool hole = f->engine->replay && !syn && seq_diff(ack, next_seq(t)) > 0;

    if (!hole && ack - t->base > t->delivered + ((t->flags & TCP_FIN_RECEIVED) != 0)) {
        tcp_restart(t, f->engine);
        tcp_begin_at(t, f, side, ack, 0);
        t->now |= TCP_SYN_RECEIVED;
    }
    t->flags |= TCP_CONFIRMED;
}

/* Which time stamps the end has taken: it sends back the latest. What it was never sent it cannot send back. */
static void sent_options(struct tcp_end *t, struct nst_engine *e, const struct rte_tcp_hdr *h)
{
    enum { STAMPS_ONLY = 8 << 4 };
    uint32_t stamp, echo;

    bool stamps = tcp_stamps(h, &stamp, &echo);
    if (stamps && (t->flags & TCP_STAMPED) && seq_diff(echo, t->stamp) <= 0 &&
        ((t->flags & TCP_ECHOED) == 0 || seq_diff(echo, t->echoed) > 0)) {
        t->echoed = echo;
        t->flags |= TCP_ECHOED;
    }
    if (unlikely(!stamps || h->data_off > STAMPS_ONLY) && (h->tcp_flags & RTE_TCP_SYN_FLAG) == 0) {
        struct tcp_options o;
        tcp_options(h, &o);
        e->stats.selective += o.selective;
    }
}

static nst_events sent(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p)
{
    struct nst_engine *e = f->engine;
    const struct rte_tcp_hdr *h = tcp_header(p);
    uint8_t flags = h->tcp_flags;

    if (unlikely(flags & RTE_TCP_SYN_FLAG))
        sent_syn(t, e, p, h);
    /* Whether a reset is valid, the other end's inspector knows better. */
    if (unlikely(flags & RTE_TCP_RST_FLAG)) {
        if (e->nf->half[!side].inspect != &nst_tcp)
            t->now |= TCP_RESET;
        return 0;
    }
    if (flags & RTE_TCP_ACK_FLAG) {
        uint32_t ack = rte_be_to_cpu_32(h->recv_ack);
        bool syn = (flags & RTE_TCP_SYN_FLAG) != 0;
        if (unlikely((syn || (t->flags & (TCP_SYN_SENT | TCP_CONFIRMED)) == TCP_SYN_SENT)) && (t->flags & TCP_SYNCED))
            sent_beginning(t, f, side, ack, syn);
        t->heard = 1;
        if (h->data_off > 5 << 4)
            sent_options(t, e, h);
        tcp_acknowledges(t, e, side, h, p, ack);
    }
    if (unlikely(flags & RTE_TCP_FIN_FLAG)) {
        t->now |= TCP_FIN_SENT;
        if ((t->flags & TCP_FIN_SENT) == 0)
            t->fin_sent = rte_be_to_cpu_32(h->sent_seq) + ((flags & RTE_TCP_SYN_FLAG) != 0) + p->h.payload_len + 1;
    }
    return 0;
}

static nst_events tcp_packet(void *self, struct nst_flow *f, enum nst_side side, enum nst_dir dir, struct nst_packet *p)
{
    struct tcp_end *t = self;

    t->fresh = t->given = 0;
    t->now = 0;
    nst_events what = dir == NST_RECEIVED ? received(t, f, side, p) : sent(t, f, side, p);
    uint16_t syn = dir == NST_RECEIVED ? TCP_SYN_RECEIVED : TCP_SYN_SENT,
             fin = dir == NST_RECEIVED ? TCP_FIN_RECEIVED : TCP_FIN_SENT;
    uint16_t change = t->now & (uint16_t)~t->flags;
    if (unlikely((change & (syn | fin | TCP_RESET)) | (t->now & (TCP_NOW_CONFLICT | TCP_NOW_NORMAL)))) {
        if ((change & syn) && (tcp_header(p)->tcp_flags & (RTE_TCP_SYN_FLAG | RTE_TCP_ACK_FLAG)) == RTE_TCP_SYN_FLAG)
            what |= NST_EV_START;
        if (change & fin)
            what |= NST_EV_FIN;
        if (change & TCP_RESET)
            what |= NST_EV_RESET;
        f->engine->stats.conflicts += (t->now & TCP_NOW_CONFLICT) != 0;
        f->engine->stats.normalised += (t->now & TCP_NOW_NORMAL) != 0;
    }
    const nst_events odd = NST_EV_GAP | NST_EV_RETRANSMIT | EV_REFUSED | EV_WINDOW | EV_BAD_ACK;
    if (unlikely((what & odd) || (p->h.tcp_flags & RTE_TCP_FIN_FLAG)) && dir == NST_RECEIVED &&
        (flow_wants(f, side, NST_RECEIVED) & NST_EV_ELSEWHERE))
        what = tcp_elsewhere(t, f, side, p, what);
    return what;
}

/* Bytes that nobody will compare any more are forgotten. */
static void forget(struct tcp_end *t, struct nst_flow *f, enum nst_side side)
{
    struct nst_engine *e = f->engine;
    uint32_t most = TCP_UNACKED_MAX, next = next_seq(t);

    if (e->unkept[side] && !t->heard)
        most = e->stream.per_end / 2 < HISTORY ? e->stream.per_end / 2 : HISTORY;
    if (seq_diff(next, t->acked) > (int32_t)most) {
        t->acked = next - most;
        stream_trim(&t->kept, &e->stream, t->acked);
    }
    if (t->kept.first != NULL && !flow_keeps(f, side))
        stream_trim(&t->kept, &e->stream, next);
}

static void came_true(struct tcp_end *t, struct nst_flow *f, uint16_t now)
{
    t->flags |= now;
    if (now & TCP_RESET)
        nst_flow_life(f, NST_LIFE_CLOSING, NST_CLOSED_BY_RST);
    else if ((t->flags & TCP_FIN_RECEIVED) && (t->flags & TCP_FIN_SENT))
        nst_flow_life(f, NST_LIFE_CLOSING, NST_CLOSED_BY_FIN);
    else if (now & TCP_OPENED)
        nst_flow_life(f, NST_LIFE_ESTABLISHED, NST_OPEN_STILL);
    if ((now & (TCP_FIN_RECEIVED | TCP_FIN_SENT)) == TCP_FIN_RECEIVED && (t->flags & TCP_FIN_SENT))
        t->waits = 1;
}

static void __attribute__((noinline))
decided(struct tcp_end *t, struct nst_flow *f, enum nst_side side, enum nst_verdict v)
{
    struct nst_engine *e = f->engine;
    bool passed = v == NST_FORWARD || v == NST_FORWARD_FLOW || v == NST_TAKEN;

    if (t->adds) {
        struct segment *pieces = segment_numbered(&e->stream, t->adding);
        if (passed && t->fresh == 0 && t->overlap == NST_OVERLAP_FIRST) /* behind a hole */
            stream_add_joined(&t->kept, &e->stream, pieces);
        else if (passed)
            stream_add(&t->kept, &e->stream, pieces);
        else
            stream_free(&e->stream, pieces);
        t->adding = 0;
        t->adds = 0;
    }
    if (likely(passed)) {
        if (t->fresh != 0) {
            t->delivered += t->fresh;
            e->stats.stream_bytes += t->fresh;
            if (unlikely(t->flags & TCP_LOST))
                tcp_hole_settle(t);
            forget(t, f, side);
        }
        t->fin_acked |= (t->now & TCP_NOW_FIN_ACKED) != 0;
        uint16_t now = t->now & (uint16_t) ~(t->flags | TCP_NOW_ONLY);
        if (unlikely(now != 0))
            came_true(t, f, now);
    } else if (t->now & TCP_NOW_SYNCED) {
        unsync(t);
    }
    t->fresh = t->given = 0;
    t->now = 0;
}

/* Most acknowledgments leave nothing to be decided at either end: that is known without a frame of one's own. */
void tcp_verdict(void *self, struct nst_flow *f, enum nst_side side, enum nst_verdict v)
{
    struct tcp_end *t = self;

    if ((t->fresh | t->now | t->adds) != 0)
        decided(t, f, side, v);
}

void tcp_close(void *self, struct nst_flow *f, enum nst_side side)
{
    struct tcp_end *t = self;

    stream_free(&f->engine->stream, t->kept.first);
    stream_free(&f->engine->stream, segment_numbered(&f->engine->stream, t->adding));
    t->kept = (struct stream){ 0 };
    t->adding = 0;
    t->adds = 0;
}

void tcp_rewind(void *self, struct nst_flow *f, enum nst_side side)
{
    struct tcp_end *t = self;

    t->given = 0;
}

const struct nst_inspector nst_tcp = {
    .name = "tcp",
    .size = sizeof(struct tcp_end),
    .packet = tcp_packet,
    .verdict = tcp_verdict,
    .close = tcp_close,
    .bytes = tcp_bytes,
    .rewind = tcp_rewind,
};
