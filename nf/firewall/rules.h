/* SPDX-License-Identifier: Apache-2.0 */
/* firewall/rules.h - the rule file: what it says, and the rule that a connection meets.
 *
 *   set office { 10.1.0.0/16, 10.2.0.5-10.2.0.9, fd00:1::/48 }
 *   set blocked file "blocked.txt"
 *   drop from @blocked log
 *   allow out tcp from @office to any port 80,443
 *   allow icmp type echo-request
 *   reject in tcp to any port 23 log
 *   default drop
 *
 * The first rule that fits decides. README.md has the whole language. Rules are plain data once they are read, and are
 * never changed. Any thread.
 */
#pragma once
#include "common/addresses.h"

enum { FW_RULES_MAX = 65536, FW_SETS_MAX = 4096, FW_FILE_MAX = 64 << 20, FW_INCLUDES_MAX = 8 };

enum fw_action { FW_DROP, FW_ALLOW, FW_REJECT, FW_ACTIONS };
enum fw_side { FW_BOTH, FW_IN, FW_OUT };

struct fw_ports {
    uint16_t lo, hi;
};

/* One end of a rule. */
struct fw_end {
    const struct nf_addresses *addresses; /* NULL: any */
    bool outside;                         /* of the addresses */
    uint16_t n_ports;                     /* 0: any */
    struct fw_ports *ports;
};

struct fw_rule {
    enum fw_action action;
    enum fw_side side;
    bool log;
    bool any_proto, any_type, any_vlan;
    uint8_t family; /* 0: both */
    uint16_t vlan;
    uint64_t protos[4];   /* bits */
    uint64_t types[4];    /* of ICMP, bits */
    struct fw_end end[2]; /* source, destination */
    const char *file;     /* where it stands */
    uint32_t line;
    char *text; /* as it was written, without its comment */
};

struct fw_rules {
    struct fw_rule *rule; /* n of them, and behind them the default */
    size_t n;
    bool keep;   /* connections that were allowed by earlier rules stay */
    uint64_t id; /* of all that was read, the same wherever it is read: never 0 */
    size_t sets;
    size_t addresses; /* ranges in all sets */
    struct fw_store *store;
};

/* What rules see of a connection: its first packet. */
struct fw_opening {
    uint8_t family, proto, type;
    bool out;      /* opened from behind the second port of a pair */
    uint16_t vlan; /* 0: none */
    uint16_t port[2];
    uint8_t addr[2][16]; /* source, destination */
};

/* Reads a rule file, and what it includes. Errors are written as common/text.h has them. -EINVAL when there was any;
 * -ENOMEM; the errno of reading the file, with a line in errors. */
int fw_rules_read(struct fw_rules **out, const char *path, FILE *errors);
/* The same of a text. Names of files that it includes are relative to the folder of `name`. */
int fw_rules_parse(struct fw_rules **out, const char *name, const char *text, size_t len, FILE *errors);
/* NULL is allowed. */
void fw_rules_free(struct fw_rules *rules);

/* The place of the rule that decides; n is the default. */
size_t fw_rules_judge(const struct fw_rules *rules, const struct fw_opening *o);
/* One rule on its own. */
bool fw_rule_fits(const struct fw_rule *r, const struct fw_opening *o);

const char *fw_action_name(enum fw_action a);
