/* SPDX-License-Identifier: Apache-2.0 */
/* store/mem.c - the store in this process: a chained hash table that grows a few buckets at a time.
 *
 * Every request is answered before its start function returns. What has expired is gone for whoever asks at once;
 * its memory comes back when it is met: by a request for its key, by growing, or by the sweep, of which each new key
 * does two buckets' worth. So dead entries never outnumber the live ones for long. At the memory limit a write
 * sweeps more before it gives up.
 */
#include "store/siphash.h"
#include "store/store.h"
#include <stdlib.h>
#include <sys/random.h>

enum {
    FIRST_BUCKETS = 1024,
    MOVE_PER_REQUEST = 4, /* buckets, while growing: done long before the next growth */
    SWEEP_PER_INSERT = 2,
    SWEEP_AT_LIMIT = 256,
    MALLOC_OVERHEAD = 16,
};

struct entry {
    struct entry *next;
    nst_time until;
    union {
        uint64_t version;
        int64_t count;
    };
    uint64_t hash;
    uint32_t val_len, room; /* room: bytes for the value */
    uint16_t key_len;
    bool counter;
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
    uint64_t version;
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

static void drop(struct mem_store *m, struct entry **at)
{
    struct entry *e = *at;

    *at = e->next;
    m->used -= cost(e);
    m->entries--;
    free(e);
}

static void move_some(struct mem_store *m)
{
    nst_time now = nst_now();

    for (int i = 0; i < MOVE_PER_REQUEST && m->moved < m->old.buckets; i++, m->moved++) {
        struct entry **at = &m->old.head[m->moved], *e;
        while ((e = *at) != NULL) {
            if (e->until <= now) {
                drop(m, at);
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
                drop(m, at);
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
            drop(m, at);
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

static int write_value(struct mem_store *m, struct entry *e, struct nst_slice key, uint64_t hash, struct nst_slice val,
                       nst_time ttl)
{
    /* An entry is used again when the value fits and does not leave most of a large room empty. */
    if (e == NULL || val.len > e->room || (e->room > 512 && val.len < e->room / 4)) {
        e = make(m, key, hash, val.len);
        if (e == NULL)
            return -ENOSPC;
    }
    e->counter = false;
    e->version = ++m->version;
    e->val_len = (uint32_t)val.len;
    e->until = expiry(ttl);
    if (val.len != 0)
        memcpy(value_of(e), val.p, val.len);
    return 0;
}

static int get(struct mem_store *m, struct nst_slice key, void *val, size_t cap, uint64_t *version)
{
    struct entry *e = *find(m, key, sip_hash(m->key, key.p, key.len));

    if (e == NULL)
        return -ENOENT;
    if (e->counter)
        return -EIO;
    if (e->val_len > cap)
        return -EMSGSIZE;
    if (e->val_len != 0)
        memcpy(val, value_of(e), e->val_len);
    if (version != NULL)
        *version = e->version;
    return (int)e->val_len;
}

static int incr(struct mem_store *m, struct nst_slice key, int64_t by, int64_t *out, nst_time ttl)
{
    uint64_t hash = sip_hash(m->key, key.p, key.len);
    struct entry *e = *find(m, key, hash);
    int64_t count;

    if (e != NULL && !e->counter)
        return -EINVAL;
    if (__builtin_add_overflow(e != NULL ? e->count : 0, by, &count))
        return -EIO; /* as a server answers */
    if (e == NULL) {
        e = make(m, key, hash, 0);
        if (e == NULL)
            return -ENOSPC;
        e->counter = true;
        e->val_len = 0;
        e->until = NST_NEVER;
    }
    e->count = count;
    if (ttl != 0)
        e->until = expiry(ttl);
    if (out != NULL)
        *out = count;
    return 0;
}

static void answer(struct nst_store *s, struct nst_future *f, int rc)
{
    if (rc == -ENOSPC)
        store_refuse(s, f, rc);
    else
        store_answer(s, f, rc);
}

static void mem_get(struct nst_store *s, struct nst_slice key, void *val, size_t cap, uint64_t *version,
                    struct nst_future *f)
{
    answer(s, f, get(mem_of(s), key, val, cap, version));
}

static void mem_put(struct nst_store *s, struct nst_slice key, struct nst_slice val, nst_time ttl, struct nst_future *f)
{
    struct mem_store *m = mem_of(s);
    uint64_t hash = sip_hash(m->key, key.p, key.len);

    answer(s, f, write_value(m, *find(m, key, hash), key, hash, val, ttl));
}

static void mem_cas(struct nst_store *s, struct nst_slice key, struct nst_slice val, uint64_t version, nst_time ttl,
                    struct nst_future *f)
{
    struct mem_store *m = mem_of(s);
    uint64_t hash = sip_hash(m->key, key.p, key.len);
    struct entry *e = *find(m, key, hash);
    bool same = version == 0 ? e == NULL : e != NULL && !e->counter && e->version == version;

    answer(s, f, same ? write_value(m, e, key, hash, val, ttl) : -ESTALE);
}

static void mem_incr(struct nst_store *s, struct nst_slice key, int64_t by, int64_t *out, nst_time ttl,
                     struct nst_future *f)
{
    answer(s, f, incr(mem_of(s), key, by, out, ttl));
}

static void mem_del(struct nst_store *s, struct nst_slice key, struct nst_future *f)
{
    struct mem_store *m = mem_of(s);
    struct entry **at = find(m, key, sip_hash(m->key, key.p, key.len));
    int rc = *at != NULL ? 0 : -ENOENT;

    if (*at != NULL)
        drop(m, at);
    answer(s, f, rc);
}

static void mem_ping(struct nst_store *s, struct nst_future *f)
{
    store_answer(s, f, 0);
}

static int mem_trouble(const struct nst_store *s)
{
    return 0;
}

static void free_table(struct table *t)
{
    for (size_t i = 0; i < t->buckets; i++) {
        for (struct entry *e = t->head[i], *next; e != NULL; e = next) {
            next = e->next;
            free(e);
        }
    }
    free(t->head);
}

static void mem_close(struct nst_store *s)
{
    struct mem_store *m = mem_of(s);

    free_table(&m->now);
    free_table(&m->old);
    free(m);
}

static const struct store_ops mem_ops = {
    .get = mem_get,
    .put = mem_put,
    .cas = mem_cas,
    .incr = mem_incr,
    .del = mem_del,
    .ping = mem_ping,
    .trouble = mem_trouble,
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
    m->used = FIRST_BUCKETS * sizeof(struct entry *);
    m->limit = config->memory != 0 ? config->memory : (size_t)1 << 30;
    if (m->limit < m->used)
        m->limit = m->used;
    *out = &m->base;
    return 0;
}
