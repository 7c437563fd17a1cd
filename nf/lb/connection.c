/* SPDX-License-Identifier: Apache-2.0 */
/* Which back end a connection has: how it is chosen, its record, and when that has to be looked at again. */
#include "lb.h"
#include <string.h>

enum { VERSION = 1, TCP = 6, FIN = 1, SYN = 2, RST = 4, ACK = 16 };
enum { OPENING_S = 60, CLOSING_S = 120, UDP_S = 180, REFRESH_SHARE = 3, REASK_MS = 500 };

/* ---- whose it is ---- */
static struct lb_place place_of(const struct nst_flow *f, enum nst_side side)
{
    struct nst_endpoint end;
    struct lb_place p;

    nst_flow_endpoint(f, side, &end);
    p = (struct lb_place){ .family = end.family, .port = { (uint8_t)(end.port >> 8), (uint8_t)end.port } };
    memcpy(p.addr, end.addr, end.family == 4 ? 4 : 16);
    return p;
}

/* Who is taken for the client is a guess where its first packet was not seen, so both ends are looked up. */
static void classify(struct lb_packet *p)
{
    uint8_t proto = nst_flow_proto(p->flow);
    struct lb_flow *c = p->c;

    c->kind = LB_NOT_OURS;
    for (unsigned i = 0; i < 2 && c->kind == LB_NOT_OURS; i++) {
        struct lb_place at = place_of(p->flow, (enum nst_side) !i); /* most often the server */
        c->near = !i;
        if ((p->service = lb_service_at(p->config->services, proto, &at)) != NULL)
            c->kind = LB_FORWARD;
        else if (lb_backend_at(p->config->services, proto, &at) != NULL)
            c->kind = LB_BACK;
    }
}

/* "lb:" and the name of the stream that the near side receives. */
static void set_key(struct lb_packet *p)
{
    memcpy(p->key_bytes, "lb:", 3);
    p->key = (struct nst_slice){ p->key_bytes, 3 + nst_flow_key(p->flow, (enum nst_side)p->c->near, p->key_bytes + 3) };
}

/* A record's second name: its other end in place of the near one, which is what the name ends with. */
void lb_set_back_key(struct lb_packet *p)
{
    const struct lb_place *other = p->c->kind == LB_BACK ? &p->record.vip : &p->record.backend;
    size_t addr = other->family == 4 ? 4 : 16;

    memcpy(p->back_bytes, p->key_bytes, p->key.len);
    p->back_key = (struct nst_slice){ p->back_bytes, p->key.len };
    memcpy(p->back_bytes + p->key.len - addr - 2, other->addr, addr);
    memcpy(p->back_bytes + p->key.len - 2, other->port, 2);
}

nst_time lb_life(const struct lb *lb, const struct lb_packet *p)
{
    if (nst_flow_proto(p->flow) != TCP)
        return NST_SEC(UDP_S);
    return p->c->closing ? NST_SEC(CLOSING_S) : p->syn ? NST_SEC(OPENING_S) : lb->ttl_tcp;
}

/* ---- a flow whose back end is known ---- */
static void let_go(struct lb *lb, struct lb_flow *c)
{
    if (!c->counted)
        return;
    c->counted = false;
    if (lb->connections[c->id % LB_KNOWN] > 0)
        lb->connections[c->id % LB_KNOWN]--;
}

static const struct lb_backend *backend_of(const struct lb_packet *p)
{
    const struct lb_services *s = p->config->services;
    const struct lb_service *v = lb_service_at(s, nst_flow_proto(p->flow), &p->c->record.vip);

    return v != NULL ? lb_backend_of(s, v, &p->c->record.backend) : NULL;
}

/* Until when connections of a back end that drains may go on. */
static nst_time drain_end(const struct lb_packet *p, const struct lb_backend *b)
{
    int64_t limit = p->config->services->service[b->service]->drain;

    if (!b->drains || limit == 0)
        return NST_NEVER;
    return p->config->known->drains_since[b->id % LB_KNOWN] + limit;
}

