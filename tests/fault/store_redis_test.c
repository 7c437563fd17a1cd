/* SPDX-License-Identifier: Apache-2.0 */
/* The store on a real redis-server: what it answers, and what happens when the server stops, dies and comes back. */
#include "store/redis.h"
#include "store_contract.h"
#include "store_lab.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct lab_redis redis;
static struct nst_store *store;
static char logged[1 << 16];

static void sink(void *arg, enum nst_log_level level, const char *line)
{
    size_t n = strlen(logged);

    snprintf(logged + n, sizeof logged - n, "%s\n", line);
}

static void open_with(const char *url, const struct nst_store_config *config)
{
    const char *why = NULL;

    if (nst_store_open(&store, url, config, &why) != 0)
        fail_msg("%s: %s", url, why);
}

static void open_ready(const struct nst_store_config *config)
{
    open_with(redis.url, config);
    assert_int_equal(nst_store_ping(store, patience()), 0);
}

static struct nst_store_stats stats(void)
{
    struct nst_store_stats st;

    nst_store_stats(store, &st);
    return st;
}

static void wait_answered(void)
{
    for (nst_time until = patience(); stats().in_flight != 0;) {
        assert_true(nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(1)), 0);
    }
}

/* ---- answers ---- */

static void basics_on(const char *url)
{
    char val[16] = "";
    uint64_t v1 = 0, v2 = 0;
    int64_t n = 0;

    lab_command(&redis, "flushall");
    open_with(url, NULL);
    assert_int_equal(nst_store_ping(store, patience()), 0);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, &v1, patience()), -ENOENT);
    assert_int_equal(nst_put(store, text("k"), text("one"), 0, patience()), 0);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, &v1, patience()), 3);
    assert_memory_equal(val, "one", 4);
    memset(val, 'x', sizeof val);
    assert_int_equal(nst_get(store, text("k"), val, 2, NULL, patience()), -EMSGSIZE);
    assert_int_equal(val[0], 'x');
    assert_int_equal(nst_put(store, text("k"), text("one"), 0, patience()), 0);
    assert_int_equal(nst_get(store, text("k"), val, 3, &v2, patience()), 3);
    assert_int_not_equal(v1, v2);
    assert_int_equal(nst_cas(store, text("k"), text("two"), v1, 0, patience()), -ESTALE);
    assert_int_equal(nst_cas(store, text("k"), text("two"), 0, 0, patience()), -ESTALE);
    assert_int_equal(nst_cas(store, text("k"), text("two"), v2, 0, patience()), 0);
    assert_int_equal(nst_get(store, text("k"), val, 3, &v1, patience()), 3);
    assert_memory_equal(val, "two", 3);
    assert_int_equal(nst_delete(store, text("k"), patience()), 0);
    assert_int_equal(nst_delete(store, text("k"), patience()), -ENOENT);
    assert_int_equal(nst_cas(store, text("k"), text("new"), v1, 0, patience()), -ESTALE);
    assert_int_equal(nst_cas(store, text("k"), text("new"), 0, 0, patience()), 0);

    assert_int_equal(nst_incr(store, text("k"), 1, &n, 0, patience()), -EINVAL);
    assert_int_equal(nst_incr(store, text("n"), 5, &n, 0, patience()), 0);
    assert_int_equal(n, 5);
    assert_int_equal(nst_incr(store, text("n"), -7, &n, NST_SEC(100), patience()), 0);
    assert_int_equal(n, -2);
    assert_int_equal(nst_get(store, text("n"), val, sizeof val, NULL, patience()), -EIO);
    assert_int_equal(nst_cas(store, text("n"), text("x"), 5, 0, patience()), -ESTALE);
    assert_int_equal(nst_incr(store, text("n"), INT64_MIN, &n, 0, patience()), -EIO);
    assert_int_equal(nst_incr(store, text("n"), INT64_MAX, &n, NST_SEC(100), patience()), 0);
    assert_true(n == INT64_MAX - 2);
    assert_int_equal(nst_put(store, text("k"), text("v"), -1, patience()), -EINVAL);

    assert_int_equal(stats().misses, 2);
    assert_int_equal(stats().stale, 4);
    assert_int_equal(stats().in_flight, 0);
    assert_int_equal(stats().connects, 1);
    assert_true(stats().p50 > 0 && stats().p50 <= stats().p99 && stats().p99 <= stats().max);
    nst_store_close(store);
}

