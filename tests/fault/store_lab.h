/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fault/store_lab.h - what the fault tests of the store stand on: a reactor to run a case on, a real server of
 * their own, and one that lies. */
#pragma once
#include <netstar/reactor.h>
#include <netstar/store.h>
#include <netstar/task.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

/* Runs body() as a task of a reactor of its own. */
void lab_run(void (*body)(void));

static inline struct nst_slice text(const char *s)
{
    return (struct nst_slice){ s, __builtin_strlen(s) };
}
static inline nst_time in_ms(int ms)
{
    return nst_now() + NST_MS(ms);
}
/* A deadline that only a broken store reaches. */
static inline nst_time patience(void)
{
    return nst_now() + NST_SEC(20);
}

/* ---- a real redis-server on a Unix socket and a loopback port, nothing kept on disk ---- */
struct lab_redis {
    pid_t pid;
    int port;
    char dir[32];
    char url[128], tcp_url[128]; /* lab_start fills them in */
    const char *password;        /* set before lab_start; may be NULL */
    const char *more[16];        /* further arguments, ended by NULL */
};
/* Starts it and returns when it answers. A second start uses the same directory and port. */
void lab_start(struct lab_redis *redis);
/* Ends it with this signal and waits until it has. */
void lab_end(struct lab_redis *redis, int sig);
void lab_signal(struct lab_redis *redis, int sig);
/* Starts a sentinel in its directory, in which a sentinel.conf stands; port is set. */
void lab_start_sentinel(struct lab_redis *sentinel);
/* Removes its directory. */
void lab_remove(struct lab_redis *redis);
/* A port of the loopback that nobody uses. */
int lab_free_port(void);
/* A line for the shell; its output as lab_command's. */
const char *lab_shell(const char *line);

/* ---- a cluster: three masters, and a replica for each; 0 to 2 are the first masters ---- */
enum { LAB_NODES = 6 };
struct lab_cluster {
    struct lab_redis node[LAB_NODES];
    char url[256]; /* names the first three */
};
void lab_cluster_start(struct lab_cluster *c);
void lab_cluster_end(struct lab_cluster *c);
/* One command by redis-cli, written as for a shell; its output, without the line end, is in a static buffer. */
const char *lab_command(struct lab_redis *redis, const char *command);

/* ---- a server that lies: a thread that takes connections one after the other. Each gets "+PONG" for its first
 *      command, the setup's PING, and then what script says. ---- */
struct lab_liar {
    /* Called for each connection after the PING was answered; returns when it wants the connection closed. */
    void (*script)(struct lab_liar *liar, int fd);
    bool mute;            /* does not even answer the PING */
    const char *greeting; /* in place of "+PONG\r\n"; then waits until the other side closes */
    char url[128];
    int listener;
    unsigned long thread;
    char dir[32];
    volatile int connections;
    volatile bool stop;
};
void lab_liar_start(struct lab_liar *liar);
void lab_liar_stop(struct lab_liar *liar);
/* For scripts: reads until n requests have come completely, or the connection or the test ends: false. Counts the reads
 * that it took. */
bool lab_liar_read(struct lab_liar *liar, int fd, int n, int *reads);
void lab_liar_say(int fd, const char *bytes, size_t len);
/* Waits until the other side has closed or the test ends. */
void lab_liar_wait_closed(struct lab_liar *liar, int fd);
