/* SPDX-License-Identifier: Apache-2.0 */
/* Several instances on one store: each has a store object of its own, a *front*, before a common store in memory. A front's
 * connection is in the test's hands: requests and answers can be kept back and let go, it can be cut, and what an instance
 * is told of the others' changes can be turned off.
 */
#pragma once
#include "runtime_harness.h"
#include "store/store.h"

enum { FRONTS_MAX = 4 };

struct lab_request; /* on its way to the store, or its answer on the way back */

struct front {
    struct nst_store base;
    struct lab *lab;
    bool keep_requests, keep_answers; /* what is on its way stays there until front_let_go */
    bool down;                        /* there is no connection */
    bool deaf;                        /* it is not told of changes */
    struct lab_request *out, **out_tail, *back, **back_tail;
    unsigned counts[STORE_OPS]; /* requests that reached the store */
};

struct lab {
    struct nst_store *store;
    struct front front[FRONTS_MAX];
    unsigned n;
};

/* With n fronts, on a reactor. */
void lab_open(struct lab *lab, unsigned n);
void lab_close(struct lab *lab);

/* What was kept back goes its way: requests reach the store, answers the instance. */
void front_let_go(struct front *f);
/* The connection breaks: of the requests on their way, the first `landing` still reach the store. */
void front_cut(struct front *f, unsigned landing);
void front_mend(struct front *f);
