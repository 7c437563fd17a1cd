/* SPDX-License-Identifier: Apache-2.0 */
#include "rebuild_capture.h"
#include <errno.h>
#include <rte_byteorder.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    MSS = 1448,
    L3 = sizeof(struct rte_ether_hdr),
    L4 = L3 + sizeof(struct rte_ipv4_hdr),
    TEXT = 1 << 16,      /* what the payload is cut out of */
    SEGMENTS_MAX = 1024, /* of one answer */
    SCRIPT_MAX = 4 * SEGMENTS_MAX,
    FRAME_MAX = 1600,
    LOSSY_PERCENT = 5,
};

static const char *const names[] = { "tcp_rebuild_http", "tcp_rebuild_bulk", "tcp_rebuild_lossy" };

const char *rebuild_kind_name(enum rebuild_kind kind)
{
    return names[kind];
}

struct random {
    uint64_t state;
};

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

/* From low to high - 1. */
static uint32_t between(struct random *r, uint32_t low, uint32_t high)
{
    return low + (uint32_t)(mix(r->state++) % (high - low));
}

/* One segment of a connection's script; offsets count from the first byte behind the SYN. */
struct step {
    uint32_t seq, ack;
    uint16_t len;
    uint8_t flags;
    bool from_server;
    uint32_t sack[2]; /* the block behind the hole, when there is one */
};

struct connection {
    uint32_t number, client, server;
    uint16_t port;
    uint32_t iss[2]; /* by who sends: client, server */
    uint32_t n, next;
    struct step step[SCRIPT_MAX];
};

struct maker {
    struct rebuild_capture *out;
    enum rebuild_kind kind;
    struct random random;
    size_t used, frames_max;
    uint8_t text[2 * TEXT];
};

void rebuild_answer_add(struct rebuild_answer *a, uint32_t client, uint16_t port, bool to_client, uint64_t offset,
                        const uint8_t *p, size_t len)
{
    uint64_t weight = mix((uint64_t)client << 17 | (uint64_t)port << 1 | to_client);
    uint64_t step = 0x9e3779b97f4a7c15, sum = 0;

    weight += offset * step;
    for (size_t i = 0; i < len; i++, weight += step)
        sum += (p[i] + 1) * (weight ^ weight >> 29);
    a->sum += sum;
    a->bytes += len;
}

/* ---- what the two ends say ---- */
static struct step *say(struct connection *c, bool from_server, uint8_t flags, uint32_t seq, uint32_t ack, uint16_t len)
{
    struct step *s = &c->step[c->n++];

    *s = (struct step){ .seq = seq, .ack = ack, .len = len, .flags = flags, .from_server = from_server };
    return s;
}

/* The order in which the segments of an answer are seen, by their number. */
static unsigned send_order(struct maker *m, uint16_t *order, unsigned segments)
{
    unsigned n = 0, behind[SEGMENTS_MAX], late[SEGMENTS_MAX], waiting = 0;

    for (unsigned i = 0; i < segments; i++) {
        bool hit = m->kind == REBUILD_LOSSY && between(&m->random, 0, 100) < LOSSY_PERCENT;
        unsigned what = hit ? between(&m->random, 0, 3) : 3;
        if (what < 2) { /* late by one to three places, or sent again after a round trip */
            late[waiting] = i;
            behind[waiting++] = what == 0 ? between(&m->random, 1, 4) : between(&m->random, 4, 12);
            *(what == 0 ? &m->out->late : &m->out->resent) += 1;
        } else {
            order[n++] = (uint16_t)i;
        }
        if (what == 2) {
            order[n++] = (uint16_t)i;
            m->out->repeated++;
        }
        for (unsigned j = 0; j < waiting;) {
            if (behind[j]-- == 0 || i + 1 == segments) {
                order[n++] = (uint16_t)late[j];
                waiting--;
                memmove(&late[j], &late[j + 1], (waiting - j) * sizeof *late);
                memmove(&behind[j], &behind[j + 1], (waiting - j) * sizeof *behind);
            } else {
                j++;
            }
        }
    }
    return n;
}

