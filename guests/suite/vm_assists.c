/* SPDX-License-Identifier: Apache-2.0 */
/* vm_assist: every type can be turned on and off that a guest may have; unknown ones cannot. Documented: xen/xen.h. */
#include "guest.h"

static long assist(uint cmd, uint type)
{
    return HC_2(__HYPERVISOR_vm_assist, cmd, type);
}

void guest(void)
{
    static const u8_t both_widths[] = {VMASST_TYPE_writable_pagetables, VMASST_TYPE_architectural_iopl,
                                       VMASST_TYPE_runstate_update_flag};
    for (uint i = 0; i < ARRAY_SIZE(both_widths); i++) {
        RC(assist(VMASST_CMD_enable, both_widths[i]), 0, "enable");
        RC(assist(VMASST_CMD_enable, both_widths[i]), 0, "enable again");
        RC(assist(VMASST_CMD_disable, both_widths[i]), 0, "disable");
        RC(assist(VMASST_CMD_disable, both_widths[i]), 0, "disable again");
    }
    RC(assist(VMASST_CMD_enable, 31), -EINVAL, "type 31");
    RC(assist(VMASST_CMD_enable, 64), -EINVAL, "type 64");
    RC(assist(VMASST_CMD_enable, 0xffffffff), -EINVAL, "an absurd type");
    RC(assist(2, VMASST_TYPE_writable_pagetables), -ENOSYS, "an unknown command");
    if (BITS == 32) {
        RC(assist(VMASST_CMD_enable, VMASST_TYPE_4gb_segments), 0, "4gb_segments");
        RC(assist(VMASST_CMD_enable, VMASST_TYPE_pae_extended_cr3), 0, "pae_extended_cr3");
    } else {
        RC(assist(VMASST_CMD_enable, VMASST_TYPE_m2p_strict), 0, "m2p_strict");
        RC(assist(VMASST_CMD_disable, VMASST_TYPE_m2p_strict), 0, "m2p_strict off");
    }
}
