/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/ports.h - where packets come from and go to: DPDK devices, Linux interfaces, captures.
 *
 * nst_io_open starts DPDK once for the process. Ports are then opened, given to an engine, and closed after it.
 * Call these on the thread that will run the reactor. None waits.
 */
#pragma once
#include <netstar/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct nst_port;

struct nst_io_config {
    const char *eal;  /* further EAL arguments, separated by blanks; NULL: none */
    uint32_t packets; /* packet buffers; 0: 16384 for each core */
    unsigned cores;   /* that will share the ports, see cores.h: ports are opened with so many queues where their device
                         brings both directions of a flow to the same one; 0: one */
    bool no_huge;     /* use ordinary pages even where huge pages are to be had */
    bool verbose;     /* let DPDK log */
};

/* Starts DPDK: with huge pages where they are to be had, else with ordinary ones (and says so at level info).
 * -EPERM, -ENOMEM, -EINVAL (bad EAL arguments), -EALREADY; -EAGAIN: others took the huge pages while it started. After
 * a failure DPDK may not start again in this process; after -EAGAIN a new process can have it with no_huge. *why as in
 * store.h. */
NST_API int nst_io_open(const struct nst_io_config *config, const char **why);

/* Stops DPDK. Returns 0, or -EBUSY when packet buffers are missing from the pool: the number is in *missing (may be
 * NULL). Every port must have been closed. */
NST_API int nst_io_close(uint32_t *missing);

/* Gives the calling thread, which is not the one of nst_io_open, its own share of the packet pool, without which it
 * works more slowly; before it runs its reactor. -ENOTSUP: DPDK has no more room for threads, or shares its memory with
 * other processes. Leave before the thread ends. */
NST_API int nst_io_join(void);
NST_API void nst_io_leave(void);

/* Opens a port by name, in one of these forms:
 *   eth1                          a Linux interface: AF_XDP, or AF_PACKET where that cannot be had
 *   xdp:eth1   packet:eth1        the one or the other
 *   net_ring0  net_null0,size=64  any DPDK vdev string; 0000:01:00.0 any EAL device
 * -ENODEV no such interface, -EPERM, -EINVAL, -ENOMEM, or what the driver said; *why in words. */
NST_API int nst_port_open(struct nst_port **out, const char *name, const char **why);

struct nst_capture_config {
    const char *const *inputs; /* pcap or pcapng files, merged by time; "-" is standard input */
    unsigned n_inputs;
    const char *output; /* pcap file for what is forwarded; NULL: none */
    double speed;       /* 0: as fast as the NF takes it; 1: as recorded; 2: twice as fast */
    void (*progress)(void *arg, uint64_t packets, uint64_t bytes, uint64_t of_bytes); /* now and then; may be NULL */
    void *progress_arg;
};

/* Opens a port that reads captures and writes what is forwarded. Its packets' times drive the reactor's clock. Nothing
 * is read while answers are outstanding, so that nothing is ever dropped for speed, and what was forwarded is written
 * in the order of the input. -ENOENT, -EACCES, -EINVAL (not a capture, or a link type that is not Ethernet), with *why
 * naming the file. A file that ends or turns bad in its middle is read up to there; nst_capture_error tells. */
NST_API int nst_capture_open(struct nst_port **out, const struct nst_capture_config *config, const char **why);

/* NULL, or what was wrong in the middle of an input or with writing the output. Borrowed from the port. */
NST_API const char *nst_capture_error(const struct nst_port *p);

/* Closes a port. NULL is allowed. Returns the errno of finishing an output file. */
NST_API int nst_port_close(struct nst_port *p);

/* What the port did so far. Missed: the device had no room; no_buffer: the pool had none; tx_dropped: it could not be
 * sent. */
struct nst_port_stats {
    uint64_t rx_packets, rx_bytes, rx_missed, rx_no_buffer;
    uint64_t tx_packets, tx_bytes, tx_dropped;
};
NST_API void nst_port_stats(const struct nst_port *p, struct nst_port_stats *out);
NST_API const char *nst_port_name(const struct nst_port *p);
/* What moves the packets: "af_xdp", "af_packet", "capture", or the DPDK driver's name. */
NST_API const char *nst_port_driver(const struct nst_port *p);

#ifdef __cplusplus
}
#endif
