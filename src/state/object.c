/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of the store for one object: claims, confirmations, writes; who waits for them, and what their answers
 * make of it.
 */
#include "state/state.h"
#include <netstar/task.h>

/* After that a change that is told is not our own: a promise of when a store tells of one is nowhere to be had. */
#define ECHO_MAX NST_MS(100)

static void finished(struct kept *k, int rc);

static struct nst_slice key_of(const struct kept *k)
{
    return (struct nst_slice){ k->key, k->key_len };
}

/* ---- who waits ---- */
static bool wait_list_remove(struct wait_list *l, struct nst_future *f)
{
    struct nst_future **at = &l->first;

    while (*at != NULL && *at != f)
        at = &(*at)->next;
    if (*at == NULL)
        return false;
    *at = f->next;
    if (l->tail == &f->next)
        l->tail = at;
    return true;
}

void wait_list_end(struct wait_list *l, int rc)
{
    struct nst_future *f = l->first;

    wait_list_init(l);
    while (f != NULL) {
        struct nst_future *next = f->next; /* being runnable uses it */
        nst_fulfil(f, rc);
        f = next;
    }
}

/* The lists hold as many as there are handlers and packets that wait for one object: few. */
static void stop_waiting(struct nst_future *f)
{
    struct kept *k = f->op;

    if (wait_list_remove(&k->claimers, f) || wait_list_remove(&k->next, f) || wait_list_remove(&k->sent, f))
        nst_fulfil(f, -ECANCELED);
}

void object_wait(struct kept *k, struct wait_list *l, struct nst_future *f)
{
    f->op = k;
    f->stop = stop_waiting;
    wait_list_add(l, f);
}

/* ---- requests ---- */
static void on_answer(struct nst_future *f, int rc)
{
    finished(f->arg, rc);
}

/* A store in memory has answered already. */
static void await_answer(struct kept *k)
{
    if (k->future.state == NST_FUTURE_DONE)
        finished(k, k->future.rc);
    else
        nst_then(&k->future, on_answer, k, NST_NEVER);
}

static void begin(struct kept *k, enum kept_op op)
{
    k->op = (uint8_t)op;
    k->echo = op >= OP_WRITE || (op == OP_CLAIM && k->state->config.kind == NST_STATE_OWNED);
    k->started = nst_now();
    k->asked = k->state->epoch;
    k->doubt = false;
}

static void start_claim(struct kept *k)
{
    struct nst_state *s = k->state;

    s->stats.claims++;
    begin(k, OP_CLAIM);
    if (s->config.kind == NST_STATE_OWNED)
        nst_own_start(s->store, key_of(k), k->pub.value, s->config.size, &k->token, s->config.ttl, &k->future);
    else
        nst_get_start(s->store, key_of(k), k->pub.value, s->config.size, NULL, &k->future);
    await_answer(k);
}

static void start_confirm(struct kept *k)
{
    struct nst_state *s = k->state;

    s->stats.confirms++;
    begin(k, OP_CONFIRM);
    nst_check_owned_start(s->store, key_of(k), k->token, &k->future);
    await_answer(k);
}

static void start_write(struct kept *k)
{
    struct nst_state *s = k->state;

    s->stats.writes++;
    s->stats.renewals += !k->changed && !k->gone;
    begin(k, k->gone ? OP_FORGET : OP_WRITE);
    if (k->next.first != NULL) /* of the write before nobody is left */
        k->sent = k->next;
    wait_list_init(&k->next);
    k->carries = k->changed || k->gone;
    k->changed = k->renew = k->gone = false;
    k->writing_ttl = k->pub.ttl;
    struct nst_slice key = key_of(k), value = { k->pub.value, k->pub.len };
    bool owned = s->config.kind == NST_STATE_OWNED;
    if (k->op == OP_FORGET && owned)
        nst_delete_owned_start(s->store, key, k->token, &k->future);
    else if (k->op == OP_FORGET)
        nst_delete_start(s->store, key, &k->future);
    else if (owned)
        nst_put_owned_start(s->store, key, value, k->token, k->pub.ttl, &k->future);
    else if (k->carries)
        nst_put_new_start(s->store, key, value, k->pub.ttl, &k->future);
    else
        nst_touch_start(s->store, key, k->pub.ttl, &k->future);
    await_answer(k);
}

/* ---- answers ---- */
/* As of when the request was started. If the store told of a change since, whoever waited may have the value all the
 * same, and the next one asks again. */
static void confirmed(struct kept *k)
{
    k->valid = true;
    k->confirmed = k->started;
    k->epoch = k->doubt ? k->state->epoch - 1 : k->asked;
}

/* The value is given up, and everybody who waits for a change of it hears why. */
static void failed(struct kept *k, int rc)
{
    if (rc == -ESTALE)
        k->state->stats.stale++;
    k->valid = false; /* whoever holds it, and has yet to run, finds what it was told of */
    k->changed = k->renew = k->gone = false;
    wait_list_end(&k->sent, rc);
    wait_list_end(&k->next, rc);
}

