/* SPDX-License-Identifier: Apache-2.0 */
/* nst_tcp case by case: overlaps, windows, time stamps, urgent bytes, normalisation. */
#include "flow_tcp_lab.h"
#include <netinet/in.h>
#include <rte_ip.h>

enum { URG = RTE_TCP_URG_FLAG };

/* A segment with all that a header can have. */
struct rich {
    uint8_t flags;
    uint32_t seq, ack;
    const char *data;
    uint16_t window, urgent;
    int scale; /* and one more; 0: none */
    bool stamps, selective;
    uint32_t stamp, echo;
};

static void send_rich(unsigned dir, struct rich r)
{
    uint8_t frame[LAB_FRAME], options[40];
    unsigned n = 0, len = r.data != NULL ? (unsigned)strlen(r.data) : 0;
    rte_be32_t words[2] = { rte_cpu_to_be_32(r.stamp), rte_cpu_to_be_32(r.echo) };

    if (r.scale != 0) {
        memcpy(options + n, (uint8_t[]){ 1, 3, 3, (uint8_t)(r.scale - 1) }, 4);
        n += 4;
    }
    if (r.stamps) {
        memcpy(options + n, (uint8_t[]){ 1, 1, 8, 10 }, 4);
        memcpy(options + n + 4, words, 8);
        n += 12;
    }
    if (r.selective) {
        memcpy(options + n, (uint8_t[]){ 1, 1, 5, 10, 0, 0, 9, 0, 0, 0, 9, 9 }, 12);
        n += 12;
    }
    unsigned at = lab_ip_header(frame, path, dir, IPPROTO_TCP, sizeof(struct rte_tcp_hdr) + n + len);
    struct rte_tcp_hdr h = {
        .src_port = rte_cpu_to_be_16(path->port[dir]),
        .dst_port = rte_cpu_to_be_16(path->port[!dir]),
        .sent_seq = rte_cpu_to_be_32(r.seq),
        .recv_ack = rte_cpu_to_be_32(r.ack),
        .data_off = (uint8_t)((5 + n / 4) << 4),
        .tcp_flags = r.flags,
        .rx_win = rte_cpu_to_be_16(r.window),
        .tcp_urp = rte_cpu_to_be_16(r.urgent),
    };
    memcpy(frame + at, &h, sizeof h);
    memcpy(frame + at + sizeof h, options, n);
    if (len != 0)
        memcpy(frame + at + sizeof h + n, r.data, len);
    lab_checksum(frame, 0, 4, IPPROTO_TCP);
    lab_send(dir, frame, at + (unsigned)sizeof h + n + len);
}

/* One segment of the client, looked at: true when it went on. */
static bool rich(struct rich r)
{
    lab_clear();
    send_rich(C2S, r);
    lab_settle();
    return lab.n_out == 1;
}

static void answer(struct rich r)
{
    send_rich(S2C, r);
    lab_settle();
}

/* ---- overlaps ---- */
static const char *overlap_name;

/* Pairs of segments behind a hole: the second begins later and ends later; earlier and earlier; both alike; ends later;
 * lies within. */
static void overlaps_body(void)
{
    static const struct {
        const char *name, *text;
    } should[] = {
        { "first", "hAAAABBBDDCCCCEEEEGGGGHHIIIIII" },     { "last", "hAABBBBBDDDDCCFFFFHHHHHHIIJJII" },
        { "bsd", "hAAAABBBDDDDCCEEEEGGGGHHIIIIII" },       { "linux", "hAAAABBBDDDDCCEEEEHHHHHHIIIIII" },
        { "old-linux", "hAAAABBBDDDDCCFFFFHHHHHHIIIIII" }, { "solaris", "hAABBBBBDDCCCCFFFFHHHHHHIIIIII" },
        { "windows", "hAAAABBBDDDDCCEEEEGGGGHHIIIIII" },   { "macos", "hAAAABBBDDDDCCEEEEGGGGHHIIIIII" },
        { "vista", "hAAAABBBDDCCCCEEEEGGGGHHIIIIII" },     { "hpux11", "hAABBBBBDDCCCCFFFFHHHHHHIIIIII" },
    };

    lab_handshake(path, 1000, 500);
    check(data(1002, "AAAA"));
    check(data(1004, "BBBBB"));
    check(data(1011, "CCCC"));
    check(data(1009, "DDDD"));
    check(data(1015, "EEEE"));
    check(data(1015, "FFFF"));
    check(data(1019, "GGGG"));
    check(data(1019, "HHHHHH"));
    check(data(1025, "IIIIII"));
    check(data(1027, "JJ"));
    check_text("");
    check(data(1001, "h"));
    for (unsigned i = 0; i < sizeof should / sizeof *should; i++) {
        if (strcmp(should[i].name, overlap_name) == 0) {
            check_text(should[i].text);
            /* What was delivered is what is known from now on. */
            uint64_t conflicts = lab_stats().conflicts;
            check(conflicts == 5);
            check(data(1001, should[i].text));
            check_eq(lab_stats().conflicts, conflicts);
        }
    }
}

