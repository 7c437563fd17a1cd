/* SPDX-License-Identifier: Apache-2.0 */
/* flow/segments.h - kept pieces of a TCP stream: what is ahead of a hole, and what is not acknowledged yet.
 *
 * A stream keeps its pieces sorted by sequence number, without overlaps; which of two segments stays where both bring
 * bytes for one place is a matter of policy (tcp_overlap.h). Pieces are blocks of one size out of a region that all
 * streams of an engine share and that is never exceeded; what is given back is used again, the warmest first. One owner
 * thread.
 *
 * The pieces of a stream are a skip list whose first piece has every level, so that finding a place among thousands of
 * pieces, which an attacker can make us keep, takes some tens of steps, while pieces are added at the end without a
 * search. Links count in blocks from the piece itself; 0 is none.
 */
#pragma once
#include "io/packet.h"
#include <netstar/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SEGMENT_BLOCK = 512, SEGMENT_BYTES = SEGMENT_BLOCK - 24, SEGMENT_LEVELS = 2 };

struct segment {
    int32_t behind;             /* the next piece */
    int32_t up[SEGMENT_LEVELS]; /* the next one of about 32, of about 1024 */
    uint32_t seq;
    uint16_t len;
    uint16_t at;            /* where in data its bytes begin */
    uint16_t before, after; /* bytes of the segment it came with that lie before and behind it */
    uint8_t data[SEGMENT_BYTES];
};
_Static_assert(sizeof(struct segment) == SEGMENT_BLOCK, "a piece fills its block");

struct stream_pool {
    struct segment *free;
    struct segment *block;   /* the region */
    uint32_t touched, limit; /* blocks used so far, and how many there are */
    uint32_t used, used_peak;
    uint32_t per_end; /* bytes at most for one stream; its user looks at it */
    uint32_t random;  /* how high pieces stand */
};

struct stream {
    struct segment *first, *last;
    uint32_t blocks;
    uint32_t end; /* of the last piece, so that most questions are answered without a look at it */
};

/* A segment whose bytes are to be kept: [seq, seq + len), of which `from` on may be kept; they begin at off in the
 * packet. */
struct stream_new {
    const struct nst_packet *packet;
    uint32_t off, seq, len, from;
    enum nst_overlap policy; /* for places whose byte is kept; */
    uint32_t next;           /* those before it have been delivered and stay */
    const uint8_t *bytes;    /* instead of a packet, where they do not come from one */
};

static inline int32_t seq_diff(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b);
}
static inline uint32_t segment_end(const struct segment *s)
{
    return s->seq + s->len;
}
static inline struct segment *segment_next(const struct segment *s)
{
    return s->behind != 0 ? (struct segment *)(uintptr_t)(s + s->behind) : NULL;
}
/* A block by its number, from 1; 0: none. */
static inline uint32_t segment_number(const struct stream_pool *pool, const struct segment *s)
{
    return s != NULL ? (uint32_t)(s - pool->block) + 1 : 0;
}
static inline struct segment *segment_numbered(const struct stream_pool *pool, uint32_t n)
{
    return n != 0 ? &pool->block[n - 1] : NULL;
}
static inline const uint8_t *segment_bytes(const struct segment *s)
{
    return s->data + s->at;
}

/* Whether a stream that holds so many blocks may have more of what all share. What is ahead of a hole has to leave a
 * quarter to what is in order, and a stream with more than a share of the rest gets no more: the fuller the pool, the
 * smaller the share, so that few streams cannot take all, nor many streams the room of those that are read. */
static inline bool stream_shares(const struct stream_pool *pool, uint32_t blocks, bool ahead)
{
    enum { SHARE = 8, SOME = 16 };
    uint32_t unused = pool->limit - pool->used, spared = pool->limit / 4;

    if (ahead)
        return unused > spared && blocks <= (unused - spared) / SHARE + SOME;
    return unused > spared || blocks <= unused + SOME;
}

/* Reserves the region; its pages are taken as they are used. -ENOMEM. */
int stream_pool_open(struct stream_pool *pool, size_t bytes);
void stream_pool_close(struct stream_pool *pool);

/* Copies those of the segment's bytes that the stream does not hold, and those that are to take the place of what it
 * holds: a list of new pieces in *out, not yet part of the stream. -ENOSPC, the pool's limit: then *out is NULL. */
int stream_missing(const struct stream *s, struct stream_pool *pool, const struct stream_new *n, struct segment **out);

/* Makes such a list part of the stream, in which nothing was changed since. */
void stream_add(struct stream *s, struct stream_pool *pool, struct segment *pieces);

/* The same where the policy is NST_OVERLAP_FIRST, so that no byte has to remember its segment: what continues a piece goes
 * into its block while there is room. So tiny segments cost what their bytes do. */
void stream_add_joined(struct stream *s, struct stream_pool *pool, struct segment *pieces);

/* True: the byte of the new segment is to take the place of a byte of this piece. */
bool stream_replaces(const struct stream_new *n, const struct segment *x);

/* Gives a list of pieces back. */
void stream_free(struct stream_pool *pool, struct segment *pieces);

/* Forgets every piece that ends at or before seq. */
void stream_trim(struct stream *s, struct stream_pool *pool, uint32_t seq);

/* True when some byte of the packet differs from the stream's at its place. */
bool stream_differs(const struct stream *s, const struct nst_packet *p, uint32_t off, uint32_t seq, uint32_t len);

/* True when the stream holds every byte of [seq, end). */
bool stream_covers(const struct stream *s, uint32_t seq, uint32_t end);

struct segment *stream_search(const struct stream *s, uint32_t seq);

/* The first piece that ends behind seq, or NULL. */
static inline struct segment *stream_from(const struct stream *s, uint32_t seq)
{
    return s->last == NULL || seq_diff(s->end, seq) <= 0 ? NULL : stream_search(s, seq);
}

/* The longest run of bytes from `off` that lie in one piece in the packet, at most len: its length, and where. */
uint32_t packet_piece(const struct nst_packet *p, uint32_t off, uint32_t len, const uint8_t **at);
