/* SPDX-License-Identifier: Apache-2.0 */
/*
 * benchinit - /init of the benchmark initramfs: mounts, reports the uptime,
 * runs /bin/guestbench, and /bin/guestbench32 if it is there, says BENCHDONE and powers the machine off.
 * Kernel command line words such as BENCH_SECS=0.3 or BENCH_ONLY=none arrive
 * here as environment variables and are passed on.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void first_line(const char *path, char *out, size_t len)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? 0 : read(fd, out, len - 1);

	if (fd >= 0)
		close(fd);
	out[n > 0 ? n : 0] = 0;
	out[strcspn(out, "\n")] = 0;
	if (!*out)
		strcpy(out, "none");
}

static void cpu_model(char *out, size_t len)
{
	FILE *f = fopen("/proc/cpuinfo", "r");
	char line[256], *v;

	snprintf(out, len, "unknown");
	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, "model name", 10) && (v = strchr(line, ':'))) {
			v[strcspn(v, "\n")] = 0;
			snprintf(out, len, "%s", v + 2);
			break;
		}
	if (f)
		fclose(f);
}

static void run(const char *program)
{
	int st = -1;
	pid_t pid = fork(), got;

	if (pid == 0) {
		char *argv[] = { (char *)program, NULL };

		execve(argv[0], argv, environ);
		_exit(127);
	}
	while ((got = wait(&st)) > 0 && got != pid)
		;
	printf("INFO %s_status=%d\n", strrchr(program, '/') + 1,
	       got == pid && WIFEXITED(st) ? WEXITSTATUS(st) : -1);
}

int main(void)
{
	char line[256];
	struct utsname u;
	int fd;

	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mkdir("/tmp", 0777);
	mount("proc", "/proc", "proc", 0, NULL);
	first_line("/proc/uptime", line, sizeof line);
	line[strcspn(line, " ")] = 0;
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
	if (access("/dev/console", F_OK))
		mknod("/dev/console", S_IFCHR | 0600, makedev(5, 1));
	fd = open("/dev/console", O_RDWR | O_NOCTTY);
	if (fd >= 0) {
		dup2(fd, 0);
		dup2(fd, 1);
		dup2(fd, 2);
		if (fd > 2)
			close(fd);
	}
	setvbuf(stdout, NULL, _IOLBF, 4096);
	printf("\nBENCH boot_to_init %s s\n", line);
	if (!uname(&u))
		printf("INFO kernel=%s\n", u.release);
	first_line("/sys/hypervisor/type", line, sizeof line);
	printf("INFO hypervisor=%s\n", line);
	first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource",
		   line, sizeof line);
	printf("INFO clocksource=%s\n", line);
	cpu_model(line, sizeof line);
	printf("INFO cpu=%s\n", line);

	run("/bin/guestbench");
	if (!access("/bin/guestbench32", X_OK))
		run("/bin/guestbench32");
	first_line("/proc/uptime", line, sizeof line);
	line[strcspn(line, " ")] = 0;
	printf("INFO uptime_end=%s\n", line);
	printf("BENCHDONE\n");
	sync();
	reboot(RB_POWER_OFF);
	reboot(RB_HALT_SYSTEM);
	for (;;)
		pause();
}