static void setup_overlap(const char *name, nst_events events, enum nst_overlap *policy)
{
    overlap_name = name;
    assert_int_equal(nst_overlap_by_name(name, policy), 0);
    setup_nf(events);
}

static const char *const overlap_names[] = { "first",   "last",    "bsd",   "linux", "old-linux",
                                             "solaris", "windows", "macos", "vista", "hpux11" };

static void every_overlap(void **state)
{
    enum nst_overlap policy;

    for (unsigned i = 0; i < sizeof overlap_names / sizeof *overlap_names; i++) {
        /* Nothing is kept but what lies behind a hole; or all is, and the handler lets conflicts pass. */
        setup_overlap(overlap_names[i], NST_EV_DATA, &policy);
        nf.policy.on_conflict = NST_FORWARD;
        config.overlap = policy;
        lab_run(&config, overlaps_body);
        setup_overlap(overlap_names[i], NST_EV_DATA | NST_EV_CONFLICT, &policy);
        config.overlap = policy;
        lab_run(&config, overlaps_body);
    }
    assert_int_equal(nst_overlap_by_name("plan9", &policy), -EINVAL);
}

/* The longest prefix that the receiver's address has counts. */
static void overlap_by_network(void **state)
{
    enum nst_overlap policy;
    uint32_t host = 0x0a000000 | path->host[1];
    struct nst_overlap_net nets[] = {
        { 4, 0, { 0 }, NST_OVERLAP_LAST },
        { 4, 32, { (uint8_t)(host >> 24), (uint8_t)(host >> 16), (uint8_t)(host >> 8), (uint8_t)host }, 0 },
        { 4, 31, { 10 }, NST_OVERLAP_LAST },
        { 4, 8, { 10 }, NST_OVERLAP_OLD_LINUX },
        { 4, 32, { 10, 0, 0, (uint8_t)path->host[0] }, NST_OVERLAP_LAST },
        { 6, 0, { 0 }, NST_OVERLAP_LAST },
    };

    setup_overlap("solaris", NST_EV_DATA, &policy);
    nets[1].policy = policy;
    nf.policy.on_conflict = NST_FORWARD;
    config.overlap = NST_OVERLAP_LAST;
    config.overlap_nets = nets;
    config.n_overlap_nets = sizeof nets / sizeof *nets;
    lab_run(&config, overlaps_body);
    /* Without the whole address, the /8. */
    setup_overlap("old-linux", NST_EV_DATA, &policy);
    nf.policy.on_conflict = NST_FORWARD;
    nets[1].addr[0] = 11;
    nets[2].addr[0] = 11;
    config.overlap = NST_OVERLAP_LAST;
    config.overlap_nets = nets;
    config.n_overlap_nets = sizeof nets / sizeof *nets;
    lab_run(&config, overlaps_body);
}

/* ---- the window ---- */
static void window_handshake(int client_scale, int server_scale)
{
    send_rich(C2S, (struct rich){ .flags = SYN, .seq = 1000, .window = 60000, .scale = client_scale });
    send_rich(S2C, (struct rich){ SYN | ACK, 500, 1001, NULL, .window = 1000, .scale = server_scale });
    send_rich(C2S, (struct rich){ ACK, 1001, 501, NULL, .window = 60000 });
    lab_settle();
}

