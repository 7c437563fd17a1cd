/* SPDX-License-Identifier: Apache-2.0 */
/* flow/checksum.h - the Internet checksum (RFC 1071), fast enough to be taken of every packet, and whether a packet's
 * are right.
 */
#pragma once
#include "io/packet.h"

/* The sum of the 16-bit words of len bytes as they lie in memory, folded to 16 bits and not complemented; an odd last
 * byte counts as the first of its word. */
uint16_t checksum_sum(const void *bytes, size_t len);

/* The checksum of an IPv4 header and that of TCP or UDP of a packet that was parsed as a flow's (or of the fragment's
 * IPv4 header, when h->l4 is 0) are right. UDP over IPv4 may have none. With `capture`, so are those that the sender's
 * device was still to fill in, as a capture at the sender shows them: 0 in the IPv4 header, the bare sum of the pseudo
 * header in TCP and UDP. */
bool checksum_right(const struct rte_mbuf *m, const struct nst_headers *h, bool capture);

/* The checksum of an ICMP message, which is the payload. */
bool checksum_icmp_right(const struct rte_mbuf *m, const struct nst_headers *h);

/* Writes the IPv4 header's checksum anew. */
void checksum_ipv4(uint8_t *ip);
