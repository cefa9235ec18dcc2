# SPDX-License-Identifier: Apache-2.0
# What a trial of KVM runs: a ROM of 64 KiB, assembled into PROGRAM of trial.py. From real mode to long mode, then what any
# guest needs: an exception and its return, a page table that is changed, a stack; then a word to the debug exit port.
    .globl _start
_start:                      # offset 0 of the segment 0xf000
    cli
    xorw %ax,%ax
    movw %ax,%es
    cld
    # tables at 0x1000..0x4000
    movw $0x1000,%di
    movw $0x1800,%cx
    rep stosw
    movl $0x2007,%es:0x1000
    movl $0x3007,%es:0x2000
    movl $0x0087,%es:0x3000     # 2 MiB page, identity
    movl $0x1000,%eax
    movl %eax,%cr3
    movl $0x20,%eax
    movl %eax,%cr4
    movl $0xc0000080,%ecx
    rdmsr
    orl $0x100,%eax
    wrmsr
    lgdtl %cs:gdtr - _start
    lidtl %cs:idtr - _start
    movl %cr0,%eax
    orl $0x80000001,%eax
    movl %eax,%cr0
    ljmpl $8,$0xf0000 + (long - _start)
    .code64
long:
    movl $0x10,%eax
    movl %eax,%ds
    movl %eax,%es
    movl %eax,%ss
    movq $0x8000,%rsp
    # IDT gate 3 at 0x5000
    movl $0x5000,%edi
    xorl %eax,%eax
    movl $0x100,%ecx
    rep stosl
    movl $(0x5000+3*16),%edi
    movw $(trap - _start),(%rdi)
    movw $8,2(%rdi)
    movw $0x8e00,4(%rdi)
    movw $0xf,6(%rdi)
    xorl %ebx,%ebx
    int3
    # a remapping: 0x200000 -> 0 by a second 2 MiB entry, after use
    movl $0x87,0x3008
    movl $0x200000,%eax
    invlpg (%rax)
    movl $0x12345678,0x209000
    cmpl $0x12345678,0x9000
    jne bad
    cmpl $1,%ebx
    jne bad
    movl $100000,%ecx
1:  pushq %rcx
    popq %rcx
    loop 1b
    movb $0x2a,%al
    outb %al,$0xf4
bad:
    movb $0x01,%al
    outb %al,$0xf4
    hlt
trap:
    incl %ebx
    iretq
    .balign 8
gdt: .quad 0, 0x00209a0000000000, 0x0000920000000000
gdtr: .word 23
     .long 0xf0000 + (gdt - _start)
idtr: .word 0xfff
     .long 0x5000
    .org 0xfff0
    .code16
    ljmp $0xf000,$0
    .org 0x10000
