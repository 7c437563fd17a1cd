/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of addresses in the rule file, and what else of it lives as long as the rules. */
#include "reader.h"
#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>

/* Makes room for one more in an array. */
int fw_grow(void *array, size_t n, size_t size)
{
    void *was, *more;

    if (n != 0 && (n & (n - 1)) != 0)
        return 0;
    memcpy(&was, array, sizeof was);
    more = realloc(was, (n != 0 ? 2 * n : 1) * size);
    if (more == NULL)
        return -ENOMEM;
    memcpy(array, &more, sizeof more);
    return 0;
}

char *fw_keep_text(struct fw_store *s, const char *p, size_t len)
{
    char *copy = NULL;

    if (fw_grow(&s->file, s->n_files, sizeof *s->file) == 0 && (copy = nf_copy(p, len)) != NULL)
        s->file[s->n_files++] = copy;
    return copy;
}

uint64_t fw_mix(uint64_t h, const void *p, size_t len)
{
    const uint8_t *at = p;

    for (size_t i = 0; i < len; i++)
        h = (h ^ at[i]) * 0x100000001b3u; /* FNV-1a */
    return (h ^ len) * 0x9e3779b97f4a7c15u;
}

static struct fw_set *find_set(const struct fw_store *s, const struct nf_word *w)
{
    for (size_t i = 0; i < s->n_sets; i++)
        if (strlen(s->set[i].name) == w->len && memcmp(s->set[i].name, w->p, w->len) == 0)
            return &s->set[i];
    return NULL;
}

/* ---- addresses ---- */
static int unknown_set(struct fw_reader *r, const struct nf_word *name)
{
    const struct fw_store *s = r->rules->store;
    const char **names = calloc(s->n_sets + 1, sizeof *names);

    if (names == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < s->n_sets; i++)
        names[i] = s->set[i].name;
    nf_text_expected(r->text, name, "the name of a set that is defined above", names);
    free(names);
    return -EINVAL;
}

/* An address, prefix, range or @set. */
static int add_member(struct fw_reader *r, struct nf_addresses_builder *b, const struct nf_word *w)
{
    const char *at, *why;
    struct nf_range range;

    if (!w->quoted && w->len > 0 && w->p[0] == '@') {
        struct nf_word name = { w->p + 1, w->len - 1, false };
        const struct fw_set *s = find_set(r->rules->store, &name);
        return s != NULL ? nf_addresses_add_all(b, s->addresses) : unknown_set(r, &name);
    }
    if (nf_range_parse(w, &range, &at, &why) < 0)
        return nf_text_fail(r->text, at - w->quoted, "%s", why);
    return nf_addresses_add(b, &range);
}

/* What stands between braces, over any number of lines; the opening one has been read. Errors in it do not end it. */
static int read_members(struct fw_reader *r, struct nf_addresses_builder *b)
{
    struct nf_text *t = r->text;
    uint32_t line = t->line;
    bool wants_comma = false;
    int rc = 0;

    for (;;) {
        struct nf_word w;
        while (nf_text_word(t, &w)) {
            if (nf_word_is(&w, "}"))
                return rc;
            if (nf_word_is(&w, ",")) {
                if (!wants_comma)
                    rc = nf_text_expected(t, &w, "an address or }", NULL);
                wants_comma = false;
                continue;
            }
            if (wants_comma && t->failed != t->line) {
                rc = nf_text_expected(t, &w, "a comma or }", NULL);
                continue;
            }
            int one = add_member(r, b, &w);
            if (one == -ENOMEM)
                return one;
            rc = one < 0 ? one : rc;
            wants_comma = true;
        }
        wants_comma = false; /* the end of a line does as well */
        if (!nf_text_line(t))
            break;
    }
    return nf_text_fail(t, t->at, "expected a } for the { in line %u", line);
}

/* One address, prefix, range or @set a line, or several divided by blanks or commas. */
static int read_list(struct fw_reader *r, const char *path, struct nf_addresses_builder *b, const char *at)
{
    struct nf_text t, *outer = r->text;
    char *text = NULL;
    size_t len = 0;
    int rc = nf_file_read(path, FW_FILE_MAX, &text, &len);

    if (rc == -ENOMEM)
        return rc;
    if (rc < 0)
        return nf_text_fail(outer, at, "%s: %s", path, strerror(-rc));
    r->rules->id = fw_mix(r->rules->id, text, len);
    nf_text_open(&t, path, text, len, r->errors, &r->n_errors);
    r->text = &t;
    while (nf_text_line(&t) && rc != -ENOMEM) {
        struct nf_word w;
        while (rc != -ENOMEM && nf_text_word(&t, &w)) {
            int one = nf_word_is(&w, ",") ? 0 : add_member(r, b, &w);
            rc = one < 0 ? one : rc;
        }
    }
    r->text = outer;
    free(text);
    return rc;
}

