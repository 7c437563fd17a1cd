/* SPDX-License-Identifier: Apache-2.0 */
/* nf/modules.h - the network functions that are built into the netstar command. */
#pragma once
#include <netstar/module.h>

extern const struct nst_module firewall_module, ips_module, ips_callback_module, lb_module, nat_module;
