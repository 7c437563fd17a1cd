/* SPDX-License-Identifier: Apache-2.0 */
/* store_rate - requests a second of one store on a redis-server of its own, 64 outstanding, beside redis-benchmark -P 64
 * with one client that sends the same commands to the same server, in turns; and the processor time that a request costs
 * here. For each case the ratio is the middle one of the rounds'.
 *
 *   put, get         one command a request
 *   get+put          an NF's pattern without a cache: for each key a get and then a put with a time to live. Beside it
 *                    stand both commands one after the other
 *   put_owned        the fenced write: a script by its name; beside it the same EVALSHA
 *   lmdb, mem        the same requests to these stores; beside them, nothing
 *
 *   store_rate [--json] [--tcp] [--rounds N] [--requests N]
 */
#include "store/redis_script.h"
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

enum { DEPTH = 64, VALUE = 64, KEYS = 1000, ROUNDS_MAX = 31 };

enum kind { PUT, GET, GET_PUT, PUT_OWNED, KINDS };
static const char *const kind_names[] = { "put", "get", "get_put", "put_owned" };

struct client {
    struct nst_future f;
    char val[VALUE];
    bool put_next;
};

static struct nst_reactor *reactor;
static struct nst_store *store;
static struct client clients[DEPTH];
static struct nst_future all_done;
static enum kind kind;
static uint64_t wanted = 300000, started, finished, failed;
static uint64_t tokens[KEYS];
static int rounds = 3;
static bool json, tcp;
static double user_ns, kernel_ns;
static char dir[] = "/tmp/netstar-rate.XXXXXX";
static char where[160];

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

/* Made ahead: redis-benchmark does not print its keys either. */
static struct key {
    char text[15];
    uint8_t len;
} keys[KEYS];

static void make_keys(void)
{
    for (uint32_t i = 0; i < KEYS; i++)
        keys[i].len = (uint8_t)snprintf(keys[i].text, sizeof keys[i].text, "key:%u", i);
}

static struct nst_slice name(uint32_t n)
{
    return (struct nst_slice){ keys[n].text, keys[n].len };
}

static void next_request(struct client *c)
{
    static uint32_t n;
    struct nst_slice key, val = { c->val, VALUE };

    started++;
    if (!c->put_next)
        n = (n + 1) % KEYS;
    key = name(n);
    if (kind == PUT_OWNED)
        nst_put_owned_start(store, key, val, tokens[n], 0, &c->f);
    else if (kind == PUT || c->put_next)
        nst_put_start(store, key, val, kind == PUT ? 0 : NST_SEC(60), &c->f);
    else
        nst_get_start(store, key, c->val, VALUE, NULL, &c->f);
    c->put_next = kind == GET_PUT && !c->put_next;
    nst_then(&c->f, on_answer, c, nst_now() + NST_SEC(10));
}

static int64_t microseconds(struct timeval t)
{
    return t.tv_sec * 1000000 + t.tv_usec;
}

/* Requests a second; 0 when not all of them succeeded. */
static double run(void)
{
    struct rusage before, after;
    nst_time start;
    double ns;

    started = finished = failed = 0;
    nst_future_init(&all_done);
    getrusage(RUSAGE_THREAD, &before);
    start = nst_clock();
    for (int i = 0; i < DEPTH; i++) {
        clients[i].put_next = false;
        next_request(&clients[i]);
    }
    if (nst_await(&all_done, NST_NEVER) < 0)
        return 0;
    ns = (double)(nst_clock() - start);
    getrusage(RUSAGE_THREAD, &after);
    user_ns = (double)(microseconds(after.ru_utime) - microseconds(before.ru_utime)) * 1e3 / (double)wanted;
    kernel_ns = (double)(microseconds(after.ru_stime) - microseconds(before.ru_stime)) * 1e3 / (double)wanted;
    return failed == 0 ? (double)wanted * 1e9 / ns : 0;
}

