/* SPDX-License-Identifier: Apache-2.0 */
/* Tunnels: what is in them is what flows see, flows of two tunnels never are one, and headers that lie are nobody's
 * flow.
 */
#include "flow/checksum.h"
#include "flow/network.h"
#include "flow_tunnel_nf.h"
#include <netinet/in.h>
#include <netstar/edit.h>
#include <stdlib.h>

/* ---- every kind ---- */
static unsigned kind_at;
static const struct lab_path *inner_path;

static void kind_body(void)
{
    const struct lab_tunnel *t = &kinds[kind_at];

    expected = t;
    conversation(t, inner_path);
    for (unsigned i = 0; i < n_sent; i++)
        check(lab_whole_truth(sent[i], sent_len[i]));
    check_unchanged();
    struct nst_engine_stats s = lab_stats();
    check_eq(s.flows_opened, 1);
    check_eq(s.tunnelled, 5);
    check_eq(s.networks, 1);
    check_eq(s.stream_bytes, 14);
    check(strcmp(text[NST_SERVER], "question") == 0);
    check(strcmp(text[NST_CLIENT], "answer") == 0);
}

static void every_kind(void **state)
{
    static const struct lab_path *const paths[] = { &lab_tcp4, &lab_tcp6 };

    for (kind_at = 0; kind_at < KINDS; kind_at++) {
        for (unsigned i = 0; i < 2; i++) {
            inner_path = paths[i];
            lab_untrusted = i == 0;
            struct nst_engine_config config = config_for(NST_TUNNELS_ALL, false);
            lab_run(&config, kind_body);
            lab_untrusted = false;
        }
    }
}

static void unasked_body(void)
{
    const struct lab_tunnel *t = &kinds[kind_at];

    conversation(t, &lab_tcp4);
    check_unchanged();
    struct nst_engine_stats s = lab_stats();
    check_eq(s.flows_opened, 0);
    check_eq(s.other_proto + s.not_ip, 5);
}

/* Nobody asked for this kind: another protocol, which passes. */
static void only_what_was_asked_for(void **state)
{
    for (kind_at = 0; kind_at < KINDS; kind_at++) {
        struct nst_engine_config config = config_for(0, false);
        lab_run(&config, unasked_body);
        config.tunnels = NST_TUNNELS_ALL & ~(unsigned)kinds[kind_at].kind;
        lab_run(&config, unasked_body);
    }
}

static void by_nf_body(void)
{
    conversation(&kinds[KINDS - 1], &lab_tcp4);
    check_eq(lab_stats().flows_opened, 1);
}

static void the_nf_may_ask(void **state)
{
    struct nst_engine_config config = config_for(0, false);

    nf.tunnels = NST_TUNNEL_GTPU;
    lab_run(&config, by_nf_body);
}

/* ---- networks ---- */
static uint8_t names[16][NST_FLOW_KEY_MAX];
static size_t name_len[16];
static unsigned n_names;

static void note_name(struct nst_flow *f, const struct nst_event *ev)
{
    if (ev->side != NST_SERVER)
        return;
    name_len[n_names] = nst_flow_key(f, NST_SERVER, names[n_names]);
    check(name_len[n_names] <= NST_FLOW_KEY_MAX);
    n_names++;
}

