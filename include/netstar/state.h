/* SPDX-License-Identifier: Apache-2.0 */
/* netstar/state.h - state that is kept here and lives in the store: read once, then written through.
 *
 * A *state* is one kind of objects under a common prefix, opened by an NF on one reactor over a store. An *object* is a
 * value of bounded size under a key. What an NF does with it decides which kind it needs:
 *
 *   NST_STATE_OWNED  one instance at a time owns an object. The first claim on this instance reads the value and takes the
 *                    ownership in one round trip; from then on it is kept here, reading it is a lookup in a table, and
 *                    changing it writes it through. Whoever claims it later, on another instance, becomes the owner.
 *   NST_STATE_READ   objects that are read often and hardly ever change: kept here, never owned. Whoever finds none may
 *                    create it, and of several at most one succeeds; anybody may remove it.
 *   (shared)         what several instances change at the same time is not kept: nst_cas, nst_incr, nst_pool_take and
 *                    the like in store.h carry it out in the store.
 *
 * What is promised
 *   Writes     An owner that has lost the object changes nothing any more: ownership is a token in the store, and a write
 *              with an old one is refused there (-ESTALE). So of two instances that change an object by claim, change,
 *              commit, and do it again after -ESTALE, none undoes or overwrites what the other has had acknowledged, also
 *              when one was paused for any time between any two of these steps.
 *   Reads      What nst_state_claim or nst_state_read hands out was the store's value no longer ago than `fresh` and one
 *              round trip, counted from the beginning of this turn. Usually it is much newer: the store tells of changes
 *              by others (where it can), and a kept value of which that is told, or which was kept over a lost
 *              connection, is confirmed by the store before it is handed out again.
 *   Output     What was changed is in memory at once, and in the store when commit or settle says so. A packet may leave
 *              when that is the case: see "Output commit".
 *   Failure    When a write fails or its outcome is unknown, every wait for it fails with that error, and the kept value is
 *              given up: the next claim reads what the store has, and takes the ownership anew, so that what may still be
 *              on its way can no longer land.
 * The store's own promises stand under these: a store that loses acknowledged writes loses them here, too.
 *
 * Holding    An object that was handed out is held until nst_state_release and stays where it is. It may be read and
 *            changed in place between two waits. Over a wait, others may change it: another handler of this instance, or a
 *            claim that has read it anew. So read again after a wait what was read before.
 * Threads    Everything is called on the reactor that opened the state. Only what says NST_WAITS waits; each of these has
 *            a _start form, which never waits and fulfils a future.
 */
#pragma once
#include <netstar/flow.h>
#include <netstar/store.h>

