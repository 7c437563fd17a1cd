/* SPDX-License-Identifier: Apache-2.0 */
/* flow/segments.h - kept pieces of a TCP stream: what is ahead of a hole, and what is not acknowledged yet.
 *
 * A stream keeps its pieces sorted by sequence number, without overlaps: where two segments bring bytes for one place,
 * the piece that came first stays. Pieces are blocks of one size out of a region that all streams of an engine share
 * and that is never exceeded; what is given back is used again, the warmest first. One owner thread.
 */
#pragma once
#include "io/packet.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SEGMENT_BLOCK = 512, SEGMENT_BYTES = SEGMENT_BLOCK - 16 };

struct segment {
    struct segment *next;
    uint32_t seq, len;
    uint8_t data[SEGMENT_BYTES];
};
_Static_assert(sizeof(struct segment) == SEGMENT_BLOCK, "a piece fills its block");

struct stream_pool {
    struct segment *free;
    struct segment *block;   /* the region */
    uint32_t touched, limit; /* blocks used so far, and how many there are */
    uint32_t used, used_peak;
    uint32_t per_end; /* bytes at most for one stream; its user looks at it */
};

struct stream {
    struct segment *first, *last;
    uint32_t bytes;
    uint32_t end; /* of the last piece, so that most questions are answered without a look at it */
};

static inline int32_t seq_diff(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b);
}
static inline uint32_t segment_end(const struct segment *s)
{
    return s->seq + s->len;
}

/* Reserves the region; its pages are taken as they are used. -ENOMEM. */
int stream_pool_open(struct stream_pool *pool, size_t bytes);
void stream_pool_close(struct stream_pool *pool);

/* Copies those of the packet's bytes [off, off + len), of which the first is number seq, that the stream does not hold:
 * a list of new pieces in *out, not yet part of the stream. -ENOSPC, the pool's limit: then *out is NULL. */
int stream_missing(const struct stream *s, struct stream_pool *pool, const struct nst_packet *p, uint32_t off,
                   uint32_t seq, uint32_t len, struct segment **out);

/* Makes such a list part of the stream. */
void stream_add(struct stream *s, struct segment *pieces);

/* Gives a list of pieces back. */
void stream_free(struct stream_pool *pool, struct segment *pieces);

/* Forgets every piece that ends at or before seq. */
void stream_trim(struct stream *s, struct stream_pool *pool, uint32_t seq);

/* True when some byte of the packet differs from the stream's at its place. */
bool stream_differs(const struct stream *s, const struct nst_packet *p, uint32_t off, uint32_t seq, uint32_t len);

struct segment *stream_search(const struct stream *s, uint32_t seq);

/* The first piece that ends behind seq, or NULL. */
static inline struct segment *stream_from(const struct stream *s, uint32_t seq)
{
    return s->last == NULL || seq_diff(s->end, seq) <= 0 ? NULL : stream_search(s, seq);
}

/* The longest run of bytes from `off` that lie in one piece in the packet, at most len: its length, and where. */
uint32_t packet_piece(const struct nst_packet *p, uint32_t off, uint32_t len, const uint8_t **at);