/* An answer of len bytes to a request that ends at `asked`, and what the client acknowledges of it meanwhile. */
static void answer(struct maker *m, struct connection *c, uint32_t asked, uint32_t from, uint32_t len)
{
    unsigned segments = (len + MSS - 1) / MSS, n, unacked = 0;
    uint16_t order[2 * SEGMENTS_MAX];
    bool got[SEGMENTS_MAX + 1] = { 0 };
    unsigned next = 0;

    n = send_order(m, order, segments);
    for (unsigned i = 0; i < n; i++) {
        unsigned at = order[i], before = next;
        bool last = at + 1 == segments;
        say(c, true, RTE_TCP_ACK_FLAG | (last ? RTE_TCP_PSH_FLAG : 0), from + at * MSS, asked,
            (uint16_t)(last ? len - at * MSS : MSS));
        got[at] = true;
        while (got[next])
            next++;
        unacked += next - before;
        bool odd = next != before + 1; /* behind a hole, filling one, or known: answered at once */
        if (unacked < 2 && !odd && i + 1 != n)
            continue;
        unacked = 0;
        struct step *s = say(c, false, RTE_TCP_ACK_FLAG, asked, from + (next == segments ? len : next * MSS), 0);
        if (at > next) {
            unsigned first = at, end = at;
            while (got[first - 1])
                first--;
            while (got[end])
                end++;
            s->sack[0] = from + first * MSS;
            s->sack[1] = from + (end == segments ? len : end * MSS);
        }
    }
}

static uint32_t answer_size(struct maker *m)
{
    uint32_t of = between(&m->random, 0, 100);

    switch (m->kind) {
    case REBUILD_BULK:
        return between(&m->random, 900 << 10, 1000 << 10);
    case REBUILD_LOSSY:
        if (of < 5)
            return between(&m->random, 40000, 120000);
        /* fall through */
    default:
        if (of < 60)
            return between(&m->random, 200, 4000);
        return of < 92 ? between(&m->random, 4000, 9000) : between(&m->random, 9000, 25000);
    }
}

static void play(struct maker *m, struct connection *c, uint32_t number)
{
    uint64_t h = mix(0x7265u + number);
    uint32_t asked = 1, told = 1;
    /* Every third browser asks once more. */
    unsigned requests = m->kind != REBUILD_BULK && between(&m->random, 0, 3) == 0 ? 2 : 1;

    c->number = number;
    c->client = RTE_IPV4(10, 0, 0, 0) | (number * 0x9e3779b1u & 0xffffff); /* odd: all are different */
    c->server = RTE_IPV4(198u, 18, 0, 1) + (h & 15);
    c->port = (uint16_t)(32768 + (h >> 16) % 28000);
    c->iss[0] = (uint32_t)mix(h);
    c->iss[1] = (uint32_t)(mix(h) >> 32);
    c->n = c->next = 0;

    say(c, false, RTE_TCP_SYN_FLAG, 0, 0, 0);
    say(c, true, RTE_TCP_SYN_FLAG | RTE_TCP_ACK_FLAG, 0, 1, 0);
    say(c, false, RTE_TCP_ACK_FLAG, 1, 1, 0);
    for (unsigned i = 0; i < requests; i++) {
        uint16_t request = (uint16_t)between(&m->random, 90, 500);
        uint32_t len = answer_size(m);
        say(c, false, RTE_TCP_ACK_FLAG | RTE_TCP_PSH_FLAG, asked, told, request);
        asked += request;
        say(c, true, RTE_TCP_ACK_FLAG, told, asked, 0);
        answer(m, c, asked, told, len);
        told += len;
    }
    say(c, false, RTE_TCP_ACK_FLAG | RTE_TCP_FIN_FLAG, asked, told, 0);
    say(c, true, RTE_TCP_ACK_FLAG | RTE_TCP_FIN_FLAG, told, asked + 1, 0);
    say(c, false, RTE_TCP_ACK_FLAG, asked + 1, told + 1, 0);
}

