/* Start, trap entries, and the way to user mode and back. SPDX-License-Identifier: Apache-2.0 */
#ifdef __x86_64__
#define WORD .quad
#else
#define WORD .long
#endif

    .section .text.start, "ax"
    .globl _start
_start:
    cld
#ifdef __x86_64__
    lea boot_stack_top(%rip), %rsp
    mov %rsi, %rdi
#else
    mov $boot_stack_top, %esp
    mov %esi, %eax
#endif
    xor %ebp, %ebp
    call guest_main
    ud2

    .text
    .balign 4096
    .globl hypercall_page
hypercall_page:
    .skip 4096

/* One stub for each vector: makes the frame the same with and without an error code. */
    .balign 16
    .globl trap_stubs
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
#ifdef __x86_64__
    pop %rcx
    pop %r11
#endif
    .if (vector != 8) && ((vector < 10) || (vector > 14)) && (vector != 17)
    push $0
    .endif
    push $vector
    jmp common
    .set vector, vector + 1
    .endr

.macro entry name, number
    .balign 16
    .globl \name
\name:
#ifdef __x86_64__
    pop %rcx
    pop %r11
#endif
    push $0
    push $\number
    jmp common
.endm
    entry event_entry, 256
    entry syscall_entry, 258
    entry syscall32_entry, 259
    entry sysenter_entry, 260
    entry nmi_entry, 261

/* ds es fs gs come before the frame: they are stored away. */
    .balign 16
    .globl failsafe_entry
failsafe_entry:
#ifdef __x86_64__
    pop %rcx
    pop %r11
    popq failsafe_ds
    popq failsafe_ds + 8
    popq failsafe_ds + 16
    popq failsafe_ds + 24
#else
    popl %ss:failsafe_ds
    popl %ss:failsafe_ds + 4
    popl %ss:failsafe_ds + 8
    popl %ss:failsafe_ds + 12
#endif
    push $0
    push $257
    jmp common

common:
#ifdef __x86_64__
    push %rbp
    push %rdi
    push %rsi
    push %rdx
    push %rcx
    push %rbx
    push %rax
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    mov %rsp, %rbp
    and $-16, %rsp
    call on_trap
    mov %rbp, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rax
    pop %rbx
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    pop %rbp
    add $8, %rsp
    movq $0, (%rsp)
    push %rcx
    push %r11
    push %rax
    mov $23, %eax
    syscall
#else
    push %gs
    push %fs
    push %es
    push %ds
    push %ebp
    push %edi
    push %esi
    push %edx
    push %ecx
    push %ebx
    push %eax
    cld
    mov $0xe021, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %esp, %eax
    mov %esp, %ebp
    and $-16, %esp
    call on_trap
    mov %ebp, %esp
    pop %eax
    pop %ebx
    pop %ecx
    pop %edx
    pop %esi
    pop %edi
    pop %ebp
    pop %ds
    pop %es
    pop %fs
    pop %gs
    add $8, %esp
    push %eax
    mov $23, %eax
    int $0x82
#endif
    ud2

/* int save_context(ulong *room): 0; 1 when resume_context comes back to it. */
    .globl save_context
save_context:
#ifdef __x86_64__
    mov %rbx, (%rdi)
    mov %rbp, 8(%rdi)
    mov %r12, 16(%rdi)
    mov %r13, 24(%rdi)
    mov %r14, 32(%rdi)
    mov %r15, 40(%rdi)
    lea 8(%rsp), %rdx
    mov %rdx, 48(%rdi)
    mov (%rsp), %rdx
    mov %rdx, 56(%rdi)
    xor %eax, %eax
    ret
#else
    mov %ebx, (%eax)
    mov %ebp, 4(%eax)
    mov %esi, 8(%eax)
    mov %edi, 12(%eax)
    lea 4(%esp), %edx
    mov %edx, 16(%eax)
    mov (%esp), %edx
    mov %edx, 20(%eax)
    xor %eax, %eax
    ret
#endif

    .globl resume_context
resume_context:
#ifdef __x86_64__
    mov (%rdi), %rbx
    mov 8(%rdi), %rbp
    mov 16(%rdi), %r12
    mov 24(%rdi), %r13
    mov 32(%rdi), %r14
    mov 40(%rdi), %r15
    mov 48(%rdi), %rsp
    push $2
    popf
    mov $1, %eax
    jmp *56(%rdi)
#else
    mov (%eax), %ebx
    mov 4(%eax), %ebp
    mov 8(%eax), %esi
    mov 12(%eax), %edi
    mov 16(%eax), %esp
    mov 20(%eax), %ecx
    pushl $2
    popf
    mov $0xe021, %edx
    mov %edx, %ds
    mov %edx, %es
    mov $1, %eax
    jmp *%ecx
#endif

/* enter_user(frame, arg): frame = { ip, cs, flags, sp, ss }. */
    .globl enter_user
enter_user:
#ifdef __x86_64__
    push 32(%rdi)
    push 24(%rdi)
    push 16(%rdi)
    push 8(%rdi)
    push (%rdi)
    push $0
    push $0
    push $0
    push $0
    mov %rsi, %rdi
    mov $23, %eax
    syscall
#else
    push 16(%eax)
    push 12(%eax)
    push 8(%eax)
    push 4(%eax)
    push (%eax)
    push %edx
    mov $0xe033, %eax
    mov %eax, %ds
    mov %eax, %es
    mov $23, %eax
    int $0x82
#endif
    ud2

/* Where user code returns to. Not int n: QEMU's software CPU has a wrong error code for those that Xen is to emulate. */
    .globl user_leave
user_leave:
    ud2
    nop
    nop
    nop

    .globl cpu_start
cpu_start:
#ifdef __x86_64__
    call *%rax
#else
    call *%eax
#endif
1:  pause
    jmp 1b

    .bss
    .balign 32
    .globl failsafe_ds
failsafe_ds:
    .skip 32

.macro xen_note type, value:vararg
    .pushsection .note.Xen, "a", @note
    .balign 4
    .long 4, 2f - 1f, \type
    .asciz "Xen"
1:  \value
2:  .balign 4
    .popsection
.endm
    xen_note 1, WORD _start
    xen_note 2, WORD hypercall_page
#ifdef __x86_64__
    xen_note 3, .quad 0xffffffff80000000
    xen_note 4, .quad 0
#else
    xen_note 3, .long 0xc0000000
    xen_note 4, .long 0
#endif
    xen_note 5, .asciz "xen-3.0"
    xen_note 6, .asciz "domzero guests"
    xen_note 7, .asciz "1.0"
    xen_note 8, .asciz "generic"
#ifdef __x86_64__
    xen_note 12, .quad 0xffff800000000000
#else
    xen_note 9, .asciz "yes"
    xen_note 12, .long 0xf5800000
#endif
    .section .note.GNU-stack, "", @progbits
