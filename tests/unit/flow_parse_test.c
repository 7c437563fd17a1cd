/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/parse.h"
#include "flow_lab.h"
#include <netinet/in.h>
#include <stdlib.h>

enum { EXT_HOP = 0, EXT_ROUTING = 43, EXT_FRAGMENT = 44, EXT_AH = 51, EXT_DST = 60 };

struct result {
    enum parsed parsed;
    enum nst_fault fault; /* of what is PARSED_MALFORMED */
    struct nst_headers h;
    struct flow_key key;
    bool from_b;
};

static void nothing(void *frame, void *arg)
{
}

/* The frame lies in memory of exactly its size, so that AddressSanitizer sees a byte read behind it. `more` is how many
 * bytes follow in further segments. */
static struct result parse_split(const uint8_t *frame, unsigned len, unsigned more)
{
    static struct rte_mbuf_ext_shared_info shared = { .free_cb = nothing };
    struct result r;
    struct rte_mbuf *m = rte_pktmbuf_alloc(port_pool);
    uint8_t *exact = malloc(len != 0 ? len : 1);

    assert_non_null(m);
    memcpy(exact, frame, len);
    rte_mbuf_ext_refcnt_set(&shared, 1);
    rte_pktmbuf_attach_extbuf(m, exact, RTE_BAD_IOVA, (uint16_t)len, &shared);
    m->data_len = (uint16_t)len;
    m->pkt_len = len + more;
    memset(&r, 0xee, sizeof r);
    r.parsed = parse_packet(m, &r.h, &r.key, &r.from_b);
    r.fault = NST_FAULTS;
    if (r.parsed >= PARSED_MALFORMED) {
        r.fault = (enum nst_fault)(r.parsed - PARSED_MALFORMED);
        r.parsed = PARSED_MALFORMED;
    }
    rte_pktmbuf_free(m);
    free(exact);
    return r;
}

static struct result parse(const uint8_t *frame, unsigned len)
{
    return parse_split(frame, len, 0);
}

static unsigned tcp(uint8_t *frame, const struct lab_path *p, unsigned dir, const char *data)
{
    return lab_tcp_frame(frame, p, dir,
                         (struct lab_tcp){ .flags = ACK | PSH, .seq = 1, .data = data, .len = (unsigned)strlen(data) });
}

static void fields(void **state)
{
    uint8_t frame[LAB_FRAME];
    unsigned len = tcp(frame, &lab_tcp4, C2S, "hello");
    struct result r = parse(frame, len);

    assert_int_equal(r.parsed, PARSED_FLOW);
    assert_int_equal(r.h.l3, 14);
    assert_int_equal(r.h.l4, 34);
    assert_int_equal(r.h.payload, 54);
    assert_int_equal(r.h.payload_len, 5);
    assert_int_equal(r.h.family, 4);
    assert_int_equal(r.h.proto, IPPROTO_TCP);
    assert_int_equal(r.h.tcp_flags, ACK | PSH);
    assert_int_equal(r.h.vlan_tags, 0);
    assert_int_equal(key_family(&r.key), 4);
    assert_int_equal(key_proto(&r.key), IPPROTO_TCP);
    assert_int_equal(key_vlan(&r.key), 0);
    assert_int_equal(r.from_b ? key_port_b(&r.key) : key_port_a(&r.key), 40000);
    assert_int_equal(r.from_b ? key_port_a(&r.key) : key_port_b(&r.key), 80);
    bool from_b = r.from_b;
    uint8_t sender[16];
    assert_int_equal(key_address(&r.key, from_b, sender), 4);
    assert_memory_equal(sender, frame + 26, 4);
    len = tcp(frame, &lab_tcp4, S2C, "hello");
    r = parse(frame, len);
    assert_int_equal(r.from_b, !from_b);

    len = lab_udp_frame(frame, &lab_udp6, C2S, "abc", 3);
    from_b = parse(frame, len).from_b;
    len = lab_udp_frame(frame, &lab_udp6, S2C, "abc", 3);
    r = parse(frame, len);
    assert_int_equal(r.parsed, PARSED_FLOW);
    assert_int_equal(r.h.l4, 54);
    assert_int_equal(r.h.payload, 62);
    assert_int_equal(r.h.payload_len, 3);
    assert_int_equal(r.h.family, 6);
    assert_int_equal(r.h.proto, IPPROTO_UDP);
    assert_int_equal(r.from_b, !from_b);
    assert_int_equal(key_address(&r.key, r.from_b, sender), 16);
    assert_memory_equal(sender, frame + 22, 16);
}

