/* SPDX-License-Identifier: Apache-2.0 */
#include "track.h"

bool fw_tcp_flags_lie(uint8_t flags)
{
    if (flags & FW_SYN)
        return (flags & (FW_FIN | FW_RST)) != 0;
    return (flags & (FW_ACK | FW_RST)) == 0 || (flags & (FW_FIN | FW_RST)) == (FW_FIN | FW_RST);
}

static uint32_t behind(const struct fw_segment *s)
{
    return s->seq + s->len + ((s->flags & FW_SYN) != 0) + ((s->flags & FW_FIN) != 0);
}

void fw_tcp_begin(struct fw_tcp *t, unsigned from, const struct fw_segment *s)
{
    *t = (struct fw_tcp){ .state = FW_TCP_SYN, .opener = (uint8_t)(from & 1), .syn = behind(s) };
}

void fw_tcp_pick_up(struct fw_tcp *t)
{
    *t = (struct fw_tcp){ .state = FW_TCP_OPEN };
}

/* A SYN-ACK answers the SYN that is there: with what came in it, or without. */
static bool answers(const struct fw_tcp *t, const struct fw_segment *s, unsigned from)
{
    return from != t->opener && (int32_t)(s->ack - t->syn) <= 0 && (int32_t)(s->ack - t->syn) > -65536;
}

static bool next_syn(struct fw_tcp *t, unsigned from, const struct fw_segment *s)
{
    if (s->flags & FW_ACK) {
        if (t->state != FW_TCP_SYN && !t->again)
            return t->state == FW_TCP_SYNS || t->state == FW_TCP_OPEN; /* once more; its receiver answers with an ACK */
        if (!answers(t, s, from))
            return false;
        uint32_t syn = t->syn;
        *t = (struct fw_tcp){ .state = FW_TCP_SYNS, .opener = t->opener, .syn = syn };
        return true;
    }
    switch (t->state) {
    case FW_TCP_SYN:
        if (from != t->opener) { /* both open at once (RFC 9293, figure 8) */
            t->state = FW_TCP_SYNS;
            return true;
        }
        t->syn = behind(s); /* once more, or another one */
        return true;
    case FW_TCP_SYNS:
        return true;
    default:
        /* Its sender may have forgotten the connection; the answer will tell. */
        t->syn = behind(s);
        t->opener = (uint8_t)(from & 1);
        t->again = 1;
        return true;
    }
}

/* A reset counts when it has the very number that its receiver expects (RFC 5961, 3.2). Any other goes on, for the
 * receiver to judge, and changes nothing here. */
static bool next_reset(struct fw_tcp *t, unsigned from, const struct fw_segment *s)
{
    unsigned to = from ^ 1;

    if (t->state == FW_TCP_SYN) {
        if (from == t->opener)
            return true; /* it ends what the other end thought to have with it */
        if ((s->flags & FW_ACK) == 0 || s->ack != t->syn)
            return false;
        t->state = FW_TCP_RESET;
    } else if ((t->has_ack >> to & 1) != 0 && s->seq == t->ack[to]) {
        t->state = FW_TCP_RESET;
    }
    return true;
}

bool fw_tcp_next(struct fw_tcp *t, unsigned from, const struct fw_segment *s)
{
    from &= 1;
    if (t->state == FW_TCP_NONE || fw_tcp_flags_lie(s->flags))
        return false;
    if (s->flags & FW_RST)
        return next_reset(t, from, s);
    if (s->flags & FW_SYN)
        return next_syn(t, from, s);
    if (t->state == FW_TCP_SYN) /* an end that knows of an older connection answers a SYN so, without bytes */
        return from != t->opener && s->len == 0 && (s->flags & FW_FIN) == 0;

    if (t->state == FW_TCP_SYNS && from == t->opener)
        t->state = FW_TCP_OPEN;
    t->ack[from] = s->ack;
    t->has_ack |= (uint8_t)(1 << from);
    if (s->flags & FW_FIN) {
        t->fin[from] = behind(s);
        t->has_fin |= (uint8_t)(1 << from);
    }
    if (t->state == FW_TCP_OPEN && t->has_fin == 3 && t->has_ack == 3 && t->ack[0] == t->fin[1] &&
        t->ack[1] == t->fin[0])
        t->state = FW_TCP_FINS;
    return true;
}
