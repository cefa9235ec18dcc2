/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code that is written is executed as written: by the same vCPU at once (with a jump), and by another after it was told.
 * Also through another mapping of the same page, and for one instruction across two pages.
 * Documented: the processor manuals (self- and cross-modifying code). domain: vcpus=2 memory=32
 */
#include "guest.h"

static volatile uint turn, answer, stop;
static u8_t *code;

static void write_code(u8_t *at, u32 value) /* mov $value, %eax; ret */
{
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}

static void other(void)
{
    for (uint seen = 0; !stop;) {
        uint t = __atomic_load_n(&turn, __ATOMIC_ACQUIRE);
        if (t == seen) {
            relax();
            continue;
        }
        seen = t;
        asm volatile("push %%" BX "; xor %%eax, %%eax; xor %%ecx, %%ecx; cpuid; pop %%" BX ::: "eax", "ecx", "edx"); /* serializes */
        answer = ((uint(*)(void))code)();
        __atomic_store_n(&turn, 0, __ATOMIC_RELEASE);
        seen = 0;
    }
    vcpu_op(VCPUOP_down, this_cpu(), NULL);
}

void guest(void)
{
    u8_t *page = page_alloc(), *next = page_alloc();
    volatile u8_t *alias;
    CHECK(next == page + PAGE, "pages follow each other");
    for (u32 i = 0; i < 300; i++) {
        write_code(page + (i % 5), i);
        EQ(((u32(*)(void))(page + (i % 5)))(), i, "what was just written");
    }
    new_l1(SCRATCH_VA);
    update_va(SCRATCH_VA, pte_for(mfn_of(page), RWP), UVMF_INVLPG);
    alias = (u8_t *)SCRATCH_VA;
    for (u32 i = 0; i < 50; i++) {
        write_code((u8_t *)alias + 64, i * 3);
        EQ(((u32(*)(void))(page + 64))(), i * 3, "what was written through another mapping");
    }
    for (u32 i = 0; i < 50; i++) { /* across two pages */
        write_code(next - 3, i << 16 | i);
        EQ(((u32(*)(void))(next - 3))(), i << 16 | i, "across two pages");
    }
    update_va(SCRATCH_VA, pte_for(mfn_of(next), RWP), UVMF_INVLPG);
    *(volatile u8_t *)(SCRATCH_VA + 1) = 0x77;
    EQ(((u32(*)(void))(next - 3))() >> 24, 0x77, "the second page's bytes through another mapping");
    /* Another frame at the same address. */
    u8_t *one = page_alloc(), *two = page_alloc();
    write_code(one, 1);
    write_code(two, 2);
    for (int i = 0; i < 200; i++) {
        update_va(SCRATCH_VA, pte_for(mfn_of(i & 1 ? one : two), RWP), UVMF_INVLPG);
        EQ(((u32(*)(void))SCRATCH_VA)(), i & 1 ? 1 : 2, "another frame at the same address");
    }
    /* mmu_update as a way to write code. */
    u64 bytes = 0x00c300000309b8ull;
    RC(mmu_update((u64)mfn_of(one) * PAGE, bytes), 0, "writing code by mmu_update");
    EQ(((u32(*)(void))one)(), 0x309, "is executed");

    code = page_alloc();
    start_cpu(1, other);
    for (u32 i = 1; i <= 100; i++) {
        write_code(code, i * 7);
        __atomic_store_n(&turn, i, __ATOMIC_RELEASE);
        while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE))
            relax();
        if (answer != i * 7)
            CHECK(0, "the other vCPU executed %u, not %u", answer, i * 7);
    }
    stop = 1;
    while (vcpu_op(VCPUOP_is_up, 1, NULL))
        relax();
}
