/* SPDX-License-Identifier: Apache-2.0 */
/* store/store.c - opening by URL, the checks that all stores share, the waiting forms. */
#include "store/store.h"
#include "store/url.h"
#include <netstar/reactor.h>
#include <netstar/task.h>

int nst_store_open(struct nst_store **out, const char *url, const struct nst_store_config *config, const char **why)
{
    static const struct nst_store_config defaults;
    struct store_url u;
    int rc = store_url_parse(&u, url, why);

    if (rc < 0)
        return rc;
    if (config == NULL)
        config = &defaults;
    if (u.kind == STORE_MEM)
        rc = store_mem_open(out, config);
    else
        rc = store_redis_open(out, &u, config, why);
    if (rc == -ENOMEM)
        store_url_why(why, "not enough memory");
    return rc;
}

int nst_store_check(const char *url, const char **why)
{
    struct store_url u;

    return store_url_parse(&u, url, why);
}

void nst_store_close(struct nst_store *s)
{
    if (s != NULL)
        s->ops->close(s);
}

void nst_store_stats(const struct nst_store *s, struct nst_store_stats *out)
{
    *out = s->stats;
    if (s->ops->stats != NULL)
        s->ops->stats(s, out);
}

/* What every request begins with; false when it has been refused. */
static bool begin(struct nst_store *s, struct nst_slice key, size_t val_len, nst_time ttl, struct nst_future *f)
{
    nst_future_init(f);
    s->stats.requests++;
    if (__builtin_expect(key.len > NST_KEY_MAX || val_len > NST_VALUE_MAX, 0)) {
        store_refuse(s, f, -EMSGSIZE);
        return false;
    }
    if (__builtin_expect(ttl < 0, 0)) {
        store_refuse(s, f, -EINVAL);
        return false;
    }
    return true;
}

void nst_get_start(struct nst_store *s, struct nst_slice key, void *val, size_t cap, uint64_t *version,
                   struct nst_future *f)
{
    if (begin(s, key, 0, 0, f))
        s->ops->get(s, key, val, cap, version, f);
}

void nst_put_start(struct nst_store *s, struct nst_slice key, struct nst_slice val, nst_time ttl, struct nst_future *f)
{
    if (begin(s, key, val.len, ttl, f))
        s->ops->put(s, key, val, ttl, f);
}

void nst_cas_start(struct nst_store *s, struct nst_slice key, struct nst_slice val, uint64_t version, nst_time ttl,
                   struct nst_future *f)
{
    if (begin(s, key, val.len, ttl, f))
        s->ops->cas(s, key, val, version, ttl, f);
}

void nst_incr_start(struct nst_store *s, struct nst_slice key, int64_t by, int64_t *out, nst_time ttl,
                    struct nst_future *f)
{
    if (begin(s, key, 0, ttl, f))
        s->ops->incr(s, key, by, out, ttl, f);
}

void nst_delete_start(struct nst_store *s, struct nst_slice key, struct nst_future *f)
{
    if (begin(s, key, 0, 0, f))
        s->ops->del(s, key, f);
}

int nst_get(struct nst_store *s, struct nst_slice key, void *val, size_t cap, uint64_t *version, nst_time until)
{
    struct nst_future f;

    nst_get_start(s, key, val, cap, version, &f);
    return nst_await(&f, until);
}

int nst_put(struct nst_store *s, struct nst_slice key, struct nst_slice val, nst_time ttl, nst_time until)
{
    struct nst_future f;

    nst_put_start(s, key, val, ttl, &f);
    return nst_await(&f, until);
}

int nst_cas(struct nst_store *s, struct nst_slice key, struct nst_slice val, uint64_t version, nst_time ttl,
            nst_time until)
{
    struct nst_future f;

    nst_cas_start(s, key, val, version, ttl, &f);
    return nst_await(&f, until);
}

int nst_incr(struct nst_store *s, struct nst_slice key, int64_t by, int64_t *out, nst_time ttl, nst_time until)
{
    struct nst_future f;

    nst_incr_start(s, key, by, out, ttl, &f);
    return nst_await(&f, until);
}

int nst_delete(struct nst_store *s, struct nst_slice key, nst_time until)
{
    struct nst_future f;

    nst_delete_start(s, key, &f);
    return nst_await(&f, until);
}

int nst_store_ping(struct nst_store *s, nst_time until)
{
    for (;;) {
        struct nst_future f;
        nst_time retry;
        int rc, trouble;

        nst_future_init(&f);
        s->ops->ping(s, &f);
        rc = nst_await(&f, until);
        if (rc == 0 || rc == -ECANCELED)
            return rc;
        trouble = s->ops->trouble(s);
        if (trouble != 0)
            rc = trouble;
        if (nst_now() >= until)
            return rc;
        retry = nst_now() + NST_MS(10);
        if (nst_sleep(retry < until ? retry : until) < 0)
            return -ECANCELED;
    }
}
