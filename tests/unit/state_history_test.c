/* SPDX-License-Identifier: Apache-2.0 */
/* Kept state under everything that can go wrong, at random: several instances with several clients each change the same
 * objects, while connections break with requests on their way, requests and answers are late, instances stand still and
 * wake as old owners, and some do not hear of the others' changes.
 *
 * An object holds a count for each client. A client adds 1 to its own, and knows afterwards that it did, that it did not,
 * or that it may have. Each time that it reads the object it checks that its count is what it must be: an acknowledged
 * addition is never undone, none is done twice, and none appears later than its uncertainty allows. Reads are checked
 * against the store's history: nothing may be older than `fresh`, but for the time that a request may take.
 *
 * NST_SEED=n repeats a run.
 */
#include "state_lab.h"
#include <time.h>

enum {
    INSTANCES = 3,
    CLIENTS_EACH = 4,
    CLIENTS = INSTANCES * CLIENTS_EACH,
    KEYS = 5,
    ONLY_FIRST = KEYS - 1,
    STEPS = 8000,
    HISTORY = 1 << 18
};
/* The last key is changed by the first instance only: the others would notice old values by their writes. */
#define FRESH NST_MS(1000)
#define KEPT_BACK_MAX NST_MS(600) /* a front keeps things back for no longer */

struct record {
    uint64_t count[CLIENTS];
};

static struct lab lab;
static struct nst_state *at[INSTANCES];
static bool ending;
static uint64_t seed;
static unsigned clients_left;

/* What the store had, and from when on. */
static struct {
    nst_time time;
    struct record value;
} history[KEYS][4096];
static unsigned n_history[KEYS];

static struct client {
    unsigned n, instance;
    uint64_t known[KEYS]; /* acknowledged additions */
    uint64_t maybe[KEYS]; /* of which it does not know, made since: at most one may have been done */
    uint64_t random, done, refused, unknown, reads;
} client[CLIENTS];

static uint64_t next_random(uint64_t *r)
{
    *r ^= *r << 13;
    *r ^= *r >> 7;
    *r ^= *r << 17;
    return *r;
}

