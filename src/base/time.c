/* SPDX-License-Identifier: Apache-2.0 */
#include <netstar/base.h>
#include <time.h>

nst_time nst_clock(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return NST_SEC(ts.tv_sec) + ts.tv_nsec;
}
