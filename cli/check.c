/* SPDX-License-Identifier: Apache-2.0 */
#include "checks.h"
#include "commands.h"
#include "io/port.h"
#include "line.h"
#include "prepare.h"
#include "store/url.h"
#include "values.h"
#include <netstar/reactor.h>
#include <netstar/task.h>
#include <string.h>

void help_check(void)
{
    printf("Usage: netstar check [options]\n"
           "       netstar check -c FILE [options of run]\n\n"
           "Looks whether this machine is fit for what the options say, and prints what to type where it\n"
           "is not. Of a configuration file it also tells every mistake, with its line and column, and\n"
           "reads the files that it names. The exit status is 0 when nothing is a problem. Nothing is\n"
           "changed.\n\n");
    settings_help(stdout, NULL, FOR_CHECK);
    printf("\nExamples:\n  netstar check --ports eth1,eth2 --store redis://localhost\n"
           "  netstar check -c edge.yaml\n");
}

void check_say(struct checks *k, enum check_level level, const char *what, const char *fmt, ...)
{
    static const char *const names[] = { "ok", "warning", "problem" };
    va_list ap;

    k->counts[level]++;
    fprintf(k->out, "%-8s %-12s ", names[level], what);
    va_start(ap, fmt);
    vfprintf(k->out, fmt, ap);
    va_end(ap);
    fputc('\n', k->out);
}

void check_hint(struct checks *k, const char *fmt, ...)
{
    va_list ap;

    fprintf(k->out, "%22s", "");
    va_start(ap, fmt);
    vfprintf(k->out, fmt, ap);
    va_end(ap);
    fputc('\n', k->out);
}

/* ---- ports ---- */
static void check_interface(struct checks *k, const char *name, const char *driver)
{
    char advice[2048];
    int faults = port_interface_check(name, advice, sizeof advice);

    if (faults < 0) {
        check_say(k, CHECK_PROBLEM, name, "%s",
                  faults == -ENODEV ? "there is no such network interface" : strerror(-faults));
        check_hint(k, "ip link   # lists those that there are");
        return;
    }
    if (faults == 0)
        check_say(k, CHECK_OK, name, "up, %s", driver);
    for (char *rest = advice, *line; (line = strsep(&rest, "\n")) != NULL;) {
        static const char note[] = "note: ";
        bool is_note = strncmp(line, note, strlen(note)) == 0;
        char *command;

        if (*line == '\0')
            continue;
        line += is_note ? strlen(note) : 0;
        command = strstr(line, ": ");
        if (command != NULL)
            *command = '\0';
        check_say(k, is_note ? CHECK_WARNING : CHECK_PROBLEM, name, "%s", line);
        if (command != NULL)
            check_hint(k, "%s", command + 2);
    }
}

void check_port(struct checks *k, const char *name)
{
    if (strncmp(name, "xdp:", 4) == 0)
        check_interface(k, name + 4, "AF_XDP");
    else if (strncmp(name, "packet:", 7) == 0)
        check_interface(k, name + 7, "AF_PACKET");
    else if (strncmp(name, "net_", 4) == 0 || strchr(name, ':') != NULL)
        check_say(k, CHECK_OK, name, "a DPDK device: it is looked at when it is opened");
    else
        check_interface(k, name, "AF_XDP, or AF_PACKET where that cannot be had");
}

/* ---- store ---- */
struct ping {
    const char *url;
    int rc;
    nst_time first, second;
    char why[256]; /* it could not even be opened */
};

static void ping(void *arg)
{
    struct ping *p = arg;
    struct nst_store *store = NULL;
    nst_time began = nst_clock();
    const char *why = NULL;

    p->rc = nst_store_open(&store, p->url, NULL, &why);
    if (p->rc < 0 && why != NULL)
        snprintf(p->why, sizeof p->why, "%s", why);
    if (p->rc == 0)
        p->rc = nst_store_ping(store, nst_now() + NST_SEC(2));
    p->first = nst_clock() - began;
    if (p->rc == 0) {
        began = nst_clock();
        p->rc = nst_store_ping(store, nst_now() + NST_SEC(2));
        p->second = nst_clock() - began;
    }
    nst_store_close(store);
    nst_reactor_stop(nst_reactor_self());
}

