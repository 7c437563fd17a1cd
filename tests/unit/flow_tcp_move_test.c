/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of which a part went by another instance: what ELSEWHERE tells, and what can be done then. */
#include "flow_tcp_lab.h"

static const nst_events moving = NST_EV_DATA | NST_EV_MIDSTREAM | NST_EV_ELSEWHERE | NST_EV_CLOSE;

static void setup_moving(void)
{
    setup_nf(moving);
}

/* The record that the handler finds. */
static void record(uint32_t seq, uint64_t offset)
{
    seen.resume = true;
    seen.resume_seq = seq;
    seen.resume_offset = offset;
}

static void no_record(void)
{
    seen.resume = false;
}

static uint64_t dropped(enum nst_cause cause)
{
    return lab_stats().dropped[cause];
}

/* ---- what is told ---- */
static void told_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "abcd"));
    check_eq(seen.calls, 1);
    check_eq(seen.what[0], NST_EV_DATA);
    check(data(1001, "abcd")); /* not acknowledged yet: a retransmission */
    check_eq(seen.calls, 1);
    acks(1005);
    check(data(1003, "cdef")); /* of which a part is new */
    check_eq(seen.calls, 2);
    check_eq(seen.what[1], NST_EV_DATA);
    check(data(1001, "abcd")); /* the end has it all */
    check_eq(seen.calls, 3);
    check_eq(seen.what[2], NST_EV_ELSEWHERE);
    check(data(1010, "jk"));
    check_eq(seen.calls, 4);
    check_eq(seen.what[3], NST_EV_ELSEWHERE);
    check(data(1010, "jk")); /* and each time */
    check_eq(seen.calls, 5);
    check(data(1007, "ghi"));
    check_eq(seen.what[5], NST_EV_DATA);
    check_text("abcdefghijk");
    seg(C2S, ACK | FIN, 1020, 501, "");
    lab_settle();
    check_eq(seen.what[6], NST_EV_ELSEWHERE);
    seg(C2S, ACK, 1020, 501, ""); /* says nothing of bytes */
    lab_settle();
    check_eq(seen.calls, 7);
    check_eq(lab_stats().elsewhere, 4);
    check_eq(lab_stats().moved, 0);
}

static void it_is_told(void **state)
{
    setup_moving();
    lab_run(&config, told_body);
}

/* ---- a move back: this instance stands where it once was ---- */
static void back_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "abcd"));
    acks(1005);
    /* [1005, 1010) went by another. */
    record(1010, 9);
    check(data(1010, "jkl"));
    check_eq(seen.what[1], NST_EV_ELSEWHERE | NST_EV_DATA);
    check_eq(seen.offset[1], 9);
    check_text("abcdjkl");
    no_record();
    check(data(1013, "mn"));
    check_eq(seen.what[2], NST_EV_DATA);
    check_eq(seen.offset[2], 12);
    check_text("abcdjklmn");
    acks(1015);
    check_eq(lab_stats().acks_ignored, 0);
    check_eq(lab_stats().moved, 1);
    check_eq(lab_stats().unverified, 0);
}

static void a_move_back(void **state)
{
    setup_moving();
    lab_run(&config, back_body);
}

/* Bytes that went ahead by here are delivered when the record has come to them. */
static void reached_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1005, "efgh"));
    check(data(1011, "kl"));
    record(1005, 4);
    check(data(1009, "ij"));
    check_eq(seen.what[2], NST_EV_ELSEWHERE | NST_EV_GAP | NST_EV_DATA);
    check_text("efghijkl");
    check_eq(lab_stats().conflicts, 0);
    record(1013, 12);
    check(!data(1011, "KL")); /* other bytes for them */
    check_eq(seen.calls, 3);  /* not looked at as acknowledged, so a conflict, which is not registered */
    check_eq(dropped(NST_BY_CONFLICT), 1);
}

static void bytes_that_went_ahead(void **state)
{
    setup_moving();
    lab_run(&config, reached_body);
}

/* So far on that its number is one of before: what was kept then is not of this stream any more. */
static void far_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1022, "old"));
    record(1020, (UINT64_C(1) << 32) + 19);
    check(data(1020, "ab"));
    check_eq(seen.offset[1], (UINT64_C(1) << 32) + 19);
    check_text("ab");
    no_record();
    check(data(1022, "new"));
    check_text("abnew");
    check_eq(lab_stats().conflicts, 0);
}

static void once_around(void **state)
{
    setup_moving();
    lab_run(&config, far_body);
}

