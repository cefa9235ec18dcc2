/*
 * The probe's ground: entry, exceptions, console, and running one instruction in kernel or user mode.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdarg.h>
#include "core.h"

struct start_info *info;
struct shared_info *shared;
struct seen seen;
ulong first_regs[16];
char pages[32][PAGE] ALIGNED;
char buf[PAGE] ALIGNED;
static char shared_page[PAGE] ALIGNED;
static char user_stack[PAGE] ALIGNED;
#ifdef __x86_64__
static char user_l4[PAGE] ALIGNED;
#endif
char trap_stack[2 * PAGE] ALIGNED;
ulong jump_sp;   /* where an attempt goes back to */
ulong saved[7];  /* registers at an exception */
static struct xencons_interface *cons;

/* --- hypercalls */

#ifdef __x86_64__
long hypercall(ulong nr, ulong a, ulong b, ulong c, ulong d, ulong e)
{
    register ulong r10 asm("r10") = d;
    register ulong r8 asm("r8") = e;
    asm volatile("syscall" : "+a"(nr), "+D"(a), "+S"(b), "+d"(c), "+r"(r10), "+r"(r8)::"rcx", "r11", "r9", "memory");
    return (long)nr;
}
#else
long hypercall(ulong nr, ulong a, ulong b, ulong c, ulong d, ulong e)
{
    asm volatile("int $0x82" : "+a"(nr), "+b"(a), "+c"(b), "+d"(c), "+S"(d), "+D"(e)::"memory");
    return (long)nr;
}
#endif

ulong mfn_of(const void *va)
{
    return ((ulong *)info->mfn_list)[((ulong)va - VIRT_BASE) / PAGE];
}

void *va_of_mfn(ulong mfn)
{
    return (void *)(VIRT_BASE + ((ulong *)HYPERVISOR_VIRT_START)[mfn] * PAGE);
}

pte_t pte_of(const void *va, u64 bits)
{
    return ((u64)mfn_of(va) << 12) | bits;
}

long map_page(const void *va, u64 pte, ulong flags)
{
#ifdef __x86_64__
    return HC3(update_va_mapping, va, pte, flags);
#else
    return HC4(update_va_mapping, va, (ulong)pte, (ulong)(pte >> 32), flags);
#endif
}

void *zeroed(void)
{
    for (int i = 0; i < PAGE; i++)
        ((volatile char *)buf)[i] = 0;
    return buf;
}

void *filled(void)
{
    for (int i = 0; i < PAGE; i++)
        ((volatile char *)buf)[i] = (char)0xff;
    return buf;
}

/* --- console */

/* The backend is told when the ring is full, and at the end: it takes few events a second. */
static int careful; /* each line is out before the next test: finds the one that hangs */

static void drain(u32 room)
{
    evtchn_port_t port = info->console.domU.evtchn;
    struct evtchn_send send = {.port = port};
    struct sched_poll poll = {.nr_ports = 1, .timeout = 0};
    set_xen_guest_handle(poll.ports, &port);
    HC2(event_channel_op, EVTCHNOP_send, &send);
    for (;;) {
        __atomic_fetch_and(&shared->evtchn_pending[port / WIDTH], ~(1ul << (port % WIDTH)), __ATOMIC_SEQ_CST);
        if (sizeof(cons->out) - (cons->out_prod - __atomic_load_n(&cons->out_cons, __ATOMIC_ACQUIRE)) >= room)
            return;
        HC2(sched_op, SCHEDOP_poll, &poll);
    }
}

static void put(char c)
{
    if (cons->out_prod - __atomic_load_n(&cons->out_cons, __ATOMIC_ACQUIRE) == sizeof(cons->out))
        drain(1);
    cons->out[MASK_XENCONS_IDX(cons->out_prod, cons->out)] = c;
    __atomic_store_n(&cons->out_prod, cons->out_prod + 1, __ATOMIC_RELEASE);
    if (careful && c == '\n')
        drain(sizeof(cons->out));
}

void finish(unsigned int reason)
{
    struct sched_shutdown shutdown = {.reason = reason};
    drain(sizeof(cons->out));
    for (;;)
        HC2(sched_op, SCHEDOP_shutdown, &shutdown);
}

