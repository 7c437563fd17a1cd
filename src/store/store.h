/* SPDX-License-Identifier: Apache-2.0 */
/* store/store.h - what a kind of store must offer, and what all of them share.
 *
 * store.c checks arguments, counts requests and initialises the future; then it calls the kind's start function,
 * which must copy key and value before it returns and see to it that the future is fulfilled exactly once, through
 * store_answer, store_refuse or directly with -ECANCELED. Everything happens on the reactor that opened the store.
 */
#pragma once
#include <netstar/store.h>

struct store_ops {
    void (*get)(struct nst_store *s, struct nst_slice key, void *val, size_t cap, uint64_t *version,
                struct nst_future *f);
    void (*put)(struct nst_store *s, struct nst_slice key, struct nst_slice val, nst_time ttl, struct nst_future *f);
    void (*cas)(struct nst_store *s, struct nst_slice key, struct nst_slice val, uint64_t version, nst_time ttl,
                struct nst_future *f);
    void (*incr)(struct nst_store *s, struct nst_slice key, int64_t by, int64_t *out, nst_time ttl,
                 struct nst_future *f);
    void (*del)(struct nst_store *s, struct nst_slice key, struct nst_future *f);
    void (*ping)(struct nst_store *s, struct nst_future *f);
    /* Why there is no connection, as an -errno, for nst_store_ping; 0 when there is one. */
    int (*trouble)(const struct nst_store *s);
    /* Adds what is not counted in nst_store.stats. May be NULL. */
    void (*stats)(const struct nst_store *s, struct nst_store_stats *out);
    void (*close)(struct nst_store *s);
};

struct nst_store {
    const struct store_ops *ops;
    struct nst_store_stats stats; /* the counters */
};

struct store_url;
int store_mem_open(struct nst_store **out, const struct nst_store_config *config);
int store_redis_open(struct nst_store **out, const struct store_url *url, const struct nst_store_config *config,
                     const char **why);

/* The request was answered, well or badly. */
static inline void store_answer(struct nst_store *s, struct nst_future *f, int rc)
{
    s->stats.answers++;
    if (__builtin_expect(rc < 0, 0)) {
        if (rc == -ENOENT)
            s->stats.misses++;
        else if (rc == -ESTALE)
            s->stats.stale++;
        else if (rc == -EIO || rc == -EINVAL)
            s->stats.errors++;
    }
    nst_fulfil(f, rc);
}

/* The request was never sent, or the store would not take it. */
static inline void store_refuse(struct nst_store *s, struct nst_future *f, int rc)
{
    s->stats.refused++;
    nst_fulfil(f, rc);
}
