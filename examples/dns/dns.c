/* SPDX-License-Identifier: Apache-2.0 */
/* Watches DNS over UDP with an inspector of its own: logs what is asked and answered, and drops questions for names on
 * a list, answers that nobody asked for, and what is no DNS.
 *
 *   netstar run ./dns.so --ports eth1,eth2 --log dns.json --deny names.txt
 */
#include "deny.h"
#include "inspector.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netstar/netstar.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOG_LINE_MAX = 2 * DNS_TEXT_MAX + 512 };

struct watch {
    struct dns_inspector inspector; /* has to be the first: see inspector.h */
    struct nst_nf nf;
    struct deny *deny;
    int log; /* -1: none */
    bool replay;
    struct nst_log_limit limit;
    uint64_t queries, denied, answers, no_name, unasked, malformed, lost;
};

/* ---- the log: a line of JSON for each message ---- */
struct line {
    char text[LOG_LINE_MAX]; /* more than the longest can be */
    size_t len;
};

static void put(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct line *l, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(l->text + l->len, sizeof l->text - l->len, fmt, ap);
    va_end(ap);
    if (n > 0)
        l->len += (size_t)n < sizeof l->text - l->len ? (size_t)n : sizeof l->text - l->len - 1;
}

/* What dns_name_text leaves to be escaped in JSON are its own backslashes. */
static void put_name(struct line *l, const struct dns_name *name)
{
    char text[DNS_TEXT_MAX];

    dns_name_text(name, text);
    put(l, ",\"name\":\"");
    for (const char *c = text; *c != '\0' && l->len + 2 < sizeof l->text; c++) {
        if (*c == '\\')
            l->text[l->len++] = '\\';
        l->text[l->len++] = *c;
    }
    put(l, "\"");
}

static void put_endpoint(struct line *l, const char *key, const struct nst_flow *f, enum nst_side side)
{
    struct nst_endpoint e;
    char text[INET6_ADDRSTRLEN];

    nst_flow_endpoint(f, side, &e);
    inet_ntop(e.family == 4 ? AF_INET : AF_INET6, e.addr, text, sizeof text);
    put(l, e.family == 4 ? ",\"%s\":\"%s:%u\"" : ",\"%s\":\"[%s]:%u\"", key, text, e.port);
}

static void put_message(struct line *l, const struct dns_message *m)
{
    const char *type = dns_type_name(m->type), *code = dns_code_name(m->code);

    put(l, ",\"id\":%u", m->id);
    if (m->opcode != 0)
        put(l, ",\"opcode\":%u", m->opcode);
    if (m->n_questions != 0) {
        put_name(l, &m->name);
        if (type != NULL)
            put(l, ",\"type\":\"%s\"", type);
        else
            put(l, ",\"type\":\"TYPE%u\"", m->type);
        if (m->class != 1)
            put(l, ",\"class\":%u", m->class);
    }
    if (!m->answer)
        return;
    if (code != NULL)
        put(l, ",\"code\":\"%s\"", code);
    else
        put(l, ",\"code\":\"CODE%u\"", m->code);
    put(l, ",\"answers\":%u%s", m->n_answers, m->cut ? ",\"cut\":true" : "");
}

/* Since 1970: packets carry the monotonic clock's time, except in a replay. */
static nst_time time_of(const struct watch *w, const struct nst_packet *p)
{
    struct timespec now;

    if (w->replay)
        return nst_packet_time(p);
    clock_gettime(CLOCK_REALTIME, &now);
    return NST_SEC(now.tv_sec) + now.tv_nsec - (nst_clock() - nst_packet_time(p));
}

static void log_message(struct watch *w, struct nst_flow *f, const struct nst_event *ev, const char *what,
                        enum nst_verdict v, const char *why)
{
    enum nst_side sender = ev->dir == NST_SENT ? ev->side : !ev->side;
    struct line l = { .len = 0 };
    const char *bad;

    if (w->log < 0)
        return;
    const struct dns_message *m = dns_message(f, ev->side, &bad);
    nst_time t = time_of(w, ev->packet);
    put(&l, "{\"time\":%lld.%09lld,\"packet\":%llu,\"event\":\"%s\",\"verdict\":\"%s\"", (long long)(t / NST_SEC(1)),
        (long long)(t % NST_SEC(1)), (unsigned long long)nst_packet_number(ev->packet), what,
        v == NST_FORWARD ? "forward" : "drop");
    if (why != NULL)
        put(&l, ",\"why\":\"%s\"", why);
    put_endpoint(&l, "from", f, sender);
    put_endpoint(&l, "to", f, !sender);
    if (bad == NULL)
        put_message(&l, m);
    put(&l, "}\n");
    if (write(w->log, l.text, l.len) == (ssize_t)l.len)
        return;
    w->lost++;
    if (nst_log_allowed(&w->limit, 5))
        nst_log(NST_LOG_ERROR, "dns: cannot write to the log (%llu lines lost so far)", (unsigned long long)w->lost);
}

/* ---- events ---- */
static enum nst_verdict on_message(struct nst_flow *f, const struct nst_event *ev)
{
    struct watch *w = nst_nf_arg(f);
    enum nst_verdict v = NST_FORWARD;
    const char *why = NULL;