static void put_number(ulong value, unsigned int base)
{
    char text[24];
    int n = 0;
    do
        text[n++] = "0123456789abcdef"[value % base];
    while (value /= base);
    while (n)
        put(text[--n]);
}

/* %s, %d (long), %x (unsigned long) */
void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    for (; *format; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        while (*++format == 'l')
            ;
        if (*format == 's') {
            for (const char *text = va_arg(args, const char *); *text; text++)
                put(*text);
        } else if (*format == 'd') {
            long value = va_arg(args, long);
            if (value < 0)
                put('-');
            put_number(value < 0 ? -(ulong)value : (ulong)value, 10);
        } else {
            put('0');
            put('x');
            put_number(va_arg(args, ulong), 16);
        }
    }
    va_end(args);
}

static const struct {
    int number;
    const char *name;
} errors[] = {
    {1, "EPERM"}, {2, "ENOENT"}, {3, "ESRCH"}, {4, "EINTR"}, {5, "EIO"}, {6, "ENXIO"}, {7, "E2BIG"}, {8, "ENOEXEC"},
    {9, "EBADF"}, {10, "ECHILD"}, {11, "EAGAIN"}, {12, "ENOMEM"}, {13, "EACCES"}, {14, "EFAULT"}, {16, "EBUSY"},
    {17, "EEXIST"}, {18, "EXDEV"}, {19, "ENODEV"}, {20, "ENOTDIR"}, {21, "EISDIR"}, {22, "EINVAL"}, {23, "ENFILE"},
    {28, "ENOSPC"}, {30, "EROFS"}, {31, "EMLINK"}, {33, "EDOM"}, {34, "ERANGE"}, {35, "EDEADLK"}, {38, "ENOSYS"},
    {61, "ENODATA"}, {62, "ETIME"}, {74, "EBADMSG"}, {75, "EOVERFLOW"}, {84, "EILSEQ"}, {85, "ERESTART"},
    {95, "EOPNOTSUPP"}, {105, "ENOBUFS"}, {114, "EALREADY"},
};

void rc_text(long rc)
{
    if (rc < 0)
        for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
            if (errors[i].number == -rc) {
                say("= -%s\n", errors[i].name);
                return;
            }
    if (rc < -4095 || rc > 0xffff)
        say("= %lx\n", (ulong)rc);
    else
        say("= %ld\n", rc);
}

void rc_sign(long rc)
{
    if (rc >= 0)
        say("= ok\n");
    else
        rc_text(rc);
}

/* --- exceptions: each is noted and ends the attempt */

void trapped(ulong *frame, ulong vector)
{
    static const u32 with_error = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21;
    ulong kind = vector & 0xff;
#ifdef __x86_64__
    frame += 2; /* rcx r11 */
#endif
    seen.error = kind < 32 && (with_error >> kind & 1) ? *frame++ : 0;
    seen.vector = (int)kind;
    seen.ip = frame[0];
    seen.cs = frame[1];
    seen.flags = frame[2];
    if (WIDTH == 64 || (seen.cs & 3) == 3) {
        seen.sp = frame[3];
        seen.ss = frame[4];
    }
    seen.cr2 = (ulong)shared->vcpu_info[0].arch.cr2;
    for (int i = 0; i < 7; i++)
        seen.regs[i] = saved[i];
    if (kind == 6 && *(const u32 *)(seen.ip + 2) == 0x600dc0de)
        seen.vector = -1;
    if (!jump_sp) {
        say("unexpected exception %ld error %lx ip %lx\n", (long)kind, seen.error, seen.ip);
        finish(SHUTDOWN_crash);
    }
}

