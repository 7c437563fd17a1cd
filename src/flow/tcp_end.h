/* SPDX-License-Identifier: Apache-2.0 */
/* flow/tcp_end.h - the state of nst_tcp for one end of one flow; tcp.c says what it means. */
#pragma once
#include "flow/segments.h"

struct tcp_end {
    uint64_t delivered; /* bytes, in order and allowed to pass */
    uint32_t base;      /* sequence number of byte 0 */
    uint32_t acked;     /* this end has acknowledged all before it */
    struct stream kept;
    struct segment *adding;
    uint32_t fin;
    uint32_t iss; /* number of the SYN that this end has sent, and its bytes */
    uint16_t syn_len;
    uint32_t fresh, given; /* bytes that the current packet delivers; those that were handed out */
    uint16_t flags, now;
};
