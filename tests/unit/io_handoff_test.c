/* SPDX-License-Identifier: Apache-2.0 */
/* The rings between cores: bounds, order, who is woken, and that no packet is lost or counted twice. */
#include "io/handoff.h"
#include <netstar/task.h>
#include <pthread.h>
#include <rte_thash.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static struct rte_mbuf *packet(uint64_t number)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(port_pool);

    if (m != NULL) {
        rte_pktmbuf_append(m, 60);
        packet_of(m)->number = number;
    }
    return m;
}

static uint32_t state = 88172645;
static uint32_t below(uint32_t n)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % n;
}

/* ---- what a port sends ---- */
struct sink {
    struct nst_port port;
    uint64_t sent, last;
    bool ended;
    unsigned quiet, to_read;
    bool disorder;
};

static void sink_tx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    struct sink *s = (struct sink *)p;

    for (unsigned i = 0; i < n; i++) {
        s->disorder = s->disorder || packet_of(m[i])->number != s->last + 1;
        s->last = packet_of(m[i])->number;
        s->sent++;
        rte_pktmbuf_free(m[i]);
    }
}
static unsigned sink_rx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    struct sink *s = (struct sink *)p;
    unsigned got = 0;

    for (; got < n && s->to_read > 0; got++, s->to_read--) {
        m[got] = packet(0);
        port_stamp(p, m[got], 1);
    }
    return got;
}
static bool sink_ended(const struct nst_port *p)
{
    return ((const struct sink *)p)->to_read == 0;
}
static void sink_quiet(struct nst_port *p)
{
    ((struct sink *)p)->quiet++;
}
static const struct port_ops sink_ops = {
    .driver = "sink", .rx = sink_rx, .tx = sink_tx, .ended = sink_ended, .quiet = sink_quiet
};

/* ---- one thread ---- */
static void test_full(void **st)
{
    struct handoff *h;
    struct rte_mbuf *m[32], *got[64];
    unsigned given = 0, refused = 0, seen = 0;

    assert_int_equal(handoff_open(&h, 3, false), 0);
    for (unsigned round = 0; round < 100; round++) {
        for (unsigned i = 0; i < 32; i++)
            m[i] = packet(given + i + 1);
        unsigned n = handoff_give(h, 2, 0, m, 32);
        given += n;
        refused += 32 - n;
        for (; n < 32; n++)
            rte_pktmbuf_free(m[n]);
    }
    assert_int_equal(given, HANDOFF_RING - 1);
    assert_int_equal(refused, 3200 - given);
    /* The other pair has room, and the receiver hears both. */
    m[0] = packet(7);
    assert_int_equal(handoff_give(h, 1, 0, m, 1), 1);
    struct nst_port *in = handoff_inbox(h, 0);
    bool other = false;
    for (unsigned n; (n = port_rx(in, got, 32)) != 0;)
        for (unsigned i = 0; i < n; i++) {
            uint64_t number = packet_of(got[i])->number;
            if (number == 7 && n == 1 && !other)
                other = true;
            else
                assert_int_equal(number, ++seen);
            rte_pktmbuf_free(got[i]);
        }
    assert_int_equal(seen, given);
    assert_true(other);
    assert_int_equal(port_rx(handoff_inbox(h, 1), got, 32), 0);
    /* What is left when it closes is told, and freed. */
    m[0] = packet(1);
    m[1] = packet(2);
    assert_int_equal(handoff_give(h, 0, 2, m, 2), 2);
    assert_int_equal(handoff_close(h), 2);
    assert_int_equal(rte_mempool_in_use_count(port_pool), 0);
}

static void test_stand_in(void **st)
{
    struct sink sink = { .port = { .ops = &sink_ops } };
    struct nst_port *of_core[2];
    struct nst_port_stats n;
    struct handoff *h;
    unsigned dropped;

    assert_int_equal(handoff_open(&h, 2, false), 0);
    assert_int_equal(handoff_share(h, &sink.port, 1, of_core), 0);
    assert_ptr_equal(of_core[1], &sink.port);
    assert_ptr_not_equal(of_core[0], &sink.port);
    assert_true(sink.port.shared && !of_core[0]->shared);
    assert_string_equal(nst_port_driver(of_core[0]), "sink");
    for (unsigned i = 0; i < 3000; i++)
        port_tx(of_core[0], packet(i + 1));
    port_flush(of_core[0]);
    nst_port_stats(of_core[0], &n);
    dropped = 3000 - (HANDOFF_RING - 1);
    assert_int_equal(n.tx_dropped, dropped);
    assert_int_equal(n.tx_packets, HANDOFF_RING - 1);
    assert_int_equal(sink.sent, 0);
    /* The owner's engine opens and closes: nothing stays behind. */
    struct nst_reactor *r;
    assert_int_equal(nst_reactor_open(&r, NULL), 0);
    struct nst_port *in = handoff_inbox(h, 1);
    assert_int_equal(in->ops->attach(in, r), 0);
    in->ops->detach(in, r);
    nst_reactor_close(r);
    assert_int_equal(sink.sent, HANDOFF_RING - 1);
    assert_false(sink.disorder);
    assert_int_equal(handoff_close(h), 0);
    assert_int_equal(rte_mempool_in_use_count(port_pool), 0);
}

