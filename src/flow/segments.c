/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/segments.h"
#include "base/region.h"
#include "flow/tcp_overlap.h"
#include <errno.h>
#include <string.h>

int stream_pool_open(struct stream_pool *pool, size_t bytes)
{
    size_t blocks = bytes / SEGMENT_BLOCK;

    if (blocks > INT32_MAX) /* links have a sign */
        blocks = INT32_MAX;
    void *p = region_open(blocks * SEGMENT_BLOCK);
    if (p == NULL)
        return -ENOMEM;
    *pool = (struct stream_pool){ .block = p, .limit = (uint32_t)blocks, .per_end = pool->per_end };
    pool->random = (uint32_t)((uintptr_t)p >> 12);
    return 0;
}

void stream_pool_close(struct stream_pool *pool)
{
    region_close(pool->block, (size_t)pool->limit * SEGMENT_BLOCK);
    pool->block = NULL;
}

static struct segment *segment_get(struct stream_pool *pool)
{
    struct segment *s = pool->free;

    if (s != NULL)
        pool->free = segment_next(s);
    else if (pool->touched < pool->limit)
        s = &pool->block[pool->touched++];
    else
        return NULL;
    if (++pool->used > pool->used_peak)
        pool->used_peak = pool->used;
    return s;
}

static void segment_put(struct stream_pool *pool, struct segment *s)
{
    pool->used--;
    s->behind = pool->free != NULL ? (int32_t)(pool->free - s) : 0;
    pool->free = s;
}

void stream_free(struct stream_pool *pool, struct segment *pieces)
{
    while (pieces != NULL) {
        struct segment *next = segment_next(pieces);
        segment_put(pool, pieces);
        pieces = next;
    }
}

uint32_t packet_piece(const struct nst_packet *p, uint32_t off, uint32_t len, const uint8_t **at)
{
    const struct rte_mbuf *m = mbuf_of(p);

    while (m != NULL && off >= rte_pktmbuf_data_len(m)) {
        off -= rte_pktmbuf_data_len(m);
        m = m->next;
    }
    if (m == NULL)
        return 0;
    *at = rte_pktmbuf_mtod_offset(m, const uint8_t *, off);
    uint32_t here = rte_pktmbuf_data_len(m) - off;
    return here < len ? here : len;
}

static void copy_bytes(const struct nst_packet *p, uint32_t off, uint8_t *to, uint32_t len)
{
    while (len > 0) {
        const uint8_t *at;
        uint32_t n = packet_piece(p, off, len, &at);
        if (n == 0) { /* shorter than its headers say: the parser lets no such packet through */
            memset(to, 0, len);
            return;
        }
        memcpy(to, at, n);
        to += n;
        off += n;
        len -= n;
    }
}

/* ---- the skip list ---- */
static void link_to(int32_t *link, const struct segment *from, const struct segment *to)
{
    *link = to != NULL ? (int32_t)(to - from) : 0;
}

static inline struct segment *up_of(const struct segment *s, unsigned level)
{
    return s->up[level] != 0 ? (struct segment *)(uintptr_t)(s + s->up[level]) : NULL;
}

/* How many levels a piece gets: one in 32 gets one more. */
static unsigned height(struct stream_pool *pool)
{
    enum { SPARSE = 31 };
    unsigned h = 0;

    pool->random = pool->random * 1664525 + 1013904223;
    for (uint32_t r = pool->random >> 12; h < SEGMENT_LEVELS && (r & SPARSE) == 0; r >>= 5)
        h++;
    return h;
}

struct segment *stream_search(const struct stream *s, uint32_t seq)
{
    struct segment *x = s->first, *y;

    if (seq_diff(segment_end(x), seq) > 0)
        return x;
    for (unsigned level = SEGMENT_LEVELS; level-- > 0;) {
        while ((y = up_of(x, level)) != NULL && seq_diff(segment_end(y), seq) <= 0)
            x = y;
    }
    while (seq_diff(segment_end(x), seq) <= 0)
        x = segment_next(x);
    return x;
}

/* What stands before the place of seq, at each level and, last, in the list itself. There is a piece before it. */
static void path_to(const struct stream *s, uint32_t seq, struct segment *path[SEGMENT_LEVELS + 1])
{
    struct segment *x = s->first, *y;

    for (unsigned level = SEGMENT_LEVELS; level-- > 0;) {
        while ((y = up_of(x, level)) != NULL && seq_diff(y->seq, seq) < 0)
            x = y;
        path[level] = x;
    }
    while ((y = segment_next(x)) != NULL && seq_diff(y->seq, seq) < 0)
        x = y;
    path[SEGMENT_LEVELS] = x;
}

