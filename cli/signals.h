/* SPDX-License-Identifier: Apache-2.0 */
/* cli/signals.h - SIGINT and SIGTERM as a descriptor that a reactor can watch. */
#pragma once
#include <stdint.h>

/* Catches the two from now on, ignores SIGPIPE, and returns a descriptor that becomes readable when one comes, or a
 * negative errno. Once for the process. */
int signals_open(void);

/* How many have come since the last call. Never waits. */
uint64_t signals_read(int fd);

/* Gives the signals their default meaning back and closes the descriptor. */
void signals_close(int fd);