static void window_body(void)
{
    bool drops = nf.policy.on_window != NST_FORWARD;

    window_handshake(1, 3);
    check_eq(data(1999, "abc"), !drops); /* the window of a SYN-ACK is not scaled */
    check(data(1999, "ab"));
    answer((struct rich){ ACK, 501, 1001, NULL, .window = 1000 });
    check(data(4999, "ab"));
    check_eq(data(4999, "abp"), !drops);
    check(data(5001, "p")); /* a probe */
    check_eq(data(5001, "pr"), !drops);
    check_eq(data(5002, "r"), !drops);
    answer((struct rich){ ACK, 501, 1001, NULL, .window = 0 });
    check(data(4990, "x")); /* a window does not shrink */
    answer((struct rich){ ACK, 501, 1001, NULL, .window = 2000 });
    check(data(8999, "ab"));
    check_eq(lab_stats().beyond_window, 4);
    check_eq(lab_stats().policy[NST_BY_WINDOW], 4);
    check_eq(lab_stats().dropped[NST_BY_WINDOW], drops ? 4 : 0);
    check_eq(lab_stats().conflicts, 0);
}

static void beyond_the_window(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, window_body);
    setup_nf(NST_EV_DATA);
    nf.policy.on_window = NST_FORWARD;
    lab_run(&config, window_body);
}

static void unscaled_body(void)
{
    window_handshake(0, 3);
    answer((struct rich){ ACK, 501, 1001, NULL, .window = 1000 });
    check(!data(2001, "ab"));
    check(data(1999, "ab"));
    /* What acknowledges more than there is opens nothing. */
    answer((struct rich){ ACK, 501, 9001, NULL, .window = 1000 });
    check(!data(2002, "ab"));
    check_eq(lab_stats().acks_ignored, 1);
}

static void a_window_that_one_end_would_scale(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, unscaled_body);
}

/* The first try is answered, the second comes without options. */
static unsigned to_client;

static enum nst_verdict client_hears(struct nst_flow *f, const struct nst_event *ev)
{
    to_client++;
    return NST_FORWARD;
}

static void tries_body(void)
{
    send_rich(C2S, (struct rich){ .flags = SYN, .seq = 1000, .window = 60000, .scale = 3 });
    send_rich(C2S, (struct rich){ .flags = SYN, .seq = 1000, .window = 60000 });
    send_rich(S2C, (struct rich){ SYN | ACK, 500, 1001, NULL, .window = 1000, .scale = 3 });
    send_rich(C2S, (struct rich){ ACK, 1001, 501, NULL, .window = 1000 });
    send_rich(S2C, (struct rich){ ACK, 4400, 1001, "far", .window = 1000 });
    send_rich(S2C, (struct rich){ ACK, 4502, 1001, "farther", .window = 1000 });
    lab_settle();
    check_eq(to_client, 1);
    check_eq(lab_stats().dropped[NST_BY_WINDOW], 1);
}

static void tries_with_other_options(void **state)
{
    setup_nf(NST_EV_DATA);
    nf.half[NST_CLIENT].on_received = NST_EV_GAP;
    nf.half[NST_CLIENT].handler = client_hears;
    to_client = 0;
    lab_run(&config, tries_body);
}

static void open_window_body(void)
{
    check(data(4001, "from "));
    answer((struct rich){ ACK, 501, 4006, NULL, .window = 10 });
    check(data(4006, "where nobody knows the scale"));
    check_text("from where nobody knows the scale");
    check_eq(lab_stats().beyond_window, 0);
}

static void the_window_of_a_flow_that_was_picked_up(void **state)
{
    setup_nf(NST_EV_DATA);
    nf.policy.on_midstream = NST_FORWARD;
    lab_run(&config, open_window_body);
}

/* ---- time stamps ---- */
static bool stamped(uint32_t seq, uint32_t stamp, const char *text)
{
    return rich((struct rich){ ACK, seq, 501, text, .window = 60000, .stamps = true, .stamp = stamp });
}