/* What redis-benchmark says for a command: requests a second, or 0. */
static double reference(const char *command)
{
    char line[640];
    double rate = 0;

    snprintf(line, sizeof line, "redis-benchmark %s -c 1 -P 64 -r 1000 -n %llu --csv %s 2>/dev/null", where,
             (unsigned long long)wanted, command);
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

static double bound(enum kind k)
{
    static const char value[] = "123456789012345678901234567890123456789012345678901234567890123456789012";
    char command[400];
    double get, set;

    if (k == PUT_OWNED) {
        /* records that are owned, by a token whose bytes are text */
        static bool made;
        if (!made)
            reference("SET other:__rand_int__ \"$(printf '\\3661234567')\"");
        made = true;
        snprintf(command, sizeof command, "EVALSHA %s 1 other:__rand_int__ 1234567 \"$(printf '\\3661234567')%s\"",
                 redis_script_name(SCRIPT_PUT_OWNED), value + 8);
        return reference(command);
    }
    snprintf(command, sizeof command, "SET key:__rand_int__ %s%s", value, k == GET_PUT ? " PX 60000" : "");
    set = k != GET ? reference(command) : 0;
    get = k == GET || k == GET_PUT ? reference("GETRANGE key:__rand_int__ 0 72") : 0;
    if (k != GET_PUT)
        return k == GET ? get : set;
    return get > 0 && set > 0 ? 2 / (1 / get + 1 / set) : 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double middle(double *of, int n)
{
    qsort(of, (size_t)n, sizeof *of, by_value);
    return of[n / 2];
}

static void own_all(void)
{
    char val[VALUE];

    for (uint32_t i = 0; i < KEYS; i++) {
        int rc = nst_own(store, name(i), val, VALUE, &tokens[i], 0, nst_now() + NST_SEC(5));
        if (rc < 0 && rc != -ENOENT)
            fprintf(stderr, "store_rate: own: %s\n", strerror(-rc));
    }
}

static void measure(const char *on, enum kind k, bool beside)
{
    double ours[ROUNDS_MAX], theirs[ROUNDS_MAX], ratio[ROUNDS_MAX];
    struct nst_store_stats st;

    kind = k;
    if (k == PUT_OWNED)
        own_all();
    run(); /* warm */
    for (int i = 0; i < rounds; i++) {
        ours[i] = run();
        theirs[i] = beside ? bound(k) : 0;
        ratio[i] = theirs[i] > 0 ? ours[i] / theirs[i] : 0;
    }
    nst_store_stats(store, &st);
    if (json)
        printf("{\"case\": \"store_%s_%s\", \"per_second\": %.0f, \"reference_per_second\": %.0f, \"ratio\": %.3f, "
               "\"user_ns\": %.0f, \"kernel_ns\": %.0f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
               on, kind_names[k], middle(ours, rounds), middle(theirs, rounds), middle(ratio, rounds), user_ns,
               kernel_ns, (double)st.p50 / 1e3, (double)st.p99 / 1e3);
    else
        printf("  %-6s %-10s %9.0f/s  redis-benchmark %9.0f/s  ratio %.2f  user %4.0f ns, kernel %4.0f ns a request  "
               "p50 %.0f us, p99 %.0f us\n",
               on, kind_names[k], middle(ours, rounds), middle(theirs, rounds), middle(ratio, rounds), user_ns,
               kernel_ns, (double)st.p50 / 1e3, (double)st.p99 / 1e3);
}

static bool open_store(const char *url)
{
    const char *why = NULL;

    if (nst_store_open(&store, url, NULL, &why) == 0 && nst_store_ping(store, nst_now() + NST_SEC(10)) == 0)
        return true;
    fprintf(stderr, "store_rate: %s: %s\n", url, why != NULL ? why : "no connection");
    return false;
}

static void bench(void *arg)
{
    int port = *(int *)arg;
    char url[160];

    if (tcp) {
        snprintf(url, sizeof url, "redis://127.0.0.1:%d", port);
        snprintf(where, sizeof where, "-h 127.0.0.1 -p %d", port);
    } else {
        snprintf(url, sizeof url, "redis+unix://%s/sock", dir);
        snprintf(where, sizeof where, "-s %s/sock", dir);
    }
    if (open_store(url)) {
        for (enum kind k = 0; k < KINDS; k++)
            measure("redis", k, true);
        nst_store_close(store);
    }
    snprintf(url, sizeof url, "lmdb:%s/file", dir);
    if (open_store(url)) {
        uint64_t before = wanted;
        wanted = wanted > 20000 ? 20000 : wanted; /* each batch waits for the disk */
        measure("lmdb", PUT, false);
        wanted = before;
        measure("lmdb", GET, false);
        nst_store_close(store);
    }
    if (open_store("mem:")) {
        for (enum kind k = 0; k < KINDS; k++)
            measure("mem", k, false);
        nst_store_close(store);
    }
    nst_reactor_stop(reactor);
}

static bool arguments(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            json = true;
        else if (strcmp(argv[i], "--tcp") == 0)
            tcp = true;
        else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc)
            rounds = atoi(argv[++i]);
        else if (strcmp(argv[i], "--requests") == 0 && i + 1 < argc)
            wanted = strtoull(argv[++i], NULL, 10);
        else
            return false;
    }
    return rounds > 0 && rounds <= ROUNDS_MAX && wanted >= 1000;
}

int main(int argc, char **argv)
{
    static const char *const left[] = { "sock", "file", "file-lock" };
    /* redis-benchmark runs while the loop stands still */
    struct nst_reactor_config config = { .cpu = -1, .stall_after = NST_NEVER };
    char port_text[16], path[64];
    int port = 20000 + getpid() % 10000;
    pid_t pid;

    if (!arguments(argc, argv) || mkdtemp(dir) == NULL) {
        fprintf(stderr, "usage: store_rate [--json] [--tcp] [--rounds N] [--requests N]\n");
        return 2;
    }
    snprintf(port_text, sizeof port_text, "%d", port);
    snprintf(path, sizeof path, "%s/sock", dir);
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("redis-server", "redis-server", "--port", port_text, "--bind", "127.0.0.1", "--unixsocket", path,
               "--save", "", "--appendonly", "no", "--dir", dir, "--logfile", "/dev/null", NULL);
        _exit(127);
    }
    for (int i = 0; i < 500 && access(path, F_OK) != 0; i++)
        usleep(10000);
    setvbuf(stdout, NULL, _IOLBF, 0);
    make_keys();
    nst_log_level(NST_LOG_WARNING);
    if (nst_reactor_open(&reactor, &config) == 0) {
        nst_reactor_run(reactor, bench, &port);
        nst_reactor_close(reactor);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, left[i]);
        unlink(path);
    }
    rmdir(dir);
    return 0;
}
