/* SPDX-License-Identifier: Apache-2.0 */
#include "meeting.h"
#include <netstar/task.h>

void meeting_init(struct meeting *m, unsigned n)
{
    *m = (struct meeting){ .lock = PTHREAD_MUTEX_INITIALIZER, .n = n };
}

static void stop_here(struct nst_future *f)
{
    if (f->state == NST_FUTURE_OPEN)
        nst_fulfil(f, -ECANCELED);
}

static int come_in(void *arg)
{
    struct meeting_place *p = arg;

    if (p->here.state == NST_FUTURE_OPEN)
        nst_fulfil(&p->here, 0);
    return 0;
}

/* The last one tells the others, each on its own reactor. */
static void tell_others(struct meeting *m, unsigned core, bool failed)
{
    bool told[NST_CORES_MAX] = { false };

    for (unsigned i = 0; i < m->n; i++) {
        struct meeting_place *p = &m->place[i];
        if (i == core)
            continue;
        p->failed = failed;
        p->told = (struct nst_future){ 0 };
        told[i] = nst_call(p->reactor, come_in, p, &p->told) == 0;
    }
    for (unsigned i = 0; i < m->n; i++)
        if (told[i] && nst_await(&m->place[i].told, NST_NEVER) < 0)
            nst_log(NST_LOG_DEBUG, "core %u has ended already", i);
}

int meeting_wait(struct meeting *m, unsigned core, bool (*failed)(void *arg), void *arg)
{
    struct meeting_place *p = &m->place[core];

    p->here = (struct nst_future){ .stop = stop_here };
    pthread_mutex_lock(&m->lock);
    bool last = ++m->arrived == m->n;
    if (last)
        m->arrived = 0;
    pthread_mutex_unlock(&m->lock);
    if (last) {
        bool answer = failed(arg);
        tell_others(m, core, answer);
        return answer;
    }
    int rc = nst_await(&p->here, NST_NEVER);
    return rc < 0 ? rc : p->failed;
}
