/* SPDX-License-Identifier: Apache-2.0 */
# The instructions of probes.S that 32-bit code has, with the same labels: what a 32-bit PV kernel meets in ring 1.
	.text
	.globl _start
_start:
pushfq:	pushf
popfq:	popf
cli:	cli
sti:	sti
sgdt:	sgdt	(%edi)
sidt:	sidt	(%edi)
sldt:	sldt	%eax
str:	str	%eax
lgdt:	lgdt	(%edi)
lidt:	lidt	(%edi)
lldt:	lldt	%ax
ltr:	ltr	%ax
smsw:	smsw	%eax
lmsw:	lmsw	%ax
clts:	clts
read_cr0: mov	%cr0, %eax
write_cr0: mov	%eax, %cr0
read_cr2: mov	%cr2, %eax
write_cr2: mov	%eax, %cr2
read_cr3: mov	%cr3, %eax
write_cr3: mov	%eax, %cr3
read_cr4: mov	%cr4, %eax
write_cr4: mov	%eax, %cr4
read_dr7: mov	%dr7, %eax
write_dr7: mov	%eax, %dr7
read_cs: mov	%cs, %eax
load_ds: mov	%eax, %ds
load_ss: mov	%eax, %ss
lar:	lar	%eax, %ecx
lsl:	lsl	%eax, %ecx
verr:	verr	%ax
verw:	verw	%ax
lret:	lret
iretq:	iret
int3:	int3
int80:	int	$0x80
rdmsr:	rdmsr
wrmsr:	wrmsr
rdtsc:	rdtsc
rdpmc:	rdpmc
cpuid:	cpuid
invlpg:	invlpg	(%edi)
wbinvd:	wbinvd
invd:	invd
clflush: clflush (%edi)
in:	in	$0x71, %al
out:	out	%al, $0x70
hlt:	hlt
	.balign 4096, 0
