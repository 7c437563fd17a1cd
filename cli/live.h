/* SPDX-License-Identifier: Apache-2.0 */
/* cli/live.h - the numbers of an instance while it works, gathered from its cores. */
#pragma once
#include "core.h"

/* Fills in a report like the closing one (free it with report_free, whatever comes out); each core is asked between two of
 * its packets. 0, or as core_ask. On the control's reactor; waits. */
int live_report(struct instance *in, struct report *r) NST_WAITS;

/* Objects of the store that all its cores keep. */
uint64_t live_kept(const struct report *r);

/* The same as JSON: "ok", "instance", "pid", and what the report has. NULL: no memory. */
struct json_t *live_value(struct instance *in, const char *name, int pid);
