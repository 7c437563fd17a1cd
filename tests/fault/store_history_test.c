/* SPDX-License-Identifier: Apache-2.0 */
/* Histories of operations on few keys by many at once, over several stores, while servers are paused and connections are
 * cut: no update is lost, none happens twice, nothing old is read. And that the judge of histories can say no. */
#include "store_history.h"
#include "store_lab.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CLIENTS = 4, WORKERS = 3, KEYS = 4, EACH = 60 };

/* ---- the judge ---- */

#define OP(k, b, e, f, t)                                             \
    {                                                                 \
        .kind = HISTORY_##k, .begin = b, .end = e, .from = f, .to = t \
    }

static void judge(void **state)
{
    struct history_op right[] = { OP(WRITE, 0, 10, 0, 1), OP(READ, 1, 3, 0, -1), OP(READ, 2, 4, 0, 1),
                                  OP(SWAP, 11, 12, 1, 2), OP(READ, 13, 14, 0, 2) };
    struct history_op old[] = { OP(WRITE, 0, 1, 0, 1), OP(WRITE, 2, 3, 0, 2), OP(READ, 4, 5, 0, 1) };
    struct history_op twice[] = { OP(WRITE, 0, 1, 0, 1), OP(SWAP, 2, 8, 1, 2), OP(SWAP, 3, 9, 1, 3) };
    struct history_op lost[] = { OP(ADD, 0, 5, 1, 1), OP(ADD, 1, 6, 1, 1) };
    struct history_op maybe[] = { OP(WRITE, 0, INT64_MAX, 0, 1), OP(READ, 5, 6, 0, -1), OP(READ, 7, 8, 0, 1) };
    struct history_op undone[] = { OP(WRITE, 0, INT64_MAX, 0, 1), OP(READ, 5, 6, 0, 1), OP(READ, 7, 8, 0, -1) };

    assert_true(history_linear(right, 5));
    assert_false(history_linear(old, 3));
    assert_false(history_linear(twice, 3));
    assert_false(history_linear(lost, 2));
    assert_true(history_linear(maybe, 3));
    assert_false(history_linear(undone, 3));
}

/* ---- the histories ---- */

static struct nst_store *stores[CLIENTS];
static struct {
    struct history_op op[HISTORY_MAX];
    size_t n;
} history[2 * KEYS]; /* values, then counters */
static int64_t unique;
static unsigned unknown;
static nst_time deadline;

/* Whether the operation may have landed although it failed. */
static bool unsure(int rc)
{
    return rc == -ETIMEDOUT || rc == -ECONNRESET || rc == -EPROTO;
}

static void worker(void *arg)
{
    long me = (long)arg;
    struct nst_store *s = stores[me % CLIENTS];
    unsigned seed = (unsigned)me * 977 + (unsigned)getpid();

    for (int i = 0; i < EACH; i++) {
        unsigned k = (unsigned)rand_r(&seed) % KEYS, what = (unsigned)rand_r(&seed) % 4;
        struct history_op op = { .begin = nst_clock(), .end = INT64_MAX };
        int64_t seen = HISTORY_GONE, count = 0;
        char key[32];
        int rc;

        snprintf(key, sizeof key, "history:%c%u", what == 3 ? 'n' : 'v', k);
        op.to = ++unique;
        op.kind = what == 0 ? HISTORY_READ : what == 1 ? HISTORY_WRITE : what == 2 ? HISTORY_SWAP : HISTORY_ADD;
        switch (op.kind) {
        case HISTORY_READ:
            rc = nst_get(s, text(key), &seen, sizeof seen, NULL, nst_now() + deadline);
            op.to = rc == sizeof seen ? seen : HISTORY_GONE;
            if (rc == -ENOENT)
                rc = 0;
            break;
        case HISTORY_WRITE:
            rc = nst_put(s, text(key), (struct nst_slice){ &op.to, 8 }, 0, nst_now() + deadline);
            break;
        case HISTORY_SWAP:
            rc = nst_get(s, text(key), &seen, sizeof seen, NULL, nst_now() + deadline);
            if (rc < 0)
                continue; /* nothing to compare with */
            op.begin = nst_clock();
            op.from = seen;
            rc = nst_cas_bytes(s, text(key), (struct nst_slice){ &seen, 8 }, (struct nst_slice){ &op.to, 8 }, 0,
                               nst_now() + deadline);
            op.lost = rc == -ESTALE;
            if (op.lost)
                rc = 0;
            break;
        case HISTORY_ADD:
            op.from = 1 + rand_r(&seed) % 5;
            rc = nst_incr(s, text(key), op.from, &count, 0, nst_now() + deadline);
            op.to = count;
            break;
        }
        if (rc >= 0)
            op.end = nst_clock();
        unknown += rc < 0;
        if (rc >= 0 || unsure(rc)) {
            size_t h = k + (what == 3 ? KEYS : 0);
            assert_true(history[h].n < HISTORY_MAX);
            history[h].op[history[h].n++] = op;
        } else {
            assert_true(rc == -ENOTCONN || rc == -EHOSTDOWN || rc == -EAGAIN || rc == -EBUSY);
        }
        if (nst_sleep(nst_now() + NST_US(rand_r(&seed) % 3000)) < 0)
            return;
    }
}

