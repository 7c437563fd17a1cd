/* SPDX-License-Identifier: Apache-2.0 */
/* Fragments: put together before flows see them, sent on as they came, or as what was edited; given up in all ways. */
#include "flow/checksum.h"
#include "flow/engine.h"
#include "flow_half_lab.h"
#include <stdlib.h>

enum { PIECES_MAX = 300, DATA_MAX = 65507 };

struct piece {
    unsigned len;
    uint8_t *frame;
};

static struct piece piece[PIECES_MAX];
static unsigned n_pieces;
static uint8_t data[DATA_MAX], seen[DATA_MAX];
static unsigned seen_len;
static uint16_t next_id;

static void free_pieces(void)
{
    for (unsigned i = 0; i < n_pieces; i++)
        free(piece[i].frame);
    n_pieces = 0;
}

/* One fragment of the packet in `whole`: the bytes [at, at + size) behind its IP header. */
static struct piece cut_piece(const uint8_t *whole, unsigned l3, unsigned at, unsigned size, bool more, uint16_t id)
{
    bool v4 = whole[l3] >> 4 == 4;
    unsigned head = l3 + (v4 ? 20 : 40), extra = v4 ? 0 : 8;
    struct piece p = { .len = head + extra + size };
    uint16_t field = rte_cpu_to_be_16((uint16_t)(v4 ? at / 8 | (more ? 0x2000u : 0) : at | more));
    uint16_t length = rte_cpu_to_be_16((uint16_t)(v4 ? 20 + size : 8 + size));

    p.frame = malloc(p.len);
    memcpy(p.frame, whole, head);
    memcpy(p.frame + head + extra, whole + head + at, size);
    if (v4) {
        memcpy(p.frame + l3 + 2, &length, 2);
        memcpy(p.frame + l3 + 4, &id, 2);
        memcpy(p.frame + l3 + 6, &field, 2);
        checksum_ipv4(p.frame + l3);
    } else {
        memcpy(p.frame + l3 + 4, &length, 2);
        memset(p.frame + head, 0, 8);
        p.frame[head] = p.frame[l3 + 6];
        memcpy(p.frame + head + 2, &field, 2);
        memcpy(p.frame + head + 4, &id, 2);
        p.frame[l3 + 6] = IPPROTO_FRAGMENT;
    }
    return p;
}

static void cut(const uint8_t *whole, unsigned len, unsigned l3, unsigned size)
{
    unsigned head = l3 + (whole[l3] >> 4 == 4 ? 20 : 40);

    free_pieces();
    next_id++;
    for (unsigned at = 0; at < len - head; at += size) {
        bool more = at + size < len - head;
        piece[n_pieces++] = cut_piece(whole, l3, at, more ? size : len - head - at, more, next_id);
    }
}

/* A datagram of n bytes, in pieces of `size` bytes of IP payload. */
static void cut_datagram(const struct lab_path *path, unsigned n, unsigned size)
{
    uint8_t *frame = malloc(DATA_MAX + 200);

    for (unsigned i = 0; i < n; i++)
        data[i] = (uint8_t)(i * 7 + i / 251 + next_id);
    cut(frame, lab_udp_frame(frame, path, C2S, data, n), 14 + 4u * path->tags, size);
    free(frame);
}

static void send_piece(unsigned i)
{
    lab_send(0, piece[i].frame, piece[i].len);
}

/* Everything that left are the pieces, in the order in which they were sent. */
static void check_pieces_left(const unsigned *order, unsigned n)
{
    check_eq(lab.n_out, n);
    for (unsigned i = 0; i < n && i < lab.n_out; i++) {
        unsigned k = order != NULL ? order[i] : i;
        check_eq(lab.out[i].len, piece[k].len);
        check_eq(lab.out[i].port, 1);
        check(lab.out[i].len == piece[k].len && memcmp(lab.out[i].frame, piece[k].frame, piece[k].len) == 0);
    }
}