/* A name of a file, relative to the folder of the file that it stands in. */
int fw_resolve(const struct nf_text *t, const struct nf_word *w, char path[PATH_MAX])
{
    char folder[PATH_MAX];
    int n;

    if (w->len > 0 && w->p[0] == '/') {
        n = snprintf(path, PATH_MAX, "%.*s", (int)w->len, w->p);
    } else {
        snprintf(folder, sizeof folder, "%s", t->name);
        n = snprintf(path, PATH_MAX, "%s/%.*s", dirname(folder), (int)w->len, w->p);
    }
    return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static bool is_name(const struct nf_word *w)
{
    for (size_t i = 0; i < w->len; i++) {
        char c = w->p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
              (i > 0 && ((c >= '0' && c <= '9') || c == '-'))))
            return false;
    }
    return !w->quoted && w->len > 0 && w->len <= 64;
}

int fw_read_set(struct fw_reader *r)
{
    struct fw_store *s = r->rules->store;
    struct nf_addresses_builder b = { 0 };
    struct nf_word name, w;
    char path[PATH_MAX];
    int rc = 0;

    if (!nf_text_word(r->text, &name))
        return nf_text_expected(r->text, NULL, "the name of the set", NULL);
    if (!is_name(&name))
        return nf_text_expected(r->text, &name, "a name of letters, digits, - and _", NULL);
    if (find_set(s, &name) != NULL)
        rc = nf_text_expected(r->text, &name, "a name that no set above has", NULL);
    if (s->n_sets == FW_SETS_MAX)
        rc = nf_text_fail(r->text, name.p, "expected at most %d sets", FW_SETS_MAX);
    bool there = nf_text_word(r->text, &w);
    if (there && nf_word_is(&w, "{")) {
        int members = read_members(r, &b);
        rc = members < 0 ? members : rc;
    } else if (there && nf_word_is(&w, "file")) {
        if (!nf_text_word(r->text, &w) || !w.quoted)
            rc = nf_text_expected(r->text, NULL, "the name of a file in double quotes", NULL);
        else if (fw_resolve(r->text, &w, path) < 0)
            rc = nf_text_fail(r->text, w.p - 1, "expected a shorter name");
        else if (rc == 0)
            rc = read_list(r, path, &b, w.p - 1);
    } else {
        rc = nf_text_expected(r->text, there ? &w : NULL, "{ or file \"NAME\"", NULL);
    }
    if (rc == 0)
        rc = nf_text_end(r->text);
    if (rc == 0)
        rc = fw_grow(&s->set, s->n_sets, sizeof *s->set);
    if (rc < 0) {
        free(b.range);
        return rc;
    }
    struct fw_set *set = &s->set[s->n_sets];
    *set = (struct fw_set){ .name = nf_copy(name.p, name.len) };
    rc = nf_addresses_build(&set->addresses, &b);
    if (rc < 0 || set->name == NULL) {
        free(set->name);
        nf_addresses_free(set->addresses);
        return -ENOMEM;
    }
    r->rules->addresses += nf_addresses_count(set->addresses);
    s->n_sets++;
    return 0;
}

/* from and to: any, or an address, prefix, range, @set, or several in braces, with or without a ! before it. */
int fw_read_end(struct fw_reader *r, struct fw_end *e)
{
    struct fw_store *s = r->rules->store;
    struct nf_addresses_builder b = { 0 };
    struct nf_word w;
    int rc;

    if (!nf_text_word(r->text, &w))
        return nf_text_expected(r->text, NULL, "any, an address, a prefix, a range, a @set, or several in braces",
                                NULL);
    if (nf_word_is(&w, "any"))
        return 0;
    if (nf_word_is(&w, "!")) {
        e->outside = true;
        if (!nf_text_word(r->text, &w))
            return nf_text_expected(r->text, NULL, "what is to be left out", NULL);
    }
    if (!w.quoted && w.len > 1 && w.p[0] == '@') {
        struct nf_word name = { w.p + 1, w.len - 1, false };
        const struct fw_set *set = find_set(s, &name);
        if (set == NULL)
            return unknown_set(r, &name);
        e->addresses = set->addresses;
        return 0;
    }
    rc = nf_word_is(&w, "{") ? read_members(r, &b) : add_member(r, &b, &w);
    if (rc == 0)
        rc = fw_grow(&s->own, s->n_own, sizeof *s->own);
    if (rc < 0) {
        free(b.range);
        return rc;
    }
    rc = nf_addresses_build(&s->own[s->n_own], &b);
    if (rc < 0)
        return rc;
    e->addresses = s->own[s->n_own++];
    r->rules->addresses += nf_addresses_count(e->addresses);
    return 0;
}
