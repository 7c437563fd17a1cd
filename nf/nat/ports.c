/* SPDX-License-Identifier: Apache-2.0 */
/* Ports, in blocks that instances lease from the store: each public address has a pool, whose numbers are its blocks. So a
 * new mapping needs no round trip to find a port.
 *
 * That no port is given twice does not hang on the leases: a port is taken by creating its key in the store, which succeeds
 * once. The leases see to it that instances do not try the same ones. A lease that has ended, because its holder is gone,
 * may be taken by another instance while ports of the block are still mapped; it finds them occupied.
 */
#include "nat.h"
#include <netinet/in.h>
#include <netstar/task.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_PORT = 1024,
    CORE_TRIES = 32, /* free ports that are looked at for one whose answers come to this core */
    KEEPS = 3,       /* in the time of a lease */
};

static unsigned kind_of(uint8_t proto)
{
    return proto == IPPROTO_TCP ? 0 : proto == IPPROTO_UDP ? 1 : 2;
}

static nst_time *busy_of(const struct nat *nat, struct nat_block *b, uint8_t proto, unsigned i)
{
    return &b->busy[kind_of(proto) * nat->block_size + i];
}

static struct nst_slice pool_of(const struct nat *nat, unsigned address, char name[32])
{
    const uint8_t *a = nat->public[address];
    int n = snprintf(name, 32, "nat:p:%u.%u.%u.%u/%u", a[0], a[1], a[2], a[3], nat->block_size);
    return (struct nst_slice){ name, (size_t)n };
}

/* ---- blocks ---- */
static void put_down(struct nat *nat, unsigned own)
{
    unsigned place = nat->own[own];

    free(nat->block[place]);
    nat->block[place] = NULL;
    nat->own[own] = nat->own[--nat->n_own];
}

static int take_block(struct nat *nat, unsigned address, nst_time until)
{
    char name[32];
    struct nst_lease lease;
    int rc = nst_pool_take(nat->store, pool_of(nat, address, name), nat->blocks_each, nat->lease_time, &lease, until);

    if (rc < 0)
        return rc;
    struct nat_block *b = calloc(1, sizeof *b + (size_t)NAT_PROTOS * nat->block_size * sizeof *b->busy);
    if (b == NULL)
        return -ENOMEM; /* the lease ends by itself */
    b->lease = lease;
    b->address = (uint16_t)address;
    b->first = (uint16_t)(FIRST_PORT + lease.value * nat->block_size);
    b->used = nst_now();
    unsigned place = address * nat->blocks_each + lease.value;
    if (nat->block[place] != NULL) { /* ours had ended, unnoticed, and is ours again: what is mapped in it still is */
        nat->block[place]->lease = lease;
        free(b);
        return 0;
    }
    nat->block[place] = b;
    nat->own[nat->n_own++] = place;
    nat->count.blocks_taken++;
    return 0;
}

static bool is_idle(const struct nat *nat, const struct nat_block *b, nst_time now)
{
    if (now - b->used < nat->lease_time)
        return false;
    for (unsigned i = 0; i < NAT_PROTOS * (unsigned)nat->block_size; i++) {
        if (b->busy[i] > now)
            return false;
    }
    return true;
}

/* Keeps the lease of one block, or gives it back. True: it is still in the list. */
static bool keep_block(struct nat *nat, unsigned own)
{
    struct nat_block *b = nat->block[nat->own[own]];
    nst_time now = nst_now();
    char name[32];
    struct nst_slice pool = pool_of(nat, b->address, name);

    if (is_idle(nat, b, now)) {
        struct nst_lease lease = b->lease;
        put_down(nat, own); /* first: nobody may choose from it meanwhile */
        nat->count.blocks_given++;
        (void)!nst_pool_give(nat->store, pool, lease, now + NST_SEC(1));
        return false;
    }
    int rc = nst_pool_keep(nat->store, pool, b->lease, nat->lease_time, now + NST_SEC(1));
    if (rc != -ESTALE || own >= nat->n_own || nat->block[nat->own[own]] != b)
        return true;
    nat->count.blocks_lost++;
    put_down(nat, own);
    return false;
}

static void keeper(void *arg)
{
    struct nat *nat = arg;

    while (nst_sleep(nst_now() + nat->lease_time / KEEPS) == 0) {
        for (unsigned own = 0; own < nat->n_own && !nst_cancelled();)
            own += keep_block(nat, own);
    }
}

/* ---- choosing ---- */
/* RFC 4787 speaks of pairing: one inside host has one public address, as long as that has ports. The same for all
 * instances. */
static unsigned address_of(const struct nat *nat, const struct nat_end *inside)
{
    uint32_t h = 2166136261u;

    for (unsigned i = 0; i < 4; i++)
        h = (h ^ inside->addr[i]) * 16777619u;
    return h % nat->n_public;
}

