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
#endif

    .section .note.GNU-stack, "", %progbits
