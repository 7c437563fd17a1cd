/* SPDX-License-Identifier: Apache-2.0 */
/* store/lmdb.c - the store in a file, on its reactor: reads, and the way of writes to the thread and back. */
#include "store/lmdb_store.h"
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct lmdb_store {
    struct nst_store base;
    struct lmdb_file *file;
    struct lmdb_channel *c;
    uint32_t free_slot; /* a list; NONE at its end */
    uint32_t in_tail, out_head;
    MDB_txn *read;
    bool reading; /* read shows the file as it was earlier in this turn */
    struct nst_reactor *reactor;
    struct nst_watch watch;
    struct nst_flusher flusher;
    struct nst_log_limit log_limit;
    struct nst_histogram latency;
};
enum { NONE = UINT32_MAX, SCAN_PER_REQUEST = 4096 };

static struct lmdb_store *lmdb_of(struct nst_store *s)
{
    return (struct lmdb_store *)s;
}

static int trouble_of(struct lmdb_store *s, int error)
{
    if (nst_log_allowed(&s->log_limit, 10))
        nst_log(NST_LOG_WARNING, "lmdb: a request failed: %s", mdb_strerror(error));
    return -EIO;
}

/* ---- reads ---- */

static void end_read(struct lmdb_store *s)
{
    if (s->reading)
        mdb_txn_reset(s->read);
    s->reading = false;
}

static int begin_read(struct lmdb_store *s)
{
    int rc;

    if (s->reading)
        return 0;
    rc = mdb_txn_renew(s->read);
    if (rc != 0)
        return rc;
    s->reading = true;
    nst_flusher_mark(&s->flusher);
    return 0;
}

static int get(struct lmdb_store *s, const struct store_request *rq)
{
    struct lmdb_record r;
    MDB_val value;
    int failed = begin_read(s), rc;

    if (failed != 0)
        return trouble_of(s, failed);
    rc = lmdb_find(s->file->dbi, s->read, rq->key.p, rq->key.len, &r, &value, &failed);
    if (failed != 0)
        return trouble_of(s, failed);
    if (rc < 0)
        return rc;
    if (r.kind == LMDB_OWNED_EMPTY)
        return -ENOENT;
    if (r.kind != LMDB_VALUE && r.kind != LMDB_OWNED)
        return -EIO;
    if (value.mv_size > rq->cap)
        return -EMSGSIZE;
    if (value.mv_size != 0)
        memcpy(rq->out, value.mv_data, value.mv_size);
    if (rq->number != NULL)
        *rq->number = r.number;
    return (int)value.mv_size;
}

static int check_owned(struct lmdb_store *s, const struct store_request *rq)
{
    struct lmdb_record r;
    MDB_val value;
    int failed = begin_read(s), rc;

    if (failed != 0)
        return trouble_of(s, failed);
    rc = lmdb_find(s->file->dbi, s->read, rq->key.p, rq->key.len, &r, &value, &failed);
    if (failed != 0)
        return trouble_of(s, failed);
    return rc == 0 && (r.kind == LMDB_OWNED || r.kind == LMDB_OWNED_EMPTY) && r.number <= rq->token ? 0 : -ESTALE;
}

/* The next keys, in their order. */
static int scan_from(MDB_cursor *cursor, const struct store_request *rq, size_t *used)
{
    struct nst_scan *at = rq->scan;
    uint8_t bytes[LMDB_KEY_MAX] = { 'k' };
    const void *from = at->at != 0 ? at->last : rq->key.p;
    size_t len = at->at != 0 ? at->last_len : rq->key.len;
    MDB_val k = { len + 1, bytes }, v;
    int n = 0, rc;

    if (len != 0)
        memcpy(bytes + 1, from, len);
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    for (int i = 0; rc == 0; i++, rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        const uint8_t *key = k.mv_data;
        size_t key_len = k.mv_size - 1;
        struct lmdb_record r;
        if (key[0] != 'k' || key_len < rq->key.len ||
            (rq->key.len != 0 && memcmp(key + 1, rq->key.p, rq->key.len) != 0))
            break;
        memcpy(&r, v.mv_data, sizeof r);
        if (i == SCAN_PER_REQUEST ||
            (r.until > lmdb_now() && !store_scan_add(rq->out, rq->cap, used, key + 1, key_len))) {
            /* from this one on, the next time */
            if (key_len != 0)
                memcpy(at->last, key + 1, key_len);
            at->last_len = (uint32_t)key_len;
            at->at = 1;
            return i == 0 ? -EMSGSIZE : n;
        }
        n += r.until > lmdb_now();
    }
    at->done = rc == 0 || rc == MDB_NOTFOUND;
    return at->done ? n : -EIO;
}

