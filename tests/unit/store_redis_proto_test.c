/* SPDX-License-Identifier: Apache-2.0 */
/* Redis on the level of bytes, without a connection: what requests look like, and what answers, right and wrong ones,
 * whole and in pieces, end as. This file stands in for redis.c. */
#include "store/redis.h"
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { RING = 16, OUT = 1 << 20 };
static struct redis_store *s;
static int results[RING];
static unsigned n_results, n_logged;
static struct nst_future futures[RING];

struct redis_request *redis_begin(struct redis_store *st, struct nst_future *f, enum redis_op op, size_t bytes)
{
    struct redis_request *r = &st->ring[st->tail++ & st->ring_mask];

    assert_true(st->filled + bytes <= st->out_cap);
    *r = (struct redis_request){ .store = st, .f = f, .op = op };
    return r;
}

void redis_begin_setup(struct redis_store *st)
{
    redis_begin(st, NULL, OP_SETUP, 0);
}

bool redis_reserve(struct redis_store *st, size_t bytes)
{
    return st->filled + bytes <= st->out_cap;
}

void redis_log(struct redis_store *st, enum nst_log_level level, const char *fmt, ...)
{
    n_logged++;
}

bool redis_answered(struct redis_store *st)
{
    assert_true(st->head != st->tail);
    st->head++;
    results[n_results++] = st->answer;
    return true;
}

static int setup(void **state)
{
    s = calloc(1, sizeof *s);
    s->ring = calloc(RING, sizeof *s->ring);
    s->ring_mask = RING - 1;
    s->out = malloc(OUT);
    s->out_cap = OUT;
    s->reader = redis_reader_open(s);
    n_results = n_logged = 0;
    return s->reader == NULL;
}

static int teardown(void **state)
{
    redisReaderFree(s->reader);
    free(s->out);
    free(s->ring);
    free(s);
    return 0;
}

static struct nst_slice text(const char *p)
{
    return (struct nst_slice){ p, strlen(p) };
}

static void sent(const char *bytes, size_t len)
{
    assert_int_equal(s->filled, len);
    assert_memory_equal(s->out, bytes, len);
    s->filled = 0;
}
#define SENT(literal) sent(literal, sizeof(literal) - 1)

static void requests(void **state)
{
    int64_t n;

    s->version = 0x0102030405060707;
    redis_get(&s->base, text("key"), NULL, 100, NULL, &futures[0]);
    SENT("*4\r\n$8\r\nGETRANGE\r\n$3\r\nkey\r\n$1\r\n0\r\n$3\r\n108\r\n");
    redis_get(&s->base, (struct nst_slice){ "\0\r\n", 3 }, NULL, SIZE_MAX, NULL, &futures[0]);
    SENT("*4\r\n$8\r\nGETRANGE\r\n$3\r\n\0\r\n\r\n$1\r\n0\r\n$5\r\n65544\r\n");
    redis_put(&s->base, text("key"), text("value"), 0, &futures[0]);
    SENT("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$13\r\n\xf5\x02\x03\x04\x05\x06\x07\x08value\r\n");
    redis_put(&s->base, text("key"), text(""), NST_MS(1) + 1, &futures[0]);
    SENT("*5\r\n$3\r\nSET\r\n$3\r\nkey\r\n$8\r\n\xf5\x02\x03\x04\x05\x06\x07\x09\r\n$2\r\nPX\r\n$1\r\n2\r\n");
    redis_cas(&s->base, text("key"), text("v"), 0, NST_SEC(10), &futures[0]);
    SENT("*6\r\n$3\r\nSET\r\n$3\r\nkey\r\n$9\r\n\xf5\x02\x03\x04\x05\x06\x07\x0av\r\n$2\r\nNX\r\n$2\r\nPX\r\n"
         "$5\r\n10000\r\n");
    redis_incr(&s->base, text("n"), INT64_MIN, &n, 0, &futures[0]);
    SENT("*3\r\n$6\r\nINCRBY\r\n$1\r\nn\r\n$20\r\n-9223372036854775808\r\n");
    redis_del(&s->base, text("key"), &futures[0]);
    SENT("*2\r\n$3\r\nDEL\r\n$3\r\nkey\r\n");
    redis_ping(&s->base, &futures[0]);
    SENT("*1\r\n$4\r\nPING\r\n");
}

