/* SPDX-License-Identifier: Apache-2.0 */
#include "message.h"
#include <stdio.h>
#include <string.h>

enum { TYPE_OPT = 41, OPCODE_UPDATE = 5, RECORD = 10 /* bytes between a record's name and its data */ };

static uint16_t be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint8_t small(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

/* ---- names ---- */
const char *dns_read_name(struct dns_name *out, const uint8_t *message, size_t len, size_t *at)
{
    size_t i = *at, begin = *at, behind = 0, n = 0; /* begin: of what was read since the last pointer */
    unsigned pointers = 0;

    for (;;) {
        if (i >= len)
            return "a name ends outside of the message";
        uint8_t label = message[i];
        if (label > DNS_LABEL_MAX) {
            if (label < 0xc0)
                return "a label of an unknown kind";
            if (len - i < 2)
                return "a name ends outside of the message";
            size_t to = (size_t)(label & 0x3f) << 8 | message[i + 1];
            if (behind == 0)
                behind = i + 2;
            if (to >= begin)
                return "a name points forward, or to itself";
            if (to < DNS_HEADER)
                return "a name points into the header";
            if (++pointers > DNS_POINTERS_MAX)
                return "a name with too many pointers";
            i = begin = to;
            continue;
        }
        if (label >= len - i) /* its bytes, behind the one of its length */
            return "a name ends outside of the message";
        if (n + 1 + label > DNS_NAME_MAX)
            return "a name is too long";
        if (out != NULL) {
            out->bytes[n] = label;
            for (size_t k = 1; k <= label; k++)
                out->bytes[n + k] = small(message[i + k]);
        }
        n += 1 + (size_t)label;
        i += 1 + (size_t)label;
        if (label == 0)
            break;
    }
    if (out != NULL)
        out->len = (uint8_t)n;
    *at = behind != 0 ? behind : i;
    return NULL;
}

const char *dns_name_of_text(struct dns_name *out, const char *text, size_t len)
{
    size_t n = 0;

    if (len == 0)
        return "no name";
    if (len == 1 && text[0] == '.')
        len = 0;
    while (len > 0) {
        const char *dot = memchr(text, '.', len);
        size_t label = dot != NULL ? (size_t)(dot - text) : len;
        if (label == 0)
            return "an empty label";
        if (label > DNS_LABEL_MAX)
            return "a label is longer than 63 bytes";
        if (n + 1 + label + 1 > DNS_NAME_MAX)
            return "the name is longer than 255 bytes";
        out->bytes[n++] = (uint8_t)label;
        for (size_t k = 0; k < label; k++)
            out->bytes[n++] = small((uint8_t)text[k]);
        text += label + (dot != NULL);
        len -= label + (dot != NULL);
    }
    out->bytes[n++] = 0;
    out->len = (uint8_t)n;
    return NULL;
}

size_t dns_name_text(const struct dns_name *name, char text[DNS_TEXT_MAX])
{
    size_t n = 0;

    for (size_t i = 0; i < name->len && name->bytes[i] != 0; i += 1 + (size_t)name->bytes[i]) {
        if (n > 0)
            text[n++] = '.';
        for (size_t k = 1; k <= name->bytes[i]; k++) {
            uint8_t c = name->bytes[i + k];
            if (c <= ' ' || c >= 0x7f || c == '.' || c == '"' || c == '\\')
                n += (size_t)snprintf(text + n, DNS_TEXT_MAX - n, "\\%03u", c);
            else
                text[n++] = (char)c;
        }
    }
    if (n == 0)
        text[n++] = '.';
    text[n] = '\0';
    return n;
}

/* ---- records ---- */
/* Where names stand in the data of records: behind so many bytes, so many of them, before so many bytes. Only in
 * those of RFC 1035 names may be shortened by pointers (RFC 3597, 4). */
static const struct layout {
    uint16_t type;
    uint8_t before, names, after;
} layouts[] = {
    { 2, 0, 1, 0 },  /* NS */
    { 3, 0, 1, 0 },  /* MD */
    { 4, 0, 1, 0 },  /* MF */
    { 5, 0, 1, 0 },  /* CNAME */
    { 6, 0, 2, 20 }, /* SOA */
    { 7, 0, 1, 0 },  /* MB */
    { 8, 0, 1, 0 },  /* MG */
    { 9, 0, 1, 0 },  /* MR */
    { 12, 0, 1, 0 }, /* PTR */
    { 14, 0, 2, 0 }, /* MINFO */
    { 15, 2, 1, 0 }, /* MX */
};

static const char *read_names(uint16_t type, const uint8_t *message, size_t at, size_t end)
{
    static const char wrong[] = "a record's data are not as long as its names";

    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        const struct layout *l = &layouts[i];
        if (l->type != type)
            continue;
        at += l->before;
        for (unsigned k = 0; k < l->names; k++) {
            const char *bad = at < end ? dns_read_name(NULL, message, end, &at) : wrong;
            if (bad != NULL)
                return bad;
        }
        return at + l->after == end ? NULL : wrong;
    }
    return NULL;
}

