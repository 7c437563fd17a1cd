/* SPDX-License-Identifier: Apache-2.0 */
/* Declares an option that the command has itself. */
#include <netstar/module.h>

static int clash_open(const struct nst_module_env *env, const struct nst_nf **nf, void **arg, const char **why)
{
    return -ENOSYS;
}

static const struct nst_option options[] = { { "store", "X", "taken already", false }, { NULL, NULL, NULL, false } };
NST_API const struct nst_module nst_module = {
    .abi = NST_MODULE_ABI, .name = "clash", .options = options, .open = clash_open
};
