/* SPDX-License-Identifier: Apache-2.0 */
/* The NAT's ports and mappings: two instances on one store. */
#include "nat/nat.h"
#include "state_lab.h"
#include <netinet/in.h>

static struct lab lab;
static struct nat nat[2];

static void advance(nst_time ns)
{
    for (nst_time end = nst_now() + ns; nst_now() < end;) { /* the keeper of the leases gets its turns */
        nst_clock_set(reactor, nst_now() + NST_SEC(1));
        pass_turns(3);
    }
}

/* n public addresses with so many blocks of 8 ports each. */
static void open_with(unsigned n, uint16_t blocks)
{
    const char *why = NULL;

    nst_clock_set(reactor, NST_SEC(1000));
    lab_open(&lab, 2);
    for (unsigned i = 0; i < 2; i++) {
        nat[i] = (struct nat){ .store = &lab.front[i].base,
                               .n_public = n,
                               .block_size = 8,
                               .kept = 1024,
                               .lease_time = NST_SEC(60),
                               .udp_time = NST_SEC(300),
                               .tcp_time = NST_SEC(7440),
                               .tcp_transitory = NST_SEC(240),
                               .icmp_time = NST_SEC(60) };
        for (unsigned a = 0; a < n; a++)
            memcpy(
                nat[i].public [a], (uint8_t[]) { 203, 0, 113, (uint8_t)(a + 1) }, 4);
        CHECK(nat_map_open(&nat[i], &why) == 0 && nat_ports_open(&nat[i]) == 0);
        nat[i].blocks_each = blocks;
    }
}

static void close_all(void)
{
    for (unsigned i = 0; i < 2; i++) {
        nat_ports_close(&nat[i]);
        nat_map_close(&nat[i]);
    }
    lab_close(&lab);
}

static struct nat_end end_of(unsigned host, unsigned port)
{
    return (struct nat_end){ IPPROTO_UDP,
                             { 10, 0, (uint8_t)(host >> 8), (uint8_t)host },
                             { (uint8_t)(port >> 8), (uint8_t)port } };
}

static const struct nat_end remote = { IPPROTO_UDP, { 198, 51, 100, 7 }, { 0, 53 } };

static unsigned port_of(const struct nat_end *e)
{
    return (unsigned)(e->port[0] << 8 | e->port[1]);
}

/* Chooses a port on instance i, which is then taken for so long; 0: there is none. */
static unsigned choose(unsigned i, unsigned host, unsigned port, nst_time lasts, struct nat_end *out)
{
    struct nat_end inside = end_of(host, port);
    int rc = nat_port_choose(&nat[i], &inside, &remote, out, NST_NEVER);

    CHECK(rc == 0 || rc == -ENOSPC);
    if (rc == 0)
        nat_busy(&nat[i], out, nst_now() + lasts);
    return rc == 0 ? port_of(out) : 0;
}

static void choosing_body(void)
{
    struct nat_end e;
    static bool seen[65536];

    open_with(1, 4);
    for (unsigned n = 0; n < 8; n++) { /* the parity of the inside port, while there are such */
        unsigned port = choose(0, n, 5000, NST_SEC(300), &e);
        CHECK(port >= 1024 && !seen[port] && (port % 2 == 0) == (n < 4));
        seen[port] = true;
    }
    CHECK(nat[0].count.blocks_taken == 1);
    for (unsigned n = 0; n < 8; n++) { /* another instance has other blocks */
        unsigned port = choose(1, n, 5001, NST_SEC(300), &e);
        CHECK(port != 0 && !seen[port]);
        seen[port] = true;
    }
    CHECK(nat[1].count.blocks_taken == 1);
    for (unsigned n = 0; n < 16; n++) {
        unsigned port = choose(n % 2, n, 5000, NST_SEC(300), &e);
        CHECK(port != 0 && !seen[port]);
        seen[port] = true;
    }
    CHECK(choose(0, 1, 5000, 0, &e) == 0 && choose(1, 1, 5000, 0, &e) == 0); /* all 32 are taken */
    CHECK(nat[0].count.exhausted == 1);
    struct nat_end tcp = end_of(1, 5000);
    tcp.proto = IPPROTO_TCP; /* but not for another protocol */
    CHECK(nat_port_choose(&nat[0], &tcp, &remote, &e, NST_NEVER) == 0 && seen[port_of(&e)]);
    close_all();
}
static void test_choosing(void **state)
{
    run(choosing_body);
}

static void pairing_body(void)
{
    struct nat_end a, b;
    unsigned differ = 0;

    open_with(4, 100);
    for (unsigned host = 0; host < 100; host++) {
        CHECK(choose(0, host, 1, NST_SEC(9), &a) != 0 && choose(1, host, 2, NST_SEC(9), &b) != 0);
        CHECK(memcmp(a.addr, b.addr, 4) == 0); /* on every instance */
        differ |= 1u << a.addr[3];
    }
    CHECK(differ == 0x1e && nat[0].count.unpaired == 0);
    close_all();
}
static void test_pairing(void **state)
{
    run(pairing_body);
}

