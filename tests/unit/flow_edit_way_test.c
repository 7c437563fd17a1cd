/* SPDX-License-Identifier: Apache-2.0 */
/* Editing on ways that are walked less: captures, urgent data, resets and drops in the middle, fragments, loops, IPv6,
 * VLAN tags. The plain way is in flow_edit_test.c.
 */
#include "flow_lab.h"
#include <netinet/in.h>
#include <netstar/edit.h>
#include <rte_ip.h>
#include <stdlib.h>

/* In what the server receives, each '<' stands for ten bytes that are inserted, each '-' is removed; '!' drops the
 * packet, '#' the flow, '%' resets it; '$' edits and takes the packet. */
static const struct lab_path *path;
static struct nst_flow *flow;
static struct nst_packet *taken;
static int last_rc;
static unsigned calls;

static enum nst_verdict judge(struct nst_flow *f, const struct nst_event *ev, bool tcp)
{
    uint64_t from = tcp ? nst_tcp_offset(f, ev->side) : 0, at = from;
    enum nst_verdict v = NST_FORWARD;
    struct nst_slice s;
    uint8_t bytes[4096];
    unsigned n = 0;

    flow = f;
    calls++;
    while (nst_flow_bytes(f, ev->side, &s) && n + s.len <= sizeof bytes) {
        memcpy(bytes + n, s.p, s.len);
        n += (unsigned)s.len;
    }
    for (unsigned i = 0; i < n; i++, at++) {
        last_rc = 0;
        if (bytes[i] == '<')
            last_rc = nst_flow_replace(f, ev->side, at, 1, "0123456789", 10);
        else if (bytes[i] == '-')
            last_rc = nst_flow_replace(f, ev->side, at, 1, NULL, 0);
        check_eq(last_rc, 0);
        if (!tcp && bytes[i] == '<')
            at += 9; /* a datagram is changed at once */
        if (!tcp && bytes[i] == '-')
            at--;
        if (bytes[i] == '!')
            v = NST_DROP;
        else if (bytes[i] == '#')
            v = NST_DROP_FLOW;
        else if (bytes[i] == '%')
            v = NST_RESET_FLOW;
        else if (bytes[i] == '$')
            v = NST_TAKEN;
    }
    if (v == NST_TAKEN)
        taken = nst_take(ev);
    return v;
}

static enum nst_verdict handler(struct nst_flow *f, const struct nst_event *ev)
{
    return judge(f, ev, nst_flow_proto(f) == IPPROTO_TCP);
}

static void loop(struct nst_flow *f, enum nst_side side)
{
    struct nst_event ev;

    while (nst_next(f, side, &ev, NST_NEVER) == 0)
        nst_decide(f, &ev, judge(f, &ev, true));
}

static struct nst_nf nf;
static struct nst_engine_config config;

static void setup(const struct lab_path *which)
{
    bool tcp = which->proto == IPPROTO_TCP;

    path = which;
    calls = 0;
    nf = (struct nst_nf){
        .name = "edit",
        .proto = which->proto,
        .half = { [NST_CLIENT] = { .inspect = tcp ? &nst_tcp : &nst_udp, .edits = true },
                  [NST_SERVER] = { .inspect = tcp ? &nst_tcp : &nst_udp,
                                   .on_received = NST_EV_DATA,
                                   .handler = handler,
                                   .edits = true } },
        .policy = { .budget = NST_SEC(100) },
    };
    config = (struct nst_engine_config){ .nf = &nf, .flows = 1024 };
}

/* ---- what is sent, and what left ---- */
static void from_client(uint8_t flags, uint32_t seq, const char *text)
{
    lab_clear();
    lab_send_tcp(
        path, C2S,
        (struct lab_tcp){ .flags = flags, .seq = seq, .ack = 501, .data = text, .len = (unsigned)strlen(text) });
    lab_settle();
}

static void from_server(uint8_t flags, uint32_t ack)
{
    lab_clear();
    lab_send_tcp(path, S2C, (struct lab_tcp){ .flags = flags, .seq = 501, .ack = ack });
    lab_settle();
}

