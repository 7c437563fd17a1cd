/* SPDX-License-Identifier: Apache-2.0 */
#include "ips/scan.h"
#include "ips/state.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct ips_rules *rules_of(const char *text)
{
    struct ips_rules *rules = NULL;
    assert_int_equal(ips_rules_parse(&rules, "r", text, strlen(text), stderr), 0);
    return rules;
}

static struct ips_scanner *scanner_of(const struct ips_rules *rules)
{
    struct ips_scanner *sc = NULL;
    assert_int_equal(ips_scanner_open(&sc, rules, stderr), 0);
    return sc;
}

/* A stream whose state is put away after every packet. */
struct stream {
    uint8_t state[IPS_AUTOMATON_MAX];
    size_t len;
};

static void packet(struct ips_scanner *sc, struct stream *st, const char *p, size_t len, struct ips_matches *found)
{
    assert_int_equal(ips_scan_begin(sc, st->state, st->len), 0);
    assert_int_equal(ips_scan_bytes(sc, p, len, found), 0);
    int rc = ips_scan_end(sc, st->state, sizeof st->state);
    assert_true(rc > 0);
    st->len = (size_t)rc;
}

static const char two_rules[] = "id=1 action=drop content=\"evil|stuff\" msg=\"m\"\n"
                                "id=2 action=alert pcre=/user=[0-9]+;/i msg=\"m\"\n";

static void split_at_every_byte(void **state)
{
    struct ips_rules *rules = rules_of(two_rules);
    struct ips_scanner *sc = scanner_of(rules);
    const char *text = "GET /?evil|stuff=USER=1234;x";
    size_t n = strlen(text);
    for (size_t i = 0; i <= n; i++)
        for (size_t k = i; k <= n; k++) {
            struct stream st = { .len = 0 };
            struct ips_matches found = { .to = IPS_TO_SERVER };
            packet(sc, &st, text, i, &found);
            packet(sc, &st, text + i, k - i, &found);
            packet(sc, &st, text + k, n - k, &found);
            assert_int_equal(found.n, 2);
            assert_int_equal(found.at[0].rule->id, 1);
            assert_int_equal(found.at[0].end, 16);
            assert_int_equal(found.at[1].rule->id, 2);
            assert_int_equal(found.at[1].end, 27);
        }
    ips_scanner_close(sc);
    ips_rules_free(rules);
}

static void streams_do_not_mix(void **state)
{
    struct ips_rules *rules = rules_of(two_rules);
    struct ips_scanner *sc = scanner_of(rules);
    struct stream a = { .len = 0 }, b = { .len = 0 };
    struct ips_matches found = { .to = IPS_TO_SERVER };
    packet(sc, &a, "evil|", 5, &found);
    packet(sc, &b, "stuff", 5, &found);
    packet(sc, &b, "evil|", 5, &found);
    assert_int_equal(found.n, 0);
    packet(sc, &a, "stuff", 5, &found);
    assert_int_equal(found.n, 1);
    assert_int_equal(found.at[0].end, 10);
    found.n = 0;
    packet(sc, &b, "stuff", 5, &found);
    assert_int_equal(found.n, 1);
    assert_int_equal(found.at[0].end, 15);
    ips_scanner_close(sc);
    ips_rules_free(rules);
}

static void content_is_taken_literally(void **state)
{
    struct ips_rules *rules = rules_of("id=1 action=drop content=\"a.*[\\x00\\n]$^\" msg=\"m\"\n"
                                       "id=2 action=drop content=\"LoW\" nocase msg=\"m\"\n"
                                       "id=3 action=drop content=\"LoW\" msg=\"m\"\n");
    struct ips_scanner *sc = scanner_of(rules);
    struct stream st = { .len = 0 };
    struct ips_matches found = { .to = IPS_TO_CLIENT };
    packet(sc, &st, "axx\n$ a.*[\0\n]$", 14, &found);
    assert_int_equal(found.n, 0);
    packet(sc, &st, "^", 1, &found);
    assert_int_equal(found.n, 1);
    assert_int_equal(found.at[0].rule->id, 1);
    packet(sc, &st, "lOw", 3, &found);
    assert_int_equal(found.n, 2);
    assert_int_equal(found.at[1].rule->id, 2);
    ips_scanner_close(sc);
    ips_rules_free(rules);
}

