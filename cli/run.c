/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "instance.h"
#include "line.h"
#include "modules.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void help_run(void)
{
    printf("Usage: netstar run NAME|./FILE.so [options]\n"
           "       netstar run -c FILE [options]\n\n"
           "Runs a network function between ports or on captures until Ctrl-C or the end of the input, and\n"
           "then prints a report.\n\n"
           "Network functions (netstar run NAME --help lists their own options):\n");
    for (const struct nst_module *const *m = builtin_modules; *m != NULL; m++)
        options_row(stdout, (*m)->name, (*m)->summary != NULL ? (*m)->summary : "");
    options_row(stdout, "./FILE.so", "one that is loaded from a file");
    putchar('\n');
    settings_help(stdout, &no_module, FOR_RUN);
    printf("\nExamples:\n"
           "  netstar run ips --rules my.rules --ports eth1,eth2 --store redis://localhost\n"
           "  netstar run ips --rules my.rules -r in.pcap -w out.pcap --report -\n"
           "  netstar run -c edge.yaml --store redis://localhost\n");
}

static void help_module(const char *name, const struct nst_module *m)
{
    printf("Usage: netstar run %s --ports A,B|-r FILE [options]\n\n", name);
    if (m->summary != NULL)
        printf("%s\n\n", m->summary);
    settings_help(stdout, m, FOR_RUN);
}

static int write_json(const void *what, FILE *out)
{
    return report_json(what, out);
}

/* DPDK starts once in a process, so this one begins anew. It comes back only when that fails. */
static void run_without_huge_pages(int argc, char *argv[])
{
    char **again = calloc((size_t)argc + 3, sizeof *again);

    nst_log(NST_LOG_WARNING, "others took the huge pages meanwhile: starting again with ordinary ones");
    if (again != NULL) {
        again[0] = (char *)"netstar";
        memcpy(again + 1, argv, (size_t)argc * sizeof *again);
        again[argc + 1] = (char *)"--no-huge";
        execv("/proc/self/exe", again);
        free(again);
    }
    nst_log(NST_LOG_ERROR, "that is not possible (%s); --no-huge does without huge pages", strerror(errno));
}

static int run(const struct settings *s, int argc, char *argv[])
{
    struct report report;
    int rc = instance_run(s, &report);

    if (rc == -EAGAIN && !report.ran)
        run_without_huge_pages(argc, argv);

    /* A run that never began has nothing to report. Standard output is left to data: captures, alerts, JSON. */
    if (report.ran) {
        if (!s->quiet)
            report_text(&report, stderr);
        if (s->report != NULL && report_to(s->report, write_json, &report) < 0)
            rc = rc < 0 ? rc : -EIO;
    }
    report_free(&report);
    return rc < 0 ? EXIT_FAILED : 0;
}

int command_run(int argc, char *argv[])
{
    struct line l;
    struct complaint c;
    int rc = line_read(&l, FOR_RUN, argc, argv, NULL, NULL, &c), status = 0;

    if (rc == 0 && l.s.help && l.name == NULL)
        help_run();
    else if (rc == 0 && l.s.help)
        help_module(l.name, l.s.module);
    else if (rc < 0 || (rc = settings_probe(&l.s, &c)) < 0) {
        status = complaint_exit(&c, rc, l.command);
    } else {
        nst_log_level(l.s.quiet ? NST_LOG_WARNING : l.s.verbose ? NST_LOG_DEBUG : NST_LOG_INFO);
        status = run(&l.s, argc, argv);
    }
    line_free(&l);
    return status;
}
