/* SPDX-License-Identifier: Apache-2.0 */
/* An engine over a port that replays a capture: its clock, and when it reads. */
#include "flow_lab.h"
#include <netinet/in.h>
#include <stdlib.h>

static struct nst_nf nf;
static struct nst_engine_config config;
static unsigned calls, closes, quiets;
static struct lab_answer answer[64];
static char story[64][4096]; /* what happened to each flow, in order */
static unsigned told[64];

static void tell(unsigned flow, const char *what, unsigned number)
{
    unsigned *n = &told[flow % 64];

    *n += (unsigned)snprintf(story[flow % 64] + *n, sizeof story[0] - *n, "%s %u\n", what, number);
    if (*n >= sizeof story[0])
        *n = sizeof story[0] - 1;
    check(*n < sizeof story[0] - 1);
}

static char first_byte(const struct nst_event *ev)
{
    const struct nst_headers *h = nst_packet_headers(ev->packet);
    return *(const char *)nst_packet_bytes(ev->packet, h->payload, 1);
}

static unsigned client_port(struct nst_flow *f)
{
    struct nst_endpoint end;
    nst_flow_endpoint(f, NST_CLIENT, &end);
    return end.port;
}

static enum nst_verdict handler(struct nst_flow *f, const struct nst_event *ev)
{
    if (ev->what & NST_EV_CLOSE) {
        closes++;
        tell(client_port(f), "close", ev->why);
        return NST_FORWARD;
    }
    calls++;
    check_eq(nst_now(), nst_packet_time(ev->packet));
    check_eq(ev->until, nst_now() + nf.policy.budget);
    tell(client_port(f), "packet", (unsigned)nst_packet_number(ev->packet));
    char c = first_byte(ev);
    if (c >= 'a' && c <= 'h') {
        nst_outside(1);
        int rc = lab_wait(&answer[c - 'a'], ev->until);
        nst_outside(-1);
        if (rc < 0)
            return nst_fail(f, rc);
    } else if (c == 's') {
        nst_time at = nst_now();
        check_eq(nst_sleep(at + NST_MS(20)), 0);
        check(nst_now() >= at + NST_MS(20));
    }
    return NST_FORWARD;
}

static void quiet(void *arg)
{
    quiets++;
}

static void setup(void)
{
    calls = closes = quiets = 0;
    memset(told, 0, sizeof told);
    memset(story, 0, sizeof story);
    memset(answer, 0, sizeof answer);
    nf = (struct nst_nf){
        .name = "replay",
        .proto = IPPROTO_UDP,
        .half = { [NST_SERVER] = { .inspect = &nst_udp,
                                   .on_received = NST_EV_DATA | NST_EV_CLOSE,
                                   .handler = handler } },
        .policy = { .budget = NST_MS(200) },
    };
    config = (struct nst_engine_config){ .nf = &nf, .flows = 256, .quiet = quiet, .idle_udp = NST_SEC(5) };
}

static void datagram(unsigned flow, unsigned dir, const char *text)
{
    struct lab_path p = lab_udp4;
    p.port[0] = (uint16_t)(40000 + flow);
    lab_send_udp(&p, dir, text, (unsigned)strlen(text));
}

static void clock_body(void)
{
    for (unsigned i = 0; i < 100; i++) {
        datagram(i % 7, C2S, "1");
        lab.time += NST_US(1 + i * 17);
    }
    lab_settle();
    check_eq(calls, 100);
    check_eq(lab.n_out, 100);
}

static void the_clock_follows_the_packets(void **state)
{
    setup();
    lab_replay(&config, clock_body);
}

/* Nothing is read while an answer is missing, and the port is told when there is none. */
static void waiting_body(void)
{
    lab.burst = 1;
    datagram(1, C2S, "a");
    datagram(2, C2S, "1");
    datagram(3, C2S, "1");
    lab_turns(20);
    check_eq(lab.rx_calls, 1);
    check_eq(lab.n_out, 0);
    unsigned before = lab.quiet, told_before = quiets;
    lab_fulfil(&answer[0], 0);
    lab_settle();
    check_eq(lab.rx_calls, 3);
    check_eq(lab.n_out, 3);
    check_eq(lab.out[0].data[0], 'a');
    check(lab.quiet > before);
    check(quiets > told_before);
    unsigned after = quiets;
    lab_turns(10);
    check_eq(quiets, after); /* once, not in every turn */
}

