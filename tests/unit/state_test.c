/* SPDX-License-Identifier: Apache-2.0 */
/* Kept state: what one instance asks the store, and what two of them promise each other. */
#include "state_lab.h"

static struct lab lab;
static struct nst_state *at[FRONTS_MAX]; /* the same state, on each instance */

static struct nst_slice text(const char *s)
{
    return (struct nst_slice){ s, strlen(s) };
}

static void advance(nst_time ns)
{
    nst_clock_set(reactor, nst_now() + ns);
}

static void open_with(unsigned instances, const struct nst_state_config *given)
{
    struct nst_state_config config = { .name = "t:", .size = 64 };

    if (given != NULL)
        config = *given;
    nst_clock_set(reactor, NST_SEC(1000));
    lab_open(&lab, instances);
    for (unsigned i = 0; i < instances; i++)
        CHECK(nst_state_open(&at[i], &lab.front[i].base, &config) == 0);
}

static void close_all(void)
{
    for (unsigned i = 0; i < lab.n; i++)
        nst_state_close(at[i]);
    lab_close(&lab);
}

static struct nst_state_stats stats_of(unsigned i)
{
    struct nst_state_stats s;

    nst_state_stats(at[i], &s);
    return s;
}

static void set(struct nst_object *o, const char *value)
{
    o->len = (uint32_t)strlen(value);
    memcpy(o->value, value, o->len);
}

static bool is(const struct nst_object *o, const char *value)
{
    return o->there && o->len == strlen(value) && memcmp(o->value, value, o->len) == 0;
}

/* What the store itself has. */
static bool stored(const char *key, const char *value)
{
    char got[64];
    int rc = nst_get(lab.store, text(key), got, sizeof got, NULL, NST_NEVER);

    return value == NULL ? rc == -ENOENT : rc == (int)strlen(value) && memcmp(got, value, (size_t)rc) == 0;
}

/* Claims on instance i, gives the value, commits. */
static int write_on(unsigned i, const char *key, const char *value)
{
    NST_HELD struct nst_object *o = NULL;
    int rc = nst_state_claim(at[i], text(key), &o, NST_NEVER);

    if (rc < 0)
        return rc;
    set(o, value);
    return nst_state_commit(o, NST_NEVER);
}

static bool reads(unsigned i, const char *key, const char *value)
{
    NST_HELD struct nst_object *o = NULL;
    int rc = nst_state_claim(at[i], text(key), &o, NST_NEVER);

    CHECK(rc == 0);
    return value == NULL ? !o->there && o->len == 0 : is(o, value);
}

static void in_turn_body(void)
{
    open_with(1, NULL);
    struct front *f = &lab.front[0];
    CHECK(reads(0, "k", NULL));
    CHECK(f->counts[STORE_OWN] == 1);
    CHECK(write_on(0, "k", "one") == 0);
    CHECK(f->counts[STORE_OWN] == 1 && f->counts[STORE_PUT_OWNED] == 1);
    CHECK(stored("t:k", "one"));
    for (unsigned i = 0; i < 100; i++)
        CHECK(reads(0, "k", "one"));
    CHECK(f->counts[STORE_OWN] == 1 && f->counts[STORE_CHECK_OWNED] == 0 && f->counts[STORE_GET] == 0);
    struct nst_state_stats s = stats_of(0);
    CHECK(s.asked == 102 && s.hits == 101 && s.claims == 1 && s.writes == 1 && s.commits == 1 && s.kept == 1);
    close_all();
}
static void test_kept(void **state)
{
    run(in_turn_body);
}

/* ---- writes of one turn are one ---- */
enum { WRITERS = 10 };
static int results[WRITERS], ended;

static void one_of_many(void *arg)
{
    NST_HELD struct nst_object *o = NULL;
    intptr_t n = (intptr_t)arg;

    CHECK(nst_state_claim(at[0], text("k"), &o, NST_NEVER) == 0);
    ((uint8_t *)o->value)[n] = (uint8_t)(n + 1);
    o->len = WRITERS;
    results[n] = nst_state_commit(o, NST_NEVER);
    ended++;
}

