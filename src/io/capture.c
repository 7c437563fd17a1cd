/* SPDX-License-Identifier: Apache-2.0 */
/* The capture port: inputs merged by time, packets made of them, forwarded ones given to the output. A packet's time
 * never goes back, since it drives the clock; the one in the file goes with it in the mbuf's tx_offload, for the
 * output. */
#include "io/capture.h"
#include "io/eal.h"
#include "io/port.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct capture {
    struct nst_port port;
    unsigned n_inputs;
    struct capture_input *inputs;
    char **names;
    struct capture_output *output;
    double speed;
    nst_time first, first_wall; /* where replaying at a speed began */
    nst_time last;              /* the time of the latest packet */
    bool begun;
    nst_time told; /* when progress was last reported */
    void (*progress)(void *arg, uint64_t packets, uint64_t bytes, uint64_t of_bytes);
    void *progress_arg;
    struct nst_port_stats n;
    char error[1024];
};

static struct capture *capture_of(const struct nst_port *p)
{
    return (struct capture *)((uintptr_t)p - offsetof(struct capture, port));
}

static void note_error(struct capture *c, const char *text)
{
    size_t n = strlen(c->error);
    snprintf(c->error + n, sizeof c->error - n, "%s%s", n != 0 ? "; " : "", text);
}

static void advance(struct capture *c, struct capture_input *in)
{
    const char *error = NULL;
    int rc = capture_input_next(in, &error);
    if (rc == -EIO && error != NULL)
        note_error(c, error);
}

/* The input with the earliest packet, or NULL when there is none yet. An input that is still silent might bring an
 * earlier one, so all must have been heard. */
static struct capture_input *earliest(struct capture *c)
{
    struct capture_input *best = NULL;

    for (unsigned i = 0; i < c->n_inputs; i++) {
        struct capture_input *in = &c->inputs[i];
        if (!in->have && !in->ended)
            advance(c, in);
        if (!in->have && !in->ended)
            return NULL;
        if (in->have && (best == NULL || capture_input_time(in) < capture_input_time(best)))
            best = in;
    }
    return best;
}

static bool due(struct capture *c, nst_time time)
{
    if (c->speed <= 0)
        return true;
    if (!c->begun) {
        c->begun = true;
        c->first = time;
        c->first_wall = nst_clock();
    }
    return (double)(time - c->first) <= (double)(nst_clock() - c->first_wall) * c->speed;
}

static void free_frame(void *frame, void *shared)
{
    (void)frame;
    free(shared);
}

/* A super-packet is longer than a buffer of the pool: its bytes get memory of their own, so that they stay in one
 * piece. */
static bool attach_frame(struct rte_mbuf *m, unsigned len)
{
    /* The reference count lies in front of the frame. */
    struct rte_mbuf_ext_shared_info *shared = malloc(sizeof *shared + len);

    if (shared == NULL)
        return false;
    shared->free_cb = free_frame;
    shared->fcb_opaque = shared;
    rte_mbuf_ext_refcnt_set(shared, 1);
    rte_pktmbuf_attach_extbuf(m, shared + 1, RTE_BAD_IOVA, (uint16_t)len, shared);
    return true;
}

static struct rte_mbuf *packet_from(struct capture *c, const struct capture_input *in)
{
    unsigned len = in->head->caplen < CAPTURE_FRAME_MAX ? in->head->caplen : CAPTURE_FRAME_MAX;
    struct rte_mbuf *m = rte_pktmbuf_alloc(port_pool);

    if (m == NULL)
        return NULL;
    if (len > rte_pktmbuf_tailroom(m) && !attach_frame(m, len)) {
        rte_pktmbuf_free(m);
        return NULL;
    }
    memcpy(rte_pktmbuf_mtod(m, void *), in->data, len);
    m->data_len = (uint16_t)len;
    m->pkt_len = len;
    nst_time time = capture_input_time(in);
    m->tx_offload = (uint64_t)time;
    if (time > c->last)
        c->last = time;
    port_stamp(&c->port, m, c->last);
    if (in->head->len > len)
        packet_of(m)->cut = in->head->len - len;
    return m;
}

static void tell_progress(struct capture *c, bool end)
{
    uint64_t bytes = 0, of_bytes = 0;
    nst_time now;

    if (c->progress == NULL || (!end && (now = nst_clock()) < c->told + NST_MS(500)))
        return;
    bool known = true;
    for (unsigned i = 0; i < c->n_inputs; i++) {
        bytes += c->inputs[i].bytes;
        of_bytes += c->inputs[i].of_bytes;
        known = known && c->inputs[i].of_bytes != 0;
    }
    c->told = nst_clock();
    c->progress(c->progress_arg, c->port.received, bytes, known ? of_bytes : 0);
}