static void over_unix_body(void)
{
    basics_on(redis.url);
}

static void over_tcp_body(void)
{
    char url[128];

    basics_on(redis.tcp_url);
    snprintf(url, sizeof url, "redis://localhost:%d/5", redis.port);
    basics_on(url);
    assert_string_equal(lab_command(&redis, "-n 5 exists k"), "1");
    assert_string_equal(lab_command(&redis, "-n 0 exists k"), "0");
    if (access("/proc/sys/net/ipv6", F_OK) == 0) {
        snprintf(url, sizeof url, "redis://[::1]:%d", redis.port);
        basics_on(url);
    }
}

static void bytes_body(void)
{
    static char big[NST_VALUE_MAX], back[NST_VALUE_MAX + 1];
    char key[NST_KEY_MAX];
    struct nst_slice all = { key, sizeof key }, value = { big, sizeof big };
    uint64_t version;

    open_ready(NULL);
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (char)i;
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)(i * 7 + i / 251);
    assert_int_equal(nst_put(store, all, value, 0, patience()), 0);
    assert_int_equal(nst_get(store, all, back, sizeof back, &version, patience()), NST_VALUE_MAX);
    assert_memory_equal(big, back, sizeof big);
    assert_int_equal(nst_get(store, all, back, sizeof big - 1, NULL, patience()), -EMSGSIZE);
    big[0] ^= 1;
    assert_int_equal(nst_cas(store, all, value, version, 0, patience()), 0);
    assert_int_equal(nst_get(store, all, back, sizeof big, NULL, patience()), NST_VALUE_MAX);
    assert_memory_equal(big, back, sizeof big);
    assert_int_equal(nst_get(store, (struct nst_slice){ key, 255 }, back, 10, NULL, patience()), -ENOENT);
    assert_int_equal(nst_put(store, (struct nst_slice){ big, 257 }, text("v"), 0, patience()), -EMSGSIZE);
    assert_int_equal(nst_put(store, text(""), text(""), 0, patience()), 0);
    assert_int_equal(nst_get(store, text(""), NULL, 0, NULL, patience()), 0);
    nst_store_close(store);
}

static void ttl_body(void)
{
    char val[8];
    int64_t n;

    lab_command(&redis, "flushall");
    open_ready(NULL);
    assert_int_equal(nst_put(store, text("long"), text("v"), NST_SEC(1000), patience()), 0);
    assert_int_equal(nst_cas(store, text("new"), text("v"), 0, NST_SEC(1000), patience()), 0);
    assert_int_equal(nst_incr(store, text("n"), 1, &n, NST_SEC(1000), patience()), 0);
    assert_int_equal(nst_put(store, text("ever"), text("v"), 0, patience()), 0);
    assert_in_range(atol(lab_command(&redis, "pttl long")), 900000, 1000000);
    assert_in_range(atol(lab_command(&redis, "pttl new")), 900000, 1000000);
    assert_in_range(atol(lab_command(&redis, "pttl n")), 900000, 1000000);
    assert_string_equal(lab_command(&redis, "pttl ever"), "-1");
    /* an increment that fails gives no time to live to what it found */
    assert_int_equal(nst_incr(store, text("ever"), 1, &n, NST_SEC(1000), patience()), -EINVAL);
    assert_string_equal(lab_command(&redis, "pttl ever"), "-1");
    /* an increment without one keeps the counter's */
    assert_int_equal(nst_incr(store, text("n"), 1, &n, 0, patience()), 0);
    assert_in_range(atol(lab_command(&redis, "pttl n")), 900000, 1000000);
    /* the shortest is a millisecond */
    assert_int_equal(nst_put(store, text("short"), text("v"), 1, patience()), 0);
    for (nst_time until = patience();;) {
        int rc = nst_get(store, text("short"), val, sizeof val, NULL, patience());
        if (rc == -ENOENT)
            break;
        assert_int_equal(rc, 1);
        assert_true(nst_now() < until);
    }
    nst_store_close(store);
}

