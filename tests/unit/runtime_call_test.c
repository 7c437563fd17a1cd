/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime_harness.h"
#include <stdatomic.h>

static struct nst_reactor *a, *b;
static pthread_t thread_b;

static void *run_b(void *arg)
{
    CHECK(nst_reactor_run(b, NULL, NULL) == 0);
    return NULL;
}

/* ---- many tasks on either side call the other, and are called while they wait ---- */

enum { TASKS = 50, ROUNDS = 400 };
static atomic_int served[2];

static int serve(void *arg)
{
    int n = *(int *)arg;

    atomic_fetch_add(&served[nst_reactor_self() == b], 1);
    if (n % 7 == 0 && nst_sleep(nst_now() + NST_US(50)) != 0)
        return -ECANCELED;
    return n + 1;
}
static void calls(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        struct nst_future f;
        int n = i, rc;
        nst_future_init(&f);
        while ((rc = nst_call(nst_reactor_self() == a ? b : a, serve, &n, &f)) == -EAGAIN)
            CHECK(nst_yield() == 0);
        CHECK(rc == 0);
        CHECK(nst_await(&f, NST_NEVER) == i + 1);
    }
}
static int call_back(void *arg)
{
    struct nst_scope *s;

    CHECK(nst_scope_open(&s, NULL) == 0);
    for (int i = 0; i < TASKS; i++)
        CHECK(nst_spawn(s, calls, NULL) == 0);
    CHECK(nst_scope_join(s, NST_NEVER) == 0);
    return nst_scope_close(s);
}
static void ping_pong(void *arg)
{
    struct nst_future f = { 0 };

    CHECK(nst_call(b, call_back, NULL, &f) == 0);
    call_back(NULL);
    CHECK(nst_await(&f, NST_NEVER) == 0);
    nst_reactor_stop(b);
    nst_reactor_stop(a);
}

/* ---- a mailbox that fills, and one that closes ---- */

enum { ROOM = 4096 };
static int nothing(void *arg)
{
    atomic_fetch_add((atomic_int *)arg, 1);
    return 0;
}
static atomic_bool go;
static int blocks(void *arg)
{
    while (!atomic_load(&go))
        usleep(100);
    return 0;
}
static int let_go(void *arg)
{
    atomic_store(&go, true);
    return 0;
}
static void fill(void *arg)
{
    static struct nst_future f[ROOM + 1];
    static struct nst_future *all[ROOM];
    static atomic_int n;
    struct nst_future busy = { 0 }, late = { 0 };
    int rc = 0, sent;

    CHECK(nst_call(b, blocks, NULL, &busy) == 0);
    CHECK(nst_sleep(nst_now() + NST_MS(20)) == 0);
    for (sent = 0; sent < ROOM + 1; sent++) {
        rc = nst_call(b, nothing, &n, &f[sent]);
        if (rc != 0)
            break;
    }
    CHECK(rc == -EAGAIN && sent >= ROOM - 1);
    atomic_store(&go, true);
    for (int i = 0; i < sent; i++)
        all[i] = &f[i];
    CHECK(nst_await_all(all, sent, NST_NEVER) == 0);
    CHECK(nst_await(&busy, NST_NEVER) == 0);
    CHECK(atomic_load(&n) == sent);
    /* It cannot be stopped: late, but joined. */
    atomic_store(&go, false);
    CHECK(nst_call(b, blocks, NULL, &late) == 0);
    struct nst_future waker = { 0 };
    CHECK(nst_call(a, let_go, NULL, &waker) == 0); /* a call to oneself works as well */
    CHECK(nst_await(&late, nst_now()) == -ETIMEDOUT && late.state == NST_FUTURE_DONE);
    CHECK(nst_await(&waker, NST_NEVER) == 0);
    nst_reactor_stop(b);
    nst_reactor_stop(a);
}

static void stops_first(void *arg)
{
    struct nst_future f = { 0 };
    int n = 7, rc;

    nst_reactor_stop(b);
    /* Served, cancelled or refused, but answered. */
    rc = nst_call(b, serve, &n, &f);
    if (rc == 0)
        rc = nst_await(&f, NST_NEVER);
    CHECK(rc == 8 || rc == -ECANCELED);
    pthread_join(thread_b, NULL);
    nst_future_init(&f);
    CHECK(nst_call(b, serve, &n, &f) == -ECANCELED);
    nst_reactor_stop(a);
}

static void both(void (*body)(void *), bool join)
{
    struct nst_reactor_config config = { .name = "a", .cpu = -1 };

    assert_int_equal(nst_reactor_open(&a, &config), 0);
    config.name = "b";
    config.stall_after = NST_NEVER; /* it is blocked on purpose */
    assert_int_equal(nst_reactor_open(&b, &config), 0);
    assert_int_equal(pthread_create(&thread_b, NULL, run_b, NULL), 0);
    assert_int_equal(nst_reactor_run(a, body, NULL), 0);
    if (join)
        pthread_join(thread_b, NULL);
    nst_reactor_stats(b, &stats);
    nst_reactor_close(a);
    nst_reactor_close(b);
}
static void test_ping_pong(void **state)
{
    both(ping_pong, true);
    assert_int_equal(served[0], TASKS * ROUNDS);
    assert_int_equal(served[1], TASKS * ROUNDS);
    assert_int_equal(stats.calls_in, TASKS * ROUNDS + 1);
}
static void test_full(void **state)
{
    both(fill, true);
    assert_int_equal(stats.calls_refused, 1);
}
static void test_closing(void **state)
{
    for (int i = 0; i < 50; i++)
        both(stops_first, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_ping_pong), cmocka_unit_test(test_full),
                                        cmocka_unit_test(test_closing) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
