/* SPDX-License-Identifier: Apache-2.0 */
/* flow/key.h - what tells flows apart, the same for both directions, and a keyed hash of it.
 *
 * The two endpoints a and b stand in an order of their own making, so that a packet and its answer have one key; which
 * of them sent this packet is the parser's `from_b`. Addresses and ports are as they lie in the packet, so that a key
 * costs no more than its loads; who wants to read them asks the functions here.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct flow_key {
    uint64_t w[5]; /* [0] see key_head; [1] the IPv4 addresses a and b; IPv6: a in [1] and [2], b in [3] and [4] */
};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "what comes first in the packet is the low half of a word");

/* In the place of the VLAN stand also the networks inside tunnels (network.h), numbered from here. */
enum { KEY_TUNNEL = 4096 };

/* Ports as they lie in memory: that of a in the low half. */
static inline uint64_t key_head(uint32_t ports, uint16_t vlan, uint8_t proto, uint8_t family)
{
    return (uint64_t)ports << 32 | (uint32_t)vlan << 16 | (uint32_t)proto << 8 | family;
}
static inline uint16_t key_port_a(const struct flow_key *k)
{
    uint16_t port = (uint16_t)(k->w[0] >> 32);
    return __builtin_bswap16(port);
}
static inline uint16_t key_port_b(const struct flow_key *k)
{
    uint16_t port = (uint16_t)(k->w[0] >> 48);
    return __builtin_bswap16(port);
}
static inline uint16_t key_vlan(const struct flow_key *k)
{
    return (uint16_t)(k->w[0] >> 16);
}
static inline void key_set_vlan(struct flow_key *k, uint16_t vlan)
{
    k->w[0] = (k->w[0] & ~((uint64_t)UINT16_MAX << 16)) | (uint64_t)vlan << 16;
}
static inline uint8_t key_proto(const struct flow_key *k)
{
    return (uint8_t)(k->w[0] >> 8);
}
static inline uint8_t key_family(const struct flow_key *k)
{
    return (uint8_t)k->w[0];
}
/* The address of a or b: the return value is its length. */
static inline unsigned key_address(const struct flow_key *k, bool b, uint8_t out[16])
{
    unsigned len = key_family(k) == 4 ? 4 : 16;

    memcpy(out, (const uint8_t *)&k->w[1] + (b ? len : 0), len);
    return len;
}

static inline bool key_equal(const struct flow_key *x, const struct flow_key *y)
{
    if (x->w[0] != y->w[0] || x->w[1] != y->w[1])
        return false;
    return key_family(x) == 4 || (x->w[2] == y->w[2] && x->w[3] == y->w[3] && x->w[4] == y->w[4]);
}

/* Secret random numbers, so that nobody outside can make keys collide on purpose. */
struct hash_secret {
    uint64_t k[8];
};

static inline uint64_t hash_fold(uint64_t x, uint64_t y)
{
    __uint128_t m = (__uint128_t)x * y;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/* Pairs of words, each added to a secret one, multiplied and folded: the construction of NH (RFC 4418, UMAC) on 64-bit
 * words, which is almost universal over the choice of the secret, and one more round to spread the bits. */
static inline uint64_t key_hash(const struct flow_key *key, const struct hash_secret *s)
{
    uint64_t h = hash_fold(key->w[0] + s->k[0], key->w[1] + s->k[1]);

    if (key_family(key) != 4)
        h += hash_fold(key->w[2] + s->k[2], key->w[3] + s->k[3]) + hash_fold(key->w[4] + s->k[4], s->k[5]);
    return hash_fold(h ^ s->k[6], s->k[7]);
}
