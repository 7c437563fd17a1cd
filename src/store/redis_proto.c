/* SPDX-License-Identifier: Apache-2.0 */
/* store/redis_proto.c - requests into bytes, bytes into results (RESP2). Knows nothing of sockets.
 *
 * The reader is hiredis's, with callbacks that put each answer where it belongs while it still lies in the reader's
 * buffer: nothing is allocated for an answer. They also check what that reader does not: the line end after a bulk
 * string, that the kind of answer fits the request, and the size of what is not complete yet.
 */
#include "store/redis.h"
#include <stdio.h>
#include <string.h>

/* ---- requests ---- */

enum {
    HEAD_MAX = 24,     /* "$", a number, "\r\n" */
    REQUEST_MAX = 512, /* a request without its key and value, the longest script included */
    FEED = 4096,       /* bytes: the reader moves what is left to the front for each kilobyte it has consumed */
};

static const char cas_script[] = "if redis.call('GETRANGE',KEYS[1],0,7)~=ARGV[1] then return 0 end "
                                 "redis.call('SET',KEYS[1],ARGV[2],unpack(ARGV,3)) return 1";
/* The count goes back as a string: Lua's numbers are exact to 53 bits only. */
static const char incr_script[] = "redis.call('INCRBY',KEYS[1],ARGV[1]) redis.call('PEXPIRE',KEYS[1],ARGV[2]) "
                                  "return redis.call('GET',KEYS[1])";

#define put_text(p, text) put_bytes(p, text, sizeof(text) - 1)
static inline char *put_bytes(char *p, const void *bytes, size_t len)
{
    memcpy(p, bytes, len);
    return p + len;
}

static inline char *put_digits(char *p, uint64_t n)
{
    char digits[20];
    int i = sizeof digits;

    do {
        digits[--i] = (char)('0' + n % 10);
        n /= 10;
    } while (n != 0);
    return put_bytes(p, digits + i, sizeof digits - (size_t)i);
}

static inline char *put_head(char *p, char type, uint64_t n)
{
    *p++ = type;
    p = put_digits(p, n);
    return put_text(p, "\r\n");
}

static inline char *put_bulk(char *p, const void *bytes, size_t len)
{
    p = put_head(p, '$', len);
    if (len != 0)
        p = put_bytes(p, bytes, len);
    return put_text(p, "\r\n");
}

static char *put_number(char *p, int64_t n)
{
    char text[24], *end = text;

    if (n < 0)
        *end++ = '-';
    end = put_digits(end, n < 0 ? -(uint64_t)n : (uint64_t)n);
    return put_bulk(p, text, (size_t)(end - text));
}

static int64_t milliseconds(nst_time ttl)
{
    return ttl / NST_MS(1) + (ttl % NST_MS(1) != 0);
}

static inline uint64_t version_bytes(uint64_t version)
{
    return __builtin_bswap64(version);
}

/* A value as it is kept, with a version that nobody has used. */
static char *put_value(struct redis_store *s, char *p, struct nst_slice val)
{
    uint64_t version = (uint64_t)REDIS_MARK << 56 | (++s->version & (((uint64_t)1 << 56) - 1));

    version = version_bytes(version);
    p = put_head(p, '$', REDIS_PREFIX + val.len);
    p = put_bytes(p, &version, sizeof version);
    if (val.len != 0)
        p = put_bytes(p, val.p, val.len);
    return put_text(p, "\r\n");
}

static char *put_ttl(char *p, nst_time ttl)
{
    if (ttl == 0)
        return p;
    p = put_text(p, "$2\r\nPX\r\n");
    return put_number(p, milliseconds(ttl));
}

static inline char *out_at(struct redis_store *s)
{
    return (char *)s->out + s->filled;
}

static inline void out_to(struct redis_store *s, char *p)
{
    s->filled = (size_t)(p - (char *)s->out);
}

/* GETRANGE, not GET: the answer is bounded whatever is stored there, and a byte beyond cap shows that there is more. */
void redis_get(struct nst_store *base, struct nst_slice key, void *val, size_t cap, uint64_t *version,
               struct nst_future *f)
{
    struct redis_store *s = redis_of(base);
    struct redis_request *r = redis_begin(s, f, OP_GET, REQUEST_MAX + key.len);

