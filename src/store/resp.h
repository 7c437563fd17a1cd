/* SPDX-License-Identifier: Apache-2.0 */
/* store/resp.h - reading what a Redis server says (RESP2 and RESP3) where it lies. Pure functions over bytes; nothing is
 * copied and nothing allocated. resp_measure finds out whether a whole reply is there; only then resp_next walks
 * through it, and need not look at the end any more. */
#pragma once
#include <netstar/base.h>
#include <sys/types.h>

enum {
    RESP_DEPTH = 8,            /* lists inside lists */
    RESP_LINE_MAX = 4096,      /* bytes of a status or an error */
    RESP_ELEMENTS_MAX = 65536, /* of one list */
};

enum resp_type {
    RESP_STATUS = '+',
    RESP_ERROR = '-',
    RESP_INTEGER = ':',
    RESP_STRING = '$', /* also verbatim text, big numbers and doubles, as text */
    RESP_LIST = '*',   /* also sets, and maps as a list of twice as many */
    RESP_PUSH = '>',
    RESP_NULL = '_',
};

struct resp {
    enum resp_type type;
    const char *p; /* status, error, string: the bytes */
    size_t len;
    int64_t n; /* the integer; how many elements follow */
};

/* The length of the reply that begins at p, 0 when it is not complete in len bytes, or -EPROTO and what was wrong in
 * *bad (a constant). A reply of more than max bytes is wrong, and so is one that already says that it will be. */
ssize_t resp_measure(const char *p, size_t len, size_t max, const char **bad);

/* Reads one value of a reply that has been measured: a list's elements follow it and are read by as many more calls.
 * Returns what follows. */
const char *resp_next(const char *p, struct resp *out);

/* Skips a value with all that is in it. */
const char *resp_skip(const char *p);
