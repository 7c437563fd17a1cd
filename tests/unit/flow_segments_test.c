/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/segments.h"
#include "flow_lab.h"
#include <stdlib.h>

enum { SPAN = 3000 };

/* A packet of these bytes, in so many mbufs. */
static struct rte_mbuf *packet(const uint8_t *bytes, unsigned len, unsigned pieces)
{
    struct rte_mbuf *first = NULL, *last = NULL;

    for (unsigned i = 0, at = 0; i < pieces; i++) {
        struct rte_mbuf *m = rte_pktmbuf_alloc(port_pool);
        unsigned n = i + 1 == pieces ? len - at : (len - at) / 2;
        assert_non_null(m);
        memcpy(rte_pktmbuf_append(m, (uint16_t)n), bytes + at, n);
        at += n;
        if (first == NULL) {
            first = m;
        } else {
            last->next = m;
            first->nb_segs++;
            first->pkt_len += n;
        }
        last = m;
    }
    return first;
}

/* Sorted, without overlaps, its counts right; every express link leads on, and the first piece has the nearest. */
static void assert_whole(const struct stream *s)
{
    uint32_t blocks = 0;

    for (const struct segment *x = s->first; x != NULL; x = segment_next(x)) {
        const struct segment *next = segment_next(x);
        assert_true(x->len > 0);
        assert_true(x->at + x->len <= SEGMENT_BYTES);
        blocks++;
        if (next != NULL)
            assert_true(seq_diff(next->seq, segment_end(x)) >= 0);
        else
            assert_ptr_equal(s->last, x);
        for (unsigned level = 0; level < SEGMENT_LEVELS; level++)
            if (x->up[level] != 0)
                assert_true(seq_diff(x[x->up[level]].seq, x->seq) > 0);
    }
    assert_int_equal(blocks, s->blocks);
    if (s->first == NULL)
        assert_null(s->last);
    else
        assert_int_equal(s->end, segment_end(s->last));
}

/* A byte of the stream as the definition of the policies has it. */
struct place {
    bool have;
    uint8_t byte;
    unsigned from, to; /* of the segment it came with */
};

static bool wins(enum nst_overlap policy, unsigned a, unsigned b, unsigned c, unsigned d)
{
    switch (policy) {
    case NST_OVERLAP_LAST:
        return true;
    case NST_OVERLAP_BSD:
        return a < c;
    case NST_OVERLAP_LINUX:
        return a < c || (a == c && b > d);
    case NST_OVERLAP_OLD_LINUX:
        return a < c || (a == c && b >= d);
    case NST_OVERLAP_SOLARIS:
        return b > d || (b == d && a <= c);
    default:
        return false;
    }
}

/* Whatever comes in whatever order, each place has the byte that the policy says; and stream_differs and stream_covers
 * tell. Places before `next` never change. */
static void every_policy(void **state)
{
    uint64_t rnd = lab_seed();
    struct stream_pool pool = { 0 };
    assert_int_equal(stream_pool_open(&pool, (size_t)64 << 20), 0);

    print_message("seed %llu\n", (unsigned long long)rnd);
    for (unsigned round = 0; round < 6000; round++) {
        static struct place model[SPAN];
        static uint8_t bytes[SPAN + 64];
        uint32_t base = round % 3 == 0 ? (uint32_t)-1500 : lab_random(&rnd, UINT32_MAX);
        enum nst_overlap policy = (enum nst_overlap)(round % NST_OVERLAPS);
        unsigned next = 0, most = round % 5 == 0 ? 1400 : 60, steps = round % 7 == 0 ? 300 : 40;
        struct stream s = { 0 };
        memset(model, 0, sizeof model);
        for (unsigned step = 0; step < steps; step++) {
            unsigned headers = lab_random(&rnd, 60), len = 1 + lab_random(&rnd, step % 4 == 0 ? most : 8);
            unsigned at = lab_random(&rnd, SPAN - len), end = at + len, skip = next > at ? next - at : 0;
            bool differs = false, covers = true;
            if (skip >= len)
                continue;
            for (unsigned i = 0; i < headers + len; i++)
                bytes[i] = (uint8_t)lab_random(&rnd, 3);
            for (unsigned i = 0; i < len; i++) {
                const struct place *x = &model[at + i];
                differs = differs || (x->have && bytes[headers + i] != x->byte);
                covers = covers && x->have;
            }
            struct rte_mbuf *m = packet(bytes, headers + len, 1 + lab_random(&rnd, 3));
            struct segment *pieces = NULL;
            struct stream_new n = {
                packet_of(m), headers, base + at, len, base + at + skip, policy, base + next, NULL
            };
            assert_int_equal(stream_differs(&s, packet_of(m), headers, base + at, len), differs);
            assert_int_equal(stream_covers(&s, base + at, base + end), covers);
            size_t used = pool.used;
            assert_int_equal(stream_missing(&s, &pool, &n, &pieces), 0);
            rte_pktmbuf_free(m);
            if (lab_random(&rnd, 4) == 0) { /* it was not to be */
                stream_free(&pool, pieces);
                assert_int_equal(pool.used, used);
            } else {
                stream_add(&s, &pool, pieces);
                for (unsigned i = skip; i < len; i++) {
                    struct place *x = &model[at + i];
                    if (!x->have || wins(policy, at, end, x->from, x->to))
                        *x = (struct place){ true, bytes[headers + i], at, end };
                }
            }
            if (lab_random(&rnd, 12) == 0) {
                next = lab_random(&rnd, SPAN / 2);
                stream_trim(&s, &pool, base + next);
                uint32_t first = s.first != NULL ? s.first->seq - base : SPAN;
                memset(model, 0, first < SPAN ? first * sizeof *model : sizeof model);
            }
            assert_whole(&s);
        }
        for (unsigned i = 0; i < SPAN; i++) {
            const struct segment *x = stream_from(&s, base + i);
            bool there = x != NULL && seq_diff(x->seq, base + i) <= 0;
            assert_int_equal(there, model[i].have);
            if (there) {
                assert_int_equal(segment_bytes(x)[base + i - x->seq], model[i].byte);
                assert_int_equal(x->seq - x->before, base + model[i].from);
                assert_int_equal(segment_end(x) + x->after, base + model[i].to);
            }
        }
        assert_int_equal(pool.used, s.blocks);
        stream_free(&pool, s.first);
        assert_int_equal(pool.used, 0);
    }
    stream_pool_close(&pool);
}

