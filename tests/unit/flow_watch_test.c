/* SPDX-License-Identifier: Apache-2.0 */
/* Registrations that change while a flow lives, and events that are built from others. */
#include "flow_lab.h"
#include <netinet/in.h>
#include <stdlib.h>

static const struct lab_path *const path = &lab_tcp4;
static struct nst_nf nf;
static struct nst_engine_config config;

static struct heard {
    nst_events what;
    enum nst_dir dir;
    char text[32];
} heard[1024];
static unsigned n_heard, closes;
static bool waits; /* in the next event */
static struct lab_answer answer;
static struct nst_flow *flow;
static void (*in_event)(struct nst_flow *f, const struct nst_event *ev);

static void text_of(struct nst_flow *f, enum nst_side side, char *to, size_t cap)
{
    struct nst_slice s;
    size_t n = 0;

    while (nst_flow_bytes(f, side, &s)) {
        size_t take = s.len < cap - 1 - n ? s.len : cap - 1 - n;
        memcpy(to + n, s.p, take);
        n += take;
    }
    to[n] = '\0';
}

static enum nst_verdict listen_to(struct nst_flow *f, const struct nst_event *ev)
{
    flow = f;
    if (ev->what & NST_EV_CLOSE)
        closes++;
    check(n_heard < 1024);
    struct heard *h = &heard[n_heard++ % 1024];
    *h = (struct heard){ .what = ev->what, .dir = ev->dir };
    if (ev->packet != NULL)
        text_of(f, ev->side, h->text, sizeof h->text);
    if (in_event != NULL)
        in_event(f, ev);
    if (waits) {
        waits = false;
        check_eq(lab_wait(&answer, NST_NEVER), 0);
    }
    return NST_FORWARD;
}

static void setup(nst_events sent, nst_events received)
{
    n_heard = closes = 0;
    waits = false;
    in_event = NULL;
    flow = NULL;
    memset(&answer, 0, sizeof answer);
    nf = (struct nst_nf){
        .name = "watch",
        .half = { [NST_CLIENT] = { .inspect = &nst_tcp },
                  [NST_SERVER] = { .inspect = &nst_tcp,
                                   .on_sent = sent,
                                   .on_received = received,
                                   .handler = listen_to } },
        .policy = { .budget = NST_SEC(100) },
    };
    config = (struct nst_engine_config){ .nf = &nf, .flows = 1024 };
}

static void data(uint32_t seq, const char *text)
{
    lab_data(path, C2S, seq, 501, text);
    lab_settle();
}

static void segment(unsigned dir, uint8_t flags, uint32_t seq, uint32_t ack)
{
    lab_send_tcp(path, dir, (struct lab_tcp){ .flags = flags, .seq = seq, .ack = ack });
    lab_settle();
}

static void check_heard(const char *file, int line, unsigned n, nst_events what, const char *text)
{
    if (n >= n_heard) {
        lab_fail(file, line, "it was heard");
        return;
    }
    lab_equal(file, line, "what was heard", (long long)heard[n].what, (long long)what);
    if (strcmp(heard[n].text, text) != 0) {
        fprintf(stderr, "%s:%d: heard \"%s\", should be \"%s\"\n", file, line, heard[n].text, text);
        lab.failures++;
    }
}
#define check_event(n, what, text) check_heard(__FILE__, __LINE__, n, what, text)

/* ---- the vocabulary of a connection ---- */
static void life_body(void)
{
    segment(C2S, SYN, 1000, 0);
    segment(C2S, SYN, 1000, 0); /* the same once more */
    segment(S2C, SYN | ACK, 500, 1001);
    segment(C2S, ACK, 1001, 501);
    data(1001, "hello");
    lab_data(path, S2C, 501, 1006, "hi");
    segment(C2S, FIN | ACK, 1009, 503); /* behind a hole: the end has not got it all */
    data(1006, "you");
    segment(S2C, FIN | ACK, 503, 1010);
    segment(S2C, FIN | ACK, 503, 1010);
    segment(C2S, ACK, 1010, 504);
    lab_settle();
    check_eq(n_heard, 5);
    check_event(0, NST_EV_START, "");
    check_event(1, NST_EV_OPEN, "");
    check_event(2, NST_EV_DATA, "hello");
    check_event(3, NST_EV_DATA | NST_EV_FIN, "you");
    check_eq(heard[3].dir, NST_RECEIVED);
    check_event(4, NST_EV_FIN, "");
    check_eq(heard[4].dir, NST_SENT);
}

