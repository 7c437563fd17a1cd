/* SPDX-License-Identifier: Apache-2.0 */
/* Opening ports by name, and ports on DPDK's virtual devices. DPDK starts once in a process, so each test is a child.
 */
#include "io/port.h"
#include <fcntl.h>
#include <rte_mempool.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#define CHECK(what)                                                                      \
    do {                                                                                 \
        if (!(what)) {                                                                   \
            fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #what, why); \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

static const char *why = "";

static void in_child(void (*body)(void))
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        nst_log_level(NST_LOG_WARNING);
        body();
        exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void start(void)
{
    struct nst_io_config c = { .packets = 1024, .no_huge = true };
    CHECK(nst_io_open(&c, &why) == 0);
}

static struct rte_mbuf *packet(unsigned len)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(port_pool);
    CHECK(m != NULL);
    memset(rte_pktmbuf_append(m, (uint16_t)len), 0x55, len);
    return m;
}

static void ring_body(void)
{
    struct nst_port *p;
    struct rte_mbuf *m[64];
    struct nst_port_stats s;
    uint32_t missing = 9;

    start();
    CHECK(nst_port_open(&p, "net_ring0", &why) == 0);
    CHECK(strcmp(nst_port_name(p), "net_ring0") == 0);
    CHECK(strcmp(nst_port_driver(p), "net_ring") == 0);
    CHECK(!p->replay && p->ops->ended == NULL);
    p->index = 1;
    CHECK(port_rx(p, m, 32) == 0);
    for (unsigned i = 0; i < 40; i++)
        port_tx(p, packet(60 + i));
    CHECK(port_rx(p, m, 64) == 32); /* the first burst has left by itself */
    port_flush(p);
    CHECK(port_rx(p, m + 32, 32) == 8);
    for (unsigned i = 0; i < 40; i++) {
        const struct nst_packet *k = packet_of(m[i]);
        CHECK(nst_packet_number(k) == i + 1);
        CHECK(nst_packet_port(k) == 1);
        CHECK(nst_packet_len(k) == 60 + i);
        CHECK(nst_packet_time(k) > 0);
        rte_pktmbuf_free(m[i]);
    }
    nst_port_stats(p, &s);
    CHECK(s.rx_packets == 40 && s.tx_packets == 40 && s.tx_dropped == 0);
    CHECK(s.rx_bytes == s.tx_bytes && s.rx_bytes == 40 * 60 + 39 * 20);
    CHECK(p->ops->attach(p, NULL) == -ENOTSUP);
    port_tx(p, packet(60)); /* not flushed */
    CHECK(nst_port_close(p) == 0);
    /* A second life of the same device. */
    CHECK(nst_port_open(&p, "net_ring0", &why) == 0);
    CHECK(nst_port_close(p) == 0);
    CHECK(nst_io_close(&missing) == 0 && missing == 0);
}

static void null_body(void)
{
    struct nst_port *p;
    struct rte_mbuf *m[32];
    struct nst_port_stats s;
    uint32_t missing = 9;

    start();
    CHECK(nst_port_open(&p, "net_null0,size=128", &why) == 0);
    for (int round = 0; round < 100; round++) {
        CHECK(port_rx(p, m, 32) == 32);
        for (unsigned i = 0; i < 32; i++)
            port_tx(p, m[i]);
    }
    nst_port_stats(p, &s);
    CHECK(s.rx_packets == 3200 && s.tx_packets == 3200 && s.rx_bytes == 128 * 3200);
    CHECK(nst_port_close(p) == 0);
    CHECK(nst_port_close(NULL) == 0);
    CHECK(nst_io_close(&missing) == 0 && missing == 0);
}

/* A ring that is full drops, and counts; the pool is whole. */
static void full_body(void)
{
    struct nst_port *p;
    struct nst_port_stats s;
    struct rte_mbuf *m[32];
    uint32_t missing = 9;
    unsigned n;

    struct nst_io_config c = { .packets = 8192, .no_huge = true };
    CHECK(nst_io_open(&c, &why) == 0);
    CHECK(nst_port_open(&p, "net_ring0", &why) == 0);
    for (unsigned i = 0; i < 4096; i++)
        port_tx(p, packet(60));
    nst_port_stats(p, &s);
    CHECK(s.tx_dropped > 0 && s.tx_packets > 0 && s.tx_packets + s.tx_dropped == 4096);
    CHECK(s.tx_bytes == s.tx_packets * 60);
    while ((n = port_rx(p, m, 32)) != 0)
        while (n > 0)
            rte_pktmbuf_free(m[--n]);
    CHECK(nst_port_close(p) == 0);
    CHECK(nst_io_close(&missing) == 0 && missing == 0);
}

/* DPDK's null device keeps the key and the table that it is given; it chooses no queue by them, so what is looked at is
 * what was agreed, and that the queues are apart. */
static void scaling_body(void)
{
    struct nst_io_config c = { .packets = 2048, .no_huge = true, .cores = 2 };
    struct nst_port *p, *view[2];
    struct rte_mbuf *m[32];
    struct nst_port_stats s;
    uint32_t missing = 9;

    CHECK(nst_io_open(&c, &why) == 0);
    CHECK(nst_port_open(&p, "net_null0", &why) == 0);
    CHECK(p->rss != NULL && p->rss->queues == 2 && p->rss->entries >= 2);
    unsigned used[2] = { 0 };
    for (uint32_t i = 0; i < 1000; i++)
        used[port_rss_core(p->rss, 4, 6, 0x0200000a0100000aULL, i << 16 | 80)]++;
    CHECK(used[0] > 300 && used[1] > 300);
    for (unsigned i = 0; i < 2; i++) {
        view[i] = p->ops->queue(p, i);
        view[i]->index = 3;
        CHECK(port_rx(view[i], m, 32) == 32);
        CHECK(nst_packet_port(packet_of(m[0])) == 3);
        for (unsigned k = 0; k < 32; k++)
            port_tx(view[i], m[k]);
        nst_port_stats(view[i], &s);
        CHECK(s.rx_packets == 32 && s.tx_packets == 32);
    }
    nst_port_stats(p, &s);
    CHECK(s.rx_packets == 64 && s.tx_packets == 64);
    CHECK(nst_port_close(p) == 0);
    CHECK(nst_io_close(&missing) == 0 && missing == 0);
}

static void missing_body(void)
{
    uint32_t missing = 0;

    start();
    packet(60);
    packet(60);
    CHECK(nst_io_close(&missing) == -EBUSY);
    CHECK(missing == 2);
    CHECK(nst_io_close(&missing) == 0); /* it is closed */
}

static void names_body(void)
{
    struct nst_port *p = NULL;
    uint32_t missing;

    CHECK(nst_port_open(&p, "net_ring0", &why) == -EINVAL);
    CHECK(strstr(why, "nst_io_open") != NULL);
    start();
    CHECK(nst_io_open(NULL, &why) == -EALREADY);
    CHECK(nst_port_open(&p, "", &why) == -EINVAL);
    CHECK(nst_port_open(&p, NULL, &why) == -EINVAL);
    CHECK(nst_port_open(&p, "eth77", &why) == -ENODEV);
    CHECK(strcmp(why, "no interface \"eth77\" here; `ip link` lists them") == 0);
    CHECK(nst_port_open(&p, "xdp:eth77", &why) == -ENODEV);
    CHECK(nst_port_open(&p, "packet:eth77", &why) == -ENODEV);
    CHECK(nst_port_open(&p, "an_interface_with_a_far_too_long_name", &why) == -ENODEV);
    CHECK(nst_port_open(&p, "net_nosuchdriver0", &why) < 0);
    CHECK(strstr(why, "net_nosuchdriver0") != NULL);
    CHECK(nst_port_open(&p, "net_null0,nosuch=1", &why) < 0);
    CHECK(strstr(why, "net_null0") != NULL);
    CHECK(nst_port_open(&p, "ffff:ff:1f.7", &why) < 0);
    CHECK(p == NULL);
    CHECK(nst_port_open(&p, "eth77", NULL) == -ENODEV);
    CHECK(nst_io_close(&missing) == 0 && missing == 0);
}

/* A device that EAL's own arguments made. */
static void eal_device_body(void)
{
    struct nst_io_config c = { .packets = 1024, .no_huge = true, .eal = " --vdev net_null3,size=90  --vdev=net_ring7" };
    struct nst_port *p;
    struct rte_mbuf *m[4];

    CHECK(nst_io_open(&c, &why) == 0);
    CHECK(nst_port_open(&p, "net_null3", &why) == 0);
    CHECK(port_rx(p, m, 4) == 4);
    for (unsigned i = 0; i < 4; i++) {
        CHECK(m[i]->pkt_len == 90);
        rte_pktmbuf_free(m[i]);
    }
    CHECK(nst_port_close(p) == 0);
    CHECK(nst_io_close(NULL) == 0);
}

static void bad_arguments_body(void)
{
    struct nst_io_config c = { .eal = "--nonsense=1", .no_huge = true };
    int null = open("/dev/null", O_WRONLY);

    dup2(null, STDOUT_FILENO); /* EAL shows its help */
    dup2(null, STDERR_FILENO);
    if (nst_io_open(&c, &why) != -EINVAL)
        exit(2);
    if (strstr(why, "DPDK") == NULL)
        exit(3);
}

static void bad_sizes_body(void)
{
    struct nst_io_config c = { .packets = 3, .no_huge = true };

    CHECK(nst_io_open(&c, &why) == -EINVAL);
    c.packets = UINT32_MAX;
    CHECK(nst_io_open(&c, &why) == -EINVAL);
    CHECK(nst_io_close(NULL) == 0);
    start(); /* no harm was done */
    CHECK(nst_io_close(NULL) == 0);
}

/* The thread that starts DPDK may run where it could before. */
static void affinity_body(void)
{
    cpu_set_t before, after;

    sched_getaffinity(0, sizeof before, &before);
    start();
    sched_getaffinity(0, sizeof after, &after);
    CHECK(CPU_EQUAL(&before, &after));
    CHECK(nst_io_close(NULL) == 0);
}

/* Without any privilege captures and virtual devices work, and an interface is refused with advice. */
static void unprivileged_body(void)
{
    struct nst_port *p;
    uint32_t missing;

    if (getuid() == 0)
        CHECK(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
    start();
    CHECK(nst_port_open(&p, "net_ring0", &why) == 0);
    CHECK(nst_port_close(p) == 0);
    CHECK(nst_port_open(&p, "lo", &why) == -EPERM);
    CHECK(strstr(why, "root") != NULL);
    CHECK(nst_io_close(&missing) == 0 && missing == 0);
}

#define CHILD(name)                \
    static void name(void **state) \
    {                              \
        in_child(name##_body);     \
    }
CHILD(ring)
CHILD(null)
CHILD(scaling)
CHILD(full)
CHILD(missing)
CHILD(names)
CHILD(eal_device)
CHILD(bad_arguments)
CHILD(bad_sizes)
CHILD(affinity)
CHILD(unprivileged)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ring),          cmocka_unit_test(null),      cmocka_unit_test(full),
        cmocka_unit_test(missing),       cmocka_unit_test(names),     cmocka_unit_test(eal_device),
        cmocka_unit_test(bad_arguments), cmocka_unit_test(bad_sizes), cmocka_unit_test(affinity),
        cmocka_unit_test(unprivileged),  cmocka_unit_test(scaling),
    };
    return cmocka_run_group_tests_name("io_port", tests, NULL, NULL);
}
