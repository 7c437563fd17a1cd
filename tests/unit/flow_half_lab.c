/* SPDX-License-Identifier: Apache-2.0 */
#include "flow_half_lab.h"
#include <netinet/in.h>

enum nst_verdict (*on_event)(struct nst_flow *f, const struct nst_event *ev);
struct nst_nf nf;
struct nst_engine_config config;
unsigned calls, closes;
enum nst_close_why last_why;
struct lab_answer answer[8];

enum nst_verdict half_handler(struct nst_flow *f, const struct nst_event *ev)
{
    if (ev->what & NST_EV_CLOSE) {
        check_eq(ev->what, NST_EV_CLOSE);
        check(ev->packet == NULL);
        closes++;
        last_why = ev->why;
        return NST_FORWARD;
    }
    check(ev->packet != NULL);
    check_eq(ev->why, NST_OPEN_STILL);
    check(ev->until > nst_now());
    calls++;
    return on_event != NULL ? on_event(f, ev) : NST_FORWARD;
}

/* A UDP NF whose server half hears of what the server receives. */
void setup_udp(enum nst_verdict (*fn)(struct nst_flow *, const struct nst_event *))
{
    on_event = fn;
    calls = closes = 0;
    memset(answer, 0, sizeof answer);
    nf = (struct nst_nf){
        .name = "half",
        .proto = IPPROTO_UDP,
        .half = { [NST_SERVER] = { .inspect = &nst_udp,
                                   .on_received = NST_EV_DATA | NST_EV_CLOSE,
                                   .handler = half_handler } },
    };
    config = (struct nst_engine_config){ .nf = &nf, .flows = 256 };
}

void setup_tcp(enum nst_verdict (*fn)(struct nst_flow *, const struct nst_event *))
{
    setup_udp(fn);
    nf.proto = IPPROTO_TCP;
    nf.half[NST_CLIENT] = (struct nst_half){ .inspect = &nst_tcp };
    nf.half[NST_SERVER].inspect = &nst_tcp;
}

/* The datagram's first byte. */
char first_byte(struct nst_flow *f, const struct nst_event *ev)
{
    const struct nst_headers *h = nst_packet_headers(ev->packet);
    const char *c = nst_packet_bytes(ev->packet, h->payload, 1);
    return c != NULL && h->payload_len > 0 ? *c : '\0';
}

void datagram(unsigned flow, unsigned dir, const char *text)
{
    struct lab_path p = lab_udp4;
    p.port[0] = (uint16_t)(40000 + flow);
    lab_send_udp(&p, dir, text, (unsigned)strlen(text));
}

/* What left by a port, the first bytes of the payloads as a string. */
const char *left(unsigned port)
{
    static char text[2][4096];
    unsigned n = 0;

    for (unsigned i = 0; i < lab.n_out && n < 4000; i++) {
        if (lab.out[i].port == port)
            text[port][n++] = lab.out[i].data_len > 0 ? (char)lab.out[i].data[0] : '-';
    }
    text[port][n] = '\0';
    return text[port];
}

void check_left(const char *file, int line, unsigned port, const char *should)
{
    if (strcmp(left(port), should) != 0) {
        fprintf(stderr, "%s:%d: \"%s\" left by port %u, should be \"%s\"\n", file, line, left(port), port, should);
        lab.failures++;
    }
}

enum nst_verdict by_letter(struct nst_flow *f, const struct nst_event *ev)
{
    switch (first_byte(f, ev)) {
    case 'D':
        return NST_DROP;
    case 'F':
        return NST_FORWARD_FLOW;
    case 'X':
        return NST_DROP_FLOW;
    case 'R':
        return NST_RESET_FLOW;
    case 'U':
        return NST_UNDECIDED;
    case 'T':
        return NST_TAKEN;
    case '9':
        return (enum nst_verdict)99;
    default:
        return NST_FORWARD;
    }
}

/* A small letter waits for the answer of its number; a negative answer is the policy's matter. */
enum nst_verdict waits(struct nst_flow *f, const struct nst_event *ev)
{
    char c = first_byte(f, ev);
    const struct nst_packet *before = ev->packet;

    if (c < 'a' || c > 'h')
        return by_letter(f, ev);
    int rc = lab_wait(&answer[c - 'a'], ev->until);
    check(ev->packet == before);
    check_eq(first_byte(f, ev), c);
    return rc < 0 ? nst_fail(f, rc) : rc > 0 ? (enum nst_verdict)rc : NST_FORWARD;
}

struct nst_flow *pending_flow[8];

enum nst_verdict pends(struct nst_flow *f, const struct nst_event *ev)
{
    char c = first_byte(f, ev);

    if (c < 'a' || c > 'h')
        return by_letter(f, ev);
    pending_flow[c - 'a'] = f;
    return NST_PENDING;
}

void until_closed(unsigned n)
{
    for (unsigned i = 0; i < 500 && closes < n; i++) {
        check_eq(nst_sleep(nst_now() + NST_MS(2)), 0);
        lab_turns(1);
    }
    check_eq(closes, n);
}
