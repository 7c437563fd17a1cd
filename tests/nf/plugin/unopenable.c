/* SPDX-License-Identifier: Apache-2.0 */
/* Has no open function. */
#include <netstar/module.h>

NST_API const struct nst_module nst_module = { .abi = NST_MODULE_ABI, .name = "unopenable" };
