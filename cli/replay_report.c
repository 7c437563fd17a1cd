/* SPDX-License-Identifier: Apache-2.0 */
#include "replay.h"
#include "values.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { FEW = 100000 }; /* a pass should take some tens of milliseconds */

const char *const replay_part_names[PARTS] = {
    [PART_RECEIVE] = "receive",    [PART_ENGINE] = "turns and bursts", [PART_LOOKUP] = "parse and look up",
    [PART_INSPECT] = "inspectors", [PART_NF] = "network function",     [PART_STORE] = "store",
    [PART_SEND] = "send",
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

struct replay_spread replay_spread(double *values, unsigned n)
{
    qsort(values, n, sizeof *values, by_value);
    return (struct replay_spread){
        .median = n % 2 != 0 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2,
        .min = values[0],
        .max = values[n - 1],
    };
}

/* The spread of one field of the passes of a stage, in ns or cycles. */
static struct replay_spread of(const struct replay_result *r, enum replay_stage stage, size_t field, bool in_ns)
{
    double values[REPLAY_TIMES_MAX];

    for (unsigned i = 0; i < r->times; i++) {
        const struct replay_pass *p = &r->pass[stage][i];
        values[i] = *(const double *)((const char *)p + field);
        if (in_ns && p->cycles > 0)
            values[i] *= p->ns / p->cycles;
    }
    return replay_spread(values, r->times);
}

void replay_sum_up(struct replay_result *r)
{
    enum { CYCLES = offsetof(struct replay_pass, cycles) };
    double packets = (double)r->sizes.packets, bytes = (double)r->sizes.bytes, total[STAGES];

    for (unsigned i = 0; i < STAGES; i++)
        total[i] = of(r, (enum replay_stage)i, CYCLES, true).median / packets;
    struct replay_spread ns = of(r, STAGE_WHOLE, CYCLES, true), cycles = of(r, STAGE_WHOLE, CYCLES, false);
    r->ns = (struct replay_spread){ ns.median / packets, ns.min / packets, ns.max / packets };
    r->cycles_per_byte = (struct replay_spread){ cycles.median / bytes, cycles.min / bytes, cycles.max / bytes };
    r->part[PART_RECEIVE] = of(r, STAGE_BARE, offsetof(struct replay_pass, receive), true).median / packets;
    r->part[PART_SEND] = of(r, STAGE_BARE, offsetof(struct replay_pass, send), true).median / packets;
    r->part[PART_STORE] = of(r, STAGE_STORE, offsetof(struct replay_pass, store), true).median / packets;
    r->part[PART_ENGINE] = total[STAGE_BARE] - r->part[PART_RECEIVE] - r->part[PART_SEND];
    r->part[PART_LOOKUP] = total[STAGE_LOOKUP] - total[STAGE_BARE];
    r->part[PART_INSPECT] = total[STAGE_INSPECT] - total[STAGE_LOOKUP];
    r->part[PART_NF] = total[STAGE_WHOLE] - total[STAGE_INSPECT] - r->part[PART_STORE];
}

void replay_text(const struct replay_result *r, FILE *out)
{
    const struct nst_engine_stats *e = &r->engine;
    uint64_t dropped = 0;
    char memory[32];

    for (unsigned i = 0; i < NST_CAUSES; i++)
        dropped += e->dropped[i];
    fprintf(out, "netstar: %s: %" PRIu64 " packets of %.0f bytes on average, %s in memory, %u passes\n", r->nf,
            r->sizes.packets, (double)r->sizes.bytes / (double)r->sizes.packets,
            value_show_size(r->sizes.memory, memory, sizeof memory), r->times);
    if (r->sizes.left_out != 0)
        fprintf(out, "  %" PRIu64 " frames longer than a packet buffer are left out\n", r->sizes.left_out);
    fprintf(out,
            "  each pass: %" PRIu64 " flows, %" PRIu64 " events (%" PRIu64 " waited), %" PRIu64 " packets dropped\n",
            e->flows_opened, e->events, e->waits, dropped);
    if (r->sizes.packets < FEW)
        fprintf(out, "  so few packets that memory touched for the first time weighs; -r may be given several times\n");
    fprintf(out, "\n  %-22s %10s %10s %10s\n", "", "median", "least", "most");
    fprintf(out, "  %-22s %10.1f %10.1f %10.1f\n", "ns per packet", r->ns.median, r->ns.min, r->ns.max);
    fprintf(out, "  %-22s %10.3f %10.3f %10.3f\n\n", "cycles per byte", r->cycles_per_byte.median,
            r->cycles_per_byte.min, r->cycles_per_byte.max);
    for (unsigned i = 0; i < PARTS; i++)
        fprintf(out, "  %-22s %10.1f ns %6.1f %%\n", replay_part_names[i], r->part[i], 100 * r->part[i] / r->ns.median);
}

static json_t *spread(struct replay_spread s)
{
    return json_pack("{s:f,s:f,s:f}", "median", s.median, "min", s.min, "max", s.max);
}

int replay_json(const struct replay_result *r, FILE *out)
{
    static const char *const stages[STAGES] = { "bare", "lookup", "inspect", "whole", "store" };
    json_t *root = json_object(), *parts = json_object(), *passes = json_object();
    int rc = 0;

    json_object_set_new(root, "netstar", json_string(NETSTAR_VERSION));
    json_object_set_new(root, "nf", json_string(r->nf));
    json_object_set_new(root, "store", r->store_url != NULL ? json_string(r->store_url) : json_null());
    json_object_set_new(root, "packets", json_integer((json_int_t)r->sizes.packets));
    json_object_set_new(root, "bytes", json_integer((json_int_t)r->sizes.bytes));
    json_object_set_new(root, "memory", json_integer((json_int_t)r->sizes.memory));
    json_object_set_new(root, "left_out", json_integer((json_int_t)r->sizes.left_out));
    json_object_set_new(root, "flows", json_integer((json_int_t)r->engine.flows_opened));
    json_object_set_new(root, "events", json_integer((json_int_t)r->engine.events));
    json_object_set_new(root, "waits", json_integer((json_int_t)r->engine.waits));
    json_object_set_new(root, "forwarded", json_integer((json_int_t)r->engine.forwarded));
    json_object_set_new(root, "times", json_integer(r->times));
    json_object_set_new(root, "ns_per_packet", spread(r->ns));
    json_object_set_new(root, "cycles_per_byte", spread(r->cycles_per_byte));
    for (unsigned i = 0; i < PARTS; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s", replay_part_names[i]);
        for (char *c = key; *c != '\0'; c++)
            if (*c == ' ')
                *c = '_';
        json_object_set_new(parts, key, json_real(r->part[i]));
    }
    json_object_set_new(root, "parts_ns_per_packet", parts);
    for (unsigned i = 0; i < STAGES; i++) {
        json_t *array = json_array();
        for (unsigned k = 0; k < r->times; k++)
            json_array_append_new(array, json_real(r->pass[i][k].ns / (double)r->sizes.packets));
        json_object_set_new(passes, stages[i], array);
    }
    json_object_set_new(root, "passes_ns_per_packet", passes);
    errno = 0;
    if (json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(12)) != 0 || fputc('\n', out) == EOF ||
        fflush(out) != 0)
        rc = errno != 0 ? -errno : -EIO;
    json_decref(root);
    return rc;
}
