/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/fragment.h"
#include "base/region.h"
#include "flow/checksum.h"
#include "io/port.h"
#include <netinet/in.h>
#include <stdlib.h>

#define NONE UINT32_MAX

enum { MORE = 1, WHOLE_SLOT = 1 << 16, IPV6_HEADER = 40, FRAGMENT_HEADER = 8, ETHER_HEAD_MAX = 14 + 2 * 4 };

struct datagram {
    struct flow_key key;
    struct nst_packet *first, *last;      /* by their place */
    struct nst_packet *came, **came_tail; /* as they came */
    uint32_t born;                        /* tick */
    uint32_t chain, older, newer;         /* slots */
    uint32_t have, total, n;              /* bytes; 0: the last fragment has not come */
    bool condemned;                       /* what else comes of it is given up, too */
    uint8_t why;                          /* enum nst_fault */
};

static uint16_t be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static uint8_t *ip_of(const struct nst_packet *p)
{
    return rte_pktmbuf_mtod_offset(mbuf_of(p), uint8_t *, p->h.l3);
}

/* ---- opening and closing ---- */
int fragments_open(struct fragments *t, uint32_t limit, size_t bytes_limit, uint32_t life,
                   const struct hash_secret *secret,
                   void (*give_up)(void *arg, struct nst_packet *p, enum nst_fault why), void *arg)
{
    uint32_t buckets = 16;

    *t = (struct fragments){ .limit = limit,
                             .bytes_limit = bytes_limit,
                             .life = life,
                             .secret = secret,
                             .give_up = give_up,
                             .arg = arg,
                             .n_slots = limit,
                             .oldest = NONE,
                             .newest = NONE };
    while (buckets < limit)
        buckets *= 2;
    t->mask = buckets - 1;
    t->slots = calloc(limit, sizeof *t->slots);
    t->bucket = malloc(buckets * sizeof *t->bucket);
    t->wholes = region_open((size_t)FRAGMENT_WHOLES * WHOLE_SLOT);
    if (t->slots == NULL || t->bucket == NULL || t->wholes == NULL)
        return -ENOMEM;
    memset(t->bucket, 0xff, buckets * sizeof *t->bucket);
    for (uint32_t i = 0; i < limit; i++)
        t->slots[i].chain = i + 1 < limit ? i + 1 : NONE;
    t->free = 0;
    for (uint16_t i = 0; i < FRAGMENT_WHOLES; i++)
        t->free_wholes[i] = (uint16_t)(FRAGMENT_WHOLES - 1 - i);
    t->n_free_wholes = FRAGMENT_WHOLES;
    return 0;
}

void fragments_close(struct fragments *t)
{
    free(t->slots);
    free(t->bucket);
    region_close(t->wholes, (size_t)FRAGMENT_WHOLES * WHOLE_SLOT);
    *t = (struct fragments){ 0 };
}

bool fragments_waiting(const struct fragments *t)
{
    return t->oldest != NONE;
}

/* ---- datagrams ---- */
static void slot_free(struct fragments *t, uint32_t n)
{
    struct datagram *d = &t->slots[n];
    uint32_t *link = &t->bucket[key_hash(&d->key, t->secret) & t->mask];

    while (*link != n)
        link = &t->slots[*link].chain;
    *link = d->chain;
    *(d->older != NONE ? &t->slots[d->older].newer : &t->oldest) = d->newer;
    *(d->newer != NONE ? &t->slots[d->newer].older : &t->newest) = d->older;
    d->chain = t->free;
    t->free = n;
}

static void forget(struct fragments *t, const struct nst_packet *p)
{
    t->kept--;
    t->bytes -= mbuf_of(p)->pkt_len;
}

static void give_up_parts(struct fragments *t, struct datagram *d, enum nst_fault why)
{
    struct nst_packet *p;

    while ((p = d->came) != NULL) {
        d->came = p->next;
        forget(t, p);
        t->give_up(t->arg, p, why);
    }
    d->first = d->last = NULL;
    d->n = 0;
}

static void give_up_oldest(struct fragments *t, enum nst_fault why)
{
    uint32_t n = t->oldest;

    give_up_parts(t, &t->slots[n], why);
    slot_free(t, n);
}

void fragments_expire(struct fragments *t, uint32_t tick)
{
    while (t->oldest != NONE && (int32_t)(tick - t->slots[t->oldest].born) > (int32_t)t->life)
        give_up_oldest(t, NST_FAULT_FRAGMENT_LATE);
}

