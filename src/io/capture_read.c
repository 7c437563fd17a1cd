/* SPDX-License-Identifier: Apache-2.0 */
#include "io/capture.h"
#include "io/eal.h"
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BUFFER = 1 << 20 };

/* The magic number tells whether a pcap file has microseconds; a pcapng file is taken to have nanoseconds, since each
 * of its interfaces may. */
static bool fine_times(const uint8_t magic[4])
{
    static const uint8_t micro[2][4] = { { 0xa1, 0xb2, 0xc3, 0xd4 }, { 0xd4, 0xc3, 0xb2, 0xa1 } };
    return memcmp(magic, micro[0], 4) != 0 && memcmp(magic, micro[1], 4) != 0;
}

int capture_input_open(struct capture_input *in, const char *name, const char **why)
{
    char err[PCAP_ERRBUF_SIZE] = "";
    uint8_t magic[4];
    struct stat st;

    memset(in, 0, sizeof *in);
    in->fd = -1;
    in->name = strcmp(name, "-") == 0 ? "standard input" : name;
    in->file = strcmp(name, "-") == 0 ? fdopen(dup(STDIN_FILENO), "rb") : fopen(name, "rb");
    if (in->file == NULL)
        return io_fail(-errno, why, "%s: %s", in->name, strerror(errno));
    if (fstat(fileno(in->file), &st) == 0) {
        if (S_ISDIR(st.st_mode)) {
            capture_input_close(in);
            return io_fail(-EINVAL, why, "%s: is a directory", in->name);
        }
        if (S_ISREG(st.st_mode))
            in->of_bytes = (uint64_t)st.st_size;
        else
            in->fd = fileno(in->file);
    }
    setvbuf(in->file, NULL, _IOFBF, READ_BUFFER);
    size_t n = fread(magic, 1, sizeof magic, in->file);
    in->nanoseconds = n < sizeof magic || fine_times(magic);
    if (n == 0) {
        int rc = ferror(in->file) ? -errno : -EINVAL;
        capture_input_close(in);
        return io_fail(rc, why, "%s: %s", name, rc == -EINVAL ? "is empty, not a capture" : strerror(-rc));
    }
    /* Bytes that were just read from a full buffer can all be put back. */
    while (n > 0)
        ungetc(magic[--n], in->file);
    in->pcap = pcap_fopen_offline_with_tstamp_precision(in->file, PCAP_TSTAMP_PRECISION_NANO, err);
    if (in->pcap == NULL) {
        capture_input_close(in);
        return io_fail(-EINVAL, why, "%s: is not a pcap or pcapng file: %s", name, err);
    }
    int link = pcap_datalink(in->pcap);
    if (link != DLT_EN10MB) {
        const char *has = pcap_datalink_val_to_name(link);
        capture_input_close(in);
        return io_fail(-EINVAL, why, "%s: has link type %s (%d), and only Ethernet (EN10MB) can be read", name,
                       has != NULL ? has : "unknown", link);
    }
    return 0;
}

/* Nothing to read now? A pipe must not stop the reactor; what stdio has read ahead counts, too. */
static bool must_wait(const struct capture_input *in)
{
    if (in->fd < 0 || in->file->_IO_read_ptr < in->file->_IO_read_end)
        return false;
    struct pollfd p = { .fd = in->fd, .events = POLLIN };
    return poll(&p, 1, 0) == 0;
}

int capture_input_next(struct capture_input *in, const char **error)
{
    in->have = false;
    if (in->ended)
        return -ENODATA;
    if (must_wait(in))
        return 0;
    int rc = pcap_next_ex(in->pcap, &in->head, &in->data);
    if (rc == 1) {
        in->have = true;
        in->packets++;
        if (in->of_bytes != 0) {
            off_t at = ftello(in->file);
            in->bytes = at > 0 ? (uint64_t)at : 0;
        } else {
            in->bytes += 16 + in->head->caplen;
        }
        return 1;
    }
    in->ended = true;
    if (rc == PCAP_ERROR_BREAK) {
        in->bytes = in->of_bytes != 0 ? in->of_bytes : in->bytes;
        return -ENODATA;
    }
    return io_fail(-EIO, error, "%s: cannot be read beyond packet %llu: %s", in->name, (unsigned long long)in->packets,
                   pcap_geterr(in->pcap));
}

nst_time capture_input_time(const struct capture_input *in)
{
    const nst_time last = NST_NEVER / NST_SEC(1) / 2; /* deadlines are added to it */
    nst_time s = in->head->ts.tv_sec, ns = in->head->ts.tv_usec;

    /* A file may claim any time; the clock must not overflow, nor start below zero. */
    if (s < 0 || s > last || ns < 0 || ns >= NST_SEC(1))
        return s > last ? NST_SEC(last) : 0;
    return NST_SEC(s) + ns;
}

void capture_input_close(struct capture_input *in)
{
    if (in->pcap != NULL)
        pcap_close(in->pcap); /* closes the file, too */
    else if (in->file != NULL)
        fclose(in->file);
    in->pcap = NULL;
    in->file = NULL;
}
