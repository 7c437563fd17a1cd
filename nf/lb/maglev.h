/* SPDX-License-Identifier: Apache-2.0 */
/* lb/maglev.h - consistent hashing: which back end a number belongs to, so that a change of the back ends changes as little
 * as can be, and every instance with the same back ends says the same.
 *
 * The table is that of Maglev (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
 * section 3.4): each back end has a permutation of the table's places, made of its name, and they take turns in taking
 * the next place of theirs that is free; one of weight n takes n places in its turn. The load is bounded as in Mirrokni,
 * Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (SODA 2018): who is full, or not there, is passed
 * over for the next in the table. Pure functions; a table is never changed. Any thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LB_PLACES = 65537, LB_BACKENDS_MAX = 1024, LB_WEIGHT_MAX = 256 };

struct lb_maglev {
    uint16_t place[LB_PLACES]; /* index of a back end */
};

struct lb_share {
    const char *name;
    unsigned weight; /* 0: none of the table */
};

/* Fills a table for n back ends. False: all weights are 0, and nothing can be asked of it. */
bool lb_maglev_fill(struct lb_maglev *m, const struct lb_share *share, size_t n);

/* The first back end from the number's place on that may(arg, index) says yes to; -1: none. */
int lb_maglev_pick(const struct lb_maglev *m, uint64_t number, bool (*may)(void *arg, unsigned index), void *arg);

/* How many of `all` connections, the next one included, a back end of this weight may have: a quarter above its share. */
uint64_t lb_capacity(uint64_t all, unsigned weight, uint64_t weights);

/* A number out of bytes, the same everywhere. */
uint64_t lb_number(uint64_t seed, const void *bytes, size_t len);
