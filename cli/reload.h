/* SPDX-License-Identifier: Apache-2.0 */
/* cli/reload.h - the new configuration of a running instance's module takes the place of the old. */
#pragma once
#include <jansson.h>

struct instance;

/* Reads the configuration file anew, where there is one, prepares on a thread, swaps on each core in turn, waits until no
 * event works by the old any more, and disposes of it. Returns what has changed or what is wrong, as the control socket answers, and has logged it. NULL: no memory for the
 * answer. A task of the control's reactor; waits. One at a time: a second is refused. */
json_t *reload(struct instance *in);

/* At the end, when no core works any more: disposes of the configuration at work. */
void reload_forget(struct instance *in);
