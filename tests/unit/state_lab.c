/* SPDX-License-Identifier: Apache-2.0 */
#include "state_lab.h"

struct lab_request {
    struct lab_request *next;
    struct front *front;
    struct nst_future *f; /* NULL: given up */
    struct store_request rq;
    void *out; /* where the caller wants the value and the number */
    uint64_t *number;
    uint64_t got;
    bool counts;
    int rc;
    uint8_t bytes[]; /* key, value, room for the answer */
};

static bool writes(enum store_op op)
{
    return op == STORE_PUT || op == STORE_PUT_NEW || op == STORE_CAS || op == STORE_CAS_NEW || op == STORE_CAS_BYTES ||
           op == STORE_DELETE || op == STORE_OWN || op == STORE_PUT_OWNED || op == STORE_DELETE_OWNED;
}

static bool has_changed(const struct lab_request *r)
{
    return writes(r->rq.op) && (r->rc >= 0 || r->rq.op == STORE_OWN);
}

/* Who has changed something is told of it, too, after the answer. */
static void answer(struct lab_request *r)
{
    if (r->f != NULL) {
        if (r->rc > 0 && r->out != NULL)
            memcpy(r->out, r->rq.out, (size_t)r->rc);
        if (r->number != NULL && (r->rc >= 0 || r->rc == -ENOENT || r->rc == -EMSGSIZE))
            *r->number = r->got;
        nst_fulfil(r->f, r->rc);
    }
    if (has_changed(r) && !r->front->down)
        store_changed(&r->front->base, r->rq.key);
    free(r);
}

static void append(struct lab_request **tail[], struct lab_request *r)
{
    r->next = NULL;
    **tail = r;
    *tail = &r->next;
}

/* The request reaches the store, and the others hear of it. */
static void reach(struct lab_request *r)
{
    struct front *me = r->front;
    struct lab *lab = me->lab;
    struct nst_future f;

    nst_future_init(&f);
    me->counts[r->rq.op]++;
    lab->store->ops->start(lab->store, &r->rq, &f);
    CHECK(f.state == NST_FUTURE_DONE);
    r->rc = f.rc;
    for (unsigned i = 0; i < lab->n; i++) {
        struct front *other = &lab->front[i];
        if (has_changed(r) && other != me && !other->deaf && !other->down)
            store_changed(&other->base, r->rq.key);
    }
    if (me->keep_answers)
        append(&me->back_tail, r);
    else
        answer(r);
}

static void give_up(struct nst_future *f)
{
    struct lab_request *r = f->op;

    r->f = NULL;
    nst_fulfil(f, -ECANCELED);
}

static void front_start(struct nst_store *s, const struct store_request *rq, struct nst_future *f)
{
    struct front *me = (struct front *)s;

    if (me->down) {
        store_refuse(s, f, -ENOTCONN);
        return;
    }
    struct lab_request *r = malloc(sizeof *r + rq->key.len + rq->val.len + rq->cap + 8);
    CHECK(r != NULL);
    *r = (struct lab_request){
        .front = me, .f = f, .rq = *rq, .out = rq->out, .counts = rq->op == STORE_GET || rq->op == STORE_OWN
    };
    memcpy(r->bytes, rq->key.p, rq->key.len);
    r->rq.key.p = r->bytes;
    if (rq->val.len != 0)
        memcpy(r->bytes + rq->key.len, rq->val.p, rq->val.len);
    r->rq.val.p = r->bytes + rq->key.len;
    r->rq.out = r->bytes + rq->key.len + rq->val.len;
    if (r->counts) { /* of others it is written at once, to where it is wanted */
        r->number = rq->number;
        r->rq.number = &r->got;
    }
    f->op = r;
    f->stop = give_up;
    if (me->keep_requests)
        append(&me->out_tail, r);
    else
        reach(r);
}

static int front_trouble(const struct nst_store *s)
{
    return ((const struct front *)s)->down ? -ENOTCONN : 0;
}

static void front_listen(struct nst_store *s, struct nst_listener *l)
{
    l->live = !((struct front *)s)->down;
}

static void front_close(struct nst_store *s)
{
}

static const struct store_ops front_ops = {
    .start = front_start, .trouble = front_trouble, .listen = front_listen, .close = front_close
};

void lab_open(struct lab *lab, unsigned n)
{
    *lab = (struct lab){ .n = n };
    CHECK(nst_store_open(&lab->store, "mem:", NULL, NULL) == 0);
    for (unsigned i = 0; i < n; i++) {
        struct front *f = &lab->front[i];
        f->base.ops = &front_ops;
        f->lab = lab;
        f->out_tail = &f->out;
        f->back_tail = &f->back;
    }
}

static void drop_all(struct lab_request **first, struct lab_request ***tail, int rc)
{
    while (*first != NULL) {
        struct lab_request *r = *first;
        *first = r->next;
        if (*first == NULL)
            *tail = first;
        r->rc = rc;
        answer(r);
    }
}

void lab_close(struct lab *lab)
{
    for (unsigned i = 0; i < lab->n; i++) {
        drop_all(&lab->front[i].out, &lab->front[i].out_tail, -ECANCELED);
        drop_all(&lab->front[i].back, &lab->front[i].back_tail, -ECANCELED);
    }
    nst_store_close(lab->store);
}

static struct lab_request *take_first(struct lab_request **first, struct lab_request ***tail)
{
    struct lab_request *r = *first;

    *first = r->next;
    if (*first == NULL)
        *tail = first;
    return r;
}

void front_let_go(struct front *f)
{
    while (f->out != NULL)
        reach(take_first(&f->out, &f->out_tail));
    while (f->back != NULL)
        answer(take_first(&f->back, &f->back_tail));
}

void front_cut(struct front *f, unsigned landing)
{
    f->keep_answers = true;
    for (unsigned i = 0; i < landing && f->out != NULL; i++)
        reach(take_first(&f->out, &f->out_tail));
    f->down = true;
    drop_all(&f->back, &f->back_tail, -ECONNRESET);
    drop_all(&f->out, &f->out_tail, -ECONNRESET);
    store_all_changed(&f->base, false);
    f->keep_answers = f->keep_requests = false;
}

void front_mend(struct front *f)
{
    f->down = false;
    store_all_changed(&f->base, true);
}
