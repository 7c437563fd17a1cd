/* SPDX-License-Identifier: Apache-2.0 */
/* What changes in a tunnel leaves with right lengths and checksums around it: edits, resets, and fragments inside, outside and
 * both.
 */
#include "flow/checksum.h"
#include "flow_tunnel_nf.h"
#include <netinet/in.h>
#include <netstar/edit.h>
#include <stdlib.h>

/* ---- editing ---- */
static void edit_headers(struct nst_flow *f, const struct nst_event *ev)
{
    static const uint8_t address4[4] = { 192, 0, 2, 77 }, address6[16] = { 0x20, 1, 0xd, 0xb8, [15] = 77 };
    struct nst_packet *p = ev->packet;
    const struct nst_headers *h = nst_packet_headers(p);

    check_eq(nst_packet_set_address(p, NST_SOURCE, h->family, h->family == 4 ? address4 : address6), 0);
    check_eq(nst_packet_set_port(p, NST_DESTINATION, 4321), 0);
    check_eq(nst_packet_set_ttl(p, 9), 0);
    check_eq(nst_packet_edit(p, h->payload, "H", 1), 0);
}

static void edit_longer(struct nst_flow *f, const struct nst_event *ev)
{
    check_eq(nst_flow_replace(f, ev->side, 1, 2, "*****", 5), 0);
}

static void edited_body(void)
{
    for (unsigned i = 0; i < KINDS; i++) {
        for (unsigned family = 0; family < 2; family++) {
            const struct lab_path *path = family == 0 ? &lab_udp4 : &lab_udp6;
            n_sent = 0;
            say_in(&kinds[i], path, C2S, "hello there");
            lab_settle();
            check_eq(lab.n_out, 1);
            if (lab.n_out == 1) {
                check(lab_whole_truth(lab.out[0].frame, lab.out[0].len));
                check(lab.out[0].len != sent_len[0] || memcmp(lab.out[0].frame, sent[0], sent_len[0]) != 0);
                if (in_event == edit_longer) {
                    check_eq(lab.out[0].len, sent_len[0] + 3);
                    check(memcmp(lab.out[0].frame + lab.out[0].len - 14, "h*****lo there", 14) == 0);
                }
            }
            lab_clear();
        }
    }
}

static void edits_leave_right(void **state)
{
    static void (*const edits[])(struct nst_flow *, const struct nst_event *) = { edit_headers, edit_longer };

    for (unsigned i = 0; i < 2; i++) {
        struct nst_engine_config config = config_for(NST_TUNNELS_ALL, true);
        in_event = edits[i];
        for (unsigned side = 0; side < 2; side++)
            nf.half[side].edits = true;
        lab_untrusted = true;
        lab_run(&config, edited_body);
        lab_untrusted = false;
    }
}

/* A stream in a tunnel is not edited, and that is said. */
static int replaced;

static void edit_stream(struct nst_flow *f, const struct nst_event *ev)
{
    replaced = nst_flow_replace(f, ev->side, 0, 1, "QQ", 2);
    check_eq(nst_flow_inject(f, ev->side, "x", 1), -EOPNOTSUPP);
    check_eq(nst_flow_inject_reset(f, ev->side), -EOPNOTSUPP);
}

static void stream_body(void)
{
    conversation(&kinds[10], &lab_tcp4);
    check_unchanged();
    check_eq(replaced, -EOPNOTSUPP);
    lab_clear();
    lab_handshake(&lab_tcp4, 100, 500);
    lab_data(&lab_tcp4, C2S, 101, 501, "x");
    lab_settle();
}

static void leave_streams(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_tunnel_layer l[NST_TUNNEL_DEPTH];

    if (nst_packet_tunnels(ev->packet, l) != 0)
        edit_stream(f, ev);
    else
        check_eq(nst_flow_replace(f, ev->side, 0, 1, "QQ", 2), 0);
}

static void streams_are_not_edited(void **state)
{
    struct nst_engine_config config = config_for(NST_TUNNELS_ALL, false);

    in_event = leave_streams;
    nf.half[NST_SERVER].edits = nf.half[NST_CLIENT].edits = true;
    replaced = 0;
    lab_run(&config, stream_body);
}

/* ---- resets ---- */
static unsigned kind_at;

