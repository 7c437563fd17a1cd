/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"
#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* A name as a JSON key: lower case, words joined by '_'. */
static void key_of(const char *name, char *key, size_t size)
{
    size_t n = 0;

    for (size_t i = 0; name[i] != '\0' && n + 1 < size; i++) {
        if (isalnum((unsigned char)name[i]))
            key[n++] = (char)tolower((unsigned char)name[i]);
        else if (n != 0 && key[n - 1] != '_')
            key[n++] = '_';
    }
    while (n != 0 && key[n - 1] == '_')
        n--;
    key[n] = '\0';
}

static void put(json_t *object, const char *key, uint64_t n)
{
    json_object_set_new(object, key, json_integer((json_int_t)n));
}

/* Names of files need not be UTF-8, JSON must be. */
static json_t *string(const char *text)
{
    json_t *s = json_string(text);

    if (s == NULL) {
        char *copy = strdup(text);

        for (char *p = copy; p != NULL && *p != '\0'; p++)
            if ((unsigned char)*p >= 0x80)
                *p = '?';
        s = copy != NULL ? json_string(copy) : json_null();
        free(copy);
    }
    return s;
}

static json_t *causes(const uint64_t counts[NST_CAUSES])
{
    json_t *object = json_object();
    char key[64];

    for (unsigned i = 0; i < NST_CAUSES; i++) {
        key_of(nst_cause_name((enum nst_cause)i), key, sizeof key);
        put(object, key, counts[i]);
    }
    return object;
}

static json_t *latency(const struct nst_store_stats *s)
{
    const struct {
        const char *name;
        nst_time t;
    } rows[] = { { "p50", s->p50 }, { "p90", s->p90 }, { "p99", s->p99 }, { "p999", s->p999 }, { "max", s->max } };
    json_t *object = json_object();

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        json_object_set_new(object, rows[i].name, json_real((double)rows[i].t / 1e3));
    return object;
}

static json_t *store(const struct report *r, const struct nst_store_stats *s)
{
    json_t *object;

    if (r->store_url == NULL)
        return json_null();
    object = json_object();
    json_object_set_new(object, "url", string(r->store_url));
    put(object, "requests", s->requests);
    put(object, "answers", s->answers);
    put(object, "misses", s->misses);
    put(object, "stale", s->stale);
    put(object, "refused", s->refused);
    put(object, "timeouts", s->timeouts);
    put(object, "broken", s->broken);
    put(object, "errors", s->errors);
    put(object, "protocol_errors", s->protocol_errors);
    put(object, "connects", s->connects);
    put(object, "tripped", s->tripped);
    put(object, "shed", s->shed);
    put(object, "in_flight", s->in_flight);
    put(object, "in_flight_peak", s->in_flight_peak);
    json_object_set_new(object, "latency_us", latency(s));
    return object;
}

static json_t *ports(const struct report *r)
{
    json_t *array = json_array();

    for (unsigned i = 0; i < r->n_ports; i++) {
        const struct report_port *p = &r->ports[i];
        json_t *object = json_object();

        json_object_set_new(object, "name", string(p->name));
        json_object_set_new(object, "driver", string(p->driver));
        put(object, "rx_packets", p->stats.rx_packets);
        put(object, "rx_bytes", p->stats.rx_bytes);
        put(object, "rx_missed", p->stats.rx_missed);
        put(object, "rx_no_buffer", p->stats.rx_no_buffer);
        put(object, "tx_packets", p->stats.tx_packets);
        put(object, "tx_bytes", p->stats.tx_bytes);
        put(object, "tx_dropped", p->stats.tx_dropped);
        json_array_append_new(array, object);
    }
    return array;
}

/* A number when all of it is one, else a string. */
static json_t *value_of(const char *text)
{
    char *end;
    long long n;
    double x;

    if (!isdigit((unsigned char)*text) && *text != '-')
        return string(text);
    errno = 0;
    n = strtoll(text, &end, 10);
    if (*end == '\0' && errno == 0)
        return json_integer(n);
    x = strtod(text, &end);
    return *end == '\0' ? json_real(x) : string(text);
}

