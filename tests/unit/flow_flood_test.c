/* SPDX-License-Identifier: Apache-2.0 */
/* Floods: downloads go on while ten times more flows are opened than the table has room for. Every download has to end
 * byte for byte, no packet of one may be dropped, and memory stays within what was announced.
 *
 * Packets are made where they are received, between two ports of the test's own: a few of the downloads in each burst,
 * the rest the flood's. What leaves is looked at and thrown away.
 */
#include "flow/engine.h"
#include <netinet/in.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifdef __SANITIZE_ADDRESS__
enum { SCALE = 50 };
#else
enum { SCALE = 1 };
#endif

enum {
    SYN = RTE_TCP_SYN_FLAG,
    ACK = RTE_TCP_ACK_FLAG,
    RST = RTE_TCP_RST_FLAG,
    FIN = RTE_TCP_FIN_FLAG,
    PSH = RTE_TCP_PSH_FLAG,
    HEADERS = 54,
    SEGMENT = 512,
    SEGMENTS = 24, /* of a download */
    STEPS = 3 + 2 * SEGMENTS + 3,
    SERVER = 0x0a800001,
    CLIENTS = 0x0a000000, /* and the downloads' number */
    OTHERS = 0x14000000,  /* the flood's */
    SLACK_KB = 24 << 10,  /* stacks, the heap, whole pages: nothing that grows with the flood */
};

enum kind { SYN_FLOOD, PORT_SCAN, OUT_OF_ORDER, KINDS };

static struct run {
    enum kind kind;
    uint32_t downloads, flows;
    uint64_t flood, sent; /* packets of the flood: wanted, and so far */
    uint32_t step, next;  /* of the downloads: every one makes a step before any makes the next */
    unsigned failures;
    uint64_t delivered, left; /* bytes of downloads that a handler has seen, that left towards the clients */
    uint32_t *reached;        /* by each client */
    struct nst_engine_stats stats;
    uint64_t before_kb, peak_kb;
    size_t announced;
} run;

#define must(what)                                                                    \
    do {                                                                              \
        if (!(what) && run.failures++ < 10)                                           \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what); \
    } while (0)

static uint8_t byte_at(uint32_t download, uint32_t offset)
{
    return (uint8_t)((download * 2654435761u + offset * 40503u) >> 13);
}

static uint64_t memory_kb(void)
{
    char line[128];
    unsigned long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");

    while (f != NULL && fgets(line, sizeof line, f) != NULL && sscanf(line, "VmRSS: %lu", &kb) != 1)
        ;
    if (f != NULL)
        fclose(f);
    return kb;
}

/* ---- packets ---- */
static struct port {
    struct nst_port port;
    unsigned number;
} ports[2];

struct segment_of {
    uint32_t from, to;
    uint16_t from_port, to_port;
    uint8_t flags;
    uint32_t seq, ack;
    unsigned len;
};

static uint8_t *make(struct rte_mbuf *m, const struct segment_of *s)
{
    static const uint8_t ethernet[14] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0 };
    uint8_t *at = (uint8_t *)rte_pktmbuf_append(m, (uint16_t)(HEADERS + s->len));
    struct rte_ipv4_hdr *ip = (void *)(at + sizeof ethernet);
    struct rte_tcp_hdr *tcp = (void *)(ip + 1);

    memcpy(at, ethernet, sizeof ethernet);
    *ip = (struct rte_ipv4_hdr){ .version_ihl = RTE_IPV4_VHL_DEF,
                                 .total_length = rte_cpu_to_be_16((uint16_t)(40 + s->len)),
                                 .time_to_live = 64,
                                 .next_proto_id = IPPROTO_TCP,
                                 .src_addr = rte_cpu_to_be_32(s->from),
                                 .dst_addr = rte_cpu_to_be_32(s->to) };
    *tcp = (struct rte_tcp_hdr){ .src_port = rte_cpu_to_be_16(s->from_port),
                                 .dst_port = rte_cpu_to_be_16(s->to_port),
                                 .sent_seq = rte_cpu_to_be_32(s->seq),
                                 .recv_ack = rte_cpu_to_be_32(s->ack),
                                 .data_off = 5 << 4,
                                 .tcp_flags = s->flags,
                                 .rx_win = 0xffff };
    return at + HEADERS;
}

