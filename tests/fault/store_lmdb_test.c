/* SPDX-License-Identifier: Apache-2.0 */
/* The store in a file: what it promises, several users at once, several processes, and what is there after a process was
 * killed at any point. */
#include "store_contract.h"
#include "store_lab.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64], url[96];
static struct nst_store *store;

static struct nst_store *open_url(const char *u, const struct nst_store_config *config)
{
    struct nst_store *s;
    const char *why = NULL;

    if (nst_store_open(&s, u, config, &why) != 0)
        fail_msg("%s: %s", u, why);
    return s;
}

static void contract_body(void)
{
    struct nst_store *other;
    char val[8];

    store = open_url(url, NULL);
    store_contract(store, false);
    other = open_url(url, NULL); /* the same file */
    assert_int_equal(nst_put(store, text("a"), text("v"), 0, patience()), 0);
    assert_int_equal(nst_get(other, text("a"), val, sizeof val, NULL, patience()), 1);
    assert_int_equal(nst_put(other, text("a"), text("two"), 0, patience()), 0);
    assert_int_equal(nst_get(store, text("a"), val, sizeof val, NULL, patience()), 3);
    nst_store_close(store);
    store_contract(other, false);
    nst_store_close(other);
    /* closed and opened at once; with and without something on its way */
    for (int i = 0; i < 20; i++) {
        struct nst_future f;
        store = open_url(url, NULL);
        nst_put_start(store, text("b"), text("v"), 0, &f);
        if (i % 2 == 0)
            assert_int_equal(nst_await(&f, patience()), 0);
        nst_store_close(store);
        if (i % 2 != 0)
            assert_int_equal(nst_await(&f, patience()), -ECANCELED);
    }
    store = open_url(url, NULL);
    assert_int_equal(nst_get(store, text("a"), val, sizeof val, NULL, patience()), 3);
    nst_store_close(store);
}

static void bounds_body(void)
{
    static struct nst_future f[9];
    struct nst_store_config config = { .in_flight = 8 };
    static char big[NST_VALUE_MAX], back[NST_VALUE_MAX];
    struct nst_slice value = { big, sizeof big };
    char key[NST_KEY_MAX];
    uint64_t token;
    const char *why = NULL;

    store = open_url(url, &config);
    for (int i = 0; i < 9; i++)
        nst_put_start(store, text("k"), text("v"), 0, &f[i]);
    assert_int_equal(f[8].rc, -EBUSY);
    for (int i = 0; i < 4; i++)
        assert_int_equal(nst_cancel(&f[i]), -ECANCELED);
    for (int i = 4; i < 8; i++)
        assert_int_equal(nst_await(&f[i], patience()), 0);
    memset(key, 0, sizeof key);
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)(i * 7 + i / 251);
    assert_int_equal(nst_put(store, (struct nst_slice){ key, sizeof key }, value, 0, patience()), 0);
    assert_int_equal(nst_own(store, (struct nst_slice){ key, sizeof key }, back, sizeof back, &token, 0, patience()),
                     sizeof back);
    assert_memory_equal(big, back, sizeof big);
    assert_int_equal(nst_put(store, text(""), text(""), 0, patience()), 0);
    assert_int_equal(nst_get(store, text(""), back, 1, NULL, patience()), 0);
    nst_store_close(store);
    assert_int_equal(nst_store_open(&store, "lmdb:/nowhere/at/all", NULL, &why), -ENOENT);
    assert_non_null(strstr(why, "\"/nowhere/at/all\" cannot be opened"));
}

/* A file that is full: that request fails, those beside it do not, and room that is made is of use. */
static void full_body(void)
{
    static char big[NST_VALUE_MAX];
    char small[128], key[16];
    struct nst_future f;
    int n = 0, rc = 0;

    snprintf(small, sizeof small, "lmdb:%s/small?gib=1", dir);
    store = open_url(small, NULL);
    for (; rc == 0 && n < 40000; n++) {
        snprintf(key, sizeof key, "k%d", n);
        static struct nst_future many[64];
        static struct nst_future *all[64];
        for (int i = 0; i < 64; i++) {
            snprintf(key, sizeof key, "k%d.%d", n, i);
            nst_put_start(store, text(key), (struct nst_slice){ big, sizeof big }, 0, &many[i]);
            all[i] = &many[i];
        }
        rc = nst_await_all(all, 64, patience());
    }
    assert_int_equal(rc, -ENOSPC);
    nst_get_start(store, text("k0.0"), big, sizeof big, NULL, &f);
    assert_int_equal(nst_await(&f, patience()), sizeof big);
    for (int i = 0; i < 64; i++) {
        snprintf(key, sizeof key, "k0.%d", i);
        assert_int_equal(nst_delete(store, text(key), patience()), 0);
    }
    assert_int_equal(nst_put(store, text("more"), (struct nst_slice){ big, 60000 }, 0, patience()), 0);
    nst_store_close(store);
}

/* ---- several processes ---- */

enum { PROCESSES = 3, ROUNDS = 200 };

