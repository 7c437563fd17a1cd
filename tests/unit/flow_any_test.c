/* SPDX-License-Identifier: Apache-2.0 */
/* NFs that are for every IP protocol, and packets that are refused with an answer. */
#include "flow/checksum.h"
#include "flow_half_lab.h"

/* The last packet that the handler saw. */
static struct {
    uint8_t proto;
    enum nst_dir dir;
    struct nst_endpoint end[2];
    nst_events what;
} seen;
static unsigned n_seen;
static bool refuses;
static int answered;

static enum nst_verdict see(struct nst_flow *f, const struct nst_event *ev)
{
    seen.proto = nst_flow_proto(f);
    seen.dir = ev->dir;
    seen.what = ev->what;
    nst_flow_endpoint(f, NST_CLIENT, &seen.end[0]);
    nst_flow_endpoint(f, NST_SERVER, &seen.end[1]);
    n_seen++;
    if (!refuses)
        return NST_FORWARD;
    answered = nst_packet_refuse(ev);
    return NST_DROP;
}

static void setup(void)
{
    setup_udp(see);
    nf.proto = NST_PROTO_ANY;
    nf.half[NST_CLIENT] =
        (struct nst_half){ .on_sent = NST_EV_PACKET, .on_received = NST_EV_PACKET | NST_EV_ICMP, .handler = see };
    nf.half[NST_SERVER] = (struct nst_half){ .on_received = NST_EV_ICMP, .handler = see };
    n_seen = 0;
    refuses = false;
}

/* A packet of any protocol; of ICMP the checksum is filled in, and spoilt when `spoil` is set. */
static void send_ip(const struct lab_path *path, unsigned dir, uint8_t proto, const uint8_t *payload, unsigned len,
                    bool spoil)
{
    uint8_t frame[LAB_FRAME], pseudo[40] = { 0 };
    unsigned at = lab_ip_header(frame, path, dir, proto, len);

    memcpy(frame + at, payload, len);
    if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) {
        uint32_t sum;
        memset(frame + at + 2, 0, 2);
        sum = checksum_sum(frame + at, len);
        if (path->family == 6) {
            memcpy(pseudo, frame + at - 32, 32);
            pseudo[35] = (uint8_t)len;
            pseudo[39] = proto;
            sum += checksum_sum(pseudo, 40);
        }
        uint16_t folded = (uint16_t) ~((sum & 0xffff) + (sum >> 16));
        folded ^= spoil ? 1 : 0;
        memcpy(frame + at + 2, &folded, 2);
    }
    lab_send(dir, frame, at + len);
}

static void echo(const struct lab_path *path, unsigned dir, uint8_t type, uint16_t id)
{
    uint8_t m[16] = { type, 0, 0, 0, (uint8_t)(id >> 8), (uint8_t)id, 0, 1, 'p', 'i', 'n', 'g' };
    send_ip(path, dir, path->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6, m, sizeof m, false);
}

/* What the handler saw since it was asked last, and how many flows there are. */
static void check_seen(const char *file, int line, unsigned n, uint8_t proto, enum nst_dir dir, uint16_t port0,
                       uint16_t port1, unsigned flows)
{
    lab_settle();
    lab_equal(file, line, "seen", n_seen, n);
    lab_equal(file, line, "proto", seen.proto, proto);
    lab_equal(file, line, "dir", seen.dir, dir);
    lab_equal(file, line, "client", seen.end[0].port, port0);
    lab_equal(file, line, "server", seen.end[1].port, port1);
    lab_equal(file, line, "flows", lab_stats().flows, flows);
    n_seen = 0;
}
#define SEEN(...) check_seen(__FILE__, __LINE__, __VA_ARGS__)

