/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: fragments into the table that puts them together. Of every whole the bytes are those of its fragments,
 * each at its place; it goes back to fragments, edited or not; and in the end every fragment has met one end.
 *
 * The first byte sets the limits. Then come fragments of seven bytes each: what it is (family, more to come, how much
 * time passes, whether its header lies), the datagram, its place (two bytes), its length, its first byte, what becomes
 * of a whole.
 */
#include "flow/fragment.h"
#include "flow/parse.h"
#include "io/port.h"
#include <netstar/ports.h>
#include <rte_mempool.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t ended;

static void must(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}
#define MUST(what) must(what, #what)

static void give_up(void *arg, struct nst_packet *p, enum nst_fault why)
{
    ended++;
    rte_pktmbuf_free(mbuf_of(p));
}

static struct nst_packet *make(const uint8_t *in)
{
    bool v4 = in[0] & 1, more = in[0] & 2;
    unsigned at = ((in[2] & 0x1fu) << 8 | in[3]) * 8, ip = v4 ? 20 : 48;
    unsigned len = in[4] % 240 * 8u + (in[0] & 0x80 ? 3 : 0); /* it fits a buffer */
    struct rte_mbuf *m = rte_pktmbuf_alloc(port_pool);

    MUST(m != NULL);
    unsigned frame = 14 + ip + len;
    uint8_t *d = (uint8_t *)rte_pktmbuf_append(m, (uint16_t)frame);
    memset(d, 0, frame);
    d[12] = v4 ? 0x08 : 0x86;
    d[13] = v4 ? 0x00 : 0xdd;
    if (v4) {
        d[14] = 0x45;
        d[16] = (uint8_t)((20 + len) >> 8);
        d[17] = (uint8_t)(20 + len);
        d[19] = in[1];
        d[20] = (uint8_t)((at / 8) >> 8 | (more ? 0x20 : 0));
        d[21] = (uint8_t)(at / 8);
        d[23] = IPPROTO_UDP;
    } else {
        d[14] = 0x60;
        d[18] = (uint8_t)((8 + len) >> 8);
        d[19] = (uint8_t)(8 + len);
        d[20] = IPPROTO_FRAGMENT;
        d[54] = IPPROTO_UDP;
        d[56] = (uint8_t)(at >> 8);
        d[57] = (uint8_t)(at | more);
        d[61] = in[1];
    }
    for (unsigned i = 0; i < len; i++)
        d[14 + ip + i] = (uint8_t)(in[5] + i);
    if (in[0] & 0x40)
        d[14 + in[5] % ip] ^= in[6];
    return packet_of(m);
}

static void check_whole(struct fragments *t, struct nst_packet *w, uint8_t what)
{
    const uint8_t *frame = rte_pktmbuf_mtod(mbuf_of(w), const uint8_t *);
    uint32_t parts = 0, bytes = 0, n = 0, head = mbuf_of(w)->data_len;

    for (const struct nst_packet *p = w->first; p != NULL; p = p->after)
        bytes += p->part_len;
    head -= bytes;
    for (const struct nst_packet *p = w->parts; p != NULL; p = p->next, parts++)
        MUST(memcmp(frame + head + p->part_at, rte_pktmbuf_mtod_offset(mbuf_of(p), uint8_t *, p->h.payload),
                    p->part_len) == 0);
    MUST(parts == w->n_parts);
    MUST(w->first->part_at == 0);
    ended += parts;
    if (what & 1) {
        MUST(fragments_free(t, w) == parts);
        return;
    }
    uint8_t *to = rte_pktmbuf_mtod(mbuf_of(w), uint8_t *);
    if (what & 2) {
        to[14 + what % 40] ^= what; /* the header, lengths and all */
        to[head] ^= what;
    }
    for (struct nst_packet *p = fragments_unfold(t, w, &n), *next; p != NULL; p = next, n--) {
        next = p->next;
        rte_mbuf_sanity_check(mbuf_of(p), 1);
        rte_pktmbuf_free(mbuf_of(p));
    }
    MUST(n == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nst_io_config config = { .packets = 1024, .no_huge = true };
    static const struct hash_secret secret = { { 1, 2, 3, 4, 5, 6, 7, 8 } };
    static struct fragments t;
    uint64_t added = 0;
    uint32_t tick = 0;

    if (port_pool == NULL) {
        nst_log_level(NST_LOG_ERROR);
        MUST(nst_io_open(&config, NULL) == 0);
    }
    if (size == 0)
        return 0;
    MUST(fragments_open(&t, 4 + data[0] % 64, 2000u + data[0] * 500u, 100, &secret, give_up, NULL) == 0);
    ended = 0;
    for (const uint8_t *in = data + 1; in + 7 <= data + size; in += 7) {
        struct nst_packet *p = make(in);
        struct flow_key key;
        bool from_b;
        if (parse_packet(mbuf_of(p), &p->h, &key, &from_b) != PARSED_FRAGMENT) {
            rte_pktmbuf_free(mbuf_of(p));
            continue;
        }
        tick += in[0] >> 2 & 15;
        p->flags = 0;
        added++;
        struct nst_packet *w = fragments_add(&t, p, 0, tick);
        if (w != NULL)
            check_whole(&t, w, in[6]);
        MUST(ended + t.kept == added);
        MUST(t.kept <= t.limit && t.bytes <= t.bytes_limit);
    }
    fragments_flush(&t);
    MUST(ended == added && t.kept == 0 && t.bytes == 0);
    MUST(t.n_free_wholes == FRAGMENT_WHOLES);
    fragments_close(&t);
    MUST(rte_mempool_avail_count(port_pool) == port_pool->size);
    return 0;
}
