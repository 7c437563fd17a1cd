/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "words.h"
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct config {
    yaml_document_t document;
    bool has_document;
    char **joined; /* lists as the command line has them */
    size_t n_joined;
};

struct walk {
    struct config *f;
    const struct config_specs *specs;
    option_setter *set;
    void *set_arg;
    config_say *say;
    void *say_arg;
    unsigned mistakes;
};

/* ---- reading ---- */
static int say_yaml(const yaml_parser_t *parser, config_say *say, void *arg)
{
    char text[256];
    bool of_memory = parser->error == YAML_MEMORY_ERROR, at = parser->error != YAML_READER_ERROR;

    if (of_memory)
        snprintf(text, sizeof text, "out of memory");
    else
        snprintf(text, sizeof text, "this is not YAML: %s%s%s",
                 parser->problem != NULL ? parser->problem : "unreadable", parser->context != NULL ? ", " : "",
                 parser->context != NULL ? parser->context : "");
    say(arg, at ? (unsigned)parser->problem_mark.line + 1 : 0, at ? (unsigned)parser->problem_mark.column + 1 : 0,
        text);
    return of_memory ? -ENOMEM : -EINVAL;
}

/* The only document of the file: a mapping. */
static int load(struct config *f, yaml_parser_t *parser, config_say *say, void *arg)
{
    yaml_document_t second;
    const yaml_node_t *root;
    bool more;

    if (!yaml_parser_load(parser, &f->document))
        return say_yaml(parser, say, arg);
    f->has_document = true;
    root = yaml_document_get_root_node(&f->document);
    if (root == NULL || root->type != YAML_MAPPING_NODE) {
        say(arg, root != NULL ? (unsigned)root->start_mark.line + 1 : 0,
            root != NULL ? (unsigned)root->start_mark.column + 1 : 0, "expected keys and values, such as  nf: ips");
        return -EINVAL;
    }
    if (!yaml_parser_load(parser, &second))
        return say_yaml(parser, say, arg);
    more = yaml_document_get_root_node(&second) != NULL;
    if (more)
        say(arg, (unsigned)second.start_mark.line + 1, 1, "expected one document only");
    yaml_document_delete(&second);
    return more ? -EINVAL : 0;
}

static int read_whole(const char *path, char **text, size_t *len)
{
    FILE *file = fopen(path, "re");
    int rc = 0;

    if (file == NULL)
        return -errno;
    *text = malloc(CONFIG_SIZE_MAX + 1);
    if (*text == NULL) {
        fclose(file);
        return -ENOMEM;
    }
    errno = 0;
    *len = fread(*text, 1, CONFIG_SIZE_MAX + 1, file);
    if (ferror(file))
        rc = errno != 0 ? -errno : -EIO;
    else if (*len > CONFIG_SIZE_MAX)
        rc = -EFBIG;
    fclose(file);
    return rc;
}

int config_read(struct config **out, const char *path, config_say *say, void *arg)
{
    struct config *f = calloc(1, sizeof *f);
    yaml_parser_t parser;
    char *text = NULL;
    size_t len = 0;
    int rc = f != NULL ? read_whole(path, &text, &len) : -ENOMEM;

    if (rc < 0) {
        say(arg, 0, 0, strerror(-rc));
    } else if (!yaml_parser_initialize(&parser)) {
        rc = -ENOMEM;
        say(arg, 0, 0, strerror(-rc));
    } else {
        yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
        rc = load(f, &parser, say, arg);
        yaml_parser_delete(&parser);
    }
    free(text);
    if (rc < 0)
        config_free(f);
    else
        *out = f;
    return rc;
}

void config_free(struct config *f)
{
    if (f == NULL)
        return;
    if (f->has_document)
        yaml_document_delete(&f->document);
    for (size_t i = 0; i < f->n_joined; i++)
        free(f->joined[i]);
    free(f->joined);
    free(f);
}

/* ---- nodes ---- */
static yaml_node_t *node_at(const struct config *f, int number)
{
    return yaml_document_get_node((yaml_document_t *)&f->document, number);
}

