/* SPDX-License-Identifier: Apache-2.0 */
/* nst_tcp case by case: bytes. */
#include "flow_tcp_lab.h"

static void conflict_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "hello "));
    check(!data(1001, "jello "));
    check(data(1001, "hello "));
    check(!data(1003, "XXXXworld"));
    check(data(1007, "world"));
    check_text("hello world");
    struct nst_engine_stats s = lab_stats();
    check_eq(s.conflicts, 2);
    check_eq(s.dropped[NST_BY_CONFLICT], 2);
    check_eq(s.policy[NST_BY_CONFLICT], 2);
    /* Ahead of a hole as well: the first stays. */
    check(data(1015, "later"));
    check(!data(1015, "LATER"));
    check(data(1012, "abclater"));
    check_text("hello worldabclater");
    /* What is acknowledged is compared no more. */
    acks(1020);
    check_eq(lab_stats().stream_kept, 0);
    check(data(1001, "JELLO "));
    check_text("hello worldabclater");
    check_eq(lab_stats().conflicts, 3);
}

static void conflict_is_dropped(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, conflict_body);
}

static void conflict_open_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "hello "));
    check(data(1001, "jello "));
    check(data(1004, "XXXworld"));
    check_text("hello world");
    check_eq(lab_stats().stream_kept, 0);
}

/* on_conflict FORWARD: nothing is kept to compare with. */
static void conflict_open(void **state)
{
    setup_nf(NST_EV_DATA);
    nf.policy.on_conflict = NST_FORWARD;
    lab_run(&config, conflict_open_body);
}

static void conflict_registered_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "hello "));
    seen.verdict = NST_DROP;
    check(!data(1001, "jello world"));
    check_eq(seen.what[1], NST_EV_CONFLICT | NST_EV_RETRANSMIT | NST_EV_DATA);
    seen.verdict = NST_FORWARD;
    check(data(1001, "jello world"));
    check_eq(seen.what[2], NST_EV_CONFLICT | NST_EV_RETRANSMIT | NST_EV_DATA);
    check_text("hello world");
    check_eq(lab_stats().policy[NST_BY_CONFLICT], 0);
    check_eq(lab_stats().dropped[NST_BY_VERDICT], 1);
}

static void conflict_registered(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_CONFLICT | NST_EV_RETRANSMIT);
    lab_run(&config, conflict_registered_body);
}

static void dropped_bytes_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "one "));
    seen.verdict = NST_DROP;
    check(!data(1005, "two "));
    check(!data(1005, "two "));
    check_eq(seen.what[2], NST_EV_DATA); /* not seen before, as it never passed */
    check_eq(seen.offset[2], 4);
    seen.verdict = NST_FORWARD;
    /* Other bytes are no conflict: the first ones have gone nowhere. */
    check(data(1005, "TWO "));
    check_text("one TWO ");
    /* A dropped piece ahead of a hole is forgotten, too; one that fills a hole leaves what was kept. */
    check(data(1012, "four"));
    seen.verdict = NST_DROP;
    check(!data(1009, "3, four"));
    seen.verdict = NST_FORWARD;
    check(data(1009, "3: "));
    check_text("one TWO 3: four");
    check_eq(lab_stats().conflicts, 0);
    check_eq(lab_stats().stream_bytes, 15);
}

static void dropped_bytes_are_inspected_again(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, dropped_bytes_body);
}

static void dropped_gap_body(void)
{
    lab_handshake(path, 1000, 500);
    seen.verdict = NST_DROP;
    check(!data(1005, "BAD!"));
    check_eq(seen.what[0], NST_EV_GAP);
    check_eq(lab_stats().stream_kept, 0);
    seen.verdict = NST_FORWARD;
    check(data(1005, "good"));
    check(data(1001, "1234"));
    check_text("1234good");
}

static void dropped_gap_is_forgotten(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_GAP);
    lab_run(&config, dropped_gap_body);
}