    if (r == NULL)
        return;
    r->val = val;
    r->cap = cap < NST_VALUE_MAX ? (uint32_t)cap : NST_VALUE_MAX;
    r->version = version;
    char *p = put_text(out_at(s), "*4\r\n$8\r\nGETRANGE\r\n");
    p = put_bulk(p, key.p, key.len);
    p = put_text(p, "$1\r\n0\r\n");
    out_to(s, put_number(p, REDIS_PREFIX + (int64_t)r->cap));
}

void redis_put(struct nst_store *base, struct nst_slice key, struct nst_slice val, nst_time ttl, struct nst_future *f)
{
    struct redis_store *s = redis_of(base);

    if (redis_begin(s, f, OP_PUT, REQUEST_MAX + key.len + val.len) == NULL)
        return;
    char *p = out_at(s);
    p = ttl == 0 ? put_text(p, "*3\r\n$3\r\nSET\r\n") : put_text(p, "*5\r\n$3\r\nSET\r\n");
    p = put_bulk(p, key.p, key.len);
    p = put_value(s, p, val);
    out_to(s, put_ttl(p, ttl));
}

/* The script's text goes along each time. Naming a loaded script by its hash instead takes a sixth off the server's
 * work, but then a server that has forgotten it would make the store send a request twice. */
void redis_cas(struct nst_store *base, struct nst_slice key, struct nst_slice val, uint64_t version, nst_time ttl,
               struct nst_future *f)
{
    struct redis_store *s = redis_of(base);
    size_t bytes = REQUEST_MAX + key.len + val.len;
    char *p;

    if (redis_begin(s, f, version == 0 ? OP_CAS_NEW : OP_CAS, bytes) == NULL)
        return;
    p = out_at(s);
    if (version == 0) {
        p = ttl == 0 ? put_text(p, "*4\r\n$3\r\nSET\r\n") : put_text(p, "*6\r\n$3\r\nSET\r\n");
        p = put_bulk(p, key.p, key.len);
        p = put_value(s, p, val);
        p = put_text(p, "$2\r\nNX\r\n");
    } else {
        uint64_t expected = version_bytes(version);
        p = ttl == 0 ? put_text(p, "*6\r\n$4\r\nEVAL\r\n") : put_text(p, "*8\r\n$4\r\nEVAL\r\n");
        p = put_bulk(p, cas_script, sizeof cas_script - 1);
        p = put_text(p, "$1\r\n1\r\n");
        p = put_bulk(p, key.p, key.len);
        p = put_bulk(p, &expected, sizeof expected);
        p = put_value(s, p, val);
    }
    out_to(s, put_ttl(p, ttl));
}

void redis_incr(struct nst_store *base, struct nst_slice key, int64_t by, int64_t *out, nst_time ttl,
                struct nst_future *f)
{
    struct redis_store *s = redis_of(base);
    struct redis_request *r = redis_begin(s, f, OP_INCR, REQUEST_MAX + key.len);

    if (r == NULL)
        return;
    r->count = out;
    char *p = out_at(s);
    if (ttl == 0) {
        p = put_text(p, "*3\r\n$6\r\nINCRBY\r\n");
        p = put_bulk(p, key.p, key.len);
        p = put_number(p, by);
    } else {
        p = put_text(p, "*6\r\n$4\r\nEVAL\r\n");
        p = put_bulk(p, incr_script, sizeof incr_script - 1);
        p = put_text(p, "$1\r\n1\r\n");
        p = put_bulk(p, key.p, key.len);
        p = put_number(p, by);
        p = put_number(p, milliseconds(ttl));
    }
    out_to(s, p);
}

void redis_del(struct nst_store *base, struct nst_slice key, struct nst_future *f)
{
    struct redis_store *s = redis_of(base);

    if (redis_begin(s, f, OP_DELETE, REQUEST_MAX + key.len) == NULL)
        return;
    out_to(s, put_bulk(put_text(out_at(s), "*2\r\n$3\r\nDEL\r\n"), key.p, key.len));
}

