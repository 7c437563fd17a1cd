/* SPDX-License-Identifier: Apache-2.0 */
/* Rewrites what passes: in TCP streams of given ports one word becomes another, of any length, in both directions and
 * however the stream is cut into segments; with --dns, a name in DNS over UDP becomes another of the same length.
 *
 *   netstar run ./rewrite.so --ports eth1,eth2 --word harbour --with port --tcp 80,8080
 *
 * A segment may end in the middle of the word. What could be its beginning is taken out of the stream, and put back or
 * replaced with the bytes that come next; or put back after a while when none come, since the other end may wait for
 * it. The sender learns that it arrived as soon as all before it has.
 */
#include <netstar/netstar.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_MAX = 64, TCP_PORTS_MAX = 32, PATIENCE_MS = 20, TCP_FIN = 1 };

struct rewrite {
    struct nst_nf nf;
    char word[WORD_MAX], with[WORD_MAX];
    size_t len, with_len;
    uint8_t back[WORD_MAX + 1]; /* after so many bytes have matched and the next does not: how many still match */
    uint16_t tcp[TCP_PORTS_MAX];
    unsigned n_tcp;
    uint64_t replaced, held, released;
};

struct waiting { /* for each direction */
    struct nst_timer timer;
    struct nst_flow *flow;
    enum nst_side side;
    uint8_t n; /* the first so many bytes of the word, not yet passed on */
};

struct per_flow {
    struct waiting in[2];
};

/* One byte more (Knuth, Morris and Pratt). */
static uint8_t next(const struct rewrite *r, uint8_t matched, char byte)
{
    while (matched > 0 && (matched == r->len || r->word[matched] != byte))
        matched = r->back[matched];
    return matched + (r->word[matched] == byte);
}

/* ---- what waits for the bytes that follow ---- */
static int put_back(struct rewrite *r, struct waiting *w)
{
    int rc = w->n > 0 ? nst_flow_inject(w->flow, w->side, r->word, w->n) : 0;

    if (rc == 0) {
        r->released += w->n > 0;
        w->n = 0;
    }
    return rc;
}

static void patience_ends(struct nst_timer *t)
{
    struct waiting *w = (struct waiting *)((char *)t - offsetof(struct waiting, timer));

    if (put_back(nst_nf_arg(w->flow), w) < 0) /* no room: once more */
        nst_timer_arm(t, nst_now() + NST_MS(PATIENCE_MS), patience_ends);
}

static void wait_for_more(struct rewrite *r, struct waiting *w, struct nst_flow *f, enum nst_side side, uint8_t n)
{
    nst_timer_disarm(&w->timer);
    w->flow = f;
    w->side = side;
    w->n = n;
    if (n > 0) {
        r->held++;
        nst_timer_arm(&w->timer, nst_now() + NST_MS(PATIENCE_MS), patience_ends);
    }
}

/* ---- streams ---- */
/* Puts `text` in place of `remove` bytes at `at`; with what waited, which stands before all, in front. */
static int replace(struct nst_flow *f, enum nst_side side, struct waiting *w, size_t *left, uint64_t at, uint64_t from,
                   size_t remove, const char *text, size_t len, const struct rewrite *r)
{
    char both[2 * WORD_MAX];

    if (*left == 0)
        return remove + len != 0 ? nst_flow_replace(f, side, at, remove, text, len) : 0;
    if (at != from) { /* nothing of it belongs here */
        int rc = nst_flow_replace(f, side, from, 0, r->word, *left);
        *left = 0;
        return rc < 0 || remove + len == 0 ? rc : nst_flow_replace(f, side, at, remove, text, len);
    }
    memcpy(both, r->word, *left);
    if (len != 0)
        memcpy(both + *left, text, len);
    int rc = nst_flow_replace(f, side, at, remove, both, *left + len);
    *left = 0;
    return rc;
}

