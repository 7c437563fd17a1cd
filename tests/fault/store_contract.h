/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fault/store_contract.h - what netstar/store.h promises, asked of any store that can answer. Called as a task of
 * a reactor; leaves keys that begin with "contract". */
#pragma once
#include <netstar/store.h>

/* tells: the store tells of changes. */
void store_contract(struct nst_store *s, bool tells);
