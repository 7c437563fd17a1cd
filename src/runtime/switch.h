/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/switch.h - from one stack to another.
 *
 *   stack_switch  suspends the running code in *save and resumes `to`
 *   stack_leave   resumes `to`; the running code is gone
 *   stack_enter   suspends the running code in *save and starts nst_reactor_loop(r) with an empty stack below `top`
 *   nst_stack_call  calls fn(arg) with its stack below `top` and returns
 *   nst_task_call   calls fn(a, b) with its stack below `top`; returns when that has returned, or has switched to
 *                   task->back (the first two words of a task are sp and back, see stack.h)
 *   nst_task_resume goes on with such a function where it has switched away; returns likewise
 *
 * On x86-64 the first three are part of the function that waits. The compiler then saves only what that function
 * uses, and no call or return of ours stands between the waiting code and its resumption. The second matters more:
 * the processor predicts returns from a stack of calls of its own, which we cannot switch. Bursts push the same chain
 * (loop, poller, handler, wait) over and over, so a resumed chain finds its returns predicted, as long as suspending
 * and resuming have not moved that stack by themselves. A suspended stack has at its sp the address to go on at, then
 * rbp. Code that includes this is compiled with -mno-red-zone. Control words (mxcsr, x87, fpcr) are the thread's.
 */
#pragma once

struct nst_reactor;
struct nst_task;

void nst_reactor_loop(struct nst_reactor *r) __attribute__((noreturn, used));
void nst_stack_call(void *top, void (*fn)(void *arg), void *arg);
int nst_task_call(struct nst_task *task, void *top, int (*fn)(void *a, const void *b), void *a, const void *b);
int nst_task_resume(struct nst_task *task);

#if defined(__x86_64__)

extern const char nst_stack_bottom[]; /* where unwinding ends */

/* For a function that suspends, or that calls what suspends: by the time of its return the processor's stack of calls
 * holds those of other tasks, so that the prediction would be wrong every time. A jump through the return address is
 * predicted by where it went before. */
#if __has_attribute(function_return) && defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__)
#define SWITCH_RETURNS_BY_JUMP __attribute__((function_return("thunk-extern")))
#else
#define SWITCH_RETURNS_BY_JUMP
#endif

#ifdef __AVX512F__
#define SWITCH_CLOBBERS_WIDE                                                                                      \
    , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", \
        "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#else
#define SWITCH_CLOBBERS_WIDE
#endif
#define SWITCH_CLOBBERS                                                                                                \
    "rax", "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", \
        "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc",            \
        "memory" SWITCH_CLOBBERS_WIDE

static inline __attribute__((always_inline)) void stack_switch(void **save, void *to)
{
    __asm__ volatile("pushq %%rbp\n\t"
                     "leaq 1f(%%rip), %%rax\n\t"
                     "pushq %%rax\n\t"
                     "movq %%rsp, (%0)\n\t"
                     "movq %1, %%rsp\n\t"
                     "popq %%rcx\n\t"
                     "jmp *%%rcx\n"
                     "1:\tpopq %%rbp"
                     : "+D"(save), "+S"(to)
                     :
                     : "rdx", SWITCH_CLOBBERS);
}

static inline __attribute__((always_inline, noreturn)) void stack_leave(void *to)
{
    __asm__ volatile("movq %0, %%rsp\n\t"
                     "popq %%rcx\n\t"
                     "jmp *%%rcx"
                     :
                     : "S"(to)
                     : "memory");
    __builtin_unreachable();
}

static inline __attribute__((always_inline)) void stack_enter(void **save, void *top, struct nst_reactor *r)
{
    __asm__ volatile("pushq %%rbp\n\t"
                     "leaq 1f(%%rip), %%rax\n\t"
                     "pushq %%rax\n\t"
                     "movq %%rsp, (%0)\n\t"
                     "movq %1, %%rsp\n\t"
                     "movq %2, %%rdi\n\t"
                     "leaq nst_stack_bottom(%%rip), %%rax\n\t"
                     "pushq %%rax\n\t"
                     "xorl %%ebp, %%ebp\n\t"
                     "jmp nst_reactor_loop\n"
                     "1:\tpopq %%rbp"
                     : "+D"(save), "+S"(top), "+d"(r)
                     :
                     : SWITCH_CLOBBERS);
}

#else

#define SWITCH_RETURNS_BY_JUMP

void nst_stack_switch(void **save, void *to);
void nst_stack_leave(void *to) __attribute__((noreturn));
void nst_stack_enter(void **save, void *top, struct nst_reactor *r);
#define stack_switch nst_stack_switch
#define stack_leave nst_stack_leave
#define stack_enter nst_stack_enter

#endif
