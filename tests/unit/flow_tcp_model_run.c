/* SPDX-License-Identifier: Apache-2.0 */
/* Runs sequences through an engine, many flows at a time, and compares with the model. Each sequence has a tuple of its
 * own; its number is in the addresses, and the segment's in the IP header's identification (IPv6: the flow label).
 */
#include "flow_tcp_model.h"
#include <netinet/in.h>
#include <rte_ip.h>
#include <stdlib.h>

enum {
    AT_ONCE = 64, /* sequences that are interleaved */
    FRAME = MODEL_SPAN + 128,
    CLIENT_NET = 0x80,
    SERVER_NET = 0xc0, /* second byte of the address; the lowest bits are the network */
};

struct model_seen model_seen;

static struct {
    const struct model_setting *set;
    unsigned n;
    model_source *source;
    const void *arg;
    uint64_t rnd;
    struct model_verdict *verdict;

    unsigned first, together; /* the sequences at hand */
    struct model_sequence sequence[AT_ONCE];
    struct model_result expected[AT_ONCE], is[AT_ONCE];
    struct model_counts counts;
    struct nst_engine_stats before;
    uint8_t *frame[AT_ONCE][MODEL_SEGMENTS];
    unsigned frame_len[AT_ONCE][MODEL_SEGMENTS];
    uint8_t *frames;

    struct closes {
        struct model_close expected[MODEL_FLOWS], is[MODEL_FLOWS];
        uint8_t n_expected, n_is[2];
    } * closes;
    unsigned resets_out;
    const char *stray; /* something that no packet can be named for */
} run;

static struct nst_nf nf;
static struct nst_overlap_net net[4 * MODEL_NETWORKS];
static struct nst_engine_config config;

/* ---- frames ---- */
static struct lab_path path_of(unsigned number, const struct model_sequence *q)
{
    struct lab_path p = { .family = q->family, .proto = IPPROTO_TCP, .port = { q->port[0], q->port[1] } };

    p.host[0] = (uint32_t)(CLIENT_NET | q->network[0]) << 16 | number;
    p.host[1] = (uint32_t)(SERVER_NET | q->network[1]) << 16 | number;
    return p;
}

static unsigned write_options(uint8_t *o, const struct model_segment *s)
{
    unsigned n = 0;

    if (s->scale != 0xff) {
        memcpy(o + n, (uint8_t[]){ 1, 3, 3, s->scale }, 4);
        n += 4;
    }
    if (s->selective != 0) {
        memcpy(o + n, (uint8_t[]){ 1, 1, 5, (uint8_t)(2 + 8 * s->selective) }, 4);
        n += 4;
        for (uint32_t i = 0; i < 2u * s->selective; i++, n += 4) {
            uint32_t edge = rte_cpu_to_be_32(s->ack + 1 + i);
            memcpy(o + n, &edge, 4);
        }
    }
    if (s->stamped) {
        uint32_t stamp = rte_cpu_to_be_32(s->stamp), echo = rte_cpu_to_be_32(s->echo);
        memcpy(o + n, (uint8_t[]){ 1, 1, 8, 10 }, 4);
        memcpy(o + n + 4, &stamp, 4);
        memcpy(o + n + 8, &echo, 4);
        n += 12;
    }
    return n;
}

