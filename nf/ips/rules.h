/* SPDX-License-Identifier: Apache-2.0 */
/* ips/rules.h - the rule file: one rule a line, `#` starts a comment, blank lines are skipped.
 *
 *   id=1001 action=drop content="evil|stuff" nocase to=server msg="text"
 *   id=1002 action=alert pcre=/user=\d+;/i msg="text"
 *
 * Rules are plain data once they are read, and are never changed. Any thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    IPS_RULES_MAX = 65536, /* in one file */
    IPS_LINE_MAX = 4096,   /* bytes of one line */
    IPS_ERRORS_MAX = 20,   /* reported for one file */
};

enum ips_action { IPS_ALERT, IPS_DROP, IPS_RESET, IPS_ACTIONS };
enum ips_to { IPS_TO_ANY, IPS_TO_SERVER, IPS_TO_CLIENT };

struct ips_rule {
    uint32_t id;           /* from 1, unique */
    uint32_t line, column; /* where its pattern stands, from 1; columns count characters */
    enum ips_action action;
    enum ips_to to; /* the end whose received stream is looked at */
    bool literal;   /* content, not pcre */
    bool nocase, dotall, multiline;
    char *pattern; /* unescaped bytes of a content, or a pcre as it was written; ends with a NUL */
    size_t pattern_len;
    char *msg; /* ends with a NUL */
};

struct ips_rules {
    struct ips_rule *rule;
    size_t n;
    char *name; /* of the file */
    char *text; /* its content, for messages */
    size_t len;
};

/* Reads rules out of a text. Errors are written as "name:line:column: what was expected", each with the line and a
 * caret below it, at most one a line and IPS_ERRORS_MAX in all. -EINVAL when there was any, or no rule; -ENOMEM. */
int ips_rules_parse(struct ips_rules **out, const char *name, const char *text, size_t len, FILE *errors);

/* The same of a file; also the errno of reading it, with a line in errors. */
int ips_rules_read(struct ips_rules **out, const char *path, FILE *errors);

/* Writes an error that was found later, e.g. by the compiler of the patterns, in the same form. */
void ips_rules_error(const struct ips_rules *rules, const struct ips_rule *rule, FILE *errors, const char *text);

/* NULL is allowed. */
void ips_rules_free(struct ips_rules *rules);

const char *ips_action_name(enum ips_action action);
