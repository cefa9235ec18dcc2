/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random hypercalls and page-table edits that look valid, from all vCPUs at once, by seed ("seed=N rounds=N" on the command
 * line). It spares what it stands on (its image, its stacks, its own tables) and what would end or stop the domain; all else
 * is allowed, with frames from a small pool so that the calls meet each other. It ends well unless it cannot: what is looked
 * at is the hypervisor (its audit, its log, other domains), not the guest. domain: vcpus=4 memory=32
 */
#include "guest.h"
#include <xen/callback.h>
#include <xen/nmi.h>

#define FRAMES 24
#define SLOTS 32
#define TABLES 6
static void *pages[FRAMES];  /* mapped at their own addresses as long as nobody changes that */
static ulong spare[FRAMES];  /* mapped nowhere at first; may be given back and come again */
static pte_t *l1;            /* of SCRATCH_VA; read-only: writes to it are emulated */
static uint domid;
static ulong rounds = 2000, seed = 1;
static volatile uint running;
static struct grant_entry_v1 *grants;

struct random {
    u64 state;
};

static u32 next(struct random *r)
{
    r->state ^= r->state << 13;
    r->state ^= r->state >> 7;
    r->state ^= r->state << 17;
    return (u32)(r->state >> 16);
}

static u32 below(struct random *r, u32 n)
{
    return next(r) % n;
}

static ulong some_mfn(struct random *r)
{
    switch (below(r, 16)) {
    case 0:
        return below(r, 64);
    case 1:
        return info->shared_info / PAGE;
    case 2:
        return base_mfn();
    case 3:
        return mfn_of(l1);
    case 4:
        return (ulong)next(r);
    case 5:
    case 6:
    case 7:
        return spare[below(r, FRAMES)];
    default:
        return mfn_of(pages[below(r, FRAMES)]);
    }
}

static u64 some_entry(struct random *r)
{
    static const u16 often[] = {RWP, ROP, P | RW | US, P | US, 0, P | RW | US | A, P | RW | US | PSE, P | RW | US | PCD};
    u64 flags = below(r, 8) ? often[below(r, ARRAY_SIZE(often))] : next(r) & 0xfff;
    if (!below(r, 16))
        flags |= NX;
    if (!below(r, 64))
        flags |= 1ull << (52 + below(r, 11));
    return pte_for(some_mfn(r), flags);
}

static ulong some_va(struct random *r)
{
    return SCRATCH_VA + below(r, SLOTS) * PAGE;
}

static ulong poke_at, poke_with;
static ulong poke(ulong at)
{
    *(volatile ulong *)at = poke_with ^ poke_at;
    return 0;
}

static ulong peek(ulong at)
{
    return *(volatile u8_t *)at;
}

/* A pointer for a structure: mostly the one given, else one that is hard on copies. */
static void *bent(struct random *r, void *p)
{
    switch (below(r, 40)) {
    case 0:
        return NULL;
    case 1:
        return (void *)HYPERVISOR_VIRT_START;
    case 2:
        return (void *)(some_va(r) + PAGE - 8);
    case 3:
        return (void *)some_va(r);
    case 4:
        return (void *)~7ul;
    default:
        return p;
    }
}

static void page_tables(struct random *r)
{
    u64 where;
    void *page = pages[below(r, FRAMES)];
    uint done;
    switch (below(r, 12)) {
    case 0:
    case 1:
        update_va(some_va(r), some_entry(r), next(r) & 7);
        break;
    case 2: {
        struct mmu_update list[8];
        uint count = below(r, 9);
        for (uint i = 0; i < count; i++) {
            where = below(r, 3) ? (u64)mfn_of(l1) * PAGE + below(r, SLOTS) * 8 : (u64)mfn_of(pages[below(r, TABLES)]) * PAGE + below(r, 512) * 8;
            if (!below(r, 32)) { /* m2p of a frame of the pool keeps its value */
                ulong mfn = spare[below(r, FRAMES)];
                list[i] = (struct mmu_update){(u64)mfn * PAGE | MMU_MACHPHYS_UPDATE, mfn_to_pfn(mfn)};
            } else
                list[i] = (struct mmu_update){where | (below(r, 8) ? 0 : next(r) & 6), some_entry(r)};
        }
        HC_4(__HYPERVISOR_mmu_update, bent(r, list), count, bent(r, &done), DOMID_SELF);
        break;
    }
    case 3:
        mmuext(MMUEXT_PIN_L1_TABLE + below(r, 4), mfn_of(pages[below(r, TABLES)]), 0);
        break;
    case 4:
        mmuext(MMUEXT_UNPIN_TABLE, mfn_of(pages[below(r, TABLES)]), 0);
        break;
    case 5: /* our own mapping of a page of the pool */
        update_va((ulong)page, pte_for(mfn_of(page), below(r, 2) ? RWP : ROP), UVMF_INVLPG | UVMF_ALL);
        break;
    case 6: /* tables of the pool below our own L2 */
        mmu_update(pte_maddr(SCRATCH_VA, 2) + 8 + below(r, 4) * 8, below(r, 3) ? pte_for(mfn_of(pages[below(r, TABLES)]), P | RW | US | A) : 0);
        break;
    case 7:
        poke_with = (ulong)some_entry(r);
        try_kernel(poke, (ulong)&l1[below(r, SLOTS)] + (below(r, 16) ? 0 : below(r, 8)));
        break;
    case 8:
        poke_with = (ulong)next(r);
        try_kernel(poke, some_va(r) + below(r, 512) * 8);
        break;
    case 9:
        try_user(peek, some_va(r));
        break;
    case 10:
        if (below(r, 2))
            mmuext(MMUEXT_CLEAR_PAGE, mfn_of(page), 0);
        else
            mmuext(MMUEXT_COPY_PAGE, mfn_of(page), some_mfn(r));
        break;
    default:
        mmuext(below(r, 2) ? MMUEXT_TLB_FLUSH_ALL : MMUEXT_INVLPG_ALL, some_va(r), 0);
    }
}

