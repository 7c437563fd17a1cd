/* SPDX-License-Identifier: Apache-2.0 */
/* store/redis_tls.h - TLS between a connection's bytes and its socket: OpenSSL over buffers in memory, on the core's big
 * stack. The server's certificate must be signed by an authority of the URL's file, or of the system, and name the host
 * as it was asked for. */
#pragma once
#include "store/redis.h"

/* What all connections of the store share. 0, or -EINVAL and the reason. */
int redis_tls_open(struct redis_store *s, const char **why);
void redis_tls_close(struct redis_store *s);

/* A connection's part, from its socket's opening to its end. -ENOMEM. */
int redis_tls_start(struct redis_link *l);
void redis_tls_end(struct redis_link *l);

/* As send(2), without a wait: how many of the bytes it took, 0 while the other side must speak first, -EAGAIN while the
 * socket is full, or another error: -EACCES when the two could not agree, and the reason in *why. len may be 0: it sends
 * what has collected. */
ssize_t redis_tls_send(struct redis_link *l, const void *p, size_t len, const char **why);
/* As recv(2): how many bytes came, 0 at the end, -EAGAIN when there is nothing more. *reads counts down with each time
 * that the kernel is asked; at 0 it is not asked any more. */
ssize_t redis_tls_receive(struct redis_link *l, void *p, size_t len, int *reads, const char **why);
