/* SPDX-License-Identifier: Apache-2.0 */
/* The capture port, on files that are written here byte by byte. */
#include "io/port.h"
#include <fcntl.h>
#include <rte_mempool.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

enum { POOL = 256, FILE_MAX = 1 << 20 };
static char dir[] = "/tmp/io_capture.XXXXXX";

/* ---- files ---- */
struct file {
    uint8_t b[FILE_MAX];
    size_t n;
};
static struct file f1, f2;

static void bytes(struct file *f, const void *p, size_t n)
{
    assert_true(f->n + n <= FILE_MAX);
    memcpy(f->b + f->n, p, n);
    f->n += n;
}

static void u32(struct file *f, uint32_t v)
{
    bytes(f, &v, 4);
}

static void u16(struct file *f, uint16_t v)
{
    bytes(f, &v, 2);
}

static void pcap_begin(struct file *f, uint32_t magic, uint32_t link)
{
    f->n = 0;
    u32(f, magic);
    u16(f, 2);
    u16(f, 4);
    u32(f, 0);
    u32(f, 0);
    u32(f, 262144);
    u32(f, link);
}

/* A frame whose bytes tell which it is. */
static void frame(struct file *f, size_t n, unsigned which)
{
    for (size_t i = 0; i < n; i++)
        f->b[f->n + i] = (uint8_t)(which * 31 + i);
    assert_true(f->n + n <= FILE_MAX);
    f->n += n;
}

static void pcap_packet(struct file *f, uint32_t s, uint32_t fraction, uint32_t caplen, uint32_t len, unsigned which)
{
    u32(f, s);
    u32(f, fraction);
    u32(f, caplen);
    u32(f, len);
    frame(f, caplen, which);
}

static void ng_begin(struct file *f, uint16_t link)
{
    f->n = 0;
    u32(f, 0x0a0d0d0a); /* section header */
    u32(f, 28);
    u32(f, 0x1a2b3c4d);
    u16(f, 1);
    u16(f, 0);
    u32(f, 0xffffffff);
    u32(f, 0xffffffff);
    u32(f, 28);
    u32(f, 1); /* interface, with times in ns */
    u32(f, 32);
    u16(f, link);
    u16(f, 0);
    u32(f, 0);
    u16(f, 9);
    u16(f, 1);
    u32(f, 9);
    u32(f, 0);
    u32(f, 32);
}

static void ng_packet(struct file *f, uint64_t ns, uint32_t caplen, uint32_t len, unsigned which)
{
    uint32_t padded = (caplen + 3) & ~3u;
    u32(f, 6);
    u32(f, 32 + padded);
    u32(f, 0);
    u32(f, (uint32_t)(ns >> 32));
    u32(f, (uint32_t)ns);
    u32(f, caplen);
    u32(f, len);
    frame(f, caplen, which);
    while (caplen++ < padded)
        bytes(f, "", 1);
    u32(f, 32 + padded);
}

enum { USEC = 0xa1b2c3d4, NSEC = 0xa1b23c4d, ETHERNET = 1 };

/* A path in the test's directory, of a few that stay valid. */
static const char *path(const char *name)
{
    static char p[8][64];
    static int k;
    k = (k + 1) % 8;
    snprintf(p[k], sizeof p[k], "%s/%s", dir, name);
    return p[k];
}

static const char *save(const struct file *f, size_t n, const char *name)
{
    const char *p = path(name);
    FILE *out = fopen(p, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(f->b, 1, n, out), n);
    fclose(out);
    return p;
}

static void load(struct file *f, const char *p)
{
    FILE *in = fopen(p, "rb");
    assert_non_null(in);
    f->n = fread(f->b, 1, FILE_MAX, in);
    fclose(in);
}

