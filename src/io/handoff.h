/* SPDX-License-Identifier: Apache-2.0 */
/* io/handoff.h - packets from one core to another, in bursts, over bounded rings with one producer and one consumer.
 *
 * Whoever finds that a packet belongs to another core gives it there (handoff_give); that core's engine receives it
 * from its inbox, a port like any other but for sending. A port that has one queue belongs to one core, its owner;
 * the others send through a stand-in, from whose ring the owner takes what it sends for them, in each turn and as a
 * poller of its own. Whoever puts something into a ring rings the consumer's bell (nst_reactor_ring).
 *
 * In a replay core 0 owns every port and reads; what the cores do in parallel is done in rounds, so that nothing is
 * ever dropped for speed and what is forwarded is written in the order of the input: it reads at most ROUND packets,
 * and goes on when every core has met the end of what it was given. See handoff_share.
 */
#pragma once
#include "io/port.h"

enum {
    CORES_MAX = 32,
    HANDOFF_RING = 2048,        /* packets on their way from one core to another; one less fits */
    HANDOFF_RING_REPLAY = 8192, /* a round, and what NFs make of it */
    HANDOFF_ROUND = 512,
};

struct handoff;

/* -ENOMEM. */
int handoff_open(struct handoff **out, unsigned cores, bool replay);

/* Frees the rings and the packets that still lie there; returns how many those to be looked at were. Nobody may use
 * any of its ports any more. NULL is allowed. */
unsigned handoff_close(struct handoff *h);

/* Puts packets into the ring to another core: as many as fit, from the first one on. Returns their number; the rest
 * stays the caller's. On the core `from`. */
unsigned handoff_give(struct handoff *h, unsigned from, unsigned to, struct rte_mbuf **m, unsigned n);

/* Where a core receives what it was given. Its attach makes the reactor the one to wake; no packet is lost before. */
struct nst_port *handoff_inbox(struct handoff *h, unsigned core);

/* Makes a port that has one owner usable on every core: of_core[i] is what core i uses, the port itself or a stand-in,
 * in a replay also on core 0 one that reads in rounds. They live until handoff_close, and the port longer. -ENOMEM. */
int handoff_share(struct handoff *h, struct nst_port *port, unsigned owner, struct nst_port *of_core[]);
