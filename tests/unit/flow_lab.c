/* SPDX-License-Identifier: Apache-2.0 */
#include "flow_lab.h"
#include <netinet/in.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_udp.h>
#include <stdlib.h>
#include <time.h>

enum { QUEUE = 65536, SETTLE_TURNS = 6 };

struct lab lab;
bool lab_untrusted;

static struct lab_port {
    struct nst_port port;
    struct nst_port_stats n;
    unsigned number;
} ports[2];

static struct {
    struct {
        struct rte_mbuf *m;
        nst_time time;
        unsigned port;
        bool sum_bad;
    } at[QUEUE];
    unsigned head, n;
} queue;

static struct {
    struct nst_poller poller;
    struct nst_future *waiter;
} turn;

static bool replaying;
static void (*body_fn)(void);
static const struct nst_engine_config *engine_config;

const struct lab_path lab_tcp4 = { .family = 4, .proto = IPPROTO_TCP, .host = { 1, 2 }, .port = { 40000, 80 } };
const struct lab_path lab_tcp6 = { .family = 6, .proto = IPPROTO_TCP, .host = { 1, 2 }, .port = { 40000, 80 } };
const struct lab_path lab_udp4 = { .family = 4, .proto = IPPROTO_UDP, .host = { 1, 2 }, .port = { 40000, 53 } };
const struct lab_path lab_udp6 = { .family = 6, .proto = IPPROTO_UDP, .host = { 1, 2 }, .port = { 40000, 53 } };

/* ---- checks ---- */
void lab_fail(const char *file, int line, const char *what)
{
    if (lab.failures++ < 20)
        fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
}

void lab_equal(const char *file, int line, const char *what, long long is, long long should)
{
    if (is == should)
        return;
    if (lab.failures++ < 20)
        fprintf(stderr, "%s:%d: %s is %lld (%#llx), should be %lld (%#llx)\n", file, line, what, is, is, should,
                should);
}

static void log_sink(void *arg, enum nst_log_level level, const char *text)
{
    if (level <= NST_LOG_WARNING)
        lab.logged++;
}

uint64_t lab_seed(void)
{
    const char *given = getenv("NST_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) * 2654435761u;
    return seed != 0 ? seed : 1;
}

uint32_t lab_random(uint64_t *state, uint32_t below)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(((*state >> 16 & UINT32_MAX) * below) >> 32);
}

/* ---- frames ---- */
static void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

unsigned lab_ip_header(uint8_t *frame, const struct lab_path *path, unsigned dir, uint8_t proto, unsigned l4_len)
{
    unsigned at = 12;

    memset(frame, 0, 12);
    frame[0] = frame[6] = 2;
    frame[5] = (uint8_t)(dir == C2S ? 0xbb : 0xaa);
    frame[11] = (uint8_t)(dir == C2S ? 0xaa : 0xbb);
    for (unsigned i = 0; i < path->tags; i++, at += 4) {
        put16(frame + at, i + 1 < path->tags ? 0x88a8 : 0x8100);
        put16(frame + at + 2, path->vlan[i]);
    }
    put16(frame + at, path->family == 4 ? 0x0800 : 0x86dd);
    at += 2;
    if (path->family == 4) {
        struct rte_ipv4_hdr *ip = (void *)(frame + at);
        *ip = (struct rte_ipv4_hdr){
            .version_ihl = RTE_IPV4_VHL_DEF,
            .total_length = rte_cpu_to_be_16((uint16_t)(sizeof *ip + l4_len)),
            .time_to_live = 64,
            .next_proto_id = proto,
            .src_addr = rte_cpu_to_be_32(0x0a000000 | path->host[dir]),
            .dst_addr = rte_cpu_to_be_32(0x0a000000 | path->host[!dir]),
        };
        ip->hdr_checksum = rte_ipv4_cksum(ip);
        return at + (unsigned)sizeof *ip;
    }
    struct rte_ipv6_hdr *ip = (void *)(frame + at);
    *ip = (struct rte_ipv6_hdr){
        .vtc_flow = rte_cpu_to_be_32(6u << 28),
        .payload_len = rte_cpu_to_be_16((uint16_t)l4_len),
        .proto = proto,
        .hop_limits = 64,
    };
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *a = i == 0 ? ip->src_addr : ip->dst_addr;
        put16(a, 0x2001);
        put16(a + 2, 0x0db8);
        put16(a + 12, (uint16_t)(path->host[i == 0 ? dir : !dir] >> 16));
        put16(a + 14, (uint16_t)path->host[i == 0 ? dir : !dir]);
    }
    return at + (unsigned)sizeof *ip;
}