static uint32_t seq_of(unsigned i)
{
    return i < lab.n_out ? rte_be_to_cpu_32(lab.out[i].tcp->sent_seq) : 0;
}
static uint32_t ack_of(unsigned i)
{
    return i < lab.n_out ? rte_be_to_cpu_32(lab.out[i].tcp->recv_ack) : 0;
}
static uint8_t flags_of(unsigned i)
{
    return i < lab.n_out ? lab.out[i].tcp->tcp_flags : 0;
}

/* Its lengths and checksums are right, and tags and addresses those of the path. */
static void check_frame(const struct lab_out *o, uint8_t proto)
{
    unsigned l3 = 14 + 4u * path->tags, l4 = l3 + (path->family == 4 ? 20 : 40);
    uint8_t again[LAB_FRAME], head[200];

    memcpy(again, o->frame, o->len);
    lab_checksum(again, path->tags, path->family, proto);
    check(memcmp(again, o->frame, o->len) == 0);
    lab_ip_header(head, path, o->port == 1 ? C2S : S2C, proto, o->len - l4);
    check(memcmp(head, o->frame, l3) == 0);
    if (path->family == 4) {
        check_eq(rte_raw_cksum(o->frame + l3, 20), 0xffff);
        check_eq(o->frame[l3 + 2] << 8 | o->frame[l3 + 3], o->len - l3);
        check(memcmp(head + l3 + 12, o->frame + l3 + 12, 8) == 0);
    } else {
        check_eq(o->frame[l3 + 4] << 8 | o->frame[l3 + 5], o->len - l4);
        check(memcmp(head + l3 + 8, o->frame + l3 + 8, 32) == 0);
    }
}

static void check_out(unsigned i, unsigned port, uint32_t seq, const char *text)
{
    check(i < lab.n_out);
    if (i >= lab.n_out)
        return;
    check_eq(lab.out[i].port, port);
    check_eq(seq_of(i), seq);
    check_eq(lab.out[i].data_len, strlen(text));
    check(lab.out[i].data_len == strlen(text) && memcmp(lab.out[i].data, text, strlen(text)) == 0);
    check_frame(&lab.out[i], IPPROTO_TCP);
}

/* ---- IPv4 and IPv6, with and without tags; handler and loop ---- */
static void plain_body(void)
{
    lab_handshake(path, 100, 500);
    from_client(ACK | PSH, 101, "a<b-c");
    check_out(0, 1, 101, "a0123456789bc");
    from_client(ACK, 106, "d");
    check_out(0, 1, 114, "d");
    from_client(ACK, 103, "b-c"); /* again, cut anew */
    check_out(0, 1, 112, "bc");
    from_server(ACK, 115);
    check_eq(ack_of(0), 107);
    check_frame(&lab.out[0], IPPROTO_TCP);
    from_client(ACK, 107, "--"); /* all of it: its sender is told */
    check_eq(lab.n_out, 2);
    check_out(0, 0, 501, "");
    check_eq(ack_of(0), 109);
    check_out(1, 1, 115, "");
    from_client(ACK, 111, "late");
    check_out(0, 0, 501, ""); /* behind a hole */
    check_eq(ack_of(0), 109);
    from_client(ACK, 109, "<-");
    check_out(0, 1, 115, "0123456789late");
    check_eq(nst_flow_inject(flow, NST_SERVER, "mine", 4), 0);
    from_client(ACK | FIN, 115, "");
    check_out(0, 1, 129, "mine");
    check_out(1, 1, 133, "");
    check_eq(flags_of(1), ACK | FIN);
    from_server(ACK, 134);
    check_eq(ack_of(0), 116);
}

static void families_and_tags(void **state)
{
    for (unsigned i = 0; i < 12; i++) {
        struct lab_path p = i & 1 ? lab_tcp6 : lab_tcp4;
        p.tags = (uint8_t)(i / 2 % 3);
        p.vlan[0] = 7;
        p.vlan[1] = 8;
        setup(&p);
        if (i >= 6) {
            nf.half[NST_SERVER].handler = NULL;
            nf.half[NST_SERVER].loop = loop;
        }
        lab_run(&config, plain_body);
        assert_int_equal(calls, 4);
    }
}

