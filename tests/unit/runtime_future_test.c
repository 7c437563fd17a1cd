/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime_harness.h"
#include <stdio.h>

/* A producer that answers by a timer: `delay` after it was asked to stop, or at `at`. */
struct producer {
    struct nst_future f;
    struct nst_timer t;
    int rc;
    int stops;
    bool ended;
};

static void produce(struct nst_timer *t)
{
    struct producer *p = (struct producer *)((char *)t - offsetof(struct producer, t));
    p->ended = true;
    nst_fulfil(&p->f, p->rc);
}
static void stop_now(struct nst_future *f)
{
    struct producer *p = (struct producer *)f;
    p->stops++;
    p->ended = true;
    nst_timer_disarm(&p->t);
    nst_fulfil(f, -ECANCELED);
}
static void stop_soon(struct nst_future *f)
{
    struct producer *p = (struct producer *)f;
    p->stops++;
    p->rc = 5; /* it succeeds all the same */
    nst_timer_arm(&p->t, nst_now() + NST_MS(2), produce);
}
static void begin(struct producer *p, int rc, nst_time at, void (*stop)(struct nst_future *))
{
    memset(p, 0, sizeof *p);
    p->rc = rc;
    p->f.stop = stop;
    nst_timer_arm(&p->t, at, produce);
}

static void awaiting(void)
{
    struct producer p;
    nst_time now = nst_now();

    begin(&p, 7, NST_NEVER, stop_now);
    nst_fulfil(&p.f, 9);
    CHECK(nst_await(&p.f, 0) == 9); /* done before: no matter the deadline */
    CHECK(!nst_moved());
    begin(&p, 7, now + NST_MS(1), stop_now);
    CHECK(nst_await(&p.f, NST_NEVER) == 7 && p.stops == 0);
    CHECK(nst_moved());
    begin(&p, 7, nst_now() + NST_MS(1), stop_now);
    CHECK(nst_await(&p.f, nst_now() + NST_SEC(100)) == 7 && p.f.timer.where == 0);
    /* Late, with a producer that stops at once; with one that goes on for a while and even succeeds; with one that
     * cannot be stopped. */
    begin(&p, 7, NST_NEVER, stop_now);
    CHECK(nst_await(&p.f, nst_now() + NST_MS(1)) == -ETIMEDOUT && p.stops == 1 && p.ended);
    begin(&p, 7, NST_NEVER, stop_soon);
    CHECK(nst_await(&p.f, nst_now() + NST_MS(1)) == -ETIMEDOUT && p.stops == 1 && p.ended);
    begin(&p, 7, nst_now() + NST_MS(5), NULL);
    CHECK(nst_await(&p.f, nst_now() + NST_MS(1)) == -ETIMEDOUT && p.ended);
    /* Late before it began. */
    begin(&p, 7, NST_NEVER, stop_now);
    CHECK(nst_await(&p.f, nst_now()) == -ETIMEDOUT && p.stops == 1);
    begin(&p, 7, NST_NEVER, stop_soon);
    CHECK(nst_await(&p.f, nst_now() - 1) == -ETIMEDOUT && p.stops == 1 && p.ended);
}
static void test_await(void **state)
{
    run(awaiting);
}

static void cancelling(void)
{
    struct producer p;

    begin(&p, 7, NST_NEVER, stop_now);
    CHECK(nst_cancel(&p.f) == -ECANCELED && p.stops == 1);
    CHECK(nst_cancel(&p.f) == -ECANCELED && p.stops == 1);
    begin(&p, 7, NST_NEVER, stop_soon);
    CHECK(nst_cancel(&p.f) == 5 && p.stops == 1 && p.ended);
    begin(&p, 8, nst_now() + NST_MS(1), NULL);
    CHECK(nst_cancel(&p.f) == 8 && p.ended);
    begin(&p, 7, NST_NEVER, stop_now);
    nst_fulfil(&p.f, 3);
    CHECK(nst_cancel(&p.f) == 3 && p.stops == 0);
}
static void test_cancel(void **state)
{
    run(cancelling);
}

static int calls, last_rc;
static void *last_arg;
static void on_result(struct nst_future *f, int rc)
{
    calls++;
    last_rc = rc;
    last_arg = f->arg;
}
static void waits_itself(struct nst_future *f, int rc)
{
    CHECK(nst_sleep(nst_now() + NST_MS(1)) == 0);
    on_result(f, rc);
}
static void thens(void)
{
    struct producer p, q;
    int x;

    /* Fulfilling runs nothing by itself. */
    begin(&p, 0, NST_NEVER, stop_now);
    nst_then(&p.f, on_result, &x, NST_NEVER);
    nst_fulfil(&p.f, 4);
    CHECK(calls == 0);
    CHECK(nst_yield() == 0);
    CHECK(calls == 1 && last_rc == 4 && last_arg == &x);
    /* Nor does a continuation given to a future that is done. */
    begin(&p, 0, NST_NEVER, stop_now);
    nst_fulfil(&p.f, 5);
    nst_then(&p.f, on_result, NULL, NST_NEVER);
    CHECK(calls == 1);
    CHECK(nst_yield() == 0);
    CHECK(calls == 2 && last_rc == 5);
    /* Late. */
    begin(&p, 0, NST_NEVER, stop_now);
    nst_then(&p.f, on_result, NULL, nst_now() + NST_MS(1));
    begin(&q, 0, NST_NEVER, stop_soon);
    nst_then(&q.f, on_result, NULL, nst_now() + NST_MS(1));
    while (calls < 4)
        CHECK(nst_yield() == 0);
    CHECK(calls == 4 && last_rc == -ETIMEDOUT && p.stops == 1 && q.stops == 1 && p.f.rc == -ETIMEDOUT && q.ended);
    /* Late from the start: still not from within the call. */
    begin(&p, 0, NST_NEVER, stop_now);
    nst_then(&p.f, on_result, NULL, nst_now());
    CHECK(calls == 4);
    CHECK(nst_yield() == 0);
    CHECK(calls == 5 && last_rc == -ETIMEDOUT);
    /* No continuation runs once it is cancelled, not even when it is in the queue already. */
    begin(&p, 0, NST_NEVER, stop_now);
    begin(&q, 0, NST_NEVER, stop_now);
    nst_then(&p.f, on_result, NULL, NST_NEVER);
    nst_then(&q.f, on_result, NULL, NST_NEVER);
    nst_fulfil(&q.f, 1);
    nst_fulfil(&p.f, 6);
    CHECK(nst_cancel(&p.f) == 6);
    CHECK(nst_yield() == 0);
    CHECK(calls == 6 && last_rc == 1);
    /* A continuation may wait. */
    begin(&p, 0, NST_NEVER, stop_now);
    nst_then(&p.f, waits_itself, NULL, NST_NEVER);
    nst_fulfil(&p.f, 11);
    while (calls < 7)
        CHECK(nst_yield() == 0);
    CHECK(calls == 7 && last_rc == 11);
}
static void test_then(void **state)
{
    run(thens);
}

