/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/engine.h - one NF at work on one reactor: ports in, flows, verdicts, ports out.
 *
 * Ports are used in pairs: what is received by port 0 leaves by port 1 and the other way round, 2 and 3 likewise; the
 * frame itself is not changed. A packet that no flow engine can parse, that is not IP, or that no NF asked for, passes
 * through unchanged and is counted.
 */
#pragma once
#include <netstar/flow.h>
#include <netstar/reactor.h>
#include <netstar/tcp.h>

#ifdef __cplusplus
extern "C" {
#endif

struct nst_engine;
struct nst_port;
struct nst_cores;

struct nst_engine_config {
    const struct nst_nf *nf; /* lives as long as the engine */
    void *nf_arg;
    uint32_t flows;            /* at most so many at once; 0: 1048576 */
    size_t stream_memory;      /* bytes of stream data kept for all flows (out of order, unacknowledged); 0: 256 MiB */
    uint32_t stream_per_end;   /* and for one end of one flow: more than a receive window; 0: 8 MiB */
    size_t edit_memory;        /* where the NF edits: for the bytes of all its edits; 0: 64 MiB */
    uint32_t edit_per_stream;  /* and of those of one stream, each with 16 bytes more; 0: 1 MiB */
    nst_time idle_open;        /* life of a flow whose opening is not complete; 0: 30 s */
    nst_time idle_established; /* 0: 1 h */
    nst_time idle_closing;     /* after both FINs or a reset; 0: 10 s */
    nst_time idle_udp;         /* 0: 60 s */
    nst_time in_use;           /* an established TCP flow that was seen within this time is never given up for another;
                                  0: 5 min */
    enum nst_overlap overlap;  /* of TCP ends in no network of the following; the longest prefix counts */
    const struct nst_overlap_net *overlap_nets; /* copied; NULL with 0 of them */
    unsigned n_overlap_nets;
    uint32_t fragments;     /* that are kept at once; 0: 4096. At most an eighth of the packet buffers */
    size_t fragment_memory; /* and their bytes; 0: 16 MiB */
    nst_time fragment_time; /* until a datagram must be whole; 0: 30 s */
    unsigned tunnels;     /* bits of enum nst_tunnel: these are looked into, besides those that the NF names. Flows are
                                 then those of the innermost packets. Flows of two tunnels are never one, whatever their
                                 addresses: what tells tunnels apart is the pair of their outer addresses and, for GRE
                                 and VXLAN, key and VNI; for MPLS the pair of Ethernet addresses, since labels (like
                                 the TEIDs of GTP-U) are others in each direction */
    uint32_t networks;    /* that are inside tunnels and known at once; 0: 16384, at most 61439. One is known while it
                                 has flows; packets of a new one for which there is no room are on_no_memory's matter */
    bool trust_checksums; /* do not compute them; those that a device found wrong still are */
    void (*quiet)(void *arg); /* called when no packet is held and no handler runs, at the latest between two bursts
                                 of a capture; may be NULL */
    void *quiet_arg;
    struct nst_cores *cores; /* it is one of several, see cores.h; then the ports are those of nst_cores_open, and the
                                arguments of nst_engine_open say nothing. NULL: it is alone */
    unsigned core;           /* and this one of them */
};

/* Makes an engine on this reactor with n ports (n is 1 or even; see src/io/port.h and netstar/ports.h), which it
 * borrows. -EINVAL, -ENOMEM. */
NST_API int nst_engine_open(struct nst_engine **out, const struct nst_engine_config *config,
                            struct nst_port *const ports[], unsigned n);

/* Receives no more, but still takes what other cores hand over. On every core before the first is drained, so that none
 * ends while it is being given packets; an engine that is alone needs none. Never waits. */
NST_API void nst_engine_pause(struct nst_engine *e);

/* Receives no more, lets running handlers end, closes every flow (CLOSE with NST_CLOSED_BY_SHUTDOWN), sends what was
 * decided. Handlers that still wait at `until` are cancelled; -ETIMEDOUT when some are there even a second after that,
 * and then the engine cannot be closed yet. */
NST_API int nst_engine_drain(struct nst_engine *e, nst_time until) NST_WAITS;

/* Waits until every event that was under way when it was called has been decided: handlers have returned, callbacks have
 * said nst_resume, and loops have asked for their next event or bytes. Events that came later are not waited for. So what
 * was replaced before the call is used by no event after it. Costs a look at each flow, a few at a time, and nothing on the
 * packet path. 0; -ECANCELED. */
NST_API int nst_engine_settle(struct nst_engine *e) NST_WAITS;

/* Waits until every port has reached the end of its input (captures), and every packet its verdict: 0; -ECANCELED. */
NST_API int nst_engine_finish(struct nst_engine *e) NST_WAITS;

/* Frees a drained engine. NULL is allowed. */
NST_API void nst_engine_close(struct nst_engine *e);

/* Why a packet was dropped. Every drop has exactly one cause. */
enum nst_cause {
    NST_BY_VERDICT,      /* DROP */
    NST_BY_FLOW_VERDICT, /* of a flow under DROP_FLOW or RESET_FLOW */
    NST_BY_HANDLER,      /* taken and freed */
    NST_BY_OTHERWISE,    /* policy: no valid verdict */
    NST_BY_TIMEOUT,      /* policy: on_timeout */
    NST_BY_STORE,        /* policy: on_store */
    NST_BY_HOLD_FULL,    /* policy: on_hold_full */
    NST_BY_NO_MEMORY,    /* policy: on_no_memory */
    NST_BY_MIDSTREAM,    /* policy: on_midstream */
    NST_BY_CONFLICT,     /* policy: on_conflict */
    NST_BY_FRAGMENT,     /* policy: on_fragment */
    NST_BY_MALFORMED,    /* policy: on_malformed */
    NST_BY_CHECKSUM,     /* policy: on_checksum */
    NST_BY_ICMP,         /* policy: on_icmp */
    NST_BY_WINDOW,       /* policy: on_window */
    NST_BY_STALE,        /* policy: on_stale */
    NST_BY_BAD_ACK,      /* policy: on_bad_ack */
    NST_BY_STREAM_LIMIT, /* bytes beyond what may be kept until they are acknowledged */
    NST_BY_TX_FULL,      /* the port could not take it */
    NST_BY_SHUTDOWN,     /* held when the instance stopped */
    NST_BY_CORE_FULL,    /* for another core, whose ring was full */
    NST_BY_HELD_BACK,    /* arrived behind a hole at a half that edits: its bytes leave when that fills (edit.h) */
    NST_CAUSES,
};
NST_API const char *nst_cause_name(enum nst_cause cause);

/* What is wrong with a packet. The policy for its cause decides what becomes of it; here it is counted in any case. */
enum nst_fault {
    /* NST_BY_MALFORMED */
    NST_FAULT_ETHER,        /* shorter than its Ethernet header and VLAN tags */
    NST_FAULT_TAGS,         /* more than two VLAN tags, behind which IP may be hidden */
    NST_FAULT_IP_HEADER,    /* shorter than its IP header, or that says so itself */
    NST_FAULT_IP_VERSION,   /* another than the link's type says */
    NST_FAULT_IP_LENGTH,    /* longer than what came, or shorter than its header */
    NST_FAULT_IP_OPTION,    /* an option of IPv4 that ends behind the header */
    NST_FAULT_EXTENSION,    /* extension headers of IPv6 that are cut short, or more than 8 */
    NST_FAULT_TCP_HEADER,   /* shorter than a TCP header */
    NST_FAULT_TCP_OFFSET,   /* its data offset lies within that or behind the packet */
    NST_FAULT_UDP_HEADER,   /* shorter than a UDP header */
    NST_FAULT_UDP_LENGTH,   /* its length is less than that or more than what came */
    NST_FAULT_UDP_CHECKSUM, /* over IPv6 it has none */
    NST_FAULT_TUNNEL,       /* a tunnel's header is cut short or lies */
    NST_FAULT_TUNNEL_DEPTH, /* more tunnels in each other than are looked into */
    NST_FAULT_NESTED,       /* a fragment in a fragment */
    /* NST_BY_CHECKSUM */
    NST_FAULT_CHECKSUM,       /* of IPv4, TCP, UDP or ICMP */
    NST_FAULT_CHECKSUM_OUTER, /* of a tunnel: IPv4, UDP, GRE */
    /* NST_BY_FRAGMENT, for each fragment that does not become part of a whole */
    NST_FAULT_FRAGMENT_OVERLAP, /* it overlaps, or belongs to a datagram in which some do */
    NST_FAULT_FRAGMENT_LENGTH, /* no multiple of 8, behind the last, too many, or the whole too long; and its datagram's */
    NST_FAULT_FRAGMENT_REPEATED, /* the same once more, which does no harm */
    NST_FAULT_FRAGMENT_LATE,     /* others did not come in time, or before the end */
    NST_FAULT_FRAGMENT_ROOM,     /* it had waited longest when there was no room for others, or there is none for it */
    NST_FAULTS,
};
NST_API const char *nst_fault_name(enum nst_fault fault);

/* What a flow is worth when the table is full and another comes: the first in this order goes, and of those the one
 * that is longest in its state. Kinds that have less than a 32nd of the table are spared as long as others have more,
 * but for the first and the last. A flow whose handler waits is not given up. */
enum nst_worth {
    NST_WORTH_CLOSING,     /* both FINs or a reset */
    NST_WORTH_UNANSWERED,  /* TCP: only one end was heard, or the other only with a reset: half-open, scans */
    NST_WORTH_UDP_ONE_WAY, /* only one end was heard, and nothing since it came to the end of the row */
    NST_WORTH_ONE_WAY,     /* TCP picked up midstream, likewise */
    NST_WORTH_BLOCKED,     /* under DROP_FLOW or RESET_FLOW */
    NST_WORTH_OPENING,     /* TCP: answered, the handshake is not complete */
    NST_WORTH_UDP,         /* both ends were heard, but nothing since it came to the end of the row */
    NST_WORTH_IDLE,        /* established TCP, but not in use */
    NST_WORTHS,
};
NST_API const char *nst_worth_name(enum nst_worth worth);

struct nst_engine_stats {
    uint64_t packets, bytes; /* received */
    uint64_t forwarded, sent_by_handler, injected;
    /* Of those, fragments that left in fewer, because what they carried had been edited or normalised. What left is
     * forwarded + sent_by_handler + injected - joined. */
    uint64_t joined;
    uint64_t dropped[NST_CAUSES];
    uint64_t policy[NST_CAUSES];  /* times a policy was applied, forwarded or not */
    uint64_t not_ip, other_proto; /* passed through unseen, by reason; so are fragments and malformed packets
                                      under a policy that forwards them */
    uint64_t faults[NST_FAULTS];
    uint64_t icmp;                 /* ICMP errors told to the flow that they speak of */
    uint64_t tunnelled;            /* packets in tunnels that were looked into */
    uint64_t networks_refused;     /* of these, those of new networks for which there was no room */
    uint64_t networks;             /* that are known, or were */
    uint64_t fragments, datagrams; /* received of the NF's protocol; put together from them */
    uint32_t fragments_kept, fragments_kept_peak;
    uint64_t flows_opened, flows_closed, flows_evicted;
    uint64_t evicted[NST_WORTHS];                /* of flows_evicted */
    uint64_t flows_refused;                      /* packets for which no flow could be made */
    uint32_t flows, flows_peak, held, held_peak; /* those of 32 bits stand in pairs */
    uint64_t events, waits;                      /* handler calls; those that waited or were pending */
    uint64_t stream_bytes;                       /* delivered in order */
    uint64_t stream_kept, stream_kept_peak;      /* bytes now kept */
    uint64_t conflicts, gaps, retransmits;
    uint64_t unverified;   /* retransmissions of bytes that are no longer kept to compare them with */
    uint64_t unkept_bytes; /* delivered, but no room to keep them until they are acknowledged: see tcp.h */
    uint64_t edits;        /* made by the NF in TCP streams; those that found no room; and its bytes now kept */
    uint64_t edits_refused, edit_kept, edit_kept_peak;
    uint64_t lost_bytes; /* acknowledged by their receiver, but never seen here (holes in a capture) */
    uint64_t keep_alives;
    uint64_t syns_ignored;   /* to an end that has a connection, or still waits behind one */
    uint64_t resets_ignored; /* with another number than the one that resets */
    uint64_t beyond_window;  /* segments, and with an old time stamp */
    uint64_t stale;
    uint64_t bad_acks;  /* segments without an acknowledgment, or with one of what their receiver has not sent (live) */
    uint64_t urgent;    /* segments with an urgent pointer to a byte */
    uint64_t selective; /* segments with selective acknowledgments */
    uint64_t acks_ignored; /* of bytes that never came by here (live) */
    uint64_t elsewhere;    /* segments that told of packets which had gone another way; as often as looked at */
    uint64_t moved;        /* followed streams that were resumed further on */
    uint64_t normalised;   /* packets that were made equal to what was inspected */
    uint64_t given;        /* to the core that they belong to; not in `packets` here, but there, as `taken_over` */
    uint64_t taken_over;   /* of `packets`: from other cores */
    uint64_t watch_full;   /* nst_flow_watch and nst_flow_ignore that had no room for one more set of registrations */
    size_t bytes_per_flow; /* with the table's share at its limit */
};
/* Bytes that one flow of this NF costs at the table's limit, the table's share included. Any thread. */
NST_API size_t nst_engine_flow_bytes(const struct nst_nf *nf);

/* The numbers so far, a copy. Of an engine that is one of several see nst_cores_stats, too. */
NST_API void nst_engine_stats(const struct nst_engine *e, struct nst_engine_stats *out);

#ifdef __cplusplus
}
#endif
