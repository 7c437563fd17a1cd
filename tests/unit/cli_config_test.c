/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration files: that they are equal to options, and the place and the words of each mistake. */
#include "cli/line.h"
#include "cli/modules.h"
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int open_never(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    return -ENOSYS;
}

static const struct nst_option own_options[] = {
    { "rules", "FILE", "what to look for", NST_OPTION_REQUIRED | NST_OPTION_RELOADS },
    { "backends", "A,B", "where to", NST_OPTION_RELOADS },
    { "alerts", "FILE", "where to write", false },
    { "loud", NULL, "a switch", false },
    { NULL, NULL, NULL, false },
};
static const struct nst_module own = {
    .abi = NST_MODULE_ABI, .name = "own", .options = own_options, .open = open_never
};
const struct nst_module *const builtin_modules[] = { &own, NULL };

static char path[] = "/tmp/netstar-config-XXXXXX";
static struct line l;
static struct complaint c;
static char said[8192];

static void write_file(const char *text, size_t len)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static void say(void *arg, unsigned line, unsigned column, const char *text)
{
    size_t len = strlen(said);

    snprintf(said + len, sizeof said - len, "%u:%u %s\n", line, column, text);
}

/* `run -c FILE` and further words. */
static int read_with(const char *text, const char *words)
{
    static char copy[1024];
    static char *argv[64];
    int argc = 0;

    line_free(&l);
    said[0] = '\0';
    memset(&c, 0, sizeof c);
    write_file(text, strlen(text));
    argv[argc++] = (char *)"run";
    strcpy(copy, words);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = word;
    argv[argc++] = (char *)"-c";
    argv[argc++] = path;
    argv[argc] = NULL;
    return line_read(&l, FOR_RUN, argc, argv, say, NULL, &c);
}

#define GOOD "nf: own\nports: [a, b]\noptions: {rules: r}\n"

static int setup(void **state)
{
    int fd = mkstemp(path);

    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
    line_free(&l);
    return unlink(path);
}

static void everything(void **state)
{
    assert_int_equal(read_with("nf: own\n"
                               "ports: [eth1, 'net_null0,size=64']\n"
                               "store: redis://localhost:6380/2\n"
                               "fail: open\n"
                               "budget: 50ms\n"
                               "hold: 8\n"
                               "overlap:\n  - linux\n  - 10.1.0.0/16=windows\n"
                               "normalise: true\n"
                               "checksums: trust\n"
                               "flows: 2M\n"
                               "packets: 32768\n"
                               "stream-memory: 64M\n"
                               "cores: 2\n"
                               "cpu: [3, 4]\n"
                               "no-huge: true\n"
                               "busy-poll: false\n"
                               "report: \"-\"\n"
                               "instance: edge-1\n"
                               "options:\n"
                               "  rules: a b.rules\n"
                               "  backends: [10.0.0.1:80, 10.0.0.2:80]\n"
                               "  loud: true\n",
                               ""),
                     0);
    const struct settings *s = &l.s;
    assert_string_equal(l.name, "own");
    assert_int_equal(s->n_ports, 2);
    assert_string_equal(s->ports[1], "net_null0,size=64");
    assert_string_equal(s->store, "redis://localhost:6380/2");
    assert_true(s->fail_open && s->no_huge && !s->busy_poll && s->normalise && s->trust_checksums);
    assert_true(s->budget == NST_MS(50) && s->hold == 8 && s->flows == 2000000 && s->packets == 32768);
    assert_int_equal(s->overlap, NST_OVERLAP_LINUX);
    assert_int_equal(s->n_overlap_nets, 1);
    assert_int_equal(s->n_cpus, 2);
    assert_int_equal(s->cpus[1], 4);
    assert_string_equal(s->report, "-");
    assert_string_equal(s->instance, "edge-1");
    assert_string_equal(settings_module_option(s, "rules"), "a b.rules");
    assert_string_equal(settings_module_option(s, "backends"), "10.0.0.1:80,10.0.0.2:80");
    assert_string_equal(settings_module_option(s, "loud"), "yes");
    assert_null(settings_module_option(s, "alerts"));
    assert_string_equal(said, "");
}

