/* SPDX-License-Identifier: Apache-2.0 */
/* bench/store_nf.h - network functions with a store, over captures in memory: the port that gives the packets, and the
 * server that the store is on.
 */
#pragma once
#include "base/histogram.h"
#include "io/port.h"
#include <netstar/netstar.h>

/* ---- the packets: every frame of some captures, of several copies of them at the same time, each copy with addresses of
 *      its own and begun at a time of its own, in the order of their times ---- */
struct nf_frame {
    uint32_t frame; /* of the captures */
    uint32_t copy;
};

struct nf_captures {
    uint8_t *bytes;
    uint32_t *at;
    uint16_t *len;
    nst_time *time;
    uint32_t n, room;
    size_t used, mapped;
    struct nf_frame *order; /* n * copies of them */
    uint64_t packets;
    bool *to_server;
};

/* Adds a capture file, its first frame being at time 0. Only TCP over IPv4 is taken. A negative errno, having said why. */
int nf_captures_add(struct nf_captures *c, const char *path);
/* Makes the order, for so many copies that there are about so many packets. -ENOMEM. */
int nf_captures_order(struct nf_captures *c, uint64_t packets);
void nf_captures_free(struct nf_captures *c);

struct nf_port {
    struct nst_port port;
    const struct nf_captures *captures;
    struct rte_mempool *pool;
    bool only_to_server; /* only what a client sends, but for the packets that open and close a connection */
    unsigned pass;       /* whose addresses they get */
    uint64_t next;       /* in the order */
    uint64_t left;       /* sent, of those that were given */
    uint64_t given;      /* in this pass */
    uint32_t window;     /* on their way at most */
    nst_time interval;   /* between two; 0: as fast as they are taken */
    nst_time begin, end;
    struct nst_histogram *latency; /* from when a packet was due until it was sent; may be NULL */
    struct nst_future *done;       /* of this pass */
};

void nf_port_init(struct nf_port *p, const struct nf_captures *c, struct rte_mempool *pool);
/* Gives all packets, and waits until all have left: 0, or -ETIMEDOUT. */
int nf_port_pass(struct nf_port *p, unsigned pass, struct nst_histogram *latency, nst_time interval) NST_WAITS;

/* ---- the server ---- */
struct nf_server {
    char dir[64], sock[80];
    int pid, cpu;
};
/* Starts redis-server on one core, listening on a Unix socket. -ENOENT. */
int nf_server_start(struct nf_server *s, int cpu);
void nf_server_stop(struct nf_server *s);
/* Requests a second that redis-benchmark gets for a command, on the core `cpu`, 64 at once over one connection; 0: none. */
double nf_server_rate(const struct nf_server *s, int cpu, unsigned long requests, const char *command);
void nf_server_clear(const struct nf_server *s);
