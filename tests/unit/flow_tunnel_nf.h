/* SPDX-License-Identifier: Apache-2.0 */
/* flow_tunnel_nf.h - an NF whose flows come in tunnels of every kind, and what is said to it. */
#pragma once
#include "flow_tunnel_lab.h"

/* One of each kind, in all their forms. MPLS over GRE is two tunnels. */
enum { KINDS = 16 };
extern const struct lab_tunnel kinds[KINDS];

/* The NF, with one handler at both halves. It gathers what each side is told in `text`, and holds every packet against the
 * tunnel that is expected, where one is. */
extern struct nst_nf nf;
extern char text[2][256];
extern unsigned text_len[2], n_events;
extern const struct lab_tunnel *expected;
extern enum nst_verdict verdict;
extern void (*in_event)(struct nst_flow *f, const struct nst_event *ev);

/* All of that anew: an engine that looks into these tunnels, for TCP or UDP. */
struct nst_engine_config config_for(unsigned tunnels, bool udp);

/* What was sent; where the inner IP header is in the last. */
extern uint8_t sent[8][LAB_FRAME];
extern unsigned sent_len[8], n_sent, last_l3;

/* An Ethernet frame, a segment, a datagram, or a whole conversation of TCP, in the tunnel. */
void send_in(const struct lab_tunnel *t, unsigned dir, const uint8_t *frame, unsigned len);
void send_tcp_in(const struct lab_tunnel *t, const struct lab_path *path, unsigned dir, struct lab_tcp tcp);
void say_in(const struct lab_tunnel *t, const struct lab_path *path, unsigned dir, const char *what);
void conversation(const struct lab_tunnel *t, const struct lab_path *path);

/* What left is what was sent. */
void check_unchanged(void);
