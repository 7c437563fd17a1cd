/* SPDX-License-Identifier: Apache-2.0 */
/* store/redis_cluster.c - which node of a Redis cluster a key belongs to.
 *
 * There is a connection to every node that the cluster names, replicas too: one that is promoted is connected already.
 * The map of the slots comes from CLUSTER SLOTS, asked of whichever node answers: at the start, when a node was lost or
 * says that a slot has moved, and then again and again until every slot's node is connected. The nodes of the URL are
 * only where the first question goes.
 */
#include "store/redis.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { SLOTS = 16384, NODES = 128, NOBODY = 255 };
static const nst_time ask_after = NST_MS(100);

struct redis_cluster {
    struct redis_link *node[NODES];
    uint8_t owner[SLOTS]; /* number of the node, or NOBODY */
    uint32_t version;     /* of the map */
    bool asked;           /* an answer is to come */
    bool stale;           /* the map is known to be old */
    unsigned next;        /* whom to ask next */
    nst_time asked_at;
    struct nst_watch timer;
};

/* ---- slots ---- */

static uint16_t crc_table[256];

static void make_table(void)
{
    for (int i = 0; i < 256; i++) {
        uint16_t crc = (uint16_t)(i << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc << 1 ^ (crc & 0x8000 ? 0x1021 : 0));
        crc_table[i] = crc;
    }
}

/* CRC-16/XMODEM of the key, or of what stands between the first '{' and the next '}' when that is something. */
uint16_t redis_slot(const void *key, size_t len)
{
    const uint8_t *p = key, *open = len != 0 ? memchr(p, '{', len) : NULL, *shut;
    uint16_t crc = 0;

    if (open != NULL) {
        shut = memchr(open, '}', (size_t)(p + len - open));
        if (shut != NULL && shut > open + 1) {
            p = open + 1;
            len = (size_t)(shut - p);
        }
    }
    for (size_t i = 0; i < len; i++)
        crc = (uint16_t)(crc << 8 ^ crc_table[crc >> 8 ^ p[i]]);
    return crc % SLOTS;
}

/* ---- nodes ---- */

static bool usable(const struct redis_link *l)
{
    return l->state == REDIS_READY || l->queueing;
}

static struct redis_link *find_node(struct redis_cluster *c, const char *host, uint16_t port)
{
    for (int i = 0; i < NODES; i++) {
        if (c->node[i] != NULL && c->node[i]->port == port && strcmp(c->node[i]->host, host) == 0)
            return c->node[i];
    }
    return NULL;
}

/* Connects to a node that nobody knew; NULL when it cannot be. */
static struct redis_link *add_node(struct redis_store *s, const char *host, uint16_t port)
{
    struct redis_cluster *c = s->cluster;
    struct redis_link *l;
    char name[sizeof l->name];
    int i = 0;

    while (i < NODES && c->node[i] != NULL)
        i++;
    snprintf(name, sizeof name, "%s (node %s:%u)", s->url.name, host, port);
    if (i == NODES || strlen(host) >= sizeof l->host || redis_link_open(&l, s, name) < 0) {
        redis_log(s, NST_LOG_WARNING, name, "cannot be a node: %s", i == NODES ? "too many of them" : "no memory");
        return NULL;
    }
    snprintf(l->host, sizeof l->host, "%s", host);
    l->port = port;
    l->index = (uint8_t)i;
    if (redis_resolve(l, host, port, true) != 0) {
        redis_log(s, NST_LOG_WARNING, name, "cannot be a node: the cluster names it by something else than an address");
        redis_link_close(l);
        return NULL;
    }
    c->node[i] = l;
    redis_link_start(l);
    return l;
}

void redis_each(struct redis_store *s, void (*fn)(struct redis_link *l, void *arg), void *arg)
{
    if (s->link != NULL)
        fn(s->link, arg);
    for (int i = 0; s->cluster != NULL && i < NODES; i++) {
        if (s->cluster->node[i] != NULL)
            fn(s->cluster->node[i], arg);
    }
}

