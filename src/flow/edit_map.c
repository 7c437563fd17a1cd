/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/edit_map.h"
#include "base/region.h"
#include "flow/segments.h"
#include <errno.h>
#include <string.h>

/* ---- memory ---- */
int edit_pool_open(struct edit_pool *pool, size_t bytes, uint32_t per_map)
{
    size_t blocks = bytes / EDIT_BLOCK;

    if (blocks > UINT32_MAX)
        blocks = UINT32_MAX;
    void *p = region_open(blocks * EDIT_BLOCK);
    if (p == NULL)
        return -ENOMEM;
    *pool = (struct edit_pool){ .block = p, .limit = (uint32_t)blocks, .per_map = per_map };
    return 0;
}

void edit_pool_close(struct edit_pool *pool)
{
    region_close(pool->block, (size_t)pool->limit * EDIT_BLOCK);
    pool->block = NULL;
}

static void *block_get(struct edit_pool *pool)
{
    struct edit_block *b = pool->free;

    if (b != NULL)
        pool->free = b->next;
    else if (pool->touched < pool->limit)
        b = &pool->block[pool->touched++];
    else
        return NULL;
    if (++pool->used > pool->used_peak)
        pool->used_peak = pool->used;
    b->next = NULL;
    return b;
}

static void block_put(struct edit_pool *pool, void *block)
{
    struct edit_block *b = block;

    b->next = pool->free;
    pool->free = b;
    pool->used--;
}

static void more_put(struct edit_pool *pool, struct edit_block *more)
{
    while (more != NULL) {
        struct edit_block *next = more->next;
        block_put(pool, more);
        more = next;
    }
}

static struct edit *edit_get(struct edit_map *m, struct edit_pool *pool, uint32_t seq)
{
    struct edit *x = m->bytes + EDIT_COUNTS <= pool->per_map ? block_get(pool) : NULL;

    if (x != NULL) {
        *x = (struct edit){ .seq = seq };
        m->bytes += EDIT_COUNTS;
    }
    return x;
}

static void edit_put(struct edit_map *m, struct edit_pool *pool, struct edit *x)
{
    m->bytes -= x->len + EDIT_COUNTS;
    more_put(pool, x->more);
    block_put(pool, x);
}

static void list_put(struct edit_map *m, struct edit_pool *pool, struct edit *x)
{
    while (x != NULL) {
        struct edit *next = x->next;
        edit_put(m, pool, x);
        x = next;
    }
}

/* ---- an edit's bytes ---- */
/* Where byte `off` is, and how many follow in the same block. *next: where the block behind is linked. */
static uint8_t *place_of(struct edit *x, uint32_t off, size_t *room, struct edit_block ***next)
{
    struct edit_block **link = &x->more;

    if (off < EDIT_HERE) {
        *room = EDIT_HERE - off;
        *next = link;
        return x->bytes + off;
    }
    for (off -= EDIT_HERE; *link != NULL && off >= EDIT_MORE; off -= EDIT_MORE)
        link = &(*link)->next;
    *room = *link != NULL ? EDIT_MORE - off : 0;
    *next = *link != NULL ? &(*link)->next : link;
    return *link != NULL ? (*link)->bytes + off : NULL;
}

size_t edit_piece(const struct edit *x, uint32_t off, const uint8_t **at)
{
    struct edit_block **next;
    size_t room;

    *at = place_of((struct edit *)(uintptr_t)x, off, &room, &next);
    return room < x->len - off ? room : x->len - off;
}

static int append(struct edit_map *m, struct edit_pool *pool, struct edit *x, const void *bytes, size_t len)
{
    const uint8_t *from = bytes;
    uint32_t was = x->len;

    if (len > pool->per_map || m->bytes + len > pool->per_map)
        return -ENOSPC;
    while (len > 0) {
        struct edit_block **next;
        size_t room;
        uint8_t *to = place_of(x, x->len, &room, &next);
        if (room == 0) {
            if ((*next = block_get(pool)) == NULL) {
                m->bytes -= x->len - was;
                x->len = was; /* a block too many is found again, or goes with the edit */
                return -ENOSPC;
            }
            continue;
        }
        size_t n = room < len ? room : len;
        memcpy(to, from, n);
        from += n;
        len -= n;
        x->len += (uint32_t)n;
        m->bytes += (uint32_t)n;
    }
    return 0;
}