static enum nst_verdict note(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_slice s;

    seen_len = 0;
    while (nst_flow_bytes(f, ev->side, &s)) {
        memcpy(seen + seen_len, s.p, s.len);
        seen_len += (unsigned)s.len;
    }
    return NST_FORWARD;
}

static void check_account(void)
{
    struct nst_engine_stats s = lab_stats();
    uint64_t ends = s.forwarded + s.sent_by_handler;

    for (unsigned i = 0; i < NST_CAUSES; i++)
        ends += s.dropped[i];
    check_eq(s.packets, ends + s.fragments_kept + s.held);
}

/* ---- whole in every order ---- */
static void orders_body(void)
{
    static const struct lab_path *const paths[] = { &lab_udp4, &lab_udp6 };
    static const unsigned sizes[] = { 8, 16, 104, 552, 1480 };
    uint64_t rnd = lab_seed();

    for (unsigned round = 0; round < 120; round++) {
        struct lab_path path = *paths[round % 2];
        unsigned order[PIECES_MAX], size = sizes[lab_random(&rnd, 5)];
        path.tags = round / 2 % 3;
        path.vlan[0] = path.vlan[1] = 5;
        cut_datagram(&path, lab_random(&rnd, RTE_MIN(size * 200, 60000u)) + size, size);
        for (unsigned i = 0; i < n_pieces; i++)
            order[i] = round % 3 == 1 ? n_pieces - 1 - i : i;
        for (unsigned i = n_pieces - 1; round % 3 == 2 && i > 0; i--) {
            unsigned k = lab_random(&rnd, i + 1), t = order[i];
            order[i] = order[k];
            order[k] = t;
        }
        unsigned before = calls;
        for (unsigned i = 0; i < n_pieces; i++) {
            check_eq(calls, before);
            send_piece(order[i]);
            if (i % 50 == 0)
                lab_settle();
        }
        lab_settle();
        check_eq(calls, before + 1);
        check(memcmp(seen, data, seen_len) == 0);
        check_pieces_left(order, n_pieces);
        check_account();
        check_eq(lab_stats().fragments_kept, 0);
        lab_clear();
    }
    check_eq(lab_stats().datagrams, 120);
    check_eq(lab_stats().forwarded, lab_stats().packets);
    free_pieces();
}

static void whole_in_every_order(void **state)
{
    setup_udp(note);
    lab_untrusted = true;
    lab_run(&config, orders_body);
    lab_untrusted = false;
}

/* The longest that has its place, and one that has not. */
static void longest_body(void)
{
    cut_datagram(&lab_udp4, 65430, 1480);
    for (unsigned i = 0; i < n_pieces; i++)
        send_piece(i);
    lab_settle();
    check_eq(calls, 1);
    check_eq(seen_len, 65430);
    check(memcmp(seen, data, seen_len) == 0);
    check_pieces_left(NULL, n_pieces);
    lab_clear();
    cut_datagram(&lab_udp4, 65507, 1480);
    for (unsigned i = 0; i < n_pieces; i++)
        send_piece(i);
    lab_settle();
    check_eq(calls, 1);
    check_eq(lab.n_out, 0);
    check_eq(lab_stats().dropped[NST_BY_FRAGMENT], n_pieces);
    check_account();
    free_pieces();
}

static void longest(void **state)
{
    setup_udp(note);
    lab_untrusted = true;
    lab_run(&config, longest_body);
    lab_untrusted = false;
}

/* ---- verdicts ---- */
static enum nst_verdict take_and_send(struct nst_flow *f, const struct nst_event *ev)
{
    check_eq(nst_packet_send(nst_take(ev), 1), 0);
    return NST_TAKEN;
}

static enum nst_verdict take_and_free(struct nst_flow *f, const struct nst_event *ev)
{
    nst_packet_free(nst_take(ev));
    return NST_TAKEN;
}

static enum nst_verdict say_drop(struct nst_flow *f, const struct nst_event *ev)
{
    return NST_DROP;
}

