/* SPDX-License-Identifier: Apache-2.0 */
/* Segments that are built anew: from the headers of one that came, or from what was noted of its way. */
#include "flow/edit.h"
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <string.h>

enum { LINK_MTU = 1500, TCP_HEADER = sizeof(struct rte_tcp_hdr), TIME_OPTION = 12 };

/* ---- checksums ---- */
static uint32_t fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint32_t)sum;
}

/* Of the pseudo header and of the TCP segment, as it lies in memory. */
static uint32_t tcp_sum(const struct rte_mbuf *m, uint16_t l3, uint16_t l4, uint8_t family, uint32_t len)
{
    const uint8_t *ip = rte_pktmbuf_mtod_offset(m, const uint8_t *, l3);
    uint16_t raw = 0;
    uint64_t sum;

    if (rte_raw_cksum_mbuf(m, l4, len, &raw) < 0)
        return 0;
    sum = family == 4 ? rte_raw_cksum(ip + 12, 8) : rte_raw_cksum(ip + 8, 32);
    return fold(sum + raw + rte_cpu_to_be_16((uint16_t)len) + RTE_BE16(IPPROTO_TCP));
}

/* ---- the sender's bytes ---- */
static const struct segment *kept_at(struct edit_source *s, uint32_t seq)
{
    if (s->kept == NULL)
        return NULL;
    if (s->at == NULL || seq_diff(s->at->seq, seq) > 0)
        s->at = stream_from(s->kept, seq);
    while (s->at != NULL && seq_diff(segment_end(s->at), seq) <= 0)
        s->at = segment_next(s->at);
    return s->at;
}

uint32_t source_piece(struct edit_source *s, uint32_t seq, uint32_t len, const uint8_t **at)
{
    uint32_t in = seq - s->from;
    bool here = s->p != NULL && in < s->end - s->from;
    const struct segment *x = here && !s->kept_first ? NULL : kept_at(s, seq);

    if (x != NULL && seq_diff(x->seq, seq) <= 0) {
        uint32_t left = segment_end(x) - seq;
        *at = segment_bytes(x) + (seq - x->seq);
        return left < len ? left : len;
    }
    if (!here)
        return 0;
    uint32_t left = s->end - seq;
    if (x != NULL && x->seq - seq < left)
        left = x->seq - seq;
    return packet_piece(s->p, s->p->h.payload + in, left < len ? left : len, at);
}

/* ---- building ---- */
/* What a segment may carry: the announced size counts TCP options in (RFC 6691). */
static void set_limit(struct edit_segments *s, uint16_t mss)
{
    uint32_t ip = s->family == 4 ? (uint32_t)sizeof(struct rte_ipv4_hdr) : (uint32_t)sizeof(struct rte_ipv6_hdr);
    uint32_t link = s->to->mtu != 0 ? s->to->mtu : LINK_MTU, headers = (uint32_t)(s->head_len - s->l3);
    uint32_t options = s->head_len - s->l4 - TCP_HEADER;

    s->limit = link > headers ? link - headers : 1;
    if (mss == 0)
        mss = (uint16_t)(link > ip + TCP_HEADER ? link - ip - TCP_HEADER : 1);
    if (mss <= options)
        s->limit = 1;
    else if (mss - options < s->limit)
        s->limit = mss - options;
}

void segments_like(struct edit_segments *s, struct nst_engine *e, struct nst_port *to, const struct nst_packet *p,
                   uint32_t seq, uint16_t mss)
{
    const struct rte_mbuf *m = mbuf_of(p);
    const uint8_t *head = rte_pktmbuf_mtod(m, const uint8_t *);
    uint32_t len = (uint32_t)(p->h.payload - p->h.l4) + p->h.payload_len;

    *s = (struct edit_segments){
        .e = e,
        .to = to,
        .like = p,
        .head = head,
        .l3 = p->h.l3,
        .l4 = p->h.l4,
        .head_len = p->h.payload,
        .family = p->h.family,
        .seq = seq,
        .next = seq,
        .most = UINT32_MAX,
    };
    /* In a capture a checksum may have been the device's business. */
    s->wrong = !e->replay && tcp_sum(m, p->h.l3, p->h.l4, p->h.family, len) != 0xffff;
    set_limit(s, mss);
}

