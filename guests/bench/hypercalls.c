/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each hypercall costs, in ns, from this guest's own loop; `make bench` reads the lines (benchmarks/hypercalls.py).
 * Nothing here is Domzero's own: it says the same about real Xen. A line per operation:
 *     bench GROUP NAME ns*100 calls result
 * and with "memory=N" on the command line, a second pass in which each is called N times between two lines
 *     memory begin NAME / memory end NAME
 */
#include "guest.h"
#include <xen/callback.h>
#include <xen/nmi.h>

#define BATCHES 7
#define BATCH_NS 2000000ull /* how long a batch should take */
#define CALLS_MAX 20000u
#define UPDATES 512
#define CALLS 32

static u64 *page, *other;
static u64 page_entry; /* machine address of the entry that maps `page` */
static pte_t *page_pte, *table_pte;
static void *table;
static ulong table_mfn, grant_at;
static uint ipi_port;
static struct grant_entry_v1 *grants;
static struct mmu_update updates[UPDATES] ALIGNED(16);
static struct multicall_entry calls[CALLS] ALIGNED(64);
static struct trap_info no_traps[1];
static ulong gdt_frame[1];

/* --- what is measured: each gives its last result */
static NOINLINE long nothing(void)
{
    asm volatile("");
    return 0;
}
static long version(void) { return version_op(XENVER_version, NULL) > 0 ? 0 : -1; }
static long features(void)
{
    struct xen_feature_info info_ = {.submap_idx = 0};
    return version_op(XENVER_get_features, &info_);
}
static long unknown(void) { return HC_1(63, 0) == -ENOSYS ? 0 : -1; }
static long refused(void) { return HC_1(__HYPERVISOR_domctl, page); }

static long update_one(void) { return mmu_update(page_entry, pte_for(mfn_of(page), RWP)); }
static long update_many(void) { return HC_4(__HYPERVISOR_mmu_update, updates, UPDATES, 0, DOMID_SELF); }
static long remap(void)
{
    static uint turn;
    turn ^= 1; /* another frame each time: reference counts change */
    return mmu_update(page_entry, pte_for(mfn_of(turn ? other : page), RWP));
}
static long update_mapping(void) { return update_va((ulong)page, pte_for(mfn_of(page), RWP), UVMF_INVLPG); }
static long write_entry(void)
{
    *(volatile pte_t *)page_pte = pte_for(mfn_of(page), RWP);
    return 0;
}
static long flush_local(void) { return mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0); }
static long invalidate(void)
{
    struct mmuext_op op = {.cmd = MMUEXT_INVLPG_LOCAL, .arg1.linear_addr = (ulong)page};
    return HC_4(__HYPERVISOR_mmuext_op, &op, 1, 0, DOMID_SELF);
}
static long pin_unpin(void)
{
    long rc = mmuext(MMUEXT_PIN_L1_TABLE, table_mfn, 0);
    return rc ? rc : mmuext(MMUEXT_UNPIN_TABLE, table_mfn, 0);
}
static long new_base(void) { return mmuext(MMUEXT_NEW_BASEPTR, base_mfn(), 0); }
static long clear_page(void) { return mmuext(MMUEXT_CLEAR_PAGE, mfn_of(page), 0); }
static long set_ldt(void) { return mmuext(MMUEXT_SET_LDT, 0, 0); }
static long descriptor(void) { return update_descriptor((u64)gdt_frame[0] * PAGE + 64, 0); }
static long gdt(void) { return HC_2(__HYPERVISOR_set_gdt, gdt_frame, 512); }

static long trap_table(void) { return set_traps(no_traps); }
static long stack(void) { return HC_2(__HYPERVISOR_stack_switch, KERNEL_SS, user_stack_top()); }
static long taskswitch(void) { return HC_1(__HYPERVISOR_fpu_taskswitch, 0); }
static long set_debug(void) { return set_debugreg(0, 0); }
static long get_debug(void) { return (long)get_debugreg(0); }
static long assist(void) { return HC_2(__HYPERVISOR_vm_assist, VMASST_CMD_enable, VMASST_TYPE_writable_pagetables); }
#ifdef __x86_64__
static long segment_base(void) { return HC_2(__HYPERVISOR_set_segment_base, SEGBASE_FS, 0); }
#endif
static long callback(void) { return set_callback(CALLBACKTYPE_event, event_entry, 0); }
static long iopl(void)
{
    struct physdev_set_iopl op = {.iopl = 1};
    return HC_2(__HYPERVISOR_physdev_op, PHYSDEVOP_set_iopl, &op);
}

