/* SPDX-License-Identifier: Apache-2.0 */
/* Several cores against one: the same conversations, their packets in an order that is chosen to be unkind, must meet
 * the same verdicts, every flow on the core that nst_core_of says, and none may be lost.
 *
 * A conversation is a list of packets of both ends. A port gives a packet only when the one before it in the same
 * conversation has met its end, as it is on a wire; among the conversations that is any that comes to hand.
 */
#include "flow/checksum.h"
#include "flow_tunnel_lab.h"
#include "io/handoff.h"
#include <netinet/in.h>
#include <netstar/cores.h>
#include <pthread.h>
#include <rte_ip.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { TALKS = 300, STEPS = 24, PORTS = 2, CORES = 3, PIECES = 4 };

struct talk {
    struct lab_path path;
    struct {
        uint8_t dir;
        bool error; /* an ICMP error from this end about a packet that the other has sent */
        struct lab_tcp tcp;
        char text[16];
    } step[STEPS];
    unsigned steps;
    atomic_uint done; /* steps whose packet has met its end; the next one may be given when it was the last */
    atomic_uint given;
    uint8_t fate[STEPS];  /* 1 forwarded, 2 dropped */
    bool fragments;       /* what can be cut in two comes so */
    bool outer_fragments; /* and so does what is around it */
    const struct lab_tunnel *tunnel;
    uint8_t pieces[STEPS]; /* that were given and have not left */
    atomic_int core;       /* that looked at it; -1: none yet */
};

static struct talk *talks;
static atomic_uint left; /* steps that have not met their end */
static atomic_uint strangers, wrong_core;
static struct nst_cores *cores;
static bool replaying;
static unsigned n_cores;

/* Not MPLS: the frames' Ethernet addresses say which packets they are. */
static const struct lab_tunnel tunnels[] = {
    { NST_TUNNEL_GRE, 4, T_KEY | T_SUM, 0, 0, { 11, 12 }, { 5, 5 } },
    { NST_TUNNEL_IPIP, 4, 0, 0, 0, { 13, 12 }, { 0, 0 } },
    { NST_TUNNEL_VXLAN, 4, T_SUM, 0, 0, { 11, 14 }, { 5, 5 } },
    { NST_TUNNEL_VXLAN, 6, T_SUM, 0, 0, { 15, 12 }, { 6, 6 } },
    { NST_TUNNEL_GTPU, 4, T_SUM | T_EXTENDED, 0, 0, { 16, 17 }, { 70, 80 } },
};

/* ---- conversations ---- */
static void make_talks(uint64_t *seed)
{
    static const char *const words[] = { "plain", "drop me", "wait", "x", "wait, drop me" };

    for (unsigned i = 0; i < TALKS; i++) {
        struct talk *t = &talks[i];
        bool tcp = i % 4 != 3;
        memset(t, 0, sizeof *t);
        t->path = i % 3 == 0 ? (tcp ? lab_tcp6 : lab_udp6) : (tcp ? lab_tcp4 : lab_udp4);
        t->path.host[0] = 1 + lab_random(seed, 8);
        t->path.host[1] = 1 + lab_random(seed, 8);
        t->path.port[0] = (uint16_t)(1024 + i);
        t->path.port[1] = (uint16_t)(1 + lab_random(seed, 60000));
        if (i % 5 == 0) {
            t->path.tags = 1;
            t->path.vlan[0] = (uint16_t)(1 + lab_random(seed, 4000));
        }
        uint32_t seq[2] = { 1000, 2000 };
        unsigned n = 0;
        if (tcp) {
            for (; n < 3; n++) {
                t->step[n].dir = n == 1;
                t->step[n].tcp = (struct lab_tcp){ .flags = (uint8_t)(n == 0   ? SYN
                                                                      : n == 1 ? SYN | ACK
                                                                               : ACK),
                                                   .seq = seq[n == 1] + (n == 2),
                                                   .ack = n == 0 ? 0 : seq[n != 1] + 1 };
            }
            seq[0]++;
            seq[1]++;
        }
        for (; n < STEPS - 2; n++) {
            unsigned dir = lab_random(seed, 2), len;
            t->step[n].dir = (uint8_t)dir;
            t->step[n].error = n > 6 && n % 8 == 7;
            t->step[n].tcp.seq = seq[!dir];
            if (t->step[n].error)
                continue;
            snprintf(t->step[n].text, sizeof t->step[n].text, "%s", words[lab_random(seed, 5)]);
            len = (unsigned)strlen(t->step[n].text);
            t->step[n].tcp = (struct lab_tcp){
                .flags = PSH | ACK, .seq = seq[dir], .ack = seq[!dir], .data = t->step[n].text, .len = len
            };
            if (strstr(t->step[n].text, "drop") == NULL) /* what was dropped comes again, as other bytes */
                seq[dir] += len;
        }
        t->steps = n;
        t->fragments = t->path.family == 4 && i % 7 == 1;
        if (i % 3 == 1) {
            t->tunnel = &tunnels[lab_random(seed, sizeof tunnels / sizeof *tunnels)];
            t->path.tags = 0;
            t->outer_fragments = t->tunnel->family == 4 && i % 2 == 0;
        }
        atomic_store(&t->core, -1);
    }
    atomic_store(&left, 0);
    for (unsigned i = 0; i < TALKS; i++)
        atomic_fetch_add(&left, talks[i].steps);
}

