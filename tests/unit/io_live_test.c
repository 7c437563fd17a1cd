/* SPDX-License-Identifier: Apache-2.0 */
/* Ports on a real Linux interface: a veth pair in a network namespace of its own, under a real reactor. */
#include "io/port.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netstar/task.h>
#include <rte_ip.h>
#include <rte_mempool.h>
#include <sched.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
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

enum { SKIP = 77, BURST = 200, ETHERTYPE = 0x88b5 };
static const char *why = "";

static void shell(const char *command)
{
    if (system(command) != 0) {
        fprintf(stderr, "failed: %s\n", command);
        exit(1);
    }
}

static void make_world(void)
{
    if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0)
        exit(SKIP);
    /* Nothing but the test sends here. */
    shell("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
    if (system("ip link add mid type veth peer name far 2>/dev/null") != 0)
        exit(SKIP);
    shell("ip link set mid up && ip link set far up");
}

static void in_child(void (*body)(void))
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        nst_log_level(NST_LOG_ERROR);
        make_world();
        body();
        exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == SKIP)
        skip();
    assert_int_equal(status, 0);
}

/* ---- what runs under the reactor ---- */
static struct {
    const char *name, *driver;
    struct nst_reactor *reactor;
    struct nst_port *port;
    struct nst_poller poller;
    int far;
    unsigned received, wrong;
} w;

static int far_socket(void)
{
    struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(ETHERTYPE) };
    a.sll_ifindex = (int)if_nametoindex("far");
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETHERTYPE));
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0);
    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &(int){ 1 }, sizeof(int));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &(int){ 16 << 20 }, sizeof(int));
    return fd;
}

/* Addressed to nobody here: only a promiscuous port sees it. */
static size_t frame(uint8_t *f, unsigned i)
{
    size_t n = 60 + i * 7 % 1455;
    memset(f, (int)i, n);
    memcpy(f, "\x02\x00\x00\x00\x77\x01\x02\x00\x00\x00\x77\x02\x88\xb5", 14);
    return n;
}

static int poll_port(struct nst_poller *self)
{
    struct rte_mbuf *m[32];
    uint8_t expected[1514];
    unsigned n = port_rx(w.port, m, 32);

    for (unsigned i = 0; i < n; i++) {
        const struct nst_packet *k = packet_of(m[i]);
        size_t len = frame(expected, w.received % BURST);
        if (nst_packet_len(k) != len || memcmp(nst_packet_bytes(k, 0, len), expected, len) != 0)
            w.wrong++;
        w.received++;
        port_tx(w.port, m[i]);
    }
    port_flush(w.port);
    return (int)n;
}

static void send_burst(void)
{
    uint8_t f[1514];
    for (unsigned i = 0; i < BURST; i++)
        CHECK(send(w.far, f, frame(f, i), 0) > 0);
}

static void wait_for(unsigned received)
{
    for (int i = 0; i < 1000 && w.received < received; i++)
        CHECK(nst_sleep(nst_now() + NST_MS(5)) == 0);
    CHECK(w.received == received);
}

static void assert_sent_back(void)
{
    uint8_t f[2048], expected[1514];
    for (unsigned i = 0; i < BURST; i++) {
        ssize_t n = -1;
        for (int tries = 0; tries < 1000 && n < 0; tries++) {
            n = recv(w.far, f, sizeof f, 0);
            if (n < 0)
                CHECK(nst_sleep(nst_now() + NST_MS(1)) == 0);
        }
        size_t len = frame(expected, i);
        CHECK(n == (ssize_t)len && memcmp(f, expected, len) == 0);
    }
    CHECK(recv(w.far, f, sizeof f, 0) < 0);
}

/* Turns of the loop while nothing happens: a handful for the sleep's own timer and for falling asleep, not thousands.
 */
static uint64_t idle_turns(void)
{
    struct nst_reactor_stats a, b;
    CHECK(nst_sleep(nst_now() + NST_MS(100)) == 0);
    nst_reactor_stats(w.reactor, &a);
    CHECK(nst_sleep(nst_now() + NST_MS(300)) == 0);
    nst_reactor_stats(w.reactor, &b);
    CHECK(b.sleeps > a.sleeps);
    return b.turns - a.turns;
}

