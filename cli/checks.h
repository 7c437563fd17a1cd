/* SPDX-License-Identifier: Apache-2.0 */
/* cli/checks.h - what `netstar check` looks at; each look prints one line, and below it what to type. */
#pragma once
#include "settings.h"

enum check_level { CHECK_OK, CHECK_WARNING, CHECK_PROBLEM };

struct checks {
    FILE *out;
    unsigned counts[CHECK_PROBLEM + 1];
};

/* One line: how it is, what was looked at, and the finding. */
void check_say(struct checks *k, enum check_level level, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Below it: what to do about it, a command where there is one. */
void check_hint(struct checks *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void check_kernel(struct checks *k);
void check_processor(struct checks *k);
void check_privileges(struct checks *k, bool live);
void check_hugepages(struct checks *k, const struct settings *s);
void check_port(struct checks *k, const char *name);
void check_store(struct checks *k, const struct settings *s);
void check_memory(struct checks *k, const struct settings *s);

/* What the packet buffers of these settings take, with what DPDK needs besides. */
uint64_t check_buffer_bytes(const struct settings *s);
