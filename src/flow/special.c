/* SPDX-License-Identifier: Apache-2.0 */
/* Packets that are not plainly a flow's: found when a burst is parsed, and dealt with before its flows are looked up.
 */
#include "flow/checksum.h"
#include "flow/way.h"
#include <netinet/in.h>

/* The NF is for it. */
static bool is_ours(const struct nst_engine *e, uint8_t proto)
{
    if (e->any)
        return true;
    return e->proto == 0 ? proto == IPPROTO_TCP || proto == IPPROTO_UDP : proto == e->proto;
}

static bool passes(enum nst_verdict v)
{
    return v == NST_FORWARD || v == NST_FORWARD_FLOW;
}

bool fragment_is_ours(const struct nst_engine *e, uint8_t proto)
{
    uint8_t udp = NST_TUNNEL_VXLAN | NST_TUNNEL_GTPU, carried = 0;

    if (e->tunnels != 0)
        carried = proto == IPPROTO_UDP                             ? udp
                  : proto == IPPROTO_GRE                           ? NST_TUNNEL_GRE
                  : proto == IPPROTO_IPIP || proto == IPPROTO_IPV6 ? NST_TUNNEL_IPIP
                                                                   : 0;
    return proto == 0 || is_ours(e, proto) || (e->tunnels & carried) != 0;
}

static enum nst_cause cause_of(enum parsed parsed)
{
    switch (parsed) {
    case PARSED_FRAGMENT:
        return NST_BY_FRAGMENT;
    case PARSED_CHECKSUM:
        return NST_BY_CHECKSUM;
    case PARSED_NO_ROOM:
        return NST_BY_NO_MEMORY;
    default:
        return NST_BY_MALFORMED;
    }
}

void __attribute__((noinline, cold)) pass_or_drop(struct nst_engine *e, struct nst_packet *p, enum parsed parsed)
{
    enum nst_cause cause = cause_of(parsed);

    if (parsed == PARSED_OTHER_PROTO && icmp_take(e, p))
        return;
    if (parsed >= PARSED_MALFORMED)
        e->stats.faults[parsed - PARSED_MALFORMED]++;
    if (parsed == PARSED_NO_ROOM)
        e->stats.networks_refused++;
    if (parsed == PARSED_NOT_IP) {
        e->stats.not_ip++;
    } else if (parsed == PARSED_OTHER_PROTO || (!is_ours(e, p->h.proto) && p->h.proto != 0)) {
        e->stats.other_proto++;
    } else {
        if (!passes(policy_of(e, cause))) {
            packet_drop(e, p, cause);
            return;
        }
    }
    packet_forward(e, p);
}

bool __attribute__((noinline, cold)) special_packet(struct nst_engine *e, unsigned i)
{
    struct nst_packet *p = packet_of(e->mbuf[i]);

    if (e->parsed[i] != PARSED_OTHER_PROTO || !e->any) {
        pass_or_drop(e, p, (enum parsed)e->parsed[i]);
        return true;
    }
    if (icmp_take(e, p)) /* only errors come here: burst_special has given the others a flow */
        return true;
    parse_other(e->mbuf[i], &p->h, &e->key[i], &e->from_b[i]);
    e->hash[i] = key_hash(&e->key[i], &e->secret);
    return false;
}

