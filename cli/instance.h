/* SPDX-License-Identifier: Apache-2.0 */
/* cli/instance.h - one NF at work: ports, store, module and engine are opened, run until the input ends or a signal
 * comes, and are closed in the opposite order.
 */
#pragma once
#include "report.h"
#include "settings.h"

/* Runs to the end and fills the report (free it with report_free, whatever the result). 0; or a negative errno, what
 * was wrong having been logged, when something could not be opened, went wrong in the middle, or packet buffers are
 * missing at the end. -EAGAIN, unsaid: huge pages went to others while this started; a new process can do without. */
int instance_run(const struct settings *s, struct report *report);
