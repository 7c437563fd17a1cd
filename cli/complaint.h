/* SPDX-License-Identifier: Apache-2.0 */
/* cli/complaint.h - what is wrong with the command line or with what it names, in words for the user.
 *
 * Functions that fill one return -EINVAL when the words of the command line are wrong (exit status 2) and another
 * negative errno when the machine does not have what they ask for (exit status 1).
 */
#pragma once
#include <errno.h>

struct complaint {
    char text[512];
};

/* Writes the text, cut where it is too long, and returns rc. */
int complain(struct complaint *c, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* Prints the complaint, for usage errors with a pointer to the help of `command` ("": of netstar), and returns the exit
 * status. */
int complaint_exit(const struct complaint *c, int rc, const char *command);