#ifdef __cplusplus
extern "C" {
#endif

struct nst_state;

enum nst_state_kind { NST_STATE_OWNED, NST_STATE_READ };

enum { NST_STATE_PREFIX_MAX = 64 };

struct nst_state_config {
    const char *name; /* the prefix of its keys in the store, such as "nat:"; at most NST_STATE_PREFIX_MAX bytes */
    enum nst_state_kind kind; /* of all its objects */
    uint32_t size;            /* bytes of the largest value: 1 to NST_VALUE_MAX */
    uint16_t key_max;         /* bytes of the longest key, without the prefix; 0: 64 */
    uint32_t kept;            /* objects kept here at most; 0: 65536 */
    nst_time ttl;             /* life in the store after the last write; 0: for ever */
    nst_time fresh;           /* see above; 0: 1 s */
    uint16_t local;           /* bytes of the NF's own beside each object, which the store never sees; at most 256 */
    uint32_t sends;           /* packets that may wait in nst_state_send; 0: 4096 */
};

/* One object. All but these fields is private. */
struct nst_object {
    void *value; /* `size` bytes, aligned to 8; those beyond len are anything */
    void *local; /* `local` bytes, aligned to 8, zeroed when it begins to be kept here, and lost when it no longer is */
    uint32_t len; /* the value's; whoever changes the value sets it */
    bool there;   /* the store had a value, or one was committed; false: nobody has written it yet */
    nst_time ttl; /* the life that its next write gives it in the store: that of the config unless changed */
};

/* Opens a state over a store, which it borrows and which must live longer. -EINVAL: the config; -ENOMEM; -EEXIST: the store
 * is listened to under an overlapping prefix. */
NST_API int nst_state_open(struct nst_state **out, struct nst_store *store, const struct nst_state_config *config);

/* Every wait ends with -ECANCELED, and what is kept is forgotten; nothing may be held any more. What was acknowledged is in
 * the store, and the next instance reads it there. NULL is allowed. Never waits. */
NST_API void nst_state_close(struct nst_state *s);

/* ---- reading. *out is set in any case but -ENOSPC and -EMSGSIZE, and then has to be released, also when the result
 *      says that it is not valid; NST_HELD below does that by itself. Results beside those of store.h:
 *   -ENOSPC    everything that is kept is held or being written
 *   -EMSGSIZE  the key is longer than key_max (*out is NULL), or the stored value is longer than size ---- */

/* OWNED: this instance's object from now on: 0, and its value is in *out. Without a wait when it is kept and fresh. */
NST_API int nst_state_claim(struct nst_state *s, struct nst_slice key, struct nst_object **out,
                            nst_time until) NST_WAITS;
NST_API void nst_state_claim_start(struct nst_state *s, struct nst_slice key, struct nst_object **out,
                                   struct nst_future *f);

/* READ: the same without ownership. That there is no value (`there`) is kept as well. */
NST_API int nst_state_read(struct nst_state *s, struct nst_slice key, struct nst_object **out,
                           nst_time until) NST_WAITS;
NST_API void nst_state_read_start(struct nst_state *s, struct nst_slice key, struct nst_object **out,
                                  struct nst_future *f);

/* Either: the object if claim or read would answer without a wait, held, else NULL. Never waits. */
NST_API struct nst_object *nst_state_kept(struct nst_state *s, struct nst_slice key);

/* READ: the object as it is here, held, without asking the store: to create one of which it is likely that there is none.
 * `there` only if that is known and fresh. NULL: -ENOSPC or -EMSGSIZE as above. Never waits. */
NST_API struct nst_object *nst_state_hold(struct nst_state *s, struct nst_slice key);

/* No longer holds it. NULL is allowed. */
NST_API void nst_state_release(struct nst_object *o);

/* A local variable that releases what it holds when it goes out of scope:
 *     NST_HELD struct nst_object *o = NULL;
 * Claiming again into the same variable needs a release before. */
#define NST_HELD __attribute__((cleanup(nst_state_release_variable)))
static inline void nst_state_release_variable(struct nst_object **o)
{
    nst_state_release(*o);
}

/* READ: makes a value that was given to an object without one (`there` is false; look again after each wait) the store's, if
 * there is still none there: 0; -EEXIST when there is one now, here or there: read it again; or the store's error, and then
 * it may have been done. *o is not to be changed before the answer. */
NST_API int nst_state_create(struct nst_object *o, nst_time until) NST_WAITS;
NST_API void nst_state_create_start(struct nst_object *o, struct nst_future *f);

/* ---- changing (OWNED). Change the value in place, set len, and say so by one of these, before the next wait. All that
 *      was said of one object in a turn leaves as one write at the turn's end, carrying the newest value; what is said
 *      while a write is under way follows in the next, so that there is never more than one under way. ---- */

/* Waits until the change is acknowledged: 0; -ESTALE when another instance owns the object now: claim it again and begin
 * anew; or the store's error. After -ETIMEDOUT and -ECANCELED the change stays in the kept value and may still land. */
NST_API int nst_state_commit(struct nst_object *o, nst_time until) NST_WAITS;
NST_API void nst_state_commit_start(struct nst_object *o, struct nst_future *f);

/* The same without waiting for it: "release at once". A failure is counted, and gives the kept value up. */
NST_API void nst_state_write(struct nst_object *o);

/* Either kind: removes it from the store, and here: 0, also when it was gone, or as commit. A commit that is said after it
 * either writes it again, or answers -ESTALE. The
 * start form takes NULL where nobody waits for it. */
NST_API int nst_state_forget(struct nst_object *o, nst_time until) NST_WAITS;
NST_API void nst_state_forget_start(struct nst_object *o, struct nst_future *f);

/* Either kind: a quarter of its life in the store has gone since it began, as far as is known here, or its ttl was
 * changed. */
NST_API bool nst_state_due(const struct nst_object *o);

/* The object is in use: if it is due it is written again (READ: its life is extended), which nobody waits for. */
NST_API void nst_state_use(struct nst_object *o);

/* ---- output commit. Who lets something out because of what an object says, without changing it, has to know that it is
 *      acknowledged: another handler may have changed it just now. A handler therefore ends with one of
 *   commit, then FORWARD   it has changed the object
 *   settle, then FORWARD   it has not
 *   nst_state_send         either, where packets need not be held behind it (commit_start or write first)
 *   FORWARD                the NF has decided that this output need not wait: "release at once" ---- */

/* Waits until all that the object holds now is acknowledged: 0 at once when nothing is under way, else as commit. */
NST_API int nst_state_settle(struct nst_object *o, nst_time until) NST_WAITS;
NST_API void nst_state_settle_start(struct nst_object *o, struct nst_future *f);

/* Lets the event's packet, edited as it is, leave when all that these objects hold now is acknowledged (1 to
 * NST_STATE_SEND_MAX of them), and returns the verdict for the handler to return: NST_FORWARD when that is so already and
 * no packet sent so waits before it, else NST_TAKEN, while the flow goes on with its next packet. Packets sent so over the
 * same first object leave in their order. One whose write fails, or is not acknowledged at ev->until, meets the policy, as
 * with nst_fail: on_store, on_timeout. Where `sends` or the engine's limit is reached, the packet itself meets the policy
 * (-EBUSY: on_store). Not for packets whose bytes an inspector has yet to commit to: they count as forwarded. */
enum { NST_STATE_SEND_MAX = 2 };
NST_API enum nst_verdict nst_state_send(struct nst_flow *f, const struct nst_event *ev, struct nst_object *const o[],
                                        unsigned n);

struct nst_state_stats {
    uint64_t asked;       /* claims and reads */
    uint64_t hits;        /* of them answered from here, without a wait */
    uint64_t claims;      /* round trips that read a value (and took the ownership) */
    uint64_t confirms;    /* that only asked whether a kept one still holds */
    uint64_t commits;     /* changes that were said */
    uint64_t writes;      /* round trips that wrote or removed a value; commits - writes were merged */
    uint64_t renewals;    /* of the writes: only because of `use` */
    uint64_t stale;       /* ownerships lost, found out by a write or a confirmation */
    uint64_t invalidated; /* kept values given up because the store told of a change */
    uint64_t failed;      /* writes with any other error */
    uint64_t evicted;     /* kept objects that made room for others */
    uint64_t refused;     /* -ENOSPC: no room at all; sends beyond the limit */
    uint64_t sent_late;   /* packets that waited in nst_state_send */
    uint32_t kept, kept_peak, sends, sends_peak;
};
NST_API void nst_state_stats(const struct nst_state *s, struct nst_state_stats *out);
/* Adds one's numbers to a sum over cores. */
NST_API void nst_state_stats_add(struct nst_state_stats *sum, const struct nst_state_stats *one);

#ifdef __cplusplus
}
#endif
