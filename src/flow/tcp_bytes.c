/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of one end's stream: what a segment brings, what has to be kept of it, what it contradicts. */
#include "flow/tcp_end.h"

/* An end never holds more blocks than these, however few bytes are in each; and of what all ends share, no more than
 * leaves room for others. */
static bool has_room(const struct tcp_end *t, const struct stream_pool *pool, bool ahead)
{
    enum { BYTES_A_BLOCK = SEGMENT_BLOCK / 2, SOME = 16 };
    return t->kept.blocks <= pool->per_end / BYTES_A_BLOCK + SOME && stream_shares(pool, t->kept.blocks, ahead);
}

/* Counted from what is acknowledged, so that what is ahead never takes the room of what would fill the hole. */
static bool in_reach(const struct tcp_end *t, const struct stream_pool *pool, uint32_t end)
{
    return seq_diff(end, t->acked) <= 0 || end - t->acked <= pool->per_end;
}

/* Which bytes become readable when the packet's [seq, seq + len) joins what is kept. */
static uint32_t reach(const struct tcp_end *t, uint32_t seq, uint32_t len)
{
    uint32_t start = next_seq(t), pos = start, end = seq + len;
    const struct segment *x = stream_from(&t->kept, pos);

    for (;;) {
        if (x != NULL && seq_diff(x->seq, pos) <= 0) {
            pos = segment_end(x);
            x = segment_next(x);
        } else if (seq_diff(seq, pos) <= 0 && seq_diff(end, pos) > 0) {
            pos = x != NULL && seq_diff(x->seq, end) < 0 ? x->seq : end;
        } else {
            return pos - start;
        }
        while (x != NULL && seq_diff(segment_end(x), pos) <= 0)
            x = segment_next(x);
    }
}

/* The bytes are kept if there is room. */
static bool keep(struct tcp_end *t, struct stream_pool *pool, const struct stream_new *n, bool ahead)
{
    struct segment *pieces;

    if (!in_reach(t, pool, n->seq + n->len) || !has_room(t, pool, ahead) ||
        stream_missing(&t->kept, pool, n, &pieces) < 0)
        return false;
    t->adding = segment_number(pool, pieces) & INT32_MAX;
    t->adds = pieces != NULL;
    return true;
}

bool tcp_keep_next(struct tcp_end *t, struct nst_flow *f, enum nst_side side, const struct nst_packet *p, uint32_t off,
                   uint32_t seq, uint32_t len)
{
    struct nst_engine *e = f->engine;
    struct stream_new n = { .packet = p, .off = off, .seq = seq, .len = len, .from = seq, .next = seq };

    if (keep(t, &e->stream, &n, false))
        return true;
    if (!e->unkept[side])
        return false;
    e->stats.unkept_bytes += len;
    return true;
}

/* Bytes from `from` on are new here, or may take the place of what is kept. False: they cannot be kept, and may not
 * pass so. */
static bool keep_new(struct tcp_end *t, struct nst_flow *f, enum nst_side side, const struct stream_new *n, bool ahead)
{
    struct nst_engine *e = f->engine;

    if (!ahead && !flow_keeps(f, side))
        return true; /* they are handed out, and forgotten */
    if (keep(t, &e->stream, n, ahead))
        return true;
    bool overlaps = t->kept.last != NULL && seq_diff(t->kept.end, n->next) > 0;
    if (ahead || !e->unkept[side] || (overlaps && n->policy != NST_OVERLAP_FIRST))
        return false;
    e->stats.unkept_bytes += n->seq + n->len - n->from;
    return true;
}

int tcp_keep_bytes(struct tcp_end *t, struct nst_flow *f, struct stream_new *n)
{
    struct stream_pool *pool = &f->engine->stream;

    n->policy = (enum nst_overlap)t->overlap;
    n->next = next_seq(t);
    if (seq_diff(n->from, n->next) < 0)
        n->from = n->next;
    struct stream_new first = *n;
    first.policy = NST_OVERLAP_FIRST;
    if (!keep(t, pool, &first, seq_diff(n->seq, n->next) > 0))
        return -ENOSPC;
    stream_add(&t->kept, pool, segment_numbered(pool, t->adding));
    t->adding = 0;
    t->adds = 0;
    return 0;
}