/* ---- ports ---- */
static struct nst_port *open_port(const char *in, const char *in2, const char *out)
{
    const char *inputs[] = { in, in2 }, *why = "";
    struct nst_capture_config c = { .inputs = inputs, .n_inputs = in2 != NULL ? 2 : 1, .output = out };
    struct nst_port *p = NULL;
    int rc = nst_capture_open(&p, &c, &why);
    if (rc != 0)
        fail_msg("%s: %d %s", in, rc, why);
    return p;
}

static int refusal(const char *in, const char *out, const char **why)
{
    struct nst_capture_config c = { .inputs = &in, .n_inputs = 1, .output = out };
    struct nst_port *p;
    *why = "";
    int rc = nst_capture_open(&p, &c, why);
    assert_true(rc < 0);
    return rc;
}

static unsigned pass_all(struct nst_port *p)
{
    struct rte_mbuf *m[32];
    unsigned all = 0, n;

    while ((n = port_rx(p, m, 32)) != 0) {
        for (unsigned i = 0; i < n; i++)
            port_tx(p, m[i]);
        port_flush(p);
        p->ops->quiet(p);
        all += n;
    }
    return all;
}

static void assert_pool_whole(void)
{
    assert_int_equal(rte_mempool_in_use_count(port_pool), 0);
}

static void assert_files_equal(const struct file *a, const char *b)
{
    static struct file other;
    load(&other, b);
    assert_int_equal(a->n, other.n);
    assert_memory_equal(a->b, other.b, a->n);
}

/* ---- tests ---- */
static void through_unchanged(void **state)
{
    static const uint32_t magics[] = { USEC, NSEC };
    for (int k = 0; k < 2; k++) {
        pcap_begin(&f1, magics[k], ETHERNET);
        for (unsigned i = 0; i < 300; i++)
            pcap_packet(&f1, 1700000000 + i / 100, i % 100 * 9999, 14 + i, 14 + i, i);
        const char *in = save(&f1, f1.n, "in.pcap"), *out = path("out.pcap");
        struct nst_port *p = open_port(in, NULL, out);
        assert_true(p->replay);
        assert_string_equal(nst_port_driver(p), "capture");
        assert_false(p->ops->ended(p));
        assert_int_equal(pass_all(p), 300);
        assert_true(p->ops->ended(p));
        assert_null(nst_capture_error(p));
        struct nst_port_stats s;
        nst_port_stats(p, &s);
        assert_int_equal(s.rx_packets, 300);
        assert_int_equal(s.tx_packets, 300);
        assert_int_equal(s.rx_bytes, s.tx_bytes);
        assert_int_equal(nst_port_close(p), 0);
        assert_files_equal(&f1, out);
        assert_pool_whole();
    }
}

static void notes_of_packets(void **state)
{
    ng_begin(&f1, ETHERNET);
    ng_packet(&f1, 1700000000123456789, 61, 61, 1);
    ng_packet(&f1, 1700000001000000001, 60, 1500, 2);
    struct nst_port *p = open_port(save(&f1, f1.n, "in.pcapng"), NULL, path("out.pcap"));
    struct rte_mbuf *m[4];

    p->index = 3;
    assert_int_equal(port_rx(p, m, 4), 2);
    const struct nst_packet *a = packet_of(m[0]), *b = packet_of(m[1]);
    assert_int_equal(nst_packet_time(a), 1700000000123456789);
    assert_int_equal(nst_packet_number(a), 1);
    assert_int_equal(nst_packet_port(a), 3);
    assert_int_equal(nst_packet_len(a), 61);
    assert_int_equal(a->cut, 0);
    assert_int_equal(*(const uint8_t *)nst_packet_bytes(a, 5, 1), 31 + 5);
    assert_int_equal(nst_packet_time(b), 1700000001000000001);
    assert_int_equal(nst_packet_number(b), 2);
    assert_int_equal(nst_packet_len(b), 60);
    assert_int_equal(b->cut, 1440);
    p->ops->tx(p, m, 2);
    assert_int_equal(nst_port_close(p), 0);

    /* What was cut says so in the output. */
    pcap_begin(&f2, NSEC, ETHERNET);
    pcap_packet(&f2, 1700000000, 123456789, 61, 61, 1);
    pcap_packet(&f2, 1700000001, 1, 60, 1500, 2);
    assert_files_equal(&f2, path("out.pcap"));
    assert_pool_whole();
}

