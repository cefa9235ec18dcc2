/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guestbench - small single-vCPU benchmark set for comparing ways to run a
 * Linux guest (PV hypervisor, full emulation, bare host).
 *
 * Output, one line each:
 *   RUN   <name>                          benchmark starts (for outside timing)
 *   BENCH <name> <value> <unit>           the result
 *   INFO  <name> iters=N secs=S total=T   timed iterations, their time, and the
 *                                         time since RUN, all by guest clock
 *   FAIL  <name> <why>                    wrong answer or failed call
 *
 * Each benchmark doubles its iteration count until one run takes at least
 * BENCH_SECS (default 1.0) seconds, so the counted run takes 1-2x that.
 *
 * Environment:
 *   BENCH_SECS=0.2        shorter or longer runs
 *   BENCH_ONLY=a,b,c      only these (BENCH_ONLY=none runs nothing)
 *   BENCH_TMP=/dev/shm    directory for the file test; should be a tmpfs
 *   BENCH_CPU=n           CPU to stay on (default: the one it starts on)
 *   BENCH_BUSYBOX=path    a static busybox (default: /bin/busybox)
 *
 * Built for baseline x86-64: no instruction past SSE2 outside libc start-up,
 * and no libc memcpy/memset in a timed loop (libc picks those by CPUID).
 */
#define _GNU_SOURCE
#include <emmintrin.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KEEP(x) __asm__ volatile("" : "+r"(x) : : "memory")
/* Timed functions are under 1 KiB and aligned so that none crosses a page:
 * translators do not chain jumps across pages, and where the linker happened
 * to put a loop should not change a result fourfold. */
#define HOT __attribute__((noinline, noclone, aligned(1024)))

static char why_buf[96];

/* A run returns 0 when its answers are right. */
static int fail(const char *why)
{
	snprintf(why_buf, sizeof why_buf, "%s (errno %d)", why, errno);
	return -1;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static inline long sys0(long nr)
{
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "0"(nr) : "rcx", "r11", "memory");
	return r;
}

