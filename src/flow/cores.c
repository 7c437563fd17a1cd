/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/cores.h"
#include "flow/engine.h"
#include <netinet/in.h>
#include <rte_prefetch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* ---- opening ---- */

/* Several devices serve only when they choose alike: both directions of a flow come in by different ones. */
static const struct port_rss *common_rss(struct nst_port *const ports[], unsigned n_ports, unsigned n)
{
    const struct port_rss *rss = ports[0]->rss;

    for (unsigned i = 0; i < n_ports; i++)
        if (ports[i]->rss == NULL || ports[i]->rss->queues != n || !port_rss_equal(ports[i]->rss, rss))
            return NULL;
    return rss;
}

static int share_port(struct nst_cores *c, unsigned i, bool replay)
{
    struct nst_port *p = c->ports[i], *of_core[CORES_MAX];
    int rc = 0;

    if (p->ops->queue != NULL && p->rss != NULL && p->rss->queues == c->n) {
        for (unsigned k = 0; k < c->n && rc == 0; k++)
            of_core[k] = p->ops->queue(p, k);
    } else {
        rc = handoff_share(c->handoff, p, replay ? 0 : i % c->n, of_core);
    }
    for (unsigned k = 0; k < c->n && rc == 0; k++)
        c->of_core[(size_t)k * c->n_ports + i] = of_core[k];
    return rc;
}

