/* SPDX-License-Identifier: Apache-2.0 */
#include "store_nf.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int nf_server_start(struct nf_server *s, int cpu)
{
    s->cpu = cpu;
    strcpy(s->dir, "/tmp/netstar-nf.XXXXXX");
    if (mkdtemp(s->dir) == NULL)
        return -errno;
    snprintf(s->sock, sizeof s->sock, "%s/sock", s->dir);
    s->pid = fork();
    if (s->pid == 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        sched_setaffinity(0, sizeof set, &set);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", s->sock, "--save", "", "--appendonly",
               "no", "--dir", s->dir, "--logfile", "/dev/null", NULL);
        _exit(127);
    }
    for (int i = 0; i < 500 && access(s->sock, F_OK) != 0; i++)
        usleep(10000);
    return access(s->sock, F_OK) == 0 ? 0 : -ENOENT;
}

void nf_server_stop(struct nf_server *s)
{
    if (s->pid <= 0)
        return;
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    unlink(s->sock);
    rmdir(s->dir);
}

double nf_server_rate(const struct nf_server *s, int cpu, unsigned long requests, const char *command)
{
    char line[1200];
    double rate = 0;

    snprintf(line, sizeof line, "taskset -c %d redis-benchmark -s %s -c 1 -P 64 -r 10000 -n %lu --csv %s 2>/dev/null",
             cpu, s->sock, requests, command);
    FILE *f = popen(line, "r");
    if (f == NULL)
        return 0;
    while (fgets(line, sizeof line, f) != NULL) {
        char *second = strstr(line, "\",\"");
        if (second != NULL && second[3] >= '0' && second[3] <= '9')
            rate = strtod(second + 3, NULL);
    }
    pclose(f);
    return rate;
}

void nf_server_clear(const struct nf_server *s)
{
    char line[160];

    snprintf(line, sizeof line, "redis-cli -s %s flushall >/dev/null 2>&1", s->sock);
    if (system(line) != 0)
        fprintf(stderr, "bench: the server is not cleared\n");
}