static void spawn_writers(struct nst_scope *scope, int from, int to)
{
    for (intptr_t i = from; i < to; i++)
        CHECK(nst_spawn(scope, one_of_many, (void *)i) == 0);
}

static void merge_body(void)
{
    struct nst_scope *scope;
    uint8_t got[64];

    open_with(1, NULL);
    struct front *f = &lab.front[0];
    CHECK(nst_scope_open(&scope, NULL) == 0);
    ended = 0;
    f->keep_answers = true;
    spawn_writers(scope, 0, 4);
    pass_turns(3);
    CHECK(f->counts[STORE_OWN] == 1 && ended == 0); /* four that ask are one claim */
    front_let_go(f);
    pass_turns(3);
    CHECK(f->counts[STORE_PUT_OWNED] == 1 && ended == 0);
    spawn_writers(scope, 4, WRITERS); /* while that one is under way: they follow in one more */
    pass_turns(3);
    CHECK(f->counts[STORE_PUT_OWNED] == 1 && ended == 0);
    front_let_go(f);
    pass_turns(3);
    CHECK(f->counts[STORE_PUT_OWNED] == 2 && ended == 4);
    front_let_go(f);
    pass_turns(3);
    CHECK(ended == WRITERS && f->counts[STORE_PUT_OWNED] == 2);
    CHECK(nst_get(lab.store, text("t:k"), got, sizeof got, NULL, NST_NEVER) == WRITERS);
    for (int i = 0; i < WRITERS; i++)
        CHECK(results[i] == 0 && got[i] == i + 1);
    CHECK(stats_of(0).commits == WRITERS && stats_of(0).writes == 2);
    CHECK(nst_scope_close(scope) == 0);
    close_all();
}
static void test_merge(void **state)
{
    run(merge_body);
}

/* ---- output commit ---- */
static int settled_rc;
static void settle_task(void *arg)
{
    settled_rc = nst_state_settle(arg, NST_NEVER);
    ended++;
}

static void settle_body(void)
{
    struct nst_scope *scope;
    NST_HELD struct nst_object *o = NULL;
    struct nst_future f;

    open_with(1, NULL);
    struct front *front = &lab.front[0];
    CHECK(nst_scope_open(&scope, NULL) == 0);
    CHECK(nst_state_claim(at[0], text("k"), &o, NST_NEVER) == 0);
    CHECK(nst_state_settle(o, 0) == 0); /* nothing is under way: it does not even look at the time */
    front->keep_answers = true;
    set(o, "one");
    nst_state_commit_start(o, &f);
    ended = 0;
    CHECK(nst_spawn(scope, settle_task, o) == 0); /* before the write has begun */
    pass_turns(2);
    CHECK(nst_spawn(scope, settle_task, o) == 0); /* and while it is under way */
    pass_turns(2);
    CHECK(ended == 0 && f.state == NST_FUTURE_OPEN && stored("t:k", "one"));
    front_let_go(front);
    pass_turns(2);
    CHECK(ended == 2 && settled_rc == 0 && nst_await(&f, NST_NEVER) == 0);
    CHECK(nst_state_settle(o, 0) == 0);

    /* a renewal carries no change, so nobody waits for it */
    o->ttl = NST_SEC(100);
    nst_state_use(o);
    pass_turns(2);
    CHECK(front->counts[STORE_PUT_OWNED] == 2);
    CHECK(nst_state_settle(o, 0) == 0);
    nst_state_use(o); /* it is under way already */
    front_let_go(front);
    pass_turns(2);
    CHECK(front->counts[STORE_PUT_OWNED] == 2 && stats_of(0).renewals == 1);

    nst_state_write(o); /* at once: only settle would wait for it */
    CHECK(nst_state_settle(o, nst_now()) == -ETIMEDOUT);
    pass_turns(1);
    front_let_go(front);
    pass_turns(1);
    CHECK(nst_state_settle(o, 0) == 0);
    CHECK(nst_scope_close(scope) == 0);
    nst_state_release(o);
    o = NULL;
    close_all();
}
static void test_settle(void **state)
{
    run(settle_body);
}

