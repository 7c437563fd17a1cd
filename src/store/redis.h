/* SPDX-License-Identifier: Apache-2.0 */
/* store/redis.h - the parts of a store on Redis servers: redis.c is the store, redis_link.c a connection, redis_request.c
 * writes requests, redis_answer.c reads answers.
 *
 * Each request that is sent over a connection has a record in its ring, and answers are matched to records in order:
 * Redis answers in order. A request that was given up keeps its record, without a future, and its late answer is read
 * and thrown away. When a connection is lost every record goes with it, and so does what had been read: nothing that an
 * old connection still owes can be taken for an answer on the new one. The bytes of a request stay in the buffer until
 * it is answered: when the server says that it did not carry the request out, and where it will be, they are sent again.
 *
 * A value is kept as eight bytes and then the value itself. The first of the eight says what it is; no counter's digits
 * and no UTF-8 text begins so: a value that somebody else wrote, or a counter, is told apart. In a plain value the other
 * seven are its version, which counts up from a random place of this store object, so two instances do not write the
 * same one. In an owned record they are the owner's token. A pool is a sorted set of "value:ticket", the score of each
 * being the millisecond at which it is free.
 *
 * With `replicas` in the URL each burst that writes ends with a WAIT, and its writes are fulfilled by what that answers. Until
 * then their records stay in the ring, between `held` and `head`.
 */
#pragma once
#include "base/histogram.h"
#include "store/redis_script.h"
#include "store/resp.h"
#include "store/store.h"
#include "store/url.h"
#include <netstar/reactor.h>
#include <sys/socket.h>
#include <sys/un.h>

enum {
    REDIS_MARK = 0xf5,       /* a plain value */
    REDIS_MARK_OWNED = 0xf6, /* an owned record */
    REDIS_MARK_EMPTY = 0xf7, /* one whose owners have not written a value yet */
    REDIS_PREFIX = 8,
    REDIS_REPLY_MAX = 1 << 20, /* bytes of one answer: more is not for us */
    REDIS_EARLY = 4096,        /* bytes of requests that leave before the turn ends: the server begins meanwhile */
    REDIS_OUT_MAX = 16 << 20,  /* bytes waiting to be sent or answered, of one connection */
    REDIS_IN = 64 << 10,       /* bytes taken by one read */
    REDIS_ADDRESSES = 8,
    REDIS_INTERNAL = 32,     /* records of a connection beyond those of requests */
    REDIS_TRIES = 5,         /* times that a request is sent where a server says it was not the right one */
    REDIS_REQUEST_MAX = 512, /* bytes of a request without its key and values */
    REDIS_BREAKER = 16,      /* requests in a row that were given up: the server is taken for dead */
    REDIS_WAIT_MS = 500,     /* that replicas have for a write */
};

/* What a record is for: a store_op, or one of the connection's own. */
enum redis_own_op {
    REDIS_SETUP = STORE_OPS, /* must succeed, or the connection is of no use */
    REDIS_HELLO,             /* RESP3 */
    REDIS_TRACK,             /* the last command that one listener needs */
    REDIS_ALIVE,             /* asks an idle server for a sign of life */
    REDIS_ASKING,
    REDIS_TOPOLOGY, /* where the cluster's slots are, or (to a sentinel) the master */
    REDIS_ROLE,     /* of the setup: the server must be a master */
    REDIS_WAIT,     /* how many replicas have all writes before it */
};

struct redis_link;
struct redis_store;

struct redis_record {
    struct redis_link *link;
    struct nst_future *f; /* NULL: given up, or of the connection itself */
    union {
        uint64_t *number;
        int64_t *count;
        struct nst_lease *lease;
        struct nst_scan *scan;
    };
    void *out;
    uint32_t cap;
    uint32_t bytes; /* of the request, in the connection's buffer */
    uint16_t slot;  /* of its key; only in a cluster */
    uint8_t op, script, tries;
    int rc;         /* of a write that waits for replicas */
    nst_time start; /* on nst_clock: latency and overdue answers are about real time, also in a replay */
};

enum redis_state {
    REDIS_PAUSE,      /* no socket; the timer starts the next attempt */
    REDIS_CONNECTING, /* waiting for the socket */
    REDIS_SETTING_UP, /* waiting for the answers to AUTH, SELECT and PING */
    REDIS_READY,
};

struct redis_address {
    socklen_t len;
    union {
        struct sockaddr sa;
        struct sockaddr_storage any;
        struct sockaddr_un un;
    };
};

