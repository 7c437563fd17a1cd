/* SPDX-License-Identifier: Apache-2.0 */
/* nst_engine_settle: what had begun is waited for, what begins later is not. */
#include "flow_half_lab.h"

struct settling {
    struct nst_future done;
    int rc;
};

static void settle_task(void *arg)
{
    struct settling *s = arg;

    s->rc = nst_engine_settle(lab.engine);
    nst_fulfil(&s->done, 0);
}

/* Long enough for it to have ended if it does not wait for something. */
static bool ends(struct settling *s)
{
    for (unsigned i = 0; i < 20 && s->done.state == NST_FUTURE_OPEN; i++)
        check_eq(nst_sleep(nst_now() + NST_MS(1)), 0);
    return s->done.state != NST_FUTURE_OPEN;
}

static void begin(struct nst_scope *scope, struct settling *s)
{
    *s = (struct settling){ .rc = 1 };
    check_eq(nst_spawn(scope, settle_task, s), 0);
}

/* Handlers that wait (0), and a pending one (1): flow 1 has begun before, flows 2 and 3 begin after. */
static void settle_with(void (*decide)(unsigned))
{
    struct nst_scope *scope;
    struct settling first, second;

    check_eq(nst_scope_open(&scope, NULL), 0);
    datagram(5, C2S, "5"); /* a flow at which nothing is under way */
    datagram(1, C2S, "a");
    lab_settle();
    begin(scope, &first);
    check(!ends(&first));
    datagram(2, C2S, "b");
    lab_settle();
    decide(0);
    check(ends(&first)); /* b is still under way */
    check_eq(first.rc, 0);
    datagram(1, C2S, "c"); /* in the flow that has been looked at */
    lab_settle();
    begin(scope, &second);
    check(!ends(&second));
    decide(1);
    check(!ends(&second));
    decide(2);
    check(ends(&second));
    check_eq(second.rc, 0);
    begin(scope, &first);
    check(ends(&first));
    check_eq(nst_scope_close(scope), 0);
    check_out(1, "5abc");
}

static void decide_waiting(unsigned i)
{
    lab_fulfil(&answer[i], NST_FORWARD);
    lab_settle();
}

static void waiting_body(void)
{
    settle_with(decide_waiting);
}

static void handlers_that_wait(void **state)
{
    (void)state;
    setup_udp(waits);
    nf.policy.budget = NST_SEC(60);
    lab_run(&config, waiting_body);
}

static void decide_pending(unsigned i)
{
    nst_resume(pending_flow[i], NST_SERVER, NST_FORWARD);
    lab_settle();
}

static void pending_body(void)
{
    settle_with(decide_pending);
}

static void handlers_that_are_pending(void **state)
{
    (void)state;
    setup_udp(pends);
    nf.policy.budget = NST_SEC(60);
    lab_run(&config, pending_body);
}

/* A scope that closes ends it. */
static void cancelled_body(void)
{
    struct nst_scope *scope;
    struct settling s;

    datagram(1, C2S, "a");
    lab_settle();
    check_eq(nst_scope_open(&scope, NULL), 0);
    begin(scope, &s);
    check(!ends(&s));
    check_eq(nst_scope_close(scope), 1);
    check_eq(s.rc, -ECANCELED);
    decide_waiting(0);
}

static void cancelled(void **state)
{
    (void)state;
    setup_udp(waits);
    nf.policy.budget = NST_SEC(60);
    lab_run(&config, cancelled_body);
}

/* A loop that has an event is waited for; one that waits for its next is not. */
static struct nst_event loop_event;
static struct nst_flow *loop_flow;

static void one_by_one(struct nst_flow *f, enum nst_side side)
{
    struct nst_event ev;

    while (nst_next(f, side, &ev, NST_NEVER) == 0 && !(ev.what & NST_EV_CLOSE)) {
        loop_event = ev;
        loop_flow = f;
        if (lab_wait(&answer[0], NST_NEVER) < 0)
            return;
        answer[0] = (struct lab_answer){ 0 };
        nst_decide(f, &ev, NST_FORWARD);
    }
}

static void loop_body(void)
{
    struct nst_scope *scope;
    struct settling s;

    check_eq(nst_scope_open(&scope, NULL), 0);
    datagram(1, C2S, "1");
    lab_settle();
    begin(scope, &s);
    check(!ends(&s));
    lab_fulfil(&answer[0], 0);
    lab_settle();
    check(ends(&s));
    begin(scope, &s);
    check(ends(&s));
    check_eq(nst_scope_close(scope), 0);
    check_out(1, "1");
}

static void loops(void **state)
{
    (void)state;
    setup_udp(NULL);
    nf.policy.budget = NST_SEC(60);
    nf.half[NST_SERVER].handler = NULL;
    nf.half[NST_SERVER].loop = one_by_one;
    lab_run(&config, loop_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handlers_that_wait),
        cmocka_unit_test(handlers_that_are_pending),
        cmocka_unit_test(cancelled),
        cmocka_unit_test(loops),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