enum { MANY = 50 };
static struct producer many[MANY];
static struct nst_future *all[MANY];

static void begin_many(void (*stop)(struct nst_future *))
{
    nst_time now = nst_now();

    for (int i = 0; i < MANY; i++) {
        begin(&many[i], i, now + NST_US(100) * (1 + (i * 7) % MANY), stop);
        all[i] = &many[i].f;
    }
}
static void alls(void)
{
    begin_many(stop_now);
    CHECK(nst_await_all(all, MANY, NST_NEVER) == 0);
    for (int i = 0; i < MANY; i++)
        CHECK(many[i].ended && many[i].f.rc == i);
    CHECK(nst_await_all(all, MANY, 0) == 0);
    CHECK(nst_await_all(all, 0, 0) == 0);
    begin_many(stop_now);
    many[20].rc = -EIO;
    many[30].rc = -EPERM;
    CHECK(nst_await_all(all, MANY, NST_NEVER) == -EIO);
    for (int i = 0; i < MANY; i++)
        CHECK(many[i].ended);
    for (int soon = 0; soon < 2; soon++) {
        begin_many(soon ? stop_soon : stop_now);
        for (int i = 10; i < MANY; i++)
            nst_timer_disarm(&many[i].t);
        CHECK(nst_await_all(all, MANY, nst_now() + NST_MS(8)) == -ETIMEDOUT);
        for (int i = 0; i < MANY; i++) {
            CHECK(many[i].ended && many[i].f.state == NST_FUTURE_DONE && !many[i].f.queued);
            CHECK(many[i].stops == (i >= 10));
        }
    }
    /* Several come up in the very turn in which the deadline passes. */
    for (int round = 0; round < 50; round++) {
        begin_many(round % 2 ? stop_soon : stop_now);
        int rc = nst_await_all(all, MANY, nst_now() + NST_US(100) * round);
        CHECK(rc == 0 || rc == -ETIMEDOUT);
        for (int i = 0; i < MANY; i++)
            CHECK(many[i].f.state == NST_FUTURE_DONE && !many[i].f.queued);
        memset(many, 0xee, sizeof many); /* nobody may touch it any more */
        CHECK(nst_yield() == 0);
    }
}
static void test_all(void **state)
{
    run(alls);
}

static void anys(void)
{
    CHECK(nst_await_any(all, 0, NST_NEVER) == -EINVAL);
    begin_many(stop_now);
    CHECK(nst_await_any(all, MANY, NST_NEVER) == 0);
    for (int i = 0; i < MANY; i++)
        nst_cancel(all[i]);
    /* One by one, each once. */
    struct nst_future *rest[MANY];
    int n = MANY;
    bool seen[MANY] = { false };
    begin_many(stop_now);
    memcpy(rest, all, sizeof rest);
    while (n > 0) {
        int i = nst_await_any(rest, n, NST_NEVER);
        CHECK(i >= 0 && i < n && rest[i]->state == NST_FUTURE_DONE && !rest[i]->queued);
        CHECK(!seen[rest[i]->rc]);
        seen[rest[i]->rc] = true;
        rest[i] = rest[--n];
    }
    /* Two in the same turn, and the memory of the second goes. */
    begin_many(stop_now);
    for (int i = 0; i < MANY; i++)
        nst_timer_disarm(&many[i].t);
    nst_timer_arm(&many[3].t, nst_now() + NST_MS(1), produce);
    nst_timer_arm(&many[2].t, nst_now() + NST_MS(1), produce);
    int first = nst_await_any(all, MANY, NST_NEVER);
    CHECK(first == 2 || first == 3);
    for (int i = 0; i < MANY; i++)
        nst_cancel(all[i]);
    memset(many, 0xee, sizeof many);
    CHECK(nst_yield() == 0);
    for (int soon = 0; soon < 2; soon++) {
        begin_many(soon ? stop_soon : stop_now);
        for (int i = 0; i < MANY; i++)
            nst_timer_disarm(&many[i].t);
        CHECK(nst_await_any(all, MANY, nst_now() + NST_MS(1)) == -ETIMEDOUT);
        for (int i = 0; i < MANY; i++)
            CHECK(many[i].stops == 1 && many[i].ended);
    }
}
static void test_any(void **state)
{
    run(anys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_await), cmocka_unit_test(test_cancel), cmocka_unit_test(test_then),
        cmocka_unit_test(test_all),   cmocka_unit_test(test_any),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