/* The link pads short frames; the padding is no payload. */
static void padding(void **state)
{
    uint8_t frame[LAB_FRAME];
    unsigned len = tcp(frame, &lab_tcp4, C2S, "");

    memset(frame + len, 0xaa, 60 - len);
    struct result r = parse(frame, 60);
    assert_int_equal(r.parsed, PARSED_FLOW);
    assert_int_equal(r.h.payload_len, 0);
}

static void both_directions_one_key(void **state)
{
    static const struct lab_path paths[] = {
        { .family = 4, .proto = 6, .host = { 1, 2 }, .port = { 5, 6 } },
        { .family = 4, .proto = 6, .host = { 2, 1 }, .port = { 5, 6 } },
        { .family = 4, .proto = 6, .host = { 7, 7 }, .port = { 9, 6 } },
        { .family = 6, .proto = 6, .host = { 0x00010002, 0x00020001 }, .port = { 5, 6 } },
        { .family = 6, .proto = 6, .host = { 7, 7 }, .port = { 9, 6 } },
        { .family = 6, .proto = 6, .host = { 9, 7 }, .port = { 6, 6 }, .tags = 1, .vlan = { 5 } },
    };
    struct hash_secret secret = { { 1, 2, 3, 4, 5, 6, 7, 8 } };
    uint8_t frame[LAB_FRAME];

    for (unsigned i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        struct result c = parse(frame, tcp(frame, &paths[i], C2S, "x"));
        struct result s = parse(frame, tcp(frame, &paths[i], S2C, "y"));
        assert_int_equal(c.parsed, PARSED_FLOW);
        assert_int_equal(s.parsed, PARSED_FLOW);
        assert_true(key_equal(&c.key, &s.key));
        assert_true(key_hash(&c.key, &secret) == key_hash(&s.key, &secret));
        assert_true(c.from_b != s.from_b);
    }
    /* Both ends the same: still a key, whichever way. */
    struct lab_path self = { .family = 4, .proto = 6, .host = { 7, 7 }, .port = { 6, 6 } };
    struct result c = parse(frame, tcp(frame, &self, C2S, "x"));
    struct result s = parse(frame, tcp(frame, &self, S2C, "x"));
    assert_true(key_equal(&c.key, &s.key));
}

