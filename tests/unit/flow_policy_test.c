/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to packets when the NF cannot decide: full queues and tables, failures, fragments. */
#include "flow_half_lab.h"

/* ---- the hold limit ---- */
static unsigned hold_dropped;
static const char *hold_out;

static void hold_full_body(void)
{
    datagram(1, C2S, "a");
    for (unsigned i = 0; i < 6; i++)
        datagram(1, C2S, (const char *[]){ "1", "2", "3", "4", "5", "6" }[i]);
    lab_settle();
    check_eq(lab_stats().policy[NST_BY_HOLD_FULL], nf.policy.on_hold_full >= NST_DROP_FLOW ? 1 : 2);
    lab_fulfil(&answer[0], 0);
    lab_settle();
    check_out(1, hold_out);
    check_eq(lab_stats().dropped[NST_BY_HOLD_FULL], hold_dropped);
    check_eq(lab_stats().held_peak, 4);
}

static void hold_limit(void **state)
{
    static const struct {
        enum nst_verdict v;
        const char *out;
        unsigned dropped;
    } cases[] = { { 0, "a1234", 2 },
                  { NST_DROP, "a1234", 2 },
                  { NST_FORWARD, "56a1234", 0 },
                  { NST_DROP_FLOW, "a", 1 },
                  { NST_RESET_FLOW, "a", 1 } };

    for (unsigned i = 0; i < 5; i++) {
        setup_udp(waits);
        nf.policy.budget = NST_SEC(100);
        nf.policy.hold = 4;
        nf.policy.on_hold_full = cases[i].v;
        hold_out = cases[i].out;
        hold_dropped = cases[i].dropped;
        lab_run(&config, hold_full_body);
    }
}

/* ---- policies ---- */
static int fail_rc;
static enum nst_cause fail_cause;

static enum nst_verdict fails(struct nst_flow *f, const struct nst_event *ev)
{
    return first_byte(f, ev) == 'f' ? nst_fail(f, fail_rc) : by_letter(f, ev);
}

static void fail_body(void)
{
    datagram(1, C2S, "f");
    datagram(1, C2S, "D");
    datagram(1, C2S, "1");
    lab_settle();
    struct nst_engine_stats s = lab_stats();
    bool open = nf.policy.on_timeout == NST_FORWARD;
    check_out(1, open ? "f1" : "1");
    check_eq(s.policy[fail_cause], 1);
    check_eq(s.dropped[fail_cause], !open);
    check_eq(s.dropped[NST_BY_VERDICT], 1); /* a later drop is not that cause's */
}

static void failures_by_cause(void **state)
{
    static const struct {
        int rc;
        enum nst_cause cause;
    } cases[] = { { -ETIMEDOUT, NST_BY_TIMEOUT }, { -ECANCELED, NST_BY_TIMEOUT }, { -ENOMEM, NST_BY_NO_MEMORY },
                  { -ENOSPC, NST_BY_NO_MEMORY },  { -ESRCH, NST_BY_MIDSTREAM },   { -ECONNRESET, NST_BY_STORE },
                  { -EIO, NST_BY_STORE },         { -EBUSY, NST_BY_STORE },       { -ENOTCONN, NST_BY_STORE } };

    for (unsigned i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        setup_udp(fails);
        fail_rc = cases[i / 2].rc;
        fail_cause = cases[i / 2].cause;
        if (i % 2 != 0)
            nf.policy.on_timeout = nf.policy.on_store = nf.policy.on_no_memory = nf.policy.on_midstream = NST_FORWARD;
        lab_run(&config, fail_body);
    }
}

/* The cause of a failure is its own flow's: another flow's verdict in between does not take it. */
static enum nst_verdict fails_then_waits(struct nst_flow *f, const struct nst_event *ev)
{
    if (first_byte(f, ev) != 'f')
        return by_letter(f, ev);
    enum nst_verdict v = nst_fail(f, -EIO);
    check_eq(lab_wait(&answer[0], ev->until), 0);
    return v;
}

