/* SPDX-License-Identifier: Apache-2.0 */
#include "text.h"
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static bool blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool alone(char c)
{
    return c == '{' || c == '}' || c == ',' || c == '!';
}

static bool continues(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80; /* of a UTF-8 character */
}

void nf_text_open(struct nf_text *t, const char *name, const char *text, size_t len, FILE *errors, unsigned *n_errors)
{
    *t = (struct nf_text){
        .name = name,
        .errors = errors,
        .n_errors = n_errors,
        .begin = text,
        .at = text,
        .end = text,
        .shown = text,
        .rest = text,
        .limit = text + len,
    };
}

/* ---- errors ---- */
/* The line and the caret; of a long line the part around the place. */
static void show(const struct nf_text *t, const char *at)
{
    enum { BEFORE = 60, AFTER = 40 };
    const char *from = at - t->begin > BEFORE ? at - BEFORE : t->begin;
    const char *to = t->shown - at > AFTER ? at + AFTER : t->shown;

    while (from > t->begin && continues(*from))
        from--;
    while (to < t->shown && continues(*to))
        to++;
    fprintf(t->errors, "    %s", from > t->begin ? "..." : "");
    for (const char *p = from; p < to; p++)
        fputc((unsigned char)*p >= ' ' || *p == '\t' ? *p : '?', t->errors);
    fprintf(t->errors, "%s\n    %s", to < t->shown ? "..." : "", from > t->begin ? "   " : "");
    for (const char *p = from; p < at; p++)
        if (!continues(*p))
            fputc(*p == '\t' ? '\t' : ' ', t->errors);
    fputs("^\n", t->errors);
}

int nf_text_fail(struct nf_text *t, const char *at, const char *fmt, ...)
{
    unsigned column = 1;
    va_list args;

    if (t->failed == t->line && t->line != 0)
        return -EINVAL;
    t->failed = t->line;
    if ((*t->n_errors)++ >= NF_ERRORS_MAX)
        return -EINVAL;
    for (const char *p = t->begin; p < at; p++)
        column += !continues(*p);
    fprintf(t->errors, "%s:%u:%u: ", t->name, t->line, column);
    va_start(args, fmt);
    vfprintf(t->errors, fmt, args);
    va_end(args);
    fputc('\n', t->errors);
    show(t, at);
    return -EINVAL;
}

/* Insertions, deletions, replacements and swaps of neighbours that make a word out of the other. */
static unsigned distance(const char *a, size_t n, const char *b, size_t m)
{
    enum { MOST = 40 };
    unsigned rows[3][MOST + 1], *before = rows[0], *above = rows[1], *row = rows[2];

    if (n > MOST || m > MOST)
        return MOST;
    for (size_t j = 0; j <= m; j++)
        above[j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best)
                best = above[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
        unsigned *oldest = before;
        before = above;
        above = row;
        row = oldest;
    }
    return above[m];
}

int nf_text_expected(struct nf_text *t, const struct nf_word *w, const char *expected, const char *const names[])
{
    const char *best = NULL;
    unsigned least = 0;

    for (unsigned i = 0; names != NULL && names[i] != NULL && w != NULL; i++) {
        unsigned d = distance(w->p, w->len, names[i], strlen(names[i]));
        if (best == NULL || d < least) {
            best = names[i];
            least = d;
        }
    }
    const char *at = w != NULL ? w->p - w->quoted : t->end;
    /* One slip in three letters: beyond that a suggestion is a guess. */
    if (best != NULL && least > 0 && least <= (w->len + 2) / 3)
        return nf_text_fail(t, at, "expected %s; did you mean %s?", expected, best);
    return nf_text_fail(t, at, "expected %s", expected);
}

/* ---- lines ---- */
static const char *comment_of(const char *p, const char *end)
{
    bool quoted = false;

    for (; p < end; p++) {
        if (*p == '"')
            quoted = !quoted;
        else if (*p == '#' && !quoted)
            return p;
    }
    return end;
}

bool nf_text_line(struct nf_text *t)
{
    while (t->rest < t->limit) {
        const char *newline = memchr(t->rest, '\n', (size_t)(t->limit - t->rest));
        const char *end = newline != NULL ? newline : t->limit, *zero;
        t->begin = t->at = t->rest;
        t->rest = newline != NULL ? newline + 1 : t->limit;
        t->line++;
        if (end > t->begin && end[-1] == '\r')
            end--;
        t->shown = t->end = end;
        if (end - t->begin > NF_LINE_MAX) {
            nf_text_fail(t, t->begin + NF_LINE_MAX, "expected at most %d bytes in a line", NF_LINE_MAX);
            continue;
        }
        zero = end > t->begin ? memchr(t->begin, '\0', (size_t)(end - t->begin)) : NULL;
        if (zero != NULL) {
            nf_text_fail(t, zero, "expected text; this is a zero byte");
            continue;
        }
        t->end = comment_of(t->begin, end);
        struct nf_word w;
        if (nf_text_peek(t, &w))
            return true;
    }
    if (t->begin != t->limit)
        t->line++; /* what is missing at the end is missing behind the last line */
    t->begin = t->at = t->end = t->shown = t->limit;
    return false;
}

