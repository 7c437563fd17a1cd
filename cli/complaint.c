/* SPDX-License-Identifier: Apache-2.0 */
#include "complaint.h"
#include <netstar/base.h>
#include <stdio.h>

int complain(struct complaint *c, int rc, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(c->text, sizeof c->text, fmt, ap);
    va_end(ap);
    return rc;
}

int complaint_exit(const struct complaint *c, int rc, const char *command)
{
    nst_log(NST_LOG_ERROR, "%s", c->text);
    if (rc != -EINVAL)
        return EXIT_FAILED;
    fprintf(stderr, "Try: netstar %s%s--help\n", command, *command != '\0' ? " " : "");
    return EXIT_USAGE;
}
