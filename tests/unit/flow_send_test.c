/* SPDX-License-Identifier: Apache-2.0 */
/* nst_state_send: packets that leave when the state that they depend on is acknowledged, while their flow goes on. The
 * store's answers are in the test's hands. */
#include "flow_half_lab.h"
#include "store/store.h"
#include <netstar/state.h>

/* ---- a store in memory whose answers are kept back ---- */
static struct slow_store {
    struct nst_store base;
    struct nst_store *inner;
    bool keeps;
    struct nst_future *waiting[64];
    int rc[64];
    unsigned n, puts;
} slow;

static void stopped(struct nst_future *f)
{
    for (unsigned i = 0; i < slow.n; i++)
        slow.waiting[i] = slow.waiting[i] == f ? NULL : slow.waiting[i];
    nst_fulfil(f, -ECANCELED);
}

static void slow_start(struct nst_store *s, const struct store_request *rq, struct nst_future *f)
{
    struct nst_future done;

    nst_future_init(&done);
    slow.puts += rq->op == STORE_PUT_OWNED;
    slow.inner->ops->start(slow.inner, rq, &done);
    if (!slow.keeps) {
        nst_fulfil(f, done.rc);
        return;
    }
    f->stop = stopped;
    slow.waiting[slow.n] = f;
    slow.rc[slow.n++] = done.rc;
}

/* All that was kept back is answered; rc 0: as the store said. */
static void let_go(int rc)
{
    unsigned n = slow.n;

    slow.n = 0;
    for (unsigned i = 0; i < n; i++) {
        if (slow.waiting[i] != NULL)
            nst_fulfil(slow.waiting[i], rc != 0 ? rc : slow.rc[i]);
    }
    lab_settle();
}

static const struct store_ops slow_ops = { .start = slow_start };

/* ---- an NF that counts its flow's packets: a capital letter only reads ---- */
static struct nst_state *state;
static uint32_t sends;

static void open_state(void)
{
    struct nst_state_config c = { .name = "s:", .size = 8, .sends = sends };

    slow = (struct slow_store){ .base.ops = &slow_ops };
    check_eq(nst_store_open(&slow.inner, "mem:", NULL, NULL), 0);
    check_eq(nst_state_open(&state, &slow.base, &c), 0);
}

static void close_state(void)
{
    struct nst_state_stats s;

    nst_state_stats(state, &s);
    check_eq(s.sends, 0);
    nst_state_close(state);
    nst_store_close(slow.inner);
}

static enum nst_verdict counts(struct nst_flow *f, const struct nst_event *ev)
{
    uint8_t key[NST_FLOW_KEY_MAX];
    struct nst_slice name = { key, nst_flow_key(f, ev->side, key) };
    NST_HELD struct nst_object *o = NULL;
    char c = first_byte(f, ev);
    int rc = nst_state_claim(state, name, &o, ev->until);

    if (rc < 0)
        return nst_fail(f, rc);
    if (c >= 'a') {
        *(uint8_t *)o->value = o->there ? (uint8_t)(*(uint8_t *)o->value + 1) : 1;
        o->len = 1;
        nst_state_write(o);
    }
    return nst_state_send(f, ev, &o, 1);
}

static void order_body(void)
{
    open_state();
    datagram(1, C2S, "a");
    lab_settle();
    check_out(1, "a");
    slow.keeps = true;
    datagram(1, C2S, "b");
    datagram(1, C2S, "c");
    datagram(1, C2S, "D");
    datagram(2, C2S, "X"); /* another flow: it has to claim, and waits for that */
    lab_settle();
    check_eq(slow.puts, 2); /* of a; of b and c */
    datagram(1, C2S, "e");
    datagram(1, C2S, "F");
    datagram(1, C2S, "g");
    lab_settle();
    check_out(1, "a");
    check_eq(calls, 8); /* the flow went on all the while */
    check(lab_stats().held >= 6);
    let_go(0); /* b, c and D; one more write for the rest */
    check_eq(slow.puts, 3);
    check_out(1, "aXbcD");
    let_go(0);
    check_out(1, "aXbcDeFg");
    datagram(1, C2S, "H"); /* nothing is under way */
    lab_settle();
    check_out(1, "aXbcDeFgH");
    check_eq(lab_stats().held, 0);
    check_eq(lab_stats().forwarded, 9);
    check(lab.quiet > 0);
    slow.keeps = false;
    close_state();
}