void redis_ping(struct nst_store *base, struct nst_future *f)
{
    struct redis_store *s = redis_of(base);

    if (redis_begin(s, f, OP_PING, REQUEST_MAX) == NULL)
        return;
    out_to(s, put_text(out_at(s), "*1\r\n$4\r\nPING\r\n"));
}

bool redis_put_setup(struct redis_store *s)
{
    char *p;

    if (!redis_reserve(s, REQUEST_MAX + sizeof s->url.user + sizeof s->url.password))
        return false;
    p = out_at(s);
    if (s->url.auth) {
        bool user = s->url.user[0] != 0;
        p = user ? put_text(p, "*3\r\n$4\r\nAUTH\r\n") : put_text(p, "*2\r\n$4\r\nAUTH\r\n");
        if (user)
            p = put_bulk(p, s->url.user, strlen(s->url.user));
        p = put_bulk(p, s->url.password, strlen(s->url.password));
        redis_begin_setup(s);
    }
    if (s->url.db != 0) {
        p = put_number(put_text(p, "*2\r\n$6\r\nSELECT\r\n"), s->url.db);
        redis_begin_setup(s);
    }
    p = put_text(p, "*1\r\n$4\r\nPING\r\n");
    redis_begin_setup(s);
    out_to(s, p);
    s->setup_end = s->filled;
    return true;
}

/* ---- answers ---- */

static char taken; /* what the callbacks return for an answer that was understood */

static void *unexpected(struct redis_store *s, const char *what)
{
    if (s->bad == NULL)
        s->bad = what;
    return NULL;
}

/* The request that this answer belongs to. */
static struct redis_request *asked(struct redis_store *s)
{
    if (s->head != s->tail)
        return &s->ring[s->head & s->ring_mask];
    unexpected(s, "an answer that nobody asked for");
    return NULL;
}

static bool has(const char *text, size_t len, const char *part)
{
    return memmem(text, len, part, strlen(part)) != NULL;
}

static int error_result(struct redis_store *s, const struct redis_request *r, const char *text, size_t len)
{
    char clean[160];
    size_t n = len < sizeof clean - 1 ? len : sizeof clean - 1;

    if (r->op == OP_INCR && (has(text, len, "WRONGTYPE") || has(text, len, "not an integer")))
        return -EINVAL;
    for (size_t i = 0; i < n; i++)
        clean[i] = (char)(text[i] >= ' ' && text[i] < 0x7f ? text[i] : '?');
    clean[n] = 0;
    redis_log(s, NST_LOG_WARNING, "%sthe server answered \"%s\"", r->op == OP_SETUP ? "cannot be used: " : "", clean);
    if (r->op == OP_SETUP && (has(text, len, "NOAUTH") || has(text, len, "WRONGPASS") || has(text, len, "NOPERM")))
        return -EACCES;
    return -EIO;
}

static int get_result(struct redis_store *s, const struct redis_request *r, const char *text, size_t len)
{
    uint64_t version;

    if (len == 0)
        return -ENOENT;
    if (len < REDIS_PREFIX || (uint8_t)text[0] != REDIS_MARK) {
        redis_log(s, NST_LOG_WARNING, "a key that was asked for does not hold a value that NetStar wrote");
        return -EIO;
    }
    if (len - REDIS_PREFIX > r->cap)
        return -EMSGSIZE;
    if (r->f != NULL) {
        if (len > REDIS_PREFIX)
            memcpy(r->val, text + REDIS_PREFIX, len - REDIS_PREFIX);
        if (r->version != NULL) {
            memcpy(&version, text, sizeof version);
            *r->version = version_bytes(version);
        }
    }
    return (int)(len - REDIS_PREFIX);
}

static void give_count(const struct redis_request *r, int64_t count)
{
    if (r->f != NULL && r->count != NULL)
        *r->count = count;
}

