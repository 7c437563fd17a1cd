/* SPDX-License-Identifier: Apache-2.0 */
#include "words.h"
#include <limits.h>
#include <string.h>

enum { WORD_MAX = 63 };

unsigned word_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned rows[3][WORD_MAX + 1];
    unsigned *before = rows[0], *above = rows[1], *row = rows[2];

    if (n > WORD_MAX || m > WORD_MAX)
        return UINT_MAX;
    for (size_t j = 0; j <= m; j++)
        above[j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned *oldest = before;

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
        before = above;
        above = row;
        row = oldest;
    }
    return above[m];
}

void word_offer(struct word_search *s, const char *known)
{
    unsigned d = word_distance(s->wanted, known);

    if (s->best == NULL || d < s->distance) {
        s->best = known;
        s->distance = d;
    }
}

const char *word_nearest(const struct word_search *s)
{
    /* One slip in three letters: beyond that a suggestion is a guess. */
    if (s->best == NULL || s->distance == UINT_MAX || s->distance > (strlen(s->wanted) + 2) / 3)
        return NULL;
    return s->best;
}
