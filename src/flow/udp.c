/* SPDX-License-Identifier: Apache-2.0 */
/* nst_udp: one end of a UDP flow; every datagram with a payload is DATA, whole and on its own. */
#include "flow/engine.h"

struct udp_end {
    uint32_t opened;
    uint32_t given; /* bytes of the current datagram that were handed out */
};

static nst_events udp_packet(void *self, struct nst_flow *f, enum nst_side side, enum nst_dir dir, struct nst_packet *p)
{
    struct udp_end *u = self;
    nst_events what = u->opened ? 0 : NST_EV_OPEN;

    u->opened = 1;
    u->given = dir == NST_RECEIVED ? 0 : p->h.payload_len;
    if (dir == NST_RECEIVED && p->h.payload_len > 0)
        what |= NST_EV_DATA;
    return what;
}

static bool udp_bytes(void *self, struct nst_flow *f, enum nst_side side, struct nst_slice *out)
{
    struct udp_end *u = self;
    const struct nst_packet *p = nst_flow_packet(f, side);
    const uint8_t *at = NULL;

    if (p == NULL || u->given >= p->h.payload_len)
        return false;
    uint32_t n = packet_piece(p, p->h.payload + u->given, p->h.payload_len - u->given, &at);
    if (n == 0)
        return false;
    u->given += n;
    *out = (struct nst_slice){ at, n };
    return true;
}

static void udp_rewind(void *self, struct nst_flow *f, enum nst_side side)
{
    struct udp_end *u = self;
    const struct nst_packet *p = nst_flow_packet(f, side);

    if (p != NULL && p->dir != side) /* it receives it */
        u->given = 0;
}

const struct nst_inspector nst_udp = {
    .name = "udp",
    .size = sizeof(struct udp_end),
    .packet = udp_packet,
    .bytes = udp_bytes,
    .rewind = udp_rewind,
};

void udp_again(struct nst_flow *f, enum nst_side side)
{
    if (f->engine->nf->half[side].inspect == &nst_udp)
        ((struct udp_end *)flow_inspector(f, side))->given = 0;
}
