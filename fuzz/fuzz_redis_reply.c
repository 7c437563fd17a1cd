/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes that a Redis server might send, in pieces of any size, as answers to requests of any kind. The first eight
 * bytes of the input choose requests and sizes, the rest is what the server says. This file stands in for redis.c. */
#include "store/redis.h"
#include <stdlib.h>
#include <string.h>

enum { RING = 16, CAP = 24 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct redis_request *redis_begin(struct redis_store *s, struct nst_future *f, enum redis_op op, size_t bytes)
{
    struct redis_request *r = &s->ring[s->tail++ & s->ring_mask];

    *r = (struct redis_request){ .store = s, .f = f, .op = op };
    return r;
}

void redis_begin_setup(struct redis_store *s)
{
}

bool redis_reserve(struct redis_store *s, size_t bytes)
{
    return false;
}

void redis_log(struct redis_store *s, enum nst_log_level level, const char *fmt, ...)
{
}

bool redis_answered(struct redis_store *s)
{
    const struct redis_request *r = &s->ring[s->head++ & s->ring_mask];

    if (s->head > s->tail)
        abort(); /* an answer without a request */
    if (s->answer > 0 && (r->op != OP_GET || s->answer > CAP))
        abort();
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct redis_store s;
    struct nst_future futures[8];
    void *memory[8];
    uint32_t step;

    if (size < 8)
        return 0;
    memset(&s, 0, sizeof s);
    s.ring = calloc(RING, sizeof *s.ring);
    s.ring_mask = RING - 1;
    s.reader = redis_reader_open(&s);
    for (int i = 0; i < 8; i++) {
        struct redis_request *r = redis_begin(&s, data[i] & 8 ? NULL : &futures[i], data[i] % 8, 0);
        memory[i] = malloc(r->op == OP_GET ? CAP + sizeof(uint64_t) : sizeof(uint64_t));
        if (r->op == OP_GET || r->op == OP_INCR)
            r->version = memory[i];
        if (r->op == OP_GET) {
            r->val = (char *)memory[i] + sizeof(uint64_t);
            r->cap = CAP;
        }
    }
    step = data[0] ^ (uint32_t)data[1] << 8;
    data += 8;
    size -= 8;
    while (size > 0) {
        size_t n = step % 64 == 0 ? size : 1 + step % 64 % size;
        char *piece = malloc(n);
        int rc;
        memcpy(piece, data, n);
        rc = redis_read(&s, piece, n);
        free(piece);
        if (rc < 0) {
            if (s.bad == NULL || s.bad[0] == 0)
                abort();
            break;
        }
        data += n;
        size -= n;
        step = step * 1664525 + 1013904223;
    }
    redisReaderFree(s.reader);
    for (int i = 0; i < 8; i++)
        free(memory[i]);
    free(s.ring);
    return 0;
}
