/* SPDX-License-Identifier: Apache-2.0 */
/* The store in memory against a model, under a clock that the test sets. */
#include <netstar/reactor.h>
#include <netstar/store.h>
#include <netstar/task.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct nst_reactor *reactor;
static struct nst_store *store;

/* Runs fn as a task of a reactor whose clock stands at 1 s. */
static void (*body)(void);
static void run_body(void *arg)
{
    nst_clock_set(reactor, NST_SEC(1));
    body();
    nst_reactor_stop(reactor);
}

static void on_reactor(void (*fn)(void))
{
    body = fn;
    assert_int_equal(nst_reactor_open(&reactor, NULL), 0);
    assert_int_equal(nst_reactor_run(reactor, run_body, NULL), 0);
    nst_reactor_close(reactor);
}

static void open_store(size_t memory)
{
    struct nst_store_config config = { .memory = memory };

    assert_int_equal(nst_store_open(&store, "mem:", &config, NULL), 0);
}

static struct nst_slice text(const char *s)
{
    return (struct nst_slice){ s, strlen(s) };
}

static int get_text(const char *key, char *val, size_t cap, uint64_t *version)
{
    memset(val, 0, cap);
    return nst_get(store, text(key), val, cap, version, NST_NEVER);
}

static void basics_body(void)
{
    char val[16];
    uint64_t v1 = 0, v2 = 0, v3 = 0;
    int64_t n = 0;

    open_store(0);
    assert_int_equal(get_text("k", val, sizeof val, &v1), -ENOENT);
    assert_int_equal(nst_put(store, text("k"), text("one"), 0, NST_NEVER), 0);
    assert_int_equal(get_text("k", val, sizeof val, &v1), 3);
    assert_string_equal(val, "one");
    assert_int_not_equal(v1, 0);

    /* nothing is copied when it does not fit; an exact fit does */
    memset(val, 'x', sizeof val);
    assert_int_equal(nst_get(store, text("k"), val, 2, NULL, NST_NEVER), -EMSGSIZE);
    assert_int_equal(val[0], 'x');
    assert_int_equal(nst_get(store, text("k"), val, 3, NULL, NST_NEVER), 3);

    /* the version changes with every write */
    assert_int_equal(nst_put(store, text("k"), text("one"), 0, NST_NEVER), 0);
    assert_int_equal(get_text("k", val, sizeof val, &v2), 3);
    assert_int_not_equal(v1, v2);
    assert_int_equal(nst_cas(store, text("k"), text("two"), v1, 0, NST_NEVER), -ESTALE);
    assert_int_equal(nst_cas(store, text("k"), text("two"), 0, 0, NST_NEVER), -ESTALE);
    assert_int_equal(nst_cas(store, text("k"), text("two"), v2, 0, NST_NEVER), 0);
    assert_int_equal(get_text("k", val, sizeof val, &v3), 3);
    assert_string_equal(val, "two");
    assert_int_not_equal(v2, v3);
    assert_int_equal(nst_delete(store, text("k"), NST_NEVER), 0);
    assert_int_equal(nst_delete(store, text("k"), NST_NEVER), -ENOENT);
    assert_int_equal(nst_cas(store, text("k"), text("new"), v3, 0, NST_NEVER), -ESTALE);
    assert_int_equal(nst_cas(store, text("k"), text("new"), 0, 0, NST_NEVER), 0);

    /* values and counters do not mix */
    assert_int_equal(nst_incr(store, text("k"), 1, &n, 0, NST_NEVER), -EINVAL);
    assert_int_equal(nst_incr(store, text("n"), 5, &n, 0, NST_NEVER), 0);
    assert_int_equal(n, 5);
    assert_int_equal(nst_incr(store, text("n"), -7, &n, 0, NST_NEVER), 0);
    assert_int_equal(n, -2);
    assert_int_equal(get_text("n", val, sizeof val, NULL), -EIO);
    assert_int_equal(nst_cas(store, text("n"), text("x"), 5, 0, NST_NEVER), -ESTALE);
    assert_int_equal(nst_incr(store, text("n"), INT64_MIN, &n, 0, NST_NEVER), -EIO);
    assert_int_equal(nst_incr(store, text("n"), INT64_MAX, &n, 0, NST_NEVER), 0);
    assert_int_equal(n, INT64_MAX - 2);

    assert_int_equal(nst_store_ping(store, NST_NEVER), 0);
    nst_store_close(store);
}

