/*
 * An iret or an event's return to a code or stack segment that cannot be loaded enters the failsafe callback, whose frame
 * shows where it was to go, with ds es fs gs before it. Data segments that cannot be loaded are the same for 32-bit guests.
 * Documented: xen/callback.h (CALLBACKTYPE_failsafe); Linux's xen_failsafe_callback.
 */
#include "guest.h"
#include <xen/callback.h>

extern ulong failsafe_ds[4];
ASM_FN(nothing, "nop");

static void one(ulong cs, ulong ss, const char *what)
{
    ulong sp = user_stack_top();
    struct trap t = try_user_at((ulong)nothing, 0, cs, 0x202, sp, ss);
    expect(t, FAILSAFE, 0, what);
    EQ(t.ip, (ulong)nothing, "ip");
    EQ((u16)t.cs, cs, "cs");
    EQ(t.sp, sp, "sp");
    EQ((u16)t.ss, ss, "ss");
}

void guest(void)
{
    one(0x13, USER_SS, "an empty code descriptor");
    one(0xfffb, USER_SS, "a code selector behind the GDT");
    one(0x17, USER_SS, "a code selector of no LDT");
    one(USER_SS, USER_SS, "data as code");
    one(USER_CS, 0x13, "an empty stack descriptor");
    one(USER_CS, USER_CS, "code as stack");
    VCPU_INFO(0)->evtchn_upcall_mask = 0;
    one(0x13, USER_SS, "with events enabled");
    set_callback(CALLBACKTYPE_failsafe, failsafe_entry, 0);
    one(0x13, USER_SS, "of a callback that does not mask");
#ifdef __x86_64__
    struct trap t = try_user_at(0x8000000000000000, 0, USER_CS, 0x202, user_stack_top(), USER_SS);
    CHECK(t.vector == FAILSAFE || t.vector == GP, "a non-canonical ip: vector %d", t.vector);
#endif
}
