/* SPDX-License-Identifier: Apache-2.0 */
/* The IPS in all its ways of being written, on a model of an engine and of a store that fails when it is told to. */
#include "ips_model.h"
#include "modules.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- instances, and what happens to them ---- */
static const struct way {
    const struct nst_module *module;
    const char *state;
} handler_way = { &ips_module, "each" }, callback_way = { &ips_callback_module, NULL },
  kept_way = { &ips_module, NULL };
static const struct way *way;
static const struct nst_module *twin;
static const char *midstream, *rules_path, *alerts_option, *ttl;
static char rules_file[64], other_rules_file[64], alerts_file[64];
static bool fail_open;
static struct ips *ips;
static void *config; /* that it was opened with */
static struct nst_flow flow;
static uint64_t packets;

static const char *option(const struct nst_module_env *env, const char *name)
{
    return strcmp(name, "rules") == 0    ? rules_path
           : strcmp(name, "alerts") == 0 ? alerts_option
           : strcmp(name, "ttl") == 0    ? ttl
           : strcmp(name, "state") == 0  ? way->state
           : strcmp(name, "kept") == 0   ? NULL
                                         : midstream;
}

static int try_open(const char **why)
{
    struct nst_module_env env = { .option = option, .fail_open = fail_open, .n_cores = 1 };
    const struct nst_nf *nf;
    void *arg;
    int rc = twin->prepare(&env, NULL, &env.config, stderr, why);
    if (rc == 0) {
        rc = twin->open(&env, &nf, &arg, why);
        if (rc < 0)
            twin->dispose(env.config);
    }
    if (rc == 0) {
        config = env.config;
        ips = arg;
        flow = (struct nst_flow){ .nf = nf, .arg = arg };
    }
    return rc;
}

static void start(void)
{
    const char *why = "";
    if (try_open(&why) < 0)
        fail_msg("%s", why);
}

static void stop(void)
{
    twin->close(ips);
    twin->dispose(config);
    ips = NULL;
}

/* Another instance, which has seen nothing yet. */
static void take_over(void)
{
    stop();
    start();
}

/* A connection from its beginning. */
static void connection(uint32_t to_server, uint32_t to_client)
{
    flow.dead = false;
    flow.end[NST_SERVER] = (struct end){ true, to_server, 0 };
    flow.end[NST_CLIENT] = (struct end){ true, to_client, 0 };
}

static enum nst_verdict run(const struct nst_event *ev)
{
    flow.resumed = NST_UNDECIDED;
    enum nst_verdict v = flow.nf->half[ev->side].handler(&flow, ev);
    while (waiting) {
        assert_int_equal(v, NST_PENDING);
        struct nst_future *f = waiting;
        waiting = NULL;
        f->then(f, f->rc);
    }
    if (v == NST_PENDING)
        v = flow.resumed;
    assert_int_not_equal(v, NST_UNDECIDED);
    return v;
}

static enum nst_verdict send_bytes(enum nst_side side, uint32_t seq, const void *p, size_t len)
{
    struct nst_packet packet = {
        .h = { .payload = HEADER, .payload_len = (uint16_t)len, .family = 4, .proto = 6, .tcp_flags = 0x10 },
        .number = ++packets
    };
    put_be32(packet.bytes + 4, seq);
    put_be32(packet.bytes + 8, flow.end[!side].next);
    memcpy(packet.bytes + HEADER, p, len);
    if (flow.dead)
        return NST_DROP;
    flow.packet = &packet;
    flow.side = side;
    flow.failed = 0;
    struct end before = flow.end[side];
    struct nst_event ev = { .side = side, .dir = NST_RECEIVED, .packet = &packet, .until = 99 };
    ev.what = before.followed ? look(&flow) : NST_EV_MIDSTREAM;
    ev.what &= flow.nf->half[side].on_received;
    enum nst_verdict v = ev.what ? run(&ev) : NST_FORWARD;
    if (v == NST_FORWARD || v == NST_TAKEN) {
        flow.end[side].next += (uint32_t)flow.news.len;
        flow.end[side].offset += flow.news.len;
    } else {
        flow.end[side] = before;
    }
    flow.dead = v == NST_DROP_FLOW || v == NST_RESET_FLOW;
    flow.news.len = 0;
    return v == NST_TAKEN ? flow.later : v;
}

