/* SPDX-License-Identifier: Apache-2.0 */
#include "contestants.h"
#include "floor.h"
#include <stdio.h>

static void floor_packets(struct floor *f, struct trace_feed *feed, uint64_t packets)
{
    for (uint64_t n = 0; n < packets;)
        n += floor_burst(f, feed);
}

int floor_contestant(struct contestant *c)
{
    const struct contest *contest = c->contest;
    struct trace_feed feed;
    struct floor_stats stats;
    struct floor *f;
    int rc = floor_open(&f, contest->trace->config.flows, contest->socket);

    if (rc < 0) {
        fprintf(stderr, "bench: floor: no memory for the table\n");
        return rc;
    }
    trace_feed_init(&feed, contest->trace, contest->pool);
    while (floor_open_burst(f, &feed) != 0)
        ;
    while (contest_next(c)) {
        uint64_t from;

        floor_packets(f, &feed, contest->warm);
        from = contest_clock();
        floor_packets(f, &feed, contest->packets);
        contest_took(c, contest_clock() - from);
    }
    floor_stats(f, &stats);
    if (stats.flows != contest->trace->config.flows || stats.refused != 0 || stats.unparsed != 0) {
        fprintf(stderr, "bench: floor: %lu flows, %lu refused, %lu packets not parsed\n", stats.flows, stats.refused,
                stats.unparsed);
        rc = -EPROTO;
    }
    floor_close(f);
    return rc;
}

static void receive_packets(struct trace_feed *feed, uint64_t packets)
{
    struct rte_mbuf *m[PORT_BURST];

    for (uint64_t n = 0; n < packets;) {
        unsigned got = trace_rx(feed, m, PORT_BURST);
        trace_tx(m, got);
        n += got;
    }
}

int receive_contestant(struct contestant *c)
{
    const struct contest *contest = c->contest;
    struct trace_feed feed;

    trace_feed_init(&feed, contest->trace, contest->pool);
    while (contest_next(c)) {
        uint64_t from;

        receive_packets(&feed, contest->warm);
        from = contest_clock();
        receive_packets(&feed, contest->packets);
        contest_took(c, contest_clock() - from);
    }
    return 0;
}