/* ---- frames ---- */
static const uint8_t *text_at(const struct maker *m, const struct connection *c, bool from_server, uint32_t offset)
{
    return m->text + (c->number * 7919u + from_server * 31u + offset) % TEXT;
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
    v = rte_cpu_to_be_32(v);
    memcpy(p, &v, sizeof v);
    return p + sizeof v;
}

/* The options as Linux writes them. */
static size_t put_options(uint8_t *p, const struct connection *c, const struct step *s, uint32_t ms)
{
    static const uint8_t syn[] = { 2, 4, MSS >> 8, MSS & 0xff, 4, 2 }, scale[] = { 1, 3, 3, 7 };
    uint8_t *begin = p;
    bool is_syn = s->flags & RTE_TCP_SYN_FLAG;

    if (is_syn) {
        memcpy(p, syn, sizeof syn);
        p += sizeof syn;
    } else {
        *p++ = 1;
        *p++ = 1;
    }
    *p++ = 8;
    *p++ = 10;
    p = put32(p, c->iss[s->from_server] / 3 + ms);
    p = put32(p, is_syn && !s->from_server ? 0 : c->iss[!s->from_server] / 3 + ms);
    if (is_syn) {
        memcpy(p, scale, sizeof scale);
        p += sizeof scale;
    }
    if (s->sack[1] != 0) {
        *p++ = 1;
        *p++ = 1;
        *p++ = 5;
        *p++ = 10;
        p = put32(p, c->iss[!s->from_server] + s->sack[0]);
        p = put32(p, c->iss[!s->from_server] + s->sack[1]);
    }
    return (size_t)(p - begin);
}

static uint16_t build(const struct maker *m, uint8_t *frame, const struct connection *c, const struct step *s)
{
    struct rte_ether_hdr eth = { .ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4) };
    struct rte_ipv4_hdr ip = { 0 };
    struct rte_tcp_hdr tcp = { 0 };
    /* A round trip or so between two flights: timestamps never go back. */
    size_t options = put_options(frame + L4 + sizeof tcp, c, s, c->next / 64);
    uint16_t len = (uint16_t)(L4 + sizeof tcp + options + s->len);

    eth.src_addr.addr_bytes[0] = eth.dst_addr.addr_bytes[0] = 2; /* locally administered */
    eth.src_addr.addr_bytes[5] = 1 + s->from_server;
    eth.dst_addr.addr_bytes[5] = 2 - s->from_server;
    ip.version_ihl = 0x45;
    ip.total_length = rte_cpu_to_be_16(len - L3);
    ip.packet_id = rte_cpu_to_be_16((uint16_t)c->next);
    ip.fragment_offset = rte_cpu_to_be_16(RTE_IPV4_HDR_DF_FLAG);
    ip.time_to_live = 64;
    ip.next_proto_id = 6;
    ip.src_addr = rte_cpu_to_be_32(s->from_server ? c->server : c->client);
    ip.dst_addr = rte_cpu_to_be_32(s->from_server ? c->client : c->server);
    ip.hdr_checksum = rte_ipv4_cksum(&ip);
    tcp.src_port = rte_cpu_to_be_16(s->from_server ? 80 : c->port);
    tcp.dst_port = rte_cpu_to_be_16(s->from_server ? c->port : 80);
    tcp.sent_seq = rte_cpu_to_be_32(c->iss[s->from_server] + s->seq);
    if (s->flags & RTE_TCP_ACK_FLAG)
        tcp.recv_ack = rte_cpu_to_be_32(c->iss[!s->from_server] + s->ack);
    tcp.data_off = (uint8_t)((sizeof tcp + options) / 4 << 4);
    tcp.tcp_flags = s->flags;
    tcp.rx_win = rte_cpu_to_be_16(s->flags & RTE_TCP_SYN_FLAG ? 64240 : 8192);
    memcpy(frame, &eth, sizeof eth);
    memcpy(frame + L3, &ip, sizeof ip);
    memcpy(frame + L4, &tcp, sizeof tcp);
    memcpy(frame + L4 + sizeof tcp + options, text_at(m, c, s->from_server, s->seq - 1), s->len);
    tcp.cksum = rte_ipv4_udptcp_cksum(&ip, frame + L4);
    memcpy(frame + L4 + offsetof(struct rte_tcp_hdr, cksum), &tcp.cksum, sizeof tcp.cksum);
    return len;
}