/* It never goes back, and a verdict that drops takes back no more than the packet. */
static void forward_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "abcd"));
    record(1003, 2);
    check(data(1010, "jkl"));
    check_eq(seen.resumed, 0);
    check_eq(seen.what[1], NST_EV_ELSEWHERE);
    record(1010, 9);
    seen.verdict = NST_DROP;
    check(!data(1010, "jkl"));
    check_eq(seen.what[2], NST_EV_ELSEWHERE | NST_EV_DATA);
    seen.verdict = NST_FORWARD;
    no_record();
    check(data(1010, "jkl"));
    check_eq(seen.what[3], NST_EV_DATA);
    check_eq(seen.offset[3], 9);
    check_text("abcdjkl");
}

static void only_forward(void **state)
{
    setup_moving();
    lab_run(&config, forward_body);
}

/* ---- another connection on the same tuple, whose beginning went elsewhere ---- */
static void another_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "abcd"));
    check(data(1009, "ij"));
    record(70000, 3); /* byte 0 was 69997 */
    check(data(70000, "new"));
    check_text("abcdnew");
    check_eq(seen.offset[2], 3);
    no_record();
    check(data(70003, "er"));
    check_text("abcdnewer");
}

static void another_connection(void **state)
{
    setup_moving();
    lab_run(&config, another_body);
}

/* ---- what would have been dropped ---- */
static void window_body(void)
{
    enum { BYTES = 512 };
    static char many[BYTES + 1];

    lab_handshake(path, 1000, 500); /* each has offered what the lab offers */
    memset(many, 'x', BYTES);
    check(data(1001, "abcd"));
    uint32_t far = 1001 + (1 << 17); /* beyond any window without scaling */
    check(!data(far, "zz"));
    check_eq(seen.what[1], NST_EV_ELSEWHERE);
    check_eq(dropped(NST_BY_WINDOW), 1);
    check_eq(lab_stats().policy[NST_BY_WINDOW], 1);
    check_text("abcd");
    record(far, far - 1001);
    check(data(far, "zz"));
    check_eq(seen.what[2], NST_EV_ELSEWHERE | NST_EV_DATA);
    check_eq(dropped(NST_BY_WINDOW), 1);
    check_eq(lab_stats().policy[NST_BY_WINDOW], 1);
    check_text("abcdzz");
    no_record();
    check(data(far + 2, many)); /* how large the window is now nobody knows */
    check_eq(dropped(NST_BY_WINDOW), 1);
}

static void beyond_the_window(void **state)
{
    setup_moving();
    lab_run(&config, window_body);
}

static void same_place_body(void)
{
    lab_handshake(path, 1000, 500);
    uint32_t far = 1001 + (1 << 17);
    record(1001, 0);
    check(data(far, "zz")); /* behind a hole, in a window that others have heard of */
    check_eq(seen.what[0], NST_EV_ELSEWHERE | NST_EV_GAP);
    check_eq(lab_stats().moved, 0);
    check_eq(dropped(NST_BY_WINDOW), 0);
}

static void the_window_is_not_known(void **state)
{
    setup_moving();
    lab_run(&config, same_place_body);
}

/* There is no room to keep it, however often it is looked at: no policy is asked, and none is counted. */
static void limit_body(void)
{
    static char many[101];
    uint32_t at = 1002;

    memset(many, 'x', 100);
    lab_handshake(path, 1000, 500);
    while (data(at, many) && at < 60000) /* behind a hole of one byte */
        at += 100;
    check(dropped(NST_BY_STREAM_LIMIT) == 1);
    seen.sent_upto = 501;
    record(1001, 0);
    check(!data(at, many));
    check(seen.what[seen.calls - 1] & NST_EV_ELSEWHERE);
    check_eq(dropped(NST_BY_STREAM_LIMIT), 2);
    check_eq(lab_stats().policy[NST_BY_STREAM_LIMIT], 0);
    seen.sent_upto = 0;
    no_record();
    check(data(1001, "y")); /* and when the end has what there was, there is */
    seen.len = 0;
    acks(at);
    check(data(at, many));
}

static void no_room(void **state)
{
    setup_moving();
    config.stream_per_end = 1024;
    lab_run(&config, limit_body);
}