static void verdict_body(void)
{
    cut_datagram(&lab_udp6, 4000, 1000);
    for (unsigned i = 0; i < n_pieces; i++)
        send_piece(i);
    lab_settle();
    struct nst_engine_stats s = lab_stats();
    check_eq(calls, 1);
    check_eq(s.sent_by_handler, on_event == take_and_send ? n_pieces : 0);
    check_eq(s.dropped[NST_BY_HANDLER], on_event == take_and_free ? n_pieces : 0);
    check_eq(s.dropped[NST_BY_VERDICT], on_event == say_drop ? n_pieces : 0);
    check_account();
    if (on_event == take_and_send)
        check_pieces_left(NULL, n_pieces);
    else
        check_eq(lab.n_out, 0);
    free_pieces();
}

static void every_verdict(void **state)
{
    half_fn *const fns[] = { take_and_send, take_and_free, say_drop };

    for (unsigned i = 0; i < 3; i++) {
        setup_udp(fns[i]);
        lab_run(&config, verdict_body);
    }
}

/* ---- given up ---- */
static unsigned given_up(void)
{
    struct nst_engine_stats s = lab_stats();
    check_eq(s.policy[NST_BY_FRAGMENT],
             nf.policy.on_fragment == NST_FORWARD ? s.forwarded : s.dropped[NST_BY_FRAGMENT]);
    return (unsigned)s.policy[NST_BY_FRAGMENT];
}

static void overlap_body(void)
{
    uint8_t frame[LAB_FRAME];
    unsigned len = lab_udp_frame(frame, &lab_udp4, C2S, data, 400), up = 0;
    static const struct {
        unsigned at, size;
        bool more;
    } bad[] = {
        { 16, 48, true },    /* over the end of the first */
        { 40, 8, true },     /* inside of it */
        { 0, 40, true },     /* from the same place, shorter */
        { 0, 64, true },     /* and longer */
        { 400, 16, false },  /* another end */
        { 56, 100, true },   /* no multiple of 8 */
        { 56, 0, true },     /* nothing */
        { 384, 24, true },   /* beyond the end */
        { 65528, 16, true }, /* no datagram is so long */
    };

    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        lab_clear();
        cut(frame, len, 14, 48);
        send_piece(0);
        send_piece(n_pieces - 1);
        lab_settle();
        check_eq(given_up(), up);
        uint8_t *odd = calloc(1, 70000);
        memcpy(odd, frame, len);
        memset(odd + 34 + bad[i].at, 0x5a, bad[i].size); /* other bytes */
        struct piece p = cut_piece(odd, 14, bad[i].at, bad[i].size, bad[i].more, next_id);
        lab_send(0, p.frame, p.len);
        lab_settle();
        up += 3;
        check_eq(given_up(), up);
        /* Whatever comes now is given up, too: the datagram will never be whole. */
        for (unsigned k = 0; k < n_pieces; k++)
            send_piece(k);
        lab_settle();
        up += n_pieces;
        check_eq(given_up(), up);
        check_eq(calls, 0);
        check_account();
        free(p.frame);
        free(odd);
    }
    free_pieces();
}

static void overlaps_condemn(void **state)
{
    for (unsigned open = 0; open < 2; open++) {
        setup_udp(note);
        nf.policy.on_fragment = open ? NST_FORWARD : 0;
        lab_run(&config, overlap_body);
    }
}

/* The same fragment once more condemns nothing. */
static void repeat_body(void)
{
    cut_datagram(&lab_udp4, 1000, 104);
    for (unsigned i = 0; i + 1 < n_pieces; i++) {
        send_piece(i);
        send_piece(i / 2);
    }
    send_piece(n_pieces - 1);
    lab_settle();
    check_eq(calls, 1);
    check_eq(seen_len, 1000);
    check_eq(lab_stats().dropped[NST_BY_FRAGMENT], n_pieces - 1);
    check_pieces_left(NULL, n_pieces);
    check_account();
    free_pieces();
}

static void repetitions(void **state)
{
    setup_udp(note);
    lab_run(&config, repeat_body);
}

