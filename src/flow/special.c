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

void __attribute__((noinline, cold)) pass_or_drop(struct nst_engine *e, struct nst_packet *p, enum parsed parsed)
{
    enum nst_cause cause = parsed == PARSED_FRAGMENT   ? NST_BY_FRAGMENT
                           : parsed == PARSED_CHECKSUM ? NST_BY_CHECKSUM
                                                       : NST_BY_MALFORMED;

    if (parsed == PARSED_OTHER_PROTO && icmp_take(e, p))
        return;
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

/* What the port could not vouch for. */
static bool checksums_hold(const struct nst_engine *e, const struct nst_packet *p)
{
    unsigned flags = p->flags & e->checks;

    return flags == 0 || (flags == PACKET_CHECKSUM_OPEN && checksum_right(mbuf_of(p), &p->h, e->replay));
}

/* The same of a packet of another protocol that is whole. */
static bool other_holds(const struct nst_engine *e, const struct nst_packet *p)
{
    return checksums_hold(e, p) &&
           ((p->flags & e->checks) == 0 || !is_icmp(&p->h) || checksum_icmp_right(mbuf_of(p), &p->h));
}

/* ---- fragments ---- */
void __attribute__((cold)) fragment_give_up(void *engine, struct nst_packet *p)
{
    struct nst_engine *e = engine;

    if (passes(policy_of(e, NST_BY_FRAGMENT)))
        packet_forward(e, p);
    else
        packet_drop(e, p, NST_BY_FRAGMENT);
}

void __attribute__((noinline, cold))
whole_send(struct nst_engine *e, struct nst_packet *whole, struct nst_port *port, uint64_t *count)
{
    uint32_t came = whole->n_parts, n = 0;
    struct nst_packet *p = fragments_unfold(&e->fragments, whole, &n);

    if (p == NULL) {
        e->stats.dropped[NST_BY_NO_MEMORY] += came;
        return;
    }
    *count += came;
    if (n > came)
        e->stats.injected += n - came;
    for (struct nst_packet *next; p != NULL; p = next) {
        next = p->next;
        port_tx(port, mbuf_of(p));
    }
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

/* Of a packet that is parsed anew. */
static enum parsed parse_again(struct nst_engine *e, unsigned i)
{
    struct nst_packet *p = packet_of(e->mbuf[i]);
    enum parsed parsed = parse_packet(e->mbuf[i], &p->h, &e->key[i], &e->from_b[i]);

    if (parsed == PARSED_FRAGMENT) { /* a datagram whose data is a fragment: nobody sends that */
        p->h.proto = 0;
        return PARSED_MALFORMED;
    }
    if (parsed == PARSED_OTHER_PROTO && e->any)
        return other_flow(e, i);
    return parsed == PARSED_FLOW && e->proto != 0 && p->h.proto != e->proto ? PARSED_OTHER_PROTO : parsed;
}

/* A flow of another core: its fragments go there, and are put together once more. */
static bool give_fragments(struct nst_engine *e, unsigned i)
{
    struct nst_packet *p = packet_of(e->mbuf[i]);
    uint32_t n = 0;

    if (e->cores == NULL || e->parsed[i] != PARSED_FLOW || cores_of_key(e->cores, &e->key[i]) == e->core)
        return false;
    e->fragments.wholes_made--;
    p = fragments_unfold(&e->fragments, p, &n);
    for (struct nst_packet *next; p != NULL; p = next) {
        next = p->next;
        e->stats.packets--; /* it counts where it arrives */
        e->stats.fragments--;
        e->stats.bytes -= mbuf_of(p)->pkt_len;
        cores_give(e, mbuf_of(p), &e->key[i]);
    }
    return true;
}

/* False: there is no packet any more, for it is kept or has met its end. */
static bool take_fragment(struct nst_engine *e, unsigned i)
{
    struct nst_packet *p = packet_of(e->mbuf[i]);

    if (!is_ours(e, p->h.proto) && p->h.proto != 0)
        return true;
    e->stats.fragments++;
    if (!checksums_hold(e, p)) {
        e->parsed[i] = PARSED_CHECKSUM;
        return true;
    }
    p = fragments_add(&e->fragments, p, key_vlan(&e->key[i]), (uint32_t)((uint64_t)p->time >> TICK_SHIFT));
    if (p == NULL)
        return false;
    e->mbuf[i] = mbuf_of(p);
    e->parsed[i] = (uint8_t)parse_again(e, i);
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

void __attribute__((noinline)) burst_special(struct nst_engine *e, const struct table_bucket *bucket[PORT_BURST])
{
    unsigned keep = 0;

    for (unsigned i = 0; i < e->n; i++) {
        const struct rte_mbuf *m = e->mbuf[i];
        if (e->parsed[i] == PARSED_FRAGMENT && !take_fragment(e, i))
            continue;
        bool other = e->parsed[i] == PARSED_OTHER_PROTO && e->any;
        if (other)
            e->parsed[i] = (uint8_t)other_flow(e, i);
        if (e->parsed[i] == PARSED_FLOW && !other && !checksums_hold(e, packet_of(e->mbuf[i])))
            e->parsed[i] = PARSED_CHECKSUM;
        if (other && !other_holds(e, packet_of(e->mbuf[i])))
            e->parsed[i] = PARSED_CHECKSUM;
        if (e->parsed[i] == PARSED_FLOW && (other || e->mbuf[i] != m)) {
            e->hash[i] = key_hash(&e->key[i], &e->secret);
            bucket[i] = table_prefetch(&e->table, e->hash[i]);
        }
        move_packet(e, bucket, keep++, i);
    }
    e->n = (uint16_t)keep;
}