static void echoes(uint32_t ack, uint32_t echo)
{
    answer((struct rich){ ACK, 501, ack, NULL, .window = 60000, .stamps = true, .stamp = 7, .echo = echo });
}

static void stamps_body(void)
{
    bool tolerant = config.overlap == NST_OVERLAP_LINUX, drops = nf.policy.on_stale != NST_FORWARD;

    send_rich(C2S, (struct rich){ .flags = SYN, .seq = 1000, .window = 60000, .stamps = true, .stamp = 100 });
    send_rich(S2C, (struct rich){ SYN | ACK, 500, 1001, NULL, .window = 60000, .stamps = true, .echo = 100 });
    lab_settle();
    check(stamped(1001, 200, "one "));
    echoes(1005, 200);
    check_eq(stamped(1005, 198, "BAD "), !drops);
    check_eq(lab_stats().stale, 1);
    if (!tolerant) {
        check_eq(stamped(1005, 199, "BAD "), !drops);
        check_eq(lab_stats().stale, 2);
    }
    check_text("one ");
    check(stamped(1005, tolerant ? 199 : 200, "two "));
    /* Sent, but not confirmed: it may be lost, and then the end takes an older one. */
    check(stamped(1009, 300, "three "));
    check(stamped(1015, 250, "four "));
    /* An echo of what nobody has sent. */
    echoes(1009, 4000);
    check(stamped(1020, 301, "five "));
    echoes(1025, 301);
    /* Nothing to ignore in it; bytes that were taken. */
    check(stamped(1025, 5, ""));
    check(stamped(1020, 250, "five "));
    check(rich((struct rich){ ACK, 1025, 501, "six ", .window = 60000 })); /* without one */
    check_eq(rich((struct rich){ FIN | ACK, 1029, 501, NULL, .window = 60000, .stamps = true, .stamp = 5 }), !drops);
    check(stamped(1029, 302, "seven"));
    check_text("one two three four five six seven");
    check_eq(lab_stats().dropped[NST_BY_STALE], drops ? lab_stats().stale : 0);
    check_eq(lab_stats().policy[NST_BY_STALE], lab_stats().stale);
    check_eq(lab_stats().conflicts, 0);
}

static void old_time_stamps(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, stamps_body);
    setup_nf(NST_EV_DATA);
    nf.policy.on_stale = NST_FORWARD;
    lab_run(&config, stamps_body);
    setup_nf(NST_EV_DATA);
    config.overlap = NST_OVERLAP_LINUX;
    lab_run(&config, stamps_body);
}

/* ---- urgent bytes ---- */
static void urgent_body(void)
{
    bool out = nf.policy.urgent == NST_URGENT_OUT;

    lab_handshake(path, 1000, 500);
    check(rich((struct rich){ ACK | URG, 1001, 501, "ab!cd", .window = 60000, .urgent = 3 }));
    check_eq(seen.what[0], NST_EV_URGENT | NST_EV_DATA);
    check_text(out ? "abcd" : "ab!cd");
    /* In a later segment, behind a hole. */
    check(rich((struct rich){ ACK | URG, 1006, 501, "ef", .window = 60000, .urgent = 5 }));
    check(data(1009, "h!i"));
    check(data(1008, "g"));
    check_text(out ? "abcdefghi" : "ab!cdefgh!i");
    check_eq(seen.offset[seen.calls - 1], 7);
    check(data(1012, "j")); /* offsets count it */
    check_eq(seen.offset[seen.calls - 1], 11);
    check(rich((struct rich){ ACK | URG, 1013, 501, "k", .window = 60000 })); /* a pointer to nothing */
    check_text(out ? "abcdefghijk" : "ab!cdefgh!ijk");
    check_eq(lab_stats().urgent, 2);
    check_eq(lab_stats().stream_bytes, 13);
}

static void urgent_bytes(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_URGENT);
    lab_run(&config, urgent_body);
    setup_nf(NST_EV_DATA | NST_EV_URGENT);
    nf.policy.urgent = NST_URGENT_OUT;
    lab_run(&config, urgent_body);
}