static int scan(struct lmdb_store *s, const struct store_request *rq)
{
    MDB_cursor *cursor;
    size_t used = 0;
    int rc = begin_read(s);

    if (rc == 0)
        rc = mdb_cursor_open(s->read, s->file->dbi, &cursor);
    if (rc != 0)
        return trouble_of(s, rc);
    rc = scan_from(cursor, rq, &used);
    mdb_cursor_close(cursor);
    return rc;
}

/* ---- writes ---- */

static void release(struct lmdb_store *s, struct lmdb_slot *q)
{
    q->f = NULL;
    q->next = s->free_slot;
    s->free_slot = (uint32_t)(q - s->c->slot);
    s->base.stats.in_flight--;
    nst_outside(-1);
}

/* The consumer gives a request up: it is carried out all the same, and its slot comes back by itself. */
static void stop(struct nst_future *f)
{
    struct lmdb_slot *q = f->op;

    if (f->late == 1)
        q->store->stats.timeouts++;
    q->f = NULL;
    nst_fulfil(f, -ECANCELED);
}

static bool fill(struct lmdb_slot *q, const struct store_request *rq)
{
    size_t len = rq->val.len + rq->other.len;

    if (len > q->bytes_cap) {
        size_t cap = (len + 255) & ~(size_t)255;
        uint8_t *bytes = realloc(q->bytes, cap);
        if (bytes == NULL)
            return false;
        q->bytes = bytes;
        q->bytes_cap = cap;
    }
    q->op = rq->op;
    q->value = rq->value;
    q->token = rq->token;
    q->by = rq->by;
    q->ttl = rq->ttl;
    q->key_len = (uint32_t)rq->key.len;
    q->val_len = (uint32_t)rq->val.len;
    q->other_len = (uint32_t)rq->other.len;
    if (rq->key.len != 0)
        memcpy(q->key, rq->key.p, rq->key.len);
    if (rq->val.len != 0)
        memcpy(q->bytes, rq->val.p, rq->val.len);
    if (rq->other.len != 0)
        memcpy(q->bytes + rq->val.len, rq->other.p, rq->other.len);
    q->out = rq->out;
    q->cap = rq->cap;
    q->number_out = rq->number;
    return true;
}

static void send(struct lmdb_store *s, const struct store_request *rq, struct nst_future *f)
{
    struct nst_store_stats *st = &s->base.stats;
    struct lmdb_slot *q;

    if (s->free_slot == NONE || !fill(&s->c->slot[s->free_slot], rq)) {
        store_refuse(&s->base, f, s->free_slot == NONE ? -EBUSY : -ENOSPC);
        return;
    }
    q = &s->c->slot[s->free_slot];
    s->c->in[s->in_tail++ & s->c->mask] = s->free_slot;
    s->free_slot = q->next;
    q->f = f;
    q->store = &s->base;
    q->start = nst_clock();
    f->op = q;
    f->stop = stop;
    if (++st->in_flight > st->in_flight_peak)
        st->in_flight_peak = st->in_flight;
    nst_outside(1);
    nst_flusher_mark(&s->flusher);
}

/* At the end of the turn: what was collected goes to the thread. */
static void flush(struct nst_flusher *flusher)
{
    struct lmdb_store *s = (struct lmdb_store *)((char *)flusher - offsetof(struct lmdb_store, flusher));

    end_read(s);
    if (atomic_load_explicit(&s->c->in_tail, memory_order_relaxed) != s->in_tail) {
        atomic_store_explicit(&s->c->in_tail, s->in_tail, memory_order_release);
        lmdb_file_wake(s->file);
    }
}

static int give_results(const struct lmdb_slot *q)
{
    int rc = q->rc;

    if (q->op == STORE_OWN && (rc >= 0 || rc == -ENOENT)) {
        *(uint64_t *)q->number_out = q->number;
        if (rc >= 0 && q->val_len > q->cap)
            rc = -EMSGSIZE;
        else if (rc > 0)
            memcpy(q->out, q->bytes, q->val_len);
    } else if (q->op == STORE_INCR && rc == 0 && q->number_out != NULL) {
        *(int64_t *)q->number_out = (int64_t)q->number;
    } else if (q->op == STORE_POOL_TAKE && rc == 0) {
        *(struct nst_lease *)q->number_out = q->lease;
    }
    return rc;
}

static void answers(struct nst_watch *w, uint32_t events)
{
    struct lmdb_store *s = (struct lmdb_store *)((char *)w - offsetof(struct lmdb_store, watch));
    uint32_t tail;
    uint64_t count;
    nst_time now;

    if (read(w->fd, &count, sizeof count) < 0)
        return;
    tail = atomic_load_explicit(&s->c->out_tail, memory_order_acquire);
    now = nst_clock();
    end_read(s); /* whoever reads now sees what was just acknowledged */
    while (s->out_head != tail) {
        struct lmdb_slot *q = &s->c->slot[s->c->out[s->out_head++ & s->c->mask]];
        struct nst_future *f = q->f;
        nst_histogram_record(&s->latency, (uint64_t)(now - q->start));
        if (f != NULL) {
            int rc = give_results(q);
            store_answer(&s->base, f, rc);
        }
        release(s, q);
    }
}

