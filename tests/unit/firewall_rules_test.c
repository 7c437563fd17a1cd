/* SPDX-License-Identifier: Apache-2.0 */
/* The firewall's rule file: what it says, what is wrong with it and where, and which rule a connection meets. */
#include "firewall/rules.h"
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char *errors;
static size_t errors_len;

static int parse_as(struct fw_rules **out, const char *name, const char *text, size_t len)
{
    free(errors);
    errors = NULL;
    FILE *file = open_memstream(&errors, &errors_len);
    int rc = fw_rules_parse(out, name, text, len, file);
    fclose(file);
    return rc;
}

static struct fw_rules *good(const char *text)
{
    struct fw_rules *rules = NULL;
    if (parse_as(&rules, "r", text, strlen(text)) < 0)
        fail_msg("%s", errors);
    assert_int_equal(errors_len, 0);
    return rules;
}

static int free_errors(void **state)
{
    free(errors);
    errors = NULL;
    return 0;
}

/* "tcp 10.0.0.1 40000 10.1.0.1 80": what opens a connection; "out tcp ..." from behind the second port. */
static struct fw_opening opening(const char *text)
{
    struct fw_opening o = { 0 };
    char proto[16], a[64], b[64];
    unsigned from = 0, to = 0;

    if (strncmp(text, "out ", 4) == 0) {
        o.out = true;
        text += 4;
    }
    assert_true(sscanf(text, "%15s %63s %u %63s %u", proto, a, &from, b, &to) >= 3);
    o.proto = strcmp(proto, "tcp") == 0     ? 6
              : strcmp(proto, "udp") == 0   ? 17
              : strcmp(proto, "icmp") == 0  ? 1
              : strcmp(proto, "icmp6") == 0 ? 58
                                            : (uint8_t)atoi(proto);
    o.family = strchr(a, ':') ? 6 : 4;
    inet_pton(o.family == 4 ? AF_INET : AF_INET6, a, o.addr[0]);
    inet_pton(o.family == 4 ? AF_INET : AF_INET6, b, o.addr[1]);
    o.port[0] = (uint16_t)from;
    o.port[1] = (uint16_t)to;
    o.type = (uint8_t)from;
    return o;
}

static const char SAMPLE[] = "# the firewall of the office\n"
                             "set office { 10.1.0.0/16, 10.2.0.5-10.2.0.9\n"
                             "   fd00:1::/48 } # and no more\n"
                             "set all { @office, 192.168.0.0/16 }\n"
                             "\n"
                             "drop from 10.1.6.6 log                       # 0\n"
                             "allow out tcp from @office to any port 80,443,8000-8100\r\n"
                             "allow udp to { 8.8.8.8, 2001:4860::8888 } port dns\n"
                             "allow icmp type echo-request,13\n"
                             "allow icmp6 from fd00::/16 type 128\n"
                             "\treject in tcp to any port 23 log\n"
                             "allow gre,esp from 10.0.0.1 to 10.0.0.2\n"
                             "allow tcp from any port 20 to ! @all vlan 7\n"
                             "allow ip6 to fd00:9::1\n"
                             "allow tcp port ssh\n"
                             "default reject log\n"
                             "connections keep\n";

