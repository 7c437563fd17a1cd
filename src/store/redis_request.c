/* SPDX-License-Identifier: Apache-2.0 */
/* store/redis_request.c - requests into bytes. Knows nothing of sockets. */
#include "store/redis.h"

/* ---- pieces ---- */

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

    if (n < 10) { /* most lengths and numbers of arguments */
        *p = (char)('0' + n);
        return p + 1;
    }
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

/* What stands before a value: what it is, and its version or token. */
static inline uint64_t prefix(uint8_t mark, uint64_t number)
{
    return __builtin_bswap64((uint64_t)mark << 56 | (number & (((uint64_t)1 << 56) - 1)));
}

static char *put_value(char *p, uint64_t before, struct nst_slice val)
{
    p = put_head(p, '$', REDIS_PREFIX + val.len);
    p = put_bytes(p, &before, sizeof before);
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

static char *put_script(char *p, struct redis_record *r, enum redis_script script, unsigned args, struct nst_slice key)
{
    r->script = (uint8_t)script;
    p = put_head(p, '*', 4 + args);
    p = put_text(p, "$7\r\nEVALSHA\r\n$40\r\n");
    p = put_bytes(p, redis_script_name(script), 40);
    p = put_text(p, "\r\n$1\r\n1\r\n");
    return put_bulk(p, key.p, key.len);
}

static char *put_lease(char *p, const struct store_request *rq)
{
    char text[48], *end = put_digits(text, rq->value);

    *end++ = ':';
    end = put_digits(end, rq->token);
    return put_bulk(p, text, (size_t)(end - text));
}

/* A pattern for keys that begin with these bytes. */
static char *put_pattern(char *p, struct nst_slice begin)
{
    char text[2 * NST_KEY_MAX + 1], *end = text;

    for (size_t i = 0; i < begin.len; i++) {
        char c = ((const char *)begin.p)[i];
        if (c == '*' || c == '?' || c == '[' || c == ']' || c == '\\')
            *end++ = '\\';
        *end++ = c;
    }
    *end++ = '*';
    return put_bulk(p, text, (size_t)(end - text));
}

/* ---- requests ---- */

size_t redis_request_bytes(const struct store_request *rq)
{
    return REDIS_REQUEST_MAX + (rq->op == STORE_SCAN ? 2 : 1) * rq->key.len + rq->val.len + rq->other.len;
}

static char *put_set(struct redis_store *s, char *p, const struct store_request *rq, bool fresh)
{
    p = put_head(p, '*', 3u + fresh + (rq->ttl != 0 ? 2 : 0));
    p = put_text(p, "$3\r\nSET\r\n");
    p = put_bulk(p, rq->key.p, rq->key.len);
    p = put_value(p, prefix(REDIS_MARK, ++s->version), rq->val);
    if (fresh)
        p = put_text(p, "$2\r\nNX\r\n");
    return put_ttl(p, rq->ttl);
}

static char *put_get(char *p, const struct store_request *rq, struct redis_record *r)
{
    p = put_text(p, "*4\r\n$8\r\nGETRANGE\r\n");
    p = put_bulk(p, rq->key.p, rq->key.len);
    p = put_text(p, "$1\r\n0\r\n");
    /* the answer is bounded whatever is stored there, and a byte beyond cap shows that there is more */
    return put_number(p, REDIS_PREFIX + (int64_t)r->cap);
}

static char *put_scan(char *p, const struct store_request *rq, struct redis_record *r)
{
    char cursor[24], *end = put_digits(cursor, rq->scan->at);
    int64_t count = rq->scan->step != 0 ? rq->scan->step : r->cap / 128;

    p = put_text(p, "*6\r\n$4\r\nSCAN\r\n");
    p = put_bulk(p, cursor, (size_t)(end - cursor));
    p = put_text(p, "$5\r\nMATCH\r\n");
    p = put_pattern(p, rq->key);
    p = put_text(p, "$5\r\nCOUNT\r\n");
    return put_number(p, count > 0 ? count : 1);
}

char *redis_put_request(struct redis_store *s, char *p, const struct store_request *rq, struct redis_record *r)
{
    unsigned px = rq->ttl != 0 ? 2 : 0;
    uint64_t before;

    r->number = rq->number;
    r->out = rq->out;
    r->script = SCRIPT_NONE;
    switch (rq->op) {
    case STORE_GET:
        r->cap = rq->cap < NST_VALUE_MAX ? (uint32_t)rq->cap : NST_VALUE_MAX;
        return put_get(p, rq, r);
    case STORE_PUT:
        return put_set(s, p, rq, false);
    case STORE_PUT_NEW:
    case STORE_CAS_NEW:
        return put_set(s, p, rq, true);
    case STORE_CAS:
        p = put_script(p, r, SCRIPT_CAS, 2 + px, rq->key);
        before = __builtin_bswap64(rq->token);
        p = put_bulk(p, &before, sizeof before);
        return put_ttl(put_value(p, prefix(REDIS_MARK, ++s->version), rq->val), rq->ttl);
    case STORE_CAS_BYTES:
        p = put_script(p, r, SCRIPT_CAS_BYTES, 2 + px, rq->key);
        p = put_bulk(p, rq->other.p, rq->other.len);
        return put_ttl(put_value(p, prefix(REDIS_MARK, ++s->version), rq->val), rq->ttl);
    case STORE_INCR:
        if (rq->ttl != 0) {
            p = put_number(put_script(p, r, SCRIPT_INCR, 2, rq->key), rq->by);
            return put_number(p, milliseconds(rq->ttl));
        }
        p = put_text(p, "*3\r\n$6\r\nINCRBY\r\n");
        return put_number(put_bulk(p, rq->key.p, rq->key.len), rq->by);
    case STORE_DELETE:
        return put_bulk(put_text(p, "*2\r\n$3\r\nDEL\r\n"), rq->key.p, rq->key.len);
    case STORE_TOUCH:
        if (rq->ttl == 0)
            return put_script(p, r, SCRIPT_FOREVER, 0, rq->key);
        p = put_bulk(put_text(p, "*3\r\n$7\r\nPEXPIRE\r\n"), rq->key.p, rq->key.len);
        return put_number(p, milliseconds(rq->ttl));
    case STORE_OWN:
        r->cap = rq->cap < NST_VALUE_MAX ? (uint32_t)rq->cap : NST_VALUE_MAX;
        return put_ttl(put_script(p, r, SCRIPT_OWN, px, rq->key), rq->ttl);
    case STORE_PUT_OWNED:
        before = prefix(REDIS_MARK_OWNED, rq->token);
        p = put_script(p, r, SCRIPT_PUT_OWNED, 2 + px, rq->key);
        p = put_bulk(p, (char *)&before + 1, sizeof before - 1);
        return put_ttl(put_value(p, before, rq->val), rq->ttl);
    case STORE_DELETE_OWNED:
    case STORE_CHECK_OWNED:
        before = prefix(REDIS_MARK_OWNED, rq->token);
        p = put_script(p, r, rq->op == STORE_CHECK_OWNED ? SCRIPT_CHECK_OWNED : SCRIPT_DELETE_OWNED, 1, rq->key);
        return put_bulk(p, (char *)&before + 1, sizeof before - 1);
    case STORE_POOL_TAKE:
        p = put_number(put_script(p, r, SCRIPT_POOL_TAKE, 2, rq->key), rq->value);
        return put_number(p, milliseconds(rq->ttl));
    case STORE_POOL_KEEP:
    case STORE_POOL_GIVE:
        p = put_lease(put_script(p, r, SCRIPT_POOL_SET, 2, rq->key), rq);
        return put_number(p, milliseconds(rq->ttl));
    case STORE_SCAN:
        r->cap = rq->cap < NST_SCAN_PAGE ? (uint32_t)rq->cap : NST_SCAN_PAGE;
        return put_scan(p, rq, r);
    case STORE_PING:
    case STORE_OPS:
        break;
    }
    return put_text(p, "*1\r\n$4\r\nPING\r\n");
}

/* ---- a script that the server does not know yet ---- */

size_t redis_whole_script_bytes(const struct redis_record *r)
{
    return r->bytes + redis_script_text((enum redis_script)r->script).len + 32;
}

char *redis_put_whole_script(char *p, const struct redis_record *r, const char *request)
{
    struct nst_slice text = redis_script_text((enum redis_script)r->script);
    const char *at = memchr(request, '\n', r->bytes); /* "*N", "$7", "EVALSHA", "$40", the name */
    const char *rest = at;

    for (int i = 0; i < 4; i++)
        rest = memchr(rest + 1, '\n', r->bytes);
    p = put_bytes(p, request, (size_t)(at + 1 - request));
    p = put_text(p, "$4\r\nEVAL\r\n");
    p = put_bulk(p, text.p, text.len);
    return put_bytes(p, rest + 1, r->bytes - (size_t)(rest + 1 - request));
}

/* ---- the connection's own ---- */

static bool put_hello(struct redis_link *l)
{
    static const char hello[] = "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n";
    struct redis_record *r = redis_begin_own(l, REDIS_HELLO, sizeof hello);

    if (r == NULL)
        return false;
    redis_commit(l, r, put_text((char *)l->out + l->filled, hello));
    l->resp3 = true;
    return true;
}

/* Forgets the prefixes that the server knows of this connection. */
static bool put_off(struct redis_link *l)
{
    static const char off[] = "*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$3\r\nOFF\r\n";
    struct redis_record *r = redis_begin_own(l, REDIS_HELLO, sizeof off);

    if (r != NULL)
        redis_commit(l, r, put_text((char *)l->out + l->filled, off));
    return r != NULL;
}

bool redis_put_track(struct redis_link *l, const struct nst_listener *one)
{
    const struct nst_listener *first = one != NULL ? one : l->store->base.listeners;
    unsigned n = 0;
    size_t bytes = REDIS_REQUEST_MAX;
    struct redis_record *r;
    char *p;

    for (const struct nst_listener *o = first; o != NULL; o = one != NULL ? NULL : o->next, n++)
        bytes += 64 + o->prefix.len;
    if (n == 0)
        return true;
    if (!l->resp3 && !put_hello(l))
        return false;
    if (one == NULL && !put_off(l))
        return false;
    r = redis_begin_own(l, REDIS_TRACK, bytes);
    if (r == NULL)
        return false;
    p = put_head((char *)l->out + l->filled, '*', 4 + 2 * n);
    p = put_text(p, "$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n$5\r\nBCAST\r\n");
    for (const struct nst_listener *o = first; o != NULL; o = one != NULL ? NULL : o->next)
        p = put_bulk(put_text(p, "$6\r\nPREFIX\r\n"), o->prefix.p, o->prefix.len);
    redis_commit(l, r, p);
    l->tracks++;
    return true;
}

/* A command of up to three words. */
static bool put_command(struct redis_link *l, enum redis_own_op op, const char *command, const char *first,
                        const char *second)
{
    struct redis_record *r = redis_begin_own(l, op, REDIS_REQUEST_MAX + sizeof l->store->url.password);
    char *p;

    if (r == NULL)
        return false;
    p = put_head((char *)l->out + l->filled, '*', 1u + (first != NULL) + (second != NULL));
    p = put_bulk(p, command, strlen(command));
    if (first != NULL)
        p = put_bulk(p, first, strlen(first));
    if (second != NULL)
        p = put_bulk(p, second, strlen(second));
    redis_commit(l, r, p);
    return true;
}

bool redis_put_alive(struct redis_link *l)
{
    return put_command(l, REDIS_ALIVE, "PING", NULL, NULL);
}

bool redis_put_asking(struct redis_link *l)
{
    return put_command(l, REDIS_ASKING, "ASKING", NULL, NULL);
}

bool redis_put_wait(struct redis_link *l)
{
    char replicas[16], ms[16];

    *put_digits(replicas, l->store->replicas) = 0;
    *put_digits(ms, REDIS_WAIT_MS) = 0;
    return put_command(l, REDIS_WAIT, "WAIT", replicas, ms);
}

bool redis_put_topology(struct redis_link *l)
{
    if (l->sentinel)
        return put_command(l, REDIS_TOPOLOGY, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", l->store->url.service);
    return put_command(l, REDIS_TOPOLOGY, "CLUSTER", "SLOTS", NULL);
}

static bool put_setup(struct redis_link *l, enum redis_own_op op, const char *command, const char *first,
                      const char *second)
{
    l->setup_left++;
    return put_command(l, op, command, first, second);
}

bool redis_put_setup(struct redis_link *l)
{
    const struct store_url *u = &l->store->url;
    char db[16], *end = put_digits(db, u->db);

    *end = 0;
    if (u->auth && !l->sentinel) {
        bool named = u->user[0] != 0;
        if (!put_setup(l, REDIS_SETUP, "AUTH", named ? u->user : u->password, named ? u->password : NULL))
            return false;
    }
    if (u->db != 0 && !l->sentinel && !put_setup(l, REDIS_SETUP, "SELECT", db, NULL))
        return false;
    if (u->kind == STORE_REDIS_SENTINEL && !l->sentinel && !put_setup(l, REDIS_ROLE, "ROLE", NULL, NULL))
        return false;
    if (!put_setup(l, REDIS_SETUP, "PING", NULL, NULL))
        return false;
    l->setup_end = l->filled;
    return l->sentinel || redis_put_track(l, NULL);
}