static void lmdb_start(struct nst_store *base, const struct store_request *rq, struct nst_future *f)
{
    struct lmdb_store *s = lmdb_of(base);

    if (rq->op == STORE_GET)
        store_answer(base, f, get(s, rq));
    else if (rq->op == STORE_CHECK_OWNED)
        store_answer(base, f, check_owned(s, rq));
    else if (rq->op == STORE_SCAN)
        store_answer(base, f, scan(s, rq));
    else
        send(s, rq, f);
}

/* ---- opening and closing ---- */

static int lmdb_trouble(const struct nst_store *base)
{
    return 0;
}

static void lmdb_stats(const struct nst_store *base, struct nst_store_stats *out)
{
    const struct nst_histogram *h = &((const struct lmdb_store *)base)->latency;

    out->p50 = (nst_time)nst_histogram_percentile(h, 50);
    out->p90 = (nst_time)nst_histogram_percentile(h, 90);
    out->p99 = (nst_time)nst_histogram_percentile(h, 99);
    out->p999 = (nst_time)nst_histogram_percentile(h, 99.9);
    out->max = (nst_time)h->max;
}

static void lmdb_close(struct nst_store *base)
{
    struct lmdb_store *s = lmdb_of(base);

    for (uint32_t i = 0; i < s->c->slots; i++) {
        struct lmdb_slot *q = &s->c->slot[i];
        if (q->f != NULL)
            nst_fulfil(q->f, -ECANCELED);
        q->f = NULL;
    }
    nst_outside(-(int)s->base.stats.in_flight);
    nst_flusher_unmark(&s->flusher);
    nst_watch_remove(s->reactor, &s->watch);
    mdb_txn_abort(s->read);
    /* the thread carries out what is on its way, and then ends the channel */
    s->c->in[s->in_tail++ & s->c->mask] = LMDB_CLOSE;
    atomic_store_explicit(&s->c->in_tail, s->in_tail, memory_order_release);
    lmdb_file_close(s->file);
    free(s);
}

static const struct store_ops lmdb_ops = {
    .start = lmdb_start,
    .trouble = lmdb_trouble,
    .stats = lmdb_stats,
    .close = lmdb_close,
};

static struct lmdb_channel *make_channel(uint32_t slots)
{
    struct lmdb_channel *c = aligned_alloc(64, (sizeof *c + 63) & ~(size_t)63);
    uint32_t ring = 2;

    if (c == NULL)
        return NULL;
    memset(c, 0, sizeof *c);
    while (ring < slots + 1)
        ring *= 2;
    c->slots = slots;
    c->mask = ring - 1;
    c->slot = calloc(slots, sizeof *c->slot);
    c->in = calloc(ring, sizeof *c->in);
    c->out = calloc(ring, sizeof *c->out);
    c->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->slot == NULL || c->in == NULL || c->out == NULL || c->event_fd < 0) {
        lmdb_channel_free(c);
        return NULL;
    }
    for (uint32_t i = 0; i < slots; i++)
        c->slot[i].next = i + 1 < slots ? i + 1 : NONE;
    return c;
}

int store_lmdb_open(struct nst_store **out, const struct store_url *url, const struct nst_store_config *config,
                    const char **why)
{
    struct lmdb_store *s;
    int rc;

    if (nst_reactor_self() == NULL)
        return store_url_why(why, "a store in a file is opened on a running reactor");
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return -ENOMEM;
    s->c = make_channel(config->in_flight != 0 ? config->in_flight : 4096);
    if (s->c == NULL) {
        free(s);
        return -ENOMEM;
    }
    rc = lmdb_file_open(&s->file, url, why);
    if (rc < 0) {
        lmdb_channel_free(s->c);
        free(s);
        return rc;
    }
    s->base.ops = &lmdb_ops;
    s->reactor = nst_reactor_self();
    s->flusher.flush = flush;
    s->watch = (struct nst_watch){ .fd = s->c->event_fd, .events = EPOLLIN, .ready = answers };
    rc = mdb_txn_begin(s->file->env, NULL, MDB_RDONLY, &s->read);
    if (rc != 0) {
        store_url_why(why, "the file \"%s\" cannot be read: %s", url->path, mdb_strerror(rc));
        rc = rc > 0 ? -rc : -EIO;
    } else {
        mdb_txn_reset(s->read);
        rc = nst_watch_add(s->reactor, &s->watch);
        if (rc < 0)
            mdb_txn_abort(s->read);
    }
    if (rc < 0) {
        lmdb_channel_free(s->c);
        lmdb_file_close(s->file);
        free(s);
        return rc;
    }
    s->base.stats.connects = 1;
    lmdb_file_serve(s->file, s->c);
    *out = &s->base;
    return 0;
}