static void met_end(unsigned i, unsigned step, uint8_t fate)
{
    struct talk *t = &talks[i];

    t->fate[step] = fate;
    atomic_store(&t->done, step + 1);
    atomic_fetch_sub(&left, 1);
}

/* ---- ports: what is in the frame's first bytes says which packet of which conversation it is ---- */
static struct unkind_port {
    struct nst_port port;
    unsigned number;
    uint64_t seed;
    nst_time time;
    struct rte_mbuf *spare[PIECES]; /* for which the caller had no room: they come first the next time */
    unsigned n_spare;
    atomic_uint sent;
} ports[PORTS];

static struct rte_mbuf *make_packet(struct nst_port *p, const uint8_t *frame, unsigned len, unsigned i, unsigned step)
{
    struct rte_mbuf *b = rte_pktmbuf_alloc(port_pool);

    if (b == NULL)
        return NULL;
    memcpy(rte_pktmbuf_append(b, (uint16_t)len), frame, len);
    memcpy(rte_pktmbuf_mtod(b, uint8_t *), &i, sizeof i);
    rte_pktmbuf_mtod(b, uint8_t *)[4] = (uint8_t)step;
    port_stamp(p, b, replaying ? ((struct unkind_port *)p)->time : nst_now());
    return b;
}

/* Cuts an IPv4 packet behind `cut` bytes of its payload; the second part is written to `tail`. Returns its length. */
static unsigned cut_frame(uint8_t *frame, unsigned *len, unsigned l3, unsigned cut, uint16_t id, uint8_t *tail)
{
    struct rte_ipv4_hdr *ip = (void *)(frame + l3), *last = (void *)(tail + l3);
    unsigned head = l3 + (unsigned)sizeof *ip, rest = *len - head - cut;

    ip->packet_id = id;
    memcpy(tail, frame, head);
    memcpy(tail + head, frame + head + cut, rest);
    ip->fragment_offset = rte_cpu_to_be_16(RTE_IPV4_HDR_MF_FLAG);
    ip->total_length = rte_cpu_to_be_16((uint16_t)(sizeof *ip + cut));
    last->fragment_offset = rte_cpu_to_be_16((uint16_t)(cut / 8));
    last->total_length = rte_cpu_to_be_16((uint16_t)(sizeof *ip + rest));
    ip->hdr_checksum = last->hdr_checksum = 0;
    ip->hdr_checksum = rte_ipv4_cksum(ip);
    last->hdr_checksum = rte_ipv4_cksum(last);
    *len = head + cut;
    return head + rest;
}

