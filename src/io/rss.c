/* SPDX-License-Identifier: Apache-2.0 */
#include "io/rss.h"
#include <rte_thash.h>
#include <string.h>

enum { PATTERN = 0x6d5a, TRIES = 64, WORDS6 = 9 };

void rss_key(uint8_t *key, size_t len)
{
    for (size_t i = 0; i < len; i++)
        key[i] = (uint8_t)(i % 2 == 0 ? PATTERN >> 8 : PATTERN & 0xff);
}

/* The 32 bits of the key from bit `at` on: what Toeplitz's hash adds for an input bit that is set there. */
static uint32_t window(const uint8_t *key, unsigned at)
{
    uint64_t five = 0;

    for (unsigned i = 0; i < 5; i++)
        five = five << 8 | key[at / 8 + i];
    return (uint32_t)(five >> (8 - at % 8));
}

static uint32_t hash_of(const struct port_rss *r, const uint32_t *words, unsigned n)
{
    uint32_t x = 0;

    for (unsigned i = 0; i < n; i++)
        x ^= words[i];
    x ^= x >> 16;
    return r->high[x >> 8 & 0xff] ^ r->low[x & 0xff];
}

bool rss_verify(struct port_rss *r, const uint8_t *key, size_t len)
{
    uint32_t tuple[WORDS6], turned[WORDS6], random = 1;

    if (len < 4 * WORDS6 + 4)
        return false;
    for (unsigned byte = 0; byte < 256; byte++) {
        r->high[byte] = r->low[byte] = 0;
        for (unsigned bit = 0; bit < 8; bit++) {
            if (byte & 0x80u >> bit) {
                r->high[byte] ^= window(key, bit);
                r->low[byte] ^= window(key, 8 + bit);
            }
        }
    }
    for (unsigned i = 0; i < TRIES; i++) {
        for (unsigned k = 0; k < WORDS6; k++)
            tuple[k] = random = random * 1664525u + 1013904223u;
        for (unsigned n = 2; n <= WORDS6; n++) { /* IPv4 and IPv6, with ports and without */
            unsigned address = (n - n % 2) / 2;
            if (n != 2 && n != 3 && n != 8 && n != 9)
                continue;
            memcpy(turned, tuple + address, address * sizeof *tuple);
            memcpy(turned + address, tuple, address * sizeof *tuple);
            if (n % 2 != 0)
                turned[n - 1] = tuple[n - 1] << 16 | tuple[n - 1] >> 16;
            uint32_t hash = rte_softrss(tuple, n, key);
            if (hash != rte_softrss(turned, n, key) || hash != hash_of(r, tuple, n))
                return false;
        }
    }
    return true;
}

bool port_rss_equal(const struct port_rss *a, const struct port_rss *b)
{
    return a->queues == b->queues && a->entries == b->entries &&
           memcmp(a->with_ports, b->with_ports, sizeof a->with_ports) == 0 &&
           memcmp(a->high, b->high, sizeof a->high) == 0 && memcmp(a->low, b->low, sizeof a->low) == 0 &&
           memcmp(a->queue, b->queue, a->entries) == 0;
}
