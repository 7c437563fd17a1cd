/* SPDX-License-Identifier: Apache-2.0 */
/* How flows end: idle, by CLOSE that waits, by resets, with the engine. */
#include "flow_half_lab.h"

/* ---- expiry ---- */
static void expiry_body(void)
{
    datagram(1, C2S, "1");
    lab_settle();
    until_closed(1);
    check_eq(last_why, NST_CLOSED_BY_TIMEOUT);
    check_eq(lab_stats().flows, 0);
    /* A flow whose handler waits is not idle. */
    datagram(1, C2S, "a");
    lab_settle();
    check_eq(nst_sleep(nst_now() + NST_MS(60)), 0);
    lab_settle();
    check_eq(closes, 1);
    check(answer[0].open);
    lab_fulfil(&answer[0], 0);
    lab_settle();
    check_out(1, "1a");
    until_closed(2);
}

static void idle_flows_expire(void **state)
{
    setup_udp(waits);
    nf.policy.budget = NST_SEC(100);
    config.idle_udp = NST_MS(15);
    lab_run(&config, expiry_body);
}

/* ---- CLOSE that waits, and fails ---- */
static enum nst_verdict waits_at_close(struct nst_flow *f, const struct nst_event *ev)
{
    if ((ev->what & NST_EV_CLOSE) == 0)
        return by_letter(f, ev);
    closes++;
    (void)!lab_wait(&answer[closes - 1], NST_NEVER);
    return nst_fail(f, -EIO);
}

static void close_waits_body(void)
{
    datagram(1, C2S, "1");
    datagram(2, C2S, "2");
    lab_settle();
    until_closed(2); /* both wait at once */
    check_eq(lab_stats().flows, 2);
    lab_fulfil(&answer[1], 0);
    lab_settle();
    check_eq(lab_stats().flows, 1);
    lab_fulfil(&answer[0], 0);
    lab_settle();
    check_eq(lab_stats().flows, 0);
    datagram(3, C2S, "D");
    lab_settle();
    check_eq(lab_stats().dropped[NST_BY_VERDICT], 1);
    check_eq(lab_stats().dropped[NST_BY_STORE], 0);
    until_closed(3);
    lab_fulfil(&answer[2], 0);
}

static void close_may_wait(void **state)
{
    setup_udp(NULL);
    nf.half[NST_SERVER].handler = waits_at_close;
    config.idle_udp = NST_MS(15);
    lab_run(&config, close_waits_body);
}

/* ---- resets ---- */
static struct lab_path reset_path;

static enum nst_verdict resets(struct nst_flow *f, const struct nst_event *ev)
{
    return first_byte(f, ev) == 'R' ? NST_RESET_FLOW : NST_FORWARD;
}

static const struct lab_out *reset_by(unsigned port)
{
    const struct lab_out *found = NULL;

    for (unsigned i = 0; i < lab.n_out; i++) {
        const struct lab_out *o = &lab.out[i];
        if (o->port != port || o->tcp == NULL || (o->tcp->tcp_flags & RST) == 0)
            continue;
        check(found == NULL);
        found = o;
    }
    check(found != NULL);
    return found;
}

