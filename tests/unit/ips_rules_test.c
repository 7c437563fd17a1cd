/* SPDX-License-Identifier: Apache-2.0 */
#include "ips/rules.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char *errors;
static size_t errors_len;

static int parse(struct ips_rules **out, const char *text, size_t len)
{
    free(errors);
    errors = NULL;
    FILE *file = open_memstream(&errors, &errors_len);
    int rc = ips_rules_parse(out, "r", text, len, file);
    fclose(file);
    return rc;
}

static struct ips_rules *good(const char *text)
{
    struct ips_rules *rules = NULL;
    int rc = parse(&rules, text, strlen(text));
    if (rc < 0)
        fail_msg("%s", errors);
    return rules;
}

static int free_errors(void **state)
{
    free(errors);
    errors = NULL;
    return 0;
}

static void every_field(void **state)
{
    struct ips_rules *rules =
        good("# a comment\n"
             "\n"
             "id=7 action=drop content=\"a\\x00b\\\"\\\\\\n\\r\\t\\0#\" nocase to=server msg=\"m # n\"\r\n"
             "\t action=reset  id=4294967295 msg=\"x\" pcre=/a\\/b#/ism to=client # rest\n"
             "id=1 action=alert content=\"c\" msg=\"gr\xc3\xbc\xc3\x9f\"");
    assert_int_equal(rules->n, 3);
    struct ips_rule *r = rules->rule;
    assert_int_equal(r[0].id, 7);
    assert_int_equal(r[0].action, IPS_DROP);
    assert_int_equal(r[0].to, IPS_TO_SERVER);
    assert_true(r[0].literal && r[0].nocase);
    assert_int_equal(r[0].pattern_len, 10);
    assert_memory_equal(r[0].pattern, "a\0b\"\\\n\r\t\0#", 10);
    assert_string_equal(r[0].msg, "m # n");
    assert_int_equal(r[0].line, 3);
    assert_int_equal(r[0].column, 26);
    assert_int_equal(r[1].id, 4294967295u);
    assert_int_equal(r[1].action, IPS_RESET);
    assert_int_equal(r[1].to, IPS_TO_CLIENT);
    assert_true(!r[1].literal && r[1].nocase && r[1].dotall && r[1].multiline);
    assert_string_equal(r[1].pattern, "a\\/b#");
    assert_int_equal(r[2].action, IPS_ALERT);
    assert_int_equal(r[2].to, IPS_TO_ANY);
    assert_string_equal(r[2].msg, "gr\xc3\xbc\xc3\x9f");
    ips_rules_free(rules);
}

/* One bad line, where the error is, and how its words begin. */
static const struct {
    const char *line;
    unsigned column;
    const char *words;
} bad[] = {
    { "hello", 1, "expected id=, action=" },
    { "id=0 action=drop content=\"a\" msg=\"m\"", 4, "expected a number from 1" },
    { "id= action=drop content=\"a\" msg=\"m\"", 4, "expected a number from 1" },
    { "id=4294967296 action=drop content=\"a\" msg=\"m\"", 4, "expected a number from 1" },
    { "id=99999999999999999999999 action=drop content=\"a\" msg=\"m\"", 4, "expected a number from 1" },
    { "id=1x action=drop content=\"a\" msg=\"m\"", 4, "expected a number from 1" },
    { "id=-1 action=drop content=\"a\" msg=\"m\"", 4, "expected a number from 1" },
    { "id=1 action=block content=\"a\" msg=\"m\"", 13, "expected alert, drop or reset" },
    { "id=1 action=dro content=\"a\" msg=\"m\"", 13, "expected alert, drop or reset" },
    { "id=1 action= content=\"a\" msg=\"m\"", 13, "expected alert, drop or reset" },
    { "id=1 action=drop to=everyone content=\"a\" msg=\"m\"", 21, "expected server, client or any" },
    { "id=1 action=drop content=a msg=\"m\"", 26, "expected a text in double quotes" },
    { "id=1 action=drop content=", 26, "expected a text in double quotes" },
    { "id=1 action=drop content=\"\" msg=\"m\"", 26, "expected at least one character of content" },
    { "id=1 action=drop content=\"abc", 26, "expected a closing double quote" },
    { "id=1 action=drop content=\"a\\", 28, "expected one of the escapes" },
    { "id=1 action=drop content=\"a\\q\" msg=\"m\"", 28, "expected one of the escapes" },
    { "id=1 action=drop content=\"a\\x1\" msg=\"m\"", 28, "expected one of the escapes" },
    { "id=1 action=drop content=\"a\\xg0\" msg=\"m\"", 28, "expected one of the escapes" },
    { "id=1 action=drop content=\"a\001\" msg=\"m\"", 28, "expected an escape such as" },
    { "id=1 action=drop content=\"a\"msg=\"m\"", 29, "expected a blank or the end" },
    { "id=1 action=drop content=\"a\" content=\"b\" msg=\"m\"", 30, "expected one content= or pcre= only" },
    { "id=1 action=drop content=\"a\" pcre=/b/ msg=\"m\"", 30, "expected one content= or pcre= only" },
    { "id=1 id=2 action=drop content=\"a\" msg=\"m\"", 6, "expected this only once" },
    { "id=1 action=drop content=\"a\" nocasex msg=\"m\"", 36, "expected a blank or the end" },
    { "id=1 action=drop content=\"a\" msg=\"m", 34, "expected a closing double quote" },
    { "id=1 action=drop content=\"a\" msg=\"m\\0\"", 34, "expected a message without zero bytes" },
    { "id=1 action=drop pcre=a msg=\"m\"", 23, "expected a pattern as /PATTERN/FLAGS" },
    { "id=1 action=drop pcre=/a", 23, "expected a closing /" },
    { "id=1 action=drop pcre=/a\\/ msg=\"m\"", 23, "expected a closing /" },
    { "id=1 action=drop pcre=/a\\", 23, "expected a closing /" },
    { "id=1 action=drop pcre=// msg=\"m\"", 23, "expected at least one character of pattern" },
    { "id=1 action=drop pcre=/a/x msg=\"m\"", 26, "expected a blank, or each of the flags" },
    { "id=1 action=drop pcre=/a/ii msg=\"m\"", 27, "expected a blank, or each of the flags" },
    { "  id=1 action=drop pcre=/a/ nocase msg=\"m\"", 3, "expected the flag i" },
    { "  action=drop content=\"a\" msg=\"m\"", 3, "expected an id=" },
    { "  id=1 content=\"a\" msg=\"m\"", 3, "expected an action=" },
    { "  id=1 action=drop msg=\"m\"", 3, "expected a content= or pcre=" },
    { "  id=1 action=drop content=\"a\"", 3, "expected a msg=" },
    { "id=1 action=drop msg=\"\xc3\xbc\xc3\xbc\" what", 27, "expected id=, action=" },
};

