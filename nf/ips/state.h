/* SPDX-License-Identifier: Apache-2.0 */
/* ips/state.h - what the store keeps of one direction of one flow.
 *
 * Two points of the stream are kept: where the scan stands, and where it stood before the last packet. A write that
 * timed out may have landed although its packet was dropped, and an instance may die between its write and the
 * packet's leaving. The retransmission of that packet then begins at the previous point, and is scanned from there:
 * whoever sends other bytes the second time gains nothing.
 *
 * The encoding is little-endian on every machine; what comes from a store is not trusted. Any thread.
 */
#pragma once
#include <netstar/base.h>

enum {
    IPS_AUTOMATON_MAX = 2048, /* bytes of one compressed automaton */
    IPS_STATE_FIXED = 50,     /* bytes of a record beside its two automata */
    IPS_STATE_MAX = IPS_STATE_FIXED + 2 * IPS_AUTOMATON_MAX,
};

struct ips_point {
    uint32_t seq;               /* TCP sequence number of the next byte */
    uint64_t offset;            /* its place in the stream */
    struct nst_slice automaton; /* compressed, borrowed; empty: one that has seen nothing */
};

struct ips_state {
    uint64_t rules; /* fingerprint of the rules that the automata belong to */
    uint64_t base;  /* offset at which they began */
    uint32_t rule;  /* blocked: by this rule; else 0 */
    uint32_t ack;   /* what the sender had acknowledged of the other direction, when has_ack */
    bool has_ack;
    bool to_client; /* whom the stream goes to: after a take-over the ports alone would have to tell */
    struct ips_point current, previous;
};

/* Writes a record and returns its length. previous is at or before current, and neither before base. */
size_t ips_state_encode(const struct ips_state *st, uint8_t out[IPS_STATE_MAX]);

/* Reads a record, from which the automata in *st are borrowed: 0, or -EPROTO. */
int ips_state_decode(struct ips_state *st, const void *record, size_t len);

/* The point at which the byte with this sequence number is next, or NULL. */
const struct ips_point *ips_state_at(const struct ips_state *st, uint32_t seq);

/* A hash that is the same everywhere; not for tables that others can fill. */
uint64_t ips_hash(uint64_t seed, const void *p, size_t len);
