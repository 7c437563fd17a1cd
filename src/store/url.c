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
static int parse_host(const struct parser *ps, const char *p, const char *end, struct store_url *u)
{
    const char *host = p, *host_end, *rest;
    uint32_t port = 6379;
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

static int parse_tcp(const struct parser *ps, const char *p, struct store_url *u)
{
    const char *end = p + strcspn(p, "/"), *at;
    int rc;

    u->kind = STORE_REDIS_TCP;
    at = memrchr(p, '@', (size_t)(end - p));
    if (at != NULL) {
        rc = parse_user(ps, p, at, u);
        if (rc < 0)
            return rc;
        p = at + 1;
    }
    rc = parse_host(ps, p, end, u);
    if (rc < 0)
        return rc;
    if (*end == '/' && end[1] != 0) {
        rc = number(ps, end + 1, end + strlen(end), 0, 65535, &u->db, "a database number");
        if (rc < 0)
            return rc;
    }
    bool v6 = strchr(u->host, ':') != NULL;
    snprintf(u->name, sizeof u->name, "redis://%s%s%s%s%s:%u/%u", u->user, u->user[0] != 0 ? "@" : "", v6 ? "[" : "",
             u->host, v6 ? "]" : "", u->port, u->db);
    return 0;
}

static int parse_unix(const struct parser *ps, const char *p, struct store_url *u)
{
    const char *end = p + strcspn(p, "?");
    int rc;

    u->kind = STORE_REDIS_UNIX;
    if (*p != '/')
        return wrong(ps, p, "expected the absolute path of a socket, beginning with '/'");
    rc = decode(ps, p, end, u->path, sizeof u->path, "path");
    if (rc < 0)
        return rc;
    if (*end == '?') {
        if (strncmp(end, "?db=", 4) != 0)
            return wrong(ps, end + 1, "expected db=N, the only option there is");
        rc = number(ps, end + 4, end + strlen(end), 0, 65535, &u->db, "a database number");
        if (rc < 0)
            return rc;
    }
    snprintf(u->name, sizeof u->name, "redis+unix://%s?db=%u", u->path, u->db);
    return 0;
}

int store_url_parse(struct store_url *out, const char *url, const char **why)
{
    static const char redis[] = "redis://", redis_unix[] = "redis+unix://";
    struct parser ps = { url, why };

    *out = (struct store_url){ 0 };
    if (strncmp(url, "mem:", 4) == 0) {
        if (url[4] != 0)
            return wrong(&ps, url + 4, "expected the end: nothing follows \"mem:\"");
        out->kind = STORE_MEM;
        strcpy(out->name, "mem:");
        return 0;
    }
    if (strncmp(url, redis, sizeof redis - 1) == 0)
        return parse_tcp(&ps, url + sizeof redis - 1, out);
    if (strncmp(url, redis_unix, sizeof redis_unix - 1) == 0)
        return parse_unix(&ps, url + sizeof redis_unix - 1, out);
    return wrong(&ps, url, "expected \"mem:\", \"redis://\" or \"redis+unix://\"");
}
