/* SPDX-License-Identifier: Apache-2.0 */
# A kernel that was not ported: what it does is what kernels do on a PC, and all of it works on the bare machine.
# `domzero lab unported` runs it there and as a PV guest, step by step. Its serial port says how far it came.
	.set	COM1, 0x3f8
	.set	STACK_TOP, stack_top
	.text
	.globl _start
_start:
tables:
	cli				# nothing may interrupt until the tables are there
	lea	STACK_TOP(%rip), %rsp
	lgdt	gdt_register(%rip)	# its own segments
	lidt	idt_register(%rip)	# its own handlers
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	$0x40, %eax
	ltr	%ax
	sgdt	seen(%rip)		# a kernel that checks
	mov	seen+2(%rip), %rax
	lea	gdt(%rip), %rdx
	cmp	%rdx, %rax
	mov	$'g', %eax
	jne	complain
	mov	%cs, %eax		# and looks which ring it is in
	and	$3, %eax
	mov	$'r', %eax
	jne	complain

# a critical section, as spin_lock_irqsave makes one
critical:
	sti
	pushfq				# remember whether interrupts were on
	cli
	pushfq
	pop	%rax
	test	$0x200, %eax		# they must be off now
	mov	$'i', %eax
	jne	complain
	popfq				# and on again
	pushfq				# off once more, without cli
	andq	$~0x200, (%rsp)
	popfq
	pushfq
	pop	%rax
	test	$0x200, %eax		# they must be off now
	mov	$'f', %eax
	jne	complain
	sti
	pushfq
	pop	%rax
	test	$0x200, %eax
	mov	$'p', %eax
	je	complain

# system calls come in through an MSR
	mov	$0xc0000081, %ecx	# STAR
	xor	%eax, %eax
	mov	$0x00180008, %edx
	wrmsr
	mov	$0xc0000082, %ecx	# LSTAR
	lea	native_syscall(%rip), %rax
	mov	%rax, %rdx
	shr	$32, %rdx
	wrmsr

# a page-table entry: the last page of the kernel is made read-only and flushed
paging:
	mov	%cr3, %rax
	mov	%cr4, %rdx
	mov	entry_of_last_page(%rip), %rdi
	mov	(%rdi), %rax
	and	$~2, %rax
	mov	%rax, (%rdi)
	invlpg	last_page(%rip)

# says so on the serial port
say:	mov	$COM1, %edx
	mov	$'O', %al
	out	%al, %dx
	mov	$'K', %al
	out	%al, %dx
	mov	$'\n', %al
	out	%al, %dx
stop:	cli
	hlt

# prints what is wrong and stops
complain:
	mov	$COM1, %edx
	out	%al, %dx
	mov	$'!', %al
	out	%al, %dx
	jmp	stop

native_syscall:
	sysretq

	.balign 4096, 0
gdt:	.quad	0
	.quad	0x00af9b000000ffff	# 0x08: ring 0 code
	.quad	0x00cf93000000ffff	# 0x10: ring 0 data
	.quad	0x00cffb000000ffff	# 0x18: ring 3 code, 32-bit
	.quad	0x00cff3000000ffff	# 0x20: ring 3 data
	.quad	0x00affb000000ffff	# 0x28: ring 3 code
	.quad	0
	.quad	0
tss_descriptor:				# 0x40: filled in by Python, as it needs the address cut into pieces
	.quad	0, 0
gdt_end:
	.balign 8
seen:	.quad	0, 0
gdt_register:
	.word	gdt_end - gdt - 1
	.quad	gdt
	.balign 8
idt_register:
	.word	0xfff
	.quad	idt
	.balign 8
entry_of_last_page:
	.quad	0			# virtual address of the entry that maps it
	.balign 16
tss:	.fill	13, 8, 0
	.balign 4096, 0
idt:	.fill	512, 8, 0
stack:	.fill	512, 8, 0
stack_top:
last_page:
	.fill	512, 8, 0
