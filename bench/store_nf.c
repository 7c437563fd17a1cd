/* SPDX-License-Identifier: Apache-2.0 */
/* store_nf - packets a second of network functions whose state is in a redis-server on another core, over captures, and
 * beside it what redis-benchmark gets from the same server for the same operations. One result a line, as JSON.
 *
 *   store_nf_ips_each   ips, which reads and writes its record at each packet with bytes
 *   store_nf_ips_kept   ips, which keeps it, and writes what has changed
 *   store_nf_ips_mem    the latter, with a store in the process
 *   store_nf_nat        nat, whose mappings are there and do not change: what clients send in open connections
 *   store_nf_nat_mem    the same, with a store in the process
 *
 *   store_nf [--rounds N] [--packets N] [--cpu N] [--no-huge] [--rules FILE] CAPTURE...
 *
 * --told CASE --url URL: one case on another store, a pass for each line of standard input (bench/store_pair.py).
 */
#include "store_nf.h"
#include "figures.h"
#include "ips/ips.h"
#include "modules.h"
#include <getopt.h>
#include <rte_eal.h>
#include <rte_mempool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct nf_case {
    const char *name;
    const struct nst_module *module;
    const char *state; /* --state */
    bool mem, is_ips, only_to_server;
    bool twice; /* the first pass only makes what is there then */
};

static const struct nf_case cases[] = {
    { .name = "ips_each", .module = &ips_module, .state = "each", .is_ips = true },
    { .name = "ips_kept", .module = &ips_module, .state = "kept", .is_ips = true },
    { .name = "ips_mem", .module = &ips_module, .state = "kept", .is_ips = true, .mem = true },
    { .name = "nat", .module = &nat_module, .only_to_server = true, .twice = true },
    { .name = "nat_mem", .module = &nat_module, .only_to_server = true, .twice = true, .mem = true },
};
enum { CASES = sizeof cases / sizeof *cases, EACH = 0, KEPT, MEM, NAT, NAT_MEM, NF_ROUNDS_MAX = 31 };

/* What one run of one case brought. */
struct result {
    double rate; /* packets a second */
    double requests, changes, packets;
    double record; /* bytes */
};

struct bench {
    struct nf_captures captures;
    struct nf_server server;
    struct rte_mempool *pool;
    const char *rules, *url;
    unsigned long packets;
    unsigned rounds, pass;
    const char *told; /* the case that is run when it is told to */
    int cpu;
    bool no_huge;
    int rc;
    struct result result[CASES][NF_ROUNDS_MAX];
    double bound[NF_ROUNDS_MAX];
    struct nst_histogram latency[CASES];
};

static struct bench bench = { .packets = 200000, .rounds = 5, .rules = "nf/ips/rules.example" };
static const char *state_option;

static const char *option(const struct nst_module_env *env, const char *name)
{
    return strcmp(name, "rules") == 0    ? bench.rules
           : strcmp(name, "alerts") == 0 ? "/dev/null"
           : strcmp(name, "state") == 0  ? state_option
           : strcmp(name, "public") == 0 ? "198.18.0.1-198.18.0.200"
           : strcmp(name, "inside") == 0 ? "1.0.0.0-100.0.0.0"
                                         : NULL;
}

/* ---- one run ---- */
struct run {
    const struct nf_case *of;
    struct nst_store *store;
    struct nst_module_env env;
    const struct nst_nf *nf;
    struct nst_nf own; /* with more patience than a network has */
    void *arg;
    struct nst_engine *engine;
    struct nf_port port;
};

static int complain(const struct run *r, const char *what, const char *why, int rc)
{
    struct nst_engine_stats s;

    fprintf(stderr, "bench: %s: %s: %s\n", r->of->name, what, why != NULL ? why : strerror(-rc));
    if (r->engine != NULL) {
        nst_engine_stats(r->engine, &s);
        fprintf(stderr, "  given %lu, left %lu, packets %lu, forwarded %lu, held %u, flows %u\n", r->port.given,
                r->port.left, s.packets, s.forwarded, s.held, s.flows);
        for (int i = 0; i < NST_CAUSES; i++) {
            if (s.dropped[i] != 0)
                fprintf(stderr, "  dropped by %s: %lu\n", nst_cause_name(i), s.dropped[i]);
        }
    }
    return rc < 0 ? rc : -EPROTO;
}

