/* SPDX-License-Identifier: Apache-2.0 */
/* flow/edit_map.h - what was changed in one TCP stream, and which number became which.
 *
 * An edit says: in place of the sender's [seq, seq + removed) its receiver gets `len` other bytes. Edits stand in the
 * order of the stream and do not overlap; between them numbers differ by a constant. Every edit but a loose one
 * replaces at least one byte of the sender's, so a byte of the sender's is acknowledged only when all that stands for
 * it is: what is lost on the way to the receiver comes again by the sender's own retransmission. A *loose* edit
 * replaces nothing: its owner sends it again himself.
 *
 * Edits of the event under way are first collected (adding), and count only when they are committed. An edit is
 * forgotten when the receiver has acknowledged what stands in it. From there on (known) every number is mapped exactly;
 * what lies before it has been acknowledged, and no number of it is needed any more but to tell that it is old.
 * Memory comes in blocks of one size out of a region that all maps of an engine share. One owner thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EDIT_BLOCK = 256, EDIT_HERE = EDIT_BLOCK - 40, EDIT_MORE = EDIT_BLOCK - 8 };

/* No window is larger (RFC 7323): what lies further behind nobody asks for, and numbers must not come round to it. */
enum { EDIT_FAR = 1 << 30 };
/* So that edits without bytes have a limit, too: a list of them is walked when old bytes come again. */
enum { EDIT_COUNTS = 16 };

struct edit_block {
    struct edit_block *next;
    uint8_t bytes[EDIT_MORE];
};

struct edit {
    struct edit *next;
    struct edit_block *more; /* bytes beyond those that fit here */
    uint32_t seq, removed;   /* in the sender's numbers */
    uint32_t len;            /* bytes in their place */
    bool carries;            /* an insertion: its last byte is the sender's own at seq, and stands for it */
    bool loose;
    uint8_t pad[8];
    uint8_t bytes[EDIT_HERE];
};
_Static_assert(sizeof(struct edit) == EDIT_BLOCK && sizeof(struct edit_block) == EDIT_BLOCK, "both fill a block");

struct edit_pool {
    struct edit_block *free, *block;
    uint32_t touched, limit; /* blocks used so far, and how many there are */
    uint32_t used, used_peak;
    uint32_t per_map; /* bytes at most in the edits of one map */
};

struct edit_map {
    struct edit *first, *last;
    struct edit *newest; /* the first of those that became part of it last; NULL: it has been forgotten */
    struct edit *adding, *adding_last;
    uint32_t shift;     /* receiver's number less the sender's, before the first edit */
    uint32_t shift_end; /* behind the last one */
    uint32_t shift_new; /* before the newest */
    uint32_t bytes;     /* in edits, those that are added included; each counts EDIT_COUNTS more */
    uint32_t known;     /* sender's number: behind all that was forgotten */
    uint32_t gone;      /* from there on to known all was removed */
    bool edited;        /* there was an edit, if only one that has been forgotten; else known says nothing */
};

/* Reserves the region; its pages are taken as they are used. -ENOMEM. */
int edit_pool_open(struct edit_pool *pool, size_t bytes, uint32_t per_map);
void edit_pool_close(struct edit_pool *pool);

/* The bytes that may be edited now, and the value of each. */
struct edit_window {
    uint32_t from, end; /* sender's numbers */
    uint8_t (*byte)(const void *arg, uint32_t seq);
    const void *arg;
};

/* Adds: in place of [seq, seq + removed) other bytes; removed may be 0, an insertion before seq, which may then be
 * w->end. Edits are added in rising order: -EINVAL for one that begins before the end of the one added last, or that is
 * not inside the window; also for an insertion where the window is empty. -ENOSPC: no room; then nothing is
 * changed. */
int edit_add(struct edit_map *m, struct edit_pool *pool, const struct edit_window *w, uint32_t seq, uint32_t removed,
             const void *bytes, size_t len);

/* Adds a loose edit before seq, where the stream is at: behind every other. It counts at once. -ENOSPC. */
int edit_add_loose(struct edit_map *m, struct edit_pool *pool, uint32_t seq, const void *bytes, size_t len);

void edit_commit(struct edit_map *m);
void edit_take_back(struct edit_map *m, struct edit_pool *pool);

/* Forgets everything: numbers are the same again. */
void edit_clear(struct edit_map *m, struct edit_pool *pool);

/* Forgets the edits whose receiver has acknowledged everything before ack. */
void edit_trim(struct edit_map *m, struct edit_pool *pool, uint32_t ack);

/* The receiver's number for the sender's seq; within replaced bytes that of their beginning, and before what is known
 * the one before that. */
uint32_t edit_out(const struct edit_map *m, uint32_t seq);

/* The sender's number for the receiver's: that of the first byte which is not there in full. What was removed right
 * before it counts as there, and so does all before what is known. */
uint32_t edit_in(const struct edit_map *m, uint32_t seq);

/* The same for the left edge of a block: the first byte that is in it in full. */
uint32_t edit_in_left(const struct edit_map *m, uint32_t seq);

/* The first edit that ends behind seq, or NULL. What was edited last is found at once. */
const struct edit *edit_from(const struct edit_map *m, uint32_t seq);

/* The longest run of the edit's bytes from `off`, of at most len - off, that lie in one piece. */
size_t edit_piece(const struct edit *x, uint32_t off, const uint8_t **at);

/* Every number is the same on both sides. What was replaced may still be old, and unknown. */
static inline bool edit_is_plain(const struct edit_map *m)
{
    return m->first == NULL && m->shift_end == 0;
}
