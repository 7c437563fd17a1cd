/* SPDX-License-Identifier: Apache-2.0 */
#include "complain.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t words; /* each thread's, freed when it ends */
static bool has_key;

static void make_key(void)
{
    has_key = pthread_key_create(&words, free) == 0;
}

int nf_complain(const char **why, int rc, const char *fmt, ...)
{
    char *text = NULL;
    va_list args;

    pthread_once(&once, make_key);
    va_start(args, fmt);
    if (has_key && vasprintf(&text, fmt, args) < 0)
        text = NULL;
    va_end(args);
    if (text != NULL) {
        free(pthread_getspecific(words));
        if (pthread_setspecific(words, text) != 0) {
            free(text);
            text = NULL;
        }
    }
    *why = text != NULL ? text : "out of memory";
    return rc;
}
