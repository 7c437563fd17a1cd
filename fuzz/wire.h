/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz/wire.h - for the targets that run an engine: the input byte by byte, and two ports in memory between which
 * packets are sent. A frame lies in memory of exactly its size, so that a byte read behind it is seen.
 */
#pragma once
#include "io/port.h"
#include <netstar/engine.h>
#include <netstar/reactor.h>
#include <stdbool.h>
#include <stdint.h>

enum { WIRE_PACKETS = 256 };

struct wire {
    struct rte_mbuf *queue[WIRE_PACKETS];
    uint8_t side[WIRE_PACKETS]; /* the port that each comes in by */
    unsigned n, at;             /* queued; received */
    bool replay;
    bool trusted;              /* the ports vouch for checksums */
    nst_time step;             /* replay: between two packets */
    struct nst_poller *poller; /* of the target's own, while the engine runs */
    uint64_t sent;
    struct nst_port *ports[2];
    struct nst_reactor *reactor;
    const uint8_t *in; /* the input that is left */
    size_t left;
};
extern struct wire wire;

/* Reports what does not hold to libFuzzer. */
void wire_must(bool holds, const char *what);
#define MUST(what) wire_must(what, #what)

uint8_t wire_byte(void); /* of the input; 0 behind its end */

/* Starts DPDK and a reactor with the first input. */
void wire_begin(const uint8_t *data, size_t size);
/* Queues a frame for a port; false: the queue is full. */
bool wire_send(unsigned side, const uint8_t *frame, unsigned len);
/* A TCP segment with right checksums between 10.0.0.1:1000 (side 0) and 10.0.0.2:80 (side 1). */
struct wire_tcp {
    uint32_t seq, ack;
    uint8_t flags;
    uint16_t window;
    const uint8_t *payload;
    unsigned len;
};
enum { WIRE_PAYLOAD_MAX = 1024 };
bool wire_send_tcp(unsigned side, const struct wire_tcp *t);

/* Runs an engine over what is queued, on the reactor: every packet must meet one end, every flow must close, nothing
 * may be kept, and every buffer must be back. The numbers at the end. */
void wire_run(const struct nst_engine_config *config, struct nst_engine_stats *out);