static void descriptors(struct random *r)
{
    ulong frames[2] = {mfn_of(pages[below(r, FRAMES)]), some_mfn(r)};
    u64 descriptor = (u64)next(r) << 32 | next(r);
    switch (below(r, 6)) {
    case 0:
        HC_2(__HYPERVISOR_set_gdt, bent(r, frames), below(r, 1025));
        break;
    case 1:
    case 2:
        HC_2(__HYPERVISOR_set_gdt, NULL, 0);
        break;
    case 3:
        update_descriptor((u64)mfn_of(pages[below(r, FRAMES)]) * PAGE + below(r, 512) * 8, descriptor);
        break;
    case 4:
        mmuext(MMUEXT_SET_LDT, (ulong)pages[below(r, FRAMES)], below(r, 513));
        break;
    default:
        mmuext(MMUEXT_SET_LDT, 0, 0);
    }
}

static void memory(struct random *r)
{
    xen_pfn_t list[2];
    uint which = below(r, FRAMES);
    struct xen_memory_reservation reservation = {.nr_extents = 1, .domid = DOMID_SELF};
    set_xen_guest_handle(reservation.extent_start, list);
    switch (below(r, 4)) {
    case 0:
        list[0] = spare[which];
        memory_op(XENMEM_decrease_reservation, bent(r, &reservation));
        break;
    case 1:
        list[0] = info->nr_pages - 1 - which;
        if (memory_op(XENMEM_populate_physmap, &reservation) == 1)
            spare[which] = list[0];
        break;
    case 2: {
        xen_pfn_t out[1] = {info->nr_pages - 1 - which};
        struct xen_memory_exchange e = {.in = {.nr_extents = 1, .domid = DOMID_SELF}, .out = {.nr_extents = 1, .domid = DOMID_SELF}};
        list[0] = spare[which];
        set_xen_guest_handle(e.in.extent_start, list);
        set_xen_guest_handle(e.out.extent_start, out);
        memory_op(XENMEM_exchange, bent(r, &e));
        if (e.nr_exchanged == 1)
            spare[which] = out[0];
        break;
    }
    default: {
        domid_t self = DOMID_SELF;
        memory_op(below(r, 2) ? XENMEM_current_reservation : XENMEM_maximum_reservation, bent(r, &self));
    }
    }
}

