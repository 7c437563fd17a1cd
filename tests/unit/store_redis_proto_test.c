/* SPDX-License-Identifier: Apache-2.0 */
/* Redis on the level of bytes, without a connection: what requests look like, and what answers, right and wrong ones,
 * whole and in pieces, end as. This file stands in for redis.c. */
#include "store/redis.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { OUT = 1 << 20 };
static struct redis_store s;
static struct redis_link link_of_s;
static struct redis_record records[8];
static unsigned n_records, n_logged, n_changed;
static char changed[256];
static struct nst_future future;

void redis_log(struct redis_store *st, enum nst_log_level level, const char *name, const char *fmt, ...)
{
    n_logged++;
}

void store_changed(struct nst_store *st, struct nst_slice key)
{
    snprintf(changed + strlen(changed), sizeof changed - strlen(changed), "%.*s;", (int)key.len, (const char *)key.p);
    n_changed++;
}

void redis_topology(struct redis_link *l, const char *answer)
{
}

void redis_cluster_scanned(struct redis_store *st, const struct redis_link *l, struct nst_scan *at)
{
}

struct redis_record *redis_begin_own(struct redis_link *l, enum redis_own_op op, size_t bytes)
{
    struct redis_record *r = &records[n_records++];

    assert_true(l->filled + bytes <= l->out_cap);
    *r = (struct redis_record){ .link = l, .op = (uint8_t)op };
    return r;
}

void redis_commit(struct redis_link *l, struct redis_record *r, const char *p)
{
    r->bytes = (uint32_t)(p - ((char *)l->out + l->filled));
    l->filled += r->bytes;
}

static int setup(void **state)
{
    redis_scripts();
    s = (struct redis_store){ 0 };
    link_of_s = (struct redis_link){ .store = &s, .out = malloc(OUT), .out_cap = OUT };
    s.link = &link_of_s;
    n_records = n_logged = n_changed = 0;
    changed[0] = 0;
    return 0;
}

static int teardown(void **state)
{
    free(link_of_s.out);
    return 0;
}

static struct nst_slice text(const char *p)
{
    return (struct nst_slice){ p, strlen(p) };
}

/* ---- requests ---- */

static void ask(struct store_request rq)
{
    char *p = (char *)link_of_s.out + link_of_s.filled;
    char *end = redis_put_request(&s, p, &rq, &records[0]);

    assert_true((size_t)(end - p) <= redis_request_bytes(&rq));
    records[0].bytes = (uint32_t)(end - p);
    link_of_s.filled += (size_t)(end - p);
}

static void sent(const char *bytes, size_t len)
{
    assert_int_equal(link_of_s.filled, len);
    assert_memory_equal(link_of_s.out, bytes, len);
    link_of_s.filled = 0;
}
#define SENT(literal) sent(literal, sizeof(literal) - 1)
#define ASK(...) ask((struct store_request){ __VA_ARGS__ })