static void start_and_fin(void **state)
{
    const nst_events all = NST_EV_START | NST_EV_OPEN | NST_EV_DATA | NST_EV_FIN | NST_EV_RESET;
    setup(all, all);
    lab_run(&config, life_body);
}

static void reset_body(void)
{
    lab_handshake(path, 1000, 500);
    segment(C2S, RST, 1003, 0); /* not the very next number: the end ignores it */
    check_eq(n_heard, 0);
    segment(C2S, RST, 1001, 0);
    check_eq(n_heard, 1);
    check_event(0, NST_EV_RESET, "");
}

static void a_valid_reset(void **state)
{
    setup(0, NST_EV_RESET);
    lab_run(&config, reset_body);
}

/* ---- events built from others ---- */
enum { WORD, LONG_WORD, EVERY, NEVER };
static unsigned asked[4];
static nst_events occurred; /* when LONG_WORD was asked */

static bool is_word(struct nst_flow *f, const struct nst_event *ev)
{
    char text[32];

    asked[WORD]++;
    check_eq(ev->side, NST_SERVER);
    check(ev->packet != NULL && ev->packet == nst_flow_packet(f, ev->side));
    text_of(f, ev->side, text, sizeof text);
    return text[0] >= 'a' && text[0] <= 'z';
}

static bool is_long(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_slice s;

    asked[LONG_WORD]++;
    occurred = ev->what;
    return nst_flow_bytes(f, ev->side, &s) && s.len > 4;
}

static bool is_never(struct nst_flow *f, const struct nst_event *ev)
{
    asked[NEVER]++;
    return false;
}

#define EV(n) NST_EV_USER(n)
static const struct nst_user_event words[] = {
    { .n = WORD, .of = NST_EV_DATA, .filter = is_word },
    { .n = NEVER, .of = NST_EV_PACKET, .filter = is_never },
    { .n = LONG_WORD, .of = EV(WORD), .filter = is_long },
    { .n = EVERY, .of = EV(LONG_WORD) | EV(NEVER) },
};

static void setup_words(nst_events received)
{
    setup(0, received);
    memset(asked, 0, sizeof asked);
    nf.events = words;
    nf.n_events = 4;
}

static void built_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "WORD");
    data(1005, "word");
    data(1009, "longer");
    check_eq(n_heard, 1);
    check_event(0, EV(EVERY), "longer"); /* the filters have read it, too */
    check_eq(asked[WORD], 3);
    check_eq(asked[LONG_WORD], 2);
    check_eq(asked[NEVER], 5); /* every packet that this half receives: SYN, ACK, and three of data */
    check(occurred & NST_EV_DATA);
    check(occurred & EV(WORD));
    check_eq(lab_stats().events, 1);
}

static void an_event_of_an_event(void **state)
{
    setup_words(EV(EVERY));
    lab_run(&config, built_body);
}

static void not_asked_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "word");
    check_eq(n_heard, 1);
    check_event(0, EV(WORD), "word");
    check_eq(asked[WORD], 1);
    check_eq(asked[LONG_WORD] + asked[NEVER], 0);
    lab_data(path, S2C, 501, 1005, "other");
    lab_settle();
    check_eq(asked[WORD], 1);
}

static void a_filter_that_nobody_needs(void **state)
{
    setup_words(EV(WORD));
    lab_run(&config, not_asked_body);
    assert_int_equal(asked[NEVER], 0);
}

static void silent_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "word");
    check_eq(asked[WORD] + asked[LONG_WORD] + asked[NEVER], 0);
}

static void no_event_is_registered(void **state)
{
    setup_words(NST_EV_DATA);
    lab_run(&config, silent_body);
}

/* A retransmission must be compared although only an event built from DATA is registered. */
static void compared_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "word");
    check(lab_stats().stream_kept > 0);
    data(1001, "WORD");
    check_eq(lab_stats().dropped[NST_BY_CONFLICT], 1);
    check_eq(n_heard, 1);
}

