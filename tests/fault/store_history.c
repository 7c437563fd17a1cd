/* SPDX-License-Identifier: Apache-2.0 */
/* The search of Wing and Gong with the memory of Lowe: an operation may be next when it began before any other that is
 * left has ended; what was tried in vain once, the same operations done and the same value there, is not tried again. */
#include "store_history.h"
#include <stdlib.h>
#include <string.h>

enum { WORDS = HISTORY_MAX / 64, CACHE = 1 << 16 };

struct search {
    const struct history_op *ops;
    size_t n;
    uint64_t done[WORDS];
    uint64_t *cache; /* hashes of what was tried */
    size_t cached;
    size_t steps;
};

static bool is_done(const struct search *s, size_t i)
{
    return s->done[i / 64] >> i % 64 & 1;
}

/* Carries an operation out on a value: false when its answer cannot be right. */
static bool apply(const struct history_op *op, int64_t *value)
{
    bool known = op->end != INT64_MAX;

    switch (op->kind) {
    case HISTORY_READ:
        return !known || op->to == *value;
    case HISTORY_WRITE:
        *value = op->to;
        return true;
    case HISTORY_SWAP:
        if (known && op->lost)
            return *value != op->from;
        if (*value == op->from)
            *value = op->to;
        else if (known)
            return false;
        return true;
    case HISTORY_ADD:
        *value = (*value == HISTORY_GONE ? 0 : *value) + op->from;
        return !known || op->to == *value;
    }
    return false;
}

static uint64_t mix(uint64_t h)
{
    h += 0x9e3779b97f4a7c15;
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9;
    h = (h ^ h >> 27) * 0x94d049bb133111eb;
    return h ^ h >> 31;
}

/* True when this is new. */
static bool remember(struct search *s, int64_t value)
{
    uint64_t h = mix((uint64_t)value);
    size_t at;

    for (size_t i = 0; i <= (s->n - 1) / 64; i++)
        h = mix(h + mix(s->done[i]));
    h |= 1; /* 0 is an empty place */
    for (at = h % CACHE; s->cache[at] != 0; at = (at + 1) % CACHE) {
        if (s->cache[at] == h)
            return false;
    }
    if (s->cached < CACHE / 2) {
        s->cache[at] = h;
        s->cached++;
    }
    return true;
}

/* first: all before it are done. */
static bool go_on(struct search *s, size_t first, int64_t value)
{
    int64_t ends = INT64_MAX;
    bool left = false;

    while (first < s->n && is_done(s, first))
        first++;
    for (size_t i = first; i < s->n && s->ops[i].begin <= ends; i++) {
        if (!is_done(s, i) && s->ops[i].end != INT64_MAX) {
            left = true;
            if (s->ops[i].end < ends)
                ends = s->ops[i].end;
        }
    }
    if (!left) {
        for (size_t i = first; i < s->n && !left; i++)
            left = !is_done(s, i) && s->ops[i].end != INT64_MAX;
        if (!left)
            return true; /* what is left did not land */
    }
    if (!remember(s, value) || ++s->steps > 2000000)
        return false;
    for (size_t i = first; i < s->n && s->ops[i].begin <= ends; i++) {
        int64_t next = value;
        if (is_done(s, i) || !apply(&s->ops[i], &next))
            continue;
        s->done[i / 64] |= (uint64_t)1 << i % 64;
        if (go_on(s, first, next))
            return true;
        s->done[i / 64] &= ~((uint64_t)1 << i % 64);
    }
    return false;
}

static int by_begin(const void *a, const void *b)
{
    const struct history_op *x = a, *y = b;

    return (x->begin > y->begin) - (x->begin < y->begin);
}

bool history_linear(struct history_op *ops, size_t n)
{
    struct search *s = calloc(1, sizeof *s);
    bool yes;

    qsort(ops, n, sizeof *ops, by_begin);
    s->ops = ops;
    s->n = n;
    s->cache = calloc(CACHE, sizeof *s->cache);
    yes = go_on(s, 0, HISTORY_GONE);
    free(s->cache);
    free(s);
    return yes;
}
