/* SPDX-License-Identifier: Apache-2.0 */
/* What happens when an NF cannot decide, and how it is counted. */
#include "flow/engine.h"

static const char *const cause_names[NST_CAUSES] = {
    [NST_BY_VERDICT] = "verdict",
    [NST_BY_FLOW_VERDICT] = "flow verdict",
    [NST_BY_HANDLER] = "handler",
    [NST_BY_OTHERWISE] = "no valid verdict",
    [NST_BY_TIMEOUT] = "timeout",
    [NST_BY_STORE] = "store",
    [NST_BY_HOLD_FULL] = "hold full",
    [NST_BY_NO_MEMORY] = "no memory",
    [NST_BY_MIDSTREAM] = "midstream",
    [NST_BY_CONFLICT] = "conflict",
    [NST_BY_FRAGMENT] = "fragment",
    [NST_BY_MALFORMED] = "malformed",
    [NST_BY_CHECKSUM] = "checksum",
    [NST_BY_ICMP] = "icmp",
    [NST_BY_WINDOW] = "window",
    [NST_BY_STALE] = "old time stamp",
    [NST_BY_BAD_ACK] = "bad acknowledgment",
    [NST_BY_STREAM_LIMIT] = "stream limit",
    [NST_BY_TX_FULL] = "tx full",
    [NST_BY_SHUTDOWN] = "shutdown",
    [NST_BY_CORE_FULL] = "core full",
    [NST_BY_HELD_BACK] = "held back",
};

const char *nst_cause_name(enum nst_cause cause)
{
    return (unsigned)cause < NST_CAUSES ? cause_names[cause] : "unknown";
}

const char *nst_fault_name(enum nst_fault f)
{
    static const char *const names[NST_FAULTS] = {
        [NST_FAULT_ETHER] = "short ethernet header",
        [NST_FAULT_TAGS] = "vlan tags",
        [NST_FAULT_IP_HEADER] = "short ip header",
        [NST_FAULT_IP_VERSION] = "ip version",
        [NST_FAULT_IP_LENGTH] = "ip length",
        [NST_FAULT_IP_OPTION] = "ip option",
        [NST_FAULT_EXTENSION] = "extension headers",
        [NST_FAULT_TCP_HEADER] = "short tcp header",
        [NST_FAULT_TCP_OFFSET] = "tcp data offset",
        [NST_FAULT_UDP_HEADER] = "short udp header",
        [NST_FAULT_UDP_LENGTH] = "udp length",
        [NST_FAULT_UDP_CHECKSUM] = "no udp checksum",
        [NST_FAULT_TUNNEL] = "tunnel header",
        [NST_FAULT_TUNNEL_DEPTH] = "tunnel depth",
        [NST_FAULT_NESTED] = "nested fragment",
        [NST_FAULT_CHECKSUM] = "wrong checksum",
        [NST_FAULT_CHECKSUM_OUTER] = "wrong outer checksum",
        [NST_FAULT_FRAGMENT_OVERLAP] = "fragment overlap",
        [NST_FAULT_FRAGMENT_LENGTH] = "fragment length",
        [NST_FAULT_FRAGMENT_REPEATED] = "fragment repeated",
        [NST_FAULT_FRAGMENT_LATE] = "fragment late",
        [NST_FAULT_FRAGMENT_ROOM] = "fragment no room",
    };

    return (unsigned)f < NST_FAULTS ? names[f] : "unknown";
}

const char *nst_worth_name(enum nst_worth w)
{
    static const char *const names[NST_WORTHS] = {
        [NST_WORTH_CLOSING] = "closing",
        [NST_WORTH_UNANSWERED] = "unanswered",
        [NST_WORTH_UDP_ONE_WAY] = "udp one way",
        [NST_WORTH_ONE_WAY] = "one way",
        [NST_WORTH_BLOCKED] = "blocked",
        [NST_WORTH_OPENING] = "opening",
        [NST_WORTH_UDP] = "udp",
        [NST_WORTH_IDLE] = "idle",
    };

    return (unsigned)w < NST_WORTHS ? names[w] : "unknown";
}

static enum nst_verdict *policy_field(struct nst_policy *p, enum nst_cause cause)
{
    switch (cause) {
    case NST_BY_OTHERWISE:
        return &p->otherwise;
    case NST_BY_TIMEOUT:
        return &p->on_timeout;
    case NST_BY_STORE:
        return &p->on_store;
    case NST_BY_HOLD_FULL:
        return &p->on_hold_full;
    case NST_BY_NO_MEMORY:
        return &p->on_no_memory;
    case NST_BY_MIDSTREAM:
        return &p->on_midstream;
    case NST_BY_CONFLICT:
        return &p->on_conflict;
    case NST_BY_WINDOW:
        return &p->on_window;
    case NST_BY_STALE:
        return &p->on_stale;
    case NST_BY_BAD_ACK:
        return &p->on_bad_ack;
    case NST_BY_FRAGMENT:
        return &p->on_fragment;
    case NST_BY_MALFORMED:
        return &p->on_malformed;
    case NST_BY_CHECKSUM:
        return &p->on_checksum;
    case NST_BY_ICMP:
        return &p->on_icmp;
    default:
        return NULL;
    }
}

int policy_init(struct nst_policy *p)
{
    enum { HOLD = 64 };

    if (p->budget < 0 || (unsigned)p->urgent > NST_URGENT_OUT)
        return -EINVAL;
    if (p->budget == 0)
        p->budget = NST_MS(200);
    if (p->hold == 0)
        p->hold = HOLD;
    for (unsigned cause = 0; cause < NST_CAUSES; cause++) {
        enum nst_verdict *v = policy_field(p, (enum nst_cause)cause);
        if (v == NULL)
            continue;
        if (*v == NST_UNDECIDED)
            *v = NST_DROP;
        if ((unsigned)*v > NST_RESET_FLOW)
            return -EINVAL;
    }
    return 0;
}

enum nst_verdict policy_of(struct nst_engine *e, enum nst_cause cause)
{
    const enum nst_verdict *v = policy_field(&e->policy, cause);

    e->stats.policy[cause]++;
    return v != NULL ? *v : NST_DROP;
}

static enum nst_cause cause_of(const struct nst_engine *e, int rc)
{
    switch (rc) {
    case -ECANCELED:
        return e->draining ? NST_BY_SHUTDOWN : NST_BY_TIMEOUT;
    case -ETIMEDOUT:
        return NST_BY_TIMEOUT;
    case -ENOMEM:
    case -ENOSPC:
        return NST_BY_NO_MEMORY;
    case -ESRCH:
        return NST_BY_MIDSTREAM;
    default:
        return NST_BY_STORE;
    }
}

enum nst_verdict nst_fail(struct nst_flow *f, int rc)
{
    struct nst_engine *e = f->engine;
    enum nst_cause cause = cause_of(e, rc);

    e->failed = cause;
    e->failed_in = f;
    return policy_of(e, cause);
}

void nst_packet_fail(struct nst_packet *p, int rc)
{
    struct nst_engine *e = p->flow->engine;
    enum nst_cause cause = cause_of(e, rc);
    enum nst_verdict v = policy_of(e, cause);

    if (v == NST_FORWARD || v == NST_FORWARD_FLOW) {
        nst_packet_forward(p);
        return;
    }
    engine_unkeep(e);
    packet_drop(e, p, cause);
}
