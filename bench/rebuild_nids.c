/* SPDX-License-Identifier: Apache-2.0 */
/* libnids over a capture in memory: each frame is given to nids_pcap_handler, which is what its own loop does with the
 * frames that libpcap reads. */
#include "rebuild.h"
#include <errno.h>
#include <nids.h>
#include <stdio.h>
#include <string.h>

static struct rebuild_result result;
static uint64_t complaints, streams;

static void complain(int type, int err, struct ip *ip, void *data)
{
    complaints++;
}

/* Its own would end the program by itself. */
static void no_memory(char *where)
{
    fprintf(stderr, "bench: libnids has no memory in %s\n", where);
    complaints++;
}

static void take(const struct tcp_stream *s, const struct half_stream *h, bool to_client)
{
    const uint8_t *p = (const uint8_t *)h->data;

    if (h->count_new == 0)
        return;
    if (__builtin_expect(result.compare, 0))
        rebuild_answer_add(&result.answer, ntohl(s->addr.saddr), s->addr.source, to_client,
                           (uint64_t)(h->count - h->count_new), p, (size_t)h->count_new);
    result.sum += rebuild_sum(p, (size_t)h->count_new);
    result.bytes += (uint64_t)h->count_new;
}

static void on_tcp(struct tcp_stream *s, void **unused)
{
    switch (s->nids_state) {
    case NIDS_JUST_EST:
        s->client.collect = s->server.collect = 1;
        streams++;
        break;
    case NIDS_DATA:
        take(s, &s->client, true);
        take(s, &s->server, false);
        break;
    default:
        break;
    }
}

static void pass(const struct rebuild_capture *c)
{
    struct pcap_pkthdr head = { .ts = { .tv_sec = 1 } };

    for (uint64_t i = 0; i < c->packets; i++) {
        uint8_t *frame = rebuild_frame(c, i);
        rebuild_fetch(c, i + REBUILD_AHEAD, 2);
        head.caplen = head.len = c->frames[i].len;
        nids_pcap_handler(NULL, &head, frame);
    }
}

int rebuild_nids(struct contestant *c)
{
    const struct rebuild *what = c->arg;
    /* All addresses. */
    struct nids_chksum_ctl off = { .action = NIDS_DONT_CHKSUM };
    uint64_t passes = 1;
    int rc;

    nids_params.pcap_desc = pcap_open_dead(DLT_EN10MB, 65535);
    nids_params.n_tcp_streams = (int)(4 * what->capture->at_once);
    nids_params.scan_num_hosts = 0; /* looking for port scans is not what is measured */
    nids_params.syslog = complain;
    nids_params.no_mem = no_memory;
    if (!nids_init()) {
        fprintf(stderr, "bench: libnids does not start: %s\n", nids_errbuf);
        return -EINVAL;
    }
    nids_register_tcp(on_tcp);
    if (what->no_checksums)
        nids_register_chksum_ctl(&off, 1);
    result.compare = true;
    pass(what->capture);
    result.compare = false;
    rc = rebuild_compared(c, &result);
    while (contest_next(c) && rc == 0) {
        pass(what->capture); /* until the caches are its own */
        uint64_t from = contest_clock();
        for (unsigned i = 0; i < what->passes; i++)
            pass(what->capture);
        contest_took(c, contest_clock() - from);
        passes += 1 + what->passes;
    }
    if (rc == 0)
        rc = rebuild_counted(c, &result, passes);
    if (rc == 0 && (complaints != 0 || streams != passes * what->capture->connections)) {
        fprintf(stderr, "bench: libnids: %lu complaints, %lu connections\n", complaints, streams);
        rc = -EPROTO;
    }
    nids_exit();
    return rc;
}
