/* SPDX-License-Identifier: Apache-2.0 */
/* common/addresses.h - sets of IP addresses: prefixes and ranges of both families, kept as sorted ranges that do not touch.
 *
 * Asking is a binary search: 17 steps for 100 thousand entries. A set is built once and never changed. Any thread.
 */
#pragma once
#include "text.h"

/* The addresses from lo to hi, both included, in network order; IPv4 uses the first 4 bytes. */
struct nf_range {
    uint8_t family; /* 4 or 6 */
    uint8_t lo[16], hi[16];
};

/* "10.0.0.1", "10.0.0.0/8", "10.0.0.1-10.0.0.9", "fd00::/8" ...: 0; else -EINVAL, and *why says what was expected at *at.
 * Bits behind a prefix's length must be 0, so that a slip does not go by. */
int nf_range_parse(const struct nf_word *w, struct nf_range *out, const char **at, const char **why);

struct nf_addresses; /* NULL is the empty set */

struct nf_addresses_builder {
    struct nf_range *range;
    size_t n, room;
};
/* 0, -ENOMEM. */
int nf_addresses_add(struct nf_addresses_builder *b, const struct nf_range *r);
/* All of another set. */
int nf_addresses_add_all(struct nf_addresses_builder *b, const struct nf_addresses *s);
/* Makes the set of what was added, and empties the builder in any case. 0, -ENOMEM. */
int nf_addresses_build(struct nf_addresses **out, struct nf_addresses_builder *b);

bool nf_addresses_have(const struct nf_addresses *s, uint8_t family, const uint8_t *addr);
/* Ranges in it. */
size_t nf_addresses_count(const struct nf_addresses *s);
/* Some address of the family is in it. */
bool nf_addresses_have_family(const struct nf_addresses *s, uint8_t family);
void nf_addresses_free(struct nf_addresses *s);
