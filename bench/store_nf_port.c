/* SPDX-License-Identifier: Apache-2.0 */
#include "store_nf.h"
#include <errno.h>
#include <pcap/pcap.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FRAME_MAX = 1800, IP_AT = 14, SRC_AT = IP_AT + 12, DST_AT = IP_AT + 16 };

/* ---- captures ---- */
static int grow(struct nf_captures *c, size_t len)
{
    if (c->n == c->room) {
        uint32_t room = c->room != 0 ? c->room * 2 : 1024;
        void *at = realloc(c->at, room * sizeof *c->at), *lens, *time, *to;
        c->at = at != NULL ? at : c->at;
        lens = realloc(c->len, room * sizeof *c->len);
        c->len = lens != NULL ? lens : c->len;
        time = realloc(c->time, room * sizeof *c->time);
        c->time = time != NULL ? time : c->time;
        to = realloc(c->to_server, room * sizeof *c->to_server);
        c->to_server = to != NULL ? to : c->to_server;
        if (at == NULL || lens == NULL || time == NULL || to == NULL)
            return -ENOMEM;
        c->room = room;
    }
    if (c->used + len > c->mapped) {
        size_t mapped = c->mapped != 0 ? c->mapped * 2 : 1 << 20;
        uint8_t *bytes = realloc(c->bytes, mapped);
        if (bytes == NULL)
            return -ENOMEM;
        c->bytes = bytes;
        c->mapped = mapped;
    }
    return 0;
}

static bool is_tcp(const uint8_t *p, uint32_t len)
{
    return len >= 54 && len <= FRAME_MAX && p[12] == 8 && p[13] == 0 && (p[IP_AT] & 0xf) == 5 && p[IP_AT + 9] == 6 &&
           (p[IP_AT + 6] & 0x3f) == 0 && p[IP_AT + 7] == 0;
}

int nf_captures_add(struct nf_captures *c, const char *path)
{
    char why[PCAP_ERRBUF_SIZE] = "not Ethernet";
    pcap_t *in = pcap_open_offline_with_tstamp_precision(path, PCAP_TSTAMP_PRECISION_NANO, why);
    struct pcap_pkthdr *h;
    const uint8_t *p;
    nst_time first = -1;
    int rc = 0;

    if (in == NULL || pcap_datalink(in) != DLT_EN10MB) {
        fprintf(stderr, "bench: %s: %s\n", path, why);
        if (in != NULL)
            pcap_close(in);
        return -EINVAL;
    }
    while (rc == 0 && pcap_next_ex(in, &h, &p) == 1) {
        nst_time time = NST_SEC(h->ts.tv_sec) + h->ts.tv_usec;
        first = first < 0 ? time : first;
        if (h->caplen != h->len || !is_tcp(p, h->len))
            continue;
        rc = grow(c, h->len);
        if (rc < 0)
            break;
        c->at[c->n] = (uint32_t)c->used;
        c->len[c->n] = (uint16_t)h->len;
        c->time[c->n] = time - first;
        c->to_server[c->n] = (p[36] << 8 | p[37]) < (p[34] << 8 | p[35]); /* the server's port is the smaller one */
        memcpy(c->bytes + c->used, p, h->len);
        c->used += h->len;
        c->n++;
    }
    pcap_close(in);
    return rc;
}

static const struct nf_captures *sorted;
static nst_time *begins;

static int by_time(const void *a, const void *b)
{
    const struct nf_frame *x = a, *y = b;
    nst_time s = begins[x->copy] + sorted->time[x->frame], t = begins[y->copy] + sorted->time[y->frame];

    if (s != t)
        return s < t ? -1 : 1;
    if (x->copy != y->copy)
        return x->copy < y->copy ? -1 : 1;
    return x->frame < y->frame ? -1 : x->frame > y->frame;
}

int nf_captures_order(struct nf_captures *c, uint64_t packets)
{
    uint64_t copies = c->n != 0 ? packets / c->n + 1 : 0;
    nst_time lasts = 0;

    if (copies == 0 || copies > 65535)
        return -EINVAL;
    c->packets = copies * c->n;
    c->order = calloc(c->packets, sizeof *c->order);
    begins = calloc(copies, sizeof *begins);
    if (c->order == NULL || begins == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < c->n; i++)
        lasts = c->time[i] > lasts ? c->time[i] : lasts;
    srand(1);
    for (uint32_t i = 0; i < copies; i++)
        begins[i] = (nst_time)((double)rand() / RAND_MAX * (double)lasts);
    for (uint64_t i = 0; i < c->packets; i++)
        c->order[i] = (struct nf_frame){ (uint32_t)(i % c->n), (uint32_t)(i / c->n) };
    sorted = c;
    qsort(c->order, c->packets, sizeof *c->order, by_time);
    free(begins);
    return 0;
}

