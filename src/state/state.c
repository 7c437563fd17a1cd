/* SPDX-License-Identifier: Apache-2.0 */
/* What netstar/state.h offers. */
#include "state/state.h"
#include <stdlib.h>
#include <string.h>

/* ---- what the store tells of changes by others ---- */
static void on_changed(struct nst_listener *l, struct nst_slice key)
{
    struct nst_state *s = container_of(l, struct nst_state, listener);

    if (key.p == NULL) {
        s->epoch++;
        return;
    }
    if (key.len < s->prefix_len)
        return;
    struct nst_slice own = { (const uint8_t *)key.p + s->prefix_len, key.len - s->prefix_len };
    struct kept *k = object_find(s, own, object_hash(s, own));
    if (k == NULL)
        return;
    object_doubt(k);
}

/* ---- open and close ---- */
static bool config_fits(const struct nst_state_config *c)
{
    return c->name != NULL && strlen(c->name) <= NST_STATE_PREFIX_MAX && c->size >= 1 && c->size <= NST_VALUE_MAX &&
           strlen(c->name) + c->key_max <= NST_KEY_MAX && c->local <= 256 && c->ttl >= 0 && c->fresh >= 0 &&
           (unsigned)c->kind <= NST_STATE_READ;
}

int nst_state_open(struct nst_state **out, struct nst_store *store, const struct nst_state_config *config)
{
    struct nst_state *s;
    int rc;

    if (!config_fits(config))
        return -EINVAL;
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return -ENOMEM;
    s->store = store;
    s->config = *config;
    if (s->config.key_max == 0)
        s->config.key_max = 64;
    if (s->config.kept == 0)
        s->config.kept = 65536;
    if (s->config.fresh == 0)
        s->config.fresh = NST_SEC(1);
    if (s->config.sends == 0)
        s->config.sends = 4096;
    s->prefix_len = (uint16_t)strlen(config->name);
    memcpy(s->prefix, config->name, s->prefix_len);
    s->config.name = NULL;
    s->dirty_tail = &s->dirty;
    s->flusher.flush = objects_flush;
    s->flusher.early = true; /* what it asks of the store leaves in the same turn */
    rc = table_of_objects_open(s);
    if (rc == 0) {
        s->listener = (struct nst_listener){ .prefix = { s->prefix, s->prefix_len }, .changed = on_changed };
        rc = nst_listen(store, &s->listener);
        s->listens = rc == 0;
    }
    if (rc < 0) {
        nst_state_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void nst_state_close(struct nst_state *s)
{
    if (s == NULL)
        return;
    if (s->listens)
        nst_unlisten(s->store, &s->listener);
    nst_flusher_unmark(&s->flusher);
    for (uint32_t i = 0; s->objects != NULL && i < s->touched; i++)
        object_cancel((struct kept *)(s->objects + s->stride * i));
    table_of_objects_close(s);
    if (s->free_sends != NULL)
        s->free_sends(s);
    free(s);
}

/* ---- reading ---- */
static struct kept *hold(struct nst_state *s, struct kept *k)
{
    k->holds++;
    object_used(s, k);
    return k;
}

/* The object, held; or NULL, and *rc. */
static struct kept *object_of(struct nst_state *s, struct nst_slice key, enum nst_state_kind kind, int *rc)
{
    s->stats.asked++;
    if (kind != s->config.kind) {
        *rc = -EINVAL;
        return NULL;
    }
    if (key.len > s->config.key_max) {
        *rc = -EMSGSIZE;
        return NULL;
    }
    uint64_t hash = object_hash(s, key);
    struct kept *k = object_find(s, key, hash);
    if (k == NULL)
        k = object_add(s, key, hash);
    if (k == NULL) {
        s->stats.refused++;
        *rc = -ENOSPC;
        return NULL;
    }
    return hold(s, k);
}

static void ask_start(struct nst_state *s, struct nst_slice key, enum nst_state_kind kind, struct nst_object **out,
                      struct nst_future *f)
{
    int rc = 0;
    struct kept *k = object_of(s, key, kind, &rc);

    nst_future_init(f);
    *out = k != NULL ? &k->pub : NULL;
    if (k == NULL) {
        nst_fulfil(f, rc);
    } else if (object_fresh(k)) {
        s->stats.hits++;
        object_ask_ahead(k);
        nst_fulfil(f, 0);
    } else {
        object_want(k, f);
    }
}

static int ask(struct nst_state *s, struct nst_slice key, enum nst_state_kind kind, struct nst_object **out,
               nst_time until)
{
    struct nst_future f;
    int rc = 0;
    struct kept *k = object_of(s, key, kind, &rc);

    *out = k != NULL ? &k->pub : NULL;
    if (k == NULL)
        return rc;
    if (object_fresh(k)) {
        s->stats.hits++;
        object_ask_ahead(k);
        return 0;
    }
    nst_future_init(&f);
    object_want(k, &f);
    return nst_await(&f, until);
}

int nst_state_claim(struct nst_state *s, struct nst_slice key, struct nst_object **out, nst_time until)
{
    return ask(s, key, NST_STATE_OWNED, out, until);
}

void nst_state_claim_start(struct nst_state *s, struct nst_slice key, struct nst_object **out, struct nst_future *f)
{
    ask_start(s, key, NST_STATE_OWNED, out, f);
}

int nst_state_read(struct nst_state *s, struct nst_slice key, struct nst_object **out, nst_time until)
{
    return ask(s, key, NST_STATE_READ, out, until);
}

void nst_state_read_start(struct nst_state *s, struct nst_slice key, struct nst_object **out, struct nst_future *f)
{
    ask_start(s, key, NST_STATE_READ, out, f);
}

struct nst_object *nst_state_kept(struct nst_state *s, struct nst_slice key)
{
    struct kept *k = key.len <= s->config.key_max ? object_find(s, key, object_hash(s, key)) : NULL;

    if (k == NULL || !object_fresh(k))
        return NULL;
    s->stats.asked++;
    s->stats.hits++;
    return &hold(s, k)->pub;
}

struct nst_object *nst_state_hold(struct nst_state *s, struct nst_slice key)
{
    int rc;
    struct kept *k = object_of(s, key, NST_STATE_READ, &rc);

    if (k == NULL)
        return NULL;
    if (k->op == OP_NONE && !object_has_to_write(k) && !object_fresh(k))
        k->valid = k->pub.there = false;
    return &k->pub;
}

void nst_state_release(struct nst_object *o)
{
    if (o == NULL)
        return;
    struct kept *k = kept_of(o);
    if (--k->holds == 0 && !k->valid && k->op == OP_NONE)
        object_useless(k->state, k);
}

/* ---- changing ---- */
static int change(struct kept *k)
{
    k->state->stats.commits++;
    if (k->pub.len > k->state->config.size)
        return -EMSGSIZE;
    if (!k->valid || k->state->config.kind != NST_STATE_OWNED)
        return -ESTALE;
    k->changed = true;
    k->gone = false;
    k->pub.there = true;
    object_dirty(k);
    return 0;
}

void nst_state_create_start(struct nst_object *o, struct nst_future *f)
{
    struct kept *k = kept_of(o);

    nst_future_init(f);
    if (k->state->config.kind != NST_STATE_READ || o->len > k->state->config.size) {
        nst_fulfil(f, k->state->config.kind != NST_STATE_READ ? -EINVAL : -EMSGSIZE);
    } else if (o->there || k->gone || k->op != OP_NONE) { /* what is under way tells */
        nst_fulfil(f, -EEXIST);
    } else {
        k->state->stats.commits++;
        k->valid = k->changed = true; /* here it is, from now on; nobody may let it out before the store has it */
        o->there = true;
        object_dirty(k);
        object_wait(k, &k->next, f);
    }
}

int nst_state_create(struct nst_object *o, nst_time until)
{
    struct nst_future f;

    nst_state_create_start(o, &f);
    return nst_await(&f, until);
}

void nst_state_commit_start(struct nst_object *o, struct nst_future *f)
{
    struct kept *k = kept_of(o);
    int rc = change(k);

    nst_future_init(f);
    if (rc < 0)
        nst_fulfil(f, rc);
    else
        object_wait(k, &k->next, f);
}

int nst_state_commit(struct nst_object *o, nst_time until)
{
    struct nst_future f;

    nst_state_commit_start(o, &f);
    return nst_await(&f, until);
}

void nst_state_write(struct nst_object *o)
{
    (void)change(kept_of(o));
}

void nst_state_forget_start(struct nst_object *o, struct nst_future *f)
{
    struct kept *k = kept_of(o);

    if (f != NULL)
        nst_future_init(f);
    if (k->valid) {
        k->gone = true;
        object_dirty(k);
    }
    if (f == NULL)
        return;
    if (k->valid)
        object_wait(k, &k->next, f);
    else
        nst_fulfil(f, -ESTALE);
}

int nst_state_forget(struct nst_object *o, nst_time until)
{
    struct nst_future f;

    nst_state_forget_start(o, &f);
    return nst_await(&f, until);
}

bool nst_state_due(const struct nst_object *o)
{
    const struct kept *k = container_of((struct nst_object *)o, struct kept, pub);
    nst_time lasts = k->op == OP_WRITE ? k->writing_ttl : k->lasts;
    nst_time since = k->op == OP_WRITE ? k->started : k->written;

    if (!k->valid || !o->there || k->changed || k->renew || k->gone)
        return false;
    return o->ttl != lasts || (lasts != 0 && nst_now() - since > lasts / 4);
}

void nst_state_use(struct nst_object *o)
{
    struct kept *k = kept_of(o);

    if (!nst_state_due(o))
        return;
    k->renew = true;
    object_dirty(k);
}

/* ---- output commit ---- */
void nst_state_settle_start(struct nst_object *o, struct nst_future *f)
{
    struct kept *k = kept_of(o);

    nst_future_init(f);
    if (!k->valid)
        nst_fulfil(f, -ESTALE);
    else if (k->changed || k->gone)
        object_wait(k, &k->next, f);
    else if (k->carries)
        object_wait(k, &k->sent, f);
    else
        nst_fulfil(f, 0);
}

int nst_state_settle(struct nst_object *o, nst_time until)
{
    struct nst_future f;

    if (object_settled(kept_of(o)))
        return 0;
    nst_state_settle_start(o, &f);
    return nst_await(&f, until);
}

/* ---- numbers ---- */
void nst_state_stats(const struct nst_state *s, struct nst_state_stats *out)
{
    *out = s->stats;
}

void nst_state_stats_add(struct nst_state_stats *sum, const struct nst_state_stats *one)
{
    sum->asked += one->asked;
    sum->hits += one->hits;
    sum->claims += one->claims;
    sum->confirms += one->confirms;
    sum->commits += one->commits;
    sum->writes += one->writes;
    sum->renewals += one->renewals;
    sum->stale += one->stale;
    sum->invalidated += one->invalidated;
    sum->failed += one->failed;
    sum->evicted += one->evicted;
    sum->refused += one->refused;
    sum->sent_late += one->sent_late;
    sum->kept += one->kept;
    sum->kept_peak += one->kept_peak;
    sum->sends += one->sends;
    sum->sends_peak += one->sends_peak;
}
