/* SPDX-License-Identifier: Apache-2.0 */
#include "prometheus.h"
#include <stdbool.h>
#include <string.h>

struct writer {
    FILE *out;
    char labels[512]; /* of everything, without the braces */
};

/* A label's value: quotes, backslashes and line ends are escaped. */
static void quote(char *to, size_t size, const char *text)
{
    size_t n = 0;

    for (; text != NULL && *text != '\0' && n + 3 < size; text++) {
        if (*text == '"' || *text == '\\' || *text == '\n')
            to[n++] = '\\';
        to[n++] = *text;
        if (*text == '\n')
            to[n - 1] = 'n';
    }
    to[n] = '\0';
}

/* What goes down, too. */
static bool is_gauge(const char *name)
{
    static const char *const gauges[] = { "flows",          "held",      "stream_kept",      "edit_kept",
                                          "fragments_kept", "in_flight", "bytes_per_flow",   "stacks_limit",
                                          "latency",        "nf_value",  "duration_seconds", "kept_objects" };
    size_t len = strlen(name);

    for (size_t i = 0; i < sizeof gauges / sizeof *gauges; i++) {
        size_t n = strlen(gauges[i]);
        if (len >= n && strcmp(name + len - n, gauges[i]) == 0 && (len == n || name[len - n - 1] == '_'))
            return true;
    }
    return len > 5 && strcmp(name + len - 5, "_peak") == 0;
}

static void head(const struct writer *w, const char *name, char full[128])
{
    bool gauge = is_gauge(name);

    snprintf(full, 128, "netstar_%s%s", name, gauge ? "" : "_total");
    fprintf(w->out, "# TYPE %s %s\n", full, gauge ? "gauge" : "counter");
}

static void sample(const struct writer *w, const char *full, const char *label, const char *value, const json_t *n)
{
    char quoted[256];

    fprintf(w->out, "%s{%s", full, w->labels);
    if (label != NULL) {
        quote(quoted, sizeof quoted, value);
        fprintf(w->out, ",%s=\"%s\"", label, quoted);
    }
    if (json_is_integer(n))
        fprintf(w->out, "} %" JSON_INTEGER_FORMAT "\n", json_integer_value(n));
    else
        fprintf(w->out, "} %.9g\n", json_number_value(n));
}

/* The numbers of an object, one family for each; objects in it are a family with a label. */
static void numbers(const struct writer *w, const char *prefix, const char *label, json_t *object)
{
    const char *key, *inner;
    json_t *value, *number;
    char name[96], full[128];

    json_object_foreach(object, key, value)
    {
        snprintf(name, sizeof name, "%s%s", prefix, key);
        if (!json_is_number(value) && (!json_is_object(value) || strcmp(key, "latency_us") == 0))
            continue;
        head(w, name, full);
        if (json_is_number(value))
            sample(w, full, NULL, NULL, value);
        json_object_foreach(json_is_object(value) ? value : NULL, inner, number) sample(w, full, label, inner, number);
    }
}

static void latency(const struct writer *w, json_t *us)
{
    static const struct {
        const char *key, *quantile;
    } rows[] = { { "p50", "0.5" }, { "p90", "0.9" }, { "p99", "0.99" }, { "p999", "0.999" }, { "max", "1" } };

    if (!json_is_object(us))
        return;
    fprintf(w->out, "# TYPE netstar_store_latency_seconds gauge\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        fprintf(w->out, "netstar_store_latency_seconds{%s,quantile=\"%s\"} %.9g\n", w->labels, rows[i].quantile,
                json_number_value(json_object_get(us, rows[i].key)) / 1e6);
}

/* The same number of each port, or of each core. */
static void of_each(const struct writer *w, const char *prefix, const char *label, json_t *array, const char *part,
                    const char *const keys[])
{
    char name[96], full[128], which[96];
    json_t *one;
    size_t i;

    for (; *keys != NULL; keys++) {
        snprintf(name, sizeof name, "%s%s", prefix, *keys);
        head(w, name, full);
        json_array_foreach(array, i, one)
        {
            const char *called = json_string_value(json_object_get(one, "name"));
            snprintf(which, sizeof which, "%zu", i);
            sample(w, full, label, called != NULL ? called : which,
                   json_object_get(part != NULL ? json_object_get(one, part) : one, *keys));
        }
    }
}

/* What the NF reports: its names are its own. */
static void of_nf(const struct writer *w, const json_t *stats)
{
    json_t *module = json_object_get(stats, "module"), *core, *value;
    const char *key;
    char full[128];
    size_t i;

    head(w, "nf_value", full);
    /* The sum only where the cores say nothing: whoever adds samples up must not meet both. */
    if (json_object_get(json_array_get(json_object_get(stats, "cores"), 0), "module") == NULL)
        json_object_foreach(module, key, value) if (json_is_number(value)) sample(w, full, "name", key, value);
    json_array_foreach(json_object_get(stats, "cores"), i, core)
    {
        struct writer with = *w;
        size_t len = strlen(with.labels);
        snprintf(with.labels + len, sizeof with.labels - len, ",core=\"%zu\"", i);
        json_object_foreach(json_object_get(core, "module"), key, value) if (json_is_number(value))
            sample(&with, full, "name", key, value);
    }
}

void prometheus_text(const json_t *stats, FILE *out)
{
    static const char *const port_keys[] = { "rx_packets", "rx_bytes", "rx_missed",  "rx_no_buffer",
                                             "tx_packets", "tx_bytes", "tx_dropped", NULL };
    static const char *const core_keys[] = { "packets", "bytes", "flows", "given", "taken_over", NULL };
    struct writer w = { .out = out };
    char instance[128], nf[128], full[128];

    quote(instance, sizeof instance, json_string_value(json_object_get(stats, "instance")));
    quote(nf, sizeof nf, json_string_value(json_object_get(stats, "nf")));
    snprintf(w.labels, sizeof w.labels, "instance=\"%s\",nf=\"%s\"", instance, nf);
    head(&w, "duration_seconds", full);
    sample(&w, full, NULL, NULL, json_object_get(stats, "duration"));
    head(&w, "kept_objects", full);
    sample(&w, full, NULL, NULL, json_object_get(stats, "kept_objects"));
    numbers(&w, "", "cause", json_object_get(stats, "engine"));
    numbers(&w, "store_", "", json_object_get(stats, "store"));
    latency(&w, json_object_get(json_object_get(stats, "store"), "latency_us"));
    numbers(&w, "reactor_", "", json_object_get(stats, "reactor"));
    of_each(&w, "port_", "port", json_object_get(stats, "ports"), NULL, port_keys);
    of_each(&w, "core_", "core", json_object_get(stats, "cores"), "engine", core_keys);
    of_nf(&w, stats);
}
