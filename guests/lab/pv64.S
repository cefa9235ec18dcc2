/* SPDX-License-Identifier: Apache-2.0 */
# The PV kernel of `domzero lab`: what one has instead of a kernel's hardware. Runs on real Xen, too, as far as it goes:
# Python sets the registers before the pieces below, and the page tables that they work on.
	.text
	.globl _start
_start:
	ud2

# --- pieces of the page-table lesson: a plain store into a page table, and a hypercall
store:	mov	%rax, (%rdi)
store_done:
	nop
hypercall: syscall
hypercall_done:
	nop

# --- where the hypervisor enters for a system call of an application. On the stack: rcx, r11, then what a fault has:
# rip, cs, rflags, rsp, ss.
syscall_entry:
	pop	%rcx
	pop	%r11
	cmp	$39, %eax		# getpid, the only one there is
	jne	1f
	mov	$4711, %eax
	jmp	2f
1:	mov	$-38, %rax		# -ENOSYS
2:	push	$0x100			# flags of struct iret_context: VGCF_in_syscall
	push	%rcx
	push	%r11
	push	%rax
	mov	$23, %eax		# __HYPERVISOR_iret
	syscall

# --- where the hypervisor enters for a page fault: rcx, r11, error code, rip, cs, rflags, rsp, ss. The page is there
# already (Python says which: r12 = machine address of the entry, r13 = what belongs into it); it is only not mapped.
page_fault:
	pop	%rcx
	pop	%r11
	add	$8, %rsp		# the error code
	push	$0			# flags of struct iret_context
	push	%rcx
	push	%r11
	push	%rax
	push	%rdi
	push	%rsi
	push	%rdx
	push	%r10
	mov	shared_info+16(%rip), %rax	# vcpu_info[0].arch.cr2: where the fault was
	push	%r13			# struct mmu_update: ptr, val
	push	%r12
	mov	%rsp, %rdi
	mov	$1, %esi
	xor	%edx, %edx
	mov	$0x7ff0, %r10d		# DOMID_SELF
	mov	$1, %eax		# __HYPERVISOR_mmu_update
	syscall
	add	$16, %rsp
	pop	%r10
	pop	%rdx
	pop	%rsi
	pop	%rdi
	mov	$23, %eax		# __HYPERVISOR_iret: takes rax, r11, rcx and flags off the stack itself
	syscall

# Becomes the shared_info page: Python has it mapped here.
	.balign 4096, 0
shared_info:
	.fill	512, 8, 0
# A page to make a page table of, and one to map.
table_page:
	.fill	512, 8, 0
data_page:
	.fill	512, 8, 0
kernel_stack:
	.fill	512, 8, 0
kernel_stack_top:
	.fill	512, 8, 0
arguments:
	.fill	512, 8, 0