static void in_order_as_writes_are_acknowledged(void **s)
{
    sends = 0;
    setup_udp(counts);
    lab_run(&config, order_body);
}

static void failure_body(void)
{
    open_state();
    datagram(1, C2S, "a");
    lab_settle();
    slow.keeps = true;
    datagram(1, C2S, "b");
    datagram(1, C2S, "C");
    lab_settle();
    datagram(1, C2S, "d");
    lab_settle();
    slow.keeps = false;
    let_go(-ECONNRESET);
    check_out(1, nf.policy.on_store == NST_FORWARD ? "abCd" : "a");
    check_eq(lab_stats().policy[NST_BY_STORE], 3);
    check_eq(lab_stats().dropped[NST_BY_STORE], nf.policy.on_store == NST_FORWARD ? 0 : 3);
    check_eq(lab_stats().held, 0);
    lab_clear();
    datagram(1, C2S, "e"); /* claims anew */
    lab_settle();
    check_out(1, "e");
    close_state();
}

static void dropped_when_the_write_fails(void **s)
{
    sends = 0;
    setup_udp(counts);
    lab_run(&config, failure_body);
}

static void forwarded_where_the_policy_says_so(void **s)
{
    sends = 0;
    setup_udp(counts);
    nf.policy.on_store = NST_FORWARD;
    lab_run(&config, failure_body);
}

static void bounds_body(void)
{
    open_state();
    datagram(1, C2S, "a");
    lab_settle();
    slow.keeps = true;
    datagram(1, C2S, "b");
    datagram(1, C2S, "C");
    datagram(1, C2S, "D"); /* more than may wait */
    lab_settle();
    check_eq(lab_stats().dropped[NST_BY_STORE], 1);
    let_go(0);
    check_out(1, "abC");

    /* Who gets no answer is given up at its deadline. */
    datagram(1, C2S, "e");
    lab_settle();
    check_eq(nst_sleep(nst_now() + NST_MS(60)), 0);
    lab_settle();
    check_eq(lab_stats().dropped[NST_BY_TIMEOUT], 1);
    check_eq(lab_stats().held, 0);
    let_go(0);
    datagram(1, C2S, "F");
    lab_settle();
    check_out(1, "abCF");
    slow.keeps = false;
    close_state();
}

static void bounded_in_number_and_time(void **s)
{
    sends = 2;
    setup_udp(counts);
    nf.policy.budget = NST_MS(30);
    lab_run(&config, bounds_body);
}

/* ---- turned round ---- */
static enum nst_verdict turns(struct nst_flow *f, const struct nst_event *ev)
{
    nst_packet_turn(ev->packet);
    return NST_FORWARD;
}

static void turn_body(void)
{
    uint8_t frame[LAB_FRAME];
    struct lab_path path = lab_udp4;
    unsigned len = lab_udp_frame(frame, &path, C2S, "x", 1);

    lab_send(0, frame, len);
    lab_settle();
    check_out(1, "");
    check_out(0, "x");
    check_eq(lab.n_out, 1);
    check(memcmp(lab.out[0].frame, frame + 6, 6) == 0 && memcmp(lab.out[0].frame + 6, frame, 6) == 0);
    check(memcmp(lab.out[0].frame + 12, frame + 12, len - 12) == 0);
}

static void back_by_its_own_port(void **s)
{
    setup_udp(turns);
    lab_run(&config, turn_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order_as_writes_are_acknowledged),
        cmocka_unit_test(dropped_when_the_write_fails),
        cmocka_unit_test(forwarded_where_the_policy_says_so),
        cmocka_unit_test(bounded_in_number_and_time),
        cmocka_unit_test(back_by_its_own_port),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
