/* SPDX-License-Identifier: Apache-2.0 */
/* What edit.h offers to NFs, streams and datagrams. Headers are in io/packet_headers.c. */
#include "flow/edit.h"
#include <rte_ip.h>
#include <rte_tcp.h>
#include <rte_udp.h>
#include <string.h>

/* ---- TCP ---- */
static uint8_t byte_at(const void *arg, uint32_t seq)
{
    const uint8_t *at;
    return source_piece((struct edit_source *)(uintptr_t)arg, seq, 1, &at) != 0 ? *at : 0;
}

static int refused(struct nst_flow *f, int rc)
{
    if (rc == -ENOSPC)
        f->engine->stats.edits_refused++;
    else if (rc == 0)
        f->engine->stats.edits++;
    return rc;
}

static int replace_in_stream(struct nst_flow *f, enum nst_side side, struct nst_packet *p, uint64_t offset,
                             size_t remove, const void *bytes, size_t len)
{
    struct edit_way *w = &edit_of(f)->way[side];
    const struct rte_tcp_hdr *h = rte_pktmbuf_mtod_offset(mbuf_of(p), const struct rte_tcp_hdr *, p->h.l4);
    struct tcp_place place;

    if (w->flags & WAY_BAD)
        return -EOPNOTSUPP;
    if (!tcp_place(f, side, &place))
        return -EINVAL;
    uint64_t in = offset - nst_tcp_offset(f, side);
    if (in > place.fresh || remove > place.fresh - in)
        return -EINVAL;
    uint32_t seq = rte_be_to_cpu_32(h->sent_seq) + ((h->tcp_flags & RTE_TCP_SYN_FLAG) != 0);
    struct edit_source source = { .p = p, .from = seq, .end = seq + p->h.payload_len, .kept = place.kept };
    struct edit_window window = {
        .from = place.next, .end = place.next + place.fresh, .byte = byte_at, .arg = &source
    };
    return refused(
        f, edit_add(&w->map, &f->engine->edit_pool, &window, place.next + (uint32_t)in, (uint32_t)remove, bytes, len));
}

/* ---- UDP ---- */
enum { LINK_MTU = 1500 };

static void set_lengths(struct nst_packet *p, uint8_t *d, uint16_t datagram)
{
    rte_be16_t len = rte_cpu_to_be_16(datagram);
    struct rte_udp_hdr *u = (void *)(d + p->h.l4);

    u->dgram_len = len;
    if (p->h.family == 4) {
        struct rte_ipv4_hdr *ip = (void *)(d + p->h.l3);
        ip->total_length = rte_cpu_to_be_16((uint16_t)(p->h.l4 - p->h.l3 + datagram));
        ip->hdr_checksum = 0;
        ip->hdr_checksum = (uint16_t)~rte_raw_cksum(ip, rte_ipv4_hdr_len(ip));
    } else {
        struct rte_ipv6_hdr *ip = (void *)(d + p->h.l3);
        ip->payload_len = rte_cpu_to_be_16((uint16_t)(p->h.l4 - p->h.l3 - sizeof *ip + datagram));
    }
}

static uint16_t fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

/* Of pseudo header and datagram, in memory's order. */
static uint16_t udp_sum(const struct nst_packet *p, const uint8_t *d, uint16_t datagram)
{
    const uint8_t *ip = d + p->h.l3;
    uint64_t sum = p->h.family == 4 ? rte_raw_cksum(ip + 12, 8) : rte_raw_cksum(ip + 8, 32);

    return fold(sum + rte_raw_cksum(d + p->h.l4, datagram) + rte_cpu_to_be_16(datagram) + RTE_BE16(IPPROTO_UDP));
}