static void limit_body(void)
{
    char text[101];

    memset(text, 'x', 100);
    text[100] = '\0';
    lab_handshake(path, 1000, 500);
    check(data(1101, text));
    check(data(1201, text));
    check(!data(1301, text)); /* 400 bytes would not be acknowledged */
    check_eq(lab_stats().dropped[NST_BY_STREAM_LIMIT], 1);
    check(!data(1001 + (1u << 30) + 100, "far")); /* no window reaches so far */
    check_eq(lab_stats().dropped[NST_BY_WINDOW], 1);
    check(data(1001, text));
    check_eq(seen.len, 300);
    /* Delivered bytes beyond the limit pass, but are not kept, and that is counted. */
    check(data(1301, text));
    check_eq(lab_stats().unkept_bytes, 100);
    check_eq(seen.len, 400);
    check(data(1301, "y")); /* nothing there to compare it with */
    check_eq(lab_stats().unverified, 1);
    acks(1401);
    check_eq(lab_stats().stream_kept, 0);
    check(data(1501, text));
    check(data(1401, text));
    check_eq(seen.len, 600);
}

static void limit_per_end_and_open(void **state)
{
    setup_nf(NST_EV_DATA);
    nf.policy.on_no_memory = NST_FORWARD;
    config.stream_per_end = 350;
    lab_run(&config, limit_body);
}

/* Closed: the end may have had no room for bytes, and take others in their place when they come again. */
static void closed_limit_body(void)
{
    char text[101];

    memset(text, 'x', 100);
    text[100] = '\0';
    lab_handshake(path, 1000, 500);
    check(data(1001, text));
    check(data(1101, text));
    check(!data(1201, text)); /* 300 bytes would not be acknowledged */
    check_eq(lab_stats().dropped[NST_BY_STREAM_LIMIT], 1);
    check_eq(seen.len, 200);
    check(!data(1101, "y")); /* those that passed are all there to be compared with */
    check_eq(lab_stats().dropped[NST_BY_CONFLICT], 1);
    acks(1101);
    check(data(1201, text));
    check_eq(seen.len, 300);
    acks(1301);
    /* What is ahead leaves the room of the hole. */
    check(data(1401, text));
    check(!data(1501, text));
    check(data(1301, text));
    check_eq(seen.len, 500);
    check_eq(lab_stats().unkept_bytes, 0);
}

static void limit_per_end(void **state)
{
    setup_nf(NST_EV_DATA);
    config.stream_per_end = 250;
    lab_run(&config, closed_limit_body);
}

static void memory_body(void)
{
    struct lab_path p = *path;
    enum { N = 200 };
    uint64_t passed = 0, one = 0;

    for (unsigned i = 0; i < N; i++) {
        p.port[0] = (uint16_t)(3000 + i);
        lab_handshake(&p, 1000, 500);
        lab_data(&p, C2S, 1101, 501, "ahead of a hole");
        lab_settle();
        passed += lab.n_out;
        if (i == 0)
            one = lab_stats().stream_kept;
    }
    check(one >= 15 && one <= 2048);
    check_eq(passed, 2048 / one * 3 / 4);
    check_eq(lab_stats().stream_kept, passed * one);
    check_eq(lab_stats().stream_kept_peak, passed * one);
    check_eq(lab_stats().dropped[NST_BY_STREAM_LIMIT], N - passed);
    /* The last quarter is for what is in order. */
    p.port[0] = 2999;
    lab_handshake(&p, 1000, 500);
    lab_data(&p, C2S, 1001, 501, "in order");
    lab_settle();
    check_eq(lab.n_out, 1);
}

static void limit_of_memory(void **state)
{
    setup_nf(NST_EV_DATA);
    config.stream_memory = 2048;
    lab_run(&config, memory_body);
}

/* ---- what stacks do ---- */
/* On its way nothing passes by this engine: an end that acknowledges what it cannot have is not believed. */
static void ahead_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "one "));
    acks(1050);
    check_eq(lab_stats().lost_bytes, 0);
    check_eq(lab_stats().stream_kept, 0);
    check(data(1005, "two"));
    check_text("one two");
}

static void nobody_acknowledges_what_is_to_come(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, ahead_body);
}

