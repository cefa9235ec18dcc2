/*
 * Model-specific registers, CPUID and the instructions that end a domain.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core.h"

SNIPPET(read_msr, "rdmsr");
SNIPPET(write_msr, "wrmsr");
SNIPPET(forced_cpuid, "ud2a\n.ascii \"xen\"\ncpuid");

static const u32 numbers[] = {
    0x10, 0x17, 0x1b, 0x34, 0x3a, 0x48, 0x49, 0x79, 0x8b, 0xc1, 0xce, 0xe7, 0xe8, 0xfe, 0x10a, 0x10b, 0x11e, 0x122, 0x140,
    0x174, 0x175, 0x176, 0x179, 0x17a, 0x186, 0x198, 0x199, 0x19a, 0x19c, 0x1a0, 0x1a2, 0x1ad, 0x1b0, 0x1c9, 0x1d9, 0x1db,
    0x1f2, 0x1fc, 0x200, 0x201, 0x250, 0x277, 0x2ff, 0x309, 0x345, 0x38d, 0x38f, 0x3f1, 0x400, 0x480, 0x48d, 0x561, 0x570,
    0x600, 0x606, 0x611, 0x6a0, 0x6a2, 0x6e0, 0x770, 0x800, 0x80b, 0x802, 0xc80, 0xd90, 0xda0, 0x40000000, 0x40000001, 0x40000100,
    0x4b564d00, 0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103,
    0xc0000104, 0xc0010000, 0xc0010004, 0xc0010010, 0xc0010015, 0xc001001a, 0xc001001f, 0xc0010055, 0xc0010058, 0xc0010062,
    0xc0010063, 0xc0010064, 0xc0010071, 0xc0010112, 0xc0010114, 0xc0010117, 0xc001011f, 0xc0010131, 0xc0010140, 0xc0010141,
    0xc0010200, 0xc0011000, 0xc0011019, 0xc0011022, 0xc0011023, 0xc0011029, 0xc001102c, 0xdeadbeef, 0xffffffff,
};

void probe_msrs(void)
{
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        ulong n = numbers[i], low, high;
        attempt(KERNEL, read_msr, 0x5a5a5a5a, n, 0x5a5a5a5a, 0);
        low = seen.regs[0];
        high = seen.regs[3];
        say("rdmsr %lx ", n);
        what_happened();
        if (seen.vector < 0 && n != 0x10) {
            say("... rdmsr %lx reads %lx:%lx\n", n, high, low);
            attempt(KERNEL, write_msr, low, n, high, 0);
            say("wrmsr %lx what it was ", n);
            what_happened();
        }
        if (n == 0xc0000101)
            continue;
        static const u32 values[][2] = {{0, 0}, {1, 0}, {0xffffffff, 0xffffffff}, {0, 0x80000000}};
        for (int v = 0; v < 4; v++) {
            attempt(KERNEL, write_msr, values[v][0], n, values[v][1], 0);
            say("wrmsr %lx value %ld ", n, (long)v);
            what_happened();
        }
        attempt(KERNEL, write_msr, low, n, high, 0);
        attempt(USER, read_msr, 0, n, 0, 0);
        if (seen.vector != 13 || seen.error) {
            say("rdmsr %lx in user mode ", n);
            what_happened();
        }
    }
    static const u32 leaves[] = {0x40000000, 0x40000001, 0x40000002, 0x40000003, 0x40000004, 0x40000005, 0x40000006, 0x40000100};
    for (int i = 0; i < 8; i++)
        for (ulong sub = 0; sub < 4; sub++) {
            attempt(KERNEL, forced_cpuid, leaves[i], sub, 0, 0);
            ulong features = seen.regs[0];
            if (leaves[i] == 0x40000002 || leaves[i] == 0x40000003)
                features = sub == 0 && leaves[i] == 0x40000003 ? features & ~3ul : sub == 0 ? features : 0;
            else
                say("cpuid %lx.%ld = %lx %lx %lx %lx\n", (ulong)leaves[i], (long)sub, features, seen.regs[1], seen.regs[2], seen.regs[3]);
        }
    attempt(KERNEL, forced_cpuid, 1, 0, 0, 0);
    say("cpuid 1 ecx hypervisor, osxsave, xsave, x2apic, monitor = %ld %ld %ld %ld %ld\n", (long)(seen.regs[2] >> 31 & 1),
        (long)(seen.regs[2] >> 27 & 1), (long)(seen.regs[2] >> 26 & 1), (long)(seen.regs[2] >> 21 & 1), (long)(seen.regs[2] >> 3 & 1));
    say("cpuid 1 edx vme de pse pae mce apic sep mtrr pge mca pse36 acpi = ");
    static const int bits[] = {1, 2, 3, 6, 7, 9, 11, 12, 13, 14, 17, 22};
    for (int i = 0; i < 12; i++)
        say("%ld", (long)(seen.regs[3] >> bits[i] & 1));
    say("\n");
    attempt(KERNEL, forced_cpuid, 0x80000001, 0, 0, 0);
    say("cpuid 0x80000001 edx syscall nx page1gb rdtscp lm = %ld %ld %ld %ld %ld\n", (long)(seen.regs[3] >> 11 & 1),
        (long)(seen.regs[3] >> 20 & 1), (long)(seen.regs[3] >> 26 & 1), (long)(seen.regs[3] >> 27 & 1), (long)(seen.regs[3] >> 29 & 1));
    attempt(KERNEL, forced_cpuid, 7, 0, 0, 0);
    say("cpuid 7 ebx fsgsbase smep smap invpcid = %ld %ld %ld %ld\n", (long)(seen.regs[1] & 1), (long)(seen.regs[1] >> 7 & 1),
        (long)(seen.regs[1] >> 20 & 1), (long)(seen.regs[1] >> 10 & 1));
    attempt(USER, forced_cpuid, 0x40000000, 0, 0, 0);
    say("forced cpuid in user mode ");
    what_happened();
}

/* Each in its own domain: the answer is how the domain ended. */
SNIPPET(end_halt, "hlt");
SNIPPET(end_ud2, "ud2");

