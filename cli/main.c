/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "complaint.h"
#include "options.h"
#include "words.h"
#include <string.h>

static const struct command {
    const char *name, *summary;
    int (*run)(int argc, char *argv[]);
    void (*help)(void);
} commands[] = {
    { "run", "run a network function, on live ports or on captures", command_run, help_run },
    { "replay", "measure a network function on captures: where its time goes", command_replay, help_replay },
    { "check", "see whether this machine is fit, and what to type where it is not", command_check, help_check },
    { "reload", "have a running instance read its rules and the like anew, without a lost packet", command_reload,
      help_reload },
    { "stats", "print the numbers of a running instance", command_stats, help_stats },
    { "top", "watch the instances that share a store", command_top, help_top },
    { "help", "print help, also of one command: netstar help run", command_help, NULL },
    { "version", "print the version", command_version, NULL },
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *out)
{
    fprintf(out, "NetStar: asynchronous middleboxes.\n\nUsage: netstar COMMAND [options]\n\nCommands:\n");
    for (unsigned i = 0; i < N_COMMANDS; i++)
        options_row(out, commands[i].name, commands[i].summary);
    fprintf(out, "\nExit status: 0; 1 when something failed; 2 when the command line is wrong.\n");
}

static const struct command *find(const char *name)
{
    struct word_search search = { .wanted = name };
    struct complaint c;

    for (unsigned i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
        word_offer(&search, commands[i].name);
    }
    if (word_nearest(&search) != NULL)
        complain(&c, -EINVAL, "unknown command %s; did you mean %s?", name, word_nearest(&search));
    else
        complain(&c, -EINVAL, "unknown command %s", name);
    complaint_exit(&c, -EINVAL, "");
    return NULL;
}

int command_help(int argc, char *argv[])
{
    const struct command *command;

    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        usage(stdout);
        return 0;
    }
    command = find(argv[1]);
    if (command == NULL)
        return EXIT_USAGE;
    if (command->help != NULL)
        command->help();
    else
        usage(stdout);
    return 0;
}

int command_version(int argc, char *argv[])
{
    (void)argc;
    (void)argv;
    printf("netstar %s\n", NETSTAR_VERSION);
    return 0;
}

int main(int argc, char *argv[])
{
    const struct command *command;

    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return command_help(1, argv);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
        return command_version(1, argv);
    command = find(argv[1]);
    return command != NULL ? command->run(argc - 1, argv + 1) : EXIT_USAGE;
}
