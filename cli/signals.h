/* SPDX-License-Identifier: Apache-2.0 */
/* cli/signals.h - SIGINT and SIGTERM as descriptors that reactors can watch, one for each core. */
#pragma once
#include <stdint.h>

/* Returns a descriptor that becomes readable when one of the two comes, or a negative errno. From the first on they are
 * caught, and SIGPIPE is ignored. -EMFILE: more than there may be cores. On one thread at a time. */
int signals_open(void);

/* How many have come since the last call. Never waits. */
uint64_t signals_read(int fd);

/* The same for SIGHUP, one descriptor for the process. */
int signals_open_hangup(void);
void signals_close_hangup(int fd);

/* As if one had come. Any thread. */
void signals_raise(void);

/* Closes a descriptor; with the last, the signals get their default meaning back. */
void signals_close(int fd);