static int open_run(struct run *r)
{
    char url[128];
    const char *why = NULL;

    snprintf(url, sizeof url, "redis+unix://%s", bench.server.sock);
    int rc = nst_store_open(&r->store, r->of->mem ? "mem:" : bench.url != NULL ? bench.url : url, NULL, &why);
    if (rc == 0)
        rc = nst_store_ping(r->store, nst_clock() + NST_SEC(10));
    if (rc < 0)
        return complain(r, "the store", why, rc);
    state_option = r->of->state;
    r->env = (struct nst_module_env){ .store = r->store, .option = option, .n_cores = 1 };
    if (r->of->module->prepare != NULL)
        rc = r->of->module->prepare(&r->env, NULL, &r->env.config, stderr, &why);
    if (rc == 0)
        rc = r->of->module->open(&r->env, &r->nf, &r->arg, &why);
    if (rc < 0)
        return complain(r, "the network function", why, rc);
    r->own = *r->nf;
    r->own.policy.budget = NST_SEC(20);
    r->own.policy.hold = 4096;
    /* a capture is seen from between the ends: what is acknowledged may stand behind the acknowledgment */
    r->own.policy.on_bad_ack = r->own.policy.on_window = r->own.policy.on_stale = NST_FORWARD;
    const struct nst_engine_config config = {
        .nf = &r->own, .nf_arg = r->arg, .flows = 1 << 17, .stream_memory = (size_t)1 << 30, .trust_checksums = true
    };
    struct nst_port *ports[] = { &r->port.port };
    nf_port_init(&r->port, &bench.captures, bench.pool);
    r->port.only_to_server = r->of->only_to_server;
    rc = nst_engine_open(&r->engine, &config, ports, 1);
    return rc < 0 ? complain(r, "the engine", NULL, rc) : 0;
}

static void close_run(struct run *r)
{
    if (r->engine != NULL) {
        if (nst_engine_drain(r->engine, nst_clock() + NST_SEC(60)) < 0)
            bench.rc = complain(r, "draining", NULL, -ETIMEDOUT);
        nst_engine_close(r->engine);
    }
    if (r->arg != NULL)
        r->of->module->close(r->arg);
    if (r->env.config != NULL)
        r->of->module->dispose(r->env.config);
    nst_store_close(r->store);
}

/* Every packet has gone through, and what it brings was scanned. */
static int verify(const struct run *r)
{
    struct nst_engine_stats s;

    nst_engine_stats(r->engine, &s);
    if (s.forwarded != s.packets)
        return complain(r, "not every packet was forwarded", "", 0);
    if (r->of->is_ips && ((const struct ips *)r->arg)->count.bytes == 0)
        return complain(r, "nothing was scanned", "", 0);
    return 0;
}

/* interval 0: as fast as it goes. */
static int run(unsigned which, struct result *out, struct nst_histogram *latency, nst_time interval)
{
    struct run r = { .of = &cases[which] };
    struct nst_store_stats before = { 0 }, after;
    int rc = open_run(&r);

    if (rc == 0 && r.of->twice)
        rc = nf_port_pass(&r.port, bench.pass, NULL, 0);
    if (rc == 0) {
        nst_store_stats(r.store, &before);
        rc = nf_port_pass(&r.port, bench.pass, latency, interval);
        if (rc < 0)
            complain(&r, "not every packet has left", NULL, rc);
    }
    if (rc == 0)
        rc = verify(&r);
    if (rc == 0) {
        nst_store_stats(r.store, &after);
        *out = (struct result){ .packets = (double)r.port.given,
                                .rate = (double)r.port.given * 1e9 / (double)(r.port.end - r.port.begin),
                                .requests = (double)(after.requests - before.requests) };
        if (r.of->is_ips) {
            const struct ips *ips = r.arg;
            out->changes = (double)ips->count.states;
            out->record = (double)ips->count.state_bytes / (double)ips->count.states;
        }
    }
    close_run(&r);
    bench.pass++;
    return rc;
}

