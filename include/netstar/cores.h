/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/cores.h - one NF on several cores of a process: which core a flow belongs to, and how its packets get there.
 *
 * Nothing of a flow is shared. Each core has a reactor, an engine with a flow table, an NF instance and a store
 * connection of its own. All packets of a flow, of both directions, are looked at by one core, chosen by a symmetric
 * hash of the tuple: also when the datagram came in fragments (it is put together first), and when an ICMP error
 * speaks of it. A device with receive-side scaling is made to choose the same way, so that most packets arrive where
 * they belong; a packet that arrives elsewhere is handed over in a bounded ring, before any flow has seen it. What does
 * not fit is dropped and counted (NST_BY_CORE_FULL).
 *
 *   nst_io_open with config.cores, nst_port_open for each port    on one thread
 *   nst_cores_open
 *   on the thread of each core i: nst_io_join, nst_reactor_run, and there nst_engine_open with config.cores and
 *   config.core = i; nst_engine_pause on all; nst_engine_drain on all; nst_engine_close
 *   nst_cores_close, nst_port_close, nst_io_close                 when the threads have ended
 *
 * Captures (one port, whose packets drive the clock) are read by core 0 in rounds of 512 packets: the next round begins
 * when every core has done all of this one. Nothing is dropped for speed, and what is forwarded is written in the
 * order of the input. Each core's clock follows its own packets.
 */
#pragma once
#include <netstar/flow.h>

#ifdef __cplusplus
extern "C" {
#endif

struct nst_cores;
struct nst_port;
struct nst_engine_stats;

enum { NST_CORES_MAX = 32 };

/* Makes n cores share the ports, which it borrows: they must live longer. A port with a queue for each core is used
 * so; any other belongs to core (its place modulo n), and a capture to core 0. -EINVAL: n is 0 or more than
 * NST_CORES_MAX, or not one port or an even number of them, or captures and others mixed. -ENOMEM. Any thread. */
NST_API int nst_cores_open(struct nst_cores **out, unsigned n, struct nst_port *const ports[], unsigned n_ports);

/* Frees it, after the last engine was closed. Packets that still lay in the rings are freed, and their number is the
 * result: they are in no engine's statistics. NULL is allowed. */
NST_API unsigned nst_cores_close(struct nst_cores *c);

NST_API unsigned nst_cores_count(const struct nst_cores *c); /* NULL: 1 */

/* How a port is shared, in words ("2 queues by receive-side scaling, symmetric key verified"). Writes into buf and
 * returns it. Any thread. */
NST_API const char *nst_cores_describe(const struct nst_cores *c, unsigned port, char *buf, size_t size);

/* A flow's tuple; which end is a and which is b makes no difference. */
struct nst_tuple {
    struct nst_endpoint a, b; /* of one family */
    uint8_t proto;
    uint16_t vlan; /* 0: none; in a tunnel as well */
};

/* The core that the packets of this tuple are looked at by, from 0. An NF that gives a flow another tuple (NAT)
 * chooses one that belongs to its own core, or the answers are looked at by a core that knows nothing of it: it tries
 * ports until this function says its own core's number, n tries on average for n cores. NULL (one core): 0. Any
 * thread; costs a hash. */
NST_API unsigned nst_core_of(const struct nst_cores *c, const struct nst_tuple *tuple);

/* Adds an engine's numbers to a sum over the cores: counts add up, and so do the peaks, of which the sum is an upper
 * bound. Any thread. */
NST_API void nst_engine_stats_add(struct nst_engine_stats *sum, const struct nst_engine_stats *one);

/* Takes what shared ports could not send off the sum over all engines: each engine knows only that it has given the
 * packet to the port. When the engines are closed, before the ports are. */
NST_API void nst_cores_stats(const struct nst_cores *c, struct nst_engine_stats *sum);

#ifdef __cplusplus
}
#endif