/* ---- a capture: nobody has received what was edited, and what is written is one conversation ---- */
static void server_sack(uint32_t ack, uint32_t from, uint32_t end)
{
    uint8_t frame[200];
    unsigned at = lab_ip_header(frame, path, S2C, IPPROTO_TCP, 32);
    rte_be32_t edge[] = { rte_cpu_to_be_32(from), rte_cpu_to_be_32(end) };
    struct rte_tcp_hdr h = { .src_port = rte_cpu_to_be_16(path->port[1]),
                             .dst_port = rte_cpu_to_be_16(path->port[0]),
                             .sent_seq = rte_cpu_to_be_32(501),
                             .recv_ack = rte_cpu_to_be_32(ack),
                             .data_off = 8 << 4,
                             .tcp_flags = ACK,
                             .rx_win = 0xffff };

    memcpy(frame + at, &h, 20);
    memcpy(frame + at + 20, "\1\1\5\12", 4);
    memcpy(frame + at + 24, edge, 8);
    lab_checksum(frame, 0, 4, IPPROTO_TCP);
    lab_clear();
    lab_send(S2C, frame, at + 32);
    lab_settle();
}

static void check_sack(uint32_t from, uint32_t end)
{
    rte_be32_t edge[2];

    check_eq(lab.out[0].frame[56], 5);
    memcpy(edge, lab.out[0].frame + 58, 8);
    check_eq(rte_be_to_cpu_32(edge[0]), from);
    check_eq(rte_be_to_cpu_32(edge[1]), end);
}

static void capture_body(void)
{
    lab_handshake(path, 100, 500);
    from_client(ACK, 101, "a<b-c"); /* 13 bytes leave for 5 */
    check_out(0, 1, 101, "a0123456789bc");
    from_server(ACK, 106);
    check_eq(lab.n_out, 1);
    check_eq(ack_of(0), 114);
    from_client(ACK, 106, "def");
    check_out(0, 1, 114, "def");
    from_server(ACK, 106); /* once more, behind newer bytes */
    check_eq(ack_of(0), 114);
    from_client(ACK, 101, "a<b-c"); /* sent again, though acknowledged */
    check_out(0, 1, 113, "c");
    from_server(ACK, 103); /* an old acknowledgment */
    check_eq(ack_of(0), 112);
    from_client(ACK, 111, "x<y"); /* a hole: kept back, and nobody is told */
    check_eq(lab.n_out, 0);
    server_sack(109, 111, 114);
    check_eq(ack_of(0), 117);
    check_sack(119, 122); /* as far as is known now */
    from_client(ACK, 109, "-<");
    check_out(0, 1, 117, "0123456789x0123456789y");
    server_sack(109, 111, 114);
    check_eq(ack_of(0), 117);
    check_sack(127, 139);
    from_server(ACK, 114);
    check_eq(ack_of(0), 139);
    check_eq(nst_flow_inject(flow, NST_SERVER, "mine", 4), 0);
    from_client(ACK | FIN, 114, "");
    check_out(0, 1, 139, "mine");
    check_out(1, 1, 143, "");
    from_server(ACK, 115);
    check_eq(ack_of(0), 144);
}

/* More than a window of which no acknowledgment was recorded. */
static void unacknowledged_body(void)
{
    char text[1001];

    memset(text, 'x', sizeof text - 1);
    text[500] = '<';
    text[1000] = '\0';
    lab_handshake(path, 100, 500);
    for (unsigned i = 0; i < 100; i++) {
        from_client(ACK, 101 + 1000 * i, text);
        check_eq(lab.n_out, 1);
        check_eq(seq_of(0), 101 + 1009 * i);
        check_eq(lab.n_out == 1 ? lab.out[0].data_len : 0, 1009);
    }
    from_server(ACK, 101 + 100 * 1000);
    check_eq(ack_of(0), 101 + 100 * 1009);
}

static void in_a_capture(void **state)
{
    setup(&lab_tcp4);
    lab_replay(&config, capture_body);
    setup(&lab_tcp4);
    lab_replay(&config, unacknowledged_body);
}

/* ---- urgent data ---- */
static void urgent(uint32_t seq, uint16_t pointer, const char *text)
{
    uint8_t frame[LAB_FRAME];
    unsigned len = lab_tcp_frame(
        frame, path, C2S,
        (struct lab_tcp){
            .flags = ACK | RTE_TCP_URG_FLAG, .seq = seq, .ack = 501, .data = text, .len = (unsigned)strlen(text) });

    frame[52] = (uint8_t)(pointer >> 8);
    frame[53] = (uint8_t)pointer;
    lab_checksum(frame, 0, 4, IPPROTO_TCP);
    lab_clear();
    lab_send(C2S, frame, len);
    lab_settle();
}