/* The connection that has the slot, or while nobody knows, one that will say who has it. */
static struct redis_link *of_slot(struct redis_cluster *c, uint16_t slot)
{
    if (c->owner[slot] != NOBODY)
        return c->node[c->owner[slot]];
    for (int i = 0; i < NODES; i++) {
        if (c->node[i] != NULL && usable(c->node[i]))
            return c->node[i];
    }
    return NULL;
}

/* ---- the map ---- */

static void owners(const struct redis_cluster *c, bool is_owner[NODES + 128], bool *all)
{
    memset(is_owner, 0, NODES + 128);
    for (int i = 0; i < SLOTS; i++)
        is_owner[c->owner[i]] = true;
    *all = !is_owner[NOBODY];
}

/* Every slot has a node, and every such node is connected. */
static bool whole(const struct redis_cluster *c, bool told)
{
    bool is_owner[NODES + 128], all;

    owners(c, is_owner, &all);
    for (int i = 0; i < NODES && all; i++)
        all = !is_owner[i] || (c->node[i]->state == REDIS_READY && (!told || c->node[i]->tracks == 0));
    return all;
}

bool redis_cluster_tells(const struct redis_store *s)
{
    return whole(s->cluster, true);
}

int redis_cluster_trouble(const struct redis_store *s)
{
    const struct redis_cluster *c = s->cluster;
    int trouble = -EAGAIN;

    if (whole(c, false))
        return 0;
    for (int i = 0; i < NODES; i++) {
        if (c->node[i] != NULL && c->node[i]->state != REDIS_READY && c->node[i]->trouble != 0)
            trouble = c->node[i]->trouble;
    }
    return trouble;
}

static void arm(struct redis_cluster *c)
{
    struct itimerspec t = { .it_value = { 0, ask_after } };

    timerfd_settime(c->timer.fd, 0, &t, NULL);
}

/* Asks the next node that can be asked, but not more often than there is sense in it. */
static void ask(struct redis_store *s)
{
    struct redis_cluster *c = s->cluster;
    nst_time now = nst_clock();

    arm(c);
    if ((c->asked && now - c->asked_at < NST_SEC(1)) || (c->asked_at != 0 && now - c->asked_at < ask_after / 2))
        return;
    for (unsigned i = 0; i < NODES; i++) {
        struct redis_link *l = c->node[c->next++ % NODES];
        if (l != NULL && l->state == REDIS_READY && redis_put_topology(l)) {
            c->asked = true;
            c->asked_at = now;
            return;
        }
    }
}

static void on_timer(struct nst_watch *w, uint32_t events)
{
    struct redis_cluster *c = (struct redis_cluster *)((char *)w - offsetof(struct redis_cluster, timer));
    struct redis_store *s = NULL;
    uint64_t times;

    if (read(w->fd, &times, sizeof times) != sizeof times)
        return;
    for (int i = 0; i < NODES; i++) {
        if (c->node[i] != NULL)
            s = c->node[i]->store;
    }
    if (s != NULL && (c->stale || !whole(c, false)))
        ask(s);
}

void redis_cluster_ready(struct redis_link *l)
{
    struct redis_cluster *c = l->store->cluster;

    if (c->stale || !whole(c, false))
        ask(l->store);
}

void redis_cluster_lost(struct redis_link *l)
{
    l->store->cluster->stale = true;
    l->store->cluster->asked = false;
    ask(l->store);
}

