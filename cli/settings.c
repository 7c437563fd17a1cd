/* SPDX-License-Identifier: Apache-2.0 */
#include "settings.h"
#include "control_place.h"
#include "store/url.h"
#include "values.h"
#include <sched.h>
#include <stdlib.h>
#include <string.h>

const struct nst_module no_module = { .abi = NST_MODULE_ABI, .name = "NAME" };

enum {
    CONFIG = 1,
    PORTS,
    READ,
    WRITE,
    SPEED,
    STORE,
    FAIL,
    BUDGET,
    HOLD,
    OVERLAP,
    NORMALISE,
    CHECKSUMS,
    FLOWS,
    PACKETS,
    STREAM_MEMORY,
    FRAGMENTS,
    FRAGMENT_MEMORY,
    FRAGMENT_TIME,
    IN_USE,
    TUNNELS,
    EAL,
    NO_HUGE,
    BUSY_POLL,
    CORES,
    CPU,
    TIMES,
    MEMORY,
    INSTANCE,
    CONTROL,
    REPORT,
    QUIET,
    VERBOSE,
    HELP,
    OF_MODULE, /* and the index of the module's option */
};

/* The form of a value in a configuration file: one value, but for these. */
enum { AS_LIST = 1 << 8, AS_EACH = 1 << 9 };

static const struct {
    struct option_spec spec;
    unsigned who;
} common[] = {
    { { CONFIG, "config", 'c', "FILE",
        "take options from this file (YAML, see docs/operating.md); those of the command line count more" },
      FOR_RUN | FOR_CHECK | FOR_REPLAY },
    { { PORTS, "ports", 0, "A,B[,C,D]",
        "Linux interfaces or DPDK devices, in pairs: what comes in by A leaves by B, and back. xdp:eth1 or "
        "packet:eth1 picks the driver" },
      FOR_RUN | FOR_CHECK | AS_LIST },
    { { READ, "read", 'r', "FILE",
        "take packets from a capture (pcap or pcapng, - is standard input); several are merged by time" },
      FOR_RUN | FOR_REPLAY | AS_EACH },
    { { WRITE, "write", 'w', "FILE", "write what is forwarded to a pcap file" }, FOR_RUN },
    { { SPEED, "speed", 0, "X", "replay captures X times as fast as recorded; max (the default): as fast as can be" },
      FOR_RUN },
    { { STORE, "store", 0, "URL",
        "where the state of the flows is kept: mem: (the default, gone with the process), "
        "redis://[USER:PASSWORD@]HOST:PORT/DB, "
        "redis+unix://PATH" },
      FOR_RUN | FOR_CHECK | FOR_REPLAY },
    { { FAIL, "fail", 0, "open|closed",
        "what becomes of packets that cannot be judged: they pass, or they are dropped (the default)" },
      FOR_RUN | FOR_REPLAY },
    { { BUDGET, "budget", 0, "TIME", "how long one packet may be waited for, e.g. 200ms; then --fail decides" },
      FOR_RUN | FOR_REPLAY },
    { { HOLD, "hold", 0, "N", "packets of one flow and direction that may wait behind another" },
      FOR_RUN | FOR_REPLAY },
    { { CHECKSUMS, "checksums", 0, "verify|trust",
        "compute the checksums of packets for which no device vouches (the default), and drop what is wrong; or "
        "trust" },
      FOR_RUN | FOR_REPLAY },
    { { OVERLAP, "overlap", 0, "POLICY[,NET/LEN=POLICY...]",
        "how TCP ends take overlapping segments: first (the default), last, linux, bsd, windows ...; by network where "
        "one is given" },
      FOR_RUN | FOR_REPLAY | AS_LIST },
    { { NORMALISE, "normalise", 0, NULL,
        "make TCP that leaves equal to what was inspected: bytes that conflict are overwritten, not dropped" },
      FOR_RUN | FOR_REPLAY },
    { { FLOWS, "flows", 0, "N", "flows that are followed at the same time, on each core (1048576)" },
      FOR_RUN | FOR_CHECK | FOR_REPLAY },
    { { PACKETS, "packets", 0, "N", "packet buffers (16384 for each core)" }, FOR_RUN | FOR_CHECK | FOR_REPLAY },
    { { STREAM_MEMORY, "stream-memory", 0, "SIZE", "bytes of stream data kept for all flows of a core (256M)" },
      FOR_RUN | FOR_CHECK | FOR_REPLAY },
    { { IN_USE, "in-use", 0, "TIME",
        "a TCP connection that was seen within this time is never given up for another (5m)" },
      FOR_RUN | FOR_REPLAY },
    { { TUNNELS, "tunnels", 0, "LIST",
        "look into these tunnels: mpls, gre, ipip, vxlan, gtpu, separated by commas, or all; flows are then those "
        "inside" },
      FOR_RUN | FOR_CHECK | FOR_REPLAY },
    { { FRAGMENTS, "fragments", 0, "N",
        "IP fragments that are kept until their datagrams are whole, on each core (4096)" },
      FOR_RUN | FOR_CHECK | FOR_REPLAY },
    { { FRAGMENT_MEMORY, "fragment-memory", 0, "SIZE", "and their bytes (16M)" }, FOR_RUN | FOR_CHECK | FOR_REPLAY },
    { { FRAGMENT_TIME, "fragment-time", 0, "TIME", "and how long they wait (30s)" }, FOR_RUN | FOR_REPLAY },
    { { EAL, "eal", 0, "ARGS", "further arguments for DPDK, in one word" }, FOR_RUN | FOR_REPLAY },
    { { NO_HUGE, "no-huge", 0, NULL, "use ordinary memory even where huge pages are to be had" },
      FOR_RUN | FOR_CHECK | FOR_REPLAY },
    { { BUSY_POLL, "busy-poll", 0, NULL, "never sleep: lower latency, and a core that is always busy" }, FOR_RUN },
    { { CORES, "cores", 0, "N",
        "work on N cores (1); each has flows, stream data, a connection to the store and an NF of its own" },
      FOR_RUN | FOR_CHECK },
    { { CPU, "cpu", 0, "N[,N...]", "stay on this processor; with --cores on these, one for each" },
      FOR_RUN | FOR_REPLAY | AS_LIST },
    { { TIMES, "times", 0, "N", "measure N passes (10), after one to warm up" }, FOR_REPLAY },
    { { MEMORY, "memory", 0, "SIZE", "bytes that the packets may take (1G)" }, FOR_REPLAY },
    { { INSTANCE, "instance", 0, "NAME", "what this instance is called by those who ask for it (the NF's name)" },
      FOR_RUN },
    { { CONTROL, "control", 0, "DIR|no",
        "where it can be asked, e.g. by netstar reload: a socket in this directory (/run/netstar); no: nowhere" },
      FOR_RUN },
    { { REPORT, "report", 0, "FILE", "write the report as JSON too; - is standard output" }, FOR_RUN | FOR_REPLAY },
    { { QUIET, "quiet", 'q', NULL, "print warnings and errors only" }, FOR_RUN | FOR_REPLAY },
    { { VERBOSE, "verbose", 'v', NULL, "say more, and let DPDK speak" }, FOR_RUN | FOR_REPLAY },
    { { HELP, "help", 'h', NULL, "print this help" }, FOR_RUN | FOR_CHECK | FOR_REPLAY },
};
enum { N_COMMON = sizeof common / sizeof *common };

