/* SPDX-License-Identifier: Apache-2.0 */
/* cli/heart.h - an instance with a name tells those who share its store that it lives, and what it holds.
 *
 * Under the key "netstar:instance:NAME" stands a JSON object, written anew every second with a number that grows, on a
 * connection to the store that packets do not use; it lives for a minute. A name belongs to one instance at a time:
 * whoever starts with one that is alive elsewhere is refused, and takes over what has stopped beating.
 */
#pragma once
#include "complaint.h"
#include "settings.h"

#define HEART_PREFIX "netstar:instance:"
enum { HEART_EVERY = 1, HEART_OVERDUE = 3, HEART_KEPT = 60 /* seconds */, HEART_MAX = 4096 /* bytes of a value */ };

/* Of tasks that understand such a value: parsing what somebody else has written may go deep. */
enum { HEART_STACK = 1 << 20 };

struct heart;
struct instance;

/* Takes the name, on a reactor of its own on this thread: 0; *out is NULL where the settings name no instance, or the store
 * is this process's own. -EEXIST and a complaint: somebody has it, and lives. It waits for up to three beats for that. A
 * store that does not answer is logged, and is no error: the name is taken when it does. */
int heart_claim(struct heart **out, const struct settings *s, struct complaint *c);

/* Beats until it is cancelled. A task of the control's reactor; `in` has the heart. */
void heart_beat(void *in);

/* Says farewell, so that the name is free at once; waits for half a second at most. On the same reactor. */
void heart_farewell(struct heart *h);

/* The same where the instance has come to nothing, before control had a reactor: on one of its own, on this thread. */
void heart_give_back(struct heart *h);

/* NULL is allowed. */
void heart_free(struct heart *h);
