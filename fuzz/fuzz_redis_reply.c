/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes that a Redis server might send, in pieces of any size, as answers to requests of any kind, with messages that
 * nobody asked for between them. The first eight bytes of the input choose requests and sizes, the rest is what the
 * server says. This file stands in for redis.c and redis_link.c. */
#include "store/redis.h"
#include <stdlib.h>

enum { REQUESTS = 8, CAP = 24 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

void redis_log(struct redis_store *s, enum nst_log_level level, const char *name, const char *fmt, ...)
{
}

void store_changed(struct nst_store *s, struct nst_slice key)
{
    static volatile uint8_t last;

    for (size_t i = 0; i < key.len; i++)
        last = ((const uint8_t *)key.p)[i];
    (void)last;
}

void redis_topology(struct redis_link *l, const char *answer)
{
}

void redis_cluster_scanned(struct redis_store *st, const struct redis_link *l, struct nst_scan *at)
{
}

struct redis_record *redis_begin_own(struct redis_link *l, enum redis_own_op op, size_t bytes)
{
    return NULL;
}

void redis_commit(struct redis_link *l, struct redis_record *r, const char *p)
{
}

/* One whole answer. */
static bool answer(struct redis_link *l, struct redis_record *r, const char *bytes, size_t len)
{
    const char *bad = NULL;
    int rc = 0;

    if (resp_skip(bytes) != bytes + len)
        abort(); /* two ways of finding its end */
    if (*bytes == '>')
        return redis_push(l, bytes);
    if (redis_answer(l, r, bytes, &rc, &bad) == REDIS_DONE && (bad != NULL) != (rc == -EPROTO))
        abort();
    if (rc > 0 && r->op != STORE_GET && r->op != STORE_OWN && r->op != STORE_SCAN)
        abort();
    if (rc > CAP)
        abort();
    return bad == NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct redis_store s;
    struct redis_link l = { .store = &s };
    struct redis_record records[REQUESTS];
    struct nst_future future;
    void *memory[REQUESTS];
    char *bytes;
    size_t len = 0, next = 0;
    uint32_t step;

    if (size < REQUESTS)
        return 0;
    for (int i = 0; i < REQUESTS; i++) {
        memory[i] = calloc(1, CAP + sizeof(struct nst_scan));
        records[i] = (struct redis_record){ .link = &l, .f = data[i] & 32 ? NULL : &future, .cap = CAP };
        records[i].op = data[i] % 32 % (REDIS_TOPOLOGY + 1);
        records[i].script = records[i].op == STORE_OWN ? SCRIPT_OWN : SCRIPT_NONE;
        records[i].out = memory[i];
        records[i].scan = (struct nst_scan *)((char *)memory[i] + CAP);
    }
    step = data[0] ^ (uint32_t)data[1] << 8;
    data += REQUESTS;
    size -= REQUESTS;
    while (len < size && next < REQUESTS) {
        const char *bad = NULL;
        ssize_t n;
        len += step % 64 == 0 ? size - len : 1 + step % 64 % (size - len);
        step = step * 1664525 + 1013904223;
        bytes = malloc(len); /* so that the sanitizer sees each byte beyond it */
        memcpy(bytes, data, len);
        n = resp_measure(bytes, len, 4096, &bad);
        if (n < 0 && bad == NULL)
            abort();
        if (n > 0 && !answer(&l, &records[next++], bytes, (size_t)n))
            n = -EPROTO;
        free(bytes);
        if (n < 0)
            break;
        data += n;
        size -= (size_t)n;
        len -= (size_t)n;
    }
    for (int i = 0; i < REQUESTS; i++)
        free(memory[i]);
    return 0;
}
