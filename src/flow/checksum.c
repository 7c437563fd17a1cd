/* SPDX-License-Identifier: Apache-2.0 */
/* A ones' complement sum may be taken in words of any size and order (RFC 1071, 2): here in halves of 64-bit lanes,
 * whose upper bits take the carries, so that none has to be looked at before the end. rte_raw_cksum() adds word by word
 * and takes more than twice as long for a full segment. */
#include "flow/checksum.h"
#include "flow/parse.h"
#include <string.h>

typedef uint64_t lanes __attribute__((vector_size(32)));

/* How many bytes are left behind the last whole lanes is what nobody can predict: they are taken with one load that ends
 * where they end, and what was added before is cut off. Where it begins in the middle of a word its sum counts turned
 * around, which is 256 times as much (RFC 1071, 2(B)). */
static inline uint64_t __attribute__((always_inline)) sum_long(const uint8_t *p, size_t n)
{
    enum { SIZE = sizeof(lanes) };
    static const uint8_t cut[2 * SIZE] = { [SIZE... 2 * SIZE - 1] = 0xff };
    const lanes mask = { UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX };
    lanes low = { 0 }, high = { 0 }, a, b;
    const uint8_t *end = p + n;

    for (; p + 2 * SIZE <= end; p += 2 * SIZE) {
        memcpy(&a, p, sizeof a);
        memcpy(&b, p + SIZE, sizeof b);
        low += (a & mask) + (b & mask);
        high += (a >> 32) + (b >> 32);
    }
    if (n & SIZE) {
        memcpy(&a, p, sizeof a);
        low += a & mask;
        high += a >> 32;
    }
    low += high;
    memcpy(&a, end - SIZE, sizeof a);
    memcpy(&b, cut + n % SIZE, sizeof b);
    a &= b;
    a = (a & mask) + (a >> 32);
    return low[0] + low[1] + low[2] + low[3] + ((a[0] + a[1] + a[2] + a[3]) << (n % 2 * 8));
}

static inline uint64_t __attribute__((always_inline)) sum_lanes(const uint8_t *p, size_t n)
{
    uint64_t sum = 0, word;
    uint32_t half;
    uint16_t pair;

    if (n >= sizeof(lanes))
        return sum_long(p, n);
    for (; n >= sizeof word; p += sizeof word, n -= sizeof word) {
        memcpy(&word, p, sizeof word);
        sum += (word & UINT32_MAX) + (word >> 32);
    }
    if (n & 4) {
        memcpy(&half, p, sizeof half);
        sum += half;
        p += sizeof half;
    }
    if (n & 2) {
        memcpy(&pair, p, sizeof pair);
        sum += pair;
        p += sizeof pair;
    }
    if (n & 1)
        sum += *p; /* the low half of its word, in memory's order */
    return sum;
}

/* Bytes are at most 64 KiB, so the sum is far from its end. */
static uint64_t sum_plain(const uint8_t *p, size_t n)
{
    return sum_lanes(p, n);
}

static uint64_t (*sum_bytes)(const uint8_t *p, size_t n) = sum_plain;

#ifdef __x86_64__
static uint64_t __attribute__((target("avx2"))) sum_avx2(const uint8_t *p, size_t n)
{
    return sum_lanes(p, n);
}

static void __attribute__((constructor)) choose(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        sum_bytes = sum_avx2;
}
#endif

static uint16_t fold(uint64_t sum)
{
    sum = (sum & UINT32_MAX) + (sum >> 32);
    sum = (sum & UINT32_MAX) + (sum >> 32);
    sum = (sum & UINT16_MAX) + (sum >> 16);
    sum = (sum & UINT16_MAX) + (sum >> 16);
    return (uint16_t)sum;
}

uint16_t checksum_sum(const void *bytes, size_t len)
{
    return fold(sum_bytes(bytes, len));
}

/* Of a packet that may lie in several pieces. */
static uint64_t sum_packet(const struct rte_mbuf *m, uint32_t off, uint32_t len)
{
    uint64_t sum = 0;
    bool odd = false;

    if (likely(off + len <= m->data_len))
        return sum_bytes(rte_pktmbuf_mtod_offset(m, const uint8_t *, off), len);
    for (; m != NULL && len > 0; m = m->next) {
        if (off >= m->data_len) {
            off -= m->data_len;
            continue;
        }
        uint32_t n = m->data_len - off < len ? m->data_len - off : len;
        uint16_t part = fold(sum_bytes(rte_pktmbuf_mtod_offset(m, const uint8_t *, off), n));
        sum += odd ? rte_bswap16(part) : part;
        odd ^= n & 1;
        off = 0;
        len -= n;
    }
    return sum;
}

