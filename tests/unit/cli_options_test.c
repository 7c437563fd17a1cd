/* SPDX-License-Identifier: Apache-2.0 */
/* Options, settings, and the finding of built-in modules: what is taken, and the words for each mistake. */
#include "cli/modules.h"
#include "cli/settings.h"
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

static int open_never(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    return -ENOSYS;
}

static const struct nst_option own_options[] = {
    { "rules", "FILE", "what to look for", true },
    { "alerts", "FILE", "where to write", false },
    { "loud", NULL, "a switch", false },
    { NULL, NULL, NULL, false },
};
static const struct nst_module own = {
    .abi = NST_MODULE_ABI, .name = "own", .options = own_options, .uses_store = true, .open = open_never
};
static const struct nst_module plain = { .abi = NST_MODULE_ABI, .name = "plain", .open = open_never };
const struct nst_module *const builtin_modules[] = { &own, &plain, NULL };

static struct settings s;
static struct complaint c;

/* Reads a command line that is given as one string; the words stay valid for one call. */
static int read_line(const struct nst_module *module, const char *line)
{
    static char copy[1024];
    static char *argv[256];
    int argc = 0;

    settings_free(&s);
    memset(&c, 0, sizeof c);
    strcpy(copy, line);
    argv[argc++] = (char *)"run";
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = word;
    argv[argc] = NULL;
    const struct settings_source from = {
        .module = module, .who = module != NULL ? FOR_RUN : FOR_CHECK, .argc = argc, .argv = argv
    };
    return settings_read(&s, &from, &c);
}

static int release(void **state)
{
    settings_free(&s);
    return 0;
}

static void everything(void **state)
{
    assert_int_equal(
        read_line(&own, "--ports eth1,eth2 --store redis://localhost:6380/2 --fail open --budget 50ms "
                        "--hold 8 --overlap linux,10.1.0.0/16=windows,2001:db8::/32=last,10.1.2.3=solaris --normalise "
                        "--checksums trust --flows 2M --packets 32768 --stream-memory 64M --eal --foo --no-huge "
                        "--busy-poll --cpu 3 --report - -v --rules r.txt --loud"),
        0);
    assert_int_equal(s.n_ports, 2);
    assert_string_equal(s.ports[1], "eth2");
    assert_string_equal(s.store, "redis://localhost:6380/2");
    assert_true(s.fail_open && s.no_huge && s.busy_poll && s.verbose && !s.quiet);
    assert_true(s.budget == NST_MS(50));
    assert_int_equal(s.hold, 8);
    assert_int_equal(s.overlap, NST_OVERLAP_LINUX);
    assert_int_equal(s.n_overlap_nets, 3);
    assert_true(s.overlap_nets[0].family == 4 && s.overlap_nets[0].bits == 16 && s.overlap_nets[0].addr[1] == 1 &&
                s.overlap_nets[0].policy == NST_OVERLAP_WINDOWS);
    assert_true(s.overlap_nets[1].family == 6 && s.overlap_nets[1].bits == 32 && s.overlap_nets[1].addr[0] == 0x20 &&
                s.overlap_nets[1].policy == NST_OVERLAP_LAST);
    assert_true(s.overlap_nets[2].bits == 32 && s.overlap_nets[2].addr[3] == 3);
    assert_true(s.normalise);
    assert_true(s.trust_checksums);
    assert_int_equal(s.flows, 2000000);
    assert_int_equal(s.packets, 32768);
    assert_int_equal(s.stream_memory, 64 << 20);
    assert_string_equal(s.eal, "--foo");
    assert_int_equal(s.n_cpus, 1);
    assert_int_equal(s.cpus[0], 3);
    assert_string_equal(s.report, "-");
    assert_string_equal(settings_module_option(&s, "rules"), "r.txt");
    assert_string_equal(settings_module_option(&s, "loud"), "yes");
    assert_null(settings_module_option(&s, "alerts"));
    assert_null(settings_module_option(&s, "nothing"));
}

static void captures(void **state)
{
    assert_int_equal(read_line(&plain, "-r a.pcap -rb.pcap --read=c.pcap -w out.pcap --speed 2.5 -q"), 0);
    assert_int_equal(s.n_inputs, 3);
    assert_string_equal(s.inputs[0], "a.pcap");
    assert_string_equal(s.inputs[1], "b.pcap");
    assert_string_equal(s.inputs[2], "c.pcap");
    assert_string_equal(s.output, "out.pcap");
    assert_true(s.speed == 2.5 && s.quiet);
}

