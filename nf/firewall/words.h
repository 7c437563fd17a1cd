/* SPDX-License-Identifier: Apache-2.0 */
/* firewall/words.h - names of protocols, ports and types of ICMP. Lists of names end with NULL. */
#pragma once
#include "common/text.h"

enum { FW_ICMP = 1, FW_TCP = 6, FW_UDP = 17, FW_ICMP6 = 58, FW_SCTP = 132 };
enum { FW_WITH_PORTS = 2 };
extern const uint8_t fw_with_ports[FW_WITH_PORTS]; /* protocols whose ports the engine knows */

extern const char *const fw_proto_names[], *const fw_port_names[];
bool fw_proto_by_name(const struct nf_word *w, uint64_t *out);
bool fw_port_by_name(const struct nf_word *w, uint64_t *out);

const char *const *fw_type_names(bool six);
bool fw_type_by_name(const struct nf_word *w, bool six, uint64_t *out);
