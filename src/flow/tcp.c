/* SPDX-License-Identifier: Apache-2.0 */
/* nst_tcp: one end of a TCP flow, as tcp.h describes it.
 *
 * `delivered` and `base` say which sequence number this end expects next. A packet that it receives is first only
 * looked at: how many bytes it would deliver (`fresh`), which pieces would have to be kept (`adding`), what it would
 * change
 * (`now`). The verdict then makes that true or forgets it.
 */
#include "flow/engine.h"
#include "flow/tcp_end.h"
#include <rte_byteorder.h>
#include <rte_tcp.h>

enum {
    SYNCED = 1, /* base is known */
    SYN_RECEIVED = 2,
    SYN_SENT = 4,
    OPENED = 8,
    FIN_KNOWN = 16,    /* where the stream that this end receives will end: fin */
    FIN_RECEIVED = 32, /* and everything before it was delivered */
    FIN_SENT = 64,
    RESET = 128,
    LOST = 256,      /* the end acknowledged bytes that never came by here */
    CONFIRMED = 512, /* the end itself has said where its stream begins */
};
enum {
    SEQ_AHEAD_MAX = 1 << 30, /* the largest window there is (RFC 7323) */
    UNACKED_MAX = 1 << 29,   /* further back nothing is compared, so that numbers cannot come round to it */
};

_Static_assert(sizeof(struct tcp_end) <= 72, "idle flows are paid for by the million");

static inline uint32_t next_seq(const struct tcp_end *t)
{
    return t->base + (uint32_t)t->delivered;
}

static void sync_at(struct tcp_end *t, uint32_t seq, uint64_t offset)
{
    t->base = seq - (uint32_t)offset;
    t->delivered = offset;
    t->acked = seq;
    t->flags |= SYNCED;
}

/* The end begins anew: whatever it was thought to have received is of another connection. */
static void restart(struct tcp_end *t, struct nst_engine *e)
{
    stream_free(&e->stream, t->kept.first);
    t->kept = (struct stream){ 0 };
    t->delivered = 0;
    t->flags &= SYN_SENT;
}

static inline const struct rte_tcp_hdr *tcp_header(const struct nst_packet *p)
{
    return rte_pktmbuf_mtod_offset(mbuf_of(p), const struct rte_tcp_hdr *, p->h.l4);
}

/* Which bytes become readable when the packet's [seq, seq + len) joins what is kept. */
static uint32_t reach(const struct tcp_end *t, uint32_t seq, uint32_t len)
{
    uint32_t start = next_seq(t), pos = start, end = seq + len;
    const struct segment *x = stream_from(&t->kept, pos);

    for (;;) {
        if (x != NULL && seq_diff(x->seq, pos) <= 0) {
            pos = segment_end(x);
            x = x->next;
        } else if (seq_diff(seq, pos) <= 0 && seq_diff(end, pos) > 0) {
            pos = x != NULL && seq_diff(x->seq, end) < 0 ? x->seq : end;
        } else {
            return pos - start;
        }
        while (x != NULL && seq_diff(segment_end(x), pos) <= 0)
            x = x->next;
    }
}

/* Many captures, and NFs that follow one end, see one direction only: there nobody confirms or acknowledges anything.
 */
static bool sees_both(const struct nst_engine *e, enum nst_side side)
{
    return !e->replay && e->nf->half[!side].inspect == &nst_tcp;
}

/* Whether bytes may go on that nothing could be compared with when they come again. Their receiver may have no room for
 * them yet, and so take what comes again. */
static bool may_go_unkept(const struct nst_engine *e, enum nst_side side)
{
    return !sees_both(e, side) || e->policy.on_no_memory == NST_FORWARD || e->policy.on_no_memory == NST_FORWARD_FLOW;
}