static void cause_body(void)
{
    datagram(1, C2S, "f");
    lab_settle();
    datagram(2, C2S, "D");
    lab_settle();
    check_eq(lab_stats().dropped[NST_BY_VERDICT], 1);
    lab_fulfil(&answer[0], 0);
    lab_settle();
    check_eq(lab_stats().dropped[NST_BY_STORE], 1);
}

static void cause_stays_with_its_flow(void **state)
{
    setup_udp(fails_then_waits);
    nf.policy.budget = NST_SEC(100);
    lab_run(&config, cause_body);
}

static void wait_until_settled(unsigned n_out_or_drops)
{
    for (unsigned i = 0; i < 500; i++) {
        struct nst_engine_stats s = lab_stats();
        uint64_t done = s.forwarded;
        for (unsigned c = 0; c < NST_CAUSES; c++)
            done += s.dropped[c];
        if (done >= n_out_or_drops)
            return;
        check_eq(nst_sleep(nst_now() + NST_MS(2)), 0);
    }
    check(!"every packet has met its end");
}

static void timeout_body(void)
{
    datagram(1, C2S, "a");
    datagram(1, C2S, "1");
    lab_settle();
    wait_until_settled(2);
    lab_settle(); /* what was forwarded is on its way */
    bool open = nf.policy.on_timeout == NST_FORWARD;
    check_out(1, open ? "a1" : "1");
    check_eq(lab_stats().dropped[NST_BY_TIMEOUT], !open);
    check_eq(lab_stats().policy[NST_BY_TIMEOUT], 1);
    check(answer[0].stopped);
}

static void budgets_run_out(void **state)
{
    for (unsigned open = 0; open < 2; open++) {
        setup_udp(waits);
        nf.policy.budget = NST_MS(10);
        nf.policy.on_timeout = open ? NST_FORWARD : 0;
        lab_run(&config, timeout_body);
    }
}

static void fragment(uint8_t *frame, unsigned *len, uint8_t proto)
{
    struct lab_path p = proto == IPPROTO_TCP ? lab_tcp4 : lab_udp4;
    *len = proto == IPPROTO_TCP ? lab_tcp_frame(frame, &p, C2S, (struct lab_tcp){ .flags = ACK, .data = "f", .len = 1 })
                                : lab_udp_frame(frame, &p, C2S, "f", 1);
    frame[20] = 0x20;
}

static void fragments_body(void)
{
    uint8_t frame[LAB_FRAME];
    unsigned len;
    bool open = nf.policy.on_fragment == NST_FORWARD;

    fragment(frame, &len, IPPROTO_UDP);
    lab_send(0, frame, len);
    fragment(frame, &len, IPPROTO_TCP);
    lab_send(0, frame, len); /* of another protocol: not this NF's */
    lab_settle();
    check_eq(lab.n_out, 1 + open);
    check_eq(lab_stats().dropped[NST_BY_FRAGMENT], !open);
    check_eq(lab_stats().policy[NST_BY_FRAGMENT], 1);
    check_eq(lab_stats().other_proto, 1);

    len = lab_udp_frame(frame, &lab_udp4, C2S, "m", 1);
    frame[39] = 200; /* UDP's length */
    lab_send(0, frame, len);
    lab_settle();
    check_eq(lab.n_out, 1 + open * 2);
    check_eq(lab_stats().dropped[NST_BY_MALFORMED], !open);
    lab_send(0, frame, 20); /* no whole IP header */
    lab_settle();
    check_eq(lab.n_out, 1 + open * 3);
    check_eq(lab_stats().dropped[NST_BY_MALFORMED], open ? 0 : 2);
    check_eq(lab_stats().policy[NST_BY_MALFORMED], 2);
    check_eq(calls, 0);
}

