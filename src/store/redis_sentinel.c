/* SPDX-License-Identifier: Apache-2.0 */
/* store/redis_sentinel.c - where the master is: sentinels say so, and are asked before each attempt to connect and each
 * second. When they name another one, the connection to the old one is given up, also when that still answers. */
#include "store/redis.h"
#include <stdio.h>

int redis_sentinel_open(struct redis_store *s, const char **why)
{
    char text[64];
    int rc = redis_link_open(&s->sentinel, s, s->url.name);

    if (rc < 0)
        return rc;
    s->sentinel->sentinel = true;
    for (unsigned i = 0; i < s->url.n_hosts; i++) {
        if (redis_resolve(s->sentinel, s->url.hosts[i].host, s->url.hosts[i].port, false) != 0)
            store_url_why(why, "the host \"%s\" cannot be resolved", s->url.hosts[i].host);
    }
    if (s->sentinel->n_addresses == 0)
        return -EINVAL;
    redis_address_text(&s->sentinel->addresses[0], text, sizeof text);
    snprintf(s->sentinel->host, sizeof s->sentinel->host, "%s", s->url.hosts[0].host);
    snprintf(s->sentinel->name, sizeof s->sentinel->name, "%s (sentinels)", s->url.name);
    s->link->queueing = false; /* there is no attempt yet */
    redis_link_start(s->sentinel);
    return 0;
}

static void start_with(struct redis_store *s, const char *host, uint16_t port)
{
    struct redis_link *l = s->link;

    l->n_addresses = l->next_address = 0;
    if (redis_resolve(l, host, port, true) != 0) {
        redis_log(s, NST_LOG_WARNING, s->sentinel->name, "the master is named by something else than an address: %s",
                  host);
        l->trouble = -EINVAL;
        return;
    }
    snprintf(l->host, sizeof l->host, "%s", host);
    l->port = port;
    snprintf(l->name, sizeof l->name, "%s (master %s:%u)", s->url.name, host, port);
    redis_link_start(l);
}

void redis_sentinel_answer(struct redis_link *from, const char *answer)
{
    struct redis_store *s = from->store;
    struct redis_link *l = s->link;
    struct resp list, host, port;
    const char *p = resp_next(answer, &list);
    char text[sizeof l->host], number[8];
    int n;

    if (list.type != RESP_LIST || list.n != 2) {
        l->trouble = -ENOENT;
        from->useless = "this sentinel does not know the service";
        return;
    }
    resp_next(resp_next(p, &host), &port);
    if (host.type != RESP_STRING || port.type != RESP_STRING || host.len >= sizeof text || port.len >= sizeof number)
        return;
    snprintf(text, sizeof text, "%.*s", (int)host.len, host.p);
    snprintf(number, sizeof number, "%.*s", (int)port.len, port.p);
    if (sscanf(number, "%d", &n) != 1 || n <= 0 || n > 65535)
        return;
    if (l->port != n || strcmp(l->host, text) != 0) {
        if (l->state != REDIS_PAUSE)
            redis_drop(l, -EROFS, "the sentinels name another master");
        start_with(s, text, (uint16_t)n);
    } else if (l->state == REDIS_PAUSE && !l->timer_armed) {
        start_with(s, text, (uint16_t)n);
    }
}
