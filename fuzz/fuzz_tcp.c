/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: sequences of TCP segments of one connection, both directions, through two ends that nst_tcp follows. What
 * it hands out is checked: every byte is one that arrived for its place, the places follow one another, and none comes
 * twice. Where the input is tame (whole segments of one stream, in any order and as often as wanted, nothing dropped),
 * exactly the bytes up to the first hole must have come.
 *
 * First come four bytes: what is allowed and what the handlers do, and how far the initial sequence numbers are from
 * the wrap. Then four bytes for each segment: who sends it and how; where it begins, relative to what its sender has
 * sent in order; how long it is; its flags, or, in tame inputs, whether what its sender has received is acknowledged.
 */
#include "wire.h"
#include <netstar/task.h>
#include <netstar/tcp.h>
#include <rte_tcp.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STREAM_MAX = 1 << 14 };
enum {                 /* the first byte */
       WILD = 1,       /* any flags, acknowledgments of anything */
       TWO = 2,        /* some segments bring other bytes */
       DROPS = 4,      /* handlers drop some packets */
       WAITS = 8,      /* handlers wait now and then */
       TIGHT = 16,     /* little memory */
       OPEN = 32,      /* conflicts and what cannot be kept pass */
       REPLAY = 64,    /* a capture: holes are jumped over */
       NO_HELLO = 128, /* no handshake */
};

/* One direction, by who receives it. */
struct direction {
    uint32_t iss;
    uint32_t sent;         /* bytes that were sent in order */
    bool have[STREAM_MAX]; /* arrived, tame inputs */
    uint64_t handed;       /* of the NF: bytes handed out */
};
static struct direction to[2];
static uint8_t mode, pattern;
static uint64_t events;

/* What a place of a stream holds; another says something else everywhere. */
static uint8_t byte_at(unsigned side, uint32_t at, bool other)
{
    uint32_t x = (at + side * 7919u) * 2654435761u;

    return (uint8_t)(x >> 24) ^ (other ? 0x80 : 0);
}

struct own {
    uint64_t next[2]; /* the place that comes next, by who receives */
};

static bool tame(void)
{
    return (mode & (WILD | TWO | DROPS | TIGHT | NO_HELLO)) == 0;
}

/* Whoever opens the connection is the flow's client. */
static unsigned receiver_of(const struct nst_flow *f, enum nst_side side)
{
    struct nst_endpoint end;

    nst_flow_endpoint(f, side, &end);
    return end.port == 80;
}

static enum nst_verdict handler(struct nst_flow *f, const struct nst_event *ev)
{
    struct own *own = nst_flow_state(f);
    struct nst_slice s;
    uint64_t n = events++;

    if (ev->what & NST_EV_CLOSE)
        return NST_FORWARD;
    if ((mode & WAITS) && n % 3 == 0 && nst_yield() < 0)
        return nst_fail(f, -ECANCELED);
    if ((ev->what & NST_EV_DATA) == 0)
        return NST_FORWARD;
    uint64_t at = nst_tcp_offset(f, ev->side), expected = own->next[ev->side];
    /* In a capture a hole is jumped over; another connection begins anew, and there also with a hole. */
    bool anew = (mode & (WILD | NO_HELLO)) != 0, hole = (mode & REPLAY) != 0;
    MUST(at == expected || (hole && (anew || at > expected)) || (anew && at == 0));
    uint32_t seq = nst_tcp_seq(f, ev->side);
    unsigned receiver = receiver_of(f, ev->side);
    uint64_t end = at;
    while (nst_flow_bytes(f, ev->side, &s)) {
        const uint8_t *p = s.p;
        MUST(s.len > 0);
        for (size_t i = 0; i < s.len; i++, seq++, end++) {
            uint32_t place = seq - to[receiver].iss - 1;
            MUST(p[i] == byte_at(receiver, place, false) || ((mode & TWO) && p[i] == byte_at(receiver, place, true)));
        }
    }
    MUST(end > at);
    if ((mode & DROPS) && (pattern >> n % 8 & 1))
        return NST_DROP;
    to[receiver].handed += end - at;
    own->next[ev->side] = end;
    return NST_FORWARD;
}

