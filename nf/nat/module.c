/* SPDX-License-Identifier: Apache-2.0 */
/* module.c - the NAT as the netstar command starts it. */
#include "../modules.h"
#include "common/complain.h"
#include "nat.h"
#include <stdlib.h>
#include <string.h>

static const struct nst_option options[] = {
    { "public", "ADDRESSES", "public IPv4 addresses, divided by commas: 203.0.113.1,203.0.113.8-203.0.113.15",
      NST_OPTION_REQUIRED },
    { "inside", "ADDRESSES", "whose packets are translated (10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10)",
      0 },
    { "filter", "WHAT", "who may answer: any, address (of a remote end that was talked to), or port (any)", 0 },
    { "others", "WHAT", "pass or drop what comes neither from inside nor goes to a public address (pass)", 0 },
    { "block", "PORTS", "ports that an instance leases at once, 8 to 256 (64)", 0 },
    { "lease", "SECONDS", "until the blocks of an instance that is gone are free (60)", 0 },
    { "tcp-time", "SECONDS", "an established connection may be silent so long (7440)", 0 },
    { "tcp-transitory", "SECONDS", "one that is opening or closing (240)", 0 },
    { "udp-time", "SECONDS", "a UDP mapping without a packet from inside (300)", 0 },
    { "icmp-time", "SECONDS", "an ICMP query mapping likewise (60)", 0 },
    { "kept", "N", "mappings that are kept here, of each of their two names (65536)", 0 },
    { 0 },
};

/* ---- options ---- */
static int read_number(const struct nst_module_env *env, const char *name, unsigned least, unsigned most, unsigned *out,
                       const char **why)
{
    const char *value = env->option(env, name);
    char *end = NULL;
    if (!value)
        return 0;
    unsigned long n = strtoul(value, &end, 10);
    if (*value < '0' || *value > '9' || *end || n < least || n > most)
        return nf_complain(why, -EINVAL, "--%s %s: expected a number from %u to %u", name, value, least, most);
    *out = (unsigned)n;
    return 0;
}

static int read_time(const struct nst_module_env *env, const char *name, unsigned least, nst_time *out,
                     const char **why)
{
    unsigned seconds = (unsigned)(*out / NST_SEC(1));
    int rc = read_number(env, name, least, 86400, &seconds, why);
    *out = NST_SEC(seconds);
    return rc;
}

/* Calls each for every range of a list. */
static int read_ranges(struct nat *nat, const char *name, const char *list,
                       int (*each)(struct nat *, const struct nf_range *), const char **why)
{
    for (const char *at = list, *end; *at; at = *end ? end + 1 : end) {
        end = at + strcspn(at, ",");
        struct nf_word w = { .p = at, .len = (size_t)(end - at) };
        struct nf_range range;
        const char *place = at, *expected = "an address";
        if (nf_range_parse(&w, &range, &place, &expected) < 0)
            return nf_complain(why, -EINVAL, "--%s %s: expected %s at character %zu", name, list, expected,
                               (size_t)(place - list) + 1);
        if (range.family != 4)
            return nf_complain(why, -EINVAL, "--%s %s: only IPv4 is translated", name, list);
        int rc = each(nat, &range);
        if (rc == -ENOSPC)
            return nf_complain(why, -EINVAL, "--%s %s: more than %d addresses", name, list, NAT_PUBLIC_MAX);
        if (rc < 0)
            return nf_complain(why, rc, "out of memory");
    }
    return 0;
}

static uint32_t number_of(const uint8_t *a)
{
    return (uint32_t)a[0] << 24 | (uint32_t)a[1] << 16 | (uint32_t)a[2] << 8 | a[3];
}

static int add_public(struct nat *nat, const struct nf_range *r)
{
    for (uint64_t a = number_of(r->lo); a <= number_of(r->hi); a++) {
        if (nat->n_public == NAT_PUBLIC_MAX)
            return -ENOSPC;
        for (unsigned i = 0; i < 4; i++)
            nat->public[nat->n_public][i] = (uint8_t)(a >> (24 - 8 * i));
        nat->n_public++;
    }
    return 0;
}

