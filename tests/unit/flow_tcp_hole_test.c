/* SPDX-License-Identifier: Apache-2.0 */
/* nst_tcp in captures: bytes that were acknowledged and are not there, for ever or until a few segments later. */
#include "flow_tcp_lab.h"

enum { WAITED = 16 }; /* segments that may still fill a hole, as tcp.h says */

/* The client says n times more that it is there. */
static void others(unsigned n, uint32_t seq)
{
    for (unsigned i = 0; i < n; i++)
        seg(C2S, ACK, seq, 501, "");
    lab_settle();
}

static void lost_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "one "));
    check(data(1010, "three "));
    acks(1016); /* of which "two, " is not there */
    others(WAITED - 1, 1016);
    check_text("one ");
    check_eq(lab_stats().lost_bytes, 0);
    check(data(1016, "four"));
    check_text("one three four");
    check_eq(lab_stats().lost_bytes, 5);
    /* The hole has nothing behind it. */
    acks(1030);
    others(WAITED - 1, 1030);
    check_eq(lab_stats().lost_bytes, 5);
    check(data(1030, " six"));
    check_eq(lab_stats().lost_bytes, 15);
    check_text("one three four six");
    check_eq(seen.offset[seen.calls - 1], 29);
    /* Only what was acknowledged is jumped over. */
    acks(1040);
    others(WAITED - 1, 1040);
    check(data(1050, "seven"));
    check_text("one three four six");
    check(data(1040, "0123456789"));
    check_text("one three four six0123456789seven");
    check_eq(lab_stats().lost_bytes, 21);
    /* What is kept comes out with an empty segment, too. */
    check(data(1060, "eight"));
    acks(1065);
    others(WAITED, 1065);
    check_text("one three four six0123456789seveneight");
    check_eq(lab_stats().lost_bytes, 26);
    acks(1065);
    check_eq(lab_stats().stream_kept, 0);
}

static void bytes_that_a_capture_lost(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_replay(&config, lost_body);
}

/* A hole that is filled just in time, in two parts of which the first does not reach its end. */
static void filled_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1011, "cd"));
    acks(1013);
    others(WAITED - 1, 1013);
    check(data(1001, "01234"));
    check_text("01234");
    check(data(1006, "56789"));
    check_text("0123456789cd");
    /* The next one is waited for as long. */
    acks(1015);
    others(WAITED - 1, 1015);
    check(data(1013, "ef"));
    check_text("0123456789cdef");
    check_eq(lab_stats().lost_bytes, 0);
    /* The segment that ends the wait lies in the hole itself: it is not jumped over. */
    acks(1035);
    others(WAITED - 1, 1035);
    check(data(1025, "in the end"));
    check_text("0123456789cdefin the end");
    check_eq(lab_stats().lost_bytes, 10);
    check_eq(lab_stats().retransmits, 0);
}

static void late_bytes_fill_the_hole(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_replay(&config, filled_body);
}

/* ---- a whole stream of numbered segments, each acknowledged at once ---- */
enum { LEN = 5, SEGMENTS = 150, TAIL = 2 * WAITED + 8 };
static struct item {
    bool ack;
    unsigned n;
} item[2 * SEGMENTS];
static unsigned items;
static uint64_t random_state;

static const char *text_of(unsigned n)
{
    static char text[LEN + 1];
    snprintf(text, sizeof text, "%04u ", n);
    return text;
}

static void fill_items(unsigned seed)
{
    random_state = 0x9e3779b97f4a7c15u * (seed + 1);
    items = 0;
    for (unsigned i = 0; i < SEGMENTS; i++) {
        item[items++] = (struct item){ false, i };
        item[items++] = (struct item){ true, i };
    }
}

static void move_some(void)
{
    for (unsigned i = 0; i < items; i++) {
        if (item[i].ack || lab_random(&random_state, 5) != 0)
            continue;
        unsigned to = i + 1 + lab_random(&random_state, 3);
        struct item moved = item[i];
        to = to < items ? to : items - 1;
        memmove(item + i, item + i + 1, (to - i) * sizeof *item);
        item[to] = moved;
    }
}

static void play_items(const bool *lost)
{
    lab_handshake(path, 1000, 500);
    for (unsigned i = 0; i < items; i++) {
        unsigned n = item[i].n;
        if (item[i].ack)
            seg(S2C, ACK, 501, 1001 + (n + 1) * LEN, "");
        else if (lost == NULL || !lost[n])
            seg(C2S, ACK | PSH, 1001 + n * LEN, 501, text_of(n));
        lab_settle();
        lab_clear();
    }
}

