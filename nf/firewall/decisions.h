/* SPDX-License-Identifier: Apache-2.0 */
/* firewall/decisions.h - the log of what rules with `log` have decided: one JSON object a line.
 *
 * Lines are collected, and written a fifth of a second later, or when the engine is quiet: what is not written yet goes
 * with a process that is killed. At most FW_DECISIONS_MAX bytes wait, and at most FW_DECISIONS_RATE lines are taken in a
 * second; what is beyond is counted. Without a file nothing is kept.
 */
#pragma once
#include "rules.h"
#include <netstar/flow.h>

enum { FW_DECISIONS_MAX = 1 << 20, FW_DECISIONS_RATE = 10000 };

struct fw_decisions;

/* Opens the log at the end of the file, or, in a replay, at its beginning; "-" is standard output. On a reactor. 0, or the
 * errno. */
int fw_decisions_open(struct fw_decisions **out, const char *path, bool replay);
/* log may be NULL. */
void fw_decisions_add(struct fw_decisions *log, const char *action, const struct fw_rule *rule,
                      const struct fw_opening *o, const struct nst_packet *packet);
void fw_decisions_write(struct fw_decisions *log);
uint64_t fw_decisions_lost(const struct fw_decisions *log);
void fw_decisions_close(struct fw_decisions *log);
