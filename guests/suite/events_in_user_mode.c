/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A timer's event reaches the guest kernel while user code spins, again and again; the user's registers are as before.
 * Documented: Linux's preemption depends on it.
 */
#include "guest.h"

static volatile uint ticks, from_user;
static evtchn_port_t port;

#ifdef __x86_64__
ASM_FN(spin, "mov $0x11111111, %eax; mov $0x22222222, %ebx; mov $0x33333333, %ecx; mov $0x44444444, %r11d; mov $0x55555555, %r15d;"
             "1: cmpl $0, spin_stop; jne 2f; cmp $0x11111111, %eax; jne 3f; cmp $0x22222222, %ebx; jne 3f; cmp $0x33333333, %ecx;"
             "jne 3f; cmp $0x44444444, %r11d; jne 3f; cmp $0x55555555, %r15d; jne 3f; jmp 1b; 3: ud2; 2: mov $9, %eax");
#else
ASM_FN(spin, "mov $0x11111111, %eax; mov $0x22222222, %ebx; mov $0x33333333, %ecx; mov $0x44444444, %esi; mov $0x55555555, %edi;"
             "1: cmpl $0, spin_stop; jne 2f; cmp $0x11111111, %eax; jne 3f; cmp $0x22222222, %ebx; jne 3f; cmp $0x33333333, %ecx;"
             "jne 3f; cmp $0x44444444, %esi; jne 3f; cmp $0x55555555, %edi; jne 3f; jmp 1b; 3: ud2; 2: mov $9, %eax");
#endif
static volatile uint stop asm("spin_stop") USED;

static int hook(struct regs *regs)
{
    if (regs->vector == EVENT && (regs->cs & 3) == 3 && (u16)regs->cs == USER_CS)
        from_user++;
    return 0;
}

static void tick(uint p)
{
    if (p == port && ++ticks >= 20)
        stop = 1;
}

void guest(void)
{
    struct evtchn_bind_virq bind = {.virq = VIRQ_TIMER, .vcpu = 0};
    struct vcpu_set_periodic_timer periodic = {.period_ns = 1000000};
    on_event = tick;
    trap_hook = hook;
    evtchn_op(EVTCHNOP_bind_virq, &bind);
    port = bind.port;
    enable_events();
    vcpu_op(VCPUOP_set_periodic_timer, 0, &periodic);
    struct trap t = try_user(spin, 0);
    expect(t, NO_TRAP, 0, "the loop");
    EQ(t.value, 9, "its end");
    CHECK(from_user >= 10, "events from user mode: %u of %u", from_user, ticks);
    vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL);
}
