/* SPDX-License-Identifier: MIT */
/*
 * The reader of stat and status: its answers are what the files say, and a reader that does not
 * answer costs the loop a bounded time and is replaced.
 */
#include <signal.h>
#include <sys/wait.h>

#include "common/util.h"
#include "guest-agent/probes/proc_facts.h"
#include "guest-agent/probes/proc_reader.h"
#include "tests/unit/unit.h"

#define TURNS	   16u
#define TURN_MAX_S 30 /* a patience, where the claim is that it does not wait for ever */

static pid_t sleeper;

static void setup(void)
{
	sleeper = unit_fork();
	while (sleeper == 0)
		pause();
	ck_assert(facts_open());
}

static void teardown(void)
{
	facts_close();
	kill(sleeper, SIGKILL);
	waitpid(sleeper, NULL, 0);
}

/* As the loop does: again in the next turn. */
static int stat_later(pid_t pid, struct proc_stat *ret)
{
	int r;

	do
		r = facts_stat(pid, ret);
	while (facts_are_late(r));
	return r;
}

static int both_later(pid_t pid, struct proc_status *ret_status, struct proc_stat *ret_stat)
{
	int r;

	do
		r = facts_both(pid, ret_status, ret_stat);
	while (facts_are_late(r));
	return r;
}

/* The reader: the child of this process that is not the sleeper. */
static pid_t reader(void)
{
	struct proc_dir dir;
	pid_t pid, found = 0;

	ck_assert_int_eq(proc_dir_open(&dir), 0);
	while (proc_dir_next(&dir, &pid) > 0) {
		struct proc_stat st;

		if (pid != sleeper && proc_read_stat(pid, &st) == 0 && st.ppid == getpid() &&
		    st.state != 'Z')
			found = pid;
	}
	proc_dir_close(&dir);
	return found;
}

UNIT_TEST(test_answers)
{
	struct proc_status status, direct;
	struct proc_stat st, own;

	ck_assert_int_eq(stat_later(sleeper, &st), 0);
	ck_assert_int_eq(st.pid, sleeper);
	ck_assert_int_eq(st.ppid, getpid());
	ck_assert_int_eq(proc_read_stat(sleeper, &own), 0);
	ck_assert_uint_eq(st.start_ticks, own.start_ticks);
	ck_assert_int_eq(both_later(sleeper, &status, &st), 0);
	ck_assert_int_eq(proc_read_status(sleeper, &direct), 0);
	ck_assert_int_eq(st.pid, sleeper);
	ck_assert_uint_eq(status.uid, direct.uid);
	ck_assert_int_eq(status.tracer, 0);
	ck_assert_int_eq(status.seccomp, direct.seccomp);
	/* The reader has a filter. */
	ck_assert_int_eq(both_later(reader(), &status, &st), 0);
	ck_assert(status.seccomp);
}

UNIT_TEST(test_gone)
{
	struct proc_status status;
	struct proc_stat st;
	const pid_t pid = unit_fork();

	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
	ck_assert_int_eq(stat_later(pid, &st), -ENOENT);
	ck_assert_int_eq(both_later(pid, &status, &st), -ENOENT);
}

UNIT_TEST(test_hung)
{
	const pid_t first = reader();
	const uint64_t begin_ns = monotonic_ns();
	struct proc_stat st;

	kill(first, SIGSTOP);
	/* It was not asked before it stood still. */
	for (unsigned i = 0; i < TURNS; i++)
		ck_assert_int_eq(facts_are_late(facts_stat(sleeper, &st)) || st.pid == sleeper, 1);
	ck_assert_uint_lt(monotonic_ns() - begin_ns, TURN_MAX_S * NSEC_PER_SEC);
	/* Another one answers. */
	ck_assert_int_eq(stat_later(sleeper, &st), 0);
	ck_assert_int_eq(st.pid, sleeper);
	ck_assert_int_ne(reader(), first);
}

/* A late answer is not taken for the answer to the next question. */
UNIT_TEST(test_late)
{
	const pid_t first = reader();
	struct proc_stat st;

	kill(first, SIGSTOP);
	(void)facts_stat(sleeper, &st);
	kill(first, SIGCONT);
	ck_assert_int_eq(stat_later(getpid(), &st), 0);
	ck_assert_int_eq(st.pid, getpid());
	ck_assert_int_eq(stat_later(sleeper, &st), 0);
	ck_assert_int_eq(st.pid, sleeper);
}

UNIT_TEST(test_killed)
{
	const pid_t first = reader();
	struct proc_stat st;

	kill(first, SIGKILL);
	ck_assert_int_eq(stat_later(sleeper, &st), 0);
	ck_assert_int_eq(st.pid, sleeper);
}

UNIT_SUITE(.begin = unit_needs_seccomp, .setup = setup, .teardown = teardown);