size_t settings_module_options(const struct nst_module *m)
{
    size_t n = 0;

    while (m != NULL && m->options != NULL && m->options[n].name != NULL)
        n++;
    return n;
}

static size_t common_options(struct option_spec *specs, unsigned who)
{
    size_t n = 0;

    for (size_t i = 0; i < N_COMMON; i++)
        if (common[i].who & who)
            specs[n++] = common[i].spec;
    return n;
}

static int number32(struct complaint *c, const struct option_spec *spec, const char *text, uint64_t min, uint64_t max,
                    uint32_t *out)
{
    char option[64];
    uint64_t n = 0;
    int rc;

    snprintf(option, sizeof option, "--%s", spec->name);
    rc = value_number(c, option, text, min, max, &n);
    if (rc == 0)
        *out = (uint32_t)n;
    return rc;
}

static int set_ports(struct settings *s, const char *value, struct complaint *c)
{
    free(s->ports_text);
    s->ports_text = strdup(value);
    if (s->ports_text == NULL)
        return complain(c, -ENOMEM, "out of memory");
    return value_ports(c, "--ports", s->ports_text, s->ports, PORTS_MAX, &s->n_ports);
}

static int set_store(struct settings *s, const char *value, struct complaint *c)
{
    const char *why = "";
    struct store_url url;

    /* The value is not repeated: there may be a password in it. */
    if (store_url_parse(&url, value, &why) != 0)
        return complain(c, -EINVAL, "--store: %s", why);
    s->store = value;
    snprintf(s->store_name, sizeof s->store_name, "%s", url.name);
    return 0;
}

