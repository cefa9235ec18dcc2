/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hypercalls that are for a toolstack, or for other kinds of domains: none works for a guest, and none does harm with a null
 * pointer, with a pointer to zeros, or with one to ones. Documented: docs/misc/support of Xen; xen/xen.h's numbers.
 */
#include "guest.h"

void guest(void)
{
    static u8_t zeros[512] ALIGNED(8), ones[512] ALIGNED(8);
    static const struct {
        uint nr;
        const char *name;
    } calls[] = {
        {__HYPERVISOR_platform_op, "platform_op"}, {__HYPERVISOR_sysctl, "sysctl"},
        {__HYPERVISOR_domctl, "domctl"},           {__HYPERVISOR_kexec_op, "kexec_op"},
        {__HYPERVISOR_tmem_op, "tmem_op"},         {__HYPERVISOR_xenpmu_op, "xenpmu_op"},
        {__HYPERVISOR_dm_op, "dm_op"},             {__HYPERVISOR_xsm_op, "xsm_op"},
        {__HYPERVISOR_arch_0, "mca"},                 {__HYPERVISOR_xenoprof_op, "xenoprof_op"},
    };
    for (uint i = 0; i < ARRAY_SIZE(calls); i++)
        for (ulong command = 0; command < 48; command++) {
            memset(ones, 0xff, sizeof(ones));
            ones[0] = zeros[0] = (u8_t)command;
            *(u32 *)ones = (u32)command;
            REFUSED(HC_3(calls[i].nr, zeros, zeros, zeros), calls[i].name);
            REFUSED(HC_3(calls[i].nr, ones, ones, ones), calls[i].name);
            REFUSED(HC_3(calls[i].nr, 0, 0, 0), calls[i].name);
            REFUSED(HC_3(calls[i].nr, command, ones, ones), calls[i].name);
            REFUSED(HC_3(calls[i].nr, HYPERVISOR_VIRT_START, 8, 8), calls[i].name);
        }
    for (uint nr = 41; nr < 48; nr++) /* after dm_op and hypfs: not assigned, or not for us */
        REFUSED(HC_3(nr, 0, 0, 0), "a number without a hypercall");
    for (uint nr = 50; nr < 80; nr++)
        RC(HC_3(nr, 0, 0, 0), -ENOSYS, "a number without a hypercall");
    /* Physical devices. */
    for (uint command = 0; command < 40; command++) {
        if (command == PHYSDEVOP_set_iopl || command == PHYSDEVOP_set_iobitmap)
            continue;
        *(u32 *)ones = ~0u;
        CHECK(HC_2(__HYPERVISOR_physdev_op, command, ones) <= 0, "physdev_op %u", command);
        CHECK(HC_2(__HYPERVISOR_physdev_op, command, zeros) <= 0, "physdev_op %u", command);
    }
}