static void sample(void **state)
{
    static const struct {
        const char *opens;
        unsigned rule;
    } cases[] = {
        { "out tcp 10.1.6.6 1 9.9.9.9 80", 0 },    { "out tcp 10.1.6.7 1 9.9.9.9 80", 1 },
        { "out tcp 10.2.0.5 1 9.9.9.9 8050", 1 },  { "out tcp 10.2.0.9 1 9.9.9.9 443", 1 },
        { "out tcp 10.2.0.10 1 9.9.9.9 443", 10 }, { "tcp 10.1.6.7 1 9.9.9.9 80", 10 }, /* not out */
        { "out tcp 10.1.6.7 1 9.9.9.9 7999", 10 }, { "out tcp fd00:1:0:5::1 1 2001::1 8100", 1 },
        { "udp 1.1.1.1 5 8.8.8.8 53", 2 },         { "udp 1.1.1.1 5 8.8.8.9 53", 10 },
        { "udp fd00::1 5 2001:4860::8888 53", 2 }, { "tcp 1.1.1.1 5 8.8.8.8 53", 10 },
        { "icmp 1.1.1.1 8 2.2.2.2 0", 3 },         { "icmp 1.1.1.1 13 2.2.2.2 0", 3 },
        { "icmp 1.1.1.1 0 2.2.2.2 0", 10 },        { "icmp6 fd00::1 128 2001::1 0", 4 },
        { "icmp6 fd01::1 128 2001::1 0", 10 },     { "tcp 1.1.1.1 5 2.2.2.2 23", 5 },
        { "out tcp 1.1.1.1 5 2.2.2.2 23", 10 },    { "47 10.0.0.1 0 10.0.0.2 0", 6 },
        { "50 10.0.0.1 0 10.0.0.2 0", 6 },         { "51 10.0.0.1 0 10.0.0.2 0", 10 },
        { "47 10.0.0.2 0 10.0.0.1 0", 10 },        { "tcp fd00::1 1 fd00:9::1 1", 8 },
        { "99 fd00::1 0 fd00:9::1 0", 8 },         { "tcp 1.1.1.1 1 2.2.2.2 22", 9 },
        { "udp 1.1.1.1 1 2.2.2.2 22", 10 },
    };
    struct fw_rules *rules = good(SAMPLE);

    assert_int_equal(rules->n, 10);
    assert_int_equal(rules->sets, 2);
    assert_true(rules->keep);
    assert_int_equal(rules->rule[10].action, FW_REJECT);
    assert_true(rules->rule[10].log && rules->rule[0].log && rules->rule[5].log && !rules->rule[1].log);
    assert_int_equal(rules->rule[10].line, 16);
    assert_int_equal(rules->rule[1].line, 7);
    assert_string_equal(rules->rule[0].text, "drop from 10.1.6.6 log");
    assert_string_equal(rules->rule[1].text, "allow out tcp from @office to any port 80,443,8000-8100");
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fw_opening o = opening(cases[i].opens);
        if (fw_rules_judge(rules, &o) != cases[i].rule)
            fail_msg("%s meets rule %zu, not %u", cases[i].opens, fw_rules_judge(rules, &o), cases[i].rule);
    }
    struct fw_opening o = opening("tcp 10.9.0.1 20 7.7.7.7 9");
    assert_int_equal(fw_rules_judge(rules, &o), 10);
    o.vlan = 7;
    assert_int_equal(fw_rules_judge(rules, &o), 7);
    o = opening("tcp 10.9.0.1 20 192.168.3.4 9");
    o.vlan = 7;
    assert_int_equal(fw_rules_judge(rules, &o), 10);
    fw_rules_free(rules);
}

/* Nothing is allowed unless something says so, and then the default drops. */
static void empty_is_closed(void **state)
{
    static const char *const texts[] = { "", "\n", "# nothing\n", "set a { }\n", "allow from @a\n" };
    char text[64];

    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
        snprintf(text, sizeof text, "%s%s", i == 4 ? "set a { }\n" : "", texts[i]);
        struct fw_rules *rules = good(text);
        struct fw_opening o = opening("tcp 1.1.1.1 1 2.2.2.2 2");
        size_t n = fw_rules_judge(rules, &o);
        assert_int_equal(n, rules->n);
        assert_int_equal(rules->rule[n].action, FW_DROP);
        assert_false(rules->keep);
        fw_rules_free(rules);
    }
}

