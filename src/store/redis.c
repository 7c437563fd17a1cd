/* SPDX-License-Identifier: Apache-2.0 */
/* store/redis.c - a store on Redis: opening it, and what its connections have in common. */
#include "store/redis_tls.h"
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

enum { LOG_BURST = 10 };

void redis_log(struct redis_store *s, enum nst_log_level level, const char *name, const char *fmt, ...)
{
    char text[512], skipped[48] = "";
    va_list ap;

    if (!nst_log_allowed(&s->log_limit, LOG_BURST))
        return;
    if (s->log_limit.skipped != 0)
        snprintf(skipped, sizeof skipped, " (and %u more messages)", s->log_limit.skipped);
    s->log_limit.skipped = 0;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    nst_log(level, "%s: %s%s", name, text, skipped);
}

/* ---- requests ---- */

static void redis_start(struct nst_store *base, const struct store_request *rq, struct nst_future *f)
{
    struct redis_store *s = redis_of(base);
    struct redis_link *l = s->link;
    struct redis_record *r;

    if (l == NULL) {
        l = redis_cluster_link(s, rq);
        if (l == NULL) {
            store_refuse(base, f, -ENOTCONN);
            return;
        }
    }
    r = redis_begin(l, rq, f, redis_request_bytes(rq));
    if (r != NULL)
        redis_commit(l, r, redis_put_request(s, (char *)l->out + l->filled, rq, r));
    if (l->filled - l->sent >= REDIS_EARLY)
        redis_send_early(l);
}

/* ---- what connections say ---- */

void redis_link_ready(struct redis_link *l)
{
    if (l->sentinel)
        redis_put_topology(l);
    else if (l->store->cluster != NULL)
        redis_cluster_ready(l);
}

void redis_link_lost(struct redis_link *l)
{
    l->tracks = 0;
    if (l->sentinel)
        return;
    store_all_changed(&l->store->base, false);
    if (l->store->cluster != NULL)
        redis_cluster_lost(l);
}

bool redis_link_retry(struct redis_link *l)
{
    struct redis_store *s = l->store;

    if (s->sentinel == NULL || l->sentinel)
        return true;
    if (s->sentinel->state == REDIS_READY)
        redis_put_topology(s->sentinel);
    return false;
}

/* Who keeps values trusts in being told: a server that is gone must be noticed. */
bool redis_link_ticks(const struct redis_link *l)
{
    return l->sentinel || l->store->base.listeners != NULL;
}

void redis_link_tick(struct redis_link *l)
{
    if (l->sentinel)
        redis_put_topology(l);
    else
        redis_put_alive(l);
}

void redis_topology(struct redis_link *l, const char *answer)
{
    if (l->sentinel)
        redis_sentinel_answer(l, answer);
    else if (l->store->cluster != NULL)
        redis_cluster_topology(l, answer);
}

/* ---- listening ---- */

void redis_listeners(struct redis_store *s)
{
    bool tells = s->cluster != NULL ? redis_cluster_tells(s) : s->link->state == REDIS_READY && s->link->tracks == 0;

    if (!tells) {
        store_all_changed(&s->base, false);
        return;
    }
    for (struct nst_listener *o = s->base.listeners; o != NULL; o = o->next)
        o->live = true;
}

static void track(struct redis_link *l, void *one)
{
    if (l->state == REDIS_READY && !redis_put_track(l, one))
        l->useless = "no room to ask for changes"; /* the next connection asks for all */
}

static void redis_listen(struct nst_store *base, struct nst_listener *one)
{
    if (base->unlistened) { /* a server takes no prefix that overlaps one it knows: begin anew */
        store_all_changed(base, false);
        one = NULL;
    }
    base->unlistened = false;
    redis_each(redis_of(base), track, one);
}

/* ---- opening and closing ---- */

int redis_resolve(struct redis_link *l, const char *host, uint16_t port, bool numeric)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *found, *a;
    char text[8];
    int rc;

    hints.ai_flags = numeric ? AI_NUMERICHOST : 0;
    snprintf(text, sizeof text, "%u", port);
    rc = getaddrinfo(host, text, &hints, &found);
    if (rc != 0)
        return rc;
    for (a = found; a != NULL && l->n_addresses < REDIS_ADDRESSES; a = a->ai_next) {
        struct redis_address *to = &l->addresses[l->n_addresses++];
        memcpy(&to->any, a->ai_addr, a->ai_addrlen);
        to->len = a->ai_addrlen;
    }
    freeaddrinfo(found);
    return 0;
}

