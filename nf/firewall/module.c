/* SPDX-License-Identifier: Apache-2.0 */
/* module.c - the firewall as the netstar command starts it. */
#include "../modules.h"
#include "common/complain.h"
#include "firewall.h"
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const struct nst_option options[] = {
    { "rules", "FILE", "what may open a connection, see nf/firewall/README.md",
      NST_OPTION_REQUIRED | NST_OPTION_RELOADS },
    { "log", "FILE", "the log of rules with `log`, - for standard output; without it they are only counted", false },
    { "ttl", "SECONDS", "how long the store keeps a TCP connection after it was last written (5400)", false },
    { "kept", "N", "records kept here besides the store, for each core (65536)", false },
    { 0 },
};

/* ---- rules, which are swapped while packets run ---- */
static void module_dispose(void *arg)
{
    struct fw_config *config = arg;

    free(config->hits);
    fw_rules_free(config->rules);
    free(config);
}

static int load_rules(struct fw_config *config, const char *path, const char **why)
{
    char *text = NULL;
    size_t len = 0;
    FILE *errors = open_memstream(&text, &len);

    if (errors == NULL)
        return nf_complain(why, -ENOMEM, "out of memory");
    int rc = fw_rules_read(&config->rules, path, errors);
    fclose(errors);
    while (len > 0 && text[len - 1] == '\n')
        text[--len] = '\0';
    if (rc < 0)
        nf_complain(why, rc, "--rules %s: %s", path, len > 0 ? text : strerror(-rc));
    free(text);
    return rc;
}

static int module_prepare(const struct nst_module_env *env, const void *old, void **out, FILE *said, const char **why)
{
    const struct fw_config *before = old;
    const char *path = env->option(env, "rules");

    if (path == NULL)
        return nf_complain(why, -EINVAL, "--rules FILE is missing: expected a file that says who may connect to whom");
    struct fw_config *config = calloc(1, sizeof *config);
    if (config == NULL)
        return nf_complain(why, -ENOMEM, "out of memory");
    config->n_cores = env->n_cores;
    config->generation = before != NULL ? before->generation + 1 : 1;
    config->generation += config->generation == 0;
    int rc = load_rules(config, path, why);
    if (rc == 0) {
        config->hits = calloc(env->n_cores * (config->rules->n + 1), sizeof *config->hits);
        rc = config->hits != NULL ? 0 : nf_complain(why, -ENOMEM, "out of memory");
    }
    if (rc < 0) {
        module_dispose(config);
        return rc;
    }
    if (before != NULL && before->rules->id == config->rules->id)
        fprintf(said, "%zu rules, as they were\n", config->rules->n);
    else if (before != NULL)
        fprintf(said, "%zu rules, were %zu; connections that the earlier ones have allowed %s\n", config->rules->n,
                before->rules->n, config->rules->keep ? "stay" : "are judged anew");
    *out = config;
    return 0;
}

static void module_swap(void *arg, void *config)
{
    struct firewall *fw = arg;

    fw->config = config;
}

/* ---- opening and closing ---- */
static void module_close(void *arg)
{
    struct firewall *fw = arg;

    nst_state_close(fw->connections);
    fw_decisions_close(fw->log);
    free(fw);
}

static int number(const struct nst_module_env *env, const char *name, long least, long most, long otherwise, long *out,
                  const char **why)
{
    const char *value = env->option(env, name);
    char *end = NULL;

    *out = value != NULL ? strtol(value, &end, 10) : otherwise;
    if (value != NULL && (end == value || *end != '\0' || *out < least || *out > most))
        return nf_complain(why, -EINVAL, "--%s %s: expected a number from %ld to %ld", name, value, least, most);
    return 0;
}

static void set_nf(struct firewall *fw, const struct nst_module_env *env)
{
    enum nst_verdict failing = env->fail_open ? NST_FORWARD : NST_DROP;
    const nst_events hears = FW_EV_ASK | FW_EV_STRAY | NST_EV_CLOSE;

    fw->nf = (struct nst_nf){
        .name = "firewall",
        .proto = NST_PROTO_ANY,
        .flow_size = sizeof(struct fw_flow),
        .half = {
            [NST_CLIENT] = {
                .inspect = &fw_inspector,
                .on_sent = hears,
                .on_received = hears | NST_EV_ICMP,
                .handler = fw_handler,
            },
            [NST_SERVER] = { .on_received = NST_EV_ICMP, .handler = fw_handler },
        },
        .policy = {
            .otherwise = failing,
            .on_timeout = failing,
            .on_store = failing,
            .on_hold_full = failing,
            .on_no_memory = failing,
            .on_midstream = NST_DROP,
        },
    };
}