/* Large pages are left to the kernel's default; PV guests have none. */
static void *pages(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void *buf_a, *buf_b;
static size_t buf_len, map_len;

/* Buffers an odd number of pages apart, so that they do not always meet in
 * one slot of a direct-mapped software TLB. */
static int two_buffers(size_t len)
{
	size_t apart = len + 37 * 4096;

	buf_len = len;
	map_len = apart + len;
	buf_a = pages(map_len);
	if (!buf_a)
		return fail("mmap");
	buf_b = (char *)buf_a + apart;
	for (size_t i = 0; i < len / 8; i++) {
		((uint64_t *)buf_a)[i] = i * 0x9e3779b97f4a7c15u;
		((uint64_t *)buf_b)[i] = 0;
	}
	return 0;
}

static void drop_buffers(void)
{
	if (buf_a)
		munmap(buf_a, map_len);
	buf_a = buf_b = NULL;
}

/* ---- kernel entry -------------------------------------------------------- */

static HOT int run_syscall(uint64_t n)
{
	long want = getppid();

	while (n--)
		if (sys0(SYS_getppid) != want)
			return fail("getppid changed");
	return 0;
}

static HOT int run_gettime(uint64_t n)
{
	struct timespec t;
	uint64_t last = 0, v;

	while (n--) {
		clock_gettime(CLOCK_MONOTONIC, &t);
		v = t.tv_sec * 1000000000ull + t.tv_nsec;
		if (v < last)
			return fail("monotonic clock went back");
		last = v;
	}
	return 0;
}

/* ---- two processes ------------------------------------------------------- */

static int to_child[2], to_parent[2];
static pid_t pong;

static int setup_pipe(void)
{
	char c;

	if (pipe(to_child) || pipe(to_parent))
		return fail("pipe");
	pong = fork();
	if (pong < 0)
		return fail("fork");
	if (pong == 0) {
		close(to_child[1]);
		close(to_parent[0]);
		while (read(to_child[0], &c, 1) == 1)
			if (write(to_parent[1], &c, 1) != 1)
				break;
		_exit(0);
	}
	close(to_child[0]);
	close(to_parent[1]);
	return 0;
}

static HOT int run_pipe(uint64_t n)
{
	while (n--) {
		char c = (char)n, d;

		if (write(to_child[1], &c, 1) != 1 ||
		    read(to_parent[0], &d, 1) != 1)
			return fail("pipe i/o");
		if (c != d)
			return fail("pipe data");
	}
	return 0;
}

static void done_pipe(void)
{
	close(to_child[1]);
	close(to_parent[0]);
	waitpid(pong, NULL, 0);
}

static int reap(pid_t pid, int want)
{
	int st;

	if (waitpid(pid, &st, 0) != pid)
		return fail("waitpid");
	if (!WIFEXITED(st) || WEXITSTATUS(st) != want)
		return fail("child status");
	return 0;
}

static int run_fork(uint64_t n)
{
	while (n--) {
		pid_t p = (pid_t)sys0(SYS_fork);

		if (p < 0)
			return fail("fork");
		if (p == 0)
			syscall(SYS_exit_group, 7);
		if (reap(p, 7))
			return -1;
	}
	return 0;
}

static char tiny_path[4096];

static int setup_exec(void)
{
	ssize_t len = readlink("/proc/self/exe", tiny_path,
			       sizeof tiny_path - 8);

	if (len <= 0)
		return fail("readlink /proc/self/exe");
	tiny_path[len] = 0;
	strcpy(strrchr(tiny_path, '/') + 1, "tiny");
	return access(tiny_path, X_OK) ? fail("no tiny beside guestbench") : 0;
}

static int run_exec(uint64_t n)
{
	char *argv[] = { tiny_path, NULL }, *envp[] = { NULL };

	while (n--) {
		pid_t p = (pid_t)sys0(SYS_fork);

		if (p < 0)
			return fail("fork");
		if (p == 0) {
			execve(tiny_path, argv, envp);
			_exit(99);
		}
		if (reap(p, 0))
			return -1;
	}
	return 0;
}

/* A shell script: forks, execs, pipes, sorting and small files together. */
static const char *busybox = "/bin/busybox";

static int setup_shell(void)
{
	const char *e = getenv("BENCH_BUSYBOX");

	if (e)
		busybox = e;
	return access(busybox, X_OK) ? fail("no busybox") : 0;
}

static int run_shell(uint64_t n)
{
	char script[] =
		"B=$0; i=0; s=0; "
		"while [ $i -lt 200 ]; do s=$((s+i*i)); i=$((i+1)); done; "
		"[ $s = 2646700 ] || exit 1; "
		"x=$($B seq 1 300 | $B sort -r | $B head -n 1); "
		"[ $x = 99 ] || exit 2; "
		"y=$($B seq 1 300 | $B md5sum | $B cut -c1-4); "
		"[ ${#y} = 4 ] || exit 3; exit 5";
	char *argv[] = { "busybox", "sh", "-c", script, (char *)busybox, NULL };
	char *envp[] = { "PATH=/bin", NULL };

	while (n--) {
		pid_t p = (pid_t)sys0(SYS_fork);

		if (p < 0)
			return fail("fork");
		if (p == 0) {
			execve(busybox, argv, envp);
			_exit(99);
		}
		if (reap(p, 5))
			return -1;
	}
	return 0;
}

/* ---- page tables --------------------------------------------------------- */

#define FAULT_PAGES 256

static HOT int run_fault(uint64_t n)
{
	while (n--) {
		char *p = pages(FAULT_PAGES * 4096);

		if (!p)
			return fail("mmap");
		madvise(p, FAULT_PAGES * 4096, MADV_NOHUGEPAGE);
		for (size_t i = 0; i < FAULT_PAGES; i++)
			((volatile char *)p)[i * 4096] = 1;
		if (munmap(p, FAULT_PAGES * 4096))
			return fail("munmap");
	}
	return 0;
}

static int setup_mprotect(void)
{
	return two_buffers(4 * 4096);
}

/* One iteration is two changes, with a load and a store that obey them. */
static HOT int run_mprotect(uint64_t n)
{
	volatile uint64_t *p = buf_a;
	uint64_t want;

	while (n--) {
		if (mprotect(buf_a, buf_len, PROT_READ))
			return fail("mprotect r");
		want = *p;
		if (mprotect(buf_a, buf_len, PROT_READ | PROT_WRITE))
			return fail("mprotect rw");
		*p = want + 1;
		if (*p != want + 1)
			return fail("mprotect data");
	}
	return 0;
}

/* ---- integer code -------------------------------------------------------- */

#define COLLATZ_TOP 1000
#define COLLATZ_STEPS 59542	/* all steps from 1..1000 down to 1 */

static HOT uint64_t collatz_steps(uint64_t x)
{
	uint64_t steps = 0;

	while (x != 1) {
		x = (x & 1) ? 3 * x + 1 : x >> 1;
		steps++;
	}
	return steps;
}

static int run_collatz(uint64_t n)
{
	while (n--) {
		uint64_t sum = 0;

		for (uint64_t i = 1; i <= COLLATZ_TOP; i++)
			sum += collatz_steps(i);
		if (sum != COLLATZ_STEPS)
			return fail("collatz sum");
	}
	return 0;
}

#define SIEVE_TOP 65536
#define SIEVE_PRIMES 6542
#define SIEVE_STORES 123950	/* checked each run */

static int setup_sieve(void)
{
	return two_buffers(SIEVE_TOP);
}

static HOT int run_sieve(uint64_t n)
{
	uint8_t *composite = buf_a;

	while (n--) {
		uint64_t primes = 0, stores = 0;

		for (size_t i = 0; i < SIEVE_TOP / 8; i++)
			((volatile uint64_t *)composite)[i] = 0;
		for (uint32_t i = 2; i < SIEVE_TOP; i++) {
			if (composite[i])
				continue;
			primes++;
			if (i >= 256)
				continue;
			for (uint32_t k = i * i; k < SIEVE_TOP; k += i) {
				composite[k] = 1;
				stores++;
			}
		}
		if (primes != SIEVE_PRIMES)
			return fail("prime count");
		if (stores != SIEVE_STORES)
			return fail("sieve stores");
	}
	return 0;
}

#define FIB_N 20
#define FIB_VALUE 6765
#define FIB_CALLS 21891		/* 2*fib(21)-1 */

static HOT __attribute__((optimize("no-optimize-sibling-calls")))
uint64_t fib(uint64_t n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static int run_fib(uint64_t n)
{
	while (n--) {
		uint64_t arg = FIB_N;

		KEEP(arg);
		if (fib(arg) != FIB_VALUE)
			return fail("fib value");
	}
	return 0;
}

/* Register machine; every instruction is one call through a table. */
struct insn { uint8_t op, a, b, c; int32_t imm; };
struct vm { uint64_t r[8]; const struct insn *pc; int stop; };

static void op_set(struct vm *m, const struct insn *i) { m->r[i->a] = (uint64_t)(int64_t)i->imm; }
static void op_add(struct vm *m, const struct insn *i) { m->r[i->a] = m->r[i->b] + m->r[i->c]; }
static void op_addi(struct vm *m, const struct insn *i) { m->r[i->a] = m->r[i->b] + (uint64_t)(int64_t)i->imm; }
static void op_muli(struct vm *m, const struct insn *i) { m->r[i->a] = m->r[i->b] * (uint64_t)(int64_t)i->imm; }
static void op_xor(struct vm *m, const struct insn *i) { m->r[i->a] = m->r[i->b] ^ m->r[i->c]; }
static void op_shr(struct vm *m, const struct insn *i) { m->r[i->a] = m->r[i->b] >> i->imm; }
static void op_andi(struct vm *m, const struct insn *i) { m->r[i->a] = m->r[i->b] & (uint64_t)(int64_t)i->imm; }
static void op_jz(struct vm *m, const struct insn *i) { if (!m->r[i->a]) m->pc += i->imm; }
static void op_jnz(struct vm *m, const struct insn *i) { if (m->r[i->a]) m->pc += i->imm; }
static void op_stop(struct vm *m, const struct insn *i) { (void)i; m->stop = 1; }

enum { SET, ADD, ADDI, MULI, XOR, SHR, ANDI, JZ, JNZ, STOP };
typedef void (*op_fn)(struct vm *, const struct insn *);
static op_fn const op_table[] = {
	op_set, op_add, op_addi, op_muli, op_xor, op_shr, op_andi, op_jz,
	op_jnz, op_stop,
};

#define VM_LOOPS 1000
/* r0 count, r1 state, r2 sum of taken branches, r3 scratch */
static const struct insn vm_prog[] = {
	{ SET, 0, 0, 0, VM_LOOPS },
	{ SET, 1, 0, 0, 12345 },
	{ SET, 2, 0, 0, 0 },
	{ MULI, 1, 1, 0, 1103515245 },
	{ ADDI, 1, 1, 0, 12345 },
	{ SHR, 3, 1, 0, 16 },
	{ XOR, 4, 3, 1, 0 },
	{ ANDI, 3, 3, 0, 1 },
	{ JZ, 3, 0, 0, 1 },
	{ ADD, 2, 2, 4, 0 },
	{ ADDI, 0, 0, 0, -1 },
	{ JNZ, 0, 0, 0, -9 },
	{ STOP, 0, 0, 0, 0 },
};
static uint64_t vm_steps, vm_answer;

static HOT uint64_t vm_run(uint64_t *steps)
{
	struct vm m;
	uint64_t count = 0;

	memset(&m, 0, sizeof m);
	m.pc = vm_prog;
	while (!m.stop) {
		const struct insn *i = m.pc++;

		op_table[i->op](&m, i);
		count++;
	}
	*steps = count;
	return m.r[2];
}

/* The same program in plain C, for the answer and the step count. */
static int setup_vm(void)
{
	uint64_t x = 12345, sum = 0, s;

	vm_steps = 4;
	for (int i = 0; i < VM_LOOPS; i++) {
		x = x * 1103515245u + 12345;
		s = x >> 16;
		if (s & 1)
			sum += s ^ x;
		vm_steps += 8 + (s & 1);
	}
	vm_answer = sum;
	return 0;
}

static int run_vm(uint64_t n)
{
	uint64_t steps;

	while (n--)
		if (vm_run(&steps) != vm_answer || steps != vm_steps)
			return fail("interpreter answer");
	return 0;
}

/* ---- memory -------------------------------------------------------------- */

#define COPY_LEN (1 << 20)

static int setup_copy(void)
{
	return two_buffers(COPY_LEN);
}

static int copied(void)
{
	const uint64_t *s = buf_a, *d = buf_b;

	for (size_t i = 0; i < COPY_LEN / 8; i += 509)
		if (s[i] != d[i])
			return fail("copy data");
	return 0;
}

static HOT void copy_sse2(void *dst, const void *src, size_t len)
{
	__m128i *d = dst;
	const __m128i *s = src;

	for (; len; len -= 64, s += 4, d += 4) {
		__m128i a = _mm_load_si128(s), b = _mm_load_si128(s + 1);
		__m128i c = _mm_load_si128(s + 2), e = _mm_load_si128(s + 3);

		_mm_store_si128(d, a);
		_mm_store_si128(d + 1, b);
		_mm_store_si128(d + 2, c);
		_mm_store_si128(d + 3, e);
	}
}

static int run_copy_sse2(uint64_t n)
{
	while (n--) {
		copy_sse2(buf_b, buf_a, COPY_LEN);
		KEEP(buf_b);
	}
	return copied();
}

static HOT int run_copy_rep(uint64_t n)
{
	while (n--) {
		void *d = buf_b;
		const void *s = buf_a;
		size_t len = COPY_LEN;

		__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(len)
				 : : "memory");
	}
	return copied();
}

#define CHASE_LEN (16u << 20)
#define CHASE_NODES (CHASE_LEN / 64)

static void **chase_at(uint32_t i)
{
	return (void **)((char *)buf_a + (size_t)i * 64);
}

/* One random cycle through every cache line (Sattolo's shuffle). */
static int setup_chase(void)
{
	uint32_t *order;
	uint64_t x = 88172645463325252u;

	map_len = CHASE_LEN;
	buf_a = pages(CHASE_LEN);
	order = pages(CHASE_NODES * sizeof *order);
	if (!buf_a || !order)
		return fail("mmap");
	for (uint32_t i = 0; i < CHASE_NODES; i++)
		order[i] = i;
	for (uint32_t i = CHASE_NODES - 1; i > 0; i--) {
		uint32_t j, t;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		j = (uint32_t)((x >> 20) % i);
		t = order[i];
		order[i] = order[j];
		order[j] = t;
	}
	for (uint32_t i = 0; i < CHASE_NODES; i++)
		*chase_at(order[i]) = chase_at(order[(i + 1) % CHASE_NODES]);
	munmap(order, CHASE_NODES * sizeof *order);
	return 0;
}

#define CHASE_HOPS 4096

static HOT int run_chase(uint64_t n)
{
	static void **at;	/* go on from where the last run stopped */
	void **p = at && n > 1 ? at : buf_a;

	while (n--)
		for (int i = 0; i < CHASE_HOPS; i++)
			p = *p;
	at = p;
	if ((char *)p < (char *)buf_a || (char *)p >= (char *)buf_a + CHASE_LEN)
		return fail("pointer left its buffer");
	return 0;
}

/* ---- floating point ------------------------------------------------------ */

#define MM 128
static double mm_a[MM][MM] __attribute__((aligned(64)));
static double mm_b[MM][MM] __attribute__((aligned(64)));
static double mm_c[MM][MM] __attribute__((aligned(64)));
static int64_t mm_want[MM];	/* row MM-1 of the product, in integers */

static int setup_matmul(void)
{
	for (int i = 0; i < MM; i++)
		for (int j = 0; j < MM; j++) {
			mm_a[i][j] = (i * 3 + j * 7) % 11 - 5;
			mm_b[i][j] = (i * 5 + j * 2) % 13 - 6;
		}
	for (int j = 0; j < MM; j++) {
		mm_want[j] = 0;
		for (int k = 0; k < MM; k++)
			mm_want[j] += (int64_t)mm_a[MM - 1][k] *
				      (int64_t)mm_b[k][j];
	}
	return 0;
}

static HOT void matmul(void)
{
	for (int i = 0; i < MM; i++)
		for (int j = 0; j < MM; j += 8) {
			__m128d s0 = _mm_setzero_pd(), s1 = s0, s2 = s0, s3 = s0;

			for (int k = 0; k < MM; k++) {
				__m128d a = _mm_set1_pd(mm_a[i][k]);
				const double *b = &mm_b[k][j];

				s0 = _mm_add_pd(s0, _mm_mul_pd(a, _mm_load_pd(b)));
				s1 = _mm_add_pd(s1, _mm_mul_pd(a, _mm_load_pd(b + 2)));
				s2 = _mm_add_pd(s2, _mm_mul_pd(a, _mm_load_pd(b + 4)));
				s3 = _mm_add_pd(s3, _mm_mul_pd(a, _mm_load_pd(b + 6)));
			}
			_mm_store_pd(&mm_c[i][j], s0);
			_mm_store_pd(&mm_c[i][j + 2], s1);
			_mm_store_pd(&mm_c[i][j + 4], s2);
			_mm_store_pd(&mm_c[i][j + 6], s3);
		}
}

static int run_matmul(uint64_t n)
{
	while (n--)
		matmul();
	for (int j = 0; j < MM; j++)
		if (mm_c[MM - 1][j] != (double)mm_want[j])
			return fail("matrix product");
	return 0;
}

/* ---- SHA-256 (FIPS 180-4; tables computed from their definition) --------- */

static uint32_t sha_k[64], sha_h0[8];

/* floor(p^(1/power) * 2^32), low 32 bits: the fraction's first 32 bits */
static uint32_t root_fraction(unsigned p, int power)
{
	unsigned __int128 target = (unsigned __int128)p << (32 * power);
	uint64_t r = 0;

	for (int bit = 37; bit >= 0; bit--) {
		uint64_t t = r | 1ull << bit;
		unsigned __int128 v = (unsigned __int128)t * t;

		if (power == 3)
			v *= t;
		if (v <= target)
			r = t;
	}
	return (uint32_t)r;
}

static uint32_t ror(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

static HOT void sha_block(uint32_t *h, const uint8_t *p)
{
	uint32_t w[64], s[8];

	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 |
		       p[4 * i + 2] << 8 | p[4 * i + 3];
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] +
		       (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
	for (int i = 0; i < 8; i++)
		s[i] = h[i];
	for (int i = 0; i < 64; i++) {
		uint32_t e = s[4], a = s[0];
		uint32_t t1 = s[7] + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) +
			      ((e & s[5]) ^ (~e & s[6])) + sha_k[i] + w[i];
		uint32_t t2 = (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) +
			      ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));

		s[7] = s[6];
		s[6] = s[5];
		s[5] = e;
		s[4] = s[3] + t1;
		s[3] = s[2];
		s[2] = s[1];
		s[1] = a;
		s[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		h[i] += s[i];
}

#define SHA_LEN (256 * 1024)

static int setup_sha(void)
{
	uint8_t abc[64] = { 'a', 'b', 'c', 0x80, [63] = 24 };
	uint32_t h[8];
	unsigned p = 1;

	for (int i = 0; i < 64; i++) {
		for (unsigned d = 0; d != p;)	/* next prime */
			for (p++, d = 2; p % d; d++)
				;
		if (i < 8)
			sha_h0[i] = root_fraction(p, 2);
		sha_k[i] = root_fraction(p, 3);
	}
	for (int i = 0; i < 8; i++)
		h[i] = sha_h0[i];
	sha_block(h, abc);
	if (h[0] != 0xba7816bf || h[7] != 0xf20015ad)
		return fail("sha256 of abc");
	return two_buffers(SHA_LEN);
}

static int run_sha(uint64_t n)
{
	static uint32_t first;
	uint32_t h[8];

	while (n--) {
		for (int i = 0; i < 8; i++)
			h[i] = sha_h0[i];
		for (size_t at = 0; at < SHA_LEN; at += 64)
			sha_block(h, (uint8_t *)buf_a + at);
		if (!first)
			first = h[0];
		if (h[0] != first)
			return fail("sha256 differs from the first");
	}
	return 0;
}

/* ---- tmpfs --------------------------------------------------------------- */

static char file_path[256];

static int setup_file(void)
{
	const char *dir = getenv("BENCH_TMP");

	snprintf(file_path, sizeof file_path, "%s/guestbench.%d",
		 dir ? dir : "/tmp", (int)getpid());
	return two_buffers(4096);
}

static int run_file(uint64_t n)
{
	while (n--) {
		int fd = open(file_path, O_CREAT | O_EXCL | O_WRONLY, 0600);

		if (fd < 0)
			return fail("open");
		if (write(fd, buf_a, 4096) != 4096)
			return fail("write");
		close(fd);
		if (unlink(file_path))
			return fail("unlink");
	}
	return 0;
}

/* ---- the list ------------------------------------------------------------ */

enum kind { RATE, NANOSEC };

static struct bench {
	const char *name, *unit;
	int (*setup)(void);
	int (*run)(uint64_t n);
	void (*done)(void);
	double per_iter;	/* units of work in one iteration */
	enum kind kind;
} benches[] = {
	{ "null_syscall", "calls/s", NULL, run_syscall, NULL, 1, RATE },
	{ "clock_gettime", "calls/s", NULL, run_gettime, NULL, 1, RATE },
	{ "ctx_switch_pipe", "switches/s", setup_pipe, run_pipe, done_pipe, 2, RATE },
	{ "fork_exit_wait", "forks/s", NULL, run_fork, NULL, 1, RATE },
	{ "fork_exec", "execs/s", setup_exec, run_exec, NULL, 1, RATE },
	{ "page_fault", "faults/s", NULL, run_fault, NULL, FAULT_PAGES, RATE },
	{ "mprotect", "calls/s", setup_mprotect, run_mprotect, drop_buffers, 2, RATE },
	{ "file_tmpfs", "files/s", setup_file, run_file, drop_buffers, 1, RATE },
	{ "shell_script", "scripts/s", setup_shell, run_shell, NULL, 1, RATE },
	{ "int_collatz", "Mops/s", NULL, run_collatz, NULL, COLLATZ_STEPS / 1e6, RATE },
	{ "int_sieve", "Mops/s", setup_sieve, run_sieve, drop_buffers, SIEVE_STORES / 1e6, RATE },
	{ "call_fib", "Mcalls/s", NULL, run_fib, NULL, FIB_CALLS / 1e6, RATE },
	{ "indirect_vm", "Mops/s", setup_vm, run_vm, NULL, 0, RATE },
	{ "copy_sse2", "MB/s", setup_copy, run_copy_sse2, drop_buffers, COPY_LEN / 1e6, RATE },
	{ "copy_rep_movsb", "MB/s", setup_copy, run_copy_rep, drop_buffers, COPY_LEN / 1e6, RATE },
	{ "chase_16m", "ns/access", setup_chase, run_chase, drop_buffers, CHASE_HOPS, NANOSEC },
	{ "matmul_sse2", "MFLOP/s", setup_matmul, run_matmul, NULL, 2.0 * MM * MM * MM / 1e6, RATE },
	{ "sha256", "MB/s", setup_sha, run_sha, drop_buffers, SHA_LEN / 1e6, RATE },
};

static int wanted(const char *list, const char *name)
{
	size_t len = strlen(name);

	if (!list || !*list)
		return 1;
	for (const char *p = list; (p = strstr(p, name)); p += len)
		if ((p == list || p[-1] == ',') && (p[len] == ',' || !p[len]))
			return 1;
	return 0;
}

static void print_value(const char *name, double v, const char *unit)
{
	printf(v < 100 ? "BENCH %s %.3f %s\n" : "BENCH %s %.0f %s\n",
	       name, v, unit);
}

static int measure(struct bench *b, double target)
{
	double start = now(), secs = 0;
	uint64_t n = 1;
	int rc = 0;

	printf("RUN %s\n", b->name);
	if (b->setup)
		rc = b->setup();
	while (!rc) {
		double t = now();

		rc = b->run(n);
		secs = now() - t;
		if (rc || secs >= target)
			break;
		n *= 2;
	}
	if (b->done)
		b->done();
	if (rc) {
		printf("FAIL %s %s\n", b->name, why_buf);
		return 1;
	}
	if (b->run == run_vm)
		b->per_iter = vm_steps / 1e6;
	if (b->kind == NANOSEC)
		print_value(b->name, secs * 1e9 / (n * b->per_iter), b->unit);
	else
		print_value(b->name, n * b->per_iter / secs, b->unit);
	printf("INFO %s iters=%llu secs=%.3f total=%.3f\n", b->name,
	       (unsigned long long)n, secs, now() - start);
	return 0;
}

int main(void)
{
	const char *only = getenv("BENCH_ONLY"), *e;
	double target = 1.0;
	int failed = 0, cpu = sched_getcpu();
	cpu_set_t set;

	setvbuf(stdout, NULL, _IOLBF, 4096);
	if ((e = getenv("BENCH_SECS")) && atof(e) > 0)
		target = atof(e);
	if ((e = getenv("BENCH_CPU")))
		cpu = atoi(e);
	CPU_ZERO(&set);
	CPU_SET(cpu < 0 ? 0 : cpu, &set);
	sched_setaffinity(0, sizeof set, &set);	/* guests have one vCPU */
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < sizeof benches / sizeof *benches; i++)
		if (wanted(only, benches[i].name))
			failed += measure(&benches[i], target);
	return failed ? 1 : 0;
}