/* ---- normalisation ---- */
/* The one packet that left has this text, and right checksums. */
static void check_left(const char *text)
{
    check_eq(lab.n_out, 1);
    if (lab.n_out != 1)
        return;
    const struct lab_out *o = &lab.out[0];
    uint8_t frame[LAB_FRAME];
    check(o->data_len == strlen(text) && memcmp(o->data, text, o->data_len) == 0);
    memcpy(frame, o->frame, o->len);
    lab_checksum(frame, 0, 4, IPPROTO_TCP);
    check(memcmp(frame, o->frame, o->len) == 0);
    struct rte_ipv4_hdr ip;
    memcpy(&ip, frame + 14, sizeof ip);
    check_eq(rte_be_to_cpu_16(ip.total_length), o->len - 14);
    uint16_t sum = ip.hdr_checksum;
    ip.hdr_checksum = 0;
    check_eq(rte_ipv4_cksum(&ip), sum);
}

static void normal_body(void)
{
    window_handshake(1, 1);
    check(data(1001, "hello "));
    check(data(1001, "jello "));
    check_left("hello ");
    check(data(1003, "XXXXworld"));
    check_left("llo world");
    check_text("hello world");
    /* Behind a hole, and over its edges. */
    check(data(1015, "later"));
    check(data(1014, "?LATER?"));
    check_left("?later?");
    check(data(1012, "abcdefghi"));
    check_left("ab?later?");
    check_text("hello worldab?later?");
    check_eq(lab_stats().conflicts, 4);
    check_eq(lab_stats().normalised, 4);
    check_eq(lab_stats().policy[NST_BY_CONFLICT], 0);
    /* Beyond the window, cut at an odd and at an even place. */
    check(data(1991, "0123456789abc"));
    check_left("0123456789");
    check(data(1990, "_0123456789abcde"));
    check_left("_0123456789");
    check(!data(2001, "none of it"));
    check_eq(lab_stats().dropped[NST_BY_WINDOW], 1);
    /* Urgent bytes are read in the stream. */
    check(rich((struct rich){ ACK | URG, 1021, 501, "ab!cd", .window = 60000, .urgent = 3 }));
    check_left("ab!cd");
    check_eq(lab.out[0].tcp->tcp_flags, ACK);
    check_eq(lab.out[0].tcp->tcp_urp, 0);
    check_text("hello worldab?later?ab!cd");
    /* What is acknowledged nobody looks at. */
    answer((struct rich){ ACK, 501, 1026, NULL, .window = 1000 });
    check(data(1001, "jello "));
    check_left("jello ");
}

static void normalised(void **state)
{
    setup_nf(NST_EV_DATA);
    nf.policy.normalise = true;
    lab_run(&config, normal_body);
    setup_nf(NST_EV_DATA); /* the other policies do not matter */
    nf.policy.normalise = true;
    nf.policy.on_conflict = NST_FORWARD;
    nf.policy.urgent = NST_URGENT_OUT;
    config.overlap = NST_OVERLAP_LAST;
    lab_run(&config, normal_body);
}

static void normal_end_body(void)
{
    lab_handshake(path, 1000, 500);
    lab_clear();
    seg(C2S, FIN | ACK, 1005, 501, "");
    lab_settle();
    check(data(1001, "body and more"));
    check_left("body");
    check(!data(1005, "and more")); /* nothing of it can be left */
    check_text("body");
    lab_clear();
    seg(C2S, FIN | ACK, 1009, 501, ""); /* another end cannot be made right */
    lab_settle();
    check_eq(lab.n_out, 0);
    check_eq(lab_stats().conflicts, 3);
}

static void normalised_behind_the_end(void **state)
{
    setup_nf(NST_EV_DATA);
    nf.policy.normalise = true;
    lab_run(&config, normal_end_body);
}

static void normal_seen_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "hello "));
    check(data(1001, "jello world"));
    check_left("hello world");
    check_eq(seen.what[1], NST_EV_CONFLICT | NST_EV_RETRANSMIT | NST_EV_DATA);
    check_text("hello world");
}

