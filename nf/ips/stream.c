/* SPDX-License-Identifier: Apache-2.0 */
/* stream.c - one direction of a flow during one event: from its record in the store to a verdict and the next record.
 */
#include "ips.h"
#include <netstar/task.h>
#include <netstar/tcp.h>
#include <stdlib.h>
#include <string.h>

enum { TCP_SYN = 0x02, TCP_ACK = 0x10 };

/* A packet further than this from where a record says that the stream stands is of another connection, whose record
 * was left behind under the same addresses and ports. */
enum { FAR = 64 << 20 };

/* ---- names and records ---- */
static void open_side(struct ips_stream *s, struct nst_flow *f, enum nst_side side, struct nst_packet *packet,
                      nst_events events)
{
    s->flow = f;
    s->packet = packet;
    s->side = side;
    s->events = events;
    s->known = s->bad = s->then.known = false;
    s->here = NULL;
    s->next = (struct nst_slice){ 0 };
    s->verdict = NST_FORWARD;
    s->found.n = s->found.skipped = 0;
    s->found.to = side == NST_SERVER ? IPS_TO_SERVER : IPS_TO_CLIENT;
    memcpy(s->name, "ips:", 4);
    s->key = (struct nst_slice){ s->name, 4 + nst_flow_key(f, side, s->name + 4) };
}

void ips_stream_open(struct ips_stream *s, struct nst_flow *f, const struct nst_event *ev)
{
    open_side(s, f, ev->side, ev->packet, ev->what);
}

void ips_stream_opposite(struct ips_stream *other, const struct ips_stream *s)
{
    open_side(other, s->flow, s->side == NST_SERVER ? NST_CLIENT : NST_SERVER, s->packet, 0);
}

int ips_understand(struct ips *ips, struct ips_stream *s, const void *record, int rc)
{
    if (rc == -ENOENT)
        return 0;
    if (rc < 0)
        return rc;
    s->known = ips_state_decode(&s->state, record, (size_t)rc) == 0;
    s->bad = !s->known;
    ips->count.bad_records += s->bad;
    return 0;
}

void ips_forgotten(struct ips *ips, int rc)
{
    ips->count.not_forgotten += rc < 0 && rc != -ENOENT;
}

/* ---- what a segment says ---- */
static uint32_t be32_at(const struct nst_packet *p, size_t off)
{
    const uint8_t *b = nst_packet_bytes(p, off, 4);
    return b ? (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3] : 0;
}

static uint32_t first_seq(const struct nst_packet *p)
{
    const struct nst_headers *h = nst_packet_headers(p);
    return be32_at(p, h->l4 + 4) + !!(h->tcp_flags & TCP_SYN);
}

static bool acknowledges(const struct nst_packet *p, uint32_t *ack)
{
    const struct nst_headers *h = nst_packet_headers(p);
    *ack = be32_at(p, h->l4 + 8);
    return h->tcp_flags & TCP_ACK;
}

static bool near(uint32_t seq, uint32_t point)
{
    return (uint32_t)(seq - point + FAR) < 2 * (uint32_t)FAR;
}

/* ---- taking over ---- */

/* The packet after which the record was written may have left or not. If this one is its retransmission, that is if
 * it brings everything between the two points again, it is scanned again; otherwise the stream goes on at the current
 * point: starting before bytes that nobody will send again would leave a hole for ever. */
static const struct ips_point *point_for(const struct ips_state *st, const struct nst_packet *p)
{
    uint32_t begin = first_seq(p), end = begin + nst_packet_headers(p)->payload_len;
    bool again = (int32_t)(begin - st->previous.seq) <= 0 && (int32_t)(end - st->current.seq) >= 0;
    return again ? &st->previous : &st->current;
}