static struct nf_addresses_builder building;
static int add_inside(struct nat *nat, const struct nf_range *r)
{
    return nf_addresses_add(&building, r);
}

static int read_addresses(struct nat *nat, const struct nst_module_env *env, const char **why)
{
    const char *inside = env->option(env, "inside"), *public = env->option(env, "public");
    int rc = read_ranges(nat, "public", public ? public : "", add_public, why);
    if (rc == 0 && nat->n_public == 0)
        return nf_complain(why, -EINVAL, "--public ADDRESSES is missing: expected at least one IPv4 address");
    if (rc == 0)
        rc = read_ranges(nat, "inside", inside ? inside : "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10",
                         add_inside, why);
    int built = nf_addresses_build(&nat->inside_net, &building); /* empties it in any case */
    if (rc == 0 && built < 0)
        return nf_complain(why, built, "out of memory");
    for (unsigned i = 0; rc == 0 && i < nat->n_public; i++) {
        if (nf_addresses_have(nat->inside_net, 4, nat->public[i]))
            return nf_complain(why, -EINVAL, "--public %s: some of it is inside, too", public);
    }
    return rc;
}

static int read_options(struct nat *nat, const struct nst_module_env *env, const char **why)
{
    const char *filter = env->option(env, "filter"), *others = env->option(env, "others");
    unsigned block = 64, kept = 65536;
    nat->tcp_time = NST_SEC(7440);
    nat->tcp_transitory = NST_SEC(240);
    nat->udp_time = NST_SEC(300);
    nat->icmp_time = nat->lease_time = NST_SEC(60);

    if (!filter || strcmp(filter, "any") == 0)
        nat->filter = NAT_FILTER_NONE;
    else if (strcmp(filter, "address") == 0)
        nat->filter = NAT_FILTER_ADDRESS;
    else if (strcmp(filter, "port") == 0)
        nat->filter = NAT_FILTER_PORT;
    else
        return nf_complain(why, -EINVAL, "--filter %s: expected any, address or port", filter);
    if (others && strcmp(others, "pass") != 0 && strcmp(others, "drop") != 0)
        return nf_complain(why, -EINVAL, "--others %s: expected pass or drop", others);
    nat->drop_others = others && strcmp(others, "drop") == 0;
    int rc = read_addresses(nat, env, why);
    if (rc == 0)
        rc = read_number(env, "block", 8, NAT_BLOCK_MAX, &block, why);
    if (rc == 0)
        rc = read_number(env, "kept", 64, 16777216, &kept, why);
    if (rc == 0)
        rc = read_time(env, "lease", 3, &nat->lease_time, why);
    if (rc == 0)
        rc = read_time(env, "tcp-transitory", 10, &nat->tcp_transitory, why);
    if (rc == 0)
        rc = read_time(env, "tcp-time", 10, &nat->tcp_time, why);
    if (rc == 0)
        rc = read_time(env, "udp-time", 10, &nat->udp_time, why);
    if (rc == 0)
        rc = read_time(env, "icmp-time", 10, &nat->icmp_time, why);
    nat->block_size = (uint16_t)block;
    nat->kept = kept;
    if (rc == 0 && nat->tcp_time < nat->tcp_transitory)
        return nf_complain(why, -EINVAL, "--tcp-time is less than --tcp-transitory");
    return rc;
}

/* ---- opening and closing ---- */
static void module_close(void *arg)
{
    struct nat *nat = arg;
    nat_ports_close(nat);
    nat_map_close(nat);
    nf_addresses_free(nat->inside_net);
    free(nat);
}

