/* SPDX-License-Identifier: Apache-2.0 */
/* flow/tcp_overlap.h - which of two overlapping segments an end reads, as netstar/tcp.h defines it. */
#pragma once
#include "flow/segments.h"
#include <netstar/tcp.h>

struct nst_engine;
struct nst_engine_config;

/* True when the byte of the new segment [a, b) takes the place of one that came with [c, d). */
static inline bool overlap_new_wins(enum nst_overlap policy, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    int32_t start = seq_diff(a, c), end = seq_diff(b, d);

    switch (policy) {
    case NST_OVERLAP_LAST:
        return true;
    case NST_OVERLAP_BSD:
        return start < 0;
    case NST_OVERLAP_LINUX:
        return start < 0 || (start == 0 && end > 0);
    case NST_OVERLAP_OLD_LINUX:
        return start < 0 || (start == 0 && end >= 0);
    case NST_OVERLAP_SOLARIS:
        return end > 0 || (end == 0 && start <= 0);
    default:
        return false;
    }
}

/* Takes over the configuration's networks. -EINVAL: a prefix or a policy that there is not; -ENOMEM. */
int overlap_open(struct nst_engine *e, const struct nst_engine_config *config);
void overlap_close(struct nst_engine *e);

/* That of the flow's end: of the longest prefix that its address has. */
enum nst_overlap overlap_of(const struct nst_flow *f, enum nst_side side);