/* Answers from this remote end will be looked at by this core. */
static bool comes_here(const struct nat *nat, const struct nat_end *outside, const struct nat_end *remote)
{
    if (nat->cores == NULL)
        return true;
    struct nst_tuple t = { .a = { .family = 4, .port = (uint16_t)(outside->port[0] << 8 | outside->port[1]) },
                           .b = { .family = 4, .port = (uint16_t)(remote->port[0] << 8 | remote->port[1]) },
                           .proto = outside->proto };
    memcpy(t.a.addr, outside->addr, 4);
    memcpy(t.b.addr, remote->addr, 4);
    if (outside->proto == IPPROTO_ICMP)
        t.b.port = t.a.port; /* a query has one identifier for both ends */
    return nst_core_of(nat->cores, &t) == nat->core;
}

static bool choose_from(struct nat *nat, struct nat_block *b, const struct nat_end *inside,
                        const struct nat_end *remote, bool any_parity, bool any_core, struct nat_end *out)
{
    nst_time now = nst_now(), free_at = NST_NEVER;
    unsigned tries = 0;
    nst_time *full = &b->full[kind_of(inside->proto)][any_parity ? 2 : inside->port[1] & 1u];

    if (*full > now)
        return false;
    out->proto = inside->proto;
    memcpy(out->addr, nat->public[b->address], 4);
    for (unsigned n = 0; n < nat->block_size; n++) {
        unsigned i = (b->next + n) % nat->block_size, port = b->first + i;
        nst_time busy = *busy_of(nat, b, inside->proto, i);
        if (!any_parity && (port & 1) != (inside->port[1] & 1u))
            continue;
        free_at = busy < free_at ? busy : free_at;
        if (busy > now)
            continue;
        out->port[0] = (uint8_t)(port >> 8);
        out->port[1] = (uint8_t)port;
        if (!any_core && !comes_here(nat, out, remote)) {
            if (++tries == CORE_TRIES)
                return false;
            continue;
        }
        b->next = (uint16_t)((i + 1) % nat->block_size);
        b->used = now;
        *busy_of(nat, b, inside->proto, i) = now + NST_SEC(1); /* until it is known what becomes of it */
        return true;
    }
    *full = free_at; /* in the past, where only the core was the wrong one */
    return false;
}

/* From the blocks of one address: with the parity of the inside port (RFC 4787, REQ-4) and answers that come to this core, as
 * far as there is such a one. */
static bool choose(struct nat *nat, unsigned address, const struct nat_end *inside, const struct nat_end *remote,
                   struct nat_end *out)
{
    for (unsigned pass = 0; pass < 3; pass++) {
        for (unsigned own = 0; own < nat->n_own; own++) {
            struct nat_block *b = nat->block[nat->own[own]];
            if (b->address == address && choose_from(nat, b, inside, remote, pass >= 1, pass >= 2, out))
                return true;
        }
    }
    return false;
}

int nat_port_choose(struct nat *nat, const struct nat_end *inside, const struct nat_end *remote, struct nat_end *out,
                    nst_time until)
{
    unsigned paired = address_of(nat, inside);

    for (unsigned n = 0; n < nat->n_public; n++) {
        unsigned address = (paired + n) % nat->n_public;
        int rc = 0;
        while (!choose(nat, address, inside, remote, out) && rc == 0)
            rc = take_block(nat, address, until);
        if (rc == 0) {
            nat->count.unpaired += n != 0;
            return 0;
        }
        if (rc != -ENOENT)
            return rc;
    }
    nat->count.exhausted++;
    return -ENOSPC;
}

void nat_busy(struct nat *nat, const struct nat_end *outside, nst_time until)
{
    unsigned port = (unsigned)(outside->port[0] << 8 | outside->port[1]);

    for (unsigned a = 0; a < nat->n_public && port >= FIRST_PORT; a++) {
        unsigned block = (port - FIRST_PORT) / nat->block_size;
        if (memcmp(nat->public[a], outside -> addr, 4) != 0 || block >= nat->blocks_each)
            continue;
        struct nat_block *b = nat->block[a * nat->blocks_each + block];
        if (b == NULL)
            return;
        *busy_of(nat, b, outside->proto, port - b->first) = until;
        for (unsigned parity = 0; parity < 3; parity++) {
            nst_time *full = &b->full[kind_of(outside->proto)][parity];
            *full = until < *full ? until : *full;
        }
    }
}

/* ---- open and close ---- */
int nat_ports_open(struct nat *nat)
{
    nat->blocks_each = (uint16_t)((65536 - FIRST_PORT) / nat->block_size);
    size_t places = (size_t)nat->n_public * nat->blocks_each;
    nat->block = calloc(places, sizeof(struct nat_block *));
    nat->own = calloc(places, sizeof *nat->own);
    if (nat->block == NULL || nat->own == NULL)
        return -ENOMEM;
    int rc = nst_scope_open(&nat->scope, NULL);
    return rc < 0 ? rc : nst_spawn(nat->scope, keeper, nat);
}

void nat_ports_close(struct nat *nat)
{
    if (nat->scope != NULL)
        (void)!nst_scope_close(nat->scope);
    while (nat->n_own > 0)
        put_down(nat, 0); /* the leases end by themselves */
    free(nat->block);
    free(nat->own);
}
