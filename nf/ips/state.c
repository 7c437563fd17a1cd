/* SPDX-License-Identifier: Apache-2.0 */
#include "state.h"
#include <string.h>

/* version 1, flags 1, automaton lengths 2 + 2, rules 8, base 8, current offset 8, current seq 4, bytes from the
 * previous point to the current one 4, blocking rule 4, ack 4, checksum 4; then current and previous automaton */
enum { VERSION = 1, HAS_ACK = 1, TO_CLIENT = 2 };
enum {
    AT_LENGTHS = 2,
    AT_RULES = 6,
    AT_BASE = 14,
    AT_OFFSET = 22,
    AT_SEQ = 30,
    AT_SPAN = 34,
    AT_RULE = 38,
    AT_ACK = 42,
    AT_CHECK = 46
};
_Static_assert(AT_CHECK + 4 == IPS_STATE_FIXED, "the checksum ends the fixed part");

static void write_le(uint8_t *p, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t read_le(const uint8_t *p, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)p[i] << (8 * i);
    return value;
}

uint64_t ips_hash(uint64_t seed, const void *p, size_t len)
{
    const uint8_t *at = p;
    uint64_t h = seed ^ len;
    while (len > 0) {
        int n = len < 8 ? (int)len : 8;
        h = (h ^ read_le(at, n)) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
        at += n;
        len -= (size_t)n;
    }
    h *= 0xbf58476d1ce4e5b9u;
    return h ^ h >> 32;
}

static uint32_t checksum(const uint8_t *record, size_t len)
{
    uint64_t h = ips_hash(VERSION, record, AT_CHECK);
    return (uint32_t)ips_hash(h, record + IPS_STATE_FIXED, len - IPS_STATE_FIXED);
}

size_t ips_state_encode(const struct ips_state *st, uint8_t out[IPS_STATE_MAX])
{
    const struct nst_slice *now = &st->current.automaton, *before = &st->previous.automaton;
    out[0] = VERSION;
    out[1] = (uint8_t)((st->has_ack ? HAS_ACK : 0) | (st->to_client ? TO_CLIENT : 0));
    write_le(out + AT_LENGTHS, now->len, 2);
    write_le(out + AT_LENGTHS + 2, before->len, 2);
    write_le(out + AT_RULES, st->rules, 8);
    write_le(out + AT_BASE, st->base, 8);
    write_le(out + AT_OFFSET, st->current.offset, 8);
    write_le(out + AT_SEQ, st->current.seq, 4);
    write_le(out + AT_SPAN, st->current.offset - st->previous.offset, 4);
    write_le(out + AT_RULE, st->rule, 4);
    write_le(out + AT_ACK, st->has_ack ? st->ack : 0, 4);
    if (now->len > 0)
        memcpy(out + IPS_STATE_FIXED, now->p, now->len);
    if (before->len > 0)
        memcpy(out + IPS_STATE_FIXED + now->len, before->p, before->len);
    size_t len = IPS_STATE_FIXED + now->len + before->len;
    write_le(out + AT_CHECK, checksum(out, len), 4);
    return len;
}

int ips_state_decode(struct ips_state *st, const void *record, size_t len)
{
    const uint8_t *in = record;
    if (len < IPS_STATE_FIXED || in[0] != VERSION || in[1] & ~(HAS_ACK | TO_CLIENT))
        return -EPROTO;
    size_t now = read_le(in + AT_LENGTHS, 2), before = read_le(in + AT_LENGTHS + 2, 2);
    if (now > IPS_AUTOMATON_MAX || before > IPS_AUTOMATON_MAX || len != IPS_STATE_FIXED + now + before ||
        read_le(in + AT_CHECK, 4) != checksum(in, len))
        return -EPROTO;

    uint64_t base = read_le(in + AT_BASE, 8), offset = read_le(in + AT_OFFSET, 8);
    uint32_t seq = (uint32_t)read_le(in + AT_SEQ, 4), span = (uint32_t)read_le(in + AT_SPAN, 4);
    if (offset < base || offset - base < span)
        return -EPROTO;
    *st = (struct ips_state){
        .rules = read_le(in + AT_RULES, 8),
        .base = base,
        .rule = (uint32_t)read_le(in + AT_RULE, 4),
        .ack = (uint32_t)read_le(in + AT_ACK, 4),
        .has_ack = in[1] & HAS_ACK,
        .to_client = in[1] & TO_CLIENT,
        .current = { seq, offset, { in + IPS_STATE_FIXED, now } },
        .previous = { seq - span, offset - span, { in + IPS_STATE_FIXED + now, before } },
    };
    return 0;
}

const struct ips_point *ips_state_at(const struct ips_state *st, uint32_t seq)
{
    return seq == st->current.seq ? &st->current : seq == st->previous.seq ? &st->previous : NULL;
}
