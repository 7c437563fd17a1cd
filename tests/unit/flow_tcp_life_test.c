/* SPDX-License-Identifier: Apache-2.0 */
/* nst_tcp case by case: from SYN to FIN, RST and reuse; flows whose start was not seen. */
#include "flow_tcp_lab.h"

static void fin_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "bye"));
    seg(C2S, FIN | ACK, 1004, 501, "");
    acks(1005);
    /* Half closed: the server still talks. */
    seg(S2C, PSH | ACK, 501, 1005, "answer");
    lab_settle();
    check_eq(seen.closed, 0);
    seg(C2S, ACK, 1005, 507, "");
    seg(S2C, FIN | ACK, 507, 1005, "");
    seg(C2S, ACK, 1005, 508, "");
    lab_settle();
    check_text("bye");
    wait_for_close(1);
    check_eq(seen.why[0], NST_CLOSED_BY_FIN);
    check_eq(lab_stats().lost_bytes, 0);
    check_eq(lab_stats().stream_kept, 0);
}

static void fin_from_both(void **state)
{
    setup_nf(all_events);
    config.idle_closing = NST_MS(30);
    lab_run(&config, fin_body);
}

static void fin_with_data_body(void)
{
    lab_handshake(path, 1000, 500);
    seg(C2S, PSH | ACK | FIN, 1005, 501, "end"); /* behind a hole */
    seg(S2C, FIN | ACK, 501, 1001, "");
    lab_settle();
    check_text("");
    check(data(1001, "the "));
    check_text("the end");
    seg(C2S, ACK, 1009, 502, "");
    acks(1009);
    wait_for_close(1);
    check_eq(seen.why[0], NST_CLOSED_BY_FIN);
    check_eq(lab_stats().lost_bytes, 0);
}

static void fin_behind_a_hole(void **state)
{
    setup_nf(all_events);
    config.idle_closing = NST_MS(30);
    lab_run(&config, fin_with_data_body);
}

static void lying_fin_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "hello"));
    /* A FIN from before what was delivered ends nothing: its receiver has those bytes. */
    lab_clear();
    seg(C2S, FIN | ACK, 1001, 501, "");
    lab_settle();
    check_eq(lab.n_out, 0);
    check(data(1006, " world"));
    check_text("hello world");
    /* A FIN ahead of a hole may be lost on its way: what then is sent behind its place must not pass unseen. */
    lab_clear();
    seg(C2S, FIN | ACK, 1020, 501, "");
    lab_settle();
    check_eq(lab.n_out, 1);
    check(!data(1012, "12345678 and more"));
    check(!data(1020, "and more"));
    lab_clear();
    seg(C2S, FIN | ACK, 1025, 501, "");
    lab_settle();
    check_eq(lab.n_out, 0);
    check(data(1012, "12345678"));
    check_text("hello world12345678");
    check_eq(lab_stats().dropped[NST_BY_CONFLICT], 4);
}

static void fin_at_two_places(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, lying_fin_body);
}

static void rst_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "hello"));
    seg(C2S, RST, 1003, 0, ""); /* in the window, but its receiver answers that with a challenge */
    seg(C2S, RST, 990, 0, "");
    lab_settle();
    check_eq(nst_sleep(nst_now() + NST_MS(60)), 0);
    lab_settle();
    check_eq(seen.closed, 0);
    seg(C2S, RST, 1006, 0, "");
    lab_settle();
    wait_for_close(1);
    check_eq(seen.why[0], NST_CLOSED_BY_RST);
}

static void rst_closes(void **state)
{
    setup_nf(all_events);
    config.idle_closing = NST_MS(30);
    lab_run(&config, rst_body);
}

static void refused_body(void)
{
    seg(C2S, SYN, 1000, 0, "");
    seg(S2C, RST | ACK, 0, 1001, "");
    lab_settle();
    check_eq(lab.n_out, 2);
    wait_for_close(1);
    check_eq(seen.why[0], NST_CLOSED_BY_RST);
}

static void connection_refused(void **state)
{
    setup_nf(all_events);
    config.idle_closing = NST_MS(30);
    lab_run(&config, refused_body);
}

