/* SPDX-License-Identifier: Apache-2.0 */
#include "ips_model.h"
#include <netstar/task.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the engine's model: segments in order, retransmissions, and flows whose start was not seen ---- */
const struct nst_inspector nst_tcp = { .name = "model" };

void *nst_nf_arg(const struct nst_flow *f)
{
    return f->arg;
}

size_t nst_flow_key(const struct nst_flow *f, enum nst_side side, uint8_t key[NST_FLOW_KEY_MAX])
{
    key[0] = (uint8_t)side;
    return 1;
}

void nst_flow_endpoint(const struct nst_flow *f, enum nst_side side, struct nst_endpoint *out)
{
    *out = (struct nst_endpoint){ 4, { 10, 0, 0, (uint8_t)side }, (uint16_t)(1 + side) };
}

uint16_t nst_flow_vlan(const struct nst_flow *f)
{
    return 0;
}

const struct nst_headers *nst_packet_headers(const struct nst_packet *p)
{
    return &p->h;
}

const void *nst_packet_bytes(const struct nst_packet *p, size_t off, size_t len)
{
    return p->bytes + off;
}

nst_time nst_packet_time(const struct nst_packet *p)
{
    return (nst_time)p->number;
}

uint64_t nst_packet_number(const struct nst_packet *p)
{
    return p->number;
}

/* In two pieces, where there are two bytes. */
bool nst_flow_bytes(struct nst_flow *f, enum nst_side side, struct nst_slice *next)
{
    size_t half = f->news.len / 2;
    switch (f->pieces++) {
    case 0:
        *next = (struct nst_slice){ f->news.p, half };
        return f->news.len > 0;
    case 1:
        *next = (struct nst_slice){ (const char *)f->news.p + half, f->news.len - half };
        return f->news.len > 0;
    default:
        return false;
    }
}

uint64_t nst_tcp_offset(const struct nst_flow *f, enum nst_side side)
{
    return f->end[side].offset;
}

