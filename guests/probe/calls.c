/*
 * Every hypercall number and every sub-operation, with arguments that no careful kernel would give.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core.h"

enum how { NOTHING, NULLS, ZEROS, ONES, PRIVATE, ABSENT, HOWS };
static const char *const how_names[] = {"nothing", "null", "zeros", "ones", "private", "unmapped"};

static ulong pointer(enum how how)
{
    switch (how) {
    case ZEROS:
        return (ulong)zeroed();
    case ONES:
        return (ulong)filled();
    case PRIVATE:
        return XEN_PRIVATE;
    case ABSENT:
        return UNMAPPED;
    default:
        return 0;
    }
}

/* What must not be tried here: it would end or hang the probe, or take its console away. */
static int spared(ulong nr, long op, enum how how)
{
    if (nr == __HYPERVISOR_iret || nr == __HYPERVISOR_xsm_op)
        return nr == __HYPERVISOR_iret;
    if (nr == __HYPERVISOR_sched_op_compat)
        return op == 1 || op == 2 || how == NOTHING;
    if (nr == __HYPERVISOR_sched_op)
        return op == SCHEDOP_block || (op == SCHEDOP_watchdog && (how == ONES || how == ZEROS)) || ((op == SCHEDOP_shutdown || op == SCHEDOP_shutdown_code || op == SCHEDOP_poll) && how != NULLS && how != PRIVATE && how != ABSENT);
    if (nr == __HYPERVISOR_vcpu_op)
        return op == VCPUOP_down || op == VCPUOP_send_nmi;
    return 0;
}

static void any_number(void)
{
    for (ulong nr = 0; nr < 66; nr++) {
        if (spared(nr, 0, NOTHING) || nr == __HYPERVISOR_update_va_mapping || nr == __HYPERVISOR_set_timer_op)
            continue;
        long rc = hypercall(nr, 0, 0, 0, 0, 0);
        setup();
        say("hypercall %ld all zero ", (long)nr);
        rc_sign(rc);
    }
    static const ulong far[] = {0x100, 0xffff, 0x7fffffff, ~0ul};
    for (int i = 0; i < 4; i++) {
        say("hypercall number %lx ", far[i]);
        rc_text(hypercall(far[i], 0, 0, 0, 0, 0));
    }
#ifdef __x86_64__
    say("hypercall number with high half set ");
    rc_text(hypercall(0x100000011ul, 0, 0, 0, 0, 0));
    say("xen_version op with high half set ");
    rc_sign(hypercall(17, 0x100000000ul, 0, 0, 0, 0));
#endif
}

/* (op, pointer), and (op, pointer, count), and (op, id, pointer) */
enum shape { OP_ARG, OP_ARG_COUNT, OP_COUNT_ARG, OP_ID_ARG, ARG_COUNT, ARG };
static const struct {
    ulong nr;
    const char *name;
    enum shape shape;
    int ops;
    int signs; /* values differ from run to run: only errors count */
} sweeps[] = {
    {__HYPERVISOR_memory_op, "memory_op", OP_ARG, 32, 1},
    {__HYPERVISOR_xen_version, "xen_version", OP_ARG, 13, 1},
    {__HYPERVISOR_console_io, "console_io", OP_COUNT_ARG, 4, 0},
    {__HYPERVISOR_physdev_op, "physdev_op", OP_ARG, 34, 0},
    {__HYPERVISOR_physdev_op_compat, "physdev_op_compat", ARG, 1, 0},
    {__HYPERVISOR_event_channel_op_compat, "event_channel_op_compat", ARG, 1, 0},
    {__HYPERVISOR_grant_table_op, "grant_table_op", OP_ARG_COUNT, 15, 1},
    {__HYPERVISOR_vcpu_op, "vcpu_op", OP_ID_ARG, 17, 1},
    {__HYPERVISOR_xsm_op, "xsm_op", ARG, 1, 0},
    {__HYPERVISOR_nmi_op, "nmi_op", OP_ARG, 4, 0},
    {__HYPERVISOR_sched_op_compat, "sched_op_compat", OP_ARG, 5, 0},
    {__HYPERVISOR_sched_op, "sched_op", OP_ARG, 10, 0},
    {__HYPERVISOR_callback_op, "callback_op", OP_ARG, 4, 0},
    {__HYPERVISOR_xenoprof_op, "xenoprof_op", OP_ARG, 18, 0},
    {__HYPERVISOR_event_channel_op, "event_channel_op", OP_ARG, 16, 0},
    {__HYPERVISOR_hvm_op, "hvm_op", OP_ARG, 28, 0},
    {__HYPERVISOR_sysctl, "sysctl", ARG, 1, 0},
    {__HYPERVISOR_domctl, "domctl", ARG, 1, 0},
    {__HYPERVISOR_platform_op, "platform_op", ARG, 1, 0},
    {__HYPERVISOR_kexec_op, "kexec_op", OP_ARG, 6, 0},
    {38, "tmem_op", ARG, 1, 0},
    {__HYPERVISOR_argo_op, "argo_op", OP_ARG, 6, 0},
    {__HYPERVISOR_xenpmu_op, "xenpmu_op", OP_ARG, 10, 0},
    {__HYPERVISOR_dm_op, "dm_op", OP_COUNT_ARG, 3, 0},
    {__HYPERVISOR_hypfs_op, "hypfs_op", OP_ARG, 5, 0},
    {__HYPERVISOR_arch_0, "mca", ARG, 1, 0},
    {__HYPERVISOR_arch_1, "arch_1", OP_ARG, 2, 0},
};

