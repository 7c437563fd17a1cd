/* SPDX-License-Identifier: Apache-2.0 */
/* io/words.h - overwriting addresses and ports, with the checksums that cover them (RFC 1624, equation 3). Which end of a
 * word is which does not matter to such a sum (RFC 1071), so words are taken as they lie in memory. */
#pragma once
#include "io/packet.h"
#include <string.h>

/* A checksum of which some words have become others. `change` is folded, and neither 0 nor 0xffff. */
static inline void words_turn(uint8_t *at, uint32_t change, bool udp)
{
    uint16_t sum;

    memcpy(&sum, at, sizeof sum);
    if (udp && sum == 0) /* the sender did not use it */
        return;
    uint32_t s = (uint16_t)~sum + change;
    s = (s & 0xffff) + (s >> 16);
    sum = (uint16_t)~s;
    if (udp && sum == 0)
        sum = 0xffff;
    memcpy(at, &sum, sizeof sum);
}

/* Overwrites an even number of bytes at an even place, all of which are in the packet and covered by TCP's or UDP's checksum
 * where there is one, and, if `ip`, by that of the IPv4 header. The packet is in no tunnel. */
static inline void words_put(const struct nst_headers *h, uint8_t *data, size_t off, const uint8_t *new, size_t len,
                             bool ip)
{
    uint8_t *at = data + off;
    uint64_t change = 0;
    size_t i = 0;

    for (; i + 4 <= len; i += 4) {
        uint32_t was, is;
        memcpy(&was, at + i, sizeof was);
        memcpy(&is, new + i, sizeof is);
        memcpy(at + i, &is, sizeof is);
        change += (uint64_t)(uint32_t)~was + is;
    }
    if (i < len) {
        uint16_t was, is;
        memcpy(&was, at + i, sizeof was);
        memcpy(&is, new + i, sizeof is);
        memcpy(at + i, &is, sizeof is);
        change += (uint64_t)(uint16_t)~was + is;
    }
    change = (change & 0xffffffff) + (change >> 32);
    uint32_t sum = (uint32_t)(change & 0xffff) + (uint32_t)(change >> 16 & 0xffff) + (uint32_t)(change >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    if (sum == 0 || sum == 0xffff) /* nothing: a sum that is 0xffff in place of 0 stays so */
        return;
    if (ip)
        words_turn(data + h->l3 + 10, sum, false);
    if (h->l4 != 0 && h->proto == 6)
        words_turn(data + h->l4 + 16, sum, false);
    else if (h->l4 != 0 && h->proto == 17)
        words_turn(data + h->l4 + 6, sum, true);
}