static int claimed(struct kept *k, int rc)
{
    const struct nst_state *s = k->state;

    if (rc < 0 && rc != -ENOENT) {
        failed(k, rc);
        return rc;
    }
    k->pub.there = rc >= 0;
    k->pub.len = rc >= 0 ? (uint32_t)rc : 0;
    if (s->config.kind == NST_STATE_OWNED) { /* to own it has begun its life anew */
        k->pub.ttl = k->lasts = s->config.ttl;
        k->written = k->started;
    } else if (!k->valid) { /* how much of its life is left nobody has said */
        k->lasts = k->pub.ttl;
        k->written = -k->pub.ttl;
    }
    confirmed(k);
    return 0;
}

static void wrote(struct kept *k, int rc, enum kept_op op)
{
    if (op == OP_FORGET && (rc == 0 || rc == -ENOENT)) {
        k->pub.there = false;
        k->pub.len = 0;
        k->valid = false; /* the token went with it */
        wait_list_end(&k->sent, 0);
        wait_list_end(&k->next, -ESTALE);
        k->changed = k->renew = k->gone = false;
        return;
    }
    if (rc < 0) {
        if (rc != -ESTALE && rc != -EEXIST && rc != -ENOENT)
            k->state->stats.failed++;
        if (k->carries && k->state->config.kind == NST_STATE_READ)
            k->pub.there = false; /* it was not created, as far as is known */
        failed(k, rc);
        return;
    }
    k->pub.there = true;
    k->written = k->started;
    k->lasts = k->writing_ttl;
    confirmed(k);
    wait_list_end(&k->sent, 0);
}

/* Answers those who wait for a valid value, or starts what they need; then what there is to write. */
static void go_on(struct kept *k, enum kept_op op, int rc)
{
    if (k->claimers.first != NULL) {
        if (rc < 0 && (op == OP_CLAIM || (op == OP_CONFIRM && rc != -ESTALE))) {
            wait_list_end(&k->claimers, rc);
        } else if (k->valid) {
            wait_list_end(&k->claimers, 0);
        } else {
            start_claim(k);
            return;
        }
    }
    if (object_has_to_write(k))
        object_dirty(k);
    else if (!k->valid && k->holds == 0)
        object_useless(k->state, k);
}

static void finished(struct kept *k, int rc)
{
    enum kept_op op = (enum kept_op)k->op;

    k->op = OP_NONE;
    switch (op) {
    case OP_CLAIM:
        rc = claimed(k, rc);
        break;
    case OP_CONFIRM:
        if (rc == 0)
            confirmed(k);
        else if (rc == -ESTALE)
            failed(k, rc);
        break;
    default:
        wrote(k, rc, op);
        break;
    }
    k->carries = false;
    go_on(k, op, rc);
}

/* ---- what state.c asks for ---- */
void object_want(struct kept *k, struct nst_future *f)
{
    object_wait(k, &k->claimers, f);
    if (k->op == OP_NONE && !object_has_to_write(k)) /* a write tells as well */
        object_confirm(k);
}

void object_confirm(struct kept *k)
{
    if (k->valid && k->state->config.kind == NST_STATE_OWNED)
        start_confirm(k);
    else
        start_claim(k);
}

void object_dirty(struct kept *k)
{
    struct nst_state *s = k->state;

    if (k->dirty || k->op != OP_NONE) /* what is under way looks for it when it ends */
        return;
    k->dirty = true;
    k->next_dirty = NULL;
    *s->dirty_tail = k;
    s->dirty_tail = &k->next_dirty;
    nst_flusher_mark(&s->flusher);
}

void objects_flush(struct nst_flusher *f)
{
    struct nst_state *s = container_of(f, struct nst_state, flusher);
    struct kept *k = s->dirty;

    s->dirty = NULL;
    s->dirty_tail = &s->dirty;
    while (k != NULL) {
        struct kept *next = k->next_dirty;
        k->dirty = false;
        if (k->op == OP_NONE && object_has_to_write(k))
            start_write(k);
        k = next;
    }
}

void object_doubt(struct kept *k)
{
    /* The store tells of our own changes, too. */
    if (k->echo && nst_now() - k->started <= ECHO_MAX) {
        k->echo = false;
        return;
    }
    k->state->stats.invalidated += k->valid;
    k->doubt = true;
    k->epoch = k->state->epoch - 1;
    if (k->op == OP_NONE && !object_has_to_write(k) && k->holds == 0)
        k->valid = false; /* one round trip then reads it and takes it, two would confirm it first */
}

void object_cancel(struct kept *k)
{
    if (k->op != OP_NONE)
        (void)nst_cancel(&k->future);
    k->op = OP_NONE;
    k->valid = k->changed = k->renew = k->gone = false;
    wait_list_end(&k->claimers, -ECANCELED);
    wait_list_end(&k->sent, -ECANCELED);
    wait_list_end(&k->next, -ECANCELED);
}
