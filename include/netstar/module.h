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

#define NST_MODULE_ABI 2

struct nst_option { /* --name VALUE on the command line */
    const char *name;
    const char *value_name; /* in the help; NULL: a switch, whose value is "yes" */
    const char *help;
    bool required;
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
};

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
    /* Further lines of the closing report, "  name  value\n" each. May be NULL. */
    void (*report)(void *arg, FILE *out);
};

#ifdef __cplusplus
}
#endif
