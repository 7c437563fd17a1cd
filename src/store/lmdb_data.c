/* SPDX-License-Identifier: Apache-2.0 */
#include "store/lmdb_store.h"
#include <endian.h>
#include <stdlib.h>
#include <time.h>

struct work {
    struct lmdb_file *file;
    MDB_txn *txn;
    struct lmdb_slot *q;
    uint64_t unique;
    int failed; /* an error of LMDB's */
};

static int64_t microseconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t lmdb_now(void)
{
    return microseconds() / 1000;
}

static int64_t expiry(nst_time ttl)
{
    int64_t ms = ttl / NST_MS(1) + (ttl % NST_MS(1) != 0);

    return ttl == 0 || ms > INT64_MAX - lmdb_now() ? INT64_MAX : lmdb_now() + ms;
}

static int fail(struct work *w, int error)
{
    w->failed = error;
    return -EIO;
}

static size_t make_key(uint8_t *out, const void *key, size_t len)
{
    out[0] = 'k';
    if (len != 0)
        memcpy(out + 1, key, len);
    return len + 1;
}

int lmdb_find(MDB_dbi dbi, MDB_txn *txn, const void *key, size_t len, struct lmdb_record *r, MDB_val *value,
              int *failed)
{
    uint8_t bytes[LMDB_KEY_MAX];
    MDB_val k = { make_key(bytes, key, len), bytes };
    int rc = mdb_get(txn, dbi, &k, value);

    if (rc == MDB_NOTFOUND)
        return -ENOENT;
    if (rc != 0 || value->mv_size < sizeof *r) {
        *failed = rc != 0 ? rc : MDB_CORRUPTED;
        return -EIO;
    }
    memcpy(r, value->mv_data, sizeof *r);
    value->mv_data = (uint8_t *)value->mv_data + sizeof *r;
    value->mv_size -= sizeof *r;
    return r->until <= lmdb_now() ? -ENOENT : 0;
}

/* ---- pools ---- */

/* A key of a pool's number: with the time it is the one that is sorted by it. */
static size_t pool_key(uint8_t *out, char kind, const void *pool, size_t len, int64_t free_at, uint32_t value)
{
    uint16_t n = htobe16((uint16_t)len);
    uint64_t at = htobe64((uint64_t)free_at);
    uint32_t v = htobe32(value);
    uint8_t *p = out;

    *p++ = (uint8_t)kind;
    memcpy(p, &n, sizeof n);
    p += sizeof n;
    if (len != 0)
        memcpy(p, pool, len);
    p += len;
    if (kind == 'f') {
        memcpy(p, &at, sizeof at);
        p += sizeof at;
    }
    memcpy(p, &v, sizeof v);
    return (size_t)(p + sizeof v - out);
}

struct pool_slot {
    int64_t free_at;
    uint64_t ticket;
};

static int pool_write(struct work *w, uint32_t value, const struct pool_slot *old, struct pool_slot *new)
{
    const struct lmdb_slot *q = w->q;
    uint8_t bytes[LMDB_KEY_MAX];
    MDB_val k = { 0, bytes }, v = { sizeof *new, new }, nothing = { 0, NULL };
    int rc = 0;

    if (old != NULL) {
        k.mv_size = pool_key(bytes, 'f', q->key, q->key_len, old->free_at, value);
        rc = mdb_del(w->txn, w->file->dbi, &k, NULL);
    }
    if (rc == 0) {
        k.mv_size = pool_key(bytes, 'f', q->key, q->key_len, new->free_at, value);
        rc = mdb_put(w->txn, w->file->dbi, &k, &nothing, 0);
    }
    if (rc == 0) {
        k.mv_size = pool_key(bytes, 'v', q->key, q->key_len, 0, value);
        rc = mdb_put(w->txn, w->file->dbi, &k, &v, 0);
    }
    return rc == 0 ? 0 : fail(w, rc);
}