#define HOLDS(x)                                                                                             \
    do {                                                                                                     \
        if (!(x)) {                                                                                          \
            fprintf(stderr, "%s:%d: %s; NST_SEED=%llu\n", __FILE__, __LINE__, #x, (unsigned long long)seed); \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

static struct nst_slice key_of(unsigned k, char name[4])
{
    snprintf(name, 4, "k%u", k);
    return (struct nst_slice){ name, strlen(name) };
}

/* Looks into the store, after every step of the world. */
static void note_history(void)
{
    for (unsigned k = 0; k < KEYS; k++) {
        char name[8];
        struct record now = { 0 };
        snprintf(name, sizeof name, "h:k%u", k);
        (void)!nst_get(lab.store, (struct nst_slice){ name, strlen(name) }, &now, sizeof now, NULL, NST_NEVER);
        unsigned n = n_history[k];
        if (n != 0 && memcmp(&history[k][(n - 1) % 4096].value, &now, sizeof now) == 0)
            continue;
        history[k][n % 4096].time = nst_now();
        history[k][n % 4096].value = now;
        n_history[k]++;
    }
}

/* No count of a value that is read at `time` may be below what the store had that long ago. */
static void check_age(unsigned k, const struct record *r, nst_time oldest)
{
    unsigned n = n_history[k];

    for (unsigned i = n; i-- > 0 && i + 4096 > n;) {
        if (history[k][i % 4096].time > oldest)
            continue;
        for (unsigned c = 0; c < CLIENTS; c++)
            HOLDS(r->count[c] >= history[k][i % 4096].value.count[c]);
        return;
    }
}

/* The client's own count, in a value that this instance may be sure of when `sure`. */
static void check_own(struct client *c, unsigned k, const struct record *r, bool sure)
{
    uint64_t count = r->count[c->n];

    HOLDS(count <= c->known[k] + c->maybe[k]);
    if (sure)
        HOLDS(count >= c->known[k]);
}

static void one_step(struct client *c)
{
    unsigned k = (unsigned)(next_random(&c->random) % KEYS), what = (unsigned)(next_random(&c->random) % 10);
    nst_time begun = nst_now(), until = begun + NST_MS(200 + next_random(&c->random) % 2000);
    char name[4];
    NST_HELD struct nst_object *o = NULL;
    int rc = nst_state_claim(at[c->instance], key_of(k, name), &o, until);

    if (rc < 0) {
        c->refused++;
        return;
    }
    struct record *r = o->value;
    if (!o->there) {
        memset(r, 0, sizeof *r);
        o->len = sizeof *r;
    }
    HOLDS(o->len == sizeof *r);
    check_age(k, r, begun - FRESH - KEPT_BACK_MAX);
    check_own(c, k, r, false);
    c->reads++;
    if (what < 5 || (k == ONLY_FIRST && c->instance != 0))
        return;
    if (what == 5) { /* what it reads may be ahead of the store, until this says that it is not */
        uint64_t count = r->count[c->n];
        if (nst_state_settle(o, until) == 0 && count > c->known[k])
            HOLDS(count <= c->known[k] + c->maybe[k]);
        return;
    }
    /* A write that succeeds shows what was there before: nobody else wrote between. */
    uint64_t before = r->count[c->n];
    r->count[c->n] = before + 1;
    rc = nst_state_commit(o, until);
    if (rc == 0) {
        HOLDS(before >= c->known[k] && before <= c->known[k] + c->maybe[k]);
        c->known[k] = before + 1;
        c->maybe[k] = 0;
        c->done++;
    } else if (rc == -ESTALE || rc == -ENOTCONN || rc == -EBUSY) {
        c->refused++; /* it was not done, and will not be */
    } else {
        if (before + 1 > c->known[k] + c->maybe[k])
            c->maybe[k] = before + 1 - c->known[k];
        c->unknown++;
    }
}

static void client_task(void *arg)
{
    struct client *c = arg;

    while (!ending) {
        one_step(c);
        (void)!nst_sleep(nst_now() + (nst_time)(next_random(&c->random) % NST_MS(20)));
    }
    clients_left--;
}

/* ---- the world ---- */
static nst_time kept_since[INSTANCES];

static void world_step(uint64_t *random)
{
    unsigned i = (unsigned)(next_random(random) % INSTANCES);
    struct front *f = &lab.front[i];
    nst_time ahead = (nst_time)(next_random(random) % NST_MS(10));

    switch (next_random(random) % 150) {
    case 0:
        f->keep_requests = !f->down;
        break;
    case 1:
        f->keep_answers = !f->down;
        break;
    case 2:
        if (!f->down)
            front_cut(f, (unsigned)(next_random(random) % 4));
        break;
    case 3:
        f->deaf = !f->deaf;
        break;
    case 4:
        ahead = (nst_time)(next_random(random) % NST_MS(400));
        break;
    default:
        if (f->down && next_random(random) % 8 == 0)
            front_mend(f);
        break;
    }
    if ((f->keep_requests || f->keep_answers) && next_random(random) % 6 == 0)
        front_cut(f, (unsigned)(next_random(random) % 4));
    for (unsigned n = 0; n < INSTANCES; n++) {
        f = &lab.front[n];
        bool keeps = f->keep_requests || f->keep_answers;
        if (!keeps)
            kept_since[n] = nst_now();
        else if (nst_now() + ahead - kept_since[n] > KEPT_BACK_MAX || next_random(random) % 24 == 0) {
            f->keep_requests = f->keep_answers = false;
            front_let_go(f);
        }
    }
    note_history();
    nst_clock_set(reactor, nst_now() + ahead);
}

static void history_body(void)
{
    struct nst_state_config config = { .name = "h:", .size = sizeof(struct record), .kept = 64, .fresh = FRESH };
    struct nst_scope *scope;
    uint64_t random = seed * 0x9e3779b97f4a7c15u + 1;

    nst_clock_set(reactor, NST_SEC(1000));
    lab_open(&lab, INSTANCES);
    for (unsigned i = 0; i < INSTANCES; i++)
        CHECK(nst_state_open(&at[i], &lab.front[i].base, &config) == 0);
    CHECK(nst_scope_open(&scope, NULL) == 0);
    for (unsigned n = 0; n < CLIENTS; n++) {
        client[n] = (struct client){ .n = n, .instance = n % INSTANCES, .random = next_random(&random) | 1 };
        CHECK(nst_spawn(scope, client_task, &client[n]) == 0);
        clients_left++;
    }
    for (unsigned step = 0; step < STEPS; step++) {
        world_step(&random);
        pass_turns(1 + (unsigned)(next_random(&random) % 3));
        note_history();
    }

    /* All is well again: everybody ends, and the store has what was acknowledged. */
    ending = true;
    for (unsigned i = 0; i < INSTANCES; i++) {
        if (lab.front[i].down)
            front_mend(&lab.front[i]);
        lab.front[i].keep_requests = lab.front[i].keep_answers = false;
        front_let_go(&lab.front[i]);
    }
    while (clients_left != 0) {
        nst_clock_set(reactor, nst_now() + NST_MS(5));
        pass_turns(1);
        for (unsigned i = 0; i < INSTANCES; i++)
            front_let_go(&lab.front[i]);
    }
    CHECK(nst_scope_close(scope) == 0);
    uint64_t done = 0, refused = 0, unknown = 0, reads = 0;
    for (unsigned n = 0; n < CLIENTS; n++) {
        struct client *c = &client[n];
        for (unsigned k = 0; k < KEYS; k++) {
            char name[8];
            struct record r = { 0 };
            snprintf(name, sizeof name, "h:k%u", k);
            (void)!nst_get(lab.store, (struct nst_slice){ name, strlen(name) }, &r, sizeof r, NULL, NST_NEVER);
            check_own(c, k, &r, true);
        }
        done += c->done;
        refused += c->refused;
        unknown += c->unknown;
        reads += c->reads;
    }
    struct nst_state_stats sum = { 0 };
    for (unsigned i = 0; i < INSTANCES; i++) {
        struct nst_state_stats s;
        nst_state_stats(at[i], &s);
        nst_state_stats_add(&sum, &s);
    }
    /* A run in which nothing happened shows nothing. */
    if (getenv("NST_VERBOSE") != NULL)
        fprintf(stderr,
                "done %llu refused %llu unknown %llu reads %llu; hits %llu stale %llu invalidated %llu writes %llu of "
                "%llu failed %llu\n",
                (unsigned long long)done, (unsigned long long)refused, (unsigned long long)unknown,
                (unsigned long long)reads, (unsigned long long)sum.hits, (unsigned long long)sum.stale,
                (unsigned long long)sum.invalidated, (unsigned long long)sum.writes, (unsigned long long)sum.commits,
                (unsigned long long)sum.failed);
    HOLDS(done > 500 && refused > 200 && unknown > 3 && reads > 1000);
    HOLDS(sum.stale > 20 && sum.invalidated > 20 && sum.hits > 100 && sum.writes < sum.commits && sum.failed > 3);
    for (unsigned i = 0; i < INSTANCES; i++)
        nst_state_close(at[i]);
    lab_close(&lab);
}

static void test_history(void **state)
{
    const char *given = getenv("NST_SEED");

    memset(n_history, 0, sizeof n_history);
    ending = false;
    clients_left = 0;
    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 1000003u;
    for (unsigned n = 0; n < (given != NULL ? 1 : 5); n++, seed++) {
        memset(n_history, 0, sizeof n_history);
        ending = false;
        run(history_body);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_history) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
