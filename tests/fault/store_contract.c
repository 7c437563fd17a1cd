/* SPDX-License-Identifier: Apache-2.0 */
#include "store_contract.h"
#include "store_lab.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct nst_store *store;
static char val[64];

static struct nst_slice bytes(const void *p, size_t len)
{
    return (struct nst_slice){ p, len };
}

static void gone(const char *key)
{
    int rc = nst_delete(store, text(key), patience());

    assert_true(rc == 0 || rc == -ENOENT);
}

static void holds(const char *key, const char *expected)
{
    memset(val, 'x', sizeof val);
    assert_int_equal(nst_get(store, text(key), val, sizeof val, NULL, patience()), strlen(expected));
    assert_memory_equal(val, expected, strlen(expected));
}

static void wait_gone(const char *key)
{
    for (nst_time until = patience();;) {
        int rc = nst_get(store, text(key), val, sizeof val, NULL, patience());
        if (rc == -ENOENT)
            break;
        assert_true(rc >= 0 && nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(1)), 0);
    }
}

static void values(void)
{
    uint64_t v1, v2;

    gone("contract");
    assert_int_equal(nst_get(store, text("contract"), val, sizeof val, &v1, patience()), -ENOENT);
    assert_int_equal(nst_put_new(store, text("contract"), text("one"), 0, patience()), 0);
    assert_int_equal(nst_put_new(store, text("contract"), text("two"), 0, patience()), -EEXIST);
    holds("contract", "one");
    assert_int_equal(nst_get(store, text("contract"), val, sizeof val, &v1, patience()), 3);
    assert_int_equal(nst_cas(store, text("contract"), text("two"), v1, 0, patience()), 0);
    assert_int_equal(nst_cas(store, text("contract"), text("three"), v1, 0, patience()), -ESTALE);
    assert_int_equal(nst_get(store, text("contract"), val, sizeof val, &v2, patience()), 3);
    assert_true(v1 != v2);
    assert_int_equal(nst_cas_bytes(store, text("contract"), text("one"), text("x"), 0, patience()), -ESTALE);
    assert_int_equal(nst_cas_bytes(store, text("contract"), text("tw"), text("x"), 0, patience()), -ESTALE);
    assert_int_equal(nst_cas_bytes(store, text("contract"), text("two"), text(""), 0, patience()), 0);
    holds("contract", "");
    assert_int_equal(nst_cas_bytes(store, text("contract"), text(""), bytes("\0\r\n", 3), 0, patience()), 0);
    assert_int_equal(nst_cas_bytes(store, text("contract"), bytes("\0\r\n", 3), text("v"), 0, patience()), 0);
    holds("contract", "v");
    gone("contract");
    assert_int_equal(nst_cas_bytes(store, text("contract"), text(""), text("x"), 0, patience()), -ESTALE);
    assert_int_equal(nst_cas(store, text("contract"), text("x"), v2, 0, patience()), -ESTALE);
    assert_int_equal(nst_get(store, text("contract"), val, sizeof val, NULL, patience()), -ENOENT);
}

static void counters(void)
{
    int64_t n = 0;

    gone("contract:n");
    assert_int_equal(nst_incr(store, text("contract:n"), 5, &n, 0, patience()), 0);
    assert_int_equal(nst_incr(store, text("contract:n"), -7, &n, NST_SEC(100), patience()), 0);
    assert_int_equal(n, -2);
    assert_int_equal(nst_get(store, text("contract:n"), val, sizeof val, NULL, patience()), -EIO);
    assert_int_equal(nst_cas_bytes(store, text("contract:n"), text("-2"), text("x"), 0, patience()), -ESTALE);
    assert_int_equal(nst_put_new(store, text("contract:n"), text("x"), 0, patience()), -EEXIST);
    assert_int_equal(nst_own(store, text("contract:n"), val, sizeof val, &(uint64_t){ 0 }, 0, patience()), -EIO);
    assert_int_equal(nst_incr(store, text("contract:n"), INT64_MIN, &n, 0, patience()), -EIO);
    assert_int_equal(nst_incr(store, text("contract:n"), 0, &n, 0, patience()), 0);
    assert_int_equal(n, -2);
    assert_int_equal(nst_put(store, text("contract:n"), text("v"), 0, patience()), 0);
    assert_int_equal(nst_incr(store, text("contract:n"), 1, &n, 0, patience()), -EINVAL);
    holds("contract:n", "v");
}

