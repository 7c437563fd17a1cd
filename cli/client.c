/* SPDX-License-Identifier: Apache-2.0 */
/* The commands that ask a running instance. */
#include "commands.h"
#include "control_place.h"
#include "options.h"
#include <jansson.h>
#include <netstar/base.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONTROL = 1, HELP };

static const struct option_spec specs[] = {
    { CONTROL, "control", 0, "DIR", "where the instances are asked (/run/netstar)" },
    { HELP, "help", 'h', NULL, "print this help" },
};

struct asking {
    const char *dir;
    bool help;
};

static int set(void *arg, const struct option_spec *spec, const char *value, struct complaint *c)
{
    struct asking *a = arg;

    (void)c;
    if (spec->id == CONTROL)
        a->dir = value;
    else
        a->help = true;
    return 0;
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

/* ---- reload ---- */
void help_reload(void)
{
    printf("Usage: netstar reload [NAME|PID] [options]\n\n"
           "Has a running instance read anew what its network function reads from files, such as rules. The new\n"
           "is made beside the old, which goes on meanwhile and stays where anything is wrong with the new; the\n"
           "change is between two packets, and flows are kept. NAME may be left out where one is running. SIGHUP\n"
           "does the same, but cannot say how it went.\n\n");
    options_help(stdout, specs, sizeof specs / sizeof *specs);
}

static int reload_in(const struct place *place, int fd, struct complaint *c)
{
    json_t *answer = ask(fd, "reload", c), *line;
    const char *error;
    size_t i;
    int rc = -EIO;

    if (answer == NULL)
        return rc;
    error = json_string_value(json_object_get(answer, "error"));
    if (json_is_true(json_object_get(answer, "ok"))) {
        printf("%s (process %d) has reloaded\n", place->name, (int)place->pid);
        json_array_foreach(json_object_get(answer, "changed"), i, line) printf("  %s\n", json_string_value(line));
        rc = 0;
    } else {
        complain(c, rc, "%s (process %d) goes on as before: %s", place->name, (int)place->pid,
                 error != NULL ? error : "it did not say why");
    }
    json_decref(answer);
    return rc;
}

int command_reload(int argc, char *argv[])
{
    struct asking a = { .dir = CONTROL_DIR };
    const char *who = NULL;
    struct place place;
    struct complaint c;
    int rc;

    if (argc >= 2 && argv[1][0] != '-') {
        who = argv[1];
        argc--;
        argv++;
    }
    rc = options_read(argc, argv, specs, sizeof specs / sizeof *specs, set, &a, &c);
    if (rc == 0 && a.help) {
        help_reload();
        return 0;
    }
    if (rc == 0)
        rc = place_find(a.dir, who, &place, &c);
    if (rc >= 0)
        rc = reload_in(&place, rc, &c);
    return rc < 0 ? complaint_exit(&c, rc, "reload") : 0;
}