static void ack_body(void)
{
    lab_handshake(path, 1000, 500);
    lab_clear();
    seg(C2S, ACK, 1001, 900, "abcd"); /* of what the server has not sent by here */
    lab_settle();
    check_eq(lab.n_out, 0);
    check_eq(seen.what[0], NST_EV_ELSEWHERE);
    check_eq(dropped(NST_BY_BAD_ACK), 1);
    seen.sent_upto = 899;
    seg(C2S, ACK, 1001, 900, "abcd");
    lab_settle();
    check_eq(lab.n_out, 0);
    check_eq(dropped(NST_BY_BAD_ACK), 2);
    seen.sent_upto = 900;
    seg(C2S, ACK, 1001, 900, "abcd");
    lab_settle();
    check_eq(lab.n_out, 1);
    check_text("abcd");
    check_eq(seen.what[2] & NST_EV_DATA, NST_EV_DATA);
    seen.sent_upto = 0;
    lab_clear();
    seg(C2S, ACK, 1005, 1200, "ef"); /* from now on that is not known here */
    lab_settle();
    check_eq(lab.n_out, 1);
    check_text("abcdef");
    check_eq(dropped(NST_BY_BAD_ACK), 2);
    check_eq(lab_stats().policy[NST_BY_BAD_ACK], 2);
}

static void acknowledgments(void **state)
{
    setup_moving();
    lab_run(&config, ack_body);
}

/* Without the registration everything is as it was. */
static void silent_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "abcd"));
    acks(1005);
    check(data(1001, "abcd"));
    check(!data(1001 + (1 << 17), "zz"));
    check_eq(dropped(NST_BY_WINDOW), 1);
    check_eq(seen.calls, 1);
    check_eq(lab_stats().elsewhere, 0);
}

static void nobody_asks(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, silent_body);
}

/* ---- bytes that went another way, behind a hole ---- */
static void keep_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "abcd"));
    seen.keep = "ghij";
    seen.keep_seq = 1007;
    record(1005, 4);
    check(data(1021, "uv"));
    check_eq(seen.kept, 0);
    check_eq(seen.what[1], NST_EV_ELSEWHERE | NST_EV_GAP);
    seen.keep = NULL;
    no_record();
    check(!data(1007, "gHij")); /* other bytes for that place */
    check_eq(dropped(NST_BY_CONFLICT), 1);
    check(data(1005, "ef"));
    check_eq(seen.what[seen.calls - 1], NST_EV_DATA);
    check_text("abcdefghij");
    /* What was delivered, and what is kept, is not kept again. */
    seen.keep = "efghij";
    seen.keep_seq = 1005;
    check(data(1021, "uv"));
    check_eq(seen.kept, 0);
    seen.keep = NULL;
    check(data(1011, "klmnopqrst"));
    check_text("abcdefghijklmnopqrstuv");
    check_eq(lab_stats().unverified, 0);
}

static void bytes_of_another_way(void **state)
{
    setup_moving();
    lab_run(&config, keep_body);
}

/* A take-over behind segments that had passed ahead of a lost one. */
static void taken_over_body(void)
{
    record(4001, 100);
    check(data(4020, "uv"));
    check_eq(seen.what[0], NST_EV_MIDSTREAM | NST_EV_ELSEWHERE | NST_EV_GAP);
    seen.keep = "efgh";
    seen.keep_seq = 4005;
    check(data(4030, "xy"));
    check_eq(seen.kept, 0);
    seen.keep = NULL;
    check(data(4001, "abcd"));
    check_eq(seen.what[2], NST_EV_DATA);
    check_eq(seen.offset[2], 100);
    check_text("abcdefgh");
}

static void a_take_over(void **state)
{
    setup_moving();
    lab_run(&config, taken_over_body);
}

/* A FIN that went by here before its bytes went elsewhere. */
static void fin_body(void)
{
    lab_handshake(path, 1000, 500);
    seg(C2S, ACK | FIN, 1005, 501, "");
    lab_settle();
    check_eq(seen.what[0], NST_EV_ELSEWHERE);
    record(1005, 4);
    seg(C2S, ACK | FIN, 1005, 501, "");
    lab_settle();
    check_eq(lab_stats().moved, 1);
    check_eq(seen.resumed & NST_EV_FIN, NST_EV_FIN);
    seg(S2C, ACK | FIN, 501, 1006, "");
    seg(C2S, ACK, 1006, 502, "");
    lab_settle();
    wait_for_close(1);
    check_eq(seen.why[0], NST_CLOSED_BY_FIN);
}

static void a_fin_alone(void **state)
{
    setup_moving();
    config.idle_closing = NST_MS(30);
    lab_run(&config, fin_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_told),
        cmocka_unit_test(a_move_back),
        cmocka_unit_test(bytes_that_went_ahead),
        cmocka_unit_test(once_around),
        cmocka_unit_test(only_forward),
        cmocka_unit_test(another_connection),
        cmocka_unit_test(beyond_the_window),
        cmocka_unit_test(the_window_is_not_known),
        cmocka_unit_test(no_room),
        cmocka_unit_test(acknowledgments),
        cmocka_unit_test(nobody_asks),
        cmocka_unit_test(bytes_of_another_way),
        cmocka_unit_test(a_take_over),
        cmocka_unit_test(a_fin_alone),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