static void requests(void **state)
{
    struct nst_scan scan = { .at = 77 };

    s.version = 0x0102030405060707;
    ASK(.op = STORE_GET, .key = text("key"), .cap = 100);
    SENT("*4\r\n$8\r\nGETRANGE\r\n$3\r\nkey\r\n$1\r\n0\r\n$3\r\n108\r\n");
    ASK(.op = STORE_GET, .key = { "\0\r\n", 3 }, .cap = SIZE_MAX);
    SENT("*4\r\n$8\r\nGETRANGE\r\n$3\r\n\0\r\n\r\n$1\r\n0\r\n$5\r\n65544\r\n");
    ASK(.op = STORE_PUT, .key = text("key"), .val = text("value"));
    SENT("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$13\r\n\xf5\x02\x03\x04\x05\x06\x07\x08value\r\n");
    ASK(.op = STORE_PUT, .key = text("key"), .ttl = NST_MS(1) + 1);
    SENT("*5\r\n$3\r\nSET\r\n$3\r\nkey\r\n$8\r\n\xf5\x02\x03\x04\x05\x06\x07\x09\r\n$2\r\nPX\r\n$1\r\n2\r\n");
    ASK(.op = STORE_CAS_NEW, .key = text("key"), .val = text("v"), .ttl = NST_SEC(10));
    SENT("*6\r\n$3\r\nSET\r\n$3\r\nkey\r\n$9\r\n\xf5\x02\x03\x04\x05\x06\x07\x0av\r\n$2\r\nNX\r\n$2\r\nPX\r\n"
         "$5\r\n10000\r\n");
    ASK(.op = STORE_PUT_NEW, .key = text("key"), .val = text("v"));
    SENT("*4\r\n$3\r\nSET\r\n$3\r\nkey\r\n$9\r\n\xf5\x02\x03\x04\x05\x06\x07\x0bv\r\n$2\r\nNX\r\n");
    ASK(.op = STORE_INCR, .key = text("n"), .by = INT64_MIN);
    SENT("*3\r\n$6\r\nINCRBY\r\n$1\r\nn\r\n$20\r\n-9223372036854775808\r\n");
    ASK(.op = STORE_DELETE, .key = text("key"));
    SENT("*2\r\n$3\r\nDEL\r\n$3\r\nkey\r\n");
    ASK(.op = STORE_TOUCH, .key = text("key"), .ttl = NST_SEC(3));
    SENT("*3\r\n$7\r\nPEXPIRE\r\n$3\r\nkey\r\n$4\r\n3000\r\n");
    ASK(.op = STORE_SCAN, .key = text("a*[b]?\\"), .scan = &scan, .cap = 12800);
    SENT("*6\r\n$4\r\nSCAN\r\n$2\r\n77\r\n$5\r\nMATCH\r\n$13\r\na\\*\\[b\\]\\?\\\\*\r\n$5\r\nCOUNT\r\n$3\r\n100\r\n");
    ASK(.op = STORE_PING);
    SENT("*1\r\n$4\r\nPING\r\n");
}

static void whole_scripts(void **state)
{
    struct nst_slice script;
    char name[41], expected[2048];
    int n;

    ASK(.op = STORE_PUT_OWNED, .key = text("key"), .val = text("v\r\n"), .token = 0x01020304050607, .ttl = NST_SEC(1));
    memcpy(name, redis_script_name(SCRIPT_PUT_OWNED), 41);
    assert_int_equal(strlen(name), 40);
    n = snprintf(expected, sizeof expected,
                 "*8\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$1\r\n1\r\n$3\r\nkey\r\n$7\r\n\1\2\3\4\5\6\7\r\n"
                 "$11\r\n\xf6\1\2\3\4\5\6\7v\r\n\r\n$2\r\nPX\r\n$4\r\n1000\r\n",
                 name);
    assert_int_equal(link_of_s.filled, n);
    assert_memory_equal(link_of_s.out, expected, n);
    char *at = (char *)link_of_s.out + n, *end = redis_put_whole_script(at, &records[0], (char *)link_of_s.out);
    assert_true((size_t)(end - at) <= redis_whole_script_bytes(&records[0]));
    script = redis_script_text(SCRIPT_PUT_OWNED);
    n = snprintf(expected, sizeof expected,
                 "*8\r\n$4\r\nEVAL\r\n$%zu\r\n%s\r\n$1\r\n1\r\n$3\r\nkey\r\n$7\r\n\1\2\3\4\5\6\7\r\n"
                 "$11\r\n\xf6\1\2\3\4\5\6\7v\r\n\r\n$2\r\nPX\r\n$4\r\n1000\r\n",
                 script.len, (const char *)script.p);
    assert_int_equal(end - at, n);
    assert_memory_equal(at, expected, n);
}

/* Every kind of request is an array of as many bulk strings as it says, and nothing after; the longest stays within what
 * it asks for. */