static uint32_t end_of(const struct edit *x)
{
    return x->seq + x->removed;
}

/* ---- adding ---- */
/* A new edit at the end of those that are added. On failure it is not there. */
static int add_new(struct edit_map *m, struct edit_pool *pool, uint32_t seq, uint32_t removed, const void *bytes,
                   size_t len, const uint8_t *before, const uint8_t *after)
{
    struct edit *x = edit_get(m, pool, seq);
    int rc = x == NULL ? -ENOSPC : 0;

    if (rc == 0 && before != NULL)
        rc = append(m, pool, x, before, 1);
    if (rc == 0)
        rc = append(m, pool, x, bytes, len);
    if (rc == 0 && after != NULL)
        rc = append(m, pool, x, after, 1);
    if (rc < 0) {
        if (x != NULL)
            edit_put(m, pool, x);
        return rc;
    }
    x->removed = removed;
    x->carries = after != NULL;
    *(m->adding_last != NULL ? &m->adding_last->next : &m->adding) = x;
    m->adding_last = x;
    return 0;
}

/* An insertion at the same place came before: the sender's byte that it carries makes way. */
static int add_to_insertion(struct edit_map *m, struct edit_pool *pool, struct edit *x, uint32_t removed,
                            const void *bytes, size_t len)
{
    struct edit_block **next;
    size_t room;
    uint8_t carried = *place_of(x, x->len - 1, &room, &next);

    x->len--;
    m->bytes--;
    int rc = append(m, pool, x, bytes, len);
    if (rc == 0 && removed == 0) {
        rc = append(m, pool, x, &carried, 1);
        if (rc == 0)
            return 0;
        x->len -= (uint32_t)len;
        m->bytes -= (uint32_t)len;
    }
    if (rc < 0) { /* there was room for it before */
        *place_of(x, x->len, &room, &next) = carried;
        x->len++;
        m->bytes++;
        return rc;
    }
    x->removed = removed;
    x->carries = false;
    return 0;
}

int edit_add(struct edit_map *m, struct edit_pool *pool, const struct edit_window *w, uint32_t seq, uint32_t removed,
             const void *bytes, size_t len)
{
    struct edit *x = m->adding_last;
    uint32_t size = w->end - w->from;
    uint8_t own;

    if (seq - w->from > size || removed > w->end - seq)
        return -EINVAL;
    if (x != NULL && x->carries && seq == x->seq)
        return removed + len == 0 ? 0 : add_to_insertion(m, pool, x, removed, bytes, len);
    if (x != NULL && seq_diff(seq, end_of(x)) < 0)
        return -EINVAL;
    if (removed + len == 0)
        return 0;
    if (removed > 0)
        return add_new(m, pool, seq, removed, bytes, len, NULL, NULL);
    if (seq != w->end) {
        own = w->byte(w->arg, seq);
        return add_new(m, pool, seq, 1, bytes, len, NULL, &own);
    }
    if (x != NULL && end_of(x) == seq) {
        int rc = append(m, pool, x, bytes, len);
        x->carries = x->carries && rc < 0;
        return rc;
    }
    if (size == 0)
        return -EINVAL;
    own = w->byte(w->arg, seq - 1);
    return add_new(m, pool, seq - 1, 1, bytes, len, &own, NULL);
}

static void join(struct edit_map *m, struct edit *x)
{
    if (!m->edited) {
        m->edited = true;
        m->gone = m->known = x->seq - EDIT_FAR;
    }
    m->newest = x;
    m->shift_new = m->shift_end;
    *(m->last != NULL ? &m->last->next : &m->first) = x;
    for (; x != NULL; x = x->next) {
        m->shift_end += x->len - x->removed;
        m->last = x;
    }
}

