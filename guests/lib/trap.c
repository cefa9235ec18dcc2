/* Traps, and code that is expected to trap. SPDX-License-Identifier: Apache-2.0 */
#include "guest.h"
#include <xen/callback.h>

extern char stacks[MAX_CPUS][32768], user_stacks[MAX_CPUS][8192];
extern char user_leave[];
int save_context(ulong *room) __attribute__((returns_twice));
void resume_context(ulong *room) __attribute__((noreturn));
void enter_user(const ulong *frame, ulong arg) __attribute__((noreturn));

int (*trap_hook)(struct regs *regs);
volatile uint events_seen;
void (*on_event)(uint port);

/* A try under way on each vCPU: where to go on, and what was seen. */
static struct attempt {
    ulong room[8];
    struct trap *seen;
} *attempts[MAX_CPUS];

static void take_events(void)
{
    uint cpu = this_cpu();
    struct vcpu_info *v = VCPU_INFO(cpu);
    events_seen++;
    while (__atomic_exchange_n(&v->evtchn_upcall_pending, 0, __ATOMIC_SEQ_CST)) {
        xen_ulong_t words = __atomic_exchange_n(&v->evtchn_pending_sel, 0, __ATOMIC_SEQ_CST);
        for (uint word = 0; word < BITS; word++) {
            if (!(words >> word & 1))
                continue;
            xen_ulong_t ports = __atomic_load_n(&shared->evtchn_pending[word], __ATOMIC_SEQ_CST) &
                                ~__atomic_load_n(&shared->evtchn_mask[word], __ATOMIC_SEQ_CST);
            for (uint bit = 0; bit < BITS; bit++)
                if (ports >> bit & 1) {
                    clear_port(word * BITS + bit);
                    if (on_event)
                        on_event(word * BITS + bit);
                }
        }
    }
}

static int attempt_active(void)
{
    return attempts[this_cpu()] != NULL;
}

void on_trap(struct regs *regs)
{
    struct attempt *attempt;
    if (trap_hook && trap_hook(regs))
        return;
    if (regs->vector == EVENT) {
        take_events();
        return;
    }
    if (!attempt_active()) {
        print("FAIL %s: trap %lu, error %lx, at %lx:%lx, flags %lx, cr2 %lx", guest_name, regs->vector, regs->error,
              regs->cs, regs->ip, regs->flags, VCPU_INFO(this_cpu())->arch.cr2);
        shut_down(SHUTDOWN_crash);
    }
    attempt = attempts[this_cpu()];
    *attempt->seen = (struct trap){
        .vector = (int)regs->vector,
        .error = regs->error,
        .cr2 = VCPU_INFO(this_cpu())->arch.cr2,
        .value = regs->ax,
        .ip = regs->ip,
        .cs = regs->cs,
        .flags = regs->flags,
    };
    if ((regs->cs & 3) == 3 || BITS == 64) {
        attempt->seen->sp = regs->sp;
        attempt->seen->ss = regs->ss;
    }
    if (regs->vector == UD && regs->ip == (ulong)user_leave)
        attempt->seen->vector = NO_TRAP;
    resume_context(attempt->room);
}

static struct trap attempt(ulong (*fn)(ulong), ulong arg, const ulong *frame)
{
    struct attempt this;
    struct trap seen = {.vector = NO_TRAP};
    uint cpu = this_cpu();
    struct attempt *outer = attempts[cpu];
    u8_t mask = VCPU_INFO(cpu)->evtchn_upcall_mask;
    this.seen = &seen;
    __atomic_store_n(&attempts[cpu], &this, __ATOMIC_SEQ_CST);
    if (!save_context(this.room)) {
        if (frame)
            enter_user(frame, arg);
        seen.value = fn(arg);
    }
    asm volatile("" ::: "memory");
    __atomic_store_n(&attempts[cpu], outer, __ATOMIC_SEQ_CST);
    VCPU_INFO(cpu)->evtchn_upcall_mask = mask;
    return seen;
}

struct trap try_kernel(ulong (*fn)(ulong), ulong arg)
{
    return attempt(fn, arg, NULL);
}

ulong user_stack_top(void)
{
    /* As after a call: what user code returns to is on its stack. */
    ulong *top = (ulong *)(user_stacks[this_cpu()] + sizeof(user_stacks[0]) - 64) - 1;
    *top = (ulong)user_leave;
    return (ulong)top;
}

struct trap try_user_at(ulong ip, ulong arg, ulong cs, ulong flags, ulong sp, ulong ss)
{
    ulong frame[5] = {ip, cs, flags, sp, ss};
    return attempt(NULL, arg, frame);
}

struct trap try_user(ulong (*fn)(ulong), ulong arg)
{
    ulong flags = 2 | (VCPU_INFO(this_cpu())->evtchn_upcall_mask ? 0 : 0x200);
    return try_user_at((ulong)fn, arg, USER_CS, flags, user_stack_top(), USER_SS);
}

void expect(struct trap t, int vector, ulong error, const char *what)
{
    CHECK(t.vector == vector && (vector == NO_TRAP || t.error == error), "%s: vector %d error %lx, not %d %lx", what,
          t.vector, t.error, vector, error);
}

void expect_at(struct trap t, int vector, ulong error, void *ip, const char *what)
{
    expect(t, vector, error, what);
    CHECK(t.ip == (ulong)ip, "%s: ip %lx, not %p", what, t.ip, ip);
}

void set_gate(uint vector, void *address, uint flags)
{
    struct trap_info table[2] = {
        {.vector = (u8_t)vector, .flags = (u8_t)flags, .cs = KERNEL_CS, .address = (ulong)address}};
    set_traps(table);
}

void init_traps(void)
{
    static struct trap_info table[258];
    for (uint vector = 0; vector < 256; vector++) {
        uint dpl = vector == BP_ || vector == OF || vector >= 0x80 ? 3 : 0;
        table[vector] = (struct trap_info){.vector = (u8_t)vector,
                                           .flags = (u8_t)dpl,
                                           .cs = KERNEL_CS,
                                           .address = (ulong)trap_stubs + vector * 16};
    }
    /* An entry without an address ends the table: none of these has one. */
    if (set_traps(table))
        shut_down(SHUTDOWN_crash);
    HC_2(__HYPERVISOR_stack_switch, KERNEL_SS, stacks[0] + 32768);
    set_callback(CALLBACKTYPE_event, event_entry, 0);
    set_callback(CALLBACKTYPE_failsafe, failsafe_entry, CALLBACKF_mask_events);
#ifdef __x86_64__
    set_callback(CALLBACKTYPE_syscall, syscall_entry, CALLBACKF_mask_events);
    mmuext(MMUEXT_NEW_USER_BASEPTR, base_mfn(), 0);
#endif
}
