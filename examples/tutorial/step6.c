/* SPDX-License-Identifier: Apache-2.0 */
/* Step 6, tasks and scopes: step 3, with a limit that is read from the store again and again while packets go by. */
#include <arpa/inet.h>
#include <netstar/netstar.h>
#include <stdlib.h>

struct limit {
    struct nst_nf nf;
    struct nst_store *store;
    struct nst_scope *scope; /* owns the task */
    int64_t most;
    nst_time forget;
    uint64_t counted, refused, looked;
};

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

    int rc = nst_incr(l->store, client_key(f, buf, sizeof buf), 1, &n, l->forget, ev->until);
    if (rc < 0)
        return nst_fail(f, rc);
    l->counted++;
    if (n > l->most) { /* no lock: the task below runs on this core, and only while nobody else does */
        l->refused++;
        return NST_RESET_FLOW;
    }
    return NST_FORWARD;
}

/* What was set with `redis-cli set conn-most 20` is the limit. Adding nothing reads a counter; 0: nobody has set it. */
static int look(struct limit *l)
{
    const struct nst_slice key = { "conn-most", 9 };
    int64_t most = 0;

    int rc = nst_incr(l->store, key, 0, &most, 0, nst_now() + NST_SEC(1));
    if (rc == 0 && most > 0)
        l->most = most;
    l->looked += rc == 0;
    return rc;
}

/* A task: looks again every second, until its scope is closed. */
static void follow_limit(void *arg)
{
    struct limit *l = arg;

    while (nst_sleep(nst_now() + NST_SEC(1)) == 0) {
        int rc = look(l);
        if (rc < 0 && rc != -ECANCELED)
            nst_log(NST_LOG_DEBUG, "step6: the limit stays as it is (%d)", rc);
    }
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
    l->nf.name = "step6";
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

    if (look(l) < 0) /* there is no traffic yet: now is the time to wait */
        nst_log(NST_LOG_WARNING, "step6: the limit cannot be read, it is %lld", (long long)l->most);
    int rc = nst_scope_open(&l->scope, NULL);
    if (rc == 0)
        rc = nst_spawn(l->scope, follow_limit, l);
    if (rc < 0) {
        if (l->scope != NULL && nst_scope_close(l->scope) < 0)
            nst_log(NST_LOG_ERROR, "step6: the scope could not be closed");
        free(l);
        return rc;
    }
    *nf = &l->nf;
    *arg = l;
    return 0;
}

static void limit_close(void *arg)
{
    struct limit *l = arg;

    if (nst_scope_close(l->scope) < 0) /* cancels the task and waits for its end */
        nst_log(NST_LOG_ERROR, "step6: the scope could not be closed");
    free(l);
}

static void limit_report(void *arg, FILE *out)
{
    const struct limit *l = arg;

    fprintf(out, "  connections counted  %llu\n", (unsigned long long)l->counted);
    fprintf(out, "  connections refused  %llu\n", (unsigned long long)l->refused);
    fprintf(out, "  the limit at the end  %lld\n", (long long)l->most);
    fprintf(out, "  times looked  %llu\n", (unsigned long long)l->looked);
}

static const struct nst_option options[] = {
    { "most", "N", "connections from one address until the store says otherwise (100)", false },
    { NULL, NULL, NULL, false },
};

NST_API const struct nst_module nst_module = {
    .abi = NST_MODULE_ABI,
    .name = "step6",
    .summary = "limits the connections from one address; the limit is in the store",
    .options = options,
    .uses_store = true,
    .open = limit_open,
    .close = limit_close,
    .report = limit_report,
};