int edit_add_loose(struct edit_map *m, struct edit_pool *pool, uint32_t seq, const void *bytes, size_t len)
{
    struct edit *x = edit_get(m, pool, seq);

    if (x == NULL)
        return -ENOSPC;
    x->loose = true;
    if (append(m, pool, x, bytes, len) < 0) {
        edit_put(m, pool, x);
        return -ENOSPC;
    }
    join(m, x);
    return 0;
}

void edit_commit(struct edit_map *m)
{
    if (m->adding == NULL)
        return;
    join(m, m->adding);
    m->adding = m->adding_last = NULL;
}

void edit_take_back(struct edit_map *m, struct edit_pool *pool)
{
    list_put(m, pool, m->adding);
    m->adding = m->adding_last = NULL;
}

void edit_clear(struct edit_map *m, struct edit_pool *pool)
{
    list_put(m, pool, m->first);
    list_put(m, pool, m->adding);
    *m = (struct edit_map){ 0 };
}

void edit_trim(struct edit_map *m, struct edit_pool *pool, uint32_t ack)
{
    struct edit *x;

    while ((x = m->first) != NULL && seq_diff(ack, x->seq + m->shift + x->len) >= 0) {
        m->shift += x->len - x->removed;
        if (x->len != 0)
            m->gone = end_of(x);
        else if (x->seq != m->known)
            m->gone = x->seq;
        m->known = end_of(x);
        m->first = x->next;
        if (x->next == NULL)
            m->last = NULL;
        if (x == m->newest)
            m->newest = NULL;
        edit_put(m, pool, x);
    }
    if (m->edited && seq_diff(ack - m->shift, m->known) > EDIT_FAR)
        m->gone = m->known = ack - m->shift - EDIT_FAR;
}

/* ---- numbers ---- */
/* Where a search for the sender's seq begins, and the shift before that. */
static const struct edit *search_from(const struct edit_map *m, uint32_t seq, uint32_t *shift)
{
    bool new = m->newest != NULL &&seq_diff(seq, m->newest->seq) >= 0;

    *shift = new ? m->shift_new : m->shift;
    return new ? m->newest : m->first;
}

uint32_t edit_out(const struct edit_map *m, uint32_t seq)
{
    uint32_t shift;

    if (m->edited && seq_diff(seq, m->known) < 0)
        return m->known + m->shift - (seq_diff(seq, m->gone) < 0);
    if (m->last == NULL || seq_diff(seq, end_of(m->last)) >= 0)
        return seq + m->shift_end;
    const struct edit *x = search_from(m, seq, &shift);
    for (; x != NULL && seq_diff(seq, x->seq) >= 0; x = x->next) {
        if (seq_diff(seq, end_of(x)) < 0)
            return x->seq + shift;
        shift += x->len - x->removed;
    }
    return seq + shift;
}

const struct edit *edit_from(const struct edit_map *m, uint32_t seq)
{
    uint32_t shift;

    if (m->last == NULL || seq_diff(seq, end_of(m->last)) >= 0)
        return NULL;
    const struct edit *x = search_from(m, seq, &shift);
    while (x != NULL && seq_diff(seq, end_of(x)) >= 0)
        x = x->next;
    return x;
}

static bool is_old(const struct edit_map *m, uint32_t seq)
{
    return m->edited && seq_diff(seq, m->known + m->shift) < 0;
}

uint32_t edit_in(const struct edit_map *m, uint32_t seq)
{
    uint32_t shift = m->shift;

    if (is_old(m, seq))
        return m->known;
    for (const struct edit *x = m->first; x != NULL; x = x->next) {
        uint32_t out = x->seq + shift;
        if (seq_diff(seq, out + x->len) < 0)
            return seq_diff(seq, out) < 0 ? seq - shift : x->seq;
        shift += x->len - x->removed;
    }
    return seq - shift;
}

uint32_t edit_in_left(const struct edit_map *m, uint32_t seq)
{
    uint32_t shift = m->shift;

    if (is_old(m, seq))
        return m->known;
    for (const struct edit *x = m->first; x != NULL; x = x->next) {
        uint32_t out = x->seq + shift;
        if (seq_diff(seq, out) <= 0)
            return seq - shift;
        if (seq_diff(seq, out + x->len) < 0)
            return end_of(x);
        shift += x->len - x->removed;
    }
    return seq - shift;
}