static void merged_by_time(void **state)
{
    pcap_begin(&f1, USEC, ETHERNET);
    pcap_packet(&f1, 10, 0, 60, 60, 1);
    pcap_packet(&f1, 12, 0, 60, 60, 3);
    pcap_packet(&f1, 14, 0, 60, 60, 5);
    const char *a = save(&f1, f1.n, "a.pcap");
    pcap_begin(&f2, USEC, ETHERNET);
    pcap_packet(&f2, 11, 0, 60, 60, 2);
    pcap_packet(&f2, 12, 0, 60, 60, 4); /* the same time: the first input goes first */
    pcap_packet(&f2, 20, 0, 60, 60, 6);
    const char *b = save(&f2, f2.n, "b.pcap");

    struct nst_port *p = open_port(a, b, path("out.pcap"));
    assert_int_equal(pass_all(p), 6);
    assert_int_equal(nst_port_close(p), 0);
    pcap_begin(&f1, USEC, ETHERNET);
    pcap_packet(&f1, 10, 0, 60, 60, 1);
    pcap_packet(&f1, 11, 0, 60, 60, 2);
    pcap_packet(&f1, 12, 0, 60, 60, 3);
    pcap_packet(&f1, 12, 0, 60, 60, 4);
    pcap_packet(&f1, 14, 0, 60, 60, 5);
    pcap_packet(&f1, 20, 0, 60, 60, 6);
    assert_files_equal(&f1, path("out.pcap"));
}

/* The clock may not go back, but the output has the times of the input. */
static void times_going_back(void **state)
{
    pcap_begin(&f1, USEC, ETHERNET);
    pcap_packet(&f1, 100, 5, 60, 60, 1);
    pcap_packet(&f1, 99, 7, 60, 60, 2);
    pcap_packet(&f1, 101, 0, 60, 60, 3);
    struct nst_port *p = open_port(save(&f1, f1.n, "in.pcap"), NULL, path("out.pcap"));
    struct rte_mbuf *m[3];

    assert_int_equal(port_rx(p, m, 3), 3);
    assert_int_equal(packet_of(m[0])->time, NST_SEC(100) + 5000);
    assert_int_equal(packet_of(m[1])->time, NST_SEC(100) + 5000);
    assert_int_equal(packet_of(m[2])->time, NST_SEC(101));
    p->ops->tx(p, m, 3);
    assert_int_equal(nst_port_close(p), 0);
    assert_files_equal(&f1, path("out.pcap"));
}

/* Whatever order the answers came in; and a packet of our own stays behind the one sent before it. */
static void written_in_the_order_of_the_input(void **state)
{
    pcap_begin(&f1, USEC, ETHERNET);
    for (unsigned i = 1; i <= 5; i++)
        pcap_packet(&f1, i, 0, 60, 60, i);
    struct nst_port *p = open_port(save(&f1, f1.n, "in.pcap"), NULL, path("out.pcap"));
    struct rte_mbuf *m[5], *own = rte_pktmbuf_alloc(port_pool);
    uint8_t reset[60];

    assert_int_equal(port_rx(p, m, 5), 5);
    memset(reset, 0xee, sizeof reset);
    memcpy(rte_pktmbuf_append(own, sizeof reset), reset, sizeof reset);
    memset(packet_of(own), 0, sizeof(struct nst_packet));
    packet_of(own)->time = NST_SEC(2) + 1000;
    struct rte_mbuf *order[] = { m[4], m[1], own, m[0], m[3] };
    p->ops->tx(p, order, 5);
    rte_pktmbuf_free(m[2]);
    p->ops->quiet(p);
    assert_int_equal(nst_port_close(p), 0);

    pcap_begin(&f2, USEC, ETHERNET);
    pcap_packet(&f2, 1, 0, 60, 60, 1);
    pcap_packet(&f2, 2, 0, 60, 60, 2);
    u32(&f2, 2);
    u32(&f2, 1);
    u32(&f2, 60);
    u32(&f2, 60);
    bytes(&f2, reset, 60);
    pcap_packet(&f2, 4, 0, 60, 60, 4);
    pcap_packet(&f2, 5, 0, 60, 60, 5);
    assert_files_equal(&f2, path("out.pcap"));
    assert_pool_whole();
}

