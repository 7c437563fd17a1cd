/* SPDX-License-Identifier: Apache-2.0 */
/* store/mem.c - the store in this process: a chained hash table that grows a few buckets at a time.
 *
 * Every request is answered before its start function returns. What has expired is gone for whoever asks at once;
 * its memory comes back when it is met: by a request for its key, by growing, or by the sweep, of which each new key
 * does two buckets' worth. So dead entries never outnumber the live ones for long. At the memory limit a write
 * sweeps more before it gives up.
 */
#include "store/mem_pool.h"
#include "store/siphash.h"
#include "store/store.h"
#include <stdlib.h>
#include <sys/random.h>

enum {
    FIRST_BUCKETS = 1024,
    MOVE_PER_REQUEST = 4, /* buckets, while growing: done long before the next growth */
    SWEEP_PER_INSERT = 2,
    SWEEP_AT_LIMIT = 256,
    SCAN_PER_REQUEST = 1024,
    MALLOC_OVERHEAD = 16,
};

enum kind { VALUE, COUNTER, OWNED, OWNED_EMPTY, POOL };

struct entry {
    struct entry *next;
    nst_time until;
    union {
        uint64_t version; /* or the owner's token */
        int64_t count;
        struct mem_pool *pool;
    };
    uint64_t hash;
    uint32_t val_len, room; /* room: bytes for the value */
    uint16_t key_len;
    uint8_t kind;
    uint8_t bytes[]; /* the key, then the value */
};

struct table {
    struct entry **head;
    size_t buckets; /* a power of two */
};

struct mem_store {
    struct nst_store base;
    struct table now, old; /* old.head is NULL unless growing */
    size_t moved;          /* buckets of old that are empty now */
    size_t sweep;          /* next bucket of now to look through */
    size_t entries, used, limit;
    uint64_t version; /* the last one given, also as token and ticket */
    uint64_t key[2];
};

static struct mem_store *mem_of(struct nst_store *s)
{
    return (struct mem_store *)s;
}

static size_t cost(const struct entry *e)
{
    return sizeof *e + e->key_len + e->room + MALLOC_OVERHEAD;
}

static uint8_t *value_of(struct entry *e)
{
    return e->bytes + e->key_len;
}

static void free_pool(struct mem_store *m, struct entry *e)
{
    if (e->kind == POOL) {
        m->used -= sizeof *e->pool + mem_pool_bytes(e->pool);
        mem_pool_free(e->pool);
        free(e->pool);
    }
}

static void drop(struct mem_store *m, struct entry **at)
{
    struct entry *e = *at;

    *at = e->next;
    free_pool(m, e);
    m->used -= cost(e);
    m->entries--;
    free(e);
}

/* Drops what has expired. */
static void gone(struct mem_store *m, struct entry **at)
{
    struct entry *e = *at;

    if (__builtin_expect(m->base.listeners != NULL, 0))
        store_changed(&m->base, (struct nst_slice){ e->bytes, e->key_len });
    drop(m, at);
}

static void move_some(struct mem_store *m)
{
    nst_time now = nst_now();

    for (int i = 0; i < MOVE_PER_REQUEST && m->moved < m->old.buckets; i++, m->moved++) {
        struct entry **at = &m->old.head[m->moved], *e;
        while ((e = *at) != NULL) {
            if (e->until <= now) {
                gone(m, at);
                continue;
            }
            struct entry **to = &m->now.head[e->hash & (m->now.buckets - 1)];
            *at = e->next;
            e->next = *to;
            *to = e;
        }
    }
    if (m->moved == m->old.buckets) {
        m->used -= m->old.buckets * sizeof *m->old.head;
        free(m->old.head);
        m->old = (struct table){ 0 };
    }
}

static void grow(struct mem_store *m)
{
    size_t buckets = m->now.buckets * 2, bytes = buckets * sizeof *m->now.head;

    if (bytes > m->limit - m->used)
        return; /* chains get longer instead */
    struct entry **head = calloc(buckets, sizeof *head);
    if (head == NULL)
        return;
    m->used += bytes;
    m->old = m->now;
    m->now = (struct table){ head, buckets };
    m->moved = m->sweep = 0;
}

static void sweep(struct mem_store *m, int buckets)
{
    nst_time now = nst_now();

    for (; buckets > 0; buckets--) {
        struct entry **at = &m->now.head[m->sweep];
        while (*at != NULL) {
            if ((*at)->until <= now)
                gone(m, at);
            else
                at = &(*at)->next;
        }
        m->sweep = (m->sweep + 1) & (m->now.buckets - 1);
    }
}

