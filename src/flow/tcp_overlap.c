/* SPDX-License-Identifier: Apache-2.0 */
/* Overlap policies by name and by network. */
#include "flow/tcp_overlap.h"
#include "flow/engine.h"
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    enum nst_overlap policy;
} names[] = {
    { "first", NST_OVERLAP_FIRST },     { "last", NST_OVERLAP_LAST },           { "bsd", NST_OVERLAP_BSD },
    { "linux", NST_OVERLAP_LINUX },     { "old-linux", NST_OVERLAP_OLD_LINUX }, { "solaris", NST_OVERLAP_SOLARIS },
    { "windows", NST_OVERLAP_WINDOWS }, { "macos", NST_OVERLAP_MACOS },         { "vista", NST_OVERLAP_VISTA },
    { "hpux11", NST_OVERLAP_HPUX11 },
};

int nst_overlap_by_name(const char *name, enum nst_overlap *out)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i].name, name) == 0) {
            *out = names[i].policy;
            return 0;
        }
    }
    return -EINVAL;
}

static int longer_first(const void *a, const void *b)
{
    const struct nst_overlap_net *x = a, *y = b;
    return (int)y->bits - (int)x->bits;
}

int overlap_open(struct nst_engine *e, const struct nst_engine_config *config)
{
    unsigned n = config->n_overlap_nets;

    if ((unsigned)config->overlap >= NST_OVERLAPS)
        return -EINVAL;
    e->overlap = config->overlap;
    for (unsigned i = 0; i < n; i++) {
        const struct nst_overlap_net *net = &config->overlap_nets[i];
        if ((net->family != 4 && net->family != 6) || net->bits > (net->family == 4 ? 32 : 128) ||
            (unsigned)net->policy >= NST_OVERLAPS)
            return -EINVAL;
    }
    if (n == 0)
        return 0;
    e->overlap_nets = calloc(n, sizeof *e->overlap_nets);
    if (e->overlap_nets == NULL)
        return -ENOMEM;
    memcpy(e->overlap_nets, config->overlap_nets, n * sizeof *e->overlap_nets);
    qsort(e->overlap_nets, n, sizeof *e->overlap_nets, longer_first);
    e->n_overlap_nets = n;
    return 0;
}

void overlap_close(struct nst_engine *e)
{
    free(e->overlap_nets);
}

static bool in_network(const struct nst_endpoint *end, const struct nst_overlap_net *net)
{
    unsigned bytes = net->bits / 8, rest = net->bits % 8;

    return end->family == net->family && memcmp(end->addr, net->addr, bytes) == 0 &&
           (rest == 0 || ((end->addr[bytes] ^ net->addr[bytes]) >> (8 - rest)) == 0);
}

enum nst_overlap overlap_of(const struct nst_flow *f, enum nst_side side)
{
    const struct nst_engine *e = f->engine;
    struct nst_endpoint end;

    if (e->policy.normalise)
        return NST_OVERLAP_FIRST;
    if (e->n_overlap_nets == 0)
        return e->overlap;
    nst_flow_endpoint(f, side, &end);
    for (unsigned i = 0; i < e->n_overlap_nets; i++) {
        if (in_network(&end, &e->overlap_nets[i]))
            return e->overlap_nets[i].policy;
    }
    return e->overlap;
}
