/* SPDX-License-Identifier: Apache-2.0 */
/* Editing, case by case: what leaves, what the sender hears, what is refused. Random streams are in flow_edit_sim_test.c.
 */
#include "flow_lab.h"
#include <netinet/in.h>
#include <netstar/edit.h>
#include <rte_ip.h>

static const struct lab_path *const path = &lab_tcp4;
static struct nst_flow *flow;
static enum nst_verdict verdict;
static int replaced;
static struct nst_packet *taken;

/* The handler does what the test says, to what the server receives. */
static struct edit_order {
    uint32_t at, remove; /* from where the packet's bytes begin */
    const char *text;
} order[4];
static unsigned n_orders;
static bool set_headers;

static enum nst_verdict edit_handler(struct nst_flow *f, const struct nst_event *ev)
{
    uint64_t from = nst_flow_proto(f) == IPPROTO_TCP ? nst_tcp_offset(f, ev->side) : 0;

    flow = f;
    replaced = 0;
    if (set_headers) {
        bool four = nst_packet_headers(ev->packet)->family == 4;
        const uint8_t address[16] = { 192, 0, 2, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 },
                      mac[6] = { 2, 1, 1, 1, 1, 1 };
        check_eq(nst_packet_set_address(ev->packet, NST_SOURCE, four ? 4 : 6, address), 0);
        check_eq(nst_packet_set_address(ev->packet, NST_SOURCE, four ? 6 : 4, address), -EINVAL);
        check_eq(nst_packet_set_port(ev->packet, NST_DESTINATION, 5353), 0);
        check_eq(nst_packet_set_mac(ev->packet, NST_DESTINATION, mac), 0);
        check_eq(nst_packet_set_ttl(ev->packet, 9), 0);
        check_eq(nst_packet_set_dscp(ev->packet, 46), 0);
        check_eq(nst_packet_set_dscp(ev->packet, 64), -EINVAL);
    }
    for (unsigned i = 0; i < n_orders && replaced == 0; i++)
        replaced =
            nst_flow_replace(f, ev->side, from + order[i].at, order[i].remove, order[i].text, strlen(order[i].text));
    n_orders = 0;
    if (verdict == NST_TAKEN)
        taken = nst_take(ev);
    return verdict;
}

static struct nst_nf nf;
static struct nst_engine_config config;

static void setup(bool udp)
{
    verdict = NST_FORWARD;
    n_orders = 0;
    nf = (struct nst_nf){
        .name = "edit",
        .half = { [NST_CLIENT] = { .inspect = udp ? &nst_udp : &nst_tcp, .edits = true },
                  [NST_SERVER] = { .inspect = udp ? &nst_udp : &nst_tcp,
                                   .on_received = NST_EV_DATA,
                                   .handler = edit_handler,
                                   .edits = true } },
    };
    config = (struct nst_engine_config){ .nf = &nf, .flows = 1024 };
}

static void client(uint32_t seq, const char *text)
{
    lab_clear();
    lab_data(path, C2S, seq, 501, text);
    lab_settle();
}

static void server_acks(uint32_t ack)
{
    lab_clear();
    lab_send_tcp(path, S2C, (struct lab_tcp){ .flags = ACK, .seq = 501, .ack = ack });
    lab_settle();
}

static uint32_t seq_of(unsigned i)
{
    return rte_be_to_cpu_32(lab.out[i].tcp->sent_seq);
}
static uint32_t ack_of(unsigned i)
{
    return rte_be_to_cpu_32(lab.out[i].tcp->recv_ack);
}

/* The i-th packet that left went to the server, with this text at seq. */
static void check_out(unsigned i, uint32_t seq, const char *text)
{
    check(i < lab.n_out);
    if (i >= lab.n_out)
        return;
    check_eq(lab.out[i].port, 1);
    check_eq(seq_of(i), seq);
    check_eq(lab.out[i].data_len, strlen(text));
    check(lab.out[i].data_len == strlen(text) && memcmp(lab.out[i].data, text, strlen(text)) == 0);
}

static void replace_body(void)
{
    lab_handshake(path, 100, 500);
    order[0] = (struct edit_order){ 3, 5, "a longer text" };
    n_orders = 1;
    client(101, "go ahead now");
    check_eq(replaced, 0);
    check_eq(lab.n_out, 1);
    check_out(0, 101, "go a longer text now");
    client(113, "more");
    check_out(0, 121, "more");
    /* The same bytes again, cut anew; and what was acknowledged in part. */
    client(105, "head");
    check_out(0, 104, "a longer text");
    server_acks(110);
    check_eq(ack_of(0), 104);
    server_acks(125);
    check_eq(ack_of(0), 117);
    /* What was edited is forgotten, and does not leave again: the receiver is asked for what it has. */
    client(101, "go ahead");
    check_out(0, 124, "");
    client(101, "go ahead now");
    check_out(0, 117, " now");
    /* Acknowledgments that newer ones have overtaken: exact as far as the map goes, and never before that. */
    server_acks(118);
    check_eq(ack_of(0), 110);
    server_acks(105);
    check_eq(ack_of(0), 109);
    /* A keep-alive still asks. */
    client(108, "");
    check_out(0, 116, "");
}

