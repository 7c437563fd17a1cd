/* SPDX-License-Identifier: Apache-2.0 */
/* Step 3, waiting: so many connections from one address, counted in the store, by all instances together. */
#include <arpa/inet.h>
#include <netstar/netstar.h>
#include <stdlib.h>

struct limit {
    struct nst_nf nf;
    struct nst_store *store; /* borrowed from the command */
    int64_t most;
    nst_time forget; /* a count ends when there was no connection for so long */
    uint64_t counted, refused;
};

/* The key of the client's count, such as "conn:10.0.0.1". Its bytes are in buf. */
static struct nst_slice client_key(const struct nst_flow *f, char *buf, size_t size)
{
    struct nst_endpoint client;
    char address[INET6_ADDRSTRLEN];

    nst_flow_endpoint(f, NST_CLIENT, &client);
    inet_ntop(client.family == 4 ? AF_INET : AF_INET6, client.addr, address, sizeof address);
    return (struct nst_slice){ buf, (size_t)snprintf(buf, size, "conn:%s", address) };
}

static enum nst_verdict on_open(struct nst_flow *f, const struct nst_event *ev)
{
    struct limit *l = nst_nf_arg(f);
    char buf[64];
    int64_t n = 0;

    int rc = nst_incr(l->store, client_key(f, buf, sizeof buf), 1, &n, l->forget, ev->until); /* waits */
    if (rc < 0)
        return nst_fail(f, rc); /* the policy decides */
    l->counted++;
    if (n > l->most) {
        l->refused++;
        return NST_RESET_FLOW;
    }
    return NST_FORWARD;
}

static int limit_open(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    enum nst_verdict failing = env->fail_open ? NST_FORWARD : NST_DROP;
    const char *most = env->option(env, "most");
    struct limit *l = calloc(1, sizeof *l);

    if (l == NULL)
        return -ENOMEM;
    l->store = env->store;
    l->most = most != NULL ? strtoll(most, NULL, 10) : 100;
    l->forget = NST_SEC(60);
    l->nf.name = "step3";
    l->nf.half[NST_SERVER] = (struct nst_half){
        .inspect = &nst_tcp,
        .on_received = NST_EV_OPEN,
        .handler = on_open,
    };
    l->nf.policy = (struct nst_policy){
        .on_timeout = failing,
        .on_store = failing,
        .on_hold_full = failing,
        .on_no_memory = failing,
        .on_midstream = NST_FORWARD, /* a connection from before our start: it was counted then, or never will be */
        .on_conflict = NST_FORWARD,  /* nobody here looks at the bytes */
    };
    *nf = &l->nf;
    *arg = l;
    return 0;
}

static void limit_close(void *arg)
{
    free(arg);
}

static void limit_report(void *arg, FILE *out)
{
    const struct limit *l = arg;

    fprintf(out, "  connections counted  %llu\n", (unsigned long long)l->counted);
    fprintf(out, "  connections refused  %llu\n", (unsigned long long)l->refused);
}

static const struct nst_option options[] = {
    { "most", "N", "connections from one address (100)", false },
    { NULL, NULL, NULL, false },
};

NST_API const struct nst_module nst_module = {
    .abi = NST_MODULE_ABI,
    .name = "step3",
    .summary = "limits the connections from one address",
    .options = options,
    .uses_store = true,
    .open = limit_open,
    .close = limit_close,
    .report = limit_report,
};
