/* SPDX-License-Identifier: Apache-2.0 */
/* The checksum itself against a plain sum of words; which checksums count as right; what becomes of the others. */
#include "flow/checksum.h"
#include "flow/parse.h"
#include "flow_half_lab.h"

/* ---- the sum ---- */
static uint16_t plain_sum(const uint8_t *p, size_t n)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        sum += i % 2 == 0 ? p[i] : (uint32_t)p[i] << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)sum;
}

static void every_length_and_place(void **state)
{
    static uint8_t bytes[65536 + 64];
    uint64_t rnd = lab_seed();

    print_message("seed %llu\n", (unsigned long long)rnd);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)lab_random(&rnd, 256);
    for (unsigned len = 0; len < 300; len++)
        for (unsigned at = 0; at < 33; at++)
            assert_int_equal(checksum_sum(bytes + at, len) % 0xffff, plain_sum(bytes + at, len) % 0xffff);
    for (unsigned len = 65536; len > 65300; len--)
        assert_int_equal(checksum_sum(bytes + len % 7, len) % 0xffff, plain_sum(bytes + len % 7, len) % 0xffff);
    memset(bytes, 0xff, sizeof bytes);
    for (unsigned len = 2; len <= 65536; len = len * 2 + len % 3)
        assert_int_equal(checksum_sum(bytes, len & ~1u), 0xffff);
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(checksum_sum(bytes, 65536), 0);
}

/* ---- of packets ---- */
static bool right(const uint8_t *frame, unsigned len, unsigned pieces, bool capture)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(port_pool), *last = m;
    struct nst_headers h;
    struct flow_key key;
    bool from_b;
    unsigned first = pieces > 1 && len > 100 ? 100 : len;

    assert_non_null(m);
    memcpy(rte_pktmbuf_append(m, (uint16_t)first), frame, first);
    for (unsigned at = first; at < len;) {
        unsigned n = (len - at) / pieces | 1; /* odd, so that pieces begin within a word */
        n = n > len - at ? len - at : n;
        struct rte_mbuf *next = rte_pktmbuf_alloc(port_pool);
        assert_non_null(next);
        memcpy(rte_pktmbuf_append(next, (uint16_t)n), frame + at, n);
        last->next = next;
        last = next;
        m->nb_segs++;
        m->pkt_len += n;
        at += n;
    }
    assert_int_equal(parse_packet(m, &h, &key, &from_b), PARSED_FLOW);
    bool is = checksum_right(m, &h, capture);
    rte_pktmbuf_free(m);
    return is;
}

static unsigned build(uint8_t *frame, const struct lab_path *p, const uint8_t *data, unsigned len)
{
    return p->proto == IPPROTO_TCP
               ? lab_tcp_frame(frame, p, C2S, (struct lab_tcp){ .flags = ACK, .seq = 1, .data = data, .len = len })
               : lab_udp_frame(frame, p, C2S, data, len);
}

static void any_wrong_bit_is_seen(void **state)
{
    static const struct lab_path *const paths[] = { &lab_tcp4, &lab_tcp6, &lab_udp4, &lab_udp6 };
    uint8_t frame[LAB_FRAME], data[700];

    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 31 + 5);
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned n = 0; n < sizeof data; n += n < 80 ? 1 : 103) {
            unsigned len = build(frame, paths[i], data, n);
            for (unsigned pieces = 1; pieces < 5; pieces++)
                assert_true(right(frame, len, pieces, false));
            memset(frame + len, 0xa5, 7); /* the link's padding is not summed */
            assert_true(right(frame, len + 7, 1, false));
        }
        unsigned len = build(frame, paths[i], data, 61);
        unsigned l4 = paths[i]->family == 4 ? 34 : 54;
        for (unsigned at = l4; at < len; at++) {
            bool length = (paths[i]->proto == IPPROTO_TCP && at == l4 + 12) ||
                          (paths[i]->proto == IPPROTO_UDP && (at == l4 + 4 || at == l4 + 5));
            for (unsigned bit = 0; bit < 8 && !length; bit++) {
                frame[at] ^= (uint8_t)(1 << bit);
                assert_false(right(frame, len, 1, false));
                frame[at] ^= (uint8_t)(1 << bit);
            }
        }
        /* Addresses count twice in IPv4, time to live in its header. */
        frame[l4 - 1] ^= 1;
        assert_false(right(frame, len, 1, false));
        frame[l4 - 1] ^= 1;
        if (paths[i]->family == 4) {
            frame[22]--;
            assert_false(right(frame, len, 1, false));
        }
    }
}

