/* SPDX-License-Identifier: Apache-2.0 */
#include "reload.h"
#include "core.h"
#include "line.h"
#include "prepare.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- a thread for what takes long ---- */
struct helper {
    struct nst_watch watch; /* readable when it has ended */
    struct nst_future ended;
    const struct settings *s;  /* of the instance */
    void *config;              /* at work, to compare with; or to dispose of */
    struct line *line;         /* what was read of the file; or to free */
    struct prepared *prepared; /* NULL: dispose */
    int rc;
};

static void free_line(struct line *line)
{
    if (line != NULL)
        line_free(line);
    free(line);
}

static void keep_mistake(void *arg, unsigned line, unsigned column, const char *text)
{
    struct helper *h = arg;
    char *why = h->prepared->why;
    size_t size = sizeof h->prepared->why, len = strlen(why);

    len += (size_t)snprintf(why + len, size - len, "%s%s", len != 0 ? "\n" : "", h->s->from.path);
    if (line != 0 && len < size)
        len += (size_t)snprintf(why + len, size - len, ":%u:%u", line, column);
    if (len < size)
        snprintf(why + len, size - len, ": %s", text);
}

/* What the file says now. -EINVAL: it is wrong, or changes what cannot change while it runs. */
static int read_line(struct helper *h)
{
    struct complaint c;
    const char *fixed;
    int rc;

    h->line = calloc(1, sizeof *h->line);
    if (h->line == NULL)
        return -ENOMEM;
    rc = line_read_again(h->line, h->s, keep_mistake, h, &c);
    if (rc < 0 && h->prepared->why[0] == '\0')
        snprintf(h->prepared->why, sizeof h->prepared->why, "%s", c.text);
    fixed = rc == 0 ? settings_fixed_difference(h->s, &h->line->s) : NULL;
    if (fixed != NULL) {
        snprintf(h->prepared->why, sizeof h->prepared->why, "%s: %s can only change with a restart", h->s->from.path,
                 fixed);
        rc = -EINVAL;
    }
    return rc;
}

static int make_new(struct helper *h)
{
    int rc = h->s->from.path != NULL ? read_line(h) : 0;

    return rc < 0 ? rc : prepare(h->line != NULL ? &h->line->s : h->s, h->config, h->prepared);
}

static void *helper_main(void *arg)
{
    struct helper *h = arg;
    uint64_t one = 1;

    setpriority(PRIO_PROCESS, 0, 10); /* of this thread alone: packets come first */
    if (h->prepared != NULL) {
        h->rc = make_new(h);
    } else {
        prepare_dispose(h->s, h->config);
        free_line(h->line);
    }
    return write(h->watch.fd, &one, sizeof one) < 0 ? h : NULL;
}

static void helper_ended(struct nst_watch *watch, uint32_t events)
{
    struct helper *h = (struct helper *)((char *)watch - offsetof(struct helper, watch));

    (void)events;
    if (h->ended.state == NST_FUTURE_OPEN)
        nst_fulfil(&h->ended, 0);
}

/* Waits for the thread, also when cancelled. */
static int run_helper(struct helper *h)
{
    pthread_attr_t attr;
    pthread_t thread;
    int rc;

    h->watch =
        (struct nst_watch){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = EPOLLIN, .ready = helper_ended };
    if (h->watch.fd < 0)
        return -errno;
    rc = nst_watch_add(nst_reactor_self(), &h->watch);
    if (rc == 0) {
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, 16 << 20);
        rc = -pthread_create(&thread, &attr, helper_main, h);
        pthread_attr_destroy(&attr);
        if (rc == 0) {
            int cancelled = nst_await(&h->ended, NST_NEVER);
            pthread_join(thread, NULL);
            rc = cancelled < 0 ? cancelled : h->rc;
        }
        nst_watch_remove(nst_reactor_self(), &h->watch);
    }
    close(h->watch.fd);
    return rc;
}

