/* SPDX-License-Identifier: Apache-2.0 */
/* The benchmark's trace is what every ratio rests on: that each flow comes equally often, in random order, with
 * segments that follow one another over the passes, in frames that are right. */
#include "trace.h"
#include <rte_eal.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BUFFERS = 255, BURST = 32 };
static struct rte_mempool *pool;

/* One packet as a receiver would read it. */
struct seen {
    uint32_t flow; /* by the client's address: a bijection of the flow's number */
    bool from_server;
    uint8_t flags;
    uint32_t seq, ack, payload;
};

/* The address of a client is its flow's number times an odd factor, in 24 bits; this is the factor's inverse. */
static uint32_t flow_of(uint32_t client)
{
    uint32_t factor = 0x9e3779b1u, inverse = factor;

    for (int i = 0; i < 5; i++)
        inverse *= 2 - factor * inverse;
    return (client * inverse) & 0xffffff;
}

static struct seen read_frame(const struct rte_mbuf *m, bool checksum)
{
    const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
    struct rte_ether_hdr eth;
    struct rte_ipv4_hdr ip;
    struct rte_tcp_hdr tcp;
    struct seen s;
    uint32_t client, server, total;

    assert_int_equal(m->nb_segs, 1);
    assert_int_equal(m->pkt_len, m->data_len);
    assert_true(m->data_len >= TRACE_MIN_FRAME);
    memcpy(&eth, frame, sizeof eth);
    memcpy(&ip, frame + sizeof eth, sizeof ip);
    memcpy(&tcp, frame + sizeof eth + sizeof ip, sizeof tcp);
    assert_int_equal(eth.ether_type, RTE_BE16(RTE_ETHER_TYPE_IPV4));
    assert_int_equal(ip.version_ihl, 0x45);
    assert_int_equal(ip.next_proto_id, IPPROTO_TCP);
    assert_int_equal(rte_raw_cksum(&ip, sizeof ip), 0xffff);
    assert_int_equal(tcp.data_off, 5 << 4);
    total = rte_be_to_cpu_16(ip.total_length);
    assert_true(total >= sizeof ip + sizeof tcp);
    assert_true(sizeof eth + total == m->data_len || m->data_len == TRACE_MIN_FRAME);
    if (checksum) {
        uint8_t copy[2048];
        struct rte_tcp_hdr *blank = (struct rte_tcp_hdr *)(copy + sizeof eth + sizeof ip);

        assert_true(m->data_len <= sizeof copy);
        memcpy(copy, frame, m->data_len);
        blank->cksum = 0;
        assert_int_equal(rte_ipv4_udptcp_cksum((struct rte_ipv4_hdr *)(copy + sizeof eth), blank), tcp.cksum);
    }
    s.from_server = rte_be_to_cpu_32(ip.src_addr) >> 24 != 10;
    client = rte_be_to_cpu_32(s.from_server ? ip.dst_addr : ip.src_addr);
    server = rte_be_to_cpu_32(s.from_server ? ip.src_addr : ip.dst_addr);
    assert_int_equal(client >> 24, 10);
    assert_int_equal(server >> 8, RTE_IPV4(198u, 18, 0, 0) >> 8);
    s.flow = flow_of(client & 0xffffff);
    s.flags = tcp.tcp_flags;
    s.seq = rte_be_to_cpu_32(tcp.sent_seq);
    s.ack = rte_be_to_cpu_32(tcp.recv_ack);
    s.payload = total - sizeof ip - sizeof tcp;
    return s;
}

static struct trace *make(uint32_t flows, uint32_t payload, uint32_t replies)
{
    struct trace_config config = {
        .flows = flows, .payload = payload, .replies = replies, .memory = 1 << 20, .seed = 7
    };
    struct trace *t;

    assert_int_equal(trace_open(&t, &config), 0);
    return t;
}

/* Both ends of one connection, as far as the trace has told. */
struct connection {
    uint32_t client, server; /* the next number that each sends */
    uint32_t acked;
    unsigned state; /* packets of the handshake */
    unsigned packets;
};

static struct connection *shake_hands(struct trace_feed *feed)
{
    uint32_t flows = feed->trace->config.flows;
    struct connection *c = calloc(flows, sizeof *c);
    struct rte_mbuf *m[BURST];
    uint64_t packets = 0;
    unsigned n;