/* Every kind of request is an array of as many bulk strings as it says, and nothing after. */
static void requests_are_well_formed(void **state)
{
    static const struct nst_slice keys[] = { { "", 0 }, { "k", 1 }, { "a\r\n$5\r\n", 8 } };
    int64_t n;

    for (int i = 0; i < 3 * 11; i++) {
        struct nst_slice key = keys[i % 3], val = keys[(i + 1) % 3];
        long args = 0;
        char *p;
        s->filled = 0;
        switch (i / 3) {
        case 0:
            redis_get(&s->base, key, NULL, 0, NULL, &futures[0]);
            break;
        case 1:
        case 2:
            redis_put(&s->base, key, val, i / 3 == 1 ? 0 : NST_SEC(100), &futures[0]);
            break;
        case 3:
        case 4:
            redis_cas(&s->base, key, val, 0, i / 3 == 3 ? 0 : NST_SEC(100), &futures[0]);
            break;
        case 5:
        case 6:
            redis_cas(&s->base, key, val, 77, i / 3 == 5 ? 0 : NST_SEC(100), &futures[0]);
            break;
        case 7:
        case 8:
            redis_incr(&s->base, key, i - 20, &n, i / 3 == 7 ? 0 : NST_SEC(100), &futures[0]);
            break;
        case 9:
            redis_del(&s->base, key, &futures[0]);
            break;
        case 10:
            redis_ping(&s->base, &futures[0]);
            break;
        }
        p = (char *)s->out;
        assert_int_equal(*p, '*');
        args = strtol(p + 1, &p, 10);
        assert_true(args > 0);
        for (; args > 0; args--) {
            long len;
            assert_memory_equal(p, "\r\n$", 3);
            len = strtol(p + 3, &p, 10);
            assert_memory_equal(p, "\r\n", 2);
            p += 2 + len;
        }
        assert_memory_equal(p, "\r\n", 2);
        assert_ptr_equal(p + 2, s->out + s->filled);
    }
}

/* The longest of everything stays inside what a request reserves (checked by redis_begin and the sanitizers). */
static void longest_requests(void **state)
{
    char *value = calloc(1, NST_VALUE_MAX), key[NST_KEY_MAX];
    struct nst_slice k = { key, sizeof key }, v = { value, NST_VALUE_MAX };
    int64_t n;

    memset(key, 'k', sizeof key);
    for (int i = 0; i < 2; i++) {
        size_t before = s->filled;
        s->out_cap = before + 512 + sizeof key + NST_VALUE_MAX;
        redis_cas(&s->base, k, v, UINT64_MAX, NST_NEVER, &futures[0]);
        assert_true(s->filled <= s->out_cap);
        before = s->filled;
        s->out_cap = before + 512 + sizeof key;
        redis_incr(&s->base, k, INT64_MIN, &n, NST_NEVER, &futures[0]);
        assert_true(s->filled <= s->out_cap);
    }
    free(value);
}

static void setup_of_a_connection(void **state)
{
    s->url.auth = true;
    strcpy(s->url.password, "secret");
    assert_true(redis_put_setup(s));
    SENT("*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n*1\r\n$4\r\nPING\r\n");
    strcpy(s->url.user, "bob");
    s->url.db = 12;
    assert_true(redis_put_setup(s));
    SENT("*3\r\n$4\r\nAUTH\r\n$3\r\nbob\r\n$6\r\nsecret\r\n*2\r\n$6\r\nSELECT\r\n$2\r\n12\r\n*1\r\n$4\r\nPING\r\n");
    assert_int_equal(s->tail, 5);
}

/* One request of a kind, one answer to it, fed in pieces of `step` bytes: its result, or 1 when it is not complete, or
 * -EPROTO. */
