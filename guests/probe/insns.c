/*
 * Every sensitive instruction, in kernel and in user mode: what becomes of it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core.h"

#ifdef __x86_64__
#define AX "%rax"
#define SP "%rsp"
#define WIDE(a, b) a
#else
#define AX "%eax"
#define SP "%esp"
#define WIDE(a, b) b
#endif

/* name, text as printed and assembled; ax = pages[7], bx = pages[7], cx = 0, dx = 0x3f8 unless it says otherwise */
#define INSNS(X) \
    X(clts, "clts") X(cli, "cli") X(sti, "sti") X(hlt, "hlt") X(invd, "invd") X(wbinvd, "wbinvd") X(wbnoinvd, ".byte 0xf3,0x0f,0x09") \
    X(lgdt, "lgdt (" AX ")") X(lidt, "lidt (" AX ")") X(sgdt, "sgdt (" AX ")") X(sidt, "sidt (" AX ")") \
    X(lldt, "xor %ecx, %ecx\n lldt %cx") X(ltr, "mov $0xe040, %ecx\n ltr %cx") X(sldt, "sldt %cx") X(str, "str %cx") \
    X(smsw, "smsw %ecx") X(lmsw, "smsw %ecx\n lmsw %cx") X(invlpg, "invlpg (" AX ")") X(invlpg_xen, "invlpg (" AX ")") \
    X(rdtsc, "rdtsc") X(rdtscp, "rdtscp") X(rdpmc, "rdpmc") X(rdpmc_fixed, "mov $0x40000000, %ecx\n rdpmc") \
    X(monitor, "monitor") X(mwait, "mwait") X(monitorx, ".byte 0x0f,0x01,0xfa") X(mwaitx, ".byte 0x0f,0x01,0xfb") \
    X(xgetbv, "xgetbv") X(xsetbv, "xgetbv\n xsetbv") X(xsetbv_0, "xor %eax,%eax\n xor %edx,%edx\n xsetbv") \
    X(xsetbv_1, "mov $1,%ecx\n xor %edx,%edx\n mov $7,%eax\n xsetbv") \
    X(stac, "stac") X(clac, "clac") X(vmcall, "vmcall") X(vmmcall, "vmmcall") X(vmlaunch, "vmlaunch") X(vmxoff, "vmxoff") \
    X(vmrun, "vmrun") X(vmload, "vmload") X(vmsave, "vmsave") X(stgi, "stgi") X(clgi, "clgi") X(skinit, "skinit") X(invlpga, "invlpga") \
    X(rsm, "rsm") X(getsec, "getsec") X(sysret, "sysret") X(sysexit, "sysexit") X(encls, ".byte 0x0f,0x01,0xcf") X(pconfig, ".byte 0x0f,0x01,0xc5") \
    X(in_al, "in $0x80, %al") X(in_ax, "in $0x70, %ax") X(in_dx, "in %dx, %eax") X(out_al, "out %al, $0x80") X(out_dx, "out %al, %dx") \
    X(insb, "mov " AX ", " WIDE("%rdi", "%edi") "\n insb") X(outsb, "mov " AX ", " WIDE("%rsi", "%esi") "\n outsb") \
    X(in_pci, "mov $0xcf8, %edx\n in %dx, %eax") X(in_cmos, "in $0x71, %al") \
    X(icebp, ".byte 0xf1") X(int3, "int3") X(int3_long, ".byte 0xcd,3") X(int1_long, ".byte 0xcd,1") X(int4, "int $4") X(int5, "int $5") \
    X(int20, "int $0x20") X(int80, "int $0x80") X(int2, "int $2") X(int8, "int $8") X(int13, "int $13") X(int14, "int $14") X(int81, "int $0x81") \
    X(int255, "int $0xff") X(ud0, ".byte 0x0f,0xff,0xc0") X(ud1, ".byte 0x0f,0xb9,0xc0") X(ud2, "ud2\n nop") \
    X(ud2_cut, "ud2\n .ascii \"xe\"\n nop") X(fep_nop, "ud2a\n .ascii \"xen\"\n nop") X(fep_rdtsc, "ud2a\n .ascii \"xen\"\n rdtsc") \
    X(lock_nop, ".byte 0xf0,0x90") X(lock_mov, ".byte 0xf0,0x89,0xc0") \
    X(mov_from_cr0, "mov %cr0, " AX) X(mov_from_cr1, ".byte 0x0f,0x20,0xc8") X(mov_from_cr2, "mov %cr2, " AX) X(mov_from_cr3, "mov %cr3, " AX) \
    X(mov_from_cr4, "mov %cr4, " AX) X(mov_from_cr5, ".byte 0x0f,0x20,0xe8") X(mov_from_cr8, WIDE("mov %cr8, %rax", ".byte 0xf0,0x0f,0x20,0xc0")) \
    X(mov_to_cr0_same, "mov %cr0, " AX "\n mov " AX ", %cr0") X(mov_to_cr0_ts, "mov %cr0, " AX "\n or $8, %eax\n mov " AX ", %cr0\n clts") \
    X(mov_to_cr0_wp, "mov %cr0, " AX "\n xor $0x10000, %eax\n mov " AX ", %cr0") \
    X(mov_to_cr1, ".byte 0x0f,0x22,0xc8") X(mov_to_cr2_0, "xor %eax,%eax\n mov " AX ", %cr2") X(mov_to_cr3_same, "mov %cr3, " AX "\n mov " AX ", %cr3") \
    X(mov_to_cr3_0, "xor %eax,%eax\n mov " AX ", %cr3") X(mov_to_cr4_same, "mov %cr4, " AX "\n mov " AX ", %cr4") \
    X(mov_to_cr4_0, "xor %eax,%eax\n mov " AX ", %cr4") X(mov_to_cr4_tsd, "mov %cr4, " AX "\n xor $4, %eax\n mov " AX ", %cr4") \
    X(mov_to_cr8, WIDE("xor %eax,%eax\n mov %rax, %cr8", "ud2\n nop")) \
    X(mov_from_dr0, "mov %dr0, " AX) X(mov_from_dr4, "mov %dr4, " AX) X(mov_from_dr5, "mov %dr5, " AX) X(mov_from_dr6, "mov %dr6, " AX) \
    X(mov_from_dr7, "mov %dr7, " AX) X(mov_to_dr0_0, "xor %eax,%eax\n mov " AX ", %dr0") X(mov_to_dr4_0, "xor %eax,%eax\n mov " AX ", %dr4") \
    X(mov_to_dr6_0, "xor %eax,%eax\n mov " AX ", %dr6") X(mov_to_dr7_0, "xor %eax,%eax\n mov " AX ", %dr7") \
    X(mov_to_dr7_gd, "mov $0x2000, %eax\n mov " AX ", %dr7") X(mov_to_dr0_xen, WIDE("movabs $0xffff830000000000, %rax\n", "mov $0xff000000, %eax\n") "mov " AX ", %dr0") \
    X(step, "pushf\n or" WIDE("q", "l") " $0x100, (" SP ")\n popf\n nop\n nop") X(popf_all, "pushf\n or" WIDE("q", "l") " $0x3000, (" SP ")\n popf\n pushf\n pop " AX) \
    X(popf_clear_if, "pushf\n and" WIDE("q", "l") " $~0x200, (" SP ")\n popf\n pushf\n pop " AX) X(popf_nt, "pushf\n or" WIDE("q", "l") " $0x4000, (" SP ")\n popf\n pushf\n pop " AX) \
    X(popf_ac, "pushf\n or" WIDE("q", "l") " $0x40000, (" SP ")\n popf\n mov 1(%" WIDE("rbx", "ebx") "), %eax") \
    X(div_zero, "xor %ecx,%ecx\n div %ecx") X(load_null, "xor %eax,%eax\n mov (" AX "), %eax") X(store_null, "xor %eax,%eax\n mov %eax, (" AX ")") \
    X(jump_null, "xor %eax,%eax\n jmp *" AX) X(load_xen, WIDE("movabs $0xffff830000000000, %rax\n", "mov $0xff000000, %eax\n") "mov (" AX "), %eax") \
    X(store_xen, WIDE("movabs $0xffff830000000000, %rax\n", "mov $0xff000000, %eax\n") "mov %eax, (" AX ")") \
    X(load_m2p, WIDE("movabs $0xffff800000000000, %rax\n", "mov $0xf5800000, %eax\n") "mov (" AX "), %eax") \
    X(store_m2p, WIDE("movabs $0xffff800000000000, %rax\n", "mov $0xf5800000, %eax\n") "mov %eax, (" AX ")") \
    X(jump_m2p, WIDE("movabs $0xffff800000000000, %rax\n", "mov $0xf5800000, %eax\n") "jmp *" AX) \
    X(load_noncanonical, WIDE("movabs $0x8000000000000000, %rax\n", "mov $0xfffff000, %eax\n") "mov (" AX "), %eax") \
    X(push_noncanonical, WIDE("movabs $0x8000000000000000, %rsp\n push %rax", "mov $0xfffff000, %eax\n push (%eax)")) \
    X(jump_noncanonical, WIDE("movabs $0x8000000000000000, %rax\n", "mov $0xfffff000, %eax\n") "jmp *" AX) \
    X(load_gdt_area, WIDE("movabs $0xffff82d080000000, %rax\n", "mov $0xfc000000, %eax\n") "mov (" AX "), %eax") \
    X(fninit, "fninit") X(fwait, "fwait") X(movaps_odd, "movaps 1(" AX "), %xmm0") X(emms, "emms") X(fxsave_odd, "fxsave 1(" AX ")") \
    X(cpuid, "mov $0x40000000, %eax\n cpuid") X(rdpid, WIDE(".byte 0xf3,0x0f,0xc7,0xf8", ".byte 0xf3,0x0f,0xc7,0xf8")) \
    X(invpcid, "invpcid (" AX "), %" WIDE("rcx", "ecx")) X(rdpkru, ".byte 0x0f,0x01,0xee") X(xsaves, ".byte 0x0f,0xc7,0x28") \
    X(clflush_null, "xor %eax,%eax\n clflush (" AX ")") X(bad_opcode_37, ".byte 0x0f,0x3f") X(salc, ".byte 0xd6") \
    X(iret_native, WIDE("push $0xe02b\n push %rsp\n pushf\n push $0xe033\n lea 1f(%rip), %rax\n push %rax\n iretq\n1:", \
                        "pushf\n push %cs\n push $1f\n iret\n1:")) \
    X(lret_same, WIDE("push $0xe033\n lea 1f(%rip), %rax\n push %rax\n lretq\n1:", "push %cs\n push $1f\n lret\n1:")) \
    X(into, WIDE("ud2\n nop", "mov $0x7fffffff, %eax\n add $1, %eax\n into")) \
    X(bound, WIDE("ud2\n nop", "movl $0,(%ebx)\n movl $1,4(%ebx)\n mov $5,%eax\n bound %eax,(%ebx)")) \
    X(swapgs, WIDE("swapgs\n swapgs", "ud2\n nop")) X(rdfsbase, WIDE("rdfsbase %rax", "ud2\n nop")) X(wrfsbase, WIDE("rdfsbase %rax\n wrfsbase %rax", "ud2\n nop")) \
    X(rdgsbase, WIDE("rdgsbase %rax", "ud2\n nop")) X(wrfsbase_bad, WIDE("movabs $0x8000000000000000, %rax\n wrfsbase %rax", "ud2\n nop")) \
    X(syscall_user, WIDE("nop", "syscall")) X(sysenter, "sysenter") X(int82, WIDE("int $0x82", "nop"))

