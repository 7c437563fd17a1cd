/* SPDX-License-Identifier: Apache-2.0 */
/* Mappings. The store has each under two keys, neither of which is ever overwritten:
 *
 *   nat:o:END  the outside end is taken, by this inside end; whoever creates it has the port
 *   nat:i:END  the inside end is mapped, to this outside end
 *
 * The first is made before the second and lives MARGIN longer, and so it is whenever their lives are changed: so as long as
 * an inside end is known to be mapped to a port, nobody else can have that port. An instance that was stopped in between
 * for longer than that finds out before it uses what it has made.
 */
#include "nat.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/random.h>

enum { VERSION = 1, PORT_TRIES = 16, RACES = 4 };
#define MARGIN NST_SEC(60)
#define OCCUPIED NST_SEC(30) /* a port that was found occupied is left alone so long */

static const char inside_name[] = "nat:i:", outside_name[] = "nat:o:", permit_name[] = "nat:f:";

static struct nst_slice key_of(const struct nat_end *e)
{
    return (struct nst_slice){ e, sizeof *e };
}

static nst_time first_life(const struct nat *nat, uint8_t proto)
{
    return proto == IPPROTO_TCP ? nat->tcp_transitory : proto == IPPROTO_UDP ? nat->udp_time : nat->icmp_time;
}

/* What is in a store is not trusted. */
static bool makes_sense(struct nat *nat, const struct nst_object *m, const struct nat_end *end, bool inside)
{
    const struct nat_record *r = m->value;

    if (m->len == sizeof *r && r->version == VERSION &&
        memcmp(inside ? &r->inside : &r->outside, end, sizeof *end) == 0)
        return true;
    nat->count.bad_records++;
    return false;
}

static int find(struct nat *nat, struct nst_state *s, const struct nat_end *end, struct nst_object **m, nst_time until)
{
    int rc = nst_state_read(s, key_of(end), m, until);

    if (rc == 0 && (*m)->there)
        rc = nst_state_settle(*m, until); /* it may be in the making */
    if (rc == 0 && !(*m)->there)
        return -ENOENT;
    return rc < 0 ? rc : makes_sense(nat, *m, end, s == nat->inside) ? 0 : -EPROTO;
}

int nat_find_inside(struct nat *nat, const struct nat_end *inside, struct nst_object **m, nst_time until)
{
    return find(nat, nat->inside, inside, m, until);
}

int nat_find_outside(struct nat *nat, const struct nat_end *outside, struct nst_object **m, nst_time until)
{
    return find(nat, nat->outside, outside, m, until);
}

/* ---- making one ---- */
static int create(struct nst_object *o, const struct nat_record *r, nst_time life, nst_time until)
{
    if (o->there)
        return -EEXIST;
    memcpy(o->value, r, sizeof *r);
    o->len = sizeof *r;
    o->ttl = life;
    return nst_state_create(o, until);
}

/* Takes a port for the inside end. */
static int reserve(struct nat *nat, struct nat_record *r, const struct nat_end *remote, nst_time until)
{
    nst_time life = first_life(nat, r->inside.proto) + MARGIN;

    for (unsigned tries = 0; tries < PORT_TRIES; tries++) {
        int rc = nat_port_choose(nat, &r->inside, remote, &r->outside, until);
        if (rc < 0)
            return rc;
        NST_HELD struct nst_object *o = nst_state_hold(nat->outside, key_of(&r->outside));
        rc = o != NULL ? create(o, r, life, until) : -ENOSPC;
        if (rc != -EEXIST) {
            nat_busy(nat, &r->outside, nst_now() + life); /* where its creation failed it may have been done */
            return rc;
        }
        nat->count.occupied++;
        nat_busy(nat, &r->outside, nst_now() + OCCUPIED);
    }
    return -ENOSPC;
}

/* Gives up a port that was taken, and not used. */
static void unreserve(struct nat *nat, const struct nat_record *r)
{
    NST_HELD struct nst_object *o = nst_state_hold(nat->outside, key_of(&r->outside));

    if (o != NULL && o->there && memcmp(o->value, r, sizeof *r) == 0)
        nst_state_forget_start(o, NULL);
    nat_busy(nat, &r->outside, nst_now() + NST_SEC(1));
}