static void times(void)
{
    gone("contract:t");
    assert_int_equal(nst_touch(store, text("contract:t"), NST_SEC(1), patience()), -ENOENT);
    assert_int_equal(nst_touch(store, text("contract:t"), 0, patience()), -ENOENT);
    assert_int_equal(nst_put(store, text("contract:t"), text("v"), NST_SEC(1000), patience()), 0);
    assert_int_equal(nst_touch(store, text("contract:t"), 0, patience()), 0);
    assert_int_equal(nst_touch(store, text("contract:t"), NST_MS(1), patience()), 0);
    wait_gone("contract:t");
    assert_int_equal(nst_put_new(store, text("contract:t"), text("v"), NST_MS(1), patience()), 0);
    wait_gone("contract:t");
    assert_int_equal(nst_put_new(store, text("contract:t"), text("w"), 0, patience()), 0);
    assert_int_equal(nst_cas_bytes(store, text("contract:t"), text("w"), text("x"), NST_MS(1), patience()), 0);
    wait_gone("contract:t");
    assert_int_equal(nst_put(store, text("contract:t"), text("v"), -1, patience()), -EINVAL);
}

static void owners(void)
{
    uint64_t a = 0, b = 0, c = 0, version = 0;

    gone("contract:o");
    assert_int_equal(nst_put_owned(store, text("contract:o"), text("x"), UINT64_MAX >> 8, 0, patience()), -ESTALE);
    assert_int_equal(nst_own(store, text("contract:o"), val, sizeof val, &a, 0, patience()), -ENOENT);
    assert_true(a != 0);
    assert_int_equal(nst_get(store, text("contract:o"), val, sizeof val, NULL, patience()), -ENOENT);
    assert_int_equal(nst_put_owned(store, text("contract:o"), text("of a"), a, 0, patience()), 0);
    assert_int_equal(nst_put_owned(store, text("contract:o"), text("of a"), a, 0, patience()), 0);
    assert_int_equal(nst_get(store, text("contract:o"), val, sizeof val, &version, patience()), 4);
    assert_true(version == a);
    assert_int_equal(nst_check_owned(store, text("contract:o"), a, patience()), 0);
    /* a paused owner, and one that came later */
    assert_int_equal(nst_own(store, text("contract:o"), val, sizeof val, &b, 0, patience()), 4);
    assert_int_equal(nst_check_owned(store, text("contract:o"), a, patience()), -ESTALE);
    assert_int_equal(nst_check_owned(store, text("contract:o"), b, patience()), 0);
    assert_memory_equal(val, "of a", 4);
    assert_true(b > a);
    assert_int_equal(nst_put_owned(store, text("contract:o"), text("late"), a, 0, patience()), -ESTALE);
    assert_int_equal(nst_delete_owned(store, text("contract:o"), a, patience()), -ESTALE);
    assert_int_equal(nst_put_owned(store, text("contract:o"), text("of b"), b, 0, patience()), 0);
    assert_int_equal(nst_own(store, text("contract:o"), val, 3, &c, 0, patience()), -EMSGSIZE);
    assert_true(c > b);
    assert_int_equal(nst_put_owned(store, text("contract:o"), text("late"), b, 0, patience()), -ESTALE);
    holds("contract:o", "of b");
    assert_int_equal(nst_delete_owned(store, text("contract:o"), c, patience()), 0);
    assert_int_equal(nst_delete_owned(store, text("contract:o"), c, patience()), -ENOENT);
    /* gone is not owned: what was written before stays gone, and old tokens stay old */
    assert_int_equal(nst_put_owned(store, text("contract:o"), text("late"), c, 0, patience()), -ESTALE);
    assert_int_equal(nst_own(store, text("contract:o"), val, sizeof val, &b, NST_SEC(1000), patience()), -ENOENT);
    assert_true(b > c);
    assert_int_equal(nst_put_owned(store, text("contract:o"), text("late"), c, 0, patience()), -ESTALE);
    assert_int_equal(nst_put_owned(store, text("contract:o"), text("v"), b, NST_MS(1), patience()), 0);
    wait_gone("contract:o");
    assert_int_equal(nst_own(store, text("contract:o"), val, sizeof val, &c, 0, patience()), -ENOENT);
    assert_true(c > b);
    /* a plain value becomes owned, and an owned one plain */
    assert_int_equal(nst_put(store, text("contract:o"), text("plain"), 0, patience()), 0);
    assert_int_equal(nst_put_owned(store, text("contract:o"), text("late"), c, 0, patience()), -ESTALE);
    assert_int_equal(nst_own(store, text("contract:o"), val, sizeof val, &c, 0, patience()), 5);
    assert_memory_equal(val, "plain", 5);
    assert_int_equal(nst_cas_bytes(store, text("contract:o"), text("plain"), text("x"), 0, patience()), -ESTALE);
    assert_int_equal(nst_put_owned(store, text("contract:o"), text("mine"), c, 0, patience()), 0);
    holds("contract:o", "mine");
}