/* ---- two instances ---- */
static void move_body(void)
{
    NST_HELD struct nst_object *a = NULL;

    open_with(2, NULL);
    CHECK(write_on(0, "k", "one") == 0);
    CHECK(reads(1, "k", "one"));
    CHECK(write_on(1, "k", "two") == 0);
    /* told of the change, the first reads anew, in one round trip */
    CHECK(reads(0, "k", "two"));
    CHECK(lab.front[0].counts[STORE_OWN] == 2 && lab.front[0].counts[STORE_CHECK_OWNED] == 0);
    CHECK(stats_of(0).invalidated == 1);

    /* not told of it: it goes on with what it keeps until it writes, or for `fresh` */
    lab.front[0].deaf = true;
    CHECK(write_on(1, "k", "three") == 0);
    CHECK(reads(0, "k", "two"));
    CHECK(write_on(0, "k", "not this") == -ESTALE);
    CHECK(stored("t:k", "three") && stats_of(0).stale == 1);
    CHECK(reads(0, "k", "three"));
    CHECK(write_on(0, "k", "four") == 0);
    CHECK(write_on(1, "k", "five") == 0); /* which was told, and reads it anew before */
    CHECK(reads(0, "k", "four"));
    advance(NST_SEC(1) + 1);
    CHECK(reads(0, "k", "five"));
    CHECK(lab.front[0].counts[STORE_CHECK_OWNED] == 1 && stats_of(0).stale == 2);

    /* what holds still is confirmed by a look at the token alone */
    unsigned owned = lab.front[0].counts[STORE_OWN];
    for (unsigned i = 0; i < 5; i++) {
        advance(NST_SEC(1) + 1);
        CHECK(reads(0, "k", "five"));
        CHECK(reads(0, "k", "five"));
    }
    CHECK(lab.front[0].counts[STORE_OWN] == owned && lab.front[0].counts[STORE_CHECK_OWNED] == 6);
    CHECK(lab.front[0].counts[STORE_GET] == 0);

    /* whoever holds an object that was lost meanwhile hears of it when it commits */
    CHECK(nst_state_claim(at[0], text("k"), &a, NST_NEVER) == 0);
    CHECK(write_on(1, "k", "six") == 0);
    set(a, "not this");
    CHECK(nst_state_commit(a, NST_NEVER) == -ESTALE);
    CHECK(nst_state_commit(a, NST_NEVER) == -ESTALE && nst_state_settle(a, NST_NEVER) == -ESTALE);
    CHECK(nst_state_forget(a, NST_NEVER) == -ESTALE && stored("t:k", "six"));
    nst_state_release(a);
    a = NULL;
    close_all();
}
static void test_move(void **state)
{
    run(move_body);
}

/* An owner that is stopped with a write on its way, for long, and wakes up. */
static void paused_body(void)
{
    NST_HELD struct nst_object *o = NULL;
    struct nst_future f;

    open_with(2, NULL);
    CHECK(write_on(0, "k", "one") == 0);
    CHECK(nst_state_claim(at[0], text("k"), &o, NST_NEVER) == 0);
    lab.front[0].keep_requests = lab.front[0].deaf = true;
    set(o, "old owner's");
    nst_state_commit_start(o, &f);
    pass_turns(2);
    advance(NST_SEC(10));
    CHECK(reads(1, "k", "one"));
    CHECK(write_on(1, "k", "new owner's") == 0);
    lab.front[0].keep_requests = false;
    front_let_go(&lab.front[0]);
    CHECK(nst_await(&f, NST_NEVER) == -ESTALE && stored("t:k", "new owner's"));
    CHECK(reads(0, "k", "new owner's"));

    /* it wakes with a request of the time before that is not a write: what is kept is confirmed before it is used */
    CHECK(write_on(0, "k", "two") == 0);
    CHECK(reads(1, "k", "two"));
    advance(NST_SEC(10));
    CHECK(reads(0, "k", "two"));
    CHECK(write_on(0, "k", "three") == 0);
    nst_state_release(o);
    o = NULL;
    close_all();
}
static void test_paused(void **state)
{
    run(paused_body);
}