static unsigned pointer_of(unsigned i)
{
    return i < lab.n_out ? rte_be_to_cpu_16(lab.out[i].tcp->tcp_urp) : 0;
}

static void urgent_body(void)
{
    lab_handshake(path, 100, 500);
    urgent(101, 3, "abcd"); /* nothing edited yet: as it came */
    check_out(0, 1, 101, "abcd");
    check_eq(pointer_of(0), 3);
    urgent(105, 4, "a<bcd"); /* it stands behind what is inserted */
    check_out(0, 1, 105, "a0123456789bcd");
    check_eq(flags_of(0), ACK | RTE_TCP_URG_FLAG);
    check_eq(pointer_of(0), 13);
    urgent(110, 1, "x<-"); /* and before it */
    check_out(0, 1, 119, "x0123456789");
    check_eq(pointer_of(0), 1);
    urgent(113, 9, "tail"); /* beyond the segment */
    check_out(0, 1, 130, "tail");
    check_eq(pointer_of(0), 9);
    urgent(101, 3, "abcd"); /* again */
    check_out(0, 1, 101, "abcd");
    check_eq(pointer_of(0), 3);
    from_server(ACK, 134);
    urgent(101, 3, "abcd"); /* and old: what points to nothing is no urgent pointer */
    check_eq(lab.n_out, 1);
    check_eq(lab.out[0].data_len, 0);
    check_eq(flags_of(0), ACK);
    check_eq(pointer_of(0), 0);
}

static void urgent_data(void **state)
{
    setup(&lab_tcp4);
    nf.policy.urgent = NST_URGENT_INLINE;
    lab_run(&config, urgent_body);
}

/* ---- ends in the middle ---- */
static void drop_body(void)
{
    lab_handshake(path, 100, 500);
    from_client(ACK, 101, "a<");
    check_out(0, 1, 101, "a0123456789");
    from_client(ACK, 103, "b<!"); /* dropped with its edit */
    check_eq(lab.n_out, 0);
    check_eq(lab_stats().dropped[NST_BY_VERDICT], 1);
    from_server(ACK, 112);
    check_eq(ack_of(0), 103);
    from_client(ACK, 103, "b<c"); /* with other bytes this time */
    check_out(0, 1, 112, "b0123456789c");
    from_client(ACK, 106, "<#");
    check_eq(lab.n_out, 0);
    from_client(ACK, 103, "b<c");
    check_eq(lab.n_out, 0);
    check_eq(lab_stats().dropped[NST_BY_FLOW_VERDICT], 2);
    check_eq(lab_stats().edit_kept, 256); /* as long as the flow is remembered */
}

static void reset_body(void)
{
    lab_handshake(path, 100, 500);
    from_client(ACK, 101, "a<");
    lab_clear();
    check_eq(nst_flow_inject(flow, NST_CLIENT, "hello", 5), 0);
    lab_settle();
    check_out(0, 0, 501, "hello");
    from_client(ACK, 103, "b%");
    check_eq(lab.n_out, 2);
    for (unsigned i = 0; i < lab.n_out; i++) {
        check(flags_of(i) & RST);
        /* The numbers that the ends expect. */
        if (lab.out[i].port == 1)
            check_out(i, 1, 112, "");
        else
            check_out(i, 0, 506, "");
    }
    check_eq(lab_stats().dropped[NST_BY_FLOW_VERDICT], 1);
}

static void other_end_body(void)
{
    lab_handshake(path, 100, 500);
    from_client(ACK, 101, "a<");
    from_client(RST, 103, "");
    check_out(0, 1, 112, "");
    check_eq(flags_of(0), RST);
}

/* A reset that is not where its receiver stands stays one that this does not take. */
static void blind_reset_body(void)
{
    lab_handshake(path, 100, 500);
    from_client(ACK, 101, "a<");
    from_server(ACK, 112);
    from_client(RST, 150, "");
    check(lab.n_out == 0 || seq_of(0) != 112);
    from_client(RST, 102, "");
    check(lab.n_out == 0 || seq_of(0) != 112);
    from_client(ACK, 103, "b");
    check_out(0, 1, 112, "b");
}

