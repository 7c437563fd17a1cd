/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/flow.h - the asynchronous flow: four pluggable parts, an inspector and an async part for each end.
 *
 *   client ==> [client.inspect] -> [client async] -> [server.inspect] -> [server async] ==> server
 *              seen as SENT                          seen as RECEIVED
 *   and the mirror image for what the server sends. A part left out is passed through at no cost.
 *
 * A flow is all packets between two endpoints of one protocol, in both directions; its client is the endpoint that
 * opened it (for a flow first seen midstream: the one with the higher port). A *half* is the pair of parts of one
 * end. An inspector is synchronous: it mirrors one endpoint's protocol state and says which events a packet
 * causes. An async part sees only the events that it registered, and may wait.
 *
 * Order     a half runs one event at a time. Packets that arrive meanwhile are held, in order, in a bounded queue,
 *           and are inspected when their turn comes: the state of an inspector never moves under a handler that
 *           waits. Other flows go on.
 * Verdicts  every packet ends as forwarded, or dropped for a counted cause. FORWARD commits what the packet did
 *           to the stream; DROP takes it back, so that a retransmission is inspected again.
 * Threads   a flow lives on one reactor; every function here is called there.
 */
#pragma once
#include <netstar/base.h>
#include <netstar/packet.h>

#ifdef __cplusplus
extern "C" {
#endif

struct nst_flow;

enum nst_side { NST_CLIENT, NST_SERVER };
enum nst_dir { NST_SENT, NST_RECEIVED };

enum nst_verdict {
    NST_UNDECIDED,    /* 0 is never a pass: it is counted as an error and policy.otherwise applies */
    NST_FORWARD,      /* this packet goes on */
    NST_DROP,         /* this packet ends here, and the bytes that it would have delivered are taken back */
    NST_FORWARD_FLOW, /* this packet and all that follow go on, unseen by this half */
    NST_DROP_FLOW,    /* this packet and all that follow, of both directions, end here, unseen */
    NST_RESET_FLOW,   /* as DROP_FLOW, and both TCP endpoints get a reset */
    NST_TAKEN,        /* the handler has taken the packet (nst_take) and will send or free it */
    NST_PENDING,      /* callback style: nst_resume will bring the verdict */
};

typedef uint64_t nst_events;
#define NST_EV_PACKET ((nst_events)1 << 0) /* any packet of the flow at this half */
#define NST_EV_OPEN ((nst_events)1 << 1)   /* TCP: the handshake is complete at this end; UDP: first packet */
#define NST_EV_DATA ((nst_events)1 << 2)   /* this end receives new bytes, in order (UDP: a datagram) */
/* The exact meanings of the next three, and of DATA for TCP, are in tcp.h. */
#define NST_EV_GAP ((nst_events)1 << 3)        /* bytes arrived behind a hole; they follow as DATA when it fills */
#define NST_EV_RETRANSMIT ((nst_events)1 << 4) /* the first byte of a segment lies before what is expected */
#define NST_EV_CONFLICT ((nst_events)1 << 5)   /* bytes differ from those that are known at their place */
#define NST_EV_MIDSTREAM ((nst_events)1 << 6)  /* first segment to this end of a flow whose start was not seen */
#define NST_EV_CLOSE ((nst_events)1 << 7)      /* the last event; always delivered once registered */
#define NST_EV_START ((nst_events)1 << 8)      /* TCP: the first SYN of a connection */
#define NST_EV_FIN ((nst_events)1 << 9) /* the last byte that this end receives is there, or this end sends its FIN */
#define NST_EV_RESET ((nst_events)1 << 10)           /* a reset that this end accepts */
#define NST_EV_ORPHAN NST_EV_MIDSTREAM               /* mOS's name for it */
#define NST_EV_URGENT ((nst_events)1 << 16)          /* an urgent pointer to a byte: see tcp.h */
#define NST_EV_ICMP ((nst_events)1 << 17)            /* this end receives an ICMP error: see nst_packet_icmp */
#define NST_EV_STATE ((nst_events)1 << 18)           /* TCP: another state of this end: see tcp.h */
#define NST_EV_ERROR ((nst_events)1 << 19)           /* TCP: this end does not accept what the packet brings: tcp.h */
#define NST_EV_ELSEWHERE ((nst_events)1 << 20)       /* TCP: packets of this stream may have gone another way: tcp.h */
#define NST_EV_USER(n) ((nst_events)1 << (32 + (n))) /* an inspector's or the NF's own, n below 32 */

/* Why the flow ended, for CLOSE. */
enum nst_close_why {
    NST_OPEN_STILL,
    NST_CLOSED_BY_FIN, /* both ends finished, or a new connection reuses the tuple after that */
    NST_CLOSED_BY_RST,
    NST_CLOSED_BY_TIMEOUT,  /* nothing was seen for too long */
    NST_CLOSED_BY_EVICTION, /* the table was full */
    NST_CLOSED_BY_VERDICT,  /* after DROP_FLOW or RESET_FLOW */
    NST_CLOSED_BY_SHUTDOWN, /* this instance stops, or the capture ended; the connection itself may go on */
};

struct nst_event {
    nst_events what;           /* only events that were registered */
    enum nst_side side;        /* the half that it happens at */
    enum nst_dir dir;          /* the packet as sent or as received by that side */
    enum nst_close_why why;    /* with CLOSE */
    struct nst_packet *packet; /* borrowed until the verdict; NULL for CLOSE */
    nst_time until;            /* the policy's budget for this event: pass it to every wait */
                               /* the event itself is lent for the call of the handler only */
};

/* Follows one endpoint. packet() is called for every packet of the half in turn, before the async part, and
 * returns the events that it causes. verdict() is called with what became of that packet, once for each packet(),
 * and close() when the flow ends. None may wait. State is zeroed at the flow's first packet. */
struct nst_inspector {
    const char *name;
    size_t size; /* bytes of state per end and flow; at most 256 */
    nst_events (*packet)(void *self, struct nst_flow *f, enum nst_side side, enum nst_dir dir, struct nst_packet *p);
    void (*verdict)(void *self, struct nst_flow *f, enum nst_side side, enum nst_verdict v);
    void (*close)(void *self, struct nst_flow *f, enum nst_side side);
    /* The bytes that this end receives with the current packet, in order, piece by piece: false when there are no
     * more. NULL: none. */
    bool (*bytes)(void *self, struct nst_flow *f, enum nst_side side, struct nst_slice *next);
    /* The current packet's bytes are handed out from the first again. NULL: they cannot be. */
    void (*rewind)(void *self, struct nst_flow *f, enum nst_side side);
};
NST_API extern const struct nst_inspector nst_tcp, nst_udp;

struct nst_half {
    const struct nst_inspector *inspect; /* NULL: none; then only PACKET and CLOSE can happen */
    nst_events on_sent, on_received;     /* what wakes the async part; CLOSE counts in either */
    /* One of the two, or neither:
     * handler  called for each event. It may wait, and then returns a verdict; for CLOSE the verdict is
     *          ignored. It may return NST_PENDING instead and call nst_resume later.
     * loop     a task that lives as long as this half of the flow and asks for events with nst_next or for bytes
     *          with nst_read. When it returns, the rest of the flow passes it unseen. */
    enum nst_verdict (*handler)(struct nst_flow *f, const struct nst_event *ev);
    void (*loop)(struct nst_flow *f, enum nst_side side);
    bool edits; /* it may change the stream that this end receives (edit.h); its inspector is nst_tcp or nst_udp */
};

enum nst_urgent {
    NST_URGENT_INLINE, /* urgent bytes are read in the stream, as with SO_OOBINLINE */
    NST_URGENT_OUT,    /* they are not */
};

/* What happens to a packet when the NF cannot decide. A verdict left 0 becomes NST_DROP: closed. */
struct nst_policy {
    nst_time budget;            /* per event; 0: 200 ms */
    uint16_t hold;              /* packets that may wait behind a handler, per half; 0: 64 */
    enum nst_verdict otherwise; /* NST_UNDECIDED or an impossible verdict */
    enum nst_verdict on_timeout;
    enum nst_verdict on_store;
    enum nst_verdict on_hold_full;
    enum nst_verdict on_no_memory; /* also when the flow table is full */
    enum nst_verdict on_midstream; /* see nst_fail; NST_FORWARD: followed from that packet on */
    enum nst_verdict on_conflict;  /* a CONFLICT that no handler registered, or a packet of the one end that comes in by
                                      the other's port; NST_FORWARD also switches the keeping of unacknowledged
                                      bytes off */
    enum nst_verdict on_window;    /* TCP bytes beyond the receiver's window; NST_FORWARD: looked at like any other */
    enum nst_verdict on_stale; /* TCP with an old time stamp, which its receiver ignores; NST_FORWARD: passes unseen */
    /* TCP without an acknowledgment, or with one of what its receiver has not sent, which ignores it; NST_FORWARD: passes
     * unseen. Live only. */
    enum nst_verdict on_bad_ack;
    enum nst_urgent urgent; /* what receivers do with urgent bytes */
    bool normalise;         /* TCP that leaves is made equal to what was inspected: see tcp.h */
    /* An IP fragment of the protocol that the NF is for, of which no whole datagram becomes: others are missing or overlap,
     * or there is no room. FORWARD: it goes on alone. */
    enum nst_verdict on_fragment;
    enum nst_verdict on_malformed; /* headers that lie, or are cut short; see enum nst_fault */
    /* A checksum of IPv4, TCP or UDP is wrong: its receiver will ignore the packet. FORWARD: it goes on, and no flow sees it.
     */
    enum nst_verdict on_checksum;
    /* An ICMP error about a flow that asks for NST_EV_ICMP, which quotes what its addressee cannot have sent. */
    enum nst_verdict on_icmp;
};

/* An event of the NF's own, built from others: NST_EV_USER(n) occurs when one of the events `of` does, in the same
 * packet, and filter says so. It is asked only while somebody has registered the event, or one that is built from it.
 *
 * of       events of the engine or an inspector, except CLOSE, and events that stand above this one in the NF's table
 * filter   NULL: always. It is called before the half's async part, with ev->what all that has occurred so far,
 *          registered or not. It may read the packet and its bytes (nst_flow_bytes; whoever reads next begins at the
 *          first again) and the flow's state, and change that; it may not wait, take the packet or decide.
 *
 * The policies come first: what is dropped for one, like a CONFLICT that is not registered itself, builds no event. */
struct nst_user_event {
    unsigned n;
    nst_events of;
    bool (*filter)(struct nst_flow *f, const struct nst_event *ev);
};

/* Flows of every IP protocol: whatever is IP meets the NF, or is dropped for a counted cause. The halves then have
 * inspectors of the NF's own, or none. TCP and UDP as ever; for the others stands in place of the ports:
 *   ICMP and ICMPv6 echo, request and reply: the identifier, twice, so that both are one flow
 *   any other ICMP message: its type at the sender, 65535 minus its type at the other end: a flow for each direction
 *   any other protocol: 0
 * An ICMP error first goes to the flow that it quotes (NST_EV_ICMP), where that is there and asks for it. */
#define NST_PROTO_ANY 255

struct nst_nf {
    const char *name;
    struct nst_half half[2]; /* by enum nst_side */
    struct nst_policy policy;
    size_t flow_size;                    /* the NF's own bytes per flow, zeroed; at most 1024 */
    uint8_t proto;                       /* only flows of this IP protocol are for it, the rest passes; 0: that of its
                                            inspector, or, without one, TCP and UDP; NST_PROTO_ANY: all of IP, see below */
    const struct nst_user_event *events; /* the NF's own, n_events of them, at most 32 */
    unsigned n_events;
    unsigned tunnels; /* bits of enum nst_tunnel: it wants to see the flows inside (see struct nst_engine_config) */
};

/* The arg with which the NF was started; its own bytes of this flow (aligned to 8). Borrowed. */
NST_API void *nst_nf_arg(const struct nst_flow *f);
NST_API void *nst_flow_state(struct nst_flow *f);

/* What an ICMP error says (RFC 792: destination unreachable, source quench, redirect, time exceeded, parameter problem;
 * RFC 4443: types 1 to 4). It comes as NST_EV_ICMP at the half of the end that it is sent to, which is the end whose packet
 * it quotes, and nowhere else; no inspector sees it. It has to quote a flow that is there, be sent to the quoted packet's
 * sender, and, where nst_tcp mirrors the other end, quote a sequence number between what that has acknowledged and the
 * last byte on its way there (RFC 5927). Errors that no flow asked for pass as another protocol. */
struct nst_icmp {
    uint8_t type, code;
    uint32_t mtu; /* of "fragmentation needed" and "packet too big"; 0: none was said */
};
/* -ENOENT: the packet is no ICMP error. */
NST_API int nst_packet_icmp(const struct nst_packet *p, struct nst_icmp *out);

/* The state of a half's inspector, for functions that go with an inspector of one's own. NULL: it has none. */
NST_API void *nst_flow_inspector(struct nst_flow *f, enum nst_side side);

/* The packet that a half is at, between the inspector's packet() and verdict(); NULL at other times. */
NST_API struct nst_packet *nst_flow_packet(const struct nst_flow *f, enum nst_side side);

/* The name of the stream that `side` receives: the same bytes in every instance and after every restart, whichever
 * packet of the flow was seen first, so it serves as a key in a store. Returns its length: at most 39 bytes, unless the
 * flow is in a tunnel that is looked into. */
enum { NST_FLOW_KEY_MAX = 208 };
NST_API size_t nst_flow_key(const struct nst_flow *f, enum nst_side side, uint8_t key[NST_FLOW_KEY_MAX]);

/* The flow's endpoints, for messages and logs. */
struct nst_endpoint {
    uint8_t family;   /* 4 or 6 */
    uint8_t addr[16]; /* network order; IPv4 uses the first 4 */
    uint16_t port;    /* host order */
};
NST_API void nst_flow_endpoint(const struct nst_flow *f, enum nst_side side, struct nst_endpoint *out);
NST_API uint8_t nst_flow_proto(const struct nst_flow *f);
/* 0: none, or the flow is in a tunnel. */
NST_API uint16_t nst_flow_vlan(const struct nst_flow *f);

/* ---- for inspectors: how far the flow is in its life, which sets how long it may be idle (engine.h) ---- */
enum nst_life { NST_LIFE_OPENING, NST_LIFE_ESTABLISHED, NST_LIFE_CLOSING };
NST_API void nst_flow_life(struct nst_flow *f, enum nst_life life, enum nst_close_why why);

/* The bytes that `side` receives by the current packet, in order, piece by piece: true and *next, or false when
 * there are no more. Borrowed until the verdict. Only from a DATA event at that side. */
NST_API bool nst_flow_bytes(struct nst_flow *f, enum nst_side side, struct nst_slice *next);

/* The bytes of the current packet from the first on once more. */
NST_API void nst_flow_rewind(struct nst_flow *f, enum nst_side side);

/* Registers further events, or withdraws some, for one half of one flow and one direction; CLOSE counts in either. What
 * is said inside an event, an inspector or a filter holds from the next packet that this half comes to; packets that
 * are held are inspected when their turn comes, so it holds for them. CLOSE counts as it is registered when the flow
 * ends. After FORWARD_FLOW, DROP_FLOW or RESET_FLOW, and when the loop has ended, only CLOSE is left to be heard of.
 *
 * DATA that is registered in the middle of a stream begins with the next byte. Bytes that went by before cannot be
 * compared when they come again: that counts as `unverified`.
 *
 * -EINVAL: the half has no async part. -ENOSPC: the flows of the engine would have more than 255 different sets of
 * registrations (counted as watch_full); nothing has changed then. */
NST_API int nst_flow_watch(struct nst_flow *f, enum nst_side side, enum nst_dir dir, nst_events events);
NST_API int nst_flow_ignore(struct nst_flow *f, enum nst_side side, enum nst_dir dir, nst_events events);
/* What is registered there now. */
NST_API nst_events nst_flow_watched(const struct nst_flow *f, enum nst_side side, enum nst_dir dir);

/* The policy's word on a failed wait or operation, counted by cause: -ETIMEDOUT and -ECANCELED as on_timeout, -ENOMEM
 * and -ENOSPC as on_no_memory, -ESRCH as on_midstream (the flow's start was not seen and nobody knows its state),
 * everything else as on_store. */
NST_API enum nst_verdict nst_fail(struct nst_flow *f, int rc);

/* Takes the event's packet from the flow: the caller sends or frees it, and returns NST_TAKEN. */
NST_API struct nst_packet *nst_take(const struct nst_event *ev);

/* Answers the event's packet to its sender, in the name of whom it is for: TCP with a reset (RFC 9293, 3.10.7.1), anything
 * else with the ICMP error "communication administratively prohibited" (RFC 1812, 5.2.7.1; RFC 4443, 3.1). The packet is
 * left as it is: the verdict NST_DROP goes with it. -EOPNOTSUPP: it gets no answer: a reset, an ICMP error, a packet to
 * or from many or nobody (RFC 1122, 3.2.2). -EAGAIN: more than 1000 answers in a second. -ENOMEM. -EINVAL: no packet, or
 * it was taken. */
NST_API int nst_packet_refuse(const struct nst_event *ev);

/* Takes the event's packet so that it leaves later, while the flow goes on: it counts as held, the engine is not drained
 * before it has met its end, and a capture's clock stands. The caller returns NST_TAKEN, and ends it by exactly one of the
 * two below, nst_packet_send or nst_packet_free being none of them. NULL: as many packets are held as may be; it has not
 * been taken. Whoever keeps packets of a flow sees to their order. */
NST_API struct nst_packet *nst_packet_keep(const struct nst_event *ev);
/* Sends a packet that was kept to where FORWARD would have sent it. Never waits. */
NST_API void nst_packet_forward(struct nst_packet *p);
/* The policy's word on it, as nst_fail has it: it is sent, or dropped for the cause. Of verdicts on the whole flow, which may
 * have ended, only what they mean for this packet is done. Never waits. */
NST_API void nst_packet_fail(struct nst_packet *p, int rc);

/* ---- loop style ---- */
/* Waits for the half's next event: 0 and *ev. Decide each event that carries a packet before asking for the next:
 * an undecided one counts as NST_UNDECIDED. -ETIMEDOUT: none until then; -ECANCELED: the flow has ended (CLOSE was
 * delivered before, if registered). */
NST_API int nst_next(struct nst_flow *f, enum nst_side side, struct nst_event *ev, nst_time until) NST_WAITS;
NST_API void nst_decide(struct nst_flow *f, const struct nst_event *ev, enum nst_verdict v);
/* Reads len bytes of the stream that this side receives. Asking for bytes forwards the packets whose bytes were all
 * read; the packet that brought the last byte stays undecided until the next call or nst_decide_read. Less than len
 * (even 0): the stream has ended. -ETIMEDOUT when the deadline comes before the first byte, else the number read until
 * then. */
NST_API int nst_read(struct nst_flow *f, enum nst_side side, void *buf, size_t len, nst_time until) NST_WAITS;
/* Reads up to and with the first occurrence of the delimiter, of n bytes (1 to 16), wherever segments divide it: the
 * number of bytes, at most len. What came behind it stays unread.
 * -EMSGSIZE: it is not within the first len bytes, which are in buf; what follows stays unread.
 * -ENODATA: the stream has ended before it; what was left of it is in buf, *got bytes (got may be NULL).
 * -ETIMEDOUT: it did not come until the deadline; what came is in buf, *got bytes, and counts as read.
 * -ECANCELED: the task was cancelled. -EINVAL: no loop at this half, or n. Verdicts as with nst_read: the packet that
 * brought the last byte stays undecided, those before it are forwarded. */
NST_API int nst_read_until(struct nst_flow *f, enum nst_side side, void *buf, size_t len, const void *delimiter,
                           size_t n, size_t *got, nst_time until) NST_WAITS;
/* What is left unread of the piece of the current packet that was read last, without reading it: true and *next,
 * borrowed until the next call for this half; false when nothing is left. Does not wait. */
NST_API bool nst_peek(struct nst_flow *f, enum nst_side side, struct nst_slice *next);
/* How the stream that this side receives has ended: NST_OPEN_STILL while it has not, NST_CLOSED_BY_FIN when every byte
 * before the FIN was given, else why the flow ended, which may have been in the middle of the stream. */
NST_API enum nst_close_why nst_read_end(struct nst_flow *f, enum nst_side side);
/* The verdict on the packet that brought the last byte read. */
NST_API void nst_decide_read(struct nst_flow *f, enum nst_side side, enum nst_verdict v);

/* ---- callback style ---- */
/* The verdict on the event for which this half's handler returned NST_PENDING; exactly once for each. The flow may be
 * gone when it returns. */
NST_API void nst_resume(struct nst_flow *f, enum nst_side side, enum nst_verdict v);

#ifdef __cplusplus
}
#endif
