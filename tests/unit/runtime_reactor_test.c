/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime_harness.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* ---- a poller whose items wait at random: each is seen exactly once, in order of its beginning ---- */

enum { BURST = 32, BURSTS = 300 };
struct source {
    struct nst_poller p;
    int burst[BURST], at, n, next;
};
static unsigned char seen[BURST * BURSTS];
static int begun, ended, waits;

static void item(int number)
{
    CHECK(number == begun);
    begun++;
    for (int k = rand() % 4; k > 1; k--) {
        waits++;
        CHECK((rand() % 2 ? nst_yield() : nst_sleep(nst_now() + NST_US(1 + rand() % 300))) == 0);
        CHECK(nst_moved());
    }
    seen[number]++;
    ended++;
}
static int poll_source(struct nst_poller *p)
{
    struct source *s = (struct source *)p;

    if (s->at == s->n) {
        if (nst_poll_again())
            return 0;
        for (s->at = s->n = 0; s->n < BURST && s->next < BURST * BURSTS; s->n++)
            s->burst[s->n] = s->next++;
    }
    int did = s->n - s->at;
    while (s->at < s->n) {
        item(s->burst[s->at++]);
        if (nst_moved())
            return 1;
    }
    return did;
}
static void polling(void)
{
    static struct source s = { .p.poll = poll_source };

    srand(3);
    nst_poller_add(reactor, &s.p);
    while (ended < BURST * BURSTS)
        CHECK(nst_sleep(nst_now() + NST_MS(1)) == 0);
    nst_poller_remove(reactor, &s.p);
}
static void test_poller(void **state)
{
    run(polling);
    assert_true(waits > 1000);
    for (int i = 0; i < BURST * BURSTS; i++)
        assert_int_equal(seen[i], 1);
}

/* A poller that always finds work and always waits starves nobody. */
static unsigned greedy_calls;
static int greedy(struct nst_poller *p)
{
    greedy_calls++;
    CHECK(nst_yield() == 0 || nst_cancelled());
    return 1;
}
static int polled;
static int removes_itself(struct nst_poller *p)
{
    polled++;
    nst_poller_remove(reactor, p);
    CHECK(nst_yield() == 0);
    return 1;
}
static void fairness(void)
{
    static struct nst_poller g = { .poll = greedy }, once = { .poll = removes_itself },
                             last = { .poll = removes_itself };

    nst_poller_add(reactor, &once);
    nst_poller_add(reactor, &g);
    nst_poller_add(reactor, &last);
    CHECK(nst_sleep(nst_now() + NST_MS(5)) == 0);
    pass_turns(10);
    CHECK(polled == 2 && greedy_calls > 100);
    nst_poller_remove(reactor, &g);
    nst_poller_remove(reactor, &g);
}
static void test_fair(void **state)
{
    run(fairness);
}

/* ---- watches and flushers ---- */

