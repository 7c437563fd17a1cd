/* SPDX-License-Identifier: Apache-2.0 */
#include "store/mem_pool.h"
#include <stdlib.h>

enum { FIRST = 16 };

static void put_at(struct mem_pool *p, uint32_t place, uint32_t value)
{
    p->heap[place] = value;
    p->slot[value].heap = place;
}

static void sift_up(struct mem_pool *p, uint32_t value)
{
    uint32_t at = p->slot[value].heap;

    while (at > 0) {
        uint32_t parent = (at - 1) / 2, other = p->heap[parent];
        if (p->slot[other].free_at <= p->slot[value].free_at)
            break;
        put_at(p, at, other);
        at = parent;
    }
    put_at(p, at, value);
}

static void sift_down(struct mem_pool *p, uint32_t value)
{
    uint32_t at = p->slot[value].heap;

    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= p->n)
            break;
        if (child + 1 < p->n && p->slot[p->heap[child + 1]].free_at < p->slot[p->heap[child]].free_at)
            child++;
        if (p->slot[value].free_at <= p->slot[p->heap[child]].free_at)
            break;
        put_at(p, at, p->heap[child]);
        at = child;
    }
    put_at(p, at, value);
}

static void set_free_at(struct mem_pool *p, uint32_t value, nst_time free_at)
{
    p->slot[value].free_at = free_at;
    sift_up(p, value);
    sift_down(p, value);
}

static int grow(struct mem_pool *p, uint32_t size, size_t *room)
{
    uint64_t more = p->cap != 0 ? 2 * (uint64_t)p->cap : FIRST;
    uint32_t cap = more < size ? (uint32_t)more : size;
    size_t bytes = (size_t)(cap - p->cap) * (sizeof *p->slot + sizeof *p->heap);
    struct mem_slot *slot;
    uint32_t *heap;

    if (bytes > *room)
        return -ENOMEM;
    slot = realloc(p->slot, cap * sizeof *slot);
    if (slot == NULL)
        return -ENOMEM;
    p->slot = slot;
    heap = realloc(p->heap, cap * sizeof *heap);
    if (heap == NULL)
        return -ENOMEM; /* cap is as it was: the larger slots are not used */
    p->heap = heap;
    p->cap = cap;
    *room -= bytes;
    return 0;
}

int mem_pool_take(struct mem_pool *p, uint32_t size, nst_time now, nst_time until, uint64_t ticket, size_t *room,
                  struct nst_lease *out)
{
    uint32_t value;

    if (p->n < size) {
        int rc = p->n == p->cap ? grow(p, size, room) : 0;
        if (rc < 0)
            return rc;
        value = p->n++;
        p->slot[value].free_at = until;
        p->slot[value].heap = value;
        sift_up(p, value);
    } else if (p->n == 0 || p->slot[p->heap[0]].free_at > now) {
        return -ENOENT;
    } else {
        value = p->heap[0];
        if (value >= size)
            return -EINVAL;
        set_free_at(p, value, until);
    }
    p->slot[value].ticket = ticket;
    *out = (struct nst_lease){ .ticket = ticket, .value = value };
    return 0;
}

int mem_pool_set(struct mem_pool *p, uint32_t value, uint64_t ticket, nst_time free_at)
{
    if (value >= p->n || p->slot[value].ticket != ticket)
        return -ESTALE;
    set_free_at(p, value, free_at);
    return 0;
}

size_t mem_pool_bytes(const struct mem_pool *p)
{
    return p->cap * (sizeof *p->slot + sizeof *p->heap);
}

void mem_pool_free(struct mem_pool *p)
{
    free(p->slot);
    free(p->heap);
    *p = (struct mem_pool){ 0 };
}
