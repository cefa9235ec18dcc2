/* SPDX-License-Identifier: Apache-2.0 */
# The PV kernel of `domzero lab full`: what a PV kernel does in the place of sensitive instructions, again and again. Python
# sets the registers, runs so many instructions, and reads from rbx how often it was done.
	.text
	.globl _start
_start:
	ud2
hypercall: syscall
	nop

# mmu_update of one entry, which alternates between two frames: r12 is what is different.
many_updates:
	lea	arguments(%rip), %rdi
	xor	%r12, 8(%rdi)
	mov	$1, %esi
	xor	%edx, %edx
	mov	$0x7ff0, %r10d		# DOMID_SELF
	mov	$1, %eax		# __HYPERVISOR_mmu_update
	syscall
	dec	%rbx
	jmp	many_updates

# The same by a plain store, which Xen emulates.
many_stores:
	xor	%r12, %rax
	mov	%rax, (%rdi)
	dec	%rbx
	jmp	many_stores

# In the place of cli: a byte of memory.
many_masks:
	movb	$1, (%rdi)
	dec	%rbx
	jmp	many_masks

# A privileged instruction, which Xen emulates.
many_cr0:
	mov	%cr0, %rax
	dec	%rbx
	jmp	many_cr0

# The smallest hypercall: xen_version.
many_calls:
	mov	$17, %eax
	xor	%edi, %edi
	syscall
	dec	%rbx
	jmp	many_calls

	.balign 4096, 0
shared_info:
	.fill	512, 8, 0
data_page:
	.fill	512, 8, 0
kernel_stack:
	.fill	512, 8, 0
kernel_stack_top:
	.fill	512, 8, 0
arguments:
	.fill	512, 8, 0
