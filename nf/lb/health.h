/* SPDX-License-Identifier: Apache-2.0 */
/* lb/health.h - who is there: back ends are asked by TCP connections or HTTP requests of this process's own, over
 * ordinary sockets, and so over the machine's own network. Each instance finds out for itself, since what counts is whom it
 * can reach.
 *
 * A back end counts as there until a check has failed, so that an instance that takes over works at once; the first check
 * decides alone, later ones by `rise` and `fall`. Checks run on one reactor; what they found is read by all cores.
 */
#pragma once
#include "services.h"
#include <netstar/base.h>
#include <stdatomic.h>

/* What is known of back ends, by their numbers, from one reading of the file to the next. */
enum { LB_KNOWN = 1 << 16 };
struct lb_known {
    _Atomic unsigned users;
    _Atomic uint8_t down[LB_KNOWN];
    nst_time drains_since[LB_KNOWN]; /* written where no core works by it yet; 0: it does not */
};

static inline bool lb_is_down(struct lb_known *k, uint32_t id)
{
    return atomic_load_explicit(&k->down[id % LB_KNOWN], memory_order_relaxed) != 0;
}

struct lb_checks;

/* Makes ready to check all back ends of the services that ask for it; both arguments must live longer. -ENOMEM. Any
 * thread. */
int lb_checks_make(struct lb_checks **out, const struct lb_services *s, struct lb_known *known);
/* Starts and stops, on the same reactor; neither waits. */
void lb_checks_start(struct lb_checks *c);
void lb_checks_stop(struct lb_checks *c);
/* Frees what was never started or is stopped. NULL is allowed. */
void lb_checks_free(struct lb_checks *c);
/* Checks made and failed; times that a back end went, and came. */
struct lb_check_counts {
    uint64_t made, failed, went, came;
};
void lb_checks_count(const struct lb_checks *c, struct lb_check_counts *sum);