static unsigned write_frame(uint8_t *frame, const struct lab_path *p, const struct model_segment *s, unsigned i,
                            const uint8_t *payload)
{
    uint8_t options[40];
    unsigned n = write_options(options, s);
    unsigned at = lab_ip_header(frame, p, s->dir, IPPROTO_TCP, (unsigned)sizeof(struct rte_tcp_hdr) + n + s->len);
    struct rte_tcp_hdr h = {
        .src_port = rte_cpu_to_be_16(p->port[s->dir]),
        .dst_port = rte_cpu_to_be_16(p->port[!s->dir]),
        .sent_seq = rte_cpu_to_be_32(s->seq),
        .recv_ack = rte_cpu_to_be_32(s->ack),
        .data_off = (uint8_t)((5 + n / 4) << 4),
        .tcp_flags = s->flags,
        .rx_win = rte_cpu_to_be_16(s->window),
        .tcp_urp = rte_cpu_to_be_16(s->urgent),
    };

    if (p->family == 4) {
        struct rte_ipv4_hdr *ip = (void *)(frame + 14);
        ip->packet_id = rte_cpu_to_be_16((uint16_t)(i + 1));
        ip->hdr_checksum = 0;
        ip->hdr_checksum = rte_ipv4_cksum(ip);
    } else {
        struct rte_ipv6_hdr *ip = (void *)(frame + 14);
        ip->vtc_flow |= rte_cpu_to_be_32(i + 1);
    }
    memcpy(frame + at, &h, sizeof h);
    memcpy(frame + at + sizeof h, options, n);
    memcpy(frame + at + sizeof h + n, payload, s->len);
    lab_checksum(frame, 0, p->family, IPPROTO_TCP);
    return at + (unsigned)sizeof h + n + s->len;
}

/* Which sequence and segment an IP packet is of. False: of none that was sent. */
static bool find(const uint8_t *ip, unsigned *slot, unsigned *segment)
{
    bool v4 = ip[0] >> 4 == 4;
    const uint8_t *from = v4 ? ip + 12 : ip + 8 + 12, *to = v4 ? ip + 16 : ip + 24 + 12;
    const uint8_t *client = (from[1] & 0xc0) == CLIENT_NET ? from : to;
    unsigned number = (unsigned)client[2] << 8 | client[3];
    unsigned id = v4 ? (unsigned)ip[4] << 8 | ip[5] : ((unsigned)ip[1] & 15) << 16 | (unsigned)ip[2] << 8 | ip[3];

    *slot = number - run.first;
    *segment = id - 1;
    return *slot < run.together && *segment < run.sequence[*slot].n;
}

/* ---- the NF ---- */
static void note_close(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_endpoint ep;

    nst_flow_endpoint(f, NST_CLIENT, &ep);
    unsigned at = ep.family == 4 ? 0 : 12, number = (unsigned)ep.addr[at + 2] << 8 | ep.addr[at + 3];
    if (number >= run.n || ev->packet != NULL) {
        run.stray = "a CLOSE of no flow";
        return;
    }
    struct closes *c = &run.closes[number];
    unsigned n = c->n_is[ev->side]++;
    if (n < MODEL_FLOWS) {
        c->is[n].calls[ev->side]++;
        c->is[n].why = (uint8_t)ev->why;
    }
}

static enum nst_verdict model_handler(struct nst_flow *f, const struct nst_event *ev)
{
    unsigned slot, segment;
    nst_events what = ev->what;
    struct nst_slice s;

    if (what & NST_EV_CLOSE) {
        note_close(f, ev);
        return NST_FORWARD;
    }
    const struct nst_headers *h = nst_packet_headers(ev->packet);
    const uint8_t *ip = nst_packet_bytes(ev->packet, h->l3, h->family == 4 ? 20 : 40);
    if (ip == NULL || !find(ip, &slot, &segment)) {
        run.stray = "an event of a packet that was not sent";
        return NST_FORWARD;
    }
    const struct model_segment *seg = &run.sequence[slot].seg[segment];
    struct model_result *r = &run.is[slot];
    struct model_call *c = &r->step[segment].call[ev->dir];
    if (c->what != 0)
        run.stray = "a second event for a packet at one half";
    if (what & NST_EV_MIDSTREAM) {
        if (seg->begin == MODEL_PICKUP)
            what |= nst_tcp_pickup(f, ev->side);
        else if (seg->begin == MODEL_RESUME)
            what |= nst_tcp_resume(f, ev->side, seg->begin_seq, seg->begin_offset);
    }
    c->what = what;
    c->side = (uint8_t)ev->side;
    c->bytes = r->n_bytes;
    c->state = (uint8_t)nst_tcp_state(f, ev->side);
    c->error = (uint8_t)nst_tcp_error(f, ev->side);
    c->offset = nst_tcp_offset(f, ev->side);
    c->seq = nst_tcp_seq(f, ev->side);
    if (what & NST_EV_DATA) {
        while (nst_flow_bytes(f, ev->side, &s)) {
            unsigned n = s.len < MODEL_BYTES - r->n_bytes ? (unsigned)s.len : MODEL_BYTES - r->n_bytes;
            memcpy(r->bytes + r->n_bytes, s.p, n);
            r->n_bytes += n;
            c->len += (uint32_t)s.len;
        }
    }
    enum nst_verdict v = (enum nst_verdict)seg->verdict[ev->dir];
    if (v == NST_TAKEN) {
        struct nst_packet *p = nst_take(ev);
        nst_packet_send(p, nst_packet_port(p) ^ 1);
    }
    return v;
}

