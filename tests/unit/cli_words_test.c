/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/words.h"
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void distance(void **state)
{
    static const struct {
        const char *a, *b;
        unsigned d;
    } cases[] = {
        { "", "", 0 },
        { "", "abc", 3 },
        { "abc", "", 3 },
        { "abc", "abc", 0 },
        { "abc", "abd", 1 },
        { "abc", "acb", 1 },
        { "abc", "xabc", 1 },
        { "abc", "ab", 1 },
        { "kitten", "sitting", 3 },
        { "store", "strore", 1 },
        { "budget", "bugdet", 1 },
        { "run", "check", 5 },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(word_distance(cases[i].a, cases[i].b), cases[i].d);
        assert_int_equal(word_distance(cases[i].b, cases[i].a), cases[i].d);
    }
}

static void long_words(void **state)
{
    char a[200], b[200];

    memset(a, 'a', sizeof a);
    memset(b, 'b', sizeof b);
    a[63] = b[63] = '\0';
    assert_int_equal(word_distance(a, b), 63);
    a[63] = 'a';
    a[199] = '\0';
    assert_true(word_distance(a, b) == UINT_MAX);
    assert_true(word_distance(b, a) == UINT_MAX);
}

static const char *nearest(const char *wanted)
{
    static const char *const known[] = { "ports", "store", "stream-memory", "speed", "fail" };
    struct word_search search = { .wanted = wanted };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        word_offer(&search, known[i]);
    return word_nearest(&search);
}

static void near_enough(void **state)
{
    assert_string_equal(nearest("prots"), "ports");
    assert_string_equal(nearest("port"), "ports");
    assert_string_equal(nearest("sped"), "speed");
    assert_string_equal(nearest("streammemory"), "stream-memory");
    assert_null(nearest("x"));
    assert_null(nearest("colour"));
    assert_null(nearest(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distance),
        cmocka_unit_test(long_words),
        cmocka_unit_test(near_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