static enum nst_verdict send_text(enum nst_side side, uint32_t seq, const char *text)
{
    return send_bytes(side, seq, text, strlen(text));
}

static void close_flow(enum nst_close_why why)
{
    for (int side = 0; side < 2; side++) {
        flow.side = (enum nst_side)side;
        run(&(struct nst_event){ .what = NST_EV_CLOSE, .side = (enum nst_side)side, .why = why, .until = 99 });
    }
}

static unsigned alerts(const char *word)
{
    char text[65536], *p = text;
    unsigned n = 0;
    FILE *file = fopen(alerts_file, "r");
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    for (; (p = strstr(p, word)) != NULL; p++)
        n++;
    return n;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    fputs(text, file);
    fclose(file);
}

static void new_file(char path[64])
{
    strcpy(path, "/tmp/ips_handler_XXXXXX");
    close(mkstemp(path));
}

static int prepare(void **state)
{
    way = *state;
    twin = way->module;
    new_file(rules_file);
    new_file(other_rules_file);
    new_file(alerts_file);
    write_file(rules_file, "id=1001 action=drop content=\"evil|stuff\" msg=\"evil\"\n"
                           "id=1002 action=reset content=\"reset me\" msg=\"reset\"\n"
                           "id=1003 action=alert content=\"curious\" msg=\"curious\"\n");
    write_file(other_rules_file, "id=1 action=drop content=\"other\" msg=\"other\"\n");
    midstream = ttl = NULL;
    fail_open = false;
    rules_path = rules_file;
    alerts_option = alerts_file;
    packets = 0;
    reset_store();
    start();
    connection(1000, 5000);
    return 0;
}

static int clean(void **state)
{
    if (ips)
        stop();
    unlink(rules_file);
    unlink(other_rules_file);
    unlink(alerts_file);
    return 0;
}

/* ---- tests ---- */
static void a_match_in_one_packet(void **state)
{
    assert_int_equal(send_text(NST_SERVER, 1000, "GET /evil|stuff"), NST_DROP_FLOW);
    assert_int_equal(alerts("\"rule\":1001,\"action\":\"drop\""), 1);
    assert_int_equal(alerts("\"to\":\"server\",\"offset\":15,\"packet\":1}"), 1);
    assert_int_equal(ips->count.blocked, 1);
    assert_true(store[NST_SERVER].there);
}

static void a_match_over_packets(void **state)
{
    assert_int_equal(send_text(NST_CLIENT, 5000, "xxevi"), NST_FORWARD);
    assert_int_equal(send_text(NST_SERVER, 1000, "l|st"), NST_FORWARD); /* the other direction is another stream */
    assert_int_equal(send_text(NST_CLIENT, 5005, "l|st"), NST_FORWARD);
    assert_int_equal(send_text(NST_CLIENT, 5009, "uff"), NST_DROP_FLOW);
    assert_int_equal(alerts("\"to\":\"client\",\"offset\":12,"), 1);
    assert_int_equal(gets, way == &kept_way ? 2 : 4);
    assert_int_equal(puts_, 4);
}

static void actions(void **state)
{
    assert_int_equal(send_text(NST_SERVER, 1000, "curious evil|stuff reset me"), NST_RESET_FLOW);
    assert_int_equal(alerts("rule"), 3);
    connection(7000, 5000);
    assert_int_equal(send_text(NST_SERVER, 7000, "curious and curious"), NST_FORWARD);
    assert_int_equal(alerts("\"rule\":1003"), 2); /* once a packet */
    assert_int_equal(ips->count.alerts[IPS_ALERT], 2);
}

static void across_the_wrap(void **state)
{
    connection(0xfffffffcu, 5000);
    assert_int_equal(send_text(NST_SERVER, 0xfffffffcu, "evil|s"), NST_FORWARD);
    assert_int_equal(send_text(NST_SERVER, 2, "tuff"), NST_DROP_FLOW);
    assert_int_equal(alerts("\"offset\":10,"), 1);
}