/* From `dir` to the other end, about what that has sent. */
static unsigned error_frame(uint8_t *frame, const struct talk *t, unsigned dir, uint32_t seq)
{
    bool v4 = t->path.family == 4;
    uint8_t quoted[LAB_FRAME];
    unsigned ip = v4 ? 20 : 40, l3 = 14 + 4u * t->path.tags, len = 8 + ip + 8;

    if (t->path.proto == IPPROTO_TCP)
        lab_tcp_frame(quoted, &t->path, !dir, (struct lab_tcp){ .flags = ACK, .seq = seq });
    else
        lab_udp_frame(quoted, &t->path, !dir, "quoted", 6);
    unsigned at = lab_ip_header(frame, &t->path, dir, v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6, len);
    uint8_t pseudo[40] = { [35] = (uint8_t)len, [39] = IPPROTO_ICMPV6 };
    memset(frame + at, 0, 8);
    frame[at] = v4 ? 3 : 1;
    frame[at + 1] = 1;
    memcpy(frame + at + 8, quoted + l3, ip + 8);
    memcpy(pseudo, frame + at - 32, 32);
    uint32_t sum = checksum_sum(frame + at, len) + (v4 ? 0u : checksum_sum(pseudo, sizeof pseudo));
    uint16_t field = (uint16_t) ~((sum & 0xffff) + (sum >> 16));
    memcpy(frame + at + 2, &field, sizeof field);
    return at + len;
}

struct pieces {
    uint8_t frame[PIECES][LAB_FRAME];
    unsigned len[PIECES], n;
};

/* Cuts each of them in two where there is enough of it. */
static void cut_all(struct pieces *p, unsigned l3, unsigned cut, uint16_t id)
{
    for (unsigned i = p->n; i-- > 0;) {
        if (p->len[i] > l3 + 20 + cut) {
            p->len[p->n] = cut_frame(p->frame[i], &p->len[i], l3, cut, (uint16_t)(id + i), p->frame[p->n]);
            p->n++;
        }
    }
}

static void make_pieces(struct pieces *p, const struct talk *t, unsigned i, unsigned step, unsigned dir)
{
    bool tcp = t->path.proto == IPPROTO_TCP, error = t->step[step].error;
    static _Thread_local uint8_t inner[LAB_FRAME];
    uint16_t id = (uint16_t)(4 * (i * STEPS + step));
    unsigned l3;

    p->n = 1;
    p->len[0] =
        error ? error_frame(p->frame[0], t, dir, t->step[step].tcp.seq)
        : tcp ? lab_tcp_frame(p->frame[0], &t->path, dir, t->step[step].tcp)
              : lab_udp_frame(p->frame[0], &t->path, dir, t->step[step].text, (unsigned)strlen(t->step[step].text));
    if (t->fragments && !error)
        cut_all(p, 14 + 4u * t->path.tags, tcp ? 24 : 8, id);
    for (unsigned k = 0; k < p->n && t->tunnel != NULL; k++) {
        memcpy(inner, p->frame[k], p->len[k]);
        p->len[k] = lab_wrap(p->frame[k], t->tunnel, dir, inner, p->len[k], &l3);
    }
    if (t->tunnel != NULL && t->outer_fragments)
        cut_all(p, 14, 32, (uint16_t)(id + 2));
}

static unsigned unkind_rx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    struct unkind_port *u = (struct unkind_port *)p;
    unsigned got = 0, want = 1 + lab_random(&u->seed, n);
    static _Thread_local struct pieces pieces;

    while (u->n_spare > 0 && got < n)
        m[got++] = u->spare[--u->n_spare];

    for (unsigned tries = 0; tries < 200 && got < want; tries++) {
        unsigned i = lab_random(&u->seed, TALKS);
        struct talk *t = &talks[i];
        unsigned step = atomic_load(&t->done);
        if (step == t->steps || atomic_load(&t->given) != step || t->step[step].dir != u->number)
            continue;
        if (u->n_spare != 0 || rte_mempool_avail_count(port_pool) < 64)
            break;
        make_pieces(&pieces, t, i, step, u->number);
        u->time += NST_US(10);
        t->pieces[step] = (uint8_t)pieces.n;
        atomic_store(&t->given, step + 1);
        unsigned first = lab_random(&u->seed, pieces.n); /* not always the first one first */
        for (unsigned k = 0; k < pieces.n; k++) {
            unsigned which = (first + k) % pieces.n;
            struct rte_mbuf *b = make_packet(p, pieces.frame[which], pieces.len[which], i, step);
            if (got < n)
                m[got++] = b;
            else
                u->spare[u->n_spare++] = b;
        }
    }
    return got;
}