/* ---- the connection breaks ---- */
static void cut_body(void)
{
    struct nst_object *o = NULL;
    struct nst_future f;

    open_with(2, NULL);
    CHECK(write_on(0, "other", "same") == 0);
    for (unsigned landing = 0; landing < 2; landing++) {
        CHECK(write_on(0, "k", "before") == 0);
        CHECK(nst_state_claim(at[0], text("k"), &o, NST_NEVER) == 0);
        lab.front[0].keep_requests = true;
        set(o, "after");
        nst_state_commit_start(o, &f);
        pass_turns(2);
        front_cut(&lab.front[0], landing);
        CHECK(nst_await(&f, NST_NEVER) == -ECONNRESET);
        CHECK(stored("t:k", landing ? "after" : "before"));
        nst_state_release(o);
        CHECK(nst_state_claim(at[0], text("k"), &o, NST_NEVER) == -ENOTCONN);
        nst_state_release(o);
        /* what was kept is not handed out either, though it is younger than `fresh` */
        CHECK(nst_state_kept(at[0], text("other")) == NULL);
        CHECK(nst_state_claim(at[0], text("other"), &o, NST_NEVER) == -ENOTCONN);
        nst_state_release(o);
        CHECK(nst_state_kept(at[0], text("other")) == NULL);
        front_mend(&lab.front[0]);
        unsigned owned = lab.front[0].counts[STORE_OWN];
        CHECK(reads(0, "other", "same") && lab.front[0].counts[STORE_OWN] == owned);
        CHECK(reads(0, "k", landing ? "after" : "before") && lab.front[0].counts[STORE_OWN] == owned + 1);
    }
    CHECK(stats_of(0).failed == 2 && stats_of(0).stale == 0);

    /* changed by another while it was away */
    front_cut(&lab.front[0], 0);
    CHECK(write_on(1, "other", "changed") == 0);
    front_mend(&lab.front[0]);
    CHECK(reads(0, "other", "changed"));
    close_all();
}
static void test_cut(void **state)
{
    run(cut_body);
}

/* ---- deadlines ---- */
static void late_body(void)
{
    struct nst_object *o = NULL, *twice = NULL;
    struct nst_future f;

    open_with(1, NULL);
    CHECK(write_on(0, "k", "one") == 0);
    CHECK(nst_state_claim(at[0], text("k"), &o, NST_NEVER) == 0);
    lab.front[0].keep_answers = true;
    set(o, "two");
    nst_state_commit_start(o, &f);
    nst_clock_idle(reactor, true);
    CHECK(nst_await(&f, nst_now() + NST_MS(200)) == -ETIMEDOUT);
    CHECK(stored("t:k", "two")); /* it had landed */
    set(o, "three");
    nst_state_commit_start(o, &f);
    front_let_go(&lab.front[0]);
    pass_turns(2);
    front_let_go(&lab.front[0]);
    CHECK(nst_await(&f, NST_NEVER) == 0 && stored("t:k", "three"));
    nst_state_release(o);

    /* of two that wait for a claim, one gives up */
    nst_state_claim_start(at[0], text("new"), &o, &f);
    CHECK(nst_state_claim(at[0], text("new"), &twice, nst_now() + NST_MS(1)) == -ETIMEDOUT);
    CHECK(twice == o);
    nst_state_release(twice);
    front_let_go(&lab.front[0]);
    CHECK(nst_await(&f, NST_NEVER) == 0 && !o->there);
    nst_state_release(o);
    nst_clock_idle(reactor, false);
    close_all();
}
static void test_late(void **state)
{
    run(late_body);
}