static void insert_first(struct stream *s, struct stream_pool *pool, struct segment *x)
{
    struct segment *was = s->first;
    unsigned h = height(pool);

    link_to(&x->behind, x, was);
    for (unsigned level = 0; level < SEGMENT_LEVELS; level++) {
        if (level < h) {
            link_to(&x->up[level], x, was);
        } else {
            link_to(&x->up[level], x, up_of(was, level));
            was->up[level] = 0;
        }
    }
    s->first = x;
}

static void insert(struct stream *s, struct stream_pool *pool, struct segment *x)
{
    struct segment *path[SEGMENT_LEVELS + 1];

    s->blocks++;
    x->behind = 0;
    memset(x->up, 0, sizeof x->up);
    if (s->first == NULL) {
        s->first = s->last = x;
        s->end = segment_end(x);
        return;
    }
    if (seq_diff(x->seq, s->first->seq) < 0) {
        insert_first(s, pool, x);
        return;
    }
    bool at_end = seq_diff(x->seq, s->end) >= 0;
    unsigned h = height(pool);
    if (h > 0 || !at_end)
        path_to(s, x->seq, path);
    struct segment *before = at_end ? s->last : path[SEGMENT_LEVELS];
    link_to(&x->behind, x, segment_next(before));
    link_to(&before->behind, before, x);
    for (unsigned level = 0; level < h; level++) {
        link_to(&x->up[level], x, up_of(path[level], level));
        link_to(&path[level]->up[level], path[level], x);
    }
    if (at_end) {
        s->last = x;
        s->end = segment_end(x);
    }
}

static void remove_first(struct stream *s, struct stream_pool *pool)
{
    struct segment *x = s->first, *n = segment_next(x);

    for (unsigned level = 0; n != NULL && level < SEGMENT_LEVELS; level++) {
        struct segment *up = up_of(x, level);
        if (up != n)
            link_to(&n->up[level], n, up);
    }
    if ((s->first = n) == NULL)
        s->last = NULL;
    s->blocks--;
    segment_put(pool, x);
}

static void remove_piece(struct stream *s, struct stream_pool *pool, struct segment *x)
{
    struct segment *path[SEGMENT_LEVELS + 1];

    if (x == s->first) {
        remove_first(s, pool);
        return;
    }
    path_to(s, x->seq, path);
    struct segment *before = path[SEGMENT_LEVELS];
    link_to(&before->behind, before, segment_next(x));
    for (unsigned level = 0; level < SEGMENT_LEVELS; level++) {
        if (up_of(path[level], level) == x)
            link_to(&path[level]->up[level], path[level], up_of(x, level));
    }
    if (s->last == x) {
        s->last = before;
        s->end = segment_end(before);
    }
    s->blocks--;
    segment_put(pool, x);
}

/* ---- what is new ---- */
bool stream_replaces(const struct stream_new *n, const struct segment *x)
{
    return overlap_new_wins(n->policy, n->seq, n->seq + n->len, x->seq - x->before, segment_end(x) + x->after);
}

/* The end of a list of pieces that is being made. */
struct making {
    struct stream_pool *pool;
    struct segment *first, *last;
};

static struct segment *make_piece(struct making *m, uint32_t seq, uint32_t len, uint32_t from, uint32_t to)
{
    struct segment *x = segment_get(m->pool);

    if (x == NULL)
        return NULL;
    x->behind = 0;
    x->seq = seq;
    x->len = (uint16_t)len;
    x->at = 0;
    x->before = (uint16_t)(seq - from);
    x->after = (uint16_t)(to - (seq + len));
    if (m->first == NULL)
        m->first = x;
    else
        link_to(&m->last->behind, m->last, x);
    m->last = x;
    return x;
}

/* The segment's bytes [from, to). */
static bool make_new(struct making *m, const struct stream_new *n, uint32_t from, uint32_t to)
{
    while (from != to) {
        uint32_t len = to - from < SEGMENT_BYTES ? to - from : SEGMENT_BYTES;
        struct segment *x = make_piece(m, from, len, n->seq, n->seq + n->len);
        if (x == NULL)
            return false;
        if (n->bytes != NULL)
            memcpy(x->data, n->bytes + (from - n->seq), len);
        else
            copy_bytes(n->packet, n->off + (from - n->seq), x->data, len);
        from += len;
    }
    return true;
}

/* Where the segment goes through the middle of a piece, what follows of that becomes a piece of its own. */
static bool make_rest(struct making *m, const struct segment *of, uint32_t from)
{
    uint32_t len = segment_end(of) - from;
    struct segment *x = make_piece(m, from, len, of->seq - of->before, segment_end(of) + of->after);

    if (x != NULL)
        memcpy(x->data, segment_bytes(of) + (from - of->seq), len);
    return x != NULL;
}