    if (ev->what & DNS_QUERY) {
        w->queries++;
        if (deny_has(w->deny, &dns_message(f, ev->side, NULL)->name)) {
            w->denied++;
            v = NST_DROP;
            why = "denied";
        }
        log_message(w, f, ev, "query", v, why);
    } else if (ev->what & DNS_ANSWER) {
        w->answers++;
        w->no_name += (ev->what & DNS_NO_NAME) != 0;
        log_message(w, f, ev, "answer", v, why);
    } else if (ev->what & DNS_UNASKED) {
        w->unasked++;
        v = NST_DROP;
        log_message(w, f, ev, "answer", v, "unasked");
    } else {
        w->malformed++;
        v = NST_DROP;
        dns_message(f, ev->side, &why);
        log_message(w, f, ev, "malformed", v, why);
    }
    return v;
}

/* ---- the module ---- */
static void watch_close(void *arg)
{
    struct watch *w = arg;

    if (w->log >= 0)
        close(w->log);
    deny_free(w->deny);
    free(w);
}

/* What is said of a mistake has to outlive what could not be opened. */
static char mistake[512];

static int read_options(struct watch *w, const struct nst_module_env *env)
{
    const char *port = env->option(env, "port"), *deny = env->option(env, "deny"), *log = env->option(env, "log");
    char *end;

    if (port != NULL) {
        unsigned long n = strtoul(port, &end, 10);
        if (port[0] < '0' || port[0] > '9' || *end != '\0' || n == 0 || n > 65535) {
            snprintf(mistake, sizeof mistake, "--port: expected a number from 1 to 65535");
            return -EINVAL;
        }
        w->inspector.port = (uint16_t)n;
    }
    if (deny != NULL) {
        int n = snprintf(mistake, sizeof mistake, "--deny: ");
        int rc = deny_read(&w->deny, deny, mistake + n, sizeof mistake - (size_t)n);
        if (rc < 0)
            return rc;
    }
    if (log != NULL) {
        /* Non-blocking: if it is a pipe whose reader sleeps, lines are lost, not packets. Instances on several cores
         * append to the one file; the first begins it anew when a capture is replayed. */
        int anew = env->replay && env->core == 0 ? O_TRUNC : 0;
        w->log = open(log, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC | anew, 0644);
        if (w->log < 0) {
            int rc = -errno;
            snprintf(mistake, sizeof mistake, "--log: %s: %s", log, strerror(-rc));
            return rc;
        }
    }
    return 0;
}

static int watch_open(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    const nst_events all = DNS_QUERY | DNS_ANSWER | DNS_UNASKED | DNS_MALFORMED | DNS_NO_NAME;
    enum nst_verdict failing = env->fail_open ? NST_FORWARD : NST_DROP;
    struct watch *w = calloc(1, sizeof *w);

    if (w == NULL)
        return -ENOMEM;
    w->inspector.port = 53;
    w->log = -1;
    w->replay = env->replay;
    int rc = read_options(w, env);
    if (rc < 0) {
        *why = mistake;
        watch_close(w);
        return rc;
    }
    w->nf.name = "dns";
    w->nf.proto = IPPROTO_UDP;
    w->nf.policy = (struct nst_policy){ .otherwise = failing, .on_no_memory = failing };
    /* One half is enough: both directions come by there. */
    w->nf.half[NST_CLIENT] =
        (struct nst_half){ .inspect = &dns, .on_sent = all, .on_received = all, .handler = on_message };
    *nf = &w->nf;
    *arg = w;
    return 0;
}

static void watch_merge(void *arg, const void *other)
{
    struct watch *w = arg;
    const struct watch *o = other;

    w->queries += o->queries;
    w->denied += o->denied;
    w->answers += o->answers;
    w->no_name += o->no_name;
    w->unasked += o->unasked;
    w->malformed += o->malformed;
    w->lost += o->lost;
    w->inspector.forgotten += o->inspector.forgotten;
}

static void watch_report(void *arg, FILE *out)
{
    const struct watch *w = arg;
    const struct {
        const char *name;
        uint64_t n;
    } lines[] = {
        { "names denied", deny_length(w->deny) },
        { "queries", w->queries },
        { "queries denied", w->denied },
        { "queries forgotten", w->inspector.forgotten },
        { "answers", w->answers },
        { "no such name", w->no_name },
        { "answers unasked", w->unasked },
        { "malformed", w->malformed },
        { "log lines lost", w->lost },
    };

    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        fprintf(out, "  %s  %llu\n", lines[i].name, (unsigned long long)lines[i].n);
}

static const struct nst_option options[] = {
    { "log", "FILE", "a line of JSON for each message", false },
    { "deny", "FILE", "drop questions for these names, one a line, and all below them", false },
    { "port", "N", "of the servers (53)", false },
    { NULL, NULL, NULL, false },
};

NST_API const struct nst_module nst_module = {
    .abi = NST_MODULE_ABI,
    .name = "dns",
    .summary = "logs DNS over UDP, and keeps names on a list from being asked for",
    .options = options,
    .open = watch_open,
    .close = watch_close,
    .merge = watch_merge,
    .report = watch_report,
};