void fragments_flush(struct fragments *t)
{
    while (t->oldest != NONE)
        give_up_oldest(t, NST_FAULT_FRAGMENT_LATE);
}

static struct datagram *slot_for(struct fragments *t, const struct flow_key *key, uint32_t tick)
{
    uint32_t *bucket = &t->bucket[key_hash(key, t->secret) & t->mask];

    for (uint32_t i = *bucket; i != NONE; i = t->slots[i].chain) {
        if (key_equal(&t->slots[i].key, key))
            return &t->slots[i];
    }
    if (t->free == NONE)
        give_up_oldest(t, NST_FAULT_FRAGMENT_ROOM); /* and it frees one */
    uint32_t n = t->free;
    struct datagram *d = &t->slots[n];
    t->free = d->chain;
    *d = (struct datagram){ .key = *key, .born = tick, .chain = *bucket, .older = t->newest, .newer = NONE };
    d->came_tail = &d->came;
    *bucket = n;
    *(t->newest != NONE ? &t->slots[t->newest].newer : &t->oldest) = n;
    t->newest = n;
    return d;
}

/* What tells datagrams apart: addresses, identification, and in IPv4 the protocol. */
static void read_fragment(struct nst_packet *p, uint16_t network, struct flow_key *key, bool *more)
{
    const uint8_t *ip = ip_of(p);
    uint32_t id;

    memset(key, 0, sizeof *key);
    if (p->h.family == 4) {
        *more = ip[6] & 0x20;
        p->part_at = (uint16_t)((be16(ip + 6) & 0x1fff) * 8);
        id = be16(ip + 4);
        memcpy(&key->w[1], ip + 12, 8);
        key->w[0] = key_head(id, network, ip[9], 4);
    } else {
        const uint8_t *header = rte_pktmbuf_mtod_offset(mbuf_of(p), const uint8_t *, p->h.payload - FRAGMENT_HEADER);
        *more = header[3] & 1;
        p->part_at = be16(header + 2) & 0xfff8;
        memcpy(&id, header + 4, sizeof id);
        memcpy(&key->w[1], ip + 8, 32);
        key->w[0] = key_head(id, network, 0, 6);
    }
    p->part_len = p->h.payload_len;
}

static const uint8_t *data_of(const struct nst_packet *p)
{
    return rte_pktmbuf_mtod_offset(mbuf_of(p), const uint8_t *, p->h.payload);
}

static uint32_t end_of(const struct nst_packet *p)
{
    return (uint32_t)p->part_at + p->part_len;
}

enum place { PLACED, REPEATED, OVERLAPS };

/* Puts it where it belongs; fragments mostly come in order, or in the opposite one. */
static enum place place(struct datagram *d, struct nst_packet *p)
{
    struct nst_packet *before = NULL, *behind = d->first;

    if (d->last != NULL && d->last->part_at < p->part_at) {
        before = d->last;
        behind = NULL;
    }
    while (behind != NULL && behind->part_at < p->part_at) {
        before = behind;
        behind = behind->after;
    }
    if (behind != NULL && behind->part_at == p->part_at && behind->part_len == p->part_len &&
        memcmp(data_of(behind), data_of(p), p->part_len) == 0)
        return REPEATED;
    if ((before != NULL && end_of(before) > p->part_at) || (behind != NULL && end_of(p) > behind->part_at))
        return OVERLAPS;
    p->after = behind;
    *(before != NULL ? &before->after : &d->first) = p;
    if (behind == NULL)
        d->last = p;
    return PLACED;
}

/* ---- wholes ---- */
static void free_whole(void *frame, void *arg)
{
    struct fragments *t = arg;

    t->free_wholes[t->n_free_wholes++] = (uint16_t)(((uint8_t *)frame - t->wholes) / WHOLE_SLOT);
}

/* An empty packet with room for len bytes; NULL: there is none. */
static struct rte_mbuf *whole_alloc(struct fragments *t, uint32_t len)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(port_pool);

    if (m == NULL || len <= rte_pktmbuf_tailroom(m))
        return m;
    if (t->n_free_wholes == 0) {
        rte_pktmbuf_free(m);
        return NULL;
    }
    /* The reference count stands in the slot behind the longest frame. */
    uint8_t *frame = t->wholes + (size_t)t->free_wholes[--t->n_free_wholes] * WHOLE_SLOT;
    struct rte_mbuf_ext_shared_info *shared = (void *)(frame + FRAGMENT_FRAME);
    shared->free_cb = free_whole;
    shared->fcb_opaque = t;
    rte_mbuf_ext_refcnt_set(shared, 1);
    rte_pktmbuf_attach_extbuf(m, frame, RTE_BAD_IOVA, FRAGMENT_FRAME, shared);
    return m;
}

