/* SPDX-License-Identifier: Apache-2.0 */
/* store/mem_pool.h - a pool of numbers in memory: a heap of those that were ever given, ordered by when each is or
 * becomes free. */
#pragma once
#include <netstar/store.h>

struct mem_pool {
    struct mem_slot {
        uint64_t ticket;
        nst_time free_at; /* the lease's end, or when it was given back */
        uint32_t heap;    /* its place there */
    } * slot;             /* by value; the first n were given at least once */
    uint32_t *heap;       /* values, the one that is free first on top */
    uint32_t n, cap;
};

/* 0, -ENOENT, -EINVAL as nst_pool_take; -ENOMEM when it cannot grow by as much as *room bytes allow; what it took is
 * subtracted from *room. */
int mem_pool_take(struct mem_pool *p, uint32_t size, nst_time now, nst_time until, uint64_t ticket, size_t *room,
                  struct nst_lease *out);
/* Sets when the value is free: 0, or -ESTALE when the ticket is not the value's. */
int mem_pool_set(struct mem_pool *p, uint32_t value, uint64_t ticket, nst_time free_at);
/* Bytes that it holds. */
size_t mem_pool_bytes(const struct mem_pool *p);
void mem_pool_free(struct mem_pool *p);
