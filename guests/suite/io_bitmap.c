/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PHYSDEVOP_set_iobitmap: a clear bit lets user mode at a port; what it reads there is all ones for a domain without
 * devices. Documented: xen/physdev.h.
 */
#include "guest.h"

ASM_FN(in_80, "xor %eax, %eax; in $0x80, %al");
ASM_FN(in_81, "xor %eax, %eax; in $0x81, %al");
ASM_FN(in_80_4, "in $0x80, %eax");
ASM_FN(in_f0, "xor %eax, %eax; in $0xf0, %al");

static long set_bitmap(void *bitmap, uint ports)
{
    struct physdev_set_iobitmap set = {.nr_ports = ports};
    set_xen_guest_handle(set.bitmap, bitmap);
    return HC_2(__HYPERVISOR_physdev_op, PHYSDEVOP_set_iobitmap, &set);
}

void guest(void)
{
    u8_t *bitmap = page_alloc();
    memset(bitmap, 0xff, PAGE);
    bitmap[0x10] = 0xfe; /* port 0x80 */
    RC(set_bitmap(bitmap, 65537), -EINVAL, "too many ports");
    expect(try_user(in_80, 0), GP, 0, "no bitmap");
    RC(set_bitmap(bitmap, 0x100), 0, "a bitmap");
    struct trap t = try_user(in_80, 0);
    expect(t, NO_TRAP, 0, "a port with a clear bit");
    EQ(t.value & 0xff, 0xff, "what it reads");
    expect(try_user(in_81, 0), GP, 0, "a port with a set bit");
    expect(try_user(in_80_4, 0), GP, 0, "four ports, of which three are not allowed");
    expect(try_kernel(in_80, 0), NO_TRAP, 0, "the kernel, too, is let in by a bit");
    expect(try_kernel(in_81, 0), GP, 0, "and refused without");
    bitmap[0x10] = 0xf0;
    expect(try_user(in_80_4, 0), NO_TRAP, 0, "four allowed ports: the bitmap is read at each access");
    bitmap[0x1e] = 0;
    expect(try_user(in_f0, 0), NO_TRAP, 0, "a port within the bitmap");
    RC(set_bitmap(bitmap, 0x80), 0, "a shorter bitmap");
    expect(try_user(in_f0, 0), GP, 0, "a port behind the bitmap");
    RC(set_bitmap(NULL, 0), 0, "none");
    expect(try_user(in_80, 0), GP, 0, "no bitmap again");
}
