/* SPDX-License-Identifier: Apache-2.0 */
/* cli/control.h - a running instance can be asked: a thread with a reactor of its own listens at a Unix socket
 * (control_place.h). A request is a line of one word, the answer a line of JSON with "ok" and, where that is false,
 * "error". The packet path knows nothing of it: what is asked of a core is a call between reactors.
 *
 *   about    name, process, NF, version, ...
 *   stats    the numbers of the closing report, as they are now
 *   reload   prepares anew and swaps; answers when the new is at work everywhere and the old is gone
 *
 * SIGHUP means reload, too. The same thread beats the instance's heart (heart.h).
 */
#pragma once
#include "control_place.h"

struct instance;
struct control;

/* Begins to listen, so that those who ask wait. Nothing is opened, and it is no error, where the settings say so, or
 * where the place cannot be made and was not asked for: that is logged. -EEXIST: the name is taken. */
int control_open(struct instance *in, struct complaint *c);

/* Begins to answer; the cores work. What is wrong is logged. Any thread. */
void control_start(struct instance *in);

/* Ends it, and with it what is under way. When the cores' threads have ended, before their reactors are closed. */
void control_close(struct instance *in);