static char val[64];
static uint64_t version;
static int64_t count;
static int answer(enum redis_op op, const char *bytes, size_t len, size_t step)
{
    struct redis_request *r = redis_begin(s, &futures[0], op, 0);
    int rc = 0;

    if (op == OP_GET) {
        r->val = val;
        r->cap = 16;
        r->version = &version;
    } else if (op == OP_INCR) {
        r->count = &count;
    }
    memset(val, 'x', sizeof val);
    version = 0;
    count = -1;
    n_results = 0;
    for (size_t i = 0; i < len && rc == 0; i += step) {
        size_t n = len - i < step ? len - i : step;
        char *piece = malloc(n); /* so that the sanitizer sees each byte beyond it */
        memcpy(piece, bytes + i, n);
        rc = redis_read(s, piece, n);
        free(piece);
    }
    if (rc < 0) {
        assert_non_null(s->bad);
        assert_true(strlen(s->bad) > 0);
    }
    if (rc < 0 || n_results == 0) { /* a new connection */
        s->head = s->tail;
        redisReaderFree(s->reader);
        s->reader = redis_reader_open(s);
        return rc < 0 ? rc : 1;
    }
    assert_int_equal(n_results, 1);
    return results[0];
}

#define ANSWER(op, literal, expected)                                                    \
    do {                                                                                 \
        for (size_t step_ = 1; step_ <= sizeof(literal); step_++)                        \
            assert_int_equal(answer(op, literal, sizeof(literal) - 1, step_), expected); \
    } while (0)

static void answers(void **state)
{
    ANSWER(OP_GET, "$0\r\n\r\n", -ENOENT);
    ANSWER(OP_GET, "$8\r\n\xf5\1\2\3\4\5\6\7\r\n", 0);
    assert_true(version == 0xf501020304050607);
    ANSWER(OP_GET, "$11\r\n\xf5\1\2\3\4\5\6\7a\r\n\r\n", 3);
    assert_memory_equal(val, "a\r\nx", 4);
    ANSWER(OP_GET,
           "$24\r\n\xf5"
           "1234567abcdefghijklmnop\r\n",
           16);
    assert_memory_equal(val, "abcdefghijklmnopx", 17);
    ANSWER(OP_GET,
           "$25\r\n\xf5"
           "1234567abcdefghijklmnopq\r\n",
           -EMSGSIZE);
    assert_int_equal(val[0], 'x');
    ANSWER(OP_PUT, "+OK\r\n", 0);
    ANSWER(OP_PING, "+PONG\r\n", 0);
    ANSWER(OP_SETUP, "+OK\r\n", 0);
    ANSWER(OP_CAS_NEW, "+OK\r\n", 0);
    ANSWER(OP_CAS_NEW, "$-1\r\n", -ESTALE);
    ANSWER(OP_CAS, ":1\r\n", 0);
    ANSWER(OP_CAS, ":0\r\n", -ESTALE);
    ANSWER(OP_DELETE, ":1\r\n", 0);
    ANSWER(OP_DELETE, ":0\r\n", -ENOENT);
    ANSWER(OP_INCR, ":-5\r\n", 0);
    assert_int_equal(count, -5);
    ANSWER(OP_INCR, "$20\r\n-9223372036854775808\r\n", 0);
    assert_true(count == INT64_MIN);
    ANSWER(OP_INCR, "$19\r\n9223372036854775807\r\n", 0);
    assert_true(count == INT64_MAX);
}

static void errors_of_the_server(void **state)
{
    ANSWER(OP_INCR, "-ERR value is not an integer or out of range\r\n", -EINVAL);
    ANSWER(OP_INCR, "-ERR Error running script (call to f_1): @user_script:1: ERR value is not an integer or out\r\n",
           -EINVAL);
    ANSWER(OP_INCR, "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", -EINVAL);
    assert_int_equal(n_logged, 0);
    ANSWER(OP_INCR, "-ERR increment or decrement would overflow\r\n", -EIO);
    ANSWER(OP_GET, "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", -EIO);
    ANSWER(OP_PUT, "-OOM command not allowed\r\n", -EIO);
    ANSWER(OP_PUT, "-\r\n", -EIO);
    ANSWER(OP_SETUP, "-NOAUTH Authentication required.\r\n", -EACCES);
    ANSWER(OP_SETUP, "-WRONGPASS invalid\r\n", -EACCES);
    ANSWER(OP_SETUP, "-LOADING Redis is loading\r\n", -EIO);
    assert_true(n_logged > 0);
}

static void what_others_wrote(void **state)
{
    ANSWER(OP_GET, "$1\r\n5\r\n", -EIO);
    ANSWER(OP_GET,
           "$7\r\n\xf5"
           "123456\r\n",
           -EIO);
    ANSWER(OP_GET, "$12\r\n123456789012\r\n", -EIO);
    assert_int_equal(val[0], 'x');
}

