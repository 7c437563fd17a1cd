/* SPDX-License-Identifier: Apache-2.0 */
/* state/state.h - the inside of a state: table.c keeps the objects, object.c runs what is asked of the store for one of
 * them, state.c is what the header offers.
 *
 * One request at a time is under way for an object. What comes meanwhile waits in one of three lists of futures, linked
 * by their `next`, which nobody else uses while they are open:
 *   claimers  for a value that is valid and fresh: for the next answer that says so
 *   next      for changes that no write carries yet
 *   sent      for the write that is under way
 * A finished request starts the one that its object needs next, or has the object looked at by the flusher.
 */
#pragma once
#include <netstar/reactor.h>
#include <netstar/state.h>

#ifndef container_of
#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))
#endif

enum kept_op { OP_NONE, OP_CLAIM, OP_CONFIRM, OP_WRITE, OP_FORGET };

struct wait_list {
    struct nst_future *first, **tail;
};

struct kept {
    struct nst_object pub;
    struct nst_state *state;
    struct kept *chain;         /* in its bucket, or among the free ones */
    struct kept *newer, *older; /* in the order of use */
    struct kept *next_dirty;
    uint64_t hash, token;
    nst_time confirmed; /* when the request was started whose answer said last that the value holds */
    nst_time started;   /* the request that is under way */
    nst_time written;   /* when its life in the store began, and how long that is */
    nst_time lasts, writing_ttl;
    uint32_t epoch; /* the state's when that request was started; another one: the value is doubtful */
    uint32_t asked; /* the state's when the request under way was started */
    uint32_t holds;
    uint32_t sends; /* packets that wait in nst_state_send, and have not left */
    uint32_t tick;
    uint16_t key_len; /* with the prefix */
    uint8_t op;       /* enum kept_op */
    bool valid;       /* the value is the store's, and (OWNED) the token is good as far as is known */
    bool doubt;       /* the store told of a change while a request was under way */
    bool changed;     /* not written yet, and somebody may wait for it */
    bool renew;       /* to be written although nothing has changed */
    bool gone;        /* to be removed */
    bool dirty;       /* in the flusher's list */
    bool carries;     /* the write under way carries a change */
    bool linked;      /* it is in the table */
    bool echo;        /* the last request has changed the record, and the store has yet to tell of that */
    struct wait_list claimers, next, sent;
    struct nst_future future; /* of the request under way */
    uint8_t key[];            /* then, aligned, the value */
};

struct nst_state {
    struct nst_store *store;
    struct nst_state_config config;
    char prefix[NST_STATE_PREFIX_MAX];
    uint16_t prefix_len;
    size_t stride, value_at, local_at;
    uint64_t secret[2];
    uint32_t epoch; /* counts up when everything kept is doubtful */

    uint8_t *objects;
    uint32_t touched; /* those from here on were never used */
    struct kept *unused;
    struct kept **bucket;
    size_t buckets; /* a power of two */
    struct kept *newest, *oldest;

    struct kept *dirty, **dirty_tail;
    struct nst_flusher flusher;
    struct nst_listener listener;
    bool listens;
    struct send *unused_sends; /* commit/send.c's, and how they are freed */
    void (*free_sends)(struct nst_state *s);
    struct nst_state_stats stats;
};

static inline struct kept *kept_of(struct nst_object *o)
{
    return container_of(o, struct kept, pub);
}

static inline void wait_list_init(struct wait_list *l)
{
    l->first = NULL;
    l->tail = &l->first;
}

static inline void wait_list_add(struct wait_list *l, struct nst_future *f)
{
    f->next = NULL;
    *l->tail = f;
    l->tail = &f->next;
}

/* ---- table.c ---- */
int table_of_objects_open(struct nst_state *s);
void table_of_objects_close(struct nst_state *s);
uint64_t object_hash(const struct nst_state *s, struct nst_slice key);
/* The object of this key, without the prefix, or NULL. */
struct kept *object_find(const struct nst_state *s, struct nst_slice key, uint64_t hash);
/* Makes it, invalid and unheld; NULL: everything is in use. The key is known to be absent, and short enough. */
struct kept *object_add(struct nst_state *s, struct nst_slice key, uint64_t hash);
/* It was used now. */
void object_used(struct nst_state *s, struct kept *k);
/* It is the first to make room. */
void object_useless(struct nst_state *s, struct kept *k);

/* ---- object.c ---- */
/* Puts f among those that wait for a valid value, and starts what that needs. */
void object_want(struct kept *k, struct nst_future *f);
/* A value that is used is confirmed before it stops being fresh, so that nobody has to wait for that. */
void object_confirm(struct kept *k);
/* There is something to write at the end of the turn. */
void object_dirty(struct kept *k);
/* The flusher. */
void objects_flush(struct nst_flusher *f);
/* Puts f into one of the lists. */
void object_wait(struct kept *k, struct wait_list *l, struct nst_future *f);
/* The store told of a change by others: the value is not handed out again before it was asked. */
void object_doubt(struct kept *k);
/* Ends the request under way and all waits. */
void object_cancel(struct kept *k);
/* Fulfils all of a list, which is empty then. */
void wait_list_end(struct wait_list *l, int rc);

static inline bool object_has_to_write(const struct kept *k)
{
    return k->changed || k->renew || k->gone;
}

/* All that it holds is acknowledged. */
static inline bool object_settled(const struct kept *k)
{
    return k->valid && !k->changed && !k->gone && !k->carries;
}

static inline void object_ask_ahead(struct kept *k)
{
    if (nst_now() - k->confirmed > k->state->config.fresh / 2 && k->op == OP_NONE && !k->dirty)
        object_confirm(k);
}

static inline bool object_fresh(const struct kept *k)
{
    const struct nst_state *s = k->state;
    return k->valid && k->epoch == s->epoch && nst_now() - k->confirmed <= s->config.fresh;
}
