/* SPDX-License-Identifier: Apache-2.0 */
/* bench/figures.h - from what a contest has measured to the figures in its results; and the process's DPDK. */
#pragma once
#include "contest.h"

/* A quantile of n values (at most ROUNDS_MAX), between the two nearest. */
double figures_quantile(const double *values, unsigned n, double q);
/* The middle one of the ratios that were seen round by round: what slows both down at one time cancels out. */
double figures_ratio(const struct contestant *a, const struct contestant *b);
/* Distance of the quartiles, divided by the median. */
double figures_spread(const struct contestant *c);

/* Starts DPDK on one core with so much memory; 0 or -EINVAL, having said why. */
int bench_start_dpdk(int cpu, unsigned megabytes, bool no_huge);
/* A pool of packet buffers as the library makes them. NULL: no memory. */
struct rte_mempool *bench_pool(bool no_huge);
