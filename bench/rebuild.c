/* SPDX-License-Identifier: Apache-2.0 */
/* Rebuilding TCP streams, beside libnids: one contest for each kind of capture. Results go to standard output as JSON,
 * one object a line; bench/run makes the table of them. */
#include "rebuild.h"
#include "figures.h"
#include <getopt.h>
#include <inttypes.h>
#include <rte_eal.h>
#include <rte_mempool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] = "usage: netstar_rebuild [OPTION]... CASE\n"
                            "  CASE: tcp_rebuild_http tcp_rebuild_bulk tcp_rebuild_lossy\n"
                            "  --packets N      in the capture (300000)\n"
                            "  --passes N       counted in each turn (4), one more ahead of them\n"
                            "  --rounds N       turns of each (9)\n"
                            "  --cpu N          the core (the last one)\n"
                            "  --no-huge        do not ask DPDK for huge pages\n"
                            "  --no-checksums   neither verifies checksums\n"
                            "  --keep           NetStar keeps delivered bytes until they are acknowledged\n"
                            "  --alone          without libnids, for a profiler\n";

struct options {
    struct contest contest;
    struct rebuild rebuild;
    uint64_t capture;
    bool no_huge;
};

int rebuild_compared(const struct contestant *c, const struct rebuild_result *r)
{
    const struct rebuild_answer *right = &((const struct rebuild *)c->arg)->capture->answer;

    if (r->answer.bytes == right->bytes && r->answer.sum == right->sum)
        return 0;
    fprintf(stderr, "bench: %s rebuilt %" PRIu64 " bytes of %" PRIu64 "%s\n", c->name, r->answer.bytes, right->bytes,
            r->answer.bytes == right->bytes ? ", not the right ones" : "");
    return -EPROTO;
}

int rebuild_counted(const struct contestant *c, const struct rebuild_result *r, uint64_t passes)
{
    uint64_t right = ((const struct rebuild *)c->arg)->capture->answer.bytes * passes;

    if (r->bytes == right)
        return 0;
    fprintf(stderr, "bench: %s rebuilt %" PRIu64 " bytes of %" PRIu64 "\n", c->name, r->bytes, right);
    return -EPROTO;
}

static void report(const char *name, const struct options *o, const struct contestant *c)
{
    const struct rebuild_capture *k = o->rebuild.capture;

    printf("{\"case\": \"%s\", \"ns_per_packet\": %.2f, \"spread\": %.3f", name, figures_quantile(c->ns, c->n, 0.5),
           figures_spread(c));
    if (!o->rebuild.alone)
        printf(", \"peer\": \"libnids\", \"peer_ns_per_packet\": %.2f, \"peer_spread\": %.3f, \"peer_ratio\": %.3f"
               ", \"floor_ns_per_packet\": %.2f, \"floor_peer_ratio\": %.3f",
               figures_quantile(c[1].ns, c[1].n, 0.5), figures_spread(&c[1]), figures_ratio(&c[0], &c[1]),
               figures_quantile(c[2].ns, c[2].n, 0.5), figures_ratio(&c[2], &c[1]));
    printf(", \"rebuilt_bytes\": %" PRIu64 ", \"packets\": %" PRIu64 ", \"connections\": %u, \"bytes_per_packet\": %.1f"
           ", \"late\": %" PRIu64 ", \"resent\": %" PRIu64 ", \"repeated\": %" PRIu64
           ", \"checksums\": %s, \"kept\": %s, \"rounds\": %u, \"passes\": %u}\n",
           k->answer.bytes, k->packets, k->connections, (double)k->wire_bytes / (double)k->packets, k->late, k->resent,
           k->repeated, o->rebuild.no_checksums ? "false" : "true", o->rebuild.keep ? "true" : "false", c->n,
           o->rebuild.passes);
    fflush(stdout);
}