static bool open_segment(struct edit_segments *s)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(port_pool);
    uint8_t *d = m != NULL ? (uint8_t *)rte_pktmbuf_append(m, s->head_len) : NULL;

    if (d == NULL) {
        rte_pktmbuf_free(m);
        s->failed = true;
        return false;
    }
    memcpy(d, s->head, s->head_len);
    s->m = m;
    s->seq = s->next;
    uint32_t room = rte_pktmbuf_tailroom(m);
    s->room = room < s->limit ? room : s->limit;
    return true;
}

static void set_ip(const struct edit_segments *s, uint8_t *d, uint32_t payload)
{
    uint32_t len = s->head_len - s->l3 + payload;

    if (s->family == 4) {
        struct rte_ipv4_hdr *ip = (void *)(d + s->l3);
        ip->total_length = rte_cpu_to_be_16((uint16_t)len);
        ip->packet_id = rte_cpu_to_be_16((uint16_t)(rte_be_to_cpu_16(ip->packet_id) + s->n));
        ip->hdr_checksum = 0;
        ip->hdr_checksum = (uint16_t)~rte_raw_cksum(ip, rte_ipv4_hdr_len(ip));
    } else {
        struct rte_ipv6_hdr *ip = (void *)(d + s->l3);
        ip->payload_len = rte_cpu_to_be_16((uint16_t)(len - sizeof *ip));
    }
}

static void close_segment(struct edit_segments *s, bool last, bool fin)
{
    enum { FIRST_ONLY = RTE_TCP_SYN_FLAG | RTE_TCP_CWR_FLAG, LAST_ONLY = RTE_TCP_FIN_FLAG | RTE_TCP_PSH_FLAG };
    struct rte_mbuf *m = s->m;
    uint8_t *d = rte_pktmbuf_mtod(m, uint8_t *);
    struct rte_tcp_hdr *t = (void *)(d + s->l4);
    uint8_t flags = t->tcp_flags;
    uint32_t seq = s->seq, payload = s->next - s->seq;

    if (s->n > 0)
        flags &= (uint8_t)~FIRST_ONLY;
    else if (flags & RTE_TCP_SYN_FLAG)
        seq--;
    if (!last)
        flags &= (uint8_t)~LAST_ONLY;
    else
        flags = (uint8_t)((flags & ~RTE_TCP_FIN_FLAG) | (fin ? RTE_TCP_FIN_FLAG : 0));
    if (payload == 0)
        flags &= (uint8_t)~RTE_TCP_PSH_FLAG;
    int32_t urgent = seq_diff(s->urgent_at, seq);
    if (flags & RTE_TCP_URG_FLAG) {
        if (!s->urgent || urgent <= 0)
            flags &= (uint8_t)~RTE_TCP_URG_FLAG;
        t->tcp_urp = flags & RTE_TCP_URG_FLAG ? rte_cpu_to_be_16((uint16_t)(urgent < 0xffff ? urgent : 0xffff)) : 0;
    }
    t->tcp_flags = flags;
    t->sent_seq = rte_cpu_to_be_32(seq);
    set_ip(s, d, payload);
    t->cksum = 0;
    t->cksum = (uint16_t)~tcp_sum(m, s->l3, s->l4, s->family, s->head_len - s->l4 + payload);
    if (s->wrong)
        t->cksum = (uint16_t)~t->cksum;

    struct nst_packet *k = packet_of(m);
    memset(k, 0, sizeof *k);
    k->time = s->like != NULL ? s->like->time : nst_now();
    k->number = s->like != NULL ? s->like->number : 0;
    k->port = s->like != NULL ? s->like->port : 0;
    s->m = NULL;
    s->n++;
    port_tx(s->to, m);
}

