/* SPDX-License-Identifier: Apache-2.0 */
/* The process's DPDK: the arguments that EAL starts with, its messages, and the packet pool. */
#include "io/eal.h"
#include "io/port.h"
#include <dlfcn.h>
#include <pthread.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mempool.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    PACKETS_DEFAULT = 16384,
    PACKETS_MIN = 256,
    PACKETS_MAX = 1 << 22,
    POOL_CACHE = 256,
    /* A frame of 2 KiB behind the usual headroom: what AF_PACKET's ring and AF_XDP's chunks hold. */
    DATA_ROOM = 2048 + RTE_PKTMBUF_HEADROOM,
    /* A buffer with its mempool header and the padding that spreads buffers over memory channels. */
    BUFFER_BYTES = 2688,
    EAL_MB = 64, /* what EAL, devices and rings take beside the pool */
    ARGS_MAX = 64,
};

struct rte_mempool *port_pool;
static bool is_open, in_huge_pages, huge_by_choice;
static unsigned kept, n_cores;
static FILE *log_stream;
static char log_last[512], log_partial[512];

int io_fail(int rc, const char **why, const char *fmt, ...)
{
    static _Thread_local char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (why != NULL)
        *why = text;
    return rc;
}

const char *io_log_last(void)
{
    return log_last;
}

void io_log_clear(void)
{
    log_last[0] = log_partial[0] = '\0';
}

bool io_huge(void)
{
    return in_huge_pages;
}

unsigned io_buffers_kept(int more)
{
    kept += (unsigned)more;
    return kept;
}

bool io_is_open(void)
{
    return is_open;
}

unsigned io_cores(void)
{
    return n_cores;
}

int nst_io_join(void)
{
    return rte_thread_register() == 0 ? 0 : -ENOTSUP;
}

void nst_io_leave(void)
{
    rte_thread_unregister();
}

/* DPDK tells the reason of a failure in its log only, so the last line is kept for *why instead of being printed. */
static ssize_t keep_line(void *cookie, const char *buf, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        size_t n = strlen(log_partial);
        if (buf[i] == '\n') {
            if (n != 0)
                memcpy(log_last, log_partial, n + 1);
            log_partial[0] = '\0';
        } else if (n + 1 < sizeof log_partial) {
            log_partial[n] = buf[i];
            log_partial[n + 1] = '\0';
        }
    }
    return (ssize_t)size;
}

static int keep_messages(void)
{
    log_stream = fopencookie(NULL, "w", (cookie_io_functions_t){ .write = keep_line });
    if (log_stream == NULL)
        return -ENOMEM;
    setvbuf(log_stream, NULL, _IOLBF, BUFSIZ);
    return rte_openlog_stream(log_stream);
}

static int drop_line(int level, const char *fmt, va_list ap)
{
    (void)level;
    (void)fmt;
    (void)ap;
    return 0;
}

/* The libraries below the AF_XDP driver write to stderr, mostly about what does not matter here (no bpffs). They are
 * there when EAL has loaded the driver. */
static void silence(const char *library, const char *function)
{
    void *lib = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
    if (lib == NULL)
        return;
    typedef int print_fn(int level, const char *fmt, va_list ap);
    typedef print_fn *set_print_fn(print_fn *);
    set_print_fn *set = (set_print_fn *)dlsym(lib, function);
    if (set != NULL)
        set(drop_line);
    dlclose(lib);
}

/* EAL cannot be started a second time after it has failed to get its memory, so the huge pages are tried first. Others
 * can still take them before EAL does. */
static bool huge_pages_to_be_had(size_t bytes)
{
    const size_t page = 2 << 20;
    bytes = (bytes + page - 1) / page * page;
    void *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (21 << MAP_HUGE_SHIFT), -1, 0);
    if (m == MAP_FAILED)
        return false;
    munmap(m, bytes);
    return true;
}

static bool mentions(char *const *argv, int argc, const char *const *options)
{
    for (int i = 0; i < argc; i++) {
        for (const char *const *o = options; *o != NULL; o++) {
            size_t n = strlen(*o);
            /* a long option alone or with =value, a short one alone or with its value joined */
            if (strncmp(argv[i], *o, n) == 0 && ((*o)[1] != '-' || argv[i][n] == '\0' || argv[i][n] == '='))
                return true;
        }
    }
    return false;
}