/* ---- on the cores ---- */
static int swap_here(struct core *c, void *config)
{
    c->in->s->module->swap(c->nf_arg, config);
    return 0;
}

static int settle_here(struct core *c, void *arg)
{
    (void)arg;
    return nst_engine_settle(c->engine);
}

static int on_each_core(struct instance *in, int (*fn)(struct core *c, void *arg))
{
    int rc = 0;

    for (unsigned i = 0; i < in->n_cores && rc == 0; i++)
        rc = core_ask(&in->core[i], fn, in->config);
    return rc;
}

/* ---- the steps ---- */
/* Of a file's bytes, too, which need not be UTF-8. */
static json_t *as_string(const char *text)
{
    json_t *string = json_string(text);
    char *copy = string == NULL ? strdup(text) : NULL;

    if (copy == NULL)
        return string;
    for (char *p = copy; *p != '\0'; p++)
        *p = *p & 0x80 ? '?' : *p;
    string = json_string(copy);
    free(copy);
    return string;
}

static json_t *failure(const struct instance *in, const char *why)
{
    for (const char *line = why, *end; *line != '\0'; line = end + (*end == '\n')) {
        end = line + strcspn(line, "\n");
        nst_log(NST_LOG_ERROR, "reload: %.*s", (int)(end - line), line);
    }
    nst_log(NST_LOG_ERROR, "reload: nothing has changed, %s goes on as before", in->s->module->name);
    return json_pack("{s:b, s:o}", "ok", 0, "error", as_string(why));
}

static json_t *success(char *said, nst_time took)
{
    json_t *answer = json_pack("{s:b, s:f, s:[]}", "ok", 1, "seconds", (double)took / 1e9, "changed");
    char *line;

    while (said != NULL && (line = strsep(&said, "\n")) != NULL) {
        if (*line == '\0')
            continue;
        nst_log(NST_LOG_INFO, "reload: %s", line);
        if (answer != NULL)
            json_array_append_new(json_object_get(answer, "changed"), as_string(line));
    }
    return answer;
}

static json_t *swap(struct instance *in, struct helper *made, nst_time began)
{
    struct helper gone = { .s = in->s, .config = in->config, .line = in->line };
    int rc;

    in->config_before = in->config;
    in->line_before = in->line;
    in->config = made->prepared->config;
    in->line = made->line;
    rc = on_each_core(in, swap_here);
    if (rc == 0)
        rc = on_each_core(in, settle_here);
    if (rc < 0) /* it is ending, and frees both */
        return failure(in, rc == -ESHUTDOWN || rc == -ECANCELED ? "the instance is ending" : strerror(-rc));
    in->config_before = NULL;
    in->line_before = NULL;
    rc = run_helper(&gone);
    if (rc < 0 && rc != -ECANCELED) { /* no thread for it */
        prepare_dispose(in->s, gone.config);
        free_line(gone.line);
    }
    return success(made->prepared->said, nst_clock() - began);
}

json_t *reload(struct instance *in)
{
    nst_time began = nst_clock();
    struct prepared p = { 0 };
    struct helper helper = { .s = in->s, .config = in->config, .prepared = &p };
    json_t *answer;
    int rc;

    if (in->s->module->prepare == NULL)
        return failure(in, "this network function has nothing to reload");
    if (in->reloading || in->config_before != NULL)
        return failure(in, "another reload is under way");
    in->reloading = true;
    rc = run_helper(&helper);
    if (rc < 0) {
        answer = failure(in, rc == -ECANCELED ? "the instance is ending" : p.why[0] != '\0' ? p.why : strerror(-rc));
        prepare_dispose(in->s, p.config);
        free_line(helper.line);
    } else {
        answer = swap(in, &helper, began);
    }
    prepared_free(&p);
    in->reloading = false;
    return answer;
}

void reload_forget(struct instance *in)
{
    prepare_dispose(in->s, in->config_before);
    free_line(in->line_before);
    prepare_dispose(in->s, in->config);
    free_line(in->line);
}
