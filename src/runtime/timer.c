/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/reactor_internal.h"
#include <stdlib.h>

static void list_init(struct nst_timer *head)
{
    head->prev = head->next = head;
    head->until = INT64_MIN;
}

void timers_init(struct timers *ts)
{
    *ts = (struct timers){ .next = NST_NEVER };
    for (unsigned k = 0; k < TIMER_RUNS; k++)
        list_init(&ts->run[k]);
    list_init(&ts->due);
}

void timers_free(struct timers *ts)
{
    free(ts->heap);
    ts->heap = NULL;
    ts->n = ts->room = 0;
}

/* ---- the heap: binary, the earliest first; slot is a timer's place in it ---- */

static void heap_put(struct timers *ts, uint32_t i, struct nst_timer *t)
{
    ts->heap[i] = t;
    t->slot = i;
}

static void heap_up(struct timers *ts, uint32_t i, struct nst_timer *t)
{
    while (i > 0) {
        uint32_t up = (i - 1) / 2;
        if (ts->heap[up]->until <= t->until)
            break;
        heap_put(ts, i, ts->heap[up]);
        i = up;
    }
    heap_put(ts, i, t);
}

static void heap_down(struct timers *ts, uint32_t i, struct nst_timer *t)
{
    for (;;) {
        uint32_t kid = 2 * i + 1;
        if (kid >= ts->n)
            break;
        if (kid + 1 < ts->n && ts->heap[kid + 1]->until < ts->heap[kid]->until)
            kid++;
        if (t->until <= ts->heap[kid]->until)
            break;
        heap_put(ts, i, ts->heap[kid]);
        i = kid;
    }
    heap_put(ts, i, t);
}

void timers_heap_add(struct timers *ts, struct nst_timer *t)
{
    if (ts->n == ts->room) {
        uint32_t room = ts->room == 0 ? 64 : ts->room * 2;
        struct nst_timer **heap = realloc(ts->heap, room * sizeof *heap);
        if (heap == NULL) {
            /* Slow but sure: into its place in the last run. */
            struct nst_timer *head = &ts->run[TIMER_RUNS - 1], *at = head->prev;
            while (at != head && at->until > t->until)
                at = at->prev;
            timer_link(at->next, t);
            return;
        }
        ts->heap = heap;
        ts->room = room;
    }
    t->where = TIMER_HEAP;
    heap_up(ts, ts->n++, t);
}

void timers_heap_remove(struct timers *ts, struct nst_timer *t)
{
    uint32_t i = t->slot;
    struct nst_timer *last = ts->heap[--ts->n];

    t->where = TIMER_IDLE;
    if (last == t)
        return;
    if (i > 0 && last->until < ts->heap[(i - 1) / 2]->until)
        heap_up(ts, i, last);
    else
        heap_down(ts, i, last);
}

static struct nst_timer *earliest(struct timers *ts)
{
    struct nst_timer *best = ts->n != 0 ? ts->heap[0] : NULL;

    for (unsigned k = 0; k < TIMER_RUNS; k++) {
        struct nst_timer *head = &ts->run[k], *t = head->next;
        if (t != head && (best == NULL || t->until < best->until))
            best = t;
    }
    return best;
}

nst_time timers_next(struct timers *ts)
{
    struct nst_timer *t = earliest(ts);

    ts->next = t != NULL ? t->until : NST_NEVER;
    return ts->next;
}

unsigned timers_fire(struct nst_reactor *r)
{
    struct timers *ts = &r->timers;
    struct nst_timer *t;
    unsigned n = 0;

    /* First those that are due now, so that what fire() arms anew waits for the next turn. */
    while ((t = earliest(ts)) != NULL && t->until <= r->now) {
        timer_disarm(ts, t);
        timer_link(&ts->due, t);
    }
    while ((t = ts->due.next) != &ts->due) {
        timer_disarm(ts, t);
        n++;
        t->fire(t);
    }
    timers_next(ts);
    r->timers_fired += n;
    return n;
}

int nst_timer_arm(struct nst_timer *t, nst_time until, void (*fire)(struct nst_timer *self))
{
    struct timers *ts = &nst_self->timers;

    timer_disarm(ts, t);
    if (until == NST_NEVER)
        return 0;
    timer_arm(ts, t, until, fire);
    return 0;
}

void nst_timer_disarm(struct nst_timer *t)
{
    if (t->where != TIMER_IDLE)
        timer_disarm(&nst_self->timers, t);
}
