/* SPDX-License-Identifier: Apache-2.0 */
/* What an NF may ask of a packet, and editing it with its checksums kept right (RFC 1624). */
#include "io/packet.h"
#include "io/words.h"
#include <string.h>

const struct nst_headers *nst_packet_headers(const struct nst_packet *p)
{
    return &p->h;
}

const void *nst_packet_bytes(const struct nst_packet *p, size_t off, size_t len)
{
    const struct rte_mbuf *m = mbuf_of(p);
    if (off > m->data_len || len > m->data_len - off)
        return NULL;
    return rte_pktmbuf_mtod_offset(m, const uint8_t *, off);
}

size_t nst_packet_len(const struct nst_packet *p)
{
    return mbuf_of(p)->pkt_len;
}

nst_time nst_packet_time(const struct nst_packet *p)
{
    return p->time;
}

uint64_t nst_packet_number(const struct nst_packet *p)
{
    return p->number;
}

unsigned nst_packet_port(const struct nst_packet *p)
{
    return p->port;
}

/* A checksum and how the edit has changed what it covers. */
struct sum {
    size_t at;      /* of the checksum field; 0: none */
    int64_t change; /* of the sum of 16-bit words, not folded */
    bool udp;
};

/* The part of [from, to) that the edit overwrites changes the sum; words count from `from`, which lies at an even place
 * of the checksummed bytes. The checksum field itself does not count. */
static void cover(struct sum *s, size_t from, size_t to, const uint8_t *old, const uint8_t *new, size_t off, size_t len)
{
    size_t a = off > from ? off : from;
    size_t b = off + len < to ? off + len : to;

    for (size_t i = a; i < b; i++) {
        if (i == s->at || i == s->at + 1)
            continue;
        int diff = new[i - off] - old[i - off];
        s->change += (i - from) % 2 == 0 ? diff * 256 : diff;
    }
}

static uint16_t load16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void mend(uint8_t *data, const struct sum *s)
{
    if (s->at == 0)
        return;
    uint16_t old = load16(data + s->at);
    if (s->udp && old == 0) /* the sender did not use it */
        return;
    int64_t change = s->change % 0xffff;
    if (change == 0)
        return;
    uint32_t sum = (uint16_t)~old + (uint32_t)(change < 0 ? change + 0xffff : change);
    sum = (sum & 0xffff) + (sum >> 16);
    uint16_t new = (uint16_t)~sum;
    if (s->udp && new == 0)
        new = 0xffff;
    data[s->at] = (uint8_t)(new >> 8);
    data[s->at + 1] = (uint8_t) new;
}

/* Most edits are of whole words of the addresses or the ports, or of what stands before the IP header: those are done, and
 * true is returned. The checksums that cover them cover all of them. */
static bool edit_words(const struct nst_headers *h, uint8_t *data, size_t off, const uint8_t *new, size_t len)
{
    bool l4 = h->l4 != 0 && (h->proto == 6 || h->proto == 17), ip = false;
    size_t end = off + len, address = h->l3 + (h->family == 4 ? 12u : 8u);

    if (h->family == 0 || end <= h->l3) {
        memcpy(data + off, new, len);
        return true;
    }
    if (((off - h->l3) | len) & 1)
        return false;
    if (off >= address && end <= address + (h->family == 4 ? 8u : 32u))
        ip = h->family == 4;
    else if (!l4 || off < h->l4 || end > h->l4 + 4u)
        return false;
    words_put(h, data, off, new, len, ip);
    return true;
}

static int edit(struct nst_packet *p, size_t off, const void *bytes, size_t len)
{
    struct rte_mbuf *m = mbuf_of(p);
    const struct nst_headers *h = &p->h;
    uint8_t *data = rte_pktmbuf_mtod(m, uint8_t *);
    const uint8_t *new = bytes;
    struct sum ip = { 0 }, l4 = { 0 };

    if (off > m->data_len || len > m->data_len - off)
        return -ERANGE;
    if (len == 0 || edit_words(h, data, off, new, len))
        return 0;
    const uint8_t *old = data + off;
    if (h->family == 4) {
        ip.at = h->l3 + 10u;
        cover(&ip, h->l3, h->l3 + (data[h->l3] & 15u) * 4, old, new, off, len);
    }
    if (h->family != 0 && h->l4 != 0 && (h->proto == 6 || h->proto == 17)) {
        size_t end = (size_t)h->payload + h->payload_len;
        l4.udp = h->proto == 17;
        l4.at = h->l4 + (l4.udp ? 6u : 16u);
        if (l4.udp) { /* bytes of the IP packet behind the datagram are not summed */
            size_t n = load16(data + h->l4 + 4);
            if (n >= 8 && h->l4 + n < end)
                end = h->l4 + n;
        }
        cover(&l4, h->l4, end, old, new, off, len);
        if (h->family == 4) /* the addresses, of the pseudo header */
            cover(&l4, h->l3 + 12u, h->l3 + 20u, old, new, off, len);
        else
            cover(&l4, h->l3 + 8u, h->l3 + 40u, old, new, off, len);
    }
    if (h->family == 4 && h->proto == 1 && h->l4 == 0 && h->payload_len >= 4) { /* ICMP, which has no pseudo header */
        l4.at = h->payload + 2u;
        cover(&l4, h->payload, (size_t)h->payload + h->payload_len, old, new, off, len);
    }
    /* The checksum fields keep what they have until they are mended. */
    for (size_t i = 0; i < len; i++) {
        size_t at = off + i;
        if ((ip.at != 0 && (at == ip.at || at == ip.at + 1)) || (l4.at != 0 && (at == l4.at || at == l4.at + 1)))
            continue;
        data[at] = new[i];
    }
    mend(data, &ip);
    mend(data, &l4);
    return 0;
}

int nst_packet_edit(struct nst_packet *p, size_t off, const void *bytes, size_t len)
{
    struct packet_outer_sum around[NST_TUNNEL_DEPTH];

    if ((p->flags & PACKET_TUNNEL) == 0)
        return edit(p, off, bytes, len);
    unsigned n = packet_outer_sums(p, around);
    int rc = edit(p, off, bytes, len);
    packet_outer_mend(p, around, n);
    return rc;
}