static void main_task(void *arg)
{
    struct nst_port_stats s;
    enum { IDLE_TURNS = 20000 }; /* a loop that spins makes some hundred thousand */

    w.poller.poll = poll_port;
    nst_poller_add(w.reactor, &w.poller);
    CHECK(w.port->ops->attach(w.port, w.reactor) == 0);
    CHECK(idle_turns() < IDLE_TURNS);
    for (unsigned round = 1; round <= 3; round++) {
        send_burst();
        wait_for(round * BURST);
        assert_sent_back();
        CHECK(idle_turns() < IDLE_TURNS);
    }
    CHECK(w.wrong == 0);
    nst_port_stats(w.port, &s);
    CHECK(s.rx_packets == 3 * BURST && s.tx_packets == 3 * BURST);
    CHECK(s.rx_missed == 0 && s.rx_no_buffer == 0 && s.tx_dropped == 0 && s.rx_bytes == s.tx_bytes);

    /* Down and up again: neither a spin nor a port that is deaf for ever. */
    shell("ip link set mid down");
    CHECK(idle_turns() < IDLE_TURNS);
    shell("ip link set mid up");
    CHECK(nst_sleep(nst_now() + NST_MS(200)) == 0);
    send_burst();
    wait_for(4 * BURST);
    assert_sent_back();

    w.port->ops->detach(w.port, w.reactor);
    nst_poller_remove(w.reactor, &w.poller);
    nst_reactor_stop(w.reactor);
}

static void live(bool huge)
{
    struct nst_io_config c = { .no_huge = !huge };
    uint32_t missing = 0;

    CHECK(nst_io_open(&c, &why) == 0);
    CHECK(nst_port_open(&w.port, w.name, &why) == 0);
    CHECK(strcmp(nst_port_driver(w.port), w.driver) == 0);
    w.far = far_socket();
    CHECK(nst_reactor_open(&w.reactor, NULL) == 0);
    CHECK(nst_reactor_run(w.reactor, main_task, NULL) == 0);
    nst_reactor_close(w.reactor);
    CHECK(nst_port_close(w.port) == 0);
    int rc = nst_io_close(&missing);
    if (missing != 0)
        fprintf(stderr, "%u packet buffers are missing\n", missing);
    CHECK(rc == 0);
}

static void packet_body(void)
{
    w.name = "packet:mid";
    w.driver = "af_packet";
    live(true);
}

static void xdp_body(void)
{
    w.name = "xdp:mid";
    w.driver = "af_xdp";
    live(true);
}

static void ordinary_pages_body(void)
{
    w.name = "xdp:mid";
    w.driver = "af_xdp";
    live(false);
}

/* A name alone: AF_XDP, or AF_PACKET where that cannot be had. */
static void fallback_body(void)
{
    struct nst_port *p, *q;

    CHECK(nst_io_open(NULL, &why) == 0);
    shell("ip link set far mtu 9000");
    CHECK(nst_port_open(&q, "xdp:far", &why) == -EINVAL);
    CHECK(strstr(why, "MTU 9000") != NULL && strstr(why, "ip link set far mtu 1500") != NULL);
    CHECK(nst_port_open(&q, "far", &why) == 0);
    CHECK(strcmp(nst_port_driver(q), "af_packet") == 0);
    shell("ip link set far mtu 1500");
    CHECK(nst_port_open(&p, "mid", &why) == 0);
    CHECK(strcmp(nst_port_driver(p), "af_xdp") == 0);
    CHECK(nst_port_close(p) == 0);
    CHECK(nst_port_close(q) == 0);
    shell("ip link set mid down");
    CHECK(nst_port_open(&p, "mid", &why) == -ENODEV);
    CHECK(strstr(why, "ip link set mid up") != NULL);
    CHECK(nst_io_close(NULL) == 0);
}

/* The XDP program of a process that was killed stays on the interface, and is no obstacle for the next one. */
static void after_a_kill_body(void)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct nst_port *p;
        CHECK(nst_io_open(NULL, &why) == 0);
        CHECK(nst_port_open(&p, "xdp:mid", &why) == 0);
        kill(getpid(), SIGKILL);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    xdp_body();
}

/* A frame longer than the ring's is cut by the kernel: it must not pass as if it were whole. */
static void cut_frames_body(void)
{
    struct nst_port_stats s;
    struct rte_mbuf *m[32];
    static uint8_t f[9000];
    unsigned n = 0, whole = 0;

    shell("ip link set mid mtu 9000 && ip link set far mtu 9000");
    CHECK(nst_io_open(NULL, &why) == 0);
    CHECK(nst_port_open(&w.port, "packet:mid", &why) == 0);
    w.far = far_socket();
    frame(f, 1);
    CHECK(send(w.far, f, 5000, 0) == 5000);
    CHECK(send(w.far, f, 1900, 0) == 1900);
    for (int i = 0; i < 1000 && whole == 0; i++) {
        usleep(1000);
        n = port_rx(w.port, m, 32);
        for (unsigned k = 0; k < n; k++) {
            CHECK(m[k]->pkt_len == 1900);
            whole++;
            rte_pktmbuf_free(m[k]);
        }
    }
    CHECK(whole == 1);
    nst_port_stats(w.port, &s);
    CHECK(s.rx_missed == 1);
    CHECK(nst_port_close(w.port) == 0);
    CHECK(nst_io_close(NULL) == 0);
}