#ifdef __x86_64__
asm(".text\n"
    ".globl _start\n"
    ".section .text.start,\"ax\"\n"
    "_start: mov %rsp, first_regs(%rip)\n"
    "        lea trap_stack+8192(%rip), %rsp\n"
    "        push %rax\n mov %rax, first_regs+64(%rip)\n mov %rbx, first_regs+72(%rip)\n"
    "        mov %rcx, first_regs+80(%rip)\n mov %rdx, first_regs+88(%rip)\n mov %rsi, first_regs+96(%rip)\n"
    "        mov %rdi, first_regs+104(%rip)\n mov %rbp, first_regs+112(%rip)\n"
    "        pushf\n pop first_regs+8(%rip)\n"
    "        mov %cs, first_regs+16(%rip)\n mov %ss, first_regs+24(%rip)\n mov %ds, first_regs+32(%rip)\n"
    "        mov %es, first_regs+40(%rip)\n mov %fs, first_regs+48(%rip)\n mov %gs, first_regs+56(%rip)\n"
    "        cld\n"
    "        mov %rsi, %rdi\n"
    "        lea main_stack_top(%rip), %rsp\n"
    "        xor %ebp, %ebp\n"
    "        call probe_main\n"
    ".text\n"
    "entry_common:\n"
    "        mov %rax, saved(%rip)\n mov %rbx, saved+8(%rip)\n mov %rcx, saved+16(%rip)\n"
    "        mov %rdx, saved+24(%rip)\n mov %rsi, saved+32(%rip)\n mov %rdi, saved+40(%rip)\n"
    "        mov %rbp, saved+48(%rip)\n"
    "        mov 8(%rsp), %rax\n mov %rax, saved+16(%rip)\n"
    "        pop %rsi\n"
    "        mov %rsp, %rdi\n"
    "        and $-16, %rsp\n"
    "        cld\n"
    "        call trapped\n"
    "        mov jump_sp(%rip), %rsp\n"
    "        movq $0, jump_sp(%rip)\n"
    "        pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n popf\n"
    "        ret\n"
    ".globl entries\n"
    ".balign 16\n"
    "entries:\n"
    ".set vector, 0\n"
    ".rept 260\n"
    ".balign 16\n"
    "        push $vector\n"
    "        jmp entry_common\n"
    ".set vector, vector + 1\n"
    ".endr\n"
    /* run_kernel(code, regs) and run_user(frame, regs): regs = ax cx dx bx */
    ".globl run_kernel\n"
    "run_kernel:\n"
    "        pushf\n push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
    "        mov %rsp, jump_sp(%rip)\n"
    "        mov %rdi, %r15\n"
    "        mov (%rsi), %rax\n mov 8(%rsi), %rcx\n mov 16(%rsi), %rdx\n mov 24(%rsi), %rbx\n"
    "        sub $256, %rsp\n"
    "        jmp *%r15\n"
    ".globl run_user\n"
    "run_user:\n"
    "        pushf\n push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
    "        mov %rsp, jump_sp(%rip)\n"
    "        mov %rdi, %rsp\n"
    "        mov 16(%rsi), %rdx\n mov 24(%rsi), %rbx\n"
    "        mov $23, %eax\n"
    "        syscall\n"
    "        ud2\n"
    ".bss\n .balign 16\n .skip 32768\n main_stack_top:\n .text\n");
