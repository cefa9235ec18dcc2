/* SPDX-License-Identifier: Apache-2.0 */
# An application, in ring 3: one system call, one access to a page that is not there. The same under both kernels.
	.text
	.globl _start
_start:
app_syscall:
	mov	$39, %eax		# getpid
	syscall
app_after_syscall:
	mov	%rax, %rbx
app_fault:
	movq	$42, 0x500000
app_after_fault:
	mov	0x500000, %rdx
app_end:
	nop
	.balign 4096, 0