static void every_error(void **state)
{
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[256], expected[256];
        struct ips_rules *rules = NULL;
        int len = snprintf(text, sizeof text, "# first\r\n%s\r\n", bad[i].line);
        assert_int_equal(parse(&rules, text, (size_t)len), -EINVAL);
        assert_null(rules);
        snprintf(expected, sizeof expected, "r:2:%u: %s", bad[i].column, bad[i].words);
        if (strncmp(errors, expected, strlen(expected)) != 0)
            fail_msg("of the line %s\nexpected %s\ngot %s", bad[i].line, expected, errors);
        /* The caret stands below the place: the line and the caret are indented alike. */
        char *shown = strchr(errors, '\n') + 1, *caret = strchr(shown, '\n') + 1;
        unsigned column = 0;
        assert_memory_equal(shown, "    ", 4);
        while (caret[column] == ' ' || caret[column] == '\t')
            column++;
        assert_int_equal(caret[column], '^');
        assert_int_equal(column - 4 + 1, bad[i].column);
        assert_string_equal(caret + column, "^\n");
    }
}

static void same_id_twice(void **state)
{
    const char *text = "id=5 action=drop content=\"a\" msg=\"m\"\n"
                       "id=6 action=drop content=\"a\" msg=\"m\"\n"
                       "action=drop id=5 content=\"b\" msg=\"m\"\n";
    struct ips_rules *rules = NULL;
    assert_int_equal(parse(&rules, text, strlen(text)), -EINVAL);
    assert_string_equal(errors, "r:3:16: expected a number that no rule above has\n"
                                "    action=drop id=5 content=\"b\" msg=\"m\"\n"
                                "                   ^\n");
}

static unsigned lines_with(const char *text, const char *word)
{
    unsigned n = 0;
    for (const char *p = text; (p = strstr(p, word)) != NULL; p++)
        n++;
    return n;
}

static void all_errors_up_to_a_limit(void **state)
{
    char text[4096] = "";
    struct ips_rules *rules = NULL;
    for (int i = 0; i < IPS_ERRORS_MAX; i++)
        strcat(text, "id=x\n");
    assert_int_equal(parse(&rules, text, strlen(text)), -EINVAL);
    assert_int_equal(lines_with(errors, "expected a number"), IPS_ERRORS_MAX);
    assert_null(strstr(errors, "more errors"));
    strcat(text, "id=x\nid=x\n");
    assert_int_equal(parse(&rules, text, strlen(text)), -EINVAL);
    assert_int_equal(lines_with(errors, "expected a number"), IPS_ERRORS_MAX);
    assert_non_null(strstr(errors, "r: and 2 more errors\n"));
}

