/* SPDX-License-Identifier: Apache-2.0 */
/* The store on a server that lies: garbage, pieces, wrong kinds of answers, silence, answers that come too late. */
#include "store/redis.h"
#include "store_lab.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct lab_liar liar;
static struct nst_store *store;
static struct nst_future futures[8];
static char logged[1 << 16];

static void sink(void *arg, enum nst_log_level level, const char *line)
{
    size_t n = strlen(logged);

    snprintf(logged + n, sizeof logged - n, "%s\n", line);
}

static void start_liar(void (*script)(struct lab_liar *, int), const struct nst_store_config *config)
{
    liar = (struct lab_liar){ .script = script };
    logged[0] = 0;
    lab_liar_start(&liar);
    assert_int_equal(nst_store_open(&store, liar.url, config, NULL), 0);
    assert_int_equal(nst_store_ping(store, patience()), 0);
}

static void stop_liar(void)
{
    nst_store_close(store);
    lab_liar_stop(&liar);
}

static struct nst_store_stats stats(void)
{
    struct nst_store_stats st;

    nst_store_stats(store, &st);
    return st;
}

/* The first request of nst_store_ping in start_liar, on every connection. */
static bool pong(struct lab_liar *l, int fd)
{
    if (!lab_liar_read(l, fd, 1, NULL))
        return false;
    lab_liar_say(fd, "+PONG\r\n", 7);
    return true;
}

#define SAY(fd, literal) lab_liar_say(fd, literal, sizeof(literal) - 1)

/* ---- whatever cannot be understood: the oldest request learns so, the others that the connection is gone ---- */

static const char *nonsense;
static size_t nonsense_len;
static void say_nonsense(struct lab_liar *l, int fd)
{
    if (!pong(l, fd))
        return;
    if (l->connections == 1 && lab_liar_read(l, fd, 3, NULL))
        lab_liar_say(fd, nonsense, nonsense_len);
    lab_liar_wait_closed(l, fd);
}

static void check_nonsense(const char *bytes, size_t len)
{
    char val[8];

    nonsense = bytes;
    nonsense_len = len;
    start_liar(say_nonsense, NULL);
    for (int i = 0; i < 3; i++)
        nst_get_start(store, text("k"), val, sizeof val, NULL, &futures[i]);
    assert_int_equal(nst_await(&futures[0], patience()), -EPROTO);
    assert_int_equal(nst_await(&futures[1], patience()), -ECONNRESET);
    assert_int_equal(nst_await(&futures[2], patience()), -ECONNRESET);
    assert_int_equal(stats().protocol_errors, 1);
    assert_non_null(strstr(logged, "connection lost"));
    assert_int_equal(nst_store_ping(store, patience()), 0); /* on a new connection */
    assert_int_equal(stats().connects, 2);
    stop_liar();
}

static void nonsense_and_flood_body(void)
{
#define NONSENSE(literal) check_nonsense(literal, sizeof(literal) - 1)
    NONSENSE("HTTP/1.1 400 Bad Request\r\n\r\n");
    NONSENSE("\0\xff\x80\0");
    NONSENSE("+OK\r\n");
    NONSENSE(":1\r\n");
    NONSENSE("$-7\r\n");
    NONSENSE("$3\r\nabcdef\r\n");
    NONSENSE("*3\r\n:1\r\n:2\r\n:3\r\n");
    static char flood[2 * REDIS_REPLY_MAX];
    memset(flood, '9', sizeof flood);
    memcpy(flood, "$900000000\r\n", 12);
    check_nonsense(flood, sizeof flood);
}

/* ---- right answers, one byte at a time ---- */

static void say_bytewise(struct lab_liar *l, int fd)
{
    static const char answers[] = "$13\r\n\xf5"
                                  "1234567hello\r\n$0\r\n\r\n-ERR no\r\n:1\r\n";

    if (!pong(l, fd) || !lab_liar_read(l, fd, 4, NULL))
        return;
    for (size_t i = 0; i < sizeof answers - 1; i++) {
        lab_liar_say(fd, answers + i, 1);
        usleep(1000);
    }
    lab_liar_wait_closed(l, fd);
}