static void a_failed_write_is_scanned_again(void **state)
{
    send_text(NST_SERVER, 1000, "evil");
    put_fails = -ETIMEDOUT;
    assert_int_equal(send_text(NST_SERVER, 1004, "|st curious"), NST_DROP);
    assert_int_equal(flow.failed, -ETIMEDOUT);
    assert_int_equal(alerts("rule"), 0); /* told once the state is kept */
    assert_int_equal(send_text(NST_SERVER, 1004, "|st curious"), NST_FORWARD);
    assert_int_equal(alerts("\"rule\":1003"), 1);
}

static void a_late_write_that_landed(void **state)
{
    send_text(NST_SERVER, 1000, "evil");
    put_fails = -ETIMEDOUT;
    put_lands = true;
    assert_int_equal(send_text(NST_SERVER, 1004, "xxxx"), NST_DROP);
    /* The bytes that come now count, not those which were lost. */
    assert_int_equal(send_text(NST_SERVER, 1004, "|stu"), NST_FORWARD);
    assert_int_equal(send_text(NST_SERVER, 1008, "ff"), NST_DROP_FLOW);
    assert_int_equal(alerts("\"offset\":10,"), 1);
}

/* Kept: the bytes count as passed although the packet was dropped, so they have to come again before others do. */
static void a_packet_that_was_dropped_leaves_with_its_state(void **state)
{
    send_text(NST_SERVER, 1000, "evil");
    for (int i = 0; i < 3; i++) {
        put_fails = -ENOTCONN;
        assert_int_equal(send_text(NST_SERVER, 1004, "|stu"), NST_DROP);
        assert_int_equal(flow.failed, -ENOTCONN);
    }
    get_fails = -ENOTCONN;
    assert_int_equal(send_text(NST_SERVER, 1004, "|stu"), NST_DROP);
    unsigned before = puts_;
    assert_int_equal(send_text(NST_SERVER, 1004, "|stu"), NST_FORWARD);
    assert_int_equal(puts_, before + 1);
    assert_int_equal(send_text(NST_SERVER, 1004, "|stu"), NST_FORWARD); /* once more: there is nothing to write */
    assert_int_equal(puts_, before + 1);
    take_over();
    assert_int_equal(send_text(NST_SERVER, 1008, "ff"), NST_DROP_FLOW);
    assert_int_equal(alerts("\"offset\":10,"), 1);
}

static void a_packet_that_was_dropped_goes_by_another_instance(void **state)
{
    for (int landed = 0; landed < 2; landed++) {
        connection(1000, 5000);
        send_text(NST_SERVER, 1000, "evil");
        put_fails = -ETIMEDOUT;
        put_lands = landed;
        assert_int_equal(send_text(NST_SERVER, 1004, "xxxx"), NST_DROP);
        take_over();
        assert_int_equal(send_text(NST_SERVER, 1004, "|stu"), NST_FORWARD);
        assert_int_equal(send_text(NST_SERVER, 1008, "ff"), NST_DROP_FLOW);
    }
    assert_int_equal(alerts("\"offset\":10,"), 2);
}

static void it_goes_on_behind_what_the_store_knows(void **state)
{
    send_text(NST_SERVER, 1000, "ev");
    put_fails = -ECONNRESET;
    assert_int_equal(send_text(NST_SERVER, 1002, "il|"), NST_DROP);
    assert_int_equal(send_text(NST_SERVER, 1005, "stuff"), NST_DROP_FLOW); /* in order for this instance */
    connection(1000, 5000);
    reset_store();
    send_text(NST_SERVER, 1000, "evil|");
    put_fails = -ECONNRESET;
    send_text(NST_SERVER, 1005, "st");
    reset_store(); /* and it has lost everything */
    assert_int_equal(send_text(NST_SERVER, 1007, "uff"), NST_DROP_FLOW);
}

