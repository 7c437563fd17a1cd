/* SPDX-License-Identifier: Apache-2.0 */
/* bench/rebuild_capture.h - captures of whole TCP connections in memory, for those who rebuild streams.
 *
 * Each connection is played from its SYN to its last acknowledgment: a client asks, a server answers, with the options
 * that Linux sends (MSS, SACK, timestamps, window scale), an acknowledgment for every second segment, right checksums.
 * Many connections go on at the same time. In the lossy kind one of twenty data segments of the server is late by some
 * places, or was lost ahead of where the capture was taken and comes again later, or is there twice; the client answers
 * as a receiver does, with repeated acknowledgments. Bytes that come twice are the same both times, handshakes are in
 * order and the last segments are the last: there is one right answer, which is kept with the capture.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum rebuild_kind { REBUILD_HTTP, REBUILD_BULK, REBUILD_LOSSY, REBUILD_KINDS };

struct rebuild_frame {
    uint32_t at; /* in units of REBUILD_ALIGN from the beginning of the bytes */
    uint16_t len;
};
enum { REBUILD_AHEAD = 32, REBUILD_ALIGN = 64, REBUILD_LEAD = 2 /* so that the IP header is aligned to 4 */ };

/* What must come out: the bytes, each once, and a sum in which every byte counts by its connection, its direction and
 * its place. */
struct rebuild_answer {
    uint64_t bytes, sum;
};

struct rebuild_capture {
    uint8_t *bytes;
    size_t mapped;
    struct rebuild_frame *frames;
    uint64_t packets, wire_bytes; /* of the frames */
    uint32_t connections, at_once;
    uint64_t late, resent, repeated; /* segments */
    struct rebuild_answer answer;
};

/* The name of a kind in the results. */
const char *rebuild_kind_name(enum rebuild_kind kind);

/* Makes a capture of about so many packets. -ENOMEM. */
int rebuild_capture_make(struct rebuild_capture *out, enum rebuild_kind kind, uint64_t packets);
void rebuild_capture_free(struct rebuild_capture *c);

static inline uint8_t *rebuild_frame(const struct rebuild_capture *c, uint64_t i)
{
    return c->bytes + (size_t)c->frames[i].at * REBUILD_ALIGN + REBUILD_LEAD;
}

/* Asks for the headers of a frame, as who receives from a card would. */
static inline void rebuild_fetch(const struct rebuild_capture *c, uint64_t i, unsigned lines)
{
    if (i < c->packets) {
        const uint8_t *p = rebuild_frame(c, i), *end = p + lines * REBUILD_ALIGN;
        for (; p < end; p += REBUILD_ALIGN)
            __builtin_prefetch(p, 0, 2);
    }
}

/* Adds what was rebuilt, the bytes from `offset` of the stream that one end of a connection receives, to an answer. The
 * connection is named by its client: address and port, as numbers. */
void rebuild_answer_add(struct rebuild_answer *a, uint32_t client, uint16_t port, bool to_client, uint64_t offset,
                        const uint8_t *p, size_t len);