static void requests_are_well_formed(void **state)
{
    static char longest[NST_KEY_MAX], value[NST_VALUE_MAX];
    const struct nst_slice keys[] = { { "", 0 }, { "k", 1 }, { "a\r\n$5\r\n", 8 }, { longest, sizeof longest } };
    const struct nst_slice vals[] = { { "", 0 }, { "v", 1 }, { value, sizeof value }, { "\n", 1 } };

    memset(longest, '*', sizeof longest);
    for (int i = 0; i < STORE_OPS * 16; i++) {
        struct nst_scan scan = { .at = UINT64_MAX };
        char *p;
        long args;
        ASK(.op = (enum store_op)(i / 16), .key = keys[i % 4], .val = vals[i / 4 % 4], .other = vals[(i + 1) % 4],
            .cap = i % 3 == 0 ? 1000000 : 10, .token = UINT64_MAX, .by = INT64_MIN, .value = UINT32_MAX,
            .ttl = i & 1 ? 0 : NST_NEVER, .scan = &scan);
        p = (char *)link_of_s.out;
        p[link_of_s.filled] = 0;
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
        assert_ptr_equal(p + 2, link_of_s.out + link_of_s.filled);
        link_of_s.filled = 0;
    }
}

static void setup_of_a_connection(void **state)
{
    struct nst_listener listeners[2] = { { .prefix = { "a", 1 }, .next = &listeners[1] }, { .prefix = { "bc", 2 } } };

    s.url.auth = true;
    strcpy(s.url.password, "secret");
    assert_true(redis_put_setup(&link_of_s));
    SENT("*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n*1\r\n$4\r\nPING\r\n");
    strcpy(s.url.user, "bob");
    s.url.db = 12;
    assert_true(redis_put_setup(&link_of_s));
    SENT("*3\r\n$4\r\nAUTH\r\n$3\r\nbob\r\n$6\r\nsecret\r\n*2\r\n$6\r\nSELECT\r\n$2\r\n12\r\n*1\r\n$4\r\nPING\r\n");
    assert_int_equal(link_of_s.setup_left, 5);
    s.base.listeners = &listeners[0];
    s.url.auth = false;
    s.url.db = 0;
    n_records = 0;
    assert_true(redis_put_setup(&link_of_s));
    assert_int_equal(link_of_s.setup_end, 14);
    SENT("*1\r\n$4\r\nPING\r\n*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$3\r\nOFF\r\n*"
         "8\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n"
         "$5\r\nBCAST\r\n$6\r\nPREFIX\r\n$1\r\na\r\n$6\r\nPREFIX\r\n$2\r\nbc\r\n");
}

/* ---- answers ---- */

static char val[64];
static uint64_t version;
static int64_t count;
static struct nst_lease lease;
static struct nst_scan scan_at;

enum { INCOMPLETE = 1000, NOSCRIPT };

/* The answer to a request of a kind: its result, INCOMPLETE, NOSCRIPT, or -EPROTO with a reason. */
static int answer(unsigned op, const char *bytes, size_t len)
{
    struct redis_record r = { .link = &link_of_s, .f = &future, .op = (uint8_t)op, .out = val, .cap = 16 };
    const char *bad = NULL;
    char *piece;
    int rc = 0;
    ssize_t n;

    memset(val, 'x', sizeof val);
    version = 0;
    count = -1;
    lease = (struct nst_lease){ 0 };
    scan_at = (struct nst_scan){ .at = 5 };
    if (op == STORE_GET || op == STORE_OWN)
        r.number = &version;
    else if (op == STORE_INCR)
        r.count = &count;
    else if (op == STORE_POOL_TAKE)
        r.lease = &lease;
    else if (op == STORE_SCAN)
        r.scan = &scan_at;
    if (op == STORE_OWN)
        r.script = SCRIPT_OWN;
    /* every beginning of it is incomplete or wrong, and never read beyond its end */
    for (size_t i = 1; i <= len; i++) {
        piece = malloc(i);
        memcpy(piece, bytes, i);
        n = resp_measure(piece, i, REDIS_REPLY_MAX, &bad);
        if (n > 0) {
            assert_int_equal(n, len);
            if (redis_answer(&link_of_s, &r, piece, &rc, &bad) == REDIS_NOSCRIPT)
                rc = NOSCRIPT;
            else
                assert_true((bad != NULL) == (rc == -EPROTO));
        }
        free(piece);
        if (n < 0) {
            assert_true(n == -EPROTO && strlen(bad) > 0);
            return -EPROTO;
        }
        if (n > 0)
            return rc;
    }
    return INCOMPLETE;
}