/* A connection to one server, made again whenever it is lost. */
struct redis_link {
    struct redis_store *store;
    enum redis_state state;
    bool queueing; /* the first attempt still runs: requests are kept for it */
    bool timer_armed;
    bool want_write; /* EPOLLOUT is watched */
    bool full;       /* the socket did not take all: nothing leaves early before the turn's end */
    bool resp3;
    bool broken;   /* the circuit breaker is open */
    bool unwaited; /* there are writes that no WAIT follows */
    bool waiting;  /* a WAIT is under way: until its answer the server would do nothing else, so nothing is sent */

    /* records, oldest first; both count up and are masked */
    struct redis_record *ring;
    uint32_t ring_mask, head, tail;
    uint32_t held;       /* before head: those from here on have their answers, but replicas may not have the writes */
    uint32_t setup_left; /* of the oldest records, so many belong to the setup */
    uint32_t internal;   /* records of the connection's own */
    uint32_t in_flight;  /* the others */
    bool sentinel;       /* the server is one */
    bool settled;        /* its place is known: of a cluster's node, that the cluster says so */
    const char *useless; /* to be dropped for this reason once the answer was dealt with */
    uint8_t index;       /* of a cluster's node */
    uint16_t port;       /* by which the cluster knows it, with host */
    char host[256];
    uint32_t tracks; /* listeners whose tracking is not agreed to yet */
    uint32_t silent; /* requests that were given up since the last answer */

    /* the requests' bytes: [answered, sent) wait for answers, [sent, filled) for being sent; during the setup only
     * those before setup_end are sent */
    uint8_t *out;
    size_t out_cap, answered, sent, filled, setup_end;

    /* the answers' bytes: [0, in_len) */
    char *in;
    size_t in_cap, in_len;

    nst_time pause, ready_since, lost_since, probed;
    nst_time read_at;      /* when the bytes that are being looked at came */
    int trouble;           /* why there is no connection */
    char name[1024];       /* for messages */
    struct redis_tls *tls; /* or NULL */
    struct nst_watch watch, timer;
    struct nst_flusher flusher;
    struct redis_address addresses[REDIS_ADDRESSES];
    unsigned n_addresses, next_address, tried;
};

struct redis_store {
    struct nst_store base;
    struct nst_reactor *reactor;
    struct store_url url;
    struct redis_link *link;       /* the one connection; NULL for a cluster */
    struct redis_cluster *cluster; /* or NULL */
    struct ssl_ctx_st *tls;        /* OpenSSL's, or NULL */
    struct redis_link *sentinel;   /* a connection to one of them, or NULL */
    uint32_t in_flight_max, ring;
    uint32_t replicas;
    uint64_t version;
    uint64_t writes; /* system calls */
    nst_time reply_after;
    uint32_t jitter;
    struct nst_log_limit log_limit;
    struct nst_histogram latency;
};

static inline struct redis_store *redis_of(struct nst_store *s)
{
    return (struct redis_store *)s;
}

