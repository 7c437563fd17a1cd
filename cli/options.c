/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"
#include "words.h"
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_COLUMN = 26, WIDTH = 80 };

/* What getopt_long returns for a long option: above every letter, so that what it reports as wrong is unambiguous. */
enum { LONG = 256 };

static int unknown_long(struct complaint *c, const char *word, const struct option_spec specs[], size_t n)
{
    char name[64];
    struct word_search search = { .wanted = name };
    const char *nearest;

    snprintf(name, sizeof name, "%.*s", (int)strcspn(word + 2, "="), word + 2);
    for (size_t i = 0; i < n; i++) {
        /* getopt_long takes a unique beginning for the whole, so this one has several ends. */
        if (strncmp(specs[i].name, name, strlen(name)) == 0)
            return complain(c, -EINVAL, "--%s is the beginning of several options, such as --%s", name, specs[i].name);
        word_offer(&search, specs[i].name);
    }
    nearest = word_nearest(&search);
    if (nearest != NULL)
        return complain(c, -EINVAL, "unknown option --%s; did you mean --%s?", name, nearest);
    return complain(c, -EINVAL, "unknown option --%s", name);
}

static const struct option_spec *find(int found, const struct option_spec specs[], size_t n)
{
    if (found >= LONG)
        return &specs[found - LONG];
    for (size_t i = 0; i < n; i++)
        if (specs[i].letter == found)
            return &specs[i];
    return NULL;
}

static int wrong(struct complaint *c, int found, const char *word, const struct option_spec specs[], size_t n)
{
    const struct option_spec *spec = optopt != 0 ? find(optopt, specs, n) : NULL;

    if (found == ':' && optopt < LONG)
        return complain(c, -EINVAL, "-%c needs a value: -%c %s", optopt, optopt, spec->value_name);
    if (found == ':')
        return complain(c, -EINVAL, "--%s needs a value: --%s %s", spec->name, spec->name, spec->value_name);
    if (spec != NULL)
        return complain(c, -EINVAL, "--%s takes no value", spec->name);
    if (optopt != 0)
        return complain(c, -EINVAL, "unknown option -%c", optopt);
    return unknown_long(c, word, specs, n);
}

int options_read(int argc, char *argv[], const struct option_spec specs[], size_t n, option_setter *set, void *arg,
                 struct complaint *c)
{
    struct option *longs = calloc(n + 1, sizeof *longs);
    char *letters = malloc(2 * n + 2), *end = letters;
    int rc = 0, found;

    if (longs == NULL || letters == NULL) {
        rc = complain(c, -ENOMEM, "out of memory");
        goto out;
    }
    *end++ = ':';
    for (size_t i = 0; i < n; i++) {
        longs[i] = (struct option){ specs[i].name, specs[i].value_name != NULL, NULL, LONG + (int)i };
        if (specs[i].letter != 0) {
            *end++ = specs[i].letter;
            if (specs[i].value_name != NULL)
                *end++ = ':';
        }
    }
    *end = '\0';

    opterr = 0;
    optind = 0; /* glibc: start afresh */
    while (rc == 0 && (found = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        if (found == '?' || found == ':') {
            rc = wrong(c, found, argv[optind - 1], specs, n);
        } else {
            const struct option_spec *spec = find(found, specs, n);
            rc = set(arg, spec, spec->value_name != NULL ? optarg : NULL, c);
        }
    }
    if (rc == 0 && optind < argc)
        rc = complain(c, -EINVAL, "unexpected word %s: it belongs to no option", argv[optind]);
out:
    free(letters);
    free(longs);
    return rc;
}

void options_row(FILE *out, const char *name, const char *help)
{
    int column = fprintf(out, "  %s", name);
    const char *gap = "";

    if (column + 2 > HELP_COLUMN) {
        fputc('\n', out);
        column = 0;
    }
    column += fprintf(out, "%*s", HELP_COLUMN - column, "");
    for (size_t len; *help != '\0'; help += len + strspn(help + len, " ")) {
        len = strcspn(help, " ");
        if (*gap != '\0' && column + 1 + (int)len > WIDTH) {
            column = fprintf(out, "\n%*s", HELP_COLUMN, "") - 1;
            gap = "";
        }
        column += fprintf(out, "%s%.*s", gap, (int)len, help);
        gap = " ";
    }
    fputc('\n', out);
}

void options_help(FILE *out, const struct option_spec specs[], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char name[96], letter[8] = "";

        if (specs[i].letter != 0)
            snprintf(letter, sizeof letter, "-%c, ", specs[i].letter);
        snprintf(name, sizeof name, "%s--%s%s%s", letter, specs[i].name, specs[i].value_name != NULL ? " " : "",
                 specs[i].value_name != NULL ? specs[i].value_name : "");
        options_row(out, name, specs[i].help);
    }
}