static void wrong_answers(void **state)
{
    ANSWER(OP_GET, "hello\r\n", -EPROTO);
    ANSWER(OP_GET, "\0\0\0\0", -EPROTO);
    ANSWER(OP_GET, "+OK\r\n", -EPROTO);
    ANSWER(OP_GET, ":1\r\n", -EPROTO);
    ANSWER(OP_GET, "$-1\r\n", -EPROTO);
    ANSWER(OP_GET, "$-2\r\n", -EPROTO);
    ANSWER(OP_GET, "$x\r\n", -EPROTO);
    ANSWER(OP_GET, "$3\r\nabcde\r\n", -EPROTO);
    ANSWER(OP_GET, "*1\r\n$1\r\na\r\n", -EPROTO);
    ANSWER(OP_GET, "*0\r\n", -EPROTO);
    ANSWER(OP_GET, "*-1\r\n", -EPROTO);
    ANSWER(OP_GET, "*2147483647\r\n", -EPROTO);
    ANSWER(OP_GET, "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", -EPROTO);
    ANSWER(OP_PUT, ":0\r\n", -EPROTO);
    ANSWER(OP_PUT, "$2\r\nOK\r\n", -EPROTO);
    ANSWER(OP_PUT, "$-1\r\n", -EPROTO);
    ANSWER(OP_CAS, ":2\r\n", -EPROTO);
    ANSWER(OP_CAS, "+OK\r\n", -EPROTO);
    ANSWER(OP_CAS_NEW, ":1\r\n", -EPROTO);
    ANSWER(OP_DELETE, ":2\r\n", -EPROTO);
    ANSWER(OP_INCR, "$0\r\n\r\n", -EPROTO);
    ANSWER(OP_INCR, "$1\r\n-\r\n", -EPROTO);
    ANSWER(OP_INCR, "$2\r\n1x\r\n", -EPROTO);
    ANSWER(OP_INCR, "$19\r\n9223372036854775808\r\n", -EPROTO);
    ANSWER(OP_INCR, "+1\r\n", -EPROTO);
    ANSWER(OP_INCR, ":1x\r\n", -EPROTO);
}

static void unasked_answer(void **state)
{
    assert_int_equal(redis_read(s, "+OK\r\n", 5), -EPROTO);
    assert_string_equal(s->bad, "an answer that nobody asked for");
}

/* A length that will never be filled, and a line that never ends: nothing beyond the limit is kept. */
static void endless_answers(void **state)
{
    static const char *const starts[] = { "$1000000000\r\n", "$9223372036854775807\r\n", "+", "-", ":", "$", "*" };
    static char junk[1000];

    memset(junk, '1', sizeof junk);
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        size_t fed = strlen(starts[i]);
        int rc;
        redis_begin(s, &futures[0], OP_GET, 0);
        rc = redis_read(s, starts[i], strlen(starts[i]));
        while (rc == 0 && fed < 10 * REDIS_REPLY_MAX) {
            rc = redis_read(s, junk, sizeof junk);
            fed += sizeof junk;
        }
        assert_int_equal(rc, -EPROTO);
        assert_in_range(fed, 1, 2 * REDIS_REPLY_MAX);
        s->head = s->tail;
        redisReaderFree(s->reader);
        s->reader = redis_reader_open(s);
    }
}

/* Somebody gave up: his memory is not touched. */
static void late_answer(void **state)
{
    static const char bytes[] = "$9\r\n\xf5"
                                "1234567z\r\n:1\r\n";
    char mine[4] = "abc";
    struct redis_request *r = redis_begin(s, NULL, OP_GET, 0);

    r->val = mine;
    r->cap = 3;
    r->version = (uint64_t *)8;
    redis_begin(s, NULL, OP_INCR, 0)->count = (int64_t *)8;
    assert_int_equal(redis_read(s, bytes, sizeof bytes - 1), 0);
    assert_int_equal(n_results, 2);
    assert_string_equal(mine, "abc");
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(requests),       CASE(requests_are_well_formed), CASE(longest_requests),  CASE(setup_of_a_connection),
        CASE(answers),        CASE(errors_of_the_server),     CASE(what_others_wrote), CASE(wrong_answers),
        CASE(unasked_answer), CASE(endless_answers),          CASE(late_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
