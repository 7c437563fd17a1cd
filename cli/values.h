/* SPDX-License-Identifier: Apache-2.0 */
/* cli/values.h - numbers, times, sizes and lists as they are written on the command line.
 *
 * Each returns 0 and fills *out, or -EINVAL and a complaint that names the option, the value, and what was expected.
 * The whole text must be the value: nothing before it, nothing behind it.
 */
#pragma once
#include "complaint.h"
#include <netstar/tcp.h>

/* A count: digits, and k (thousand) or M (million) behind them. */
int value_number(struct complaint *c, const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *out);

/* A time with its unit (ns, us, ms, s, m or h) and, where wanted, a fraction: 200ms, 1.5s. */
int value_time(struct complaint *c, const char *option, const char *text, nst_time min, nst_time max, nst_time *out);

/* Bytes, in powers of 1024: 65536, 512K, 256M, 2G; the B or iB of 256MB and 256MiB changes nothing. */
int value_size(struct complaint *c, const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *out);

/* How much faster than recorded: 1, 0.5, 10x; "max" gives 0. */
int value_speed(struct complaint *c, const char *option, const char *text, double *out);

/* One of n words; *out gets its index. */
int value_word(struct complaint *c, const char *option, const char *text, const char *const words[], unsigned n,
               unsigned *out);

/* Port names separated by commas. A piece that contains '=' is an argument of the device before it, so that
 * net_null0,size=64,net_null1 are two ports. Cuts `text` up in place; names[] points into it. */
int value_ports(struct complaint *c, const char *option, char *text, const char *names[], unsigned max, unsigned *n);

/* How ends take overlapping segments: POLICY for all, and NET/LEN=POLICY for those of a network, separated by commas; an
 * address without a length is that one end. *all is untouched where no POLICY is given. */
int value_overlaps(struct complaint *c, const char *option, const char *text, enum nst_overlap *all,
                   struct nst_overlap_net nets[], unsigned max, unsigned *n);

/* Kinds of tunnels by name, separated by commas, or "all": bits of enum nst_tunnel. */
int value_tunnels(struct complaint *c, const char *option, const char *text, unsigned *out);

/* Writes a time or a number of bytes as one would type it, for messages. Returns buf. */
const char *value_show_time(nst_time t, char *buf, size_t size);
const char *value_show_size(uint64_t bytes, char *buf, size_t size);
