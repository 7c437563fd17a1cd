/* SPDX-License-Identifier: Apache-2.0 */
/* nst_tcp against a small model, on hostile sequences of segments. */
#include "flow_tcp_lab.h"

enum { SPAN = 1200, SEQUENCES = 20000, AT_ONCE = 40 };

struct expected { /* of a packet that wakes the handler */
    uint32_t number;
    nst_events what;
    uint64_t offset;
    unsigned len;
    uint8_t bytes[SPAN];
    bool drop;
};

static struct {
    uint64_t seed, rnd;
    unsigned sequence;
    struct lab_path path;
    uint32_t isn;
    /* what the server has (or would have) received, by place in the stream */
    uint8_t byte[SPAN];
    bool have[SPAN];
    unsigned next, acked; /* delivered; acknowledged */
    int fin;              /* where the stream ends; -1: not known */
    struct expected expected[AT_ONCE];
    unsigned n_expected, got;
    unsigned forwarded; /* packets that shall come out at the server's port */
    uint64_t delivered;
} model;

static void model_failed(const char *what)
{
    fprintf(stderr, "%s: NST_SEED=%llu, sequence %u\n", what, (unsigned long long)model.seed, model.sequence);
    lab.failures++;
}

static enum nst_verdict model_handler(struct nst_flow *f, const struct nst_event *ev)
{
    uint8_t bytes[SPAN];
    unsigned len = 0;
    struct nst_slice s;

    if (model.got == model.n_expected) {
        model_failed("an event that should not be");
        return NST_FORWARD;
    }
    struct expected *x = &model.expected[model.got++];
    while (nst_flow_bytes(f, ev->side, &s) && len + s.len <= SPAN) {
        memcpy(bytes + len, s.p, s.len);
        len += (unsigned)s.len;
    }
    if (ev->what != x->what)
        model_failed("other events");
    if (len != x->len || memcmp(bytes, x->bytes, len) != 0)
        model_failed("other bytes");
    if (nst_tcp_offset(f, ev->side) != x->offset || nst_tcp_seq(f, ev->side) != model.isn + 1 + (uint32_t)x->offset)
        model_failed("another place");
    return x->drop ? NST_DROP : NST_FORWARD;
}

static uint32_t rnd(uint32_t below)
{
    return lab_random(&model.rnd, below);
}

/* A segment of the client: bytes [from, from + len), `other` of them not those of the stream so far. */
static void model_segment(unsigned from, unsigned len, bool fin, bool other)
{
    static uint8_t bytes[SPAN];
    struct expected x = { .what = 0, .offset = model.next };
    bool conflict = false;
    unsigned last = 0; /* end of all that is known */

    for (unsigned i = 0; i < len; i++) {
        unsigned at = from + i;
        bytes[i] = model.have[at] || at < model.next ? model.byte[at] : (uint8_t)rnd(256);
    }
    for (unsigned k = other ? 1 + rnd(3) : 0; k > 0 && len > 0; k--) {
        unsigned i = rnd(len);
        if (from + i >= model.acked) /* what is acknowledged nobody compares */
            bytes[i] ^= (uint8_t)(1 + rnd(255));
    }
    for (unsigned i = 0; i < len; i++)
        conflict = conflict || (from + i >= model.acked && model.have[from + i] && bytes[i] != model.byte[from + i]);
    for (unsigned i = 0; i < SPAN; i++)
        last = model.have[i] ? i + 1 : last;
    if (last < model.next)
        last = model.next;
    if (model.fin >= 0)
        conflict = conflict || (len > 0 && (int)(from + len) > model.fin) ||
                   (fin && (int)(from + len) != model.fin && from + len >= model.acked);
    else if (fin)
        conflict = conflict || (from + len < last && from + len >= model.acked);

    lab_send_tcp(&model.path, C2S,
                 (struct lab_tcp){ .flags = (uint8_t)(ACK | (fin ? FIN : 0)),
                                   .seq = model.isn + 1 + from,
                                   .ack = 1,
                                   .data = bytes,
                                   .len = len });
    if (conflict)
        return;
    if (len == 1 && !fin && from + 1 == model.next && model.acked == model.next) { /* a keep-alive */
        model.forwarded++;
        return;
    }
    if (len > 0 && from < model.next)
        x.what |= NST_EV_RETRANSMIT;
    if (len > 0 && from > model.next)
        x.what |= NST_EV_GAP;
    unsigned end = model.next;
    if (len > 0 && from <= model.next) {
        while (end < SPAN && (model.have[end] || (end >= from && end < from + len))) {
            x.bytes[x.len++] = model.have[end] ? model.byte[end] : bytes[end - from];
            end++;
        }
    }
    if (x.len > 0)
        x.what |= NST_EV_DATA;
    if (x.what != 0) {
        x.drop = rnd(5) == 0;
        model.expected[model.n_expected++] = x;
    }
    if (x.drop)
        return;
    model.forwarded++;
    for (unsigned i = 0; i < len; i++) {
        if (!model.have[from + i] && from + i >= model.next)
            model.byte[from + i] = bytes[i];
        model.have[from + i] = true;
    }
    model.next = end;
    model.delivered += x.len;
    if (fin && from + len >= last)
        model.fin = (int)(from + len);
}

