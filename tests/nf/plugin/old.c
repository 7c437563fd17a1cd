/* SPDX-License-Identifier: Apache-2.0 */
/* Made for another version of the module interface. */
#include <netstar/module.h>

NST_API const struct nst_module nst_module = { .abi = NST_MODULE_ABI + 1, .name = "old" };
