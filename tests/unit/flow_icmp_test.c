/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP errors: to which end of which flow they are told, and which of them are not believed. */
#include "flow/checksum.h"
#include "flow_half_lab.h"

static struct nst_icmp heard;
static enum nst_side heard_at;
static unsigned n_heard, n_other;
static enum nst_verdict answer_with;

static enum nst_verdict hear(struct nst_flow *f, const struct nst_event *ev)
{
    if (ev->what & NST_EV_ICMP) {
        check_eq(ev->what, NST_EV_ICMP);
        check_eq(ev->dir, NST_RECEIVED);
        check_eq(nst_packet_icmp(ev->packet, &heard), 0);
        heard_at = ev->side;
        n_heard++;
        return answer_with;
    }
    check_eq(nst_packet_icmp(ev->packet, &heard), -ENOENT);
    n_other++;
    return NST_FORWARD;
}

static void setup(uint8_t proto)
{
    if (proto == IPPROTO_UDP)
        setup_udp(hear);
    else
        setup_tcp(hear);
    for (unsigned side = 0; side < 2; side++) {
        nf.half[side].inspect = proto == IPPROTO_UDP ? &nst_udp : &nst_tcp;
        nf.half[side].handler = half_handler;
        nf.half[side].on_received = NST_EV_DATA | NST_EV_ICMP | NST_EV_CLOSE;
    }
    n_heard = n_other = 0;
    answer_with = NST_FORWARD;
}

/* Somebody tells the sender of a packet what became of it; `to` says who is told, `bytes` of the packet are quoted. */
static void send_error(const struct lab_path *path, unsigned sender, const uint8_t *packet, unsigned bytes,
                       uint8_t type, uint8_t code, uint32_t word, int32_t other_addressee)
{
    bool v4 = path->family == 4;
    struct lab_path router = *path;
    uint8_t frame[LAB_FRAME], pseudo[40] = { 0 };
    unsigned len = 8 + bytes;

    router.host[!sender] = 250;
    if (other_addressee)
        router.host[sender] = (uint32_t)other_addressee;
    unsigned at = lab_ip_header(frame, &router, !sender, v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6, len);
    uint8_t *icmp = frame + at;
    memset(icmp, 0, 8);
    icmp[0] = type;
    icmp[1] = code;
    word = rte_cpu_to_be_32(word);
    memcpy(icmp + 4, &word, 4);
    memcpy(icmp + 8, packet + 14 + 4u * path->tags, bytes);
    uint32_t sum = checksum_sum(icmp, len);
    if (!v4) {
        memcpy(pseudo, frame + at - 32, 32);
        pseudo[34] = (uint8_t)(len >> 8);
        pseudo[35] = (uint8_t)len;
        pseudo[39] = IPPROTO_ICMPV6;
        sum += checksum_sum(pseudo, 40);
    }
    uint16_t folded = (uint16_t) ~((sum & 0xffff) + (sum >> 16));
    memcpy(icmp + 2, &folded, 2);
    lab_send(!sender, frame, at + len);
}

/* ---- UDP: every type, both families, both ends ---- */
static void types_body(void)
{
    static const struct lab_path *const paths[] = { &lab_udp4, &lab_udp6 };
    uint8_t packet[LAB_FRAME];

    for (unsigned i = 0; i < 2; i++) {
        struct lab_path path = *paths[i];
        path.tags = 1;
        path.vlan[0] = 7;
        lab_send_udp(&path, C2S, "question", 8);
        lab_send_udp(&path, S2C, "answer", 6);
        lab_settle();
        lab_clear();
        for (unsigned sender = 0; sender < 2; sender++) {
            lab_udp_frame(packet, &path, sender, "question", 8);
            for (unsigned type = 0; type < 256; type++) {
                bool error =
                    i == 0 ? type == 3 || type == 4 || type == 5 || type == 11 || type == 12 : type >= 1 && type <= 4;
                unsigned before = n_heard;
                send_error(&path, sender, packet, (i == 0 ? 20 : 40) + 8, (uint8_t)type, 4, 1280, 0);
                lab_settle();
                check_eq(n_heard, before + error);
                check_eq(lab.n_out, 1);
                check_eq(lab.out[0].port, sender);
                lab_clear();
                if (!error)
                    continue;
                check_eq(heard_at, sender == 0 ? NST_CLIENT : NST_SERVER);
                check_eq(heard.type, type);
                check_eq(heard.code, 4);
                check_eq(heard.mtu, type == (i == 0 ? 3u : 2u) ? 1280 : 0);
            }
        }
        /* Quoted too little, another VLAN, an unknown flow: as any other protocol. */
        unsigned before = n_heard;
        lab_udp_frame(packet, &path, C2S, "question", 8);
        for (unsigned bytes = 0; bytes < (i == 0 ? 28 : 48); bytes++)
            send_error(&path, C2S, packet, bytes, i == 0 ? 3 : 1, 1, 0, 0);
        struct lab_path other = path;
        other.vlan[0] = 8;
        send_error(&other, C2S, packet, 60, i == 0 ? 3 : 1, 1, 0, 0);
        other = path;
        other.port[0]++;
        lab_udp_frame(packet, &other, C2S, "question", 8);
        send_error(&other, C2S, packet, 60, i == 0 ? 3 : 1, 1, 0, 0);
        lab_settle();
        check_eq(n_heard, before);
        check_eq(lab.n_out, (i == 0 ? 28 : 48) + 2);
        lab_clear();
    }
    check_eq(lab_stats().icmp, n_heard);
    check_eq(lab_stats().policy[NST_BY_ICMP], 0);
    check_eq(lab_stats().forwarded, lab_stats().packets);
}

