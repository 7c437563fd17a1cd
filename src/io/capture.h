/* SPDX-License-Identifier: Apache-2.0 */
/* io/capture.h - the two ends of a capture port: inputs, read one packet ahead, and the output. */
#pragma once
#include "io/packet.h"
#include <pcap/pcap.h>
#include <stdio.h>

/* A frame is kept up to here: the lengths of packets and of their headers have 16 bits. Super-packets of TCP
 * segmentation offload fit but for the last bytes of the very largest. */
enum { CAPTURE_FRAME_MAX = 65535 };

struct capture_input {
    pcap_t *pcap;
    FILE *file;       /* of pcap; NULL once it is closed */
    const char *name; /* borrowed */
    int fd;           /* of a pipe or the like, which may have nothing now; else -1 */
    bool nanoseconds; /* its times may be finer than microseconds */
    bool have;        /* there is a packet in head and data */
    bool ended;
    uint64_t packets, bytes; /* read so far; bytes: of the file, headers included */
    uint64_t of_bytes;       /* 0: not known */
    struct pcap_pkthdr *head;
    const uint8_t *data; /* until the next capture_read_next */
};

/* -ENOENT, -EACCES, -EINVAL (no capture, not Ethernet) and others of open(2), and *why naming the file. May wait for
 * the header when the input is a pipe. */
int capture_input_open(struct capture_input *in, const char *name, const char **why);

/* Makes the next packet the current one: 1, 0 when a pipe has none now, -ENODATA at the end, or -EIO and *error
 * (borrowed, naming file and packet) when the rest cannot be read, which is also the end. */
int capture_input_next(struct capture_input *in, const char **error);

/* The current packet's time in ns since 1970. */
nst_time capture_input_time(const struct capture_input *in);
void capture_input_close(struct capture_input *in);

struct capture_output;

/* Makes the file. -errno and *why. */
int capture_output_open(struct capture_output **out, const char *name, bool nanoseconds, const char **why);

/* Takes a packet, to be written with its original time (mbuf's tx_offload, see capture.c; 0: the packet's time). One
 * without a number comes right behind the one added before it. False when as many are kept as may be. */
bool capture_output_add(struct capture_output *o, struct rte_mbuf *m);

/* Writes what is kept in the order of the packets' numbers, and frees it. Returns how many could not be written; then
 * *error says why (borrowed). */
unsigned capture_output_flush(struct capture_output *o, const char **error);

/* Flushes and closes: 0 or -errno, and *error as above. NULL is allowed. */
int capture_output_close(struct capture_output *o, const char **error);
