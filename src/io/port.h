/* SPDX-License-Identifier: Apache-2.0 */
/* io/port.h - what the flow engine knows of a port: it receives bursts and takes packets to send.
 *
 * A port belongs to one reactor. rx gives up to n packets whose time, number, port, flags and cut are set, prefetched
 * by nobody. A port with an index (the engine sets it) stamps its packets with it. Sending collects up to PORT_BURST
 * packets and hands them to the driver at the end of the turn (port_flush) or when that many are there; what the driver
 * does not take is freed and counted.
 */
#pragma once
#include "io/packet.h"
#include "io/rss.h"
#include <netstar/ports.h>
#include <netstar/reactor.h>

enum { PORT_BURST = 32 };

struct nst_port;
struct port_ops {
    const char *driver;
    unsigned (*rx)(struct nst_port *p, struct rte_mbuf **m, unsigned n);
    /* Takes all n packets: sends them, or frees and counts them. */
    void (*tx)(struct nst_port *p, struct rte_mbuf **m, unsigned n);
    /* Adds to the reactor the descriptors that end its sleep when packets arrive; 0, or -ENOTSUP: then the engine
     * sleeps in short naps only. May be NULL. */
    int (*attach)(struct nst_port *p, struct nst_reactor *r);
    void (*detach)(struct nst_port *p, struct nst_reactor *r);
    /* True when there will be no more input. NULL: never. */
    bool (*ended)(const struct nst_port *p);
    /* Called by the engine whenever no packet is held and no handler runs. May be NULL. */
    void (*quiet)(struct nst_port *p);
    /* What one core uses of a port that has a queue for each: receives and sends by that queue; lives as long as the
     * port. NULL: it has one owner. */
    struct nst_port *(*queue)(struct nst_port *p, unsigned core);
    /* May be NULL, both. */
    void (*stats)(const struct nst_port *p, struct nst_port_stats *out);
    int (*close)(struct nst_port *p);
};

struct nst_port {
    const struct port_ops *ops;
    uint16_t n_out;
    uint16_t index;             /* among the engine's ports */
    uint16_t mtu;               /* of its link; 0: not known */
    bool replay;                /* a capture: read only when quiet, its times set the clock */
    bool checksums_trusted;     /* the device (or its kernel) verifies them: packets are not stamped as open */
    bool shared;                /* it sends for other cores too: its drops are not those of one engine */
    const struct port_rss *rss; /* how its device chooses among its queues; NULL: it has one, or nobody knows */
    struct rte_mbuf *out[PORT_BURST];
    uint64_t received; /* numbers the packets */
    char name[64];
};

/* The process's packet pool, made by nst_io_open. NULL before. */
extern struct rte_mempool *port_pool;

/* What `netstar check` asks of a Linux interface: writes, line by line, what should be changed and the exact command
 * to type. Returns the number of faults (0: fit, though advice may hold a note, else empty), -ENODEV, or -errno. Works
 * without nst_io_open. Any thread. */
int port_interface_check(const char *ifname, char *advice, size_t len);

/* For whoever receives: notes of a new packet of this port. */
static inline void port_stamp(struct nst_port *p, struct rte_mbuf *m, nst_time time)
{
    struct nst_packet *k = packet_of(m);
    k->next = NULL;
    k->flow = NULL;
    k->time = time;
    k->number = ++p->received;
    k->port = p->index;
    k->flags = p->checksums_trusted ? 0 : PACKET_CHECKSUM_OPEN;
    k->cut = 0;
}

static inline unsigned port_rx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    return p->ops->rx(p, m, n);
}

static inline void port_flush(struct nst_port *p)
{
    if (p->n_out != 0) {
        unsigned n = p->n_out;
        p->n_out = 0;
        p->ops->tx(p, p->out, n);
    }
}

static inline void port_tx(struct nst_port *p, struct rte_mbuf *m)
{
    p->out[p->n_out++] = m;
    if (p->n_out == PORT_BURST)
        port_flush(p);
}