static void built_from_data(void **state)
{
    setup_words(EV(WORD));
    lab_run(&config, compared_body);
}

static void held_body(void)
{
    lab_handshake(path, 1000, 500);
    waits = true;
    data(1001, "first");
    data(1006, "NOT");
    data(1009, "second");
    check_eq(n_heard, 1);
    check_eq(asked[WORD], 1);
    lab_fulfil(&answer, 0);
    lab_settle();
    check_eq(n_heard, 2);
    check_event(1, EV(WORD), "second");
    check_eq(lab.n_out, 3);
}

static void built_for_held_packets(void **state)
{
    setup_words(EV(WORD));
    lab_run(&config, held_body);
}

static void own_loop(struct nst_flow *f, enum nst_side side)
{
    struct nst_event ev;

    while (nst_next(f, side, &ev, NST_NEVER) == 0) {
        struct heard *h = &heard[n_heard++ % 1024];
        h->what = ev.what;
        text_of(f, side, h->text, sizeof h->text);
        nst_decide(f, &ev, NST_FORWARD);
    }
}

static void loop_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "one");
    data(1004, "TWO");
    data(1007, "three");
    check_eq(n_heard, 2);
    check_event(0, EV(WORD), "one");
    check_event(1, EV(WORD), "three");
    check_eq(lab.n_out, 3);
}

static void built_in_a_loop(void **state)
{
    setup_words(EV(WORD));
    nf.half[NST_SERVER].handler = NULL;
    nf.half[NST_SERVER].loop = own_loop;
    lab_run(&config, loop_body);
}

static int opened;

static void open_wrong(void *arg)
{
    struct nst_engine *e = NULL;
    struct nst_port *none[1] = { NULL };

    opened = nst_engine_open(&e, &config, none, 1);
    nst_reactor_stop(nst_reactor_self());
}

static void wrong_tables(void **state)
{
    static const struct nst_user_event wrong[][2] = {
        { { .n = 0, .of = NST_EV_DATA }, { .n = 0, .of = NST_EV_PACKET } }, /* twice */
        { { .n = 0, .of = EV(1) }, { .n = 1, .of = NST_EV_DATA } },         /* from what stands below */
        { { .n = 0, .of = EV(0) }, { .n = 1, .of = NST_EV_DATA } },         /* from itself */
        { { .n = 0, .of = 0 }, { .n = 1, .of = NST_EV_DATA } },
        { { .n = 0, .of = NST_EV_CLOSE }, { .n = 1, .of = NST_EV_DATA } },
        { { .n = 0, .of = NST_EV_DATA }, { .n = 32, .of = NST_EV_DATA } },
    };

    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct nst_reactor_config rc = { .cpu = -1 };
        struct nst_reactor *r = NULL;
        setup(0, 0);
        nf.events = wrong[i];
        nf.n_events = 2;
        opened = 0;
        assert_int_equal(nst_reactor_open(&r, &rc), 0);
        assert_int_equal(nst_reactor_run(r, open_wrong, NULL), 0);
        nst_reactor_close(r);
        assert_int_equal(opened, -EINVAL);
    }
}

/* ---- at any time ---- */
static void first_only(struct nst_flow *f, const struct nst_event *ev)
{
    check_eq(nst_flow_ignore(f, NST_SERVER, NST_RECEIVED, NST_EV_DATA), 0);
    check_eq(nst_flow_watched(f, NST_SERVER, NST_RECEIVED), NST_EV_RETRANSMIT);
}

static void withdraw_body(void)
{
    const struct lab_path other = { .family = 4, .proto = IPPROTO_TCP, .host = { 1, 2 }, .port = { 40001, 80 } };

    in_event = first_only;
    lab_handshake(path, 1000, 500);
    lab_handshake(&other, 1000, 500);
    data(1001, "one");
    data(1004, "two");
    check_eq(n_heard, 1);
    check_event(0, NST_EV_DATA, "one");
    check_eq(lab.n_out, 2);
    /* What was delivered is not kept any longer than somebody looks at it. */
    check_eq(lab_stats().stream_kept, 0);
    /* Other flows are as they were. */
    lab_data(&other, C2S, 1001, 501, "else");
    lab_settle();
    check_eq(n_heard, 2);
    check_event(1, NST_EV_DATA, "else");
    /* And once more. */
    in_event = NULL;
    check_eq(nst_flow_watch(flow, NST_SERVER, NST_RECEIVED, NST_EV_DATA), 0);
    lab_data(&other, C2S, 1005, 501, "more");
    lab_settle();
    check_event(2, NST_EV_DATA, "more");
    check_eq(nst_flow_watched(flow, NST_SERVER, NST_RECEIVED), NST_EV_DATA | NST_EV_RETRANSMIT);
}

