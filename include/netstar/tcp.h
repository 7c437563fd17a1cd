/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/tcp.h - what nst_tcp knows of one end of a TCP flow (RFC 9293).
 *
 * nst_tcp mirrors the end `side`: it rebuilds the byte stream which that end receives, in order and each byte once,
 * across reordering, retransmission, overlap and the wrap of sequence numbers. Segments that arrive behind a hole are
 * kept (up to a limit; past it they are dropped and counted, so nothing leaves that was not kept) and forwarded; the
 * segment that fills the hole carries the verdict for all the bytes that it completes. Where two segments bring
 * different bytes for one place, the first stays and CONFLICT is raised. Bytes that were delivered are kept until the
 * end acknowledges them, so that a retransmission can be compared; bytes for which there is no room are dropped too,
 * but not in captures, where only one end is followed, or where policy.on_no_memory forwards.
 *
 * All functions are called on the flow's reactor, none waits. `side` must be inspected by nst_tcp.
 */
#pragma once
#include <netstar/flow.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where in the stream the bytes of the current packet begin: 0 is the first byte after the SYN. Before any data, or
 * for a flow that was picked up midstream, it counts from where the pick-up began. */
NST_API uint64_t nst_tcp_offset(const struct nst_flow *f, enum nst_side side);

/* The sequence number of that byte. */
NST_API uint32_t nst_tcp_seq(const struct nst_flow *f, enum nst_side side);

/* In a MIDSTREAM event: this end has received the stream up to sequence number `seq`, which is byte `offset` of it,
 * as another instance has recorded. The current packet is inspected anew against that, and what it brings is found with
 * nst_flow_bytes; returns its events (DATA, GAP, RETRANSMIT ...). Without a resume the handler's verdict
 * decides alone; where MIDSTREAM is not registered, policy.on_midstream does. */
NST_API nst_events nst_tcp_resume(struct nst_flow *f, enum nst_side side, uint32_t seq, uint64_t offset);

/* In a MIDSTREAM event: follow the stream from the current packet on, offset 0 being its first byte. */
NST_API nst_events nst_tcp_pickup(struct nst_flow *f, enum nst_side side);

#ifdef __cplusplus
}
#endif