void lab_checksum(uint8_t *frame, unsigned tags, uint8_t family, uint8_t proto)
{
    uint8_t *ip = frame + 14 + 4 * tags;
    uint8_t *l4 = ip + (family == 4 ? 20 : 40);
    uint8_t *sum =
        l4 + (proto == IPPROTO_TCP ? offsetof(struct rte_tcp_hdr, cksum) : offsetof(struct rte_udp_hdr, dgram_cksum));
    uint16_t value;

    memset(sum, 0, 2);
    value = family == 4 ? rte_ipv4_udptcp_cksum((void *)ip, l4) : rte_ipv6_udptcp_cksum((void *)ip, l4);
    memcpy(sum, &value, 2);
}

unsigned lab_tcp_frame(uint8_t *frame, const struct lab_path *path, unsigned dir, struct lab_tcp t)
{
    unsigned at = lab_ip_header(frame, path, dir, IPPROTO_TCP, sizeof(struct rte_tcp_hdr) + t.len);
    struct rte_tcp_hdr h = {
        .src_port = rte_cpu_to_be_16(path->port[dir]),
        .dst_port = rte_cpu_to_be_16(path->port[!dir]),
        .sent_seq = rte_cpu_to_be_32(t.seq),
        .recv_ack = rte_cpu_to_be_32(t.ack),
        .data_off = 5 << 4,
        .tcp_flags = t.flags,
        .rx_win = 0xffff,
    };

    memcpy(frame + at, &h, sizeof h);
    if (t.len != 0)
        memcpy(frame + at + sizeof h, t.data, t.len);
    lab_checksum(frame, path->tags, path->family, IPPROTO_TCP);
    return at + (unsigned)sizeof h + t.len;
}

unsigned lab_udp_frame(uint8_t *frame, const struct lab_path *path, unsigned dir, const void *data, unsigned len)
{
    unsigned at = lab_ip_header(frame, path, dir, IPPROTO_UDP, sizeof(struct rte_udp_hdr) + len);
    struct rte_udp_hdr h = {
        .src_port = rte_cpu_to_be_16(path->port[dir]),
        .dst_port = rte_cpu_to_be_16(path->port[!dir]),
        .dgram_len = rte_cpu_to_be_16((uint16_t)(sizeof h + len)),
    };

    memcpy(frame + at, &h, sizeof h);
    if (len != 0)
        memcpy(frame + at + sizeof h, data, len);
    lab_checksum(frame, path->tags, path->family, IPPROTO_UDP);
    return at + (unsigned)sizeof h + len;
}

/* ---- ports ---- */
static unsigned port_receive(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    unsigned got = 0, number = ((struct lab_port *)p)->number;

    if (lab.burst != 0 && n > lab.burst)
        n = lab.burst;
    while (got < n && queue.n > 0 && queue.at[queue.head].port == number) {
        m[got] = queue.at[queue.head].m;
        port_stamp(p, m[got], replaying ? queue.at[queue.head].time : nst_now());
        if (queue.at[queue.head].sum_bad)
            packet_of(m[got])->flags |= PACKET_CHECKSUM_BAD;
        queue.head = (queue.head + 1) % QUEUE;
        queue.n--;
        got++;
    }
    lab.rx_calls += got != 0;
    return got;
}

static void note_headers(struct lab_out *o)
{
    unsigned at = 12;
    uint16_t type;

    o->tcp = NULL;
    o->data = NULL;
    o->data_len = 0;
    while (at + 2 <= o->len &&
           (type = (uint16_t)(o->frame[at] << 8 | o->frame[at + 1]), type == 0x8100 || type == 0x88a8))
        at += 4;
    at += 2;
    if (at + 20 > o->len)
        return;
    unsigned l4 = at + (o->frame[at] >> 4 == 4 ? 20 : 40);
    uint8_t proto = o->frame[at + (o->frame[at] >> 4 == 4 ? 9 : 6)];
    if (proto == IPPROTO_TCP && l4 + 20 <= o->len) {
        o->tcp = (const void *)(o->frame + l4);
        o->data = o->frame + l4 + 20;
        o->data_len = o->len - l4 - 20;
    } else if (proto == IPPROTO_UDP && l4 + 8 <= o->len) {
        o->data = o->frame + l4 + 8;
        o->data_len = o->len - l4 - 8;
    }
}

