/* SPDX-License-Identifier: Apache-2.0 */
#include "modules.h"
#include "nf/modules.h"

const struct nst_module *const builtin_modules[] = { &firewall_module, &ips_module, &ips_callback_module,
                                                     &lb_module,       &nat_module, NULL };
