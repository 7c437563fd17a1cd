/* SPDX-License-Identifier: Apache-2.0 */
/* Called tasks: functions that are expected to wait and run on stacks of their own, beside the loop's. */
#include "runtime/reactor_internal.h"
#include "runtime_harness.h"

enum { MANY = 500, STACKS = 12 };

static struct nst_future answer[MANY][2];
static int ended[MANY], results, sum;

struct room {
    int number;
};

static void on_end(struct nst_task *t, int rc)
{
    struct room *room = task_room(t, sizeof *room);

    ended[room->number]++;
    results++;
    sum += rc;
    task_put(nst_self, t);
}

/* Calls fn(room) and says whether it has returned. */
static bool call(int number, int (*fn)(void *room, const void *unused), int *rc)
{
    struct nst_reactor *r = nst_self;
    struct nst_task *t = task_take(r), *me = r->current;

    CHECK(t != NULL && t != me);
    struct room *room = task_room(t, sizeof *room);
    room->number = number;
    t->ended = on_end;
    bool returned = task_call(r, t, room, fn, room, NULL, rc);
    CHECK(r->current == me);
    if (returned)
        task_put(r, t);
    return returned;
}

static void reset(void)
{
    memset(answer, 0, sizeof answer);
    memset(ended, 0, sizeof ended);
    results = sum = 0;
}

static int at_once(void *arg, const void *unused)
{
    struct room *room = arg;
    return room->number + 1;
}

static void returning(void)
{
    uint64_t suspensions = nst_self->suspensions;
    int rc = 0;

    reset();
    for (int i = 0; i < MANY; i++) {
        CHECK(call(i, at_once, &rc));
        CHECK(rc == i + 1);
    }
    CHECK(results == 0 && nst_self->suspensions == suspensions);
}
static void test_return(void **state)
{
    run(returning);
    assert_true(stats.stacks_peak < 4);
}

static int twice(void *arg, const void *unused)
{
    int n = ((struct room *)arg)->number;
    int first = nst_await(&answer[n][0], NST_NEVER), second = nst_await(&answer[n][1], nst_now() + NST_SEC(10));

    CHECK(((struct room *)arg)->number == n);
    return first + second;
}

static void waiting(void)
{
    int rc = 0;

    reset();
    for (int i = 0; i < MANY; i++)
        CHECK(!call(i, twice, &rc));
    CHECK(!nst_moved()); /* the calls went on, this stack was never left */
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < MANY; i++)
            nst_fulfil(&answer[(i * 7) % MANY][k], k + 1);
        CHECK(results == 0); /* fulfilling runs nobody's code */
        CHECK(nst_sleep(nst_now() + NST_MS(1)) == 0);
    }
    CHECK(results == MANY && sum == 3 * MANY);
    for (int i = 0; i < MANY; i++)
        CHECK(ended[i] == 1);
}
static void test_wait(void **state)
{
    run(waiting);
    assert_true(stats.suspensions >= 2 * MANY);
}

/* The outer one ends while the inner one, which it has called, still waits. */
static int outer(void *arg, const void *unused)
{
    int rc = 0;

    CHECK(!call(1, twice, &rc));
    CHECK(call(2, at_once, &rc) && rc == 3);
    return 100;
}
static int outer_waits(void *arg, const void *unused)
{
    int rc = 0;

    CHECK(!call(1, twice, &rc));
    return nst_await(&answer[0][0], NST_NEVER);
}

static void nesting(void)
{
    int rc = 0;

    reset();
    CHECK(call(0, outer, &rc) && rc == 100);
    nst_fulfil(&answer[1][0], 1);
    nst_fulfil(&answer[1][1], 1);
    CHECK(nst_sleep(nst_now() + NST_MS(1)) == 0);
    CHECK(ended[1] == 1 && sum == 2);

    reset();
    CHECK(!call(0, outer_waits, &rc));
    nst_fulfil(&answer[0][0], 5);
    CHECK(nst_sleep(nst_now() + NST_MS(1)) == 0);
    CHECK(ended[0] == 1 && ended[1] == 0 && sum == 5);
    nst_fulfil(&answer[1][0], 1);
    nst_fulfil(&answer[1][1], 1);
    CHECK(nst_sleep(nst_now() + NST_MS(1)) == 0);
    CHECK(ended[1] == 1 && sum == 7);
}
static void test_nested(void **state)
{
    run(nesting);
}

static int late(void *arg, const void *unused)
{
    int n = ((struct room *)arg)->number;

    answer[n][0].stop = stop_at_once;
    return nst_await(&answer[n][0], n % 2 == 0 ? nst_now() + NST_MS(1) : NST_NEVER);
}

static void ending_early(void)
{
    struct nst_task *odd = NULL;
    int rc = 0;

    reset();
    CHECK(!call(0, late, &rc));
    CHECK(nst_sleep(nst_now() + NST_MS(3)) == 0);
    CHECK(ended[0] == 1 && sum == -ETIMEDOUT);
    CHECK(!call(1, late, &rc));
    odd = answer[1][0].arg;
    nst_task_cancel(odd);
    CHECK(nst_sleep(nst_now() + NST_MS(1)) == 0);
    CHECK(ended[1] == 1 && sum == -ETIMEDOUT - ECANCELED);
    CHECK(!call(3, late, &rc)); /* the reactor stops, which ends that wait */
}
static void test_ends_early(void **state)
{
    run(ending_early);
    assert_int_equal(ended[3], 1);
}

/* No stack is left: tasks that must wait do so on the stack that they hold, and called ones run meanwhile. */
static struct nst_timer timer;

static void answer_called(struct nst_timer *t)
{
    for (int i = 0; i < 4; i++) {
        nst_fulfil(&answer[i][0], 1);
        nst_fulfil(&answer[i][1], 1);
    }
}

static void stubborn(void *arg)
{
    int rc = nst_await(arg, NST_NEVER); /* which cannot be stopped */

    CHECK(rc == -ENOMEM || rc == 9);
}

static void answer_stubborn(struct nst_timer *t)
{
    for (int i = 100; i < 200; i++)
        nst_fulfil(&answer[i][0], 9);
}

static void crowding(void)
{
    struct nst_timer later = { 0 };
    struct nst_scope *s;
    int rc = 0;

    reset();
    CHECK(nst_scope_open(&s, NULL) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(!call(i, twice, &rc));
    for (int i = 100; i < 200; i++)
        CHECK(nst_spawn(s, stubborn, &answer[i][0]) == 0);
    CHECK(nst_timer_arm(&timer, nst_now() + NST_MS(2), answer_called) == 0);
    CHECK(nst_timer_arm(&later, nst_now() + NST_MS(6), answer_stubborn) == 0);
    CHECK(nst_scope_join(s, NST_NEVER) == 0);
    CHECK(results == 4 && sum == 8);
    CHECK(nst_scope_close(s) == 0);
}
static void test_no_stack(void **state)
{
    const struct nst_reactor_config config = { .cpu = -1, .stacks = STACKS };

    run_with(&config, crowding);
    assert_true(stats.no_stack > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_return),     cmocka_unit_test(test_wait),     cmocka_unit_test(test_nested),
        cmocka_unit_test(test_ends_early), cmocka_unit_test(test_no_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
