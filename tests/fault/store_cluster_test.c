/* SPDX-License-Identifier: Apache-2.0 */
/* The store on a real cluster of three masters with a replica each: slots that move, a master that dies and one that is
 * paused, and what the others' keys notice of it. */
#include "store/redis.h"
#include "store_contract.h"
#include "store_lab.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct lab_cluster cluster;
static struct nst_store *store;
static char logged[1 << 16];

static void sink(void *arg, enum nst_log_level level, const char *line)
{
    size_t n = strlen(logged);

    if (getenv("NST_LAB_LOG") != NULL)
        fprintf(stderr, "%s\n", line);
    snprintf(logged + n, sizeof logged - n, "%s\n", line);
}

static void open_cluster(const struct nst_store_config *config)
{
    const char *why = NULL;

    logged[0] = 0;
    if (nst_store_open(&store, cluster.url, config, &why) != 0)
        fail_msg("%s: %s", cluster.url, why);
    assert_int_equal(nst_store_ping(store, patience()), 0);
}

static struct nst_store_stats stats(void)
{
    struct nst_store_stats st;

    nst_store_stats(store, &st);
    return st;
}

/* A key whose slot the node has that is the n-th of the first masters. */
static const char *key_of(int n, int i)
{
    static char key[8][32];
    static int which;
    char *k = key[which++ % 8];

    for (int j = i * 1000;; j++) {
        snprintf(k, sizeof key[0], "k%d", j);
        if (redis_slot(k, strlen(k)) / 5462 == n)
            return k;
    }
}

static void slots(void **state)
{
    assert_int_equal(redis_slot("123456789", 9), 0x31c3);
    assert_int_equal(redis_slot("", 0), 0);
    assert_int_equal(redis_slot("{user1000}.following", 20), redis_slot("{user1000}.followers", 20));
    assert_int_equal(redis_slot("{user1000}.following", 20), redis_slot("user1000", 8));
    assert_int_equal(redis_slot("foo{{bar}}zap", 13), redis_slot("{bar", 4));
    assert_int_not_equal(redis_slot("foo{}{bar}", 10), redis_slot("bar", 3));
    assert_int_equal(redis_slot("foo{bar}{zap}", 13), redis_slot("bar", 3));
    for (int i = 0; i < 100; i++) {
        char key[16], command[48];
        snprintf(key, sizeof key, "x%d{", i * 37);
        snprintf(command, sizeof command, "cluster keyslot '%s'", key);
        assert_int_equal(atoi(lab_command(&cluster.node[0], command)), redis_slot(key, strlen(key)));
    }
}

static void contract_body(void)
{
    open_cluster(NULL);
    store_contract(store, true);
    assert_int_equal(stats().in_flight, 0);
    /* the map was known: nothing had to be sent twice */
    assert_int_equal(stats().protocol_errors, 0);
    nst_store_close(store);
}

/* Requests that are made before anybody knows the map find their way. */
static void at_once_body(void)
{
    static struct nst_future f[300];
    static struct nst_future *all[300];

    logged[0] = 0;
    assert_int_equal(nst_store_open(&store, cluster.url, NULL, NULL), 0);
    for (int i = 0; i < 300; i++) {
        char key[16];
        snprintf(key, sizeof key, "once%d", i);
        nst_put_start(store, text(key), text("v"), 0, &f[i]);
        all[i] = &f[i];
    }
    assert_int_equal(nst_await_all(all, 300, patience()), 0);
    nst_store_close(store);
}

static const char *node_id(int n)
{
    static char id[2][64];
    static int which;

    snprintf(id[++which % 2], 64, "%s", lab_command(&cluster.node[n], "cluster myid"));
    return id[which % 2];
}