static void keys_differ(void **state)
{
    static const struct lab_path paths[] = {
        { .family = 4, .proto = 6, .host = { 1, 2 }, .port = { 5, 6 } },
        { .family = 4, .proto = 17, .host = { 1, 2 }, .port = { 5, 6 } },
        { .family = 6, .proto = 6, .host = { 1, 2 }, .port = { 5, 6 } },
        { .family = 4, .proto = 6, .host = { 1, 3 }, .port = { 5, 6 } },
        { .family = 4, .proto = 6, .host = { 1, 2 }, .port = { 6, 5 } },
        { .family = 4, .proto = 6, .host = { 1, 2 }, .port = { 5, 7 } },
        { .family = 4, .proto = 6, .host = { 1, 2 }, .port = { 5, 6 }, .tags = 1, .vlan = { 9 } },
        { .family = 4, .proto = 6, .host = { 1, 2 }, .port = { 5, 6 }, .tags = 1, .vlan = { 10 } },
        { .family = 6, .proto = 6, .host = { 1, 2 }, .port = { 5, 6 }, .tags = 1, .vlan = { 9 } },
        { .family = 6, .proto = 6, .host = { 1, 0x10002 }, .port = { 5, 6 } },
        { .family = 6, .proto = 6, .host = { 0x10001, 2 }, .port = { 5, 6 } },
    };
    enum { N = sizeof paths / sizeof paths[0] };
    struct hash_secret secret = { { 11, 12, 13, 14, 15, 16, 17, 18 } };
    uint8_t frame[LAB_FRAME];
    struct result r[N];

    for (unsigned i = 0; i < N; i++) {
        unsigned len =
            paths[i].proto == 6 ? tcp(frame, &paths[i], C2S, "x") : lab_udp_frame(frame, &paths[i], C2S, "x", 1);
        r[i] = parse(frame, len);
        assert_int_equal(r[i].parsed, PARSED_FLOW);
        for (unsigned j = 0; j < i; j++) {
            assert_false(key_equal(&r[i].key, &r[j].key));
            assert_true(key_hash(&r[i].key, &secret) != key_hash(&r[j].key, &secret));
        }
    }
}

static void vlan_tags(void **state)
{
    struct lab_path p = lab_tcp4;
    uint8_t frame[LAB_FRAME];

    p.tags = 1;
    p.vlan[0] = 0xf123; /* priority bits are no part of the number */
    struct result r = parse(frame, tcp(frame, &p, C2S, "x"));
    assert_int_equal(r.parsed, PARSED_FLOW);
    assert_int_equal(r.h.vlan_tags, 1);
    assert_int_equal(r.h.l3, 18);
    assert_int_equal(key_vlan(&r.key), 0x123);

    p.tags = 2;
    p.vlan[1] = 77;
    r = parse(frame, tcp(frame, &p, C2S, "x"));
    assert_int_equal(r.parsed, PARSED_FLOW);
    assert_int_equal(r.h.vlan_tags, 2);
    assert_int_equal(r.h.l3, 22);
    assert_int_equal(key_vlan(&r.key), 77);

    p.tags = 3; /* IP hidden behind more: for the policy, not passed by */
    r = parse(frame, tcp(frame, &p, C2S, "x"));
    assert_int_equal(r.parsed, PARSED_MALFORMED);
    assert_int_equal(r.h.proto, 0);
}

/* Cut at each byte: what is no IP header yet is not IP or malformed, and never a flow. Nothing is read behind the end.
 */
static void cut_at_each_byte(void **state)
{
    uint8_t frame[LAB_FRAME];
    struct lab_path paths[] = { lab_tcp4, lab_tcp6, lab_udp4, lab_udp6, lab_tcp4, lab_udp6 };
    paths[4].tags = 1;
    paths[5].tags = 2;

    for (unsigned i = 0; i < 6; i++) {
        unsigned len = paths[i].proto == IPPROTO_TCP ? tcp(frame, &paths[i], C2S, "hello")
                                                     : lab_udp_frame(frame, &paths[i], C2S, "hello", 5);
        unsigned l3 = 14 + 4 * paths[i].tags, l4 = l3 + (paths[i].family == 4 ? 20 : 40);
        unsigned payload = l4 + (paths[i].proto == IPPROTO_TCP ? 20 : 8);
        for (unsigned cut = 0; cut < len; cut++) {
            struct result r = parse(frame, cut);
            assert_int_equal(r.parsed, PARSED_MALFORMED);
            assert_int_equal(r.fault, cut < l3   ? NST_FAULT_ETHER
                                      : cut < l4 ? NST_FAULT_IP_HEADER
                                                 : NST_FAULT_IP_LENGTH);
            /* The rest in another segment: only the headers must be in one piece. */
            r = parse_split(frame, cut, len - cut);
            assert_int_equal(r.parsed, cut < payload ? PARSED_MALFORMED : PARSED_FLOW);
        }
        assert_int_equal(parse(frame, len).parsed, PARSED_FLOW);
    }
}

