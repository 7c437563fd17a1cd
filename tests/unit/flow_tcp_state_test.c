/* SPDX-License-Identifier: Apache-2.0 */
/* STATE and ERROR, case by case: what each packet brings an end to, and what an end does not accept. */
#include "flow_tcp_lab.h"

static char log_text[1000]; /* "C ESTABLISHED", "S! bad reset": one after the other */
static enum nst_verdict answer;
static bool watch_later, pick_up;

static void note(const char *text, ...)
{
    size_t n = strlen(log_text);
    va_list args;

    va_start(args, text);
    vsnprintf(log_text + n, sizeof log_text - n, text, args);
    va_end(args);
}

static enum nst_verdict tell(struct nst_flow *f, const struct nst_event *ev)
{
    char side = ev->side == NST_CLIENT ? 'C' : 'S';
    nst_events what = ev->what;

    if (watch_later) {
        watch_later = false;
        check_eq(nst_flow_watch(f, ev->side, NST_RECEIVED, NST_EV_STATE), 0);
    }
    if ((what & NST_EV_MIDSTREAM) && pick_up)
        what |= nst_tcp_pickup(f, ev->side);
    if (what & NST_EV_STATE)
        note("%s%c %s", log_text[0] != '\0' ? ", " : "", side, nst_tcp_state_name(nst_tcp_state(f, ev->side)));
    if (what & NST_EV_ERROR) {
        check(nst_tcp_error(f, ev->side) != NST_TCP_ACCEPTED);
        note("%s%c! %s", log_text[0] != '\0' ? ", " : "", side, nst_tcp_error_name(nst_tcp_error(f, ev->side)));
    }
    if (what & NST_EV_DATA) {
        struct nst_slice s;
        while (nst_flow_bytes(f, ev->side, &s))
            note("%s%c '%.*s'", log_text[0] != '\0' ? ", " : "", side, (int)s.len, (const char *)s.p);
    }
    return answer;
}

static void setup_told(nst_events received)
{
    setup_nf(0);
    for (unsigned side = 0; side < 2; side++) {
        nf.half[side].on_sent = received & NST_EV_STATE;
        nf.half[side].on_received = received;
        nf.half[side].handler = tell;
    }
    answer = NST_FORWARD;
    watch_later = pick_up = false;
    log_text[0] = '\0';
}

/* What one packet brought. */
static void then(unsigned dir, uint8_t flags, uint32_t seq, uint32_t ack, const char *text, const char *should)
{
    log_text[0] = '\0';
    seg(dir, flags, seq, ack, text);
    lab_settle();
    if (strcmp(log_text, should) != 0) {
        fprintf(stderr, "\"%s\", should be \"%s\"\n", log_text, should);
        check(!"the packet causes what it should");
    }
}

static void opens(void)
{
    then(C2S, SYN, 1000, 0, "", "C SYN-SENT, S SYN-RECEIVED");
    then(C2S, SYN, 1000, 0, "", "");
    then(S2C, SYN | ACK, 500, 1001, "", "C ESTABLISHED");
    then(C2S, ACK, 1001, 501, "", "S ESTABLISHED");
}

static void life_body(void)
{
    opens();
    then(C2S, PSH | ACK, 1001, 501, "hi", "");
    then(C2S, FIN | ACK, 1003, 501, "", "C FIN-WAIT-1, S CLOSE-WAIT");
    then(C2S, FIN | ACK, 1003, 501, "", "");
    then(S2C, ACK, 501, 1003, "", "");
    then(S2C, ACK, 501, 1004, "", "C FIN-WAIT-2");
    then(S2C, PSH | ACK, 501, 1004, "bye", "");
    then(S2C, FIN | ACK, 504, 1004, "", "S LAST-ACK, C TIME-WAIT");
    then(C2S, ACK, 1004, 505, "", "S CLOSED");
}

static void from_the_first_syn_to_the_last_ack(void **state)
{
    setup_told(NST_EV_STATE);
    lab_run(&config, life_body);
}

