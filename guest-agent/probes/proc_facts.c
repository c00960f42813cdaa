/* SPDX-License-Identifier: MIT */
/*
 * The stat and status of other processes: see proc_facts.h.
 */
#include "common/util.h"

#include "guest-agent/probes/proc_facts.h"

#include <poll.h>

static struct {
	bool open;
	/* Of the request that runs. */
	enum reader_files asked;
	size_t n;
	pid_t pids[READER_PIDS_MAX];
	uint64_t window_ns; /* when the window began */
	uint64_t waited_ns; /* in this window */
	struct proc_reader reader;
	struct reader_answer answer;
} facts;

void facts_close(void)
{
	if (facts.open)
		proc_reader_close(&facts.reader);
	facts.open = false;
}

void facts_tend(void)
{
	if (facts.open)
		proc_reader_tend(&facts.reader);
}

/* False when no answer has come and the loop cannot wait for longer. */
static bool wait_for_answer(void)
{
	struct pollfd pfd = {.fd = facts.reader.fd, .events = POLLIN};
	const uint64_t begin_ns = monotonic_ns();
	uint64_t took_ns;
	int n;

	if (begin_ns - facts.window_ns >= FACTS_WINDOW_NS) {
		facts.window_ns = begin_ns;
		facts.waited_ns = 0;
	}
	if (facts.waited_ns >= FACTS_WAIT_NS)
		return false;
	n = poll(&pfd, 1, (int)((FACTS_WAIT_NS - facts.waited_ns) / NSEC_PER_MSEC) + 1);
	took_ns = monotonic_ns() - begin_ns;
	if (took_ns > FACTS_FREE_NS)
		facts.waited_ns += took_ns;
	return n > 0;
}

/* Whether the request that runs is this one. A question that was given up can still be answered. */
static bool is_asked(enum reader_files what, const pid_t *pids, size_t n)
{
	return facts.asked == what && facts.n == n && !memcmp(facts.pids, pids, n * sizeof(*pids));
}

/* The files' texts in facts.answer. */
static int ask(enum reader_files what, const pid_t *pids, size_t n)
{
	struct proc_reader *r = &facts.reader;
	pid_t answered;
	bool skip;
	int got;

	do {
		got = r->state == READER_ASKED
			      ? proc_reader_answer(r, &answered, &facts.answer, monotonic_ns())
			      : -EAGAIN;
		if (got != -EAGAIN && is_asked(what, pids, n))
			return got == 0 ? 0 : -EBUSY;
		if (r->state == READER_ABSENT)
			proc_reader_tend(r);
		if (proc_reader_ask(r, what, pids, n, monotonic_ns(), &skip)) {
			facts.asked = what;
			facts.n = n;
			memcpy(facts.pids, pids, n * sizeof(*pids));
		} else if (skip) {
			return -EBUSY;
		}
	} while (wait_for_answer());
	return -EAGAIN;
}

bool facts_open(void)
{
	const uint64_t until_ns = monotonic_ns() + FACTS_START_NS;
	/* A process that hung the reader has ended: nothing is gained by skipping its number. */
	int r = proc_reader_open(&facts.reader, 0);
	const pid_t self = getpid();

	while (r == 0 && (r = ask(READER_STATS, &self, 1)) != 0 && monotonic_ns() < until_ns)
		r = 0;
	facts.open = r == 0;
	if (!facts.open)
		proc_reader_close(&facts.reader);
	return facts.open;
}

int facts_stats(const pid_t *pids, size_t n, struct reader_stat *ret)
{
	int r;

	if (!facts.open) {
		for (size_t i = 0; i < n; i++)
			ret[i].error = proc_read_stat(pids[i], &ret[i].stat);
		return 0;
	}
	r = ask(READER_STATS, pids, n);
	if (r == 0)
		memcpy(ret, facts.answer.data, n * sizeof(*ret));
	return r;
}

int facts_stat(pid_t pid, struct proc_stat *ret)
{
	struct reader_stat one;
	int r = facts_stats(&pid, 1, &one);

	if (r == 0)
		r = one.error;
	if (r == 0)
		*ret = one.stat;
	return r;
}

int facts_parse(const struct reader_answer *a, struct proc_status *ret_status,
		struct proc_stat *ret_stat)
{
	const int status = a->len[READER_STATUS], stat = a->len[READER_STAT];
	int r;

	if (status < 0 || stat < 0)
		return MIN(status, stat);
	r = proc_status_parse(a->data, (size_t)status, ret_status);
	if (r < 0)
		return r;
	return proc_stat_parse(a->data + status + MAX(a->len[READER_CMDLINE], 0), (size_t)stat,
			       ret_stat);
}

int facts_both(pid_t pid, struct proc_status *ret_status, struct proc_stat *ret_stat)
{
	int r;

	if (!facts.open) {
		r = proc_read_status(pid, ret_status);
		return r < 0 ? r : proc_read_stat(pid, ret_stat);
	}
	r = ask(READER_STATUS_STAT, &pid, 1);
	return r < 0 ? r : facts_parse(&facts.answer, ret_status, ret_stat);
}