static void sizes_body(void)
{
    char *big = malloc(NST_VALUE_MAX + 1), *back = malloc(NST_VALUE_MAX), key[NST_KEY_MAX + 1];
    int64_t n;

    open_store(0);
    memset(big, 'v', NST_VALUE_MAX + 1);
    memset(key, 0, sizeof key);
    struct nst_slice longest = { key, NST_KEY_MAX }, too_long = { key, NST_KEY_MAX + 1 }, empty = { NULL, 0 };
    assert_int_equal(nst_put(store, longest, (struct nst_slice){ big, NST_VALUE_MAX }, 0, NST_NEVER), 0);
    assert_int_equal(nst_get(store, longest, back, NST_VALUE_MAX, NULL, NST_NEVER), NST_VALUE_MAX);
    assert_memory_equal(big, back, NST_VALUE_MAX);
    assert_int_equal(nst_put(store, longest, (struct nst_slice){ big, NST_VALUE_MAX + 1 }, 0, NST_NEVER), -EMSGSIZE);
    assert_int_equal(nst_put(store, too_long, empty, 0, NST_NEVER), -EMSGSIZE);
    assert_int_equal(nst_cas(store, too_long, empty, 0, 0, NST_NEVER), -EMSGSIZE);
    assert_int_equal(nst_get(store, too_long, back, 10, NULL, NST_NEVER), -EMSGSIZE);
    assert_int_equal(nst_incr(store, too_long, 1, &n, 0, NST_NEVER), -EMSGSIZE);
    assert_int_equal(nst_delete(store, too_long, NST_NEVER), -EMSGSIZE);
    /* an empty value and an empty key are as good as others */
    assert_int_equal(nst_put(store, empty, empty, 0, NST_NEVER), 0);
    assert_int_equal(nst_get(store, empty, NULL, 0, NULL, NST_NEVER), 0);
    /* keys that differ in length only are different */
    assert_int_equal(nst_get(store, (struct nst_slice){ key, NST_KEY_MAX - 1 }, back, 10, NULL, NST_NEVER), -ENOENT);
    nst_store_close(store);
    free(big);
    free(back);
}

static void ttl_body(void)
{
    char val[8];
    int64_t n;

    open_store(0);
    assert_int_equal(nst_put(store, text("k"), text("v"), NST_MS(100), NST_NEVER), 0);
    assert_int_equal(nst_incr(store, text("n"), 1, &n, NST_MS(100), NST_NEVER), 0);
    assert_int_equal(nst_incr(store, text("n"), 1, &n, 0, NST_NEVER), 0);
    nst_clock_set(reactor, NST_SEC(1) + NST_MS(99));
    assert_int_equal(get_text("k", val, sizeof val, NULL), 1);
    assert_int_equal(nst_incr(store, text("n"), 1, &n, 0, NST_NEVER), 0);
    assert_int_equal(n, 3);
    nst_clock_set(reactor, NST_SEC(1) + NST_MS(101));
    assert_int_equal(get_text("k", val, sizeof val, NULL), -ENOENT);
    assert_int_equal(nst_delete(store, text("k"), NST_NEVER), -ENOENT);
    assert_int_equal(nst_incr(store, text("n"), 1, &n, NST_MS(10), NST_NEVER), 0);
    assert_int_equal(n, 1);
    /* a write without a time to live lives for ever; one with a huge time as well */
    assert_int_equal(nst_put(store, text("k"), text("v"), NST_MS(1), NST_NEVER), 0);
    assert_int_equal(nst_put(store, text("k"), text("w"), 0, NST_NEVER), 0);
    assert_int_equal(nst_put(store, text("l"), text("w"), NST_NEVER, NST_NEVER), 0);
    nst_clock_set(reactor, NST_SEC(1000000));
    assert_int_equal(get_text("k", val, sizeof val, NULL), 1);
    assert_int_equal(get_text("l", val, sizeof val, NULL), 1);
    assert_int_equal(nst_put(store, text("k"), text("w"), -1, NST_NEVER), -EINVAL);
    nst_store_close(store);
}