/* Edits whose sizes add up to nothing leave numbers as they are; bytes that are old must still not leave as they came. */
static void same_size_body(void)
{
    lab_handshake(path, 100, 500);
    order[0] = (struct edit_order){ 0, 6, "******" };
    n_orders = 1;
    client(101, "secret");
    check_out(0, 101, "******");
    server_acks(107);
    check_eq(ack_of(0), 107);
    client(101, "secret");
    check_eq(lab.n_out, 1);
    check_out(0, 106, "");
    client(105, "etc.");
    check_out(0, 107, "c.");
}

static void removed_body(void)
{
    lab_handshake(path, 100, 500);
    server_acks(101);
    order[0] = (struct edit_order){ 0, 6, "" };
    n_orders = 1;
    client(101, "secret");
    check_eq(lab.n_out, 2);
    check_out(1, 101, "");
    check_eq(lab.out[0].port, 0); /* to the sender, in the receiver's name */
    check_eq(ack_of(0), 107);
    check_eq(lab.out[0].tcp->tcp_flags, ACK);
    client(107, "rest");
    check_out(0, 101, "rest");
    server_acks(105);
    check_eq(ack_of(0), 111);
}

/* What is inserted is larger than the receiver's window: it leaves as that opens, and never beyond it. */
static void window_body(void)
{
    enum { SIZE = 100000, WINDOW = 5000 };
    static char text[SIZE + 1];
    uint32_t next = 101, acked = 101;
    uint8_t frame[200];

    for (unsigned i = 0; i < SIZE; i++)
        text[i] = (char)('a' + i % 23);
    lab_handshake(path, 100, 500);
    order[0] = (struct edit_order){ 1, 0, text };
    n_orders = 1;
    client(101, "<>");
    check_eq(replaced, 0);
    for (unsigned round = 0; round < 2 * SIZE / WINDOW && next != 101 + SIZE + 2; round++) {
        for (unsigned i = 0; i < lab.n_out; i++) {
            if (lab.out[i].port != 1 || lab.out[i].data_len == 0)
                continue;
            unsigned n = lab.out[i].data_len, at = seq_of(i) - 101;
            check_eq(seq_of(i), next);
            check(round == 0 ? n + next <= 101 + 0xffff : n + next <= acked + WINDOW);
            for (unsigned k = 0; k < n; k++)
                check_eq(lab.out[i].data[k], at + k == 0 ? '<' : at + k == SIZE + 1 ? '>' : text[at + k - 1]);
            next = seq_of(i) + n;
        }
        lab_clear();
        acked = next;
        unsigned len = lab_tcp_frame(frame, path, S2C, (struct lab_tcp){ .flags = ACK, .seq = 501, .ack = acked });
        frame[48] = WINDOW >> 8, frame[49] = WINDOW & 255;
        lab_checksum(frame, 0, 4, IPPROTO_TCP);
        lab_send(1, frame, len);
        lab_settle();
        check_eq(lab.out[0].port, 0);
        check_eq(ack_of(0), next == 101 + SIZE + 2 ? 103 : 102); /* the edit has '>' with it */
        check_eq(nst_sleep(nst_now() + NST_MS(2)), 0);
    }
    check_eq(next, 101 + SIZE + 2);
    lab_clear();
    client(102, ">"); /* again, when all of it has arrived */
    check_out(0, next - 1, "");
}

static void dropped_body(void)
{
    lab_handshake(path, 100, 500);
    order[0] = (struct edit_order){ 0, 1, "XXXX" };
    n_orders = 1;
    verdict = NST_DROP;
    client(101, "abc");
    check_eq(lab.n_out, 0);
    verdict = NST_FORWARD;
    client(101, "abc");
    check_out(0, 101, "abc");
    client(104, "d");
    check_out(0, 104, "d");
}

static void hole_body(void)
{
    lab_handshake(path, 100, 500);
    server_acks(101);
    client(104, "def");
    check_eq(lab.n_out, 1);
    check_eq(lab.out[0].port, 0);
    check_eq(ack_of(0), 101);
    check_eq(lab_stats().dropped[NST_BY_HELD_BACK], 1);
    order[0] = (struct edit_order){ 2, 2, "-" }; /* across what was kept and what fills the hole */
    n_orders = 1;
    client(101, "abc");
    check_eq(lab.n_out, 1);
    check_out(0, 101, "ab-ef");
}

static void refused_body(void)
{
    lab_handshake(path, 100, 500);
    order[0] = (struct edit_order){ 0, 9, "" };
    n_orders = 1;
    client(101, "abc");
    check_eq(replaced, -EINVAL);
    order[0] = (struct edit_order){ 0, 1, "0123456789" };
    n_orders = 1;
    client(104, "abc");
    check_eq(replaced, -ENOSPC);
    check_out(0, 104, "abc");
    check_eq(lab_stats().edits_refused, 1);
    order[0] = (struct edit_order){ 2, 0, "x" };
    order[1] = (struct edit_order){ 0, 1, "y" };
    n_orders = 2;
    client(107, "abc");
    check_eq(replaced, -EINVAL);
}