#define ANSWER(op, literal, expected) assert_int_equal(answer(op, literal, sizeof(literal) - 1), expected)

static void answers(void **state)
{
    ANSWER(STORE_GET, "$0\r\n\r\n", -ENOENT);
    ANSWER(STORE_GET, "$8\r\n\xf5\1\2\3\4\5\6\7\r\n", 0);
    assert_true(version == 0xf501020304050607);
    ANSWER(STORE_GET, "$11\r\n\xf5\1\2\3\4\5\6\7a\r\n\r\n", 3);
    assert_memory_equal(val, "a\r\nx", 4);
    ANSWER(STORE_GET,
           "$24\r\n\xf5"
           "1234567abcdefghijklmnop\r\n",
           16);
    assert_memory_equal(val, "abcdefghijklmnopx", 17);
    ANSWER(STORE_GET,
           "$25\r\n\xf5"
           "1234567abcdefghijklmnopq\r\n",
           -EMSGSIZE);
    assert_int_equal(val[0], 'x');
    ANSWER(STORE_GET, "$9\r\n\xf6\1\2\3\4\5\6\7a\r\n", 1);
    assert_true(version == 0x01020304050607);
    ANSWER(STORE_GET, "$8\r\n\xf7\1\2\3\4\5\6\7\r\n", -ENOENT);
    ANSWER(STORE_PUT, "+OK\r\n", 0);
    ANSWER(STORE_PING, "+PONG\r\n", 0);
    ANSWER(REDIS_SETUP, "+OK\r\n", 0);
    ANSWER(STORE_CAS_NEW, "+OK\r\n", 0);
    ANSWER(STORE_CAS_NEW, "$-1\r\n", -ESTALE);
    ANSWER(STORE_CAS_NEW, "_\r\n", -ESTALE);
    ANSWER(STORE_PUT_NEW, "+OK\r\n", 0);
    ANSWER(STORE_PUT_NEW, "_\r\n", -EEXIST);
    ANSWER(STORE_CAS, ":1\r\n", 0);
    ANSWER(STORE_CAS, ":0\r\n", -ESTALE);
    ANSWER(STORE_CAS_BYTES, ":0\r\n", -ESTALE);
    ANSWER(STORE_DELETE, ":1\r\n", 0);
    ANSWER(STORE_DELETE, ":0\r\n", -ENOENT);
    ANSWER(STORE_TOUCH, ":0\r\n", -ENOENT);
    ANSWER(STORE_INCR, ":-5\r\n", 0);
    assert_int_equal(count, -5);
    ANSWER(STORE_INCR, "$20\r\n-9223372036854775808\r\n", 0);
    assert_true(count == INT64_MIN);
    ANSWER(STORE_INCR, "$19\r\n9223372036854775807\r\n", 0);
    assert_true(count == INT64_MAX);
}

static void answers_about_owners(void **state)
{
    ANSWER(STORE_OWN, "$9\r\n\xf6\1\2\3\4\5\6\7a\r\n", 1);
    assert_true(version == 0x01020304050607 && val[0] == 'a');
    ANSWER(STORE_OWN, "$8\r\n\xf7\0\0\0\0\0\0\7\r\n", -ENOENT);
    assert_true(version == 7);
    ANSWER(STORE_OWN,
           "$25\r\n\xf6"
           "\0\0\0\0\0\0\x08"
           "abcdefghijklmnopq\r\n",
           -EMSGSIZE);
    assert_true(version == 8 && val[0] == 'x');
    ANSWER(STORE_OWN, "$9\r\n\xf5\1\2\3\4\5\6\7a\r\n", -EPROTO);
    ANSWER(STORE_OWN, "-ERR not a record\r\n", -EIO);
    ANSWER(STORE_OWN, "-NOSCRIPT No matching script.\r\n", NOSCRIPT);
    ANSWER(STORE_PUT, "-NOSCRIPT No matching script.\r\n", -EIO);
    ANSWER(STORE_PUT_OWNED, ":1\r\n", 0);
    ANSWER(STORE_PUT_OWNED, ":0\r\n", -ESTALE);
    ANSWER(STORE_PUT_OWNED, ":-1\r\n", -EPROTO);
    ANSWER(STORE_CHECK_OWNED, ":1\r\n", 0);
    ANSWER(STORE_CHECK_OWNED, ":0\r\n", -ESTALE);
    ANSWER(STORE_DELETE_OWNED, ":1\r\n", 0);
    ANSWER(STORE_DELETE_OWNED, ":0\r\n", -ESTALE);
    ANSWER(STORE_DELETE_OWNED, ":-1\r\n", -ENOENT);
}

