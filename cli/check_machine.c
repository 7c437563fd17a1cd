/* SPDX-License-Identifier: Apache-2.0 */
#include "checks.h"
#include "values.h"
#include <inttypes.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* The limits that the library takes where the command line gives none (netstar/engine.h, ports.h, reactor.h, store.h),
 * and what one of each costs. */
enum {
    FLOWS = 1 << 20,
    SPARE_FLOWS = 64, /* whose CLOSE is under way */
    FLOW_BYTES = 288, /* no NF that comes with NetStar needs more */
    PACKETS = 16384,
    BUFFER_BYTES = 2688,
    DPDK_MB = 64,
    STREAM_MB = 256,
    STACKS = 16384,
    STACK_KB = 64,
    STORE_MB = 1024,
    FRAGMENTS = 4096,
    FRAGMENT_BYTES = 112,  /* of the table; the fragments themselves are packet buffers */
    FRAGMENT_WHOLES = 256, /* datagrams that are longer than a buffer, at once */
    FRAGMENT_WHOLE_KB = 64,
    NETWORKS = 16384, /* in tunnels */
    NETWORK_BYTES = 188,
    HUGE_PAGE_MB = 2,
};
#define MB ((uint64_t)1 << 20)

/* The number behind "name:" or alone in a file of /proc or /sys. */
static bool read_number(const char *path, const char *name, int base, uint64_t *out)
{
    FILE *f = fopen(path, "re");
    size_t len = strlen(name);
    char line[256];
    bool found = false;

    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, name, len) == 0) {
            *out = strtoull(line + len, NULL, base);
            found = true;
        }
    if (f != NULL)
        fclose(f);
    return found;
}

void check_kernel(struct checks *k)
{
    unsigned major = 0, minor = 0;
    struct utsname u;

    if (uname(&u) != 0 || sscanf(u.release, "%u.%u", &major, &minor) != 2)
        check_say(k, CHECK_WARNING, "kernel", "its version cannot be read");
    else if (major < 5 || (major == 5 && minor < 4))
        check_say(k, CHECK_WARNING, "kernel",
                  "Linux %s: AF_XDP needs 5.4; interfaces will use AF_PACKET, which is slower", u.release);
    else if (major < 6 || (major == 6 && minor < 13))
        check_say(k, CHECK_OK, "kernel", "Linux %s (6.13 guards the stacks of waiting tasks at less cost)", u.release);
    else
        check_say(k, CHECK_OK, "kernel", "Linux %s", u.release);
}

void check_processor(struct checks *k)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    cpu_set_t set;
    int allowed = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)online;

#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("sse4.2"))
        check_say(k, CHECK_PROBLEM, "processor", "x86-64 without SSE4.2: DPDK and Hyperscan need it");
    else
        check_say(k, CHECK_OK, "processor", "x86-64 with SSE4.2%s%s, %d of %ld may be used",
                  __builtin_cpu_supports("avx2") ? ", AVX2" : "", __builtin_cpu_supports("avx512bw") ? ", AVX-512" : "",
                  allowed, online);
#else
    check_say(k, CHECK_OK, "processor", "%d of %ld may be used", allowed, online);
#endif
}

void check_privileges(struct checks *k, bool live)
{
    static const struct {
        unsigned bit;
        const char *name;
    } wanted[] = {
        { CAP_NET_ADMIN, "CAP_NET_ADMIN" },
        { CAP_NET_RAW, "CAP_NET_RAW" },
        { CAP_BPF, "CAP_BPF" },
        { CAP_IPC_LOCK, "CAP_IPC_LOCK" },
    };
    char missing[128] = "", self[4096];
    uint64_t have = 0;
    size_t n = 0;
    ssize_t len;

    read_number("/proc/self/status", "CapEff:", 16, &have);
    if (have >> CAP_SYS_ADMIN & 1)
        have |= (uint64_t)1 << CAP_BPF; /* which it was part of */
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (!(have >> wanted[i].bit & 1))
            n += (size_t)snprintf(missing + n, sizeof missing - n, "%s%s", n != 0 ? ", " : "", wanted[i].name);
    if (n == 0) {
        check_say(k, CHECK_OK, "privileges", "all that live ports need");
        return;
    }
    len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len > 0 ? len : 0] = '\0';
    check_say(k, live ? CHECK_PROBLEM : CHECK_WARNING, "privileges", "live ports need %s%s", missing,
              live ? "" : "; captures work without");
    check_hint(k, "run it with sudo, or:  sudo setcap cap_net_admin,cap_net_raw,cap_bpf,cap_ipc_lock+ep %s", self);
}

