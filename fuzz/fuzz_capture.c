/* SPDX-License-Identifier: Apache-2.0 */
/* A capture file of any bytes: it is refused or read, forwarded and written, and no packet buffer is lost. */
#include "io/port.h"
#include <rte_mempool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int in_fd, out_fd;
static char in_path[32], out_path[32];

static void begin(void)
{
    struct nst_io_config config = { .packets = 256, .no_huge = true };
    const char *why = "";

    nst_log_level(NST_LOG_ERROR);
    if (nst_io_open(&config, &why) < 0) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
    in_fd = memfd_create("in", 0);
    out_fd = memfd_create("out", 0);
    snprintf(in_path, sizeof in_path, "/proc/self/fd/%d", in_fd);
    snprintf(out_path, sizeof out_path, "/proc/self/fd/%d", out_fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *inputs[] = { in_path };
    struct nst_capture_config config = { .inputs = inputs, .n_inputs = 1, .output = out_path };
    struct nst_port *p;
    struct rte_mbuf *m[32];
    nst_time last = 0;
    unsigned n;

    if (in_path[0] == '\0')
        begin();
    if (ftruncate(in_fd, 0) < 0 || pwrite(in_fd, data, size, 0) != (ssize_t)size)
        abort();
    const char *why = NULL;
    if (nst_capture_open(&p, &config, &why) < 0) {
        if (why == NULL)
            abort();
        return 0;
    }
    while ((n = port_rx(p, m, 32)) != 0) {
        for (unsigned i = 0; i < n; i++) {
            const struct nst_packet *k = packet_of(m[i]);
            size_t len = nst_packet_len(k);
            if (nst_packet_time(k) < last || nst_packet_bytes(k, 0, len) == NULL)
                abort();
            last = nst_packet_time(k);
            port_tx(p, m[i]);
        }
        port_flush(p);
        p->ops->quiet(p);
    }
    if (!p->ops->ended(p) || nst_port_close(p) != 0 || rte_mempool_in_use_count(port_pool) != 0)
        abort();
    return 0;
}
