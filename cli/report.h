/* SPDX-License-Identifier: Apache-2.0 */
/* cli/report.h - the closing report: the same numbers as aligned text and as JSON.
 *
 * The names in the JSON are an interface: they stay. Everything is there, also what is zero; the text leaves out what
 * did not happen. Times are in seconds or, where the name says so, microseconds.
 */
#pragma once
#include "settings.h"
#include <netstar/cores.h>
#include <netstar/engine.h>
#include <netstar/ports.h>
#include <netstar/reactor.h>
#include <netstar/store.h>

struct report_core {
    struct nst_engine_stats engine;
    struct nst_store_stats store;
    struct nst_reactor_stats reactor;
    uint64_t kept;     /* while it works: objects of the store that this core keeps */
    char *module_text; /* while it works: what the module's report() wrote on this core; freed by report_free */
};

struct report_port {
    char name[64], driver[32];
    struct nst_port_stats stats;
};

struct report {
    const char *nf;
    bool capture;
    const char *ended_by; /* "end of input", "signal" or "error"; NULL: it is at work */
    char error[256];      /* what went wrong in the middle; empty: nothing */
    double seconds;       /* of work, by the wall clock */
    bool ran;             /* the engine was at work: without that the numbers mean nothing */
    struct nst_engine_stats engine;
    const char *store_url; /* NULL: the NF uses none */
    struct nst_store_stats store;
    struct nst_reactor_stats reactor;
    struct report_core cores[NST_CORES_MAX]; /* of which the three above are the sum, see report_sum */
    unsigned n_cores;
    struct report_port ports[PORTS_MAX];
    unsigned n_ports;
    char *module_text;        /* what the module's report() wrote; freed by report_free */
    const char *const *alike; /* of the module */
    uint32_t buffers_missing;
};

/* Makes the sum of all cores: counts add up, and so do peaks, as an upper bound; of latencies, whose distributions are
 * not there any more, the worst core's counts. */
void report_sum(struct report *r);

void report_text(const struct report *r, FILE *out);

/* The report as JSON; its reference is the caller's. */
struct json_t *report_value(const struct report *r);

/* 0, or the errno of writing. */
int report_json(const struct report *r, FILE *out);

/* Has `write` write to a file, or to standard output where path is "-". 0, or the errno, which was logged. */
int report_to(const char *path, int (*write)(const void *what, FILE *out), const void *what);

/* Takes the next line "  name  value" off a module's text: two blanks or more, or a tab, part the two, as the name may
 * have single blanks in it; where there is no such gap the last blank does. False at the end. */
struct report_line {
    char name[96], value[256];
};
bool report_next_line(const char **text, struct report_line *out);

void report_free(struct report *r);