/* ---- against a model ---- */
enum { KEYS = 300, STEPS = 200000, MODEL_VALUE = 700 };
struct model {
    bool there, counter;
    nst_time until;
    uint64_t version;
    int64_t count;
    size_t len;
    uint8_t fill;
};

static void model_body(void)
{
    static struct model keys[KEYS];
    nst_time now = NST_SEC(1);
    uint64_t x = 88172645463325252u;
    uint8_t val[MODEL_VALUE], back[MODEL_VALUE];

    memset(keys, 0, sizeof keys);
    open_store(0);
    for (int step = 0; step < STEPS; step++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        unsigned k = (unsigned)(x % KEYS), op = (unsigned)(x >> 32) % 8;
        struct model *m = &keys[k];
        struct nst_slice key = { &k, sizeof k }, value = { val, (size_t)(x >> 40) % MODEL_VALUE };
        nst_time ttl = (x >> 20) % 3 == 0 ? 0 : NST_MS(1 + (nst_time)(x >> 21) % 50);
        nst_time until = ttl == 0 ? NST_NEVER : now + ttl;
        uint64_t version = 0;
        int64_t n = 0;
        int rc;

        if (m->there && m->until <= now)
            m->there = false;
        memset(val, (int)(x >> 50), value.len);
        switch (op) {
        case 0:
        case 1:
            assert_int_equal(nst_put(store, key, value, ttl, NST_NEVER), 0);
            *m = (struct model){ .there = true, .until = until, .len = value.len, .fill = (uint8_t)(x >> 50) };
            assert_int_equal(nst_get(store, key, back, sizeof back, &m->version, NST_NEVER), (int)value.len);
            break;
        case 2:
        case 3:
        case 4:
            rc = nst_get(store, key, back, sizeof back, &version, NST_NEVER);
            if (!m->there) {
                assert_int_equal(rc, -ENOENT);
            } else if (m->counter) {
                assert_int_equal(rc, -EIO);
            } else {
                assert_int_equal(rc, (int)m->len);
                assert_int_equal(version, m->version);
                memset(val, m->fill, m->len);
                assert_memory_equal(val, back, m->len);
            }
            break;
        case 5:
            version = x >> 60 & 1 ? m->version : x >> 61 & 1 ? 0 : m->version + 1;
            rc = nst_cas(store, key, value, version, ttl, NST_NEVER);
            if (m->there ? version != 0 && !m->counter && version == m->version : version == 0) {
                assert_int_equal(rc, 0);
                *m = (struct model){ .there = true, .until = until, .len = value.len, .fill = (uint8_t)(x >> 50) };
                assert_int_equal(nst_get(store, key, back, sizeof back, &m->version, NST_NEVER), (int)value.len);
            } else {
                assert_int_equal(rc, -ESTALE);
            }
            break;
        case 6:
            rc = nst_incr(store, key, (int64_t)(x >> 50) - 8000, &n, ttl, NST_NEVER);
            if (m->there && !m->counter) {
                assert_int_equal(rc, -EINVAL);
                break;
            }
            assert_int_equal(rc, 0);
            if (!m->there)
                *m = (struct model){ .there = true, .counter = true, .until = NST_NEVER };
            m->count += (int64_t)(x >> 50) - 8000;
            assert_int_equal(n, m->count);
            if (ttl != 0)
                m->until = until;
            break;
        case 7:
            assert_int_equal(nst_delete(store, key, NST_NEVER), m->there ? 0 : -ENOENT);
            m->there = false;
            break;
        }
        if (step % 16 == 0) {
            now += NST_MS(x >> 58);
            nst_clock_set(reactor, now);
        }
    }
    nst_store_close(store);
}

