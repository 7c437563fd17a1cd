/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: packets through an engine whose halves follow TCP at both ends, with handlers that wait, pend, take, drop
 * and reset. In the end every packet has met one end, nothing is kept, and no buffer is lost.
 *
 * The first two bytes choose how the engine is opened and what the handlers do. Then come packets: a byte whose lowest
 * bit says from which side, and whose next one says what follows: either one length byte and so many bytes of any
 * frame, or six bytes that make up a TCP segment between always the same endpoints (flags; offsets of sequence number
 * and acknowledgement; length of the payload; its first byte; a port).
 */
#include "io/port.h"
#include <netinet/in.h>
#include <netstar/engine.h>
#include <netstar/future.h>
#include <netstar/task.h>
#include <netstar/tcp.h>
#include <rte_ip.h>
#include <rte_mempool.h>
#include <rte_tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PENDING_MAX = 256, FRAME_MAX = 512, PACKETS = 200 };

static struct input {
    const uint8_t *p;
    size_t left;
} in;
static struct rte_mbuf *queue[PACKETS];
static unsigned queue_side[PACKETS], queue_n, queue_at;
static uint8_t how, behaviour;
static uint64_t event_count, sent;
static bool replay;
static struct port {
    struct nst_port port;
    unsigned side;
} ports[2];
static struct {
    struct nst_poller poller;
    struct {
        struct nst_flow *flow;
        enum nst_side side;
    } at[PENDING_MAX];
    unsigned n;
} pending;
static struct nst_reactor *reactor;

static void must(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}
#define MUST(what) must(what, #what)

static uint8_t take_byte(void)
{
    if (in.left == 0)
        return 0;
    in.left--;
    return *in.p++;
}

/* ---- the port ---- */
static unsigned port_receive(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    unsigned got = 0;

    while (got < n && queue_at < queue_n && queue_side[queue_at] == ((struct port *)p)->side) {
        m[got] = queue[queue_at++];
        port_stamp(p, m[got], replay ? (nst_time)queue_at * NST_MS(how) : nst_now());
        got++;
    }
    return got;
}

static void port_send(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    sent += n;
    for (unsigned i = 0; i < n; i++) {
        rte_mbuf_sanity_check(m[i], 1);
        rte_pktmbuf_free(m[i]);
    }
}

static bool port_ended(const struct nst_port *p)
{
    return queue_at == queue_n;
}

static void port_count(const struct nst_port *p, struct nst_port_stats *out)
{
    memset(out, 0, sizeof *out);
}

static const struct port_ops ops = {
    .driver = "fuzz", .rx = port_receive, .tx = port_send, .ended = port_ended, .stats = port_count
};

/* ---- frames: in memory of exactly their size, so that a byte read behind them is seen ---- */
static void free_frame(void *frame, void *shared)
{
    free(frame);
    free(shared);
}

static void add_frame(unsigned side, const uint8_t *frame, unsigned len)
{
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
    queue[queue_n] = m;
    queue_side[queue_n++] = side;
}

static void add_segment(unsigned side)
{
    uint8_t frame[14 + 20 + 20 + 255] = { [5] = 1, [12] = 8 };
    struct rte_ipv4_hdr *ip = (void *)(frame + 14);
    struct rte_tcp_hdr *tcp = (void *)(frame + 34);
    uint8_t flags = take_byte(), seq = take_byte(), ack = take_byte(), len = take_byte(), first = take_byte();
    uint16_t client_port = (uint16_t)(1000 + take_byte() % 3);

    *ip = (struct rte_ipv4_hdr){ .version_ihl = RTE_IPV4_VHL_DEF,
                                 .total_length = rte_cpu_to_be_16((uint16_t)(40 + len)),
                                 .time_to_live = 64,
                                 .next_proto_id = IPPROTO_TCP,
                                 .src_addr = rte_cpu_to_be_32(side == 0 ? 1 : 2),
                                 .dst_addr = rte_cpu_to_be_32(side == 0 ? 2 : 1) };
    *tcp = (struct rte_tcp_hdr){ .src_port = rte_cpu_to_be_16(side == 0 ? client_port : 80),
                                 .dst_port = rte_cpu_to_be_16(side == 0 ? 80 : client_port),
                                 .sent_seq = rte_cpu_to_be_32(0xffffffc0u + seq),
                                 .recv_ack = rte_cpu_to_be_32(0xffffffc0u + ack),
                                 .data_off = 5 << 4,
                                 .tcp_flags = flags };
    for (unsigned i = 0; i < len; i++) /* one byte of the stream has one value, unless `first` says otherwise */
        frame[54 + i] = (uint8_t)(seq + i + (first & 0xf0 ? 0 : first));
    add_frame(side, frame, 54u + len);
}

