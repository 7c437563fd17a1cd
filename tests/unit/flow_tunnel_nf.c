/* SPDX-License-Identifier: Apache-2.0 */
#include "flow_tunnel_nf.h"

/* One of each kind, in all their forms. MPLS over GRE is two tunnels. */
const struct lab_tunnel kinds[KINDS] = {
    { NST_TUNNEL_MPLS, 0, 0, 0, 0, { 1, 2 }, { 300, 400 } },
    { NST_TUNNEL_MPLS, 0, 0, 1, 9, { 1, 2 }, { 300, 400 } },
    { NST_TUNNEL_MPLS, 4, T_IN_GRE, 0, 0, { 11, 12 }, { 300, 400 } },
    { NST_TUNNEL_GRE, 4, 0, 0, 0, { 11, 12 }, { 0, 0 } },
    { NST_TUNNEL_GRE, 4, T_SUM | T_KEY | T_SEQUENCE, 1, 9, { 11, 12 }, { 5, 5 } },
    { NST_TUNNEL_GRE, 6, T_SUM | T_KEY, 0, 0, { 11, 12 }, { 5, 5 } },
    { NST_TUNNEL_GRE, 4, T_ETHER | T_KEY, 0, 0, { 11, 12 }, { 5, 5 } },
    { NST_TUNNEL_GRE, 6, T_ETHER | T_SUM, 0, 0, { 12, 11 }, { 0, 0 } },
    { NST_TUNNEL_IPIP, 4, 0, 0, 0, { 11, 12 }, { 0, 0 } },
    { NST_TUNNEL_IPIP, 6, 0, 1, 9, { 11, 12 }, { 0, 0 } },
    { NST_TUNNEL_VXLAN, 4, 0, 0, 0, { 11, 12 }, { 5, 5 } },
    { NST_TUNNEL_VXLAN, 4, T_SUM, 1, 9, { 12, 11 }, { 5, 5 } },
    { NST_TUNNEL_VXLAN, 6, T_SUM, 0, 0, { 11, 12 }, { 5, 5 } },
    { NST_TUNNEL_GTPU, 4, 0, 0, 0, { 11, 12 }, { 70, 80 } },
    { NST_TUNNEL_GTPU, 4, T_SUM | T_SEQUENCE, 0, 0, { 11, 12 }, { 70, 80 } },
    { NST_TUNNEL_GTPU, 6, T_SUM | T_EXTENDED | T_SEQUENCE, 0, 0, { 11, 12 }, { 70, 80 } },
};
struct nst_nf nf;
char text[2][256];
unsigned text_len[2], n_events;
const struct lab_tunnel *expected;
enum nst_verdict verdict;
void (*in_event)(struct nst_flow *f, const struct nst_event *ev);

static void check_layers(const struct nst_packet *p)
{
    struct nst_tunnel_layer l[NST_TUNNEL_DEPTH];
    unsigned dir = nst_packet_port(p), n = nst_packet_tunnels(p, l), want = expected->how & T_IN_GRE ? 2 : 1;
    const uint8_t *frame = nst_packet_bytes(p, 0, nst_packet_len(p));

    check_eq(n, want);
    check_eq(l[n - 1].kind, expected->kind);
    check_eq(l[n - 1].id, expected->id[dir]);
    if (n == 1) {
        check_eq(l[0].family, expected->family);
        check_eq(l[0].l3, 14 + 4 * expected->tags);
        check(l[0].family == 0 || frame[l[0].l3] >> 4 == l[0].family);
    }
    check(nst_packet_headers(p)->l3 > l[n - 1].head || expected->kind == NST_TUNNEL_IPIP);
}

static enum nst_verdict on_event(struct nst_flow *f, const struct nst_event *ev)
{
    struct nst_slice s;

    n_events++;
    if (ev->packet != NULL && expected != NULL)
        check_layers(ev->packet);
    check_eq(nst_flow_vlan(f), 0);
    if (in_event != NULL)
        in_event(f, ev);
    while (nst_flow_bytes(f, ev->side, &s) && text_len[ev->side] + s.len < sizeof text[0]) {
        memcpy(text[ev->side] + text_len[ev->side], s.p, s.len);
        text_len[ev->side] += (unsigned)s.len;
    }
    return verdict;
}

struct nst_engine_config config_for(unsigned tunnels, bool udp)
{
    memset(text, 0, sizeof text);
    memset(text_len, 0, sizeof text_len);
    n_events = 0;
    expected = NULL;
    in_event = NULL;
    verdict = NST_FORWARD;
    nf = (struct nst_nf){ .name = "tunnel" };
    for (unsigned side = 0; side < 2; side++)
        nf.half[side] =
            (struct nst_half){ .inspect = udp ? &nst_udp : &nst_tcp, .on_received = NST_EV_DATA, .handler = on_event };
    return (struct nst_engine_config){ .nf = &nf, .flows = 64, .tunnels = tunnels };
}

/* ---- sending ---- */
uint8_t sent[8][LAB_FRAME];
unsigned sent_len[8], n_sent, last_l3;

void send_in(const struct lab_tunnel *t, unsigned dir, const uint8_t *frame, unsigned len)
{
    sent_len[n_sent] = lab_wrap(sent[n_sent], t, dir, frame, len, &last_l3);
    lab_send(dir, sent[n_sent], sent_len[n_sent]);
    n_sent++;
    lab_settle();
}

void send_tcp_in(const struct lab_tunnel *t, const struct lab_path *path, unsigned dir, struct lab_tcp tcp)
{
    uint8_t frame[LAB_FRAME];

    send_in(t, dir, frame, lab_tcp_frame(frame, path, dir, tcp));
}

void say_in(const struct lab_tunnel *t, const struct lab_path *path, unsigned dir, const char *what)
{
    uint8_t frame[LAB_FRAME];

    send_in(t, dir, frame, lab_udp_frame(frame, path, dir, what, (unsigned)strlen(what)));
}

void conversation(const struct lab_tunnel *t, const struct lab_path *path)
{
    n_sent = 0;
    send_tcp_in(t, path, C2S, (struct lab_tcp){ .flags = SYN, .seq = 100 });
    send_tcp_in(t, path, S2C, (struct lab_tcp){ .flags = SYN | ACK, .seq = 500, .ack = 101 });
    send_tcp_in(t, path, C2S, (struct lab_tcp){ .flags = ACK, .seq = 101, .ack = 501 });
    send_tcp_in(t, path, C2S,
                (struct lab_tcp){ .flags = ACK | PSH, .seq = 101, .ack = 501, .data = "question", .len = 8 });
    send_tcp_in(t, path, S2C,
                (struct lab_tcp){ .flags = ACK | PSH, .seq = 501, .ack = 109, .data = "answer", .len = 6 });
    lab_settle();
}

void check_unchanged(void)
{
    check_eq(lab.n_out, n_sent);
    for (unsigned i = 0; i < n_sent && i < lab.n_out; i++) {
        check_eq(lab.out[i].len, sent_len[i]);
        check(lab.out[i].len == sent_len[i] && memcmp(lab.out[i].frame, sent[i], sent_len[i]) == 0);
    }
}