int ips_take_over(struct ips *ips, struct ips_stream *s, const struct ips_stream *other)
{
    /* A flow is blocked in both directions when the record of either says so. */
    if ((s->known && s->state.rule) || (other->known && other->state.rule)) {
        ips->count.blocked_before++;
        s->verdict = NST_DROP_FLOW;
        return 0;
    }
    uint32_t seq = first_seq(s->packet);
    if (s->known && near(seq, s->state.current.seq)) {
        const struct ips_point *at = point_for(&s->state, s->packet);
        s->events = nst_tcp_resume(s->flow, s->side, at->seq, at->offset);
        ips->count.resumed++;
    } else if (!s->known && !s->bad && other->known && other->state.has_ack && near(seq, other->state.ack)) {
        /* Another instance follows the flow, but this end has received nothing yet: it begins where the senders of
         * the other direction say that they stand. */
        s->events = nst_tcp_resume(s->flow, s->side, other->state.ack, 0);
        s->found.to = other->state.to_client ? IPS_TO_SERVER : IPS_TO_CLIENT;
        ips->count.resumed++;
    } else if (ips->pickup) {
        s->events = nst_tcp_pickup(s->flow, s->side);
        ips->count.picked_up++;
    } else {
        return -ESRCH;
    }
    return 0;
}

/* ---- scanning ---- */
struct scan {
    struct ips *ips;
    struct ips_stream *s;
    struct nst_slice from; /* the automaton to begin with */
    uint64_t bytes;
    int rc; /* the length of what has become of it, or an error */
    uint8_t automaton[IPS_AUTOMATON_MAX];
};

static void scan_on_core_stack(void *arg)
{
    struct scan *scan = arg;
    struct ips_scanner *sc = scan->ips->scanner;
    struct nst_slice piece;
    scan->rc = ips_scan_begin(sc, scan->from.p, scan->from.len);
    while (scan->rc == 0 && nst_flow_bytes(scan->s->flow, scan->s->side, &piece)) {
        scan->rc = ips_scan_bytes(sc, piece.p, piece.len, &scan->s->found);
        scan->bytes += piece.len;
    }
    if (scan->rc == 0)
        scan->rc = ips_scan_end(sc, scan->automaton, scan->ips->config->room);
}

static int by_end(const void *p, const void *q)
{
    const struct ips_match *a = p, *b = q;
    if (a->end != b->end)
        return a->end < b->end ? -1 : 1;
    return a->rule->id < b->rule->id ? -1 : a->rule->id > b->rule->id;
}

/* The rule that stops the flow: the first of those that do most. NULL: none. */
static const struct ips_rule *judge(struct ips_stream *s)
{
    const struct ips_rule *worst = NULL;
    qsort(s->found.at, s->found.n, sizeof s->found.at[0], by_end);
    for (unsigned i = 0; i < s->found.n; i++)
        if (s->found.at[i].rule->action > (worst ? worst->action : IPS_ALERT))
            worst = s->found.at[i].rule;
    return worst;
}

static void set_next(struct ips *ips, struct ips_stream *s, const struct ips_state *next)
{
    s->next = (struct nst_slice){ ips->record, ips_state_encode(next, ips->record) };
    ips->count.states++;
    ips->count.state_bytes += s->next.len;
    if (s->next.len > ips->count.state_peak)
        ips->count.state_peak = s->next.len;
}

/* Where this instance stands, if the half stands there, too. */
static bool here(const struct ips_stream *s, uint64_t rules, uint32_t seq, uint64_t offset)
{
    const struct ips_place *h = s->here;
    return h && h->known && h->rules == rules && h->seq == seq && h->offset == offset && offset > 0;
}

static void as_point(const struct ips_place *h, struct ips_point *out)
{
    *out = (struct ips_point){ h->seq, h->offset, { h->automaton, h->len } };
}

/* The packet is one more time on its way. The first time it may have been dropped because its state could not be written,
 * so it leaves behind that state, as every packet. */
static void write_again(struct ips *ips, struct ips_stream *s, uint64_t fingerprint)
{
    uint32_t seq = nst_tcp_seq(s->flow, s->side);
    if (!(s->events & NST_EV_RETRANSMIT) || !here(s, fingerprint, seq, nst_tcp_offset(s->flow, s->side)) ||
        (s->known && s->state.current.seq == seq && !s->state.rule))
        return;
    if (s->known && s->state.rule) {
        s->verdict = NST_DROP_FLOW;
        return;
    }
    struct ips_state next = { .rules = fingerprint, .base = s->here->base, .to_client = s->here->to_client };
    as_point(s->here, &next.current);
    next.previous = next.current;
    if (s->known && s->state.rules == fingerprint && s->state.base == next.base &&
        s->state.current.offset < next.current.offset)
        next.previous = s->state.current;
    next.has_ack = acknowledges(s->packet, &next.ack);
    set_next(ips, s, &next);
    s->then = *s->here;
}

