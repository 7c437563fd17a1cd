/* SPDX-License-Identifier: Apache-2.0 */
/* cli/prepare.h - the configuration of a module, made from what its options name, at the start and for a reload. */
#pragma once
#include "settings.h"

struct prepared {
    void *config; /* the module's */
    char *said;   /* what has changed, a line each, or NULL */
    char why[4096];
};

/* Has the module make its configuration for all cores of these settings; `old` is the one at work, or NULL. 0, or a
 * negative errno with what is wrong in `why`. A module that has none gets NULL. It may take long; any thread, one at a
 * time. Free it with prepared_free, also after an error. */
int prepare(const struct settings *s, const void *old, struct prepared *out);

/* Frees what was said, but not the configuration. */
void prepared_free(struct prepared *p);

/* NULL is allowed. */
void prepare_dispose(const struct settings *s, void *config);
