/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every vCPU makes the longest calls that there are, one after the other: whoever else wants the hypervisor gets it in
 * between. With nothing on the command line these are a few multicalls; with one of these words it goes on until somebody
 * ends it: "forever" with multicalls, "initialise" of a vCPU with a bad tree of page tables, "decrease" of the reservation by
 * a pinned table, "pin" of a bad tree, "mixed" with all three. domain: vcpus=4
 */
#include "forest.h"

#define CALLS 32
#define ENTRIES 1024
#define ROUNDS 20

static struct trap_info traps[ENTRIES + 1];
static struct multicall_entry calls[MAX_CPUS][CALLS] ALIGNED(64);
static volatile uint finished;
static struct forest forests[MAX_CPUS];
static struct vcpu_guest_context contexts[MAX_CPUS];
static uint l1s; /* of each vCPU's tree */

static void hog_tables(char how)
{
    uint cpu = this_cpu();
    struct forest *f = &forests[cpu];
    grow(f, l1s);
    if (how == 'm')
        how = "idp"[cpu % 3];
    if (how != 'd')
        spoil(f, 1);
    for (;;) {
        if (how == 'i') {
            RC(initialise_with(f, MAX_CPUS / 2 - 1, &contexts[cpu]), -EINVAL, "a bad tree");
        } else if (how == 'p') {
            REFUSED(pin_top(f), "a bad tree");
        } else {
            RC(pin_top(f), 0, "a good tree");
            RC(give_back(f->top), 1, "giving back the pinned table");
            RC(take_back(f->top), 1, "another one");
            fill_top(f);
        }
    }
}

static void hog(void)
{
    uint cpu = this_cpu();
    int forever = info->cmd_line[0] == 'f';
    if (info->cmd_line[0] && !forever)
        hog_tables((char)info->cmd_line[0]);
    for (uint round = 0; forever || round < ROUNDS; round++) {
        for (uint i = 0; i < CALLS; i++)
            calls[cpu][i] = (struct multicall_entry){.op = __HYPERVISOR_set_trap_table, .args = {(ulong)traps}};
        RC(HC_2(__HYPERVISOR_multicall, calls[cpu], CALLS), 0, "a multicall");
        RC(calls[cpu][CALLS - 1].result, 0, "its last call");
    }
    __atomic_fetch_add(&finished, 1, __ATOMIC_SEQ_CST);
}

static void second(void)
{
    hog();
    for (;;)
        HC_2(__HYPERVISOR_sched_op, SCHEDOP_block, NULL);
}

void guest(void)
{
    for (uint i = 0; i < ENTRIES; i++)
        traps[i] = (struct trap_info){.vector = 200, .cs = KERNEL_CS, .address = (ulong)trap_stubs};
    uint cpus = 1, most = MAX_CPUS;
    if (info->cmd_line[0] && info->cmd_line[0] != 'f') {
        most = MAX_CPUS / 2 - 1; /* the fourth is what the others initialise */
        new_l1(SCRATCH_VA);
        l1s = (uint)(info->nr_pages - 4096) / 3 * 63 / 64;
    }
    while (cpus < most && start_cpu(cpus, second) == 0)
        cpus++;
    print("hogging with %u", cpus);
    hog();
    while (finished < cpus)
        HC_2(__HYPERVISOR_sched_op, SCHEDOP_yield, NULL);
}
