/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/store.h - the external state of an NF: one small interface, several stores behind it.
 *
 *   mem:                                                  in this process; gone with it
 *   redis://[[USER][:PASSWORD]@][HOST][:PORT][/DB]        Redis 6 or later, Valkey; 127.0.0.1, port 6379, database
 *                                                         0 unless given; an IPv6 address stands in brackets
 *   redis+unix://PATH[?db=N]                              the same over a Unix socket
 *
 * USER, PASSWORD and PATH may hold %XX. A host name is resolved once, by nst_store_open, which may take the resolver's
 * time: open stores before there is traffic, or give an address. Requests made during the first attempt to connect, at
 * most a second, wait for it; later, requests without a connection are refused at once.
 *
 * A store object belongs to one reactor, holds its own connection, and is used only there. Requests of a turn
 * leave in one write; their number in flight is bounded, and one more is refused with -EBUSY. A key holds either
 * a value (get, put, cas, delete) or a counter (incr, delete). Keys are at most NST_KEY_MAX bytes, values at most
 * NST_VALUE_MAX. Times to live are relative, in ns, kept to the millisecond, and count on the store's clock; 0
 * means for ever.
 *
 * Every waiting form has a _start form, which never waits, initialises the future, copies key and value before it
 * returns, and fulfils the future, also when the request could not even be sent. The waiting form is start and
 * nst_await.
 *
 * Results of every request
 *   -ENOENT     get, delete: no such key
 *   -ESTALE     cas: the version is not the stored one (also: the key is gone)
 *   -EMSGSIZE   get: the value is longer than cap (nothing was copied); put, cas: key or value too long
 *   -EBUSY      too many requests in flight
 *   -ENOTCONN   no connection now; the store reconnects by itself, with growing pauses
 *   -ECONNRESET the connection broke with the request in flight: a write may or may not have landed
 *   -EPROTO     the server's answer could not be understood; the connection is made anew
 *   -EIO        the server answered with an error (logged, at a bounded rate); get: the key holds a counter, or a value
 *               that NetStar did not write; incr: the sum does not fit 64 bits
 *   -EINVAL     incr: the key does not hold a counter; any: a negative time to live
 *   -ENOSPC     mem: the limit of its memory is reached
 *   -ETIMEDOUT, -ECANCELED   as everywhere; a write may or may not have landed
 * Nothing is ever sent a second time by the store itself.
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

/* Opens the store that the URL names, on this reactor. For a server it starts to connect and returns at once.
 * config may be NULL. -EINVAL for a bad URL or a host name that cannot be resolved, and then *why tells in words what
 * was expected at which character (borrowed, a thread-local buffer; why may be NULL). -ENOMEM. */
NST_API int nst_store_open(struct nst_store **out, const char *url, const struct nst_store_config *config,
                           const char **why);

/* Checks a URL without opening anything: 0, or -EINVAL and the reason. Any thread. */
NST_API int nst_store_check(const char *url, const char **why);

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

/* Removes a key: 0, -ENOENT, or an error. */
NST_API int nst_delete(struct nst_store *s, struct nst_slice key, nst_time until) NST_WAITS;
NST_API void nst_delete_start(struct nst_store *s, struct nst_slice key, struct nst_future *f);

/* What the store did so far. Latencies in ns of real time from start to answer, over the answered requests; mem:
 * answers at once, its latencies are 0. `refused` were not sent, `broken` had no answer when their connection broke,
 * `timeouts` were given up at their deadline. A request that was given up is in flight until its answer comes. */
struct nst_store_stats {
    uint64_t requests, answers, misses, stale, refused, timeouts, broken, errors, protocol_errors, connects;
    uint32_t in_flight, in_flight_peak;
    nst_time p50, p90, p99, p999, max;
};
NST_API void nst_store_stats(const struct nst_store *s, struct nst_store_stats *out);

#ifdef __cplusplus
}
#endif
