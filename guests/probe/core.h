/*
 * What the probe's parts share: hypercalls, printing, and running an instruction to see what becomes of it.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PROBE_CORE_H
#define PROBE_CORE_H
#include <stddef.h>
#include <stdint.h>
#define __XEN_INTERFACE_VERSION__ 0x00040d00
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef unsigned long ulong;
#include <xen/xen.h>
#include <xen/callback.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>
#include <xen/io/console.h>
#include <xen/memory.h>
#include <xen/nmi.h>
#include <xen/physdev.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>

#define PAGE 4096
#define ALIGNED __attribute__((aligned(PAGE)))
#ifdef __x86_64__
#define VIRT_BASE 0xffffffff80000000ul
#define WIDTH 64
#define KERNEL_CS 0xe030
#define KERNEL_SS 0xe02b
#define XEN_PRIVATE 0xffff830000000000ul /* Xen's own memory */
#define NONCANONICAL 0x8000000000000000ul
typedef u64 pte_t;
#else
#define VIRT_BASE 0xc0000000ul
#define WIDTH 32
#define KERNEL_CS 0xe019
#define KERNEL_SS 0xe021
#define XEN_PRIVATE 0xff000000ul
#define NONCANONICAL 0xfffff000ul
typedef u64 pte_t;
#endif
#define UNMAPPED 0x1000ul

extern struct start_info *info;
extern struct shared_info *shared;
extern ulong first_regs[16]; /* at entry: sp flags cs ss ds es fs gs, then ax bx cx dx si di bp */
extern char pages[32][PAGE]; /* free for the tests */
extern char buf[PAGE];       /* an argument; zeroed by `zeroed()` */

long hypercall(ulong nr, ulong a, ulong b, ulong c, ulong d, ulong e);
#define HC0(nr) hypercall(__HYPERVISOR_##nr, 0, 0, 0, 0, 0)
#define HC1(nr, a) hypercall(__HYPERVISOR_##nr, (ulong)(a), 0, 0, 0, 0)
#define HC2(nr, a, b) hypercall(__HYPERVISOR_##nr, (ulong)(a), (ulong)(b), 0, 0, 0)
#define HC3(nr, a, b, c) hypercall(__HYPERVISOR_##nr, (ulong)(a), (ulong)(b), (ulong)(c), 0, 0)
#define HC4(nr, a, b, c, d) hypercall(__HYPERVISOR_##nr, (ulong)(a), (ulong)(b), (ulong)(c), (ulong)(d), 0)
#define HC5(nr, a, b, c, d, e) hypercall(__HYPERVISOR_##nr, (ulong)(a), (ulong)(b), (ulong)(c), (ulong)(d), (ulong)(e))

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void rc_text(long rc);              /* prints `= -EFAULT` or the number, and a new line */
void rc_sign(long rc);              /* the same, but any value that is not an error is `ok` */
void *zeroed(void);                 /* buf, all zero */
void *filled(void);                 /* buf, all ones */
void setup(void);                   /* trap table, callbacks and stack as the probe needs them: undoes what a test did */
void finish(unsigned int reason) __attribute__((noreturn));

ulong mfn_of(const void *va);
void *va_of_mfn(ulong mfn);
long map_page(const void *va, u64 pte, ulong flags);
pte_t pte_of(const void *va, u64 bits); /* the frame of va, with these bits */

struct seen {
    int vector; /* -1: none, it ran through */
    ulong error, ip, cs, flags, sp, ss, cr2;
    ulong regs[8]; /* ax bx cx dx si di bp, sp */
};
extern struct seen seen;
enum mode { KERNEL, USER };
/* Runs code (a SNIPPET) with these values in ax, cx, dx and bx; returns what happened, also kept in `seen`. */
int attempt(enum mode mode, const void *code, ulong ax, ulong cx, ulong dx, ulong bx);
void what_happened(void); /* prints `= ok` or `= #GP(0x10)` and a new line */

#define DONE "ud2\n.long 0x600dc0de\n"
#define SNIPPET(name, text) \
    extern const char name[]; \
    asm(".pushsection .text.snippets,\"ax\"\n" #name ":\n" text "\n" DONE ".popsection\n")

void probe_state(void);
void probe_calls(void);
void probe_named(void);
void probe_memory(void);
void probe_events(void);
void probe_insns(void);
void probe_segments(void);
void probe_msrs(void);
void probe_end(const char *how);
#endif
