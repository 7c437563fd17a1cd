/* SPDX-License-Identifier: Apache-2.0 */
/* An inspector for DNS over UDP: which datagram asks, and which one answers what was asked. One half of the NF has it;
 * both directions pass there. It does not matter which end asks, or whose packet was the first.
 */
#pragma once
#include "message.h"
#include <netstar/flow.h>

/* One of the first four in each datagram from or to the port. */
#define DNS_QUERY NST_EV_USER(0)     /* asks */
#define DNS_ANSWER NST_EV_USER(1)    /* answers a question of this flow that was forwarded, and not yet answered */
#define DNS_UNASKED NST_EV_USER(2)   /* answers none */
#define DNS_MALFORMED NST_EV_USER(3) /* is no sound message: see dns_parse */
#define DNS_NO_NAME NST_EV_USER(4)   /* with DNS_ANSWER: there is no such name */

enum { DNS_OUTSTANDING = 28 }; /* questions of one flow; one more, and the oldest is forgotten */

/* What the inspector has once for all flows. nst_nf_arg is one of these, or something that begins with one. */
struct dns_inspector {
    uint16_t port;      /* set by the NF: of the end that answers */
    uint64_t forgotten; /* questions, because a flow had too many */
    /* The message that was read last. */
    const struct nst_packet *packet;
    const char *bad;
    struct dns_message message;
    uint8_t bytes[UINT16_MAX]; /* of a datagram that is not in one piece */
};

extern const struct nst_inspector dns;

/* The current packet's message, inside one of the events above; in DNS_MALFORMED as far as dns_parse could read it, and
 * the words in *bad (which may be NULL), else NULL there. Borrowed until the handler waits or returns. */
const struct dns_message *dns_message(struct nst_flow *f, enum nst_side side, const char **bad);
