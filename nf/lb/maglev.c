/* SPDX-License-Identifier: Apache-2.0 */
#include "maglev.h"
#include <string.h>

uint64_t lb_number(uint64_t seed, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    uint64_t h = seed ^ 0xcbf29ce484222325u;

    for (size_t i = 0; i < len; i++)
        h = (h ^ at[i]) * 0x100000001b3u; /* FNV-1a, and a finish that spreads the bits */
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 33;
}

bool lb_maglev_fill(struct lb_maglev *m, const struct lb_share *share, size_t n)
{
    enum { FREE = UINT16_MAX };
    uint32_t next[LB_BACKENDS_MAX], skip[LB_BACKENDS_MAX];
    unsigned taken = 0, weights = 0;

    for (size_t i = 0; i < n; i++) {
        next[i] = (uint32_t)(lb_number(1, share[i].name, strlen(share[i].name)) % LB_PLACES);
        skip[i] = (uint32_t)(lb_number(2, share[i].name, strlen(share[i].name)) % (LB_PLACES - 1)) + 1;
        weights += share[i].weight;
    }
    if (weights == 0)
        return false;
    for (unsigned i = 0; i < LB_PLACES; i++)
        m->place[i] = FREE;
    for (;;) {
        for (size_t i = 0; i < n; i++) {
            for (unsigned turn = 0; turn < share[i].weight; turn++) {
                while (m->place[next[i]] != FREE)
                    next[i] = (next[i] + skip[i]) % LB_PLACES;
                m->place[next[i]] = (uint16_t)i;
                if (++taken == LB_PLACES)
                    return true;
            }
        }
    }
}

int lb_maglev_pick(const struct lb_maglev *m, uint64_t number, bool (*may)(void *arg, unsigned index), void *arg)
{
    uint32_t at = (uint32_t)(number % LB_PLACES);
    unsigned last = UINT16_MAX; /* neighbours are often the same */

    for (unsigned i = 0; i < LB_PLACES; i++) {
        unsigned index = m->place[at];
        if (index != last && may(arg, index))
            return (int)index;
        last = index;
        at = at + 1 == LB_PLACES ? 0 : at + 1;
    }
    return -1;
}

uint64_t lb_capacity(uint64_t all, unsigned weight, uint64_t weights)
{
    __extension__ typedef unsigned __int128 wide;

    return weights == 0 ? 0 : (uint64_t)(((wide)all * weight * 5 + (wide)weights * 4 - 1) / ((wide)weights * 4));
}
