/* SPDX-License-Identifier: Apache-2.0 */
/* cli/prometheus.h - the numbers of an instance in the text format of Prometheus. */
#pragma once
#include <jansson.h>
#include <stdio.h>

/* Writes what the control socket answers to `stats`. Every number of the report is there: as netstar_..._total where it
 * only grows, else as a gauge; times in seconds; causes, ports and cores as labels, the instance and its NF as labels of
 * all. */
void prometheus_text(const json_t *stats, FILE *out);
