/* SPDX-License-Identifier: Apache-2.0 */
/* What the firewall knows of a connection: its record in the store, its opening, and what rules say of it. */
#include "firewall.h"
#include "words.h"
#include <stdlib.h>
#include <string.h>

enum { REASK_MS = 500, REFRESH_SHARE = 3, NEIGHBOUR_HOPS = 255 };

/* ---- records: version, flags, type of ICMP, a spare byte, who has met the connection last, rules, birth ---- */
enum { VERSION = 1, OPENER_IS_FIRST = 1, OUT = 2 };

struct record {
    uint8_t version, flags, type, spare;
    uint32_t instance;
    uint64_t rules, birth;
};
_Static_assert(sizeof(struct record) == FW_RECORD, "as it is in the store");

static bool read_record(const struct nst_object *o, struct record *r)
{
    if (o->len != sizeof *r)
        return false;
    memcpy(r, o->value, sizeof *r);
    return r->version == VERSION && (r->flags & ~(OPENER_IS_FIRST | OUT)) == 0 && r->spare == 0 && r->birth != 0;
}

bool fw_same(const struct fw_packet *p, const struct nst_object *record)
{
    struct record r;

    return record->there && read_record(record, &r) && r.birth == p->c->birth;
}

/* ---- the packet ---- */
/* The record's key is the name of one of the two streams: the same whichever end is taken for the client. */
static void set_key(struct fw_packet *p)
{
    uint8_t other[FW_KEY_MAX], *key = p->name_bytes + FW_PREFIX;
    size_t len = nst_flow_key(p->flow, NST_SERVER, key), n = nst_flow_key(p->flow, NST_CLIENT, other);

    p->turned = n == len && memcmp(other, key, len) < 0;
    if (p->turned)
        memcpy(key, other, len);
    memcpy(p->name_bytes, FW_NAME, FW_PREFIX);
    p->name = (struct nst_slice){ p->name_bytes, FW_PREFIX + len };
    p->key = (struct nst_slice){ key, len };
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool is_icmp(const struct nst_headers *h)
{
    return h->proto == (h->family == 4 ? FW_ICMP : FW_ICMP6);
}

static void read_segment(const struct nst_headers *h, const struct nst_packet *packet, struct fw_segment *s)
{
    const uint8_t *tcp = nst_packet_bytes(packet, h->l4, 20);

    *s = (struct fw_segment){ be32(tcp + 4), be32(tcp + 8), h->payload_len, h->tcp_flags };
}

static uint8_t type_of(const struct nst_headers *h, const struct nst_packet *packet)
{
    const uint8_t *m = is_icmp(h) ? nst_packet_bytes(packet, h->payload, 1) : NULL;

    return m != NULL && h->payload_len > 0 ? *m : 0;
}

/* The connection as its opener would have opened it. */
static void set_opening(struct fw_packet *p, enum nst_side opener, uint8_t type, bool out)
{
    struct fw_opening *o = &p->opening;
    struct nst_endpoint end;

    *o = (struct fw_opening){
        .proto = nst_flow_proto(p->flow), .type = type, .out = out, .vlan = nst_flow_vlan(p->flow)
    };
    for (unsigned i = 0; i < 2; i++) {
        nst_flow_endpoint(p->flow, (enum nst_side)(opener ^ i), &end);
        o->family = end.family;
        memcpy(o->addr[i], end.addr, sizeof end.addr);
        o->port[i] = end.port;
    }
}

static enum nst_side sender(const struct nst_event *ev)
{
    return ev->dir == NST_SENT ? ev->side : (enum nst_side) !ev->side;
}

void fw_look(struct firewall *fw, struct fw_packet *p, struct nst_flow *f, const struct nst_event *ev)
{
    const struct nst_headers *h = nst_packet_headers(ev->packet);

    p->flow = f;
    p->ev = ev;
    p->config = fw->config;
    p->c = nst_flow_state(f);
    set_key(p);
    p->stray = (ev->what & FW_EV_STRAY) != 0;
    p->opens = false;
    p->may_open = true;
    if (h->proto == FW_TCP) {
        read_segment(h, ev->packet, &p->segment);
        p->may_open = (h->tcp_flags & (FW_SYN | FW_ACK | FW_RST | FW_FIN)) == FW_SYN;
    }
    set_opening(p, sender(ev), type_of(h, ev->packet), nst_packet_port(ev->packet) & 1);
    p->rule = p->config->rules->n;
    if (p->may_open)
        p->rule = fw_rules_judge(p->config->rules, &p->opening);
}

/* What a link cannot do without, as it cannot without ARP (RFC 4861): it comes from a neighbour, for no router has
 * forwarded it. */
static bool is_neighbour_discovery(const struct fw_packet *p)
{
    enum { FIRST = 133, LAST = 136, HOPS = 7 };
    const struct nst_headers *h = nst_packet_headers(p->ev->packet);
    const uint8_t *ip = nst_packet_bytes(p->ev->packet, h->l3, 8);

    return h->family == 6 && h->proto == FW_ICMP6 && p->opening.type >= FIRST && p->opening.type <= LAST &&
           ip != NULL && ip[HOPS] == NEIGHBOUR_HOPS;
}

static bool allows(const struct fw_packet *p, size_t rule)
{
    return p->config->rules->rule[rule].action == FW_ALLOW;
}

/* The same rules have decided on the flow last. */
static bool current(const struct fw_config *config, const struct fw_flow *c)
{
    return c->generation == config->generation;
}

bool fw_decided(struct firewall *fw, const struct fw_packet *p, enum fw_fate *fate)
{
    const struct fw_flow *c = p->c;
    bool tcp = p->opening.proto == FW_TCP;

    if (p->stray)
        return false;
    if (p->opening.proto == FW_ICMP6 && is_neighbour_discovery(p)) {
        fw->count[FW_NEIGHBOURS]++;
        *fate = FW_KNOWN;
        return true;
    }
    if (c->allowed && current(p->config, c)) { /* its record is to be written anew */
        *fate = FW_KNOWN;
        return fw_renew(fw, p);
    }
    if (c->allowed)
        return false;
    if (p->may_open && !allows(p, p->rule)) {
        /* A SYN opens a connection or none. Anything else may be an answer in a connection that is known elsewhere. */
        *fate = FW_NO;
        return tcp || (current(p->config, c) && nst_now() < c->again);
    }
    *fate = FW_NOBODYS;
    return !p->may_open && current(p->config, c) && nst_now() < c->again;
}

bool fw_opens_nothing(const struct fw_packet *p, enum fw_fate *fate)
{
    *fate = p->may_open ? FW_NO : FW_NOBODYS;
    return !p->stray && !p->c->allowed && !(p->may_open && allows(p, p->rule));
}

/* ---- the record's word ---- */
static uint64_t new_birth(struct firewall *fw)
{
    return ((uint64_t)nst_clock() << 8 | (++fw->births & 0xff)) | 1;
}

static nst_time life(const struct firewall *fw, const struct fw_packet *p)
{
    return p->opening.proto != FW_TCP ? fw->ttl_other : p->may_open ? fw->ttl_opening : fw->ttl_tcp;
}

static void write_record(struct firewall *fw, const struct fw_packet *p, struct nst_object *o, enum nst_side opener,
                         uint64_t birth)
{
    struct record r = {
        .version = VERSION,
        .flags = (uint8_t)(((opener == NST_CLIENT) != p->turned ? OPENER_IS_FIRST : 0) | (p->opening.out ? OUT : 0)),
        .type = p->opening.type,
        .instance = fw->instance,
        .rules = p->config->rules->id,
        .birth = birth,
    };
    memcpy(o->value, &r, sizeof r);
    o->len = sizeof r;
    o->ttl = life(fw, p);
}

/* The flow as its record has it. */
static void adopt(struct fw_packet *p, const struct record *r)
{
    struct fw_flow *c = p->c;

    c->opener = ((r->flags & OPENER_IS_FIRST) != 0) != p->turned ? NST_CLIENT : NST_SERVER;
    c->out = r->flags & OUT;
    c->type = r->type;
    c->birth = r->birth;
}

static enum fw_fate open_connection(struct firewall *fw, struct fw_packet *p, struct nst_object *record)
{
    struct record r;

    write_record(fw, p, record, sender(p->ev), new_birth(fw));
    read_record(record, &r);
    adopt(p, &r);
    p->opens = true;
    return FW_CHANGED;
}

enum fw_fate fw_judge(struct firewall *fw, struct fw_packet *p, struct nst_object *record)
{
    struct fw_flow *c = p->c;
    struct record r;
    bool known = record->there && read_record(record, &r), opens = p->may_open && allows(p, p->rule);

    if (record->there && !known)
        fw->count[FW_BAD_RECORDS]++;
    if (p->stray) {
        if (!known || (r.instance == fw->instance && r.birth == c->birth))
            return FW_PLACELESS;
        /* Another instance has seen what is missing here: it is met anew, in its middle. */
        c->allowed = false;
        c->tcp.state = FW_TCP_NONE;
    }
    if (!known && c->allowed) { /* the store has lost it, or it was silent for longer than its record lives */
        set_opening(p, (enum nst_side)c->opener, c->type, c->out);
        p->rule = fw_rules_judge(p->config->rules, &p->opening);
        if (!allows(p, p->rule))
            return FW_NO;
        write_record(fw, p, record, (enum nst_side)c->opener, c->birth);
        return FW_CHANGED;
    }
    if (!known)
        return opens ? open_connection(fw, p, record) : p->may_open ? FW_NO : FW_NOBODYS;
    if (opens && p->opening.proto == FW_TCP && !c->allowed)
        return open_connection(fw, p, record); /* anew, on the same tuple; or the same SYN once more */
    adopt(p, &r);
    set_opening(p, (enum nst_side)c->opener, c->type, c->out);
    p->rule = fw_rules_judge(p->config->rules, &p->opening);
    if (r.rules == p->config->rules->id || p->config->rules->keep) {
        if (r.instance == fw->instance && (!c->allowed || !current(p->config, c)))
            return FW_KNOWN;
    } else {
        fw->count[FW_JUDGED]++;
        if (!allows(p, p->rule)) {
            fw->count[FW_CUT]++;
            return FW_NO;
        }
    }
    /* So that it lives on, and those that had it before see that it has been here. */
    write_record(fw, p, record, (enum nst_side)c->opener, c->birth);
    return FW_CHANGED;
}

bool fw_renew(struct firewall *fw, const struct fw_packet *p)
{
    /* In a capture the clock may have gone on for hours before a write that nobody waits for is made. */
    struct nst_object *record = fw->replay ? NULL : nst_state_kept(fw->connections, p->key);

    if (record == NULL)
        return false;
    bool same = fw_same(p, record);
    if (same) {
        record->ttl = life(fw, p);
        nst_state_use(record);
    }
    nst_state_release(record);
    return same;
}

/* ---- verdicts ---- */
static void hit(struct firewall *fw, const struct fw_packet *p)
{
    p->config->hits[fw->core * (p->config->rules->n + 1) + p->rule]++;
}

static void decide(struct firewall *fw, struct fw_packet *p, bool allowed, nst_time again)
{
    p->c->allowed = allowed;
    p->c->generation = p->config->generation;
    p->c->rule = (uint32_t)p->rule;
    p->c->again = again;
}

static void note(struct firewall *fw, const struct fw_packet *p, const char *action)
{
    const struct fw_rule *r = &p->config->rules->rule[p->rule];

    if (r->log)
        fw_decisions_add(fw->log, action, r, &p->opening, p->ev->packet);
}

/* Its place among what its connection may do now. */
static bool follow(struct fw_packet *p)
{
    struct fw_flow *c = p->c;
    unsigned from = sender(p->ev);

    if (p->opening.proto != FW_TCP)
        return true;
    if (p->opens) {
        fw_tcp_begin(&c->tcp, from, &p->segment);
        return true;
    }
    if (c->tcp.state == FW_TCP_NONE)
        fw_tcp_pick_up(&c->tcp);
    return fw_tcp_next(&c->tcp, from, &p->segment);
}

enum nst_verdict fw_admit(struct firewall *fw, struct fw_packet *p, enum fw_fate fate)
{
    struct fw_flow *c = p->c;
    bool before = c->allowed;

    if (p->opening.proto == FW_ICMP6 && c->generation == 0 && fate == FW_KNOWN && is_neighbour_discovery(p))
        return NST_FORWARD;
    if (p->opens) {
        fw->count[FW_OPENED]++;
        hit(fw, p);
        note(fw, p, "allow");
    } else if (!before) {
        fw->count[FW_TAKEN_OVER]++;
    }
    if (before && current(p->config, c))
        p->rule = c->rule;
    decide(fw, p, true, nst_now() + life(fw, p) / REFRESH_SHARE);
    if (follow(p))
        return NST_FORWARD;
    fw->count[FW_STRAYS]++;
    return NST_DROP;
}

enum nst_verdict fw_deny(struct firewall *fw, struct fw_packet *p, enum fw_fate fate)
{
    bool fresh = nst_now() >= p->c->again || !current(p->config, p->c) || p->c->allowed;

    if (fresh || p->may_open)
        decide(fw, p, false, nst_now() + NST_MS(REASK_MS));
    if (fate == FW_NOBODYS) {
        fw->count[FW_UNKNOWN]++;
        return nst_fail(p->flow, -ESRCH);
    }
    fw->count[FW_DENIED]++;
    hit(fw, p);
    bool reject = p->config->rules->rule[p->rule].action == FW_REJECT;
    note(fw, p, reject ? "reject" : "drop");
    if (reject && nst_packet_refuse(p->ev) == 0)
        fw->count[FW_REFUSED]++;
    return NST_DROP;
}

enum nst_verdict fw_fail(struct firewall *fw, struct fw_packet *p, int rc)
{
    if (!p->c->allowed || !current(p->config, p->c))
        return nst_fail(p->flow, rc);
    fw->count[FW_RENEW_FAILED]++;
    p->c->again = nst_now() + NST_SEC(1);
    if (follow(p))
        return NST_FORWARD;
    fw->count[FW_STRAYS]++;
    return NST_DROP;
}

bool fw_is_nowhere(const struct nst_event *ev)
{
    const struct nst_headers *h = nst_packet_headers(ev->packet);

    return h->proto != FW_TCP || fw_tcp_flags_lie(h->tcp_flags);
}

enum nst_verdict fw_stray(struct firewall *fw, const struct nst_event *ev)
{
    const struct nst_headers *h = nst_packet_headers(ev->packet);

    fw->count[FW_STRAYS]++;
    if (h->proto == FW_TCP && fw_tcp_flags_lie(h->tcp_flags))
        fw->count[FW_LIES]++;
    return NST_DROP;
}

enum nst_verdict fw_icmp_error(struct firewall *fw, struct nst_flow *f)
{
    const struct fw_flow *c = nst_flow_state(f);
    bool known = c->allowed && (current(fw->config, c) || fw->config->rules->keep);

    fw->count[known ? FW_ERRORS_PASS : FW_ERRORS_DROP]++;
    return known ? NST_FORWARD : NST_DROP;
}

bool fw_over(struct fw_packet *p, struct nst_flow *f, const struct nst_event *ev)
{
    p->flow = f;
    p->ev = ev;
    p->c = nst_flow_state(f);
    set_key(p);
    return p->c->allowed && (ev->why == NST_CLOSED_BY_FIN || ev->why == NST_CLOSED_BY_RST);
}

/* ---- every packet ---- */
/* An echo is answered with an echo reply; nothing else that comes back belongs to it. */
static bool icmp_in_place(const struct fw_flow *c, const struct nst_headers *h, const struct nst_packet *packet,
                          unsigned from)
{
    enum { REPLY = 0, REQUEST = 8, REQUEST6 = 128, REPLY6 = 129 };
    uint8_t type = type_of(h, packet);

    if (from == c->opener)
        return type == c->type;
    return h->family == 4 ? c->type == REQUEST && type == REPLY : c->type == REQUEST6 && type == REPLY6;
}

static nst_events look(void *self, struct nst_flow *f, enum nst_side side, enum nst_dir dir, struct nst_packet *packet)
{
    const struct firewall *fw = nst_nf_arg(f);
    struct fw_flow *c = nst_flow_state(f);
    const struct nst_headers *h = nst_packet_headers(packet);
    struct fw_segment s;

    if (__builtin_expect(h->proto == FW_TCP && fw_tcp_flags_lie(h->tcp_flags), 0))
        return FW_EV_STRAY; /* it says nothing of anything, and may change nothing */
    if (__builtin_expect(!c->allowed || !current(fw->config, c) || nst_now() >= c->again, 0))
        return FW_EV_ASK;
    unsigned from = dir == NST_SENT ? side : (unsigned)!side;
    if (h->proto != FW_TCP)
        return is_icmp(h) && !icmp_in_place(c, h, packet, from) ? FW_EV_STRAY : 0;
    uint8_t before = c->tcp.state;
    read_segment(h, packet, &s);
    if (!fw_tcp_next(&c->tcp, from, &s))
        return FW_EV_STRAY;
    if (__builtin_expect(c->tcp.state != before, 0)) {
        if (c->tcp.state == FW_TCP_OPEN)
            c->again = 0; /* it lives longer from now on, and so must its record */
        else if (c->tcp.state == FW_TCP_FINS)
            nst_flow_life(f, NST_LIFE_CLOSING, NST_CLOSED_BY_FIN);
        else if (c->tcp.state == FW_TCP_RESET)
            nst_flow_life(f, NST_LIFE_CLOSING, NST_CLOSED_BY_RST);
    }
    return 0;
}

const struct nst_inspector fw_inspector = { .name = "firewall", .packet = look };
