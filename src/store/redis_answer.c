/* SPDX-License-Identifier: Apache-2.0 */
/* store/redis_answer.c - what a server's answers mean. Each lies whole in the connection's buffer and goes from there to
 * where it belongs. */
#include "store/redis.h"
#include <stdio.h>

struct reading {
    struct redis_link *link;
    const struct redis_record *r;
    const char *bad;
};

static int unexpected(struct reading *rd, const char *what)
{
    if (rd->bad == NULL)
        rd->bad = what;
    return -EPROTO;
}

static bool has(const struct resp *v, const char *part)
{
    return memmem(v->p, v->len, part, strlen(part)) != NULL;
}

static bool begins(const struct resp *v, const char *part)
{
    size_t len = strlen(part);

    return v->len >= len && memcmp(v->p, part, len) == 0;
}

static int error_result(struct reading *rd, const struct resp *v)
{
    const struct redis_record *r = rd->r;
    char clean[160];
    size_t n = v->len < sizeof clean - 1 ? v->len : sizeof clean - 1;

    if (r->op == STORE_INCR && (has(v, "WRONGTYPE") || has(v, "not an integer")))
        return -EINVAL;
    if (r->op == STORE_POOL_TAKE && has(v, "pool was larger"))
        return -EINVAL;
    for (size_t i = 0; i < n; i++)
        clean[i] = (char)(v->p[i] >= ' ' && v->p[i] < 0x7f ? v->p[i] : '?');
    clean[n] = 0;
    redis_log(rd->link->store, NST_LOG_WARNING, rd->link->name, "%sthe server answered \"%s\"",
              r->op == REDIS_SETUP || r->op == REDIS_ROLE    ? "cannot be used: "
              : r->op == REDIS_HELLO || r->op == REDIS_TRACK ? "changes are not told: "
                                                             : "",
              clean);
    if ((r->op == REDIS_SETUP || r->op == REDIS_ROLE) && (has(v, "NOAUTH") || has(v, "WRONGPASS") || has(v, "NOPERM")))
        return -EACCES;
    if (begins(v, "READONLY")) /* it was the master */
        rd->link->useless = "the server takes no writes any more";
    if (begins(v, "MOVED ") || begins(v, "ASK ") || begins(v, "READONLY") || begins(v, "LOADING") ||
        begins(v, "CLUSTERDOWN") || begins(v, "MASTERDOWN") || begins(v, "TRYAGAIN") || begins(v, "BUSY "))
        return r->op == REDIS_SETUP || r->op == REDIS_ROLE ? -EIO : -EAGAIN;
    return -EIO;
}

/* The eight bytes before a value: what it is, or -EIO; *number gets the version or the token. */
static int record_kind(struct reading *rd, const struct resp *v, uint64_t *number)
{
    uint64_t before = 0;
    int mark;

    if (v->len >= REDIS_PREFIX)
        memcpy(&before, v->p, sizeof before);
    before = __builtin_bswap64(before);
    mark = (int)(before >> 56);
    if (mark != REDIS_MARK && mark != REDIS_MARK_OWNED && mark != REDIS_MARK_EMPTY) {
        redis_log(rd->link->store, NST_LOG_WARNING, rd->link->name,
                  "a key that was asked for does not hold a value that NetStar wrote");
        return -EIO;
    }
    *number = mark == REDIS_MARK ? before : before & (((uint64_t)1 << 56) - 1);
    return mark;
}

static int value_result(struct reading *rd, const struct resp *v)
{
    const struct redis_record *r = rd->r;
    size_t len = v->len - REDIS_PREFIX;
    uint64_t number;
    int mark;

    if (v->len == 0 && r->op == STORE_GET)
        return -ENOENT;
    mark = record_kind(rd, v, &number);
    if (mark < 0)
        return mark;
    if (r->op == STORE_OWN) {
        if (mark == REDIS_MARK)
            return unexpected(rd, "a record that is not owned");
        if (r->f != NULL)
            *r->number = number;
    }
    if (mark == REDIS_MARK_EMPTY)
        return -ENOENT;
    if (len > r->cap)
        return -EMSGSIZE;
    if (r->f != NULL) {
        if (len != 0)
            memcpy(r->out, v->p + REDIS_PREFIX, len);
        if (r->op == STORE_GET && r->number != NULL)
            *r->number = number;
    }
    return (int)len;
}

