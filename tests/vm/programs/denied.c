/* SPDX-License-Identifier: MIT */
/*
 * `denied`: gives up root and tries what needs a capability, each once. A line for each on standard
 * output: "SYSCALL ERRNO". The first line is "pid PID".
 *
 * `denied loop MILLISECONDS`: ordinary calls for so long; prints the longest that one took, in
 * microseconds.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "common/util.h"

static void outcome(const char *name, long r)
{
	printf("%s %d\n", name, r < 0 ? errno : 0);
	fflush(stdout);
}

static int loop(uint64_t milliseconds)
{
	uint64_t until = monotonic_ns() + milliseconds * NSEC_PER_MSEC, longest = 0;

	while (monotonic_ns() < until) {
		uint64_t start = monotonic_ns(), took;
		int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

		if (fd < 0 || write(fd, "x", 1) != 1 || getppid() < 1)
			return 1;
		close(fd);
		took = (monotonic_ns() - start) / NSEC_PER_USEC;
		longest = MAX(longest, took);
	}
	printf("%" PRIu64 "\n", longest);
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in low = {.sin_family = AF_INET, .sin_port = htons(80)};
	uint64_t milliseconds;
	int fd;

	if (argc == 3 && !strcmp(argv[1], "loop") &&
	    parse_u64(argv[2], 1, 60000, &milliseconds) == 0)
		return loop(milliseconds);
	if (argc != 1)
		return 64;
	prctl(PR_SET_NAME, "de\"ni\n\xff"
			   "ed");
	printf("pid %d\n", getpid());
	fflush(stdout);
	if (chdir("/tmp") < 0 || setresgid(65534, 65534, 65534) < 0 ||
	    setresuid(65534, 65534, 65534) < 0) {
		perror("denied");
		return 1;
	}
	outcome("mount", mount("none", "/tmp", "tmpfs", 0, ""));
	outcome("mknodat", mknod("/tmp/device", S_IFBLK | 0600, makedev(1, 1)));
	outcome("chroot", chroot("/tmp"));
	outcome("socket", socket(AF_INET, SOCK_RAW, 1));
	fd = socket(AF_INET, SOCK_STREAM, 0);
	outcome("bind", bind(fd, (struct sockaddr *)&low, sizeof(low)));
	outcome("init_module", syscall(SYS_init_module, "", 0L, ""));
	outcome("reboot", reboot(RB_AUTOBOOT));
	outcome("sethostname", sethostname("x", 1));
	outcome("setuid", setuid(0));
	outcome("openat", open("/root/secret", O_RDONLY));
	return 0;
}
