/* SPDX-License-Identifier: Apache-2.0 */
/* The lives of TCP connections as the firewall follows them: who may send what next. */
#include "firewall/track.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { C = 0, S = 1, ISN = 1000, PEER = 5000 };

struct step {
    unsigned from;
    uint8_t flags;
    uint32_t seq, ack, len;
    bool passes;
    uint8_t state; /* afterwards */
};

static void play(const char *what, struct fw_tcp *t, const struct step *steps, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct step *s = &steps[i];
        struct fw_segment segment = { s->seq, s->ack, s->len, s->flags };
        struct fw_tcp before = *t;
        bool passes = fw_tcp_next(t, s->from, &segment);
        if (passes != s->passes || t->state != s->state)
            fail_msg("%s, step %zu: passes %d, state %d", what, i, passes, t->state);
        if (!passes)
            assert_memory_equal(t, &before, sizeof before);
    }
}
#define PLAY(t, ...)                                            \
    do {                                                        \
        const struct step steps[] = { __VA_ARGS__ };            \
        play(__func__, t, steps, sizeof steps / sizeof *steps); \
    } while (0)

static struct fw_tcp opened(void)
{
    struct fw_tcp t;
    fw_tcp_begin(&t, C, &(struct fw_segment){ .seq = ISN, .flags = FW_SYN });
    PLAY(&t, { S, FW_SYN | FW_ACK, PEER, ISN + 1, 0, true, FW_TCP_SYNS },
         { C, FW_ACK, ISN + 1, PEER + 1, 0, true, FW_TCP_OPEN });
    return t;
}

static void a_life(void **state)
{
    struct fw_tcp t = opened();
    PLAY(&t, { C, FW_ACK | FW_PSH, ISN + 1, PEER + 1, 100, true, FW_TCP_OPEN },
         { S, FW_ACK | FW_PSH, PEER + 1, ISN + 101, 200, true, FW_TCP_OPEN },
         { C, FW_ACK | FW_FIN, ISN + 101, PEER + 201, 0, true, FW_TCP_OPEN },
         { S, FW_ACK, PEER + 201, ISN + 102, 0, true, FW_TCP_OPEN },
         { S, FW_ACK | FW_FIN, PEER + 201, ISN + 102, 50, true, FW_TCP_OPEN },
         { C, FW_ACK, ISN + 102, PEER + 252, 0, true, FW_TCP_FINS },
         { S, FW_ACK | FW_FIN, PEER + 201, ISN + 102, 50, true, FW_TCP_FINS });
}

static void only_a_syn_opens(void **state)
{
    static const uint8_t flags[] = { FW_ACK, FW_SYN | FW_ACK, FW_RST, FW_RST | FW_ACK, FW_FIN | FW_ACK, FW_SYN };
    for (unsigned i = 0; i < sizeof flags; i++) {
        struct fw_tcp t = { 0 };
        assert_false(fw_tcp_next(&t, C, &(struct fw_segment){ .flags = flags[i] }));
        assert_int_equal(t.state, FW_TCP_NONE);
    }
}

static void flags(void **state)
{
    unsigned lies = 0;
    for (unsigned f = 0; f < 64; f++) {
        bool syn = f & FW_SYN, fin = f & FW_FIN, rst = f & FW_RST, ack = f & FW_ACK;
        bool lie = (syn && (fin || rst)) || (!syn && !ack && !rst) || (fin && rst);
        assert_int_equal(fw_tcp_flags_lie((uint8_t)f), lie);
        struct fw_tcp t = opened();
        if (lie)
            assert_false(fw_tcp_next(&t, C, &(struct fw_segment){ ISN + 1, PEER + 1, 0, (uint8_t)f }));
        lies += lie;
    }
    assert_true(lies > 30);
}

static void before_the_answer(void **state)
{
    struct fw_tcp t;
    fw_tcp_begin(&t, C, &(struct fw_segment){ .seq = ISN, .len = 10, .flags = FW_SYN }); /* with data: RFC 7413 */
    PLAY(&t, { C, FW_ACK, ISN + 11, PEER + 1, 0, false, FW_TCP_SYN }, { C, FW_ACK, ISN + 11, 0, 5, false, FW_TCP_SYN },
         { S, FW_ACK, PEER, ISN + 11, 5, false, FW_TCP_SYN },
         { S, FW_ACK | FW_FIN, PEER, ISN + 11, 0, false, FW_TCP_SYN },
         { S, FW_ACK, 777, 888, 0, true, FW_TCP_SYN }, /* it knows of an older connection (RFC 5961, 4) */
         { C, FW_RST, 888, 0, 0, true, FW_TCP_SYN },   /* which the client then ends */
         { C, FW_SYN, ISN, 0, 10, true, FW_TCP_SYN },  /* and tries again */
         { S, FW_SYN | FW_ACK, PEER, ISN + 12, 0, false, FW_TCP_SYN }, /* acknowledges what was not sent */
         { S, FW_SYN | FW_ACK, PEER, ISN - 70000, 0, false, FW_TCP_SYN },
         { C, FW_SYN | FW_ACK, ISN, PEER, 0, false, FW_TCP_SYN }, /* answers itself */
         { S, FW_RST, PEER, 0, 0, false, FW_TCP_SYN },            /* a reset without ACK counts for nothing here */
         { S, FW_RST | FW_ACK, 0, ISN + 1, 0, false, FW_TCP_SYN },
         { S, FW_SYN | FW_ACK, PEER, ISN + 1, 0, true, FW_TCP_SYNS }, /* without what came in the SYN */
         { S, FW_ACK, PEER + 1, ISN + 11, 5, true, FW_TCP_SYNS },
         { C, FW_ACK, ISN + 11, PEER + 6, 0, true, FW_TCP_OPEN });
}

