/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores to a live L1 table from the guest kernel are emulated and validated, whatever instruction makes them, if it has
 * asked for that (VMASST_TYPE_writable_pagetables, which the framework asks for); without the assist, from user mode, unaligned, across entries, to higher tables, or of an entry that is not allowed, they are page faults.
 * Documented: Linux relies on it (vunmap writes plainly); VMASST_TYPE_writable_pagetables in xen/xen.h.
 */
#include "guest.h"

static pte_t *l1;
static pte_t wanted, other;

/* Each: entry in ARG, made from P to something else. The value is loaded from the variable. */
static volatile pte_t value asm("ptwr_value") USED, compare asm("ptwr_compare") USED;
#ifdef __x86_64__
ASM_FN(w_mov, "mov ptwr_value, %rax; mov %rax, (%rdi)");
ASM_FN(w_xchg, "mov ptwr_value, %rax; xchg %rax, (%rdi)");
ASM_FN(w_cmpxchg, "mov ptwr_compare, %rax; mov ptwr_value, %rdx; lock cmpxchg %rdx, (%rdi)");
ASM_FN(w_xadd, "mov ptwr_value, %rax; sub ptwr_compare, %rax; lock xadd %rax, (%rdi)");
ASM_FN(w_push, "mov %rsp, %rcx; lea 8(%rdi), %rsp; push ptwr_value; mov %rcx, %rsp");
ASM_FN(w_stos, "mov ptwr_value, %rax; stosq");
ASM_FN(w_rep_stos, "mov ptwr_value, %rax; mov $1, %ecx; rep stosq");
ASM_FN(w_movs, "push %rsi; mov $ptwr_value, %rsi; movsq; pop %rsi");
ASM_FN(w_pop, "push ptwr_value; popq (%rdi)");
ASM_FN(w_movnti, "mov ptwr_value, %rax; movnti %rax, (%rdi)");
#else
ASM_FN(w_mov, "push %ebx; mov %eax, %ebx; movl $0, (%ebx); mov ptwr_value+4, %eax; mov %eax, 4(%ebx); mov ptwr_value, %eax;"
              "mov %eax, (%ebx); pop %ebx");
ASM_FN(w_movs, "push %esi; push %edi; mov %eax, %edi; movl $0, (%edi); add $4, %edi; mov $ptwr_value+4, %esi; movsl;"
               "sub $8, %edi; mov $ptwr_value, %esi; movsl; pop %edi; pop %esi");
#endif
ASM_FN(w_cmpxchg8b, "push %" BX "; push %" SI "; mov %" ARG ", %" SI "; mov ptwr_compare, %eax; mov ptwr_compare+4, %edx;"
                    "mov ptwr_value, %ebx; mov ptwr_value+4, %ecx; lock cmpxchg8b (%" SI "); pop %" SI "; pop %" BX);
ASM_FN(w_byte, "andb $~2, (%" ARG ")");
ASM_FN(w_and, "lock andl $~2, (%" ARG ")");
ASM_FN(w_or, "lock orl $2, (%" ARG ")");
ASM_FN(w_btr, "lock btrl $1, (%" ARG ")");
ASM_FN(w_bts, "btsl $1, (%" ARG ")");
ASM_FN(w_word, "orw $0x200, (%" ARG ")");
ASM_FN(w_inc, "addl $0x400, (%" ARG ")");
ASM_FN(w_clear, "movl $0, (%" ARG "); movl $0, 4(%" ARG ")");
ASM_FN(w_unaligned, "mov $0, %ecx; mov %ecx, 3(%" ARG ")");
ASM_FN(w_plain, "movl $0x77, (%" ARG ")");
#define LOW (P | RW | A | D | US)

static void whole(ulong (*fn)(ulong), const char *what)
{
    struct trap t;
    update_va(SCRATCH_VA, wanted, UVMF_INVLPG);
    compare = l1[0];
    value = other;
    *(volatile u32 *)SCRATCH_VA = 1;
    compare = l1[0];
    t = try_kernel(fn, (ulong)l1);
    expect(t, NO_TRAP, 0, what);
    EQ(l1[0] & PTE_ADDR, other & PTE_ADDR, what);
    update_va(SCRATCH_VA, l1[0], UVMF_INVLPG);
    EQ(*(volatile u32 *)SCRATCH_VA, 2, "the new page is seen");
}