/* Step by step a download: handshake, segments and their acknowledgments, the end. Returns the port. */
static unsigned download_packet(struct rte_mbuf *m, uint32_t d, uint32_t step)
{
    struct segment_of up = { CLIENTS + d, SERVER, (uint16_t)(1024 + d % 60000), 80, ACK, 1, 1, 0 };
    struct segment_of down = { SERVER, CLIENTS + d, 80, up.from_port, ACK, 1, 1, 0 };
    const uint32_t all = SEGMENTS * SEGMENT;

    if (step == 0) {
        up.flags = SYN, up.seq = 0, up.ack = 0;
    } else if (step == 1) {
        down.flags = SYN | ACK, down.seq = 0;
    } else if (step == 2) {
        ; /* ACK */
    } else if (step < 3 + 2 * SEGMENTS) {
        uint32_t n = (step - 3) / 2;
        if ((step - 3) % 2 == 0) {
            down.flags = ACK | PSH, down.seq = 1 + n * SEGMENT, down.len = SEGMENT;
            uint8_t *to = make(m, &down);
            for (uint32_t i = 0; i < SEGMENT; i++)
                to[i] = byte_at(d, n * SEGMENT + i);
            return 1;
        }
        up.ack = 1 + (n + 1) * SEGMENT;
    } else if (step == 3 + 2 * SEGMENTS) {
        down.flags = FIN | ACK, down.seq = 1 + all;
    } else if (step == 4 + 2 * SEGMENTS) {
        up.flags = FIN | ACK, up.ack = 2 + all;
    } else {
        down.seq = 2 + all, down.ack = 2;
    }
    bool is_up = step == 0 || step == 2 || step == 4 + 2 * SEGMENTS || (step < 3 + 2 * SEGMENTS && step > 2);
    make(m, is_up ? &up : &down);
    return is_up ? 0 : 1;
}

/* The flood's packet number n. */
static unsigned flood_packet(struct rte_mbuf *m, uint64_t n)
{
    enum { HELD = 40 }; /* OUT_OF_ORDER: packets of one attacker: a handshake, then single bytes behind a hole */
    uint64_t who = run.kind == SYN_FLOOD ? n : n / (run.kind == PORT_SCAN ? 2 : HELD), part = n % HELD;
    uint32_t mixed = (uint32_t)(who * 0x9e3779b97f4a7c15ull >> 32);
    struct segment_of s = { OTHERS + (uint32_t)(who & 0xffffff),
                            SERVER + 1 + (mixed & 0xff),
                            (uint16_t)(mixed >> 8 | 1),
                            80,
                            SYN,
                            mixed,
                            0,
                            0 };

    if (run.kind == PORT_SCAN) { /* one host, ports one after the other, most of them closed */
        s.from = OTHERS + (uint32_t)(who >> 24), s.from_port = 7, s.to = SERVER + 1 + (uint32_t)(who >> 16 & 0xffff);
        s.to_port = (uint16_t)who;
        if (n % 2 != 0) {
            struct segment_of r = { s.to, s.from, s.to_port, s.from_port, RST | ACK, 0, s.seq + 1, 0 };
            make(m, &r);
            return 1;
        }
    }
    if (run.kind == OUT_OF_ORDER && part == 1) {
        struct segment_of a = { s.to, s.from, s.to_port, s.from_port, SYN | ACK, 77, s.seq + 1, 0 };
        make(m, &a);
        return 1;
    }
    if (run.kind == OUT_OF_ORDER && part >= 2) {
        s.flags = ACK, s.ack = 78;
        s.seq += part == 2 ? 1 : 1 + 2 * (uint32_t)(part % 3 == 0 ? part : HELD * 2 - part); /* there and back */
        s.len = part == 2 ? 0 : 1;
    }
    uint8_t *to = make(m, &s);
    if (s.len != 0)
        *to = 'x';
    return 0;
}

/* ---- ports ---- */
static struct rte_mbuf *waiting[2][PORT_BURST * 2];
static unsigned n_waiting[2], older; /* whose packets were made first, where both have some */

static bool all_sent(void)
{
    return run.step == STEPS && run.sent >= run.flood;
}