static void granting(struct random *r)
{
    static uint handles[16];
    uint ref = 8 + below(r, 24), k = below(r, 16);
    switch (below(r, 7)) {
    case 0:
        grants[ref].frame = (u32)some_mfn(r);
        grants[ref].domid = (domid_t)domid;
        __atomic_store_n(&grants[ref].flags, (u16)(below(r, 4) ? GTF_permit_access | (below(r, 3) ? 0 : GTF_readonly) : next(r)), __ATOMIC_SEQ_CST);
        break;
    case 1:
    case 2: {
        struct gnttab_map_grant_ref map = {.host_addr = some_va(r), .flags = GNTMAP_host_map | (below(r, 3) ? 0 : GNTMAP_readonly), .ref = ref, .dom = (domid_t)domid};
        if (!below(r, 8)) {
            map.flags |= GNTMAP_contains_pte;
            map.host_addr = (u64)mfn_of(l1) * PAGE + below(r, SLOTS) * 8;
        }
        if (!below(r, 16))
            map.flags = next(r);
        if (!grant_op(GNTTABOP_map_grant_ref, bent(r, &map), 1) && map.status == GNTST_okay)
            handles[k] = map.handle;
        break;
    }
    case 3:
    case 4: {
        struct gnttab_unmap_grant_ref unmap = {.host_addr = some_va(r), .handle = below(r, 4) ? handles[k] : below(r, 64)};
        grant_op(GNTTABOP_unmap_grant_ref, bent(r, &unmap), 1);
        break;
    }
    case 5: {
        struct gnttab_copy copy = {.len = (u16)below(r, 4200), .flags = (u16)below(r, 4)};
        copy.source.domid = copy.dest.domid = (domid_t)(below(r, 2) ? DOMID_SELF : domid);
        copy.source.offset = (u16)below(r, 4097);
        if (copy.flags & GNTCOPY_source_gref)
            copy.source.u.ref = ref;
        else
            copy.source.u.gmfn = mfn_of(pages[below(r, FRAMES)]);
        if (copy.flags & GNTCOPY_dest_gref)
            copy.dest.u.ref = 8 + below(r, 24);
        else
            copy.dest.u.gmfn = mfn_of(pages[below(r, FRAMES)]);
        grant_op(GNTTABOP_copy, bent(r, &copy), 1);
        break;
    }
    default: {
        struct gnttab_swap_grant_ref swap = {.ref_a = ref, .ref_b = 8 + below(r, 24)};
        grant_op(GNTTABOP_swap_grant_ref, &swap, 1);
    }
    }
}

static volatile u32 *words; /* of the FIFO ABI, when the seed is odd */
static struct evtchn_fifo_control_block *blocks;

static void choose_fifo(uint cpus)
{
    char *control = page_alloc(), *array = page_alloc();
    for (uint cpu = 0; cpu < cpus; cpu++) {
        struct evtchn_init_control op = {.control_gfn = mfn_of(control), .offset = cpu * 128, .vcpu = cpu};
        evtchn_op(EVTCHNOP_init_control, &op);
    }
    struct evtchn_expand_array op = {.array_gfn = mfn_of(array)};
    evtchn_op(EVTCHNOP_expand_array, &op);
    blocks = (void *)control;
    words = (void *)array;
}

/* What the hypervisor reads of the guest's memory, anything, at any time. */
static void spoil_words(struct random *r)
{
    for (uint i = 0; i < 8; i++)
        words[below(r, 64)] = below(r, 2) ? (u32)next(r) : below(r, 16) << 28 | below(r, 64);
    struct evtchn_fifo_control_block *block = (void *)((char *)blocks + below(r, 4) * 128);
    block->ready = (u32)next(r);
    block->head[below(r, 16)] = (u32)next(r);
}

static void events(struct random *r)
{
    if (words && below(r, 2))
        spoil_words(r);
    u32 words[8];
    uint command = below(r, 14), port = below(r, 40);
    if (command == EVTCHNOP_reset || command == EVTCHNOP_init_control || command == EVTCHNOP_expand_array)
        return;
    if (command == EVTCHNOP_close && port < 8) /* the console's and the store's stay */
        port += 8;
    for (uint i = 0; i < 8; i++)
        words[i] = below(r, 40);
    switch (command) {
    case EVTCHNOP_bind_interdomain:
        words[0] = DOMID_SELF;
        break;
    case EVTCHNOP_alloc_unbound:
    case EVTCHNOP_status:
        words[0] = (u32)DOMID_SELF << 16 | DOMID_SELF;
        words[1] = port;
        break;
    case EVTCHNOP_bind_virq:
        words[0] = below(r, 4);
        words[1] = below(r, 5);
        break;
    case EVTCHNOP_bind_ipi:
        words[0] = below(r, 5);
        break;
    default:
        words[0] = port;
        words[1] = below(r, 5);
    }
    evtchn_op(command, bent(r, words));
}