static int set_cpus(struct settings *s, const char *value, struct complaint *c)
{
    char one[16];
    uint64_t n;

    s->n_cpus = 0;
    for (const char *at = value;; at++) {
        size_t len = strcspn(at, ",");
        if (s->n_cpus == CORES_LIMIT)
            return complain(c, -EINVAL, "--cpu: more than %d processors", CORES_LIMIT);
        snprintf(one, sizeof one, "%.*s", len < sizeof one ? (int)len : (int)sizeof one - 1, at);
        int rc = value_number(c, "--cpu", one, 0, CPU_SETSIZE - 1, &n);
        if (rc < 0)
            return rc;
        s->cpus[s->n_cpus++] = (int)n;
        at += len;
        if (*at == '\0')
            return 0;
    }
}

/* The command line says where packets come from, so the file does not. */
static void take_source(struct settings *s)
{
    if (s->on_line && !s->line_source)
        s->n_inputs = s->n_ports = 0;
    s->line_source = s->on_line;
}

static int set(void *arg, const struct option_spec *spec, const char *value, struct complaint *c)
{
    static const char *const fail_words[] = { "closed", "open" };
    static const char *const checksum_words[] = { "verify", "trust" };
    struct settings *s = arg;
    uint64_t size;
    uint32_t n = 0;
    unsigned word;
    int rc = 0;

    if (spec->id < OF_MODULE)
        s->text[spec->id] = value != NULL ? value : "true";
    switch (spec->id) {
    case CONFIG:
        if (s->from.file == NULL)
            return complain(c, -EINVAL, "--config is to be written out, and FILE behind it");
        return 0;
    case PORTS:
        take_source(s);
        return set_ports(s, value, c);
    case READ:
        take_source(s);
        if (s->n_inputs == INPUTS_MAX)
            return complain(c, -EINVAL, "-r: more than %d captures", INPUTS_MAX);
        s->inputs[s->n_inputs++] = value;
        return 0;
    case WRITE:
        s->output = value;
        return 0;
    case SPEED:
        return value_speed(c, "--speed", value, &s->speed);
    case STORE:
        return set_store(s, value, c);
    case FAIL:
        rc = value_word(c, "--fail", value, fail_words, 2, &word);
        if (rc == 0)
            s->fail_open = word == 1;
        return rc;
    case BUDGET:
        return value_time(c, "--budget", value, NST_US(1), NST_SEC(3600), &s->budget);
    case HOLD:
        rc = number32(c, spec, value, 1, UINT16_MAX, &n);
        s->hold = (uint16_t)n;
        return rc;
    case CHECKSUMS:
        rc = value_word(c, "--checksums", value, checksum_words, 2, &word);
        if (rc == 0)
            s->trust_checksums = word == 1;
        return rc;
    case OVERLAP:
        return value_overlaps(c, "--overlap", value, &s->overlap, s->overlap_nets, OVERLAP_NETS_MAX,
                              &s->n_overlap_nets);
    case NORMALISE:
        s->normalise = true;
        return 0;
    case FLOWS:
        return number32(c, spec, value, 1, 1u << 30, &s->flows);
    case PACKETS:
        return number32(c, spec, value, 512, 1u << 26, &s->packets);
    case STREAM_MEMORY:
        rc = value_size(c, "--stream-memory", value, 64 << 10, (uint64_t)1 << 44, &size);
        if (rc == 0)
            s->stream_memory = size;
        return rc;
    case FRAGMENTS:
        return number32(c, spec, value, 16, 1u << 20, &s->fragments);
    case FRAGMENT_MEMORY:
        rc = value_size(c, "--fragment-memory", value, 64 << 10, (uint64_t)1 << 40, &size);
        if (rc == 0)
            s->fragment_memory = size;
        return rc;
    case FRAGMENT_TIME:
        return value_time(c, "--fragment-time", value, NST_MS(1), NST_SEC(3600), &s->fragment_time);
    case IN_USE:
        return value_time(c, "--in-use", value, NST_MS(1), NST_SEC(86400), &s->in_use);
    case TUNNELS:
        return value_tunnels(c, "--tunnels", value, &s->tunnels);
    case EAL:
        s->eal = value;
        return 0;
    case NO_HUGE:
        s->no_huge = true;
        return 0;
    case BUSY_POLL:
        s->busy_poll = true;
        return 0;
    case CORES:
        rc = number32(c, spec, value, 1, CORES_LIMIT, &n);
        if (rc == 0)
            s->cores = n;
        return rc;
    case CPU:
        return set_cpus(s, value, c);
    case TIMES:
        return number32(c, spec, value, 1, REPLAY_TIMES_MAX, &s->times);
    case MEMORY:
        return value_size(c, "--memory", value, 1 << 20, (uint64_t)1 << 44, &s->memory);
    case INSTANCE:
        if (!place_name_ok(value))
            return complain(c, -EINVAL, "--instance %s: expected 1 to %d letters, digits, '-', '_' or dots", value,
                            INSTANCE_NAME_MAX);
        s->instance = value;
        return 0;
    case CONTROL:
        s->control = value;
        return 0;
    case REPORT:
        s->report = value;
        return 0;
    case QUIET:
        s->quiet = true;
        return 0;
    case VERBOSE:
        s->verbose = true;
        return 0;
    case HELP:
        s->help = true;
        return 0;
    default:
        s->module_values[spec->id - OF_MODULE] = value != NULL ? value : "yes";
        return 0;
    }
}

