/* SPDX-License-Identifier: Apache-2.0 */
/* Editing between two models of TCP ends, over a network that loses, repeats and reorders on both sides of the engine.
 * Both ends send a stream; handlers replace, remove, insert, inject and drop at random and write down what the receiver
 * should get. In the end each receiver has exactly that, and each sender knows that everything has arrived.
 *
 * The ends check every segment that reaches them: a place never has two different bytes, nothing is acknowledged that
 * was not sent, no segment is larger than they allow, checksums are right. NST_SEED repeats a run; a flow that fails is
 * repeated alone and told segment by segment.
 */
#include "flow_lab.h"
#include <netinet/in.h>
#include <netstar/edit.h>
#include <rte_ip.h>
#include <stdlib.h>

enum {
    STREAM = 1500,
    OUT = 8192,
    MSS = 300,
    WINDOW = 600,
    FLOWS = 200, /* at once */
    LINK = 64,
    ROUNDS = 4000,
};

struct frame {
    uint16_t len;
    uint8_t bytes[MSS + 120];
};

struct link { /* one direction between an end and the engine */
    struct frame *at[LINK];
    unsigned n;
};

struct peer {
    uint32_t isn, peer_isn;
    uint8_t stream[STREAM];
    unsigned len;      /* of its stream; the FIN stands at that place */
    unsigned una, nxt; /* what is acknowledged, what was sent */
    uint8_t got[OUT];
    bool has[OUT];
    unsigned rcv, got_end;
    unsigned told; /* how much of it the engine has seen acknowledged */
    int fin;       /* where the stream that it receives ends; -1: not known */
    bool ack_due;
    struct link out, in;
    /* What it should get, by what the handlers did. */
    uint8_t should[OUT];
    unsigned n_should;
    unsigned taken; /* bytes of the other's stream that were forwarded */
    bool free;      /* FORWARD_FLOW: the rest as it is */
};

struct flow {
    uint64_t rnd;
    unsigned lose, edits, refuses; /* one in so many */
    struct peer end[2];
    bool failed, left_out;
};

static struct {
    struct flow *flow;
    unsigned n;
    uint64_t seed;
    bool tell;
    unsigned idle;
    uint64_t edits, injected, drops, lost;
} run;

static struct nst_nf nf;
static struct nst_engine_config config;

static uint32_t rnd(struct flow *x, uint32_t below)
{
    return lab_random(&x->rnd, below);
}

static bool one_in(struct flow *x, unsigned n)
{
    return n != 0 && rnd(x, n) == 0;
}

static void failed(struct flow *x, const char *what, unsigned a, unsigned b)
{
    if (!x->failed)
        fprintf(stderr, "flow %u: %s (%u, %u)\n", (unsigned)(x - run.flow), what, a, b);
    x->failed = true;
}

