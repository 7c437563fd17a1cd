/* SPDX-License-Identifier: Apache-2.0 */
/* A shared object, but no module. */
#include <netstar/base.h>

NST_API extern const int something_else;
const int something_else = 1;