static void withdrawal(void **state)
{
    setup(0, NST_EV_DATA | NST_EV_RETRANSMIT);
    lab_run(&config, withdraw_body);
}

static void data_too(struct nst_flow *f, const struct nst_event *ev)
{
    if (ev->what & NST_EV_OPEN)
        check_eq(nst_flow_watch(f, NST_SERVER, NST_RECEIVED, NST_EV_DATA), 0);
}

static void later_body(void)
{
    /* This very packet has bytes: they are not an event yet, the next packet's are. */
    segment(C2S, SYN, 1000, 0);
    segment(S2C, SYN | ACK, 500, 1001);
    data(1001, "early");
    check_eq(n_heard, 1);
    check_event(0, NST_EV_OPEN, "early");
    data(1006, "late");
    check_eq(n_heard, 2);
    check_event(1, NST_EV_DATA, "late");
    /* Nothing is left to compare the first bytes with; the others are compared. */
    data(1001, "other");
    check_eq(lab_stats().unverified, 1);
    check_eq(lab_stats().conflicts, 0);
    data(1006, "LATE");
    check_eq(lab_stats().dropped[NST_BY_CONFLICT], 1);
}

static void data_in_the_middle(void **state)
{
    setup(0, NST_EV_OPEN);
    in_event = data_too;
    lab_run(&config, later_body);
}

static void held_change_body(void)
{
    lab_handshake(path, 1000, 500);
    waits = true;
    data(1001, "one");
    data(1004, "two");
    data(1007, "three");
    check_eq(n_heard, 1);
    /* They arrived when DATA was registered, but are inspected when it is not. */
    check_eq(nst_flow_ignore(flow, NST_SERVER, NST_RECEIVED, NST_EV_DATA), 0);
    lab_fulfil(&answer, 0);
    lab_settle();
    check_eq(n_heard, 1);
    check_eq(lab.n_out, 3);
}

static void a_change_holds_for_held_packets(void **state)
{
    setup(0, NST_EV_DATA);
    lab_run(&config, held_change_body);
}

static void other_direction(struct nst_flow *f, const struct nst_event *ev)
{
    check_eq(nst_flow_watch(f, NST_SERVER, NST_SENT, NST_EV_PACKET), 0);
    check_eq(nst_flow_watch(f, NST_CLIENT, NST_SENT, NST_EV_PACKET), -EINVAL); /* it has no async part */
}

static void direction_body(void)
{
    lab_handshake(path, 1000, 500);
    lab_data(path, S2C, 501, 1001, "unheard");
    lab_settle();
    data(1001, "one");
    lab_data(path, S2C, 508, 1004, "heard");
    lab_settle();
    check_eq(n_heard, 2);
    check_eq(heard[1].dir, NST_SENT);
    check_event(1, NST_EV_PACKET, "");
}

static void the_other_direction(void **state)
{
    setup(0, NST_EV_DATA);
    in_event = other_direction;
    lab_run(&config, direction_body);
}

static void close_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "one");
    check(flow != NULL);
    if (flow != NULL)
        check_eq(nst_flow_watch(flow, NST_SERVER, NST_SENT, NST_EV_CLOSE), 0);
}

static void close_is_registered_late(void **state)
{
    setup(0, NST_EV_DATA);
    lab_run(&config, close_body);
    assert_int_equal(closes, 1);
}

static void no_close_body(void)
{
    lab_handshake(path, 1000, 500);
    data(1001, "one");
    if (flow != NULL)
        check_eq(nst_flow_ignore(flow, NST_SERVER, NST_RECEIVED, NST_EV_CLOSE), 0);
}

