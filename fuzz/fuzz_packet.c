/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: packets through an engine whose halves follow TCP at both ends, with handlers that wait, pend, take, drop
 * and reset. In the end every packet has met one end, nothing is kept, and no buffer is lost.
 *
 * The first three bytes choose how the engine is opened and what the handlers do. Then come packets: a byte whose lowest
 * bit says from which side, and whose next one says what follows: either one length byte and so many bytes of any
 * frame, or six bytes that make up a TCP segment between always the same endpoints (flags; offsets of sequence number
 * and acknowledgement; length of the payload; its first byte; a port). With bit 2 it is cut into fragments, with bit 3 put
 * into a tunnel, with bit 4 cut again, with bit 5 put into another; each takes a byte or two.
 */
#include "wire.h"
#include <netinet/in.h>
#include <netstar/future.h>
#include <netstar/task.h>
#include <netstar/tcp.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PENDING_MAX = 256, FRAME_MAX = 1024 };

static uint8_t how, behaviour, also;
static uint64_t event_count;
static struct {
    struct nst_poller poller;
    struct {
        struct nst_flow *flow;
        enum nst_side side;
    } at[PENDING_MAX];
    unsigned n;
} pending;

/* ---- frames ---- */
struct frame {
    uint8_t d[FRAME_MAX];
    unsigned len;
};

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void ipv4(uint8_t *at, unsigned side, uint8_t proto, unsigned len, unsigned net)
{
    struct rte_ipv4_hdr ip = { .version_ihl = RTE_IPV4_VHL_DEF,
                               .total_length = rte_cpu_to_be_16((uint16_t)(sizeof ip + len)),
                               .time_to_live = 64,
                               .next_proto_id = proto,
                               .src_addr = rte_cpu_to_be_32(net + (side == 0 ? 1 : 2)),
                               .dst_addr = rte_cpu_to_be_32(net + (side == 0 ? 2 : 1)) };

    ip.hdr_checksum = rte_ipv4_cksum(&ip);
    memcpy(at, &ip, sizeof ip);
}

static void make_segment(unsigned side, struct frame *f)
{
    uint8_t flags = wire_byte(), seq = wire_byte(), ack = wire_byte(), len = wire_byte(), first = wire_byte();
    uint16_t client_port = (uint16_t)(1000 + wire_byte() % 3);
    struct rte_tcp_hdr tcp = { .src_port = rte_cpu_to_be_16(side == 0 ? client_port : 80),
                               .dst_port = rte_cpu_to_be_16(side == 0 ? 80 : client_port),
                               .sent_seq = rte_cpu_to_be_32(0xffffffc0u + seq),
                               .recv_ack = rte_cpu_to_be_32(0xffffffc0u + ack),
                               .data_off = 5 << 4,
                               .tcp_flags = flags };

    f->len = 54u + len;
    memset(f->d, 0, 54);
    f->d[5] = 1;
    f->d[12] = 8;
    ipv4(f->d + 14, side, IPPROTO_TCP, 20u + len, 0);
    for (unsigned i = 0; i < len; i++) /* one byte of the stream has one value, unless `first` says otherwise */
        f->d[54 + i] = (uint8_t)(seq + i + (first & 0xf0 ? 0 : first));
    memcpy(f->d + 34, &tcp, sizeof tcp);
    if (also & 4) {
        uint16_t sum = rte_ipv4_udptcp_cksum((const void *)(f->d + 14), f->d + 34);
        memcpy(f->d + 50, &sum, sizeof sum);
    }
}

/* What is outside: the lowest bits say what, the others how. */
static void wrap(unsigned side, struct frame *f)
{
    enum { MPLS, IPIP, GRE, GRE_ETHER, VXLAN, GTPU, VXLAN_6, GRE_6 };
    static uint8_t out[FRAME_MAX];
    uint8_t what = wire_byte(), kind = what & 7, id = what >> 4 & 3, proto = IPPROTO_UDP;
    bool six = kind >= VXLAN_6, ether = kind == GRE_ETHER || kind == VXLAN || kind == VXLAN_6;
    unsigned l3 = 14, l4 = l3 + (six ? 40 : 20), head, skip = ether ? 0 : 14;

    if (f->len < 34 || f->len > FRAME_MAX - 100)
        return;
    memset(out, 0, 100);
    out[5] = out[11] = 1;
    out[side == 0 ? 5 : 11] = 2;
    put16(out + 12, six ? 0x86dd : kind == MPLS ? 0x8847 : 0x0800);
    uint8_t *at = out + l4;
    switch (kind) {
    case MPLS:
        head = l3 + 8;
        out[l3 + 3] = 64;
        out[l3 + 6] = what >> 3 & 1; /* or there is no end of labels */
        break;
    case IPIP:
        proto = f->d[14] >> 4 == 6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
        head = l4;
        break;
    case GRE:
    case GRE_6:
    case GRE_ETHER:
        proto = IPPROTO_GRE;
        at[0] = what & 8 ? 0x30 : 0;
        memcpy(at + 2, ether ? (const uint8_t *)"\x65\x58" : f->d + 12, 2);
        head = l4 + (what & 8 ? 12 : 4);
        at[7] = what & 8 ? id : 0;
        break;
    default:
        put16(at, 40000);
        put16(at + 2, kind == GTPU ? 2152 : 4789);
        put16(at + 4, 16 + f->len - skip);
        at[8] = kind == GTPU ? 0x30 : 8;
        at[9] = kind == GTPU ? 255 : 0;
        put16(at + 10, kind == GTPU ? f->len - skip : 0);
        at[14] = id;
        head = l4 + 16;
    }
    unsigned len = head - l4 + f->len - skip;
    if (six) {
        out[l3] = 0x60;
        put16(out + l3 + 4, len);
        out[l3 + 6] = proto;
        out[l3 + 23] = (uint8_t)(side + 1);
        out[l3 + 39] = (uint8_t)(2 - side);
    } else if (kind != MPLS) {
        ipv4(out + l3, side, proto, len, 0x0b000000u + (what & 64));
    }
    memcpy(out + head, f->d + skip, f->len - skip);
    f->len = head + f->len - skip;
    memcpy(f->d, out, f->len);
    if (what & 128)
        f->d[14 + wire_byte() % (head - 14)] ^= wire_byte();
}