static const char *read_options(const uint8_t *message, size_t at, size_t end)
{
    while (at < end) {
        if (end - at < 4 || end - at - 4 < be16(message + at + 2))
            return "an option ends outside of its record";
        at += 4 + (size_t)be16(message + at + 2);
    }
    return NULL;
}

static const char *read_record(struct dns_message *m, const uint8_t *message, size_t len, size_t *at, bool additional)
{
    size_t begin = *at, i = *at;
    const char *bad = dns_read_name(NULL, message, len, &i);

    if (bad != NULL)
        return bad;
    if (len - i < RECORD || len - i - RECORD < be16(message + i + 8))
        return "a record ends outside of the message";
    uint16_t type = be16(message + i), data = be16(message + i + 8);
    const uint8_t *ttl = message + i + 4;
    i += RECORD;
    *at = i + data;
    if (type == TYPE_OPT) {
        if (!additional || m->edns || message[begin] != 0)
            return "an OPT record that is not the root's, or not the only one";
        m->edns = true;
        if (m->answer)
            m->code |= (uint16_t)(ttl[0] << 4);
        return read_options(message, i, *at);
    }
    if (data == 0 && m->opcode == OPCODE_UPDATE) /* it names records that are to go (RFC 2136) */
        return NULL;
    return read_names(type, message, i, *at);
}

static const char *read_message(struct dns_message *m, const uint8_t *message, size_t len)
{
    size_t at = DNS_HEADER;
    const char *bad = NULL;

    if (be16(message + 4) > 1)
        return "more than one question";
    m->n_questions = message[5];
    if (m->n_questions == 1) {
        bad = dns_read_name(&m->name, message, len, &at);
        if (bad != NULL)
            return bad;
        if (len - at < 4)
            return "the question ends outside of the message";
        m->type = be16(message + at);
        m->class = be16(message + at + 2);
        at += 4;
    }
    uint16_t *count[] = { &m->n_answers, &m->n_authorities, &m->n_additional };
    for (unsigned section = 0; section < 3; section++) {
        *count[section] = be16(message + 6 + 2 * section);
        /* A record has 11 bytes at least, so that there are never more of them than the message is long. */
        for (unsigned n = *count[section]; bad == NULL && n > 0; n--)
            bad = read_record(m, message, len, &at, section == 2);
        if (bad != NULL)
            return bad;
    }
    return at == len ? NULL : "bytes behind the last record";
}

const char *dns_parse(struct dns_message *out, const uint8_t *message, size_t len)
{
    memset(out, 0, sizeof *out);
    if (len < DNS_HEADER)
        return "shorter than a header";
    out->id = be16(message);
    out->answer = (message[2] & 0x80) != 0;
    out->opcode = message[2] >> 3 & 0xf;
    out->cut = (message[2] & 0x02) != 0;
    out->code = out->answer ? message[3] & 0xf : 0;
    const char *bad = read_message(out, message, len);
    if (bad != NULL)
        *out = (struct dns_message){ .id = out->id, .answer = out->answer, .opcode = out->opcode };
    return bad;
}

/* ---- what a message is about ---- */
/* FNV-1a. */
static uint64_t mix(uint64_t h, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3;
    return h;
}

uint64_t dns_question(const struct dns_message *m)
{
    const uint8_t rest[] = { (uint8_t)(m->type >> 8), (uint8_t)m->type, (uint8_t)(m->class >> 8),
                             (uint8_t)m->class,       m->opcode,        m->n_questions };

    return mix(mix(0xcbf29ce484222325, m->name.bytes, m->name.len), rest, sizeof rest);
}

const char *dns_type_name(uint16_t type)
{
    static const char *const names[] = {
        [1] = "A",       [2] = "NS",    [5] = "CNAME", [6] = "SOA",    [12] = "PTR",   [15] = "MX",
        [16] = "TXT",    [28] = "AAAA", [33] = "SRV",  [35] = "NAPTR", [39] = "DNAME", [43] = "DS",
        [48] = "DNSKEY", [52] = "TLSA", [64] = "SVCB", [65] = "HTTPS", [255] = "ANY",
    };

    return type < sizeof names / sizeof *names ? names[type] : NULL;
}

const char *dns_code_name(uint16_t code)
{
    static const char *const names[] = { "NOERROR",  "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
                                         "YXDOMAIN", "YXRRSET", "NXRRSET",  "NOTAUTH",  "NOTZONE" };

    return code == 16 ? "BADVERS" : code < sizeof names / sizeof *names ? names[code] : NULL;
}