#ifndef START
#define START 0
#endif
static void sweep(void)
{
    for (size_t i = START; i < sizeof(sweeps) / sizeof(sweeps[0]); i++) {
        for (long op = 0; op < sweeps[i].ops; op++) {
            for (enum how how = NULLS; how < HOWS; how++) {
                if (spared(sweeps[i].nr, op, how))
                    continue;
                ulong arg = pointer(how), number = (ulong)op;
                long rc = 0;
                switch (sweeps[i].shape) {
                case OP_ARG:
                    rc = hypercall(sweeps[i].nr, number, arg, 0, 0, 0);
                    break;
                case OP_ARG_COUNT:
                    rc = hypercall(sweeps[i].nr, number, arg, 1, 0, 0);
                    break;
                case OP_COUNT_ARG:
                    rc = hypercall(sweeps[i].nr, number, 1, arg, 0, 0);
                    break;
                case OP_ID_ARG:
                    rc = hypercall(sweeps[i].nr, number, 0, arg, 0, 0);
                    break;
                case ARG_COUNT:
                    rc = hypercall(sweeps[i].nr, arg, 1, 0, 0, 0);
                    break;
                case ARG:
                    rc = hypercall(sweeps[i].nr, arg, 0, 0, 0, 0);
                    break;
                }
                setup();
                say("%s %ld %s ", sweeps[i].name, op, how_names[how]);
                if (sweeps[i].signs)
                    rc_sign(rc);
                else
                    rc_text(rc);
            }
        }
        say("%s 0x7fffffff ", sweeps[i].name);
        rc_text(hypercall(sweeps[i].nr, 0x7fffffff, 0, 0, 0, 0));
    }
}

/* Toolstack calls: cmd and interface_version first. */
static void privileged(void)
{
    static const u32 versions[] = {0, 0x15, 0x14, 0x16};
    for (u32 cmd = 0; cmd < 90; cmd++) {
        long rc[3];
        for (int i = 0; i < 3; i++) {
            u32 *op = zeroed();
            op[0] = cmd;
            op[1] = i == 0 ? 0x15 : i == 1 ? 0x15 : 0x03000000;
            if (i == 0)
                *(u16 *)&op[2] = DOMID_SELF;
            rc[i] = hypercall(i == 0 ? __HYPERVISOR_domctl : i == 1 ? __HYPERVISOR_sysctl : __HYPERVISOR_platform_op, (ulong)op, 0, 0, 0, 0);
        }
        say("domctl %ld self, sysctl, platform ", (long)cmd);
        for (int i = 0; i < 2; i++)
            say("%ld ", rc[i]);
        rc_text(rc[2]);
    }
    for (int i = 0; i < 4; i++) {
        u32 *op = zeroed();
        op[1] = versions[i];
        say("sysctl version %lx ", (ulong)versions[i]);
        rc_text(HC1(sysctl, op));
        op[0] = 5;
        op[1] = versions[i];
        say("domctl version %lx ", (ulong)versions[i]);
        rc_text(HC1(domctl, op));
    }
}

static void mmuext(void)
{
    static const struct {
        const char *name;
        domid_t domid;
    } domains[] = {{"self", DOMID_SELF}, {"dom0", 0}, {"none", 999}, {"io", DOMID_IO}, {"xen", DOMID_XEN}, {"invalid", DOMID_INVALID}};
    for (size_t d = 0; d < sizeof(domains) / sizeof(domains[0]); d++)
        for (u32 cmd = 0; cmd < 24; cmd++) {
            struct mmuext_op op = {.cmd = cmd};
            u32 done = 77;
            long rc = HC4(mmuext_op, &op, 1, &done, domains[d].domid);
            say("mmuext_op %ld %s zeros done %ld ", (long)cmd, domains[d].name, (long)done);
            rc_text(rc);
            if (cmd == MMUEXT_NEW_USER_BASEPTR && rc == 0)
                say("(user base cleared)\n");
            op.arg1.mfn = 0xfffffffful >> 4;
            op.arg2.nr_ents = 99999;
            done = 77;
            rc = HC4(mmuext_op, &op, 1, &done, domains[d].domid);
            say("mmuext_op %ld %s beyond memory done %ld ", (long)cmd, domains[d].name, (long)done);
            rc_text(rc);
        }
    struct mmuext_op op = {.cmd = MMUEXT_TLB_FLUSH_LOCAL};
    u32 done = 77;
    say("mmuext_op count 0 ");
    rc_text(HC4(mmuext_op, 0, 0, 0, DOMID_SELF));
    say("mmuext_op null list ");
    rc_text(HC4(mmuext_op, 0, 1, 0, DOMID_SELF));
    say("mmuext_op private list ");
    rc_text(HC4(mmuext_op, XEN_PRIVATE, 1, 0, DOMID_SELF));
    say("mmuext_op unmapped list ");
    rc_text(HC4(mmuext_op, UNMAPPED, 1, &done, DOMID_SELF));
    say("mmuext_op done = %ld\n", (long)done);
    say("mmuext_op private done ");
    rc_text(HC4(mmuext_op, &op, 1, XEN_PRIVATE, DOMID_SELF));
    say("mmuext_op unmapped done ");
    rc_text(HC4(mmuext_op, &op, 1, UNMAPPED, DOMID_SELF));
    say("mmuext_op preempted flag alone ");
    rc_text(HC4(mmuext_op, &op, 0x80000000u, 0, DOMID_SELF));
    say("mmuext_op foreign domain in high half ");
    rc_text(HC4(mmuext_op, &op, 1, 0, DOMID_SELF | 0x10000));
    say("mmuext_op foreign page-table owner self+1 ");
    rc_text(HC4(mmuext_op, &op, 1, 0, DOMID_SELF | (1u << 16)));
}

void probe_calls(void)
{
    any_number();
    sweep();
    privileged();
    mmuext();
}