/* Cuts plain IPv4 in two; false: it is something else, or too short. */
static bool cut(struct frame *f, struct frame *tail)
{
    unsigned at = 8u + wire_byte() % 32 * 8, head = 34, id = wire_byte();
    uint8_t *ip = f->d + 14, *last = tail->d + 14;

    if (f->len <= head + at || f->d[12] != 8 || f->d[13] != 0 || ip[0] != 0x45)
        return false;
    tail->len = f->len - at;
    memcpy(tail->d, f->d, head);
    memcpy(tail->d + head, f->d + head + at, f->len - head - at);
    f->len = head + at;
    ip[5] = last[5] = (uint8_t)id;
    ip[6] |= 0x20;
    put16(last + 6, (last[6] & 0x3fu) << 8 | ((unsigned)last[7] + at / 8));
    put16(ip + 2, f->len - 14);
    put16(last + 2, tail->len - 14);
    for (unsigned i = 0; i < 2; i++) {
        struct rte_ipv4_hdr *h = (void *)(i == 0 ? ip : last);
        h->hdr_checksum = 0;
        h->hdr_checksum = rte_ipv4_cksum(h);
    }
    return true;
}

static bool send_frame(unsigned side, uint8_t head, struct frame *f, unsigned step)
{
    struct frame tail;

    for (; step < 4; step++) {
        if ((head & 4u << step) == 0)
            continue;
        if (step % 2 == 1) {
            wrap(side, f);
        } else if (cut(f, &tail)) {
            struct frame *order[] = { f, &tail };
            unsigned turned = tail.d[19] & 1;
            return send_frame(side, head, order[turned], step + 1) && send_frame(side, head, order[!turned], step + 1);
        }
    }
    return wire_send(side, f->d, f->len);
}

static void make_packets(void)
{
    struct frame f;

    while (wire.left > 0) {
        uint8_t head = wire_byte();
        if (head & 2) {
            make_segment(head & 1, &f);
        } else {
            f.len = wire_byte();
            if (f.len > wire.left)
                f.len = (unsigned)wire.left;
            if (f.len != 0)
                memcpy(f.d, wire.in, f.len);
            wire.in += f.len;
            wire.left -= f.len;
        }
        if (!send_frame(head & 1, head, &f, 0))
            return;
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const nst_events all = NST_EV_PACKET | NST_EV_OPEN | NST_EV_DATA | NST_EV_GAP | NST_EV_RETRANSMIT |
                           NST_EV_CONFLICT | NST_EV_MIDSTREAM | NST_EV_CLOSE;
    struct nst_nf nf = { .name = "fuzz", .proto = IPPROTO_TCP, .flow_size = 8, .policy.hold = 8 };
    struct nst_engine_config config = {
        .nf = &nf, .flows = 8, .stream_memory = 4096, .stream_per_end = 2048, .idle_closing = NST_MS(50)
    };
    struct nst_engine_stats s;

    wire_begin(data, size);
    how = wire_byte();
    behaviour = wire_byte();
    also = wire_byte();
    wire.replay = how & 1;
    wire.step = NST_MS(how);
    wire.trusted = (how & 128) == 0;
    for (unsigned side = 0; side < 2; side++) {
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
    if (also & 1)
        config.tunnels = NST_TUNNELS_ALL;
    config.networks = also & 2 ? 2 : 64;
    if (also & 8)
        nf.policy.normalise = true;
    if (also & 16)
        nf.policy.on_fragment = nf.policy.on_malformed = nf.policy.on_checksum = NST_FORWARD;
    if (also & 32)
        config.fragments = 4;
    config.trust_checksums = also & 64;
    make_packets();
    event_count = 0;
    pending.n = 0;
    pending.poller = (struct nst_poller){ .poll = resume };
    wire.poller = &pending.poller;
    wire_run(&config, &s);
    MUST(s.fragments_kept == 0);
    return 0;
}
