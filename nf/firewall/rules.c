/* SPDX-License-Identifier: Apache-2.0 */
#include "reader.h"
#include "words.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const actions[] = { [FW_DROP] = "drop", [FW_ALLOW] = "allow", [FW_REJECT] = "reject", NULL };

const char *fw_action_name(enum fw_action a)
{
    return actions[a];
}

/* ---- lists of numbers and names ---- */
/* Reads words that are divided by commas: calls one(arg, word) for each. */
static int read_commas(struct fw_reader *r, const char *expected,
                       int (*one)(struct fw_reader *r, void *arg, struct nf_word *w), void *arg)
{
    struct nf_word w;
    int rc;

    do {
        if (!nf_text_word(r->text, &w))
            return nf_text_expected(r->text, NULL, expected, NULL);
        if ((rc = one(r, arg, &w)) < 0)
            return rc;
    } while (nf_text_peek(r->text, &w) && nf_word_is(&w, ",") && nf_text_word(r->text, &w));
    return 0;
}

static bool port_number(const struct nf_word *w, uint64_t *out)
{
    return nf_word_number(w, 0, UINT16_MAX, out) || fw_port_by_name(w, out);
}

static int one_port(struct fw_reader *r, void *arg, struct nf_word *w)
{
    static const char expected[] = "a port from 0 to 65535, a range such as 1024-2047, or a name such as https";
    struct fw_end *e = arg;
    uint64_t lo, hi;
    const char *dash = w->quoted ? NULL : memchr(w->p, '-', w->len);

    if (port_number(w, &lo)) { /* some names have a dash */
        hi = lo;
    } else if (dash != NULL) {
        struct nf_word first = { w->p, (size_t)(dash - w->p), false };
        struct nf_word last = { dash + 1, w->len - first.len - 1, false };
        if (!port_number(&first, &lo))
            return nf_text_expected(r->text, w, expected, NULL);
        if (!port_number(&last, &hi) || hi < lo)
            return nf_text_expected(r->text, &last, "a port that is not below the first", NULL);
    } else {
        return nf_text_expected(r->text, w, expected, fw_port_names);
    }
    if (e->n_ports == 1024)
        return nf_text_expected(r->text, w, "at most 1024 ports and ranges", NULL);
    if (fw_grow(&e->ports, e->n_ports, sizeof *e->ports) < 0)
        return -ENOMEM;
    e->ports[e->n_ports++] = (struct fw_ports){ (uint16_t)lo, (uint16_t)hi };
    return 0;
}

static void set_bit(uint64_t bits[4], uint64_t n)
{
    bits[n / 64] |= (uint64_t)1 << (n % 64);
}

static bool has_bit(const uint64_t bits[4], uint8_t n)
{
    return bits[n / 64] >> (n % 64) & 1;
}

static int one_type(struct fw_reader *r, void *arg, struct nf_word *w)
{
    struct fw_rule *rule = arg;
    bool six = has_bit(rule->protos, FW_ICMP6);
    uint64_t n;

    if (!nf_word_number(w, 0, 255, &n) && !fw_type_by_name(w, six, &n))
        return nf_text_expected(r->text, w, "a type of ICMP: a number from 0 to 255 or a name such as echo-request",
                                fw_type_names(six));
    set_bit(rule->types, n);
    return 0;
}

static int one_proto(struct fw_reader *r, void *arg, struct nf_word *w)
{
    struct fw_rule *rule = arg;
    uint64_t n;

    if (!nf_word_number(w, 0, 255, &n) && !fw_proto_by_name(w, &n))
        return nf_text_expected(r->text, w, "a protocol: a number from 0 to 255 or a name such as tcp", fw_proto_names);
    set_bit(rule->protos, n);
    return 0;
}

/* ---- a rule ---- */
static bool has_ports(const struct fw_rule *rule)
{
    uint64_t left[4];

    memcpy(left, rule->protos, sizeof left);
    for (unsigned i = 0; i < FW_WITH_PORTS; i++)
        left[fw_with_ports[i] / 64] &= ~((uint64_t)1 << (fw_with_ports[i] % 64));
    return !rule->any_proto && (left[0] | left[1] | left[2] | left[3]) == 0;
}

static bool only(const struct fw_rule *rule, uint8_t proto)
{
    uint64_t bits[4] = { 0 };

    set_bit(bits, proto);
    return !rule->any_proto && memcmp(bits, rule->protos, sizeof bits) == 0;
}

