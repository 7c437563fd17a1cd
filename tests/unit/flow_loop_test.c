/* SPDX-License-Identifier: Apache-2.0 */
/* Loop style: nst_next, nst_decide, nst_read, nst_decide_read. */
#include "flow_lab.h"
#include <netinet/in.h>

static const struct lab_path *const path = &lab_tcp4;
static struct nst_nf nf;
static struct nst_engine_config config;
static unsigned started, returned;
static char text[1024];
static unsigned len;
static int last_rc;
static struct lab_answer answer;

static void setup(void (*loop)(struct nst_flow *f, enum nst_side side), nst_events events)
{
    started = returned = len = 0;
    last_rc = 0;
    memset(text, 0, sizeof text);
    memset(&answer, 0, sizeof answer);
    nf = (struct nst_nf){
        .name = "loop",
        .proto = IPPROTO_TCP,
        .half = { [NST_CLIENT] = { .inspect = &nst_tcp },
                  [NST_SERVER] = { .inspect = &nst_tcp, .on_received = events, .loop = loop } },
        .policy = { .budget = NST_SEC(100) },
    };
    config = (struct nst_engine_config){ .nf = &nf, .flows = 64 };
}

static void check_text(const char *file, int line, const char *should)
{
    if (strcmp(text, should) != 0) {
        fprintf(stderr, "%s:%d: the loop has \"%s\", should be \"%s\"\n", file, line, text, should);
        lab.failures++;
    }
}
#define check_has(should) check_text(__FILE__, __LINE__, should)

static void data(uint32_t seq, const char *bytes)
{
    lab_data(path, C2S, seq, 501, bytes);
    lab_settle();
}

static void flags(unsigned dir, uint8_t what, uint32_t seq, uint32_t ack)
{
    lab_send_tcp(path, dir, (struct lab_tcp){ .flags = what, .seq = seq, .ack = ack });
    lab_settle();
}

/* Both ends finish. */
static void finish(uint32_t client, uint32_t server)
{
    flags(C2S, FIN | ACK, client, server);
    flags(S2C, FIN | ACK, server, client + 1);
    flags(C2S, ACK, client + 1, server + 1);
}

static void until_returned(unsigned n)
{
    for (unsigned i = 0; i < 1000 && returned < n; i++) {
        check_eq(nst_sleep(nst_now() + NST_MS(2)), 0);
        lab_turns(1);
    }
    check_eq(returned, n);
}

/* ---- events ---- */
static nst_events seen[64];
static unsigned n_seen;
static enum nst_close_why why;

static void follow(struct nst_flow *f, enum nst_side side)
{
    struct nst_event ev;
    struct nst_slice s;

    started++;
    n_seen = 0;
    check_eq(side, NST_SERVER);
    while ((last_rc = nst_next(f, side, &ev, NST_NEVER)) == 0) {
        check_eq(ev.side, NST_SERVER);
        if (n_seen < 64)
            seen[n_seen++] = ev.what;
        if (ev.what & NST_EV_CLOSE) {
            check(ev.packet == NULL);
            why = ev.why;
            continue;
        }
        check(ev.until > nst_now());
        bool bad = false;
        while (nst_flow_bytes(f, side, &s)) {
            bad = memchr(s.p, '!', s.len) != NULL;
            if (!bad && len + s.len < sizeof text) {
                memcpy(text + len, s.p, s.len);
                len += (unsigned)s.len;
            }
        }
        nst_decide(f, &ev, bad ? NST_DROP : NST_FORWARD);
        nst_decide(f, &ev, NST_DROP); /* the first counts */
    }
    returned++;
}

static void next_body(void)
{
    lab_handshake(path, 1000, 500);
    check_eq(started, 1);
    data(1001, "one ");
    data(1005, "two!");
    data(1005, "two ");
    check_eq(lab.n_out, 2);
    finish(1009, 501);
    check_has("one two ");
    check_eq(lab.n_out, 5);
    until_returned(1);
    check_eq(last_rc, -ECANCELED);
    check_eq(n_seen, 5);
    check_eq(seen[0], NST_EV_OPEN);
    check_eq(seen[1], NST_EV_DATA);
    check_eq(seen[4], NST_EV_CLOSE);
    check_eq(why, NST_CLOSED_BY_FIN);
    check_eq(lab_stats().dropped[NST_BY_VERDICT], 1);
    check_eq(lab_stats().flows, 0);
}

