/* SPDX-License-Identifier: Apache-2.0 */
#include "trace.h"
#include <rte_byteorder.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_memcpy.h>
#include <rte_prefetch.h>
#include <rte_tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Ahead of the frame: its length, and where in the frame the number stands to which each pass adds. The two together
 * begin a cache line, and a frame without payload ends with it. */
struct record {
    uint16_t len;
    uint16_t counted;
    uint8_t frame[];
};

enum {
    L3 = sizeof(struct rte_ether_hdr),
    L4 = L3 + sizeof(struct rte_ipv4_hdr),
    PAYLOAD = L4 + sizeof(struct rte_tcp_hdr),
    SEQ = L4 + offsetof(struct rte_tcp_hdr, sent_seq),
    ACK = L4 + offsetof(struct rte_tcp_hdr, recv_ack),
    CYCLE = 3, /* with payload: data, data, acknowledgement */
    PACKETS_MIN = 1000000,
    PER_FLOW_MIN = 4,
    AHEAD = 8,  /* records that are fetched before they are copied */
    BLOCK = 32, /* flows whose handshakes go on at the same time */
    HUGE_PAGE = 2 << 20,
};
_Static_assert(sizeof(struct record) + TRACE_MIN_FRAME == RTE_CACHE_LINE_SIZE, "a frame without payload is one line");

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

/* What is said in one packet, relative to the first numbers of the connection. */
struct segment {
    uint32_t flow;
    bool from_server;
    uint8_t flags;
    uint32_t seq, ack;
    uint32_t payload;
};

static uint32_t first_seq(uint32_t flow, bool server)
{
    return (uint32_t)mix((uint64_t)flow << 1 | server);
}

/* The n-th data byte that is sent does not depend on the packet that brings it. */
static void fill(uint8_t *p, uint32_t flow, uint32_t from, uint32_t len)
{
    uint32_t x = flow * 2654435761u + from;

    for (uint32_t i = 0; i < len; i++) {
        p[i] = (uint8_t)(x * 197 >> 8 ^ x);
        x++;
    }
}

/* Writes the frame and returns its length. */
static uint16_t build(uint8_t *frame, const struct segment *s)
{
    struct rte_ether_hdr eth = { .ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4) };
    struct rte_ipv4_hdr ip = { 0 };
    struct rte_tcp_hdr tcp = { 0 };
    uint64_t h = mix(s->flow ^ 0x5eedull << 32);
    /* An odd factor permutes the addresses of 10/8: no two flows are the same. */
    uint32_t client = RTE_IPV4(10, 0, 0, 0) | (s->flow * 0x9e3779b1u & 0xffffff);
    uint32_t server = RTE_IPV4(198u, 18, 0, 1) + (h & 15);
    uint16_t client_port = 1024 + (uint16_t)(h >> 16) % 64512;
    uint16_t server_port = h >> 32 & 1 ? 443 : 80;
    uint16_t len = PAYLOAD + s->payload;

    eth.src_addr.addr_bytes[0] = eth.dst_addr.addr_bytes[0] = 2; /* locally administered */
    eth.src_addr.addr_bytes[5] = 1 + s->from_server;
    eth.dst_addr.addr_bytes[5] = 2 - s->from_server;
    ip.version_ihl = 0x45;
    ip.total_length = rte_cpu_to_be_16(len - L3);
    ip.fragment_offset = rte_cpu_to_be_16(RTE_IPV4_HDR_DF_FLAG);
    ip.time_to_live = 64;
    ip.next_proto_id = IPPROTO_TCP;
    ip.src_addr = rte_cpu_to_be_32(s->from_server ? server : client);
    ip.dst_addr = rte_cpu_to_be_32(s->from_server ? client : server);
    ip.hdr_checksum = rte_ipv4_cksum(&ip);
    tcp.src_port = rte_cpu_to_be_16(s->from_server ? server_port : client_port);
    tcp.dst_port = rte_cpu_to_be_16(s->from_server ? client_port : server_port);
    tcp.sent_seq = rte_cpu_to_be_32(first_seq(s->flow, s->from_server) + s->seq);
    if (s->flags & RTE_TCP_ACK_FLAG)
        tcp.recv_ack = rte_cpu_to_be_32(first_seq(s->flow, !s->from_server) + s->ack);
    tcp.data_off = sizeof tcp / 4 << 4;
    tcp.tcp_flags = s->flags;
    tcp.rx_win = rte_cpu_to_be_16(65535);

    memcpy(frame, &eth, sizeof eth);
    memcpy(frame + L3, &ip, sizeof ip);
    memcpy(frame + L4, &tcp, sizeof tcp);
    if (s->payload != 0)
        fill(frame + PAYLOAD, s->flow, s->seq, s->payload);
    else
        memset(frame + PAYLOAD, 0, TRACE_MIN_FRAME - PAYLOAD);
    tcp.cksum = rte_ipv4_udptcp_cksum(&ip, frame + L4);
    memcpy(frame + L4 + offsetof(struct rte_tcp_hdr, cksum), &tcp.cksum, sizeof tcp.cksum);
    return RTE_MAX(len, (uint16_t)TRACE_MIN_FRAME);
}