/* What is wrong is told for each kind, and by the outermost header that is. */
static void faults(void **state)
{
    struct lab_path tagged = lab_tcp4;
    uint8_t frame[LAB_FRAME];
    unsigned len;

    tagged.tags = 3;
    assert_int_equal(parse(frame, tcp(frame, &tagged, C2S, "x")).fault, NST_FAULT_TAGS);
    len = tcp(frame, &lab_tcp4, C2S, "x");
    frame[14] = 0x65;
    assert_int_equal(parse(frame, len).fault, NST_FAULT_IP_VERSION);
    frame[14] = 0x44;
    assert_int_equal(parse(frame, len).fault, NST_FAULT_IP_HEADER);
    frame[14] = 0x45;
    frame[17]++;
    assert_int_equal(parse(frame, len).fault, NST_FAULT_IP_LENGTH);
    frame[17] = 39;
    assert_int_equal(parse(frame, len).fault, NST_FAULT_TCP_HEADER);
    frame[17] = 41;
    frame[46] = 4 << 4;
    assert_int_equal(parse(frame, len).fault, NST_FAULT_TCP_OFFSET);
    len = lab_udp_frame(frame, &lab_udp4, C2S, "abc", 3);
    frame[17] = 27;
    assert_int_equal(parse(frame, len).fault, NST_FAULT_UDP_HEADER);
    frame[17] = 31;
    frame[39] = 12;
    assert_int_equal(parse(frame, len).fault, NST_FAULT_UDP_LENGTH);
    len = lab_udp_frame(frame, &lab_udp6, C2S, "abc", 3);
    frame[60] = frame[61] = 0;
    assert_int_equal(parse(frame, len).fault, NST_FAULT_UDP_CHECKSUM);
    frame[20] = EXT_HOP;
    frame[55] = 9;
    assert_int_equal(parse(frame, len).fault, NST_FAULT_EXTENSION);
    for (unsigned i = 0; i < NST_FAULTS; i++)
        assert_string_not_equal(nst_fault_name((enum nst_fault)i), "unknown");
    assert_string_equal(nst_fault_name(NST_FAULTS), "unknown");
}

/* Options of IPv4: a host drops the packet for one that lies, so nothing in it may be believed. */
static void ipv4_options(void **state)
{
    static const struct {
        uint8_t option[8];
        bool good;
    } cases[] = {
        { { 1, 1, 1, 1, 1, 1, 1, 1 }, true },
        { { 0, 9, 9, 9, 9, 9, 9, 9 }, true },
        { { 148, 4, 0, 0, 0 }, true },
        { { 7, 7, 4, 0, 0, 0, 0, 0 }, true },
        { { 1, 1, 1, 1, 1, 1, 1, 7 }, false },
        { { 7, 9, 4, 0 }, false },
        { { 7, 1, 4, 0 }, false },
        { { 7, 0, 4, 0 }, false },
        { { 1, 7, 8, 4 }, false },
        { { 68, 8, 5, 0, 0, 0, 0, 0 }, true },
    };
    uint8_t plain[LAB_FRAME], frame[LAB_FRAME];
    unsigned len = tcp(plain, &lab_tcp4, C2S, "hello");

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        memcpy(frame, plain, 34);
        memcpy(frame + 34, cases[i].option, 8);
        memcpy(frame + 42, plain + 34, len - 34);
        frame[14] = 0x47;
        frame[17] = (uint8_t)(frame[17] + 8);
        struct result r = parse(frame, len + 8);
        assert_int_equal(r.parsed, cases[i].good ? PARSED_FLOW : PARSED_MALFORMED);
        assert_int_equal(r.fault, cases[i].good ? NST_FAULTS : NST_FAULT_IP_OPTION);
        assert_int_equal(r.h.proto, IPPROTO_TCP);
    }
}