static void bytewise_body(void)
{
    char val[8];

    start_liar(say_bytewise, NULL);
    nst_get_start(store, text("a"), val, sizeof val, NULL, &futures[0]);
    nst_get_start(store, text("b"), val, sizeof val, NULL, &futures[1]);
    nst_put_start(store, text("c"), text("v"), 0, &futures[2]);
    nst_delete_start(store, text("d"), &futures[3]);
    assert_int_equal(nst_await(&futures[3], patience()), 0);
    assert_int_equal(nst_await(&futures[0], patience()), 5);
    assert_memory_equal(val, "hello", 5);
    assert_int_equal(nst_await(&futures[1], patience()), -ENOENT);
    assert_int_equal(nst_await(&futures[2], patience()), -EIO);
    assert_int_equal(stats().connects, 1);
    stop_liar();
}

/* ---- the connection ends in the middle of an answer; what the next one says is not taken for the rest ---- */

static void say_half(struct lab_liar *l, int fd)
{
    if (!pong(l, fd) || !lab_liar_read(l, fd, 1, NULL))
        return;
    if (l->connections == 1) {
        SAY(fd, "$13\r\n\xf5"
                "1234567he");
        return;
    }
    SAY(fd, "$11\r\n\xf5"
            "7654321new\r\n");
    lab_liar_wait_closed(l, fd);
}

static void closed_in_an_answer_body(void)
{
    char val[8] = "xxxxxxx";

    start_liar(say_half, NULL);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, NULL, patience()), -ECONNRESET);
    assert_string_equal(val, "xxxxxxx");
    assert_int_equal(stats().broken, 1);
    assert_int_equal(nst_store_ping(store, patience()), 0);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, NULL, patience()), 3);
    assert_memory_equal(val, "newx", 4);
    stop_liar();
}

/* ---- answers that come after their request was given up ---- */

static volatile bool speak;
static void say_late(struct lab_liar *l, int fd)
{
    speak = false;
    if (!pong(l, fd) || !lab_liar_read(l, fd, 1, NULL))
        return;
    while (!speak && !l->stop)
        usleep(1000);
    SAY(fd, "$11\r\n\xf5"
            "1111111old\r\n");
    if (!lab_liar_read(l, fd, 1, NULL))
        return;
    SAY(fd, "$11\r\n\xf5"
            "2222222new\r\n");
    lab_liar_wait_closed(l, fd);
}

static void late_body(void)
{
    char first[8] = "xxxxxxx", second[8] = "yyyyyyy";
    uint64_t version = 7;

    start_liar(say_late, NULL);
    assert_int_equal(nst_get(store, text("k"), first, sizeof first, &version, in_ms(20)), -ETIMEDOUT);
    assert_int_equal(stats().in_flight, 1);
    nst_get_start(store, text("l"), second, sizeof second, NULL, &futures[0]);
    speak = true;
    assert_int_equal(nst_await(&futures[0], patience()), 3);
    assert_memory_equal(second, "newy", 4);
    assert_string_equal(first, "xxxxxxx");
    assert_true(version == 7);
    assert_int_equal(stats().in_flight, 0);
    assert_int_equal(stats().timeouts, 1);
    stop_liar();
}

/* A late answer of a connection that was given up cannot reach the next one's requests. */
static void say_old(struct lab_liar *l, int fd)
{
    static int old = -1;

    if (!pong(l, fd) || !lab_liar_read(l, fd, 1, NULL))
        return;
    if (l->connections == 1) {
        lab_liar_wait_closed(l, fd);
        old = dup(fd);
        SAY(old, "$11\r\n\xf5"
                 "1111111old\r\n");
        return;
    }
    SAY(old, "$11\r\n\xf5"
             "1111111old\r\n");
    close(old);
    SAY(fd, "$11\r\n\xf5"
            "2222222new\r\n");
    lab_liar_wait_closed(l, fd);
}

static void old_connection_body(void)
{
    struct nst_store_config config = { .reply_after = NST_MS(50) };
    char val[8] = "xxxxxxx";

    start_liar(say_old, &config);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, NULL, patience()), -ECONNRESET);
    assert_non_null(strstr(logged, "an answer is overdue"));
    assert_int_equal(nst_store_ping(store, patience()), 0);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, NULL, patience()), 3);
    assert_memory_equal(val, "newx", 4);
    stop_liar();
}

