/* SPDX-License-Identifier: Apache-2.0 */
# The application again, as a 32-bit one.
	.text
	.globl _start
_start:
app_syscall:
	mov	$20, %eax		# getpid
	int	$0x80
app_after_syscall:
	mov	%eax, %ecx
app_fault:
	movl	$42, 0x500000
app_after_fault:
	mov	0x500000, %edx
app_end:
	nop
	.balign 4096, 0
