/* SPDX-License-Identifier: Apache-2.0 */
/* cli/modules.h - the network functions that `netstar run` knows: built in, or loaded from a file. */
#pragma once
#include "complaint.h"
#include <netstar/module.h>

/* The built-in ones; ends with NULL. */
extern const struct nst_module *const builtin_modules[];

/* Finds a built-in module by name, or loads one from a shared object: a name that has a slash in it or ends in
 * ".so". A loaded file stays loaded until the process ends. -EINVAL: no such built-in module; -ENOENT, -ENOEXEC: the
 * file is missing, or is not a module made for this netstar. */
int module_find(const struct nst_module **out, const char *name, struct complaint *c);