/* The network of the addresses that path_of() makes, of both families. */
static void set_network(struct nst_overlap_net *to, unsigned number, enum nst_overlap policy)
{
    to[0] = (struct nst_overlap_net){ .family = 4, .bits = 16, .addr = { 10, (uint8_t)number }, .policy = policy };
    to[1] = (struct nst_overlap_net){
        .family = 6, .bits = 112, .addr = { 0x20, 0x01, 0x0d, 0xb8, [13] = (uint8_t)number }, .policy = policy
    };
}

static void set_up(const struct model_setting *s, unsigned flows)
{
    nf = (struct nst_nf){
        .name = "model",
        .proto = IPPROTO_TCP,
        .policy = { .on_midstream = (enum nst_verdict)s->on_midstream,
                    .on_conflict = (enum nst_verdict)s->on_conflict,
                    .on_no_memory = (enum nst_verdict)s->on_no_memory,
                    .on_window = (enum nst_verdict)s->on_window,
                    .on_stale = (enum nst_verdict)s->on_stale,
                    .on_bad_ack = (enum nst_verdict)s->on_bad_ack,
                    .urgent = s->urgent,
                    .normalise = s->normalise },
    };
    for (unsigned side = 0; side < 2; side++) {
        nf.half[side] = (struct nst_half){ .inspect = s->inspect[side] ? &nst_tcp : NULL,
                                           .on_sent = s->on_sent[side],
                                           .on_received = s->on_received[side] };
        if (s->on_sent[side] | s->on_received[side])
            nf.half[side].handler = model_handler;
    }
    for (unsigned i = 0; i < MODEL_NETWORKS; i++) {
        set_network(&net[4 * i], CLIENT_NET | i, s->overlap[i]);
        set_network(&net[4 * i + 2], SERVER_NET | i, s->overlap[i]);
    }
    config = (struct nst_engine_config){ .nf = &nf,
                                         .flows = flows * 2,
                                         .stream_per_end = s->per_end,
                                         .stream_memory = 64 << 20,
                                         .overlap_nets = net,
                                         .n_overlap_nets = sizeof net / sizeof *net };
}

/* ---- together ---- */
/* The segment as it should leave. */
static bool left_right(unsigned slot, unsigned segment, const struct lab_out *o)
{
    const struct model_sequence *q = &run.sequence[slot];
    const struct model_step *x = &run.expected[slot].step[segment];
    uint8_t frame[FRAME];

    if (!x->changed)
        return o->len == run.frame_len[slot][segment] && memcmp(o->frame, run.frame[slot][segment], o->len) == 0;
    struct lab_path p = path_of(run.first + slot, q);
    struct model_segment s = q->seg[segment];
    s.flags = x->flags;
    s.urgent = x->urgent;
    s.len = x->len;
    unsigned len = write_frame(frame, &p, &s, segment, run.expected[slot].left + x->bytes);
    return o->len == len && memcmp(o->frame, frame, len) == 0;
}