#define DEFINE(name, text) SNIPPET(insn_##name, text);
INSNS(DEFINE)
#define ENTRY(name, text) {#name, insn_##name},
static const struct {
    const char *name;
    const char *code;
} insns[] = {INSNS(ENTRY)};

SNIPPET(user_hypercall, WIDE("mov $17, %eax\n xor %edi, %edi\n syscall", "mov $17, %eax\n xor %ebx, %ebx\n int $0x82"));
SNIPPET(load_from, "mov (%" WIDE("rbx", "ebx") "), %eax");
SNIPPET(store_to, "mov %eax, (%" WIDE("rbx", "ebx") ")");
SNIPPET(jump_to, "jmp *%" WIDE("rbx", "ebx"));

static int word_is(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static int spared(const char *name, enum mode mode)
{
    return mode == KERNEL && (word_is(name, "hlt") || word_is(name, "sysenter") || word_is(name, "syscall_user") || word_is(name, "mov_to_cr3_0") || word_is(name, "push_noncanonical") || word_is(name, "mwait"));
}

static void faults(void)
{
    static const struct {
        const char *name;
        u64 bits;
    } maps[] = {{"none", 0}, {"present", 0x21}, {"user", 0x25}, {"writable", 0x23}, {"user writable", 0x67}, {"user writable nx", 0x8000000000000067ull},
                {"user nx", 0x8000000000000025ull}, {"global", 0x125}, {"pwt", 0x2d}, {"pcd", 0x35}, {"pat", 0xa5}};
    for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++) {
        ((u32 *)pages[8])[0] = 0x0b0f; /* ud2 */
        ((u32 *)pages[8])[1] = 0;
        *(u32 *)(pages[8] + 2) = 0x600dc0de;
        say("map %s ", maps[i].name);
        rc_text(map_page(pages[8], maps[i].bits ? pte_of(pages[8], maps[i].bits) : 0, UVMF_INVLPG));
        for (enum mode mode = KERNEL; mode <= USER; mode++) {
            static const char *const names[] = {"kernel", "user"};
            attempt(mode, load_from, 0, 0, 0, (ulong)pages[8]);
            say("%s load from page mapped %s ", names[mode], maps[i].name);
            what_happened();
            if (seen.vector == 14)
                say("... address right = %ld\n", (long)(seen.cr2 == (ulong)pages[8]));
            attempt(mode, store_to, 0x600d0b0f, 0, 0, (ulong)pages[8]);
            say("%s store to page mapped %s ", names[mode], maps[i].name);
            what_happened();
            attempt(mode, jump_to, 0, 0, 0, (ulong)pages[8]);
            say("%s jump to page mapped %s ", names[mode], maps[i].name);
            what_happened();
        }
        map_page(pages[8], pte_of(pages[8], 0x67), UVMF_INVLPG);
    }
}

