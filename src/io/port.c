/* SPDX-License-Identifier: Apache-2.0 */
/* What a user's name for a port means, and what all ports have in common. */
#include "io/port.h"
#include "io/afpacket.h"
#include "io/eal.h"
#include "io/ethdev.h"
#include "io/interface.h"
#include <rte_ethdev.h>
#include <rte_pci.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* Buffers that an AF_XDP queue takes: its fill ring and what is on its way out. */
    XDP_BUFFERS = 4096,
    XDP_QUEUES_MAX = 8,
};

static unsigned devices_made;

/* "net_ring0,size=64" and the like: a vdev, with its arguments behind the first comma. */
static int open_vdev(struct nst_port **out, const char *name, const char **why)
{
    const char *comma = strchr(name, ',');
    char *device = comma != NULL ? strndup(name, (size_t)(comma - name)) : strdup(name);
    if (device == NULL)
        return -ENOMEM;
    struct ethdev_config c = {
        .name = name,
        .device = device,
        .args = comma != NULL ? comma + 1 : NULL,
        .bus = "vdev",
    };
    int rc = ethdev_open(out, &c, why);
    free(device);
    return rc;
}

static int open_xdp(struct nst_port **out, const char *name, const char *ifname, const struct interface *i,
                    const char **why)
{
    char device[32], args[128];

    if (i->mtu > 1500)
        return io_fail(-EINVAL, why, "%s has MTU %u, and AF_XDP takes 1500 at most: ip link set %s mtu 1500", ifname,
                       i->mtu, ifname);
    if (i->queues > XDP_QUEUES_MAX || i->queues * XDP_BUFFERS > port_pool->size)
        return io_fail(-EINVAL, why, "%s has %u queues, more than %u packet buffers serve: ethtool -L %s combined 1",
                       ifname, i->queues, port_pool->size, ifname);
    /* Not busy polling in the kernel: an empty poll then costs a load instead of a system call. Drivers that put
     * packets straight into buffers cannot use ones that cross ordinary pages. */
    snprintf(device, sizeof device, "net_af_xdp%u", devices_made++);
    snprintf(args, sizeof args, "iface=%s,start_queue=0,queue_count=%u,busy_budget=0%s", ifname, i->queues,
             io_huge() ? "" : ",force_copy=1");
    struct ethdev_config c = {
        .name = name,
        .driver = "af_xdp",
        .device = device,
        .args = args,
        .bus = "vdev",
        .ifname = ifname,
        .queues = (uint16_t)i->queues,
    };
    return ethdev_open(out, &c, why);
}

enum way { ANY_WAY, BY_XDP, BY_PACKET };

static int open_interface(struct nst_port **out, const char *name, const char *ifname, enum way way, const char **why)
{
    struct interface i;
    const char *xdp_why = "";
    int rc = interface_query(ifname, &i);

    if (rc == -ENODEV)
        return io_fail(rc, why, "no interface \"%s\" here; `ip link` lists them", ifname);
    if (rc < 0)
        return io_fail(rc, why, "%s: %s", ifname, strerror(-rc));
    if (interface_permitted() < 0)
        return io_fail(-EPERM, why,
                       "no right to receive packets of %s: run as root (or with CAP_NET_RAW and "
                       "CAP_NET_ADMIN; AF_XDP also needs CAP_BPF)",
                       ifname);
    if (!i.up)
        return io_fail(-ENODEV, why, "interface %s is down: ip link set %s up", ifname, ifname);
    if (way != BY_PACKET) {
        rc = open_xdp(out, name, ifname, &i, &xdp_why);
        if (rc == 0 || way == BY_XDP) {
            if (rc < 0 && why != NULL)
                *why = xdp_why;
            if (rc == 0)
                (*out)->mtu = (uint16_t)i.mtu; /* 1500 at most */
            return rc;
        }
        nst_log(NST_LOG_INFO, "%s: AF_PACKET, as AF_XDP cannot be had (%s)", ifname, xdp_why);
    }
    rc = afpacket_open(out, name, ifname, i.index, why);
    if (rc == 0)
        (*out)->mtu = (uint16_t)(i.mtu < UINT16_MAX ? i.mtu : UINT16_MAX);
    return rc;
}

int nst_port_open(struct nst_port **out, const char *name, const char **why)
{
    struct rte_pci_addr pci;
    uint16_t id;

    if (!io_is_open())
        return io_fail(-EINVAL, why, "nst_io_open comes first");
    if (name == NULL || name[0] == '\0')
        return io_fail(-EINVAL, why, "a port has no name: give an interface (eth1) or a DPDK device (net_ring0)");
    if (strncmp(name, "xdp:", 4) == 0)
        return open_interface(out, name, name + 4, BY_XDP, why);
    if (strncmp(name, "packet:", 7) == 0)
        return open_interface(out, name, name + 7, BY_PACKET, why);
    if (rte_eth_dev_get_port_by_name(name, &id) == 0 || rte_pci_addr_parse(name, &pci) == 0) {
        struct ethdev_config c = { .name = name, .device = name, .bus = "pci" };
        return ethdev_open(out, &c, why);
    }
    if (strncmp(name, "net_", 4) == 0 || strncmp(name, "eth_", 4) == 0)
        return open_vdev(out, name, why);
    return open_interface(out, name, name, ANY_WAY, why);
}

int nst_port_close(struct nst_port *p)
{
    if (p == NULL)
        return 0;
    for (unsigned i = 0; i < p->n_out; i++)
        rte_pktmbuf_free(p->out[i]);
    p->n_out = 0;
    return p->ops->close != NULL ? p->ops->close(p) : 0;
}

void nst_port_stats(const struct nst_port *p, struct nst_port_stats *out)
{
    memset(out, 0, sizeof *out);
    if (p->ops->stats != NULL)
        p->ops->stats(p, out);
}

const char *nst_port_name(const struct nst_port *p)
{
    return p->name;
}

const char *nst_port_driver(const struct nst_port *p)
{
    return p->ops->driver;
}