static void another_instance_has_blocked_it(void **state)
{
    send_text(NST_SERVER, 1000, "evil");
    struct entry before = store[NST_SERVER];
    assert_int_equal(send_text(NST_SERVER, 1004, "|stuff"), NST_DROP_FLOW);
    struct entry blocked = store[NST_SERVER];
    for (int again = 0; again < 2; again++) {
        store[NST_SERVER] = before;
        take_over();
        connection(1000, 5000);
        send_text(NST_SERVER, 1000, "evil");
        put_fails = -ESTALE;
        assert_int_equal(send_text(NST_SERVER, 1004, "|st"), NST_DROP);
        store[NST_SERVER] = blocked;
        assert_int_equal(again ? send_text(NST_SERVER, 1004, "|st") : send_text(NST_SERVER, 1007, "x"), NST_DROP_FLOW);
    }
}

static void a_match_blocks_without_the_store(void **state)
{
    put_fails = -ENOTCONN;
    assert_int_equal(send_text(NST_SERVER, 1000, "evil|stuff"), NST_DROP_FLOW);
    assert_int_equal(alerts("rule"), 1);
    assert_int_equal(flow.failed, 0);
}

static void the_store_is_down(void **state)
{
    get_fails = -ENOTCONN;
    assert_int_equal(send_text(NST_SERVER, 1000, "some"), NST_DROP);
    assert_int_equal(flow.failed, -ENOTCONN);
    assert_int_equal(puts_, 0);
    assert_int_equal(send_text(NST_SERVER, 1000, "some"), NST_FORWARD);
}

static void the_store_is_down_and_failing_open(void **state)
{
    fail_open = true;
    take_over();
    connection(1000, 5000);
    get_fails = -ENOTCONN;
    assert_int_equal(send_text(NST_SERVER, 1000, "evil|"), NST_FORWARD);
    assert_int_equal(send_text(NST_SERVER, 1005, "thing"), NST_FORWARD); /* nobody knows what was before */
    assert_int_equal(ips->count.picked_up, 1);
    assert_int_equal(send_text(NST_SERVER, 1010, "evil|stuff"), NST_DROP_FLOW);
    assert_int_equal(alerts("\"offset\":20,"), 1);
}

static void the_store_has_forgotten(void **state)
{
    send_text(NST_SERVER, 1000, "some");
    reset_store();
    assert_int_equal(send_text(NST_SERVER, 1004, "thing"), NST_DROP);
    assert_int_equal(flow.failed, -ESRCH);
}

static void garbage_in_the_store(void **state)
{
    store[NST_SERVER].there = true;
    store[NST_SERVER].len = 100;
    assert_int_equal(send_text(NST_SERVER, 1000, "some"), NST_FORWARD); /* nothing is needed of it */
    memset(store[NST_SERVER].bytes, 0xee, sizeof store[NST_SERVER].bytes);
    assert_int_equal(send_text(NST_SERVER, 1004, "thing"), NST_DROP);
    assert_int_equal(flow.failed, -ESRCH);
    assert_int_equal(ips->count.bad_records, 2);
    take_over();
    assert_int_equal(send_text(NST_SERVER, 1004, "thing"), NST_DROP);
    assert_int_equal(flow.failed, -ESRCH);
}

static void another_instance_carries_on(void **state)
{
    send_text(NST_SERVER, 1000, "GET evil|");
    take_over();
    assert_int_equal(send_text(NST_SERVER, 1009, "stuff"), NST_DROP_FLOW);
    assert_int_equal(alerts("\"offset\":14,"), 1);
    assert_int_equal(ips->count.resumed, 1);
}

static void a_packet_lost_with_its_instance(void **state)
{
    send_text(NST_SERVER, 1000, "evil");
    send_text(NST_SERVER, 1004, "xxxx"); /* kept in the store, but it never left */
    take_over();
    assert_int_equal(send_text(NST_SERVER, 1002, "il|stuff"), NST_DROP_FLOW);
    assert_int_equal(alerts("\"offset\":10,"), 1);
}

static void an_old_packet_comes_first(void **state)
{
    send_text(NST_SERVER, 1000, "evil");
    send_text(NST_SERVER, 1004, "|stu");
    take_over();
    assert_int_equal(send_text(NST_SERVER, 1000, "evil"), NST_FORWARD);
    assert_int_equal(send_text(NST_SERVER, 1004, "|s"), NST_FORWARD); /* a part of what was inspected */
    assert_int_equal(send_text(NST_SERVER, 1008, "ff"), NST_DROP_FLOW);
}

