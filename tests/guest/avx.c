// SPDX-License-Identifier: Apache-2.0
// Processes whose vector registers must survive each other, signals and system calls; and sums by AVX2 and FMA, which are
// printed. What it prints is the same wherever it is right.
#include <immintrin.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define REGISTERS 16
#define ROUNDS 400

typedef struct { uint8_t bytes[REGISTERS][32]; } State;

static volatile sig_atomic_t signals;

// Loads all registers, makes a system call or a signal, and stores them.
__attribute__((noinline, target("avx2"))) static void pass(State *in, State *out, long call, long a, long b)
{
	__asm__ volatile(
		"vmovdqu (%[in]), %%ymm0\n vmovdqu 32(%[in]), %%ymm1\n vmovdqu 64(%[in]), %%ymm2\n vmovdqu 96(%[in]), %%ymm3\n"
		"vmovdqu 128(%[in]), %%ymm4\n vmovdqu 160(%[in]), %%ymm5\n vmovdqu 192(%[in]), %%ymm6\n vmovdqu 224(%[in]), %%ymm7\n"
		"vmovdqu 256(%[in]), %%ymm8\n vmovdqu 288(%[in]), %%ymm9\n vmovdqu 320(%[in]), %%ymm10\n vmovdqu 352(%[in]), %%ymm11\n"
		"vmovdqu 384(%[in]), %%ymm12\n vmovdqu 416(%[in]), %%ymm13\n vmovdqu 448(%[in]), %%ymm14\n vmovdqu 480(%[in]), %%ymm15\n"
		"syscall\n"
		"vmovdqu %%ymm0, (%[out])\n vmovdqu %%ymm1, 32(%[out])\n vmovdqu %%ymm2, 64(%[out])\n vmovdqu %%ymm3, 96(%[out])\n"
		"vmovdqu %%ymm4, 128(%[out])\n vmovdqu %%ymm5, 160(%[out])\n vmovdqu %%ymm6, 192(%[out])\n vmovdqu %%ymm7, 224(%[out])\n"
		"vmovdqu %%ymm8, 256(%[out])\n vmovdqu %%ymm9, 288(%[out])\n vmovdqu %%ymm10, 320(%[out])\n vmovdqu %%ymm11, 352(%[out])\n"
		"vmovdqu %%ymm12, 384(%[out])\n vmovdqu %%ymm13, 416(%[out])\n vmovdqu %%ymm14, 448(%[out])\n vmovdqu %%ymm15, 480(%[out])\n"
		"vzeroupper\n"
		: "+a"(call), "+D"(a), "+S"(b)
		: [in] "r"(in), [out] "r"(out)
		: "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
		  "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

__attribute__((target("avx2"))) static void on_signal(int number)
{
	(void)number;
	__asm__ volatile("vpcmpeqd %%ymm0, %%ymm0, %%ymm0\n vmovdqa %%ymm0, %%ymm7\n vmovdqa %%ymm0, %%ymm15\n"
			 ::: "xmm0", "xmm7", "xmm15");
	signals++;
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30, x *= 0xbf58476d1ce4e5b9u;
	x ^= x >> 27, x *= 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static void fill(void *to, size_t bytes, uint64_t seed)
{
	uint64_t *words = to;
	for (size_t i = 0; i < bytes / 8; i++)
		words[i] = mix(seed + i);
}

// A process: its registers are its own through switches to others, and through signals.
static int survives(uint64_t seed)
{
	State in, out;
	for (int round = 0; round < ROUNDS; round++) {
		fill(&in, sizeof in, seed + 1000 * round);
		if (round & 1)
			pass(&in, &out, 62 /* kill */, getpid(), SIGUSR1);
		else
			pass(&in, &out, 24 /* sched_yield */, 0, 0);
		if (memcmp(&in, &out, sizeof in))
			return 1;
	}
	return signals == ROUNDS / 2 ? 0 : 2;
}

__attribute__((target("avx2,fma"))) static void sums(void)
{
	static uint8_t data[1 << 18];
	fill(data, sizeof data, 7);
	__m256i total = _mm256_setzero_si256(), low = _mm256_set1_epi8(15);
	__m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
	__m256 dot = _mm256_setzero_ps();
	for (size_t i = 0; i < sizeof data; i += 32) {
		__m256i v = _mm256_loadu_si256((void *)(data + i));
		__m256i few = _mm256_shuffle_epi8(table, _mm256_and_si256(v, low));
		__m256i more = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(v, 4), low));
		total = _mm256_add_epi64(total, _mm256_sad_epu8(_mm256_add_epi8(few, more), _mm256_setzero_si256()));
		__m256 f = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_permute4x64_epi64(v, 0x1b), 12));
		dot = _mm256_fmadd_ps(f, _mm256_set1_ps(1.0f / 4096), dot);
	}
	uint64_t q[4];
	float p[8];
	_mm256_storeu_si256((void *)q, total);
	_mm256_storeu_ps(p, dot);
	printf("AVX bits %llu %llu %llu %llu\n", (unsigned long long)q[0], (unsigned long long)q[1],
	       (unsigned long long)q[2], (unsigned long long)q[3]);
	printf("AVX products %a %a %a %a %a %a %a %a\n", p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]);
}

int main(void)
{
	signal(SIGUSR1, on_signal);
	printf("AVX supported %d %d\n", !!__builtin_cpu_supports("avx2"), !!__builtin_cpu_supports("fma"));
	fflush(stdout);
	if (!__builtin_cpu_supports("avx2"))
		return 0;
	for (int n = 0; n < 4; n++)
		if (!fork())
			_exit(survives(1000000 * (n + 1)));
	int status, wrong = 0;
	while (wait(&status) > 0)
		wrong |= status;
	printf("AVX registers %s\n", wrong ? "LOST" : "kept");
	sums();
	return 0;
}
