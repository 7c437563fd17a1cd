/* SPDX-License-Identifier: Apache-2.0 */
#include "store_lab.h"
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static struct nst_reactor *reactor;
static void (*lab_body)(void);

static void run_body(void *arg)
{
    lab_body();
    nst_reactor_stop(reactor);
}

void lab_run(void (*body)(void))
{
    lab_body = body;
    assert_int_equal(nst_reactor_open(&reactor, NULL), 0);
    assert_int_equal(nst_reactor_run(reactor, run_body, NULL), 0);
    nst_reactor_close(reactor);
}

static void make_dir(char *dir)
{
    strcpy(dir, "/tmp/netstar-test.XXXXXX");
    assert_non_null(mkdtemp(dir));
}

static void remove_in(const char *dir, const char *name)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
}

/* ---- redis-server ---- */

int lab_free_port(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    return ntohs(a.sin_port);
}

const char *lab_shell(const char *line)
{
    static char out[8192];
    size_t n;
    FILE *f = popen(line, "r");

    assert_non_null(f);
    n = fread(out, 1, sizeof out - 1, f);
    pclose(f);
    while (n > 0 && out[n - 1] == '\n')
        n--;
    out[n] = 0;
    return out;
}

const char *lab_command(struct lab_redis *redis, const char *command)
{
    char line[1024];

    snprintf(line, sizeof line, "redis-cli -s %s/sock %s%s %s 2>&1", redis->dir, redis->password != NULL ? "-a " : "",
             redis->password != NULL ? redis->password : "", command);
    return lab_shell(line);
}

void lab_start(struct lab_redis *redis)
{
    char port[16], sock[40];

    if (redis->dir[0] == 0) {
        make_dir(redis->dir);
        redis->port = lab_free_port();
    }
    snprintf(port, sizeof port, "%d", redis->port);
    snprintf(sock, sizeof sock, "%s/sock", redis->dir);
    snprintf(redis->url, sizeof redis->url, "redis+unix://%s", sock);
    snprintf(redis->tcp_url, sizeof redis->tcp_url, "redis://127.0.0.1:%d", redis->port);
    redis->pid = fork();
    assert_true(redis->pid >= 0);
    if (redis->pid == 0) {
        const char *args[48] = { "redis-server", "--port", port,        "--bind",   "127.0.0.1", "-::1",
                                 "--unixsocket", sock,     "--dir",     redis->dir, "--save",    "",
                                 "--appendonly", "no",     "--logfile", "/dev/null" };
        int n = 16;
        if (redis->password != NULL) {
            args[n++] = "--requirepass";
            args[n++] = redis->password;
        }
        for (int i = 0; i < 16 && redis->more[i] != NULL; i++)
            args[n++] = redis->more[i];
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execvp("redis-server", (char **)args);
        _exit(127);
    }
    for (int i = 0; strstr(lab_command(redis, "ping"), "PONG") == NULL; i++) {
        int status;
        assert_true(i < 1000);
        assert_int_equal(waitpid(redis->pid, &status, WNOHANG), 0);
        usleep(10000);
    }
}

void lab_start_sentinel(struct lab_redis *sentinel)
{
    char path[64], line[64];

    snprintf(path, sizeof path, "%s/sentinel.conf", sentinel->dir);
    snprintf(line, sizeof line, "redis-cli -p %d ping 2>&1", sentinel->port);
    sentinel->pid = fork();
    assert_true(sentinel->pid >= 0);
    if (sentinel->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("redis-server", "redis-server", path, "--sentinel", "--logfile", "/dev/null", NULL);
        _exit(127);
    }
    for (int i = 0; strstr(lab_shell(line), "PONG") == NULL; i++) {
        int status;
        assert_true(i < 1000);
        assert_int_equal(waitpid(sentinel->pid, &status, WNOHANG), 0);
        usleep(10000);
    }
}

void lab_signal(struct lab_redis *redis, int sig)
{
    assert_int_equal(kill(redis->pid, sig), 0);
}

void lab_end(struct lab_redis *redis, int sig)
{
    int status;

    lab_signal(redis, sig);
    assert_int_equal(waitpid(redis->pid, &status, 0), redis->pid);
    redis->pid = 0;
}

void lab_remove(struct lab_redis *redis)
{
    remove_in(redis->dir, "sock");
    remove_in(redis->dir, "dump.rdb");
    remove_in(redis->dir, "nodes.conf");
    remove_in(redis->dir, "sentinel.conf");
    rmdir(redis->dir);
    redis->dir[0] = 0;
}

/* ---- a cluster ---- */

static bool knows_all(struct lab_redis *r)
{
    return strstr(lab_command(r, "cluster info"), "cluster_state:ok") != NULL &&
           strstr(lab_command(r, "cluster info"), "cluster_known_nodes:6") != NULL;
}