static void lying_ipv4(void **state)
{
    uint8_t good[LAB_FRAME], frame[LAB_FRAME];
    unsigned len = tcp(good, &lab_tcp4, C2S, "hello");

    for (unsigned v = 0; v < 256; v++) { /* version and header length */
        memcpy(frame, good, len);
        frame[14] = (uint8_t)v;
        enum parsed is = parse(frame, len).parsed;
        if (v == 0x45)
            assert_int_equal(is, PARSED_FLOW);
        else if (v >> 4 != 4 || (v & 15) < 5)
            assert_int_equal(is, PARSED_MALFORMED);
        else /* TCP's header begins among its own bytes: whatever it is, nothing is read outside */
            assert_true(is == PARSED_MALFORMED || is == PARSED_FLOW);
    }
    for (unsigned total = 0; total < 65536; total++) { /* total length */
        memcpy(frame, good, len);
        frame[16] = (uint8_t)(total >> 8);
        frame[17] = (uint8_t)total;
        struct result r = parse(frame, len);
        bool fits = total >= 40 && total <= len - 14;
        assert_int_equal(r.parsed, fits ? PARSED_FLOW : PARSED_MALFORMED);
        if (fits)
            assert_int_equal(r.h.payload_len, total - 40);
    }
}

static void lying_ipv6(void **state)
{
    uint8_t good[LAB_FRAME], frame[LAB_FRAME];
    unsigned len = tcp(good, &lab_tcp6, C2S, "hello");

    for (unsigned v = 0; v < 16; v++) {
        memcpy(frame, good, len);
        frame[14] = (uint8_t)(v << 4);
        assert_int_equal(parse(frame, len).parsed, v == 6 ? PARSED_FLOW : PARSED_MALFORMED);
    }
    for (unsigned n = 0; n < 65536; n++) {
        memcpy(frame, good, len);
        frame[18] = (uint8_t)(n >> 8);
        frame[19] = (uint8_t)n;
        struct result r = parse(frame, len);
        bool fits = n >= 20 && n <= len - 54;
        assert_int_equal(r.parsed, fits ? PARSED_FLOW : PARSED_MALFORMED);
        if (fits)
            assert_int_equal(r.h.payload_len, n - 20);
    }
}

static void tcp_data_offset(void **state)
{
    uint8_t frame[LAB_FRAME];
    static const struct lab_path *const paths[] = { &lab_tcp4, &lab_tcp6 };

    for (unsigned i = 0; i < 2; i++) {
        unsigned len = tcp(frame, paths[i], C2S, "12345678");
        unsigned l4 = i == 0 ? 34 : 54;
        for (unsigned off = 0; off < 16; off++) {
            frame[l4 + 12] = (uint8_t)(off << 4);
            struct result r = parse(frame, len);
            assert_int_equal(r.parsed, off >= 5 && off <= 7 ? PARSED_FLOW : PARSED_MALFORMED);
            if (r.parsed == PARSED_FLOW) {
                assert_int_equal(r.h.payload, l4 + off * 4);
                assert_int_equal(r.h.payload_len, 28 - off * 4);
            } else {
                assert_int_equal(r.h.proto, IPPROTO_TCP);
            }
        }
        /* Options that are there in the frame but, says the IP length, do not belong to the packet. */
        len = tcp(frame, paths[i], C2S, "");
        frame[l4 + 12] = 6 << 4;
        memset(frame + len, 0, 8);
        assert_int_equal(parse(frame, len + 8).parsed, PARSED_MALFORMED);
    }
}

