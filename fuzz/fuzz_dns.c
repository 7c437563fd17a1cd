/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: the DNS example's parser on any bytes. What it accepts keeps its own contract: names are sound and come
 * back the same from their text, another type is another question, and no beginning of the message is one. */
#include "message.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void check_name(const struct dns_name *name)
{
    char text[DNS_TEXT_MAX];
    size_t at = 0, len = dns_name_text(name, text);
    struct dns_name again;

    require(len > 0 && len < sizeof text && text[len] == '\0');
    while (name->bytes[at] != 0) {
        require(name->bytes[at] <= DNS_LABEL_MAX);
        at += 1 + (size_t)name->bytes[at];
        require(at < name->len);
    }
    require(at + 1 == name->len);
    if (strchr(text, '\\') == NULL) {
        require(dns_name_of_text(&again, text, len) == NULL);
        require(again.len == name->len && memcmp(again.bytes, name->bytes, name->len) == 0);
    }
}

/* Of the size that it says, so that the sanitizer sees the first byte that is read behind it. */
static const char *parse(struct dns_message *m, const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size);

    if (size > 0)
        memcpy(copy, data, size);
    const char *bad = dns_parse(m, copy, size);
    free(copy);
    return bad;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dns_message m, part;
    struct dns_name name;
    size_t at = DNS_HEADER;

    if (dns_read_name(&name, data, size, &at) == NULL) {
        require(at > DNS_HEADER && at <= size);
        check_name(&name);
    } else {
        require(at == DNS_HEADER);
    }
    if (parse(&m, data, size) != NULL) {
        require(m.name.len == 0 && m.n_questions == 0 && m.code == 0);
        return 0;
    }
    require(m.n_questions <= 1 && (m.name.len > 0) == (m.n_questions == 1));
    if (m.n_questions == 1)
        check_name(&m.name);
    (void)dns_type_name(m.type);
    (void)dns_code_name(m.code);
    uint64_t question = dns_question(&m);
    if (size <= 512) {
        for (size_t n = 0; n < size; n++)
            require(parse(&part, data, n) != NULL);
        m.type ^= 1;
        require(dns_question(&m) != question);
    }
    return 0;
}
