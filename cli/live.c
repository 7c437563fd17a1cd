/* SPDX-License-Identifier: Apache-2.0 */
#include "live.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* The ports of a core: what it receives by. */
static void collect_ports(struct core *c, struct report *r)
{
    struct instance *in = c->in;

    for (unsigned i = c->number; i < in->n_ports; i += in->n_cores) {
        struct report_port *p = &r->ports[i];
        snprintf(p->name, sizeof p->name, "%s", nst_port_name(in->ports[i]));
        snprintf(p->driver, sizeof p->driver, "%s", nst_port_driver(in->ports[i]));
        nst_port_stats(in->ports[i], &p->stats);
    }
}

static int collect(struct core *c, void *arg)
{
    struct report *r = arg;
    struct report_core *mine = &r->cores[c->number];
    const struct nst_module *m = c->in->s->module;
    size_t size;
    FILE *out;

    nst_engine_stats(c->engine, &mine->engine);
    nst_reactor_stats(c->reactor, &mine->reactor);
    if (c->store != NULL)
        nst_store_stats(c->store, &mine->store);
    if (m->kept != NULL)
        mine->kept = m->kept(c->nf_arg);
    collect_ports(c, r);
    if (m->report != NULL && (out = open_memstream(&mine->module_text, &size)) != NULL) {
        m->report(c->nf_arg, out);
        fclose(out);
    }
    return 0;
}

uint64_t live_kept(const struct report *r)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < r->n_cores; i++)
        n += r->cores[i].kept;
    return n;
}

int live_report(struct instance *in, struct report *r)
{
    int rc = 0;

    *r = (struct report){
        .nf = in->s->module->name,
        .capture = in->s->n_inputs != 0,
        .store_url = in->s->module->uses_store ? in->s->store_name : NULL,
        .seconds = (double)(nst_clock() - in->began) / 1e9,
        .n_cores = in->n_cores,
        .alike = in->s->module->alike,
        .n_ports = in->n_ports,
        .ran = true,
    };
    for (unsigned i = 0; i < in->n_cores && rc == 0; i++)
        rc = core_ask(&in->core[i], collect, r);
    report_sum(r);
    if (in->n_cores == 1) { /* as at the end */
        r->module_text = r->cores[0].module_text;
        r->cores[0].module_text = NULL;
    }
    return rc;
}

json_t *live_value(struct instance *in, const char *name, int pid)
{
    struct report *r = malloc(sizeof *r);
    int rc = r != NULL ? live_report(in, r) : -ENOMEM;
    json_t *value;

    if (rc < 0) {
        value = json_pack("{s:b, s:s}", "ok", 0, "error",
                          rc == -ENOMEM ? "out of memory" : "the instance is beginning or ending");
    } else {
        value = report_value(r);
        json_object_set_new(value, "kept_objects", json_integer((json_int_t)live_kept(r)));
        json_object_set_new(value, "ok", json_true());
        json_object_set_new(value, "instance", json_string(name));
        json_object_set_new(value, "pid", json_integer(pid));
    }
    if (r != NULL)
        report_free(r);
    free(r);
    return value;
}
