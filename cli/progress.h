/* SPDX-License-Identifier: Apache-2.0 */
/* cli/progress.h - one line on the terminal that tells how far a capture is, rewritten twice a second.
 *
 * Nothing is printed where standard error is no terminal. Log lines go through here while the line is up, so that the
 * two do not run into each other.
 */
#pragma once
#include <netstar/base.h>

struct progress {
    nst_time began, shown;
    bool up; /* a line stands on the terminal */
};

/* Starts to show, when standard error is a terminal; takes the log over. */
void progress_begin(struct progress *p);

/* As struct nst_capture_config's progress, arg being the struct progress. */
void progress_update(void *arg, uint64_t packets, uint64_t bytes, uint64_t of_bytes);

/* Wipes the line and gives the log back. */
void progress_end(struct progress *p);

/* The line's text. of_bytes 0: how much there is is not known. */
const char *progress_line(char *buf, size_t size, uint64_t packets, uint64_t bytes, uint64_t of_bytes, nst_time since);