    assert_non_null(c);
    while ((n = trace_open_rx(feed, m, BURST)) != 0) {
        for (unsigned i = 0; i < n; i++) {
            struct seen s = read_frame(m[i], true);
            struct connection *of = &c[s.flow];

            assert_true(s.flow < flows);
            assert_int_equal(s.payload, 0);
            switch (of->state++) {
            case 0:
                assert_false(s.from_server);
                assert_int_equal(s.flags, RTE_TCP_SYN_FLAG);
                of->client = s.seq + 1;
                break;
            case 1:
                assert_true(s.from_server);
                assert_int_equal(s.flags, RTE_TCP_SYN_FLAG | RTE_TCP_ACK_FLAG);
                assert_int_equal(s.ack, of->client);
                of->server = s.seq + 1;
                break;
            case 2:
                assert_false(s.from_server);
                assert_int_equal(s.flags, RTE_TCP_ACK_FLAG);
                assert_int_equal(s.seq, of->client);
                assert_int_equal(s.ack, of->server);
                break;
            default:
                fail_msg("more than a handshake");
            }
        }
        packets += n;
        trace_tx(m, n);
    }
    assert_int_equal(packets, trace_open_packets(feed->trace));
    for (uint32_t i = 0; i < flows; i++) {
        assert_int_equal(c[i].state, 3);
        c[i].acked = c[i].client;
    }
    return c;
}

static void handshakes_open_every_flow_once(void **state)
{
    static const uint32_t sizes[] = { 1, 31, 32, 33, 1000 };

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct trace *t = make(sizes[i], 0, 0);
        struct trace_feed feed;

        trace_feed_init(&feed, t, pool);
        free(shake_hands(&feed));
        trace_close(t);
    }
}

static void segments_follow_one_another_over_the_passes(void **state)
{
    struct trace *t = make(500, 100, 0);
    struct trace_feed feed;
    struct connection *c;
    struct rte_mbuf *m[BURST];

    trace_feed_init(&feed, t, pool);
    c = shake_hands(&feed);
    for (unsigned pass = 0; pass < 3; pass++) {
        uint64_t data = 0;
        for (uint64_t packets = 0; packets < t->packets;) {
            unsigned n = trace_rx(&feed, m, BURST);
            assert_int_not_equal(n, 0);
            for (unsigned i = 0; i < n; i++) {
                struct seen s = read_frame(m[i], pass == 0);
                struct connection *of = &c[s.flow];

                of->packets++;
                if (s.from_server) {
                    assert_int_equal(s.payload, 0);
                    assert_int_equal(s.seq, of->server);
                    assert_int_equal(s.ack, of->client);
                    assert_int_equal(of->client - of->acked, 200); /* two segments */
                    of->acked = s.ack;
                } else {
                    assert_int_equal(s.payload, 100);
                    assert_int_equal(s.seq, of->client);
                    assert_int_equal(s.ack, of->server);
                    of->client += s.payload;
                    data++;
                }
            }
            packets += n;
            assert_int_equal(trace_data_before(t, packets), data);
            trace_tx(m, n);
        }
        assert_int_equal(feed.next, 0);
        assert_int_equal(data, t->data);
        for (uint32_t i = 0; i < 500; i++)
            assert_int_equal(c[i].packets, (pass + 1) * (t->packets / 500));
    }
    free(c);
    trace_close(t);
}

static void acknowledgements_are_the_same_in_every_pass(void **state)
{
    struct trace *t = make(300, 0, 30);
    struct trace_feed feed;
    struct connection *c;
    struct rte_mbuf *m[BURST];
    uint64_t replies = 0;

    trace_feed_init(&feed, t, pool);
    c = shake_hands(&feed);
    for (uint64_t packets = 0; packets < 2 * t->packets;) {
        unsigned n = trace_rx(&feed, m, BURST);
        for (unsigned i = 0; i < n; i++) {
            struct seen s = read_frame(m[i], true);
            assert_int_equal(s.seq, s.from_server ? c[s.flow].server : c[s.flow].client);
            assert_int_equal(s.ack, s.from_server ? c[s.flow].client : c[s.flow].server);
            c[s.flow].packets++;
            replies += s.from_server;
        }
        packets += n;
        trace_tx(m, n);
    }
    for (uint32_t i = 0; i < 300; i++)
        assert_int_equal(c[i].packets, 2 * t->packets / 300);
    assert_in_range(replies * 100 / t->packets, 50, 70);
    free(c);
    trace_close(t);
}

static void order_of_flows_is_random_by_its_seed(void **state)
{
    struct trace_config config = { .flows = 1000, .memory = 1 << 20, .seed = 1 };
    struct trace *a, *b, *c;
    struct trace_feed feed;
    struct rte_mbuf *m[BURST];
    uint32_t before = UINT32_MAX;
    unsigned neighbours = 0;

    assert_int_equal(trace_open(&a, &config), 0);
    assert_int_equal(trace_open(&b, &config), 0);
    config.seed = 2;
    assert_int_equal(trace_open(&c, &config), 0);
    assert_int_equal(a->packets, c->packets);
    assert_memory_equal(a->records, b->records, a->packets * a->stride);
    assert_memory_not_equal(a->records, c->records, a->packets * a->stride);
    trace_feed_init(&feed, a, pool);
    for (unsigned burst = 0; burst < 4000 / BURST; burst++) {
        unsigned n = trace_rx(&feed, m, BURST);
        for (unsigned i = 0; i < n; i++) {
            struct seen s = read_frame(m[i], false);
            neighbours += s.flow == before || s.flow == before + 1;
            before = s.flow;
        }
        trace_tx(m, n);
    }
    assert_true(neighbours < 40); /* eight are to be expected, a sorted order would have thousands */
    trace_close(a);
    trace_close(b);
    trace_close(c);
}

