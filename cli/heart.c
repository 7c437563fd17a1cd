/* SPDX-License-Identifier: Apache-2.0 */
#include "heart.h"
#include "live.h"
#include <jansson.h>
#include <netstar/task.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct heart {
    const struct settings *s;
    struct nst_store *store;
    char key[sizeof HEART_PREFIX + 64];
    char host[65], machine[96]; /* machine and process number together name a process of this boot */
    json_int_t since, beat;
    bool mine, told_loss, told_trouble;
    size_t len; /* of what stands in the store by our own hand; 0: nothing */
    char value[HEART_MAX];
    struct beat_counts {
        nst_time at;
        uint64_t packets, bytes, dropped, requests;
    } before;
};

/* ---- who we are ---- */
/* Processes are known by their number only where this boot and this namespace of numbers are the same. */
static void name_machine(char *machine, size_t size)
{
    char boot[40] = "";
    struct stat st = { 0 };
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

    if (f != NULL) {
        if (fscanf(f, "%39s", boot) != 1)
            boot[0] = '\0';
        fclose(f);
    }
    if (stat("/proc/self/ns/pid", &st) != 0 || boot[0] == '\0')
        snprintf(machine, size, "unknown");
    else
        snprintf(machine, size, "%s/%llu", boot, (unsigned long long)st.st_ino);
}

static nst_time soon(void)
{
    return nst_now() + NST_SEC(2);
}

static struct nst_slice key_of(const struct heart *h)
{
    return (struct nst_slice){ h->key, strlen(h->key) };
}

/* ---- what is said ---- */
static uint64_t dropped(const struct nst_engine_stats *e)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < NST_CAUSES; i++)
        n += e->dropped[i];
    return n;
}

static json_t *identity(const struct heart *h)
{
    return json_pack("{s:s, s:s, s:s, s:i, s:s, s:s, s:I, s:i, s:i}", "name", h->s->instance, "host", h->host,
                     "machine", h->machine, "pid", (int)getpid(), "nf", h->s->module->name, "version", NETSTAR_VERSION,
                     "since", h->since, "cores", (int)h->s->cores, "every", HEART_EVERY);
}

static void put(json_t *o, const char *key, uint64_t n)
{
    json_object_set_new(o, key, json_integer((json_int_t)n));
}

static void put_rate(json_t *o, const char *key, uint64_t now, uint64_t before, double seconds)
{
    json_object_set_new(o, key, json_real(seconds > 0 && now > before ? (double)(now - before) / seconds : 0));
}

static void add_numbers(struct heart *h, json_t *o, const struct report *r)
{
    const struct nst_engine_stats *e = &r->engine;
    struct beat_counts now = { nst_clock(), e->packets, e->bytes, dropped(e), r->store.requests };
    double seconds = h->before.at != 0 ? (double)(now.at - h->before.at) / 1e9 : 0;

    put(o, "packets", e->packets);
    put_rate(o, "packets_per_second", now.packets, h->before.packets, seconds);
    put_rate(o, "bytes_per_second", now.bytes, h->before.bytes, seconds);
    put_rate(o, "dropped_per_second", now.dropped, h->before.dropped, seconds);
    put_rate(o, "store_requests_per_second", now.requests, h->before.requests, seconds);
    put(o, "flows", e->flows);
    put(o, "held", e->held);
    put(o, "kept_objects", live_kept(r));
    put(o, "kept_bytes", e->stream_kept + e->edit_kept);
    json_object_set_new(o, "store_p50_us", json_real((double)r->store.p50 / 1e3));
    json_object_set_new(o, "store_p99_us", json_real((double)r->store.p99 / 1e3));
    h->before = now;
}

/* The next value into text: its length, or 0 when there is no memory for it. r NULL: it does not work yet. */
static size_t next_value(struct heart *h, const struct report *r, char text[HEART_MAX])
{
    json_t *o = identity(h);
    size_t len;

    if (o == NULL)
        return 0;
    put(o, "beat", (uint64_t)++h->beat);
    put(o, "at", (uint64_t)time(NULL));
    if (r != NULL)
        add_numbers(h, o, r);
    len = json_dumpb(o, text, HEART_MAX, JSON_COMPACT | JSON_REAL_PRECISION(6));
    json_decref(o);
    return len <= HEART_MAX ? len : 0;
}

/* ---- whose it is ---- */
struct other {
    char host[65], machine[96], nf[64];
    int pid;
    json_int_t since, beat;
};

/* False: somebody wrote what no instance writes, which is nobody's. */
static bool understand(const char *text, size_t len, struct other *out)
{
    json_t *o = json_loadb(text, len, 0, NULL);
    const char *host, *machine, *nf;

    *out = (struct other){ 0 };
    bool ok = o != NULL && json_unpack(o, "{s:s, s:s, s:s, s:i, s:I, s:I}", "host", &host, "machine", &machine, "nf",
                                       &nf, "pid", &out->pid, "since", &out->since, "beat", &out->beat) == 0;
    if (ok) {
        snprintf(out->host, sizeof out->host, "%s", host);
        snprintf(out->machine, sizeof out->machine, "%s", machine);
        snprintf(out->nf, sizeof out->nf, "%s", nf);
    }
    json_decref(o);
    return ok;
}