static int pool_read(struct work *w, uint32_t value, struct pool_slot *out)
{
    const struct lmdb_slot *q = w->q;
    uint8_t bytes[LMDB_KEY_MAX];
    MDB_val k = { pool_key(bytes, 'v', q->key, q->key_len, 0, value), bytes }, v;
    int rc = mdb_get(w->txn, w->file->dbi, &k, &v);

    if (rc == MDB_NOTFOUND)
        return -ESTALE;
    if (rc != 0 || v.mv_size != sizeof *out)
        return fail(w, rc != 0 ? rc : MDB_CORRUPTED);
    memcpy(out, v.mv_data, sizeof *out);
    return 0;
}

/* The number that is or becomes free first: 0, -ENOENT, or an error. */
static int pool_first(struct work *w, uint32_t *value, int64_t *free_at)
{
    const struct lmdb_slot *q = w->q;
    uint8_t bytes[LMDB_KEY_MAX];
    size_t len = pool_key(bytes, 'f', q->key, q->key_len, 0, 0), head = len - sizeof(uint64_t) - sizeof(uint32_t);
    MDB_val k = { len, bytes }, v;
    MDB_cursor *cursor;
    uint64_t at;
    int rc = mdb_cursor_open(w->txn, w->file->dbi, &cursor);

    if (rc != 0)
        return fail(w, rc);
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    if (rc == 0 && (k.mv_size != len || memcmp(k.mv_data, bytes, head) != 0))
        rc = MDB_NOTFOUND;
    if (rc == 0) {
        memcpy(&at, (uint8_t *)k.mv_data + head, sizeof at);
        memcpy(value, (uint8_t *)k.mv_data + head + sizeof at, sizeof *value);
        *free_at = (int64_t)be64toh(at);
        *value = be32toh(*value);
    }
    mdb_cursor_close(cursor);
    if (rc == MDB_NOTFOUND)
        return -ENOENT;
    return rc == 0 ? 0 : fail(w, rc);
}

/* What a pool has besides its record. */
static int pool_remove(struct work *w, uint64_t count)
{
    const struct lmdb_slot *q = w->q;
    uint8_t bytes[LMDB_KEY_MAX];

    for (uint64_t i = 0; i < count; i++) {
        struct pool_slot s;
        MDB_val k = { 0, bytes };
        int rc = pool_read(w, (uint32_t)i, &s);
        if (rc < 0)
            return rc == -ESTALE ? 0 : rc;
        k.mv_size = pool_key(bytes, 'f', q->key, q->key_len, s.free_at, (uint32_t)i);
        rc = mdb_del(w->txn, w->file->dbi, &k, NULL);
        if (rc == 0) {
            k.mv_size = pool_key(bytes, 'v', q->key, q->key_len, 0, (uint32_t)i);
            rc = mdb_del(w->txn, w->file->dbi, &k, NULL);
        }
        if (rc != 0)
            return fail(w, rc);
    }
    return 0;
}

/* ---- records ---- */

static int write_record(struct work *w, const struct lmdb_record *r, const void *value, size_t len)
{
    uint8_t bytes[LMDB_KEY_MAX];
    MDB_val k = { make_key(bytes, w->q->key, w->q->key_len), bytes }, v = { sizeof *r + len, NULL };
    int rc = mdb_put(w->txn, w->file->dbi, &k, &v, MDB_RESERVE);

    if (rc != 0)
        return fail(w, rc);
    memcpy(v.mv_data, r, sizeof *r);
    if (len != 0)
        memcpy((uint8_t *)v.mv_data + sizeof *r, value, len);
    return 0;
}

static int remove_record(struct work *w, const struct lmdb_record *old)
{
    uint8_t bytes[LMDB_KEY_MAX];
    MDB_val k = { make_key(bytes, w->q->key, w->q->key_len), bytes };
    int rc = old->kind == LMDB_POOL ? pool_remove(w, old->number) : 0;

    if (rc < 0)
        return rc;
    rc = mdb_del(w->txn, w->file->dbi, &k, NULL);
    return rc == 0 || rc == MDB_NOTFOUND ? 0 : fail(w, rc);
}

static int write_value(struct work *w, enum lmdb_kind kind, const struct lmdb_record *old)
{
    struct lmdb_slot *q = w->q;
    struct lmdb_record r = { kind, expiry(q->ttl), kind == LMDB_OWNED ? q->token : w->unique };

    if (old != NULL && old->kind == LMDB_POOL) {
        int rc = pool_remove(w, old->number);
        if (rc < 0)
            return rc;
    }
    return write_record(w, &r, q->bytes, q->val_len);
}