static void hole_body(void)
{
    opens();
    then(C2S, FIN | ACK, 1004, 501, "", "C FIN-WAIT-1"); /* behind a hole: the server has not received it yet */
    then(S2C, FIN | ACK, 501, 1001, "", "S FIN-WAIT-1, C CLOSING");
    then(C2S, PSH | ACK, 1001, 502, "hey", "S TIME-WAIT");
    then(S2C, ACK, 502, 1005, "", "C TIME-WAIT");
}

static void both_close_at_once(void **state)
{
    setup_told(NST_EV_STATE);
    lab_run(&config, hole_body);
}

static void both_open_body(void)
{
    then(C2S, SYN, 1000, 0, "", "C SYN-SENT, S SYN-RECEIVED");
    then(S2C, SYN, 500, 0, "", "C SYN-RECEIVED");
    then(C2S, SYN | ACK, 1000, 501, "", "S ESTABLISHED");
    then(S2C, SYN | ACK, 500, 1001, "", "C ESTABLISHED");
    then(S2C, FIN | ACK, 501, 1001, "", "S FIN-WAIT-1, C CLOSE-WAIT");
}

static void both_open_at_once(void **state)
{
    setup_told(NST_EV_STATE);
    lab_run(&config, both_open_body);
}

static void dropped_body(void)
{
    opens();
    answer = NST_DROP;
    then(C2S, FIN | ACK, 1001, 501, "", "C FIN-WAIT-1");
    then(C2S, FIN | ACK, 1001, 501, "", "C FIN-WAIT-1");
    answer = NST_FORWARD;
    then(C2S, FIN | ACK, 1001, 501, "", "C FIN-WAIT-1, S CLOSE-WAIT");
    answer = NST_DROP;
    then(S2C, ACK, 501, 1002, "", "C FIN-WAIT-2");
    then(S2C, RST | ACK, 501, 1002, "", "C CLOSED");
    answer = NST_FORWARD;
    then(S2C, ACK, 501, 1002, "", "C FIN-WAIT-2");
    then(S2C, RST | ACK, 501, 1002, "", "C CLOSED");
    then(C2S, ACK, 1002, 501, "", "");
}

static void what_is_dropped_changes_no_state(void **state)
{
    setup_told(NST_EV_STATE);
    lab_run(&config, dropped_body);
}

static void picked_up_body(void)
{
    then(C2S, PSH | ACK, 1001, 501, "from here", "S ESTABLISHED, S 'from here'");
    then(C2S, FIN | ACK, 1010, 501, "", "S CLOSE-WAIT");
}

static void a_stream_that_was_picked_up(void **state)
{
    setup_told(NST_EV_STATE | NST_EV_MIDSTREAM | NST_EV_DATA);
    pick_up = true;
    nf.half[NST_CLIENT].inspect = NULL;
    nf.half[NST_CLIENT].handler = NULL;
    lab_run(&config, picked_up_body);
    setup_told(NST_EV_STATE | NST_EV_DATA);
    nf.policy.on_midstream = NST_FORWARD;
    nf.half[NST_CLIENT].inspect = NULL;
    nf.half[NST_CLIENT].handler = NULL;
    lab_run(&config, picked_up_body);
}

static void later_body(void)
{
    watch_later = true;
    then(C2S, SYN, 1000, 0, "", "");
    check(!watch_later);
    then(S2C, SYN | ACK, 500, 1001, "", "");
    then(C2S, ACK, 1001, 501, "", "S ESTABLISHED");
    then(C2S, FIN | ACK, 1001, 501, "", "S CLOSE-WAIT");
}

static void asked_for_in_the_middle(void **state)
{
    setup_nf(NST_EV_START);
    nf.half[NST_SERVER].handler = tell;
    answer = NST_FORWARD;
    pick_up = false;
    lab_run(&config, later_body);
}

