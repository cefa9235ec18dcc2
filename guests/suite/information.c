/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What answers hold beyond what was asked: nothing of the hypervisor's memory. Structures are filled with a pattern, and
 * reserved fields, padding and the room behind them are looked at. XSA-108, 122, 228, 239, 387.
 */
#include "guest.h"

static u8_t room[4096] ALIGNED(8);

static void untouched(size_t from, const char *what)
{
    for (size_t i = from; i < 2048; i++)
        if (room[i] != 0xa5) {
            CHECK(0, "%s wrote byte %lu", what, (ulong)i);
            return;
        }
}

static void behind_text(size_t size, const char *what)
{
    size_t end = length_of((char *)room);
    CHECK(end < size, "%s has no end", what);
    for (size_t i = end; i < size; i++)
        if (room[i] && room[i] != 0xa5) {
            CHECK(0, "%s: byte %lu behind the text is %x (XSA-122)", what, (ulong)i, room[i]);
            return;
        }
    untouched(size, what);
}

static void clean(void)
{
    memset(room, 0xa5, sizeof(room));
}

void guest(void)
{
    clean();
    version_op(XENVER_extraversion, room);
    behind_text(16, "extraversion");
    clean();
    version_op(XENVER_capabilities, room);
    behind_text(1024, "capabilities");
    clean();
    version_op(XENVER_changeset, room);
    behind_text(64, "changeset");
    clean();
    version_op(XENVER_guest_handle, room);
    untouched(16, "guest_handle");
    clean();
    version_op(XENVER_platform_parameters, room);
    untouched(sizeof(ulong), "platform_parameters");
    clean();
    RC(vcpu_op(VCPUOP_get_runstate_info, 0, room), 0, "get_runstate_info");
    struct vcpu_runstate_info *runstate = (void *)room;
    CHECK(runstate->state <= RUNSTATE_offline, "state %d", (int)runstate->state);
    untouched(sizeof(struct vcpu_runstate_info), "get_runstate_info");
    clean();
    struct physdev_get_free_pirq pirq = {.type = 1};
    CHECK(HC_2(__HYPERVISOR_physdev_op, PHYSDEVOP_get_free_pirq, &pirq) <= 0 || pirq.pirq < 4096, "get_free_pirq");
    /* New frames are zero. */
    xen_pfn_t list[1] = {pfn_to_mfn(pfn_alloc())};
    struct xen_memory_reservation r = {.nr_extents = 1, .domid = DOMID_SELF};
    set_xen_guest_handle(r.extent_start, list);
    new_l1(SCRATCH_VA);
    update_va(SCRATCH_VA, pte_for(list[0], RWP), UVMF_INVLPG);
    memset((void *)SCRATCH_VA, 0x77, PAGE);
    update_va(SCRATCH_VA, 0, UVMF_INVLPG);
    RC(memory_op(XENMEM_decrease_reservation, &r), 1, "giving a frame back");
    list[0] = info->nr_pages - 1;
    RC(memory_op(XENMEM_populate_physmap, &r), 1, "a frame");
    update_va(SCRATCH_VA, pte_for(list[0], RWP), UVMF_INVLPG);
    for (uint i = 0; i < PAGE; i++)
        if (((volatile u8_t *)SCRATCH_VA)[i])
            CHECK(0, "byte %u of a new frame is not zero", i);
    /* The memory map, and others that fill structures. */
    struct xen_memory_map map = {.nr_entries = 8};
    clean();
    set_xen_guest_handle_raw(map.buffer, (void *)room);
    long rc = memory_op(XENMEM_memory_map, &map);
    if (rc == 0)
        untouched(map.nr_entries * 20, "memory_map");
    else
        untouched(0, "memory_map");
}
