/* SPDX-License-Identifier: Apache-2.0 */
/* firewall/track.h - where a TCP connection is in its life, as far as a firewall has to know: who may send what next.
 *
 * Only flags, and the few numbers that tell a true end from a false one, are looked at (RFC 9293, RFC 5961). Windows are
 * left to the ends: traffic may move to another instance and back at any packet, so this one may have seen only parts of
 * the stream, and would take the ends' numbers for wrong ones. Pure functions.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { FW_FIN = 1, FW_SYN = 2, FW_RST = 4, FW_PSH = 8, FW_ACK = 16, FW_URG = 32 };

enum fw_tcp_state {
    FW_TCP_NONE,
    FW_TCP_SYN,  /* one end has sent a SYN */
    FW_TCP_SYNS, /* both have */
    FW_TCP_OPEN, /* and that was acknowledged; or it was taken over in its middle */
    FW_TCP_FINS, /* both ends have finished, and know it of each other */
    FW_TCP_RESET,
};

/* By who sent it: 0 and 1, whichever way round the caller has it. */
struct fw_tcp {
    uint32_t ack[2];                  /* the last acknowledgment that this end has sent, with has_ack */
    uint32_t fin[2];                  /* the number behind its FIN, with has_fin */
    uint32_t syn;                     /* the number behind the last SYN without ACK */
    uint8_t state;                    /* enum fw_tcp_state */
    uint8_t opener : 1;               /* who has sent that SYN */
    uint8_t again : 1;                /* it was sent while the connection seemed to be open */
    uint8_t has_ack : 2, has_fin : 2; /* bits by end */
};

struct fw_segment {
    uint32_t seq, ack, len; /* bytes of payload */
    uint8_t flags;
};

/* Flags that no system sends together: none at all, SYN with FIN or RST, FIN without ACK. */
bool fw_tcp_flags_lie(uint8_t flags);

/* A connection begins with this SYN, or was taken over in its middle. */
void fw_tcp_begin(struct fw_tcp *t, unsigned from, const struct fw_segment *s);
void fw_tcp_pick_up(struct fw_tcp *t);

/* The next segment: true, and what it does is done; false: it has no place here, and nothing has changed. */
bool fw_tcp_next(struct fw_tcp *t, unsigned from, const struct fw_segment *s);
