/* SPDX-License-Identifier: Apache-2.0 */
/* Two ends of TCP connections with an NF between them that edits both streams, on wires that lose, repeat and reorder.
 *
 * What is edited is planned beforehand and does not depend on how the stream is cut. Every byte of every segment that
 * reaches a receiver must be the edited stream's at its place; no acknowledgment that reaches a sender may speak of
 * bytes of which the receiver has not got all that stands for them; and both connections' ends must come to their end.
 */
#include "flow_lab.h"
#include <netinet/in.h>
#include <netstar/edit.h>
#include <rte_ip.h>
#include <stdlib.h>

enum {
    STREAM_MAX = 60000,
    EDITED_MAX = 4 * STREAM_MAX,
    PLANS_MAX = 400,
    INSERT_MAX = 3000,
    WIRE = 512,
    CONNECTIONS = 60,
    STEPS_MAX = 400000,
};

static uint64_t rnd;
static uint32_t below(uint32_t n)
{
    return lab_random(&rnd, n);
}

struct plan {
    uint32_t at, remove, insert; /* in the stream's bytes */
    uint32_t text;               /* where the inserted bytes are */
};

/* A stream from end !side to end side. */
static struct stream_sim {
    uint8_t sent[STREAM_MAX];
    uint32_t len;
    struct plan plan[PLANS_MAX];
    unsigned n_plans;
    uint8_t text[EDITED_MAX];
    uint32_t text_len;
    uint8_t edited[EDITED_MAX];
    uint32_t edited_len;
    uint32_t
        least[STREAM_MAX + 1]; /* edited bytes that stand for the first n: those inserted behind them not counted */
    /* the sender */
    uint32_t isn, una, next; /* offsets; len + 1 is behind the FIN */
    uint32_t window, mss;
    /* the receiver */
    bool have[EDITED_MAX + 1]; /* the last is the FIN */
    uint32_t got;              /* in order */
    uint32_t top;              /* behind the last byte that came */
    uint32_t offer;            /* the window: what is beyond it is not taken */
    unsigned unacked;
} streams[2];

static struct wire {
    struct {
        unsigned len;
        uint8_t frame[1700];
    } at[WIRE];
    unsigned n;
} wires[4]; /* to the engine from the client, from the server; from it to the client, to the server */

static struct conditions {
    unsigned loss, repeat, drop; /* of 1000 */
    unsigned turn;               /* one in so many comes out of turn */
    unsigned old;                /* one in so many repeats is of what was acknowledged long ago; 0: none */
    bool sack, times, six, pending;
} now;
static struct lab_path path;
static unsigned connection;
static uint32_t clock_now;

/* ---- what is planned ---- */
static void plan_stream(struct stream_sim *s)
{
    uint32_t at = 0;

    s->len = below(8) == 0 ? below(200) : 1 + below(STREAM_MAX - 1);
    s->n_plans = s->text_len = s->edited_len = 0;
    for (uint32_t i = 0; i < s->len; i++)
        s->sent[i] = (uint8_t)('a' + below(26));
    unsigned often = 1 + below(8000), most = below(4) == 0 ? INSERT_MAX : 40;
    while (s->n_plans < PLANS_MAX) {
        at += below(often);
        if (at > s->len)
            break;
        struct plan *p = &s->plan[s->n_plans++];
        p->at = at;
        p->remove = below(3) == 0 ? 0 : below(6) == 0 ? below(4000) : below(20);
        if (p->remove > s->len - at)
            p->remove = s->len - at;
        p->insert = below(3) == 0 ? 0 : 1 + below(below(5) == 0 ? most : 20);
        p->text = s->text_len;
        for (uint32_t i = 0; i < p->insert; i++)
            s->text[s->text_len++] = (uint8_t)('A' + below(26));
        at += p->remove + 1; /* so that no two are at one place */
    }
    at = s->least[0] = 0;
    for (unsigned i = 0; i <= s->n_plans; i++) {
        const struct plan *p = &s->plan[i];
        uint32_t stop = i < s->n_plans ? p->at : s->len;
        while (at < stop) {
            s->edited[s->edited_len++] = s->sent[at];
            s->least[++at] = s->edited_len;
        }
        if (i == s->n_plans)
            break;
        memcpy(s->edited + s->edited_len, s->text + p->text, p->insert);
        s->edited_len += p->insert;
        for (uint32_t end = at + p->remove; at < end;)
            s->least[++at] = s->edited_len;
    }
    s->isn = below(2) != 0 ? 0u - below(30000) : below(UINT32_MAX);
    s->una = s->next = 0;
    s->window = 2000 + below(40000);
    s->offer = below(3) ? 0xffff : 2000 + below(20000);
    s->mss = 500 + below(961);
    memset(s->have, 0, sizeof s->have);
    s->got = s->top = 0;
    s->unacked = 0;
}

