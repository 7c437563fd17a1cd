/* SPDX-License-Identifier: Apache-2.0 */
/* bench/contestants.h - who takes part: the floor, receiving alone, and a NetStar engine with a case's NF. */
#pragma once
#include "cases.h"
#include "contest.h"

contest_fn floor_contestant;   /* arg: unused */
contest_fn receive_contestant; /* takes packets from the trace and gives them back; arg: unused */
contest_fn engine_contestant;  /* arg: struct engine_contest */

struct engine_contest {
    const struct bench_case *of;
    struct engine_memory *memory; /* filled in once every flow is established; may be NULL */
};

/* What an engine with all its flows open has added to the process. */
struct engine_memory {
    size_t resident; /* bytes, huge pages counted by what DPDK's heap has lent of them where that is more */
    size_t per_flow; /* as the engine says */
};