static void apart_body(void)
{
    static const struct lab_tunnel tunnels[] = {
        { NST_TUNNEL_VXLAN, 4, 0, 0, 0, { 11, 12 }, { 5, 5 } },
        { NST_TUNNEL_VXLAN, 4, 0, 0, 0, { 11, 12 }, { 6, 6 } },
        { NST_TUNNEL_VXLAN, 4, 0, 0, 0, { 11, 13 }, { 5, 5 } },
        { NST_TUNNEL_VXLAN, 4, 0, 1, 5, { 11, 12 }, { 5, 5 } },
        { NST_TUNNEL_VXLAN, 6, T_SUM, 0, 0, { 11, 12 }, { 5, 5 } },
        { NST_TUNNEL_GRE, 4, T_KEY, 0, 0, { 11, 12 }, { 5, 5 } },
        { NST_TUNNEL_GRE, 4, T_KEY, 0, 0, { 11, 12 }, { 6, 6 } },
        { NST_TUNNEL_IPIP, 4, 0, 0, 0, { 11, 12 }, { 0, 0 } },
        { NST_TUNNEL_GTPU, 4, 0, 0, 0, { 11, 12 }, { 1, 2 } },
        { NST_TUNNEL_MPLS, 0, 0, 0, 0, { 1, 2 }, { 1, 2 } },
        { NST_TUNNEL_MPLS, 0, 0, 0, 0, { 1, 3 }, { 1, 2 } },
    };
    enum { N = sizeof tunnels / sizeof *tunnels };

    in_event = note_name;
    n_names = 0;
    for (unsigned i = 0; i < N; i++)
        conversation(&tunnels[i], &lab_tcp4);
    struct nst_engine_stats s = lab_stats();
    check_eq(s.flows_opened, N);
    check_eq(s.networks, N);
    check_eq(s.conflicts + s.retransmits, 0);
    lab_handshake(&lab_tcp4, 100, 500); /* and beside them, in none */
    lab_data(&lab_tcp4, C2S, 101, 501, "question");
    lab_settle();
    check_eq(lab_stats().flows_opened, N + 1);
    check_eq(n_names, N + 1);
    for (unsigned i = 0; i < n_names; i++)
        for (unsigned k = 0; k < i; k++)
            check(name_len[i] != name_len[k] || memcmp(names[i], names[k], name_len[i]) != 0);
    lab_clear();
}

static void tunnels_are_apart(void **state)
{
    struct nst_engine_config config = config_for(NST_TUNNELS_ALL, false);

    lab_run(&config, apart_body);
}

/* The VLAN of an Ethernet frame inside counts, too. */
static void inner_vlan_body(void)
{
    for (uint16_t vlan = 0; vlan < 3; vlan++) {
        struct lab_path path = lab_udp4;
        path.tags = vlan != 0;
        path.vlan[0] = vlan;
        say_in(&kinds[10], &path, C2S, "x");
        say_in(&kinds[10], &path, S2C, "y");
        n_sent = 0;
    }
    lab_settle();
    check_eq(lab_stats().flows_opened, 3);
    check_eq(lab_stats().networks, 3);
}

static void vlans_inside_are_apart(void **state)
{
    struct nst_engine_config config = config_for(NST_TUNNELS_ALL, true);

    lab_run(&config, inner_vlan_body);
}

/* Room for two networks; one more is refused, until a number is free and has rested. */
static void full_body(void)
{
    struct lab_tunnel t = kinds[10];

    for (unsigned i = 0; i < 4; i++) {
        t.id[0] = t.id[1] = 100 + i;
        say_in(&t, &lab_udp4, C2S, "x");
        n_sent = 0;
    }
    lab_settle();
    struct nst_engine_stats s = lab_stats();
    check_eq(s.flows_opened, 2);
    check_eq(s.networks_refused, 2);
    check_eq(s.dropped[NST_BY_NO_MEMORY], 2);
    check_eq(s.policy[NST_BY_NO_MEMORY], 2);
    lab.time += NST_SEC(200);
    t.id[0] = t.id[1] = 101; /* this one is still known; its flow has ended and begins anew */
    say_in(&t, &lab_udp4, C2S, "x");
    lab_settle();
    lab.time += NST_SEC(40);
    t.id[0] = t.id[1] = 103; /* takes the place of the first */
    say_in(&t, &lab_udp4, C2S, "x");
    lab_settle();
    s = lab_stats();
    check_eq(s.networks_refused, 2);
    check_eq(s.flows_opened, 4);
    check_eq(s.networks, 2);
    n_sent = 0;
    lab.ended = true;
}

static void room_for_networks(void **state)
{
    struct nst_engine_config config = config_for(NST_TUNNEL_VXLAN, true);

    config.networks = 2;
    lab_replay(&config, full_body);
}

