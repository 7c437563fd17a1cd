/* SPDX-License-Identifier: Apache-2.0 */
/* bench/cases.h - the network functions that are measured. Each does the same work for a packet: it counts it in the
 * flow's own state and forwards it. They differ in how long they wait, and in how the waiting is written.
 */
#pragma once
#include "answers.h"
#include <netstar/netstar.h>

struct bench_case {
    const char *name;
    struct nst_nf nf;
    bool payload;   /* over the trace with payload */
    unsigned waits; /* answers per packet */
    unsigned edits; /* of each packet with payload */
};
extern const struct bench_case bench_cases[];
extern const unsigned bench_n_cases;
const struct bench_case *bench_case_named(const char *name);

/* What one instance works with: the NF's argument. */
struct work {
    struct answers store;
    struct pending *idle; /* contexts of the callback style that are free */
    uint64_t packets;     /* decided by a handler */
    uint64_t bytes, sum;  /* read from the stream */
};
void work_init(struct work *w);
void work_end(struct work *w);