/* Every flow per_flow times, in random order. */
static uint32_t *shuffled(uint32_t flows, uint64_t packets, uint64_t seed)
{
    uint32_t *order = malloc(packets * sizeof *order);

    if (order == NULL)
        return NULL;
    for (uint64_t i = 0; i < packets; i++)
        order[i] = i % flows;
    for (uint64_t i = packets - 1; i > 0; i--) {
        uint64_t j = (uint64_t)((unsigned __int128)mix(seed + i) * (i + 1) >> 64);
        uint32_t other = order[j];
        order[j] = order[i];
        order[i] = other;
    }
    return order;
}

/* The packet of a flow that comes as its i-th in each pass. */
static void segment_of(struct segment *s, const struct trace *t, uint32_t flow, uint64_t at, uint32_t i)
{
    uint32_t payload = t->config.payload;
    uint32_t before = i / CYCLE * (CYCLE - 1) + i % CYCLE; /* data segments, in a trace with payload */

    *s = (struct segment){ .flow = flow, .flags = RTE_TCP_ACK_FLAG, .seq = 1, .ack = 1 };
    if (payload == 0) {
        s->from_server = mix(t->config.seed ^ ~at) % 100 < t->config.replies;
    } else if (i % CYCLE == CYCLE - 1) {
        s->from_server = true;
        s->ack += before * payload;
    } else {
        s->flags |= RTE_TCP_PSH_FLAG;
        s->seq += before * payload;
        s->payload = payload;
    }
}

static int write_records(struct trace *t)
{
    uint32_t *order = shuffled(t->config.flows, t->packets, t->config.seed);
    uint32_t *seen = calloc(t->config.flows, sizeof *seen);
    int rc = 0;

    if (order == NULL || seen == NULL) {
        rc = -ENOMEM;
        goto out;
    }
    for (uint64_t i = 0; i < t->packets; i++) {
        struct record *r = (struct record *)(t->records + i * t->stride);
        struct segment s;

        segment_of(&s, t, order[i], i, seen[order[i]]++);
        r->len = build(r->frame, &s);
        r->counted = s.payload == 0 && s.from_server ? ACK : SEQ;
        t->data += s.payload != 0;
    }
out:
    free(order);
    free(seen);
    return rc;
}

