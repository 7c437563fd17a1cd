/* SPDX-License-Identifier: Apache-2.0 */
/* base/region.h - large memory that is reserved at once and taken from the system as it is touched, in huge pages where
 * the system gives them: tables that are looked up at random are limited by address translation otherwise.
 */
#pragma once
#include <stddef.h>

/* Zeroed memory, aligned to a huge page. NULL: no address space. Any thread. */
void *region_open(size_t size);
/* With the size it was opened with. NULL is allowed. */
void region_close(void *p, size_t size);
