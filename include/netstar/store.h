/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/store.h - the external state of an NF: one small interface, several stores behind it.
 *
 *   mem:                                                  in this process; gone with it
 *   lmdb:PATH[?gib=N]                                     a file, kept when the process ends or dies, and shared by the
 *                                                         processes of the machine; at most N GiB (16)
 *   redis://[[USER][:PASSWORD]@][HOST][:PORT][/DB]        Redis 6 or later, Valkey; 127.0.0.1, port 6379, database
 *                                                         0 unless given; an IPv6 address stands in brackets
 *   redis+unix://PATH[?db=N], unix:PATH[?db=N]            the same over a Unix socket
 *   redis-sentinel://[...@]HOST[:PORT],.../SERVICE[/DB]   the master that these sentinels (port 26379) name
 *   redis-cluster://[...@]HOST[:PORT],...                 the cluster of which these are nodes
 *
 * With ?replicas=N (&replicas=N behind another option; 0 to 16, 0 unless given) behind a Redis URL a write is acknowledged when N
 * replicas have it (Redis' WAIT, one for all writes of a turn), so that a replica that takes over knows it. Where they do not
 * say so within half a second the write ends with -ETIMEDOUT, and meanwhile the server answers nothing else. What others have
 * written may be read before replicas have it.
 *
 * USER, PASSWORD and PATH may hold %XX. A host name is resolved once, by nst_store_open, which may take the resolver's
 * time: open stores before there is traffic, or give an address. Requests made during the first attempt to connect, at
 * most a second, wait for it; later, requests without a connection are refused at once.
 *
 * A store object belongs to one reactor, holds its own connections, and is used only there. Requests of a turn
 * leave in one write; their number in flight is bounded, and one more is refused with -EBUSY. Requests that are in
 * flight together have no order: wait for the first where the second depends on it. Keys are at most NST_KEY_MAX bytes,
 * values at most NST_VALUE_MAX. Times to live are relative, in ns, kept to the millisecond, and count on the store's
 * clock; 0 means for ever.
 *
 * Kinds of keys, each with its own requests
 *   value     get, put, put_new, cas, cas_bytes
 *   counter   incr
 *   owned     own, put_owned, delete_owned; get reads its value
 *   pool      pool_take, pool_keep, pool_give
 *   any       touch, delete, scan; put writes a value over whatever is there
 *
 * Every waiting form has a _start form, which never waits, initialises the future, copies key and value before it
 * returns, and fulfils the future, also when the request could not even be sent. The waiting form is start and
 * nst_await.
 *
 * Results of every request
 *   -ENOENT     no such key; pool_take: nothing is free
 *   -EEXIST     put_new: there is a key
 *   -ESTALE     cas, cas_bytes: the version or the bytes are not the stored ones (also: the key is gone);
 *               put_owned, delete_owned: somebody owns the record since, or it is not owned by anybody;
 *               pool_keep, pool_give: the lease has ended and somebody has taken the value
 *   -EMSGSIZE   get, own: the value is longer than cap (nothing was copied); scan: the page is too small for one key;
 *               others: key or value too long
 *   -EBUSY      too many requests in flight; not sent
 *   -ENOTCONN   no connection now; not sent. The store reconnects by itself, with growing pauses
 *   -EAGAIN     the server cannot carry requests out now (it loads its data, its cluster is not whole); not carried out
 *   -EHOSTDOWN  the server has not answered for a while (the circuit breaker is open); not sent
 *   -ECONNRESET the connection broke with the request in flight: a write may or may not have landed
 *   -EPROTO     the server's answer could not be understood; the connection is made anew
 *   -EIO        the server answered with an error (logged, at a bounded rate); the key is of another kind, or holds a
 *               value that NetStar did not write; incr: the sum does not fit 64 bits
 *   -EINVAL     incr: the key does not hold a counter; pool_take: the pool was larger once; any: a negative time to live
 *   -ENOSPC     mem: the limit of its memory is reached; lmdb: that of its file, or the disk is full
 *   -ETIMEDOUT, -ECANCELED   as everywhere; a write may or may not have landed. -ETIMEDOUT also: too few replicas have it
 *
 * After a write that may or may not have landed
 *   put, put_owned, touch, pool_keep, cas_bytes to the same bytes   may be sent again: the result is the same
 *   delete, delete_owned, pool_give   may be sent again; -ENOENT or -ESTALE then may mean that the first one landed
 *   own         may be sent again: its new token is above that of the lost one
 *   put_new, cas, cas_bytes   read the key to see which: what is there is told apart by its bytes
 *   incr        nobody knows; do not count what must be exact with it
 *   pool_take   a value may be leased to nobody until its lease ends
 * The store itself sends a request again only when the server has said that it did not carry it out.
 */
#pragma once
#include <netstar/base.h>
#include <netstar/future.h>

#ifdef __cplusplus
extern "C" {
#endif

struct nst_store;
enum { NST_KEY_MAX = 256, NST_VALUE_MAX = 65536 };

struct nst_store_config {
    uint32_t in_flight;   /* requests outstanding at once; 0: 4096 */
    nst_time reply_after; /* a connection that owes an answer for longer is made anew; 0: 5 s */
    size_t memory;        /* mem: bytes at most; 0: 1 GiB */
};

/* Opens the store that the URL names, on this reactor. For a server it starts to connect and returns at once; a file is
 * opened, which may take the disk's time. config may be NULL. The errno of opening a file; -EINVAL for a bad URL or a host
 * name that cannot be resolved, and then *why tells in words what was expected at which character (borrowed, a thread-local buffer; why may be NULL). -ENOMEM. */
NST_API int nst_store_open(struct nst_store **out, const char *url, const struct nst_store_config *config,
                           const char **why);

/* Checks a URL without opening anything: 0, or -EINVAL and the reason. Any thread. */
NST_API int nst_store_check(const char *url, const char **why);

/* Nobody but this store object sees what is in it (mem:). Any thread. */
NST_API bool nst_store_alone(const struct nst_store *s);

/* Fulfils what is outstanding with -ECANCELED and frees the store. NULL is allowed. Never waits. */
NST_API void nst_store_close(struct nst_store *s);

/* Waits until the store can answer (a round trip): 0, or the error of the last try: also the errno of connecting
 * (-ECONNREFUSED, -ENOENT, ...), and -EACCES when the server wants another user or password. */
NST_API int nst_store_ping(struct nst_store *s, nst_time until) NST_WAITS;

/* Reads a value: its length (at most cap bytes are in val), or an error. *version, unless NULL, gets a number
 * that changes with every put and cas of the key. val and version must live until the future is done. */
NST_API int nst_get(struct nst_store *s, struct nst_slice key, void *val, size_t cap, uint64_t *version,
                    nst_time until) NST_WAITS;
NST_API void nst_get_start(struct nst_store *s, struct nst_slice key, void *val, size_t cap, uint64_t *version,
                           struct nst_future *f);

/* Writes a value, whatever was there: 0 or an error. Idempotent. */
NST_API int nst_put(struct nst_store *s, struct nst_slice key, struct nst_slice val, nst_time ttl,
                    nst_time until) NST_WAITS;
NST_API void nst_put_start(struct nst_store *s, struct nst_slice key, struct nst_slice val, nst_time ttl,
                           struct nst_future *f);

/* Writes a value if the stored version is still `version` (0: if the key does not exist): 0, -ESTALE, or an
 * error. */
NST_API int nst_cas(struct nst_store *s, struct nst_slice key, struct nst_slice val, uint64_t version, nst_time ttl,
                    nst_time until) NST_WAITS;
NST_API void nst_cas_start(struct nst_store *s, struct nst_slice key, struct nst_slice val, uint64_t version,
                           nst_time ttl, struct nst_future *f);

/* Adds `by` to a counter (a missing one counts as 0) and returns its new value through *out: 0 or an error. A
 * ttl other than 0 starts anew with each call. */
NST_API int nst_incr(struct nst_store *s, struct nst_slice key, int64_t by, int64_t *out, nst_time ttl,
                     nst_time until) NST_WAITS;
NST_API void nst_incr_start(struct nst_store *s, struct nst_slice key, int64_t by, int64_t *out, nst_time ttl,
                            struct nst_future *f);

/* Removes a key of any kind: 0, -ENOENT, or an error. */
NST_API int nst_delete(struct nst_store *s, struct nst_slice key, nst_time until) NST_WAITS;
NST_API void nst_delete_start(struct nst_store *s, struct nst_slice key, struct nst_future *f);

/* Writes a value if there is no key: 0, -EEXIST, or an error. */
NST_API int nst_put_new(struct nst_store *s, struct nst_slice key, struct nst_slice val, nst_time ttl,
                        nst_time until) NST_WAITS;
NST_API void nst_put_new_start(struct nst_store *s, struct nst_slice key, struct nst_slice val, nst_time ttl,
                               struct nst_future *f);

/* Writes a value if the stored one is byte for byte `expected`: 0, -ESTALE, or an error. */
NST_API int nst_cas_bytes(struct nst_store *s, struct nst_slice key, struct nst_slice expected, struct nst_slice val,
                          nst_time ttl, nst_time until) NST_WAITS;
NST_API void nst_cas_bytes_start(struct nst_store *s, struct nst_slice key, struct nst_slice expected,
                                 struct nst_slice val, nst_time ttl, struct nst_future *f);

/* Gives a key of any kind a new time to live, counted from now: 0, -ENOENT, or an error. */
NST_API int nst_touch(struct nst_store *s, struct nst_slice key, nst_time ttl, nst_time until) NST_WAITS;
NST_API void nst_touch_start(struct nst_store *s, struct nst_slice key, nst_time ttl, struct nst_future *f);

/* ---- owned records: a value that one owner at a time may write. Owning it gives a token that is greater than every
 *      token that was ever given for the key, also when the record was deleted or expired meanwhile (as long as the
 *      store's clock does not go back). Who owns it later stops whoever owned it before: a paused old owner that wakes
 *      up gets -ESTALE and has changed nothing. The token lies beside the value, in the same key. ---- */

/* Makes the caller the owner, and reads the value: its length, or -ENOENT when there is none yet. In both cases, and
 * with -EMSGSIZE, the record is the caller's now, *token is set, and the record lives for ttl. A plain value under the
 * key becomes an owned one. val and token must live until the future is done. */
NST_API int nst_own(struct nst_store *s, struct nst_slice key, void *val, size_t cap, uint64_t *token, nst_time ttl,
                    nst_time until) NST_WAITS;
NST_API void nst_own_start(struct nst_store *s, struct nst_slice key, void *val, size_t cap, uint64_t *token,
                           nst_time ttl, struct nst_future *f);

/* Writes the value if no newer owner is there: 0, -ESTALE, or an error. -ESTALE also when the record is gone (it
 * expired, was deleted, or its server was lost): own it again. */
NST_API int nst_put_owned(struct nst_store *s, struct nst_slice key, struct nst_slice val, uint64_t token, nst_time ttl,
                          nst_time until) NST_WAITS;
NST_API void nst_put_owned_start(struct nst_store *s, struct nst_slice key, struct nst_slice val, uint64_t token,
                                 nst_time ttl, struct nst_future *f);

/* Removes the record if no newer owner is there: 0, -ESTALE, -ENOENT, or an error. */
NST_API int nst_delete_owned(struct nst_store *s, struct nst_slice key, uint64_t token, nst_time until) NST_WAITS;
NST_API void nst_delete_owned_start(struct nst_store *s, struct nst_slice key, uint64_t token, struct nst_future *f);

/* Whether no newer owner is there: 0, -ESTALE (also when the record is gone), or an error. Reads and sends nothing but the
 * token. */
NST_API int nst_check_owned(struct nst_store *s, struct nst_slice key, uint64_t token, nst_time until) NST_WAITS;
NST_API void nst_check_owned_start(struct nst_store *s, struct nst_slice key, uint64_t token, struct nst_future *f);

/* ---- pools: the numbers from 0 to size-1, each leased to at most one holder at a time. A pool begins to exist with
 *      the first take. Numbers that were never given come first, then the one that has been free for longest. A lease
 *      that is neither kept nor given back ends by itself. Whoever holds the lease (the pair of value and ticket) may
 *      keep it or give it back, from any instance. ---- */
struct nst_lease {
    uint64_t ticket; /* another one each time that a value is taken */
    uint32_t value;
};
/* Takes a number for `lasts`, which must not be 0: 0, -ENOENT when none is free, or an error. size may grow from call to
 * call; when it shrinks, and a number beyond it is the next, -EINVAL. */
NST_API int nst_pool_take(struct nst_store *s, struct nst_slice pool, uint32_t size, nst_time lasts,
                          struct nst_lease *out, nst_time until) NST_WAITS;
NST_API void nst_pool_take_start(struct nst_store *s, struct nst_slice pool, uint32_t size, nst_time lasts,
                                 struct nst_lease *out, struct nst_future *f);

/* Lets the lease last for `lasts` from now on: 0, -ESTALE, or an error. A lease that has ended, but was taken by nobody
 * since, is taken up again. */
NST_API int nst_pool_keep(struct nst_store *s, struct nst_slice pool, struct nst_lease lease, nst_time lasts,
                          nst_time until) NST_WAITS;
NST_API void nst_pool_keep_start(struct nst_store *s, struct nst_slice pool, struct nst_lease lease, nst_time lasts,
                                 struct nst_future *f);

/* Gives the number back: 0, -ESTALE, or an error. */
NST_API int nst_pool_give(struct nst_store *s, struct nst_slice pool, struct nst_lease lease, nst_time until) NST_WAITS;
NST_API void nst_pool_give_start(struct nst_store *s, struct nst_slice pool, struct nst_lease lease,
                                 struct nst_future *f);

/* ---- scan: the keys that begin with a prefix, a page at a time. A key that is there from the first page to the last
 *      is told at least once, and may be told twice; of others nothing is promised. A server looks through all its keys
 *      for it: not for the packet path. ---- */
struct nst_scan { /* where a scan stands; all zero begins one */
    bool done;    /* set with the last page */
    uint32_t part, step;
    uint64_t at;
    uint32_t last_len;
    uint8_t last[NST_KEY_MAX];
};
/* Puts the next keys into page: their number, which may be 0 before the end, or an error. Ask until at->done. A page of
 * NST_SCAN_PAGE bytes is never too small. at and page must live until the future is done. */
enum { NST_SCAN_PAGE = 65536 };
NST_API int nst_scan(struct nst_store *s, struct nst_slice prefix, struct nst_scan *at, void *page, size_t cap,
                     nst_time until) NST_WAITS;
NST_API void nst_scan_start(struct nst_store *s, struct nst_slice prefix, struct nst_scan *at, void *page, size_t cap,
                            struct nst_future *f);
/* The key at *place of a page; moves *place, which begins as page, to the next one. Call it as often as there are keys. */
NST_API struct nst_slice nst_scan_key(const void **place);

/* ---- listening: being told which keys were changed, by anybody, so that values can be kept here. Keep a value only if
 *      `live` was true when its read was started and changed() was not called for its key since. When the connection is
 *      lost, live becomes false and changed() is called for everything at once. A store that cannot tell of changes
 *      (lmdb:) never sets live. ---- */
struct nst_listener {
    struct nst_slice prefix; /* of the keys; borrowed until nst_unlisten. Prefixes of one store must not overlap */
    /* Called when a key may have changed, also by this store's own requests; with key.p == NULL when any key with the
     * prefix may have. Called from the reactor's loop or from within a request; it may neither wait nor call the store. */
    void (*changed)(struct nst_listener *self, struct nst_slice key);
    struct nst_listener *next; /* the store's */
    bool live;                 /* the store's */
};
enum { NST_LISTENERS_MAX = 16 };
/* Starts to listen; l must live until nst_unlisten or nst_store_close. 0, or -EEXIST when the prefix overlaps one that is
 * listened to, -EMSGSIZE when it is longer than a key, -ENOSPC beyond NST_LISTENERS_MAX. Never waits: live is set when the
 * server has agreed. */
NST_API int nst_listen(struct nst_store *s, struct nst_listener *l);
NST_API void nst_unlisten(struct nst_store *s, struct nst_listener *l);

/* What the store did so far. Latencies in ns of real time from start to answer, over the answered requests; mem:
 * answers at once, its latencies are 0. `refused` were not sent, `broken` had no answer when their connection broke,
 * `timeouts` were given up at their deadline. A request that was given up is in flight until its answer comes. */
struct nst_store_stats {
    uint64_t requests, answers, misses, stale, refused, timeouts, broken, errors, protocol_errors, connects;
    uint64_t tripped, shed; /* times that the circuit breaker opened, requests that it refused (also in `refused`) */
    uint32_t in_flight, in_flight_peak;
    nst_time p50, p90, p99, p999, max;
};
NST_API void nst_store_stats(const struct nst_store *s, struct nst_store_stats *out);

#ifdef __cplusplus
}
#endif