/* The pseudo header but for its length (RFC 9293, RFC 8200). */
static uint64_t pseudo(const uint8_t *ip, const struct nst_headers *h)
{
    uint64_t proto = rte_cpu_to_be_16(h->proto);
    return proto + (h->family == 4 ? sum_bytes(ip + 12, 8) : sum_bytes(ip + 8, 32));
}

/* The addressee behind a routing header that has not been used up: it is who sums the pseudo header (RFC 8200, 8.1).
 * NULL: the IP header's own. */
static const uint8_t *last_addressee(const uint8_t *ip, uint32_t len)
{
    uint8_t next = ip[6];
    uint32_t at = 40;

    while (at + 8 <= len) {
        const uint8_t *ext = ip + at;
        uint32_t size = next == IPPROTO_AH ? (ext[1] + 2u) * 4 : next == IPPROTO_FRAGMENT ? 8 : (ext[1] + 1u) * 8;
        if (at + size > len)
            return NULL;
        if (next == IPPROTO_ROUTING && ext[3] != 0) {
            enum { SOURCE_ROUTE = 0, HOME_ADDRESS = 2, SEGMENTS = 4 };
            uint32_t n = (size - 8) / 16;
            if (n == 0)
                return NULL;
            if (ext[2] == SEGMENTS || ext[2] == HOME_ADDRESS) /* a list from its end, a single one */
                return ext + 8;
            return ext[2] == SOURCE_ROUTE ? ext + 8 + (n - 1) * 16 : NULL;
        }
        next = ext[0];
        at += size;
    }
    return NULL;
}

static bool __attribute__((noinline, cold))
right_after_all(const struct rte_mbuf *m, const struct nst_headers *h, uint16_t field, uint64_t sum, bool capture)
{
    const uint8_t *ip = rte_pktmbuf_mtod_offset(m, const uint8_t *, h->l3);
    uint16_t len = rte_cpu_to_be_16((uint16_t)(h->payload + h->payload_len - h->l4));

    if (h->family == 6 && h->l4 > h->l3 + 40) {
        const uint8_t *to = last_addressee(ip, (uint32_t)h->l4 - h->l3);
        if (to != NULL)
            return fold(sum + sum_bytes(to, 16) + (uint16_t)~fold(sum_bytes(ip + 24, 16))) == 0xffff;
    }
    /* A device that cuts a super-packet up adds the lengths, too. */
    return capture && (field == fold(pseudo(ip, h) + len) || field == fold(pseudo(ip, h)));
}

/* The sum of an IPv4 header; *addresses, of those in it. Nearly all have no options. */
static inline uint64_t sum_ipv4(const uint8_t *ip, uint64_t *addresses)
{
    uint32_t word[5];

    memcpy(word, ip, sizeof word);
    *addresses = (uint64_t)word[3] + word[4];
    uint64_t sum = (uint64_t)word[0] + word[1] + word[2] + *addresses;
    return likely((ip[0] & 15) == 5) ? sum : sum + sum_bytes(ip + sizeof word, ((ip[0] & 15u) - 5) * 4);
}

bool checksum_right(const struct rte_mbuf *m, const struct nst_headers *h, bool capture)
{
    const uint8_t *d = rte_pktmbuf_mtod(m, const uint8_t *), *ip = d + h->l3;
    uint64_t addresses;
    uint16_t field;

    if (unlikely(h->family != 4))
        addresses = sum_bytes(ip + 8, 32);
    else if (fold(sum_ipv4(ip, &addresses)) != 0xffff && !(capture && ip[10] == 0 && ip[11] == 0))
        return false;
    if (h->l4 == 0)
        return true;
    memcpy(&field, d + h->l4 + (h->proto == IPPROTO_TCP ? 16 : 6), sizeof field);
    if (h->proto == IPPROTO_UDP && field == 0)
        return true;
    uint32_t len = (uint32_t)h->payload + h->payload_len - h->l4;
    uint64_t sum = sum_packet(m, h->l4, len) + addresses + rte_cpu_to_be_16(h->proto) + rte_cpu_to_be_16((uint16_t)len);
    return likely(fold(sum) == 0xffff) || right_after_all(m, h, field, sum, capture);
}

bool checksum_icmp_right(const struct rte_mbuf *m, const struct nst_headers *h)
{
    uint64_t sum = sum_packet(m, h->payload, h->payload_len);

    if (h->family == 6)
        sum += pseudo(rte_pktmbuf_mtod_offset(m, const uint8_t *, h->l3), h) + rte_cpu_to_be_16(h->payload_len);
    return fold(sum) == 0xffff;
}

void checksum_ipv4(uint8_t *ip)
{
    ip[10] = ip[11] = 0;
    uint16_t sum = (uint16_t)~checksum_sum(ip, (ip[0] & 15u) * 4);
    memcpy(ip + 10, &sum, sizeof sum);
}