static void other(struct random *r)
{
    struct vcpu_set_singleshot_timer timer = {.timeout_abs_ns = now() + below(r, 2000000)};
    struct vcpu_set_periodic_timer periodic = {.period_ns = 1000000 + below(r, 5000000)};
    struct vcpu_runstate_info runstate;
    u32 buffer[512]; /* the longest answer of xen_version has a kilobyte */
    switch (below(r, 10)) {
    case 0:
        vcpu_op(VCPUOP_set_singleshot_timer, below(r, 5), bent(r, &timer));
        break;
    case 1:
        vcpu_op(below(r, 2) ? VCPUOP_set_periodic_timer : VCPUOP_stop_periodic_timer, below(r, 5), bent(r, &periodic));
        break;
    case 2:
        vcpu_op(VCPUOP_get_runstate_info, below(r, 5), bent(r, &runstate));
        break;
    case 3:
        sched_op(SCHEDOP_yield, NULL);
        break;
    case 4:
        memset(buffer, 0, sizeof(buffer));
        version_op(below(r, 12), bent(r, buffer));
        break;
    case 5:
        set_debugreg(below(r, 8), below(r, 2) ? 0 : (ulong)SCRATCH_VA + below(r, PAGE));
        set_debugreg(7, 0);
        break;
    case 6:
        HC_2(__HYPERVISOR_vm_assist, below(r, 2), below(r, 8) == 2 ? 4 : below(r, 40));
        break;
    case 7: { /* numbers that no guest may call, and ones that do not exist */
        static const u8_t numbers[] = {7, 11, 15, 27, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 48, 49, 55, 63};
        for (uint i = 0; i < 64; i++)
            buffer[i] = below(r, 3) ? below(r, 64) : next(r);
        HC_4(numbers[below(r, ARRAY_SIZE(numbers))], below(r, 2) ? (ulong)bent(r, buffer) : below(r, 64), bent(r, buffer), bent(r, buffer), next(r));
        break;
    }
    case 8: {
        struct multicall_entry calls[4];
        for (uint i = 0; i < 4; i++)
            calls[i] = (struct multicall_entry){
                .op = __HYPERVISOR_update_va_mapping,
                .args = {some_va(r), (ulong)some_entry(r), BITS == 64 ? UVMF_INVLPG | UVMF_ALL : 0, UVMF_INVLPG | UVMF_ALL}};
        HC_2(__HYPERVISOR_multicall, calls, below(r, 5)); /* other lists would be of other calls: zeros clear the trap table */
        break;
    }
    default:
        vcpu_op(VCPUOP_send_nmi, below(r, 5), NULL);
    }
}

static int forgive(struct regs *regs)
{
    return regs->vector == NMI || regs->vector == NMI_CALLBACK || regs->vector == DB;
}

static ulong one_round(ulong arg)
{
    struct random *r = (void *)arg;
    switch (below(r, 16)) {
    case 0:
    case 1:
        descriptors(r);
        break;
    case 2:
    case 3:
        memory(r);
        break;
    case 4:
    case 5:
    case 6:
        granting(r);
        break;
    case 7:
    case 8:
        events(r);
        break;
    case 9:
        other(r);
        break;
    default:
        page_tables(r);
    }
    return 0;
}

static void work(void)
{
    struct random r = {.state = (seed * 0x9e3779b97f4a7c15ull) ^ (this_cpu() + 1) * 0x2545f4914f6cdd1dull};
    for (ulong i = 0; i < rounds; i++)
        try_kernel(one_round, (ulong)&r); /* its own faults are its own affair */
}

static void second(void)
{
    work();
    __atomic_fetch_sub(&running, 1, __ATOMIC_SEQ_CST);
    for (;;)
        vcpu_op(VCPUOP_down, this_cpu(), NULL);
}

static void option(const char *name, ulong *value)
{
    const char *line = (const char *)info->cmd_line;
    size_t n = length_of(name);
    for (; *line; line++)
        if (!memcmp(line, name, n)) {
            for (line += n, *value = 0; *line >= '0' && *line <= '9'; line++)
                *value = *value * 10 + (ulong)(*line - '0');
            return;
        }
}

void guest(void)
{
    xen_pfn_t frames[1] = {0};
    struct gnttab_setup_table setup = {.dom = DOMID_SELF, .nr_frames = 1};
    option("seed=", &seed);
    option("rounds=", &rounds);
    trap_hook = forgive;
    domid = own_domid();
    l1 = new_l1(SCRATCH_VA);
    for (uint i = 0; i < FRAMES; i++) {
        pages[i] = page_alloc();
        spare[i] = pfn_to_mfn(pfn_alloc());
    }
    new_l1(SCRATCH_VA + 0x1000000);
    set_xen_guest_handle(setup.frame_list, frames);
    grant_op(GNTTABOP_setup_table, &setup, 1);
    update_va(SCRATCH_VA + 0x1000000, pte_for(frames[0], RWP), UVMF_INVLPG);
    grants = (void *)(SCRATCH_VA + 0x1000000);
    uint cpus = cpu_count();
    if (seed & 1)
        choose_fifo(cpus);
    running = cpus - 1;
    for (uint cpu = 1; cpu < cpus; cpu++)
        start_cpu(cpu, second);
    work();
    while (running)
        relax();
    print("FUZZED seed=%lu rounds=%lu vcpus=%u", seed, rounds, cpus);
}