static void unkind_tx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    for (unsigned k = 0; k < n; k++) {
        unsigned i;
        const uint8_t *d = rte_pktmbuf_mtod(m[k], const uint8_t *);
        memcpy(&i, d, sizeof i);
        unsigned step = d[4];
        rte_pktmbuf_free(m[k]);
        if (i >= TALKS || step >= talks[i].steps)
            atomic_fetch_add(&strangers, 1);
        else if (--talks[i].pieces[step] == 0)
            met_end(i, step, 1);
    }
    atomic_fetch_add(&((struct unkind_port *)p)->sent, n);
}

static bool unkind_ended(const struct nst_port *p)
{
    return atomic_load(&left) == 0;
}

static const struct port_ops unkind_ops = {
    .driver = "unkind", .rx = unkind_rx, .tx = unkind_tx, .ended = unkind_ended
};

/* ---- the NF: forwards, drops what says so, and waits where it is told ---- */
static enum nst_verdict on_event(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_slice s = { 0 };
    unsigned i, core = *(unsigned *)nst_nf_arg(f);
    bool drop = false, wait = false;
    struct nst_tuple t = { .proto = nst_flow_proto(f), .vlan = nst_flow_vlan(f) };

    memcpy(&i, nst_packet_bytes(ev->packet, 0, 5), sizeof i);
    unsigned step = *(const uint8_t *)nst_packet_bytes(ev->packet, 4, 1);
    int before = -1;
    if (!atomic_compare_exchange_strong(&talks[i].core, &before, (int)core) && before != (int)core)
        atomic_fetch_add(&wrong_core, 1);
    nst_flow_endpoint(f, NST_SERVER, &t.a);
    nst_flow_endpoint(f, NST_CLIENT, &t.b);
    if (nst_core_of(cores, &t) != core)
        atomic_fetch_add(&wrong_core, 1);
    while ((ev->what & NST_EV_DATA) && nst_flow_bytes(f, ev->side, &s)) {
        drop = drop || memmem(s.p, s.len, "drop", 4) != NULL;
        wait = wait || memmem(s.p, s.len, "wait", 4) != NULL;
    }
    if (wait && nst_sleep(nst_now() + NST_US(50)) < 0)
        return NST_DROP;
    if (!drop)
        return NST_FORWARD;
    /* Its end is known before the next packet may come. */
    struct nst_packet *p = nst_take(ev);
    nst_packet_free(p);
    met_end(i, step, 2);
    return NST_TAKEN;
}

static const struct nst_nf tcp_and_udp[] = {
    { .name = "tcp",
      .half = { { .inspect = &nst_tcp, .on_received = NST_EV_DATA | NST_EV_ICMP, .handler = on_event },
                { .inspect = &nst_tcp, .on_received = NST_EV_DATA | NST_EV_ICMP, .handler = on_event } },
      .policy = { .budget = NST_SEC(100), .on_conflict = NST_FORWARD } },
    { .name = "udp",
      .half = { { .inspect = &nst_udp, .on_received = NST_EV_DATA | NST_EV_ICMP, .handler = on_event },
                { .inspect = &nst_udp, .on_received = NST_EV_DATA | NST_EV_ICMP, .handler = on_event } },
      .policy = { .budget = NST_SEC(100) } },
};
static const struct nst_nf *nf;

/* ---- cores ---- */
static struct core {
    unsigned number;
    pthread_t thread;
    struct nst_reactor *reactor;
    struct nst_engine *engine;
    struct nst_engine_stats stats;
    int rc;
} core[CORES];
static pthread_barrier_t together;

