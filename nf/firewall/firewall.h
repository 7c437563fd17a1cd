/* SPDX-License-Identifier: Apache-2.0 */
/* firewall/firewall.h - what the firewall is on one reactor, and the steps between its waits, none of which waits itself.
 *
 * What is known of a connection stands twice. Its record is an object in the store, owned by the instance that met it last:
 * whoever meets the connection next finds there that it was allowed, by which rules, and who opened it. What every packet
 * needs stands in the flow (struct fw_flow), so that the packets of a connection that is known cost neither a lookup nor a
 * call of the handler.
 */
#pragma once
#include "decisions.h"
#include "rules.h"
#include "track.h"
#include <netstar/flow.h>
#include <netstar/state.h>

/* Raised by the firewall's inspector. */
#define FW_EV_ASK NST_EV_USER(0)   /* the handler has to decide: nothing is known, or not any more, or not for long */
#define FW_EV_STRAY NST_EV_USER(1) /* the packet has no place in its connection */

enum {
    FW_KEY_MAX = NST_FLOW_KEY_MAX,
    FW_PREFIX = 3,
    FW_RECORD = 24,
    FW_TRIES = 3, /* of claiming a record that other instances claim, too */
};

/* Where the numbers of what happened stand, beside those of the rules. */
enum fw_count {
    FW_OPENED,       /* connections that a rule allowed */
    FW_DENIED,       /* packets that a rule did not */
    FW_REFUSED,      /* of these, answered */
    FW_UNKNOWN,      /* packets of connections that nobody knows */
    FW_STRAYS,       /* packets that have no place in their connection */
    FW_LIES,         /* of these, with flags that nobody sends together */
    FW_TAKEN_OVER,   /* connections that another instance had allowed */
    FW_JUDGED,       /* connections that met other rules than those that had allowed them */
    FW_CUT,          /* and were denied by those */
    FW_ERRORS_PASS,  /* ICMP errors about a known connection */
    FW_ERRORS_DROP,  /* and about another */
    FW_NEIGHBOURS,   /* neighbour discovery, which passes */
    FW_NOT_MINE,     /* writes that lost to another instance, and were tried again */
    FW_BAD_RECORDS,  /* records that could not be understood */
    FW_UNFORGOTTEN,  /* records of closed connections that could not be removed */
    FW_RENEW_FAILED, /* and such of open ones that could not be written anew */
    FW_COUNTS,
};

/* The rules at work. A handler goes by those that it has begun with, however long it waits. */
struct fw_config {
    struct fw_rules *rules;
    uint32_t generation; /* another one with each that follows, never 0 */
    unsigned n_cores;
    uint64_t *hits; /* by core and rule, the default being the last */
};

#define FW_NAME "fw:" /* what the names of records begin with */
_Static_assert(sizeof FW_NAME == FW_PREFIX + 1, "that many bytes");

struct firewall {
    struct nst_store *store; /* borrowed */
    struct nst_state *connections;
    const struct fw_config *config;
    unsigned core;
    bool replay;
    uint32_t instance; /* a number of its own */
    struct fw_decisions *log;
    nst_time ttl_tcp, ttl_opening, ttl_other; /* of records */
    uint64_t births;
    struct nst_nf nf;
    uint64_t count[FW_COUNTS];
    struct nst_state_stats state; /* of the instances that were merged into this one */
    uint64_t log_lost;
};

/* The firewall's own bytes of a flow. */
struct fw_flow {
    nst_time again;      /* the handler is to be asked again then */
    uint64_t birth;      /* of the connection, as its record has it */
    uint32_t generation; /* of the rules that have decided; 0: none have */
    uint32_t rule;       /* of them, the one that did */
    struct fw_tcp tcp;
    uint8_t opener; /* enum nst_side */
    uint8_t type;   /* of ICMP, of the opening packet */
    bool out;       /* see fw_opening */
    bool allowed;
};

/* One packet on which the handler has to decide. */
struct fw_packet {
    struct nst_flow *flow;
    const struct nst_event *ev;
    const struct fw_config *config;
    struct fw_flow *c;
    struct nst_slice name;     /* of the record in the store; and without its prefix */
    struct nst_slice key;      /* of the connection's record */
    bool stray;                /* it has no place in its connection, as far as is known here */
    bool opens;                /* it has opened one */
    bool may_open;             /* such a packet can open a connection */
    bool turned;               /* the key's first end is the client */
    struct fw_opening opening; /* of the connection that it would open, or belongs to once that is known */
    size_t rule;               /* what the rules say of that */
    struct fw_segment segment; /* TCP */
    uint8_t name_bytes[FW_PREFIX + FW_KEY_MAX];
};

/* What is to be done with the record. */
enum fw_fate {
    FW_KNOWN,     /* nothing: it allows the packet */
    FW_CHANGED,   /* to be written, and then it does */
    FW_NO,        /* a rule does not allow it */
    FW_NOBODYS,   /* nobody knows its connection */
    FW_PLACELESS, /* it has no place in it, and nobody knows better */
};

/* What is to be known of the packet before its record is. */
void fw_look(struct firewall *fw, struct fw_packet *p, struct nst_flow *f, const struct nst_event *ev);

/* It needs no record: it cannot belong to an earlier connection, or the same was decided a moment ago. */
bool fw_decided(struct firewall *fw, const struct fw_packet *p, enum fw_fate *fate);

/* It can only belong to a connection that is known elsewhere; what it is if there is none, is in *fate. */
bool fw_opens_nothing(const struct fw_packet *p, enum fw_fate *fate);

/* What the record says of it; FW_CHANGED: it has been changed, in place. */
enum fw_fate fw_judge(struct firewall *fw, struct fw_packet *p, struct nst_object *record);

/* The record allows the packet: so will the flow, unless the packet has no place in it. */
enum nst_verdict fw_admit(struct firewall *fw, struct fw_packet *p, enum fw_fate fate);
/* It does not. */
enum nst_verdict fw_deny(struct firewall *fw, struct fw_packet *p, enum fw_fate fate);

/* The store failed: what is allowed already stays so for now. */
enum nst_verdict fw_fail(struct firewall *fw, struct fw_packet *p, int rc);

/* The connection is allowed, and its record only has to live on: true where that can be done without a wait. */
bool fw_renew(struct firewall *fw, const struct fw_packet *p);

/* Nothing that another instance may have seen gives it a place. */
bool fw_is_nowhere(const struct nst_event *ev);
enum nst_verdict fw_stray(struct firewall *fw, const struct nst_event *ev);
enum nst_verdict fw_icmp_error(struct firewall *fw, struct nst_flow *f);

/* Whether the record of a flow that has closed so is of no more use, and is still that of this connection. */
bool fw_over(struct fw_packet *p, struct nst_flow *f, const struct nst_event *ev);
bool fw_same(const struct fw_packet *p, const struct nst_object *record);

extern const struct nst_inspector fw_inspector;
enum nst_verdict fw_handler(struct nst_flow *f, const struct nst_event *ev);