static void fragments_and_malformed(void **state)
{
    for (unsigned open = 0; open < 2; open++) {
        setup_udp(NULL);
        nf.policy.on_fragment = nf.policy.on_malformed = open ? NST_FORWARD : 0;
        lab_run(&config, fragments_body);
    }
}

static void passing_body(void)
{
    uint8_t frame[64], tcp[LAB_FRAME], icmp[LAB_FRAME];
    unsigned tcp_len = lab_tcp_frame(tcp, &lab_tcp4, S2C, (struct lab_tcp){ .flags = ACK, .data = "x", .len = 1 });
    unsigned icmp_len = lab_ip_header(icmp, &lab_tcp6, C2S, IPPROTO_ICMPV6, 4) + 4;

    memset(icmp + icmp_len - 4, 7, 4);
    for (unsigned i = 0; i < sizeof frame; i++)
        frame[i] = (uint8_t)i;
    lab_send(0, frame, sizeof frame);
    lab_send(1, tcp, tcp_len);
    lab_send(0, icmp, icmp_len);
    lab_send(1, frame, 5);
    lab_settle();
    check_eq(lab.n_out, 3);
    for (unsigned i = 0; i < lab.n_out; i++) {
        const uint8_t *is = lab.out[i].port == 0 ? tcp : lab.out[i].len == 64 ? frame : icmp;
        check(memcmp(lab.out[i].frame, is, lab.out[i].len) == 0);
    }
    check_eq(lab_stats().not_ip, 1);
    check_eq(lab_stats().other_proto, 2);
    check_eq(lab_stats().flows_opened, 0);
    check_eq(lab_stats().forwarded, 3);
    check_eq(lab_stats().dropped[NST_BY_MALFORMED], 1); /* it has not even an Ethernet header */
}

static void what_is_not_ours_passes(void **state)
{
    setup_udp(NULL);
    lab_run(&config, passing_body);
}

/* ---- a full table ---- */
static void full_body(void)
{
    bool open = nf.policy.on_no_memory == NST_FORWARD;
    struct lab_path p = lab_tcp4;

    for (unsigned i = 0; i < 6; i++) { /* established and in use: never given up for what is new */
        p.port[0] = (uint16_t)(1000 + i);
        if (i < 4)
            lab_handshake(&p, 1, 2);
        else
            lab_send_tcp(&p, C2S, (struct lab_tcp){ .flags = SYN, .seq = 7 });
    }
    lab_settle();
    check_eq(lab.n_out, open ? 2 : 0);
    check_eq(lab_stats().dropped[NST_BY_NO_MEMORY], open ? 0 : 2);
    check_eq(lab_stats().policy[NST_BY_NO_MEMORY], 2);
    check_eq(lab_stats().flows_refused, 2);
    check_eq(lab_stats().flows, 4);
    check_eq(lab_stats().flows_evicted, 0);
}

static void full_table(void **state)
{
    for (unsigned open = 0; open < 2; open++) {
        setup_tcp(NULL);
        nf.policy.on_no_memory = open ? NST_FORWARD : 0;
        config.flows = 4;
        lab_run(&config, full_body);
    }
}

static void evict_body(void)
{
    struct lab_path p = lab_tcp4;

    lab_handshake(&lab_tcp4, 1, 2);
    for (unsigned i = 0; i < 50; i++) { /* opening flows make room for one another, the established one stays */
        p.port[0] = (uint16_t)(1000 + i);
        lab_send_tcp(&p, C2S, (struct lab_tcp){ .flags = SYN, .seq = 7 });
        lab_settle();
    }
    check_eq(lab.n_out, 50); /* each at once: nobody had to try again */
    check_eq(lab_stats().flows_evicted, 47);
    check_eq(lab_stats().evicted[NST_WORTH_UNANSWERED], 47);
    check_eq(lab_stats().flows_refused, 0);
    check_eq(closes, 47);
    check_eq(last_why, NST_CLOSED_BY_EVICTION);
    lab_clear();
    lab_data(&lab_tcp4, C2S, 2, 3, "still here");
    lab_settle();
    check_eq(lab.n_out, 1);
    check_eq(calls, 1);
}