static void timeout_body(void)
{
    seg(C2S, SYN, 1000, 0, "");
    lab_settle();
    wait_for_close(1);
    check_eq(seen.why[0], NST_CLOSED_BY_TIMEOUT);
    lab_handshake(path, 1000, 500);
    check(data(1001, "hello"));
    check_eq(lab_stats().flows, 1);
    wait_for_close(2);
    check_eq(seen.why[1], NST_CLOSED_BY_TIMEOUT);
    lab_handshake(path, 1000, 500);
    check(data(1001, "hello")); /* and ended by the end of the laboratory */
}

static void idle_flows_close(void **state)
{
    setup_nf(all_events);
    config.idle_open = NST_MS(20);
    config.idle_established = NST_MS(40);
    lab_run(&config, timeout_body);
    assert_int_equal(seen.closed, 3);
    assert_int_equal(seen.why[2], NST_CLOSED_BY_SHUTDOWN);
}

static void reuse_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "one "));
    seg(C2S, FIN | ACK, 1005, 501, "");
    seg(S2C, FIN | ACK, 501, 1006, "");
    seg(C2S, ACK, 1006, 502, "");
    lab_settle();
    check_eq(seen.closed, 0);
    lab_handshake(path, 77000, 900);
    check_eq(seen.closed, 1);
    check_eq(seen.why[0], NST_CLOSED_BY_FIN);
    lab_data(path, C2S, 77001, 901, "two");
    lab_settle();
    check_text("one two");
    check_eq(seen.offset[seen.calls - 1], 0);
    check_eq(lab_stats().flows_opened, 2);
    check_eq(lab_stats().flows_closed, 1);
}

static void tuple_is_used_again(void **state)
{
    setup_nf(all_events);
    lab_run(&config, reuse_body);
}

/* From its handshake to its last acknowledgment, sent in one go. What one end sends in a row is one burst. */
static void short_connection(uint32_t client, uint32_t server, const char *text)
{
    uint32_t end = client + (uint32_t)strlen(text);

    seg(C2S, SYN, client - 1, 0, "");
    seg(C2S, SYN, client - 1, 0, "");
    seg(S2C, SYN | ACK, server - 1, client, "");
    seg(C2S, ACK, client, server, "");
    seg(C2S, PSH | ACK, client, server, text);
    seg(C2S, FIN | ACK, end, server, "");
    seg(S2C, FIN | ACK, server, end + 1, "");
    seg(C2S, ACK, end + 1, server + 1, "");
}

static void reuse_at_once_body(void)
{
    short_connection(1001, 501, "one ");
    lab_settle();
    check_eq(seen.closed, 0);
    /* What was looked up for this burst goes twice within it. */
    short_connection(77001, 901, "two ");
    short_connection(177001, 1901, "three");
    lab_settle();
    check_text("one two three");
    check_eq(seen.offset[seen.calls - 1], 0);
    check_eq(seen.closed, 2);
    check_eq(lab_stats().flows_opened, 3);
    check_eq(lab_stats().flows_closed, 2);
    check_eq(lab_stats().flows, 1);
    check_eq(lab_stats().forwarded, 24);
}

static void tuple_is_used_again_in_one_burst(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_CLOSE);
    lab_run(&config, reuse_at_once_body);
}

static void syn_data_body(void)
{
    seg(C2S, SYN, 1000, 0, "early ");
    lab_settle();
    check_text("early ");
    seg(S2C, SYN | ACK, 500, 1007, "");
    seg(C2S, ACK | PSH, 1007, 501, "bird");
    lab_settle();
    check_text("early bird");
    check_eq(lab_stats().conflicts, 0);
}

static void syn_with_data(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, syn_data_body);
}

static void syn_data_refused_body(void)
{
    seg(C2S, SYN, 1000, 0, "early ");
    seg(S2C, SYN | ACK, 500, 1001, ""); /* without the data, which comes once more */
    seg(C2S, ACK | PSH, 1001, 501, "early bird");
    lab_settle();
    check_text("early bird");
    check_eq(lab_stats().conflicts, 0);
}