static void flags_of_pcre(void **state)
{
    struct ips_rules *rules = rules_of("id=1 action=drop pcre=/a.b/ msg=\"m\"\n"
                                       "id=2 action=drop pcre=/a.b/s msg=\"m\"\n"
                                       "id=3 action=drop pcre=/^c/ msg=\"m\"\n"
                                       "id=4 action=drop pcre=/^c/m msg=\"m\"\n"
                                       "id=5 action=drop pcre=/D/i msg=\"m\"\n"
                                       "id=6 action=drop pcre=/\\/e/ msg=\"m\"\n");
    struct ips_scanner *sc = scanner_of(rules);
    struct stream st = { .len = 0 };
    struct ips_matches found = { .to = IPS_TO_CLIENT };
    packet(sc, &st, "a\nb\nc d /e", 10, &found);
    unsigned seen = 0;
    for (unsigned i = 0; i < found.n; i++)
        seen |= 1u << found.at[i].rule->id;
    assert_int_equal(seen, 1u << 2 | 1u << 4 | 1u << 5 | 1u << 6);
    ips_scanner_close(sc);
    ips_rules_free(rules);
}

static void rules_for_one_end(void **state)
{
    struct ips_rules *rules = rules_of("id=1 action=drop content=\"x\" to=server msg=\"m\"\n"
                                       "id=2 action=drop content=\"x\" to=client msg=\"m\"\n"
                                       "id=3 action=drop content=\"x\" to=any msg=\"m\"\n");
    struct ips_scanner *sc = scanner_of(rules);
    for (int to = IPS_TO_SERVER; to <= IPS_TO_CLIENT; to++) {
        struct stream st = { .len = 0 };
        struct ips_matches found = { .to = (enum ips_to)to };
        packet(sc, &st, "xx", 2, &found);
        assert_int_equal(found.n, 2);
        assert_int_equal(found.at[0].rule->id + found.at[1].rule->id, to == IPS_TO_SERVER ? 1 + 3 : 2 + 3);
        assert_int_equal(found.at[0].end, 1); /* counted once, at its first end */
    }
    ips_scanner_close(sc);
    ips_rules_free(rules);
}

static void a_blocking_match_is_never_skipped(void **state)
{
    char text[8192] = "";
    for (int i = 1; i <= IPS_MATCHES_MAX + 8; i++)
        sprintf(text + strlen(text), "id=%d action=alert content=\"a%02d\" msg=\"m\"\n", i, i);
    strcat(text, "id=100 action=reset content=\"zz\" msg=\"m\"\n");
    struct ips_rules *rules = rules_of(text);
    struct ips_scanner *sc = scanner_of(rules);
    char bytes[1024] = "";
    for (int i = 1; i <= IPS_MATCHES_MAX + 8; i++)
        sprintf(bytes + strlen(bytes), "a%02d", i);
    strcat(bytes, "zz");
    struct stream st = { .len = 0 };
    struct ips_matches found = { .to = IPS_TO_SERVER };
    packet(sc, &st, bytes, strlen(bytes), &found);
    assert_int_equal(found.n, IPS_MATCHES_MAX);
    assert_int_equal(found.skipped, 9);
    unsigned resets = 0;
    for (unsigned i = 0; i < found.n; i++)
        resets += found.at[i].rule->action == IPS_RESET;
    assert_int_equal(resets, 1);
    ips_scanner_close(sc);
    ips_rules_free(rules);
}