/* One more packet, for the port that it belongs to. The downloads are spread evenly over the flood. */
static void produce(void)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(port_pool);
    uint64_t made = (uint64_t)run.step * run.downloads + run.next, of = (uint64_t)STEPS * run.downloads;
    unsigned port;

    must(m != NULL);
    if (run.step < STEPS && (run.sent >= run.flood || made * run.flood <= run.sent * of)) {
        port = download_packet(m, run.next, run.step);
        if (++run.next == run.downloads) {
            run.next = 0;
            run.step++;
            uint64_t kb = memory_kb();
            run.peak_kb = kb > run.peak_kb ? kb : run.peak_kb;
        }
    } else {
        port = flood_packet(m, run.sent++);
    }
    if (n_waiting[!port] == 0)
        older = port;
    waiting[port][n_waiting[port]++] = m;
}

/* In the order in which they are made: a packet for the other port ends the burst, and nothing is made before that port
 * has been asked for it. */
static unsigned receive(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    unsigned me = ((struct port *)p)->number;

    while (n_waiting[!me] == 0 && n_waiting[me] < n && !all_sent())
        produce();
    if (n_waiting[!me] != 0 && older != me)
        return 0;
    older = !me;
    n = n_waiting[me];
    for (unsigned i = 0; i < n; i++) {
        m[i] = waiting[me][i];
        port_stamp(p, m[i], nst_now());
    }
    n_waiting[me] = 0;
    return n;
}

static void leave(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        const struct rte_ipv4_hdr *ip = rte_pktmbuf_mtod_offset(m[i], const void *, 14);
        const struct rte_tcp_hdr *tcp = (const void *)(ip + 1);
        uint32_t d = rte_be_to_cpu_32(ip->dst_addr) - CLIENTS;
        unsigned len = rte_be_to_cpu_16(ip->total_length) - 40u;
        if (rte_be_to_cpu_32(ip->src_addr) == SERVER && d < run.downloads && len > 0) {
            const uint8_t *bytes = (const uint8_t *)(tcp + 1);
            must(rte_be_to_cpu_32(tcp->sent_seq) == 1 + run.reached[d]);
            for (unsigned k = 0; k < len; k += 37)
                must(bytes[k] == byte_at(d, run.reached[d] + k));
            run.reached[d] += len;
            run.left += len;
        }
        rte_pktmbuf_free(m[i]);
    }
}

static bool ended(const struct nst_port *p)
{
    return all_sent() && n_waiting[0] == 0 && n_waiting[1] == 0;
}

static const struct port_ops ops = { .driver = "flood", .rx = receive, .tx = leave, .ended = ended };

/* ---- the NF: looks at every byte that a client receives ---- */
static enum nst_verdict look(struct nst_flow *f, const struct nst_event *ev)
{
    uint32_t *next = nst_flow_state(f);
    struct nst_endpoint client;
    struct nst_slice s;

    nst_flow_endpoint(f, NST_CLIENT, &client);
    uint32_t d = ((uint32_t)client.addr[0] << 24 | (uint32_t)client.addr[1] << 16 | (uint32_t)client.addr[2] << 8 |
                  client.addr[3]) -
                 CLIENTS;
    while (nst_flow_bytes(f, ev->side, &s)) {
        if (d >= run.downloads)
            continue;
        for (size_t i = 0; i < s.len; i++)
            must(((const uint8_t *)s.p)[i] == byte_at(d, *next + (uint32_t)i));
        *next += (uint32_t)s.len;
        run.delivered += s.len;
    }
    return NST_FORWARD;
}

static const struct nst_nf nf = {
    .name = "flood",
    .half = { [NST_CLIENT] = { .inspect = &nst_tcp, .on_received = NST_EV_DATA, .handler = look },
              [NST_SERVER] = { .inspect = &nst_tcp, .on_received = NST_EV_DATA, .handler = look } },
    .flow_size = 4,
};
enum { STREAM_MEMORY = 16 << 20 };

static void main_task(void *arg)
{
    const struct nst_engine_config config = { .nf = &nf, .flows = run.flows, .stream_memory = STREAM_MEMORY };
    struct nst_port *const both[] = { &ports[0].port, &ports[1].port };
    struct nst_engine *e = NULL;

    run.announced = nst_engine_flow_bytes(&nf) * (run.flows + 64) + STREAM_MEMORY;
    run.before_kb = memory_kb();
    must(nst_engine_open(&e, &config, both, 2) == 0);
    must(nst_engine_finish(e) == 0);
    nst_engine_stats(e, &run.stats);
    must(nst_engine_drain(e, nst_now() + NST_SEC(60)) == 0);
    nst_engine_close(e);
    nst_reactor_stop(nst_reactor_self());
}