static void udp_length(void **state)
{
    uint8_t frame[LAB_FRAME];
    static const struct lab_path *const paths[] = { &lab_udp4, &lab_udp6 };

    for (unsigned i = 0; i < 2; i++) {
        unsigned len = lab_udp_frame(frame, paths[i], C2S, "12345678", 8);
        unsigned l4 = i == 0 ? 34 : 54;
        for (unsigned n = 0; n < 65536; n++) {
            frame[l4 + 4] = (uint8_t)(n >> 8);
            frame[l4 + 5] = (uint8_t)n;
            struct result r = parse(frame, len);
            assert_int_equal(r.parsed, n >= 8 && n <= 16 ? PARSED_FLOW : PARSED_MALFORMED);
            if (r.parsed == PARSED_FLOW)
                assert_int_equal(r.h.payload_len, n - 8);
        }
    }
}

static void ipv4_fragments(void **state)
{
    uint8_t frame[LAB_FRAME];
    unsigned len = tcp(frame, &lab_tcp4, C2S, "hello");
    static const struct {
        uint16_t field;
        enum parsed is;
    } cases[] = { { 0x4000, PARSED_FLOW },     /* do not fragment */
                  { 0x8000, PARSED_FLOW },     /* the reserved bit */
                  { 0x2000, PARSED_FRAGMENT }, /* first */
                  { 0x2001, PARSED_FRAGMENT }, /* middle */
                  { 0x0001, PARSED_FRAGMENT }, /* last */
                  { 0x1fff, PARSED_FRAGMENT } };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        frame[20] = (uint8_t)(cases[i].field >> 8);
        frame[21] = (uint8_t)cases[i].field;
        struct result r = parse(frame, len);
        assert_int_equal(r.parsed, cases[i].is);
        assert_int_equal(r.h.proto, IPPROTO_TCP);
    }
    /* A later fragment may be shorter than TCP's header. */
    frame[20] = 0;
    frame[21] = 3;
    frame[16] = 0;
    frame[17] = 21;
    assert_int_equal(parse(frame, 35).parsed, PARSED_FRAGMENT);
}

static void other_protocols(void **state)
{
    uint8_t frame[LAB_FRAME];

    for (unsigned proto = 0; proto < 256; proto++) {
        if (proto == IPPROTO_TCP || proto == IPPROTO_UDP)
            continue;
        unsigned at = lab_ip_header(frame, &lab_tcp4, C2S, (uint8_t)proto, 3);
        struct result r = parse(frame, at + 3);
        assert_int_equal(r.parsed, PARSED_OTHER_PROTO);
        assert_int_equal(r.h.proto, proto);
        if (proto == EXT_HOP || proto == EXT_ROUTING || proto == EXT_FRAGMENT || proto == EXT_AH || proto == EXT_DST)
            continue;
        at = lab_ip_header(frame, &lab_tcp6, C2S, (uint8_t)proto, 3);
        r = parse(frame, at + 3);
        assert_int_equal(r.parsed, PARSED_OTHER_PROTO);
        assert_int_equal(r.h.proto, proto);
    }
    lab_ip_header(frame, &lab_tcp4, C2S, IPPROTO_TCP, 20);
    frame[12] = 8;
    frame[13] = 6; /* ARP */
    assert_int_equal(parse(frame, 54).parsed, PARSED_NOT_IP);
    assert_int_equal(parse(frame, 54).h.family, 0);
}

/* An IPv6 packet: the extension headers of `kinds`, and behind them TCP with three bytes. Returns the frame's length.
 */
static unsigned extended(uint8_t *frame, const uint8_t *kinds, unsigned n, uint16_t fragment, uint8_t last)
{
    uint8_t whole[LAB_FRAME], ext[512];
    unsigned len = tcp(whole, &lab_tcp6, C2S, "abc"), used = 0;

    for (unsigned i = 0; i < n; i++) {
        unsigned size = kinds[i] == EXT_FRAGMENT ? 8 : kinds[i] == EXT_AH ? 24 : i % 2 == 0 ? 8 : 16;
        memset(ext + used, 0, size);
        ext[used] = i + 1 < n ? kinds[i + 1] : last;
        ext[used + 1] = kinds[i] == EXT_FRAGMENT ? 0 : (uint8_t)(kinds[i] == EXT_AH ? size / 4 - 2 : size / 8 - 1);
        if (kinds[i] == EXT_FRAGMENT) {
            ext[used + 2] = (uint8_t)(fragment >> 8);
            ext[used + 3] = (uint8_t)fragment;
        }
        used += size;
    }
    unsigned at = lab_ip_header(frame, &lab_tcp6, C2S, n > 0 ? kinds[0] : last, used + 23);
    memcpy(frame + at, ext, used);
    memcpy(frame + at + used, whole + len - 23, 23);
    return at + used + 23;
}