/* By the services as they are now. A back end that is in the file no more keeps the connections that it has. */
static void look_again(struct lb *lb, struct lb_packet *p, nst_time renew)
{
    struct lb_flow *c = p->c;
    const struct lb_backend *b = backend_of(p);
    nst_time end = b != NULL ? drain_end(p, b) : NST_NEVER;

    let_go(lb, c);
    c->generation = p->config->generation;
    c->again = renew < end ? renew : end;
    if (b != NULL && c->kind == LB_FORWARD) {
        c->counted = true;
        c->id = b->id;
        lb->connections[b->id % LB_KNOWN]++;
    }
    if (end <= nst_now()) {
        let_go(lb, c);
        c->kind = LB_CUT;
        lb->count.drained++;
    }
}

void lb_adopt(struct lb *lb, struct lb_packet *p, bool opened)
{
    struct lb_flow *c = p->c;

    c->record = p->record;
    c->opened = !p->syn;
    lb->count.opened += opened;
    lb->count.taken_over += !opened;
    look_again(lb, p, nst_now() + lb_life(lb, p) / REFRESH_SHARE);
}

void lb_renewed(struct lb *lb, struct lb_packet *p, int rc)
{
    nst_time next = rc < 0 ? NST_SEC(1) : lb_life(lb, p) / REFRESH_SHARE;

    lb->count.renewed += rc >= 0;
    lb->count.not_renewed += rc < 0;
    p->c->opened = true;
    look_again(lb, p, nst_now() + next);
}

/* What a TCP packet says of its connection: true when its record has to live for another time from now on. */
static bool tcp_goes_on(struct lb_packet *p, uint8_t flags)
{
    struct lb_flow *c = p->c;

    if (flags & (FIN | RST)) {
        if (c->closing)
            return false;
        c->closing = true;
        nst_flow_life(p->flow, NST_LIFE_CLOSING, flags & RST ? NST_CLOSED_BY_RST : NST_CLOSED_BY_FIN);
        return true;
    }
    if (c->opened || c->closing || (flags & SYN))
        return false;
    c->opened = true; /* this engine sees one direction only, and would take it for a scan */
    nst_flow_life(p->flow, NST_LIFE_ESTABLISHED, NST_OPEN_STILL);
    return true;
}

bool lb_look(struct lb *lb, struct lb_packet *p, struct nst_flow *f, const struct nst_event *ev)
{
    const struct nst_headers *h = nst_packet_headers(ev->packet);
    bool tcp = h->proto == TCP;

    p->flow = f;
    p->ev = ev;
    p->config = lb->config;
    p->c = nst_flow_state(f);
    p->service = NULL;
    p->renews = p->opens = p->overwrite = false;
    p->syn = tcp && (h->tcp_flags & SYN);
    struct lb_flow *c = p->c;
    bool other = c->generation != p->config->generation, due = nst_now() >= c->again;
    if (c->kind == LB_NOBODYS) {
        if (!other && !due && !p->syn)
            return false;
        c->kind = LB_NEW;
    }
    if (c->kind == LB_NEW || (c->kind == LB_NOT_OURS && (other || due))) {
        classify(p);
        c->generation = p->config->generation;
        c->again = NST_NEVER;
        if (c->kind == LB_NOT_OURS)
            return false;
        p->arrives = (ev->side == (enum nst_side)c->near) == (ev->dir == NST_RECEIVED);
        set_key(p);
        memset(p->avoid, 0, sizeof p->avoid);
        p->opens = c->kind == LB_FORWARD && p->arrives &&
                   (!tcp || (h->tcp_flags & (SYN | ACK | RST | FIN)) == SYN || lb->unknown == LB_UNKNOWN_HASH);
        return true;
    }
    p->arrives = (ev->side == (enum nst_side)c->near) == (ev->dir == NST_RECEIVED);
    if (c->kind == LB_NOT_OURS || c->kind == LB_CUT)
        return false;
    if (other)
        look_again(lb, p, c->again);
    bool changed = tcp && tcp_goes_on(p, h->tcp_flags);
    if (!changed && nst_now() < c->again)
        return false;
    look_again(lb, p, nst_now() + NST_SEC(1)); /* its drain may have ended */
    if (c->kind == LB_CUT)
        return false;
    p->record = c->record;
    set_key(p);
    lb_set_back_key(p);
    return p->renews = true;
}

