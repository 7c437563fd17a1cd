/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/edit.h - changing what passes: headers, the bytes of a TCP stream or of a datagram; packets of one's own.
 *
 * Streams. A half whose `edits` is set (flow.h) may change the stream that its end receives: from a DATA event it
 * replaces, removes or inserts bytes among those that the current packet delivers, and at any time it may put bytes of
 * its own at the place where the stream is. Inspectors, offsets and events always speak of the stream as its *sender*
 * sent it; the engine maps sequence, acknowledgment and SACK numbers between what was sent and what the receiver gets,
 * in both directions, for the rest of the flow's life. Edited bytes are kept until the receiver has acknowledged them:
 * whatever the sender sends again, cut as it likes, leaves with the same bytes in the same places, and what is older than
 * that does not leave again. What grows beyond the receiver's maximum segment size leaves in several segments, beyond
 * its window as that opens; what shrinks to nothing leaves as a bare ACK, and the sender is told that its bytes have
 * arrived as soon as everything before them has.
 *
 * Edits are part of the verdict. FORWARD, FORWARD_FLOW and TAKEN make them true; a verdict that drops takes them back
 * together with the bytes. With a packet that was taken they leave when it is sent (nst_packet_send).
 *
 * Order. Only bytes that have not left can be edited: so segments that arrive behind a hole at an editing half are kept
 * back (cause "held back"), their sender hears of it by duplicate and selective acknowledgments, and they leave,
 * edited, with the segment that fills the hole. After FORWARD_FLOW the half edits no more, and segments pass in any
 * order.
 *
 * All functions are called on the flow's reactor, none waits.
 */
#pragma once
#include <netstar/flow.h>

#ifdef __cplusplus
extern "C" {
#endif

/* In a DATA event at `side`: in place of `remove` bytes at `offset` the end gets `len` others; either may be 0. Offsets
 * are those of nst_tcp_offset, which is where the current packet's bytes begin, and do not move by edits; for nst_udp
 * they count within the datagram, as it stands now. bytes are copied.
 *
 * TCP: the bytes must be among those that the current packet delivers; len bytes are inserted before `offset`, which
 * may be right behind the last of them. Edits of one event are made in rising order. nst_flow_bytes goes on to give the
 * bytes as they were sent. UDP: the datagram is changed at once, nst_flow_bytes begins again; a checksum of zero stays
 * zero.
 *
 * -EINVAL: not in a DATA event of this side, not in order, or not among those bytes. -EOPNOTSUPP: the half's `edits` is
 * not set, or the frame has headers around the packet that do not allow it. -ENOSPC: the limits of this flow's edits
 * or of all (engine.h) are reached: nothing was changed, nst_fail tells the policy's word. -EMSGSIZE (UDP): longer
 * than a packet or its link can be. */
NST_API int nst_flow_replace(struct nst_flow *f, enum nst_side side, uint64_t offset, size_t remove, const void *bytes,
                             size_t len);

/* Sends `side` bytes of one's own in TCP, in the name of the other end: at the place where its stream is, before
 * whatever comes next, also before what the event under way delivers. They leave at once, are sent again until the
 * end has acknowledged them (8 times at most, after a quarter of a second and twice as long each time; then the reset
 * of a connection that is stuck is left to its ends), and the numbers of all that follows are mapped. bytes are copied.
 *
 * -EOPNOTSUPP as above. -EAGAIN: nothing has been seen yet of which the addresses and numbers could be taken. -EPIPE:
 * its stream has ended. -ENOSPC as above. In a capture they are written once. */
NST_API int nst_flow_inject(struct nst_flow *f, enum nst_side side, const void *bytes, size_t len);

/* In an event at `side`: the bytes of the current packet, or without any the place where the stream is, are the last: a
 * FIN stands right behind them. What was taken out to be put back later must be put back now. */
NST_API bool nst_flow_ends(struct nst_flow *f, enum nst_side side);

/* Sends `side` a TCP reset in the name of the other end, with the number that it expects. The flow itself is left
 * as it is: NST_DROP_FLOW goes with it, and NST_RESET_FLOW does both for both ends. -EOPNOTSUPP, -EAGAIN as above;
 * -ENOMEM: no packet buffer. */
NST_API int nst_flow_inject_reset(struct nst_flow *f, enum nst_side side);

/* ---- headers; checksums are mended incrementally (RFC 1624), and one that was wrong stays wrong ---- */
enum nst_packet_end { NST_SOURCE, NST_DESTINATION };

/* The IP address, of `family` 4 or 6, in network order (4 or 16 bytes). -EINVAL: the packet is of another family. */
NST_API int nst_packet_set_address(struct nst_packet *p, enum nst_packet_end end, uint8_t family, const void *address);

/* The TCP or UDP port, in host order. -EINVAL: it has none. */
NST_API int nst_packet_set_port(struct nst_packet *p, enum nst_packet_end end, uint16_t port);

/* The Ethernet address, 6 bytes. */
NST_API int nst_packet_set_mac(struct nst_packet *p, enum nst_packet_end end, const void *mac);

/* Time to live, or hop limit. -EINVAL: not IP. */
NST_API int nst_packet_set_ttl(struct nst_packet *p, uint8_t ttl);

/* The differentiated services code point, 0 to 63 (RFC 2474); ECN is left alone. -EINVAL: not IP, or above 63. */
NST_API int nst_packet_set_dscp(struct nst_packet *p, uint8_t dscp);

#ifdef __cplusplus
}
#endif