static uint16_t pseudo_of(const uint8_t *frame, const struct lab_path *p, unsigned len)
{
    uint8_t pseudo[40] = { 0 };
    unsigned n = p->family == 4 ? 8 : 32, l4 = p->family == 4 ? 34 : 54;

    memcpy(pseudo, frame + (p->family == 4 ? 26 : 22), n);
    pseudo[n + 1] = p->proto;
    pseudo[n + 2] = (uint8_t)((len - l4) >> 8);
    pseudo[n + 3] = (uint8_t)(len - l4);
    return plain_sum(pseudo, n + 4);
}

/* What the sender's device was still to do is right in a capture, and nowhere else. */
static void left_to_the_device(void **state)
{
    static const struct lab_path *const paths[] = { &lab_tcp4, &lab_tcp6, &lab_udp4, &lab_udp6 };
    uint8_t frame[LAB_FRAME];

    for (unsigned i = 0; i < 4; i++) {
        unsigned len = build(frame, paths[i], (const uint8_t *)"some bytes", 10);
        unsigned field = (paths[i]->family == 4 ? 34 : 54) + (paths[i]->proto == IPPROTO_TCP ? 16 : 6);
        uint16_t sum = pseudo_of(frame, paths[i], len);
        memcpy(frame + field, &sum, 2);
        assert_true(right(frame, len, 1, true));
        assert_false(right(frame, len, 1, false));
        frame[field] ^= 4;
        assert_false(right(frame, len, 1, true));
        frame[field] ^= 4;
        if (paths[i]->family == 4) {
            frame[24] = frame[25] = 0;
            assert_true(right(frame, len, 1, true));
            assert_false(right(frame, len, 1, false));
        }
    }
}

/* UDP over IPv4 may have none; over IPv6 that is malformed, but for tunnels. */
static void no_checksum(void **state)
{
    struct lab_path p = lab_udp6;
    uint8_t frame[LAB_FRAME];
    unsigned len = build(frame, &lab_udp4, (const uint8_t *)"abc", 3);
    struct nst_headers h;
    struct flow_key key;
    bool from_b;

    frame[40] = frame[41] = 0;
    assert_true(right(frame, len, 1, false));
    for (unsigned i = 0; i < 2; i++) {
        p.port[1] = i == 0 ? 53 : 4789;
        len = build(frame, &p, (const uint8_t *)"abc", 3);
        frame[60] = frame[61] = 0;
        struct rte_mbuf *m = rte_pktmbuf_alloc(port_pool);
        memcpy(rte_pktmbuf_append(m, (uint16_t)len), frame, len);
        assert_int_equal(parse_packet(m, &h, &key, &from_b),
                         i == 0 ? parsed_fault(NST_FAULT_UDP_CHECKSUM) : PARSED_FLOW);
        rte_pktmbuf_free(m);
    }
}

/* Behind a routing header the addressee of the checksum is the last one (RFC 8200, 8.1). */
static void source_routes(void **state)
{
    enum { TYPES = 3 };
    static const uint8_t types[TYPES] = { 0, 2, 4 };

    for (unsigned t = 0; t < TYPES; t++) {
        for (unsigned left = 0; left < 2; left++) {
            uint8_t frame[LAB_FRAME], whole[LAB_FRAME];
            struct lab_path p = lab_tcp6;
            p.host[1] = 77; /* the last addressee */
            unsigned len = build(whole, &p, (const uint8_t *)"abcde", 5);
            unsigned n = types[t] == 2 ? 1 : 2, ext = 8 + 16 * n;
            memcpy(frame, whole, 54);
            frame[18] = 0;
            frame[19] = (uint8_t)(ext + 25);
            frame[20] = IPPROTO_ROUTING;
            memset(frame + 54, 0, ext);
            frame[54] = IPPROTO_TCP;
            frame[55] = (uint8_t)(ext / 8 - 1);
            frame[56] = types[t];
            frame[57] = (uint8_t)left;
            memcpy(frame + 62 + (types[t] == 0 ? 16 : 0), whole + 38, 16);
            memcpy(frame + 54 + ext, whole + 54, len - 54);
            if (left)
                frame[53] ^= 3; /* the next hop */
            assert_true(right(frame, len + ext, 1, false));
            frame[54 + ext + 21] ^= 1;
            assert_false(right(frame, len + ext, 1, false));
        }
    }
}

