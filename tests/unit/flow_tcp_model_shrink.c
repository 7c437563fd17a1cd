/* SPDX-License-Identifier: Apache-2.0 */
/* Makes a failing sequence short: takes out segments, then makes what is left plainer, as long as it still fails. And
 * prints it so that it can be read, segment by segment.
 */
#include "flow_tcp_model.h"

static struct {
    const struct model_setting *set;
    uint64_t seed;
    struct model_sequence best;
    struct model_verdict verdict;
    unsigned tries;
} s;

static void only(struct model_sequence *q, unsigned i, const void *arg)
{
    memcpy(q, arg, sizeof *q);
}

static bool fails(const struct model_sequence *q)
{
    enum { TRIES = 4000 };
    struct model_verdict v;

    if (s.tries++ >= TRIES)
        return false;
    model_run(s.set, 1, only, q, s.seed, &v);
    if (v.n == 0)
        return false;
    s.verdict = v;
    s.best = *q;
    return true;
}

static bool without(unsigned at, unsigned n)
{
    struct model_sequence q = s.best;

    if (n == 0 || at + n > q.n)
        return false;
    memmove(&q.seg[at], &q.seg[at + n], (q.n - at - n) * sizeof q.seg[0]);
    q.n -= n;
    return fails(&q);
}

static void fewer_segments(void)
{
    for (unsigned n = s.best.n / 2; n > 0; n /= 2) {
        for (unsigned at = 0; at < s.best.n;) {
            if (!without(at, n))
                at++;
        }
    }
}

/* One change to one segment; which, says `what`. False: there is no such change. */
static bool plainer(struct model_segment *x, unsigned what, uint8_t *data)
{
    struct model_segment was = *x;

    switch (what) {
    case 0:
        x->verdict[0] = x->verdict[1] = NST_FORWARD;
        break;
    case 1:
        x->stamped = false;
        break;
    case 2:
        x->scale = 0xff;
        x->selective = 0;
        break;
    case 3:
        x->pieces = 1;
        break;
    case 4:
        x->urgent = 0;
        x->flags &= (uint8_t)~0xe8; /* URG, PSH and what has no meaning here */
        break;
    case 5:
        x->window = 0xffff;
        break;
    case 6:
        x->flags &= (uint8_t)~FIN;
        break;
    case 7:
        x->len /= 2;
        break;
    case 8:
        x->len -= x->len > 0;
        break;
    case 9: /* without its first byte */
        if (x->len > 0) {
            x->len--;
            x->data++;
            x->seq++;
        }
        break;
    case 10:
        x->begin = MODEL_LEAVE;
        break;
    case 11:
        x->other_side = false;
        break;
    case 12:
        x->flags &= (uint8_t)~RST;
        break;
    default:
        return false;
    }
    return memcmp(&was, x, sizeof was) != 0;
}

static bool plainer_segments(void)
{
    bool changed = false;

    for (unsigned i = 0; i < s.best.n; i++) {
        for (unsigned what = 0; what < 13; what++) {
            struct model_sequence q = s.best;
            while (plainer(&q.seg[i], what, q.data) && fails(&q)) {
                changed = true;
                q = s.best;
            }
        }
    }
    return changed;
}

/* The numbers count from where each end's stream begins. */
static void plainer_numbers(void)
{
    for (unsigned dir = 0; dir < 2; dir++) {
        struct model_sequence q = s.best;
        uint32_t begin = 0;
        bool found = false;
        for (unsigned i = 0; i < q.n && !found; i++) {
            if (q.seg[i].dir == dir) {
                begin = q.seg[i].seq - ((q.seg[i].flags & SYN) ? 0 : 1);
                found = true;
            }
        }
        for (unsigned i = 0; i < q.n && found; i++) {
            if (q.seg[i].dir == dir)
                q.seg[i].seq -= begin - 1000 * (dir + 1);
            else if (q.seg[i].flags & ACK)
                q.seg[i].ack -= begin - 1000 * (dir + 1);
            if (q.seg[i].dir == dir)
                q.seg[i].begin_seq -= begin - 1000 * (dir + 1);
        }
        fails(&q);
    }
}

bool model_shrink(const struct model_setting *set, struct model_sequence *q, uint64_t seed, struct model_verdict *out)
{
    s.set = set;
    s.seed = seed;
    s.tries = 0;
    if (!fails(q))
        return false;
    fewer_segments();
    plainer_numbers();
    while (plainer_segments())
        fewer_segments();
    *q = s.best;
    *out = s.verdict;
    return true;
}

