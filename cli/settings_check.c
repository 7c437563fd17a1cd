/* SPDX-License-Identifier: Apache-2.0 */
/* Whether settings go together, and whether the world has what they name. */
#include "settings.h"
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct findings {
    config_say *say;
    void *arg;
    unsigned n;
};

static void wrong(struct findings *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void wrong(struct findings *w, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    w->n++;
    w->say(w->arg, 0, 0, text);
}

static void ports(struct findings *w, const struct settings *s)
{
    if (s->n_ports != 0 && s->n_ports % 2 != 0)
        wrong(w, "--ports: %u ports given; they come in pairs: A,B or A,B,C,D", s->n_ports);
    for (unsigned i = 0; i < s->n_ports; i++)
        for (unsigned j = 0; j < i; j++)
            if (strcmp(s->ports[i], s->ports[j]) == 0)
                wrong(w, "--ports: %s is given twice", s->ports[i]);
}

static void cpus(struct findings *w, const struct settings *s)
{
    if (s->n_cpus != 0 && s->n_cpus != s->cores)
        wrong(w, "--cpu: %u processors given for %u core%s", s->n_cpus, s->cores, s->cores > 1 ? "s" : "");
    for (unsigned i = 0; i < s->n_cpus; i++)
        for (unsigned j = 0; j < i; j++)
            if (s->cpus[i] == s->cpus[j])
                wrong(w, "--cpu: %d is given twice", s->cpus[i]);
}

static void source(struct findings *w, const struct settings *s, enum settings_for who)
{
    if (s->n_ports != 0 && s->n_inputs != 0)
        wrong(w, "--ports and -r exclude each other: live traffic, or captures");
    else if (who == FOR_REPLAY && s->n_inputs == 0)
        wrong(w, "where do the packets come from? Give -r FILE");
    else if (s->n_ports == 0 && s->n_inputs == 0)
        wrong(w, "where do the packets come from? Give --ports A,B or -r FILE");
    if (s->n_inputs == 0 && s->output != NULL)
        wrong(w, "-w goes with -r: live ports send what is forwarded");
    if (s->n_inputs == 0 && s->speed != 0)
        wrong(w, "--speed goes with -r: live traffic has its own speed");
}

unsigned settings_validate(const struct settings *s, enum settings_for who, config_say *say, void *arg)
{
    struct findings w = { .say = say, .arg = arg };

    ports(&w, s);
    if (s->module == NULL)
        return w.n;
    cpus(&w, s);
    source(&w, s, who);
    if (s->output != NULL && s->report != NULL && strcmp(s->output, "-") == 0 && strcmp(s->report, "-") == 0)
        wrong(&w, "-w - and --report - exclude each other: there is one standard output");
    if (s->quiet && s->verbose)
        wrong(&w, "--quiet and --verbose exclude each other");
    for (size_t i = 0; i < settings_module_options(s->module); i++) {
        const struct nst_option *o = &s->module->options[i];
        if ((o->flags & NST_OPTION_REQUIRED) && s->module_values[i] == NULL)
            wrong(&w, "%s needs --%s %s", s->module->name, o->name, o->value_name != NULL ? o->value_name : "");
    }
    return w.n;
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