static int make(struct nat *nat, const struct nat_packet *x, struct nst_object *m, nst_time until)
{
    struct nat_record r = { .inside = x->src, .version = VERSION };
    nst_time begun = nst_now();

    nat->id++;
    memcpy(r.id, &nat->id, sizeof r.id);
    int rc = reserve(nat, &r, &x->dst, until);
    if (rc < 0)
        return rc;
    rc = create(m, &r, first_life(nat, r.inside.proto), until);
    if (rc == 0 && nst_now() - begun < MARGIN / 2) {
        struct nat_local *local = m->local;
        *local = (struct nat_local){ .life = first_life(nat, r.inside.proto), .touched = nst_now() };
        nat->count.made++;
        return 0;
    }
    if (rc == 0) {
        nst_state_forget_start(m, NULL);
        return -ETIMEDOUT;
    }
    if (rc == -EEXIST) {
        nat->count.raced++;
        unreserve(nat, &r);
    }
    return rc;
}

int nat_map(struct nat *nat, const struct nat_packet *x, struct nst_object **m, nst_time until)
{
    int rc = -EEXIST;

    for (unsigned races = 0; races < RACES && (rc == -EEXIST || rc == -ESTALE); races++) {
        if (races > 0)
            nst_state_release(*m);
        rc = nat_find_inside(nat, &x->src, m, until);
        if (rc == -ENOENT)
            rc = make(nat, x, *m, until);
    }
    return rc;
}

/* ---- its life ---- */
/* Follows the connection by what the inside end sends: it is open once that goes on after its SYN, and over once it sends a
 * FIN or a reset. True: with it, the last one that this mapping is known to carry is over. */
static bool follow(struct nat_session *s, struct nat_local *local, uint8_t flags)
{
    bool was = s->phase == NAT_ESTABLISHED;

    if (flags & (TH_FIN | TH_RST))
        s->phase = NAT_CLOSING;
    else if (flags & TH_SYN)
        s->phase = was ? NAT_ESTABLISHED : NAT_OPENING;
    else if (s->phase != NAT_CLOSING)
        s->phase = NAT_ESTABLISHED;
    bool is = s->phase == NAT_ESTABLISHED;
    if (is && (!was || local->established == 0))
        local->established++;
    else if (was && !is && local->established > 0)
        local->established--;
    return was && !is && local->established == 0;
}

/* How long the mapping is to live from now on. It is shortened only by the end of the last connection: another instance may
 * know of some that this one does not, and keeps those alive by their packets. */
static nst_time life_of(struct nat *nat, struct nst_flow *f, const struct nst_packet *p, const struct nat_local *local,
                        bool over)
{
    uint8_t proto = nst_packet_headers(p)->proto;

    if (proto != IPPROTO_TCP)
        return first_life(nat, proto);
    if (local->established > 0 || local->touched == 0)
        return nat->tcp_time;
    return over || local->life < nat->tcp_transitory ? nat->tcp_transitory : local->life;
}

static struct nst_slice whole_key(char *to, const char *prefix, const struct nat_end *end)
{
    memcpy(to, prefix, strlen(prefix));
    memcpy(to + strlen(prefix), end, sizeof *end);
    return (struct nst_slice){ to, strlen(prefix) + sizeof *end };
}

static int touch_inside(struct nat *nat, const struct nat_record *r, nst_time life, nst_time until)
{
    char key[sizeof inside_name + sizeof(struct nat_end)];
    return nst_touch(nat->store, whole_key(key, inside_name, &r->inside), life, until);
}

/* Only while it is this mapping's. */
static int touch_outside(struct nat *nat, const struct nat_record *r, nst_time life, nst_time until)
{
    char key[sizeof outside_name + sizeof(struct nat_end)];
    struct nst_slice record = { r, sizeof *r };
    return nst_cas_bytes(nat->store, whole_key(key, outside_name, &r->outside), record, record, life, until);
}