static void count_unverified(struct tcp_end *t, struct nst_engine *e, uint32_t seq, uint32_t end)
{
    uint32_t next = next_seq(t), from = seq_diff(t->acked, seq) > 0 ? t->acked : seq;

    if (seq_diff(end, next) > 0)
        end = next;
    if (seq_diff(from, end) < 0 && !stream_covers(&t->kept, from, end))
        e->stats.unverified++;
}

static bool contradicts(struct tcp_end *t, struct nst_flow *f, enum nst_side side, const struct nst_packet *p,
                        uint32_t off, uint32_t seq, uint32_t len)
{
    uint32_t from = compared_from(t, f, side), skip = seq_diff(from, seq) > 0 ? from - seq : 0;

    return t->kept.last != NULL && skip < len && stream_differs(&t->kept, p, off + skip, seq + skip, len - skip);
}

/* Where the hole ends that the end acknowledged. The number behind a FIN is no byte, also when the FIN came later. */
static uint32_t hole_told(const struct tcp_end *t)
{
    return (t->flags & TCP_FIN_KNOWN) && t->edge == t->fin + 1 ? t->fin : t->edge;
}

void tcp_hole_settle(struct tcp_end *t)
{
    if (t->hole == 0 || seq_diff(hole_told(t), next_seq(t)) <= 0) {
        t->hole = 0;
        t->flags &= (uint16_t)~TCP_LOST;
    }
}

/* A capture has a hole that the end has acknowledged, and another segment comes. Once it is unlikely that any fills the
 * hole, the stream goes on behind it, where something is known: what is kept there is handed out by this segment. */
static void __attribute__((noinline))
pass_hole(struct tcp_end *t, struct nst_engine *e, uint32_t seq, uint32_t len, bool fin)
{
    uint32_t next = next_seq(t), to = hole_told(t);
    const struct segment *x = stream_from(&t->kept, next);
    bool ahead = len > 0 && seq_diff(seq, next) > 0, last = fin && (t->flags & TCP_FIN_SENT);

    if (seq_diff(to, next) <= 0) {
        t->hole = 0;
        return;
    }
    if (len > 0 && !ahead && seq_diff(seq + len, next) > 0)
        return;
    t->hole--;
    if (t->hole != 0 && !last && !(ahead && !(in_reach(t, &e->stream, seq + len) && has_room(t, &e->stream, true))))
        return;
    if (x != NULL && seq_diff(x->seq, to) < 0)
        to = x->seq;
    if (ahead && seq_diff(seq, to) < 0)
        to = seq;
    e->stats.lost_bytes += to - next;
    t->delivered += to - next;
    t->acked = to;
    stream_trim(&t->kept, &e->stream, to);
    t->hole = to != hole_told(t); /* further holes were acknowledged as long ago */
}

nst_events tcp_look_at_bytes(struct tcp_end *t, struct nst_flow *f, enum nst_side side, struct nst_packet *p,
                             uint32_t off, uint32_t seq, uint32_t len, bool fin)
{
    struct nst_engine *e = f->engine;

    if (unlikely(t->hole != 0))
        pass_hole(t, e, seq, len, fin);
    uint32_t next = next_seq(t);
    int32_t ahead = seq_diff(seq, next);
    nst_events what = 0;

    if (len > 0 && ahead < 0) {
        what |= NST_EV_RETRANSMIT;
        e->stats.retransmits++;
        if (flow_keeps(f, side))
            count_unverified(t, e, seq, seq + len);
    } else if (len > 0 && ahead > 0) {
        what |= NST_EV_GAP;
        e->stats.gaps++;
        if (ahead > TCP_AHEAD_MAX)
            return what | EV_REFUSED;
    }
    if (contradicts(t, f, side, p, off, seq, len)) {
        what |= NST_EV_CONFLICT;
        t->now |= TCP_NOW_CONFLICT;
        if (e->policy.normalise) {
            uint32_t from = compared_from(t, f, side), skip = seq_diff(from, seq) > 0 ? from - seq : 0;
            if (tcp_normal_bytes(t, p, off + skip, seq + skip, len - skip)) {
                t->now |= TCP_NOW_NORMAL;
                if ((flow_wants(f, side, NST_RECEIVED) & NST_EV_CONFLICT) == 0)
                    what &= ~NST_EV_CONFLICT;
            }
        }
    }
    uint32_t skip = ahead < 0 ? 0u - (uint32_t)ahead : 0;
    if (skip < len) {
        struct stream_new n = { .packet = p,
                                .off = off,
                                .seq = seq,
                                .len = len,
                                .from = seq + skip,
                                .policy = (enum nst_overlap)t->overlap,
                                .next = next };
        if (!keep_new(t, f, side, &n, ahead > 0))
            return what | EV_REFUSED;
    }
    if (ahead <= 0 || (t->flags & TCP_LOST)) {
        t->fresh = t->kept.last == NULL && ahead <= 0 ? len - (skip < len ? skip : len) : reach(t, seq, len);
        if (t->fresh != 0)
            what |= NST_EV_DATA;
    }
    return what;
}

