/* SPDX-License-Identifier: Apache-2.0 */
/* store/redis.h - the parts of the store on a Redis server: redis.c owns the connection, redis_proto.c the bytes.
 *
 * One connection at a time. Each request that is sent has a record in a ring, and answers are matched to records in
 * order: Redis answers in order. A request that was given up keeps its record, without a future, and its late answer is
 * read and thrown away. When a connection is lost every record goes with it, and so does the reader with what it had
 * read: nothing that an old connection still owes can be taken for an answer on the new one.
 *
 * A value is kept as eight bytes of version and then the value itself. The version's first byte is REDIS_MARK, which no
 * counter's digits and no UTF-8 text begins with: so a value that somebody else wrote, or a counter, is told apart. The
 * rest counts up from a random place of this store object, so two instances do not write the same version.
 */
#pragma once
#include "base/histogram.h"
#include "store/store.h"
#include "store/url.h"
#include <hiredis/read.h>
#include <netstar/reactor.h>
#include <sys/socket.h>
#include <sys/un.h>

enum {
    REDIS_MARK = 0xf5,
    REDIS_PREFIX = 8,
    REDIS_REPLY_MAX = NST_VALUE_MAX + 4096, /* bytes of one answer: more is not for us */
    REDIS_OUT_MAX = 16 << 20,               /* bytes waiting to be sent */
    REDIS_IN = 64 << 10,                    /* bytes taken by one read */
    REDIS_ADDRESSES = 8,
};

enum redis_op { OP_SETUP, OP_PING, OP_GET, OP_PUT, OP_CAS_NEW, OP_CAS, OP_INCR, OP_DELETE };

struct redis_request {
    struct redis_store *store;
    struct nst_future *f; /* NULL: given up, or of the setup */
    union {
        uint64_t *version;
        int64_t *count;
    };
    void *val;
    uint32_t cap;
    uint8_t op;
    nst_time start; /* on nst_clock: latency and overdue answers are about real time, also in a replay */
};

enum redis_state {
    REDIS_PAUSE,      /* no socket; the timer starts the next attempt */
    REDIS_CONNECTING, /* waiting for the socket */
    REDIS_SETUP,      /* waiting for the answers to AUTH, SELECT and PING */
    REDIS_READY,
};

struct redis_store {
    struct nst_store base;
    enum redis_state state;
    bool queueing; /* the first attempt still runs: requests are kept for it */
    bool timer_armed;
    bool want_write; /* EPOLLOUT is watched */

    /* records, oldest first; both count up and are masked */
    struct redis_request *ring;
    uint32_t ring_mask, head, tail;
    uint32_t in_flight_max;
    uint32_t setup_left; /* of the oldest records, so many belong to the setup */

    /* bytes to be sent: those in [sent, filled); during the setup only up to setup_end */
    uint8_t *out;
    size_t out_cap, sent, filled, setup_end;
    uint64_t writes; /* system calls */

    redisReader *reader;
    int answer;      /* result of the answer that the reader has just finished */
    const char *bad; /* what was wrong with an answer that could not be understood */
    char bad_text[128];
    char *in;

    uint64_t version;
    nst_time reply_after, pause, ready_since, lost_since;
    nst_time read_at; /* when the bytes that are being looked at came */
    int trouble;      /* why there is no connection */
    uint32_t jitter;
    struct nst_reactor *reactor;
    struct nst_watch watch, timer;
    struct nst_flusher flusher;
    struct nst_log_limit log_limit;
    struct nst_histogram latency;

    struct store_url url;
    struct redis_address {
        socklen_t len;
        union {
            struct sockaddr sa;
            struct sockaddr_storage any;
            struct sockaddr_un un;
        };
    } addresses[REDIS_ADDRESSES];
    unsigned n_addresses, next_address, tried;
};

static inline struct redis_store *redis_of(struct nst_store *s)
{
    return (struct redis_store *)s;
}

/* redis.c: a record for one more request, with room for `bytes` in out; NULL when the request was refused, and then its
 * future is done. */
struct redis_request *redis_begin(struct redis_store *s, struct nst_future *f, enum redis_op op, size_t bytes);
/* redis.c: a record of the setup; cannot fail, there is always room. */
void redis_begin_setup(struct redis_store *s);
/* redis.c: a message at a bounded rate; skips what is too much. */
void redis_log(struct redis_store *s, enum nst_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* redis.c: makes room for bytes more in out; false at its limit or without memory. */
bool redis_reserve(struct redis_store *s, size_t bytes);

/* redis_proto.c: the requests. */
void redis_get(struct nst_store *s, struct nst_slice key, void *val, size_t cap, uint64_t *version,
               struct nst_future *f);
void redis_put(struct nst_store *s, struct nst_slice key, struct nst_slice val, nst_time ttl, struct nst_future *f);
void redis_cas(struct nst_store *s, struct nst_slice key, struct nst_slice val, uint64_t version, nst_time ttl,
               struct nst_future *f);
void redis_incr(struct nst_store *s, struct nst_slice key, int64_t by, int64_t *out, nst_time ttl,
                struct nst_future *f);
void redis_del(struct nst_store *s, struct nst_slice key, struct nst_future *f);
void redis_ping(struct nst_store *s, struct nst_future *f);
/* Puts AUTH, SELECT and PING, as the URL asks, into an empty out. False without memory. */
bool redis_put_setup(struct redis_store *s);

/* redis_proto.c: a reader for one connection; NULL without memory. */
redisReader *redis_reader_open(struct redis_store *s);
/* Reads the bytes that came. Calls redis_answered for each complete answer, with s->answer set; stops early when that
 * returns false. 0; 1 when it was stopped; -EPROTO and the reason in s->bad. */
int redis_read(struct redis_store *s, const char *p, size_t len);
/* redis.c: the oldest request has its answer. False when the connection is gone now. */
bool redis_answered(struct redis_store *s);

/* For tests: how often this store has called the kernel to send. */
uint64_t redis_writes(const struct nst_store *s);
