/* SPDX-License-Identifier: Apache-2.0 */
/* Step 2, the stream: no server receives the word that --word names, however it is cut into segments. */
#include <netstar/netstar.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_MAX = 64 };

struct filter {
    struct nst_nf nf;
    char word[WORD_MAX];
    size_t len;
    uint8_t back[WORD_MAX]; /* after so many bytes have matched and the next does not: how many still match */
    uint64_t found;
};

struct per_flow {
    uint8_t matched; /* bytes of the word, at the end of what the server has received so far */
};

/* One byte more (Knuth, Morris and Pratt). */
static uint8_t next(const struct filter *w, uint8_t matched, char byte)
{
    while (matched > 0 && w->word[matched] != byte)
        matched = w->back[matched];
    return matched + (w->word[matched] == byte);
}

static enum nst_verdict on_data(struct nst_flow *f, const struct nst_event *ev)
{
    struct filter *w = nst_nf_arg(f);
    struct per_flow *stream = nst_flow_state(f);
    uint8_t matched = stream->matched;
    struct nst_slice piece;

    while (nst_flow_bytes(f, ev->side, &piece)) {
        for (size_t i = 0; i < piece.len; i++) {
            matched = next(w, matched, ((const char *)piece.p)[i]);
            if (matched == w->len) {
                w->found++;
                return NST_DROP; /* the bytes are taken back, and so is what they did: stream->matched is as before */
            }
        }
    }
    stream->matched = matched;
    return NST_FORWARD;
}

static int filter_open(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    const char *word = env->option(env, "word");
    size_t len = strlen(word); /* the option is required, so it is there */
    struct filter *w;

    if (len == 0 || len >= WORD_MAX) {
        *why = "--word: expected 1 to 63 bytes";
        return -EINVAL;
    }
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return -ENOMEM;
    memcpy(w->word, word, len);
    w->len = len;
    for (size_t i = 1; i < len; i++)
        w->back[i + 1] = next(w, w->back[i], word[i]);
    w->nf.name = "step2";
    w->nf.flow_size = sizeof(struct per_flow);
    w->nf.half[NST_SERVER] = (struct nst_half){
        .inspect = &nst_tcp,
        .on_received = NST_EV_DATA,
        .handler = on_data,
    };
    *nf = &w->nf;
    *arg = w;
    return 0;
}

static void filter_close(void *arg)
{
    free(arg);
}

static void filter_report(void *arg, FILE *out)
{
    const struct filter *w = arg;

    fprintf(out, "  times found  %llu\n", (unsigned long long)w->found);
}

static const struct nst_option options[] = {
    { "word", "WORD", "what no server may receive", true },
    { NULL, NULL, NULL, false },
};

NST_API const struct nst_module nst_module = {
    .abi = NST_MODULE_ABI,
    .name = "step2",
    .summary = "keeps a word from servers",
    .options = options,
    .open = filter_open,
    .close = filter_close,
    .report = filter_report,
};