static void defaults(void **state)
{
    assert_int_equal(read_line(&plain, "-r a.pcap"), 0);
    assert_string_equal(s.store, "mem:");
    assert_true(!s.fail_open && !s.trust_checksums && s.budget == 0 && s.hold == 0 && s.flows == 0 && s.packets == 0 &&
                s.speed == 0);
    assert_true(s.overlap == NST_OVERLAP_FIRST && s.n_overlap_nets == 0 && !s.normalise);
    assert_int_equal(s.stream_memory, 0);
    assert_int_equal(s.n_cpus, 0);
    assert_null(s.report);
    assert_null(s.output);
}

static void last_one_counts(void **state)
{
    assert_int_equal(read_line(&plain, "-r a --ports x,y --ports p,q --hold 1 --hold 2"), -EINVAL);
    assert_int_equal(read_line(&plain, "--ports x,y --ports p,q --hold 1 --hold 2"), 0);
    assert_string_equal(s.ports[0], "p");
    assert_int_equal(s.hold, 2);
}

static void help_needs_nothing_else(void **state)
{
    assert_int_equal(read_line(&own, "--help"), 0);
    assert_true(s.help);
}

static void password_is_not_shown(void **state)
{
    assert_int_equal(read_line(&plain, "-r a --store redis://me:secret@localhost"), 0);
    assert_null(strstr(s.store_name, "secret"));
    assert_int_equal(read_line(&plain, "-r a --store redis://me:secret@localhost:bad"), -EINVAL);
    assert_null(strstr(c.text, "secret"));
}

