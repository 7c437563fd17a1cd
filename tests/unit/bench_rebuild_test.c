/* SPDX-License-Identifier: Apache-2.0 */
/* The captures that NetStar and libnids rebuild: that their frames are right, and that the answer which is kept with
 * them is what a receiver that takes each byte once gets. */
#include "rebuild_capture.h"
#include <rte_byteorder.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PACKETS = 8000, STREAM_MAX = 1 << 20, CONNECTIONS_MAX = 4096 };

/* One direction, as its receiver has it. */
struct stream {
    uint32_t base, upto; /* of the numbers; in the stream: everything before is there */
    uint8_t *bytes, *have;
    bool begun, ended;
};
struct connection {
    uint32_t client;
    uint16_t port;
    struct stream to[2]; /* to the server, to the client */
};
static struct connection connections[CONNECTIONS_MAX];

static struct stream *stream_of(uint32_t client, uint16_t port, bool to_client)
{
    unsigned i = 0;

    while (connections[i].port != 0 && (connections[i].client != client || connections[i].port != port)) {
        i++;
        assert_true(i < CONNECTIONS_MAX);
    }
    if (connections[i].port == 0)
        connections[i] = (struct connection){ .client = client, .port = port };
    return &connections[i].to[to_client];
}

static void receive(struct rebuild_answer *answer, struct stream *s, uint32_t client, uint16_t port, bool to_client,
                    uint32_t seq, const uint8_t *p, uint32_t len)
{
    uint32_t at = seq - s->base;

    assert_true(at + len <= STREAM_MAX);
    for (uint32_t i = 0; i < len; i++) {
        if (s->have[at + i])
            assert_int_equal(s->bytes[at + i], p[i]);
        s->bytes[at + i] = p[i];
        s->have[at + i] = 1;
    }
    while (s->have[s->upto]) {
        rebuild_answer_add(answer, client, port, to_client, s->upto, &s->bytes[s->upto], 1);
        s->upto++;
    }
}

static void take_frame(struct rebuild_answer *answer, const uint8_t *frame, uint32_t len)
{
    struct rte_ipv4_hdr ip;
    struct rte_tcp_hdr tcp;
    const uint8_t *l3 = frame + sizeof(struct rte_ether_hdr), *l4 = l3 + sizeof ip;

    memcpy(&ip, l3, sizeof ip);
    memcpy(&tcp, l4, sizeof tcp);
    assert_int_equal(rte_be_to_cpu_16(ip.total_length), len - sizeof(struct rte_ether_hdr));
    assert_int_equal(rte_ipv4_cksum(&ip), 0);
    uint8_t segment[1600];
    assert_true(len <= sizeof segment);
    memcpy(segment, l4, len - (size_t)(l4 - frame));
    memset(segment + offsetof(struct rte_tcp_hdr, cksum), 0, sizeof tcp.cksum);
    assert_int_equal(rte_ipv4_udptcp_cksum(&ip, segment), tcp.cksum);
    bool to_client = tcp.src_port == rte_cpu_to_be_16(80);
    uint32_t client = rte_be_to_cpu_32(to_client ? ip.dst_addr : ip.src_addr), header = tcp.data_off / 16u * 4;
    uint16_t port = rte_be_to_cpu_16(to_client ? tcp.dst_port : tcp.src_port);
    struct stream *s = stream_of(client, port, to_client), *back = stream_of(client, port, !to_client);
    uint32_t seq = rte_be_to_cpu_32(tcp.sent_seq);

    if (tcp.tcp_flags & RTE_TCP_SYN_FLAG) {
        assert_false(s->begun);
        *s = (struct stream){ seq + 1, 0, calloc(2, STREAM_MAX), NULL, true, false };
        assert_non_null(s->bytes);
        s->have = s->bytes + STREAM_MAX;
        return;
    }
    assert_true(s->begun && back->begun);
    receive(answer, s, client, port, to_client, seq, l4 + header, len - (uint32_t)(l4 + header - frame));
    /* Nobody acknowledges what has not been received. */
    assert_int_equal(rte_be_to_cpu_32(tcp.recv_ack), back->base + back->upto + back->ended);
    if (tcp.tcp_flags & RTE_TCP_FIN_FLAG) {
        assert_int_equal(seq - s->base, s->upto);
        s->ended = true;
    }
}

static void check_kind(enum rebuild_kind kind)
{
    struct rebuild_answer answer = { 0 };
    struct rebuild_capture c;
    uint64_t wire = 0;
    unsigned n = 0;

    memset(connections, 0, sizeof connections);
    assert_int_equal(rebuild_capture_make(&c, kind, PACKETS), 0);
    assert_true(c.packets >= PACKETS);
    for (uint64_t i = 0; i < c.packets; i++) {
        wire += c.frames[i].len;
        take_frame(&answer, rebuild_frame(&c, i), c.frames[i].len);
    }
    assert_int_equal(wire, c.wire_bytes);
    assert_int_equal(answer.bytes, c.answer.bytes);
    assert_int_equal(answer.sum, c.answer.sum);
    for (; connections[n].port != 0; n++) {
        for (unsigned to = 0; to < 2; to++) {
            assert_true(connections[n].to[to].ended);
            free(connections[n].to[to].bytes);
        }
    }
    assert_int_equal(n, c.connections);
    if (kind == REBUILD_LOSSY) {
        assert_true(c.late > PACKETS / 400 && c.resent > PACKETS / 400 && c.repeated > PACKETS / 400);
    } else {
        assert_int_equal(c.late + c.resent + c.repeated, 0);
    }
    rebuild_capture_free(&c);
}

static void http(void **state)
{
    check_kind(REBUILD_HTTP);
}

static void bulk(void **state)
{
    check_kind(REBUILD_BULK);
}

static void lossy(void **state)
{
    check_kind(REBUILD_LOSSY);
}

/* A byte that is misplaced, or another's, is seen. */
static void answers_differ(void **state)
{
    struct rebuild_answer a = { 0 }, b = { 0 };

    rebuild_answer_add(&a, 1, 2, true, 0, (const uint8_t *)"abcd", 4);
    rebuild_answer_add(&b, 1, 2, true, 2, (const uint8_t *)"cd", 2);
    rebuild_answer_add(&b, 1, 2, true, 0, (const uint8_t *)"ab", 2);
    assert_int_equal(a.bytes, b.bytes);
    assert_int_equal(a.sum, b.sum);
    b = (struct rebuild_answer){ 0 };
    rebuild_answer_add(&b, 1, 2, true, 0, (const uint8_t *)"bacd", 4);
    assert_int_not_equal(a.sum, b.sum);
    b = (struct rebuild_answer){ 0 };
    rebuild_answer_add(&b, 1, 2, false, 0, (const uint8_t *)"abcd", 4);
    assert_int_not_equal(a.sum, b.sum);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(http),
        cmocka_unit_test(bulk),
        cmocka_unit_test(lossy),
        cmocka_unit_test(answers_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