static void leases_body(void)
{
    struct nat_end e;

    open_with(1, 1);
    unsigned port = choose(0, 1, 5000, NST_SEC(300), &e);
    CHECK(port != 0 && choose(1, 1, 5000, 0, &e) == 0); /* there is one block, and it is leased */
    advance(NST_SEC(290));
    CHECK(choose(1, 1, 5000, 0, &e) == 0 && nat[0].count.blocks_given == 0); /* its lease is kept */
    advance(NST_SEC(100));
    CHECK(nat[0].count.blocks_given == 1 && nat[0].n_own == 0); /* its last mapping has expired */
    CHECK(choose(1, 1, 5000, NST_SEC(300), &e) == port);

    /* stopped for longer than its lease, an instance has lost the block to the other */
    lab.front[1].keep_requests = true;
    advance(NST_SEC(70));
    CHECK(choose(0, 1, 5000, NST_SEC(300), &e) == port);
    lab.front[1].keep_requests = false;
    front_let_go(&lab.front[1]);
    advance(NST_SEC(30));
    CHECK(nat[1].count.blocks_lost == 1 && nat[1].n_own == 0 && nat[0].n_own == 1);
    close_all();
}
static void test_leases(void **state)
{
    run(leases_body);
}

/* ---- mappings ---- */
static struct nat_record made[4];
static unsigned ended;
static void map_task(void *arg)
{
    intptr_t n = (intptr_t)arg;
    struct nat_packet x = { .way = NAT_OUT, .src = end_of(1, 5000), .dst = remote };
    NST_HELD struct nst_object *m = NULL;

    CHECK(nat_map(&nat[n % 2], &x, &m, NST_NEVER) == 0);
    made[n] = *nat_record(m);
    ended++;
}

static bool there(const char *prefix, const struct nat_end *e)
{
    char key[32];
    memcpy(key, prefix, 6);
    memcpy(key + 6, e, sizeof *e);
    struct nat_record r;
    return nst_get(lab.store, (struct nst_slice){ key, 6 + sizeof *e }, &r, sizeof r, NULL, NST_NEVER) == sizeof r;
}

static void mapping_body(void)
{
    struct nst_scope *scope;
    NST_HELD struct nst_object *m = NULL;

    open_with(1, 8);
    CHECK(nst_scope_open(&scope, NULL) == 0);
    /* four packets of one inside end on two instances, answers late and in turns: one mapping */
    lab.front[0].keep_answers = lab.front[1].keep_answers = true;
    ended = 0;
    for (intptr_t n = 0; n < 4; n++)
        CHECK(nst_spawn(scope, map_task, (void *)n) == 0);
    for (unsigned i = 0; ended < 4; i++) {
        CHECK(i < 1000);
        pass_turns(2);
        front_let_go(&lab.front[i % 2]);
    }
    lab.front[0].keep_answers = lab.front[1].keep_answers = false;
    for (unsigned n = 1; n < 4; n++)
        CHECK(memcmp(&made[n], &made[0], sizeof made[0]) == 0);
    CHECK(nat[0].count.made + nat[1].count.made == 1 && nat[0].count.raced + nat[1].count.raced == 3);
    CHECK(there("nat:i:", &made[0].inside) && there("nat:o:", &made[0].outside));
    pass_turns(5); /* the ports of the others are free again */
    unsigned taken = 0;
    for (unsigned port = 1024; port < 1024 + 64; port++) {
        struct nat_end e = made[0].outside;
        e.port[0] = (uint8_t)(port >> 8);
        e.port[1] = (uint8_t)port;
        taken += there("nat:o:", &e);
    }
    CHECK(taken == 1);

    /* found by either end, on either instance */
    for (unsigned i = 0; i < 2; i++) {
        CHECK(nat_find_inside(&nat[i], &made[0].inside, &m, NST_NEVER) == 0);
        nst_state_release(m);
        CHECK(nat_find_outside(&nat[i], &made[0].outside, &m, NST_NEVER) == 0);
        CHECK(memcmp(nat_record(m), &made[0], sizeof made[0]) == 0);
        nst_state_release(m);
    }
    struct nat_end other = made[0].outside;
    other.port[1] ^= 0x80;
    CHECK(nat_find_outside(&nat[0], &other, &m, NST_NEVER) == -ENOENT);
    nst_state_release(m);
    m = NULL;

    /* a port whose lease has ended, but that is still mapped, is found occupied and left alone */
    advance(NST_SEC(150));
    struct nat_packet x = { .way = NAT_OUT, .src = end_of(2, 5000), .dst = remote };
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned b = 0; b < nat[i].n_own; b++)
            memset(nat[i].block[nat[i].own[b]]->busy, 0, 3 * 8 * sizeof(nst_time));
    }
    for (unsigned n = 0; n < 20; n++) {
        x.src = end_of(100 + n, 5000);
        CHECK(nat_map(&nat[n % 2], &x, &m, NST_NEVER) == 0);
        CHECK(memcmp(&nat_record(m)->outside, &made[0].outside, sizeof(struct nat_end)) != 0);
        nst_state_release(m);
        m = NULL;
    }
    CHECK(nat[0].count.occupied + nat[1].count.occupied >= 1);
    CHECK(nst_scope_close(scope) == 0);
    close_all();
}
static void test_mapping(void **state)
{
    run(mapping_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choosing),
        cmocka_unit_test(test_pairing),
        cmocka_unit_test(test_leases),
        cmocka_unit_test(test_mapping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
