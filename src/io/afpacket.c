/* SPDX-License-Identifier: Apache-2.0 */
#include "io/afpacket.h"
#include "io/eal.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    /* A frame holds any packet of an MTU of 1500, tags included, and what it holds fits a buffer of the pool. 4096
     * frames (8 MiB each way) take the burst of some TCP connections with windows of megabytes while the core is busy
     * elsewhere for some milliseconds; 512 do not. */
    FRAME = 2048,
    FRAMES = 4096,
    BLOCK = 1 << 16,
    RING = FRAME * FRAMES,
    SEND_OFFSET = TPACKET2_HDRLEN - (int)sizeof(struct sockaddr_ll),
    SEND_MAX = FRAME - SEND_OFFSET,
    /* What is on its way out counts against this; it must not end before the ring does, or the last frames of a burst
     * would stay in it. */
    SEND_BUFFER = 32 << 20,
    TAG = 4,
};

struct afpacket {
    struct nst_port port;
    int fd;
    uint8_t *ring; /* receive frames, then send frames */
    unsigned rx, tx;
    bool left; /* the kernel has not taken all frames yet */
    struct nst_port_stats n;
    struct nst_log_limit down_limit, cut_limit, sum_limit;
    struct nst_watch watch;
};

static struct afpacket *afpacket_of(const struct nst_port *p)
{
    return (struct afpacket *)((uintptr_t)p - offsetof(struct afpacket, port));
}

static struct tpacket2_hdr *rx_frame(struct afpacket *a)
{
    return (struct tpacket2_hdr *)(a->ring + (size_t)a->rx * FRAME);
}

static struct tpacket2_hdr *tx_frame(struct afpacket *a)
{
    return (struct tpacket2_hdr *)(a->ring + RING + (size_t)a->tx * FRAME);
}

/* The status is written by the kernel on any core. */
static uint32_t status_of(const struct tpacket2_hdr *f)
{
    uint32_t s = *(const volatile uint32_t *)&f->tp_status;
    atomic_thread_fence(memory_order_acquire);
    return s;
}

static void set_status(struct tpacket2_hdr *f, uint32_t s)
{
    atomic_thread_fence(memory_order_release);
    *(volatile uint32_t *)&f->tp_status = s;
}

/* Copies the frame, and the VLAN tag back to where it was on the wire: the kernel has taken it off. */
static void copy_frame(struct rte_mbuf *m, const struct tpacket2_hdr *f)
{
    const uint8_t *from = (const uint8_t *)f + f->tp_mac;
    uint32_t status = f->tp_status, len = f->tp_snaplen;
    uint8_t *to = rte_pktmbuf_mtod(m, uint8_t *);

    if ((status & TP_STATUS_VLAN_VALID) != 0 && len >= 2 * ETH_ALEN) {
        uint16_t tag[2] = { htons((status & TP_STATUS_VLAN_TPID_VALID) != 0 ? f->tp_vlan_tpid : ETH_P_8021Q),
                            htons(f->tp_vlan_tci) };
        memcpy(to, from, 2 * ETH_ALEN);
        memcpy(to + 2 * ETH_ALEN, tag, TAG);
        memcpy(to + 2 * ETH_ALEN + TAG, from + 2 * ETH_ALEN, len - 2 * ETH_ALEN);
        len += TAG;
    } else {
        memcpy(to, from, len);
    }
    m->data_len = (uint16_t)len;
    m->pkt_len = len;
}

static void kick(struct afpacket *a)
{
    /* What could not be sent the kernel frees and goes on (PACKET_LOSS); what it had no room for stays in the ring. */
    ssize_t rc = sendto(a->fd, NULL, 0, MSG_DONTWAIT, NULL, 0);
    a->left = rc < 0;
}

static unsigned afpacket_rx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    struct afpacket *a = afpacket_of(p);
    unsigned got = 0;
    uint64_t bytes = 0;
    nst_time now = 0;

    if (a->left)
        kick(a);
    while (got < n) {
        struct tpacket2_hdr *f = rx_frame(a);
        uint32_t status = status_of(f);
        if ((status & TP_STATUS_USER) == 0)
            break;
        if (f->tp_snaplen < f->tp_len) { /* it must not pass as if it were whole */
            a->n.rx_missed++;
            if (nst_log_allowed(&a->cut_limit, 1))
                nst_log(NST_LOG_WARNING,
                        "%s: a frame of %u bytes is dropped, %llu so far were lost. Does something merge packets? "
                        "ethtool -K INTERFACE gro off lro off here, tso off gso off at the sender",
                        p->name, f->tp_len, (unsigned long long)a->n.rx_missed);
        } else {
            struct rte_mbuf *b = rte_pktmbuf_alloc(port_pool);
            if (b == NULL) { /* it stays in the ring */
                a->n.rx_no_buffer++;
                break;
            }
            copy_frame(b, f);
            if ((status & TP_STATUS_CSUMNOTREADY) != 0 && nst_log_allowed(&a->sum_limit, 1))
                nst_log(NST_LOG_WARNING,
                        "%s: its sender leaves checksums to a device that is not there: ethtool -K NAME tx off at the "
                        "other end of the virtual link",
                        p->name);
            if (got == 0)
                now = nst_now();
            port_stamp(p, b, now);
            if ((status & TP_STATUS_CSUM_VALID) != 0)
                packet_of(b)->flags &= (uint16_t)~PACKET_CHECKSUM_OPEN;
            bytes += b->pkt_len;
            m[got++] = b;
        }
        set_status(f, TP_STATUS_KERNEL);
        a->rx = (a->rx + 1) % FRAMES;
    }
    a->n.rx_packets += got;
    a->n.rx_bytes += bytes;
    return got;
}

static bool fits(const struct rte_mbuf *m)
{
    return m->pkt_len <= SEND_MAX;
}

static void afpacket_tx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    struct afpacket *a = afpacket_of(p);

    for (unsigned i = 0; i < n; i++) {
        struct tpacket2_hdr *f = tx_frame(a);
        /* Time stamps of sent frames may be noted beside. */
        const uint32_t busy = TP_STATUS_SEND_REQUEST | TP_STATUS_SENDING;
        if (fits(m[i]) && (status_of(f) & busy) != 0)
            kick(a); /* the ring is full: once, then the packet is dropped */
        if (!fits(m[i]) || (status_of(f) & busy) != 0) {
            a->n.tx_dropped++;
        } else {
            uint8_t *to = (uint8_t *)f + SEND_OFFSET;
            for (const struct rte_mbuf *s = m[i]; s != NULL; s = s->next) {
                memcpy(to, rte_pktmbuf_mtod(s, const uint8_t *), s->data_len);
                to += s->data_len;
            }
            f->tp_len = f->tp_snaplen = m[i]->pkt_len;
            set_status(f, TP_STATUS_SEND_REQUEST);
            a->tx = (a->tx + 1) % FRAMES;
            a->n.tx_packets++;
            a->n.tx_bytes += m[i]->pkt_len;
        }
        rte_pktmbuf_free(m[i]);
    }
    kick(a);
}

/* An error on the socket (the interface went down) is taken off, or it would be reported for ever and the reactor never
 * sleep again. */
static void on_ready(struct nst_watch *w, uint32_t events)
{
    struct afpacket *a = (struct afpacket *)((uintptr_t)w - offsetof(struct afpacket, watch));
    int err = 0;
    socklen_t len = sizeof err;

    if ((events & EPOLLERR) == 0 || getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 || err == 0)
        return;
    if (nst_log_allowed(&a->down_limit, 4))
        nst_log(NST_LOG_WARNING, "port %s: %s", a->port.name, strerror(err));
}

static int afpacket_attach(struct nst_port *p, struct nst_reactor *r)
{
    return nst_watch_add(r, &afpacket_of(p)->watch);
}

static void afpacket_detach(struct nst_port *p, struct nst_reactor *r)
{
    nst_watch_remove(r, &afpacket_of(p)->watch);
}

static void afpacket_stats(const struct nst_port *p, struct nst_port_stats *out)
{
    struct afpacket *a = afpacket_of(p);
    struct tpacket_stats s;
    socklen_t len = sizeof s;

    /* Asking sets the kernel's numbers to zero. */
    if (getsockopt(a->fd, SOL_PACKET, PACKET_STATISTICS, &s, &len) == 0)
        a->n.rx_missed += s.tp_drops;
    *out = a->n;
}

static int afpacket_close(struct nst_port *p)
{
    struct afpacket *a = afpacket_of(p);

    if (a->left)
        kick(a);
    if (a->ring != MAP_FAILED)
        munmap(a->ring, 2 * RING);
    if (a->fd >= 0)
        close(a->fd);
    free(a);
    return 0;
}

static const struct port_ops afpacket_ops = {
    .driver = "af_packet",
    .rx = afpacket_rx,
    .tx = afpacket_tx,
    .attach = afpacket_attach,
    .detach = afpacket_detach,
    .stats = afpacket_stats,
    .close = afpacket_close,
};

static int set(struct afpacket *a, int option, const void *value, socklen_t len)
{
    return setsockopt(a->fd, SOL_PACKET, option, value, len) < 0 ? -errno : 0;
}

static int prepare(struct afpacket *a, int ifindex, const char **step)
{
    const int one = 1, version = TPACKET_V2, buffer = SEND_BUFFER;
    struct tpacket_req ring = {
        .tp_block_size = BLOCK,
        .tp_block_nr = RING / BLOCK,
        .tp_frame_size = FRAME,
        .tp_frame_nr = FRAMES,
    };
    struct packet_mreq promiscuous = { .mr_ifindex = ifindex, .mr_type = PACKET_MR_PROMISC };
    struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = ifindex };
    int rc;

    *step = "socket";
    /* No protocol yet: nothing comes before all is set. */
    a->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (a->fd < 0)
        return -errno;
    *step = "receive and send rings";
    if ((rc = set(a, PACKET_VERSION, &version, sizeof version)) < 0 ||
        (rc = set(a, PACKET_LOSS, &one, sizeof one)) < 0 || (rc = set(a, PACKET_RX_RING, &ring, sizeof ring)) < 0 ||
        (rc = set(a, PACKET_TX_RING, &ring, sizeof ring)) < 0)
        return rc;
    a->ring = mmap(NULL, 2 * RING, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, a->fd, 0);
    if (a->ring == MAP_FAILED)
        return -errno;
    /* A middlebox forwards: what cannot be sent must be seen here and not queue twice. */
    set(a, PACKET_QDISC_BYPASS, &one, sizeof one);
    /* What this host itself sends is not in transit (Linux 4.20). */
    set(a, PACKET_IGNORE_OUTGOING, &one, sizeof one);
    if (setsockopt(a->fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer) < 0)
        setsockopt(a->fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    *step = "promiscuous mode";
    if ((rc = set(a, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous)) < 0)
        return rc;
    *step = "bind";
    return bind(a->fd, (struct sockaddr *)&to, sizeof to) < 0 ? -errno : 0;
}

int afpacket_open(struct nst_port **out, const char *name, const char *ifname, int ifindex, const char **why)
{
    struct afpacket *a = calloc(1, sizeof *a);
    const char *step = "";

    if (a == NULL)
        return -ENOMEM;
    a->port.ops = &afpacket_ops;
    a->ring = MAP_FAILED;
    a->fd = -1;
    snprintf(a->port.name, sizeof a->port.name, "%s", name);
    int rc = prepare(a, ifindex, &step);
    if (rc < 0) {
        afpacket_close(&a->port);
        return io_fail(rc, why, "%s: AF_PACKET: %s: %s", ifname, step, strerror(-rc));
    }
    a->watch = (struct nst_watch){ .fd = a->fd, .events = EPOLLIN, .ready = on_ready };
    *out = &a->port;
    return 0;
}