/* ---- in the engine ---- */
static enum nst_verdict count_only(struct nst_flow *f, const struct nst_event *ev)
{
    return NST_FORWARD;
}

static void send_changed(unsigned at, const char *text)
{
    uint8_t frame[LAB_FRAME];
    unsigned len = lab_udp_frame(frame, &lab_udp4, C2S, text, (unsigned)strlen(text));

    frame[at] ^= 1;
    lab_send(0, frame, len);
}

static void policy_body(void)
{
    bool open = nf.policy.on_checksum == NST_FORWARD;

    datagram(0, C2S, "a good one");
    send_changed(45, "wrong payload");
    send_changed(22, "wrong header");
    lab.sum_bad = true;
    datagram(0, C2S, "the device says so");
    lab.sum_bad = false;
    datagram(0, C2S, "good again");
    lab_settle();
    struct nst_engine_stats s = lab_stats();
    check_eq(calls, config.trust_checksums ? 4 : 2);
    check_eq(s.policy[NST_BY_CHECKSUM], config.trust_checksums ? 1 : 3);
    check_eq(s.dropped[NST_BY_CHECKSUM], open ? 0 : config.trust_checksums ? 1 : 3);
    check_eq(s.forwarded, 5 - s.dropped[NST_BY_CHECKSUM]);
    check_eq(s.flows_opened, 1);
}

static void policy_decides(void **state)
{
    for (unsigned trust = 0; trust < 2; trust++) {
        for (unsigned open = 0; open < 2; open++) {
            setup_udp(count_only);
            config.trust_checksums = trust;
            nf.policy.on_checksum = open ? NST_FORWARD : 0;
            lab_untrusted = true;
            lab_run(&config, policy_body);
            lab_untrusted = false;
        }
    }
}

static void trusted_body(void)
{
    send_changed(45, "wrong, and nobody looks");
    lab.sum_bad = true;
    datagram(0, C2S, "the device says so");
    lab_settle();
    check_eq(calls, 1);
    check_eq(lab_stats().dropped[NST_BY_CHECKSUM], 1);
}

/* A port that vouches is believed, both ways. */
static void port_is_trusted(void **state)
{
    setup_udp(count_only);
    lab_run(&config, trusted_body);
}

/* A segment with a wrong checksum does not move the stream: its receiver ignores it. */
static void stream_body(void)
{
    uint8_t frame[LAB_FRAME];
    unsigned len;

    lab_handshake(&lab_tcp4, 100, 500);
    len = lab_tcp_frame(frame, &lab_tcp4, C2S,
                        (struct lab_tcp){ .flags = PSH | ACK, .seq = 101, .ack = 501, .data = "evil", .len = 4 });
    frame[len - 1] ^= 0x40;
    lab_send(0, frame, len);
    lab_data(&lab_tcp4, C2S, 101, 501, "good");
    lab_settle();
    check_eq(lab.n_out, 1);
    check(memcmp(lab.out[0].data, "good", 4) == 0);
    check_eq(lab_stats().conflicts, 0);
    check_eq(lab_stats().stream_bytes, 4);
}

static void stream_stays(void **state)
{
    setup_tcp(count_only);
    lab_untrusted = true;
    lab_run(&config, stream_body);
    lab_untrusted = false;
}

static void replay_body(void)
{
    uint8_t frame[LAB_FRAME];
    unsigned len = lab_udp_frame(frame, &lab_udp4, C2S, "offloaded", 9);
    uint16_t sum = pseudo_of(frame, &lab_udp4, len);

    memcpy(frame + 40, &sum, 2);
    lab_send(0, frame, len);
    send_changed(45, "wrong");
    lab_settle();
    check_eq(calls, 1);
    check_eq(lab_stats().dropped[NST_BY_CHECKSUM], 1);
}

static void captures_show_offloads(void **state)
{
    setup_udp(count_only);
    lab_untrusted = true;
    lab_replay(&config, replay_body);
    lab_untrusted = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_and_place), cmocka_unit_test(any_wrong_bit_is_seen),
        cmocka_unit_test(left_to_the_device),     cmocka_unit_test(no_checksum),
        cmocka_unit_test(source_routes),          cmocka_unit_test(policy_decides),
        cmocka_unit_test(port_is_trusted),        cmocka_unit_test(stream_stays),
        cmocka_unit_test(captures_show_offloads),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