static bool is_us(const struct heart *h, const struct other *o)
{
    return o->pid == (int)getpid() && strcmp(o->machine, h->machine) == 0 && o->since == h->since;
}

/* It runs on this machine, so that the kernel knows better than the store. */
static bool is_gone(const struct heart *h, const struct other *o)
{
    return strcmp(o->machine, h->machine) == 0 && strcmp(h->machine, "unknown") != 0 &&
           ((kill(o->pid, 0) != 0 && errno == ESRCH) || o->pid == (int)getpid());
}

/* Reads what stands under the name; what is no value at all, or too long for a heart's, is removed: 0, as if there were none
 * (or it is the store that has the trouble, and says so again). */
static int read_name(struct heart *h, char text[HEART_MAX])
{
    int rc = nst_get(h->store, key_of(h), text, HEART_MAX, NULL, soon());

    if (rc == -ENOENT)
        return 0;
    if (rc != -EIO && rc != -EMSGSIZE)
        return rc;
    rc = nst_delete(h->store, key_of(h), soon());
    return rc == -ENOENT ? 0 : rc;
}

/* Writes in place of what stands there, of which `seen` bytes are in `text` (0: nothing): 0, -ESTALE, or an error. */
static int replace(struct heart *h, const char *text, size_t seen, const char *value, size_t len)
{
    struct nst_slice key = key_of(h), next = { value, len };
    int rc = seen == 0
                 ? nst_put_new(h->store, key, next, NST_SEC(HEART_KEPT), soon())
                 : nst_cas_bytes(h->store, key, (struct nst_slice){ text, seen }, next, NST_SEC(HEART_KEPT), soon());

    return rc == -EEXIST ? -ESTALE : rc;
}

/* Takes the name if it is nobody's, or its owner's heart has stopped: 0; -EEXIST with the owner in *owner; or an error of
 * the store. Waits for as long as a heart may be silent. */
static int take(struct heart *h, struct other *owner)
{
    static const nst_time look = NST_MS(250);
    char text[HEART_MAX], value[HEART_MAX];
    nst_time silent_since = 0;
    json_int_t beat = -1;

    for (;;) {
        int rc = read_name(h, text);
        size_t seen = rc > 0 ? (size_t)rc : 0, len;
        bool taken = rc > 0 && understand(text, seen, owner);

        if (rc < 0)
            return rc;
        if (taken && owner->beat != beat) {
            if (beat >= 0 && !is_us(h, owner))
                return -EEXIST; /* it has beaten meanwhile */
            beat = owner->beat;
            silent_since = nst_clock();
        }
        if (!taken || is_us(h, owner) || is_gone(h, owner) || nst_clock() - silent_since > NST_SEC(HEART_OVERDUE)) {
            len = next_value(h, NULL, value);
            rc = len != 0 ? replace(h, text, seen, value, len) : -ENOMEM;
            if (rc == 0) {
                memcpy(h->value, value, len);
                h->len = len;
                h->mine = true;
                return 0;
            }
            if (rc != -ESTALE)
                return rc;
            silent_since = nst_clock(); /* somebody was faster: look at him */
        }
        rc = nst_sleep(nst_now() + look);
        if (rc < 0)
            return rc;
    }
}

/* ---- before the start ---- */
struct claim {
    struct heart *h;
    struct other owner;
    int rc;
};

static void claim_task(void *arg)
{
    struct claim *k = arg;
    struct heart *h = k->h;

    k->rc = nst_store_open(&h->store, h->s->store, NULL, NULL);
    if (k->rc == 0)
        k->rc = nst_store_ping(h->store, soon());
    if (k->rc == 0)
        k->rc = take(h, &k->owner);
    nst_store_close(h->store);
    h->store = NULL;
    nst_reactor_stop(nst_reactor_self());
}

/* On a reactor that lives no longer than fn, which stops it. */
static int on_own_reactor(void (*fn)(void *arg), void *arg)
{
    const struct nst_reactor_config config = {
        .name = "heart", .cpu = -1, .stacks = 16, .stack_size = HEART_STACK, .stall_after = NST_NEVER
    };
    struct nst_reactor *reactor = NULL;
    int rc = nst_reactor_open(&reactor, &config);

    if (rc == 0)
        rc = nst_reactor_run(reactor, fn, arg);
    nst_reactor_close(reactor);
    return rc;
}