static int word_is(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

void probe_end(const char *how)
{
    struct sched_shutdown shutdown = {.reason = 0};
    struct sched_watchdog dog = {.id = 0, .timeout = 0};
    say("end %s\n", how);
    if (word_is(how, "code77")) {
        shutdown.reason = 77;
        say("rc ");
        rc_text(HC2(sched_op, SCHEDOP_shutdown_code, &shutdown));
        say("again ");
        rc_text(HC2(sched_op, SCHEDOP_shutdown_code, &shutdown));
    } else if (word_is(how, "watchdog0")) {
        rc_text(HC2(sched_op, SCHEDOP_watchdog, &dog));
        for (volatile long i = 0; i < 100000000; i++)
            ;
        say("lived\n");
    } else if (word_is(how, "notraps")) {
        HC1(set_trap_table, 0);
        asm volatile("ud2");
    } else if (word_is(how, "badstack")) {
        HC2(stack_switch, KERNEL_SS, 0x1000);
        attempt(USER, end_ud2, 0, 0, 0, 0);
    } else if (word_is(how, "iret")) {
        hypercall(__HYPERVISOR_iret, 0, 0, 0, 0, 0);
    } else if (word_is(how, "poweroff") || word_is(how, "reboot") || word_is(how, "crash") || word_is(how, "reason200")) {
        finish(how[0] == 'p' ? 0 : how[0] == 'c' ? 3 : how[2] == 'b' ? 1 : 200);
    } else if (word_is(how, "triple")) {
#ifdef __x86_64__
        asm volatile("mov $0x1000, %rsp; ud2");
#else
        asm volatile("mov $0x1000, %esp; ud2");
#endif
    }
    say("still here\n");
    finish(SHUTDOWN_poweroff);
}