static void super_packets(void **state)
{
    static const uint32_t sizes[] = { 2048, 2049, 9014, 60000, 65535 };
    pcap_begin(&f1, USEC, ETHERNET);
    for (unsigned i = 0; i < 5; i++)
        pcap_packet(&f1, i, 0, sizes[i], sizes[i], i);
    struct nst_port *p = open_port(save(&f1, f1.n, "in.pcap"), NULL, path("out.pcap"));
    struct rte_mbuf *m[5];
    assert_int_equal(port_rx(p, m, 5), 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(nst_packet_len(packet_of(m[i])), sizes[i]);
        assert_non_null(nst_packet_bytes(packet_of(m[i]), 0, sizes[i]));
    }
    p->ops->tx(p, m, 5);
    assert_int_equal(nst_port_close(p), 0);
    assert_files_equal(&f1, path("out.pcap"));
    assert_pool_whole();

    /* One byte too many: what cannot be kept counts as cut, here and in the output. */
    pcap_begin(&f1, USEC, ETHERNET);
    pcap_packet(&f1, 1, 0, 65549, 65549, 7);
    p = open_port(save(&f1, f1.n, "in.pcap"), NULL, path("out.pcap"));
    assert_int_equal(port_rx(p, m, 1), 1);
    assert_int_equal(nst_packet_len(packet_of(m[0])), 65535);
    assert_int_equal(packet_of(m[0])->cut, 14);
    p->ops->tx(p, m, 1);
    assert_int_equal(nst_port_close(p), 0);
    pcap_begin(&f2, USEC, ETHERNET);
    pcap_packet(&f2, 1, 0, 65535, 65549, 7);
    assert_files_equal(&f2, path("out.pcap"));
    assert_pool_whole();
}

/* Cut off after each byte: refused with words, or read up to there with words. */
static void truncations(struct file *f, const char *name, unsigned packets, const size_t ends[])
{
    for (size_t n = 0; n <= f->n; n++) {
        const char *in = save(f, n, name), *why = "";
        struct nst_capture_config c = { .inputs = &in, .n_inputs = 1 };
        struct nst_port *p;
        int rc = nst_capture_open(&p, &c, &why);
        if (rc < 0) {
            assert_int_equal(rc, -EINVAL);
            assert_non_null(strstr(why, in));
            assert_true(n < ends[0]);
            continue;
        }
        unsigned whole = 0;
        bool clean = n == ends[0];
        while (whole < packets && n >= ends[whole + 1])
            clean = n == ends[++whole];
        assert_int_equal(pass_all(p), whole);
        assert_true(p->ops->ended(p));
        const char *error = nst_capture_error(p);
        if (clean) {
            assert_null(error);
        } else {
            char which[64];
            snprintf(which, sizeof which, "beyond packet %u:", whole);
            assert_non_null(error);
            assert_non_null(strstr(error, in));
            assert_non_null(strstr(error, which));
        }
        assert_int_equal(nst_port_close(p), 0);
        assert_pool_whole();
    }
}