static int rewrite_stream(struct rewrite *r, struct nst_flow *f, enum nst_side side, struct waiting *w)
{
    uint64_t from = nst_tcp_offset(f, side), at = from;
    uint8_t matched = w->n;
    size_t left = w->n; /* of what waited, what is to come before the bytes at hand */
    struct nst_slice piece;
    unsigned found = 0;
    int rc = 0;

    while (rc == 0 && nst_flow_bytes(f, side, &piece)) {
        for (size_t i = 0; rc == 0 && i < piece.len; i++, at++) {
            matched = next(r, matched, ((const char *)piece.p)[i]);
            if (matched != r->len)
                continue;
            size_t here = at + 1 - from < r->len ? (size_t)(at + 1 - from) : r->len; /* bytes of it that are at hand */
            if (left > r->len - here)
                left -= r->len - here; /* the rest of what waited is not the word's */
            else
                left = 0;
            rc = replace(f, side, w, &left, at + 1 - here, from, here, r->with, r->with_len, r);
            matched = 0;
            found++;
        }
    }
    if (rc < 0)
        return rc;
    if (nst_flow_ends(f, side)) /* nothing will come any more */
        matched = 0;
    size_t here = at - from < matched ? (size_t)(at - from) : matched;
    size_t kept = matched - here; /* that waited already, and goes on waiting */
    left = left > kept ? left - kept : 0;
    rc = replace(f, side, w, &left, at - here, from, here, NULL, 0, r);
    if (rc < 0)
        return rc;
    r->replaced += found;
    wait_for_more(r, w, f, side, matched);
    return 0;
}

static bool is_wanted(const struct rewrite *r, const struct nst_flow *f)
{
    struct nst_endpoint server;

    nst_flow_endpoint(f, NST_SERVER, &server);
    for (unsigned i = 0; i < r->n_tcp; i++) {
        if (r->tcp[i] == server.port)
            return true;
    }
    return r->n_tcp == 0;
}

static enum nst_verdict on_stream(struct nst_flow *f, const struct nst_event *ev)
{
    struct rewrite *r = nst_nf_arg(f);
    struct per_flow *flow = nst_flow_state(f);
    struct waiting *w = &flow->in[ev->side];

    if (ev->what & NST_EV_CLOSE) {
        nst_timer_disarm(&w->timer);
        return NST_FORWARD;
    }
    if (!is_wanted(r, f))
        return NST_FORWARD_FLOW;
    int rc = 0;
    if (ev->what & NST_EV_DATA)
        rc = rewrite_stream(r, f, ev->side, w);
    else if (w->n > 0 && nst_flow_ends(f, ev->side)) /* a FIN on its own */
        rc = put_back(r, w);
    return rc == 0 ? NST_FORWARD : nst_fail(f, rc);
}

/* ---- DNS ---- */
/* The labels of --word and --with as they stand in a message. */
static size_t labels(const char *name, uint8_t *out)
{
    size_t n = 0;

    while (*name != '\0') {
        size_t len = strcspn(name, ".");
        if (len == 0 || len > 63)
            return 0;
        out[n++] = (uint8_t)len;
        memcpy(out + n, name, len);
        n += len;
        name += len + (name[len] == '.');
    }
    out[n++] = 0;
    return n;
}

static enum nst_verdict on_datagram(struct nst_flow *f, const struct nst_event *ev)
{
    enum { HEADER = 12 };
    struct rewrite *r = nst_nf_arg(f);
    uint8_t is[WORD_MAX + 2], becomes[WORD_MAX + 2];
    size_t n = labels(r->word, is), at = HEADER;
    struct nst_slice piece;

    labels(r->with, becomes);
    if (!nst_flow_bytes(f, ev->side, &piece))
        return NST_FORWARD;
    while (piece.len >= n && at <= piece.len - n) {
        if (memcmp((const uint8_t *)piece.p + at, is, n) != 0) {
            at++;
            continue;
        }
        int rc = nst_flow_replace(f, ev->side, at, n, becomes, n);
        if (rc < 0)
            return nst_fail(f, rc);
        r->replaced++;
        at += n;
        if (!nst_flow_bytes(f, ev->side, &piece))
            break;
    }
    return NST_FORWARD;
}