/* ---- growing: every key is found at every size, also while the table is being moved ---- */
static void growth_body(void)
{
    enum { MANY = 100000 };
    char val[8];

    open_store(0);
    for (uint32_t i = 0; i < MANY; i++) {
        uint32_t j = i / 2;
        struct nst_slice key = { &i, sizeof i }, other = { &j, sizeof j };
        assert_int_equal(nst_put(store, key, key, 0, NST_NEVER), 0);
        assert_int_equal(nst_get(store, other, val, sizeof val, NULL, NST_NEVER), (int)sizeof j);
        assert_memory_equal(val, &j, sizeof j);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        struct nst_slice key = { &i, sizeof i };
        assert_int_equal(nst_get(store, key, val, sizeof val, NULL, NST_NEVER), (int)sizeof i);
        assert_memory_equal(val, &i, sizeof i);
        assert_int_equal(nst_delete(store, key, NST_NEVER), 0);
    }
    struct nst_store_stats stats;
    nst_store_stats(store, &stats);
    assert_int_equal(stats.requests, 4 * MANY);
    assert_int_equal(stats.answers, 4 * MANY);
    assert_int_equal(stats.misses, 0);
    nst_store_close(store);
}

/* ---- the limit: writes are refused, what is there stays readable and writable, and memory comes back ---- */
static void limit_body(void)
{
    char val[1000] = { 1 };
    struct nst_slice value = { val, sizeof val };
    struct nst_store_stats stats;
    uint32_t i, fits;
    int rc = 0;

    open_store(1 << 20);
    for (i = 0; rc == 0; i++)
        rc = nst_put(store, (struct nst_slice){ &i, sizeof i }, value, NST_SEC(10), NST_NEVER);
    assert_int_equal(rc, -ENOSPC);
    fits = i - 1;
    assert_in_range(fits, 800, 1048);
    nst_store_stats(store, &stats);
    assert_int_equal(stats.refused, 1);

    for (i = 0; i < fits; i++) {
        struct nst_slice key = { &i, sizeof i };
        assert_int_equal(nst_get(store, key, val, sizeof val, NULL, NST_NEVER), (int)sizeof val);
        assert_int_equal(nst_put(store, key, value, NST_SEC(10), NST_NEVER), 0);
    }
    i = 0;
    assert_int_equal(nst_delete(store, (struct nst_slice){ &i, sizeof i }, NST_NEVER), 0);
    assert_int_equal(nst_put(store, (struct nst_slice){ &i, sizeof i }, value, NST_SEC(10), NST_NEVER), 0);

    /* once all has expired, as much fits again, without anybody asking for the old keys */
    nst_clock_set(reactor, NST_SEC(100));
    for (i = 0; i < fits; i++) {
        uint32_t k = 1000000 + i;
        assert_int_equal(nst_put(store, (struct nst_slice){ &k, sizeof k }, value, NST_SEC(10), NST_NEVER), 0);
    }
    nst_store_close(store);
}

/* Keys that come, live for a while and are never asked for again do not pile up. */
static void churn_body(void)
{
    char val[100] = { 2 };

    open_store(4 << 20);
    for (uint32_t i = 0; i < 300000; i++) {
        struct nst_slice key = { &i, sizeof i };
        if (i % 10 == 0)
            nst_clock_set(reactor, NST_SEC(1) + NST_US(10) * i);
        /* about 10000 live keys of some 200 bytes each */
        assert_int_equal(nst_put(store, key, (struct nst_slice){ val, sizeof val }, NST_MS(100), NST_NEVER), 0);
    }
    nst_store_close(store);
}

