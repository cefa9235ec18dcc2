// SPDX-License-Identifier: Apache-2.0
/*
 * What 32-bit programs do, without a C library: a line for each part, with a sum of its results, which are the same on every
 * processor. Calls, strings, x87, MMX and SSE2, instructions that 64-bit code has not, segments with a base, 64-bit code in
 * between, faults, code that is written, a process. Built with -m32 -static -nostdlib.
 */
#define _MM_MALLOC_H_INCLUDED /* needs a C library */
#include <emmintrin.h>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { EXIT = 1, FORK, WRITE = 4, WAITPID = 7, MMAP = 90, SIGACTION = 174, SET_THREAD_AREA = 243 };
#define AREA (5 * 4096)

static u32 sum, flags_sum; /* the second: of flags that only handlers of signals see */
static u8 bytes[AREA] __attribute__((aligned(4096))), others[AREA] __attribute__((aligned(4096)));

static int sys(int number, u32 a, const void *b, u32 c, u32 d)
{
    asm volatile("int $0x80" : "+a"(number) : "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
    return number;
}

void *memset(void *to, int value, u32 count)
{
    void *end = to;
    asm volatile("rep stosb" : "+D"(end), "+c"(count) : "a"(value) : "memory");
    return to;
}

static void mix(u32 value)
{
    sum = (sum << 5 | sum >> 27) ^ value * 0x9e3779b1u;
}

static u32 dice(void)
{
    static u32 state = 0x12345678;
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    return state;
}

static void say(const char *name)
{
    char line[40] = "COMPAT ";
    u32 length = 7;
    while (*name)
        line[length++] = *name++;
    line[length++] = ' ';
    for (int shift = 28; shift >= 0; shift -= 4)
        line[length++] = "0123456789abcdef"[sum >> shift & 15];
    line[length++] = '\n';
    sys(WRITE, 1, line, length, 0);
}

static __attribute__((noinline)) u32 fib(u32 n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static __attribute__((noinline, stdcall)) u32 third(u32 a, u32 b, u32 c)
{
    return a ^ b >> 3 ^ c << 7;
}

static __attribute__((noinline, regparm(3))) u32 turned(u32 a, u32 b, u32 c)
{
    return third(c, a, b) + 1;
}

static void calls(void)
{
    static u32 (*volatile const of[2])(u32) = {fib, fib};
    mix(fib(18));
    for (u32 i = 0; i < 200; i++) {
        mix(of[i & 1](i % 8) + third(i, dice(), 3) + turned(i, 5, dice()));
        switch (dice() % 7) {
        case 0: mix(i); break;
        case 1: mix(~i); break;
        case 2: mix(i * 3); break;
        case 3: mix(i / 7); break;
        case 4: mix(i % 11); break;
        case 5: mix(i << (i & 31)); break;
        default: mix((u32)(((int)i - 100) >> 3));
        }
    }
}

/* Strings of each width, forwards and backwards, over the ends of pages. */
static void strings(void)
{
    for (u32 i = 0; i < AREA; i++)
        bytes[i] = (u8)dice();
    for (u32 i = 0; i < 120; i++) {
        u32 count = dice() % 600, at = dice() % (AREA - 2600), to = dice() % (AREA - 2600), left;
        u8 *from = bytes + at, *into = others + to;
        switch (i % 8) {
        case 0: asm volatile("rep movsb" : "+S"(from), "+D"(into), "+c"(count) :: "memory"); break;
        case 1: asm volatile("rep movsl" : "+S"(from), "+D"(into), "+c"(count) :: "memory"); break;
        case 2: asm volatile("rep stosl" : "+D"(into), "+c"(count) : "a"(dice()) : "memory"); break;
        case 3: asm volatile("rep stosw" : "+D"(into), "+c"(count) : "a"(dice()) : "memory"); break;
        case 4: asm volatile("repne scasb" : "+D"(into), "+c"(count) : "a"(dice())); break;
        case 5: asm volatile("repe cmpsb" : "+S"(from), "+D"(into), "+c"(count)); break;
        case 6:
            from += count, into += count;
            asm volatile("std; rep movsb; cld" : "+S"(from), "+D"(into), "+c"(count) :: "memory");
            break;
        default:
            for (left = count; left; left--)
                *into++ = *from++;
        }
        mix(count), mix((u32)(from - bytes)), mix((u32)(into - others));
    }
    for (u32 i = 0; i < AREA; i += 4)
        mix(*(u32 *)(others + i));
    memset(bytes, 1, AREA);
    for (u32 i = 2; i * i < AREA; i++)
        if (bytes[i])
            for (u32 j = i * i; j < AREA; j += i)
                bytes[j] = 0;
    for (u32 i = 2; i < AREA; i++)
        if (bytes[i])
            mix(i);
}

static void x87(void)
{
    static const u16 controls[] = {0x037f, 0x007f, 0x027f, 0x077f, 0x0b7f, 0x0f7f};
    volatile double numbers[8];
    union {
        long double value;
        u32 words[3];
    } out;
    for (u32 i = 0; i < 300; i++) {
        u16 control = controls[i % 6], status;
        int whole = (int)dice(), n;
        asm volatile("fldcw %0" :: "m"(control));
        for (u32 j = 0; j < 8; j++)
            numbers[j] = (double)(int)dice() / (double)(1 + dice() % 1000);
        out.words[2] = 0;
        out.value = (long double)numbers[0] * numbers[1] + numbers[2] / numbers[3] - numbers[4];
        mix(out.words[0]), mix(out.words[1]), mix(out.words[2] & 0xffff);
        asm volatile("fldl %2; fabs; fsqrt; fistl %0; fxam; fnstsw %1; fstp %%st" : "=m"(n), "=a"(status) : "m"(numbers[5]));
        mix((u32)n), mix(status & 0x4700);
        asm volatile("fildl %2; fldl %3; fcomip %%st(1), %%st; fstps %0; seta %b1" : "=m"(n), "=q"(status) : "m"(whole), "m"(numbers[6]));
        mix((u32)n), mix(status & 1);
        asm volatile("fldl %2; fldl %3; fprem; fstpt %0; fstp %%st; fnstsw %1" : "=m"(out.value), "=a"(status) : "m"(numbers[6]), "m"(numbers[7]));
        mix(out.words[0]), mix(out.words[1]), mix(out.words[2] & 0xffff);
    }
    asm volatile("fninit");
}

static void vectors(void)
{
    __m128i a = _mm_set_epi32(1, 2, 3, 4), b = _mm_set1_epi32(0x01010101);
    for (u32 i = 0; i < 200; i++) {
        __m128i from = _mm_loadu_si128((const __m128i *)(others + dice() % (AREA - 16)));
        a = _mm_add_epi32(_mm_madd_epi16(a, from), _mm_xor_si128(b, from));
        b = _mm_sad_epu8(b, _mm_shuffle_epi32(a, 0x1b));
        _mm_storeu_si128((__m128i *)(others + dice() % (AREA - 16)), a);
        mix((u32)_mm_cvtsi128_si32(b));
        __m128d d = _mm_div_pd(_mm_cvtepi32_pd(a), _mm_set1_pd(3));
        mix((u32)_mm_cvttsd_si32(_mm_sqrt_pd(_mm_mul_pd(d, d))));
    }
    u32 low;
    asm volatile("movd %1, %%mm0; punpcklbw %%mm0, %%mm0; paddw %%mm0, %%mm0; movd %%mm0, %0; emms" : "=r"(low) : "r"(dice()));
    mix(low);
}

/* What 64-bit code has not, or has as something else. */
static void narrow(void)
{
    static const u64 bounds = (u64)(~0u >> 1) << 32;
    static union {
        u64 first;
        u32 words[64];
    } memory;
    u32 *words = memory.words;
    for (u32 i = 0; i < 150; i++) {
        u32 a = dice(), b = dice(), c = dice(), at = dice() % 2048, flags;
        asm volatile("pusha; xorl %%eax, %%eax; incl %%eax; decl %%ebx; addl %%eax, 16(%%esp); popa" : "+b"(b) : "a"(a), "c"(c), "d"(i), "S"(a), "D"(c));
        mix(b);
        asm volatile("aam; aad; daa; das; aaa; aas; movzwl %%ax, %%eax" : "+a"(a));
        mix(a);
        asm volatile("xlat; cwtl; cltd; stc; .byte 0xd6" : "=a"(a), "=d"(c) : "a"(i & 255), "b"(bytes));
        mix(a), mix(c);
        asm volatile("pushw %%bx; pushw %%bx; popl %0; bound %%ecx, %2; into" : "=a"(a) : "b"(b), "m"(bounds), "c"(i));
        mix(a);
        asm volatile("push %%es; push %%ds; pop %%es; pop %%es; les %1, %0" : "=r"(a) : "m"(*&(struct {
            u32 offset; u16 es; }){b, ({ u16 es; asm("mov %%es, %0" : "=r"(es)); es; })}));
        mix(a);
        asm volatile("addr16 lea 0x12(%%bx,%%si), %0; addr16 lea -3(%%di), %1" : "=&r"(a), "=&r"(c) : "b"(b), "S"(i), "D"(at));
        mix(a), mix(c);
        asm volatile("btsl %2, %0; setc %b1; btcl %3, %0; lock btrl %4, %0" : "+m"(memory), "=q"(a) : "r"(at), "r"(at / 2), "r"(at / 3), "1"(0));
        mix(a);
        asm volatile("cmpxchg8b %0; setz %%al" : "+m"(memory.first), "=A"(*(u64 *)&(u64){0}) : "A"((u64)words[1] << 32 | words[0]), "b"(a), "c"(c));
        asm volatile("lock xaddl %0, %1; xchgl %0, %2" : "+r"(a), "+m"(words[at % 64]), "+m"(words[i % 64]));
        mix(a);
        asm volatile("shldl %%cl, %2, %0; cmpl %0, %2; pushfl; popl %1" : "+r"(b), "=r"(flags) : "r"(a), "c"(i));
        mix(b), mix(flags & 0x8d5);
        asm volatile("pushl %2; popfl; adcl %0, %0; sbbl $3, %0; lahf; movzbl %%ah, %1" : "+r"(b), "=&a"(a) : "r"((flags & 0x8d5) | 2));
        mix(b), mix(a);
        asm volatile("enter $24, $2; movl %%ebx, -12(%%ebp); movl -12(%%ebp), %0; leave; pushl %%fs; popl %%ecx; jecxz 1f; nop; 1: nop"
                     : "=a"(a) : "b"(b) : "ecx", "memory");
        mix(a);
        asm volatile("1: leal 7(%0,%1,4), %0; loop 1b" : "+r"(b), "+c"(*&(u32){i % 9 + 1}));
        mix(b);
        asm volatile("addr16 loop 1f; incl %0; 1: movw $0x1234, %w0; pushl $1f; ret $0; 1:" : "+r"(b), "+c"(*&(u32){i % 3}) :: "memory");
        mix(b);
        asm volatile("mull %2; divl %3" : "+a"(b), "=&d"(a) : "r"(dice() >> 1), "r"(dice() | 1u << 31));
        mix(b), mix(a);
        mix((u32)((int)b / (int)(dice() | 1)));
    }
    for (u32 i = 0; i < 64; i++)
        mix(words[i]);
}

struct descriptor {
    u32 entry, base, limit, flags;
};

/* Loads fs, gs and ds of a descriptor with a base; a page with a limit behind which it faults is of `faults`. */
static u16 segment(void *base, u32 limit, u32 flags)
{
    struct descriptor wanted = {~0u, (u32)base, limit, flags};
    if (sys(SET_THREAD_AREA, (u32)&wanted, 0, 0, 0))
        say("no descriptor");
    return (u16)(wanted.entry << 3 | 3);
}

static void segments(void)
{
    u16 wide = segment(bytes, 0xfffff, 0x51), small = segment(bytes, 0xfff, 0x41); /* 32-bit, usable; the first in pages */
    for (u32 i = 0; i < 100; i++) {
        u32 at = dice() % 4000, a, b;
        asm volatile("movw %w2, %%gs; movw %w3, %%fs; movl %%gs:(%4), %0; addl %%fs:4(%4), %0; movl %0, %%gs:8(%4);"
                     "pushl %%ds; movw %w2, %%ds; movl (%4), %1; xorb $0x5a, 3(%4); incl 4(%4); popl %%ds"
                     : "=&r"(a), "=&r"(b) : "r"((u32)(i & 1 ? wide : small)), "r"((u32)wide), "r"(at) : "memory");
        mix(a), mix(b);
    }
    asm volatile("movw %w0, %%fs; movw %w0, %%gs" :: "r"(0));
    for (u32 i = 0; i < 4096; i += 4)
        mix(*(u32 *)(bytes + i));
}

/* The registers' upper halves are anything when 64-bit code comes back. */
static void long_code(void)
{
    for (u32 i = 0; i < 100; i++) {
        u32 a = i, b = dice();
        asm volatile("pushl %%cs; pushl $2f; movl %%cs, %%ecx; addl $16, %%ecx; pushl %%ecx; pushl $1f; lretl\n"
                     ".code64\n"
                     "1: movabs $0x123456789abcdef0, %%r9; mov %%r9, %%r12; shl $32, %%r9; or %%r9, %%rax; or %%r9, %%rbx; or %%r9, %%rdi\n"
                     "or %%r9, %%rsi; or %%r9, %%rdx; imul %%rbx, %%r12; mov %%r12, %%rcx; shr $17, %%rcx\n"
                     "lea (%%rsp), %%r11; mov (%%r11), %%r11d; lretl\n"
                     ".code32\n"
                     "2: movl (%%edi), %%eax; addl %%ecx, 4(%%edi); pushl %%ebx; popl %%ebx; incl %%eax"
                     : "=a"(a), "+b"(b) : "D"(bytes + (i & ~3u)), "a"(a), "S"(0), "d"(0) : "ecx", "memory");
        mix(a), mix(b), mix(*(u32 *)(bytes + (i & ~3u) + 4));
    }
}

/* A word of the context (asm/sigcontext.h, 32-bit) that a handler is given. */
enum { EDI = 4, ESI, EBP, ESP, EBX, EDX, ECX, EAX, TRAPNO, ERR, EIP, CS, EFLAGS };

static void handler(int number, void *info, u32 *context)
{
    u32 *registers = context + 5; /* behind uc_flags, uc_link and uc_stack */
    u8 *code = (u8 *)registers[EIP + 0];
    (void)info;
    mix((u32)number), mix(registers[TRAPNO]), mix(registers[EAX]), mix(registers[EBX]), mix(registers[ECX]);
    flags_sum = flags_sum * 31 + (registers[EFLAGS] & 0x8d5);
    while (*code != 0x90)
        code++;
    registers[EIP] = (u32)code;
}

struct action {
    void (*handler)(int, void *, u32 *);
    u32 flags;
    void (*restorer)(void);
    u32 mask[2];
};

static void faults(void)
{
    struct action action = {handler, 4 | 0x40000000, 0, {0, 0}}; /* SA_SIGINFO, SA_NODEFER */
    u32 map[6] = {0, 2 * 4096, 3, 0x22, ~0u, 0};
    u8 *page = (u8 *)sys(MMAP, (u32)map, 0, 0, 0);
    asm volatile("movl $1f, %0; jmp 2f; 1: movl $173, %%eax; int $0x80; 2:" : "=m"(action.restorer));
    action.flags |= 0x04000000; /* SA_RESTORER */
    sys(91, (u32)(page + 4096), (void *)4096, 0, 0); /* munmap */
    sys(SIGACTION, 11, &action, 0, 8), sys(SIGACTION, 8, &action, 0, 8), sys(SIGACTION, 7, &action, 0, 8);
    for (u32 i = 0; i < 30; i++) {
        u32 a = i, b = dice();
        asm volatile("cmpl $20, %0; addl $5, %0; movl %0, 4092(%2); movl 4093(%2), %1; nop" : "+a"(a), "+b"(b) : "S"(page), "c"(i) : "memory");
        mix(a), mix(b);
        asm volatile("addl %0, %0; pushl 4094(%2); nop" : "+a"(a), "+b"(b) : "S"(page), "c"(i) : "memory");
        asm volatile("xorl %0, %0; incl %0; rep movsb; nop" : "+a"(a), "+S"(*&(u8 *){page}), "+D"(*&(u8 *){page + 4090}), "+c"(*&(u32){20}), "+b"(b) :: "memory");
        asm volatile("xorl %%edx, %%edx; movl $7, %0; divl %%edx; nop" : "+a"(a), "+b"(b) : "c"(i) : "edx");
        asm volatile("subl $3, %0; movl $0x80000000, %%eax; cltd; movl $-1, %%ecx; idivl %%ecx; nop" : "+a"(a), "+b"(b) :: "ecx", "edx");
        mix(a), mix(b);
        asm volatile("movl (%2,%1,1), %0; nop" : "+a"(a) : "b"(0xffffff00u - i), "c"(0));
        asm volatile("movl -2, %%edx; nop" :: "a"(a), "b"(b), "c"(0) : "edx", "memory");
        asm volatile("movl $0x7fffffff, %%ecx; addl $1, %%ecx; into; nop" :: "a"(a), "b"(b) : "ecx");
    }
}

static void written(void)
{
    u32 map[6] = {0, 4096, 7, 0x22, ~0u, 0};
    u8 *code = (u8 *)sys(MMAP, (u32)map, 0, 0, 0);
    for (u32 i = 0; i < 200; i++) {
        u32 got;
        code[0] = 0xb8; /* mov $.., %eax; inc or dec; ret */
        *(u32 *)(code + 1) = dice();
        code[5] = i % 5 ? 0x40 : 0x48, code[6] = 0xc3;
        got = ((u32(*)(void))code)();
        mix(got);
    }
}

static void process(void)
{
    int status = 0, child = sys(FORK, 0, 0, 0, 0);
    if (child == 0) {
        bytes[0] = 7;
        sys(EXIT, fib(10) & 127, 0, 0, 0);
    }
    sys(WAITPID, (u32)child, &status, 0, 0);
    mix((u32)status), mix(bytes[0]);
}

void _start(void) __attribute__((force_align_arg_pointer));
void _start(void)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } parts[] = {{"calls", calls}, {"strings", strings}, {"x87", x87}, {"vectors", vectors}, {"narrow", narrow},
                 {"segments", segments}, {"64-bit", long_code}, {"faults", faults}, {"written", written}, {"process", process}};
    for (u32 i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        parts[i].run();
        say(parts[i].name);
    }
    sum = flags_sum;
    say("flags");
    sys(EXIT, 0, 0, 0, 0);
}
