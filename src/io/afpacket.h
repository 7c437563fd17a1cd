/* SPDX-License-Identifier: Apache-2.0 */
/* io/afpacket.h - ports on a Linux interface by AF_PACKET rings, for where AF_XDP cannot be had.
 *
 * DPDK's own AF_PACKET driver is not used: it joins a fanout group that makes the kernel put IPv4 fragments together,
 * so that fragments in transit would not leave as they came; and its sending may wait in poll().
 */
#pragma once
#include "io/port.h"

/* name is the user's for the port. -EPERM, -ENOMEM, -errno, and *why. */
int afpacket_open(struct nst_port **out, const char *name, const char *ifname, int ifindex, const char **why);
