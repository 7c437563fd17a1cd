/* SPDX-License-Identifier: Apache-2.0 */
#include "services.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { TCP = 6, UDP = 17 };

struct reader {
    struct lb_services *s;
    struct nf_text text;
    unsigned n_errors;
    size_t room, backend_room;
};

/* ---- values ---- */
static bool is_name(const struct nf_word *w)
{
    for (size_t i = 0; i < w->len; i++) {
        char c = w->p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
              c == '.'))
            return false;
    }
    return !w->quoted && w->len > 0 && w->len <= LB_NAME_MAX;
}

/* "10.0.0.1:80", "[fd00::1]:80"; without a port only where it need not be. */
static bool read_place(const struct nf_word *w, bool needs_port, struct lb_place *out)
{
    char text[INET6_ADDRSTRLEN];
    const char *colon, *addr = w->p, *end = w->p + w->len;
    uint64_t port = 0;
    size_t len;

    *out = (struct lb_place){ 0 };
    if (w->quoted || w->len == 0)
        return false;
    if (*w->p == '[') {
        const char *close = memchr(w->p, ']', w->len);
        if (close == NULL)
            return false;
        addr++;
        len = (size_t)(close - addr);
        colon = close + 1 < end ? close + 1 : NULL;
        if (colon != NULL && *colon != ':')
            return false;
    } else {
        colon = memchr(w->p, ':', w->len);
        len = (size_t)((colon != NULL ? colon : end) - addr);
    }
    if (len == 0 || len >= sizeof text || (colon == NULL && needs_port))
        return false;
    memcpy(text, addr, len);
    text[len] = '\0';
    out->family = *w->p == '[' ? 6 : 4;
    if (inet_pton(out->family == 4 ? AF_INET : AF_INET6, text, out->addr) != 1)
        return false;
    if (colon != NULL) {
        struct nf_word number = { colon + 1, (size_t)(end - colon - 1), false };
        if (!nf_word_number(&number, 1, UINT16_MAX, &port))
            return false;
    }
    out->port[0] = (uint8_t)(port >> 8);
    out->port[1] = (uint8_t)port;
    return true;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_mac(const struct nf_word *w, uint8_t mac[6])
{
    if (w->quoted || w->len != 17)
        return false;
    for (unsigned i = 0; i < 6; i++) {
        int high = hex(w->p[i * 3]), low = hex(w->p[i * 3 + 1]);
        if (high < 0 || low < 0 || (i < 5 && w->p[i * 3 + 2] != ':'))
            return false;
        mac[i] = (uint8_t)(high << 4 | low);
    }
    return (mac[0] & 1) == 0; /* one receiver */
}

static bool printable(const struct nf_word *w)
{
    for (size_t i = 0; i < w->len; i++)
        if (w->p[i] <= ' ' || w->p[i] > '~')
            return false;
    return true;
}

static int wants(struct reader *r, struct nf_word *w, const char *expected)
{
    *w = (struct nf_word){ 0 };
    return nf_text_word(&r->text, w) ? 0 : nf_text_expected(&r->text, NULL, expected, NULL);
}

static int read_number(struct reader *r, const char *expected, uint64_t least, uint64_t most, unsigned *out)
{
    struct nf_word w;
    uint64_t n;

    if (wants(r, &w, expected) < 0)
        return -EINVAL;
    if (!nf_word_number(&w, least, most, &n))
        return nf_text_expected(&r->text, &w, expected, NULL);
    *out = (unsigned)n;
    return 0;
}

static int read_time(struct reader *r, const char *expected, int64_t least, int64_t *out)
{
    struct nf_word w;

    if (wants(r, &w, expected) < 0)
        return -EINVAL;
    if (!nf_word_time(&w, out) || *out < least)
        return nf_text_expected(&r->text, &w, expected, NULL);
    return 0;
}

/* ---- what stands in a service ---- */
static int read_check(struct reader *r, struct lb_service *v)
{
    static const char *const kinds[] = { "none", "tcp", "http", NULL };
    static const char *const parts[] = { "every", "timeout", "rise", "fall", "host", NULL };
    struct nf_word w;
    int which, rc = 0;

    if (wants(r, &w, "none, tcp or http") < 0)
        return -EINVAL;
    if ((which = nf_word_index(&w, kinds)) < 0)
        return nf_text_expected(&r->text, &w, "none, tcp or http", kinds);
    v->check = (enum lb_check)which;
    if (v->check == LB_CHECK_HTTP) {
        static const char expected[] = "the path to ask for, in double quotes, as \"/health\"";
        if (wants(r, &w, expected) < 0)
            return -EINVAL;
        if (!w.quoted || w.len == 0 || w.p[0] != '/' || w.len > LB_PATH_MAX || !printable(&w))
            return nf_text_expected(&r->text, &w, expected, NULL);
        memcpy(v->path, w.p, w.len);
        v->path[w.len] = '\0';
    }
    while (rc == 0 && nf_text_word(&r->text, &w)) {
        which = nf_word_index(&w, parts);
        if (which < 0 || (which == 4 && v->check != LB_CHECK_HTTP))
            return nf_text_expected(&r->text, &w, "every, timeout, rise, fall, or, with http, host", parts);
        if (which == 0)
            rc = read_time(r, "a time such as 2s, at least 50ms", 50000000, &v->every);
        else if (which == 1)
            rc = read_time(r, "a time such as 500ms, at least 10ms", 10000000, &v->timeout);
        else if (which < 4)
            rc = read_number(r, "a number from 1 to 100", 1, 100, which == 2 ? &v->rise : &v->fall);
        else if ((rc = wants(r, &w, "the name for the Host header")) == 0) {
            if (!is_name(&w))
                return nf_text_expected(&r->text, &w, "the name for the Host header", NULL);
            memcpy(v->host, w.p, w.len);
            v->host[w.len] = '\0';
        }
    }
    return rc;
}

static int read_backend(struct reader *r, struct lb_service *v)
{
    static const char *const parts[] = { "weight", "mac", "drain", "check-port", NULL };
    struct lb_services *s = r->s;
    struct lb_backend b = { .weight = 1, .line = r->text.line, .service = (unsigned)s->n };
    struct nf_word w;
    int rc = 0;

    if (wants(r, &w, "the name of the back end") < 0)
        return -EINVAL;
    if (!is_name(&w))
        return nf_text_expected(&r->text, &w, "a name of letters, digits and - _ .", NULL);
    memcpy(b.name, w.p, w.len);
    for (size_t i = v->first; i < s->n_backends; i++)
        if (strcmp(s->backend[i].name, b.name) == 0)
            return nf_text_expected(&r->text, &w, "a name that no back end of this service above has", NULL);
    static const char expected[] = "an address and a port, as 10.0.0.1:80 or [fd00::1]:80, of the service's family";
    if (wants(r, &w, expected) < 0)
        return -EINVAL;
    if (!read_place(&w, false, &b.place) || (v->vip.family != 0 && b.place.family != v->vip.family))
        return nf_text_expected(&r->text, &w, expected, NULL);
    if (b.place.port[0] == 0 && b.place.port[1] == 0) /* the service's */
        memcpy(b.place.port, v->vip.port, sizeof b.place.port);
    for (size_t i = v->first; i < s->n_backends; i++)
        if (memcmp(&s->backend[i].place, &b.place, sizeof b.place) == 0)
            return nf_text_expected(&r->text, &w, "an address that no back end of this service above has", NULL);
    while (rc == 0 && nf_text_word(&r->text, &w)) {
        unsigned port = 0;
        switch (nf_word_index(&w, parts)) {
        case 0:
            rc = read_number(r, "a weight from 0 to 256", 0, LB_WEIGHT_MAX, &b.weight);
            break;
        case 1:
            if (wants(r, &w, "an Ethernet address, as 02:00:00:00:00:01") < 0)
                return -EINVAL;
            if (!read_mac(&w, b.mac))
                return nf_text_expected(&r->text, &w, "an Ethernet address, as 02:00:00:00:00:01", NULL);
            b.has_mac = true;
            break;
        case 2:
            b.drains = true;
            break;
        case 3:
            rc = read_number(r, "a port from 1 to 65535", 1, UINT16_MAX, &port);
            b.check_port = (uint16_t)port;
            break;
        default:
            return nf_text_expected(&r->text, &w, "weight, mac, drain or check-port", parts);
        }
    }
    if (rc < 0)
        return rc;
    if (s->n_backends == LB_BACKENDS_MAX)
        return nf_text_fail(&r->text, r->text.begin, "expected at most %d back ends in all", LB_BACKENDS_MAX);
    if (s->n_backends == r->backend_room) {
        size_t room = r->backend_room != 0 ? r->backend_room * 2 : 16;
        struct lb_backend *more = realloc(s->backend, room * sizeof *more);
        if (more == NULL)
            return -ENOMEM;
        s->backend = more;
        r->backend_room = room;
    }
    s->backend[s->n_backends++] = b;
    v->n++;
    return 0;
}

static int read_setting(struct reader *r, struct lb_service *v, const struct nf_word *first)
{
    static const char *const settings[] = { "mode", "check", "drain", "backend", NULL };
    static const char *const modes[] = { "nat", "dsr", NULL };
    struct nf_word w;
    int which;

    switch (nf_word_index(first, settings)) {
    case 0:
        if (wants(r, &w, "nat or dsr") < 0)
            return -EINVAL;
        if ((which = nf_word_index(&w, modes)) < 0)
            return nf_text_expected(&r->text, &w, "nat or dsr", modes);
        v->mode = (enum lb_mode)which;
        return 0;
    case 1:
        return read_check(r, v);
    case 2:
        return read_time(r, "a time such as 5m, or 0", 0, &v->drain);
    case 3:
        return read_backend(r, v);
    default:
        return nf_text_expected(&r->text, first, "mode, check, drain, backend or }", settings);
    }
}

/* What can only be said when the whole service is there. */
static int check_service(struct reader *r, const struct lb_service *v)
{
    for (size_t i = v->first; i < v->first + v->n; i++) {
        const struct lb_backend *b = &r->s->backend[i];
        if (v->mode == LB_DSR && !b->has_mac)
            return nf_text_fail(&r->text, r->text.begin, "expected a mac of %s: mode dsr sends to it by that", b->name);
        if (v->mode == LB_DSR && memcmp(b->place.port, v->vip.port, sizeof b->place.port) != 0)
            return nf_text_fail(&r->text, r->text.begin, "expected the service's port at %s: mode dsr changes none",
                                b->name);
    }
    return 0;
}

static int read_body(struct reader *r, struct lb_service *v)
{
    uint32_t line = r->text.line;
    struct nf_word w;
    int rc = 0;

    while (nf_text_line(&r->text)) {
        if (!nf_text_word(&r->text, &w))
            continue;
        if (nf_word_is(&w, "}")) {
            int last = nf_text_end(&r->text);
            return rc < 0 ? rc : last < 0 ? last : check_service(r, v);
        }
        int one = read_setting(r, v, &w);
        if (one == 0)
            one = nf_text_end(&r->text);
        if (one == -ENOMEM)
            return one;
        rc = one < 0 ? one : rc;
    }
    return nf_text_fail(&r->text, r->text.at, "expected a } for the service that begins in line %u", line);
}

static int read_head(struct reader *r, struct lb_service *v)
{
    static const char *const protos[] = { "tcp", "udp", NULL };
    struct nf_word w;
    int which;

    if (wants(r, &w, "the name of the service") < 0)
        return -EINVAL;
    if (!is_name(&w))
        return nf_text_expected(&r->text, &w, "a name of letters, digits and - _ .", NULL);
    memcpy(v->name, w.p, w.len);
    for (size_t i = 0; i < r->s->n; i++)
        if (strcmp(r->s->service[i]->name, v->name) == 0)
            return nf_text_expected(&r->text, &w, "a name that no service above has", NULL);
    if (wants(r, &w, "tcp or udp") < 0)
        return -EINVAL;
    if ((which = nf_word_index(&w, protos)) < 0)
        return nf_text_expected(&r->text, &w, "tcp or udp", protos);
    v->proto = which == 0 ? TCP : UDP;
    static const char expected[] = "the service's address and port, as 10.0.0.1:80 or [fd00::1]:80";
    if (wants(r, &w, expected) < 0)
        return -EINVAL;
    if (!read_place(&w, true, &v->vip))
        return nf_text_expected(&r->text, &w, expected, NULL);
    if (lb_service_at(r->s, v->proto, &v->vip) != NULL)
        return nf_text_expected(&r->text, &w, "an address and a port that no service above has", NULL);
    if (wants(r, &w, "{") < 0)
        return -EINVAL;
    if (!nf_word_is(&w, "{"))
        return nf_text_expected(&r->text, &w, "{", NULL);
    return nf_text_end(&r->text);
}

static int fill_table(struct reader *r, struct lb_service *v)
{
    struct lb_share *share = calloc(v->n + 1, sizeof *share);

    if (share == NULL)
        return -ENOMEM;
    v->weights = 0;
    for (size_t i = 0; i < v->n; i++) {
        const struct lb_backend *b = &r->s->backend[v->first + i];
        share[i] = (struct lb_share){ b->name, b->drains ? 0 : b->weight };
        v->weights += share[i].weight;
    }
    v->any = lb_maglev_fill(&v->table, share, v->n);
    free(share);
    return 0;
}

static int read_service(struct reader *r)
{
    struct lb_services *s = r->s;
    const char *begin = r->text.begin;
    struct lb_service *v = calloc(1, sizeof *v);

    if (v == NULL)
        return -ENOMEM;
    v->first = s->n_backends;
    v->line = r->text.line;
    v->every = 2000000000;
    v->timeout = 1000000000;
    v->rise = 2;
    v->fall = 3;
    int rc =
        s->n == LB_SERVICES_MAX ? nf_text_fail(&r->text, begin, "expected at most %d services", LB_SERVICES_MAX) : 0;
    int head = read_head(r, v), body = head == -ENOMEM ? head : read_body(r, v);
    rc = rc < 0 ? rc : head < 0 ? head : body;
    if (rc == 0)
        rc = fill_table(r, v);
    if (rc == 0 && s->n == r->room) {
        size_t room = r->room != 0 ? r->room * 2 : 8;
        struct lb_service **more = realloc(s->service, room * sizeof(struct lb_service *));
        if (more == NULL) {
            rc = -ENOMEM;
        } else {
            s->service = more;
            r->room = room;
        }
    }
    if (rc < 0) {
        s->n_backends = v->first;
        free(v);
        return rc;
    }
    s->service[s->n++] = v;
    return 0;
}

/* ---- who is where ---- */
static _Thread_local const struct lb_services *sorted; /* by this thread, now */

static int compare_place(uint8_t proto, const struct lb_place *p, const struct lb_services *s, size_t at)
{
    const struct lb_backend *b = &s->backend[at];
    uint8_t other = s->service[b->service]->proto;

    return proto != other ? proto - other : memcmp(p, &b->place, sizeof *p);
}

static int by_place(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    const struct lb_backend *p = &sorted->backend[x];
    int d = compare_place(sorted->service[p->service]->proto, &p->place, sorted, y);

    return d != 0 ? d : (x > y) - (x < y);
}

static int sort_places(struct lb_services *s)
{
    s->by_place = calloc(s->n_backends + 1, sizeof *s->by_place);
    if (s->by_place == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < s->n_backends; i++)
        if (s->service[s->backend[i].service]->mode == LB_NAT)
            s->by_place[s->n_by_place++] = i;
    sorted = s;
    qsort(s->by_place, s->n_by_place, sizeof *s->by_place, by_place);
    return 0;
}

const struct lb_backend *lb_backend_at(const struct lb_services *s, uint8_t proto, const struct lb_place *place)
{
    size_t lo = 0, hi = s->n_by_place;

    while (lo < hi) {
        size_t middle = lo + (hi - lo) / 2;
        int d = compare_place(proto, place, s, s->by_place[middle]);
        if (d == 0)
            return &s->backend[s->by_place[middle]];
        if (d < 0)
            hi = middle;
        else
            lo = middle + 1;
    }
    return NULL;
}

const struct lb_service *lb_service_at(const struct lb_services *s, uint8_t proto, const struct lb_place *place)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->service[i]->proto == proto && memcmp(&s->service[i]->vip, place, sizeof *place) == 0)
            return s->service[i];
    return NULL;
}

