/*
 * Selectors: which can be loaded, what lar and lsl say of them, and far branches.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core.h"

#ifdef __x86_64__
#define WIDE(a, b) a
#else
#define WIDE(a, b) b
#endif
SNIPPET(load_ds, "mov %eax, %ds");
SNIPPET(load_es, "mov %eax, %es");
SNIPPET(load_fs, "mov %eax, %fs");
SNIPPET(load_gs, "mov %eax, %gs");
SNIPPET(load_ss, "mov %eax, %ss");
SNIPPET(far_jump, WIDE("push %rax\n movw %ax, 4(%rsp)\n lea 1f(%rip), %ecx\n movl %ecx, (%rsp)\n ljmpl *(%rsp)\n1:",
                       "sub $8, %esp\n movw %ax, 4(%esp)\n movl $1f, (%esp)\n ljmp *(%esp)\n1:"));
SNIPPET(far_return, WIDE("push %rax\n lea 1f(%rip), %rcx\n push %rcx\n lretq\n1:", "push %eax\n push $1f\n lret\n1:"));
SNIPPET(do_lar, "xor %ecx,%ecx\n mov %ax, %dx\n lar %edx, %ecx\n pushf\n pop %" WIDE("rax", "eax"));
SNIPPET(do_lsl, "xor %ecx,%ecx\n mov %ax, %dx\n lsl %edx, %ecx\n pushf\n pop %" WIDE("rax", "eax"));
SNIPPET(do_verr, "verr %ax\n pushf\n pop %" WIDE("rax", "eax"));
SNIPPET(do_verw, "verw %ax\n pushf\n pop %" WIDE("rax", "eax"));
SNIPPET(read_segments, "mov %cs, %eax\n mov %ss, %ecx\n mov %ds, %edx\n mov %es, %ebx\n mov %fs, %esi\n mov %gs, %edi");

static const struct {
    const char *name;
    const char *code;
} loads[] = {{"ds", load_ds}, {"es", load_es}, {"fs", load_fs}, {"gs", load_gs}, {"ss", load_ss}, {"far jump", far_jump}, {"far return", far_return}};

static const u16 selectors[] = {0, 1, 2, 3, 4, 7, 8, 0xb, 0x10, 0x13, 0x20, 0x23, 0x28, 0x2b, 0xdff8, 0xe000, 0xe001, 0xe003,
                                0xe008, 0xe00b, 0xe010, 0xe013, 0xe019, 0xe01b, 0xe020, 0xe021, 0xe023, 0xe028, 0xe029, 0xe02b,
                                0xe02e, 0xe030, 0xe031, 0xe033, 0xe038, 0xe03b, 0xe040, 0xe043, 0xe048, 0xe04b, 0xe058, 0xe060,
                                0xfff8, 0xffff};

/* A 64-bit kernel that goes to compatibility mode keeps but half of its stack pointer, perhaps. */
static int is_narrow_code(u16 selector)
{
    attempt(KERNEL, do_lar, selector, 0, 0, 0);
    return WIDTH == 64 && seen.vector < 0 && (seen.regs[0] >> 6 & 1) && (seen.regs[2] & 0x201800) == 0x1800;
}

static void one(enum mode mode, const char *mode_name, u16 selector)
{
    for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
        if (loads[i].code == far_return && mode == KERNEL && is_narrow_code(selector))
            continue;
        attempt(mode, loads[i].code, selector, 0, 0, 0);
        say("%s %s %lx ", mode_name, loads[i].name, (ulong)selector);
        what_happened();
    }
    static const struct {
        const char *name;
        const char *code;
    } asks[] = {{"lar", do_lar}, {"lsl", do_lsl}, {"verr", do_verr}, {"verw", do_verw}};
    for (size_t i = 0; i < 4; i++) {
        attempt(mode, asks[i].code, selector, 0, 0, 0);
        int zf = (int)(seen.regs[0] >> 6 & 1);
        if (seen.vector >= 0) {
            say("%s %s %lx ", mode_name, asks[i].name, (ulong)selector);
            what_happened();
        } else {
            say("%s %s %lx zf %ld value %lx\n", mode_name, asks[i].name, (ulong)selector, (long)zf, zf ? (i == 0 ? seen.regs[2] & 0xf0ff00 : i == 1 ? seen.regs[2] : 0) : 0);
        }
    }
}

