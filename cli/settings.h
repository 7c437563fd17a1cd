/* SPDX-License-Identifier: Apache-2.0 */
/* cli/settings.h - what the command line asks for: the options that `run` and `check` share, read and validated. */
#pragma once
#include "complaint.h"
#include "config.h"
#include "options.h"
#include <netstar/engine.h>
#include <netstar/module.h>
#include <netstar/tcp.h>

enum { PORTS_MAX = 16, INPUTS_MAX = 64, CORES_LIMIT = 32, REPLAY_TIMES_MAX = 1000, OVERLAP_NETS_MAX = 256 };

/* For which command options are read. */
enum settings_for { FOR_RUN = 1, FOR_CHECK = 2, FOR_REPLAY = 4 };

enum { SETTINGS_MAX = 64 /* options that there may be beside the module's */ };

/* Where settings come from: a configuration file, or none, and then a command line, whose words count more. */
struct settings_source {
    const struct nst_module *module; /* NULL for check */
    enum settings_for who;
    int argc;
    char **argv; /* outlives the settings */
    const char *path;
    struct config *file; /* NULL: none; belongs to the settings from settings_read on, whatever comes out */
    config_say *say;     /* hears of mistakes in it, say_arg being its first argument */
    void *say_arg;
};

struct settings {
    struct settings_source from;
    const struct nst_module *module; /* NULL for check */
    const char *text[SETTINGS_MAX];  /* each option's value as it was given, for comparison; NULL: not given */
    bool on_line, line_source;       /* the command line is read; it says where packets come from */
    const char **module_values;      /* as many as the module has options; NULL: not given */
    bool help;

    char *ports_text; /* --ports, cut up */
    const char *ports[PORTS_MAX];
    unsigned n_ports;
    const char *inputs[INPUTS_MAX]; /* -r */
    unsigned n_inputs;
    const char *output; /* -w */
    double speed;
    const char *store;
    char store_name[512]; /* the same without a password, for messages */
    bool fail_open;
    bool trust_checksums;
    nst_time budget; /* 0: as the module says; likewise hold */
    uint16_t hold;
    enum nst_overlap overlap;
    struct nst_overlap_net overlap_nets[OVERLAP_NETS_MAX];
    unsigned n_overlap_nets;
    bool normalise;
    uint32_t flows, packets; /* 0: the library's default; likewise what follows */
    size_t stream_memory;
    uint32_t fragments;
    size_t fragment_memory;
    nst_time fragment_time, in_use;
    unsigned tunnels; /* bits of enum nst_tunnel */
    const char *eal;
    bool no_huge, busy_poll, quiet, verbose;
    unsigned cores;
    int cpus[CORES_LIMIT]; /* one for each core, or none */
    unsigned n_cpus;
    const char *report;
    const char *instance; /* its name; NULL: the module's */
    const char *control;  /* directory of the sockets, or "no"; NULL: the usual one */
    uint32_t times;       /* replay: passes */
    uint64_t memory;      /* replay: for the packets */
};

/* Reads the options of a command and validates them as far as that needs nothing but the file and the command line. Of
 * the command line the first mistake is in the complaint; of the file all are said, and the complaint has their number.
 * The settings borrow from argv and the file; free them with settings_free, also after an error. When --help is among the
 * options, help is set and nothing else is required. */
int settings_read(struct settings *s, const struct settings_source *from, struct complaint *c);
void settings_free(struct settings *s);

/* The file of -c or --config, or NULL. To be known before the options can be, which are also those of the NF in it. */
const char *settings_config_path(int argc, char *argv[]);

/* Whether the options contradict each other or lack something: the number of mistakes, each of which is said (line 0). */
unsigned settings_validate(const struct settings *s, enum settings_for who, config_say *say, void *arg);

/* The name of an option of `now` and `next` that differs and may not while the instance runs; NULL: there is none. */
const char *settings_fixed_difference(const struct settings *now, const struct settings *next);

size_t settings_module_options(const struct nst_module *m); /* how many it has; NULL is allowed */

/* Looks at the world: the inputs can be read, the output can be written and is none of the inputs, the cpu exists. */
int settings_probe(const struct settings *s, struct complaint *c);

/* What they say of an engine; the rest of the configuration stays as it is. */
void settings_engine(const struct settings *s, struct nst_engine_config *config);

/* The module's option by name, or NULL when it was not given. */
const char *settings_module_option(const struct settings *s, const char *name);

/* What a module is given of these settings; the rest of env is the caller's to set. */
struct settings_env {
    struct nst_module_env env;
    const struct settings *s;
};
void settings_env(struct settings_env *e, const struct settings *s);

/* Prints the options that settings_read takes for this module (NULL: for check; &no_module: the common ones). */
void settings_help(FILE *out, const struct nst_module *module, enum settings_for who);
extern const struct nst_module no_module;
