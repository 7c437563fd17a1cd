/* SPDX-License-Identifier: Apache-2.0 */
/* Callback style, and packets that a handler takes for its own. */
#include "flow_half_lab.h"

/* ---- pending ---- */

static void pending_body(void)
{
    datagram(1, C2S, "a");
    datagram(1, C2S, "1");
    datagram(1, C2S, "b");
    datagram(1, C2S, "2");
    datagram(2, C2S, "3");
    lab_settle();
    check_out(1, "3");
    check_eq(lab_stats().held, 3);
    check_eq(lab_stats().waits, 1);
    nst_resume(pending_flow[0], NST_SERVER, NST_FORWARD);
    check_eq(lab.logged, 0);
    nst_resume(pending_flow[0], NST_SERVER, NST_FORWARD); /* once too often */
    check_eq(lab.logged, 1);
    lab_settle();
    check_out(1, "3a1");
    check(pending_flow[1] == pending_flow[0]);
    nst_resume(pending_flow[1], NST_SERVER, NST_DROP);
    lab_settle();
    check_out(1, "3a12");
    nst_resume(pending_flow[1], NST_SERVER, NST_FORWARD);
    check_eq(lab.logged, 2);
    /* Without anything held; a verdict by the policy; an impossible one. */
    datagram(1, C2S, "c");
    lab_settle();
    nst_resume(pending_flow[2], NST_SERVER, nst_fail(pending_flow[2], -EIO));
    lab_settle();
    check_eq(lab_stats().dropped[NST_BY_STORE], 1);
    datagram(1, C2S, "d");
    lab_settle();
    nst_resume(pending_flow[3], NST_SERVER, NST_PENDING);
    lab_settle();
    check_eq(lab_stats().dropped[NST_BY_OTHERWISE], 1);
    datagram(1, C2S, "e");
    datagram(1, C2S, "4");
    lab_settle();
    nst_resume(pending_flow[4], NST_SERVER, NST_DROP_FLOW);
    lab_settle();
    check_out(1, "3a12");
    check_eq(lab_stats().dropped[NST_BY_FLOW_VERDICT], 2);
    check_eq(lab_stats().held, 0);
}

static void pending_and_resumed(void **state)
{
    setup_udp(pends);
    lab_run(&config, pending_body);
}

/* Both halves pend; what the first lets go waits at the second. */
static enum nst_verdict pends_at_both(struct nst_flow *f, const struct nst_event *ev)
{
    pending_flow[0] = f;
    return NST_PENDING;
}

static void pending_both_body(void)
{
    datagram(1, C2S, "a");
    datagram(1, C2S, "b");
    datagram(1, C2S, "c");
    lab_settle();
    for (unsigned i = 0; i < 3; i++) {
        nst_resume(pending_flow[0], NST_CLIENT, NST_FORWARD);
        lab_settle();
    }
    check_out(1, "");
    check_eq(lab_stats().held, 2);
    for (unsigned i = 0; i < 3; i++) {
        nst_resume(pending_flow[0], NST_SERVER, NST_FORWARD);
        lab_settle();
    }
    check_out(1, "abc");
    check_eq(lab.logged, 0);
}

static void pending_at_both_halves(void **state)
{
    setup_udp(pends_at_both);
    nf.half[NST_CLIENT] = (struct nst_half){ .inspect = &nst_udp, .on_sent = NST_EV_PACKET, .handler = half_handler };
    lab_run(&config, pending_both_body);
}

/* Pending at CLOSE: the flow goes when it was resumed. */
static struct nst_flow *closing;
static unsigned close_calls;

static enum nst_verdict pends_at_close(struct nst_flow *f, const struct nst_event *ev)
{
    if (ev->what & NST_EV_CLOSE) {
        closing = f;
        close_calls++;
        return NST_PENDING;
    }
    return NST_FORWARD;
}