static void syn_with_data_that_is_not_taken(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, syn_data_refused_body);
}

static void syn_retry_body(void)
{
    seg(C2S, SYN, 1000, 0, "");
    seg(C2S, SYN, 1000, 0, "");
    seg(C2S, SYN, 5000, 0, "");
    seg(S2C, SYN | ACK, 500, 5001, "");
    seg(C2S, ACK, 5001, 501, "");
    seg(C2S, ACK | PSH, 5001, 501, "hello");
    lab_settle();
    check_text("hello");
    check_eq(seen.what[0], NST_EV_OPEN);
    check_eq(seen.what[1], NST_EV_DATA);
    check_eq(seen.offset[1], 0);
    check_eq(lab_stats().flows_opened, 1);
}

static void syn_again_with_another_number(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_OPEN);
    lab_run(&config, syn_retry_body);
}

static void two_syns_body(void)
{
    seg(C2S, SYN, 1000, 0, "");
    seg(C2S, SYN, 5000, 0, "");
    seg(S2C, SYN | ACK, 500, 1001, ""); /* the first one was taken */
    seg(C2S, ACK, 1001, 501, "");
    seg(C2S, ACK | PSH, 1001, 501, "hello");
    lab_settle();
    check_text("hello");
}

static void the_answer_says_which_syn(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_OPEN);
    lab_run(&config, two_syns_body);
}

/* A SYN that the end does not take must not move the place from which its bytes are counted, nor bring a fresh start.
 */
static void late_syn_body(void)
{
    seg(C2S, SYN, 1000, 0, "");
    seg(S2C, SYN | ACK, 500, 1001, "");
    seg(C2S, SYN, 901000, 0, "");
    seg(S2C, ACK, 501, 1001, "");
    seg(C2S, ACK, 1001, 501, "");
    lab_settle();
    check(data(1001, "seen"));
    check_text("seen");
}

static void a_syn_after_the_answer(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, late_syn_body);
}

static void old_syn_data_body(void)
{
    seg(C2S, SYN, 1000000, 0, "x");
    seg(S2C, SYN | ACK, 500, 1000001, ""); /* without the byte */
    seg(C2S, RST, 1000001, 0, "");         /* so that this is the very number */
    seg(C2S, SYN, 900000, 0, "");
    seg(S2C, SYN | ACK, 600, 900001, "");
    seg(C2S, ACK, 900001, 601, "");
    lab_settle();
    seen.len = 0; /* forget the first byte */
    check(data(900001, "seen"));
    check_text("seen");
    check_eq(lab_stats().stream_kept_peak, 512);
}

static void a_new_answer_begins_anew(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, old_syn_data_body);
}

static void unanswered_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "ev"));
    acks(1003);
    seg(C2S, RST, 1003, 0, ""); /* with a wrong checksum, say: the server goes on */
    seg(C2S, SYN, 1002, 0, "");
    lab_settle();
    check(!data(1003, "il"));
    check(!data(1001, "evil"));
    check_eq(lab_stats().dropped[NST_BY_CONFLICT], 2);
    seg(S2C, ACK, 501, 1003, ""); /* what it answers to such a SYN */
    lab_settle();
    check(!data(1003, "il"));
    seg(S2C, SYN | ACK, 700, 1003, "");
    lab_settle();
    check(data(1003, "il"));
    check_text("evil");
}

static void bytes_before_the_answer(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, unanswered_body);
}

/* The client's end: what answers something else than its SYN, it ignores. */
static unsigned client_bytes;

static enum nst_verdict client_handler(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_slice s;

    while (nst_flow_bytes(f, ev->side, &s))
        client_bytes += (unsigned)s.len;
    return NST_FORWARD;
}

static void false_answer_body(void)
{
    seg(C2S, SYN, 1000, 0, "");
    seg(S2C, SYN | ACK, 905000, 777, "");
    seg(C2S, RST, 777, 0, "");
    seg(S2C, SYN | ACK, 5000, 1001, "");
    seg(S2C, SYN | ACK, 4000, 1001, ""); /* which of the two it takes, only its own ACK tells */
    seg(S2C, ACK, 4001, 1001, "early");
    lab_settle();
    check_eq(client_bytes, 0);
    seg(C2S, ACK, 1001, 4001, "");
    seg(S2C, ACK, 4001, 1001, "answer");
    lab_settle();
    check_eq(client_bytes, 6);
}

