/* SPDX-License-Identifier: Apache-2.0 */
/* lb/lb.h - what the load balancer is on one reactor, and the steps between its waits, none of which waits itself.
 *
 * A connection has a record in the store: which back end it belongs to. It is written once, before the first packet goes
 * on, and only lives on after that; whoever meets the connection later reads it there. In mode nat there are two flows to
 * an engine, client to service and back end to client, perhaps on two cores, and so two records that say the same, one
 * under the name of each.
 */
#pragma once
#include "health.h"
#include <netstar/edit.h>
#include <netstar/store.h>

enum { LB_TRIES = 8, LB_KEY_MAX = 3 + NST_FLOW_KEY_MAX, LB_RECORD = 48 };

/* The services at work. A handler goes by those that it has begun with, however long it waits. */
struct lb_config {
    struct lb_services *services;
    struct lb_known *known;
    struct lb_checks *checks;
    uint32_t generation; /* another one with each that follows, never 0 */
};

enum lb_midstream { LB_UNKNOWN_DROP, LB_UNKNOWN_RESET, LB_UNKNOWN_HASH };

struct lb_count {
    uint64_t opened;               /* connections given a back end */
    uint64_t taken_over;           /* that another instance, or this one earlier, had given one */
    uint64_t packets, answers;     /* to back ends, and in mode nat from them */
    uint64_t nobody;               /* connections for which there was no back end */
    uint64_t unknown;              /* packets of connections that nobody knows */
    uint64_t full;                 /* times that a back end was passed over because it has its share */
    uint64_t collisions;           /* and because it has a connection with the same tuple already */
    uint64_t moved;                /* connections that begin anew, away from a back end that is not there any more */
    uint64_t drained;              /* connections cut when a back end's drain had ended */
    uint64_t strangers;            /* packets in a connection's name that do not belong to it */
    uint64_t icmp;                 /* ICMP errors handed on */
    uint64_t renewed, not_renewed; /* records */
    uint64_t bad_records;
};

struct lb {
    struct nst_store *store; /* borrowed */
    const struct lb_config *config;
    bool checks; /* this core's reactor checks back ends */
    enum lb_midstream unknown;
    nst_time ttl_tcp;
    struct nst_nf nf;
    struct lb_count count;
    struct lb_check_counts checked; /* of earlier configurations */
    uint32_t connections[LB_KNOWN]; /* of this core, by the back end's number */
};

enum lb_kind {
    LB_NEW, /* nobody has looked */
    LB_NOT_OURS,
    LB_FORWARD, /* between a client and the service's address */
    LB_BACK,    /* between a back end, in mode nat, and a client */
    LB_CUT,     /* its back end's drain has ended */
    LB_NOBODYS, /* the store does not know it; asked again after a while */
};

/* What a record says. */
struct lb_record {
    uint8_t version, mode;
    struct lb_place vip, backend;
    uint8_t has_mac, mac[6];
    uint8_t spare;
};
_Static_assert(sizeof(struct lb_record) == LB_RECORD, "as it is in the store");

/* The load balancer's own bytes of a flow. */
struct lb_flow {
    nst_time again; /* to be looked at, and the record to be written anew */
    uint32_t generation;
    uint32_t id; /* of the back end, with `counted` */
    uint8_t kind;
    uint8_t near; /* enum nst_side: the service's, or the back end's */
    bool counted, opened, closing;
    struct lb_record record;
};

/* One packet on which the handler has to decide. */
struct lb_packet {
    struct nst_flow *flow;
    const struct nst_event *ev;
    const struct lb_config *config;
    struct lb_flow *c;
    const struct lb_service *service;
    bool arrives; /* at the near side */
    bool opens;   /* it may be given a back end */
    bool syn;
    bool renews;    /* all is known, but the records have to live on */
    bool overwrite; /* the record that is there is of no more use */
    struct lb_record record;
    struct nst_slice key, back_key; /* of both records; the second only in mode nat */
    uint8_t key_bytes[LB_KEY_MAX], back_bytes[LB_KEY_MAX];
    uint8_t found[LB_RECORD + 1];
    uint64_t avoid[LB_BACKENDS_MAX / 64]; /* back ends with which it collides */
};

/* Looks at a packet. False: what has to be known is; true: the store has to be asked. */
bool lb_look(struct lb *lb, struct lb_packet *p, struct nst_flow *f, const struct nst_event *ev);

/* Chooses a back end and makes the record. False: there is none. */
bool lb_choose(struct lb *lb, struct lb_packet *p);
/* Sets the second key, by the record. */
void lb_set_back_key(struct lb_packet *p);
/* Understands what nst_get, whose result is rc, brought into p->found: 0 and p->record; -ENOENT; or the error. */
int lb_understand(struct lb *lb, struct lb_packet *p, int rc);
/* The record that was found still serves this packet. */
bool lb_serves(struct lb *lb, struct lb_packet *p);
/* What was found is another connection's, and not this one's. */
bool lb_collides(struct lb *lb, struct lb_packet *p, int rc);
/* The record will do: so it is from now on. */
void lb_adopt(struct lb *lb, struct lb_packet *p, bool opened);

nst_time lb_life(const struct lb *lb, const struct lb_packet *p);
void lb_renewed(struct lb *lb, struct lb_packet *p, int rc);

/* Rewrites the packet, and says what becomes of it. */
enum nst_verdict lb_send(struct lb *lb, struct lb_packet *p);
/* Nobody knows the connection (-ESRCH), there is no back end (-ENODEV), or the store failed. */
enum nst_verdict lb_fail(struct lb *lb, struct lb_packet *p, int rc);
enum nst_verdict lb_icmp_error(struct lb *lb, struct nst_flow *f, const struct nst_event *ev);
enum nst_verdict lb_closed(struct lb *lb, struct nst_flow *f);

enum nst_verdict lb_handler(struct nst_flow *f, const struct nst_event *ev);