static void no_rules(void **state)
{
    struct ips_rules *rules = NULL;
    assert_int_equal(parse(&rules, "", 0), -EINVAL);
    assert_string_equal(errors, "r: expected at least one rule\n");
    assert_int_equal(parse(&rules, "# nothing\n\n  \t\r\n", 15), -EINVAL);
    assert_string_equal(errors, "r: expected at least one rule\n");
}

static void line_length(void **state)
{
    struct ips_rules *rules = NULL;
    char text[IPS_LINE_MAX + 3];
    int n = snprintf(text, sizeof text, "id=1 action=drop content=\"a\" msg=\"m\" #");
    memset(text + n, 'z', sizeof text - (size_t)n);
    assert_int_equal(parse(&rules, text, IPS_LINE_MAX), 0);
    ips_rules_free(rules);
    rules = NULL;
    assert_int_equal(parse(&rules, text, IPS_LINE_MAX + 1), -EINVAL);
    assert_memory_equal(errors, "r:1:4097: expected at most 4096 bytes", 37);
    assert_true(errors_len < 400); /* of a long line only a part is shown */
}

static void rule_count(void **state)
{
    char *text = NULL;
    size_t len;
    FILE *file = open_memstream(&text, &len);
    for (int i = 1; i <= IPS_RULES_MAX; i++)
        fprintf(file, "id=%d action=drop content=\"a\" msg=\"m\"\n", i);
    fflush(file);
    struct ips_rules *rules = NULL;
    assert_int_equal(parse(&rules, text, len), 0);
    assert_int_equal(rules->n, IPS_RULES_MAX);
    ips_rules_free(rules);
    fprintf(file, "id=70000 action=drop content=\"a\" msg=\"m\"\n");
    fclose(file);
    assert_int_equal(parse(&rules, text, len), -EINVAL);
    assert_memory_equal(errors, "r:65537:1: expected at most 65536 rules", 39);
    free(text);
}

static void every_truncation(void **state)
{
    const char *text = "id=7 action=drop content=\"a\\x00b\\\"\" nocase to=server msg=\"m \xc3\xbc\"\n"
                       "id=8 action=alert pcre=/a\\/b/ism msg=\"x\"\n";
    for (size_t n = 0; n <= strlen(text); n++) {
        /* On the heap without a NUL behind it, so that a sanitizer sees a read past the end. */
        char *cut = malloc(n ? n : 1);
        memcpy(cut, text, n);
        struct ips_rules *rules = NULL;
        int rc = parse(&rules, cut, n);
        assert_true(rc == 0 || rc == -EINVAL);
        assert_true((rc == 0) == (rules != NULL));
        ips_rules_free(rules);
        free(cut);
    }
}

static void later_errors_look_the_same(void **state)
{
    struct ips_rules *rules =
        good("\nid=1 action=drop msg=\"\xc3\xbc\" content=\"a\"\r\nid=2 action=drop content=\"b\" msg=\"m\"");
    char *text = NULL;
    size_t len;
    FILE *file = open_memstream(&text, &len);
    ips_rules_error(rules, &rules->rule[0], file, "no");
    ips_rules_error(rules, &rules->rule[1], file, "no");
    fclose(file);
    assert_string_equal(text, "r:2:34: no\n"
                              "    id=1 action=drop msg=\"\xc3\xbc\" content=\"a\"\n"
                              "                                     ^\n"
                              "r:3:26: no\n"
                              "    id=2 action=drop content=\"b\" msg=\"m\"\n"
                              "                             ^\n");
    free(text);
    ips_rules_free(rules);
}

static void from_a_file(void **state)
{
    char path[] = "/tmp/ips_rules_XXXXXX", *text = NULL;
    size_t len;
    int fd = mkstemp(path);
    FILE *file = fdopen(fd, "w");
    for (int i = 1; i <= 1000; i++)
        fprintf(file, "id=%d action=drop content=\"a\" msg=\"m\"\n", i);
    fclose(file);
    FILE *to = open_memstream(&text, &len);
    struct ips_rules *rules = NULL;
    assert_int_equal(ips_rules_read(&rules, path, to), 0);
    assert_int_equal(rules->n, 1000);
    ips_rules_free(rules);
    unlink(path);
    assert_int_equal(ips_rules_read(&rules, path, to), -ENOENT);
    assert_int_equal(ips_rules_read(&rules, "/tmp", to), -EIO);
    fclose(to);
    assert_non_null(strstr(text, path));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field),
        cmocka_unit_test(every_error),
        cmocka_unit_test(same_id_twice),
        cmocka_unit_test(all_errors_up_to_a_limit),
        cmocka_unit_test(no_rules),
        cmocka_unit_test(line_length),
        cmocka_unit_test(rule_count),
        cmocka_unit_test(every_truncation),
        cmocka_unit_test(later_errors_look_the_same),
        cmocka_unit_test(from_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, free_errors);
}
