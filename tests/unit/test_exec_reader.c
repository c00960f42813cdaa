/* SPDX-License-Identifier: MIT */
/*
 * The reader of executed processes. One question gives status, arguments and stat. An answer
 * belongs to the execution that the question was about, and to no other. A reader that hangs is
 * replaced.
 */
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "common/util.h"
#include "guest-agent/probes/exec_reader.h"
#include "tests/unit/unit.h"

#define SKIP_NS (3600 * NSEC_PER_SEC) /* longer than this test can take */

static struct exec_reader reader;
static struct exec_holds holds;
static pid_t sleeper;

static void setup(void)
{
	memset(&holds, 0, sizeof(holds));
	sleeper = unit_fork();
	while (sleeper == 0)
		pause();
	ck_assert_int_eq(exec_reader_open(&reader, true), 0);
	reader.reader.skip_ns = 0;
}

static void teardown(void)
{
	exec_reader_close(&reader);
	kill(sleeper, SIGKILL);
	waitpid(sleeper, NULL, 0);
}

/* An execution of pid, about which the reader is asked when it is free. */
static struct exec_held *held(pid_t pid)
{
	struct exec_held *h = exec_hold_begin(&holds, pid, monotonic_ns(), monotonic_ns());

	ck_assert_ptr_nonnull(h);
	exec_read_links(pid, &h->facts);
	ck_assert(h->facts.pending);
	exec_reader_want(&reader, h);
	exec_reader_ask(&reader, &holds);
	return h;
}

/* As the loop does, until h is answered. A machine can be too slow for the first readers. */
static void until_answered(struct exec_held *h)
{
	while (exec_reader_take(&reader, &holds) != h) {
		if (h->question == EXEC_NOT_ASKED)
			exec_reader_want(&reader, h);
		exec_reader_ask(&reader, &holds);
		exec_reader_tend(&reader);
	}
}

static void wait_for_answer(void)
{
	struct pollfd pfd = {.fd = reader.reader.fd, .events = POLLIN};

	while (poll(&pfd, 1, -1) < 0)
		;
}

UNIT_TEST(test_answer)
{
	struct exec_held *h = held(sleeper);
	struct proc_stat st;

	ck_assert_int_eq(h->question, EXEC_ASKED);
	until_answered(h);
	ck_assert_int_eq(h->question, EXEC_NOT_ASKED);
	ck_assert_int_eq(h->facts.why, EXEC_RESOLVED);
	ck_assert(h->facts.there && !h->facts.pending);
	ck_assert_int_eq(proc_read_stat(sleeper, &st), 0);
	ck_assert_uint_eq(h->facts.stat.start_ticks, st.start_ticks);
	ck_assert_uint_eq(h->facts.status.uid, getuid());
	ck_assert(h->has_args);
	ck_assert_uint_gt(h->args_len, 0);
}

UNIT_TEST(test_no_arguments)
{
	struct exec_held *h;

	reader.args = false;
	h = held(sleeper);
	until_answered(h);
	ck_assert_int_eq(h->facts.why, EXEC_RESOLVED);
	ck_assert(!h->has_args);
}

/* Another process has the number: neither the path nor the arguments are of the one that executed.
 */
UNIT_TEST(test_other_start)
{
	struct exec_held *h = held(sleeper);

	h->start_ns = 1;
	until_answered(h);
	ck_assert_int_eq(h->facts.why, EXEC_GONE);
	ck_assert(!h->has_args);
}

UNIT_TEST(test_gone)
{
	struct exec_held *h;
	const pid_t pid = unit_fork();

	while (pid == 0)
		pause();
	kill(reader.reader.child, SIGSTOP);
	h = held(pid);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	kill(reader.reader.child, SIGCONT);
	/* It answers in time, or the next one is asked by the loop. */
	while (h->question == EXEC_ASKED)
		(void)exec_reader_take(&reader, &holds);
	ck_assert(h->facts.pending || h->facts.why == EXEC_GONE);
	ck_assert(!h->has_args);
}

/* The answer to an earlier question of the same number is not taken. */
UNIT_TEST(test_executed_again)
{
	struct exec_held *h = held(sleeper);

	wait_for_answer();
	h->pid = 0;
	holds.n--;
	h = held(sleeper);
	ck_assert_int_eq(h->question, EXEC_TO_ASK);
	ck_assert_ptr_null(exec_reader_take(&reader, &holds));
	ck_assert(h->facts.pending);
	until_answered(h);
	ck_assert_int_eq(h->facts.why, EXEC_RESOLVED);
}

/* The one that hung it is left alone; the others wait for the next reader. */
UNIT_TEST(test_hung)
{
	const pid_t first = reader.reader.child;
	struct exec_held *h, *other;

	reader.reader.skip_ns = SKIP_NS;
	kill(first, SIGSTOP);
	h = held(sleeper);
	other = held(getpid());
	ck_assert_int_eq(other->question, EXEC_TO_ASK);
	while (h->question == EXEC_ASKED)
		ck_assert_ptr_null(exec_reader_take(&reader, &holds));
	ck_assert_int_ne(reader.reader.child, first);
	ck_assert(h->facts.pending);
	reader.reader.skip_ns = 0;
	until_answered(other);
	exec_reader_want(&reader, h);
	exec_reader_ask(&reader, &holds);
	ck_assert_int_eq(h->question, EXEC_NOT_ASKED);
}

/* What begins while the reader is late does not wait for it. */
UNIT_TEST(test_late)
{
	struct exec_held *h;

	kill(reader.reader.child, SIGSTOP);
	h = held(sleeper);
	ck_assert_uint_gt(h->ask_until_ns, 0);
	reader.reader.asked_ns -= EXEC_ASK_NS;
	h = held(getpid());
	ck_assert_uint_eq(h->ask_until_ns, 0);
}

UNIT_SUITE(.begin = unit_needs_seccomp, .setup = setup, .teardown = teardown);