/* One bad line, where the error is, and how its words begin. */
static const struct {
    const char *line;
    unsigned column;
    const char *words;
} bad[] = {
    { "allwo tcp", 1, "expected allow, drop, reject, set, default, include or connections; did you mean allow?" },
    { "permit tcp", 1, "expected allow, drop, reject, set, default, include or connections" },
    { "\"allow\" tcp", 1, "expected allow" },
    { "{ allow tcp }", 1, "expected allow" },
    { "allow tpc", 7, "expected a protocol: a number from 0 to 255 or a name such as tcp; did you mean tcp?" },
    { "allow 256", 7, "expected a protocol" },
    { "allow -1", 7, "expected a protocol" },
    { "allow tcp,", 11, "expected a protocol" },
    { "allow tcp,,udp", 11, "expected a protocol" },
    { "allow ,tcp", 7, "expected a protocol" },
    { "allow tcp udp", 11, "expected from, to, port, type, vlan or log" },
    { "allow in out tcp", 10, "expected a protocol" },
    { "allow tcp fro 1.2.3.4", 11, "expected from, to, port, type, vlan or log; did you mean from?" },
    { "allow tcp from", 15, "expected any, an address" },
    { "allow tcp from to 1.2.3.4", 16, "expected an address" },
    { "allow tcp from 1.2.3", 16, "expected an address" },
    { "allow tcp from 1.2.3.4/33", 24, "expected a prefix length from 0 to 32" },
    { "allow tcp from 1.2.3.4/24", 16, "expected zeros behind" },
    { "allow tcp from fd00::/200", 23, "expected a prefix length from 0 to 128" },
    { "allow tcp from 9.0.0.0-1.0.0.0", 24, "expected an address of the same family" },
    { "allow tcp from any from any", 20, "expected this only once" },
    { "allow tcp to any from any", 18, "expected from before to" },
    { "allow tcp to any to any", 18, "expected this only once" },
    { "allow tcp from !", 17, "expected what is to be left out" },
    { "allow tcp from !!1.2.3.4", 17, "expected an address" },
    { "allow tcp from ! any", 18, "expected an address" },
    { "allow tcp from @nosuch", 17, "expected the name of a set that is defined above" },
    { "allow tcp from @offise", 17, "expected the name of a set that is defined above; did you mean office?" },
    { "allow tcp from @", 17, "expected the name of a set" },
    { "allow tcp from \"1.2.3.4\"", 16, "expected an address" },
    { "allow tcp from {1.2.3.4 5.6.7.8}", 25, "expected a comma or }" },
    { "allow tcp from {,1.2.3.4}", 17, "expected an address or }" },
    { "allow tcp from {1.2.3.4,,5.6.7.8}", 25, "expected an address or }" },
    { "allow tcp from {1.2.3.4} }", 26, "expected from, to, port, type, vlan or log" },
    { "allow tcp port", 15, "expected a port" },
    { "allow tcp port 65536", 16, "expected a port from 0 to 65535" },
    { "allow tcp port -1", 16, "expected a port from 0 to 65535" },
    { "allow tcp port 80-", 19, "expected a port that is not below the first" },
    { "allow tcp port 80-79", 19, "expected a port that is not below the first" },
    { "allow tcp port 80-99999", 19, "expected a port that is not below the first" },
    { "allow tcp port htpp", 16,
      "expected a port from 0 to 65535, a range such as 1024-2047, or a name such as https; did you mean" },
    { "allow tcp port 80,", 19, "expected a port" },
    { "allow tcp port 80 443", 19, "expected from, to, port, type, vlan or log" },
    { "allow tcp port 80 port 443", 19, "expected ports only once" },
    { "allow tcp to any port 80 port 443", 26, "expected ports only once" },
    { "allow port 80", 7, "expected ports only behind tcp or udp" },
    { "allow icmp port 80", 12, "expected ports only behind tcp or udp" },
    { "allow tcp,icmp to any port 80", 23, "expected ports only behind tcp or udp" },
    { "allow sctp port 80", 12, "expected ports only behind tcp or udp" },
    { "allow tcp type echo-request", 11, "expected type only behind icmp or icmp6" },
    { "allow type 8", 7, "expected type only behind icmp or icmp6" },
    { "allow icmp,icmp6 type 8", 18, "expected type only behind icmp or icmp6" },
    { "allow icmp type", 16, "expected a type of ICMP" },
    { "allow icmp type 256", 17, "expected a type of ICMP" },
    { "allow icmp type echo-requst", 17,
      "expected a type of ICMP: a number from 0 to 255 or a name such as echo-request; did you mean echo-request?" },
    { "allow icmp type too-big", 17, "expected a type of ICMP" },
    { "allow icmp type 8 type 0", 19, "expected this only once" },
    { "allow tcp vlan", 15, "expected a VLAN" },
    { "allow tcp vlan 4096", 16, "expected a VLAN" },
    { "allow tcp vlan 1 vlan 2", 18, "expected this only once" },
    { "allow tcp log log", 15, "expected this only once" },
    { "allow tcp log loudly", 15, "expected from, to, port, type, vlan or log" },
    { "allow ip4 to fd00::1", 1, "expected addresses of IPv4 in a rule for ip4" },
    { "allow ip6 from 1.2.3.4", 1, "expected addresses of IPv6 in a rule for ip6" },
    { "allow tcp from \"1.2.3.4", 16, "expected a closing double quote" },
    { "set", 4, "expected the name of the set" },
    { "set 1a { }", 5, "expected a name of letters" },
    { "set a.b { }", 5, "expected a name of letters" },
    { "set \"a\" { }", 5, "expected a name of letters" },
    { "set { }", 5, "expected a name of letters" },
    { "set office { 1.2.3.4 }", 5, "expected a name that no set above has" },
    { "set a", 6, "expected { or file \"NAME\"" },
    { "set a 1.2.3.4", 7, "expected { or file" },
    { "set a file", 11, "expected the name of a file in double quotes" },
    { "set a file x", 13, "expected the name of a file in double quotes" },
    { "set a file \"/nonexistent/x\"", 12, "/nonexistent/x: No such file" },
    { "set a { 1.2.3.4 } more", 19, "expected the end of the line" },
    { "set a { @b }", 10, "expected the name of a set" },
    { "set a { host }", 9, "expected an address" },
    { "default", 8, "expected drop, reject or allow" },
    { "default accept", 9, "expected drop, reject or allow" },
    { "default drpo", 9, "expected drop, reject or allow; did you mean drop?" },
    { "default drop loud", 14, "expected the end of the line" },
    { "include", 8, "expected the name of a file in double quotes" },
    { "include x", 10, "expected the name of a file in double quotes" },
    { "include \"\"", 11, "expected the name of a file in double quotes" },
    { "include \"/nonexistent/x\"", 9, "/nonexistent/x: No such file" },
    { "include \"x\" y", 13, "expected the end of the line" },
    { "connections", 12, "expected judge or keep" },
    { "connections kepe", 13, "expected judge or keep; did you mean keep?" },
    { "connections keep it", 18, "expected the end of the line" },
    { "\xc3\xbc\xc3\xbc allow", 1, "expected allow" },
    { "allow \xc3\xbc\xc3\xbc from x", 7, "expected a protocol" },
};

