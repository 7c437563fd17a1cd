/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/tcp.h - what nst_tcp knows of one end of a TCP flow (RFC 9293), and what it means exactly.
 *
 * nst_tcp mirrors the end `side`: it rebuilds the byte stream which that end receives, in order and each byte once,
 * across reordering, retransmission, overlap and the wrap of sequence numbers. Where two ends could read different
 * bytes and nothing on the wire tells which, it raises CONFLICT, or drops for a counted cause, rather than guess in
 * silence.
 *
 * Places    A place is a sequence number of the sender's. `next` is the place of the first byte not yet delivered,
 *           `acked` the first one that the end has not acknowledged. Byte 0 of the stream has the number behind the
 *           SYN. All comparisons are modulo 2^32.
 * Effects   What a received segment does (bytes, FIN, RST, the number of a SYN) becomes true with FORWARD, FORWARD_FLOW
 *           and TAKEN, and is undone by any other verdict; so are the SYN and the FIN that an end sends. What it says
 *           beyond that (acknowledgment, window, time stamps, urgent pointer), and what is counted, counts when it is
 *           seen, whatever becomes of it.
 * Beginning A SYN says where the stream begins when that is not known yet, or when it has another number and this end
 *           has sent no SYN itself, and nothing was delivered or is kept, nor a FIN or a hole seen. The end settles it:
 *           by the acknowledgment in its SYN-ACK, or in its first ACK behind its own SYN. If that is no place between byte
 *           0 and `next`, the stream begins there anew (in a capture an ACK above `next` tells of a hole instead).
 *
 * ---- What a received segment causes ----
 * In this order; the first that applies ends it, unless said otherwise:
 *  1. RST: it resets the end when its number is `next` (RFC 5961), or, where the end has sent a SYN and nothing is known
 *     of its peer yet, when it has an ACK; and behind a hole of a capture, see below. Any other is counted
 *     (resets_ignored) and does nothing. No event but RESET.
 *  2. SYN: when the end has settled where its stream begins, nothing but an ACK in it counts (the end answers a SYN with
 *     an ACK, RFC 5961; syns_ignored). A SYN-ACK that does not acknowledge the end's SYN is ignored. Else its bytes, a
 *     FIN and so on are those of any segment, behind the SYN.
 *     No SYN: MIDSTREAM when none was received and nothing was picked up. CONFLICT, live and with both ends followed,
 *     when it has bytes and the end has not settled its beginning, unless it has sent a SYN and the bytes begin between
 *     byte 0 and `next`.
 *  3. Live, and no SYN: no ACK flag, or the acknowledgment of a byte that the end has not sent (where nst_tcp follows the
 *     other end from its SYN: it is beyond everything that came by here for it): policy.on_bad_ack.
 *  4. A segment with bytes or a FIN that the end has not acknowledged yet, and an older time stamp than the end takes:
 *     policy.on_stale.
 *  5. Bytes beyond the window: policy.on_window.
 *  6. A keep-alive, that is at most one byte, at next - 1, without SYN or FIN, when all that was delivered is
 *     acknowledged: counted (keep_alives), no event.
 *  7. Else, each on its own account:
 *     OPEN        an ACK, when this end has sent and received a SYN; once.
 *     URGENT      see below.
 *     RETRANSMIT  it has bytes, and the first lies before `next`, whatever is known of the byte there.
 *     GAP         it has bytes, and the first lies behind `next`, also when they are kept already.
 *     CONFLICT    one of its bytes differs from the one that is known at its place; bytes before `acked` are never
 *                 compared. Known are kept bytes: those behind a hole, and those delivered, until they are
 *                 acknowledged. Or it has bytes behind the end of the stream, or a FIN that does not lie before `acked`
 *                 says another end than an earlier one or than bytes that were seen. Bytes behind the end are never
 *                 delivered.
 *     DATA        it makes `next` go on: nst_flow_bytes gives the bytes.
 *
 * STATE and ERROR come beside these, wherever it ends: see below.
 *
 * ---- What is kept ----
 * Bytes behind a hole, until they are delivered; and delivered bytes, where DATA is registered and policy.on_conflict is
 * not FORWARD, until they are acknowledged. A segment with bytes that would have to be kept is refused (dropped as
 * "stream limit") when the number behind its last byte is more than stream_per_end above `acked`, when it begins more
 * than 2^30 above `next`, when the end holds more than stream_per_end / 256 + 16 blocks, or when the engine's stream
 * memory is used up: what is ahead of a hole leaves a quarter of it to what is in order, and no end gets more than a
 * share of what is unused. Three things lift that for a segment that is not behind a hole, which then passes unkept
 * (unkept_bytes): policy.on_no_memory that forwards, a capture, and an NF that follows one end only; but not while
 * bytes behind a hole are kept and the overlap policy is another than `first`. Where they would lift it, and while the
 * end has not been heard acknowledging, what lies more than 64 KiB (or stream_per_end / 2) before `next` counts as
 * acknowledged. A retransmission of which some byte between `acked` and `next` is not kept, where it should be, is
 * counted once (unverified).
 *
 * ---- Streams that go by several instances ----
 * Live, and where traffic may move between instances that share their state, the instance that follows an end may be behind
 * it, because packets went by another one. ELSEWHERE, where it is registered, tells of each segment, without SYN or RST, to
 * an end whose beginning is known, that may say so:
 *   - it has bytes or a FIN, and begins behind `next`; or has bytes, which all lie before `acked`
 *   - what it brings would be dropped for on_window or as "stream limit"; or for on_bad_ack, because of what it acknowledges
 * The handler then asks whoever knows. Without a word of his that changes it, what would have been dropped is dropped for its
 * cause when he forwards it (a policy that resets or drops the flow counts as NST_DROP); everything else is as it is without
 * ELSEWHERE, also DATA, GAP and so on, which come in the same call. An acknowledgment above `next` alone is no event:
 * what it says is not believed, and who has the bytes tells the next segment.
 *
 * ---- Holes of captures ----
 * An ACK above `next` counts as one of `next` (acks_ignored). In a capture it tells of a hole, too: the bytes were not
 * recorded, or stand behind the ACK, as with a tap for each direction. The hole reaches from `next` to the place that the
 * ACK says, which later ones do not change while the hole is waited for, except one of a FIN; the number behind a FIN is
 * no byte. It is filled when `next` has reached that place. A segment that comes to 7. and has no byte at `next` ends the
 * waiting when it
 *   - is the 16th of these behind the ACK, or the first behind the ACK of a FIN;
 *   - has a FIN, and the end has sent one;
 *   - begins behind `next`, and would be refused for its distance from `acked` or the end's share of memory.
 * Then, after its FIN was looked at and before its bytes are, `next` and `acked` go on to the first place that is kept,
 * or where the segment's bytes begin, or to the hole's end (lost_bytes); its bytes are compared with `next` as it is now.
 * What is kept there is delivered with this segment, also when it has no bytes (DATA). Before the hole's end, each of
 * these segments that follows goes on over the next part that is missing. Behind it the next ACK above `next` tells of
 * another hole. What is still kept behind a hole when the flow closes, for whatever reason, is no DATA any more:
 * nst_tcp_rest gives it in CLOSE.
 * While there is a hole, no time stamp is too old, and a RST resets the end also with the number of the hole's end, or
 * one behind it, up to the end of what is kept.
 *
 * ---- Overlaps ----
 * Bytes that were delivered never change. A segment may bring other bytes for a place whose byte is kept but not yet
 * delivered. Which of them the end reads depends on its system: enum nst_overlap, chosen by the address of the end that
 * receives (nst_engine_config). Unless an NF registers CONFLICT and forwards it, or policy.on_conflict is FORWARD, this
 * never comes up: the second segment is dropped, and only one can be read.
 *
 * The unit is the segment as it came: every kept byte remembers the first place of the segment that it came with, and
 * the place behind its last byte (without what lay behind the end of the stream). The byte of a new segment [a, b) takes
 * the place of a kept one that came with [c, d):
 *     first      never
 *     last       always
 *     bsd        a < c
 *     linux      a < c, or a = c and b > d
 *     old-linux  a < c, or a = c and b >= d
 *     solaris    b > d, or b = d and a <= c
 * also where both are equal: the place then counts as the new segment's.
 *
 * ---- The window ----
 * The right edge is the largest acknowledgment plus window (scaled where both SYNs offered it) that the end has sent
 * since it settled where its stream begins. A segment with bytes at or beyond it is beyond the window, except a single
 * byte right at the edge, which is a window probe and may be taken. Checked live, where both ends are followed from
 * their SYNs.
 *
 * ---- Time stamps (RFC 7323) ----
 * An end puts into every ACK the latest time stamp that it took, so what it ignores is known for certain: a segment
 * whose time stamp is older than the newest that the end has echoed (for linux and old-linux, and in captures: older by
 * more than one).
 * An echo that is newer than every time stamp sent to the end is not believed.
 *
 * ---- Urgent data ----
 * The byte before the urgent pointer's place is read in the stream (SO_OOBINLINE), or outside of it: nothing on the wire
 * tells. policy.urgent says which; URGENT tells of each segment with an URG flag and a pointer to a byte.
 * NST_URGENT_OUT: when DATA reaches that byte, nst_flow_bytes leaves it out; offsets count it. Only the furthest place
 * that is not yet delivered is remembered.
 *
 * ---- Normalisation (policy.normalise) ----
 * What leaves is what was inspected, so how the receiver would have decided does not matter: bytes that differ from the
 * known ones are overwritten with those, bytes beyond the window and behind the end of the stream are cut off, URG is
 * cleared, checksums are mended (normalised counts the packets). CONFLICT is still raised where it is registered, but
 * policy.on_conflict is only asked where the packet cannot be made right: a FIN that contradicts, a segment that lies
 * wholly behind the end, bytes before the beginning is settled. The overlap policy is `first`, and delivered bytes are
 * kept whatever on_conflict says.
 *
 * ---- States ----
 * STATE: this packet, sent or received, brings the end to another state of RFC 9293 than it had before. A state follows
 * from what the end has sent and received, as far as that was forwarded: the two SYNs, an ACK of its own SYN, the two
 * FINs, in which order they came by here, whether its own was acknowledged, a reset. CLOSED is also the state of an end of
 * which nothing is known yet; whether it listens nothing on the wire tells. TIME-WAIT stays until the flow ends. A stream
 * that was picked up or resumed is in ESTABLISHED from there on. A reset that an end sends closes it when the other end
 * accepts it: that is no STATE at the sender's half, unless only that is followed.
 *
 * ---- What an end does not accept ----
 * ERROR: nst_tcp_error says why this end will not accept what the segment brings.
 *     BEYOND_WINDOW   5. above; not when normalisation has cut that off
 *     STALE           4. above
 *     NO_ACK          no ACK flag, nor SYN or RST; also in a capture, where its bytes are taken nevertheless
 *     BAD_ACK         3. above; a SYN-ACK that does not acknowledge the end's SYN
 *     BAD_RESET       1. above: another number than the one that resets
 *     BAD_SYN         2. above: the end has settled where its stream begins
 * Where ERROR is registered, the handler decides in the place of on_window, on_stale and on_bad_ack: what lies beyond the
 * window is looked at like any other segment, the other two pass unseen when they are forwarded. What has a wrong
 * checksum comes to no flow (policy.on_checksum), what NetStar cannot keep to no handler.
 *
 * All functions are called on the flow's reactor, none waits. `side` must be inspected by nst_tcp.
 */
