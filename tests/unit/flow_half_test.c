/* SPDX-License-Identifier: Apache-2.0 */
/* Halves: what the handlers see, their verdicts, and waiting. */
#include "flow_half_lab.h"

/* ---- verdicts without a wait ---- */
static void verdicts_body(void)
{
    datagram(1, C2S, "a");
    datagram(1, C2S, "D");
    datagram(1, S2C, "D"); /* nobody registered this direction */
    datagram(1, C2S, "F");
    datagram(1, C2S, "D");
    datagram(2, C2S, "b");
    datagram(2, C2S, "X");
    datagram(2, C2S, "c");
    datagram(2, S2C, "d");
    datagram(3, C2S, "R");
    datagram(3, S2C, "e");
    lab_settle();
    check_out(1, "aFDb");
    check_out(0, "D");
    struct nst_engine_stats s = lab_stats();
    check_eq(s.packets, 11);
    check_eq(s.forwarded, 5);
    check_eq(s.dropped[NST_BY_VERDICT], 1);
    check_eq(s.dropped[NST_BY_FLOW_VERDICT], 5);
    check_eq(s.injected, 0); /* there are no resets in UDP */
    check_eq(calls, 6);
    check_eq(s.flows, 3);
}

static void verdicts(void **state)
{
    setup_udp(by_letter);
    lab_run(&config, verdicts_body);
    assert_int_equal(closes, 3);
}

static void invalid_body(void)
{
    datagram(1, C2S, "U");
    datagram(1, C2S, "T");
    datagram(1, C2S, "9");
    lab_settle();
    check_out(1, "");
    check_eq(lab_stats().dropped[NST_BY_OTHERWISE], 3);
    check_eq(lab_stats().policy[NST_BY_OTHERWISE], 3);
    check(lab.logged > 0);
}

static void invalid_verdicts_drop(void **state)
{
    setup_udp(by_letter);
    lab_run(&config, invalid_body);
}

static void invalid_open_body(void)
{
    datagram(1, C2S, "U");
    datagram(1, C2S, "T");
    datagram(1, C2S, "9");
    lab_settle();
    check_out(1, "UT9");
    check_eq(lab_stats().policy[NST_BY_OTHERWISE], 3);
}

static void invalid_verdicts_open(void **state)
{
    setup_udp(by_letter);
    nf.policy.otherwise = NST_FORWARD;
    lab_run(&config, invalid_open_body);
}

/* ---- which events, where ---- */
static struct {
    nst_events what;
    enum nst_side side;
    enum nst_dir dir;
} log_of[64];
static unsigned logged;

static enum nst_verdict note(struct nst_flow *f, const struct nst_event *ev)
{
    if (logged < 64) {
        log_of[logged].what = ev->what;
        log_of[logged].side = ev->side;
        log_of[logged].dir = ev->dir;
    }
    logged++;
    return NST_FORWARD;
}

static void both_sides_body(void)
{
    logged = 0;
    datagram(1, C2S, "q");
    lab_settle();
    check_eq(logged, 2);
    check(log_of[0].side == NST_CLIENT && log_of[0].dir == NST_SENT);
    check(log_of[1].side == NST_SERVER && log_of[1].dir == NST_RECEIVED);
    check_eq(log_of[0].what, NST_EV_PACKET);
    check_eq(log_of[1].what, NST_EV_PACKET | NST_EV_OPEN | NST_EV_DATA);
    logged = 0;
    datagram(1, S2C, "a");
    lab_settle();
    check_eq(logged, 2);
    check(log_of[0].side == NST_SERVER && log_of[0].dir == NST_SENT);
    check(log_of[1].side == NST_CLIENT && log_of[1].dir == NST_RECEIVED);
    logged = 0;
    datagram(1, C2S, "");
    lab_settle();
    check_eq(logged, 2);
    check_eq(log_of[1].what, NST_EV_PACKET); /* nothing in it, no DATA */
    check_out(1, "q-");
    check_out(0, "a");
}

static void events_at_both_sides(void **state)
{
    setup_udp(note);
    nf.half[NST_SERVER].on_received = NST_EV_PACKET | NST_EV_DATA | NST_EV_OPEN;
    nf.half[NST_SERVER].on_sent = NST_EV_PACKET;
    nf.half[NST_CLIENT] =
        (struct nst_half){ .on_sent = NST_EV_PACKET, .on_received = NST_EV_PACKET, .handler = half_handler };
    lab_run(&config, both_sides_body);
    assert_int_equal(closes, 0); /* nobody registered it */
}

static void nothing_registered_body(void)
{
    datagram(1, C2S, "a");
    datagram(1, S2C, "b");
    lab_settle();
    check_out(1, "a");
    check_out(0, "b");
    check_eq(calls, 0);
    check_eq(lab_stats().events, 0);
}

static void nothing_registered(void **state)
{
    setup_udp(note);
    nf.half[NST_SERVER].on_received = 0;
    lab_run(&config, nothing_registered_body);
}

