/* SPDX-License-Identifier: Apache-2.0 */
/* Packets that are not plainly a flow's: found when a burst is parsed, and dealt with before its flows are looked up.
 */
#include "flow/checksum.h"
#include "flow/way.h"
#include <netinet/in.h>

/* The NF is for it. */
static bool is_ours(const struct nst_engine *e, uint8_t proto)
{
    return e->proto == 0 ? proto == IPPROTO_TCP || proto == IPPROTO_UDP : proto == e->proto;
}

void __attribute__((noinline, cold)) pass_or_drop(struct nst_engine *e, struct nst_packet *p, enum parsed parsed)
{
    enum nst_cause cause = parsed == PARSED_FRAGMENT   ? NST_BY_FRAGMENT
                           : parsed == PARSED_CHECKSUM ? NST_BY_CHECKSUM
                                                       : NST_BY_MALFORMED;

    if (parsed == PARSED_NOT_IP) {
        e->stats.not_ip++;
    } else if (parsed == PARSED_OTHER_PROTO || (!is_ours(e, p->h.proto) && p->h.proto != 0)) {
        e->stats.other_proto++;
    } else {
        enum nst_verdict v = policy_of(e, cause);
        if (v != NST_FORWARD && v != NST_FORWARD_FLOW) {
            packet_drop(e, p, cause);
            return;
        }
    }
    packet_forward(e, p);
}

/* What the port could not vouch for. */
static bool checksums_hold(const struct nst_engine *e, const struct nst_packet *p)
{
    unsigned flags = p->flags & e->checks;

    return flags == 0 || (flags == PACKET_CHECKSUM_OPEN && checksum_right(mbuf_of(p), &p->h, e->replay));
}

void __attribute__((noinline)) burst_special(struct nst_engine *e, const struct table_bucket *bucket[PORT_BURST])
{
    for (unsigned i = 0; i < e->n; i++) {
        const struct nst_packet *p = packet_of(e->mbuf[i]);
        if (e->parsed[i] == PARSED_FLOW && !checksums_hold(e, p))
            e->parsed[i] = PARSED_CHECKSUM;
    }
}