int nat_use(struct nat *nat, struct nst_flow *f, struct nst_packet *p, struct nst_object *m, nst_time until)
{
    struct nat_local *local = m->local;
    const struct nat_record r = *nat_record(m);
    bool tcp = nst_packet_headers(p)->proto == IPPROTO_TCP;
    bool over = tcp && follow(nst_flow_state(f), local, nst_packet_headers(p)->tcp_flags);
    nst_time life = life_of(nat, f, p, local, over), since = nst_now() - local->touched;
    bool shorter = local->touched != 0 && life < local->life;
    int rc = 0;

    if (local->touched != 0 && life == local->life && since <= first_life(nat, r.inside.proto) / 4)
        return 0;
    /* A shorter life begins with the inside end, a longer one with the outside end. */
    if (shorter)
        rc = touch_inside(nat, &r, life, until);
    if (rc == 0)
        rc = touch_outside(nat, &r, life + MARGIN, until);
    if (rc == 0 && !shorter)
        rc = touch_inside(nat, &r, life, until);
    if (rc == 0) {
        nat_busy(nat, &r.outside, nst_now() + life + MARGIN);
        nat->count.met += local->touched == 0;
        local->life = life;
        local->touched = nst_now();
        nat->count.extended++;
        return 0;
    }
    if (rc != -ESTALE && rc != -ENOENT)
        return 0; /* it lives on as it is, and the next packet tries again */
    nat->count.broken++;
    rc = nst_state_forget(m, until);
    return rc < 0 && rc != -ESTALE ? rc : -ESTALE;
}

/* ---- filtering ---- */
struct permit_key {
    struct nat_end outside;
    uint8_t addr[4], port[2];
};

static struct nst_slice permit_key(const struct nat *nat, const struct nst_object *m, const struct nat_end *remote,
                                   struct permit_key *k)
{
    k->outside = nat_record(m)->outside;
    memcpy(k->addr, remote->addr, 4);
    memcpy(k->port, remote->port, 2);
    /* a query's answer has the identifier of the mapping in the place of a port: it tells nothing of the remote end */
    bool port = nat->filter == NAT_FILTER_PORT && remote->proto != IPPROTO_ICMP;
    return (struct nst_slice){ k, sizeof *k - (port ? 0 : sizeof k->port) };
}

int nat_permit(struct nat *nat, const struct nst_object *m, const struct nat_end *remote, nst_time until)
{
    const struct nat_local *local = m->local;
    nst_time life = local->life != 0 ? local->life : first_life(nat, remote->proto);
    struct permit_key k;
    NST_HELD struct nst_object *o = NULL;

    if (nat->filter == NAT_FILTER_NONE)
        return 0;
    int rc = nst_state_read(nat->permitted, permit_key(nat, m, remote, &k), &o, until);
    if (rc == 0 && !o->there) {
        *(uint8_t *)o->value = VERSION;
        o->len = 1;
        o->ttl = life;
        rc = nst_state_create(o, until);
        return rc == -EEXIST ? 0 : rc;
    }
    if (rc == 0)
        rc = nst_state_settle(o, until);
    if (rc < 0)
        return rc;
    o->ttl = life;
    nst_state_use(o);
    return 0;
}

int nat_permitted(struct nat *nat, const struct nst_object *m, const struct nat_end *remote, nst_time until)
{
    struct permit_key k;
    NST_HELD struct nst_object *o = NULL;

    if (nat->filter == NAT_FILTER_NONE)
        return 0;
    int rc = nst_state_read(nat->permitted, permit_key(nat, m, remote, &k), &o, until);
    return rc < 0 ? rc : o->there ? 0 : -EACCES;
}

/* ---- open and close ---- */
int nat_map_open(struct nat *nat, const char **why)
{
    struct nst_state_config ends = {
        .name = inside_name,
        .kind = NST_STATE_READ,
        .size = sizeof(struct nat_record),
        .key_max = sizeof(struct nat_end),
        .kept = nat->kept,
        .ttl = nat->tcp_transitory,
        .local = sizeof(struct nat_local),
    };
    struct nst_state_config permits = {
        .name = permit_name,
        .kind = NST_STATE_READ,
        .size = 1,
        .key_max = sizeof(struct permit_key),
        .kept = nat->kept,
    };

    *why = "the store cannot be used by it";
    if (getrandom(&nat->id, sizeof nat->id, 0) != sizeof nat->id)
        return -EIO;
    int rc = nst_state_open(&nat->inside, nat->store, &ends);
    ends.name = outside_name;
    ends.local = 0;
    if (rc == 0)
        rc = nst_state_open(&nat->outside, nat->store, &ends);
    if (rc == 0 && nat->filter != NAT_FILTER_NONE)
        rc = nst_state_open(&nat->permitted, nat->store, &permits);
    return rc;
}

void nat_map_close(struct nat *nat)
{
    nst_state_close(nat->permitted);
    nst_state_close(nat->outside);
    nst_state_close(nat->inside);
}