/* ---- redis.c ---- */
/* A message at a bounded rate; skips what is too much. */
void redis_log(struct redis_store *s, enum nst_log_level level, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The connection can be used from now on, or can no more. */
void redis_link_ready(struct redis_link *l);
void redis_link_lost(struct redis_link *l);
/* The pause is over: false when somebody else will start the next attempt. */
bool redis_link_retry(struct redis_link *l);
/* The connection has been idle, or one more while has passed. */
void redis_link_tick(struct redis_link *l);
/* Whether redis_link_tick is to be called each second. */
bool redis_link_ticks(const struct redis_link *l);
/* The answer to REDIS_TOPOLOGY. */
void redis_topology(struct redis_link *l, const char *answer);
/* The addresses of a host: 0, or what getaddrinfo says. numeric: it is an address, no resolver is asked. */
void redis_address_text(const struct redis_address *a, char *text, size_t cap);
int redis_resolve(struct redis_link *l, const char *host, uint16_t port, bool numeric);
/* Looks whether the listeners can trust what they are told. */
void redis_listeners(struct redis_store *s);
/* For tests: how often this store has called the kernel to send. */
uint64_t redis_writes(const struct nst_store *s);

/* ---- redis_link.c ---- */
/* A connection that is not made yet; -ENOMEM, the errno of a timer. */
int redis_link_open(struct redis_link **out, struct redis_store *s, const char *name);
void redis_link_close(struct redis_link *l);
/* The oldest request of `from` goes to another server instead, with its record. -ENOTCONN, -EBUSY: it does not. */
int redis_forward(struct redis_link *from, struct redis_link *to, bool asking);
/* Begins to connect, to the addresses that stand in it. */
void redis_link_start(struct redis_link *l);
/* A record for one more request, with room for `bytes`; NULL when the request was refused, and then its future is
 * done. redis_commit follows when the bytes stand there. */
struct redis_record *redis_begin(struct redis_link *l, const struct store_request *rq, struct nst_future *f,
                                 size_t bytes);
/* A record of the connection's own; NULL when there is no room. */
struct redis_record *redis_begin_own(struct redis_link *l, enum redis_own_op op, size_t bytes);
/* What has come together since the turn began leaves now. A failure is found out at the turn's end. */
void redis_send_early(struct redis_link *l);
/* The request ends at p. */
void redis_commit(struct redis_link *l, struct redis_record *r, const char *p);
/* Ends a connection that is of no more use. */
void redis_drop(struct redis_link *l, int trouble, const char *why);
/* Makes room for bytes more in out; false at its limit or without memory. */
bool redis_reserve(struct redis_link *l, size_t bytes);

/* ---- redis_cluster.c ---- */
int redis_cluster_open(struct redis_store *s, const char **why);
void redis_cluster_close(struct redis_store *s);
/* The connection for the request; NULL when there is none. */
struct redis_link *redis_cluster_link(struct redis_store *s, const struct store_request *rq);
/* The node of a scan has no more keys. */
void redis_cluster_scanned(struct redis_store *s, const struct redis_link *l, struct nst_scan *at);
void redis_cluster_ready(struct redis_link *l);
void redis_cluster_lost(struct redis_link *l);
void redis_cluster_topology(struct redis_link *l, const char *answer);
/* "MOVED slot host:port" or "ASK ..." came for the oldest request of l: 0 when it is on its way, or its result. */
int redis_cluster_moved(struct redis_link *l, const char *text, size_t len, bool ask);
int redis_cluster_trouble(const struct redis_store *s);
/* Every slot's node is connected, and tells of changes. */
bool redis_cluster_tells(const struct redis_store *s);
/* Calls fn for each connection. */
void redis_each(struct redis_store *s, void (*fn)(struct redis_link *l, void *arg), void *arg);
uint16_t redis_slot(const void *key, size_t len);

/* ---- redis_sentinel.c ---- */
int redis_sentinel_open(struct redis_store *s, const char **why);
void redis_sentinel_answer(struct redis_link *from, const char *answer);

/* ---- redis_request.c ---- */
/* Bytes that the request needs at most. */
size_t redis_request_bytes(const struct store_request *rq);
/* Writes the request at p and returns its end. */
char *redis_put_request(struct redis_store *s, char *p, const struct store_request *rq, struct redis_record *r);
/* The oldest request, which named a script, with the script's text in its place. */
size_t redis_whole_script_bytes(const struct redis_record *r);
char *redis_put_whole_script(char *p, const struct redis_record *r, const char *request);
/* Puts AUTH, SELECT, what listeners need, and PING, as the URL asks, into an empty out. False without memory. */
bool redis_put_setup(struct redis_link *l);
/* Asks to be told of changes of the listener's keys, or (NULL) of all listeners'. False when there is no room. */
bool redis_put_track(struct redis_link *l, const struct nst_listener *one);
bool redis_put_alive(struct redis_link *l);
/* Asks for the topology. */
bool redis_put_topology(struct redis_link *l);
bool redis_put_asking(struct redis_link *l);
/* Asks how many replicas have what was written so far. */
bool redis_put_wait(struct redis_link *l);
/* ---- redis_answer.c ---- */
enum redis_fate {
    REDIS_DONE,     /* *rc is the request's result */
    REDIS_NOSCRIPT, /* not carried out: send the script */
    REDIS_MOVED,    /* not carried out: another server has the slot, */
    REDIS_ASK,      /* or has this key already while the slot moves */
};
/* What the answer, a whole one, means for the record. *rc -EPROTO and *bad: nothing that can be understood. */
enum redis_fate redis_answer(struct redis_link *l, const struct redis_record *r, const char *answer, int *rc,
                             const char **bad);
/* What the server says without being asked. False when it cannot be understood. */
bool redis_push(struct redis_link *l, const char *push);