/* ---- what an end does not accept ---- */
static void errors_body(void)
{
    then(C2S, SYN, 1000, 0, "", "");
    then(S2C, SYN | ACK, 500, 77, "", "C! bad acknowledgment");
    then(S2C, SYN | ACK, 500, 1001, "", "");
    then(C2S, ACK, 1001, 501, "", "");
    then(C2S, RST, 1005, 0, "", "S! bad reset");
    then(C2S, PSH, 1001, 0, "evil", "S! no acknowledgment");
    then(C2S, PSH | ACK, 1001, 502, "evil", "S! bad acknowledgment");
    then(C2S, PSH | ACK, 1001, 501, "good", "S 'good'");
    then(C2S, PSH | ACK, 80000, 501, "far", "S! beyond the window");
    then(S2C, PSH | ACK, 501, 1005, "1234", "C '1234'");
    then(C2S, PSH | ACK, 1005, 505, " too", "S ' too'");
    then(C2S, SYN, 7000, 0, "", "S! bad SYN");
    check_eq(lab_stats().bad_acks, 2);
    check_eq(lab_stats().resets_ignored, 1);
    check_eq(lab_stats().dropped[NST_BY_BAD_ACK], 0);
    check_eq(lab_stats().dropped[NST_BY_WINDOW], 0);
    check_eq(lab_stats().policy[NST_BY_WINDOW], 0);
    check_eq(lab_stats().conflicts, 0);
}

static void errors_are_told(void **state)
{
    setup_told(NST_EV_ERROR | NST_EV_DATA);
    lab_run(&config, errors_body);
}

static void policies_body(void)
{
    lab_handshake(path, 1000, 500);
    bool drops = nf.policy.on_bad_ack != NST_FORWARD;
    lab_clear();
    then(C2S, PSH, 1001, 0, "evil", "");
    then(C2S, PSH | ACK, 1001, 502, "evil", "");
    then(C2S, FIN | ACK, 1001, 2000000000, "", "");
    check_eq(lab.n_out, drops ? 0 : 3);
    then(C2S, PSH | ACK, 1001, 501, "good", "S 'good'");
    check_eq(lab_stats().bad_acks, 3);
    check_eq(lab_stats().policy[NST_BY_BAD_ACK], 3);
    check_eq(lab_stats().dropped[NST_BY_BAD_ACK], drops ? 3 : 0);
    check_eq(lab_stats().conflicts, 0);
}

static void acknowledgments_that_cannot_be(void **state)
{
    setup_told(NST_EV_DATA);
    lab_run(&config, policies_body);
    setup_told(NST_EV_DATA);
    nf.policy.on_bad_ack = NST_FORWARD;
    lab_run(&config, policies_body);
}

static void capture_body(void)
{
    lab_handshake(path, 1000, 500);
    then(C2S, PSH, 1001, 0, "by hand", "S! no acknowledgment, S 'by hand'");
    then(C2S, PSH | ACK, 1008, 900, " and more", "S ' and more'");
    check_eq(lab_stats().bad_acks, 0);
}

static void captures_that_were_made_by_hand(void **state)
{
    setup_told(NST_EV_ERROR | NST_EV_DATA);
    lab_replay(&config, capture_body);
}

static void names(void **state)
{
    for (unsigned i = 0; i <= NST_TCP_TIME_WAIT; i++)
        assert_string_not_equal(nst_tcp_state_name((enum nst_tcp_state)i), "unknown");
    for (unsigned i = 0; i <= NST_TCP_BAD_SYN; i++)
        assert_string_not_equal(nst_tcp_error_name((enum nst_tcp_error)i), "unknown");
    assert_string_equal(nst_tcp_state_name((enum nst_tcp_state)(NST_TCP_TIME_WAIT + 1)), "unknown");
    assert_string_equal(nst_tcp_error_name((enum nst_tcp_error)(NST_TCP_BAD_SYN + 1)), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_the_first_syn_to_the_last_ack),
        cmocka_unit_test(both_close_at_once),
        cmocka_unit_test(both_open_at_once),
        cmocka_unit_test(what_is_dropped_changes_no_state),
        cmocka_unit_test(a_stream_that_was_picked_up),
        cmocka_unit_test(asked_for_in_the_middle),
        cmocka_unit_test(errors_are_told),
        cmocka_unit_test(acknowledgments_that_cannot_be),
        cmocka_unit_test(captures_that_were_made_by_hand),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
