/* SPDX-License-Identifier: Apache-2.0 */
#include "deny.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    uint8_t len;
    uint8_t *bytes; /* as in struct dns_name */
};

struct deny {
    struct entry *entry; /* sorted, so that it can be searched */
    size_t n, room;
};

static int compare(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    return x->len != y->len ? (x->len < y->len ? -1 : 1) : memcmp(x->bytes, y->bytes, x->len);
}

static int add(struct deny *list, const struct dns_name *name)
{
    if (list->n == list->room) {
        size_t room = list->room != 0 ? 2 * list->room : 64;
        struct entry *more = reallocarray(list->entry, room, sizeof *more);
        if (more == NULL)
            return -ENOMEM;
        list->entry = more;
        list->room = room;
    }
    uint8_t *bytes = malloc(name->len);
    if (bytes == NULL)
        return -ENOMEM;
    memcpy(bytes, name->bytes, name->len);
    list->entry[list->n++] = (struct entry){ name->len, bytes };
    return 0;
}

/* One line without its end: its name into *out, or no name (out->len is 0), or what is wrong. */
static const char *read_line(struct dns_name *out, const char *line, size_t len)
{
    static const char blank[] = " \t\r\n";

    out->len = 0;
    const char *comment = memchr(line, '#', len);
    if (comment != NULL)
        len = (size_t)(comment - line);
    while (len > 0 && line[len - 1] != '\0' && strchr(blank, line[len - 1]) != NULL)
        len--;
    while (len > 0 && line[0] != '\0' && strchr(blank, line[0]) != NULL) {
        line++;
        len--;
    }
    if (len == 0)
        return NULL;
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)line[i] <= ' ' || (unsigned char)line[i] >= 0x7f)
            return "expected one name of printable ASCII; write others as they stand in DNS (xn--...)";
    }
    return dns_name_of_text(out, line, len);
}

static int read_lines(struct deny *list, FILE *file, const char *path, char *why, size_t size)
{
    char *line = NULL;
    size_t room = 0, number = 0;
    ssize_t len;
    int rc = 0;

    while (rc == 0 && (len = getline(&line, &room, file)) >= 0) {
        struct dns_name name;
        const char *bad = read_line(&name, line, (size_t)len);
        number++;
        if (bad != NULL)
            rc = -EINVAL;
        else if (name.len != 0)
            rc = add(list, &name);
        if (rc < 0)
            snprintf(why, size, "%s:%zu: %s", path, number, bad != NULL ? bad : strerror(-rc));
    }
    if (rc == 0 && !feof(file)) {
        rc = errno != 0 ? -errno : -EIO;
        snprintf(why, size, "%s: %s", path, strerror(-rc));
    }
    free(line);
    return rc;
}

int deny_read(struct deny **out, const char *path, char *why, size_t size)
{
    struct deny *list = calloc(1, sizeof *list);
    FILE *file = list != NULL ? fopen(path, "re") : NULL;

    if (file == NULL) {
        int rc = list != NULL ? -errno : -ENOMEM;
        snprintf(why, size, "%s: %s", path, strerror(-rc));
        free(list);
        return rc;
    }
    int rc = read_lines(list, file, path, why, size);
    fclose(file);
    if (rc < 0) {
        deny_free(list);
        return rc;
    }
    if (list->n > 0)
        qsort(list->entry, list->n, sizeof *list->entry, compare);
    *out = list;
    return 0;
}

bool deny_has(const struct deny *list, const struct dns_name *name)
{
    if (list == NULL || list->n == 0)
        return false;
    /* Each name above it is the rest of it behind a label; the root is the last. */
    for (size_t at = 0; at < name->len; at += 1 + (size_t)name->bytes[at]) {
        struct entry key = { (uint8_t)(name->len - at), (uint8_t *)name->bytes + at };
        if (bsearch(&key, list->entry, list->n, sizeof *list->entry, compare) != NULL)
            return true;
    }
    return false;
}

size_t deny_length(const struct deny *list)
{
    return list != NULL ? list->n : 0;
}

void deny_free(struct deny *list)
{
    if (list == NULL)
        return;
    for (size_t i = 0; i < list->n; i++)
        free(list->entry[i].bytes);
    free(list->entry);
    free(list);
}