/* Looks at received payload: off counts in the packet. */
static nst_events look_at_bytes(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p,
                                uint32_t off, uint32_t seq, uint32_t len, nst_events before)
{
    struct nst_engine *e = f->engine;
    int32_t ahead = seq_diff(seq, next_seq(t));
    nst_events what = 0;

    if (ahead == 0 && t->kept.last == NULL && !flow_keeps(f, side)) {
        t->fresh = len;
        return len != 0 ? NST_EV_DATA : 0;
    }
    if (ahead < 0) {
        uint32_t behind = 0u - (uint32_t)ahead, old = len < behind ? len : behind;
        what |= NST_EV_RETRANSMIT;
        e->stats.retransmits++;
        /* What the end has acknowledged it will not look at again; the rest must be what was inspected. */
        uint32_t skip = seq_diff(t->acked, seq) > 0 ? t->acked - seq : 0;
        if (skip < old && flow_keeps(f, side)) {
            const struct segment *x = stream_from(&t->kept, seq + skip);
            if (x == NULL || seq_diff(x->seq, seq + skip) > 0)
                e->stats.unverified++;
        }
    } else if (ahead > 0) {
        what |= NST_EV_GAP;
        e->stats.gaps++;
        if (ahead > SEQ_AHEAD_MAX)
            return what | EV_REFUSED;
    }
    if (t->kept.last != NULL && stream_differs(&t->kept, p, off, seq, len)) {
        what |= NST_EV_CONFLICT;
        if ((before & NST_EV_CONFLICT) == 0)
            e->stats.conflicts++;
    }
    /* Bytes from here on are new: keep them where they are ahead, or until they are acknowledged. */
    uint32_t skip = ahead < 0 ? 0u - (uint32_t)ahead : 0;
    if (skip < len && (ahead > 0 || flow_keeps(f, side))) {
        /* Counted from what is acknowledged, so that what is ahead never takes the room of what would fill the hole. */
        bool unkept = may_go_unkept(e, side);
        bool room = (unkept ? t->kept.bytes + (len - skip) : seq + len - t->acked) <= e->stream.per_end;
        if (!room || stream_missing(&t->kept, &e->stream, p, off + skip, seq + skip, len - skip, &t->adding) < 0) {
            if (ahead > 0 || !unkept)
                return what | EV_REFUSED;
            e->stats.unkept_bytes += len - skip;
        }
    }
    if (ahead <= 0 || (t->flags & LOST)) {
        t->fresh = t->kept.last == NULL && ahead <= 0 ? len - (skip < len ? skip : len) : reach(t, seq, len);
        if (t->fresh != 0)
            what |= NST_EV_DATA;
    }
    return what;
}

/* Whether a FIN at `end` says where the stream ends. One that contradicts what was seen is a conflict, or else bytes
 * behind a FIN that its receiver never took would pass unseen. */
static bool ends_there(const struct tcp_end *t, uint32_t end, nst_events *what)
{
    bool known = (t->flags & FIN_KNOWN) != 0;

    if (!known && seq_diff(end, next_seq(t)) >= 0 && (t->kept.last == NULL || seq_diff(end, t->kept.end) >= 0))
        return true;
    /* An old one, before what the end has acknowledged, is ignored there. */
    if (known ? end != t->fin : seq_diff(end, t->acked) >= 0)
        *what |= NST_EV_CONFLICT;
    return false;
}