/* One address: a list of an address, a port, and what does not matter here. Returns what follows. */
static const char *read_node(struct redis_link *from, const char *p, struct redis_link **out)
{
    struct resp list, host, port;
    const char *rest = resp_skip(p);
    char text[sizeof from->host];

    *out = NULL;
    p = resp_next(p, &list);
    if (list.type != RESP_LIST || list.n < 2)
        return rest;
    p = resp_next(p, &host);
    resp_next(p, &port);
    if (port.type != RESP_INTEGER || port.n <= 0 || port.n > 65535)
        return rest;
    /* nothing, or an empty name: the one that was asked */
    if (host.type == RESP_NULL || host.len == 0)
        snprintf(text, sizeof text, "%s", from->host);
    else if (host.type == RESP_STRING && host.len < sizeof text)
        snprintf(text, sizeof text, "%.*s", (int)host.len, host.p);
    else
        return rest;
    *out = find_node(from->store->cluster, text, (uint16_t)port.n);
    if (*out == NULL)
        *out = add_node(from->store, text, (uint16_t)port.n);
    if (*out != NULL)
        (*out)->settled = true;
    return rest;
}

/* Nodes that the cluster does not name any more are closed, unless one of them is busy: then the next time. */
static void forget_nodes(struct redis_cluster *c, const struct redis_link *but)
{
    for (int i = 0; i < NODES; i++) {
        struct redis_link *l = c->node[i];
        if (l == NULL || l->settled || l == but || l->in_flight != 0)
            continue;
        c->node[i] = NULL;
        redis_link_close(l);
    }
}

void redis_cluster_topology(struct redis_link *l, const char *answer)
{
    struct redis_cluster *c = l->store->cluster;
    uint8_t *owner = malloc(SLOTS);
    struct resp ranges;
    const char *p = resp_next(answer, &ranges);

    c->asked = false;
    if (owner == NULL || ranges.type != RESP_LIST || ranges.n == 0) {
        free(owner);
        return;
    }
    memset(owner, NOBODY, SLOTS);
    for (int i = 0; i < NODES; i++) {
        if (c->node[i] != NULL)
            c->node[i]->settled = false;
    }
    for (int64_t i = 0; i < ranges.n; i++) {
        const char *rest = resp_skip(p);
        struct resp range, first, last;
        struct redis_link *node;
        p = resp_next(p, &range);
        if (range.type == RESP_LIST && range.n >= 3) {
            p = resp_next(resp_next(p, &first), &last);
            p = read_node(l, p, &node);
            if (node != NULL && first.type == RESP_INTEGER && last.type == RESP_INTEGER && first.n >= 0 &&
                first.n <= last.n && last.n < SLOTS)
                memset(owner + first.n, node->index, (size_t)(last.n - first.n) + 1);
            for (int64_t j = 3; j < range.n; j++)
                p = read_node(l, p, &node);
        }
        p = rest;
    }
    if (memcmp(owner, c->owner, SLOTS) != 0) {
        memcpy(c->owner, owner, SLOTS);
        c->version++;
    }
    free(owner);
    c->stale = false;
    forget_nodes(c, l);
    redis_listeners(l->store);
}

int redis_cluster_moved(struct redis_link *l, const char *text, size_t len, bool ask_there)
{
    struct redis_store *s = l->store;
    struct redis_cluster *c = s->cluster;
    struct redis_link *to;
    char copy[128], host[sizeof l->host], *colon;
    unsigned slot, port;

    snprintf(copy, sizeof copy, "%.*s", (int)(len < sizeof copy ? len : sizeof copy - 1), text);
    colon = strrchr(copy, ':');
    if (colon == NULL || sscanf(colon, ":%u", &port) != 1 || port == 0 || port > 65535)
        return -EAGAIN;
    *colon = 0;
    host[0] = 0;
    if (sscanf(copy, "%*s %u %63s", &slot, host) < 1 || slot >= SLOTS)
        return -EAGAIN;
    if (host[0] == 0)
        snprintf(host, sizeof host, "%s", l->host);
    to = find_node(c, host, (uint16_t)port);
    if (to == NULL)
        to = add_node(s, host, (uint16_t)port);
    if (to == NULL || to == l)
        return -EAGAIN;
    if (!ask_there) {
        if (c->owner[slot] != to->index) {
            c->owner[slot] = to->index;
            c->version++;
            redis_listeners(s);
        }
        c->stale = true;
        ask(s);
    }
    return redis_forward(l, to, ask_there);
}

