/* SPDX-License-Identifier: Apache-2.0 */
/* flow_tcp_lab.h - an NF that follows TCP at both ends and writes down what its server half hears. */
#pragma once
#include "flow_lab.h"
#include <netinet/in.h>

extern const struct lab_path *const path;

extern struct seen {
    char text[1024]; /* the bytes that the server received, verdict FORWARD */
    unsigned len;
    nst_events what[64]; /* of each call */
    uint64_t offset[64];
    unsigned calls;
    enum nst_close_why why[8];
    unsigned closed;
    enum nst_verdict verdict; /* of the next calls */
    bool resume, pickup;      /* what to do with MIDSTREAM */
    uint32_t resume_seq;
    uint64_t resume_offset;
    nst_events resumed;
    const char *keep; /* bytes that nst_tcp_keep is told of */
    uint32_t keep_seq;
    int kept;
    uint32_t sent_upto; /* what nst_tcp_sent is told */
} seen;

extern const nst_events all_events;
extern struct nst_nf nf;
extern struct nst_engine_config config;

/* The server's half hears of these events of what it receives. */
void setup_nf(nst_events events);
/* The text that it has received. */
void check_text(const char *text);

/* Sends a segment; nothing is looked at yet. */
void seg(unsigned dir, uint8_t flags, uint32_t seq, uint32_t ack, const char *text);
/* The server acknowledges. */
void acks(uint32_t ack);
/* One data packet of the client, looked at: true when it was forwarded. */
bool data(uint32_t seq, const char *text);
/* Until so many CLOSE events have come, by idle times of a few ms. */
void wait_for_close(unsigned n);
