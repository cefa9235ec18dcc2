/* Frames and page tables. SPDX-License-Identifier: Apache-2.0 */
#include "guest.h"

char pool[POOL][PAGE] ALIGNED(PAGE);
static uint pool_used;
static ulong pfns_used;

void *page_alloc(void)
{
    uint page = __atomic_fetch_add(&pool_used, 1, __ATOMIC_RELAXED);
    if (page >= POOL) {
        print("FAIL %s: the pool is empty", guest_name);
        shut_down(SHUTDOWN_crash);
    }
    return pool[page];
}

ulong pfn_alloc(void) /* from the end of memory, which the initial tables do not map */
{
    return info->nr_pages - 1 - __atomic_fetch_add(&pfns_used, 1, __ATOMIC_RELAXED);
}

ulong pfn_of(const void *va)
{
    return ((ulong)va - VIRT_BASE) / PAGE;
}

ulong pfn_to_mfn(ulong pfn)
{
    return ((ulong *)info->mfn_list)[pfn];
}

ulong mfn_to_pfn(ulong mfn)
{
    return ((volatile ulong *)HYPERVISOR_VIRT_START)[mfn];
}

ulong mfn_of(const void *va)
{
    return pfn_to_mfn(pfn_of(va));
}

pte_t pte_for(ulong mfn, u64 flags)
{
    return (u64)mfn * PAGE | flags;
}

ulong base_mfn(void)
{
    return mfn_of((void *)info->pt_base);
}

static pte_t *table_of(pte_t entry)
{
    return (pte_t *)(VIRT_BASE + mfn_to_pfn((ulong)((entry & PTE_ADDR) / PAGE)) * PAGE);
}

static uint index_of(ulong va, int level)
{
#ifdef __x86_64__
    return (uint)(va >> (12 + 9 * (level - 1))) & 511;
#else
    return level == 3 ? (uint)(va >> 30) : (uint)(va >> (12 + 9 * (level - 1))) & 511;
#endif
}

pte_t *pte_of(ulong va, int level)
{
    pte_t *table = (pte_t *)info->pt_base;
    for (int at = PTE_LEVELS; at > level; at--) {
        pte_t entry = *(volatile pte_t *)&table[index_of(va, at)];
        if (!(entry & P))
            return NULL;
        table = table_of(entry);
    }
    return &table[index_of(va, level)];
}

u64 pte_maddr(ulong va, int level)
{
    pte_t *entry = pte_of(va, level);
    return entry ? (u64)mfn_of(entry) * PAGE | ((ulong)entry & (PAGE - 1)) : 0;
}

long protect(void *va, u64 flags)
{
    return update_va((ulong)va, pte_for(mfn_of(va), flags), UVMF_INVLPG | UVMF_LOCAL);
}

pte_t *new_l1(ulong va)
{
    pte_t *table = page_alloc();
    long rc = protect(table, ROP);
    if (!rc)
        rc = mmu_update(pte_maddr(va, 2), pte_for(mfn_of(table), P | RW | US | A));
    CHECK(rc == 0, "new_l1: %ld", rc);
    return table;
}