/* The module's own. -ENOEXEC: one is called like one of the command's. */
static int own_options(const struct nst_module *m, struct option_spec own[], const struct option_spec specs[], size_t n,
                       struct complaint *c)
{
    for (size_t i = 0; i < settings_module_options(m); i++) {
        const struct nst_option *o = &m->options[i];
        for (size_t k = 0; k < n; k++)
            if (strcmp(specs[k].name, o->name) == 0)
                return complain(c, -ENOEXEC, "the module %s declares the option --%s, which is taken", m->name,
                                o->name);
        own[i] = (struct option_spec){ OF_MODULE + (int)i, o->name, 0, o->value_name, o->help };
    }
    return 0;
}

static unsigned read_file(struct settings *s, const struct option_spec *specs, size_t n, size_t own)
{
    struct option_spec keys[N_COMMON];
    enum config_form forms[N_COMMON];
    struct config_specs in = { .common = keys, .forms = forms, .own = specs + n, .n_own = own };
    const struct settings_source *from = &s->from;
    /* A replay takes the file that a run takes; what it has no use for is looked at all the same. */
    unsigned who = from->who == FOR_REPLAY ? FOR_REPLAY | FOR_RUN : from->who;

    for (size_t i = 0; i < N_COMMON; i++) {
        if ((common[i].who & who) == 0 || common[i].spec.id == HELP || common[i].spec.id == CONFIG)
            continue;
        forms[in.n_common] = common[i].who & AS_LIST ? CONFIG_LIST : common[i].who & AS_EACH ? CONFIG_EACH : CONFIG_ONE;
        keys[in.n_common++] = common[i].spec;
    }
    in.nf = s->module != NULL ? s->module->name : NULL;
    return config_apply(from->file, &in, set, s, from->say, from->say_arg);
}

struct first {
    struct complaint *c;
    unsigned n;
};

static void keep_first(void *arg, unsigned line, unsigned column, const char *text)
{
    struct first *f = arg;

    (void)line;
    (void)column;
    if (f->n++ == 0)
        complain(f->c, -EINVAL, "%s", text);
}

/* What a file has for runs alone: a replay works on one core, and sends nowhere. */
static void leave_to_runs(struct settings *s)
{
    s->cores = 1;
    s->n_cpus = s->n_cpus > 1 ? 1 : s->n_cpus;
    s->n_ports = 0;
    s->output = NULL;
    s->speed = 0;
    s->busy_poll = false;
}

static int read_all(struct settings *s, const struct option_spec *specs, size_t n, size_t own, struct complaint *c)
{
    const struct settings_source *from = &s->from;
    struct first first = { .c = c };
    unsigned mistakes = from->file != NULL ? read_file(s, specs, n, own) : 0;
    int rc;

    s->on_line = true;
    rc = options_read(from->argc, from->argv, specs, n + own, set, s, c);
    if (rc < 0 || s->help)
        return rc;
    if (from->file == NULL)
        return settings_validate(s, from->who, keep_first, &first) != 0 ? -EINVAL : 0;
    /* What contradicts what is only known of values that are right. */
    if (mistakes == 0 && s->module != NULL)
        mistakes = settings_validate(s, from->who, from->say, from->say_arg);
    if (mistakes == 0) {
        if (from->who == FOR_REPLAY)
            leave_to_runs(s);
        return 0;
    }
    return complain(c, -EINVAL, "%s: %u mistake%s", from->path, mistakes, mistakes > 1 ? "s" : "");
}

