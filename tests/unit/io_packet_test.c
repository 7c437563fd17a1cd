/* SPDX-License-Identifier: Apache-2.0 */
/* Edits against checksums computed from nothing. */
#include "io/packet.h"
#include <netstar/edit.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <rte_udp.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

enum { ROOM = 2048, L3 = 18, TRAIL = 6 };

/* A packet outside of any pool. */
struct box {
    _Alignas(64) struct rte_mbuf m;
    uint8_t priv[NST_PACKET_PRIV];
    uint8_t room[ROOM];
};

static struct nst_packet *packet_in(struct box *b)
{
    memset(b, 0, sizeof *b);
    b->m.buf_addr = b->room;
    b->m.buf_len = ROOM;
    b->m.data_off = 128;
    b->m.nb_segs = 1;
    return packet_of(&b->m);
}

struct shape {
    int family;
    uint8_t proto;
    unsigned options; /* bytes of IPv4 options */
    unsigned payload;
    bool no_sum; /* UDP without a checksum */
};

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void refresh(struct nst_packet *p, const struct shape *s, bool check)
{
    uint8_t *d = rte_pktmbuf_mtod(mbuf_of(p), uint8_t *);
    const struct nst_headers *h = &p->h;
    size_t ip_at = h->l3 + 10u, l4_at = h->l4 + (s->proto == 17 ? 6u : 16u);
    uint8_t was_ip[2] = { d[ip_at], d[ip_at + 1] }, was_l4[2] = { d[l4_at], d[l4_at + 1] };
    uint16_t sum;

    if (s->family == 4) {
        memset(d + ip_at, 0, 2);
        sum = rte_ipv4_cksum((struct rte_ipv4_hdr *)(d + h->l3));
        memcpy(d + ip_at, &sum, 2);
        if (check)
            assert_memory_equal(was_ip, d + ip_at, 2);
    }
    if (s->no_sum) {
        if (check)
            assert_memory_equal(was_l4, "\0\0", 2);
        return;
    }
    memset(d + l4_at, 0, 2);
    if (s->family == 4)
        sum = rte_ipv4_udptcp_cksum((struct rte_ipv4_hdr *)(d + h->l3), d + h->l4);
    else
        sum = rte_ipv6_udptcp_cksum((struct rte_ipv6_hdr *)(d + h->l3), d + h->l4);
    memcpy(d + l4_at, &sum, 2);
    if (check)
        assert_memory_equal(was_l4, d + l4_at, 2);
}

/* Ethernet with one VLAN tag, IP, TCP or UDP, random bytes, and padding behind the IP packet. */
static struct nst_packet *make(struct box *b, const struct shape *s)
{
    struct nst_packet *p = packet_in(b);
    uint8_t *d = rte_pktmbuf_mtod(&b->m, uint8_t *);
    unsigned ip = s->family == 4 ? 20 + s->options : 40, l4 = s->proto == 17 ? 8 : 20;
    unsigned len = L3 + ip + l4 + s->payload + TRAIL;

    for (unsigned i = 0; i < len; i++)
        d[i] = (uint8_t)rand();
    b->m.data_len = (uint16_t)len;
    b->m.pkt_len = len;
    p->h = (struct nst_headers){
        .l3 = L3,
        .l4 = (uint16_t)(L3 + ip),
        .payload = (uint16_t)(L3 + ip + l4),
        .payload_len = (uint16_t)s->payload,
        .family = (uint8_t)s->family,
        .proto = s->proto,
        .vlan_tags = 1,
    };
    if (s->family == 4) {
        d[L3] = (uint8_t)(0x40 | ip / 4);
        put16(d + L3 + 2, ip + l4 + s->payload);
        put16(d + L3 + 6, 0);
        d[L3 + 9] = s->proto;
    } else {
        d[L3] = 0x60;
        put16(d + L3 + 4, l4 + s->payload);
        d[L3 + 6] = s->proto;
    }
    if (s->proto == 17) {
        put16(d + p->h.l4 + 4, l4 + s->payload);
        if (s->no_sum)
            put16(d + p->h.l4 + 6, 0);
    }
    refresh(p, s, false);
    return p;
}

/* Bytes that say what the packet is: an edit of these makes it another one. */
static bool structure(const struct nst_packet *p, const struct shape *s, size_t at)
{
    if (s->family == 4 && (at == L3 || at == L3 + 2 || at == L3 + 3 || at == L3 + 9))
        return true;
    if (s->family == 6 && at >= L3 && at < L3 + 7)
        return true;
    return s->proto == 17 && (at == p->h.l4 + 4u || at == p->h.l4 + 5u);
}