static void every_truncation(void **state)
{
    size_t ends[4];
    pcap_begin(&f1, USEC, ETHERNET);
    ends[0] = f1.n;
    for (unsigned i = 1; i <= 3; i++) {
        pcap_packet(&f1, i, 0, 60 + i, 60 + i, i);
        ends[i] = f1.n;
    }
    truncations(&f1, "cut.pcap", 3, ends);

    ng_begin(&f1, ETHERNET);
    ends[0] = f1.n;
    for (unsigned i = 1; i <= 3; i++) {
        ng_packet(&f1, (uint64_t)NST_SEC(i), 60 + i, 60 + i, i);
        ends[i] = f1.n;
    }
    truncations(&f1, "cut.pcapng", 3, ends);
}

/* Each byte of the headers wrong in turn: whatever comes of it, nothing breaks and no buffer is lost. */
static void every_byte_wrong(void **state)
{
    static const uint8_t flips[] = { 0xff, 0x80, 0x01 };
    for (int ng = 0; ng < 2; ng++) {
        if (ng)
            ng_begin(&f1, ETHERNET);
        else
            pcap_begin(&f1, NSEC, ETHERNET);
        for (unsigned i = 1; i <= 2; i++) {
            if (ng)
                ng_packet(&f1, (uint64_t)NST_SEC(i), 60, 60, i);
            else
                pcap_packet(&f1, i, 0, 60, 60, i);
        }
        for (size_t at = 0; at < f1.n; at++) {
            for (int k = 0; k < 3; k++) {
                const char *why = "", *in;
                f1.b[at] ^= flips[k];
                in = save(&f1, f1.n, "wrong.pcap");
                f1.b[at] ^= flips[k];
                struct nst_capture_config c = { .inputs = &in, .n_inputs = 1, .output = path("out.pcap") };
                struct nst_port *p;
                int rc = nst_capture_open(&p, &c, &why);
                if (rc < 0) {
                    assert_non_null(strstr(why, in));
                    continue;
                }
                assert_in_range(pass_all(p), 0, 2);
                assert_true(p->ops->ended(p));
                nst_port_close(p);
                assert_pool_whole();
            }
        }
    }
}

/* One input that turns bad does not stop the other. */
static void one_bad_of_two(void **state)
{
    pcap_begin(&f1, USEC, ETHERNET);
    pcap_packet(&f1, 1, 0, 60, 60, 1);
    pcap_packet(&f1, 3, 0, 60, 60, 1);
    const char *bad = save(&f1, f1.n - 1, "bad.pcap");
    pcap_begin(&f2, USEC, ETHERNET);
    for (unsigned i = 0; i < 10; i++)
        pcap_packet(&f2, 2 + i, 0, 60, 60, i);
    struct nst_port *p = open_port(save(&f2, f2.n, "good.pcap"), bad, NULL);
    assert_int_equal(pass_all(p), 11);
    assert_non_null(nst_capture_error(p));
    assert_non_null(strstr(nst_capture_error(p), "bad.pcap"));
    assert_int_equal(nst_port_close(p), 0);
}

static void refusals(void **state)
{
    const char *why;

    assert_int_equal(refusal(path("nothing.pcap"), NULL, &why), -ENOENT);
    assert_non_null(strstr(why, "nothing.pcap"));
    assert_int_equal(refusal(dir, NULL, &why), -EINVAL);
    assert_non_null(strstr(why, "directory"));
    assert_int_equal(refusal(save(&f1, 0, "empty.pcap"), NULL, &why), -EINVAL);
    assert_non_null(strstr(why, "empty"));
    pcap_begin(&f1, USEC, 113);
    const char *sll = save(&f1, f1.n, "sll.pcap");
    assert_int_equal(refusal(sll, NULL, &why), -EINVAL);
    assert_non_null(strstr(why, "sll.pcap"));
    assert_non_null(strstr(why, "LINUX_SLL"));
    ng_begin(&f1, 113);
    ng_packet(&f1, 1, 60, 60, 1);
    assert_int_equal(refusal(save(&f1, f1.n, "sll.pcapng"), NULL, &why), -EINVAL);

    pcap_begin(&f1, USEC, ETHERNET);
    const char *in = save(&f1, f1.n, "in.pcap");
    assert_int_equal(refusal(in, path("no/such/dir.pcap"), &why), -ENOENT);
    assert_non_null(strstr(why, "dir.pcap"));
    assert_int_equal(refusal(in, in, &why), -EINVAL);
    assert_files_equal(&f1, in);
    struct nst_capture_config none = { 0 };
    struct nst_port *p;
    assert_int_equal(nst_capture_open(&p, &none, &why), -EINVAL);
}