static void names_and_numbers(void **state)
{
    struct hash_secret secret = { { 1, 2, 3, 4, 5, 6, 7, 8 } };
    uint16_t number[60];
    struct networks t;
    uint8_t name[NETWORK_NAME_MAX];
    const uint8_t *found;

    assert_int_equal(networks_open(&t, 60, 10, &secret), 0);
    memset(name, 0, sizeof name);
    for (unsigned i = 0; i < 60; i++) {
        name[3] = (uint8_t)i;
        number[i] = networks_find(&t, name, 4 + i, 1);
        assert_in_range(number[i], KEY_TUNNEL, KEY_TUNNEL + 59);
        assert_int_equal(networks_find(&t, name, 4 + i, 2), number[i]);
        assert_int_equal(networks_name(&t, number[i], &found), 4 + i);
        assert_memory_equal(found, name, 4 + i);
        if (i != 50)
            networks_hold(&t, number[i]);
    }
    name[3] = 200;
    assert_int_equal(networks_find(&t, name, 4, 12), NETWORK_NONE); /* it rests */
    assert_int_equal(networks_find(&t, name, 4, 13), number[50]);
    networks_hold(&t, number[50]);
    name[3] = 201;
    assert_int_equal(networks_find(&t, name, 4, 1000), NETWORK_NONE);
    networks_release(&t, number[7], 1000);
    assert_int_equal(networks_find(&t, name, 4, 1005), NETWORK_NONE);
    assert_int_equal(networks_find(&t, name, 4, 1011), number[7]);
    name[3] = 7;
    assert_int_equal(networks_find(&t, name, 4 + 7, 1012), NETWORK_NONE);
    networks_close(&t);
}

/* ---- headers that lie ---- */
static void cut_body(void)
{
    uint8_t inner[LAB_FRAME], frame[LAB_FRAME], damaged[LAB_FRAME];
    unsigned len =
        lab_wrap(frame, &kinds[kind_at], C2S, inner, lab_udp_frame(inner, &lab_udp4, C2S, "hello", 5), &last_l3);
    unsigned seen = n_events;

    for (unsigned n = 1; n < len; n++) {
        lab_send(C2S, frame, n);
        lab_settle();
        check_eq(n_events, seen);
        lab_clear();
    }
    /* The tunnel's own lengths say less than what is inside. */
    for (unsigned at = 14; at < last_l3; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            memcpy(damaged, frame, len);
            damaged[at] ^= (uint8_t)(1 << bit);
            lab_send(C2S, damaged, len);
        }
        lab_settle();
        lab_clear();
    }
    struct nst_engine_stats s = lab_stats();
    uint64_t ends = s.forwarded, faults = 0;
    for (unsigned i = 0; i < NST_CAUSES; i++)
        ends += s.dropped[i];
    for (unsigned i = 0; i < NST_FAULTS; i++)
        faults += s.faults[i];
    check_eq(ends + s.fragments_kept, s.packets);
    check(faults >= s.policy[NST_BY_MALFORMED] + s.policy[NST_BY_CHECKSUM]);
    check(s.faults[NST_FAULT_IP_LENGTH] + s.faults[NST_FAULT_TUNNEL] > 0);
}

static void cut_at_each_byte(void **state)
{
    for (kind_at = 0; kind_at < KINDS; kind_at++) {
        struct nst_engine_config config = config_for(NST_TUNNELS_ALL, true);
        lab_untrusted = true;
        lab_run(&config, cut_body);
        lab_untrusted = false;
    }
}