void lab_cluster_start(struct lab_cluster *c)
{
    static char bus[LAB_NODES][8];
    char line[1024] = "redis-cli --cluster create --cluster-replicas 1 --cluster-yes";

    memset(c, 0, sizeof *c);
    for (int i = 0; i < LAB_NODES; i++) {
        snprintf(bus[i], sizeof bus[i], "%d", lab_free_port());
        const char *const more[] = { "--cluster-enabled",
                                     "yes",
                                     "--cluster-node-timeout",
                                     "3000",
                                     "--cluster-port",
                                     bus[i],
                                     "--cluster-require-full-coverage",
                                     "no",
                                     "--cluster-replica-validity-factor",
                                     "0" };
        memcpy(c->node[i].more, more, sizeof more);
        lab_start(&c->node[i]);
        snprintf(line + strlen(line), sizeof line - strlen(line), " 127.0.0.1:%d", c->node[i].port);
    }
    strcat(line, " 2>&1");
    assert_non_null(strstr(lab_shell(line), "All 16384 slots covered"));
    for (int i = 0; i < LAB_NODES; i++) {
        for (int tries = 0; !knows_all(&c->node[i]); tries++) {
            assert_true(tries < 1000);
            usleep(20000);
        }
    }
    /* every master has its replica, and it is up to date */
    for (int i = 0; i < 3; i++) {
        for (int tries = 0; strstr(lab_command(&c->node[i], "info replication"), "state=online") == NULL; tries++) {
            assert_true(tries < 1000);
            usleep(20000);
        }
    }
    snprintf(c->url, sizeof c->url, "redis-cluster://127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d", c->node[0].port,
             c->node[1].port, c->node[2].port);
}

void lab_cluster_end(struct lab_cluster *c)
{
    for (int i = 0; i < LAB_NODES; i++) {
        if (c->node[i].pid != 0)
            lab_end(&c->node[i], SIGKILL);
        lab_remove(&c->node[i]);
    }
}

/* ---- the liar ---- */

static bool readable(struct lab_liar *liar, int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    while (!liar->stop) {
        if (poll(&p, 1, 20) > 0)
            return true;
    }
    return false;
}

bool lab_liar_read(struct lab_liar *liar, int fd, int n, int *reads)
{
    static char buf[1 << 20];
    size_t len = 0;
    int seen = 0;

    while (seen < n) {
        ssize_t got = readable(liar, fd) ? read(fd, buf + len, sizeof buf - len) : 0;
        if (got <= 0)
            return false;
        if (reads != NULL)
            ++*reads;
        len += (size_t)got;
        /* every request begins with '*' at the start of a line; the tests' keys and values never do */
        seen = 0;
        for (size_t i = 0; i < len; i++)
            seen += buf[i] == '*' && (i == 0 || buf[i - 1] == '\n');
        /* the last one is complete when its last bulk string is; the tests' requests come whole */
        if (len < 2 || buf[len - 1] != '\n')
            seen = 0;
    }
    return true;
}

void lab_liar_say(int fd, const char *bytes, size_t len)
{
    send(fd, bytes, len, MSG_NOSIGNAL);
}

void lab_liar_wait_closed(struct lab_liar *liar, int fd)
{
    char buf[4096];

    while (readable(liar, fd) && read(fd, buf, sizeof buf) > 0)
        ;
}

static void *liar_main(void *arg)
{
    struct lab_liar *liar = arg;

    while (readable(liar, liar->listener)) {
        int fd = accept4(liar->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        liar->connections = liar->connections + 1;
        if (liar->mute) {
            lab_liar_wait_closed(liar, fd);
        } else if (liar->greeting != NULL) {
            lab_liar_say(fd, liar->greeting, strlen(liar->greeting));
            lab_liar_wait_closed(liar, fd);
        } else if (lab_liar_read(liar, fd, 1, NULL)) {
            lab_liar_say(fd, "+PONG\r\n", 7);
            liar->script(liar, fd);
        }
        close(fd);
    }
    return NULL;
}

void lab_liar_start(struct lab_liar *liar)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    pthread_t thread;

    make_dir(liar->dir);
    snprintf(a.sun_path, sizeof a.sun_path, "%s/sock", liar->dir);
    snprintf(liar->url, sizeof liar->url, "redis+unix://%s", a.sun_path);
    liar->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(liar->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(liar->listener, 8), 0);
    assert_int_equal(pthread_create(&thread, NULL, liar_main, liar), 0);
    liar->thread = thread;
}

void lab_liar_stop(struct lab_liar *liar)
{
    liar->stop = true;
    pthread_join(liar->thread, NULL);
    close(liar->listener);
    remove_in(liar->dir, "sock");
    rmdir(liar->dir);
}