static nst_events received(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p)
{
    const struct rte_tcp_hdr *h = tcp_header(p);
    uint32_t seq = rte_be_to_cpu_32(h->sent_seq), len = p->h.payload_len, off = p->h.payload;
    uint8_t flags = h->tcp_flags;
    nst_events what = 0;

    if (flags & RTE_TCP_RST_FLAG) {
        /* RFC 9293, 3.10.7: only the very next number resets, the end answers any other with an ACK; and an end that
         * waits for the answer to its SYN takes a reset that acknowledges that. */
        bool refused = (t->flags & (SYNCED | SYN_SENT)) == SYN_SENT && (flags & RTE_TCP_ACK_FLAG);
        if (refused || ((t->flags & SYNCED) && seq == next_seq(t)))
            t->now |= RESET;
        return 0;
    }
    if (flags & RTE_TCP_SYN_FLAG) {
        /* An answer to something else than this end's SYN is refused there. */
        if ((flags & RTE_TCP_ACK_FLAG) && (t->flags & (SYN_SENT | CONFIRMED)) == SYN_SENT &&
            rte_be_to_cpu_32(h->recv_ack) - t->iss - 1 > t->syn_len)
            return 0;
        /* Until the end has answered, a new try may bring another initial number. */
        if ((t->flags & SYNCED) == 0 ||
            ((t->flags & (OPENED | SYN_SENT)) == 0 && t->delivered == 0 && t->kept.last == NULL))
            sync_at(t, seq + 1, 0);
        t->now |= SYN_RECEIVED;
        seq++;
    } else if ((t->flags & SYNCED) == 0) {
        return NST_EV_MIDSTREAM;
    } else if (len > 0 && (t->flags & CONFIRMED) == 0 && sees_both(f->engine, side) &&
               ((t->flags & SYN_SENT) == 0 || seq - t->base > t->delivered)) {
        /* The SYN may have been one that the end ignores, and the bytes of a connection that it has had for long. */
        f->engine->stats.conflicts++;
        return NST_EV_CONFLICT;
    }
    if ((flags & RTE_TCP_ACK_FLAG) && (t->flags & (OPENED | SYN_SENT)) == SYN_SENT &&
        ((t->flags | t->now) & SYN_RECEIVED)) {
        t->now |= OPENED;
        what |= NST_EV_OPEN;
    }
    if ((flags & RTE_TCP_FIN_FLAG) && ends_there(t, seq + len, &what)) {
        t->fin = seq + len;
        t->now |= FIN_KNOWN;
    }
    if (t->flags & FIN_KNOWN) { /* there is nothing behind the end of the stream */
        int32_t left = seq_diff(t->fin, seq);
        if (len > 0 && left < (int32_t)len) {
            len = left < 0 ? 0 : (uint32_t)left;
            what |= NST_EV_CONFLICT;
        }
    }
    if (what & NST_EV_CONFLICT)
        f->engine->stats.conflicts++;
    if (len > 0 || (t->flags & LOST))
        what |= look_at_bytes(t, f, side, p, off, seq, len, what);
    if (((t->flags | t->now) & FIN_KNOWN) && next_seq(t) + t->fresh == t->fin)
        t->now |= FIN_RECEIVED;
    return what;
}

/* This end acknowledged everything before ack. */
static void acknowledged(struct tcp_end *t, struct nst_engine *e, uint32_t ack)
{
    if ((t->flags & SYNCED) == 0 || seq_diff(ack, t->acked) <= 0 || seq_diff(ack, t->acked) > SEQ_AHEAD_MAX)
        return;
    /* The number behind a FIN is no byte. */
    uint32_t next = next_seq(t), upto = (t->flags & FIN_KNOWN) && ack == t->fin + 1 ? t->fin : ack;
    if (seq_diff(upto, next) > 0 && !e->replay) {
        /* Nothing reaches it but through here. Believing it would let two accomplices skip the inspection. */
        upto = next;
    } else if (seq_diff(upto, next) > 0) {
        /* A capture has holes: the end has got bytes that were not recorded. Go on behind them; what is kept from
         * before the hole's end is handed out first, by the next packet that this end receives. */
        const struct segment *x = stream_from(&t->kept, next);
        if (x != NULL && seq_diff(x->seq, upto) < 0) {
            if (seq_diff(x->seq, next) > 0) {
                t->delivered += x->seq - next;
                e->stats.lost_bytes += x->seq - next;
            }
        } else {
            t->delivered += upto - next;
            e->stats.lost_bytes += upto - next;
        }
        t->flags |= LOST;
        upto = next_seq(t);
    }
    t->acked = upto;
    stream_trim(&t->kept, &e->stream, upto);
}

