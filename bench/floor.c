/* SPDX-License-Identifier: Apache-2.0 */
#include "floor.h"
#include <rte_ether.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>
#include <rte_ip.h>
#include <rte_malloc.h>
#include <rte_prefetch.h>
#include <rte_tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { BURST = 32, AHEAD = 4 };

/* The five-tuple with its ends in order, so that both directions of a flow have the same. */
struct key {
    uint64_t low, high; /* address and port; the protocol above the port of the high one */
};

struct state {
    uint64_t packets, bytes;
} __rte_cache_aligned;

struct floor {
    struct rte_hash *table;
    struct state *states;
    uint32_t limit;
    struct floor_stats stats;
};

static uint32_t key_hash(const void *key, uint32_t len, uint32_t seed)
{
    return rte_hash_crc(key, len, seed);
}

int floor_socket(uint32_t flows, bool no_huge)
{
    const size_t huge = 2 << 20;
    size_t pages = 8 + (size_t)flows * 256 / huge;
    char *base, *aligned;

    if (!no_huge)
        return SOCKET_ID_ANY;
    base = mmap(NULL, (pages + 1) * huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return SOCKET_ID_ANY;
    aligned = RTE_PTR_ALIGN(base, huge);
    if (madvise(aligned, pages * huge, MADV_HUGEPAGE) != 0 || rte_malloc_heap_create("floor") != 0)
        return SOCKET_ID_ANY;
    if (rte_malloc_heap_memory_add("floor", aligned, pages * huge, NULL, pages, huge) != 0)
        return SOCKET_ID_ANY;
    return rte_malloc_heap_get_socket("floor");
}

int floor_open(struct floor **out, uint32_t flows, int socket)
{
    static unsigned made;
    char name[RTE_HASH_NAMESIZE];
    struct rte_hash_parameters params = {
        .name = name,
        /* A few slots stay free, or the last flows of a table whose size is a power of two find no place. */
        .entries = flows + flows / 32,
        .key_len = sizeof(struct key),
        .hash_func = key_hash,
        .socket_id = socket,
    };
    struct floor *f = calloc(1, sizeof *f);

    if (f == NULL)
        return -ENOMEM;
    f->limit = flows;
    snprintf(name, sizeof name, "floor%u", __atomic_fetch_add(&made, 1, __ATOMIC_RELAXED));
    f->table = rte_hash_create(&params);
    f->states = rte_zmalloc_socket("floor", (size_t)flows * sizeof *f->states, RTE_CACHE_LINE_SIZE, socket);
    if (f->table == NULL || f->states == NULL) {
        floor_close(f);
        return -ENOMEM;
    }
    *out = f;
    return 0;
}

void floor_close(struct floor *f)
{
    if (f == NULL)
        return;
    rte_hash_free(f->table);
    rte_free(f->states);
    free(f);
}

/* The key of a packet; false when it is not TCP over IPv4, or not whole. */
static inline bool parse(const struct rte_mbuf *m, struct key *key)
{
    const struct rte_ether_hdr *eth = rte_pktmbuf_mtod(m, const struct rte_ether_hdr *);
    const struct rte_ipv4_hdr *ip = (const struct rte_ipv4_hdr *)(eth + 1);
    const struct rte_tcp_hdr *tcp;
    uint32_t len = m->data_len, ip_header, ip_len, tcp_header;
    uint64_t from, to;

    if (unlikely(len < sizeof *eth + sizeof *ip || eth->ether_type != RTE_BE16(RTE_ETHER_TYPE_IPV4)))
        return false;
    ip_header = (ip->version_ihl & RTE_IPV4_HDR_IHL_MASK) * RTE_IPV4_IHL_MULTIPLIER;
    ip_len = rte_be_to_cpu_16(ip->total_length);
    if (unlikely(ip->version_ihl >> 4 != 4 || ip_header < sizeof *ip || ip_len < ip_header + sizeof *tcp ||
                 ip_len > len - sizeof *eth || ip->next_proto_id != IPPROTO_TCP ||
                 (ip->fragment_offset & RTE_BE16(RTE_IPV4_HDR_MF_FLAG | RTE_IPV4_HDR_OFFSET_MASK)) != 0))
        return false;
    tcp = (const struct rte_tcp_hdr *)((const uint8_t *)ip + ip_header);
    tcp_header = (tcp->data_off >> 4) * 4u;
    if (unlikely(tcp_header < sizeof *tcp || tcp_header > ip_len - ip_header))
        return false;
    from = (uint64_t)ip->src_addr << 16 | tcp->src_port;
    to = (uint64_t)ip->dst_addr << 16 | tcp->dst_port;
    key->low = RTE_MIN(from, to);
    key->high = RTE_MAX(from, to) | (uint64_t)IPPROTO_TCP << 48;
    return true;
}

static struct state *new_flow(struct floor *f, const struct key *key, hash_sig_t hash)
{
    struct state *s = &f->states[f->stats.flows];

    if (f->stats.flows == f->limit || rte_hash_add_key_with_hash_data(f->table, key, hash, s) != 0) {
        f->stats.refused++;
        return NULL;
    }
    f->stats.flows++;
    return s;
}

static inline void burst(struct floor *f, struct rte_mbuf **m, unsigned n)
{
    struct key keys[BURST];
    const void *of[BURST];
    hash_sig_t hashes[BURST];
    void *states[BURST];
    uint16_t lens[BURST];
    uint64_t hits = 0;
    unsigned parsed = 0;

    for (unsigned i = 0; i < AHEAD && i < n; i++)
        rte_prefetch0(rte_pktmbuf_mtod(m[i], void *));
    for (unsigned i = 0; i < n; i++) {
        struct key *key = &keys[parsed];
        if (i + AHEAD < n)
            rte_prefetch0(rte_pktmbuf_mtod(m[i + AHEAD], void *));
        if (unlikely(!parse(m[i], key)))
            continue;
        of[parsed] = key;
        hashes[parsed] = rte_hash_crc_8byte(key->high, rte_hash_crc_8byte(key->low, 0));
        lens[parsed] = m[i]->data_len;
        parsed++;
    }
    if (likely(parsed != 0))
        rte_hash_lookup_with_hash_bulk_data(f->table, of, hashes, parsed, &hits, states);
    for (unsigned i = 0; i < parsed; i++) {
        if (likely(hits >> i & 1))
            rte_prefetch0(states[i]);
    }
    for (unsigned i = 0; i < parsed; i++) {
        struct state *s = states[i];
        if (unlikely((hits >> i & 1) == 0)) {
            /* Another packet of the burst may have brought the flow. */
            if (rte_hash_lookup_with_hash_data(f->table, of[i], hashes[i], (void **)&s) < 0)
                s = new_flow(f, of[i], hashes[i]);
            if (s == NULL)
                continue;
        }
        s->packets++;
        s->bytes += lens[i];
    }
    f->stats.packets += n;
    f->stats.unparsed += n - parsed;
    trace_tx(m, n);
}

unsigned floor_open_burst(struct floor *f, struct trace_feed *feed)
{
    struct rte_mbuf *m[BURST];
    unsigned n = trace_open_rx(feed, m, BURST);

    if (n != 0)
        burst(f, m, n);
    return n;
}

unsigned floor_burst(struct floor *f, struct trace_feed *feed)
{
    struct rte_mbuf *m[BURST];
    unsigned n = trace_rx(feed, m, BURST);

    if (n != 0)
        burst(f, m, n);
    return n;
}

void floor_stats(const struct floor *f, struct floor_stats *out)
{
    *out = f->stats;
}