static void flood(enum kind kind, uint32_t downloads, uint32_t flows, uint64_t packets)
{
    struct nst_reactor_config rc = { .cpu = -1, .stall_after = NST_NEVER };
    struct nst_reactor *r = NULL;

    run = (struct run){ .kind = kind,
                        .downloads = downloads / SCALE,
                        .flows = flows / SCALE,
                        .flood = packets / SCALE,
                        .reached = calloc(downloads, sizeof(uint32_t)) };
    n_waiting[0] = n_waiting[1] = 0;
    for (unsigned i = 0; i < 2; i++)
        ports[i] = (struct port){ .port = { .ops = &ops, .checksums_trusted = true }, .number = i };
    assert_int_equal(nst_reactor_open(&r, &rc), 0);
    assert_int_equal(nst_reactor_run(r, main_task, NULL), 0);
    nst_reactor_close(r);
    free(run.reached);
    const struct nst_engine_stats *s = &run.stats;
    uint64_t all = (uint64_t)run.downloads * SEGMENTS * SEGMENT;
    print_message("%u downloads among %llu packets: %llu evicted, %llu refused, %llu MiB of %zu announced\n",
                  run.downloads, (unsigned long long)run.flood, (unsigned long long)s->flows_evicted,
                  (unsigned long long)s->flows_refused, (unsigned long long)(run.peak_kb - run.before_kb) >> 10,
                  run.announced >> 20);
    assert_int_equal(run.failures, 0);
    assert_int_equal(run.delivered, all);
    assert_int_equal(run.left, all);
    assert_int_equal(s->evicted[NST_WORTH_IDLE], 0);
    assert_int_equal(s->flows_refused, 0);
    assert_true(s->flows_peak <= run.flows + 64);
    assert_true(s->stream_kept_peak <= STREAM_MEMORY);
    uint64_t dropped = 0, evicted = 0;
    for (unsigned i = 0; i < NST_CAUSES; i++)
        dropped += s->dropped[i];
    for (unsigned i = 0; i < NST_WORTHS; i++)
        evicted += s->evicted[i];
    assert_int_equal(evicted, s->flows_evicted);
    assert_int_equal(s->packets, s->forwarded + dropped);
    assert_int_equal(s->packets, run.flood + (uint64_t)run.downloads * STEPS);
    if (SCALE == 1) /* a sanitizer has memory of its own */
        assert_true(run.peak_kb <= run.before_kb + (run.announced >> 10) + SLACK_KB);
}

/* Every opening packet is worth less than what is established; the table is full for nine tenths of the time. */
static void half_open_flows(void **state)
{
    flood(SYN_FLOOD, 10000, 1 << 20, 10000000);
    assert_true(run.stats.evicted[NST_WORTH_UNANSWERED] > run.flood * 8 / 10);
    assert_int_equal(run.stats.flows_evicted - run.stats.evicted[NST_WORTH_CLOSING],
                     run.stats.evicted[NST_WORTH_UNANSWERED]);
}

static void port_scans(void **state)
{
    flood(PORT_SCAN, 1000, 20000, 1000000);
    assert_int_equal(run.stats.flows_evicted,
                     run.stats.evicted[NST_WORTH_CLOSING] + run.stats.evicted[NST_WORTH_UNANSWERED]);
    assert_true(run.stats.flows_evicted > 0);
}

static int setup(void **state)
{
    struct nst_io_config io = { .packets = 8192, .no_huge = true };
    const char *why = "";

    nst_log_level(NST_LOG_WARNING);
    return nst_io_open(&io, &why);
}

static int teardown(void **state)
{
    uint32_t missing = 0;
    return nst_io_close(&missing);
}

/* Established flows, each with single bytes behind a hole: they take what stream memory there is for that, and no more. */
static void tiny_segments_out_of_order(void **state)
{
    flood(OUT_OF_ORDER, 1000, 200000, 2000000);
    assert_true(run.stats.dropped[NST_BY_STREAM_LIMIT] > 0);
    assert_true(run.stats.stream_kept_peak > STREAM_MEMORY / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(half_open_flows),
        cmocka_unit_test(port_scans),
        cmocka_unit_test(tiny_segments_out_of_order),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
