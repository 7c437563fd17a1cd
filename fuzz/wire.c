/* SPDX-License-Identifier: Apache-2.0 */
#include "wire.h"
#include <netinet/in.h>
#include <netstar/future.h>
#include <rte_ip.h>
#include <rte_mempool.h>
#include <rte_tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct wire wire;
static struct wire_port {
    struct nst_port port;
    unsigned side;
} ports[2];

void wire_must(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

uint8_t wire_byte(void)
{
    if (wire.left == 0)
        return 0;
    wire.left--;
    return *wire.in++;
}

static void no_log(void *arg, enum nst_log_level level, const char *text)
{
}

void wire_begin(const uint8_t *data, size_t size)
{
    struct nst_io_config config = { .packets = 1024, .no_huge = true };
    struct nst_reactor_config rc = { .cpu = -1, .stall_after = NST_NEVER, .stacks = 1024 };
    const char *why = "";

    if (wire.reactor == NULL) {
        nst_log_level(NST_LOG_ERROR);
        if (nst_io_open(&config, &why) < 0 || nst_reactor_open(&wire.reactor, &rc) < 0) {
            fprintf(stderr, "%s\n", why);
            exit(1);
        }
        nst_log_to(no_log, NULL);
    }
    wire = (struct wire){ .reactor = wire.reactor, .in = data, .left = size, .step = NST_MS(1) };
}

/* ---- the ports ---- */
static unsigned port_receive(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    unsigned got = 0;

    while (got < n && wire.at < wire.n && wire.side[wire.at] == ((struct wire_port *)p)->side) {
        m[got] = wire.queue[wire.at++];
        port_stamp(p, m[got], wire.replay ? (nst_time)wire.at * wire.step : nst_now());
        got++;
    }
    return got;
}

static void port_send(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    wire.sent += n;
    for (unsigned i = 0; i < n; i++) {
        rte_mbuf_sanity_check(m[i], 1);
        rte_pktmbuf_free(m[i]);
    }
}

static bool port_ended(const struct nst_port *p)
{
    return wire.at == wire.n;
}

static const struct port_ops ops = { .driver = "wire", .rx = port_receive, .tx = port_send, .ended = port_ended };

/* ---- frames ---- */
static void free_frame(void *frame, void *shared)
{
    free(frame);
    free(shared);
}

bool wire_send(unsigned side, const uint8_t *frame, unsigned len)
{
    if (wire.n == WIRE_PACKETS)
        return false;
    struct rte_mbuf *m = rte_pktmbuf_alloc(port_pool);
    struct rte_mbuf_ext_shared_info *shared = malloc(sizeof *shared);
    uint8_t *exact = malloc(len != 0 ? len : 1);

    MUST(m != NULL && shared != NULL && exact != NULL);
    if (len != 0)
        memcpy(exact, frame, len);
    shared->free_cb = free_frame;
    shared->fcb_opaque = shared;
    rte_mbuf_ext_refcnt_set(shared, 1);
    rte_pktmbuf_attach_extbuf(m, exact, RTE_BAD_IOVA, (uint16_t)len, shared);
    m->data_len = (uint16_t)len;
    m->pkt_len = len;
    wire.queue[wire.n] = m;
    wire.side[wire.n++] = (uint8_t)side;
    return true;
}

bool wire_send_tcp(unsigned side, const struct wire_tcp *t)
{
    enum { L3 = 14, L4 = 34, PAYLOAD = 54 };
    uint8_t frame[PAYLOAD + WIRE_PAYLOAD_MAX] = { [5] = 1, [12] = 8 };
    struct rte_ipv4_hdr ip = { .version_ihl = RTE_IPV4_VHL_DEF,
                               .total_length = rte_cpu_to_be_16((uint16_t)(PAYLOAD - L3 + t->len)),
                               .time_to_live = 64,
                               .next_proto_id = IPPROTO_TCP,
                               .src_addr = rte_cpu_to_be_32(RTE_IPV4(10, 0, 0, side == 0 ? 1 : 2)),
                               .dst_addr = rte_cpu_to_be_32(RTE_IPV4(10, 0, 0, side == 0 ? 2 : 1)) };
    struct rte_tcp_hdr tcp = { .src_port = rte_cpu_to_be_16(side == 0 ? 1000 : 80),
                               .dst_port = rte_cpu_to_be_16(side == 0 ? 80 : 1000),
                               .sent_seq = rte_cpu_to_be_32(t->seq),
                               .recv_ack = rte_cpu_to_be_32(t->ack),
                               .data_off = 5 << 4,
                               .tcp_flags = t->flags,
                               .rx_win = rte_cpu_to_be_16(t->window) };

    ip.hdr_checksum = rte_ipv4_cksum(&ip);
    memcpy(frame + L3, &ip, sizeof ip);
    memcpy(frame + L4, &tcp, sizeof tcp);
    if (t->len != 0)
        memcpy(frame + PAYLOAD, t->payload, t->len);
    tcp.cksum = rte_ipv4_udptcp_cksum(&ip, frame + L4);
    memcpy(frame + L4, &tcp, sizeof tcp);
    return wire_send(side, frame, PAYLOAD + t->len);
}

/* ---- the engine ---- */
struct run {
    const struct nst_engine_config *config;
    struct nst_engine_stats *stats;
};

static void run(void *arg)
{
    const struct run *r = arg;
    struct nst_engine_stats *s = r->stats;
    struct nst_engine *e;

    for (unsigned side = 0; side < 2; side++) {
        ports[side] =
            (struct wire_port){ .port = { .ops = &ops, .replay = wire.replay, .checksums_trusted = wire.trusted },
                                .side = side };
        wire.ports[side] = &ports[side].port;
    }
    MUST(nst_engine_open(&e, r->config, wire.ports, 2) == 0);
    if (wire.poller != NULL)
        nst_poller_add(wire.reactor, wire.poller);
    MUST(nst_engine_finish(e) == 0);
    MUST(nst_engine_drain(e, nst_now() + NST_SEC(5)) == 0);
    nst_engine_stats(e, s);
    uint64_t ends = s->forwarded + s->sent_by_handler;
    for (unsigned i = 0; i < NST_CAUSES; i++)
        ends += s->dropped[i];
    MUST(s->packets == wire.n);
    MUST(ends == s->packets);
    MUST(wire.sent == s->forwarded + s->sent_by_handler + s->injected - s->joined);
    MUST(s->flows == 0 && s->held == 0 && s->stream_kept == 0);
    MUST(s->flows_opened == s->flows_closed);
    if (wire.poller != NULL)
        nst_poller_remove(wire.reactor, wire.poller);
    nst_engine_close(e);
    nst_reactor_stop(wire.reactor);
}

void wire_run(const struct nst_engine_config *config, struct nst_engine_stats *out)
{
    struct run r = { config, out };

    MUST(nst_reactor_run(wire.reactor, run, &r) == 0);
    MUST(rte_mempool_avail_count(port_pool) == port_pool->size);
}
