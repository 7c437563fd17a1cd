/* SPDX-License-Identifier: Apache-2.0 */
/* bench/rebuild.h - the two who rebuild the TCP streams of one capture: libnids and NetStar. Both get each frame where
 * it lies in the capture, verify its checksums, rebuild both directions of every connection, and add up all bytes that
 * they hand out. A turn is a number of whole passes over the capture.
 */
#pragma once
#include "contest.h"
#include "rebuild_capture.h"

struct rebuild {
    const struct rebuild_capture *capture;
    unsigned passes;   /* in a turn */
    bool no_checksums; /* neither verifies them */
    bool keep;         /* NetStar with the default policy: compares retransmissions with what was delivered */
    bool alone;        /* libnids does not take part: for a profiler */
};

contest_fn rebuild_nids;    /* arg: struct rebuild */
contest_fn rebuild_netstar; /* arg: struct rebuild */
contest_fn
    rebuild_floor; /* arg: struct rebuild; what both have to do anyhow: headers, checksums, reading the payload */

/* What one of them hands out: in a first pass, which is not measured, compared with the answer byte by byte; then
 * counted. */
struct rebuild_result {
    bool compare;
    struct rebuild_answer answer; /* compare */
    uint64_t bytes, sum;
};

static inline uint64_t rebuild_sum(const uint8_t *p, size_t len)
{
    uint64_t sum = 0, last = 0, v;

    for (; len >= sizeof v; p += sizeof v, len -= sizeof v) {
        __builtin_memcpy(&v, p, sizeof v);
        sum += v;
    }
    __builtin_memcpy(&last, p, len);
    return sum + last;
}

/* 0, or -EPROTO, having said what is wrong. */
int rebuild_compared(const struct contestant *c, const struct rebuild_result *r);
int rebuild_counted(const struct contestant *c, const struct rebuild_result *r, uint64_t passes);