/* In turns, some segments of each sequence, so that bursts are full of different flows. */
static void send_all(void)
{
    unsigned next[AT_ONCE] = { 0 };
    bool more = true;

    while (more) {
        more = false;
        for (unsigned port = 0; port < 2; port++) {
            for (unsigned i = 0; i < run.together; i++) {
                const struct model_sequence *q = &run.sequence[i];
                unsigned most = lab_random(&run.rnd, 4) == 0 ? 4 : 1;
                for (; most > 0 && next[i] < q->n; most--, next[i]++) {
                    const struct model_segment *s = &q->seg[next[i]];
                    if ((s->dir ^ s->other_side) != port)
                        break;
                    lab.pieces = s->pieces;
                    lab.time += 1000;
                    lab_send(port, run.frame[i][next[i]], run.frame_len[i][next[i]]);
                }
                more = more || next[i] < q->n;
            }
        }
    }
    lab.pieces = 1;
    lab_settle();
}

static void look_at_output(void)
{
    for (unsigned i = 0; i < lab.n_out; i++) {
        const struct lab_out *o = &lab.out[i];
        unsigned slot, segment;
        bool found = o->tcp != NULL && find(o->frame + 14, &slot, &segment);
        bool reset = o->tcp != NULL && (o->tcp->tcp_flags & RST);
        if (reset && (!found || (run.sequence[slot].seg[segment].flags & RST) == 0)) {
            run.resets_out++; /* the engine's own; over IPv6 it has the label of the packet that it is for */
            continue;
        }
        if (!found) {
            run.stray = "a packet left that was not sent";
            continue;
        }
        const struct model_segment *s = &run.sequence[slot].seg[segment];
        uint8_t *fate = &run.is[slot].step[segment].fate;
        if (*fate != MODEL_GONE)
            *fate = MODEL_LEFT_TWICE;
        else if (o->port != (unsigned)(s->dir ^ s->other_side ^ 1) || !left_right(slot, segment, o))
            *fate = MODEL_LEFT_CHANGED;
        else
            *fate = MODEL_LEFT;
    }
    lab_clear();
}

/* ---- comparison ---- */
static const char *names_of(nst_events what)
{
    static char text[2][200];
    static unsigned turn;
    char *t = text[turn ^= 1];
    int n = 0;

    t[0] = '\0';
    for (unsigned i = 0; i < 64; i++) {
        if (what >> i & 1)
            n += snprintf(t + n, 200 - (size_t)n, "%s%s", n > 0 ? "+" : "", model_event_name(i));
    }
    return n > 0 ? t : "nothing";
}

static bool same_call(const struct model_result *x, const struct model_call *a, const struct model_result *y,
                      const struct model_call *b)
{
    bool same_place = !a->placed || (a->offset == b->offset && a->seq == b->seq);
    bool same_state = a->state == b->state && a->error == b->error;
    return a->what == b->what && a->side == b->side && same_state && same_place && a->len == b->len &&
           memcmp(x->bytes + a->bytes, y->bytes + b->bytes, a->len) == 0;
}

static void tell_call(char *to, size_t size, const char *who, const struct model_result *r, const struct model_call *c)
{
    int n = snprintf(to, size, "    %s: %s at the %s's half, %s, %s, offset %llu, number %u, %u bytes:", who,
                     names_of(c->what), c->side == NST_CLIENT ? "client" : "server",
                     nst_tcp_state_name((enum nst_tcp_state)c->state), nst_tcp_error_name((enum nst_tcp_error)c->error),
                     (unsigned long long)c->offset, c->seq, c->len);
    for (unsigned i = 0; i < c->len && i < 40 && n + 4 < (int)size; i++)
        n += snprintf(to + n, size - (size_t)n, " %02x", r->bytes[c->bytes + i]);
    snprintf(to + n, size - (size_t)n, "\n");
}

