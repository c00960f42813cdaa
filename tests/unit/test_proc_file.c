/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/util.h"
#include "guest-agent/probes/proc_file.h"
#include "tests/unit/unit.h"

#define STAT_TAIL " S 7 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 3 0 123456 0 0 18446744073709551615"

static int parse(const char *text, struct proc_stat *st)
{
	return proc_stat_parse(text, strlen(text), st);
}

UNIT_TEST(test_stat)
{
	struct proc_stat st;

	ck_assert_int_eq(parse("42 (cat)" STAT_TAIL, &st), 0);
	ck_assert_int_eq(st.pid, 42);
	ck_assert_int_eq(st.ppid, 7);
	ck_assert_int_eq(st.state, 'S');
	ck_assert_uint_eq(st.threads, 3);
	ck_assert_uint_eq(st.start_ticks, 123456);
	ck_assert(!st.kernel_thread);
	ck_assert_uint_eq(st.comm_len, 3);
	ck_assert_mem_eq(st.comm, "cat", 3);
	ck_assert_uint_eq(st.cpu_ticks, 0);
	ck_assert(!st.has_stack);
}

UNIT_TEST(test_stat_of_execve)
{
	struct proc_stat st;

	ck_assert_int_eq(
		parse("42 (cat) R 7 1 1 0 -1 0 8 9 0 0 5 6 0 0 20 0 3 0 1 0 0 9 1 1 0 0", &st), 0);
	ck_assert_uint_eq(st.faults, 8);
	ck_assert_uint_eq(st.cpu_ticks, 11);
	ck_assert(!st.has_stack);
	ck_assert_int_eq(
		parse("42 (cat) R 7 1 1 0 -1 0 0 0 0 0 5 6 0 0 20 0 3 0 1 0 0 9 1 1 140722 0", &st),
		0);
	ck_assert(st.has_stack);
	/* The sum of the two is no number. */
	ck_assert_int_eq(parse("42 (cat) R 7 1 1 0 -1 0 0 0 0 0 18446744073709551615 1 0 0 20 0 3 "
			       "0 1 0 0 9 1 1 0 0",
			       &st),
			 -EBADMSG);
	/* This one's own. */
	ck_assert_int_eq(proc_read_stat(getpid(), &st), 0);
	ck_assert(st.has_stack);
}

/* A process chooses its name: nothing in it may look like the fields behind it. */
UNIT_TEST(test_stat_hostile_comm)
{
	static const char *const comms[] = {") R 1 (", "a b", "\n", ")", "((", "", "\xff\xfe"};
	struct proc_stat st;
	char line[256];

	for (size_t i = 0; i < ARRAY_SIZE(comms); i++) {
		snprintf(line, sizeof(line), "42 (%s)%s", comms[i], STAT_TAIL);
		ck_assert_int_eq(parse(line, &st), 0);
		ck_assert_int_eq(st.ppid, 7);
		ck_assert_uint_eq(st.comm_len, strlen(comms[i]));
		ck_assert_mem_eq(st.comm, comms[i], st.comm_len);
	}
	/* Longer than any kernel's: cut, not overrun. */
	ck_assert_int_eq(parse("42 (0123456789abcdefghij)" STAT_TAIL, &st), 0);
	ck_assert_uint_eq(st.comm_len, PROC_COMM_MAX - 1);
}

UNIT_TEST(test_stat_kernel_thread)
{
	struct proc_stat st;

	ck_assert_int_eq(
		parse("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 3 0 0", &st), 0);
	ck_assert(st.kernel_thread);
}

