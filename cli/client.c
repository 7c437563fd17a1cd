/* SPDX-License-Identifier: Apache-2.0 */
/* The commands that ask a running instance. */
#include "commands.h"
#include "control_place.h"
#include "options.h"
#include "prometheus.h"
#include <jansson.h>
#include <netstar/base.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONTROL = 1, PROMETHEUS, HELP };

#define CONTROL_SPEC                                                                 \
    {                                                                                \
        CONTROL, "control", 0, "DIR", "where the instances are asked (/run/netstar)" \
    }
#define HELP_SPEC                                  \
    {                                              \
        HELP, "help", 'h', NULL, "print this help" \
    }

struct asking {
    const char *who, *dir;
    bool prometheus, help;
};

static int set(void *arg, const struct option_spec *spec, const char *value, struct complaint *c)
{
    struct asking *a = arg;

    (void)c;
    if (spec->id == CONTROL)
        a->dir = value;
    else if (spec->id == PROMETHEUS)
        a->prometheus = true;
    else
        a->help = true;
    return 0;
}

/* [NAME|PID] and the options. */
static int read_words(struct asking *a, const struct option_spec *specs, size_t n, int argc, char *argv[],
                      struct complaint *c)
{
    *a = (struct asking){ .dir = CONTROL_DIR };
    if (argc >= 2 && argv[1][0] != '-') {
        a->who = argv[1];
        argc--;
        argv++;
    }
    return options_read(argc, argv, specs, n, set, a, c);
}

/* Sends the request and reads the answer's line; NULL and a complaint when there is none. */
static json_t *ask(int fd, const char *request, struct complaint *c)
{
    char line[64];
    json_error_t error;
    json_t *answer = NULL;
    int n = snprintf(line, sizeof line, "%s\n", request);
    FILE *in = send(fd, line, (size_t)n, MSG_NOSIGNAL) == n ? fdopen(fd, "r") : NULL;

    if (in == NULL) {
        complain(c, -errno, "the instance cannot be asked: %s", strerror(errno));
        close(fd);
        return NULL;
    }
    answer = json_loadf(in, JSON_DISABLE_EOF_CHECK, &error);
    if (answer == NULL)
        complain(c, -EPROTO, "the instance has ended, or gave no answer");
    fclose(in);
    return answer;
}

/* Finds the instance and asks it; NULL and a complaint when there is no answer, or a bad one. */
static json_t *ask_for(const struct asking *a, const char *request, struct place *place, int *rc, struct complaint *c)
{
    json_t *answer = NULL;
    const char *error;

    *rc = place_find(a->dir, a->who, place, c);
    if (*rc < 0 || (answer = ask(*rc, request, c)) == NULL) {
        *rc = *rc < 0 ? *rc : -EIO;
        return NULL;
    }
    *rc = 0;
    if (json_is_true(json_object_get(answer, "ok")))
        return answer;
    error = json_string_value(json_object_get(answer, "error"));
    *rc = complain(c, -EIO, "%s (process %d)%s: %s", place->name, (int)place->pid,
                   strcmp(request, "reload") == 0 ? " goes on as before" : "",
                   error != NULL ? error : "it did not say why");
    json_decref(answer);
    return NULL;
}

/* ---- reload ---- */
static const struct option_spec reload_specs[] = { CONTROL_SPEC, HELP_SPEC };

void help_reload(void)
{
    printf("Usage: netstar reload [NAME|PID] [options]\n\n"
           "Has a running instance read anew what its network function reads from files, such as rules. The new\n"
           "is made beside the old, which goes on meanwhile and stays where anything is wrong with the new; the\n"
           "change is between two packets, and flows are kept. NAME may be left out where one is running. SIGHUP\n"
           "does the same, but cannot say how it went.\n\n");
    options_help(stdout, reload_specs, sizeof reload_specs / sizeof *reload_specs);
}

int command_reload(int argc, char *argv[])
{
    struct asking a;
    struct place place;
    struct complaint c;
    json_t *answer, *line;
    size_t i;
    int rc = read_words(&a, reload_specs, sizeof reload_specs / sizeof *reload_specs, argc, argv, &c);

    if (rc == 0 && a.help) {
        help_reload();
        return 0;
    }
    if (rc < 0)
        return complaint_exit(&c, rc, "reload");
    answer = ask_for(&a, "reload", &place, &rc, &c);
    if (answer == NULL)
        return complaint_exit(&c, rc, "reload");
    printf("%s (process %d) has reloaded\n", place.name, (int)place.pid);
    json_array_foreach(json_object_get(answer, "changed"), i, line) printf("  %s\n", json_string_value(line));
    json_decref(answer);
    return 0;
}

/* ---- stats ---- */
static const struct option_spec stats_specs[] = {
    CONTROL_SPEC,
    { PROMETHEUS, "prometheus", 0, NULL, "in the text format of Prometheus in place of JSON" },
    HELP_SPEC,
};

void help_stats(void)
{
    printf("Usage: netstar stats [NAME|PID] [options]\n\n"
           "Prints the numbers of a running instance: what the closing report has, as it is now.\n\n");
    options_help(stdout, stats_specs, sizeof stats_specs / sizeof *stats_specs);
}

int command_stats(int argc, char *argv[])
{
    struct asking a;
    struct place place;
    struct complaint c;
    json_t *answer;
    int rc = read_words(&a, stats_specs, sizeof stats_specs / sizeof *stats_specs, argc, argv, &c);

    if (rc == 0 && a.help) {
        help_stats();
        return 0;
    }
    if (rc < 0)
        return complaint_exit(&c, rc, "stats");
    answer = ask_for(&a, "stats", &place, &rc, &c);
    if (answer == NULL)
        return complaint_exit(&c, rc, "stats");
    if (a.prometheus)
        prometheus_text(answer, stdout);
    else if (json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) == 0)
        putchar('\n');
    json_decref(answer);
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    complain(&c, -EIO, "standard output: %s", strerror(errno));
    return complaint_exit(&c, -EIO, "stats");
}