static void moving_slot_body(void)
{
    const char *key = key_of(0, 1);
    int slot = redis_slot(key, strlen(key));
    char command[160], val[8];
    uint64_t token = 0;
    int64_t n;
    int rc;

    open_cluster(NULL);
    rc = nst_delete(store, text(key), patience());
    assert_true(rc == 0 || rc == -ENOENT);
    snprintf(command, sizeof command, "cluster setslot %d importing %s", slot, node_id(0));
    assert_string_equal(lab_command(&cluster.node[1], command), "OK");
    snprintf(command, sizeof command, "cluster setslot %d migrating %s", slot, node_id(1));
    assert_string_equal(lab_command(&cluster.node[0], command), "OK");
    /* ASK: what is not there any more is on the other side, and so are scripts */
    assert_int_equal(nst_put_new(store, text(key), text("v1"), 0, patience()), 0);
    assert_int_equal(nst_own(store, text(key), val, sizeof val, &token, 0, patience()), 2);
    assert_int_equal(nst_put_owned(store, text(key), text("v2"), token, 0, patience()), 0);
    assert_int_equal(nst_get(store, text(key), val, sizeof val, NULL, patience()), 2);
    assert_memory_equal(val, "v2", 2);
    /* MOVED */
    snprintf(command, sizeof command, "cluster setslot %d node %s", slot, node_id(1));
    assert_string_equal(lab_command(&cluster.node[1], command), "OK");
    assert_string_equal(lab_command(&cluster.node[0], command), "OK");
    assert_int_equal(nst_get(store, text(key), val, sizeof val, NULL, patience()), 2);
    assert_int_equal(nst_delete_owned(store, text(key), token, patience()), 0);
    assert_int_equal(nst_incr(store, text(key), 1, &n, NST_SEC(10), patience()), 0);
    assert_int_equal(n, 1);
    /* and back */
    assert_int_equal(nst_delete(store, text(key), patience()), 0);
    snprintf(command, sizeof command, "cluster setslot %d importing %s", slot, node_id(1));
    assert_string_equal(lab_command(&cluster.node[0], command), "OK");
    snprintf(command, sizeof command, "cluster setslot %d migrating %s", slot, node_id(0));
    assert_string_equal(lab_command(&cluster.node[1], command), "OK");
    snprintf(command, sizeof command, "cluster setslot %d node %s", slot, node_id(0));
    for (int i = 0; i < 2; i++)
        assert_string_equal(lab_command(&cluster.node[i], command), "OK");
    /* until the nodes agree, each may name the other */
    for (nst_time until = patience(); (rc = nst_put(store, text(key), text("v"), 0, patience())) != 0;) {
        assert_int_equal(rc, -EAGAIN);
        assert_true(nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(5)), 0);
    }
    assert_null(strstr(logged, "connection lost"));
    nst_store_close(store);
}

/* A master is paused: its own keys' requests run into their deadlines, then the breaker refuses them; the others' go on. */
static void paused_body(void)
{
    const char *theirs = key_of(0, 2), *ours = key_of(1, 2);
    char val[8];
    int refused = 0;

    open_cluster(NULL);
    assert_int_equal(nst_put(store, text(theirs), text("v"), 0, patience()), 0);
    assert_int_equal(nst_put(store, text(ours), text("v"), 0, patience()), 0);
    lab_signal(&cluster.node[0], SIGSTOP);
    for (int i = 0; i < 40; i++) {
        int rc = nst_get(store, text(theirs), val, sizeof val, NULL, in_ms(5));
        assert_true(rc == -ETIMEDOUT || rc == -EHOSTDOWN);
        refused += rc == -EHOSTDOWN;
        assert_int_equal(nst_get(store, text(ours), val, sizeof val, NULL, patience()), 1);
    }
    assert_true(refused > 0);
    assert_int_equal(stats().tripped, 1);
    assert_int_equal(stats().shed, refused);
    assert_non_null(strstr(logged, "requests in a row had no answer"));
    lab_signal(&cluster.node[0], SIGCONT);
    for (nst_time until = patience();;) {
        int rc = nst_get(store, text(theirs), val, sizeof val, NULL, in_ms(500));
        if (rc == 1)
            break;
        assert_true(nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(10)), 0);
    }
    nst_store_close(store);
}

