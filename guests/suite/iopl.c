/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual IOPL, by PHYSDEVOP_set_iopl and by the architectural_iopl assist: cli, sti and port accesses are #GP below
 * the level, do nothing (and read all ones) at it. The kernel counts as level 1, with the assist as level 0.
 * Documented: xen/physdev.h, xen/xen.h (VMASST_TYPE_architectural_iopl).
 */
#include "guest.h"

ASM_FN(do_cli, "cli; sti");
ASM_FN(do_sti, "sti");
ASM_FN(do_in, "xor %eax, %eax; io_in: in $0x80, %al; movzx %al, %eax");
ASM_FN(do_out, "xor %eax, %eax; io_out: out %al, $0x80");
ASM_FN(do_ind, "mov $0x3f8, %edx; xor %eax, %eax; in %dx, %eax");
extern char io_in[], io_out[];

/* With the assist an application gets its level by the iret that enters it. */
static uint user_iopl;

static struct trap try_user_with_iopl(ulong (*fn)(ulong), ulong arg)
{
    ulong flags = 2 | (VCPU_INFO(this_cpu())->evtchn_upcall_mask ? 0 : 0x200) | user_iopl << 12;
    return try_user_at((ulong)fn, arg, USER_CS, flags, user_stack_top(), USER_SS);
}

static void level(int kernel_may, int user_may)
{
    const struct {
        struct trap (*try)(ulong (*)(ulong), ulong);
        int may;
        const char *what;
    } modes[2] = {{try_kernel, kernel_may, "kernel"}, {try_user_with_iopl, user_may, "user"}};
    for (int mode = 0; mode < 2; mode++) {
        int vector = modes[mode].may ? NO_TRAP : GP;
        expect(modes[mode].try(do_cli, 0), vector, 0, modes[mode].what);
        expect(modes[mode].try(do_sti, 0), vector, 0, modes[mode].what);
        expect(modes[mode].try(do_out, 0), vector, 0, modes[mode].what);
        struct trap t = modes[mode].try(do_in, 0);
        expect(t, vector, 0, modes[mode].what);
        if (modes[mode].may) {
            EQ(t.value, 0xff, "a byte from a port");
            EQ((u32)modes[mode].try(do_ind, 0).value, 0xffffffff, "a word from a port");
        }
    }
}

static int raise(struct regs *regs)
{
    if (regs->vector != 0x90)
        return 0;
    regs->flags = (regs->flags & ~0x3000ul) | regs->ax << 12;
    return 1;
}
ASM_FN(raise_to, "mov %" ARG ", %" AX "; int $0x90");
static ulong seen_flags;
static int look(struct regs *regs)
{
    seen_flags = regs->flags;
    return regs->vector == 0x90 ? raise(regs) : 0;
}

void guest(void)
{
    struct physdev_set_iopl set = {.iopl = 4};
    RC(HC_2(__HYPERVISOR_physdev_op, PHYSDEVOP_set_iopl, &set), -EINVAL, "IOPL 4");
    for (uint iopl = 0; iopl < 4; iopl++) {
        set.iopl = iopl;
        RC(HC_2(__HYPERVISOR_physdev_op, PHYSDEVOP_set_iopl, &set), 0, "set_iopl");
        level(iopl >= 1, iopl >= 3);
    }
    set.iopl = 0;
    RC(HC_2(__HYPERVISOR_physdev_op, PHYSDEVOP_set_iopl, &set), 0, "set_iopl");
    RC(HC_2(__HYPERVISOR_vm_assist, VMASST_CMD_enable, VMASST_TYPE_architectural_iopl), 0, "the assist");
    trap_hook = look;
    for (uint iopl = 0; iopl < 4; iopl++) {
        try_kernel(raise_to, iopl);
        user_iopl = iopl;
        level(1, iopl >= 3);
        seen_flags = 0;
        try_user_with_iopl(raise_to, iopl);
        EQ(seen_flags >> 12 & 3, iopl, "the IOPL in a frame");
    }
    try_kernel(raise_to, 0);
    RC(HC_2(__HYPERVISOR_vm_assist, VMASST_CMD_disable, VMASST_TYPE_architectural_iopl), 0, "the assist off");
    try_kernel(raise_to, 3);
    level(0, 0);
}
