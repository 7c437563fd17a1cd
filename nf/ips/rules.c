/* SPDX-License-Identifier: Apache-2.0 */
#include "rules.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const action_names[IPS_ACTIONS] = { "alert", "drop", "reset" };
static const char *const to_names[] = { "any", "server", "client" };

const char *ips_action_name(enum ips_action action)
{
    return action_names[action];
}

enum field { ID = 1, ACTION = 2, PATTERN = 4, NOCASE = 8, TO = 16, MSG = 32 };

struct parser {
    struct ips_rules *rules;
    size_t room;   /* rules that fit before the array has to grow */
    uint32_t *ids; /* open addressing: 1 + index of the rule with the id that hashes there */
    FILE *errors;
    unsigned n_errors;
    uint32_t line;
    const char *begin, *at, *end; /* of the current line */
};
enum { IDS = IPS_RULES_MAX * 2 };

/* ---- errors ---- */
static bool continues(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80; /* of a UTF-8 character */
}

static uint32_t column_of(const char *begin, const char *at)
{
    uint32_t column = 1;
    for (; begin < at; begin++)
        column += !continues(*begin);
    return column;
}

/* The line and the caret; of a long line the part around the place. */
static void show(FILE *errors, const char *begin, const char *at, const char *end)
{
    enum { BEFORE = 60, AFTER = 40 };
    const char *from = at - begin > BEFORE ? at - BEFORE : begin;
    const char *to = end - at > AFTER ? at + AFTER : end;
    while (from > begin && continues(*from))
        from--;
    while (to < end && continues(*to))
        to++;
    fprintf(errors, "    %s", from > begin ? "..." : "");
    for (const char *p = from; p < to; p++)
        fputc((unsigned char)*p >= ' ' || *p == '\t' ? *p : '?', errors);
    fprintf(errors, "%s\n    %s", to < end ? "..." : "", from > begin ? "   " : "");
    for (const char *p = from; p < at; p++)
        if (!continues(*p))
            fputc(*p == '\t' ? '\t' : ' ', errors);
    fputs("^\n", errors);
}

static int fail_at(struct parser *ps, const char *at, const char *text)
{
    if (ps->n_errors++ < IPS_ERRORS_MAX) {
        fprintf(ps->errors, "%s:%u:%u: %s\n", ps->rules->name, ps->line, column_of(ps->begin, at), text);
        show(ps->errors, ps->begin, at, ps->end);
    }
    return -EINVAL;
}

void ips_rules_error(const struct ips_rules *rules, const struct ips_rule *rule, FILE *errors, const char *text)
{
    const char *begin = rules->text, *limit = rules->text + rules->len;
    for (uint32_t line = 1; line < rule->line; line++)
        begin = (const char *)memchr(begin, '\n', (size_t)(limit - begin)) + 1;
    const char *end = memchr(begin, '\n', (size_t)(limit - begin));
    if (!end)
        end = limit;
    if (end > begin && end[-1] == '\r')
        end--;
    const char *at = begin;
    for (uint32_t column = 1; at < end && column < rule->column; column++)
        do
            at++;
        while (at < end && continues(*at));
    fprintf(errors, "%s:%u:%u: %s\n", rules->name, rule->line, rule->column, text);
    show(errors, begin, at, end);
}

