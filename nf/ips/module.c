/* SPDX-License-Identifier: Apache-2.0 */
/* module.c - the IPS as the netstar command starts it, in its two ways of being written. */
#include "../modules.h"
#include "common/complain.h"
#include "ips.h"
#include <stdlib.h>
#include <string.h>

static const struct nst_option options[] = {
    { "rules", "FILE", "what to look for, see nf/ips/README.md", NST_OPTION_REQUIRED | NST_OPTION_RELOADS },
    { "alerts", "FILE", "the alert log, - for standard output (alerts.jsonl)", false },
    { "midstream", "WHAT", "drop, reset or pickup flows whose earlier bytes nobody knows (drop; --fail open: pickup)",
      false },
    { "ttl", "SECONDS", "how long the store keeps a direction after its last packet (3600)", false },
    { 0 },
};

static int read_options(struct ips *ips, const struct nst_module_env *env, const char **why)
{
    struct nst_policy *policy = &ips->nf.policy;
    enum nst_verdict failing = env->fail_open ? NST_FORWARD : NST_DROP;
    policy->otherwise = policy->on_timeout = policy->on_store = failing;
    policy->on_hold_full = policy->on_no_memory = failing;
    policy->on_conflict = NST_DROP; /* not a failure: somebody sends two versions of the same bytes */

    const char *midstream = env->option(env, "midstream");
    if (!midstream)
        midstream = env->fail_open ? "pickup" : "drop";
    if (strcmp(midstream, "pickup") == 0)
        policy->on_midstream = NST_FORWARD;
    else if (strcmp(midstream, "drop") == 0)
        policy->on_midstream = NST_DROP;
    else if (strcmp(midstream, "reset") == 0)
        policy->on_midstream = NST_RESET_FLOW;
    else
        return nf_complain(why, -EINVAL, "--midstream %s: expected drop, reset or pickup", midstream);
    ips->pickup = policy->on_midstream == NST_FORWARD;

    const char *ttl = env->option(env, "ttl");
    char *end = NULL;
    long seconds = ttl ? strtol(ttl, &end, 10) : 3600;
    if (ttl && (end == ttl || *end || seconds < 1 || seconds > 31536000))
        return nf_complain(why, -EINVAL, "--ttl %s: expected a number of seconds from 1 to 31536000", ttl);
    ips->ttl = NST_SEC(seconds);
    return 0;
}

/* ---- rules, which are swapped while packets run ---- */
static void module_dispose(void *arg)
{
    struct ips_config *config = arg;
    for (unsigned i = config->n; i-- > 0;)
        ips_scanner_close(config->scanner[i]);
    ips_rules_free(config->rules);
    free(config);
}

static int load_rules(struct ips_config *config, const char *path, const char **why)
{
    char *text = NULL;
    size_t len = 0;
    FILE *errors = open_memstream(&text, &len);
    if (!errors)
        return nf_complain(why, -ENOMEM, "out of memory");
    int rc = ips_rules_read(&config->rules, path, errors);
    if (rc == 0)
        rc = ips_scanner_open(&config->scanner[0], config->rules, errors);
    for (unsigned i = 1; rc == 0 && i < config->n; i++)
        rc = ips_scanner_again(&config->scanner[i], config->scanner[0]);
    fclose(errors);
    while (len > 0 && text[len - 1] == '\n')
        text[--len] = '\0';
    if (rc < 0)
        nf_complain(why, rc, "--rules %s: %s", path, len > 0 ? text : strerror(-rc));
    free(text);
    return rc;
}

static void say_changes(const struct ips_config *before, const struct ips_config *config, FILE *said)
{
    if (ips_scanner_fingerprint(before->scanner[0]) == ips_scanner_fingerprint(config->scanner[0]))
        fprintf(said, "%zu rules; their patterns are as they were\n", config->rules->n);
    else
        fprintf(said, "%zu rules, were %zu; streams that are half scanned begin anew where they stand\n",
                config->rules->n, before->rules->n);
}

static int module_prepare(const struct nst_module_env *env, const void *old, void **out, FILE *said, const char **why)
{
    const char *path = env->option(env, "rules");
    if (!path)
        return nf_complain(why, -EINVAL, "--rules FILE is missing: expected a file with one rule a line");
    struct ips_config *config = calloc(1, sizeof *config + env->n_cores * sizeof *config->scanner);
    if (!config)
        return nf_complain(why, -ENOMEM, "out of memory");
    config->n = env->n_cores;
    int rc = load_rules(config, path, why);
    if (rc < 0) {
        module_dispose(config);
        return rc;
    }
    if (old)
        say_changes(old, config, said);
    *out = config;
    return 0;
}

static void use(struct ips *ips, const struct ips_config *config)
{
    ips->config = config;
    ips->scanner = config->scanner[ips->core];
}

static void module_swap(void *arg, void *config)
{
    struct ips *ips = arg;
    ips_alerts_hurry(ips->alerts);
    use(ips, config);
}

/* ---- opening and closing ---- */
static void module_close(void *arg)
{
    struct ips *ips = arg;
    ips_callback_close(ips);
    ips_alerts_close(ips->alerts);
    free(ips);
}