/* The capture's clock ends what is never whole, and so does its end; other flows' packets come between. */
static void time_body(void)
{
    cut_datagram(&lab_udp4, 1000, 104);
    send_piece(0);
    lab.time += NST_SEC(29);
    send_piece(1);
    datagram(1, C2S, "x");
    lab_settle();
    check_eq(lab_stats().fragments_kept, 2);
    check_eq(lab_stats().dropped[NST_BY_FRAGMENT], 0);
    lab.time += NST_SEC(2);
    datagram(1, C2S, "x");
    lab_settle();
    check_eq(lab_stats().fragments_kept, 0);
    check_eq(lab_stats().dropped[NST_BY_FRAGMENT], 2);
    /* In one burst, too, the second is too late. */
    send_piece(0);
    lab.time += NST_SEC(40);
    for (unsigned i = 1; i < n_pieces; i++)
        send_piece(i);
    lab_settle();
    check_eq(calls, 2);
    check_eq(lab_stats().dropped[NST_BY_FRAGMENT], 3);
    check_eq(lab_stats().fragments_kept, n_pieces - 1);
    check_account();
    unsigned quiet = lab.quiet;
    datagram(1, C2S, "x");
    lab_settle();
    check_eq(lab.quiet, quiet); /* nothing is written while something waits that comes before it */
    free_pieces();
}

static void time_and_end(void **state)
{
    setup_udp(note);
    lab_replay(&config, time_body); /* the rest is given up in the drain, and every buffer is back */
}

static void limit_body(void)
{
    enum { LIMIT = 16 };
    uint8_t frame[LAB_FRAME];
    unsigned len = lab_udp_frame(frame, &lab_udp4, C2S, data, 100);

    for (unsigned i = 0; i < LIMIT + 4; i++) {
        cut(frame, len, 14, 56);
        send_piece(0);
    }
    send_piece(1); /* the latest is still there */
    lab_settle();
    struct nst_engine_stats s = lab_stats();
    check_eq(calls, 1);
    check_eq(s.datagrams, 1);
    check_eq(s.fragments_kept_peak, LIMIT);
    check_eq(s.dropped[NST_BY_FRAGMENT], 5);
    check_eq(s.fragments_kept, LIMIT - 2);
    check_account();
    free_pieces();
}

/* Frames of 90 bytes, and room for a thousand. */
static void bytes_body(void)
{
    uint8_t frame[LAB_FRAME];
    unsigned len = lab_udp_frame(frame, &lab_udp4, C2S, data, 100);

    for (unsigned i = 0; i < 20; i++) {
        cut(frame, len, 14, 56);
        send_piece(0);
    }
    lab_settle();
    check_eq(lab_stats().fragments_kept, 1000 / 90);
    check_eq(lab_stats().dropped[NST_BY_FRAGMENT], 20 - 1000 / 90);
    check_account();
    free_pieces();
}

static void oldest_gives_way(void **state)
{
    setup_udp(note);
    config.fragments = 16;
    lab_run(&config, limit_body);
    setup_udp(note);
    config.fragment_memory = 1000;
    lab_run(&config, bytes_body);
}