/* libnids cannot be started twice in a process, nor ended: one kind of capture a process. */
static int run(struct options *o, const char *name)
{
    struct rebuild_capture capture;
    struct contestant c[3] = { { .name = "netstar", .fn = rebuild_netstar, .arg = &o->rebuild },
                               { .name = "libnids", .fn = rebuild_nids, .arg = &o->rebuild },
                               { .name = "floor", .fn = rebuild_floor, .arg = &o->rebuild } };
    int kind, rc;

    for (kind = 0; kind < REBUILD_KINDS && strcmp(rebuild_kind_name(kind), name) != 0; kind++)
        ;
    if (kind == REBUILD_KINDS) {
        fprintf(stderr, "bench: no such case: %s\n", name);
        return -EINVAL;
    }
    rc = rebuild_capture_make(&capture, kind, o->capture);
    if (rc < 0) {
        fprintf(stderr, "bench: the capture: %s\n", strerror(-rc));
        return rc;
    }
    o->rebuild.capture = &capture;
    o->contest.packets = capture.packets * o->rebuild.passes;
    rc = contest_run(&o->contest, c, o->rebuild.alone ? 1 : 3);
    if (rc == 0)
        report(name, o, c);
    rebuild_capture_free(&capture);
    return rc;
}

static int read_options(struct options *o, int argc, char **argv)
{
    enum { PACKETS = 1, PASSES, ROUNDS, CPU, NO_HUGE, NO_CHECKSUMS, KEEP, ALONE };
    static const struct option longs[] = {
        { "packets", 1, NULL, PACKETS }, { "passes", 1, NULL, PASSES },   { "rounds", 1, NULL, ROUNDS },
        { "cpu", 1, NULL, CPU },         { "no-huge", 0, NULL, NO_HUGE }, { "no-checksums", 0, NULL, NO_CHECKSUMS },
        { "keep", 0, NULL, KEEP },       { "alone", 0, NULL, ALONE },     { 0 },
    };
    unsigned long v = 0;
    int opt;

    while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        char *end = "";
        if (optarg != NULL)
            v = strtoul(optarg, &end, 10);
        if (opt == '?' || *end != 0 || (optarg != NULL && end == optarg))
            return -EINVAL;
        switch (opt) {
        case PACKETS:
            o->capture = v;
            break;
        case PASSES:
            o->rebuild.passes = (unsigned)v;
            break;
        case ROUNDS:
            o->contest.rounds = (unsigned)v;
            break;
        case CPU:
            o->contest.cpu = (int)v;
            break;
        case NO_HUGE:
            o->no_huge = true;
            break;
        case NO_CHECKSUMS:
            o->rebuild.no_checksums = true;
            break;
        case KEEP:
            o->rebuild.keep = true;
            break;
        case ALONE:
            o->rebuild.alone = true;
            break;
        }
    }
    return optind + 1 == argc && o->capture != 0 && o->rebuild.passes != 0 && o->contest.rounds != 0 &&
                   o->contest.rounds <= ROUNDS_MAX
               ? 0
               : -EINVAL;
}

int main(int argc, char **argv)
{
    struct options o = {
        .contest = { .rounds = 9, .cpu = (int)sysconf(_SC_NPROCESSORS_ONLN) - 1 },
        .rebuild = { .passes = 4 },
        .capture = 300000,
    };
    int rc;

    if (read_options(&o, argc, argv) < 0) {
        fputs(usage, stderr);
        return 2;
    }
    if (bench_start_dpdk(o.contest.cpu, 128, o.no_huge) < 0)
        return 1;
    o.contest.pool = port_pool = bench_pool(o.no_huge);
    if (o.contest.pool == NULL) {
        fprintf(stderr, "bench: no memory for packet buffers\n");
        return 1;
    }
    rc = run(&o, argv[optind]);
    if (rte_mempool_in_use_count(o.contest.pool) != 0) {
        fprintf(stderr, "bench: %u packet buffers are missing\n", rte_mempool_in_use_count(o.contest.pool));
        rc = -EPROTO;
    }
    rte_eal_cleanup();
    return rc == 0 ? 0 : 1;
}
