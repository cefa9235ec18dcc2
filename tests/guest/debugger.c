/* SPDX-License-Identifier: Apache-2.0 */
/* The first process of a Debian kernel: a debugger of its own child, with hardware breakpoints and single steps. */
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile long watched[4];

static __attribute__((noinline)) void function(void)
{
    __asm__ volatile("nop");
}

static void set(pid_t child, int n, unsigned long value)
{
    if (ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg) + (size_t)n * sizeof(long), value))
        printf("dr%d refused\n", n);
}

static pid_t traced(int breakpoints)
{
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        if (breakpoints) {
            function();
            watched[1] = 7;
            watched[3] = watched[2] + 1;
        }
        _exit(42);
    }
    waitpid(child, NULL, 0);
    return child;
}

int main(void)
{
    int status = 0, console = open("/dev/console", O_RDWR);
    dup2(console, 1);
    setvbuf(stdout, NULL, _IONBF, 0);
    pid_t child = traced(1);
    set(child, 0, (unsigned long)function);
    set(child, 1, (unsigned long)&watched[1]);
    set(child, 2, (unsigned long)&watched[2]);
    set(child, 7, 0x15 | 9ul << 20 | 0xbul << 24); /* on execution; on writing 8 bytes; on reading or writing 8 */
    for (;;) {
        struct user_regs_struct regs;
        ptrace(PTRACE_CONT, child, 0, 0);
        waitpid(child, &status, 0);
        if (WIFEXITED(status))
            break;
        ptrace(PTRACE_GETREGS, child, 0, &regs);
        printf("stop %d function %d dr6 %lx watched %ld\n", WSTOPSIG(status), regs.rip == (unsigned long)function,
               ptrace(PTRACE_PEEKUSER, child, offsetof(struct user, u_debugreg[6]), 0) & 0xf,
               ptrace(PTRACE_PEEKDATA, child, &watched[1], 0));
    }
    printf("exited %d\n", WEXITSTATUS(status));
    child = traced(0);
    int steps = 0;
    do {
        ptrace(PTRACE_SINGLESTEP, child, 0, 0);
        waitpid(child, &status, 0);
        steps += WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
    } while (!WIFEXITED(status));
    printf("stepped %d exited %d\n", steps > 5, WEXITSTATUS(status));
    reboot(RB_POWER_OFF);
    return 0;
}