/* ---- the module ---- */
static int read_tcp(struct rewrite *r, const char *list)
{
    for (char *end; list != NULL && *list != '\0'; list = end + (*end == ',')) {
        unsigned long port = strtoul(list, &end, 10);
        if (end == list || (*end != '\0' && *end != ',') || port == 0 || port > 65535 || r->n_tcp == TCP_PORTS_MAX)
            return -EINVAL;
        r->tcp[r->n_tcp++] = (uint16_t)port;
    }
    return 0;
}

static int read_words(struct rewrite *r, const struct nst_module_env *env, bool dns, const char **why)
{
    const char *word = env->option(env, "word"), *with = env->option(env, "with");
    uint8_t scratch[WORD_MAX + 2];

    if (strlen(word) == 0 || strlen(word) >= WORD_MAX || strlen(with) >= WORD_MAX) {
        *why = "--word: expected 1 to 63 bytes; --with: up to 63";
        return -EINVAL;
    }
    if (dns && (strlen(word) != strlen(with) || labels(word, scratch) == 0 || labels(with, scratch) == 0)) {
        *why = "--dns: expected two names of the same length for --word and --with";
        return -EINVAL;
    }
    if (read_tcp(r, env->option(env, "tcp")) < 0) {
        *why = "--tcp: expected up to 32 port numbers, separated by commas";
        return -EINVAL;
    }
    r->len = strlen(word);
    r->with_len = strlen(with);
    memcpy(r->word, word, r->len);
    memcpy(r->with, with, r->with_len);
    for (size_t i = 1; i < r->len; i++)
        r->back[i + 1] = next(r, r->back[i], word[i]);
    return 0;
}

static int rewrite_open(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    bool dns = env->option(env, "dns") != NULL;
    enum nst_verdict failing = env->fail_open ? NST_FORWARD : NST_DROP;
    struct rewrite *r = calloc(1, sizeof *r);

    if (r == NULL)
        return -ENOMEM;
    int rc = read_words(r, env, dns, why);
    if (rc < 0) {
        free(r);
        return rc;
    }
    r->nf.name = "rewrite";
    r->nf.flow_size = sizeof(struct per_flow);
    r->nf.policy = (struct nst_policy){
        .otherwise = failing, .on_no_memory = failing, .on_midstream = NST_FORWARD, /* from there on */
    };
    for (unsigned side = 0; side < 2; side++)
        r->nf.half[side] = (struct nst_half){
            .inspect = dns ? &nst_udp : &nst_tcp,
            .on_received = dns ? NST_EV_DATA : NST_EV_DATA | NST_EV_PACKET | NST_EV_CLOSE,
            .handler = dns ? on_datagram : on_stream,
            .edits = true,
        };
    *nf = &r->nf;
    *arg = r;
    return 0;
}

static void rewrite_close(void *arg)
{
    free(arg);
}

static void rewrite_report(void *arg, FILE *out)
{
    const struct rewrite *r = arg;

    fprintf(out, "  replaced             %llu\n", (unsigned long long)r->replaced);
    fprintf(out, "  beginnings held      %llu\n", (unsigned long long)r->held);
    fprintf(out, "  beginnings let go    %llu\n", (unsigned long long)r->released);
}

static const struct nst_option options[] = {
    { "word", "TEXT", "what is replaced", true },
    { "with", "TEXT", "by what", true },
    { "tcp", "PORTS", "in the connections to these ports only (all)", false },
    { "dns", NULL, "names in DNS over UDP instead, of the same length", false },
    { NULL, NULL, NULL, false },
};

NST_API const struct nst_module nst_module = {
    .abi = NST_MODULE_ABI,
    .name = "rewrite",
    .summary = "replaces a word in TCP streams, or a name in DNS",
    .options = options,
    .open = rewrite_open,
    .close = rewrite_close,
    .report = rewrite_report,
};