/* The last of the headers of an IPv6 packet's unfragmentable part, which are len bytes, says what follows. */
static void unwrap_ipv6(uint8_t *ip, uint32_t len, uint8_t next)
{
    uint8_t *field = ip + 6;

    for (uint32_t at = IPV6_HEADER; at < len;) {
        uint32_t size = *field == IPPROTO_AH ? (ip[at + 1] + 2u) * 4 : (ip[at + 1] + 1u) * 8;
        field = ip + at;
        at += size;
    }
    *field = next;
}

/* The length of what stands before a fragment's data, but for the fragment header. */
static uint32_t headers_of(const struct nst_packet *p)
{
    return p->h.family == 4 ? p->h.payload : p->h.payload - FRAGMENT_HEADER;
}

static struct nst_packet *make_whole(struct fragments *t, struct datagram *d, const struct nst_packet *latest)
{
    const struct nst_packet *first = d->first;
    uint32_t head = headers_of(first), len = head + d->total;
    struct rte_mbuf *m = len <= FRAGMENT_FRAME ? whole_alloc(t, len) : NULL;

    if (m == NULL)
        return NULL;
    uint8_t *frame = (uint8_t *)rte_pktmbuf_append(m, (uint16_t)len), *ip = frame + first->h.l3;
    memcpy(frame, rte_pktmbuf_mtod(mbuf_of(first), const uint8_t *), head);
    for (const struct nst_packet *p = first; p != NULL; p = p->after)
        memcpy(frame + head + p->part_at, data_of(p), p->part_len);
    if (first->h.family == 4) {
        put16(ip + 2, len - first->h.l3);
        put16(ip + 6, be16(ip + 6) & 0xc000);
        checksum_ipv4(ip);
    } else {
        put16(ip + 4, len - first->h.l3 - IPV6_HEADER);
        unwrap_ipv6(ip, head - first->h.l3, *rte_pktmbuf_mtod_offset(mbuf_of(first), const uint8_t *, head));
    }
    if (first->flags & PACKET_TUNNEL)
        packet_fit(frame, first->around, first->n_around, len);
    struct nst_packet *whole = packet_of(m);
    *whole = (struct nst_packet){ .time = latest->time,
                                  .number = latest->number,
                                  .port = latest->port,
                                  .flags = PACKET_WHOLE,
                                  .parts = d->came,
                                  .first = d->first,
                                  .n_parts = d->n };
    for (const struct nst_packet *p = first; p != NULL; p = p->after)
        whole->flags |= p->flags & PACKET_CHECKSUM_OPEN;
    m->tx_offload = mbuf_of(latest)->tx_offload;
    t->wholes_made++;
    return whole;
}

static void condemn(struct fragments *t, struct datagram *d, struct nst_packet *p, enum nst_fault why)
{
    if (!d->condemned)
        d->why = (uint8_t)why;
    d->condemned = true;
    give_up_parts(t, d, (enum nst_fault)d->why);
    t->give_up(t->arg, p, (enum nst_fault)d->why);
}

struct nst_packet *fragments_add(struct fragments *t, struct nst_packet *p, uint16_t network, uint32_t tick)
{
    uint32_t bytes = mbuf_of(p)->pkt_len;
    struct flow_key key;
    bool more;

    fragments_expire(t, tick);
    while ((t->kept >= t->limit || t->bytes + bytes > t->bytes_limit) && t->oldest != NONE)
        give_up_oldest(t, NST_FAULT_FRAGMENT_ROOM);
    if (t->kept >= t->limit || t->bytes + bytes > t->bytes_limit || mbuf_of(p)->nb_segs > 1) {
        t->give_up(t->arg, p, NST_FAULT_FRAGMENT_ROOM);
        return NULL;
    }
    read_fragment(p, network, &key, &more);
    struct datagram *d = slot_for(t, &key, tick);
    uint32_t end = end_of(p);
    /* All but the last are multiples of 8 bytes; nothing lies behind the last; the whole has a length that can be said.
     */
    if (d->condemned || p->part_len == 0 || (more && p->part_len % 8 != 0) || end > UINT16_MAX ||
        d->n == FRAGMENTS_MAX || (d->total != 0 && (more ? end > d->total : end != d->total)) ||
        (!more && d->last != NULL && end_of(d->last) > end)) {
        condemn(t, d, p, NST_FAULT_FRAGMENT_LENGTH);
        return NULL;
    }
    switch (place(d, p)) {
    case REPEATED:
        t->give_up(t->arg, p, NST_FAULT_FRAGMENT_REPEATED);
        return NULL;
    case OVERLAPS:
        condemn(t, d, p, NST_FAULT_FRAGMENT_OVERLAP);
        return NULL;
    default:
        break;
    }
    p->next = NULL;
    *d->came_tail = p;
    d->came_tail = &p->next;
    d->n++;
    d->have += p->part_len;
    if (++t->kept > t->kept_peak)
        t->kept_peak = t->kept;
    t->bytes += bytes;
    if (!more)
        d->total = end;
    if (d->have != d->total)
        return NULL;
    struct nst_packet *whole = make_whole(t, d, p);
    if (whole == NULL)
        give_up_parts(t, d, NST_FAULT_FRAGMENT_ROOM);
    slot_free(t, (uint32_t)(d - t->slots));
    return whole;
}

