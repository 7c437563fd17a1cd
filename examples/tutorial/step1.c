/* SPDX-License-Identifier: Apache-2.0 */
/* Step 1, an event and a verdict: counts the packets of each flow; with --most N, drops what a flow has beyond N. */
#include <netstar/netstar.h>
#include <stdlib.h>

/* What there is once: its address comes back from nst_nf_arg. */
struct counter {
    struct nst_nf nf;
    uint64_t most; /* 0: no limit */
    uint64_t flows, packets, longest;
};

/* What there is for each flow, zeroed at its first packet: its address comes back from nst_flow_state. */
struct per_flow {
    uint64_t packets;
};

static enum nst_verdict on_packet(struct nst_flow *f, const struct nst_event *ev)
{
    struct counter *c = nst_nf_arg(f);
    struct per_flow *mine = nst_flow_state(f);

    if (ev->what & NST_EV_CLOSE) {
        c->flows++;
        c->packets += mine->packets;
        if (mine->packets > c->longest)
            c->longest = mine->packets;
        return NST_FORWARD; /* there is no packet: nobody looks at it */
    }
    if (c->most != 0 && mine->packets == c->most)
        return NST_DROP;
    mine->packets++;
    return NST_FORWARD;
}

static int counter_open(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    const char *most = env->option(env, "most");
    struct counter *c = calloc(1, sizeof *c);

    if (c == NULL)
        return -ENOMEM;
    c->most = most != NULL ? strtoull(most, NULL, 10) : 0;
    if (most != NULL && c->most == 0) {
        *why = "--most: expected a number from 1";
        free(c);
        return -EINVAL;
    }
    c->nf.name = "step1";
    c->nf.flow_size = sizeof(struct per_flow);
    c->nf.half[NST_CLIENT] = (struct nst_half){
        .on_sent = NST_EV_PACKET,
        .on_received = NST_EV_PACKET | NST_EV_CLOSE,
        .handler = on_packet,
    };
    *nf = &c->nf;
    *arg = c;
    return 0;
}

static void counter_close(void *arg)
{
    free(arg);
}

static void counter_report(void *arg, FILE *out)
{
    const struct counter *c = arg;

    fprintf(out, "  flows counted  %llu\n", (unsigned long long)c->flows);
    fprintf(out, "  packets counted  %llu\n", (unsigned long long)c->packets);
    fprintf(out, "  longest flow  %llu\n", (unsigned long long)c->longest);
}

static const struct nst_option options[] = {
    { "most", "N", "drop what a flow has beyond N packets", false },
    { NULL, NULL, NULL, false },
};

NST_API const struct nst_module nst_module = {
    .abi = NST_MODULE_ABI,
    .name = "step1",
    .summary = "counts the packets of each flow",
    .options = options,
    .open = counter_open,
    .close = counter_close,
    .report = counter_report,
};
