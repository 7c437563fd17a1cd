/* SPDX-License-Identifier: Apache-2.0 */
/* cli/options.h - reads --name VALUE options off a command line (with glibc's getopt_long) and prints their help.
 *
 * The list of options is made at run time: a command's own and those of the module that it runs.
 */
#pragma once
#include "complaint.h"
#include <stddef.h>
#include <stdio.h>

struct option_spec {
    int id;                 /* handed back; at least 1 */
    const char *name;       /* without the dashes */
    char letter;            /* the short form, 0: none */
    const char *value_name; /* NULL: a switch */
    const char *help;
};

/* Calls set(arg, spec, value) for each option in turn, value being NULL for a switch, until one returns other than
 * 0, and returns that. argv[0] is skipped. -EINVAL and a complaint for an unknown option (with the nearest known one),
 * a missing or surplus value, or a word that belongs to no option. */
typedef int option_setter(void *arg, const struct option_spec *spec, const char *value, struct complaint *c);
int options_read(int argc, char *argv[], const struct option_spec specs[], size_t n, option_setter *set, void *arg,
                 struct complaint *c);

/* Prints a name and its help, in columns, the help wrapped to the width of a terminal. */
void options_row(FILE *out, const char *name, const char *help);

/* Prints a row for each option. */
void options_help(FILE *out, const struct option_spec specs[], size_t n);
