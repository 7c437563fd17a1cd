/* SPDX-License-Identifier: Apache-2.0 */
/* module.c - the load balancer as the netstar command starts it. */
#include "../modules.h"
#include "common/complain.h"
#include "lb.h"
#include <stdlib.h>
#include <string.h>

static const struct nst_option options[] = {
    { "services", "FILE", "services and their back ends, see nf/lb/README.md",
      NST_OPTION_REQUIRED | NST_OPTION_RELOADS },
    { "unknown", "WHAT", "drop, reset or hash connections whose back end nobody knows (drop)", false },
    { "ttl", "SECONDS", "how long the store keeps a TCP connection after its record was last written (5400)", false },
    { 0 },
};

/* ---- services, which are swapped while packets run ---- */
static void module_dispose(void *arg)
{
    struct lb_config *config = arg;

    lb_checks_free(config->checks);
    lb_services_free(config->services);
    if (config->known != NULL && atomic_fetch_sub(&config->known->users, 1) == 1)
        free(config->known);
    free(config);
}

static int load_services(struct lb_config *config, const char *path, const char **why)
{
    char *text = NULL;
    size_t len = 0;
    FILE *errors = open_memstream(&text, &len);

    if (errors == NULL)
        return nf_complain(why, -ENOMEM, "out of memory");
    int rc = lb_services_read(&config->services, path, errors);
    fclose(errors);
    while (len > 0 && text[len - 1] == '\n')
        text[--len] = '\0';
    if (rc < 0)
        nf_complain(why, rc, "--services %s: %s", path, len > 0 ? text : strerror(-rc));
    free(text);
    return rc;
}

/* Who drains since when. */
static void note_drains(const struct lb_config *config, bool replay, FILE *said)
{
    for (size_t i = 0; i < config->services->n_backends; i++) {
        const struct lb_backend *b = &config->services->backend[i];
        nst_time *since = &config->known->drains_since[b->id % LB_KNOWN];
        if (b->drains && *since == 0) {
            *since = replay ? NST_NEVER / 2 : nst_clock();
            fprintf(said, "%s: %s drains\n", config->services->service[b->service]->name, b->name);
        } else if (!b->drains) {
            *since = 0;
        }
    }
}

static int module_prepare(const struct nst_module_env *env, const void *old, void **out, FILE *said, const char **why)
{
    const struct lb_config *before = old;
    const char *path = env->option(env, "services");

    if (path == NULL)
        return nf_complain(why, -EINVAL, "--services FILE is missing: expected a file of services and their back ends");
    struct lb_config *config = calloc(1, sizeof *config);
    if (config == NULL)
        return nf_complain(why, -ENOMEM, "out of memory");
    config->generation = before != NULL ? before->generation + 1 : 1;
    config->generation += config->generation == 0;
    int rc = load_services(config, path, why);
    if (rc == 0) {
        lb_services_number(config->services, before != NULL ? before->services : NULL);
        config->known = before != NULL ? before->known : calloc(1, sizeof *config->known);
        if (config->known != NULL)
            atomic_fetch_add(&config->known->users, 1);
        if (config->known == NULL || lb_checks_make(&config->checks, config->services, config->known) < 0)
            rc = nf_complain(why, -ENOMEM, "out of memory");
    }
    if (rc < 0) {
        module_dispose(config);
        return rc;
    }
    if (before != NULL)
        fprintf(said, "%zu services, were %zu; %zu back ends, were %zu\n", config->services->n, before->services->n,
                config->services->n_backends, before->services->n_backends);
    note_drains(config, env->replay, said);
    *out = config;
    return 0;
}

static void stop_checks(struct lb *lb)
{
    if (!lb->checks)
        return;
    lb_checks_stop(lb->config->checks);
    lb_checks_count(lb->config->checks, &lb->checked);
}

static void module_swap(void *arg, void *config)
{
    struct lb *lb = arg;

    stop_checks(lb);
    lb->config = config;
    if (lb->checks)
        lb_checks_start(lb->config->checks);
}

/* ---- opening and closing ---- */
static void module_close(void *arg)
{
    stop_checks(arg);
    free(arg);
}

