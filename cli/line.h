/* SPDX-License-Identifier: Apache-2.0 */
/* cli/line.h - what the commands that deal with a network function do with their words: the function's name, the
 * configuration file, the options.
 */
#pragma once
#include "settings.h"

struct line {
    const char *name; /* of the network function, as it was given; NULL: nobody has said */
    char command[96]; /* for hints: "run ips" */
    struct settings s;
};

/* Reads argv, whose first word is the command: NAME and the options, or only options where `-c FILE` is among them. 0, also
 * for --help (s.help; name is NULL where it is the command's own), or a complaint. Mistakes in the file are said, and the complaint only has their number; say NULL: they are logged. line_free, also
 * after an error. */
int line_read(struct line *l, enum settings_for who, int argc, char *argv[], config_say *say, void *arg,
              struct complaint *c);

/* The same file and words once more, into another one, which is freed before l is. */
int line_read_again(struct line *next, const struct settings *now, config_say *say, void *arg, struct complaint *c);
void line_free(struct line *l);
