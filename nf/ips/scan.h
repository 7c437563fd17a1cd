/* SPDX-License-Identifier: Apache-2.0 */
/* ips/scan.h - all rules as one automaton (Hyperscan in streaming mode), whose state of a stream is a few bytes that
 * can be put away and taken up again.
 *
 * A scanner belongs to one reactor; it has one working stream, on which every stream is scanned in turn:
 * ips_scan_begin, ips_scan_bytes any number of times, ips_scan_end. Nothing here waits. The three need much stack:
 * call them by nst_on_core_stack.
 */
#pragma once
#include "rules.h"

struct ips_scanner;

/* Compiles the rules, which must outlive the scanner. Patterns that cannot be used are written to errors like those
 * of the rule file. -EINVAL, -ENOMEM. */
int ips_scanner_open(struct ips_scanner **out, const struct ips_rules *rules, FILE *errors);

/* Another one for the same automaton, for another reactor; `first`, which was made by ips_scanner_open, must outlive it.
 * -ENOMEM. */
int ips_scanner_again(struct ips_scanner **out, const struct ips_scanner *first);
void ips_scanner_close(struct ips_scanner *sc);

/* Tells the compiled automaton from every other: a state is of use only under the same one. */
uint64_t ips_scanner_fingerprint(const struct ips_scanner *sc);

/* Bytes of one stream's state as Hyperscan holds it open, and compressed when it has seen nothing. */
struct ips_scan_sizes {
    size_t open, fresh;
};
void ips_scan_sizes(struct ips_scanner *sc, struct ips_scan_sizes *out);

/* What the bytes of one packet matched; a rule counts once. */
enum { IPS_MATCHES_MAX = 32 };
struct ips_match {
    const struct ips_rule *rule;
    uint64_t end; /* bytes from where the automaton began to the end of the match */
};
struct ips_matches {
    enum ips_to to; /* rules for the other end do not count */
    unsigned n;
    unsigned skipped; /* further ones, for which there was no room; none of them blocks more than those kept */
    struct ips_match at[IPS_MATCHES_MAX];
};

/* Takes a state up; len 0: a fresh one. -EPROTO when it is not one of this automaton's. */
int ips_scan_begin(struct ips_scanner *sc, const void *state, size_t len);

/* Scans bytes and adds to the matches. -EIO: Hyperscan refuses. */
int ips_scan_bytes(struct ips_scanner *sc, const void *p, size_t len, struct ips_matches *found);

/* Puts the state away: its length, or -ENOSPC when it is longer than cap. */
int ips_scan_end(struct ips_scanner *sc, void *state, size_t cap);