static void taken_body(void)
{
    lab_handshake(path, 100, 500);
    from_client(ACK, 101, "a<$");
    check_eq(lab.n_out, 0);
    struct nst_packet *p = taken;
    from_client(ACK, 104, "b%"); /* the flow is reset while somebody has the packet */
    lab_clear();
    check_eq(nst_packet_send(p, 1), 0);
    lab_settle();
    check_out(0, 1, 101, "a0123456789$");
}

static void ends(void **state)
{
    setup(&lab_tcp4);
    lab_run(&config, drop_body);
    setup(&lab_tcp4);
    lab_run(&config, reset_body);
    setup(&lab_tcp6);
    lab_run(&config, reset_body);
    setup(&lab_tcp4);
    lab_run(&config, other_end_body);
    setup(&lab_tcp4);
    lab_run(&config, blind_reset_body);
    setup(&lab_tcp4);
    lab_run(&config, taken_body);
}

/* ---- fragments ---- */
enum { PIECE = 104 };

static unsigned send_cut(const uint8_t *frame, unsigned len)
{
    unsigned head = path->family == 4 ? 34 : 54, extra = path->family == 4 ? 0 : 8, n = 0;
    static uint16_t id;
    uint8_t f[LAB_FRAME];

    id++;
    lab_clear();
    for (unsigned at = 0; at < len - head; at += PIECE, n++) {
        unsigned size = len - head - at < PIECE ? len - head - at : PIECE;
        bool more = at + size < len - head;
        memcpy(f, frame, head);
        memcpy(f + head + extra, frame + head + at, size);
        uint16_t v4 = rte_cpu_to_be_16((uint16_t)(at / 8 | (more ? 0x2000u : 0))),
                 v6 = rte_cpu_to_be_16((uint16_t)(at | more)),
                 length = rte_cpu_to_be_16((uint16_t)(size + (path->family == 4 ? 20 : 8)));
        if (path->family == 4) {
            memcpy(f + 16, &length, 2);
            memcpy(f + 18, &id, 2);
            memcpy(f + 20, &v4, 2);
            memset(f + 24, 0, 2);
            uint16_t sum = (uint16_t)~rte_raw_cksum(f + 14, 20);
            memcpy(f + 24, &sum, 2);
        } else {
            memcpy(f + 18, &length, 2);
            memset(f + 54, 0, 8);
            f[54] = f[20];
            f[20] = IPPROTO_FRAGMENT;
            memcpy(f + 56, &v6, 2);
            memcpy(f + 58, &id, 2);
        }
        lab_send(C2S, f, head + extra + size);
    }
    lab_settle();
    return n;
}

/* What left, as one packet again. */
static struct lab_out together(uint8_t *frame)
{
    unsigned head = path->family == 4 ? 34 : 54, extra = path->family == 4 ? 0 : 8, total = 0;

    for (unsigned i = 0; i < lab.n_out; i++) {
        const uint8_t *f = lab.out[i].frame;
        unsigned at =
            path->family == 4 ? (unsigned)((f[20] & 0x1f) << 8 | f[21]) * 8 : (unsigned)(f[56] << 8 | (f[57] & 0xf8));
        bool more = path->family == 4 ? f[20] & 0x20 : f[57] & 1;
        check_eq(at, total);
        check_eq(more, i + 1 < lab.n_out);
        check(path->family == 6 || rte_raw_cksum(f + 14, 20) == 0xffff);
        if (i == 0)
            memcpy(frame, f, head);
        memcpy(frame + head + at, f + head + extra, lab.out[i].len - head - extra);
        total += lab.out[i].len - head - extra;
    }
    if (path->family == 4) {
        frame[16] = (uint8_t)((total + 20) >> 8), frame[17] = (uint8_t)(total + 20);
        frame[20] = frame[21] = frame[24] = frame[25] = 0;
        uint16_t sum = (uint16_t)~rte_raw_cksum(frame + 14, 20);
        memcpy(frame + 24, &sum, 2);
    } else {
        frame[18] = (uint8_t)(total >> 8), frame[19] = (uint8_t)total;
        frame[20] = lab.n_out != 0 ? lab.out[0].frame[54] : 0;
    }
    return (struct lab_out){ .port = lab.n_out != 0 ? lab.out[0].port : 0, .frame = frame, .len = head + total };
}

