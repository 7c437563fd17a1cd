/* SPDX-License-Identifier: Apache-2.0 */
/* store/store.h - what a kind of store must offer, and what all of them share.
 *
 * store.c checks arguments, counts requests and initialises the future; then it calls the kind's start function,
 * which must copy what the request's slices lend before it returns and see to it that the future is fulfilled exactly
 * once, through store_answer, store_refuse or directly with -ECANCELED. Everything happens on the reactor that opened
 * the store.
 */
#pragma once
#include <netstar/store.h>
#include <string.h>

enum store_op {
    STORE_GET,
    STORE_PUT,
    STORE_PUT_NEW,
    STORE_CAS, /* version is not 0: that is STORE_PUT_NEW with another error */
    STORE_CAS_NEW,
    STORE_CAS_BYTES,
    STORE_INCR,
    STORE_DELETE,
    STORE_TOUCH,
    STORE_OWN,
    STORE_PUT_OWNED,
    STORE_DELETE_OWNED,
    STORE_CHECK_OWNED,
    STORE_POOL_TAKE,
    STORE_POOL_KEEP,
    STORE_POOL_GIVE,
    STORE_SCAN,
    STORE_PING,
    STORE_OPS,
};

/* One request; what the operation does not need is left as it is. */
struct store_request {
    enum store_op op;
    uint32_t value;         /* of a pool; pool_take: its size */
    struct nst_slice key;   /* scan: the prefix */
    struct nst_slice val;   /* to be written */
    struct nst_slice other; /* cas_bytes: what is expected */
    uint64_t token;         /* or the version, or the ticket */
    int64_t by;
    nst_time ttl;
    void *out; /* get, own: the value; scan: the page */
    size_t cap;
    union {
        uint64_t *number; /* version, token */
        int64_t *count;
        struct nst_lease *lease;
        struct nst_scan *scan;
    };
};

struct store_ops {
    void (*start)(struct nst_store *s, const struct store_request *rq, struct nst_future *f);
    /* Why there is no connection, as an -errno, for nst_store_ping; 0 when there is one. */
    int (*trouble)(const struct nst_store *s);
    /* Adds what is not counted in nst_store.stats. May be NULL. */
    void (*stats)(const struct nst_store *s, struct nst_store_stats *out);
    /* The first listener, or one more, is in the list. NULL: the store cannot tell of changes. */
    void (*listen)(struct nst_store *s, struct nst_listener *l);
    void (*close)(struct nst_store *s);
};

struct nst_store {
    const struct store_ops *ops;
    struct nst_listener *listeners;
    bool alone;
    bool unlistened;              /* there was one more, whose prefix a server still knows */
    struct nst_store_stats stats; /* the counters */
};

struct store_url;
int store_mem_open(struct nst_store **out, const struct nst_store_config *config);
int store_lmdb_open(struct nst_store **out, const struct store_url *url, const struct nst_store_config *config,
                    const char **why);
int store_redis_open(struct nst_store **out, const struct store_url *url, const struct nst_store_config *config,
                     const char **why);

/* The request was answered, well or badly. */
static inline void store_answer(struct nst_store *s, struct nst_future *f, int rc)
{
    s->stats.answers++;
    if (__builtin_expect(rc < 0, 0)) {
        if (rc == -ENOENT)
            s->stats.misses++;
        else if (rc == -ESTALE || rc == -EEXIST)
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

/* Tells the listeners whose prefix the key has. */
void store_changed(struct nst_store *s, struct nst_slice key);
/* Tells every listener that everything may have changed, and sets whether changes are told from now on. */
void store_all_changed(struct nst_store *s, bool live);

/* Adds a key to a page that is used up to *used; false when there is no room for it. */
static inline bool store_scan_add(void *page, size_t cap, size_t *used, const void *key, size_t len)
{
    uint16_t n = (uint16_t)len;
    uint8_t *p = (uint8_t *)page + *used;

    if (cap - *used < sizeof n + len)
        return false;
    memcpy(p, &n, sizeof n);
    if (len != 0)
        memcpy(p + sizeof n, key, len);
    *used += sizeof n + len;
    return true;
}