static void answers_about_pools(void **state)
{
    ANSWER(STORE_POOL_TAKE, "$18\r\n65535:170000000000\r\n", 0);
    assert_true(lease.value == 65535 && lease.ticket == 170000000000);
    ANSWER(STORE_POOL_TAKE, "$-1\r\n", -ENOENT);
    ANSWER(STORE_POOL_TAKE, "_\r\n", -ENOENT);
    ANSWER(STORE_POOL_TAKE, "-ERR pool was larger script: x\r\n", -EINVAL);
    ANSWER(STORE_POOL_TAKE, "$1\r\n5\r\n", -EPROTO);
    ANSWER(STORE_POOL_TAKE, "$2\r\n5:\r\n", -EPROTO);
    ANSWER(STORE_POOL_TAKE, "$2\r\n:5\r\n", -EPROTO);
    ANSWER(STORE_POOL_TAKE, "$5\r\n-1:10\r\n", -EPROTO);
    ANSWER(STORE_POOL_TAKE, "$12\r\n4294967296:1\r\n", -EPROTO);
    ANSWER(STORE_POOL_TAKE, "$4\r\n1:2x\r\n", -EPROTO);
    ANSWER(STORE_POOL_KEEP, ":1\r\n", 0);
    ANSWER(STORE_POOL_GIVE, ":0\r\n", -ESTALE);
}

static void answers_to_scans(void **state)
{
    const void *at = val;

    ANSWER(STORE_SCAN, "*2\r\n$2\r\n12\r\n*2\r\n$2\r\nab\r\n$3\r\ncde\r\n", 2);
    assert_true(scan_at.at == 12 && !scan_at.done);
    for (int i = 0; i < 2; i++) {
        uint16_t len;
        memcpy(&len, at, 2);
        assert_int_equal(len, 2 + i);
        assert_memory_equal((const char *)at + 2, i == 0 ? "ab" : "cde", len);
        at = (const char *)at + 2 + len;
    }
    ANSWER(STORE_SCAN, "*2\r\n$1\r\n0\r\n*0\r\n", 0);
    assert_true(scan_at.done);
    /* more than fits into 16 bytes */
    ANSWER(STORE_SCAN, "*2\r\n$1\r\n9\r\n*2\r\n$10\r\n0123456789\r\n$9\r\n012345678\r\n", -EMSGSIZE);
    assert_true(scan_at.at == 5 && !scan_at.done);
    ANSWER(STORE_SCAN, "*2\r\n$1\r\nx\r\n*0\r\n", -EPROTO);
    ANSWER(STORE_SCAN, "*2\r\n:1\r\n*0\r\n", -EPROTO);
    ANSWER(STORE_SCAN, "*2\r\n$1\r\n1\r\n$0\r\n\r\n", -EPROTO);
    ANSWER(STORE_SCAN, "*2\r\n$1\r\n1\r\n*1\r\n:5\r\n", -EPROTO);
    ANSWER(STORE_SCAN, "*2\r\n$20\r\n99999999999999999999\r\n*0\r\n", -EPROTO);
    ANSWER(STORE_SCAN, "*1\r\n$1\r\n1\r\n", -EPROTO);
    ANSWER(STORE_SCAN, "*0\r\n", -EPROTO);
}

