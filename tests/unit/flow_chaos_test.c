/* SPDX-License-Identifier: Apache-2.0 */
/* Everything at once, at random. */
#include "flow_half_lab.h"

/* ---- all at once ---- */
/* Many flows, both halves and directions, waits, pendings and drops at random: in the end every packet has met the end
 * that was meant for it, in order. */
enum { FLOWS = 40, ROUNDS = 400 };
static uint64_t chaos_rnd;
static struct chaos {
    struct nst_future f;
    struct nst_flow *flow;
    enum nst_side side;
    bool open;
    bool pending;
} asked[FLOWS * 2];
static struct lab_path chaos_path[FLOWS];
static unsigned chaos_sent;
static uint32_t chaos_number[FLOWS][2];

struct chaos_payload {
    uint32_t flow, number;
    uint8_t fate[2]; /* by stage: 0 forward, 1 drop, 2 take and free; 3, 4: the same after a wait ... */
};

static enum nst_verdict chaos_handler(struct nst_flow *f, const struct nst_event *ev)
{
    if (ev->what & NST_EV_CLOSE)
        return NST_FORWARD;
    const struct nst_headers *h = nst_packet_headers(ev->packet);
    struct chaos_payload c;
    memcpy(&c, nst_packet_bytes(ev->packet, h->payload, sizeof c), sizeof c);
    uint8_t fate = c.fate[ev->dir == NST_SENT ? 0 : 1];
    struct chaos *a = &asked[c.flow * 2 + ev->side];

    if (fate >= 3) {
        check(!a->open);
        nst_future_init(&a->f);
        a->flow = f;
        a->side = ev->side;
        a->open = true;
        a->pending = fate >= 6;
        if (a->pending)
            return NST_PENDING;
        check_eq(nst_await(&a->f, NST_NEVER), 0);
    }
    if (fate % 3 == 1)
        return NST_DROP;
    if (fate % 3 == 2) {
        nst_packet_free(nst_take(ev));
        return NST_TAKEN;
    }
    return NST_FORWARD;
}

static void chaos_answer(struct chaos *a)
{
    a->open = false;
    if (a->pending)
        nst_resume(a->flow, a->side, lab_random(&chaos_rnd, 2) ? NST_FORWARD : NST_DROP);
    else
        nst_fulfil(&a->f, 0);
}

static void chaos_body(void)
{
    uint64_t seed = chaos_rnd;

    for (unsigned i = 0; i < FLOWS; i++) {
        chaos_path[i] = i % 2 ? lab_udp4 : lab_udp6;
        chaos_path[i].port[0] = (uint16_t)(5000 + i);
    }
    for (unsigned round = 0; round < ROUNDS && lab.failures == 0; round++) {
        for (unsigned n = lab_stats().held + lab_queued() < 2000 ? lab_random(&chaos_rnd, 64) : 0; n > 0; n--) {
            struct chaos_payload c = { .flow = lab_random(&chaos_rnd, FLOWS) };
            unsigned dir = chaos_number[c.flow][0] == 0 ? C2S : lab_random(&chaos_rnd, 2);
            c.number = ++chaos_number[c.flow][dir];
            for (unsigned s = 0; s < 2; s++)
                c.fate[s] = (uint8_t)(lab_random(&chaos_rnd, 3) ? 0 : lab_random(&chaos_rnd, 7));
            lab_send_udp(&chaos_path[c.flow], dir, &c, sizeof c);
            chaos_sent++;
        }
        lab_turns(lab_random(&chaos_rnd, 4));
        for (unsigned i = 0; i < FLOWS * 2; i++) {
            if (asked[i].open && lab_random(&chaos_rnd, 2))
                chaos_answer(&asked[i]);
        }
    }
    lab_settle();
    for (bool any = true; any;) {
        any = false;
        for (unsigned i = 0; i < FLOWS * 2; i++) {
            if (asked[i].open) {
                chaos_answer(&asked[i]);
                any = true;
            }
        }
        lab_settle();
    }
    struct nst_engine_stats s = lab_stats();
    uint64_t ends = s.forwarded;
    for (unsigned c = 0; c < NST_CAUSES; c++)
        ends += s.dropped[c];
    check_eq(s.packets, chaos_sent);
    check_eq(ends, chaos_sent);
    check_eq(s.forwarded, lab.n_out);
    check_eq(s.held, 0);
    check_eq(s.policy[NST_BY_OTHERWISE], 0);
    uint32_t last[FLOWS][2] = { 0 };
    for (unsigned i = 0; i < lab.n_out; i++) {
        struct chaos_payload c;
        memcpy(&c, lab.out[i].data, sizeof c);
        unsigned dir = lab.out[i].port == 1 ? C2S : S2C;
        check(c.number > last[c.flow][dir]);
        last[c.flow][dir] = c.number;
    }
    if (lab.failures != 0)
        fprintf(stderr, "NST_SEED=%llu\n", (unsigned long long)seed);
}

static void chaos(void **state)
{
    chaos_rnd = lab_seed();
    print_message("seed %llu\n", (unsigned long long)chaos_rnd);
    setup_udp(NULL);
    memset(chaos_number, 0, sizeof chaos_number);
    memset(asked, 0, sizeof asked);
    chaos_sent = 0;
    nf.policy.hold = 1000;
    nf.policy.budget = NST_SEC(1000);
    for (unsigned side = 0; side < 2; side++)
        nf.half[side] = (struct nst_half){
            .inspect = &nst_udp, .on_sent = NST_EV_PACKET, .on_received = NST_EV_PACKET, .handler = chaos_handler
        };
    lab_run(&config, chaos_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chaos),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
