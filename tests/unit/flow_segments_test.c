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

/* Sorted, without overlaps, its counts right. */
static void assert_whole(const struct stream *s)
{
    uint32_t bytes = 0;

    for (const struct segment *x = s->first; x != NULL; x = x->next) {
        assert_true(x->len > 0);
        bytes += x->len;
        if (x->next != NULL)
            assert_true(seq_diff(x->next->seq, segment_end(x)) >= 0);
        else
            assert_ptr_equal(s->last, x);
    }
    assert_int_equal(bytes, s->bytes);
    if (s->first == NULL)
        assert_null(s->last);
}

/* The first byte that comes for a place stays, whatever comes later; and stream_differs tells. */
static void first_wins(void **state)
{
    uint64_t rnd = lab_seed();
    struct stream_pool pool = { 0 };
    assert_int_equal(stream_pool_open(&pool, (size_t)64 << 20), 0);

    print_message("seed %llu\n", (unsigned long long)rnd);
    for (unsigned round = 0; round < 3000; round++) {
        static uint8_t model[SPAN], bytes[SPAN];
        static bool have[SPAN];
        uint32_t base = round % 3 == 0 ? (uint32_t)-1500 : lab_random(&rnd, UINT32_MAX), trimmed = 0;
        struct stream s = { 0 };
        memset(have, 0, sizeof have);
        for (unsigned step = 0; step < 40; step++) {
            unsigned from = lab_random(&rnd, SPAN - 1), headers = lab_random(&rnd, 60);
            unsigned len = 1 + lab_random(&rnd, step % 4 == 0 ? 1000 : 60);
            if (len > SPAN - from)
                len = SPAN - from;
            bool other = lab_random(&rnd, 3) == 0, differs = false;
            for (unsigned i = 0; i < headers + len; i++)
                bytes[i] = (uint8_t)lab_random(&rnd, 256);
            for (unsigned i = 0; i < len; i++) {
                if (have[from + i] && !other)
                    bytes[headers + i] = model[from + i];
                differs = differs || (have[from + i] && bytes[headers + i] != model[from + i]);
            }
            struct rte_mbuf *m = packet(bytes, headers + len, 1 + lab_random(&rnd, 5));
            struct segment *pieces = NULL;
            assert_int_equal(stream_differs(&s, packet_of(m), headers, base + from, len), differs);
            size_t used = pool.used;
            assert_int_equal(stream_missing(&s, &pool, packet_of(m), headers, base + from, len, &pieces), 0);
            rte_pktmbuf_free(m);
            uint32_t missing = 0, should = 0;
            for (const struct segment *x = pieces; x != NULL; x = x->next)
                missing += x->len;
            for (unsigned i = 0; i < len; i++)
                should += !have[from + i];
            assert_int_equal(missing, should);
            if (lab_random(&rnd, 4) == 0) { /* it was not to be */
                stream_free(&pool, pieces);
                assert_int_equal(pool.used, used);
            } else {
                stream_add(&s, pieces);
                for (unsigned i = 0; i < len; i++) {
                    if (!have[from + i])
                        model[from + i] = bytes[headers + i];
                    have[from + i] = true;
                }
            }
            if (lab_random(&rnd, 8) == 0) {
                trimmed = lab_random(&rnd, SPAN);
                stream_trim(&s, &pool, base + trimmed);
                uint32_t first = s.first != NULL ? s.first->seq - base : SPAN;
                memset(have, 0, first < SPAN ? first * sizeof *have : sizeof have);
                if (s.first != NULL)
                    assert_true(seq_diff(segment_end(s.first), base + trimmed) > 0);
            }
            assert_whole(&s);
        }
        for (unsigned i = 0; i < SPAN; i++) {
            const struct segment *x = stream_from(&s, base + i);
            bool there = x != NULL && seq_diff(x->seq, base + i) <= 0;
            assert_int_equal(there, have[i]);
            if (there)
                assert_int_equal(x->data[base + i - x->seq], model[i]);
        }
        stream_free(&pool, s.first);
        assert_int_equal(pool.used, 0);
    }
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
    while (stream_missing(&s, &pool, packet_of(m), 0, n * LEN, LEN, &pieces) == 0) {
        stream_add(&s, pieces);
        n++;
        assert_true(pool.used <= pool.limit);
    }
    /* Two blocks were to be had of the three that the last one asked for: none is kept. */
    assert_null(pieces);
    assert_int_equal(n, 2);
    assert_int_equal(pool.used, 6);
    assert_int_equal(stream_missing(&s, &pool, packet_of(m), 0, 9000, 1, &pieces), 0);
    stream_free(&pool, pieces);
    stream_trim(&s, &pool, 2 * LEN);
    assert_int_equal(pool.used, 0);
    assert_int_equal(s.bytes, 0);
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
        assert_int_equal(stream_missing(&s, &pool, packet_of(m), 0, 5, lens[i], &pieces), 0);
        unsigned seen = 0;
        for (const struct segment *x = pieces; x != NULL; x = x->next) {
            assert_int_equal(x->seq, 5 + seen);
            assert_memory_equal(x->data, bytes + seen, x->len);
            seen += x->len;
        }
        assert_int_equal(seen, lens[i]);
        stream_add(&s, pieces);
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
        cmocka_unit_test(first_wins),
        cmocka_unit_test(limits),
        cmocka_unit_test(sizes),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