/* What this host itself sends by the interface is not received. */
static void own_traffic_body(void)
{
    uint8_t f[100];
    struct rte_mbuf *m[32];
    struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(ETHERTYPE) };

    CHECK(nst_io_open(NULL, &why) == 0);
    CHECK(nst_port_open(&w.port, "packet:mid", &why) == 0);
    a.sll_ifindex = (int)if_nametoindex("mid");
    int fd = socket(AF_PACKET, SOCK_RAW, 0);
    memset(f, 0xff, sizeof f);
    CHECK(sendto(fd, f, sizeof f, 0, (struct sockaddr *)&a, sizeof a) == sizeof f);
    usleep(20000);
    CHECK(port_rx(w.port, m, 32) == 0);
    CHECK(nst_port_close(w.port) == 0);
    CHECK(nst_io_close(NULL) == 0);
}

/* Fragments in transit stay fragments, and VLAN tags are where they were. */
static void unchanged_body(void)
{
    struct rte_mbuf *m[32];
    uint8_t sent[4][200];
    unsigned got = 0;

    CHECK(nst_io_open(NULL, &why) == 0);
    CHECK(nst_port_open(&w.port, "packet:mid", &why) == 0);
    w.far = far_socket();
    for (unsigned i = 0; i < 4; i++) {
        static const uint8_t ip[] = { 0x45, 0, 0, 0, 0, 7, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2 };
        unsigned at = i < 2 ? 14 : 18;
        memset(sent[i], (int)i, sizeof sent[i]);
        memcpy(sent[i], "\x02\x00\x00\x00\x77\x01\x02\x00\x00\x00\x77\x02\x08\x00", 14);
        if (i >= 2)
            memcpy(sent[i] + 12, "\x81\x00\x20\x64\x08\x00", 6);
        memcpy(sent[i] + at, ip, sizeof ip);
        uint16_t len = (uint16_t)(20 + 160), sum = 0;
        sent[i][at + 2] = (uint8_t)(len >> 8);
        sent[i][at + 3] = (uint8_t)len;
        sent[i][at + 6] = i % 2 == 0 ? 0x20 : 0; /* more fragments; then the last one, 160 bytes on */
        sent[i][at + 7] = i % 2 == 0 ? 0 : 20;
        sum = (uint16_t)~rte_raw_cksum(sent[i] + at, 20);
        memcpy(sent[i] + at + 10, &sum, 2);
        CHECK(send(w.far, sent[i], sizeof sent[i], 0) == sizeof sent[i]);
    }
    for (int tries = 0; tries < 1000 && got < 4; tries++) {
        usleep(1000);
        got += port_rx(w.port, m + got, 32 - got);
    }
    CHECK(got == 4);
    for (unsigned i = 0; i < 4; i++) {
        CHECK(m[i]->pkt_len == sizeof sent[i]);
        CHECK(memcmp(rte_pktmbuf_mtod(m[i], uint8_t *), sent[i], sizeof sent[i]) == 0);
        rte_pktmbuf_free(m[i]);
    }
    CHECK(nst_port_close(w.port) == 0);
    CHECK(nst_io_close(NULL) == 0);
}

static void advice_body(void)
{
    char text[1024];

    CHECK(port_interface_check("nosuch", text, sizeof text) == -ENODEV);
    CHECK(port_interface_check("mid", text, sizeof text) == 0);
    CHECK(strncmp(text, "note: ", 6) == 0);
    shell("ethtool -K mid gro on && ip link set mid mtu 2000");
    CHECK(port_interface_check("mid", text, sizeof text) == 2);
    CHECK(strstr(text, "ethtool -K mid gro off\n") != NULL);
    CHECK(strstr(text, "ip link set mid mtu 1500\n") != NULL);
    CHECK(port_interface_check("mid", text, 10) == 2); /* no room */
    CHECK(strlen(text) == 9);
    shell("ethtool -K mid gro off && ip link set mid mtu 1500 && ip link set mid down");
    CHECK(port_interface_check("mid", text, sizeof text) == 1);
    CHECK(strstr(text, "ip link set mid up\n") != NULL);
}

#define CHILD(name)                \
    static void name(void **state) \
    {                              \
        in_child(name##_body);     \
    }
CHILD(packet)
CHILD(xdp)
CHILD(ordinary_pages)
CHILD(fallback)
CHILD(after_a_kill)
CHILD(cut_frames)
CHILD(own_traffic)
CHILD(unchanged)
CHILD(advice)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packet),      cmocka_unit_test(xdp),          cmocka_unit_test(ordinary_pages),
        cmocka_unit_test(fallback),    cmocka_unit_test(after_a_kill), cmocka_unit_test(cut_frames),
        cmocka_unit_test(own_traffic), cmocka_unit_test(unchanged),    cmocka_unit_test(advice),
    };
    return cmocka_run_group_tests_name("io_live", tests, NULL, NULL);
}
