/* SPDX-License-Identifier: Apache-2.0 */
/* Step 5, futures: step 3, and whoever has had too many connections is barred for a while. Both requests go out
 * together. */
#include <arpa/inet.h>
#include <netstar/netstar.h>
#include <stdlib.h>

struct limit {
    struct nst_nf nf;
    struct nst_store *store;
    int64_t most;
    nst_time forget, bar, patience;
    uint64_t counted, refused, barred;
};

static struct nst_slice client_key(const struct nst_flow *f, const char *what, char *buf, size_t size)
{
    struct nst_endpoint client;
    char address[INET6_ADDRSTRLEN];

    nst_flow_endpoint(f, NST_CLIENT, &client);
    inet_ntop(client.family == 4 ? AF_INET : AF_INET6, client.addr, address, sizeof address);
    return (struct nst_slice){ buf, (size_t)snprintf(buf, size, "%s:%s", what, address) };
}

static enum nst_verdict on_open(struct nst_flow *f, const struct nst_event *ev)
{
    struct limit *l = nst_nf_arg(f);
    nst_time until = nst_now() + l->patience < ev->until ? nst_now() + l->patience : ev->until;
    char count_name[64], bar_name[64], mark;
    struct nst_slice count_key = client_key(f, "conn", count_name, sizeof count_name);
    struct nst_slice bar_key = client_key(f, "barred", bar_name, sizeof bar_name);
    struct nst_future counted, barred;
    struct nst_future *const both[] = { &counted, &barred };
    int64_t n = 0;

    nst_incr_start(l->store, count_key, 1, &n, l->forget, &counted);
    nst_get_start(l->store, bar_key, &mark, sizeof mark, NULL, &barred);
    int rc = nst_await_all(both, 2, until);
    if (rc < 0 && rc != -ENOENT) /* that nobody has barred the client is no failure */
        return nst_fail(f, rc);
    l->counted++;
    if (barred.rc >= 0) {
        l->barred++;
        return NST_DROP_FLOW;
    }
    if (n <= l->most)
        return NST_FORWARD;

    l->refused++;
    rc = nst_put(l->store, bar_key, (struct nst_slice){ "", 1 }, l->bar, ev->until);
    if (rc < 0)
        nst_log(NST_LOG_DEBUG, "step5: a client could not be barred (%d)", rc); /* it is refused all the same */
    return NST_RESET_FLOW;
}

static int limit_open(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    enum nst_verdict failing = env->fail_open ? NST_FORWARD : NST_DROP;
    const char *most = env->option(env, "most"), *patience = env->option(env, "patience-ms");
    struct limit *l = calloc(1, sizeof *l);

    if (l == NULL)
        return -ENOMEM;
    l->store = env->store;
    l->most = most != NULL ? strtoll(most, NULL, 10) : 100;
    l->forget = NST_SEC(60);
    l->bar = NST_SEC(600);
    l->patience = NST_MS(patience != NULL ? atoi(patience) : 50);
    l->nf.name = "step5";
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
    fprintf(out, "  connections of barred clients  %llu\n", (unsigned long long)l->barred);
}

static const struct nst_option options[] = {
    { "most", "N", "connections from one address (100)", false },
    { "patience-ms", "N", "how long the store has for its two answers (50)", false },
    { NULL, NULL, NULL, false },
};

NST_API const struct nst_module nst_module = {
    .abi = NST_MODULE_ABI,
    .name = "step5",
    .summary = "limits the connections from one address, and bars who has too many",
    .options = options,
    .uses_store = true,
    .open = limit_open,
    .close = limit_close,
    .report = limit_report,
};
