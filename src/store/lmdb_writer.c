/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that writes into a file, and the files that are open in this process. */
#include "store/lmdb_store.h"
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BATCH = 4096,        /* requests of one transaction at most */
    SWEEP_FEW = 16,      /* records looked at with each transaction, and */
    SWEEP_PER_WRITE = 2, /* for each of its requests */
    READERS = 512,
    DEFAULT_GIB = 16,
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct lmdb_file *files;

struct writer {
    struct lmdb_file *file;
    struct lmdb_channel *channels;
    struct lmdb_slot *batch[BATCH];
    unsigned n;
};

/* ---- a transaction ---- */

static int result_of(int error)
{
    return error == MDB_MAP_FULL || error == ENOSPC ? -ENOSPC : -EIO;
}

/* Carries out the requests [from, to) in one transaction, 0, or an error of LMDB's, and then nothing has happened. */
static int transaction(struct writer *w, unsigned from, unsigned to)
{
    MDB_txn *txn;
    int failed = mdb_txn_begin(w->file->env, NULL, 0, &txn);
    unsigned ops = 0;

    if (failed != 0)
        return failed;
    for (unsigned i = from; i < to && failed == 0; i++) {
        struct lmdb_slot *q = w->batch[i];
        if (q->op == STORE_PING) {
            q->rc = 0;
            continue;
        }
        ops++;
        q->rc = lmdb_carry_out(w->file, txn, q, (uint64_t)mdb_txn_id(txn) << 16 | (i - from), &failed);
    }
    if (failed == 0 && ops > 0)
        failed = lmdb_sweep(w->file, txn, SWEEP_FEW + SWEEP_PER_WRITE * ops);
    if (failed != 0) {
        mdb_txn_abort(txn);
        return failed;
    }
    if (ops == 0) {
        mdb_txn_abort(txn);
        return 0;
    }
    return mdb_txn_commit(txn);
}

static void carry_out(struct writer *w)
{
    if (transaction(w, 0, w->n) == 0)
        return;
    /* One request may have been too much for the file: each by itself, so that only that one fails. */
    for (unsigned i = 0; i < w->n; i++) {
        int failed = transaction(w, i, i + 1);
        if (failed != 0)
            w->batch[i]->rc = result_of(failed);
    }
}

/* ---- the thread ---- */

/* Takes what has come. Ends channels that are closed. */
static void collect(struct writer *w)
{
    struct lmdb_channel *fresh = atomic_exchange(&w->file->fresh, NULL), **at = &w->channels;

    while (fresh != NULL) {
        struct lmdb_channel *next = fresh->next;
        fresh->next = w->channels;
        w->channels = fresh;
        fresh = next;
    }
    w->n = 0;
    while (*at != NULL) {
        struct lmdb_channel *c = *at;
        uint32_t tail = atomic_load_explicit(&c->in_tail, memory_order_acquire);
        bool closed = false;
        while (c->in_head != tail && w->n < BATCH && !closed) {
            uint32_t slot = c->in[c->in_head++ & c->mask];
            closed = slot == LMDB_CLOSE;
            if (!closed) {
                w->batch[w->n++] = &c->slot[slot];
                c->out[c->out_sent++ & c->mask] = slot;
            } else if (w->n > 0) {
                /* its requests are carried out first */
                c->in_head--;
                break;
            }
        }
        if (closed && w->n == 0) {
            *at = c->next;
            lmdb_channel_free(c);
        } else {
            at = &c->next;
        }
    }
}

static void tell(struct writer *w)
{
    uint64_t one = 1;

    for (struct lmdb_channel *c = w->channels; c != NULL; c = c->next) {
        if (atomic_load_explicit(&c->out_tail, memory_order_relaxed) == c->out_sent)
            continue;
        atomic_store_explicit(&c->out_tail, c->out_sent, memory_order_release);
        if (write(c->event_fd, &one, sizeof one) < 0)
            continue; /* full: it is told already */
    }
}

static bool anything(struct writer *w)
{
    if (atomic_load(&w->file->fresh) != NULL)
        return true;
    for (struct lmdb_channel *c = w->channels; c != NULL; c = c->next) {
        if (atomic_load(&c->in_tail) != c->in_head)
            return true;
    }
    return false;
}

static void nap(struct writer *w)
{
    uint64_t count;

    atomic_store(&w->file->sleeping, true);
    atomic_thread_fence(memory_order_seq_cst);
    if (!anything(w) && !(w->channels == NULL && atomic_load(&w->file->users) == 0) &&
        read(w->file->event_fd, &count, sizeof count) < 0)
        return;
    atomic_store(&w->file->sleeping, false);
}

static void close_file(struct lmdb_file *file)
{
    mdb_env_close(file->env);
    close(file->event_fd);
    free(file);
}

