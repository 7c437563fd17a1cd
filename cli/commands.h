/* SPDX-License-Identifier: Apache-2.0 */
/* cli/commands.h - the commands of netstar. Each gets its own words (argv[0] is the command's name), prints, and
 * returns the exit status.
 */
#pragma once

int command_run(int argc, char *argv[]);
int command_replay(int argc, char *argv[]);
int command_check(int argc, char *argv[]);
int command_reload(int argc, char *argv[]);
int command_stats(int argc, char *argv[]);
int command_top(int argc, char *argv[]);
int command_help(int argc, char *argv[]);
int command_version(int argc, char *argv[]);

/* The help of one command, to standard output. */
void help_run(void);
void help_replay(void);
void help_check(void);
void help_reload(void);
void help_stats(void);
void help_top(void);
