/* SPDX-License-Identifier: Apache-2.0 */
/* The output of a capture port. In which order packets are forwarded depends on how fast a store answers; so they are
 * kept until nothing is outstanding, and written in the order in which they were read. */
#include "io/capture.h"
#include "io/eal.h"
#include <stdlib.h>
#include <string.h>

enum { KEEP_MAX = 2048, WRITE_BUFFER = 1 << 20 };

struct kept {
    uint64_t number; /* an injected packet has that of the one before it */
    uint32_t seq;    /* and keeps the order of adding */
    struct rte_mbuf *m;
};

struct capture_output {
    pcap_t *pcap;
    pcap_dumper_t *dump;
    char *name;
    bool nanoseconds;
    int error;
    unsigned n;
    uint64_t last_number;
    struct kept kept[KEEP_MAX];
};

int capture_output_open(struct capture_output **out, const char *name, bool nanoseconds, const char **why)
{
    struct capture_output *o = calloc(1, sizeof *o);
    int rc = -ENOMEM;

    if (o == NULL)
        return -ENOMEM;
    o->nanoseconds = nanoseconds;
    o->name = strdup(strcmp(name, "-") == 0 ? "standard output" : name);
    o->pcap = pcap_open_dead_with_tstamp_precision(
        DLT_EN10MB, 262144, nanoseconds ? PCAP_TSTAMP_PRECISION_NANO : PCAP_TSTAMP_PRECISION_MICRO);
    if (o->name == NULL || o->pcap == NULL)
        goto fail;
    errno = 0;
    o->dump = pcap_dump_open(o->pcap, name);
    if (o->dump == NULL) {
        rc = io_fail(errno != 0 ? -errno : -EIO, why, "%s", pcap_geterr(o->pcap));
        goto fail;
    }
    *out = o;
    return 0;
fail:
    if (o->pcap != NULL)
        pcap_close(o->pcap);
    free(o->name);
    free(o);
    return rc;
}

bool capture_output_add(struct capture_output *o, struct rte_mbuf *m)
{
    uint64_t number = packet_of(m)->number;

    if (o->n == KEEP_MAX)
        return false;
    if (number != 0)
        o->last_number = number;
    o->kept[o->n] = (struct kept){ .number = o->last_number, .seq = o->n, .m = m };
    o->n++;
    return true;
}

static int by_number(const void *a, const void *b)
{
    const struct kept *x = a, *y = b;
    if (x->number != y->number)
        return x->number < y->number ? -1 : 1;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static void write_one(struct capture_output *o, struct rte_mbuf *m)
{
    nst_time t = m->tx_offload != 0 ? (nst_time)m->tx_offload : packet_of(m)->time;
    struct pcap_pkthdr head = { .caplen = m->pkt_len, .len = m->pkt_len + packet_of(m)->cut };

    if (t < 0)
        t = 0;
    head.ts.tv_sec = t / NST_SEC(1);
    head.ts.tv_usec = o->nanoseconds ? t % NST_SEC(1) : t % NST_SEC(1) / 1000;
    errno = 0;
    pcap_dump((u_char *)o->dump, &head, rte_pktmbuf_mtod(m, const u_char *));
    if (o->error == 0 && ferror(pcap_dump_file(o->dump)))
        o->error = errno != 0 ? errno : EIO;
}

unsigned capture_output_flush(struct capture_output *o, const char **error)
{
    unsigned lost = 0;
    bool before = o->error != 0;

    qsort(o->kept, o->n, sizeof o->kept[0], by_number);
    for (unsigned i = 0; i < o->n; i++) {
        if (o->error == 0)
            write_one(o, o->kept[i].m);
        if (o->error != 0)
            lost++;
        rte_pktmbuf_free(o->kept[i].m);
    }
    o->n = 0;
    if (o->error != 0 && !before)
        io_fail(0, error, "%s: cannot be written: %s", o->name, strerror(o->error));
    return lost;
}

int capture_output_close(struct capture_output *o, const char **error)
{
    if (o == NULL)
        return 0;
    capture_output_flush(o, error);
    errno = 0;
    if (pcap_dump_flush(o->dump) != 0 && o->error == 0) {
        o->error = errno != 0 ? errno : EIO;
        io_fail(0, error, "%s: cannot be written: %s", o->name, strerror(o->error));
    }
    int rc = -o->error;
    pcap_dump_close(o->dump);
    pcap_close(o->pcap);
    free(o->name);
    free(o);
    return rc;
}