static void events_one_by_one(void **state)
{
    setup(follow, NST_EV_OPEN | NST_EV_DATA | NST_EV_CLOSE);
    config.idle_closing = NST_MS(20);
    lab_run(&config, next_body);
}

static void close_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "one ");
}

static void close_at_the_end(void **state)
{
    setup(follow, NST_EV_DATA | NST_EV_CLOSE);
    lab_run(&config, close_body);
    assert_int_equal(returned, 1);
    assert_int_equal(why, NST_CLOSED_BY_SHUTDOWN);
}

static void end_without_close(void **state)
{
    setup(follow, NST_EV_DATA);
    lab_run(&config, close_body);
    assert_int_equal(returned, 1);
    assert_int_equal(last_rc, -ECANCELED);
    assert_int_equal(n_seen, 1);
}

static void expires_body(void)
{
    lab_handshake(path, 1000, 500);
    until_returned(1);
    check_eq(why, NST_CLOSED_BY_TIMEOUT);
    lab_turns(2);
    check_eq(lab_stats().flows, 0);
}

static void a_flow_expires(void **state)
{
    setup(follow, NST_EV_DATA | NST_EV_CLOSE);
    config.idle_established = NST_MS(20);
    lab_run(&config, expires_body);
}

/* ---- what was not decided ---- */
static void forgets(struct nst_flow *f, enum nst_side side)
{
    struct nst_event ev;

    started++;
    while ((last_rc = nst_next(f, side, &ev, NST_NEVER)) == 0)
        ;
    returned++;
}

static void undecided_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "one");
    data(1001, "two");
    check_eq(lab.n_out, 0);
    check_eq(lab_stats().policy[NST_BY_OTHERWISE], 2);
    lab_data(path, C2S, 1001, 501, "new");
    lab_settle();
    check_eq(lab_stats().dropped[NST_BY_OTHERWISE], 3);
}

static void undecided_events(void **state)
{
    setup(forgets, NST_EV_DATA);
    lab_run(&config, undecided_body);
}

/* ---- deadlines ---- */
static void times_out(struct nst_flow *f, enum nst_side side)
{
    struct nst_event ev;

    started++;
    last_rc = nst_next(f, side, &ev, nst_now() + NST_MS(5));
    returned++;
}

static void deadline_body(void)
{
    lab_handshake(path, 1000, 500);
    until_returned(1);
    check_eq(last_rc, -ETIMEDOUT);
    /* It has returned: the rest passes. */
    data(1001, "unseen");
    check_eq(lab.n_out, 1);
    check_eq(started, 1);
    check_eq(lab_stats().flows, 1);
}

static void deadlines(void **state)
{
    setup(times_out, NST_EV_DATA);
    lab_run(&config, deadline_body);
}

/* ---- a loop that ends early, with packets behind it ---- */
static void early(struct nst_flow *f, enum nst_side side)
{
    struct nst_event ev;

    started++;
    if (nst_next(f, side, &ev, NST_NEVER) == 0) {
        nst_decide(f, &ev, NST_DROP);
        check_eq(lab_wait(&answer, NST_NEVER), 0);
    }
    returned++;
}

static void early_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "gone");
    data(1001, "A");
    data(1002, "B");
    check_eq(lab.n_out, 0);
    check_eq(lab_stats().held, 2);
    lab_fulfil(&answer, 0);
    data(1003, "C");
    check_eq(returned, 1);
    check_eq(lab.n_out, 3);
    for (unsigned i = 0; i < 3 && i < lab.n_out; i++)
        check_eq(lab.out[i].data[0], 'A' + i);
    check_eq(lab_stats().held, 0);
}

static void a_loop_ends_early(void **state)
{
    setup(early, NST_EV_DATA);
    lab_run(&config, early_body);
}

static void leaves_current(struct nst_flow *f, enum nst_side side)
{
    struct nst_event ev;

    last_rc = nst_next(f, side, &ev, NST_NEVER);
    returned++;
}

static void leaves_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "gone");
    check_eq(returned, 1);
    check_eq(lab.n_out, 0);
    check_eq(lab_stats().dropped[NST_BY_OTHERWISE], 1);
    data(1001, "here");
    check_eq(lab.n_out, 1);
}

static void a_loop_leaves_its_packet(void **state)
{
    setup(leaves_current, NST_EV_DATA);
    lab_run(&config, leaves_body);
}

/* ---- flow verdicts ---- */
static enum nst_verdict flow_verdict;

