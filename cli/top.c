/* SPDX-License-Identifier: Apache-2.0 */
/* `netstar top`: the instances whose hearts beat into a store. */
#include "commands.h"
#include "control_place.h"
#include "heart.h"
#include "options.h"
#include "store/url.h"
#include "values.h"
#include <inttypes.h>
#include <jansson.h>
#include <netstar/reactor.h>
#include <netstar/store.h>
#include <netstar/task.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { STORE = 1, EVERY, ONCE, JSON, HELP, SHOWN_MAX = 1000 };

static const struct option_spec specs[] = {
    { STORE, "store", 0, "URL", "the store that the instances share" },
    { EVERY, "every", 0, "TIME", "look again after this time (1s)" },
    { ONCE, "once", 0, NULL, "look once, and end; so it is where standard output is no terminal" },
    { JSON, "json", 0, NULL, "print a JSON array, once" },
    { HELP, "help", 'h', NULL, "print this help" },
};

/* One instance, as its last heartbeat tells; `seen` counts from when this command first saw that beat. */
struct shown {
    char name[INSTANCE_NAME_MAX + 1];
    json_t *value;
    json_int_t beat;
    nst_time seen;
    bool found; /* in the last look */
};

struct top {
    const char *url;
    char store_name[512];
    nst_time every;
    bool once, json, help;
    struct shown *shown;
    size_t n;
    bool failed;
};

void help_top(void)
{
    printf("Usage: netstar top --store URL [options]\n\n"
           "Shows the instances that share a store (those started with --instance), and what each holds: packets\n"
           "and bytes a second, flows, kept stream data, the latency of its store. One that has not been heard of\n"
           "for %d seconds is marked as overdue; after a minute it is forgotten. Ctrl-C ends it.\n\n",
           HEART_OVERDUE);
    options_help(stdout, specs, sizeof specs / sizeof *specs);
}

static int set(void *arg, const struct option_spec *spec, const char *value, struct complaint *c)
{
    struct top *t = arg;
    struct store_url url;
    const char *why = "";

    switch (spec->id) {
    case STORE:
        if (store_url_parse(&url, value, &why) != 0)
            return complain(c, -EINVAL, "--store: %s", why);
        snprintf(t->store_name, sizeof t->store_name, "%s", url.name);
        t->url = value;
        return 0;
    case EVERY:
        return value_time(c, "--every", value, NST_MS(100), NST_SEC(3600), &t->every);
    case ONCE:
        t->once = true;
        return 0;
    case JSON:
        t->json = t->once = true;
        return 0;
    default:
        t->help = true;
        return 0;
    }
}

/* ---- looking ---- */
static struct shown *find(struct top *t, const char *name)
{
    struct shown *more;

    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->shown[i].name, name) == 0)
            return &t->shown[i];
    if (t->n == SHOWN_MAX || (more = realloc(t->shown, (t->n + 1) * sizeof *more)) == NULL)
        return NULL;
    t->shown = more;
    more[t->n] = (struct shown){ .beat = -1 };
    snprintf(more[t->n].name, sizeof more->name, "%s", name);
    return &more[t->n++];
}

static void take_in(struct top *t, const char *text, size_t len)
{
    json_t *value = json_loadb(text, len, 0, NULL);
    const char *name = json_string_value(json_object_get(value, "name"));
    json_t *beat = json_object_get(value, "beat");
    struct shown *s = name != NULL && place_name_ok(name) && json_is_integer(beat) ? find(t, name) : NULL;

    if (s == NULL) {
        json_decref(value);
        return;
    }
    if (s->beat != json_integer_value(beat) || s->value == NULL)
        s->seen = nst_clock();
    s->beat = json_integer_value(beat);
    json_decref(s->value);
    s->value = value;
    s->found = true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct shown *)a)->name, ((const struct shown *)b)->name);
}

static void drop_lost(struct top *t)
{
    size_t kept = 0;

    for (size_t i = 0; i < t->n; i++) {
        if (t->shown[i].found)
            t->shown[kept++] = t->shown[i];
        else
            json_decref(t->shown[i].value);
    }
    t->n = kept;
    if (kept != 0)
        qsort(t->shown, kept, sizeof *t->shown, by_name);
}