static void errors_of_the_server(void **state)
{
    ANSWER(STORE_INCR, "-ERR value is not an integer or out of range\r\n", -EINVAL);
    ANSWER(STORE_INCR,
           "-ERR Error running script (call to f_1): @user_script:1: ERR value is not an integer or out\r\n", -EINVAL);
    ANSWER(STORE_INCR, "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", -EINVAL);
    assert_int_equal(n_logged, 0);
    ANSWER(STORE_INCR, "-ERR increment or decrement would overflow\r\n", -EIO);
    ANSWER(STORE_GET, "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", -EIO);
    ANSWER(STORE_PUT, "-OOM command not allowed\r\n", -EIO);
    ANSWER(STORE_PUT, "-\r\n", -EIO);
    ANSWER(STORE_PUT, "!5\r\nERR x\r\n", -EIO);
    ANSWER(STORE_PUT, "-LOADING Redis is loading\r\n", -EAGAIN);
    ANSWER(STORE_PUT, "-TRYAGAIN Multiple keys request during rehashing of slot\r\n", -EAGAIN);
    ANSWER(STORE_PUT, "-CLUSTERDOWN The cluster is down\r\n", -EAGAIN);
    ANSWER(REDIS_SETUP, "-NOAUTH Authentication required.\r\n", -EACCES);
    ANSWER(REDIS_SETUP, "-WRONGPASS invalid\r\n", -EACCES);
    ANSWER(REDIS_SETUP, "-LOADING Redis is loading\r\n", -EIO);
    assert_true(n_logged > 0);
}

static void what_others_wrote(void **state)
{
    ANSWER(STORE_GET, "$1\r\n5\r\n", -EIO);
    ANSWER(STORE_GET,
           "$7\r\n\xf5"
           "123456\r\n",
           -EIO);
    ANSWER(STORE_GET, "$12\r\n123456789012\r\n", -EIO);
    assert_int_equal(val[0], 'x');
}

static void wrong_answers(void **state)
{
    static const char deep[] = "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n";

    ANSWER(STORE_GET, "hello\r\n", -EPROTO);
    ANSWER(STORE_GET, "\0\0\0\0", -EPROTO);
    ANSWER(STORE_GET, "+OK\r\n", -EPROTO);
    ANSWER(STORE_GET, "+OK\rx", -EPROTO);
    ANSWER(STORE_GET, ":1\r\n", -EPROTO);
    ANSWER(STORE_GET, "$-1\r\n", -EPROTO);
    ANSWER(STORE_GET, "$-2\r\n", -EPROTO);
    ANSWER(STORE_GET, "$x\r\n", -EPROTO);
    ANSWER(STORE_GET, "$\r\n", -EPROTO);
    ANSWER(STORE_GET, "$3\r\nabcde\r\n", -EPROTO);
    ANSWER(STORE_GET, "*1\r\n$1\r\na\r\n", -EPROTO);
    ANSWER(STORE_GET, "*0\r\n", -EPROTO);
    ANSWER(STORE_GET, "*-1\r\n", -EPROTO);
    ANSWER(STORE_GET, "*2147483647\r\n", -EPROTO);
    ANSWER(STORE_GET, "%-1\r\n", -EPROTO);
    ANSWER(STORE_GET, "_x\r\n", -EPROTO);
    ANSWER(STORE_GET, "#x\r\n", -EPROTO);
    assert_int_equal(answer(STORE_GET, deep, sizeof deep - 1), -EPROTO);
    ANSWER(STORE_PUT, ":0\r\n", -EPROTO);
    ANSWER(STORE_PUT, "$2\r\nOK\r\n", -EPROTO);
    ANSWER(STORE_PUT, "$-1\r\n", -EPROTO);
    ANSWER(STORE_PUT, ",1.5\r\n", -EPROTO);
    ANSWER(STORE_CAS, ":2\r\n", -EPROTO);
    ANSWER(STORE_CAS, "+OK\r\n", -EPROTO);
    ANSWER(STORE_CAS_NEW, ":1\r\n", -EPROTO);
    ANSWER(STORE_DELETE, ":2\r\n", -EPROTO);
    ANSWER(STORE_INCR, "$0\r\n\r\n", -EPROTO);
    ANSWER(STORE_INCR, "$1\r\n-\r\n", -EPROTO);
    ANSWER(STORE_INCR, "$2\r\n1x\r\n", -EPROTO);
    ANSWER(STORE_INCR, "$19\r\n9223372036854775808\r\n", -EPROTO);
    ANSWER(STORE_INCR, "+1\r\n", -EPROTO);
    ANSWER(STORE_INCR, ":1x\r\n", -EPROTO);
    ANSWER(STORE_GET, "$10\r\nabc", INCOMPLETE);
    ANSWER(STORE_GET, "*2\r\n:1\r\n", INCOMPLETE);
}