/* Runs the workers over stores at url, with trouble made meanwhile, and judges. */
static void run(const char *url, void (*trouble)(void *))
{
    struct nst_scope *scope;
    char key[32];

    memset(history, 0, sizeof history);
    unknown = 0;
    for (int i = 0; i < CLIENTS; i++) {
        const char *why = NULL;
        if (i > 0 && strcmp(url, "mem:") == 0)
            stores[i] = stores[0];
        else if (nst_store_open(&stores[i], url, NULL, &why) != 0)
            fail_msg("%s: %s", url, why);
        assert_int_equal(nst_store_ping(stores[i], patience()), 0);
    }
    for (int k = 0; k < 2 * KEYS; k++) {
        snprintf(key, sizeof key, "history:%c%d", k < KEYS ? 'v' : 'n', k % KEYS);
        int rc = nst_delete(stores[0], text(key), patience());
        assert_true(rc == 0 || rc == -ENOENT);
    }
    assert_int_equal(nst_scope_open(&scope, NULL), 0);
    for (long i = 0; i < CLIENTS * WORKERS; i++)
        assert_int_equal(nst_spawn(scope, worker, (void *)i), 0);
    if (trouble != NULL)
        assert_int_equal(nst_spawn(scope, trouble, NULL), 0);
    assert_int_equal(nst_scope_join(scope, nst_now() + NST_SEC(120)), 0);
    assert_int_equal(nst_scope_close(scope), 0);
    for (int k = 0; k < 2 * KEYS; k++) {
        size_t n = history[k].n;
        if (history_linear(history[k].op, n) != 1)
            fail_msg("%s: no order explains the %zu operations on key %d", url, n, k);
    }
    print_message("%s: %u operations without an answer\n", url, unknown);
    for (int i = 0; i < CLIENTS; i++) {
        if (i == 0 || stores[i] != stores[0])
            nst_store_close(stores[i]);
    }
}

static struct lab_redis redis;
static struct lab_cluster cluster;

/* The server stands still for a while, and connections are cut. */
static void cuts(void *arg)
{
    for (int i = 0; i < 6; i++) {
        if (nst_sleep(in_ms(20)) < 0)
            return;
        if (i % 2 == 0) {
            lab_command(&redis, "client kill type normal");
        } else {
            lab_signal(&redis, SIGSTOP);
            int rc = nst_sleep(in_ms(60));
            lab_signal(&redis, SIGCONT);
            if (rc < 0)
                return;
        }
    }
}

static void node_pauses(void *arg)
{
    int rc;

    if (nst_sleep(in_ms(30)) < 0)
        return;
    lab_signal(&cluster.node[1], SIGSTOP);
    rc = nst_sleep(in_ms(400)); /* below the time after which it is replaced */
    lab_signal(&cluster.node[1], SIGCONT);
    (void)rc;
}

static void mem_body(void)
{
    deadline = NST_SEC(5);
    run("mem:", NULL);
}

static void lmdb_body(void)
{
    char dir[] = "/tmp/netstar-test.XXXXXX", url[64], path[64];

    assert_non_null(mkdtemp(dir));
    snprintf(url, sizeof url, "lmdb:%s/f", dir);
    deadline = NST_MS(20); /* some are given up on their way */
    run(url, NULL);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, i == 0 ? "f" : "f-lock");
        unlink(path);
    }
    rmdir(dir);
}

static void redis_body(void)
{
    lab_start(&redis);
    deadline = NST_MS(30);
    run(redis.url, NULL);
    run(redis.url, cuts);
    run(redis.tcp_url, cuts);
    lab_end(&redis, SIGKILL);
    lab_remove(&redis);
}

static void cluster_body(void)
{
    lab_cluster_start(&cluster);
    deadline = NST_SEC(10); /* all of them are answered in the end */
    run(cluster.url, NULL);
    run(cluster.url, node_pauses);
    lab_cluster_end(&cluster);
}

#define ON_REACTOR(name)           \
    static void name(void **state) \
    {                              \
        lab_run(name##_body);      \
    }
ON_REACTOR(mem)
ON_REACTOR(lmdb)

static void servers(void **state)
{
    lab_run(redis_body);
}

static void nodes(void **state)
{
    lab_run(cluster_body);
}

static void sink(void *arg, enum nst_log_level level, const char *line)
{
}

static int start(void **state)
{
    nst_log_to(sink, NULL);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(judge),   cmocka_unit_test(mem),   cmocka_unit_test(lmdb),
        cmocka_unit_test(servers), cmocka_unit_test(nodes),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
