/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime_harness.h"

static int ran, cancelled;

static void count(void *arg)
{
    ran++;
}
static void sleeper(void *arg)
{
    int rc = nst_sleep(nst_now() + *(nst_time *)arg);

    if (rc == -ECANCELED) {
        cancelled++;
        /* After that every wait answers at once. */
        CHECK(nst_cancelled());
        CHECK(nst_sleep(NST_NEVER) == -ECANCELED);
        CHECK(nst_yield() == -ECANCELED);
        struct nst_future f = { .stop = stop_at_once };
        CHECK(nst_await(&f, NST_NEVER) == -ECANCELED);
    } else {
        CHECK(rc == 0);
    }
    ran++;
}

static nst_time forever = NST_SEC(100000), shortly = NST_MS(1);

static void spawning(void)
{
    struct nst_scope *s;

    ran = 0;
    CHECK(nst_scope_open(&s, NULL) == 0);
    for (int i = 0; i < 10000; i++)
        CHECK(nst_spawn(s, count, NULL) == 0);
    CHECK(ran == 0);
    CHECK(nst_scope_join(s, NST_NEVER) == 0);
    CHECK(ran == 10000);
    for (int i = 0; i < 5000; i++)
        CHECK(nst_spawn(s, sleeper, &shortly) == 0);
    CHECK(nst_scope_join(s, NST_NEVER) == 0);
    CHECK(ran == 15000);
    CHECK(nst_spawn(s, sleeper, &forever) == 0);
    CHECK(nst_scope_join(s, nst_now() + NST_MS(2)) == -ETIMEDOUT);
    CHECK(cancelled == 0);
    CHECK(nst_scope_close(s) == 1);
    CHECK(cancelled == 1 && ran == 15001);
    CHECK(nst_scope_open(&s, NULL) == 0);
    CHECK(nst_scope_close(s) == 0);
}
static void test_spawn(void **state)
{
    run(spawning);
    assert_true(stats.stacks_peak >= 5000);
}

static struct nst_scope *outer, *inner;

static void closes_own(void *arg)
{
    CHECK(nst_scope_close(inner) == -EDEADLK);
    CHECK(nst_scope_close(outer) == -EDEADLK);
    ran++;
    CHECK(nst_sleep(NST_NEVER) == -ECANCELED);
    CHECK(nst_spawn(inner, count, NULL) == -ECANCELED);
    struct nst_scope *s;
    CHECK(nst_scope_open(&s, inner) == -ECANCELED);
    ran++;
}
static void joins_outer(void *arg)
{
    CHECK(nst_scope_join(outer, NST_NEVER) == 0);
    ran++;
}
static void closes_inner(void *arg)
{
    *(int *)arg = nst_scope_close(inner);
}
static void nesting(void)
{
    ran = 0;
    CHECK(nst_scope_open(&outer, NULL) == 0);
    CHECK(nst_scope_open(&inner, outer) == 0);
    CHECK(nst_spawn(inner, closes_own, NULL) == 0);
    CHECK(nst_spawn(outer, sleeper, &forever) == 0);
    CHECK(nst_yield() == 0);
    CHECK(ran == 1);
    CHECK(nst_scope_close(outer) == 2);
    CHECK(ran == 3);

    /* One closes the parent while another closes the child and a third waits for the parent. */
    struct nst_scope *aside;
    int n = -1;
    ran = 0;
    CHECK(nst_scope_open(&aside, NULL) == 0);
    CHECK(nst_scope_open(&outer, NULL) == 0);
    CHECK(nst_scope_open(&inner, outer) == 0);
    for (int i = 0; i < 10; i++)
        CHECK(nst_spawn(inner, sleeper, &forever) == 0);
    CHECK(nst_spawn(aside, joins_outer, NULL) == 0);
    CHECK(nst_spawn(aside, closes_inner, &n) == 0);
    CHECK(nst_yield() == 0);
    CHECK(nst_scope_close(outer) >= 0);
    CHECK(nst_scope_join(aside, NST_NEVER) == 0);
    CHECK(ran == 11 && n == 10);
    CHECK(nst_scope_close(aside) == 0);
}
static void test_nested(void **state)
{
    run(nesting);
}

static void never_began(void)
{
    struct nst_scope *s;

    ran = cancelled = 0;
    CHECK(nst_scope_open(&s, NULL) == 0);
    CHECK(nst_spawn(s, sleeper, &forever) == 0);
    CHECK(nst_scope_close(s) == 1); /* it runs, so that what arg owns is cared for, but cannot wait */
    CHECK(ran == 1 && cancelled == 1);
}
static void test_never_began(void **state)
{
    run(never_began);
}

