/* SPDX-License-Identifier: Apache-2.0 */
#include "store/url.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static __thread char reason[256];

int store_url_why(const char **why, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(reason, sizeof reason, fmt, ap);
    va_end(ap);
    if (why != NULL)
        *why = reason;
    return -EINVAL;
}

struct parser {
    const char *url;
    const char **why;
};

/* Says what was wrong at this place of the URL. The message never repeats the URL: it may hold a password. */
static int wrong(const struct parser *ps, const char *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int wrong(const struct parser *ps, const char *at, const char *fmt, ...)
{
    char text[192];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return store_url_why(ps->why, "character %zu: %s", (size_t)(at - ps->url) + 1, text);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Copies [p, end) into out, %XX decoded, and closes it with a NUL. */
static int decode(const struct parser *ps, const char *p, const char *end, char *out, size_t cap, const char *what)
{
    size_t n = 0;

    for (; p < end; p++) {
        int c = (unsigned char)*p;
        if (c == '%') {
            int hi = end - p > 1 ? hex_value(p[1]) : -1, lo = end - p > 2 ? hex_value(p[2]) : -1;
            if (hi < 0 || lo < 0)
                return wrong(ps, p, "expected two hexadecimal digits after '%%'");
            c = hi << 4 | lo;
            if (c == 0)
                return wrong(ps, p, "%%00 cannot be part of the %s", what);
            p += 2;
        } else if (c <= ' ' || c == 0x7f) {
            return wrong(ps, p, "a space or control character in the %s (write it as %%%02X)", what, c);
        }
        if (n + 1 >= cap)
            return wrong(ps, p, "the %s is longer than %zu bytes", what, cap - 1);
        out[n++] = (char)c;
    }
    out[n] = 0;
    return 0;
}

/* A decimal number in [p, end), all of it. */
static int number(const struct parser *ps, const char *p, const char *end, uint32_t min, uint32_t max, uint32_t *out,
                  const char *what)
{
    uint64_t n = 0;

    if (p == end)
        return wrong(ps, p, "expected %s (%u to %u)", what, min, max);
    for (const char *q = p; q < end; q++) {
        if (*q < '0' || *q > '9')
            return wrong(ps, q, "expected a digit of %s (%u to %u)", what, min, max);
        n = n * 10 + (uint64_t)(*q - '0');
        if (n > max)
            return wrong(ps, p, "%s must be from %u to %u", what, min, max);
    }
    if (n < min)
        return wrong(ps, p, "%s must be from %u to %u", what, min, max);
    *out = (uint32_t)n;
    return 0;
}

/* [p, end) is USER, USER:PASSWORD or :PASSWORD. */
static int parse_user(const struct parser *ps, const char *p, const char *end, struct store_url *u)
{
    const char *colon = memchr(p, ':', (size_t)(end - p));
    int rc = decode(ps, p, colon != NULL ? colon : end, u->user, sizeof u->user, "user name");

    if (rc == 0 && colon != NULL)
        rc = decode(ps, colon + 1, end, u->password, sizeof u->password, "password");
    if (rc == 0 && u->user[0] == 0 && u->password[0] == 0)
        return wrong(ps, p, "expected a user name or ':' and a password before '@'");
    u->auth = true;
    return rc;
}

/* [p, end) is HOST, HOST:PORT, :PORT, [IPV6] or [IPV6]:PORT. */
static int parse_host(const struct parser *ps, const char *p, const char *end, uint32_t port, struct store_host *u)
{
    const char *host = p, *host_end, *rest;
    int rc;

    if (p < end && *p == '[') {
        struct in6_addr a;
        host_end = memchr(p, ']', (size_t)(end - p));
        if (host_end == NULL)
            return wrong(ps, end, "expected ']' to close the address that '[' opens at character %zu",
                         (size_t)(p - ps->url) + 1);
        rest = host_end + 1;
        host = p + 1;
        if ((size_t)(host_end - host) >= sizeof u->host)
            return wrong(ps, host, "expected an IPv6 address inside the brackets");
        memcpy(u->host, host, (size_t)(host_end - host));
        if (inet_pton(AF_INET6, u->host, &a) != 1)
            return wrong(ps, host, "expected an IPv6 address inside the brackets");
        if (rest < end && *rest != ':')
            return wrong(ps, rest, "expected ':', '/' or the end after ']'");
    } else {
        host_end = memchr(p, ':', (size_t)(end - p));
        if (host_end == NULL)
            host_end = end;
        else if (memchr(host_end + 1, ':', (size_t)(end - host_end - 1)) != NULL)
            return wrong(ps, host_end, "more than one ':' (an IPv6 address is written in brackets)");
        rest = host_end;
        for (const char *q = host; q < host_end; q++) {
            char c = *q | 0x20;
            if (!((c >= 'a' && c <= 'z') || (*q >= '0' && *q <= '9') || *q == '.' || *q == '-' || *q == '_'))
                return wrong(ps, q, "expected a host name or address (letters, digits, '.', '-', '_')");
        }
        if ((size_t)(host_end - host) >= sizeof u->host)
            return wrong(ps, host, "the host name is longer than %zu bytes", sizeof u->host - 1);
        memcpy(u->host, host, (size_t)(host_end - host));
        if (host == host_end)
            strcpy(u->host, "127.0.0.1");
    }
    if (rest < end) {
        rc = number(ps, rest + 1, end, 1, 65535, &port, "a port number");
        if (rc < 0)
            return rc;
    }
    u->port = (uint16_t)port;
    return 0;
}

/* ---- options behind '?' ---- */

struct option {
    const char *name; /* with its '=' */
    char *text;
    size_t cap;
    uint32_t *number;
    uint32_t min, max;
    const char *what;
};

/* p is "?NAME=VALUE[&NAME=VALUE]...". */
static int parse_options(const struct parser *ps, const char *p, const struct option *options, const char *expected)
{
    while (*p != 0) {
        const char *begin = p + 1, *end = begin + strcspn(begin, "&");
        const struct option *o = options;
        int rc;
        while (o->name != NULL && strncmp(begin, o->name, strlen(o->name)) != 0)
            o++;
        if (o->name == NULL)
            return wrong(ps, begin, "expected %s", expected);
        begin += strlen(o->name);
        if (o->number != NULL)
            rc = number(ps, begin, end, o->min, o->max, o->number, o->what);
        else if (begin == end)
            rc = wrong(ps, begin, "expected %s", o->what);
        else
            rc = decode(ps, begin, end, o->text, o->cap, o->what);
        if (rc < 0)
            return rc;
        p = end;
    }
    return 0;
}

/* ---- Redis by TCP ---- */

struct scheme {
    const char *prefix;
    enum store_kind kind;
    bool tls;
    uint16_t port;
};

/* Comma-separated for a cluster and for sentinels. */
static int parse_hosts(const struct parser *ps, const char *p, const char *end, const struct scheme *sc,
                       struct store_url *u)
{
    for (;;) {
        const char *comma = sc->kind == STORE_REDIS_TCP ? NULL : memchr(p, ',', (size_t)(end - p));
        int rc;
        if (u->n_hosts == STORE_HOSTS)
            return wrong(ps, p, "more than %d hosts", STORE_HOSTS);
        rc = parse_host(ps, p, comma != NULL ? comma : end, sc->port, &u->hosts[u->n_hosts++]);
        if (rc < 0 || comma == NULL)
            return rc;
        p = comma + 1;
    }
}

/* [p, end) is what follows the '/' behind the hosts: DB, or SERVICE[/DB]. */
static int parse_path(const struct parser *ps, const char *p, const char *end, struct store_url *u)
{
    if (u->kind == STORE_REDIS_CLUSTER)
        return p == end ? 0 : wrong(ps, p, "expected the end: a cluster has no databases");
    if (u->kind == STORE_REDIS_SENTINEL) {
        const char *slash = memchr(p, '/', (size_t)(end - p));
        int rc;
        if (p == end || p == slash)
            return wrong(ps, p, "expected the name by which the sentinels know the service");
        rc = decode(ps, p, slash != NULL ? slash : end, u->service, sizeof u->service, "service's name");
        if (rc < 0 || slash == NULL)
            return rc;
        p = slash + 1;
    }
    return p == end ? 0 : number(ps, p, end, 0, 65535, &u->db, "a database number");
}

static void make_name(struct store_url *u, const struct scheme *sc)
{
    size_t n = (size_t)snprintf(u->name, sizeof u->name, "%s%s%s", sc->prefix, u->user, u->user[0] != 0 ? "@" : "");

    for (unsigned i = 0; i < u->n_hosts && n < sizeof u->name; i++) {
        const char *host = u->hosts[i].host;
        bool v6 = strchr(host, ':') != NULL;
        n += (size_t)snprintf(u->name + n, sizeof u->name - n, "%s%s%s%s:%u", i > 0 ? "," : "", v6 ? "[" : "", host,
                              v6 ? "]" : "", u->hosts[i].port);
    }
    if (n >= sizeof u->name)
        return;
    if (u->kind == STORE_REDIS_TCP)
        snprintf(u->name + n, sizeof u->name - n, "/%u", u->db);
    else if (u->kind == STORE_REDIS_SENTINEL)
        snprintf(u->name + n, sizeof u->name - n, "/%s/%u", u->service, u->db);
}

static int parse_redis(const struct parser *ps, const char *p, const struct scheme *sc, struct store_url *u)
{
    const struct option options[] = {
        { "ca=", u->ca, sizeof u->ca, NULL, 0, 0, "file of certificates of authorities" },
        { "cert=", u->cert, sizeof u->cert, NULL, 0, 0, "file of a certificate" },
        { "key=", u->key, sizeof u->key, NULL, 0, 0, "file of a key" },
        { "replicas=", NULL, 0, &u->replicas, 0, STORE_REPLICAS_MAX, "a number of replicas" },
        { .name = NULL },
    };
    const struct option *allowed = sc->tls ? options : options + 3;
    const char *end = p + strcspn(p, "/?"), *at, *stop;
    int rc;

    u->kind = sc->kind;
    u->tls = sc->tls;
    at = memrchr(p, '@', (size_t)(end - p));
    if (at != NULL) {
        rc = parse_user(ps, p, at, u);
        if (rc < 0)
            return rc;
        p = at + 1;
    }
    rc = parse_hosts(ps, p, end, sc, u);
    if (rc < 0)
        return rc;
    stop = end + strcspn(end, "?");
    if (*end != '/' && sc->kind == STORE_REDIS_SENTINEL)
        return wrong(ps, end, "expected '/' and the name by which the sentinels know the service");
    if (*end == '/') {
        rc = parse_path(ps, end + 1, stop, u);
        if (rc < 0)
            return rc;
    }
    rc = parse_options(ps, stop, allowed,
                       sc->tls ? "ca=FILE, cert=FILE, key=FILE or replicas=N" : "replicas=N, the only option there is");
    if (rc < 0)
        return rc;
    if ((u->cert[0] != 0) != (u->key[0] != 0))
        return wrong(ps, stop + strlen(stop), "cert=FILE and key=FILE go together");
    make_name(u, sc);
    return 0;
}

/* ---- the others ---- */

static int parse_unix(const struct parser *ps, const char *p, struct store_url *u)
{
    const struct option options[] = {
        { "db=", NULL, 0, &u->db, 0, 65535, "a database number" },
        { "replicas=", NULL, 0, &u->replicas, 0, STORE_REPLICAS_MAX, "a number of replicas" },
        { .name = NULL },
    };
    const char *end = p + strcspn(p, "?");
    int rc;

    u->kind = STORE_REDIS_UNIX;
    if (*p != '/')
        return wrong(ps, p, "expected the absolute path of a socket, beginning with '/'");
    rc = decode(ps, p, end, u->path, 108, "path");
    if (rc == 0)
        rc = parse_options(ps, end, options, "db=N or replicas=N");
    if (rc == 0)
        snprintf(u->name, sizeof u->name, "redis+unix://%s?db=%u", u->path, u->db);
    return rc;
}

static int parse_lmdb(const struct parser *ps, const char *p, struct store_url *u)
{
    const struct option options[] = {
        { "gib=", NULL, 0, &u->gib, 1, 65536, "a number of GiB" },
        { .name = NULL },
    };
    const char *end = p + strcspn(p, "?");
    int rc;

    u->kind = STORE_LMDB;
    if (p == end)
        return wrong(ps, p, "expected the path of a file");
    rc = decode(ps, p, end, u->path, sizeof u->path - 8, "path");
    if (rc == 0)
        rc = parse_options(ps, end, options, "gib=N, the only option there is");
    if (rc == 0)
        snprintf(u->name, sizeof u->name, "lmdb:%s", u->path);
    return rc;
}

int store_url_parse(struct store_url *out, const char *url, const char **why)
{
    static const struct scheme schemes[] = {
        { "redis://", STORE_REDIS_TCP, false, 6379 },
        { "rediss://", STORE_REDIS_TCP, true, 6379 },
        { "redis-sentinel://", STORE_REDIS_SENTINEL, false, 26379 },
        { "rediss-sentinel://", STORE_REDIS_SENTINEL, true, 26379 },
        { "redis-cluster://", STORE_REDIS_CLUSTER, false, 6379 },
        { "rediss-cluster://", STORE_REDIS_CLUSTER, true, 6379 },
    };
    static const char redis_unix[] = "redis+unix://";
    struct parser ps = { url, why };

    *out = (struct store_url){ 0 };
    if (strncmp(url, "mem:", 4) == 0) {
        if (url[4] != 0)
            return wrong(&ps, url + 4, "expected the end: nothing follows \"mem:\"");
        out->kind = STORE_MEM;
        strcpy(out->name, "mem:");
        return 0;
    }
    if (strncmp(url, "lmdb:", 5) == 0)
        return parse_lmdb(&ps, url + 5, out);
    if (strncmp(url, "unix:", 5) == 0)
        return parse_unix(&ps, url + 5, out);
    if (strncmp(url, redis_unix, sizeof redis_unix - 1) == 0)
        return parse_unix(&ps, url + sizeof redis_unix - 1, out);
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        if (strncmp(url, schemes[i].prefix, strlen(schemes[i].prefix)) == 0)
            return parse_redis(&ps, url + strlen(schemes[i].prefix), &schemes[i], out);
    }
    return wrong(
        &ps, url,
        "expected \"mem:\", \"lmdb:\", \"redis://\", \"rediss://\", \"redis+unix://\", \"redis-sentinel://\" or "
        "\"redis-cluster://\"");
}