/* What an attacker can make us keep does not make us search: thousands of pieces, each apart, put in in the order that
 * is worst, are found in few steps. */
static void many_pieces(void **state)
{
    enum { PIECES = 20000 };
    struct stream_pool pool = { 0 };
    static const uint8_t byte[1] = { 1 };

    assert_int_equal(stream_pool_open(&pool, (size_t)64 << 20), 0);
    for (unsigned order = 0; order < 3; order++) {
        struct stream s = { 0 };
        struct rte_mbuf *m = packet(byte, 1, 1);
        for (unsigned i = 0; i < PIECES; i++) {
            unsigned k = order == 0 ? i : order == 1 ? PIECES - 1 - i : (unsigned)((uint64_t)i * 7919 % PIECES);
            struct stream_new n = { packet_of(m), 0, 2 * k, 1, 2 * k, NST_OVERLAP_FIRST, 0, NULL };
            struct segment *piece;
            assert_int_equal(stream_missing(&s, &pool, &n, &piece), 0);
            stream_add(&s, &pool, piece);
        }
        rte_pktmbuf_free(m);
        assert_int_equal(s.blocks, PIECES);
        /* The steps that a search takes, followed by hand. */
        unsigned worst = 0;
        for (unsigned k = 0; k < PIECES; k += 37) {
            const struct segment *x = s.first;
            unsigned steps = 0;
            for (unsigned level = SEGMENT_LEVELS; level-- > 0;)
                for (; x->up[level] != 0 && seq_diff(segment_end(x + x->up[level]), 2 * k) <= 0; steps++)
                    x += x->up[level];
            for (; seq_diff(segment_end(x), 2 * k) <= 0; steps++)
                x = segment_next(x);
            assert_ptr_equal(x, stream_from(&s, 2 * k));
            worst = steps > worst ? steps : worst;
        }
        assert_true(worst < 1000);
        stream_trim(&s, &pool, PIECES);
        assert_whole(&s);
        stream_free(&pool, s.first);
    }
    assert_int_equal(pool.used, 0);
    stream_pool_close(&pool);
}

