/* SPDX-License-Identifier: Apache-2.0 */
#include "addresses.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

__extension__ typedef unsigned __int128 u128; /* an IPv6 address, in host order */

struct range4 {
    uint32_t lo, hi;
};
struct range6 {
    u128 lo, hi;
};
struct nf_addresses {
    size_t n4, n6;
    struct range4 *four;
    struct range6 *six;
};

static uint32_t number4(const uint8_t *a)
{
    return (uint32_t)a[0] << 24 | (uint32_t)a[1] << 16 | (uint32_t)a[2] << 8 | a[3];
}

static u128 number6(const uint8_t *a)
{
    u128 n = 0;

    for (unsigned i = 0; i < 16; i++)
        n = n << 8 | a[i];
    return n;
}

static void bytes6(u128 n, uint8_t *a)
{
    for (unsigned i = 16; i-- > 0; n >>= 8)
        a[i] = (uint8_t)n;
}

/* ---- reading ---- */
static int read_address(const char *p, size_t len, uint8_t out[16])
{
    char text[INET6_ADDRSTRLEN];

    if (len == 0 || len >= sizeof text)
        return 0;
    memcpy(text, p, len);
    text[len] = '\0';
    memset(out, 0, 16);
    if (inet_pton(AF_INET, text, out) == 1)
        return 4;
    return inet_pton(AF_INET6, text, out) == 1 ? 6 : 0;
}

/* Sets the bits behind the prefix; false when one of them is set already. */
static bool fill(struct nf_range *r, unsigned bits)
{
    unsigned all = r->family == 4 ? 32 : 128;

    for (unsigned i = bits; i < all; i++) {
        uint8_t bit = (uint8_t)(0x80 >> (i % 8));
        if (r->lo[i / 8] & bit)
            return false;
        r->hi[i / 8] |= bit;
    }
    return true;
}

int nf_range_parse(const struct nf_word *w, struct nf_range *out, const char **at, const char **why)
{
    const char *slash = memchr(w->p, '/', w->len), *dash = memchr(w->p, '-', w->len), *end = w->p + w->len;
    const char *first = slash != NULL ? slash : dash != NULL ? dash : end;

    memset(out, 0, sizeof *out);
    *at = w->p;
    *why = "expected an address, a prefix such as 10.0.0.0/8 or fd00::/8, or a range such as 10.0.0.1-10.0.0.9";
    if (w->quoted)
        return -EINVAL;
    out->family = (uint8_t)read_address(w->p, (size_t)(first - w->p), out->lo);
    if (out->family == 0)
        return -EINVAL;
    memcpy(out->hi, out->lo, sizeof out->hi);
    if (first == end)
        return 0;
    *at = first + 1;
    struct nf_word behind = { first + 1, (size_t)(end - first - 1), false };
    if (slash != NULL) {
        uint64_t bits;
        *why = out->family == 4 ? "expected a prefix length from 0 to 32" : "expected a prefix length from 0 to 128";
        if (!nf_word_number(&behind, 0, out->family == 4 ? 32 : 128, &bits))
            return -EINVAL;
        *at = w->p;
        *why = "expected zeros behind the prefix's length";
        return fill(out, (unsigned)bits) ? 0 : -EINVAL;
    }
    *why = "expected an address of the same family that is not below the first";
    if (read_address(behind.p, behind.len, out->hi) != out->family || memcmp(out->hi, out->lo, sizeof out->lo) < 0)
        return -EINVAL;
    return 0;
}

/* ---- building ---- */
int nf_addresses_add(struct nf_addresses_builder *b, const struct nf_range *r)
{
    if (b->n == b->room) {
        size_t room = b->room != 0 ? b->room * 2 : 16;
        struct nf_range *more = realloc(b->range, room * sizeof *more);
        if (more == NULL)
            return -ENOMEM;
        b->range = more;
        b->room = room;
    }
    b->range[b->n++] = *r;
    return 0;
}

