/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A handler that is not there, so that its fetch faults for ever: the domain crashes, with a report; nothing else happens.
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
    set_gate(UD, (void *)0x5000, 0); set_gate(PF, (void *)0x5000, 0); asm volatile("ud2");
    print("FAIL " NAME ": lived on");
}