/* The link that holds the key's entry, or the empty link where it would go. An expired entry is removed. */
static struct entry **find(struct mem_store *m, struct nst_slice key, uint64_t hash)
{
    struct table *t = &m->now;
    struct entry **at;

    if (m->old.head != NULL) {
        move_some(m);
        if (m->old.head != NULL && (hash & (m->old.buckets - 1)) >= m->moved)
            t = &m->old;
    }
    for (at = &t->head[hash & (t->buckets - 1)]; *at != NULL; at = &(*at)->next) {
        struct entry *e = *at;
        if (e->hash == hash && e->key_len == key.len && (key.len == 0 || memcmp(e->bytes, key.p, key.len) == 0)) {
            if (e->until > nst_now())
                break;
            gone(m, at);
            while (*at != NULL)
                at = &(*at)->next;
            break;
        }
    }
    return at;
}

static nst_time expiry(nst_time ttl)
{
    nst_time now = nst_now();
    return ttl == 0 || now > NST_NEVER - ttl ? NST_NEVER : now + ttl;
}

static bool room_for(struct mem_store *m, size_t bytes)
{
    if (bytes <= m->limit - m->used)
        return true;
    sweep(m, SWEEP_AT_LIMIT);
    return bytes <= m->limit - m->used;
}

/* Makes an entry for a key that has none, or replaces the one in *at by one with enough room. The entry has its key
 * and links; NULL when there is no memory for it, and then nothing has changed. */
static struct entry *make(struct mem_store *m, struct nst_slice key, uint64_t hash, size_t val_len)
{
    struct entry **at, *e;
    size_t room = (val_len + 15) & ~(size_t)15, size = sizeof *e + key.len + room;

    if (m->old.head == NULL && m->entries >= m->now.buckets)
        grow(m);
    sweep(m, SWEEP_PER_INSERT);
    if (!room_for(m, size + MALLOC_OVERHEAD) || (e = malloc(size)) == NULL)
        return NULL;
    e->kind = VALUE;
    e->hash = hash;
    e->key_len = (uint16_t)key.len;
    e->room = (uint32_t)room;
    if (key.len != 0)
        memcpy(e->bytes, key.p, key.len);
    m->used += cost(e);
    m->entries++;
    at = find(m, key, hash); /* growing and sweeping may have moved the place */
    if (*at != NULL)
        drop(m, at);
    e->next = *at;
    *at = e;
    return e;
}

static int write_value(struct mem_store *m, struct entry *e, enum kind kind, const struct store_request *rq,
                       uint64_t hash)
{
    /* An entry is used again when the value fits and does not leave most of a large room empty. */
    if (e == NULL || rq->val.len > e->room || (e->room > 512 && rq->val.len < e->room / 4)) {
        e = make(m, rq->key, hash, rq->val.len);
        if (e == NULL)
            return -ENOSPC;
    } else {
        free_pool(m, e);
    }
    e->kind = (uint8_t)kind;
    e->version = kind == OWNED ? rq->token : ++m->version;
    e->val_len = (uint32_t)rq->val.len;
    e->until = expiry(rq->ttl);
    if (rq->val.len != 0)
        memcpy(value_of(e), rq->val.p, rq->val.len);
    return 0;
}

static int read_value(struct entry *e, const struct store_request *rq)
{
    if (e->kind == OWNED_EMPTY)
        return -ENOENT;
    if (e->val_len > rq->cap)
        return -EMSGSIZE;
    if (e->val_len != 0)
        memcpy(rq->out, value_of(e), e->val_len);
    return (int)e->val_len;
}

static int get(struct entry *e, const struct store_request *rq)
{
    int rc;

    if (e == NULL)
        return -ENOENT;
    if (e->kind == COUNTER || e->kind == POOL)
        return -EIO;
    rc = read_value(e, rq);
    if (rc >= 0 && rq->number != NULL)
        *rq->number = e->version;
    return rc;
}

static int incr(struct mem_store *m, struct entry *e, const struct store_request *rq, uint64_t hash)
{
    int64_t count;

    if (e != NULL && e->kind != COUNTER)
        return -EINVAL;
    if (__builtin_add_overflow(e != NULL ? e->count : 0, rq->by, &count))
        return -EIO; /* as a server answers */
    if (e == NULL) {
        e = make(m, rq->key, hash, 0);
        if (e == NULL)
            return -ENOSPC;
        e->kind = COUNTER;
        e->val_len = 0;
        e->until = NST_NEVER;
    }
    e->count = count;
    if (rq->ttl != 0)
        e->until = expiry(rq->ttl);
    if (rq->count != NULL)
        *rq->count = count;
    return 0;
}