static void part(ulong (*fn)(ulong), u64 before, u64 after, const char *what)
{
    update_va(SCRATCH_VA, (wanted & ~(u64)0xfff) | before, UVMF_INVLPG);
    expect(try_kernel(fn, (ulong)l1), NO_TRAP, 0, what);
    EQ(l1[0] & 0xfff & ~(u64)(A | D | US | G), after & ~(u64)(A | D | US), what);
    EQ(l1[0] & PTE_ADDR, wanted & PTE_ADDR, what);
}

void guest(void)
{
    u32 *one = page_alloc(), *two = page_alloc();
    *one = 1;
    *two = 2;
    l1 = new_l1(SCRATCH_VA);
    wanted = pte_for(mfn_of(one), LOW);
    other = pte_for(mfn_of(two), LOW);
    whole(w_mov, "mov");
    whole(w_cmpxchg8b, "cmpxchg8b");
    whole(w_movs, "movs");
#ifdef __x86_64__
    whole(w_xchg, "xchg");
    whole(w_cmpxchg, "cmpxchg");
    whole(w_xadd, "xadd");
    whole(w_push, "push");
    whole(w_stos, "stos");
    whole(w_rep_stos, "rep stos");
    whole(w_pop, "pop");
    whole(w_movnti, "movnti");
#endif
    part(w_byte, LOW, LOW & ~RW, "a byte");
    part(w_and, LOW, LOW & ~RW, "and");
    part(w_or, LOW & ~RW, LOW, "or");
    part(w_btr, LOW, LOW & ~RW, "btr");
    part(w_bts, LOW & ~RW, LOW, "bts");
    part(w_word, LOW, LOW | AVAIL0, "a word");
    part(w_inc, LOW, LOW | AVAIL1, "add");
    expect(try_kernel(w_clear, (ulong)l1), NO_TRAP, 0, "an entry cleared");
    EQ(l1[0], 0, "the cleared entry");

    /* What is not emulated. */
    update_va(SCRATCH_VA, wanted, UVMF_INVLPG);
    expect(try_user(w_plain, (ulong)l1), PF, BITS == 64 ? P | RW | US : P | RW | US, "from user mode");
    expect(try_kernel(w_unaligned, (ulong)l1), PF, P | RW, "unaligned");
    expect(try_kernel(w_plain, (ulong)pte_of(SCRATCH_VA, 2)), PF, P | RW, "an L2");
    expect(try_kernel(w_plain, (ulong)pte_of(SCRATCH_VA, PTE_LEVELS)), PF, P | RW, "the top table");
    EQ(l1[0] & PTE_ADDR, wanted & PTE_ADDR, "the entry is as before");
    const struct {
        pte_t entry;
        const char *what;
    } bad[] = {
        {pte_for(mfn_of(l1), LOW), "a writable mapping of the table itself"},
        {pte_for(base_mfn(), LOW), "a writable mapping of the top table"},
        {pte_for(0xfffffff, LOW), "a frame that is not there"},
        {0x0ff0000000000067, "bits above the address"},
    };
    for (uint i = 0; i < ARRAY_SIZE(bad); i++) {
        update_va(SCRATCH_VA, 0, UVMF_INVLPG);
        value = bad[i].entry;
        struct trap t = try_kernel(w_mov, (ulong)l1);
        expect(t, PF, P | RW, bad[i].what);
        EQ(l1[0] & P, 0, "no entry");
    }
    update_va(SCRATCH_VA, wanted, UVMF_INVLPG);
    RC(HC_2(__HYPERVISOR_vm_assist, VMASST_CMD_disable, VMASST_TYPE_writable_pagetables), 0, "the assist off");
    expect(try_kernel(w_plain, (ulong)l1), PF, P | RW, "without the assist");
    EQ(l1[0] & PTE_ADDR, wanted & PTE_ADDR, "the entry is as before");
    RC(HC_2(__HYPERVISOR_vm_assist, VMASST_CMD_enable, VMASST_TYPE_writable_pagetables), 0, "the assist on");
    /* Not-present entries hold anything. */
    value = 0x123456789abcdef0ull & ~1ull;
    update_va(SCRATCH_VA, 0, UVMF_INVLPG);
    expect(try_kernel(w_mov, (ulong)l1), NO_TRAP, 0, "an entry that is not present");
    EQ(l1[0], 0x123456789abcdef0ull & ~1ull, "is kept as it is");
}
