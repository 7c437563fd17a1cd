/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for the events that are under way, while others begin: every flow is looked at once, a few in a turn of the
 * loop. A turn's deadline tells when its event began, since the budget is the same for all. */
#include "flow/engine.h"

enum { AT_ONCE = 512 /* flows looked at before others have their turn */ };

static bool is_old(const struct flow_turn *turn, nst_time deadline)
{
    return turn_runs(turn) && turn->ev.until <= deadline;
}

int nst_engine_settle(struct nst_engine *e)
{
    nst_time deadline = nst_now() + e->policy.budget, pause = NST_US(50);
    uint32_t n = e->flows.touched; /* those beyond are opened later */
    int rc = 0;

    for (uint32_t i = 0; i < n && rc == 0; i++) {
        const struct nst_flow *f = flow_at(e, i);
        /* A free flow's turns are NULL, and one that is opened anew meanwhile has turns that are young. */
        while (rc == 0 && (is_old(f->turn[0], deadline) || is_old(f->turn[1], deadline))) {
            rc = nst_sleep(nst_now() + pause);
            pause = pause < NST_MS(5) ? 2 * pause : NST_MS(5);
        }
        if (rc == 0 && i % AT_ONCE == AT_ONCE - 1)
            rc = nst_yield();
    }
    return rc;
}
