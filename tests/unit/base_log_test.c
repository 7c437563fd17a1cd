/* SPDX-License-Identifier: Apache-2.0 */
#include <netstar/base.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static char last[1100];
static enum nst_log_level last_level;
static int lines;

static void keep(void *arg, enum nst_log_level level, const char *text)
{
    lines++;
    last_level = level;
    strcpy(last, text);
    assert_string_equal(arg, "arg");
}

static void levels_and_sink(void **state)
{
    char arg[] = "arg", big[3000];

    nst_log_to(keep, arg);
    nst_log(NST_LOG_WARNING, "%d of %s", 7, "nine");
    assert_string_equal(last, "7 of nine");
    assert_int_equal(last_level, NST_LOG_WARNING);
    nst_log(NST_LOG_DEBUG, "hidden");
    assert_int_equal(lines, 1);
    nst_log_level(NST_LOG_DEBUG);
    nst_log(NST_LOG_DEBUG, "shown");
    assert_int_equal(lines, 2);
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = '\0';
    nst_log(NST_LOG_ERROR, "%s", big);
    assert_true(strlen(last) < sizeof last);
    nst_log_level(NST_LOG_INFO);
    nst_log_to(NULL, NULL);
}

static void limit(void **state)
{
    struct nst_log_limit l = { 0 };

    for (int i = 0; i < 5; i++)
        assert_true(nst_log_allowed(&l, 5));
    l.refill = nst_clock();
    assert_false(nst_log_allowed(&l, 5));
    assert_int_equal(l.skipped, 1);
    /* Two seconds on: two more. */
    l.refill -= NST_SEC(2);
    assert_true(nst_log_allowed(&l, 5));
    assert_true(nst_log_allowed(&l, 5));
    /* After an hour: never more than the burst. */
    l.refill -= NST_SEC(3600);
    for (int i = 0; i < 5; i++)
        assert_true(nst_log_allowed(&l, 5));
    l.refill = nst_clock();
    assert_false(nst_log_allowed(&l, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(levels_and_sink), cmocka_unit_test(limit) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
