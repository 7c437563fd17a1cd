/* SPDX-License-Identifier: Apache-2.0 */
/* flow/cores.h - the choice of a packet's core, for the engine. */
#pragma once
#include "flow/key.h"
#include "io/handoff.h"
#include <netstar/cores.h>

struct nst_cores {
    unsigned n, n_ports;
    const struct port_rss *rss; /* NULL: the choice is ours alone */
    struct hash_secret secret;  /* of the choice, and of every core's table */
    struct handoff *handoff;
    struct nst_port **ports;   /* as they were opened */
    struct nst_port **of_core; /* n times n_ports: what each core uses */
};

static inline struct nst_port *const *cores_ports(const struct nst_cores *c, unsigned core)
{
    return c->of_core + (size_t)core * c->n_ports;
}

/* The 16 bits of a hash that neither a table's buckets nor its tags are chosen by. */
static inline unsigned cores_scale(const struct nst_cores *c, uint64_t hash)
{
    return (unsigned)(hash >> 16 & 0xffff) * c->n >> 16;
}

/* The core that this key's packets belong to. In tunnels the addresses alone choose it: each core has its own numbers for
 * the networks there. */
static inline unsigned cores_of_key(const struct nst_cores *c, const struct flow_key *key)
{
    if (c->rss == NULL) {
        struct flow_key k = *key;
        if (key_vlan(&k) >= KEY_TUNNEL)
            key_set_vlan(&k, 0);
        return cores_scale(c, key_hash(&k, &c->secret));
    }
    uint32_t ports = (uint32_t)(key->w[0] >> 32);
    uint64_t a = key->w[1];
    if (key_family(key) != 4)
        a ^= key->w[2] ^ key->w[3] ^ key->w[4];
    return port_rss_core(c->rss, key_family(key), key_proto(key), a, ports);
}

struct nst_engine;
struct rte_mbuf;

/* The burst that the engine has just received: keeps what is its own, and gives away the rest. */
void cores_steer(struct nst_engine *e);

/* A packet made here, such as a datagram out of its fragments: true when it belongs to another core and was given
 * there, or dropped because there was no room. */
bool cores_give(struct nst_engine *e, struct rte_mbuf *m, const struct flow_key *key);
