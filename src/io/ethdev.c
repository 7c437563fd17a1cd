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
    uint16_t queue;        /* the first receive queue, and the send queue */
    struct ethdev *one_of; /* this is one queue of that device; NULL: the device */
    struct ethdev *views;  /* one for each core, when it has a queue for each */
    struct port_rss rss;
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
        got = rte_eth_rx_burst(d->id, (uint16_t)(d->queue + d->next_queue), m, (uint16_t)n);
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
        sent += rte_eth_tx_burst(d->id, d->queue, m + sent, (uint16_t)(keep - sent));
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

    if (d->one_of != NULL) { /* what the device says is of all queues */
        *out = d->n;
        return;
    }
    for (unsigned i = 0; i < d->n_watches; i++) {
        struct tpacket_stats t;
        socklen_t len = sizeof t;
        /* DPDK's AF_PACKET driver does not tell what its ring had no room for. Asking sets the numbers to zero. */
        if (getsockopt(d->watches[i].watch.fd, SOL_PACKET, PACKET_STATISTICS, &t, &len) == 0)
            d->n.rx_missed += t.tp_drops;
    }
    *out = d->n;
    for (unsigned i = 0; d->views != NULL && i < d->queues; i++) {
        out->rx_packets += d->views[i].n.rx_packets;
        out->rx_bytes += d->views[i].n.rx_bytes;
        out->tx_packets += d->views[i].n.tx_packets;
        out->tx_bytes += d->views[i].n.tx_bytes;
        out->tx_dropped += d->views[i].n.tx_dropped;
    }
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
    free(d->views);
    for (struct ethdev **at = &open_devices; *at != NULL; at = &(*at)->next) {
        if (*at == d) {
            *at = d->next;
            break;
        }
    }
    free(d);
    return 0;
}

static struct nst_port *ethdev_queue(struct nst_port *p, unsigned core)
{
    return &ethdev_of(p)->views[core].port;
}

static const struct port_ops ethdev_ops = {
    .queue = ethdev_queue,
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

/* ---- a queue for each core ---- */

/* Whether the device can bring both directions of a flow to one of n queues: asked before it is set up. */
static bool may_scale(const struct rte_eth_dev_info *info, unsigned n)
{
    const uint64_t least = RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_IPV4;

    return n > 1 && n <= info->max_rx_queues && n <= info->max_tx_queues && info->reta_size >= n &&
           info->reta_size <= RSS_TABLE_MAX && (info->reta_size & (info->reta_size - 1)) == 0 &&
           (info->flow_type_rss_offloads & least) != 0 && info->hash_key_size <= RSS_KEY_MAX;
}

/* Flows of TCP and UDP by addresses and ports, all else that is IP by addresses; fragments have no ports. */
static const uint64_t scale_types = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;

static int spread(struct ethdev *d, const struct rte_eth_dev_info *info)
{
    struct rte_eth_rss_reta_entry64 reta[RSS_TABLE_MAX / RTE_ETH_RETA_GROUP_SIZE];
    uint16_t size = info->reta_size;

    memset(reta, 0, sizeof reta);
    for (unsigned i = 0; i < size; i++) {
        reta[i / RTE_ETH_RETA_GROUP_SIZE].mask |= (uint64_t)1 << i % RTE_ETH_RETA_GROUP_SIZE;
        reta[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE] = (uint16_t)(i % d->queues);
    }
    int rc = rte_eth_dev_rss_reta_update(d->id, reta, size);
    if (rc == 0)
        rc = rte_eth_dev_rss_reta_query(d->id, reta, size);
    for (unsigned i = 0; i < size && rc == 0; i++) {
        uint16_t q = reta[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE];
        d->rss.queue[i] = (uint8_t)q;
        rc = q < d->queues ? 0 : -ERANGE;
    }
    return rc;
}

/* What the started device says it does is read back and compared with what we compute. When it is not the same, the
 * choice is made by software, wherever packets arrive. */
static void verify_scaling(struct ethdev *d, const struct rte_eth_dev_info *info)
{
    uint8_t key[RSS_KEY_MAX] = { 0 };
    struct rte_eth_rss_conf c = { .rss_key = key, .rss_key_len = info->hash_key_size };
    size_t len = info->hash_key_size != 0 ? info->hash_key_size : 40;

    if (c.rss_key_len == 0)
        c.rss_key_len = 40;
    d->rss.queues = d->queues;
    d->rss.entries = info->reta_size;
    /* Some drivers take the key only now; what counts is what they say afterwards. */
    rss_key(key, len);
    c.rss_hf = scale_types & info->flow_type_rss_offloads;
    rte_eth_dev_rss_hash_update(d->id, &c);
    memset(key, 0, sizeof key);
    int rc = spread(d, info);
    if (rc == 0)
        rc = rte_eth_dev_rss_hash_conf_get(d->id, &c);
    if (rc == 0 && !rss_verify(&d->rss, key, len))
        rc = -EPROTO;
    if (rc != 0) {
        nst_log(NST_LOG_INFO, "%s: its receive-side scaling is not used: %s", d->port.name,
                rc == -EPROTO ? "the two directions of a flow are not hashed alike" : rte_strerror(-rc));
        return;
    }
    d->rss.with_ports[0][0] = (c.rss_hf & RTE_ETH_RSS_NONFRAG_IPV4_TCP) != 0;
    d->rss.with_ports[0][1] = (c.rss_hf & RTE_ETH_RSS_NONFRAG_IPV4_UDP) != 0;
    d->rss.with_ports[1][0] = (c.rss_hf & RTE_ETH_RSS_NONFRAG_IPV6_TCP) != 0;
    d->rss.with_ports[1][1] = (c.rss_hf & RTE_ETH_RSS_NONFRAG_IPV6_UDP) != 0;
    d->port.rss = &d->rss;
}

static int make_views(struct ethdev *d)
{
    d->views = calloc(d->queues, sizeof *d->views);
    if (d->views == NULL)
        return -ENOMEM;
    for (uint16_t i = 0; i < d->queues; i++) {
        struct ethdev *v = &d->views[i];
        v->port = d->port;
        v->ops = d->ops;
        v->ops.driver = d->driver;
        v->ops.queue = NULL;
        v->ops.close = NULL;
        v->port.ops = &v->ops;
        v->id = d->id;
        v->queue = i;
        v->queues = 1;
        v->one_of = d;
        v->chains = d->chains;
    }
    return 0;
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
    uint8_t key[RSS_KEY_MAX];
    bool scale = c->queues == 0 && may_scale(&info, io_cores());
    if (scale) {
        d->queues = (uint16_t)io_cores();
        rss_key(key, sizeof key);
        conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf = (struct rte_eth_rss_conf){
            .rss_key = key,
            .rss_key_len = info.hash_key_size != 0 ? info.hash_key_size : 40,
            .rss_hf = scale_types & info.flow_type_rss_offloads,
        };
    }
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
    if (scale) {
        verify_scaling(d, &info);
        if (d->port.rss != NULL)
            return make_views(d);
    }
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
