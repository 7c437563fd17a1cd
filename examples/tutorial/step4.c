/* SPDX-License-Identifier: Apache-2.0 */
/* Step 4, loops: an SMTP server must greet with 220, and a client must not speak before it has been greeted. */
#include <netstar/netstar.h>
#include <stdlib.h>
#include <string.h>

struct guard {
    struct nst_nf nf;
    nst_time patience; /* a server has so long for its greeting */
    uint64_t greeted, strange, silent, early;
};

/* Both loops of a flow know it. */
struct per_flow {
    bool greeted;
};

/* At the client's end: what it receives begins with a greeting. */
static void greeting(struct nst_flow *f, enum nst_side side)
{
    struct guard *g = nst_nf_arg(f);
    struct per_flow *session = nst_flow_state(f);
    char code[3];

    int rc = nst_read(f, side, code, sizeof code, nst_now() + g->patience);
    if (rc < (int)sizeof code) { /* late, or the connection has ended: there is no packet to decide */
        g->silent += rc != 0;
        return;
    }
    if (memcmp(code, "220", sizeof code) != 0) {
        g->strange++;
        nst_decide_read(f, side, NST_RESET_FLOW);
        return;
    }
    g->greeted++;
    session->greeted = true;
    nst_decide_read(f, side, NST_FORWARD);
} /* the rest of what the client receives passes unseen */

/* At the server's end: what it receives comes after the greeting. */
static void first_words(struct nst_flow *f, enum nst_side side)
{
    struct guard *g = nst_nf_arg(f);
    const struct per_flow *session = nst_flow_state(f);
    struct nst_event ev;

    if (nst_next(f, side, &ev, NST_NEVER) < 0)
        return; /* the connection has ended, and the client never spoke */
    if (!session->greeted) {
        g->early++;
        nst_decide(f, &ev, NST_RESET_FLOW);
        return;
    }
    nst_decide(f, &ev, NST_FORWARD);
}

static int guard_open(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    const char *patience = env->option(env, "patience");
    struct guard *g = calloc(1, sizeof *g);

    if (g == NULL)
        return -ENOMEM;
    g->patience = NST_SEC(patience != NULL ? atoi(patience) : 30);
    g->nf.name = "step4";
    g->nf.flow_size = sizeof(struct per_flow);
    g->nf.half[NST_CLIENT] = (struct nst_half){ .inspect = &nst_tcp, .on_received = NST_EV_DATA, .loop = greeting };
    g->nf.half[NST_SERVER] = (struct nst_half){ .inspect = &nst_tcp, .on_received = NST_EV_DATA, .loop = first_words };
    *nf = &g->nf;
    *arg = g;
    return 0;
}

static void guard_close(void *arg)
{
    free(arg);
}

static void guard_report(void *arg, FILE *out)
{
    const struct guard *g = arg;

    fprintf(out, "  greeted  %llu\n", (unsigned long long)g->greeted);
    fprintf(out, "  strange greetings  %llu\n", (unsigned long long)g->strange);
    fprintf(out, "  silent servers  %llu\n", (unsigned long long)g->silent);
    fprintf(out, "  early clients  %llu\n", (unsigned long long)g->early);
}

static const struct nst_option options[] = {
    { "patience", "SECONDS", "how long a server has for its greeting (30)", false },
    { NULL, NULL, NULL, false },
};

NST_API const struct nst_module nst_module = {
    .abi = NST_MODULE_ABI,
    .name = "step4",
    .summary = "SMTP: the server speaks first, and says 220",
    .options = options,
    .open = guard_open,
    .close = guard_close,
    .report = guard_report,
};