static void a_false_answer(void **state)
{
    setup_nf(NST_EV_DATA);
    nf.half[NST_CLIENT].on_received = NST_EV_DATA;
    nf.half[NST_CLIENT].handler = client_handler;
    client_bytes = 0;
    lab_run(&config, false_answer_body);
}

/* A stray packet makes a flow, but not its sender the server. */
static void stray_body(void)
{
    seg(C2S, SYN | ACK, 1000, 77, "");
    seg(S2C, RST, 77, 0, "");
    lab_settle();
    lab_handshake(path, 1000, 500);
    check(data(1001, "seen"));
    check_text("seen");
    check_eq(lab_stats().flows_opened, 2);
}

static void the_syn_says_who_is_the_client(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, stray_body);
}

static void open_body(void)
{
    seg(C2S, SYN, 1000, 0, "");
    seg(S2C, SYN | ACK, 500, 1001, "");
    lab_settle();
    check_eq(seen.calls, 0);
    seg(C2S, ACK | PSH, 1001, 501, "now");
    lab_settle();
    check_eq(seen.calls, 1);
    check_eq(seen.what[0], NST_EV_OPEN | NST_EV_DATA);
    check_text("now");
}

static void open_with_the_first_data(void **state)
{
    setup_nf(all_events);
    lab_run(&config, open_body);
}

/* ---- midstream ---- */
static void midstream_policy_body(void)
{
    check(!data(4001, "who knows"));
    check_eq(seen.calls, 0);
    check_eq(lab_stats().dropped[NST_BY_MIDSTREAM], 1);
    check_eq(lab_stats().policy[NST_BY_MIDSTREAM], 1);
}

static void midstream_is_dropped(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, midstream_policy_body);
}

static void midstream_open_body(void)
{
    check(data(4001, "from "));
    check(data(4006, "here"));
    check_text("from here");
    check_eq(seen.offset[0], 0);
    check_eq(seen.offset[1], 5);
    check_eq(lab_stats().policy[NST_BY_MIDSTREAM], 1);
    check_eq(seen.calls, 2);
}

static void midstream_is_followed(void **state)
{
    setup_nf(NST_EV_DATA);
    nf.policy.on_midstream = NST_FORWARD;
    nf.half[NST_CLIENT].inspect = NULL;
    lab_run(&config, midstream_open_body);
}

static void midstream_flow_body(void)
{
    check(data(4001, "from "));
    check(data(4006, "here"));
    check_text("");
    check_eq(seen.calls, 0);
    check_eq(lab_stats().policy[NST_BY_MIDSTREAM], 1);
}

static void midstream_leaves_the_flow(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_PACKET);
    nf.policy.on_midstream = NST_FORWARD_FLOW;
    lab_run(&config, midstream_flow_body);
}

static void pickup_body(void)
{
    seen.pickup = true;
    check(data(4001, "from "));
    check_eq(seen.what[0], NST_EV_MIDSTREAM | NST_EV_DATA);
    check(data(4006, "here"));
    check_eq(seen.what[1], NST_EV_DATA);
    check_text("from here");
    check_eq(lab_stats().policy[NST_BY_MIDSTREAM], 0);
}

static void midstream_pickup(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_MIDSTREAM);
    lab_run(&config, pickup_body);
}

static void resume_at_body(void)
{
    seen.resume = true;
    seen.resume_seq = 4001;
    seen.resume_offset = 3000000000000;
    check(data(4001, "right "));
    check_eq(seen.what[0], NST_EV_MIDSTREAM | NST_EV_DATA);
    check_eq(seen.offset[0], 3000000000000);
    check(data(4007, "here"));
    check_eq(seen.offset[1], 3000000000006);
    check_text("right here");
}

static void resume_right_there(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_MIDSTREAM);
    lab_run(&config, resume_at_body);
}

