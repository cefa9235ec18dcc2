/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guestbench32 - rows of 32-bit user code beside those of guestbench.c, whose output, BENCH_SECS and BENCH_ONLY it shares. No C
 * library: -m32 -static -nostdlib is all that it needs.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define HOT __attribute__((noinline, noclone, aligned(1024)))
enum { EXIT = 1, WRITE = 4, CLOCK_GETTIME64 = 403, MONOTONIC = 1 };
#define FIB 21
#define FIB_CALLS 21891 /* 2 * fib(21) - 1 */
#define FIB_VALUE 10946
#define LENGTH 65536
#define PRIMES 6542 /* below LENGTH */
#define SIEVE_STORES 189486
#define NUMBERS 4096

static u8 from[LENGTH], to[LENGTH];
static double left[NUMBERS], right[NUMBERS];

static int sys(int number, u32 a, const void *b, u32 c)
{
    asm volatile("int $0x80" : "+a"(number) : "b"(a), "c"(b), "d"(c) : "memory");
    return number;
}

static double now(void)
{
    struct {
        u64 seconds;
        u32 ns, more;
    } time = {0, 0, 0};
    sys(CLOCK_GETTIME64, MONOTONIC, &time, 0);
    return (double)(u32)time.seconds + (double)time.ns * 1e-9;
}

static HOT u32 fib(u32 n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static int run_fib(void)
{
    volatile u32 n = FIB;
    return fib(n) == FIB_VALUE;
}

static HOT int run_sieve(void)
{
    u32 primes = 0;
    for (u32 i = 0; i < LENGTH; i++)
        to[i] = 1;
    for (u32 i = 2; i * i < LENGTH; i++)
        if (to[i])
            for (u32 j = i * i; j < LENGTH; j += i)
                to[j] = 0;
    for (u32 i = 2; i < LENGTH; i++)
        primes += to[i];
    return primes == PRIMES;
}

static HOT int run_copy(void)
{
    for (u32 i = 0; i < LENGTH; i++) {
        to[i] = from[i];
        asm volatile("" ::: "memory"); /* a byte each */
    }
    return to[LENGTH - 1] == from[LENGTH - 1];
}

static HOT int run_x87(void)
{
    double sum = 0;
    for (u32 i = 0; i < NUMBERS; i++)
        sum += left[i] * right[i];
    return sum == NUMBERS;
}

static u32 put(char *line, u32 at, const char *text)
{
    while (*text)
        line[at++] = *text++;
    return at;
}

static u32 put_number(char *line, u32 at, u32 number)
{
    char digits[10];
    u32 count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while (number /= 10);
    while (count)
        line[at++] = digits[--count];
    return at;
}

static void say(const char *first, const char *name, u32 value, const char *last)
{
    char line[80];
    u32 at = put(line, put(line, put(line, 0, first), name), " ");
    at = value ? put(line, put_number(line, at, value), " ") : at;
    sys(WRITE, 1, line, put(line, put(line, at, last), "\n"));
}

/* Whether a name is in a list that commas separate. */
static int among(const char *name, const char *list)
{
    while (list && *list) {
        u32 i = 0;
        while (name[i] && name[i] == list[i])
            i++;
        if (!name[i] && (!list[i] || list[i] == ','))
            return 1;
        while (*list && *list++ != ',')
            ;
    }
    return !list;
}

static const char *value_of(char **environment, const char *name)
{
    for (; *environment; environment++) {
        u32 i = 0;
        while (name[i] && name[i] == (*environment)[i])
            i++;
        if (!name[i] && (*environment)[i] == '=')
            return *environment + i + 1;
    }
    return 0;
}

static double decimal(const char *text)
{
    double value = 0, place = 0;
    for (; *text; text++) {
        if (*text == '.') {
            place = 1;
        } else {
            place /= 10;
            value = place > 0 ? value + (*text - '0') * place : value * 10 + (*text - '0');
        }
    }
    return value;
}

/* `stack`: argc, its arguments, 0, the environment, 0. */
static void __attribute__((used)) start(char **stack)
{
    static const struct {
        const char *name, *unit;
        int (*run)(void);
        double work; /* of a run, in millions of units */
    } rows[] = {
        {"fib_32", "Mcalls/s", run_fib, FIB_CALLS / 1e6},
        {"sieve_32", "Mops/s", run_sieve, SIEVE_STORES / 1e6},
        {"copy_32", "MB/s", run_copy, LENGTH / 1e6},
        {"x87_32", "Mflop/s", run_x87, 2 * NUMBERS / 1e6},
    };
    char **environment = stack + 2 + *(u32 *)stack;
    const char *seconds = value_of(environment, "BENCH_SECS"), *only = value_of(environment, "BENCH_ONLY");
    double least = seconds ? decimal(seconds) : 1;
    for (u32 i = 0; i < NUMBERS; i++)
        left[i] = i & 1 ? 0.5 : 0.25, right[i] = i & 1 ? 2 : 4;
    for (u32 i = 0; i < LENGTH; i++)
        from[i] = (u8)(i * 7);
    for (u32 i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        if (!among(rows[i].name, only))
            continue;
        int right_answer = 1;
        double took = 0;
        u32 count = 1;
        for (;; count *= 2) {
            double begin = now();
            for (u32 n = 0; n < count; n++)
                right_answer &= rows[i].run();
            took = now() - begin;
            if (!right_answer || took >= least)
                break;
        }
        if (right_answer)
            say("BENCH ", rows[i].name, (u32)(rows[i].work * count / took + 1), rows[i].unit);
        else
            say("FAIL ", rows[i].name, 0, "a wrong answer");
    }
    sys(EXIT, 0, 0, 0);
}

asm(".globl _start\n_start: movl %esp, %eax; andl $-16, %esp; subl $12, %esp; pushl %eax; call start");
