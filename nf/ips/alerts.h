/* SPDX-License-Identifier: Apache-2.0 */
/* ips/alerts.h - the alert log: one JSON object a line.
 *
 * Live, each line is one write to a file opened for appending, at once: a killed process loses nothing. In a replay
 * the alerts are collected and written in the order of their packets whenever the engine is quiet, so that the log is
 * the same however fast the store answered. A log that cannot be written stops no traffic: it is counted, and logged
 * at a bounded rate. One reactor; nothing waits for a reactor, but a slow disk is waited for.
 */
#pragma once
#include "rules.h"
#include <netstar/flow.h>

struct ips_alert {
    nst_time time;               /* of the packet */
    uint64_t packet;             /* its number */
    uint64_t offset;             /* of the match's end in the stream */
    const struct ips_rule *rule; /* borrowed until it is written */
    enum nst_side to;            /* the end that receives the stream */
    uint16_t vlan;               /* 0: none */
    struct nst_endpoint src, dst;
};

struct ips_alerts;

/* Opens the log: "-" is standard output. A replay begins the file anew, live traffic appends to it. The errno of
 * opening. */
int ips_alerts_open(struct ips_alerts **out, const char *path, bool replay);
void ips_alerts_add(struct ips_alerts *log, const struct ips_alert *alert);

/* Writes what was collected. */
void ips_alerts_quiet(struct ips_alerts *log);

/* Writes what was collected, and from now on each alert at once, also in a replay: nothing borrows a rule any longer. */
void ips_alerts_hurry(struct ips_alerts *log);

/* Alerts that could not be written. */
uint64_t ips_alerts_lost(const struct ips_alerts *log);

/* Writes what was collected and closes. NULL is allowed. */
void ips_alerts_close(struct ips_alerts *log);

/* One line, with its newline; `time` counts from 1970. Returns its length; cap of IPS_ALERT_MAX always suffices. */
enum { IPS_ALERT_MAX = 6 * IPS_LINE_MAX + 512 };
size_t ips_alert_format(const struct ips_alert *alert, nst_time time, char *buf, size_t cap);