#define ON_REACTOR(name)           \
    static void name(void **state) \
    {                              \
        on_reactor(name##_body);   \
    }
ON_REACTOR(basics)
ON_REACTOR(sizes)
ON_REACTOR(ttl)
ON_REACTOR(model)
ON_REACTOR(growth)
ON_REACTOR(limit)
ON_REACTOR(churn)

static void open_errors(void **state)
{
    const char *why = NULL;

    assert_int_equal(nst_store_open(&store, "mem:x", NULL, &why), -EINVAL);
    assert_string_equal(why, "character 5: expected the end: nothing follows \"mem:\"");
    assert_int_equal(nst_store_check("mem:", NULL), 0);
    assert_int_equal(nst_store_check("redis://nosuch.invalid", NULL), 0);
    assert_int_equal(nst_store_check("redis://:x", &why), -EINVAL);
    nst_store_close(NULL);
}

/* Random operations on a pool beside a model that looks at every number. */
static void pool_model_body(void)
{
    enum { SIZE = 37, TIMES = 20000 };
    struct {
        bool given;
        uint64_t ticket;
        nst_time free_at;
    } model[SIZE] = { 0 };
    nst_time now = NST_SEC(1);
    unsigned seed = 7;

    open_store(0);
    for (int i = 0; i < TIMES; i++) {
        struct nst_lease lease;
        unsigned v = (unsigned)rand_r(&seed) % SIZE;
        nst_time lasts = NST_MS(1 + rand_r(&seed) % 20);
        int rc;
        now += NST_US(1 + rand_r(&seed) % 1000);
        nst_clock_set(reactor, now);
        switch (rand_r(&seed) % 3) {
        case 0: {
            nst_time first = NST_NEVER;
            unsigned fresh = 0;
            while (fresh < SIZE && model[fresh].given)
                fresh++;
            for (unsigned j = 0; j < SIZE; j++)
                first = model[j].given && model[j].free_at < first ? model[j].free_at : first;
            rc = nst_pool_take(store, text("p"), SIZE, lasts, &lease, NST_NEVER);
            if (fresh == SIZE && first > now) {
                assert_int_equal(rc, -ENOENT);
                break;
            }
            assert_int_equal(rc, 0);
            if (fresh < SIZE)
                assert_int_equal(lease.value, fresh);
            else
                assert_true(model[lease.value].free_at == first);
            assert_true(lease.ticket > model[lease.value].ticket);
            model[lease.value].given = true;
            model[lease.value].ticket = lease.ticket;
            model[lease.value].free_at = now + lasts;
            break;
        }
        case 1:
            lease = (struct nst_lease){ .ticket = model[v].ticket + (rand_r(&seed) % 4 == 0), .value = v };
            rc = nst_pool_give(store, text("p"), lease, NST_NEVER);
            assert_int_equal(rc, model[v].given && lease.ticket == model[v].ticket ? 0 : -ESTALE);
            if (rc == 0)
                model[v].free_at = now;
            break;
        default:
            lease = (struct nst_lease){ .ticket = model[v].ticket, .value = v };
            rc = nst_pool_keep(store, text("p"), lease, lasts, NST_NEVER);
            assert_int_equal(rc, model[v].given ? 0 : -ESTALE);
            if (rc == 0)
                model[v].free_at = now + lasts;
            break;
        }
    }
    nst_store_close(store);
}

static void pool_model(void **state)
{
    on_reactor(pool_model_body);
}

/* Keys that are there all the time are told, although the table grows under the scan. */
static void scan_growing_body(void)
{
    enum { KEPT = 700, MORE = 20000 };
    static uint8_t page[4096], seen[KEPT];
    struct nst_scan at = { 0 };
    char key[16];
    int more = 0;

    open_store(0);
    for (int i = 0; i < KEPT; i++) {
        snprintf(key, sizeof key, "kept%d", i);
        assert_int_equal(nst_put(store, text(key), text("v"), 0, NST_NEVER), 0);
    }
    while (!at.done) {
        const void *place = page;
        int rc = nst_scan(store, text("kept"), &at, page, 64, NST_NEVER);
        assert_true(rc >= 0);
        for (int i = 0; i < rc; i++) {
            struct nst_slice k = nst_scan_key(&place);
            char copy[16] = "";
            memcpy(copy, k.p, k.len);
            seen[atoi(copy + 4)] = 1;
        }
        for (int i = 0; i < 200 && more < MORE; i++) {
            snprintf(key, sizeof key, "more%d", more++);
            assert_int_equal(nst_put(store, text(key), text("v"), 0, NST_NEVER), 0);
        }
    }
    assert_int_equal(more, MORE);
    for (int i = 0; i < KEPT; i++)
        assert_int_equal(seen[i], 1);
    assert_int_equal((at = (struct nst_scan){ 0 }, nst_scan(store, text("kept"), &at, page, 4, NST_NEVER)), -EMSGSIZE);
    nst_store_close(store);
}

static void scan_growing(void **state)
{
    on_reactor(scan_growing_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_model), cmocka_unit_test(scan_growing), cmocka_unit_test(basics), cmocka_unit_test(sizes),
        cmocka_unit_test(ttl),        cmocka_unit_test(model),        cmocka_unit_test(growth), cmocka_unit_test(limit),
        cmocka_unit_test(churn),      cmocka_unit_test(open_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
