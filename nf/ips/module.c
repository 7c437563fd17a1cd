/* SPDX-License-Identifier: Apache-2.0 */
/* module.c - the IPS as the netstar command starts it, in its two ways of being written. */
#include "../modules.h"
#include "common/complain.h"
#include "ips.h"
#include <stdlib.h>
#include <string.h>

#define COMMON_OPTIONS                                                                                         \
    { "rules", "FILE", "what to look for, see nf/ips/README.md", NST_OPTION_REQUIRED | NST_OPTION_RELOADS },   \
        { "alerts", "FILE", "the alert log, - for standard output (alerts.jsonl)", false },                    \
        { "midstream", "WHAT",                                                                                 \
          "drop, reset or pickup flows whose earlier bytes nobody knows (drop; --fail open: pickup)", false }, \
    {                                                                                                          \
        "ttl", "SECONDS", "how long the store keeps a direction after its last packet (3600)", false           \
    }

static const struct nst_option options[] = {
    COMMON_OPTIONS,
    { "state", "HOW",
      "kept: read once, then kept here and written through; each: read and written at each packet (kept)", false },
    { "kept", "N", "directions whose state is kept here at most (65536)", false },
    { 0 },
};

static const struct nst_option callback_options[] = { COMMON_OPTIONS, { 0 } };

enum { AUTOMATON_HEAD = 16 }; /* bytes by which a compressed automaton may be longer than an open one */

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

/* What is kept of a stream has a place of one size, chosen at the start: twice what these rules need, so that others may
 * follow them. */
static int make_room(struct ips_config *config, bool kept, const struct ips_config *before, const char *path,
                     const char **why)
{
    config->room = IPS_AUTOMATON_MAX;
    if (!kept)
        return 0;
    struct ips_scan_sizes sizes;
    ips_scan_sizes(config->scanner[0], &sizes);
    size_t most = sizes.open + AUTOMATON_HEAD;
    most = most < IPS_AUTOMATON_MAX ? most : IPS_AUTOMATON_MAX;
    if (before && before->room < most)
        return nf_complain(why, -EINVAL,
                           "--rules %s: the state of one stream may take %zu bytes, and what is kept has room for %u: "
                           "expected simpler rules, or a restart",
                           path, most, before->room);
    config->room = before ? before->room : 2 * most < IPS_AUTOMATON_MAX ? (uint32_t)(2 * most) : IPS_AUTOMATON_MAX;
    return 0;
}

static void say_changes(const struct ips_config *before, const struct ips_config *config, FILE *said)
{
    if (ips_scanner_fingerprint(before->scanner[0]) == ips_scanner_fingerprint(config->scanner[0]))
        fprintf(said, "%zu rules; their patterns are as they were\n", config->rules->n);
    else
        fprintf(said, "%zu rules, were %zu; streams that are half scanned begin anew where they stand\n",
                config->rules->n, before->rules->n);
}

static int prepare(const struct nst_module_env *env, const struct ips_config *old, void **out, bool kept, FILE *said,
                   const char **why)
{
    const char *path = env->option(env, "rules");
    if (!path)
        return nf_complain(why, -EINVAL, "--rules FILE is missing: expected a file with one rule a line");
    struct ips_config *config = calloc(1, sizeof *config + env->n_cores * sizeof *config->scanner);
    if (!config)
        return nf_complain(why, -ENOMEM, "out of memory");
    config->n = env->n_cores;
    int rc = load_rules(config, path, why);
    if (rc == 0)
        rc = make_room(config, kept, old, path, why);
    if (rc < 0) {
        module_dispose(config);
        return rc;
    }
    if (old)
        say_changes(old, config, said);
    *out = config;
    return 0;
}

static bool keeps(const struct nst_module_env *env)
{
    const char *how = env->option(env, "state");
    return !how || strcmp(how, "each") != 0;
}

static int module_prepare(const struct nst_module_env *env, const void *old, void **out, FILE *said, const char **why)
{
    return prepare(env, old, out, keeps(env), said, why);
}

static int callback_prepare(const struct nst_module_env *env, const void *old, void **out, FILE *said, const char **why)
{
    return prepare(env, old, out, false, said, why);
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
    nst_state_close(ips->streams);
    ips_alerts_close(ips->alerts);
    free(ips);
}

static int open_state(struct ips *ips, const struct nst_module_env *env, const char **why)
{
    const char *how = env->option(env, "state"), *kept = env->option(env, "kept");
    char *end = NULL;
    long n = kept ? strtol(kept, &end, 10) : 65536;
    if (how && strcmp(how, "kept") != 0 && strcmp(how, "each") != 0)
        return nf_complain(why, -EINVAL, "--state %s: expected kept or each", how);
    if (kept && (end == kept || *end || n < 64 || n > 1 << 24))
        return nf_complain(why, -EINVAL, "--kept %s: expected a number from 64 to %d", kept, 1 << 24);
    if (!keeps(env))
        return 0;
    const struct nst_state_config config = {
        .name = "ips:",
        .kind = NST_STATE_OWNED,
        .size = IPS_STATE_FIXED + 2 * ips->config->room,
        .key_max = NST_FLOW_KEY_MAX,
        .kept = (uint32_t)n,
        .ttl = ips->ttl,
        .local = sizeof(struct ips_place),
    };
    int rc = nst_state_open(&ips->streams, ips->store, &config);
    if (rc < 0)
        return nf_complain(why, rc, "the state cannot be opened: %s", strerror(-rc));
    for (int side = 0; side < 2; side++) {
        ips->nf.half[side].handler = ips_kept_handler;
        ips->nf.half[side].on_received |= NST_EV_RETRANSMIT;
    }
    return 0;
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
    if (rc == 0 && handler == ips_handler)
        rc = open_state(ips, env, why);
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
    struct nst_state_stats kept = { 0 };
    if (more->streams)
        nst_state_stats(more->streams, &kept);
    nst_state_stats_add(&ips->kept, &kept);
    nst_state_stats_add(&ips->kept, &more->kept);
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
    line(out, "changes of records", ips->count.states);
    if (ips->streams) {
        struct nst_state_stats kept;
        nst_state_stats(ips->streams, &kept);
        nst_state_stats_add(&kept, &ips->kept);
        line(out, "records read", kept.claims);
        line(out, "records written", kept.writes);
        line(out, "records lost to others", kept.stale);
        line(out, "records kept, at most", kept.kept_peak);
        line(out, "packets that waited", kept.sent_late);
    }
    line(out, "bytes a record, mean", ips->count.states ? ips->count.state_bytes / ips->count.states : 0);
    line(out, "bytes a record, largest", ips->count.state_peak);
    line(out, "bytes of an open automaton", sizes.open);
}

static const char *const alike[] = { "rules", NULL };

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
    .alike = alike,
    .prepare = module_prepare,
    .swap = module_swap,
    .dispose = module_dispose,
};

const struct nst_module ips_callback_module = {
    .abi = NST_MODULE_ABI,
    .name = "ips-callback",
    .summary = "the same, written with callbacks",
    .options = callback_options,
    .uses_store = true,
    .open = open_callback,
    .close = module_close,
    .quiet = module_quiet,
    .merge = module_merge,
    .report = module_report,
    .alike = alike,
    .prepare = callback_prepare,
    .swap = module_swap,
    .dispose = module_dispose,
};