static void pools(void)
{
    enum { SIZE = 50 };
    static struct nst_lease leases[SIZE + 2], again;
    static bool taken[SIZE + 2];
    int64_t n;

    memset(taken, 0, sizeof taken);
    gone("contract:p");
    assert_int_equal(nst_pool_take(store, text("contract:p"), 0, NST_SEC(1), &again, patience()), -ENOENT);
    for (int i = 0; i < SIZE; i++) {
        assert_int_equal(nst_pool_take(store, text("contract:p"), SIZE, NST_SEC(1000), &leases[i], patience()), 0);
        assert_in_range(leases[i].value, 0, SIZE - 1);
        assert_false(taken[leases[i].value]);
        taken[leases[i].value] = true;
    }
    assert_int_equal(nst_pool_take(store, text("contract:p"), SIZE, NST_SEC(1000), &again, patience()), -ENOENT);
    /* larger now */
    for (int i = SIZE; i < SIZE + 2; i++) {
        assert_int_equal(nst_pool_take(store, text("contract:p"), SIZE + 2, NST_SEC(1000), &leases[i], patience()), 0);
        assert_int_equal(leases[i].value, i);
    }
    /* given back: the longest free first, with another ticket; the old one is worth nothing */
    assert_int_equal(nst_pool_give(store, text("contract:p"), leases[7], patience()), 0);
    assert_int_equal(nst_sleep(in_ms(3)), 0);
    assert_int_equal(nst_pool_give(store, text("contract:p"), leases[3], patience()), 0);
    assert_int_equal(nst_sleep(in_ms(3)), 0);
    assert_int_equal(nst_pool_take(store, text("contract:p"), SIZE + 2, NST_SEC(1000), &again, patience()), 0);
    assert_int_equal(again.value, leases[7].value);
    assert_true(again.ticket > leases[7].ticket);
    assert_int_equal(nst_pool_give(store, text("contract:p"), leases[7], patience()), -ESTALE);
    assert_int_equal(nst_pool_keep(store, text("contract:p"), leases[7], NST_SEC(1), patience()), -ESTALE);
    assert_int_equal(nst_pool_take(store, text("contract:p"), SIZE + 2, NST_SEC(1000), &leases[7], patience()), 0);
    assert_int_equal(leases[7].value, leases[3].value);
    assert_int_equal(nst_pool_take(store, text("contract:p"), SIZE + 2, NST_SEC(1000), &leases[3], patience()),
                     -ENOENT);
    /* a lease that ends frees the value; one that is kept does not end */
    assert_int_equal(nst_pool_keep(store, text("contract:p"), again, NST_MS(1), patience()), 0);
    assert_int_equal(nst_sleep(in_ms(5)), 0);
    assert_int_equal(nst_pool_keep(store, text("contract:p"), again, NST_SEC(1000), patience()), 0);
    assert_int_equal(nst_pool_take(store, text("contract:p"), SIZE + 2, NST_SEC(1000), &leases[3], patience()),
                     -ENOENT);
    assert_int_equal(nst_pool_keep(store, text("contract:p"), again, NST_MS(1), patience()), 0);
    assert_int_equal(nst_sleep(in_ms(5)), 0);
    assert_int_equal(nst_pool_take(store, text("contract:p"), SIZE + 2, NST_SEC(1000), &leases[3], patience()), 0);
    assert_int_equal(leases[3].value, again.value);
    assert_int_equal(nst_pool_keep(store, text("contract:p"), again, NST_SEC(1), patience()), -ESTALE);
    /* smaller than it was */
    assert_int_equal(nst_pool_give(store, text("contract:p"), leases[SIZE], patience()), 0);
    assert_int_equal(nst_sleep(in_ms(3)), 0);
    assert_int_equal(nst_pool_take(store, text("contract:p"), SIZE, NST_SEC(1000), &again, patience()), -EINVAL);
    assert_int_equal(nst_pool_take(store, text("contract:p"), 100, 0, &again, patience()), -EINVAL);
    /* and nothing else */
    assert_int_equal(nst_get(store, text("contract:p"), val, sizeof val, NULL, patience()), -EIO);
    assert_true(nst_incr(store, text("contract:p"), 1, &n, 0, patience()) == -EINVAL);
    gone("contract:p");
    assert_int_equal(nst_pool_give(store, text("contract:p"), again, patience()), -ESTALE);
    assert_int_equal(nst_put(store, text("contract:p"), text("v"), 0, patience()), 0);
    assert_int_equal(nst_pool_take(store, text("contract:p"), SIZE, NST_SEC(1), &again, patience()), -EIO);
}