int heart_claim(struct heart **out, const struct settings *s, struct complaint *c)
{
    struct claim k = { 0 };
    struct heart *h;
    int rc;

    *out = NULL;
    if (s->instance == NULL || !s->module->uses_store || strncmp(s->store, "mem:", 4) == 0)
        return 0;
    h = k.h = calloc(1, sizeof *h);
    if (h == NULL)
        return complain(c, -ENOMEM, "out of memory");
    h->s = s;
    h->since = (json_int_t)time(NULL);
    if (gethostname(h->host, sizeof h->host - 1) != 0)
        snprintf(h->host, sizeof h->host, "?");
    name_machine(h->machine, sizeof h->machine);
    snprintf(h->key, sizeof h->key, HEART_PREFIX "%s", s->instance);
    rc = on_own_reactor(claim_task, &k);
    rc = rc < 0 ? rc : k.rc;
    if (rc == -EEXIST) {
        heart_free(h);
        return complain(c, rc,
                        "the instance %s is alive: %s on %s, process %d; give this one another name, or stop that one",
                        s->instance, k.owner.nf, k.owner.host, k.owner.pid);
    }
    if (rc < 0)
        nst_log(NST_LOG_WARNING, "store %s does not say whether the name %s is free (%s); going on", s->store_name,
                s->instance, strerror(-rc));
    *out = h;
    return 0;
}

/* ---- while it works ---- */
static void say_trouble(struct heart *h, int rc)
{
    if (!h->told_trouble && rc != -ECANCELED)
        nst_log(NST_LOG_WARNING, "the heartbeat of %s cannot be written to %s (%s); packets do not mind",
                h->s->instance, h->s->store_name, strerror(-rc));
    h->told_trouble = true;
}

/* Somebody else has written, or nobody, or our own last write had no answer and landed all the same. */
static void look_again(struct heart *h)
{
    char text[HEART_MAX];
    struct other owner;
    int rc = read_name(h, text);

    if (rc == 0) { /* it is free to take */
        h->len = 0;
        h->mine = true;
        h->told_loss = false;
        return;
    }
    if (rc < 0) {
        say_trouble(h, rc);
        return;
    }
    bool taken = understand(text, (size_t)rc, &owner);
    if (taken && !is_us(h, &owner)) {
        if (!h->told_loss)
            nst_log(NST_LOG_WARNING,
                    "the name %s now belongs to %s on %s, process %d: this instance goes on without one",
                    h->s->instance, owner.nf, owner.host, owner.pid);
        h->told_loss = true;
        h->mine = false;
        return;
    }
    memcpy(h->value, text, (size_t)rc);
    h->len = (size_t)rc;
}

static void beat_once(struct heart *h, const struct report *r)
{
    char value[HEART_MAX];
    size_t len = next_value(h, r, value);
    int rc;

    if (len == 0)
        return;
    if (!h->mine && !h->told_loss) { /* the store was not there at the start */
        struct other owner;
        rc = take(h, &owner);
        if (rc == -EEXIST)
            look_again(h);
        else if (rc < 0)
            say_trouble(h, rc);
        return;
    }
    if (!h->mine) {
        look_again(h);
        return;
    }
    rc = replace(h, h->value, h->len, value, len);
    if (rc == 0) {
        memcpy(h->value, value, len);
        h->len = len;
        if (h->told_trouble)
            nst_log(NST_LOG_INFO, "the heartbeat of %s is written again", h->s->instance);
        h->told_trouble = false;
    } else if (rc == -ESTALE) {
        look_again(h);
    } else {
        say_trouble(h, rc);
    }
}

void heart_beat(void *arg)
{
    struct instance *in = arg;
    struct heart *h = in->heart;
    struct report *r = malloc(sizeof *r);
    nst_time next = nst_now();
    int rc = nst_store_open(&h->store, h->s->store, NULL, NULL);

    if (rc < 0 || r == NULL) {
        say_trouble(h, rc < 0 ? rc : -ENOMEM);
        free(r);
        return;
    }
    while (rc != -ECANCELED) {
        rc = live_report(in, r);
        if (rc == 0)
            beat_once(h, r);
        report_free(r);
        next += NST_SEC(HEART_EVERY);
        if (next < nst_now())
            next = nst_now();
        if (nst_sleep(next) < 0)
            break;
    }
    free(r);
}

void heart_farewell(struct heart *h)
{
    struct nst_slice last = { h->value, h->len }, gone = { "{}", 2 };

    /* Whoever has taken the name meanwhile is left alone. */
    if (h->store != NULL && h->mine && h->len != 0 &&
        nst_cas_bytes(h->store, key_of(h), last, gone, NST_SEC(1), nst_now() + NST_MS(500)) < 0)
        nst_log(NST_LOG_DEBUG, "the name %s was not given back", h->s->instance);
    nst_store_close(h->store);
    h->store = NULL;
}

static void give_back_task(void *arg)
{
    struct heart *h = arg;

    if (nst_store_open(&h->store, h->s->store, NULL, NULL) == 0 &&
        nst_store_ping(h->store, nst_now() + NST_MS(500)) == 0)
        heart_farewell(h);
    nst_store_close(h->store);
    h->store = NULL;
    nst_reactor_stop(nst_reactor_self());
}

void heart_give_back(struct heart *h)
{
    if (h->mine && on_own_reactor(give_back_task, h) < 0)
        nst_log(NST_LOG_DEBUG, "the name %s was not given back", h->s->instance);
}

void heart_free(struct heart *h)
{
    free(h);
}
