/* SPDX-License-Identifier: Apache-2.0 */
/* Counts packets, drops every n-th, and may wait before each verdict. */
#include <netstar/netstar.h>
#include <stdlib.h>
#include <string.h>

struct counter {
    struct nst_nf nf;
    uint64_t seen, every, quiet;
    nst_time wait;
};

static enum nst_verdict count(struct nst_flow *f, const struct nst_event *ev)
{
    struct counter *c = nst_nf_arg(f);

    if (c->seen++ == 0 && c->wait != 0)
        nst_log(NST_LOG_INFO, "counter: the first waits");
    if (c->wait != 0) {
        nst_time until = nst_now() + c->wait;
        int rc = nst_sleep(until < ev->until ? until : ev->until);

        if (rc == 0 && until > ev->until)
            rc = -ETIMEDOUT;
        if (rc < 0)
            return nst_fail(f, rc);
    }
    return c->every != 0 && c->seen % c->every == 0 ? NST_DROP : NST_FORWARD;
}

static int counter_open(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    const char *every = env->option(env, "every"), *wait = env->option(env, "wait-ms");
    struct counter *c;

    if (every != NULL && atoi(every) < 1) {
        *why = "--every: expected a number from 1";
        return -EINVAL;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL)
        return -ENOMEM;
    c->nf.name = "counter";
    c->nf.proto = 17;
    c->nf.half[NST_SERVER] = (struct nst_half){ .inspect = &nst_udp, .on_received = NST_EV_DATA, .handler = count };
    c->nf.policy.on_timeout = env->fail_open ? NST_FORWARD : NST_DROP;
    c->every = every != NULL ? (uint64_t)atoi(every) : 0;
    c->wait = wait != NULL ? NST_MS(atoi(wait)) : 0;
    *nf = &c->nf;
    *arg = c;
    return 0;
}

static void counter_close(void *arg)
{
    free(arg);
}

static void counter_quiet(void *arg)
{
    struct counter *c = arg;

    c->quiet = 1;
}

static void counter_report(void *arg, FILE *out)
{
    struct counter *c = arg;

    fprintf(out, "  packets seen  %llu\n  was quiet  %s\n", (unsigned long long)c->seen, c->quiet ? "yes" : "no");
}

static const struct nst_option options[] = {
    { "every", "N", "drop every N-th packet", false },
    { "wait-ms", "N", "wait so long before each verdict", false },
    { NULL, NULL, NULL, false },
};

NST_API const struct nst_module nst_module = {
    .abi = NST_MODULE_ABI,
    .name = "counter",
    .summary = "counts UDP datagrams that servers receive",
    .options = options,
    .open = counter_open,
    .close = counter_close,
    .quiet = counter_quiet,
    .report = counter_report,
};
