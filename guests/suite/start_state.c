/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a domain starts with: start_info, the p2m, page tables that it may read and not write, events masked, the hypercall
 * page. Documented: xen/xen.h (struct start_info, "start-of-day memory layout").
 */
#include "guest.h"

extern char hypercall_page[];
ASM_FN(store, "movl $0, (%" ARG ")");

static int version_by_page(void)
{
    ulong result = (ulong)hypercall_page + 32 * __HYPERVISOR_xen_version;
#ifdef __x86_64__
    asm volatile("xor %%edi, %%edi; xor %%esi, %%esi; call *%%rax" : "+a"(result)::"rdi", "rsi", "rcx", "r11", "memory");
#else
    asm volatile("push %%ebx; xor %%ebx, %%ebx; xor %%ecx, %%ecx; call *%%eax; pop %%ebx" : "+a"(result)::"ecx", "memory");
#endif
    return (int)result;
}

void guest(void)
{
    CHECK(!memcmp(info->magic, BITS == 64 ? "xen-3.0-x86_64" : "xen-3.0-x86_32p", BITS == 64 ? 14 : 15), "magic %s", info->magic);
    CHECK(info->nr_pages >= 4096, "nr_pages %lu", info->nr_pages);
    EQ(info->flags & (SIF_PRIVILEGED | SIF_INITDOMAIN), 0, "not privileged");
    EQ(info->shared_info & 0xfff, 0, "shared_info's address");
    CHECK(info->store_evtchn && info->console.domU.evtchn && info->store_evtchn != info->console.domU.evtchn, "ports %u %u",
          info->store_evtchn, info->console.domU.evtchn);
    EQ(info->mfn_list & (sizeof(ulong) - 1), 0, "mfn_list");
    CHECK(info->pt_base >= VIRT_BASE && info->nr_pt_frames >= 4, "pt_base %lx, %lu frames", info->pt_base, info->nr_pt_frames);
    EQ(VCPU_INFO(0)->evtchn_upcall_mask, 1, "events are masked");
    for (ulong pfn = 0; pfn < info->nr_pages; pfn++)
        if (mfn_to_pfn(pfn_to_mfn(pfn)) != pfn)
            CHECK(0, "p2m and m2p of pfn %lx", pfn);
    for (ulong i = 0; i < info->nr_pt_frames; i++) {
        ulong va = info->pt_base + i * PAGE;
        if (*pte_of(va, 1) & RW)
            CHECK(0, "page table %lu is writable", i);
        if (i == 0)
            expect(try_kernel(store, va), PF, P | RW, "a store to the top table");
    }
    CHECK(*pte_of(info->mfn_list, 1) & RW, "the p2m is ours to write");
    EQ(version_by_page(), version_op(XENVER_version, NULL), "a hypercall by the page");
    ulong mapped = VIRT_BASE + PAGE * 0x100;
    CHECK(pte_of(mapped, 1) && (*pte_of(mapped, 1) & P), "the image is mapped");
    /* At least 512 KiB behind the stack are mapped, to the end of 4 MiB. */
    ulong end = (info->pt_base + info->nr_pt_frames * PAGE + PAGE + 0x80000 + 0x3fffff) & ~0x3ffffful;
    for (ulong va = info->pt_base; va < end; va += PAGE)
        if (!pte_of(va, 1) || !(*pte_of(va, 1) & P)) {
            CHECK(0, "%lx is not mapped", va);
            break;
        }
}
