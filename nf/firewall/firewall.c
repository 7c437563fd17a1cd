/* SPDX-License-Identifier: Apache-2.0 */
/* firewall.c - a stateful firewall whose state outlives it.
 *
 * Only packets come here that are not known to be allowed: those that open a connection, those of connections that this
 * instance meets for the first time, and now and then one of a known connection. A connection may begin when the rules say
 * so and its record is in the store; whoever reads that record, here or elsewhere, lets its packets go on.
 */
#include "firewall.h"

static void forget(struct firewall *fw, struct fw_packet *p, nst_time until)
{
    NST_HELD struct nst_object *record = NULL;
    int rc = nst_state_claim(fw->connections, p->key, &record, until);

    if (rc == 0 && fw_same(p, record))
        rc = nst_state_forget(record, until);
    if (rc < 0)
        fw->count[FW_UNFORGOTTEN]++;
}

/* A packet that opens nothing most often belongs to nothing, and a look does not make an entry of what is not there. */
static int look_up(struct firewall *fw, struct fw_packet *p)
{
    uint8_t record[FW_RECORD];
    int rc = nst_get(fw->store, p->name, record, sizeof record, NULL, p->ev->until);

    return rc == -EMSGSIZE ? 1 : rc == 0 ? -ENOENT : rc;
}

enum nst_verdict fw_handler(struct nst_flow *f, const struct nst_event *ev)
{
    struct firewall *fw = nst_nf_arg(f);
    struct fw_packet p;
    enum fw_fate fate;
    int rc = 0;

    if (ev->what & NST_EV_ICMP)
        return fw_icmp_error(fw, f);
    if (ev->what & FW_EV_STRAY && fw_is_nowhere(ev))
        return fw_stray(fw, ev);
    if (ev->what & NST_EV_CLOSE) {
        if (fw_over(&p, f, ev))
            forget(fw, &p, ev->until);
        return NST_FORWARD;
    }

    fw_look(fw, &p, f, ev);
    if (fw_decided(fw, &p, &fate))
        return fate == FW_KNOWN ? fw_admit(fw, &p, fate) : fw_deny(fw, &p, fate);
    if (fw_opens_nothing(&p, &fate) && (rc = look_up(fw, &p)) < 0)
        return rc == -ENOENT ? fw_deny(fw, &p, fate) : fw_fail(fw, &p, rc);
    for (int i = 0; i < FW_TRIES; i++) {
        NST_HELD struct nst_object *record = NULL;
        rc = nst_state_claim(fw->connections, p.key, &record, ev->until);
        if (rc < 0)
            break;
        fate = fw_judge(fw, &p, record);
        if (fate == FW_CHANGED)
            rc = nst_state_commit(record, ev->until);
        else if (fate == FW_KNOWN)
            rc = nst_state_settle(record, ev->until);
        else if (record->there && fate != FW_PLACELESS)
            rc = nst_state_forget(record, ev->until); /* denied now, although it was allowed */
        if (rc != -ESTALE) /* another instance has met it, too: see what that has made of it */
            break;
        fw->count[FW_NOT_MINE]++;
    }
    if (rc < 0)
        return fw_fail(fw, &p, rc);
    if (fate == FW_PLACELESS)
        return fw_stray(fw, ev);
    return fate == FW_KNOWN || fate == FW_CHANGED ? fw_admit(fw, &p, fate) : fw_deny(fw, &p, fate);
}