/* ---- bounds ---- */
static void bounds_body(void)
{
    struct nst_state_config config = { .name = "t:", .size = 8, .key_max = 4, .kept = 64 };
    struct nst_object *o[65], *more = NULL;
    char key[8];

    open_with(1, &config);
    for (unsigned i = 0; i < 64; i++) {
        snprintf(key, sizeof key, "%u", i);
        CHECK(nst_state_claim(at[0], text(key), &o[i], NST_NEVER) == 0);
    }
    CHECK(nst_state_claim(at[0], text("x"), &more, NST_NEVER) == -ENOSPC && more == NULL);
    CHECK(stats_of(0).refused == 1 && stats_of(0).kept == 64);
    nst_state_release(o[20]);
    nst_state_release(o[10]);
    for (unsigned i = 0; i < 3; i++) { /* one that is held is not given up, however long ago it was used */
        int rc = nst_state_claim(at[0], text("x"), &more, NST_NEVER);
        if (rc == 0)
            break;
        CHECK(rc == -ENOSPC);
    }
    CHECK(more != NULL && stats_of(0).evicted == 1 && stats_of(0).kept == 64);
    nst_state_release(more);
    set(o[0], "12345678");
    CHECK(nst_state_commit(o[0], NST_NEVER) == 0);
    o[0]->len = 9;
    CHECK(nst_state_commit(o[0], NST_NEVER) == -EMSGSIZE);
    o[0]->len = 8;
    CHECK(nst_state_commit(o[0], NST_NEVER) == 0 && stored("t:0", "12345678"));
    for (unsigned i = 0; i < 64; i++) {
        if (i != 10 && i != 20)
            nst_state_release(o[i]);
    }

    /* the least used goes first */
    struct nst_state_stats before = stats_of(0);
    for (unsigned i = 0; i < 64; i++) {
        advance(NST_MS(100));
        snprintf(key, sizeof key, "n%u", i);
        CHECK(nst_state_claim(at[0], text(key), &more, NST_NEVER) == 0);
        nst_state_release(more);
        CHECK(nst_state_claim(at[0], text("0"), &more, NST_NEVER) == 0 && is(more, "12345678"));
        nst_state_release(more);
    }
    CHECK(stats_of(0).evicted == before.evicted + 64);
    CHECK(nst_state_claim(at[0], text("12345"), &more, NST_NEVER) == -EMSGSIZE && more == NULL);

    /* a value that is longer than ours */
    CHECK(nst_put(lab.store, text("t:big"), text("123456789"), 0, NST_NEVER) == 0);
    CHECK(nst_state_claim(at[0], text("big"), &more, NST_NEVER) == -EMSGSIZE && more != NULL);
    nst_state_release(more);

    struct nst_state *s;
    CHECK(nst_state_open(&s, &lab.front[0].base, &config) == -EEXIST);
    config.size = 0;
    CHECK(nst_state_open(&s, &lab.front[0].base, &config) == -EINVAL);
    config.size = 8;
    config.key_max = NST_KEY_MAX - 1;
    CHECK(nst_state_open(&s, &lab.front[0].base, &config) == -EINVAL);
    close_all();
}
static void test_bounds(void **state)
{
    run(bounds_body);
}

