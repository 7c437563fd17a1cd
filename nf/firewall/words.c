/* SPDX-License-Identifier: Apache-2.0 */
#include "words.h"

const uint8_t fw_with_ports[FW_WITH_PORTS] = { FW_TCP, FW_UDP };

const char *const fw_proto_names[] = { "icmp",  "igmp", "tcp",  "udp",  "gre",  "esp", "ah",
                                       "icmp6", "ospf", "vrrp", "sctp", "ipip", NULL };
static const uint8_t protos[] = { FW_ICMP, 2, FW_TCP, FW_UDP, 47, 50, 51, FW_ICMP6, 89, 112, FW_SCTP, 4 };

const char *const fw_port_names[] = { "ftp",  "ssh",   "telnet", "smtp",  "dns", "dhcp",       "tftp",  "http",
                                      "pop3", "ntp",   "imap",   "snmp",  "bgp", "ldap",       "https", "submission",
                                      "smb",  "imaps", "pop3s",  "mysql", "rdp", "postgresql", "redis", NULL };
static const uint16_t ports[] = { 21,  22,  23,  25,  53,  67,  69,  80,   110,  123,  143, 161,
                                  179, 389, 443, 587, 445, 993, 995, 3306, 3389, 5432, 6379 };

/* RFC 792, RFC 950, RFC 4443, RFC 4861, RFC 3810 */
static const char *const types4[] = {
    "echo-reply",        "unreachable",          "source-quench",       "redirect",
    "echo-request",      "router-advertisement", "router-solicitation", "time-exceeded",
    "parameter-problem", "timestamp-request",    "timestamp-reply",     NULL
};
static const uint8_t numbers4[] = { 0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14 };
static const char *const types6[] = { "unreachable",
                                      "too-big",
                                      "time-exceeded",
                                      "parameter-problem",
                                      "echo-request",
                                      "echo-reply",
                                      "listener-query",
                                      "listener-report",
                                      "listener-done",
                                      "router-solicitation",
                                      "router-advertisement",
                                      "neighbour-solicitation",
                                      "neighbour-advertisement",
                                      "redirect",
                                      NULL };
static const uint8_t numbers6[] = { 1, 2, 3, 4, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137 };

_Static_assert(sizeof fw_proto_names / sizeof *fw_proto_names == sizeof protos + 1, "a number for each name");
_Static_assert(sizeof fw_port_names / sizeof *fw_port_names == sizeof ports / sizeof *ports + 1, "likewise");
_Static_assert(sizeof types4 / sizeof *types4 == sizeof numbers4 + 1, "likewise");
_Static_assert(sizeof types6 / sizeof *types6 == sizeof numbers6 + 1, "likewise");

bool fw_proto_by_name(const struct nf_word *w, uint64_t *out)
{
    int i = nf_word_index(w, fw_proto_names);

    *out = i >= 0 ? protos[i] : 0;
    return i >= 0;
}

bool fw_port_by_name(const struct nf_word *w, uint64_t *out)
{
    int i = nf_word_index(w, fw_port_names);

    *out = i >= 0 ? ports[i] : 0;
    return i >= 0;
}

const char *const *fw_type_names(bool six)
{
    return six ? types6 : types4;
}

bool fw_type_by_name(const struct nf_word *w, bool six, uint64_t *out)
{
    int i = nf_word_index(w, fw_type_names(six));

    *out = i < 0 ? 0 : six ? numbers6[i] : numbers4[i];
    return i >= 0;
}
