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
    else if (u.kind == STORE_LMDB)
        rc = store_lmdb_open(out, &u, config, why);
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

bool nst_store_alone(const struct nst_store *s)
{
    return s->alone;
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

/* What every request begins with. */
static void start(struct nst_store *s, const struct store_request *rq, struct nst_future *f)
{
    nst_future_init(f);
    s->stats.requests++;
    if (__builtin_expect(rq->key.len > NST_KEY_MAX || rq->val.len > NST_VALUE_MAX || rq->other.len > NST_VALUE_MAX, 0))
        store_refuse(s, f, -EMSGSIZE);
    else if (__builtin_expect(rq->ttl < 0, 0))
        store_refuse(s, f, -EINVAL);
    else if (__builtin_expect((rq->op == STORE_POOL_TAKE || rq->op == STORE_POOL_KEEP) && rq->ttl == 0, 0))
        store_refuse(s, f, -EINVAL);
    else
        s->ops->start(s, rq, f);
}

/* Each request: its start form, and the one that waits. */
#define ARGS(...) , ##__VA_ARGS__
#define REQUEST(name, operation, args, pass, fields)                                              \
    void nst_##name##_start(struct nst_store *s, struct nst_slice key args, struct nst_future *f) \
    {                                                                                             \
        struct store_request rq = { .op = operation, .key = key fields };                         \
        start(s, &rq, f);                                                                         \
    }                                                                                             \
    int nst_##name(struct nst_store *s, struct nst_slice key args, nst_time until)                \
    {                                                                                             \
        struct nst_future f;                                                                      \
        nst_##name##_start(s, key pass, &f);                                                      \
        return nst_await(&f, until);                                                              \
    }

REQUEST(get, STORE_GET, ARGS(void *val, size_t cap, uint64_t *version), ARGS(val, cap, version),
        ARGS(.out = val, .cap = cap, .number = version))
REQUEST(put, STORE_PUT, ARGS(struct nst_slice val, nst_time ttl), ARGS(val, ttl), ARGS(.val = val, .ttl = ttl))
REQUEST(put_new, STORE_PUT_NEW, ARGS(struct nst_slice val, nst_time ttl), ARGS(val, ttl), ARGS(.val = val, .ttl = ttl))
REQUEST(cas, version != 0 ? STORE_CAS : STORE_CAS_NEW, ARGS(struct nst_slice val, uint64_t version, nst_time ttl),
        ARGS(val, version, ttl), ARGS(.val = val, .token = version, .ttl = ttl))
REQUEST(cas_bytes, STORE_CAS_BYTES, ARGS(struct nst_slice expected, struct nst_slice val, nst_time ttl),
        ARGS(expected, val, ttl), ARGS(.other = expected, .val = val, .ttl = ttl))
REQUEST(incr, STORE_INCR, ARGS(int64_t by, int64_t *out, nst_time ttl), ARGS(by, out, ttl),
        ARGS(.by = by, .count = out, .ttl = ttl))
REQUEST(delete, STORE_DELETE, ARGS(), ARGS(), ARGS())
REQUEST(touch, STORE_TOUCH, ARGS(nst_time ttl), ARGS(ttl), ARGS(.ttl = ttl))
REQUEST(own, STORE_OWN, ARGS(void *val, size_t cap, uint64_t *token, nst_time ttl), ARGS(val, cap, token, ttl),
        ARGS(.out = val, .cap = cap, .number = token, .ttl = ttl))
REQUEST(put_owned, STORE_PUT_OWNED, ARGS(struct nst_slice val, uint64_t token, nst_time ttl), ARGS(val, token, ttl),
        ARGS(.val = val, .token = token, .ttl = ttl))
REQUEST(delete_owned, STORE_DELETE_OWNED, ARGS(uint64_t token), ARGS(token), ARGS(.token = token))
REQUEST(check_owned, STORE_CHECK_OWNED, ARGS(uint64_t token), ARGS(token), ARGS(.token = token))
REQUEST(pool_take, STORE_POOL_TAKE, ARGS(uint32_t size, nst_time lasts, struct nst_lease *out), ARGS(size, lasts, out),
        ARGS(.value = size, .ttl = lasts, .lease = out))
REQUEST(pool_keep, STORE_POOL_KEEP, ARGS(struct nst_lease lease, nst_time lasts), ARGS(lease, lasts),
        ARGS(.value = lease.value, .token = lease.ticket, .ttl = lasts))
REQUEST(pool_give, STORE_POOL_GIVE, ARGS(struct nst_lease lease), ARGS(lease),
        ARGS(.value = lease.value, .token = lease.ticket))
REQUEST(scan, STORE_SCAN, ARGS(struct nst_scan *at, void *page, size_t cap), ARGS(at, page, cap),
        ARGS(.scan = at, .out = page, .cap = cap))

struct nst_slice nst_scan_key(const void **place)
{
    uint16_t len;
    const uint8_t *p = *place;

    memcpy(&len, p, sizeof len);
    *place = p + sizeof len + len;
    return (struct nst_slice){ p + sizeof len, len };
}

/* ---- listening ---- */

static bool begins_with(struct nst_slice text, struct nst_slice prefix)
{
    return text.len >= prefix.len && (prefix.len == 0 || memcmp(text.p, prefix.p, prefix.len) == 0);
}

int nst_listen(struct nst_store *s, struct nst_listener *l)
{
    unsigned n = 0;

    if (l->prefix.len > NST_KEY_MAX)
        return -EMSGSIZE;
    for (struct nst_listener *o = s->listeners; o != NULL; o = o->next, n++) {
        if (begins_with(l->prefix, o->prefix) || begins_with(o->prefix, l->prefix))
            return -EEXIST;
    }
    if (n >= NST_LISTENERS_MAX)
        return -ENOSPC;
    l->live = false;
    l->next = s->listeners;
    s->listeners = l;
    if (s->ops->listen != NULL)
        s->ops->listen(s, l);
    return 0;
}

void nst_unlisten(struct nst_store *s, struct nst_listener *l)
{
    struct nst_listener **at = &s->listeners;

    while (*at != NULL && *at != l)
        at = &(*at)->next;
    if (*at != NULL) {
        *at = l->next;
        s->unlistened = true;
    }
    l->live = false;
}

void store_changed(struct nst_store *s, struct nst_slice key)
{
    if (key.p == NULL)
        key.p = ""; /* nothing at all means every key */
    for (struct nst_listener *l = s->listeners; l != NULL; l = l->next) {
        if (begins_with(key, l->prefix))
            l->changed(l, key);
    }
}

void store_all_changed(struct nst_store *s, bool live)
{
    for (struct nst_listener *l = s->listeners; l != NULL; l = l->next) {
        bool told = l->live;
        l->live = live;
        if (told)
            l->changed(l, (struct nst_slice){ NULL, 0 });
    }
}

int nst_store_ping(struct nst_store *s, nst_time until)
{
    for (;;) {
        struct nst_future f;
        nst_time retry;
        int rc, trouble;

        nst_future_init(&f);
        s->ops->start(s, &(struct store_request){ .op = STORE_PING }, &f);
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