static unsigned capture_rx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    struct capture *c = capture_of(p);
    unsigned got = 0;

    while (got < n) {
        struct capture_input *in = earliest(c);
        if (in == NULL || !due(c, capture_input_time(in)))
            break;
        struct rte_mbuf *packet = packet_from(c, in);
        if (packet == NULL) { /* it stays current, and is taken when buffers have come back */
            c->n.rx_no_buffer++;
            break;
        }
        m[got++] = packet;
        c->n.rx_packets++;
        c->n.rx_bytes += packet->pkt_len;
        advance(c, in);
    }
    if (got != 0)
        tell_progress(c, false);
    return got;
}

static void flush(struct capture *c)
{
    const char *error = NULL;
    unsigned lost = capture_output_flush(c->output, &error);

    c->n.tx_packets -= lost;
    c->n.tx_dropped += lost;
    if (error != NULL)
        note_error(c, error);
}

static void capture_tx(struct nst_port *p, struct rte_mbuf **m, unsigned n)
{
    struct capture *c = capture_of(p);

    for (unsigned i = 0; i < n; i++) {
        c->n.tx_packets++;
        c->n.tx_bytes += m[i]->pkt_len;
        if (c->output == NULL) {
            rte_pktmbuf_free(m[i]);
        } else if (!capture_output_add(c->output, m[i])) {
            flush(c);
            capture_output_add(c->output, m[i]);
        }
    }
}

static void capture_quiet(struct nst_port *p)
{
    struct capture *c = capture_of(p);
    if (c->output != NULL)
        flush(c);
}

static bool capture_ended(const struct nst_port *p)
{
    struct capture *c = capture_of(p);

    for (unsigned i = 0; i < c->n_inputs; i++)
        if (c->inputs[i].have || !c->inputs[i].ended)
            return false;
    return true;
}

static void capture_stats(const struct nst_port *p, struct nst_port_stats *out)
{
    *out = capture_of(p)->n;
}

static int capture_close(struct nst_port *p)
{
    struct capture *c = capture_of(p);
    const char *error = NULL;

    if (c->port.received != 0)
        tell_progress(c, true);
    int rc = capture_output_close(c->output, &error);
    for (unsigned i = 0; c->inputs != NULL && i < c->n_inputs; i++)
        capture_input_close(&c->inputs[i]);
    for (unsigned i = 0; c->names != NULL && i < c->n_inputs; i++)
        free(c->names[i]);
    free(c->inputs);
    free(c->names);
    free(c);
    return rc;
}

/* No descriptor ends the reactor's sleep: a file is always ready, a replay at a speed is due by the clock, and a pipe
 * would be ready all the time while answers are outstanding and nothing may be read. */
static const struct port_ops capture_ops = {
    .driver = "capture",
    .rx = capture_rx,
    .tx = capture_tx,
    .ended = capture_ended,
    .quiet = capture_quiet,
    .stats = capture_stats,
    .close = capture_close,
};

/* Opening the output empties it, so it must not be one of the inputs. */
static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino && S_ISREG(x.st_mode);
}

int nst_capture_open(struct nst_port **out, const struct nst_capture_config *config, const char **why)
{
    bool nanoseconds = false;
    int rc = -ENOMEM;

    if (!io_is_open())
        return io_fail(-EINVAL, why, "nst_io_open comes first");
    if (config->n_inputs == 0)
        return io_fail(-EINVAL, why, "no capture to read");
    for (unsigned i = 0; config->output != NULL && i < config->n_inputs; i++)
        if (same_file(config->inputs[i], config->output))
            return io_fail(-EINVAL, why, "%s: is input and output; writing would destroy it", config->output);
    struct capture *c = calloc(1, sizeof *c);
    if (c == NULL)
        return -ENOMEM;
    c->port.ops = &capture_ops;
    c->port.replay = true;
    c->speed = config->speed;
    c->progress = config->progress;
    c->progress_arg = config->progress_arg;
    c->told = nst_clock();
    snprintf(c->port.name, sizeof c->port.name, "%s", config->inputs[0]);
    c->inputs = calloc(config->n_inputs, sizeof c->inputs[0]);
    c->names = calloc(config->n_inputs, sizeof c->names[0]);
    if (c->inputs == NULL || c->names == NULL)
        goto fail;
    c->n_inputs = config->n_inputs;
    for (unsigned i = 0; i < c->n_inputs; i++) {
        c->names[i] = strdup(config->inputs[i]);
        if (c->names[i] == NULL) {
            rc = -ENOMEM;
            goto fail;
        }
        rc = capture_input_open(&c->inputs[i], c->names[i], why);
        if (rc < 0)
            goto fail;
        nanoseconds = nanoseconds || c->inputs[i].nanoseconds;
    }
    if (config->output != NULL) {
        rc = capture_output_open(&c->output, config->output, nanoseconds, why);
        if (rc < 0)
            goto fail;
    }
    *out = &c->port;
    return 0;
fail:
    capture_close(&c->port);
    return rc;
}

const char *nst_capture_error(const struct nst_port *p)
{
    if (p->ops != &capture_ops || capture_of(p)->error[0] == '\0')
        return NULL;
    return capture_of(p)->error;
}