int settings_read(struct settings *s, const struct settings_source *from, struct complaint *c)
{
    const struct nst_module *module = from->module;
    size_t own = settings_module_options(module), n;
    struct option_spec *specs = calloc(N_COMMON + own, sizeof *specs);
    int rc;

    _Static_assert((int)OF_MODULE <= (int)SETTINGS_MAX, "each option has a place for its text");
    *s = (struct settings){ .from = *from,
                            .module = module,
                            .cores = 1,
                            .times = 10,
                            .memory = (uint64_t)1 << 30,
                            .store = "mem:",
                            .store_name = "mem:" };
    s->module_values = calloc(own + 1, sizeof *s->module_values);
    if (s->module_values == NULL || specs == NULL) {
        free(specs);
        return complain(c, -ENOMEM, "out of memory");
    }
    n = common_options(specs, from->who);
    rc = own_options(module, specs + n, specs, n, c);
    if (rc == 0)
        rc = read_all(s, specs, n, own, c);
    free(specs);
    return rc;
}

const char *settings_config_path(int argc, char *argv[])
{
    static const char name[] = "--config";
    const char *path = NULL;

    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (strcmp(word, "-c") == 0 || strcmp(word, name) == 0)
            path = i + 1 < argc ? argv[++i] : path;
        else if (strncmp(word, "-c", 2) == 0)
            path = word + 2;
        else if (strncmp(word, name, strlen(name)) == 0 && word[strlen(name)] == '=')
            path = word + strlen(name) + 1;
    }
    return path;
}

const char *settings_fixed_difference(const struct settings *now, const struct settings *next)
{
    for (size_t i = 0; i < N_COMMON; i++) {
        const char *a = now->text[common[i].spec.id], *b = next->text[common[i].spec.id];
        if ((a == NULL) != (b == NULL) || (a != NULL && strcmp(a, b) != 0))
            return common[i].spec.name;
    }
    for (size_t i = 0; i < settings_module_options(now->module); i++) {
        const char *a = now->module_values[i], *b = next->module_values[i];
        if ((now->module->options[i].flags & NST_OPTION_RELOADS) == 0 &&
            ((a == NULL) != (b == NULL) || (a != NULL && strcmp(a, b) != 0)))
            return now->module->options[i].name;
    }
    return NULL;
}

void settings_free(struct settings *s)
{
    free(s->ports_text);
    free(s->module_values);
    config_free(s->from.file);
    s->from.file = NULL;
    s->ports_text = NULL;
    s->module_values = NULL;
}

const char *settings_module_option(const struct settings *s, const char *name)
{
    for (size_t i = 0; i < settings_module_options(s->module); i++)
        if (strcmp(s->module->options[i].name, name) == 0)
            return s->module_values[i];
    return NULL;
}

static const char *env_option(const struct nst_module_env *env, const char *name)
{
    return settings_module_option(((const struct settings_env *)env)->s, name);
}

void settings_env(struct settings_env *e, const struct settings *s)
{
    *e = (struct settings_env){
        .env = { .option = env_option, .replay = s->n_inputs != 0, .fail_open = s->fail_open, .n_cores = s->cores },
        .s = s,
    };
}

void settings_engine(const struct settings *s, struct nst_engine_config *config)
{
    config->overlap = s->overlap;
    config->overlap_nets = s->overlap_nets;
    config->n_overlap_nets = s->n_overlap_nets;
    config->flows = s->flows;
    config->stream_memory = s->stream_memory;
    config->fragments = s->fragments;
    config->fragment_memory = s->fragment_memory;
    config->fragment_time = s->fragment_time;
    config->in_use = s->in_use;
    config->tunnels = s->tunnels;
    config->trust_checksums = s->trust_checksums;
}

void settings_help(FILE *out, const struct nst_module *module, enum settings_for who)
{
    struct option_spec specs[N_COMMON];
    size_t own = settings_module_options(module);

    if (own != 0) {
        fprintf(out, "Options of %s:\n", module->name);
        for (size_t i = 0; i < own; i++) {
            const struct nst_option *o = &module->options[i];
            struct option_spec spec = { 1, o->name, 0, o->value_name, o->help };
            options_help(out, &spec, 1);
        }
        fputc('\n', out);
    }
    fprintf(out, own != 0 ? "Options of every network function:\n" : "Options:\n");
    options_help(out, specs, common_options(specs, who));
}