static const struct shape shapes[] = {
    { 4, 6, 0, 100, false }, { 4, 6, 0, 101, false }, { 4, 6, 8, 1, false },    { 4, 6, 40, 0, false },
    { 4, 17, 0, 33, false }, { 4, 17, 0, 0, false },  { 4, 17, 0, 50, true },   { 6, 6, 0, 77, false },
    { 6, 17, 0, 64, false }, { 6, 17, 0, 1, false },  { 4, 6, 0, 1400, false }, { 6, 6, 0, 1400, false },
};

static void edits_equal_full_computation(void **state)
{
    srand(4711);
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        const struct shape *s = &shapes[k];
        for (int round = 0; round < 2000; round++) {
            struct box b;
            struct nst_packet *p = make(&b, s);
            size_t len = nst_packet_len(p);
            uint8_t *d = rte_pktmbuf_mtod(&b.m, uint8_t *), bytes[ROOM], expected[ROOM];
            for (int edit = 0; edit < 3; edit++) {
                size_t off = (size_t)rand() % (len + 1), n = (size_t)rand() % (len - off + 1);
                if (round % 2 == 0 && n > 9)
                    n = 1 + n % 9;
                if (off + n > len)
                    n = len - off;
                for (size_t i = 0; i < n; i++)
                    bytes[i] = structure(p, s, off + i) ? d[off + i] : (uint8_t)(round % 3 ? rand() : rand() % 2 * 255);
                memcpy(expected, d, len);
                memcpy(expected + off, bytes, n);
                assert_int_equal(nst_packet_edit(p, off, bytes, n), 0);
                refresh(p, s, true);
                for (size_t i = 0; i < len; i++) {
                    bool sum =
                        (i >= L3 + 10 && i < L3 + 12 && s->family == 4) ||
                        (i >= p->h.l4 + (s->proto == 17 ? 6u : 16u) && i < p->h.l4 + (s->proto == 17 ? 8u : 18u));
                    if (!sum)
                        assert_int_equal(d[i], expected[i]);
                }
            }
        }
    }
}

/* Each single byte in turn, with each of some values. */
static void every_byte(void **state)
{
    for (size_t k = 0; k < 10; k++) {
        const struct shape *s = &shapes[k];
        struct box b;
        struct nst_packet *p = make(&b, s);
        for (size_t at = 0; at < nst_packet_len(p); at++) {
            static const uint8_t values[] = { 0, 1, 0x7f, 0x80, 0xff };
            if (structure(p, s, at))
                continue;
            for (size_t v = 0; v < sizeof values; v++) {
                assert_int_equal(nst_packet_edit(p, at, &values[v], 1), 0);
                refresh(p, s, true);
            }
        }
    }
}

/* The edits of a translator: whole addresses, ports, both, with words that make sums 0 and 0xffff. */
static void addresses_and_ports(void **state)
{
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        const struct shape *s = &shapes[k];
        unsigned at = L3 + (s->family == 4 ? 12 : 8), size = s->family == 4 ? 4 : 16;
        struct box b;
        struct nst_packet *p = make(&b, s);
        const struct {
            unsigned off, len;
        } fields[] = { { at, size },   { at + size, size }, { at, 2 * size }, { at + 2, 2 },
                       { p->h.l4, 2 }, { p->h.l4 + 2u, 2 }, { p->h.l4, 4 } };
        for (int round = 0; round < 3000; round++) {
            uint8_t bytes[32], *d = rte_pktmbuf_mtod(&b.m, uint8_t *);
            unsigned f = (unsigned)round % 7;
            memcpy(bytes, d + fields[f].off, sizeof bytes);
            for (unsigned i = 0; i < fields[f].len; i++) {
                int r = rand() % 6;
                if (r < 4)
                    bytes[i] = (uint8_t)(r == 0 ? 0 : r == 1 ? 255 : rand());
            }
            if (f < 2 && round % 2 == 0)
                assert_int_equal(
                    nst_packet_set_address(p, f == 0 ? NST_SOURCE : NST_DESTINATION, (uint8_t)s->family, bytes), 0);
            else if ((f == 4 || f == 5) && round % 2 == 0)
                assert_int_equal(
                    nst_packet_set_port(p, f == 4 ? NST_SOURCE : NST_DESTINATION, (uint16_t)(bytes[0] << 8 | bytes[1])),
                    0);
            else
                assert_int_equal(nst_packet_edit(p, fields[f].off, bytes, fields[f].len), 0);
            assert_memory_equal(d + fields[f].off, bytes, fields[f].len);
            refresh(p, s, true);
        }
        /* A port that makes the sum of UDP 0, which would say that there is none: it is sent as 0xffff. */
        uint8_t *d = rte_pktmbuf_mtod(&b.m, uint8_t *), *sum = d + p->h.l4 + (s->proto == 17 ? 6 : 16), port[2];
        for (unsigned v = 0; v < 65536 && !s->no_sum; v++) {
            put16(port, v);
            assert_int_equal(nst_packet_edit(p, p->h.l4, port, 2), 0);
            if (s->proto == 17)
                assert_int_not_equal(sum[0] | sum[1], 0);
            if (v % 251 == 0 || (sum[0] == sum[1] && (sum[0] == 0 || sum[0] == 255)))
                refresh(p, s, s->proto == 17 || sum[0] != 255);
        }
    }
}

