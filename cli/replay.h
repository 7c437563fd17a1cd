/* SPDX-License-Identifier: Apache-2.0 */
/* cli/replay.h - an NF over a capture in memory, many times: where its time goes.
 *
 * No clock is read on the packets' way but once a burst, in the port. What a part costs is the difference between
 * passes: without any part, with parsing and lookup, with inspectors and a handler that does nothing, and whole. Only
 * the store's calls are timed one by one, in passes of their own.
 */
#pragma once
#include "io/preload.h"
#include "settings.h"
#include <netstar/engine.h>

enum replay_stage {
    STAGE_BARE,    /* received and sent */
    STAGE_LOOKUP,  /* and parsed, verified, looked up in the flow table */
    STAGE_INSPECT, /* and inspected; a handler that forwards at once */
    STAGE_WHOLE,   /* the NF as it is */
    STAGE_STORE,   /* the same with a clock around each call of the store */
    STAGES,
};

struct replay_pass {
    double ns, cycles;    /* from the first packet to the last verdict */
    double receive, send; /* of the cycles */
    double store;         /* STAGE_STORE: of the cycles */
};

enum replay_part { PART_RECEIVE, PART_ENGINE, PART_LOOKUP, PART_INSPECT, PART_NF, PART_STORE, PART_SEND, PARTS };
extern const char *const replay_part_names[PARTS];

struct replay_spread {
    double median, min, max;
};

struct replay_result {
    const char *nf, *store_url;
    struct preload_sizes sizes;
    unsigned times;
    bool replayed;                            /* as captures are: an outside store */
    struct replay_pass *pass[STAGES];         /* `times` of each */
    struct nst_engine_stats engine;           /* of the last whole pass */
    struct replay_spread ns, cycles_per_byte; /* per packet; per byte */
    double part[PARTS];                       /* ns per packet; they add up to ns.median */
};

/* Runs all passes and fills in the result (free it with replay_free, whatever comes out): 0, or a negative errno, what
 * was wrong having been logged. -EAGAIN as instance_run. */
int replay_run(const struct settings *s, struct replay_result *r);
void replay_free(struct replay_result *r);

/* Medians, and what the parts are, from the passes. */
void replay_sum_up(struct replay_result *r);
struct replay_spread replay_spread(double *values, unsigned n);

void replay_text(const struct replay_result *r, FILE *out);
int replay_json(const struct replay_result *r, FILE *out);

/* Puts a clock around the calls of a store, until replay_store_unwatch; one store at a time. */
struct nst_store;
void replay_store_watch(struct nst_store *s);
uint64_t replay_store_unwatch(struct nst_store *s); /* the cycles */