static int open_with(const struct nst_module_env *env, const char *name,
                     enum nst_verdict (*handler)(struct nst_flow *, const struct nst_event *), const struct nst_nf **nf,
                     void **arg, const char **why)
{
    struct ips *ips = calloc(1, sizeof *ips);
    if (!ips)
        return nf_complain(why, -ENOMEM, "out of memory");
    ips->store = env->store;
    ips->core = env->core;
    use(ips, env->config);
    ips->nf.name = name;
    ips->nf.proto = 6;
    for (int side = 0; side < 2; side++)
        ips->nf.half[side] = (struct nst_half){
            .inspect = &nst_tcp,
            .on_received = NST_EV_DATA | NST_EV_MIDSTREAM | NST_EV_CLOSE,
            .handler = handler,
        };
    int rc = read_options(ips, env, why);
    if (rc == 0) {
        const char *path = env->option(env, "alerts");
        path = path ? path : "alerts.jsonl";
        rc = ips_alerts_open(&ips->alerts, path, env->replay);
        if (rc < 0)
            nf_complain(why, rc, "--alerts %s: %s", path, strerror(-rc));
    }
    if (rc < 0) {
        module_close(ips);
        return rc;
    }
    *nf = &ips->nf;
    *arg = ips;
    return 0;
}

static int open_handler(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    return open_with(env, "ips", ips_handler, nf, arg, why);
}

static int open_callback(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    return open_with(env, "ips-callback", ips_callback_handler, nf, arg, why);
}

static void module_quiet(void *arg)
{
    struct ips *ips = arg;
    ips_alerts_quiet(ips->alerts);
}

static void line(FILE *out, const char *name, uint64_t value)
{
    fprintf(out, "  %-26s  %14llu\n", name, (unsigned long long)value);
}

static void module_merge(void *arg, const void *other)
{
    struct ips *ips = arg;
    const struct ips *more = other;

    ips->count.bytes += more->count.bytes;
    for (int i = 0; i < IPS_ACTIONS; i++)
        ips->count.alerts[i] += more->count.alerts[i];
    ips->count.matches_skipped += more->count.matches_skipped;
    ips->count.blocked += more->count.blocked;
    ips->count.blocked_before += more->count.blocked_before;
    ips->count.resumed += more->count.resumed;
    ips->count.picked_up += more->count.picked_up;
    ips->count.restarted += more->count.restarted;
    ips->count.bad_records += more->count.bad_records;
    ips->count.not_forgotten += more->count.not_forgotten;
    ips->count.states += more->count.states;
    ips->count.state_bytes += more->count.state_bytes;
    if (more->count.state_peak > ips->count.state_peak)
        ips->count.state_peak = more->count.state_peak;
    ips->alerts_lost += more->alerts_lost + ips_alerts_lost(more->alerts);
}

static void module_report(void *arg, FILE *out)
{
    struct ips *ips = arg;
    struct ips_scan_sizes sizes;
    ips_scan_sizes(ips->scanner, &sizes);
    line(out, "rules", ips->config->rules->n);
    line(out, "bytes scanned", ips->count.bytes);
    for (int i = 0; i < IPS_ACTIONS; i++) {
        char name[32];
        snprintf(name, sizeof name, "alerts, %s", ips_action_name((enum ips_action)i));
        line(out, name, ips->count.alerts[i]);
    }
    line(out, "alerts not written", ips->alerts_lost + ips_alerts_lost(ips->alerts));
    line(out, "matches beyond the limit", ips->count.matches_skipped);
    line(out, "flows blocked", ips->count.blocked);
    line(out, "flows blocked before", ips->count.blocked_before);
    line(out, "directions taken over", ips->count.resumed);
    line(out, "directions picked up", ips->count.picked_up);
    line(out, "restarted for other rules", ips->count.restarted);
    line(out, "records not understood", ips->count.bad_records);
    line(out, "records not deleted", ips->count.not_forgotten);
    line(out, "records written", ips->count.states);
    line(out, "bytes a record, mean", ips->count.states ? ips->count.state_bytes / ips->count.states : 0);
    line(out, "bytes a record, largest", ips->count.state_peak);
    line(out, "bytes of an open automaton", sizes.open);
}

const struct nst_module ips_module = {
    .abi = NST_MODULE_ABI,
    .name = "ips",
    .summary = "intrusion prevention: stops TCP streams that match rules; its state is in the store",
    .options = options,
    .uses_store = true,
    .open = open_handler,
    .close = module_close,
    .quiet = module_quiet,
    .merge = module_merge,
    .report = module_report,
    .prepare = module_prepare,
    .swap = module_swap,
    .dispose = module_dispose,
};

const struct nst_module ips_callback_module = {
    .abi = NST_MODULE_ABI,
    .name = "ips-callback",
    .summary = "the same, written with callbacks",
    .options = options,
    .uses_store = true,
    .open = open_callback,
    .close = module_close,
    .quiet = module_quiet,
    .merge = module_merge,
    .report = module_report,
    .prepare = module_prepare,
    .swap = module_swap,
    .dispose = module_dispose,
};