static int read_ports(struct fw_reader *r, struct fw_rule *rule, struct fw_end *e, const struct nf_word *w)
{
    if (e->n_ports > 0)
        return nf_text_expected(r->text, w, "ports only once for each end", NULL);
    if (!has_ports(rule))
        return nf_text_expected(r->text, w, "ports only behind tcp or udp", NULL);
    return read_commas(r, "a port", one_port, e);
}

enum part { FROM = 1, TO = 2, TYPE = 4, VLAN = 8, LOG = 16 };

static int read_part(struct fw_reader *r, struct fw_rule *rule, const struct nf_word *w, unsigned *seen,
                     struct fw_end **at)
{
    static const char *const parts[] = { "from", "to", "port", "type", "vlan", "log", NULL };
    static const unsigned bits[] = { FROM, TO, 0, TYPE, VLAN, LOG };
    int which = nf_word_index(w, parts);
    struct nf_word value = { 0 };
    uint64_t n;

    if (which < 0)
        return nf_text_expected(r->text, w, "from, to, port, type, vlan or log", parts);
    if (*seen & bits[which])
        return nf_text_expected(r->text, w, "this only once", NULL);
    if (which == 0 && *seen & TO)
        return nf_text_expected(r->text, w, "from before to", NULL);
    *seen |= bits[which];
    switch (which) {
    case 0:
    case 1:
        *at = &rule->end[which];
        return fw_read_end(r, *at);
    case 2:
        if (*at == NULL) /* no end at all: the port of whom it is for */
            *at = &rule->end[1];
        return read_ports(r, rule, *at, w);
    case 3:
        if (!only(rule, FW_ICMP) && !only(rule, FW_ICMP6))
            return nf_text_expected(r->text, w, "type only behind icmp or icmp6", NULL);
        rule->any_type = false;
        return read_commas(r, "a type of ICMP", one_type, rule);
    case 4:
        if (!nf_text_word(r->text, &value) || !nf_word_number(&value, 0, 4095, &n))
            return nf_text_expected(r->text, value.p != NULL ? &value : NULL, "a VLAN from 0 (none) to 4095", NULL);
        rule->any_vlan = false;
        rule->vlan = (uint16_t)n;
        return 0;
    default:
        rule->log = true;
        return 0;
    }
}

static bool is_part(const struct nf_word *w)
{
    static const char *const parts[] = { "from", "to", "port", "type", "vlan", "log", NULL };
    return nf_word_index(w, parts) >= 0;
}

/* [in|out] [any|PROTO,...] and its parts, in this order. */
static int read_fields(struct fw_reader *r, struct fw_rule *rule)
{
    struct fw_end *at = NULL;
    struct nf_word w;
    unsigned seen = 0;
    int rc = 0;

    if (nf_text_peek(r->text, &w) && (nf_word_is(&w, "in") || nf_word_is(&w, "out"))) {
        rule->side = nf_word_is(&w, "in") ? FW_IN : FW_OUT;
        nf_text_word(r->text, &w);
    }
    if (nf_text_peek(r->text, &w)) {
        if (nf_word_is(&w, "any")) {
            nf_text_word(r->text, &w);
        } else if (nf_word_is(&w, "ip4") || nf_word_is(&w, "ip6")) {
            nf_text_word(r->text, &w);
            rule->family = w.p[2] == '4' ? 4 : 6;
        } else if (!is_part(&w)) {
            rule->any_proto = false;
            rc = read_commas(r, "a protocol", one_proto, rule);
        }
    }
    while (rc == 0 && nf_text_word(r->text, &w))
        rc = read_part(r, rule, &w, &seen, &at);
    for (unsigned i = 0; i < 2 && rc == 0; i++) {
        const struct nf_addresses *s = rule->end[i].addresses;
        if (s != NULL && rule->family != 0 && !rule->end[i].outside && !nf_addresses_have_family(s, rule->family))
            rc = nf_text_fail(r->text, r->text->begin, "expected addresses of IPv%u in a rule for ip%u", rule->family,
                              rule->family);
    }
    return rc == 0 ? nf_text_end(r->text) : rc;
}

static void clear_rule(struct fw_rule *rule)
{
    free(rule->end[0].ports);
    free(rule->end[1].ports);
}

/* A place for one more rule behind the n that there are: the default stands there while the file is read. */
static int rule_room(struct fw_reader *r)
{
    struct fw_rules *rules = r->rules;

    if (rules->n + 2 > r->room) {
        size_t room = r->room != 0 ? r->room * 2 : 64;
        struct fw_rule *more = realloc(rules->rule, room * sizeof *more);
        if (more == NULL)
            return -ENOMEM;
        rules->rule = more;
        r->room = room;
    }
    return 0;
}

