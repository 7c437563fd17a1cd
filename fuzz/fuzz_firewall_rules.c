/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: the firewall's rule file on any bytes, and some connections that meet what is accepted. */
#include "firewall/rules.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = NULL;
    size_t len;
    struct fw_rules *rules = NULL;
    FILE *errors;

    /* Files that it names would be read. */
    if (memmem(data, size, "file", 4) != NULL || memmem(data, size, "include", 7) != NULL)
        return 0;
    if ((errors = open_memstream(&text, &len)) == NULL)
        return 0;
    if (fw_rules_parse(&rules, "fuzz", (const char *)data, size, errors) == 0) {
        for (unsigned i = 0; i < 64; i++) {
            struct fw_opening o = {
                .family = i & 1 ? 6 : 4, .proto = (uint8_t)(i % 20), .out = i & 2, .type = (uint8_t)i
            };
            for (unsigned j = 0; j < 16; j++)
                o.addr[0][j] = o.addr[1][15 - j] = size > 0 ? data[(i * 16 + j) % size] : 0;
            if (fw_rules_judge(rules, &o) > rules->n)
                abort();
        }
        fw_rules_free(rules);
    } else if (fflush(errors) == 0 && len == 0) {
        abort(); /* refused without a word */
    }
    fclose(errors);
    free(text);
    return 0;
}
