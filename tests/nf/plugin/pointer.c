/* SPDX-License-Identifier: Apache-2.0 */
/* Exports a pointer to the module in the module's place. */
#include <netstar/module.h>

static const struct nst_module module = { .abi = NST_MODULE_ABI, .name = "pointer" };
NST_API extern const struct nst_module *const nst_module;
const struct nst_module *const nst_module = &module;