static void what_others_wrote_body(void)
{
    char val[32];
    int64_t n;

    lab_command(&redis, "flushall");
    lab_command(&redis, "set foreign 'hello, here is somebody else'");
    lab_command(&redis, "rpush list a");
    open_ready(NULL);
    logged[0] = 0;
    assert_int_equal(nst_get(store, text("foreign"), val, sizeof val, NULL, patience()), -EIO);
    assert_int_equal(nst_get(store, text("list"), val, sizeof val, NULL, patience()), -EIO);
    assert_non_null(strstr(logged, "WRONGTYPE"));
    assert_non_null(strstr(logged, "does not hold a value that NetStar wrote"));
    assert_int_equal(nst_incr(store, text("list"), 1, &n, 0, patience()), -EINVAL);
    assert_int_equal(nst_incr(store, text("list"), 1, &n, NST_SEC(1), patience()), -EINVAL);
    assert_int_equal(nst_cas(store, text("list"), text("v"), 7, 0, patience()), -EIO);
    assert_int_equal(nst_put(store, text("list"), text("v"), 0, patience()), 0);
    assert_int_equal(nst_get(store, text("list"), val, sizeof val, NULL, patience()), 1);
    lab_command(&redis, "config set maxmemory 1");
    assert_int_equal(nst_put(store, text("list"), text("v"), 0, patience()), -EIO);
    lab_command(&redis, "config set maxmemory 0");
    assert_int_equal(nst_put(store, text("list"), text("v"), 0, patience()), 0);
    assert_int_equal(stats().errors, 6);
    nst_store_close(store);
}

static void password_body(void)
{
    struct lab_redis locked = { .password = "sesame" };
    char url[320], val[8];
    const char *path;

    lab_start(&locked);
    path = locked.tcp_url + strlen("redis://");
    logged[0] = 0;
    snprintf(url, sizeof url, "redis://%s", path);
    open_with(url, NULL);
    assert_int_equal(nst_store_ping(store, in_ms(1000)), -EACCES);
    nst_store_close(store);
    snprintf(url, sizeof url, "redis://:simsalabim@%s", path);
    open_with(url, NULL);
    assert_int_equal(nst_store_ping(store, in_ms(1000)), -EACCES);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, NULL, patience()), -ENOTCONN);
    nst_store_close(store);
    snprintf(url, sizeof url, "redis://:sesame@%s/7", path);
    open_with(url, NULL);
    assert_int_equal(nst_store_ping(store, patience()), 0);
    assert_int_equal(nst_put(store, text("k"), text("v"), 0, patience()), 0);
    nst_store_close(store);
    snprintf(url, sizeof url, "redis://default:sesame@%s/7", path);
    open_with(url, NULL);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, NULL, patience()), 1);
    nst_store_close(store);
    snprintf(url, sizeof url, "redis://:sesame@%s/99", path);
    open_with(url, NULL);
    assert_int_equal(nst_store_ping(store, in_ms(1000)), -EIO);
    nst_store_close(store);
    assert_non_null(strstr(logged, "NOAUTH"));
    assert_non_null(strstr(logged, "WRONGPASS"));
    assert_non_null(strstr(logged, "DB index is out of range"));
    assert_null(strstr(logged, "sesame"));
    assert_null(strstr(logged, "simsalabim"));
    lab_end(&locked, SIGKILL);
    lab_remove(&locked);
}