static int incr(struct work *w, struct lmdb_record *old)
{
    struct lmdb_slot *q = w->q;
    struct lmdb_record r = { LMDB_COUNTER, INT64_MAX, 0 };
    int64_t count;

    if (old != NULL && old->kind != LMDB_COUNTER)
        return -EINVAL;
    if (old != NULL)
        r = *old;
    if (__builtin_add_overflow((int64_t)r.number, q->by, &count))
        return -EIO;
    r.number = (uint64_t)count;
    if (q->ttl != 0)
        r.until = expiry(q->ttl);
    q->number = r.number;
    return write_record(w, &r, NULL, 0);
}

static int own(struct work *w, const struct lmdb_record *old, const MDB_val *value)
{
    struct lmdb_slot *q = w->q;
    struct lmdb_record r = { LMDB_OWNED_EMPTY, expiry(q->ttl), (uint64_t)microseconds() };
    size_t len = old != NULL ? value->mv_size : 0;
    int rc;

    if (old != NULL && (old->kind == LMDB_COUNTER || old->kind == LMDB_POOL))
        return -EIO;
    if (len > q->bytes_cap) {
        uint8_t *bytes = realloc(q->bytes, len);
        if (bytes == NULL)
            return -ENOMEM;
        q->bytes = bytes;
        q->bytes_cap = len;
    }
    if (len != 0) /* before anything is written: it lies in a page */
        memcpy(q->bytes, value->mv_data, len);
    if (old != NULL && old->kind != LMDB_OWNED_EMPTY)
        r.kind = LMDB_OWNED;
    if (old != NULL && old->kind != LMDB_VALUE && old->number >= r.number)
        r.number = old->number + 1;
    rc = write_record(w, &r, q->bytes, len);
    q->number = r.number;
    q->val_len = (uint32_t)len;
    if (rc < 0)
        return rc;
    return r.kind == LMDB_OWNED_EMPTY ? -ENOENT : (int)len;
}

static int pool_take(struct work *w, const struct lmdb_record *old)
{
    struct lmdb_slot *q = w->q;
    struct lmdb_record r = { LMDB_POOL, INT64_MAX, old != NULL ? old->number : 0 };
    struct pool_slot was, now = { expiry(q->ttl), w->unique };
    uint32_t value = 0;
    int64_t free_at = 0;
    int rc;

    if (old != NULL && old->kind != LMDB_POOL)
        return -EIO;
    if (r.number < q->value) {
        value = (uint32_t)r.number++;
        rc = write_record(w, &r, NULL, 0);
        if (rc == 0)
            rc = pool_write(w, value, NULL, &now);
    } else {
        rc = pool_first(w, &value, &free_at);
        if (rc == 0 && free_at > lmdb_now())
            rc = -ENOENT;
        if (rc == 0 && value >= q->value)
            rc = -EINVAL;
        if (rc == 0)
            rc = pool_read(w, value, &was);
        if (rc == 0)
            rc = pool_write(w, value, &was, &now);
    }
    q->lease = (struct nst_lease){ .ticket = w->unique, .value = value };
    return rc;
}

static int pool_set(struct work *w, const struct lmdb_record *old, int64_t free_at)
{
    struct pool_slot s, new;
    int rc;

    if (old == NULL)
        return -ESTALE;
    if (old->kind != LMDB_POOL)
        return -EIO;
    rc = pool_read(w, w->q->value, &s);
    if (rc < 0)
        return rc;
    if (s.ticket != w->q->token)
        return -ESTALE;
    new = (struct pool_slot){ free_at, s.ticket };
    return pool_write(w, w->q->value, &s, &new);
}

static bool owned_by(const struct lmdb_record *old, uint64_t token)
{
    return old != NULL && (old->kind == LMDB_OWNED || old->kind == LMDB_OWNED_EMPTY) && old->number <= token;
}