static int module_open(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    enum { DAY = 86400, OPENING = 60, OTHER = 180 };
    const char *path = env->option(env, "log");
    struct firewall *fw = calloc(1, sizeof *fw);
    long ttl, kept;

    if (fw == NULL)
        return nf_complain(why, -ENOMEM, "out of memory");
    fw->store = env->store;
    if (getrandom(&fw->instance, sizeof fw->instance, 0) != sizeof fw->instance) {
        free(fw);
        return nf_complain(why, -EIO, "there are no random numbers");
    }
    fw->core = env->core;
    fw->replay = env->replay;
    fw->config = env->config;
    set_nf(fw, env);
    int rc = number(env, "ttl", 60, 365 * DAY, 5400, &ttl, why);
    if (rc == 0)
        rc = number(env, "kept", 64, 1 << 24, 65536, &kept, why);
    if (rc == 0) {
        fw->ttl_tcp = NST_SEC(ttl);
        fw->ttl_opening = NST_SEC(OPENING);
        fw->ttl_other = NST_SEC(OTHER);
        const struct nst_state_config config = {
            .name = FW_NAME,
            .kind = NST_STATE_OWNED,
            .size = FW_RECORD,
            .key_max = FW_KEY_MAX,
            .kept = (uint32_t)kept,
            .ttl = fw->ttl_tcp,
        };
        rc = nst_state_open(&fw->connections, env->store, &config);
        if (rc < 0)
            nf_complain(why, rc, "the state cannot be opened: %s", strerror(-rc));
    }
    if (rc == 0 && path != NULL && (rc = fw_decisions_open(&fw->log, path, env->replay)) < 0)
        nf_complain(why, rc, "--log %s: %s", path, strerror(-rc));
    if (rc < 0) {
        module_close(fw);
        return rc;
    }
    *nf = &fw->nf;
    *arg = fw;
    return 0;
}

static void module_quiet(void *arg)
{
    struct firewall *fw = arg;

    fw_decisions_write(fw->log);
}

/* ---- numbers ---- */
static void module_merge(void *arg, const void *other)
{
    struct firewall *fw = arg;
    const struct firewall *more = other;
    struct nst_state_stats stats;

    for (unsigned i = 0; i < FW_COUNTS; i++)
        fw->count[i] += more->count[i];
    nst_state_stats(more->connections, &stats);
    nst_state_stats_add(&fw->state, &stats);
    fw->log_lost += more->log_lost + fw_decisions_lost(more->log);
}

static void line(FILE *out, const char *name, uint64_t value)
{
    fprintf(out, "  %-30s  %14llu\n", name, (unsigned long long)value);
}

static void module_report(void *arg, FILE *out)
{
    static const char *const names[FW_COUNTS] = {
        [FW_OPENED] = "connections allowed",
        [FW_DENIED] = "packets denied",
        [FW_REFUSED] = "packets refused with an answer",
        [FW_UNKNOWN] = "packets of unknown connections",
        [FW_STRAYS] = "packets out of place",
        [FW_LIES] = "packets with impossible flags",
        [FW_TAKEN_OVER] = "connections taken over",
        [FW_JUDGED] = "connections judged anew",
        [FW_CUT] = "connections cut by new rules",
        [FW_ERRORS_PASS] = "icmp errors passed",
        [FW_ERRORS_DROP] = "icmp errors denied",
        [FW_NEIGHBOURS] = "neighbour discovery",
        [FW_NOT_MINE] = "records claimed by others",
        [FW_BAD_RECORDS] = "records not understood",
        [FW_UNFORGOTTEN] = "records not deleted",
        [FW_RENEW_FAILED] = "records not renewed",
    };
    struct firewall *fw = arg;
    const struct fw_config *config = fw->config;
    struct nst_state_stats stats;

    line(out, "rules", config->rules->n);
    line(out, "addresses in sets", config->rules->addresses);
    for (unsigned i = 0; i < FW_COUNTS; i++)
        line(out, names[i], fw->count[i]);
    nst_state_stats(fw->connections, &stats);
    nst_state_stats_add(&stats, &fw->state);
    line(out, "records read", stats.claims);
    line(out, "records written", stats.writes);
    line(out, "records kept", stats.kept_peak);
    line(out, "log lines lost", fw->log_lost + fw_decisions_lost(fw->log));
    for (size_t i = 0; i <= config->rules->n; i++) {
        uint64_t hits = 0;
        for (unsigned core = 0; core < config->n_cores; core++)
            hits += config->hits[core * (config->rules->n + 1) + i];
        if (hits > 0) {
            char name[64];
            snprintf(name, sizeof name, "line %u: %s", config->rules->rule[i].line,
                     fw_action_name(config->rules->rule[i].action));
            line(out, name, hits);
        }
    }
}

static uint64_t module_kept(void *arg)
{
    const struct firewall *fw = arg;
    struct nst_state_stats stats;

    nst_state_stats(fw->connections, &stats);
    return stats.kept;
}

static const char *const alike[] = { "rules", "addresses in sets", "line *", NULL };

const struct nst_module firewall_module = {
    .abi = NST_MODULE_ABI,
    .name = "firewall",
    .summary = "stateful firewall: a rule file says who may connect to whom; connections are known in the store",
    .options = options,
    .uses_store = true,
    .open = module_open,
    .close = module_close,
    .quiet = module_quiet,
    .merge = module_merge,
    .report = module_report,
    .alike = alike,
    .kept = module_kept,
    .prepare = module_prepare,
    .swap = module_swap,
    .dispose = module_dispose,
};
