/* SPDX-License-Identifier: Apache-2.0 */
#include "base/region.h"
#include <stdint.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

static size_t whole_pages(size_t size)
{
    return (size + HUGE_PAGE) / HUGE_PAGE * HUGE_PAGE;
}

void *region_open(size_t size)
{
    size_t want = whole_pages(size);
    char *p = mmap(NULL, want + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    char *at = p + (-(uintptr_t)p & (HUGE_PAGE - 1));
    if (at != p)
        munmap(p, (size_t)(at - p));
    if (at != p + HUGE_PAGE)
        munmap(at + want, (size_t)(p + HUGE_PAGE - at));
    (void)madvise(at, want, MADV_HUGEPAGE);
    return at;
}

void region_close(void *p, size_t size)
{
    if (p != NULL)
        munmap(p, whole_pages(size));
}