/* The reset must look like one of the other end's own, and have the very number that the endpoint expects next. */
static void check_reset(unsigned dir, uint32_t seq, uint32_t ack)
{
    const struct lab_out *o = reset_by(dir == C2S ? 1 : 0);
    uint8_t like[LAB_FRAME];
    unsigned tags = reset_path.tags, l3 = 14 + 4 * tags;

    if (o == NULL)
        return;
    unsigned len = lab_tcp_frame(like, &reset_path, dir, (struct lab_tcp){ .flags = RST | ACK });
    check_eq(o->len, len);
    if (o->len != len)
        return;
    check(memcmp(o->frame, like, l3) == 0);
    check_eq(rte_be_to_cpu_32(o->tcp->sent_seq), seq);
    check_eq(rte_be_to_cpu_32(o->tcp->recv_ack), ack);
    check_eq(o->tcp->src_port, rte_cpu_to_be_16(reset_path.port[dir]));
    check_eq(o->tcp->dst_port, rte_cpu_to_be_16(reset_path.port[!dir]));
    check_eq(o->tcp->data_off >> 4, 5);
    unsigned addr = reset_path.family == 4 ? 12 : 8, n = reset_path.family == 4 ? 8 : 32;
    check(memcmp(o->frame + l3 + addr, like + l3 + addr, n) == 0);
    uint8_t again[LAB_FRAME];
    memcpy(again, o->frame, o->len);
    lab_checksum(again, tags, reset_path.family, IPPROTO_TCP);
    check(memcmp(again, o->frame, o->len) == 0);
    if (reset_path.family == 4) {
        uint32_t sum = 0;
        for (unsigned i = 0; i < 20; i += 2)
            sum += (uint32_t)(o->frame[l3 + i] << 8 | o->frame[l3 + i + 1]);
        check_eq((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}

static void reset_body(void)
{
    lab_handshake(&reset_path, 1000, 500);
    lab_data(&reset_path, C2S, 1001, 501, "hello");
    lab_data(&reset_path, S2C, 501, 1006, "answer");
    lab_settle();
    lab_clear();
    lab_data(&reset_path, C2S, 1006, 507, "Rest of it");
    lab_settle();
    check_eq(lab.n_out, 2);
    check_reset(C2S, 1006, 507); /* the dropped bytes have not reached the server */
    check_reset(S2C, 507, 1016); /* the client has sent them */
    check_eq(lab_stats().injected, 2);
    lab_clear();
    lab_data(&reset_path, C2S, 1016, 507, "more");
    lab_data(&reset_path, S2C, 507, 1006, "more");
    lab_settle();
    check_eq(lab.n_out, 0);
    check_eq(lab_stats().dropped[NST_BY_FLOW_VERDICT], 3);
}

static void resets_to_both_ends(void **state)
{
    for (unsigned i = 0; i < 6; i++) {
        setup_tcp(resets);
        reset_path = i % 2 == 0 ? lab_tcp4 : lab_tcp6;
        reset_path.tags = (uint8_t)(i / 2);
        reset_path.vlan[0] = 5;
        reset_path.vlan[1] = 6;
        lab_run(&config, reset_body);
        assert_int_equal(closes, 1);
        assert_int_equal(last_why, NST_CLOSED_BY_VERDICT);
    }
}

static void reset_behind_body(void)
{
    /* The packet is ahead of a hole, and the client had not yet heard all that the server has sent it. */
    lab_handshake(&reset_path, 1000, 500);
    lab_data(&reset_path, S2C, 501, 1001, "banner");
    lab_settle();
    lab_clear();
    lab_data(&reset_path, C2S, 1006, 501, "Rest");
    lab_settle();
    check_reset(C2S, 1001, 501);
    check_reset(S2C, 507, 1010);
}

static void resets_have_the_next_numbers(void **state)
{
    setup_tcp(resets);
    nf.half[NST_SERVER].on_received = NST_EV_PACKET | NST_EV_CLOSE;
    reset_path = lab_tcp4;
    lab_run(&config, reset_behind_body);
}

static enum nst_verdict resets_syn(struct nst_flow *f, const struct nst_event *ev)
{
    return NST_RESET_FLOW;
}

static void reset_syn_body(void)
{
    lab_send_tcp(&reset_path, C2S, (struct lab_tcp){ .flags = SYN, .seq = 1000 });
    lab_settle();
    /* To the client: refused, as RFC 9293 says for a SYN without ACK. The server knows of nothing. */
    check_reset(S2C, 0, 1001);
    check_eq(lab_stats().dropped[NST_BY_FLOW_VERDICT], 1);
}

static void a_syn_is_refused(void **state)
{
    setup_tcp(resets_syn);
    nf.half[NST_SERVER].on_received = NST_EV_PACKET;
    reset_path = lab_tcp4;
    lab_run(&config, reset_syn_body);
}

/* ---- draining ---- */
static int drain_rc;

static void fulfil_later(void *arg)
{
    (void)!nst_sleep(nst_now() + NST_MS(20));
    lab_fulfil(&answer[0], 0);
}

static void drain_body(void)
{
    struct nst_scope *scope;

    datagram(1, C2S, "a");
    datagram(1, C2S, "1");
    lab_settle();
    check_eq(nst_scope_open(&scope, NULL), 0);
    check_eq(nst_spawn(scope, fulfil_later, NULL), 0);
    drain_rc = nst_engine_drain(lab.engine, nst_now() + NST_SEC(50));
    check_eq(drain_rc, 0);
    check_out(1, "a1");
    check_eq(closes, 1);
    check_eq(last_why, NST_CLOSED_BY_SHUTDOWN);
    nst_engine_close(lab.engine);
    lab.drained = true;
    (void)!nst_scope_close(scope);
}

static void drain_lets_handlers_end(void **state)
{
    setup_udp(waits);
    nf.policy.budget = NST_SEC(100);
    lab_run(&config, drain_body);
}

static void drain_cancel_body(void)
{
    datagram(1, C2S, "a");
    datagram(1, C2S, "b");
    datagram(1, C2S, "1");
    datagram(2, C2S, "c");
    lab_settle();
    drain_rc = nst_engine_drain(lab.engine, nst_now() + NST_MS(20));
    check_eq(drain_rc, 0);
    check(answer[0].stopped && answer[2].stopped);
    check_out(1, "1");
    check_eq(lab_stats().dropped[NST_BY_SHUTDOWN], 3);
    check_eq(lab_stats().held, 0);
    check_eq(lab_stats().flows, 0);
    check_eq(closes, 2);
    nst_engine_close(lab.engine);
    lab.drained = true;
    /* Who drained is not cancelled with them. */
    check_eq(nst_sleep(nst_now() + NST_MS(1)), 0);
}

static void drain_cancels_handlers(void **state)
{
    setup_udp(waits);
    nf.policy.budget = NST_SEC(100);
    lab_run(&config, drain_cancel_body);
}

static void drain_pending_body(void)
{
    datagram(1, C2S, "a");
    datagram(1, C2S, "1");
    lab_settle();
    check_eq(nst_engine_drain(lab.engine, nst_now() + NST_MS(5)), -ETIMEDOUT);
    nst_resume(pending_flow[0], NST_SERVER, NST_FORWARD);
    check_eq(nst_engine_drain(lab.engine, nst_now() + NST_SEC(50)), 0);
    check_out(1, "a1");
    nst_engine_close(lab.engine);
    lab.drained = true;
}

static void drain_waits_for_resume(void **state)
{
    setup_udp(pends);
    lab_run(&config, drain_pending_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle_flows_expire),      cmocka_unit_test(close_may_wait),
        cmocka_unit_test(resets_to_both_ends),    cmocka_unit_test(resets_have_the_next_numbers),
        cmocka_unit_test(a_syn_is_refused),       cmocka_unit_test(drain_lets_handlers_end),
        cmocka_unit_test(drain_cancels_handlers), cmocka_unit_test(drain_waits_for_resume),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
