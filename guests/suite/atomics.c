/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several vCPUs count with locked instructions, also across cache lines and pages, and order their stores with fences: nothing
 * is lost, and what x86 forbids is not seen. Documented: the processor manuals (memory ordering). domain: vcpus=3 memory=32
 */
#include "guest.h"

#define ROUNDS 3000
static volatile uint started, finished, stage;
static u8_t room[2 * 4096] ALIGNED(4096);
static volatile ulong plain, exchanged, by_cmpxchg, locked_by;
static volatile u64 wide ALIGNED(16);
static volatile ulong x, y, r1, r2, turn;

static void count(void)
{
    for (ulong i = 0; i < ROUNDS; i++) {
        asm volatile("lock inc%z0 %0" : "+m"(plain));
        asm volatile("lock addl $1, %0" : "+m"(*(u32 *)(room + 62)));       /* across two cache lines */
        u32 one = 1;
        asm volatile("lock xaddl %1, %0" : "+m"(*(u32 *)(room + 4094)), "+r"(one)); /* across two pages */
        __atomic_fetch_add(&exchanged, 1, __ATOMIC_SEQ_CST);
        for (ulong old = by_cmpxchg; !__atomic_compare_exchange_n(&by_cmpxchg, &old, old + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);)
            ;
        u32 lo, hi;
        u64 old = wide;
        do {
            lo = (u32)old;
            hi = (u32)(old >> 32);
            u64 new = old + 0x100000001ull;
            u8_t done;
            u32 nlo = (u32)new, nhi = (u32)(new >> 32);
            asm volatile("lock cmpxchg8b %0; setz %1" : "+m"(wide), "=q"(done), "+a"(lo), "+d"(hi) : "b"(nlo), "c"(nhi) : "cc");
            old = (u64)hi << 32 | lo;
            if (done)
                break;
        } while (1);
    }
}

static void other(void)
{
    __atomic_fetch_add(&started, 1, __ATOMIC_SEQ_CST);
    while (stage == 0)
        relax();
    count();
    __atomic_fetch_add(&finished, 1, __ATOMIC_SEQ_CST);
    if (this_cpu() == 1) /* the store buffers: with a fence, one of both sees the other's store */
        for (ulong seen = 0; seen != ~0ul;) {
            ulong now_ = __atomic_load_n(&turn, __ATOMIC_ACQUIRE);
            if (now_ == seen) {
                relax();
                continue;
            }
            seen = now_;
            y = 1;
            asm volatile("lock orl $0, (%%" SP ")" ::: "memory");
            r2 = x;
            __atomic_store_n(&locked_by, seen, __ATOMIC_RELEASE);
        }
    vcpu_op(VCPUOP_down, this_cpu(), NULL);
}

void guest(void)
{
    start_cpu(1, other);
    start_cpu(2, other);
    while (started < 2)
        relax();
    stage = 1;
    count();
    while (finished < 2)
        relax();
    EQ(plain, 3 * ROUNDS, "lock inc");
    EQ(*(u32 *)(room + 62), 3 * ROUNDS, "lock add across two cache lines");
    EQ(*(u32 *)(room + 4094), 3 * ROUNDS, "lock xadd across two pages");
    EQ(exchanged, 3 * ROUNDS, "xadd");
    EQ(by_cmpxchg, 3 * ROUNDS, "cmpxchg");
    EQ(wide, 3 * ROUNDS * 0x100000001ull, "cmpxchg8b");
    for (ulong i = 1; i <= 100; i++) {
        x = y = 0;
        __atomic_store_n(&turn, i, __ATOMIC_RELEASE);
        x = 1;
        asm volatile("lock orl $0, (%%" SP ")" ::: "memory");
        r1 = y;
        while (__atomic_load_n(&locked_by, __ATOMIC_ACQUIRE) != i)
            relax();
        if (!r1 && !r2)
            CHECK(0, "neither saw the other's store");
    }
    __atomic_store_n(&turn, ~0ul, __ATOMIC_RELEASE);
    while (vcpu_op(VCPUOP_is_up, 1, NULL))
        relax();
}
