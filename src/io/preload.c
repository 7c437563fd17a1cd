/* SPDX-License-Identifier: Apache-2.0 */
#include "io/preload.h"
#include "io/eal.h"
#include <rte_cycles.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct frame {
    uint64_t at; /* in `bytes` */
    nst_time time;
    uint32_t len, cut;
};

struct preload {
    struct nst_port port;
    uint8_t *bytes;
    struct frame *frames;
    uint64_t n_bytes, room_bytes;
    uint64_t n_frames, room_frames;
    uint64_t next; /* frame */
    struct preload_times times;
    struct nst_port_stats n;
};

static struct preload *preload_of(const struct nst_port *p)
{
    return (struct preload *)((uintptr_t)p - offsetof(struct preload, port));
}

static unsigned preload_rx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    struct preload *l = preload_of(p);
    uint64_t began = rte_rdtsc();

    if (l->times.first == 0)
        l->times.first = began;
    if (n > l->n_frames - l->next)
        n = (unsigned)(l->n_frames - l->next);
    if (n == 0)
        return 0;
    if (rte_pktmbuf_alloc_bulk(port_pool, m, n) != 0) {
        l->n.rx_no_buffer++;
        return 0;
    }
    for (unsigned i = 0; i < n; i++) {
        const struct frame *f = &l->frames[l->next + i];
        memcpy(rte_pktmbuf_mtod(m[i], void *), l->bytes + f->at, f->len);
        m[i]->data_len = (uint16_t)f->len;
        m[i]->pkt_len = f->len;
        port_stamp(p, m[i], f->time);
        packet_of(m[i])->cut = f->cut;
        l->n.rx_bytes += f->len;
    }
    l->next += n;
    l->n.rx_packets += n;
    l->times.receive += rte_rdtsc() - began;
    return n;
}

static void preload_tx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    struct preload *l = preload_of(p);
    uint64_t began = rte_rdtsc();

    rte_pktmbuf_free_bulk(m, n);
    l->n.tx_packets += n;
    l->times.send += rte_rdtsc() - began;
}

static bool preload_ended(const struct nst_port *p)
{
    const struct preload *l = preload_of(p);
    return l->next == l->n_frames;
}

static void preload_stats(const struct nst_port *p, struct nst_port_stats *out)
{
    *out = preload_of(p)->n;
}

static int preload_close(struct nst_port *p)
{
    struct preload *l = preload_of(p);

    free(l->bytes);
    free(l->frames);
    free(l);
    return 0;
}

static const struct port_ops preload_ops = {
    .driver = "memory",
    .rx = preload_rx,
    .tx = preload_tx,
    .ended = preload_ended,
    .stats = preload_stats,
    .close = preload_close,
};

static bool grow(void *array, uint64_t *room, uint64_t wanted, size_t size)
{
    uint64_t more = *room != 0 ? *room : 4096;

    while (more < wanted)
        more += more / 2;
    if (more == *room)
        return true;
    void *moved = realloc(*(void **)array, more * size);
    if (moved == NULL)
        return false;
    *(void **)array = moved;
    *room = more;
    return true;
}

static int keep(struct preload *l, struct rte_mbuf *m, struct preload_sizes *sizes)
{
    uint32_t len = m->data_len;

    if (len + RTE_PKTMBUF_HEADROOM > rte_pktmbuf_data_room_size(port_pool)) {
        sizes->left_out++;
        return 0;
    }
    if (!grow(&l->bytes, &l->room_bytes, l->n_bytes + len, 1) ||
        !grow(&l->frames, &l->room_frames, l->n_frames + 1, sizeof *l->frames))
        return -ENOMEM;
    memcpy(l->bytes + l->n_bytes, rte_pktmbuf_mtod(m, const void *), len);
    l->frames[l->n_frames++] =
        (struct frame){ .at = l->n_bytes, .time = packet_of(m)->time, .len = len, .cut = packet_of(m)->cut };
    l->n_bytes += len;
    sizes->packets = l->n_frames;
    sizes->bytes = l->n_bytes;
    sizes->memory = l->n_bytes + l->n_frames * sizeof *l->frames;
    return 0;
}

int preload_open(struct nst_port **out, struct nst_port *capture, uint64_t limit, struct preload_sizes *sizes,
                 const char **why)
{
    struct preload *l = calloc(1, sizeof *l);
    struct rte_mbuf *m[PORT_BURST];
    int rc = l != NULL ? 0 : -ENOMEM;

    memset(sizes, 0, sizeof *sizes);
    while (rc == 0 && !capture->ops->ended(capture)) {
        unsigned n = port_rx(capture, m, PORT_BURST);
        for (unsigned i = 0; i < n && rc == 0; i++)
            rc = keep(l, m[i], sizes);
        rte_pktmbuf_free_bulk(m, n);
        if (n == 0)
            nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
        if (rc == 0 && sizes->memory > limit)
            rc = io_fail(-E2BIG, why, "%s: its packets take more than %llu MiB of memory", capture->name,
                         (unsigned long long)(limit >> 20));
    }
    if (rc == 0 && nst_capture_error(capture) != NULL)
        rc = io_fail(-EIO, why, "%s", nst_capture_error(capture));
    if (rc == 0 && sizes->packets == 0)
        rc = io_fail(-EINVAL, why, "%s: there is no packet in it that fits a buffer", capture->name);
    if (rc < 0) {
        if (l != NULL)
            preload_close(&l->port);
        return rc;
    }
    l->port.ops = &preload_ops;
    snprintf(l->port.name, sizeof l->port.name, "%s", capture->name);
    *out = &l->port;
    return 0;
}

void preload_rewind(struct nst_port *p, bool replay)
{
    struct preload *l = preload_of(p);

    l->next = 0;
    p->received = 0;
    p->replay = replay;
    memset(&l->times, 0, sizeof l->times);
    memset(&l->n, 0, sizeof l->n);
}

void preload_times(const struct nst_port *p, struct preload_times *out)
{
    *out = preload_of(p)->times;
}