static nst_events sent(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p)
{
    const struct rte_tcp_hdr *h = tcp_header(p);
    uint8_t flags = h->tcp_flags;

    if (flags & RTE_TCP_SYN_FLAG) {
        uint32_t iss = rte_be_to_cpu_32(h->sent_seq);
        if ((flags & RTE_TCP_ACK_FLAG) == 0 && (t->flags & SYN_SENT) && iss != t->iss)
            restart(t, f->engine);
        t->iss = iss;
        t->syn_len = p->h.payload_len;
        t->now |= SYN_SENT;
    }
    if (flags & RTE_TCP_FIN_FLAG)
        t->now |= FIN_SENT;
    /* Whether a reset is valid, the other end's inspector knows better. */
    if ((flags & RTE_TCP_RST_FLAG) && f->engine->nf->half[!side].inspect != &nst_tcp)
        t->now |= RESET;
    if ((flags & RTE_TCP_ACK_FLAG) && (flags & RTE_TCP_RST_FLAG) == 0) {
        uint32_t ack = rte_be_to_cpu_32(h->recv_ack);
        /* Of several SYNs with different numbers this tells which one the end has taken. Without a SYN of its own an
         * ACK says nothing: it may be of an older connection. */
        bool begins = (flags & RTE_TCP_SYN_FLAG) || (t->flags & (SYN_SENT | CONFIRMED)) == SYN_SENT;
        if (begins && (t->flags & SYNCED)) {
            /* Where a capture has a hole right at the beginning, the stream goes on behind it. */
            bool hole = f->engine->replay && (flags & RTE_TCP_SYN_FLAG) == 0 && seq_diff(ack, next_seq(t)) > 0;
            if (!hole && ack - t->base > t->delivered + ((t->flags & FIN_RECEIVED) != 0)) {
                restart(t, f->engine);
                sync_at(t, ack, 0);
                t->now |= SYN_RECEIVED;
            }
            t->now |= CONFIRMED;
        }
        acknowledged(t, f->engine, ack);
    }
    return 0;
}

static nst_events tcp_packet(void *self, struct nst_flow *f, enum nst_side side, enum nst_dir dir, struct nst_packet *p)
{
    struct tcp_end *t = self;

    t->fresh = t->given = 0;
    t->now = 0;
    nst_events what = dir == NST_RECEIVED ? received(t, f, side, p) : sent(t, f, side, p);
    uint16_t syn = dir == NST_RECEIVED ? SYN_RECEIVED : SYN_SENT, fin = dir == NST_RECEIVED ? FIN_RECEIVED : FIN_SENT;
    uint16_t change = t->now & (uint16_t)~t->flags;
    if (unlikely(change & (syn | fin | RESET))) {
        if ((change & syn) && (tcp_header(p)->tcp_flags & (RTE_TCP_SYN_FLAG | RTE_TCP_ACK_FLAG)) == RTE_TCP_SYN_FLAG)
            what |= NST_EV_START;
        if (change & fin)
            what |= NST_EV_FIN;
        if (change & RESET)
            what |= NST_EV_RESET;
    }
    return what;
}

static void tcp_verdict(void *self, struct nst_flow *f, enum nst_side side, enum nst_verdict v)
{
    struct tcp_end *t = self;
    bool passed = v == NST_FORWARD || v == NST_FORWARD_FLOW || v == NST_TAKEN;

    if (t->adding != NULL) {
        if (passed)
            stream_add(&t->kept, t->adding);
        else
            stream_free(&f->engine->stream, t->adding);
        t->adding = NULL;
    }
    if (passed) {
        if (t->fresh != 0) {
            t->delivered += t->fresh;
            if (seq_diff(next_seq(t), t->acked) > UNACKED_MAX) {
                t->acked = next_seq(t) - UNACKED_MAX;
                stream_trim(&t->kept, &f->engine->stream, t->acked);
            }
            f->engine->stats.stream_bytes += t->fresh;
            t->flags &= (uint16_t)~LOST;
            if (t->kept.first != NULL && !flow_keeps(f, side))
                stream_trim(&t->kept, &f->engine->stream, next_seq(t));
        }
        uint16_t now = t->now & (uint16_t)~t->flags;
        if (now != 0) {
            t->flags |= now;
            if (now & RESET)
                nst_flow_life(f, NST_LIFE_CLOSING, NST_CLOSED_BY_RST);
            else if ((t->flags & FIN_RECEIVED) && (t->flags & FIN_SENT))
                nst_flow_life(f, NST_LIFE_CLOSING, NST_CLOSED_BY_FIN);
            else if (now & OPENED)
                nst_flow_life(f, NST_LIFE_ESTABLISHED, NST_OPEN_STILL);
        }
    }
    t->fresh = t->given = 0;
    t->now = 0;
}

