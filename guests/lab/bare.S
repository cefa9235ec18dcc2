/* SPDX-License-Identifier: Apache-2.0 */
# The native kernel of the lessons on system calls, page faults and page tables: ring 0, no hypervisor.
	.text
	.globl _start
_start:
	ud2

# --- the page-table lesson: the entry is written, its translation thrown away
store:	mov	%rax, (%rdi)
	invlpg	(%rsi)
store_done:
	nop

# --- a system call: the processor has left the application's rsp, rip in rcx, rflags in r11, and changed no page table
syscall_entry:
	swapgs
	mov	%rsp, %gs:8		# the application's stack
	mov	%gs:0, %rsp		# the kernel's
	cmp	$39, %eax		# getpid, the only one there is
	jne	1f
	mov	$4711, %eax
	jmp	2f
1:	mov	$-38, %rax
2:	mov	%gs:8, %rsp
	swapgs
	sysretq

# --- a page fault: error code, rip, cs, rflags, rsp, ss on the stack that the TSS names. As in the PV kernel, Python
# says which entry to write (r12: its virtual address here), and what (r13).
page_fault:
	add	$8, %rsp
	push	%rax
	mov	%cr2, %rax
	mov	%r13, (%r12)
	invlpg	(%rax)
	pop	%rax
	iretq
	.balign 4096, 0
