/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: the rule file parser on any bytes, and the message about each rule that it accepts. */
#include "ips/rules.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = NULL;
    size_t len;
    struct ips_rules *rules = NULL;
    FILE *errors = open_memstream(&text, &len);
    if (!errors)
        return 0;
    if (ips_rules_parse(&rules, "fuzz", (const char *)data, size, errors) == 0) {
        for (size_t i = 0; i < rules->n; i++)
            ips_rules_error(rules, &rules->rule[i], errors, "text");
        ips_rules_free(rules);
    }
    fclose(errors);
    free(text);
    return 0;
}