static void outside_of_what_is_summed(void **state)
{
    struct box b, before;
    struct nst_packet *p = make(&b, &shapes[1]);
    memcpy(&before, &b, sizeof b);
    uint8_t mac[12] = { 2, 2, 2 }, tail[TRAIL] = { 9, 9, 9, 9, 9, 9 };
    const uint8_t *d = rte_pktmbuf_mtod(&b.m, uint8_t *);
    size_t len = nst_packet_len(p);

    assert_int_equal(nst_packet_edit(p, 0, mac, sizeof mac), 0);
    assert_int_equal(nst_packet_edit(p, len - TRAIL, tail, TRAIL), 0);
    assert_memory_equal(d, mac, sizeof mac);
    assert_memory_equal(d + len - TRAIL, tail, TRAIL);
    assert_memory_equal(d + sizeof mac, before.room + 128 + sizeof mac, len - TRAIL - sizeof mac);
}

/* A checksum that was wrong is not made right: the receiver must still see it. */
static void a_wrong_sum_stays_wrong(void **state)
{
    struct box b;
    struct nst_packet *p = make(&b, &shapes[0]);
    uint8_t *d = rte_pktmbuf_mtod(&b.m, uint8_t *), edited[60];
    uint32_t addr = 0x01020304;

    d[L3 + 10] ^= 0x10;
    assert_int_equal(nst_packet_edit(p, L3 + 12, &addr, 4), 0);
    memcpy(edited, d + L3, sizeof edited);
    refresh(p, &shapes[0], false); /* now all is right */
    assert_memory_not_equal(edited + 10, d + L3 + 10, 2);
    memcpy(edited + 10, d + L3 + 10, 2);
    assert_memory_equal(edited, d + L3, sizeof edited); /* TCP's was */
}

static void not_ip(void **state)
{
    struct box b;
    struct nst_packet *p = packet_in(&b);
    b.m.data_len = 60;
    b.m.pkt_len = 60;
    uint8_t bytes[60];
    memset(bytes, 0x45, sizeof bytes);

    assert_int_equal(nst_packet_edit(p, 0, bytes, 60), 0);
    assert_memory_equal(nst_packet_bytes(p, 0, 60), bytes, 60);
}

static void ranges(void **state)
{
    struct box b;
    struct nst_packet *p = make(&b, &shapes[0]);
    size_t len = nst_packet_len(p);
    uint8_t x[16] = { 0 };

    assert_int_equal(nst_packet_edit(p, len, x, 0), 0);
    assert_int_equal(nst_packet_edit(p, len, x, 1), -ERANGE);
    assert_int_equal(nst_packet_edit(p, len - 15, x, 16), -ERANGE);
    assert_int_equal(nst_packet_edit(p, len + 1, x, 0), -ERANGE);
    assert_int_equal(nst_packet_edit(p, SIZE_MAX, x, 2), -ERANGE);
    assert_int_equal(nst_packet_edit(p, 2, x, SIZE_MAX), -ERANGE);
    assert_non_null(nst_packet_bytes(p, 0, len));
    assert_non_null(nst_packet_bytes(p, len, 0));
    assert_null(nst_packet_bytes(p, 1, len));
    assert_null(nst_packet_bytes(p, SIZE_MAX, 2));
    assert_null(nst_packet_bytes(p, 2, SIZE_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edits_equal_full_computation),
        cmocka_unit_test(every_byte),
        cmocka_unit_test(addresses_and_ports),
        cmocka_unit_test(outside_of_what_is_summed),
        cmocka_unit_test(a_wrong_sum_stays_wrong),
        cmocka_unit_test(not_ip),
        cmocka_unit_test(ranges),
    };
    return cmocka_run_group_tests_name("io_packet", tests, NULL, NULL);
}
