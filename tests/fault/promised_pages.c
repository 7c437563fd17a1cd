/* SPDX-License-Identifier: Apache-2.0 */
/* To be preloaded: a machine that promises huge pages to whoever tries them, and gives ordinary ones. */
#include <netstar/base.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

NST_API void *mmap(void *addr, size_t size, int prot, int flags, int fd, off_t at)
{
    return (void *)syscall(SYS_mmap, addr, size, prot, (unsigned)flags & ~(MAP_HUGETLB | (63u << MAP_HUGE_SHIFT)), fd,
                           at);
}
