/* SPDX-License-Identifier: Apache-2.0 */
/* store_rate - requests a second of one store on a redis-server of its own, 64 outstanding, over TCP and a Unix socket,
 * beside redis-benchmark -P 64 with one client on the same server; and the processor time that a request costs here.
 * get+put is an NF's pattern: for each key a get and then a put with a time to live.
 *
 *   store_rate [REQUESTS]      the default is 1000000 for each line
 */
#include <netstar/reactor.h>
#include <netstar/store.h>
#include <netstar/task.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DEPTH = 64, VALUE = 64, KEYS = 1000 };

enum kind { GET, PUT, GET_PUT };
static const char *const kind_names[] = { "get", "put", "get+put" };

struct client {
    struct nst_future f;
    char key[16], val[VALUE];
    bool put_next;
};

static struct nst_reactor *reactor;
static struct nst_store *store;
static struct client clients[DEPTH];
static struct nst_future all_done;
static enum kind kind;
static uint64_t wanted = 1000000, started, finished, failed;
static int port_number;
static char dir[] = "/tmp/netstar-rate.XXXXXX";

static void next_request(struct client *c);

static void on_answer(struct nst_future *f, int rc)
{
    struct client *c = f->arg;

    failed += rc < 0 && rc != -ENOENT;
    if (++finished == wanted)
        nst_fulfil(&all_done, 0);
    else if (started < wanted)
        next_request(c);
}

static void next_request(struct client *c)
{
    struct nst_slice key = { c->key, 8 };
    uint64_t n = started++;

    if (!c->put_next)
        memcpy(c->key + 4, &(uint32_t){ (uint32_t)(n % KEYS) }, 4);
    if (kind == PUT || (kind == GET_PUT && c->put_next))
        nst_put_start(store, key, (struct nst_slice){ c->val, VALUE }, kind == PUT ? 0 : NST_SEC(60), &c->f);
    else
        nst_get_start(store, key, c->val, VALUE, NULL, &c->f);
    c->put_next = kind == GET_PUT && !c->put_next;
    nst_then(&c->f, on_answer, c, nst_now() + NST_SEC(10));
}

static int64_t microseconds(struct timeval t)
{
    return t.tv_sec * 1000000 + t.tv_usec;
}

static double run(enum kind k)
{
    struct rusage before, after;
    nst_time start;
    double ns;

    kind = k;
    started = finished = failed = 0;
    nst_future_init(&all_done);
    getrusage(RUSAGE_THREAD, &before);
    start = nst_clock();
    for (int i = 0; i < DEPTH; i++) {
        memcpy(clients[i].key, "key:", 4);
        next_request(&clients[i]);
    }
    if (nst_await(&all_done, NST_NEVER) < 0)
        return 0;
    ns = (double)(nst_clock() - start);
    getrusage(RUSAGE_THREAD, &after);
    printf("  %-8s %9.0f/s  user %4.0f ns, kernel %4.0f ns a request", kind_names[k], (double)wanted * 1e9 / ns,
           (double)(microseconds(after.ru_utime) - microseconds(before.ru_utime)) * 1e3 / (double)wanted,
           (double)(microseconds(after.ru_stime) - microseconds(before.ru_stime)) * 1e3 / (double)wanted);
    if (failed != 0)
        printf("  %llu FAILED", (unsigned long long)failed);
    return (double)wanted * 1e9 / ns;
}

/* What redis-benchmark says for the same command: requests a second, or 0. */
static double reference(const char *where, const char *test)
{
    char command[256], line[256];
    double rate = 0;

    snprintf(command, sizeof command, "redis-benchmark %s -c 1 -P 64 -d 72 -r 1000 -n %llu -t %s --csv 2>/dev/null",
             where, (unsigned long long)wanted, test);
    FILE *f = popen(command, "r");
    if (f == NULL)
        return 0;
    while (fgets(line, sizeof line, f) != NULL) {
        char *second = strchr(line, ',');
        if (second != NULL && second[1] == '"' && second[2] >= '0' && second[2] <= '9')
            rate = strtod(second + 2, NULL);
    }
    pclose(f);
    return rate;
}

static void beside(double ours, const char *where, const char *test)
{
    double theirs = reference(where, test);

    if (theirs > 0)
        printf("   %.2f of redis-benchmark's %.0f/s\n", ours / theirs, theirs);
    else
        printf("   (redis-benchmark did not run)\n");
}

static void bench_url(const char *url, const char *where)
{
    struct nst_store_stats st;
    const char *why = NULL;

    if (nst_store_open(&store, url, NULL, &why) < 0 || nst_store_ping(store, nst_now() + NST_SEC(10)) < 0) {
        printf("%s: %s\n", url, why != NULL ? why : "no connection");
        return;
    }
    printf("%s\n", url);
    beside(run(PUT), where, "set");
    beside(run(GET), where, "get");
    run(GET_PUT);
    nst_store_stats(store, &st);
    printf("\n  latency p50 %lld us, p99 %lld us, p99.9 %lld us\n", (long long)st.p50 / 1000, (long long)st.p99 / 1000,
           (long long)st.p999 / 1000);
    nst_store_close(store);
}

static void bench(void *arg)
{
    char url[128], where[128];

    snprintf(url, sizeof url, "redis+unix://%s/sock", dir);
    snprintf(where, sizeof where, "-s %s/sock", dir);
    bench_url(url, where);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", port_number);
    snprintf(where, sizeof where, "-h 127.0.0.1 -p %d", port_number);
    bench_url(url, where);
    if (nst_store_open(&store, "mem:", NULL, NULL) == 0) {
        printf("mem:\n");
        for (int k = 0; k < 3; k++) {
            run(k);
            printf("\n");
        }
        nst_store_close(store);
    }
    nst_reactor_stop(reactor);
}

int main(int argc, char **argv)
{
    /* redis-benchmark runs while the loop stands still */
    struct nst_reactor_config config = { .cpu = -1, .stall_after = NST_NEVER };
    char port[16], sock[64];
    pid_t pid;

    if (argc > 1)
        wanted = strtoull(argv[1], NULL, 10);
    if (wanted < DEPTH || mkdtemp(dir) == NULL)
        return 2;
    port_number = 20000 + getpid() % 10000;
    snprintf(port, sizeof port, "%d", port_number);
    snprintf(sock, sizeof sock, "%s/sock", dir);
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--unixsocket", sock, "--save",
               "", "--appendonly", "no", "--dir", dir, "--logfile", "/dev/null", NULL);
        _exit(127);
    }
    for (int i = 0; i < 500 && access(sock, F_OK) != 0; i++)
        usleep(10000);
    setvbuf(stdout, NULL, _IOLBF, 0);
    nst_log_level(NST_LOG_WARNING);
    if (nst_reactor_open(&reactor, &config) == 0) {
        nst_reactor_run(reactor, bench, NULL);
        nst_reactor_close(reactor);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    unlink(sock);
    rmdir(dir);
    return 0;
}
