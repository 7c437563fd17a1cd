/* SPDX-License-Identifier: Apache-2.0 */
/* flow_tunnel_lab.h - frames put into tunnels, in further tunnels if need be. */
#pragma once
#include "flow_lab.h"

/* How, apart from the kind of the tunnel. */
enum {
    T_SUM = 1,      /* with a checksum: GRE, UDP */
    T_SEQUENCE = 2, /* GRE, GTP-U: with a sequence number */
    T_ETHER = 4,    /* GRE carries the Ethernet frame, not what is in it */
    T_EXTENDED = 8, /* GTP-U: with two extension headers */
    T_KEY = 16,     /* GRE */
    T_IN_GRE = 32,  /* MPLS: over GRE */
};

struct lab_tunnel {
    uint8_t kind;   /* enum nst_tunnel */
    uint8_t family; /* of the outer IP header */
    uint8_t how;    /* T_... */
    uint8_t tags;   /* outer VLAN */
    uint16_t vlan;
    uint32_t host[2]; /* the ends, by direction */
    uint32_t id[2];   /* VNI, key, TEID, label, by direction */
};

/* Puts the Ethernet frame (without VLAN tags, unless the tunnel carries Ethernet) into the tunnel. Returns the length; *l3
 * is where the inner IP header then begins (with tags of the inner frame not counted in). */
unsigned lab_wrap(uint8_t *out, const struct lab_tunnel *t, unsigned dir, const uint8_t *frame, unsigned len,
                  unsigned *l3);

/* All checksums of the frame hold, and all lengths agree with its own. */
bool lab_whole_truth(const uint8_t *frame, unsigned len);