#pragma once
#include <netstar/flow.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How the end lets overlapping segments replace each other before it reads them; see above. Several systems are alike.
 */
enum nst_overlap {
    NST_OVERLAP_FIRST, /* what came first stays */
    NST_OVERLAP_LAST,
    NST_OVERLAP_BSD,
    NST_OVERLAP_LINUX,     /* 2.4 and later */
    NST_OVERLAP_OLD_LINUX, /* 2.2 and earlier */
    NST_OVERLAP_SOLARIS,
    NST_OVERLAPS,
    NST_OVERLAP_WINDOWS = NST_OVERLAP_BSD, /* up to 2003 */
    NST_OVERLAP_MACOS = NST_OVERLAP_BSD,
    NST_OVERLAP_VISTA = NST_OVERLAP_FIRST, /* and later Windows */
    NST_OVERLAP_HPUX11 = NST_OVERLAP_SOLARIS,
};

/* The ends of one network, for nst_engine_config. */
struct nst_overlap_net {
    uint8_t family; /* 4 or 6 */
    uint8_t bits;   /* of the prefix: 0 to 32, 0 to 128 */
    uint8_t addr[16];
    enum nst_overlap policy;
};

/* By its name on the command line, "linux", "windows" ...: 0 and *out, or -EINVAL. Any thread. */
NST_API int nst_overlap_by_name(const char *name, enum nst_overlap *out);