static void port_send(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if ((lab.n_out & (lab.n_out + 1)) == 0)
            lab.out = realloc(lab.out, (lab.n_out * 2 + 2) * sizeof *lab.out);
        struct lab_out *o = &lab.out[lab.n_out++];
        o->port = ((struct lab_port *)p)->number;
        o->len = m[i]->pkt_len;
        o->frame = malloc(o->len + 1);
        unsigned at = 0;
        for (const struct rte_mbuf *s = m[i]; s != NULL; s = s->next) {
            memcpy(o->frame + at, rte_pktmbuf_mtod(s, const void *), s->data_len);
            at += s->data_len;
        }
        check_eq(at, o->len);
        note_headers(o);
        rte_pktmbuf_free(m[i]);
    }
}

static bool port_ended(const struct nst_port *p)
{
    return lab.ended && queue.n == 0;
}

static void port_quiet(struct nst_port *p)
{
    lab.quiet++;
}

static void port_count(const struct nst_port *p, struct nst_port_stats *out)
{
    *out = ((const struct lab_port *)p)->n;
}

static const struct port_ops ops = {
    .driver = "lab",
    .rx = port_receive,
    .tx = port_send,
    .ended = port_ended,
    .quiet = port_quiet,
    .stats = port_count,
};

/* The frame's payload is split where `pieces` says; headers stay together in the first mbuf. */
void lab_send(unsigned port, const void *frame, unsigned len)
{
    struct rte_mbuf *first = NULL, *last = NULL;
    unsigned at = 0, pieces = lab.pieces > 1 ? lab.pieces : 1, headers = len < 120 ? len : 120;

    for (unsigned i = 0; i < pieces && (i == 0 || at < len); i++) {
        struct rte_mbuf *m = rte_pktmbuf_alloc(port_pool);
        if (m == NULL) {
            check(!"a packet buffer was to be had");
            rte_pktmbuf_free(first);
            return;
        }
        unsigned n = i + 1 == pieces ? len - at : i == 0 ? headers : (len - at) / (pieces - i);
        if (n > rte_pktmbuf_tailroom(m))
            n = rte_pktmbuf_tailroom(m);
        memcpy(rte_pktmbuf_append(m, (uint16_t)n), (const uint8_t *)frame + at, n);
        at += n;
        if (first == NULL) {
            first = m;
        } else {
            last->next = m;
            first->nb_segs++;
            first->pkt_len += n;
        }
        last = m;
    }
    check_eq(at, len);
    check(queue.n < QUEUE);
    unsigned slot = (queue.head + queue.n++) % QUEUE;
    queue.at[slot].m = first;
    queue.at[slot].port = port;
    queue.at[slot].time = lab.time;
    queue.at[slot].sum_bad = lab.sum_bad;
}

void lab_send_tcp(const struct lab_path *path, unsigned dir, struct lab_tcp t)
{
    uint8_t frame[LAB_FRAME];
    lab_send(dir, frame, lab_tcp_frame(frame, path, dir, t));
}

void lab_send_udp(const struct lab_path *path, unsigned dir, const void *data, unsigned len)
{
    uint8_t frame[LAB_FRAME];
    lab_send(dir, frame, lab_udp_frame(frame, path, dir, data, len));
}

void lab_data(const struct lab_path *path, unsigned dir, uint32_t seq, uint32_t ack, const char *text)
{
    lab_send_tcp(
        path, dir,
        (struct lab_tcp){ .flags = PSH | ACK, .seq = seq, .ack = ack, .data = text, .len = (unsigned)strlen(text) });
}

void lab_handshake(const struct lab_path *path, uint32_t c, uint32_t s)
{
    lab_send_tcp(path, C2S, (struct lab_tcp){ .flags = SYN, .seq = c });
    lab_send_tcp(path, S2C, (struct lab_tcp){ .flags = SYN | ACK, .seq = s, .ack = c + 1 });
    lab_send_tcp(path, C2S, (struct lab_tcp){ .flags = ACK, .seq = c + 1, .ack = s + 1 });
    lab_settle();
    lab_clear();
}

void lab_clear(void)
{
    for (unsigned i = 0; i < lab.n_out; i++)
        free(lab.out[i].frame);
    free(lab.out);
    lab.out = NULL;
    lab.n_out = 0;
}

/* ---- turns ---- */
static int turn_poll(struct nst_poller *self)
{
    struct nst_future *f = turn.waiter;

    turn.waiter = NULL;
    if (f != NULL)
        nst_fulfil(f, 0);
    return f != NULL;
}

static void stop_turn(struct nst_future *f)
{
    turn.waiter = NULL;
    nst_fulfil(f, -ECANCELED);
}

void lab_turns(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct nst_future f;
        nst_future_init(&f);
        f.stop = stop_turn;
        turn.waiter = &f;
        if (nst_await(&f, NST_NEVER) < 0)
            return;
    }
}

void lab_settle(void)
{
    for (unsigned last = queue.n, same = 0; queue.n > 0 && same < 100; last = queue.n) {
        lab_turns(1);
        same = queue.n == last ? same + 1 : 0;
    }
    lab_turns(SETTLE_TURNS);
}

unsigned lab_queued(void)
{
    return queue.n;
}

struct nst_engine_stats lab_stats(void)
{
    struct nst_engine_stats s;
    nst_engine_stats(lab.engine, &s);
    return s;
}

/* ---- answers ---- */
static void stop_answer(struct nst_future *f)
{
    struct lab_answer *a = f->op;
    a->stopped = true;
    a->open = false;
    nst_fulfil(f, -ECANCELED);
}

int lab_wait(struct lab_answer *a, nst_time until)
{
    nst_future_init(&a->f);
    a->f.op = a;
    a->f.stop = stop_answer;
    a->open = true;
    a->stopped = false;
    return nst_await(&a->f, until);
}

void lab_fulfil(struct lab_answer *a, int rc)
{
    check(a->open);
    if (!a->open)
        return;
    a->open = false;
    nst_fulfil(&a->f, rc);
}

/* ---- a run ---- */
static void lab_main(void *arg)
{
    struct nst_port *const both[] = { &ports[0].port, &ports[1].port };
    int rc;

    for (unsigned i = 0; i < 2; i++) {
        ports[i] = (struct lab_port){ .port = { .ops = &ops, .replay = replaying, .checksums_trusted = !lab_untrusted },
                                      .number = i };
        snprintf(ports[i].port.name, sizeof ports[i].port.name, "lab%u", i);
    }
    rc = nst_engine_open(&lab.engine, engine_config, both, 2);
    check_eq(rc, 0);
    if (rc < 0)
        return;
    turn.poller = (struct nst_poller){ .poll = turn_poll };
    nst_poller_add(lab.reactor, &turn.poller);
    body_fn();
    if (!lab.drained) {
        lab.drain = nst_engine_drain(lab.engine, nst_now() + (lab.drain_for != 0 ? lab.drain_for : NST_SEC(5)));
        check_eq(lab.drain, 0);
        struct nst_engine_stats s = lab_stats();
        check_eq(s.stream_kept, 0);
        check_eq(s.held, 0);
        check_eq(s.flows, 0);
        check_eq(s.flows_opened, s.flows_closed);
        nst_engine_close(lab.engine);
    }
    nst_poller_remove(lab.reactor, &turn.poller);
    lab.engine = NULL;
    nst_reactor_stop(lab.reactor);
}

static void run(const struct nst_engine_config *config, void (*body)(void), bool replay)
{
    struct nst_reactor_config rc = { .cpu = -1, .stall_after = NST_NEVER };

    assert_int_equal(rte_mempool_avail_count(port_pool), port_pool->size);
    memset(&lab, 0, sizeof lab);
    queue.head = queue.n = 0;
    replaying = replay;
    body_fn = body;
    engine_config = config;
    lab.time = NST_SEC(1000);
    nst_log_to(log_sink, NULL);
    assert_int_equal(nst_reactor_open(&lab.reactor, &rc), 0);
    int ended = nst_reactor_run(lab.reactor, lab_main, NULL);
    nst_reactor_close(lab.reactor);
    nst_log_to(NULL, NULL);
    lab_clear();
    for (; queue.n > 0; queue.n--, queue.head = (queue.head + 1) % QUEUE)
        rte_pktmbuf_free(queue.at[queue.head].m);
    assert_int_equal(ended, 0);
    assert_int_equal(lab.failures, 0);
    assert_int_equal(rte_mempool_avail_count(port_pool), port_pool->size);
}

void lab_run(const struct nst_engine_config *config, void (*body)(void))
{
    run(config, body, false);
}

void lab_replay(const struct nst_engine_config *config, void (*body)(void))
{
    run(config, body, true);
}

int lab_setup(void **state)
{
    struct nst_io_config io = { .packets = 8192, .no_huge = true };
    const char *why = "";

    nst_log_level(NST_LOG_WARNING);
    int rc = nst_io_open(&io, &why);
    if (rc < 0)
        fprintf(stderr, "DPDK: %s\n", why);
    return rc;
}

int lab_teardown(void **state)
{
    uint32_t missing = 0;
    int rc = nst_io_close(&missing);

    if (missing != 0)
        fprintf(stderr, "%u packet buffers are missing\n", missing);
    return rc;
}