/* ---- choosing ---- */
struct choice {
    struct lb *lb;
    const struct lb_packet *p;
    uint64_t all; /* connections of the service, with this one */
};

static bool may(void *arg, unsigned index)
{
    const struct choice *x = arg;
    const struct lb_service *v = x->p->service;
    const struct lb_backend *b = &x->p->config->services->backend[v->first + index];

    if (b->drains || b->weight == 0 || (x->p->avoid[index / 64] >> (index % 64) & 1) != 0 ||
        lb_is_down(x->p->config->known, b->id))
        return false;
    if (x->lb->connections[b->id % LB_KNOWN] < lb_capacity(x->all, b->weight, v->weights))
        return true;
    x->lb->count.full++;
    return false;
}

/* The same without the bound: where it leaves nobody, because those with room are not there. */
static bool may_at_all(void *arg, unsigned index)
{
    struct choice *x = arg;
    uint64_t all = x->all, full = x->lb->count.full;

    x->all = UINT64_MAX / 2;
    bool yes = may(x, index);
    x->all = all;
    x->lb->count.full = full;
    return yes;
}

bool lb_choose(struct lb *lb, struct lb_packet *p)
{
    const struct lb_service *v = p->service;
    struct choice x = { .lb = lb, .p = p, .all = 1 };
    uint64_t number = lb_number(3, p->key_bytes, p->key.len);

    if (!v->any)
        return false;
    for (size_t i = v->first; i < v->first + v->n; i++)
        x.all += lb->connections[p->config->services->backend[i].id % LB_KNOWN];
    int index = lb_maglev_pick(&v->table, number, may, &x);
    if (index < 0)
        index = lb_maglev_pick(&v->table, number, may_at_all, &x);
    if (index < 0)
        return false;
    const struct lb_backend *b = &p->config->services->backend[v->first + (size_t)index];
    p->record = (struct lb_record){ .version = VERSION, .mode = (uint8_t)v->mode, .vip = v->vip, .backend = b->place };
    p->record.has_mac = b->has_mac;
    memcpy(p->record.mac, b->mac, sizeof b->mac);
    lb_set_back_key(p);
    return true;
}

/* ---- records ---- */
int lb_understand(struct lb *lb, struct lb_packet *p, int rc)
{
    struct lb_record r;

    if (rc < 0 && rc != -EMSGSIZE && rc != -EIO)
        return rc;
    memcpy(&r, p->found, sizeof r);
    if (rc != sizeof r || r.version != VERSION || r.mode > LB_DSR || r.has_mac > 1 || r.spare != 0 ||
        r.vip.family != r.backend.family || (r.vip.family != 4 && r.vip.family != 6)) {
        lb->count.bad_records++;
        return -ENOENT;
    }
    p->record = r;
    lb_set_back_key(p);
    return 0;
}

bool lb_serves(struct lb *lb, struct lb_packet *p)
{
    const struct lb_service *v = p->service;
    const struct lb_backend *b = lb_backend_of(p->config->services, v, &p->record.backend);
    bool there = b != NULL && p->record.mode == v->mode && !lb_is_down(p->config->known, b->id);

    if (there && p->syn) /* it begins anew, so it need not go on with one that drains */
        there = !b->drains && b->weight > 0;
    lb->count.moved += !there;
    return there;
}

bool lb_collides(struct lb *lb, struct lb_packet *p, int rc)
{
    const struct lb_service *v = p->service;

    if (rc == sizeof p->record && memcmp(p->found, &p->record, sizeof p->record) == 0)
        return false;
    lb->count.collisions++;
    for (size_t i = 0; i < v->n; i++)
        if (memcmp(&p->config->services->backend[v->first + i].place, &p->record.backend, sizeof p->record.backend) ==
            0)
            p->avoid[i / 64] |= (uint64_t)1 << (i % 64);
    return true;
}