/* A length that will never be filled, a line that never ends, a list that only grows: nothing beyond the limit is waited
 * for. */
static void endless_answers(void **state)
{
    static const char *const starts[] = {
        "$1000000000\r\n", "$9223372036854775807\r\n", "+", "-", ":", "$", "*", "(", "=", "%", ">9"
    };
    static char junk[2 * REDIS_REPLY_MAX];
    const char *bad;

    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        memset(junk, '1', sizeof junk);
        memcpy(junk, starts[i], strlen(starts[i]));
        assert_int_equal(resp_measure(junk, sizeof junk, REDIS_REPLY_MAX, &bad), -EPROTO);
    }
    memcpy(junk, "*65536\r\n", 8);
    for (size_t i = 8; i + 64 <= sizeof junk; i += 64)
        memcpy(junk + i, "$57\r\n111111111111111111111111111111111111111111111111111111111\r\n", 64);
    assert_int_equal(resp_measure(junk, sizeof junk, REDIS_REPLY_MAX, &bad), -EPROTO);
}

/* What the server says by itself. */
static void invalidations(void **state)
{
    assert_true(redis_push(&link_of_s, ">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$2\r\nbc\r\n"));
    assert_string_equal(changed, "a;bc;");
    assert_true(redis_push(&link_of_s, ">2\r\n$10\r\ninvalidate\r\n_\r\n"));
    assert_true(redis_push(&link_of_s, ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n"));
    assert_int_equal(n_changed, 2);
    assert_false(redis_push(&link_of_s, ">0\r\n"));
    assert_false(redis_push(&link_of_s, ">1\r\n:1\r\n"));
    assert_false(redis_push(&link_of_s, ">2\r\n$10\r\ninvalidate\r\n:5\r\n"));
    assert_false(redis_push(&link_of_s, ">2\r\n$10\r\ninvalidate\r\n*1\r\n:5\r\n"));
}

/* Somebody gave up: his memory is not touched. */
static void late_answer(void **state)
{
    static const struct {
        unsigned op;
        const char *bytes;
    } late[] = { { STORE_GET, "$9\r\n\xf5"
                              "1234567z\r\n" },
                 { STORE_OWN, "$9\r\n\xf6"
                              "1234567z\r\n" },
                 { STORE_INCR, ":1\r\n" },
                 { STORE_POOL_TAKE, "$3\r\n1:2\r\n" },
                 { STORE_SCAN, "*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n" } };

    for (size_t i = 0; i < sizeof late / sizeof *late; i++) {
        struct redis_record r = { .link = &link_of_s, .op = (uint8_t)late[i].op, .out = (char *)8, .cap = 100 };
        const char *bad = NULL;
        int rc = -1;
        r.number = (uint64_t *)8;
        redis_answer(&link_of_s, &r, late[i].bytes, &rc, &bad);
        assert_true(rc >= 0 && bad == NULL);
    }
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(requests),      CASE(whole_scripts),        CASE(requests_are_well_formed), CASE(setup_of_a_connection),
        CASE(answers),       CASE(answers_about_owners), CASE(answers_about_pools),      CASE(answers_to_scans),
        CASE(wrong_answers), CASE(errors_of_the_server), CASE(what_others_wrote),        CASE(endless_answers),
        CASE(invalidations), CASE(late_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