static void tables(void)
{
    static const struct {
        const char *name;
        u64 value;
    } entries[] = {{"null", 0}, {"data dpl 3", 0x00cff3000000ffff}, {"code dpl 3", 0x00cffb000000ffff}, {"code64 dpl 3", 0x00affb000000ffff},
                   {"data dpl 1", 0x00cfb3000000ffff}, {"code dpl 1", 0x00cfbb000000ffff}, {"not present data", 0x00cf73000000ffff},
                   {"not present code", 0x00cf7b000000ffff}, {"read-only", 0x00cff1000000ffff}, {"execute-only", 0x00cff9000000ffff},
                   {"expand-down", 0x00cff7000000ffff}, {"conforming dpl 3", 0x00cfff000000ffff}, {"16-bit data", 0x008ff3000000ffff},
                   {"16-bit code", 0x008ffb000000ffff}, {"not accessed", 0x00cff2000000ffff}, {"limit 0", 0x0040f30000000000}};
    u64 *table = (u64 *)pages[9];
    ulong frame = mfn_of(pages[9]);
    const int count = sizeof(entries) / sizeof(entries[0]);
    for (int i = 0; i < 512; i++)
        table[i] = i < count ? entries[i].value : 0;
    map_page(pages[9], pte_of(pages[9], 0x25), UVMF_INVLPG);
    say("set_gdt for selectors ");
    rc_text(HC2(set_gdt, &frame, 512));
    for (int i = 1; i < count; i++)
        for (enum mode mode = KERNEL; mode <= USER; mode++)
            for (u16 rpl = 0; rpl < 4; rpl += (u16)(rpl ? 2 : 1)) {
                say("-- gdt %s rpl %ld\n", entries[i].name, (long)rpl);
                one(mode, mode ? "user" : "kernel", (u16)(i * 8 + rpl));
            }
    say("accessed bit set by a load = %lx\n", (ulong)(table[14] >> 32));
    HC2(set_gdt, 0, 0);
    struct mmuext_op op = {.cmd = MMUEXT_SET_LDT, .arg1.linear_addr = (ulong)pages[9], .arg2.nr_ents = (unsigned int)count};
    say("set_ldt ");
    rc_text(HC4(mmuext_op, &op, 1, 0, DOMID_SELF));
    for (int i = 0; i < count + 1; i++) {
        say("-- ldt %s\n", i < count ? entries[i].name : "beyond");
        one(KERNEL, "kernel", (u16)(i * 8 + 7));
        one(USER, "user", (u16)(i * 8 + 7));
    }
    op.arg1.linear_addr = UNMAPPED;
    say("set_ldt unmapped ");
    rc_text(HC4(mmuext_op, &op, 1, 0, DOMID_SELF));
    attempt(KERNEL, load_es, 0xf, 0, 0, 0);
    say("selector of an unmapped ldt ");
    what_happened();
    say("... cr2 = %lx\n", seen.vector == 14 ? seen.cr2 : 0ul);
    op.arg1.linear_addr = (ulong)pages[10];
    ((u64 *)pages[10])[1] = 0x00cff3000000ffff;
    say("set_ldt writable ");
    rc_text(HC4(mmuext_op, &op, 1, 0, DOMID_SELF));
    attempt(KERNEL, load_es, 0xf, 0, 0, 0);
    say("selector of a writable ldt ");
    what_happened();
    map_page(pages[10], pte_of(pages[10], 0x25), UVMF_INVLPG);
    HC4(mmuext_op, &op, 1, 0, DOMID_SELF);
    ((void)0);
    op.arg2.nr_ents = 8193;
    say("set_ldt 8193 entries ");
    rc_text(HC4(mmuext_op, &op, 1, 0, DOMID_SELF));
    op.arg2.nr_ents = 2;
    op.arg1.linear_addr = (ulong)pages[10] + 8;
    say("set_ldt unaligned ");
    rc_text(HC4(mmuext_op, &op, 1, 0, DOMID_SELF));
    op.arg1.linear_addr = XEN_PRIVATE;
    say("set_ldt in Xen ");
    rc_text(HC4(mmuext_op, &op, 1, 0, DOMID_SELF));
    op.arg1.linear_addr = 0;
    op.arg2.nr_ents = 0;
    say("set_ldt none ");
    rc_text(HC4(mmuext_op, &op, 1, 0, DOMID_SELF));
    map_page(pages[9], pte_of(pages[9], 0x67), UVMF_INVLPG);
    map_page(pages[10], pte_of(pages[10], 0x67), UVMF_INVLPG);
}

void probe_segments(void)
{
    for (enum mode mode = KERNEL; mode <= USER; mode++) {
        attempt(mode, read_segments, 0, 0, 0, 0);
        say("%s selectors cs %lx ss %lx\n", mode ? "user" : "kernel", seen.regs[0], seen.regs[2]);
        for (size_t i = 0; i < sizeof(selectors) / sizeof(selectors[0]); i++)
            one(mode, mode ? "user" : "kernel", selectors[i]);
    }
    tables();
}
