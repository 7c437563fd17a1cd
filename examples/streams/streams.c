/* SPDX-License-Identifier: Apache-2.0 */
/* Writes what each end of each TCP connection receives into a file of its own. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netstar/netstar.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct streams {
    struct nst_nf nf;
    const char *dir;
    uint64_t written, bytes; /* files; bytes in them */
    uint64_t failed;         /* pieces that could not be written */
};

/* Of one flow: the number of the file into which goes what an end receives, by end. */
struct own {
    uint64_t file[2];
};

static int name_of(char *name, size_t size, const struct nst_flow *f, enum nst_side side, uint64_t number)
{
    const struct streams *s = nst_nf_arg(f);
    struct nst_endpoint from, to;
    char a[INET6_ADDRSTRLEN], b[INET6_ADDRSTRLEN];

    nst_flow_endpoint(f, !side, &from);
    nst_flow_endpoint(f, side, &to);
    inet_ntop(from.family == 4 ? AF_INET : AF_INET6, from.addr, a, sizeof a);
    inet_ntop(to.family == 4 ? AF_INET : AF_INET6, to.addr, b, sizeof b);
    return snprintf(name, size, "%s/%06llu-%s.%u-%s.%u", s->dir, (unsigned long long)number, a, from.port, b, to.port);
}

/* A file is opened for each piece: there may be more connections at once than files can be open. */
static int open_file(struct nst_flow *f, enum nst_side side)
{
    struct streams *s = nst_nf_arg(f);
    struct own *own = nst_flow_state(f);
    int flags = O_WRONLY | O_CLOEXEC;
    char name[4096];

    if (own->file[side] == 0) {
        own->file[side] = ++s->written;
        flags |= O_CREAT | O_TRUNC;
    }
    name_of(name, sizeof name, f, side, own->file[side]);
    return open(name, flags, 0644);
}

/* At its place: where the capture has a hole, so has the file. */
static void write_piece(struct streams *s, int fd, uint64_t at, struct nst_slice piece)
{
    if (pwrite(fd, piece.p, piece.len, (off_t)at) != (ssize_t)piece.len)
        s->failed++;
    s->bytes += piece.len;
}

/* What a capture has of a stream behind its last hole comes with the flow's end. */
static void on_close(struct nst_flow *f, enum nst_side side)
{
    struct nst_slice piece;
    uint64_t at;
    int fd = -1;

    while (nst_tcp_rest(f, side, &at, &piece)) {
        if (fd < 0 && (fd = open_file(f, side)) < 0) {
            ((struct streams *)nst_nf_arg(f))->failed++;
            break;
        }
        write_piece(nst_nf_arg(f), fd, at, piece);
    }
    if (fd >= 0)
        close(fd);
}

static enum nst_verdict on_data(struct nst_flow *f, const struct nst_event *ev)
{
    struct streams *s = nst_nf_arg(f);
    struct nst_slice piece;

    if (ev->what & NST_EV_CLOSE) {
        on_close(f, ev->side);
        return NST_FORWARD;
    }
    uint64_t at = nst_tcp_offset(f, ev->side);
    int fd = open_file(f, ev->side);
    if (fd < 0)
        s->failed++;
    while (fd >= 0 && nst_flow_bytes(f, ev->side, &piece)) {
        write_piece(s, fd, at, piece);
        at += piece.len;
    }
    if (fd >= 0)
        close(fd);
    return NST_FORWARD;
}

static int streams_open(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    const struct nst_half half = { .inspect = &nst_tcp, .on_received = NST_EV_DATA | NST_EV_CLOSE, .handler = on_data };
    struct streams *s;

    /* Writing to a disk waits, and nothing may wait on the way of live packets. */
    if (!env->replay) {
        *why = "it works on captures only (-r FILE)";
        return -EINVAL;
    }
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return -ENOMEM;
    s->dir = env->option(env, "dir");
    s->nf.name = "streams";
    s->nf.half[NST_CLIENT] = s->nf.half[NST_SERVER] = half;
    s->nf.flow_size = sizeof(struct own);
    /* A capture is what it is: connections that it begins in the middle of are taken from there, and of bytes that come
     * twice and differ the first are kept. */
    s->nf.policy.on_midstream = s->nf.policy.on_conflict = NST_FORWARD;
    *nf = &s->nf;
    *arg = s;
    return 0;
}

static void streams_close(void *arg)
{
    free(arg);
}

static void streams_report(void *arg, FILE *out)
{
    const struct streams *s = arg;

    fprintf(out, "  streams written  %llu\n", (unsigned long long)s->written);
    fprintf(out, "  bytes written  %llu\n", (unsigned long long)s->bytes);
    fprintf(out, "  pieces failed  %llu\n", (unsigned long long)s->failed);
}

static const struct nst_option options[] = {
    { "dir", "DIR", "where the files go; it must be there", true },
    { NULL, NULL, NULL, false },
};

NST_API const struct nst_module nst_module = {
    .abi = NST_MODULE_ABI,
    .name = "streams",
    .summary = "writes every TCP stream of a capture into a file",
    .options = options,
    .open = streams_open,
    .close = streams_close,
    .report = streams_report,
};
