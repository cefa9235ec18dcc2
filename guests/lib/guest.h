/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest of guests/suite may use. One guest, one concern: it defines `void guest(void)`, checks what it sees with
 * CHECK and EQ, and returns. The same source builds as a 64-bit and as a 32-bit (PAE) PV kernel; nothing here is
 * Domzero's own: the guests run on real Xen, too (docs/guide/guests.md).
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef GUEST_H
#define GUEST_H
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#define __XEN_INTERFACE_VERSION__ 0x00040d00
typedef uint8_t u8;
#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/io/console.h>
#include <xen/memory.h>
#include <xen/physdev.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>

typedef uint8_t u8_t;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef unsigned long ulong;
typedef unsigned int uint;
typedef u64 pte_t; /* an entry of any level: 64 bits in PAE, too */

#define PAGE 4096ul
#define MAX_CPUS 8
#define ALIGNED(n) __attribute__((aligned(n)))
#define USED __attribute__((used))
#define NOINLINE __attribute__((noinline))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Names of registers of either width, for inline assembly; ARG holds the first argument of a function. */
#ifdef __x86_64__
#define BITS 64
#define AX "rax"
#define BX "rbx"
#define CX "rcx"
#define DX "rdx"
#define SI "rsi"
#define DI "rdi"
#define BP "rbp"
#define SP "rsp"
#define ARG "rdi"
#define WORD ".quad"
#define PTE_LEVELS 4
#define VIRT_BASE 0xffffffff80000000ul
#define KERNEL_CS FLAT_KERNEL_CS64
#define FRAME_KERNEL_CS (FLAT_KERNEL_CS64 & ~3ul) /* a guest kernel's cs is shown with RPL 0 */
#define KERNEL_SS FLAT_KERNEL_SS64
#define USER_CS FLAT_USER_CS64
#define USER_SS FLAT_USER_SS64
#define USER_DS FLAT_RING3_DS32
#else
#define BITS 32
#define AX "eax"
#define BX "ebx"
#define CX "ecx"
#define DX "edx"
#define SI "esi"
#define DI "edi"
#define BP "ebp"
#define SP "esp"
#define ARG "eax"
#define WORD ".long"
#define PTE_LEVELS 3
#define VIRT_BASE 0xc0000000ul
#define KERNEL_CS FLAT_KERNEL_CS
#define FRAME_KERNEL_CS FLAT_KERNEL_CS
#define KERNEL_SS FLAT_KERNEL_SS
#define USER_CS FLAT_USER_CS
#define USER_SS FLAT_USER_SS
#define USER_DS FLAT_USER_DS
#endif

/* --- Xen's errno values (xen/errno.h has no names without a prefix) */
#define EPERM 1
#define ENOENT 2
#define ESRCH 3
#define EIO 5
#define ENXIO 6
#define E2BIG 7
#define EBADF 9
#define EAGAIN 11
#define ENOMEM 12
#define EACCES 13
#define EFAULT 14
#define EBUSY 16
#define EEXIST 17
#define EXDEV 18
#define ENODEV 19
#define EISDIR 21
#define EINVAL 22
#define ENOSPC 28
#define EROFS 30
#define ENOSYS 38
#define ENOTEMPTY 39
#define EISCONN 106
#define ENOTCONN 107
#define ETIME 62
#define EOPNOTSUPP 95

/* --- hypercalls (hypercall.c): as they are, and with structures */
long hypercall(uint nr, ulong a, ulong b, ulong c, ulong d, ulong e);
#define HC_1(nr, a) hypercall(nr, (ulong)(a), 0, 0, 0, 0)
#define HC_2(nr, a, b) hypercall(nr, (ulong)(a), (ulong)(b), 0, 0, 0)
#define HC_3(nr, a, b, c) hypercall(nr, (ulong)(a), (ulong)(b), (ulong)(c), 0, 0)
#define HC_4(nr, a, b, c, d) hypercall(nr, (ulong)(a), (ulong)(b), (ulong)(c), (ulong)(d), 0)
long mmu_update(u64 ptr, u64 val);                 /* one; ptr with its command in the low bits */
long mmuext(uint cmd, ulong arg1, ulong arg2);       /* one; arg1: mfn or linear address */
long update_va(ulong va, u64 pte, ulong flags);
long update_descriptor(u64 maddr, u64 descriptor);
long sched_op(uint cmd, void *arg);
long memory_op(uint cmd, void *arg);
long evtchn_op(uint cmd, void *arg);
long grant_op(uint cmd, void *arg, uint count);
long vcpu_op(uint cmd, uint vcpu, void *arg);
long version_op(uint cmd, void *arg);
long set_traps(const struct trap_info *table);
long set_debugreg(uint reg, ulong value);
ulong get_debugreg(uint reg);
long console_write(const char *text, size_t length);
long set_callback(uint type, void *entry, uint flags);
void shut_down(uint reason) __attribute__((noreturn));

/* --- console and verdict (main.c) */
extern struct start_info *info;
extern struct shared_info *shared;
/* The guest's name, in what it prints; guest.h defines it where the guest itself is compiled. */
extern const char guest_name[];
#ifdef NAME
const char guest_name[] = NAME;
#endif
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
void text(char *to, size_t room, const char *format, ...) __attribute__((format(printf, 3, 4)));
void fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
void skip(const char *why) __attribute__((noreturn));
void finish(void) __attribute__((noreturn));
extern uint failures;
#define CHECK(condition, ...) ((condition) ? (void)0 : fail(__FILE_NAME__, __LINE__, __VA_ARGS__))
#define EQ(got, want, what)                                                                                            \
    do {                                                                                                               \
        u64 got_ = (u64)(got), want_ = (u64)(want);                                                                    \
        CHECK(got_ == want_, "%s: %llx, not %llx", what, (unsigned long long)got_, (unsigned long long)want_);         \
    } while (0)