int ips_scan(struct ips *ips, struct ips_stream *s)
{
    uint64_t fingerprint = ips_scanner_fingerprint(ips->scanner);
    if (s->verdict != NST_FORWARD)
        return 0;
    if (!(s->events & NST_EV_DATA)) {
        write_again(ips, s, fingerprint);
        return 0;
    }

    uint64_t offset = nst_tcp_offset(s->flow, s->side);
    uint32_t seq = nst_tcp_seq(s->flow, s->side);
    const struct ips_point *at = s->known ? ips_state_at(&s->state, seq) : NULL;
    if (at && at->offset == 0 && offset == 0)
        at = NULL; /* the beginning of a connection needs no record, and one from before may bear the same numbers */
    struct ips_state next = { .rules = fingerprint, .base = offset, .previous = { .seq = seq, .offset = offset } };

    if (s->known && s->state.rule && (at || offset > 0)) {
        s->verdict = NST_DROP_FLOW;
        return 0;
    }
    if (at) /* who began the connection was seen then, and may have been guessed now */
        s->found.to = s->state.to_client ? IPS_TO_CLIENT : IPS_TO_SERVER;
    if (at && s->state.rules == fingerprint) {
        next.base = s->state.base;
        next.previous = *at;
    } else if (here(s, fingerprint, seq, offset)) { /* further than what was acknowledged */
        s->found.to = s->here->to_client ? IPS_TO_CLIENT : IPS_TO_SERVER;
        next.base = s->here->base;
        as_point(s->here, &next.previous);
    } else if (at) {
        next.base = next.previous.offset = at->offset;
        ips->count.restarted++;
    } else if (offset > 0) { /* at 0 a record is of an older connection */
        if (!ips->pickup)
            return -ESRCH;
        ips->count.picked_up++;
    }

    struct scan scan = { .ips = ips, .s = s, .from = next.previous.automaton };
    nst_on_core_stack(scan_on_core_stack, &scan);
    ips->count.bytes += scan.bytes;
    if (scan.rc < 0 || scan.bytes == 0)
        return scan.rc < 0 ? scan.rc : 0;

    for (unsigned i = 0; i < s->found.n; i++)
        s->found.at[i].end += next.base;
    const struct ips_rule *blocker = judge(s);
    if (blocker) {
        s->verdict = blocker->action == IPS_RESET ? NST_RESET_FLOW : NST_DROP_FLOW;
        next.rule = blocker->id;
        ips->count.blocked++;
    }
    next.to_client = s->found.to == IPS_TO_CLIENT;
    next.has_ack = acknowledges(s->packet, &next.ack);
    next.current.seq = seq + (uint32_t)scan.bytes;
    next.current.offset = next.previous.offset + scan.bytes;
    next.current.automaton = (struct nst_slice){ scan.automaton, (size_t)scan.rc };
    set_next(ips, s, &next);
    if (s->here && next.current.automaton.len <= IPS_PLACE_AUTOMATON) {
        s->then = (struct ips_place){
            .rules = fingerprint,
            .base = next.base,
            .offset = next.current.offset,
            .seq = next.current.seq,
            .len = (uint16_t)next.current.automaton.len,
            .known = true,
            .to_client = next.to_client,
        };
        memcpy(s->then.automaton, next.current.automaton.p, next.current.automaton.len);
    }
    return 0;
}

void ips_alert(struct ips *ips, const struct ips_stream *s)
{
    enum nst_side to = s->found.to == IPS_TO_CLIENT ? NST_CLIENT : NST_SERVER;
    struct ips_alert alert = { .to = to, .vlan = nst_flow_vlan(s->flow) };
    if (s->found.n == 0)
        return;
    alert.time = nst_packet_time(s->packet);
    alert.packet = nst_packet_number(s->packet);
    nst_flow_endpoint(s->flow, s->side == NST_SERVER ? NST_CLIENT : NST_SERVER, &alert.src);
    nst_flow_endpoint(s->flow, s->side, &alert.dst);
    for (unsigned i = 0; i < s->found.n; i++) {
        alert.rule = s->found.at[i].rule;
        alert.offset = s->found.at[i].end;
        ips->count.alerts[alert.rule->action]++;
        ips_alerts_add(ips->alerts, &alert);
    }
    ips->count.matches_skipped += s->found.skipped;
}