/* ---- what every store promises; also after the server has forgotten the scripts ---- */

static void contract_body(void)
{
    lab_command(&redis, "flushall");
    lab_command(&redis, "script flush");
    open_ready(NULL);
    store_contract(store, true);
    lab_command(&redis, "script flush");
    store_contract(store, true);
    assert_int_equal(stats().connects, 1);
    assert_int_equal(stats().in_flight, 0);
    nst_store_close(store);
    open_with("mem:", NULL);
    store_contract(store, true);
    nst_store_close(store);
}

/* ---- many at once ---- */

enum { MANY = 64 };
static struct nst_future futures[4096];
static struct nst_future *pointers[4096];

static int join_all(size_t n)
{
    for (size_t i = 0; i < n; i++)
        pointers[i] = &futures[i];
    return nst_await_all(pointers, n, patience());
}

static void one_write_for_a_turn_body(void)
{
    char vals[MANY];
    uint64_t before;

    open_ready(NULL);
    for (int round = 0; round < 3; round++) {
        before = redis_writes(store);
        for (int i = 0; i < MANY; i++) {
            char c = (char)('a' + (i + round) % 26);
            nst_put_start(store, (struct nst_slice){ &i, sizeof i }, (struct nst_slice){ &c, 1 }, 0, &futures[i]);
        }
        assert_int_equal(join_all(MANY), 0);
        assert_int_equal(redis_writes(store) - before, 1);
        for (int i = 0; i < MANY; i++)
            nst_get_start(store, (struct nst_slice){ &i, sizeof i }, &vals[i], 1, NULL, &futures[i]);
        assert_int_equal(join_all(MANY), 0);
        assert_int_equal(redis_writes(store) - before, 2);
        for (int i = 0; i < MANY; i++)
            assert_int_equal(vals[i], 'a' + (i + round) % 26);
    }
    nst_store_close(store);
}

/* Requests made before there is a connection wait for the first attempt. */
static void before_the_connection_body(void)
{
    char val[8];

    lab_command(&redis, "flushall");
    open_with(redis.tcp_url, NULL);
    for (int i = 0; i < MANY; i++)
        nst_put_start(store, (struct nst_slice){ &i, sizeof i }, text("v"), 0, &futures[i]);
    assert_int_equal(nst_get(store, (struct nst_slice){ &(int){ 5 }, sizeof(int) }, val, sizeof val, NULL, patience()),
                     1);
    assert_int_equal(join_all(MANY), 0);
    assert_string_equal(lab_command(&redis, "dbsize"), "64");
    nst_store_close(store);
}

static void two_stores_race_body(void)
{
    enum { TIMES = 200 };
    struct nst_store *both[2] = { NULL };
    uint32_t n[2] = { 0 };
    uint64_t version[2];
    int64_t count = 0;

    lab_command(&redis, "flushall");
    open_ready(NULL);
    both[0] = store;
    assert_int_equal(nst_store_open(&both[1], redis.tcp_url, NULL, NULL), 0);
    assert_int_equal(nst_store_ping(both[1], patience()), 0);
    assert_int_equal(nst_put(store, text("sum"), (struct nst_slice){ n, 4 }, 0, patience()), 0);
    for (int round = 0; round < TIMES; round++) {
        /* both read, then both try to write: exactly one may succeed */
        for (int i = 0; i < 2; i++)
            nst_get_start(both[i], text("sum"), &n[i], 4, &version[i], &futures[i]);
        assert_int_equal(join_all(2), 0);
        assert_true(version[0] == version[1]);
        for (int i = 0; i < 2; i++) {
            n[i]++;
            nst_cas_start(both[i], text("sum"), (struct nst_slice){ &n[i], 4 }, version[i], 0, &futures[i]);
        }
        assert_int_equal(join_all(2), -ESTALE);
        assert_int_equal(futures[0].rc + futures[1].rc, -ESTALE);
        for (int i = 0; i < 2; i++)
            nst_incr_start(both[i], text("count"), 3, NULL, 0, &futures[i]);
        assert_int_equal(join_all(2), 0);
    }
    assert_int_equal(nst_get(store, text("sum"), &n[0], 4, NULL, patience()), 4);
    assert_int_equal(n[0], TIMES);
    assert_int_equal(nst_incr(both[1], text("count"), 0, &count, 0, patience()), 0);
    assert_int_equal(count, 2 * 3 * TIMES);
    nst_store_close(both[1]);
    nst_store_close(store);
}

