/* SPDX-License-Identifier: Apache-2.0 */
/* flow_half_lab.h - an NF whose handler is the test's, and what tests of halves ask again and again. */
#pragma once
#include "flow_lab.h"
#include <netinet/in.h>

typedef enum nst_verdict half_fn(struct nst_flow *f, const struct nst_event *ev);

extern struct nst_nf nf;
extern struct nst_engine_config config;
extern unsigned calls, closes; /* of the handler, for packets and for CLOSE */
extern enum nst_close_why last_why;
extern struct lab_answer answer[8];
extern struct nst_flow *pending_flow[8];

/* What every NF here has: counts, and calls on_event for packets. */
half_fn half_handler;
extern half_fn *on_event;

/* An NF whose server half hears of what the server receives, and asks fn; NULL: forwards. */
void setup_udp(half_fn *fn);
void setup_tcp(half_fn *fn);

/* Handlers that go by a packet's first byte: a capital letter is a verdict (see the code), and in the second and third
 * a to h wait for the answer, or are pending in pending_flow, of that number. */
half_fn by_letter, waits, pends;
char first_byte(struct nst_flow *f, const struct nst_event *ev);

/* A datagram of one of the flows that setup_udp's NF sees. */
void datagram(unsigned flow, unsigned dir, const char *text);

/* The first bytes of what left by a port, as a string. */
const char *left(unsigned port);
void check_left(const char *file, int line, unsigned port, const char *should);
#define check_out(port, should) check_left(__FILE__, __LINE__, port, should)

/* Waits until so many CLOSE events have come. */
void until_closed(unsigned n);