static void keys_body(void)
{
    static const uint8_t gre[8] = { 0, 0, 8, 0, 1, 2, 3, 4 };
    static const struct lab_path *const paths[] = { &lab_udp4, &lab_udp6 };
    unsigned flows = 0;

    for (unsigned i = 0; i < 2; i++) {
        const struct lab_path *p = paths[i];
        uint8_t icmp = i == 0 ? IPPROTO_ICMP : IPPROTO_ICMPV6, request = i == 0 ? 8 : 128, reply = i == 0 ? 0 : 129;
        uint8_t other[8] = { i == 0 ? 13 : 130, 0, 0, 0, 0x12, 0x34, 0, 0 };
        echo(p, C2S, request, 0x1234);
        SEEN(1, icmp, NST_SENT, 0x1234, 0x1234, ++flows);
        echo(p, S2C, reply, 0x1234);
        SEEN(1, icmp, NST_RECEIVED, 0x1234, 0x1234, flows);
        echo(p, C2S, request, 0x1235);
        SEEN(1, icmp, NST_SENT, 0x1235, 0x1235, ++flows);
        /* Other messages: each direction for itself, and no identifier can be made to look like a type. */
        send_ip(p, C2S, icmp, other, sizeof other, false);
        SEEN(1, icmp, NST_SENT, other[0], (uint16_t)~other[0], ++flows);
        send_ip(p, S2C, icmp, other, sizeof other, false);
        SEEN(1, icmp, NST_SENT, other[0], (uint16_t)~other[0], ++flows);
        echo(p, C2S, request, other[0]);
        SEEN(1, icmp, NST_SENT, other[0], other[0], ++flows);
        echo(p, S2C, request, (uint16_t)~other[0]);
        SEEN(1, icmp, NST_SENT, (uint16_t)~other[0], (uint16_t)~other[0], ++flows);
        send_ip(p, S2C, IPPROTO_GRE, gre, sizeof gre, false);
        SEEN(1, IPPROTO_GRE, NST_SENT, 0, 0, ++flows);
        send_ip(p, C2S, IPPROTO_GRE, gre, sizeof gre, false);
        SEEN(1, IPPROTO_GRE, NST_RECEIVED, 0, 0, flows);
        send_ip(p, C2S, icmp, other, 4, false); /* too short to have an identifier */
        SEEN(1, icmp, NST_SENT, 0, 0, ++flows);
        lab_send_udp(p, C2S, "x", 1);
        SEEN(1, IPPROTO_UDP, NST_SENT, p->port[0], p->port[1], ++flows);
        lab_send_tcp(i == 0 ? &lab_tcp4 : &lab_tcp6, C2S, (struct lab_tcp){ .flags = SYN });
        SEEN(1, IPPROTO_TCP, NST_SENT, lab_tcp4.port[0], lab_tcp4.port[1], ++flows);
    }
    check_eq(lab_stats().other_proto, 0);
    check_eq(lab_stats().forwarded, lab_stats().packets);
}

static void keys(void **state)
{
    setup();
    lab_untrusted = true;
    lab_run(&config, keys_body);
    lab_untrusted = false;
}

static void nothing_slips_by_body(void)
{
    uint8_t frame[LAB_FRAME] = { 0 }, request[12] = { 8, 0, 0, 0, 0, 9 };

    /* A wrong checksum, IP that is cut short, and a fragment of what never becomes whole: no handler, and no way out. */
    send_ip(&lab_udp4, C2S, IPPROTO_ICMP, request, sizeof request, true);
    request[0] = 128;
    send_ip(&lab_udp6, C2S, IPPROTO_ICMPV6, request, sizeof request, true);
    lab_settle();
    check_eq(lab_stats().dropped[NST_BY_CHECKSUM], 2);
    unsigned at = lab_ip_header(frame, &lab_udp4, C2S, IPPROTO_GRE, 100);
    lab_send(C2S, frame, at + 50);
    lab_settle();
    check_eq(lab_stats().dropped[NST_BY_MALFORMED], 1);
    check_eq(lab.n_out, 0);
    check_eq(n_seen, 0);
    /* An ICMP error about nothing that is known is a flow of its own. */
    static const uint8_t unreachable[8] = { 3, 1 };
    send_ip(&lab_udp4, S2C, IPPROTO_ICMP, unreachable, sizeof unreachable, false);
    SEEN(1, IPPROTO_ICMP, NST_SENT, 3, (uint16_t)~3, 1);
    /* One about an echo request goes to whom that belongs to. */
    echo(&lab_udp4, C2S, 8, 77);
    SEEN(1, IPPROTO_ICMP, NST_SENT, 77, 77, 2);
    uint8_t error[8 + 28] = { 11, 0 };
    lab_ip_header(frame, &lab_udp4, C2S, IPPROTO_ICMP, 16);
    memcpy(error + 8, frame + 14, 20);
    error[8 + 20] = 8;
    error[8 + 20 + 5] = 77;
    send_ip(&lab_udp4, S2C, IPPROTO_ICMP, error, sizeof error, false);
    SEEN(1, IPPROTO_ICMP, NST_RECEIVED, 77, 77, 2);
    check_eq(seen.what, NST_EV_ICMP);
    /* What is not IP is nobody's. */
    memset(frame, 0, 60);
    frame[12] = 8;
    frame[13] = 6;
    lab_send(C2S, frame, 60);
    lab_settle();
    check_eq(n_seen, 0);
    check_eq(lab_stats().not_ip, 1);
}

static void nothing_slips_by(void **state)
{
    setup();
    lab_untrusted = true;
    lab_run(&config, nothing_slips_by_body);
    lab_untrusted = false;
}