/* `next`: the place of the first byte that was not delivered before the current packet, so where the bytes of this
 * packet begin, in every event. 0 is the first byte after the SYN, or where a pick-up began. */
NST_API uint64_t nst_tcp_offset(const struct nst_flow *f, enum nst_side side);

/* The sequence number of that place. */
NST_API uint32_t nst_tcp_seq(const struct nst_flow *f, enum nst_side side);

enum nst_tcp_state {
    NST_TCP_CLOSED, /* or nothing is known of it; LISTEN is not told apart */
    NST_TCP_SYN_SENT,
    NST_TCP_SYN_RECEIVED,
    NST_TCP_ESTABLISHED,
    NST_TCP_FIN_WAIT_1,
    NST_TCP_FIN_WAIT_2,
    NST_TCP_CLOSE_WAIT,
    NST_TCP_CLOSING,
    NST_TCP_LAST_ACK,
    NST_TCP_TIME_WAIT,
};
/* The end's state. Of the half that is at an event: the one that a FORWARD makes true. At any time, also without STATE
 * registered; frozen once the half has let the flow go (FORWARD_FLOW). CLOSED where nst_tcp does not follow the end. */
NST_API enum nst_tcp_state nst_tcp_state(const struct nst_flow *f, enum nst_side side);

enum nst_tcp_error {
    NST_TCP_ACCEPTED,
    NST_TCP_BEYOND_WINDOW,
    NST_TCP_STALE,
    NST_TCP_NO_ACK,
    NST_TCP_BAD_ACK,
    NST_TCP_BAD_RESET,
    NST_TCP_BAD_SYN,
};
/* In an event: why the end does not accept the packet that its half is at. Looked for only where a flow of the engine has
 * registered STATE or ERROR at this half; else, and outside of events, NST_TCP_ACCEPTED. */