static const char *scalar(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

/* Nothing stands there, or what YAML takes for nothing. */
static bool is_nothing(const yaml_node_t *node)
{
    const char *text = scalar(node);

    return text != NULL && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (*text == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0);
}

/* A value of one line that is as long as its text: a NUL inside would cut it short. */
static const char *value_of(const yaml_node_t *node)
{
    const char *text = scalar(node);

    return text != NULL && !is_nothing(node) && strlen(text) == node->data.scalar.length ? text : NULL;
}

static void mistake(struct walk *w, const yaml_node_t *node, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void mistake(struct walk *w, const yaml_node_t *node, const char *fmt, ...)
{
    char text[640];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    w->mistakes++;
    w->say(w->say_arg, (unsigned)node->start_mark.line + 1, (unsigned)node->start_mark.column + 1, text);
}

/* ---- values ---- */
static void set_value(struct walk *w, const struct option_spec *spec, const yaml_node_t *node, const char *value)
{
    struct complaint c;

    /* The words for the command line hold here without its dashes. */
    if (w->set(w->set_arg, spec, value, &c) < 0)
        mistake(w, node, "%s", c.text + strspn(c.text, "-"));
}

static void set_switch(struct walk *w, const struct option_spec *spec, const yaml_node_t *node)
{
    const char *text = scalar(node);

    if (text != NULL && strcmp(text, "true") == 0)
        set_value(w, spec, node, NULL);
    else if (text == NULL || strcmp(text, "false") != 0)
        mistake(w, node, "%s: expected true or false", spec->name);
}

/* Several values, as the command line takes them: one after another, or joined by commas. */
static void set_list(struct walk *w, const struct option_spec *spec, enum config_form as, const yaml_node_t *list)
{
    char *text = NULL, **more;
    size_t size;
    unsigned before = w->mistakes;
    FILE *out = open_memstream(&text, &size);

    for (yaml_node_item_t *i = list->data.sequence.items.start; out != NULL && i < list->data.sequence.items.top; i++) {
        const yaml_node_t *node = node_at(w->f, *i);
        const char *value = value_of(node);
        if (value == NULL)
            mistake(w, node, "%s: expected one value in each place of the list", spec->name);
        else if (as == CONFIG_EACH)
            set_value(w, spec, node, value);
        else
            fprintf(out, "%s%s", i != list->data.sequence.items.start ? "," : "", value);
    }
    if (out == NULL || fclose(out) != 0 ||
        (more = realloc(w->f->joined, (w->f->n_joined + 1) * sizeof *more)) == NULL) {
        free(text);
        mistake(w, list, "out of memory");
        return;
    }
    w->f->joined = more;
    more[w->f->n_joined++] = text;
    if (list->data.sequence.items.start == list->data.sequence.items.top)
        mistake(w, list, "%s: expected at least one value", spec->name);
    else if (as == CONFIG_LIST && w->mistakes == before)
        set_value(w, spec, list, text);
}

static void set_option(struct walk *w, const struct option_spec *spec, enum config_form as, const yaml_node_t *node)
{
    const char *form = as == CONFIG_ONE ? "one value" : "a value or a list of values";

    if (spec->value_name == NULL)
        set_switch(w, spec, node);
    else if (node->type == YAML_SEQUENCE_NODE && as != CONFIG_ONE)
        set_list(w, spec, as, node);
    else if (value_of(node) != NULL)
        set_value(w, spec, node, value_of(node));
    else
        mistake(w, node, "%s: expected %s: %s", spec->name, form, spec->value_name);
}

/* ---- keys ---- */
static const struct option_spec *find(const struct option_spec *specs, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(specs[i].name, name) == 0)
            return &specs[i];
    return NULL;
}

/* A key that was given before is told once, where it comes again. True: it is one that may be looked at. */
static bool check_key(struct walk *w, const yaml_node_t *map, const yaml_node_pair_t *pair)
{
    const yaml_node_t *key = node_at(w->f, pair->key);

    if (value_of(key) == NULL) {
        mistake(w, key, "expected the name of an option");
        return false;
    }
    for (const yaml_node_pair_t *before = map->data.mapping.pairs.start; before < pair; before++) {
        const yaml_node_t *other = node_at(w->f, before->key);
        if (scalar(other) != NULL && strcmp(scalar(other), scalar(key)) == 0) {
            mistake(w, key, "%s is given twice, first in line %u", scalar(key), (unsigned)other->start_mark.line + 1);
            return false;
        }
    }
    return true;
}

static void unknown(struct walk *w, const yaml_node_t *key, bool own)
{
    const struct config_specs *s = w->specs;
    const char *name = scalar(key), *nearest;
    struct word_search search = { .wanted = name };
    const struct option_spec *specs = own ? s->own : s->common;

    if (!own && find(s->own, s->n_own, name) != NULL) {
        mistake(w, key, "%s is an option of %s: its place is under options", name, s->nf);
        return;
    }
    if (own && find(s->common, s->n_common, name) != NULL) {
        mistake(w, key, "%s is an option of every network function: its place is not under options", name);
        return;
    }
    for (size_t i = 0; i < (own ? s->n_own : s->n_common); i++)
        word_offer(&search, specs[i].name);
    if (!own) {
        word_offer(&search, "nf");
        word_offer(&search, "options");
    }
    nearest = word_nearest(&search);
    mistake(w, key, "unknown %s%s%s%s%s%s%s", own ? "option " : "key ", name, own ? " of " : "", own ? s->nf : "",
            nearest != NULL ? "; did you mean " : "", nearest != NULL ? nearest : "", nearest != NULL ? "?" : "");
}

static void walk_own(struct walk *w, const yaml_node_t *map)
{
    if (map->type != YAML_MAPPING_NODE) {
        if (!is_nothing(map))
            mistake(w, map, "options: expected keys and values, the options of the network function");
        return;
    }
    for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        const yaml_node_t *key = node_at(w->f, p->key);
        const struct option_spec *spec;
        if (!check_key(w, map, p) || w->specs->nf == NULL)
            continue;
        spec = find(w->specs->own, w->specs->n_own, scalar(key));
        if (spec != NULL)
            set_option(w, spec, CONFIG_LIST, node_at(w->f, p->value));
        else
            unknown(w, key, true);
    }
}

