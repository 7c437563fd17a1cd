/* SPDX-License-Identifier: Apache-2.0 */
/* io/eal.h - what the ports share of the process's DPDK: its messages, and words for *why. */
#pragma once
#include <netstar/base.h>

/* Writes into this thread's buffer for *why, stores that in *why unless it is NULL, and returns rc. */
int io_fail(int rc, const char **why, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The last line that DPDK or a driver logged since the last io_log_clear, or "". Borrowed. */
const char *io_log_last(void);
void io_log_clear(void);

/* True when the packet pool lies in huge pages. */
bool io_huge(void);

/* Adds to the number of packet buffers that drivers keep for themselves, some of them for good: they are not missing.
 * Returns the number. */
unsigned io_buffers_kept(int more);

/* For how many cores ports are opened. */
unsigned io_cores(void);

/* True when nst_io_open has been called, and not nst_io_close. */
bool io_is_open(void);
