/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An exception with a stack in Xen's window: the domain crashes, with a report; nothing else happens.
 * Documented: Xen's log, "domain_crash called" and its kin. domain: ends=crash
 */
#include "guest.h"
#ifdef __x86_64__
#define TRAP_IN "syscall"
#else
#define TRAP_IN "int $0x82"
#endif

void guest(void)
{
    print("READY " NAME);
    asm volatile("mov %0, %%" SP "; ud2" ::"r"(HYPERVISOR_VIRT_START + 0x2000));
    print("FAIL " NAME ": lived on");
}
