/* SPDX-License-Identifier: Apache-2.0 */
#include "replay.h"
#include "commands.h"
#include "modules.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void help_replay(void)
{
    printf("Usage: netstar replay NAME|./FILE.so -r FILE [--times N] [options]\n\n"
           "Loads captures into memory, runs a network function over them many times on one core, as fast as\n"
           "it goes, and tells where the time goes: ns per packet, cycles per byte, and what each part costs.\n"
           "Each pass has flows, an NF and a connection to the store of its own.\n\n");
    settings_help(stdout, &no_module, FOR_REPLAY);
    printf("\nExample:\n  netstar replay ips --rules my.rules --alerts /dev/null -r in.pcap --times 20\n");
}

static int write_json(const struct replay_result *r, const char *path)
{
    FILE *out = strcmp(path, "-") == 0 ? stdout : fopen(path, "we");
    int rc = out != NULL ? replay_json(r, out) : -errno;

    if (out != NULL && out != stdout && fclose(out) != 0 && rc == 0)
        rc = -errno;
    if (rc < 0)
        nst_log(NST_LOG_ERROR, "--report %s: %s", path, strerror(-rc));
    return rc;
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
            rc = write_json(&r, s->report);
    }
    replay_free(&r);
    return rc < 0 ? EXIT_FAILED : 0;
}

int command_replay(int argc, char *argv[])
{
    const struct nst_module *module;
    struct settings s;
    struct complaint c;
    char command[64];
    int rc, status;

    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        help_replay();
        return 0;
    }
    if (argc < 2 || argv[1][0] == '-') {
        complain(&c, -EINVAL, "replay needs the name of a network function, before the options");
        return complaint_exit(&c, -EINVAL, "replay");
    }
    rc = module_find(&module, argv[1], &c);
    if (rc < 0)
        return complaint_exit(&c, rc, "replay");
    snprintf(command, sizeof command, "replay %s", argv[1]);
    rc = settings_read(&s, module, FOR_REPLAY, argc - 1, argv + 1, &c);
    if (rc == 0 && s.help) {
        printf("Usage: netstar replay %s -r FILE [--times N] [options]\n\n", argv[1]);
        settings_help(stdout, module, FOR_REPLAY);
        status = 0;
    } else if (rc < 0 || (rc = settings_probe(&s, &c)) < 0) {
        status = complaint_exit(&c, rc, command);
    } else {
        nst_log_level(s.verbose ? NST_LOG_DEBUG : NST_LOG_WARNING);
        status = run(&s);
    }
    settings_free(&s);
    return status;
}