void probe_insns(void)
{
    static const char *const modes[] = {"kernel", "user"};
    for (enum mode mode = KERNEL; mode <= USER; mode++)
        for (size_t i = 0; i < sizeof(insns) / sizeof(insns[0]); i++) {
            if (spared(insns[i].name, mode))
                continue;
            shared->vcpu_info[0].evtchn_upcall_mask = 1;
            ulong address = word_is(insns[i].name, "invlpg_xen") ? XEN_PRIVATE : (ulong)pages[7];
            attempt(mode, insns[i].code, address, 0, 0x3f8, (ulong)pages[7]);
            say("%s %s ", modes[mode], insns[i].name);
            what_happened();
            if (seen.vector >= 0 && seen.ip != (ulong)insns[i].code && seen.ip - (ulong)insns[i].code < 64)
                say("... ip + %ld\n", (long)(seen.ip - (ulong)insns[i].code));
            if (seen.vector == 1)
                say("... dr6 %lx\n", (ulong)HC1(get_debugreg, 6));
            if (seen.vector == 14)
                say("... cr2 in page = %ld\n", (long)(seen.cr2 % PAGE));
            if (insns[i].name[0] == 'p' && insns[i].name[3] == 'f' && seen.vector < 0)
                say("... flags now %lx\n", seen.regs[0] & 0x7ff00);
            if (word_is(insns[i].name, "mov_from_cr0") || word_is(insns[i].name, "mov_from_cr4") || word_is(insns[i].name, "mov_from_dr7") || word_is(insns[i].name, "mov_from_dr6"))
                say("... %lx\n", seen.vector < 0 ? seen.regs[0] : 0ul);
            if (word_is(insns[i].name, "smsw") || word_is(insns[i].name, "sldt") || word_is(insns[i].name, "str"))
                say("... %lx\n", seen.vector < 0 ? seen.regs[2] : 0ul);
            say("... frame cs %lx flags %lx\n", seen.cs, seen.flags & ~0x108d5ul);
            HC2(set_debugreg, 6, 0);
            HC2(set_debugreg, 7, 0);
            HC1(fpu_taskswitch, 0);
            setup();
        }
    attempt(USER, user_hypercall, 0, 0, 0, 0);
    say("hypercall instruction in user mode ");
    what_happened();
    say("... frame cs %lx ss %lx flags %lx\n", seen.cs, seen.ss, seen.flags & ~0x108d5ul);
    HC1(fpu_taskswitch, 1);
    for (enum mode mode = KERNEL; mode <= USER; mode++)
        for (size_t i = 0; i < sizeof(insns) / sizeof(insns[0]); i++)
            if (word_is(insns[i].name, "fninit") || word_is(insns[i].name, "fwait") || word_is(insns[i].name, "emms") || word_is(insns[i].name, "movaps_odd")) {
                HC1(fpu_taskswitch, 1);
                attempt(mode, insns[i].code, (ulong)pages[7], 0, 0, 0);
                say("%s %s with TS ", modes[mode], insns[i].name);
                what_happened();
                HC1(fpu_taskswitch, 1);
            }
    HC1(fpu_taskswitch, 0);
    faults();
}