/* ---- the NF ---- */
static int edit_now(struct nst_flow *f, enum nst_side side, uint64_t from, uint64_t end)
{
    const struct stream_sim *s = &streams[side];

    for (unsigned i = 0; i < s->n_plans; i++) {
        const struct plan *p = &s->plan[i];
        uint64_t a = p->at > from ? p->at : from, b = p->at + p->remove < end ? p->at + p->remove : end;
        bool begins = p->at >= from && (p->at < end || (p->at == s->len && end == s->len));
        if (!begins && a >= b)
            continue;
        int rc = nst_flow_replace(f, side, a, b > a ? b - a : 0, s->text + p->text, begins ? p->insert : 0);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static struct {
    struct nst_flow *flow;
    enum nst_side side;
} asked[8];
static unsigned n_asked;

static enum nst_verdict editor(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_slice piece;
    const struct stream_sim *s = &streams[ev->side];
    uint64_t from = nst_tcp_offset(f, ev->side), end = from;

    while (nst_flow_bytes(f, ev->side, &piece)) {
        check(end + piece.len <= s->len && memcmp(piece.p, s->sent + end, piece.len) == 0);
        end += piece.len;
    }
    check_eq(edit_now(f, ev->side, from, end), 0);
    if (below(1000) < now.drop)
        return NST_DROP;
    if (now.pending && n_asked < 8 && below(8) == 0) {
        asked[n_asked].flow = f;
        asked[n_asked++].side = ev->side;
        return NST_PENDING;
    }
    return NST_FORWARD;
}

/* ---- frames ---- */
static unsigned make_frame(uint8_t *frame, unsigned dir, uint8_t flags, uint32_t seq, uint32_t ack, const uint8_t *data,
                           unsigned len, const uint8_t *more, unsigned more_len)
{
    uint8_t options[40];
    unsigned n = 0;

    if (flags & SYN) {
        const struct stream_sim *in = &streams[dir == C2S ? NST_CLIENT : NST_SERVER]; /* that this end receives */
        options[n++] = 2, options[n++] = 4, options[n++] = (uint8_t)(in->mss >> 8), options[n++] = (uint8_t)in->mss;
        if (now.sack)
            options[n++] = 1, options[n++] = 1, options[n++] = 4, options[n++] = 2;
    }
    if (now.times) {
        uint32_t tsval = rte_cpu_to_be_32(++clock_now), tsecr = 0;
        options[n++] = 1, options[n++] = 1, options[n++] = 8, options[n++] = 10;
        memcpy(options + n, &tsval, 4), memcpy(options + n + 4, &tsecr, 4);
        n += 8;
    }
    if (more_len != 0)
        memcpy(options + n, more, more_len);
    n += more_len;
    unsigned at = lab_ip_header(frame, &path, dir, IPPROTO_TCP, 20 + n + len);
    struct rte_tcp_hdr h = { .src_port = rte_cpu_to_be_16(path.port[dir]),
                             .dst_port = rte_cpu_to_be_16(path.port[!dir]),
                             .sent_seq = rte_cpu_to_be_32(seq),
                             .recv_ack = rte_cpu_to_be_32(ack),
                             .data_off = (uint8_t)((20 + n) / 4 << 4),
                             .tcp_flags = flags,
                             .rx_win =
                                 rte_cpu_to_be_16((uint16_t)streams[dir == C2S ? NST_CLIENT : NST_SERVER].offer) };
    memcpy(frame + at, &h, 20);
    memcpy(frame + at + 20, options, n);
    if (len != 0)
        memcpy(frame + at + 20 + n, data, len);
    lab_checksum(frame, 0, path.family, IPPROTO_TCP);
    return at + 20 + n + len;
}

static void put(unsigned wire, const uint8_t *frame, unsigned len)
{
    struct wire *w = &wires[wire];

    for (unsigned copies = below(1000) < now.repeat ? 2 : 1; copies > 0; copies--) {
        if (below(1000) < now.loss || w->n == WIRE)
            continue;
        check(len <= sizeof w->at[0].frame);
        w->at[w->n].len = len;
        memcpy(w->at[w->n++].frame, frame, len);
    }
}

/* What the end `side` acknowledges. */
static uint32_t ack_of(unsigned side)
{
    const struct stream_sim *in = &streams[side];
    return in->isn + 1 + in->got;
}

static unsigned sack_of(unsigned side, uint8_t *out)
{
    const struct stream_sim *in = &streams[side];
    unsigned n = 0;

    if (!now.sack)
        return 0;
    for (uint32_t i = in->got; i < in->top && n < 2; i++) {
        if (!in->have[i])
            continue;
        uint32_t from = i;
        while (i < in->top && in->have[i])
            i++;
        uint32_t block[] = { rte_cpu_to_be_32(in->isn + 1 + from), rte_cpu_to_be_32(in->isn + 1 + i) };
        memcpy(out + 4 + 8 * n++, block, 8);
    }
    if (n == 0)
        return 0;
    out[0] = out[1] = 1, out[2] = 5, out[3] = (uint8_t)(2 + 8 * n);
    return 4 + 8 * n;
}

/* The end !to sends [from, from + len) of its stream. */
static void send_part(unsigned to, uint32_t from, uint32_t len, bool fin)
{
    struct stream_sim *s = &streams[to];
    unsigned dir = to == NST_SERVER ? C2S : S2C;
    uint8_t frame[1700], flags = (uint8_t)(ACK | (fin ? FIN : 0) | (below(2) ? PSH : 0));
    unsigned n = make_frame(frame, dir, flags, s->isn + 1 + from, ack_of(!to), s->sent + from, len, NULL, 0);

    put(dir == C2S ? 0 : 1, frame, n);
    if (from + len + fin > s->next)
        s->next = from + len + fin;
}

static void sender(unsigned to)
{
    struct stream_sim *s = &streams[to];
    uint32_t most = s->mss - (now.times ? 12 : 0);

    if (s->una > s->len)
        return;
    uint32_t window = s->window < s->offer ? s->window : s->offer;
    if (s->next <= s->len && s->next - s->una < window && below(10) != 0) {
        uint32_t len = 1 + below(most), left = s->len - s->next;
        len = len < left ? len : left;
        send_part(to, s->next, len, s->next + len == s->len && below(2));
    } else if (s->next > s->una && below(12) == 0) { /* again, cut anew */
        uint32_t from = below(3) ? s->una : s->una + below(s->next - s->una), len = below(most + 1);
        if (now.old != 0 && below(now.old) == 0) /* or as a keep-alive does */
            from = below(2) ? below(s->una + 1) : s->una != 0 && s->una <= s->len ? s->una - 1 : s->una;
        uint32_t end = s->next < s->len ? s->next : s->len;
        if (from > end)
            from = end;
        len = len < end - from ? len : end - from;
        send_part(to, from, len, s->next > s->len && from + len == s->len);
    }
}

static void send_ack(unsigned side)
{
    unsigned dir = side == NST_CLIENT ? C2S : S2C;
    uint8_t frame[200], sack[40];
    const struct stream_sim *out = &streams[!side];
    unsigned n = sack_of(side, sack);

    n = make_frame(frame, dir, ACK, out->isn + 1 + out->next, ack_of(side), NULL, 0, sack, n);
    put(dir == C2S ? 0 : 1, frame, n);
    streams[side].unacked = 0;
}

/* ---- what an end gets ---- */
static void hear_ack(unsigned side, uint32_t ack)
{
    struct stream_sim *out = &streams[!side];
    uint32_t at = ack - (out->isn + 1);

    check(at <= out->next);
    if (at > out->next || at <= out->una)
        return;
    uint32_t least = at > out->len ? out->edited_len + 1 : out->least[at];
    check(out->got >= least);
    out->una = at;
}

static void hear_sack(unsigned side, const uint8_t *o, unsigned len)
{
    const struct stream_sim *out = &streams[!side];

    for (unsigned i = 2; i + 8 <= len; i += 8) {
        uint32_t block[2];
        memcpy(block, o + i, 8);
        uint32_t from = rte_be_to_cpu_32(block[0]) - (out->isn + 1), to = rte_be_to_cpu_32(block[1]) - (out->isn + 1);
        check(from < to && to <= out->next);
    }
}

static void hear(unsigned side, const uint8_t *frame, unsigned len)
{
    struct stream_sim *in = &streams[side];
    const uint8_t *ip = frame + 14;
    unsigned l4 = 14 + (path.family == 4 ? 20 : 40);
    const struct rte_tcp_hdr *h = (const void *)(frame + l4);
    unsigned head = (h->data_off >> 4) * 4u, payload = len - l4 - head;

    uint8_t copy[1700];
    memcpy(copy, frame, len);
    lab_checksum(copy, 0, path.family, IPPROTO_TCP);
    check(memcmp(copy + l4, frame + l4, 20) == 0);
    if (path.family == 4) {
        check_eq(rte_raw_cksum(ip, 20), 0xffff);
        check_eq(rte_be_to_cpu_16(((const struct rte_ipv4_hdr *)ip)->total_length), len - 14);
    } else {
        check_eq(rte_be_to_cpu_16(((const struct rte_ipv6_hdr *)ip)->payload_len), len - 54);
    }
    check(payload <= in->mss - (head - 20));
    for (unsigned i = 20; i < head;) {
        const uint8_t *o = (const uint8_t *)h + i;
        if (*o == 5)
            hear_sack(side, o, o[1]);
        i += *o <= 1 ? 1 : o[1];
    }
    hear_ack(side, rte_be_to_cpu_32(h->recv_ack));
    uint32_t from = rte_be_to_cpu_32(h->sent_seq) - (in->isn + 1);
    bool fin = (h->tcp_flags & FIN) != 0;
    if (payload == 0 && !fin) {
        /* A number before what is expected wants an answer; and one that was never sent is wrong. */
        if ((int32_t)(from - in->got) < 0)
            in->unacked++;
        check((int32_t)from <= (int32_t)in->edited_len + 1);
        return;
    }
    check(from <= in->edited_len && payload <= in->edited_len - from);
    if (from > in->edited_len || payload > in->edited_len - from)
        return;
    if (memcmp((const uint8_t *)h + head, in->edited + from, payload) != 0)
        check(!"the bytes are the edited stream's");
    uint32_t room = in->got + in->offer - from;
    if ((int32_t)room < 0)
        room = 0;
    if (payload + fin > room) {
        payload = room < payload ? room : payload;
        fin = false;
    }
    memset(in->have + from, 1, payload);
    if (fin) {
        check_eq(from + payload, in->edited_len);
        in->have[in->edited_len] = true;
    }
    if (from + payload + fin > in->top)
        in->top = from + payload + fin;
    while (in->got < in->top && in->have[in->got])
        in->got++;
    in->unacked++;
}

/* ---- the run ---- */
static bool take(unsigned wire, uint8_t *frame, unsigned *len)
{
    struct wire *w = &wires[wire];

    if (w->n == 0)
        return false;
    unsigned i = below(now.turn) == 0 ? below(w->n) : 0; /* out of turn now and then */
    *len = w->at[i].len;
    memcpy(frame, w->at[i].frame, *len);
    w->n--;
    memmove(&w->at[i], &w->at[i + 1], (w->n - i) * sizeof w->at[0]);
    return true;
}

static void through(void)
{
    uint8_t frame[1700];
    unsigned len;

    for (unsigned dir = 0; dir < 2; dir++) {
        for (unsigned n = below(4); n > 0 && take(dir, frame, &len); n--)
            lab_send(dir, frame, len);
    }
    lab_turns(1);
    while (n_asked > 0 && below(3)) {
        n_asked--;
        nst_resume(asked[n_asked].flow, asked[n_asked].side, below(10) ? NST_FORWARD : NST_DROP);
        lab_turns(1);
    }
    for (unsigned i = 0; i < lab.n_out; i++)
        put(lab.out[i].port == 0 ? 2 : 3, lab.out[i].frame, lab.out[i].len);
    lab_clear();
    for (unsigned side = 0; side < 2; side++) {
        for (unsigned n = below(4); n > 0 && take(2 + side, frame, &len); n--)
            hear(side, frame, len);
        if (streams[side].unacked > below(3))
            send_ack(side);
    }
}

static void connect_ends(void)
{
    uint8_t frame[200];
    uint32_t client = streams[NST_SERVER].isn, server = streams[NST_CLIENT].isn;

    lab_send(0, frame, make_frame(frame, C2S, SYN, client, 0, NULL, 0, NULL, 0));
    lab_turns(1);
    lab_send(1, frame, make_frame(frame, S2C, SYN | ACK, server, client + 1, NULL, 0, NULL, 0));
    lab_turns(1);
    lab_send(0, frame, make_frame(frame, C2S, ACK, client + 1, server + 1, NULL, 0, NULL, 0));
    lab_turns(1);
    check_eq(lab.n_out, 3);
    lab_clear();
}

static bool finished(void)
{
    for (unsigned side = 0; side < 2; side++) {
        if (streams[side].una <= streams[side].len || streams[side].got <= streams[side].edited_len)
            return false;
    }
    return true;
}

static void body(void)
{
    for (connection = 0; connection < CONNECTIONS && lab.failures == 0; connection++) {
        uint64_t seed = rnd;
        now = (struct conditions){ .loss = below(3) ? below(80) : 0,
                                   .repeat = below(40),
                                   .drop = below(3) ? 0 : below(60),
                                   .turn = below(2) ? 20 : 2 + below(20),
                                   .old = below(2) ? 0 : 1 + below(8),
                                   .sack = below(2),
                                   .times = below(2),
                                   .six = below(2),
                                   .pending = below(3) == 0 };
        path = now.six ? lab_tcp6 : lab_tcp4;
        path.port[0] = (uint16_t)(20000 + connection);
        memset(wires, 0, sizeof wires);
        for (unsigned side = 0; side < 2; side++)
            plan_stream(&streams[side]);
        connect_ends();
        unsigned step = 0;
        for (; step < STEPS_MAX && !finished() && lab.failures == 0; step++) {
            for (unsigned side = 0; side < 2; side++)
                sender(side);
            through();
        }
        check(finished());
        while (n_asked > 0) {
            n_asked--;
            nst_resume(asked[n_asked].flow, asked[n_asked].side, NST_FORWARD);
        }
        lab_settle();
        lab_clear();
        if (lab.failures != 0) {
            fprintf(stderr,
                    "connection %u began with NST_SEED=%llu; loss %u repeat %u drop %u turn %u old %u sack %d times %d "
                    "six %d pending %d\n",
                    connection, (unsigned long long)seed, now.loss, now.repeat, now.drop, now.turn, now.old, now.sack,
                    now.times, now.six, now.pending);
            for (unsigned side = 0; side < 2; side++) {
                const struct stream_sim *s = &streams[side];
                fprintf(stderr, "  to %u: %u bytes, %u edited by %u plans; una %u next %u got %u top %u offer %u\n",
                        side, s->len, s->edited_len, s->n_plans, s->una, s->next, s->got, s->top, s->offer);
            }
        }
    }
    struct nst_engine_stats s = lab_stats();
    check(s.edits > 0);
    check_eq(s.edits_refused, 0);
    print_message("%llu edits, %llu segments held back, %llu made\n", (unsigned long long)s.edits,
                  (unsigned long long)s.dropped[NST_BY_HELD_BACK], (unsigned long long)s.injected);
}

static void random_edits(void **state)
{
    static const struct nst_nf nf = {
        .name = "editor",
        .half = { [NST_CLIENT] = { .inspect = &nst_tcp, .on_received = NST_EV_DATA, .handler = editor, .edits = true },
                  [NST_SERVER] = { .inspect = &nst_tcp,
                                   .on_received = NST_EV_DATA,
                                   .handler = editor,
                                   .edits = true } },
        .policy = { .budget = NST_SEC(1000) },
    };
    static const struct nst_engine_config config = { .nf = &nf, .flows = 1024 };

    rnd = lab_seed();
    print_message("seed %llu\n", (unsigned long long)rnd);
    lab_run(&config, body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_edits),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