static void reset_body(void)
{
    const struct lab_tunnel *t = &kinds[kind_at];
    bool both = t->kind != NST_TUNNEL_MPLS && t->kind != NST_TUNNEL_GTPU;
    uint8_t like[LAB_FRAME], inner[LAB_FRAME];
    unsigned len;

    n_sent = 0;
    send_tcp_in(t, &lab_tcp4, C2S, (struct lab_tcp){ .flags = SYN, .seq = 100 });
    send_tcp_in(t, &lab_tcp4, S2C, (struct lab_tcp){ .flags = SYN | ACK, .seq = 500, .ack = 101 });
    send_tcp_in(t, &lab_tcp4, C2S, (struct lab_tcp){ .flags = ACK, .seq = 101, .ack = 501 });
    lab_settle();
    lab_clear();
    verdict = NST_RESET_FLOW;
    send_tcp_in(t, &lab_tcp4, C2S,
                (struct lab_tcp){ .flags = ACK | PSH, .seq = 101, .ack = 501, .data = "bad", .len = 3 });
    lab_settle();
    check_eq(lab.n_out, both ? 2 : 1);
    for (unsigned i = 0; i < lab.n_out; i++) {
        unsigned dir = !lab.out[i].port; /* what leaves by the client's port goes from the server to the client */
        check(lab_whole_truth(lab.out[i].frame, lab.out[i].len));
        /* The same tunnel as of a packet that the other end sends. */
        len = lab_tcp_frame(inner, &lab_tcp4, dir, (struct lab_tcp){ .flags = RST | ACK });
        len = lab_wrap(like, t, dir, inner, len, &last_l3);
        check_eq(lab.out[i].len, len);
        unsigned same = t->family == 0 ? 12 : 14 + 4u * t->tags;
        if (t->family == 4)
            check(memcmp(lab.out[i].frame + same + 12, like + same + 12, 8) == 0);
        if (t->family == 6)
            check(memcmp(lab.out[i].frame + same + 8, like + same + 8, 32) == 0);
        check(memcmp(lab.out[i].frame, like, 12) == 0);
        check(memcmp(lab.out[i].frame + last_l3 + 12, like + last_l3 + 12, 12) == 0); /* addresses and ports inside */
        check(lab.out[i].frame[last_l3 + 33] & RST);
    }
    lab_clear();
}

static void resets(void **state)
{
    for (kind_at = 0; kind_at < KINDS; kind_at++) {
        struct nst_engine_config config = config_for(NST_TUNNELS_ALL, false);
        lab_run(&config, reset_body);
    }
}

/* ---- fragments, inside, outside and both ---- */
static uint8_t seen[LAB_FRAME];
static unsigned seen_len;

static void see(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_slice s;

    seen_len = 0;
    while (nst_flow_bytes(f, ev->side, &s)) {
        memcpy(seen + seen_len, s.p, s.len);
        seen_len += (unsigned)s.len;
    }
    nst_flow_rewind(f, ev->side);
}

static void see_and_edit(struct nst_flow *f, const struct nst_event *ev)
{
    see(f, ev);
    edit_headers(f, ev);
    check_eq(nst_flow_replace(f, ev->side, 0, 0, "x", 1), -EOPNOTSUPP);
}

/* Cuts the IPv4 packet at l3 of a frame behind so many bytes of its payload. */
static unsigned cut_frame(uint8_t *frame, unsigned *len, unsigned l3, unsigned cut, uint16_t id, uint8_t *tail)
{
    unsigned head = l3 + 20, rest = *len - head - cut;
    uint8_t *ip = frame + l3, *last = tail + l3;

    memcpy(tail, frame, head);
    memcpy(tail + head, frame + head + cut, rest);
    ip[4] = last[4] = (uint8_t)(id >> 8);
    ip[5] = last[5] = (uint8_t)id;
    ip[6] = 0x20;
    ip[2] = (uint8_t)((20 + cut) >> 8);
    ip[3] = (uint8_t)(20 + cut);
    last[6] = (uint8_t)(cut / 8 >> 8);
    last[7] = (uint8_t)(cut / 8);
    last[2] = (uint8_t)((20 + rest) >> 8);
    last[3] = (uint8_t)(20 + rest);
    checksum_ipv4(ip);
    checksum_ipv4(last);
    *len = head + cut;
    return head + rest;
}

static void queue_piece(const uint8_t *frame, unsigned len)
{
    memcpy(sent[n_sent], frame, len);
    sent_len[n_sent++] = len;
}

/* A datagram in a tunnel: as two fragments inside, each of which comes as two fragments outside, as asked. */
static void make_pieces(const struct lab_tunnel *t, bool inside, bool outside, uint16_t id)
{
    static char data[600];
    uint8_t frame[2][LAB_FRAME], outer[LAB_FRAME], tail[LAB_FRAME];
    unsigned len[2] = { 0 };

    memset(data, 'd', sizeof data);
    memcpy(data, "beginning", 9);
    len[0] = lab_udp_frame(frame[0], &lab_udp4, C2S, data, sizeof data);
    if (inside)
        len[1] = cut_frame(frame[0], &len[0], 14, 304, id, frame[1]);
    n_sent = 0;
    for (unsigned i = 0; i < 2 && len[i] != 0; i++) {
        unsigned n = lab_wrap(outer, t, C2S, frame[i], len[i], &last_l3);
        unsigned rest = outside ? cut_frame(outer, &n, 14 + 4u * t->tags, 160, (uint16_t)(id + 100 + i), tail) : 0;
        queue_piece(outer, n);
        if (rest != 0)
            queue_piece(tail, rest);
    }
}

