/* SPDX-License-Identifier: Apache-2.0 */
/* TCP's options, as far as editing has to do with them. */
#include "flow/edit.h"
#include <string.h>

enum {
    OPTION_END = 0,
    OPTION_NOP = 1,
    OPTION_MSS = 2,
    OPTION_SCALE = 3,
    OPTION_SACK_PERMITTED = 4,
    OPTION_SACK = 5,
    OPTION_TIME = 8,
    SCALE_MAX = 14,  /* RFC 7323 */
    BLOCKS_MAX = 34, /* the longest SACK option that there is room for */
};

static uint32_t load32(const uint8_t *p)
{
    rte_be32_t v;
    memcpy(&v, p, sizeof v);
    return rte_be_to_cpu_32(v);
}

/* The options of a packet: where they begin, and in *end where they end. */
static const uint8_t *options_of(const struct nst_packet *p, const uint8_t **end)
{
    *end = rte_pktmbuf_mtod_offset(mbuf_of(p), const uint8_t *, p->h.payload);
    return (const uint8_t *)(edit_header(p) + 1);
}

/* The kind of the option at *at or behind it, whose place is then *at; 0 at their end, or where they make no sense. */
static uint8_t next_option(const uint8_t **at, const uint8_t *end, uint8_t *len)
{
    const uint8_t *o = *at;

    while (o < end && *o == OPTION_NOP)
        o++;
    if (end - o < 2 || *o == OPTION_END || o[1] < 2 || o[1] > end - o)
        return 0;
    *len = o[1];
    *at = o;
    return *o;
}

void option_syn(struct edit_way *w, const struct nst_packet *p)
{
    const uint8_t *end, *o = options_of(p, &end);
    uint8_t kind, len = 0;

    w->mss = 0;
    w->scale = 0;
    w->flags &= (uint16_t) ~(WAY_SACK | WAY_SCALE);
    w->flags |= WAY_OFFERED;
    for (; (kind = next_option(&o, end, &len)) != 0; o += len) {
        if (kind == OPTION_MSS && len == 4) {
            w->mss = (uint16_t)(o[2] << 8 | o[3]);
        } else if (kind == OPTION_SCALE && len == 3) {
            w->scale = o[2] < SCALE_MAX ? o[2] : SCALE_MAX;
            w->flags |= WAY_SCALE;
        } else if (kind == OPTION_SACK_PERMITTED && len == 2) {
            w->flags |= WAY_SACK;
        }
    }
}

void option_stamp(struct edit_way *w, const struct nst_packet *p)
{
    const uint8_t *end, *o = options_of(p, &end);
    uint8_t kind, len = 0;

    for (; (kind = next_option(&o, end, &len)) != 0; o += len) {
        if (kind != OPTION_TIME || len != 10)
            continue;
        uint32_t tsval = load32(o + 2);
        if ((w->flags & WAY_TIME) == 0 || seq_diff(tsval, w->tsval) > 0)
            w->tsval = tsval;
        w->flags |= WAY_TIME;
    }
}

static void map_blocks(struct nst_packet *p, const uint8_t *option, uint8_t len, const struct edit_map *m, bool inwards)
{
    uint8_t out[BLOCKS_MAX];
    uint8_t n = 2;

    for (unsigned i = 2; i + 8 <= len; i += 8) {
        uint32_t from = load32(option + i), to = load32(option + i + 4);
        from = inwards ? edit_in_left(m, from) : edit_out(m, from);
        to = inwards ? edit_in(m, to) : edit_out(m, to);
        if (seq_diff(from, to) >= 0)
            continue;
        const rte_be32_t block[] = { rte_cpu_to_be_32(from), rte_cpu_to_be_32(to) };
        memcpy(out + n, block, sizeof block);
        n += sizeof block;
    }
    out[0] = n > 2 ? OPTION_SACK : OPTION_NOP;
    out[1] = n > 2 ? n : OPTION_NOP;
    memset(out + n, OPTION_NOP, (size_t)(len - n));
    nst_packet_edit(p, (size_t)(option - rte_pktmbuf_mtod(mbuf_of(p), const uint8_t *)), out, len);
}

void option_map_sack(struct nst_packet *p, const struct edit_map *m, bool inwards)
{
    const uint8_t *end, *o = options_of(p, &end);
    uint8_t kind, len = 0;

    for (; (kind = next_option(&o, end, &len)) != 0; o += len) {
        if (kind == OPTION_SACK && len <= BLOCKS_MAX)
            map_blocks(p, o, len, m, inwards);
    }
}

void option_put_sack(uint8_t *to, const struct edit_way *w, unsigned blocks)
{
    to[0] = to[1] = OPTION_NOP;
    to[2] = OPTION_SACK;
    to[3] = (uint8_t)(2 + 8 * blocks);
    for (unsigned i = 0; i < blocks; i++) {
        const rte_be32_t block[] = { rte_cpu_to_be_32(w->run[i].from), rte_cpu_to_be_32(w->run[i].end) };
        memcpy(to + 4 + 8 * i, block, sizeof block);
    }
}