static void hello(void)
{
    struct wire_tcp t = { .seq = to[1].iss, .flags = RTE_TCP_SYN_FLAG, .window = UINT16_MAX };

    wire_send_tcp(0, &t);
    t = (struct wire_tcp){
        .seq = to[0].iss, .ack = to[1].iss + 1, .flags = RTE_TCP_SYN_FLAG | RTE_TCP_ACK_FLAG, .window = UINT16_MAX
    };
    wire_send_tcp(1, &t);
    t = (struct wire_tcp){
        .seq = to[1].iss + 1, .ack = to[0].iss + 1, .flags = RTE_TCP_ACK_FLAG, .window = UINT16_MAX
    };
    wire_send_tcp(0, &t);
}

/* Up to the first hole. */
static uint32_t arrived(const struct direction *d)
{
    uint32_t n = 0;

    while (n < STREAM_MAX && d->have[n])
        n++;
    return n;
}

static bool segment(void)
{
    uint8_t who = wire_byte(), where = wire_byte(), len = wire_byte(), flags = wire_byte(), payload[WIRE_PAYLOAD_MAX];
    unsigned from = who & 1, receiver = !from;
    struct direction *d = &to[receiver], *back = &to[from];
    /* The sender's next byte, some bytes back or some ahead: up to 127 times 1 or 32. */
    int32_t off = (int8_t)where * (who & 2 ? 32 : 1);
    uint32_t n = who & 4 ? len * 4u : len;

    if ((mode & WILD) == 0) {
        if (off < 0 && (uint32_t)-off > d->sent)
            off = -(int32_t)d->sent;
        if (d->sent + (uint32_t)off + n > STREAM_MAX)
            return true;
    }
    uint32_t at = d->sent + (uint32_t)off;
    bool other = (mode & TWO) && (who & 8);
    /* A SYN takes a number itself. */
    uint32_t first = at + ((mode & WILD) && (flags & RTE_TCP_SYN_FLAG));
    for (uint32_t i = 0; i < n; i++)
        payload[i] = byte_at(receiver, first + i, other);
    struct wire_tcp t = { .seq = d->iss + 1 + at, .payload = payload, .len = n, .window = UINT16_MAX };
    if (mode & WILD) {
        t.flags = flags;
        t.ack = back->iss + 1 + (who & 16 ? back->sent : who & 32 ? back->sent / 2 : (uint32_t)len << (who >> 6) * 8);
    } else {
        t.flags = RTE_TCP_ACK_FLAG | (flags & RTE_TCP_PSH_FLAG);
        t.ack = back->iss + 1 + (flags & 1 ? arrived(back) : 0);
        memset(d->have + at, true, n);
    }
    if (off <= 0 && at + n > d->sent && at + n <= STREAM_MAX)
        d->sent = at + n;
    return wire_send_tcp(from, &t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const nst_events all = NST_EV_OPEN | NST_EV_DATA | NST_EV_GAP | NST_EV_RETRANSMIT | NST_EV_CLOSE;
    const struct nst_half half = { .inspect = &nst_tcp, .on_received = all, .handler = handler };
    struct nst_nf nf = { .name = "fuzz", .half = { half, half }, .flow_size = sizeof(struct own) };
    struct nst_engine_config config = { .nf = &nf, .flows = 8, .stream_memory = 1 << 20, .stream_per_end = 1 << 17 };
    struct nst_engine_stats s;

    wire_begin(data, size);
    memset(to, 0, sizeof to);
    events = 0;
    mode = wire_byte();
    pattern = wire_byte();
    to[0].iss = 0u - 32u * wire_byte();
    to[1].iss = 0u - 32u * wire_byte();
    wire.replay = mode & REPLAY;
    if (mode & TIGHT)
        config.stream_memory = 8192, config.stream_per_end = 4096;
    if (mode & OPEN)
        nf.policy.on_conflict = nf.policy.on_no_memory = NST_FORWARD;
    if (mode & NO_HELLO)
        nf.policy.on_midstream = NST_FORWARD;
    else
        hello();
    while (wire.left > 0 && segment())
        ;
    wire_run(&config, &s);
    if ((mode & REPLAY) == 0)
        MUST(s.stream_bytes == to[0].handed + to[1].handed);
    for (unsigned side = 0; side < 2 && tame(); side++)
        MUST(to[side].handed == arrived(&to[side]));
    return 0;
}