void check_store(struct checks *k, const struct settings *s)
{
    const struct nst_reactor_config config = { .name = "check", .cpu = -1, .stacks = 64 };
    struct nst_reactor *reactor = NULL;
    struct ping p = { .url = s->store };
    char first[32], second[32];
    struct store_url url;
    int rc;

    if (strncmp(s->store, "mem:", 4) == 0) {
        check_say(k, CHECK_OK, "store", "%s is in the process itself: it is always there, and gone with it", s->store);
        return;
    }
    rc = nst_reactor_open(&reactor, &config);
    if (rc == 0)
        rc = nst_reactor_run(reactor, ping, &p);
    nst_reactor_close(reactor);
    if (rc == 0)
        rc = p.rc;
    if (rc < 0 && p.why[0] != 0) {
        check_say(k, CHECK_PROBLEM, "store", "%s cannot be opened: %s", s->store_name, p.why);
        return;
    }
    if (rc < 0) {
        check_say(k, CHECK_PROBLEM, "store", "%s does not answer: %s", s->store_name, strerror(-rc));
        if (store_url_parse(&url, s->store, NULL) < 0)
            return;
        if (url.kind == STORE_REDIS_UNIX)
            check_hint(k, "is it running?  redis-cli -s %s ping", url.path);
        else if (url.kind == STORE_REDIS_CLUSTER)
            check_hint(k, "are all slots served?  redis-cli -c -h %s -p %u cluster info", url.hosts[0].host,
                       url.hosts[0].port);
        else if (url.kind == STORE_REDIS_SENTINEL)
            check_hint(k, "do the sentinels know it?  redis-cli -h %s -p %u sentinel master %s", url.hosts[0].host,
                       url.hosts[0].port, url.service);
        else if (url.tls)
            check_hint(k, "does it speak TLS there?  redis-cli --tls -h %s -p %u ping", url.hosts[0].host,
                       url.hosts[0].port);
        else
            check_hint(k, "is it running, and may this machine reach it?  redis-cli -u %s ping", s->store_name);
        return;
    }
    check_say(k, p.second > NST_MS(20) ? CHECK_WARNING : CHECK_OK, "store", "%s answers in %s (connected in %s)",
              s->store_name, value_show_time(p.second, second, sizeof second),
              value_show_time(p.first - p.second > 0 ? p.first - p.second : p.first, first, sizeof first));
}

/* ---- a configuration file ---- */
struct config_check {
    struct checks *k;
    const char *path;
};

static void config_mistake(void *arg, unsigned line, unsigned column, const char *text)
{
    const struct config_check *cc = arg;
    char where[600];

    if (line != 0)
        snprintf(where, sizeof where, "%s:%u:%u", cc->path, line, column);
    else
        snprintf(where, sizeof where, "%s", cc->path);
    check_say(cc->k, CHECK_PROBLEM, where, "%s", text);
}

/* What the NF itself reads, and what else the options name. */
static void check_named(struct checks *k, const struct settings *s)
{
    struct complaint c;
    struct prepared p;
    char *rest, *line;
    int rc = settings_probe(s, &c);

    if (rc < 0)
        check_say(k, CHECK_PROBLEM, "files", "%s", c.text);
    rc = prepare(s, NULL, &p);
    rest = p.why;
    if (rc < 0)
        check_say(k, CHECK_PROBLEM, s->module->name, "%s", strsep(&rest, "\n"));
    while (rc < 0 && (line = strsep(&rest, "\n")) != NULL)
        check_hint(k, "%s", line);
    prepare_dispose(s, p.config);
    prepared_free(&p);
}

static void check_machine(struct checks *k, const struct settings *s)
{
    check_kernel(k);
    check_processor(k);
    check_privileges(k, s->n_ports != 0);
    check_hugepages(k, s);
    for (unsigned i = 0; i < s->n_ports; i++)
        check_port(k, s->ports[i]);
    check_store(k, s);
    check_memory(k, s);
}

static int verdict(const struct checks *k)
{
    unsigned n = k->counts[CHECK_PROBLEM];

    if (n != 0)
        printf("\nNot fit yet: %u problem%s.\n", n, n > 1 ? "s" : "");
    else
        printf("\nFit.\n");
    return n != 0 ? EXIT_FAILED : 0;
}

/* All that `run` would take is taken here, too. */
static int check_with_file(const char *path, int argc, char *argv[])
{
    struct checks k = { .out = stdout };
    struct config_check cc = { .k = &k, .path = path };
    struct line l;
    struct complaint c;
    int rc = line_read(&l, FOR_RUN, argc, argv, config_mistake, &cc, &c), status;

    nst_log_level(NST_LOG_ERROR); /* the findings say it all */
    if (rc == 0 && l.s.help) {
        help_check();
        status = 0;
    } else if (rc == 0) {
        check_say(&k, CHECK_OK, path, "the options of %s", l.name);
        check_named(&k, &l.s);
        check_machine(&k, &l.s);
        status = verdict(&k);
    } else if (k.counts[CHECK_PROBLEM] != 0) {
        status = verdict(&k);
    } else {
        status = complaint_exit(&c, rc, "check");
    }
    line_free(&l);
    return status;
}

int command_check(int argc, char *argv[])
{
    const struct settings_source from = { .who = FOR_CHECK, .argc = argc, .argv = argv };
    const char *path = settings_config_path(argc, argv);
    struct checks k = { .out = stdout };
    struct settings s;
    struct complaint c;
    int rc;

    if (path != NULL)
        return check_with_file(path, argc, argv);
    rc = settings_read(&s, &from, &c);
    if (rc < 0 || s.help) {
        if (rc == 0)
            help_check();
        settings_free(&s);
        return rc < 0 ? complaint_exit(&c, rc, "check") : 0;
    }
    nst_log_level(NST_LOG_ERROR); /* the findings say it all */
    check_machine(&k, &s);
    settings_free(&s);
    return verdict(&k);
}