static bool same_result(unsigned slot)
{
    const struct model_result *x = &run.expected[slot], *y = &run.is[slot];
    struct model_verdict *v = run.verdict;

    for (unsigned i = 0; i < run.sequence[slot].n; i++) {
        for (unsigned dir = 0; dir < 2; dir++) {
            const struct model_call *a = &x->step[i].call[dir], *b = &y->step[i].call[dir];
            if (same_call(x, a, y, b))
                continue;
            size_t n = (size_t)snprintf(v->text, sizeof v->text, "segment %u, as %s:\n", i + 1,
                                        dir == NST_SENT ? "sent" : "received");
            tell_call(v->text + n, sizeof v->text - n, "model ", x, a);
            n = strlen(v->text);
            tell_call(v->text + n, sizeof v->text - n, "engine", y, b);
            return false;
        }
        static const char *const fates[] = { "is gone", "left", "left twice", "left, but not as it should" };
        if (x->step[i].fate != y->step[i].fate) {
            snprintf(v->text, sizeof v->text, "segment %u: model: %s; engine: %s\n", i + 1, fates[x->step[i].fate],
                     fates[y->step[i].fate]);
            return false;
        }
    }
    return true;
}

static bool same_counts(void)
{
    struct nst_engine_stats s = lab_stats(), *b = &run.before;
    struct model_counts *c = &run.counts;
    char *t = run.verdict->text;
    size_t n = 0, size = sizeof run.verdict->text;
    bool same = true;

#define SAME(x)                                                                                                \
    do {                                                                                                       \
        if (c->x != s.x - b->x && n < size) {                                                                  \
            same = false;                                                                                      \
            n += (size_t)snprintf(t + n, size - n, #x ": model %llu, engine %llu\n", (unsigned long long)c->x, \
                                  (unsigned long long)(s.x - b->x));                                           \
        }                                                                                                      \
    } while (0)
    SAME(forwarded);
    SAME(sent_by_handler);
    SAME(injected);
    SAME(stream_bytes);
    SAME(conflicts);
    SAME(gaps);
    SAME(retransmits);
    SAME(unverified);
    SAME(unkept_bytes);
    SAME(lost_bytes);
    SAME(keep_alives);
    SAME(syns_ignored);
    SAME(resets_ignored);
    SAME(beyond_window);
    SAME(stale);
    SAME(bad_acks);
    SAME(urgent);
    SAME(selective);
    SAME(acks_ignored);
    SAME(normalised);
#undef SAME
    for (unsigned i = 0; i < NST_CAUSES; i++) {
        if (c->dropped[i] != s.dropped[i] - b->dropped[i] && n < size) {
            same = false;
            n +=
                (size_t)snprintf(t + n, size - n, "dropped, %s: model %llu, engine %llu\n", nst_cause_name(i),
                                 (unsigned long long)c->dropped[i], (unsigned long long)(s.dropped[i] - b->dropped[i]));
        }
    }
    run.before = s;
    return same;
}

static void blame(unsigned first, unsigned n)
{
    run.verdict->first = first;
    run.verdict->n = n;
}

static bool same_closes(void)
{
    for (unsigned i = 0; i < run.n; i++) {
        struct closes *c = &run.closes[i];
        for (unsigned k = 0; k < c->n_expected; k++) {
            struct model_close *x = &c->expected[k], *y = &c->is[k];
            bool any = x->calls[0] || x->calls[1];
            if (any)
                model_seen.closed[x->why]++;
            if (x->calls[0] == y->calls[0] && x->calls[1] == y->calls[1] && (!any || x->why == y->why))
                continue;
            snprintf(run.verdict->text, sizeof run.verdict->text,
                     "flow %u of the tuple, CLOSE: model: why %u, calls %u and %u; engine: why %u, calls %u and %u\n",
                     k + 1, x->why, x->calls[0], x->calls[1], y->why, y->calls[0], y->calls[1]);
            blame(i, 1);
            return false;
        }
        if (c->n_is[0] > c->n_expected || c->n_is[1] > c->n_expected) {
            snprintf(run.verdict->text, sizeof run.verdict->text, "more flows closed than %u\n", c->n_expected);
            blame(i, 1);
            return false;
        }
    }
    return true;
}