static int look(struct top *t, struct nst_store *store, char *page)
{
    const struct nst_slice prefix = { HEART_PREFIX, strlen(HEART_PREFIX) };
    struct nst_scan at = { 0 };
    char text[HEART_MAX];

    for (size_t i = 0; i < t->n; i++)
        t->shown[i].found = false;
    while (!at.done) {
        const void *place = page;
        int n = nst_scan(store, prefix, &at, page, NST_SCAN_PAGE, nst_now() + NST_SEC(5));
        if (n < 0)
            return n;
        for (; n > 0; n--) {
            int len = nst_get(store, nst_scan_key(&place), text, sizeof text, NULL, nst_now() + NST_SEC(5));
            if (len >= 0)
                take_in(t, text, (size_t)len);
            else if (len != -ENOENT && len != -EMSGSIZE && len != -EIO) /* not a heart's */
                return len;
        }
    }
    drop_lost(t);
    return 0;
}

/* ---- showing ---- */
static json_int_t integer(const struct shown *s, const char *key)
{
    return json_integer_value(json_object_get(s->value, key));
}

static double number(const struct shown *s, const char *key)
{
    return json_number_value(json_object_get(s->value, key));
}

/* Seconds since it was heard of. Its clock and ours may differ by little; what this command has seen itself is certain. */
static double age(const struct shown *s)
{
    double seen = (double)(nst_clock() - s->seen) / 1e9, told = (double)(time(NULL) - integer(s, "at"));

    return told > seen ? told : seen;
}

static bool is_overdue(const struct shown *s)
{
    return age(s) > HEART_OVERDUE;
}

static const char *since(const struct shown *s, char *buf, size_t size)
{
    json_int_t seconds = (json_int_t)time(NULL) - integer(s, "since");

    if (seconds < 0)
        seconds = 0;
    if (seconds < 60)
        snprintf(buf, size, "%ds", (int)seconds);
    else if (seconds < 3600)
        snprintf(buf, size, "%dm%02ds", (int)(seconds / 60), (int)(seconds % 60));
    else if (seconds < 86400)
        snprintf(buf, size, "%dh%02dm", (int)(seconds / 3600), (int)(seconds / 60 % 60));
    else
        snprintf(buf, size, "%" PRId64 "d%02dh", (int64_t)(seconds / 86400), (int)(seconds / 3600 % 24));
    return buf;
}

static const char *count(double n, char *buf, size_t size)
{
    if (n < 10000)
        snprintf(buf, size, "%.0f", n);
    else if (n < 1e7)
        snprintf(buf, size, "%.1fk", n / 1e3);
    else
        snprintf(buf, size, "%.1fM", n / 1e6);
    return buf;
}

/* A name of somebody else's: nothing of it may move the cursor. */
static const char *plain(const struct shown *s, const char *key, char *buf, size_t size)
{
    const char *text = json_string_value(json_object_get(s->value, key));

    snprintf(buf, size, "%s", text != NULL ? text : "?");
    for (char *p = buf; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || (unsigned char)*p >= 0x7f)
            *p = '?';
    return buf;
}

static void show_row(const struct shown *s, FILE *out)
{
    char host[24], nf[16], up[24], pps[24], bytes[24], drops[24], flows[24], states[24], kept[24], p50[24], p99[24],
        state[32];

    if (is_overdue(s))
        snprintf(state, sizeof state, "OVERDUE %.0fs", age(s));
    else
        snprintf(state, sizeof state, "alive");
    fprintf(out, "%-16s %-16s %7d %-12s %7s %3d %9s %9s %8s %8s %8s %8s %8s %8s  %s\n", s->name,
            plain(s, "host", host, sizeof host), (int)integer(s, "pid"), plain(s, "nf", nf, sizeof nf),
            since(s, up, sizeof up), (int)integer(s, "cores"), count(number(s, "packets_per_second"), pps, sizeof pps),
            value_show_size((uint64_t)number(s, "bytes_per_second"), bytes, sizeof bytes),
            count(number(s, "dropped_per_second"), drops, sizeof drops), count(number(s, "flows"), flows, sizeof flows),
            count(number(s, "kept_objects"), states, sizeof states),
            value_show_size((uint64_t)number(s, "kept_bytes"), kept, sizeof kept),
            value_show_time((nst_time)(number(s, "store_p50_us") * 1e3), p50, sizeof p50),
            value_show_time((nst_time)(number(s, "store_p99_us") * 1e3), p99, sizeof p99), state);
}

static void show_table(const struct top *t, FILE *out)
{
    size_t overdue = 0;

    for (size_t i = 0; i < t->n; i++)
        overdue += is_overdue(&t->shown[i]);
    fprintf(out, "%s: %zu instance%s", t->store_name, t->n, t->n != 1 ? "s" : "");
    if (overdue != 0)
        fprintf(out, ", %zu overdue", overdue);
    fprintf(out, "\n%-16s %-16s %7s %-12s %7s %3s %9s %9s %8s %8s %8s %8s %8s %8s  %s\n", "INSTANCE", "HOST", "PID",
            "NF", "UP", "CPU", "PACKETS/S", "BYTES/S", "DROPS/S", "FLOWS", "STATES", "STREAMS", "P50", "P99", "STATE");
    for (size_t i = 0; i < t->n; i++)
        show_row(&t->shown[i], out);
}