/* ---- the server stops ---- */

static void bound_in_flight_body(void)
{
    struct nst_store_config config = { .in_flight = 8 };
    char val[9];

    open_ready(&config);
    lab_signal(&redis, SIGSTOP);
    for (int i = 0; i < 9; i++)
        nst_get_start(store, text("k"), &val[i], 1, NULL, &futures[i]);
    assert_int_equal(futures[8].state, NST_FUTURE_DONE);
    assert_int_equal(futures[8].rc, -EBUSY);
    assert_int_equal(stats().in_flight, 8);
    assert_int_equal(stats().in_flight_peak, 8);
    /* given up is not answered: their places stay taken */
    for (int i = 0; i < 8; i++)
        assert_int_equal(nst_cancel(&futures[i]), -ECANCELED);
    assert_int_equal(nst_get(store, text("k"), val, 1, NULL, patience()), -EBUSY);
    lab_signal(&redis, SIGCONT);
    wait_answered();
    assert_int_equal(nst_put(store, text("k"), text("v"), 0, patience()), 0);
    assert_int_equal(stats().refused, 2);
    nst_store_close(store);
}

static void late_answers_body(void)
{
    char val[8], untouched[8];
    uint64_t version = 7;

    open_ready(NULL);
    memset(untouched, 'x', sizeof untouched);
    assert_int_equal(nst_put(store, text("a"), text("aaa"), 0, patience()), 0);
    assert_int_equal(nst_put(store, text("b"), text("bb"), 0, patience()), 0);
    lab_signal(&redis, SIGSTOP);
    memcpy(val, untouched, sizeof val);
    assert_int_equal(nst_get(store, text("a"), val, sizeof val, &version, in_ms(20)), -ETIMEDOUT);
    assert_int_equal(nst_get(store, text("a"), val, sizeof val, &version, nst_now()), -ETIMEDOUT);
    assert_int_equal(stats().timeouts, 2);
    assert_int_equal(stats().in_flight, 2);
    lab_signal(&redis, SIGCONT);
    wait_answered();
    assert_memory_equal(val, untouched, sizeof val);
    assert_true(version == 7);
    assert_int_equal(nst_get(store, text("b"), val, sizeof val, NULL, patience()), 2);
    assert_memory_equal(val, "bbxxxxxx", 8);
    assert_int_equal(stats().connects, 1);
    nst_store_close(store);
}

/* Under the clock of a replay: deadlines pass while answers are owed, and however far that clock jumps, the
 * connection is judged by real time. */
static void replay_body(void)
{
    struct nst_reactor *r = nst_reactor_self();
    char val[8];

    nst_clock_set(r, NST_SEC(1000));
    open_ready(NULL);
    assert_int_equal(nst_put(store, text("a"), text("aaa"), 0, patience()), 0);
    lab_signal(&redis, SIGSTOP);
    assert_int_equal(nst_get(store, text("a"), val, sizeof val, NULL, in_ms(20)), -ETIMEDOUT);
    nst_clock_set(r, NST_SEC(1000000));
    assert_int_equal(nst_get(store, text("a"), val, sizeof val, NULL, in_ms(20)), -ETIMEDOUT);
    nst_clock_set(r, NST_SEC(2000000));
    lab_signal(&redis, SIGCONT);
    assert_int_equal(nst_get(store, text("a"), val, sizeof val, NULL, patience()), 3);
    assert_int_equal(stats().in_flight, 0);
    assert_int_equal(stats().connects, 1);
    assert_true(stats().max < NST_SEC(100));
    nst_store_close(store);
}