/* ---- removing, and life ---- */
static void life_body(void)
{
    struct nst_state_config config = { .name = "t:", .size = 64, .ttl = NST_SEC(100), .fresh = NST_SEC(1) };
    struct nst_object *o = NULL;

    open_with(2, &config);
    CHECK(write_on(0, "k", "one") == 0);
    CHECK(nst_state_claim(at[0], text("k"), &o, NST_NEVER) == 0);
    CHECK(nst_state_forget(o, NST_NEVER) == 0 && stored("t:k", NULL));
    CHECK(!o->there && nst_state_forget(o, NST_NEVER) == -ESTALE);
    nst_state_release(o);
    CHECK(reads(0, "k", NULL));
    CHECK(write_on(0, "k", "two") == 0 && stored("t:k", "two"));

    /* a change that is said after it in the same turn is the newest word */
    struct nst_future f;
    CHECK(nst_state_claim(at[0], text("k"), &o, NST_NEVER) == 0);
    nst_state_forget_start(o, &f);
    set(o, "three");
    CHECK(nst_state_commit(o, NST_NEVER) == 0 && nst_await(&f, NST_NEVER) == 0 && stored("t:k", "three"));

    /* in use, it is written again when a quarter of its life has gone, and lives */
    unsigned writes = lab.front[0].counts[STORE_PUT_OWNED];
    for (unsigned i = 0; i < 100; i++) {
        advance(NST_SEC(10));
        nst_state_use(o);
        pass_turns(2);
        CHECK(stored("t:k", "three"));
    }
    unsigned renewals = lab.front[0].counts[STORE_PUT_OWNED] - writes;
    CHECK(renewals >= 30 && renewals <= 40);
    /* a longer life, then a shorter one */
    o->ttl = NST_SEC(1000);
    nst_state_use(o);
    pass_turns(2);
    advance(NST_SEC(900));
    CHECK(stored("t:k", "three"));
    o->ttl = NST_SEC(10);
    nst_state_use(o);
    pass_turns(2);
    advance(NST_SEC(11));
    CHECK(stored("t:k", NULL));
    nst_state_use(o); /* gone: another would have to claim it now, and so do we */
    pass_turns(2);
    CHECK(stored("t:k", NULL) && nst_state_commit(o, NST_NEVER) == -ESTALE);
    nst_state_release(o);
    CHECK(reads(0, "k", NULL));
    close_all();
}
static void test_life(void **state)
{
    run(life_body);
}

/* ---- what is only read ---- */
static void read_mostly_body(void)
{
    struct nst_state_config config = { .name = "r:", .kind = NST_STATE_READ, .size = 64 };
    struct nst_object *o = NULL;

    open_with(2, &config);
    struct front *f = &lab.front[0];
    for (unsigned i = 0; i < 3; i++) {
        CHECK(nst_state_read(at[0], text("k"), &o, NST_NEVER) == 0 && !o->there);
        nst_state_release(o);
    }
    CHECK(f->counts[STORE_GET] == 1); /* that there is none is kept, too */
    CHECK(nst_put(&lab.front[1].base, text("r:k"), text("one"), 0, NST_NEVER) == 0);
    CHECK(nst_state_read(at[0], text("k"), &o, NST_NEVER) == 0 && is(o, "one"));
    nst_state_release(o);
    CHECK(f->counts[STORE_GET] == 2);
    f->deaf = true;
    CHECK(nst_put(&lab.front[1].base, text("r:k"), text("two"), 0, NST_NEVER) == 0);
    CHECK(nst_state_read(at[0], text("k"), &o, NST_NEVER) == 0 && is(o, "one"));
    set(o, "three");
    CHECK(nst_state_commit(o, NST_NEVER) == -ESTALE);
    nst_state_release(o);
    advance(NST_SEC(1) + 1);
    CHECK(nst_state_read(at[0], text("k"), &o, NST_NEVER) == 0 && is(o, "two"));
    nst_state_release(o);
    CHECK(nst_state_claim(at[0], text("k"), &o, NST_NEVER) == -EINVAL && o == NULL);
    CHECK(f->counts[STORE_GET] == 3 && f->counts[STORE_OWN] == 0 && f->counts[STORE_PUT_OWNED] == 0);

    /* told of a change while the value was on its way, it asks again before the next use */
    f->deaf = false;
    CHECK(nst_put(&lab.front[1].base, text("r:k"), text("x"), 0, NST_NEVER) == 0);
    f->keep_answers = true;
    struct nst_future future;
    nst_state_read_start(at[0], text("k"), &o, &future);
    CHECK(nst_put(&lab.front[1].base, text("r:k"), text("y"), 0, NST_NEVER) == 0);
    f->keep_answers = false;
    front_let_go(f);
    CHECK(nst_await(&future, NST_NEVER) == 0);
    nst_state_release(o);
    CHECK(nst_state_read(at[0], text("k"), &o, NST_NEVER) == 0 && is(o, "y"));
    nst_state_release(o);
    close_all();
}
static void test_read_mostly(void **state)
{
    run(read_mostly_body);
}