/* Tiny segments behind a hole, in order or not: they share blocks, and each byte is where it was. */
static void tiny_pieces(void **state)
{
    enum { PIECES = 5000 };
    struct stream_pool pool = { 0 };

    assert_int_equal(stream_pool_open(&pool, (size_t)64 << 20), 0);
    for (unsigned order = 0; order < 3; order++) {
        struct stream s = { 0 };
        for (unsigned i = 0; i < PIECES; i++) {
            unsigned k = order == 0 ? i : order == 1 ? PIECES - 1 - i : (unsigned)((uint64_t)i * 7919 % PIECES);
            uint8_t byte = (uint8_t)(k * 31);
            struct rte_mbuf *m = packet(&byte, 1, 1);
            struct stream_new n = { packet_of(m), 0, k - 100, 1, k - 100, NST_OVERLAP_FIRST, 0u - 200, NULL };
            struct segment *piece;
            assert_int_equal(stream_missing(&s, &pool, &n, &piece), 0);
            stream_add_joined(&s, &pool, piece);
            rte_pktmbuf_free(m);
        }
        assert_whole(&s);
        assert_int_equal(pool.used, s.blocks);
        if (order == 0)
            assert_int_equal(s.blocks, (PIECES + SEGMENT_BYTES - 1) / SEGMENT_BYTES);
        assert_true(stream_covers(&s, 0u - 100, PIECES - 100));
        assert_int_equal(s.end, PIECES - 100);
        for (unsigned k = 0; k < PIECES; k++) {
            const struct segment *x = stream_from(&s, k - 100);
            assert_int_equal(segment_bytes(x)[k - 100 - x->seq], (uint8_t)(k * 31));
        }
        stream_free(&pool, s.first);
    }
    assert_int_equal(pool.used, 0);
    stream_pool_close(&pool);
}

static void limits(void **state)
{
    enum { BLOCKS = 8, LEN = 2 * SEGMENT_BYTES + 1 }; /* three blocks each */
    struct stream_pool pool = { 0 };
    struct stream s = { 0 };
    static uint8_t bytes[LEN];
    struct rte_mbuf *m = packet(bytes, sizeof bytes, 1);
    struct segment *pieces;
    unsigned n = 0;

    assert_int_equal(stream_pool_open(&pool, BLOCKS * SEGMENT_BLOCK), 0);
    for (;; n++) {
        struct stream_new add = { .packet = packet_of(m), .seq = n * LEN, .len = LEN, .from = n * LEN };
        if (stream_missing(&s, &pool, &add, &pieces) < 0)
            break;
        stream_add(&s, &pool, pieces);
        assert_true(pool.used <= pool.limit);
    }
    /* Two blocks were to be had of the three that the last one asked for: none is kept. */
    assert_null(pieces);
    assert_int_equal(n, 2);
    assert_int_equal(pool.used, 6);
    assert_int_equal(stream_missing(&s, &pool,
                                    &(struct stream_new){ .packet = packet_of(m), .seq = 9000, .len = 1, .from = 9000 },
                                    &pieces),
                     0);
    stream_free(&pool, pieces);
    stream_trim(&s, &pool, 2 * LEN);
    assert_int_equal(pool.used, 0);
    assert_int_equal(s.blocks, 0);
    assert_int_equal(pool.used_peak, BLOCKS);
    rte_pktmbuf_free(m);
    stream_pool_close(&pool);
}

/* A piece of every size there can be. */
static void sizes(void **state)
{
    struct stream_pool pool = { 0 };
    assert_int_equal(stream_pool_open(&pool, (size_t)64 << 20), 0);
    static uint8_t bytes[65535];
    static const unsigned lens[] = {
        1, 107, 128, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 1000, 1460, 2048, 8191, 16384, 40000, 65535
    };

    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7);
    for (unsigned i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        struct stream s = { 0 };
        struct segment *pieces;
        struct rte_mbuf *m = NULL, *last = NULL;
        for (unsigned at = 0; at < lens[i]; at += 1400) {
            struct rte_mbuf *x = packet(bytes + at, lens[i] - at < 1400 ? lens[i] - at : 1400, 1);
            if (m != NULL) {
                last->next = x;
                m->nb_segs++;
                m->pkt_len += x->pkt_len;
            } else {
                m = x;
            }
            last = x;
        }
        assert_int_equal(
            stream_missing(&s, &pool,
                           &(struct stream_new){ .packet = packet_of(m), .seq = 5, .len = lens[i], .from = 5 },
                           &pieces),
            0);
        unsigned seen = 0;
        for (const struct segment *x = pieces; x != NULL; x = segment_next(x)) {
            assert_int_equal(x->seq, 5 + seen);
            assert_memory_equal(segment_bytes(x), bytes + seen, x->len);
            seen += x->len;
        }
        assert_int_equal(seen, lens[i]);
        stream_add(&s, &pool, pieces);
        assert_false(stream_differs(&s, packet_of(m), 0, 5, lens[i]));
        assert_int_equal(stream_differs(&s, packet_of(m), 0, 6, lens[i]), lens[i] > 1);
        stream_trim(&s, &pool, 5 + lens[i]);
        assert_int_equal(pool.used, 0);
        rte_pktmbuf_free(m);
    }
    stream_pool_close(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_policy), cmocka_unit_test(many_pieces), cmocka_unit_test(tiny_pieces),
        cmocka_unit_test(limits),       cmocka_unit_test(sizes),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