static void the_line_counts_more(void **state)
{
    assert_int_equal(read_with(GOOD "cores: 2\nbudget: 1s\n", "--cores 4 --rules other --ports c,d"), 0);
    assert_int_equal(l.s.cores, 4);
    assert_true(l.s.budget == NST_SEC(1));
    assert_string_equal(l.s.ports[0], "c");
    assert_string_equal(settings_module_option(&l.s, "rules"), "other");
    /* Captures in place of ports, and the other way round; several of the line all count. */
    assert_int_equal(read_with(GOOD, "-r x.pcap -r y.pcap"), 0);
    assert_int_equal(l.s.n_ports, 0);
    assert_int_equal(l.s.n_inputs, 2);
    assert_int_equal(read_with("nf: own\nread: [1.pcap, 2.pcap]\noptions: {rules: r}\n", ""), 0);
    assert_int_equal(l.s.n_inputs, 2);
    assert_string_equal(l.s.inputs[1], "2.pcap");
    assert_int_equal(read_with("nf: own\nread: 1.pcap\noptions: {rules: r}\n", "--ports a,b"), 0);
    assert_int_equal(l.s.n_inputs, 0);
    /* The name may be said twice, but not two names. */
    assert_int_equal(read_with(GOOD, "own"), 0);
    assert_int_equal(read_with(GOOD, "other"), -EINVAL);
    assert_non_null(strstr(c.text, " is for own, not for other"));
    assert_int_equal(read_with("ports: [a, b]\noptions: {rules: r}\n", "own"), 0);
    assert_int_equal(read_with(GOOD, "-r x.pcap --ports a,b"), -EINVAL);
    assert_string_equal(said, "0:0 --ports and -r exclude each other: live traffic, or captures\n");
}

static void mistakes(void **state)
{
    static const struct {
        const char *text, *said;
    } cases[] = {
        { GOOD "bugdet: 1s\n", "4:1 unknown key bugdet; did you mean budget?\n" },
        { GOOD "frobnicate: 1s\n", "4:1 unknown key frobnicate\n" },
        { GOOD "help: true\n", "4:1 unknown key help; did you mean hold?\n" },
        { GOOD "config: x\n", "4:1 unknown key config\n" },
        { GOOD "budget: fast\n",
          "4:9 budget fast: expected a time with its unit, such as 500us, 200ms or 1s, from 1us to 1h\n" },
        { GOOD "cores: [1]\n", "4:8 cores: expected one value: N\n" },
        { GOOD "cores:\n", "4:7 cores: expected one value: N\n" },
        { GOOD "cores: ~\n", "4:8 cores: expected one value: N\n" },
        { GOOD "cores: \"1\\0\"\n", "4:8 cores: expected one value: N\n" },
        { GOOD "cpu: []\n", "4:6 cpu: expected at least one value\n" },
        { GOOD "cpu: [1, [2]]\n", "4:10 cpu: expected one value in each place of the list\n" },
        { GOOD "normalise: yes\n", "4:12 normalise: expected true or false\n" },
        { GOOD "normalise: [true]\n", "4:12 normalise: expected true or false\n" },
        { GOOD "fail: open\nhold: 1\nfail: open\n", "6:1 fail is given twice, first in line 4\n" },
        { GOOD "rules: r\n", "4:1 rules is an option of own: its place is under options\n" },
        { "nf: own\noptions:\n  rules: r\n  cores: 1\n",
          "4:3 cores is an option of every network function: its place is not under options\n" },
        { "nf: own\noptions:\n  rulse: r\n", "3:3 unknown option rulse of own; did you mean rules?\n" },
        { "nf: own\noptions:\n  loud: 1\n", "3:9 loud: expected true or false\n" },
        { "nf: own\noptions: rules\n",
          "2:10 options: expected keys and values, the options of the network function\n" },
        { "nf: onw\nports: [a, b]\n", "1:5 nf: unknown network function onw; did you mean own?\n" },
        { "nf: [own]\n", "1:5 nf: expected one value: the name of a network function, or ./FILE.so\n" },
        { "ports: [a, b]\n", "0:0 expected nf: and the name of a network function\n" },
        { GOOD "[1]: x\n", "4:1 expected the name of an option\n" },
        { "- nf\n", "1:1 expected keys and values, such as  nf: ips\n" },
        { "", "0:0 expected keys and values, such as  nf: ips\n" },
        { "nf: own\n---\nnf: own\n", "2:1 expected one document only\n" },
        { "nf: own\nports: [a\n",
          "3:1 this is not YAML: did not find expected ',' or ']', while parsing a flow sequence\n" },
        { "nf: own\nstore: mem:\n", "2:11 this is not YAML: mapping values are not allowed in this context\n" },
        { "nf: \xff\n", "0:0 this is not YAML: invalid leading UTF-8 octet\n" },
        { "nf: own\nports: [a]\n", "0:0 --ports: 1 ports given; they come in pairs: A,B or A,B,C,D\n"
                                   "0:0 own needs --rules FILE\n" },
        { "a: &a [*a]\nnf: own\n", "1:1 unknown key a\n" },
        /* All in one go. */
        { "nf: own\nports: [a, b]\nhold: 0\nspeed: -1\noptions:\n  rules: r\n  lodu: true\nfial: open\n",
          "3:7 hold 0: expected a whole number from 1 to 65535\n"
          "4:8 speed -1: expected a factor from 0.001 to 1000000 (1 is as recorded), or max\n"
          "7:3 unknown option lodu of own; did you mean loud?\n"
          "8:1 unknown key fial; did you mean fail?\n" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (read_with(cases[i].text, "") != -EINVAL)
            fail_msg("taken: %s", cases[i].text);
        assert_string_equal(said, cases[i].said);
        assert_non_null(strstr(c.text, path));
    }
}

static void files_that_are_none(void **state)
{
    char *large = malloc(CONFIG_SIZE_MAX + 1);
    char *argv[] = { (char *)"run", (char *)"-c", (char *)"/nowhere/at/all", NULL };

    line_free(&l);
    said[0] = '\0';
    assert_int_equal(line_read(&l, FOR_RUN, 3, argv, say, NULL, &c), -ENOENT);
    assert_string_equal(said, "0:0 No such file or directory\n");
    line_free(&l);
    said[0] = '\0';
    argv[2] = (char *)"/";
    assert_int_equal(line_read(&l, FOR_RUN, 3, argv, say, NULL, &c), -EISDIR);
    line_free(&l);
    said[0] = '\0';
    memset(large, '#', CONFIG_SIZE_MAX + 1);
    write_file(large, CONFIG_SIZE_MAX + 1);
    argv[2] = path;
    assert_int_equal(line_read(&l, FOR_RUN, 3, argv, say, NULL, &c), -EFBIG);
    free(large);
}

static void where_the_path_stands(void **state)
{
    static char *cases[][6] = {
        { "run", "-c", "f", NULL },
        { "run", "own", "-c", "f", NULL },
        { "run", "-cf", NULL },
        { "run", "--config", "f", NULL },
        { "run", "--config=f", NULL },
        { "run", "-q", "--config", "f", NULL },
        { "run", "-c", "e", "-c", "f", NULL },
    };
    static char *none[] = { (char *)"run", (char *)"own", (char *)"--cores", (char *)"1", NULL };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int argc = 0;
        while (cases[i][argc] != NULL)
            argc++;
        assert_string_equal(settings_config_path(argc, cases[i]), "f");
    }
    assert_null(settings_config_path(4, none));
    assert_null(settings_config_path(2, (char *[]){ (char *)"run", (char *)"-c", NULL }));
}

