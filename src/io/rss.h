/* SPDX-License-Identifier: Apache-2.0 */
/* io/rss.h - receive-side scaling that brings both directions of a flow to one queue, and the same choice in software.
 *
 * Devices compute Toeplitz's hash over addresses and ports with a key of 40 bytes or more. With a key that repeats
 * every 16 bits the hash depends on nothing but the exclusive or of all 16-bit words of the tuple, and so is the same
 * for both directions. Which flow goes to which core is no secret then; the tables' hash stays keyed at random.
 */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RSS_KEY_MAX = 128, RSS_TABLE_MAX = 512 };

struct port_rss {
    uint16_t queues;
    uint16_t entries;             /* of the indirection table: a power of two */
    bool with_ports[2][2];        /* [IPv6][UDP]: the device hashes ports too; else only addresses */
    uint32_t high[256], low[256]; /* what the two bytes of the folded tuple add to the hash */
    uint8_t queue[RSS_TABLE_MAX];
};

/* Fills in the key that is asked of a device. */
void rss_key(uint8_t *key, size_t len);

/* Takes over the key that the device says it uses. False: it does not treat both directions alike, or does not do what
 * the formula says (tried with DPDK's own Toeplitz over random tuples). */
bool rss_verify(struct port_rss *r, const uint8_t *key, size_t len);

bool port_rss_equal(const struct port_rss *a, const struct port_rss *b);

/* The queue of a tuple: `addresses` is the exclusive or of all 64-bit words of the addresses (IPv4: both are one word),
 * `ports` both ports, each as they lie in the packet; proto other than TCP and UDP: a fragment, addresses only. */
static inline unsigned port_rss_core(const struct port_rss *r, uint8_t family, uint8_t proto, uint64_t addresses,
                                     uint32_t ports)
{
    uint32_t x = (uint32_t)(addresses ^ addresses >> 32);

    if ((proto == IPPROTO_TCP || proto == IPPROTO_UDP) && r->with_ports[family != 4][proto == IPPROTO_UDP])
        x ^= ports;
    x ^= x >> 16;
    /* The first byte in the packet is the word's high one. */
    return r->queue[(r->high[x & 0xff] ^ r->low[x >> 8 & 0xff]) & (r->entries - 1u)];
}
