/* SPDX-License-Identifier: Apache-2.0 */
#include "line.h"
#include "modules.h"
#include <string.h>

static void log_mistake(void *arg, unsigned line, unsigned column, const char *text)
{
    const char *path = arg;

    if (line != 0)
        nst_log(NST_LOG_ERROR, "%s:%u:%u: %s", path, line, column, text);
    else
        nst_log(NST_LOG_ERROR, "%s: %s", path, text);
}

/* The module that the line or the file names. An unknown one in the file is a mistake like others: 1, and no module. */
static int find_module(struct line *l, struct settings_source *from, struct complaint *c)
{
    unsigned line = 0, column = 0;
    const char *named = from->file != NULL ? config_nf(from->file, &line, &column) : NULL;
    int rc;

    if (l->name != NULL && named != NULL && strcmp(l->name, named) != 0)
        return complain(c, -EINVAL, "%s is for %s, not for %s", from->path, named, l->name);
    if (l->name == NULL && named == NULL) {
        if (from->file != NULL && line != 0)
            return 1; /* it is not even a name, which will be said */
        from->say(from->say_arg, 0, 0, "expected nf: and the name of a network function");
        return 1;
    }
    if (l->name != NULL)
        return module_find(&from->module, l->name, c);
    l->name = named;
    rc = module_find(&from->module, named, c);
    if (rc < 0) {
        char text[600];
        snprintf(text, sizeof text, "nf: %s", c->text);
        from->say(from->say_arg, line, column, text);
    }
    return rc < 0;
}

static int read_file(struct settings_source *from, struct complaint *c)
{
    int rc;

    if (from->path == NULL)
        return 0;
    rc = config_read(&from->file, from->path, from->say, from->say_arg);
    return rc < 0 ? complain(c, rc, "%s cannot be used", from->path) : 0;
}

static int read_settings(struct line *l, struct settings_source *from, struct complaint *c)
{
    int rc = read_file(from, c), unnamed;

    if (rc < 0)
        return rc;
    rc = find_module(l, from, c);
    if (rc < 0) {
        config_free(from->file);
        return rc;
    }
    unnamed = rc;
    if (l->name != NULL)
        snprintf(l->command + strlen(l->command), sizeof l->command - strlen(l->command), " %s", l->name);
    rc = settings_read(&l->s, from, c);
    if (rc == 0 && unnamed && !l->s.help)
        rc = complain(c, -EINVAL, "%s: 1 mistake", from->path);
    return rc;
}

int line_read(struct line *l, enum settings_for who, int argc, char *argv[], config_say *say, void *arg,
              struct complaint *c)
{
    struct settings_source from = { .who = who, .argc = argc, .argv = argv };

    *l = (struct line){ 0 };
    snprintf(l->command, sizeof l->command, "%s", argv[0]);
    from.path = settings_config_path(argc, argv);
    from.say = say != NULL ? say : log_mistake;
    from.say_arg = say != NULL ? arg : (void *)from.path;
    if (argc >= 2 && argv[1][0] != '-') {
        l->name = argv[1];
        from.argc--;
        from.argv++;
    }
    if (l->name == NULL && from.path == NULL) {
        l->s.help = argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
        return l->s.help ? 0
                         : complain(c, -EINVAL,
                                    "%s needs the name of a network function, before the options, or a file: -c FILE",
                                    argv[0]);
    }
    return read_settings(l, &from, c);
}

int line_read_again(struct line *next, const struct settings *now, config_say *say, void *arg, struct complaint *c)
{
    struct settings_source from = now->from;

    *next = (struct line){ 0 };
    from.file = NULL;
    from.say = say;
    from.say_arg = arg;
    int rc = read_file(&from, c);
    return rc < 0 ? rc : settings_read(&next->s, &from, c);
}

void line_free(struct line *l)
{
    settings_free(&l->s);
}
