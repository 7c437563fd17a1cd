/* SPDX-License-Identifier: Apache-2.0 */
#include "inspector.h"
#include <netstar/packet.h>
#include <string.h>

enum carries { UNKNOWN, CARRIES_DNS, CARRIES_OTHER };
enum change { NONE, ADD, REMOVE };

/* A question: its id, the end that asked, and 47 bits of dns_question. */
enum { ID_SHIFT = 48, ASKER_SHIFT = 47 };
#define QUESTION_MASK (((uint64_t)1 << ASKER_SHIFT) - 1)

/* Its state of a flow. The packet at hand changes it once it is known to go on. */
struct dns_end {
    uint64_t asked[DNS_OUTSTANDING]; /* the oldest first */
    uint64_t add;
    uint8_t n;
    uint8_t change; /* enum change; with REMOVE, of asked[at] */
    uint8_t at;
    uint8_t carries; /* enum carries */
};
_Static_assert(sizeof(struct dns_end) <= 256, "an inspector's state has 256 bytes at most");

static bool carries_dns(struct dns_end *end, const struct nst_flow *f)
{
    if (end->carries == UNKNOWN) {
        const struct dns_inspector *d = nst_nf_arg(f);
        struct nst_endpoint a, b;
        nst_flow_endpoint(f, NST_CLIENT, &a);
        nst_flow_endpoint(f, NST_SERVER, &b);
        end->carries = a.port == d->port || b.port == d->port ? CARRIES_DNS : CARRIES_OTHER;
    }
    return end->carries == CARRIES_DNS;
}

/* The datagram's bytes in one piece, copied if they are not; NULL: the packet has not so many. */
static const uint8_t *whole(struct dns_inspector *d, const struct nst_packet *p, size_t off, size_t len)
{
    const uint8_t *bytes = nst_packet_bytes(p, off, len);

    if (bytes != NULL)
        return bytes;
    for (size_t at = 0, n; at < len; at += n) {
        for (n = len - at; n > 0; n /= 2) {
            bytes = nst_packet_bytes(p, off + at, n);
            if (bytes != NULL)
                break;
        }
        if (bytes == NULL)
            return NULL;
        memcpy(d->bytes + at, bytes, n);
    }
    return d->bytes;
}

static void read_packet(struct dns_inspector *d, const struct nst_packet *p)
{
    const struct nst_headers *h = nst_packet_headers(p);
    const uint8_t *bytes = h->payload_len > 0 ? whole(d, p, h->payload, h->payload_len) : NULL;

    d->packet = p;
    d->bad = dns_parse(&d->message, bytes, bytes != NULL ? h->payload_len : 0);
}

const struct dns_message *dns_message(struct nst_flow *f, enum nst_side side, const char **bad)
{
    struct dns_inspector *d = nst_nf_arg(f);
    const struct nst_packet *p = nst_flow_packet(f, side);

    if (d->packet != p) /* another flow's was read meanwhile */
        read_packet(d, p);
    if (bad != NULL)
        *bad = d->bad;
    return &d->message;
}

/* The number of the oldest question that this answers, or end->n. An error may be answered without the question: the
 * server may not have understood that much. */
static uint8_t find(const struct dns_end *end, uint64_t question, const struct dns_message *m)
{
    uint64_t mask = m->n_questions == 0 && m->code != 0 ? ~QUESTION_MASK : ~(uint64_t)0;
    uint8_t i = 0;

    while (i < end->n && ((end->asked[i] ^ question) & mask) != 0)
        i++;
    return i;
}

static nst_events dns_packet(void *self, struct nst_flow *f, enum nst_side side, enum nst_dir dir, struct nst_packet *p)
{
    struct dns_inspector *d = nst_nf_arg(f);
    struct dns_end *end = self;

    end->change = NONE;
    if (!carries_dns(end, f))
        return 0;
    read_packet(d, p);
    if (d->bad != NULL)
        return DNS_MALFORMED;
    const struct dns_message *m = &d->message;
    uint64_t sender = dir == NST_SENT ? side : !side, asker = m->answer ? !sender : sender;
    uint64_t question = (uint64_t)m->id << ID_SHIFT | asker << ASKER_SHIFT | (dns_question(m) & QUESTION_MASK);
    if (!m->answer) {
        end->add = question;
        end->change = ADD;
        return DNS_QUERY;
    }
    end->at = find(end, question, m);
    if (end->at == end->n)
        return DNS_UNASKED;
    end->change = REMOVE;
    return m->code == DNS_NXDOMAIN ? DNS_ANSWER | DNS_NO_NAME : DNS_ANSWER;
}

static void forget(struct dns_end *end, unsigned at)
{
    end->n--;
    memmove(end->asked + at, end->asked + at + 1, (end->n - at) * sizeof *end->asked);
}

static void dns_verdict(void *self, struct nst_flow *f, enum nst_side side, enum nst_verdict v)
{
    struct dns_end *end = self;

    if (v == NST_FORWARD || v == NST_FORWARD_FLOW || v == NST_TAKEN) {
        if (end->change == REMOVE)
            forget(end, end->at);
        if (end->change == ADD) {
            if (end->n == DNS_OUTSTANDING) {
                forget(end, 0);
                ((struct dns_inspector *)nst_nf_arg(f))->forgotten++;
            }
            end->asked[end->n++] = end->add;
        }
    }
    end->change = NONE;
}

const struct nst_inspector dns = {
    .name = "dns",
    .size = sizeof(struct dns_end),
    .packet = dns_packet,
    .verdict = dns_verdict,
};