/* A number as a script gave it: an optional '-' and digits, up to a byte `end` or the end. */
static const char *digits(const char *p, const char *end, char stop, int64_t *out)
{
    bool minus = p < end && *p == '-';
    int64_t n = 0;
    const char *first = p += minus;

    for (; p < end && *p != stop; p++) {
        int digit = *p - '0';
        if (digit < 0 || digit > 9 || __builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, minus ? -digit : digit, &n))
            return NULL;
    }
    *out = n;
    return p == first ? NULL : p;
}

static int count_result(struct reading *rd, const struct resp *v)
{
    int64_t n = v->n;

    if (v->type == RESP_STRING && digits(v->p, v->p + v->len, 0, &n) != v->p + v->len)
        return unexpected(rd, "a count that is no number");
    if (rd->r->f != NULL && rd->r->count != NULL)
        *rd->r->count = n;
    return 0;
}

static int lease_result(struct reading *rd, const struct resp *v)
{
    const char *end = v->p + v->len, *p;
    int64_t value, ticket;

    p = digits(v->p, end, ':', &value);
    if (p == NULL || p == end || value < 0 || value > UINT32_MAX || digits(p + 1, end, 0, &ticket) != end || ticket < 0)
        return unexpected(rd, "a lease that is none");
    if (rd->r->f != NULL)
        *rd->r->lease = (struct nst_lease){ .ticket = (uint64_t)ticket, .value = (uint32_t)value };
    return 0;
}

static int string_result(struct reading *rd, const struct resp *v)
{
    switch (rd->r->op) {
    case STORE_GET:
    case STORE_OWN:
        return value_result(rd, v);
    case STORE_INCR:
        return count_result(rd, v);
    case STORE_POOL_TAKE:
        return lease_result(rd, v);
    default:
        return unexpected(rd, "a string where there should be none");
    }
}

static int integer_result(struct reading *rd, const struct resp *v)
{
    unsigned op = rd->r->op;
    int lost = op == STORE_DELETE || op == STORE_TOUCH ? -ENOENT : -ESTALE;

    if (op == STORE_INCR)
        return count_result(rd, v);
    if (op == REDIS_WAIT && v->n >= 0 && v->n <= INT32_MAX)
        return (int)v->n;
    if (op == STORE_DELETE_OWNED && v->n == -1)
        return -ENOENT;
    if (op == STORE_DELETE || op == STORE_TOUCH || op == STORE_CAS || op == STORE_CAS_BYTES || op == STORE_PUT_OWNED ||
        op == STORE_DELETE_OWNED || op == STORE_CHECK_OWNED || op == STORE_POOL_KEEP || op == STORE_POOL_GIVE) {
        if (v->n == 0 || v->n == 1)
            return v->n == 1 ? 0 : lost;
    }
    return unexpected(rd, "a number where there should be none");
}

/* A page of a scan: the next cursor, and a list of keys. */
static int scan_result(struct reading *rd, const struct resp *v, const char *p)
{
    const struct redis_record *r = rd->r;
    struct resp cursor, keys;
    size_t used = 0;
    uint64_t next = 0;
    int n = 0;

    if (v->n != 2)
        return unexpected(rd, "a page of a scan that is none");
    p = resp_next(p, &cursor);
    p = resp_next(p, &keys);
    if (cursor.type != RESP_STRING || cursor.len == 0 || cursor.len > 20 || keys.type != RESP_LIST)
        return unexpected(rd, "a page of a scan that is none");
    for (size_t i = 0; i < cursor.len; i++) {
        if (cursor.p[i] < '0' || cursor.p[i] > '9' || __builtin_mul_overflow(next, 10, &next) ||
            __builtin_add_overflow(next, (uint64_t)(cursor.p[i] - '0'), &next))
            return unexpected(rd, "a place in a scan that is no number");
    }
    for (int64_t i = 0; i < keys.n; i++) {
        struct resp key;
        p = resp_next(p, &key);
        if (key.type != RESP_STRING)
            return unexpected(rd, "a key that is no string");
        if (r->f == NULL || key.len > NST_KEY_MAX)
            continue;
        if (!store_scan_add(r->out, r->cap, &used, key.p, key.len)) {
            /* more than fits: from the same place, a smaller step */
            uint32_t step = r->scan->step != 0 ? r->scan->step : r->cap / 128;
            r->scan->step = step / 4 > 0 ? step / 4 : 1;
            return step <= 1 ? -EMSGSIZE : 0;
        }
        n++;
    }
    if (r->f != NULL) {
        r->scan->at = next;
        r->scan->done = next == 0;
        if (next == 0 && rd->link->store->cluster != NULL)
            redis_cluster_scanned(rd->link->store, rd->link, r->scan);
    }
    return n;
}

