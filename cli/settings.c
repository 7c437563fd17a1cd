/* SPDX-License-Identifier: Apache-2.0 */
#include "settings.h"
#include "control_place.h"
#include "store/url.h"
#include "values.h"
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct nst_module no_module = { .abi = NST_MODULE_ABI, .name = "NAME" };

enum {
    PORTS = 1,
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

static const struct {
    struct option_spec spec;
    unsigned who;
} common[] = {
    { { PORTS, "ports", 0, "A,B[,C,D]",
        "Linux interfaces or DPDK devices, in pairs: what comes in by A leaves by B, and back. xdp:eth1 or "
        "packet:eth1 picks the driver" },
      FOR_RUN | FOR_CHECK },
    { { READ, "read", 'r', "FILE",
        "take packets from a capture (pcap or pcapng, - is standard input); several are merged by time" },
      FOR_RUN | FOR_REPLAY },
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
      FOR_RUN | FOR_REPLAY },
    { { NORMALISE, "normalise", 0, NULL,
        "make TCP that leaves equal to what was inspected: bytes that conflict are overwritten, not dropped" },
      FOR_RUN | FOR_REPLAY },
    { { FLOWS, "flows", 0, "N", "flows that are followed at the same time, on each core (1048576)" },
      FOR_RUN | FOR_CHECK | FOR_REPLAY },
    { { PACKETS, "packets", 0, "N", "packet buffers (16384 for each core)" }, FOR_RUN | FOR_CHECK | FOR_REPLAY },
    { { STREAM_MEMORY, "stream-memory", 0, "SIZE", "bytes of stream data kept for all flows of a core (256M)" },
      FOR_RUN | FOR_CHECK | FOR_REPLAY },
    { { EAL, "eal", 0, "ARGS", "further arguments for DPDK, in one word" }, FOR_RUN | FOR_REPLAY },
    { { NO_HUGE, "no-huge", 0, NULL, "use ordinary memory even where huge pages are to be had" },
      FOR_RUN | FOR_CHECK | FOR_REPLAY },
    { { BUSY_POLL, "busy-poll", 0, NULL, "never sleep: lower latency, and a core that is always busy" }, FOR_RUN },
    { { CORES, "cores", 0, "N",
        "work on N cores (1); each has flows, stream data, a connection to the store and an NF of its own" },
      FOR_RUN | FOR_CHECK },
    { { CPU, "cpu", 0, "N[,N...]", "stay on this processor; with --cores on these, one for each" },
      FOR_RUN | FOR_REPLAY },
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

static size_t module_options(const struct nst_module *m)
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

static int set(void *arg, const struct option_spec *spec, const char *value, struct complaint *c)
{
    static const char *const fail_words[] = { "closed", "open" };
    static const char *const checksum_words[] = { "verify", "trust" };
    struct settings *s = arg;
    uint64_t size;
    uint32_t n = 0;
    unsigned word;
    int rc = 0;

    switch (spec->id) {
    case PORTS:
        return set_ports(s, value, c);
    case READ:
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

static int validate(const struct settings *s, enum settings_for who, struct complaint *c)
{
    if (s->n_ports != 0 && s->n_ports % 2 != 0)
        return complain(c, -EINVAL, "--ports: %u ports given; they come in pairs: A,B or A,B,C,D", s->n_ports);
    for (unsigned i = 0; i < s->n_ports; i++)
        for (unsigned j = 0; j < i; j++)
            if (strcmp(s->ports[i], s->ports[j]) == 0)
                return complain(c, -EINVAL, "--ports: %s is given twice", s->ports[i]);
    if (s->module == NULL)
        return 0;
    if (s->n_cpus != 0 && s->n_cpus != s->cores)
        return complain(c, -EINVAL, "--cpu: %u processors given for %u core%s", s->n_cpus, s->cores,
                        s->cores > 1 ? "s" : "");
    for (unsigned i = 0; i < s->n_cpus; i++)
        for (unsigned j = 0; j < i; j++)
            if (s->cpus[i] == s->cpus[j])
                return complain(c, -EINVAL, "--cpu: %d is given twice", s->cpus[i]);
    if (s->n_ports != 0 && s->n_inputs != 0)
        return complain(c, -EINVAL, "--ports and -r exclude each other: live traffic, or captures");
    if (who == FOR_REPLAY && s->n_inputs == 0)
        return complain(c, -EINVAL, "where do the packets come from? Give -r FILE");
    if (s->n_ports == 0 && s->n_inputs == 0)
        return complain(c, -EINVAL, "where do the packets come from? Give --ports A,B or -r FILE");
    if (s->n_inputs == 0 && s->output != NULL)
        return complain(c, -EINVAL, "-w goes with -r: live ports send what is forwarded");
    if (s->n_inputs == 0 && s->speed != 0)
        return complain(c, -EINVAL, "--speed goes with -r: live traffic has its own speed");
    if (s->output != NULL && s->report != NULL && strcmp(s->output, "-") == 0 && strcmp(s->report, "-") == 0)
        return complain(c, -EINVAL, "-w - and --report - exclude each other: there is one standard output");
    if (s->quiet && s->verbose)
        return complain(c, -EINVAL, "--quiet and --verbose exclude each other");
    for (size_t i = 0; i < module_options(s->module); i++)
        if (s->module->options[i].required && s->module_values[i] == NULL)
            return complain(c, -EINVAL, "%s needs --%s %s", s->module->name, s->module->options[i].name,
                            s->module->options[i].value_name != NULL ? s->module->options[i].value_name : "");
    return 0;
}

int settings_read(struct settings *s, const struct nst_module *module, enum settings_for who, int argc, char *argv[],
                  struct complaint *c)
{
    struct option_spec *specs;
    size_t own = module_options(module), n;
    int rc;

    *s = (struct settings){
        .module = module, .cores = 1, .times = 10, .memory = (uint64_t)1 << 30, .store = "mem:", .store_name = "mem:"
    };
    s->module_values = calloc(own + 1, sizeof *s->module_values);
    specs = calloc(N_COMMON + own, sizeof *specs);
    if (s->module_values == NULL || specs == NULL) {
        free(specs);
        return complain(c, -ENOMEM, "out of memory");
    }
    n = common_options(specs, who);
    for (size_t i = 0; i < own; i++) {
        const struct nst_option *o = &module->options[i];

        for (size_t k = 0; k < n; k++)
            if (strcmp(specs[k].name, o->name) == 0) {
                free(specs);
                return complain(c, -ENOEXEC, "the module %s declares the option --%s, which is taken", module->name,
                                o->name);
            }
        specs[n++] = (struct option_spec){ OF_MODULE + (int)i, o->name, 0, o->value_name, o->help };
    }
    rc = options_read(argc, argv, specs, n, set, s, c);
    free(specs);
    if (rc == 0 && !s->help)
        rc = validate(s, who, c);
    return rc;
}

void settings_free(struct settings *s)
{
    free(s->ports_text);
    free(s->module_values);
    s->ports_text = NULL;
    s->module_values = NULL;
}

static int probe_output(const struct settings *s, const char *option, const char *path, struct complaint *c)
{
    struct stat out, in;
    int fd;

    if (strcmp(path, "-") == 0)
        return 0;
    for (unsigned i = 0; i < s->n_inputs; i++)
        if (stat(path, &out) == 0 && stat(s->inputs[i], &in) == 0 && S_ISREG(out.st_mode) && out.st_dev == in.st_dev &&
            out.st_ino == in.st_ino)
            return complain(c, -EINVAL, "%s %s: that is the input %s", option, path, s->inputs[i]);
    /* What cannot be written is said before the work, not after it. Nothing is left behind, so that a run that fails
     * does not look as if it had written something. */
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0)
        unlink(path);
    else if (errno == EEXIST)
        fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno != ENXIO) /* a pipe that nobody reads yet */
        return complain(c, -errno, "%s %s: %s", option, path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return 0;
}

int settings_probe(const struct settings *s, struct complaint *c)
{
    struct stat st;
    cpu_set_t cpus;
    int rc = 0;

    for (unsigned i = 0; i < s->n_inputs; i++) {
        const char *path = s->inputs[i];

        if (strcmp(path, "-") == 0)
            continue;
        if (stat(path, &st) != 0 || access(path, R_OK) != 0)
            return complain(c, -errno, "-r %s: %s", path, strerror(errno));
        if (S_ISDIR(st.st_mode))
            return complain(c, -EISDIR, "-r %s: %s", path, strerror(EISDIR));
    }
    for (unsigned i = 0; i < s->n_cpus; i++)
        if (sched_getaffinity(0, sizeof cpus, &cpus) == 0 && !CPU_ISSET(s->cpus[i], &cpus))
            return complain(c, -ENODEV, "--cpu %d: this process may not run there (%d processors are allowed)",
                            s->cpus[i], CPU_COUNT(&cpus));
    if (s->output != NULL)
        rc = probe_output(s, "-w", s->output, c);
    if (rc == 0 && s->report != NULL)
        rc = probe_output(s, "--report", s->report, c);
    return rc;
}

const char *settings_module_option(const struct settings *s, const char *name)
{
    for (size_t i = 0; i < module_options(s->module); i++)
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

void settings_help(FILE *out, const struct nst_module *module, enum settings_for who)
{
    struct option_spec specs[N_COMMON];
    size_t own = module_options(module);

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