static void every_error(void **state)
{
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[512], expected[256];
        struct fw_rules *rules = NULL;
        int len = snprintf(text, sizeof text, "set office { 10.0.0.0/8 }\r\n%s\r\nallow tcp", bad[i].line);
        if (parse_as(&rules, "r", text, (size_t)len) != -EINVAL)
            fail_msg("accepted: %s", bad[i].line);
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
    }
}

static void all_in_one_go(void **state)
{
    struct fw_rules *rules = NULL;
    char *text = NULL;
    size_t len;
    FILE *file = open_memstream(&text, &len);

    for (size_t i = 0; i < 30; i++)
        fprintf(file, "%s\n", bad[i].line);
    fclose(file);
    assert_int_equal(parse_as(&rules, "r", text, len), -EINVAL);
    for (unsigned line = 1; line <= NF_ERRORS_MAX; line++) {
        char place[32];
        snprintf(place, sizeof place, "r:%u:", line);
        assert_non_null(strstr(errors, place));
    }
    assert_non_null(strstr(errors, "r: and 10 more errors\n"));
    free(text);
    assert_int_equal(parse_as(&rules, "r", "set a {\n 1.2.3.4,\n bad,\n 1.2.3\n", 31), -EINVAL);
    assert_non_null(strstr(errors, "r:3:2: "));
    assert_non_null(strstr(errors, "r:4:2: "));
    assert_non_null(strstr(errors, "expected a } for the { in line 1"));
}