static void scans(void)
{
    enum { KEYS = 2000 };
    static uint8_t page[NST_SCAN_PAGE], seen[KEYS];
    static struct nst_future futures[KEYS];
    static struct nst_future *all[KEYS];
    static char keys[KEYS][24];
    struct nst_scan at = { 0 };
    size_t n = 0;

    for (int i = 0; i < KEYS; i++) {
        snprintf(keys[i], sizeof keys[i], "contract*%c%d", i % 2 == 0 ? '?' : 'x', i);
        nst_put_start(store, text(keys[i]), text("v"), 0, &futures[i]);
        all[i] = &futures[i];
    }
    assert_int_equal(nst_await_all(all, KEYS, patience()), 0);
    memset(seen, 0, sizeof seen);
    while (!at.done) {
        const void *place = page;
        size_t cap = n % 3 == 0 ? 300 : sizeof page;
        int rc = nst_scan(store, text("contract*?"), &at, page, cap, patience());
        assert_true(rc >= 0);
        for (int i = 0; i < rc; i++) {
            struct nst_slice key = nst_scan_key(&place);
            char copy[24] = "";
            assert_in_range(key.len, 11, 20);
            memcpy(copy, key.p, key.len);
            assert_memory_equal(copy, "contract*?", 10);
            seen[atoi(copy + 10)] = 1;
        }
        assert_true((const uint8_t *)place <= page + cap);
        assert_true(++n < 100000);
    }
    for (int i = 0; i < KEYS; i++)
        assert_int_equal(seen[i], i % 2 == 0);
    at = (struct nst_scan){ 0 };
    while (!at.done)
        assert_int_equal(nst_scan(store, text("contract of nobody"), &at, page, sizeof page, patience()), 0);
    for (int i = 0; i < KEYS; i++)
        nst_delete_start(store, text(keys[i]), &futures[i]);
    assert_int_equal(nst_await_all(all, KEYS, patience()), 0);
}

/* ---- listening ---- */

struct ear {
    struct nst_listener l;
    unsigned told, all;
    char last[64];
};

static void on_change(struct nst_listener *l, struct nst_slice key)
{
    struct ear *e = (struct ear *)l;

    if (key.p == NULL) {
        e->all++;
        return;
    }
    e->told++;
    snprintf(e->last, sizeof e->last, "%.*s", (int)key.len, (const char *)key.p);
}

static void hears(struct ear *e, unsigned n, const char *key)
{
    for (nst_time until = patience(); e->told < n;) {
        assert_true(nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(1)), 0);
    }
    assert_string_equal(e->last, key);
}

static void listens(bool tells)
{
    struct ear ear = { .l = { .prefix = text("contract:l"), .changed = on_change } };
    struct ear other = { .l = { .prefix = text("contract:m"), .changed = on_change } };
    struct ear inside = { .l = { .prefix = text("contract:l2"), .changed = on_change } };
    uint64_t token;

    gone("contract:l1");
    assert_int_equal(nst_listen(store, &ear.l), 0);
    assert_int_equal(nst_listen(store, &other.l), 0);
    assert_int_equal(nst_listen(store, &inside.l), -EEXIST);
    for (nst_time until = patience(); tells && !(ear.l.live && other.l.live);) {
        assert_true(nst_now() < until);
        assert_int_equal(nst_sleep(in_ms(1)), 0);
    }
    if (tells) {
        assert_int_equal(nst_put(store, text("contract:l1"), text("v"), 0, patience()), 0);
        hears(&ear, 1, "contract:l1");
        assert_int_equal(nst_own(store, text("contract:l2"), val, sizeof val, &token, NST_SEC(100), patience()),
                         -ENOENT);
        hears(&ear, 2, "contract:l2");
        assert_int_equal(nst_put(store, text("contract:m1"), text("v"), NST_MS(1), patience()), 0);
        hears(&other, 1, "contract:m1");
        assert_int_equal(nst_delete(store, text("contract:l2"), patience()), 0);
        hears(&ear, 3, "contract:l2");
        /* expired: told by whoever meets it first */
        for (nst_time until = patience(); other.told < 2;) {
            assert_true(nst_now() < until);
            assert_true(nst_get(store, text("contract:m1"), val, sizeof val, NULL, patience()) != -EIO);
            assert_int_equal(nst_sleep(in_ms(1)), 0);
        }
        assert_int_equal(nst_put(store, text("contract:n"), text("v"), 0, patience()), 0);
    }
    assert_false(!tells && (ear.l.live || other.l.live));
    nst_unlisten(store, &ear.l);
    nst_unlisten(store, &other.l);
    assert_false(ear.l.live);
}

void store_contract(struct nst_store *s, bool tells)
{
    store = s;
    gone("contract:m1");
    gone("contract:l2");
    values();
    counters();
    times();
    owners();
    pools();
    scans();
    listens(tells);
}
