/* SPDX-License-Identifier: Apache-2.0 */
/* The packet-path benchmark: one contest, the floor and the cases that are named, over one trace. Results go to
 * standard output as JSON, one object a line; bench/run starts it once for each group of cases and makes the table of
 * them. */
#include "contestants.h"
#include "figures.h"
#include "floor.h"
#include <getopt.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <rte_mempool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONTESTANTS_MAX = 16, PAYLOAD = 128 };

struct options {
    struct trace_config trace;
    struct contest contest;
    bool no_huge;
    bool bytes; /* instead of a contest: the memory of idle flows */
    bool alone; /* no floor: for a profiler */
};

static const char usage[] =
    "usage: netstar_bench [OPTION]... CASE...\n"
    "  CASE: forward handler wait1 wait2 callback callback_wait1 callback_wait2 tcp_data tcp_data_kept\n"
    "        edit_off edit_none edit_bytes edit_lengths;\n"
    "        handler to tcp_data_kept with both_ in front: both ends are inspected; receive_only;\n"
    "        or bytes_per_idle_flow, bytes_per_idle_flow_both alone. The floor takes part in every contest.\n"
    "  --flows N      in the table and in the trace (1000)\n"
    "  --packets N    counted in each round (2000000)\n"
    "  --warm N       ahead of them, not counted (an eighth of that)\n"
    "  --rounds N     turns of each contestant (7)\n"
    "  --payload N    bytes in each data segment of tcp_data (128)\n"
    "  --replies N    percent of packets that come from the server, in the other cases (0)\n"
    "  --cpu N        the core (the last one)\n"
    "  --no-huge      do not ask DPDK for huge pages\n"
    "  --alone        without the floor, for a profiler\n";

static const struct contestant *named(const struct contestant *c, unsigned n, const char *name)
{
    for (unsigned i = 0; i < n; i++) {
        if (strcmp(c[i].name, name) == 0)
            return &c[i];
    }
    return NULL;
}

/* The same NF with hand-written callbacks. */
static const struct contestant *twin(const struct contestant *c, unsigned n, const char *name)
{
    static const char *const twins[][2] = { { "handler", "callback" },
                                            { "wait1", "callback_wait1" },
                                            { "wait2", "callback_wait2" },
                                            { "both_handler", "both_callback" },
                                            { "both_wait1", "both_callback_wait1" },
                                            { "both_wait2", "both_callback_wait2" } };

    for (unsigned i = 0; i < sizeof twins / sizeof *twins; i++) {
        if (strcmp(name, twins[i][0]) == 0)
            return named(c, n, twins[i][1]);
    }
    return NULL;
}

static void report(const struct options *o, const struct contestant *c, unsigned n)
{
    const struct contestant *floor = named(c, n, "floor"), *passing = named(c, n, "edit_off");

    for (unsigned i = 0; i < n; i++) {
        const struct contestant *callback = twin(c, n, c[i].name);
        double median = figures_quantile(c[i].ns, c[i].n, 0.5);

        printf("{\"case\": \"%s\", \"flows\": %u, \"ns_per_packet\": %.2f, \"spread\": %.3f", c[i].name, o->trace.flows,
               median, figures_spread(&c[i]));
        if (floor != NULL)
            printf(", \"floor_ratio\": %.3f", figures_ratio(&c[i], floor));
        if (passing != NULL && strncmp(c[i].name, "edit_", 5) == 0)
            printf(", \"passing_ratio\": %.3f", figures_ratio(&c[i], passing));
        if (callback != NULL)
            printf(", \"callback_ratio\": %.3f", figures_ratio(&c[i], callback));
        printf(", \"payload\": %u, \"rounds\": %u, \"packets\": %lu}\n", o->trace.payload, c[i].n, o->contest.packets);
    }
}

static int read_options(struct options *o, int argc, char **argv)
{
    enum { FLOWS = 1, PACKETS, WARM, ROUNDS, PAYLOAD_LEN, REPLIES, CPU, NO_HUGE, ALONE };
    static const struct option longs[] = {
        { "flows", 1, NULL, FLOWS },
        { "packets", 1, NULL, PACKETS },
        { "warm", 1, NULL, WARM },
        { "rounds", 1, NULL, ROUNDS },
        { "payload", 1, NULL, PAYLOAD_LEN },
        { "replies", 1, NULL, REPLIES },
        { "cpu", 1, NULL, CPU },
        { "no-huge", 0, NULL, NO_HUGE },
        { "alone", 0, NULL, ALONE },
        { 0 },
    };
    unsigned long v = 0;
    bool warm = false;
    int opt;

    while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        char *end = "";
        if (optarg != NULL)
            v = strtoul(optarg, &end, 10);
        if (opt == '?' || *end != 0 || (optarg != NULL && end == optarg))
            return -EINVAL;
        switch (opt) {
        case FLOWS:
            o->trace.flows = v;
            break;
        case PACKETS:
            o->contest.packets = v;
            break;
        case WARM:
            o->contest.warm = v;
            warm = true;
            break;
        case ROUNDS:
            o->contest.rounds = v;
            break;
        case PAYLOAD_LEN:
            o->trace.payload = v;
            break;
        case REPLIES:
            o->trace.replies = v;
            break;
        case CPU:
            o->contest.cpu = v;
            break;
        case NO_HUGE:
            o->no_huge = true;
            break;
        case ALONE:
            o->alone = true;
            break;
        }
    }
    if (!warm)
        o->contest.warm = o->contest.packets / 8;
    return optind < argc && o->contest.packets != 0 && o->contest.warm != 0 && o->contest.rounds != 0 &&
                   o->contest.rounds <= ROUNDS_MAX
               ? 0
               : -EINVAL;
}

