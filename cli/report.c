/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"
#include "values.h"
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* 1234567 as 1,234,567. */
static const char *grouped(uint64_t n, char buf[32])
{
    char digits[24];
    size_t len = (size_t)snprintf(digits, sizeof digits, "%" PRIu64, n), k = 0;

    for (size_t i = 0; i < len; i++) {
        if (i != 0 && (len - i) % 3 == 0)
            buf[k++] = ',';
        buf[k++] = digits[i];
    }
    buf[k] = '\0';
    return buf;
}

static void row(FILE *out, const char *name, uint64_t n, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static void row(FILE *out, const char *name, uint64_t n, const char *fmt, ...)
{
    char number[32], note[128];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(note, sizeof note, fmt, ap);
    va_end(ap);
    fprintf(out, "  %-26s %15s%s%s\n", name, grouped(n, number), note[0] != '\0' ? "   " : "", note);
}

static void row_if(FILE *out, const char *name, uint64_t n, const char *note)
{
    if (n != 0)
        row(out, name, n, "%s", note);
}

static void causes(FILE *out, const char *what, const uint64_t counts[NST_CAUSES])
{
    char name[64];

    for (unsigned i = 0; i < NST_CAUSES; i++)
        if (counts[i] != 0) {
            snprintf(name, sizeof name, "  %s%s", what, nst_cause_name((enum nst_cause)i));
            row(out, name, counts[i], "%s", "");
        }
}

static void faults(FILE *out, const uint64_t counts[NST_FAULTS])
{
    uint64_t all = 0;
    char name[64];

    for (unsigned i = 0; i < NST_FAULTS; i++)
        all += counts[i];
    row_if(out, "wrong packets", all, "whatever became of them");
    for (unsigned i = 0; i < NST_FAULTS; i++) {
        snprintf(name, sizeof name, "  %s", nst_fault_name((enum nst_fault)i));
        row_if(out, name, counts[i], "");
    }
}

static void engine(const struct report *r, FILE *out)
{
    const struct nst_engine_stats *e = &r->engine;
    uint64_t dropped = 0, policy = 0;
    char text[32];

    for (unsigned i = 0; i < NST_CAUSES; i++) {
        dropped += e->dropped[i];
        policy += e->policy[i];
    }
    row(out, "packets", e->packets, "%.0f a second", r->seconds > 0 ? (double)e->packets / r->seconds : 0);
    row(out, "bytes", e->bytes, "%s", e->bytes >= 1024 ? value_show_size(e->bytes, text, sizeof text) : "");
    row(out, "forwarded", e->forwarded, "%s", "");
    row_if(out, "  not IP", e->not_ip, "passed unseen");
    row_if(out, "  other protocols", e->other_proto, "passed unseen");
    row(out, "dropped", dropped, "%s", "");
    causes(out, "", e->dropped);
    faults(out, e->faults);
    row_if(out, "in tunnels", e->tunnelled, "packets that were looked into");
    row_if(out, "  networks", e->networks, "that are inside");
    row_if(out, "  refused", e->networks_refused, "packets of networks for which there was no room");
    row_if(out, "ICMP errors", e->icmp, "told to their flows");
    row_if(out, "fragments", e->fragments, "");
    row_if(out, "  datagrams put together", e->datagrams, "");
    row_if(out, "sent by the NF", e->sent_by_handler, "");
    row_if(out, "injected", e->injected, "made by netstar, e.g. resets");
    row_if(out, "joined", e->joined, "fragments that left in fewer");
    row_if(out, "edits", e->edits, "of streams and datagrams");
    row_if(out, "  refused", e->edits_refused, "there was no room for them");
    row(out, "flows", e->flows_opened, "at most %" PRIu32 " at once", e->flows_peak);
    row_if(out, "  evicted", e->flows_evicted, "the table was full");
    for (unsigned i = 0; i < NST_WORTHS; i++) {
        snprintf(text, sizeof text, "    %s", nst_worth_name((enum nst_worth)i));
        row_if(out, text, e->evicted[i], "");
    }
    row_if(out, "  refused", e->flows_refused, "packets for which no flow could be made");
    row(out, "events", e->events, "%" PRIu64 " waited", e->waits);
    row_if(out, "  not registered", e->watch_full, "more than 255 different registrations");
    row_if(out, "policy decisions", policy, "");
    causes(out, "", e->policy);
    row_if(out, "stream bytes", e->stream_bytes, "delivered in order");
    row_if(out, "  conflicts", e->conflicts, "retransmitted bytes that differ");
    row_if(out, "  gaps", e->gaps, "");
    row_if(out, "  retransmissions", e->retransmits, "");
    row_if(out, "  unverified", e->unverified, "retransmissions of what is no longer kept");
    row_if(out, "  bytes not kept", e->unkept_bytes, "no room to compare retransmissions with");
    row_if(out, "  bytes never seen", e->lost_bytes, "acknowledged by their receiver");
}

static void store(const struct report *r, FILE *out)
{
    const struct nst_store_stats *s = &r->store;
    char a[32], b[32], c[32], d[32], e[32];

    row(out, "store requests", s->requests, "%" PRIu64 " answered, at most %" PRIu32 " at once", s->answers,
        s->in_flight_peak);
    row_if(out, "  timeouts", s->timeouts, "");
    row_if(out, "  refused", s->refused, "");
    row_if(out, "    by the breaker", s->shed, "the server did not answer");
    row_if(out, "  broken off", s->broken, "");
    row_if(out, "  errors", s->errors, "");
    row_if(out, "  not understood", s->protocol_errors, "");
    row_if(out, "  stale", s->stale, "");
    row_if(out, "  reconnects", s->connects > 1 ? s->connects - 1 : 0, "");
    if (s->answers != 0)
        fprintf(out, "  %-26s p50 %s  p90 %s  p99 %s  p99.9 %s  max %s\n", "store latency",
                value_show_time(s->p50, a, sizeof a), value_show_time(s->p90, b, sizeof b),
                value_show_time(s->p99, c, sizeof c), value_show_time(s->p999, d, sizeof d),
                value_show_time(s->max, e, sizeof e));
}

static nst_time later(nst_time a, nst_time b)
{
    return a > b ? a : b;
}

static void add_store(struct nst_store_stats *sum, const struct nst_store_stats *one)
{
    sum->requests += one->requests;
    sum->answers += one->answers;
    sum->misses += one->misses;
    sum->stale += one->stale;
    sum->refused += one->refused;
    sum->timeouts += one->timeouts;
    sum->broken += one->broken;
    sum->errors += one->errors;
    sum->protocol_errors += one->protocol_errors;
    sum->connects += one->connects;
    sum->tripped += one->tripped;
    sum->shed += one->shed;
    sum->in_flight += one->in_flight;
    sum->in_flight_peak += one->in_flight_peak;
    sum->p50 = later(sum->p50, one->p50);
    sum->p90 = later(sum->p90, one->p90);
    sum->p99 = later(sum->p99, one->p99);
    sum->p999 = later(sum->p999, one->p999);
    sum->max = later(sum->max, one->max);
}

static void add_reactor(struct nst_reactor_stats *sum, const struct nst_reactor_stats *one)
{
    sum->turns += one->turns;
    sum->idle_turns += one->idle_turns;
    sum->sleeps += one->sleeps;
    sum->suspensions += one->suspensions;
    sum->timers_fired += one->timers_fired;
    sum->calls_in += one->calls_in;
    sum->calls_refused += one->calls_refused;
    sum->stalls += one->stalls;
    sum->no_stack += one->no_stack;
    sum->stacks_used += one->stacks_used;
    sum->stacks_peak += one->stacks_peak;
    sum->stacks_limit += one->stacks_limit;
    sum->guard = one->guard;
}

void report_sum(struct report *r)
{
    memset(&r->engine, 0, sizeof r->engine);
    memset(&r->store, 0, sizeof r->store);
    memset(&r->reactor, 0, sizeof r->reactor);
    for (unsigned i = 0; i < r->n_cores; i++) {
        nst_engine_stats_add(&r->engine, &r->cores[i].engine);
        add_store(&r->store, &r->cores[i].store);
        add_reactor(&r->reactor, &r->cores[i].reactor);
    }
}

static void cores(const struct report *r, FILE *out)
{
    char name[32];

    for (unsigned i = 0; i < r->n_cores && r->n_cores > 1; i++) {
        const struct nst_engine_stats *e = &r->cores[i].engine;
        snprintf(name, sizeof name, "core %u", i);
        row(out, name, e->packets, "%" PRIu64 " of them from other cores, %" PRIu64 " given to others", e->taken_over,
            e->given);
    }
}

static void ports(const struct report *r, FILE *out)
{
    for (unsigned i = 0; i < r->n_ports; i++) {
        const struct nst_port_stats *s = &r->ports[i].stats;
        const char *full = r->ports[i].name;
        int len = (int)strcspn(full, ","); /* without a device's arguments */
        char name[32];

        /* Of a long path the end says most. */
        if (len > 21)
            snprintf(name, sizeof name, "port ...%.*s", 18, full + len - 18);
        else
            snprintf(name, sizeof name, "port %.*s", len, full);
        row(out, name, s->rx_packets, "received, %" PRIu64 " sent (%s)", s->tx_packets, r->ports[i].driver);
        row_if(out, "  missed", s->rx_missed, "the device had no room");
        row_if(out, "  no buffer", s->rx_no_buffer, "");
        row_if(out, "  not sent", s->tx_dropped, "");
    }
}

bool report_next_line(const char **text, struct report_line *out)
{
    while (**text != '\0') {
        const char *name = *text + strspn(*text, " \t"), *end = name + strcspn(name, "\n"), *gap, *value;

        *text = end + (*end == '\n');
        while (end > name && isspace((unsigned char)end[-1]))
            end--;
        if (end == name)
            continue;
        for (gap = name; gap < end && !(*gap == '\t' || (gap[0] == ' ' && gap[1] == ' ')); gap++)
            ;
        if (gap == end) {
            gap = memrchr(name, ' ', (size_t)(end - name));
            gap = gap != NULL ? gap : end;
        }
        for (value = gap; value < end && isspace((unsigned char)*value); value++)
            ;
        snprintf(out->name, sizeof out->name, "%.*s", (int)(gap - name), name);
        snprintf(out->value, sizeof out->value, "%.*s", (int)(end - value), value);
        return true;
    }
    return false;
}

static void module(const struct report *r, FILE *out)
{
    const char *text = r->module_text;
    struct report_line line;

    if (text != NULL)
        fprintf(out, "%s\n", r->nf);
    while (text != NULL && report_next_line(&text, &line)) {
        size_t len = strlen(line.value);
        char number[32];

        if (len < 20 && len != 0 && strspn(line.value, "0123456789") == len)
            grouped(strtoull(line.value, NULL, 10), number);
        else
            number[0] = '\0';
        fprintf(out, "  %-26s %15s\n", line.name, number[0] != '\0' ? number : line.value);
    }
}

void report_text(const struct report *r, FILE *out)
{
    fprintf(out, "netstar: %s: closing report\n", r->nf);
    fprintf(out, "  %-26s %15.3f   seconds, ended by %s\n", "duration", r->seconds, r->ended_by);
    engine(r, out);
    if (r->store_url != NULL)
        store(r, out);
    cores(r, out);
    ports(r, out);
    row_if(out, "stalls", r->reactor.stalls, "somebody held the core for too long");
    row_if(out, "no stack", r->reactor.no_stack, "waits refused");
    if (r->buffers_missing != 0)
        row(out, "packet buffers missing", r->buffers_missing, "%s", "");
    else
        fprintf(out, "  %-26s %15s\n", "packet buffers", "whole");
    if (r->error[0] != '\0')
        fprintf(out, "  %-26s %s\n", "error", r->error);
    module(r, out);
    fflush(out);
}

void report_free(struct report *r)
{
    free(r->module_text);
    r->module_text = NULL;
    for (unsigned i = 0; i < r->n_cores; i++) {
        free(r->cores[i].module_text);
        r->cores[i].module_text = NULL;
    }
}