static void no_part_at_all(void **state)
{
    setup_udp(NULL);
    memset(nf.half, 0, sizeof nf.half);
    lab_run(&config, nothing_registered_body);
}

/* ---- the flow's own ---- */
static enum nst_verdict flow_data(struct nst_flow *f, const struct nst_event *ev)
{
    uint32_t *count = nst_flow_state(f);
    struct nst_endpoint end;
    uint8_t a[NST_FLOW_KEY_MAX], b[NST_FLOW_KEY_MAX];
    struct nst_slice s;

    check_eq((uintptr_t)count % 8, 0);
    check_eq(++*count, calls);
    check_eq(count[255], 0);
    check(nst_nf_arg(f) == &nf);
    check_eq(nst_flow_proto(f), IPPROTO_UDP);
    check_eq(nst_flow_vlan(f), 0);
    nst_flow_endpoint(f, NST_CLIENT, &end);
    check_eq(end.port, 40001);
    check(memcmp(end.addr, (uint8_t[]){ 10, 0, 0, 1 }, 4) == 0);
    nst_flow_endpoint(f, NST_SERVER, &end);
    check_eq(end.port, 53);
    check(memcmp(end.addr, (uint8_t[]){ 10, 0, 0, 2 }, 4) == 0);
    size_t n = nst_flow_key(f, NST_CLIENT, a), m = nst_flow_key(f, NST_SERVER, b);
    check_eq(n, m);
    check(n <= NST_FLOW_KEY_MAX && memcmp(a, b, n) != 0);
    check(nst_flow_bytes(f, ev->side, &s));
    check_eq(s.len, 5);
    check(memcmp(s.p, "hello", 5) == 0);
    check(!nst_flow_bytes(f, ev->side, &s));
    check(nst_flow_packet(f, NST_SERVER) == ev->packet);
    check(nst_flow_packet(f, NST_CLIENT) == NULL);
    return NST_FORWARD;
}

static void flow_data_body(void)
{
    datagram(1, C2S, "hello");
    datagram(1, C2S, "hello");
    lab_settle();
    check_eq(calls, 2);
}

static void what_a_flow_knows(void **state)
{
    setup_udp(flow_data);
    nf.flow_size = 1024;
    config.nf_arg = &nf;
    lab_run(&config, flow_data_body);
}

/* ---- waiting ---- */
static void hold_body(void)
{
    datagram(1, C2S, "a");
    datagram(1, C2S, "1");
    datagram(2, C2S, "2");
    datagram(1, S2C, "3"); /* goes through the same half, so it waits */
    datagram(1, C2S, "b");
    datagram(1, C2S, "4");
    lab_settle();
    check_out(1, "2");
    check_out(0, "");
    check_eq(lab_stats().held, 4);
    lab_fulfil(&answer[0], 0);
    lab_settle();
    check_out(1, "2a1");
    check_out(0, "3");
    check(answer[1].open);
    check_eq(lab_stats().held, 1);
    datagram(1, C2S, "5");
    lab_settle();
    lab_fulfil(&answer[1], NST_DROP);
    lab_settle();
    check_out(1, "2a145");
    check_eq(lab_stats().held, 0);
    check_eq(lab_stats().waits, 2); /* the one that was held, too */
    check_eq(lab_stats().held_peak, 4);
}

static void packets_are_held_in_order(void **state)
{
    setup_udp(waits);
    nf.policy.budget = NST_SEC(100);
    lab_run(&config, hold_body);
}

static enum nst_verdict server_waits(struct nst_flow *f, const struct nst_event *ev)
{
    return ev->side == NST_SERVER ? waits(f, ev) : NST_FORWARD;
}

static void other_half_body(void)
{
    datagram(1, C2S, "a"); /* waits at the server's half */
    datagram(1, C2S, "1");
    datagram(1, C2S, "2");
    lab_settle();
    check_eq(calls, 4); /* the client's half has seen all three */
    check_eq(lab_stats().held, 2);
    lab_fulfil(&answer[0], 0);
    lab_settle();
    check_out(1, "a12");
}

static void the_other_half_goes_on(void **state)
{
    setup_udp(server_waits);
    nf.policy.budget = NST_SEC(100);
    nf.half[NST_CLIENT] = (struct nst_half){ .inspect = &nst_udp, .on_sent = NST_EV_PACKET, .handler = half_handler };
    lab_run(&config, other_half_body);
}

static void many_waits_body(void)
{
    char text[2] = "a";

    for (unsigned i = 0; i < 8; i++, text[0]++) {
        datagram(i, C2S, text);
        datagram(i, C2S, "1");
    }
    lab_settle();
    check_out(1, "");
    for (unsigned i = 8; i-- > 0;) {
        lab_fulfil(&answer[i], 0);
        lab_settle();
    }
    check_out(1, "h1g1f1e1d1c1b1a1");
}

static void flows_wait_for_themselves(void **state)
{
    setup_udp(waits);
    nf.policy.budget = NST_SEC(100);
    lab_run(&config, many_waits_body);
}