static void resume_older_body(void)
{
    /* The packet is ahead of what was recorded: the bytes between come again, or are known to be missing. */
    seen.resume = true;
    seen.resume_seq = 3997;
    seen.resume_offset = 50;
    check(data(4001, "there"));
    check_eq(seen.what[0], NST_EV_MIDSTREAM | NST_EV_GAP);
    check_text("");
    check(data(3997, "1234"));
    check_text("1234there");
    check_eq(seen.offset[1], 50);
}

static void resume_at_an_older_place(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_MIDSTREAM | NST_EV_GAP | NST_EV_RETRANSMIT);
    lab_run(&config, resume_older_body);
}

static void resume_newer_body(void)
{
    seen.resume = true;
    seen.resume_seq = 4004;
    seen.resume_offset = 50;
    check(data(4001, "abcdef"));
    check_eq(seen.what[0], NST_EV_MIDSTREAM | NST_EV_RETRANSMIT | NST_EV_DATA);
    check_eq(seen.offset[0], 50);
    check_text("def");
    check(data(4001, "abc")); /* all of it was seen by the other instance */
    check_eq(seen.what[1], NST_EV_RETRANSMIT);
    check_text("def");
}

static void resume_at_a_newer_place(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_MIDSTREAM | NST_EV_GAP | NST_EV_RETRANSMIT);
    lab_run(&config, resume_newer_body);
}

/* ---- who speaks in another's name ---- */
/* The client's neighbour acknowledges as if he were the server, so that other bytes could come for the same place. */
static void wrong_side_body(void)
{
    uint8_t frame[LAB_FRAME];

    lab_handshake(path, 1000, 500);
    check(data(1001, "good"));
    unsigned len = lab_tcp_frame(frame, path, S2C, (struct lab_tcp){ ACK, 501, 1005, NULL, 0 });
    lab_clear();
    lab_send(C2S, frame, len); /* by the client's port */
    lab_settle();
    if (nf.policy.on_conflict == NST_FORWARD) {
        check_eq(lab.n_out, 1);
        return;
    }
    check_eq(lab.n_out, 0);
    check_eq(lab_stats().dropped[NST_BY_CONFLICT], 1);
    check(!data(1001, "evil"));
    check_eq(lab_stats().dropped[NST_BY_CONFLICT], 2);
    acks(1005); /* the server itself */
    check(data(1005, " end"));
    check_text("good end");
}

static void an_end_stays_on_its_side(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, wrong_side_body);
    setup_nf(NST_EV_DATA);
    nf.policy.on_conflict = NST_FORWARD;
    lab_run(&config, wrong_side_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fin_from_both),
        cmocka_unit_test(fin_behind_a_hole),
        cmocka_unit_test(fin_at_two_places),
        cmocka_unit_test(rst_closes),
        cmocka_unit_test(connection_refused),
        cmocka_unit_test(idle_flows_close),
        cmocka_unit_test(tuple_is_used_again),
        cmocka_unit_test(tuple_is_used_again_in_one_burst),
        cmocka_unit_test(syn_with_data),
        cmocka_unit_test(syn_with_data_that_is_not_taken),
        cmocka_unit_test(syn_again_with_another_number),
        cmocka_unit_test(the_answer_says_which_syn),
        cmocka_unit_test(a_syn_after_the_answer),
        cmocka_unit_test(a_new_answer_begins_anew),
        cmocka_unit_test(bytes_before_the_answer),
        cmocka_unit_test(a_false_answer),
        cmocka_unit_test(the_syn_says_who_is_the_client),
        cmocka_unit_test(open_with_the_first_data),
        cmocka_unit_test(midstream_is_dropped),
        cmocka_unit_test(midstream_is_followed),
        cmocka_unit_test(midstream_leaves_the_flow),
        cmocka_unit_test(midstream_pickup),
        cmocka_unit_test(resume_right_there),
        cmocka_unit_test(resume_at_an_older_place),
        cmocka_unit_test(resume_at_a_newer_place),
        cmocka_unit_test(an_end_stays_on_its_side),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
