/* SPDX-License-Identifier: Apache-2.0 */
#include "figures.h"
#include <errno.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_mempool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFERS = 16383, BUFFER_CACHE = 256 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double figures_quantile(const double *values, unsigned n, double q)
{
    double sorted[ROUNDS_MAX], at = q * (n - 1);
    unsigned low = (unsigned)at;

    memcpy(sorted, values, n * sizeof *values);
    qsort(sorted, n, sizeof *sorted, by_value);
    return low + 1 < n ? sorted[low] + (at - low) * (sorted[low + 1] - sorted[low]) : sorted[low];
}

double figures_ratio(const struct contestant *a, const struct contestant *b)
{
    double ratios[ROUNDS_MAX];

    for (unsigned i = 0; i < a->n; i++)
        ratios[i] = a->ns[i] / b->ns[i];
    return figures_quantile(ratios, a->n, 0.5);
}

double figures_spread(const struct contestant *c)
{
    return (figures_quantile(c->ns, c->n, 0.75) - figures_quantile(c->ns, c->n, 0.25)) /
           figures_quantile(c->ns, c->n, 0.5);
}

int bench_start_dpdk(int cpu, unsigned megabytes, bool no_huge)
{
    char core[16], memory[16];
    char *argv[] = { "bench", "-l", core, "--no-pci", "--no-telemetry", "--log-level", "error",
                     /* --no-huge excludes --in-memory: */
                     no_huge ? "--no-huge" : "--in-memory", no_huge ? "--no-shconf" : NULL, "-m", memory, NULL };
    int argc = no_huge ? 11 : 8;

    snprintf(core, sizeof core, "%d", cpu);
    snprintf(memory, sizeof memory, "%u", megabytes);
    if (rte_eal_init(argc, argv) < 0) {
        fprintf(stderr, "bench: DPDK does not start: %s\n", rte_strerror(rte_errno));
        return -EINVAL;
    }
    return 0;
}

/* Without huge pages the buffers must not be laid out for devices that need physical addresses in one piece: one buffer
 * on each page makes the cache sets alias. */
struct rte_mempool *bench_pool(bool no_huge)
{
    unsigned size = sizeof(struct rte_mbuf) + NST_PACKET_PRIV + RTE_MBUF_DEFAULT_BUF_SIZE;
    struct rte_pktmbuf_pool_private priv = { .mbuf_data_room_size = RTE_MBUF_DEFAULT_BUF_SIZE,
                                             .mbuf_priv_size = NST_PACKET_PRIV };
    struct rte_mempool *pool = rte_mempool_create_empty("packets", BUFFERS, size, BUFFER_CACHE, sizeof priv,
                                                        SOCKET_ID_ANY, no_huge ? RTE_MEMPOOL_F_NO_IOVA_CONTIG : 0);

    if (pool == NULL)
        return NULL;
    rte_pktmbuf_pool_init(pool, &priv);
    if (rte_mempool_populate_default(pool) < 0) {
        rte_mempool_free(pool);
        return NULL;
    }
    rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
    return pool;
}