static void fill(char *text, unsigned n, const char *marks)
{
    for (unsigned i = 0; i < n; i++)
        text[i] = (char)('a' + i % 26);
    for (unsigned i = 0; marks[i] != '\0'; i++)
        text[(i + 1) * n / 5] = marks[i];
    text[n] = '\0';
}

static unsigned edited(char *out, const char *text)
{
    char *to = out;

    for (; *text != '\0'; text++) {
        if (*text == '<')
            to = memcpy(to, "0123456789", 10) + 10;
        else if (*text != '-')
            *to++ = *text;
    }
    return (unsigned)(to - out);
}

static void datagram_body(void)
{
    static const char *const marks[] = { "<", "-", "<<<-", "----" };
    uint8_t frame[LAB_FRAME];
    char text[800], should[1000];

    for (unsigned i = 0; i < 4; i++) {
        fill(text, 600, marks[i]);
        unsigned pieces = send_cut(frame, lab_udp_frame(frame, path, C2S, text, 600)), n = edited(should, text);
        check_eq(pieces, 6);
        check(lab.n_out == (n + 8 + PIECE - 1) / PIECE);
        struct lab_out whole = together(frame);
        unsigned head = path->family == 4 ? 42 : 62;
        check_eq(whole.len, head + n);
        check(memcmp(frame + head, should, n) == 0);
        check_frame(&whole, IPPROTO_UDP);
        fill(text, 600, "!");
        send_cut(frame, lab_udp_frame(frame, path, C2S, text, 600));
        check_eq(lab.n_out, 0);
    }
    check_eq(lab_stats().dropped[NST_BY_VERDICT], 4 * 6);
}

static uint32_t fragmented_segment(uint32_t seq, char *text, const char *marks)
{
    uint8_t frame[LAB_FRAME];

    fill(text, 400, marks);
    send_cut(frame, lab_tcp_frame(frame, path, C2S,
                                  (struct lab_tcp){ .flags = ACK, .seq = seq, .ack = 501, .data = text, .len = 400 }));
    return seq + 400;
}

static void segment_body(void)
{
    uint8_t frame[LAB_FRAME];
    char text[500], should[500];
    unsigned head = path->family == 4 ? 54 : 74;

    lab_handshake(path, 100, 500);
    uint32_t next = fragmented_segment(101, text, ""); /* as it came */
    check_eq(lab.n_out, 5);
    struct lab_out whole = together(frame);
    check(memcmp(frame + head, text, 400) == 0);
    check_frame(&whole, IPPROTO_TCP);
    next = fragmented_segment(next, text, "<-"); /* edited: one segment, of which no fragment is left */
    unsigned n = edited(should, text);
    should[n] = '\0';
    check_eq(lab.n_out, 1);
    check_out(0, 1, 501, should);
    next = fragmented_segment(next, text, ""); /* only its numbers are others: fragments again */
    check_eq(lab.n_out, 5);
    whole = together(frame);
    check_eq(whole.len, head + 400);
    check(memcmp(frame + head, text, 400) == 0);
    rte_be32_t seq = rte_cpu_to_be_32(501 + n);
    check(memcmp(frame + head - 16, &seq, 4) == 0);
    check_frame(&whole, IPPROTO_TCP);
    fragmented_segment(next, text, "!");
    check_eq(lab.n_out, 0);
    struct nst_engine_stats s = lab_stats();
    check_eq(s.dropped[NST_BY_VERDICT], 5);
    check_eq(s.joined, 4);
    check_eq(s.injected, 0);
}

static void fragments(void **state)
{
    static const struct lab_path *const paths[] = { &lab_udp4, &lab_udp6, &lab_tcp4, &lab_tcp6 };

    for (unsigned i = 0; i < 4; i++) {
        setup(paths[i]);
        lab_run(&config, i < 2 ? datagram_body : segment_body);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_and_tags), cmocka_unit_test(in_a_capture),
        cmocka_unit_test(urgent_data),       cmocka_unit_test(ends),
        cmocka_unit_test(fragments),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
