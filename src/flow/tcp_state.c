/* SPDX-License-Identifier: Apache-2.0 */
/* TCP's states as RFC 9293 names them, and what an end does not accept. Both follow from what tcp.c notes anyway; who has
 * not registered STATE or ERROR anywhere does not pay for the question.
 */
#include "flow/tcp_end.h"

enum nst_tcp_state tcp_state(const struct tcp_end *t)
{
    uint16_t is = t->flags | (t->now & (uint16_t)~TCP_NOW_ONLY);
    bool acked = t->fin_acked || (t->now & TCP_NOW_FIN_ACKED);
    /* As came_true() will find it. */
    bool first = t->waits || ((t->flags & (TCP_FIN_SENT | TCP_FIN_RECEIVED)) == TCP_FIN_SENT);

    if (is & TCP_RESET)
        return NST_TCP_CLOSED;
    if ((is & TCP_SYN_RECEIVED) == 0)
        return is & TCP_SYN_SENT ? NST_TCP_SYN_SENT : NST_TCP_CLOSED;
    if ((is & TCP_SYN_SENT) == 0)
        return NST_TCP_SYN_RECEIVED;
    switch (is & (TCP_FIN_SENT | TCP_FIN_RECEIVED)) {
    case TCP_FIN_SENT:
        return acked ? NST_TCP_FIN_WAIT_2 : NST_TCP_FIN_WAIT_1;
    case TCP_FIN_RECEIVED:
        return NST_TCP_CLOSE_WAIT;
    case TCP_FIN_SENT | TCP_FIN_RECEIVED:
        if (first)
            return acked ? NST_TCP_TIME_WAIT : NST_TCP_CLOSING;
        return acked ? NST_TCP_CLOSED : NST_TCP_LAST_ACK;
    default:
        return is & TCP_OPENED ? NST_TCP_ESTABLISHED : NST_TCP_SYN_RECEIVED;
    }
}

/* A reset that this end has sent closes it, too, once the other has accepted it. */
static enum nst_tcp_state state_of(const struct nst_flow *f, enum nst_side side)
{
    const struct tcp_end *t = tcp_end_of(f, side), *other = tcp_end_of(f, (enum nst_side) !side);

    return other != NULL && (other->flags & TCP_RESET) ? NST_TCP_CLOSED : tcp_state(t);
}

enum nst_tcp_state nst_tcp_state(const struct nst_flow *f, enum nst_side side)
{
    return tcp_end_of(f, side) != NULL ? state_of(f, side) : NST_TCP_CLOSED;
}

static nst_events told_packet(void *self, struct nst_flow *f, enum nst_side side, enum nst_dir dir,
                              struct nst_packet *p)
{
    enum nst_tcp_state was = state_of(f, side);

    p->error = NST_TCP_ACCEPTED;
    nst_events what = nst_tcp.packet(self, f, side, dir, p);
    if (state_of(f, side) != was)
        what |= NST_EV_STATE;
    if (p->error != NST_TCP_ACCEPTED)
        what |= NST_EV_ERROR;
    return what;
}

static const struct nst_inspector told = {
    .name = "tcp",
    .size = sizeof(struct tcp_end),
    .packet = told_packet,
    .verdict = tcp_verdict,
    .close = tcp_close,
    .bytes = tcp_bytes,
    .rewind = tcp_rewind,
};

void tcp_tell(struct nst_engine *e, enum nst_side side)
{
    if (e->half[side].inspect == &nst_tcp)
        e->inspect[side] = &told;
}

enum nst_tcp_error nst_tcp_error(const struct nst_flow *f, enum nst_side side)
{
    const struct nst_packet *p = nst_flow_packet(f, side);

    if (p == NULL || tcp_end_of(f, side) == NULL || f->engine->inspect[side] == &nst_tcp)
        return NST_TCP_ACCEPTED;
    return (enum nst_tcp_error)p->error;
}

const char *nst_tcp_state_name(enum nst_tcp_state state)
{
    static const char *const names[] = {
        [NST_TCP_CLOSED] = "CLOSED",
        [NST_TCP_SYN_SENT] = "SYN-SENT",
        [NST_TCP_SYN_RECEIVED] = "SYN-RECEIVED",
        [NST_TCP_ESTABLISHED] = "ESTABLISHED",
        [NST_TCP_FIN_WAIT_1] = "FIN-WAIT-1",
        [NST_TCP_FIN_WAIT_2] = "FIN-WAIT-2",
        [NST_TCP_CLOSE_WAIT] = "CLOSE-WAIT",
        [NST_TCP_CLOSING] = "CLOSING",
        [NST_TCP_LAST_ACK] = "LAST-ACK",
        [NST_TCP_TIME_WAIT] = "TIME-WAIT",
    };
    return (unsigned)state < sizeof names / sizeof *names ? names[state] : "unknown";
}

const char *nst_tcp_error_name(enum nst_tcp_error error)
{
    static const char *const names[] = {
        [NST_TCP_ACCEPTED] = "accepted",
        [NST_TCP_BEYOND_WINDOW] = "beyond the window",
        [NST_TCP_STALE] = "old time stamp",
        [NST_TCP_NO_ACK] = "no acknowledgment",
        [NST_TCP_BAD_ACK] = "bad acknowledgment",
        [NST_TCP_BAD_RESET] = "bad reset",
        [NST_TCP_BAD_SYN] = "bad SYN",
    };
    return (unsigned)error < sizeof names / sizeof *names ? names[error] : "unknown";
}
