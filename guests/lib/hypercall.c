/* Hypercalls as the CPU makes them: syscall, or int $0x82. SPDX-License-Identifier: Apache-2.0 */
#include "guest.h"
#include <xen/callback.h>

long hypercall(uint nr, ulong a, ulong b, ulong c, ulong d, ulong e)
{
    ulong result = nr;
#ifdef __x86_64__
    register ulong r10 asm("r10") = d;
    register ulong r8 asm("r8") = e;
    asm volatile("syscall"
                 : "+a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(r10), "+r"(r8)::"rcx", "r11", "r9", "memory");
#else
    asm volatile("int $0x82" : "+a"(result), "+b"(a), "+c"(b), "+d"(c), "+S"(d), "+D"(e)::"memory");
#endif
    return (long)result;
}

long mmu_update(u64 ptr, u64 val)
{
    struct mmu_update update = {.ptr = ptr, .val = val};
    return HC_4(__HYPERVISOR_mmu_update, &update, 1, 0, DOMID_SELF);
}

long mmuext(uint cmd, ulong mfn, ulong arg)
{
    struct mmuext_op op = {.cmd = cmd, .arg1.mfn = mfn};
    if (cmd == MMUEXT_SET_LDT)
        op.arg2.nr_ents = (uint)arg;
    else
        op.arg2.vcpumask.p = (void *)arg;
    return HC_4(__HYPERVISOR_mmuext_op, &op, 1, 0, DOMID_SELF);
}

long update_va(ulong va, u64 pte, ulong flags)
{
#ifdef __x86_64__
    return HC_3(__HYPERVISOR_update_va_mapping, va, pte, flags);
#else
    return HC_4(__HYPERVISOR_update_va_mapping, va, pte, pte >> 32, flags);
#endif
}

long update_descriptor(u64 maddr, u64 descriptor)
{
#ifdef __x86_64__
    return HC_2(__HYPERVISOR_update_descriptor, maddr, descriptor);
#else
    return HC_4(__HYPERVISOR_update_descriptor, maddr, maddr >> 32, descriptor, descriptor >> 32);
#endif
}

long sched_op(uint cmd, void *arg) { return HC_2(__HYPERVISOR_sched_op, cmd, arg); }
long memory_op(uint cmd, void *arg) { return HC_2(__HYPERVISOR_memory_op, cmd, arg); }
long evtchn_op(uint cmd, void *arg) { return HC_2(__HYPERVISOR_event_channel_op, cmd, arg); }
long grant_op(uint cmd, void *arg, uint count) { return HC_3(__HYPERVISOR_grant_table_op, cmd, arg, count); }
long vcpu_op(uint cmd, uint vcpu, void *arg) { return HC_3(__HYPERVISOR_vcpu_op, cmd, vcpu, arg); }
long version_op(uint cmd, void *arg) { return HC_2(__HYPERVISOR_xen_version, cmd, arg); }
long set_traps(const struct trap_info *table) { return HC_1(__HYPERVISOR_set_trap_table, table); }
long set_debugreg(uint reg, ulong value) { return HC_2(__HYPERVISOR_set_debugreg, reg, value); }
ulong get_debugreg(uint reg) { return (ulong)HC_1(__HYPERVISOR_get_debugreg, reg); }

long console_write(const char *text, size_t length)
{
    return HC_3(__HYPERVISOR_console_io, CONSOLEIO_write, length, text);
}

long set_callback(uint type, void *entry, uint flags)
{
    struct callback_register callback = {.type = (u16)type, .flags = (u16)flags};
#ifdef __x86_64__
    callback.address = (ulong)entry;
#else
    callback.address.cs = KERNEL_CS;
    callback.address.eip = (ulong)entry;
#endif
    return HC_2(__HYPERVISOR_callback_op, CALLBACKOP_register, &callback);
}

void shut_down(uint reason)
{
    struct sched_shutdown shutdown = {.reason = reason};
    for (;;)
        sched_op(SCHEDOP_shutdown, &shutdown);
}