/* ---- edited ---- */
static void put_together(uint8_t *frame, unsigned *len)
{
    unsigned l3 = 14, total = 0;
    bool v4 = lab.out[0].frame[l3] >> 4 == 4;
    unsigned head = l3 + (v4 ? 20 : 40), extra = v4 ? 0 : 8;

    memcpy(frame, lab.out[0].frame, head);
    for (unsigned i = 0; i < lab.n_out; i++) {
        const uint8_t *f = lab.out[i].frame;
        unsigned at = v4 ? (unsigned)((f[l3 + 6] & 0x1f) << 8 | f[l3 + 7]) * 8
                         : (unsigned)(f[head + 2] << 8 | (f[head + 3] & 0xf8));
        bool more = v4 ? f[l3 + 6] & 0x20 : f[head + 3] & 1;
        unsigned n = lab.out[i].len - head - extra;
        check_eq(more, i + 1 < lab.n_out);
        check_eq(at, total);
        memcpy(frame + head + at, f + head + extra, n);
        total += n;
        if (v4)
            check_eq(checksum_sum(f + l3, 20), 0xffff);
        if (!v4)
            frame[l3 + 6] = f[head];
    }
    if (v4) {
        frame[l3 + 2] = (uint8_t)((total + 20) >> 8);
        frame[l3 + 3] = (uint8_t)(total + 20);
        frame[l3 + 6] = frame[l3 + 7] = 0;
        checksum_ipv4(frame + l3);
    } else {
        frame[l3 + 4] = (uint8_t)(total >> 8);
        frame[l3 + 5] = (uint8_t)total;
    }
    *len = head + total;
}

static bool sums_hold(const uint8_t *frame, unsigned len)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(port_pool);
    struct nst_headers h;
    struct flow_key key;
    bool from_b, hold = false;

    memcpy(rte_pktmbuf_append(m, (uint16_t)len), frame, len);
    if (parse_packet(m, &h, &key, &from_b) == PARSED_FLOW)
        hold = checksum_right(m, &h, false);
    rte_pktmbuf_free(m);
    return hold;
}

static enum nst_verdict edit_some(struct nst_flow *f, const struct nst_event *ev)
{
    const struct nst_headers *h = nst_packet_headers(ev->packet);
    uint8_t hops = 9, host = 99;

    check_eq(nst_packet_edit(ev->packet, h->payload + 95u, "EDITED ACROSS", 13), 0);
    check_eq(nst_packet_edit(ev->packet, h->l3 + (h->family == 4 ? 8u : 7u), &hops, 1), 0);
    check_eq(nst_packet_edit(ev->packet, h->l3 + (h->family == 4 ? 19u : 39u), &host, 1), 0);
    return NST_FORWARD;
}

static void edit_body(void)
{
    static const struct lab_path *const paths[] = { &lab_udp4, &lab_udp6 };
    uint8_t frame[LAB_FRAME];

    for (unsigned i = 0; i < 2; i++) {
        unsigned len;
        cut_datagram(paths[i], 500, 104);
        piece[1].frame[i == 0 ? 15 : 14] ^= 2; /* a mark of its own, which stays */
        if (i == 0)
            checksum_ipv4(piece[1].frame + 14);
        for (unsigned k = 0; k < n_pieces; k++)
            send_piece(k);
        lab_settle();
        check_eq(lab.n_out, n_pieces);
        check_eq(lab.out[1].frame[i == 0 ? 15 : 14], piece[1].frame[i == 0 ? 15 : 14]);
        put_together(frame, &len);
        check(sums_hold(frame, len));
        memcpy(data + 95, "EDITED ACROSS", 13);
        check(memcmp(frame + (i == 0 ? 42 : 62), data, 500) == 0);
        check_eq(lab.out[2].frame[i == 0 ? 22 : 21], 9);
        check_eq(lab.out[2].frame[i == 0 ? 33 : 53], 99);
        lab_clear();
    }
    check_account();
    free_pieces();
}

static void edits_reach_the_fragments(void **state)
{
    setup_udp(edit_some);
    lab_untrusted = true;
    lab_run(&config, edit_body);
    lab_untrusted = false;
}

/* Shorter or longer by so many bytes; lengths and checksum are the editor's matter. */
static int grow;

static enum nst_verdict resize(struct nst_flow *f, const struct nst_event *ev)
{
    struct rte_mbuf *m = mbuf_of(ev->packet);
    const struct nst_headers *h = nst_packet_headers(ev->packet);
    unsigned was = m->data_len;