static void make_packets(void)
{
    queue_n = queue_at = 0;
    while (in.left > 0 && queue_n < PACKETS) {
        uint8_t head = take_byte();
        if (head & 2) {
            add_segment(head & 1);
            continue;
        }
        unsigned len = take_byte();
        if (len > in.left)
            len = (unsigned)in.left;
        add_frame(head & 1, in.p, len);
        in.p += len;
        in.left -= len;
    }
}

/* ---- the NF ---- */
static unsigned look_at(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_slice s;
    unsigned sum = 0;
    size_t total = 0;

    while (nst_flow_bytes(f, ev->side, &s)) {
        MUST(s.len > 0);
        for (size_t i = 0; i < s.len; i++)
            sum += ((const uint8_t *)s.p)[i];
        total += s.len;
    }
    MUST(total == 0 || (ev->what & (NST_EV_DATA | NST_EV_MIDSTREAM)));
    MUST(total > 0 || (ev->what & NST_EV_DATA) == 0);
    return sum;
}

static enum nst_verdict handler(struct nst_flow *f, const struct nst_event *ev)
{
    static const enum nst_verdict verdicts[] = { NST_FORWARD, NST_DROP,      NST_FORWARD, NST_FORWARD_FLOW,
                                                 NST_FORWARD, NST_DROP_FLOW, NST_FORWARD, NST_RESET_FLOW,
                                                 NST_FORWARD, NST_UNDECIDED, NST_FORWARD, NST_TAKEN };
    struct nst_endpoint end;
    uint8_t key[NST_FLOW_KEY_MAX];

    MUST(nst_flow_key(f, ev->side, key) <= sizeof key);
    nst_flow_endpoint(f, ev->side, &end);
    if (ev->what & NST_EV_CLOSE)
        return behaviour & 1 ? nst_fail(f, -EIO) : NST_FORWARD;
    uint64_t n = event_count++;
    if (ev->what & NST_EV_MIDSTREAM) {
        if (behaviour & 2)
            nst_tcp_pickup(f, ev->side);
        else if (behaviour & 4)
            nst_tcp_resume(f, ev->side, 0xffffffc0u + behaviour, 1000);
        else if (behaviour & 8)
            return nst_fail(f, -ESRCH);
    }
    look_at(f, ev);
    if ((behaviour & 16) && n % 3 == 0 && nst_yield() < 0)
        return nst_fail(f, -ECANCELED);
    if ((behaviour & 32) && n % 5 == 0 && pending.n < PENDING_MAX) {
        pending.at[pending.n].flow = f;
        pending.at[pending.n++].side = ev->side;
        return NST_PENDING;
    }
    if ((behaviour & 64) && n % 7 == 0) {
        nst_packet_send(nst_take(ev), (unsigned)(n % 3)); /* sometimes by a port that is not there */
        return NST_TAKEN;
    }
    if ((behaviour & 128) && n % 2 == 0)
        return verdicts[(n / 2 + how) % (sizeof verdicts / sizeof verdicts[0])];
    return NST_FORWARD;
}

static void loop(struct nst_flow *f, enum nst_side side)
{
    struct nst_event ev;
    char bytes[7];

    if (behaviour & 1) {
        while (nst_read(f, side, bytes, sizeof bytes, NST_NEVER) == (int)sizeof bytes)
            nst_decide_read(f, side, bytes[0] % 5 == 0 ? NST_DROP : NST_FORWARD);
        return;
    }
    for (unsigned n = 0; n < 50 && nst_next(f, side, &ev, NST_NEVER) == 0; n++) {
        if (ev.packet == NULL)
            continue;
        if ((ev.what & NST_EV_MIDSTREAM) && (behaviour & 2))
            nst_tcp_pickup(f, side);
        look_at(f, &ev);
        if ((behaviour & 16) && n % 3 == 0 && nst_yield() < 0)
            return;
        if (n % 8 != 7)
            nst_decide(f, &ev, n % 5 == 4 ? NST_DROP : NST_FORWARD);
    }
}