int trace_open(struct trace **out, const struct trace_config *config)
{
    uint64_t cycle = config->payload != 0 ? CYCLE : 1;
    uint64_t per_flow, most;
    struct trace *t;
    int rc;

    if (config->flows == 0 || config->flows > TRACE_FLOWS_MAX || config->payload > TRACE_PAYLOAD_MAX ||
        config->replies > 100)
        return -EINVAL;
    t = calloc(1, sizeof *t);
    if (t == NULL)
        return -ENOMEM;
    t->config = *config;
    t->stride = RTE_ALIGN(sizeof(struct record) + RTE_MAX(PAYLOAD + config->payload, (uint32_t)TRACE_MIN_FRAME),
                          (size_t)RTE_CACHE_LINE_SIZE);
    per_flow = RTE_MAX((uint64_t)PER_FLOW_MIN, (PACKETS_MIN + config->flows - 1) / config->flows);
    most = config->memory != 0 ? config->memory / t->stride / config->flows : UINT64_MAX;
    per_flow = RTE_MIN(per_flow, most);
    per_flow = RTE_MAX((per_flow + cycle - 1) / cycle, 1ul) * cycle;
    t->packets = per_flow * config->flows;
    t->step = config->payload * (per_flow / CYCLE * (CYCLE - 1));
    t->bytes = RTE_ALIGN(t->packets * t->stride, (size_t)HUGE_PAGE);
    t->records = mmap(NULL, t->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (t->records == MAP_FAILED) {
        free(t);
        return -ENOMEM;
    }
    /* Where it is refused the pages are small and the trace is as right, only read a little slower. */
    (void)madvise(t->records, t->bytes, MADV_HUGEPAGE);
    rc = write_records(t);
    if (rc < 0) {
        trace_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

void trace_close(struct trace *t)
{
    if (t == NULL)
        return;
    munmap(t->records, t->bytes);
    free(t);
}

uint64_t trace_data_before(const struct trace *t, uint64_t n)
{
    uint64_t data = 0;

    for (uint64_t i = 0; i < n; i++)
        data += ((const struct record *)(t->records + i * t->stride))->len > TRACE_MIN_FRAME;
    return data;
}

unsigned trace_open_rx(struct trace_feed *feed, struct rte_mbuf **m, unsigned n)
{
    static const struct segment steps[3] = {
        { .flags = RTE_TCP_SYN_FLAG },
        { .flags = RTE_TCP_SYN_FLAG | RTE_TCP_ACK_FLAG, .ack = 1, .from_server = true },
        { .flags = RTE_TCP_ACK_FLAG, .seq = 1, .ack = 1 },
    };
    uint64_t flows = feed->trace->config.flows;

    n = RTE_MIN((uint64_t)n, 3 * flows - feed->opened);
    if (n == 0 || rte_pktmbuf_alloc_bulk(feed->pool, m, n) != 0)
        return 0;
    for (unsigned i = 0; i < n; i++, feed->opened++) {
        uint64_t first = feed->opened / (3 * BLOCK) * BLOCK;
        uint64_t block = RTE_MIN((uint64_t)BLOCK, flows - first);
        uint64_t at = feed->opened - 3 * first;
        struct segment s = steps[at / block];

        s.flow = first + at % block;
        m[i]->data_len = m[i]->pkt_len = build(rte_pktmbuf_mtod(m[i], uint8_t *), &s);
    }
    return n;
}

/* The record goes over in whole lines, its first four bytes into the head room: there is no length to branch on, and
 * the frame lies in its buffer as it lies in the trace. */
static inline void copy_record(struct rte_mbuf *m, const struct record *r, size_t stride)
{
    uint8_t *to = (uint8_t *)m->buf_addr + RTE_PKTMBUF_HEADROOM;

    for (size_t i = 0; i < stride; i += RTE_CACHE_LINE_SIZE)
        rte_mov64(to + i, (const uint8_t *)r + i);
    m->data_off = RTE_PKTMBUF_HEADROOM + sizeof *r;
    m->data_len = m->pkt_len = r->len;
}

unsigned trace_rx(struct trace_feed *feed, struct rte_mbuf **m, unsigned n)
{
    const struct trace *t = feed->trace;
    const uint8_t *at = t->records + feed->next * t->stride;

    n = RTE_MIN((uint64_t)n, t->packets - feed->next);
    if (rte_pktmbuf_alloc_bulk(feed->pool, m, n) != 0)
        return 0;
    if (t->config.payload == 0) {
        for (unsigned i = 0; i < n; i++, at += RTE_CACHE_LINE_SIZE) {
            rte_prefetch0(at + AHEAD * RTE_CACHE_LINE_SIZE);
            copy_record(m[i], (const struct record *)at, RTE_CACHE_LINE_SIZE);
        }
    } else {
        for (unsigned i = 0; i < n; i++, at += t->stride) {
            const struct record *r = (const struct record *)at;
            uint8_t *number;
            uint32_t v;

            for (size_t j = 0; j < t->stride; j += RTE_CACHE_LINE_SIZE)
                rte_prefetch0(at + AHEAD * t->stride + j);
            copy_record(m[i], r, t->stride);
            number = rte_pktmbuf_mtod_offset(m[i], uint8_t *, r->counted);
            memcpy(&v, r->frame + r->counted, sizeof v);
            v = rte_cpu_to_be_32(rte_be_to_cpu_32(v) + feed->added);
            memcpy(number, &v, sizeof v);
        }
    }
    feed->next += n;
    if (feed->next == t->packets) {
        feed->next = 0;
        feed->added += t->step;
    }
    return n;
}

static unsigned port_receive(struct nst_port *port, struct rte_mbuf **m, unsigned n)
{
    struct trace_port *p = (struct trace_port *)port;
    nst_time now = nst_now();

    n = RTE_MIN((uint64_t)n, p->budget);
    if (n == 0)
        return 0;
    n = p->opening ? trace_open_rx(&p->feed, m, n) : trace_rx(&p->feed, m, n);
    for (unsigned i = 0; i < n; i++) {
        struct nst_packet *packet = packet_of(m[i]);
        packet->number = ++port->received;
        packet->time = now;
        packet->port = port->index;
        packet->flags = port->checksums_trusted ? 0 : PACKET_CHECKSUM_OPEN;
    }
    p->budget -= n;
    return n;
}

static void port_send(struct nst_port *port, struct rte_mbuf **m, unsigned n)
{
    struct trace_port *p = (struct trace_port *)port;

    trace_tx(m, n);
    p->sent += n;
    if (p->sent >= p->mark)
        p->reached(p);
}

static void port_count(const struct nst_port *port, struct nst_port_stats *out)
{
    *out =
        (struct nst_port_stats){ .rx_packets = port->received, .tx_packets = ((const struct trace_port *)port)->sent };
}

static int port_end(struct nst_port *port)
{
    return 0;
}

void trace_port_init(struct trace_port *p, const struct trace *t, struct rte_mempool *pool)
{
    static const struct port_ops ops = {
        .driver = "trace", .rx = port_receive, .tx = port_send, .stats = port_count, .close = port_end
    };

    *p = (struct trace_port){ .port = { .ops = &ops, .checksums_trusted = true, .name = "trace" }, .mark = UINT64_MAX };
    trace_feed_init(&p->feed, t, pool);
}