const struct lb_backend *lb_backend_of(const struct lb_services *s, const struct lb_service *v,
                                       const struct lb_place *place)
{
    for (size_t i = v->first; i < v->first + v->n; i++)
        if (memcmp(&s->backend[i].place, place, sizeof *place) == 0)
            return &s->backend[i];
    return NULL;
}

void lb_services_number(struct lb_services *s, const struct lb_services *before)
{
    s->next_id = before != NULL ? before->next_id : 0;
    for (size_t i = 0; i < s->n_backends; i++) {
        struct lb_backend *b = &s->backend[i];
        const struct lb_service *v = s->service[b->service];
        const struct lb_service *was = before != NULL ? lb_service_at(before, v->proto, &v->vip) : NULL;
        const struct lb_backend *same = was != NULL ? lb_backend_of(before, was, &b->place) : NULL;
        b->id = same != NULL ? same->id : s->next_id++;
    }
}

/* ---- the file ---- */
int lb_services_parse(struct lb_services **out, const char *name, const char *text, size_t len, FILE *errors)
{
    static const char *const begins[] = { "service", NULL };
    struct reader r = { .s = calloc(1, sizeof *r.s) };
    struct nf_word w;
    int rc = r.s != NULL ? 0 : -ENOMEM;

    nf_text_open(&r.text, name, text, len, errors, &r.n_errors);
    while (rc != -ENOMEM && nf_text_line(&r.text)) {
        if (!nf_text_word(&r.text, &w))
            continue;
        rc = nf_word_is(&w, "service") ? read_service(&r) : nf_text_expected(&r.text, &w, "service", begins);
    }
    if (rc != -ENOMEM)
        rc = r.n_errors > 0 ? -EINVAL : sort_places(r.s);
    if (r.n_errors > NF_ERRORS_MAX)
        fprintf(errors, "%s: and %u more errors\n", name, r.n_errors - NF_ERRORS_MAX);
    if (rc < 0) {
        lb_services_free(r.s);
        return rc;
    }
    lb_services_number(r.s, NULL);
    *out = r.s;
    return 0;
}

int lb_services_read(struct lb_services **out, const char *path, FILE *errors)
{
    char *text = NULL;
    size_t len = 0;
    int rc = nf_file_read(path, LB_FILE_MAX, &text, &len);

    if (rc < 0) {
        fprintf(errors, "%s: %s\n", path, strerror(-rc));
        return rc;
    }
    rc = lb_services_parse(out, path, text, len, errors);
    free(text);
    return rc;
}

void lb_services_free(struct lb_services *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n; i++)
        free(s->service[i]);
    free(s->service);
    free(s->backend);
    free(s->by_place);
    free(s);
}