static bool is_icmp(const struct nst_headers *h)
{
    return h->proto == (h->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

/* What the port could not vouch for, of a packet of another protocol that is whole. */
static bool other_holds(const struct nst_engine *e, const struct nst_packet *p)
{
    return checksums_hold(e, p) &&
           ((p->flags & e->checks) == 0 || !is_icmp(&p->h) || checksum_icmp_right(mbuf_of(p), &p->h));
}

/* ---- fragments ---- */
void __attribute__((cold)) fragment_give_up(void *engine, struct nst_packet *p, enum nst_fault why)
{
    struct nst_engine *e = engine;

    e->stats.faults[why] += p->flags & PACKET_WHOLE ? fragments_count(p) : 1;
    if (passes(policy_of(e, NST_BY_FRAGMENT)))
        packet_forward(e, p);
    else
        packet_drop(e, p, NST_BY_FRAGMENT);
}

void __attribute__((noinline, cold))
whole_send(struct nst_engine *e, struct nst_packet *whole, struct nst_port *port, uint64_t *count)
{
    uint32_t came = fragments_count(whole), n = 0;
    struct nst_packet *p = fragments_unfold(&e->fragments, whole, &n);

    if (p == NULL) {
        e->stats.dropped[NST_BY_NO_MEMORY] += came;
        return;
    }
    for (struct nst_packet *next; p != NULL; p = next) {
        next = p->next;
        if (p->flags & PACKET_WHOLE) { /* a fragment in a tunnel, which came in fragments */
            uint32_t part = fragments_count(p);
            whole_send(e, p, port, count);
            came -= part;
            n--;
        } else {
            port_tx(port, mbuf_of(p));
        }
    }
    sent_as(e, count, came, n);
}

void __attribute__((noinline, cold)) whole_drop(struct nst_engine *e, struct nst_packet *whole, enum nst_cause cause)
{
    e->stats.dropped[cause] += fragments_free(&e->fragments, whole);
}

/* A packet of another protocol, where the NF is for all: a flow's, or an ICMP error, which first may belong to the flow
 * that it quotes. */
static enum parsed other_flow(struct nst_engine *e, unsigned i)
{
    struct nst_packet *p = packet_of(e->mbuf[i]);
    struct nst_icmp icmp;

    if (nst_packet_icmp(p, &icmp) == 0)
        return PARSED_OTHER_PROTO;
    parse_other(e->mbuf[i], &p->h, &e->key[i], &e->from_b[i]);
    return PARSED_FLOW;
}

static unsigned depth_of(const struct nst_packet *p)
{
    return p->flags & PACKET_TUNNEL ? p->n_around : 0;
}

/* A datagram that was put together. */
static enum parsed parse_again(struct nst_engine *e, unsigned i)
{
    enum parsed parsed = engine_parse(e, e->mbuf[i], &e->key[i], &e->from_b[i], false);

    if (parsed == PARSED_OTHER_PROTO && e->any)
        return other_flow(e, i);
    return parsed == PARSED_FLOW && e->proto != 0 && packet_of(e->mbuf[i])->h.proto != e->proto ? PARSED_OTHER_PROTO
                                                                                                : parsed;
}

/* A packet that was parsed as if there were no tunnels. */
static enum parsed parse_inside(struct nst_engine *e, unsigned i)
{
    struct nst_packet *p = packet_of(e->mbuf[i]);
    enum parsed parsed = tunnel_parse(e, e->mbuf[i], (enum parsed)e->parsed[i], &e->key[i], &e->from_b[i], false);

    e->stats.tunnelled += depth_of(p) != 0;
    return parsed == PARSED_FLOW && e->proto != 0 && p->h.proto != e->proto ? PARSED_OTHER_PROTO : parsed;
}

void __attribute__((cold)) whole_give(struct nst_engine *e, struct nst_packet *whole, const struct flow_key *key)
{
    uint32_t n = 0;

    e->fragments.wholes_made--;
    for (struct nst_packet *p = fragments_unfold(&e->fragments, whole, &n), *next; p != NULL; p = next) {
        next = p->next;
        if (p->flags & PACKET_WHOLE) {
            whole_give(e, p, key);
            continue;
        }
        e->stats.packets--; /* it counts where it arrives */
        e->stats.fragments--;
        e->stats.bytes -= mbuf_of(p)->pkt_len;
        cores_give(e, mbuf_of(p), key);
    }
}

/* A flow of another core: its fragments go there, and are put together once more. */
static bool give_fragments(struct nst_engine *e, unsigned i)
{
    if (e->cores == NULL || e->parsed[i] != PARSED_FLOW || cores_of_key(e->cores, &e->key[i]) == e->core)
        return false;
    whole_give(e, packet_of(e->mbuf[i]), &e->key[i]);
    return true;
}

/* False: there is no packet any more, for it is kept or has met its end. */
static bool take_fragment(struct nst_engine *e, unsigned i)
{
    while (e->parsed[i] == PARSED_FRAGMENT) {
        struct nst_packet *p = packet_of(e->mbuf[i]);
        unsigned depth = depth_of(p);

        if (!fragment_is_ours(e, p->h.proto))
            return true;
        if ((p->flags & PACKET_WHOLE) == 0)
            e->stats.fragments++;
        if (!checksums_hold(e, p)) {
            e->stats.faults[NST_FAULT_CHECKSUM]++;
            e->parsed[i] = PARSED_CHECKSUM;
            if (!is_ours(e, p->h.proto))
                p->h.proto = 0;
            return true;
        }
        p = fragments_add(&e->fragments, p, key_vlan(&e->key[i]), (uint32_t)((uint64_t)p->time >> TICK_SHIFT));
        if (p == NULL)
            return false;
        e->mbuf[i] = mbuf_of(p);
        e->parsed[i] = (uint8_t)parse_again(e, i);
        if (e->parsed[i] == PARSED_FRAGMENT && depth_of(p) <= depth) { /* a fragment in a fragment: nobody sends that */
            p->h.proto = 0;
            e->parsed[i] = (uint8_t)parsed_fault(NST_FAULT_NESTED);
        }
    }
    return !give_fragments(e, i);
}

/* ---- the burst ---- */
static void move_packet(struct nst_engine *e, const struct table_bucket *bucket[PORT_BURST], unsigned to, unsigned from)
{
    if (to == from)
        return;
    e->mbuf[to] = e->mbuf[from];
    e->parsed[to] = e->parsed[from];
    e->from_b[to] = e->from_b[from];
    e->hash[to] = e->hash[from];
    e->key[to] = e->key[from];
    bucket[to] = bucket[from];
}

/* False: it is none of this burst's any more. */
static bool look_closer(struct nst_engine *e, unsigned i)
{
    if (e->tunnels != 0 && e->parsed[i] <= PARSED_OTHER_PROTO)
        e->parsed[i] = (uint8_t)parse_inside(e, i);
    if (e->parsed[i] == PARSED_FRAGMENT && !take_fragment(e, i))
        return false;
    bool other = e->parsed[i] == PARSED_OTHER_PROTO && e->any;
    if (other)
        e->parsed[i] = (uint8_t)other_flow(e, i);
    const struct nst_packet *p = packet_of(e->mbuf[i]);
    if (other ? !other_holds(e, p) : e->parsed[i] == PARSED_FLOW && !checksums_hold(e, p)) {
        e->stats.faults[NST_FAULT_CHECKSUM]++;
        e->parsed[i] = PARSED_CHECKSUM;
    }
    return true;
}

void __attribute__((noinline)) burst_special(struct nst_engine *e, const struct table_bucket *bucket[PORT_BURST])
{
    unsigned keep = 0;

    for (unsigned i = 0; i < e->n; i++) {
        const struct rte_mbuf *m = e->mbuf[i];
        if (!look_closer(e, i))
            continue;
        if (e->parsed[i] == PARSED_FLOW &&
            (e->any || e->mbuf[i] != m || (packet_of(e->mbuf[i])->flags & PACKET_TUNNEL))) {
            e->hash[i] = key_hash(&e->key[i], &e->secret);
            bucket[i] = table_prefetch(&e->table, e->hash[i]);
        }
        move_packet(e, bucket, keep++, i);
    }
    e->n = (uint16_t)keep;
}