static json_t *module(const char *text)
{
    json_t *object = json_object();
    struct report_line line;
    char key[96];

    while (text != NULL && report_next_line(&text, &line)) {
        key_of(line.name, key, sizeof key);
        if (key[0] != '\0')
            json_object_set_new(object, key, value_of(line.value));
    }
    return object;
}

/* Whether it is among the names that each core says of all. */
static bool is_alike(const char *const *alike, const char *name)
{
    for (; alike != NULL && *alike != NULL; alike++) {
        size_t len = strlen(*alike);
        if (len != 0 && (*alike)[len - 1] == '*' ? strncmp(*alike, name, len - 1) == 0 : strcmp(*alike, name) == 0)
            return true;
    }
    return false;
}

/* What the module says on all cores: numbers add up, and where a text stands only the cores have it. */
static json_t *module_sum(const struct report *r)
{
    json_t *sum = json_object();
    struct report_line line;
    char key[96];

    for (unsigned i = 0; i < r->n_cores; i++) {
        const char *text = r->cores[i].module_text;
        while (text != NULL && report_next_line(&text, &line)) {
            json_t *value = value_of(line.value), *before;
            key_of(line.name, key, sizeof key);
            before = json_object_get(sum, key);
            if (key[0] == '\0' || !json_is_number(value) || (before != NULL && is_alike(r->alike, line.name)))
                ;
            else if (before == NULL)
                json_object_set(sum, key, value);
            else if (json_is_integer(before) && json_is_integer(value))
                json_object_set_new(sum, key, json_integer(json_integer_value(before) + json_integer_value(value)));
            else
                json_object_set_new(sum, key, json_real(json_number_value(before) + json_number_value(value)));
            json_decref(value);
        }
    }
    return sum;
}

static json_t *faults(const uint64_t counts[NST_FAULTS])
{
    json_t *object = json_object();
    char key[64];

    for (unsigned i = 0; i < NST_FAULTS; i++) {
        key_of(nst_fault_name((enum nst_fault)i), key, sizeof key);
        put(object, key, counts[i]);
    }
    return object;
}

/* The names are those of struct nst_engine_stats. */
static json_t *engine(const struct nst_engine_stats *e)
{
    json_t *object = json_object();

    put(object, "packets", e->packets);
    put(object, "bytes", e->bytes);
    put(object, "forwarded", e->forwarded);
    put(object, "sent_by_handler", e->sent_by_handler);
    put(object, "injected", e->injected);
    put(object, "joined", e->joined);
    put(object, "edits", e->edits);
    put(object, "edits_refused", e->edits_refused);
    put(object, "edit_kept", e->edit_kept);
    put(object, "edit_kept_peak", e->edit_kept_peak);
    json_object_set_new(object, "dropped", causes(e->dropped));
    json_object_set_new(object, "policy", causes(e->policy));
    put(object, "not_ip", e->not_ip);
    put(object, "other_proto", e->other_proto);
    json_object_set_new(object, "faults", faults(e->faults));
    put(object, "tunnelled", e->tunnelled);
    put(object, "networks", e->networks);
    put(object, "networks_refused", e->networks_refused);
    put(object, "icmp", e->icmp);
    put(object, "fragments", e->fragments);
    put(object, "datagrams", e->datagrams);
    put(object, "fragments_kept", e->fragments_kept);
    put(object, "fragments_kept_peak", e->fragments_kept_peak);
    put(object, "flows_opened", e->flows_opened);
    put(object, "flows_closed", e->flows_closed);
    put(object, "flows_evicted", e->flows_evicted);
    json_t *evicted = json_object();
    for (unsigned i = 0; i < NST_WORTHS; i++)
        put(evicted, nst_worth_name((enum nst_worth)i), e->evicted[i]);
    json_object_set_new(object, "evicted", evicted);
    put(object, "flows_refused", e->flows_refused);
    put(object, "flows", e->flows);
    put(object, "flows_peak", e->flows_peak);
    put(object, "held", e->held);
    put(object, "held_peak", e->held_peak);
    put(object, "events", e->events);
    put(object, "waits", e->waits);
    put(object, "stream_bytes", e->stream_bytes);
    put(object, "stream_kept", e->stream_kept);
    put(object, "stream_kept_peak", e->stream_kept_peak);
    put(object, "conflicts", e->conflicts);
    put(object, "gaps", e->gaps);
    put(object, "retransmits", e->retransmits);
    put(object, "unverified", e->unverified);
    put(object, "unkept_bytes", e->unkept_bytes);
    put(object, "lost_bytes", e->lost_bytes);
    put(object, "keep_alives", e->keep_alives);
    put(object, "syns_ignored", e->syns_ignored);
    put(object, "resets_ignored", e->resets_ignored);
    put(object, "beyond_window", e->beyond_window);
    put(object, "stale", e->stale);
    put(object, "bad_acks", e->bad_acks);
    put(object, "urgent", e->urgent);
    put(object, "selective", e->selective);
    put(object, "acks_ignored", e->acks_ignored);
    put(object, "elsewhere", e->elsewhere);
    put(object, "moved", e->moved);
    put(object, "normalised", e->normalised);
    put(object, "watch_full", e->watch_full);
    put(object, "given", e->given);
    put(object, "taken_over", e->taken_over);
    put(object, "bytes_per_flow", e->bytes_per_flow);
    return object;
}

