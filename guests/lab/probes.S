/* SPDX-License-Identifier: Apache-2.0 */
# Instructions that `domzero lab instructions` runs one at a time, in each ring, natively and as a PV guest.
# Before each: rdi = a page of scratch memory (its own contents below), rsp = a stack in it, rax, rcx, rdx as
# domzero/lab/probes.py says. A label per instruction; lab_scratch is filled by Python.
	.text
	.globl _start
_start:
pushfq:	pushfq
popfq:	popfq
cli:	cli
sti:	sti
sgdt:	sgdt	(%rdi)
sidt:	sidt	(%rdi)
sldt:	sldt	%rax
str:	str	%rax
lgdt:	lgdt	(%rdi)
lidt:	lidt	(%rdi)
lldt:	lldt	%ax
ltr:	ltr	%ax
smsw:	smsw	%rax
lmsw:	lmsw	%ax
clts:	clts
read_cr0: mov	%cr0, %rax
write_cr0: mov	%rax, %cr0
read_cr2: mov	%cr2, %rax
write_cr2: mov	%rax, %cr2
read_cr3: mov	%cr3, %rax
write_cr3: mov	%rax, %cr3
read_cr4: mov	%cr4, %rax
write_cr4: mov	%rax, %cr4
read_cr8: mov	%cr8, %rax
read_dr7: mov	%dr7, %rax
write_dr7: mov	%rax, %dr7
read_cs: mov	%cs, %eax
load_ds: mov	%eax, %ds
load_ss: mov	%eax, %ss
lar:	lar	%eax, %ecx
lsl:	lsl	%eax, %ecx
verr:	verr	%ax
verw:	verw	%ax
lret:	lretq
iretq:	iretq
syscall: syscall
sysretq: sysretq
int3:	int3
int80:	int	$0x80
swapgs:	swapgs
rdfsbase: rdfsbase %rax
wrfsbase: wrfsbase %rax
rdmsr:	rdmsr
wrmsr:	wrmsr
rdtsc:	rdtsc
rdpmc:	rdpmc
cpuid:	cpuid
invlpg:	invlpg	(%rdi)
wbinvd:	wbinvd
invd:	invd
clflush: clflush (%rdi)
in:	in	$0x71, %al
out:	out	%al, $0x70
hlt:	hlt
	.balign 4096, 0