static long yield(void) { return sched_op(SCHEDOP_yield, NULL); }
static long poll(void)
{
    struct sched_poll op = {.nr_ports = 0, .timeout = 1};
    return sched_op(SCHEDOP_poll, &op);
}
static long timer(void)
{
    return BITS == 64 ? HC_1(__HYPERVISOR_set_timer_op, 0) : HC_2(__HYPERVISOR_set_timer_op, 0, 0);
}
static long is_up(void) { return vcpu_op(VCPUOP_is_up, 0, NULL) == 1 ? 0 : -1; }
static long runstate(void)
{
    struct vcpu_runstate_info state;
    return vcpu_op(VCPUOP_get_runstate_info, 0, &state);
}
static long stop_timer(void) { return vcpu_op(VCPUOP_stop_singleshot_timer, 0, NULL); }

static long reservation(void)
{
    domid_t self = DOMID_SELF;
    return memory_op(XENMEM_current_reservation, &self) > 0 ? 0 : -1;
}
static long balloon(void)
{
    static ulong pfn;
    pfn = pfn ? pfn : pfn_alloc();
    xen_pfn_t extent = pfn_to_mfn(pfn);
    struct xen_memory_reservation op = {.nr_extents = 1, .domid = DOMID_SELF};
    set_xen_guest_handle(op.extent_start, &extent);
    if (memory_op(XENMEM_decrease_reservation, &op) != 1)
        return -1;
    extent = pfn;
    if (memory_op(XENMEM_populate_physmap, &op) != 1)
        return -2;
    ((ulong *)info->mfn_list)[pfn] = extent;
    return 0;
}
static long multicall(void) { return HC_2(__HYPERVISOR_multicall, calls, CALLS); }
static long console_io(void) { return HC_3(__HYPERVISOR_console_io, CONSOLEIO_write, 0, ""); }

static long send(void)
{
    struct evtchn_send op = {.port = ipi_port};
    return evtchn_op(EVTCHNOP_send, &op);
}
static long port_status(void)
{
    struct evtchn_status op = {.dom = DOMID_SELF, .port = ipi_port};
    return evtchn_op(EVTCHNOP_status, &op);
}
static long unmask(void)
{
    struct evtchn_unmask op = {.port = ipi_port};
    return evtchn_op(EVTCHNOP_unmask, &op);
}
static long open_close(void)
{
    struct evtchn_alloc_unbound op = {.dom = DOMID_SELF, .remote_dom = DOMID_SELF};
    long rc = evtchn_op(EVTCHNOP_alloc_unbound, &op);
    struct evtchn_close end = {.port = op.port};
    return rc ? rc : evtchn_op(EVTCHNOP_close, &end);
}
static long upcall(void)
{
    unmask_port(ipi_port);
    enable_events();
    send();
    disable_events();
    return 0;
}

static long grant_size(void)
{
    struct gnttab_query_size op = {.dom = DOMID_SELF};
    return grant_op(GNTTABOP_query_size, &op, 1);
}
static long grant_map(void)
{
    struct gnttab_map_grant_ref op = {.host_addr = grant_at, .flags = GNTMAP_host_map, .ref = 20, .dom = grants[20].domid};
    long rc = grant_op(GNTTABOP_map_grant_ref, &op, 1);
    struct gnttab_unmap_grant_ref end = {.host_addr = grant_at, .handle = op.handle};
    return rc ? rc : op.status ? op.status : grant_op(GNTTABOP_unmap_grant_ref, &end, 1);
}
static long grant_copy(void)
{
    struct gnttab_copy op = {.len = PAGE / 2, .flags = GNTCOPY_source_gref};
    op.source.u.ref = 20;
    op.source.domid = grants[20].domid;
    op.dest.u.gmfn = mfn_of(other);
    op.dest.domid = DOMID_SELF;
    long rc = grant_op(GNTTABOP_copy, &op, 1);
    return rc ? rc : op.status;
}