static void core_main(void *arg)
{
    struct core *c = arg;
    struct nst_port *both[] = { &ports[0].port, &ports[1].port };
    struct nst_engine_config config = {
        .nf = nf, .nf_arg = &c->number, .flows = 2000, .cores = cores, .core = c->number, .tunnels = NST_TUNNELS_ALL
    };

    c->rc = nst_engine_open(&c->engine, &config, both, PORTS);
    if (c->rc == 0) {
        if (replaying)
            c->rc = nst_engine_finish(c->engine);
        else
            while (atomic_load(&left) > 0 && c->rc == 0)
                c->rc = nst_sleep(nst_now() + NST_MS(1));
        nst_engine_pause(c->engine);
        pthread_barrier_wait(&together);
        int rc = nst_engine_drain(c->engine, nst_now() + NST_SEC(10));
        c->rc = c->rc != 0 ? c->rc : rc;
        pthread_barrier_wait(&together);
        nst_engine_stats(c->engine, &c->stats);
        nst_engine_close(c->engine);
    }
    nst_reactor_stop(c->reactor);
}

static void *core_thread(void *arg)
{
    struct core *c = arg;

    if (c->number != 0)
        nst_io_join();
    if (nst_reactor_run(c->reactor, core_main, c) != 0)
        c->rc = -1;
    if (c->number != 0)
        nst_io_leave();
    return NULL;
}

/* All conversations on n cores; the sum of the numbers. */
static void talk_on(unsigned n, uint64_t seed, bool replay, struct nst_engine_stats *sum)
{
    struct nst_reactor_config config = { .cpu = -1, .stall_after = NST_NEVER };
    struct nst_port *both[] = { &ports[0].port, &ports[1].port };

    n_cores = n;
    replaying = replay;
    make_talks(&seed);
    for (unsigned i = 0; i < PORTS; i++) {
        ports[i] = (struct unkind_port){
            .port = { .ops = &unkind_ops, .replay = replay }, .number = i, .seed = seed + i, .time = NST_SEC(1000)
        };
        snprintf(ports[i].port.name, sizeof ports[i].port.name, "unkind%u", i);
    }
    assert_int_equal(nst_cores_open(&cores, n, both, PORTS), 0);
    pthread_barrier_init(&together, NULL, n);
    for (unsigned i = 0; i < n; i++) {
        core[i] = (struct core){ .number = i };
        assert_int_equal(nst_reactor_open(&core[i].reactor, &config), 0);
    }
    for (unsigned i = 1; i < n; i++)
        assert_int_equal(pthread_create(&core[i].thread, NULL, core_thread, &core[i]), 0);
    core_thread(&core[0]);
    memset(sum, 0, sizeof *sum);
    for (unsigned i = 0; i < n; i++) {
        if (i != 0)
            pthread_join(core[i].thread, NULL);
        assert_int_equal(core[i].rc, 0);
        nst_engine_stats_add(sum, &core[i].stats);
        nst_reactor_close(core[i].reactor);
    }
    pthread_barrier_destroy(&together);
    nst_cores_stats(cores, sum);
    assert_int_equal(nst_cores_close(cores), 0);
    cores = NULL;
    assert_int_equal(rte_mempool_in_use_count(port_pool), 0);
}

static void same_fates(unsigned i, const uint8_t *fates)
{
    const struct talk *t = &talks[i];

    for (unsigned k = 0; k < t->steps; k++) {
        if (fates[k] != t->fate[k])
            print_error("conversation %u, step %u, \"%s\": %u and not %u, with %u cores; protocol %u, tunnel %u, "
                        "fragments %u %u\n",
                        i, k, t->step[k].text, t->fate[k], fates[k], n_cores, t->path.proto,
                        t->tunnel != NULL ? t->tunnel->kind : 0, t->fragments, t->outer_fragments);
    }
    assert_memory_equal(fates, t->fate, t->steps);
}