/* Each lie, and what it is counted as. */
static void lies_body(void)
{
    static const struct {
        unsigned kind, at; /* behind the outer IP header */
        uint8_t value;
        enum nst_fault fault; /* NST_FAULTS: it passes as what it is outside */
    } lies[] = {
        { 3, 0, 0x40, NST_FAULT_TUNNEL },      /* GRE with routing */
        { 3, 1, 0x01, NST_FAULTS },            /* version 1, which is PPTP's */
        { 3, 3, 0x0b, NST_FAULTS },            /* some other protocol in GRE */
        { 3, 4, 0x65, NST_FAULT_IP_VERSION },  /* no IPv4 inside */
        { 3, 0, 0x30, NST_FAULT_IP_HEADER },   /* key and sequence number in place of IP */
        { 10, 8, 0x00, NST_FAULTS },           /* VXLAN without a network */
        { 13, 8, 0x20, NST_FAULTS },           /* GTP' */
        { 13, 9, 0x01, NST_FAULTS },           /* an echo request */
        { 13, 10, 0x01, NST_FAULT_TUNNEL },    /* longer than the datagram */
        { 13, 11, 0x00, NST_FAULT_TUNNEL },    /* nothing in it */
        { 13, 11, 0x08, NST_FAULT_IP_HEADER }, /* less than IP in it */
        { 13, 16, 0x15, NST_FAULTS },          /* no IP in it */
        { 15, 20, 0x00, NST_FAULT_TUNNEL },    /* an extension header of no length */
        { 15, 20, 0xff, NST_FAULT_TUNNEL },    /* an endless one */
        { 8, 0, 0x55, NST_FAULT_IP_VERSION },  /* IP in IP: not IP */
        { 8, 2, 0xff, NST_FAULT_IP_LENGTH },   /* longer than what it is in */
    };

    for (unsigned i = 0; i < sizeof lies / sizeof *lies; i++) {
        const struct lab_tunnel *t = &kinds[lies[i].kind];
        uint8_t inner[LAB_FRAME], frame[LAB_FRAME];
        unsigned n = lab_udp_frame(inner, &lab_udp4, C2S, "hello", 5), head = t->family == 4 ? 34 : 54;
        struct nst_engine_stats before = lab_stats();
        uint64_t flows = before.flows_opened;

        n = lab_wrap(frame, t, C2S, inner, n, &last_l3);
        frame[head + lies[i].at] = lies[i].value;
        lab_send(C2S, frame, n);
        lab_settle();
        struct nst_engine_stats s = lab_stats();
        if (lies[i].fault == NST_FAULTS) {
            check_eq(lab.n_out, 1);
            check_eq(s.policy[NST_BY_MALFORMED], before.policy[NST_BY_MALFORMED]);
        } else {
            check_eq(lab.n_out, 0);
            check_eq(s.faults[lies[i].fault], before.faults[lies[i].fault] + 1);
            check_eq(s.dropped[NST_BY_MALFORMED], before.dropped[NST_BY_MALFORMED] + 1);
            check_eq(s.flows_opened, flows);
        }
        lab_clear();
    }
}

static void lies(void **state)
{
    struct nst_engine_config config = config_for(NST_TUNNELS_ALL, true);

    lab_run(&config, lies_body);
}

/* Tunnels in tunnels: as many as are looked into, and one more. */
static void depth_body(void)
{
    uint8_t frame[2][LAB_FRAME];
    unsigned len, n = 0;

    len = lab_udp_frame(frame[0], &lab_udp4, C2S, "hello", 5);
    for (unsigned depth = 1; depth <= NST_TUNNEL_DEPTH + 1; depth++, n = !n) {
        const struct lab_tunnel *t = &kinds[depth % 2 ? 10 : 4];
        struct lab_tunnel plain = *t;
        plain.tags = 0;
        len = lab_wrap(frame[!n], &plain, C2S, frame[n], len, &last_l3);
        check(lab_whole_truth(frame[!n], len));
        lab_send(C2S, frame[!n], len);
        lab_settle();
        check_eq(n_events, depth <= NST_TUNNEL_DEPTH ? depth : NST_TUNNEL_DEPTH);
        check_eq(lab.n_out, depth <= NST_TUNNEL_DEPTH);
        lab_clear();
    }
    check_eq(lab_stats().faults[NST_FAULT_TUNNEL_DEPTH], 1);
    check_eq(lab_stats().flows_opened, NST_TUNNEL_DEPTH);
}

static void depth(void **state)
{
    struct nst_engine_config config = config_for(NST_TUNNELS_ALL, true);

    lab_untrusted = true;
    lab_run(&config, depth_body);
    lab_untrusted = false;
}

