/* SPDX-License-Identifier: Apache-2.0 */
/* lb/services.h - the file of services and their back ends.
 *
 *   service web tcp 10.99.0.10:80 {
 *       mode nat
 *       check http "/health" every 2s timeout 1s rise 2 fall 3
 *       drain 5m
 *       backend a 10.78.0.1:8080 weight 2
 *       backend b 10.78.0.2:8080 drain
 *   }
 *
 * README.md has the whole language. What was read is never changed. Any thread.
 */
#pragma once
#include "common/text.h"
#include "maglev.h"

enum { LB_SERVICES_MAX = 256, LB_NAME_MAX = 64, LB_PATH_MAX = 255, LB_FILE_MAX = 4 << 20 };

enum lb_mode { LB_NAT, LB_DSR };
enum lb_check { LB_CHECK_NONE, LB_CHECK_TCP, LB_CHECK_HTTP };

/* An address and a port, in network order both; IPv4 uses the first 4 bytes and the rest is 0. */
struct lb_place {
    uint8_t family; /* 4 or 6 */
    uint8_t addr[16];
    uint8_t port[2];
};

struct lb_backend {
    char name[LB_NAME_MAX + 1];
    struct lb_place place;
    uint8_t mac[6];
    bool has_mac;
    bool drains; /* no new connections */
    unsigned weight;
    unsigned service;    /* whose it is */
    uint16_t check_port; /* host order; 0: that of its place */
    uint32_t line;
    uint32_t id; /* stays the same while the file is read anew, see lb_services_number */
};

struct lb_service {
    char name[LB_NAME_MAX + 1];
    uint8_t proto; /* 6 or 17 */
    struct lb_place vip;
    enum lb_mode mode;
    enum lb_check check;
    char path[LB_PATH_MAX + 1], host[LB_NAME_MAX + 1]; /* of an HTTP check */
    int64_t every, timeout;                            /* ns */
    unsigned rise, fall;
    int64_t drain;   /* how long connections of a back end that drains may go on, ns; 0: as long as they like */
    size_t first, n; /* its back ends stand together */
    uint64_t weights;
    uint32_t line;
    bool any; /* the table can be asked */
    struct lb_maglev table;
};

struct lb_services {
    struct lb_service **service;
    size_t n;
    struct lb_backend *backend;
    size_t n_backends;
    size_t *by_place; /* indices of the back ends in NAT mode, in the order of their protocol and place */
    size_t n_by_place;
    uint32_t next_id;
};

/* Reads a file; errors are written as common/text.h has them. -EINVAL when there was any; -ENOMEM; the errno of reading. */
int lb_services_read(struct lb_services **out, const char *path, FILE *errors);
int lb_services_parse(struct lb_services **out, const char *name, const char *text, size_t len, FILE *errors);
/* Gives back ends that were there before, in the same service and at the same place, the numbers that they had, and new
 * ones to the others. before may be NULL. */
void lb_services_number(struct lb_services *s, const struct lb_services *before);
void lb_services_free(struct lb_services *s);

/* Which service has this address; the first back end, in NAT mode, that has. NULL: none. */
const struct lb_service *lb_service_at(const struct lb_services *s, uint8_t proto, const struct lb_place *place);
const struct lb_backend *lb_backend_at(const struct lb_services *s, uint8_t proto, const struct lb_place *place);
/* That of a service. */
const struct lb_backend *lb_backend_of(const struct lb_services *s, const struct lb_service *service,
                                       const struct lb_place *place);