static void extensions(void **state)
{
    static const uint8_t all[] = { EXT_HOP, EXT_DST, EXT_ROUTING, EXT_FRAGMENT, EXT_AH, EXT_DST };
    uint8_t frame[LAB_FRAME], plain[LAB_FRAME];
    struct result p = parse(plain, tcp(plain, &lab_tcp6, C2S, "abc"));

    for (unsigned n = 0; n <= sizeof all; n++) {
        unsigned len = extended(frame, all, n, 0, IPPROTO_TCP);
        struct result r = parse(frame, len);
        assert_int_equal(r.parsed, PARSED_FLOW);
        assert_true(key_equal(&r.key, &p.key));
        assert_int_equal(r.h.payload_len, 3);
        assert_memory_equal(frame + r.h.payload, "abc", 3);
        for (unsigned cut = 54; cut < len; cut++) { /* the IP length still says all of it */
            assert_int_equal(parse(frame, cut).parsed, PARSED_MALFORMED);
            r = parse_split(frame, cut, len - cut);
            assert_int_equal(r.parsed, cut < len - 3 ? PARSED_MALFORMED : PARSED_FLOW);
        }
        /* The IP length ends in the middle of the headers. */
        for (unsigned l = 0; l < len - 54 - 3; l++) {
            frame[18] = (uint8_t)(l >> 8);
            frame[19] = (uint8_t)l;
            assert_int_equal(parse(frame, len).parsed, PARSED_MALFORMED);
        }
        /* Every length byte of the first extension header. */
        if (n == 0)
            continue;
        extended(frame, all, n, 0, IPPROTO_TCP);
        for (unsigned l = 0; l < 256; l++) {
            frame[55] = (uint8_t)l;
            parse(frame, len);
        }
    }
    /* What follows them may be something else, or nothing. */
    assert_int_equal(parse(frame, extended(frame, all, 2, 0, IPPROTO_ICMPV6)).parsed, PARSED_OTHER_PROTO);
    assert_int_equal(parse(frame, extended(frame, all, 2, 0, IPPROTO_NONE)).parsed, PARSED_OTHER_PROTO);
}

/* Whatever cannot be followed to its end must not look like a protocol that no NF cares for. */
static void too_many_extensions(void **state)
{
    uint8_t kinds[12], frame[LAB_FRAME];

    memset(kinds, EXT_DST, sizeof kinds);
    for (unsigned n = 1; n <= 12; n++) {
        struct result r = parse(frame, extended(frame, kinds, n, 0, IPPROTO_TCP));
        if (n <= 8) {
            assert_int_equal(r.parsed, PARSED_FLOW);
        } else {
            assert_int_equal(r.parsed, PARSED_MALFORMED);
            assert_int_equal(r.h.proto, 0);
        }
    }
}

