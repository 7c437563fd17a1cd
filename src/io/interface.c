/* SPDX-License-Identifier: Apache-2.0 */
#include "io/interface.h"
#include "io/port.h"
#include <arpa/inet.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int ethtool(int fd, struct ifreq *ifr, void *command)
{
    ifr->ifr_data = command;
    return ioctl(fd, SIOCETHTOOL, ifr);
}

static unsigned flags_of(int fd, struct ifreq *ifr, uint32_t command)
{
    struct ethtool_value v = { .cmd = command };
    return ethtool(fd, ifr, &v) == 0 ? v.data : 0;
}

int interface_query(const char *ifname, struct interface *out)
{
    struct ifreq ifr;
    struct ethtool_channels ch = { .cmd = ETHTOOL_GCHANNELS };
    struct ethtool_drvinfo drv = { .cmd = ETHTOOL_GDRVINFO };
    int rc = 0;

    memset(out, 0, sizeof *out);
    memset(&ifr, 0, sizeof ifr);
    if (strlen(ifname) >= sizeof ifr.ifr_name)
        return -ENODEV;
    strcpy(ifr.ifr_name, ifname);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (ioctl(fd, SIOCGIFINDEX, &ifr) < 0) {
        rc = -errno;
        goto out;
    }
    out->index = ifr.ifr_ifindex;
    if (ioctl(fd, SIOCGIFFLAGS, &ifr) == 0) {
        out->up = ifr.ifr_flags & IFF_UP;
        out->running = ifr.ifr_flags & IFF_RUNNING;
    }
    if (ioctl(fd, SIOCGIFMTU, &ifr) == 0)
        out->mtu = (unsigned)ifr.ifr_mtu;
    out->queues = 1;
    if (ethtool(fd, &ifr, &ch) == 0) {
        out->queues = ch.combined_count > ch.rx_count ? ch.combined_count : ch.rx_count;
        if (out->queues == 0)
            out->queues = 1;
    }
    if (ethtool(fd, &ifr, &drv) == 0)
        snprintf(out->driver, sizeof out->driver, "%s", drv.driver);
    out->gro = flags_of(fd, &ifr, ETHTOOL_GGRO) != 0;
    unsigned flags = flags_of(fd, &ifr, ETHTOOL_GFLAGS);
    out->lro = flags & ETH_FLAG_LRO;
    out->rx_vlan = flags & ETH_FLAG_RXVLAN;
out:
    close(fd);
    return rc;
}

int interface_permitted(void)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno == EACCES ? -EPERM : -errno;
    close(fd);
    return 0;
}

int interface_promiscuous(int index)
{
    struct packet_mreq req = { .mr_ifindex = index, .mr_type = PACKET_MR_PROMISC };
    /* Protocol 0: it receives nothing itself. */
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &req, sizeof req) < 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

struct advice {
    char *text;
    size_t len, used;
};

__attribute__((format(printf, 2, 3))) static void advise(struct advice *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (a->used < a->len) {
        int n = vsnprintf(a->text + a->used, a->len - a->used, fmt, ap);
        a->used += n > 0 ? (size_t)n : 0;
    }
    va_end(ap);
}

int port_interface_check(const char *ifname, char *advice, size_t len)
{
    struct advice a = { advice, len, 0 };
    struct interface i;
    int faults = 0;

    if (len != 0)
        advice[0] = '\0';
    int rc = interface_query(ifname, &i);
    if (rc < 0)
        return rc;
    if (!i.up) {
        advise(&a, "%s is down: ip link set %s up\n", ifname, ifname);
        faults++;
    } else if (!i.running) {
        advise(&a, "%s has no carrier: plug in or bring up its other end\n", ifname);
        faults++;
    }
    if (i.mtu > 1500) {
        advise(&a, "%s has MTU %u, longer frames than 1500 are not received: ip link set %s mtu 1500\n", ifname, i.mtu,
               ifname);
        faults++;
    }
    if (i.gro || i.lro) {
        /* Both merge packets in transit into ones that no link can carry. */
        advise(&a, "%s merges received packets: ethtool -K %s%s%s\n", ifname, ifname, i.gro ? " gro off" : "",
               i.lro ? " lro off" : "");
        faults++;
    }
    if (strcmp(i.driver, "veth") == 0) {
        advise(&a,
               "note: the other end of %s, in its namespace, needs: ethtool -K NAME tx off tso off gso off gro off "
               "sg off txvlan off\n",
               ifname);
    } else if (i.rx_vlan) {
        advise(&a, "%s takes VLAN tags off received packets, AF_XDP then loses them: ethtool -K %s rxvlan off\n",
               ifname, ifname);
        faults++;
    }
    return faults;
}
