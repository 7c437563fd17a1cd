/* SPDX-License-Identifier: Apache-2.0 */
/* What switch.h needs of x86-64 (System V) outside C. */
#ifdef __x86_64__

.macro FUNCTION name
    .globl \name
    .hidden \name
    .type \name, @function
    .p2align 4
\name:
    .cfi_startproc
.endm

.macro END name
    .cfi_endproc
    .size \name, . - \name
.endm

    .text

/* The return address of the loop on a stack that it entered afresh: here unwinding ends. Unwinders look at the
 * instruction before a return address. */
    .cfi_startproc
    .cfi_undefined %rip
    nop
    .globl nst_stack_bottom
    .hidden nst_stack_bottom
nst_stack_bottom:
    ud2
    .cfi_endproc

/* Where a function marked SWITCH_RETURNS_BY_JUMP returns through; the compilers know it by this name. */
FUNCTION __x86_return_thunk
    popq %rcx
    .cfi_adjust_cfa_offset -8
    jmp *%rcx
END __x86_return_thunk

FUNCTION nst_stack_call             /* (void *top, void (*fn)(void *), void *arg) */
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    movq %rsp, %rbp
    .cfi_def_cfa_register %rbp
    movq %rdi, %rsp
    movq %rdx, %rdi
    call *%rsi
    movq %rbp, %rsp
    .cfi_def_cfa_register %rsp
    popq %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbp
    ret
END nst_stack_call

/* One instruction calls the function and resumes it, so that the processor has predicted its return from either. What
 * switches to task->back finds the address to go on at, the registers, and the caller's address. It leaves the
 * processor's stack of calls as it is, so it returns by a jump. */
.macro SAVE_AND_SET_BACK
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    leaq .Lwaits(%rip), %rax
    pushq %rax
    movq %rsp, 8(%rdi)
    .cfi_adjust_cfa_offset 56
.endm

.macro RESTORE
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    .cfi_adjust_cfa_offset -48
.endm

FUNCTION nst_task_call              /* (task, top, fn, a, b) */
    SAVE_AND_SET_BACK
    movq %rdi, %rbx
    movq %rsi, %rsp
    movq %rdx, %rax
    movq %rcx, %rdi
    movq %r8, %rsi
    xorl %ebp, %ebp
.Lgo:
    .cfi_remember_state
    .cfi_undefined %rip
    call *%rax
    .cfi_restore_state
    movq 8(%rbx), %rsp
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    .cfi_remember_state
    RESTORE
    ret
    .cfi_restore_state
.Lwaits:
    .cfi_remember_state
    RESTORE
    popq %rcx
    .cfi_adjust_cfa_offset -8
    jmp *%rcx
    .cfi_restore_state
.Lresumed:
    .cfi_undefined %rip
    movq (%rdi), %rsp
    popq %rcx
    jmp *%rcx
END nst_task_call

FUNCTION nst_task_resume            /* (task) */
    SAVE_AND_SET_BACK
    leaq .Lresumed(%rip), %rax
    jmp .Lgo
END nst_task_resume
#endif

    .section .note.GNU-stack, "", %progbits