static int read_rule(struct fw_reader *r, enum fw_action action, const struct nf_word *first)
{
    struct nf_text *t = r->text;
    const char *end = t->end;
    struct fw_rule rule = { .action = action, .any_proto = true, .any_type = true, .any_vlan = true, .line = t->line };
    int rc;

    if (r->rules->n == FW_RULES_MAX)
        return nf_text_fail(t, first->p, "expected at most %d rules", FW_RULES_MAX);
    while (end > first->p && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    rule.file = t->name;
    rule.text = fw_keep_text(r->rules->store, first->p, (size_t)(end - first->p));
    rc = rule.text != NULL ? read_fields(r, &rule) : -ENOMEM;
    if (rc == 0)
        rc = rule_room(r);
    if (rc < 0) {
        clear_rule(&rule);
        return rc;
    }
    r->rules->rule[r->rules->n + 1] = r->rules->rule[r->rules->n];
    r->rules->rule[r->rules->n++] = rule;
    return 0;
}

static int read_default(struct fw_reader *r, const struct nf_word *first)
{
    struct nf_word w;
    int action;

    if (r->has_default)
        return nf_text_expected(r->text, first, "one default only", NULL);
    if (!nf_text_word(r->text, &w))
        return nf_text_expected(r->text, NULL, "drop, reject or allow", NULL);
    if ((action = nf_word_index(&w, actions)) < 0)
        return nf_text_expected(r->text, &w, "drop, reject or allow", actions);
    struct fw_rule *rule = &r->rules->rule[r->rules->n];
    rule->action = (enum fw_action)action;
    rule->file = r->text->name;
    rule->line = r->text->line;
    r->has_default = true;
    if (nf_text_peek(r->text, &w) && nf_word_is(&w, "log")) {
        nf_text_word(r->text, &w);
        rule->log = true;
    }
    return nf_text_end(r->text);
}

static int read_file(struct fw_reader *r, const char *path, const char *text, size_t len);

static int read_include(struct fw_reader *r, const struct nf_word *first)
{
    char path[PATH_MAX], *text = NULL, *name;
    struct nf_word w;
    size_t len = 0;
    int rc;

    if (!nf_text_word(r->text, &w) || !w.quoted || w.len == 0)
        return nf_text_expected(r->text, NULL, "the name of a file in double quotes", NULL);
    if (r->depth == FW_INCLUDES_MAX)
        return nf_text_fail(r->text, first->p, "expected at most %d files that include each other", FW_INCLUDES_MAX);
    if (fw_resolve(r->text, &w, path) < 0)
        return nf_text_fail(r->text, w.p - 1, "expected a shorter name");
    if ((rc = nf_text_end(r->text)) < 0)
        return rc;
    rc = nf_file_read(path, FW_FILE_MAX, &text, &len);
    if (rc == -ENOMEM)
        return rc;
    if (rc < 0)
        return nf_text_fail(r->text, w.p - 1, "%s: %s", path, strerror(-rc));
    name = fw_keep_text(r->rules->store, path, strlen(path));
    rc = name != NULL ? read_file(r, name, text, len) : -ENOMEM;
    free(text);
    return rc;
}

static int read_keep(struct fw_reader *r)
{
    static const char *const words[] = { "judge", "keep", NULL };
    struct nf_word w;
    int which;

    if (!nf_text_word(r->text, &w))
        return nf_text_expected(r->text, NULL, "judge or keep", NULL);
    if ((which = nf_word_index(&w, words)) < 0)
        return nf_text_expected(r->text, &w, "judge or keep", words);
    r->rules->keep = which == 1;
    return nf_text_end(r->text);
}

static int read_line(struct fw_reader *r)
{
    static const char *const begins[] = { "allow", "drop", "reject", "set", "default", "include", "connections", NULL };
    struct nf_word w;
    int action;

    if (!nf_text_word(r->text, &w))
        return 0; /* an unfinished quote, which was reported */
    if ((action = nf_word_index(&w, actions)) >= 0)
        return read_rule(r, (enum fw_action)action, &w);
    if (nf_word_is(&w, "set"))
        return fw_read_set(r);
    if (nf_word_is(&w, "default"))
        return read_default(r, &w);
    if (nf_word_is(&w, "include"))
        return read_include(r, &w);
    if (nf_word_is(&w, "connections"))
        return read_keep(r);
    return nf_text_expected(r->text, &w, "allow, drop, reject, set, default, include or connections", begins);
}

static int read_file(struct fw_reader *r, const char *path, const char *text, size_t len)
{
    struct nf_text t, *outer = r->text;
    int rc = 0;

    nf_text_open(&t, path, text, len, r->errors, &r->n_errors);
    r->rules->id = fw_mix(r->rules->id, text, len);
    r->text = &t;
    r->depth++;
    while (rc != -ENOMEM && nf_text_line(&t))
        rc = read_line(r);
    r->depth--;
    r->text = outer;
    return rc == -ENOMEM ? rc : 0; /* other errors are counted */
}

int fw_rules_parse(struct fw_rules **out, const char *name, const char *text, size_t len, FILE *errors)
{
    struct fw_reader r = { .errors = errors, .rules = calloc(1, sizeof *r.rules) };
    int rc = r.rules != NULL && (r.rules->store = calloc(1, sizeof *r.rules->store)) != NULL ? rule_room(&r) : -ENOMEM;

    if (rc == 0) {
        char *kept = fw_keep_text(r.rules->store, name, strlen(name));
        r.rules->rule[0] = (struct fw_rule){ .action = FW_DROP, .any_proto = true, .any_type = true, .any_vlan = true };
        r.rules->rule[0].file = kept;
        r.rules->rule[0].text = fw_keep_text(r.rules->store, "default", strlen("default"));
        r.rules->id = 0xcbf29ce484222325u;
        rc = kept != NULL && r.rules->rule[0].text != NULL ? read_file(&r, kept, text, len) : -ENOMEM;
    }
    if (rc == 0 && r.n_errors > 0)
        rc = -EINVAL;
    if (r.n_errors > NF_ERRORS_MAX)
        fprintf(errors, "%s: and %u more errors\n", name, r.n_errors - NF_ERRORS_MAX);
    if (rc < 0) {
        fw_rules_free(r.rules);
        return rc;
    }
    r.rules->sets = r.rules->store->n_sets;
    r.rules->id += r.rules->id == 0;
    *out = r.rules;
    return 0;
}

int fw_rules_read(struct fw_rules **out, const char *path, FILE *errors)
{
    char *text = NULL;
    size_t len = 0;
    int rc = nf_file_read(path, FW_FILE_MAX, &text, &len);

    if (rc < 0) {
        fprintf(errors, "%s: %s\n", path, strerror(-rc));
        return rc;
    }
    rc = fw_rules_parse(out, path, text, len, errors);
    free(text);
    return rc;
}

void fw_rules_free(struct fw_rules *rules)
{
    if (rules == NULL)
        return;
    for (size_t i = 0; rules->rule != NULL && i < rules->n; i++)
        clear_rule(&rules->rule[i]);
    free(rules->rule);
    if (rules->store != NULL) {
        struct fw_store *s = rules->store;
        for (size_t i = 0; i < s->n_sets; i++) {
            free(s->set[i].name);
            nf_addresses_free(s->set[i].addresses);
        }
        for (size_t i = 0; i < s->n_own; i++)
            nf_addresses_free(s->own[i]);
        for (size_t i = 0; i < s->n_files; i++)
            free(s->file[i]);
        free(s->set);
        free(s->own);
        free(s->file);
        free(s);
    }
    free(rules);
}

/* ---- judging ---- */
static bool end_fits(const struct fw_end *e, uint8_t family, const uint8_t *addr, uint16_t port)
{
    if (e->addresses != NULL && nf_addresses_have(e->addresses, family, addr) == e->outside)
        return false;
    for (unsigned i = 0; i < e->n_ports; i++)
        if (e->ports[i].lo <= port && port <= e->ports[i].hi)
            return true;
    return e->n_ports == 0;
}

bool fw_rule_fits(const struct fw_rule *r, const struct fw_opening *o)
{
    if (!r->any_proto && !has_bit(r->protos, o->proto))
        return false;
    if ((r->side == FW_IN && o->out) || (r->side == FW_OUT && !o->out))
        return false;
    if ((!r->any_type && !has_bit(r->types, o->type)) || (!r->any_vlan && r->vlan != o->vlan))
        return false;
    if (r->family != 0 && r->family != o->family)
        return false;
    return end_fits(&r->end[1], o->family, o->addr[1], o->port[1]) &&
           end_fits(&r->end[0], o->family, o->addr[0], o->port[0]);
}

size_t fw_rules_judge(const struct fw_rules *rules, const struct fw_opening *o)
{
    size_t i = 0;

    while (i < rules->n && !fw_rule_fits(&rules->rule[i], o))
        i++;
    return i;
}