static uint64_t mix(uint64_t n)
{
    n = (n + 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
    n = (n ^ n >> 27) * 0x94d049bb133111ebu;
    return (n ^ n >> 31) | 1;
}

/* ---- segments ---- */
static struct lab_path path_of(unsigned i)
{
    struct lab_path p = { .family = i % 4 == 3 ? 6 : 4, .proto = IPPROTO_TCP, .host = { 1, 2 }, .port = { 0, 80 } };
    p.port[0] = (uint16_t)(1024 + i);
    return p;
}

static void tell(const struct flow *x, const char *where, const uint8_t *frame, unsigned len)
{
    if (!run.tell)
        return;
    unsigned l4 = frame[12] == 0x08 ? 34 : 54;
    const struct rte_tcp_hdr *h = (const void *)(frame + l4);
    unsigned at = l4 + (h->data_off >> 4) * 4u, dir = rte_be_to_cpu_16(h->dst_port) != 80;
    const struct peer *e = &x->end[dir], *o = &x->end[!dir];
    uint32_t his = dir == 0 ? o->isn : e->peer_isn;
    fprintf(stderr, "%-12s %s %02x seq %d..%d ack %d\n", where, dir == C2S ? "-->" : "<--", h->tcp_flags,
            (int)(rte_be_to_cpu_32(h->sent_seq) - e->isn - 1),
            (int)(rte_be_to_cpu_32(h->sent_seq) - e->isn - 1 + len - at),
            (int)(rte_be_to_cpu_32(h->recv_ack) - (dir == 0 ? e->peer_isn : his) - 1));
}

static unsigned write_segment(struct flow *x, unsigned dir, uint8_t flags, unsigned from, unsigned len, uint8_t *frame)
{
    struct lab_path p = path_of((unsigned)(x - run.flow));
    struct peer *e = &x->end[dir];
    uint8_t options[16];
    unsigned n = 0;

    if (flags & SYN) {
        memcpy(options, (uint8_t[]){ 2, 4, MSS >> 8, MSS & 255, 1, 1, 4, 2 }, 8);
        n = 8;
    } else if (e->got_end > e->rcv + 1 && one_in(x, 2)) { /* a selective acknowledgment of one block */
        unsigned a = e->got_end;
        while (a > e->rcv + 1 && e->has[a - 1])
            a--;
        uint32_t edge[2] = { rte_cpu_to_be_32(e->peer_isn + 1 + a), rte_cpu_to_be_32(e->peer_isn + 1 + e->got_end) };
        memcpy(options, (uint8_t[]){ 1, 1, 5, 10 }, 4);
        memcpy(options + 4, edge, 8);
        n = 12;
    }
    unsigned at = lab_ip_header(frame, &p, dir, IPPROTO_TCP, (unsigned)sizeof(struct rte_tcp_hdr) + n + len);
    struct rte_tcp_hdr h = {
        .src_port = rte_cpu_to_be_16(p.port[dir]),
        .dst_port = rte_cpu_to_be_16(p.port[!dir]),
        .sent_seq = rte_cpu_to_be_32(e->isn + (flags & SYN ? 0 : 1 + from)),
        .recv_ack = rte_cpu_to_be_32(flags & ACK ? e->peer_isn + 1 + e->rcv : 0),
        .data_off = (uint8_t)((5 + n / 4) << 4),
        .tcp_flags = flags,
        .rx_win = rte_cpu_to_be_16(0xffff),
    };
    memcpy(frame + at, &h, sizeof h);
    memcpy(frame + at + sizeof h, options, n);
    memcpy(frame + at + sizeof h + n, e->stream + from, len);
    lab_checksum(frame, 0, p.family, IPPROTO_TCP);
    return at + (unsigned)sizeof h + n + len;
}

/* ---- the network ---- */
static void put(struct flow *x, struct link *l, const uint8_t *bytes, unsigned len)
{
    for (unsigned copies = one_in(x, 15) ? 2 : 1; copies > 0; copies--) {
        if (one_in(x, x->lose) || l->n == LINK || len > sizeof l->at[0]->bytes) {
            run.lost++;
            continue;
        }
        struct frame *f = malloc(sizeof *f);
        f->len = (uint16_t)len;
        memcpy(f->bytes, bytes, len);
        l->at[l->n++] = f;
        if (one_in(x, 6)) { /* overtakes some */
            unsigned at = rnd(x, l->n);
            l->at[l->n - 1] = l->at[at];
            l->at[at] = f;
        }
    }
}

static void send_segment(struct flow *x, unsigned dir, uint8_t flags, unsigned from, unsigned len)
{
    uint8_t frame[LAB_FRAME];
    struct peer *e = &x->end[dir];
    bool fin = from + len == e->len && (from + len < e->nxt || one_in(x, 2));

    if (fin)
        flags |= FIN;
    unsigned n = write_segment(x, dir, flags, from, len, frame);
    unsigned to = from + len + fin;
    if (to > e->nxt)
        e->nxt = to;
    e->ack_due = false;
    put(x, &e->out, frame, n);
}

/* The acknowledgment in a segment that the engine is about to see. */
static void note_told(struct flow *x, unsigned dir, const uint8_t *frame)
{
    struct peer *e = &x->end[dir];
    const struct rte_tcp_hdr *h = (const void *)(frame + (frame[12] == 0x08 ? 34 : 54));
    int32_t ack = (int32_t)(rte_be_to_cpu_32(h->recv_ack) - e->peer_isn - 1);

    if (ack > (int32_t)e->told)
        e->told = (unsigned)ack;
}

/* ---- an end ---- */
static void end_sends(struct flow *x, unsigned dir)
{
    struct peer *e = &x->end[dir];

    for (unsigned k = rnd(x, 4); k > 0; k--) {
        unsigned from = e->nxt, room = e->una + WINDOW;
        if (one_in(x, 4) && e->una < e->nxt)
            from = e->una; /* what is missing, cut anew */
        else if (one_in(x, 12) && e->nxt > 0)
            from = rnd(x, e->nxt); /* needlessly */
        if (from > e->len)
            from = e->una <= e->len ? e->una : e->len;
        if (from > e->len || from >= room || (e->una > e->len && !one_in(x, 20)))
            break;
        unsigned left = e->len - from, len = 1 + rnd(x, one_in(x, 3) ? MSS : 60);
        if (len > MSS)
            len = MSS;
        send_segment(x, dir, ACK, from, len < left ? len : left);
    }
    if (e->ack_due && !one_in(x, 4))
        send_segment(x, dir, ACK, e->nxt <= e->len ? e->nxt : e->len, 0);
}

static bool right_sum(const uint8_t *frame, unsigned len, unsigned family)
{
    uint8_t again[LAB_FRAME];

    memcpy(again, frame, len);
    lab_checksum(again, 0, (uint8_t)family, IPPROTO_TCP);
    return memcmp(again, frame, len) == 0;
}

static void end_acknowledged(struct flow *x, struct peer *e, uint32_t number)
{
    int32_t ack = (int32_t)(number - e->isn - 1);

    if (ack > (int32_t)e->nxt)
        failed(x, "acknowledged, but never sent", (unsigned)ack, e->nxt);
    else if (ack > (int32_t)e->una)
        e->una = (unsigned)ack;
}

static void end_receives(struct flow *x, unsigned dir, const uint8_t *frame, unsigned len)
{
    struct peer *e = &x->end[!dir];
    unsigned family = frame[12] == 0x08 ? 4 : 6, l4 = family == 4 ? 34 : 54;
    const struct rte_tcp_hdr *h = (const void *)(frame + l4);
    unsigned at = l4 + (h->data_off >> 4) * 4u, n = len - at;
    int32_t from = (int32_t)(rte_be_to_cpu_32(h->sent_seq) - e->peer_isn - 1);

    tell(x, "arrives", frame, len);
    if (h->tcp_flags & RST) {
        failed(x, "a reset", h->tcp_flags, 0);
        return;
    }
    if (h->tcp_flags & SYN)
        return;
    if (!right_sum(frame, len, family))
        failed(x, "a wrong checksum", 0, 0);
    if (n > MSS)
        failed(x, "larger than the segments that it takes", n, MSS);
    end_acknowledged(x, e, rte_be_to_cpu_32(h->recv_ack));
    const uint8_t *o = frame + l4 + 20;
    if (at - l4 == 32 && o[2] == 5) {
        uint32_t edge[2];
        memcpy(edge, o + 4, 8);
        for (unsigned i = 0; i < 2; i++) {
            int32_t place = (int32_t)(rte_be_to_cpu_32(edge[i]) - e->isn - 1);
            if (place > (int32_t)e->nxt)
                failed(x, "selectively acknowledged, but never sent", (unsigned)place, e->nxt);
        }
    }
    if (from < -1 || from + (int)n > OUT) {
        failed(x, "bytes from nowhere", (unsigned)from, n);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        int32_t place = from + (int32_t)i;
        if (place < 0)
            continue;
        if (e->has[place] && (unsigned)place >= e->told && e->got[place] != frame[at + i])
            failed(x, "another byte for the same place", (unsigned)place, frame[at + i]);
        if (!e->has[place])
            e->got[place] = frame[at + i];
        e->has[place] = true;
        if ((unsigned)place >= e->got_end)
            e->got_end = (unsigned)place + 1;
    }
    if (h->tcp_flags & FIN) {
        if (e->fin >= 0 && e->fin != from + (int)n)
            failed(x, "another end of the stream", (unsigned)e->fin, (unsigned)from + n);
        e->fin = from + (int)n;
    }
    while (e->rcv < OUT && e->has[e->rcv])
        e->rcv++;
    if (e->fin >= 0 && e->rcv >= (unsigned)e->fin) {
        if (e->rcv > (unsigned)e->fin + 1)
            failed(x, "bytes behind the end", e->rcv, (unsigned)e->fin);
        e->rcv = (unsigned)e->fin + 1;
    }
    if (n > 0 || (h->tcp_flags & FIN))
        e->ack_due = true;
}

/* ---- the NF ---- */
static void give(struct flow *x, struct peer *e, const uint8_t *bytes, unsigned n)
{
    if (e->n_should + n > OUT - MSS) {
        failed(x, "the test's own room is too small", e->n_should, n);
        return;
    }
    memcpy(e->should + e->n_should, bytes, n);
    e->n_should += n;
}

static unsigned some_bytes(struct flow *x, uint8_t *bytes, unsigned most)
{
    unsigned n = rnd(x, most + 1);
    for (unsigned i = 0; i < n; i++)
        bytes[i] = (uint8_t)rnd(x, 256);
    return n;
}

static void inject(struct flow *x, struct nst_flow *f, enum nst_side side)
{
    uint8_t bytes[64];
    unsigned n = some_bytes(x, bytes, 40);

    if (n == 0 || x->end[side].n_should > OUT / 2)
        return;
    int rc = nst_flow_inject(f, side, bytes, n);
    if (rc < 0)
        failed(x, "nst_flow_inject", (unsigned)-rc, n);
    else
        give(x, &x->end[side], bytes, n);
    run.injected++;
}

static enum nst_verdict handler(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_endpoint ep;
    uint8_t bytes[STREAM], edited[STREAM + 2048], put_in[1024];
    unsigned n = 0, at = 0, n_edited = 0;
    struct nst_slice s;

    nst_flow_endpoint(f, NST_CLIENT, &ep);
    struct flow *x = &run.flow[ep.port - 1024];
    struct peer *e = &x->end[ev->side], *o = &x->end[!ev->side];
    uint64_t offset = nst_tcp_offset(f, ev->side);
    while (nst_flow_bytes(f, ev->side, &s) && n + s.len <= sizeof bytes) {
        memcpy(bytes + n, s.p, s.len);
        n += (unsigned)s.len;
    }
    if (offset != e->taken)
        failed(x, "DATA at another offset", (unsigned)offset, e->taken);
    else if (offset + n > o->len || memcmp(bytes, o->stream + offset, n) != 0)
        failed(x, "DATA with other bytes", (unsigned)offset, n);
    if (x->failed)
        return NST_FORWARD;
    if (one_in(x, x->edits * 4))
        inject(x, f, ev->side);
    bool forward = !one_in(x, x->refuses);
    for (unsigned k = one_in(x, x->edits) ? 1 + rnd(x, 3) : 0; k > 0; k--) {
        unsigned from = at + rnd(x, n - at + 1), remove = rnd(x, n - from + 1);
        if (one_in(x, 3))
            remove = remove > 3 ? 3 : remove;
        unsigned len = some_bytes(x, put_in, e->n_should > OUT / 2 ? 2 : one_in(x, 10) ? 1000 : 20);
        if (n_edited + len + n > sizeof edited)
            break;
        int rc = nst_flow_replace(f, ev->side, offset + from, remove, put_in, len);
        if (rc < 0) {
            failed(x, "nst_flow_replace", (unsigned)-rc, from);
            return NST_FORWARD;
        }
        if (run.tell)
            fprintf(stderr, "edit of what the %s receives at %u: -%u +%u\n", ev->side == 0 ? "client" : "server",
                    (unsigned)offset + from, remove, len);
        memcpy(edited + n_edited, bytes + at, from - at);
        n_edited += from - at;
        memcpy(edited + n_edited, put_in, len);
        n_edited += len;
        at = from + remove;
        run.edits++;
    }
    memcpy(edited + n_edited, bytes + at, n - at);
    n_edited += n - at;
    if (run.tell)
        fprintf(stderr, "DATA for the %s %u..%u: %s\n", ev->side == 0 ? "client" : "server", (unsigned)offset,
                (unsigned)offset + n, forward ? "forwarded" : "dropped");
    if (!forward) {
        run.drops++;
        return NST_DROP;
    }
    give(x, e, edited, n_edited);
    e->taken += n;
    if (one_in(x, 200)) {
        e->free = true;
        return NST_FORWARD_FLOW;
    }
    return NST_FORWARD;
}

/* ---- rounds ---- */
static void begin(struct flow *x)
{
    unsigned i = (unsigned)(x - run.flow);
    uint8_t frame[LAB_FRAME];

    x->rnd = mix(run.seed + mix(i));
    x->lose = one_in(x, 3) ? 0 : 4 + rnd(x, 30);
    x->edits = 1 + rnd(x, 8);
    x->refuses = one_in(x, 2) ? 0 : 4 + rnd(x, 10);
    for (unsigned dir = 0; dir < 2; dir++) {
        struct peer *e = &x->end[dir];
        e->isn = one_in(x, 3) ? 0u - rnd(x, 1000) : rnd(x, UINT32_MAX);
        e->len = one_in(x, 4) ? rnd(x, 4) : rnd(x, one_in(x, 2) ? STREAM : 300);
        e->fin = -1;
        for (unsigned k = 0; k < e->len; k++)
            e->stream[k] = (uint8_t)rnd(x, 256);
    }
    x->end[0].peer_isn = x->end[1].isn;
    x->end[1].peer_isn = x->end[0].isn;
    lab_send(C2S, frame, write_segment(x, C2S, SYN, 0, 0, frame));
    lab_send(S2C, frame, write_segment(x, S2C, SYN | ACK, 0, 0, frame));
    lab_send(C2S, frame, write_segment(x, C2S, ACK, 0, 0, frame));
}

static bool is_done(const struct flow *x)
{
    return x->failed || x->left_out ||
           (x->end[0].una == x->end[0].len + 1 && x->end[1].una == x->end[1].len + 1 && x->end[0].fin >= 0 &&
            x->end[1].fin >= 0 && x->end[0].rcv == (unsigned)x->end[0].fin + 1 &&
            x->end[1].rcv == (unsigned)x->end[1].fin + 1);
}

/* Some of what is on its way arrives; the rest stays for later. */
static void carry(struct flow *x, struct link *l, unsigned dir, bool to_engine)
{
    unsigned n = one_in(x, 3) ? rnd(x, l->n + 1) : l->n;

    for (unsigned i = 0; i < n; i++) {
        struct frame *f = l->at[i];
        if (to_engine) {
            tell(x, "sent", f->bytes, f->len);
            note_told(x, dir, f->bytes);
            lab_send(dir, f->bytes, f->len);
        } else {
            end_receives(x, dir, f->bytes, f->len);
        }
        free(f);
    }
    l->n -= n;
    memmove(l->at, l->at + n, l->n * sizeof *l->at);
}

static void look_at_output(void)
{
    for (unsigned i = 0; i < lab.n_out; i++) {
        const struct lab_out *o = &lab.out[i];
        if (o->tcp == NULL)
            continue;
        unsigned dir = o->port == 1 ? C2S : S2C;
        unsigned port = rte_be_to_cpu_16(dir == C2S ? o->tcp->src_port : o->tcp->dst_port);
        if (port < 1024 || port >= 1024 + run.n)
            continue;
        struct flow *x = &run.flow[port - 1024];
        tell(x, "leaves", o->frame, o->len);
        if (o->len > sizeof(struct frame) - 2)
            failed(x, "too large", o->len, 0);
        else
            put(x, &x->end[!dir].in, o->frame, o->len);
    }
    lab_clear();
}

static uint64_t progress(void)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < run.n; i++) {
        for (unsigned dir = 0; dir < 2; dir++)
            n += run.flow[i].end[dir].una + run.flow[i].end[dir].rcv;
    }
    return n;
}