static int own(struct mem_store *m, struct entry *e, const struct store_request *rq, uint64_t hash)
{
    if (e != NULL && (e->kind == COUNTER || e->kind == POOL))
        return -EIO;
    if (e == NULL) {
        e = make(m, rq->key, hash, 0);
        if (e == NULL)
            return -ENOSPC;
        e->kind = OWNED_EMPTY;
        e->val_len = 0;
    } else if (e->kind == VALUE) {
        e->kind = OWNED;
    }
    e->version = ++m->version;
    e->until = expiry(rq->ttl);
    *rq->number = e->version;
    return read_value(e, rq);
}

static bool owned_by(const struct entry *e, uint64_t token)
{
    return e != NULL && (e->kind == OWNED || e->kind == OWNED_EMPTY) && e->version <= token;
}

/* ---- pools ---- */

static int pool_take(struct mem_store *m, struct entry *e, const struct store_request *rq, uint64_t hash)
{
    size_t room, before;
    int rc;

    if (e != NULL && e->kind != POOL)
        return -EIO;
    if (e == NULL) {
        struct mem_pool *pool = room_for(m, sizeof *pool) ? calloc(1, sizeof *pool) : NULL;
        if (pool == NULL)
            return -ENOSPC;
        m->used += sizeof *pool;
        e = make(m, rq->key, hash, 0);
        if (e == NULL) {
            m->used -= sizeof *pool;
            free(pool);
            return -ENOSPC;
        }
        e->kind = POOL;
        e->pool = pool;
        e->val_len = 0;
        e->until = NST_NEVER;
    }
    before = room = m->used < m->limit ? m->limit - m->used : 0;
    rc = mem_pool_take(e->pool, rq->value, nst_now(), expiry(rq->ttl), ++m->version, &room, rq->lease);
    m->used += before - room;
    return rc == -ENOMEM ? -ENOSPC : rc;
}

static int pool_set(const struct entry *e, const struct store_request *rq, nst_time free_at)
{
    if (e == NULL)
        return -ESTALE;
    return e->kind == POOL ? mem_pool_set(e->pool, rq->value, rq->token, free_at) : -EIO;
}

/* ---- scan: the buckets in the order of their reversed numbers. When the table grows, what was visited and what was not
 *      are the same keys before and after: a bucket's keys go to buckets that follow each other in this order. ---- */

static uint64_t after(uint64_t at, uint64_t mask)
{
    at |= ~mask;
    for (int i = 0; i < 2; i++) {
        at = at >> 32 | at << 32;
        at = (at >> 16 & 0x0000ffff0000ffff) | (at & 0x0000ffff0000ffff) << 16;
        at = (at >> 8 & 0x00ff00ff00ff00ff) | (at & 0x00ff00ff00ff00ff) << 8;
        at = (at >> 4 & 0x0f0f0f0f0f0f0f0f) | (at & 0x0f0f0f0f0f0f0f0f) << 4;
        at = (at >> 2 & 0x3333333333333333) | (at & 0x3333333333333333) << 2;
        at = (at >> 1 & 0x5555555555555555) | (at & 0x5555555555555555) << 1;
        at += i == 0;
    }
    return at;
}

/* Adds a bucket's keys that have the prefix; false when the page is full. */
static bool scan_bucket(const struct entry *e, const struct store_request *rq, size_t *used, int *n)
{
    nst_time now = nst_now();

    for (; e != NULL; e = e->next) {
        if (e->until <= now || e->key_len < rq->key.len ||
            (rq->key.len != 0 && memcmp(e->bytes, rq->key.p, rq->key.len) != 0))
            continue;
        if (!store_scan_add(rq->out, rq->cap, used, e->bytes, e->key_len))
            return false;
        ++*n;
    }
    return true;
}

static int scan(struct mem_store *m, const struct store_request *rq)
{
    struct nst_scan *at = rq->scan;
    uint64_t small = (m->old.head != NULL ? m->old.buckets : m->now.buckets) - 1, large = m->now.buckets - 1;
    size_t used = 0;
    int n = 0;

    for (int i = 0; i < SCAN_PER_REQUEST && !at->done; i++) {
        size_t used_before = used;
        int n_before = n;
        uint64_t v = at->at;
        bool fits = m->old.head == NULL || scan_bucket(m->old.head[v & small], rq, &used, &n);
        do {
            fits = fits && scan_bucket(m->now.head[v & large], rq, &used, &n);
            v = after(v, large);
        } while (v & (small ^ large));
        if (!fits && n_before == 0)
            return -EMSGSIZE;
        if (!fits) {
            used = used_before;
            return n_before;
        }
        at->at = v;
        at->done = v == 0;
    }
    return n;
}

/* ---- requests ---- */