/* ---- verdicts ---- */
static uint16_t port_of(const struct lb_place *p)
{
    return (uint16_t)(p->port[0] << 8 | p->port[1]);
}

static enum nst_verdict rewrite(const struct lb_packet *p, enum nst_packet_end end, const struct lb_place *to)
{
    struct nst_packet *packet = p->ev->packet;

    if (nst_packet_set_address(packet, end, to->family, to->addr) < 0 ||
        nst_packet_set_port(packet, end, port_of(to)) < 0)
        return NST_DROP;
    return NST_FORWARD;
}

enum nst_verdict lb_send(struct lb *lb, struct lb_packet *p)
{
    const struct lb_flow *c = p->c;
    const struct lb_record *r = &c->record;

    if (c->kind == LB_NOT_OURS)
        return NST_FORWARD;
    if (c->kind == LB_NOBODYS)
        return lb_fail(lb, p, -ESRCH);
    if (c->kind == LB_CUT) {
        (void)nst_packet_refuse(p->ev); /* at a bounded rate, so that its ends need not find out by themselves */
        return NST_DROP;
    }
    if (r->mode == LB_DSR) {
        lb->count.packets += p->arrives;
        return !p->arrives || nst_packet_set_mac(p->ev->packet, NST_DESTINATION, r->mac) == 0 ? NST_FORWARD : NST_DROP;
    }
    if (p->arrives != (c->kind == LB_FORWARD)) {
        lb->count
            .strangers++; /* from the service's address, or to a connection of the back end's that is not its own */
        return NST_DROP;
    }
    if (c->kind == LB_BACK) {
        lb->count.answers++;
        return rewrite(p, NST_SOURCE, &r->vip);
    }
    lb->count.packets++;
    if (r->has_mac && nst_packet_set_mac(p->ev->packet, NST_DESTINATION, r->mac) < 0)
        return NST_DROP;
    return rewrite(p, NST_DESTINATION, &r->backend);
}

enum nst_verdict lb_fail(struct lb *lb, struct lb_packet *p, int rc)
{
    struct lb_flow *c = p->c;
    enum lb_kind was = (enum lb_kind)c->kind;

    c->kind = LB_NEW; /* the next packet asks again */
    if (rc == -ENODEV) {
        lb->count.nobody++;
        (void)nst_packet_refuse(p->ev);
        return NST_DROP;
    }
    if (rc != -ESRCH)
        return nst_fail(p->flow, rc);
    if (was == LB_BACK) { /* the back end speaks for itself, as with a check */
        c->kind = LB_NOT_OURS;
        c->again = nst_now() + NST_MS(REASK_MS);
        return NST_FORWARD;
    }
    c->kind = LB_NOBODYS;
    if (was != LB_NOBODYS)
        c->again = nst_now() + NST_MS(REASK_MS);
    lb->count.unknown++;
    if (lb->unknown == LB_UNKNOWN_RESET)
        (void)nst_packet_refuse(p->ev);
    return nst_fail(p->flow, rc);
}

enum nst_verdict lb_closed(struct lb *lb, struct nst_flow *f)
{
    let_go(lb, nst_flow_state(f));
    return NST_FORWARD;
}

/* ---- ICMP errors ---- */
/* A checksum after some bytes of what it sums, at an even place, have become others (RFC 1624, equation 3). */
static void mend(uint8_t sum[2], const uint8_t *old, const uint8_t *now, size_t len)
{
    uint32_t s = (uint16_t) ~(sum[0] << 8 | sum[1]);

    for (size_t i = 0; i < len; i += 2)
        s += (uint32_t)(uint16_t) ~(old[i] << 8 | old[i + 1]) + (uint32_t)(now[i] << 8 | now[i + 1]);
    while (s >> 16)
        s = (s & UINT16_MAX) + (s >> 16);
    s = ~s;
    sum[0] = (uint8_t)(s >> 8);
    sum[1] = (uint8_t)s;
}

