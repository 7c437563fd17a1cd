/* SPDX-License-Identifier: Apache-2.0 */
/* The generic ring orders its loads and stores with fences alone; this one says what it means in C11's words, which
 * costs the same and is understood by ThreadSanitizer. The layout is the same. */
#ifndef RTE_USE_C11_MEM_MODEL
#define RTE_USE_C11_MEM_MODEL 1
#endif
#include <rte_ring.h>

#include "io/handoff.h"
#include "runtime/runtime.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RELAY_BURSTS = 4 }; /* of one ring in one turn */

/* What stands in for a port on a core that does not own it. */
struct stand_in {
    struct nst_port port;
    struct port_ops ops; /* with the port's driver */
    struct handoff *h;
    struct nst_port *real;
    struct rte_ring *ring;
    unsigned owner;
    struct stand_in *next; /* among those that the owner sends for */
    struct nst_port_stats n;
};

/* What core 0 reads a capture by. */
struct reader {
    struct nst_port port;
    struct port_ops ops;
    struct handoff *h;
    struct nst_port *real;
    struct reader *next;
};

struct inbox {
    struct nst_port port;
    struct nst_poller relay;
    struct handoff *h;
    struct rte_ring *from[CORES_MAX]; /* NULL: itself */
    unsigned next;                    /* the ring to be asked first */
    unsigned taken;                   /* in a replay: since this core was quiet */
    struct stand_in *served;          /* whose packets this core sends */
    struct nst_port_stats n;
    _Atomic(struct nst_reactor *) reactor __attribute__((aligned(64))); /* NULL: there is none to wake */
};

struct handoff {
    unsigned cores;
    bool replay;
    struct inbox *inbox[CORES_MAX];
    /* Of core 0 in a replay. */
    struct reader *readers;
    unsigned left; /* packets that may still be read in this round */
    /* Of all cores in a replay. */
    atomic_uint outstanding __attribute__((aligned(64))); /* packets that were given and not yet met their end */
    atomic_bool over;                                     /* the input has ended, and all is done */
};

/* ---- rings and bells ---- */
static struct rte_ring *ring_open(const struct handoff *h, const char *name)
{
    unsigned slots = h->replay ? HANDOFF_RING_REPLAY : HANDOFF_RING;
    ssize_t size = rte_ring_get_memsize(slots);
    struct rte_ring *r = size > 0 ? aligned_alloc(64, ((size_t)size + 63) & ~(size_t)63) : NULL;

    if (r != NULL && rte_ring_init(r, name, slots, RING_F_SP_ENQ | RING_F_SC_DEQ) != 0) {
        free(r);
        return NULL;
    }
    return r;
}

static unsigned ring_close(struct rte_ring *r)
{
    struct rte_mbuf *m;
    unsigned n = 0;

    for (; r != NULL && rte_ring_sc_dequeue(r, (void **)&m) == 0; n++)
        rte_pktmbuf_free(m);
    free(r);
    return n;
}

static void ring_bell(struct handoff *h, unsigned core)
{
    struct nst_reactor *r = atomic_load_explicit(&h->inbox[core]->reactor, memory_order_acquire);

    if (r != NULL)
        nst_reactor_ring(r);
}

unsigned handoff_give(struct handoff *h, unsigned from, unsigned to, struct rte_mbuf **m, unsigned n)
{
    if (h->replay)
        atomic_fetch_add_explicit(&h->outstanding, n, memory_order_relaxed);
    unsigned sent = rte_ring_sp_enqueue_burst(h->inbox[to]->from[from], (void *const *)m, n, NULL);
    if (h->replay && sent < n)
        atomic_fetch_sub_explicit(&h->outstanding, n - sent, memory_order_release);
    ring_bell(h, to);
    return sent;
}

/* ---- the owner's side: what it sends for others ---- */
static unsigned relay_one(struct stand_in *s)
{
    struct rte_mbuf *m[PORT_BURST];
    unsigned all = 0, n = PORT_BURST;

    for (unsigned i = 0; n == PORT_BURST && (i < RELAY_BURSTS || s->h->replay); i++) {
        n = rte_ring_sc_dequeue_burst(s->ring, (void **)m, PORT_BURST, NULL);
        if (n != 0)
            s->real->ops->tx(s->real, m, n);
        all += n;
    }
    return all;
}

static unsigned relay(struct inbox *b)
{
    unsigned n = 0;

    for (struct stand_in *s = b->served; s != NULL; s = s->next)
        n += relay_one(s);
    return n;
}

static int relay_poll(struct nst_poller *self)
{
    struct inbox *b = (struct inbox *)((uintptr_t)self - offsetof(struct inbox, relay));

    /* The order of a capture's output is settled between two rounds. */
    return b->h->replay ? 0 : (int)relay(b);
}

/* ---- inboxes ---- */
static struct inbox *inbox_of(const struct nst_port *p)
{
    return (struct inbox *)((uintptr_t)p - offsetof(struct inbox, port));
}

