/* SPDX-License-Identifier: Apache-2.0 */
/* Maglev's table: even, stable when back ends come and go, the same as a table that is filled by the letter of the paper,
 * and bounded in load.
 */
#include "lb/maglev.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 200 };

static char names[MOST][24];
static struct lb_maglev one, two;

static void shares(struct lb_share *s, unsigned n, unsigned weight)
{
    for (unsigned i = 0; i < n; i++) {
        snprintf(names[i], sizeof names[i], "backend-%u", i);
        s[i] = (struct lb_share){ names[i], weight };
    }
}

/* Pseudocode 1 of the paper, with whole permutations in memory, and weights as so many turns in a row. */
static void naive(uint16_t *entry, const struct lb_share *s, unsigned n)
{
    uint32_t *permutation[MOST];
    unsigned next[MOST] = { 0 }, filled = 0;

    for (unsigned i = 0; i < n; i++) {
        uint64_t offset = lb_number(1, s[i].name, strlen(s[i].name)) % LB_PLACES;
        uint64_t skip = lb_number(2, s[i].name, strlen(s[i].name)) % (LB_PLACES - 1) + 1;
        permutation[i] = malloc(LB_PLACES * sizeof(uint32_t));
        for (uint64_t j = 0; j < LB_PLACES; j++)
            permutation[i][j] = (uint32_t)((offset + j * skip) % LB_PLACES);
    }
    memset(entry, 0xff, LB_PLACES * sizeof *entry);
    while (filled < LB_PLACES)
        for (unsigned i = 0; i < n; i++)
            for (unsigned turn = 0; turn < s[i].weight && filled < LB_PLACES; turn++) {
                while (entry[permutation[i][next[i]]] != UINT16_MAX)
                    next[i]++;
                entry[permutation[i][next[i]]] = (uint16_t)i;
                filled++;
            }
    for (unsigned i = 0; i < n; i++)
        free(permutation[i]);
}

static void by_the_letter(void **state)
{
    static uint16_t entry[LB_PLACES];
    struct lb_share s[MOST];
    for (unsigned n = 1; n <= 17; n += 4) {
        shares(s, n, 1);
        for (unsigned i = 0; i < n; i++)
            s[i].weight = i % 4 == 3 ? 0 : 1 + i % 3;
        assert_true(lb_maglev_fill(&one, s, n));
        naive(entry, s, n);
        assert_memory_equal(one.place, entry, sizeof entry);
    }
}

static void count(const struct lb_maglev *m, unsigned *of)
{
    memset(of, 0, MOST * sizeof *of);
    for (unsigned i = 0; i < LB_PLACES; i++) {
        assert_true(m->place[i] < MOST);
        of[m->place[i]]++;
    }
}

static void balance(void **state)
{
    struct lb_share s[MOST];
    unsigned of[MOST];
    for (unsigned n = 1; n <= MOST; n = n * 2 + 1) {
        shares(s, n, 1);
        assert_true(lb_maglev_fill(&one, s, n));
        count(&one, of);
        for (unsigned i = 0; i < n; i++) /* by taking turns, to one place */
            assert_true(of[i] == LB_PLACES / n || of[i] == LB_PLACES / n + 1);
    }
    shares(s, 3, 1);
    s[1].weight = 2;
    s[2].weight = 5;
    assert_true(lb_maglev_fill(&one, s, 3));
    count(&one, of);
    for (unsigned i = 0; i < 3; i++)
        assert_true(abs((int)of[i] - (int)(LB_PLACES * s[i].weight / 8)) <= 5);
}

/* When one goes, its places are divided, and of the others' few change: the paper finds some per cent. */
static void disruption(void **state)
{
    struct lb_share s[MOST];
    for (unsigned n = 5; n <= 80; n *= 4) {
        for (unsigned gone = 0; gone < n; gone += n / 4) {
            unsigned moved = 0, lost = 0;
            shares(s, n, 1);
            assert_true(lb_maglev_fill(&one, s, n));
            s[gone].weight = 0;
            assert_true(lb_maglev_fill(&two, s, n));
            for (unsigned i = 0; i < LB_PLACES; i++) {
                assert_true(two.place[i] != gone);
                if (one.place[i] == gone)
                    lost++;
                else
                    moved += one.place[i] != two.place[i];
            }
            assert_true(lost <= LB_PLACES / n + 1);
            assert_true(moved < LB_PLACES / 12);
        }
    }
}

static void nobody(void **state)
{
    struct lb_share s[MOST];
    shares(s, 4, 0);
    assert_false(lb_maglev_fill(&one, s, 4));
    assert_false(lb_maglev_fill(&one, s, 0));
}

static bool not_this(void *arg, unsigned index)
{
    return !((const bool *)arg)[index];
}

/* Who is passed over loses its own numbers only. */
static void passed_over(void **state)
{
    struct lb_share s[MOST];
    bool down[MOST] = { 0 };
    unsigned of[MOST] = { 0 };
    shares(s, 10, 1);
    assert_true(lb_maglev_fill(&one, s, 10));
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t number = lb_number(7, &i, sizeof i);
        down[3] = down[4] = false;
        int before = lb_maglev_pick(&one, number, not_this, down);
        down[3] = down[4] = true;
        int after = lb_maglev_pick(&one, number, not_this, down);
        assert_int_equal(before, one.place[number % LB_PLACES]);
        if (before != 3 && before != 4)
            assert_int_equal(after, before);
        of[after]++;
    }
    assert_int_equal(of[3] + of[4], 0);
    for (unsigned i = 0; i < 10; i++)
        if (i != 3 && i != 4)
            assert_true(of[i] > 11000 && of[i] < 14000);
    memset(down, 1, sizeof down);
    assert_int_equal(lb_maglev_pick(&one, 5, not_this, down), -1);
}

struct load {
    uint64_t of[MOST], all, weights;
    const struct lb_share *share;
};

static bool has_room(void *arg, unsigned index)
{
    const struct load *l = arg;
    return l->of[index] < lb_capacity(l->all + 1, l->share[index].weight, l->weights);
}

/* Numbers that somebody has chosen to fall on one: the bound holds after each, and somebody always has room. */
static void bounded(void **state)
{
    struct lb_share s[MOST];
    static struct load l;
    shares(s, 8, 1);
    s[2].weight = 3;
    l = (struct load){ .weights = 10, .share = s };
    assert_true(lb_maglev_fill(&one, s, 8));
    for (unsigned i = 0; i < 5000; i++) {
        int b = lb_maglev_pick(&one, 12345, has_room, &l);
        assert_true(b >= 0);
        l.of[b]++;
        l.all++;
        for (unsigned k = 0; k < 8; k++) /* a quarter above its share, rounded up */
            assert_true(l.of[k] * 40 < 5 * s[k].weight * l.all + 40);
        if (i % 7 == 0) {
            l.of[b]--;
            l.all--;
        }
    }
    assert_int_equal(lb_capacity(1, 1, 1000), 1);
    assert_int_equal(lb_capacity(800, 1, 8), 125);
    assert_int_equal(lb_capacity(UINT64_MAX / 2, 1, 1), (uint64_t)((__uint128_t)(UINT64_MAX / 2) * 5 / 4 + 1));
    assert_int_equal(lb_capacity(5, 1, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_the_letter), cmocka_unit_test(balance),     cmocka_unit_test(disruption),
        cmocka_unit_test(nobody),        cmocka_unit_test(passed_over), cmocka_unit_test(bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