bool nf_text_word(struct nf_text *t, struct nf_word *w)
{
    while (t->at < t->end && blank(*t->at))
        t->at++;
    if (t->at == t->end)
        return false;
    if (*t->at == '"') {
        const char *close = memchr(t->at + 1, '"', (size_t)(t->end - t->at - 1));
        if (close == NULL) {
            nf_text_fail(t, t->at, "expected a closing double quote for this one");
            t->at = t->end;
            return false;
        }
        *w = (struct nf_word){ t->at + 1, (size_t)(close - t->at - 1), true };
        t->at = close + 1;
        return true;
    }
    w->p = t->at++;
    if (!alone(*w->p))
        while (t->at < t->end && !blank(*t->at) && !alone(*t->at) && *t->at != '"')
            t->at++;
    w->len = (size_t)(t->at - w->p);
    w->quoted = false;
    return true;
}

bool nf_text_peek(struct nf_text *t, struct nf_word *w)
{
    const char *at = t->at;
    bool there = nf_text_word(t, w);

    if (there)
        t->at = at;
    return there;
}

int nf_text_end(struct nf_text *t)
{
    struct nf_word w;

    if (nf_text_word(t, &w))
        return nf_text_fail(t, w.p - w.quoted, "expected the end of the line");
    return t->failed == t->line ? -EINVAL : 0;
}

/* ---- words ---- */
bool nf_word_is(const struct nf_word *w, const char *what)
{
    return !w->quoted && w->len == strlen(what) && memcmp(w->p, what, w->len) == 0;
}

int nf_word_index(const struct nf_word *w, const char *const names[])
{
    for (int i = 0; names[i] != NULL; i++)
        if (nf_word_is(w, names[i]))
            return i;
    return -1;
}

bool nf_word_number(const struct nf_word *w, uint64_t least, uint64_t most, uint64_t *out)
{
    uint64_t n = 0;

    if (w->quoted || w->len == 0 || w->len > 19)
        return false;
    for (size_t i = 0; i < w->len; i++) {
        if (w->p[i] < '0' || w->p[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(w->p[i] - '0');
    }
    if (n < least || n > most)
        return false;
    *out = n;
    return true;
}

bool nf_word_time(const struct nf_word *w, int64_t *out)
{
    static const struct {
        const char *unit;
        int64_t ns;
    } units[] = {
        { "ms", 1000000 }, { "s", 1000000000 }, { "m", 60000000000 }, { "h", 3600000000000 }, { "", 1000000000 }
    };
    size_t digits = 0;
    uint64_t n;

    while (digits < w->len && w->p[digits] >= '0' && w->p[digits] <= '9')
        digits++;
    struct nf_word number = { w->p, digits, w->quoted }, unit = { w->p + digits, w->len - digits, false };
    if (!nf_word_number(&number, 0, 100000000, &n))
        return false;
    for (unsigned i = 0; i < sizeof units / sizeof *units; i++) {
        if (nf_word_is(&unit, units[i].unit)) {
            if (n > (uint64_t)(INT64_MAX / 4 / units[i].ns))
                return false;
            *out = (int64_t)n * units[i].ns;
            return true;
        }
    }
    return false;
}

char *nf_copy(const char *p, size_t len)
{
    char *copy = malloc(len + 1);

    if (copy != NULL) {
        memcpy(copy, p, len);
        copy[len] = '\0';
    }
    return copy;
}

int nf_file_read(const char *path, size_t most, char **text, size_t *len)
{
    size_t room = 0, n = 0, got = 0;
    char *bytes = NULL;
    int rc = 0;
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return -errno;
    do {
        n += got;
        if (n + 1 >= room) {
            room = room != 0 ? room * 2 : 16384;
            char *more = realloc(bytes, room);
            if (more == NULL) {
                rc = -ENOMEM;
                break;
            }
            bytes = more;
        }
        errno = 0;
        got = fread(bytes + n, 1, room - 1 - n, file);
    } while (got > 0 && n + got <= most);
    if (rc == 0 && ferror(file))
        rc = errno != 0 ? -errno : -EIO;
    if (rc == 0 && n + got > most)
        rc = -EFBIG;
    fclose(file);
    if (rc < 0) {
        free(bytes);
        return rc;
    }
    bytes[n] = '\0';
    *text = bytes;
    *len = n;
    return 0;
}
