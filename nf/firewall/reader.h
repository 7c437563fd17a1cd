/* SPDX-License-Identifier: Apache-2.0 */
/* firewall/reader.h - what the files that read the rule file share. */
#pragma once
#include "rules.h"
#include <limits.h>

struct fw_set {
    char *name;
    struct nf_addresses *addresses;
};

struct fw_store {
    struct fw_set *set;
    size_t n_sets;
    struct nf_addresses **own; /* of rules, without a name */
    size_t n_own;
    char **file; /* names and texts */
    size_t n_files;
};

struct fw_reader {
    struct fw_rules *rules;
    struct nf_text *text; /* the file at hand */
    FILE *errors;
    unsigned n_errors;
    unsigned depth; /* of includes */
    size_t room;
    bool has_default;
};

/* Makes room for one more in an array of n, to which `array` points. -ENOMEM. */
int fw_grow(void *array, size_t n, size_t size);
/* A copy that lives as long as the rules. NULL: no memory. */
char *fw_keep_text(struct fw_store *s, const char *p, size_t len);
/* Goes on with the number of all that was read. */
uint64_t fw_mix(uint64_t h, const void *p, size_t len);
/* A name of a file, relative to the folder of the file that it stands in. -ENAMETOOLONG. */
int fw_resolve(const struct nf_text *t, const struct nf_word *w, char path[PATH_MAX]);
/* What stands behind `set`. 0, -EINVAL with an error written, -ENOMEM. */
int fw_read_set(struct fw_reader *r);
/* What stands behind from and to: any, or an address, prefix, range, @set, or several in braces, with or without a ! before
 * it. As above. */
int fw_read_end(struct fw_reader *r, struct fw_end *e);