int nf_addresses_add_all(struct nf_addresses_builder *b, const struct nf_addresses *s)
{
    struct nf_range r = { .family = 4 };
    int rc = 0;

    for (size_t i = 0; s != NULL && i < s->n4 && rc == 0; i++) {
        uint32_t lo = htonl(s->four[i].lo), hi = htonl(s->four[i].hi);
        memcpy(r.lo, &lo, sizeof lo);
        memcpy(r.hi, &hi, sizeof hi);
        rc = nf_addresses_add(b, &r);
    }
    r.family = 6;
    for (size_t i = 0; s != NULL && i < s->n6 && rc == 0; i++) {
        bytes6(s->six[i].lo, r.lo);
        bytes6(s->six[i].hi, r.hi);
        rc = nf_addresses_add(b, &r);
    }
    return rc;
}

static int by_lo(const void *a, const void *b)
{
    const struct nf_range *x = a, *y = b;

    return x->family != y->family ? x->family - y->family : memcmp(x->lo, y->lo, sizeof x->lo);
}

static void append4(struct nf_addresses *s, uint32_t lo, uint32_t hi)
{
    struct range4 *last = s->n4 > 0 ? &s->four[s->n4 - 1] : NULL;

    if (last != NULL && (last->hi == UINT32_MAX || lo <= last->hi + 1)) {
        if (hi > last->hi)
            last->hi = hi;
    } else {
        s->four[s->n4++] = (struct range4){ lo, hi };
    }
}

static void append6(struct nf_addresses *s, u128 lo, u128 hi)
{
    struct range6 *last = s->n6 > 0 ? &s->six[s->n6 - 1] : NULL;

    if (last != NULL && (last->hi == ~(u128)0 || lo <= last->hi + 1)) {
        if (hi > last->hi)
            last->hi = hi;
    } else {
        s->six[s->n6++] = (struct range6){ lo, hi };
    }
}

int nf_addresses_build(struct nf_addresses **out, struct nf_addresses_builder *b)
{
    struct nf_addresses *s = calloc(1, sizeof *s);
    size_t n4 = 0;

    for (size_t i = 0; i < b->n; i++)
        n4 += b->range[i].family == 4;
    if (s != NULL) {
        s->four = malloc((n4 + 1) * sizeof *s->four);
        s->six = malloc((b->n - n4 + 1) * sizeof *s->six);
    }
    if (s == NULL || s->four == NULL || s->six == NULL) {
        nf_addresses_free(s);
        s = NULL;
    } else if (b->n > 0) {
        qsort(b->range, b->n, sizeof *b->range, by_lo);
        for (size_t i = 0; i < b->n; i++) {
            const struct nf_range *r = &b->range[i];
            if (r->family == 4)
                append4(s, number4(r->lo), number4(r->hi));
            else
                append6(s, number6(r->lo), number6(r->hi));
        }
    }
    free(b->range);
    *b = (struct nf_addresses_builder){ 0 };
    if (s == NULL)
        return -ENOMEM;
    *out = s;
    return 0;
}

/* ---- asking ---- */
bool nf_addresses_have(const struct nf_addresses *s, uint8_t family, const uint8_t *addr)
{
    if (s == NULL)
        return false;
    size_t lo = 0, hi = family == 4 ? s->n4 : s->n6;
    if (hi == 0)
        return false;
    if (family == 4) {
        uint32_t a = number4(addr);
        while (hi - lo > 1) { /* the last range that does not begin above it */
            size_t middle = lo + (hi - lo) / 2;
            if (s->four[middle].lo <= a)
                lo = middle;
            else
                hi = middle;
        }
        return s->four[lo].lo <= a && a <= s->four[lo].hi;
    }
    u128 a = number6(addr);
    while (hi - lo > 1) {
        size_t middle = lo + (hi - lo) / 2;
        if (s->six[middle].lo <= a)
            lo = middle;
        else
            hi = middle;
    }
    return s->six[lo].lo <= a && a <= s->six[lo].hi;
}

size_t nf_addresses_count(const struct nf_addresses *s)
{
    return s != NULL ? s->n4 + s->n6 : 0;
}

bool nf_addresses_have_family(const struct nf_addresses *s, uint8_t family)
{
    return s != NULL && (family == 4 ? s->n4 : s->n6) > 0;
}

void nf_addresses_free(struct nf_addresses *s)
{
    if (s == NULL)
        return;
    free(s->four);
    free(s->six);
    free(s);
}