static void overdue_body(void)
{
    struct nst_store_config config = { .reply_after = NST_MS(100) };
    char val[8];

    open_ready(&config);
    lab_signal(&redis, SIGSTOP);
    nst_get_start(store, text("k"), val, sizeof val, NULL, &futures[0]);
    nst_get_start(store, text("k"), val, sizeof val, NULL, &futures[1]);
    assert_int_equal(join_all(2), -ECONNRESET);
    assert_int_equal(futures[1].rc, -ECONNRESET);
    assert_int_equal(stats().broken, 2);
    assert_int_equal(nst_put(store, text("k"), text("v"), 0, patience()), -ENOTCONN);
    lab_signal(&redis, SIGCONT);
    assert_int_equal(nst_store_ping(store, patience()), 0);
    assert_int_equal(nst_put(store, text("k"), text("v"), 0, patience()), 0);
    assert_int_equal(stats().connects, 2);
    nst_store_close(store);
}

/* More than a socket takes, to a server that does not read: bounded, and all of it arrives once it reads again. */
static void out_bound_body(void)
{
    static char big[NST_VALUE_MAX];
    static char back[NST_VALUE_MAX];
    size_t n;

    open_ready(NULL);
    lab_signal(&redis, SIGSTOP);
    for (n = 0; n < 4096; n++) {
        memset(big, (int)n, sizeof big);
        nst_put_start(store, (struct nst_slice){ &n, sizeof n }, (struct nst_slice){ big, sizeof big }, 0, &futures[n]);
        if (futures[n].state == NST_FUTURE_DONE)
            break;
    }
    assert_in_range(n, 64, 1024);
    assert_int_equal(futures[n].rc, -EBUSY);
    assert_int_equal(nst_sleep(in_ms(5)), 0);
    lab_signal(&redis, SIGCONT);
    assert_int_equal(join_all(n), 0);
    assert_true(redis_writes(store) > 2);
    for (size_t i = 0; i < n; i++) {
        memset(big, (int)i, sizeof big);
        assert_int_equal(nst_get(store, (struct nst_slice){ &i, sizeof i }, back, sizeof back, NULL, patience()),
                         NST_VALUE_MAX);
        assert_memory_equal(big, back, sizeof big);
    }
    nst_store_close(store);
}

static void killed_and_back_body(void)
{
    char val[8];

    open_ready(NULL);
    logged[0] = 0;
    lab_signal(&redis, SIGSTOP);
    for (int i = 0; i < MANY; i++)
        nst_incr_start(store, text("n"), 1, NULL, 0, &futures[i]);
    assert_int_equal(nst_sleep(in_ms(5)), 0);
    lab_end(&redis, SIGKILL);
    assert_int_equal(join_all(MANY), -ECONNRESET);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(futures[i].rc, -ECONNRESET);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, NULL, patience()), -ENOTCONN);
    assert_int_equal(nst_store_ping(store, in_ms(150)), -ECONNREFUSED);
    assert_non_null(strstr(logged, "connection lost"));
    assert_non_null(strstr(logged, redis.url));
    lab_start(&redis);
    assert_int_equal(nst_store_ping(store, patience()), 0);
    assert_non_null(strstr(logged, "connected again"));
    assert_int_equal(nst_put(store, text("k"), text("v"), 0, patience()), 0);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, NULL, patience()), 1);
    /* nothing was sent again */
    assert_string_equal(lab_command(&redis, "exists n"), "0");
    assert_int_equal(stats().connects, 2);
    assert_int_equal(stats().broken, MANY);
    nst_store_close(store);
}

