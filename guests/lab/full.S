// SPDX-License-Identifier: Apache-2.0
// A guest of full virtualization: a PVH kernel that runs the sensitive instructions of the lab in its own ring 0, and
// does what it is told over its serial port: one letter each.
//   e      says hello                  q  powers off (ACPI)       r  resets       c  panics (pvpanic)
//   t      tells its time stamp counter, 16 digits
//   pNN    runs probe NN (hexadecimal): once, for what comes of it, and COUNT times, for what it costs
// An answer is a line: what was asked, then for p the vector of an exception (ff: none), what the probe shows, cycles of
// all runs.

#define COUNT 1000
#define PORT 0x3f8

        // Page tables, IDT and stack, behind the program; the PVH entry note (PHYS32_ENTRY) is made with the ELF file.
        .set l4, 0x110000
        .set l3, 0x111000
        .set l2, 0x112000
        .set l1, 0x113000
        .set idt, 0x114000
        .set scratch, 0x115000
        .set saved_stack, 0x115100
        .set stack_top, 0x117000

        .text
        .code32
        .globl start32
start32:
        movl $stack_top, %esp
        movl $l4, %edi
        movl $0x1400, %ecx
        xorl %eax, %eax
        cld
        rep stosl
        movl $l4, %edi
        movl $l3 + 3, (%edi)
        movl $l2 + 3, l3
        movl $0x83, l2                  // 2 MiB each: the first six, identical
        movl $0x200083, l2 + 8
        movl $0x400083, l2 + 16
        movl $l1 + 3, l2 + 24           // and one table of pages of 4 KiB, at 6 MiB
        movl $0x100003, l1
        movl %edi, %cr3
        movl $0x620, %eax               // PAE, OSFXSR, OSXMMEXCPT
        movl %eax, %cr4
        movl $0xc0000080, %ecx
        rdmsr
        orl $0x101, %eax                // LME, SCE
        wrmsr
        movl $0x80000033, %eax
        movl %eax, %cr0
        lgdt gdt_pointer
        ljmp $8, $start64

        .code64
start64:
        movl $0x10, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movl $stack_top, %esp
        // all gates lead to `caught`, by way of a push of their vector
        movl $idt, %edi
        movl $gates, %eax
        movl $256, %ecx
1:      movw %ax, (%rdi)
        movw $8, 2(%rdi)
        movw $0x8e00, 4(%rdi)
        movl %eax, %edx
        shrl $16, %edx
        movw %dx, 6(%rdi)
        movq $0, 8(%rdi)
        addl $16, %edi
        addl $16, %eax
        loop 1b
        movb $0xff, %al                 // the firmware has left its timer running
        outb %al, $0x21
        outb %al, $0xa1
        lidt idt_pointer
        movw $0x18, %ax
        ltr %ax
        movl $0xc0000082, %ecx          // LSTAR
        movl $syscalled, %eax
        xorl %edx, %edx
        wrmsr
        movl $0xc0000081, %ecx          // STAR: ring 0 is 8, 10
        xorl %eax, %eax
        movl $0x00100008, %edx
        wrmsr
        movw $(PORT + 3), %dx           // 8 bits, no interrupts
        movb $3, %al
        outb %al, %dx
        movl $hello, %esi
        call print
command:
        call get
        cmpb $'e', %al
        je say_hello
        cmpb $'q', %al
        je power_off
        cmpb $'r', %al
        je reset
        cmpb $'c', %al
        je panic
        cmpb $'t', %al
        je tell_time
        cmpb $'p', %al
        je probe
        jmp command
say_hello:
        movl $hello, %esi
        call print
        jmp command
power_off:
        movw $0x604, %dx
        movw $0x2000, %ax
        outw %ax, %dx
        jmp command
reset:
        movw $0xcf9, %dx
        movb $6, %al
        outb %al, %dx
        jmp command
panic:
        movw $0x505, %dx
        movb $1, %al
        outb %al, %dx
        jmp command
tell_time:
        rdtsc
        shlq $32, %rdx
        orq %rdx, %rax
        movl $16, %ecx
        call digits
        call end_line
        jmp command

probe:
        call get_digit
        movl %eax, %ebx
        shll $4, %ebx
        call get_digit
        orl %eax, %ebx
        cmpl $((table_end - table) / 8), %ebx
        jae command
        movq table(, %rbx, 8), %rbp
        movl %ebx, %eax
        movl $2, %ecx
        call digits
        call blank
        // once: whatever it does, it goes on at 1
        movq %rsp, saved_stack
        movl $0xff, %r13d
        movl $1f, %r14d
        xorl %eax, %eax
        call *%rbp
1:      movq saved_stack, %rsp
        movq %rax, %r12
        call as_before
        movl %r13d, %eax
        movl $2, %ecx
        call digits
        call blank
        movq %r12, %rax
        movl $16, %ecx
        call digits
        call blank
        // many times, an exception each if it makes one
        movl $COUNT, %r12d
        movl $2f, %r14d
        rdtsc
        shlq $32, %rdx
        orq %rdx, %rax
        movq %rax, %r15
1:      movq %rsp, saved_stack
        call *%rbp
2:      movq saved_stack, %rsp
        decl %r12d
        jnz 1b
        rdtsc
        shlq $32, %rdx
        orq %rdx, %rax
        subq %r15, %rax
        movl $16, %ecx
        call digits
        call end_line
        call as_before
        jmp command