static int touch(struct work *w, struct lmdb_record *old, const MDB_val *value)
{
    size_t len = value->mv_size;
    void *copy = malloc(len + 1); /* it lies in a page that is about to be written */
    int rc;

    if (copy == NULL)
        return -ENOMEM;
    memcpy(copy, value->mv_data, len);
    old->until = expiry(w->q->ttl);
    rc = write_record(w, old, copy, len);
    free(copy);
    return rc;
}

static int change(struct work *w, struct lmdb_record *old, const MDB_val *value)
{
    struct lmdb_slot *q = w->q;

    switch (q->op) {
    case STORE_PUT:
        return write_value(w, LMDB_VALUE, old);
    case STORE_PUT_NEW:
        return old != NULL ? -EEXIST : write_value(w, LMDB_VALUE, old);
    case STORE_CAS_NEW:
        return old != NULL ? -ESTALE : write_value(w, LMDB_VALUE, old);
    case STORE_CAS:
        return old != NULL && old->kind == LMDB_VALUE && old->number == q->token ? write_value(w, LMDB_VALUE, old)
                                                                                 : -ESTALE;
    case STORE_CAS_BYTES:
        if (old == NULL || old->kind != LMDB_VALUE || value->mv_size != q->other_len ||
            (q->other_len != 0 && memcmp(value->mv_data, q->bytes + q->val_len, q->other_len) != 0))
            return -ESTALE;
        return write_value(w, LMDB_VALUE, old);
    case STORE_INCR:
        return incr(w, old);
    case STORE_DELETE:
        return old != NULL ? remove_record(w, old) : -ENOENT;
    case STORE_TOUCH:
        return old != NULL ? touch(w, old, value) : -ENOENT;
    case STORE_OWN:
        return own(w, old, value);
    case STORE_PUT_OWNED:
        return owned_by(old, q->token) ? write_value(w, LMDB_OWNED, old) : -ESTALE;
    case STORE_DELETE_OWNED:
        if (old == NULL)
            return -ENOENT;
        return owned_by(old, q->token) ? remove_record(w, old) : -ESTALE;
    case STORE_POOL_TAKE:
        return pool_take(w, old);
    case STORE_POOL_KEEP:
        return pool_set(w, old, expiry(q->ttl));
    case STORE_POOL_GIVE:
        return pool_set(w, old, lmdb_now());
    default:
        return 0;
    }
}

int lmdb_carry_out(struct lmdb_file *file, MDB_txn *txn, struct lmdb_slot *q, uint64_t unique, int *failed)
{
    struct work w = { file, txn, q, unique, 0 };
    struct lmdb_record r = { .kind = 0 };
    MDB_val value = { 0, NULL };
    int rc = lmdb_find(file->dbi, txn, q->key, q->key_len, &r, &value, &w.failed);

    if (rc == -ENOENT && r.kind == LMDB_POOL) /* expired, but all of it is still there */
        pool_remove(&w, r.number);
    if (rc == -ENOENT && w.failed == 0)
        rc = change(&w, NULL, &value);
    else if (rc == 0)
        rc = change(&w, &r, &value);
    *failed = w.failed;
    return rc;
}

int lmdb_sweep(struct lmdb_file *file, MDB_txn *txn, unsigned n)
{
    MDB_val k = { file->sweep_len, file->sweep }, v;
    int64_t now = lmdb_now();
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, file->dbi, &cursor);

    if (rc != 0)
        return rc;
    if (file->sweep_len == 0) {
        file->sweep[0] = 'k';
        k.mv_size = 1;
    }
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    while (rc == 0 && n-- > 0 && *(uint8_t *)k.mv_data == 'k') {
        struct lmdb_record r = { 0, INT64_MAX, 0 };
        if (v.mv_size >= sizeof r)
            memcpy(&r, v.mv_data, sizeof r);
        if (r.until <= now && r.kind != LMDB_POOL)
            rc = mdb_cursor_del(cursor, 0);
        if (rc == 0)
            rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    file->sweep_len = 0;
    if (rc == 0 && *(uint8_t *)k.mv_data == 'k' && k.mv_size <= sizeof file->sweep) {
        memcpy(file->sweep, k.mv_data, k.mv_size);
        file->sweep_len = k.mv_size;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}