unsigned config_apply(struct config *f, const struct config_specs *specs, option_setter *set, void *set_arg,
                      config_say *say, void *arg)
{
    struct walk w = { .f = f, .specs = specs, .set = set, .set_arg = set_arg, .say = say, .say_arg = arg };
    const yaml_node_t *map = yaml_document_get_root_node(&f->document);

    for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        const yaml_node_t *key = node_at(f, p->key), *value = node_at(f, p->value);
        const struct option_spec *spec;
        if (!check_key(&w, map, p))
            continue;
        spec = find(specs->common, specs->n_common, scalar(key));
        if (spec != NULL)
            set_option(&w, spec, specs->forms[spec - specs->common], value);
        else if (strcmp(scalar(key), "options") == 0)
            walk_own(&w, value);
        else if (strcmp(scalar(key), "nf") != 0)
            unknown(&w, key, false);
        else if (value_of(value) == NULL)
            mistake(&w, value, "nf: expected one value: the name of a network function, or ./FILE.so");
    }
    return w.mistakes;
}

const char *config_nf(const struct config *f, unsigned *line, unsigned *column)
{
    const yaml_node_t *map = yaml_document_get_root_node((yaml_document_t *)&f->document);

    for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        const char *key = scalar(node_at(f, p->key));
        if (key != NULL && strcmp(key, "nf") == 0) {
            const yaml_node_t *value = node_at(f, p->value);
            *line = (unsigned)value->start_mark.line + 1;
            *column = (unsigned)value->start_mark.column + 1;
            return value_of(value);
        }
    }
    return NULL;
}