static void mistakes(void **state)
{
    static const struct {
        const char *line, *text;
    } cases[] = {
        { "", "--ports A,B or -r FILE" },
        { "-r a.pcap", "own needs --rules FILE" },
        { "-r a --rules r --stroe mem:", "unknown option --stroe; did you mean --store?" },
        { "-r a --rules r --alert=x", NULL },
        { "-r a --rule s", NULL },
        { "-r a --rules r --xyzzy", "unknown option --xyzzy" },
        { "-r a --rules r --xyzzy=7", "unknown option --xyzzy" },
        { "-r a --rules r -x", "unknown option -x" },
        { "-r a --rules r -qx", "unknown option -x" },
        { "-r a --rules r --s x", "--s is the beginning of several options, such as --" },
        { "-r a --rules", "--rules needs a value: --rules FILE" },
        { "--rules r -r", "-r needs a value: -r FILE" },
        { "-r a --rules r --no-huge=yes", "--no-huge takes no value" },
        { "-r a --rules r --loud=yes", "--loud takes no value" },
        { "-r a --rules r extra", "unexpected word extra" },
        { "-r a --rules r -- extra", "unexpected word extra" },
        { "-r a --rules r --ports b,c", "--ports and -r exclude each other" },
        { "--ports b,c,d --rules r", "3 ports given; they come in pairs" },
        { "--ports b --rules r", "1 ports given; they come in pairs" },
        { "--ports b,b --rules r", "b is given twice" },
        { "--ports b, --rules r", "empty port name" },
        { "--ports b,c --rules r -w o", "-w goes with -r" },
        { "--ports b,c --rules r --speed 2", "--speed goes with -r" },
        { "-r a --rules r -q -v", "--quiet and --verbose exclude each other" },
        { "-r a --rules r -w - --report -", "-w - and --report - exclude each other" },
        { "-r a --rules r --speed fast", "--speed fast: expected" },
        { "-r a --rules r --fail ajar", "--fail ajar: expected closed or open" },
        { "-r a --rules r --budget 200", "--budget 200: expected a time" },
        { "-r a --rules r --hold 0", "--hold 0: expected a whole number from 1 to 65535" },
        { "-r a --rules r --overlap plan9", "--overlap: there is no policy \"plan9\"; expected first, last" },
        { "-r a --rules r --overlap linux,10.0.0.0/33=bsd", "--overlap 33: expected" },
        { "-r a --rules r --overlap 10.0.0/8=bsd", "--overlap: \"10.0.0\" is no address of a network" },
        { "-r a --rules r --overlap 10.0.0.0/8=", "--overlap: there is no policy \"\"" },
        { "-r a --rules r --hold 70000", "--hold 70000: expected" },
        { "-r a --rules r --flows many", "--flows many: expected" },
        { "-r a --rules r --packets 5", "--packets 5: expected" },
        { "-r a --rules r --stream-memory 1", "--stream-memory 1: expected a size" },
        { "-r a --rules r --cpu -1", "--cpu -1: expected" },
        { "-r a --rules r --store nonsense", "--store: " },
        { "-r a --rules r --store", "--store needs a value: --store URL" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int rc = read_line(&own, cases[i].line);

        if (cases[i].text == NULL) { /* the unique beginning of an option stands for it */
            assert_int_equal(rc, 0);
            continue;
        }
        if (rc != -EINVAL || strstr(c.text, cases[i].text) == NULL)
            fail_msg("%s: %d, %s", cases[i].line, rc, c.text);
    }
}

static void too_many(void **state)
{
    char line[512] = "";

    for (int i = 0; i <= INPUTS_MAX; i++)
        strcat(line, "-r a ");
    assert_int_equal(read_line(&plain, line), -EINVAL);
    assert_non_null(strstr(c.text, "more than 64 captures"));
}

static void check_has_its_own(void **state)
{
    assert_int_equal(read_line(NULL, "--ports a,b --flows 10"), 0);
    assert_int_equal(read_line(NULL, ""), 0);
    assert_int_equal(read_line(NULL, "-r a"), -EINVAL);
    assert_int_equal(read_line(NULL, "--budget 1s"), -EINVAL);
    assert_string_equal(c.text, "unknown option --budget");
}

static void clashing_module(void **state)
{
    static const struct nst_option options[] = { { "store", "X", "", false }, { NULL, NULL, NULL, false } };
    static const struct nst_module clash = { .name = "clash", .options = options };

    assert_int_equal(read_line(&clash, "-r a"), -ENOEXEC);
    assert_non_null(strstr(c.text, "clash declares the option --store"));
}

static void modules(void **state)
{
    const struct nst_module *m = NULL;

    assert_int_equal(module_find(&m, "plain", &c), 0);
    assert_ptr_equal(m, &plain);
    assert_int_equal(module_find(&m, "plian", &c), -EINVAL);
    assert_non_null(strstr(c.text, "unknown network function plian; did you mean plain?"));
    assert_int_equal(module_find(&m, "zzz", &c), -EINVAL);
    assert_non_null(strstr(c.text, "unknown network function zzz"));
    assert_null(strstr(c.text, "did you mean"));
    assert_int_equal(module_find(&m, "./nowhere.so", &c), -ENOENT);
    assert_non_null(strstr(c.text, "./nowhere.so: No such file"));
    assert_int_equal(module_find(&m, "nowhere.so", &c), -ENOENT);
    assert_int_equal(module_find(&m, "/dev/null", &c), -ENOEXEC);
    assert_non_null(strstr(c.text, "/dev/null cannot be loaded"));
}

static void probes(void **state)
{
    assert_int_equal(read_line(&plain, "-r /nowhere/in.pcap"), 0);
    assert_int_equal(settings_probe(&s, &c), -ENOENT);
    assert_string_equal(c.text, "-r /nowhere/in.pcap: No such file or directory");
    assert_int_equal(read_line(&plain, "-r /"), 0);
    assert_int_equal(settings_probe(&s, &c), -EISDIR);
    assert_int_equal(read_line(&plain, "-r /dev/null -w /nowhere/out.pcap"), 0);
    assert_int_equal(settings_probe(&s, &c), -ENOENT);
    assert_string_equal(c.text, "-w /nowhere/out.pcap: No such file or directory");
    assert_int_equal(read_line(&plain, "-r /dev/null --report /nowhere/r.json"), 0);
    assert_int_equal(settings_probe(&s, &c), -ENOENT);
    assert_int_equal(read_line(&plain, "-r /proc/self/exe -w /proc/self/exe"), 0);
    assert_int_equal(settings_probe(&s, &c), -EINVAL);
    assert_non_null(strstr(c.text, "that is the input /proc/self/exe"));
    assert_int_equal(read_line(&plain, "-r /dev/null --cpu 1023"), 0);
    assert_int_equal(settings_probe(&s, &c), -ENODEV);
    assert_int_equal(read_line(&plain, "-r - -w - --report /dev/stdout"), 0);
    assert_int_equal(settings_probe(&s, &c), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything),
        cmocka_unit_test(captures),
        cmocka_unit_test(defaults),
        cmocka_unit_test(last_one_counts),
        cmocka_unit_test(help_needs_nothing_else),
        cmocka_unit_test(password_is_not_shown),
        cmocka_unit_test(mistakes),
        cmocka_unit_test(too_many),
        cmocka_unit_test(check_has_its_own),
        cmocka_unit_test(clashing_module),
        cmocka_unit_test(modules),
        cmocka_unit_test(probes),
    };
    return cmocka_run_group_tests(tests, NULL, release);
}
