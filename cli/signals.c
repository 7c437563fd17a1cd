/* SPDX-License-Identifier: Apache-2.0 */
#include "signals.h"
#include <errno.h>
#include <netstar/cores.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* A descriptor and 1; 0 is none. */
static atomic_int events[NST_CORES_MAX];

void signals_raise(void)
{
    uint64_t one = 1;

    for (unsigned i = 0; i < NST_CORES_MAX; i++) {
        int fd = atomic_load(&events[i]) - 1;
        if (fd >= 0 && write(fd, &one, sizeof one) < 0) {
            /* Full: so many are waiting that one more changes nothing. */
        }
    }
}

static void caught(int signal_number)
{
    int saved = errno;

    (void)signal_number;
    signals_raise();
    errno = saved;
}

static int handle_one(int number, void (*handler)(int))
{
    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };

    sigemptyset(&action.sa_mask);
    return sigaction(number, &action, NULL) != 0 ? -errno : 0;
}

static int handle(void (*handler)(int))
{
    int rc = handle_one(SIGINT, handler);

    return rc < 0 ? rc : handle_one(SIGTERM, handler);
}

int signals_open(void)
{
    unsigned at = 0;
    int fd, rc;

    while (at < NST_CORES_MAX && atomic_load(&events[at]) != 0)
        at++;
    if (at == NST_CORES_MAX)
        return -EMFILE;
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    atomic_store(&events[at], fd + 1);
    signal(SIGPIPE, SIG_IGN);
    rc = handle(caught);
    if (rc < 0) {
        signals_close(fd);
        return rc;
    }
    return fd;
}

uint64_t signals_read(int fd)
{
    uint64_t n = 0;

    return read(fd, &n, sizeof n) == sizeof n ? n : 0;
}

void signals_close(int fd)
{
    unsigned open = 0;

    for (unsigned i = 0; i < NST_CORES_MAX; i++) {
        if (atomic_load(&events[i]) == fd + 1)
            atomic_store(&events[i], 0);
        open += atomic_load(&events[i]) != 0;
    }
    if (open == 0)
        handle(SIG_DFL);
    close(fd);
}

/* ---- SIGHUP ---- */
static atomic_int hangup; /* a descriptor and 1 */

static void hung_up(int signal_number)
{
    int saved = errno, fd = atomic_load(&hangup) - 1;
    uint64_t one = 1;

    (void)signal_number;
    if (fd >= 0 && write(fd, &one, sizeof one) < 0) {
        /* Full: as above. */
    }
    errno = saved;
}

int signals_open_hangup(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), rc;

    if (fd < 0)
        return -errno;
    atomic_store(&hangup, fd + 1);
    rc = handle_one(SIGHUP, hung_up);
    if (rc < 0) {
        signals_close_hangup(fd);
        return rc;
    }
    return fd;
}

void signals_close_hangup(int fd)
{
    handle_one(SIGHUP, SIG_DFL);
    atomic_store(&hangup, 0);
    close(fd);
}
