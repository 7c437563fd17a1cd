/* SPDX-License-Identifier: Apache-2.0 */
/* io/ethdev.h - ports on DPDK's ethdev: opened by port.c, which knows what the user's name for a port means. */
#pragma once
#include "io/port.h"

struct ethdev_config {
    const char *name;   /* as the user named it */
    const char *driver; /* for nst_port_driver; NULL: DPDK's own name for it */
    const char *device; /* the EAL device, e.g. net_ring0 or 0000:01:00.0 */
    const char *args;   /* its arguments, or NULL when EAL has it already */
    const char *bus;    /* "vdev" or "pci" */
    const char *ifname; /* the Linux interface below it, or NULL */
    uint16_t queues;    /* receive queues; 0: one */
};

/* Makes the device if need be, and starts it with one queue pair (or `queues`) on port_pool. */
int ethdev_open(struct nst_port **out, const struct ethdev_config *config, const char **why);