static void show_json(const struct top *t, FILE *out)
{
    json_t *array = json_array();

    for (size_t i = 0; i < t->n; i++) {
        json_object_set_new(t->shown[i].value, "overdue", json_boolean(is_overdue(&t->shown[i])));
        json_object_set_new(t->shown[i].value, "age", json_real(age(&t->shown[i])));
        json_array_append(array, t->shown[i].value);
    }
    json_dumpf(array, out, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    fputc('\n', out);
    json_decref(array);
}

/* The whole screen in one write, so that it does not flicker. */
static void show_screen(const struct top *t, const char *trouble)
{
    char *text = NULL, *rest, *line;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (out == NULL)
        return;
    show_table(t, out);
    if (trouble != NULL)
        fprintf(out, "the store does not answer: %s\n", trouble);
    fclose(out);
    fputs("\033[H", stdout);
    for (rest = text; (line = strsep(&rest, "\n")) != NULL;)
        if (rest != NULL)
            printf("%s%s%s\033[K\n", strstr(line, " OVERDUE ") != NULL ? "\033[7m" : "", line,
                   strstr(line, " OVERDUE ") != NULL ? "\033[0m" : "");
    fputs("\033[J", stdout);
    fflush(stdout);
    free(text);
}

/* ---- the command ---- */
static struct nst_reactor *reactor;

static void stop(int number)
{
    (void)number;
    nst_reactor_stop(reactor);
}

static void watch(struct top *t, struct nst_store *store, char *page)
{
    int rc = 0;

    fputs("\033[2J", stdout);
    while (rc != -ECANCELED) {
        rc = look(t, store, page);
        if (rc != -ECANCELED)
            show_screen(t, rc < 0 ? strerror(-rc) : NULL);
        if (rc != -ECANCELED)
            rc = nst_sleep(nst_now() + t->every);
    }
}

static void main_task(void *arg)
{
    struct top *t = arg;
    struct nst_store *store = NULL;
    const char *why = NULL;
    char *page = malloc(NST_SCAN_PAGE);
    int rc = page != NULL ? nst_store_open(&store, t->url, NULL, &why) : -ENOMEM;

    if (rc == 0)
        rc = nst_store_ping(store, nst_now() + NST_SEC(5));
    if (rc == 0 && !t->once)
        watch(t, store, page);
    else if (rc == 0 && (rc = look(t, store, page)) == 0)
        (t->json ? show_json : show_table)(t, stdout);
    if (rc < 0) {
        nst_log(NST_LOG_ERROR, "store %s: %s", t->store_name, why != NULL && *why != '\0' ? why : strerror(-rc));
        t->failed = true;
    }
    nst_store_close(store);
    free(page);
    nst_reactor_stop(reactor);
}

static int run(struct top *t)
{
    const struct nst_reactor_config config = {
        .name = "top", .cpu = -1, .stacks = 16, .stack_size = HEART_STACK, .stall_after = NST_NEVER
    };
    struct sigaction action = { .sa_handler = stop };
    int rc = nst_reactor_open(&reactor, &config);

    if (rc == 0) {
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
        rc = nst_reactor_run(reactor, main_task, t);
    }
    if (rc < 0)
        nst_log(NST_LOG_ERROR, "the reactor: %s", strerror(-rc));
    nst_reactor_close(reactor);
    for (size_t i = 0; i < t->n; i++)
        json_decref(t->shown[i].value);
    free(t->shown);
    return rc < 0 || t->failed ? EXIT_FAILED : 0;
}

int command_top(int argc, char *argv[])
{
    struct top t = { .every = NST_SEC(1), .once = !isatty(STDOUT_FILENO) };
    struct complaint c;
    int rc = options_read(argc, argv, specs, sizeof specs / sizeof *specs, set, &t, &c);

    if (rc == 0 && t.help) {
        help_top();
        return 0;
    }
    if (rc == 0 && t.url == NULL)
        rc = complain(&c, -EINVAL, "which store? Give --store URL");
    if (rc == 0 && strncmp(t.url, "mem:", 4) == 0)
        rc = complain(&c, -EINVAL, "--store mem: is each process's own: there is nothing to see from outside");
    return rc < 0 ? complaint_exit(&c, rc, "top") : run(&t);
}
