/* SPDX-License-Identifier: Apache-2.0 */
#include "signals.h"
#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

static volatile sig_atomic_t event = -1;

static void caught(int signal_number)
{
    int saved = errno;
    uint64_t one = 1;

    (void)signal_number;
    if (write(event, &one, sizeof one) < 0) {
        /* Full: so many are waiting that one more changes nothing. */
    }
    errno = saved;
}

static int handle(void (*handler)(int))
{
    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };

    sigemptyset(&action.sa_mask);
    if (sigaction(SIGINT, &action, NULL) != 0 || sigaction(SIGTERM, &action, NULL) != 0)
        return -errno;
    return 0;
}

int signals_open(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), rc;

    if (fd < 0)
        return -errno;
    event = fd;
    signal(SIGPIPE, SIG_IGN);
    rc = handle(caught);
    if (rc < 0) {
        close(fd);
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
    handle(SIG_DFL);
    event = -1;
    close(fd);
}
