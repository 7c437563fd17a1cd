/* SPDX-License-Identifier: Apache-2.0 */
#include "flow_tcp_lab.h"
#include <netinet/in.h>

const struct lab_path *const path = &lab_tcp4;

struct seen seen;

static enum nst_verdict watch(struct nst_flow *f, const struct nst_event *ev)
{
    nst_events what = ev->what;
    struct nst_slice s;

    if (what & NST_EV_CLOSE) {
        check(ev->packet == NULL);
        check(what == NST_EV_CLOSE);
        if (seen.closed < 8)
            seen.why[seen.closed] = ev->why;
        seen.closed++;
        return NST_FORWARD;
    }
    check(ev->side == NST_SERVER);
    if (seen.keep != NULL)
        seen.kept = nst_tcp_keep(f, ev->side, seen.keep_seq, (struct nst_slice){ seen.keep, strlen(seen.keep) });
    if ((what & NST_EV_ELSEWHERE) && seen.sent_upto != 0)
        what |= nst_tcp_sent(f, ev->side, seen.sent_upto);
    if ((what & (NST_EV_MIDSTREAM | NST_EV_ELSEWHERE)) && seen.resume) {
        seen.resumed = nst_tcp_resume(f, ev->side, seen.resume_seq, seen.resume_offset);
        what |= seen.resumed;
    }
    if ((what & NST_EV_MIDSTREAM) && seen.pickup)
        what |= nst_tcp_pickup(f, ev->side);
    if (seen.calls < 64) {
        seen.what[seen.calls] = what;
        seen.offset[seen.calls] = nst_tcp_offset(f, ev->side);
    }
    seen.calls++;
    while (nst_flow_bytes(f, ev->side, &s)) {
        check(what & NST_EV_DATA);
        check(s.len > 0);
        check(seen.len + s.len < sizeof seen.text);
        if (seen.verdict == NST_FORWARD && seen.len + s.len < sizeof seen.text) {
            memcpy(seen.text + seen.len, s.p, s.len);
            seen.len += (unsigned)s.len;
        }
    }
    return seen.verdict;
}

const nst_events all_events =
    NST_EV_OPEN | NST_EV_DATA | NST_EV_GAP | NST_EV_RETRANSMIT | NST_EV_CONFLICT | NST_EV_MIDSTREAM | NST_EV_CLOSE;

struct nst_nf nf;
struct nst_engine_config config;

void setup_nf(nst_events events)
{
    memset(&seen, 0, sizeof seen);
    seen.verdict = NST_FORWARD;
    nf = (struct nst_nf){
        .name = "watch",
        .proto = IPPROTO_TCP,
        .half = { [NST_CLIENT] = { .inspect = &nst_tcp },
                  [NST_SERVER] = { .inspect = &nst_tcp, .on_received = events, .handler = watch } },
    };
    config = (struct nst_engine_config){ .nf = &nf, .flows = 1024 };
}

void check_text(const char *text)
{
    seen.text[seen.len] = '\0';
    if (strcmp(seen.text, text) != 0) {
        fprintf(stderr, "received \"%s\", should be \"%s\"\n", seen.text, text);
        check(!"the text is as it should be");
    }
}

void seg(unsigned dir, uint8_t flags, uint32_t seq, uint32_t ack, const char *text)
{
    lab_send_tcp(
        path, dir,
        (struct lab_tcp){ .flags = flags, .seq = seq, .ack = ack, .data = text, .len = (unsigned)strlen(text) });
}

/* The server acknowledges. */
void acks(uint32_t ack)
{
    seg(S2C, ACK, 501, ack, "");
    lab_settle();
}

/* One data packet of the client, looked at: true when it was forwarded. */
bool data(uint32_t seq, const char *text)
{
    lab_clear();
    lab_data(path, C2S, seq, 501, text);
    lab_settle();
    return lab.n_out == 1;
}

/* Until the flow's CLOSE has come, by its idle time of a few ms. */
void wait_for_close(unsigned n)
{
    for (unsigned i = 0; i < 400 && seen.closed < n; i++) {
        check_eq(nst_sleep(nst_now() + NST_MS(5)), 0);
        lab_turns(1);
    }
    check_eq(seen.closed, n);
}