static void fingerprints(void **state)
{
    struct ips_rules *rules = rules_of(two_rules), *other = rules_of("id=1 action=drop content=\"a\" msg=\"m\"\n");
    struct ips_scanner *a = scanner_of(rules), *b = scanner_of(rules), *c = scanner_of(other);
    assert_true(ips_scanner_fingerprint(a) == ips_scanner_fingerprint(b));
    assert_true(ips_scanner_fingerprint(a) != ips_scanner_fingerprint(c));
    ips_scanner_close(a);
    ips_scanner_close(b);
    ips_scanner_close(c);
    ips_rules_free(rules);
    ips_rules_free(other);
}

/* Two reactors, one automaton: either takes up what the other has put away. */
static void scanners_of_one_automaton(void **state)
{
    struct ips_rules *rules = rules_of(two_rules);
    struct ips_scanner *first = scanner_of(rules), *again = NULL;
    struct stream st = { .len = 0 };
    struct ips_matches found = { .to = IPS_TO_SERVER };
    assert_int_equal(ips_scanner_again(&again, first), 0);
    assert_true(ips_scanner_fingerprint(again) == ips_scanner_fingerprint(first));
    packet(first, &st, "evil", 4, &found);
    packet(again, &st, "|stu", 4, &found);
    packet(first, &st, "ff", 2, &found);
    assert_int_equal(found.n, 1);
    assert_int_equal(found.at[0].end, 10);
    ips_scanner_close(again);
    ips_scanner_close(first);
    ips_rules_free(rules);
}

static void unusable_patterns(void **state)
{
    static const struct {
        const char *rule, *begin;
    } bad[] = {
        { "id=2 action=drop pcre=/a(/ msg=\"m\"", "r:2:23: cannot use this pattern: " },
        { "id=2 action=drop pcre=/(a)\\1/ msg=\"m\"", "r:2:23: cannot use this pattern: " },
        { "id=2 action=drop pcre=/a*/ msg=\"m\"",
          "r:2:23: cannot use this pattern: it matches where there is nothing" },
        { "id=2 action=drop pcre=/a\\z/ msg=\"m\"", "r:2:23: cannot use this pattern: it matches only at the end" },
        { "id=2 action=drop pcre=/a.{20000}b/s msg=\"m\"", "r: the state of one stream would take " },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[256], *errors = NULL;
        size_t len;
        snprintf(text, sizeof text, "id=1 action=drop content=\"a\" msg=\"m\"\n%s\n", bad[i].rule);
        struct ips_rules *rules = rules_of(text);
        struct ips_scanner *sc = NULL;
        FILE *file = open_memstream(&errors, &len);
        assert_int_equal(ips_scanner_open(&sc, rules, file), -EINVAL);
        fclose(file);
        assert_null(sc);
        if (strncmp(errors, bad[i].begin, strlen(bad[i].begin)) != 0)
            fail_msg("expected %s\ngot %s", bad[i].begin, errors);
        free(errors);
        ips_rules_free(rules);
    }
}

static void all_unusable_patterns_are_told(void **state)
{
    struct ips_rules *rules = rules_of("id=1 action=drop pcre=/a(/ msg=\"m\"\nid=2 action=drop pcre=/b*/ msg=\"m\"\n");
    struct ips_scanner *sc = NULL;
    char *errors = NULL;
    size_t len;
    FILE *file = open_memstream(&errors, &len);
    assert_int_equal(ips_scanner_open(&sc, rules, file), -EINVAL);
    fclose(file);
    assert_non_null(strstr(errors, "r:1:23: "));
    assert_non_null(strstr(errors, "r:2:23: "));
    free(errors);
    ips_rules_free(rules);
}

