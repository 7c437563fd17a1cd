/* SPDX-License-Identifier: Apache-2.0 */
/* A DNS message as it stands in a datagram (RFC 1035, with EDNS: RFC 6891). Pure functions over bytes that anybody may
 * have sent: nothing outside of them is read, nothing is allocated, and the work is bounded by their length. Any
 * thread; none waits.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DNS_HEADER = 12,        /* bytes before the question */
    DNS_NAME_MAX = 255,     /* bytes of a name with its length bytes and the root (RFC 1035, 2.3.4) */
    DNS_LABEL_MAX = 63,     /* bytes of one label */
    DNS_POINTERS_MAX = 127, /* followed in one name: no name has more labels */
    DNS_TEXT_MAX = 1024,    /* a name as text, each byte escaped, with its NUL */
    DNS_NXDOMAIN = 3,       /* a code of the answer: there is no such name */
};

struct dns_name {
    uint8_t len; /* of bytes; 1: the root */
    uint8_t
        bytes[DNS_NAME_MAX]; /* labels with their lengths, the root's 0 at the end; no pointers; letters are small */
};

struct dns_message {
    uint16_t id;
    bool answer; /* QR: it is no question but an answer */
    bool cut;    /* TC: its sender had more to say than went into the datagram */
    uint8_t opcode;
    uint16_t code;       /* of an answer, with the upper bits that EDNS adds; 0: no error */
    uint8_t n_questions; /* 0 or 1 (RFC 9619) */
    bool edns;
    uint16_t n_answers, n_authorities, n_additional; /* as the header says, and as many were there */
    uint16_t type, class;                            /* of the question */
    struct dns_name name;                            /* of the question */
};

/* Reads a message of len bytes, all of it: the question, each record's place, the names in it, and its options.
 * NULL: *out is what it says; *out is its own and borrows nothing. Otherwise it is no whole and sound message, and the
 * words say why (static); *out then holds id, answer and opcode if there were at least DNS_HEADER bytes, and zeros in
 * the rest. These count as unsound, too: bytes behind the last record, more than one question, an OPT record at a place
 * where it must not be or twice, and data of a record of RFC 1035 that are longer or shorter than the names in them. */
const char *dns_parse(struct dns_message *out, const uint8_t *message, size_t len);

/* Reads the name at *at in a message. NULL, and *at behind it (behind the first pointer, if there is one); out may be
 * NULL. Otherwise the words say what is wrong, *at is as it was, and *out may hold anything. A pointer has to lead before
 * all that was read of the name so far, but not into the header. */
const char *dns_read_name(struct dns_name *out, const uint8_t *message, size_t len, size_t *at);

/* Makes a name of text as users write it, with or without the final dot; ".": the root. No escapes: every byte but the
 * dot stands for itself. NULL, or what is wrong with it. */
const char *dns_name_of_text(struct dns_name *out, const char *text, size_t len);

/* The name as text without the final dot; ".": the root. What is not printable ASCII, and dots, quotes and backslashes
 * within labels, stand as \DDD (RFC 1035, 5.1). Returns its length. */
size_t dns_name_text(const struct dns_name *name, char text[DNS_TEXT_MAX]);

/* The question as a number: the same for the same name (in any case), type, class and opcode. Not a secret one: others
 * can be made that have the same. 0 questions have one as well. */
uint64_t dns_question(const struct dns_message *m);

/* NULL when it has no name that is in use: then write the number. */
const char *dns_type_name(uint16_t type);
const char *dns_code_name(uint16_t code);