NST_API enum nst_tcp_error nst_tcp_error(const struct nst_flow *f, enum nst_side side);

/* In words, "ESTABLISHED", "old time stamp". Any thread. */
NST_API const char *nst_tcp_state_name(enum nst_tcp_state state);
NST_API const char *nst_tcp_error_name(enum nst_tcp_error error);

/* In a MIDSTREAM event: this end has received the stream up to sequence number `seq`, which is byte `offset` of it,
 * as another instance has recorded. The current packet is inspected anew against that, and what it brings is found with
 * nst_flow_bytes; returns its events (DATA, GAP, RETRANSMIT ...). If it turns out that it cannot be kept, or a policy
 * (on_stale, on_bad_ack, on_conflict) does not let it pass, it is dropped for that cause when the handler forwards it.
 * Without a resume the handler's verdict decides alone; where MIDSTREAM is not registered, policy.on_midstream does.
 *
 * In any other event of a received segment without SYN, live: the same for an end that is followed already. It only goes
 * forward: 0 is returned, and nothing has changed, when `offset` lies before the byte that is next; but where byte 0 would
 * have another number than here, that is another connection, and the end goes on with it. What it has kept before the
 * place is let go, and, also when it stays where it is, the window that it had offered is no longer known: what is beyond
 * that passes. A stream that is edited is not moved (0). What a look at the packet counts is counted with each. */
NST_API nst_events nst_tcp_resume(struct nst_flow *f, enum nst_side side, uint32_t seq, uint64_t offset);

/* Bytes of this end's stream that have gone to it by another way, behind a hole: they are kept, compared and delivered as if
 * their segment had come by here, and belong to nobody's verdict. Those before `next` and those that are kept already do not
 * count. In an event of a received packet, which has to be looked at again then, with nst_tcp_resume at the place
 * where the end stands. 0; -ENOSPC: they cannot be kept; -EINVAL: no such event, the beginning is not known, they lie behind the
 * end of the stream, are more than 65535, or the stream is edited. */
NST_API int nst_tcp_keep(struct nst_flow *f, enum nst_side side, uint32_t seq, struct nst_slice bytes);

/* Whether each of these bytes was delivered or is kept, at any time; not those that the current packet brings. */
NST_API bool nst_tcp_keeps(const struct nst_flow *f, enum nst_side side, uint32_t seq, uint32_t len);

/* In an event of a received segment: this end has sent everything before `upto`, by whichever way, so if the segment
 * acknowledges no more than that it is no bad acknowledgment. From then on the other end's acknowledgments are taken as they
 * come. The segment is inspected anew; returns its events. */
NST_API nst_events nst_tcp_sent(struct nst_flow *f, enum nst_side side, uint32_t upto);

/* In a CLOSE event, in a capture: the bytes that are still kept behind holes, piece by piece, and the byte of the stream
 * that each begins with. Of those between the pieces none was captured (lost_bytes). False: there are no more, or it is no
 * CLOSE, or not a capture: live, such bytes never reached the end's reader. */
NST_API bool nst_tcp_rest(struct nst_flow *f, enum nst_side side, uint64_t *offset, struct nst_slice *next);

/* In a MIDSTREAM event: follow the stream from the current packet on, offset 0 being its first byte. */
NST_API nst_events nst_tcp_pickup(struct nst_flow *f, enum nst_side side);

#ifdef __cplusplus
}
#endif