static void check_numbers(const bool *lost)
{
    char want[SEGMENTS * LEN + 1] = "";
    unsigned len = 0;

    for (unsigned i = 0; i < SEGMENTS; i++) {
        if (lost == NULL || !lost[i])
            len += (unsigned)snprintf(want + len, sizeof want - len, "%s", text_of(i));
    }
    check_text(want);
}

static void moved_body(void)
{
    move_some();
    play_items(NULL);
    check_numbers(NULL);
    check_eq(lab_stats().lost_bytes, 0);
    check_eq(lab_stats().retransmits, 0);
    check(lab_stats().gaps > 0);
    acks(1001 + SEGMENTS * LEN);
    check_eq(lab_stats().stream_kept, 0);
}

static void segments_behind_their_acknowledgments(void **state)
{
    for (unsigned seed = 0; seed < 30; seed++) {
        setup_nf(NST_EV_DATA);
        fill_items(seed);
        lab_replay(&config, moved_body);
    }
}

/* Single holes, and several that follow each other; then as much without any as lets the last ones pass. */
static bool lost[SEGMENTS];

static void losses_body(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < SEGMENTS; i++) {
        lost[i] = i < SEGMENTS - TAIL && lab_random(&random_state, 4) == 0;
        n += lost[i];
    }
    play_items(lost);
    check_numbers(lost);
    check(n > 10);
    check_eq(lab_stats().lost_bytes, n * LEN);
    acks(1001 + SEGMENTS * LEN);
    check_eq(lab_stats().stream_kept, 0);
}

static void holes_that_follow_each_other(void **state)
{
    for (unsigned seed = 0; seed < 30; seed++) {
        setup_nf(NST_EV_DATA);
        fill_items(seed);
        lab_replay(&config, losses_body);
    }
}

/* ---- the end of a flow, and of the room ---- */
/* Behind the acknowledgment of a FIN little comes: the very next segment ends the wait. */
static void fin_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1006, "end"));
    seg(C2S, FIN | ACK, 1009, 501, "");
    seg(S2C, FIN | ACK, 501, 1010, "");
    lab_settle();
    check_text("");
    seg(C2S, ACK, 1010, 502, "");
    lab_settle();
    check_text("end");
    check_eq(lab_stats().lost_bytes, 5);
    check(seen.what[seen.calls - 1] & NST_EV_FIN);
}

static void end_is_acknowledged(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_FIN | NST_EV_RESET);
    lab_replay(&config, fin_body);
}

/* An end that has closed itself receives nothing more behind a FIN. */
static void last_fin_body(void)
{
    lab_handshake(path, 1000, 500);
    seg(S2C, FIN | ACK, 501, 1001, "");
    lab_settle();
    check(data(1006, "end"));
    seg(S2C, ACK, 502, 1009, "");
    lab_settle();
    check_text("");
    seg(C2S, FIN | ACK, 1009, 502, "");
    lab_settle();
    check_text("end");
    check_eq(lab_stats().lost_bytes, 5);
    check(seen.what[seen.calls - 1] & NST_EV_FIN);
}

static void last_fin(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_FIN | NST_EV_RESET);
    lab_replay(&config, last_fin_body);
}

/* A FIN behind its acknowledgment: its number is no byte. */
static void late_fin_body(void)
{
    lab_handshake(path, 1000, 500);
    acks(1005);
    seg(C2S, FIN | ACK, 1001, 501, "bye");
    lab_settle();
    check_text("bye");
    check(seen.what[seen.calls - 1] & NST_EV_FIN);
    seg(S2C, FIN | ACK, 501, 1005, "");
    others(WAITED, 1005);
    check_eq(lab_stats().lost_bytes, 0);
}

static void fin_behind_its_acknowledgment(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_FIN | NST_EV_RESET);
    lab_replay(&config, late_fin_body);
}

/* While a hole is waited for, the end stands somewhere behind it. */
static void reset_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1006, "end"));
    acks(1009);
    seg(C2S, RST, 1005, 0, "");
    seg(C2S, RST, 1010, 0, "");
    lab_settle();
    check_eq(lab_stats().resets_ignored, 2);
    seg(C2S, RST, 1009, 0, "");
    lab_settle();
    check_eq(lab_stats().resets_ignored, 2);
    check(seen.what[seen.calls - 1] & NST_EV_RESET);
}