/* Fills in who takes part, and whether their trace has payload. */
static int invite(struct options *o, char **names, struct contestant *c, struct engine_contest *engines)
{
    int n = 0, with = 0, without = 0;

    if (!o->alone)
        c[n++] = (struct contestant){ .name = "floor", .fn = floor_contestant };
    for (; *names != NULL; names++) {
        const struct bench_case *of = bench_case_named(*names);

        if (n == CONTESTANTS_MAX)
            return -EINVAL;
        if (strcmp(*names, "bytes_per_idle_flow") == 0) {
            o->bytes = true;
            of = bench_case_named("tcp_data");
        } else if (strcmp(*names, "bytes_per_idle_flow_both") == 0) {
            o->bytes = true;
            of = bench_case_named("both_tcp_data");
        } else if (strcmp(*names, "receive_only") == 0) {
            c[n++] = (struct contestant){ .name = "receive_only", .fn = receive_contestant };
            continue;
        }
        if (of == NULL) {
            fprintf(stderr, "bench: no such case: %s\n", *names);
            return -EINVAL;
        }
        *(of->payload ? &with : &without) = 1;
        engines[n].of = of;
        c[n] = (struct contestant){ .name = *names, .fn = engine_contestant, .arg = &engines[n] };
        n++;
    }
    if (with && without) {
        fprintf(stderr, "bench: tcp_data has a trace of its own; measure it apart from the others\n");
        return -EINVAL;
    }
    if (!with)
        o->trace.payload = 0;
    return n;
}

static int measure_bytes(struct options *o, struct contestant *c, struct engine_contest *engine)
{
    struct engine_memory memory = { 0 };
    size_t per_flow;
    int rc;

    o->contest.rounds = 0;
    engine->memory = &memory;
    rc = contest_run(&o->contest, c, 1);
    if (rc < 0)
        return rc;
    per_flow = (memory.resident + o->trace.flows - 1) / o->trace.flows;
    printf("{\"case\": \"%s\", \"flows\": %u, \"bytes\": %zu, \"resident\": %zu, \"counted\": %zu}\n", c->name,
           o->trace.flows, per_flow > memory.per_flow ? per_flow : memory.per_flow, per_flow, memory.per_flow);
    return 0;
}

int main(int argc, char **argv)
{
    struct options o = {
        .trace = { .flows = 1000, .payload = PAYLOAD, .memory = (size_t)2 << 30, .seed = 1 },
        .contest = { .packets = 2000000, .rounds = 7, .cpu = (int)sysconf(_SC_NPROCESSORS_ONLN) - 1 },
    };
    struct contestant contestants[CONTESTANTS_MAX];
    struct engine_contest engines[CONTESTANTS_MAX] = { 0 };
    struct trace *trace;
    int n, rc;

    if (read_options(&o, argc, argv) < 0) {
        fputs(usage, stderr);
        return 2;
    }
    n = invite(&o, argv + optind, contestants, engines);
    if (n < 0)
        return 2;
    /* Without huge pages: the buffers, some room, and the floor's table in case it finds no better place. */
    if (bench_start_dpdk(o.contest.cpu, 128 + (unsigned)((uint64_t)o.trace.flows * 256 >> 20), o.no_huge) < 0)
        return 1;
    o.contest.socket = floor_socket(o.trace.flows, o.no_huge);
    o.contest.pool = port_pool = bench_pool(o.no_huge);
    if (o.contest.pool == NULL) {
        fprintf(stderr, "bench: no memory for packet buffers\n");
        return 1;
    }
    rc = trace_open(&trace, &o.trace);
    if (rc < 0) {
        fprintf(stderr, "bench: the trace: %s\n", strerror(-rc));
        return 1;
    }
    o.contest.trace = trace;
    if (o.bytes) {
        /* Nothing else may grow while memory is counted. */
        rc = measure_bytes(&o, &contestants[n - 1], &engines[n - 1]);
    } else {
        rc = contest_run(&o.contest, contestants, n);
        if (rc == 0)
            report(&o, contestants, n);
    }
    if (rte_mempool_in_use_count(o.contest.pool) != 0) {
        fprintf(stderr, "bench: %u packet buffers are missing\n", rte_mempool_in_use_count(o.contest.pool));
        rc = -EPROTO;
    }
    trace_close(trace);
    rte_mempool_free(o.contest.pool);
    rte_eal_cleanup();
    return rc == 0 ? 0 : 1;
}