void redis_address_text(const struct redis_address *a, char *text, size_t cap)
{
    if (getnameinfo(&a->sa, a->len, text, (socklen_t)cap, NULL, 0, NI_NUMERICHOST) != 0)
        snprintf(text, cap, "?");
}

/* The one server of the URL. */
static int open_one(struct redis_store *s, const char **why)
{
    struct redis_link *l = s->link;
    int rc;

    if (s->url.kind == STORE_REDIS_UNIX) {
        l->addresses[0].un.sun_family = AF_UNIX;
        memcpy(l->addresses[0].un.sun_path, s->url.path, sizeof l->addresses[0].un.sun_path);
        l->addresses[0].len = sizeof l->addresses[0].un;
        l->n_addresses = 1;
    } else {
        const struct store_host *h = &s->url.hosts[0];
        rc = redis_resolve(l, h->host, h->port, false);
        if (rc != 0)
            return store_url_why(why, "the host \"%s\" cannot be resolved: %s", h->host, gai_strerror(rc));
        snprintf(l->host, sizeof l->host, "%.*s", (int)sizeof l->host - 1, h->host);
    }
    redis_link_start(l);
    return 0;
}

static void redis_close(struct nst_store *base)
{
    struct redis_store *s = redis_of(base);

    redis_link_close(s->link);
    redis_link_close(s->sentinel);
    redis_cluster_close(s);
    redis_tls_close(s);
    free(s);
}

static int redis_trouble(const struct nst_store *base)
{
    const struct redis_store *s = (const struct redis_store *)base;
    const struct redis_link *l = s->link;

    if (s->cluster != NULL)
        return redis_cluster_trouble(s);
    if (l->state == REDIS_READY)
        return 0;
    if (l->trouble == 0 && s->sentinel != NULL && s->sentinel->trouble != 0)
        return s->sentinel->trouble;
    return l->trouble != 0 ? l->trouble : -ENOTCONN;
}

static void redis_stats(const struct nst_store *base, struct nst_store_stats *out)
{
    const struct nst_histogram *h = &((const struct redis_store *)base)->latency;

    out->p50 = (nst_time)nst_histogram_percentile(h, 50);
    out->p90 = (nst_time)nst_histogram_percentile(h, 90);
    out->p99 = (nst_time)nst_histogram_percentile(h, 99);
    out->p999 = (nst_time)nst_histogram_percentile(h, 99.9);
    out->max = (nst_time)h->max;
}

uint64_t redis_writes(const struct nst_store *base)
{
    return ((const struct redis_store *)base)->writes;
}

static const struct store_ops redis_ops = {
    .start = redis_start,
    .trouble = redis_trouble,
    .stats = redis_stats,
    .listen = redis_listen,
    .close = redis_close,
};

int store_redis_open(struct nst_store **out, const struct store_url *url, const struct nst_store_config *config,
                     const char **why)
{
    struct redis_store *s;
    int rc;

    if (nst_reactor_self() == NULL)
        return store_url_why(why, "a Redis store is opened on a running reactor");
    redis_scripts();
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return -ENOMEM;
    s->base.ops = &redis_ops;
    s->reactor = nst_reactor_self();
    s->url = *url;
    s->reply_after = config->reply_after > 0 ? config->reply_after : NST_SEC(5);
    s->in_flight_max = config->in_flight != 0 ? config->in_flight : 4096;
    s->replicas = url->replicas;
    s->ring = 1;
    while (s->ring < s->in_flight_max + REDIS_INTERNAL && s->ring < 1u << 24)
        s->ring *= 2;
    if (s->in_flight_max > s->ring - REDIS_INTERNAL)
        s->in_flight_max = s->ring - REDIS_INTERNAL;
    if (getrandom(&s->version, sizeof s->version, 0) != sizeof s->version) {
        free(s);
        return -ENOMEM;
    }
    s->jitter = (uint32_t)s->version;
    rc = url->tls ? redis_tls_open(s, why) : 0;
    if (rc == 0 && url->kind == STORE_REDIS_CLUSTER) {
        rc = redis_cluster_open(s, why);
    } else if (rc == 0) {
        rc = redis_link_open(&s->link, s, s->url.name);
        if (rc == 0)
            rc = url->kind == STORE_REDIS_SENTINEL ? redis_sentinel_open(s, why) : open_one(s, why);
        else if (rc != -ENOMEM)
            store_url_why(why, "no timer for the store: %s", strerror(-rc));
    }
    if (rc < 0) {
        redis_close(&s->base);
        return rc;
    }
    *out = &s->base;
    return 0;
}
