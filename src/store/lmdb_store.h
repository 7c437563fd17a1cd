/* SPDX-License-Identifier: Apache-2.0 */
/* store/lmdb_store.h - the parts of the store in a file: lmdb.c is the store on its reactor, lmdb_writer.c the thread that
 * writes, lmdb_data.c what is done inside a transaction.
 *
 * A file is open once in a process (LMDB wants it so), whatever the number of reactors that use it, and has one thread
 * that writes. A request is a slot; its number goes to the thread through a ring and comes back through another. The
 * thread takes what is there, from all reactors, into one transaction, and commits it, which may wait for the disk:
 * what comes meanwhile is the next transaction. Reads run on the reactor's own core, in a read transaction that is
 * renewed once in a turn. Several processes may use the file; LMDB has a lock between their writers, which survives
 * the death of its holder.
 *
 * In the file, 'k' and a key have a record: what it is, the wall clock's ms at which it expires, a number (version,
 * token, counter, or how many numbers of a pool were ever given), and the value. A pool has besides, for each of its
 * numbers that was ever given, 'v', its name and the number: when it is free, and the ticket; and 'f', its name, that
 * time and the number, in this order.
 */
#pragma once
#include "base/histogram.h"
#include "store/store.h"
#include "store/url.h"
#include <lmdb.h>
#include <netstar/reactor.h>
#include <pthread.h>
#include <stdatomic.h>

enum lmdb_kind { LMDB_VALUE = 1, LMDB_COUNTER, LMDB_OWNED, LMDB_OWNED_EMPTY, LMDB_POOL };

struct lmdb_record {
    uint64_t kind;
    int64_t until; /* ms of the wall clock; INT64_MAX: for ever */
    uint64_t number;
};

enum { LMDB_KEY_MAX = NST_KEY_MAX + 16 };

/* A request on its way. What the first part holds is the reactor's alone. */
struct lmdb_slot {
    struct nst_future *f; /* NULL: given up */
    struct nst_store *store;
    nst_time start;
    void *out;
    size_t cap;
    void *number_out; /* where the number, the count or the lease goes */
    uint32_t next;    /* free slots are a list */

    enum store_op op;
    uint32_t value, key_len, val_len, other_len;
    uint64_t token;
    int64_t by;
    nst_time ttl;
    uint8_t key[NST_KEY_MAX];
    uint8_t *bytes; /* the value, then what is expected; own: what was found */
    size_t bytes_cap;

    int rc;
    uint64_t number; /* results */
    struct nst_lease lease;
};

/* What a store and the thread share. */
struct lmdb_channel {
    struct lmdb_channel *next;
    struct lmdb_slot *slot;
    uint32_t slots, mask;
    uint32_t *in, *out; /* rings of numbers of slots; CLOSE in `in` ends the channel */
    _Atomic uint32_t in_tail __attribute__((aligned(64)));
    _Atomic uint32_t out_tail __attribute__((aligned(64)));
    uint32_t in_head, out_sent; /* the thread's */
    int event_fd;               /* tells the reactor of answers */
};
enum { LMDB_CLOSE = UINT32_MAX };

/* A file that is open in this process. */
struct lmdb_file {
    struct lmdb_file *next;
    MDB_env *env;
    MDB_dbi dbi;
    dev_t dev;
    ino_t ino;
    _Atomic unsigned users; /* changed under the lock of all files */
    _Atomic(struct lmdb_channel *) fresh;
    _Atomic bool sleeping;
    int event_fd;                /* wakes the thread */
    uint8_t sweep[LMDB_KEY_MAX]; /* where the search for what has expired goes on */
    size_t sweep_len;
};

/* lmdb_writer.c: opens the file, or finds it open. 0, or an -errno and the reason. */
int lmdb_file_open(struct lmdb_file **out, const struct store_url *url, const char **why);
/* The thread serves the channel from now on, until LMDB_CLOSE comes through it: then it frees it. */
void lmdb_file_serve(struct lmdb_file *file, struct lmdb_channel *c);
/* One user less; after the last one the thread closes the file. */
void lmdb_file_close(struct lmdb_file *file);
/* Wakes the thread when it sleeps. */
void lmdb_file_wake(struct lmdb_file *file);
void lmdb_channel_free(struct lmdb_channel *c);

/* lmdb_data.c: carries a request out in a transaction. 0 or more is the request's result, and so are the negative ones
 * of netstar/store.h; a positive error of LMDB's goes into *failed, and the transaction must be given up. */
int lmdb_carry_out(struct lmdb_file *file, MDB_txn *txn, struct lmdb_slot *q, uint64_t unique, int *failed);
/* Removes what has expired among the next n records. 0, or an error of LMDB's. */
int lmdb_sweep(struct lmdb_file *file, MDB_txn *txn, unsigned n);
/* Reads a record: the value lies in the file. -ENOENT, -EIO. */
int lmdb_find(MDB_dbi dbi, MDB_txn *txn, const void *key, size_t len, struct lmdb_record *r, MDB_val *value,
              int *failed);
int64_t lmdb_now(void);
