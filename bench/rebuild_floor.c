/* SPDX-License-Identifier: Apache-2.0 */
/* What both who rebuild have to do with each frame whatever they keep: look at its headers, verify its checksums, add up
 * its payload. It knows no flow and no order. */
#include "flow/checksum.h"
#include "flow/parse.h"
#include "rebuild.h"
#include <errno.h>
#include <rte_mbuf.h>
#include <stdio.h>
#include <string.h>

struct run {
    struct rte_mbuf m;
    const struct rebuild *what;
    uint64_t bytes, sum, wrong;
};

static void pass(struct run *r)
{
    const struct rebuild_capture *c = r->what->capture;

    for (uint64_t i = 0; i < c->packets; i++) {
        struct nst_headers h = { 0 };
        struct flow_key key;
        bool from_b;
        rebuild_fetch(c, i + REBUILD_AHEAD, 2);
        r->m.buf_addr = rebuild_frame(c, i);
        r->m.data_len = c->frames[i].len;
        r->m.pkt_len = c->frames[i].len;
        if (parse_packet(&r->m, &h, &key, &from_b) != PARSED_FLOW ||
            (!r->what->no_checksums && !checksum_right(&r->m, &h, false))) {
            r->wrong++;
            continue;
        }
        r->sum += rebuild_sum((uint8_t *)r->m.buf_addr + h.payload, h.payload_len);
        r->bytes += h.payload_len;
    }
}

int rebuild_floor(struct contestant *c)
{
    struct run r = { .m = { .nb_segs = 1 }, .what = c->arg };

    pass(&r);
    while (contest_next(c)) {
        pass(&r);
        uint64_t from = contest_clock();
        for (unsigned i = 0; i < r.what->passes; i++)
            pass(&r);
        contest_took(c, contest_clock() - from);
    }
    if (r.wrong != 0) {
        fprintf(stderr, "bench: %s: %lu frames are not right\n", c->name, r.wrong);
        return -EPROTO;
    }
    return 0;
}