static void reset_behind_a_hole(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_FIN | NST_EV_RESET);
    lab_replay(&config, reset_body);
}

/* A segment that there is no room for ends the wait. */
static void room_body(void)
{
    char text[101];

    memset(text, 'x', 100);
    text[100] = '\0';
    lab_handshake(path, 1000, 500);
    check(data(1101, text));
    acks(1201);
    check_eq(seen.len, 0);
    check(data(1201, text)); /* up to 300 bytes behind what is acknowledged in order */
    check_eq(seen.len, 200);
    check_eq(lab_stats().lost_bytes, 100);
    check_eq(lab_stats().dropped[NST_BY_STREAM_LIMIT], 0);
}

static void no_room_to_wait(void **state)
{
    setup_nf(NST_EV_DATA);
    config.stream_per_end = 250;
    lab_replay(&config, room_body);
}

/* ---- what is still behind a hole when the flow ends ---- */
static struct {
    char text[200];
    uint64_t at[8];
    unsigned n, closes;
    enum nst_close_why why;
} rest;

static enum nst_verdict take_rest(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_slice s;
    uint64_t at;

    if ((ev->what & NST_EV_CLOSE) == 0) {
        check(!nst_tcp_rest(f, ev->side, &at, &s));
        return NST_FORWARD;
    }
    rest.closes++;
    rest.why = ev->why;
    while (nst_tcp_rest(f, ev->side, &at, &s) && rest.n < 8) {
        strncat(rest.text, s.p, s.len);
        rest.at[rest.n++] = at;
    }
    check(!nst_tcp_rest(f, ev->side, &at, &s));
    return NST_FORWARD;
}

static void setup_rest(void)
{
    setup_nf(NST_EV_DATA | NST_EV_CLOSE);
    nf.half[NST_SERVER].handler = take_rest;
    memset(&rest, 0, sizeof rest);
}

static void behind_holes(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "seen "));
    check(data(1010, "kept "));
    check(data(1015, "too "));
    check(data(1030, "last"));
}

static void by_drain(void)
{
    behind_holes();
}

static void by_reset(void)
{
    behind_holes();
    seg(C2S, RST, 1006, 0, "");
    lab_settle();
    check_eq(rest.closes, 0);
    lab.time += NST_SEC(3600);
    lab_send_tcp(path, C2S, (struct lab_tcp){ .flags = SYN, .seq = 90000 });
    lab_settle();
    check_eq(rest.closes, 1);
    check_eq(rest.why, NST_CLOSED_BY_RST);
    check_eq(lab_stats().lost_bytes, 4 + 11);
    check_eq(lab_stats().stream_kept, 0);
}

static void by_timeout(void)
{
    struct lab_path other = *path;

    behind_holes();
    other.port[0]++;
    lab.time += NST_SEC(10000);
    lab_send_tcp(&other, C2S, (struct lab_tcp){ .flags = SYN, .seq = 1 });
    lab_settle();
    check_eq(rest.closes, 1);
    check_eq(rest.why, NST_CLOSED_BY_TIMEOUT);
}

static void what_the_end_of_a_flow_leaves(void **state)
{
    static void (*const ends[])(void) = { by_drain, by_reset, by_timeout };

    for (unsigned i = 0; i < sizeof ends / sizeof *ends; i++) {
        setup_rest();
        lab_replay(&config, ends[i]);
        assert_string_equal(rest.text, "kept too last");
        assert_int_equal(rest.at[0], 9);
        assert_int_equal(rest.at[rest.n - 1], 29);
    }
    /* Live nobody has read those. */
    setup_rest();
    lab_run(&config, by_drain);
    assert_true(rest.closes > 0);
    assert_int_equal(rest.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_that_a_capture_lost),
        cmocka_unit_test(late_bytes_fill_the_hole),
        cmocka_unit_test(segments_behind_their_acknowledgments),
        cmocka_unit_test(holes_that_follow_each_other),
        cmocka_unit_test(end_is_acknowledged),
        cmocka_unit_test(last_fin),
        cmocka_unit_test(fin_behind_its_acknowledgment),
        cmocka_unit_test(reset_behind_a_hole),
        cmocka_unit_test(no_room_to_wait),
        cmocka_unit_test(what_the_end_of_a_flow_leaves),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
