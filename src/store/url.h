/* SPDX-License-Identifier: Apache-2.0 */
/* store/url.h - the URL of a store, taken apart. Pure functions, any thread. */
#pragma once
#include <netstar/base.h>

enum store_kind {
    STORE_MEM,
    STORE_LMDB,
    STORE_REDIS_TCP,
    STORE_REDIS_UNIX,
    STORE_REDIS_SENTINEL, /* the hosts are sentinels, who know where `service` is */
    STORE_REDIS_CLUSTER,  /* the hosts are some of the cluster's nodes */
};

enum { STORE_HOSTS = 16, STORE_REPLICAS_MAX = 16 };

struct store_host {
    char host[256]; /* a name or a numeric address, without brackets */
    uint16_t port;
};

struct store_url {
    enum store_kind kind;
    bool auth; /* a user or a password was given */
    bool tls;
    char user[128]; /* empty: the default user */
    char password[256];
    struct store_host hosts[STORE_HOSTS];
    unsigned n_hosts;
    uint32_t db;
    uint32_t gib;                      /* of a file, at most; 0: the default */
    uint32_t replicas;                 /* that must have a write before it is acknowledged */
    char service[64];                  /* what sentinels call it */
    char path[256];                    /* of a file, or a Unix socket, which is shorter */
    char ca[256], cert[256], key[256]; /* TLS: files; empty: the system's authorities, no certificate of one's own */
    char name[512];                    /* for messages: the URL without its password */
};

/* Takes url apart. 0, or -EINVAL and in *why (unless why is NULL) what was wrong at which character, counted from 1,
 * in a buffer of this thread that the next call reuses. */
int store_url_parse(struct store_url *out, const char *url, const char **why);

/* Formats a reason into the same buffer. Returns -EINVAL. */
int store_url_why(const char **why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