static void one_verdict(struct nst_flow *f, enum nst_side side)
{
    struct nst_event ev;

    started++;
    while ((last_rc = nst_next(f, side, &ev, NST_NEVER)) == 0) {
        n_seen++;
        nst_decide(f, &ev, flow_verdict);
    }
    returned++;
}

static void flow_verdict_body(void)
{
    n_seen = 0;
    lab_handshake(path, 1000, 500);
    lab_data(path, C2S, 1001, 501, "A");
    lab_data(path, C2S, 1002, 501, "B");
    lab_data(path, C2S, 1003, 501, "C");
    lab_settle();
    data(1004, "D");
    check_eq(n_seen, 1);
    bool reset = flow_verdict == NST_RESET_FLOW;
    check_eq(lab.n_out, flow_verdict == NST_FORWARD_FLOW ? 4 : reset ? 2 : 0);
    for (unsigned i = 0; i < lab.n_out && !reset; i++)
        check_eq(lab.out[i].data[0], 'A' + i);
    check_eq(lab_stats().injected, reset ? 2 : 0);
    check_eq(lab_stats().dropped[NST_BY_FLOW_VERDICT], flow_verdict == NST_FORWARD_FLOW ? 0 : 4);
}

static void verdicts_on_the_flow(void **state)
{
    static const enum nst_verdict v[] = { NST_FORWARD_FLOW, NST_DROP_FLOW, NST_RESET_FLOW };

    for (unsigned i = 0; i < 3; i++) {
        setup(one_verdict, NST_EV_DATA);
        flow_verdict = v[i];
        lab_run(&config, flow_verdict_body);
        assert_int_equal(returned, 1);
    }
}

/* ---- reading ---- */
/* Records of four bytes; one that begins with '!' is refused. */
static void records(struct nst_flow *f, enum nst_side side)
{
    started++;
    for (;;) {
        char four[4];
        last_rc = nst_read(f, side, four, 4, NST_NEVER);
        if (last_rc != 4) {
            if (last_rc > 0) {
                memcpy(text + len, four, (size_t)last_rc);
                len += (unsigned)last_rc;
            }
            break;
        }
        if (four[0] == '!') {
            nst_decide_read(f, side, NST_DROP);
            continue;
        }
        memcpy(text + len, four, 4);
        len += 4;
    }
    returned++;
}

static void read_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "one,tw");
    check_has("one,");
    check_eq(lab.n_out, 1); /* asking for more has forwarded it */
    data(1007, "o,");
    check_has("one,two,");
    data(1009, "th4,fiv,six");
    check_has("one,two,th4,fiv,");
    data(1020, ",!bad");
    check_has("one,two,th4,fiv,six,");
    check_eq(lab_stats().dropped[NST_BY_VERDICT], 1);
    check_eq(lab.n_out, 3);
    check_eq(returned, 0);
}

static void reading_across_packets(void **state)
{
    setup(records, NST_EV_DATA);
    lab_run(&config, read_body);
    assert_int_equal(last_rc, 0);
    assert_int_equal(returned, 1);
}

static void bare_fin_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "one,tw");
    flags(C2S, FIN | ACK, 1007, 501);
    /* The stream has ended, whatever becomes of the other direction. */
    check_eq(returned, 1);
    check_eq(last_rc, 2);
    check_has("one,tw");
    check_eq(lab.n_out, 2);
}

static void the_stream_ends_by_fin(void **state)
{
    setup(records, NST_EV_DATA);
    lab_run(&config, bare_fin_body);
}

static void fin_with_data_body(void)
{
    lab_handshake(path, 1000, 500);
    lab_send_tcp(path, C2S,
                 (struct lab_tcp){ .flags = FIN | ACK, .seq = 1001, .ack = 501, .data = "one,two,", .len = 8 });
    lab_settle();
    check_eq(returned, 1);
    check_eq(last_rc, 0);
    check_has("one,two,");
    check_eq(lab.n_out, 1);
}

static void the_stream_ends_with_its_last_bytes(void **state)
{
    setup(records, NST_EV_DATA);
    lab_run(&config, fin_with_data_body);
}

static void fin_then_hole_body(void)
{
    lab_handshake(path, 1000, 500);
    lab_send_tcp(path, C2S, (struct lab_tcp){ .flags = FIN | ACK, .seq = 1005, .ack = 501, .data = "two,", .len = 4 });
    lab_settle();
    check_eq(returned, 0);
    data(1001, "one,");
    check_has("one,two,");
    check_eq(returned, 1);
    check_eq(lab.n_out, 2);
}

