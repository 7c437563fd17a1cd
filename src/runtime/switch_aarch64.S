/* SPDX-License-Identifier: Apache-2.0 */
/* Stack switches for AArch64 (AAPCS64); see switch.h. Saved from the lowest address up: x19 to x28, x29, x30, d8 to
 * d15. The floating-point control register is the thread's and not saved.
 * Entering pushes nothing on the processor's stack of return addresses but the call of nst_stack_enter, which the ret
 * that resumes takes off again. */
#ifdef __aarch64__

.macro SAVE
    sub sp, sp, #160
    .cfi_adjust_cfa_offset 160
    stp x19, x20, [sp, #0]
    .cfi_rel_offset x19, 0
    .cfi_rel_offset x20, 8
    stp x21, x22, [sp, #16]
    .cfi_rel_offset x21, 16
    .cfi_rel_offset x22, 24
    stp x23, x24, [sp, #32]
    .cfi_rel_offset x23, 32
    .cfi_rel_offset x24, 40
    stp x25, x26, [sp, #48]
    .cfi_rel_offset x25, 48
    .cfi_rel_offset x26, 56
    stp x27, x28, [sp, #64]
    .cfi_rel_offset x27, 64
    .cfi_rel_offset x28, 72
    stp x29, x30, [sp, #80]
    .cfi_rel_offset x29, 80
    .cfi_rel_offset x30, 88
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
.endm

.macro RESTORE
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    .cfi_restore x19
    .cfi_restore x20
    .cfi_restore x21
    .cfi_restore x22
    .cfi_restore x23
    .cfi_restore x24
    .cfi_restore x25
    .cfi_restore x26
    .cfi_restore x27
    .cfi_restore x28
    .cfi_restore x29
    .cfi_restore x30
    add sp, sp, #160
    .cfi_def_cfa_offset 0
    ret
.endm

.macro FUNCTION name
    .globl \name
    .hidden \name
    .type \name, %function
    .p2align 4
\name:
    .cfi_startproc
.endm

.macro END name
    .cfi_endproc
    .size \name, . - \name
.endm

    .text

FUNCTION nst_stack_switch           /* (void **save, void *to) */
    SAVE
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    RESTORE
END nst_stack_switch

FUNCTION nst_stack_leave            /* (void *to) */
    mov sp, x0
    .cfi_def_cfa_offset 160
    .cfi_rel_offset x29, 80
    .cfi_rel_offset x30, 88
    RESTORE
END nst_stack_leave

FUNCTION nst_stack_enter            /* (void **save, void *top, struct nst_reactor *r) */
    SAVE
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    mov x0, x2
    mov x29, #0
    adr x30, 1f
    .cfi_undefined x30
    b nst_reactor_loop
1:  brk #1
END nst_stack_enter

FUNCTION nst_stack_call             /* (void *top, void (*fn)(void *), void *arg) */
    stp x29, x30, [sp, #-16]!
    .cfi_adjust_cfa_offset 16
    .cfi_rel_offset x29, 0
    .cfi_rel_offset x30, 8
    mov x29, sp
    .cfi_def_cfa_register x29
    mov sp, x0
    mov x0, x2
    blr x1
    mov sp, x29
    .cfi_def_cfa_register sp
    ldp x29, x30, [sp], #16
    .cfi_adjust_cfa_offset -16
    .cfi_restore x29
    .cfi_restore x30
    ret
END nst_stack_call

FUNCTION nst_task_call              /* (task, top, fn, a, b) */
    SAVE
    mov x9, sp
    str x9, [x0, #8]
    mov x19, x0
    mov sp, x1
    mov x9, x2
    mov x0, x3
    mov x1, x4
    mov x29, #0
    .cfi_remember_state
    .cfi_undefined x30
    blr x9
    .cfi_restore_state
    ldr x9, [x19, #8]
    mov sp, x9
    RESTORE
END nst_task_call

FUNCTION nst_task_resume            /* (task) */
    SAVE
    mov x9, sp
    str x9, [x0, #8]
    ldr x9, [x0]
    mov sp, x9
    RESTORE
END nst_task_resume
#endif

    .section .note.GNU-stack, "", %progbits