static json_t *reactor(const struct nst_reactor_stats *s)
{
    json_t *object = json_object();

    put(object, "turns", s->turns);
    put(object, "sleeps", s->sleeps);
    put(object, "suspensions", s->suspensions);
    put(object, "stalls", s->stalls);
    put(object, "no_stack", s->no_stack);
    put(object, "stacks_peak", s->stacks_peak);
    put(object, "stacks_limit", s->stacks_limit);
    json_object_set_new(object, "stack_guard", string(s->guard != NULL ? s->guard : ""));
    return object;
}

static json_t *cores(const struct report *r)
{
    json_t *array = json_array();

    for (unsigned i = 0; i < r->n_cores; i++) {
        json_t *object = json_object();

        json_object_set_new(object, "engine", engine(&r->cores[i].engine));
        json_object_set_new(object, "store", store(r, &r->cores[i].store));
        json_object_set_new(object, "reactor", reactor(&r->cores[i].reactor));
        if (r->cores[i].module_text != NULL)
            json_object_set_new(object, "module", module(r->cores[i].module_text));
        json_array_append_new(array, object);
    }
    return array;
}

json_t *report_value(const struct report *r)
{
    json_t *root = json_object(), *buffers = json_object();

    json_object_set_new(root, "netstar", string(NETSTAR_VERSION));
    json_object_set_new(root, "nf", string(r->nf));
    json_object_set_new(root, "input", string(r->capture ? "capture" : "live"));
    json_object_set_new(root, "ended_by", r->ended_by != NULL ? string(r->ended_by) : json_null());
    json_object_set_new(root, "error", r->error[0] != '\0' ? string(r->error) : json_null());
    json_object_set_new(root, "duration", json_real(r->seconds));
    json_object_set_new(root, "engine", engine(&r->engine));
    json_object_set_new(root, "store", store(r, &r->store));
    json_object_set_new(root, "ports", ports(r));
    json_object_set_new(root, "reactor", reactor(&r->reactor));
    json_object_set_new(root, "cores", cores(r));
    json_object_set_new(buffers, "whole", json_boolean(r->buffers_missing == 0));
    put(buffers, "missing", r->buffers_missing);
    if (r->ended_by != NULL)
        json_object_set_new(root, "buffers", buffers);
    else
        json_decref(buffers); /* many are under way */
    json_object_set_new(root, "module", r->module_text != NULL ? module(r->module_text) : module_sum(r));
    return root;
}

int report_json(const struct report *r, FILE *out)
{
    json_t *root = report_value(r);
    int rc = 0;

    errno = 0;
    if (json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0 || fputc('\n', out) == EOF ||
        fflush(out) != 0)
        rc = errno != 0 ? -errno : -EIO;
    json_decref(root);
    return rc;
}

int report_to(const char *path, int (*write)(const void *what, FILE *out), const void *what)
{
    FILE *out = strcmp(path, "-") == 0 ? stdout : fopen(path, "we");
    int rc = out != NULL ? write(what, out) : -errno;

    if (out != NULL && out != stdout && fclose(out) != 0 && rc == 0)
        rc = -errno;
    if (rc < 0)
        nst_log(NST_LOG_ERROR, "--report %s: %s", path, strerror(-rc));
    return rc;
}
