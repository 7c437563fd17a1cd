/* SPDX-License-Identifier: Apache-2.0 */
/* store/redis.c - a store on Redis: opening it, and what its connections have in common. */
#include "store/redis.h"
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
    struct redis_record *r = redis_begin(l, rq, f, redis_request_bytes(rq));

    if (r != NULL)
        redis_commit(l, r, redis_put_request(s, (char *)l->out + l->filled, rq, r));
}

/* ---- listening ---- */

void redis_listeners(struct redis_store *s)
{
    if (s->link->state != REDIS_READY || s->link->tracks != 0)
        return;
    for (struct nst_listener *o = s->base.listeners; o != NULL; o = o->next)
        o->live = true;
}

void redis_link_ready(struct redis_link *l)
{
}

void redis_link_lost(struct redis_link *l)
{
    l->tracks = 0;
    store_all_changed(&l->store->base, false);
}

static void redis_listen(struct nst_store *base, struct nst_listener *one)
{
    struct redis_link *l = redis_of(base)->link;

    if (base->unlistened) { /* a server takes no prefix that overlaps one it knows: begin anew */
        store_all_changed(base, false);
        one = NULL;
    }
    base->unlistened = false;
    if (l->state == REDIS_READY && !redis_put_track(l, one))
        redis_drop(l, -EBUSY, "no room to ask for changes"); /* the next connection asks for all */
}

/* ---- opening and closing ---- */

static int resolve(struct redis_store *s, struct redis_link *l, const char **why)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *found, *a;
    char port[8];
    int rc;

    if (s->url.kind == STORE_REDIS_UNIX) {
        l->addresses[0].un.sun_family = AF_UNIX;
        memcpy(l->addresses[0].un.sun_path, s->url.path, sizeof s->url.path);
        l->addresses[0].len = sizeof l->addresses[0].un;
        l->n_addresses = 1;
        return 0;
    }
    snprintf(port, sizeof port, "%u", s->url.port);
    rc = getaddrinfo(s->url.host, port, &hints, &found);
    if (rc != 0)
        return store_url_why(why, "the host \"%s\" cannot be resolved: %s", s->url.host, gai_strerror(rc));
    for (a = found; a != NULL && l->n_addresses < REDIS_ADDRESSES; a = a->ai_next) {
        struct redis_address *to = &l->addresses[l->n_addresses++];
        memcpy(&to->any, a->ai_addr, a->ai_addrlen);
        to->len = a->ai_addrlen;
    }
    freeaddrinfo(found);
    return 0;
}

static void redis_close(struct nst_store *base)
{
    struct redis_store *s = redis_of(base);

    redis_link_close(s->link);
    free(s);
}

static int redis_trouble(const struct nst_store *base)
{
    const struct redis_link *l = ((const struct redis_store *)base)->link;

    if (l->state == REDIS_READY)
        return 0;
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
    rc = redis_link_open(&s->link, s, s->url.name);
    if (rc < 0) {
        free(s);
        return rc == -ENOMEM ? rc : store_url_why(why, "no timer for the store: %s", strerror(-rc)), rc;
    }
    rc = resolve(s, s->link, why);
    if (rc < 0) {
        redis_close(&s->base);
        return rc;
    }
    redis_link_start(s->link);
    *out = &s->base;
    return 0;
}