UNIT_TEST(test_stat_malformed)
{
	static const char *const bad[] = {
		"",
		"x (cat)" STAT_TAIL,
		"0 (cat)" STAT_TAIL,
		"-1 (cat)" STAT_TAIL,
		"2147483648 (cat)" STAT_TAIL,
		"99999999999999999999 (cat)" STAT_TAIL,
		"42 cat" STAT_TAIL,
		"42 (cat",
		"42 (cat)",
		"42 (cat) S",
		"42 (cat) S x 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 3 0 123456",
		"42 (cat) S -7 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 3 0 123456",
		"42 (cat) S 7 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 4294967296 0 123456",
		"42 (cat) S 7 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 3 0",
	};
	const char *good = "42 (cat)" STAT_TAIL;
	struct proc_stat st = {.pid = 1};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(parse(bad[i], &st) == -EBADMSG, "%s", bad[i]);
	ck_assert_int_eq(st.pid, 1);
	/* Cut anywhere before the last field that is read. */
	for (size_t len = 0; len < (size_t)(strstr(good, "123456") - good); len++)
		ck_assert_int_eq(proc_stat_parse(good, len, &st), -EBADMSG);
}

static pid_t thread_id;

static void *look_at_itself(_unused_ void *arg)
{
	pid_t tgid = 0;
	uint64_t effective = 0, leaders = 1;

	thread_id = (pid_t)syscall(SYS_gettid);
	ck_assert_int_eq(proc_read_tgid(thread_id, &tgid), 0);
	ck_assert_int_eq(tgid, getpid());
	ck_assert_int_eq(proc_read_capabilities(thread_id, &effective), 0);
	ck_assert_int_eq(proc_read_capabilities(getpid(), &leaders), 0);
	ck_assert_uint_eq(effective, leaders);
	return NULL;
}

UNIT_TEST(test_thread)
{
	char status[PROC_STATUS_MAX];
	uint64_t effective, said;
	pthread_t thread;
	pid_t tgid = 5;
	int n;

	ck_assert_int_eq(pthread_create(&thread, NULL, look_at_itself, NULL), 0);
	pthread_join(thread, NULL);
	ck_assert_int_ne(thread_id, getpid());

	n = proc_read_file("/proc/1/status", status, sizeof(status));
	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(proc_status_value(status, (size_t)n, "CapEff", 16, &said), 0);
	ck_assert_int_eq(proc_read_capabilities(1, &effective), 0);
	ck_assert_uint_eq(effective, said);
	ck_assert_int_eq(proc_read_tgid(1, &tgid), 0);
	ck_assert_int_eq(tgid, 1);

	/* 0 is nobody: a caller in a pid namespace that the agent does not see. */
	ck_assert_int_eq(proc_read_capabilities(0, &effective), -ESRCH);
	ck_assert_int_eq(proc_read_capabilities(INT_MAX, &effective), -ESRCH);
	ck_assert_int_eq(proc_read_tgid(0, &tgid), -ENOENT);
	ck_assert_int_eq(proc_read_tgid(INT_MAX, &tgid), -ENOENT);
	ck_assert_int_eq(tgid, 1);
	ck_assert_uint_eq(effective, said);
}

UNIT_TEST(test_status)
{
	static const char text[] = "Name:\tcat\nTgid:\t77\nCapInh:\t0\nCapEff:\t000001ffffffffff\n"
				   "Bad:\t12x\nHuge:\tfffffffffffffffff\nEmpty:\t\nLast:\t9";
	uint64_t v = 5;

	ck_assert_int_eq(proc_status_value(text, strlen(text), "Tgid", 10, &v), 0);
	ck_assert_uint_eq(v, 77);
	ck_assert_int_eq(proc_status_value(text, strlen(text), "CapEff", 16, &v), 0);
	ck_assert_uint_eq(v, UINT64_C(0x1ffffffffff));
	ck_assert_int_eq(proc_status_value(text, strlen(text), "Last", 10, &v), 0);
	ck_assert_uint_eq(v, 9);
	ck_assert_int_eq(proc_status_value(text, strlen(text), "Cap", 16, &v), -ENOENT);
	ck_assert_int_eq(proc_status_value(text, strlen(text), "Nothing", 10, &v), -ENOENT);
	ck_assert_int_eq(proc_status_value(text, strlen(text), "Bad", 10, &v), -EBADMSG);
	ck_assert_int_eq(proc_status_value(text, strlen(text), "CapEff", 10, &v), -EBADMSG);
	ck_assert_int_eq(proc_status_value(text, strlen(text), "Huge", 16, &v), -EBADMSG);
	ck_assert_int_eq(proc_status_value(text, strlen(text), "Empty", 10, &v), -EBADMSG);
	ck_assert_int_eq(proc_status_value("", 0, "Tgid", 10, &v), -ENOENT);
	ck_assert_uint_eq(v, 9);
}