uint32_t nst_tcp_seq(const struct nst_flow *f, enum nst_side side)
{
    return f->end[side].next;
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

void put_be32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

nst_events look(struct nst_flow *f)
{
    const struct end *e = &f->end[f->side];
    uint32_t begin = be32(f->packet->bytes + 4), len = f->packet->h.payload_len, end = begin + len;
    f->news.len = 0;
    f->pieces = 0;
    if (len == 0)
        return 0;
    if ((int32_t)(begin - e->next) > 0)
        return NST_EV_GAP;
    if ((int32_t)(end - e->next) <= 0)
        return NST_EV_RETRANSMIT;
    f->news = (struct nst_slice){ f->packet->bytes + HEADER + (e->next - begin), end - e->next };
    return NST_EV_DATA | (begin == e->next ? 0 : NST_EV_RETRANSMIT);
}

nst_events nst_tcp_resume(struct nst_flow *f, enum nst_side side, uint32_t seq, uint64_t offset)
{
    f->end[side] = (struct end){ true, seq, offset };
    return look(f);
}

nst_events nst_tcp_pickup(struct nst_flow *f, enum nst_side side)
{
    return nst_tcp_resume(f, side, be32(f->packet->bytes + 4), 0);
}

enum nst_verdict nst_fail(struct nst_flow *f, int rc)
{
    const struct nst_policy *p = &f->nf->policy;
    f->failed = rc;
    return rc == -ETIMEDOUT || rc == -ECANCELED ? p->on_timeout
           : rc == -ENOMEM || rc == -ENOSPC     ? p->on_no_memory
           : rc == -ESRCH                       ? p->on_midstream
                                                : p->on_store;
}

void nst_resume(struct nst_flow *f, enum nst_side side, enum nst_verdict v)
{
    assert_int_equal(f->resumed, NST_UNDECIDED);
    assert_int_equal(side, f->side);
    f->resumed = v;
}

void nst_on_core_stack(void (*fn)(void *arg), void *arg)
{
    fn(arg);
}

/* ---- the store's model ---- */
struct entry store[2];
int get_fails, put_fails, delete_fails;
bool put_lands;
unsigned gets, puts_, deletes;

static struct entry *entry_of(struct nst_slice key)
{
    assert_int_equal(key.len, 5);
    assert_memory_equal(key.p, "ips:", 4);
    return &store[((const uint8_t *)key.p)[4]];
}

static int failing(int *rc)
{
    int now = *rc;
    *rc = 0;
    return now;
}

static int do_get(struct nst_slice key, void *val, size_t cap)
{
    const struct entry *e = entry_of(key);
    int rc = failing(&get_fails);
    gets++;
    if (rc < 0 || !e->there)
        return rc < 0 ? rc : -ENOENT;
    assert_true(e->len <= cap);
    memcpy(val, e->bytes, e->len);
    return (int)e->len;
}

static int do_put(struct nst_slice key, struct nst_slice val)
{
    struct entry *e = entry_of(key);
    int rc = failing(&put_fails);
    puts_++;
    if (rc == 0 || put_lands) {
        e->there = true;
        e->len = val.len;
        memcpy(e->bytes, val.p, val.len);
    }
    put_lands = false;
    return rc;
}

static int do_delete(struct nst_slice key)
{
    struct entry *e = entry_of(key);
    int rc = failing(&delete_fails);
    deletes++;
    if (rc < 0)
        return rc;
    rc = e->there ? 0 : -ENOENT;
    e->there = false;
    return rc;
}

int nst_get(struct nst_store *s, struct nst_slice key, void *val, size_t cap, uint64_t *version, nst_time until)
{
    assert_int_equal(until, 99);
    return do_get(key, val, cap);
}

int nst_put(struct nst_store *s, struct nst_slice key, struct nst_slice val, nst_time ttl, nst_time until)
{
    assert_int_equal(until, 99);
    return do_put(key, val);
}

int nst_delete(struct nst_store *s, struct nst_slice key, nst_time until)
{
    assert_int_equal(until, 99);
    return do_delete(key);
}

void nst_get_start(struct nst_store *s, struct nst_slice key, void *val, size_t cap, uint64_t *version,
                   struct nst_future *f)
{
    f->rc = do_get(key, val, cap);
}

void nst_put_start(struct nst_store *s, struct nst_slice key, struct nst_slice val, nst_time ttl, struct nst_future *f)
{
    f->rc = do_put(key, val);
}

void nst_delete_start(struct nst_store *s, struct nst_slice key, struct nst_future *f)
{
    f->rc = do_delete(key);
}

void reset_store(void)
{
    memset(store, 0, sizeof store);
    get_fails = put_fails = delete_fails = 0;
    put_lands = false;
    gets = puts_ = deletes = 0;
}

/* ---- the model of what is kept of it: each write is answered at once, or fails ---- */
static struct object {
    struct nst_object pub;
    bool valid, changed;
    _Alignas(8) uint8_t value[IPS_STATE_MAX], local[256];
} objects[2];
static unsigned held;

static struct object *object_at(struct nst_slice key)
{
    assert_int_equal(key.len, 1);
    struct object *o = &objects[*(const uint8_t *)key.p];
    o->pub.value = o->value;
    o->pub.local = o->local;
    return o;
}

static struct nst_slice name_of(const struct object *o)
{
    static uint8_t name[5] = "ips:";
    name[4] = (uint8_t)(o - objects);
    return (struct nst_slice){ name, 5 };
}

static struct object *object_of(struct nst_object *o)
{
    return (struct object *)o;
}

int nst_state_open(struct nst_state **out, struct nst_store *s, const struct nst_state_config *config)
{
    assert_string_equal(config->name, "ips:");
    assert_int_equal(config->kind, NST_STATE_OWNED);
    assert_true(config->size <= IPS_STATE_MAX && config->local <= 256);
    memset(objects, 0, sizeof objects);
    *out = (struct nst_state *)objects;
    return 0;
}

void nst_state_close(struct nst_state *s)
{
    assert_int_equal(held, 0);
}

int nst_state_claim(struct nst_state *s, struct nst_slice key, struct nst_object **out, nst_time until)
{
    struct object *o = object_at(key);
    assert_int_equal(until, 99);
    *out = &o->pub;
    held++;
    if (o->valid)
        return 0;
    int rc = do_get(name_of(o), o->value, sizeof o->value);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    o->valid = true;
    o->pub.there = rc >= 0;
    o->pub.len = rc >= 0 ? (uint32_t)rc : 0;
    return 0;
}

struct nst_object *nst_state_kept(struct nst_state *s, struct nst_slice key)
{
    struct object *o = object_at(key);
    held += o->valid;
    return o->valid ? &o->pub : NULL;
}

void nst_state_release(struct nst_object *o)
{
    held -= o != NULL;
}

void nst_state_write(struct nst_object *o)
{
    assert_true(object_of(o)->valid);
    object_of(o)->changed = o->there = true;
}

static int write_now(struct object *o)
{
    if (!o->changed)
        return 0;
    o->changed = false;
    int rc = do_put(name_of(o), (struct nst_slice){ o->value, o->pub.len });
    if (rc < 0)
        o->valid = false;
    return rc;
}

int nst_state_commit(struct nst_object *o, nst_time until)
{
    assert_int_equal(until, 99);
    nst_state_write(o);
    return write_now(object_of(o));
}

/* A packet whose write fails is dropped, but counts as forwarded. */
enum nst_verdict nst_state_send(struct nst_flow *f, const struct nst_event *ev, struct nst_object *const o[],
                                unsigned n)
{
    int rc = write_now(object_of(o[0]));
    if (rc == 0)
        return NST_FORWARD;
    f->later = nst_fail(f, rc);
    return NST_TAKEN;
}

int nst_state_forget(struct nst_object *o, nst_time until)
{
    object_of(o)->valid = false;
    return do_delete(name_of(object_of(o)));
}

void nst_state_stats(const struct nst_state *s, struct nst_state_stats *out)
{
    *out = (struct nst_state_stats){ 0 };
}

void nst_state_stats_add(struct nst_state_stats *sum, const struct nst_state_stats *one)
{
}

struct nst_future *waiting;

void nst_then(struct nst_future *f, void (*fn)(struct nst_future *f, int rc), void *arg, nst_time until)
{
    assert_int_equal(until, 99);
    assert_null(waiting);
    f->then = fn;
    f->arg = arg;
    waiting = f;
}