/* True when nobody uses the file any more, and nobody can begin to. */
static bool unused(struct lmdb_file *file)
{
    struct lmdb_file **at = &files;
    bool yes;

    pthread_mutex_lock(&lock);
    yes = file->users == 0;
    if (yes) {
        while (*at != file)
            at = &(*at)->next;
        *at = file->next;
        close_file(file);
    }
    pthread_mutex_unlock(&lock);
    return yes;
}

static void *writer_main(void *arg)
{
    struct writer *w = arg;

    for (;;) {
        collect(w);
        if (w->n > 0) {
            carry_out(w);
            tell(w);
        } else if (anything(w)) {
            continue;
        } else if (w->channels == NULL && unused(w->file)) {
            break;
        } else {
            nap(w);
        }
    }
    free(w);
    return NULL;
}

/* On any processor that the process may use, not on the reactor's; signals are not its business. */
static int start_writer(struct lmdb_file *file)
{
    struct writer *w = calloc(1, sizeof *w);
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;
    cpu_set_t cpus;
    int rc;

    if (w == NULL)
        return -ENOMEM;
    w->file = file;
    memset(&cpus, 0xff, sizeof cpus);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setaffinity_np(&attr, sizeof cpus, &cpus);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&thread, &attr, writer_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (rc != 0)
        free(w);
    return -rc;
}

/* ---- files ---- */

static int open_env(struct lmdb_file *file, const struct store_url *url)
{
    size_t gib = url->gib != 0 ? url->gib : DEFAULT_GIB;
    MDB_txn *txn;
    int rc = mdb_env_create(&file->env), dead;

    if (rc == 0)
        rc = mdb_env_set_mapsize(file->env, gib << 30);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(file->env, READERS);
    if (rc == 0)
        rc = mdb_env_open(file->env, url->path, MDB_NOSUBDIR | MDB_NOTLS | MDB_NOMEMINIT, 0600);
    if (rc == 0)
        mdb_reader_check(file->env, &dead); /* of processes that are gone */
    if (rc == 0)
        rc = mdb_txn_begin(file->env, NULL, 0, &txn);
    if (rc == 0) {
        rc = mdb_dbi_open(txn, NULL, 0, &file->dbi);
        if (rc == 0)
            rc = mdb_txn_commit(txn);
        else
            mdb_txn_abort(txn);
    }
    return rc;
}

static struct lmdb_file *find_file(const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return NULL;
    for (struct lmdb_file *f = files; f != NULL; f = f->next) {
        if (f->dev == st.st_dev && f->ino == st.st_ino)
            return f;
    }
    return NULL;
}

static int make_file(struct lmdb_file **out, const struct store_url *url, const char **why)
{
    struct lmdb_file *file = calloc(1, sizeof *file);
    struct stat st;
    int rc;

    if (file == NULL)
        return -ENOMEM;
    file->event_fd = eventfd(0, EFD_CLOEXEC);
    rc = file->event_fd < 0 ? errno : open_env(file, url);
    if (rc == 0 && stat(url->path, &st) != 0)
        rc = errno;
    if (rc == 0) {
        file->dev = st.st_dev;
        file->ino = st.st_ino;
        rc = -start_writer(file);
    }
    if (rc != 0) {
        store_url_why(why, "the file \"%s\" cannot be opened: %s", url->path, mdb_strerror(rc));
        if (file->env != NULL)
            mdb_env_close(file->env);
        if (file->event_fd >= 0)
            close(file->event_fd);
        free(file);
        return rc > 0 ? -rc : -EIO;
    }
    file->next = files;
    files = file;
    *out = file;
    return 0;
}

int lmdb_file_open(struct lmdb_file **out, const struct store_url *url, const char **why)
{
    int rc = 0;

    pthread_mutex_lock(&lock);
    *out = find_file(url->path);
    if (*out == NULL)
        rc = make_file(out, url, why);
    if (rc == 0)
        (*out)->users++;
    pthread_mutex_unlock(&lock);
    return rc;
}

void lmdb_file_close(struct lmdb_file *file)
{
    pthread_mutex_lock(&lock);
    file->users--;
    lmdb_file_wake(file); /* under the lock: the thread may close the file right after */
    pthread_mutex_unlock(&lock);
}

void lmdb_file_serve(struct lmdb_file *file, struct lmdb_channel *c)
{
    struct lmdb_channel *first = atomic_load(&file->fresh);

    do
        c->next = first;
    while (!atomic_compare_exchange_weak(&file->fresh, &first, c));
    lmdb_file_wake(file);
}

void lmdb_file_wake(struct lmdb_file *file)
{
    uint64_t one = 1;

    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&file->sleeping) && atomic_exchange(&file->sleeping, false) &&
        write(file->event_fd, &one, sizeof one) < 0)
        return; /* full: it wakes anyway */
}

void lmdb_channel_free(struct lmdb_channel *c)
{
    for (uint32_t i = 0; c->slot != NULL && i < c->slots; i++)
        free(c->slot[i].bytes);
    if (c->event_fd >= 0)
        close(c->event_fd);
    free(c->slot);
    free(c->in);
    free(c->out);
    free(c);
}