static void an_empty_pool_loses_nothing(void **state)
{
    struct trace *t = make(100, 64, 0);
    struct trace_feed feed;
    struct rte_mbuf *all[BUFFERS], *m[BURST];
    uint64_t next;

    trace_feed_init(&feed, t, pool);
    assert_int_equal(trace_rx(&feed, m, BURST), BURST);
    trace_tx(m, BURST);
    next = feed.next;
    assert_int_equal(rte_pktmbuf_alloc_bulk(pool, all, BUFFERS), 0);
    assert_int_equal(trace_rx(&feed, m, BURST), 0);
    assert_int_equal(trace_open_rx(&feed, m, BURST), 0);
    assert_int_equal(feed.next, next);
    assert_int_equal(feed.opened, 0);
    rte_pktmbuf_free_bulk(all, BUFFERS);
    trace_close(t);
}

static void sizes_that_cannot_be_are_refused(void **state)
{
    static const struct trace_config bad[] = {
        { .flows = 0 },
        { .flows = TRACE_FLOWS_MAX + 1 },
        { .flows = 1, .payload = TRACE_PAYLOAD_MAX + 1 },
        { .flows = 1, .replies = 101 },
    };
    struct trace *t;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(trace_open(&t, &bad[i]), -EINVAL);
}

static void count_marks(struct trace_port *p)
{
    unsigned *marks = p->arg;

    (*marks)++;
    p->mark = UINT64_MAX;
}

static void port_gives_its_budget_and_tells_when_it_is_sent(void **state)
{
    struct trace *t = make(50, 0, 0);
    struct trace_port p;
    struct rte_mbuf *m[PORT_BURST];
    unsigned marks = 0, syns = 0;
    uint64_t number = 0;

    trace_port_init(&p, t, pool);
    p.port.index = 1;
    p.arg = &marks;
    p.reached = count_marks;
    assert_true(p.port.checksums_trusted);
    assert_false(p.port.replay);
    assert_int_equal(port_rx(&p.port, m, PORT_BURST), 0);
    for (int opening = 1; opening >= 0; opening--) {
        unsigned n;

        p.opening = opening;
        p.budget = 150;
        p.mark = p.sent + 150;
        while ((n = port_rx(&p.port, m, PORT_BURST)) != 0) {
            for (unsigned i = 0; i < n; i++) {
                struct seen s = read_frame(m[i], true);
                assert_int_equal(packet_of(m[i])->number, ++number);
                assert_int_equal(packet_of(m[i])->port, 1);
                assert_int_not_equal(packet_of(m[i])->time, 0);
                syns += (s.flags & RTE_TCP_SYN_FLAG) != 0;
                port_tx(&p.port, m[i]);
            }
        }
        assert_int_equal(marks, opening ? 0 : 1); /* the rest of the first 150 is still to be flushed */
        port_flush(&p.port);
        assert_int_equal(marks, opening ? 1 : 2);
    }
    assert_int_equal(syns, 100);
    assert_int_equal(p.sent, 300);
    trace_close(t);
}

static int pool_is_whole(void **state)
{
    assert_int_equal(rte_mempool_in_use_count(pool), 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(handshakes_open_every_flow_once, pool_is_whole),
        cmocka_unit_test_teardown(segments_follow_one_another_over_the_passes, pool_is_whole),
        cmocka_unit_test_teardown(acknowledgements_are_the_same_in_every_pass, pool_is_whole),
        cmocka_unit_test_teardown(order_of_flows_is_random_by_its_seed, pool_is_whole),
        cmocka_unit_test_teardown(an_empty_pool_loses_nothing, pool_is_whole),
        cmocka_unit_test_teardown(sizes_that_cannot_be_are_refused, pool_is_whole),
        cmocka_unit_test_teardown(port_gives_its_budget_and_tells_when_it_is_sent, pool_is_whole),
    };
    char *eal[] = { "bench_trace_test", "--no-shconf",    "--no-huge",   "-m",    "64",
                    "--no-pci",         "--no-telemetry", "--log-level", "error", NULL };

    if (rte_eal_init(9, eal) < 0)
        return 1;
    pool = rte_pktmbuf_pool_create("packets", BUFFERS, 0, NST_PACKET_PRIV, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
    if (pool == NULL)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
