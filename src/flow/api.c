/* SPDX-License-Identifier: Apache-2.0 */
/* What flow.h and packet.h offer to handlers. */
#include "flow/engine.h"
#include <string.h>

void *nst_nf_arg(const struct nst_flow *f)
{
    return f->engine->nf_arg;
}

void *nst_flow_state(struct nst_flow *f)
{
    return f->state + f->engine->state_at[2];
}

void *nst_flow_inspector(struct nst_flow *f, enum nst_side side)
{
    return f->engine->nf->half[side].inspect != NULL ? flow_inspector(f, side) : NULL;
}

struct nst_packet *nst_flow_packet(const struct nst_flow *f, enum nst_side side)
{
    return f->turn[side] != NULL ? f->turn[side]->ev.packet : NULL;
}

bool nst_flow_bytes(struct nst_flow *f, enum nst_side side, struct nst_slice *next)
{
    const struct nst_engine *e = f->engine;
    const struct nst_inspector *inspect = e->half[side].inspect;
    const struct flow_turn *turn = f->turn[side];

    return inspect != NULL && inspect->bytes != NULL && turn != NULL && turn->ev.packet != NULL &&
           inspect->bytes(f->state + e->state_at[side], f, side, next);
}

struct nst_packet *nst_take(const struct nst_event *ev)
{
    /* The engine has a reference of its own until the verdict, which comes after the packet may have been sent. */
    if (ev->packet != NULL && (ev->packet->flags & PACKET_TAKEN) == 0) {
        ev->packet->flags |= PACKET_TAKEN;
        rte_pktmbuf_refcnt_update(mbuf_of(ev->packet), 1);
    }
    return ev->packet;
}

void nst_packet_turn(struct nst_packet *p)
{
    enum { MAC = 6 };
    const uint8_t *was = nst_packet_bytes(p, 0, 2 * MAC);
    uint8_t turned[2 * MAC];

    memcpy(turned, was + MAC, MAC);
    memcpy(turned + MAC, was, MAC);
    (void)nst_packet_edit(p, 0, turned, sizeof turned);
    p->port ^= p->flow->engine->n_ports > 1; /* it leaves by the other port of the one that it seems to have come by */
}

struct nst_packet *nst_packet_keep(const struct nst_event *ev)
{
    struct nst_engine *e = ev->packet->flow->engine;

    if (e->stats.held >= e->held_limit)
        return NULL;
    e->kept++;
    if (++e->stats.held > e->stats.held_peak)
        e->stats.held_peak = e->stats.held;
    return nst_take(ev);
}

/* ---- who they are ---- */
static bool is_b(const struct nst_flow *f, enum nst_side side)
{
    return ((f->flags & FLOW_CLIENT_IS_B) != 0) == (side == NST_CLIENT);
}

static bool in_tunnel(const struct nst_flow *f)
{
    return key_vlan(&f->key) >= KEY_TUNNEL;
}

static size_t put_be(uint8_t *to, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
    return bytes;
}

/* Protocol, VLAN, source address and port, destination address and port; in a tunnel the name of its network. */
size_t nst_flow_key(const struct nst_flow *f, enum nst_side side, uint8_t key[NST_FLOW_KEY_MAX])
{
    const struct flow_key *k = &f->key;
    bool to_b = is_b(f, side);
    size_t n = 0;

    key[n++] = key_proto(k);
    n += put_be(key + n, in_tunnel(f) ? KEY_TUNNEL : key_vlan(k), 2);
    n += key_address(k, !to_b, key + n);
    n += put_be(key + n, to_b ? key_port_a(k) : key_port_b(k), 2);
    n += key_address(k, to_b, key + n);
    n += put_be(key + n, to_b ? key_port_b(k) : key_port_a(k), 2);
    if (in_tunnel(f)) {
        const uint8_t *name;
        uint32_t len = networks_name(&f->engine->networks, key_vlan(k), &name);
        memcpy(key + n, name, len);
        n += len;
    }
    return n;
}

void nst_flow_endpoint(const struct nst_flow *f, enum nst_side side, struct nst_endpoint *out)
{
    bool b = is_b(f, side);

    *out = (struct nst_endpoint){
        .family = key_family(&f->key),
        .port = b ? key_port_b(&f->key) : key_port_a(&f->key),
    };
    key_address(&f->key, b, out->addr);
}

uint8_t nst_flow_proto(const struct nst_flow *f)
{
    return key_proto(&f->key);
}

uint16_t nst_flow_vlan(const struct nst_flow *f)
{
    return in_tunnel(f) ? 0 : key_vlan(&f->key);
}