struct args {
    char *v[ARGS_MAX];
    int n;
    char text[512];
    size_t used;
};

__attribute__((format(printf, 2, 3))) static void add(struct args *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(a->text + a->used, sizeof a->text - a->used, fmt, ap);
    va_end(ap);
    a->v[a->n++] = a->text + a->used;
    a->used += (size_t)n + 1;
}

/* Chooses the arguments of EAL. `user` holds config->eal, split. */
static void choose_args(struct args *a, const struct nst_io_config *c, char *const *user, int n_user, size_t bytes)
{
    static const char *const memory[] = { "--no-huge", "--in-memory",  "--huge-dir", "--legacy-mem",
                                          "-m",        "--socket-mem", NULL };
    static const char *const devices[] = { "-a", "--allow", "-b", "--block", "--no-pci", NULL };
    static const char *const cores[] = { "-l", "-c", "--lcores", NULL };
    static const char *const logs[] = { "--log-level", NULL };
    static const char *const iova[] = { "--iova-mode", NULL };
    static const char *const plain[] = { "--no-huge", NULL };

    huge_by_choice = false;
    add(a, "netstar");
    add(a, "--no-telemetry");
    if (mentions(user, n_user, memory)) {
        in_huge_pages = !mentions(user, n_user, plain);
    } else if (!c->no_huge && huge_pages_to_be_had(bytes + ((size_t)EAL_MB << 20))) {
        in_huge_pages = huge_by_choice = true;
        add(a, "--in-memory");
    } else {
        in_huge_pages = false;
        add(a, "--no-huge");
        add(a, "--no-shconf");
        add(a, "-m");
        add(a, "%zu", (bytes >> 20) + EAL_MB);
    }
    if (!mentions(user, n_user, iova))
        add(a, "--iova-mode=va");
    if (!mentions(user, n_user, cores)) {
        int cpu = sched_getcpu();
        add(a, "--lcores");
        add(a, "0@%d", cpu < 0 ? 0 : cpu);
    }
    /* No PCI device may be taken that nobody named, and one that is named later must still be found: so the list of
     * allowed devices is not empty, but names one that no driver takes. */
    if (!mentions(user, n_user, devices)) {
        add(a, "-a");
        add(a, "0000:00:00.0");
    }
    if (!c->verbose && !mentions(user, n_user, logs)) {
        add(a, "--log-level=*:error");
    } else if (c->verbose && !mentions(user, n_user, logs)) {
        add(a, "--log-level=*:info");
    }
}

/* One buffer after the other, also across the borders of ordinary pages, and in one piece: rte_pktmbuf_pool_create
 * would put each buffer on its own 4 KB page, where all fall into the same cache sets, and AF_XDP wants one area. */
static int make_pool(uint32_t packets, const char **why)
{
    struct rte_pktmbuf_pool_private priv = { .mbuf_data_room_size = DATA_ROOM, .mbuf_priv_size = NST_PACKET_PRIV };
    unsigned elt = sizeof(struct rte_mbuf) + NST_PACKET_PRIV + DATA_ROOM;
    unsigned cache = packets / 8 < POOL_CACHE ? packets / 8 : POOL_CACHE;

    port_pool = rte_mempool_create_empty("netstar", packets, elt, cache, sizeof priv, SOCKET_ID_ANY,
                                         RTE_MEMPOOL_F_NO_IOVA_CONTIG);
    if (port_pool == NULL)
        return io_fail(-ENOMEM, why, "no memory for a pool of %u packet buffers", packets);
    rte_mempool_set_ops_byname(port_pool, "ring_mp_mc", NULL);
    rte_pktmbuf_pool_init(port_pool, &priv);
    if (rte_mempool_populate_default(port_pool) != (int)packets) {
        rte_mempool_free(port_pool);
        port_pool = NULL;
        return io_fail(-ENOMEM, why, "no memory for %u packet buffers (%zu MiB)%s%s", packets,
                       (size_t)packets * BUFFER_BYTES >> 20, log_last[0] != '\0' ? ": " : "", log_last);
    }
    rte_mempool_obj_iter(port_pool, rte_pktmbuf_init, NULL);
    return 0;
}