static void full_disk(void **state)
{
    pcap_begin(&f1, USEC, ETHERNET);
    for (unsigned i = 0; i < 100; i++)
        pcap_packet(&f1, i, 0, 1000, 1000, i);
    const char *in = save(&f1, f1.n, "in.pcap");
    struct nst_port *p = open_port(in, NULL, "/dev/full");
    struct nst_port_stats s;

    assert_int_equal(pass_all(p), 100);
    assert_non_null(nst_capture_error(p));
    assert_non_null(strstr(nst_capture_error(p), "/dev/full"));
    assert_non_null(strstr(nst_capture_error(p), "No space"));
    nst_port_stats(p, &s);
    assert_true(s.tx_dropped > 0);
    assert_int_equal(s.tx_packets + s.tx_dropped, 100);
    assert_int_equal(nst_port_close(p), -ENOSPC);
    assert_pool_whole();
}

/* No buffer: nothing is lost, the packet comes later. */
static void pool_used_up(void **state)
{
    pcap_begin(&f1, USEC, ETHERNET);
    for (unsigned i = 0; i < POOL + 50; i++)
        pcap_packet(&f1, i, 0, 60, 60, i);
    struct nst_port *p = open_port(save(&f1, f1.n, "in.pcap"), NULL, NULL);
    struct rte_mbuf *m[POOL + 50];
    struct nst_port_stats s;

    unsigned got = port_rx(p, m, POOL + 50);
    assert_int_equal(got, POOL);
    assert_int_equal(port_rx(p, m + got, 50), 0);
    nst_port_stats(p, &s);
    assert_true(s.rx_no_buffer > 0);
    p->ops->tx(p, m, got);
    assert_int_equal(port_rx(p, m, 100), 50);
    assert_int_equal(packet_of(m[49])->number, POOL + 50);
    p->ops->tx(p, m, 50);
    assert_int_equal(nst_port_close(p), 0);
    assert_pool_whole();
}

static void by_the_clock(void **state)
{
    pcap_begin(&f1, USEC, ETHERNET);
    pcap_packet(&f1, 1000, 0, 60, 60, 1);
    pcap_packet(&f1, 5000, 0, 60, 60, 2);
    const char *in = save(&f1, f1.n, "in.pcap");
    struct nst_capture_config c = { .inputs = &in, .n_inputs = 1, .speed = 0.001 };
    struct nst_port *p;
    struct rte_mbuf *m[2];

    assert_int_equal(nst_capture_open(&p, &c, NULL), 0);
    assert_int_equal(port_rx(p, m, 2), 1);
    assert_int_equal(port_rx(p, m + 1, 1), 0); /* it is due in 46 days */
    assert_false(p->ops->ended(p));
    p->ops->tx(p, m, 1);
    assert_int_equal(nst_port_close(p), 0);

    c.speed = 1e12;
    assert_int_equal(nst_capture_open(&p, &c, NULL), 0);
    unsigned n = 0;
    while (!p->ops->ended(p))
        n += pass_all(p);
    assert_int_equal(n, 2);
    assert_int_equal(nst_port_close(p), 0);
    assert_pool_whole();
}