static void the_end_waits_for_a_hole(void **state)
{
    setup(records, NST_EV_DATA);
    lab_run(&config, fin_then_hole_body);
}

static void reset_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "one,tw");
    flags(C2S, RST, 1007, 0);
    until_returned(1);
    check_eq(last_rc, 2);
}

static void the_stream_ends_by_reset(void **state)
{
    setup(records, NST_EV_DATA);
    config.idle_closing = NST_MS(15);
    lab_run(&config, reset_body);
}

static char part[16];

static void reads_late(struct nst_flow *f, enum nst_side side)
{
    started++;
    last_rc = nst_read(f, side, part, 10, nst_now() + NST_MS(10));
    check_eq(last_rc, -ETIMEDOUT);
    check_eq(lab_wait(&answer, NST_NEVER), 0);
    last_rc = nst_read(f, side, part, 10, nst_now() + NST_MS(10));
    check_eq(last_rc, 3);
    check(memcmp(part, "abc", 3) == 0);
    nst_decide_read(f, side, NST_FORWARD);
    last_rc = nst_read(f, side, part, 0, NST_NEVER);
    check_eq(last_rc, 0);
    returned++;
}

static void read_deadline_body(void)
{
    lab_handshake(path, 1000, 500);
    for (unsigned i = 0; i < 500 && !answer.open; i++)
        check_eq(nst_sleep(nst_now() + NST_MS(2)), 0);
    data(1001, "abc");
    lab_fulfil(&answer, 0);
    until_returned(1);
    check_eq(lab.n_out, 1);
}

static void reading_until_a_deadline(void **state)
{
    setup(reads_late, NST_EV_DATA);
    lab_run(&config, read_deadline_body);
}

/* ---- up to a delimiter ---- */
static enum nst_close_why end_why;
static size_t line_got;

static void lines(struct nst_flow *f, enum nst_side side)
{
    char line[8];
    struct nst_slice s;

    started++;
    check_eq(nst_read_until(f, side, line, sizeof line, "", 0, NULL, NST_NEVER), -EINVAL);
    while ((last_rc = nst_read_until(f, side, line, sizeof line, "\r\n", 2, &line_got, NST_NEVER)) > 0) {
        check_eq(last_rc, line_got);
        check_eq(nst_read_end(f, side), NST_OPEN_STILL);
        memcpy(text + len, line, line_got);
        text[len += (unsigned)line_got] = '\0';
        text[len - 1] = '|';
        if (line[0] == '!')
            nst_decide_read(f, side, NST_DROP);
    }
    if (last_rc == -EMSGSIZE) { /* what follows is unread */
        check_eq(line_got, sizeof line);
        check(memcmp(line, "too long", 8) == 0);
        check(nst_peek(f, side, &s) && s.len == 5 && memcmp(s.p, " line", 5) == 0);
        check_eq(nst_read(f, side, line, 5, NST_NEVER), 5);
        check(memcmp(line, " line", 5) == 0);
        check(!nst_peek(f, side, &s));
    } else {
        memcpy(text + len, line, line_got);
        len += (unsigned)line_got;
    }
    end_why = nst_read_end(f, side);
    returned++;
}

static void lines_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "one\r");
    check_has("");
    check_eq(lab.n_out, 1); /* all of it is read: asking for more has forwarded it */
    data(1005, "\ntwo\r\nt\rh");
    check_has("one\r|two\r|");
    check_eq(lab.n_out, 2);
    data(1014, "\r\n\r\n!no\r\n");
    check_has("one\r|two\r|t\rh\r|\r|!no\r|");
    check_eq(lab.n_out, 2);
    check_eq(lab_stats().dropped[NST_BY_VERDICT], 1);
    flags(C2S, FIN | ACK, 1014, 501); /* what was dropped does not count */
    check_eq(returned, 1);
    check_eq(last_rc, -ENODATA);
    check_eq(line_got, 0);
    check_eq(end_why, NST_CLOSED_BY_FIN);
}

static void up_to_a_delimiter(void **state)
{
    setup(lines, NST_EV_DATA);
    lab_run(&config, lines_body);
}

static void long_line_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "too long line");
    check_eq(returned, 1);
    check_eq(last_rc, -EMSGSIZE);
    check_eq(end_why, NST_OPEN_STILL);
}

static void a_line_that_is_too_long(void **state)
{
    setup(lines, NST_EV_DATA);
    lab_run(&config, long_line_body);
}

