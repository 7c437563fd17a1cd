/* SPDX-License-Identifier: Apache-2.0 */
/* flow/network.h - the networks that are inside tunnels. The same addresses may stand for others in each of them, so their
 * number is part of a flow's key, in the place of the VLAN, behind all numbers that VLANs have.
 *
 * A network is known by a name, which tunnel.c makes of what both directions have in common. Its number holds as long as
 * flows, or fragments that wait, have it in their key; then it may be another's.
 */
#pragma once
#include "flow/key.h"

enum {
    NETWORK_NAME_MAX = 168,
    NETWORKS_DEFAULT = 16384,
    NETWORKS_MAX = UINT16_MAX - KEY_TUNNEL, /* and one number that is nobody's */
    NETWORK_NONE = UINT16_MAX,
};

struct network;

struct networks {
    struct network *at;
    uint32_t *bucket;
    uint32_t limit, used, hand;
    uint32_t mask;
    uint32_t rest; /* ticks that a number rests before it may be another's: fragments may have it */
    const struct hash_secret *secret;
};

/* -ENOMEM. The secret is borrowed. */
int networks_open(struct networks *t, uint32_t limit, uint32_t rest, const struct hash_secret *secret);
void networks_close(struct networks *t);

/* The number of a network; NETWORK_NONE when it is new and there is no room. */
uint16_t networks_find(struct networks *t, const uint8_t *name, uint32_t len, uint32_t tick);

/* A flow begins, and ends, whose key has this number. */
void networks_hold(struct networks *t, uint16_t number);
void networks_release(struct networks *t, uint16_t number, uint32_t tick);

/* Its name, borrowed; the length is returned. */
uint32_t networks_name(const struct networks *t, uint16_t number, const uint8_t **name);