/* Every beginning of a good file, and every good file with a byte changed, is read or refused, and a refusal says why. */
static void cut_and_spoilt(void **state)
{
    static const char spoil[] = "\0\n\"{},!@#/-x9 \xff";
    size_t len = sizeof SAMPLE - 1;
    unsigned refused = 0;

    for (size_t cut = 0; cut <= len; cut++) {
        struct fw_rules *rules = NULL;
        char *copy = malloc(cut + 1); /* of the very length, so that a sanitizer sees what is read behind it */
        memcpy(copy, SAMPLE, cut);
        int rc = parse_as(&rules, "r", copy, cut);
        free(copy);
        assert_true(rc == 0 ? errors_len == 0 : rc == -EINVAL && strncmp(errors, "r:", 2) == 0);
        fw_rules_free(rules);
        refused += rc < 0;
    }
    for (size_t at = 0; at < len; at++) {
        for (size_t i = 0; i < sizeof spoil - 1; i++) {
            struct fw_rules *rules = NULL;
            char *copy = malloc(len);
            memcpy(copy, SAMPLE, len);
            copy[at] = spoil[i];
            int rc = parse_as(&rules, "r", copy, len);
            free(copy);
            assert_true(rc == 0 ? errors_len == 0 : rc == -EINVAL && strncmp(errors, "r:", 2) == 0);
            fw_rules_free(rules);
            refused += rc < 0;
        }
    }
    assert_true(refused > 1000);
}

static void put(const char *folder, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void files(void **state)
{
    char folder[] = "/tmp/fw-rules-XXXXXX", path[256], sub[256];
    struct fw_rules *rules = NULL, *again = NULL;
    struct fw_opening in = opening("tcp 10.0.7.1 1 2.2.2.2 2"), not_in = opening("tcp 10.0.9.1 1 2.2.2.2 2");

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/main", folder);
    snprintf(sub, sizeof sub, "%s/sub", folder);
    assert_int_equal(mkdir(sub, 0700), 0);
    put(folder, "main", "set list file \"sub/list\"\ninclude \"sub/more\"\nallow from @late\n");
    put(folder, "sub/list", "10.0.7.0/24  # a comment\n10.0.8.1, 10.0.8.2 10.0.8.3\n\nfd00::/8\n");
    put(folder, "sub/more", "set late file \"list\"\ndrop from 10.0.8.2\n");
    free(errors);
    FILE *out = open_memstream(&errors, &errors_len);
    assert_int_equal(fw_rules_read(&rules, path, out), 0);
    assert_int_equal(fw_rules_judge(rules, &in), 1);
    assert_int_equal(fw_rules_judge(rules, &not_in), 2);
    assert_int_equal(rules->addresses, 2 * 3 + 1);
    assert_non_null(strstr(rules->rule[0].file, "sub/more"));
    /* What a set is made of belongs to what the rules are. */
    put(folder, "sub/list", "10.0.7.0/24  # a comment\n10.0.8.1, 10.0.8.2 10.0.8.3\n\nfd00::/9\n");
    assert_int_equal(fw_rules_read(&again, path, out), 0);
    assert_true(rules->id != again->id);
    fw_rules_free(again);
    /* Errors name the file that they are in; files that include each other come to an end. */
    put(folder, "sub/list", "10.0.7.0/24\n10.0.8.256\n");
    put(folder, "sub/more", "include \"../main\"\nbad\n");
    again = NULL;
    assert_int_equal(fw_rules_read(&again, path, out), -EINVAL);
    fflush(out);
    assert_non_null(strstr(errors, "sub/list:2:1: expected an address"));
    assert_non_null(strstr(errors, "sub/more:2:1: expected allow"));
    assert_non_null(strstr(errors, "expected at most 8 files that include each other"));
    assert_int_equal(fw_rules_read(&again, "/nonexistent", out), -ENOENT);
    fclose(out);
    fw_rules_free(rules);
    for (const char *const *name = (const char *const[]){ "sub/list", "sub/more", "main", NULL }; *name; name++) {
        snprintf(path, sizeof path, "%s/%s", folder, *name);
        unlink(path);
    }
    rmdir(sub);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sample),        cmocka_unit_test(empty_is_closed), cmocka_unit_test(every_error),
        cmocka_unit_test(all_in_one_go), cmocka_unit_test(cut_and_spoilt),  cmocka_unit_test(files),
    };
    return cmocka_run_group_tests(tests, NULL, free_errors);
}
