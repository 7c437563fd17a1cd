/* SPDX-License-Identifier: Apache-2.0 */
/* store/url.h - the URL of a store, taken apart. Pure functions, any thread. */
#pragma once
#include <netstar/base.h>

enum store_kind { STORE_MEM, STORE_REDIS_TCP, STORE_REDIS_UNIX };

struct store_url {
    enum store_kind kind;
    bool auth;      /* a user or a password was given */
    char user[128]; /* empty: the default user */
    char password[256];
    char host[256]; /* a name or a numeric address, without brackets */
    uint16_t port;
    uint32_t db;
    char path[108]; /* of a Unix socket */
    char name[512]; /* for messages: the URL without its password */
};

/* Takes url apart. 0, or -EINVAL and in *why (unless why is NULL) what was wrong at which character, counted from 1,
 * in a buffer of this thread that the next call reuses. */
int store_url_parse(struct store_url *out, const char *url, const char **why);

/* Formats a reason into the same buffer. Returns -EINVAL. */
int store_url_why(const char **why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
