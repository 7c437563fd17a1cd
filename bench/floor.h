/* SPDX-License-Identifier: Apache-2.0 */
/* bench/floor.h - the least that a stateful network function on DPDK does with a packet, written on DPDK alone: receive
 * a burst, parse it, hash the keys, look the burst up in an rte_hash, touch a line of each flow's state, send.
 *
 * Everything that is measured is told as a ratio to this, over the same packets in the same run.
 */
#pragma once
#include "trace.h"

struct floor;
struct floor_stats {
    uint64_t packets, flows, unparsed, refused; /* refused: no room in the table */
};

/* Where the floor's table and states go: DPDK's heap, or, when that has only small pages, an anonymous mapping that
 * asks for transparent huge pages (as NetStar's own tables do), given to DPDK as a heap. Call it once, after
 * rte_eal_init. Returns the socket to allocate on; SOCKET_ID_ANY when there is nothing better than the heap. */
int floor_socket(uint32_t flows, bool no_huge);

/* Makes a floor for at most so many flows. Call it on an EAL thread. -ENOMEM, -EINVAL. */
int floor_open(struct floor **out, uint32_t flows, int socket);
void floor_close(struct floor *f);

/* Handles one burst of what the feed gives, of the handshakes or of the trace; returns how many packets that were. */
unsigned floor_open_burst(struct floor *f, struct trace_feed *feed);
unsigned floor_burst(struct floor *f, struct trace_feed *feed);

void floor_stats(const struct floor *f, struct floor_stats *out);