ASM_FN(breakpoint, "int3");
static int skip_trap(struct regs *regs)
{
    if (regs->vector == GP)
        regs->ip += 2;
    return regs->vector == BP_ || regs->vector == GP;
}
static long int3(void) { return (long)breakpoint(0) * 0; }
static long fault(void)
{
    asm volatile("mov %0, %%ds" ::"r"(0xe010) : "memory"); /* two bytes: #GP, skipped */
    return 0;
}
static long read_cr0(void)
{
    ulong value;
    asm volatile("mov %%cr0, %0" : "=r"(value));
    return value ? 0 : -1;
}
static long forced_cpuid(void)
{
    uint a = 1, b, c = 0, d;
    asm volatile(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e; cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return 0;
}
static long plain_cpuid(void)
{
    uint a = 1, b, c = 0, d;
    asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return 0;
}
static long tsc(void) { return rdtsc() ? 0 : -1; }

static const struct item {
    const char *group, *name;
    long (*call)(void);
    uint entries; /* what one call does so often, for the price per entry */
} items[] = {
    {"loop", "empty", nothing, 1},
    {"version", "xen_version.version", version, 1},
    {"version", "xen_version.get_features", features, 1},
    {"version", "no.such.hypercall", unknown, 1},
    {"version", "domctl.refused", refused, 1},
    {"memory-management", "mmu_update.same", update_one, 1},
    {"memory-management", "mmu_update.another.frame", remap, 1},
    {"memory-management", "mmu_update.512", update_many, UPDATES},
    {"memory-management", "update_va_mapping", update_mapping, 1},
    {"memory-management", "store.to.page.table", write_entry, 1},
    {"memory-management", "mmuext.tlb_flush_local", flush_local, 1},
    {"memory-management", "mmuext.invlpg_local", invalidate, 1},
    {"memory-management", "mmuext.pin+unpin.l1", pin_unpin, 1},
    {"memory-management", "mmuext.new_baseptr", new_base, 1},
    {"memory-management", "mmuext.clear_page", clear_page, 1},
    {"memory-management", "mmuext.set_ldt", set_ldt, 1},
    {"memory-management", "update_descriptor", descriptor, 1},
    {"memory-management", "set_gdt", gdt, 1},
    {"memory-management", "memory_op.current_reservation", reservation, 1},
    {"memory-management", "memory_op.decrease+populate", balloon, 1},
    {"processor", "set_trap_table", trap_table, 1},
    {"processor", "stack_switch", stack, 1},
    {"processor", "fpu_taskswitch", taskswitch, 1},
    {"processor", "set_debugreg", set_debug, 1},
    {"processor", "get_debugreg", get_debug, 1},
    {"processor", "vm_assist", assist, 1},
#ifdef __x86_64__
    {"processor", "set_segment_base", segment_base, 1},
#endif
    {"processor", "callback_op.register", callback, 1},
    {"processor", "physdev_op.set_iopl", iopl, 1},
    {"scheduling", "sched_op.yield", yield, 1},
    {"scheduling", "sched_op.poll.past", poll, 1},
    {"scheduling", "set_timer_op.off", timer, 1},
    {"scheduling", "vcpu_op.is_up", is_up, 1},
    {"scheduling", "vcpu_op.get_runstate_info", runstate, 1},
    {"scheduling", "vcpu_op.stop_singleshot_timer", stop_timer, 1},
    {"scheduling", "multicall.32", multicall, CALLS},
    {"scheduling", "console_io.nothing", console_io, 1},
    {"events", "event_channel_op.send", send, 1},
    {"events", "event_channel_op.status", port_status, 1},
    {"events", "event_channel_op.unmask", unmask, 1},
    {"events", "event_channel_op.alloc+close", open_close, 1},
    {"events", "send.and.upcall", upcall, 1},
    {"grants", "grant_table_op.query_size", grant_size, 1},
    {"grants", "grant_table_op.map+unmap", grant_map, 1},
    {"grants", "grant_table_op.copy.2KiB", grant_copy, 1},
    {"traps", "int3.and.iret", int3, 1},
    {"traps", "gp.and.iret", fault, 1},
    {"traps", "mov.from.cr0", read_cr0, 1},
    {"traps", "cpuid.forced.emulation", forced_cpuid, 1},
    {"traps", "cpuid", plain_cpuid, 1},
    {"traps", "rdtsc", tsc, 1},
};

/* 64 by 32 bits, without a library. */
static u64 divide(u64 value, u32 by)
{
    u64 quotient = 0, rest = 0;
    for (int bit = 63; bit >= 0; bit--) {
        rest = rest << 1 | (value >> bit & 1);
        if (rest >= by) {
            rest -= by;
            quotient |= 1ull << bit;
        }
    }
    return quotient;
}

static u64 batch(const struct item *item, uint count, long *rc)
{
    u64 start = now();
    for (uint i = 0; i < count; i++)
        *rc = item->call();
    return now() - start;
}

static void measure(const struct item *item)
{
    long rc = 0;
    uint count = 8;
    u64 took, best = ~0ull;
    while ((took = batch(item, count, &rc)) < BATCH_NS / 4 && count < CALLS_MAX)
        count *= 4;
    for (uint i = 0; i < BATCHES; i++) {
        took = batch(item, count, &rc);
        best = took < best ? took : best;
    }
    print("bench %s %s %llu %u %u %ld", item->group, item->name, (unsigned long long)divide(best * 100, count), count,
          item->entries, rc);
}

static uint number_after(const char *key)
{
    const char *at = (const char *)info->cmd_line;
    size_t length = length_of(key);
    for (; *at; at++)
        if (!memcmp(at, key, length)) {
            uint value = 0;
            for (at += length; *at >= '0' && *at <= '9'; at++)
                value = value * 10 + (uint)(*at - '0');
            return value;
        }
    return 0;
}

static void set_up(void)
{
    xen_pfn_t frames[1] = {0};
    struct gnttab_setup_table setup = {.dom = DOMID_SELF, .nr_frames = 1};
    struct evtchn_bind_ipi ipi = {.vcpu = 0};
    page = page_alloc();
    other = page_alloc();
    table = page_alloc();
    page_entry = pte_maddr((ulong)page, 1);
    page_pte = pte_of((ulong)page, 1);
    table_pte = pte_of((ulong)table, 1);
    table_mfn = mfn_of(table);
    protect(table, ROP);
    void *gdt_page = page_alloc();
    gdt_frame[0] = mfn_of(gdt_page);
    protect(gdt_page, ROP);
    for (uint i = 0; i < UPDATES; i++)
        updates[i] = (struct mmu_update){.ptr = page_entry, .val = pte_for(mfn_of(page), RWP)};
    for (uint i = 0; i < CALLS; i++)
        calls[i] = (struct multicall_entry){.op = __HYPERVISOR_xen_version, .args = {XENVER_version, 0}};
    evtchn_op(EVTCHNOP_bind_ipi, &ipi);
    ipi_port = ipi.port;
    disable_events();
    mask_port(ipi_port);
    set_xen_guest_handle(setup.frame_list, frames);
    grant_op(GNTTABOP_setup_table, &setup, 1);
    new_l1(SCRATCH_VA);
    update_va(SCRATCH_VA, pte_for(frames[0], RWP), UVMF_INVLPG);
    grants = (void *)SCRATCH_VA;
    grant_at = SCRATCH_VA + PAGE;
    void *granted = page_alloc();
    grants[20].frame = (u32)mfn_of(granted);
    grants[20].domid = (domid_t)own_domid();
    __atomic_store_n(&grants[20].flags, GTF_permit_access, __ATOMIC_SEQ_CST);
    trap_hook = skip_trap;
}

void guest(void)
{
    uint rounds = number_after("memory=");
    set_up();
    for (uint i = 0; i < ARRAY_SIZE(items); i++)
        measure(&items[i]);
    for (uint i = 0; rounds && i < ARRAY_SIZE(items); i++) {
        uint count = rounds / items[i].entries + 1;
        long rc;
        batch(&items[i], 100, &rc); /* what is made once does not count */
        print("memory begin %s %u", items[i].name, count);
        batch(&items[i], count, &rc);
        print("memory end %s", items[i].name);
    }
}
