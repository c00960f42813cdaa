/* SPDX-License-Identifier: MIT */
/*
 * The reader of executed processes: see exec_reader.h.
 */
#include "common/util.h"

#include "guest-agent/probes/exec_reader.h"

int exec_reader_open(struct exec_reader *x, bool args)
{
	const int r = proc_reader_open(&x->reader, READER_SKIP_NS);

	x->open = r == 0;
	x->args = args;
	if (r < 0)
		proc_reader_close(&x->reader);
	return r;
}

void exec_reader_close(struct exec_reader *x)
{
	if (x->open)
		proc_reader_close(&x->reader);
	x->open = false;
}

void exec_reader_tend(struct exec_reader *x)
{
	if (x->open)
		proc_reader_tend(&x->reader);
}

void exec_reader_want(struct exec_reader *x, struct exec_held *h)
{
	const uint64_t now_ns = monotonic_ns();

	if (!x->open)
		return;
	h->question = EXEC_TO_ASK;
	h->ask_until_ns = now_ns + EXEC_ASK_NS;
	/* What makes the reader late would make this one late, too. */
	if (x->reader.state == READER_ASKED && now_ns >= x->reader.asked_ns + EXEC_ASK_NS)
		h->ask_until_ns = 0;
}

void exec_reader_ask(struct exec_reader *x, struct exec_holds *holds)
{
	struct exec_held *h;
	bool skip;

	while (x->open && (h = exec_hold_to_ask(holds))) {
		/* A process that has ended has no arguments any more. */
		const bool args = x->args && !h->silent && !h->ended;

		if (proc_reader_ask(&x->reader, args ? READER_EXECUTED : READER_STATUS_STAT,
				    &h->pid, 1, monotonic_ns(), &skip))
			h->question = EXEC_ASKED;
		else if (skip)
			h->question = EXEC_NOT_ASKED;
		else
			break;
	}
}

/* The other reader can have been faster with stat and status. */
static void learn(const struct reader_answer *a, struct exec_held *h)
{
	struct proc_status status;
	struct proc_stat st;
	const int r = facts_parse(a, &status, &st);

	if (h->facts.pending) {
		if (r == 0) {
			h->facts.status = status;
			h->facts.stat = st;
		}
		exec_learn(&h->facts, h->start_ns, r);
	}
	if (r == 0 && h->facts.why == EXEC_RESOLVED && st.start_ticks == h->facts.stat.start_ticks)
		exec_hold_args(h, a->data + a->len[READER_STATUS], a->len[READER_CMDLINE],
			       monotonic_ns());
}

struct exec_held *exec_reader_take(struct exec_reader *x, struct exec_holds *holds)
{
	int r = -EAGAIN;
	pid_t pid;

	while (x->open &&
	       (r = proc_reader_answer(&x->reader, &pid, &x->answer, monotonic_ns())) != -EAGAIN) {
		struct exec_held *h = exec_hold_find(holds, pid);

		if (!h || h->question != EXEC_ASKED)
			continue;
		h->question = EXEC_NOT_ASKED;
		if (r < 0)
			continue;
		learn(&x->answer, h);
		return h;
	}
	return NULL;
}