#else
asm(".globl _start\n"
    ".section .text.start,\"ax\"\n"
    "_start: mov %esp, first_regs\n"
    "        mov $trap_stack+8192, %esp\n"
    "        mov %eax, first_regs+32\n mov %ebx, first_regs+36\n mov %ecx, first_regs+40\n mov %edx, first_regs+44\n"
    "        mov %esi, first_regs+48\n mov %edi, first_regs+52\n mov %ebp, first_regs+56\n"
    "        pushf\n popl first_regs+4\n"
    "        mov %cs, first_regs+8\n mov %ss, first_regs+12\n mov %ds, first_regs+16\n"
    "        mov %es, first_regs+20\n mov %fs, first_regs+24\n mov %gs, first_regs+28\n"
    "        cld\n"
    "        mov $main_stack_top, %esp\n"
    "        xor %ebp, %ebp\n"
    "        push %esi\n"
    "        call probe_main\n"
    ".text\n"
    "entry_common:\n"
    /* Coming from ring 3, ds is null: iret to there has dropped the selector of ring 1. */
    "        mov %eax, %ss:saved\n mov %ebx, %ss:saved+4\n mov %ecx, %ss:saved+8\n"
    "        mov %edx, %ss:saved+12\n mov %esi, %ss:saved+16\n mov %edi, %ss:saved+20\n"
    "        mov %ebp, %ss:saved+24\n"
    "        pop %esi\n"
    "        mov %esp, %edi\n"
    "        and $-16, %esp\n"
    "        sub $8, %esp\n"
    "        cld\n"
    "        push %esi\n push %edi\n"
    "        mov %ss, %eax\n mov %eax, %ds\n mov %eax, %es\n"
    "        call trapped\n"
    "        mov jump_sp, %esp\n"
    "        movl $0, jump_sp\n"
    "        pop %edi\n pop %esi\n pop %ebp\n pop %ebx\n popf\n"
    "        ret\n"
    ".globl entries\n"
    ".balign 16\n"
    "entries:\n"
    ".set vector, 0\n"
    ".rept 260\n"
    ".balign 16\n"
    "        push $vector\n"
    "        jmp entry_common\n"
    ".set vector, vector + 1\n"
    ".endr\n"
    ".globl run_kernel\n"
    "run_kernel:\n"
    "        mov 4(%esp), %eax\n mov 8(%esp), %edx\n"
    "        pushf\n push %ebx\n push %ebp\n push %esi\n push %edi\n"
    "        mov %esp, jump_sp\n"
    "        mov %eax, %edi\n mov %edx, %esi\n"
    "        mov (%esi), %eax\n mov 4(%esi), %ecx\n mov 8(%esi), %edx\n mov 12(%esi), %ebx\n"
    "        sub $256, %esp\n"
    "        jmp *%edi\n"
    ".globl run_user\n"
    "run_user:\n"
    "        mov 4(%esp), %eax\n mov 8(%esp), %edx\n"
    "        pushf\n push %ebx\n push %ebp\n push %esi\n push %edi\n"
    "        mov %esp, jump_sp\n"
    "        mov %eax, %esp\n mov %edx, %esi\n"
    "        mov $0xe033, %eax\n mov %eax, %ds\n mov %eax, %es\n"
    "        mov 4(%esi), %ecx\n mov 8(%esi), %edx\n mov 12(%esi), %ebx\n"
    "        mov $23, %eax\n"
    "        int $0x82\n"
    "        ud2\n"
    ".bss\n .balign 16\n .skip 32768\n main_stack_top:\n .text\n");
#endif

extern const char entries[];
long run_kernel(const void *code, const ulong *regs);
long run_user(const ulong *frame, const ulong *regs);

int attempt(enum mode mode, const void *code, ulong ax, ulong cx, ulong dx, ulong bx)
{
    ulong regs[4] = {ax, cx, dx, bx};
    if (mode == KERNEL) {
        run_kernel(code, regs);
        return seen.vector;
    }
#ifdef __x86_64__
    ulong frame[] = {ax, 0, cx, 0, (ulong)code, 0xe033, 2, (ulong)user_stack + PAGE - 256, 0xe02b};
#else
    ulong frame[] = {ax, (ulong)code, 0xe02b, 2, (ulong)user_stack + PAGE - 256, 0xe033};
#endif
    run_user(frame, regs);
    return seen.vector;
}

static const char *const vectors[] = {"DE", "DB", "NMI", "BP", "OF", "BR", "UD", "NM", "DF", "9", "TS", "NP", "SS",
                                      "GP", "PF", "15", "MF", "AC", "MC", "XM", "VE", "CP"};

void what_happened(void)
{
    static const u32 with_error = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21;
    if (seen.vector < 0)
        say("= ok\n");
    else if (seen.vector < 22 && (with_error >> seen.vector & 1))
        say("= #%s(%lx)\n", vectors[seen.vector], seen.error);
    else if (seen.vector < 22)
        say("= #%s\n", vectors[seen.vector]);
    else
        say("= vector %ld\n", (long)seen.vector);
}

/* --- the state the probe needs */

void setup(void)
{
    static struct trap_info traps[258];
    for (int i = 0; i < 256; i++) {
        traps[i].vector = (u8)i;
        traps[i].flags = 3 | 4;
        traps[i].cs = KERNEL_CS;
        traps[i].address = (ulong)entries + 16ul * (ulong)i;
    }
    traps[0x82].address = 0;
    traps[256].address = 0;
    HC1(set_trap_table, traps);
    traps[0x82].address = (ulong)entries + 16ul * 0x82;
#ifdef __x86_64__
    HC3(set_callbacks, entries + 16 * 256, entries + 16 * 257, entries + 16 * 258);
#else
    HC4(set_callbacks, KERNEL_CS, entries + 16 * 256, KERNEL_CS, entries + 16 * 257);
#endif
    HC2(stack_switch, KERNEL_SS, trap_stack + 2 * PAGE);
#ifdef __x86_64__
    struct mmuext_op op = {.cmd = MMUEXT_NEW_USER_BASEPTR, .arg1.mfn = mfn_of(user_l4)};
    HC4(mmuext_op, &op, 1, 0, DOMID_SELF);
#endif
}

