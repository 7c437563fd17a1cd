/* SPDX-License-Identifier: Apache-2.0 */
/* Step 7, callbacks: step 3 once more, the wait written out by hand. */
#include <arpa/inet.h>
#include <netstar/netstar.h>
#include <stdlib.h>

struct limit {
    struct nst_nf nf;
    struct nst_store *store;
    int64_t most;
    nst_time forget;
    uint64_t counted, refused;
};

static struct nst_slice client_key(const struct nst_flow *f, char *buf, size_t size)
{
    struct nst_endpoint client;
    char address[INET6_ADDRSTRLEN];

    nst_flow_endpoint(f, NST_CLIENT, &client);
    inet_ntop(client.family == 4 ? AF_INET : AF_INET6, client.addr, address, sizeof address);
    return (struct nst_slice){ buf, (size_t)snprintf(buf, size, "conn:%s", address) };
}

/* What step 3 had on its stack while it waited. */
struct wait {
    struct nst_future answer;
    struct nst_flow *flow;
    enum nst_side side;
    int64_t n;
};

static void on_counted(struct nst_future *answer, int rc)
{
    struct wait *w = answer->arg;
    struct nst_flow *f = w->flow;
    struct limit *l = nst_nf_arg(f);
    enum nst_side side = w->side;
    enum nst_verdict verdict = NST_FORWARD;

    if (rc < 0) {
        verdict = nst_fail(f, rc);
    } else {
        l->counted++;
        if (w->n > l->most) {
            l->refused++;
            verdict = NST_RESET_FLOW;
        }
    }
    free(w);
    nst_resume(f, side, verdict); /* last: the flow may be gone when it returns */
}

static enum nst_verdict on_open(struct nst_flow *f, const struct nst_event *ev)
{
    struct limit *l = nst_nf_arg(f);
    struct wait *w = malloc(sizeof *w);
    char buf[64];

    if (w == NULL)
        return nst_fail(f, -ENOMEM);
    w->flow = f;
    w->side = ev->side;
    w->n = 0;
    nst_incr_start(l->store, client_key(f, buf, sizeof buf), 1, &w->n, l->forget, &w->answer);
    nst_then(&w->answer, on_counted, w, ev->until);
    return NST_PENDING;
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
    l->nf.name = "step7";
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
        .on_midstream = NST_FORWARD,
        .on_conflict = NST_FORWARD,
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
    .name = "step7",
    .summary = "limits the connections from one address, with callbacks",
    .options = options,
    .uses_store = true,
    .open = limit_open,
    .close = limit_close,
    .report = limit_report,
};