/* ---- what a server did not carry out: a script that it does not know goes out once more, with its text, and only then;
 *      the rest is for the caller to ask again ---- */

static void say_no(struct lab_liar *l, int fd)
{
    static const char *const answers[] = { "-NOSCRIPT No matching script.\r\n",
                                           ":1\r\n",
                                           "-NOSCRIPT No matching script.\r\n",
                                           "-NOSCRIPT No matching script.\r\n",
                                           "-LOADING Redis is loading\r\n",
                                           "-TRYAGAIN\r\n",
                                           "-CLUSTERDOWN\r\n",
                                           "-MOVED 1 127.0.0.1:1\r\n",
                                           "-READONLY You can't write\r\n" };

    if (!pong(l, fd) || l->connections > 1) {
        lab_liar_wait_closed(l, fd);
        return;
    }
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        if (!lab_liar_read(l, fd, 1, NULL))
            return;
        lab_liar_say(fd, answers[i], strlen(answers[i]));
    }
    lab_liar_wait_closed(l, fd);
}

static void not_carried_out_body(void)
{
    start_liar(say_no, NULL);
    assert_int_equal(nst_cas(store, text("k"), text("v"), 7, 0, patience()), 0);
    assert_int_equal(nst_cas(store, text("k"), text("v"), 7, 0, patience()), -EIO);
    for (int i = 0; i < 4; i++)
        assert_int_equal(nst_put(store, text("k"), text("v"), 0, patience()), -EAGAIN);
    assert_int_equal(stats().connects, 1);
    /* it has become a replica: another connection, which may lead to the master */
    assert_int_equal(nst_put(store, text("k"), text("v"), 0, patience()), -EAGAIN);
    assert_int_equal(nst_store_ping(store, patience()), 0);
    assert_int_equal(stats().connects, 2);
    assert_int_equal(stats().in_flight, 0);
    stop_liar();
}

/* ---- a server that is silent: the breaker opens, lets a request through now and then, and shuts when one is answered */

static volatile bool silent;
static void say_nothing_for_a_while(struct lab_liar *l, int fd)
{
    int n = 0;

    if (!pong(l, fd))
        return;
    while (lab_liar_read(l, fd, 1, NULL)) {
        n++;
        if (!silent) {
            for (; n > 0; n--)
                SAY(fd, "+OK\r\n");
        }
    }
}

static void breaker_body(void)
{
    int rc, refused = 0;

    silent = true;
    start_liar(say_nothing_for_a_while, NULL);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(nst_put(store, text("k"), text("v"), 0, in_ms(2)), -ETIMEDOUT);
        assert_int_equal(stats().tripped, i == 15);
    }
    for (nst_time until = in_ms(350); nst_now() < until;) {
        rc = nst_put(store, text("k"), text("v"), 0, in_ms(2));
        assert_true(rc == -EHOSTDOWN || rc == -ETIMEDOUT);
        refused += rc == -EHOSTDOWN;
        assert_int_equal(nst_sleep(in_ms(1)), 0);
    }
    assert_int_equal(stats().shed, refused);
    assert_true(refused > 0);
    assert_in_range(stats().timeouts, 16, 20); /* and a few that looked whether it is over */
    silent = false;
    for (nst_time until = patience(); (rc = nst_put(store, text("k"), text("v"), 0, in_ms(500))) != 0;) {
        assert_true(rc == -EHOSTDOWN || rc == -ETIMEDOUT);
        assert_true(nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(5)), 0);
    }
    assert_int_equal(nst_put(store, text("k"), text("v"), 0, patience()), 0);
    assert_int_equal(stats().tripped, 1);
    assert_non_null(strstr(logged, "answers again"));
    stop_liar();
}

/* ---- answers that nobody asked for ---- */

static void say_unasked(struct lab_liar *l, int fd)
{
    if (pong(l, fd) && l->connections == 1)
        SAY(fd, "+OK\r\n");
    lab_liar_wait_closed(l, fd);
}

