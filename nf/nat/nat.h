/* SPDX-License-Identifier: Apache-2.0 */
/* nat/nat.h - what the NAT is on one reactor, and the steps that its handler in nat.c is made of.
 *
 *   wire.c   what a packet says, and translating it
 *   ports.c  blocks of ports, leased from the store's pool
 *   map.c    mappings, in the store and here
 */
#pragma once
#include "common/addresses.h"
#include <netstar/cores.h>
#include <netstar/flow.h>
#include <netstar/state.h>

enum { NAT_PUBLIC_MAX = 256, NAT_BLOCK_MAX = 256, NAT_PROTOS = 3 };

/* One end of a connection. For ICMP queries the port is the identifier. As it lies in the packet: it serves as a key. */
struct nat_end {
    uint8_t proto, addr[4], port[2];
};
_Static_assert(sizeof(struct nat_end) == 7, "without gaps");

/* What the store has of a mapping, under the inside end and under the outside end. Never changed once it is there. */
struct nat_record {
    struct nat_end inside, outside;
    uint8_t version, zero;
    uint8_t id[8]; /* which attempt made it: tells it from a later one between the same ends */
};
_Static_assert(sizeof(struct nat_record) == 24, "without gaps");

/* What this instance remembers of a mapping beside it. */
struct nat_local {
    uint32_t established; /* TCP connections that it carries, as far as they were seen here */
    nst_time life;        /* that it was given last by this instance, and when; 0: never */
    nst_time touched;
};

/* Of a flow from the inside: where its TCP connection is. */
enum nat_phase { NAT_NEW, NAT_OPENING, NAT_ESTABLISHED, NAT_CLOSING };
struct nat_session {
    uint8_t phase;
};

enum nat_way {
    NAT_OUT,     /* from an inside address to the world */
    NAT_IN,      /* from the world to a public address */
    NAT_HAIRPIN, /* from an inside address to a public one */
    NAT_ERROR,   /* an ICMP error about a packet that was translated */
    NAT_OTHER,   /* neither inside nor public: not ours */
    NAT_NO_MAP,  /* inside or public, but nothing that could be mapped */
    NAT_SPOOFED, /* an inside address on the outside */
};

struct nat_packet {
    enum nat_way way;
    struct nat_end src, dst;
    bool src_inside, dst_public;
    /* of an ICMP error: the packet that it quotes, and how many of its bytes are there */
    struct nat_end quoted_src, quoted_dst;
    uint16_t quoted_at, quoted_len;
};

enum nat_filter { NAT_FILTER_NONE, NAT_FILTER_ADDRESS, NAT_FILTER_PORT };

struct nat_block {
    struct nst_lease lease;
    uint16_t address; /* which public one */
    uint16_t first;   /* port */
    uint16_t next;    /* where to look first */
    nst_time used;
    nst_time full[NAT_PROTOS][3]; /* no even, odd, or any port is free before then, as far as is known here */
    nst_time busy[];              /* [protocol * block_size + port]: taken until then, as far as is known here */
};

struct nat {
    struct nst_store *store;            /* borrowed */
    struct nst_state *inside, *outside; /* mappings by either end */
    struct nst_state *permitted;        /* remote ends that were talked to; NULL where nothing is filtered */
    struct nf_addresses *inside_net;
    uint8_t public[NAT_PUBLIC_MAX][4];
    unsigned n_public;
    enum nat_filter filter;
    bool drop_others;
    nst_time udp_time, tcp_time, tcp_transitory, icmp_time, lease_time;
    uint32_t kept;                    /* objects of each kind that are kept here */
    uint16_t block_size, blocks_each; /* ports in a block; blocks that each public address has */
    struct nat_block **block;         /* [public * blocks_each + block]: ours, or NULL */
    unsigned *own, n_own;             /* their places */
    struct nst_scope *scope;          /* keeps the leases */
    const struct nst_cores *cores;
    unsigned core;
    uint64_t id;
    struct nst_nf nf;
    struct {
        uint64_t out, in, hairpin, errors; /* packets translated */
        uint64_t made;                     /* mappings, here */
        uint64_t met;                      /* mappings that were there already when this instance first met them */
        uint64_t raced;                    /* attempts that another instance, or another packet, was ahead of */
        uint64_t occupied;                 /* ports that were chosen but still mapped */
        uint64_t extended;                 /* mappings whose life was extended, or ended early */
        uint64_t broken;                   /* that had lost their outside end, and were made anew */
        uint64_t blocks_taken, blocks_given, blocks_lost;
        uint64_t unpaired;   /* blocks of another address than the inside host has, which is used up */
        uint64_t exhausted;  /* no port, of no public address */
        uint64_t no_mapping; /* dropped: to a public end that nobody is behind */
        uint64_t filtered;   /* dropped: from a remote end that was not talked to */
        uint64_t no_map;     /* dropped: cannot be mapped */
        uint64_t spoofed;    /* dropped: an inside address on the outside */
        uint64_t others;     /* neither inside nor public */
        uint64_t bad_records;
    } count;
};

/* ---- wire.c ---- */
void nat_look(const struct nat *nat, const struct nst_packet *p, struct nat_packet *x);
/* Gives the packet another source or destination; of an ICMP error, the packet that it quotes. */
void nat_set_source(struct nst_packet *p, const struct nat_packet *x, const struct nat_end *to);
void nat_set_destination(struct nst_packet *p, const struct nat_packet *x, const struct nat_end *to);
void nat_set_quoted(struct nst_packet *p, const struct nat_packet *x, const struct nat_end *src,
                    const struct nat_end *dst);

/* ---- ports.c ---- */
int nat_ports_open(struct nat *nat);
void nat_ports_close(struct nat *nat);
/* A free port for the inside end, as far as is known here; takes another block when there is none. remote: whom it talks to
 * first. -ENOSPC: there is none at all; or the store's error. */
int nat_port_choose(struct nat *nat, const struct nat_end *inside, const struct nat_end *remote, struct nat_end *out,
                    nst_time until) NST_WAITS;
/* The port is taken until then. */
void nat_busy(struct nat *nat, const struct nat_end *outside, nst_time until);

/* ---- map.c ---- */
int nat_map_open(struct nat *nat, const char **why);
void nat_map_close(struct nat *nat);
/* The mapping of an inside end, made if there is none: 0, and *m is held. */
int nat_map(struct nat *nat, const struct nat_packet *x, struct nst_object **m, nst_time until) NST_WAITS;
/* The mapping behind an inside or a public end: 0, or -ENOENT. */
int nat_find_inside(struct nat *nat, const struct nat_end *inside, struct nst_object **m, nst_time until) NST_WAITS;
int nat_find_outside(struct nat *nat, const struct nat_end *outside, struct nst_object **m, nst_time until) NST_WAITS;
/* A packet from the inside has used it: how long it lives from now on. -ESTALE: it is no longer ours; map again. */
int nat_use(struct nat *nat, struct nst_flow *f, struct nst_packet *p, struct nst_object *m, nst_time until) NST_WAITS;
/* The inside end has talked to a remote one, and is allowed to be answered. */
int nat_permit(struct nat *nat, const struct nst_object *m, const struct nat_end *remote, nst_time until) NST_WAITS;
/* 0, -EACCES: it has not. */
int nat_permitted(struct nat *nat, const struct nst_object *m, const struct nat_end *remote, nst_time until) NST_WAITS;

static inline const struct nat_record *nat_record(const struct nst_object *m)
{
    return m->value;
}

enum nst_verdict nat_handler(struct nst_flow *f, const struct nst_event *ev);