/* FORWARD_FLOW while packets are held, and the other half waits in turn: order is kept. */
static void forward_flow_order_body(void)
{
    datagram(1, C2S, "A"); /* the client's half waits for answer 7 */
    datagram(1, C2S, "b"); /* these will wait at the server's */
    datagram(1, C2S, "2");
    lab_settle();
    check_eq(lab_stats().held, 2);
    lab_fulfil(&answer[7], NST_FORWARD_FLOW);
    lab_settle();
    check(answer[1].open);
    datagram(1, C2S, "3");
    lab_settle();
    check_out(1, "A");
    lab_fulfil(&answer[1], 0);
    lab_settle();
    check_out(1, "Ab23");
}

static enum nst_verdict client_waits_once(struct nst_flow *f, const struct nst_event *ev)
{
    if (ev->side == NST_SERVER)
        return first_byte(f, ev) == 'A' ? NST_FORWARD : waits(f, ev);
    int rc = lab_wait(&answer[7], ev->until);
    return rc > 0 ? (enum nst_verdict)rc : NST_DROP;
}

static void forward_flow_keeps_order(void **state)
{
    setup_udp(client_waits_once);
    nf.policy.budget = NST_SEC(100);
    nf.half[NST_CLIENT] = (struct nst_half){ .inspect = &nst_udp, .on_sent = NST_EV_PACKET, .handler = half_handler };
    lab_run(&config, forward_flow_order_body);
}

static void late_verdict_body(enum nst_verdict v, const char *out, unsigned cause, unsigned dropped)
{
    datagram(1, C2S, "a");
    datagram(1, C2S, "1");
    datagram(1, S2C, "2");
    datagram(1, C2S, "3");
    lab_settle();
    lab_fulfil(&answer[0], (int)v);
    lab_settle();
    datagram(1, C2S, "4");
    lab_settle();
    check_out(1, out);
    check_eq(lab_stats().dropped[cause], dropped);
    check_eq(lab_stats().held, 0);
}

static void late_drop_body(void)
{
    late_verdict_body(NST_DROP, "134", NST_BY_VERDICT, 1);
}

static void late_drop_flow_body(void)
{
    late_verdict_body(NST_DROP_FLOW, "", NST_BY_FLOW_VERDICT, 5);
}

static void late_forward_flow_body(void)
{
    late_verdict_body(NST_FORWARD_FLOW, "a134", NST_BY_VERDICT, 0);
    check_eq(calls, 1);
}

static void late_undecided_body(void)
{
    late_verdict_body((enum nst_verdict)99, "134", NST_BY_OTHERWISE, 1);
}

static void verdicts_after_a_wait(void **state)
{
    void (*const body[])(void) = { late_drop_body, late_drop_flow_body, late_forward_flow_body, late_undecided_body };

    for (unsigned i = 0; i < 4; i++) {
        setup_udp(waits);
        nf.policy.budget = NST_SEC(100);
        lab_run(&config, body[i]);
    }
}

/* ---- opening ---- */
static void open_body(void)
{
    struct nst_engine *e = NULL;
    struct nst_port *none[3] = { NULL };
    struct nst_nf bad = nf;
    struct nst_engine_config c = { .nf = &bad };

    check_eq(nst_engine_open(&e, &c, none, 0), -EINVAL);
    check_eq(nst_engine_open(&e, &c, none, 3), -EINVAL);
    bad.flow_size = 1025;
    check_eq(nst_engine_open(&e, &c, none, 2), -EINVAL);
    bad = nf;
    bad.half[NST_SERVER].inspect = &nst_tcp; /* in an NF for UDP */
    check_eq(nst_engine_open(&e, &c, none, 2), -EINVAL);
    bad = nf;
    bad.policy.on_store = NST_PENDING;
    check_eq(nst_engine_open(&e, &c, none, 2), -EINVAL);
    check(e == NULL);
    check(nst_engine_flow_bytes(&nf) >= 64);
    for (unsigned i = 0; i < NST_CAUSES; i++)
        check(nst_cause_name((enum nst_cause)i) != NULL && nst_cause_name((enum nst_cause)i)[0] != '\0');
}

static void bad_engines(void **state)
{
    setup_udp(NULL);
    lab_run(&config, open_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdicts),
        cmocka_unit_test(invalid_verdicts_drop),
        cmocka_unit_test(invalid_verdicts_open),
        cmocka_unit_test(events_at_both_sides),
        cmocka_unit_test(nothing_registered),
        cmocka_unit_test(no_part_at_all),
        cmocka_unit_test(what_a_flow_knows),
        cmocka_unit_test(packets_are_held_in_order),
        cmocka_unit_test(the_other_half_goes_on),
        cmocka_unit_test(flows_wait_for_themselves),
        cmocka_unit_test(forward_flow_keeps_order),
        cmocka_unit_test(verdicts_after_a_wait),
        cmocka_unit_test(bad_engines),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