static int replace_in_datagram(struct nst_flow *f, struct nst_packet *p, uint64_t offset, size_t remove,
                               const void *bytes, size_t len)
{
    struct rte_mbuf *m = mbuf_of(p);
    uint32_t payload = p->h.payload_len, after = m->pkt_len - (p->h.payload + payload); /* link padding */
    const struct nst_port *to = f->engine->peer[p->port];
    uint32_t mtu = to->mtu != 0 ? to->mtu : LINK_MTU;

    if (offset > payload || remove > payload - offset)
        return -EINVAL;
    if (m->nb_segs != 1 || (p->flags & (PACKET_TUNNEL | PACKET_WHOLE)) == (PACKET_TUNNEL | PACKET_WHOLE))
        return -EOPNOTSUPP;
    uint32_t l3 = p->flags & PACKET_TUNNEL && p->around[0].family != 0 ? p->around[0].l3 : p->h.l3;
    uint64_t size = payload - remove + len, datagram = sizeof(struct rte_udp_hdr) + size;
    if ((size > payload && (p->flags & PACKET_WHOLE) == 0 && p->h.payload - l3 + size > mtu) ||
        datagram > UINT16_MAX - 40)
        return -EMSGSIZE;
    rte_pktmbuf_trim(m, (uint16_t)after);
    if (size > payload && rte_pktmbuf_append(m, (uint16_t)(size - payload)) == NULL)
        return -EMSGSIZE;
    uint8_t *d = rte_pktmbuf_mtod(m, uint8_t *), *at = d + p->h.payload + offset;
    struct rte_udp_hdr *u = (void *)(d + p->h.l4);
    bool sums = u->dgram_cksum != 0;
    bool wrong = sums && udp_sum(p, d, (uint16_t)(sizeof *u + payload)) != 0xffff;

    memmove(at + len, at + remove, payload - offset - remove);
    if (len != 0)
        memcpy(at, bytes, len);
    if (size < payload)
        rte_pktmbuf_trim(m, (uint16_t)(payload - size));
    p->h.payload_len = (uint16_t)size;
    set_lengths(p, d, (uint16_t)datagram);
    if (sums) {
        u->dgram_cksum = 0;
        uint16_t sum = (uint16_t)~udp_sum(p, d, (uint16_t)datagram);
        if (wrong)
            sum = (uint16_t)~sum;
        u->dgram_cksum = sum != 0 ? sum : 0xffff;
    }
    if (p->flags & PACKET_TUNNEL)
        packet_fit(d, p->around, p->n_around, (uint32_t)p->h.payload + (uint32_t)size);
    return 0;
}

/* ---- the NF's side ---- */
int nst_flow_replace(struct nst_flow *f, enum nst_side side, uint64_t offset, size_t remove, const void *bytes,
                     size_t len)
{
    struct nst_packet *p = nst_flow_packet(f, side);
    const struct nst_half *half = &f->engine->nf->half[side];

    if (!half->edits)
        return -EOPNOTSUPP;
    if (p == NULL || (p->dir == 0 ? NST_SERVER : NST_CLIENT) != side)
        return -EINVAL;
    if (half->inspect == &nst_tcp && (f->flags & FLOW_EDITED) == 0) /* in a tunnel */
        return -EOPNOTSUPP;
    if (half->inspect == &nst_tcp)
        return replace_in_stream(f, side, p, offset, remove, bytes, len);
    int rc = replace_in_datagram(f, p, offset, remove, bytes, len);
    if (rc == 0) {
        f->engine->stats.edits++;
        udp_again(f, side);
    }
    return rc;
}

/* Whether something can be sent to `side` in the other's name. */
static int can_speak(const struct nst_flow *f, enum nst_side side)
{
    if ((f->flags & FLOW_EDITED) == 0 || (f->engine->edits & 1 << side) == 0)
        return -EOPNOTSUPP;
    uint16_t flags = edit_of(f)->way[side].flags;
    if (flags & WAY_BAD)
        return -EOPNOTSUPP;
    return (flags & WAY_HEAD) && (flags & WAY_LEFT) ? 0 : -EAGAIN;
}

int nst_flow_inject(struct nst_flow *f, enum nst_side side, const void *bytes, size_t len)
{
    struct tcp_place place;
    int rc = can_speak(f, side);

    if (rc < 0)
        return rc;
    if (!tcp_place(f, side, &place))
        return -EAGAIN;
    if (place.ended)
        return -EPIPE;
    if (len == 0)
        return 0;
    rc = refused(f, edit_add_loose(&edit_of(f)->way[side].map, &f->engine->edit_pool, place.next, bytes, len));
    if (rc == 0)
        made_loose(f, side);
    return rc;
}

bool nst_flow_ends(struct nst_flow *f, enum nst_side side)
{
    struct tcp_place place;

    return tcp_place(f, side, &place) && place.ends;
}

int nst_flow_inject_reset(struct nst_flow *f, enum nst_side side)
{
    struct edit_segments s;
    uint8_t head[EDIT_HEAD_MAX];
    int rc = can_speak(f, side);

    if (rc < 0)
        return rc;
    const struct edit_way *w = &edit_of(f)->way[side];
    segments_made(&s, f, side, head, RTE_TCP_RST_FLAG | RTE_TCP_ACK_FLAG, w->left, 0);
    segments_end(&s, false);
    f->engine->stats.injected += s.n;
    return s.n != 0 ? 0 : -ENOMEM;
}