static int pages_gone(const char **why)
{
    return io_fail(-EAGAIN, why, "the huge pages went to others while DPDK started");
}

int nst_io_open(const struct nst_io_config *config, const char **why)
{
    static const struct nst_io_config defaults;
    const struct nst_io_config *c = config != NULL ? config : &defaults;
    unsigned cores = c->cores != 0 ? c->cores : 1;
    uint32_t packets = c->packets != 0 ? c->packets : PACKETS_DEFAULT * cores;
    struct args a = { .n = 0 };
    char *user[ARGS_MAX / 2], *save, *copy;
    int n_user = 0, rc;
    cpu_set_t cpus;

    if (is_open)
        return io_fail(-EALREADY, why, "DPDK runs already in this process");
    if (packets < PACKETS_MIN || packets > PACKETS_MAX)
        return io_fail(-EINVAL, why, "%u packet buffers: between %d and %d are allowed", packets, PACKETS_MIN,
                       PACKETS_MAX);
    copy = strdup(c->eal != NULL ? c->eal : "");
    if (copy == NULL)
        return -ENOMEM;
    for (char *w = strtok_r(copy, " \t", &save); w != NULL; w = strtok_r(NULL, " \t", &save)) {
        if (n_user == ARGS_MAX / 2) {
            free(copy);
            return io_fail(-EINVAL, why, "more than %d EAL arguments", ARGS_MAX / 2);
        }
        user[n_user++] = w;
    }
    choose_args(&a, c, user, n_user, (size_t)packets * BUFFER_BYTES);
    for (int i = 0; i < n_user; i++)
        a.v[a.n++] = user[i];
    a.v[a.n] = NULL;

    n_cores = cores;
    io_log_clear();
    kept = 0;
    if (!c->verbose && (rc = keep_messages()) < 0) {
        free(copy);
        return rc;
    }
    /* EAL pins the thread that starts it; which core a reactor runs on is the reactor's own matter. */
    rc = pthread_getaffinity_np(pthread_self(), sizeof cpus, &cpus);
    bool pinned = rc == 0;
    rc = rte_eal_init(a.n, a.v);
    int err = rte_errno;
    if (pinned)
        pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
    /* EAL has copied of its arguments what it keeps. */
    free(copy);
    if (rc < 0) {
        if (err == EALREADY)
            return io_fail(-EALREADY, why, "DPDK can be started only once in a process");
        if (huge_by_choice && (err == EACCES || err == ENOMEM || err == ENOEXEC))
            return pages_gone(why);
        if (err == EACCES || err == EPERM)
            return io_fail(-EPERM, why, "DPDK may not start: %s (try as root, or without huge pages)",
                           log_last[0] != '\0' ? log_last : strerror(err));
        return io_fail(err == ENOMEM ? -ENOMEM : -EINVAL, why, "DPDK does not start: %s",
                       log_last[0] != '\0' ? log_last : rte_strerror(err));
    }
    rc = make_pool(packets, why);
    if (rc < 0) {
        rte_eal_cleanup();
        return huge_by_choice ? pages_gone(why) : rc;
    }
    if (!c->verbose) {
        silence("libbpf.so.1", "libbpf_set_print");
        silence("libxdp.so.1", "libxdp_set_print");
    }
    is_open = true;
    nst_log(NST_LOG_INFO, "%u packet buffers in %s", packets, in_huge_pages ? "huge pages" : "ordinary pages");
    return 0;
}

int nst_io_close(uint32_t *missing)
{
    unsigned n = 0;

    if (!is_open)
        return 0;
    /* What is in the cores' caches counts as available. */
    unsigned used = rte_mempool_in_use_count(port_pool);
    n = used > kept ? used - kept : 0;
    if (missing != NULL)
        *missing = n;
    rte_mempool_free(port_pool);
    port_pool = NULL;
    rte_eal_cleanup();
    if (log_stream != NULL) {
        rte_openlog_stream(NULL);
        fclose(log_stream);
        log_stream = NULL;
    }
    is_open = false;
    return n != 0 ? -EBUSY : 0;
}
