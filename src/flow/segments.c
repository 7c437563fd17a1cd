/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/segments.h"
#include "base/region.h"
#include <errno.h>
#include <string.h>

int stream_pool_open(struct stream_pool *pool, size_t bytes)
{
    size_t blocks = bytes / SEGMENT_BLOCK;

    if (blocks > UINT32_MAX)
        blocks = UINT32_MAX;
    void *p = region_open(blocks * SEGMENT_BLOCK);
    if (p == NULL)
        return -ENOMEM;
    *pool = (struct stream_pool){ .block = p, .limit = (uint32_t)blocks, .per_end = pool->per_end };
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
        pool->free = s->next;
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
    s->next = pool->free;
    pool->free = s;
}

void stream_free(struct stream_pool *pool, struct segment *pieces)
{
    while (pieces != NULL) {
        struct segment *next = pieces->next;
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

struct segment *stream_search(const struct stream *s, uint32_t seq)
{
    struct segment *x = s->first;

    while (seq_diff(segment_end(x), seq) <= 0)
        x = x->next;
    return x;
}

int stream_missing(const struct stream *s, struct stream_pool *pool, const struct nst_packet *p, uint32_t off,
                   uint32_t seq, uint32_t len, struct segment **out)
{
    const struct segment *have = stream_from(s, seq);
    uint32_t end = seq + len;
    struct segment **tail = out;

    *out = NULL;
    while (seq != end) {
        uint32_t stop = end;
        if (have != NULL && seq_diff(have->seq, seq) <= 0) {
            seq = seq_diff(segment_end(have), end) < 0 ? segment_end(have) : end;
            have = have->next;
            continue;
        }
        if (have != NULL && seq_diff(have->seq, end) < 0)
            stop = have->seq;
        if (stop - seq > SEGMENT_BYTES)
            stop = seq + SEGMENT_BYTES;
        struct segment *piece = segment_get(pool);
        if (piece == NULL) {
            *tail = NULL;
            stream_free(pool, *out);
            *out = NULL;
            return -ENOSPC;
        }
        piece->seq = seq;
        piece->len = stop - seq;
        piece->next = NULL;
        copy_bytes(p, off + (seq - (end - len)), piece->data, stop - seq);
        *tail = piece;
        tail = &piece->next;
        seq = stop;
    }
    return 0;
}

void stream_add(struct stream *s, struct segment *pieces)
{
    struct segment **at = &s->first;

    while (pieces != NULL) {
        struct segment *x = pieces;
        pieces = x->next;
        s->bytes += x->len;
        if (s->last == NULL || seq_diff(x->seq, s->end) >= 0) {
            x->next = NULL;
            *(s->last != NULL ? &s->last->next : &s->first) = x;
            s->last = x;
            s->end = segment_end(x);
            continue;
        }
        while (seq_diff((*at)->seq, x->seq) < 0)
            at = &(*at)->next;
        x->next = *at;
        *at = x;
    }
}

void stream_trim(struct stream *s, struct stream_pool *pool, uint32_t seq)
{
    while (s->first != NULL && seq_diff(segment_end(s->first), seq) <= 0) {
        struct segment *x = s->first;
        s->first = x->next;
        s->bytes -= x->len;
        segment_put(pool, x);
    }
    if (s->first == NULL)
        s->last = NULL;
}

bool stream_differs(const struct stream *s, const struct nst_packet *p, uint32_t off, uint32_t seq, uint32_t len)
{
    uint32_t end = seq + len;

    for (const struct segment *x = stream_from(s, seq); x != NULL && seq_diff(x->seq, end) < 0; x = x->next) {
        uint32_t from = seq_diff(x->seq, seq) > 0 ? x->seq : seq;
        uint32_t to = seq_diff(segment_end(x), end) < 0 ? segment_end(x) : end;
        while (from != to) {
            const uint8_t *at;
            uint32_t n = packet_piece(p, off + (from - seq), to - from, &at);
            if (n == 0 || memcmp(at, x->data + (from - x->seq), n) != 0)
                return true;
            from += n;
        }
    }
    return false;
}