size_t segments_bytes(struct edit_segments *s, const uint8_t *bytes, size_t len)
{
    size_t left = len;

    while (left > 0 && !segments_full(s)) {
        if (s->m != NULL && s->room == 0) {
            close_segment(s, false, false);
            continue;
        }
        if (s->m == NULL && !open_segment(s))
            break;
        size_t n = left < s->room ? left : s->room;
        if (s->bounded && n > s->edge - s->next)
            n = s->edge - s->next;
        memcpy(rte_pktmbuf_append(s->m, (uint16_t)n), bytes, n);
        bytes += n;
        left -= n;
        s->room -= (uint32_t)n;
        s->next += (uint32_t)n;
    }
    return len - left;
}

/* An edit's bytes from `off` on. False: not all of them. */
static bool add_edit(struct edit_segments *s, const struct edit *x, uint32_t off)
{
    const uint8_t *at;

    while (off < x->len) {
        size_t n = edit_piece(x, off, &at), done = segments_bytes(s, at, n);
        off += (uint32_t)done;
        if (done < n)
            return false;
    }
    return true;
}

uint32_t segments_stream(struct edit_segments *s, const struct edit_map *map, struct edit_source *source, uint32_t from,
                         uint32_t skip, uint32_t end)
{
    const struct edit *x = edit_from(map, from);
    const uint8_t *at;

    while (seq_diff(from, end) < 0) {
        if (x != NULL && seq_diff(x->seq, from) <= 0) {
            if (!add_edit(s, x, skip))
                return x->seq;
            skip = 0;
            from = x->seq + x->removed;
            x = x->next;
            continue;
        }
        uint32_t stop = x != NULL && seq_diff(x->seq, end) < 0 ? x->seq : end;
        uint32_t n = source_piece(source, from, stop - from, &at), done = (uint32_t)segments_bytes(s, at, n);
        from += done;
        if (n == 0 || done < n)
            break;
    }
    return from;
}

void segments_end(struct edit_segments *s, bool fin)
{
    if (s->m == NULL && !s->failed && (s->n == 0 || fin))
        open_segment(s);
    if (s->m != NULL)
        close_segment(s, true, fin);
}

/* ---- from what was noted ---- */
uint8_t *segments_made(struct edit_segments *s, struct nst_flow *f, enum nst_side side, uint8_t *buffer, uint8_t flags,
                       uint32_t seq, unsigned options)
{
    struct nst_engine *e = f->engine;
    struct edit_flow *ed = edit_of(f);
    const struct edit_way *w = &ed->way[side];
    bool times = (w->flags & WAY_TIME) && (ed->way[!side].flags & WAY_TIME);
    uint32_t len = TCP_HEADER + (times ? TIME_OPTION : 0) + options;

    if ((w->flags & (WAY_HEAD | WAY_BAD)) != WAY_HEAD)
        return NULL;
    memcpy(buffer, w->head, w->head_len);
    struct rte_tcp_hdr *t = (void *)(buffer + w->head_len);
    *t = (struct rte_tcp_hdr){
        .recv_ack = rte_cpu_to_be_32(w->ack),
        .data_off = (uint8_t)(len / 4 << 4),
        .tcp_flags = flags,
        .rx_win = rte_cpu_to_be_16(w->window),
    };
    memcpy(t, &w->ports, sizeof w->ports);
    uint8_t *o = (uint8_t *)(t + 1);
    if (times) {
        const uint32_t option[] = { RTE_BE32(0x0101080a), rte_cpu_to_be_32(w->tsval),
                                    rte_cpu_to_be_32(ed->way[!side].tsval) };
        memcpy(o, option, sizeof option);
        o += sizeof option;
    }
    *s = (struct edit_segments){
        .e = e,
        .to = e->ports[w->port],
        .head = buffer,
        .l3 = w->l3,
        .l4 = w->head_len,
        .head_len = (uint16_t)(w->head_len + len),
        .family = (uint8_t)(buffer[w->l3] >> 4),
        .seq = seq,
        .next = seq,
        .most = UINT32_MAX,
    };
    set_limit(s, w->mss);
    return o;
}