static void changed(struct nst_listener *l, struct nst_slice key)
{
}

/* A master dies: its keys are refused at once, the others' never notice; its replica takes over, and what was written
 * before is there. */
static void killed_body(void)
{
    struct nst_listener ear = { .prefix = { "k", 1 }, .changed = changed };
    char val[16], keys[50][16], ours[16];
    nst_time until;

    snprintf(ours, sizeof ours, "%s", key_of(1, 3));
    open_cluster(NULL);
    assert_int_equal(nst_listen(store, &ear), 0);
    for (int i = 0; i < 50; i++) {
        snprintf(keys[i], sizeof keys[i], "%s", key_of(0, 3 + i));
        assert_int_equal(nst_put(store, text(keys[i]), text(keys[i]), 0, patience()), 0);
    }
    assert_int_equal(nst_put(store, text(ours), text("v"), 0, patience()), 0);
    for (until = patience(); !ear.live;) {
        assert_true(nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(1)), 0);
    }
    lab_command(&cluster.node[0], "wait 1 5000");
    lab_end(&cluster.node[0], SIGKILL);
    until = patience();
    for (;;) {
        int rc = nst_get(store, text(keys[0]), val, sizeof val, NULL, in_ms(500));
        bool live = ear.live; /* then: while the next answer is on its way the replica may take over */
        assert_int_equal(nst_get(store, text(ours), val, sizeof val, NULL, patience()), 1);
        if (rc == (int)strlen(keys[0]))
            break;
        assert_true(rc == -ENOTCONN || rc == -ECONNRESET || rc == -EAGAIN);
        assert_false(live);
        assert_true(nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(5)), 0);
    }
    for (int i = 0; i < 50; i++) {
        assert_int_equal(nst_get(store, text(keys[i]), val, sizeof val, NULL, patience()), strlen(keys[i]));
        assert_memory_equal(val, keys[i], strlen(keys[i]));
        assert_int_equal(nst_put(store, text(keys[i]), text("after"), 0, patience()), 0);
    }
    assert_int_equal(nst_store_ping(store, patience()), 0);
    while (!ear.live) {
        assert_true(nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(5)), 0);
    }
    /* it comes back, as a replica */
    lab_start(&cluster.node[0]);
    for (int i = 0; i < 50; i++)
        assert_int_equal(nst_get(store, text(keys[i]), val, sizeof val, NULL, patience()), 5);
    nst_unlisten(store, &ear);
    store_contract(store, true);
    nst_store_close(store);
}

/* No cluster at all. */
static void not_one_body(void)
{
    struct lab_redis single = { 0 };
    char url[128];

    lab_start(&single);
    snprintf(url, sizeof url, "redis-cluster://127.0.0.1:%d", single.port);
    logged[0] = 0;
    assert_int_equal(nst_store_open(&store, url, NULL, NULL), 0);
    for (nst_time until = patience(); strstr(logged, "cluster support disabled") == NULL;) {
        assert_int_equal(nst_store_ping(store, in_ms(100)), -EAGAIN);
        assert_true(nst_now() < until);
    }
    nst_store_close(store);
    lab_end(&single, SIGKILL);
    lab_remove(&single);
}

#define ON_REACTOR(name)           \
    static void name(void **state) \
    {                              \
        lab_run(name##_body);      \
    }
ON_REACTOR(contract)
ON_REACTOR(at_once)
ON_REACTOR(moving_slot)
ON_REACTOR(paused)
ON_REACTOR(killed)
ON_REACTOR(not_one)

static int start(void **state)
{
    nst_log_to(sink, NULL);
    lab_cluster_start(&cluster);
    return 0;
}

static int finish(void **state)
{
    lab_cluster_end(&cluster);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contract), cmocka_unit_test(slots),  cmocka_unit_test(at_once), cmocka_unit_test(moving_slot),
        cmocka_unit_test(paused),   cmocka_unit_test(killed), cmocka_unit_test(not_one),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