/* What may change while it runs, and what may not. */
static void once_more(void **state)
{
    static const struct {
        const char *text, *fixed;
    } cases[] = {
        { GOOD, NULL },
        { "nf: own\nports: [a, b]\noptions: {rules: other, backends: x}\n", NULL },
        { GOOD "cores: 1\n", "cores" },
        { GOOD "normalise: true\n", "normalise" },
        { "nf: own\nports: [b, a]\noptions: {rules: r}\n", "ports" },
        { "nf: own\nports: [a, b]\noptions: {rules: r, alerts: f}\n", "alerts" },
    };
    struct line next;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(read_with(GOOD, "--hold 3"), 0);
        write_file(cases[i].text, strlen(cases[i].text));
        assert_int_equal(line_read_again(&next, &l.s, say, NULL, &c), 0);
        const char *fixed = settings_fixed_difference(&l.s, &next.s);
        if (cases[i].fixed == NULL)
            assert_null(fixed);
        else
            assert_string_equal(fixed, cases[i].fixed);
        assert_int_equal(next.s.hold, 3);
        line_free(&next);
    }
    write_file("nf: own\nhold: 0\n", 16);
    assert_int_equal(line_read_again(&next, &l.s, say, NULL, &c), -EINVAL);
    assert_string_equal(said, "2:7 hold 0: expected a whole number from 1 to 65535\n");
    line_free(&next);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything),          cmocka_unit_test(the_line_counts_more),  cmocka_unit_test(mistakes),
        cmocka_unit_test(files_that_are_none), cmocka_unit_test(where_the_path_stands), cmocka_unit_test(once_more),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
