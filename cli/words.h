/* SPDX-License-Identifier: Apache-2.0 */
/* cli/words.h - the known word that somebody may have meant. */
#pragma once
#include <stddef.h>

/* How many letters must be inserted, removed, changed or swapped with their neighbour to get from a to b. Words
 * longer than 63 letters are as far apart as can be. */
unsigned word_distance(const char *a, const char *b);

/* Keeps the nearest of the words that are offered one after the other. */
struct word_search {
    const char *wanted;
    const char *best;
    unsigned distance;
};
void word_offer(struct word_search *s, const char *known);

/* The nearest, or NULL when none is near enough to be what was meant. */
const char *word_nearest(const struct word_search *s);
