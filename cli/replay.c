/* SPDX-License-Identifier: Apache-2.0 */
#include "replay.h"
#include "commands.h"
#include "line.h"
#include "report.h"

void help_replay(void)
{
    printf("Usage: netstar replay NAME|./FILE.so -r FILE [--times N] [options]\n"
           "       netstar replay -c FILE -r FILE [--times N] [options]\n\n"
           "Loads captures into memory, runs a network function over them many times on one core, as fast as\n"
           "it goes, and tells where the time goes: ns per packet, cycles per byte, and what each part costs.\n"
           "Each pass has flows, an NF and a connection to the store of its own. A configuration file is that of\n"
           "`netstar run`; what it says of ports, cores and output is left to runs.\n\n");
    settings_help(stdout, &no_module, FOR_REPLAY);
    printf("\nExample:\n  netstar replay ips --rules my.rules --alerts /dev/null -r in.pcap --times 20\n");
}

static int write_json(const void *what, FILE *out)
{
    return replay_json(what, out);
}

static int run(const struct settings *s)
{
    struct replay_result r;
    int rc = replay_run(s, &r);

    if (rc == -EAGAIN)
        nst_log(NST_LOG_ERROR, "others took the huge pages meanwhile; --no-huge does without");
    if (rc == 0) {
        if (!s->quiet)
            replay_text(&r, stderr);
        if (s->report != NULL)
            rc = report_to(s->report, write_json, &r);
    }
    replay_free(&r);
    return rc < 0 ? EXIT_FAILED : 0;
}

int command_replay(int argc, char *argv[])
{
    struct line l;
    struct complaint c;
    int rc = line_read(&l, FOR_REPLAY, argc, argv, NULL, NULL, &c), status = 0;

    if (rc == 0 && l.s.help && l.name == NULL) {
        help_replay();
    } else if (rc == 0 && l.s.help) {
        printf("Usage: netstar replay %s -r FILE [--times N] [options]\n\n", l.name);
        settings_help(stdout, l.s.module, FOR_REPLAY);
    } else if (rc < 0 || (rc = settings_probe(&l.s, &c)) < 0) {
        status = complaint_exit(&c, rc, l.command);
    } else {
        nst_log_level(l.s.verbose ? NST_LOG_DEBUG : NST_LOG_WARNING);
        status = run(&l.s);
    }
    line_free(&l);
    return status;
}