static void a_direction_without_bytes(void **state)
{
    send_text(NST_SERVER, 1000, "hello");
    take_over();
    assert_int_equal(send_text(NST_CLIENT, 5000, ""), NST_FORWARD); /* an acknowledgement */
    assert_int_equal(send_text(NST_CLIENT, 5000, "evil|"), NST_FORWARD);
    assert_int_equal(send_text(NST_CLIENT, 5005, "stuff"), NST_DROP_FLOW);
    assert_int_equal(alerts("\"to\":\"client\",\"offset\":10,"), 1);
}

static void bytes_before_the_first_that_come_are_awaited(void **state)
{
    send_text(NST_SERVER, 1000, "hello");
    take_over();
    assert_int_equal(send_text(NST_CLIENT, 5005, "stuff"), NST_FORWARD); /* behind a hole */
    assert_int_equal(send_text(NST_CLIENT, 5000, "evil|stuff"), NST_DROP_FLOW);
}

static void nobody_knows_the_flow(void **state)
{
    take_over();
    assert_int_equal(send_text(NST_SERVER, 1000, "evil|stuff"), NST_DROP);
    assert_int_equal(flow.failed, -ESRCH);
    midstream = "pickup";
    take_over();
    assert_int_equal(send_text(NST_SERVER, 1000, "evil"), NST_FORWARD);
    assert_int_equal(send_text(NST_SERVER, 1004, "|stuff"), NST_DROP_FLOW);
    assert_int_equal(ips->count.picked_up, 1);
    midstream = "reset";
    reset_store();
    take_over();
    assert_int_equal(send_text(NST_SERVER, 1000, "evil"), NST_RESET_FLOW);
}

static void the_store_fails_at_a_take_over(void **state)
{
    send_text(NST_SERVER, 1000, "evil|");
    take_over();
    get_fails = -ETIMEDOUT;
    assert_int_equal(send_text(NST_SERVER, 1005, "stuff"), NST_DROP);
    assert_int_equal(flow.failed, -ETIMEDOUT);
    put_fails = -ETIMEDOUT;
    put_lands = true;
    assert_int_equal(send_text(NST_SERVER, 1005, "st"), NST_DROP);
    assert_int_equal(send_text(NST_SERVER, 1005, "stuff"), NST_DROP_FLOW);
}

static void blocked_stays_blocked(void **state)
{
    send_text(NST_CLIENT, 5000, "fine");
    send_text(NST_SERVER, 1000, "evil|stuff");
    for (int i = 0; i < 2; i++) {
        take_over();
        assert_int_equal(send_text(NST_CLIENT, 5004, "more"), NST_DROP_FLOW);
        take_over();
        assert_int_equal(send_text(NST_SERVER, 1000, "harmless"), NST_DROP_FLOW);
        assert_int_equal(ips->count.blocked_before, 1);
        rules_path = other_rules_file; /* and under other rules as well */
    }
    assert_int_equal(alerts("rule"), 1);
}

static void a_new_connection_with_the_old_ports(void **state)
{
    send_text(NST_SERVER, 1000, "evil|");
    connection(70000, 5000); /* its close was not seen */
    assert_int_equal(send_text(NST_SERVER, 70000, "stuff"), NST_FORWARD);
    send_text(NST_SERVER, 70005, "evil|stuff");
    connection(70000, 5000); /* the same again, number for number: a capture is replayed once more */
    assert_int_equal(send_text(NST_SERVER, 70000, "evil|stuff"), NST_DROP_FLOW);
    connection(70000, 5000);
    assert_int_equal(send_text(NST_SERVER, 70000, "evil|stuff"), NST_DROP_FLOW);
    assert_int_equal(alerts("rule"), 3);
    connection(70000, 5000);
    assert_int_equal(send_text(NST_SERVER, 70000, "evil|"), NST_FORWARD);
    connection(70005, 5000); /* but numbers from the middle of a stream are its own: a SYN does not make it new */
    assert_int_equal(send_text(NST_SERVER, 70005, "stuff"), NST_DROP_FLOW);
    connection(90000, 5000); /* nor does a block outlive its connection */
    assert_int_equal(send_text(NST_SERVER, 90000, "stuff"), NST_FORWARD);
    take_over(); /* a record of another connection is no record */
    assert_int_equal(send_text(NST_SERVER, 90005 + (1u << 28), "stuff"), NST_DROP);
    assert_int_equal(flow.failed, -ESRCH);
}