/* The current packet as a segment, without what lies behind the end of the stream. */
static struct stream_new current(const struct tcp_end *t, const struct nst_packet *p)
{
    const struct rte_tcp_hdr *h = tcp_header(p);
    struct stream_new n = { .packet = p,
                            .off = p->h.payload,
                            .seq = rte_be_to_cpu_32(h->sent_seq) + ((h->tcp_flags & RTE_TCP_SYN_FLAG) != 0),
                            .len = p->h.payload_len,
                            .policy = (enum nst_overlap)t->overlap };

    if (unlikely(h->tcp_flags & RTE_TCP_SYN_FLAG) && (t->flags & TCP_CONFIRMED))
        n.len = 0; /* of that the end takes nothing */
    if ((t->flags & TCP_FIN_KNOWN) && seq_diff(n.seq + n.len, t->fin) > 0)
        n.len = seq_diff(t->fin, n.seq) > 0 ? t->fin - n.seq : 0;
    return n;
}

/* At pos, which x holds: how many of its bytes come before the packet's take their place; 0: the packet's do. */
static uint32_t piece_first(const struct stream_new *n, const struct segment *x, uint32_t pos)
{
    uint32_t here = segment_end(x) - pos, end = n->seq + n->len;

    if (n->policy == NST_OVERLAP_FIRST || seq_diff(end, pos) <= 0 || seq_diff(n->seq, segment_end(x)) >= 0 ||
        !stream_replaces(n, x))
        return here;
    return seq_diff(n->seq, pos) <= 0 ? 0 : n->seq - pos;
}

bool tcp_bytes(void *self, struct nst_flow *f, enum nst_side side, struct nst_slice *out)
{
    struct tcp_end *t = self;
    const struct nst_packet *p = nst_flow_packet(f, side);

    /* Nothing is kept, or but what was delivered before: all is in the packet, most times from its first byte on. */
    if (likely((t->flags & (TCP_URGENT | TCP_FIN_KNOWN)) == 0 && (t->kept.last == NULL || t->kept.end == next_seq(t)) &&
               t->fresh == p->h.payload_len && mbuf_of(p)->nb_segs == 1)) {
        if (t->given == t->fresh)
            return false;
        *out = (struct nst_slice){ rte_pktmbuf_mtod_offset(mbuf_of(p), const uint8_t *, p->h.payload) + t->given,
                                   t->fresh - t->given };
        t->given = t->fresh;
        return true;
    }
    if (unlikely((t->flags & TCP_URGENT) && next_seq(t) + t->given == t->urgent && t->given != t->fresh))
        t->given++; /* read elsewhere */
    if (t->given == t->fresh)
        return false;
    uint32_t pos = next_seq(t) + t->given, left = t->fresh - t->given;
    if (unlikely((t->flags & TCP_URGENT) && t->urgent - pos < left))
        left = t->urgent - pos;
    const struct segment *x = stream_from(&t->kept, pos);
    struct stream_new n = current(t, p);
    uint32_t kept = x != NULL && seq_diff(x->seq, pos) <= 0 ? piece_first(&n, x, pos) : 0;
    if (kept != 0) {
        *out = (struct nst_slice){ segment_bytes(x) + (pos - x->seq), kept < left ? kept : left };
    } else {
        const uint8_t *at = NULL;
        uint32_t stop = left;
        if (x != NULL) {
            uint32_t to = seq_diff(x->seq, pos) > 0 ? x->seq : segment_end(x);
            stop = to - pos < left ? to - pos : left;
        }
        if (n.seq + n.len - pos < stop)
            stop = n.seq + n.len - pos;
        uint32_t len = packet_piece(p, n.off + (pos - n.seq), stop, &at);
        if (len == 0)
            return false;
        *out = (struct nst_slice){ at, len };
    }
    t->given += (uint32_t)out->len;
    return true;
}