static struct nst_task *other;
static int answers[3];
static void takes_part(void *arg)
{
    other = nst_task_self();
    answers[0] = nst_sleep(NST_NEVER);
    answers[1] = nst_sleep(nst_now() + NST_MS(1));
    nst_task_clear_cancel(nst_task_self());
    answers[2] = nst_sleep(nst_now() + NST_MS(1));
}
static void one_activation(void)
{
    struct nst_scope *s;

    CHECK(nst_scope_open(&s, NULL) == 0);
    CHECK(nst_spawn(s, takes_part, NULL) == 0);
    CHECK(nst_yield() == 0);
    nst_task_cancel(other);
    nst_task_cancel(other);
    CHECK(nst_scope_join(s, NST_NEVER) == 0);
    CHECK(answers[0] == -ECANCELED && answers[1] == -ECANCELED && answers[2] == 0);
    CHECK(nst_scope_close(s) == 0);
}
static void test_activation(void **state)
{
    run(one_activation);
}

/* Stopping ends all, also what was suspended outside any scope. */
static void continues(struct nst_future *f, int rc)
{
    CHECK(nst_sleep(NST_NEVER) == -ECANCELED);
    ran++;
}
static void left_behind(void)
{
    static struct nst_future f;
    struct nst_scope *s;

    ran = cancelled = 0;
    nst_future_init(&f);
    nst_then(&f, continues, NULL, NST_NEVER);
    nst_fulfil(&f, 0);
    CHECK(nst_scope_open(&s, NULL) == 0);
    for (int i = 0; i < 100; i++)
        CHECK(nst_spawn(s, sleeper, &forever) == 0);
    CHECK(nst_yield() == 0);
}
static void test_stop(void **state)
{
    run(left_behind);
    assert_int_equal(ran, 101);
    assert_int_equal(cancelled, 100);
}

static void deep(void *arg)
{
    volatile char big[600 << 10];

    memset((void *)big, 1, sizeof big);
    CHECK(nst_sleep(nst_now() + NST_MS(1)) == -EDEADLK);
    CHECK(nst_yield() == -EDEADLK);
    nst_on_core_stack(count, NULL);
    *(int *)arg += big[1000];
}
static void core_stack(void)
{
    int n = 0;

    ran = 0;
    nst_on_core_stack(deep, &n);
    CHECK(nst_yield() == 0);
    nst_on_core_stack(deep, &n);
    CHECK(n == 2 && ran == 2);
}
static void test_core_stack(void **state)
{
    run(core_stack);
}

/* Out of stacks: waits are refused, operations that cannot be stopped are joined all the same. */
enum { STACKS = 4, CROWD = 300 };
static int refused, waited;
static struct nst_future unstoppable[CROWD];
static void tries(void *arg)
{
    struct nst_future *f = arg;
    int rc = nst_await(f, NST_NEVER);

    CHECK(f->state == NST_FUTURE_DONE);
    if (rc == -ENOMEM)
        refused++;
    else
        waited++;
}
static struct nst_timer late;
static void answer_all(struct nst_timer *t)
{
    for (int i = CROWD; i-- > 0;) {
        if (unstoppable[i].state == NST_FUTURE_OPEN)
            nst_fulfil(&unstoppable[i], 1);
    }
}
static void crowding(void)
{
    struct nst_scope *s;

    for (int round = 0; round < 2; round++) {
        refused = waited = 0;
        memset(unstoppable, 0, sizeof unstoppable);
        CHECK(nst_scope_open(&s, NULL) == 0);
        for (int i = 0; i < CROWD; i++) {
            unstoppable[i].stop = round == 0 ? stop_at_once : NULL;
            CHECK(nst_spawn(s, tries, &unstoppable[i]) == 0);
        }
        CHECK(nst_timer_arm(&late, nst_now() + NST_MS(10), answer_all) == 0);
        CHECK(nst_sleep(nst_now() + NST_MS(20)) == 0);
        /* Where even the reserve was used up, the rest began only after the answers had come. */
        for (int i = 0; i < CROWD; i++) {
            if (unstoppable[i].state == NST_FUTURE_OPEN)
                nst_fulfil(&unstoppable[i], 1);
        }
        CHECK(nst_scope_join(s, NST_NEVER) == 0);
        CHECK(refused > 0 && waited >= STACKS - 1 && refused + waited == CROWD);
        CHECK(nst_scope_close(s) == 0);
    }
}
static void test_no_stack(void **state)
{
    const struct nst_reactor_config config = { .cpu = -1, .stacks = STACKS };

    run_with(&config, crowding);
    assert_true(stats.no_stack > 0);
    assert_int_equal(stats.stacks_limit, STACKS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spawn),      cmocka_unit_test(test_nested), cmocka_unit_test(test_never_began),
        cmocka_unit_test(test_activation), cmocka_unit_test(test_stop),   cmocka_unit_test(test_core_stack),
        cmocka_unit_test(test_no_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