/* ---- back to fragments ---- */
static struct nst_packet *parts_of(struct fragments *t, struct nst_packet *whole)
{
    struct nst_packet *parts = whole->parts;

    for (const struct nst_packet *p = parts; p != NULL; p = p->next)
        forget(t, p);
    whole->parts = NULL;
    return parts;
}

uint32_t fragments_count(const struct nst_packet *whole)
{
    uint32_t n = 0;

    for (const struct nst_packet *p = whole->parts; p != NULL; p = p->next)
        n += p->flags & PACKET_WHOLE ? fragments_count(p) : 1;
    return n;
}

uint32_t fragments_free(struct fragments *t, struct nst_packet *whole)
{
    uint32_t n = 0;

    for (struct nst_packet *p = parts_of(t, whole), *next; p != NULL; p = next) {
        next = p->next;
        if (p->flags & PACKET_WHOLE) {
            n += fragments_free(t, p);
        } else {
            rte_pktmbuf_free(mbuf_of(p));
            n++;
        }
    }
    rte_pktmbuf_free(mbuf_of(whole));
    return n;
}

/* A field that an edit of the whole has changed is changed in every fragment; others stay what they are in each. */
static bool carry(uint8_t *to, const uint8_t *first, const uint8_t *whole, uint32_t len)
{
    if (memcmp(first, whole, len) == 0)
        return false;
    memcpy(to, whole, len);
    return true;
}

static void carry_headers(struct nst_packet *p, const uint8_t *link, uint32_t link_len, const uint8_t *first_ip,
                          const uint8_t *whole, uint32_t l3, uint8_t family)
{
    uint8_t *to = rte_pktmbuf_mtod(mbuf_of(p), uint8_t *), *ip = to + p->h.l3;
    const uint8_t *whole_ip = whole + l3;

    if (p->h.l3 == l3)
        carry(to, link, whole, link_len);
    if (family == 4) {
        bool changed = carry(ip + 1, first_ip + 1, whole_ip + 1, 1);
        changed |= carry(ip + 8, first_ip + 8, whole_ip + 8, 1);
        changed |= carry(ip + 12, first_ip + 12, whole_ip + 12, 8);
        if (changed)
            checksum_ipv4(ip);
    } else {
        carry(ip, first_ip, whole_ip, 4);
        carry(ip + 7, first_ip + 7, whole_ip + 7, 33); /* hop limit and addresses */
    }
}

static void write_back(struct nst_packet *whole, uint32_t head)
{
    enum { ETHER_ADDRESSES = 12 };
    const struct nst_packet *first = whole->first;
    const uint8_t *frame = rte_pktmbuf_mtod(mbuf_of(whole), const uint8_t *);
    uint32_t l3 = first->h.l3, n = first->flags & PACKET_TUNNEL ? ETHER_ADDRESSES : l3;
    uint8_t family = first->h.family;
    uint8_t link[ETHER_HEAD_MAX], ip[IPV6_HEADER]; /* the first fragment is among those that change */

    memcpy(link, rte_pktmbuf_mtod(mbuf_of(first), const uint8_t *), n);
    memcpy(ip, ip_of(first), family == 4 ? 20 : IPV6_HEADER);
    for (struct nst_packet *p = whole->parts; p != NULL; p = p->next) {
        struct packet_outer_sum around[NST_TUNNEL_DEPTH];
        unsigned sums = packet_outer_sums(p, around);
        memcpy(rte_pktmbuf_mtod_offset(mbuf_of(p), uint8_t *, p->h.payload), frame + head + p->part_at, p->part_len);
        carry_headers(p, link, n, ip, frame, l3, family);
        packet_outer_mend(p, around, sums);
    }
}

