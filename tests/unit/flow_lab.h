/* SPDX-License-Identifier: Apache-2.0 */
/* flow_lab.h - what the tests of the flow layer share: frames, ports in memory, and an engine between them.
 *
 * Packets are sent into one queue, and the engine gets them in that order, whichever of the two ports each came in by.
 * What leaves is recorded. Checks inside a laboratory run on the stacks of tasks, so they only count (check, check_eq);
 * lab_run asserts at its end, on cmocka's own stack, that all held, that the engine could be drained and that every
 * packet buffer is back in the pool.
 */
#pragma once
#include "io/port.h"
#include <netstar/engine.h>
#include <netstar/future.h>
#include <netstar/ports.h>
#include <netstar/task.h>
#include <netstar/tcp.h>
#include <rte_tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum {
    FIN = RTE_TCP_FIN_FLAG,
    SYN = RTE_TCP_SYN_FLAG,
    RST = RTE_TCP_RST_FLAG,
    PSH = RTE_TCP_PSH_FLAG,
    ACK = RTE_TCP_ACK_FLAG,
    C2S = 0, /* directions, and the port of their packets */
    S2C = 1,
    LAB_FRAME = 9216,
};

/* Two endpoints: the client (0) and the server (1). Addresses are made of small numbers. */
struct lab_path {
    uint8_t family, proto;
    uint8_t tags; /* VLAN tags, the outer one first */
    uint16_t vlan[3];
    uint32_t host[2];
    uint16_t port[2];
};
extern const struct lab_path lab_tcp4, lab_tcp6, lab_udp4, lab_udp6;

struct lab_tcp {
    uint8_t flags;
    uint32_t seq, ack;
    const void *data;
    unsigned len;
};

/* Builders: write a frame with right checksums and return its length. dir says who sends it. */
unsigned lab_tcp_frame(uint8_t *frame, const struct lab_path *path, unsigned dir, struct lab_tcp t);
unsigned lab_udp_frame(uint8_t *frame, const struct lab_path *path, unsigned dir, const void *data, unsigned len);
/* Ethernet, tags, and an IP header whose payload of proto `proto` is l4_len bytes; returns where that begins. */
unsigned lab_ip_header(uint8_t *frame, const struct lab_path *path, unsigned dir, uint8_t proto, unsigned l4_len);
/* Writes TCP's or UDP's checksum of the frame anew. */
void lab_checksum(uint8_t *frame, unsigned tags, uint8_t family, uint8_t proto);

/* A packet that left. */
struct lab_out {
    unsigned port;
    unsigned len;
    uint8_t *frame;
    const struct rte_tcp_hdr *tcp; /* in the frame; NULL when it has none */
    const uint8_t *data;           /* behind the TCP or UDP header */
    unsigned data_len;
};

struct lab {
    struct nst_engine *engine;
    struct nst_reactor *reactor;
    struct lab_out *out;
    unsigned n_out;
    unsigned pieces;   /* split the following packets' payload into so many mbufs; 0, 1: one */
    unsigned burst;    /* packets that one rx gives at most; 0: as many as asked */
    nst_time time;     /* replay: of the next packet */
    bool ended;        /* there will be no more input */
    unsigned rx_calls; /* that found something */
    unsigned quiet;    /* times that a port heard it */
    unsigned failures;
    int drain;          /* what the closing drain answered */
    unsigned logged;    /* messages of level warning or worse */
    nst_time drain_for; /* how long the drain may take; 0: 5 s */
    bool drained;       /* the body has drained and closed the engine itself */
    bool sum_bad;       /* the following packets come with the device's word that a checksum is wrong */
};
extern struct lab lab;
extern bool lab_untrusted; /* the ports of the next run leave checksums to the engine */

/* Opens DPDK once for the process. */
int lab_setup(void **state);
int lab_teardown(void **state);

/* Runs body as the main task of a reactor on which an engine stands between two ports. */
void lab_run(const struct nst_engine_config *config, void (*body)(void));
/* The same over ports that replay a capture. */
void lab_replay(const struct nst_engine_config *config, void (*body)(void));

/* Into the queue. Nothing is looked at before the next lab_settle or lab_turns. */
void lab_send(unsigned port, const void *frame, unsigned len);
void lab_send_tcp(const struct lab_path *path, unsigned dir, struct lab_tcp t);
void lab_send_udp(const struct lab_path *path, unsigned dir, const void *data, unsigned len);
/* Lets the engine take all that was sent, and a few turns more. */
void lab_settle(void);
void lab_turns(unsigned n);
/* Packets that were sent and not taken yet. */
unsigned lab_queued(void);
/* Forgets what left. */
void lab_clear(void);
struct nst_engine_stats lab_stats(void);
/* SYN, SYN-ACK, ACK; the first bytes then have the numbers isn + 1. Forgets what left. */
void lab_handshake(const struct lab_path *path, uint32_t client_isn, uint32_t server_isn);
/* Data with PSH and ACK. */
void lab_data(const struct lab_path *path, unsigned dir, uint32_t seq, uint32_t ack, const char *text);

/* A future that the test fulfils; its waiter may give up. */
struct lab_answer {
    struct nst_future f;
    bool open, stopped;
};
/* For handlers: waits for the answer. */
int lab_wait(struct lab_answer *a, nst_time until);
void lab_fulfil(struct lab_answer *a, int rc);

/* xorshift; the seed comes from NST_SEED where that is set. */
uint64_t lab_seed(void);
uint32_t lab_random(uint64_t *state, uint32_t below);

#define check(what)                              \
    do {                                         \
        if (!(what))                             \
            lab_fail(__FILE__, __LINE__, #what); \
    } while (0)
#define check_eq(a, b) lab_equal(__FILE__, __LINE__, #a, (long long)(a), (long long)(b))
void lab_fail(const char *file, int line, const char *what);
void lab_equal(const char *file, int line, const char *what, long long is, long long should);