static int result(struct reading *rd, const char *answer)
{
    unsigned op = rd->r->op;
    struct resp v;
    const char *p = resp_next(answer, &v);

    switch (v.type) {
    case RESP_ERROR:
        return error_result(rd, &v);
    case RESP_STATUS:
        if (op == STORE_PUT || op == STORE_PUT_NEW || op == STORE_CAS_NEW || op == STORE_PING || op >= STORE_OPS)
            return 0;
        return unexpected(rd, "a status where there should be a value");
    case RESP_STRING:
        return string_result(rd, &v);
    case RESP_INTEGER:
        return integer_result(rd, &v);
    case RESP_NULL:
        if (op == STORE_PUT_NEW || op == STORE_CAS_NEW)
            return op == STORE_PUT_NEW ? -EEXIST : -ESTALE;
        if (op == STORE_POOL_TAKE)
            return -ENOENT;
        if (op == REDIS_TOPOLOGY) {
            redis_topology(rd->link, answer);
            return 0;
        }
        return unexpected(rd, "nothing where there should be an answer");
    case RESP_LIST:
        if (op == STORE_SCAN)
            return scan_result(rd, &v, p);
        if (op == REDIS_HELLO)
            return 0;
        if (op == REDIS_TOPOLOGY) {
            redis_topology(rd->link, answer);
            return 0;
        }
        if (op == REDIS_ROLE) {
            struct resp role;
            if (v.n < 1)
                return unexpected(rd, "a role that is none");
            resp_next(p, &role);
            return role.type == RESP_STRING && begins(&role, "master") ? 0 : -EROFS;
        }
        return unexpected(rd, "a list where there should be none");
    case RESP_PUSH:
        break;
    }
    return unexpected(rd, "a reply of no use");
}

enum redis_fate redis_answer(struct redis_link *l, const struct redis_record *r, const char *answer, int *rc,
                             const char **bad)
{
    struct reading rd = { .link = l, .r = r };
    struct resp v;

    if (__builtin_expect(*answer == '-', 0)) {
        resp_next(answer, &v);
        if (begins(&v, "NOSCRIPT") && r->script != SCRIPT_NONE && r->tries < REDIS_TRIES)
            return REDIS_NOSCRIPT;
        if (l->store->cluster != NULL && r->tries < REDIS_TRIES && r->op < STORE_OPS) {
            if (begins(&v, "MOVED "))
                return REDIS_MOVED;
            if (begins(&v, "ASK "))
                return REDIS_ASK;
        }
    }
    *rc = result(&rd, answer);
    *bad = rd.bad;
    return REDIS_DONE;
}

bool redis_push(struct redis_link *l, const char *push)
{
    struct nst_store *s = &l->store->base;
    struct resp v, what, keys;
    const char *p = resp_next(push, &v);

    if (v.n < 1)
        return false;
    p = resp_next(p, &what);
    if (what.type != RESP_STRING && what.type != RESP_STATUS)
        return false;
    if (v.n != 2 || !begins(&what, "invalidate"))
        return true; /* nothing that was asked for, and no harm */
    p = resp_next(p, &keys);
    if (keys.type == RESP_NULL) {
        for (struct nst_listener *o = s->listeners; o != NULL; o = o->next)
            o->changed(o, (struct nst_slice){ NULL, 0 });
        return true;
    }
    if (keys.type != RESP_LIST)
        return false;
    for (int64_t i = 0; i < keys.n; i++) {
        struct resp key;
        p = resp_next(p, &key);
        if (key.type != RESP_STRING)
            return false;
        store_changed(s, (struct nst_slice){ key.p, key.len });
    }
    return true;
}