static void normalised_and_told(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_CONFLICT | NST_EV_RETRANSMIT);
    nf.policy.normalise = true;
    lab_run(&config, normal_seen_body);
}

/* ---- what is counted, and does nothing ---- */
static void quiet_body(void)
{
    lab_handshake(path, 1000, 500);
    check(data(1001, "hello"));
    answer((struct rich){ ACK, 501, 1006, NULL, .window = 60000, .stamps = true, .selective = true });
    check_eq(lab_stats().selective, 1);
    unsigned calls = seen.calls;
    check(data(1005, ""));
    check(data(1005, "?"));
    check_eq(lab_stats().keep_alives, 2);
    check_eq(seen.calls, calls);
    check(data(1004, "lo")); /* that is none */
    check_eq(seen.calls, calls + 1);
    seg(C2S, RST, 1007, 0, "");
    /* A SYN to an end that has a connection: it takes nothing of it. */
    seg(C2S, SYN, 1005, 0, "evil");
    lab_settle();
    check_eq(lab_stats().resets_ignored, 1);
    check_eq(lab_stats().syns_ignored, 1);
    check_eq(seen.calls, calls + 1);
    check(data(1006, " world"));
    check_text("hello world");
    check_eq(lab_stats().conflicts, 0);
}

static void what_ends_ignore(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_RETRANSMIT | NST_EV_GAP | NST_EV_CONFLICT);
    lab_run(&config, quiet_body);
}

static void taken_back_body(void)
{
    seg(C2S, SYN, 1000, 0, "");
    lab_settle();
    seen.verdict = NST_DROP;
    seg(C2S, SYN, 5000, 0, "");
    lab_settle();
    seen.verdict = NST_FORWARD;
    check(data(1001, "hello"));
    check_text("hello");
    check_eq(seen.offset[seen.calls - 1], 0);
}

static void a_dropped_syn_is_forgotten(void **state)
{
    setup_nf(NST_EV_PACKET | NST_EV_DATA);
    nf.half[NST_CLIENT].inspect = NULL;
    lab_run(&config, taken_back_body);
}

/* Every byte apart from the next costs a block, and blocks are what is limited. */
static void tiny_body(void)
{
    unsigned passed = 0;

    lab_handshake(path, 1000, 500);
    for (unsigned i = 0; i < 200; i++)
        passed += data(1003 + 2 * i, "x");
    check(passed >= 32 && passed <= 40);
    check_eq(lab_stats().dropped[NST_BY_STREAM_LIMIT], 200 - passed);
    check(lab_stats().stream_kept <= 40 * 512);
}

static void tiny_segments(void **state)
{
    setup_nf(NST_EV_DATA);
    config.stream_per_end = 4096;
    lab_run(&config, tiny_body);
}

/* Where nobody is heard acknowledging, not everything is kept for ever. */
static void unheard_body(void)
{
    char text[1001];

    memset(text, 'x', 1000);
    text[1000] = '\0';
    seg(C2S, SYN, 1000, 0, "");
    lab_settle();
    for (unsigned i = 0; i < 300; i++) {
        check(data(1001 + 1000 * i, text));
        seen.len = 0;
    }
    check(lab_stats().stream_kept >= 64 << 10);
    check(lab_stats().stream_kept <= 100 << 10);
    check(data(1001, "what was it?"));
    check(!data(1001 + 299 * 1000, "y"));
    check_eq(lab_stats().unkept_bytes, 0);
}

static void nobody_acknowledges(void **state)
{
    setup_nf(NST_EV_DATA);
    nf.half[NST_CLIENT].inspect = NULL;
    lab_run(&config, unheard_body);
}