static int carry_out(struct mem_store *m, const struct store_request *rq, bool *changes)
{
    uint64_t hash = sip_hash(m->key, rq->key.p, rq->key.len);
    struct entry **at = find(m, rq->key, hash), *e = *at;

    *changes = true;
    switch (rq->op) {
    case STORE_GET:
        *changes = false;
        return get(e, rq);
    case STORE_PUT:
        return write_value(m, e, VALUE, rq, hash);
    case STORE_PUT_NEW:
    case STORE_CAS_NEW:
        if (e != NULL)
            return rq->op == STORE_PUT_NEW ? -EEXIST : -ESTALE;
        return write_value(m, e, VALUE, rq, hash);
    case STORE_CAS:
        return e != NULL && e->kind == VALUE && e->version == rq->token ? write_value(m, e, VALUE, rq, hash) : -ESTALE;
    case STORE_CAS_BYTES:
        if (e == NULL || e->kind != VALUE || e->val_len != rq->other.len ||
            (e->val_len != 0 && memcmp(value_of(e), rq->other.p, e->val_len) != 0))
            return -ESTALE;
        return write_value(m, e, VALUE, rq, hash);
    case STORE_INCR:
        return incr(m, e, rq, hash);
    case STORE_DELETE:
        if (e != NULL)
            drop(m, at);
        return e != NULL ? 0 : -ENOENT;
    case STORE_TOUCH:
        *changes = false;
        if (e != NULL)
            e->until = expiry(rq->ttl);
        return e != NULL ? 0 : -ENOENT;
    case STORE_OWN:
        return own(m, e, rq, hash);
    case STORE_PUT_OWNED:
        return owned_by(e, rq->token) ? write_value(m, e, OWNED, rq, hash) : -ESTALE;
    case STORE_CHECK_OWNED:
        *changes = false;
        return owned_by(e, rq->token) ? 0 : -ESTALE;
    case STORE_DELETE_OWNED:
        if (e == NULL)
            return -ENOENT;
        if (!owned_by(e, rq->token))
            return -ESTALE;
        drop(m, at);
        return 0;
    case STORE_POOL_TAKE:
        return pool_take(m, e, rq, hash);
    case STORE_POOL_KEEP:
        return pool_set(e, rq, expiry(rq->ttl));
    case STORE_POOL_GIVE:
        return pool_set(e, rq, nst_now());
    case STORE_SCAN:
        *changes = false;
        return scan(m, rq);
    case STORE_PING:
    case STORE_OPS:
        break;
    }
    *changes = false;
    return 0;
}

static void mem_start(struct nst_store *s, const struct store_request *rq, struct nst_future *f)
{
    bool changes;
    int rc = carry_out(mem_of(s), rq, &changes);

    if (__builtin_expect(s->listeners != NULL, 0) && changes && (rc >= 0 || rq->op == STORE_OWN))
        store_changed(s, rq->key);
    if (rc == -ENOSPC)
        store_refuse(s, f, rc);
    else
        store_answer(s, f, rc);
}

static void mem_listen(struct nst_store *s, struct nst_listener *l)
{
    l->live = true;
}

static int mem_trouble(const struct nst_store *s)
{
    return 0;
}

static void free_table(struct mem_store *m, struct table *t)
{
    for (size_t i = 0; i < t->buckets; i++) {
        for (struct entry *e = t->head[i], *next; e != NULL; e = next) {
            next = e->next;
            free_pool(m, e);
            free(e);
        }
    }
    free(t->head);
}

static void mem_close(struct nst_store *s)
{
    struct mem_store *m = mem_of(s);

    free_table(m, &m->now);
    free_table(m, &m->old);
    free(m);
}

static const struct store_ops mem_ops = {
    .start = mem_start,
    .trouble = mem_trouble,
    .listen = mem_listen,
    .close = mem_close,
};

int store_mem_open(struct nst_store **out, const struct nst_store_config *config)
{
    struct mem_store *m = calloc(1, sizeof *m);

    if (m == NULL)
        return -ENOMEM;
    m->now = (struct table){ calloc(FIRST_BUCKETS, sizeof(struct entry *)), FIRST_BUCKETS };
    if (m->now.head == NULL || getrandom(m->key, sizeof m->key, 0) != sizeof m->key) {
        free(m->now.head);
        free(m);
        return -ENOMEM;
    }
    m->base.ops = &mem_ops;
    m->base.alone = true;
    m->used = FIRST_BUCKETS * sizeof(struct entry *);
    m->limit = config->memory != 0 ? config->memory : (size_t)1 << 30;
    if (m->limit < m->used)
        m->limit = m->used;
    *out = &m->base;
    return 0;
}