/* Several find none, and make one: at most one of them is the one that made it. */
static int create_rc[3];
static void create_task(void *arg)
{
    NST_HELD struct nst_object *o = NULL;
    intptr_t n = (intptr_t)arg;

    CHECK(nst_state_read(at[n % 2], text("k"), &o, NST_NEVER) == 0);
    if (o->there) {
        create_rc[n] = -EEXIST;
    } else {
        set(o, n == 0 ? "zero" : n == 1 ? "one" : "two");
        create_rc[n] = nst_state_create(o, NST_NEVER);
    }
    ended++;
}

static void create_body(void)
{
    struct nst_state_config config = {
        .name = "r:", .kind = NST_STATE_READ, .size = 64, .local = 8, .ttl = NST_SEC(100)
    };
    struct nst_scope *scope;
    struct nst_object *o = NULL;

    open_with(2, &config);
    CHECK(nst_scope_open(&scope, NULL) == 0);
    lab.front[0].keep_answers = lab.front[1].keep_answers = true;
    ended = 0;
    for (intptr_t i = 0; i < 3; i++)
        CHECK(nst_spawn(scope, create_task, (void *)i) == 0);
    while (ended < 3) {
        pass_turns(3);
        front_let_go(&lab.front[1]);
        front_let_go(&lab.front[0]);
    }
    const char *const values[] = { "zero", "one", "two" };
    int winner = -1;
    for (int i = 0; i < 3; i++) {
        CHECK(create_rc[i] == -EEXIST || (create_rc[i] == 0 && winner < 0));
        winner = create_rc[i] == 0 ? i : winner;
    }
    CHECK(winner >= 0 && stored("r:k", values[winner]));
    lab.front[0].keep_answers = lab.front[1].keep_answers = false;
    for (unsigned i = 0; i < 2; i++) {
        CHECK(nst_state_read(at[i], text("k"), &o, NST_NEVER) == 0 && is(o, values[winner]));
        CHECK(nst_state_create(o, NST_NEVER) == -EEXIST && is(o, values[winner]));
        nst_state_release(o);
    }

    /* its life is extended, by whoever uses it; what is left of it when it was read is not known, so at the first use */
    nst_state_release((o = nst_state_kept(at[!(winner % 2)], text("k"))));
    CHECK(nst_state_due(o));
    nst_state_release((o = nst_state_kept(at[winner % 2], text("k"))));
    CHECK(!nst_state_due(o)); /* but the one that made it */
    CHECK(nst_state_read(at[0], text("k"), &o, NST_NEVER) == 0);
    *(uint64_t *)o->local = 7;
    unsigned touched = lab.front[0].counts[STORE_TOUCH];
    for (unsigned i = 0; i < 100; i++) {
        nst_state_use(o);
        pass_turns(2);
        advance(NST_SEC(10));
        CHECK(stored("r:k", values[winner]));
    }
    touched = lab.front[0].counts[STORE_TOUCH] - touched;
    CHECK(touched >= 30 && touched <= 40 && lab.front[0].counts[STORE_PUT_NEW] == 1 &&
          lab.front[1].counts[STORE_PUT_NEW] == 1);
    CHECK(*(uint64_t *)o->local == 7);
    CHECK(nst_state_forget(o, NST_NEVER) == 0 && stored("r:k", NULL) && !o->there);
    nst_state_release(o);
    CHECK(nst_state_read(at[1], text("k"), &o, NST_NEVER) == 0 && !o->there);
    nst_state_release(o);

    /* without reading it first; what is there already is found by creating it, and then by reading */
    o = nst_state_hold(at[0], text("new"));
    CHECK(o != NULL && !o->there);
    set(o, "a");
    CHECK(nst_state_create(o, NST_NEVER) == 0 && stored("r:new", "a"));
    nst_state_release(o);
    o = nst_state_hold(at[0], text("new"));
    CHECK(o->there); /* it is fresh */
    nst_state_release(o);
    o = nst_state_hold(at[1], text("new"));
    CHECK(!o->there);
    set(o, "b");
    CHECK(nst_state_create(o, NST_NEVER) == -EEXIST && stored("r:new", "a"));
    nst_state_release(o);
    CHECK(nst_state_read(at[1], text("new"), &o, NST_NEVER) == 0 && is(o, "a"));
    nst_state_forget_start(o, NULL);
    pass_turns(2);
    CHECK(stored("r:new", NULL));
    nst_state_release(o);

    /* others that read while it is being made wait for that */
    struct nst_future made, read;
    struct nst_object *again = NULL;
    lab.front[0].keep_answers = true;
    o = nst_state_hold(at[0], text("slow"));
    set(o, "a");
    nst_state_create_start(o, &made);
    nst_state_read_start(at[0], text("slow"), &again, &read);
    pass_turns(2);
    CHECK(again == o && read.state == NST_FUTURE_OPEN);
    front_let_go(&lab.front[0]);
    CHECK(nst_await(&made, NST_NEVER) == 0 && nst_await(&read, NST_NEVER) == 0 && is(o, "a"));
    CHECK(nst_scope_close(scope) == 0);
    nst_state_release(o);
    nst_state_release(again);
    close_all();
}
static void test_create(void **state)
{
    run(create_body);
}