/* ---- requests ---- */

/* A scan goes from node to node. When the map changes on the way it begins again. */
static struct redis_link *of_scan(struct redis_cluster *c, struct nst_scan *at)
{
    bool is_owner[NODES + 128], all;

    if (at->last_len != 0 && at->last_len != c->version + 1)
        at->part = at->at = 0;
    at->last_len = c->version + 1;
    owners(c, is_owner, &all);
    for (; all && at->part < NODES; at->part++) {
        if (is_owner[at->part])
            return c->node[at->part];
        at->at = 0;
    }
    return NULL;
}

void redis_cluster_scanned(struct redis_store *s, const struct redis_link *l, struct nst_scan *at)
{
    bool is_owner[NODES + 128], all;

    owners(s->cluster, is_owner, &all);
    at->part = l->index + 1u;
    for (int i = l->index + 1; i < NODES; i++) {
        if (is_owner[i])
            at->done = false;
    }
    if (at->last_len != s->cluster->version + 1)
        at->done = false;
}

struct redis_link *redis_cluster_link(struct redis_store *s, const struct store_request *rq)
{
    struct redis_cluster *c = s->cluster;

    if (rq->op == STORE_SCAN)
        return of_scan(c, rq->scan);
    if (rq->op == STORE_PING)
        return whole(c, false) ? of_slot(c, 0) : NULL;
    return of_slot(c, redis_slot(rq->key.p, rq->key.len));
}

/* ---- opening and closing ---- */

int redis_cluster_open(struct redis_store *s, const char **why)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct redis_cluster *c = calloc(1, sizeof *c);
    unsigned made = 0;
    int rc;

    pthread_once(&once, make_table);
    if (c == NULL)
        return -ENOMEM;
    s->cluster = c;
    memset(c->owner, NOBODY, sizeof c->owner);
    c->stale = true;
    c->timer = (struct nst_watch){ .events = EPOLLIN, .ready = on_timer };
    c->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    rc = c->timer.fd < 0 ? -errno : nst_watch_add(s->reactor, &c->timer);
    if (rc < 0) {
        if (c->timer.fd >= 0)
            close(c->timer.fd);
        c->timer.fd = -1;
        return store_url_why(why, "no timer for the store: %s", strerror(-rc)), rc;
    }
    for (unsigned i = 0; i < s->url.n_hosts; i++) {
        struct redis_link *l;
        char name[sizeof l->name], number[64];
        rc = redis_link_open(&l, s, s->url.name);
        if (rc < 0)
            return rc;
        rc = redis_resolve(l, s->url.hosts[i].host, s->url.hosts[i].port, false);
        if (rc != 0) {
            store_url_why(why, "the host \"%s\" cannot be resolved", s->url.hosts[i].host);
            redis_link_close(l);
            continue;
        }
        /* by its address, so that it is found again when the cluster names it */
        redis_address_text(&l->addresses[0], number, sizeof number);
        snprintf(l->host, sizeof l->host, "%s", number);
        l->port = s->url.hosts[i].port;
        if (find_node(c, l->host, l->port) != NULL) {
            redis_link_close(l);
            continue;
        }
        snprintf(name, sizeof name, "%s (node %s:%u)", s->url.name, l->host, l->port);
        memcpy(l->name, name, sizeof name);
        l->index = (uint8_t)made;
        c->node[made++] = l;
        redis_link_start(l);
    }
    return made > 0 ? 0 : -EINVAL;
}

void redis_cluster_close(struct redis_store *s)
{
    struct redis_cluster *c = s->cluster;

    if (c == NULL)
        return;
    for (int i = 0; i < NODES; i++)
        redis_link_close(c->node[i]);
    if (c->timer.fd >= 0) {
        nst_watch_remove(s->reactor, &c->timer);
        close(c->timer.fd);
    }
    free(c);
}