static void nothing_is_read_while_a_handler_waits(void **state)
{
    setup();
    lab_replay(&config, waiting_body);
}

/* Packets of one burst lie far apart in the capture. An answer that is outstanding for an instant of real time is not
 * late because of that. */
static void apart_body(void)
{
    datagram(1, C2S, "a");
    lab.time += NST_SEC(2);
    datagram(2, C2S, "1");
    lab.time += NST_SEC(2);
    datagram(3, C2S, "1");
    lab_turns(5);
    check(answer[0].open);
    if (answer[0].open)
        lab_fulfil(&answer[0], 0);
    lab_settle();
    check_eq(lab.n_out, 3);
    check_eq(lab_stats().policy[NST_BY_TIMEOUT], 0);
}

static void time_between_packets_is_no_delay(void **state)
{
    setup();
    lab_replay(&config, apart_body);
}

/* An answer that never comes: the deadline passes by the wall clock. */
static void deadline_passes_body(void)
{
    datagram(1, C2S, "a");
    lab_settle();
    check(answer[0].open);
    check_eq(lab.n_out, 0);
    /* Nothing else is runnable, so the clock runs on. */
    lab.ended = true;
    check_eq(nst_engine_finish(lab.engine), 0);
    lab.ended = false;
    check(answer[0].stopped);
    check_eq(lab_stats().dropped[NST_BY_TIMEOUT], 1);
    datagram(2, C2S, "1");
    lab_settle();
    check_eq(lab.n_out, 1);
}

static void deadlines_pass_while_an_answer_is_outstanding(void **state)
{
    setup();
    lab_replay(&config, deadline_passes_body);
}

/* A handler that only sleeps does not cost real time: the clock jumps. */
static void sleep_body(void)
{
    nst_time began = nst_clock();

    for (unsigned i = 0; i < 200; i++) {
        lab.burst = 1;
        datagram(1, C2S, "s");
        lab.time += NST_SEC(1);
    }
    lab.ended = true;
    check_eq(nst_engine_finish(lab.engine), 0);
    check_eq(lab.n_out, 200);
    check(nst_clock() - began < NST_SEC(3)); /* the sleeps alone are four seconds of the capture's */
}

static void sleeping_costs_no_time(void **state)
{
    setup();
    lab_replay(&config, sleep_body);
}

/* The same flows end at the same places, whatever the size of the bursts. */
static unsigned burst;
static void expiry_body(void)
{
    uint64_t rnd = 42;

    lab.burst = burst;
    for (unsigned i = 0; i < 1000; i++) {
        datagram(lab_random(&rnd, 60), C2S, "1");
        lab.time += lab_random(&rnd, 40) == 0 ? NST_SEC(4) : NST_MS(lab_random(&rnd, 300));
    }
    lab_settle();
    check_eq(calls, 1000);
    check_eq(lab.n_out, 1000);
    tell(63, "flows", (unsigned)lab_stats().flows_opened);
    tell(63, "closed", (unsigned)lab_stats().flows_closed);
    tell(63, "peak", lab_stats().flows_peak);
}

static void expiry_by_capture_time(void **state)
{
    static char first[64][sizeof story[0]];
    static const unsigned sizes[] = { 32, 1, 7, 31 };

    for (unsigned i = 0; i < 4; i++) {
        setup();
        burst = sizes[i];
        lab_replay(&config, expiry_body);
        assert_true(closes > 100);
        if (i == 0)
            memcpy(first, story, sizeof story);
        for (unsigned k = 0; k < 64; k++)
            assert_string_equal(story[k], first[k]);
    }
}

/* nst_engine_finish returns when all was read and decided. */
static void finish_body(void)
{
    datagram(1, C2S, "1");
    datagram(2, C2S, "s");
    lab.ended = true;
    check_eq(nst_engine_finish(lab.engine), 0);
    check_eq(lab.n_out, 2);
}

static void finish(void **state)
{
    setup();
    lab_replay(&config, finish_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_clock_follows_the_packets),
        cmocka_unit_test(nothing_is_read_while_a_handler_waits),
        cmocka_unit_test(time_between_packets_is_no_delay),
        cmocka_unit_test(deadlines_pass_while_an_answer_is_outstanding),
        cmocka_unit_test(sleeping_costs_no_time),
        cmocka_unit_test(expiry_by_capture_time),
        cmocka_unit_test(finish),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