void nf_captures_free(struct nf_captures *c)
{
    free(c->bytes);
    free(c->at);
    free(c->len);
    free(c->time);
    free(c->to_server);
    free(c->order);
}

/* ---- the port ---- */

/* 10.x.x.h of a copy and a pass, h being the last byte that the capture has. */
static void set_address(uint8_t *a, uint32_t copy, unsigned pass)
{
    uint32_t n = copy + 65536 * (pass & 31);

    a[0] = (uint8_t)(10 + (n >> 16));
    a[1] = (uint8_t)(n >> 8);
    a[2] = (uint8_t)n;
}

/* Checksums are not made right: a card is said to have verified them. */
static void fill(struct nf_port *p, struct rte_mbuf *m, const struct nf_frame *f, nst_time due)
{
    const struct nf_captures *c = p->captures;
    uint8_t *to = (uint8_t *)m->buf_addr + RTE_PKTMBUF_HEADROOM;
    uint16_t len = c->len[f->frame];

    memcpy(m->buf_addr, &due, sizeof due); /* the head of the head room is nobody's */
    memcpy(to, c->bytes + c->at[f->frame], len);
    set_address(to + SRC_AT, f->copy, p->pass);
    set_address(to + DST_AT, f->copy, p->pass);
    m->data_off = RTE_PKTMBUF_HEADROOM;
    m->data_len = len;
    m->pkt_len = len;
}

static bool opens_or_closes(const uint8_t *frame)
{
    return frame[IP_AT + 33] & (RTE_TCP_SYN_FLAG | RTE_TCP_FIN_FLAG | RTE_TCP_RST_FLAG);
}

static unsigned port_receive(struct nst_port *port, struct rte_mbuf **m, unsigned n)
{
    struct nf_port *p = (struct nf_port *)port;
    const struct nf_captures *c = p->captures;
    nst_time now = nst_clock();
    unsigned got = 0;

    if (p->done == NULL)
        return 0;
    if (p->given == 0 && p->begin == 0)
        p->begin = now;
    while (got < n && p->next < c->packets && p->given - p->left < p->window) {
        const struct nf_frame *f = &c->order[p->next];
        nst_time due = p->begin + (nst_time)p->given * p->interval;
        if (p->interval != 0 && due > now)
            break;
        p->next++;
        if (p->only_to_server && (!c->to_server[f->frame] || opens_or_closes(c->bytes + c->at[f->frame])))
            continue;
        m[got] = rte_pktmbuf_alloc(p->pool);
        if (m[got] == NULL) {
            p->next--;
            break;
        }
        fill(p, m[got], f, p->interval != 0 ? due : now);
        port_stamp(port, m[got], nst_now());
        p->given++;
        got++;
    }
    return got;
}

static void port_send(struct nst_port *port, struct rte_mbuf **m, unsigned n)
{
    struct nf_port *p = (struct nf_port *)port;
    nst_time now = nst_clock();

    for (unsigned i = 0; i < n && p->latency != NULL; i++) {
        nst_time due;
        memcpy(&due, m[i]->buf_addr, sizeof due);
        nst_histogram_record(p->latency, now > due ? (uint64_t)(now - due) : 0);
    }
    rte_pktmbuf_free_bulk(m, n);
    p->left += n;
    if (p->done != NULL && p->next == p->captures->packets && p->left == p->given) {
        struct nst_future *done = p->done;
        p->done = NULL;
        p->end = now;
        nst_fulfil(done, 0);
    }
}

static int port_end(struct nst_port *port)
{
    return 0;
}

void nf_port_init(struct nf_port *p, const struct nf_captures *c, struct rte_mempool *pool)
{
    static const struct port_ops ops = { .driver = "captures", .rx = port_receive, .tx = port_send, .close = port_end };

    *p = (struct nf_port){ .port = { .ops = &ops, .checksums_trusted = true, .name = "captures" },
                           .captures = c,
                           .pool = pool,
                           .window = 1024 };
}

static void give_up(struct nst_future *f)
{
    struct nf_port *p = f->op;

    p->done = NULL;
    nst_fulfil(f, -ECANCELED);
}

int nf_port_pass(struct nf_port *p, unsigned pass, struct nst_histogram *latency, nst_time interval)
{
    struct nst_future f;

    nst_future_init(&f);
    f.stop = give_up;
    f.op = p;
    p->pass = pass;
    p->next = p->given = p->left = 0;
    p->begin = p->end = 0;
    p->latency = latency;
    p->interval = interval;
    p->done = &f;
    return nst_await(&f, nst_clock() + NST_SEC(60));
}