static int read_options(struct lb *lb, const struct nst_module_env *env, const char **why)
{
    static const char *const whats[] = { "drop", "reset", "hash" };
    const char *what = env->option(env, "unknown"), *ttl = env->option(env, "ttl");
    char *end = NULL;
    long seconds = ttl != NULL ? strtol(ttl, &end, 10) : 5400;
    unsigned i = 0;

    while (what != NULL && i < 3 && strcmp(what, whats[i]) != 0)
        i++;
    if (i == 3)
        return nf_complain(why, -EINVAL, "--unknown %s: expected drop, reset or hash", what);
    lb->unknown = (enum lb_midstream)i;
    if (ttl != NULL && (end == ttl || *end != '\0' || seconds < 180 || seconds > 31536000))
        return nf_complain(why, -EINVAL, "--ttl %s: expected a number of seconds from 180 to 31536000", ttl);
    lb->ttl_tcp = NST_SEC(seconds);
    return 0;
}

static void set_nf(struct lb *lb, const struct nst_module_env *env)
{
    /* A packet that goes on as it is would reach nobody, so failing open is no choice here. */
    (void)env;
    lb->nf = (struct nst_nf){
        .name = "lb",
        .flow_size = sizeof(struct lb_flow),
        .half = {
            [NST_CLIENT] = {
                .on_sent = NST_EV_PACKET | NST_EV_CLOSE,
                .on_received = NST_EV_PACKET | NST_EV_ICMP | NST_EV_CLOSE,
                .handler = lb_handler,
            },
            [NST_SERVER] = { .on_received = NST_EV_ICMP, .handler = lb_handler },
        },
    };
}

static int module_open(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    struct lb *lb = calloc(1, sizeof *lb);

    if (lb == NULL)
        return nf_complain(why, -ENOMEM, "out of memory");
    lb->store = env->store;
    lb->config = env->config;
    set_nf(lb, env);
    int rc = read_options(lb, env, why);
    if (rc < 0) {
        free(lb);
        return rc;
    }
    lb->checks = env->core == 0 && !env->replay; /* a capture's back ends are not there to be asked */
    if (lb->checks)
        lb_checks_start(lb->config->checks);
    *nf = &lb->nf;
    *arg = lb;
    return 0;
}

/* ---- numbers ---- */
static void module_merge(void *arg, const void *other)
{
    struct lb *lb = arg;
    const struct lb *more = other;
    uint64_t *sum = (uint64_t *)&lb->count;
    const uint64_t *one = (const uint64_t *)&more->count;

    _Static_assert(sizeof lb->count % sizeof *sum == 0, "counts of 64 bits");
    for (size_t i = 0; i < sizeof lb->count / sizeof *sum; i++)
        sum[i] += one[i];
}

static void line(FILE *out, const char *name, uint64_t value)
{
    fprintf(out, "  %-30s  %14llu\n", name, (unsigned long long)value);
}

static void module_report(void *arg, FILE *out)
{
    struct lb *lb = arg;
    const struct lb_count *n = &lb->count;
    struct lb_check_counts checked = lb->checked;

    lb_checks_count(lb->config->checks, &checked);
    line(out, "services", lb->config->services->n);
    line(out, "back ends", lb->config->services->n_backends);
    line(out, "connections opened", n->opened);
    line(out, "connections taken over", n->taken_over);
    line(out, "packets to back ends", n->packets);
    line(out, "packets to clients", n->answers);
    line(out, "without a back end", n->nobody);
    line(out, "packets of unknown connections", n->unknown);
    line(out, "passed over as full", n->full);
    line(out, "tuples taken already", n->collisions);
    line(out, "moved to another back end", n->moved);
    line(out, "cut at the end of a drain", n->drained);
    line(out, "packets out of place", n->strangers);
    line(out, "icmp errors handed on", n->icmp);
    line(out, "records renewed", n->renewed);
    line(out, "records not renewed", n->not_renewed);
    line(out, "records not understood", n->bad_records);
    line(out, "checks", checked.made);
    line(out, "checks failed", checked.failed);
    line(out, "back ends gone", checked.went);
    line(out, "back ends come back", checked.came);
}

static const char *const alike[] = { "services", "back ends*", "checks*", NULL };

const struct nst_module lb_module = {
    .abi = NST_MODULE_ABI,
    .name = "lb",
    .summary =
        "load balancer, layer 4: connections are spread over back ends and stay there; who is where is in the store",
    .options = options,
    .uses_store = true,
    .open = module_open,
    .close = module_close,
    .merge = module_merge,
    .report = module_report,
    .alike = alike,
    .prepare = module_prepare,
    .swap = module_swap,
    .dispose = module_dispose,
};