static void a_state_that_is_none(void **state)
{
    struct ips_rules *rules = rules_of(two_rules);
    struct ips_scanner *sc = scanner_of(rules);
    struct stream st = { .len = 0 };
    struct ips_matches found = { .to = IPS_TO_SERVER };
    packet(sc, &st, "evil", 4, &found);
    assert_int_equal(ips_scan_begin(sc, st.state, 1), -EPROTO);
    assert_int_equal(ips_scan_begin(sc, st.state, st.len), 0);
    assert_int_equal(ips_scan_end(sc, st.state, 3), -ENOSPC);
    ips_scanner_close(sc);
    ips_rules_free(rules);
}

/* A thousand contents of 6 to 24 characters, in bytes that look like text and break off inside of contents. */
static void a_state_is_small(void **state)
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz/.=|%";
    char *text = NULL, content[1000][25];
    size_t len, sum = 0, most = 0;
    FILE *file = open_memstream(&text, &len);
    srand(7);
    for (int i = 0; i < 1000; i++) {
        int n = 6 + rand() % 19;
        for (int k = 0; k < n; k++)
            content[i][k] = alphabet[rand() % 31];
        content[i][n] = '\0';
        fprintf(file, "id=%d action=alert content=\"%s\" msg=\"m\"\n", i + 1, content[i]);
    }
    fclose(file);
    struct ips_rules *rules = rules_of(text);
    struct ips_scanner *sc = scanner_of(rules);
    struct ips_scan_sizes sizes;
    ips_scan_sizes(sc, &sizes);
    struct stream st = { .len = 0 };
    enum { PACKETS = 2000 };
    for (int i = 0; i < PACKETS; i++) {
        struct ips_matches found = { .to = IPS_TO_SERVER };
        char bytes[1024];
        size_t n = 100 + (size_t)rand() % 900;
        for (size_t k = 0; k < n; k++)
            bytes[k] = alphabet[rand() % 31];
        const char *c = content[rand() % 1000];
        size_t part = (size_t)rand() % strlen(c);
        memcpy(bytes + n - part, c, part);
        packet(sc, &st, bytes, n, &found);
        sum += st.len;
        most = st.len > most ? st.len : most;
    }
    print_message("# 1000 contents: open %zu bytes; compressed: fresh %zu, mean %zu, largest %zu\n", sizes.open,
                  sizes.fresh, sum / PACKETS, most);
    assert_true(sizes.open <= 256);
    assert_true(most <= 128);
    ips_scanner_close(sc);
    ips_rules_free(rules);
    free(text);
}

static void the_example_file(void **state)
{
    struct ips_rules *rules = NULL;
    assert_int_equal(ips_rules_read(&rules, IPS_EXAMPLE, stderr), 0);
    struct ips_scanner *sc = scanner_of(rules);
    struct ips_scan_sizes sizes;
    ips_scan_sizes(sc, &sizes);
    struct stream st = { .len = 0 };
    struct ips_matches found = { .to = IPS_TO_SERVER };
    packet(sc, &st, "GET /?q=1+UNION/**/ALL+SELECT&x=..%2f..%2f../", 45, &found);
    assert_int_equal(found.n, 2);
    print_message("# rules.example: open %zu bytes; compressed: fresh %zu, after a match %zu\n", sizes.open,
                  sizes.fresh, st.len);
    ips_scanner_close(sc);
    ips_rules_free(rules);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_at_every_byte),
        cmocka_unit_test(streams_do_not_mix),
        cmocka_unit_test(content_is_taken_literally),
        cmocka_unit_test(flags_of_pcre),
        cmocka_unit_test(rules_for_one_end),
        cmocka_unit_test(a_blocking_match_is_never_skipped),
        cmocka_unit_test(fingerprints),
        cmocka_unit_test(scanners_of_one_automaton),
        cmocka_unit_test(unusable_patterns),
        cmocka_unit_test(all_unusable_patterns_are_told),
        cmocka_unit_test(a_state_that_is_none),
        cmocka_unit_test(a_state_is_small),
        cmocka_unit_test(the_example_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