static void probes_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "hello"));
    acks(1006);
    /* Keep-alive: the number before the next one, with nothing or one byte of garbage. */
    check(data(1005, ""));
    check(data(1005, "?"));
    check_text("hello");
    check_eq(lab_stats().conflicts, 0);
    /* Zero window probe: one new byte, not taken; later it comes again with more. */
    check(data(1006, "w"));
    acks(1006);
    check(data(1006, "w"));
    check(data(1006, "world"));
    check_text("helloworld");
    acks(1011);
    check_eq(lab_stats().stream_kept, 0);
    check_eq(lab_stats().conflicts, 0);
}

static void probes(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, probes_body);
}

static void kept_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "first"));
    check(data(1006, "second"));
    size_t two = lab_stats().stream_kept;
    check(two > 0);
    acks(1008); /* in the middle of the second */
    check_eq(lab_stats().stream_kept, two / 2);
    acks(1012);
    check_eq(lab_stats().stream_kept, 0);
    check_eq(lab_stats().stream_kept_peak, two);
    acks(1006); /* an old one */
    acks(1012 + (1u << 31) + 5);
    check(data(1012, "third"));
    check_text("firstsecondthird");
    acks(1017);
    check_eq(lab_stats().stream_kept, 0);
}

static void unacknowledged_bytes_are_kept(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, kept_body);
}

/* The server's answers take another way: numbers go round more than once, and nothing is ever acknowledged. */
static uint64_t one_way_bytes;

static enum nst_verdict one_way_handler(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_slice s;

    check_eq(ev->what, NST_EV_DATA);
    check_eq(nst_tcp_offset(f, ev->side), one_way_bytes);
    while (nst_flow_bytes(f, ev->side, &s))
        one_way_bytes += s.len;
    return NST_FORWARD;
}

static void one_way_body(void)
{
    static uint8_t frame[70000], bytes[60000];
    unsigned len;

    lab_send_tcp(path, C2S, (struct lab_tcp){ .flags = SYN, .seq = 1000 });
    lab_settle();
    for (unsigned i = 0; i < 150000 && lab.failures == 0; i++) { /* nine thousand million bytes */
        memset(bytes, (int)i, 8);
        len = lab_ip_header(frame, path, C2S, IPPROTO_TCP, 20 + sizeof bytes);
        struct rte_tcp_hdr h = { .src_port = rte_cpu_to_be_16(path->port[0]),
                                 .dst_port = rte_cpu_to_be_16(path->port[1]),
                                 .sent_seq = rte_cpu_to_be_32(1001 + i * (uint32_t)sizeof bytes),
                                 .data_off = 5 << 4,
                                 .tcp_flags = ACK };
        memcpy(frame + len, &h, sizeof h);
        memcpy(frame + len + sizeof h, bytes, sizeof bytes);
        lab.pieces = 40;
        lab_send(C2S, frame, len + 20 + (unsigned)sizeof bytes);
        lab.pieces = 1;
        if (i % 16 == 15) {
            lab_settle();
            lab_clear();
        }
    }
    lab_settle();
    check_eq(one_way_bytes, 150000 * sizeof bytes);
    check_eq(lab_stats().conflicts, 0);
    check_eq(lab_stats().dropped[NST_BY_STREAM_LIMIT], 0);
}

static void one_direction_for_ever(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_RETRANSMIT | NST_EV_GAP);
    nf.half[NST_CLIENT].inspect = NULL;
    nf.half[NST_SERVER].handler = one_way_handler;
    one_way_bytes = 0;
    lab_run(&config, one_way_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conflict_is_dropped),
        cmocka_unit_test(conflict_open),
        cmocka_unit_test(conflict_registered),
        cmocka_unit_test(dropped_bytes_are_inspected_again),
        cmocka_unit_test(dropped_gap_is_forgotten),
        cmocka_unit_test(limit_per_end),
        cmocka_unit_test(limit_per_end_and_open),
        cmocka_unit_test(limit_of_memory),
        cmocka_unit_test(nobody_acknowledges_what_is_to_come),
        cmocka_unit_test(probes),
        cmocka_unit_test(unacknowledged_bytes_are_kept),
        cmocka_unit_test(one_direction_for_ever),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