static void child_body(void)
{
    store = open_url(url, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t version = 0, sum = 0;
        int rc;
        do {
            rc = nst_get(store, text("sum"), &sum, sizeof sum, &version, patience());
            if (rc == -ENOENT)
                version = sum = 0;
            sum++;
            rc = nst_cas(store, text("sum"), (struct nst_slice){ &sum, sizeof sum }, version, 0, patience());
        } while (rc == -ESTALE);
        if (rc != 0 || nst_incr(store, text("count"), 1, NULL, 0, patience()) != 0)
            _exit(3);
    }
    nst_store_close(store);
}

static void sum_body(void)
{
    uint64_t sum = 0;
    int64_t n = 0;

    store = open_url(url, NULL);
    assert_int_equal(nst_get(store, text("sum"), &sum, sizeof sum, NULL, patience()), 8);
    assert_int_equal(sum, PROCESSES * ROUNDS);
    assert_int_equal(nst_incr(store, text("count"), 0, &n, 0, patience()), 0);
    assert_int_equal(n, PROCESSES * ROUNDS);
    nst_store_close(store);
}

static void processes(void **state)
{
    pid_t pid[PROCESSES];

    for (int i = 0; i < PROCESSES; i++) {
        pid[i] = fork();
        if (pid[i] == 0) {
            lab_run(child_body);
            _exit(0);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
        assert_int_equal(status, 0);
    }
    lab_run(sum_body);
}

/* ---- killed at any point: what was acknowledged is there, and nothing that nobody asked for ---- */

enum { KILLS = 100, WORKERS = 8, POOL = 40 };

/* Survives the killed process: what each worker began, and what was acknowledged. */
static struct ledger {
    struct pair {
        uint64_t begun, done;
    } put[WORKERS], count[WORKERS], swap[WORKERS], owned[WORKERS];
    struct held {
        uint64_t ticket;
        bool mine, unsure; /* acknowledged and not given back; the end of it is not known */
    } held[POOL];
    uint64_t token[WORKERS];
    uint64_t acknowledged;
    volatile bool working;
    char wrong[256];
} * ledger;

#define CHECK(cond)                                                                        \
    do {                                                                                   \
        if (!(cond)) {                                                                     \
            snprintf(ledger->wrong, sizeof ledger->wrong, "line %d: %s", __LINE__, #cond); \
            _exit(4);                                                                      \
        }                                                                                  \
    } while (0)

static const char *name(char kind, long w)
{
    static char names[4][16];
    static unsigned next;
    char *n = names[next++ % 4];

    snprintf(n, sizeof names[0], "kill:%c%ld", kind, w);
    return n;
}

static uint64_t stored(const char *key)
{
    uint64_t n = 0;
    int rc = nst_get(store, text(key), &n, sizeof n, NULL, patience());

    CHECK(rc == 8 || rc == -ENOENT);
    return n;
}

static void within(struct pair *p, uint64_t n)
{
    CHECK(n >= p->done && n <= p->begun);
    p->begun = p->done = n; /* known again */
}

static void verify_worker(void *arg)
{
    long w = (long)arg;
    uint64_t token, n = 0;
    int64_t count;
    int rc;

    within(&ledger->put[w], stored(name('p', w)));
    within(&ledger->swap[w], stored(name('s', w)));
    CHECK(nst_incr(store, text(name('c', w)), 0, &count, 0, patience()) == 0);
    within(&ledger->count[w], (uint64_t)count);
    rc = nst_own(store, text(name('o', w)), &n, sizeof n, &token, 0, patience());
    CHECK(rc == 8 || rc == -ENOENT);
    within(&ledger->owned[w], n);
    CHECK(token > ledger->token[w]);
    /* who owned it before may not write any more */
    if (ledger->token[w] != 0)
        CHECK(nst_put_owned(store, text(name('o', w)), text("late"), ledger->token[w], 0, patience()) == -ESTALE);
    ledger->token[w] = token;
    for (long i = w; i < POOL; i += WORKERS) {
        struct held *h = &ledger->held[i];
        struct nst_lease lease = { .ticket = h->ticket, .value = (uint32_t)i };
        if (h->mine && !h->unsure)
            CHECK(nst_pool_keep(store, text("kill:pool"), lease, NST_SEC(1000), patience()) == 0);
    }
}

static void all_workers(void (*fn)(void *))
{
    struct nst_scope *scope;

    CHECK(nst_scope_open(&scope, NULL) == 0);
    for (long w = 0; w < WORKERS; w++)
        CHECK(nst_spawn(scope, fn, (void *)w) == 0);
    CHECK(nst_scope_join(scope, NST_NEVER) == 0);
    CHECK(nst_scope_close(scope) == 0);
}

static void work(void *arg)
{
    long w = (long)arg;
    unsigned seed = (unsigned)getpid() * 31 + (unsigned)w;

    for (;;) {
        uint64_t n, old;
        struct nst_lease lease;
        int rc = 0;
        switch (rand_r(&seed) % 5) {
        case 0:
            n = ++ledger->put[w].begun;
            rc = nst_put(store, text(name('p', w)), (struct nst_slice){ &n, 8 }, 0, NST_NEVER);
            if (rc == 0)
                ledger->put[w].done = n;
            break;
        case 1:
            n = ++ledger->count[w].begun;
            rc = nst_incr(store, text(name('c', w)), 1, NULL, 0, NST_NEVER);
            if (rc == 0)
                ledger->count[w].done = n;
            break;
        case 2:
            old = ledger->swap[w].begun;
            n = ++ledger->swap[w].begun;
            rc = old == 0 ? nst_put_new(store, text(name('s', w)), (struct nst_slice){ &n, 8 }, 0, NST_NEVER)
                          : nst_cas_bytes(store, text(name('s', w)), (struct nst_slice){ &old, 8 },
                                          (struct nst_slice){ &n, 8 }, 0, NST_NEVER);
            if (rc == 0)
                ledger->swap[w].done = n;
            break;
        case 3:
            n = ++ledger->owned[w].begun;
            rc = nst_put_owned(store, text(name('o', w)), (struct nst_slice){ &n, 8 }, ledger->token[w], 0, NST_NEVER);
            if (rc == 0)
                ledger->owned[w].done = n;
            break;
        case 4:
            rc = nst_pool_take(store, text("kill:pool"), POOL, NST_SEC(1000), &lease, NST_NEVER);
            if (rc == 0) {
                struct held *h = &ledger->held[lease.value];
                CHECK(!h->mine || h->unsure); /* given twice */
                *h = (struct held){ .ticket = lease.ticket, .mine = true };
            } else if (rc == -ENOENT) {
                /* give one back */
                for (int i = 0; i < POOL; i++) {
                    struct held *h = &ledger->held[(i + w * 5) % POOL];
                    if (!h->mine || h->unsure)
                        continue;
                    lease = (struct nst_lease){ .ticket = h->ticket, .value = (uint32_t)(h - ledger->held) };
                    h->unsure = true;
                    rc = nst_pool_give(store, text("kill:pool"), lease, NST_NEVER);
                    if (rc == 0 && h->ticket == lease.ticket)
                        h->mine = h->unsure = false;
                    break;
                }
                if (rc == -ENOENT) /* those of the dead, whose answers never came, are lost until their leases end */
                    rc = 0;
            }
            break;
        }
        if (rc == -ECANCELED)
            return;
        CHECK(rc == 0);
        ledger->acknowledged++;
        if (nst_yield() < 0)
            return;
    }
}

static void killed_child(void)
{
    store = open_url(url, NULL);
    all_workers(verify_worker);
    ledger->working = true;
    all_workers(work);
}

static void last_child(void)
{
    store = open_url(url, NULL);
    all_workers(verify_worker);
    nst_store_close(store);
}

static void killed(void **state)
{
    unsigned seed = (unsigned)getpid();

    ledger = mmap(NULL, sizeof *ledger, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(ledger != MAP_FAILED);
    for (int i = 0; i <= KILLS; i++) {
        int status;
        pid_t pid, ended = 0;
        ledger->working = false;
        pid = fork();
        if (pid == 0) {
            lab_run(i < KILLS ? killed_child : last_child);
            _exit(0);
        }
        if (i < KILLS) {
            /* mostly while it works; now and then while it looks or opens */
            while (i % 5 != 0 && !ledger->working && (ended = waitpid(pid, &status, WNOHANG)) == 0)
                usleep(500);
            usleep((unsigned)rand_r(&seed) % 30000);
            kill(pid, ended == 0 ? SIGKILL : 0);
        }
        if (ended == 0)
            assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
            fail_msg("after %d kills: %s", i, ledger->wrong);
        assert_int_equal(status, i < KILLS ? SIGKILL : 0);
    }
    print_message("%llu requests were acknowledged between %d kills\n", (unsigned long long)ledger->acknowledged,
                  KILLS);
    assert_true(ledger->acknowledged > KILLS);
    munmap(ledger, sizeof *ledger);
}

#define ON_REACTOR(n)           \
    static void n(void **state) \
    {                           \
        lab_run(n##_body);      \
    }
ON_REACTOR(contract)
ON_REACTOR(bounds)
ON_REACTOR(full)

static void sink(void *arg, enum nst_log_level level, const char *line)
{
}

static int start(void **state)
{
    nst_log_to(sink, NULL);
    strcpy(dir, "/tmp/netstar-test.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(url, sizeof url, "lmdb:%s/state", dir);
    return 0;
}

static int finish(void **state)
{
    static const char *const names[] = { "state", "state-lock", "small", "small-lock" };

    for (size_t i = 0; i < 4; i++) {
        char path[96];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
    return 0;
}

int main(void)
{
    /* first, while there is no thread that a fork would lose */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes), cmocka_unit_test(killed), cmocka_unit_test(contract),
        cmocka_unit_test(bounds),    cmocka_unit_test(full),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
