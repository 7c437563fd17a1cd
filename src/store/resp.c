/* SPDX-License-Identifier: Apache-2.0 */
#include "store/resp.h"
#include <string.h>

enum { NUMBER_MAX = 24 }; /* bytes of a number's line */

/* A number of digits with an optional '-', all of [p, end). */
static bool number(const char *p, const char *end, int64_t *out)
{
    bool minus = p < end && *p == '-';
    int64_t n = 0;

    p += minus;
    if (p == end)
        return false;
    for (; p < end; p++) {
        int digit = *p - '0';
        if (digit < 0 || digit > 9 || __builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, minus ? -digit : digit, &n))
            return false;
    }
    *out = n;
    return true;
}

static ssize_t wrong(const char **bad, const char *what)
{
    *bad = what;
    return -EPROTO;
}

static bool is_list(char type)
{
    return type == '*' || type == '~' || type == '%' || type == '>';
}

/* The end of the line that begins at p, past its "\r\n"; 0 not complete. */
static ssize_t line(const char *p, size_t len, size_t max, const char **bad)
{
    const char *cr = memchr(p, '\r', len < max ? len : max);

    if (cr == NULL)
        return len < max ? 0 : wrong(bad, "a line without an end");
    if ((size_t)(cr - p) + 1 == len)
        return 0;
    if (cr[1] != '\n')
        return wrong(bad, "a line that does not end as lines do");
    return cr + 2 - p;
}

/* One value without what is in it: its bytes, and how many values follow inside. */
static ssize_t one(const char *p, size_t len, size_t max, int64_t *inside, const char **bad)
{
    char type = *p;
    bool text = type == '+' || type == '-' || type == '(';
    int64_t n;
    ssize_t end;

    *inside = 0;
    if (type == 0 || strchr("+-:$*_#,(=~%>!", type) == NULL)
        return wrong(bad, "a reply of no known kind");
    end = line(p, len, text ? RESP_LINE_MAX : NUMBER_MAX * 2, bad);
    if (end <= 0)
        return end;
    if (text || type == ',')
        return end;
    if (type == '_')
        return end == 3 ? end : wrong(bad, "nothing that is something");
    if (type == '#')
        return end == 4 && (p[1] == 't' || p[1] == 'f') ? end : wrong(bad, "neither true nor false");
    if (end > NUMBER_MAX || !number(p + 1, p + end - 2, &n))
        return wrong(bad, "a number that is none");
    if (type == ':')
        return end;
    if (n == -1 && (type == '$' || type == '*'))
        return end;
    if (n < 0)
        return wrong(bad, "a length below zero");
    if (is_list(type)) {
        if (n > RESP_ELEMENTS_MAX)
            return wrong(bad, "a list that is too long");
        *inside = type == '%' ? 2 * n : n;
        return end;
    }
    if ((uint64_t)n > max)
        return wrong(bad, "an answer that is longer than any value");
    if (len - (size_t)end < (size_t)n + 2)
        return 0;
    if (p[end + n] != '\r' || p[end + n + 1] != '\n')
        return wrong(bad, "a string that does not end where its length says");
    return end + n + 2;
}

/* The value is a single one of the kinds that nearly all answers are, and complete: its bytes. 0: look closer. */
static inline size_t common(const char *p, size_t len, size_t max)
{
    size_t n = 0, i = 1;

    if (len < 5)
        return 0;
    if (*p == '+')
        return memcmp(p, "+OK\r\n", 5) == 0 ? 5 : 0;
    if (*p != '$' && *p != ':')
        return 0;
    for (; i < len && i < 8 && (unsigned char)(p[i] - '0') <= 9; i++)
        n = n * 10 + (size_t)(p[i] - '0');
    if (i == 1 || len - i < 2 || p[i] != '\r' || p[i + 1] != '\n')
        return 0;
    i += 2;
    if (*p == ':')
        return i;
    if (n > max || len - i < n + 2 || p[i + n] != '\r' || p[i + n + 1] != '\n')
        return 0;
    return i + n + 2;
}

ssize_t resp_measure(const char *p, size_t len, size_t max, const char **bad)
{
    size_t simple = common(p, len, max);
    if (__builtin_expect(simple != 0, 1))
        return (ssize_t)simple;
    int64_t left[RESP_DEPTH + 1] = { 1 }; /* values that are still to come, on each level */
    size_t at = 0;
    int depth = 0;

    for (;;) {
        int64_t inside;
        ssize_t n;
        while (left[depth] == 0) {
            if (depth == 0)
                return (ssize_t)at;
            depth--;
        }
        if (at > max)
            return wrong(bad, "an answer that is longer than any value");
        if (at == len)
            return 0;
        n = one(p + at, len - at, max, &inside, bad);
        if (n <= 0)
            return n;
        at += (size_t)n;
        left[depth]--;
        if (inside > 0) {
            if (depth == RESP_DEPTH)
                return wrong(bad, "lists inside lists inside lists");
            left[++depth] = inside;
        }
    }
}

const char *resp_next(const char *p, struct resp *out)
{
    const char *end = p + 1;
    char type = *p;
    int64_t n = 0; /* it was measured: it is a number */

    while (*end != '\r') /* it is there, and near: most lines have a few bytes */
        end++;
    end += 2;
    out->p = p + 1;
    out->len = (size_t)(end - 2 - out->p);
    out->n = 0;
    switch (type) {
    case '+':
    case '-':
        out->type = (enum resp_type)type;
        return end;
    case ',':
    case '(':
        out->type = RESP_STRING;
        return end;
    case '#':
        out->type = RESP_INTEGER;
        out->n = p[1] == 't';
        return end;
    case '_':
        out->type = RESP_NULL;
        return end;
    default:
        break;
    }
    number(p + 1, end - 2, &n);
    out->n = n;
    if (type == ':') {
        out->type = RESP_INTEGER;
        return end;
    }
    if (n < 0) {
        out->type = RESP_NULL;
        return end;
    }
    if (is_list(type)) {
        out->type = type == '>' ? RESP_PUSH : RESP_LIST;
        if (type == '%')
            out->n = 2 * n;
        return end;
    }
    out->type = type == '!' ? RESP_ERROR : RESP_STRING;
    out->p = end;
    out->len = (size_t)n;
    if (type == '=' && n >= 4) { /* "txt:" stands before the text */
        out->p += 4;
        out->len -= 4;
    }
    return end + n + 2;
}

const char *resp_skip(const char *p)
{
    for (int64_t left = 1; left > 0; left--) {
        struct resp r;
        p = resp_next(p, &r);
        if (r.type == RESP_LIST || r.type == RESP_PUSH)
            left += r.n;
    }
    return p;
}
