/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fault/store_history.h - what was done to one key, and whether it can have happened in an order that agrees with
 * all answers and with the clock (linearisability). An operation of which nobody knows whether it landed may have, at any
 * time after it began, or not. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HISTORY_GONE = -1, HISTORY_MAX = 4096 };

struct history_op {
    enum { HISTORY_READ, HISTORY_WRITE, HISTORY_SWAP, HISTORY_ADD } kind;
    int64_t begin, end; /* end INT64_MAX: it is not known whether it landed */
    int64_t from;       /* swap: what must be there; add: how much */
    int64_t to;         /* write, swap: what is there then; read, add: what was answered. HISTORY_GONE: no key */
    bool lost;          /* swap: it answered that something else is there */
};

/* The operations in any order; they are sorted. False when no order explains them. The key is gone at the beginning. */
bool history_linear(struct history_op *ops, size_t n);