/* ---- values ---- */
static bool blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool ended(const struct parser *ps)
{
    return ps->at == ps->end || blank(*ps->at);
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The character after a backslash, as the byte that it stands for. */
static int escaped(struct parser *ps, char *out)
{
    static const char names[] = "nrt0\\\"", bytes[] = "\n\r\t\0\\\"";
    const char *backslash = ps->at++;
    char c = ps->at < ps->end ? *ps->at : '\0';
    if (c == 'x' && ps->end - ps->at > 2 && hex(ps->at[1]) >= 0 && hex(ps->at[2]) >= 0) {
        *out = (char)(hex(ps->at[1]) << 4 | hex(ps->at[2]));
        ps->at += 3;
        return 0;
    }
    const char *name = c ? strchr(names, c) : NULL;
    if (!name)
        return fail_at(ps, backslash, "expected one of the escapes \\xNN \\\" \\\\ \\n \\r \\t \\0");
    *out = bytes[name - names];
    ps->at++;
    return 0;
}

static int quoted(struct parser *ps, char **out, size_t *len)
{
    const char *open = ps->at;
    if (ps->at == ps->end || *ps->at != '"')
        return fail_at(ps, ps->at, "expected a text in double quotes");
    ps->at++;
    char *text = malloc((size_t)(ps->end - ps->at) + 1);
    if (!text)
        return -ENOMEM;
    int rc = 0;
    size_t n = 0;
    while (rc == 0 && ps->at < ps->end && *ps->at != '"') {
        if (*ps->at == '\\')
            rc = escaped(ps, &text[n++]);
        else if ((unsigned char)*ps->at < ' ' && *ps->at != '\t')
            rc = fail_at(ps, ps->at, "expected an escape such as \\n or \\x07 in place of a control character");
        else
            text[n++] = *ps->at++;
    }
    if (rc == 0 && ps->at == ps->end)
        rc = fail_at(ps, open, "expected a closing double quote for this one");
    if (rc < 0) {
        free(text);
        return rc;
    }
    ps->at++;
    text[n] = '\0';
    *out = text;
    *len = n;
    return 0;
}

static int read_content(struct parser *ps, struct ips_rule *r)
{
    const char *open = ps->at;
    r->literal = true;
    r->column = column_of(ps->begin, open);
    int rc = quoted(ps, &r->pattern, &r->pattern_len);
    if (rc == 0 && r->pattern_len == 0)
        rc = fail_at(ps, open, "expected at least one character of content");
    return rc;
}

static int read_pcre(struct parser *ps, struct ips_rule *r)
{
    const char *open = ps->at;
    r->column = column_of(ps->begin, open);
    if (ps->at == ps->end || *ps->at != '/')
        return fail_at(ps, ps->at, "expected a pattern as /PATTERN/FLAGS");
    const char *from = ++ps->at;
    for (; ps->at < ps->end && *ps->at != '/'; ps->at++) {
        if (*ps->at == '\0')
            return fail_at(ps, ps->at, "expected \\x00 in place of a zero byte");
        if (*ps->at == '\\' && ps->at + 1 < ps->end && ps->at[1] != '\0')
            ps->at++;
    }
    if (ps->at == ps->end)
        return fail_at(ps, open, "expected a closing / for this one (a / inside of a pattern is written \\/)");
    if (ps->at == from)
        return fail_at(ps, open, "expected at least one character of pattern");
    r->pattern_len = (size_t)(ps->at - from);
    r->pattern = strndup(from, r->pattern_len);
    if (!r->pattern)
        return -ENOMEM;
    for (ps->at++; !ended(ps); ps->at++) {
        bool *flag = *ps->at == 'i' ? &r->nocase : *ps->at == 's' ? &r->dotall : *ps->at == 'm' ? &r->multiline : NULL;
        if (!flag || *flag)
            return fail_at(ps, ps->at, "expected a blank, or each of the flags i, s and m at most once");
        *flag = true;
    }
    return 0;
}

static int read_id(struct parser *ps, struct ips_rule *r)
{
    const char *from = ps->at;
    uint64_t id = 0;
    for (; ps->at < ps->end && *ps->at >= '0' && *ps->at <= '9' && id <= UINT32_MAX; ps->at++)
        id = id * 10 + (uint64_t)(*ps->at - '0');
    if (!ended(ps) || id == 0 || id > UINT32_MAX)
        return fail_at(ps, from, "expected a number from 1 to 4294967295");
    r->id = (uint32_t)id;

    uint32_t slot = r->id * 2654435761u % IDS;
    for (; ps->ids[slot] != 0; slot = (slot + 1) % IDS)
        if (ps->rules->rule[ps->ids[slot] - 1].id == r->id)
            return fail_at(ps, from, "expected a number that no rule above has");
    return 0;
}

/* One of several words: its index, or a negative errno. */
static int read_word(struct parser *ps, const char *const words[], int n, const char *expected)
{
    const char *from = ps->at;
    while (!ended(ps))
        ps->at++;
    size_t len = (size_t)(ps->at - from);
    for (int i = 0; i < n; i++)
        if (strlen(words[i]) == len && memcmp(words[i], from, len) == 0)
            return i;
    return fail_at(ps, from, expected);
}

/* ---- a line ---- */
static int read_field(struct parser *ps, struct ips_rule *r, unsigned *seen)
{
    static const struct {
        const char *name;
        enum field field;
    } keys[] = { { "id=", ID },        { "action=", ACTION }, { "content=", PATTERN }, { "pcre=", PATTERN },
                 { "nocase", NOCASE }, { "to=", TO },         { "msg=", MSG } };
    enum { KEYS = sizeof keys / sizeof *keys };

    const char *from = ps->at;
    size_t left = (size_t)(ps->end - from), i;
    for (i = 0; i < KEYS; i++)
        if (strlen(keys[i].name) <= left && memcmp(keys[i].name, from, strlen(keys[i].name)) == 0)
            break;
    if (i == KEYS)
        return fail_at(ps, from, "expected id=, action=, content=, pcre=, nocase, to= or msg=");
    enum field field = keys[i].field;
    if (*seen & field)
        return fail_at(ps, from, field == PATTERN ? "expected one content= or pcre= only" : "expected this only once");
    *seen |= field;
    ps->at += strlen(keys[i].name);

    int rc = 0;
    size_t len;
    switch (field) {
    case ID:
        rc = read_id(ps, r);
        break;
    case ACTION:
        rc = read_word(ps, action_names, IPS_ACTIONS, "expected alert, drop or reset");
        r->action = rc > 0 ? (enum ips_action)rc : IPS_ALERT;
        break;
    case PATTERN:
        rc = from[0] == 'c' ? read_content(ps, r) : read_pcre(ps, r);
        break;
    case NOCASE:
        break;
    case TO:
        rc = read_word(ps, to_names, 3, "expected server, client or any");
        r->to = rc > 0 ? (enum ips_to)rc : IPS_TO_ANY;
        break;
    case MSG:
        from = ps->at;
        rc = quoted(ps, &r->msg, &len);
        if (rc == 0 && strlen(r->msg) != len)
            rc = fail_at(ps, from, "expected a message without zero bytes");
        break;
    }
    if (rc >= 0 && !ended(ps))
        rc = fail_at(ps, ps->at, "expected a blank or the end of the line");
    return rc < 0 ? rc : 0;
}

static void clear_rule(struct ips_rule *r)
{
    free(r->pattern);
    free(r->msg);
}

static int keep_rule(struct parser *ps, const struct ips_rule *r)
{
    struct ips_rules *rules = ps->rules;
    if (rules->n == ps->room) {
        size_t room = ps->room ? ps->room * 2 : 64;
        struct ips_rule *more = realloc(rules->rule, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        rules->rule = more;
        ps->room = room;
    }
    rules->rule[rules->n++] = *r;
    uint32_t slot = r->id * 2654435761u % IDS;
    while (ps->ids[slot] != 0)
        slot = (slot + 1) % IDS;
    ps->ids[slot] = (uint32_t)rules->n;
    return 0;
}

static int read_line(struct parser *ps)
{
    if (ps->end - ps->begin > IPS_LINE_MAX)
        return fail_at(ps, ps->begin + IPS_LINE_MAX, "expected at most 4096 bytes in a line");
    while (ps->at < ps->end && blank(*ps->at))
        ps->at++;
    if (ps->at == ps->end || *ps->at == '#')
        return 0;
    const char *from = ps->at;
    if (ps->rules->n == IPS_RULES_MAX)
        return fail_at(ps, from, "expected at most 65536 rules");

    struct ips_rule r = { .line = ps->line };
    unsigned seen = 0;
    int rc = 0;
    while (rc == 0 && ps->at < ps->end && *ps->at != '#') {
        rc = read_field(ps, &r, &seen);
        while (ps->at < ps->end && blank(*ps->at))
            ps->at++;
    }
    if (rc == 0) {
        if (!(seen & ID))
            rc = fail_at(ps, from, "expected an id=NUMBER in this rule");
        else if (!(seen & ACTION))
            rc = fail_at(ps, from, "expected an action= in this rule");
        else if (!(seen & PATTERN))
            rc = fail_at(ps, from, "expected a content= or pcre= in this rule");
        else if (!(seen & MSG))
            rc = fail_at(ps, from, "expected a msg= in this rule");
        else if (seen & NOCASE && !r.literal)
            rc = fail_at(ps, from, "expected the flag i after the pattern in place of nocase");
    }
    if (seen & NOCASE)
        r.nocase = true;
    if (rc == 0)
        rc = keep_rule(ps, &r);
    if (rc < 0)
        clear_rule(&r);
    return rc;
}

int ips_rules_parse(struct ips_rules **out, const char *name, const char *text, size_t len, FILE *errors)
{
    struct parser ps = { .errors = errors, .ids = calloc(IDS, sizeof(uint32_t)), .rules = calloc(1, sizeof *ps.rules) };
    int rc = ps.ids && ps.rules ? 0 : -ENOMEM;
    if (rc == 0) {
        ps.rules->name = strdup(name);
        ps.rules->text = malloc(len + 1);
        rc = ps.rules->name && ps.rules->text ? 0 : -ENOMEM;
    }
    if (rc == 0) {
        ps.rules->len = len;
        memcpy(ps.rules->text, text, len);
        ps.rules->text[len] = '\0';
        const char *p = ps.rules->text, *end = p + len;
        while (p < end && rc != -ENOMEM) {
            const char *newline = memchr(p, '\n', (size_t)(end - p));
            ps.line++;
            ps.begin = ps.at = p;
            ps.end = newline ? newline : end;
            if (ps.end > p && ps.end[-1] == '\r')
                ps.end--;
            rc = read_line(&ps);
            p = newline ? newline + 1 : end;
        }
    }
    free(ps.ids);
    if (rc != -ENOMEM) {
        rc = ps.n_errors ? -EINVAL : 0;
        if (ps.n_errors > IPS_ERRORS_MAX)
            fprintf(errors, "%s: and %u more errors\n", name, ps.n_errors - IPS_ERRORS_MAX);
        if (rc == 0 && ps.rules->n == 0) {
            fprintf(errors, "%s: expected at least one rule\n", name);
            rc = -EINVAL;
        }
    }
    if (rc < 0)
        ips_rules_free(ps.rules);
    else
        *out = ps.rules;
    return rc;
}

int ips_rules_read(struct ips_rules **out, const char *path, FILE *errors)
{
    char *text = NULL;
    size_t len = 0, room = 0, got;
    int rc = 0;
    FILE *file = fopen(path, "re");
    if (!file) {
        rc = -errno;
        fprintf(errors, "%s: %s\n", path, strerror(-rc));
        return rc;
    }
    do {
        if (len == room) {
            room = room ? room * 2 : 16384;
            char *more = realloc(text, room);
            if (!more) {
                rc = -ENOMEM;
                break;
            }
            text = more;
        }
        got = fread(text + len, 1, room - len, file);
        len += got;
    } while (got > 0 && len <= (size_t)IPS_RULES_MAX * IPS_LINE_MAX);
    if (ferror(file))
        rc = -EIO;
    if (rc < 0)
        fprintf(errors, "%s: %s\n", path, strerror(-rc));
    else
        rc = ips_rules_parse(out, path, text, len, errors);
    fclose(file);
    free(text);
    return rc;
}

void ips_rules_free(struct ips_rules *rules)
{
    if (!rules)
        return;
    for (size_t i = 0; i < rules->n; i++)
        clear_rule(&rules->rule[i]);
    free(rules->rule);
    free(rules->name);
    free(rules->text);
    free(rules);
}
