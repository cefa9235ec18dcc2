/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every vCPU makes the longest multicalls that there are, one after the other: whoever else wants the hypervisor gets it
 * in between. With "forever" on the command line it goes on until somebody ends it. domain: vcpus=4
 */
#include "guest.h"

#define CALLS 32
#define ENTRIES 1024
#define ROUNDS 20

static struct trap_info traps[ENTRIES + 1];
static struct multicall_entry calls[MAX_CPUS][CALLS] ALIGNED(64);
static volatile uint finished;

static void hog(void)
{
    uint cpu = this_cpu();
    int forever = info->cmd_line[0] == 'f';
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
    uint cpus = 1;
    while (cpus < MAX_CPUS && start_cpu(cpus, second) == 0)
        cpus++;
    print("hogging with %u", cpus);
    hog();
    while (finished < cpus)
        HC_2(__HYPERVISOR_sched_op, SCHEDOP_yield, NULL);
}
