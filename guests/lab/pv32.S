/* SPDX-License-Identifier: Apache-2.0 */
# The 32-bit PV kernel of `domzero lab`, in ring 1: the pieces of pv64.S that differ. Its applications are in ring 3, and
# share its page tables.
	.text
	.globl _start
_start:
	ud2
store:	movl	%eax, (%edi)
store_done:
	nop
hypercall: int	$0x82
hypercall_done:
	nop

# --- int $0x80 of an application, by the trap table. On the stack: eip, cs, eflags, esp, ss.
syscall_entry:
	cmp	$20, %eax		# getpid, the only one there is
	jne	1f
	mov	$4711, %eax
	iret
1:	mov	$-38, %eax		# -ENOSYS
	iret

# --- a page fault: error code, then the same. edi = machine address of the entry, ebx = what belongs into it (Python says).
page_fault:
	add	$4, %esp		# the error code
	push	%eax
	push	%ecx
	push	%edx
	push	%esi
	push	%ebx
	mov	shared_info+16, %eax	# vcpu_info[0].arch.cr2: where the fault was
	push	$0			# struct mmu_update: ptr, val
	push	%ebx
	push	$0
	push	%edi
	mov	%esp, %ebx
	mov	$1, %ecx
	xor	%edx, %edx
	mov	$0x7ff0, %esi		# DOMID_SELF
	mov	$1, %eax		# __HYPERVISOR_mmu_update
	int	$0x82
	add	$16, %esp
	pop	%ebx
	pop	%esi
	pop	%edx
	pop	%ecx
	pop	%eax
	iret

	.balign 4096, 0
shared_info:
	.fill	1024, 4, 0
kernel_stack:
	.fill	1024, 4, 0
kernel_stack_top:
arguments:
	.fill	1024, 4, 0