static void inject_body(void)
{
    lab_handshake(path, 100, 500);
    client(101, "abc");
    lab_clear();
    check_eq(nst_flow_inject(flow, NST_SERVER, "++", 2), 0);
    lab_settle();
    check_out(0, 104, "++");
    check_eq(ack_of(0), 501);
    client(104, "def");
    check_out(0, 106, "def");
    server_acks(104); /* the bytes of one's own are lost: they come again */
    check_eq(ack_of(0), 104);
    lab_clear();
    check_eq(nst_sleep(nst_now() + NST_MS(400)), 0);
    lab_settle();
    check(lab.n_out >= 1);
    check_out(0, 104, "++");
    server_acks(109);
    check_eq(ack_of(0), 107);
    lab_clear();
    check_eq(nst_flow_inject_reset(flow, NST_SERVER), 0);
    lab_settle();
    check_out(0, 109, "");
    check_eq(lab.out[0].tcp->tcp_flags, RST | ACK);
    /* To the client, whose own bytes go on after it. */
    lab_clear();
    check_eq(nst_flow_inject(flow, NST_CLIENT, "hi", 2), 0);
    lab_settle();
    check_eq(lab.out[0].port, 0);
    check_eq(seq_of(0), 501);
    check_eq(ack_of(0), 107);
}

static void took_body(void)
{
    lab_handshake(path, 100, 500);
    order[0] = (struct edit_order){ 0, 1, "12" };
    n_orders = 1;
    verdict = NST_TAKEN;
    client(101, "abc");
    check_eq(lab.n_out, 0);
    struct nst_packet *held = taken;
    verdict = NST_FORWARD;
    client(104, "def");
    check_out(0, 105, "def");
    lab_clear();
    check_eq(nst_packet_send(held, 1), 0);
    lab_settle();
    check_out(0, 101, "12bc");
}

static void datagram_body(void)
{
    order[0] = (struct edit_order){ 1, 1, "longer" };
    n_orders = 1;
    lab_send_udp(&lab_udp4, C2S, "abc", 3);
    lab_settle();
    check_eq(replaced, 0);
    check_eq(lab.n_out, 1);
    check(lab.out[0].data_len == 8 && memcmp(lab.out[0].data, "alongerc", 8) == 0);
    uint8_t copy[200];
    memcpy(copy, lab.out[0].frame, lab.out[0].len);
    lab_checksum(copy, 0, 4, IPPROTO_UDP);
    check(memcmp(copy, lab.out[0].frame, lab.out[0].len) == 0);
}

static void headers_body(void)
{
    const struct lab_path *both[] = { &lab_udp4, &lab_udp6 };

    set_headers = true;
    for (unsigned i = 0; i < 2; i++) {
        bool four = both[i]->family == 4;
        unsigned l4 = four ? 34 : 54;
        lab_clear();
        lab_send_udp(both[i], C2S, "abc", 3);
        lab_settle();
        check_eq(lab.n_out, 1);
        const uint8_t *d = lab.out[0].frame;
        check(memcmp(d, "\2\1\1\1\1\1", 6) == 0);
        check(memcmp(d + (four ? 26 : 22), "\300\0\2\11", 4) == 0);
        check_eq(d[l4 + 2] << 8 | d[l4 + 3], 5353);
        check_eq(four ? d[22] : d[21], 9);
        check_eq(four ? d[15] >> 2 : (d[14] & 15) << 2 | d[15] >> 6, 46);
        check(!four || rte_raw_cksum(d + 14, 20) == 0xffff);
        uint8_t copy[200];
        memcpy(copy, d, lab.out[0].len);
        lab_checksum(copy, 0, both[i]->family, IPPROTO_UDP);
        check(memcmp(copy, d, lab.out[0].len) == 0);
    }
    set_headers = false;
}

static void run_case(bool udp, void (*body)(void))
{
    setup(udp);
    lab_run(&config, body);
}
#define CASE(name, udp)             \
    static void name(void **state)  \
    {                               \
        run_case(udp, name##_body); \
    }
CASE(replace, false)
CASE(same_size, false)
CASE(removed, false)
CASE(window, false)
CASE(dropped, false)
CASE(hole, false)
CASE(inject, false)
CASE(took, false)
CASE(datagram, true)
CASE(headers, true)

static void refused(void **state)
{
    setup(false);
    config.edit_per_stream = 5 + 16; /* each counts 16 more */
    lab_run(&config, refused_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replace), cmocka_unit_test(same_size), cmocka_unit_test(removed), cmocka_unit_test(window),
        cmocka_unit_test(dropped), cmocka_unit_test(hole),      cmocka_unit_test(refused), cmocka_unit_test(inject),
        cmocka_unit_test(took),    cmocka_unit_test(datagram),  cmocka_unit_test(headers),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
