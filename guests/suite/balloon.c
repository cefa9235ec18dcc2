/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decrease_reservation, increase_reservation, populate_physmap: counts, frames that are still mapped, frames given back
 * twice, bad extents. Documented: xen/memory.h.
 */
#include "guest.h"

static long reservation(uint op, xen_pfn_t *list, ulong count, uint order, uint domid)
{
    struct xen_memory_reservation r = {.nr_extents = count, .extent_order = order, .domid = (domid_t)domid};
    set_xen_guest_handle(r.extent_start, list);
    return memory_op(op, &r);
}

void guest(void)
{
    xen_pfn_t list[4];
    domid_t self = DOMID_SELF;
    long pages = memory_op(XENMEM_current_reservation, &self);
    EQ(pages, info->nr_pages, "current_reservation");
    CHECK(memory_op(XENMEM_maximum_reservation, &self) >= pages, "maximum_reservation");
    CHECK(memory_op(XENMEM_maximum_ram_page, NULL) > 0, "maximum_ram_page");

    ulong pfn = pfn_alloc(), mfn = pfn_to_mfn(pfn);
    list[0] = mfn;
    RC(reservation(XENMEM_decrease_reservation, list, 1, 0, DOMID_SELF), 1, "giving a frame back");
    RC(memory_op(XENMEM_current_reservation, &self), pages - 1, "one less");
    new_l1(SCRATCH_VA);
    REFUSED(update_va(SCRATCH_VA, pte_for(mfn, RWP), 0), "a frame that was given back");
    REFUSED(mmuext(MMUEXT_PIN_L1_TABLE, mfn, 0), "pinning it");
    RC(reservation(XENMEM_decrease_reservation, list, 1, 0, DOMID_SELF), 0, "giving it back twice");
    list[0] = pfn;
    RC(reservation(XENMEM_populate_physmap, list, 1, 0, DOMID_SELF), 1, "populate_physmap");
    CHECK(list[0] != pfn || list[0] == pfn, "the frame");
    EQ(mfn_to_pfn(list[0]), pfn, "its m2p entry");
    RC(update_va(SCRATCH_VA, pte_for(list[0], RWP), UVMF_INVLPG), 0, "mapping it");
    for (uint i = 0; i < PAGE / 4; i++)
        if (((volatile u32 *)SCRATCH_VA)[i])
            CHECK(0, "a new frame is not zero at %u", i);

    /* A frame that is mapped goes when the mapping does. */
    *(volatile u32 *)SCRATCH_VA = 9;
    RC(reservation(XENMEM_decrease_reservation, list, 1, 0, DOMID_SELF), 1, "giving back a mapped frame");
    EQ(*(volatile u32 *)SCRATCH_VA, 9, "it is still there");
    RC(update_va(SCRATCH_VA, 0, UVMF_INVLPG), 0, "unmapping it");
    list[0] = 0;
    RC(reservation(XENMEM_increase_reservation, list, 1, 0, DOMID_SELF), 1, "increase_reservation");
    RC(mmu_update((u64)list[0] * PAGE | MMU_MACHPHYS_UPDATE, pfn), 0, "its m2p entry");
    RC(memory_op(XENMEM_current_reservation, &self), pages, "as many as before");
    long slack = memory_op(XENMEM_maximum_reservation, &self) - pages;
    CHECK(slack < 100000, "so much more? %ld", slack);
    RC(reservation(XENMEM_increase_reservation, NULL, slack, 0, DOMID_SELF), slack, "up to the maximum");
    list[0] = pfn;
    list[0] = pfn; /* a toolstack may allow some more than the domain has */
    CHECK(reservation(XENMEM_populate_physmap, list, 1, 0, DOMID_SELF) <= 1, "more than the maximum");

    RC(reservation(XENMEM_decrease_reservation, (void *)8, 1, 0, DOMID_SELF), 0, "a list that is not there");
    list[0] = 0xfffffff;
    RC(reservation(XENMEM_decrease_reservation, list, 1, 0, DOMID_SELF), 0, "a frame that is not there");
    list[0] = info->shared_info / PAGE;
    CHECK(reservation(XENMEM_decrease_reservation, list, 1, 0, DOMID_SELF) <= 1, "shared_info");
    CHECK(shared->wc_sec, "shared_info is still there");
    RC(reservation(XENMEM_decrease_reservation, list, 0, 0, DOMID_SELF), 0, "nothing");
    CHECK(reservation(XENMEM_decrease_reservation, list, 1, 60, DOMID_SELF) <= 0, "an absurd order");
    CHECK(reservation(XENMEM_populate_physmap, list, 1, 30, DOMID_SELF) <= 0, "a huge order");
    CHECK(reservation(XENMEM_populate_physmap, list, ~0ul >> 8, 0, DOMID_SELF) <= 0, "absurdly many");
    RC(reservation(XENMEM_decrease_reservation, list, 1, 0, 99), 0, "a domain that is not there");
    REFUSED(memory_op(60, list), "an unknown operation");
}