/* An IPv4 option that is not to be copied into later fragments (RFC 791, 3.1) becomes one that says nothing. */
static void drop_options(uint8_t *ip)
{
    enum { END = 0, NOTHING = 1, COPIED = 128 };
    uint32_t header = (ip[0] & 15u) * 4;

    for (uint32_t at = 20, len; at < header && ip[at] != END; at += len) {
        len = ip[at] == NOTHING ? 1 : at + 1 < header ? ip[at + 1] : 0;
        if (len == 0 || at + len > header)
            return;
        if ((ip[at] & COPIED) == 0)
            memset(ip + at, NOTHING, len);
    }
}

/* One fragment of a datagram whose data has total bytes: those of [at, at + len). */
static struct nst_packet *cut_out(struct fragments *t, const struct nst_packet *whole, uint32_t head, uint32_t at,
                                  uint32_t len, uint32_t total)
{
    const struct nst_packet *first = whole->first;
    uint32_t extra = first->h.family == 4 ? 0 : FRAGMENT_HEADER, l3 = first->h.l3;
    const uint8_t *frame = rte_pktmbuf_mtod(mbuf_of(whole), const uint8_t *);
    struct rte_mbuf *m = whole_alloc(t, head + extra + len);

    if (m == NULL)
        return NULL;
    uint8_t *to = (uint8_t *)rte_pktmbuf_append(m, (uint16_t)(head + extra + len)), *ip = to + l3;
    memcpy(to, frame, head);
    memcpy(to + head + extra, frame + head + at, len);
    if (extra == 0) {
        put16(ip + 2, head - l3 + len);
        put16(ip + 6, (be16(ip + 6) & 0xc000u) | at / 8 | (at + len < total ? 0x2000u : 0));
        if (at != 0)
            drop_options(ip);
        checksum_ipv4(ip);
    } else {
        /* The same header as its first fragment had, with the place in it. */
        memcpy(to + head, rte_pktmbuf_mtod_offset(mbuf_of(first), const uint8_t *, head), FRAGMENT_HEADER);
        put16(to + head + 2, at | (at + len < total ? MORE : 0));
        put16(ip + 4, head - l3 - IPV6_HEADER + extra + len);
        unwrap_ipv6(ip, head - l3, IPPROTO_FRAGMENT);
    }
    if (first->flags & PACKET_TUNNEL)
        packet_fit(to, first->around, first->n_around, head + extra + len);
    struct nst_packet *p = packet_of(m);
    *p = (struct nst_packet){ .time = whole->time, .number = whole->number, .port = whole->port };
    m->tx_offload = mbuf_of(whole)->tx_offload;
    return p;
}

static struct nst_packet *cut_up(struct fragments *t, const struct nst_packet *whole, uint32_t head, uint32_t total,
                                 uint32_t *n)
{
    struct nst_packet *list = NULL, **tail = &list;
    uint32_t size = 8;

    for (const struct nst_packet *p = whole->parts; p != NULL; p = p->next)
        size = p->part_len > size ? p->part_len & ~7u : size;
    *n = 0;
    for (uint32_t at = 0; at < total; at += size, (*n)++) {
        struct nst_packet *p = cut_out(t, whole, head, at, total - at < size ? total - at : size, total);
        if (p == NULL) {
            for (struct nst_packet *next; list != NULL; list = next) {
                next = list->next;
                rte_pktmbuf_free(mbuf_of(list));
            }
            *n = 0;
            return NULL;
        }
        *tail = p;
        tail = &p->next;
    }
    return list;
}

struct nst_packet *fragments_unfold(struct fragments *t, struct nst_packet *whole, uint32_t *n)
{
    const struct nst_packet *first = whole->first;
    uint32_t head = headers_of(first), l3 = first->h.l3, was = 0;
    const uint8_t *ip = rte_pktmbuf_mtod_offset(mbuf_of(whole), const uint8_t *, l3);
    uint32_t end = first->h.family == 4 ? l3 + be16(ip + 2) : l3 + IPV6_HEADER + be16(ip + 4);
    struct nst_packet *list;

    for (const struct nst_packet *p = whole->parts; p != NULL; p = p->next)
        was += p->part_len;
    if (end == head + was) {
        write_back(whole, head);
        *n = whole->n_parts;
        list = parts_of(t, whole);
        rte_pktmbuf_free(mbuf_of(whole));
        return list;
    }
    list = end > head && end <= mbuf_of(whole)->data_len ? cut_up(t, whole, head, end - head, n) : NULL;
    fragments_free(t, whole);
    return list;
}
