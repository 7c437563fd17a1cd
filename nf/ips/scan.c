/* SPDX-License-Identifier: Apache-2.0 */
#include "scan.h"
#include "state.h"
#include <errno.h>
#include <hs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct ips_scanner {
    const struct ips_rules *rules;
    hs_database_t *db;
    bool borrowed; /* the database is another scanner's */
    hs_scratch_t *scratch;
    hs_stream_t *stream;
    uint64_t fingerprint;
};

/* ---- compiling ---- */
static char *as_regex(const struct ips_rule *r)
{
    if (!r->literal)
        return strdup(r->pattern);
    char *regex = malloc(4 * r->pattern_len + 1);
    for (size_t i = 0; regex && i < r->pattern_len; i++)
        snprintf(regex + 4 * i, 5, "\\x%02x", (unsigned char)r->pattern[i]);
    return regex;
}

static unsigned flags_of(const struct ips_rule *r)
{
    return (r->nocase ? HS_FLAG_CASELESS : 0) | (r->dotall || r->literal ? HS_FLAG_DOTALL : 0) |
           (r->multiline ? HS_FLAG_MULTILINE : 0);
}

static void report(const struct ips_rules *rules, const struct ips_rule *rule, FILE *errors, const char *what)
{
    char text[512];
    snprintf(text, sizeof text, "cannot use this pattern: %s", what);
    ips_rules_error(rules, rule, errors, text);
}

/* What can be said of each pattern on its own, so that all errors are told at once. */
static bool usable(const struct ips_rules *rules, const struct ips_rule *r, const char *regex, FILE *errors)
{
    hs_expr_info_t *info = NULL;
    hs_compile_error_t *error = NULL;
    const char *what = NULL;
    if (hs_expression_info(regex, flags_of(r), &info, &error) != HS_SUCCESS)
        what = error ? error->message : "out of memory";
    else if (info->min_width == 0)
        what = "it matches where there is nothing";
    else if (info->matches_only_at_eod)
        what = "it matches only at the end of a stream, which is not known while packets pass";
    if (what)
        report(rules, r, errors, what);
    hs_free_compile_error(error);
    free(info);
    return !what;
}

struct compilation {
    const struct ips_rules *rules;
    FILE *errors;
    hs_database_t *db;
    int rc;
};

static void compile_all(struct compilation *c, char **regex, unsigned *flags, unsigned *ids)
{
    const struct ips_rules *rules = c->rules;
    unsigned bad = 0;
    for (size_t i = 0; i < rules->n; i++) {
        regex[i] = as_regex(&rules->rule[i]);
        if (!regex[i]) {
            c->rc = -ENOMEM;
            return;
        }
        flags[i] = flags_of(&rules->rule[i]);
        ids[i] = (unsigned)i;
        if (bad < IPS_ERRORS_MAX)
            bad += !usable(rules, &rules->rule[i], regex[i], c->errors);
    }
    if (bad > 0) {
        c->rc = -EINVAL;
        return;
    }
    hs_compile_error_t *error = NULL;
    hs_error_t rc = hs_compile_multi((const char *const *)regex, flags, ids, (unsigned)rules->n, HS_MODE_STREAM, NULL,
                                     &c->db, &error);
    if (rc != HS_SUCCESS) {
        if (error && error->expression >= 0)
            report(rules, &rules->rule[error->expression], c->errors, error->message);
        else
            fprintf(c->errors, "%s: %s\n", rules->name, error ? error->message : "cannot compile the rules");
        hs_free_compile_error(error);
        c->rc = rc == HS_NOMEM ? -ENOMEM : -EINVAL;
    }
}

static void *compile(void *arg)
{
    struct compilation *c = arg;
    size_t n = c->rules->n;
    char **regex = calloc(n, sizeof *regex);
    unsigned *flags = calloc(n, sizeof *flags), *ids = calloc(n, sizeof *ids);
    if (regex && flags && ids)
        compile_all(c, regex, flags, ids);
    else
        c->rc = -ENOMEM;
    for (size_t i = 0; regex && i < n; i++)
        free(regex[i]);
    free(regex);
    free(flags);
    free(ids);
    return NULL;
}

/* The compiler recurses deeply, and its caller may be a task with a small stack: it gets a thread's. */
static int compile_on_thread(struct compilation *c)
{
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 16 << 20);
    int rc = -pthread_create(&thread, &attr, compile, c);
    pthread_attr_destroy(&attr);
    if (rc < 0)
        return rc;
    pthread_join(thread, NULL);
    return c->rc;
}

/* The compiled bytes tell the rules, the version of the library and the kind of processor alike. */
static int fingerprint(struct ips_scanner *sc)
{
    char *bytes = NULL;
    size_t len = 0;
    if (hs_serialize_database(sc->db, &bytes, &len) != HS_SUCCESS)
        return -ENOMEM;
    sc->fingerprint = ips_hash(0, bytes, len);
    free(bytes);
    return 0;
}