static void add_counts(void)
{
    uint64_t *to = (uint64_t *)&model_seen.counts, *from = (uint64_t *)&run.counts;

    for (unsigned i = 0; i < sizeof run.counts / sizeof *to; i++)
        to[i] += from[i];
    for (unsigned k = 0; k < run.together; k++) {
        model_seen.segments += run.sequence[k].n;
        for (unsigned i = 0; i < run.sequence[k].n; i++) {
            for (unsigned dir = 0; dir < 2; dir++) {
                nst_events what = run.is[k].step[i].call[dir].what;
                model_seen.calls += what != 0;
                for (; what != 0; what &= what - 1)
                    model_seen.event[__builtin_ctzll(what)]++;
            }
        }
    }
}

static bool run_together(void)
{
    uint8_t *at = run.frames;

    memset(&run.counts, 0, sizeof run.counts);
    for (unsigned i = 0; i < run.together; i++) {
        struct model_sequence *q = &run.sequence[i];
        struct closes *c = &run.closes[run.first + i];
        run.source(q, run.first + i, run.arg);
        model_expect(run.set, q, &run.expected[i], &run.counts);
        c->n_expected = (uint8_t)run.expected[i].flows;
        memcpy(c->expected, run.expected[i].closed, sizeof c->expected);
        memset(&run.is[i], 0, offsetof(struct model_result, bytes));
        struct lab_path p = path_of(run.first + i, q);
        for (unsigned k = 0; k < q->n; k++) {
            run.frame[i][k] = at;
            run.frame_len[i][k] = write_frame(at, &p, &q->seg[k], k, q->data + q->seg[k].data);
            at += run.frame_len[i][k];
        }
    }
    send_all();
    look_at_output();
    add_counts();
    for (unsigned i = 0; i < run.together; i++) {
        if (same_result(i))
            continue;
        blame(run.first + i, 1);
        return false;
    }
    if (run.stray != NULL)
        snprintf(run.verdict->text, sizeof run.verdict->text, "%s\n", run.stray);
    else if (run.resets_out != run.counts.injected)
        snprintf(run.verdict->text, sizeof run.verdict->text, "%llu resets should leave, %u did\n",
                 (unsigned long long)run.counts.injected, run.resets_out);
    else if (same_counts())
        return true;
    blame(run.first, run.together);
    return false;
}

static void body(void)
{
    bool same = true;

    run.before = lab_stats();
    for (run.first = 0; run.first < run.n && same; run.first += run.together) {
        run.together = run.n - run.first < AT_ONCE ? run.n - run.first : AT_ONCE;
        run.resets_out = 0;
        same = run_together();
        if (!same)
            return;
    }
    run.together = 0;
    check_eq(nst_engine_drain(lab.engine, nst_now() + NST_SEC(20)), 0);
    struct nst_engine_stats s = lab_stats();
    check_eq(s.stream_kept, 0);
    check_eq(s.flows, 0);
    check_eq(s.flows_opened, s.flows_closed);
    nst_engine_close(lab.engine);
    lab.drained = true;
    same_closes();
}

void model_run(const struct model_setting *s, unsigned n, model_source *source, const void *arg, uint64_t seed,
               struct model_verdict *out)
{
    run.set = s;
    run.n = n;
    run.source = source;
    run.arg = arg;
    run.rnd = model_mix(seed);
    run.verdict = out;
    run.stray = NULL;
    out->n = 0;
    out->text[0] = '\0';
    if (run.frames == NULL)
        run.frames = malloc((size_t)AT_ONCE * (MODEL_DATA + MODEL_SEGMENTS * 128));
    run.closes = calloc(n, sizeof *run.closes);
    assert_non_null(run.frames);
    assert_non_null(run.closes);
    set_up(s, n);
    (s->replay ? lab_replay : lab_run)(&config, body);
    free(run.closes);
}
