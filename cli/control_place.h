/* SPDX-License-Identifier: Apache-2.0 */
/* cli/control_place.h - where running instances are asked: a Unix socket for each, DIR/NAME.PID.sock, mode 0600.
 *
 * None of this waits for longer than the file system takes, but for place_find and place_make, which try to connect.
 */
#pragma once
#include "complaint.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CONTROL_DIR "/run/netstar"

enum { INSTANCE_NAME_MAX = 32, PLACE_PATH_MAX = 108, PLACES_MAX = 256 };

struct place {
    char name[INSTANCE_NAME_MAX + 1];
    pid_t pid;
    char path[PLACE_PATH_MAX];
};

/* 1 to 32 letters, digits, '-', '_' and dots, the first no dot. */
bool place_name_ok(const char *name);

/* Takes a file's name apart. False: it is not one of these. */
bool place_parse(const char *dir, const char *file, struct place *out);

/* Makes the directory where it is missing, removes what processes that are gone have left there, and listens: a
 * descriptor. -EEXIST and a complaint when `alone` and a process of the same name is there. */
int place_make(const char *dir, const char *name, bool alone, struct place *out, struct complaint *c);

/* Connects to the one that `who` says: a name, a process number, or NULL where only one is there. A descriptor.
 * -ESRCH: there is none; -ENOTUNIQ: there are several; -EACCES. */
int place_find(const char *dir, const char *who, struct place *out, struct complaint *c);