static int pipes[2][2], got;
static struct nst_watch watches[2];
static void on_readable(struct nst_watch *w, uint32_t events)
{
    char c;

    CHECK(events & EPOLLIN);
    CHECK(read(w->fd, &c, 1) == 1);
    got++;
    /* The other's event of the same look must not be handed out any more. */
    nst_watch_remove(reactor, w == &watches[0] ? &watches[1] : &watches[0]);
}
static int flushed, order[4];
static void on_flush(struct nst_flusher *f);
static struct nst_flusher flushers[3] = { { .flush = on_flush }, { .flush = on_flush }, { .flush = on_flush } };
static void on_flush(struct nst_flusher *f)
{
    order[flushed++ % 4] = (int)(f - flushers);
    if (f == &flushers[0] && flushed < 3)
        nst_flusher_mark(f); /* again, in the next turn */
}
static void on_early(struct nst_flusher *f)
{
    order[flushed++ % 4] = 3;
    nst_flusher_mark(&flushers[2]);
}
static struct nst_flusher early = { .flush = on_early, .early = true };
static void watching(void)
{
    for (int i = 0; i < 2; i++) {
        CHECK(pipe(pipes[i]) == 0);
        watches[i] = (struct nst_watch){ .fd = pipes[i][0], .events = EPOLLIN, .ready = on_readable };
        CHECK(nst_watch_add(reactor, &watches[i]) == 0);
    }
    CHECK(nst_watch_add(reactor, &watches[0]) == -EEXIST);
    CHECK(write(pipes[0][1], "x", 1) == 1);
    CHECK(write(pipes[1][1], "x", 1) == 1);
    CHECK(nst_sleep(nst_now() + NST_MS(20)) == 0);
    CHECK(got == 1);
    for (int i = 0; i < 2; i++) {
        nst_watch_remove(reactor, &watches[i]);
        close(pipes[i][0]);
        close(pipes[i][1]);
    }
    struct nst_watch bad = { .fd = pipes[0][0], .events = EPOLLIN };
    CHECK(nst_watch_add(reactor, &bad) == -EBADF);

    for (int i = 0; i < 3; i++) {
        nst_flusher_mark(&flushers[i]);
        nst_flusher_mark(&flushers[i]);
    }
    nst_flusher_unmark(&flushers[1]);
    nst_flusher_unmark(&flushers[1]);
    CHECK(flushed == 0);
    pass_turns(3);
    CHECK(flushed == 3 && order[0] == 0 && order[1] == 2 && order[2] == 0);

    /* An early one comes before those that were marked before it, and what it marks is flushed in the same turn. */
    nst_flusher_mark(&flushers[1]);
    nst_flusher_mark(&early);
    pass_turns(1);
    CHECK(flushed == 6 && order[3] == 3 && order[0] == 1 && order[1] == 2);
    nst_flusher_mark(&early);
    nst_flusher_unmark(&early);
    pass_turns(1);
    CHECK(flushed == 6);
}
static void test_watch(void **state)
{
    run(watching);
}

/* ---- idle: a bound on the CPU time, not on any duration ---- */

static void idle_body(void)
{
    CHECK(nst_sleep(nst_now() + NST_MS(400)) == 0);
}
static void test_idle(void **state)
{
    struct rusage a, b;
    nst_time wall = nst_clock();

    getrusage(RUSAGE_THREAD, &a);
    run(idle_body);
    getrusage(RUSAGE_THREAD, &b);
    wall = nst_clock() - wall;
    nst_time cpu = NST_SEC(b.ru_utime.tv_sec + b.ru_stime.tv_sec - a.ru_utime.tv_sec - a.ru_stime.tv_sec) +
                   NST_US(b.ru_utime.tv_usec + b.ru_stime.tv_usec - a.ru_utime.tv_usec - a.ru_stime.tv_usec);
    assert_true(cpu < wall / 2);
    assert_true(stats.sleeps > 0);
}

static void napping(void)
{
    struct nst_reactor_stats s;

    nst_reactor_nap(reactor, NST_MS(1));
    CHECK(nst_sleep(nst_now() + NST_MS(100)) == 0);
    nst_reactor_stats(reactor, &s);
    CHECK(s.sleeps >= 3);
}
static void test_nap(void **state)
{
    run(napping);
}

/* ---- the clock of a replay ---- */

static int fired;
static nst_time fired_at;
static void note(struct nst_timer *t)
{
    fired++;
    fired_at = nst_now();
}
static void replaying(void)
{
    static struct nst_timer t;
    struct nst_future f = { .stop = stop_at_once };

    nst_clock_set(reactor, NST_SEC(50));
    CHECK(nst_now() == NST_SEC(50));
    pass_turns(300);
    CHECK(nst_now() == NST_SEC(50)); /* it stands */
    CHECK(nst_timer_arm(&t, NST_SEC(60), note) == 0);
    nst_clock_set(reactor, NST_SEC(59));
    pass_turns(3);
    CHECK(fired == 0);
    nst_clock_set(reactor, NST_SEC(61));
    pass_turns(3);
    CHECK(fired == 1 && fired_at == NST_SEC(61));

    /* It jumps from timer to timer when nothing else is to be done. */
    nst_clock_idle(reactor, true);
    CHECK(nst_timer_arm(&t, NST_SEC(1000), note) == 0);
    CHECK(nst_sleep(NST_SEC(500)) == 0);
    CHECK(nst_now() == NST_SEC(500) && fired == 1);
    CHECK(nst_sleep(NST_SEC(2000)) == 0);
    CHECK(nst_now() == NST_SEC(2000) && fired == 2 && fired_at == NST_SEC(1000));
    nst_clock_idle(reactor, false);

    /* With an answer outstanding it runs with the wall, so that the deadline passes; it jumps nowhere. */
    nst_time wall = nst_clock();
    nst_clock_idle(reactor, true);
    nst_outside(1);
    CHECK(nst_await(&f, nst_now() + NST_MS(20)) == -ETIMEDOUT);
    nst_outside(-1);
    CHECK(nst_clock() - wall >= NST_MS(19));
    CHECK(nst_now() >= NST_SEC(2000) + NST_MS(20) && nst_now() < NST_SEC(2100));
    /* The next time set is exact, even when that is back. */
    nst_clock_set(reactor, NST_SEC(2000) + 5);
    pass_turns(3);
    CHECK(nst_now() == NST_SEC(2000) + 5);
}
static void test_replay(void **state)
{
    run(replaying);
}

