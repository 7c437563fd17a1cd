/* SPDX-License-Identifier: Apache-2.0 */
/* Single fields of a packet's headers (netstar/edit.h), on top of nst_packet_edit, but for those that every packet of a
 * translator changes. */
#include "io/words.h"
#include <netinet/in.h>
#include <netstar/edit.h>

/* The packet's bytes when `len` of them at `off` may be put there without regard to tunnels. */
static uint8_t *plain(struct nst_packet *p, size_t off, size_t len)
{
    struct rte_mbuf *m = mbuf_of(p);

    return (p->flags & PACKET_TUNNEL) == 0 && off + len <= m->data_len ? rte_pktmbuf_mtod(m, uint8_t *) : NULL;
}

int nst_packet_set_address(struct nst_packet *p, enum nst_packet_end end, uint8_t family, const void *address)
{
    unsigned size = family == 4 ? 4 : 16;
    size_t at = p->h.l3 + (family == 4 ? 12u : 8u) + (end == NST_SOURCE ? 0 : size);

    if (p->h.family == 0 || p->h.family != family)
        return -EINVAL;
    uint8_t *data = plain(p, at, size);
    if (data == NULL)
        return nst_packet_edit(p, at, address, size);
    if (family == 4)
        words_put(&p->h, data, at, address, 4, true);
    else
        words_put(&p->h, data, at, address, 16, false);
    return 0;
}

int nst_packet_set_port(struct nst_packet *p, enum nst_packet_end end, uint16_t port)
{
    uint8_t bytes[] = { (uint8_t)(port >> 8), (uint8_t)port };
    size_t at = p->h.l4 + (end == NST_SOURCE ? 0u : 2u);

    if (p->h.l4 == 0 || (p->h.proto != IPPROTO_TCP && p->h.proto != IPPROTO_UDP))
        return -EINVAL;
    uint8_t *data = plain(p, at, sizeof bytes);
    if (data == NULL)
        return nst_packet_edit(p, at, bytes, sizeof bytes);
    words_put(&p->h, data, at, bytes, sizeof bytes, false);
    return 0;
}

int nst_packet_set_mac(struct nst_packet *p, enum nst_packet_end end, const void *mac)
{
    return nst_packet_edit(p, end == NST_SOURCE ? 6 : 0, mac, 6);
}

int nst_packet_set_ttl(struct nst_packet *p, uint8_t ttl)
{
    if (p->h.family == 0)
        return -EINVAL;
    return nst_packet_edit(p, p->h.l3 + (p->h.family == 4 ? 8u : 7u), &ttl, 1);
}

int nst_packet_set_dscp(struct nst_packet *p, uint8_t dscp)
{
    const uint8_t *was = p->h.family != 0 ? nst_packet_bytes(p, p->h.l3, 2) : NULL;

    if (was == NULL || dscp > 63)
        return -EINVAL;
    if (p->h.family == 4) {
        uint8_t tos = (uint8_t)(dscp << 2 | (was[1] & 3));
        return nst_packet_edit(p, p->h.l3 + 1u, &tos, 1);
    }
    /* Six bits across two bytes, between the version and ECN. */
    uint8_t bytes[] = { (uint8_t)((was[0] & 0xf0) | dscp >> 2), (uint8_t)((dscp & 3) << 6 | (was[1] & 0x3f)) };
    return nst_packet_edit(p, p->h.l3, bytes, sizeof bytes);
}