static int module_open(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    struct nat *nat = calloc(1, sizeof *nat);
    if (!nat)
        return nf_complain(why, -ENOMEM, "out of memory");
    nat->store = env->store;
    nat->cores = env->cores;
    nat->core = env->core;
    nat->nf = (struct nst_nf){
        .name = "nat",
        .proto = NST_PROTO_ANY,
        .flow_size = sizeof(struct nat_session),
        /* A packet meets one half: that of its flow's client, whoever of the two has sent it. Nothing that fails lets an
         * inside address out, so --fail open changes nothing here. */
        .half[NST_CLIENT] = { .on_sent = NST_EV_PACKET, .on_received = NST_EV_PACKET, .handler = nat_handler },
        .policy = { .on_conflict = NST_DROP, .on_midstream = NST_FORWARD },
    };
    int rc = read_options(nat, env, why);
    if (rc == 0 && env->n_cores > 1 && nst_store_alone(env->store))
        rc = nf_complain(why, -EINVAL, "several cores need a store that they share: not mem:");
    if (rc == 0 && (rc = nat_map_open(nat, why)) < 0)
        nf_complain(why, rc, "the store: %s", strerror(-rc));
    if (rc == 0 && (rc = nat_ports_open(nat)) < 0)
        nf_complain(why, rc, "%s", strerror(-rc));
    if (rc < 0) {
        module_close(nat);
        return rc;
    }
    *nf = &nat->nf;
    *arg = nat;
    return 0;
}

/* ---- report ---- */
#define NAT_COUNTS(X)                                                                                        \
    X(out, "translated, outward")                                                                            \
    X(in, "translated, inward")                                                                              \
    X(hairpin, "between inside hosts")                                                                       \
    X(errors, "ICMP errors")                                                                                 \
    X(made, "mappings made")                                                                                 \
    X(met, "mappings of others, met")                                                                        \
    X(raced, "races lost") X(occupied, "ports found occupied") X(extended, "lives changed")                  \
        X(broken, "mappings made anew") X(blocks_taken, "blocks taken") X(blocks_given, "blocks given back") \
            X(blocks_lost, "blocks lost") X(unpaired, "not paired") X(exhausted, "ports exhausted")          \
                X(no_mapping, "dropped: no mapping") X(filtered, "dropped: filtered")                        \
                    X(no_map, "dropped: cannot be mapped") X(spoofed, "dropped: inside address outside")     \
                        X(others, "neither inside nor public") X(bad_records, "records not understood")

static void module_merge(void *arg, const void *other)
{
    struct nat *nat = arg;
    const struct nat *more = other;
#define ADD(field, text) nat->count.field += more->count.field;
    NAT_COUNTS(ADD)
#undef ADD
}

static void report_state(FILE *out, const char *name, const struct nst_state *s)
{
    struct nst_state_stats st;
    if (!s)
        return;
    nst_state_stats(s, &st);
    fprintf(out, "  %-26s %u kept (%u at most), %llu asked, %llu answered here, %llu reads, %llu evicted\n", name,
            st.kept, st.kept_peak, (unsigned long long)st.asked, (unsigned long long)st.hits,
            (unsigned long long)st.claims, (unsigned long long)st.evicted);
}

static void module_report(void *arg, FILE *out)
{
    struct nat *nat = arg;
#define SAY(field, text) fprintf(out, "  %-26s %llu\n", text, (unsigned long long)nat->count.field);
    NAT_COUNTS(SAY)
#undef SAY
    fprintf(out, "  %-26s %u\n", "blocks held", nat->n_own);
    report_state(out, "inside ends", nat->inside);
    report_state(out, "outside ends", nat->outside);
    report_state(out, "remote ends", nat->permitted);
}

static uint64_t module_kept(void *arg)
{
    const struct nat *nat = arg;
    const struct nst_state *const states[] = { nat->inside, nat->outside, nat->permitted };
    uint64_t n = 0;
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        struct nst_state_stats st = { 0 };
        if (states[i])
            nst_state_stats(states[i], &st);
        n += st.kept;
    }
    return n;
}

const struct nst_module nat_module = {
    .abi = NST_MODULE_ABI,
    .name = "nat",
    .summary = "source NAT for IPv4 whose mappings are in a store",
    .options = options,
    .uses_store = true,
    .open = module_open,
    .close = module_close,
    .merge = module_merge,
    .report = module_report,
    .kept = module_kept,
};