/* Core 0 goes on reading only when the others are done; the output hears of it then. */
static void test_rounds(void **st)
{
    struct sink sink = { .port = { .ops = &sink_ops, .replay = true }, .to_read = HANDOFF_ROUND + 10 };
    struct nst_port *of_core[2], *in;
    struct rte_mbuf *m[32], *got[32];
    struct handoff *h;
    unsigned read = 0, n;

    assert_int_equal(handoff_open(&h, 2, true), 0);
    assert_int_equal(handoff_share(h, &sink.port, 0, of_core), 0);
    in = handoff_inbox(h, 1);
    while ((n = port_rx(of_core[0], m, 32)) != 0) {
        read += n;
        assert_int_equal(handoff_give(h, 0, 1, m, n), n);
    }
    assert_int_equal(read, HANDOFF_ROUND);
    assert_false(of_core[0]->ops->ended(of_core[0]));
    unsigned quiet = sink.quiet;
    while ((n = port_rx(in, got, 32)) != 0)
        for (unsigned i = 0; i < n; i++)
            port_tx(of_core[1], got[i]);
    port_flush(of_core[1]);
    assert_int_equal(port_rx(of_core[0], m, 32), 0); /* taken, but not done */
    of_core[0]->ops->quiet(of_core[0]);
    assert_int_equal(sink.quiet, quiet);
    assert_int_equal(sink.sent, 0);
    in->ops->quiet(in);
    assert_int_equal(port_rx(of_core[0], m, 32), 10);
    assert_int_equal(sink.sent, HANDOFF_ROUND);
    assert_int_equal(sink.quiet, quiet + 1);
    rte_pktmbuf_free_bulk(m, 10);
    assert_false(in->ops->ended(in));
    assert_int_equal(port_rx(of_core[0], m, 32), 0);
    assert_true(of_core[0]->ops->ended(of_core[0]) && in->ops->ended(in) && of_core[1]->ops->ended(of_core[1]));
    assert_int_equal(handoff_close(h), 0);
    assert_int_equal(rte_mempool_in_use_count(port_pool), 0);
}

/* ---- two threads, one of which sleeps whenever it can ---- */
enum { MANY = 200000 };
static struct handoff *pair;
static struct nst_reactor *receiver;
static uint64_t received, disorder;
static atomic_uint_fast64_t taken;

static int receive_poll(struct nst_poller *self)
{
    struct rte_mbuf *m[PORT_BURST];
    unsigned n = port_rx(handoff_inbox(pair, 1), m, PORT_BURST);

    for (unsigned i = 0; i < n; i++) {
        disorder += packet_of(m[i])->number != ++received;
        rte_pktmbuf_free(m[i]);
    }
    atomic_store(&taken, received);
    if (received == MANY)
        nst_reactor_stop(receiver);
    return (int)n;
}

static void *receive_thread(void *arg)
{
    struct nst_poller poller = { .poll = receive_poll };
    struct nst_port *in = handoff_inbox(pair, 1);

    nst_io_join();
    in->ops->attach(in, receiver);
    nst_poller_add(receiver, &poller);
    nst_reactor_run(receiver, NULL, NULL);
    in->ops->detach(in, receiver);
    nst_poller_remove(receiver, &poller);
    nst_io_leave();
    return NULL;
}