/* What one reactor works with. */
static int open_stream(struct ips_scanner *sc)
{
    bool open =
        hs_alloc_scratch(sc->db, &sc->scratch) == HS_SUCCESS && hs_open_stream(sc->db, 0, &sc->stream) == HS_SUCCESS;
    return open ? 0 : -ENOMEM;
}

int ips_scanner_open(struct ips_scanner **out, const struct ips_rules *rules, FILE *errors)
{
    struct ips_scanner *sc = calloc(1, sizeof *sc);
    if (!sc)
        return -ENOMEM;
    struct compilation c = { .rules = rules, .errors = errors };
    int rc = compile_on_thread(&c);
    sc->rules = rules;
    sc->db = c.db;
    size_t size = 0;
    if (rc == 0 && hs_stream_size(sc->db, &size) == HS_SUCCESS && size > IPS_AUTOMATON_MAX) {
        fprintf(errors,
                "%s: the state of one stream would take %zu bytes, at most %d can be kept: expected fewer or "
                "simpler pcre rules (wide repeats cost most)\n",
                rules->name, size, (int)IPS_AUTOMATON_MAX);
        rc = -EINVAL;
    }
    if (rc == 0)
        rc = fingerprint(sc);
    if (rc == 0)
        rc = open_stream(sc);
    if (rc < 0)
        ips_scanner_close(sc);
    else
        *out = sc;
    return rc;
}

int ips_scanner_again(struct ips_scanner **out, const struct ips_scanner *first)
{
    struct ips_scanner *sc = calloc(1, sizeof *sc);
    if (!sc)
        return -ENOMEM;
    sc->rules = first->rules;
    sc->db = first->db;
    sc->borrowed = true;
    sc->fingerprint = first->fingerprint;
    int rc = open_stream(sc);
    if (rc < 0)
        ips_scanner_close(sc);
    else
        *out = sc;
    return rc;
}

void ips_scanner_close(struct ips_scanner *sc)
{
    if (!sc)
        return;
    if (sc->stream)
        hs_close_stream(sc->stream, NULL, NULL, NULL);
    hs_free_scratch(sc->scratch);
    if (!sc->borrowed)
        hs_free_database(sc->db);
    free(sc);
}

uint64_t ips_scanner_fingerprint(const struct ips_scanner *sc)
{
    return sc->fingerprint;
}

void ips_scan_sizes(struct ips_scanner *sc, struct ips_scan_sizes *out)
{
    char state[IPS_AUTOMATON_MAX];
    *out = (struct ips_scan_sizes){ 0 };
    hs_stream_size(sc->db, &out->open);
    hs_reset_stream(sc->stream, 0, NULL, NULL, NULL);
    hs_compress_stream(sc->stream, state, sizeof state, &out->fresh);
}

/* ---- scanning ---- */
int ips_scan_begin(struct ips_scanner *sc, const void *state, size_t len)
{
    hs_error_t rc = len == 0 ? hs_reset_stream(sc->stream, 0, NULL, NULL, NULL)
                             : hs_reset_and_expand_stream(sc->stream, state, len, NULL, NULL, NULL);
    return rc == HS_SUCCESS ? 0 : -EPROTO;
}

struct scan {
    const struct ips_rules *rules;
    struct ips_matches *found;
};

static int on_match(unsigned id, unsigned long long from, unsigned long long to, unsigned flags, void *arg)
{
    const struct scan *scan = arg;
    struct ips_matches *found = scan->found;
    const struct ips_rule *rule = &scan->rules->rule[id];
    if (rule->to != IPS_TO_ANY && rule->to != found->to)
        return 0;
    struct ips_match *mildest = &found->at[0];
    for (unsigned i = 0; i < found->n; i++) {
        struct ips_match *m = &found->at[i];
        if (m->rule == rule) {
            m->end = to < m->end ? to : m->end;
            return 0;
        }
        if (m->rule->action < mildest->rule->action)
            mildest = m;
    }
    if (found->n < IPS_MATCHES_MAX) {
        found->at[found->n++] = (struct ips_match){ rule, to };
        return 0;
    }
    found->skipped++;
    if (rule->action > mildest->rule->action)
        *mildest = (struct ips_match){ rule, to };
    return 0;
}

int ips_scan_bytes(struct ips_scanner *sc, const void *p, size_t len, struct ips_matches *found)
{
    struct scan scan = { sc->rules, found };
    hs_error_t rc = hs_scan_stream(sc->stream, p, (unsigned)len, 0, sc->scratch, on_match, &scan);
    return rc == HS_SUCCESS ? 0 : -EIO;
}

int ips_scan_end(struct ips_scanner *sc, void *state, size_t cap)
{
    size_t len = 0;
    return hs_compress_stream(sc->stream, state, cap, &len) == HS_SUCCESS ? (int)len : -ENOSPC;
}