static unsigned inbox_rx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    struct inbox *b = inbox_of(p);
    unsigned got = 0, cores = b->h->cores;

    /* One ring fills a burst where it can; the next burst begins with the next one. */
    for (unsigned i = 0; i < cores && got == 0; i++) {
        struct rte_ring *r = b->from[b->next];
        if (++b->next == cores)
            b->next = 0;
        if (r != NULL)
            got = rte_ring_sc_dequeue_burst(r, (void **)m, n, NULL);
    }
    b->taken += got;
    b->n.rx_packets += got;
    return got;
}

/* An engine sends by the ports that packets came in by, and none came in here. */
static void inbox_tx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    rte_pktmbuf_free_bulk(m, n);
    inbox_of(p)->n.tx_dropped += n;
}

static int inbox_attach(struct nst_port *p, struct nst_reactor *r)
{
    struct inbox *b = inbox_of(p);

    nst_poller_add(r, &b->relay);
    atomic_store_explicit(&b->reactor, r, memory_order_release);
    /* What came before nobody could ring for. */
    nst_reactor_ring(r);
    return 0;
}

static void inbox_detach(struct nst_port *p, struct nst_reactor *r)
{
    struct inbox *b = inbox_of(p);

    atomic_store_explicit(&b->reactor, NULL, memory_order_release);
    nst_poller_remove(r, &b->relay);
    while (relay(b) != 0)
        ;
}

/* All that this core was given, and what came of it, has left it: it lies in the rings of whoever sends it. */
static void inbox_quiet(struct nst_port *p)
{
    struct inbox *b = inbox_of(p);
    unsigned n = b->taken;

    b->taken = 0;
    if (b->h->replay && n != 0 && atomic_fetch_sub_explicit(&b->h->outstanding, n, memory_order_acq_rel) == n)
        ring_bell(b->h, 0);
}

static bool inbox_ended(const struct nst_port *p)
{
    return atomic_load_explicit(&inbox_of(p)->h->over, memory_order_acquire);
}

static void inbox_stats(const struct nst_port *p, struct nst_port_stats *out)
{
    *out = inbox_of(p)->n;
}

static const struct port_ops inbox_ops = {
    .driver = "inbox",
    .rx = inbox_rx,
    .tx = inbox_tx,
    .attach = inbox_attach,
    .detach = inbox_detach,
    .ended = inbox_ended,
    .quiet = inbox_quiet,
    .stats = inbox_stats,
};

struct nst_port *handoff_inbox(struct handoff *h, unsigned core)
{
    return &h->inbox[core]->port;
}

/* ---- stand-ins ---- */
static struct stand_in *stand_in_of(const struct nst_port *p)
{
    return (struct stand_in *)((uintptr_t)p - offsetof(struct stand_in, port));
}

static unsigned stand_in_rx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    (void)p;
    (void)m;
    (void)n;
    return 0;
}

static void stand_in_tx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    struct stand_in *s = stand_in_of(p);
    unsigned sent = rte_ring_sp_enqueue_burst(s->ring, (void *const *)m, n, NULL);

    s->n.tx_packets += sent;
    s->n.tx_dropped += n - sent;
    if (sent < n)
        rte_pktmbuf_free_bulk(m + sent, n - sent);
    if (!s->h->replay)
        ring_bell(s->h, s->owner);
}

static int stand_in_attach(struct nst_port *p, struct nst_reactor *r)
{
    (void)p;
    (void)r;
    return 0; /* it brings nothing */
}

static bool stand_in_ended(const struct nst_port *p)
{
    return atomic_load_explicit(&stand_in_of(p)->h->over, memory_order_acquire);
}

static void stand_in_stats(const struct nst_port *p, struct nst_port_stats *out)
{
    *out = stand_in_of(p)->n;
}

static const struct port_ops stand_in_ops = {
    .rx = stand_in_rx,
    .tx = stand_in_tx,
    .attach = stand_in_attach,
    .ended = stand_in_ended,
    .stats = stand_in_stats,
};

static struct nst_port *stand_in_open(struct handoff *h, struct nst_port *real, unsigned owner)
{
    struct stand_in *s = calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    s->ring = ring_open(h, "send");
    if (s->ring == NULL) {
        free(s);
        return NULL;
    }
    s->ops = stand_in_ops;
    s->ops.driver = real->ops->driver;
    s->port.ops = &s->ops;
    snprintf(s->port.name, sizeof s->port.name, "%s", real->name);
    s->h = h;
    s->real = real;
    s->owner = owner;
    s->next = h->inbox[owner]->served;
    h->inbox[owner]->served = s;
    return &s->port;
}

/* ---- a capture's reader ---- */
static struct reader *reader_of(const struct nst_port *p)
{
    return (struct reader *)((uintptr_t)p - offsetof(struct reader, port));
}

/* Every core has met the end of what it was given: what they forwarded goes to the port, which brings it into order. */
static bool round_over(struct handoff *h)
{
    if (atomic_load_explicit(&h->outstanding, memory_order_acquire) != 0)
        return false;
    relay(h->inbox[0]);
    for (struct reader *r = h->readers; r != NULL; r = r->next) {
        port_flush(&r->port);
        if (r->real->ops->quiet != NULL)
            r->real->ops->quiet(r->real);
    }
    return true;
}