int stream_missing(const struct stream *s, struct stream_pool *pool, const struct stream_new *n, struct segment **out)
{
    uint32_t pos = n->from, end = n->seq + n->len;
    const struct segment *have = stream_from(s, pos);
    struct making m = { .pool = pool };
    bool ok = true;

    while (ok && pos != end) {
        if (have == NULL || seq_diff(have->seq, pos) > 0) {
            uint32_t stop = have != NULL && seq_diff(have->seq, end) < 0 ? have->seq : end;
            ok = make_new(&m, n, pos, stop);
            pos = stop;
            continue;
        }
        uint32_t stop = seq_diff(segment_end(have), end) < 0 ? segment_end(have) : end;
        if (n->policy != NST_OVERLAP_FIRST && stream_replaces(n, have)) {
            uint32_t from = seq_diff(n->next, pos) > 0 ? n->next : pos;
            if (seq_diff(from, stop) < 0) {
                ok = make_new(&m, n, from, stop);
                if (ok && from != have->seq && stop != segment_end(have))
                    ok = make_rest(&m, have, stop);
            }
        }
        pos = stop;
        have = segment_next(have);
    }
    if (!ok) {
        stream_free(pool, m.first);
        m.first = NULL;
    }
    *out = m.first;
    return ok ? 0 : -ENOSPC;
}

/* Nothing of the stream lies in [from, to) any more. Where a piece goes on behind it, that was either made anew, or the
 * piece does not begin before it. */
static void cut(struct stream *s, struct stream_pool *pool, uint32_t from, uint32_t to)
{
    struct segment *x = stream_from(s, from), *next;

    for (; x != NULL && seq_diff(x->seq, to) < 0; x = next) {
        uint32_t end = segment_end(x);
        next = segment_next(x);
        if (seq_diff(x->seq, from) < 0) {
            x->after = (uint16_t)(x->after + (end - from));
            x->len = (uint16_t)(from - x->seq);
            if (x == s->last)
                s->end = from;
        } else if (seq_diff(end, to) > 0) {
            uint32_t n = to - x->seq;
            x->seq = to;
            x->at = (uint16_t)(x->at + n);
            x->before = (uint16_t)(x->before + n);
            x->len = (uint16_t)(x->len - n);
        } else {
            remove_piece(s, pool, x);
        }
    }
}

void stream_add(struct stream *s, struct stream_pool *pool, struct segment *pieces)
{
    while (pieces != NULL) {
        struct segment *x = pieces;
        pieces = segment_next(x);
        if (s->last != NULL && seq_diff(x->seq, s->end) < 0)
            cut(s, pool, x->seq, segment_end(x));
        insert(s, pool, x);
    }
}

/* The piece that ends where x begins and has room for it, or NULL. It is searched for only where that pays. */
static struct segment *continued_by(const struct stream *s, const struct segment *x)
{
    enum { TINY = 64 };
    struct segment *y = NULL;

    if (s->last != NULL && s->end == x->seq)
        y = s->last;
    else if (x->len <= TINY)
        y = stream_from(s, x->seq - 1);
    return y != NULL && segment_end(y) == x->seq && y->at + y->len + x->len <= SEGMENT_BYTES ? y : NULL;
}

void stream_add_joined(struct stream *s, struct stream_pool *pool, struct segment *pieces)
{
    while (pieces != NULL) {
        struct segment *x = pieces, *before = continued_by(s, x);
        pieces = segment_next(x);
        if (before == NULL) {
            insert(s, pool, x);
            continue;
        }
        memcpy(before->data + before->at + before->len, segment_bytes(x), x->len);
        before->len = (uint16_t)(before->len + x->len);
        if (before == s->last)
            s->end = segment_end(before);
        segment_put(pool, x);
    }
}

void stream_trim(struct stream *s, struct stream_pool *pool, uint32_t seq)
{
    while (s->first != NULL && seq_diff(segment_end(s->first), seq) <= 0)
        remove_first(s, pool);
}

bool stream_covers(const struct stream *s, uint32_t seq, uint32_t end)
{
    const struct segment *x = stream_from(s, seq);

    for (; seq != end; x = segment_next(x)) {
        if (x == NULL || seq_diff(x->seq, seq) > 0)
            return false;
        seq = seq_diff(segment_end(x), end) < 0 ? segment_end(x) : end;
    }
    return true;
}

bool stream_differs(const struct stream *s, const struct nst_packet *p, uint32_t off, uint32_t seq, uint32_t len)
{
    uint32_t end = seq + len;

    for (const struct segment *x = stream_from(s, seq); x != NULL && seq_diff(x->seq, end) < 0; x = segment_next(x)) {
        uint32_t from = seq_diff(x->seq, seq) > 0 ? x->seq : seq;
        uint32_t to = seq_diff(segment_end(x), end) < 0 ? segment_end(x) : end;
        while (from != to) {
            const uint8_t *at;
            uint32_t n = packet_piece(p, off + (from - seq), to - from, &at);
            if (n == 0 || memcmp(at, segment_bytes(x) + (from - x->seq), n) != 0)
                return true;
            from += n;
        }
    }
    return false;
}