static void compare(struct flow *x)
{
    for (unsigned side = 0; side < 2 && !x->failed; side++) {
        struct peer *e = &x->end[side], *o = &x->end[!side];
        if (e->taken < o->len && e->free)
            give(x, e, o->stream + e->taken, o->len - e->taken);
        else if (e->taken != o->len)
            failed(x, "not all bytes were seen by the handler", e->taken, o->len);
        unsigned n = e->n_should < (unsigned)e->fin ? e->n_should : (unsigned)e->fin;
        for (unsigned i = 0; i < n && !x->failed; i++) {
            if (e->got[i] != e->should[i])
                failed(x, "received another byte than was edited", i, e->got[i]);
        }
        if (e->n_should != (unsigned)e->fin)
            failed(x, "received another number of bytes", (unsigned)e->fin, e->n_should);
    }
}

static void body(void)
{
    uint64_t before = 0;

    for (unsigned i = 0; i < run.n; i++) {
        if (!run.flow[i].left_out)
            begin(&run.flow[i]);
    }
    lab_settle();
    lab_clear();
    for (unsigned round = 0, same = 0; round < ROUNDS; round++) {
        unsigned left = 0;
        for (unsigned i = 0; i < run.n; i++) {
            struct flow *x = &run.flow[i];
            if (is_done(x))
                continue;
            left++;
            for (unsigned dir = 0; dir < 2; dir++) {
                end_sends(x, dir);
                carry(x, &x->end[dir].out, dir, true);
            }
        }
        if (left == 0)
            break;
        lab_settle();
        look_at_output();
        for (unsigned i = 0; i < run.n; i++) {
            for (unsigned dir = 0; dir < 2; dir++)
                carry(&run.flow[i], &run.flow[i].end[!dir].in, dir, false);
        }
        same = progress() == before ? same + 1 : 0;
        before = progress();
        if (same > 20) { /* what the engine has put in itself was lost, and comes again by its own clock */
            for (unsigned i = 0; i < run.n; i++)
                run.flow[i].lose = 0; /* each time later, so the lines had better be good from now on */
            check_eq(nst_sleep(nst_now() + NST_MS(300)), 0);
            same = 0;
            if (run.idle++ > 40)
                break;
        }
    }
    for (unsigned i = 0; i < run.n; i++) {
        struct flow *x = &run.flow[i];
        if (!is_done(x)) {
            for (unsigned side = 0; side < 2; side++)
                fprintf(stderr, "  end %u: sent %u of %u, acknowledged %u; has %u of %d, should have %u\n", side,
                        x->end[side].nxt, x->end[side].len + 1, x->end[side].una, x->end[side].rcv,
                        x->end[side].fin + 1, x->end[side].n_should);
            failed(x, "does not come to its end", x->end[0].una, x->end[1].una);
        }
        if (!x->left_out)
            compare(x);
    }
}