static int emit(struct maker *m, struct connection *c)
{
    struct rebuild_capture *out = m->out;
    struct rebuild_frame *f = &out->frames[out->packets];

    if (out->packets == m->frames_max || m->used + FRAME_MAX > out->mapped)
        return -ENOMEM;
    f->at = (uint32_t)(m->used / REBUILD_ALIGN);
    f->len = build(m, out->bytes + m->used + REBUILD_LEAD, c, &c->step[c->next]);
    m->used = RTE_ALIGN(m->used + REBUILD_LEAD + f->len, (size_t)REBUILD_ALIGN);
    out->wire_bytes += f->len;
    out->packets++;
    c->next++;
    return 0;
}

static void note_answer(struct maker *m, const struct connection *c)
{
    const struct step *fin[2] = { &c->step[c->n - 3], &c->step[c->n - 2] };

    for (unsigned server = 0; server < 2; server++) {
        uint32_t len = fin[server]->seq - 1;
        for (uint32_t at = 0; at < len; at += MSS) {
            uint32_t n = len - at < MSS ? len - at : MSS;
            rebuild_answer_add(&m->out->answer, c->client, c->port, server, at, text_at(m, c, server, at), n);
        }
    }
}

/* Gives one of the connections that go on its next few packets, until all have ended. */
static int interleave(struct maker *m, struct connection *live, unsigned at_once, uint64_t packets)
{
    uint32_t number = 0;
    unsigned n = 0;
    int rc = 0;

    for (; n < at_once; n++)
        play(m, &live[n], number++);
    while (n > 0 && rc == 0) {
        unsigned i = between(&m->random, 0, n);
        for (unsigned burst = between(&m->random, 1, 5); burst > 0 && live[i].next < live[i].n && rc == 0; burst--)
            rc = emit(m, &live[i]);
        if (live[i].next < live[i].n)
            continue;
        note_answer(m, &live[i]);
        if (m->out->packets < packets)
            play(m, &live[i], number++);
        else if (i != --n)
            live[i] = live[n];
    }
    m->out->connections = number;
    return rc;
}

int rebuild_capture_make(struct rebuild_capture *out, enum rebuild_kind kind, uint64_t packets)
{
    unsigned at_once = kind == REBUILD_BULK ? 64 : 512;
    struct connection *live = calloc(at_once, sizeof *live);
    struct maker *m = calloc(1, sizeof *m);
    int rc = -ENOMEM;

    *out = (struct rebuild_capture){ .bytes = MAP_FAILED, .at_once = at_once };
    if (live == NULL || m == NULL)
        goto out;
    *m = (struct maker){ .out = out, .kind = kind, .random = { kind + 1 }, .frames_max = packets + 1000000 };
    for (size_t i = 0; i < sizeof m->text; i++)
        m->text[i] = (uint8_t)mix(i % TEXT);
    out->mapped = m->frames_max * FRAME_MAX;
    out->frames = calloc(m->frames_max, sizeof *out->frames);
    /* Only what is written takes memory. */
    out->bytes = mmap(NULL, out->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (out->frames == NULL || out->bytes == MAP_FAILED)
        goto out;
    (void)madvise(out->bytes, out->mapped, MADV_HUGEPAGE);
    rc = interleave(m, live, at_once, packets);
out:
    free(live);
    free(m);
    if (rc < 0)
        rebuild_capture_free(out);
    return rc;
}

void rebuild_capture_free(struct rebuild_capture *c)
{
    if (c->bytes != MAP_FAILED)
        munmap(c->bytes, c->mapped);
    free(c->frames);
    *c = (struct rebuild_capture){ .bytes = MAP_FAILED };
}