static void model_ack(void)
{
    unsigned upto = model.acked + rnd(model.next - model.acked + 1);

    /* Not more than has passed the engine when the acknowledgement comes by. */
    model.acked = upto;
    lab_send_tcp(&model.path, S2C, (struct lab_tcp){ .flags = ACK, .seq = 1, .ack = model.isn + 1 + upto });
}

static void model_sequence(void)
{
    unsigned n = 3 + rnd(AT_ONCE - 5), span = 1 + rnd(rnd(4) == 0 ? SPAN : 120);
    unsigned longest = 1 + rnd(rnd(3) == 0 ? span : 1 + span / 4);

    model.path = lab_tcp4;
    model.path.port[0] = (uint16_t)(1024 + model.sequence % 60000);
    model.path.host[0] = 100 + model.sequence / 60000;
    model.isn = rnd(3) == 0 ? (uint32_t)-1 - rnd(span) : rnd(UINT32_MAX);
    memset(model.have, 0, sizeof model.have);
    model.next = model.acked = model.n_expected = model.got = model.forwarded = 0;
    model.fin = -1;
    lab_send_tcp(&model.path, C2S, (struct lab_tcp){ .flags = SYN, .seq = model.isn });
    lab_send_tcp(&model.path, S2C, (struct lab_tcp){ .flags = SYN | ACK, .seq = 0, .ack = model.isn + 1 });
    model.forwarded++;
    for (unsigned i = 0; i < n; i++) {
        lab.pieces = rnd(4) == 0 ? 1 + rnd(5) : 1;
        if (rnd(5) == 0) {
            model_ack();
            continue;
        }
        unsigned len = rnd(longest + 1), from = rnd(2) ? rnd(span - (len < span ? len : span) + 1) : model.next;
        if (from + len > SPAN)
            len = SPAN - from;
        model_segment(from, len, rnd(12) == 0, rnd(10) == 0);
    }
    lab.pieces = 1;
    lab_clear();
    lab_settle();
    unsigned out = 0;
    for (unsigned i = 0; i < lab.n_out; i++)
        out += lab.out[i].port == 1;
    if (out != model.forwarded)
        model_failed("another number of packets went on");
    if (model.got != model.n_expected)
        model_failed("events did not come");
}

static void hostile_body(void)
{
    uint64_t conflicts = 0;

    for (model.sequence = 0; model.sequence < SEQUENCES && lab.failures == 0; model.sequence++)
        model_sequence();
    struct nst_engine_stats s = lab_stats();
    conflicts = s.conflicts;
    check_eq(s.stream_bytes, model.delivered);
    check_eq(s.unkept_bytes, 0);
    check_eq(s.lost_bytes, 0);
    check_eq(s.dropped[NST_BY_STREAM_LIMIT], 0);
    check(conflicts > 1000);
}

static void hostile_sequences(void **state)
{
    memset(&model, 0, sizeof model);
    model.seed = model.rnd = lab_seed();
    print_message("seed %llu\n", (unsigned long long)model.seed);
    setup_nf(NST_EV_DATA | NST_EV_GAP | NST_EV_RETRANSMIT);
    nf.half[NST_SERVER].handler = model_handler;
    config.flows = SEQUENCES;
    lab_run(&config, hostile_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_sequences),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