/* ---- answers ---- */
static void check_icmp(const struct lab_out *out, const struct lab_path *path, const uint8_t *quoted, unsigned len)
{
    const uint8_t *ip = out->frame + 14, *icmp = ip + (path->family == 4 ? 20 : 40);
    unsigned most = path->family == 4 ? 576 - 28 : 1280 - 48, n = len < most ? len : most;
    uint8_t pseudo[40] = { 0 };
    uint32_t sum;

    check_eq(out->port, 0);
    check_eq(out->len, 14 + (path->family == 4 ? 28 : 48) + n);
    check_eq(icmp[0], path->family == 4 ? 3 : 1);
    check_eq(icmp[1], path->family == 4 ? 13 : 1);
    check(memcmp(icmp + 8, quoted, n) == 0);
    /* From whom it was for, to who sent it. */
    unsigned src = path->family == 4 ? 12 : 8, size = path->family == 4 ? 4 : 16;
    check(memcmp(ip + src, quoted + src + size, size) == 0);
    check(memcmp(ip + src + size, quoted + src, size) == 0);
    sum = checksum_sum(icmp, 8 + n);
    if (path->family == 6) {
        memcpy(pseudo, ip + 8, 32);
        pseudo[34] = (uint8_t)((8 + n) >> 8);
        pseudo[35] = (uint8_t)(8 + n);
        pseudo[39] = IPPROTO_ICMPV6;
        sum += checksum_sum(pseudo, 40);
    } else {
        check_eq(checksum_sum(ip, 20), 0xffff);
    }
    check_eq((uint16_t)((sum & 0xffff) + (sum >> 16)), 0xffff);
}

static void refused_body(void)
{
    static uint8_t data[1400];
    uint8_t frame[LAB_FRAME];
    static const struct lab_path *const udp[] = { &lab_udp4, &lab_udp6 }, *const tcp[] = { &lab_tcp4, &lab_tcp6 };

    refuses = true;
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned len = 1; len <= sizeof data; len += 233) {
            unsigned n = lab_udp_frame(frame, udp[i], C2S, data, len);
            lab_send(C2S, frame, n);
            lab_settle();
            check_eq(answered, 0);
            check_eq(lab.n_out, 1);
            check_icmp(&lab.out[0], udp[i], frame + 14, n - 14);
            lab_clear();
        }
        /* A SYN with data, and an ACK: RFC 9293, 3.10.7.1. */
        lab_send_tcp(tcp[i], C2S, (struct lab_tcp){ .flags = SYN, .seq = 1000, .data = "abc", .len = 3 });
        lab_send_tcp(tcp[i], C2S, (struct lab_tcp){ .flags = ACK, .seq = 2000, .ack = 4000 });
        lab_settle();
        check_eq(lab.n_out, 2);
        check_eq(lab.out[0].port, 0);
        check_eq(lab.out[0].tcp->tcp_flags, RST | ACK);
        check_eq(rte_be_to_cpu_32(lab.out[0].tcp->sent_seq), 0);
        check_eq(rte_be_to_cpu_32(lab.out[0].tcp->recv_ack), 1004);
        check_eq(rte_be_to_cpu_32(lab.out[1].tcp->sent_seq), 4000);
        lab_clear();
        lab_send_tcp(tcp[i], C2S, (struct lab_tcp){ .flags = RST, .seq = 2000 });
        lab_settle();
        check_eq(answered, -EOPNOTSUPP);
        check_eq(lab.n_out, 0);
    }
    /* To many. */
    unsigned n = lab_udp_frame(frame, &lab_udp4, C2S, "x", 1);
    frame[0] |= 1;
    lab_send(C2S, frame, n);
    lab_settle();
    check_eq(answered, -EOPNOTSUPP);
    check_eq(lab.n_out, 0);
}

static void refused(void **state)
{
    setup();
    lab_run(&config, refused_body);
}

static void flood_body(void)
{
    refuses = true;
    for (unsigned i = 0; i < 4000; i++)
        lab_send_udp(&lab_udp4, C2S, "x", 1);
    lab_settle();
    check_eq(answered, -EAGAIN);
    check(lab_stats().injected >= 1000 && lab_stats().injected < 2500);
    check_eq(lab_stats().dropped[NST_BY_VERDICT], 4000);
    lab_clear();
}

static void flood(void **state)
{
    setup();
    lab_run(&config, flood_body);
}

static void impossible(void **state)
{
    setup();
    nf.half[NST_CLIENT].inspect = &nst_tcp;
    struct nst_engine *e;
    assert_int_equal(nst_engine_open(&e, &config, NULL, 1), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys),  cmocka_unit_test(nothing_slips_by), cmocka_unit_test(refused),
        cmocka_unit_test(flood), cmocka_unit_test(impossible),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