static void close_pending_body(void)
{
    datagram(1, C2S, "1");
    lab_settle();
    for (unsigned i = 0; i < 500 && closing == NULL; i++)
        check_eq(nst_sleep(nst_now() + NST_MS(2)), 0);
    check(closing != NULL);
    lab_settle();
    check_eq(lab_stats().flows, 1);
    datagram(1, C2S, "2"); /* a new flow of the same endpoints */
    lab_settle();
    check_eq(lab_stats().flows, 2);
    struct nst_flow *f = closing;
    closing = NULL;
    nst_resume(f, NST_SERVER, NST_DROP);
    nst_resume(f, NST_SERVER, NST_DROP);
    check_eq(lab.logged, 1);
    lab_settle();
    check_eq(close_calls >= 1, 1);
    for (unsigned i = 0; i < 500 && closing == NULL; i++)
        check_eq(nst_sleep(nst_now() + NST_MS(2)), 0);
    lab_settle();
    nst_resume(closing, NST_SERVER, NST_FORWARD);
    lab_settle();
    check_eq(lab_stats().flows, 0);
    check_out(1, "12");
    check_eq(lab_stats().dropped[NST_BY_VERDICT], 0);
}

static void pending_at_close(void **state)
{
    setup_udp(NULL);
    nf.half[NST_SERVER].handler = pends_at_close;
    config.idle_udp = NST_MS(15);
    closing = NULL;
    close_calls = 0;
    lab_run(&config, close_pending_body);
}

/* ---- taking ---- */
static struct nst_packet *kept;

static enum nst_verdict takes(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_packet *p;

    switch (first_byte(f, ev)) {
    case 's': /* sent at once, and back to where it came from */
        check_eq(nst_packet_send(nst_take(ev), nst_packet_port(ev->packet)), 0);
        return NST_TAKEN;
    case 'e': /* edited first */
        p = nst_take(ev);
        check_eq(nst_packet_edit(p, nst_packet_headers(p)->payload, "E", 1), 0);
        check_eq(nst_packet_send(p, 1), 0);
        return NST_TAKEN;
    case 'f':
        nst_packet_free(nst_take(ev));
        return NST_TAKEN;
    case 'n': /* no such port */
        check_eq(nst_packet_send(nst_take(ev), 2), -EINVAL);
        return NST_TAKEN;
    case 'k':
        kept = nst_take(ev);
        return NST_TAKEN;
    case 'w': /* freed, and only then waited: meanwhile the buffer is used again */
        nst_packet_free(nst_take(ev));
        check_eq(lab_wait(&answer[0], ev->until), 0);
        return NST_TAKEN;
    case 'l': /* a lie: it was taken and sent */
        check_eq(nst_packet_send(nst_take(ev), 1), 0);
        return NST_FORWARD;
    case 't': /* twice is once */
        p = nst_take(ev);
        check(nst_take(ev) == p);
        nst_packet_free(p);
        return NST_TAKEN;
    default:
        return by_letter(f, ev);
    }
}

static void take_body(void)
{
    datagram(1, C2S, "s");
    datagram(1, C2S, "e");
    datagram(1, C2S, "f");
    datagram(1, C2S, "n");
    datagram(1, C2S, "k");
    datagram(1, C2S, "1");
    datagram(1, C2S, "t");
    lab_settle();
    check_out(0, "s");
    check_out(1, "E1");
    check(kept != NULL);
    check_eq(nst_packet_send(kept, 1), 0);
    lab_settle();
    check_out(1, "E1k");
    check_eq(lab_stats().sent_by_handler, 3);
    check_eq(lab_stats().dropped[NST_BY_HANDLER], 3);
    check_eq(lab_stats().forwarded, 1);
    datagram(1, C2S, "w");
    lab_settle();
    for (unsigned i = 0; i < 600; i++)
        datagram(2, C2S, "2");
    lab_settle();
    lab_fulfil(&answer[0], 0);
    lab_settle();
    check_eq(lab_stats().forwarded, 601);
    check_eq(lab_stats().policy[NST_BY_OTHERWISE], 0);
    lab_clear();
    datagram(1, C2S, "l");
    lab_settle();
    check_out(1, "l");
    check_eq(lab_stats().policy[NST_BY_OTHERWISE], 1);
}

static void packets_are_taken(void **state)
{
    setup_udp(takes);
    nf.policy.budget = NST_SEC(100);
    kept = NULL;
    lab_run(&config, take_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pending_and_resumed),
        cmocka_unit_test(pending_at_both_halves),
        cmocka_unit_test(pending_at_close),
        cmocka_unit_test(packets_are_taken),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