    if (grow < 0)
        rte_pktmbuf_trim(m, (uint16_t)-grow);
    else
        memset(rte_pktmbuf_append(m, (uint16_t)grow), 'g', (unsigned)grow);
    uint8_t *frame = rte_pktmbuf_mtod(m, uint8_t *);
    unsigned field = h->l3 + (h->family == 4 ? 2u : 4u), l4 = m->data_len - h->l4;
    unsigned ip = l4 + (h->family == 4 ? (unsigned)h->l4 - h->l3 : 0u);
    check(m->data_len != was);
    frame[field] = (uint8_t)(ip >> 8);
    frame[field + 1] = (uint8_t)ip;
    frame[h->l4 + 4] = (uint8_t)(l4 >> 8);
    frame[h->l4 + 5] = (uint8_t)l4;
    lab_checksum(frame, 0, h->family, IPPROTO_UDP);
    return NST_FORWARD;
}

static void resize_body(void)
{
    static const struct lab_path *const paths[] = { &lab_udp4, &lab_udp6 };
    static const int by[] = { -400, -200, -1, 1, 96, 97, 300, 1000 };
    uint8_t frame[LAB_FRAME];
    uint64_t left = 0;

    for (unsigned i = 0; i < 2; i++) {
        for (unsigned k = 0; k < sizeof by / sizeof by[0]; k++) {
            unsigned len, body = (unsigned)(500 + by[k]);
            grow = by[k];
            cut_datagram(paths[i], 500, 104);
            for (unsigned n = n_pieces; n > 0; n--)
                send_piece(n - 1);
            lab_settle();
            check_eq(lab.n_out, (body + 8 + 103) / 104);
            left += lab.n_out;
            put_together(frame, &len);
            check_eq(len, (i == 0 ? 42u : 62u) + body);
            check(sums_hold(frame, len));
            check(memcmp(frame + (i == 0 ? 42 : 62), data, body < 500 ? body : 500) == 0);
            check(body <= 500 || frame[len - 1] == 'g');
            lab_clear();
        }
    }
    struct nst_engine_stats s = lab_stats();
    check_eq(s.forwarded, s.packets);
    check_eq(left, s.forwarded + s.injected - s.joined);
    check(s.injected > 0 && s.joined > 0);
    free_pieces();
}

static void resized_are_cut_anew(void **state)
{
    setup_udp(resize);
    lab_untrusted = true;
    lab_run(&config, resize_body);
    lab_untrusted = false;
}

/* ---- streams ---- */
static char stream[4096];
static unsigned stream_len;

static enum nst_verdict read_stream(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_slice s;

    while (nst_flow_bytes(f, ev->side, &s)) {
        memcpy(stream + stream_len, s.p, s.len);
        stream_len += (unsigned)s.len;
    }
    return NST_FORWARD;
}

static void stream_body(void)
{
    uint8_t frame[LAB_FRAME];
    char text[900];

    lab_handshake(&lab_tcp4, 100, 500);
    stream_len = 0;
    for (unsigned i = 0; i < sizeof text; i++)
        text[i] = (char)('a' + i % 26);
    for (unsigned k = 0; k < 3; k++) {
        unsigned len = lab_tcp_frame(
            frame, &lab_tcp4, C2S,
            (struct lab_tcp){
                .flags = PSH | ACK, .seq = 101 + 300 * k, .ack = 501, .data = text + 300 * k, .len = 300 });
        cut(frame, len, 14, 8); /* TCP's header, too, is in pieces */
        for (unsigned i = 0; i < n_pieces; i++)
            send_piece(i);
        lab_settle();
        check_pieces_left(NULL, n_pieces);
        lab_clear();
    }
    check_eq(stream_len, 900);
    check(memcmp(stream, text, 900) == 0);
    free_pieces();
}

static void tiny_pieces_of_a_stream(void **state)
{
    setup_tcp(read_stream);
    lab_untrusted = true;
    lab_run(&config, stream_body);
    lab_untrusted = false;
}

