/* SPDX-License-Identifier: Apache-2.0 */
/* ips_model.h - what the IPS stands on, as simple as can be: an engine with one flow, a store that fails when it is told to, and
 * what is kept of that. They take the place of the library's functions of the same names.
 */
#pragma once
#include "ips/ips.h"
#include <netstar/tcp.h>

enum { HEADER = 20, MOST = 1400 };

struct nst_packet {
    struct nst_headers h;
    uint64_t number;
    uint8_t bytes[HEADER + MOST];
};

struct end {
    bool followed;
    uint32_t next; /* sequence number of the next byte */
    uint64_t offset;
};

struct nst_flow {
    const struct nst_nf *nf;
    void *arg;
    struct nst_packet *packet;
    enum nst_side side;
    struct end end[2];
    struct nst_slice news; /* what the packet brings */
    unsigned pieces;       /* handed out so far */
    enum nst_verdict resumed;
    enum nst_verdict later; /* of a packet that was taken */
    int failed;             /* what nst_fail was last asked about */
    bool dead;
};

void put_be32(uint8_t *p, uint32_t v);

/* What the packet of the flow is to its side: sets `news`. */
nst_events look(struct nst_flow *f);

/* The store: a record for each side. */
extern struct entry {
    bool there;
    size_t len;
    uint8_t bytes[IPS_STATE_MAX];
} store[2];
extern int get_fails, put_fails, delete_fails; /* the next such request answers so */
extern bool put_lands;                         /* although it fails */
extern unsigned gets, puts_, deletes;
void reset_store(void);

/* What nst_then was asked for, until it is carried out. */
extern struct nst_future *waiting;