int nst_cores_open(struct nst_cores **out, unsigned n, struct nst_port *const ports[], unsigned n_ports)
{
    bool replay = false;
    int rc;

    if (n == 0 || n > NST_CORES_MAX || n_ports == 0 || n_ports > 32 || (n_ports > 1 && n_ports % 2 != 0))
        return -EINVAL;
    for (unsigned i = 0; i < n_ports; i++) {
        replay = replay || ports[i]->replay;
        if (ports[i]->replay != ports[0]->replay)
            return -EINVAL;
    }
    struct nst_cores *c = calloc(1, sizeof *c);
    if (c == NULL)
        return -ENOMEM;
    c->n = n;
    c->n_ports = n_ports;
    c->ports = calloc(n_ports, sizeof *c->ports);
    c->of_core = calloc((size_t)n * n_ports, sizeof *c->of_core);
    rc = c->ports == NULL || c->of_core == NULL ? -ENOMEM : handoff_open(&c->handoff, n, replay);
    if (rc == 0 && getrandom(&c->secret, sizeof c->secret, 0) != sizeof c->secret)
        rc = -EIO;
    if (rc == 0) {
        memcpy(c->ports, ports, n_ports * sizeof *ports);
        c->rss = common_rss(ports, n_ports, n);
    }
    for (unsigned i = 0; i < n_ports && rc == 0; i++)
        rc = share_port(c, i, replay);
    if (rc < 0) {
        nst_cores_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

unsigned nst_cores_close(struct nst_cores *c)
{
    unsigned left = 0;

    if (c != NULL) {
        left = handoff_close(c->handoff);
        free(c->of_core);
        free(c->ports);
        free(c);
    }
    return left;
}

unsigned nst_cores_count(const struct nst_cores *c)
{
    return c != NULL ? c->n : 1;
}

const char *nst_cores_describe(const struct nst_cores *c, unsigned port, char *buf, size_t size)
{
    const struct nst_port *p = c->ports[port];

    if (p->replay)
        snprintf(buf, size, "read by core 0, flows spread by software");
    else if (p->shared)
        snprintf(buf, size, "one queue, of core %u, flows spread by software", port % c->n);
    else if (c->rss != NULL)
        snprintf(buf, size, "%u queues by receive-side scaling, symmetric key verified", c->n);
    else
        snprintf(buf, size, "%u queues, flows spread by software, as the ports do not scale alike", c->n);
    return buf;
}

/* ---- the choice ---- */
static void put_addresses(struct flow_key *key, const uint8_t *a, const uint8_t *b, uint8_t family, uint32_t ports,
                          uint16_t vlan, uint8_t proto)
{
    uint64_t four, x[2], y[2];
    bool turn;

    if (family == 4) {
        memcpy(&four, a, 4);
        memcpy((uint8_t *)&four + 4, b, 4);
        key_turn4(&four, &ports);
        key->w[1] = four;
    } else {
        memcpy(x, a, sizeof x);
        memcpy(y, b, sizeof y);
        turn = key_turn6(x, y, &ports);
        memcpy(&key->w[1], turn ? y : x, sizeof x);
        memcpy(&key->w[3], turn ? x : y, sizeof x);
    }
    key->w[0] = key_head(ports, vlan, proto, family);
}

unsigned nst_core_of(const struct nst_cores *c, const struct nst_tuple *t)
{
    struct flow_key key = { 0 };

    if (c == NULL)
        return 0;
    uint32_t ports = __builtin_bswap16(t->a.port) | (uint32_t)__builtin_bswap16(t->b.port) << 16;
    put_addresses(&key, t->a.addr, t->b.addr, t->a.family, ports, t->vlan, t->proto);
    return cores_of_key(c, &key);
}

/* Fragments of one datagram meet on the core of its addresses, where it is put together. In tunnels these are the
 * outermost: of the fragments inside some may have come in fragments themselves. */
static unsigned core_of_fragment(const struct nst_cores *c, struct rte_mbuf *m)
{
    const struct nst_packet *p = packet_of(m);
    const uint8_t *ip = rte_pktmbuf_mtod(m, const uint8_t *);
    struct flow_key key = { 0 };
    unsigned n = 0;

    while ((p->flags & PACKET_TUNNEL) && n < p->n_around && p->around[n].family == 0)
        n++;
    bool outer = (p->flags & PACKET_TUNNEL) && n < p->n_around;
    uint8_t family = outer ? p->around[n].family : p->h.family;
    ip += outer ? p->around[n].l3 : p->h.l3;
    unsigned at = family == 4 ? 12 : 8, len = family == 4 ? 4 : 16;
    put_addresses(&key, ip + at, ip + at + len, family, 0, 0, 0);
    return cores_of_key(c, &key);
}

static unsigned core_of_packet(struct nst_engine *e, struct rte_mbuf *m)
{
    const struct nst_cores *c = e->cores;
    const struct nst_headers *h = &packet_of(m)->h;
    struct flow_key key = { 0 };
    bool from_b = false;
    enum parsed parsed = engine_parse(e, m, &key, &from_b, true);

    if (parsed == PARSED_FLOW)
        return e->proto == 0 || h->proto == e->proto ? cores_of_key(c, &key) : e->core;
    if (parsed == PARSED_OTHER_PROTO && e->any) {
        parse_other(m, h, &key, &from_b);
        return cores_of_key(c, &key);
    }
    if (parsed == PARSED_FRAGMENT && fragment_is_ours(e, h->proto))
        return core_of_fragment(c, m);
    return e->core;
}

static void give(struct nst_engine *e, unsigned to, struct rte_mbuf **m, unsigned n)
{
    unsigned given = handoff_give(e->cores->handoff, e->core, to, m, n);

    e->stats.given += given;
    for (; given < n; given++) {
        e->stats.packets++;
        e->stats.bytes += rte_pktmbuf_pkt_len(m[given]);
        packet_drop(e, packet_of(m[given]), NST_BY_CORE_FULL);
    }
}

bool cores_give(struct nst_engine *e, struct rte_mbuf *m, const struct flow_key *key)
{
    unsigned to = cores_of_key(e->cores, key);

    if (to == e->core)
        return false;
    give(e, to, &m, 1);
    return true;
}

void cores_steer(struct nst_engine *e)
{
    struct rte_mbuf *away[CORES_MAX][PORT_BURST];
    uint16_t n_away[CORES_MAX], keep = 0;
    uint32_t some = 0;

    for (unsigned i = 0; i < e->n; i++)
        rte_prefetch0(rte_pktmbuf_mtod(e->mbuf[i], void *));
    for (unsigned i = 0; i < e->n; i++) {
        struct rte_mbuf *m = e->mbuf[i];
        unsigned to = core_of_packet(e, m);
        if (to == e->core) {
            e->mbuf[keep++] = m;
            continue;
        }
        if ((some & 1u << to) == 0) {
            some |= 1u << to;
            n_away[to] = 0;
        }
        away[to][n_away[to]++] = m;
    }
    e->n = keep;
    for (; some != 0; some &= some - 1) {
        unsigned to = (unsigned)__builtin_ctz(some);
        give(e, to, away[to], n_away[to]);
    }
}

/* ---- numbers ---- */
void nst_engine_stats_add(struct nst_engine_stats *sum, const struct nst_engine_stats *one)
{
    size_t flow = one->bytes_per_flow;

    /* Counts of 32 bits stand in pairs, and none overflows into its neighbour: no table has so many entries. */
    _Static_assert(sizeof *sum % sizeof(uint64_t) == 0, "words of 64 bits");
    for (size_t at = 0; at < sizeof *sum; at += sizeof(uint64_t))
        *(uint64_t *)((uint8_t *)sum + at) += *(const uint64_t *)((const uint8_t *)one + at);
    sum->bytes_per_flow = flow;
}

void nst_cores_stats(const struct nst_cores *c, struct nst_engine_stats *sum)
{
    for (unsigned i = 0; i < c->n_ports; i++) {
        struct nst_port_stats p = { 0 };
        if (c->ports[i]->shared)
            nst_port_stats(c->ports[i], &p);
        sum->dropped[NST_BY_TX_FULL] += p.tx_dropped;
        sum->forwarded -= p.tx_dropped < sum->forwarded ? p.tx_dropped : sum->forwarded;
    }
}