static void other_rules(void **state)
{
    send_text(NST_SERVER, 1000, "evil|");
    rules_path = other_rules_file;
    take_over();
    assert_int_equal(send_text(NST_SERVER, 1005, "stuff oth"), NST_FORWARD);
    assert_int_equal(ips->count.restarted, 1);
    assert_int_equal(send_text(NST_SERVER, 1014, "er"), NST_DROP_FLOW);
    assert_int_equal(alerts("\"offset\":16,"), 1);
}

static void closing(void **state)
{
    static const struct {
        enum nst_close_why why;
        bool kept;
    } cases[] = { { NST_CLOSED_BY_FIN, false },     { NST_CLOSED_BY_RST, false },    { NST_CLOSED_BY_TIMEOUT, true },
                  { NST_CLOSED_BY_EVICTION, true }, { NST_CLOSED_BY_VERDICT, true }, { NST_CLOSED_BY_SHUTDOWN, true } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        connection(1000, 5000);
        send_text(NST_SERVER, 1000, "some");
        send_text(NST_CLIENT, 5000, "thing");
        close_flow(cases[i].why);
        assert_int_equal(store[0].there, cases[i].kept);
        assert_int_equal(store[1].there, cases[i].kept);
    }
    assert_int_equal(deletes, 4);
    assert_int_equal(ips->count.not_forgotten, 0);
    delete_fails = -ENOTCONN;
    close_flow(NST_CLOSED_BY_FIN);
    assert_int_equal(ips->count.not_forgotten, 1);
}

static void bad_options(void **state)
{
    const char *why = NULL;
    stop();
    midstream = "maybe";
    assert_int_equal(try_open(&why), -EINVAL);
    assert_string_equal(why, "--midstream maybe: expected drop, reset or pickup");
    midstream = NULL;
    static const char *const times[] = { "0", "x", "1x", "-5", "", "99999999999999999999" };
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        ttl = times[i];
        assert_int_equal(try_open(&why), -EINVAL);
        assert_non_null(strstr(why, "expected a number of seconds"));
    }
    ttl = "60";
    rules_path = NULL;
    assert_int_equal(try_open(&why), -EINVAL);
    assert_non_null(strstr(why, "--rules FILE is missing"));
    rules_path = "/nonexistent/rules";
    assert_int_equal(try_open(&why), -ENOENT);
    assert_non_null(strstr(why, "/nonexistent/rules"));
    rules_path = rules_file;
    alerts_option = "/nonexistent/alerts";
    assert_int_equal(try_open(&why), -ENOENT);
    assert_non_null(strstr(why, "--alerts /nonexistent/alerts: "));
    alerts_option = alerts_file;
    write_file(rules_file, "id=1 action=drop content=\"a\" msg=\"m\"\nid=2 action=x\nid=3 actio=drop\n");
    assert_int_equal(try_open(&why), -EINVAL);
    assert_non_null(strstr(why, rules_file));
    assert_non_null(strstr(why, ":2:13: "));
    assert_non_null(strstr(why, ":3:6: "));
    write_file(rules_file, "id=1 action=drop pcre=/a(/ msg=\"m\"\n");
    assert_int_equal(try_open(&why), -EINVAL);
    assert_non_null(strstr(why, ":1:23: cannot use this pattern"));
    write_file(rules_file, "id=1 action=drop pcre=/a/ msg=\"m\"\n");
    start();
    assert_true(ips->ttl == NST_SEC(60));
}

static void report(void **state)
{
    char *text = NULL;
    size_t len;
    send_text(NST_SERVER, 1000, "evil|stuff");
    FILE *file = open_memstream(&text, &len);
    twin->report(ips, file);
    fclose(file);
    assert_non_null(strstr(text, "  rules                                    3\n"));
    assert_non_null(strstr(text, "  bytes scanned                           10\n"));
    assert_non_null(strstr(text, "  alerts, drop                             1\n"));
    assert_non_null(strstr(text, "  flows blocked                            1\n"));
    free(text);
}

