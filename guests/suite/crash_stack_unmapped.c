/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An exception with the kernel's stack unmapped: the domain crashes, with a report; nothing else happens.
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
    asm volatile("mov $0x1000, %" SP "; ud2");
    print("FAIL " NAME ": lived on");
}