/* Flows [first, first + n) of this seed; the first that fails, or UINT_MAX. One alone is told segment by segment. */
static unsigned run_flows(uint64_t seed, unsigned first, unsigned n)
{
    unsigned bad = UINT_MAX;

    run.seed = seed;
    run.n = first + n;
    run.tell = n == 1;
    run.idle = 0;
    run.flow = calloc(run.n, sizeof *run.flow);
    assert_non_null(run.flow);
    for (unsigned i = 0; i < first; i++)
        run.flow[i].left_out = true;
    nf = (struct nst_nf){
        .name = "editor",
        .proto = IPPROTO_TCP,
        .half = { { .inspect = &nst_tcp, .on_received = NST_EV_DATA, .handler = handler, .edits = true },
                  { .inspect = &nst_tcp, .on_received = NST_EV_DATA, .handler = handler, .edits = true } },
    };
    config = (struct nst_engine_config){ .nf = &nf, .flows = 1024 };
    lab_run(&config, body);
    for (unsigned i = 0; i < run.n; i++) {
        if (run.flow[i].failed && bad == UINT_MAX)
            bad = i;
        for (unsigned dir = 0; dir < 2; dir++) {
            for (struct link *l = &run.flow[i].end[dir].out; l <= &run.flow[i].end[dir].in; l++) {
                while (l->n > 0)
                    free(l->at[--l->n]);
            }
        }
    }
    free(run.flow);
    run.flow = NULL;
    return bad;
}

static void edited_streams(void **state)
{
    const char *given = getenv("NST_SEQUENCES");
    unsigned n = given != NULL ? (unsigned)strtoul(given, NULL, 0) / 500 : 2000;
    uint64_t seed = lab_seed();

    print_message("seed %llu\n", (unsigned long long)seed);
    for (unsigned done = 0; done < n; done += FLOWS, seed++) {
        unsigned bad = run_flows(seed, 0, FLOWS);
        if (bad != UINT_MAX) {
            fprintf(stderr, "NST_SEED=%llu, flow %u; alone:\n", (unsigned long long)seed, bad);
            run_flows(seed, bad, 1);
        }
        assert_int_equal(bad, UINT_MAX);
    }
    print_message("%llu edits, %llu injections, %llu drops, %llu packets lost\n", (unsigned long long)run.edits,
                  (unsigned long long)run.injected, (unsigned long long)run.drops, (unsigned long long)run.lost);
    assert_true(run.edits > n && run.injected > n / 4 && run.drops > n / 4 && run.lost > n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edited_streams),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
