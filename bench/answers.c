/* SPDX-License-Identifier: Apache-2.0 */
#include "answers.h"

static void answer(struct nst_flusher *flusher)
{
    struct answers *a = (struct answers *)flusher;
    unsigned n = a->n;

    a->n = 0;
    for (unsigned i = 0; i < n; i++) {
        if (a->waiting[i] != NULL)
            nst_fulfil(a->waiting[i], 0);
    }
}

static void give_up(struct nst_future *f)
{
    struct nst_future **slot = f->op;

    *slot = NULL;
    nst_fulfil(f, -ECANCELED);
}

void answers_init(struct answers *a)
{
    a->flusher = (struct nst_flusher){ .flush = answer };
    a->asked = 0;
    a->n = 0;
}

void answers_start(struct answers *a, struct nst_future *f)
{
    if (a->n == ANSWERS_MAX) {
        nst_fulfil(f, -EBUSY);
        return;
    }
    f->stop = give_up;
    f->op = &a->waiting[a->n];
    a->waiting[a->n++] = f;
    a->asked++;
    nst_flusher_mark(&a->flusher);
}