/* ---- the bound: what redis-benchmark gets for as many reads and writes as ips does without keeping anything ---- */
static double bound(const struct result *each)
{
    char value[600], command[800];
    int len = (int)each->record + 8;

    memset(value, 'v', sizeof value);
    value[len < 599 ? len : 599] = '\0';
    snprintf(command, sizeof command, "SET ips:__rand_int__ %s PX 3600000", value);
    double set = nf_server_rate(&bench.server, bench.cpu, 300000, command);
    double get = nf_server_rate(&bench.server, bench.cpu, 300000, "GETRANGE ips:__rand_int__ 0 4153");
    if (set == 0 || get == 0)
        return 0;
    return each->packets / (each->changes / set + (each->requests - each->changes) / get);
}

/* ---- what is told ---- */
static double middle(double (*of)(unsigned which, unsigned round), unsigned which, double *spread)
{
    double v[NF_ROUNDS_MAX];

    for (unsigned i = 0; i < bench.rounds; i++)
        v[i] = of(which, i);
    double m = figures_quantile(v, bench.rounds, 0.5);
    if (spread != NULL)
        *spread = m > 0 ? (figures_quantile(v, bench.rounds, 0.75) - figures_quantile(v, bench.rounds, 0.25)) / m : 0;
    return m;
}

static double rate_of(unsigned which, unsigned i)
{
    return bench.result[which][i].rate;
}

static double bound_ratio(unsigned which, unsigned i)
{
    return bench.bound[i] > 0 ? bench.result[which][i].rate / bench.bound[i] : 0;
}

static double bound_of(unsigned which, unsigned i)
{
    return bench.bound[i];
}

static double each_ratio(unsigned which, unsigned i)
{
    return bench.result[which][i].rate / bench.result[EACH][i].rate;
}

static double mem_ratio(unsigned which, unsigned i)
{
    return bench.result[which + 1][i].rate / bench.result[which][i].rate;
}

static void tell(unsigned which)
{
    const struct result *last = &bench.result[which][bench.rounds - 1];
    const struct nst_histogram *h = &bench.latency[which];
    double spread, rate = middle(rate_of, which, &spread);

    printf("{\"case\": \"store_nf_%s\", \"per_second\": %.0f, \"spread\": %.3f, \"requests_per_packet\": %.3f",
           cases[which].name, rate, spread, last->requests / last->packets);
    if (cases[which].is_ips)
        printf(", \"changes_per_packet\": %.3f, \"record_bytes\": %.0f", last->changes / last->packets, last->record);
    if (which == EACH)
        printf(", \"reference_per_second\": %.0f, \"ratio\": %.3f", middle(bound_of, which, NULL),
               middle(bound_ratio, which, NULL));
    if (which == KEPT)
        printf(", \"kept_ratio\": %.2f", middle(each_ratio, which, NULL));
    if (which == KEPT || which == NAT)
        printf(", \"mem_ratio\": %.2f", middle(mem_ratio, which, NULL));
    printf(", \"p50_us\": %.1f, \"p99_us\": %.1f, \"packets\": %.0f, \"rounds\": %u}\n",
           (double)nst_histogram_percentile(h, 50) / 1e3, (double)nst_histogram_percentile(h, 99) / 1e3, last->packets,
           bench.rounds);
    fflush(stdout);
}

static void main_task(void *arg)
{
    for (unsigned i = 0; i < bench.rounds && bench.rc == 0; i++) {
        for (unsigned k = 0; k < CASES && bench.rc == 0; k++) {
            nf_server_clear(&bench.server);
            bench.rc = run(k, &bench.result[k][i], NULL, 0);
        }
        if (bench.rc == 0)
            bench.bound[i] = bound(&bench.result[EACH][i]);
    }
    for (unsigned k = 0; k < CASES && bench.rc == 0; k++) {
        struct result ignored;
        nf_server_clear(&bench.server);
        bench.rc = run(k, &ignored, &bench.latency[k], (nst_time)(2e9 / middle(rate_of, k, NULL)));
        if (bench.rc == 0)
            tell(k);
    }
    nst_reactor_stop(nst_reactor_self());
}

