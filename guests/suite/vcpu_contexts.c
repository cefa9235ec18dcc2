/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VCPUOP_initialise with contexts that must not be taken: each is refused and leaves the vCPU as it was; a good one works
 * afterwards. XSA-296, 290; documented: xen/vcpu.h, xen/arch-x86/xen.h (struct vcpu_guest_context).
 * domain: vcpus=2 memory=32
 */
#include "guest.h"

static struct vcpu_guest_context c;
static volatile uint up;

static void fresh(void)
{
    memset(&c, 0, sizeof(c));
    c.flags = VGCF_IN_KERNEL;
    c.user_regs.cs = KERNEL_CS;
    c.user_regs.ss = KERNEL_SS;
#ifdef __x86_64__
    c.user_regs.rip = (ulong)trap_stubs;
    c.ctrlreg[3] = (u64)base_mfn() << 12;
#else
    c.user_regs.eip = (ulong)trap_stubs;
    c.user_regs.ds = c.user_regs.es = FLAT_KERNEL_DS;
    c.event_callback_cs = c.failsafe_callback_cs = KERNEL_CS;
    c.ctrlreg[3] = base_mfn() << 12 | base_mfn() >> 20;
#endif
}

static void bad(const char *what)
{
    long rc = vcpu_op(VCPUOP_initialise, 1, &c);
    CHECK(rc < 0, "%s: %ld, but is to be refused", what, rc);
    RC(vcpu_op(VCPUOP_up, 1, NULL), -EINVAL, "it is not initialised");
    fresh();
}

static void second(void)
{
    up = 1;
    vcpu_op(VCPUOP_down, 1, NULL);
}

void guest(void)
{
    ulong writable = mfn_of(page_alloc());
    fresh();
    c.ctrlreg[3] = 0;
    bad("no page table");
    c.ctrlreg[3] = (ulong)writable << 12;
    bad("an ordinary page as page table");
    c.ctrlreg[3] = ~0xffful;
    bad("a page table that is not there");
    c.ctrlreg[3] = info->shared_info;
    bad("shared_info as page table");
    c.gdt_ents = 14 * 512 + 1;
    bad("too long a GDT");
    c.gdt_ents = 512;
    c.gdt_frames[0] = writable;
    bad("a GDT that is mapped writable");
    c.gdt_ents = 512;
    c.gdt_frames[0] = 0xfffffff;
    bad("a GDT that is not there");
    c.gdt_ents = 1024;
    c.gdt_frames[0] = base_mfn();
    bad("a page table as GDT");
    c.ldt_ents = 8193;
    c.ldt_base = (ulong)pool[3];
    bad("too long an LDT");
    c.ldt_ents = 1;
    c.ldt_base = (ulong)pool[3] + 8;
    bad("an LDT that is not aligned");
#ifdef __x86_64__
    c.trap_ctxt[7].vector = 7;
    c.trap_ctxt[7].cs = KERNEL_CS;
    c.trap_ctxt[7].address = 0x8000000000000000;
    bad("a trap's address that is not canonical");
    c.event_callback_eip = 0x8000000000000000;
    bad("a callback that is not canonical");
    c.syscall_callback_eip = 0x8000000000000000;
    bad("a syscall callback that is not canonical");
    c.ctrlreg[1] = (ulong)writable << 12;
    bad("an ordinary page as user page table");
#endif
    EQ(start_cpu(1, second), 0, "a good one");
    while (!up)
        relax();
    while (vcpu_op(VCPUOP_is_up, 1, NULL))
        relax();
    RC(vcpu_op(VCPUOP_initialise, 1, &c), -EEXIST, "a second one");
}