/* ---- print ---- */
static const char *verdict_name(unsigned v)
{
    static const char *const name[] = { "UNDECIDED", "FORWARD",    "DROP",  "FORWARD_FLOW",
                                        "DROP_FLOW", "RESET_FLOW", "TAKEN", "PENDING" };
    return v < 8 ? name[v] : "?";
}

const char *model_event_name(unsigned bit)
{
    static const char *const name[] = { "PACKET",    "OPEN",  "DATA",  "GAP", "RETRANSMIT", "CONFLICT",
                                        "MIDSTREAM", "CLOSE", "START", "FIN", "RESET" };
    switch ((nst_events)1 << bit) {
    case NST_EV_URGENT:
        return "URGENT";
    case NST_EV_STATE:
        return "STATE";
    case NST_EV_ERROR:
        return "ERROR";
    default:
        return bit < sizeof name / sizeof *name ? name[bit] : "?";
    }
}

static void print_events(FILE *to, const char *where, nst_events what)
{
    fprintf(to, "  %s:", where);
    for (unsigned i = 0; i < 32; i++) {
        if (what >> i & 1)
            fprintf(to, " %s", model_event_name(i));
    }
    fprintf(to, "\n");
}

static void print_setting(FILE *to, const struct model_setting *set)
{
    static const char *const end[] = { "client", "server" };

    fprintf(to,
            "an NF over %s; on_midstream %s, on_conflict %s, on_no_memory %s, on_window %s, on_stale %s, on_bad_ack "
            "%s, urgent %s, "
            "stream_per_end %u%s\n",
            set->replay ? "a capture" : "live ports", verdict_name(set->on_midstream), verdict_name(set->on_conflict),
            verdict_name(set->on_no_memory), verdict_name(set->on_window), verdict_name(set->on_stale),
            verdict_name(set->on_bad_ack), set->urgent == NST_URGENT_OUT ? "out" : "inline", set->per_end,
            set->normalise ? ", normalised" : "");
    for (unsigned side = 0; side < 2; side++) {
        char where[40];
        fprintf(to, "  %s: %s\n", end[side], set->inspect[side] ? "inspected" : "not inspected");
        snprintf(where, sizeof where, "%s, sent", end[side]);
        print_events(to, where, set->on_sent[side]);
        snprintf(where, sizeof where, "%s, received", end[side]);
        print_events(to, where, set->on_received[side]);
    }
}

void model_print(FILE *to, const struct model_setting *set, const struct model_sequence *q)
{
    print_setting(to, set);
    static const char *const overlap[] = { "first", "last", "bsd", "linux", "old-linux", "solaris" };
    fprintf(to, "IPv%u, ports %u and %u, overlap policies %s and %s\n", q->family, q->port[0], q->port[1],
            overlap[set->overlap[q->network[0]]], overlap[set->overlap[q->network[1]]]);
    for (unsigned i = 0; i < q->n; i++) {
        const struct model_segment *x = &q->seg[i];
        static const char letters[] = "FSRPAUEC";
        char flags[9];
        unsigned n = 0;
        for (unsigned k = 0; k < 8; k++) {
            if (x->flags >> k & 1)
                flags[n++] = letters[k];
        }
        flags[n] = '\0';
        fprintf(to, "%3u %s %-4s seq %u..%u ack %u win %u", i + 1, x->dir == C2S ? "-->" : "<--", flags, x->seq,
                x->seq + x->len, x->ack, x->window);
        if (x->stamped)
            fprintf(to, " stamp %u echo %u", x->stamp, x->echo);
        if (x->scale != 0xff)
            fprintf(to, " scale %u", x->scale);
        if (x->selective != 0)
            fprintf(to, " sack %u..%u", x->ack + 1, x->ack + 2);
        if (x->urgent != 0)
            fprintf(to, " urgent %u", x->urgent);
        if (x->other_side)
            fprintf(to, " by the other side's port");
        if (x->pieces > 1)
            fprintf(to, " in %u pieces", x->pieces);
        if (x->verdict[0] != NST_FORWARD || x->verdict[1] != NST_FORWARD)
            fprintf(to, " verdicts %s, %s", verdict_name(x->verdict[0]), verdict_name(x->verdict[1]));
        if (x->begin == MODEL_PICKUP)
            fprintf(to, " (pick-up)");
        if (x->begin == MODEL_RESUME)
            fprintf(to, " (resume at %u, offset %llu)", x->begin_seq, (unsigned long long)x->begin_offset);
        for (unsigned k = 0; k < x->len && k < 32; k++)
            fprintf(to, "%s%02x", k == 0 ? "  " : " ", q->data[x->data + k]);
        fprintf(to, "%s\n", x->len > 32 ? " ..." : "");
    }
}
