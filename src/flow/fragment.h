/* SPDX-License-Identifier: Apache-2.0 */
/* flow/fragment.h - IP datagrams put together from their fragments (RFC 791, RFC 8200), before flows see them.
 *
 * A whole datagram is a packet of its own in one piece, flagged PACKET_WHOLE, on which its fragments hang in the order
 * in which they came. They go out in its place, as they are, unless it was edited (fragments_unfold). Fragments that
 * overlap with others condemn their datagram (RFC 5722), in IPv4 as well: which bytes count is what receivers do not
 * agree on. An exact repetition condemns nothing.
 *
 * Bounded are the fragments (those that wait and those that hang on packets), their bytes, the fragments of one
 * datagram, and the time until it must be whole. Where something gives way, it is the oldest that waits. What is given
 * up goes to the owner fragment by fragment.
 *
 * DPDK's librte_ip_frag is not used: built with 8 fragments a datagram at most, it does not see overlaps, and it cuts
 * the headers off the fragments that it is given, which here must go on as they came.
 */
#pragma once
#include "flow/key.h"
#include "io/packet.h"
#include <netstar/engine.h>

enum {
    FRAGMENTS_MAX = 256,    /* of one datagram: 64 KiB in pieces of 256 bytes, 1500 bytes in pieces of 8 */
    FRAGMENT_WHOLES = 256,  /* datagrams that are longer than a packet buffer, at once */
    FRAGMENT_FRAME = 65472, /* the longest frame that a whole makes, link header and all: what offsets can tell */
};

struct datagram;

struct fragments {
    struct datagram *slots;
    uint32_t *bucket;
    uint32_t mask, n_slots, free, oldest, newest; /* lists of slots; NONE ends them */
    uint32_t limit, kept;                         /* fragments */
    size_t bytes_limit, bytes;
    uint32_t life; /* ticks */
    uint8_t *wholes;
    uint16_t free_wholes[FRAGMENT_WHOLES];
    uint32_t n_free_wholes;
    const struct hash_secret *secret;
    /* A fragment that will not become part of a whole. */
    void (*give_up)(void *arg, struct nst_packet *p, enum nst_fault why);
    void *arg;
    uint32_t kept_peak;
    uint64_t wholes_made;
};

/* -ENOMEM. The secret, which is borrowed, keys the hash. */
int fragments_open(struct fragments *t, uint32_t limit, size_t bytes_limit, uint32_t life,
                   const struct hash_secret *secret,
                   void (*give_up)(void *arg, struct nst_packet *p, enum nst_fault why), void *arg);
/* Nothing may wait any more. */
void fragments_close(struct fragments *t);

/* Takes a fragment, which was parsed as one (its IPv4 header's checksum is the caller's matter), in the network that
 * its VLAN or tunnel is. Returns the whole datagram when this was the last missing part of it, not yet parsed; else
 * NULL: it is kept, or was given up. */
struct nst_packet *fragments_add(struct fragments *t, struct nst_packet *p, uint16_t network, uint32_t tick);

/* Gives up what has waited for too long; all that waits. */
void fragments_expire(struct fragments *t, uint32_t tick);
void fragments_flush(struct fragments *t);

/* Something waits. */
bool fragments_waiting(const struct fragments *t);

/* Ends a whole datagram: what goes out in its place, in order, by next; *n tells how many. Those are its fragments as
 * they came; what was edited in the whole is edited in them. Where the length of the whole has changed (its IP header
 * tells it) they are cut anew, as large as the largest was. NULL: there are no buffers for that, or the length lies;
 * all is gone.
 */
struct nst_packet *fragments_unfold(struct fragments *t, struct nst_packet *whole, uint32_t *n);

/* The packets that it came in. Where a fragment in a tunnel came in fragments itself, it is a whole, too: then it is
 * among what fragments_unfold gives, flagged PACKET_WHOLE, and is unfolded in turn. */
uint32_t fragments_count(const struct nst_packet *whole);

/* Ends it with all its fragments; returns how many packets these were. */
uint32_t fragments_free(struct fragments *t, struct nst_packet *whole);
