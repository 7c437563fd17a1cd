/* SPDX-License-Identifier: Apache-2.0 */
#include "prepare.h"
#include <stdlib.h>
#include <string.h>

int prepare(const struct settings *s, const void *old, struct prepared *out)
{
    const struct nst_module *m = s->module;
    struct settings_env env;
    const char *why = NULL;
    size_t size;
    FILE *said;
    int rc;

    *out = (struct prepared){ 0 };
    if (m->prepare == NULL)
        return 0;
    said = open_memstream(&out->said, &size);
    if (said == NULL) {
        snprintf(out->why, sizeof out->why, "out of memory");
        return -ENOMEM;
    }
    settings_env(&env, s);
    rc = m->prepare(&env.env, old, &out->config, said, &why);
    fclose(said);
    if (rc < 0)
        snprintf(out->why, sizeof out->why, "%s", why != NULL && *why != '\0' ? why : strerror(-rc));
    return rc;
}

void prepared_free(struct prepared *p)
{
    free(p->said);
    p->said = NULL;
}

void prepare_dispose(const struct settings *s, void *config)
{
    if (config != NULL && s->module->dispose != NULL)
        s->module->dispose(config);
}