static void setup_user(void)
{
#ifdef __x86_64__
    struct mmuext_op op = {.cmd = MMUEXT_PIN_L4_TABLE};
    const u64 *l4 = (const u64 *)info->pt_base;
    for (int i = 0; i < 512; i++)
        ((u64 *)user_l4)[i] = i < 256 || i > 271 ? l4[i] : 0;
    if (map_page(user_l4, pte_of(user_l4, 0x25), UVMF_INVLPG))
        say("user table: not made read-only\n");
    op.arg1.mfn = mfn_of(user_l4);
    if (HC4(mmuext_op, &op, 1, 0, DOMID_SELF))
        say("user table: not pinned\n");
#else
    extern const char snippets_start[], snippets_end[];
    for (const char *page = (const char *)((ulong)snippets_start & -PAGE); page < snippets_end; page += PAGE)
        map_page(page, pte_of(page, 0x67), UVMF_INVLPG);
    map_page(user_stack, pte_of(user_stack, 0x67), UVMF_INVLPG);
    for (int i = 0; i < 32; i++)
        map_page(pages[i], pte_of(pages[i], 0x67), UVMF_INVLPG);
#endif
}

void probe_main(struct start_info *start) __attribute__((noreturn));
void probe_main(struct start_info *start)
{
    static const struct {
        const char *word;
        void (*part)(void);
    } parts[] = {{"state", probe_state},   {"calls", probe_calls},       {"named", probe_named}, {"memory", probe_memory},
                 {"events", probe_events}, {"insns", probe_insns}, {"segments", probe_segments}, {"msrs", probe_msrs}};
    const char *words = (const char *)start->cmd_line;
    info = start;
    map_page(shared_page, (u64)info->shared_info | 0x67, UVMF_INVLPG);
    shared = (struct shared_info *)shared_page;
    cons = va_of_mfn(info->console.domU.mfn);
    setup_user();
    setup();
    if (words[0] == 'e' && words[1] == 'n' && words[2] == 'd')
        probe_end(words + 4);
    if (words[0] == '!') {
        careful = 1;
        words++;
    }
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        size_t n = 0;
        while (parts[i].word[n] && words[n] == parts[i].word[n])
            n++;
        if (!words[0] || !parts[i].word[n]) {
            parts[i].part();
            setup();
        }
    }
    say("done\n");
    finish(SHUTDOWN_poweroff);
}

void *memcpy(void *to, const void *from, size_t length)
{
    for (size_t i = 0; i < length; i++)
        ((volatile char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memset(void *to, int value, size_t length)
{
    for (size_t i = 0; i < length; i++)
        ((volatile char *)to)[i] = (char)value;
    return to;
}
#define STR2(x) #x
#define STR(x) STR2(x)
#ifdef __x86_64__
#define WORD ".quad "
#else
#define WORD ".long "
#endif
asm(".macro xen_note type, value:vararg\n"
    ".pushsection .note.Xen, \"a\", @note\n"
    ".balign 4\n.long 4, 2f - 1f, \\type\n.asciz \"Xen\"\n1: \\value\n2: .balign 4\n"
    ".popsection\n"
    ".endm\n"
    "xen_note 1, " WORD "_start\n"
#ifdef __x86_64__
    "xen_note 3, .quad 0xffffffff80000000\n"
    "xen_note 4, .quad 0xffffffff80000000\n"
#else
    "xen_note 3, .long 0xc0000000\n"
    "xen_note 4, .long 0xc0000000\n"
    "xen_note 9, .asciz \"yes\"\n"
    "xen_note 13, .quad 1, 1\n"
#endif
    "xen_note 5, .asciz \"xen-3.0\"\n"
    "xen_note 6, .asciz \"domzero probe\"\n"
    "xen_note 8, .asciz \"generic\"\n"
    ".text\n");