static void every_type(void **state)
{
    setup(IPPROTO_UDP);
    lab_untrusted = true;
    lab_run(&config, types_body);
    lab_untrusted = false;
}

/* ---- TCP: what was never sent cannot have been lost ---- */
static void sequence_body(void)
{
    static const struct {
        uint32_t seq;
        bool believed;
    } cases[] = { { 100, false }, { 101, false }, { 104, false }, { 105, true },
                  { 108, true },  { 109, true },  { 110, false }, { 5000, false } };
    bool open = nf.policy.on_icmp == NST_FORWARD;
    uint8_t packet[LAB_FRAME];
    unsigned refused = 0;

    lab_handshake(&lab_tcp4, 100, 500);
    lab_data(&lab_tcp4, C2S, 101, 501, "1234");
    lab_send_tcp(&lab_tcp4, S2C, (struct lab_tcp){ .flags = ACK, .seq = 501, .ack = 105 });
    lab_data(&lab_tcp4, C2S, 105, 501, "5678");
    lab_settle();
    lab_clear();
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lab_tcp_frame(packet, &lab_tcp4, C2S, (struct lab_tcp){ .flags = ACK, .seq = cases[i].seq, .ack = 501 });
        unsigned before = n_heard;
        send_error(&lab_tcp4, C2S, packet, 28, 3, 1, 0, 0);
        lab_settle();
        check_eq(n_heard, before + cases[i].believed);
        check_eq(lab.n_out, cases[i].believed || open);
        refused += !cases[i].believed;
        lab_clear();
    }
    /* Told to somebody else than who sent it. */
    lab_tcp_frame(packet, &lab_tcp4, C2S, (struct lab_tcp){ .flags = ACK, .seq = 105, .ack = 501 });
    send_error(&lab_tcp4, C2S, packet, 28, 3, 1, 0, 77);
    lab_settle();
    refused++;
    check_eq(lab_stats().policy[NST_BY_ICMP], refused);
    check_eq(lab_stats().dropped[NST_BY_ICMP], open ? 0 : refused);
    /* The stream has not moved. */
    lab_clear();
    lab_data(&lab_tcp4, C2S, 109, 501, "9");
    lab_settle();
    check_eq(lab.n_out, 1);
    check_eq(lab_stats().conflicts, 0);
    check_eq(lab_stats().stream_bytes, 9);
}

static void sequence_numbers(void **state)
{
    for (unsigned open = 0; open < 2; open++) {
        setup(IPPROTO_TCP);
        nf.policy.on_icmp = open ? NST_FORWARD : 0;
        lab_run(&config, sequence_body);
    }
}

static void syn_body(void)
{
    uint8_t packet[LAB_FRAME];

    lab_send_tcp(&lab_tcp4, C2S, (struct lab_tcp){ .flags = SYN, .seq = 0xffffffff });
    lab_tcp_frame(packet, &lab_tcp4, C2S, (struct lab_tcp){ .flags = SYN, .seq = 0xffffffff });
    send_error(&lab_tcp4, C2S, packet, 28, 3, 1, 0, 0);
    lab_settle();
    check_eq(n_heard, 1);
    check_eq(heard_at, NST_CLIENT);
}