as_before:                              // flags, segments and control registers, whatever a probe has done to them
        pushq $2
        popfq
        movl $0x10, %ecx
        movl %ecx, %ds
        movl %ecx, %ss
        movl $0x80000033, %ecx
        movq %rcx, %cr0
        lidt idt_pointer
        ret

// --- the probes: each ends with ret; what it shows is in rax

nothing: ret
cli:    cli
        jmp flags
sti:    sti
        nop
        pushfq
        cli
        popq %rax
        ret
popfq:  pushq $0x202
        popfq                           // sets IF ...
        pushq $2
        popfq                           // ... and clears it
flags:  pushfq
        popq %rax
        ret
pushfq: pushfq
        popq %rax
        ret
sgdt:   sgdt scratch
        movq scratch + 2, %rax
        ret
sidt:   sidt scratch
        movq scratch + 2, %rax
        ret
str:    xorl %eax, %eax
        str %ax
        ret
lgdt:   lgdt gdt_pointer
        ret
lidt:   lidt idt_pointer
        ret
smsw:   smsw %rax
        ret
read_cr0:
        movq %cr0, %rax
        ret
write_cr0:
        movl $0x8000003b, %eax          // with TS
        movq %rax, %cr0
        clts
        ret
read_cr3:
        movq %cr3, %rax
        ret
write_cr3:
        movq %cr3, %rax
        movq %rax, %cr3
        ret
read_cr4:
        movq %cr4, %rax
        ret
read_cs:
        xorl %eax, %eax
        movl %cs, %eax
        ret
lar:    movl $0x10, %eax
        larl %eax, %eax
        ret
iretq:  movq %rsp, %rax
        pushq $0x10
        pushq %rax
        pushq $2
        pushq $8
        pushq $flags
        iretq
syscall:
        syscall
syscalled:
        movl $1, %eax
        ret
int3:   int3
        ret
invlpg: invlpg 0x600000
        ret
wbinvd: wbinvd
        ret
in_port:
        xorl %eax, %eax
        inb $0x71, %al
        ret
out_port:
        movb $0x0f, %al
        outb %al, $0x70
        ret
rdmsr:  movl $0xc0000080, %ecx
        rdmsr
        ret
wrmsr:  movl $0xc0000082, %ecx
        movl $syscalled, %eax
        xorl %edx, %edx
        wrmsr
        ret
rdtsc:  rdtsc
        ret
cpuid:  pushq %rbx
        movl $1, %eax
        cpuid
        popq %rbx
        ret
update: xorq $0x1000, l1                // the page at 6 MiB shows another frame: a store, and the old translation goes
        invlpg 0x600000
        movl l1, %eax
        ret
update_table:                           // it shows the table itself, writable, and is used to write it
        movq $l1 + 3, l1
        invlpg 0x600000
        movq $0x100003, 0x600000
        invlpg 0x600000
        movl l1, %eax
        ret

        .balign 8
table:  .quad nothing, cli, sti, popfq, pushfq, sgdt, sidt, str, lgdt, lidt, smsw, read_cr0, write_cr0, read_cr3
        .quad write_cr3, read_cr4, read_cs, lar, iretq, syscall, int3, invlpg, wbinvd, in_port, out_port, rdmsr
        .quad wrmsr, rdtsc, cpuid, update, update_table
table_end:

// --- exceptions: the vector to r13, and on at r14

        .balign 16
gates:
        .set vector, 0
        .rept 256
        .balign 16
        pushq $vector
        jmp caught
        .set vector, vector + 1
        .endr
caught: movq (%rsp), %r13
        movq saved_stack, %rsp
        jmp *%r14

// --- the serial port

get:    movw $(PORT + 5), %dx
1:      inb %dx, %al
        testb $1, %al
        jz 1b
        movw $PORT, %dx
        inb %dx, %al
        ret
put:    movb %al, %ah
        movw $(PORT + 5), %dx
1:      inb %dx, %al
        testb $0x20, %al
        jz 1b
        movb %ah, %al
        movw $PORT, %dx
        outb %al, %dx
        ret
print:  lodsb
        testb %al, %al
        jz 1f
        call put
        jmp print
1:      ret
blank:  movb $' ', %al
        jmp put
end_line:
        movb $'\r', %al
        call put
        movb $'\n', %al
        jmp put
get_digit:
        call get
        subb $'0', %al
        cmpb $10, %al
        jb 1f
        subb $('a' - '0' - 10), %al
1:      andl $15, %eax
        ret
digits: movq %rax, %rdi                 // the lowest ecx digits of rax
1:      leal -4(, %rcx, 4), %edx
        movq %rdi, %rax
        xchgl %ecx, %edx
        shrq %cl, %rax
        xchgl %ecx, %edx
        andl $15, %eax
        movb letters(%rax), %al
        call put
        decl %ecx
        jnz 1b
        ret

letters: .ascii "0123456789abcdef"
hello:  .asciz "full: ready\r\n"

        .balign 8
gdt:    .quad 0, 0x00209b0000000000, 0x00cf93000000ffff
        .quad 0x0000890000000067 | (0x00 << 16), 0
gdt_pointer:
        .word 39
        .quad gdt
idt_pointer:
        .word 4095
        .quad idt