static void tcp_close(void *self, struct nst_flow *f, enum nst_side side)
{
    struct tcp_end *t = self;

    stream_free(&f->engine->stream, t->kept.first);
    stream_free(&f->engine->stream, t->adding);
    t->kept = (struct stream){ 0 };
    t->adding = NULL;
}

/* What was kept first goes before what the packet brings. */
static bool tcp_bytes(void *self, struct nst_flow *f, enum nst_side side, struct nst_slice *out)
{
    struct tcp_end *t = self;

    if (t->given == t->fresh)
        return false;
    uint32_t pos = next_seq(t) + t->given, left = t->fresh - t->given;
    const struct segment *x = stream_from(&t->kept, pos);
    if (x != NULL && seq_diff(x->seq, pos) <= 0) {
        uint32_t n = segment_end(x) - pos;
        *out = (struct nst_slice){ x->data + (pos - x->seq), n < left ? n : left };
    } else {
        const struct nst_packet *p = nst_flow_packet(f, side);
        const struct rte_tcp_hdr *h = tcp_header(p);
        uint32_t seq = rte_be_to_cpu_32(h->sent_seq) + ((h->tcp_flags & RTE_TCP_SYN_FLAG) != 0);
        if (x != NULL && x->seq - pos < left)
            left = x->seq - pos;
        const uint8_t *at = NULL;
        uint32_t n = packet_piece(p, p->h.payload + (pos - seq), left, &at);
        if (n == 0)
            return false;
        *out = (struct nst_slice){ at, n };
    }
    t->given += (uint32_t)out->len;
    return true;
}

static void tcp_rewind(void *self, struct nst_flow *f, enum nst_side side)
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

static struct tcp_end *end_of(const struct nst_flow *f, enum nst_side side)
{
    return f->engine->nf->half[side].inspect == &nst_tcp ? nst_flow_inspector((struct nst_flow *)(uintptr_t)f, side)
                                                         : NULL;
}

uint64_t nst_tcp_offset(const struct nst_flow *f, enum nst_side side)
{
    const struct tcp_end *t = end_of(f, side);
    return t != NULL ? t->delivered : 0;
}

uint32_t nst_tcp_seq(const struct nst_flow *f, enum nst_side side)
{
    const struct tcp_end *t = end_of(f, side);
    return t != NULL ? next_seq(t) : 0;
}

/* The flow is followed from here on; its current packet is looked at again. */
static nst_events look_again(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p)
{
    t->flags |= OPENED | SYN_RECEIVED | SYN_SENT | CONFIRMED;
    nst_flow_life(f, NST_LIFE_ESTABLISHED, NST_OPEN_STILL);
    nst_events what = tcp_packet(t, f, side, NST_RECEIVED, p);
    if (what & EV_REFUSED)
        p->flags |= PACKET_REFUSED;
    return what & ~EV_REFUSED;
}

nst_events nst_tcp_resume(struct nst_flow *f, enum nst_side side, uint32_t seq, uint64_t offset)
{
    struct tcp_end *t = end_of(f, side);
    struct nst_packet *p = nst_flow_packet(f, side);

    if (t == NULL || (t->flags & SYNCED) || p == NULL)
        return 0;
    sync_at(t, seq, offset);
    return look_again(t, f, side, p);
}

nst_events tcp_pickup(struct nst_flow *f, enum nst_side side, struct nst_packet *p)
{
    struct tcp_end *t = end_of(f, side);

    if (t == NULL || (t->flags & SYNCED) || p == NULL)
        return 0;
    sync_at(t, rte_be_to_cpu_32(tcp_header(p)->sent_seq), 0);
    return look_again(t, f, side, p);
}

nst_events nst_tcp_pickup(struct nst_flow *f, enum nst_side side)
{
    return tcp_pickup(f, side, nst_flow_packet(f, side));
}

bool tcp_stream_ended(struct nst_flow *f, enum nst_side side)
{
    const struct tcp_end *t = end_of(f, side);
    return t != NULL && (t->flags & FIN_RECEIVED);
}
