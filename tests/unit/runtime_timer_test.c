/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime_harness.h"
#include <stdio.h>

enum { N = 2000 };

struct probe {
    struct nst_timer t;
    int number;
    int fired;
    bool armed; /* what the model says */
    nst_time until;
};

static struct probe probes[N];
static int order[N], n_fired;

static void fire(struct nst_timer *t)
{
    struct probe *p = (struct probe *)t;

    CHECK(nst_now() >= t->until);
    p->fired++;
    p->armed = false;
    if (n_fired < N)
        order[n_fired] = p->number;
    n_fired++;
}

static void reset(void)
{
    memset(probes, 0, sizeof probes);
    for (int i = 0; i < N; i++)
        probes[i].number = i;
    n_fired = 0;
}

/* The tests stand in a replay's clock, so that time passes only when they say so. */
static void go_to(nst_time now)
{
    nst_clock_set(reactor, now);
    pass_turns(2);
}

static void rising_falling(void)
{
    reset();
    nst_clock_set(reactor, 1000);
    for (int i = 0; i < 100; i++)
        CHECK(nst_timer_arm(&probes[i].t, 2000 + i, fire) == 0);
    for (int i = 100; i < 200; i++)
        CHECK(nst_timer_arm(&probes[i].t, 3000 - i, fire) == 0);
    CHECK(n_fired == 0);
    go_to(1999);
    CHECK(n_fired == 0);
    go_to(2000);
    CHECK(n_fired == 1 && order[0] == 0);
    go_to(2801);
    CHECK(n_fired == 101 && order[100] == 199);
    go_to(5000);
    CHECK(n_fired == 200);
    for (int i = 0; i < 100; i++)
        CHECK(order[i] == i && order[100 + i] == 199 - i);
}
static void test_order(void **state)
{
    run(rising_falling);
    assert_true(stats.timers_fired == 200);
}

static struct nst_timer again;
static int times;

static void rearm(struct nst_timer *t)
{
    times++;
    CHECK(nst_timer_arm(t, nst_now() - 5, rearm) == 0); /* past: the next turn, not this one */
}
static void disarm_others(struct nst_timer *t)
{
    fire(t);
    for (int i = 1; i < 50; i++)
        nst_timer_disarm(&probes[i].t);
}
static void in_fire(void)
{
    reset();
    nst_clock_set(reactor, 1000);
    CHECK(nst_timer_arm(&again, 1000, rearm) == 0);
    CHECK(times == 0);
    go_to(1000);
    CHECK(times >= 1 && times <= 3);
    nst_timer_disarm(&again);
    nst_timer_disarm(&again);
    int before = times;
    go_to(2000);
    CHECK(times == before);

    /* All due in the same turn; the first takes the others back. */
    for (int i = 0; i < 50; i++)
        CHECK(nst_timer_arm(&probes[i].t, 3000 + (i * 7 % 50 != 0) * i, i == 0 ? disarm_others : fire) == 0);
    go_to(4000);
    CHECK(n_fired == 1 && order[0] == 0);

    CHECK(nst_timer_arm(&probes[60].t, NST_NEVER, fire) == 0);
    CHECK(probes[60].t.where == 0);
    /* Arming an armed one moves it. */
    CHECK(nst_timer_arm(&probes[61].t, 5000, fire) == 0);
    CHECK(nst_timer_arm(&probes[61].t, 6000, fire) == 0);
    go_to(5500);
    CHECK(n_fired == 1);
    go_to(6000);
    CHECK(n_fired == 2);
}
static void test_in_fire(void **state)
{
    run(in_fire);
}

static void random_against_model(void)
{
    reset();
    nst_time now = 1000;
    nst_clock_set(reactor, now);
    srandom(7);
    for (int round = 0; round < 400; round++) {
        for (int k = 0; k < 100; k++) {
            struct probe *p = &probes[random() % N];
            if (p->armed && random() % 2) {
                nst_timer_disarm(&p->t);
                p->armed = false;
            } else if (!p->armed) {
                p->until = now + 1 + (random() % 3 == 0 ? random() % 100000 : 500 * (1 + random() % 4));
                CHECK(nst_timer_arm(&p->t, p->until, fire) == 0);
                p->armed = true;
                p->fired = 0;
            }
        }
        now += random() % 300;
        n_fired = 0;
        go_to(now);
        for (int i = 1; i < n_fired && i < N; i++)
            CHECK(probes[order[i - 1]].until <= probes[order[i]].until);
        for (int i = 0; i < N; i++) {
            CHECK(!probes[i].armed || probes[i].until > now);
            CHECK(probes[i].fired <= 1);
        }
    }
    for (int i = 0; i < N; i++)
        nst_timer_disarm(&probes[i].t);
    n_fired = 0;
    go_to(NST_SEC(1000));
    CHECK(n_fired == 0);
}
static void test_random(void **state)
{
    run(random_against_model);
}

static void live(void)
{
    nst_time until = nst_now() + NST_MS(5);

    CHECK(nst_sleep(until) == 0);
    CHECK(nst_now() >= until && nst_clock() >= nst_now());
}
static void test_live(void **state)
{
    run(live);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_order), cmocka_unit_test(test_in_fire),
                                        cmocka_unit_test(test_random), cmocka_unit_test(test_live) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
