/* SPDX-License-Identifier: Apache-2.0 */
/* io/preload.h - a port that gives the packets of captures out of memory, as fast as they are taken, and frees what it is
 * given to send: for measuring. It counts the processor's cycles that receiving and sending take, per burst.
 */
#pragma once
#include "io/port.h"

struct preload_sizes {
    uint64_t packets, bytes; /* of frames */
    uint64_t memory;         /* that they take here */
    uint64_t left_out;       /* frames longer than a packet buffer */
};

struct preload_times {
    uint64_t first;         /* the cycle counter when the first packet was asked for */
    uint64_t receive, send; /* cycles since preload_rewind */
};

/* Takes all packets of a capture port (nst_capture_open), which the caller may close then. -E2BIG: they take more than
 * `limit` bytes; -ENOMEM; -EIO: the capture is broken in its middle; *why in words. On one thread; waits for a pipe. */
int preload_open(struct nst_port **out, struct nst_port *capture, uint64_t limit, struct preload_sizes *sizes,
                 const char **why);

/* Begins again with the first packet. replay: as a capture is replayed, with its clock, nothing being read while
 * answers are outstanding; else as live. While no engine has the port. */
void preload_rewind(struct nst_port *p, bool replay);
void preload_times(const struct nst_port *p, struct preload_times *out);