static void test_woken(void **st)
{
    struct nst_reactor_config config = { .cpu = -1, .stall_after = NST_NEVER };
    struct nst_reactor_stats stats;
    struct rte_mbuf *m[PORT_BURST];
    pthread_t thread;
    uint64_t sent = 0;

    received = disorder = 0;
    assert_int_equal(handoff_open(&pair, 2, false), 0);
    assert_int_equal(nst_reactor_open(&receiver, &config), 0);
    assert_int_equal(pthread_create(&thread, NULL, receive_thread, NULL), 0);
    while (sent < MANY) {
        unsigned n = 1 + below(PORT_BURST), given, made = 0;
        for (; made < n && sent + made < MANY && (m[made] = packet(sent + made + 1)) != NULL; made++)
            ;
        given = handoff_give(pair, 0, 1, m, made);
        sent += given;
        rte_pktmbuf_free_bulk(m + given, made - given);
        /* Now and then all is taken before more comes, so that it falls asleep: a bell that nobody hears hangs here. */
        if (below(200) == 0)
            while (atomic_load(&taken) < sent)
                usleep(below(3) == 0 ? 1000 : 0);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(received, MANY);
    assert_int_equal(disorder, 0);
    nst_reactor_stats(receiver, &stats);
    assert_true(stats.sleeps > 0);
    assert_true(stats.sleeps < MANY / 2); /* it is not woken for every packet */
    nst_reactor_close(receiver);
    assert_int_equal(handoff_close(pair), 0);
    assert_int_equal(rte_mempool_in_use_count(port_pool), 0);
}

/* ---- receive-side scaling: what we compute is what Toeplitz's hash is ---- */
static void test_rss(void **st)
{
    struct port_rss r = { .queues = 3, .entries = 128, .with_ports = { { true, false }, { true, true } } };
    uint8_t key[52], other[52];
    unsigned used[3] = { 0 };

    rss_key(key, sizeof key);
    assert_true(rss_verify(&r, key, sizeof key));
    for (unsigned i = 0; i < r.entries; i++)
        r.queue[i] = (uint8_t)(i % 3);
    for (unsigned i = 0; i < 1000; i++) {
        uint32_t t[9];
        for (unsigned k = 0; k < 9; k++)
            t[k] = below(UINT32_MAX);
        /* as they lie in a packet */
        uint8_t a[32], p[4];
        for (unsigned k = 0; k < 8; k++)
            for (unsigned b = 0; b < 4; b++)
                a[4 * k + b] = (uint8_t)(t[k] >> (24 - 8 * b));
        uint64_t w[4], all;
        uint32_t ports;
        memcpy(w, a, sizeof w);
        /* IPv4 TCP: two addresses, then the ports */
        for (unsigned b = 0; b < 4; b++)
            p[b] = (uint8_t)(t[2] >> (24 - 8 * b));
        memcpy(&ports, p, 4);
        unsigned q = port_rss_core(&r, 4, IPPROTO_TCP, w[0], ports);
        assert_int_equal(q, (rte_softrss(t, 3, key) & 127) % 3);
        used[q]++;
        assert_int_equal(port_rss_core(&r, 4, IPPROTO_UDP, w[0], ports), (rte_softrss(t, 2, key) & 127) % 3);
        for (unsigned b = 0; b < 4; b++)
            p[b] = (uint8_t)(t[8] >> (24 - 8 * b));
        memcpy(&ports, p, 4);
        all = w[0] ^ w[1] ^ w[2] ^ w[3];
        assert_int_equal(port_rss_core(&r, 6, IPPROTO_UDP, all, ports), (rte_softrss(t, 9, key) & 127) % 3);
        assert_int_equal(port_rss_core(&r, 6, 0, all, ports), (rte_softrss(t, 8, key) & 127) % 3);
    }
    assert_true(used[0] > 100 && used[1] > 100 && used[2] > 100);
    /* A device that kept another key is found out: the usual one, and one that is right but for one bit. */
    for (unsigned i = 0; i < sizeof other; i++)
        other[i] = (uint8_t)below(256);
    assert_false(rss_verify(&r, other, sizeof other));
    memcpy(other, key, sizeof key);
    other[20] ^= 1;
    assert_false(rss_verify(&r, other, sizeof other));
    assert_false(rss_verify(&r, key, 16));
}

static int setup(void **st)
{
    struct nst_io_config io = { .packets = 8192, .no_huge = true, .cores = 2 };
    const char *why = "";

    nst_log_level(NST_LOG_WARNING);
    return nst_io_open(&io, &why);
}

static int teardown(void **st)
{
    return nst_io_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),  cmocka_unit_test(test_stand_in), cmocka_unit_test(test_rounds),
        cmocka_unit_test(test_woken), cmocka_unit_test(test_rss),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
