/* SPDX-License-Identifier: Apache-2.0 */
/* common/text.h - reading files that people write: words in lines, `#` comments, and errors that show the place.
 *
 * Words are divided by blanks. Each of { } , ! is a word of its own; a text in double quotes is one word, without escapes.
 * An error is written as "name:line:column: what was expected", with the line and a caret below it, at most one a line and
 * NF_ERRORS_MAX in all; reading goes on behind it, so that one look finds them all. Any thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { NF_ERRORS_MAX = 20, NF_LINE_MAX = 4096 };

struct nf_text {
    const char *name;
    FILE *errors;
    unsigned *n_errors; /* shared by a file and those that it includes */
    uint32_t line;
    const char *begin, *at, *end; /* of the current line, without its comment */
    const char *rest, *limit;     /* of the text */
    const char *shown;            /* where the line itself ends, for messages */
    uint32_t failed;              /* the line that has an error already */
};

struct nf_word {
    const char *p;
    size_t len;
    bool quoted; /* p and len leave the quotes out */
};

void nf_text_open(struct nf_text *t, const char *name, const char *text, size_t len, FILE *errors, unsigned *n_errors);

/* Goes to the next line that has a word; false: there is none. A line that is too long, or has a zero byte, is an error and
 * is left out. */
bool nf_text_line(struct nf_text *t);

/* The next word of the line: true; false at its end. A missing closing quote is an error, and ends the line. */
bool nf_text_word(struct nf_text *t, struct nf_word *w);
/* The same without going on. */
bool nf_text_peek(struct nf_text *t, struct nf_word *w);

bool nf_word_is(const struct nf_word *w, const char *what);

/* Writes an error at a place of the current line. Returns -EINVAL. */
int nf_text_fail(struct nf_text *t, const char *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* "expected EXPECTED", and when the word resembles one of the names, "; did you mean NAME?". names ends with NULL. */
int nf_text_expected(struct nf_text *t, const struct nf_word *w, const char *expected, const char *const names[]);

/* The rest of the line has no word: 0, else an error. */
int nf_text_end(struct nf_text *t);

/* Which of the names (which end with NULL) the word is: its index, or -1. */
int nf_word_index(const struct nf_word *w, const char *const names[]);

/* A decimal number from least to most: true. */
bool nf_word_number(const struct nf_word *w, uint64_t least, uint64_t most, uint64_t *out);

/* A time as 500ms, 10s, 5m, 2h, or a number of seconds: true, and nanoseconds. */
bool nf_word_time(const struct nf_word *w, int64_t *out);

/* The len bytes at p with a NUL behind them, to be freed; NULL: no memory. */
char *nf_copy(const char *p, size_t len);

/* Reads a file of at most `most` bytes: 0, *text (with a NUL behind it, to be freed) and *len; or the errno, -EFBIG. */
int nf_file_read(const char *path, size_t most, char **text, size_t *len);
