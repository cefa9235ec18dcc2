/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An iret to a code or stack segment that cannot be loaded is #GP with the selector, as if the first instruction there had
 * raised it, whether or not there is a failsafe callback: that one is for data segments. Xen 4.17 answers the same.
 * Documented: Intel SDM, IRET; xen/callback.h (CALLBACKTYPE_failsafe).
 */
#include "guest.h"
#include <xen/callback.h>

ASM_FN(nothing, "nop");

static void one(ulong cs, ulong ss, ulong bad, const char *what)
{
    ulong sp = user_stack_top();
    struct trap t = try_user_at((ulong)nothing, 0, cs, 0x202, sp, ss);
    expect(t, GP, bad & 0xfffc, what);
    EQ(t.ip, (ulong)nothing, "ip");
    EQ((u16)t.cs, cs, "cs");
    EQ(t.sp, sp, "sp");
    EQ((u16)t.ss, ss, "ss");
}

void guest(void)
{
    one(0x13, USER_SS, 0x13, "an empty code descriptor");
    one(0xfffb, USER_SS, 0xfffb, "a code selector behind the GDT");
    one(0x17, USER_SS, 0x17, "a code selector of no LDT");
    one(USER_SS, USER_SS, USER_SS, "data as code");
    one(USER_CS, 0x13, 0x13, "an empty stack descriptor");
    one(USER_CS, USER_CS, USER_CS, "code as stack");
    VCPU_INFO(0)->evtchn_upcall_mask = 0;
    one(0x13, USER_SS, 0x13, "with events enabled");
    set_callback(CALLBACKTYPE_failsafe, failsafe_entry, 0);
    one(0x13, USER_SS, 0x13, "with another failsafe callback");
#ifdef __x86_64__
    struct trap t = try_user_at(0x8000000000000000, 0, USER_CS, 0x202, user_stack_top(), USER_SS);
    CHECK(t.vector == GP, "a non-canonical ip: vector %d", t.vector);
#endif
}