static void cut_line_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "cut");
    flags(C2S, RST, 1004, 0);
    until_returned(1);
    check_eq(last_rc, -ENODATA);
    check_eq(line_got, 3);
    check_has("cut");
    check_eq(end_why, NST_CLOSED_BY_RST);
}

static void a_reset_in_a_line(void **state)
{
    setup(lines, NST_EV_DATA);
    config.idle_closing = NST_MS(15);
    lab_run(&config, cut_line_body);
}

static void stopped_line_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "cut");
}

static void a_shutdown_in_a_line(void **state)
{
    setup(lines, NST_EV_DATA);
    lab_run(&config, stopped_line_body);
    assert_int_equal(last_rc, -ENODATA);
    assert_int_equal(end_why, NST_CLOSED_BY_SHUTDOWN);
}

static void late_line(struct nst_flow *f, enum nst_side side)
{
    char line[8];

    last_rc = nst_read_until(f, side, line, sizeof line, "\n", 1, &line_got, nst_now() + NST_MS(20));
    check_eq(line_got, 3);
    returned++;
}

static void late_line_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "cut");
    until_returned(1);
    check_eq(last_rc, -ETIMEDOUT);
}

static void a_line_that_comes_late(void **state)
{
    setup(late_line, NST_EV_DATA);
    lab_run(&config, late_line_body);
}

/* The loop waits for something of its own: packets are held, up to the limit. */
static void full_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "a");
    for (unsigned i = 0; i < 5; i++)
        data(1001 + i, "b");
    check_eq(lab_stats().held, 3);
    check_eq(lab_stats().dropped[NST_BY_HOLD_FULL], 2);
    lab_fulfil(&answer, 0);
    lab_settle();
    check_eq(returned, 1);
    check_eq(lab.n_out, 3);
}

static void a_slow_loop(void **state)
{
    setup(early, NST_EV_DATA);
    nf.policy.hold = 3;
    lab_run(&config, full_body);
}

/* A loop at each half: what the one lets go comes to the other. */
static void both_body(void)
{
    lab_handshake(path, 1000, 500);
    check_eq(started, 2);
    data(1001, "ping");
    lab_data(path, S2C, 501, 1005, "pong");
    lab_settle();
    check_has("pingpong");
    check_eq(lab.n_out, 2);
    finish(1005, 505);
    until_returned(2);
}

static void follow_both(struct nst_flow *f, enum nst_side side)
{
    struct nst_event ev;
    struct nst_slice s;

    started++;
    while (nst_next(f, side, &ev, NST_NEVER) == 0) {
        while (ev.packet != NULL && nst_flow_bytes(f, side, &s)) {
            memcpy(text + len, s.p, s.len);
            len += (unsigned)s.len;
        }
        nst_decide(f, &ev, NST_FORWARD);
    }
    returned++;
}

static void loops_at_both_halves(void **state)
{
    setup(follow_both, NST_EV_DATA);
    nf.half[NST_CLIENT] = (struct nst_half){
        .inspect = &nst_tcp, .on_sent = NST_EV_PACKET, .on_received = NST_EV_DATA, .loop = follow_both
    };
    config.idle_closing = NST_MS(15);
    lab_run(&config, both_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_one_by_one),        cmocka_unit_test(close_at_the_end),
        cmocka_unit_test(end_without_close),        cmocka_unit_test(a_flow_expires),
        cmocka_unit_test(undecided_events),         cmocka_unit_test(deadlines),
        cmocka_unit_test(a_loop_ends_early),        cmocka_unit_test(a_loop_leaves_its_packet),
        cmocka_unit_test(verdicts_on_the_flow),     cmocka_unit_test(reading_across_packets),
        cmocka_unit_test(the_stream_ends_by_fin),   cmocka_unit_test(the_stream_ends_with_its_last_bytes),
        cmocka_unit_test(the_end_waits_for_a_hole), cmocka_unit_test(the_stream_ends_by_reset),
        cmocka_unit_test(reading_until_a_deadline), cmocka_unit_test(a_slow_loop),
        cmocka_unit_test(loops_at_both_halves),     cmocka_unit_test(up_to_a_delimiter),
        cmocka_unit_test(a_line_that_is_too_long),  cmocka_unit_test(a_reset_in_a_line),
        cmocka_unit_test(a_shutdown_in_a_line),     cmocka_unit_test(a_line_that_comes_late),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
