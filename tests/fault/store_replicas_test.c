/* SPDX-License-Identifier: Apache-2.0 */
/* Writes that replicas must have before they are acknowledged (replicas=N in the URL), with a real master and a real replica. */
#include "store_contract.h"
#include "store_lab.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KILLS = 6, AT_ONCE = 64, MANY = 1500 };

static struct lab_redis master, replica;
static char url[160];
static struct nst_store *store;

static void quiet(void *arg, enum nst_log_level level, const char *line)
{
}

static void begin(void)
{
    char address[64];

    lab_start(&master);
    snprintf(address, sizeof address, "127.0.0.1 %d", master.port);
    const char *const more[] = {
        "--replicaof", address, "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"
    };
    memcpy(replica.more, more, sizeof more);
    lab_start(&replica);
    for (nst_time until = patience(); strstr(lab_command(&master, "info replication"), "state=online") == NULL;) {
        assert_true(nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(50)), 0);
    }
    snprintf(url, sizeof url, "%s?replicas=1", master.url);
    assert_int_equal(nst_store_open(&store, url, NULL, NULL), 0);
    assert_int_equal(nst_store_ping(store, patience()), 0);
}

static void finish(void)
{
    struct nst_store_stats st;

    nst_store_stats(store, &st);
    assert_int_equal(st.in_flight, 0);
    nst_store_close(store);
    if (master.pid != 0)
        lab_end(&master, SIGKILL);
    lab_end(&replica, SIGKILL);
    lab_remove(&master);
    lab_remove(&replica);
}

static void contract_body(void)
{
    begin();
    store_contract(store, true);
    finish();
}

/* More at once than one burst, reads among them: each has its own answer. */
static void many_body(void)
{
    static struct nst_future f[MANY];
    static char val[MANY][8];

    begin();
    for (int i = 0; i < MANY; i++) {
        char key[16];
        snprintf(key, sizeof key, "many%d", i / 3);
        switch (i % 3) {
        case 0:
            nst_put_start(store, text(key), text(key + 4), 0, &f[i]);
            break;
        case 1:
            nst_get_start(store, text(key), val[i], sizeof val[i], NULL, &f[i]);
            break;
        default:
            nst_put_new_start(store, text(key), text("x"), 0, &f[i]);
        }
        if (i % 100 == 99)
            assert_int_equal(nst_sleep(in_ms(1)), 0);
    }
    for (int i = 0; i < MANY; i++) {
        char number[16];
        int rc = nst_await(&f[i], patience());
        snprintf(number, sizeof number, "%d", i / 3);
        assert_int_equal(rc, i % 3 == 0 ? 0 : i % 3 == 1 ? (int)strlen(number) : -EEXIST);
        if (i % 3 == 1)
            assert_memory_equal(val[i], number, strlen(number));
    }
    finish();
}

/* The master is killed in the middle of writing: the replica has whatever was acknowledged. */
static void killed_body(void)
{
    for (int kills = 0; kills < KILLS; kills++) {
        static struct nst_future f[AT_ONCE];
        static int last[AT_ONCE]; /* that was acknowledged */
        struct nst_store *other;
        int n = 0, rounds = 20 + 13 * kills;
        begin();
        memset(last, -1, sizeof last);
        for (; n < rounds; n++) {
            for (int i = 0; i < AT_ONCE; i++) {
                char key[16], number[16];
                snprintf(key, sizeof key, "k%d", i);
                snprintf(number, sizeof number, "%d", n);
                nst_put_start(store, text(key), text(number), 0, &f[i]);
            }
            if (n == rounds - 1) {
                assert_int_equal(nst_sleep(nst_now() + NST_US(30) * kills), 0);
                lab_signal(&master, SIGKILL);
            }
            for (int i = 0; i < AT_ONCE; i++) {
                if (nst_await(&f[i], patience()) == 0)
                    last[i] = n;
            }
        }
        lab_end(&master, SIGKILL);
        assert_int_equal(nst_store_open(&other, replica.url, NULL, NULL), 0);
        for (int i = 0; i < AT_ONCE; i++) {
            char key[16], val[16] = "";
            snprintf(key, sizeof key, "k%d", i);
            assert_true(nst_get(other, text(key), val, sizeof val - 1, NULL, patience()) > 0);
            assert_true(last[i] >= rounds - 2 && atoi(val) >= last[i]);
        }
        nst_store_close(other);
        finish();
    }
}

/* The replica is paused: writes are not acknowledged, and are there; reads go on. */
static void paused_body(void)
{
    char val[8];
    int rc;

    begin();
    assert_int_equal(nst_put(store, text("k"), text("v1"), 0, patience()), 0);
    lab_signal(&replica, SIGSTOP);
    assert_int_equal(nst_put(store, text("k"), text("v2"), 0, patience()), -ETIMEDOUT);
    assert_int_equal(nst_get(store, text("k"), val, sizeof val, NULL, patience()), 2);
    assert_memory_equal(val, "v2", 2);
    assert_int_equal(nst_put_new(store, text("k"), text("v3"), 0, patience()), -EEXIST);
    assert_int_equal(nst_put(store, text("k"), text("v4"), 0, in_ms(5)), -ETIMEDOUT);
    lab_signal(&replica, SIGCONT);
    for (nst_time until = patience(); (rc = nst_put(store, text("k"), text("v5"), 0, patience())) != 0;) {
        assert_true((rc == -ETIMEDOUT || rc == -EHOSTDOWN) && nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(10)), 0);
    }
    assert_non_null(strstr(lab_command(&replica, "get k"), "v5"));
    finish();
}

#define ON_REACTOR(name)           \
    static void name(void **state) \
    {                              \
        lab_run(name##_body);      \
    }
ON_REACTOR(contract)
ON_REACTOR(many)
ON_REACTOR(killed)
ON_REACTOR(paused)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contract),
        cmocka_unit_test(many),
        cmocka_unit_test(killed),
        cmocka_unit_test(paused),
    };
    nst_log_to(quiet, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
