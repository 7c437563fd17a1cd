/* SPDX-License-Identifier: Apache-2.0 */
/* store/redis_script.h - what a store asks a Redis server to do in one step. */
#pragma once
#include <netstar/base.h>

enum redis_script {
    SCRIPT_NONE,
    SCRIPT_CAS,          /* expected 8 bytes, new, [PX ms]: 1, or 0 */
    SCRIPT_CAS_BYTES,    /* expected, new, [PX ms]: 1, or 0 */
    SCRIPT_INCR,         /* by, ms: the count as text */
    SCRIPT_FOREVER,      /* 1, or 0 when there is no key */
    SCRIPT_OWN,          /* [PX ms]: the record */
    SCRIPT_PUT_OWNED,    /* token, new, [PX ms]: 1, or 0 */
    SCRIPT_DELETE_OWNED, /* token: 1, 0, or -1 when there is no key */
    SCRIPT_CHECK_OWNED,  /* token: 1, or 0 */
    SCRIPT_POOL_TAKE,    /* size, ms: "value:ticket", or nothing */
    SCRIPT_POOL_SET,     /* "value:ticket", ms from now at which it is free: 1, or 0 */
    SCRIPTS,
};

/* Computes the names, once in the process; any thread, before the first use of the others. */
void redis_scripts(void);
/* 40 digits. */
const char *redis_script_name(enum redis_script script);
struct nst_slice redis_script_text(enum redis_script script);