/* Standard input is read as far as it has come, and never waited for. */
static void from_a_pipe(void **state)
{
    int fd[2], saved = dup(0);
    struct rte_mbuf *m[4];

    assert_int_equal(pipe(fd), 0);
    dup2(fd[0], 0);
    close(fd[0]);
    pcap_begin(&f1, USEC, ETHERNET);
    size_t begin = f1.n;
    pcap_packet(&f1, 1, 0, 60, 60, 1);
    pcap_packet(&f1, 2, 0, 60, 60, 2);
    size_t two = f1.n;
    pcap_packet(&f1, 3, 0, 60, 60, 3);
    assert_int_equal(write(fd[1], f1.b, begin), begin);
    struct nst_port *p = open_port("-", NULL, NULL);
    assert_int_equal(port_rx(p, m, 4), 0);
    assert_false(p->ops->ended(p));
    assert_int_equal(write(fd[1], f1.b + begin, two - begin), two - begin);
    assert_int_equal(port_rx(p, m, 4), 2);
    p->ops->tx(p, m, 2);
    assert_int_equal(port_rx(p, m, 4), 0);
    assert_int_equal(write(fd[1], f1.b + two, f1.n - two), f1.n - two);
    close(fd[1]);
    assert_int_equal(port_rx(p, m, 4), 1);
    assert_int_equal(packet_of(m[0])->number, 3);
    p->ops->tx(p, m, 1);
    assert_int_equal(port_rx(p, m, 4), 0);
    assert_true(p->ops->ended(p));
    assert_null(nst_capture_error(p));
    assert_int_equal(nst_port_close(p), 0);
    dup2(saved, 0);
    close(saved);
    assert_pool_whole();
}

struct told {
    uint64_t packets, bytes, of_bytes;
};

static void on_progress(void *arg, uint64_t packets, uint64_t done, uint64_t of)
{
    *(struct told *)arg = (struct told){ packets, done, of };
}

static void progress(void **state)
{
    pcap_begin(&f1, USEC, ETHERNET);
    for (unsigned i = 0; i < 50; i++)
        pcap_packet(&f1, i, 0, 60, 60, i);
    const char *in = save(&f1, f1.n, "in.pcap");
    struct told told = { 0 };
    struct nst_capture_config c = { .inputs = &in, .n_inputs = 1, .progress = on_progress, .progress_arg = &told };
    struct nst_port *p;

    assert_int_equal(nst_capture_open(&p, &c, NULL), 0);
    pass_all(p);
    assert_int_equal(nst_port_close(p), 0);
    assert_int_equal(told.packets, 50);
    assert_int_equal(told.bytes, f1.n);
    assert_int_equal(told.of_bytes, f1.n);
}

static int setup(void **state)
{
    struct nst_io_config c = { .packets = POOL, .no_huge = true };
    const char *why = "";

    if (mkdtemp(dir) == NULL)
        return -1;
    nst_log_level(NST_LOG_WARNING);
    int rc = nst_io_open(&c, &why);
    if (rc < 0)
        fprintf(stderr, "%s\n", why);
    return rc;
}

static int teardown(void **state)
{
    static const char *const names[] = { "in.pcap",    "out.pcap",   "in.pcapng",  "a.pcap",   "b.pcap",
                                         "cut.pcap",   "cut.pcapng", "wrong.pcap", "bad.pcap", "good.pcap",
                                         "empty.pcap", "sll.pcap",   "sll.pcapng" };
    uint32_t missing = 0;
    int rc = nst_io_close(&missing);

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(path(names[i]));
    rmdir(dir);
    return rc == 0 && missing == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(through_unchanged),
        cmocka_unit_test(notes_of_packets),
        cmocka_unit_test(merged_by_time),
        cmocka_unit_test(times_going_back),
        cmocka_unit_test(written_in_the_order_of_the_input),
        cmocka_unit_test(super_packets),
        cmocka_unit_test(every_truncation),
        cmocka_unit_test(every_byte_wrong),
        cmocka_unit_test(one_bad_of_two),
        cmocka_unit_test(refusals),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(pool_used_up),
        cmocka_unit_test(by_the_clock),
        cmocka_unit_test(from_a_pipe),
        cmocka_unit_test(progress),
    };
    return cmocka_run_group_tests_name("io_capture", tests, setup, teardown);
}