static void nobody_there_body(void)
{
    struct lab_redis later = { 0 };
    char val[8];

    lab_start(&later);
    lab_end(&later, SIGTERM);
    open_with(later.tcp_url, NULL);
    nst_get_start(store, text("k"), val, sizeof val, NULL, &futures[0]);
    assert_int_equal(nst_await(&futures[0], patience()), -ENOTCONN);
    assert_int_equal(nst_store_ping(store, in_ms(100)), -ECONNREFUSED);
    lab_start(&later);
    assert_int_equal(nst_store_ping(store, patience()), 0);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, NULL, patience()), -ENOENT);
    nst_store_close(store);
    lab_end(&later, SIGKILL);
    lab_remove(&later);

    open_with("redis+unix:///nowhere/at/all", NULL);
    assert_int_equal(nst_store_ping(store, in_ms(100)), -ENOENT);
    nst_store_close(store);
    const char *why = NULL;
    assert_int_equal(nst_store_open(&store, "redis://no.such.host.invalid", NULL, &why), -EINVAL);
    assert_non_null(strstr(why, "\"no.such.host.invalid\" cannot be resolved"));
}

static void closing_body(void)
{
    char val[8] = "xxxxxxx";

    open_ready(NULL);
    lab_signal(&redis, SIGSTOP);
    for (int i = 0; i < 3; i++)
        nst_get_start(store, text("k"), val, sizeof val, NULL, &futures[i]);
    nst_store_close(store);
    for (int i = 0; i < 3; i++)
        assert_int_equal(nst_await(&futures[i], patience()), -ECANCELED);
    lab_signal(&redis, SIGCONT);
    assert_string_equal(val, "xxxxxxx");
    /* while it is connecting, and at once */
    open_with(redis.tcp_url, NULL);
    nst_get_start(store, text("k"), val, sizeof val, NULL, &futures[0]);
    nst_store_close(store);
    assert_int_equal(nst_await(&futures[0], patience()), -ECANCELED);
}

#define ON_REACTOR(name)           \
    static void name(void **state) \
    {                              \
        lab_run(name##_body);      \
    }
ON_REACTOR(over_unix)
ON_REACTOR(over_tcp)
ON_REACTOR(bytes)
ON_REACTOR(ttl)
ON_REACTOR(what_others_wrote)
ON_REACTOR(password)
ON_REACTOR(contract)
ON_REACTOR(one_write_for_a_turn)
ON_REACTOR(before_the_connection)
ON_REACTOR(two_stores_race)
ON_REACTOR(bound_in_flight)
ON_REACTOR(late_answers)
ON_REACTOR(replay)
ON_REACTOR(overdue)
ON_REACTOR(out_bound)
ON_REACTOR(killed_and_back)
ON_REACTOR(nobody_there)
ON_REACTOR(closing)

static int start(void **state)
{
    nst_log_to(sink, NULL);
    lab_start(&redis);
    return 0;
}

static int finish(void **state)
{
    lab_end(&redis, SIGKILL);
    lab_remove(&redis);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(over_unix),
        cmocka_unit_test(over_tcp),
        cmocka_unit_test(bytes),
        cmocka_unit_test(ttl),
        cmocka_unit_test(what_others_wrote),
        cmocka_unit_test(password),
        cmocka_unit_test(contract),
        cmocka_unit_test(one_write_for_a_turn),
        cmocka_unit_test(before_the_connection),
        cmocka_unit_test(two_stores_race),
        cmocka_unit_test(bound_in_flight),
        cmocka_unit_test(late_answers),
        cmocka_unit_test(replay),
        cmocka_unit_test(overdue),
        cmocka_unit_test(out_bound),
        cmocka_unit_test(killed_and_back),
        cmocka_unit_test(nobody_there),
        cmocka_unit_test(closing),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
