/* SPDX-License-Identifier: Apache-2.0 */
/* bench/trace.h - pre-built frames in memory, and a port that receives them.
 *
 * A trace is what N TCP connections over IPv4 send, every packet a record, the records laid out one after the other in
 * the order in which they are received: the memory of the trace is read from front to back, as a network card would
 * write it, while the flows come in random order. Receiving copies a record into a packet buffer from a warm pool;
 * sending gives the buffer back. Whoever is measured, DPDK alone or NetStar, receives and sends by the same functions.
 *
 * After the last record comes the first again: the next pass. In a trace with payload the sequence numbers go on: a
 * pass adds the same number of bytes to every flow, so that every segment is the next one of its connection for ever.
 * Checksums are right in the handshakes and in the first pass; later passes change the sequence number only.
 *
 * A trace is never written to once it is made, and may be read by several feeds; a feed belongs to one thread.
 */
#pragma once
#include "io/port.h"
#include <rte_mbuf.h>
#include <stdbool.h>
#include <stdint.h>

enum { TRACE_FLOWS_MAX = 1 << 24, TRACE_PAYLOAD_MAX = 1400, TRACE_MIN_FRAME = 60 };

struct trace_config {
    uint32_t flows;   /* at most TRACE_FLOWS_MAX */
    uint32_t payload; /* 0: acknowledgements only; else each flow's packets are two data segments of so many bytes
                         from the client, the server's acknowledgement of both, and so on */
    uint32_t replies; /* without payload: percent of packets that come from the server */
    size_t memory;    /* bytes of records at most; 0: no limit. A pass has at least one cycle of every flow */
    uint64_t seed;    /* of the order */
};

struct trace {
    struct trace_config config;
    uint8_t *records;
    size_t stride;    /* bytes per record, whole cache lines */
    size_t bytes;     /* mapped */
    uint64_t packets; /* per pass: the same number of every flow */
    uint64_t data;    /* of these: segments with payload */
    uint32_t step;    /* what a pass adds to the sequence number of each flow */
};

/* Builds a trace. -EINVAL, -ENOMEM. */
int trace_open(struct trace **out, const struct trace_config *config);
void trace_close(struct trace *t);

/* How many of the first n records of a pass have payload. */
uint64_t trace_data_before(const struct trace *t, uint64_t n);

/* Where one reader is. */
struct trace_feed {
    const struct trace *trace;
    struct rte_mempool *pool;
    uint64_t next;   /* record */
    uint32_t added;  /* to the sequence numbers of this pass */
    uint64_t opened; /* packets of the handshakes that were given out */
};

static inline void trace_feed_init(struct trace_feed *feed, const struct trace *t, struct rte_mempool *pool)
{
    *feed = (struct trace_feed){ .trace = t, .pool = pool };
}

/* The handshakes: SYN, SYN and ACK, ACK of every flow, for blocks of flows in turn. Gives up to n packets, 0 after the
 * last or when the pool is empty. */
unsigned trace_open_rx(struct trace_feed *feed, struct rte_mbuf **m, unsigned n);
static inline uint64_t trace_open_packets(const struct trace *t)
{
    return 3 * (uint64_t)t->config.flows;
}

/* The next packets: up to n, fewer at the end of a pass, 0 when the pool is empty. */
unsigned trace_rx(struct trace_feed *feed, struct rte_mbuf **m, unsigned n);

/* Sending: the buffers go back to the pool. */
static inline void trace_tx(struct rte_mbuf **m, unsigned n)
{
    rte_pktmbuf_free_bulk(m, n);
}

/* A port that receives from a trace: what the engine gets. It gives `budget` packets, of the handshakes while
 * `opening`, and calls reached() from tx once `mark` packets in all were sent; reached() may set a new mark and budget.
 */
struct trace_port {
    struct nst_port port;
    struct trace_feed feed;
    bool opening;
    uint64_t budget, sent, mark;
    void (*reached)(struct trace_port *p);
    void *arg;
};
void trace_port_init(struct trace_port *p, const struct trace *t, struct rte_mempool *pool);
