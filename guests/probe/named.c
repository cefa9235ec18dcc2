/*
 * Hypercalls one by one, with arguments on both sides of what Xen allows.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core.h"

#define SHOW(rc, ...) \
    do { \
        long rc_ = (rc); \
        say(__VA_ARGS__); \
        say(" "); \
        rc_text(rc_); \
    } while (0)
#define SIGN(rc, ...) \
    do { \
        long rc_ = (rc); \
        say(__VA_ARGS__); \
        say(" "); \
        rc_sign(rc_); \
    } while (0)

static void trap_table(void)
{
    static struct trap_info traps[3];
    static const struct {
        const char *name;
        u16 cs;
        ulong address;
    } entries[] = {{"kernel", KERNEL_CS, VIRT_BASE + 0x1000}, {"cs 0", 0, VIRT_BASE}, {"cs 3", 3, VIRT_BASE},
                   {"cs 0xe008", 0xe008, VIRT_BASE}, {"cs 0xe010", 0xe010, VIRT_BASE}, {"cs 0xe02b", 0xe02b, VIRT_BASE},
                   {"cs user", WIDTH == 64 ? 0xe033 : 0xe02b, VIRT_BASE}, {"cs ldt", 7, VIRT_BASE},
                   {"address in Xen", KERNEL_CS, XEN_PRIVATE}, {"address non-canonical", KERNEL_CS, NONCANONICAL},
                   {"address 1", KERNEL_CS, 1}, {"cs beyond", 0xfff8, VIRT_BASE}};
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        traps[0] = (struct trap_info){.vector = 200, .cs = entries[i].cs, .address = entries[i].address, .flags = 3};
        traps[1] = (struct trap_info){0};
        SHOW(HC1(set_trap_table, traps), "set_trap_table %s", entries[i].name);
    }
    SHOW(HC1(set_trap_table, XEN_PRIVATE), "set_trap_table private");
    SHOW(HC1(set_trap_table, UNMAPPED), "set_trap_table unmapped");
    SHOW(HC1(set_trap_table, 0), "set_trap_table null");
    setup();
}

static void gdt(void)
{
    ulong *frames = zeroed();
    u64 *table = (u64 *)pages[0];
    SHOW(HC2(set_gdt, frames, 0), "set_gdt 0 entries");
    SHOW(HC2(set_gdt, 0, 0), "set_gdt null 0 entries");
    SHOW(HC2(set_gdt, 0, 1), "set_gdt null 1 entry");
    SHOW(HC2(set_gdt, XEN_PRIVATE, 1), "set_gdt private 1 entry");
    SHOW(HC2(set_gdt, UNMAPPED, 1), "set_gdt unmapped 1 entry");
    SHOW(HC2(set_gdt, frames, 7169), "set_gdt 7169 entries");
    SHOW(HC2(set_gdt, frames, 8192), "set_gdt 8192 entries");
    SHOW(HC2(set_gdt, frames, 0xffffffff), "set_gdt -1 entries");
    SHOW(HC2(set_gdt, frames, 512), "set_gdt frame 0");
    frames[0] = mfn_of(pages[0]);
    SHOW(HC2(set_gdt, frames, 512), "set_gdt writable frame");
    map_page(pages[0], pte_of(pages[0], 0x25), UVMF_INVLPG);
    SHOW(HC2(set_gdt, frames, 512), "set_gdt read-only frame");
    SHOW(HC2(set_gdt, frames, 1), "set_gdt the same again");
    SHOW(map_page(pages[0], pte_of(pages[0], 0x67), UVMF_INVLPG), "map a gdt page writable");
    SHOW(HC2(set_gdt, frames, 0), "set_gdt empty");
    SHOW(map_page(pages[0], pte_of(pages[0], 0x67), UVMF_INVLPG), "map a former gdt page writable");
    static const struct {
        const char *name;
        u64 value;
    } bad[] = {{"code dpl 0", 0x00af9b000000ffff}, {"data dpl 0", 0x00cf93000000ffff}, {"code dpl 3 l", 0x00affb000000ffff},
               {"code dpl 1", 0x00cfbb000000ffff}, {"code dpl 3 flat 32", 0x00cffb000000ffff},
               {"call gate", (u64)0xffff << 48 | 0xec000000e033ull << 0}, {"call gate dpl 0", 0x00008c00e0330000ull},
               {"tss", 0x00008900e0330067ull}, {"ldt", 0x00008200e0330067ull}, {"not present", 0x00cf7b000000ffff},
               {"call gate dpl 3 to user", 0x0000ec00e0330000ull}, {"conforming code", 0x00cfff000000ffff},
               {"data 64-bit flag", 0x00eff3000000ffff}, {"code l and d", 0x00effb000000ffff},
               {"interrupt gate", 0x0000ee00e0330000ull}, {"task gate", 0x0000e500e0330000ull}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        u64 value = bad[i].value;
        for (int j = 0; j < 512; j++)
            table[j] = 0;
        table[3] = value;
        map_page(pages[0], pte_of(pages[0], 0x25), UVMF_INVLPG);
        SHOW(HC2(set_gdt, frames, 512), "set_gdt holding %s", bad[i].name);
        say("... loaded as %lx\n", (ulong)(table[3] >> 32));
        u64 machine = ((u64)mfn_of(pages[0]) << 12) + 8 * 4;
#ifdef __x86_64__
        SHOW(HC2(update_descriptor, machine, value), "update_descriptor %s in gdt", bad[i].name);
#else
        SHOW(HC4(update_descriptor, (ulong)machine, (ulong)(machine >> 32), (ulong)value, (ulong)(value >> 32)),
             "update_descriptor %s in gdt", bad[i].name);
#endif
        say("... is %lx\n", (ulong)(table[4] >> 32));
        HC2(set_gdt, frames, 0);
        map_page(pages[0], pte_of(pages[0], 0x67), UVMF_INVLPG);
#ifdef __x86_64__
        SHOW(HC2(update_descriptor, machine, value), "update_descriptor %s in plain page", bad[i].name);
#else
        SHOW(HC4(update_descriptor, (ulong)machine, (ulong)(machine >> 32), (ulong)value, (ulong)(value >> 32)),
             "update_descriptor %s in plain page", bad[i].name);
#endif
    }
    for (int j = 0; j < 512; j++)
        table[j] = 0;
#ifdef __x86_64__
    u64 machine = (u64)mfn_of(pages[0]) << 12;
    SHOW(HC2(update_descriptor, 0x1000, 0), "update_descriptor frame 1");
    SHOW(HC2(update_descriptor, machine + 4, 0), "update_descriptor unaligned");
    SHOW(HC2(update_descriptor, 0x10000000000000ul, 0), "update_descriptor beyond memory");
    SHOW(HC2(update_descriptor, (u64)mfn_of((void *)info->pt_base) << 12, 0), "update_descriptor in a page table");
    SHOW(HC2(update_descriptor, info->shared_info, 0), "update_descriptor in shared_info");
#endif
}

static void stacks(void)
{
    static const u16 selectors[] = {0, 3, 0xe008, 0xe010, 0xe019, 0xe021, 0xe02b, 0xe033, 7, 0xfffb};
    for (size_t i = 0; i < sizeof(selectors) / sizeof(selectors[0]); i++)
        SHOW(HC2(stack_switch, selectors[i], VIRT_BASE), "stack_switch ss %lx", (ulong)selectors[i]);
    SHOW(HC2(stack_switch, KERNEL_SS, XEN_PRIVATE), "stack_switch in Xen");
    SHOW(HC2(stack_switch, KERNEL_SS, NONCANONICAL), "stack_switch non-canonical");
    SHOW(HC2(stack_switch, KERNEL_SS, 3), "stack_switch 3");
    setup();
#ifdef __x86_64__
    SHOW(HC3(set_callbacks, XEN_PRIVATE, 0, 0), "set_callbacks event in Xen");
    SHOW(HC3(set_callbacks, NONCANONICAL, 0, 0), "set_callbacks event non-canonical");
    SHOW(HC3(set_callbacks, 0, NONCANONICAL, 0), "set_callbacks failsafe non-canonical");
    SHOW(HC3(set_callbacks, 0, 0, NONCANONICAL), "set_callbacks syscall non-canonical");
    static const struct {
        const char *name;
        ulong value;
    } bases[] = {{"0", 0}, {"user", 0x12345000}, {"kernel", VIRT_BASE}, {"xen", XEN_PRIVATE}, {"non-canonical", NONCANONICAL}};
    for (ulong which = 0; which < 5; which++)
        for (size_t i = 0; i < 5; i++)
            SHOW(HC2(set_segment_base, which, bases[i].value), "set_segment_base %ld %s", (long)which, bases[i].name);
    static const ulong gs[] = {0, 3, 0x10, 0x2b, 0xe02b, 0xe02e, 0xe033, 0xe010, 0xffff, 7, 0x10000};
    for (size_t i = 0; i < sizeof(gs) / sizeof(gs[0]); i++)
        SHOW(HC2(set_segment_base, SEGBASE_GS_USER_SEL, gs[i]), "set_segment_base selector %lx", gs[i]);
#else
    static const ulong cs[] = {0, 3, 0xe008, 0xe010, 0xe019, 0xe021, 0xe02b, 0xe033};
    for (size_t i = 0; i < 8; i++) {
        SHOW(HC4(set_callbacks, cs[i], VIRT_BASE, KERNEL_CS, VIRT_BASE), "set_callbacks event cs %lx", cs[i]);
        SHOW(HC4(set_callbacks, KERNEL_CS, VIRT_BASE, cs[i], VIRT_BASE), "set_callbacks failsafe cs %lx", cs[i]);
    }
    SHOW(HC2(set_segment_base, 0, 0), "set_segment_base 0");
#endif
    setup();
}

static void registers(void)
{
    static const struct {
        const char *name;
        ulong value;
    } values[] = {{"0", 0}, {"kernel", VIRT_BASE}, {"xen", XEN_PRIVATE}, {"non-canonical", NONCANONICAL},
                  {"7 local", 0x55}, {"le ge gd", 0x2300}, {"io break", 0x00020001}, {"8 byte write", 0x00090001},
                  {"all low", 0xffffffff}, {"dr6 bits", 0xf}, {"bit 10", 0x400}, {"reserved 11", 0x800}, {"rtm", 0x10000}};
    for (ulong reg = 0; reg < 9; reg++) {
        say("get_debugreg %ld first ", (long)reg);
        rc_text(HC1(get_debugreg, reg));
        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
            SHOW(HC2(set_debugreg, reg, values[i].value), "set_debugreg %ld %s", (long)reg, values[i].name);
            say("... reads ");
            rc_text(HC1(get_debugreg, reg));
        }
        HC2(set_debugreg, reg, 0);
    }
    HC2(set_debugreg, 7, 0);
    SHOW(HC1(get_debugreg, 0xffffffff), "get_debugreg -1");
    SHOW(HC2(set_debugreg, 0xffffffff, 0), "set_debugreg -1");
    SHOW(HC1(fpu_taskswitch, 1), "fpu_taskswitch 1");
    SHOW(HC1(fpu_taskswitch, 2), "fpu_taskswitch 2");
    SHOW(HC1(fpu_taskswitch, 0), "fpu_taskswitch 0");
}

static void assists(void)
{
    for (ulong type = 0; type < 34; type++) {
        if (type > 8 && type < 31)
            continue;
        for (ulong cmd = 0; cmd < 3; cmd++)
            SHOW(HC2(vm_assist, cmd, type), "vm_assist cmd %ld type %ld", (long)cmd, (long)type);
    }
    SHOW(HC2(vm_assist, 0, 0xffffffff), "vm_assist cmd 0 type -1");
    setup();
}

static void timers(void)
{
    SHOW(HC1(set_timer_op, 0), "set_timer_op 0");
#ifdef __x86_64__
    SHOW(HC1(set_timer_op, 1), "set_timer_op 1");
    SHOW(HC1(set_timer_op, ~0ul), "set_timer_op -1");
    SHOW(HC1(set_timer_op, ~0ul >> 1), "set_timer_op far");
#else
    SHOW(HC2(set_timer_op, 1, 0), "set_timer_op 1");
    SHOW(HC2(set_timer_op, ~0ul, ~0ul), "set_timer_op -1");
    SHOW(HC2(set_timer_op, ~0ul, ~0ul >> 1), "set_timer_op far");
#endif
    HC2(set_timer_op, 0, 0);
    struct vcpu_set_singleshot_timer once = {.timeout_abs_ns = 1, .flags = 0};
    SHOW(HC3(vcpu_op, VCPUOP_set_singleshot_timer, 0, &once), "singleshot in the past");
    once.flags = VCPU_SSHOTTMR_future;
    SHOW(HC3(vcpu_op, VCPUOP_set_singleshot_timer, 0, &once), "singleshot in the past, future flag");
    once.flags = 6;
    SHOW(HC3(vcpu_op, VCPUOP_set_singleshot_timer, 0, &once), "singleshot unknown flags");
    struct vcpu_set_periodic_timer periodic;
    static const u64 periods[] = {0, 1, 999999, 1000000, 1ull << 62, ~0ull};
    for (int i = 0; i < 6; i++) {
        periodic.period_ns = periods[i];
        SHOW(HC3(vcpu_op, VCPUOP_set_periodic_timer, 0, &periodic), "periodic timer %ld", (long)i);
    }
    SHOW(HC3(vcpu_op, VCPUOP_stop_periodic_timer, 0, 0), "stop periodic");
    SHOW(HC3(vcpu_op, VCPUOP_stop_singleshot_timer, 0, 0), "stop singleshot");
}

static void vcpus(void)
{
    static const long ids[] = {1, 2, 31, 32, 127, 8191, 8192, -1};
    for (long op = 0; op < 16; op++)
        for (size_t i = 0; i < 8; i++) {
            if (op == VCPUOP_up && ids[i] == 1)
                continue;
            SIGN(HC3(vcpu_op, op, ids[i], zeroed()), "vcpu_op %ld vcpu %ld zeros", op, ids[i]);
            SIGN(HC3(vcpu_op, op, ids[i], 0), "vcpu_op %ld vcpu %ld null", op, ids[i]);
        }
    SHOW(HC3(vcpu_op, VCPUOP_is_up, 0, 0), "vcpu_op is_up 0");
    SHOW(HC3(vcpu_op, VCPUOP_is_up, 1, 0), "vcpu_op is_up 1");
    struct vcpu_register_vcpu_info place = {.mfn = mfn_of(pages[1]), .offset = 64};
    SHOW(HC3(vcpu_op, VCPUOP_register_vcpu_info, 1, &place), "register_vcpu_info for vcpu 1");
    SHOW(HC3(vcpu_op, VCPUOP_register_vcpu_info, 1, &place), "register_vcpu_info again");
    place.offset = 4096 - 32;
    SHOW(HC3(vcpu_op, VCPUOP_register_vcpu_info, 2, &place), "register_vcpu_info of no vcpu");
    struct vcpu_register_runstate_memory_area area;
    area.addr.p = (ulong)pages[2];
    SHOW(HC3(vcpu_op, VCPUOP_register_runstate_memory_area, 0, &area), "register_runstate");
    struct vcpu_runstate_info *state = (void *)pages[2];
    say("runstate state = %ld\n", (long)state->state);
    area.addr.p = XEN_PRIVATE;
    SHOW(HC3(vcpu_op, VCPUOP_register_runstate_memory_area, 0, &area), "register_runstate private");
    area.addr.p = UNMAPPED;
    SHOW(HC3(vcpu_op, VCPUOP_register_runstate_memory_area, 0, &area), "register_runstate unmapped");
    area.addr.p = 0;
    SHOW(HC3(vcpu_op, VCPUOP_register_runstate_memory_area, 0, &area), "register_runstate none");
    struct vcpu_register_time_memory_area time = {.addr.p = (ulong)pages[3]};
    SHOW(HC3(vcpu_op, VCPUOP_register_vcpu_time_memory_area, 0, &time), "register_time");
    time.addr.p = 0;
    SHOW(HC3(vcpu_op, VCPUOP_register_vcpu_time_memory_area, 0, &time), "register_time none");
    SIGN(HC3(vcpu_op, VCPUOP_get_physid, 0, buf), "get_physid");
    SHOW(HC3(vcpu_op, VCPUOP_send_nmi, 1, 0), "send_nmi to vcpu 1");
}

static void scheduling(void)
{
    struct sched_poll poll = {.nr_ports = 129};
    SHOW(HC2(sched_op, SCHEDOP_poll, &poll), "poll 129 ports");
    poll.nr_ports = 0xffffffff;
    SHOW(HC2(sched_op, SCHEDOP_poll, &poll), "poll -1 ports");
    poll.nr_ports = 1;
    poll.timeout = 1;
    set_xen_guest_handle(poll.ports, (evtchn_port_t *)XEN_PRIVATE);
    SHOW(HC2(sched_op, SCHEDOP_poll, &poll), "poll private list");
    set_xen_guest_handle(poll.ports, (evtchn_port_t *)UNMAPPED);
    SHOW(HC2(sched_op, SCHEDOP_poll, &poll), "poll unmapped list");
    evtchn_port_t port = 1000000;
    set_xen_guest_handle(poll.ports, &port);
    SHOW(HC2(sched_op, SCHEDOP_poll, &poll), "poll port 1000000");
    port = 900;
    SHOW(HC2(sched_op, SCHEDOP_poll, &poll), "poll port 900, in the past");
    port = 0;
    SHOW(HC2(sched_op, SCHEDOP_poll, &poll), "poll port 0, in the past");
    poll.nr_ports = 0;
    SHOW(HC2(sched_op, SCHEDOP_poll, &poll), "poll no port, in the past");
    struct sched_remote_shutdown remote = {.domain_id = DOMID_SELF, .reason = 0};
    static const domid_t ids[] = {DOMID_SELF, 0, 1, 999, DOMID_XEN};
    for (int i = 0; i < 5; i++) {
        remote.domain_id = ids[i];
        if (i != 2)
            SHOW(HC2(sched_op, SCHEDOP_remote_shutdown, &remote), "remote_shutdown %lx", (ulong)ids[i]);
    }
    struct sched_watchdog dog = {.id = 0, .timeout = 600};
    SHOW(HC2(sched_op, SCHEDOP_watchdog, &dog), "watchdog first");
    SHOW(HC2(sched_op, SCHEDOP_watchdog, &dog), "watchdog second");
    SHOW(HC2(sched_op, SCHEDOP_watchdog, &dog), "watchdog third");
    for (u32 id = 1; id < 4; id++) {
        dog.id = id;
        dog.timeout = 0;
        SHOW(HC2(sched_op, SCHEDOP_watchdog, &dog), "watchdog disarm %ld", (long)id);
        SHOW(HC2(sched_op, SCHEDOP_watchdog, &dog), "watchdog disarm %ld again", (long)id);
    }
    dog.timeout = 5;
    SHOW(HC2(sched_op, SCHEDOP_watchdog, &dog), "watchdog kick 3");
    struct sched_pin_override pin = {.pcpu = -1};
    SHOW(HC2(sched_op, SCHEDOP_pin_override, &pin), "pin_override -1");
    pin.pcpu = 0;
    SHOW(HC2(sched_op, SCHEDOP_pin_override, &pin), "pin_override 0");
    pin.pcpu = 9999;
    SHOW(HC2(sched_op, SCHEDOP_pin_override, &pin), "pin_override 9999");
}

static void callbacks(void)
{
    for (u16 type = 0; type < 9; type++) {
        struct callback_register reg = {.type = type, .flags = 0};
        static const ulong at[] = {VIRT_BASE, XEN_PRIVATE, NONCANONICAL, 0};
        for (int i = 0; i < 4; i++) {
#ifdef __x86_64__
            reg.address = at[i];
#else
            reg.address.cs = KERNEL_CS;
            reg.address.eip = at[i];
#endif
            SHOW(HC2(callback_op, CALLBACKOP_register, &reg), "callback register %ld at %ld", (long)type, (long)i);
        }
        reg.flags = 0xfffe;
        SHOW(HC2(callback_op, CALLBACKOP_register, &reg), "callback register %ld odd flags", (long)type);
        struct callback_unregister un = {.type = type};
        SHOW(HC2(callback_op, CALLBACKOP_unregister, &un), "callback unregister %ld", (long)type);
        SHOW(HC2(callback_op, CALLBACKOP_unregister, &un), "callback unregister %ld again", (long)type);
    }
    struct xennmi_callback nmi = {.handler_address = VIRT_BASE, .pad = 0};
    SHOW(HC2(nmi_op, XENNMI_register_callback, &nmi), "nmi register");
    nmi.handler_address = NONCANONICAL;
    SHOW(HC2(nmi_op, XENNMI_register_callback, &nmi), "nmi register non-canonical");
    SHOW(HC2(nmi_op, XENNMI_unregister_callback, 0), "nmi unregister");
    SHOW(HC2(nmi_op, XENNMI_unregister_callback, 0), "nmi unregister again");
    setup();
}

static void devices(void)
{
    for (u32 iopl = 0; iopl < 6; iopl++) {
        struct physdev_set_iopl set = {.iopl = iopl};
        SHOW(HC2(physdev_op, PHYSDEVOP_set_iopl, &set), "set_iopl %ld", (long)iopl);
    }
    struct physdev_set_iopl none = {.iopl = 0};
    HC2(physdev_op, PHYSDEVOP_set_iopl, &none);
    static const u32 counts[] = {0, 1, 65536, 65537, 0xffffffff};
    for (int i = 0; i < 5; i++) {
        struct physdev_set_iobitmap map = {.nr_ports = counts[i]};
        set_xen_guest_handle(map.bitmap, (u8 *)(i == 1 ? pages[4] : 0));
        SHOW(HC2(physdev_op, PHYSDEVOP_set_iobitmap, &map), "set_iobitmap %ld", (long)i);
    }
    struct physdev_set_iobitmap off = {.nr_ports = 0};
    HC2(physdev_op, PHYSDEVOP_set_iobitmap, &off);
    struct xen_hvm_param param;
    static const domid_t domids[] = {DOMID_SELF, 0, 999, DOMID_XEN, DOMID_IO};
    for (u32 index = 0; index < 41; index++) {
        param = (struct xen_hvm_param){.domid = DOMID_SELF, .index = index};
        long get = HC2(hvm_op, HVMOP_get_param, &param);
        long set = HC2(hvm_op, HVMOP_set_param, &param);
        SHOW(set, "hvm param %ld get %ld set", (long)index, get);
    }
    for (int i = 0; i < 5; i++) {
        param = (struct xen_hvm_param){.domid = domids[i], .index = 1};
        SHOW(HC2(hvm_op, HVMOP_get_param, &param), "hvm get_param of %lx", (ulong)domids[i]);
    }
    for (u32 cmd = 0; cmd < 5; cmd++)
        for (u32 count = 0; count < 3; count++)
            SHOW(HC3(console_io, cmd, count, zeroed()), "console_io %ld count %ld", (long)cmd, (long)count);
    SHOW(HC3(console_io, 0, 0xffffffff, buf), "console_io write -1");
    SHOW(HC3(console_io, 0, 5, XEN_PRIVATE), "console_io write private");
}

static void multicalls(void)
{
    multicall_entry_t *calls = zeroed();
    SHOW(HC2(multicall, calls, 0), "multicall none");
    SHOW(HC2(multicall, 0, 1), "multicall null");
    SHOW(HC2(multicall, XEN_PRIVATE, 1), "multicall private");
    SHOW(HC2(multicall, UNMAPPED, 1), "multicall unmapped");
    static const ulong numbers[] = {__HYPERVISOR_xen_version, __HYPERVISOR_multicall, __HYPERVISOR_iret, 63, 64, 1000,
                                    11, __HYPERVISOR_domctl, __HYPERVISOR_get_debugreg, __HYPERVISOR_vm_assist};
    for (size_t i = 0; i < 10; i++) {
        calls[0] = (multicall_entry_t){.op = numbers[i]};
        calls[0].args[0] = i == 9 ? 5 : 0;
        if (numbers[i] != __HYPERVISOR_iret)
            SHOW(HC2(multicall, calls, 1), "multicall of %ld", (long)numbers[i]);
        say("... result %lx\n", (ulong)(numbers[i] == 17 ? 0 : calls[0].result));
    }
    multicall_entry_t *edge = (void *)(pages[5] + PAGE - sizeof(*edge));
    map_page(pages[6], 0, UVMF_INVLPG);
    edge[0] = (multicall_entry_t){.op = __HYPERVISOR_xen_version, .args = {99}};
    SHOW(HC2(multicall, edge, 2), "multicall whose second is unmapped");
    say("... first result %ld\n", (long)edge[0].result);
    map_page(pages[6], pte_of(pages[6], 0x67), UVMF_INVLPG);
    static const multicall_entry_t fixed = {.op = __HYPERVISOR_xen_version};
    map_page(pages[5], pte_of(pages[5], 0x25), UVMF_INVLPG);
    (void)fixed;
    SHOW(HC2(multicall, edge, 1), "multicall on a read-only page");
    map_page(pages[5], pte_of(pages[5], 0x67), UVMF_INVLPG);
}

void probe_named(void)
{
    trap_table();
    gdt();
    stacks();
    registers();
    assists();
    timers();
    vcpus();
    scheduling();
    callbacks();
    devices();
    multicalls();
}