/* ---- what goes wrong ---- */

/* Neither inlined nor turned into a loop. */
static int __attribute__((noinline)) dive(volatile char *up, int depth)
{
    volatile char frame[1024];

    frame[0] = up != NULL ? up[0] : 1;
    return depth == 0 ? 0 : dive(frame, depth - 1) + frame[0];
}
static void overflow(void)
{
    CHECK(nst_yield() == 0);
    exit(dive(NULL, 1 << 20) == 0);
}
static void test_overflow(void **state)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        struct rlimit no_core = { 0, 0 };
        setrlimit(RLIMIT_CORE, &no_core);
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 2);
        struct nst_reactor_config config = { .cpu = -1, .stall_after = NST_NEVER };
        run_with(&config, overflow);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    /* Sanitizers report the fault and exit by themselves. */
    assert_true((WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) ||
                (WIFEXITED(status) && WEXITSTATUS(status) > 1) || (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT));
}

static char told[8192];
static void keep(void *arg, enum nst_log_level level, const char *text)
{
    strncat(told, text, sizeof told - strlen(told) - 2);
    strcat(told, "\n");
}
static void hog(void)
{
    struct nst_reactor_stats before, s;
    nst_time enough = nst_clock() + NST_SEC(30);

    nst_running("the hog");
    CHECK(nst_sleep(nst_now() + NST_MS(2)) == 0); /* the name comes back with the task */
    nst_reactor_stats(reactor, &before);
    do
        nst_reactor_stats(reactor, &s);
    while (s.stalls == before.stalls && nst_clock() < enough);
    usleep(200000); /* while the trace is taken */
}
static void test_stall(void **state)
{
    const struct nst_reactor_config config = { .name = "core seven", .cpu = -1, .stall_after = NST_MS(20) };

    nst_log_to(keep, NULL);
    run_with(&config, hog);
    nst_log_to(NULL, NULL);
    assert_true(stats.stalls >= 1);
    assert_non_null(strstr(told, "stall: core seven: the hog has held the core for "));
    assert_non_null(strstr(told, "runtime_reactor_test")); /* the backtrace */
}

static void nested_run(void)
{
    CHECK(nst_reactor_run(reactor, NULL, NULL) == -EBUSY);
    CHECK(nst_reactor_self() == reactor);
}
static void test_limits(void **state)
{
    struct nst_reactor_config config = { .cpu = 100000 };
    struct nst_reactor *r;

    assert_int_equal(nst_reactor_open(&r, &config), -EINVAL);
    config = (struct nst_reactor_config){ .cpu = -1, .stack_size = 100 };
    assert_int_equal(nst_reactor_open(&r, &config), -EINVAL);
    nst_reactor_close(NULL);
    assert_null(nst_reactor_self());
    run(nested_run);
    assert_null(nst_reactor_self());
    assert_string_not_equal(stats.guard, "");

    /* Stopped before it ran; run twice. */
    assert_int_equal(nst_reactor_open(&r, NULL), 0);
    nst_reactor_stop(r);
    assert_int_equal(nst_reactor_run(r, NULL, NULL), 0);
    nst_reactor_stop(r);
    assert_int_equal(nst_reactor_run(r, NULL, NULL), 0);
    nst_reactor_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_poller),   cmocka_unit_test(test_fair),  cmocka_unit_test(test_watch),
        cmocka_unit_test(test_idle),     cmocka_unit_test(test_nap),   cmocka_unit_test(test_replay),
        cmocka_unit_test(test_overflow), cmocka_unit_test(test_stall), cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