static void told_task(void *arg)
{
    char line[16];
    unsigned k = 0;

    while (k < CASES && strcmp(cases[k].name, bench.told) != 0)
        k++;
    bench.rc = k < CASES ? 0 : -EINVAL;
    while (bench.rc == 0 && puts("ready") >= 0 && fflush(stdout) == 0 && fgets(line, sizeof line, stdin) != NULL) {
        struct result r;
        bench.rc = run(k, &r, NULL, 0);
        if (bench.rc == 0)
            printf("{\"per_second\": %.0f, \"requests_per_packet\": %.3f}\n", r.rate, r.requests / r.packets);
    }
    nst_reactor_stop(nst_reactor_self());
}

static int read_options(int argc, char **argv)
{
    static const struct option longs[] = {
        { "rounds", 1, NULL, 'r' },  { "packets", 1, NULL, 'p' }, { "cpu", 1, NULL, 'c' },
        { "no-huge", 0, NULL, 'h' }, { "rules", 1, NULL, 'R' },   { "url", 1, NULL, 'u' },
        { "told", 1, NULL, 't' },    { "pass", 1, NULL, 'P' },    { 0 }
    };
    int opt;

    while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (opt) {
        case 'r':
            bench.rounds = (unsigned)atoi(optarg);
            break;
        case 'p':
            bench.packets = strtoul(optarg, NULL, 10);
            break;
        case 'c':
            bench.cpu = atoi(optarg);
            break;
        case 'h':
            bench.no_huge = true;
            break;
        case 'R':
            bench.rules = optarg;
            break;
        case 'u':
            bench.url = optarg;
            break;
        case 't':
            bench.told = optarg;
            break;
        case 'P':
            bench.pass = (unsigned)atoi(optarg);
            break;
        default:
            return -EINVAL;
        }
    }
    return optind < argc && (bench.told == NULL) == (bench.url == NULL) && bench.rounds != 0 &&
                   bench.rounds <= NF_ROUNDS_MAX
               ? 0
               : -EINVAL;
}

int main(int argc, char **argv)
{
    struct nst_reactor *reactor;

    bench.cpu = (int)sysconf(_SC_NPROCESSORS_ONLN) - 1;
    if (read_options(argc, argv) < 0) {
        fprintf(stderr, "usage: store_nf [--rounds N] [--packets N] [--cpu N] [--no-huge] [--rules FILE] "
                        "[--told CASE --url URL [--pass N]] CAPTURE...\n");
        return 2;
    }
    for (int i = optind; i < argc; i++) {
        if (nf_captures_add(&bench.captures, argv[i]) < 0)
            return 1;
    }
    if (nf_captures_order(&bench.captures, bench.packets) < 0 || bench_start_dpdk(bench.cpu, 128, bench.no_huge) < 0)
        return 1;
    bench.pool = port_pool = bench_pool(bench.no_huge);
    if (bench.pool == NULL || (bench.told == NULL && nf_server_start(&bench.server, bench.cpu == 0 ? 1 : 0) < 0)) {
        fprintf(stderr, "bench: no memory for packet buffers, or no redis-server\n");
        return 1;
    }
    nst_log_level(NST_LOG_WARNING);
    const struct nst_reactor_config config = { .cpu = bench.cpu,
                                               .busy_poll = bench.told == NULL,
                                               .stall_after = NST_NEVER };
    bench.rc = nst_reactor_open(&reactor, &config);
    if (bench.rc == 0) {
        nst_reactor_run(reactor, bench.told != NULL ? told_task : main_task, NULL);
        nst_reactor_close(reactor);
    }
    nf_server_stop(&bench.server);
    nf_captures_free(&bench.captures);
    if (rte_mempool_in_use_count(bench.pool) != 0) {
        fprintf(stderr, "bench: %u packet buffers are missing\n", rte_mempool_in_use_count(bench.pool));
        bench.rc = -EPROTO;
    }
    rte_eal_cleanup();
    return bench.rc == 0 ? 0 : 1;
}