#define RC(got, want, what)                                                                                            \
    do {                                                                                                               \
        long got_ = (long)(got), want_ = (want);                                                                       \
        CHECK(got_ == want_, "%s: %ld, not %ld", what, got_, want_);                                                   \
    } while (0)

#define REFUSED(got, what)                                                                                             \
    do {                                                                                                               \
        long got_ = (long)(got);                                                                                       \
        CHECK(got_ < 0 && got_ > -200, "%s: %ld, but is to be refused", what, got_);                                   \
    } while (0)

void guest(void); /* the concern */

size_t length_of(const char *text);
int same_text(const char *a, const char *b);
void *memcpy(void *to, const void *from, size_t length);
void *memset(void *to, int value, size_t length);
int memcmp(const void *a, const void *b, size_t length);

/* --- traps (trap.c, entry.S) */
struct regs {
#ifdef __x86_64__
    ulong r15, r14, r13, r12, r11, r10, r9, r8;
#endif
    ulong ax, bx, cx, dx, si, di, bp;
#ifndef __x86_64__
    ulong ds, es, fs, gs;
#endif
    ulong vector, error, ip, cs, flags, sp, ss; /* 32-bit: sp and ss from user mode only */
};

enum { DE, DB, NMI, BP_, OF, BR, UD, NM, DF, CSO, TS, NP, SS_, GP, PF, SPV, MF, AC, MC, XM };
/* Entries that are no vectors. */
enum { EVENT = 256, FAILSAFE, SYSCALL, SYSCALL32, SYSENTER, NMI_CALLBACK };
#define NO_TRAP (-1)

struct trap {
    int vector; /* NO_TRAP: the code returned */
    ulong error, cr2;
    ulong value; /* what it returned */
    ulong ip, cs, flags, sp, ss;
};

/* Called first with any trap or event; true: handled, go on at regs. */
extern int (*trap_hook)(struct regs *regs);

/* Calls fn(arg) in the guest kernel, or in user mode; the first trap that the hook does not handle ends the call. */
struct trap try_kernel(ulong (*fn)(ulong), ulong arg);
struct trap try_user(ulong (*fn)(ulong), ulong arg);
struct trap try_user_at(ulong ip, ulong arg, ulong cs, ulong flags, ulong sp, ulong ss);
void expect(struct trap t, int vector, ulong error, const char *what);
void expect_at(struct trap t, int vector, ulong error, void *ip, const char *what);
extern char trap_stubs[];
extern char event_entry[], failsafe_entry[], syscall_entry[], syscall32_entry[], sysenter_entry[], nmi_entry[];
void set_gate(uint vector, void *address, uint flags);
void init_traps(void);
ulong user_stack_top(void);

/* A function of assembly text: its argument in ARG, its value in AX. The label NAME is its first instruction. */
#define ASM_FN(name, text)                                                                                             \
    ulong name(ulong);                                                                                                 \
    asm(".pushsection .text\n.balign 16\n.globl " #name "\n" #name ":\n" text "\n ret\n.popsection\n")

/* --- memory (memory.c) */
enum {
    P = 1, RW = 2, US = 4, PWT = 8, PCD = 16, A = 32, D = 64, PSE = 128, G = 256,
    AVAIL0 = 512, AVAIL1 = 1024, AVAIL2 = 2048
};
#define NX (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull
#define RWP (P | RW | US | A | D) /* an ordinary page */
#define ROP (P | US | A)          /* a read-only one */
#define POOL 96
extern char pool[POOL][PAGE]; /* mapped pages for any use: page_alloc gives them out, zeroed */
void *page_alloc(void);
ulong pfn_alloc(void); /* of a page that is not mapped */
ulong pfn_of(const void *va);
ulong mfn_of(const void *va);
ulong pfn_to_mfn(ulong pfn);
ulong mfn_to_pfn(ulong mfn);
pte_t *pte_of(ulong va, int level);  /* the (read-only) entry; level 1 is the leaf. NULL: a level above has none */
u64 pte_maddr(ulong va, int level); /* its machine address */
pte_t pte_for(ulong mfn, u64 flags);
ulong base_mfn(void);               /* of the kernel's top table */
pte_t *new_l1(ulong va); /* an L1 of our own behind va, whose L2 must have no entry there */
long protect(void *va, u64 flags); /* maps the page at va with other flags */
#define SCRATCH_VA (VIRT_BASE + 0x20000000ul) /* free for new_l1 */

/* --- events (event.c): bit operations on the 2-level table */
#define VCPU_INFO(cpu) (&shared->vcpu_info[cpu])
int pending(uint port);
void clear_port(uint port);
void mask_port(uint port);
void unmask_port(uint port);
uint own_domid(void);
void enable_events(void);
void disable_events(void);
u64 now(void); /* system time in ns from the time page */
extern volatile uint events_seen; /* upcalls */
extern void (*on_event)(uint port);

/* --- several vCPUs (smp.c) */
uint this_cpu(void);
int start_cpu(uint cpu, void (*fn)(void)); /* 0, or the errno */
uint cpu_count(void); /* how many this domain was given */
void relax(void);

static inline u64 rdtsc(void)
{
    u32 lo, hi;
    asm volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (u64)hi << 32 | lo;
}
static inline ulong flags_now(void)
{
    ulong flags;
    asm volatile("pushf; pop %0" : "=r"(flags)::"memory");
    return flags;
}
#endif
