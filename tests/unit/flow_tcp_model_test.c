/* SPDX-License-Identifier: Apache-2.0 */
/* nst_tcp against the reference model: NST_SEQUENCES random sequences (a million, where that is not set; fewer under
 * sanitizers). When one fails, it is cut down and printed, with the seed that brings it first: NST_SEED=... */
#include "flow_tcp_model.h"
#include <stdlib.h>

enum {
    PER_SETTING = 2000,
#if defined(__SANITIZE_ADDRESS__)
    SEQUENCES = 100000,
#else
    SEQUENCES = 1000000,
#endif
};

struct world { /* one setting and its sequences */
    uint64_t seed;
    struct model_setting set;
};

static void draw(struct model_sequence *q, unsigned i, const void *arg)
{
    const struct world *w = arg;
    model_draw(q, &w->set, model_mix(w->seed + model_mix(i)));
}

static void fail_with(const struct world *w, const struct model_verdict *v)
{
    static struct model_sequence q;
    struct model_verdict alone;

    fprintf(stderr, "NST_SEED=%llu fails, sequence %u:\n%s", (unsigned long long)w->seed, v->first, v->text);
    for (unsigned i = 0; i < v->n; i++) {
        draw(&q, v->first + i, w);
        struct model_sequence whole = q;
        if (!model_shrink(&w->set, &q, w->seed, &alone))
            continue;
        fprintf(stderr, "sequence %u fails alone; cut down from %u segments to %u it is\n", v->first + i, whole.n, q.n);
        model_print(stderr, &w->set, &q);
        fprintf(stderr, "%s", alone.text);
        return;
    }
    fprintf(stderr, "none of %u sequences fails alone\n", v->n);
}

static unsigned number_of_sequences(void)
{
    const char *given = getenv("NST_SEQUENCES");
    return given != NULL ? (unsigned)strtoul(given, NULL, 0) : SEQUENCES;
}

static void hostile_sequences(void **state)
{
    unsigned n = number_of_sequences();
    uint64_t seed = lab_seed();

    print_message("seed %llu, %u sequences\n", (unsigned long long)seed, n);
    for (unsigned done = 0; done < n; done += PER_SETTING, seed++) {
        struct world w = { .seed = seed };
        struct model_verdict v;
        model_draw_setting(&w.set, seed);
        model_run(&w.set, n - done < PER_SETTING ? n - done : PER_SETTING, draw, &w, seed, &v);
        if (v.n != 0)
            fail_with(&w, &v);
        assert_int_equal(v.n, 0);
    }
}

/* That the generator reaches what it is for. */
static void everything_was_seen(void **state)
{
    const struct model_counts *c = &model_seen.counts;
    unsigned n = number_of_sequences();

    print_message("%llu segments, %llu events; %llu conflicts, %llu gaps, %llu retransmissions, %llu unverified, "
                  "%llu bytes unkept, %llu lost\n",
                  (unsigned long long)model_seen.segments, (unsigned long long)model_seen.calls,
                  (unsigned long long)c->conflicts, (unsigned long long)c->gaps, (unsigned long long)c->retransmits,
                  (unsigned long long)c->unverified, (unsigned long long)c->unkept_bytes,
                  (unsigned long long)c->lost_bytes);
    if (n < 50000)
        skip();
    for (unsigned i = 0; i < 7; i++)
        assert_true(model_seen.event[i] > n / 100);
    assert_true(c->conflicts > n / 10);
    assert_true(c->dropped[NST_BY_STREAM_LIMIT] > n / 100);
    assert_true(c->dropped[NST_BY_CONFLICT] > n / 100);
    assert_true(c->dropped[NST_BY_MIDSTREAM] > n / 100);
    assert_true(c->injected > n / 1000);
    assert_true(c->lost_bytes > n / 1000);
    assert_true(model_seen.closed[NST_CLOSED_BY_FIN] > n / 1000);
    assert_true(model_seen.closed[NST_CLOSED_BY_RST] > n / 1000);
    assert_true(model_seen.closed[NST_CLOSED_BY_VERDICT] > n / 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_sequences),
        cmocka_unit_test(everything_was_seen),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