static void fragments_body(void)
{
    uint16_t id = 1;

    for (unsigned i = 0; i < KINDS; i++) {
        for (unsigned how = 1; how < 4; how++) {
            if ((how & 2) && kinds[i].family != 4)
                continue;
            for (unsigned backwards = 0; backwards < 2; backwards++, id++) {
                make_pieces(&kinds[i], how & 1, how & 2, id);
                struct nst_engine_stats before = lab_stats();
                seen_len = 0;
                for (unsigned k = 0; k < n_sent; k++)
                    lab_send(C2S, sent[backwards ? n_sent - 1 - k : k], sent_len[backwards ? n_sent - 1 - k : k]);
                lab_settle();
                struct nst_engine_stats s = lab_stats();
                check_eq(seen_len, 600);
                check(memcmp(seen, "beginning", 9) == 0);
                check_eq(s.fragments - before.fragments, n_sent);
                check_eq(s.datagrams - before.datagrams, how == 3 ? 3 : 1);
                check_eq(s.fragments_kept, 0);
                if (verdict == NST_DROP) {
                    check_eq(lab.n_out, 0);
                    check_eq(s.dropped[NST_BY_VERDICT] - before.dropped[NST_BY_VERDICT], n_sent);
                } else {
                    check_eq(s.forwarded - before.forwarded, n_sent);
                    check_eq(lab.n_out, n_sent);
                }
                for (unsigned k = 0; k < lab.n_out && k < n_sent; k++) {
                    unsigned from = backwards ? n_sent - 1 - k : k;
                    check_eq(lab.out[k].len, sent_len[from]);
                    check((memcmp(lab.out[k].frame, sent[from], sent_len[from]) == 0) == (in_event == see) ||
                          (how & 2)); /* not all of those outside have to change */
                    if ((how & 2) == 0)
                        check(lab_whole_truth(lab.out[k].frame, lab.out[k].len));
                }
                lab_clear();
            }
        }
    }
    n_sent = 0;
}

static void fragments(void **state)
{
    for (unsigned i = 0; i < 3; i++) {
        struct nst_engine_config config = config_for(NST_TUNNELS_ALL, true);
        in_event = i == 1 ? see_and_edit : see;
        verdict = i == 2 ? NST_DROP : NST_FORWARD;
        for (unsigned side = 0; side < 2; side++)
            nf.half[side].edits = i == 1;
        lab_untrusted = true;
        lab_run(&config, fragments_body);
        lab_untrusted = false;
    }
}

/* What was edited in fragments that came in fragments themselves, put together again, has right sums all around. */
static uint8_t kept[64][1024];
static unsigned kept_len[64], n_kept;

static void keep_out(void)
{
    for (unsigned i = 0; i < KINDS; i++) {
        if (kinds[i].family != 4)
            continue;
        make_pieces(&kinds[i], true, true, (uint16_t)(i + 1));
        for (unsigned k = 0; k < n_sent; k++)
            lab_send(C2S, sent[k], sent_len[k]);
        lab_settle();
    }
    for (unsigned i = 0; i < lab.n_out && n_kept < 64; i++) {
        kept_len[n_kept] = lab.out[i].len;
        memcpy(kept[n_kept++], lab.out[i].frame, lab.out[i].len);
    }
}

static void send_kept(void)
{
    for (unsigned i = 0; i < n_kept; i++)
        lab_send(C2S, kept[i], kept_len[i]);
    lab_settle();
    struct nst_engine_stats s = lab_stats();
    check_eq(s.faults[NST_FAULT_CHECKSUM] + s.faults[NST_FAULT_CHECKSUM_OUTER], 0);
    check_eq(s.forwarded, n_kept);
    check(n_events > 0);
}

static void edited_fragments_hold(void **state)
{
    struct nst_engine_config config = config_for(NST_TUNNELS_ALL, true);

    in_event = see_and_edit;
    nf.half[NST_SERVER].edits = true;
    lab_untrusted = true;
    n_kept = 0;
    lab_run(&config, keep_out);
    assert_true(n_kept > 0);
    config = config_for(NST_TUNNELS_ALL, true);
    lab_run(&config, send_kept);
    lab_untrusted = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edits_leave_right), cmocka_unit_test(streams_are_not_edited), cmocka_unit_test(resets),
        cmocka_unit_test(fragments),         cmocka_unit_test(edited_fragments_hold),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