uint64_t check_buffer_bytes(const struct settings *s)
{
    return (uint64_t)(s->packets != 0 ? s->packets : PACKETS * s->cores) * BUFFER_BYTES + DPDK_MB * MB;
}

void check_hugepages(struct checks *k, const struct settings *s)
{
    static const char folder[] = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
    uint64_t free_pages = 0, pages = 0, need = (check_buffer_bytes(s) + HUGE_PAGE_MB * MB - 1) / (HUGE_PAGE_MB * MB);
    char path[128];

    if (s->no_huge) {
        check_say(k, CHECK_OK, "hugepages", "not wanted (--no-huge)");
        return;
    }
    snprintf(path, sizeof path, "%sfree_hugepages", folder);
    if (!read_number(path, "", 10, &free_pages)) {
        check_say(k, CHECK_WARNING, "hugepages",
                  "this kernel has none of 2 MB; ordinary pages will do, a little slower");
        return;
    }
    snprintf(path, sizeof path, "%snr_hugepages", folder);
    read_number(path, "", 10, &pages);
    if (free_pages >= need) {
        check_say(k, CHECK_OK, "hugepages", "%" PRIu64 " of 2 MB are free, %" PRIu64 " are needed", free_pages, need);
        return;
    }
    check_say(k, CHECK_WARNING, "hugepages",
              "%" PRIu64 " of 2 MB are free, %" PRIu64 " are needed; ordinary pages will do, a little slower",
              free_pages, need);
    check_hint(k, "echo %" PRIu64 " | sudo tee %s", pages - free_pages + need, path);
}

void check_memory(struct checks *k, const struct settings *s)
{
    uint64_t flows = (uint64_t)((s->flows != 0 ? s->flows : FLOWS) + SPARE_FLOWS) * FLOW_BYTES * s->cores;
    uint64_t stream = (s->stream_memory != 0 ? s->stream_memory : STREAM_MB * MB) * s->cores;
    uint64_t buffers = check_buffer_bytes(s);
    uint64_t stacks = ((uint64_t)STACKS * STACK_KB << 10) * s->cores;
    uint64_t store = strncmp(s->store, "mem:", 4) == 0 ? STORE_MB * MB * s->cores : 0;
    uint64_t fragments = ((uint64_t)(s->fragments != 0 ? s->fragments : FRAGMENTS) * FRAGMENT_BYTES +
                          ((uint64_t)FRAGMENT_WHOLES * FRAGMENT_WHOLE_KB << 10)) *
                         s->cores;
    uint64_t networks = s->tunnels != 0 ? (uint64_t)NETWORKS * NETWORK_BYTES * s->cores : 0;
    uint64_t all = flows + stream + buffers + stacks + store + fragments + networks, available = 0;
    char a[8][32], kept[96] = "";
    bool enough;

    if (!read_number("/proc/meminfo", "MemAvailable:", 10, &available)) {
        check_say(k, CHECK_WARNING, "memory", "how much is available cannot be read");
        return;
    }
    available <<= 10;
    enough = all <= available;
    /* The buffers are taken at once, the rest as it is used. */
    check_say(k,
              buffers > available ? CHECK_PROBLEM
              : enough            ? CHECK_OK
                                  : CHECK_WARNING,
              "memory", "at most %s, when every limit is reached; %s are available",
              value_show_size(all, a[0], sizeof a[0]), value_show_size(available, a[1], sizeof a[1]));
    if (store != 0)
        snprintf(kept, sizeof kept, ", store %s", value_show_size(store, a[2], sizeof a[2]));
    if (networks != 0)
        snprintf(kept + strlen(kept), sizeof kept - strlen(kept), ", networks in tunnels %s",
                 value_show_size(networks, a[7], sizeof a[7]));
    check_hint(k, "packet buffers %s at once; flows %s, stream data %s, stacks %s, fragments %s%s as they are used",
               value_show_size(buffers, a[3], sizeof a[3]), value_show_size(flows, a[4], sizeof a[4]),
               value_show_size(stream, a[5], sizeof a[5]), value_show_size(stacks, a[0], sizeof a[0]),
               value_show_size(fragments, a[6], sizeof a[6]), kept);
    if (!enough)
        check_hint(k, "lower --flows, --stream-memory or --packets to have room for the worst");
}