static void refused(void **state)
{
    struct fw_tcp t;
    fw_tcp_begin(&t, S, &(struct fw_segment){ .seq = ISN, .flags = FW_SYN }); /* the other way round */
    PLAY(&t, { C, FW_RST | FW_ACK, 0, ISN + 1, 0, true, FW_TCP_RESET });
}

static void both_open(void **state)
{
    struct fw_tcp t;
    fw_tcp_begin(&t, C, &(struct fw_segment){ .seq = ISN, .flags = FW_SYN });
    PLAY(&t, { S, FW_SYN, PEER, 0, 0, true, FW_TCP_SYNS }, { C, FW_SYN | FW_ACK, ISN, PEER + 1, 0, true, FW_TCP_SYNS },
         { S, FW_SYN | FW_ACK, PEER, ISN + 1, 0, true, FW_TCP_SYNS },
         { C, FW_ACK, ISN + 1, PEER + 1, 0, true, FW_TCP_OPEN });
}

/* Only the number that the receiver expects ends what is known here; the rest is for the receiver to judge. */
static void resets(void **state)
{
    for (unsigned from = 0; from < 2; from++) {
        struct fw_tcp t = opened();
        uint32_t expected = from == C ? ISN + 101 : PEER + 201;
        PLAY(&t, { C, FW_ACK, ISN + 1, PEER + 1, 100, true, FW_TCP_OPEN },
             { S, FW_ACK, PEER + 1, ISN + 101, 200, true, FW_TCP_OPEN },
             { C, FW_ACK, ISN + 101, PEER + 201, 0, true, FW_TCP_OPEN },
             { from, FW_RST, expected + 1, 0, 0, true, FW_TCP_OPEN },
             { from, FW_RST, expected - 1, 0, 0, true, FW_TCP_OPEN }, { from, FW_RST, 0, 0, 0, true, FW_TCP_OPEN },
             { from, FW_RST, expected, 0, 0, true, FW_TCP_RESET });
    }
}

/* FINs that nobody has acknowledged, as anybody could send them, end nothing. */
static void false_ends(void **state)
{
    struct fw_tcp t = opened();
    PLAY(&t, { C, FW_ACK | FW_FIN, 123456, PEER + 1, 0, true, FW_TCP_OPEN },
         { S, FW_ACK | FW_FIN, 654321, ISN + 1, 0, true, FW_TCP_OPEN },
         { C, FW_ACK, ISN + 1, PEER + 1, 0, true, FW_TCP_OPEN },
         { S, FW_ACK, PEER + 1, ISN + 1, 0, true, FW_TCP_OPEN });
}

static void a_forgotten_connection(void **state)
{
    struct fw_tcp t = opened();
    PLAY(&t, { C, FW_SYN, 90000, 0, 0, true, FW_TCP_OPEN },           /* the client has restarted */
         { S, FW_ACK, PEER + 1, ISN + 1, 0, true, FW_TCP_OPEN },      /* the server has not */
         { S, FW_SYN | FW_ACK, 91000, 12345, 0, false, FW_TCP_OPEN }, /* nobody asked for this */
         { S, FW_SYN | FW_ACK, 91000, 90001, 0, true, FW_TCP_SYNS }, { C, FW_ACK, 90001, 91001, 0, true, FW_TCP_OPEN });
}

static void taken_over(void **state)
{
    struct fw_tcp t;
    fw_tcp_pick_up(&t);
    PLAY(&t, { S, FW_ACK, 4000000000u, 7, 1000, true, FW_TCP_OPEN }, { C, FW_RST, 8, 0, 0, true, FW_TCP_OPEN },
         { C, FW_ACK, 7, 4000001000u, 0, true, FW_TCP_OPEN },
         { C, FW_ACK | FW_FIN, 7, 4000001000u, 0, true, FW_TCP_OPEN },
         { S, FW_ACK | FW_FIN, 4000001000u, 8, 0, true, FW_TCP_OPEN },
         { C, FW_ACK, 8, 4000001001u, 0, true, FW_TCP_FINS });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_life),
        cmocka_unit_test(only_a_syn_opens),
        cmocka_unit_test(flags),
        cmocka_unit_test(before_the_answer),
        cmocka_unit_test(refused),
        cmocka_unit_test(both_open),
        cmocka_unit_test(resets),
        cmocka_unit_test(false_ends),
        cmocka_unit_test(a_forgotten_connection),
        cmocka_unit_test(taken_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
