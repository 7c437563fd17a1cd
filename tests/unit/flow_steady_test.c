/* SPDX-License-Identifier: Apache-2.0 */
/* In the steady state the packet path allocates nothing, takes no lock and asks the kernel nothing. A child runs an
 * engine, warm, over a port in memory: TCP with holes, retransmissions, kept bytes and handlers of which some wait; then
 * UDP. Its calls of malloc and of pthread's locks are counted by functions of the same names here, its system calls by
 * its parent, who traces it. A child that cheats shows that each would be noticed.
 */
#include "flow_lab.h"
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef __SANITIZE_ADDRESS__

enum { FLOWS = 64, PARTS = 5, STEP = 300, WARM = 100000, COUNTED = 1000000 };

/* Shared between the child and its parent. */
static struct shared {
    bool counting;
    unsigned long mallocs, locks, calls; /* while counting */
    unsigned long packets, events, waits, kept, held;
    bool done;
} * shared;
static __thread bool me; /* the thread that is counted */

#define COUNT(what) (shared != NULL && me && shared->counting ? shared->what++ : 0)

/* ---- who is counted ---- */
extern void *__libc_malloc(size_t n), *__libc_calloc(size_t n, size_t size), *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);
extern void __libc_free(void *p);
#define SEEN __attribute__((visibility("default")))

SEEN void *malloc(size_t n)
{
    COUNT(mallocs);
    return __libc_malloc(n);
}
SEEN void *calloc(size_t n, size_t size)
{
    COUNT(mallocs);
    return __libc_calloc(n, size);
}
SEEN void *realloc(void *p, size_t n)
{
    COUNT(mallocs);
    return __libc_realloc(p, n);
}
SEEN void *aligned_alloc(size_t align, size_t n)
{
    COUNT(mallocs);
    return __libc_memalign(align, n);
}
SEEN int posix_memalign(void **out, size_t align, size_t n)
{
    COUNT(mallocs);
    *out = __libc_memalign(align, n);
    return *out != NULL ? 0 : ENOMEM;
}
SEEN void free(void *p)
{
    COUNT(mallocs);
    __libc_free(p);
}