/* What is pending is resumed a turn later. */
static int resume(struct nst_poller *self)
{
    unsigned n = pending.n;

    for (unsigned i = 0; i < n; i++)
        nst_resume(pending.at[i].flow, pending.at[i].side, i % 3 == 2 ? NST_DROP : NST_FORWARD);
    pending.n = 0;
    return (int)n;
}

static void run(void *arg)
{
    const nst_events all = NST_EV_PACKET | NST_EV_OPEN | NST_EV_DATA | NST_EV_GAP | NST_EV_RETRANSMIT |
                           NST_EV_CONFLICT | NST_EV_MIDSTREAM | NST_EV_CLOSE;
    struct nst_nf nf = { .name = "fuzz", .proto = IPPROTO_TCP, .flow_size = 8, .policy.hold = 8 };
    struct nst_engine_config config = {
        .nf = &nf, .flows = 8, .stream_memory = 4096, .stream_per_end = 2048, .idle_closing = NST_MS(50)
    };
    struct nst_port *const both[] = { &ports[0].port, &ports[1].port };
    struct nst_engine_stats s;
    struct nst_engine *e;

    how = take_byte();
    behaviour = take_byte();
    replay = how & 1;
    for (unsigned side = 0; side < 2; side++) {
        ports[side] = (struct port){ .port = { .ops = &ops, .replay = replay, .checksums_trusted = (how & 128) == 0 },
                                     .side = side };
        nf.half[side] = (struct nst_half){ .inspect = &nst_tcp,
                                           .on_received = how & 2 ? all : NST_EV_DATA | NST_EV_CLOSE,
                                           .on_sent = how & 4 ? NST_EV_PACKET : 0 };
        if ((how & 8) && side == NST_SERVER)
            nf.half[side].loop = loop;
        else
            nf.half[side].handler = handler;
    }
    if (how & 16)
        nf.policy.on_conflict = nf.policy.on_midstream = nf.policy.on_hold_full = nf.policy.on_no_memory = NST_FORWARD;
    if (how & 32)
        nf.policy.on_midstream = nf.policy.otherwise = nf.policy.on_conflict = NST_FORWARD_FLOW;
    if (how & 64)
        nf.policy.on_hold_full = nf.policy.on_store = NST_RESET_FLOW;
    make_packets();
    event_count = sent = 0;
    pending.n = 0;
    pending.poller = (struct nst_poller){ .poll = resume };
    MUST(nst_engine_open(&e, &config, both, 2) == 0);
    nst_poller_add(reactor, &pending.poller);
    MUST(nst_engine_finish(e) == 0);
    MUST(nst_engine_drain(e, nst_now() + NST_SEC(5)) == 0);
    nst_engine_stats(e, &s);
    uint64_t ends = s.forwarded + s.sent_by_handler;
    for (unsigned i = 0; i < NST_CAUSES; i++)
        ends += s.dropped[i];
    MUST(s.packets == queue_n);
    MUST(ends == s.packets);
    MUST(sent == s.forwarded + s.sent_by_handler + s.injected);
    MUST(s.flows == 0 && s.held == 0 && s.stream_kept == 0);
    MUST(s.flows_opened == s.flows_closed);
    nst_poller_remove(reactor, &pending.poller);
    nst_engine_close(e);
    nst_reactor_stop(reactor);
}

static void begin(void)
{
    struct nst_io_config config = { .packets = 1024, .no_huge = true };
    struct nst_reactor_config rc = { .cpu = -1, .stall_after = NST_NEVER, .stacks = 1024 };
    const char *why = "";

    nst_log_level(NST_LOG_ERROR);
    if (nst_io_open(&config, &why) < 0 || nst_reactor_open(&reactor, &rc) < 0) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
}

static void no_log(void *arg, enum nst_log_level level, const char *text)
{
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (reactor == NULL) {
        begin();
        nst_log_to(no_log, NULL);
    }
    in = (struct input){ data, size };
    MUST(nst_reactor_run(reactor, run, NULL) == 0);
    MUST(rte_mempool_avail_count(port_pool) == port_pool->size);
    return 0;
}