/* Of a child: an emulator of user programs makes up what a process reads of itself. */
UNIT_TEST(test_process)
{
	char comm[PROC_COMM_MAX], exe[4096], path[4096], link[64], small[4];
	struct proc_stat st;
	int ready[2];
	pid_t child;
	ssize_t n;

	ck_assert_int_eq(pipe(ready), 0);
	child = unit_fork();
	if (child == 0) {
		prctl(PR_SET_NAME, "a\n) b\n");
		n = write(ready[1], "", 1);
		pause();
		_exit((int)n);
	}
	ck_assert_int_eq(read(ready[0], small, 1), 1);
	ck_assert_int_eq(proc_read_comm(child, comm), 6);
	ck_assert_mem_eq(comm, "a\n) b\n", 6);
	ck_assert_int_eq(proc_read_stat(child, &st), 0);
	ck_assert_int_eq(st.pid, child);
	ck_assert_int_eq(st.ppid, getpid());
	ck_assert_uint_eq(st.comm_len, 6);

	snprintf(link, sizeof(link), "/proc/%d/exe", child);
	n = readlink(link, path, sizeof(path));
	ck_assert_int_eq(proc_read_exe(child, exe, sizeof(exe)), n);
	ck_assert_mem_eq(exe, path, (size_t)n);
	ck_assert_int_eq(proc_read_exe(child, small, sizeof(small)), 4);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	close(ready[0]);
	close(ready[1]);
	ck_assert_int_eq(proc_read_file("/proc/version", small, sizeof(small)), 4);
	ck_assert_mem_eq(small, "Linu", 4);
}

UNIT_TEST(test_gone)
{
	char comm[PROC_COMM_MAX], exe[16];
	struct proc_stat st;
	struct proc_dir dir;
	pid_t nobody = INT32_MAX;

	ck_assert_int_eq(proc_read_comm(nobody, comm), -ENOENT);
	ck_assert_int_eq(proc_read_exe(nobody, exe, sizeof(exe)), -ENOENT);
	ck_assert_int_eq(proc_read_stat(nobody, &st), -ENOENT);
	ck_assert_int_eq(proc_dir_open_fds(&dir, nobody), -ENOENT);
	ck_assert_int_eq(dir.fd, -1);
}

UNIT_TEST(test_dir)
{
	/* What it held before is of no use. */
	struct proc_dir dir = {.pos = 1, .len = 24};
	bool self = false, fd_seen = false;
	unsigned first = 0, second = 0;
	pid_t n;

	ck_assert_int_eq(proc_dir_open(&dir), 0);
	while (proc_dir_next(&dir, &n) > 0) {
		self |= n == getpid();
		first++;
	}
	ck_assert(self);
	ck_assert_int_eq(proc_dir_rewind(&dir), 0);
	while (proc_dir_next(&dir, &n) > 0)
		second++;
	ck_assert_uint_gt(second, 0);
	ck_assert_uint_gt(first, 0);
	proc_dir_close(&dir);

	ck_assert_int_eq(proc_dir_open_fds(&dir, getpid()), 0);
	while (proc_dir_next(&dir, &n) > 0)
		fd_seen |= n == dir.fd;
	ck_assert(fd_seen);
	proc_dir_close(&dir);
}
