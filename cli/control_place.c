/* SPDX-License-Identifier: Apache-2.0 */
#include "control_place.h"
#include <ctype.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char suffix[] = ".sock";

bool place_name_ok(const char *name)
{
    size_t len = strlen(name);

    if (len == 0 || len > INSTANCE_NAME_MAX || *name == '.')
        return false;
    for (; *name != '\0'; name++)
        if (!isalnum((unsigned char)*name) && strchr("-_.", *name) == NULL)
            return false;
    return true;
}

static int make_path(const char *dir, struct place *p)
{
    int n = snprintf(p->path, sizeof p->path, "%s/%s.%d%s", dir, p->name, (int)p->pid, suffix);

    return n >= 0 && (size_t)n < sizeof p->path ? 0 : -ENAMETOOLONG;
}

bool place_parse(const char *dir, const char *file, struct place *out)
{
    size_t len = strlen(file), tail = sizeof suffix - 1;
    char name[INSTANCE_NAME_MAX + 24], *dot, *end;

    if (len <= tail || len - tail >= sizeof name || strcmp(file + len - tail, suffix) != 0)
        return false;
    memcpy(name, file, len - tail);
    name[len - tail] = '\0';
    dot = strrchr(name, '.');
    if (dot == NULL || !isdigit((unsigned char)dot[1]))
        return false;
    long pid = strtol(dot + 1, &end, 10);
    *dot = '\0';
    if (*end != '\0' || pid <= 0 || pid > INT32_MAX || !place_name_ok(name))
        return false;
    *out = (struct place){ .pid = (pid_t)pid };
    snprintf(out->name, sizeof out->name, "%s", name);
    return make_path(dir, out) == 0;
}

static int make_address(const char *path, struct sockaddr_un *to)
{
    *to = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof to->sun_path)
        return -ENAMETOOLONG;
    strcpy(to->sun_path, path);
    return 0;
}

/* A descriptor, or why not. */
static int try_connect(const struct place *p)
{
    struct sockaddr_un to;
    int fd, rc = make_address(p->path, &to);

    if (rc < 0)
        return rc;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
        return fd;
    rc = -errno;
    close(fd);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    const struct place *p = a, *q = b;
    int order = strcmp(p->name, q->name);

    return order != 0 ? order : (p->pid > q->pid) - (p->pid < q->pid);
}

/* All that there is in the directory, at most PLACES_MAX: how many, or an errno. */
static int list(const char *dir, struct place **out)
{
    struct place *places = malloc(PLACES_MAX * sizeof *places);
    DIR *d = places != NULL ? opendir(dir) : NULL;
    struct dirent *entry;
    int n = 0;

    if (d == NULL) {
        int rc = places == NULL ? -ENOMEM : -errno;
        free(places);
        return rc;
    }
    while (n < PLACES_MAX && (entry = readdir(d)) != NULL)
        n += place_parse(dir, entry->d_name, &places[n]);
    closedir(d);
    qsort(places, (size_t)n, sizeof *places, by_name);
    *out = places;
    return n;
}

/* ---- an instance's side ---- */
static int clean(const char *dir, const char *name, bool alone, struct complaint *c)
{
    struct place *places;
    int n = list(dir, &places), rc = 0;

    if (n < 0)
        return complain(c, n, "%s: %s", dir, strerror(-n));
    for (int i = 0; i < n && rc == 0; i++) {
        const struct place *p = &places[i];
        int fd = try_connect(p);
        /* Between its bind and its listen an instance refuses, too. */
        if (fd == -ECONNREFUSED && kill(p->pid, 0) != 0 && errno == ESRCH)
            unlink(p->path);
        else if (fd >= 0 && alone && strcmp(p->name, name) == 0)
            rc = complain(c, -EEXIST,
                          "the instance %s is running here already, as process %d; give this one another name", name,
                          (int)p->pid);
        if (fd >= 0)
            close(fd);
    }
    free(places);
    return rc;
}

static int listen_at(const char *path)
{
    struct sockaddr_un at;
    int fd, rc = make_address(path, &at);

    if (rc < 0)
        return rc;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    unlink(path); /* of a process that had this number before */
    /* The mode of what bind makes, so that it is nobody else's for no moment. */
    if (fchmod(fd, 0600) == 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 16) == 0)
        return fd;
    rc = -errno;
    close(fd);
    return rc;
}

int place_make(const char *dir, const char *name, bool alone, struct place *out, struct complaint *c)
{
    int fd, rc;

    if (mkdir(dir, 0755) != 0 && errno != EEXIST)
        return complain(c, -errno, "%s: %s", dir, strerror(errno));
    rc = clean(dir, name, alone, c);
    if (rc < 0)
        return rc;
    *out = (struct place){ .pid = getpid() };
    snprintf(out->name, sizeof out->name, "%s", name);
    if (make_path(dir, out) < 0)
        return complain(c, -ENAMETOOLONG, "%s: a shorter path is needed for a socket", dir);
    fd = listen_at(out->path);
    return fd >= 0 ? fd : complain(c, fd, "%s: %s", out->path, strerror(-fd));
}

/* ---- the asking side ---- */
static bool is_meant(const struct place *p, const char *who)
{
    char pid[16];

    snprintf(pid, sizeof pid, "%d", (int)p->pid);
    return who == NULL || strcmp(p->name, who) == 0 || strcmp(pid, who) == 0;
}

int place_find(const char *dir, const char *who, struct place *out, struct complaint *c)
{
    struct place *places = NULL;
    char names[256] = "";
    size_t len = 0;
    int n = list(dir, &places), found = -ESRCH, denied = 0;
    unsigned several = 0;

    for (int i = 0; i < n; i++) {
        const struct place *p = &places[i];
        int fd = is_meant(p, who) ? try_connect(p) : -ESRCH;
        if (fd == -EACCES)
            denied++;
        if (fd < 0)
            continue;
        if (several++ == 0) {
            *out = *p;
            found = fd;
        } else {
            close(fd);
        }
        if (len < sizeof names)
            len += (size_t)snprintf(names + len, sizeof names - len, "%s%s (%d)", len != 0 ? ", " : "", p->name,
                                    (int)p->pid);
    }
    free(places);
    if (several > 1) {
        close(found);
        return complain(c, -ENOTUNIQ, "several are running; which one? %s", names);
    }
    if (found >= 0)
        return found;
    if (denied != 0)
        return complain(c, -EACCES, "this needs the rights of who started it, or root");
    return who != NULL ? complain(c, -ESRCH, "no instance %s is running here (looked in %s)", who, dir)
                       : complain(c, -ESRCH, "no instance is running here (looked in %s)", dir);
}
