/* SPDX-License-Identifier: Apache-2.0 */
/*
 * multicall: each call's answer in its entry, failures do not stop it, no multicall in a multicall.
 * Documented: xen/xen.h (struct multicall_entry).
 */
#include "guest.h"

void guest(void)
{
    static struct multicall_entry calls[600];
    u64 *page = page_alloc();
    struct mmu_update update = {(u64)mfn_of(page) * PAGE, 42};
    calls[0] = (struct multicall_entry){.op = __HYPERVISOR_xen_version, .args = {XENVER_version, 0}};
    calls[1] = (struct multicall_entry){.op = 63};
    calls[2] = (struct multicall_entry){.op = __HYPERVISOR_mmu_update, .args = {(ulong)&update, 1, 0, DOMID_SELF}};
    calls[3] = (struct multicall_entry){.op = __HYPERVISOR_multicall, .args = {(ulong)calls, 1}};
    calls[4] = (struct multicall_entry){.op = 0xffffffff};
    calls[5] = (struct multicall_entry){.op = __HYPERVISOR_sched_op, .args = {SCHEDOP_yield, 0}};
    RC(HC_2(__HYPERVISOR_multicall, calls, 6), 0, "six calls");
    CHECK((long)calls[0].result >> 16 == 4, "the version: %lx", (ulong)calls[0].result);
    RC(calls[1].result, -ENOSYS, "hypercall 63");
    RC(calls[2].result, 0, "mmu_update");
    EQ(page[0], 42, "what it wrote");
    RC(calls[3].result, -EINVAL, "a multicall in it");
    RC(calls[4].result, -ENOSYS, "an absurd number");
    RC(calls[5].result, 0, "yield");
    RC(HC_2(__HYPERVISOR_multicall, NULL, 0), 0, "none");
    RC(HC_2(__HYPERVISOR_multicall, 8, 1), -EFAULT, "no list");
    RC(HC_2(__HYPERVISOR_multicall, HYPERVISOR_VIRT_START, 1), -EFAULT, "a list in Xen's window");
    for (uint i = 0; i < ARRAY_SIZE(calls); i++)
        calls[i] = (struct multicall_entry){
            .op = __HYPERVISOR_update_va_mapping,
            .args = {(ulong)page, (ulong)pte_for(mfn_of(page), i & 1 ? RWP : ROP),
                     BITS == 64 ? UVMF_INVLPG : 0, UVMF_INVLPG}};
    RC(HC_2(__HYPERVISOR_multicall, calls, ARRAY_SIZE(calls)), 0, "six hundred");
    for (uint i = 0; i < ARRAY_SIZE(calls); i++)
        RC((long)calls[i].result, 0, "one of them");
    page[0] = 1;
    /* The entries are read-only: results cannot be written. */
    struct multicall_entry *there = (void *)page;
    there[0] = calls[0];
    there[0].op = 63;
    RC(protect(page, ROP), 0, "read-only");
    REFUSED(HC_2(__HYPERVISOR_multicall, there, 1), "a list that cannot be written");
    /* A hypercall that changes the page tables under the list. */
    RC(protect(page, RWP), 0, "writable");
    there[0] = (struct multicall_entry){.op = __HYPERVISOR_update_va_mapping, .args = {(ulong)page, 0, BITS == 64 ? UVMF_INVLPG : 0, UVMF_INVLPG}};
    there[1] = (struct multicall_entry){.op = 63};
    REFUSED(HC_2(__HYPERVISOR_multicall, there, 2), "a list that unmaps itself");
    RC(protect(page, RWP), 0, "mapped again");
}