/* A value in use is asked for before it stops being fresh: nobody waits for that. */
static void ahead_body(void)
{
    struct nst_object *o = NULL;

    open_with(1, NULL);
    CHECK(write_on(0, "k", "one") == 0);
    CHECK(nst_state_claim(at[0], text("k"), &o, NST_NEVER) == 0);
    nst_state_release(o);
    for (unsigned i = 0; i < 100; i++) {
        advance(NST_MS(100));
        o = nst_state_kept(at[0], text("k"));
        CHECK(o != NULL);
        nst_state_release(o);
        CHECK(nst_state_claim(at[0], text("k"), &o, nst_now()) == 0); /* cannot wait */
        nst_state_release(o);
        pass_turns(1);
    }
    unsigned asked = lab.front[0].counts[STORE_CHECK_OWNED];
    CHECK(asked >= 14 && asked <= 20);
    close_all();
}
static void test_ahead(void **state)
{
    run(ahead_body);
}

/* ---- the end ---- */
static void end_body(void)
{
    struct nst_object *o = NULL, *n = NULL;
    struct nst_future commit, claim;

    open_with(1, NULL);
    CHECK(nst_state_claim(at[0], text("k"), &o, NST_NEVER) == 0);
    lab.front[0].keep_requests = true;
    set(o, "one");
    nst_state_commit_start(o, &commit);
    nst_state_claim_start(at[0], text("n"), &n, &claim);
    pass_turns(2);
    close_all();
    CHECK(nst_await(&commit, NST_NEVER) == -ECANCELED && nst_await(&claim, NST_NEVER) == -ECANCELED);
}
static void test_end(void **state)
{
    run(end_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept),        cmocka_unit_test(test_merge),  cmocka_unit_test(test_settle),
        cmocka_unit_test(test_move),        cmocka_unit_test(test_paused), cmocka_unit_test(test_cut),
        cmocka_unit_test(test_late),        cmocka_unit_test(test_bounds), cmocka_unit_test(test_life),
        cmocka_unit_test(test_read_mostly), cmocka_unit_test(test_create), cmocka_unit_test(test_ahead),
        cmocka_unit_test(test_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