/* ---- a tuple that is used again ---- */
static void wait_body(void)
{
    lab_handshake(path, 1000, 500);
    /* The server closes first, and waits. */
    seg(S2C, FIN | ACK, 501, 1001, "");
    seg(C2S, FIN | ACK, 1001, 502, "");
    seg(S2C, ACK, 502, 1002, "");
    lab_settle();
    lab_clear();
    seg(C2S, SYN, 900, 0, ""); /* from before: it answers with an ACK */
    seg(C2S, SYN, 1001, 0, "");
    lab_settle();
    check_eq(lab.n_out, 2);
    check_eq(lab_stats().flows_opened, 1);
    check_eq(lab_stats().syns_ignored, 2);
    lab_handshake(path, 1003, 700);
    check_eq(lab_stats().flows_opened, 2);
    check(data(1004, "new"));
    check_text("new");
    /* The client closes first: the server does not wait. */
    seg(C2S, FIN | ACK, 1007, 701, "");
    seg(S2C, FIN | ACK, 701, 1008, "");
    seg(C2S, ACK, 1008, 702, "");
    lab_settle();
    lab_handshake(path, 10, 900);
    check_eq(lab_stats().flows_opened, 3);
    check(data(11, "est"));
    check_text("newest");
}

static void time_wait(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, wait_body);
}

static void wait_stamp_body(void)
{
    send_rich(C2S, (struct rich){ .flags = SYN, .seq = 1000, .window = 60000, .stamps = true, .stamp = 100 });
    send_rich(S2C, (struct rich){ SYN | ACK, 500, 1001, NULL, .window = 60000, .stamps = true, .echo = 100 });
    send_rich(C2S, (struct rich){ ACK, 1001, 501, NULL, .window = 60000, .stamps = true, .stamp = 110 });
    send_rich(S2C, (struct rich){ FIN | ACK, 501, 1001, NULL, .window = 60000, .stamps = true, .echo = 110 });
    send_rich(C2S, (struct rich){ FIN | ACK, 1001, 502, NULL, .window = 60000, .stamps = true, .stamp = 120 });
    send_rich(C2S, (struct rich){ .flags = SYN, .seq = 900, .window = 60000, .stamps = true, .stamp = 120 });
    lab_settle();
    check_eq(lab_stats().flows_opened, 1);
    send_rich(C2S, (struct rich){ .flags = SYN, .seq = 900, .window = 60000, .stamps = true, .stamp = 121 });
    lab_settle();
    check_eq(lab_stats().flows_opened, 2);
}

static void time_wait_by_time_stamp(void **state)
{
    setup_nf(NST_EV_DATA);
    lab_run(&config, wait_stamp_body);
}

static void both_open_body(void)
{
    seg(C2S, SYN, 1000, 0, "");
    seg(S2C, SYN, 500, 0, "");
    lab_settle();
    check_eq(seen.calls, 0);
    seg(C2S, SYN | ACK, 1000, 501, "");
    seg(S2C, SYN | ACK, 500, 1001, "");
    lab_settle();
    check_eq(seen.calls, 1);
    check_eq(seen.what[0], NST_EV_OPEN);
    check(data(1001, "hello"));
    check_text("hello");
    check_eq(lab_stats().conflicts, 0);
    check_eq(lab_stats().flows_opened, 1);
}

static void both_open_at_once(void **state)
{
    setup_nf(NST_EV_DATA | NST_EV_OPEN);
    lab_run(&config, both_open_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_overlap),
        cmocka_unit_test(overlap_by_network),
        cmocka_unit_test(beyond_the_window),
        cmocka_unit_test(a_window_that_one_end_would_scale),
        cmocka_unit_test(tries_with_other_options),
        cmocka_unit_test(the_window_of_a_flow_that_was_picked_up),
        cmocka_unit_test(old_time_stamps),
        cmocka_unit_test(urgent_bytes),
        cmocka_unit_test(normalised),
        cmocka_unit_test(normalised_behind_the_end),
        cmocka_unit_test(normalised_and_told),
        cmocka_unit_test(what_ends_ignore),
        cmocka_unit_test(a_dropped_syn_is_forgotten),
        cmocka_unit_test(tiny_segments),
        cmocka_unit_test(nobody_acknowledges),
        cmocka_unit_test(time_wait),
        cmocka_unit_test(time_wait_by_time_stamp),
        cmocka_unit_test(both_open_at_once),
    };
    return cmocka_run_group_tests(tests, lab_setup, lab_teardown);
}