static void look_for_end(struct handoff *h)
{
    if (atomic_load_explicit(&h->over, memory_order_relaxed) || !round_over(h))
        return;
    for (struct reader *r = h->readers; r != NULL; r = r->next)
        if (r->real->ops->ended == NULL || !r->real->ops->ended(r->real))
            return;
    atomic_store_explicit(&h->over, true, memory_order_release);
    for (unsigned i = 0; i < h->cores; i++)
        ring_bell(h, i);
}

static unsigned reader_rx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    struct reader *r = reader_of(p);
    struct handoff *h = r->h;

    if (h->left == 0) {
        if (!round_over(h))
            return 0;
        h->left = HANDOFF_ROUND;
    }
    r->real->index = p->index;
    n = r->real->ops->rx(r->real, m, n < h->left ? n : h->left);
    h->left -= n;
    if (n == 0)
        look_for_end(h);
    return n;
}

static void reader_tx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    struct reader *r = reader_of(p);
    r->real->ops->tx(r->real, m, n);
}

static int reader_attach(struct nst_port *p, struct nst_reactor *reactor)
{
    struct nst_port *real = reader_of(p)->real;
    return real->ops->attach != NULL ? real->ops->attach(real, reactor) : -ENOTSUP;
}

static void reader_detach(struct nst_port *p, struct nst_reactor *reactor)
{
    struct nst_port *real = reader_of(p)->real;
    if (real->ops->detach != NULL)
        real->ops->detach(real, reactor);
}

static bool reader_ended(const struct nst_port *p)
{
    return atomic_load_explicit(&reader_of(p)->h->over, memory_order_relaxed);
}

static void reader_quiet(struct nst_port *p)
{
    round_over(reader_of(p)->h);
}

static void reader_stats(const struct nst_port *p, struct nst_port_stats *out)
{
    nst_port_stats(reader_of(p)->real, out);
}

static const struct port_ops reader_ops = {
    .rx = reader_rx,
    .tx = reader_tx,
    .attach = reader_attach,
    .detach = reader_detach,
    .ended = reader_ended,
    .quiet = reader_quiet,
    .stats = reader_stats,
};

static struct nst_port *reader_open(struct handoff *h, struct nst_port *real)
{
    struct reader *r = calloc(1, sizeof *r);

    if (r == NULL)
        return NULL;
    r->ops = reader_ops;
    r->ops.driver = real->ops->driver;
    r->port.ops = &r->ops;
    r->port.replay = true;
    r->port.shared = true;
    r->port.checksums_trusted = real->checksums_trusted;
    snprintf(r->port.name, sizeof r->port.name, "%s", real->name);
    r->h = h;
    r->real = real;
    r->next = h->readers;
    h->readers = r;
    return &r->port;
}

/* ---- the whole ---- */
int handoff_share(struct handoff *h, struct nst_port *port, unsigned owner, struct nst_port *of_core[])
{
    for (unsigned i = 0; i < h->cores; i++) {
        of_core[i] = i != owner ? stand_in_open(h, port, owner) : h->replay ? reader_open(h, port) : port;
        if (of_core[i] == NULL)
            return -ENOMEM;
    }
    port->shared = true;
    return 0;
}

int handoff_open(struct handoff **out, unsigned cores, bool replay)
{
    struct handoff *h = aligned_alloc(64, (sizeof *h + 63) & ~(size_t)63);

    if (h == NULL)
        return -ENOMEM;
    memset(h, 0, sizeof *h);
    h->replay = replay;
    for (unsigned i = 0; i < cores; i++) {
        struct inbox *b = aligned_alloc(64, (sizeof *b + 63) & ~(size_t)63);
        if (b == NULL) {
            handoff_close(h);
            return -ENOMEM;
        }
        memset(b, 0, sizeof *b);
        b->port.ops = &inbox_ops;
        b->port.replay = replay;
        b->relay.poll = relay_poll;
        b->h = h;
        snprintf(b->port.name, sizeof b->port.name, "inbox of core %u", i);
        h->inbox[h->cores++] = b;
        for (unsigned from = 0; from < cores; from++) {
            if (from != i && (b->from[from] = ring_open(h, "give")) == NULL) {
                handoff_close(h);
                return -ENOMEM;
            }
        }
    }
    *out = h;
    return 0;
}

unsigned handoff_close(struct handoff *h)
{
    unsigned left = 0;

    if (h == NULL)
        return 0;
    for (unsigned i = 0; i < h->cores; i++) {
        struct inbox *b = h->inbox[i];
        for (struct stand_in *s = b->served, *next; s != NULL; s = next) {
            next = s->next;
            ring_close(s->ring);
            for (unsigned k = 0; k < s->port.n_out; k++)
                rte_pktmbuf_free(s->port.out[k]);
            free(s);
        }
        for (unsigned from = 0; from < CORES_MAX; from++)
            left += ring_close(b->from[from]);
        free(b);
    }
    for (struct reader *r = h->readers, *next; r != NULL; r = next) {
        next = r->next;
        free(r);
    }
    free(h);
    return left;
}
