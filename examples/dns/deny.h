/* SPDX-License-Identifier: Apache-2.0 */
/* A list of names that nobody shall ask for; each stands for itself and all names below it. Immutable once read, so any
 * thread may ask. None waits for anything but the file.
 */
#pragma once
#include "message.h"

struct deny;

/* Reads a file: one name a line, with or without the final dot, letters in any case; spaces around it, empty lines and
 * what follows a # do not count. -EINVAL, -ENOMEM, or the errno of reading it, with "FILE:LINE: what is wrong" in why
 * (NUL-terminated, at most size bytes). The list is the caller's, to be freed with deny_free. */
int deny_read(struct deny **out, const char *path, char *why, size_t size);

/* Whether the name or one above it is on the list. NULL: an empty one. The work grows with the number of labels, and
 * with the logarithm of the list's length. */
bool deny_has(const struct deny *list, const struct dns_name *name);

size_t deny_length(const struct deny *list);

/* NULL is allowed. */
void deny_free(struct deny *list);
