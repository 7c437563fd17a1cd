/* SPDX-License-Identifier: Apache-2.0 */
#include "values.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int unexpected(struct complaint *c, const char *option, const char *text, const char *expected)
{
    return complain(c, -EINVAL, "%s %s: expected %s", option, *text != '\0' ? text : "\"\"", expected);
}

/* Digits only: strtoull alone would also take blanks and signs. */
static bool whole_number(const char *text, uint64_t *out, const char **end)
{
    char *stop;

    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    *out = strtoull(text, &stop, 10);
    *end = stop;
    return errno == 0;
}

/* Digits with at most one point; neither hexadecimal nor "inf" nor an exponent. */
static bool decimal(const char *text, double *out, const char **end)
{
    size_t digits = strspn(text, "0123456789"), n = digits;
    char copy[64];

    if (text[n] == '.') {
        size_t fraction = strspn(text + n + 1, "0123456789");
        digits += fraction;
        n += 1 + fraction;
    }
    if (digits == 0 || n >= sizeof copy)
        return false;
    memcpy(copy, text, n);
    copy[n] = '\0';
    *out = strtod(copy, NULL);
    *end = text + n;
    return true;
}

int value_number(struct complaint *c, const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    char expected[128];
    const char *end;
    uint64_t n, unit = 1;

    snprintf(expected, sizeof expected, "a whole number from %" PRIu64 " to %" PRIu64, min, max);
    if (!whole_number(text, &n, &end))
        return unexpected(c, option, text, expected);
    if (*end == 'k' || *end == 'M')
        unit = *end++ == 'k' ? 1000 : 1000000;
    if (*end != '\0' || n > UINT64_MAX / unit || n * unit < min || n * unit > max)
        return unexpected(c, option, text, expected);
    *out = n * unit;
    return 0;
}

int value_time(struct complaint *c, const char *option, const char *text, nst_time min, nst_time max, nst_time *out)
{
    static const struct {
        const char *name;
        double ns;
    } units[] = { { "ns", 1 }, { "us", 1e3 }, { "ms", 1e6 }, { "s", 1e9 }, { "m", 60e9 }, { "h", 3600e9 } };
    char expected[160], low[32], high[32];
    const char *end;
    double n;

    snprintf(expected, sizeof expected, "a time with its unit, such as 500us, 200ms or 1s, from %s to %s",
             value_show_time(min, low, sizeof low), value_show_time(max, high, sizeof high));
    if (!decimal(text, &n, &end))
        return unexpected(c, option, text, expected);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(end, units[i].name) == 0) {
            double ns = n * units[i].ns;
            if (ns < (double)min || ns > (double)max)
                break;
            *out = (nst_time)llround(ns);
            return 0;
        }
    return unexpected(c, option, text, expected);
}

int value_size(struct complaint *c, const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    static const char letters[] = "KMGT";
    char expected[160], low[32], high[32];
    const char *end, *letter;
    uint64_t n;
    unsigned shift = 0;

    snprintf(expected, sizeof expected, "a size such as 512K, 256M or 2G, from %s to %s",
             value_show_size(min, low, sizeof low), value_show_size(max, high, sizeof high));
    if (!whole_number(text, &n, &end))
        return unexpected(c, option, text, expected);
    letter = *end != '\0' ? strchr(letters, toupper((unsigned char)*end)) : NULL;
    if (letter != NULL) {
        shift = 10 * (unsigned)(letter - letters + 1);
        end++;
        if (strcmp(end, "iB") == 0)
            end += 2;
    }
    if (strcmp(end, "B") == 0)
        end++;
    if (*end != '\0' || n > UINT64_MAX >> shift || n << shift < min || n << shift > max)
        return unexpected(c, option, text, expected);
    *out = n << shift;
    return 0;
}

int value_speed(struct complaint *c, const char *option, const char *text, double *out)
{
    const char *end;
    double x;

    if (strcmp(text, "max") == 0) {
        *out = 0;
        return 0;
    }
    if (!decimal(text, &x, &end) || (*end != '\0' && strcmp(end, "x") != 0) || x < 0.001 || x > 1e6)
        return unexpected(c, option, text, "a factor from 0.001 to 1000000 (1 is as recorded), or max");
    *out = x;
    return 0;
}

int value_word(struct complaint *c, const char *option, const char *text, const char *const words[], unsigned n,
               unsigned *out)
{
    char expected[160] = "";
    size_t len = 0;

    for (unsigned i = 0; i < n; i++) {
        if (strcmp(text, words[i]) == 0) {
            *out = i;
            return 0;
        }
        if (len < sizeof expected)
            len += (size_t)snprintf(expected + len, sizeof expected - len, "%s%s",
                                    i == 0       ? ""
                                    : i + 1 == n ? " or "
                                                 : ", ",
                                    words[i]);
    }
    return unexpected(c, option, text, expected);
}