static void unasked_body(void)
{
    start_liar(say_unasked, NULL);
    for (nst_time until = patience(); stats().connects < 2;) {
        assert_true(nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(1)), 0);
    }
    assert_non_null(strstr(logged, "nobody asked for"));
    assert_int_equal(stats().protocol_errors, 1);
    stop_liar();
}

/* ---- silence ---- */

static void mute_body(void)
{
    char val[8];

    liar = (struct lab_liar){ .mute = true };
    logged[0] = 0;
    lab_liar_start(&liar);
    assert_int_equal(nst_store_open(&store, liar.url, NULL, NULL), 0);
    /* waits for the first attempt, which ends by itself */
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, NULL, patience()), -ENOTCONN);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, NULL, patience()), -ENOTCONN);
    assert_int_equal(nst_store_ping(store, in_ms(50)), -ETIMEDOUT);
    assert_non_null(strstr(logged, "no answer within a second"));
    assert_int_equal(stats().connects, 0);
    stop_liar();
}

static void mute_and_deadline_body(void)
{
    char val[8];

    liar = (struct lab_liar){ .mute = true };
    lab_liar_start(&liar);
    assert_int_equal(nst_store_open(&store, liar.url, NULL, NULL), 0);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, NULL, in_ms(20)), -ETIMEDOUT);
    stop_liar();
}

/* ---- connections that never become of use: no storm of attempts, and the reason is told ---- */

static void check_greeting(const char *greeting, int trouble, const char *words)
{
    char val[8];

    liar = (struct lab_liar){ .greeting = greeting };
    logged[0] = 0;
    lab_liar_start(&liar);
    assert_int_equal(nst_store_open(&store, liar.url, NULL, NULL), 0);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, NULL, patience()), -ENOTCONN);
    assert_int_equal(nst_store_ping(store, in_ms(20)), trouble);
    assert_non_null(strstr(logged, words));
    assert_int_equal(stats().connects, 0);
    stop_liar();
}

static void greetings_body(void)
{
    check_greeting("HTTP/1.1 400 Bad Request\r\n", -EPROTO, "a reply of no known kind");
    check_greeting("$4\r\nPONG\r\n", -EPROTO, "a string where there should be none");
    check_greeting("-LOADING Redis is loading the dataset in memory\r\n", -EIO, "LOADING");
    check_greeting("-NOAUTH Authentication required.\r\n", -EACCES, "NOAUTH");
}

static void say_nothing(struct lab_liar *l, int fd)
{
}

static void slammed_body(void)
{
    char val[8];
    nst_time until;

    liar = (struct lab_liar){ .script = say_nothing };
    lab_liar_start(&liar);
    assert_int_equal(nst_store_open(&store, liar.url, NULL, NULL), 0);
    until = in_ms(500);
    while (nst_now() < until) {
        assert_true(nst_get(store, text("k"), val, sizeof val, NULL, in_ms(10)) < 0);
        assert_int_equal(nst_sleep(in_ms(1)), 0);
    }
    assert_in_range(stats().connects, 1, 8);
    stop_liar();
}

#define ON_REACTOR(name)           \
    static void name(void **state) \
    {                              \
        lab_run(name##_body);      \
    }
ON_REACTOR(nonsense_and_flood)
ON_REACTOR(bytewise)
ON_REACTOR(closed_in_an_answer)
ON_REACTOR(late)
ON_REACTOR(old_connection)
ON_REACTOR(unasked)
ON_REACTOR(not_carried_out)
ON_REACTOR(breaker)
ON_REACTOR(mute)
ON_REACTOR(mute_and_deadline)
ON_REACTOR(greetings)
ON_REACTOR(slammed)

static int start(void **state)
{
    nst_log_to(sink, NULL);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nonsense_and_flood),
        cmocka_unit_test(bytewise),
        cmocka_unit_test(closed_in_an_answer),
        cmocka_unit_test(late),
        cmocka_unit_test(old_connection),
        cmocka_unit_test(unasked),
        cmocka_unit_test(not_carried_out),
        cmocka_unit_test(breaker),
        cmocka_unit_test(mute),
        cmocka_unit_test(mute_and_deadline),
        cmocka_unit_test(greetings),
        cmocka_unit_test(slammed),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