static void ipv6_fragments(void **state)
{
    static const uint8_t kinds[] = { EXT_HOP, EXT_FRAGMENT };
    uint8_t frame[LAB_FRAME];

    /* An atomic fragment is whole; so is one with the reserved bits set. */
    assert_int_equal(parse(frame, extended(frame, kinds, 2, 0, IPPROTO_TCP)).parsed, PARSED_FLOW);
    assert_int_equal(parse(frame, extended(frame, kinds, 2, 6, IPPROTO_TCP)).parsed, PARSED_FLOW);
    for (unsigned bit = 0; bit < 16; bit++) {
        if (bit == 1 || bit == 2)
            continue;
        struct result r = parse(frame, extended(frame, kinds, 2, (uint16_t)(1u << bit), IPPROTO_TCP));
        assert_int_equal(r.parsed, PARSED_FRAGMENT);
        assert_int_equal(r.h.proto, IPPROTO_TCP);
    }
    /* Behind the fragment header other extension headers may hide TCP: the protocol is not known then. */
    struct result r = parse(frame, extended(frame, kinds, 2, 1, EXT_DST));
    assert_int_equal(r.parsed, PARSED_FRAGMENT);
    assert_int_equal(r.h.proto, 0);
}

/* Offsets are 16 bits wide: a frame longer than that must not confuse them. */
static void giant_frames(void **state)
{
    uint8_t frame[LAB_FRAME];
    unsigned len = tcp(frame, &lab_tcp6, C2S, "abc");

    frame[18] = frame[19] = 0xff;
    struct result r = parse_split(frame, len, 65535 + 54 - len);
    assert_int_equal(r.parsed, PARSED_MALFORMED);
    frame[18] = (uint8_t)((65535 - 54) >> 8);
    frame[19] = (uint8_t)(65535 - 54);
    r = parse_split(frame, len, 200000);
    assert_int_equal(r.parsed, PARSED_FLOW);
    assert_int_equal(r.h.payload + r.h.payload_len, 65535);
}

static void any_bytes(void **state)
{
    uint64_t rnd = lab_seed();
    uint8_t frame[256];

    print_message("seed %llu\n", (unsigned long long)rnd);
    for (unsigned n = 0; n < 100000; n++) {
        unsigned len = lab_random(&rnd, 200);
        if (n % 2 == 0) {
            for (unsigned i = 0; i < len; i++)
                frame[i] = (uint8_t)lab_random(&rnd, 256);
            frame[12] = n & 2 ? 0x08 : 0x86;
            frame[13] = n & 2 ? 0x00 : 0xdd;
        } else {
            static const uint8_t kinds[] = { EXT_HOP, EXT_ROUTING, EXT_FRAGMENT, EXT_AH };
            uint8_t whole[LAB_FRAME];
            len = n & 2 ? extended(whole, kinds, lab_random(&rnd, 5), 0, IPPROTO_TCP) : tcp(whole, &lab_tcp4, C2S, "x");
            memcpy(frame, whole, len);
            for (unsigned k = lab_random(&rnd, 4); k > 0; k--)
                frame[14 + lab_random(&rnd, len - 14)] = (uint8_t)lab_random(&rnd, 256);
        }
        struct result r = parse(frame, len);
        if (r.parsed == PARSED_FLOW) {
            assert_true(r.h.l3 < r.h.l4 && r.h.l4 < r.h.payload);
            assert_true((unsigned)r.h.payload + r.h.payload_len <= len);
            assert_true(r.h.proto == IPPROTO_TCP || r.h.proto == IPPROTO_UDP);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields),
        cmocka_unit_test(padding),
        cmocka_unit_test(both_directions_one_key),
        cmocka_unit_test(keys_differ),
        cmocka_unit_test(vlan_tags),
        cmocka_unit_test(cut_at_each_byte),
        cmocka_unit_test(faults),
        cmocka_unit_test(ipv4_options),
        cmocka_unit_test(lying_ipv4),
        cmocka_unit_test(lying_ipv6),
        cmocka_unit_test(tcp_data_offset),
        cmocka_unit_test(udp_length),
        cmocka_unit_test(ipv4_fragments),
        cmocka_unit_test(other_protocols),
        cmocka_unit_test(extensions),
        cmocka_unit_test(too_many_extensions),
        cmocka_unit_test(ipv6_fragments),
        cmocka_unit_test(giant_frames),
        cmocka_unit_test(any_bytes),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