/* ---- wrong and not ours ---- */
static void others_body(void)
{
    uint8_t frame[LAB_FRAME];
    unsigned at = lab_ip_header(frame, &lab_udp4, C2S, IPPROTO_ICMP, 100), sent = 0;

    cut(frame, at + 100, 14, 48); /* ICMP is not the NF's matter */
    for (unsigned i = 1; i < n_pieces; i++, sent++)
        send_piece(i);
    lab_settle();
    check_eq(lab.n_out, sent);
    check_eq(lab_stats().fragments, 0);
    check_eq(lab_stats().other_proto, sent);
    lab_clear();
    /* A wrong header is dropped at once, a wrong sum of the whole with all its fragments. */
    cut_datagram(&lab_udp4, 200, 104);
    piece[0].frame[22]--;
    send_piece(0);
    lab_settle();
    check_eq(lab_stats().dropped[NST_BY_CHECKSUM], 1);
    cut_datagram(&lab_udp4, 200, 104);
    piece[1].frame[60] ^= 1;
    send_piece(0);
    send_piece(1);
    lab_settle();
    check_eq(lab_stats().dropped[NST_BY_CHECKSUM], 3);
    check_eq(calls, 0);
    check_account();
    free_pieces();
}

static void wrong_and_not_ours(void **state)
{
    setup_udp(note);
    lab_untrusted = true;
    lab_run(&config, others_body);
    lab_untrusted = false;
}

static void untouched_body(void)
{
    cut_datagram(&lab_udp4, 1000, 104);
    for (unsigned i = 1; i < n_pieces; i++)
        send_piece(i);
    lab_settle();
    for (unsigned i = 1; i < n_pieces; i++)
        check(lab.out[i - 1].len == piece[i].len && memcmp(lab.out[i - 1].frame, piece[i].frame, piece[i].len) == 0);
    check_eq(lab.n_out, n_pieces - 1);
    free_pieces();
}

static void without_parts_they_pass(void **state)
{
    setup_udp(note);
    memset(nf.half, 0, sizeof nf.half);
    lab_run(&config, untouched_body);
}

/* ---- anything at all ---- */
static void storm_body(void)
{
    uint64_t rnd = lab_seed();
    uint8_t frame[LAB_FRAME];

    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    for (unsigned n = 0; n < 30000; n++) {
        const struct lab_path *path = n & 1 ? &lab_udp4 : &lab_udp6;
        lab_udp_frame(frame, path, C2S, data, 600);
        unsigned k = lab_random(&rnd, 4), at = 48 * k, size = 48;
        bool more = k < 3;
        if (lab_random(&rnd, 12) == 0) { /* else a part of a datagram of 192 bytes */
            at = 8 * lab_random(&rnd, 12);
            size = lab_random(&rnd, 70);
            more = lab_random(&rnd, 4) != 0;
        }
        struct piece p = cut_piece(frame, 14, at, size, more, (uint16_t)lab_random(&rnd, 8));
        lab_send(lab_random(&rnd, 2), p.frame, p.len);
        free(p.frame);
        if (lab_random(&rnd, 40) == 0) {
            lab.time += NST_MS(lab_random(&rnd, 4000));
            lab_settle();
            check_account();
            lab_clear();
        }
    }
    lab_settle();
    check_account();
    check(lab_stats().datagrams > 100);
}

static void storm(void **state)
{
    for (unsigned open = 0; open < 2; open++) {
        setup_udp(by_letter);
        nf.policy.on_fragment = open ? NST_FORWARD : 0;
        config.fragments = 24;
        lab_replay(&config, storm_body);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_in_every_order),
        cmocka_unit_test(longest),
        cmocka_unit_test(every_verdict),
        cmocka_unit_test(overlaps_condemn),
        cmocka_unit_test(repetitions),
        cmocka_unit_test(time_and_end),
        cmocka_unit_test(oldest_gives_way),
        cmocka_unit_test(edits_reach_the_fragments),
        cmocka_unit_test(resized_are_cut_anew),
        cmocka_unit_test(tiny_pieces_of_a_stream),
        cmocka_unit_test(wrong_and_not_ours),
        cmocka_unit_test(without_parts_they_pass),
        cmocka_unit_test(storm),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
