/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/module.h - an NF as the netstar command runs it: `netstar run NAME ...`, built in or loaded from a file
 * (`netstar run ./NAME.so ...`), which then exports `const struct nst_module nst_module`.
 */
#pragma once
#include <netstar/cores.h>
#include <netstar/flow.h>
#include <netstar/store.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NST_MODULE_ABI 4

/* --name VALUE on the command line; in a configuration file under `options`, where a list of values is handed over joined
 * by commas. */
struct nst_option {
    const char *name;
    const char *value_name; /* in the help; NULL: a switch, whose value is "yes" */
    const char *help;
    unsigned flags; /* of enum nst_option_flag; true is NST_OPTION_REQUIRED */
};
enum nst_option_flag {
    NST_OPTION_REQUIRED = 1,
    NST_OPTION_RELOADS = 2, /* prepare reads it: where it stands in a configuration file it may change at a reload */
};

/* What the command gives to an NF when it starts, on the reactor, before any packet. With several cores there is an
 * instance for each: open, merge, report and close are called on one core at a time, so they may use what they share
 * (a file's name, tables filled in at the first open); what packets cause runs on all cores at once. */
struct nst_module_env {
    struct nst_store *store;                                                /* --store; NULL when uses_store is false */
    const char *(*option)(const struct nst_module_env *, const char *name); /* the given value, or NULL */
    bool replay;                                                            /* the input is a capture */
    bool fail_open;                                                         /* --fail open */
    const struct nst_cores *cores;                                          /* for nst_core_of; NULL: one core */
    unsigned core;                                                          /* this one */
    unsigned n_cores;                                                       /* of so many; at least 1 */
    void *config;                                                           /* what prepare made; NULL without it */
};

/* Live reload. What an NF reads from files (rules, back ends) is made by prepare, apart from the NF itself, and is not
 * changed any more once it is at work; then another can take its place between two packets, and flows are kept:
 *
 *   at the start   prepare once, then open on each core, with env->config
 *   a reload       prepare once, with the one at work as `old`; swap on each core; when on every core every handler that
 *                  had begun before its swap has ended, dispose of the old
 *   at the end     close on each core, then dispose of the last
 *
 * So a handler may use what it found in the configuration until it returns (callbacks: until nst_resume), across its
 * waits; a loop until its next nst_next or nst_read. What is kept longer (a flow's state) names things by number or
 * name, not by pointer, and tasks of the NF's own keep what they need themselves. The cores swap one after another, so
 * for a moment some work by the old and some by the new. If prepare fails nothing has changed. */

struct nst_module {
    uint32_t abi; /* NST_MODULE_ABI */
    const char *name, *summary;
    const struct nst_option *options; /* ends with a NULL name; NULL: none */
    bool uses_store;
    /* Makes the NF: *nf and *arg (as nst_nf_arg will return it) live until close. A negative errno and *why in words
     * when an option's value is wrong. */
    int (*open)(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why);
    void (*close)(void *arg);
    /* No packet is on its way and no handler runs, e.g. between the bursts of a capture: write out what was collected
     * in the order of the packets. May be NULL. */
    void (*quiet)(void *arg);
    /* With several cores, when all packets are through: adds another instance's numbers to this one's, for report,
     * which then is called on this one only. NULL: the report is the first core's. */
    void (*merge)(void *arg, const void *other);
    /* Further lines of the report, "  name  value\n" each: at the end, and while it works when somebody asks, then on its
     * reactor, between two packets. Must not wait. May be NULL. */
    void (*report)(void *arg, FILE *out);
    /* Objects of the store that are kept here now (nst_state_stats), for `netstar top` and `netstar stats`. Called as report
     * is. May be NULL. */
    uint64_t (*kept)(void *arg);
    /* See "Live reload" above. NULL, all three: there is nothing to reload.
     *
     * Reads the options and files anew (only options with NST_OPTION_RELOADS; their values live as long as the
     * configuration) and makes a configuration for env->n_cores cores (env has no store, cores or
     * config). `old` is the one at work, for comparison only, and NULL at the start. A negative errno and *why in words
     * when something is wrong, with file and line where there are such; *why is taken before the next call on this
     * thread. Writes to `said` what has changed, a line each, without the NF's name ("rules: 12, were 11"). Called on a
     * thread of its own while packets run, one at a time: it may take as long as it needs, and may wait as plain
     * programs do, but not on a reactor. */
    int (*prepare)(const struct nst_module_env *env, const void *old, void **config, FILE *said, const char **why);
    /* From now on this NF works by `config`, whose core is the one of its open. On its reactor, between two packets.
     * Cannot fail: what could be missing is made by prepare. Must not wait. */
    void (*swap)(void *arg, void *config);
    /* Frees what prepare made, when no core works by it. Any thread. */
    void (*dispose)(void *config);
    /* While it works on several cores, the numbers of their reports are added up by name for `netstar stats`. These are not,
     * because each core says them of all: the first core's stand. A name that ends in '*' is for all that begin so. Ends
     * with NULL; NULL: there are none. */
    const char *const *alike;
};

#ifdef __cplusplus
}
#endif