int value_tunnels(struct complaint *c, const char *option, const char *text, unsigned *out)
{
    static const char *const words[] = { "mpls", "gre", "ipip", "vxlan", "gtpu", "all" };
    static const unsigned bits[] = { NST_TUNNEL_MPLS,  NST_TUNNEL_GRE,  NST_TUNNEL_IPIP,
                                     NST_TUNNEL_VXLAN, NST_TUNNEL_GTPU, NST_TUNNELS_ALL };
    unsigned found = 0, word = 0;
    char one[32];

    for (const char *at = text;; at++) {
        size_t len = strcspn(at, ",");
        snprintf(one, sizeof one, "%.*s", (int)(len < sizeof one ? len : sizeof one - 1), at);
        int rc = value_word(c, option, one, words, sizeof words / sizeof *words, &word);
        if (rc < 0)
            return rc;
        found |= bits[word];
        at += len;
        if (*at == '\0')
            break;
    }
    *out = found;
    return 0;
}

int value_ports(struct complaint *c, const char *option, char *text, const char *names[], unsigned max, unsigned *n)
{
    unsigned found = 0;
    char *piece = text;

    while (piece != NULL) {
        char *comma = strchr(piece, ',');
        size_t len = comma != NULL ? (size_t)(comma - piece) : strlen(piece);

        if (len == 0)
            return complain(c, -EINVAL, "%s: an empty port name; expected A,B or A,B,C,D", option);
        if (memchr(piece, '=', len) != NULL) {
            if (found == 0)
                return complain(c, -EINVAL, "%s %.*s: a device argument without a device before it", option, (int)len,
                                piece);
            piece[-1] = ',';
        } else {
            if (found == max)
                return complain(c, -EINVAL, "%s: more than %u ports", option, max);
            names[found++] = piece;
        }
        if (comma != NULL)
            *comma++ = '\0';
        piece = comma;
    }
    *n = found;
    return 0;
}

const char *value_show_time(nst_time t, char *buf, size_t size)
{
    if (t >= NST_SEC(3600))
        snprintf(buf, size, "%.3gh", (double)t / 3600e9);
    else if (t >= NST_SEC(1))
        snprintf(buf, size, "%.3gs", (double)t / 1e9);
    else if (t >= NST_MS(1))
        snprintf(buf, size, "%.3gms", (double)t / 1e6);
    else if (t >= NST_US(1))
        snprintf(buf, size, "%.3gus", (double)t / 1e3);
    else
        snprintf(buf, size, "%" PRId64 "ns", t);
    return buf;
}

const char *value_show_size(uint64_t bytes, char *buf, size_t size)
{
    static const char *const units[] = { "", "K", "M", "G", "T", "P" };
    double n = (double)bytes;
    unsigned i = 0;

    while (n >= 1024 && i + 1 < sizeof units / sizeof *units) {
        n /= 1024;
        i++;
    }
    snprintf(buf, size, n < 10 && n != floor(n) ? "%.1f%s" : "%.0f%s", n, units[i]);
    return buf;
}

/* ---- overlap policies ---- */
static int overlap_name(struct complaint *c, const char *option, const char *name, enum nst_overlap *out)
{
    if (nst_overlap_by_name(name, out) < 0)
        return complain(c, -EINVAL,
                        "%s: there is no policy \"%s\"; expected first, last, bsd, linux, old-linux, solaris, windows, "
                        "macos, vista or hpux11",
                        option, name);
    return 0;
}

static int overlap_net(struct complaint *c, const char *option, char *item, struct nst_overlap_net *net)
{
    char *policy = strchr(item, '='), *bits;
    uint64_t n;

    *policy++ = '\0';
    if ((bits = strchr(item, '/')) != NULL)
        *bits++ = '\0';
    *net = (struct nst_overlap_net){ .family = strchr(item, ':') != NULL ? 6 : 4 };
    if (inet_pton(net->family == 6 ? AF_INET6 : AF_INET, item, net->addr) != 1)
        return complain(c, -EINVAL, "%s: \"%s\" is no address of a network", option, item);
    unsigned most = net->family == 6 ? 128 : 32;
    n = most;
    if (bits != NULL && value_number(c, option, bits, 0, most, &n) < 0)
        return -EINVAL;
    net->bits = (uint8_t)n;
    return overlap_name(c, option, policy, &net->policy);
}

int value_overlaps(struct complaint *c, const char *option, const char *text, enum nst_overlap *all,
                   struct nst_overlap_net nets[], unsigned max, unsigned *n)
{
    char *copy = strdup(text), *rest = copy, *item;
    int rc = copy != NULL ? 0 : complain(c, -ENOMEM, "out of memory");

    *n = 0;
    while (rc == 0 && (item = strsep(&rest, ",")) != NULL) {
        if (strchr(item, '=') == NULL)
            rc = overlap_name(c, option, item, all);
        else if (*n == max)
            rc = complain(c, -EINVAL, "%s: more than %u networks", option, max);
        else if ((rc = overlap_net(c, option, item, &nets[*n])) == 0)
            ++*n;
    }
    free(copy);
    return rc;
}