#define LOCK(name, type)                                     \
    SEEN int name(type *lock)                                \
    {                                                        \
        static int (*real)(type *);                          \
        COUNT(locks);                                        \
        if (real == NULL)                                    \
            real = (int (*)(type *))dlsym(RTLD_NEXT, #name); \
        return real(lock);                                   \
    }
LOCK(pthread_mutex_lock, pthread_mutex_t)
LOCK(pthread_mutex_trylock, pthread_mutex_t)
LOCK(pthread_rwlock_rdlock, pthread_rwlock_t)
LOCK(pthread_rwlock_wrlock, pthread_rwlock_t)
LOCK(pthread_spin_lock, pthread_spinlock_t)
LOCK(pthread_spin_trylock, pthread_spinlock_t)

/* ---- a port in memory ---- */
static uint64_t made;
static bool udp, cheats, ended_now;

static void make(struct rte_mbuf *m, uint64_t n)
{
    static const char text[100] = "all work and no play";
    uint8_t frame[LAB_FRAME];
    struct lab_path path = udp ? lab_udp4 : lab_tcp4;
    uint32_t part = (uint32_t)(n / FLOWS), s = 1001 + part / PARTS * STEP;
    struct lab_tcp t = { .flags = ACK | PSH, .seq = s, .ack = 501, .data = text, .len = sizeof text };
    unsigned dir = C2S, len;

    path.port[0] = (uint16_t)(2000 + n % FLOWS);
    if (udp) {
        len = lab_udp_frame(frame, &path, part & 1, text, sizeof text);
    } else {
        if (n < FLOWS * 3) {
            t = (struct lab_tcp){ .flags = n < FLOWS ? SYN : n < 2 * FLOWS ? SYN | ACK : ACK };
            dir = n >= FLOWS && n < 2 * FLOWS;
            t.seq = dir ? 500 : n < FLOWS ? 1000 : 1001;
            t.ack = n < FLOWS ? 0 : dir ? 1001 : 501;
        } else {
            part = (uint32_t)(n / FLOWS) - 3;
            t.seq = 1001 + part / PARTS * STEP;
            switch (part % PARTS) {
            case 0:
                break;
            case 1: /* ahead of a hole */
            case 3: /* and once more */
                t.seq += 200;
                break;
            case 2:
                t.seq += 100;
                break;
            default:
                dir = S2C;
                t = (struct lab_tcp){ .flags = ACK, .seq = 501, .ack = t.seq + STEP };
            }
        }
        len = lab_tcp_frame(frame, &path, dir, t);
    }
    memcpy(rte_pktmbuf_append(m, (uint16_t)len), frame, len);
}

static unsigned receive(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    unsigned i;

    if (made == WARM)
        shared->counting = true;
    if (made == WARM + COUNTED) {
        shared->counting = false;
        ended_now = true;
        return 0;
    }
    for (i = 0; i < n && made != WARM + COUNTED && (made != WARM || i == 0); i++, made++) {
        m[i] = rte_pktmbuf_alloc(port_pool);
        if (m[i] == NULL)
            abort();
        make(m[i], made);
        port_stamp(p, m[i], nst_now());
    }
    return i;
}

static void leave(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        rte_pktmbuf_free(m[i]);
}

static bool has_ended(const struct nst_port *p)
{
    return ended_now;
}

static const struct port_ops ops = { .driver = "steady", .rx = receive, .tx = leave, .ended = has_ended };

/* ---- an NF of which every eighth event waits for some turns ---- */
static struct nst_future *asked[FLOWS];
static unsigned n_asked;

static int answer(struct nst_poller *self)
{
    static unsigned turns;
    unsigned n = n_asked;

    if (++turns % 8 != 0) /* meanwhile the next packets of those flows come */
        return 0;
    n_asked = 0;
    for (unsigned i = 0; i < n; i++)
        nst_fulfil(asked[i], 0);
    return n != 0;
}

static void cheat(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    void *volatile p = malloc(1);

    free(p);
    pthread_mutex_lock(&lock);
    pthread_mutex_unlock(&lock);
    (void)syscall(SYS_getppid);
}

static enum nst_verdict look(struct nst_flow *f, const struct nst_event *ev)
{
    uint32_t *n = nst_flow_state(f);
    struct nst_future wait;
    struct nst_slice s;

    while (nst_flow_bytes(f, ev->side, &s))
        n[1] += ((const uint8_t *)s.p)[0];
    if (cheats && made > WARM + COUNTED / 2) {
        cheats = false;
        cheat();
    }
    if (++n[0] % 8 == 0 && n_asked < FLOWS) {
        nst_future_init(&wait);
        asked[n_asked++] = &wait;
        return nst_await(&wait, NST_NEVER) == 0 ? NST_FORWARD : NST_DROP;
    }
    return NST_FORWARD;
}

static void main_task(void *arg)
{
    static struct nst_poller poller = { .poll = answer };
    static struct nst_port port;
    const struct nst_inspector *inspect = udp ? &nst_udp : &nst_tcp;
    const struct nst_nf nf = {
        .name = "steady",
        .half = { [NST_CLIENT] = { .inspect = inspect, .on_received = NST_EV_DATA, .handler = look },
                  [NST_SERVER] = { .inspect = inspect, .on_received = NST_EV_DATA, .handler = look } },
        .flow_size = 8,
    };
    const struct nst_engine_config config = { .nf = &nf, .flows = 1024, .stream_memory = 1 << 20 };
    struct nst_port *ports[] = { &port };
    struct nst_engine_stats s = { 0 };
    struct nst_engine *e = NULL;

    port = (struct nst_port){ .ops = &ops };
    nst_poller_add(nst_reactor_self(), &poller);
    if (nst_engine_open(&e, &config, ports, 1) == 0 && nst_engine_finish(e) == 0) {
        nst_engine_stats(e, &s);
        shared->packets = s.forwarded;
        shared->events = s.events;
        shared->waits = s.waits;
        shared->kept = s.stream_kept_peak;
        shared->held = s.held_peak;
        shared->done = nst_engine_drain(e, nst_now() + NST_SEC(5)) == 0;
    }
    nst_engine_close(e);
    nst_poller_remove(nst_reactor_self(), &poller);
    nst_reactor_stop(nst_reactor_self());
}

static void __attribute__((noreturn)) child(void)
{
    const struct nst_reactor_config rc = { .cpu = -1, .busy_poll = true, .stall_after = NST_NEVER };
    struct nst_io_config io = { .packets = 8192, .no_huge = true };
    struct nst_reactor *r = NULL;
    const char *why = "";

    me = true;
    nst_log_level(NST_LOG_WARNING);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        _exit(77);
    raise(SIGSTOP);
    if (nst_io_open(&io, &why) < 0 || nst_reactor_open(&r, &rc) < 0 || nst_reactor_run(r, main_task, NULL) < 0)
        _exit(1);
    nst_reactor_close(r);
    _exit(0);
}

/* Runs a child to its end and counts its system calls; false: it may not be traced here. */
static bool run_child(bool with_udp, bool cheating)
{
    bool inside = false;
    int status = 0;

    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    udp = with_udp;
    cheats = cheating;
    pid_t pid = fork();
    if (pid == 0)
        child();
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        return false;
    assert_true(WIFSTOPPED(status));
    ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
    for (int sig = 0;;) {
        assert_int_equal(ptrace(PTRACE_SYSCALL, pid, NULL, (void *)(uintptr_t)sig), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFSTOPPED(status))
            break;
        sig = WSTOPSIG(status);
        if (sig == (SIGTRAP | 0x80)) {
            sig = 0;
            inside = !inside;
            if (inside && shared->counting)
                shared->calls++;
        }
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_true(shared->done);
    assert_int_equal(shared->packets, WARM + COUNTED);
    return true;
}

static void nothing_is_asked_for(bool with_udp)
{
    if (!run_child(with_udp, false)) {
        skip();
        return;
    }
    assert_int_equal(shared->mallocs, 0);
    assert_int_equal(shared->locks, 0);
    assert_int_equal(shared->calls, 0);
    /* It did what it should: bytes were kept, handlers waited, packets were held behind them. */
    assert_true(shared->events > COUNTED / 3);
    assert_true(shared->waits > shared->events / 10);
    assert_true(shared->held > 0);
    assert_true(with_udp || shared->kept > 0);
}

static void tcp_packets(void **state)
{
    nothing_is_asked_for(false);
}

static void udp_packets(void **state)
{
    nothing_is_asked_for(true);
}

static void a_cheat_is_noticed(void **state)
{
    if (!run_child(false, true)) {
        skip();
        return;
    }
    assert_int_equal(shared->mallocs, 2); /* and its free */
    assert_int_equal(shared->locks, 1);
    assert_int_equal(shared->calls, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tcp_packets),
        cmocka_unit_test(udp_packets),
        cmocka_unit_test(a_cheat_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

/* A sanitizer has malloc for itself. */
static void not_here(void **state)
{
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(not_here) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif
