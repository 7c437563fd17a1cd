/* SPDX-License-Identifier: Apache-2.0 */
/* Ports on DPDK ethdevs. Drivers on Linux sockets (AF_PACKET, AF_XDP) keep their descriptors to themselves, but the
 * reactor must sleep on them: they are found by comparing the process's descriptors before and after the start. */
#include "io/ethdev.h"
#include "io/eal.h"
#include "io/interface.h"
#include <dirent.h>
#include <linux/if_packet.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef AF_XDP
#define AF_XDP 44
#endif

enum {
    RX_DESC = 2048,
    TX_DESC = 2048,
    QUEUES_MAX = 8,
    FDS_MAX = 256,
    /* A full ring is offered again so many times; what is left then is dropped and counted: waiting longer would only
     * make every other flow wait too. */
    TX_TRIES = 8,
    SOCKET_BUFFER = 32 << 20,
};

struct ethdev {
    struct nst_port port;
    struct port_ops ops; /* with this driver's name */
    struct ethdev *next; /* in `open_devices` */
    uint16_t id;
    uint16_t queues, next_queue;
    bool own;        /* made by ethdev_open: removed when closed */
    bool chains;     /* can send packets of several segments */
    int promiscuous; /* see interface_promiscuous */
    unsigned kept;   /* buffers that the driver took when it started */
    struct nst_port_stats n;
    struct nst_log_limit down_limit;
    unsigned n_watches;
    struct {
        struct nst_watch watch;
        struct ethdev *dev;
    } watches[QUEUES_MAX];
    char driver[32];
};

static struct ethdev *open_devices;

static struct ethdev *ethdev_of(const struct nst_port *p)
{
    return (struct ethdev *)((uintptr_t)p - offsetof(struct ethdev, port));
}

static unsigned ethdev_rx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    struct ethdev *d = ethdev_of(p);
    unsigned got = 0;

    for (unsigned i = 0; i < d->queues && got == 0; i++) {
        got = rte_eth_rx_burst(d->id, d->next_queue, m, (uint16_t)n);
        if (++d->next_queue == d->queues)
            d->next_queue = 0;
    }
    if (got == 0)
        return 0;
    nst_time now = nst_now();
    uint64_t bytes = 0;
    for (unsigned i = 0; i < got; i++) {
        port_stamp(p, m[i], now);
        if (m[i]->ol_flags & (RTE_MBUF_F_RX_IP_CKSUM_BAD | RTE_MBUF_F_RX_L4_CKSUM_BAD))
            packet_of(m[i])->flags |= PACKET_CHECKSUM_BAD;
        else if ((m[i]->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_UNKNOWN)
            packet_of(m[i])->flags |=
                PACKET_CHECKSUM_OPEN; /* it could not: a fragment, a header that it does not know */
        bytes += m[i]->pkt_len;
    }
    d->n.rx_packets += got;
    d->n.rx_bytes += bytes;
    return got;
}

static void ethdev_tx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    struct ethdev *d = ethdev_of(p);
    uint64_t bytes = 0;
    unsigned sent = 0, keep = 0;

    for (unsigned i = 0; i < n; i++) {
        if (m[i]->nb_segs > 1 && !d->chains && rte_pktmbuf_linearize(m[i]) != 0) {
            rte_pktmbuf_free(m[i]);
            d->n.tx_dropped++;
            continue;
        }
        bytes += m[i]->pkt_len;
        m[keep++] = m[i];
    }
    for (unsigned tries = 0; sent < keep && tries < TX_TRIES; tries++)
        sent += rte_eth_tx_burst(d->id, 0, m + sent, (uint16_t)(keep - sent));
    d->n.tx_packets += sent;
    for (unsigned i = sent; i < keep; i++) {
        bytes -= m[i]->pkt_len;
        rte_pktmbuf_free(m[i]);
        d->n.tx_dropped++;
    }
    d->n.tx_bytes += bytes;
}

/* The descriptor only has to end the sleep; an error on it (the interface went down) is taken off, or it would be
 * reported for ever and the core never sleep again. */
static void on_ready(struct nst_watch *w, uint32_t events)
{
    struct ethdev *d = *(struct ethdev **)(w + 1);
    int err = 0;
    socklen_t len = sizeof err;

    if ((events & EPOLLERR) == 0)
        return;
    if (getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        err = errno;
    if (nst_log_allowed(&d->down_limit, 4))
        nst_log(NST_LOG_WARNING, "port %s: %s", d->port.name, err != 0 ? strerror(err) : "error on its socket");
}

static int ethdev_attach(struct nst_port *p, struct nst_reactor *r)
{
    struct ethdev *d = ethdev_of(p);

    if (d->n_watches == 0)
        return -ENOTSUP;
    for (unsigned i = 0; i < d->n_watches; i++) {
        int rc = nst_watch_add(r, &d->watches[i].watch);
        if (rc < 0) {
            while (i-- > 0)
                nst_watch_remove(r, &d->watches[i].watch);
            return rc;
        }
    }
    return 0;
}

static void ethdev_detach(struct nst_port *p, struct nst_reactor *r)
{
    struct ethdev *d = ethdev_of(p);
    for (unsigned i = 0; i < d->n_watches; i++)
        nst_watch_remove(r, &d->watches[i].watch);
}

static void ethdev_stats(const struct nst_port *p, struct nst_port_stats *out)
{
    struct ethdev *d = ethdev_of(p);
    struct rte_eth_stats s;

    for (unsigned i = 0; i < d->n_watches; i++) {
        struct tpacket_stats t;
        socklen_t len = sizeof t;
        /* DPDK's AF_PACKET driver does not tell what its ring had no room for. Asking sets the numbers to zero. */
        if (getsockopt(d->watches[i].watch.fd, SOL_PACKET, PACKET_STATISTICS, &t, &len) == 0)
            d->n.rx_missed += t.tp_drops;
    }
    *out = d->n;
    if (rte_eth_stats_get(d->id, &s) == 0) {
        out->rx_missed += s.imissed + s.ierrors;
        out->rx_no_buffer = s.rx_nombuf;
        /* What the driver took and then could not send. */
        out->tx_dropped += s.oerrors;
        out->tx_packets -= s.oerrors < out->tx_packets ? s.oerrors : out->tx_packets;
    }
}

/* AF_XDP sends from the buffers themselves and gives them back some time later, when somebody asks. */
static void wait_for_sent(void)
{
    for (int i = 0; i < 100 && rte_mempool_in_use_count(port_pool) > io_buffers_kept(0); i++) {
        for (struct ethdev *d = open_devices; d != NULL; d = d->next)
            if (d->kept != 0)
                rte_eth_tx_burst(d->id, 0, NULL, 0);
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
}

static int ethdev_close(struct nst_port *p)
{
    struct ethdev *d = ethdev_of(p);
    struct rte_eth_dev_info info;

    if (d->kept != 0)
        wait_for_sent();
    unsigned before = rte_mempool_in_use_count(port_pool);
    struct rte_device *dev = rte_eth_dev_info_get(d->id, &info) == 0 ? info.device : NULL;
    rte_eth_dev_stop(d->id);
    rte_eth_dev_close(d->id);
    if (d->own && dev != NULL)
        rte_dev_remove(dev);
    /* AF_XDP forgets the buffers in its rings; other drivers give them back. */
    unsigned given_back = before - rte_mempool_in_use_count(port_pool);
    io_buffers_kept(-(int)(given_back < d->kept ? given_back : d->kept));
    if (d->promiscuous >= 0)
        close(d->promiscuous);
    for (struct ethdev **at = &open_devices; *at != NULL; at = &(*at)->next) {
        if (*at == d) {
            *at = d->next;
            break;
        }
    }
    free(d);
    return 0;
}

static const struct port_ops ethdev_ops = {
    .rx = ethdev_rx,
    .tx = ethdev_tx,
    .attach = ethdev_attach,
    .detach = ethdev_detach,
    .stats = ethdev_stats,
    .close = ethdev_close,
};

/* Every socket that carries packets, up to max; returns how many. */
static unsigned packet_sockets(int fds[], unsigned max)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL)
        return 0;
    for (struct dirent *e = readdir(dir); e != NULL && n < max; e = readdir(dir)) {
        char *end;
        long fd = strtol(e->d_name, &end, 10);
        int domain;
        socklen_t len = sizeof domain;
        if (*end != '\0' || getsockopt((int)fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0)
            continue;
        if (domain == AF_PACKET || domain == AF_XDP)
            fds[n++] = (int)fd;
    }
    closedir(dir);
    return n;
}

static bool among(const int fds[], unsigned n, int fd)
{
    for (unsigned i = 0; i < n; i++)
        if (fds[i] == fd)
            return true;
    return false;
}

static void find_descriptors(struct ethdev *d, const int before[], unsigned n_before)
{
    int after[FDS_MAX];
    unsigned n = packet_sockets(after, FDS_MAX);

    for (unsigned i = 0; i < n && d->n_watches < QUEUES_MAX; i++) {
        if (among(before, n_before, after[i]))
            continue;
        unsigned w = d->n_watches++;
        d->watches[w].dev = d;
        d->watches[w].watch = (struct nst_watch){ .fd = after[i], .events = EPOLLIN, .ready = on_ready };
        /* Room for a whole transmit ring: else the last frames of a burst stay in the ring until the next one. */
        if (setsockopt(after[i], SOL_SOCKET, SO_SNDBUFFORCE, &(int){ SOCKET_BUFFER }, sizeof(int)) < 0)
            setsockopt(after[i], SOL_SOCKET, SO_SNDBUF, &(int){ SOCKET_BUFFER }, sizeof(int));
    }
}

static const char *said(int rc)
{
    const char *s = io_log_last();
    return s[0] != '\0' ? s : rte_strerror(-rc);
}

static int start(struct ethdev *d, const struct ethdev_config *c, const char **why)
{
    struct rte_eth_dev_info info;
    struct rte_eth_conf conf;
    uint16_t rx_desc = RX_DESC, tx_desc = TX_DESC;
    int rc = rte_eth_dev_info_get(d->id, &info);

    if (rc < 0)
        return io_fail(rc, why, "%s: %s", c->name, said(rc));
    if (c->driver == NULL)
        snprintf(d->driver, sizeof d->driver, "%s", info.driver_name);
    d->chains = info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    memset(&conf, 0, sizeof conf);
    const uint64_t sums = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
    if ((info.rx_offload_capa & sums) == sums) {
        conf.rxmode.offloads |= sums;
        d->port.checksums_trusted = true;
    }
    if (d->chains)
        conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    d->queues = c->queues != 0 ? c->queues : 1;
    rc = rte_eth_dev_configure(d->id, d->queues, d->queues, &conf);
    if (rc == 0)
        rc = rte_eth_dev_adjust_nb_rx_tx_desc(d->id, &rx_desc, &tx_desc);
    for (uint16_t q = 0; rc == 0 && q < d->queues; q++) {
        rc = rte_eth_rx_queue_setup(d->id, q, rx_desc, SOCKET_ID_ANY, NULL, port_pool);
        if (rc == 0)
            rc = rte_eth_tx_queue_setup(d->id, q, tx_desc, SOCKET_ID_ANY, NULL);
    }
    if (rc == 0)
        rc = rte_eth_dev_start(d->id);
    if (rc < 0)
        return io_fail(rc, why, "%s: the driver %s refused: %s", c->name, info.driver_name, said(rc));
    return 0;
}

int ethdev_open(struct nst_port **out, const struct ethdev_config *c, const char **why)
{
    int before[FDS_MAX];
    unsigned n_before = packet_sockets(before, FDS_MAX);
    struct ethdev *d = calloc(1, sizeof *d);
    int rc;

    if (d == NULL)
        return -ENOMEM;
    d->ops = ethdev_ops;
    d->ops.driver = d->driver;
    d->port.ops = &d->ops;
    d->promiscuous = -1;
    snprintf(d->port.name, sizeof d->port.name, "%s", c->name);
    if (c->driver != NULL)
        snprintf(d->driver, sizeof d->driver, "%s", c->driver);
    io_log_clear();
    if (rte_eth_dev_get_port_by_name(c->device, &d->id) != 0) {
        rc = rte_eal_hotplug_add(c->bus, c->device, c->args != NULL ? c->args : "");
        if (rc < 0) {
            io_fail(rc, why, "%s: %s", c->name, said(rc));
            goto fail;
        }
        d->own = true;
        if (rte_eth_dev_get_port_by_name(c->device, &d->id) != 0) {
            rc = io_fail(-ENODEV, why, "%s: no driver of DPDK makes a network device of it", c->name);
            rte_eal_hotplug_remove(c->bus, c->device);
            goto fail;
        }
    }
    unsigned used = rte_mempool_in_use_count(port_pool);
    rc = start(d, c, why);
    unsigned now = rte_mempool_in_use_count(port_pool);
    d->kept = now > used ? now - used : 0;
    io_buffers_kept((int)d->kept);
    d->next = open_devices;
    open_devices = d;
    if (rc < 0) {
        ethdev_close(&d->port);
        return rc;
    }
    find_descriptors(d, before, n_before);
    struct interface i;
    if (c->ifname != NULL) {
        rc = interface_query(c->ifname, &i);
        if (rc == 0)
            rc = d->promiscuous = interface_promiscuous(i.index);
        if (rc < 0) {
            io_fail(rc, why, "%s: %s", c->name, strerror(-rc));
            ethdev_close(&d->port);
            return rc;
        }
    } else {
        rte_eth_promiscuous_enable(d->id);
    }
    *out = &d->port;
    return 0;
fail:
    free(d);
    return rc;
}