static void opening_flows_are_evicted(void **state)
{
    setup_tcp(NULL);
    config.flows = 4;
    lab_run(&config, evict_body);
}

/* ---- what goes first ---- */
static struct lab_path at_port(uint8_t proto, unsigned port)
{
    struct lab_path p = proto == IPPROTO_TCP ? lab_tcp4 : lab_udp4;
    p.port[0] = (uint16_t)port;
    return p;
}

static void order_body(void)
{
    enum { EACH = 8 };
    struct lab_path p;

    for (unsigned i = 0; i < EACH; i++) {
        p = at_port(IPPROTO_TCP, 1000 + i); /* established */
        lab_handshake(&p, 1, 2);
        p = at_port(IPPROTO_UDP, 1000 + i); /* both ways */
        lab_send_udp(&p, C2S, "q", 1);
        lab_send_udp(&p, S2C, "a", 1);
        p = at_port(IPPROTO_TCP, 2000 + i); /* answered */
        lab_send_tcp(&p, C2S, (struct lab_tcp){ .flags = SYN, .seq = 7 });
        lab_send_tcp(&p, S2C, (struct lab_tcp){ .flags = SYN | ACK, .seq = 9, .ack = 8 });
        p = at_port(IPPROTO_UDP, 2000 + i); /* one way */
        lab_send_udp(&p, C2S, "q", 1);
        p = at_port(IPPROTO_TCP, 3000 + i); /* unanswered; a reset is no answer */
        lab_send_tcp(&p, C2S, (struct lab_tcp){ .flags = SYN, .seq = 7 });
        if (i & 1)
            lab_send_tcp(&p, S2C, (struct lab_tcp){ .flags = RST, .seq = 0 });
        lab_settle();
    }
    check_eq(lab_stats().flows, 5 * EACH);
    /* The table is full. One-way datagrams come: what is worth less than they goes, then one for another. Of what is
     * unanswered the last 32nd of the table is spared. */
    for (unsigned i = 0; i < 2 * EACH; i++) {
        p = at_port(IPPROTO_UDP, 5000 + i);
        lab_send_udp(&p, C2S, "q", 1);
        lab_settle();
    }
    struct nst_engine_stats s = lab_stats();
    check_eq(s.evicted[NST_WORTH_UNANSWERED], EACH - 1);
    check_eq(s.evicted[NST_WORTH_UDP_ONE_WAY], EACH + 1);
    check_eq(s.flows_evicted, 2 * EACH);
    check_eq(s.flows, 5 * EACH);
    check_eq(s.flows_refused, 0);
    lab_clear();
    for (unsigned i = 0; i < EACH; i++) {
        p = at_port(IPPROTO_TCP, 1000 + i);
        lab_data(&p, C2S, 2, 3, "still here");
    }
    lab_settle();
    check_eq(lab.n_out, EACH);
}

static void the_least_worthy_goes_first(void **state)
{
    setup_udp(NULL);
    nf.proto = 0; /* nobody follows TCP */
    nf.half[NST_SERVER] = (struct nst_half){ .on_received = NST_EV_PACKET, .handler = half_handler };
    config.flows = 40;
    lab_run(&config, order_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hold_limit),
        cmocka_unit_test(failures_by_cause),
        cmocka_unit_test(cause_stays_with_its_flow),
        cmocka_unit_test(budgets_run_out),
        cmocka_unit_test(fragments_and_malformed),
        cmocka_unit_test(what_is_not_ours_passes),
        cmocka_unit_test(full_table),
        cmocka_unit_test(opening_flows_are_evicted),
        cmocka_unit_test(the_least_worthy_goes_first),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
