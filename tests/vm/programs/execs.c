/* SPDX-License-Identifier: MIT */
/*
 * Executions that are hard to name. `execs all COUNT` runs them in turn and prints a line for each
 * process, "WHAT PID"; it copies itself to /tmp/evil, which is what they execute first.
 *
 * `execs full COUNT`: COUNT sleepers, then a process whose first thread ends at once, and which
 * ends with 42 a second later by another thread. Prints its pid.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/util.h"

#define EVIL "/tmp/evil"

static void die(const char *what)
{
	fprintf(stderr, "execs: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void copy_self(const char *to)
{
	_cleanup_close_ int in = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	_cleanup_close_ int out = open(to, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0755);
	char buf[65536];
	ssize_t n;

	if (in < 0 || out < 0)
		die(to);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		if (write(out, buf, (size_t)n) != n)
			die(to);
}

static void pause_ms(unsigned ms)
{
	const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&t, NULL);
}

/* Runs /tmp/evil with an argument and a further one, and waits for its end. */
static void run(const char *what, const char *arg, const char *more)
{
	const pid_t pid = fork();

	if (pid == 0) {
		execl(EVIL, "evil", arg, more, (char *)NULL);
		_exit(99);
	}
	waitpid(pid, NULL, 0);
	printf("%s %d\n", what, pid);
	fflush(stdout);
	pause_ms(30);
}

static void traced(void)
{
	const pid_t pid = fork();

	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		execl(EVIL, "evil", "sleep", "100", (char *)NULL);
		_exit(99);
	}
	waitpid(pid, NULL, 0);
	pause_ms(200);
	ptrace(PTRACE_CONT, pid, NULL, NULL);
	waitpid(pid, NULL, 0);
	printf("traced %d\n", pid);
}

static void attached(void)
{
	const pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	pause_ms(50);
	if (ptrace(PTRACE_ATTACH, pid, NULL, NULL) < 0)
		die("ptrace");
	waitpid(pid, NULL, 0);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	printf("attached %d %d\n", pid, getpid());
}

/* A path that is longer than the kernel tells. */
static void deep(void)
{
	char name[201];

	memset(name, 'd', 200);
	name[200] = '\0';
	if (chdir("/tmp") < 0)
		die("/tmp");
	for (unsigned i = 0; i < 24; i++)
		if (mkdir(name, 0700) < 0 || chdir(name) < 0)
			die("mkdir");
	copy_self("hidden");
	const pid_t pid = fork();

	if (pid == 0) {
		execl("./hidden", "hidden", "sleep", "300", (char *)NULL);
		_exit(99);
	}
	waitpid(pid, NULL, 0);
	printf("deep %d\n", pid);
	if (chdir("/") < 0)
		die("/");
}

static void arguments(void)
{
	char *longest = malloc(3000);
	pid_t pid = fork();

	if (pid == 0) {
		execl(EVIL, "evil", "sleep", "500", "a b", "new\nline", "", "end", (char *)NULL);
		_exit(99);
	}
	printf("args %d\n", pid);
	memset(longest, 'x', 2999);
	longest[2999] = '\0';
	waitpid(pid, NULL, 0);
	pid = fork();
	if (pid == 0) {
		execl(EVIL, "evil", "sleep", "500", longest, (char *)NULL);
		_exit(99);
	}
	printf("args_cut %d\n", pid);
	waitpid(pid, NULL, 0);
	free(longest);
}

static int connect_then_exec(void)
{
	const struct sockaddr_in to = {.sin_family = AF_INET,
				       .sin_port = htons(31337),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	(void)!connect(socket(AF_INET, SOCK_DGRAM, 0), (const struct sockaddr *)&to, sizeof(to));
	execl("/bin/sleep", "sleep", "0.1", (char *)NULL);
	return 99;
}

static int identity(void)
{
	pause_ms(100);
	if (setresgid(1001, 1002, 0) < 0 || setsid() < 0 || setresuid(1001, 1002, 0) < 0)
		die("identity");
	return 0;
}

static int dump_core(void)
{
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};

	pause_ms(100);
	setrlimit(RLIMIT_CORE, &unlimited);
	if (chdir("/tmp") < 0)
		die("/tmp");
	abort();
}

static void *end_later(_unused_ void *unused)
{
	pause_ms(1000);
	_exit(42);
}

static int leader(void)
{
	pthread_t t;

	pthread_create(&t, NULL, end_later, NULL);
	pthread_exit(NULL);
}

static int full(unsigned count)
{
	pid_t pid;

	setpgid(0, 0);
	for (unsigned i = 0; i < count; i++)
		if (fork() == 0)
			for (;;)
				pause();
	pause_ms(500);
	pid = fork();
	if (pid == 0)
		return leader();
	waitpid(pid, NULL, 0);
	printf("%d\n", pid);
	fflush(stdout);
	pause_ms(500);
	signal(SIGTERM, SIG_IGN);
	kill(0, SIGTERM);
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t n = 0;

	if (argc < 2)
		return 64;
	if (argc > 2)
		parse_u64(argv[2], 0, 100000, &n);
	if (!strcmp(argv[1], "true")) {
		/* Some time in between, spent as a program would, and on to the next. */
		for (const uint64_t end = monotonic_ns() + n * NSEC_PER_USEC; monotonic_ns() < end;)
			;
		execl("/bin/true", "true", (char *)NULL);
		return 99;
	}
	if (!strcmp(argv[1], "connect"))
		return connect_then_exec();
	if (!strcmp(argv[1], "identity"))
		return identity();
	if (!strcmp(argv[1], "core"))
		return dump_core();
	if (!strcmp(argv[1], "sleep")) {
		pause_ms((unsigned)n);
		return 0;
	}
	if (!strcmp(argv[1], "full"))
		return full((unsigned)n);
	if (!strcmp(argv[1], "args")) {
		arguments();
		return 0;
	}
	copy_self(EVIL);
	for (uint64_t i = 0; i < n; i++)
		run("chain", "true", i % 2 ? "300" : "0");
	for (uint64_t i = 0; i < n; i++)
		run("connexec", "connect", NULL);
	traced();
	attached();
	deep();
	run("identity", "identity", NULL);
	run("core", "core", NULL);
	return 0;
}