/* An honest sender, a store that fails, instances that die at the worst moments: no attack may arrive as a whole, and
 * what is not one must arrive. */
static void whatever_happens(void **state)
{
    enum { ROUNDS = 300, LENGTH = 120 };
    static const char attack[] = "evil|stuff";
    unsigned stopped = 0;
    ttl = NULL;
    for (unsigned seed = 1; seed <= ROUNDS; seed++) {
        char stream[LENGTH], arrived[LENGTH];
        bool bad = seed % 2;
        srand(seed);
        for (int i = 0; i < LENGTH; i++)
            stream[i] = attack[rand() % 9]; /* full of beginnings */
        if (bad)
            memcpy(stream + rand() % (LENGTH - 10), attack, 10);
        uint32_t isn = (uint32_t)rand() * 2u + 0xffffff00u;
        unsigned at = 0;
        bool blocked = false;
        reset_store();
        connection(isn, 1);
        for (int step = 0; step < 3000 && at < LENGTH && !blocked; step++) {
            unsigned from = rand() % 4 ? at : (unsigned)rand() % (at + 1), len = 1 + (unsigned)rand() % 12;
            if (from + len > LENGTH)
                len = LENGTH - from;
            bool dies = rand() % 12 == 0;
            get_fails = rand() % 8 ? 0 : -ENOTCONN;
            put_fails = rand() % 4 ? 0 : -ETIMEDOUT;
            put_lands = rand() % 2;
            enum nst_verdict v = send_bytes(NST_SERVER, isn + from, stream + from, len);
            bool leaves = v == NST_FORWARD && !(dies && rand() % 2);
            if (leaves && from <= at && from + len > at) {
                memcpy(arrived + at, stream + at, from + len - at);
                at = from + len;
            }
            blocked = v == NST_DROP_FLOW;
            get_fails = put_fails = 0;
            if (store[NST_SERVER].there && dies && !blocked)
                take_over();
            assert_true(v == NST_FORWARD || v == NST_DROP || v == NST_DROP_FLOW);
            assert_int_not_equal(flow.failed, -ESRCH);
        }
        assert_int_equal(blocked, bad);
        assert_null(memmem(arrived, at, attack, 10));
        if (!bad)
            assert_int_equal(at, LENGTH);
        stopped += blocked;
    }
    assert_int_equal(stopped, ROUNDS / 2);
}

#define ONE(f, way)                                   \
    {                                                 \
#f ", " #way, f, prepare, clean, (void *)&way \
    }
#define BOTH(f) ONE(f, handler_way), ONE(f, callback_way)
#define ALL(f) BOTH(f), ONE(f, kept_way)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ALL(a_match_in_one_packet),
        ALL(a_match_over_packets),
        ALL(actions),
        ALL(across_the_wrap),
        ALL(a_failed_write_is_scanned_again),
        BOTH(a_late_write_that_landed),
        ALL(a_match_blocks_without_the_store),
        ALL(the_store_is_down),
        ALL(the_store_is_down_and_failing_open),
        BOTH(the_store_has_forgotten),
        BOTH(garbage_in_the_store),
        ALL(another_instance_carries_on),
        ALL(a_packet_lost_with_its_instance),
        ALL(an_old_packet_comes_first),
        ALL(a_direction_without_bytes),
        ALL(bytes_before_the_first_that_come_are_awaited),
        ALL(nobody_knows_the_flow),
        ALL(the_store_fails_at_a_take_over),
        ALL(blocked_stays_blocked),
        ALL(a_new_connection_with_the_old_ports),
        ALL(other_rules),
        ALL(closing),
        ALL(bad_options),
        ONE(a_packet_that_was_dropped_leaves_with_its_state, kept_way),
        ONE(a_packet_that_was_dropped_goes_by_another_instance, kept_way),
        ONE(it_goes_on_behind_what_the_store_knows, kept_way),
        ONE(another_instance_has_blocked_it, kept_way),
        ALL(report),
        ALL(whatever_happens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