static void the_syn_is_unanswered(void **state)
{
    setup(IPPROTO_TCP);
    lab_run(&config, syn_body);
}

/* ---- verdicts, and a wrong checksum ---- */
static void verdicts_body(void)
{
    uint8_t packet[LAB_FRAME];

    lab_handshake(&lab_tcp4, 100, 500);
    lab_data(&lab_tcp4, C2S, 101, 501, "1234");
    lab_settle();
    lab_clear();
    lab_tcp_frame(packet, &lab_tcp4, C2S, (struct lab_tcp){ .flags = ACK, .seq = 101, .ack = 501 });
    answer_with = NST_DROP;
    send_error(&lab_tcp4, C2S, packet, 28, 3, 4, 1400, 0);
    lab_settle();
    check_eq(heard.mtu, 1400);
    check_eq(lab.n_out, 0);
    check_eq(lab_stats().dropped[NST_BY_VERDICT], 1);
    answer_with = NST_RESET_FLOW;
    send_error(&lab_tcp4, C2S, packet, 28, 3, 1, 0, 0);
    lab_settle();
    check_eq(lab_stats().dropped[NST_BY_FLOW_VERDICT], 1);
    check_eq(lab.n_out, 0); /* there is nothing to make a reset of */
    lab_data(&lab_tcp4, C2S, 105, 501, "5678");
    lab_settle();
    check_eq(lab_stats().dropped[NST_BY_FLOW_VERDICT], 2);
}

static void verdicts(void **state)
{
    setup(IPPROTO_TCP);
    lab_run(&config, verdicts_body);
}

static void waits_body(void)
{
    uint8_t packet[LAB_FRAME];

    /* A handler waits: the error waits behind it, in its place. */
    datagram(0, C2S, "a");
    lab_settle();
    check(answer[0].open);
    struct lab_path path = lab_udp4;
    lab_udp_frame(packet, &path, S2C, "x", 1);
    send_error(&path, S2C, packet, 28, 3, 1, 0, 0);
    datagram(0, C2S, "z");
    lab_settle();
    check_eq(lab.n_out, 0);
    check_eq(lab_stats().held, 2);
    lab_fulfil(&answer[0], NST_FORWARD);
    lab_settle();
    check_eq(lab.n_out, 3);
    check_eq(calls, 3);
    check_out(1, "a-z");
}

static void errors_wait_their_turn(void **state)
{
    setup_udp(waits);
    nf.half[NST_SERVER].on_received |= NST_EV_ICMP;
    lab_run(&config, waits_body);
}

static void unasked_body(void)
{
    uint8_t packet[LAB_FRAME];

    datagram(0, C2S, "x");
    lab_udp_frame(packet, &lab_udp4, C2S, "x", 1);
    send_error(&lab_udp4, C2S, packet, 28, 3, 1, 0, 0);
    send_error(&lab_udp4, C2S, packet, 28, 3, 1, 0, 77);
    lab_settle();
    check_eq(calls, 1);
    check_eq(lab.n_out, 3);
    check_eq(lab_stats().other_proto, 2);
}

static void nobody_asked(void **state)
{
    setup_udp(NULL);
    lab_run(&config, unasked_body);
}

static void wrong_sum_body(void)
{
    uint8_t packet[LAB_FRAME], frame[LAB_FRAME];

    datagram(0, C2S, "x");
    lab_udp_frame(packet, &lab_udp4, C2S, "x", 1);
    send_error(&lab_udp4, C2S, packet, 28, 3, 1, 0, 0);
    lab_settle();
    check_eq(n_heard, 1);
    memcpy(frame, lab.out[1].frame, lab.out[1].len);
    frame[lab.out[1].len - 1] ^= 1;
    lab_send(S2C, frame, lab.out[1].len);
    lab_settle();
    check_eq(n_heard, 1);
    check_eq(lab_stats().dropped[NST_BY_CHECKSUM], 1);
}

static void wrong_sums(void **state)
{
    setup(IPPROTO_UDP);
    lab_untrusted = true;
    lab_run(&config, wrong_sum_body);
    lab_untrusted = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type), cmocka_unit_test(sequence_numbers),       cmocka_unit_test(the_syn_is_unanswered),
        cmocka_unit_test(verdicts),   cmocka_unit_test(errors_wait_their_turn), cmocka_unit_test(nobody_asked),
        cmocka_unit_test(wrong_sums),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