/* The count as a script gave it: an optional '-' and digits. */
static bool read_count(const char *text, size_t len, int64_t *out)
{
    bool minus = len > 0 && text[0] == '-';
    int64_t n = 0;

    if (len == (size_t)minus)
        return false;
    for (size_t i = minus; i < len; i++) {
        int digit = text[i] - '0';
        if (digit < 0 || digit > 9 || __builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, minus ? -digit : digit, &n))
            return false;
    }
    *out = n;
    return true;
}

static void *on_string(const redisReadTask *task, char *text, size_t len)
{
    struct redis_store *s = task->privdata;
    const struct redis_request *r = asked(s);
    int64_t count;

    if (r == NULL)
        return NULL;
    if (text[len] != '\r' || text[len + 1] != '\n')
        return unexpected(s, "a string that does not end where its length says");
    if (task->type == REDIS_REPLY_ERROR) {
        s->answer = error_result(s, r, text, len);
        return &taken;
    }
    if (task->type == REDIS_REPLY_STATUS) {
        if (r->op != OP_PUT && r->op != OP_CAS_NEW && r->op != OP_PING && r->op != OP_SETUP)
            return unexpected(s, "a status where there should be a value");
        s->answer = 0;
        return &taken;
    }
    if (r->op == OP_GET) {
        s->answer = get_result(s, r, text, len);
        return &taken;
    }
    if (r->op == OP_INCR && read_count(text, len, &count)) {
        give_count(r, count);
        s->answer = 0;
        return &taken;
    }
    return unexpected(s, "a string where there should be none");
}

static void *on_integer(const redisReadTask *task, long long n)
{
    struct redis_store *s = task->privdata;
    const struct redis_request *r = asked(s);

    if (r == NULL)
        return NULL;
    if (r->op == OP_INCR) {
        give_count(r, n);
        s->answer = 0;
    } else if (r->op == OP_DELETE && (n == 0 || n == 1)) {
        s->answer = n == 1 ? 0 : -ENOENT;
    } else if (r->op == OP_CAS && (n == 0 || n == 1)) {
        s->answer = n == 1 ? 0 : -ESTALE;
    } else {
        return unexpected(s, "a number where there should be none");
    }
    return &taken;
}

static void *on_nil(const redisReadTask *task)
{
    struct redis_store *s = task->privdata;
    const struct redis_request *r = asked(s);

    if (r == NULL)
        return NULL;
    if (r->op != OP_CAS_NEW)
        return unexpected(s, "nothing where there should be an answer");
    s->answer = -ESTALE;
    return &taken;
}

static void *on_array(const redisReadTask *task, int elements)
{
    return unexpected(task->privdata, "a list where there should be none");
}

static redisReplyObjectFunctions callbacks = {
    .createString = on_string,
    .createArray = on_array,
    .createInteger = on_integer,
    .createNil = on_nil,
};

redisReader *redis_reader_open(struct redis_store *s)
{
    redisReader *reader = redisReaderCreateWithFunctions(&callbacks);

    if (reader != NULL) {
        reader->privdata = s;
        reader->maxbuf = 0; /* keep the buffer; what may be in it is limited below */
    }
    return reader;
}

int redis_read(struct redis_store *s, const char *p, size_t len)
{
    redisReader *reader = s->reader;

    while (len > 0) {
        size_t n = len < FEED ? len : FEED;
        void *reply;

        s->bad = NULL;
        if (redisReaderFeed(reader, p, n) != REDIS_OK)
            goto broken;
        p += n;
        len -= n;
        for (;;) {
            if (redisReaderGetReply(reader, &reply) != REDIS_OK)
                goto broken;
            if (reply == NULL)
                break;
            if (!redis_answered(s))
                return 1;
        }
        if (reader->len - reader->pos > REDIS_REPLY_MAX) {
            s->bad = "an answer that is longer than any value";
            return -EPROTO;
        }
    }
    return 0;
broken:
    if (s->bad == NULL) {
        /* The reader will be gone before the message is written. */
        snprintf(s->bad_text, sizeof s->bad_text, "%s", reader->errstr);
        s->bad = s->bad_text;
    }
    return -EPROTO;
}