/* The transport header of the packet that is quoted at `at`; extension headers are not looked behind. */
static size_t quoted_ports(const struct nst_packet *packet, size_t at, uint8_t family)
{
    const uint8_t *ip = nst_packet_bytes(packet, at, family == 4 ? 20 : 40);

    return ip == NULL ? 0 : at + (family == 4 ? (ip[0] & 15u) * 4 : 40);
}

/* An error about the connection, to the end that it concerns: what it quotes, and whom it is for, are rewritten as the
 * packets that it speaks of were (RFC 5508, 4.2). */
enum nst_verdict lb_icmp_error(struct lb *lb, struct nst_flow *f, const struct nst_event *ev)
{
    enum { ICMP_HEADER = 8, SUM = 2, PORTS = 4, IP_SUM = 10 };
    const struct lb_flow *c = nst_flow_state(f);
    const struct nst_headers *h = nst_packet_headers(ev->packet);
    struct nst_packet *packet = ev->packet;
    bool to_near = ev->side == (enum nst_side)c->near, forward = c->kind == LB_FORWARD;

    if (c->kind == LB_NEW || c->kind == LB_NOT_OURS || c->kind == LB_NOBODYS ||
        (forward && c->record.mode == LB_DSR && !to_near))
        return NST_FORWARD;
    if (c->kind == LB_CUT || to_near != forward) {
        lb->count.strangers++;
        return NST_DROP;
    }
    if (c->record.mode == LB_DSR) {
        lb->count.icmp++;
        return nst_packet_set_mac(packet, NST_DESTINATION, c->record.mac) == 0 ? NST_FORWARD : NST_DROP;
    }
    /* To the service: what it has sent was the back end's. To the client: what it has sent to the service. */
    const struct lb_place *now = forward ? &c->record.backend : &c->record.vip;
    size_t len = h->family == 4 ? 4 : 16, inner = h->payload + ICMP_HEADER;
    size_t at = inner + (h->family == 4 ? 12 : 8) + (forward ? 0 : len);
    size_t port = quoted_ports(packet, inner, h->family) + (forward ? 0 : 2);
    const uint8_t *sum = nst_packet_bytes(packet, h->payload + SUM, 2), *was = nst_packet_bytes(packet, at, len);
    const uint8_t *ports = nst_packet_bytes(packet, port, 2), *outer = nst_packet_bytes(packet, h->l3, 40);
    uint8_t mended[2], ip_sum[2], source[16];
    if (sum == NULL || was == NULL || ports == NULL || outer == NULL)
        return NST_DROP;
    memcpy(mended, sum, sizeof mended);
    memcpy(source, outer + (h->family == 4 ? 12 : 8), len);
    bool from_backend = !forward && memcmp(source, c->record.backend.addr, len) == 0;
    if (h->family == 4) { /* its own checksum goes with the header, whose sum so stays what it was */
        const uint8_t *own = nst_packet_bytes(packet, inner + IP_SUM, 2);
        memcpy(ip_sum, own, sizeof ip_sum);
        mend(ip_sum, was, now->addr, len);
    } else { /* ICMPv6 sums more than itself, and so is mended here */
        mend(mended, ports, now->port, 2);
        mend(mended, was, now->addr, len);
        if (forward) /* the pseudo header */
            mend(mended, outer + 24, now->addr, len);
        else if (from_backend)
            mend(mended, source, now->addr, len);
    }
    int rc = nst_packet_edit(packet, port, now->port, 2);
    if (rc == 0)
        rc = nst_packet_edit(packet, at, now->addr, len);
    if (rc == 0 && h->family == 4)
        rc = nst_packet_edit(packet, inner + IP_SUM, ip_sum, 2);
    if (rc == 0 && h->family == 6)
        rc = nst_packet_edit(packet, h->payload + SUM, mended, 2);
    if (rc == 0 && (forward || from_backend))
        rc = nst_packet_set_address(packet, forward ? NST_DESTINATION : NST_SOURCE, h->family, now->addr);
    if (rc == 0 && forward && c->record.has_mac)
        rc = nst_packet_set_mac(packet, NST_DESTINATION, c->record.mac);
    lb->count.icmp += rc == 0;
    return rc == 0 ? NST_FORWARD : NST_DROP;
}