/* ---- checksums ---- */
static void sums_body(void)
{
    for (unsigned i = 0; i < KINDS; i++) {
        struct nst_engine_stats before = lab_stats(), s;
        struct lab_tunnel t = kinds[i];
        unsigned head = 14 + 4u * t.tags + (t.family == 4 ? 20 : 40);
        uint8_t inner[LAB_FRAME], frame[LAB_FRAME];
        unsigned len = lab_udp_frame(inner, &lab_udp4, C2S, "hello", 5);

        inner[40] ^= 1; /* the datagram's own: no port vouches for it */
        len = lab_wrap(frame, &t, C2S, inner, len, &last_l3);
        lab_send(C2S, frame, len);
        lab_settle();
        s = lab_stats();
        check_eq(s.dropped[NST_BY_CHECKSUM], before.dropped[NST_BY_CHECKSUM] + 1);
        check_eq(s.faults[NST_FAULT_CHECKSUM], before.faults[NST_FAULT_CHECKSUM] + 1);
        if (!lab_untrusted || t.family == 0)
            continue;
        inner[40] ^= 1;
        len = lab_wrap(frame, &t, C2S, inner, len - (last_l3 - 14), &last_l3);
        if (t.family == 4) {
            frame[14 + 4 * t.tags + 8] ^= 1; /* outer time to live */
            lab_send(C2S, frame, len);
            frame[14 + 4 * t.tags + 8] ^= 1;
        }
        if (t.how & T_SUM) {
            frame[head + (t.kind == NST_TUNNEL_GRE ? 4 : 6)] ^= 4;
            lab_send(C2S, frame, len);
        }
        lab_settle();
        check_eq(lab_stats().faults[NST_FAULT_CHECKSUM_OUTER],
                 before.faults[NST_FAULT_CHECKSUM_OUTER] + (t.family == 4) + ((t.how & T_SUM) != 0));
    }
    check_eq(n_events, 0);
    check_eq(lab.n_out, 0);
}

static void wrong_checksums(void **state)
{
    for (unsigned i = 0; i < 2; i++) {
        struct nst_engine_config config = config_for(NST_TUNNELS_ALL, true);
        lab_untrusted = i == 0;
        lab_run(&config, sums_body);
        lab_untrusted = false;
    }
}

/* ---- ICMP errors in a tunnel are told to the flow there ---- */
static unsigned told;

static void tell(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_icmp icmp;

    if (ev->what & NST_EV_ICMP) {
        check_eq(nst_packet_icmp(ev->packet, &icmp), 0);
        check_eq(icmp.type, 3);
        told++;
    }
}

static void icmp_body(void)
{
    uint8_t quoted[LAB_FRAME], error[LAB_FRAME];
    struct lab_tunnel t = kinds[10], other = kinds[10];

    other.id[0] = other.id[1] = 99;
    told = 0;
    say_in(&t, &lab_udp4, C2S, "hello");
    lab_udp_frame(quoted, &lab_udp4, C2S, "hello", 5);
    unsigned at = lab_ip_header(error, &lab_udp4, S2C, IPPROTO_ICMP, 8 + 28);
    memcpy(error + at, "\3\1\0\0\0\0\0\0", 8);
    memcpy(error + at + 8, quoted + 14, 28);
    uint16_t sum = (uint16_t)~checksum_sum(error + at, 36);
    memcpy(error + at + 2, &sum, 2);
    send_in(&other, S2C, error, at + 36); /* there, nobody knows the flow */
    lab_settle();
    check_eq(told, 0);
    send_in(&t, S2C, error, at + 36);
    lab_settle();
    check_eq(told, 1);
    check_eq(lab_stats().icmp, 1);
    check_eq(lab_stats().forwarded, 3);
    n_sent = 0;
}

static void icmp_errors(void **state)
{
    struct nst_engine_config config = config_for(NST_TUNNELS_ALL, true);

    nf.half[0].on_received = nf.half[1].on_received = NST_EV_DATA | NST_EV_ICMP;
    in_event = tell;
    lab_run(&config, icmp_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind),
        cmocka_unit_test(only_what_was_asked_for),
        cmocka_unit_test(the_nf_may_ask),
        cmocka_unit_test(tunnels_are_apart),
        cmocka_unit_test(vlans_inside_are_apart),
        cmocka_unit_test(names_and_numbers),
        cmocka_unit_test(room_for_networks),
        cmocka_unit_test(cut_at_each_byte),
        cmocka_unit_test(lies),
        cmocka_unit_test(depth),
        cmocka_unit_test(wrong_checksums),
        cmocka_unit_test(icmp_errors),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