static void close_is_withdrawn(void **state)
{
    setup(0, NST_EV_DATA | NST_EV_CLOSE);
    lab_run(&config, no_close_body);
    assert_int_equal(closes, 0);
}

/* ---- no more than 255 sets ---- */
static int results[2];

static void own_set(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_endpoint c;

    if (ev->what & NST_EV_CLOSE)
        return;
    nst_flow_endpoint(f, NST_CLIENT, &c);
    int rc = nst_flow_watch(f, NST_SERVER, NST_SENT, EV(c.port & 15) | EV(16 + (c.port >> 4 & 15)));
    check(rc == 0 || rc == -ENOSPC);
    results[rc != 0]++;
    if (rc != 0)
        check_eq(nst_flow_watched(f, NST_SERVER, NST_SENT), 0);
}

static void many_flows(unsigned n)
{
    results[0] = results[1] = 0;
    for (unsigned i = 0; i < n; i++) {
        struct lab_path p = {
            .family = 4, .proto = IPPROTO_UDP, .host = { 1 + i / 256, 2 }, .port = { 0x4000 + i % 256, 53 }
        };
        lab_send_udp(&p, C2S, "x", 1);
        lab_settle();
    }
}

static void sets_body(void)
{
    many_flows(512); /* 256 different sets, each twice */
    check_eq(results[0], 510);
    check_eq(results[1], 2);
    check_eq(lab_stats().watch_full, 2);
    for (unsigned i = 0; i < 200 && lab_stats().flows != 0; i++) {
        check_eq(nst_sleep(nst_now() + NST_MS(5)), 0);
        lab_turns(1);
    }
    check_eq(lab_stats().flows, 0);
    many_flows(255); /* the flows are gone, and so are their sets */
    check_eq(results[0], 255);
    check_eq(results[1], 0);
}

static void sets_are_bounded_and_shared(void **state)
{
    setup(0, 0);
    nf.half[NST_CLIENT] = (struct nst_half){ 0 };
    nf.half[NST_SERVER] = (struct nst_half){ .inspect = &nst_udp, .on_received = NST_EV_PACKET, .handler = listen_to };
    in_event = own_set;
    config.idle_udp = NST_MS(500);
    n_heard = 0;
    lab_run(&config, sets_body);
}

/* A flow alone in its set may change it even when there is no other. */
static void alone_body(void)
{
    many_flows(255);
    check_eq(results[0], 255);
    in_event = NULL;
    check_eq(nst_flow_watch(flow, NST_SERVER, NST_SENT, NST_EV_PACKET), 0);
    check_eq(nst_flow_watched(flow, NST_SERVER, NST_SENT), EV(14) | EV(31) | NST_EV_PACKET);
    check_eq(nst_flow_ignore(flow, NST_SERVER, NST_SENT, ~(nst_events)0), 0);
    check_eq(nst_flow_watched(flow, NST_SERVER, NST_SENT), 0);
}

static void alone_in_its_set(void **state)
{
    setup(0, 0);
    nf.half[NST_CLIENT] = (struct nst_half){ 0 };
    nf.half[NST_SERVER] = (struct nst_half){ .inspect = &nst_udp, .on_received = NST_EV_PACKET, .handler = listen_to };
    in_event = own_set;
    lab_run(&config, alone_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(start_and_fin),          cmocka_unit_test(a_valid_reset),
        cmocka_unit_test(an_event_of_an_event),   cmocka_unit_test(a_filter_that_nobody_needs),
        cmocka_unit_test(no_event_is_registered), cmocka_unit_test(built_from_data),
        cmocka_unit_test(built_for_held_packets), cmocka_unit_test(built_in_a_loop),
        cmocka_unit_test(wrong_tables),           cmocka_unit_test(withdrawal),
        cmocka_unit_test(data_in_the_middle),     cmocka_unit_test(a_change_holds_for_held_packets),
        cmocka_unit_test(the_other_direction),    cmocka_unit_test(close_is_registered_late),
        cmocka_unit_test(close_is_withdrawn),     cmocka_unit_test(sets_are_bounded_and_shared),
        cmocka_unit_test(alone_in_its_set),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