static void compare(bool replay)
{
    static uint8_t fates[TALKS][STEPS];
    struct nst_engine_stats one, many;
    uint64_t seed = lab_seed();

    talks = calloc(TALKS, sizeof *talks);
    print_message("NST_SEED=%llu\n", (unsigned long long)seed);
    for (unsigned kind = 0; kind < 2; kind++) {
        nf = &tcp_and_udp[kind];
        talk_on(1, seed, replay, &one);
        for (unsigned i = 0; i < TALKS; i++)
            memcpy(fates[i], talks[i].fate, STEPS);
        assert_int_equal(one.given + one.taken_over, 0);
        for (unsigned n = 2; n <= CORES; n++) {
            talk_on(n, seed, replay, &many);
            for (unsigned i = 0; i < TALKS; i++) {
                same_fates(i, fates[i]);
                if (talks[i].path.proto == (kind == 0 ? IPPROTO_TCP : IPPROTO_UDP))
                    assert_in_range(atomic_load(&talks[i].core), 0, n - 1);
            }
            assert_int_equal(atomic_load(&wrong_core), 0);
            assert_int_equal(atomic_load(&strangers), 0);
            assert_int_equal(many.packets, one.packets);
            assert_int_equal(many.forwarded, one.forwarded);
            assert_int_equal(many.bytes, one.bytes);
            assert_memory_equal(many.dropped, one.dropped, sizeof many.dropped);
            assert_int_equal(many.stream_bytes, one.stream_bytes);
            assert_int_equal(many.events, one.events);
            assert_int_equal(many.conflicts, one.conflicts);
            assert_int_equal(many.flows_opened, one.flows_opened);
            assert_int_equal(many.flows_closed, one.flows_closed);
            assert_int_equal(many.given, many.taken_over);
            assert_int_equal(many.fragments, one.fragments);
            assert_int_equal(many.datagrams, one.datagrams);
            assert_int_equal(many.icmp, one.icmp);
            assert_true(one.icmp > 0);
            assert_memory_equal(many.faults, one.faults, sizeof many.faults);
            assert_true(many.given > 0 && many.fragments > 0);
            assert_true(one.dropped[NST_BY_HANDLER] > 0 && one.waits > 0);
            for (unsigned i = 0; i < n; i++)
                assert_true(core[i].stats.flows_opened > 0);
        }
    }
    free(talks);
}

static void test_live(void **state)
{
    compare(false);
}

static void test_replay(void **state)
{
    compare(true);
}

static void test_core_of(void **state)
{
    struct nst_port *both[] = { &ports[0].port, &ports[1].port };
    unsigned used[NST_CORES_MAX] = { 0 };
    struct nst_cores *c;

    for (unsigned i = 0; i < PORTS; i++)
        ports[i] = (struct unkind_port){ .port = { .ops = &unkind_ops }, .number = i };
    assert_int_equal(nst_cores_open(&c, 0, both, 2), -EINVAL);
    assert_int_equal(nst_cores_open(&c, NST_CORES_MAX + 1, both, 2), -EINVAL);
    assert_int_equal(nst_cores_open(&c, 2, both, 0), -EINVAL);
    ports[1].port.replay = true;
    assert_int_equal(nst_cores_open(&c, 2, both, 2), -EINVAL);
    ports[1].port.replay = false;
    assert_int_equal(nst_core_of(NULL, NULL), 0);
    assert_int_equal(nst_cores_count(NULL), 1);
    assert_int_equal(nst_cores_open(&c, 5, both, 2), 0);
    assert_int_equal(nst_cores_count(c), 5);
    /* As a NAT asks: one address after the other, and both ways. */
    for (unsigned port = 1024; port < 6024; port++) {
        struct nst_tuple t = { .a = { 4, { 10, 0, 0, 1 }, (uint16_t)port }, .b = { 4, { 10, 9, 0, 1 }, 443 } };
        struct nst_tuple back = { .a = t.b, .b = t.a };
        t.proto = back.proto = IPPROTO_TCP;
        unsigned core_there = nst_core_of(c, &t);
        assert_int_equal(core_there, nst_core_of(c, &back));
        used[core_there]++;
    }
    for (unsigned i = 0; i < 5; i++)
        assert_in_range(used[i], 800, 1200);
    nst_cores_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_core_of),
        cmocka_unit_test(test_live),
        cmocka_unit_test(test_replay),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
