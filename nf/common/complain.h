/* SPDX-License-Identifier: Apache-2.0 */
/* common/complain.h - what a module says when open or prepare fails. Any thread. */
#pragma once

/* Puts the words into *why, which stay until this thread complains again or ends, and returns rc. */
int nf_complain(const char **why, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
