/* SPDX-License-Identifier: Apache-2.0 */
/* cli/config.h - a configuration file (YAML): the options of `netstar run` by their long names, and under `options` those
 * of its network function, which `nf` names.
 *
 *   nf: ips
 *   ports: [eth1, eth2]
 *   normalise: true
 *   options:
 *     rules: my.rules
 *
 * What an option takes as its value stands in the option table alone; here is only which form it has in YAML: a switch is
 * true or false, anything else one value, or a list where the command line takes commas or the option several times.
 * All that is wrong is told, each with line and column from 1.
 */
#pragma once
#include "options.h"
#include <stdarg.h>
#include <stdbool.h>

enum { CONFIG_SIZE_MAX = 1 << 20 };

/* Called for each mistake. line 0: of the file as a whole. */
typedef void config_say(void *arg, unsigned line, unsigned column, const char *text);

struct config;

/* Reads a file and its YAML. The errno of reading; -EINVAL: it is no YAML, or not a mapping. Then the mistake was said. */
int config_read(struct config **out, const char *path, config_say *say, void *arg);

/* What `nf` says and where, or NULL. Borrowed. */
const char *config_nf(const struct config *f, unsigned *line, unsigned *column);

/* Calls set(set_arg, spec, value) for each option in the file, in its order, value being NULL for a switch, else borrowed
 * from the file. `own` are the options of the network function called nf, and NULL with 0 of them where that is not
 * known: then they are not looked at. Returns the number of mistakes, all of which were said. */
enum config_form {
    CONFIG_ONE,  /* one value */
    CONFIG_LIST, /* or a list, which is joined by commas */
    CONFIG_EACH, /* or a list, each of which is given to the option */
};
struct config_specs {
    const struct option_spec *common, *own;
    const enum config_form *forms; /* of the common ones; any other may be a list */
    size_t n_common, n_own;
    const char *nf;
};
unsigned config_apply(struct config *f, const struct config_specs *specs, option_setter *set, void *set_arg,
                      config_say *say, void *arg);

/* NULL is allowed. */
void config_free(struct config *f);
