/* SPDX-License-Identifier: Apache-2.0 */
#include "store/redis_tls.h"
#include <arpa/inet.h>
#include <netstar/task.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>

enum { PIECE = 16 << 10 };

struct redis_tls {
    SSL *ssl;
    BIO *from, *to;     /* what came from the socket; what is to go there */
    size_t ready, gone; /* of out: bytes for the socket, and how many it has taken */
    uint8_t out[2 * PIECE], in[PIECE];
};

/* ---- what all connections share ---- */

static const char *reason(void)
{
    unsigned long e = ERR_peek_last_error();
    const char *text = e != 0 ? ERR_reason_error_string(e) : NULL;

    return text != NULL ? text : "no reason given";
}

struct opening {
    const struct store_url *url;
    SSL_CTX *ctx;
    const char *what;
};

static void make_context(void *arg)
{
    struct opening *o = arg;
    const struct store_url *u = o->url;

    ERR_clear_error();
    o->what = "TLS";
    o->ctx = SSL_CTX_new(TLS_client_method());
    if (o->ctx == NULL)
        return;
    SSL_CTX_set_min_proto_version(o->ctx, TLS1_2_VERSION);
    SSL_CTX_set_mode(o->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(o->ctx, SSL_VERIFY_PEER, NULL);
    o->what = u->ca;
    if (u->ca[0] != 0 ? SSL_CTX_load_verify_locations(o->ctx, u->ca, NULL) != 1
                      : SSL_CTX_set_default_verify_paths(o->ctx) != 1)
        return;
    o->what = u->cert;
    if (u->cert[0] != 0 && SSL_CTX_use_certificate_chain_file(o->ctx, u->cert) != 1)
        return;
    o->what = u->key;
    if (u->key[0] != 0 && SSL_CTX_use_PrivateKey_file(o->ctx, u->key, SSL_FILETYPE_PEM) != 1)
        return;
    o->what = NULL;
}

int redis_tls_open(struct redis_store *s, const char **why)
{
    struct opening o = { .url = &s->url };

    nst_on_core_stack(make_context, &o);
    s->tls = o.ctx;
    if (o.what == NULL)
        return 0;
    return store_url_why(why, "%s cannot be used: %s", o.what, reason());
}

void redis_tls_close(struct redis_store *s)
{
    SSL_CTX_free(s->tls);
    s->tls = NULL;
}

/* ---- a connection ---- */

static bool name_server(SSL *ssl, const char *host)
{
    struct in6_addr a;

    if (inet_pton(AF_INET, host, &a) == 1 || inet_pton(AF_INET6, host, &a) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    return SSL_set_tlsext_host_name(ssl, host) == 1 && SSL_set1_host(ssl, host) == 1;
}

static void begin(void *arg)
{
    struct redis_link *l = arg;
    struct redis_tls *t = l->tls;

    ERR_clear_error();
    t->ssl = SSL_new(l->store->tls);
    t->from = BIO_new(BIO_s_mem());
    t->to = BIO_new(BIO_s_mem());
    if (t->ssl == NULL || t->from == NULL || t->to == NULL || !name_server(t->ssl, l->host)) {
        BIO_free(t->from);
        BIO_free(t->to);
        SSL_free(t->ssl);
        t->ssl = NULL;
        return;
    }
    SSL_set_bio(t->ssl, t->from, t->to);
    SSL_set_connect_state(t->ssl);
}

int redis_tls_start(struct redis_link *l)
{
    l->tls = calloc(1, sizeof *l->tls);
    if (l->tls == NULL)
        return -ENOMEM;
    nst_on_core_stack(begin, l);
    if (l->tls->ssl != NULL)
        return 0;
    free(l->tls);
    l->tls = NULL;
    return -ENOMEM;
}

static void end(void *arg)
{
    SSL_free(arg);
}

void redis_tls_end(struct redis_link *l)
{
    if (l->tls == NULL)
        return;
    nst_on_core_stack(end, l->tls->ssl);
    free(l->tls);
    l->tls = NULL;
}

struct call {
    struct redis_tls *t;
    const void *p;
    void *into;
    size_t len, came;
    int n; /* what OpenSSL returned, and what it means */
    int error;
    long verify;
};

static void after(struct call *c)
{
    c->error = c->n > 0 ? SSL_ERROR_NONE : SSL_get_error(c->t->ssl, c->n);
    c->verify = SSL_get_verify_result(c->t->ssl);
    if (c->t->gone == c->t->ready) {
        int n = BIO_read(c->t->to, c->t->out, sizeof c->t->out);
        c->t->gone = 0;
        c->t->ready = n > 0 ? (size_t)n : 0;
    }
}

static void do_write(void *arg)
{
    struct call *c = arg;

    ERR_clear_error();
    if (c->len != 0 && SSL_is_init_finished(c->t->ssl))
        c->n = SSL_write(c->t->ssl, c->p, (int)(c->len < PIECE ? c->len : PIECE));
    else
        c->n = SSL_do_handshake(c->t->ssl);
    after(c);
}

static void do_read(void *arg)
{
    struct call *c = arg;

    ERR_clear_error();
    if (c->came != 0)
        BIO_write(c->t->from, c->t->in, (int)c->came);
    c->n = SSL_read(c->t->ssl, c->into, (int)(c->len < PIECE ? c->len : PIECE));
    after(c);
}

static int failed(const struct call *c, const char **why)
{
    if (c->verify != X509_V_OK)
        *why = X509_verify_cert_error_string(c->verify);
    else
        *why = reason();
    return -EACCES;
}

/* The bytes for the socket: 0 when it has taken all. */
static int to_socket(struct redis_link *l)
{
    struct redis_tls *t = l->tls;

    while (t->gone < t->ready) {
        ssize_t n = send(l->watch.fd, t->out + t->gone, t->ready - t->gone, MSG_NOSIGNAL);
        l->store->writes++;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        t->gone += (size_t)n;
    }
    return 0;
}

ssize_t redis_tls_send(struct redis_link *l, const void *p, size_t len, const char **why)
{
    struct call c = { .t = l->tls, .p = p, .len = len };
    bool finished = SSL_is_init_finished(l->tls->ssl);
    int rc = to_socket(l);

    if (rc < 0)
        return rc;
    if (len == 0 && finished && BIO_ctrl_pending(l->tls->to) == 0)
        return 0;
    do {
        nst_on_core_stack(do_write, &c);
        if (c.error != SSL_ERROR_NONE && c.error != SSL_ERROR_WANT_READ && c.error != SSL_ERROR_WANT_WRITE) {
            to_socket(l); /* the alert that tells the other side */
            return failed(&c, why);
        }
        rc = to_socket(l);
        /* bytes that were taken are taken, also when the socket is full now */
        if (finished && c.n > 0 && len != 0)
            return c.n;
        if (rc < 0)
            return rc;
        finished = SSL_is_init_finished(l->tls->ssl);
    } while (finished && len != 0); /* the handshake ended with this call: now the bytes */
    return 0;
}

ssize_t redis_tls_receive(struct redis_link *l, void *p, size_t len, int *reads, const char **why)
{
    struct call c = { .t = l->tls, .into = p, .len = len };

    for (;;) {
        ssize_t n;
        nst_on_core_stack(do_read, &c);
        if (c.error == SSL_ERROR_NONE)
            return c.n;
        if (c.error == SSL_ERROR_ZERO_RETURN)
            return 0;
        if (c.error != SSL_ERROR_WANT_READ && c.error != SSL_ERROR_WANT_WRITE) {
            to_socket(l);
            return failed(&c, why);
        }
        if (*reads <= 0)
            return -EAGAIN;
        --*reads;
        n = recv(l->watch.fd, l->tls->in, sizeof l->tls->in, 0);
        if (n <= 0)
            return n < 0 ? -errno : 0;
        c.came = (size_t)n;
    }
}
