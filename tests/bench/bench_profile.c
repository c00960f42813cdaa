/* SPDX-License-Identifier: MIT */
/*
 * What the profile costs: nanoseconds a call without a filter, with the filter of each mode, and
 * with each when it would ask an agent. Prints a table; never fails on time.
 */
#include <fcntl.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/util.h"
#include "seccomp/filter.h"
#if defined(__x86_64__)
#include "workload_x86_64.h"
#else
#include "workload_aarch64.h"
#endif

/* Filters take turns, so that what else the machine does hits all of them. */
#define TURNS  6
#define ROUNDS 3

static void do_getppid(void)
{
	syscall(SYS_getppid);
}

static void do_open(void)
{
	close(open("/dev/null", O_RDONLY | O_CLOEXEC));
}

/* A call that has rules, and passes them. */
static void do_socket(void)
{
	close(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

static void do_fork(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
}

static const struct {
	const char *name;
	void (*f)(void);
	unsigned n;
} work[] = {
	{"getppid", do_getppid, 200000},
	{"open+close", do_open, 30000},
	{"socket+close", do_socket, 20000},
	{"fork+wait", do_fork, 200},
};

static const struct {
	const char *name;
	const struct filter_table *table;
	bool notify;
} filters[] = {
	{"none", NULL, false},
	{"default", &workload_filter, false},
	{"default, agent", &workload_filter, true},
	{"share-pidns", &workload_shared_filter, false},
	{"share-pidns, agent", &workload_shared_filter, true},
};

static int install(const struct filter_table *t, bool notify)
{
	static struct sock_filter program[FILTER_PROGRAM_MAX];
	const struct filter_options o = {.protect_pid = 1, .notify = notify};
	const struct sock_fprog fprog = {.len = (unsigned short)filter_build(t, &o, program),
					 .filter = program};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		       notify ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0, &fprog) < 0
		       ? -errno
		       : 0;
}

/* The best of some rounds: what disturbs only adds. */
static double measure(void (*f)(void), unsigned n)
{
	double best = 0;

	for (int round = 0; round < ROUNDS; round++) {
		uint64_t began = monotonic_ns();
		double each;

		for (unsigned i = 0; i < n; i++)
			f();
		each = (double)(monotonic_ns() - began) / n;
		if (round == 0 || each < best)
			best = each;
	}
	return best;
}

static int turn(size_t i, double *best)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		int r = filters[i].table ? install(filters[i].table, filters[i].notify) : 0;

		for (size_t w = 0; r == 0 && w < ARRAY_SIZE(work); w++) {
			double each = measure(work[w].f, work[w].n);

			if (best[w] == 0 || each < best[w])
				best[w] = each;
		}
		_exit(-r);
	}
	if (waitpid(pid, &status, 0) < 0)
		return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

int main(void)
{
	/* Shared with the children: a filter once installed stays. */
	double(*best)[ARRAY_SIZE(work)] =
		mmap(NULL, sizeof(*best) * ARRAY_SIZE(filters), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (best == MAP_FAILED)
		return 1;
	for (int t = 0; t < TURNS; t++) {
		for (size_t i = 0; i < ARRAY_SIZE(filters); i++) {
			int r = turn(i, best[i]);

			if (r < 0) {
				fprintf(stderr, "%s: %s\n", filters[i].name, strerror(-r));
				return 1;
			}
		}
	}
	printf("%-20s", "ns a call");
	for (size_t w = 0; w < ARRAY_SIZE(work); w++)
		printf("%14s", work[w].name);
	putchar('\n');
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++) {
		printf("%-20s", filters[i].name);
		for (size_t w = 0; w < ARRAY_SIZE(work); w++)
			printf("%14.1f", best[i][w]);
		putchar('\n');
	}
	return 0;
}
