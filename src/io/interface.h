/* SPDX-License-Identifier: Apache-2.0 */
/* io/interface.h - what the ports need to know of Linux network interfaces. No DPDK here. */
#pragma once
#include <netstar/base.h>

struct interface {
    int index;
    unsigned mtu;
    unsigned queues; /* combined or receive channels; 1 where the driver does not say */
    bool up, running, gro, lro, rx_vlan;
    char driver[32];
};

/* Looks it up in the network namespace of the calling thread: 0, -ENODEV, -errno. */
int interface_query(const char *ifname, struct interface *out);

/* May this process open packet sockets? 0 or -EPERM. */
int interface_permitted(void);

/* Receives what is addressed to others too, for as long as the descriptor that this returns is open, and so not beyond
 * the process's death. -errno. */
int interface_promiscuous(int index);
